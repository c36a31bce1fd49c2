//! What every log does.

use std::{sync::Arc, time::Duration};

use onex_audit::{AuditLog, Decision, Error, Memory, Object, Position, RECORD_BYTES, Record, Settings, User};
use serde_json::json;

/// A record that says which one it is.
pub fn record(name: &str) -> Record {
    Record {
        id: Record::new_id(),
        time: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
        component: "test".to_owned(),
        user: User { name: "ann".to_owned(), ..User::default() },
        impersonated: None,
        verb: "create".to_owned(),
        object: Object { name: name.to_owned(), resource: "chains".to_owned(), ..Object::default() },
        decision: Decision::Allow,
        reason: String::new(),
        code: 201,
        source: vec!["127.0.0.1".to_owned()],
        agent: String::new(),
        request_id: String::new(),
        details: json!(null),
    }
}

pub fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.object.name.as_str()).collect()
}

/// Both logs, empty.
async fn logs(settings: &Settings) -> (Vec<Arc<dyn AuditLog>>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = onex_audit::File::open(directory.path().join("audit"), settings).await.unwrap();
    (vec![Arc::new(Memory::new(settings)), Arc::new(file)], directory)
}

#[tokio::test]
async fn a_reader_gets_what_it_has_not_committed_in_the_order_of_appending() {
    let (logs, _directory) = logs(&Settings::default()).await;
    for log in logs {
        let first = record("a");
        log.append(&[first.clone(), record("b")]).await.unwrap();
        log.append(&[record("c")]).await.unwrap();
        let batch = log.read("pump", 2).await.unwrap();
        assert_eq!(names(&batch.records), ["a", "b"]);
        assert_eq!(batch.records[0], first);
        assert_eq!(names(&log.read("pump", 9).await.unwrap().records), ["a", "b", "c"], "nothing was committed");
        log.commit("pump", batch.next).await.unwrap();
        assert_eq!(names(&log.read("pump", 9).await.unwrap().records), ["c"]);
        assert_eq!(names(&log.read("other", 9).await.unwrap().records), ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn a_commit_only_goes_forward_and_not_beyond_the_end() {
    let (logs, _directory) = logs(&Settings::default()).await;
    for log in logs {
        log.append(&[record("a"), record("b")]).await.unwrap();
        log.commit("pump", Position(1)).await.unwrap();
        log.commit("pump", Position(0)).await.unwrap();
        assert_eq!(names(&log.read("pump", 9).await.unwrap().records), ["b"]);
        log.commit("pump", Position(99)).await.unwrap();
        log.append(&[record("c")]).await.unwrap();
        assert_eq!(names(&log.read("pump", 9).await.unwrap().records), ["c"]);
    }
}

#[tokio::test]
async fn who_reads_ahead_of_the_log_waits_for_it() {
    let (logs, _directory) = logs(&Settings::default()).await;
    for log in logs {
        let reading = tokio::spawn({
            let log = log.clone();
            async move { log.read("pump", 9).await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!reading.is_finished());
        log.append(&[record("a")]).await.unwrap();
        let batch = tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap().unwrap();
        assert_eq!(names(&batch.records), ["a"]);
    }
}

#[tokio::test]
async fn many_who_append_at_once_lose_nothing() {
    let (logs, _directory) = logs(&Settings { segment_bytes: 10_000, ..Settings::default() }).await;
    for log in logs {
        let writers = (0..50).map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for number in 0..20 {
                    log.append(&[record(&format!("{writer}-{number}"))]).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 1000 {
            let batch = log.read("pump", 64).await.unwrap();
            seen.extend(names(&batch.records).into_iter().map(str::to_owned));
            log.commit("pump", batch.next).await.unwrap();
        }
        for writer in 0..50 {
            let own: Vec<_> = seen.iter().filter(|name| name.starts_with(&format!("{writer}-"))).cloned().collect();
            let wanted: Vec<_> = (0..20).map(|number| format!("{writer}-{number}")).collect();
            assert_eq!(own, wanted, "in the order of each writer");
        }
    }
}

#[tokio::test]
async fn what_is_kept_is_bounded_but_for_what_a_reader_needs() {
    let settings = Settings { keep_bytes: 2_000, segment_bytes: 500, ..Settings::default() };
    let (logs, _directory) = logs(&settings).await;
    for log in logs {
        log.append(&[record("first")]).await.unwrap();
        log.append(&[record("second")]).await.unwrap();
        log.commit("slow", Position(1)).await.unwrap();
        for number in 0..50 {
            log.append(&[record(&number.to_string())]).await.unwrap();
        }
        assert_eq!(names(&log.read("slow", 1).await.unwrap().records), ["second"]);
        log.commit("slow", Position(50)).await.unwrap();
        for number in 50..60 {
            log.append(&[record(&number.to_string())]).await.unwrap();
        }
        let oldest = log.read("new", 1).await.unwrap().records.remove(0).object.name;
        assert!(oldest.parse::<u32>().is_ok_and(|oldest| oldest >= 40), "{oldest}");
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_whole() {
    let (logs, _directory) = logs(&Settings::default()).await;
    for log in logs {
        let long = record(&"x".repeat(RECORD_BYTES));
        let refused = log.append(&[record("a"), long]).await.unwrap_err();
        assert!(matches!(refused, Error::TooLong(_)), "{refused}");
        log.append(&[record("b")]).await.unwrap();
        assert_eq!(names(&log.read("pump", 9).await.unwrap().records), ["b"]);
        for name in ["", "a/b", "..", &"x".repeat(65)] {
            assert!(matches!(log.read(name, 1).await.unwrap_err(), Error::BadReader(_)));
            assert!(matches!(log.commit(name, Position(1)).await.unwrap_err(), Error::BadReader(_)));
        }
    }
}
