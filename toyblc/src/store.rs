//! The chain on disk: an append-only file of blocks in the order in which they joined the main chain.
//!
//! The file starts with one line that names the format and the genesis block. Then follow records:
//!
//! ```text
//! length u32 | crc32 u32 | index u64 | work u128 | the block as JSON        (little endian; length and crc cover the last three)
//! ```
//!
//! A record with an index that was seen before replaces that block and drops all after it: that is how a
//! reorganisation is recorded. In memory is only the place of every 64th block, 8 bytes each.
//!
//! A record is in the kernel's hands when [`Store::append`] returns, so a killed process loses nothing; it is on the disk when
//! [`Sync::run`] returns, which the node calls once a second and before it answers a `POST`. What a power cut tears
//! off is found by its checksum at the next start, cut, named, and fetched again from peers.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::{Block, BlockHash, MAX_ADDRESS_BYTES, MAX_DATA_BYTES};
use crate::chain::Placed;

/// What the file is called.
pub(crate) const FILE: &str = "blocks";

/// Every how many blocks the place in the file is remembered.
const PAGE: u64 = 64;

/// Length and checksum.
const FRAME_BYTES: usize = 8;

/// Index and work.
const HEAD_BYTES: usize = 24;

/// No block's record is longer: JSON may escape a byte of text into six.
const MAX_RECORD_BYTES: usize = HEAD_BYTES + 6 * (MAX_DATA_BYTES + MAX_ADDRESS_BYTES) + 1024;

/// Why the chain cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("the chain's file {path} cannot be used")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the chain's file {0} is in use by another node")]
    InUse(PathBuf),
    /// It is not ours to write to.
    #[error("{0} is not a chain of this kind, or starts from another genesis block")]
    Foreign(PathBuf),
    /// A record has the right checksum and the wrong content.
    #[error("the chain's file {0} holds a block that cannot be")]
    Damaged(PathBuf),
}

/// What was cut from the end of a file because it did not hold together.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which file.
    pub path: PathBuf,
    /// Where the file ends now.
    pub offset: u64,
    /// How many bytes were cut; they are kept beside the file, with `.cut` at the end of the name.
    pub bytes: u64,
}

/// The file of blocks. Holds the main chain without its genesis block.
pub struct Store {
    file: Arc<File>,
    path: PathBuf,
    durable: bool,
    dirty: bool,
    end: u64,
    height: u64,
    work: u128,
    /// Where the records of the blocks 1, 65, 129, ... of the main chain begin.
    pages: Vec<u64>,
}

