//! Step 7 of `kubectl apply`: recent history, snapshots and watchers, one window per stored resource.
//!
//! The window is what reads see. It holds the bytes that the store holds, not a copy: a snapshot is an O(1) clone of a
//! persistent map, a LIST walks a snapshot without a lock, and a WATCH is a cursor in a history that all watchers share,
//! so a slow watcher costs the others nothing and is cut off alone when history overtakes it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use onex_storage::{Change, Page, Prefix, Revision, Storage};
use parking_lot::{Mutex, RwLock};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::index::{By, Index, Items};

/// The stored JSON of an object, which does not know its own revision. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stored {
    raw: Bytes,
    /// Where `"resourceVersion":…` goes: right after the opening brace of `metadata`.
    at: u32,
    /// Where `metadata` is over: right after its closing brace.
    end: u32,
}

/// What the window looks for in an object.
#[derive(Debug)]
struct Traits {
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[Box<str>]>,
    terminating: bool,
    /// How long the object is in protobuf; zero if nobody asked yet.
    protobuf_length: AtomicU32,
}

/// An object on its way into the store: encoded once, and looked at once.
#[derive(Debug)]
pub struct Encoded {
    stored: Stored,
    traits: Traits,
}

/// One object as it was stored at one revision.
#[derive(Debug)]
pub struct Item {
    /// The key in the store, which ends in `namespace/name` or `name`.
    pub key: Arc<str>,
    /// The revision of the object's last change.
    pub revision: u64,
    /// Its JSON.
    pub stored: Stored,
    traits: Traits,
}

/// The state of a window at one revision. Cheap to take, never changes.
#[derive(Clone)]
pub struct Snapshot {
    /// The revision that the snapshot shows.
    pub revision: u64,
    /// The objects, by key.
    pub items: Items,
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
    protobuf_frame: OnceLock<Bytes>,
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
    /// Held while an index is made.
    indexing: Mutex<()>,
    /// What is being written here, by the address of its bytes: the feed need not read again what was looked at already.
    /// Nothing, if the store hands on other bytes than it was given.
    offered: Option<Mutex<HashMap<usize, Encoded>>>,
    /// Told after every change of this resource.
    news: watch::Sender<u64>,
    /// The revision up to which all windows are complete.
    complete: Arc<AtomicU64>,
    /// The revision of the newest change of this resource.
    changed: AtomicU64,
    /// Nothing is told of this resource any more.
    closed: AtomicBool,
}

struct State {
    items: Items,
    /// By what people selected.
    indexes: Vec<Index>,
    last: u64,
    history: VecDeque<(Instant, Arc<Event>)>,
    history_bytes: usize,
    /// History is complete after this revision.
    begins: u64,
}

