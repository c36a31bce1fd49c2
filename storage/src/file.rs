//! The storage that survives: the map, and a log below it.
//!
//! Step 5 of `kubectl apply`. One thread writes. It takes all writes that wait, decides them, appends those that may
//! happen to the log as one group, waits for the disk once, applies the group to the map, and answers. While the disk
//! works, the next group gathers.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Changes, Clock, Entry, Error, Expected, Key, Listing, Page, Prefix, Result, Revision, Settings, Storage,
    map::{Batch, Map, Write, check, trim_now_and_then},
    segments::{Directory, Log, Recovered},
};

/// A group is closed once its values have so many bytes.
const GROUP_BYTES: usize = 4 << 20;

/// A group is closed once it has so many writes, so that none waits long for the deciding of others.
const GROUP_WRITES: usize = 1024;

/// A group of so many writes is a sign of more to come.
const COMPANY: usize = 4;

/// So long the next one waits for them: a sync costs the same for one write and for many. Who writes alone does not wait.
const MOMENT: Duration = Duration::from_micros(150);

/// So long after the disk lost a write it is looked whether it is well again.
const MEND_AFTER: Duration = Duration::from_millis(500);

/// A storage in a directory.
///
/// What was acknowledged survives the process and the machine. Dropping it waits for the group in hand.
pub struct File {
    map: Arc<Map>,
    /// Taken by `drop`, to let the writer end.
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<thread::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// The last group could be stored.
    is_well: Arc<AtomicBool>,
}

struct Request {
    write: Write,
    answer: oneshot::Sender<Result<Revision>>,
}

impl File {
    /// Opens a directory, making it if need be. Must be called inside a tokio runtime.
    ///
    /// Fails with [`Error::Locked`] if it is open already, and with [`Error::Damaged`] rather than serve a part.
    pub async fn open(directory: impl Into<PathBuf>, settings: &Settings, clock: Clock) -> Result<Self> {
        let (path, settings) = (directory.into(), settings.clone());
        let opening = tokio::task::spawn_blocking(move || Self::start(path, &settings, clock));
        let storage = opening.await.map_err(|cause| Error::Unavailable(Box::new(cause)))??;
        trim_now_and_then(&storage.map);
        Ok(storage)
    }

    fn start(path: PathBuf, settings: &Settings, clock: Clock) -> Result<Self> {
        let directory = Directory::open(path)?;
        let recovered = directory.recover(settings, clock)?;
        Self::begin(directory, recovered, settings)
    }

    fn begin(directory: Directory, recovered: Recovered, settings: &Settings) -> Result<Self> {
        let Recovered { map, log, bytes } = recovered;
        let (map, stop) = (Arc::new(map), Arc::new(AtomicBool::new(false)));
        let is_well = Arc::new(AtomicBool::new(true));
        let (queue, requests) = mpsc::channel(settings.queue_writes.max(1));
        let writer = Writer {
            map: map.clone(),
            directory: Arc::new(directory),
            log,
            bytes,
            garbage_bytes: settings.garbage_bytes,
            retry_above: 0,
            compaction: None,
            stop: stop.clone(),
            is_well: is_well.clone(),
            ill_since: None,
            company: 0,
        };
        let writer = thread::Builder::new().name("storage writer".into()).spawn(move || writer.run(requests));
        let writer = writer.map_err(|cause| Error::Unavailable(Box::new(cause)))?;
        Ok(Self { map, queue: Some(queue), writer: Some(writer), stop, is_well })
    }

