//! What the log on disk must hold.

use std::{fs, io::Write, path::Path};

use onex_audit::{AuditLog, Error, File, Position, Settings};

use crate::contract::{names, record};

async fn open(directory: &Path) -> File {
    File::open(directory, &Settings::default()).await.unwrap()
}

#[tokio::test]
async fn records_and_commits_survive() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).await;
    log.append(&[record("a"), record("b")]).await.unwrap();
    log.commit("pump", Position(1)).await.unwrap();
    drop(log);
    let log = open(directory.path()).await;
    log.append(&[record("c")]).await.unwrap();
    assert_eq!(names(&log.read("pump", 9).await.unwrap().records), ["b", "c"]);
    assert_eq!(names(&log.read("other", 9).await.unwrap().records), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_put_aside() {
    for torn in [&b"{\"id\":\"0"[..], b"\0\0\0\0\n{\"half\n", b"{}\n"] {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path()).await;
        log.append(&[record("a")]).await.unwrap();
        drop(log);
        let path = directory.path().join("00000000000000000000.jsonl");
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();
        let log = open(directory.path()).await;
        log.append(&[record("b")]).await.unwrap();
        assert_eq!(names(&log.read("pump", 9).await.unwrap().records), ["a", "b"]);
        let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let aside = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "cut")).expect("put aside");
        assert_eq!(fs::read(aside).unwrap(), torn);
    }
}

#[tokio::test]
async fn a_log_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).await;
    let second = File::open(directory.path(), &Settings::default()).await.err();
    assert!(matches!(second, Some(Error::Locked(_))), "{second:?}");
    drop(log);
    open(directory.path()).await;
}

#[tokio::test]
async fn a_place_that_is_damaged_is_told_and_not_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes: 1, ..Settings::default() };
    let log = File::open(directory.path(), &settings).await.unwrap();
    log.append(&[record("a")]).await.unwrap();
    log.append(&[record("b")]).await.unwrap();
    let path = directory.path().join("00000000000000000000.jsonl");
    let text = fs::read_to_string(&path).unwrap().replace("create", "cre\u{1}te");
    fs::write(&path, text).unwrap();
    let refused = log.read("pump", 9).await.unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).await;
    log.append(&[record("a")]).await.unwrap();
    let mode = fs::metadata(directory.path().join("00000000000000000000.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}
