//! One function a promise of `Storage`. Each is given an empty storage.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use onex_storage::{
    Change, Changes, Entry, Error, Expected, KEY_BYTES, Key, Page, Prefix, Revision, Run, Storage, VALUE_BYTES,
};

type Shared = Arc<dyn Storage>;

async fn create(storage: &Shared, key: &str, value: &str) -> Revision {
    storage.put(&key.into(), Bytes::from(value.to_owned()), Expected::Absent).await.unwrap()
}

async fn update(storage: &Shared, key: &str, value: &str, at: Revision) -> Revision {
    storage.put(&key.into(), Bytes::from(value.to_owned()), Expected::At(at)).await.unwrap()
}

fn entry(key: &str, value: &str, revision: Revision) -> Entry {
    Entry { key: key.into(), revision, value: Bytes::from(value.to_owned()) }
}

/// The revision that is so many changes after the beginning, which is where an empty storage is.
fn after(beginning: Revision, changes: u64) -> Revision {
    Revision(beginning.0 + changes)
}

async fn keys(storage: &Shared, page: Page) -> Vec<String> {
    storage.list(page).await.unwrap().entries.iter().map(|entry| entry.key.to_string()).collect()
}

/// The next changes, as many as asked for, however they are bundled.
async fn next(changes: &mut Changes, count: usize) -> Vec<Change> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let run = tokio::time::timeout(Duration::from_secs(30), changes.next()).await.expect("changes come in time");
        let run = run.expect("the watch goes on").unwrap();
        assert!(run.changes.iter().all(|change| change.revision <= run.revision));
        seen.extend(run.changes);
    }
    assert_eq!(seen.len(), count);
    seen
}

/// What comes next that is more than time going by.
async fn end(changes: &mut Changes) -> Option<Result<Run, Error>> {
    let mut told = changes.filter(|run| std::future::ready(!run.as_ref().is_ok_and(|run| run.changes.is_empty())));
    tokio::time::timeout(Duration::from_secs(30), told.next()).await.expect("the watch ends in time")
}

pub async fn what_was_put_can_be_read(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    assert_eq!(storage.get(&"/a".into()).await.unwrap(), None);
    assert_eq!(storage.list(Page::all("/")).await.unwrap().revision, beginning);
    let first = create(&storage, "/a", "one").await;
    assert_eq!(first, nth(1));
    assert_eq!(storage.get(&"/a".into()).await.unwrap(), Some(entry("/a", "one", first)));
    let second = update(&storage, "/a", "", first).await;
    assert_eq!(second, nth(2));
    assert_eq!(storage.get(&"/a".into()).await.unwrap(), Some(entry("/a", "", second)));
}

pub async fn a_put_that_expects_wrongly_answers_what_is_there(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    let first = create(&storage, "/a", "one").await;
    let second = update(&storage, "/a", "two", first).await;
    for expected in [Expected::Absent, Expected::At(first), Expected::At(Revision(99))] {
        let refused = storage.put(&"/a".into(), Bytes::from("three"), expected).await.unwrap_err();
        assert!(matches!(refused, Error::Conflict { current: Some(ref now) } if *now == entry("/a", "two", second)));
    }
    let refused = storage.put(&"/b".into(), Bytes::from("three"), Expected::At(second)).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { current: None }));
    // What was refused has no revision.
    assert_eq!(create(&storage, "/b", "x").await, nth(3));
}

pub async fn of_many_writers_of_one_entry_each_revision_has_one_winner(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    create(&storage, "/counter", "0").await;
    let increments = (0..8).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < 25 {
                let now = storage.get(&"/counter".into()).await.unwrap().unwrap();
                let number: u64 = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
                let value = Bytes::from((number + 1).to_string());
                match storage.put(&now.key, value, Expected::At(now.revision)).await {
                    Ok(_) => done += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        })
    });
    join_all(increments).await.into_iter().for_each(|increment| increment.unwrap());
    assert_eq!(storage.get(&"/counter".into()).await.unwrap(), Some(entry("/counter", "200", nth(201))));
}

pub async fn a_deletion_has_a_revision_and_expects_like_a_put(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    let first = create(&storage, "/a", "one").await;
    let refused = storage.delete(&"/a".into(), Revision(99)).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { current: Some(ref now) } if now.revision == first));
    assert_eq!(storage.delete(&"/a".into(), first).await.unwrap(), nth(2));
    assert_eq!(storage.get(&"/a".into()).await.unwrap(), None);
    let refused = storage.delete(&"/a".into(), first).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { current: None }));
    assert_eq!(storage.list(Page::all("/")).await.unwrap().revision, nth(2));
}

