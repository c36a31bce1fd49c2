//! What containers print, kept bounded and readable while it is written.
//!
//! Each run of a container has its own log: a file, and when that is full a second one with what came before; older lines are
//! gone. The logs of the current and of the previous run are kept. A line on disk is `TIME F TEXT`, or `TIME P TEXT`
//! for a piece of a line that is too long to be kept whole.

mod read;

pub(crate) use read::{Request, read};

use jiff::Timestamp;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

/// The longest piece of a line that is kept in one.
const LINE_BYTES: usize = 16 << 10;

/// How much is taken from a pipe at once. Every running container holds two of these.
const PIPE_BYTES: usize = 4 << 10;

/// Where the writer stands. A reader that saw it knows whether there is more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    /// How often the file was replaced.
    generation: u64,
    written: u64,
    ended: bool,
}

/// The log of one run of a container.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    limit: u64,
    file: Mutex<Option<File>>,
    length: Mutex<u64>,
    progress: watch::Sender<Progress>,
}

impl Log {
    /// A new log at `path`, of at most two files of `limit` bytes.
    fn create(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = File::create(&path)?;
        Ok(Self {
            path,
            limit,
            file: Mutex::new(Some(file)),
            length: Mutex::new(0),
            progress: watch::Sender::new(Progress::default()),
        })
    }

    /// The log of a run that ended before the node was started.
    fn of_the_past(path: PathBuf) -> Self {
        let ended = Progress { ended: true, ..Progress::default() };
        Self { path, limit: 0, file: Mutex::new(None), length: Mutex::new(0), progress: watch::Sender::new(ended) }
    }

