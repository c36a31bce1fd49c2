//! What every storage must do, run against each of them, and what only the durable one does.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod cluster;
mod contract;
mod crash;
mod etcd;
mod keep;
mod linear;
mod model;
mod partition;
mod recovery;

use std::sync::Arc;

use futures::StreamExt;
use onex_storage::{Expected, File, Memory, Revision, Settings, Storage};

/// A storage, and what must outlive it.
struct World {
    storage: Arc<dyn Storage>,
    _keeps: Box<dyn std::any::Any>,
}

fn memory() -> World {
    let storage = Arc::new(Memory::new(&Settings::default(), Arc::new(std::time::SystemTime::now)));
    World { storage, _keeps: Box::new(()) }
}

async fn file() -> World {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(std::time::SystemTime::now);
    let storage = File::open(directory.path(), &Settings::default(), clock).await.unwrap();
    World { storage: Arc::new(storage), _keeps: Box::new(directory) }
}

/// A server of its own for each test: revisions are counted from the beginning.
async fn etcd() -> World {
    let cluster = cluster::Cluster::of(1, &["--max-request-bytes", "16777216"]);
    World { storage: etcd::open(&cluster, &Settings::default()).await, _keeps: Box::new(cluster) }
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
        mod etcd_keeps_that {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let world = super::etcd().await;
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
    the_newest_revision_is_known_and_watches_come_to_it
}

#[tokio::test]
async fn a_url_picks_the_storage() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let path = format!("file://{}", directory.path().join("deep/er").display());
    assert!(onex_storage::open(&"memory:".parse().unwrap(), &settings).await.is_ok());
    assert!(onex_storage::open(&path.parse().unwrap(), &settings).await.is_ok());
    assert!(directory.path().join("deep/er/lock").exists());
}

#[tokio::test]
async fn a_watch_ends_when_the_storage_is_closed() {
    for World { storage, _keeps } in [memory(), file().await, etcd().await] {
        let mut changes = storage.watch(&"/".into(), Revision(0)).await.unwrap();
        storage.put(&"/a".into(), "1".into(), Expected::Absent).await.unwrap();
        let first = changes.next().await.unwrap().unwrap();
        assert_eq!(first.changes.len(), 1);
        drop(storage);
        assert!(changes.next().await.is_none());
    }
}
