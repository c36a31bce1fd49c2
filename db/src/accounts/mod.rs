//! Users, key pairs, sessions and policies.
//!
//! Whoever changes something begins with [`Accounts::change`], which counts a revision up: whoever has remembered something
//! looks at [`Accounts::revisions`] to learn whether it still holds.

mod policies;
mod revisions;
mod secrets;
mod sessions;
mod users;

use sqlx::{Any, Transaction};

pub use policies::PolicyRow;
pub use revisions::Revisions;
pub use secrets::{KeyHolder, Secret, SecretChange};
pub use sessions::{Holder, Session};
pub use users::{Found, User, UserChange};

use crate::{Db, Error, Result};

/// The tables of the usercenter.
#[derive(Clone, Debug)]
pub struct Accounts(Db);

/// Some rows of a list, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// How many there are, at the same moment.
    pub total: i64,
}

/// What one transaction changes: whole once it is committed, and nothing before.
pub struct Change {
    db: Db,
    transaction: Transaction<'static, Any>,
    /// The revision once it is committed.
    pub revision: i64,
    /// By how much it counts the revision of policies up.
    pub policy_changes: i64,
}

impl Db {
    /// The tables of the usercenter.
    pub fn accounts(&self) -> Accounts {
        Accounts(self.clone())
    }
}

impl Accounts {
    /// Begins a change, and counts the revision up with it. Nobody else changes anything until it is committed or dropped.
    ///
    /// # Errors
    /// What the database says.
    pub async fn change(&self) -> Result<Change> {
        let begin = async {
            let mut transaction = self.0.writing().await?;
            // First, because it lets one writer in after the other.
            let revision = revisions::count_up(&mut transaction).await?;
            Ok((transaction, revision))
        };
        let (transaction, revision) = self.0.in_time(begin).await?;
        Ok(Change { db: self.0.clone(), transaction, revision, policy_changes: 0 })
    }
}

impl Change {
    /// Makes the change last.
    ///
    /// # Errors
    /// What the database says; then it cannot be known whether it was made.
    pub async fn commit(self) -> Result<()> {
        self.db.in_time(self.transaction.commit()).await
    }
}

/// What the driver said, as this crate says it.
fn told<T>(db: &Db, outcome: sqlx::Result<T>) -> Result<T> {
    outcome.map_err(|error| Error::of(db.place(), error))
}

/// An offset or limit as databases take it.
fn bounded(number: i64) -> i64 {
    number.max(0)
}
