//! Whatever many clients do at once could have happened one after the other, in the order of the revisions.
//!
//! Every change has a revision, and a watch from the beginning tells all of them: that is the order. It remains to be seen that
//! each answer fits into it: that nobody was answered with a state older than what was acknowledged before they asked, or one
//! that came after they had their answer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use onex_storage::{
    Change, Changes, Entry, Error, Expected, File, Key, Listing, Memory, Page, Prefix, Result, Revision, Settings,
    Storage,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{cluster::Cluster, etcd};

const CLIENTS: u64 = 8;
const KEYS: u64 = 4;

/// What somebody was answered, and when, on a clock that all share.
#[derive(Debug)]
struct Event {
    asked: u64,
    answered: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A write at this revision.
    Wrote { key: Key, revision: Revision, value: Option<Bytes>, expected: Expected },
    /// Nobody knows whether it was done.
    Unknown { key: Key, value: Option<Bytes> },
    /// The key was seen so, by a read or by a refusal.
    Saw { key: Key, entry: Option<Entry> },
    /// Everything was seen so.
    Listed { revision: Revision, entries: Vec<Entry> },
    /// The store was said to be there.
    Newest(Revision),
}

/// A client that does anything, and notes what it was answered.
async fn client(storage: Arc<dyn Storage>, prefix: String, clock: Arc<AtomicU64>, seed: u64, turns: u64) -> Vec<Event> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut events = Vec::new();
    let mut known: BTreeMap<Key, Option<Entry>> = BTreeMap::new();
    for turn in 0..turns {
        let key = Key::from(format!("{prefix}k{}", rng.random_range(0..KEYS)));
        let value = Bytes::from(format!("{seed}-{turn}"));
        let now = known.get(&key).cloned().flatten();
        let expected = now.as_ref().map_or(Expected::Absent, |entry| Expected::At(entry.revision));
        let asked = clock.fetch_add(1, Ordering::SeqCst);
        let what = match rng.random_range(0..10) {
            0 => match storage.list(Page::all(prefix.as_str())).await {
                Ok(listing) => Some(What::Listed { revision: listing.revision, entries: listing.entries }),
                Err(_) => None,
            },
            1 => storage.newest().await.ok().map(What::Newest),
            2..5 => storage.get(&key).await.ok().map(|entry| What::Saw { key: key.clone(), entry }),
            5 if now.is_some() => {
                let at = now.expect("it was looked at").revision;
                written(storage.delete(&key, at).await, &key, None, expected)
            }
            _ => written(storage.put(&key, value.clone(), expected).await, &key, Some(value), expected),
        };
        let answered = clock.fetch_add(1, Ordering::SeqCst);
        match &what {
            Some(What::Saw { entry, .. }) => drop(known.insert(key.clone(), entry.clone())),
            Some(What::Wrote { revision, value, .. }) => {
                let entry = value.clone().map(|value| Entry { key: key.clone(), revision: *revision, value });
                known.insert(key.clone(), entry);
            }
            _ => {}
        }
        events.extend(what.map(|what| Event { asked, answered, what }));
    }
    events
}

fn written(done: Result<Revision>, key: &Key, value: Option<Bytes>, expected: Expected) -> Option<What> {
    let key = key.clone();
    Some(match done {
        Ok(revision) => What::Wrote { key, revision, value, expected },
        Err(Error::Conflict { current }) => What::Saw { key, entry: current },
        Err(Error::Unavailable(_)) => What::Unknown { key, value },
        Err(other) => panic!("{other}"),
    })
}

