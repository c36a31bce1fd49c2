//! The first start: an administrator, and what everybody may do.

use onex_db::accounts::User;

use crate::policy::Line;
use crate::users::{ACTIVED, ADMIN, ADMIN_ID, Added, ROLE_ADMIN, ROLE_USER};
use crate::{Error, Usercenter, keys};

/// Of what generated passwords are made: nothing that looks like something else.
const CHARACTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

impl Usercenter {
    /// Makes the administrator, if there is none. Several may start at once.
    pub(crate) async fn begin(&self) -> Result<(), Error> {
        if self.0.accounts.user(ADMIN_ID).await?.is_some() {
            return Ok(());
        }
        let password = password()?;
        let now = (self.0.clock)();
        let admin = User {
            user_id: ADMIN_ID.to_owned(),
            username: ADMIN.to_owned(),
            status: ACTIVED.to_owned(),
            nickname: ADMIN.to_owned(),
            password: self.0.passwords.hash(&password).await?,
            email: String::new(),
            phone: String::new(),
            created_at: now,
            updated_at: now,
        };
        let allow = |sub: &str, act: &str| Line::Policy {
            sub: sub.to_owned(),
            obj: "*".to_owned(),
            act: act.to_owned(),
            deny: false,
        };
        // Whoever has lines from before keeps them.
        let lines = [allow(ROLE_ADMIN, "*"), allow(ROLE_USER, "/gateway.v1.Gateway/*")];
        let known = self.0.accounts.all_policies().await?;
        let known: Vec<_> = known.iter().filter_map(crate::writing::line_of).collect();
        let lines: Vec<_> = lines.into_iter().filter(|line| !known.contains(line)).collect();
        match self.add_user(&admin, ROLE_ADMIN, &lines).await {
            Ok(()) => {
                *self.0.first_password.lock() = Some(password);
                Ok(())
            }
            // Another process was faster.
            Err(Added::Taken) if self.0.accounts.user(ADMIN_ID).await?.is_some() => Ok(self.0.refresh().await?),
            Err(Added::Taken) => Err(Error::Admin("the name or a policy is taken".to_owned())),
            Err(Added::Failed(error)) => Err(Error::Admin(error.to_string())),
        }
    }
}

/// Twenty characters, a hundred bits, in groups of five.
fn password() -> Result<String, keys::Error> {
    loop {
        let random = keys::random::<20>()?;
        let mut password = String::new();
        for (place, byte) in random.iter().enumerate() {
            if place > 0 && place.is_multiple_of(5) {
                password.push('-');
            }
            password.push(char::from(CHARACTERS[usize::from(byte % 32)]));
        }
        // As our own rules ask for.
        if password.bytes().any(|byte| byte.is_ascii_digit()) {
            return Ok(password);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_generated_password_keeps_to_our_own_rules() {
        let password = super::password().unwrap();
        assert_eq!(password.len(), 23);
        assert!(password.bytes().any(|byte| byte.is_ascii_digit()), "{password}");
        assert_ne!(password, super::password().unwrap());
    }
}
