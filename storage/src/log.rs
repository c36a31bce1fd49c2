//! The bytes of a segment: a header, then frames. A frame is one group of writes, and is there whole or not at all.
//!
//! ```text
//! segment  magic 8 · version 4 · kind 4 · salt 4 · zeros 4 · revision 8 · zeros 28 · crc 4                    = 64 bytes
//! frame    magic 4 · kind 4 · length 4 · operations 4 · revision 8 · time 8 · body crc 4 · header crc 4       = 40 bytes
//!          operations · zeros up to a multiple of 64 bytes · trailer 4                                        = length
//! ```
//! Numbers are little-endian. `revision` is the newest one before the frame. Checksums are CRC-32 that starts from the
//! segment's random salt, so that bytes of another file, or of a value, never pass for a frame of this one.
//!
//! Frames begin at multiples of 64 bytes, so a frame's header lies in one disk sector and its last sector ends in the
//! trailer: a sector of a frame that is all zeros was never written. This is how a torn frame, which nobody was ever
//! told about, is told from a damaged one.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{Error, Key, Result, Revision, map::Stored};

pub(crate) const SEGMENT_HEADER: u64 = 64;
const FRAME_HEADER: usize = 40;
const ALIGN: u64 = 64;
const SECTOR: u64 = 512;
/// A group is closed once it has so many bytes, and a write has at most 8 MiB and its key.
const MAX_BODY: usize = 32 << 20;
const VERSION: u32 = 1;
const SEGMENT_MAGIC: &[u8; 8] = b"OneXlog\n";
const FRAME_MAGIC: &[u8; 4] = b"\xF1rme";
const TRAILER: &[u8; 4] = b"end\xE1";

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Changes, as they happened.
    Log = 1,
    /// All entries as of a revision, then the changes since.
    Snapshot = 2,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A group of writes.
    Changes = 1,
    /// Some of the entries that a snapshot begins with.
    Entries = 2,
    /// Nothing: whoever wrote this meant to stop here.
    End = 3,
}

/// One operation of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put { key: Key, value: Bytes },
    Delete { key: Key },
    Compact(Revision),
    Entry { key: Key, revision: Revision, value: Bytes },
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPACT: u8 = 3;
const ENTRY: u8 = 4;

/// A frame that was read back, whole.
pub(crate) struct Frame {
    pub kind: Kind,
    /// Where in its file it begins.
    pub offset: u64,
    /// The newest revision before it.
    pub revision: Revision,
    /// In milliseconds since 1970.
    pub time: u64,
    pub operations: Vec<Operation>,
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub content: Content,
    pub salt: u32,
    /// The newest revision before it; of a snapshot, the revision of its entries.
    pub revision: Revision,
}

impl Header {
    /// A header like no other.
    pub fn new(content: Content, revision: Revision) -> Self {
        let salt = RandomState::new().hash_one(revision.0) as u32;
        Self { content, salt, revision }
    }

    pub fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.content as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.revision.0.to_le_bytes());
        let crc = checksum(0, &bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SEGMENT_HEADER as usize]) -> Result<Self, &'static str> {
        if &bytes[..8] != SEGMENT_MAGIC {
            return Err("this is not a segment of a log");
        }
        if u32_at(bytes, 60) != checksum(0, &bytes[..60]) {
            return Err("the header of the segment does not match its checksum");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err("the segment has a format of another version of this program");
        }
        let content = match u32_at(bytes, 12) {
            1 => Content::Log,
            2 => Content::Snapshot,
            _ => return Err("the segment is of an unknown kind"),
        };
        Ok(Self { content, salt: u32_at(bytes, 16), revision: Revision(u64_at(bytes, 24)) })
    }
}

/// Builds one frame after the other, reusing its memory.
pub(crate) struct Encoder {
    salt: u32,
    bytes: Vec<u8>,
    operations: u32,
}

impl Encoder {
    pub fn new(salt: u32) -> Self {
        Self { salt, bytes: vec![0; FRAME_HEADER], operations: 0 }
    }

