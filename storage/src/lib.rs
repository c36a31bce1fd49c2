//! A revisioned map of keys to bytes that can be watched.
//!
//! This is where the cluster's truth lives. It knows nothing of JSON, kinds or HTTP: those are the
//! apiserver's. Start at [`Storage`]; [`open`] picks an implementation by URL.

mod etcd;
mod file;
mod keep;
mod location;
mod log;
mod map;
mod memory;
mod segments;

use std::{
    borrow::Borrow,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

pub use etcd::Etcd;
pub use file::File;
pub use keep::{Inspection, back_up, back_up_from, inspect};
pub use location::Location;
pub use memory::Memory;

/// The longest key, in bytes.
pub const KEY_BYTES: usize = 4 << 10;

/// The largest value, in bytes.
pub const VALUE_BYTES: usize = 8 << 20;

/// Opens the storage at a location: `memory:` lasts as long as what is answered here, `file:///directory` survives, and
/// `etcd://host,host` is kept by others.
///
/// Must be called inside a tokio runtime. Dropping the last handle closes the storage; that waits for the write in hand.
pub async fn open(location: &Location, settings: &Settings) -> Result<Arc<dyn Storage>> {
    let clock: Clock = Arc::new(SystemTime::now);
    match location {
        Location::Memory => Ok(Arc::new(Memory::new(settings, clock))),
        Location::File(directory) => Ok(Arc::new(File::open(directory, settings, clock).await?)),
        Location::Etcd(members) => Ok(Arc::new(Etcd::open(members, settings).await?)),
    }
}

/// Where the time comes from. It decides only how long history is kept, so it may jump.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How the storages behave. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long changes are remembered, so that a watch can resume and a list can look back, in seconds. In etcd, up to twice as
    /// long, and no longer than whoever else compacts it says.
    pub history_seconds: u64,
    /// How much memory changes may take before the oldest are forgotten early, in bytes.
    pub history_bytes: u64,
    /// How many writes may wait for the disk before callers wait to hand theirs in.
    pub queue_writes: usize,
    /// How much garbage the log may hold before it is rewritten, however little is alive, in bytes.
    pub garbage_bytes: u64,
    /// A file with the certificate of the authority that vouches for etcd's members. With it, they are spoken to over TLS; if it
    /// is empty, in the clear.
    pub etcd_ca_file: PathBuf,
    /// A file with the certificate that we show to etcd. May be empty.
    pub etcd_cert_file: PathBuf,
    /// A file with its key.
    pub etcd_key_file: PathBuf,
    /// The user that we are to etcd, if it asks for users. May be empty.
    pub etcd_user: String,
    /// A file with the user's password.
    pub etcd_password_file: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            history_seconds: 300,
            history_bytes: 64 << 20,
            queue_writes: 4096,
            garbage_bytes: 64 << 20,
            etcd_ca_file: PathBuf::new(),
            etcd_cert_file: PathBuf::new(),
            etcd_key_file: PathBuf::new(),
            etcd_user: String::new(),
            etcd_password_file: PathBuf::new(),
        }
    }
}

/// A revisioned map of keys to bytes that can be watched.
///
/// Revisions grow with every change; in the embedded storages from 1 on, by one. One that anybody was told of, by an answer or by
/// a watch, is never used again, not even after a crash.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// The entry at `key` as it is now.
    async fn get(&self, key: &Key) -> Result<Option<Entry>>;

    /// A prefix as it stood at one revision, in the order of its keys.
    ///
    /// Fails with [`Error::Compacted`] when history no longer reaches back to `page.at`, and with
    /// [`Error::Future`] when `page.at` has not happened yet.
    async fn list(&self, page: Page) -> Result<Listing>;

    /// Stores `value` at `key` if the key is as `expected`, and answers the revision of this change.
    ///
    /// Durable when it answers. Before it answers, the change was offered to every watcher.
    async fn put(&self, key: &Key, value: Bytes, expected: Expected) -> Result<Revision>;

    /// The same, of an entry that need not be there after `lifetime`: a storage that can may remove it by itself. Whoever needs
    /// it to be gone removes it.
    async fn put_for(
        &self,
        key: &Key,
        value: Bytes,
        expected: Expected,
        lifetime: Option<Duration>,
    ) -> Result<Revision> {
        let _ = lifetime;
        self.put(key, value, expected).await
    }

    /// Removes `key` if its last change was at `expected`, and answers the revision of the removal.
    async fn delete(&self, key: &Key, expected: Revision) -> Result<Revision>;

    /// Every change under `prefix` after `since`, in order, with none missing.
    ///
    /// The stream yields runs of changes, and ends with [`Error::Compacted`] when history no longer reaches back to
    /// `since` or when the reader falls so far behind that history overtakes it; list again and watch from there.
    /// It ends without an error when the storage is closed. The call itself fails with [`Error::Future`] when `since`
    /// has not happened yet.
    async fn watch(&self, prefix: &Prefix, since: Revision) -> Result<Changes>;

    /// Forgets history up to and including `revision`: reads and watches from before it answer [`Error::Compacted`].
    ///
    /// `revision` itself can still be listed and watched from. What is forgotten already is no error.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// The revision of the newest change, whoever made it: what was acknowledged before this was asked is not after it.
    ///
    /// In a shared storage every watch soon tells that it has come so far.
    async fn newest(&self) -> Result<Revision>;

    /// Whether the last write could be stored, as far as that is known.
    fn takes_writes(&self) -> bool {
        true
    }

    /// Whether others may write besides whoever holds this.
    fn is_shared(&self) -> bool {
        false
    }
}

