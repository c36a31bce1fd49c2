//! The table of sessions.

use sqlx::Row;

use super::{Accounts, Change, told};
use crate::Result;

/// A session: what a login begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub session_id: String,
    /// Whose it is.
    pub user_id: String,
    /// The id of the refresh token that has not been spent.
    pub refresh_id: String,
    /// When that expires, in seconds.
    pub expires: i64,
    /// When it began, in microseconds.
    pub created_at: i64,
}

/// A session, and whether its user is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The session.
    pub session: Session,
    /// The status of its user.
    pub user_status: String,
}

impl Accounts {
    /// The session with this id.
    ///
    /// # Errors
    /// What the database says.
    pub async fn session(&self, session_id: &str) -> Result<Option<Holder>> {
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let query = sqlx::query(
                    "select s.sessionID, s.userID, s.refreshID, s.expires, s.createdAt, u.status \
                     from usercenter_session s join usercenter_user u on u.userID = s.userID where s.sessionID = ?",
                );
                let row = query.bind(session_id.to_owned()).fetch_optional(&mut *reading).await?;
                reading.commit().await?;
                let Some(row) = row else { return Ok(None) };
                let session = Session {
                    session_id: row.try_get(0)?,
                    user_id: row.try_get(1)?,
                    refresh_id: row.try_get(2)?,
                    expires: row.try_get(3)?,
                    created_at: row.try_get(4)?,
                };
                Ok(Some(Holder { session, user_status: row.try_get(5)? }))
            })
            .await
    }

    /// Begins a session. Of those of the user the oldest end, if there would be more than `most`. Nobody's revision is counted up:
    /// what others remember still holds.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin_session(&self, session: &Session, most: i64) -> Result<()> {
        self.0
            .in_time(async {
                let mut writing = self.0.writing().await?;
                let insert = sqlx::query(
                    "insert into usercenter_session (sessionID, userID, refreshID, expires, createdAt, updatedAt) \
                     values (?, ?, ?, ?, ?, ?)",
                );
                let insert = insert.bind(session.session_id.clone()).bind(session.user_id.clone());
                let insert = insert.bind(session.refresh_id.clone()).bind(session.expires);
                insert.bind(session.created_at).bind(session.created_at).execute(&mut *writing).await?;
                let oldest =
                    sqlx::query("select id from usercenter_session where userID = ? order by id desc limit 1 offset ?");
                let oldest = oldest.bind(session.user_id.clone()).bind(most.max(1));
                if let Some(row) = oldest.fetch_optional(&mut *writing).await? {
                    let delete = sqlx::query("delete from usercenter_session where userID = ? and id <= ?");
                    let delete = delete.bind(session.user_id.clone()).bind(row.try_get::<i64, _>(0)?);
                    delete.execute(&mut *writing).await?;
                }
                writing.commit().await
            })
            .await
    }

    /// Spends a refresh token for the next one. Answers whether it had not been spent.
    ///
    /// # Errors
    /// What the database says.
    pub async fn spend(&self, session_id: &str, old: &str, new: &str, expires: i64, now: i64) -> Result<bool> {
        self.0
            .in_time(async {
                let mut writing = self.0.writing().await?;
                let update = sqlx::query(
                    "update usercenter_session set refreshID = ?, expires = ?, updatedAt = ? \
                     where sessionID = ? and refreshID = ?",
                );
                let update = update.bind(new.to_owned()).bind(expires).bind(now);
                let update = update.bind(session_id.to_owned()).bind(old.to_owned());
                let spent = update.execute(&mut *writing).await?.rows_affected() > 0;
                writing.commit().await?;
                Ok(spent)
            })
            .await
    }

    /// Removes what expired before `now`, in seconds. Answers how many there were.
    ///
    /// # Errors
    /// What the database says.
    pub async fn forget_sessions(&self, now: i64) -> Result<u64> {
        self.0
            .in_time(async {
                let mut writing = self.0.writing().await?;
                let delete = sqlx::query("delete from usercenter_session where expires < ?").bind(now);
                let gone = delete.execute(&mut *writing).await?.rows_affected();
                writing.commit().await?;
                Ok(gone)
            })
            .await
    }
}

impl Change {
    /// Ends a session.
    ///
    /// # Errors
    /// What the database says.
    pub async fn end_session(&mut self, session_id: &str) -> Result<()> {
        let delete = sqlx::query("delete from usercenter_session where sessionID = ?").bind(session_id.to_owned());
        told(&self.db, delete.execute(&mut *self.transaction).await).map(drop)
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// What the database says.
    pub async fn end_sessions(&mut self, user_id: &str) -> Result<()> {
        let delete = sqlx::query("delete from usercenter_session where userID = ?").bind(user_id.to_owned());
        told(&self.db, delete.execute(&mut *self.transaction).await).map(drop)
    }
}
