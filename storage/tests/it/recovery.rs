//! What the durable storage does after crashes and damage.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures::StreamExt;
use onex_storage::{Clock, Entry, Error, Expected, File, Key, Page, Result, Revision, Settings, Storage};
use tempfile::TempDir;

async fn open(directory: &Path) -> Result<File> {
    open_with(directory, &Settings::default()).await
}

async fn open_with(directory: &Path, settings: &Settings) -> Result<File> {
    File::open(directory, settings, Arc::new(SystemTime::now)).await
}

async fn create(storage: &File, key: &str, value: impl Into<Bytes>) -> Revision {
    storage.put(&key.into(), value.into(), Expected::Absent).await.unwrap()
}

async fn all(storage: &File) -> Vec<Entry> {
    storage.list(Page::all("")).await.unwrap().entries
}

/// What a crash would leave of a directory that is open now.
fn crashed(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    segments.sort();
    segments
}

fn log(directory: &Path) -> PathBuf {
    segments(directory).pop().unwrap()
}

/// The length of a file without the zeros at its end.
fn used(file: &Path) -> u64 {
    fs::read(file).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn flip(file: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

fn set_len(file: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length).unwrap();
}

/// A directory as a crash leaves it after three writes, and where each of them ended in the log.
async fn three_writes(size: usize) -> (TempDir, [u64; 4]) {
    let original = tempfile::tempdir().unwrap();
    let storage = open(original.path()).await.unwrap();
    let mut ends = [used(&log(original.path())); 4];
    for (index, key) in ["/a", "/b", "/c"].into_iter().enumerate() {
        create(&storage, key, vec![b'x'; size]).await;
        ends[index + 1] = used(&log(original.path()));
    }
    (crashed(original.path()), ends)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let (directory, _) = three_writes(100).await;
    let storage = open(directory.path()).await.unwrap();
    let entries = all(&storage).await;
    assert_eq!(entries.iter().map(|entry| entry.revision.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(create(&storage, "/d", "x").await, Revision(4));
}

#[tokio::test]
async fn a_torn_tail_of_any_length_is_cut_off_and_kept_aside() {
    let (directory, ends) = three_writes(1100).await;
    for length in (ends[2] + 1..ends[3]).step_by(11) {
        for prepared in [false, true] {
            let directory = crashed(directory.path());
            let file = log(directory.path());
            // Where room was prepared, what was not written of the frame is zeros, by whole sectors.
            let length = if prepared { length.next_multiple_of(512) } else { length };
            if length >= ends[3] {
                continue;
            }
            let torn = fs::read(&file).unwrap()[ends[2] as usize..length as usize].to_vec();
            set_len(&file, length);
            set_len(&file, if prepared { length + 100_000 } else { length });
            let storage = open(directory.path()).await.unwrap();
            assert_eq!(all(&storage).await.len(), 2, "cut at {length}, prepared: {prepared}");
            let kept = fs::read(file.with_extension("log.torn")).unwrap();
            assert!(torn.starts_with(&kept) && torn[kept.len()..].iter().all(|byte| *byte == 0));
            assert_eq!(create(&storage, "/d", "x").await, Revision(3));
            drop(storage);
            assert_eq!(all(&open(directory.path()).await.unwrap()).await.len(), 3);
        }
    }
}

#[tokio::test]
async fn a_torn_tail_that_cannot_be_kept_aside_is_cut_off_all_the_same() {
    let (directory, ends) = three_writes(1100).await;
    let file = log(directory.path());
    set_len(&file, ends[2] + 500);
    // As when the disk is full: no file can be written there.
    fs::create_dir(file.with_extension("log.torn")).unwrap();
    let storage = open(directory.path()).await.unwrap();
    assert_eq!(all(&storage).await.len(), 2);
    assert_eq!(create(&storage, "/d", "x").await, Revision(3));
}

#[tokio::test]
async fn a_last_write_of_which_the_disk_lost_any_sector_is_torn() {
    let (directory, ends) = three_writes(3000).await;
    for sector in ends[2] / 512 + 1..ends[3] / 512 {
        let directory = crashed(directory.path());
        let file = fs::OpenOptions::new().write(true).open(log(directory.path())).unwrap();
        file.write_all_at(&[0; 512], sector * 512).unwrap();
        let storage = open(directory.path()).await.unwrap();
        assert_eq!(all(&storage).await.len(), 2, "sector {sector}");
    }
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_named_and_nothing_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await.unwrap();
    let first = create(&storage, "/a", "one").await;
    create(&storage, "/b", vec![b'x'; 60]).await;
    storage.delete(&"/a".into(), first).await.unwrap();
    storage.compact(Revision(1)).await.unwrap();
    drop(storage);
    let path = log(directory.path());
    for offset in 0..fs::metadata(&path).unwrap().len() {
        let directory = crashed(directory.path());
        flip(&log(directory.path()), offset);
        let refused = open(directory.path()).await.err();
        let Some(Error::Damaged { file, offset: named, last_good, .. }) = refused else {
            panic!("the flip of byte {offset} was answered with {refused:?}");
        };
        assert_eq!(file, log(directory.path()));
        assert!(named <= offset, "byte {offset} is not in the frame at {named}");
        assert!(last_good <= Revision(3));
        assert!(matches!(open(directory.path()).await, Err(Error::Damaged { .. })), "the refusal changes nothing");
    }
}

#[tokio::test]
async fn a_flipped_byte_in_the_last_write_before_a_crash_is_no_torn_tail() {
    let (directory, ends) = three_writes(60).await;
    for offset in ends[2]..ends[3] {
        let directory = crashed(directory.path());
        flip(&log(directory.path()), offset);
        let refused = open(directory.path()).await.err();
        assert!(
            matches!(refused, Some(Error::Damaged { offset: named, last_good: Revision(2), .. }) if named == ends[2].next_multiple_of(64)),
            "the flip of byte {offset} was answered with {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_lost_sector_before_the_last_write_is_damage() {
    let (directory, ends) = three_writes(3000).await;
    let file = fs::OpenOptions::new().write(true).open(log(directory.path())).unwrap();
    file.write_all_at(&[0; 512], (ends[1] / 512 + 2) * 512).unwrap();
    let refused = open(directory.path()).await.err();
    assert!(matches!(refused, Some(Error::Damaged { last_good: Revision(1), .. })), "{refused:?}");
}

#[tokio::test]
async fn a_log_of_another_version_or_of_something_else_is_refused() {
    let (directory, _) = three_writes(10).await;
    let file = log(directory.path());
    fs::write(&file, vec![b'?'; 4096]).unwrap();
    let refused = open(directory.path()).await.err().unwrap();
    assert!(refused.to_string().contains("not a segment of a log"), "{refused}");
    assert!(refused.to_string().contains(file.to_str().unwrap()), "{refused}");
}

#[tokio::test]
async fn a_directory_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await.unwrap();
    let refused = open(directory.path()).await.err().unwrap();
    assert!(matches!(&refused, Error::Locked(path) if path == directory.path()));
    drop(storage);
    assert!(open(directory.path()).await.is_ok());
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_after_a_restart() {
    let (directory, _) = three_writes(10).await;
    let storage = open(directory.path()).await.unwrap();
    let now = storage.get(&"/a".into()).await.unwrap().unwrap();
    storage.put(&now.key, "new".into(), Expected::At(now.revision)).await.unwrap();
    drop(storage);
    let storage = open(directory.path()).await.unwrap();
    let mut changes = storage.watch(&"/".into(), Revision(2)).await.unwrap();
    let seen = changes.next().await.unwrap().unwrap().changes;
    assert_eq!(seen.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["/c", "/a"]);
    assert_eq!(seen[1].previous, Some(now));
}

#[tokio::test]
async fn history_is_forgotten_after_its_time_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let seconds = Arc::new(AtomicU64::new(1_700_000_000));
    let now = seconds.clone();
    let clock: Clock = Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(now.load(Ordering::Relaxed)));
    let settings = Settings { history_seconds: 300, ..Settings::default() };
    let oldest = async |storage: &File| storage.list(Page { at: Some(Revision(0)), ..Page::all("") }).await;
    let storage = File::open(directory.path(), &settings, clock.clone()).await.unwrap();
    create(&storage, "/a", "x").await;
    seconds.fetch_add(200, Ordering::Relaxed);
    create(&storage, "/b", "x").await;
    assert!(oldest(&storage).await.is_ok());
    seconds.fetch_add(101, Ordering::Relaxed);
    create(&storage, "/c", "x").await;
    assert!(matches!(oldest(&storage).await, Err(Error::Compacted { oldest: Revision(1) })));
    drop(storage);
    // Time goes on also while nobody runs.
    seconds.fetch_add(200, Ordering::Relaxed);
    let storage = File::open(directory.path(), &settings, clock).await.unwrap();
    assert!(matches!(oldest(&storage).await, Err(Error::Compacted { oldest: Revision(2) })));
}

#[tokio::test]
async fn history_takes_no_more_room_than_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { history_bytes: 100_000, ..Settings::default() };
    let storage = open_with(directory.path(), &settings).await.unwrap();
    let mut at = create(&storage, "/a", vec![b'x'; 10_000]).await;
    for _ in 0..20 {
        at = storage.put(&"/a".into(), vec![b'x'; 10_000].into(), Expected::At(at)).await.unwrap();
    }
    let refused = storage.list(Page { at: Some(Revision(5)), ..Page::all("") }).await.unwrap_err();
    let Error::Compacted { oldest } = refused else { panic!("{refused}") };
    assert!((at.0 - 10..at.0 - 5).contains(&oldest.0), "{oldest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_compacted_while_many_write_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { garbage_bytes: 200_000, history_bytes: 50_000, ..Settings::default() };
    let storage = Arc::new(open_with(directory.path(), &settings).await.unwrap());
    let writers = (0..16).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let key = Key::from(format!("/{writer}"));
            let mut at = storage.put(&key, vec![b'x'; 2000].into(), Expected::Absent).await.unwrap();
            for _ in 0..200 {
                at = storage.put(&key, vec![b'x'; 2000].into(), Expected::At(at)).await.unwrap();
            }
            Entry { key, revision: at, value: vec![b'x'; 2000].into() }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut expected = Vec::new();
    for writer in writers {
        expected.push(writer.await.unwrap());
    }
    expected.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(all(&storage).await, expected);
    drop(storage);
    let storage = open_with(directory.path(), &settings).await.unwrap();
    assert_eq!(all(&storage).await, expected);
    assert_eq!(storage.list(Page::all("")).await.unwrap().revision, Revision(16 * 201));
    // Writers on a busy machine may be faster than the thread that compacts. A write lets it begin once more.
    create(&storage, "/last", "x").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while kept(directory.path()) >= 3_000_000 {
        assert!(Instant::now() < deadline, "{} bytes are kept of 6.4 MB that were written", kept(directory.path()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The bytes of all files in `directory`; one that is just being removed has none.
fn kept(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    files.map(|file| file.metadata().map_or(0, |file| file.len())).sum()
}

/// Not a test by itself: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
async fn writer_to_be_killed() {
    let Some(directory) = std::env::var_os("STORAGE_TO_WRITE_TO") else {
        return;
    };
    let settings = Settings { garbage_bytes: 300_000, history_bytes: 100_000, ..Settings::default() };
    let storage = Arc::new(open_with(Path::new(&directory), &settings).await.unwrap());
    let writers = (0..8).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let key = Key::from(format!("/{writer}"));
            let mut expected =
                storage.get(&key).await.unwrap().map_or(Expected::Absent, |now| Expected::At(now.revision));
            loop {
                let revision = storage.put(&key, vec![b'x'; 700].into(), expected).await.unwrap();
                std::io::stderr().write_all(format!("wrote {writer} {revision}\n").as_bytes()).unwrap();
                expected = Expected::At(revision);
            }
        })
    });
    futures::future::join_all(writers).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = [0_u64; 8];
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recovery::writer_to_be_killed", "--nocapture"])
            .env("STORAGE_TO_WRITE_TO", directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        for index in 0.. {
            let mut line = String::new();
            // Death may cut a line off.
            if said.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                break;
            }
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [writer, revision] = numbers[..] else { panic!("the writer says {line:?}") };
            let before = std::mem::replace(&mut acknowledged[writer as usize], revision);
            assert!(before < revision, "revision {revision} of {writer} is used twice, or {before} was");
            if index == 300 + 97 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let storage = open(directory.path()).await.unwrap();
        for (writer, revision) in acknowledged.iter().enumerate() {
            let now = storage.get(&format!("/{writer}").into()).await.unwrap().unwrap();
            assert!(now.revision.0 >= *revision, "{revision} of {writer} is gone after round {round}");
            assert_eq!(now.value.len(), 700);
        }
    }
}
