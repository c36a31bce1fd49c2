//! The map itself, in memory, with its recent history. Both embedded storages are this, one of them with a log below.
//!
//! There is one writer at a time: it collects a [`Batch`] against the map as it stands, makes it durable if that is its
//! business, and then applies it. Readers never wait for more than the applying.

use std::{
    collections::{HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use imbl::OrdMap;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    Change, Changes, Clock, Entry, Error, Expected, KEY_BYTES, Key, Listing, Page, Prefix, Result, Revision, Run,
    Settings, VALUE_BYTES,
};

/// How many changes are looked at in one go, so that the lock is held for microseconds and no reader starves others.
const RUN: u64 = 512;

/// What an entry or a change is reckoned to take beside its key and its values, in bytes.
const OVERHEAD: u64 = 128;

/// A value and the revision that put it there.
#[derive(Clone)]
pub(crate) struct Stored {
    pub revision: Revision,
    pub value: Bytes,
}

pub(crate) type Entries = OrdMap<Key, Stored>;

/// A change, and when it happened, in milliseconds since 1970.
pub(crate) struct Record {
    pub time: u64,
    pub change: Change,
}

/// What somebody wants to happen.
pub(crate) enum Write {
    Put { key: Key, value: Bytes, expected: Expected },
    Delete { key: Key, expected: Revision },
    Compact(Revision),
}

/// The map as it was at one moment.
pub(crate) struct Moment {
    pub revision: Revision,
    pub entries: Entries,
}

/// Everything that a log must hold to make the map again: the entries at `base`, and each change since.
pub(crate) struct Snapshot {
    pub base: Revision,
    pub entries: Entries,
    pub history: Vec<Arc<Record>>,
}

/// The revisioned map, its history and its watchers.
pub(crate) struct Map {
    state: RwLock<State>,
    /// Says that something changed; true once the map is closed.
    news: watch::Sender<bool>,
    clock: Clock,
    history: Duration,
    history_bytes: u64,
}

struct State {
    entries: Entries,
    /// The changes after `oldest` up to `newest`, with no gap, so that a revision is an index.
    changes: VecDeque<Arc<Record>>,
    oldest: Revision,
    newest: Revision,
    live_bytes: u64,
    change_bytes: u64,
}

impl Map {
    pub fn new(settings: &Settings, clock: Clock) -> Self {
        Self::based_on(Revision(0), Entries::new(), settings, clock)
    }

    /// The map that holds `entries` at `base`, and knows nothing of what was before.
    pub fn based_on(base: Revision, entries: Entries, settings: &Settings, clock: Clock) -> Self {
        let live_bytes = entries.iter().map(|(key, stored)| weight(key, &stored.value)).sum();
        let changes = VecDeque::new();
        Self {
            state: RwLock::new(State { entries, changes, oldest: base, newest: base, live_bytes, change_bytes: 0 }),
            news: watch::Sender::new(false),
            clock,
            history: Duration::from_secs(settings.history_seconds),
            history_bytes: settings.history_bytes,
        }
    }

    pub fn now(&self) -> u64 {
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    pub fn newest(&self) -> Revision {
        self.state.read().newest
    }

    /// The oldest revision that can still be read and watched from.
    pub fn oldest(&self) -> Revision {
        self.state.read().oldest
    }

    /// What a log of this map cannot do without, in bytes, about.
    pub fn needed_bytes(&self) -> u64 {
        let state = self.state.read();
        state.live_bytes + state.change_bytes
    }

    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.state.read().entry(key)
    }

    pub fn list(&self, page: &Page) -> Result<Listing> {
        let (revision, entries) = self.at(page.at, &page.prefix)?;
        let mut rest = in_prefix(&entries, page);
        let limit = page.limit.unwrap_or(usize::MAX);
        let entries = rest.by_ref().take(limit).map(|(key, stored)| stored.at(key)).collect();
        Ok(Listing { revision, entries, remaining: rest.count() })
    }

    pub fn watch(self: &Arc<Self>, prefix: &Prefix, since: Revision) -> Result<Changes> {
        let newest = self.newest();
        if since > newest {
            return Err(Error::Future { newest });
        }
        let watcher = Watcher { map: self.clone(), prefix: prefix.clone(), seen: since, news: self.news.subscribe() };
        Ok(stream::unfold(Some(watcher), |watcher| async { watcher?.next().await }).boxed())
    }

    /// Makes the batch visible, tells the watchers, and forgets what is too old.
    pub fn apply(&self, batch: Batch) {
        let now = self.now();
        let mut state = self.state.write();
        for record in batch.records {
            state.apply(record);
        }
        let forgotten = state.trim(batch.compact, self.horizon(now), self.history_bytes);
        drop(state);
        self.news.send_modify(|_| ());
        // Freeing memory takes time, and readers need not wait for it.
        drop(forgotten);
    }

    /// Forgets what is too old, as every write does, for when there are no writes.
    pub fn trim(&self) {
        let horizon = self.horizon(self.now());
        let forgotten = self.state.write().trim(None, horizon, self.history_bytes);
        drop(forgotten);
    }

    /// What happened before this is forgotten.
    fn horizon(&self, now: u64) -> u64 {
        now.saturating_sub(u64::try_from(self.history.as_millis()).unwrap_or(u64::MAX))
    }

    /// Ends every watch.
    pub fn close(&self) {
        self.news.send_replace(true);
    }

    /// The entries as they are, to be [unwound](Self::unwind) by somebody who has the time.
    pub fn moment(&self) -> Moment {
        let state = self.state.read();
        Moment { revision: state.newest, entries: state.entries.clone() }
    }

    /// Everything that is worth keeping as of a moment: goes back through history as far as it reaches.
    pub fn unwind(&self, moment: Moment) -> Snapshot {
        let Moment { revision: mut base, mut entries } = moment;
        let mut history = Vec::new();
        // History may be trimmed meanwhile; then the snapshot simply begins later.
        loop {
            let run = self.state.read().before(base);
            let Some(first) = run.first() else { break };
            base = Revision(first.change.revision.0 - 1);
            run.iter().rev().for_each(|record| undo(&mut entries, &record.change));
            history.extend(run.into_iter().rev());
        }
        history.reverse();
        Snapshot { base, entries, history }
    }

    /// The entries as they stood at a revision; only those in the prefix are right.
    fn at(&self, at: Option<Revision>, prefix: &Prefix) -> Result<(Revision, Entries)> {
        let Moment { revision: newest, mut entries } = self.moment();
        let at = at.unwrap_or(newest);
        if at > newest {
            return Err(Error::Future { newest });
        }
        let oldest = self.oldest();
        if at < oldest {
            return Err(Error::Compacted { oldest });
        }
        let mut seen = newest;
        while seen > at {
            let run = self.state.read().before(seen);
            for record in run.iter().rev().take_while(|record| record.change.revision > at) {
                if prefix.contains(&record.change.key) {
                    undo(&mut entries, &record.change);
                }
            }
            // History was trimmed while we walked back through it.
            let first = run.first().ok_or_else(|| Error::Compacted { oldest: self.oldest() })?;
            seen = Revision(first.change.revision.0 - 1);
        }
        Ok((at, entries))
    }
}

impl State {
    fn entry(&self, key: &Key) -> Option<Entry> {
        self.entries.get_key_value(key).map(|(key, stored)| stored.at(key))
    }

    /// Up to [`RUN`] changes after `seen`, in order.
    fn after(&self, seen: Revision) -> Result<Vec<Arc<Record>>> {
        if seen < self.oldest {
            return Err(Error::Compacted { oldest: self.oldest });
        }
        let start = (seen.0 - self.oldest.0) as usize;
        Ok(self.changes.range(start..).take(RUN as usize).cloned().collect())
    }

    /// Up to [`RUN`] changes up to and including `seen`, in order; none, once history begins there.
    fn before(&self, seen: Revision) -> Vec<Arc<Record>> {
        let end = seen.0.saturating_sub(self.oldest.0);
        self.changes.range(end.saturating_sub(RUN) as usize..end as usize).cloned().collect()
    }

    fn apply(&mut self, record: Arc<Record>) {
        let change = &record.change;
        debug_assert_eq!(change.revision.0, self.newest.0 + 1, "revisions have no gap");
        self.newest = change.revision;
        self.change_bytes += history_weight(change);
        if let Some(previous) = &change.previous {
            self.live_bytes -= weight(&previous.key, &previous.value);
        }
        match &change.value {
            Some(value) => {
                self.live_bytes += weight(&change.key, value);
                let stored = Stored { revision: change.revision, value: value.clone() };
                self.entries.insert(change.key.clone(), stored);
            }
            None => {
                self.entries.remove(&change.key);
            }
        }
        self.changes.push_back(record);
    }

    /// Forgets changes up to `compact` and from before `horizon`, and the oldest while they take too much room.
    fn trim(&mut self, compact: Option<Revision>, horizon: u64, bytes: u64) -> Vec<Arc<Record>> {
        let mut forgotten = Vec::new();
        while let Some(oldest) = self.changes.front()
            && (compact >= Some(oldest.change.revision) || oldest.time < horizon || self.change_bytes > bytes)
        {
            forgotten.extend(self.forget_oldest());
        }
        forgotten
    }

    fn forget_oldest(&mut self) -> Option<Arc<Record>> {
        let record = self.changes.pop_front()?;
        self.change_bytes -= history_weight(&record.change);
        self.oldest = record.change.revision;
        Some(record)
    }
}

impl Stored {
    fn at(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), revision: self.revision, value: self.value.clone() }
    }
}

