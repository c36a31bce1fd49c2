//! The table of users.

use std::fmt;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Accounts, Change, Page, bounded, told};
use crate::Result;

/// A user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The id.
    pub user_id: String,
    /// The name to log in with.
    pub username: String,
    /// Whether they are let in, in one word.
    pub status: String,
    /// The name to show.
    pub nickname: String,
    /// The hash of the password.
    pub password: String,
    /// The address of the mailbox.
    pub email: String,
    /// The phone number.
    pub phone: String,
    /// When it was made, in microseconds.
    pub created_at: i64,
    /// When it was changed, in microseconds.
    pub updated_at: i64,
}

/// A user, and how many key pairs they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The user.
    pub user: User,
    /// How many key pairs.
    pub secrets: i64,
}

/// What is to be changed of a user; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// The name to log in with.
    pub username: Option<String>,
    /// The name to show.
    pub nickname: Option<String>,
    /// The address of the mailbox.
    pub email: Option<String>,
    /// The phone number.
    pub phone: Option<String>,
    /// Whether they are let in.
    pub status: Option<String>,
}

/// Hashes are for nobody to read.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("user_id", &self.user_id).field("status", &self.status).finish_non_exhaustive()
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select userID, username, status, nickname, password, email, phone, createdAt, updatedAt, ",
            "(select count(*) from usercenter_secret s where s.userID = u.userID) from usercenter_user u ",
            $rest
        )
    };
}

fn read(row: &AnyRow) -> sqlx::Result<Found> {
    let user = User {
        user_id: row.try_get(0)?,
        username: row.try_get(1)?,
        status: row.try_get(2)?,
        nickname: row.try_get(3)?,
        password: row.try_get(4)?,
        email: row.try_get(5)?,
        phone: row.try_get(6)?,
        created_at: row.try_get(7)?,
        updated_at: row.try_get(8)?,
    };
    Ok(Found { user, secrets: row.try_get(9)? })
}

impl Accounts {
    /// The user with this id.
    ///
    /// # Errors
    /// What the database says.
    pub async fn user(&self, user_id: &str) -> Result<Option<Found>> {
        self.one_user(select!("where userID = ?"), user_id).await
    }

    /// The user with this name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn user_named(&self, username: &str) -> Result<Option<Found>> {
        self.one_user(select!("where username = ?"), username).await
    }

    async fn one_user(&self, statement: &'static str, value: &str) -> Result<Option<Found>> {
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let row = sqlx::query(statement).bind(value.to_owned()).fetch_optional(&mut *reading).await?;
                reading.commit().await?;
                row.as_ref().map(read).transpose()
            })
            .await
    }

    /// Users, the newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn users(&self, offset: i64, limit: i64) -> Result<Page<Found>> {
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let rows = sqlx::query(select!("order by id desc limit ? offset ?"));
                let rows = rows.bind(bounded(limit)).bind(bounded(offset)).fetch_all(&mut *reading).await?;
                let total = sqlx::query("select count(*) from usercenter_user").fetch_one(&mut *reading).await?;
                reading.commit().await?;
                Ok(Page { rows: rows.iter().map(read).collect::<sqlx::Result<_>>()?, total: total.try_get(0)? })
            })
            .await
    }

    /// Keeps another hash of the password that `user_id` has, unless the password was changed meanwhile.
    ///
    /// # Errors
    /// What the database says.
    pub async fn rehash(&self, user_id: &str, old: &str, new: &str) -> Result<()> {
        self.0
            .in_time(async {
                let mut writing = self.0.writing().await?;
                let update = sqlx::query("update usercenter_user set password = ? where userID = ? and password = ?");
                let update = update.bind(new.to_owned()).bind(user_id.to_owned()).bind(old.to_owned());
                update.execute(&mut *writing).await?;
                writing.commit().await
            })
            .await
    }
}

impl Change {
    /// Adds a user.
    ///
    /// # Errors
    /// [`Error::Taken`](crate::Error::Taken) when the id or the name is.
    pub async fn add_user(&mut self, user: &User) -> Result<()> {
        let insert = sqlx::query(
            "insert into usercenter_user (userID, username, status, nickname, password, email, phone, createdAt, updatedAt) \
             values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        );
        let insert = insert.bind(user.user_id.clone()).bind(user.username.clone()).bind(user.status.clone());
        let insert = insert.bind(user.nickname.clone()).bind(user.password.clone()).bind(user.email.clone());
        let insert = insert.bind(user.phone.clone()).bind(user.created_at).bind(user.updated_at);
        told(&self.db, insert.execute(&mut *self.transaction).await).map(drop)
    }

    /// Changes a user. Answers whether there is such a one.
    ///
    /// # Errors
    /// [`Error::Taken`](crate::Error::Taken) when the new name is.
    pub async fn change_user(&mut self, user_id: &str, change: &UserChange, now: i64) -> Result<bool> {
        let update = sqlx::query(
            "update usercenter_user set username = coalesce(?, username), nickname = coalesce(?, nickname), \
             email = coalesce(?, email), phone = coalesce(?, phone), status = coalesce(?, status), updatedAt = ? \
             where userID = ?",
        );
        let update = update.bind(change.username.clone()).bind(change.nickname.clone()).bind(change.email.clone());
        let update = update.bind(change.phone.clone()).bind(change.status.clone()).bind(now).bind(user_id.to_owned());
        Ok(told(&self.db, update.execute(&mut *self.transaction).await)?.rows_affected() > 0)
    }

    /// Keeps the hash of a new password. Answers whether it was still the `old` one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_password(&mut self, user_id: &str, old: &str, new: &str, now: i64) -> Result<bool> {
        let update =
            sqlx::query("update usercenter_user set password = ?, updatedAt = ? where userID = ? and password = ?");
        let update = update.bind(new.to_owned()).bind(now).bind(user_id.to_owned()).bind(old.to_owned());
        Ok(told(&self.db, update.execute(&mut *self.transaction).await)?.rows_affected() > 0)
    }

    /// Removes a user, and all that is theirs but policies. Answers whether there was such a one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_user(&mut self, user_id: &str) -> Result<bool> {
        for statement in
            ["delete from usercenter_secret where userID = ?", "delete from usercenter_session where userID = ?"]
        {
            let delete = sqlx::query(statement).bind(user_id.to_owned());
            told(&self.db, delete.execute(&mut *self.transaction).await)?;
        }
        let delete = sqlx::query("delete from usercenter_user where userID = ?").bind(user_id.to_owned());
        Ok(told(&self.db, delete.execute(&mut *self.transaction).await)?.rows_affected() > 0)
    }
}
