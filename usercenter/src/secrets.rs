//! Key pairs. A key is told once, and hidden in the database.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use onex_db::accounts::{Secret, SecretChange};
use onex_proto::usercenter as v1;
use onex_proto::{Error, Reason, Timestamp, Violation};

use crate::Usercenter;
use crate::call::Call;
use crate::identity::whose;
use crate::writing::unavailable;

impl Usercenter {
    pub(crate) async fn create_secret(
        &self,
        call: &Call,
        request: v1::CreateSecretRequest,
    ) -> Result<v1::CreateSecretResponse, Error> {
        let caller = self.caller(call).await?;
        self.hold_future(Some(request.expires))?;
        let failed = |error| {
            tracing::error!(%error, "a key could not be made");
            Error::new(Reason::SecretCreateFailed, "secret.create.failed")
        };
        let key = URL_SAFE_NO_PAD.encode(crate::keys::random::<32>().map_err(failed)?);
        let secret_id = uuid::Uuid::new_v4().to_string();
        let hidden = self.0.keys.hide(&key, &whose(&caller.user_id, &secret_id)).map_err(failed)?;
        let now = (self.0.clock)();
        let secret = Secret {
            user_id: caller.user_id,
            name: request.name,
            secret_id,
            secret_key: hidden,
            status: 1,
            expires: request.expires,
            description: request.description,
            created_at: now,
            updated_at: now,
        };
        let mut writing = self.0.writing().await?;
        let most = i64::from(self.0.settings.secrets_per_user);
        let count = writing.change.count_secrets(&secret.user_id).await.map_err(|error| unavailable(&error))?;
        if count >= most {
            return Err(Error::new(Reason::SecretReachMaxCount, "secret.too.many").with(most));
        }
        match writing.change.add_secret(&secret).await {
            Ok(()) => {}
            Err(onex_db::Error::Taken(_)) => return Err(Error::new(Reason::SecretAlreadyExists, "secret.exists")),
            Err(error) => return Err(unavailable(&error)),
        }
        writing.commit(&secret.user_id).await?;
        Ok(v1::CreateSecretResponse { secret_id: secret.secret_id, secret_key: key })
    }

    pub(crate) async fn update_secret(
        &self,
        call: &Call,
        request: v1::UpdateSecretRequest,
    ) -> Result<v1::UpdateSecretResponse, Error> {
        let caller = self.caller(call).await?;
        self.hold_future(request.expires)?;
        let change = SecretChange {
            expires: request.expires,
            status: request.status.map(i64::from),
            description: request.description,
        };
        let mut writing = self.0.writing().await?;
        let changed = writing.change.change_secret(&caller.user_id, &request.name, &change, (self.0.clock)()).await;
        if !changed.map_err(|error| unavailable(&error))? {
            return Err(not_found());
        }
        writing.commit(&caller.user_id).await?;
        Ok(v1::UpdateSecretResponse {})
    }

    pub(crate) async fn delete_secret(
        &self,
        call: &Call,
        request: v1::DeleteSecretRequest,
    ) -> Result<v1::DeleteSecretResponse, Error> {
        let caller = self.caller(call).await?;
        let mut writing = self.0.writing().await?;
        let removed = writing.change.remove_secret(&caller.user_id, &request.name).await;
        if !removed.map_err(|error| unavailable(&error))? {
            return Err(not_found());
        }
        writing.commit(&caller.user_id).await?;
        Ok(v1::DeleteSecretResponse {})
    }

    pub(crate) async fn get_secret(
        &self,
        call: &Call,
        request: v1::GetSecretRequest,
    ) -> Result<v1::GetSecretResponse, Error> {
        let caller = self.caller(call).await?;
        let secret =
            self.0.accounts.secret(&caller.user_id, &request.name).await.map_err(|error| unavailable(&error))?;
        Ok(v1::GetSecretResponse { secret: Some(told(secret.ok_or_else(not_found)?)) })
    }

    pub(crate) async fn list_secret(
        &self,
        call: &Call,
        request: v1::ListSecretRequest,
    ) -> Result<v1::ListSecretResponse, Error> {
        let caller = self.caller(call).await?;
        let page = self.0.accounts.secrets(&caller.user_id, request.offset, self.limit(request.limit)).await;
        let page = page.map_err(|error| unavailable(&error))?;
        Ok(v1::ListSecretResponse { total: page.total, secrets: page.rows.into_iter().map(told).collect() })
    }

    fn hold_future(&self, expires: Option<i64>) -> Result<(), Error> {
        match expires {
            Some(expires) if expires != 0 && expires <= self.0.seconds() => {
                Err(Error::invalid(vec![Violation::new("expires", "rule.future")]))
            }
            _ => Ok(()),
        }
    }
}

fn not_found() -> Error {
    Error::new(Reason::SecretNotFound, "secret.not.found")
}

/// What is told of a key pair: never its key.
fn told(secret: Secret) -> v1::Secret {
    v1::Secret {
        user_id: secret.user_id,
        name: secret.name,
        secret_id: secret.secret_id,
        secret_key: String::new(),
        expires: secret.expires,
        status: i32::from(secret.status == 1),
        description: secret.description,
        created_at: Some(Timestamp::from_microseconds(secret.created_at)),
        updated_at: Some(Timestamp::from_microseconds(secret.updated_at)),
    }
}
