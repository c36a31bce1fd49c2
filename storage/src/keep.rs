//! Looking at what a storage holds, and keeping a copy of it, while others use it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    Error, Page, Result, Revision, Settings, Storage,
    map::{Entries, Map, Snapshot, Stored},
    segments::{self, Seen},
};

/// A write that is under way looks torn for a moment, and a compaction takes files away.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// What is in the directory of a `file:` storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The revision of the newest change.
    pub newest: Revision,
    /// The oldest revision that history reaches back to.
    pub oldest: Revision,
    /// How many entries there are.
    pub entries: usize,
    /// How large its files are, in bytes.
    pub file_bytes: u64,
    /// A log whose last write is not whole, and how many bytes of it there are: what a crash leaves behind. It was never
    /// acknowledged, and goes with the next start.
    pub torn: Option<(PathBuf, u64)>,
}

/// Reads everything in the directory of a `file:` storage, whether or not somebody has it open, and changes nothing.
///
/// Fails with [`Error::Damaged`] if anything that was acknowledged cannot be read. Blocks for as long as reading takes.
pub fn inspect(directory: &Path) -> Result<Inspection> {
    read(directory).map(|seen| inspection(&seen))
}

/// Writes what is in the directory of a `file:` storage into another one, which must be empty or not there, whether or not
/// somebody has the first open. The copy holds everything that was acknowledged before this was called.
pub fn back_up(directory: &Path, target: &Path) -> Result<Inspection> {
    let seen = read(directory)?;
    let snapshot = seen.map.unwind(seen.map.moment());
    let file_bytes = segments::found(target, &snapshot)?;
    Ok(Inspection { file_bytes, torn: None, ..inspection(&seen) })
}

/// Writes what a storage holds into a directory for a `file:` storage, which must be empty or not there. Its history is not
/// copied.
pub async fn back_up_from(storage: &dyn Storage, target: &Path) -> Result<Inspection> {
    let listing = storage.list(Page::all("")).await?;
    let stored = |entry: crate::Entry| (entry.key, Stored { revision: entry.revision, value: entry.value });
    let entries: Entries = listing.entries.into_iter().map(stored).collect();
    let snapshot = Snapshot { base: listing.revision, entries, history: Vec::new() };
    let file_bytes = segments::found(target, &snapshot)?;
    let (newest, entries) = (listing.revision, snapshot.entries.len());
    Ok(Inspection { newest, oldest: newest, entries, file_bytes, torn: None })
}

fn read(directory: &Path) -> Result<Seen> {
    // History is kept whatever its age: it is looked at, not served.
    let settings = Settings { history_seconds: u64::MAX / 2000, history_bytes: u64::MAX, ..Settings::default() };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let seen = segments::look(directory, &settings, Arc::new(SystemTime::now));
        let may_pass = match &seen {
            Ok(seen) => seen.torn.is_some(),
            Err(Error::Damaged { .. }) => true,
            Err(Error::Unavailable(cause)) => {
                // A file that went, or whose prepared room went.
                let passing = [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof];
                cause.downcast_ref::<io::Error>().is_some_and(|cause| passing.contains(&cause.kind()))
                    && directory.exists()
            }
            Err(_) => false,
        };
        if !may_pass || attempts == ATTEMPTS {
            return seen;
        }
        std::thread::sleep(PAUSE);
    }
}

fn inspection(seen: &Seen) -> Inspection {
    let map: &Map = &seen.map;
    Inspection {
        newest: map.newest(),
        oldest: map.oldest(),
        entries: map.moment().entries.len(),
        file_bytes: seen.bytes,
        torn: seen.torn.clone(),
    }
}
