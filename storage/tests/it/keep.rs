//! Copies of a storage that is in use, and looks at it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use onex_storage::{Error, Expected, File, Key, Page, Revision, Settings, Storage, back_up, back_up_from, inspect};

async fn open(directory: &std::path::Path, settings: &Settings) -> Arc<dyn Storage> {
    Arc::new(File::open(directory, settings, Arc::new(std::time::SystemTime::now)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_copy_of_a_storage_in_use_holds_all_that_was_acknowledged_before() {
    let (directory, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // So little garbage that it is compacted all the time.
    let settings = Settings { garbage_bytes: 200_000, history_bytes: 50_000, ..Settings::default() };
    let storage = open(directory.path(), &settings).await;
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (storage, over) = (storage.clone(), over.clone());
            tokio::spawn(async move {
                let key = Key::from(format!("/{writer}"));
                let mut at = storage.put(&key, "".into(), Expected::Absent).await.unwrap();
                while !over.load(Ordering::Relaxed) {
                    at = storage.put(&key, Bytes::from(vec![b'x'; 2000]), Expected::At(at)).await.unwrap();
                }
            })
        })
        .collect();
    for copy in 0..20 {
        let before = storage.newest().await.unwrap();
        let (from, to) = (directory.path().to_owned(), copies.path().join(copy.to_string()));
        let kept = {
            let to = to.clone();
            tokio::task::spawn_blocking(move || back_up(&from, &to)).await.unwrap().unwrap()
        };
        assert!(kept.newest >= before && kept.torn.is_none(), "{kept:?}, and {before} before");
        let restored = open(&to, &settings).await;
        let listing = restored.list(Page::all("")).await.unwrap();
        assert_eq!((listing.revision, listing.entries.len()), (kept.newest, kept.entries));
        let next = restored.put(&"/new".into(), "".into(), Expected::Absent).await.unwrap();
        assert_eq!(next, Revision(kept.newest.0 + 1));
    }
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(inspect(directory.path()).unwrap().newest, storage.newest().await.unwrap());
}

#[tokio::test]
async fn any_storage_can_be_copied_into_files() {
    let storage = onex_storage::open(&"memory:".parse().unwrap(), &Settings::default()).await.unwrap();
    let first = storage.put(&"/a".into(), "1".into(), Expected::Absent).await.unwrap();
    storage.put(&"/a".into(), "2".into(), Expected::At(first)).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    let kept = back_up_from(&*storage, copy.path()).await.unwrap();
    assert_eq!((kept.newest, kept.entries), (Revision(2), 1));
    let restored = open(copy.path(), &Settings::default()).await;
    assert_eq!(restored.get(&"/a".into()).await.unwrap(), storage.get(&"/a".into()).await.unwrap());
}

#[tokio::test]
async fn what_is_damaged_is_not_copied_and_nothing_is_written_over() {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = open(directory.path(), &Settings::default()).await;
    for number in 0..100 {
        storage.put(&Key::from(format!("/{number}")), Bytes::from(vec![b'x'; 500]), Expected::Absent).await.unwrap();
    }
    drop(storage);
    std::fs::write(copy.path().join("mine"), "").unwrap();
    let refused = back_up(directory.path(), copy.path()).unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    let log = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
    let log = log.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "log")).unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    for refused in
        [inspect(directory.path()).unwrap_err(), back_up(directory.path(), &copy.path().join("c")).unwrap_err()]
    {
        assert!(matches!(refused, Error::Damaged { ref file, .. } if *file == log), "{refused}");
    }
    assert!(!copy.path().join("c").exists());
    assert!(matches!(inspect(&copy.path().join("nowhere")), Err(Error::Unavailable(_))));
}