/// Runs clients, and holds all they were told against all that happened.
async fn check(storage: Arc<dyn Storage>, truth: &dyn Storage, seed: u64, turns: u64) {
    let beginning = truth.newest().await.unwrap();
    // Where nobody was before.
    let prefix = format!("/{}/", beginning.0);
    let clock = Arc::new(AtomicU64::new(0));
    let clients = (0..CLIENTS)
        .map(|n| tokio::spawn(client(storage.clone(), prefix.clone(), clock.clone(), seed * 1000 + n, turns)));
    let mut events = Vec::new();
    for client in join_all(clients).await {
        events.extend(client.unwrap());
    }
    let history = history(truth, &prefix, beginning).await;
    let complaint = |event: &Event, why: &str| panic!("seed {seed}: {why}: {event:?}\n{history:#?}");
    // The key at a revision, and until when it was so.
    let at = |key: &Key, revision: Revision| {
        history.iter().rev().find(|change| change.key == *key && change.revision <= revision)
    };
    let until = |key: &Key, revision: Revision| {
        let next = history.iter().find(|change| change.key == *key && change.revision > revision);
        next.map_or(u64::MAX, |change| change.revision.0)
    };
    let mut wrote: Vec<(&Event, Revision)> = Vec::new();
    for event in &events {
        if let What::Wrote { key, revision, value, expected } = &event.what {
            let change = history.iter().find(|change| change.revision == *revision);
            let is_there = change.is_some_and(|change| change.key == *key && change.value == *value);
            let before = change.and_then(|change| change.previous.as_ref()).map(|entry| entry.revision);
            let is_expected = match expected {
                Expected::Absent => before.is_none(),
                Expected::At(at) => before == Some(*at),
            };
            if !is_there || !is_expected {
                complaint(event, "what was acknowledged is not what happened");
            }
            wrote.push((event, *revision));
        }
    }
    // What was acknowledged before somebody asked, and what was only asked for after they had their answer.
    let before = |asked: u64| {
        let earlier = wrote.iter().filter(|(event, _)| event.answered < asked).map(|(_, revision)| revision.0);
        earlier.max().unwrap_or(beginning.0)
    };
    let after = |answered: u64| {
        let later = wrote.iter().filter(|(event, _)| event.asked > answered).map(|(_, revision)| revision.0);
        later.min().unwrap_or(u64::MAX)
    };
    for event in &events {
        let (oldest, newest) = (before(event.asked), after(event.answered));
        match &event.what {
            What::Wrote { revision, .. } => {
                if revision.0 <= oldest || revision.0 >= newest {
                    complaint(event, "it stands before what was over, or after what had not begun");
                }
            }
            What::Unknown { key, value } => {
                let times =
                    history.iter().filter(|change| change.key == *key && change.value == *value && value.is_some());
                if times.count() > 1 {
                    complaint(event, "it happened twice");
                }
            }
            What::Saw { key, entry } => {
                let seen = entry.as_ref().map_or(Revision(0), |entry| entry.revision);
                let is_true = match entry {
                    Some(entry) => at(key, seen)
                        .is_some_and(|change| change.revision == seen && change.value.as_ref() == Some(&entry.value)),
                    None => true,
                };
                // When it was so: from its own change on; without an entry, since some deletion or from the beginning.
                let was_so = match entry {
                    Some(_) => seen.0 < newest && until(key, seen) > oldest,
                    None => absences(&history, key, beginning).any(|(from, to)| from < newest && to > oldest),
                };
                if !is_true || !was_so {
                    complaint(event, "that was seen too late, too early or never");
                }
            }
            What::Listed { revision, entries } => {
                let mut there: BTreeMap<&Key, &Change> = BTreeMap::new();
                for change in history.iter().filter(|change| change.revision <= *revision) {
                    there.insert(&change.key, change);
                }
                there.retain(|_, change| change.value.is_some());
                let is_same = there.len() == entries.len()
                    && entries.iter().all(|entry| {
                        there.get(&entry.key).is_some_and(|change| {
                            change.revision == entry.revision && change.value.as_ref() == Some(&entry.value)
                        })
                    });
                if !is_same || revision.0 < oldest || revision.0 >= newest {
                    complaint(event, "that list shows no state of its time");
                }
            }
            What::Newest(revision) => {
                if revision.0 < oldest || revision.0 >= newest {
                    complaint(event, "that was not the newest");
                }
            }
        }
    }
}

/// From when to when a key was not there.
fn absences<'a>(history: &'a [Change], key: &'a Key, beginning: Revision) -> impl Iterator<Item = (u64, u64)> + 'a {
    let changes: Vec<_> = history.iter().filter(|change| change.key == *key).collect();
    let first = (beginning.0, changes.first().map_or(u64::MAX, |change| change.revision.0));
    let later = (0..changes.len()).filter(move |place| changes[*place].value.is_none()).map({
        let changes: Vec<_> = history.iter().filter(|change| change.key == *key).collect();
        move |place| {
            let next = changes.get(place + 1).map_or(u64::MAX, |change| change.revision.0);
            (changes[place].revision.0, next)
        }
    });
    std::iter::once(first).chain(later)
}

