//! Random operations, on a storage and on the simplest thing that could be right; both must answer the same.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::StreamExt;
use onex_storage::{Change, Entry, Error, Expected, File, Key, Memory, Page, Revision, Settings, Storage};
use proptest::{collection::vec, prelude::*};

/// Every state there ever was, and every change.
#[derive(Default)]
struct Model {
    states: Vec<BTreeMap<Key, Entry>>,
    changes: Vec<Change>,
    oldest: u64,
}

#[derive(Clone, Debug)]
enum Operation {
    /// A put that expects rightly, or a revision that is so much too old.
    Put {
        key: usize,
        size: usize,
        wrong_by: u64,
    },
    Create {
        key: usize,
    },
    Delete {
        key: usize,
        wrong_by: u64,
    },
    List {
        prefix: usize,
        after: usize,
        limit: Option<usize>,
        back: Option<u64>,
    },
    Watch {
        prefix: usize,
        back: u64,
    },
    Compact {
        back: u64,
    },
    Reopen,
}

const KEYS: [&str; 6] = ["/a", "/a/1", "/a/2", "/b/1", "/b/2", "/c"];
const PREFIXES: [&str; 5] = ["", "/a", "/a/", "/b/", "/none"];

fn operation() -> impl Strategy<Value = Operation> {
    let wrong = prop_oneof![4 => Just(0_u64), 1 => 1..3_u64];
    let back = prop_oneof![4 => 0..8_u64, 1 => 8..60_u64];
    prop_oneof![
        6 => (0..KEYS.len(), 0..2000_usize, wrong.clone())
            .prop_map(|(key, size, wrong_by)| Operation::Put { key, size, wrong_by }),
        4 => (0..KEYS.len()).prop_map(|key| Operation::Create { key }),
        3 => (0..KEYS.len(), wrong).prop_map(|(key, wrong_by)| Operation::Delete { key, wrong_by }),
        3 => (0..PREFIXES.len(), 0..KEYS.len() + 3, prop::option::of(0..4_usize), prop::option::of(back.clone()))
            .prop_map(|(prefix, after, limit, back)| Operation::List { prefix, after, limit, back }),
        2 => (0..PREFIXES.len(), back.clone()).prop_map(|(prefix, back)| Operation::Watch { prefix, back }),
        1 => back.prop_map(|back| Operation::Compact { back }),
        1 => Just(Operation::Reopen),
    ]
}

impl Model {
    fn newest(&self) -> u64 {
        self.changes.len() as u64
    }

    fn now(&self) -> BTreeMap<Key, Entry> {
        self.states.last().cloned().unwrap_or_default()
    }

    fn at(&self, revision: u64) -> BTreeMap<Key, Entry> {
        revision.checked_sub(1).map(|index| self.states[index as usize].clone()).unwrap_or_default()
    }

    fn change(&mut self, key: &Key, value: Option<Bytes>, expected: Expected) -> Result<u64, Option<Entry>> {
        let mut state = self.now();
        let previous = state.get(key).cloned();
        let as_expected = match expected {
            Expected::Absent => previous.is_none(),
            Expected::At(revision) => previous.as_ref().is_some_and(|entry| entry.revision == revision),
        };
        if !as_expected {
            return Err(previous);
        }
        let revision = Revision(self.newest() + 1);
        match &value {
            Some(value) => {
                state.insert(key.clone(), Entry { key: key.clone(), revision, value: value.clone() });
            }
            None => {
                state.remove(key);
            }
        }
        self.states.push(state);
        self.changes.push(Change { key: key.clone(), revision, value, previous });
        Ok(revision.0)
    }

    fn expected(&self, key: &Key, wrong_by: u64) -> Revision {
        let right = self.now().get(key).map_or(self.newest(), |entry| entry.revision.0);
        Revision(right.saturating_sub(wrong_by))
    }
}

fn answer(outcome: Result<Revision, Error>) -> Result<u64, Option<Entry>> {
    match outcome {
        Ok(revision) => Ok(revision.0),
        Err(Error::Conflict { current }) => Err(current),
        Err(other) => panic!("{other}"),
    }
}