impl State {
    fn new(items: Items, revision: u64) -> Self {
        let (indexes, history) = (Vec::new(), VecDeque::new());
        Self { items, indexes, last: revision, history, history_bytes: 0, begins: revision }
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    labels: Option<BTreeMap<Box<str>, Option<Box<str>>>>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

impl Stored {
    /// Finds its way in the bytes of a store. Also answers the object's metadata; nothing if it is no object that has some.
    fn read(raw: Bytes) -> Option<(Self, Metadata)> {
        let head: Head<'_> = serde_json::from_slice(&raw).ok()?;
        let metadata = head.metadata.get();
        if !metadata.starts_with('{') || !metadata.contains('"') {
            return None;
        }
        let begin = metadata.as_ptr() as usize - raw.as_ptr() as usize;
        let (at, end) = (u32::try_from(begin + 1).ok()?, u32::try_from(begin + metadata.len()).ok()?);
        let metadata = serde_json::from_str(metadata).ok()?;
        Some((Self { raw, at, end }, metadata))
    }

    /// The bytes as they are in the store.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Writes the object's JSON, with `resourceVersion` set to `revision`.
    pub fn write(&self, revision: u64, out: &mut BytesMut) {
        out.put_slice(&self.raw[..self.at as usize]);
        write_version(revision, out);
        out.put_slice(&self.raw[self.at as usize..]);
    }

    /// What comes before `resourceVersion` in its JSON, and what comes after it, where [`write_version`] has written it.
    pub(crate) fn around_revision(&self) -> (Bytes, Bytes) {
        (self.raw.slice(..self.at as usize), self.raw.slice(self.at as usize..))
    }

    /// The JSON of its metadata, which does not know its revision either.
    pub(crate) fn metadata(&self) -> &[u8] {
        &self.raw[self.at as usize - 1..self.end as usize]
    }

    /// Writes the JSON of its metadata, with `resourceVersion` set to `revision`.
    pub fn write_metadata(&self, revision: u64, out: &mut BytesMut) {
        out.put_u8(b'{');
        write_version(revision, out);
        out.put_slice(&self.raw[self.at as usize..self.end as usize]);
    }

    /// The object without the record of who wrote which field, which may be larger than all the rest.
    pub fn value_without_managers(&self) -> Value {
        let mut reader = serde_json::Deserializer::from_slice(&self.raw);
        Without(&["metadata", "managedFields"])
            .deserialize(&mut reader)
            .expect("it was read, or written, as JSON before")
    }

    /// About how many bytes the JSON has.
    pub fn size(&self) -> usize {
        self.raw.len() + 42
    }

    /// The object, as if its last change had been at `revision`.
    pub fn value_at(&self, revision: u64) -> Value {
        let mut value: Value = serde_json::from_slice(&self.raw).expect("it was read, or written, as JSON before");
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        value
    }
}

impl Traits {
    fn read(metadata: Metadata, raw: &[u8], paths: &[Vec<String>]) -> Option<Self> {
        let labels = metadata.labels.unwrap_or_default();
        Some(Self {
            labels: labels.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect(),
            fields: if paths.is_empty() {
                Box::default()
            } else {
                fields(&serde_json::from_slice::<Value>(raw).ok()?, paths)
            },
            terminating: metadata.deletion_timestamp.is_some(),
            protobuf_length: AtomicU32::new(0),
        })
    }

    fn of(object: &Value, paths: &[Vec<String>]) -> Self {
        let metadata = &object["metadata"];
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let mut labels: Box<[(Box<str>, Box<str>)]> =
            labels.map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into())).collect();
        labels.sort_unstable();
        let (fields, terminating) = (fields(object, paths), !metadata["deletionTimestamp"].is_null());
        Self { labels, fields, terminating, protobuf_length: AtomicU32::new(0) }
    }
}

fn fields(object: &Value, paths: &[Vec<String>]) -> Box<[Box<str>]> {
    let text = |path: &Vec<String>| match path.iter().fold(object, |v, name| &v[name.as_str()]) {
        Value::String(text) => text.as_str().into(),
        Value::Null | Value::Object(_) | Value::Array(_) => Box::default(),
        scalar => scalar.to_string().into(),
    };
    paths.iter().map(text).collect()
}

impl Encoded {
    /// Its JSON, as it is to be stored.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    fn of(object: &Value, paths: &[Vec<String>]) -> Option<Self> {
        const USUAL_BYTES: usize = 2048;
        let mut raw = Vec::with_capacity(USUAL_BYTES);
        let mut metadata = None;
        let fields = object.as_object()?;
        // First what it is, as Kubernetes writes it, and as people read it.
        let first = ["kind", "apiVersion"].into_iter().filter_map(|name| fields.get_key_value(name));
        let others = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion"));
        for (name, value) in first.chain(others) {
            raw.push(if raw.is_empty() { b'{' } else { b',' });
            serde_json::to_writer(&mut raw, name).ok()?;
            raw.push(b':');
            let begin = raw.len();
            serde_json::to_writer(&mut raw, value).ok()?;
            if name == "metadata" && value.is_object() {
                metadata = Some((u32::try_from(begin + 1).ok()?, u32::try_from(raw.len()).ok()?));
            }
        }
        raw.push(b'}');
        // Exactly as large as it is: it stays as long as the object does.
        let (at, end) = metadata?;
        let stored = Stored { raw: raw.into_boxed_slice().into(), at, end };
        Some(Self { stored, traits: Traits::of(object, paths) })
    }
}

