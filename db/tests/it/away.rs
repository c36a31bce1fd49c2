//! A server that is away, and comes back.

use std::time::{Duration, Instant};

use onex_db::mirror::{Chain, Change, Row, Wanted};
use onex_db::{Db, Error, Settings, open};

use crate::mariadb::{Mariadb, PASSWORD};

/// Settings with which nobody waits long.
fn impatient() -> Settings {
    Settings { connect_seconds: 1, answer_seconds: 3, ..Settings::default() }
}

async fn a_server() -> Mariadb {
    tokio::task::spawn_blocking(Mariadb::start).await.unwrap()
}

async fn is_away(db: &Db) -> Error {
    let asked = Instant::now();
    let error = db.mirror::<Chain>().list(&Wanted::default()).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(30), "it was waited for {:?}", asked.elapsed());
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(!format!("{error:?} {}", error.story()).contains(PASSWORD), "{error:?}");
    error
}

/// The outcome of `ask` as soon as it is not that nobody is there.
async fn when_back(db: &Db) -> u64 {
    for _ in 0..100 {
        match db.mirror::<Chain>().list(&Wanted::default()).await {
            Ok(page) => return page.total,
            Err(error) => assert!(error.is_passing(), "{}", error.story()),
        }
    }
    panic!("it did not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_said_to_be_and_works_when_it_is_back() {
    let server = a_server().await;
    let url = server.database();
    server.kill();
    // Also one that was never reached.
    let db = open(&url, &impatient()).unwrap();
    let story = is_away(&db).await.story();
    assert!(story.contains(db.place()) && story.contains("nobody answers"), "{story}");
    server.restart();
    assert_eq!(when_back(&db).await, 0);
    let change = Change::Set(Row::new("a", "b", 1, Chain::default()));
    db.mirror().apply(&[change], Some(1), 1).await.unwrap();
    server.kill();
    is_away(&db).await;
    is_away(&db).await;
    server.restart();
    assert_eq!(when_back(&db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_is_not_waited_for_without_end() {
    let server = a_server().await;
    let db = open(&server.database(), &impatient()).unwrap();
    assert_eq!(when_back(&db).await, 0);
    server.signal("STOP");
    is_away(&db).await;
    server.signal("CONT");
    assert_eq!(when_back(&db).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_not_told() {
    let server = tokio::task::spawn_blocking(Mariadb::shared).await.unwrap();
    let mut url = server.database();
    url.set_password(Some("wr0ng-passw0rd")).unwrap();
    let error = open(&url, &impatient()).unwrap().ready().await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.story().contains("Access denied"), "{}", error.story());
    assert!(!format!("{error:?} {}", error.story()).contains("wr0ng"), "{error:?}");
}

/// Servers commit each statement that makes a table, so that whoever died between two of them left half of a migration.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_was_cut_off_is_done_again() {
    let server = tokio::task::spawn_blocking(Mariadb::shared).await.unwrap();
    let url = server.database();
    let name = url.path().trim_start_matches('/').to_owned();
    open(&url, &impatient()).unwrap().ready().await.unwrap();
    server.ask(&format!("drop table {name}.gateway_mirror; update {name}._sqlx_migrations set success = false"));
    let db = open(&url, &impatient()).unwrap();
    assert_eq!(db.mirror::<Chain>().list(&Wanted::default()).await.unwrap().total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_another_version_are_refused() {
    let server = tokio::task::spawn_blocking(Mariadb::shared).await.unwrap();
    let url = server.database();
    let name = url.path().trim_start_matches('/').to_owned();
    // Making the tables may take its time on a busy machine.
    open(&url, &Settings::default()).unwrap().ready().await.unwrap();
    server.ask(&format!("update {name}._sqlx_migrations set checksum = 'other' where version = 1"));
    let error = open(&url, &Settings::default()).unwrap().ready().await.unwrap_err();
    assert!(matches!(error, Error::Migration { .. }), "{error:?}");
}

/// OneX reads the host of its settings and then goes to 127.0.0.1:3306, whatever they say.
#[tokio::test(flavor = "multi_thread")]
async fn b15_the_server_is_the_one_that_the_url_names_and_the_password_may_be_in_a_file() {
    let server = tokio::task::spawn_blocking(Mariadb::shared).await.unwrap();
    let mut url = server.database();
    let name = url.path().trim_start_matches('/').to_owned();
    let directory = tempfile::tempdir().unwrap();
    let password_file = directory.path().join("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    url.set_password(None).unwrap();
    let settings = Settings { connection_life_seconds: 1, password_file, ..Settings::default() };
    let db = open(&url, &settings).unwrap();
    let change = Change::Set(Row::new("a", "b", 1, Chain::default()));
    db.mirror().apply(&[change], None, 1).await.unwrap();
    assert_eq!(server.ask(&format!("select name from {name}.gateway_chain")).trim(), "b");
    // A connection whose life is over is replaced, which nobody notices.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(db.mirror::<Chain>().list(&Wanted::default()).await.unwrap().total, 1);

    let missing = Settings { password_file: directory.path().join("missing"), ..impatient() };
    let error = open(&url, &missing).unwrap_err();
    assert!(matches!(error, Error::Password(..)) && error.story().contains("missing"), "{}", error.story());
}
