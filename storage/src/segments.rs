//! The files of a directory: finding them, reading them back, writing new ones.
//!
//! ```text
//! lock                          held while the directory is open
//! 00000000000000000003.snapshot everything up to a revision; files with smaller numbers are leftovers
//! 00000000000000000004.log      the changes since, in order of the numbers; the last one is written to
//! 00000000000000000004.log.torn what was cut off the end of it, after a crash
//! 00000000000000000005.snapshot.tmp  a snapshot that is being written, or was when the process died
//! ```

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    Clock, Error, Result, Revision, Settings,
    log::{Content, Encoder, Frame, Header, Kind, Operation, Reader, SEGMENT_HEADER, Tail, damaged, failed_at},
    map::{Batch, Entries, Map, Record, Snapshot, Stored},
};

/// A frame of a snapshot is closed once it has so many bytes.
const SNAPSHOT_FRAME: usize = 1 << 20;

/// A snapshot is brought to the disk in pieces of so many bytes, so that writers never wait for all of it.
const SNAPSHOT_SYNC: u64 = 4 << 20;

/// Room is prepared in such pieces, because overwriting zeros is synced twice as fast as growing a file.
const PREPARED: usize = 1 << 20;

/// Larger groups do not need prepared room: for them, writing everything twice costs more than it saves.
const SMALL: usize = 64 << 10;

/// A directory that nobody else has open.
pub(crate) struct Directory {
    path: PathBuf,
    lock: fs::File,
}

/// What [`Directory::recover`] found.
pub(crate) struct Recovered {
    pub map: Map,
    pub log: Log,
    /// How many bytes all segments have.
    pub bytes: u64,
}

struct Segment {
    number: u64,
    content: Content,
    path: PathBuf,
}

impl Directory {
    /// Makes the directory if need be, and locks it.
    pub fn open(path: PathBuf) -> Result<Self> {
        create_durably(&path).map_err(failed_at(&path))?;
        let lock = path.join("lock");
        let file = private().create(true).truncate(false).open(&lock).map_err(failed_at(&lock))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, lock: file }),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Locked(path)),
            Err(fs::TryLockError::Error(cause)) => Err(failed_at(&lock)(cause)),
        }
    }

    /// Reads everything back.
    ///
    /// Answers what was acknowledged, all of it and nothing else, or fails with [`Error::Damaged`].
    pub fn recover(&self, settings: &Settings, clock: Clock) -> Result<Recovered> {
        let segments = segments(&self.path).map_err(failed_at(&self.path))?;
        let (map, mut end) = read(&segments, settings, clock)?;
        let logs: Vec<_> = segments.iter().filter(|segment| segment.content == Content::Log).collect();
        if let (Some(last), Some(End { offset, torn, prepared, .. })) = (logs.last(), &mut end)
            && *torn > 0
        {
            cut(&last.path, *offset, *torn).map_err(failed_at(&last.path))?;
            *prepared = *offset;
        }
        // Not before everything was read: a refusal leaves all as it was.
        self.remove_leftovers(segments.first().map_or(0, |first| first.number)).map_err(failed_at(&self.path))?;
        map.trim();
        let log = match (logs.last(), end) {
            (Some(last), Some(end)) => Log::reopen(last, end)?,
            // The process died while it made this segment, so there is nothing in it.
            (Some(last), None) => {
                fs::remove_file(&last.path).map_err(failed_at(&last.path))?;
                self.create_log(last.number, map.newest())?
            }
            (None, _) => self.create_log(segments.last().map_or(1, |snapshot| snapshot.number + 1), map.newest())?,
        };
        let bytes = segments.iter().filter_map(|segment| fs::metadata(&segment.path).ok()).map(|file| file.len()).sum();
        Ok(Recovered { map, log, bytes })
    }

    /// Makes the log that follows on `revision`.
    pub fn create_log(&self, number: u64, revision: Revision) -> Result<Log> {
        let path = self.name(number, Content::Log);
        let header = Header::new(Content::Log, revision);
        let created = (|| {
            let mut file = private().create_new(true).open(&path)?;
            file.write_all(&header.encode())?;
            file.sync_all()?;
            self.sync()?;
            Ok(file)
        })();
        let file = created.map_err(|cause: io::Error| {
            // The log goes on where it was, so a segment that claims to follow must not stay.
            if cause.kind() != io::ErrorKind::AlreadyExists {
                let _ = fs::remove_file(&path);
            }
            failed_at(&path)(cause)
        })?;
        Ok(Log::new(Box::new(file), path, number, header.salt, SEGMENT_HEADER, SEGMENT_HEADER))
    }

    /// Writes a snapshot, and removes what it replaces. Answers its size; 0, if it was told to stop.
    ///
    /// A crash at any point leaves either the snapshot whole and in its place, or everything as it was.
    pub fn write_snapshot(&self, number: u64, snapshot: &Snapshot, stop: &AtomicBool) -> io::Result<u64> {
        let path = self.name(number, Content::Snapshot);
        let temporary = path.with_extension("snapshot.tmp");
        let written = write_snapshot(&temporary, snapshot, stop);
        let Ok(bytes @ 1..) = written else {
            // Of no use, and if the disk is full, what fills it.
            fs::remove_file(&temporary)?;
            return written;
        };
        fs::rename(&temporary, &path)?;
        self.sync()?;
        self.remove_leftovers(number)?;
        Ok(bytes)
    }

    /// Removes what a snapshot replaces, and snapshots that were never finished.
    fn remove_leftovers(&self, before: u64) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let is_unfinished = path.extension().is_some_and(|extension| extension == "tmp");
            if number(&path).is_some_and(|number| number < before || is_unfinished) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn name(&self, number: u64, content: Content) -> PathBuf {
        let extension = match content {
            Content::Log => "log",
            Content::Snapshot => "snapshot",
        };
        self.path.join(format!("{number:020}.{extension}"))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that is just being started has it open as well.
        if let Err(cause) = self.lock.unlock() {
            tracing::warn!(%cause, directory = %self.path.display(), "the lock could not be released");
        }
    }
}