impl Item {
    /// Reads what the window needs to know from the stored bytes; nothing if they are no object with metadata.
    fn read(key: Arc<str>, revision: u64, raw: Bytes, paths: &[Vec<String>]) -> Option<Self> {
        let (stored, metadata) = Stored::read(raw)?;
        let traits = Traits::read(metadata, &stored.raw, paths)?;
        Some(Self { key, revision, stored, traits })
    }

    /// The object as clients see it.
    pub fn value(&self) -> Value {
        self.stored.value_at(self.revision)
    }

    /// The labels, in the order of their keys.
    pub fn labels(&self) -> &[(Box<str>, Box<str>)] {
        &self.traits.labels
    }

    /// The value of the label `key`.
    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self.traits.labels.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok()?;
        Some(&self.traits.labels[found].1)
    }

    /// The value of the selectable field number `index`; empty if it is not set.
    pub fn field(&self, index: usize) -> &str {
        self.traits.fields.get(index).map_or("", |f| f)
    }

    /// The object is marked for deletion.
    pub fn is_terminating(&self) -> bool {
        self.traits.terminating
    }

    /// How long the object is in protobuf, as `measure` finds out once.
    pub(crate) fn protobuf_length<E>(&self, measure: impl FnOnce() -> Result<usize, E>) -> Result<usize, E> {
        match self.traits.protobuf_length.load(Ordering::Relaxed) {
            0 => {
                let length = measure()?;
                self.traits.protobuf_length.store(u32::try_from(length).unwrap_or(0), Ordering::Relaxed);
                Ok(length)
            }
            known => Ok(known as usize),
        }
    }
}