    /// How large the frame is by now, about.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    /// Begins the next frame.
    pub fn clear(&mut self) {
        self.bytes.clear();
        // One huge value must not be paid for ever after.
        self.bytes.shrink_to(1 << 20);
        self.bytes.resize(FRAME_HEADER, 0);
        self.operations = 0;
    }

    pub fn put(&mut self, key: &Key, value: &Bytes) {
        self.begin(PUT);
        self.key_and_value(key, value);
    }

    pub fn delete(&mut self, key: &Key) {
        self.begin(DELETE);
        self.key(key);
    }

    pub fn compact(&mut self, revision: Revision) {
        self.begin(COMPACT);
        self.bytes.extend_from_slice(&revision.0.to_le_bytes());
    }

    pub fn entry(&mut self, key: &Key, stored: &Stored) {
        self.begin(ENTRY);
        self.bytes.extend_from_slice(&stored.revision.0.to_le_bytes());
        self.key_and_value(key, &stored.value);
    }

    /// The frame, ready to be written.
    pub fn finish(&mut self, kind: Kind, revision: Revision, time: u64) -> &mut Vec<u8> {
        let whole = (self.bytes.len() + TRAILER.len()).next_multiple_of(ALIGN as usize);
        self.bytes.resize(whole - TRAILER.len(), 0);
        self.bytes.extend_from_slice(TRAILER);
        let body_crc = checksum(self.salt, &self.bytes[FRAME_HEADER..]);
        let length = (whole - FRAME_HEADER) as u32;
        let header = &mut self.bytes[..FRAME_HEADER];
        header[..4].copy_from_slice(FRAME_MAGIC);
        header[4..8].copy_from_slice(&(kind as u32).to_le_bytes());
        header[8..12].copy_from_slice(&length.to_le_bytes());
        header[12..16].copy_from_slice(&self.operations.to_le_bytes());
        header[16..24].copy_from_slice(&revision.0.to_le_bytes());
        header[24..32].copy_from_slice(&time.to_le_bytes());
        header[32..36].copy_from_slice(&body_crc.to_le_bytes());
        let header_crc = checksum(self.salt, &header[..36]);
        header[36..].copy_from_slice(&header_crc.to_le_bytes());
        &mut self.bytes
    }

    fn begin(&mut self, operation: u8) {
        self.operations += 1;
        self.bytes.push(operation);
    }

    fn key(&mut self, key: &Key) {
        self.bytes.extend_from_slice(&(key.0.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key.0.as_bytes());
    }

    fn key_and_value(&mut self, key: &Key, value: &Bytes) {
        self.key(key);
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(value);
    }
}

/// Where the good part of a segment ends, and what is behind it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or room that was prepared and not used.
    Clean,
    /// The beginning of a frame that was never finished, up to the end of the file.
    Torn { bytes: u64 },
}

/// Reads a segment, frame by frame.
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<fs::File>,
    size: u64,
    offset: u64,
    header: Header,
    body: Vec<u8>,
}

impl Reader {
    /// Opens a segment; none, if not even its header was written.
    pub fn open(path: &Path, last_good: Revision) -> Result<Option<Self>> {
        let file = fs::File::open(path).map_err(failed_at(path))?;
        let size = file.metadata().map_err(failed_at(path))?.len();
        if size < SEGMENT_HEADER {
            return Ok(None);
        }
        let mut bytes = [0; SEGMENT_HEADER as usize];
        let mut file = BufReader::with_capacity(1 << 20, file);
        file.read_exact(&mut bytes).map_err(failed_at(path))?;
        let is_blank = bytes.iter().all(|byte| *byte == 0);
        if is_blank && last_nonzero(file.get_ref(), 0, size).map_err(failed_at(path))? == 0 {
            return Ok(None);
        }
        let header = Header::decode(&bytes).map_err(|reason| damaged(path, 0, last_good, reason))?;
        Ok(Some(Self { path: path.to_owned(), file, size, offset: SEGMENT_HEADER, header, body: Vec::new() }))
    }