    async fn write(&self, write: Write) -> Result<Revision> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().expect("the queue is taken only by drop");
        queue.send(Request { write, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn stopped() -> Error {
    Error::Unavailable("the writer of the log has stopped".into())
}

#[async_trait]
impl Storage for File {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.map.get(key))
    }

    async fn list(&self, page: Page) -> Result<Listing> {
        self.map.list(&page)
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected) -> Result<Revision> {
        check(key, &value)?;
        self.write(Write::Put { key: key.clone(), value, expected }).await
    }

    async fn delete(&self, key: &Key, expected: Revision) -> Result<Revision> {
        self.write(Write::Delete { key: key.clone(), expected }).await
    }

    async fn watch(&self, prefix: &Prefix, since: Revision) -> Result<Changes> {
        self.map.watch(prefix, since)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.write(Write::Compact(revision)).await.map(drop)
    }

    async fn newest(&self) -> Result<Revision> {
        Ok(self.map.newest())
    }

    fn takes_writes(&self) -> bool {
        self.is_well.load(Ordering::Relaxed)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.queue.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the log panicked");
        }
        self.map.close();
    }
}

struct Writer {
    map: Arc<Map>,
    directory: Arc<Directory>,
    log: Log,
    /// How many bytes all segments have.
    bytes: u64,
    garbage_bytes: u64,
    /// After a compaction failed: how large the segments must grow before the next try.
    retry_above: u64,
    compaction: Option<Compaction>,
    stop: Arc<AtomicBool>,
    is_well: Arc<AtomicBool>,
    /// When the disk was last seen to lose writes.
    ill_since: Option<Instant>,
    /// How many writes the last group had.
    company: usize,
}

/// A snapshot that is being written, and the bytes of the segments that it replaces.
struct Compaction {
    replaces: u64,
    thread: thread::JoinHandle<std::io::Result<u64>>,
}

impl Writer {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            if self.company >= COMPANY {
                thread::sleep(MOMENT);
            }
            self.company = self.commit(first, &mut requests);
            self.compact_when_worth_it();
        }
        self.finish_compaction();
        if let Err(cause) = self.log.close(self.map.newest()) {
            tracing::warn!(%cause, "the log could not be closed well; nothing acknowledged is lost");
        }
    }

    /// Makes a group of all that waits, and answers each once the group is durable and visible. Answers how many they were.
    fn commit(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) -> usize {
        let before = self.map.newest();
        let mut batch = Batch::new(&self.map);
        let (mut answers, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        while let Some(Request { write, answer }) = next {
            if let Write::Put { key, value, .. } = &write {
                bytes += key.0.len() + value.len();
            }
            answers.push((answer, batch.write(&self.map, write)));
            let is_full = bytes >= GROUP_BYTES || answers.len() >= GROUP_WRITES;
            next = if is_full { None } else { requests.try_recv().ok() };
        }
        let company = answers.len();
        if !batch.is_empty() {
            self.mend_if_it_is_time();
            let appended = self.log.append(before, &batch);
            self.is_well.store(appended.is_ok(), Ordering::Relaxed);
            match appended {
                Ok(grown) => self.bytes += grown,
                Err(cause) => {
                    refuse(answers, &cause);
                    return company;
                }
            }
            self.map.apply(batch);
        }
        // A refusal waits too: it may tell of an earlier write of the same group.
        for (answer, outcome) in answers {
            // Whoever does not wait any more has still written.
            let _ = answer.send(outcome);
        }
        company
    }

    fn mend_if_it_is_time(&mut self) {
        if !self.log.is_broken() {
            self.ill_since = None;
            return;
        }
        let since = *self.ill_since.get_or_insert_with(Instant::now);
        if since.elapsed() < MEND_AFTER {
            return;
        }
        self.ill_since = Some(Instant::now());
        match self.log.mend() {
            Ok(()) => {
                self.ill_since = None;
                tracing::warn!("the disk takes writes again; everything acknowledged was read back");
            }
            Err(cause) => tracing::warn!(%cause, "the disk still loses writes"),
        }
    }

    fn compact_when_worth_it(&mut self) {
        if self.compaction.as_ref().is_some_and(|compaction| compaction.thread.is_finished()) {
            self.finish_compaction();
        }
        if self.compaction.is_some() || self.bytes <= self.retry_above {
            return;
        }
        let needed = self.map.needed_bytes();
        if self.bytes.saturating_sub(needed) <= needed.max(self.garbage_bytes) {
            return;
        }
        if let Err(cause) = self.begin_compaction() {
            self.postpone(&cause);
        }
    }

    /// Goes on in a new segment, and lets another thread write a snapshot in the place of all before.
    fn begin_compaction(&mut self) -> Result<()> {
        // Nothing half-written may be left behind in a log that is not the last.
        self.log.close(self.map.newest()).map_err(|cause| Error::Unavailable(Box::new(cause)))?;
        let number = self.log.number() + 1;
        let next = self.directory.create_log(number + 1, self.map.newest())?;
        self.log = next;
        // Taken here, so that it ends exactly where the new segment begins.
        let moment = self.map.moment();
        let (map, directory, stop) = (self.map.clone(), self.directory.clone(), self.stop.clone());
        let write = move || directory.write_snapshot(number, &map.unwind(moment), &stop);
        let thread = thread::Builder::new().name("storage compaction".into()).spawn(write);
        let thread = thread.map_err(|cause| Error::Unavailable(Box::new(cause)))?;
        self.compaction = Some(Compaction { replaces: self.bytes, thread });
        Ok(())
    }

    fn finish_compaction(&mut self) {
        let Some(Compaction { replaces, thread }) = self.compaction.take() else {
            return;
        };
        match thread.join() {
            Ok(Ok(0)) => {}
            Ok(Ok(bytes)) => {
                self.bytes = self.bytes - replaces + bytes;
                self.retry_above = 0;
            }
            Ok(Err(cause)) => self.postpone(&cause),
            Err(_) => self.postpone(&"it panicked"),
        }
    }

    fn postpone(&mut self, cause: &dyn std::fmt::Display) {
        tracing::warn!(%cause, "the log could not be compacted, and goes on growing; it is tried again later");
        self.retry_above = self.bytes + self.garbage_bytes;
    }
}

