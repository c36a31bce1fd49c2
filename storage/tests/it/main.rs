//! What every storage must do, run against each of them, and what only the durable one does.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod contract;
mod model;
mod recovery;

use std::sync::Arc;

use futures::StreamExt;
use onex_storage::{Expected, File, Memory, Revision, Settings, Storage};

/// A storage, and what must outlive it.
struct World {
    storage: Arc<dyn Storage>,
    _directory: Option<tempfile::TempDir>,
}

fn memory() -> World {
    let storage = Arc::new(Memory::new(&Settings::default(), Arc::new(std::time::SystemTime::now)));
    World { storage, _directory: None }
}

async fn file() -> World {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(std::time::SystemTime::now);
    let storage = File::open(directory.path(), &Settings::default(), clock).await.unwrap();
    World { storage: Arc::new(storage), _directory: Some(directory) }
}

macro_rules! holds_for_every_storage {
    ($($promise:ident)*) => {
        mod memory_keeps_that {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let world = super::memory();
                super::contract::$promise(world.storage.clone()).await;
            })*
        }
        mod file_keeps_that {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let world = super::file().await;
                super::contract::$promise(world.storage.clone()).await;
            })*
        }
    };
}

holds_for_every_storage! {
    what_was_put_can_be_read
    a_put_that_expects_wrongly_answers_what_is_there
    of_many_writers_of_one_entry_each_revision_has_one_winner
    a_deletion_has_a_revision_and_expects_like_a_put
    a_key_that_was_deleted_can_be_made_again
    a_list_is_in_order_and_in_pages
    a_list_of_no_entries_counts
    a_list_shows_the_past_as_it_was
    a_list_of_the_future_is_refused
    pages_of_a_past_revision_fit_together
    a_watch_begins_where_it_is_told_and_sees_only_its_prefix
    a_watch_tells_what_was_there_before
    a_watch_misses_nothing_while_many_write
    a_watch_of_the_future_is_refused
    compaction_forgets_up_to_a_revision
    a_watch_that_compaction_overtakes_ends
    compaction_of_the_future_is_refused
    keys_and_values_have_bounds
    text_in_any_language_is_a_key
}

#[tokio::test]
async fn a_url_picks_the_storage() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let url = |text: &str| url::Url::parse(text).unwrap();
    let path = format!("file://{}", directory.path().join("deep/er").display());
    assert!(onex_storage::open(&url("memory:"), &settings).await.is_ok());
    assert!(onex_storage::open(&url(&path), &settings).await.is_ok());
    assert!(directory.path().join("deep/er/lock").exists());
    let refused = onex_storage::open(&url("ftp://somewhere/"), &settings).await.err().unwrap();
    assert!(matches!(refused, onex_storage::Error::UnknownScheme(scheme) if scheme == "ftp"));
    let refused = onex_storage::open(&url("file://host/directory"), &settings).await.err().unwrap();
    assert!(matches!(refused, onex_storage::Error::NoDirectory(_)));
}

#[tokio::test]
async fn a_watch_ends_when_the_storage_is_closed() {
    for World { storage, _directory } in [memory(), file().await] {
        let mut changes = storage.watch(&"/".into(), Revision(0)).await.unwrap();
        storage.put(&"/a".into(), "1".into(), Expected::Absent).await.unwrap();
        drop(storage);
        assert_eq!(changes.next().await.unwrap().unwrap().len(), 1);
        assert!(changes.next().await.is_none());
    }
}
