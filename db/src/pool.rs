//! The connections to one database.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyPool, ConnectOptions, Executor, Transaction};
use tokio::sync::OnceCell;
use url::Url;

use crate::{Engine, Error, Result, migrations};

/// How a database is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many connections there are at most, and so how much is asked at the same time. Default 10.
    pub connections: u32,
    /// Seconds that somebody waits for a connection before the database counts as unavailable. Default 5.
    pub connect_seconds: u64,
    /// Seconds that a transaction may take before the database counts as unavailable. Default 30.
    pub answer_seconds: u64,
    /// Seconds after which a connection is replaced by a new one. Default 600.
    pub connection_life_seconds: u64,
    /// A file with the password, where the URL has none. May be empty, as it is by default.
    pub password_file: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 10,
            connect_seconds: 5,
            answer_seconds: 30,
            connection_life_seconds: 600,
            password_file: PathBuf::new(),
        }
    }
}

/// A database. Clones share its connections.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    pool: AnyPool,
    engine: Engine,
    place: String,
    answer: Duration,
    /// Why a new connection was of no use, which the pool does not tell: it tries again until nobody wants to wait.
    unusable: Arc<Mutex<Option<sqlx::Error>>>,
    /// Set when the tables are what this version expects.
    prepared: OnceCell<()>,
}

/// The database at `url`: `sqlite:///FILE`, `sqlite::memory:` to forget everything at the end, or
/// `mysql://USER:PASSWORD@HOST:PORT/DATABASE`.
///
/// Nobody is reached yet, so that one who is away can come later; [`Db::ready`] says whether it has. Must be called within a
/// runtime.
pub fn open(url: &Url, settings: &Settings) -> Result<Db> {
    sqlx::any::install_default_drivers();
    let place = place(url);
    let engine = Engine::of_scheme(url.scheme()).filter(|engine| names_a_database(*engine, url));
    let engine = engine.ok_or_else(|| Error::Url(place.clone()))?;
    let mut url = url.clone();
    // Over one connection each, in memory: a second one would see another database, and when it goes, so does that.
    let in_memory = engine == Engine::Sqlite && url.path() == ":memory:";
    if engine == Engine::Sqlite && !in_memory {
        prepare_file(&mut url).map_err(|source| Error::Unavailable { place: place.clone(), source: source.into() })?;
    }
    let file = &settings.password_file;
    if url.password().is_none() && !file.as_os_str().is_empty() {
        let password = std::fs::read_to_string(file).map_err(|source| Error::Password(file.clone(), source))?;
        // A file that people write ends in a line.
        let _ = url.set_password(Some(password.trim_end_matches(['\r', '\n'])));
    }
    let options = AnyConnectOptions::from_url(&url).map_err(|error| Error::of(&place, error))?;
    // What is slow is for those to say who wait for it.
    let options = options.disable_statement_logging();
    let unusable = Arc::<Mutex<Option<sqlx::Error>>>::default();
    let noting = unusable.clone();
    let pool = AnyPoolOptions::new()
        .max_connections(if in_memory { 1 } else { settings.connections.max(1) })
        .acquire_timeout(Duration::from_secs(settings.connect_seconds.max(1)))
        .after_connect(move |connection, _| {
            let unusable = noting.clone();
            Box::pin(async move {
                let Err(error) = connection.execute(engine.greeting()).await else { return Ok(()) };
                *unusable.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(sqlx::Error::PoolTimedOut)
            })
        });
    let life = (!in_memory).then(|| Duration::from_secs(settings.connection_life_seconds.max(1)));
    let pool = pool.max_lifetime(life).idle_timeout(life).connect_lazy_with(options);
    let answer = Duration::from_secs(settings.answer_seconds.max(1));
    Ok(Db(Arc::new(Inner { pool, engine, place, answer, unusable, prepared: OnceCell::new() })))
}