    pub fn header(&self) -> Header {
        self.header
    }

    /// Where the next frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next frame; or where the good part ends, which must be the end of the file or a torn frame.
    pub fn next(&mut self, last_good: Revision) -> Result<Result<Frame, Tail>> {
        if self.offset >= self.size {
            return Ok(Err(Tail::Clean));
        }
        match self.read_frame().map_err(failed_at(&self.path))? {
            Ok(frame) => {
                self.offset += frame_bytes(self.body.len());
                Ok(Ok(frame))
            }
            Err(reason) => self.tail(reason, last_good).map(Err),
        }
    }

    fn read_frame(&mut self) -> io::Result<Result<Frame, &'static str>> {
        let left = self.size - self.offset;
        let mut header = [0; FRAME_HEADER];
        if left < FRAME_HEADER as u64 {
            return Ok(Err(CUT_SHORT));
        }
        self.file.read_exact(&mut header)?;
        let length = match body_length(&header, self.header.salt) {
            Ok(length) => length,
            Err(reason) => return Ok(Err(reason)),
        };
        if left < frame_bytes(length) {
            return Ok(Err(CUT_SHORT));
        }
        self.body.resize(length, 0);
        self.file.read_exact(&mut self.body)?;
        Ok(decode(&header, &self.body, self.header.salt, self.offset))
    }

    /// Judges what stands where a frame should.
    fn tail(&self, reason: &'static str, last_good: Revision) -> Result<Tail> {
        let file = self.file.get_ref();
        let damaged = |reason| damaged(&self.path, self.offset, last_good, reason);
        if self.something_valid_follows(file).map_err(failed_at(&self.path))? {
            return Err(damaged(reason));
        }
        let last = last_nonzero(file, self.offset, self.size).map_err(failed_at(&self.path))?;
        if last == self.offset {
            return Ok(Tail::Clean);
        }
        if self.is_torn(file, last).map_err(failed_at(&self.path))? {
            return Ok(Tail::Torn { bytes: last - self.offset });
        }
        Err(damaged(reason))
    }

    /// Whether a part of the frame at hand was never written: it runs past the end, or a sector of it is all zeros.
    fn is_torn(&self, file: &fs::File, last: u64) -> io::Result<bool> {
        let left = self.size - self.offset;
        if left < FRAME_HEADER as u64 {
            return Ok(true);
        }
        let mut header = [0; FRAME_HEADER];
        file.read_exact_at(&mut header, self.offset)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
        let Ok(length) = body_length(&header, self.header.salt) else {
            return Ok(false);
        };
        let end = self.offset + frame_bytes(length);
        if end > self.size || end.saturating_sub(last) >= SECTOR {
            return Ok(true);
        }
        has_zero_sector(file, self.offset, end)
    }

    fn something_valid_follows(&self, file: &fs::File) -> io::Result<bool> {
        let mut offset = self.offset + ALIGN;
        let mut header = [0; FRAME_HEADER];
        let mut window = vec![0; 1 << 20];
        while offset + (FRAME_HEADER as u64) <= self.size {
            let length = (self.size - offset).min(window.len() as u64) as usize;
            file.read_exact_at(&mut window[..length], offset)?;
            for start in (0..length).step_by(ALIGN as usize) {
                if window[start..length].starts_with(FRAME_MAGIC) && length - start >= FRAME_HEADER {
                    header.copy_from_slice(&window[start..start + FRAME_HEADER]);
                    if body_length(&header, self.header.salt).is_ok() {
                        return Ok(true);
                    }
                }
            }
            offset += length as u64;
        }
        Ok(false)
    }
}

const CUT_SHORT: &str = "a frame ends behind the end of the file";

fn frame_bytes(body: usize) -> u64 {
    (FRAME_HEADER + body) as u64
}

