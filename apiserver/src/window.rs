//! Step 7 of `kubectl apply`: recent history, snapshots and watchers, one window per stored resource.
//!
//! The window is what reads see. It holds the bytes that the store holds, not a copy: a snapshot is an O(1) clone of a
//! persistent map, a LIST walks a snapshot without a lock, and a WATCH is a cursor in a history that all watchers share,
//! so a slow watcher costs the others nothing and is cut off alone when history overtakes it.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use imbl::OrdMap;
use onex_storage::{Change, Page, Prefix, Revision, Storage};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One object as it was stored at one revision.
#[derive(Debug)]
pub struct Item {
    /// The key in the store, which ends in `namespace/name` or `name`.
    pub key: Arc<str>,
    /// The revision of the object's last change.
    pub revision: u64,
    /// The stored JSON, which does not know its own revision.
    raw: Bytes,
    /// Where `"resourceVersion":…` goes: right after the opening brace of `metadata`.
    at: u32,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[Box<str>]>,
}

/// The state of a window at one revision. Cheap to take, never changes.
#[derive(Clone)]
pub struct Snapshot {
    /// The revision that the snapshot shows.
    pub revision: u64,
    /// The objects, by key.
    pub items: OrdMap<Arc<str>, Arc<Item>>,
}

/// One change of one object.
pub struct Event {
    /// When, in the order of the whole store.
    pub revision: u64,
    /// The object after the change; its last state, if it was deleted.
    pub item: Arc<Item>,
    /// The object before the change.
    pub previous: Option<Arc<Item>>,
    /// The object is gone.
    pub deleted: bool,
    frame: OnceLock<Bytes>,
}

/// A run of events after a cursor, or the news that history no longer reaches back so far.
pub enum Run {
    /// The events, and the revision up to which they are complete.
    Events(Vec<Arc<Event>>, u64),
    /// History begins after this revision.
    Gone(u64),
}

/// How much the windows remember.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// History older than this may be forgotten.
    pub age: Duration,
    /// History of one resource that refers to more bytes than this is forgotten from its old end.
    pub bytes: usize,
    /// So many pinned snapshots for paging are kept per resource.
    pub pins: usize,
}

/// Recent history, snapshots and watchers of one stored resource.
pub struct Window {
    prefix: String,
    /// The paths of the fields that selectors know, in the order of [`Item::field`].
    paths: Vec<Vec<String>>,
    bounds: Bounds,
    state: RwLock<State>,
    pins: Mutex<VecDeque<(Instant, Snapshot)>>,
    /// Told after every change of this resource.
    news: watch::Sender<u64>,
    /// The revision up to which all windows are complete.
    complete: Arc<AtomicU64>,
}

struct State {
    items: OrdMap<Arc<str>, Arc<Item>>,
    last: u64,
    history: VecDeque<(Instant, Arc<Event>)>,
    history_bytes: usize,
    /// History is complete after this revision.
    begins: u64,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct Labelled {
    #[serde(default)]
    labels: Option<BTreeMap<Box<str>, Option<Box<str>>>>,
}

impl Item {
    /// Reads what the window needs to know from the stored bytes; nothing if they are no object with metadata.
    fn read(key: Arc<str>, revision: u64, raw: Bytes, paths: &[Vec<String>]) -> Option<Self> {
        let head: Head<'_> = serde_json::from_slice(&raw).ok()?;
        let metadata = head.metadata.get();
        let at = u32::try_from(metadata.as_ptr() as usize - raw.as_ptr() as usize + 1).ok()?;
        let labels = serde_json::from_str::<Labelled>(metadata).ok()?.labels.unwrap_or_default();
        let labels = labels.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
        let fields = if paths.is_empty() { Box::default() } else { read_fields(&raw, paths)? };
        Some(Self { key, revision, raw, at, labels, fields })
    }

    /// Writes the object's JSON, with `resourceVersion` set to `revision`.
    pub fn write(&self, revision: u64, out: &mut BytesMut) {
        let (before, after) = self.raw.split_at(self.at as usize);
        out.put_slice(before);
        out.put_slice(br#""resourceVersion":""#);
        let mut digits = itoa(revision);
        out.put_slice(digits.text());
        // Metadata is never empty: every object has a name.
        out.put_slice(b"\",");
        out.put_slice(after);
    }

    /// The object's JSON as clients see it.
    pub fn bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len());
        self.write(self.revision, &mut out);
        out.freeze()
    }

    /// About how many bytes the JSON has.
    pub fn len(&self) -> usize {
        self.raw.len() + 42
    }

    /// Whether there is nothing; objects are never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The object as clients see it.
    pub fn value(&self) -> Value {
        self.value_at(self.revision)
    }