impl Store {
    /// Opens the chain kept in `directory`, or makes an empty one. No second process can until this one ends.
    pub fn open(directory: &Path, genesis: BlockHash) -> Result<(Self, Option<Cut>), Error> {
        let path = directory.join(FILE);
        let fail = |source| Error::Io { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(fail)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        // The file's name must be on the disk before anything in it counts as kept.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail)?;
        let mut store = Self::of(file, path, true);
        let cut = store.load(genesis)?;
        Ok((store, cut))
    }

    /// A chain that ends with the process: a file without a name in the system's temporary directory.
    ///
    /// Not plain memory, because a chain grows for ever and a node's memory must not.
    pub fn temporary(genesis: BlockHash) -> Result<Self, Error> {
        let path = std::env::temp_dir();
        let file = tempfile::tempfile().map_err(|source| Error::Io { path: path.clone(), source })?;
        let mut store = Self::of(file, path, false);
        store.load(genesis)?;
        Ok(store)
    }

    fn of(file: File, path: PathBuf, durable: bool) -> Self {
        Self { file: Arc::new(file), path, durable, dirty: false, end: 0, height: 0, work: 0, pages: Vec::new() }
    }

    /// The index of the newest block; 0 when there is none but genesis.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The work of the chain up to its newest block.
    pub fn work(&self) -> u128 {
        self.work
    }

    /// Writes down that `placed` is now the newest block of the main chain, in place of the one with its index and all
    /// after that one.
    pub fn append(&mut self, placed: &Placed) -> Result<(), Error> {
        debug_assert!(placed.block.index >= 1 && placed.block.index <= self.height + 1, "a chain has no gaps");
        let record = encode(placed);
        self.file.write_all_at(&record, self.end).map_err(|source| self.io(source))?;
        self.count(placed.block.index, placed.work, record.len() as u64);
        self.dirty = true;
        Ok(())
    }

    /// Up to `count` blocks of the main chain, in order, beginning with the index `from` (1 or more).
    ///
    /// Ends early once about `max_bytes` are read, but not before the first block.
    pub fn read(&self, from: u64, count: u64, max_bytes: usize) -> Result<Vec<Placed>, Error> {
        let mut blocks = Vec::new();
        let mut bytes = 0;
        let end = from.saturating_add(count).min(self.height + 1);
        let mut next = from.max(1);
        while next < end {
            let before = next;
            for record in self.page((next - 1) / PAGE)? {
                if record.index < next || record.index >= end {
                    continue;
                }
                bytes += record.json.len();
                if bytes > max_bytes && !blocks.is_empty() {
                    return Ok(blocks);
                }
                blocks.push(record.decode().ok_or_else(|| Error::Damaged(self.path.clone()))?);
                next = record.index + 1;
            }
            // The disk no longer gives back what was found on it at the start.
            if next == before {
                return Err(Error::Damaged(self.path.clone()));
            }
        }
        Ok(blocks)
    }

    /// What must be run, on a thread that may block, so that all appended so far is on the disk; `None` if it is.
    pub fn sync(&mut self) -> Option<Sync> {
        let wanted = self.durable && std::mem::take(&mut self.dirty);
        wanted.then(|| Sync { file: Arc::clone(&self.file), path: self.path.clone() })
    }

    /// Looks for blocks by hash, on a thread that may block: it reads the whole file.
    pub fn finder(&self) -> Finder {
        Finder {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            end: self.end,
            begin: self.pages.first().copied(),
        }
    }

    /// Reads everything once: checks the records, finds the pages, cuts a tail that does not hold together.
    fn load(&mut self, genesis: BlockHash) -> Result<Option<Cut>, Error> {
        let header = format!("onex-toyblc blocks 1, genesis {genesis}\n");
        let length = self.file.metadata().map_err(|source| self.io(source))?.len();
        let mut found = vec![0; header.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        self.file.read_exact_at(&mut found, 0).map_err(|source| self.io(source))?;
        if !header.as_bytes().starts_with(&found) {
            return Err(Error::Foreign(self.path.clone()));
        }
        self.end = header.len() as u64;
        if found.len() < header.len() {
            self.file.write_all_at(header.as_bytes(), 0).map_err(|source| self.io(source))?;
            return Ok(None);
        }
        let file = Arc::clone(&self.file);
        let mut reader = Span::buffered(&file, self.end, length);
        while let Some(record) = Record::read(&mut reader).map_err(|source| self.io(source))? {
            if record.index == 0 || record.index > self.height + 1 {
                break;
            }
            self.count(record.index, record.work, record.bytes());
        }
        if self.end < length { self.cut(length).map(Some) } else { Ok(None) }
    }

    /// Cuts what is behind the last good record, and keeps a copy of it beside the file.
    fn cut(&mut self, length: u64) -> Result<Cut, Error> {
        let copy = || {
            let mut tail = Span { file: &self.file, at: self.end, end: length };
            io::copy(&mut tail, &mut File::create(self.path.with_extension("cut"))?)?;
            self.file.set_len(self.end)
        };
        copy().map_err(|source| self.io(source))?;
        Ok(Cut { path: self.path.clone(), offset: self.end, bytes: length - self.end })
    }

    /// Takes note of a record at the end of the file.
    fn count(&mut self, index: u64, work: u128, bytes: u64) {
        let page = (index - 1) / PAGE;
        let begins = (index - 1).is_multiple_of(PAGE);
        self.pages.truncate(page as usize + usize::from(!begins));
        if begins {
            self.pages.push(self.end);
        }
        self.end += bytes;
        self.height = index;
        self.work = work;
    }

    /// The records of one page of the main chain, in order; those that were replaced are left out.
    fn page(&self, page: u64) -> Result<Vec<Record>, Error> {
        let page = page as usize;
        let begin = *self.pages.get(page).ok_or_else(|| Error::Damaged(self.path.clone()))?;
        let end = self.pages.get(page + 1).copied().unwrap_or(self.end);
        let mut reader = Span::buffered(&self.file, begin, end);
        let mut records: Vec<Record> = Vec::with_capacity(PAGE as usize);
        while let Some(record) = Record::read(&mut reader).map_err(|source| self.io(source))? {
            let replaced = records.partition_point(|earlier| earlier.index < record.index);
            records.truncate(replaced);
            // Blocks of later pages that were replaced lie between.
            if (record.index - 1) / PAGE == page as u64 {
                records.push(record);
            }
        }
        Ok(records)
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }
}

/// What [`Store::sync`] hands out.
pub struct Sync {
    file: Arc<File>,
    path: PathBuf,
}

impl Sync {
    /// Blocks until the disk has everything.
    pub fn run(self) -> Result<(), Error> {
        self.file.sync_data().map_err(|source| Error::Io { path: self.path, source })
    }
}

/// What [`Store::finder`] hands out: the file as it was then.
pub struct Finder {
    file: Arc<File>,
    path: PathBuf,
    begin: Option<u64>,
    end: u64,
}

impl Finder {
    /// The index under which a block of this hash was last written. It may have left the main chain since: compare.
    pub fn run(self, hash: BlockHash) -> Result<Option<u64>, Error> {
        // `hash` is a block's last field.
        let ending = format!("\"hash\":\"{hash}\"}}");
        let Some(begin) = self.begin else {
            return Ok(None);
        };
        let mut reader = Span::buffered(&self.file, begin, self.end);
        let mut found = None;
        while let Some(record) =
            Record::read(&mut reader).map_err(|source| Error::Io { path: self.path.clone(), source })?
        {
            if record.json.ends_with(ending.as_bytes()) {
                found = Some(record.index);
            }
        }
        Ok(found)
    }
}

struct Record {
    index: u64,
    work: u128,
    json: Vec<u8>,
}

impl Record {
    /// The next record, or `None` where the file ends or no longer makes sense.
    fn read(reader: &mut impl Read) -> io::Result<Option<Self>> {
        let mut frame = [0; FRAME_BYTES];
        if !fill(reader, &mut frame)? {
            return Ok(None);
        }
        let (length, checksum) = frame.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if !(HEAD_BYTES..=MAX_RECORD_BYTES).contains(&length) {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        if !fill(reader, &mut payload)? || crc32fast::hash(&payload).to_le_bytes() != checksum {
            return Ok(None);
        }
        let json = payload.split_off(HEAD_BYTES);
        let (index, work) = payload.split_at(8);
        Ok(Some(Self {
            index: u64::from_le_bytes(index.try_into().expect("eight bytes")),
            work: u128::from_le_bytes(work.try_into().expect("sixteen bytes")),
            json,
        }))
    }

    fn bytes(&self) -> u64 {
        (FRAME_BYTES + HEAD_BYTES + self.json.len()) as u64
    }

    fn decode(&self) -> Option<Placed> {
        let block: Block = serde_json::from_slice(&self.json).ok()?;
        (block.index == self.index).then(|| Placed { block: Arc::new(block), work: self.work })
    }
}

fn encode(placed: &Placed) -> Vec<u8> {
    let mut record = vec![0; FRAME_BYTES];
    record.extend(placed.block.index.to_le_bytes());
    record.extend(placed.work.to_le_bytes());
    serde_json::to_writer(&mut record, &*placed.block).expect("a block is numbers and texts");
    let payload = &record[FRAME_BYTES..];
    let (length, checksum) = ((payload.len() as u32).to_le_bytes(), crc32fast::hash(payload).to_le_bytes());
    record[..4].copy_from_slice(&length);
    record[4..FRAME_BYTES].copy_from_slice(&checksum);
    record
}

/// Fills the buffer, or says that the file ends before.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A part of a file, read without moving the file's own position.
struct Span<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl<'a> Span<'a> {
    fn buffered(file: &'a File, begin: u64, end: u64) -> BufReader<Self> {
        BufReader::with_capacity(32 * 1024, Self { file, at: begin, end })
    }
}

impl Read for Span<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..room], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::Rules;

    fn placed(index: u64, data: &str) -> Placed {
        let block = Block { index, data: data.to_owned(), ..Rules::default().genesis() }.sealed();
        Placed { block: Arc::new(block), work: u128::from(index) * 1000 }
    }

    fn genesis() -> BlockHash {
        Rules::default().genesis().hash
    }

    fn contents(store: &Store) -> Vec<Placed> {
        store.read(1, u64::MAX, usize::MAX).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_store_reads_as_the_chain_it_followed_also_after_a_restart(steps in prop::collection::vec((0u64..12, 1u64..90), 1..12), from in 1u64..200, count in 0u64..200) {
            let directory = tempfile::tempdir().unwrap();
            let (mut store, _) = Store::open(directory.path(), genesis()).unwrap();
            let mut model: Vec<Placed> = Vec::new();
            for (number, (left, joined)) in steps.into_iter().enumerate() {
                model.truncate(model.len().saturating_sub(left as usize));
                for _ in 0..joined {
                    let next = placed(model.len() as u64 + 1, &number.to_string());
                    store.append(&next).unwrap();
                    model.push(next);
                }
            }
            prop_assert_eq!(&contents(&store), &model);
            drop(store);
            let (store, cut) = Store::open(directory.path(), genesis()).unwrap();
            prop_assert_eq!(cut, None);
            prop_assert_eq!((store.height(), store.work()), (model.len() as u64, model.len() as u128 * 1000));
            let begin = (from as usize - 1).min(model.len());
            let end = (begin + count as usize).min(model.len());
            prop_assert_eq!(&store.read(from, count, usize::MAX).unwrap(), &model[begin..end]);
            for wanted in model.iter().step_by(301) {
                prop_assert_eq!(store.finder().run(wanted.block.hash).unwrap(), Some(wanted.block.index));
            }
        }

        #[test]
        fn a_tail_torn_anywhere_is_cut_and_named_and_all_before_it_stays(blocks in 1u64..20, torn in any::<prop::sample::Index>(), flip in any::<bool>()) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("blocks");
            let mut ends = Vec::new();
            {
                let (mut store, _) = Store::open(directory.path(), genesis()).unwrap();
                ends.push(store.end);
                for index in 1..=blocks {
                    store.append(&placed(index, "data")).unwrap();
                    ends.push(store.end);
                }
            }
            let at = ends[0] + torn.index((ends[blocks as usize] - ends[0]) as usize) as u64;
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            if flip {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
            } else {
                file.set_len(at).unwrap();
            }
            let length = file.metadata().unwrap().len();
            drop(file);
            let whole = ends.partition_point(|end| *end <= at) as u64 - 1;
            let (mut store, cut) = Store::open(directory.path(), genesis()).unwrap();
            let offset = ends[whole as usize];
            prop_assert_eq!(cut, (offset < length).then(|| Cut { path: path.clone(), offset, bytes: length - offset }));
            prop_assert_eq!(contents(&store).len() as u64, whole);
            store.append(&placed(whole + 1, "again")).unwrap();
            drop(store);
            let (store, cut) = Store::open(directory.path(), genesis()).unwrap();
            prop_assert_eq!(cut, None);
            prop_assert_eq!(store.height(), whole + 1);
        }
    }

