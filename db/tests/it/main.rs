//! What every database must do, run against each engine, and what happens when one is away.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod accounts;
mod away;
mod contract;
mod file;
mod mariadb;

use onex_db::{Db, Settings};
use url::Url;

/// A database of its own, and what must outlive it.
struct World {
    db: Db,
    _keeps: Box<dyn std::any::Any>,
}

fn memory() -> World {
    World { db: at(&Url::parse("sqlite::memory:").unwrap()), _keeps: Box::new(()) }
}

fn file() -> World {
    let directory = tempfile::tempdir().unwrap();
    World { db: at(&in_directory(directory.path())), _keeps: Box::new(directory) }
}

async fn mariadb() -> World {
    let (server, url) = tokio::task::spawn_blocking(|| {
        let server = mariadb::Mariadb::shared();
        let url = server.database();
        (server, url)
    })
    .await
    .unwrap();
    World { db: at(&url), _keeps: Box::new(server) }
}

fn at(url: &Url) -> Db {
    onex_db::open(url, &Settings::default()).unwrap()
}

fn in_directory(directory: &std::path::Path) -> Url {
    Url::parse(&format!("sqlite://{}", directory.join("deep er/db.sqlite").display())).unwrap()
}

macro_rules! holds_for_every_database {
    ($($contract:ident: $($promise:ident)*;)*) => {
        mod memory_keeps_that {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let world = super::memory();
                super::$contract::$promise(&world.db).await;
            })*)*
        }
        mod file_keeps_that {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let world = super::file();
                super::$contract::$promise(&world.db).await;
            })*)*
        }
        mod mariadb_keeps_that {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let world = super::mariadb().await;
                super::$contract::$promise(&world.db).await;
            })*)*
        }
    };
}

holds_for_every_database! {
    contract: a_new_database_is_ready_and_empty
    what_was_set_is_found_with_every_column
    what_is_set_again_is_changed_and_keeps_its_number
    what_is_gone_is_gone_and_may_be_so_already
    names_differ_by_every_character
    a_large_batch_is_written_whole
    a_list_is_in_order_and_in_pages
    a_list_can_be_narrowed
    a_page_is_of_one_moment
    rows_can_be_gone_through_and_removed
    whoever_wrote_can_wait_until_it_is_in
    text_that_is_too_long_is_cut_to_its_column;
    accounts: users_are_found_by_id_and_name_and_changed_in_part
    a_taken_name_is_told_and_the_change_is_not_made
    a_user_goes_with_keys_and_sessions
    key_pairs_are_of_one_user
    a_refresh_token_is_spent_once_and_the_oldest_session_makes_room
    policies_are_there_once_and_each_change_is_counted
    changes_are_made_one_after_the_other;
}