pub async fn a_key_that_was_deleted_can_be_made_again(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    let first = create(&storage, "/a", "one").await;
    storage.delete(&"/a".into(), first).await.unwrap();
    let refused = storage.put(&"/a".into(), Bytes::from("two"), Expected::At(first)).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { current: None }));
    assert_eq!(create(&storage, "/a", "three").await, nth(3));
}

pub async fn a_list_is_in_order_and_in_pages(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    for key in ["/b/3", "/b/1", "/a/1", "/c/1", "/b/2", "/b", "/b/10"] {
        create(&storage, key, key).await;
    }
    assert_eq!(keys(&storage, Page::all("/b/")).await, ["/b/1", "/b/10", "/b/2", "/b/3"]);
    assert_eq!(keys(&storage, Page::all("")).await.len(), 7);
    assert_eq!(keys(&storage, Page::all("/none/")).await.len(), 0);
    let page = Page { limit: Some(2), ..Page::all("/b/") };
    let listing = storage.list(page.clone()).await.unwrap();
    assert_eq!((listing.entries.len(), listing.remaining), (2, 2));
    assert_eq!(listing.entries[0], entry("/b/1", "/b/1", nth(2)));
    assert_eq!(listing.revision, nth(7));
    let after = Some(listing.entries[1].key.clone());
    let listing = storage.list(Page { after, ..page.clone() }).await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["/b/2", "/b/3"]);
    assert_eq!(listing.remaining, 0);
    // A beginning that is no key, before the prefix, in it, and behind it.
    assert_eq!(keys(&storage, Page { after: Some("/a".into()), ..Page::all("/b/") }).await.len(), 4);
    assert_eq!(keys(&storage, Page { after: Some("/b/11".into()), ..Page::all("/b/") }).await, ["/b/2", "/b/3"]);
    assert_eq!(keys(&storage, Page { after: Some("/c".into()), ..Page::all("/b/") }).await.len(), 0);
}

pub async fn a_list_of_no_entries_counts(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    for number in 0..5 {
        create(&storage, &format!("/a/{number}"), "x").await;
    }
    let listing = storage.list(Page { limit: Some(0), ..Page::all("/a/") }).await.unwrap();
    assert_eq!((listing.entries.len(), listing.remaining, listing.revision), (0, 5, nth(5)));
}

pub async fn a_list_shows_the_past_as_it_was(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    let a = create(&storage, "/x/a", "1").await;
    let b = create(&storage, "/x/b", "1").await;
    let a2 = update(&storage, "/x/a", "2", a).await;
    storage.delete(&"/x/b".into(), b).await.unwrap();
    let c = create(&storage, "/x/c", "1").await;
    let at = |revision| Page { at: Some(revision), ..Page::all("/x/") };
    let expected = [
        (nth(0), vec![]),
        (nth(1), vec![entry("/x/a", "1", a)]),
        (nth(2), vec![entry("/x/a", "1", a), entry("/x/b", "1", b)]),
        (nth(3), vec![entry("/x/a", "2", a2), entry("/x/b", "1", b)]),
        (nth(4), vec![entry("/x/a", "2", a2)]),
        (nth(5), vec![entry("/x/a", "2", a2), entry("/x/c", "1", c)]),
    ];
    for (revision, entries) in expected {
        let listing = storage.list(at(revision)).await.unwrap();
        assert_eq!((listing.revision, listing.entries), (revision, entries));
    }
}

pub async fn a_list_of_the_future_is_refused(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    create(&storage, "/a", "1").await;
    let refused = storage.list(Page { at: Some(nth(2)), ..Page::all("/") }).await.unwrap_err();
    assert!(matches!(refused, Error::Future { newest } if newest == nth(1)));
}