    /// Adds a line, or a piece of one.
    pub(crate) fn write(&self, text: &[u8], whole: bool, now: Timestamp) -> io::Result<()> {
        let mut line = format!("{now:.9} {} ", if whole { 'F' } else { 'P' }).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        let mut open = self.file.lock();
        let mut length = self.length.lock();
        let Some(file) = open.as_mut() else {
            return Ok(()); // ended: a grandchild that kept the pipe is not listened to
        };
        let mut replaced = 0;
        if *length > 0 && *length + line.len() as u64 > self.limit {
            match fs::rename(&self.path, before(&self.path)) {
                // The file was put aside the last time, and then no new one could be made.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            *file = File::create(&self.path)?;
            *length = 0;
            replaced = 1;
        }
        file.write_all(&line)?;
        *length += line.len() as u64;
        self.progress.send_modify(|progress| {
            progress.generation += replaced;
            progress.written += line.len() as u64;
        });
        Ok(())
    }

    /// Nothing more will be written; whoever follows the log reaches its end.
    pub(crate) fn end(&self) {
        *self.file.lock() = None;
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// Opens every file that is newer than `generation`, oldest first, with the generation of the last.
    fn open_after(&self, generation: Option<u64>) -> io::Result<(Vec<File>, u64)> {
        let writing = self.file.lock(); // so that the files are not replaced meanwhile
        let current = self.progress.borrow().generation;
        let mut files = Vec::new();
        let missed = generation.map_or(2, |seen| current.saturating_sub(seen));
        for (path, age) in [(before(&self.path), 2), (self.path.clone(), 1)] {
            match File::open(path) {
                Ok(file) if missed >= age => files.push(file),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        drop(writing);
        Ok((files, current))
    }
}

/// Where the lines before those in `path` are.
fn before(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Copies what a process prints into its log, line by line, until the process closes its end.
pub(crate) async fn capture(output: impl AsyncRead + Unpin, log: Arc<Log>) {
    let mut output = BufReader::with_capacity(PIPE_BYTES, output);
    let mut line = Vec::new();
    loop {
        let available = match output.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(available) => available,
        };
        let now = Timestamp::now();
        let room = LINE_BYTES - line.len();
        let (taken, end) = match available.iter().take(room).position(|byte| *byte == b'\n') {
            Some(at) => (at, true),
            None => (available.len().min(room), false),
        };
        line.extend_from_slice(&available[..taken]);
        output.consume(taken + usize::from(end));
        if end || line.len() == LINE_BYTES {
            keep(&log, &line, end, now);
            line.clear();
        }
    }
    if !line.is_empty() {
        keep(&log, &line, true, Timestamp::now());
    }
}

/// A full disk must not stop the process that prints, so its lines are lost instead.
fn keep(log: &Log, line: &[u8], whole: bool, now: Timestamp) {
    if let Err(error) = log.write(line, whole, now) {
        tracing::debug!(%error, path = %log.path.display(), "lost a line of a container's log");
    }
}

/// The logs of one container: of this run and of the one before.
#[derive(Debug)]
pub(crate) struct ContainerLogs {
    directory: PathBuf,
    limit: u64,
    runs: Mutex<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    next: u64,
    current: Option<Arc<Log>>,
    previous: Option<Arc<Log>>,
}

impl ContainerLogs {
    /// The logs under `directory`, with what an earlier run of the node left there.
    pub(crate) fn open(directory: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let mut numbers: Vec<u64> = fs::read_dir(&directory)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        // A node that was killed between making a log and removing the oldest leaves three.
        let surplus = numbers.len().saturating_sub(2);
        numbers.drain(..surplus).for_each(|number| remove(&file(&directory, number)));
        let mut past = numbers.iter().rev().map(|number| Arc::new(Log::of_the_past(file(&directory, *number))));
        let runs =
            Runs { next: numbers.last().map_or(0, |last| last + 1), current: past.next(), previous: past.next() };
        drop(past);
        Ok(Self { directory, limit, runs: Mutex::new(runs) })
    }

    /// The log for a new run. What was current becomes the previous one, and what was previous is removed.
    pub(crate) fn begin(&self) -> io::Result<Arc<Log>> {
        let mut runs = self.runs.lock();
        let log = Arc::new(Log::create(file(&self.directory, runs.next), self.limit)?);
        runs.next += 1;
        if let Some(old) = runs.previous.take() {
            remove(&old.path);
        }
        runs.previous = runs.current.replace(Arc::clone(&log));
        Ok(log)
    }

    pub(crate) fn current(&self) -> Option<Arc<Log>> {
        self.runs.lock().current.clone()
    }

    pub(crate) fn previous(&self) -> Option<Arc<Log>> {
        self.runs.lock().previous.clone()
    }

    /// The last lines of the current run, for a message about its end.
    pub(crate) fn last_words(&self, bytes: usize) -> Option<String> {
        let log = self.current()?;
        let text = read::plain(&fs::read(&log.path).ok()?);
        let start = text.len().saturating_sub(bytes);
        let text = String::from_utf8_lossy(&text[start..]).into_owned();
        Some(text).filter(|text| !text.is_empty())
    }
}

/// Removes both files of a log. What cannot be removed is tried again when the next run of the node opens the logs.
fn remove(path: &Path) {
    let _ = fs::remove_file(before(path));
    let _ = fs::remove_file(path);
}

fn file(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use std::time::Duration;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn logs(limit: u64) -> (tempfile::TempDir, ContainerLogs) {
        let directory = tempfile::tempdir().unwrap();
        let logs = ContainerLogs::open(directory.path().join("c"), limit).unwrap();
        (directory, logs)
    }

    fn with_lines(limit: u64, count: i64) -> (tempfile::TempDir, Arc<Log>) {
        let (directory, logs) = logs(limit);
        let log = logs.begin().unwrap();
        for n in 0..count {
            log.write(format!("line {n}").as_bytes(), true, time(n)).unwrap();
        }
        log.end();
        (directory, log)
    }

    async fn text(log: &Arc<Log>, request: Request) -> String {
        let pieces: Vec<_> = read(Arc::clone(log), request).collect().await;
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    }

    fn lines(numbers: impl IntoIterator<Item = i64>) -> String {
        numbers.into_iter().map(|n| format!("line {n}\n")).collect()
    }

    #[tokio::test]
    async fn a_log_is_read_as_it_was_written() {
        let (_directory, log) = with_lines(1 << 20, 5);
        assert_eq!(text(&log, Request::default()).await, lines(0..5));
    }

    #[tokio::test]
    async fn a_part_of_a_log_can_be_asked_for() {
        let (_directory, log) = with_lines(1 << 20, 10);
        let tail = |lines| Request { tail_lines: Some(lines), ..Request::default() };
        for (request, expected) in [
            (tail(3), lines(7..10)),
            (tail(0), String::new()),
            (tail(10), lines(0..10)),
            (tail(99), lines(0..10)),
            (Request { since: Some(time(8)), ..Request::default() }, lines(8..10)),
            (Request { limit_bytes: Some(10), ..Request::default() }, "line 0\nlin".to_owned()),
            (Request { timestamps: true, ..tail(1) }, "2023-11-14T22:13:29.000000000Z line 9\n".to_owned()),
        ] {
            assert_eq!(text(&log, request).await, expected, "{request:?}");
        }
    }

    #[tokio::test]
    async fn a_log_never_grows_beyond_two_files_and_keeps_the_newest_lines() {
        let (directory, log) = with_lines(200, 100);
        let size: u64 = fs::read_dir(directory.path().join("c"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size <= 400, "{size}");
        let kept = text(&log, Request::default()).await;
        assert!(kept.ends_with(&lines(95..100)), "{kept}");
        let request = Request { tail_lines: Some(6), ..Request::default() };
        assert_eq!(text(&log, request).await, lines(94..100));
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_until_the_end_across_files() {
        let (_directory, logs) = logs(4000);
        let log = logs.begin().unwrap();
        let request = Request { follow: true, ..Request::default() };
        let reader = tokio::spawn({
            let log = Arc::clone(&log);
            async move { text(&log, request).await }
        });
        for n in 0..300 {
            log.write(format!("line {n}").as_bytes(), true, time(n)).unwrap();
            if n % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        log.end();
        assert_eq!(reader.await.unwrap(), lines(0..300));
    }

    #[tokio::test]
    async fn a_long_line_is_kept_in_pieces_and_read_whole() {
        let (_directory, logs) = logs(1 << 20);
        let log = logs.begin().unwrap();
        let printed = format!("{}\nshort\nlast", "x".repeat(40_000));
        capture(printed.as_bytes(), Arc::clone(&log)).await;
        log.end();
        assert_eq!(text(&log, Request::default()).await, printed + "\n");
    }

    #[tokio::test]
    async fn the_run_before_is_kept_and_older_ones_are_not() {
        let (directory, logs) = logs(1 << 20);
        for run in 0..3 {
            logs.begin().unwrap().write(format!("line {run}").as_bytes(), true, time(0)).unwrap();
        }
        assert_eq!(text(&logs.current().unwrap(), Request::default()).await, lines([2]));
        assert_eq!(text(&logs.previous().unwrap(), Request::default()).await, lines([1]));
        assert_eq!(fs::read_dir(directory.path().join("c")).unwrap().count(), 2);
        let reopened = ContainerLogs::open(directory.path().join("c"), 1 << 20).unwrap();
        let log = reopened.begin().unwrap();
        log.write(b"line 3", true, time(0)).unwrap();
        assert_eq!(text(&reopened.previous().unwrap(), Request::default()).await, lines([2]));
    }

    #[tokio::test]
    async fn a_log_that_could_not_get_a_new_file_goes_on_when_it_can() {
        let (_directory, logs) = logs(200);
        let log = logs.begin().unwrap();
        for n in 0..3 {
            log.write(format!("line {n}").as_bytes(), true, time(n)).unwrap();
        }
        // As it is after the full file was put aside and no file could be made, for want of descriptors for example.
        fs::rename(&log.path, before(&log.path)).unwrap();
        for n in 3..9 {
            log.write(format!("line {n}").as_bytes(), true, time(n)).unwrap();
        }
        log.end();
        assert!(text(&log, Request::default()).await.ends_with(&lines(6..9)));
    }

    #[test]
    fn of_a_node_that_was_killed_while_it_changed_logs_two_logs_are_kept() {
        let (directory, logs) = logs(1 << 20);
        logs.begin().unwrap();
        logs.begin().unwrap();
        let container = directory.path().join("c");
        for left in ["2.log", "0.log.1"] {
            fs::write(container.join(left), "").unwrap();
        }
        ContainerLogs::open(container.clone(), 1 << 20).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(container).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["1.log", "2.log"]);
    }

    #[test]
    fn the_last_words_are_what_was_printed_and_not_how_it_is_kept() {
        let (_directory, logs) = logs(1 << 20);
        let log = logs.begin().unwrap();
        log.write(b"panic: no ", false, time(0)).unwrap();
        log.write(b"chain", true, time(0)).unwrap();
        assert_eq!(logs.last_words(2048).unwrap(), "panic: no chain\n");
        assert_eq!(logs.last_words(6).unwrap(), "chain\n");
    }
}