async fn check(model: &mut Model, storage: &dyn Storage, operation: &Operation) {
    match operation {
        Operation::Put { key, size, wrong_by } => {
            let key = Key::from(KEYS[*key]);
            let (value, expected) = (Bytes::from(vec![b'v'; *size]), Expected::At(model.expected(&key, *wrong_by)));
            let outcome = answer(storage.put(&key, value.clone(), expected).await);
            assert_eq!(outcome, model.change(&key, Some(value), expected));
        }
        Operation::Create { key } => {
            let key = Key::from(KEYS[*key]);
            let outcome = answer(storage.put(&key, Bytes::from("new"), Expected::Absent).await);
            assert_eq!(outcome, model.change(&key, Some("new".into()), Expected::Absent));
        }
        Operation::Delete { key, wrong_by } => {
            let key = Key::from(KEYS[*key]);
            let expected = model.expected(&key, *wrong_by);
            let outcome = answer(storage.delete(&key, expected).await);
            assert_eq!(outcome, model.change(&key, None, Expected::At(expected)));
        }
        Operation::List { prefix, after, limit, back } => {
            let at = back.map(|back| Revision(model.newest().saturating_sub(back)));
            let after = KEYS.get(*after).map(|key| Key::from(*key));
            check_list(model, storage, Page { prefix: PREFIXES[*prefix].into(), after, limit: *limit, at }).await;
        }
        Operation::Watch { prefix, back } => {
            check_watch(model, storage, PREFIXES[*prefix], model.newest().saturating_sub(*back)).await;
        }
        Operation::Compact { back } => {
            let revision = model.newest().saturating_sub(*back);
            storage.compact(Revision(revision)).await.unwrap();
            model.oldest = model.oldest.max(revision);
        }
        Operation::Reopen => {}
    }
}

async fn check_list(model: &Model, storage: &dyn Storage, page: Page) {
    let at = page.at.map_or(model.newest(), |revision| revision.0);
    let outcome = storage.list(page.clone()).await;
    if at < model.oldest {
        assert!(matches!(outcome, Err(Error::Compacted { oldest }) if oldest.0 == model.oldest));
        return;
    }
    let listing = outcome.unwrap();
    let all = model.at(at).into_values().filter(|entry| page.prefix.contains(&entry.key));
    let mut entries: Vec<_> = all.filter(|entry| page.after.as_ref().is_none_or(|after| entry.key > *after)).collect();
    let rest = entries.split_off(page.limit.unwrap_or(usize::MAX).min(entries.len()));
    assert_eq!((listing.revision, listing.entries, listing.remaining), (Revision(at), entries, rest.len()));
}

async fn check_watch(model: &Model, storage: &dyn Storage, prefix: &str, since: u64) {
    let mut stream = storage.watch(&prefix.into(), Revision(since)).await.unwrap();
    if since < model.oldest {
        assert!(matches!(stream.next().await, Some(Err(Error::Compacted { oldest })) if oldest.0 == model.oldest));
        return;
    }
    let wanted = model.changes.iter().filter(|change| change.revision.0 > since && change.key.0.starts_with(prefix));
    let wanted: Vec<_> = wanted.cloned().collect();
    let mut seen = Vec::new();
    while seen.len() < wanted.len() {
        seen.extend(stream.next().await.unwrap().unwrap().changes);
    }
    assert_eq!(seen, wanted);
}

/// Time stands still, so nothing is forgotten by itself.
fn clock() -> onex_storage::Clock {
    Arc::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_as_the_model_does(operations in vec(operation(), 1..120)) {
        runtime().block_on(async {
            let storage = Memory::new(&Settings::default(), clock());
            let mut model = Model::default();
            for operation in &operations {
                check(&mut model, &storage, operation).await;
            }
        });
    }

    #[test]
    fn file_does_as_the_model_does_and_remembers_it(operations in vec(operation(), 1..120)) {
        // So little garbage that the log is compacted again and again.
        let settings = Settings { garbage_bytes: 2000, ..Settings::default() };
        let directory = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mut storage = File::open(directory.path(), &settings, clock()).await.unwrap();
            let mut model = Model::default();
            for operation in &operations {
                check(&mut model, &storage, operation).await;
                if let Operation::Reopen = operation {
                    drop(storage);
                    storage = File::open(directory.path(), &settings, clock()).await.unwrap();
                }
            }
        });
    }
}
