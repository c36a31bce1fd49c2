//! The log that survives.
//!
//! One thread writes: it takes all appends that wait, writes them as one, waits for the disk once, and answers.

use std::{
    collections::BTreeMap,
    fs::{self, File as Handle, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    AuditLog, Batch, Error, Position, Record, Result, Settings, hold_reader, line,
    segment::{self, Cursor, Segment, Tail},
    unavailable,
};

/// A group is closed once it has so many bytes.
const GROUP_BYTES: usize = 4 << 20;

/// A log in a directory. What was acknowledged survives the process and the machine.
pub struct File {
    shared: Arc<Shared>,
    /// Taken by `drop`, to let the writer end.
    queue: Option<mpsc::Sender<Append>>,
    writer: Option<thread::JoinHandle<()>>,
    /// Held as long as the log is open.
    _lock: Handle,
}

struct Append {
    lines: Vec<u8>,
    count: u64,
    answer: oneshot::Sender<Result<()>>,
}

struct Shared {
    directory: PathBuf,
    keep_bytes: u64,
    segment_bytes: u64,
    /// The files, oldest first, with what is durable of them.
    segments: Mutex<Vec<Segment>>,
    /// What each reader has committed, and where it was last.
    readers: Mutex<BTreeMap<String, Reader>>,
    /// How many records there have ever been.
    grown: watch::Sender<u64>,
}

#[derive(Clone, Copy, Default)]
struct Reader {
    committed: u64,
    cursor: Option<Cursor>,
}

impl File {
    /// Opens a directory, making it if need be. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Locked`] if it is open already, [`Error::Unavailable`] when it cannot be read or written.
    pub async fn open(directory: impl Into<PathBuf>, settings: &Settings) -> Result<Self> {
        let (directory, settings) = (directory.into(), settings.clone());
        tokio::task::spawn_blocking(move || Self::start(directory, &settings)).await.map_err(unavailable)?
    }

    fn start(directory: PathBuf, settings: &Settings) -> Result<Self> {
        fs::create_dir_all(directory.join("readers")).map_err(unavailable)?;
        let lock = lock(&directory)?;
        let mut segments = segment::all(&directory).map_err(unavailable)?;
        if segments.is_empty() {
            segments.push(Segment { first: 0, bytes: 0 });
            Tail::open(&directory, segments[0]).map_err(unavailable)?;
        }
        let newest = segments.last_mut().expect("one was just made");
        let count = segment::recover(&directory, newest).map_err(unavailable)?;
        let (end, tail) = (newest.first + count, Tail::open(&directory, *newest).map_err(unavailable)?);
        let readers = readers(&directory)?;
        let shared = Arc::new(Shared {
            directory,
            keep_bytes: settings.keep_bytes,
            segment_bytes: settings.segment_bytes,
            segments: Mutex::new(segments),
            readers: Mutex::new(readers),
            grown: watch::Sender::new(end),
        });
        let (queue, appends) = mpsc::channel(settings.queue_appends.max(1));
        let writer = Writer { shared: shared.clone(), tail, end };
        let writer = thread::Builder::new().name("audit writer".into()).spawn(move || writer.run(appends));
        Ok(Self { shared, queue: Some(queue), writer: Some(writer.map_err(unavailable)?), _lock: lock })
    }
}

fn lock(directory: &Path) -> Result<Handle> {
    let lock = Handle::create(directory.join("lock")).map_err(unavailable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(directory.to_owned())),
        Err(TryLockError::Error(cause)) => Err(unavailable(cause)),
    }
}

