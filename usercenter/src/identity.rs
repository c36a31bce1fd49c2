//! Whose token is it?
//!
//! Three kinds are believed. A refresh token names no key and is signed by the usercenter's. An access token names its
//! session, whose temporary secret signed it. A token that somebody signed with a key pair names that pair. What each may be
//! signed with, by whom it must say that it was made, and about whom, is fixed: no token is taken for another kind.

use std::sync::Arc;

use onex_proto::token::{Algorithm, Claims, Refusal, Unverified, sign};
use onex_proto::{Error, Reason};

use crate::call::Call;
use crate::known::{Holder, Key};
use crate::users::ACTIVED;
use crate::writing::unavailable;
use crate::{Inner, Usercenter, microseconds_to_seconds};

/// Who makes our own tokens.
pub const ISSUER: &str = "onex-usercenter";
/// For whom a token may be, if it says for whom.
const AUDIENCE: &str = "onex";
/// How our own tokens are signed.
const OURS: &[Algorithm] = &[Algorithm::Hs512];

/// Somebody who showed who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: String,
    /// The session, unless the token was signed with a key pair.
    pub session: Option<String>,
    /// The id of the token, if it is a refresh token.
    pub refresh: Option<String>,
}

/// What is told about a token that is not believed: not why, as whoever made it up need not know.
fn refused(refusal: Refusal) -> Error {
    Error::new(
        Reason::Unauthorized,
        match refusal {
            Refusal::Invalid => "jwt.token.invalid",
            Refusal::Expired => "jwt.token.expired",
        },
    )
}

impl Usercenter {
    /// Who calls: by a refresh token, an access token, or one that was signed with a key pair.
    pub(crate) async fn caller(&self, call: &Call) -> Result<Caller, Error> {
        let Some(token) = &call.token else { return Err(Error::new(Reason::Unauthorized, "jwt.token.missing")) };
        let unverified = Unverified::read(token).ok_or_else(|| refused(Refusal::Invalid))?;
        if unverified.kid().is_empty() { self.refresher(&unverified).await } else { self.bearer(&unverified).await }
    }

    /// Whose access token or self-signed token this is.
    pub(crate) async fn holder(&self, token: &str) -> Result<Caller, Error> {
        let unverified = Unverified::read(token).filter(|token| !token.kid().is_empty());
        self.bearer(&unverified.ok_or_else(|| refused(Refusal::Invalid))?).await
    }

    /// Whose refresh token this is. It must not have been spent.
    async fn refresher(&self, token: &Unverified<'_>) -> Result<Caller, Error> {
        let claims = self.refresh_claims(token)?;
        let holder = self.0.accounts.session(&claims.sid).await.map_err(|error| unavailable(&error))?;
        let holder = holder.filter(|holder| {
            holder.session.user_id == claims.sub
                && holder.session.refresh_id == claims.jti
                && holder.user_status == ACTIVED
        });
        holder.ok_or_else(|| refused(Refusal::Invalid))?;
        Ok(Caller { user_id: claims.sub, session: Some(claims.sid), refresh: Some(claims.jti) })
    }

    /// What a refresh token claims, if it is one and good now. Whether it was spent is another question.
    pub(crate) fn refresh_claims(&self, token: &Unverified<'_>) -> Result<Claims, Error> {
        let claims = token.verify(&self.0.refresh_key, OURS).map_err(refused)?;
        let ours = token.kid().is_empty()
            && claims.iss == ISSUER
            && ![&claims.sub, &claims.sid, &claims.jti].iter().any(|part| part.is_empty());
        if !ours {
            return Err(refused(Refusal::Invalid));
        }
        claims.hold_at(self.0.seconds(), 0).map_err(refused)?;
        Ok(claims)
    }

