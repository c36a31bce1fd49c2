//! Login, refresh, logout.

use onex_db::accounts::Session;
use onex_proto::token::Unverified;
use onex_proto::usercenter as v1;
use onex_proto::{Error, Reason};

use crate::Usercenter;
use crate::call::Call;
use crate::password::Verdict;
use crate::users::ACTIVED;
use crate::writing::unavailable;

impl Usercenter {
    /// Begins a session. Whether there is such a user, whether they are let in, and whether it was the password is not told
    /// apart, also not by how long it takes.
    pub(crate) async fn login(&self, call: &Call, request: v1::LoginRequest) -> Result<v1::LoginReply, Error> {
        // Before it counts: a database that does not answer must lock out nobody.
        let found = self.0.accounts.user_named(&request.username).await.map_err(|error| unavailable(&error))?;
        let attempt = self.guess(call, &request.username)?;
        let user = found.map(|found| found.user);
        let verdict = self.compare(user.as_ref().map(|user| user.password.as_str()), &request.password).await?;
        let Some(user) = user.filter(|user| verdict != Verdict::Wrong && user.status == ACTIVED) else {
            return Err(login_failed());
        };
        self.0.throttle.was_right(attempt);
        if verdict == Verdict::RightAndOld {
            let new = self.hash(&request.password).await?;
            let kept = self.0.accounts.rehash(&user.user_id, &user.password, &new).await;
            kept.map_err(|error| unavailable(&error))?;
        }
        let now = self.0.seconds();
        let (session_id, refresh_id) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
        let reply = self.tokens(&user.user_id, &session_id, &refresh_id, now);
        let expires = now + i64::from(self.0.settings.refresh_seconds.max(self.0.settings.access_seconds));
        let session = Session { session_id, user_id: user.user_id, refresh_id, expires, created_at: (self.0.clock)() };
        let begun = self.0.accounts.begin_session(&session, self.0.settings.sessions_per_user.into()).await;
        begun.map_err(|error| unavailable(&error))?;
        Ok(reply)
    }

    /// Ends the session that the token belongs to.
    pub(crate) async fn logout(&self, call: &Call, _: v1::LogoutRequest) -> Result<v1::LogoutResponse, Error> {
        let caller = self.caller(call).await?;
        if let Some(session) = caller.session {
            self.end(&caller.user_id, &session).await?;
        }
        Ok(v1::LogoutResponse {})
    }

    /// Gives a new pair of tokens for a refresh token. One that was spent already has been stolen, from whoever shows it or by
    /// them: then the session ends.
    pub(crate) async fn refresh_token(&self, call: &Call, _: v1::RefreshTokenRequest) -> Result<v1::LoginReply, Error> {
        let invalid = || Error::new(Reason::Unauthorized, "jwt.token.invalid");
        let token = call.token.as_deref().ok_or_else(|| Error::new(Reason::Unauthorized, "jwt.token.missing"))?;
        let claims = self.refresh_claims(&Unverified::read(token).ok_or_else(invalid)?)?;
        let holder = self.0.accounts.session(&claims.sid).await.map_err(|error| unavailable(&error))?;
        let holder = holder.filter(|holder| holder.session.user_id == claims.sub && holder.user_status == ACTIVED);
        holder.ok_or_else(invalid)?;
        let (now, next) = (self.0.seconds(), uuid::Uuid::new_v4().to_string());
        let expires = now + i64::from(self.0.settings.refresh_seconds.max(self.0.settings.access_seconds));
        let spent = self.0.accounts.spend(&claims.sid, &claims.jti, &next, expires, (self.0.clock)()).await;
        if !spent.map_err(|error| unavailable(&error))? {
            tracing::warn!(user = claims.sub, "a refresh token was shown twice; its session ends");
            self.end(&claims.sub, &claims.sid).await?;
            return Err(invalid());
        }
        // It remembers when the session ended before.
        self.0.known.forget(&claims.sub);
        Ok(self.tokens(&claims.sub, &claims.sid, &next, now))
    }

    async fn end(&self, user_id: &str, session: &str) -> Result<(), Error> {
        let mut writing = self.0.writing().await?;
        writing.change.end_session(session).await.map_err(|error| unavailable(&error))?;
        writing.commit(user_id).await
    }

    /// Counts a guess of a password.
    pub(crate) fn guess(&self, call: &Call, user: &str) -> Result<crate::throttle::Try, Error> {
        self.0.throttle.guess(user, &call.address, self.0.seconds()).map_err(locked)
    }

    /// Compares a password.
    pub(crate) async fn compare(&self, stored: Option<&str>, password: &str) -> Result<Verdict, Error> {
        self.0.passwords.compare(stored, password).await.map_err(|error| failed_to_hash(&error))
    }

    /// Hashes a password.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, Error> {
        self.0.passwords.hash(password).await.map_err(|error| failed_to_hash(&error))
    }
}

pub fn login_failed() -> Error {
    Error::new(Reason::UserLoginFailed, "login.failed")
}

/// Says how long to wait.
pub fn locked(seconds: i64) -> Error {
    Error::new(Reason::RateLimit, "login.user.locked").with(seconds).and("retryAfterSeconds", seconds)
}

fn failed_to_hash(error: &crate::password::Error) -> Error {
    tracing::error!(%error, "a password could not be worked on");
    Error::new(Reason::Unknown, "internal")
}