    /// The object, as if its last change had been at `revision`.
    pub fn value_at(&self, revision: u64) -> Value {
        let mut value: Value = serde_json::from_slice(&self.raw).expect("the window only holds JSON that it has read");
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        value
    }

    /// The labels, in the order of their keys.
    pub fn labels(&self) -> &[(Box<str>, Box<str>)] {
        &self.labels
    }

    /// The value of the label `key`.
    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok()?;
        Some(&self.labels[found].1)
    }

    /// The value of the selectable field number `index`; empty if it is not set.
    pub fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |f| f)
    }
}

fn read_fields(raw: &[u8], paths: &[Vec<String>]) -> Option<Box<[Box<str>]>> {
    let value: Value = serde_json::from_slice(raw).ok()?;
    let text = |path: &Vec<String>| match path.iter().fold(&value, |v, name| &v[name.as_str()]) {
        Value::String(text) => text.as_str().into(),
        Value::Null | Value::Object(_) | Value::Array(_) => Box::default(),
        scalar => scalar.to_string().into(),
    };
    Some(paths.iter().map(text).collect())
}

struct Digits([u8; 20], usize);

impl Digits {
    fn text(&mut self) -> &[u8] {
        &self.0[self.1..]
    }
}

fn itoa(mut number: u64) -> Digits {
    let mut digits = Digits([0; 20], 20);
    loop {
        digits.1 -= 1;
        digits.0[digits.1] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            return digits;
        }
    }
}

impl Event {
    /// The kind of change, for a watcher that sees all objects.
    pub fn change(&self) -> &'static str {
        match (self.deleted, &self.previous) {
            (true, _) => "DELETED",
            (false, None) => "ADDED",
            (false, Some(_)) => "MODIFIED",
        }
    }

    /// The line that watchers without a selector get, made once and shared by all.
    pub fn frame(&self) -> Bytes {
        self.frame.get_or_init(|| frame(self.change(), &self.item, self.revision)).clone()
    }
}

/// One line of a watch stream.
pub fn frame(change: &str, item: &Item, revision: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(item.len() + 40);
    out.put_slice(br#"{"type":""#);
    out.put_slice(change.as_bytes());
    out.put_slice(br#"","object":"#);
    item.write(revision, &mut out);
    out.put_slice(b"}\n");
    out.freeze()
}

impl Snapshot {
    /// The objects whose keys begin with `prefix`, after `after` if given.
    pub fn range<'a>(&'a self, prefix: &'a str, after: Option<&str>) -> impl Iterator<Item = &'a Arc<Item>> + 'a {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(Arc::from(after)),
            _ => Bound::Included(Arc::from(prefix)),
        };
        self.items
            .range::<_, Arc<str>>((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, item)| item)
    }
}

impl Window {
    fn new(prefix: String, paths: Vec<Vec<String>>, bounds: Bounds, complete: Arc<AtomicU64>) -> Self {
        let state = State { items: OrdMap::new(), last: 0, history: VecDeque::new(), history_bytes: 0, begins: 0 };
        let (news, _) = watch::channel(0);
        Self { prefix, paths, bounds, state: RwLock::new(state), pins: Mutex::default(), news, complete }
    }

    /// The object at `key`, as of the newest change that any client was told of.
    pub fn get(&self, key: &str) -> Option<Arc<Item>> {
        self.state.read().items.get(key).cloned()
    }

    /// The state as of the newest change that any client was told of.
    pub fn snapshot(&self) -> Snapshot {
        // The order matters: what was complete before the state was read is in the state.
        let complete = self.complete.load(Ordering::Acquire);
        let state = self.state.read();
        Snapshot { revision: complete.max(state.last), items: state.items.clone() }
    }

    /// The state as it was at `revision`, or where history begins if that is later.
    pub fn snapshot_at(&self, revision: u64) -> Result<Snapshot, u64> {
        if let Some((_, pinned)) = self.pins.lock().iter().find(|(_, pin)| pin.revision == revision) {
            return Ok(pinned.clone());
        }
        let (mut items, undo) = {
            let state = self.state.read();
            if revision < state.begins {
                return Err(state.begins);
            }
            let undo: Vec<_> =
                state.history.iter().rev().take_while(|(_, e)| e.revision > revision).map(|(_, e)| e.clone()).collect();
            (state.items.clone(), undo)
        };
        for event in undo {
            match &event.previous {
                Some(previous) => items.insert(event.item.key.clone(), previous.clone()),
                None => items.remove(&event.item.key),
            };
        }
        Ok(Snapshot { revision, items })
    }