fn readers(directory: &Path) -> Result<BTreeMap<String, Reader>> {
    let mut readers = BTreeMap::new();
    for entry in fs::read_dir(directory.join("readers")).map_err(unavailable)? {
        let path = entry.map_err(unavailable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if hold_reader(&name).is_err() {
            continue; // a commit that a crash cut off before it had its name
        }
        let text = fs::read_to_string(&path).map_err(unavailable)?;
        let wrong = || Error::Damaged { path: path.clone(), why: format!("{text:?} is no position") };
        let committed = text.trim().parse().map_err(|_| wrong())?;
        readers.insert(name, Reader { committed, cursor: None });
    }
    Ok(readers)
}

impl Drop for File {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // what it had in hand is on disk then
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    tail: Tail,
    end: u64,
}

impl Writer {
    fn run(mut self, mut appends: mpsc::Receiver<Append>) {
        while let Some(first) = appends.blocking_recv() {
            let mut group = vec![first];
            let mut bytes = group[0].lines.len();
            while bytes < GROUP_BYTES
                && let Ok(next) = appends.try_recv()
            {
                bytes += next.lines.len();
                group.push(next);
            }
            let written = self.write(&group);
            for append in group {
                let outcome = written.as_ref().copied().map_err(|why| unavailable(why.clone()));
                let _ = append.answer.send(outcome); // who gave up waiting is not told
            }
        }
    }

    fn write(&mut self, group: &[Append]) -> Result<(), String> {
        let lines: Vec<u8> = group.iter().flat_map(|append| append.lines.iter().copied()).collect();
        self.tail.append(&lines).map_err(|why| why.to_string())?;
        self.end += group.iter().map(|append| append.count).sum::<u64>();
        if let Some(newest) = self.shared.segments.lock().last_mut() {
            *newest = self.tail.segment;
        }
        self.shared.grown.send_replace(self.end);
        if self.tail.segment.bytes >= self.shared.segment_bytes {
            // The records are safe: what fails now is tried again with the next group.
            if let Err(error) = self.roll() {
                tracing::warn!(%error, "the audit log could not begin a new file");
            }
        }
        Ok(())
    }

    fn roll(&mut self) -> std::io::Result<()> {
        let next = Segment { first: self.end, bytes: 0 };
        self.tail = Tail::open(&self.shared.directory, next)?;
        self.shared.segments.lock().push(next);
        self.shared.forget()
    }
}

impl Shared {
    /// Removes the oldest files while there is too much, unless a reader needs them.
    fn forget(&self) -> std::io::Result<()> {
        let committed = self.readers.lock().values().map(|reader| reader.committed).filter(|c| *c > 0).min();
        let needed = committed.unwrap_or(u64::MAX);
        loop {
            let mut segments = self.segments.lock();
            let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
            let [oldest, next, ..] = segments.as_slice() else { return Ok(()) };
            if bytes <= self.keep_bytes || next.first > needed {
                return Ok(());
            }
            let path = oldest.path(&self.directory);
            segments.remove(0);
            drop(segments);
            fs::remove_file(path)?;
        }
    }

    fn read(&self, reader: &str, most: usize) -> Result<Option<Batch>> {
        let known = self.readers.lock().get(reader).copied().unwrap_or_default();
        let (from, records, cursor) = loop {
            let segments = self.segments.lock().clone();
            let from = known.committed.max(segments.first().map_or(0, |oldest| oldest.first));
            let Some(holds) = segments.iter().rposition(|segment| segment.first <= from) else { return Ok(None) };
            match segment::read(&self.directory, segments[holds], from, most, known.cursor) {
                Ok((records, cursor)) => break (from, records, cursor),
                // It may have been forgotten meanwhile, for a reader that has never committed.
                Err(_) if self.segments.lock().first() != segments.first() => {}
                Err(error) => return Err(error),
            }
        };
        if records.is_empty() {
            return Ok(None);
        }
        let next = Position(from + records.len() as u64);
        self.readers.lock().entry(reader.to_owned()).or_default().cursor = Some(cursor);
        Ok(Some(Batch { records, next }))
    }

    fn commit(&self, reader: &str, position: Position) -> Result<()> {
        let committed = self.readers.lock().get(reader).map_or(0, |reader| reader.committed);
        let position = position.0.min(*self.grown.borrow());
        if position <= committed && committed > 0 {
            return Ok(());
        }
        let directory = self.directory.join("readers");
        let unfinished = directory.join(format!("{reader}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = Handle::create(&unfinished)?;
            file.write_all(position.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, directory.join(reader))?;
            Handle::open(&directory)?.sync_all()
        };
        write().map_err(unavailable)?;
        self.readers.lock().entry(reader.to_owned()).or_default().committed = position;
        Ok(())
    }
}

#[async_trait]
impl AuditLog for File {
    async fn append(&self, records: &[Record]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let lines = records.iter().map(line).collect::<Result<Vec<_>>>()?.concat();
        let (answer, answered) = oneshot::channel();
        let append = Append { lines, count: records.len() as u64, answer };
        let queue = self.queue.as_ref().expect("the queue is taken only by drop");
        queue.send(append).await.map_err(|_| unavailable("its writer has stopped"))?;
        answered.await.map_err(|_| unavailable("its writer has stopped"))?
    }

    async fn read(&self, reader: &str, most: usize) -> Result<Batch> {
        hold_reader(reader)?;
        let mut grown = self.shared.grown.subscribe();
        loop {
            grown.mark_unchanged();
            let (shared, reader) = (self.shared.clone(), reader.to_owned());
            let read = tokio::task::spawn_blocking(move || shared.read(&reader, most.max(1)));
            if let Some(batch) = read.await.map_err(unavailable)?? {
                return Ok(batch);
            }
            grown.changed().await.map_err(unavailable)?;
        }
    }

    async fn commit(&self, reader: &str, position: Position) -> Result<()> {
        hold_reader(reader)?;
        let (shared, reader) = (self.shared.clone(), reader.to_owned());
        tokio::task::spawn_blocking(move || shared.commit(&reader, position)).await.map_err(unavailable)?
    }
}