    async fn bearer(&self, token: &Unverified<'_>) -> Result<Caller, Error> {
        let holder = self.known(token.kid()).await?.ok_or_else(|| refused(Refusal::Invalid))?;
        let now = self.0.seconds();
        let claims = match &holder.key {
            Key::Session { key, expires } => {
                let claims = token.verify(key, OURS).map_err(refused)?;
                if claims.iss != ISSUER || claims.sub != holder.user_id || claims.sid != token.kid() {
                    return Err(refused(Refusal::Invalid));
                }
                if *expires <= now {
                    return Err(refused(Refusal::Expired));
                }
                claims.hold_at(now, 0).map_err(refused)?;
                claims
            }
            Key::Pair { key, enabled, expires } => {
                let claims = token.verify(key.as_bytes(), Algorithm::ALL).map_err(refused)?;
                let about = claims.sub.is_empty() || claims.sub == holder.user_id;
                if claims.iss == ISSUER || !about || !enabled {
                    return Err(refused(Refusal::Invalid));
                }
                if *expires != 0 && *expires <= now {
                    return Err(refused(Refusal::Expired));
                }
                self.hold_self_signed(&claims, now)?;
                claims
            }
        };
        if !holder.let_in || claims.aud.as_ref().is_some_and(|audience| !audience.has(AUDIENCE)) {
            return Err(refused(Refusal::Invalid));
        }
        let session = matches!(holder.key, Key::Session { .. }).then(|| token.kid().to_owned());
        Ok(Caller { user_id: holder.user_id.clone(), session, refresh: None })
    }

    fn hold_self_signed(&self, claims: &Claims, now: i64) -> Result<(), Error> {
        claims.hold_at(now, self.0.settings.leeway_seconds.into()).map_err(refused)?;
        let most = i64::from(self.0.settings.self_signed_seconds);
        let too_long = most > 0 && claims.exp.is_some_and(|end| end > now + most);
        if too_long { Err(refused(Refusal::Invalid)) } else { Ok(()) }
    }

    /// Who holds the key of this name: as remembered, or as the database says.
    async fn known(&self, name: &str) -> Result<Option<Arc<Holder>>, Error> {
        // What cannot be the name of a key is not asked for.
        if uuid::Uuid::try_parse(name).is_err() || name.len() != 36 {
            return Ok(None);
        }
        if let Some(holder) = self.0.known.get(name) {
            return Ok(Some(holder));
        }
        let epoch = self.0.known.epoch();
        let Some(holder) = self.0.find_holder(name).await? else { return Ok(None) };
        let holder = Arc::new(holder);
        self.0.known.remember(name, &holder, epoch);
        Ok(Some(holder))
    }

    /// The pair of tokens of a session.
    pub(crate) fn tokens(
        &self,
        user_id: &str,
        session: &str,
        refresh: &str,
        now: i64,
    ) -> onex_proto::usercenter::LoginReply {
        let claims = |seconds: u32, jti: &str| Claims {
            iss: ISSUER.to_owned(),
            sub: user_id.to_owned(),
            iat: now,
            nbf: now,
            exp: Some(now + i64::from(seconds)),
            sid: session.to_owned(),
            jti: jti.to_owned(),
            ..Claims::default()
        };
        let access = claims(self.0.settings.access_seconds, "");
        let key = self.0.keys.session(session);
        onex_proto::usercenter::LoginReply {
            refresh_token: sign(&self.0.refresh_key, OURS[0], None, &claims(self.0.settings.refresh_seconds, refresh)),
            access_token: sign(&key, OURS[0], Some(session), &access),
            r#type: "Bearer".to_owned(),
            expires_at: access.exp.unwrap_or_default(),
        }
    }
}

impl Inner {
    async fn find_holder(&self, name: &str) -> Result<Option<Holder>, Error> {
        let pair = self.accounts.key_holder(name).await.map_err(|error| unavailable(&error))?;
        if let Some(found) = pair {
            let shown = self.keys.show(&found.secret.secret_key, &whose(&found.secret.user_id, name));
            let key = shown.map_err(|error| {
                tracing::error!(%error, key = name, "a key pair cannot be used");
                Error::new(Reason::Unknown, "internal")
            })?;
            let key = Key::Pair { key, enabled: found.secret.status == 1, expires: found.secret.expires };
            return Ok(Some(Holder { user_id: found.secret.user_id, let_in: found.user_status == ACTIVED, key }));
        }
        let session = self.accounts.session(name).await.map_err(|error| unavailable(&error))?;
        Ok(session.map(|found| Holder {
            user_id: found.session.user_id,
            let_in: found.user_status == ACTIVED,
            key: Key::Session { key: self.keys.session(name), expires: found.session.expires },
        }))
    }

    /// Now, in seconds.
    pub(crate) fn seconds(&self) -> i64 {
        microseconds_to_seconds((self.clock)())
    }
}

/// What a hidden key is bound to: it cannot be moved to another user in the database.
pub fn whose(user_id: &str, secret_id: &str) -> String {
    format!("{user_id}/{secret_id}")
}