    /// Keeps a snapshot for a while, so that further pages show the same state.
    pub fn pin(&self, snapshot: &Snapshot) {
        let mut pins = self.pins.lock();
        let now = Instant::now();
        pins.retain(|(since, pin)| now.duration_since(*since) < self.bounds.age && pin.revision != snapshot.revision);
        while pins.len() >= self.bounds.pins {
            pins.pop_front();
        }
        pins.push_back((now, snapshot.clone()));
    }

    /// The next events after the revision `after`: at most `most` of them.
    pub fn events_after(&self, after: u64, most: usize) -> Run {
        let complete = self.complete.load(Ordering::Acquire);
        let state = self.state.read();
        if after < state.begins {
            return Run::Gone(state.begins);
        }
        let from = state.history.partition_point(|(_, e)| e.revision <= after);
        let events: Vec<_> = state.history.iter().skip(from).take(most).map(|(_, e)| e.clone()).collect();
        let up_to = match events.last() {
            Some(last) if from + events.len() < state.history.len() => last.revision,
            _ => complete.max(state.last).max(after),
        };
        Run::Events(events, up_to)
    }

    /// Tells of every change of this resource.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        self.state.read().items.len()
    }

    fn load(&self, entries: Vec<onex_storage::Entry>, revision: u64) {
        let items = entries.into_iter().filter_map(|entry| {
            let key = entry.key.0;
            match Item::read(key.clone(), entry.revision.0, entry.value, &self.paths) {
                Some(item) => Some((key, Arc::new(item))),
                None => {
                    tracing::error!(%key, "what is stored here is no object; it is not served");
                    None
                }
            }
        });
        let items: OrdMap<_, _> = items.collect();
        let mut state = self.state.write();
        *state = State { items, last: revision, history: VecDeque::new(), history_bytes: 0, begins: revision };
    }

    fn apply(&self, changes: Vec<Change>) {
        // Reading the bytes happens before the lock, so that readers never wait for it.
        let read: Vec<_> = changes.into_iter().map(|change| (self.read(&change), change)).collect();
        let now = Instant::now();
        let mut state = self.state.write();
        for (item, change) in read {
            self.apply_one(&mut state, item, &change, now);
        }
        self.trim(&mut state, now);
        let last = state.last;
        drop(state);
        self.news.send_replace(last);
    }

    fn read(&self, change: &Change) -> Option<Arc<Item>> {
        let value = change.value.clone()?;
        Item::read(change.key.0.clone(), change.revision.0, value, &self.paths).map(Arc::new)
    }

    fn apply_one(&self, state: &mut State, item: Option<Arc<Item>>, change: &Change, now: Instant) {
        let revision = change.revision.0;
        state.last = revision;
        let previous = match &item {
            Some(item) => state.items.insert(item.key.clone(), item.clone()),
            None => state.items.remove(&change.key.0),
        };
        let (deleted, item) = match (item, &previous) {
            (Some(item), _) => (false, item),
            (None, Some(previous)) => (true, previous.clone()),
            (None, None) => return,
        };
        state.history_bytes += item.len();
        state.history.push_back((now, Arc::new(Event { revision, item, previous, deleted, frame: OnceLock::new() })));
    }

    fn trim(&self, state: &mut State, now: Instant) {
        while let Some((since, event)) = state.history.front() {
            if now.duration_since(*since) < self.bounds.age && state.history_bytes <= self.bounds.bytes {
                return;
            }
            state.begins = event.revision;
            state.history_bytes -= event.item.len();
            state.history.pop_front();
        }
    }
}

/// All windows, and the feed that keeps them complete.
pub struct Windows {
    storage: Arc<dyn Storage>,
    windows: RwLock<BTreeMap<String, Arc<Window>>>,
    complete: Arc<AtomicU64>,
    progress: watch::Sender<u64>,
    /// The store can be followed.
    connected: AtomicBool,
}

/// Everything that the apiserver stores is under this prefix.
pub const ROOT: &str = "/registry/";

impl Windows {
    /// Windows over `storage`, for the prefixes and the selectable fields given. Empty until [`Windows::load`].
    pub fn new(
        storage: Arc<dyn Storage>,
        resources: impl IntoIterator<Item = (String, Vec<Vec<String>>)>,
        bounds: Bounds,
    ) -> Self {
        let complete = Arc::new(AtomicU64::new(0));
        let windows = resources
            .into_iter()
            .map(|(prefix, paths)| (prefix.clone(), Arc::new(Window::new(prefix, paths, bounds, complete.clone()))))
            .collect();
        let (progress, _) = watch::channel(0);
        let connected = AtomicBool::new(true);
        Self { storage, windows: RwLock::new(windows), complete, progress, connected }
    }

