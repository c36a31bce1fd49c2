//! What holds over every engine.

use std::time::Duration;

use onex_db::Db;
use onex_db::mirror::{Chain, Change, LARGEST_PAGE, Miner, MinerSet, MinersWhere, Position, Row, Wanted};

fn miner(namespace: &str, name: &str, created_at: i64) -> Row<Miner> {
    let of = Miner {
        display_name: format!("{name} \u{1f600} ü"),
        phase: "Running".to_owned(),
        miner_type: "S1.SMALL1".to_owned(),
        chain_name: "genesis".to_owned(),
        cpu: 50,
        memory: 128,
    };
    Row::new(namespace, name, created_at, of)
}

async fn set(db: &Db, rows: Vec<Row<Miner>>) {
    let changes: Vec<_> = rows.into_iter().map(Change::Set).collect();
    db.mirror().apply(&changes, None, 1).await.unwrap();
}

fn names(rows: &[Row<Miner>]) -> Vec<String> {
    rows.iter().map(|row| format!("{}/{}", row.namespace, row.name)).collect()
}

async fn everything(db: &Db) -> Vec<Row<Miner>> {
    db.mirror::<Miner>().list(&Wanted { limit: LARGEST_PAGE, ..Wanted::default() }).await.unwrap().rows
}

pub async fn a_new_database_is_ready_and_empty(db: &Db) {
    db.ready().await.unwrap();
    db.ready().await.unwrap();
    let page = db.mirror::<Chain>().list(&Wanted::default()).await.unwrap();
    assert_eq!((page.rows.len(), page.total, page.position), (0, 0, Position::default()));
    assert_eq!(db.mirror::<MinerSet>().get("a", "b").await.unwrap(), None);
}