impl Db {
    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        self.0.engine
    }

    /// Where it is, without its password.
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// Whether it answers, with its tables up to date.
    pub async fn ready(&self) -> Result<()> {
        self.in_time(async {
            let mut connection = self.0.pool.acquire().await?;
            sqlx::query("select 1").execute(&mut *connection).await.map(drop)
        })
        .await
    }

    /// Copies the rows into `file`, which is not there yet, while they may be in use. Only an embedded database can; servers have
    /// tools of their own.
    pub async fn copy_to(&self, file: &std::path::Path) -> Result<()> {
        let place = self.0.place.clone();
        let refused = |source: &str| Error::Refused { place: place.clone(), source: source.into() };
        if self.0.engine != Engine::Sqlite {
            return Err(refused("it is a server, which is copied by its own tools"));
        }
        let file = file.to_str().ok_or_else(|| refused("the path of the copy is no text"))?.to_owned();
        self.in_time(async {
            let mut connection = self.0.pool.acquire().await?;
            sqlx::query("vacuum into ?").bind(file).execute(&mut *connection).await.map(drop)
        })
        .await
    }

    /// Ends the connections. What is asked afterwards is refused.
    pub async fn close(&self) {
        self.0.pool.close().await;
    }

    /// A transaction that sees one moment, and changes nothing.
    pub(crate) async fn reading(&self) -> sqlx::Result<Transaction<'static, Any>> {
        self.0.pool.begin_with(self.0.engine.begin_reading()).await
    }

    /// A transaction that writes. It is undone unless it is committed.
    pub(crate) async fn writing(&self) -> sqlx::Result<Transaction<'static, Any>> {
        self.0.pool.begin_with(self.0.engine.begin_writing()).await
    }

    /// The outcome of `work`, which asks this database, once the tables are up to date. A server that stands still is not
    /// waited for without end.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        let all = async {
            self.prepare().await?;
            work.await.map_err(|error| self.error(error))
        };
        let late = |_| {
            let late = format!("no answer within {} s", self.0.answer.as_secs());
            Err(Error::Unavailable { place: self.0.place.clone(), source: late.into() })
        };
        tokio::time::timeout(self.0.answer, all).await.unwrap_or_else(late)
    }

    async fn prepare(&self) -> Result<()> {
        let prepare = || async {
            let mut connection = self.0.pool.acquire().await.map_err(|error| self.error(error))?;
            migrations::run(&mut connection, self.0.engine, &self.0.place).await
        };
        self.0.prepared.get_or_try_init(prepare).await.map(drop)
    }

    fn error(&self, error: sqlx::Error) -> Error {
        let why = match &error {
            sqlx::Error::PoolTimedOut => self.0.unusable.lock().unwrap_or_else(PoisonError::into_inner).take(),
            _ => None,
        };
        Error::of(&self.0.place, why.unwrap_or(error))
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Db").field(&self.0.place).finish()
    }
}

/// The URL of a database as everybody may read it: without the password.
pub fn place(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // A URL that can have no password refuses, and has none.
    let _ = url.set_password(None);
    url.to_string()
}

fn names_a_database(engine: Engine, url: &Url) -> bool {
    match engine {
        Engine::Sqlite => url.path() == ":memory:" || (url.host().is_none() && url.path().len() > 1),
        Engine::Mysql => url.host().is_some() && url.path().len() > 1,
    }
}

/// Makes the directory of the file, and lets the file be made.
fn prepare_file(url: &mut Url) -> std::io::Result<()> {
    let file = percent_decoded(url.path());
    if let Some(directory) = std::path::Path::new(&file).parent() {
        std::fs::create_dir_all(directory)?;
    }
    if !url.query_pairs().any(|(key, _)| key == "mode") {
        url.query_pairs_mut().append_pair("mode", "rwc");
    }
    Ok(())
}

fn percent_decoded(path: &str) -> String {
    // A file URL of the same path is decoded by the library that made it.
    let file = Url::parse(&format!("file://{path}")).ok().and_then(|url| url.to_file_path().ok());
    file.map_or_else(|| path.to_owned(), |file| file.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_that_names_no_database_is_refused_without_its_password() {
        for url in [
            "postgres://u:secret@host/onex",
            "mysql://u:secret@host",
            "mysql://u:secret@host/",
            "sqlite://host/file?key=secret",
            "sqlite:",
            "file:///secretless",
        ] {
            let error = open(&Url::parse(url).unwrap(), &Settings::default()).unwrap_err();
            assert!(matches!(error, Error::Url(_)) && !format!("{error:?} {error}").contains("secret@"), "{error:?}");
            assert!(!error.to_string().contains("=secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn where_it_is_can_be_said_without_the_password() {
        let url = Url::parse("mysql://onex:pass%28word@db:3306/onex?ssl-mode=required").unwrap();
        let db = open(&url, &Settings::default()).unwrap();
        assert_eq!(db.place(), "mysql://onex@db:3306/onex");
        assert_eq!(format!("{db:?}"), r#"Db("mysql://onex@db:3306/onex")"#);
    }
}
