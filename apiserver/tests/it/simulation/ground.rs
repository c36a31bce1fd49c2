//! The storage below: a real one, which fails, dawdles, forgets, crashes and comes back as a seed says.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use onex_storage::{
    Changes, Clock, Entry, Error, Expected, File, Key, Listing, Memory, Page, Prefix, Result, Revision, Settings,
    Storage,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Furniture, truth::Truth};

/// What it is, and what may happen to it.
#[derive(Clone, Debug)]
pub struct Nature {
    /// In files, which are read back after a crash.
    pub in_files: bool,
    /// Others write to it as well.
    pub is_shared: bool,
    /// How much history it keeps, in bytes.
    pub history_bytes: u64,
}

/// A storage and its history. The process that keeps it comes and goes.
pub struct Ground {
    pub nature: Nature,
    /// Where its files are, one directory after each crash.
    directory: Option<tempfile::TempDir>,
    path: Mutex<PathBuf>,
    /// By how much the clock is wrong, in seconds.
    pub clock: Arc<AtomicI64>,
    process: Mutex<Option<Arc<dyn Storage>>>,
    /// Changes when the process ends: whoever listens to it hears nothing more.
    ended: watch::Sender<u64>,
    /// One write after the other, so that the order is known.
    turn: Arc<tokio::sync::Mutex<()>>,
    pub truth: Mutex<Truth>,
    seed: u64,
    turns: Mutex<HashMap<String, u64>>,
    is_down: AtomicBool,
    /// Whether anything goes wrong.
    pub is_rough: AtomicBool,
    /// History was lost that somebody may have needed.
    pub forgot: AtomicBool,
    crashes: AtomicU64,
    pub complaints: Mutex<Vec<String>>,
    /// Something is not as it must be: there is no use in going on.
    pub is_wrong: CancellationToken,
}

fn lost() -> Error {
    Error::Unavailable("the seed says so".into())
}

impl Ground {
    pub async fn new(nature: Nature, seed: u64, furniture: &Furniture) -> Arc<Self> {
        // In memory, if there is such a place: a disk would only make it slow.
        let fast = Path::new("/dev/shm");
        let directory = || if fast.is_dir() { tempfile::tempdir_in(fast) } else { tempfile::tempdir() };
        let directory = nature.in_files.then(|| directory().unwrap());
        let path = directory.as_ref().map(|directory| directory.path().join("0")).unwrap_or_default();
        let ground = Arc::new(Self {
            nature,
            directory,
            path: Mutex::new(path),
            clock: Arc::default(),
            process: Mutex::new(None),
            ended: watch::Sender::new(0),
            turn: Arc::default(),
            truth: Mutex::default(),
            seed,
            turns: Mutex::default(),
            is_down: AtomicBool::new(false),
            is_rough: AtomicBool::new(false),
            forgot: AtomicBool::new(false),
            crashes: AtomicU64::new(0),
            complaints: Mutex::default(),
            is_wrong: CancellationToken::new(),
        });
        let storage = ground.opened().await;
        *ground.process.lock().unwrap() = Some(storage);
        for (key, value) in furniture {
            let write = Write { key: key.clone(), value: Some(value.clone()), expected: Expected::Absent };
            ground.done(&write).await.unwrap();
        }
        ground
    }

    pub fn complain(&self, why: String) {
        self.complaints.lock().unwrap().push(why);
        self.is_wrong.cancel();
    }

    pub fn check(&self, checked: std::result::Result<(), String>) {
        if let Err(why) = checked {
            self.complain(why);
        }
    }

    async fn opened(&self) -> Arc<dyn Storage> {
        let settings = Settings { history_bytes: self.nature.history_bytes, ..Settings::default() };
        let wrong_by = self.clock.clone();
        let clock: Clock = Arc::new(move || {
            // Not the machine's, which would be another one each time.
            let seconds = 1_700_000_000 + wrong_by.load(Ordering::Relaxed);
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
        });
        if !self.nature.in_files {
            return Arc::new(Memory::new(&settings, clock));
        }
        let path = self.path.lock().unwrap().clone();
        Arc::new(File::open(path, &settings, clock).await.unwrap())
    }