/// Reads an object without what is at this path.
struct Without<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Without<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Without<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = match self.0 {
                [last] if name == *last => {
                    fields.next_value::<IgnoredAny>()?;
                    continue;
                }
                [first, rest @ ..] if name == *first => fields.next_value_seed(Without(rest))?,
                _ => fields.next_value()?,
            };
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Writes `"resourceVersion":…,`.
pub(crate) fn write_version(revision: u64, out: &mut BytesMut) {
    out.put_slice(br#""resourceVersion":""#);
    out.put_slice(itoa(revision).text());
    // Metadata is never empty: every object has a name.
    out.put_slice(b"\",");
}

struct Digits([u8; 20], usize);

impl Digits {
    fn text(&self) -> &[u8] {
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

    /// About how many bytes it keeps alive: the object, the line that is made of it, and the frame of protobuf.
    fn size(&self) -> usize {
        3 * self.item.stored.size()
    }

    /// The line that watchers without a selector get, made once and shared by all.
    pub fn frame(&self) -> Bytes {
        self.frame.get_or_init(|| frame(self.change(), &self.item, self.revision)).clone()
    }

    /// The frame of protobuf that watchers without a selector get, made once by whoever is first.
    pub(crate) fn protobuf_frame(&self, make: impl FnOnce() -> Bytes) -> Bytes {
        self.protobuf_frame.get_or_init(make).clone()
    }
}

/// One line of a watch stream.
pub fn frame(change: &str, item: &Item, revision: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(item.stored.size() + 40);
    begin_frame(change, &mut out);
    item.stored.write(revision, &mut out);
    out.put_slice(END_OF_FRAME);
    out.freeze()
}

/// What comes before the object in a line of a watch stream.
pub(crate) fn begin_frame(change: &str, out: &mut BytesMut) {
    out.put_slice(br#"{"type":""#);
    out.put_slice(change.as_bytes());
    out.put_slice(br#"","object":"#);
}

/// And what comes after it.
pub(crate) const END_OF_FRAME: &[u8] = b"}\n";

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
    fn new(prefix: String, paths: Vec<Vec<String>>, bounds: Bounds, complete: Arc<AtomicU64>, copies: bool) -> Self {
        let state = State::new(Items::new(), 0);
        let (news, _) = watch::channel(0);
        let (pins, indexing, offered) = (Mutex::default(), Mutex::default(), (!copies).then(Mutex::default));
        let (changed, closed) = (AtomicU64::new(0), AtomicBool::new(false));
        let state = RwLock::new(state);
        Self { prefix, paths, bounds, state, pins, indexing, offered, news, complete, changed, closed }
    }

    /// Encodes an object of this resource. Nothing if it has no metadata.
    pub fn encode(&self, object: &Value) -> Option<Encoded> {
        Encoded::of(object, &self.paths)
    }

    /// Tells what is about to be stored, so that it need not be read again when the store tells of it.
    pub fn offer(&self, encoded: Encoded) -> Offer<'_> {
        let stored = encoded.stored.clone();
        let address = self.offered.as_ref().map(|offered| {
            let address = stored.raw.as_ptr() as usize;
            offered.lock().insert(address, encoded);
            address
        });
        Offer { window: self, stored, address }
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

    /// The state as of the newest change that any client was told of, and of it only those that are found by this value.
    /// Nothing, where it is as quick to look at all of them.
    pub fn snapshot_where(&self, by: &By, value: &str) -> Option<(Snapshot, Snapshot)> {
        let found = || {
            let complete = self.complete.load(Ordering::Acquire);
            let state = self.state.read();
            let index = state.indexes.iter().find(|index| index.is_by(by))?;
            let revision = complete.max(state.last);
            let some = Snapshot { revision, items: index.of(value) };
            Some((Snapshot { revision, items: state.items.clone() }, some))
        };
        found().or_else(|| {
            self.index(by);
            found()
        })
    }

    /// Makes an index, if it is worth it.
    fn index(&self, by: &By) {
        /// Fewer are looked through in no time.
        const FEW: usize = 1000;
        /// Each of them costs every write a little.
        const MOST: usize = 16;
        let _one = self.indexing.lock();
        let (items, last) = {
            let state = self.state.read();
            let has = state.indexes.iter().any(|index| index.is_by(by));
            if has || state.items.len() < FEW || state.indexes.len() >= MOST {
                return;
            }
            (state.items.clone(), state.last)
        };
        // Nobody waits for this; what changes meanwhile is in the history.
        let mut index = Index::new(by.clone(), &items);
        let mut state = self.state.write();
        if state.begins > last {
            return; // it was forgotten already; the next one tries again
        }
        for (_, event) in state.history.iter().filter(|(_, event)| event.revision > last) {
            index.change(event.previous.as_ref(), (!event.deleted).then_some(&event.item));
        }
        state.indexes.push(index);
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

    /// The revision of the newest change of this resource: who compares it with what they saw before, knows whether to
    /// look again.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::Acquire)
    }

    /// The paths of the fields that selectors know.
    pub fn paths(&self) -> &[Vec<String>] {
        &self.paths
    }

    /// The resource is gone, and this window shows its last state. What happened before can still be read.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.send_modify(|_| {});
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        self.state.read().items.len()
    }

    /// Forgets what is older than the bounds say.
    pub fn trim(&self) {
        let now = Instant::now();
        self.pins.lock().retain(|(since, _)| now.duration_since(*since) < self.bounds.age);
        let forgotten = self.forget(&mut self.state.write(), now);
        drop(forgotten);
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
        let items: Items = items.collect();
        drop(std::mem::replace(&mut *self.state.write(), State::new(items, revision)));
        self.changed.store(revision, Ordering::Release);
        // What was stored meanwhile is in the entries, and will not be told of again.
        self.offered.iter().for_each(|offered| offered.lock().clear());
        // Whoever waits for the next change is to hear that some were missed.
        self.news.send_replace(revision);
    }

    fn apply(&self, changes: Vec<Change>) {
        // Reading the bytes happens before the lock, so that readers never wait for it.
        let read: Vec<_> = changes.into_iter().map(|change| (self.read(&change), change)).collect();
        let now = Instant::now();
        let mut state = self.state.write();
        for (item, change) in read {
            self.apply_one(&mut state, item, &change, now);
        }
        let forgotten = self.forget(&mut state, now);
        let last = state.last;
        self.changed.store(last, Ordering::Release);
        drop(state);
        self.news.send_replace(last);
        drop(forgotten); // freed when nobody waits for the lock any more
    }

    fn read(&self, change: &Change) -> Option<Arc<Item>> {
        let (key, revision, raw) = (change.key.0.clone(), change.revision.0, change.value.clone()?);
        let offered = self.offered.as_ref().and_then(|offered| offered.lock().remove(&(raw.as_ptr() as usize)));
        let item = match offered {
            Some(Encoded { stored, traits }) => Item { key, revision, stored, traits },
            None => Item::read(key, revision, raw, &self.paths)?,
        };
        Some(Arc::new(item))
    }

    fn apply_one(&self, state: &mut State, item: Option<Arc<Item>>, change: &Change, now: Instant) {
        let revision = change.revision.0;
        if revision <= state.last {
            return; // a window that was opened while others were fed knows it already
        }
        state.last = revision;
        let previous = match &item {
            Some(item) => state.items.insert(item.key.clone(), item.clone()),
            None => state.items.remove(&change.key.0),
        };
        for index in &mut state.indexes {
            index.change(previous.as_ref(), item.as_ref());
        }
        let (deleted, item) = match (item, &previous) {
            (Some(item), _) => (false, item),
            (None, Some(previous)) => (true, previous.clone()),
            (None, None) => return,
        };
        let (frame, protobuf_frame) = (OnceLock::new(), OnceLock::new());
        let event = Arc::new(Event { revision, item, previous, deleted, frame, protobuf_frame });
        state.history_bytes += event.size();
        state.history.push_back((now, event));
    }

    /// Takes out of history what is beyond its bounds.
    #[must_use = "freeing it takes time, and needs no lock"]
    fn forget(&self, state: &mut State, now: Instant) -> Vec<Arc<Event>> {
        let mut forgotten = Vec::new();
        while let Some((since, event)) = state.history.front() {
            if now.duration_since(*since) < self.bounds.age && state.history_bytes <= self.bounds.bytes {
                break;
            }
            state.begins = event.revision;
            state.history_bytes -= event.size();
            forgotten.extend(state.history.pop_front().map(|(_, event)| event));
        }
        forgotten
    }
}

/// Something that is being stored. The window no longer expects it when this is dropped.
pub struct Offer<'a> {
    window: &'a Window,
    /// Its JSON.
    pub stored: Stored,
    address: Option<usize>,
}

impl Offer<'_> {
    /// It is stored: the window will be told of it.
    pub fn taken(mut self) -> Stored {
        self.address = None;
        self.stored.clone()
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if let (Some(address), Some(offered)) = (self.address, &self.window.offered) {
            offered.lock().remove(&address);
        }
    }
}

