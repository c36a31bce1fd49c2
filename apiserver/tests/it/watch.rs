//! Watches.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::world::{MAPS, SETS, TABLE, World, labelled, map, set};

#[tokio::test]
async fn a_watch_tells_every_change_in_order_with_its_own_revision() {
    let world = World::new().await;
    let mut watch = world.watch(&format!("{MAPS}?watch=true")).await;
    world.post(MAPS, map("a")).await.is(201);
    let changed = world.merge(&format!("{MAPS}/a"), json!({"data": {"a": "2"}})).await.is(200);
    world.delete(&format!("{MAPS}/a"), Value::Null).await.is(200);
    let added = watch.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["kind"]), (&json!("ADDED"), &json!("ConfigMap")));
    let modified = watch.next().await.unwrap();
    assert_eq!(modified["type"], "MODIFIED");
    assert_eq!(modified["object"], changed);
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(deleted["object"]["data"]["a"], "2");
    let number = |e: &Value| e["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&added) < number(&modified) && number(&modified) < number(&deleted));
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_what_is_there() {
    let world = World::new().await;
    for name in ["a", "b"] {
        world.post(MAPS, map(name)).await.is(201);
    }
    for query in ["watch=1", "watch=true&resourceVersion=0", "watch=true&limit=500"] {
        let mut watch = world.watch(&format!("{MAPS}?{query}")).await;
        assert_eq!(watch.told().await, "ADDED a");
        assert_eq!(watch.told().await, "ADDED b");
        watch.is_silent().await;
    }
    let mut one = world.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Db")).await;
    assert_eq!(one.told().await, "ADDED b");
    one.is_silent().await;
}

#[tokio::test]
async fn a_watch_list_says_when_its_beginning_is_over() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = world.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    let annotations = &bookmark["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
    let list = STANDARD.decode(annotations["kubernetes.io/initial-events-list-blueprint"].as_str().unwrap()).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list, json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": []}));
    world.post(MAPS, map("b")).await.is(201);
    assert_eq!(watch.told().await, "ADDED b");
    world.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await.is(422);
    world.get(&format!("{MAPS}?watch=true&resourceVersionMatch=NotOlderThan")).await.is(422);
}

#[tokio::test]
async fn what_enters_a_selection_is_added_and_what_leaves_it_is_deleted() {
    let world = World::new().await;
    let mut watch = world.watch(&format!("{MAPS}?watch=true&labelSelector=on%3Dyes")).await;
    let path = format!("{MAPS}/a");
    world.post(MAPS, labelled("a", json!({"on": "no"}))).await.is(201);
    world.merge(&path, json!({"metadata": {"labels": {"on": "yes"}}})).await.is(200);
    world.merge(&path, json!({"data": {"a": "2"}})).await.is(200);
    let left = world.merge(&path, json!({"metadata": {"labels": {"on": "no"}}})).await.is(200);
    assert_eq!(watch.told().await, "ADDED a");
    assert_eq!(watch.told().await, "MODIFIED a");
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(deleted["object"]["metadata"]["labels"]["on"], "yes", "the state before it left");
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    world.delete(&path, Value::Null).await.is(200);
    watch.is_silent().await;
}

#[tokio::test]
async fn a_watch_from_before_history_is_told_that_it_expired() {
    let settings = onex_apiserver::Settings { history_seconds: 0, ..Default::default() };
    let world = World::with(settings).await;
    for name in ["a", "b"] {
        world.post(MAPS, map(name)).await.is(201);
    }
    let mut watch = world.watch(&format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none(), "and it ends");
}

#[tokio::test]
async fn a_watch_ends_after_its_time_and_bids_farewell_with_a_bookmark() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let mut watch =
        world.watch(&format!("{MAPS}?watch=true&resourceVersion=0&timeoutSeconds=30&allowWatchBookmarks=true")).await;
    assert_eq!(watch.told().await, "ADDED a");
    // From here on only the clock makes anything happen, and it goes from one moment to the next that somebody waits for. A
    // real one might skip the farewell on a busy machine.
    tokio::time::pause();
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert!(bookmark["object"]["metadata"]["resourceVersion"].is_string());
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn only_the_first_table_of_a_watch_has_headings() {
    let world = World::new().await;
    for name in ["a", "b"] {
        world.post(SETS, set(name)).await.is(201);
    }
    let mut watch = world.watch_as(&format!("{SETS}?watch=true&resourceVersion=0"), TABLE).await;
    let first = watch.next().await.unwrap();
    assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    let second = watch.next().await.unwrap();
    assert!(second["object"]["columnDefinitions"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(second["object"]["rows"][0]["object"]["metadata"]["name"], "b");
}

#[tokio::test]
async fn two_watchers_of_a_busy_collection_see_the_same() {
    let world = std::sync::Arc::new(World::new().await);
    let mut one = world.watch(&format!("{MAPS}?watch=true")).await;
    let mut all = world.watch("/api/v1/configmaps?watch=true").await;
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let world = world.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    world.post(MAPS, map(&format!("m{w}-{n}"))).await.is(201);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut last = 0;
    for _ in 0..160 {
        let (first, second) = (one.next().await.unwrap(), all.next().await.unwrap());
        assert_eq!(first, second);
        let revision = first["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(revision > last, "in the order of revisions, none twice");
        last = revision;
    }
}

#[tokio::test]
async fn events_are_one_and_the_same_in_both_groups() {
    let world = World::new().await;
    let core = "/api/v1/namespaces/default/events";
    let group = "/apis/events.k8s.io/v1/namespaces/default/events";
    let mut watch = world.watch(&format!("{group}?watch=true")).await;
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "MinerSet", "namespace": "default", "name": "a"},
        "reason": "Made", "message": "it was made", "type": "Normal", "source": {"component": "test"},
    });
    world.post(core, event).await.is(201);
    let seen = watch.next().await.unwrap();
    assert_eq!(seen["object"]["apiVersion"], "events.k8s.io/v1");
    assert_eq!(seen["object"]["note"], "it was made");
    assert_eq!(seen["object"]["regarding"]["name"], "a");
    let found = world.get(&format!("{group}?fieldSelector=regarding.name=a")).await.is(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let described = "involvedObject.kind%3DMinerSet%2CinvolvedObject.name%3Da";
    assert_eq!(
        world.get(&format!("{core}?fieldSelector={described}")).await.is(200)["items"].as_array().unwrap().len(),
        1
    );
    let other = json!({
        "metadata": {"name": "f"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Make", "reason": "Made", "type": "Normal",
        "reportingController": "test", "reportingInstance": "test-1", "regarding": {"kind": "MinerSet", "namespace": "default", "name": "b"}, "note": "noted",
    });
    world.post(group, other).await.is(201);
    assert_eq!(world.get(&format!("{core}/f")).await.is(200)["message"], "noted");
}

#[tokio::test]
async fn a_watcher_who_leaves_is_forgotten() {
    let world = World::new().await;
    let count = async || {
        let page = world.get("/metrics").await.text;
        let line =
            page.lines().find(|line| line.starts_with("apiserver_longrunning_requests") && line.contains("configmaps"));
        line.and_then(|line| line.rsplit(' ').next().map(str::to_owned)).unwrap_or_default()
    };
    let watch = world.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(count().await, "1");
    drop(watch);
    assert_eq!(count().await, "0");
}

#[tokio::test]
async fn watches_take_no_place_from_requests_and_requests_without_a_place_are_told_when_to_come_back() {
    let world = one_place().await;
    let mut watches = [world.watch(&format!("{MAPS}?watch=1")).await, world.watch(&format!("{MAPS}?watch=1")).await];
    assert_eq!(ask(&world, "bob", "/version").await.0, 200);
    let waiting = format!("{MAPS}?resourceVersion=999999&timeout=1s");
    let (_, (code, retry_after)) = tokio::join!(world.get(&waiting), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        ask(&world, "bob", "/version").await
    });
    assert_eq!((code, retry_after.as_deref()), (429, Some("1")));
    world.post(MAPS, map("a")).await.is(201);
    for watch in &mut watches {
        assert_eq!(watch.told().await, "ADDED a");
    }
}

#[tokio::test]
async fn the_parts_of_the_platform_need_no_place_and_everybody_else_does() {
    let world = one_place().await;
    let waiting = format!("{MAPS}?resourceVersion=999999&timeout=1s");
    let others = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        for part in ["system:onex-controllers", "system:onex-apiserver", "system:node:onex"] {
            assert_eq!(ask(&world, part, "/version").await.0, 200, "{part}");
        }
        for other in ["bob", "system:onex", "system:anonymous"] {
            assert_eq!(ask(&world, other, "/version").await.0, 429, "{other}");
        }
    };
    tokio::join!(world.get(&waiting), others);
}

async fn one_place() -> World {
    World::with(onex_apiserver::Settings { max_requests_in_flight: 1, ..Default::default() }).await
}

async fn ask(world: &World, user: &str, path: &str) -> (u16, Option<String>) {
    let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(world.server.router_as(user, &[]), request).await.unwrap();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), retry_after)
}
