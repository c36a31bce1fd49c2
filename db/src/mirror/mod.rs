//! A copy of objects, one table a kind, which is one transaction behind the truth at most by what its [`Position`] says.
//!
//! The mirror of the controllers is the only one to write here. Whoever reads finds the rows of one moment in an order that
//! stays, how many there are at that moment, and up to which revision it shows the objects: who wrote an object and knows
//! its `resourceVersion` can wait until it is in ([`Table::reached`]).

mod chain;
mod miner;
mod minerset;
mod rows;

use std::marker::PhantomData;
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row as _};

pub use chain::Chain;
pub use miner::{Miner, MinersWhere};
pub use minerset::MinerSet;
pub use rows::Columns;

use crate::{Db, Result};
use rows::Query;

/// How many rows one page can have. Whoever wants more asks for the next.
pub const LARGEST_PAGE: u32 = 1000;

/// How many rows one statement writes. The numbers of rows of all statements are powers of two below it, so that few texts
/// are prepared.
const LARGEST_STATEMENT: usize = 256;

/// How many characters of text go into one statement: servers have a bound for it.
const LARGEST_TEXT: usize = 1 << 20;

/// What is in the row of an object besides the columns of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row<T> {
    /// The namespace of the object.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was created, in microseconds since 1970.
    pub created_at: i64,
    /// When the row was last written, in microseconds since 1970. Whoever writes one need not say: see [`Row::new`].
    pub updated_at: i64,
    /// The columns of its kind.
    pub of: T,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// It is as the row says.
    Set(Row<T>),
    /// It is gone.
    Gone {
        /// The namespace it was in.
        namespace: String,
        /// The name it had.
        name: String,
    },
}

/// Which rows of a list are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted<W> {
    /// Only those of this namespace.
    pub namespace: Option<String>,
    /// Only those with these columns.
    pub columns: W,
    /// How many to leave out at the beginning.
    pub offset: u64,
    /// How many there should be, of which no more than [`LARGEST_PAGE`] come.
    pub limit: u32,
}

/// A part of a list. Everything in it is of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, the object that was created last at first.
    pub rows: Vec<Row<T>>,
    /// How many there are on all pages.
    pub total: u64,
    /// Up to where the objects are in it.
    pub position: Position,
}

/// How far the copy of a kind is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Every change of an object up to this revision is in it. 0 before the first comparison.
    pub revision: u64,
    /// When all rows were last compared with all objects, in microseconds since 1970.
    pub compared_at: i64,
    /// When something was last written, in microseconds since 1970.
    pub written_at: i64,
}

/// The copy of all objects of one kind.
#[derive(Debug)]
pub struct Table<T> {
    db: Db,
    kind: PhantomData<fn() -> T>,
}

impl<T> Change<T> {
    /// The namespace and the name of the object.
    pub fn object(&self) -> (&str, &str) {
        let (Self::Set(Row { namespace, name, .. }) | Self::Gone { namespace, name }) = self;
        (namespace, name)
    }
}

impl<T: Columns> Row<T> {
    /// The row of an object, with texts no longer than its columns are. A name that is too long must not keep all others out
    /// of the copy.
    pub fn new(namespace: &str, name: &str, created_at: i64, of: T) -> Self {
        let (namespace, name) = (rows::fit(namespace, rows::NAME), rows::fit(name, rows::NAME));
        Self { namespace, name, created_at, updated_at: 0, of: of.fitted() }
    }

    /// Whether both say the same, whenever they were written.
    pub fn says(&self, other: &Self) -> bool {
        let Self { namespace, name, created_at, updated_at: _, of } = self;
        (namespace, name, created_at, of) == (&other.namespace, &other.name, &other.created_at, &other.of)
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { db: self.db.clone(), kind: PhantomData }
    }
}

impl Db {
    /// The copy of all objects of one kind.
    pub fn mirror<T: Columns>(&self) -> Table<T> {
        Table { db: self.clone(), kind: PhantomData }
    }
}

impl<T: Columns> Table<T> {
    /// Which database it is in, without its password.
    pub fn place(&self) -> &str {
        self.db.place()
    }