/// The segments that count, in order: the newest snapshot, and the logs behind it.
fn segments(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let content = match path.extension().and_then(OsStr::to_str) {
            Some("log") => Content::Log,
            Some("snapshot") => Content::Snapshot,
            _ => continue,
        };
        segments.extend(number(&path).map(|number| Segment { number, content, path }));
    }
    segments.sort_by_key(|segment| segment.number);
    if let Some(snapshot) = segments.iter().rposition(|segment| segment.content == Content::Snapshot) {
        segments.drain(..snapshot);
    }
    Ok(segments)
}

/// Reads segments back without changing anything, and answers where the last log ends.
fn read(segments: &[Segment], settings: &Settings, clock: Clock) -> Result<(Map, Option<End>)> {
    let (map, logs) = match segments.split_first() {
        Some((first, logs)) if first.content == Content::Snapshot => {
            (read_snapshot(&first.path, settings, clock)?, logs)
        }
        _ => (Map::new(settings, clock), segments),
    };
    let mut end = None;
    for (index, segment) in logs.iter().enumerate() {
        end = read_log(&segment.path, &map, index + 1 == logs.len())?;
    }
    Ok((map, end))
}

/// What [`look`] saw.
pub(crate) struct Seen {
    pub map: Map,
    /// How many bytes all segments have.
    pub bytes: u64,
    /// The log whose last frame is not whole, and how many bytes of it there are.
    pub torn: Option<(PathBuf, u64)>,
}

