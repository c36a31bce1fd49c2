//! Many clients that read long answers slowly, or not at all.

use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::world::{MAPS, World, map};

/// A list, and the same state as the beginning of a watch.
const WAYS: [&str; 2] =
    ["", "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"];

async fn with_maps(count: usize, bytes: usize) -> World {
    let world = World::new().await;
    for n in 0..count {
        let mut map = map(&format!("m{n:03}"));
        map["data"] = json!({"filler": "x".repeat(bytes)});
        world.post(MAPS, map).await.is(201);
    }
    world
}

async fn answer(world: &World, query: &str) -> axum::body::BodyDataStream {
    let router = world.server.router_as("admin", &["system:masters"]);
    let request = http::Request::get(format!("{MAPS}{query}")).body(axum::body::Body::empty()).unwrap();
    router.oneshot(request).await.unwrap().into_body().into_data_stream()
}

/// Reads until a part has `end` in it.
async fn read_until(answer: &mut axum::body::BodyDataStream, end: &str) -> Vec<Bytes> {
    let mut parts = Vec::new();
    loop {
        let part = answer.next().await.unwrap().unwrap();
        let is_last = String::from_utf8_lossy(&part).contains(end);
        parts.push(part);
        if is_last {
            return parts;
        }
    }
}

#[tokio::test]
async fn a_thousand_clients_that_stop_reading_hold_little_each() {
    let world = with_maps(100, 2000).await;
    for query in WAYS {
        let mut clients = Vec::new();
        for _ in 0..1024 {
            let mut answer = answer(&world, query).await;
            let part = answer.next().await.unwrap().unwrap();
            clients.push((answer, part));
        }
        let held: usize = clients.iter().map(|(_, part)| part.len()).sum();
        assert!(
            held < 24 << 20,
            "{held} bytes by {query:?}: the listener asks for no second part before the first is sent"
        );
        // And who goes on reading gets all of it.
        let (mut slow, first) = clients.pop().unwrap();
        assert!(first.len() < 16 << 10, "{}", first.len());
        let rest = read_until(&mut slow, if query.is_empty() { "]}\n" } else { "initial-events-end" }).await;
        let text = String::from_utf8([first.as_ref(), &rest.concat()].concat()).unwrap();
        assert_eq!(text.matches(r#""filler":"x"#).count(), 100, "{query:?}");
        drop(clients);
        let alone = answer(&world, query).await.next().await.unwrap().unwrap();
        assert!(alone.len() > 60 << 10, "few readers get large parts: {}", alone.len());
    }
}

#[tokio::test]
async fn large_objects_are_read_from_where_they_are_stored() {
    let world = with_maps(40, 50_000).await;
    world.post(MAPS, map("small")).await.is(201);
    let large = |parts: &[Bytes]| -> Vec<usize> {
        parts.iter().filter(|part| part.len() > 40_000).map(|part| part.as_ptr() as usize).collect()
    };
    let mut places = Vec::new();
    for query in WAYS.iter().chain(&WAYS) {
        let end = if query.is_empty() { "]}\n" } else { "initial-events-end" };
        let parts = read_until(&mut answer(&world, query).await, end).await;
        places.push(large(&parts));
        let own: usize = parts.iter().map(Bytes::len).filter(|length| *length <= 40_000).sum();
        assert!(own < 40 << 10, "{own} bytes were made for this client, of a state of 2 MB");
        let text = String::from_utf8(parts.concat()).unwrap();
        let objects: Vec<Value> = match query.is_empty() {
            true => serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone(),
            false => {
                let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
                events.filter(|event| event["type"] == "ADDED").map(|event| event["object"].clone()).collect()
            }
        };
        assert_eq!(objects.len(), 41);
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            let stored = world.get(&format!("{MAPS}/{name}")).await.is(200);
            assert_eq!(object["metadata"]["resourceVersion"], stored["metadata"]["resourceVersion"], "{name}");
            assert_eq!(object["data"], stored["data"], "{name}");
        }
    }
    assert_eq!(places[0].len(), 40);
    assert!(places.iter().all(|place| *place == places[0]), "all clients were given the same bytes");
    let page = world.get(&format!("{MAPS}?limit=2")).await.is(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert!(page["metadata"]["continue"].is_string());
}

#[tokio::test]
async fn no_more_answers_are_compressed_at_once_than_there_is_memory_for() {
    let world = with_maps(100, 3000).await;
    let router = world.server.router_as("admin", &["system:masters"]);
    let ask = async || {
        let request =
            http::Request::get(MAPS).header("accept-encoding", "gzip").body(axum::body::Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    let is_compressed = |answer: &axum::response::Response| answer.headers().contains_key("content-encoding");
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(ask().await);
    }
    assert_eq!(open.iter().filter(|answer| is_compressed(answer)).count(), 32);
    let plain = http_body_util::BodyExt::collect(open.pop().unwrap().into_body()).await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&plain).unwrap()["items"].as_array().unwrap().len(), 100);
    drop(open);
    assert!(is_compressed(&ask().await), "places are given back");
}