fn weight(key: &Key, value: &Bytes) -> u64 {
    OVERHEAD + (key.0.len() + value.len()) as u64
}

/// What history alone keeps alive. The new value is either live, or the previous one of a later change.
fn history_weight(change: &Change) -> u64 {
    OVERHEAD + (change.key.0.len() + change.previous.as_ref().map_or(0, |previous| previous.value.len())) as u64
}

fn undo(entries: &mut Entries, change: &Change) {
    match &change.previous {
        Some(previous) => {
            let stored = Stored { revision: previous.revision, value: previous.value.clone() };
            entries.insert(previous.key.clone(), stored);
        }
        None => {
            entries.remove(&change.key);
        }
    }
}

fn in_prefix<'a>(entries: &'a Entries, page: &'a Page) -> impl Iterator<Item = (&'a Key, &'a Stored)> {
    let prefix = &*page.prefix.0;
    let start = match &page.after {
        Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
        _ => Bound::Included(prefix),
    };
    entries.range::<_, str>((start, Bound::Unbounded)).take_while(move |(key, _)| key.0.starts_with(prefix))
}

struct Watcher {
    map: Arc<Map>,
    prefix: Prefix,
    seen: Revision,
    news: watch::Receiver<bool>,
}

impl Watcher {
    /// The next run of changes, and who watches on; nobody, after an error.
    async fn next(mut self) -> Option<(Result<Run>, Option<Self>)> {
        loop {
            // Looked at before the map, so that news that comes in between wakes us again.
            let closed = *self.news.borrow_and_update();
            let run = match self.map.state.read().after(self.seen) {
                Ok(run) => run,
                Err(compacted) => return Some((Err(compacted), None)),
            };
            let Some(last) = run.last() else {
                if closed {
                    return None;
                }
                self.news.changed().await.ok()?;
                continue;
            };
            self.seen = last.change.revision;
            let changes: Vec<_> = run
                .iter()
                .filter(|record| self.prefix.contains(&record.change.key))
                .map(|record| record.change.clone())
                .collect();
            if !changes.is_empty() {
                return Some((Ok(Run { changes, revision: self.seen }), Some(self)));
            }
            tokio::task::consume_budget().await;
        }
    }
}

