//! The two engines, and everything in which they differ.

use std::fmt::Write;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file, read and written by this process.
    Sqlite,
    /// A server: MySQL or MariaDB.
    Mysql,
}

impl Engine {
    /// The engine of a URL's scheme.
    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "sqlite" => Some(Self::Sqlite),
            "mysql" | "mariadb" => Some(Self::Mysql),
            _ => None,
        }
    }

    /// What a connection is told before anybody gets it.
    pub(crate) fn greeting(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "pragma busy_timeout = 10000; pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on"
            }
            Self::Mysql => "set session transaction isolation level repeatable read",
        }
    }

    /// Begins a transaction that sees one moment.
    pub(crate) fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "begin",
            Self::Mysql => "start transaction with consistent snapshot, read only",
        }
    }

    /// Begins a transaction that writes.
    pub(crate) fn begin_writing(self) -> &'static str {
        match self {
            // A transaction that reads first, and then finds that somebody else wrote, can only fail.
            Self::Sqlite => "begin immediate",
            Self::Mysql => "start transaction",
        }
    }

    /// The text of a migration for this engine. `{id}` is a number that the database counts up, and the key of its table;
    /// `{table}`, after the columns, makes texts compare as their bytes do.
    pub(crate) fn migration(self, text: &str) -> String {
        let (id, table) = match self {
            Self::Sqlite => ("integer primary key autoincrement", ""),
            Self::Mysql => (
                "bigint not null auto_increment primary key",
                " engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin",
            ),
        };
        text.replace("{id}", id).replace("{table}", table)
    }

    /// Inserts `rows` rows, or sets the columns after the key where there is one with the same `key`.
    pub(crate) fn upsert(self, table: &str, key: &[&str], rest: &[&str], rows: usize) -> String {
        let columns = [key, rest].concat();
        let one = format!("({})", vec!["?"; columns.len()].join(", "));
        let mut text = format!("insert into {table} ({}) values {one}", columns.join(", "));
        (1..rows).for_each(|_| text.extend([", ", &one]));
        match self {
            Self::Sqlite => write!(text, " on conflict ({}) do update set ", key.join(", ")),
            Self::Mysql => write!(text, " on duplicate key update "),
        }
        .expect("text can be written to text");
        for (at, column) in rest.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match self {
                Self::Sqlite => write!(text, "{comma}{column} = excluded.{column}"),
                Self::Mysql => write!(text, "{comma}{column} = values({column})"),
            }
            .expect("text can be written to text");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upsert_is_said_as_each_engine_understands_it() {
        assert_eq!(
            Engine::Sqlite.upsert("t", &["a", "b"], &["c", "d"], 2),
            "insert into t (a, b, c, d) values (?, ?, ?, ?), (?, ?, ?, ?) \
             on conflict (a, b) do update set c = excluded.c, d = excluded.d"
        );
        assert_eq!(
            Engine::Mysql.upsert("t", &["a"], &["b"], 1),
            "insert into t (a, b) values (?, ?) on duplicate key update b = values(b)"
        );
    }
}
