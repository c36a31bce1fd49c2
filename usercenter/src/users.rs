//! Users: registration, profiles, passwords.

use onex_db::accounts::{Found, User, UserChange};
use onex_proto::usercenter as v1;
use onex_proto::{Error, Reason, Timestamp, Violation};

use crate::Usercenter;
use crate::call::Call;
use crate::identity::Caller;
use crate::password::Verdict;
use crate::policy::Line;
use crate::sessions::{locked, login_failed};
use crate::writing::unavailable;

/// The status of users who are let in.
pub const ACTIVED: &str = "actived";
/// The administrator's id.
pub const ADMIN_ID: &str = "user-admin";
/// The administrator's name.
pub const ADMIN: &str = "admin";
/// What every user may do.
pub const ROLE_USER: &str = "role:user";
/// What administrators may do.
pub const ROLE_ADMIN: &str = "role:admin";

/// How often another id is tried.
const ATTEMPTS: usize = 8;

impl Usercenter {
    pub(crate) async fn create_user(
        &self,
        call: &Call,
        request: v1::CreateUserRequest,
    ) -> Result<v1::CreateUserResponse, Error> {
        if !self.0.settings.registration {
            let closed = || Error::new(Reason::UserOperationForbidden, "user.registration.closed");
            let caller = self.caller(call).await.map_err(|_| closed())?;
            if !self.allows(&caller.user_id, "*", "CreateUser") {
                return Err(closed());
            }
        }
        self.0.throttle.registration(&call.address, self.0.seconds()).map_err(locked)?;
        let exists = || Error::new(Reason::UserAlreadyExists, "user.exists");
        // Before the work of hashing; whether it holds is seen when it is written.
        let found = self.0.accounts.user_named(&request.username).await.map_err(|error| unavailable(&error))?;
        if found.is_some() {
            return Err(exists());
        }
        let now = (self.0.clock)();
        let nickname = if request.nickname.is_empty() { request.username.clone() } else { request.nickname };
        let mut user = User {
            user_id: String::new(),
            username: request.username,
            status: ACTIVED.to_owned(),
            nickname,
            password: self.hash(&request.password).await?,
            email: request.email,
            phone: request.phone,
            created_at: now,
            updated_at: now,
        };
        for _ in 0..ATTEMPTS {
            user.user_id = new_user_id()?;
            match self.add_user(&user, ROLE_USER, &[]).await {
                Ok(()) => return Ok(v1::CreateUserResponse { user_id: user.user_id }),
                Err(Added::Taken) => {
                    // The name or the id: only the name is for the caller to change.
                    let found =
                        self.0.accounts.user_named(&user.username).await.map_err(|error| unavailable(&error))?;
                    if found.is_some() {
                        return Err(exists());
                    }
                }
                Err(Added::Failed(error)) => return Err(error),
            }
        }
        Err(Error::new(Reason::UserCreateFailed, "user.create.failed"))
    }

    /// Adds a user who has `role`, and more lines of policies.
    pub(crate) async fn add_user(&self, user: &User, role: &str, lines: &[Line]) -> Result<(), Added> {
        let mut writing = self.0.writing().await.map_err(Added::Failed)?;
        writing.change.add_user(user).await?;
        let role = Line::Role { sub: user.user_id.clone(), role: role.to_owned() };
        for line in lines.iter().chain([&role]) {
            match writing.add(line).await {
                Ok(_) => {}
                Err(error) => return Err(Added::from(error)),
            }
        }
        writing.commit(&user.user_id).await.map_err(Added::Failed)
    }

    pub(crate) async fn update_user(
        &self,
        call: &Call,
        request: v1::UpdateUserRequest,
    ) -> Result<v1::UpdateUserResponse, Error> {
        let caller = self.caller(call).await?;
        let may = self.allows(&caller.user_id, &object(&request.user_id), "UpdateUser");
        // One's own status is not one's own to change.
        if !may && (caller.user_id != request.user_id || request.status.is_some()) {
            return Err(forbidden());
        }
        if request.user_id == ADMIN_ID && request.status.as_deref().is_some_and(|status| status != ACTIVED) {
            return Err(forbidden());
        }
        let ends = request.status.as_deref().is_some_and(|status| status != ACTIVED);
        let change = UserChange {
            username: request.username,
            nickname: request.nickname,
            email: request.email,
            phone: request.phone,
            status: request.status,
        };
        let mut writing = self.0.writing().await?;
        match writing.change.change_user(&request.user_id, &change, (self.0.clock)()).await {
            Ok(true) => {}
            Ok(false) => return Err(not_found()),
            Err(onex_db::Error::Taken(_)) => return Err(Error::new(Reason::UserAlreadyExists, "user.exists")),
            Err(error) => return Err(unavailable(&error)),
        }
        if ends {
            writing.change.end_sessions(&request.user_id).await.map_err(|error| unavailable(&error))?;
        }
        writing.commit(&request.user_id).await?;
        Ok(v1::UpdateUserResponse {})
    }