    /// The row of one object.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<Row<T>>> {
        let text = format!("select {} from {} where namespace = ? and name = ?", columns::<T>(), T::TABLE);
        self.db
            .in_time(async {
                let mut reading = self.db.reading().await?;
                let query = sqlx::query(AssertSqlSafe(text)).bind(namespace.to_owned()).bind(name.to_owned());
                query.fetch_optional(&mut *reading).await?.map(|row| read(&row)).transpose()
            })
            .await
    }

    /// A part of the list of rows, as of one moment. The order is that of creation, the last at first; objects of the same
    /// second are ordered by namespace and name, backwards too.
    pub async fn list(&self, wanted: &Wanted<T::Where>) -> Result<Page<T>> {
        let equal = wanted.namespace.iter().map(|namespace| ("namespace", namespace.clone()));
        let equal: Vec<_> = equal.chain(T::conditions(&wanted.columns)).collect();
        let conditions: Vec<_> = equal.iter().map(|(column, _)| format!("{column} = ?")).collect();
        let conditions = match conditions.is_empty() {
            true => String::new(),
            false => format!(" where {}", conditions.join(" and ")),
        };
        let count = format!("select count(*) from {}{conditions}", T::TABLE);
        let list = format!(
            "select {} from {}{conditions} order by createdAt desc, namespace desc, name desc limit ? offset ?",
            columns::<T>(),
            T::TABLE
        );
        let limit = i64::from(wanted.limit.min(LARGEST_PAGE));
        let offset = i64::try_from(wanted.offset).unwrap_or(i64::MAX);
        let bound =
            |text: String| -> Query { equal.iter().fold(query(text), |query, (_, value)| query.bind(value.clone())) };
        self.db
            .in_time(async {
                let mut reading = self.db.reading().await?;
                let position = position::<T>(&mut reading).await?;
                let total: i64 = bound(count).fetch_one(&mut *reading).await?.try_get(0)?;
                let rows = bound(list).bind(limit).bind(offset).fetch(&mut *reading);
                let rows = rows.and_then(|row| async move { read(&row) }).try_collect().await?;
                Ok(Page { rows, total: u64::try_from(total).unwrap_or_default(), position })
            })
            .await
    }

    /// How far the copy is.
    pub async fn position(&self) -> Result<Position> {
        self.db
            .in_time(async {
                let mut reading = self.db.reading().await?;
                position::<T>(&mut reading).await
            })
            .await
    }

    /// Whether every change up to `revision` is in the copy, for which it waits as long as `patience`. Who wrote an object
    /// finds it in lists from then on.
    pub async fn reached(&self, revision: u64, patience: Duration) -> Result<bool> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut pause = Duration::from_millis(5);
        loop {
            if self.position().await?.revision >= revision {
                return Ok(true);
            }
            if tokio::time::Instant::now() + pause > deadline {
                return Ok(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Writes what became of objects, each of them once, and that everything up to `revision` is in the copy: all of it or
    /// nothing.
    pub async fn apply(&self, changes: &[Change<T>], revision: Option<u64>, now: i64) -> Result<()> {
        let mut set = Vec::new();
        let mut gone = Vec::new();
        for change in changes {
            match change {
                Change::Set(row) => set.push(row),
                Change::Gone { namespace, name } => gone.push((namespace.as_str(), name.as_str())),
            }
        }
        self.db
            .in_time(async {
                let mut writing = self.db.writing().await?;
                self.set(&mut writing, &set, now).await?;
                for some in chunks(&gone, |_| 0) {
                    let conditions = vec!["(namespace = ? and name = ?)"; some.len()].join(" or ");
                    let text = format!("delete from {} where {conditions}", T::TABLE);
                    let bind = |query: Query, (namespace, name): &(&str, &str)| {
                        query.bind((*namespace).to_owned()).bind((*name).to_owned())
                    };
                    some.iter().fold(query(text), bind).execute(&mut *writing).await?;
                }
                if let Some(revision) = revision {
                    self.mark(&mut writing, &["revision", "writtenAt"], &[of_revision(revision), now]).await?;
                }
                writing.commit().await
            })
            .await
    }

    /// Rows in the order of their numbers, those after `number`: to go through all of them, and to remove some.
    pub async fn after(&self, number: i64, limit: u32) -> Result<Vec<(i64, Row<T>)>> {
        let text = format!("select {}, id from {} where id > ? order by id limit ?", columns::<T>(), T::TABLE);
        let read = |row: AnyRow| Ok((row.try_get(row.len() - 1)?, read(&row)?));
        self.db
            .in_time(async {
                let mut reading = self.db.reading().await?;
                let rows = query(text).bind(number).bind(i64::from(limit.min(LARGEST_PAGE))).fetch(&mut *reading);
                rows.and_then(|row| async move { read(row) }).try_collect().await
            })
            .await
    }

    /// Removes the rows with these numbers.
    pub async fn remove(&self, numbers: &[i64]) -> Result<()> {
        self.db
            .in_time(async {
                let mut writing = self.db.writing().await?;
                for some in chunks(numbers, |_| 0) {
                    let text = format!("delete from {} where id in ({})", T::TABLE, vec!["?"; some.len()].join(", "));
                    let bind = |query: Query, number: &i64| query.bind(*number);
                    some.iter().fold(query(text), bind).execute(&mut *writing).await?;
                }
                writing.commit().await
            })
            .await
    }

    /// Says that all rows were compared with all objects as they were at `revision`, and are the same now.
    pub async fn compared(&self, revision: u64, now: i64) -> Result<()> {
        self.db
            .in_time(async {
                let mut writing = self.db.writing().await?;
                self.mark(&mut writing, &["revision", "comparedAt"], &[of_revision(revision), now]).await?;
                writing.commit().await
            })
            .await
    }

    async fn set(&self, writing: &mut AnyConnection, rows: &[&Row<T>], now: i64) -> sqlx::Result<()> {
        let rest = [T::COLUMNS, &["createdAt", "updatedAt"]].concat();
        for some in chunks(rows, |row| row.of.size()) {
            let text = self.db.engine().upsert(T::TABLE, &["namespace", "name"], &rest, some.len());
            let bind = |query: Query, row: &&Row<T>| {
                let query = query.bind(row.namespace.clone()).bind(row.name.clone());
                row.of.bind(query).bind(row.created_at).bind(now)
            };
            some.iter().fold(query(text), bind).execute(&mut *writing).await?;
        }
        Ok(())
    }

    async fn mark(&self, writing: &mut AnyConnection, columns: &[&str], numbers: &[i64]) -> sqlx::Result<()> {
        let text = self.db.engine().upsert("gateway_mirror", &["kind"], columns, 1);
        let query = numbers.iter().fold(query(text).bind(T::KIND), |query, number| query.bind(*number));
        query.execute(writing).await.map(drop)
    }
}

fn query(text: String) -> Query {
    sqlx::query::<Any>(AssertSqlSafe(text))
}

/// The columns of a row, as [`read`] finds them.
fn columns<T: Columns>() -> String {
    format!("namespace, name, createdAt, updatedAt, {}", T::COLUMNS.join(", "))
}

fn read<T: Columns>(row: &AnyRow) -> sqlx::Result<Row<T>> {
    Ok(Row {
        namespace: row.try_get(0)?,
        name: row.try_get(1)?,
        created_at: row.try_get(2)?,
        updated_at: row.try_get(3)?,
        of: T::read(row, 4)?,
    })
}

async fn position<T: Columns>(reading: &mut AnyConnection) -> sqlx::Result<Position> {
    let text = "select revision, comparedAt, writtenAt from gateway_mirror where kind = ?";
    let Some(row) = sqlx::query(text).bind(T::KIND).fetch_optional(reading).await? else {
        return Ok(Position::default());
    };
    let revision: i64 = row.try_get(0)?;
    let revision = u64::try_from(revision).unwrap_or_default();
    Ok(Position { revision, compared_at: row.try_get(1)?, written_at: row.try_get(2)? })
}

/// Revisions are counted from one; none gets as far as a column cannot hold.
fn of_revision(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Cuts `all` into what one statement each can have.
fn chunks<R>(mut all: &[R], size: impl Fn(&R) -> usize) -> Vec<&[R]> {
    let mut chunks = Vec::new();
    while !all.is_empty() {
        let mut count = LARGEST_STATEMENT.min(all.len().next_power_of_two());
        while count > 1 && (count > all.len() || all[..count].iter().map(&size).sum::<usize>() > LARGEST_TEXT) {
            count /= 2;
        }
        let (some, rest) = all.split_at(count);
        chunks.push(some);
        all = rest;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_come_in_few_sizes_and_hold_what_a_server_takes() {
        let sizes = |count: usize, size: usize| -> Vec<usize> {
            chunks(&vec![(); count], |()| size).iter().map(|chunk| chunk.len()).collect()
        };
        assert_eq!(sizes(0, 0), [0; 0]);
        assert_eq!(sizes(1, LARGEST_TEXT * 2), [1]);
        assert_eq!(sizes(7, 10), [4, 2, 1]);
        assert_eq!(sizes(600, 10), [256, 256, 64, 16, 8]);
        assert_eq!(sizes(5, LARGEST_TEXT / 2), [2, 2, 1]);
    }
}