/// All windows, and the feed that keeps them complete.
pub struct Windows {
    storage: Arc<dyn Storage>,
    windows: RwLock<BTreeMap<String, Arc<Window>>>,
    bounds: Bounds,
    complete: Arc<AtomicU64>,
    /// Held while changes are handed out, and while a window is opened: what is in its listing is not missed, and what comes
    /// after it is handed to it.
    gate: tokio::sync::Mutex<()>,
    /// The newest revision that somebody was told of. Who reads now must not see an older state.
    promised: AtomicU64,
    progress: watch::Sender<u64>,
    /// The store can be followed.
    connected: AtomicBool,
    /// Nobody follows the store any more: there is nothing to wait for.
    ended: CancellationToken,
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
        let copies = storage.is_shared();
        let window = |prefix, paths| Arc::new(Window::new(prefix, paths, bounds, complete.clone(), copies));
        let windows = resources.into_iter().map(|(prefix, paths)| (prefix.clone(), window(prefix, paths))).collect();
        let (progress, _) = watch::channel(0);
        let (promised, connected) = (AtomicU64::new(0), AtomicBool::new(true));
        let (gate, ended) = (tokio::sync::Mutex::default(), CancellationToken::new());
        Self { storage, windows: RwLock::new(windows), bounds, complete, gate, promised, progress, connected, ended }
    }

    /// Makes a window that [`Windows::load`] fills.
    pub fn declare(&self, prefix: &str, paths: Vec<Vec<String>>) -> Arc<Window> {
        let copies = self.storage.is_shared();
        let window = Arc::new(Window::new(prefix.to_owned(), paths, self.bounds, self.complete.clone(), copies));
        if let Some(before) = self.windows.write().insert(prefix.to_owned(), window.clone()) {
            before.close();
        }
        window
    }

    /// Opens a window of a resource while the others are in use, with what the store has of it. One that was there is closed.
    pub async fn open(&self, prefix: &str, paths: Vec<Vec<String>>) -> onex_storage::Result<Arc<Window>> {
        let _gate = self.gate.lock().await;
        let page = Page { prefix: Prefix(prefix.into()), after: None, limit: None, at: None };
        let listing = self.storage.list(page).await?;
        let window = self.declare(prefix, paths);
        window.load(listing.entries, listing.revision.0);
        Ok(window)
    }

    /// Closes the window of a resource that is no more. Its watches end.
    pub fn shut(&self, prefix: &str) {
        if let Some(window) = self.windows.write().remove(prefix) {
            window.close();
        }
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

    /// Whether the store took the last write.
    pub fn takes_writes(&self) -> bool {
        self.storage.takes_writes()
    }

    /// The revision of the store itself, which the windows may not have reached yet.
    pub async fn newest(&self) -> onex_storage::Result<u64> {
        Ok(self.storage.newest().await?.0)
    }

    /// Whether others write to the store as well.
    pub fn is_shared(&self) -> bool {
        self.storage.is_shared()
    }

    /// Notes that somebody is told of `revision`.
    pub fn promise(&self, revision: u64) {
        self.promised.fetch_max(revision, Ordering::AcqRel);
    }

    /// Waits until all windows show everything that anybody was told of. `false` if that took longer than `patience`.
    ///
    /// Where others write to the store, what they told is what the store says that there is.
    pub async fn current(&self, patience: Duration) -> bool {
        if !self.storage.is_shared() {
            return self.current_here(patience).await;
        }
        match tokio::time::timeout(patience, self.storage.newest()).await {
            Ok(Ok(newest)) => self.reached(newest.0, patience).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the store does not say how far it is");
                false
            }
            Err(_) => false,
        }
    }

    /// Waits until all windows show everything that anybody was told of by this process. `false` if that took longer than
    /// `patience`.
    pub async fn current_here(&self, patience: Duration) -> bool {
        self.reached(self.promised.load(Ordering::Acquire), patience).await
    }

    /// Forgets what is older than the bounds say.
    pub fn trim(&self) {
        let windows: Vec<_> = self.windows.read().values().cloned().collect();
        windows.iter().for_each(|window| window.trim());
    }

    /// Waits until all windows show the change at `revision`. `false` if that took longer than `patience`, or cannot happen
    /// any more.
    pub async fn reached(&self, revision: u64, patience: Duration) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let mut progress = self.progress.subscribe();
        tokio::select! {
            reached = tokio::time::timeout(patience, progress.wait_for(|now| *now >= revision)) => {
                reached.is_ok_and(|reached| reached.is_ok())
            }
            () = self.ended.cancelled() => false,
        }
    }

    /// Fills the windows from the store, with as much history as the store has, so that watchers may resume across a
    /// restart. Answers the revision from which to [`Windows::feed`].
    pub async fn load(&self) -> onex_storage::Result<u64> {
        let _gate = self.gate.lock().await;
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
        let _ended = self.ended.clone().drop_guard();
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
                Ok(run) => {
                    let _gate = self.gate.lock().await;
                    self.apply(run.changes);
                    self.publish(run.revision.0);
                }
                Err(error) => return error,
            }
        }
        onex_storage::Error::Unavailable("the stream of changes ended".into())
    }

    fn apply(&self, run: Vec<Change>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use onex_storage::{Expected, Key};
    use serde_json::json;

    const MAPS: &str = "/registry/configmaps/";

    async fn windows(age: Duration) -> Windows {
        let storage = onex_storage::open(&"memory:".parse().unwrap(), &Default::default()).await.unwrap();
        Windows::new(storage, [(MAPS.to_owned(), Vec::new())], Bounds { age, bytes: 1 << 20, pins: 4 })
    }

    fn object(name: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"b": "2", "a": "1"}}, "data": {"x": "y"}})
    }

    async fn stored(windows: &Windows, name: &str) -> Change {
        let value = Bytes::from(object(name).to_string());
        let key = Key(format!("{MAPS}default/{name}").into());
        let revision = windows.storage.put(&key, value.clone(), Expected::Absent).await.unwrap();
        Change { key, revision, value: Some(value), previous: None }
    }

    #[tokio::test]
    async fn who_waits_for_news_hears_of_a_fresh_start() {
        let windows = windows(Duration::from_secs(300)).await;
        let window = windows.of(MAPS).unwrap();
        let mut news = window.news();
        stored(&windows, "a").await;
        windows.load().await.unwrap();
        assert!(news.has_changed().unwrap());
        news.borrow_and_update();
        assert!(matches!(window.events_after(0, 10), Run::Gone(_)), "and sees that something was missed");
    }

    #[tokio::test]
    async fn a_window_in_which_nothing_happens_forgets_too() {
        let windows = windows(Duration::from_millis(20)).await;
        let window = windows.of(MAPS).unwrap();
        let change = stored(&windows, "a").await;
        windows.apply(vec![change.clone()]);
        windows.publish(change.revision.0);
        window.pin(&window.snapshot());
        assert!(matches!(window.events_after(0, 10), Run::Events(events, 1) if events.len() == 1));
        tokio::time::sleep(Duration::from_millis(30)).await;
        windows.trim();
        assert!(matches!(window.events_after(0, 10), Run::Gone(1)));
        assert!(window.pins.lock().is_empty());
        assert!(window.get(&format!("{MAPS}default/a")).is_some(), "what there is stays");
    }

    #[tokio::test]
    async fn what_is_found_by_an_index_is_what_looking_at_all_finds() {
        let windows = windows(Duration::from_secs(300)).await;
        let window = windows.of(MAPS).unwrap();
        let value = |number: u64| ["x", "y", "z"][(number % 3) as usize];
        let change = |revision: u64, number: u64, labelled: Option<&str>| {
            let mut object = json!({"metadata": {"name": format!("m{number}")}, "data": {}});
            if let Some(value) = labelled {
                object["metadata"]["labels"] = json!({ "app": value });
            }
            let key = Key(format!("{MAPS}default/m{number:04}").into());
            Change { key, revision: Revision(revision), value: Some(object.to_string().into()), previous: None }
        };
        let by = By::Label("app".to_owned());
        windows.apply((1..=1500).map(|n| change(n, n, (n % 4 != 0).then(|| value(n)))).collect());
        assert!(window.snapshot_where(&By::Label("none".to_owned()), "x").unwrap().1.items.is_empty());
        let check = || {
            for value in ["x", "y", "z", "nothing"] {
                let (all, found) = window.snapshot_where(&by, value).unwrap();
                let looked_for = all.items.values().filter(|item| item.label("app") == Some(value));
                assert!(found.items.keys().eq(looked_for.map(|item| &item.key)), "{value}");
                assert!(found.items.values().all(|item| all.items[&item.key].revision == item.revision));
            }
        };
        check();
        let before = window.snapshot_where(&by, "x").unwrap().1;
        let (count, first) = (before.items.len(), before.items.keys().next().cloned());
        for n in 1..=600 {
            let revision = 1500 + n;
            let changed = match n % 3 {
                0 => Change { value: None, ..change(revision, n, None) },
                1 => change(revision, n, Some(value(n + 1))),
                _ => change(revision, n, None),
            };
            windows.apply(vec![changed]);
        }
        check();
        assert_eq!((before.items.len(), before.items.keys().next().cloned()), (count, first), "a snapshot stays");
        windows.load().await.unwrap();
        assert!(window.snapshot_where(&by, "x").is_none(), "of few objects there is no index");
    }

    #[tokio::test]
    async fn what_was_offered_is_what_would_have_been_read() {
        let windows = windows(Duration::from_secs(300)).await;
        let window = windows.of(MAPS).unwrap();
        let mut change = stored(&windows, "a").await;
        let read = window.read(&change).unwrap();
        let offer = window.offer(window.encode(&object("a")).unwrap());
        assert_eq!(*offer.stored.raw(), object("a").to_string());
        change.value = Some(offer.stored.raw().clone());
        let taken = window.read(&change).unwrap();
        assert_eq!((read.value(), read.labels()), (taken.value(), taken.labels()));
        assert_eq!((taken.label("a"), taken.label("b"), taken.label("c")), (Some("1"), Some("2"), None));
        drop(offer);
        drop(window.offer(window.encode(&object("b")).unwrap()));
        assert!(
            window.offered.as_ref().unwrap().lock().is_empty(),
            "what was taken, or given up, is expected no longer"
        );
    }

    #[test]
    fn metadata_can_be_had_without_the_rest_and_the_rest_without_its_managers() {
        let mut object = object("a");
        object["metadata"]["managedFields"] = json!([{"manager": "m"}]);
        let stored = Encoded::of(&object, &[]).unwrap().stored;
        let (read, _) = Stored::read(stored.raw.clone()).unwrap();
        assert_eq!((stored.at, stored.end), (read.at, read.end));
        let mut metadata = BytesMut::new();
        stored.write_metadata(7, &mut metadata);
        assert_eq!(serde_json::from_slice::<Value>(&metadata).unwrap(), stored.value_at(7)["metadata"]);
        object["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(stored.value_without_managers(), object);
    }

    #[tokio::test]
    async fn nobody_waits_for_windows_that_are_no_longer_fed() {
        let windows = windows(Duration::from_secs(300)).await;
        let shutdown = CancellationToken::new();
        let waiting = async {
            shutdown.cancel();
            windows.reached(1, Duration::from_secs(600)).await
        };
        let ((), seen) = tokio::join!(windows.feed(0, shutdown.clone()), waiting);
        assert!(!seen);
    }

    #[tokio::test]
    async fn what_was_promised_is_waited_for() {
        let windows = windows(Duration::from_secs(300)).await;
        assert!(windows.current(Duration::ZERO).await);
        let change = stored(&windows, "a").await;
        windows.promise(change.revision.0);
        assert!(!windows.current(Duration::from_millis(5)).await);
        windows.apply(vec![change.clone()]);
        windows.publish(change.revision.0);
        assert!(windows.current(Duration::ZERO).await);
    }
}
