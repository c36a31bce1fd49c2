//! Rows in SQLite or MySQL (MariaDB), through one pool and one set of queries.
//!
//! What is kept here is no truth of the cluster: accounts, and a copy of objects that can be asked with SQL. Start at [`open`]:
//! it takes a URL, reaches nobody yet, and gives a [`Db`]. The tables are made, or brought up to date, before the first
//! query runs, whoever asks it. Each table has a module of its own with every statement that touches it; nobody outside of
//! this crate writes SQL.
//!
//! Both engines run the same text. What they do not have in common is in [`engine`](crate::Engine) and nowhere else. So that
//! it stays that way, columns are BIGINT, DOUBLE, VARCHAR and TEXT; times are microseconds since 1970 and booleans are 0 or 1;
//! nothing looks into JSON; an index is a unique constraint that ends in the key of the table; and a transaction that
//! writes is begun by `Db::writing`.

pub mod accounts;
mod engine;
mod error;
mod migrations;
pub mod mirror;
mod pool;

pub use engine::Engine;
pub use error::{Error, Result};
pub use pool::{Db, Settings, open, place};
