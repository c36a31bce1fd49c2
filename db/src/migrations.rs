//! The tables, and how they came to be what they are.
//!
//! A migration is a file that is never changed once it was released; what changes is a new file. It is repeated when it
//! was cut off in the middle, so its statements can be: `create table if not exists`.

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, SqlSafeStr};

use crate::{Engine, Error, Result};

/// Every migration: its number, what it is about, and its text.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "mirror", include_str!("../migrations/0001_mirror.sql")),
    (2, "accounts", include_str!("../migrations/0002_accounts.sql")),
];

/// Makes the tables what this version of OneX expects. Several processes may do so at once.
pub(crate) async fn run(connection: &mut AnyConnection, engine: Engine, place: &str) -> Result<()> {
    let migrator = Migrator::with_migrations(MIGRATIONS.iter().map(|migration| of(engine, migration)).collect());
    let mut outcome = once(&migrator, connection, engine).await;
    if let Err(MigrateError::Dirty(_)) = outcome {
        // Only what was cut off in the middle is left so, as whoever is at it holds a lock.
        let forget = sqlx::query("delete from _sqlx_migrations where success = 0").execute(&mut *connection).await;
        forget.map_err(|error| Error::of(place, error))?;
        outcome = once(&migrator, connection, engine).await;
    }
    outcome.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => match Error::of(place, error) {
            Error::Refused { place, source } => Error::Migration { place, source },
            passing => passing,
        },
        error => Error::Migration { place: place.to_owned(), source: error.into() },
    })
}

async fn once(migrator: &Migrator, connection: &mut AnyConnection, engine: Engine) -> Result<(), MigrateError> {
    match engine {
        // The driver's own lock does nothing here.
        Engine::Sqlite => {
            let mut writing = connection.begin_with(engine.begin_writing()).await?;
            migrator.run_direct(None, &mut *writing, false).await?;
            Ok(writing.commit().await?)
        }
        Engine::Mysql => migrator.run_direct(None, connection, false).await,
    }
}

fn of(engine: Engine, (number, about, text): &(i64, &'static str, &str)) -> Migration {
    let text = AssertSqlSafe(engine.migration(text)).into_sql_str();
    Migration::new(*number, (*about).into(), MigrationType::Simple, text, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_list_and_has_its_number() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = files.collect();
        files.sort();
        let named = |(number, about, _): &(i64, &str, &str)| format!("{number:04}_{about}.sql");
        assert_eq!(MIGRATIONS.iter().map(named).collect::<Vec<_>>(), files);
    }
}