    /// What comes next of what is about this. It does not depend on what comes of others, so that a world in which two of them
    /// changed places is much the same.
    fn luck(&self, about: &str, below: u64) -> u64 {
        let turn = {
            let mut turns = self.turns.lock().unwrap();
            let turn = turns.entry(about.to_owned()).or_default();
            *turn += 1;
            *turn
        };
        let salt = about.bytes().fold(self.seed, |salt, byte| (salt ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        StdRng::seed_from_u64(salt ^ (turn << 40)).random_range(0..below)
    }

    fn chance(&self, about: &str, one_in: u64) -> bool {
        self.is_rough.load(Ordering::Relaxed) && self.luck(about, one_in) == 0
    }

    /// Takes a while, as everything does.
    async fn dawdle(&self, about: &str) {
        let micros = match self.luck(about, 50) {
            0 if self.is_rough.load(Ordering::Relaxed) => 300_000,
            turn @ 1..20 => turn * 200,
            _ => return tokio::task::yield_now().await,
        };
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    /// The process, if it runs.
    fn process(&self) -> Result<Arc<dyn Storage>> {
        let is_there = !self.is_down.load(Ordering::Relaxed);
        self.process.lock().unwrap().clone().filter(|_| is_there).ok_or_else(lost)
    }

    /// Which process it is.
    fn age(&self) -> u64 {
        *self.ended.borrow()
    }

    /// Does it where the clock of the simulation does not run on: files have a thread of their own.
    async fn held<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        if !self.nature.in_files {
            return work.await;
        }
        tokio::task::spawn_blocking(move || futures::executor::block_on(work)).await.unwrap()
    }

    /// Ends the process and starts it again after a while, which loses nothing.
    pub async fn restart(&self, pause: Duration) {
        let _turn = self.turn.lock().await;
        self.is_down.store(true, Ordering::Relaxed);
        self.stop_listeners();
        if self.nature.in_files {
            self.process.lock().unwrap().take();
        }
        tokio::time::sleep(pause).await;
        self.start().await;
        self.is_down.store(false, Ordering::Relaxed);
    }

    /// What is in memory outlives its process here: there is nothing else to keep it.
    async fn start(&self) {
        if !self.nature.in_files {
            return;
        }
        let storage = self.opened().await;
        let listing = storage.list(Page::all("")).await.unwrap();
        let checked = self.truth.lock().unwrap().is_all(listing.revision, &listing.entries);
        self.check(checked);
        *self.process.lock().unwrap() = Some(storage);
    }

    /// What is stored, when nothing goes on any more.
    pub async fn hold_all(&self) {
        self.restart(Duration::ZERO).await;
        let storage = self.process().unwrap();
        let listing = storage.list(Page::all("")).await.unwrap();
        let checked = self.truth.lock().unwrap().is_all(listing.revision, &listing.entries);
        self.check(checked);
    }

    /// Forgets all history, or up to some revision.
    pub async fn compact(&self, all: bool) {
        let _turn = self.turn.lock().await;
        self.forgot.store(true, Ordering::Relaxed);
        let newest = self.truth.lock().unwrap().newest;
        let upto = Revision(newest - if all { 0 } else { self.luck("compaction", newest.min(30) + 1) });
        if let Ok(storage) = self.process() {
            let compacted = self.held(async move { storage.compact(upto).await }).await;
            self.check(compacted.map_err(|error| format!("compacting to {upto}: {error}")));
        }
    }

    /// The process dies with a write in hand, of which all may have come to the disk, or nothing, or a part.
    async fn crash(&self, write: &Write) {
        self.stop_listeners();
        if !self.nature.in_files {
            if self.chance("crash", 2) {
                self.done(write).await.ok();
            }
            return;
        }
        let log = || used_log(&self.path.lock().unwrap());
        let before = log();
        let done = self.perform(write).await;
        let after = log();
        // What a crash leaves: nothing was closed.
        let number = self.crashes.fetch_add(1, Ordering::Relaxed) + 1;
        let next = self.directory.as_ref().expect("it is in files").path().join(number.to_string());
        std::fs::create_dir(&next).unwrap();
        let path = std::mem::replace(&mut *self.path.lock().unwrap(), next.clone());
        for file in std::fs::read_dir(&path).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), next.join(file.file_name())).unwrap();
        }
        self.process.lock().unwrap().take();
        std::fs::remove_dir_all(&path).unwrap();
        let is_torn = done.is_ok() && self.chance("crash", 2);
        if is_torn {
            let log = next.join(before.0.file_name().unwrap());
            let cut = before.1 + self.luck("tear", after.1 - before.1);
            std::fs::OpenOptions::new().write(true).open(log).unwrap().set_len(cut).unwrap();
        } else {
            let checked = self.truth.lock().unwrap().wrote(&write.key, write.value.as_ref(), write.expected, &done);
            self.check(checked);
        }
        self.start().await;
    }

    /// Who listens hears nothing more, and has to come again.
    pub fn stop_listeners(&self) {
        self.ended.send_modify(|ended| *ended += 1);
    }

    async fn perform(&self, write: &Write) -> Result<Revision> {
        let (storage, write) = (self.process()?, write.clone());
        self.held(async move {
            match write.value {
                Some(value) => storage.put(&write.key, value, write.expected).await,
                None => match write.expected {
                    Expected::At(revision) => storage.delete(&write.key, revision).await,
                    Expected::Absent => unreachable!("nobody deletes what is not there"),
                },
            }
        })
        .await
    }

    async fn done(&self, write: &Write) -> Result<Revision> {
        let done = self.perform(write).await;
        let checked = self.truth.lock().unwrap().wrote(&write.key, write.value.as_ref(), write.expected, &done);
        self.check(checked);
        done
    }

    async fn write(&self, asked: u64, write: Write) -> Result<Revision> {
        let about = write.key.as_str();
        self.dawdle(about).await;
        let turn = self.turn.lock().await;
        if self.age() != asked || self.process().is_err() || self.chance(about, 40) {
            return Err(lost());
        }
        if self.chance(about, 150) {
            self.crash(&write).await;
            return Err(lost());
        }
        let done = self.done(&write).await;
        drop(turn);
        self.dawdle(about).await;
        if self.chance(about, 40) { Err(lost()) } else { done }
    }

    async fn to_read(&self, about: &str) -> Result<Arc<dyn Storage>> {
        self.dawdle(about).await;
        if self.chance(about, 60) { Err(lost()) } else { self.process() }
    }
}

