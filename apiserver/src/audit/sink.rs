//! Where events go: a file that is rotated, and the platform's own log.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use onex_audit::{AuditLog, Record};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};

use super::Settings;

/// So many events may wait for the disk.
const QUEUE: usize = 10_000;
/// Room in the queue is counted in pieces of so many bytes.
const PIECE: usize = 1024;
/// A group is closed once it has so many events.
const GROUP: usize = 512;

/// The way to the thread that writes.
pub struct Sink {
    queue: mpsc::Sender<Entry>,
    room: Arc<Semaphore>,
    pieces: u32,
    /// What became of the events.
    pub counts: Arc<Counts>,
}

/// What became of the events.
#[derive(Default)]
pub struct Counts {
    /// So many were written.
    pub written: AtomicU64,
    /// So many were not, as the queue was full.
    pub dropped: AtomicU64,
    /// So many were not, as writing failed.
    pub failed: AtomicU64,
}

struct Entry {
    line: Vec<u8>,
    record: Option<Record>,
    answer: Option<oneshot::Sender<Result<(), String>>>,
    _room: OwnedSemaphorePermit,
}

impl Sink {
    /// Starts the thread. It ends once this is dropped and what was handed in is written.
    ///
    /// # Errors
    /// When the log file cannot be written.
    pub fn start(settings: &Settings, platform: Option<Arc<dyn AuditLog>>) -> std::io::Result<Self> {
        let file = match settings.log_file.as_str() {
            "" => None,
            path => Some(LogFile::open(Path::new(path), settings)?),
        };
        let (queue, entries) = mpsc::channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let writer =
            Writer { file, platform, durable: settings.wait, counts: counts.clone(), handle: Handle::current() };
        thread::Builder::new().name("audit".into()).spawn(move || writer.run(entries))?;
        let pieces = u32::try_from(settings.queue_bytes / PIECE).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        Ok(Self { queue, room: Arc::new(Semaphore::new(pieces as usize)), pieces, counts })
    }

    fn pieces(&self, line: &[u8]) -> u32 {
        // One event that is larger than the whole queue takes all of it.
        u32::try_from(line.len() / PIECE + 1).unwrap_or(u32::MAX).min(self.pieces)
    }

    /// Hands an event in without waiting. When there is no room it is dropped, and counted.
    pub fn offer(&self, line: Vec<u8>, record: Option<Record>) {
        let room = self.room.clone().try_acquire_many_owned(self.pieces(&line));
        let sent = room.ok().map(|room| self.queue.try_send(Entry { line, record, answer: None, _room: room }));
        if !matches!(sent, Some(Ok(()))) && self.counts.dropped.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
            tracing::error!("events of the audit log are dropped: they come faster than they can be written");
        }
    }

    /// Hands an event in, and waits until it is on disk.
    pub async fn write(&self, line: Vec<u8>, record: Option<Record>) -> Result<(), String> {
        let gone = |_| "the audit log is not written any more".to_owned();
        let room = self.room.clone().acquire_many_owned(self.pieces(&line)).await.map_err(|why| why.to_string())?;
        let (answer, answered) = oneshot::channel();
        let entry = Entry { line, record, answer: Some(answer), _room: room };
        self.queue.send(entry).await.map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))?
    }
}

struct Writer {
    file: Option<LogFile>,
    platform: Option<Arc<dyn AuditLog>>,
    durable: bool,
    counts: Arc<Counts>,
    handle: Handle,
}

impl Writer {
    fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        let mut group = Vec::new();
        while self.handle.block_on(entries.recv_many(&mut group, GROUP)) > 0 {
            let written = self.write(&mut group);
            let count = group.len() as u64;
            match &written {
                Ok(()) => self.counts.written.fetch_add(count, Ordering::Relaxed),
                Err(why) => {
                    tracing::error!(%why, "events of the audit log could not be written");
                    self.counts.failed.fetch_add(count, Ordering::Relaxed)
                }
            };
            for answer in group.drain(..).filter_map(|entry| entry.answer) {
                let _ = answer.send(written.clone()); // a client that left is not told
            }
        }
    }

    fn write(&mut self, group: &mut [Entry]) -> Result<(), String> {
        if let Some(file) = &mut self.file {
            let lines: Vec<u8> = group.iter().flat_map(|entry| entry.line.iter().copied()).collect();
            file.write(&lines, self.durable).map_err(|why| why.to_string())?;
        }
        let records: Vec<Record> = group.iter_mut().filter_map(|entry| entry.record.take()).collect();
        if let Some(platform) = self.platform.as_ref().filter(|_| !records.is_empty()) {
            self.handle.block_on(platform.append(&records)).map_err(|why| why.to_string())?;
        }
        Ok(())
    }
}

/// A file that is put aside when it is long enough.
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    most_bytes: u64,
    backups: usize,
}

impl LogFile {
    fn open(path: &Path, settings: &Settings) -> std::io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        let (most_bytes, backups) = (settings.log_bytes, settings.log_backups);
        Ok(Self { path: path.to_owned(), file, bytes, most_bytes, backups })
    }

    fn write(&mut self, lines: &[u8], durable: bool) -> std::io::Result<()> {
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.most_bytes {
            self.put_aside()?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        if durable { self.file.sync_data() } else { Ok(()) }
    }

    /// `audit.log` becomes `audit-2026-01-02T03-04-05.678901.log`, and the oldest of those go.
    fn put_aside(&mut self) -> std::io::Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.6f").to_string();
        let (stem, end) = self.name();
        fs::rename(&self.path, self.path.with_file_name(format!("{stem}-{now}{end}")))?;
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        let mut aside = self.aside()?;
        aside.sort(); // by time, as their names are
        let many = aside.len().saturating_sub(self.backups);
        aside.iter().take(many).try_for_each(fs::remove_file)
    }

    fn name(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let end = self.path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
        (text(self.path.file_stem()), end)
    }

    fn aside(&self) -> std::io::Result<Vec<PathBuf>> {
        let directory = self.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (stem, end) = self.name();
        let is_aside = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let middle = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&end));
            middle.is_some_and(|time| time.len() == 26 && time.starts_with("20"))
        };
        let entries = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
        Ok(entries.collect::<std::io::Result<Vec<_>>>()?.into_iter().filter(is_aside).collect())
    }
}

fn append_to(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_put_aside_and_the_oldest_of_those_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs").join("audit.log");
        let settings =
            Settings { log_file: path.display().to_string(), log_bytes: 10, log_backups: 2, ..Settings::default() };
        let mut file = LogFile::open(&path, &settings).unwrap();
        fs::write(path.with_file_name("audit-notes.log"), "mine").unwrap();
        for number in 0..5 {
            file.write(format!("line {number}\n").as_bytes(), false).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 4\n");
        let mut aside = file.aside().unwrap();
        aside.sort();
        let texts: Vec<String> = aside.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(texts, ["line 2\n", "line 3\n"]);
        assert!(path.with_file_name("audit-notes.log").exists());
    }
}