pub async fn what_was_set_is_found_with_every_column(db: &Db) {
    let chain = Chain {
        display_name: "Ganesh ☃".to_owned(),
        miner_type: "S1.SMALL2".to_owned(),
        image: "registry/image@sha256:0".to_owned(),
        min_mine_interval_seconds: 43_200,
    };
    let chain = Row::new("kube-system", "genesis", 1_700_000_000_000_001, chain);
    db.mirror().apply(&[Change::Set(chain.clone())], Some(7), 9).await.unwrap();
    let found = db.mirror::<Chain>().get("kube-system", "genesis").await.unwrap().unwrap();
    assert_eq!(found, Row { updated_at: 9, ..chain });

    let bare = Row::new("user-admin", "bare", 1, MinerSet::default());
    let full = MinerSet {
        replicas: i64::from(i32::MAX),
        display_name: "d".to_owned(),
        delete_policy: "Newest".to_owned(),
        min_ready_seconds: 1,
        fully_labeled_replicas: 2,
        ready_replicas: 3,
        available_replicas: 4,
        failure_reason: Some("InvalidConfiguration".to_owned()),
        failure_message: Some("it's \"so\"; drop table gateway_chain; --".to_owned()),
        conditions: Some(r#"[{"type":"Ready"}]"#.to_owned()),
    };
    let full = Row::new("user-admin", "full", 2, full);
    db.mirror().apply(&[Change::Set(bare.clone()), Change::Set(full.clone())], None, 9).await.unwrap();
    for row in [bare, full] {
        let found = db.mirror::<MinerSet>().get("user-admin", &row.name).await.unwrap().unwrap();
        assert!(found.says(&row), "{found:?}");
    }
    let miner = miner("user-admin", "m", 3);
    set(db, vec![miner.clone()]).await;
    assert!(db.mirror::<Miner>().get("user-admin", "m").await.unwrap().unwrap().says(&miner));
}

pub async fn what_is_set_again_is_changed_and_keeps_its_number(db: &Db) {
    let table = db.mirror::<MinerSet>();
    let failed = MinerSet { failure_reason: Some("CreateError".to_owned()), replicas: 3, ..MinerSet::default() };
    table.apply(&[Change::Set(Row::new("a", "b", 1, failed))], None, 1).await.unwrap();
    let before = table.after(0, 10).await.unwrap();
    let well = Row::new("a", "b", 1, MinerSet { replicas: 4, ..MinerSet::default() });
    table.apply(&[Change::Set(well.clone())], None, 2).await.unwrap();
    let after = table.after(0, 10).await.unwrap();
    assert_eq!((after.len(), after[0].0), (1, before[0].0));
    assert_eq!(after[0].1, Row { updated_at: 2, ..well });
}

pub async fn what_is_gone_is_gone_and_may_be_so_already(db: &Db) {
    set(db, vec![miner("a", "b", 1), miner("a", "c", 2), miner("b", "b", 3)]).await;
    let gone = |namespace: &str, name: &str| Change::Gone { namespace: namespace.to_owned(), name: name.to_owned() };
    let changes = [gone("a", "b"), gone("never", "there"), Change::Set(miner("a", "d", 4))];
    db.mirror::<Miner>().apply(&changes, None, 1).await.unwrap();
    assert_eq!(names(&everything(db).await), ["a/d", "b/b", "a/c"]);
}

pub async fn names_differ_by_every_character(db: &Db) {
    set(db, ["a", "A", "ä", "á"].map(|name| miner("n", name, 1)).into()).await;
    assert_eq!(everything(db).await.len(), 4);
    assert_eq!(db.mirror::<Miner>().get("N", "a").await.unwrap(), None);
}

pub async fn a_large_batch_is_written_whole(db: &Db) {
    let rows: Vec<_> = (0..1111).map(|at| miner("a", &format!("m{at}"), at)).collect();
    set(db, rows.clone()).await;
    let page = db.mirror::<Miner>().list(&Wanted { limit: u32::MAX, ..Wanted::default() }).await.unwrap();
    assert_eq!((page.rows.len(), page.total), (1000, 1111));
    let gone = |row: &Row<Miner>| Change::Gone { namespace: row.namespace.clone(), name: row.name.clone() };
    let gone: Vec<_> = rows[1..].iter().map(gone).collect();
    db.mirror::<Miner>().apply(&gone, None, 1).await.unwrap();
    assert_eq!(names(&everything(db).await), ["a/m0"]);
    // Conditions that together are larger than what a server takes at once.
    let conditions = Some("x".repeat(60_000));
    let set =
        |at| Row::new("a", &format!("s{at}"), 1, MinerSet { conditions: conditions.clone(), ..Default::default() });
    let sets: Vec<_> = (0..400).map(|at| Change::Set(set(at))).collect();
    db.mirror::<MinerSet>().apply(&sets, None, 1).await.unwrap();
    assert_eq!(db.mirror::<MinerSet>().list(&Wanted::default()).await.unwrap().total, 400);
}

pub async fn a_list_is_in_order_and_in_pages(db: &Db) {
    let rows = [("b", "x", 1), ("a", "y", 2), ("a", "x", 1), ("a", "z", 1), ("c", "c", 3)];
    set(db, rows.map(|(namespace, name, at)| miner(namespace, name, at)).into()).await;
    let order = ["c/c", "a/y", "b/x", "a/z", "a/x"];
    assert_eq!(names(&everything(db).await), order);
    // A row that was written anew stands where it stood.
    set(db, vec![miner("b", "x", 1)]).await;
    for (offset, limit, expected) in
        [(0, 2, &order[..2]), (2, 2, &order[2..4]), (4, 2, &order[4..]), (5, 2, &[]), (u64::MAX, 1, &[]), (0, 0, &[])]
    {
        let page = db.mirror::<Miner>().list(&Wanted { offset, limit, ..Wanted::default() }).await.unwrap();
        assert_eq!((names(&page.rows), page.total), (expected.iter().map(|&name| name.to_owned()).collect(), 5));
    }
}

pub async fn a_list_can_be_narrowed(db: &Db) {
    let mut other = miner("a", "other", 2);
    other.of =
        Miner { phase: "Failed".to_owned(), chain_name: "side".to_owned(), miner_type: "M1".to_owned(), ..other.of };
    set(db, vec![miner("a", "m", 1), other, miner("b", "m", 3)]).await;
    let some = |text: &str| Some(text.to_owned());
    let none = MinersWhere::default;
    for (namespace, columns, expected) in [
        (some("a"), none(), vec!["a/other", "a/m"]),
        (some("' or 1 = 1 --"), none(), vec![]),
        (None, MinersWhere { chain_name: some("genesis"), ..none() }, vec!["b/m", "a/m"]),
        (some("a"), MinersWhere { phase: some("Failed"), ..none() }, vec!["a/other"]),
        (some("b"), MinersWhere { phase: some("Failed"), ..none() }, vec![]),
        (
            None,
            MinersWhere { miner_type: some("M1"), phase: some("Failed"), chain_name: some("side") },
            vec!["a/other"],
        ),
    ] {
        let wanted = Wanted { namespace, columns, offset: 0, limit: 10 };
        let page = db.mirror::<Miner>().list(&wanted).await.unwrap();
        assert_eq!(
            (names(&page.rows), page.total),
            (expected.iter().map(ToString::to_string).collect(), expected.len() as u64)
        );
    }
}

/// Each batch adds one row and moves on by one revision, so that a page of two moments could not hide it.
pub async fn a_page_is_of_one_moment(db: &Db) {
    const BATCHES: u64 = 60;
    let writer = {
        let table = db.mirror::<Miner>();
        tokio::spawn(async move {
            for at in 1..=BATCHES {
                let row = Change::Set(miner("a", &format!("m{at}"), at.cast_signed()));
                table.apply(&[row], Some(at), at.cast_signed()).await.unwrap();
            }
        })
    };
    let mut seen = 0;
    while seen < BATCHES {
        let page = db.mirror::<Miner>().list(&Wanted { limit: LARGEST_PAGE, ..Wanted::default() }).await.unwrap();
        assert_eq!((page.rows.len() as u64, page.position.revision), (page.total, page.total));
        assert!(page.total >= seen, "the list went back from {seen} to {}", page.total);
        seen = page.total;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

pub async fn rows_can_be_gone_through_and_removed(db: &Db) {
    let table = db.mirror::<Miner>();
    set(db, (0..25).map(|at| miner("a", &format!("m{at}"), at)).collect()).await;
    let (mut numbers, mut last) = (Vec::new(), 0);
    loop {
        let some = table.after(last, 10).await.unwrap();
        let Some((number, _)) = some.last() else { break };
        last = *number;
        numbers.extend(some.into_iter().map(|(number, _)| number));
    }
    assert_eq!(numbers.len(), 25);
    assert!(numbers.is_sorted());
    table.remove(&numbers[3..]).await.unwrap();
    table.remove(&[]).await.unwrap();
    assert_eq!(everything(db).await.len(), 3);
}

pub async fn whoever_wrote_can_wait_until_it_is_in(db: &Db) {
    let table = db.mirror::<Miner>();
    assert!(!table.reached(5, Duration::from_millis(20)).await.unwrap());
    let waiting = tokio::spawn({
        let table = table.clone();
        async move { table.reached(5, Duration::from_secs(60)).await }
    });
    table.apply(&[Change::Set(miner("a", "b", 1))], Some(4), 10).await.unwrap();
    table.compared(6, 11).await.unwrap();
    assert!(waiting.await.unwrap().unwrap());
    assert_eq!(table.position().await.unwrap(), Position { revision: 6, compared_at: 11, written_at: 10 });
    // Each kind has its own.
    assert_eq!(db.mirror::<Chain>().position().await.unwrap(), Position::default());
}

pub async fn text_that_is_too_long_is_cut_to_its_column(db: &Db) {
    let long = "\u{1f600}".repeat(1000);
    let of = Miner {
        display_name: long.clone(),
        phase: long.clone(),
        miner_type: long.clone(),
        chain_name: long,
        cpu: 0,
        memory: 0,
    };
    let row = Row::new("a", "b", 1, of);
    set(db, vec![row.clone()]).await;
    assert!(everything(db).await[0].says(&row));
    let chain = Chain {
        display_name: "x".repeat(1000),
        miner_type: "x".repeat(1000),
        image: "x".repeat(1000),
        ..Default::default()
    };
    let chain = Row::new("a", "b", 1, chain);
    db.mirror().apply(&[Change::Set(chain.clone())], None, 1).await.unwrap();
    assert!(db.mirror::<Chain>().get("a", "b").await.unwrap().unwrap().says(&chain));
    let text = Some("x".repeat(1 << 20));
    let set = MinerSet { failure_message: text.clone(), conditions: text, ..Default::default() };
    let set = Row::new("a", "b", 1, set);
    db.mirror().apply(&[Change::Set(set.clone())], None, 1).await.unwrap();
    let found = db.mirror::<MinerSet>().get("a", "b").await.unwrap().unwrap();
    assert_eq!((found.says(&set), found.of.failure_message.unwrap().len(), found.of.conditions), (true, 1 << 16, None));
}