/// The log that is written to, and how far.
fn used_log(directory: &Path) -> (PathBuf, u64) {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let log = files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap();
    let used = std::fs::read(&log).unwrap().iter().rposition(|byte| *byte != 0);
    (log, used.map_or(0, |last| last as u64 + 1))
}

#[derive(Clone)]
struct Write {
    key: Key,
    value: Option<Bytes>,
    expected: Expected,
}

/// The ground, as an apiserver stands on it.
pub struct Handle(pub Arc<Ground>);

impl Handle {
    /// Once it was asked for it goes its way, whoever still waits for it.
    async fn write(&self, write: Write) -> Result<Revision> {
        let (ground, asked) = (self.0.clone(), self.0.age());
        tokio::spawn(async move { ground.write(asked, write).await }).await.unwrap_or_else(|_| Err(lost()))
    }
}

#[async_trait]
impl Storage for Handle {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let answer = self.0.to_read(key.as_str()).await?.get(key).await;
        self.0.dawdle(key.as_str()).await;
        answer
    }

    async fn list(&self, page: Page) -> Result<Listing> {
        let answer = self.0.to_read("list").await?.list(page).await;
        self.0.dawdle("list").await;
        answer
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected) -> Result<Revision> {
        self.write(Write { key: key.clone(), value: Some(value), expected }).await
    }

    async fn delete(&self, key: &Key, expected: Revision) -> Result<Revision> {
        self.write(Write { key: key.clone(), value: None, expected: Expected::At(expected) }).await
    }

    async fn watch(&self, prefix: &Prefix, since: Revision) -> Result<Changes> {
        let ended = self.0.ended.subscribe();
        let changes = self.0.to_read("watch").await?.watch(prefix, since).await?;
        Ok(stream::unfold(Some((self.0.clone(), changes, ended)), listen).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let answer = self.0.to_read("compact").await?.compact(revision).await;
        self.0.dawdle("compact").await;
        answer
    }

    async fn newest(&self) -> Result<Revision> {
        let answer = self.0.to_read("newest").await?.newest().await;
        self.0.dawdle("newest").await;
        answer
    }

    fn is_shared(&self) -> bool {
        self.0.nature.is_shared
    }
}

type Listener = (Arc<Ground>, Changes, watch::Receiver<u64>);

/// The next run, as late as it comes, unless the process ended before.
async fn listen(listener: Option<Listener>) -> Option<(Result<onex_storage::Run>, Option<Listener>)> {
    let (ground, mut changes, mut ended) = listener?;
    let told = tokio::select! {
        biased;
        _ = ended.changed() => None,
        run = changes.next() => Some(run?),
    };
    ground.dawdle("watch").await;
    // What is told was noted.
    let turn = ground.turn.lock().await;
    match told {
        Some(run) if !ended.has_changed().unwrap() && !ground.chance("watch", 200) => {
            if let Err(Error::Compacted { .. }) = run {
                ground.forgot.store(true, Ordering::Relaxed);
            }
            drop(turn);
            Some((run, Some((ground, changes, ended))))
        }
        _ => Some((Err(lost()), None)),
    }
}