    #[test]
    fn a_chain_belongs_to_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let _store = Store::open(directory.path(), genesis()).unwrap();
        assert!(matches!(Store::open(directory.path(), genesis()), Err(Error::InUse(_))));
    }

    #[test]
    fn the_chain_of_another_genesis_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path(), genesis()).unwrap());
        let other = placed(0, "another").block.hash;
        assert!(matches!(Store::open(directory.path(), other), Err(Error::Foreign(_))));
    }

    #[test]
    fn a_record_that_goes_bad_while_the_file_is_open_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(directory.path(), genesis()).unwrap();
        for index in 1..=100 {
            store.append(&placed(index, "data")).unwrap();
        }
        let file = OpenOptions::new().write(true).open(directory.path().join("blocks")).unwrap();
        for (bad, good) in [(store.pages[1], 64), (store.pages[0], 0)] {
            file.write_all_at(b"not a length", bad).unwrap();
            assert!(matches!(store.read(1, 100, usize::MAX), Err(Error::Damaged(_))));
            assert_eq!(store.read(1, good, usize::MAX).unwrap().len() as u64, good);
        }
    }

    #[test]
    fn a_read_is_bounded_in_bytes() {
        let mut store = Store::temporary(genesis()).unwrap();
        for index in 1..=100 {
            store.append(&placed(index, &"x".repeat(1000))).unwrap();
        }
        assert_eq!(store.read(1, 100, 5_000).unwrap().len(), 4);
        assert_eq!(store.read(1, 100, 10).unwrap().len(), 1);
        assert_eq!(store.read(101, 100, usize::MAX).unwrap(), []);
    }
}