pub async fn pages_of_a_past_revision_fit_together(storage: Shared) {
    // More than a store looks at in one go.
    for number in 0..1500 {
        create(&storage, &format!("/a/{number:04}"), "old").await;
    }
    let at = storage.list(Page { limit: Some(0), ..Page::all("") }).await.unwrap().revision;
    for number in (0..1500).step_by(2) {
        let key = Key::from(format!("/a/{number:04}"));
        let now = storage.get(&key).await.unwrap().unwrap();
        storage.put(&key, Bytes::from("new"), Expected::At(now.revision)).await.unwrap();
        create(&storage, &format!("/a/{number:04}-between"), "new").await;
    }
    let mut seen = Vec::new();
    loop {
        let after = seen.last().map(|last: &Entry| last.key.clone());
        let page = Page { prefix: "/a/".into(), after, limit: Some(400), at: Some(at) };
        let listing = storage.list(page).await.unwrap();
        assert_eq!(listing.revision, at);
        seen.extend(listing.entries);
        assert_eq!(listing.remaining, 1500 - seen.len());
        if listing.remaining == 0 {
            break;
        }
    }
    assert!(seen.iter().all(|entry| entry.value == "old" && entry.revision <= at));
}

pub async fn a_watch_begins_where_it_is_told_and_sees_only_its_prefix(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    let a = create(&storage, "/a/1", "x").await;
    create(&storage, "/b/1", "x").await;
    let mut all = storage.watch(&"".into(), beginning).await.unwrap();
    let mut later = storage.watch(&"/a/".into(), a).await.unwrap();
    create(&storage, "/a/2", "x").await;
    create(&storage, "/b/2", "x").await;
    create(&storage, "/a/3", "x").await;
    let seen = next(&mut all, 5).await;
    assert_eq!(seen.iter().map(|change| change.revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5].map(nth));
    let seen = next(&mut later, 2).await;
    assert_eq!(seen.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["/a/2", "/a/3"]);
    let more = tokio::time::timeout(Duration::from_millis(20), later.next()).await;
    assert!(more.is_err(), "nothing happened, and the watch waits");
}

pub async fn a_watch_tells_what_was_there_before(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let mut changes = storage.watch(&"/".into(), beginning).await.unwrap();
    let first = create(&storage, "/a", "1").await;
    let second = update(&storage, "/a", "2", first).await;
    let third = storage.delete(&"/a".into(), second).await.unwrap();
    let change = |revision, value: Option<&str>, previous| Change {
        key: "/a".into(),
        revision,
        value: value.map(|value| Bytes::from(value.to_owned())),
        previous,
    };
    let expected = [
        change(first, Some("1"), None),
        change(second, Some("2"), Some(entry("/a", "1", first))),
        change(third, None, Some(entry("/a", "2", second))),
    ];
    assert_eq!(next(&mut changes, 3).await, expected);
}

pub async fn a_watch_misses_nothing_while_many_write(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    const WRITERS: usize = 16;
    const WRITES: usize = 100;
    let watchers = (0..4).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let mut changes = storage.watch(&Prefix::from("/"), beginning).await.unwrap();
            next(&mut changes, WRITERS * WRITES).await
        })
    });
    let watchers: Vec<_> = watchers.collect();
    let writers = (0..WRITERS).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for write in 0..WRITES {
                revisions.push(create(&storage, &format!("/{writer}/{write}"), "x").await);
            }
            revisions
        })
    });
    for (writer, revisions) in join_all(writers).await.into_iter().enumerate() {
        let revisions = revisions.unwrap();
        assert!(revisions.is_sorted_by(|one, other| one < other), "writer {writer} sees time pass");
    }
    for seen in join_all(watchers).await {
        let revisions: Vec<_> = seen.unwrap().iter().map(|change| change.revision).collect();
        assert_eq!(revisions, (1..=(WRITERS * WRITES) as u64).map(nth).collect::<Vec<_>>());
    }
}

pub async fn a_watch_of_the_future_is_refused(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    create(&storage, "/a", "1").await;
    let refused = storage.watch(&"/".into(), nth(2)).await.err().unwrap();
    assert!(matches!(refused, Error::Future { newest } if newest == nth(1)));
}