/// Writes that happen together: decided one after the other against the map and each other, applied at once.
pub(crate) struct Batch {
    pub records: Vec<Arc<Record>>,
    pub compact: Option<Revision>,
    newest: Revision,
    time: u64,
    /// Where in `records` a key was changed last.
    last: HashMap<Key, usize>,
}

impl Batch {
    pub fn new(map: &Map) -> Self {
        Self { records: Vec::new(), compact: None, newest: map.newest(), time: map.now(), last: HashMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.compact.is_none()
    }

    /// When it happened, in milliseconds since 1970.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// Decides a write, and takes it up if it may happen.
    pub fn write(&mut self, map: &Map, write: Write) -> Result<Revision> {
        match write {
            Write::Put { key, value, expected } => {
                let current = self.current(map, &key);
                let as_expected = match expected {
                    Expected::Absent => current.is_none(),
                    Expected::At(revision) => current.as_ref().is_some_and(|entry| entry.revision == revision),
                };
                if as_expected { Ok(self.push(key, Some(value), current)) } else { Err(Error::Conflict { current }) }
            }
            Write::Delete { key, expected } => match self.current(map, &key) {
                Some(entry) if entry.revision == expected => Ok(self.push(key, None, Some(entry))),
                current => Err(Error::Conflict { current }),
            },
            Write::Compact(revision) if revision > self.newest => Err(Error::Future { newest: self.newest }),
            Write::Compact(revision) if revision <= map.oldest() => Ok(revision),
            Write::Compact(revision) => {
                self.compact = self.compact.max(Some(revision));
                Ok(revision)
            }
        }
    }

    /// Takes up a change that was decided before: one that is read back from a log.
    pub fn replay(&mut self, map: &Map, time: u64, key: Key, value: Option<Bytes>) {
        self.time = time;
        let current = self.current(map, &key);
        self.push(key, value, current);
    }

    fn current(&self, map: &Map, key: &Key) -> Option<Entry> {
        let Some(index) = self.last.get(key) else {
            return map.get(key);
        };
        let change = &self.records[*index].change;
        let value = change.value.clone()?;
        Some(Entry { key: change.key.clone(), revision: change.revision, value })
    }

    fn push(&mut self, key: Key, value: Option<Bytes>, previous: Option<Entry>) -> Revision {
        // The map's own copy of the name, so that it is in memory once.
        let key = previous.as_ref().map_or(key, |entry| entry.key.clone());
        self.newest.0 += 1;
        let revision = self.newest;
        self.last.insert(key.clone(), self.records.len());
        let change = Change { key, revision, value, previous };
        self.records.push(Arc::new(Record { time: self.time, change }));
        revision
    }
}

/// Refuses a key that no storage takes.
pub(crate) fn check_key(key: &Key) -> Result<()> {
    match key.0.len() {
        1..=KEY_BYTES => Ok(()),
        bytes => Err(Error::Size { what: "key", bytes, limit: KEY_BYTES }),
    }
}

/// Refuses what no storage takes.
pub(crate) fn check(key: &Key, value: &Bytes) -> Result<()> {
    check_key(key)?;
    if value.len() > VALUE_BYTES {
        return Err(Error::Size { what: "value", bytes: value.len(), limit: VALUE_BYTES });
    }
    Ok(())
}

/// Lets a map forget in time also when nobody writes to it. Ends when the map is gone.
pub(crate) fn trim_now_and_then(map: &Arc<Map>) {
    let period = (map.history / 8).clamp(Duration::from_secs(1), Duration::from_secs(60));
    let map = Arc::downgrade(map);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            match map.upgrade() {
                Some(map) => map.trim(),
                None => return,
            }
        }
    });
}
