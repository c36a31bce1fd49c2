//! The table of revisions.

use sqlx::{Any, Row, Transaction};

use super::{Accounts, Change};
use crate::{Error, Result};

const ACCOUNTS: &str = "accounts";
const POLICIES: &str = "policies";

/// How often something was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revisions {
    /// Anything.
    pub accounts: i64,
    /// Policies.
    pub policies: i64,
}

impl Accounts {
    /// Makes the rows that count.
    ///
    /// # Errors
    /// What the database says.
    pub async fn prepare(&self) -> Result<()> {
        for name in [ACCOUNTS, POLICIES] {
            let insert = async {
                let mut transaction = self.0.writing().await?;
                let row = sqlx::query("select revision from usercenter_revision where name = ?").bind(name);
                if row.fetch_optional(&mut *transaction).await?.is_none() {
                    let insert = sqlx::query("insert into usercenter_revision (name, revision) values (?, 1)");
                    insert.bind(name).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            };
            match self.0.in_time(insert).await {
                // Another process was there first.
                Ok(()) | Err(Error::Taken(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How often something was changed until now, by anybody.
    ///
    /// # Errors
    /// What the database says.
    pub async fn revisions(&self) -> Result<Revisions> {
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let rows =
                    sqlx::query("select name, revision from usercenter_revision").fetch_all(&mut *reading).await?;
                reading.commit().await?;
                let mut revisions = Revisions::default();
                for row in rows {
                    match row.try_get::<String, _>(0)?.as_str() {
                        ACCOUNTS => revisions.accounts = row.try_get(1)?,
                        POLICIES => revisions.policies = row.try_get(1)?,
                        _ => {}
                    }
                }
                Ok(revisions)
            })
            .await
    }
}

impl Change {
    pub(super) async fn count_policies_up(&mut self) -> sqlx::Result<()> {
        self.policy_changes += 1;
        up(&mut self.transaction, POLICIES).await
    }
}

pub(super) async fn count_up(transaction: &mut Transaction<'static, Any>) -> sqlx::Result<i64> {
    up(transaction, ACCOUNTS).await?;
    let query = sqlx::query("select revision from usercenter_revision where name = ?").bind(ACCOUNTS);
    query.fetch_one(&mut **transaction).await?.try_get(0)
}

async fn up(transaction: &mut Transaction<'static, Any>, name: &'static str) -> sqlx::Result<()> {
    let update = sqlx::query("update usercenter_revision set revision = revision + 1 where name = ?").bind(name);
    update.execute(&mut **transaction).await.map(drop)
}