/// What every call answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Runs of changes.
pub type Changes = BoxStream<'static, Result<Run>>;

/// Changes that a watch tells at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// In order; none, if only time went by.
    pub changes: Vec<Change>,
    /// Everything up to here was told.
    pub revision: Revision,
}

/// The number of a change, over the whole map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// The name of an entry, such as `/registry/pods/default/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Arc<str>);

/// The beginning of keys, such as `/registry/pods/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(pub Arc<str>);

/// A value, and the revision that put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub key: Key,
    /// The revision of its last change.
    pub revision: Revision,
    /// What it holds.
    pub value: Bytes,
}

/// Which part of a prefix to list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The prefix.
    pub prefix: Prefix,
    /// Only keys greater than this one.
    pub after: Option<Key>,
    /// At most so many entries; `Some(0)` asks for the revision and the count alone.
    pub limit: Option<usize>,
    /// As of this revision; now, if `None`.
    pub at: Option<Revision>,
}

/// A part of a prefix as it stood at one revision.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The revision that the listing shows: that of the whole map, not of the newest entry.
    pub revision: Revision,
    /// The entries, in the order of their keys.
    pub entries: Vec<Entry>,
    /// How many more entries follow in the prefix after the last one given.
    pub remaining: usize,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub key: Key,
    /// When, in the order of the map.
    pub revision: Revision,
    /// What is there now; nothing, after a removal.
    pub value: Option<Bytes>,
    /// What was there before; nothing, for a new key.
    pub previous: Option<Entry>,
}

/// What must be true of a key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is no entry.
    Absent,
    /// The last change of the entry was at this revision.
    At(Revision),
}

/// A situation that the caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is not as expected. `current` is the entry as it is now, so that the caller can decide anew.
    #[error("the key was changed by somebody else")]
    Conflict {
        /// The entry as it is now; `None` if there is none.
        current: Option<Entry>,
    },
    /// History no longer reaches back so far.
    #[error("history before revision {} is gone", oldest.0)]
    Compacted {
        /// The oldest revision that can still be read, and watched from.
        oldest: Revision,
    },
    /// That revision has not happened yet.
    #[error("revision {} is the newest", newest.0)]
    Future {
        /// The newest revision.
        newest: Revision,
    },
    /// The storage cannot answer now. A write that failed so is not there now, but may turn out to have happened when the
    /// storage is opened again; in a shared storage, at any time.
    #[error("the storage is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A key is empty or longer than [`KEY_BYTES`], or a value is larger than [`VALUE_BYTES`].
    #[error("the {what} has {bytes} bytes, and must have 1 to {limit}")]
    Size {
        /// `key` or `value`.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// No storage goes by that name.
    #[error("{location:?} is no place for a storage: {why}")]
    Location {
        /// What was given.
        location: String,
        /// What it should be.
        why: &'static str,
    },
    /// A file that a setting names cannot be read.
    #[error("could not read {}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// Another process, or another handle of this one, has the directory open.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// Data that was acknowledged once can no longer be read. Nothing is served; restore the file or the directory.
    #[error("{} is damaged at byte {offset}: {reason}; revision {last_good} is the last that can be read", file.display())]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where the first damaged part of it begins.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
        /// The last revision that can be read.
        last_good: Revision,
    },
}

impl Key {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    /// Whether `key` begins with this.
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }

    /// The beginning as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Page {
    /// All of a prefix, as it is now.
    pub fn all(prefix: impl Into<Prefix>) -> Self {
        Self { prefix: prefix.into(), after: None, limit: None, at: None }
    }
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<&str> for Prefix {
    fn from(beginning: &str) -> Self {
        Self(beginning.into())
    }
}

impl From<String> for Prefix {
    fn from(beginning: String) -> Self {
        Self(beginning.into())
    }
}

// A key orders and hashes as its text does, so maps of keys can be asked by text.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