fn refuse(answers: Vec<(oneshot::Sender<Result<Revision>>, Result<Revision>)>, cause: &std::io::Error) {
    for (answer, _) in answers {
        let cause = std::io::Error::new(cause.kind(), cause.to_string());
        let _ = answer.send(Err(Error::Unavailable(Box::new(cause))));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]
mod tests {
    use std::{fs, io, os::unix::fs::FileExt, sync::atomic::AtomicUsize, time::SystemTime};

    use futures::future::join_all;

    use super::*;
    use crate::segments::Disk;

    /// What the disk is to do wrong from now on, and what it did.
    #[derive(Default)]
    struct Fate {
        is_full: AtomicBool,
        loses_syncs: AtomicBool,
        sync_millis: AtomicUsize,
        keeps_size: AtomicBool,
        syncs: AtomicUsize,
    }

    struct Faulty(fs::File, Arc<Fate>);

    impl Disk for Faulty {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            if self.1.is_full.load(Ordering::Relaxed) {
                // A part is written before it shows.
                self.0.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write_all_at(bytes, offset)
        }

        fn sync(&mut self) -> io::Result<()> {
            self.1.syncs.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(self.1.sync_millis.load(Ordering::Relaxed) as u64));
            if self.1.loses_syncs.load(Ordering::Relaxed) { Err(io::Error::other("lost")) } else { self.0.sync_data() }
        }

        fn truncate(&mut self, bytes: u64) -> io::Result<()> {
            if self.1.keeps_size.load(Ordering::Relaxed) { Err(io::Error::other("no")) } else { self.0.set_len(bytes) }
        }
    }

    fn open(directory: &std::path::Path, fate: &Arc<Fate>) -> File {
        let settings = Settings::default();
        let directory = Directory::open(directory.to_owned()).unwrap();
        let mut recovered = directory.recover(&settings, Arc::new(SystemTime::now)).unwrap();
        recovered.log = recovered.log.with_disk(|file| Box::new(Faulty(file, fate.clone())));
        File::begin(directory, recovered, &settings).unwrap()
    }

    async fn put(storage: &File, key: &str) -> Result<Revision> {
        storage.put(&key.into(), Bytes::from(vec![b'x'; 1000]), Expected::Absent).await
    }

    #[tokio::test]
    async fn a_full_disk_refuses_writes_until_there_is_room_and_reads_go_on() {
        let (directory, fate) = (tempfile::tempdir().unwrap(), Arc::new(Fate::default()));
        let storage = open(directory.path(), &fate);
        put(&storage, "/a").await.unwrap();
        fate.is_full.store(true, Ordering::Relaxed);
        assert!(matches!(put(&storage, "/b").await, Err(Error::Unavailable(_))));
        assert_eq!(storage.get(&"/b".into()).await.unwrap(), None);
        assert!(storage.get(&"/a".into()).await.unwrap().is_some());
        assert!(matches!(storage.delete(&"/a".into(), Revision(1)).await, Err(Error::Unavailable(_))));
        fate.is_full.store(false, Ordering::Relaxed);
        assert_eq!(put(&storage, "/b").await.unwrap(), Revision(2));
        drop(storage);
        let storage = open(directory.path(), &fate);
        assert_eq!(storage.list(Page::all("")).await.unwrap().entries.len(), 2);
    }

    /// Tries until the disk is found to be well.
    async fn put_again(storage: &File, key: &str) -> Revision {
        let began = Instant::now();
        loop {
            match put(storage, key).await {
                Ok(revision) => return revision,
                Err(Error::Unavailable(_)) if began.elapsed() < Duration::from_secs(20) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[tokio::test]
    async fn after_a_lost_sync_nothing_is_written_until_all_was_read_back() {
        let (directory, fate) = (tempfile::tempdir().unwrap(), Arc::new(Fate::default()));
        let storage = open(directory.path(), &fate);
        put(&storage, "/a").await.unwrap();
        assert!(storage.takes_writes());
        fate.loses_syncs.store(true, Ordering::Relaxed);
        assert!(matches!(put(&storage, "/b").await, Err(Error::Unavailable(_))));
        assert!(!storage.takes_writes());
        tokio::time::sleep(MEND_AFTER * 2).await;
        assert!(matches!(put(&storage, "/b").await, Err(Error::Unavailable(_))), "it is tried, and still lost");
        fate.loses_syncs.store(false, Ordering::Relaxed);
        assert!(matches!(put(&storage, "/c").await, Err(Error::Unavailable(_))), "not at once");
        assert!(storage.get(&"/a".into()).await.unwrap().is_some());
        assert_eq!(put_again(&storage, "/d").await, Revision(2), "what was lost was never there");
        assert!(storage.takes_writes());
        drop(storage);
        let storage = open(directory.path(), &fate);
        let keys: Vec<_> = storage.list(Page::all("")).await.unwrap().entries.into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["/a".into(), "/d".into()]);
    }

    #[tokio::test]
    async fn a_half_write_that_cannot_be_taken_back_ends_writing_until_it_can() {
        let (directory, fate) = (tempfile::tempdir().unwrap(), Arc::new(Fate::default()));
        let storage = open(directory.path(), &fate);
        put(&storage, "/a").await.unwrap();
        fate.is_full.store(true, Ordering::Relaxed);
        fate.keeps_size.store(true, Ordering::Relaxed);
        assert!(matches!(put(&storage, "/b").await, Err(Error::Unavailable(_))));
        fate.is_full.store(false, Ordering::Relaxed);
        assert!(matches!(put(&storage, "/b").await, Err(Error::Unavailable(_))));
        fate.keeps_size.store(false, Ordering::Relaxed);
        assert_eq!(put_again(&storage, "/b").await, Revision(2));
        drop(storage);
        let storage = open(directory.path(), &fate);
        assert_eq!(storage.list(Page::all("")).await.unwrap().entries.len(), 2);
    }

    #[tokio::test]
    async fn what_is_damaged_meanwhile_is_not_written_over() {
        let (directory, fate) = (tempfile::tempdir().unwrap(), Arc::new(Fate::default()));
        let storage = open(directory.path(), &fate);
        for key in ["/a", "/b", "/c"] {
            put(&storage, key).await.unwrap();
        }
        fate.loses_syncs.store(true, Ordering::Relaxed);
        assert!(put(&storage, "/d").await.is_err());
        fate.loses_syncs.store(false, Ordering::Relaxed);
        let files = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
        let log = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "log")).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
        file.write_all_at(b"!", 500).unwrap();
        for _ in 0..4 {
            tokio::time::sleep(MEND_AFTER / 2).await;
            assert!(matches!(put(&storage, "/d").await, Err(Error::Unavailable(_))));
        }
        assert!(storage.get(&"/c".into()).await.unwrap().is_some(), "reads go on");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_takes_a_second_for_each_sync_holds_up_writes_and_nothing_else() {
        const SYNC: Duration = Duration::from_secs(1);
        let (directory, fate) = (tempfile::tempdir().unwrap(), Arc::new(Fate::default()));
        let storage = Arc::new(open(directory.path(), &fate));
        put(&storage, "/a").await.unwrap();
        fate.sync_millis.store(SYNC.as_millis() as usize, Ordering::Relaxed);
        let before = fate.syncs.load(Ordering::Relaxed);
        let mut changes = storage.watch(&"/".into(), Revision(1)).await.unwrap();
        let writes: Vec<_> = (0..200)
            .map(|number| {
                let storage = storage.clone();
                tokio::spawn(async move { put(&storage, &format!("/b/{number}")).await })
            })
            .collect();
        // Some do not wait for it. What they asked for may be done all the same.
        writes.iter().skip(150).for_each(|write| write.abort());
        let (mut reads, mut slowest) = (0, Duration::ZERO);
        while !writes.iter().all(|write| write.is_finished()) {
            let asked = Instant::now();
            assert!(storage.get(&"/a".into()).await.unwrap().is_some());
            storage.list(Page::all("")).await.unwrap();
            assert!(storage.takes_writes());
            (reads, slowest) = (reads + 1, slowest.max(asked.elapsed()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(reads > 20 && slowest < SYNC / 2, "{reads} reads, {slowest:?}");
        let acknowledged: Vec<_> =
            join_all(writes).await.into_iter().filter_map(Result::ok).map(Result::unwrap).collect();
        assert!(acknowledged.len() >= 150);
        assert!(fate.syncs.load(Ordering::Relaxed) - before <= 10, "all that wait share the next one");
        fate.sync_millis.store(0, Ordering::Relaxed);
        let last = put(&storage, "/last").await.unwrap();
        let (mut told, mut reached) = (Vec::new(), Revision(0));
        while reached < last {
            let run = futures::StreamExt::next(&mut changes).await.unwrap().unwrap();
            (reached, told) = (run.revision, [told, run.changes].concat());
        }
        assert!(told.iter().map(|change| change.revision.0).eq(2..=last.0), "each once, and in order");
        assert!(acknowledged.iter().all(|revision| told.iter().any(|change| change.revision == *revision)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_writes_share_one_wait_for_the_disk() {
        let (directory, fate) = (tempfile::tempdir().unwrap(), Arc::new(Fate::default()));
        let storage = Arc::new(open(directory.path(), &fate));
        // A disk that is done at once leaves nobody to wait for it.
        fate.sync_millis.store(2, Ordering::Relaxed);
        let writers = (0..64).map(|writer| {
            let storage = storage.clone();
            tokio::spawn(async move {
                for write in 0..20 {
                    put(&storage, &format!("/{writer}/{write}")).await.unwrap();
                }
            })
        });
        join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
        let syncs = fate.syncs.load(Ordering::Relaxed);
        assert!(syncs < 64 * 20 / 4, "{syncs} waits for {} writes", 64 * 20);
    }
}