/// Reads a directory as it is, whoever writes to it meanwhile, and changes nothing.
pub(crate) fn look(directory: &Path, settings: &Settings, clock: Clock) -> Result<Seen> {
    let segments = segments(directory).map_err(failed_at(directory))?;
    let (map, end) = read(&segments, settings, clock)?;
    let bytes = segments.iter().filter_map(|segment| fs::metadata(&segment.path).ok()).map(|file| file.len()).sum();
    let last = segments.last().map(|last| last.path.clone());
    let torn = last.zip(end.map(|end| end.torn)).filter(|(_, torn)| *torn > 0);
    Ok(Seen { map, bytes, torn })
}

/// Writes a snapshot into a directory that has nothing in it yet, and answers its size.
pub(crate) fn found(directory: &Path, snapshot: &Snapshot) -> Result<u64> {
    create_durably(directory).map_err(failed_at(directory))?;
    if fs::read_dir(directory).map_err(failed_at(directory))?.next().is_some() {
        return Err(failed_at(directory)(io::Error::other("there is something in it already")));
    }
    let directory = Directory::open(directory.to_owned())?;
    directory.write_snapshot(1, snapshot, &AtomicBool::new(false)).map_err(failed_at(&directory.path))
}

fn number(path: &Path) -> Option<u64> {
    let (number, _) = path.file_name()?.to_str()?.split_once('.')?;
    // Anything else is somebody else's, and not ours to remove.
    if number.len() == 20 { number.parse().ok() } else { None }
}

