//! The table of policies, as Casbin's adapters lay it out.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Accounts, Change, Page, bounded, told};
use crate::Result;

/// A line of the policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRow {
    /// Its number; what is to be added has none.
    pub id: i64,
    /// "p" or "g".
    pub ptype: String,
    /// Its words, as many as its type takes; the rest is empty.
    pub words: [String; 4],
}

macro_rules! select {
    ($rest:literal) => {
        concat!("select id, ptype, v0, v1, v2, v3 from casbin_rule ", $rest)
    };
}

fn read(row: &AnyRow) -> sqlx::Result<PolicyRow> {
    let words = [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
    Ok(PolicyRow { id: row.try_get(0)?, ptype: row.try_get(1)?, words })
}

impl Accounts {
    /// All lines.
    ///
    /// # Errors
    /// What the database says.
    pub async fn all_policies(&self) -> Result<Vec<PolicyRow>> {
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let rows = sqlx::query(select!("order by id")).fetch_all(&mut *reading).await?;
                reading.commit().await?;
                rows.iter().map(read).collect()
            })
            .await
    }

    /// Lines, the oldest first; those about `sub` only, if it is given.
    ///
    /// # Errors
    /// What the database says.
    pub async fn policies(&self, sub: Option<&str>, offset: i64, limit: i64) -> Result<Page<PolicyRow>> {
        // An empty subject is one that no line has.
        let (all, sub) = (i64::from(sub.is_none()), sub.unwrap_or_default().to_owned());
        self.0
            .in_time(async {
                let mut reading = self.0.reading().await?;
                let rows = sqlx::query(select!("where ? = 1 or v0 = ? order by id limit ? offset ?"));
                let rows = rows.bind(all).bind(sub.clone()).bind(bounded(limit)).bind(bounded(offset));
                let rows = rows.fetch_all(&mut *reading).await?;
                let total = sqlx::query("select count(*) from casbin_rule where ? = 1 or v0 = ?").bind(all).bind(sub);
                let total = total.fetch_one(&mut *reading).await?;
                reading.commit().await?;
                Ok(Page { rows: rows.iter().map(read).collect::<sqlx::Result<_>>()?, total: total.try_get(0)? })
            })
            .await
    }
}

impl Change {
    /// Adds a line. Answers its number.
    ///
    /// # Errors
    /// [`Error::Taken`](crate::Error::Taken) when it is there already.
    pub async fn add_policy(&mut self, row: &PolicyRow) -> Result<i64> {
        let counted = self.count_policies_up().await;
        told(&self.db, counted)?;
        let insert = sqlx::query("insert into casbin_rule (ptype, v0, v1, v2, v3) values (?, ?, ?, ?, ?)");
        let insert = row.words.iter().fold(insert.bind(row.ptype.clone()), |insert, word| insert.bind(word.clone()));
        told(&self.db, insert.execute(&mut *self.transaction).await)?;
        let find =
            sqlx::query("select id from casbin_rule where ptype = ? and v0 = ? and v1 = ? and v2 = ? and v3 = ?");
        let find = row.words.iter().fold(find.bind(row.ptype.clone()), |find, word| find.bind(word.clone()));
        let found = told(&self.db, find.fetch_one(&mut *self.transaction).await)?;
        told(&self.db, found.try_get(0))
    }

    /// Removes a line. Answers what it was, if it was there.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_policy(&mut self, id: i64) -> Result<Option<PolicyRow>> {
        let find = sqlx::query(select!("where id = ?")).bind(id);
        let Some(row) = told(&self.db, find.fetch_optional(&mut *self.transaction).await)? else { return Ok(None) };
        let row = told(&self.db, read(&row))?;
        let counted = self.count_policies_up().await;
        told(&self.db, counted)?;
        let delete = sqlx::query("delete from casbin_rule where id = ?").bind(id);
        told(&self.db, delete.execute(&mut *self.transaction).await)?;
        Ok(Some(row))
    }

    /// Removes all lines about a subject. Answers what they were.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_policies_of(&mut self, sub: &str) -> Result<Vec<PolicyRow>> {
        let find = sqlx::query(select!("where v0 = ?")).bind(sub.to_owned());
        let rows = told(&self.db, find.fetch_all(&mut *self.transaction).await)?;
        let rows = rows.iter().map(|row| told(&self.db, read(row))).collect::<Result<Vec<_>>>()?;
        if !rows.is_empty() {
            let counted = self.count_policies_up().await;
            told(&self.db, counted)?;
            let delete = sqlx::query("delete from casbin_rule where v0 = ?").bind(sub.to_owned());
            told(&self.db, delete.execute(&mut *self.transaction).await)?;
        }
        Ok(rows)
    }
}