    pub(crate) async fn delete_user(
        &self,
        call: &Call,
        request: v1::DeleteUserRequest,
    ) -> Result<v1::DeleteUserResponse, Error> {
        let caller = self.caller(call).await?;
        self.hold_over(&caller, &request.user_id, "DeleteUser")?;
        if request.user_id == ADMIN_ID {
            return Err(forbidden());
        }
        let mut writing = self.0.writing().await?;
        let removed = writing.change.remove_user(&request.user_id).await.map_err(|error| unavailable(&error))?;
        if !removed {
            return Err(not_found());
        }
        // Nobody shall have by chance what was this user's.
        let lines = writing.change.remove_policies_of(&request.user_id).await.map_err(|error| unavailable(&error))?;
        writing.removed(lines);
        writing.commit(&request.user_id).await?;
        Ok(v1::DeleteUserResponse {})
    }

    pub(crate) async fn get_user(
        &self,
        call: &Call,
        request: v1::GetUserRequest,
    ) -> Result<v1::GetUserResponse, Error> {
        let caller = self.caller(call).await?;
        self.hold_over(&caller, &request.user_id, "GetUser")?;
        let found = self.0.accounts.user(&request.user_id).await.map_err(|error| unavailable(&error))?;
        Ok(v1::GetUserResponse { user: Some(told(found.ok_or_else(not_found)?)) })
    }

    pub(crate) async fn list_user(
        &self,
        call: &Call,
        request: v1::ListUserRequest,
    ) -> Result<v1::ListUserResponse, Error> {
        let caller = self.caller(call).await?;
        if !self.allows(&caller.user_id, "*", "ListUser") {
            return Err(Error::new(Reason::UserOperationForbidden, "user.list.unauthorized"));
        }
        let page = self.0.accounts.users(request.offset, self.limit(request.limit)).await;
        let page = page.map_err(|error| unavailable(&error))?;
        Ok(v1::ListUserResponse { total: page.total, users: page.rows.into_iter().map(told).collect() })
    }

    /// One's own password is changed by who knows it; somebody else's by an administrator, who shows their own. All sessions of
    /// the user end.
    pub(crate) async fn update_password(
        &self,
        call: &Call,
        request: v1::UpdatePasswordRequest,
    ) -> Result<v1::UpdatePasswordResponse, Error> {
        let caller = self.caller(call).await?;
        self.hold_over(&caller, &request.user_id, "UpdatePassword")?;
        let find = async |id: &str| self.0.accounts.user(id).await.map_err(|error| unavailable(&error));
        let user = find(&request.user_id).await?.ok_or_else(not_found)?.user;
        let shows = find(&caller.user_id).await?.ok_or_else(login_failed)?.user;
        let attempt = self.guess(call, &shows.username)?;
        let verdict = self.compare(Some(&shows.password), &request.old_password).await?;
        let meant = request.username.is_empty() || request.username == user.username;
        if verdict == Verdict::Wrong || !meant {
            return Err(login_failed());
        }
        self.0.throttle.was_right(attempt);
        if request.old_password == request.new_password && user.user_id == shows.user_id {
            return Err(Error::invalid(vec![Violation::new("newPassword", "login.same.password")]));
        }
        let new = self.hash(&request.new_password).await?;
        let mut writing = self.0.writing().await?;
        let set = writing.change.set_password(&user.user_id, &user.password, &new, (self.0.clock)()).await;
        if !set.map_err(|error| unavailable(&error))? {
            return Err(Error::new(Reason::Conflict, "conflict"));
        }
        writing.change.end_sessions(&user.user_id).await.map_err(|error| unavailable(&error))?;
        writing.commit(&user.user_id).await?;
        Ok(v1::UpdatePasswordResponse {})
    }

    /// Everybody may do to themselves what only administrators may do to others. Whether there are others is not told.
    fn hold_over(&self, caller: &Caller, user_id: &str, call: &str) -> Result<(), Error> {
        let may = caller.user_id == user_id || self.allows(&caller.user_id, &object(user_id), call);
        if may { Ok(()) } else { Err(forbidden()) }
    }
}

/// Why a user was not added.
pub enum Added {
    /// The id or the name is taken.
    Taken,
    /// For another reason.
    Failed(Error),
}

impl From<onex_db::Error> for Added {
    fn from(error: onex_db::Error) -> Self {
        match error {
            onex_db::Error::Taken(_) => Self::Taken,
            error => Self::Failed(unavailable(&error)),
        }
    }
}

/// A user as an object of policies.
pub fn object(user_id: &str) -> String {
    format!("users/{user_id}")
}

fn forbidden() -> Error {
    Error::new(Reason::UserOperationForbidden, "user.operation.forbidden")
}

fn not_found() -> Error {
    Error::new(Reason::UserNotFound, "user.not.found")
}

/// What is told of a user: never anything of the password.
fn told(Found { user, secrets }: Found) -> v1::User {
    v1::User {
        user_id: user.user_id,
        username: user.username,
        nickname: user.nickname,
        password: String::new(),
        email: user.email,
        phone: user.phone,
        secrets,
        created_at: Some(Timestamp::from_microseconds(user.created_at)),
        updated_at: Some(Timestamp::from_microseconds(user.updated_at)),
        status: user.status,
    }
}

/// "user-" and six characters. Two processes may think of the same one; then the database takes one.
fn new_user_id() -> Result<String, Error> {
    const CHARACTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz1234567890";
    let random = crate::keys::random::<8>().map_err(|_| Error::new(Reason::UserCreateFailed, "user.create.failed"))?;
    let mut number = u64::from_le_bytes(random);
    let mut id = "user-".to_owned();
    for _ in 0..6 {
        id.push(char::from(CHARACTERS[(number % 36) as usize]));
        number /= 36;
    }
    Ok(id)
}
