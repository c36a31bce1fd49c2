//! kill -9 of a process that writes, at any moment, again and again.
//!
//! `ONEX_CRASH_ROUNDS` says how often; 100, and 1,000 at night.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures::StreamExt;
use onex_storage::{Expected, File, Key, Page, Prefix, Revision, Settings, Storage};

const WRITERS: u64 = 6;

fn settings() -> Settings {
    // So little garbage that compactions are hit as well.
    Settings { garbage_bytes: 100_000, ..Settings::default() }
}

async fn open(directory: &str) -> Arc<dyn Storage> {
    Arc::new(File::open(directory, &settings(), Arc::new(SystemTime::now)).await.unwrap())
}

/// No test, but the process that the test below kills. It says each write that was acknowledged on a line of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that another test kills"]
async fn a_process_that_writes() {
    let directory = std::env::var("ONEX_CRASH_DIRECTORY").unwrap();
    let storage = open(&directory).await;
    let writer = |writer: u64| {
        let storage = storage.clone();
        async move {
            for turn in 0.. {
                let key = Key::from(format!("/{writer}/{}", turn % 20));
                let value = Bytes::from(format!("{turn} {}", "x".repeat((turn * 37 % 3000) as usize)));
                let now = storage.get(&key).await.unwrap();
                let (what, done) = match now {
                    None => ("put", storage.put(&key, value, Expected::Absent).await),
                    Some(now) if turn % 7 == 3 => ("delete", storage.delete(&key, now.revision).await),
                    Some(now) => ("put", storage.put(&key, value, Expected::At(now.revision)).await),
                };
                let revision = done.unwrap();
                // One call, so that no line is mixed with another.
                let line = format!("ack {what} {key} {revision}\n");
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(|number| tokio::spawn(writer(number)))).await;
}

/// A write that was acknowledged.
#[derive(Debug, PartialEq, Eq)]
struct Acknowledged {
    key: String,
    deleted: bool,
}

/// Lets the process write for a while, kills it, and answers what it said by then.
fn write_until_killed(directory: &str, life: Duration) -> BTreeMap<u64, Acknowledged> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::a_process_that_writes", "--exact", "--ignored", "--nocapture"])
        .env("ONEX_CRASH_DIRECTORY", directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (told, first) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acknowledged = BTreeMap::new();
        for line in lines.map_while(Result::ok) {
            let words: Vec<_> = line.split(' ').collect();
            // The last line may have been cut off, and is whole only if its newline came; what lacks it is not counted.
            if let ["ack", what, key, revision] = words[..] {
                let write = Acknowledged { key: key.to_owned(), deleted: what == "delete" };
                acknowledged.insert(revision.parse().unwrap(), write);
                let _ = told.send(());
            }
        }
        acknowledged
    });
    first.recv_timeout(Duration::from_secs(60)).expect("a write is acknowledged");
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn whenever_the_process_is_killed_nothing_acknowledged_is_lost_and_no_revision_is_used_twice() {
    let rounds = std::env::var("ONEX_CRASH_ROUNDS").map_or(100, |rounds| rounds.parse::<u64>().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut told: BTreeMap<u64, Acknowledged> = BTreeMap::new();
    let (mut seen, began) = (Revision(0), Instant::now());
    for round in 0..rounds {
        let acknowledged = write_until_killed(&path, Duration::from_millis(round * 13 % 60));
        for (revision, write) in acknowledged {
            assert!(revision > seen.0, "round {round}: revision {revision} was told of before, {write:?}");
            told.insert(revision, write);
        }
        seen = runtime.block_on(async {
            let storage = open(&path).await;
            let newest = storage.newest().await.unwrap();
            // Who was away from the last round on sees each change once, and those that were acknowledged among them.
            let mut changes = storage.watch(&Prefix::from("/"), seen).await.unwrap();
            let mut next = seen.0 + 1;
            while next <= newest.0 {
                for change in changes.next().await.unwrap().unwrap().changes {
                    assert_eq!(change.revision.0, next, "round {round}: none is missing, and none comes twice");
                    if let Some(write) = told.get(&next) {
                        let found = Acknowledged { key: change.key.to_string(), deleted: change.value.is_none() };
                        assert_eq!(*write, found, "round {round}: revision {next}");
                    }
                    next += 1;
                }
            }
            assert!(
                told.keys().next_back().is_none_or(|last| *last <= newest.0),
                "round {round}: {newest} is the newest"
            );
            // What there is now is what the last writes made.
            let there = storage.list(Page::all("/")).await.unwrap();
            for (revision, write) in &told {
                let now = there.entries.iter().find(|entry| entry.key.as_str() == write.key);
                let is_later = now.is_some_and(|now| now.revision.0 >= *revision);
                assert!(
                    is_later || write.deleted || now.is_none(),
                    "round {round}: {write:?} at {revision}, and {now:?}"
                );
            }
            newest
        });
        told.retain(|revision, _| *revision + 5000 > seen.0);
    }
    assert!(seen.0 > rounds, "hardly anything was written");
    assert!(began.elapsed() < Duration::from_secs(15 * 60));
}