/// Every change there was, in order.
async fn history(storage: &dyn Storage, prefix: &str, beginning: Revision) -> Vec<Change> {
    let newest = storage.newest().await.unwrap();
    let mut changes = storage.watch(&Prefix::from(prefix), beginning).await.unwrap();
    let mut history: Vec<Change> = Vec::new();
    let mut reached = beginning;
    while reached < newest {
        let run = tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap().unwrap();
        history.extend(run.changes);
        reached = run.revision;
    }
    history
}

/// A storage that fails and dawdles as a seed says: before it does anything, or when it has done it.
struct Flaky {
    storage: Arc<dyn Storage>,
    turn: AtomicU64,
    seed: u64,
    /// What each key was when it was read first, which is told again now and then: what no storage may do.
    lies: Option<Mutex<BTreeMap<Key, Option<Entry>>>>,
}

impl Flaky {
    async fn fate(&self) -> u32 {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (self.turn.fetch_add(1, Ordering::SeqCst) << 20));
        for _ in 0..rng.random_range(0..4) {
            tokio::task::yield_now().await;
        }
        if rng.random_range(0..8) == 0 {
            tokio::time::sleep(Duration::from_micros(rng.random_range(0..3000))).await;
        }
        rng.random_range(0..20)
    }

    async fn write<T>(&self, done: impl Future<Output = Result<T>>) -> Result<T> {
        let lost = || Error::Unavailable("the test says so".into());
        match self.fate().await {
            0 => Err(lost()),
            1 => done.await.and(Err(lost())),
            _ => {
                let done = done.await;
                self.fate().await;
                done
            }
        }
    }
}

#[async_trait]
impl Storage for Flaky {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let read = self.write(self.storage.get(key)).await?;
        match &self.lies {
            Some(lies) if self.turn.load(Ordering::SeqCst).is_multiple_of(5) => {
                Ok(lies.lock().unwrap().entry(key.clone()).or_insert(read).clone())
            }
            _ => Ok(read),
        }
    }

    async fn list(&self, page: Page) -> Result<Listing> {
        self.write(self.storage.list(page)).await
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected) -> Result<Revision> {
        self.write(self.storage.put(key, value, expected)).await
    }

    async fn delete(&self, key: &Key, expected: Revision) -> Result<Revision> {
        self.write(self.storage.delete(key, expected)).await
    }

    async fn watch(&self, prefix: &Prefix, since: Revision) -> Result<Changes> {
        self.storage.watch(prefix, since).await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.storage.compact(revision).await
    }

    async fn newest(&self) -> Result<Revision> {
        self.write(self.storage.newest()).await
    }
}

/// As it is, and with faults.
async fn check_both(storage: Arc<dyn Storage>, seeds: std::ops::Range<u64>, turns: u64) {
    for seed in seeds {
        check(storage.clone(), &*storage, seed, turns).await;
        let flaky = Arc::new(Flaky { storage: storage.clone(), turn: AtomicU64::new(0), seed, lies: None });
        check(flaky, &*storage, seed, turns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tells_of_the_past_as_if_it_were_now_is_found_out() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new(&Settings::default(), Arc::new(std::time::SystemTime::now)));
    let liar = Flaky { storage: storage.clone(), turn: AtomicU64::new(0), seed: 1, lies: Some(Mutex::default()) };
    let checked = tokio::spawn(async move { check(Arc::new(liar), &*storage, 1, 100).await }).await;
    assert!(checked.is_err_and(|found| found.is_panic()));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_everything_could_have_happened_one_after_the_other() {
    let storage = Memory::new(&Settings::default(), Arc::new(std::time::SystemTime::now));
    check_both(Arc::new(storage), 0..20, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_files_everything_could_have_happened_one_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(std::time::SystemTime::now);
    let storage = File::open(directory.path(), &Settings::default(), clock).await.unwrap();
    check_both(Arc::new(storage), 0..20, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_etcd_everything_could_have_happened_one_after_the_other() {
    let cluster = Cluster::of(3, &[]);
    let storage = etcd::open(&cluster, &Settings::default()).await;
    check_both(storage, 0..4, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_members_that_die_one_after_the_other_too() {
    let mut cluster = Cluster::of(3, &[]);
    let storage = etcd::open(&cluster, &Settings::default()).await;
    let checked = tokio::spawn({
        let storage = storage.clone();
        async move { check(storage.clone(), &*storage, 77, 400).await }
    });
    for member in [0, 1] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.kill(member);
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.start(member);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    checked.await.unwrap();
}