    /// The window of a stored resource.
    pub fn of(&self, prefix: &str) -> Option<Arc<Window>> {
        self.windows.read().get(prefix).cloned()
    }

    /// The revision up to which all windows are complete.
    pub fn revision(&self) -> u64 {
        self.complete.load(Ordering::Acquire)
    }

    /// Whether the store can be followed: if not, reads show what was true before.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The revision of the store itself, which the windows may not have reached yet.
    pub async fn newest(&self) -> onex_storage::Result<u64> {
        let nothing = Page { prefix: Prefix(ROOT.into()), after: None, limit: Some(0), at: None };
        Ok(self.storage.list(nothing).await?.revision.0)
    }

    /// Waits until all windows show the change at `revision`. `false` if that took longer than `patience`.
    pub async fn reached(&self, revision: u64, patience: Duration) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let mut progress = self.progress.subscribe();
        tokio::time::timeout(patience, progress.wait_for(|now| *now >= revision)).await.is_ok_and(|r| r.is_ok())
    }

    /// Fills the windows from the store, with as much history as the store has, so that watchers may resume across a
    /// restart. Answers the revision from which to [`Windows::feed`].
    pub async fn load(&self) -> onex_storage::Result<u64> {
        let oldest = self.oldest().await?;
        let listing = match self.list(Some(oldest)).await {
            Err(onex_storage::Error::Compacted { .. } | onex_storage::Error::Future { .. }) => self.list(None).await?,
            other => other?,
        };
        let revision = listing.revision.0;
        let mut parts: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for entry in listing.entries {
            if let Some(window) = self.route(&entry.key.0) {
                parts.entry(window.prefix.clone()).or_default().push(entry);
            }
        }
        for (prefix, window) in self.windows.read().iter() {
            window.load(parts.remove(prefix).unwrap_or_default(), revision);
        }
        self.publish(revision);
        Ok(revision)
    }

    /// Keeps the windows complete until `shutdown`. Starts over from a fresh listing if the store's history overtakes it.
    pub async fn feed(&self, mut since: u64, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let end = tokio::select! {
                () = shutdown.cancelled() => return,
                end = self.follow(since) => end,
            };
            self.connected.store(false, Ordering::Relaxed);
            tracing::warn!(error = %end, "the feed of changes ended; starting it again");
            tokio::time::sleep(Duration::from_millis(200)).await;
            since = self.revision();
            if matches!(end, onex_storage::Error::Compacted { .. }) {
                match self.load().await {
                    Ok(revision) => since = revision,
                    Err(error) => tracing::warn!(%error, "the store cannot be listed; trying again"),
                }
            }
        }
    }

    async fn follow(&self, since: u64) -> onex_storage::Error {
        let mut changes = match self.storage.watch(&Prefix(ROOT.into()), Revision(since)).await {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        self.connected.store(true, Ordering::Relaxed);
        while let Some(run) = changes.next().await {
            match run {
                Ok(run) => self.apply(run),
                Err(error) => return error,
            }
        }
        onex_storage::Error::Unavailable("the stream of changes ended".into())
    }

    fn apply(&self, run: Vec<Change>) {
        let Some(revision) = run.last().map(|change| change.revision.0) else { return };
        let mut parts: Vec<(Arc<Window>, Vec<Change>)> = Vec::new();
        for change in run {
            let Some(window) = self.route(&change.key.0) else { continue };
            match parts.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &window)) {
                Some((_, changes)) => changes.push(change),
                None => parts.push((window, vec![change])),
            }
        }
        for (window, changes) in parts {
            window.apply(changes);
        }
        self.publish(revision);
    }

    fn publish(&self, revision: u64) {
        self.complete.store(revision, Ordering::Release);
        self.progress.send_replace(revision);
    }

    fn route(&self, key: &str) -> Option<Arc<Window>> {
        let windows = self.windows.read();
        let (prefix, window) = windows.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        key.starts_with(prefix.as_str()).then(|| window.clone())
    }

    async fn oldest(&self) -> onex_storage::Result<Revision> {
        let probe = Page { prefix: Prefix(ROOT.into()), after: None, limit: Some(0), at: Some(Revision(1)) };
        match self.storage.list(probe).await {
            Ok(_) => Ok(Revision(1)),
            Err(onex_storage::Error::Compacted { oldest }) => Ok(oldest),
            Err(onex_storage::Error::Future { newest }) => Ok(newest),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, at: Option<Revision>) -> onex_storage::Result<onex_storage::Listing> {
        self.storage.list(Page { prefix: Prefix(ROOT.into()), after: None, limit: None, at }).await
    }
}
