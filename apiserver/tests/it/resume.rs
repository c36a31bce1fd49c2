//! What is seen after a restart, and by whom was away.

use onex_apiserver::Settings;
use serde_json::{Value, json};

use crate::world::{MAPS, World, map};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_nobody_is_shown_an_older_state_than_was_told() {
    let storage = onex_storage::open(&"memory:".parse().unwrap(), &Default::default()).await.unwrap();
    let before = World::over(storage.clone(), Settings::default()).await;
    for n in 0..500 {
        before.post(MAPS, map(&format!("m{n}"))).await.is(201);
    }
    let last = before.get(&format!("{MAPS}/m499")).await.is(200);
    before.delete(&format!("{MAPS}/m0"), Value::Null).await.is(200);
    drop(before);

    let after = World::unready_over(storage, Settings::default()).await;
    assert_eq!(after.get(&format!("{MAPS}/m499")).await.is(200), last);
    after.get(&format!("{MAPS}/m0")).await.is(404);
    assert_eq!(after.get(MAPS).await.is(200)["items"].as_array().unwrap().len(), 499);
}

#[tokio::test]
async fn who_was_away_gets_what_they_missed_in_pieces_of_a_bounded_size() {
    const LARGE: usize = 40_000;
    let world = World::new().await;
    let first = world.post(MAPS, map("first")).await.is(201);
    for n in 0..20 {
        let mut large = map(&format!("m{n:02}"));
        large["data"]["a"] = json!("x".repeat(LARGE));
        world.post(MAPS, large).await.is(201);
    }
    let since = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = world.watch(&format!("{MAPS}?watch=true&resourceVersion={since}")).await;
    let mut seen = 0;
    while seen < 20 {
        let piece = watch.piece().await.unwrap();
        // Two of these are more than a piece should have, and one is less.
        assert!(piece.len() < 3 * LARGE, "{}", piece.len());
        seen += piece.iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(seen, 20);
}
