//! Passwords: hashed by argon2id; bcrypt, as OneX wrote it, is still read.

use std::sync::Arc;

use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _, password_hash::phc::PasswordHash};
use ring::rand::{SecureRandom, SystemRandom};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// How hard passwords are to guess for whoever steals their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Memory that one hash takes, in KiB.
    pub memory_kib: u32,
    /// How often it goes over that memory.
    pub passes: u32,
    /// How many passwords are hashed at the same time; the others wait.
    pub at_once: u16,
}

impl Default for Settings {
    fn default() -> Self {
        // As hard as 19 MiB and two passes, and easier on a small machine: what was used once is kept by the allocator.
        Self { memory_kib: 7 * 1024, passes: 5, at_once: 2 }
    }
}

/// Hashes and compares passwords, not too many at once: each takes memory and a processor for a while.
#[derive(Clone)]
pub struct Passwords {
    parameters: Params,
    free: Arc<Semaphore>,
}

/// What came of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is another password.
    Wrong,
    /// It is the password.
    Right,
    /// It is the password, and its hash is of a kind that is not made any more: it should be hashed anew.
    RightAndOld,
}

/// Passwords could not be hashed.
#[derive(Debug, thiserror::Error)]
#[error("passwords could not be hashed: {0}")]
pub struct Error(String);

impl Passwords {
    /// Hashes as `settings` say.
    ///
    /// # Errors
    /// When they say what cannot be.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let parameters =
            Params::new(settings.memory_kib, settings.passes, 1, None).map_err(|error| Error(error.to_string()))?;
        Ok(Self { parameters, free: Arc::new(Semaphore::new(settings.at_once.max(1).into())) })
    }

    /// What is stored of `password`.
    ///
    /// # Errors
    /// When there is no memory or no randomness.
    pub async fn hash(&self, password: &str) -> Result<String, Error> {
        let password = password.to_owned();
        self.work(move |parameters| hash(parameters, &password)).await?
    }

    /// Whether `password` is the one of which `stored` was kept. Where nothing was, it takes as long, and is wrong.
    ///
    /// # Errors
    /// When there is no memory or no randomness.
    pub async fn compare(&self, stored: Option<&str>, password: &str) -> Result<Verdict, Error> {
        let stored = match stored {
            Some(stored) => stored.to_owned(),
            None => self.decoy()?,
        };
        let password = password.to_owned();
        self.work(move |parameters| compare(parameters, &stored, &password)).await
    }

    /// What looks like the hash of a password that nobody knows.
    fn decoy(&self) -> Result<String, Error> {
        use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
        let random = random::<48>()?;
        let (salt, output) = random.split_at(16);
        Ok(format!(
            "$argon2id$v=19$m={},t={},p=1${}${}",
            self.parameters.m_cost(),
            self.parameters.t_cost(),
            STANDARD_NO_PAD.encode(salt),
            STANDARD_NO_PAD.encode(output)
        ))
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Params) -> T + Send + 'static) -> Result<T, Error> {
        let permit = self.free.clone().acquire_owned().await.map_err(|error| Error(error.to_string()))?;
        let parameters = self.parameters.clone();
        // The permit goes with the work: whoever asked may have left, and the memory is in use all the same.
        let task = tokio::task::spawn_blocking(move || {
            let done = work(&parameters);
            drop(permit);
            done
        });
        task.await.map_err(|error| Error(error.to_string()))
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], Error> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error("the system gives no random numbers".to_owned()))?;
    Ok(bytes)
}

fn hash(parameters: &Params, password: &str) -> Result<String, Error> {
    let hashed = Argon2::from(parameters).hash_password_with_salt(password.as_bytes(), &random::<16>()?);
    hashed.map(|hash| hash.to_string()).map_err(|error| Error(error.to_string()))
}

fn compare(parameters: &Params, stored: &str, password: &str) -> Verdict {
    if stored.starts_with("$2") {
        // As OneX compared: what is beyond 72 bytes does not count.
        let right = bcrypt::verify(password, stored).unwrap_or(false);
        return if right { Verdict::RightAndOld } else { Verdict::Wrong };
    }
    let Ok(hash) = PasswordHash::new(stored) else { return Verdict::Wrong };
    if Argon2::default().verify_password(password.as_bytes(), &hash).is_err() {
        return Verdict::Wrong;
    }
    let made = Params::try_from(&hash).map(|made| (made.m_cost(), made.t_cost()));
    let current = hash.algorithm.as_str() == "argon2id" && made == Ok((parameters.m_cost(), parameters.t_cost()));
    if current { Verdict::Right } else { Verdict::RightAndOld }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weak(passes: u32) -> Passwords {
        Passwords::new(&Settings { memory_kib: 64, passes, at_once: 1 }).unwrap()
    }

    #[tokio::test]
    async fn only_the_password_itself_is_right() {
        let passwords = weak(1);
        let stored = passwords.hash("correct horse 1").await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        assert_eq!(passwords.compare(Some(&stored), "correct horse 1").await.unwrap(), Verdict::Right);
        assert_eq!(passwords.compare(Some(&stored), "correct horse 2").await.unwrap(), Verdict::Wrong);
        assert_eq!(passwords.compare(None, "correct horse 1").await.unwrap(), Verdict::Wrong);
        assert_eq!(passwords.compare(Some("not a hash"), "").await.unwrap(), Verdict::Wrong);
        assert_ne!(passwords.hash("same 1").await.unwrap(), passwords.hash("same 1").await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_of_onex_or_of_weaker_settings_is_right_and_old() {
        let passwords = weak(2);
        // Made by the reference implementation of bcrypt.
        let bcrypt = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        assert_eq!(passwords.compare(Some(bcrypt), "U*U").await.unwrap(), Verdict::RightAndOld);
        assert_eq!(passwords.compare(Some(bcrypt), "U*V").await.unwrap(), Verdict::Wrong);
        let weaker = weak(1).hash("secret 1").await.unwrap();
        assert_eq!(passwords.compare(Some(&weaker), "secret 1").await.unwrap(), Verdict::RightAndOld);
    }

    #[tokio::test]
    async fn the_decoy_is_compared_with_like_a_hash() {
        let decoy = weak(1).decoy().unwrap();
        assert!(Argon2::default().verify_password(b"x", decoy.as_str()).is_err());
        let hash = PasswordHash::new(&decoy).unwrap();
        assert_eq!(Params::try_from(&hash).unwrap().m_cost(), 64);
    }
}