fn body_length(header: &[u8; FRAME_HEADER], salt: u32) -> Result<usize, &'static str> {
    if &header[..4] != FRAME_MAGIC {
        return Err("no frame begins where one should");
    }
    if u32_at(header, 36) != checksum(salt, &header[..36]) {
        return Err("the header of a frame does not match its checksum");
    }
    let length = u32_at(header, 8) as usize;
    if length > MAX_BODY || !frame_bytes(length).is_multiple_of(ALIGN) {
        return Err("a frame has an impossible length");
    }
    Ok(length)
}

fn decode(header: &[u8; FRAME_HEADER], body: &[u8], salt: u32, offset: u64) -> Result<Frame, &'static str> {
    if u32_at(header, 32) != checksum(salt, body) {
        return Err("a frame does not match its checksum");
    }
    let kind = match u32_at(header, 4) {
        1 => Kind::Changes,
        2 => Kind::Entries,
        3 => Kind::End,
        _ => return Err("a frame is of an unknown kind"),
    };
    let mut rest = body;
    let operations = (0..u32_at(header, 12)).map(|_| operation(&mut rest)).collect::<Option<_>>();
    let operations = operations.ok_or("a frame holds something unknown")?;
    Ok(Frame { kind, offset, revision: Revision(u64_at(header, 16)), time: u64_at(header, 24), operations })
}

fn operation(rest: &mut &[u8]) -> Option<Operation> {
    Some(match take(rest, 1)?[0] {
        PUT => Operation::Put { key: key(rest)?, value: value(rest)? },
        DELETE => Operation::Delete { key: key(rest)? },
        COMPACT => Operation::Compact(Revision(u64_at(take(rest, 8)?, 0))),
        ENTRY => {
            let revision = Revision(u64_at(take(rest, 8)?, 0));
            Operation::Entry { key: key(rest)?, revision, value: value(rest)? }
        }
        _ => return None,
    })
}

fn key(rest: &mut &[u8]) -> Option<Key> {
    let length = u32_at(take(rest, 4)?, 0) as usize;
    Some(Key::from(std::str::from_utf8(take(rest, length)?).ok()?))
}

fn value(rest: &mut &[u8]) -> Option<Bytes> {
    let length = u32_at(take(rest, 4)?, 0) as usize;
    Some(Bytes::copy_from_slice(take(rest, length)?))
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

/// One behind the last byte between two offsets that is not zero; `from`, if all are.
fn last_nonzero(file: &fs::File, from: u64, to: u64) -> io::Result<u64> {
    let mut last = from;
    each_piece(file, from, to, |offset, piece| {
        if let Some(index) = piece.iter().rposition(|byte| *byte != 0) {
            last = offset + index as u64 + 1;
        }
    })?;
    Ok(last)
}

fn has_zero_sector(file: &fs::File, from: u64, to: u64) -> io::Result<bool> {
    let mut found = false;
    each_piece(file, from, to, |_, piece| found |= piece.iter().all(|byte| *byte == 0))?;
    Ok(found)
}

/// Goes through a part of a file, sector by sector.
fn each_piece(file: &fs::File, from: u64, to: u64, mut look: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut offset = from;
    while offset < to {
        // Windows begin at multiples of their size after the first, so that no sector lies in two of them.
        let end = to.min((offset + 1).next_multiple_of(buffer.len() as u64));
        let window = &mut buffer[..(end - offset) as usize];
        file.read_exact_at(window, offset)?;
        let mut start = 0;
        while start < window.len() {
            let position = offset + start as u64;
            let next = ((position + 1).next_multiple_of(SECTOR) - offset).min(window.len() as u64) as usize;
            look(position, &window[start..next]);
            start = next;
        }
        offset = end;
    }
    Ok(())
}

fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were taken"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were taken"))
}

/// Says of a failure at which file it happened.
pub(crate) fn failed_at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |cause| {
        let named = io::Error::new(cause.kind(), format!("{}: {cause}", path.display()));
        Error::Unavailable(Box::new(named))
    }
}

pub(crate) fn damaged(file: &Path, offset: u64, last_good: Revision, reason: &'static str) -> Error {
    Error::Damaged { file: file.to_owned(), offset, reason, last_good }
}