/// Makes a directory and those above it, so that they are there after a crash too.
fn create_durably(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|directory| !directory.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Objects may be secrets, so files are for nobody else to read.
fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn read_snapshot(path: &Path, settings: &Settings, clock: Clock) -> Result<Map> {
    let none = Revision(0);
    let mut reader = Reader::open(path, none)?.ok_or_else(|| damaged(path, 0, none, "the snapshot is empty"))?;
    let base = reader.header().revision;
    if reader.header().content != Content::Snapshot {
        return Err(damaged(path, 0, none, "this is a log by the name of a snapshot"));
    }
    let mut entries = Entries::new();
    let mut frame = next_of_snapshot(&mut reader, path, none)?;
    while frame.kind == Kind::Entries {
        for operation in frame.operations {
            let Operation::Entry { key, revision, value } = operation else {
                return Err(damaged(path, frame.offset, none, "a change stands among the entries"));
            };
            entries.insert(key, Stored { revision, value });
        }
        frame = next_of_snapshot(&mut reader, path, none)?;
    }
    let map = Map::based_on(base, entries, settings, clock);
    while frame.kind != Kind::End {
        replay(path, &map, frame)?;
        frame = next_of_snapshot(&mut reader, path, map.newest())?;
    }
    Ok(map)
}

fn next_of_snapshot(reader: &mut Reader, path: &Path, last_good: Revision) -> Result<Frame> {
    let offset = reader.offset();
    reader.next(last_good)?.map_err(|_| damaged(path, offset, last_good, "the end of the snapshot is missing"))
}

/// Where a log ends: its salt, the end of its last frame, how much is there of one that is not whole, and the end of the room
/// behind that.
struct End {
    salt: u32,
    offset: u64,
    torn: u64,
    prepared: u64,
}

/// Reads a log into the map; answers nothing if not even its header is there.
fn read_log(path: &Path, map: &Map, is_last: bool) -> Result<Option<End>> {
    let Some(mut reader) = Reader::open(path, map.newest())? else {
        return if is_last { Ok(None) } else { Err(damaged(path, 0, map.newest(), "the log is empty")) };
    };
    let header = reader.header();
    if header.content != Content::Log || header.revision != map.newest() {
        return Err(damaged(path, 0, map.newest(), "the log does not follow on what is there before it"));
    }
    let tail = loop {
        match reader.next(map.newest())? {
            Ok(frame) => replay(path, map, frame)?,
            Err(tail) => break tail,
        }
    };
    let offset = reader.offset();
    let prepared = fs::metadata(path).map_err(failed_at(path))?.len();
    let torn = match tail {
        Tail::Torn { .. } if !is_last => {
            return Err(damaged(path, offset, map.newest(), "a frame was torn, and another log follows"));
        }
        Tail::Torn { bytes } => bytes,
        _ => 0,
    };
    Ok(Some(End { salt: header.salt, offset, torn, prepared }))
}

/// Cuts a torn frame off, and keeps it beside the log for whoever wants to know, if there is room for that.
fn cut(path: &Path, offset: u64, bytes: u64) -> io::Result<()> {
    let aside = path.with_extension("log.torn");
    let mut file = private().open(path)?;
    let kept_in = match keep(&mut file, offset, bytes, &aside) {
        Ok(()) => aside.display().to_string(),
        Err(cause) => format!("nothing: {cause}"),
    };
    file.set_len(offset)?;
    file.sync_all()?;
    tracing::warn!(
        file = %path.display(), offset, bytes, kept_in,
        "the last write was cut off by a crash before it was acknowledged, and is dropped",
    );
    Ok(())
}

fn keep(file: &mut fs::File, offset: u64, bytes: u64, aside: &Path) -> io::Result<()> {
    let mut copy = private().create(true).truncate(true).open(aside)?;
    file.seek(SeekFrom::Start(offset))?;
    io::copy(&mut file.take(bytes), &mut copy)?;
    copy.sync_all()
}

fn replay(path: &Path, map: &Map, frame: Frame) -> Result<()> {
    let damaged = |reason| damaged(path, frame.offset, map.newest(), reason);
    if frame.kind == Kind::Entries {
        return Err(damaged("an entry stands among the changes"));
    }
    if frame.revision != map.newest() {
        return Err(damaged("revisions are missing, or there twice"));
    }
    let mut batch = Batch::new(map);
    for operation in frame.operations {
        match operation {
            Operation::Put { key, value } => batch.replay(map, frame.time, key, Some(value)),
            Operation::Delete { key } => batch.replay(map, frame.time, key, None),
            Operation::Compact(revision) => batch.compact = batch.compact.max(Some(revision)),
            Operation::Entry { .. } => return Err(damaged("an entry stands among the changes")),
        }
    }
    map.apply(batch);
    Ok(())
}

fn write_snapshot(path: &Path, snapshot: &Snapshot, stop: &AtomicBool) -> io::Result<u64> {
    let header = Header::new(Content::Snapshot, snapshot.base);
    let file = private().create(true).truncate(true).open(path)?;
    let mut writer = SnapshotWriter { file, encoder: Encoder::new(header.salt), bytes: 0, synced: 0 };
    writer.write(&header.encode())?;
    for (key, stored) in &snapshot.entries {
        writer.encoder.entry(key, stored);
        if writer.encoder.len() >= SNAPSHOT_FRAME {
            writer.frame(Kind::Entries, snapshot.base, 0)?;
            if stop.load(Ordering::Relaxed) {
                return Ok(0);
            }
        }
    }
    if !writer.encoder.is_empty() {
        writer.frame(Kind::Entries, snapshot.base, 0)?;
    }
    let mut before = snapshot.base;
    for (index, record) in snapshot.history.iter().enumerate() {
        encode(&mut writer.encoder, record);
        let next = snapshot.history.get(index + 1);
        if writer.encoder.len() >= SNAPSHOT_FRAME || next.is_none_or(|next| next.time != record.time) {
            writer.frame(Kind::Changes, before, record.time)?;
            before = record.change.revision;
            if stop.load(Ordering::Relaxed) {
                return Ok(0);
            }
        }
    }
    writer.frame(Kind::End, before, 0)?;
    writer.file.sync_all()?;
    Ok(writer.bytes)
}

struct SnapshotWriter {
    file: fs::File,
    encoder: Encoder,
    bytes: u64,
    synced: u64,
}

impl SnapshotWriter {
    fn frame(&mut self, kind: Kind, revision: Revision, time: u64) -> io::Result<()> {
        let mut frame = std::mem::replace(&mut self.encoder, Encoder::new(0));
        let written = self.write(frame.finish(kind, revision, time));
        frame.clear();
        self.encoder = frame;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        if self.bytes - self.synced >= SNAPSHOT_SYNC {
            self.file.sync_data()?;
            self.synced = self.bytes;
        }
        Ok(())
    }
}

fn encode(encoder: &mut Encoder, record: &Record) {
    match &record.change.value {
        Some(value) => encoder.put(&record.change.key, value),
        None => encoder.delete(&record.change.key),
    }
}

/// What a log needs of a file, so that tests can let it fail.
pub(crate) trait Disk: Send {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
}

impl Disk for fs::File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// The end of the log, where groups are added.
pub(crate) struct Log {
    disk: Box<dyn Disk>,
    path: PathBuf,
    number: u64,
    encoder: Encoder,
    /// The end of the last group that is durable.
    end: u64,
    /// The end of the room that is there already.
    prepared: u64,
    /// Why this file is not to be written to any more.
    broken: Option<String>,
}

impl Log {
    pub fn new(disk: Box<dyn Disk>, path: PathBuf, number: u64, salt: u32, end: u64, prepared: u64) -> Self {
        Self { disk, path, number, encoder: Encoder::new(salt), end, prepared, broken: None }
    }

    fn reopen(segment: &Segment, end: End) -> Result<Self> {
        let file = private().open(&segment.path).map_err(failed_at(&segment.path))?;
        // The last group may have been read back from the kernel's memory only, and is now shown to everybody.
        file.sync_all().map_err(failed_at(&segment.path))?;
        let path = segment.path.clone();
        Ok(Self::new(Box::new(file), path, segment.number, end.salt, end.offset, end.prepared))
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// The same log on a disk with faults.
    #[cfg(test)]
    pub fn with_disk(self, disk: impl FnOnce(fs::File) -> Box<dyn Disk>) -> Self {
        let file = private().open(&self.path).expect("the log was just opened");
        Self { disk: disk(file), ..self }
    }

    /// Adds a group, and returns once it is on the disk. Answers how many bytes it took.
    ///
    /// After an error nothing of the group is in the log. If that cannot be had, the log refuses all that follows.
    pub fn append(&mut self, before: Revision, batch: &Batch) -> io::Result<u64> {
        for record in &batch.records {
            encode(&mut self.encoder, record);
        }
        if let Some(revision) = batch.compact {
            self.encoder.compact(revision);
        }
        self.write_frame(Kind::Changes, before, batch.time())
    }

    /// Marks that this is where the log was meant to end, and brings all of it to the disk.
    pub fn close(&mut self, newest: Revision) -> io::Result<()> {
        self.write_frame(Kind::End, newest, 0)?;
        self.take_back()?;
        self.disk.sync()
    }

    fn write_frame(&mut self, kind: Kind, before: Revision, time: u64) -> io::Result<u64> {
        if let Some(broken) = &self.broken {
            self.encoder.clear();
            return Err(io::Error::other(broken.clone()));
        }
        let mut encoder = std::mem::replace(&mut self.encoder, Encoder::new(0));
        let written = self.write(encoder.finish(kind, before, time));
        encoder.clear();
        self.encoder = encoder;
        written.map_err(|cause| io::Error::new(cause.kind(), format!("{}: {cause}", self.path.display())))
    }

    fn write(&mut self, frame: &mut Vec<u8>) -> io::Result<u64> {
        let bytes = frame.len() as u64;
        let grows = self.end + bytes > self.prepared;
        if grows && frame.len() <= SMALL {
            frame.resize(frame.len() + PREPARED, 0);
        }
        if let Err(mut cause) = self.disk.write_at(frame, self.end) {
            self.take_back()?;
            let prepares = frame.len() as u64 > bytes;
            frame.truncate(bytes as usize);
            // There may be room for the group, and none to prepare.
            let again = if prepares { self.disk.write_at(frame, self.end) } else { Err(cause) };
            if again.is_err() {
                cause = again.expect_err("this was just looked at");
                self.take_back()?;
                return Err(cause);
            }
        }
        if let Err(cause) = self.disk.sync() {
            // The kernel may have dropped what it could not write, and says so only once. Still, what nobody was told
            // of had better not be found later.
            let _ = self.disk.truncate(self.end);
            self.broken =
                Some(format!("a write could not be brought to the disk, and nothing is written since: {cause}"));
            return Err(cause);
        }
        let written = self.end + frame.len() as u64;
        let grown = written.saturating_sub(self.prepared);
        self.prepared = self.prepared.max(written);
        self.end += bytes;
        Ok(grown)
    }

    /// Whether the log refuses everything.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Makes a log whole again that refuses everything: reads back all that was acknowledged, writes its end again, which shares
    /// a page with what was lost, and lets the disk say that it has it.
    pub fn mend(&mut self) -> io::Result<()> {
        const PAGE: u64 = 4096;
        let unreadable = |error: Error| io::Error::other(error.to_string());
        let none = Revision(0);
        let mut reader =
            Reader::open(&self.path, none).map_err(unreadable)?.ok_or_else(|| io::Error::other("it is empty"))?;
        while reader.offset() < self.end {
            if reader.next(none).map_err(unreadable)?.is_err() {
                return Err(io::Error::other("what was acknowledged cannot be read back"));
            }
        }
        let start = self.end / PAGE * PAGE;
        let mut last = vec![0; (self.end - start) as usize];
        fs::File::open(&self.path)?.read_exact_at(&mut last, start)?;
        self.disk.truncate(self.end)?;
        self.disk.write_at(&last, start)?;
        self.disk.sync()?;
        self.prepared = self.end;
        self.broken = None;
        Ok(())
    }

    /// Removes what is behind the last group: one that was written in part, or room that was prepared.
    fn take_back(&mut self) -> io::Result<()> {
        self.prepared = self.end;
        self.disk.truncate(self.end).inspect_err(|cause| {
            self.broken = Some(format!("half a write could not be taken back, and nothing is written since: {cause}"));
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

    use super::*;
    use crate::{Expected, Key, Page, map::Write};

    /// A directory, and the map as it must be after every crash.
    struct World {
        temporary: tempfile::TempDir,
        directory: Directory,
        map: Map,
        log: Log,
    }

    fn recover(path: &Path) -> Result<(Directory, Recovered)> {
        let directory = Directory::open(path.to_owned())?;
        let recovered = directory.recover(&Settings::default(), Arc::new(SystemTime::now))?;
        Ok((directory, recovered))
    }

    fn key(number: u64) -> Key {
        format!("/{}", number % 40).into()
    }

    impl World {
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            let (directory, Recovered { map, log, .. }) = recover(temporary.path()).unwrap();
            Self { temporary, directory, map, log }
        }

        fn write(&mut self, count: u64) {
            for number in 0..count {
                let mut batch = Batch::new(&self.map);
                let key = key(number);
                let expected = self.map.get(&key).map_or(Expected::Absent, |now| Expected::At(now.revision));
                let value = Bytes::from(vec![b'x'; 50]);
                batch.write(&self.map, Write::Put { key, value, expected }).unwrap();
                self.log.append(self.map.newest(), &batch).unwrap();
                self.map.apply(batch);
            }
        }

        /// The files from before and after a compaction with writes behind it.
        fn compacted(mut self) -> (tempfile::TempDir, tempfile::TempDir, Map) {
            self.write(100);
            let before = copy(self.temporary.path());
            let moment = self.map.moment();
            self.log = self.directory.create_log(3, self.map.newest()).unwrap();
            self.write(10);
            let snapshot = self.map.unwind(moment);
            assert!(self.directory.write_snapshot(2, &snapshot, &AtomicBool::new(false)).unwrap() > 0);
            let after = copy(self.temporary.path());
            assert_eq!(names(after.path()), [name("2.snapshot"), name("3.log"), "lock".into()]);
            (before, after, self.map)
        }
    }

    fn name(short: &str) -> String {
        format!("{}{short}", "0".repeat(19))
    }

    fn names(path: &Path) -> Vec<String> {
        let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = files.collect();
        names.sort();
        names
    }

    fn copy(path: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for name in names(path) {
            fs::copy(path.join(&name), copy.path().join(&name)).unwrap();
        }
        copy
    }

    fn assert_same(map: &Map, other: &Map) {
        let (one, other) = (map.unwind(map.moment()), other.unwind(other.moment()));
        assert_eq!(one.base, other.base);
        let list = |entries: &Entries| {
            entries.iter().map(|(key, stored)| (key.clone(), stored.revision, stored.value.clone())).collect::<Vec<_>>()
        };
        assert_eq!(list(&one.entries), list(&other.entries));
        let changes = |snapshot: &Snapshot| -> Vec<_> {
            snapshot.history.iter().map(|record| (record.time, record.change.clone())).collect()
        };
        assert_eq!(changes(&one), changes(&other));
    }

    #[test]
    fn a_snapshot_and_what_follows_is_the_whole_map_with_its_history() {
        let (_, after, map) = World::new().compacted();
        let (_directory, recovered) = recover(after.path()).unwrap();
        assert_same(&recovered.map, &map);
        assert_eq!(map.list(&Page::all("")).unwrap().entries.len(), 40);
    }

    #[test]
    fn a_crash_at_any_point_of_a_compaction_loses_nothing() {
        let (before, after, map) = World::new().compacted();
        let (log, snapshot, next) = (name("1.log"), name("2.snapshot"), name("3.log"));
        let bytes = |directory: &tempfile::TempDir, name: &str| fs::read(directory.path().join(name)).unwrap();
        let whole = bytes(&after, &snapshot);
        let states: Vec<Vec<(String, Vec<u8>)>> = vec![
            // The snapshot has another name still: empty, in part, whole.
            vec![
                (log.clone(), bytes(&before, &log)),
                (name("2.snapshot.tmp"), vec![]),
                (next.clone(), bytes(&after, &next)),
            ],
            vec![
                (log.clone(), bytes(&before, &log)),
                (name("2.snapshot.tmp"), whole[..whole.len() / 2].to_vec()),
                (next.clone(), bytes(&after, &next)),
            ],
            vec![
                (log.clone(), bytes(&before, &log)),
                (name("2.snapshot.tmp"), whole.clone()),
                (next.clone(), bytes(&after, &next)),
            ],
            // It has its name, and what it replaces is there still.
            vec![
                (log.clone(), bytes(&before, &log)),
                (snapshot.clone(), whole.clone()),
                (next.clone(), bytes(&after, &next)),
            ],
            vec![(snapshot.clone(), whole.clone()), (next.clone(), bytes(&after, &next))],
        ];
        for state in states {
            let directory = tempfile::tempdir().unwrap();
            for (name, bytes) in &state {
                fs::write(directory.path().join(name), bytes).unwrap();
            }
            let (_directory, recovered) = recover(directory.path()).unwrap();
            assert_same(&recovered.map, &map);
            assert!(!names(directory.path()).iter().any(|name| name.ends_with("tmp")));
        }
    }

    #[test]
    fn a_crash_while_a_segment_is_made_loses_nothing() {
        for header in [vec![], vec![0; 64], b"OneX".to_vec()] {
            let mut world = World::new();
            world.write(50);
            let directory = copy(world.temporary.path());
            fs::write(directory.path().join(name("3.log")), header).unwrap();
            let (directory_again, mut recovered) = recover(directory.path()).unwrap();
            assert_same(&recovered.map, &world.map);
            let mut batch = Batch::new(&recovered.map);
            let write = Write::Put { key: "/new".into(), value: "x".into(), expected: Expected::Absent };
            batch.write(&recovered.map, write).unwrap();
            recovered.log.append(recovered.map.newest(), &batch).unwrap();
            drop((directory_again, recovered));
            let (_directory, recovered) = recover(directory.path()).unwrap();
            assert!(recovered.map.get(&"/new".into()).is_some());
        }
    }

    #[test]
    fn a_snapshot_that_is_cut_or_flipped_anywhere_is_damage() {
        let (_, after, _) = World::new().compacted();
        let path = after.path().join(name("2.snapshot"));
        let whole = fs::read(&path).unwrap();
        for offset in (0..whole.len()).step_by(29) {
            let mut flipped = whole.clone();
            flipped[offset] ^= 1;
            for broken in [&flipped[..], &whole[..offset]] {
                fs::write(&path, broken).unwrap();
                let refused = recover(after.path()).err();
                assert!(
                    matches!(&refused, Some(Error::Damaged { file, .. }) if *file == path),
                    "{offset}: {refused:?}"
                );
            }
        }
    }

    #[test]
    fn a_log_that_lost_its_header_is_damage() {
        let mut world = World::new();
        world.write(10);
        let path = world.directory.name(1, Content::Log);
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&[0; 512]).unwrap();
        let directory = copy(world.temporary.path());
        assert!(matches!(recover(directory.path()), Err(Error::Damaged { offset: 0, .. })));
    }

    #[test]
    fn a_segment_that_is_missing_is_damage() {
        for missing in ["1.log", "3.log"] {
            let mut world = World::new();
            world.write(10);
            world.log = world.directory.create_log(3, world.map.newest()).unwrap();
            world.write(10);
            world.log = world.directory.create_log(5, world.map.newest()).unwrap();
            world.write(10);
            let directory = copy(world.temporary.path());
            fs::remove_file(directory.path().join(name(missing))).unwrap();
            assert!(matches!(recover(directory.path()), Err(Error::Damaged { offset: 0, .. })));
        }
    }

    #[test]
    fn whatever_is_written_over_a_log_nothing_is_served_that_was_not_written() {
        let mut world = World::new();
        world.write(19);
        let last = world.log.end as usize;
        world.write(1);
        let path = world.directory.name(1, Content::Log);
        let (whole, end) = (fs::read(&path).unwrap(), world.log.end as usize);
        let written = world.map.unwind(world.map.moment()).history;
        let garbage = prop_oneof![vec(any::<u8>(), 1..1500), (1..1500_usize).prop_map(|bytes| vec![0; bytes])];
        let mut runner = TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
        let outcome = runner.run(&(0..end + 500, garbage), |(at, garbage)| {
            let mut bytes = whole.clone();
            bytes[at..at + garbage.len()].copy_from_slice(&garbage);
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(name("1.log")), bytes).unwrap();
            let (_directory, recovered) = match recover(directory.path()) {
                Ok(recovered) => recovered,
                Err(Error::Damaged { .. }) => return Ok(()),
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            };
            let read = recovered.map.unwind(recovered.map.moment()).history;
            for (read, written) in read.iter().zip(&written) {
                prop_assert_eq!(&read.change, &written.change);
            }
            // Only the last write passes for torn. Zeros that reach into it pass for more: they are as a last write of many
            // sectors, of which only the end came to the disk.
            let is_end_wiped = at + garbage.len() > last && garbage.iter().all(|byte| *byte == 0);
            prop_assert!(read.len() >= 19 || is_end_wiped);
            Ok(())
        });
        outcome.unwrap();
    }

    #[test]
    fn a_torn_frame_with_another_log_behind_it_is_damage() {
        let mut world = World::new();
        world.write(10);
        let first = world.directory.name(1, Content::Log);
        let end = world.log.end;
        world.log = world.directory.create_log(3, world.map.newest()).unwrap();
        world.write(1);
        fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(end - 10).unwrap();
        let directory = copy(world.temporary.path());
        let refused = recover(directory.path()).err();
        assert!(matches!(refused, Some(Error::Damaged { last_good: Revision(9), .. })), "{refused:?}");
    }
}
