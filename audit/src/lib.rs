//! The record of who was allowed what, and the log that it travels in.
//!
//! Those who decide append; those who store and show read. [`open`] picks an implementation by URL.

mod file;
mod memory;
mod record;
mod segment;

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use url::Url;

pub use file::File;
pub use memory::Memory;
pub use record::{Decision, Object, Record, User};

/// The longest record, in bytes of JSON.
pub const RECORD_BYTES: usize = 4 << 20;

/// Opens the log that `url` names: `memory:` lasts as long as what is answered here, `file:///directory` survives.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// When the scheme is unknown, or the directory cannot be used.
pub async fn open(url: &Url, settings: &Settings) -> Result<Arc<dyn AuditLog>> {
    match url.scheme() {
        "memory" => Ok(Arc::new(Memory::new(settings))),
        "file" => {
            let directory = url.to_file_path().map_err(|()| Error::NoDirectory(url.clone()))?;
            Ok(Arc::new(File::open(directory, settings).await?))
        }
        other => Err(Error::UnknownScheme(other.to_owned())),
    }
}

/// How the embedded logs behave. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How much is kept, in bytes. Beyond it the oldest records go, but never those that a reader has yet to commit.
    pub keep_bytes: u64,
    /// A file of the log ends at so many bytes.
    pub segment_bytes: u64,
    /// How many appends may wait for the disk before callers wait to hand theirs in.
    pub queue_appends: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep_bytes: 1 << 30, segment_bytes: 64 << 20, queue_appends: 4096 }
    }
}

/// A log of records, in one order, that several readers follow at their own pace.
///
/// A reader has a name. It reads, stores what it read, and commits; after a crash between the last two it reads the same
/// again, and the ids of the records tell it so.
#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    /// Appends records, next to each other and in this order. Durable when it answers.
    ///
    /// Fails with [`Error::TooLong`], and appends none, when one of them is longer than [`RECORD_BYTES`].
    async fn append(&self, records: &[Record]) -> Result<()>;

    /// The oldest records that `reader` has not committed, at most `most` of them. Waits until there is one.
    ///
    /// A reader that has never committed begins with the oldest record that is kept.
    async fn read(&self, reader: &str, most: usize) -> Result<Batch>;

    /// `reader` needs no record before `position` any more. An older position than the one committed changes nothing.
    async fn commit(&self, reader: &str, position: Position) -> Result<()>;
}

/// What every call answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The number of a record in its log, counted from 0 without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// Some records, and where the log goes on.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The records, oldest first; at least one.
    pub records: Vec<Record>,
    /// The position to commit once they are stored.
    pub next: Position,
}

/// A situation that a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record cannot be kept at all.
    #[error("a record of {0} bytes is longer than {RECORD_BYTES}")]
    TooLong(usize),
    /// A reader's name is a file name, so it is made of letters, digits, `-` and `_`, 64 at most.
    #[error("{0:?} is no name of a reader: letters, digits, - and _, 64 at most")]
    BadReader(String),
    /// Nothing was appended or read; later it may be.
    #[error("the audit log is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What the log says at this place cannot be understood.
    #[error("the audit log is damaged: {}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process has it open.
    #[error("the audit log {} is in use", .0.display())]
    Locked(PathBuf),
    /// The URL has a scheme that is none of ours.
    #[error("{0:?} is neither \"file\" nor \"memory\"")]
    UnknownScheme(String),
    /// The URL names no directory of this machine.
    #[error("{0} names no directory of this machine")]
    NoDirectory(Url),
}

fn unavailable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unavailable(cause.into())
}

/// A record as a line of the log.
fn line(record: &Record) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record).map_err(unavailable)?;
    if line.len() > RECORD_BYTES {
        return Err(Error::TooLong(line.len()));
    }
    line.push(b'\n');
    Ok(line)
}

fn hold_reader(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Error::BadReader(name.to_owned()));
    }
    Ok(())
}
