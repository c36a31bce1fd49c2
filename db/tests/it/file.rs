//! What only a file does.

use onex_db::mirror::{Chain, Change, Row, Wanted};

use crate::{at, in_directory};

#[tokio::test(flavor = "multi_thread")]
async fn rows_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let url = in_directory(directory.path());
    let db = at(&url);
    let change = Change::Set(Row::new("a", "b", 1, Chain::default()));
    db.mirror().apply(&[change], Some(3), 1).await.unwrap();
    db.close().await;
    let page = at(&url).mirror::<Chain>().list(&Wanted::default()).await.unwrap();
    assert_eq!((page.total, page.position.revision), (1, 3));
}

/// Both found no tables, and one of them failed.
#[tokio::test(flavor = "multi_thread")]
async fn many_that_open_a_new_file_at_once_find_its_tables() {
    let directory = tempfile::tempdir().unwrap();
    let url = in_directory(directory.path());
    let opening = (0..8).map(|at_once| {
        let db = at(&url);
        tokio::spawn(async move {
            let change = Change::Set(Row::new("a", &format!("c{at_once}"), 1, Chain::default()));
            db.mirror().apply(&[change], None, 1).await
        })
    });
    for opened in opening.collect::<Vec<_>>() {
        opened.await.unwrap().unwrap();
    }
    assert_eq!(at(&url).mirror::<Chain>().list(&Wanted::default()).await.unwrap().total, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("text");
    std::fs::write(&file, "this is not a database, but a text that is long enough to be looked at").unwrap();
    let url = url::Url::parse(&format!("sqlite://{}", file.display())).unwrap();
    let settings = onex_db::Settings { connect_seconds: 1, ..Default::default() };
    let error = onex_db::open(&url, &settings).unwrap().ready().await.unwrap_err();
    assert!(error.story().contains("not a database") && !error.is_passing(), "{}", error.story());
}
