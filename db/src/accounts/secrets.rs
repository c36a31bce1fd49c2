//! The table of key pairs.

use std::fmt;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Accounts, Change, Page, bounded, told};
use crate::Result;

/// A key pair. Its key is hidden by whoever wrote it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// Whose it is.
    pub user_id: String,
    /// Its name, among those of its user.
    pub name: String,
    /// Its public half.
    pub secret_id: String,
    /// Its key, hidden.
    pub secret_key: String,
    /// 1: in use; 0: disabled.
    pub status: i64,
    /// When it expires, in seconds; 0: never.
    pub expires: i64,
    /// What it is for.
    pub description: String,
    /// When it was made, in microseconds.
    pub created_at: i64,
    /// When it was changed, in microseconds.
    pub updated_at: i64,
}

/// A key pair, and whether its user is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHolder {
    /// The key pair.
    pub secret: Secret,
    /// The status of its user.
    pub user_status: String,
}

/// What is to be changed of a key pair; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretChange {
    /// When it expires.
    pub expires: Option<i64>,
    /// Whether it is in use.
    pub status: Option<i64>,
    /// What it is for.
    pub description: Option<String>,
}

/// Keys are for nobody to read, hidden or not.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("secret_id", &self.secret_id)
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select s.userID, s.name, s.secretID, s.secretKey, s.status, s.expires, s.description, s.createdAt, ",
            "s.updatedAt, u.status from usercenter_secret s join usercenter_user u on u.userID = s.userID ",
            $rest
        )
    };
}

fn read(row: &AnyRow) -> sqlx::Result<KeyHolder> {
    let secret = Secret {
        user_id: row.try_get(0)?,
        name: row.try_get(1)?,
        secret_id: row.try_get(2)?,
        secret_key: row.try_get(3)?,
        status: row.try_get(4)?,
        expires: row.try_get(5)?,
        description: row.try_get(6)?,
        created_at: row.try_get(7)?,
        updated_at: row.try_get(8)?,
    };
    Ok(KeyHolder { secret, user_status: row.try_get(9)? })
}

impl Accounts {
    /// The key pair with this public half.
    ///
    /// # Errors
    /// What the database says.
    pub async fn key_holder(&self, secret_id: &str) -> Result<Option<KeyHolder>> {
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let query = sqlx::query(select!("where s.secretID = ?")).bind(secret_id.to_owned());
                let row = query.fetch_optional(&mut *reading).await?;
                reading.commit().await?;
                row.as_ref().map(read).transpose()
            })
            .await
    }

    /// The key pair of this name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn secret(&self, user_id: &str, name: &str) -> Result<Option<Secret>> {
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let query = sqlx::query(select!("where s.userID = ? and s.name = ?"));
                let query = query.bind(user_id.to_owned()).bind(name.to_owned());
                let row = query.fetch_optional(&mut *reading).await?;
                reading.commit().await?;
                Ok(row.as_ref().map(read).transpose()?.map(|holder| holder.secret))
            })
            .await
    }

    /// The key pairs of a user, the newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn secrets(&self, user_id: &str, offset: i64, limit: i64) -> Result<Page<Secret>> {
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let rows = sqlx::query(select!("where s.userID = ? order by s.id desc limit ? offset ?"));
                let rows = rows.bind(user_id.to_owned()).bind(bounded(limit)).bind(bounded(offset));
                let rows = rows.fetch_all(&mut *reading).await?;
                let total =
                    sqlx::query("select count(*) from usercenter_secret where userID = ?").bind(user_id.to_owned());
                let total = total.fetch_one(&mut *reading).await?;
                reading.commit().await?;
                let rows = rows.iter().map(|row| read(row).map(|holder| holder.secret)).collect::<sqlx::Result<_>>()?;
                Ok(Page { rows, total: total.try_get(0)? })
            })
            .await
    }
}

impl Change {
    /// How many key pairs a user has.
    ///
    /// # Errors
    /// What the database says.
    pub async fn count_secrets(&mut self, user_id: &str) -> Result<i64> {
        let count = sqlx::query("select count(*) from usercenter_secret where userID = ?").bind(user_id.to_owned());
        let row = told(&self.db, count.fetch_one(&mut *self.transaction).await)?;
        told(&self.db, row.try_get(0))
    }

    /// Adds a key pair.
    ///
    /// # Errors
    /// [`Error::Taken`](crate::Error::Taken) when its name is, or its public half.
    pub async fn add_secret(&mut self, secret: &Secret) -> Result<()> {
        let insert = sqlx::query(
            "insert into usercenter_secret (userID, name, secretID, secretKey, status, expires, description, createdAt, \
             updatedAt) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        );
        let insert = insert.bind(secret.user_id.clone()).bind(secret.name.clone()).bind(secret.secret_id.clone());
        let insert = insert.bind(secret.secret_key.clone()).bind(secret.status).bind(secret.expires);
        let insert = insert.bind(secret.description.clone()).bind(secret.created_at).bind(secret.updated_at);
        told(&self.db, insert.execute(&mut *self.transaction).await).map(drop)
    }

    /// Changes a key pair. Answers whether there is such a one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn change_secret(&mut self, user_id: &str, name: &str, change: &SecretChange, now: i64) -> Result<bool> {
        let update = sqlx::query(
            "update usercenter_secret set expires = coalesce(?, expires), status = coalesce(?, status), \
             description = coalesce(?, description), updatedAt = ? where userID = ? and name = ?",
        );
        let update = update.bind(change.expires).bind(change.status).bind(change.description.clone()).bind(now);
        let update = update.bind(user_id.to_owned()).bind(name.to_owned());
        Ok(told(&self.db, update.execute(&mut *self.transaction).await)?.rows_affected() > 0)
    }

    /// Removes a key pair. Answers whether there was such a one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_secret(&mut self, user_id: &str, name: &str) -> Result<bool> {
        let delete = sqlx::query("delete from usercenter_secret where userID = ? and name = ?");
        let delete = delete.bind(user_id.to_owned()).bind(name.to_owned());
        Ok(told(&self.db, delete.execute(&mut *self.transaction).await)?.rows_affected() > 0)
    }
}
