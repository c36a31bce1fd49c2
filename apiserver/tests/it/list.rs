//! Lists, pages, selectors, tables.

use serde_json::{Value, json};

use crate::world::{MAPS, SETS, TABLE, World, labelled, map, set};

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn with_maps(count: usize) -> World {
    let world = World::new().await;
    for n in 0..count {
        world
            .post(MAPS, labelled(&format!("m{n}"), json!({"odd": (n % 2 == 1).to_string(), "n": n.to_string()})))
            .await
            .is(201);
    }
    world
}

#[tokio::test]
async fn a_list_is_in_the_order_of_names_and_can_be_watched_from() {
    let world = with_maps(3).await;
    let list = world.get(MAPS).await.is(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(names(&list), ["m0", "m1", "m2"]);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = world.watch(&format!("{MAPS}?watch=true&resourceVersion={revision}")).await;
    watch.is_silent().await;
    world.post(MAPS, map("m3")).await.is(201);
    assert_eq!(watch.told().await, "ADDED m3");
    let empty = world.get("/api/v1/namespaces/nowhere/configmaps").await.is(200);
    assert_eq!(empty["items"], json!([]));
}

#[tokio::test]
async fn pages_show_one_state_whatever_happens_between_them() {
    let world = with_maps(7).await;
    let first = world.get(&format!("{MAPS}?limit=3")).await.is(200);
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    world.delete(&format!("{MAPS}/m4"), Value::Null).await.is(200);
    world.post(MAPS, map("m31")).await.is(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = world.get(&format!("{MAPS}?limit=3&continue={token}")).await.is(200);
    assert_eq!(names(&second), ["m3", "m4", "m5"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = world.get(&format!("{MAPS}?limit=3&continue={token}")).await.is(200);
    assert_eq!(names(&last), ["m6"]);
    assert!(last["metadata"].get("continue").is_none() && last["metadata"].get("remainingItemCount").is_none());
    let both = world.get(&format!("{MAPS}?continue={token}&resourceVersion=5")).await;
    assert_eq!(both.says(400), "specifying resource version is not allowed when using continue");
    world.get(&format!("{MAPS}?limit=3&continue=rubbish")).await.is(400);
}

#[tokio::test]
async fn a_page_whose_state_is_forgotten_says_how_to_go_on() {
    let settings = onex_apiserver::Settings { history_seconds: 0, ..Default::default() };
    let world = World::with(settings).await;
    for n in 0..4 {
        world.post(MAPS, map(&format!("m{n}"))).await.is(201);
    }
    let first = world.get(&format!("{MAPS}?limit=2")).await.is(200);
    world.post(MAPS, map("m9")).await.is(201);
    let list = world.get(&format!("{MAPS}?limit=1")).await.is(200); // pins another snapshot, and forgets the first
    assert!(list["metadata"]["continue"].is_string());
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert!(expired.says(410).starts_with("The provided continue parameter is too old"));
    assert_eq!(expired.json()["reason"], "Expired");
    let inconsistent = expired.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = world.get(&format!("{MAPS}?continue={inconsistent}")).await.is(200);
    assert_eq!(names(&rest), ["m2", "m3", "m9"]);
}

#[tokio::test]
async fn selectors_select() {
    let world = with_maps(5).await;
    let cases: &[(&str, &[&str])] = &[
        ("labelSelector=odd%3Dtrue", &["m1", "m3"]),
        ("labelSelector=odd!=true", &["m0", "m2", "m4"]),
        ("labelSelector=n+in+(1,2)", &["m1", "m2"]),
        ("labelSelector=n+notin+(1,2),odd", &["m0", "m3", "m4"]),
        ("labelSelector=!odd", &[]),
        ("labelSelector=n%3E3", &["m4"]),
        ("fieldSelector=metadata.name%3Dm3", &["m3"]),
        ("fieldSelector=metadata.name!=m3&labelSelector=odd=true", &["m1"]),
        ("fieldSelector=metadata.namespace==default&limit=2", &["m0", "m1"]),
    ];
    for (query, wanted) in cases {
        assert_eq!(names(&world.get(&format!("{MAPS}?{query}")).await.is(200)), *wanted, "{query}");
    }
    world.get(&format!("{MAPS}?labelSelector=a+b+c")).await.is(400);
    world.get(&format!("{MAPS}?fieldSelector=spec.x=1")).await.is(400);
    let all = world.get("/api/v1/configmaps?fieldSelector=metadata.namespace=default").await.is(200);
    assert_eq!(all["items"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn revisions_that_do_not_exist_are_refused() {
    let world = World::new().await;
    let garbage = world.get(&format!("{MAPS}?resourceVersion=abc")).await;
    assert!(garbage.says(400).starts_with("invalid resource version"));
    let future = world.get(&format!("{MAPS}?resourceVersion=999999999")).await;
    assert!(future.says(504).starts_with("Timeout: Too large resource version: 999999999, current: "));
    assert_eq!(future.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    for query in [
        "resourceVersionMatch=Exact",
        "resourceVersionMatch=Exact&resourceVersion=0",
        "resourceVersionMatch=Sometimes&resourceVersion=1",
        "sendInitialEvents=true",
    ] {
        let answer = world.get(&format!("{MAPS}?{query}")).await;
        assert!(answer.says(422).starts_with("ListOptions.meta.k8s.io \"\" is invalid"), "{query}");
    }
}

#[tokio::test]
async fn an_exact_revision_shows_the_past() {
    let world = with_maps(2).await;
    let then = world.get(MAPS).await.is(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    world.delete(&format!("{MAPS}/m0"), Value::Null).await.is(200);
    world.merge(&format!("{MAPS}/m1"), json!({"data": {"a": "changed"}})).await.is(200);
    let past = world.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact")).await.is(200);
    assert_eq!(names(&past), ["m0", "m1"]);
    assert_eq!(past["items"][1]["data"]["a"], "1");
    assert_eq!(past["metadata"]["resourceVersion"], then);
    let now = world.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan")).await.is(200);
    assert_eq!(names(&now), ["m1"]);
}

#[tokio::test]
async fn a_table_has_the_columns_of_the_kind() {
    let world = World::new().await;
    world.post(SETS, set("a")).await.is(201);
    let table = world.table(SETS).await.is(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Ready", "Current", "Available", "Age", "Selector"]);
    let row = &table["rows"][0];
    assert_eq!((&row["cells"][0], &row["cells"][1]), (&json!("a"), &json!("0/2")));
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["object"]["metadata"]["name"], "a");
    let one = world.table(&format!("{SETS}/a")).await.is(200);
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    world.table(&format!("{SETS}?includeObject=Everything")).await.is(400);
}

#[tokio::test]
async fn metadata_alone_can_be_asked_for() {
    let world = with_maps(1).await;
    let accept = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v=v1,application/json");
    let list =
        world.send(http::Method::GET, MAPS, &[("accept", &accept("PartialObjectMetadataList"))], "").await.is(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert!(list["items"][0].get("data").is_none());
    let one = world
        .send(http::Method::GET, &format!("{MAPS}/m0"), &[("accept", &accept("PartialObjectMetadata"))], "")
        .await
        .is(200);
    assert_eq!(one["kind"], "PartialObjectMetadata");
    let yaml = world.send(http::Method::GET, &format!("{MAPS}/m0"), &[("accept", "application/yaml")], "").await;
    assert!(yaml.text.contains("kind: ConfigMap"), "{}", yaml.text);
    world.send(http::Method::GET, MAPS, &[("accept", "image/png")], "").await.is(406);
    assert_eq!(world.send(http::Method::GET, MAPS, &[("accept", TABLE)], "").await.is(200)["kind"], "Table");
}

#[tokio::test]
async fn a_list_longer_than_a_piece_is_streamed_whole() {
    let world = World::new().await;
    let filler = "x".repeat(3000);
    for n in 0..120 {
        let mut big = map(&format!("m{n:03}"));
        big["data"]["filler"] = filler.clone().into();
        world.post(MAPS, big).await.is(201);
    }
    let list = world.get(MAPS).await.is(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 120);
    let paged = world.get(&format!("{MAPS}?limit=100")).await.is(200);
    assert_eq!(paged["items"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn a_long_list_is_compressed_for_those_who_ask_and_stays_the_same_list() {
    use std::io::Read as _;
    use tower::ServiceExt;
    let world = with_maps(60).await;
    let router = world.server.router_as("admin", &["system:masters"]);
    let ask = async |path: &str, coding: &str| {
        let request =
            http::Request::get(path).header("accept-encoding", coding).body(axum::body::Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let coding = response.headers().get("content-encoding").map(|v| v.to_str().unwrap().to_owned());
        (coding, http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes())
    };
    assert_eq!(ask(MAPS, "gzip").await.0, None, "it is short");
    for number in 0..60 {
        let long: String = (0..5000).map(|i| char::from(b'a' + ((i * 7 + number) % 26) as u8)).collect();
        world.merge(&format!("{MAPS}/m{number}"), json!({"data": {"long": long}})).await.is(200);
    }
    let (plain, expected) = ask(MAPS, "identity").await;
    assert!(plain.is_none() && expected.len() > 256 * 1024);
    let (coding, bytes) = ask(MAPS, "br, gzip;q=0.5").await;
    assert_eq!(coding.as_deref(), Some("gzip"));
    assert!(bytes.len() < expected.len() / 2);
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_ref()).read_to_string(&mut text).unwrap();
    assert_eq!(text.as_bytes(), expected.as_ref());
    assert_eq!(ask(MAPS, "gzip;q=0, *").await.0, None);
    let (coding, table) = ask(&format!("{MAPS}?pretty=1"), "gzip").await;
    assert!(coding.as_deref() == Some("gzip") && !table.is_empty());
}

#[tokio::test]
async fn a_selective_list_of_many_is_the_same_as_one_of_few_in_pages_too() {
    let world = World::new().await;
    let maps = (0..1200).map(|n| {
        labelled(&format!("m{n:04}"), json!({"app": (if n % 2 == 0 { "a" } else { "b" }), "n": (n % 300).to_string()}))
    });
    futures::future::join_all(maps.map(|map| world.post(MAPS, map))).await;
    let select = async |selector: &str| world.get(&format!("{MAPS}?labelSelector={selector}")).await.is(200);
    assert_eq!(names(&select("n%3D7").await), ["m0007", "m0307", "m0607", "m0907"]);
    assert_eq!(names(&select("n%3D7,app%3Da").await), [""; 0]);
    assert_eq!(names(&select("app%3Db,n+in+(7,8)").await), ["m0007", "m0307", "m0607", "m0907"]);
    world.merge(&format!("{MAPS}/m0007"), json!({"metadata": {"labels": {"n": "none"}}})).await.is(200);
    world.delete(&format!("{MAPS}/m0307"), Value::Null).await.is(200);
    let changed = select("n%3D7").await;
    assert_eq!(names(&changed), ["m0607", "m0907"]);
    let revision = changed["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    world.post(MAPS, labelled("m0008a", json!({"n": "8"}))).await.is(201);
    // Pages of one state, and the state of all is what a page pins.
    let first = world.get(&format!("{MAPS}?labelSelector=n%3D8&limit=2")).await.is(200);
    assert_eq!(names(&first), ["m0008", "m0008a"]);
    world.delete(&format!("{MAPS}/m0908"), Value::Null).await.is(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = world.get(&format!("{MAPS}?labelSelector=n%3D8&limit=5&continue={token}")).await.is(200);
    assert_eq!(names(&rest), ["m0308", "m0608", "m0908"]);
    let past = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact&limit=2000");
    assert_eq!(names(&world.get(&past).await.is(200)).len(), 1199);
    let mut watch = world.watch(&format!("{MAPS}?watch=true&labelSelector=n%3D7")).await;
    for name in ["m0607", "m0907"] {
        assert_eq!(watch.next().await.unwrap()["object"]["metadata"]["name"], name);
    }
}