pub async fn compaction_forgets_up_to_a_revision(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    let mut at = create(&storage, "/a", "0").await;
    for number in 1..10 {
        at = update(&storage, "/a", &number.to_string(), at).await;
    }
    storage.compact(nth(6)).await.unwrap();
    let refused = storage.list(Page { at: Some(nth(5)), ..Page::all("/") }).await.unwrap_err();
    assert!(matches!(refused, Error::Compacted { oldest } if oldest == nth(6)));
    let kept = storage.list(Page { at: Some(nth(6)), ..Page::all("/") }).await.unwrap();
    assert_eq!(kept.entries, [entry("/a", "5", nth(6))]);
    let mut too_early = storage.watch(&"/".into(), nth(5)).await.unwrap();
    assert!(matches!(end(&mut too_early).await, Some(Err(Error::Compacted { oldest })) if oldest == nth(6)));
    assert!(end(&mut too_early).await.is_none());
    let mut in_time = storage.watch(&"/".into(), nth(6)).await.unwrap();
    let seen = next(&mut in_time, 4).await;
    assert_eq!(seen[0].previous, Some(entry("/a", "5", nth(6))));
    // What is forgotten stays forgotten, and no revision is lost.
    storage.compact(nth(3)).await.unwrap();
    storage.compact(nth(10)).await.unwrap();
    assert_eq!(update(&storage, "/a", "x", at).await, nth(11));
    assert!(storage.list(Page { at: Some(nth(10)), ..Page::all("/") }).await.is_ok());
}

pub async fn a_watch_that_compaction_overtakes_ends(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    let mut changes = storage.watch(&"/".into(), beginning).await.unwrap();
    create(&storage, "/a", "1").await;
    next(&mut changes, 1).await;
    create(&storage, "/b", "1").await;
    let last = create(&storage, "/c", "1").await;
    storage.compact(last).await.unwrap();
    match end(&mut changes).await {
        Some(Err(Error::Compacted { oldest })) => {
            assert_eq!(oldest, nth(3));
            assert!(end(&mut changes).await.is_none());
        }
        // It was on its way already. Then all of it was.
        Some(Ok(run)) => {
            let mut seen = run.changes;
            if seen.len() < 2 {
                seen.extend(next(&mut changes, 1).await);
            }
            assert_eq!(seen.iter().map(|change| change.revision).collect::<Vec<_>>(), [nth(2), nth(3)]);
        }
        other => panic!("{other:?}"),
    }
}

pub async fn compaction_of_the_future_is_refused(storage: Shared) {
    let beginning = storage.newest().await.unwrap();
    let nth = |changes| after(beginning, changes);
    create(&storage, "/a", "1").await;
    let refused = storage.compact(nth(2)).await.unwrap_err();
    assert!(matches!(refused, Error::Future { newest } if newest == nth(1)));
}

pub async fn keys_and_values_have_bounds(storage: Shared) {
    let put = async |key: String, value: usize| {
        storage.put(&Key::from(key), Bytes::from(vec![b'x'; value]), Expected::Absent).await
    };
    assert!(put("k".repeat(KEY_BYTES), VALUE_BYTES).await.is_ok());
    assert!(matches!(put("k".repeat(KEY_BYTES + 1), 1).await, Err(Error::Size { what: "key", .. })));
    assert!(matches!(put(String::new(), 1).await, Err(Error::Size { what: "key", .. })));
    assert!(matches!(put("/large".into(), VALUE_BYTES + 1).await, Err(Error::Size { what: "value", .. })));
}

pub async fn text_in_any_language_is_a_key(storage: Shared) {
    create(&storage, "/küche/löffel", "1").await;
    create(&storage, "/キッチン/スプーン", "2").await;
    assert_eq!(keys(&storage, Page::all("/k")).await, ["/küche/löffel"]);
    assert_eq!(keys(&storage, Page::all("/キ")).await, ["/キッチン/スプーン"]);
}

pub async fn the_newest_revision_is_known_and_watches_come_to_it(storage: Shared) {
    let mut changes = storage.watch(&"/a/".into(), storage.newest().await.unwrap()).await.unwrap();
    let made = create(&storage, "/a/1", "x").await;
    assert_eq!(storage.newest().await.unwrap(), made);
    assert_eq!(next(&mut changes, 1).await[0].revision, made);
    if !storage.is_shared() {
        return; // whoever is the only one to write knows what there is
    }
    // What is beside the prefix is no change, and yet the watch says that it has come so far.
    let beside = create(&storage, "/b/1", "x").await;
    assert!(storage.newest().await.unwrap() >= beside);
    loop {
        let run = tokio::time::timeout(Duration::from_secs(30), changes.next()).await.unwrap().unwrap().unwrap();
        assert!(run.changes.iter().all(|change| change.key.as_str().starts_with("/a/")));
        if run.revision >= beside {
            break;
        }
    }
}
