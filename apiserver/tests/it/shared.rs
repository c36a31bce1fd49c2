//! Several apiservers over one etcd: whichever is asked, the answer is the same.

use std::time::Duration;

use futures::future::join_all;
use onex_apiserver::{Apiserver, Furniture, Handles, Settings};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    cluster::Cluster,
    world::{MAPS, SETS, World, etcd, map, set},
};

/// Two apiservers, and the etcd that both of them write to.
struct Pair {
    one: World,
    other: World,
    _cluster: Cluster,
}

impl Pair {
    async fn new() -> Self {
        let cluster = Cluster::of(1, &[]);
        let (one, other) = tokio::join!(
            World::over(etcd(&cluster).await, Settings::default()),
            World::over(etcd(&cluster).await, Settings::default()),
        );
        Self { one, other, _cluster: cluster }
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_was_told_the_other_shows_at_once() {
    let Pair { one, other, .. } = &Pair::new().await;
    for n in 0..30 {
        let (writer, reader) = if n % 2 == 0 { (one, other) } else { (other, one) };
        let path = format!("{MAPS}/m{n}");
        let made = writer.post(MAPS, map(&format!("m{n}"))).await.is(201);
        assert_eq!(reader.get(&path).await.is(200), made);
        let list = reader.get(MAPS).await.is(200);
        assert!(revision(&list) >= revision(&made));
        assert!(
            list["items"].as_array().unwrap().iter().any(|item| item["metadata"]["uid"] == made["metadata"]["uid"])
        );
        let mut wanted = made.clone();
        wanted["data"]["a"] = "2".into();
        let changed = reader.put(&path, wanted).await.is(200);
        // What somebody else was told is not held against who tells it again.
        writer.put(&path, changed).await.is(200);
        assert!(reader.put(&path, made).await.says(409).contains("the object has been modified"));
        writer.delete(&path, Value::Null).await.is(200);
        reader.get(&path).await.is(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_the_other_where_it_was_and_so_do_pages() {
    let Pair { one, other, .. } = &Pair::new().await;
    let mut seen = Vec::new();
    let first = one.post(MAPS, map("m0")).await.is(201);
    let mut since = revision(&first);
    for n in 1..=12 {
        let (writer, watched) = if n % 2 == 0 { (one, other) } else { (other, one) };
        let mut watch = watched.watch(&format!("{MAPS}?watch=true&resourceVersion={since}")).await;
        writer.post(MAPS, map(&format!("m{n:02}"))).await.is(201);
        let event = timeout(Duration::from_secs(30), watch.next()).await.unwrap().unwrap();
        assert_eq!(event["type"], "ADDED");
        since = revision(&event["object"]);
        seen.push(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
    }
    let expected: Vec<_> = (1..=12).map(|n| format!("m{n:02}")).collect();
    assert_eq!(seen, expected);

    let (mut names, mut path) = (Vec::new(), format!("{MAPS}?limit=3"));
    for turn in 0.. {
        let page = if turn % 2 == 0 { one } else { other }.get(&path).await.is(200);
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()));
        // Between the pages things change, and the pages do not.
        one.delete(&format!("{MAPS}/m{:02}", 12 - turn), Value::Null).await.is(200);
        match page["metadata"]["continue"].as_str() {
            Some(token) => path = format!("{MAPS}?limit=3&continue={token}"),
            None => break,
        }
    }
    assert_eq!(names, ["m0"].into_iter().map(str::to_owned).chain(expected).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_at_both_none_is_lost() {
    let Pair { one, other, .. } = &Pair::new().await;
    one.post(MAPS, map("m")).await.is(201);
    let writes = (0..40).map(|n| {
        let world = if n % 2 == 0 { one } else { other };
        async move {
            let patch = json!({"data": {format!("k{n}"): "x"}});
            let began = Instant::now();
            loop {
                // Who loses against the others often enough is told so, and tries again.
                let answer = world.merge(&format!("{MAPS}/m"), patch.clone()).await;
                if answer.code != 409 || began.elapsed() > Duration::from_secs(30) {
                    break answer.is(200);
                }
            }
        }
    });
    join_all(writes).await;
    assert_eq!(other.get(&format!("{MAPS}/m")).await.is(200)["data"].as_object().unwrap().len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_defined_at_one_is_soon_served_by_the_other() {
    let Pair { one, other, .. } = &Pair::new().await;
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer", "default": 7}}}}}}});
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}});
    one.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.is(201);
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    let widget =
        |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {}});
    let deadline = Instant::now() + Duration::from_secs(5);
    while other.get(path).await.code != 200 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let made = other.post(path, widget("w")).await.is(201);
    assert_eq!(made["spec"]["n"], 7);
    assert_eq!(one.get(&format!("{path}/w")).await.is(200), made);
    one.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com", Value::Null)
        .await
        .is(200);
    let deadline = Instant::now() + Duration::from_secs(20);
    while other.get(path).await.code != 404 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_than_a_quota_allows_by_asking_both() {
    let Pair { one, other, .. } = &Pair::new().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/minersets.apps.onex.io": "10"}}});
    one.post("/api/v1/namespaces/default/resourcequotas", quota).await.is(201);
    let creates = (0..40).map(|n| {
        let world = if n % 2 == 0 { one } else { other };
        async move { world.post(SETS, set(&format!("s{n}"))).await.code }
    });
    let codes = join_all(creates).await;
    let made = codes.iter().filter(|code| **code == 201).count();
    assert!(codes.iter().all(|code| matches!(code, 201 | 403)), "{codes:?}");
    assert_eq!(made, 10);
    assert_eq!(other.get(SETS).await.is(200)["items"].as_array().unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_nobody_is_shown_the_past_and_nobody_waits_for_ever() {
    let mut cluster = Cluster::of(1, &[]);
    let world = World::over(etcd(&cluster).await, Settings::default()).await;
    world.post(MAPS, map("a")).await.is(201);
    cluster.kill(0);
    let began = Instant::now();
    let path = format!("{MAPS}/a");
    let (read, written, ready) = tokio::join!(world.get(&path), world.post(MAPS, map("b")), async {
        loop {
            let ready = world.get("/readyz").await;
            if ready.code != 200 || began.elapsed() > Duration::from_secs(10) {
                break ready;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    for answer in [&read, &written] {
        assert!(matches!(answer.code, 503 | 504), "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    assert_eq!(ready.code, 500);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    cluster.start(0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.get(&path).await.code != 200 || world.get("/readyz").await.code != 200 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.post(MAPS, map("c")).await.is(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_etcd_is_told_and_nothing_else_suffers() {
    let Pair { one, .. } = &Pair::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let labels = json!({"app": "a"});
    let deployment = |bytes: usize| {
        let container = json!({"name": "c", "image": "i", "env": [{"name": "E", "value": "x".repeat(bytes)}]});
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}})
    };
    let answer = one.post(path, deployment(2 << 20)).await;
    let why = answer.says(413);
    assert!(why.contains("1572864"), "{why}");
    one.post(path, deployment(1 << 20)).await.is(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_say_where_they_all_are_and_must_have_one_authority() {
    let cluster = Cluster::of(1, &[]);
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = |directory: &tempfile::TempDir| {
        onex_daemon::pki::Authority::open_or_create(directory.path()).unwrap().certificate_pem().to_owned()
    };
    let (ours, theirs) = (authority(&home), authority(&elsewhere));
    let handles = async |authority: &str, port: u16| {
        let furniture = Furniture {
            authority: Some(authority.to_owned()),
            address: Some(std::net::SocketAddr::from(([127, 0, 0, 1], port))),
        };
        Handles { furniture, ..Handles::over(etcd(&cluster).await) }
    };
    let mut worlds = Vec::new();
    for port in [6001, 6002] {
        let world = World::unready_of(handles(&ours, port).await, Settings::default()).await;
        world.server.ready().await;
        worlds.push(world);
    }
    let path = "/api/v1/namespaces/default/endpoints/kubernetes";
    let deadline = Instant::now() + Duration::from_secs(20);
    let both = loop {
        let found = worlds[0].get(path).await;
        let ports: Vec<u64> = match found.code {
            200 => found.json()["subsets"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|s| s["ports"][0]["port"].as_u64())
                .collect(),
            _ => Vec::new(),
        };
        if ports.len() == 2 {
            break ports;
        }
        assert!(Instant::now() < deadline, "{ports:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(both.contains(&6001) && both.contains(&6002), "{both:?}");
    // Nobody writes it again and again.
    let before = revision(&worlds[0].get(path).await.is(200));
    for n in 0..5 {
        worlds[n % 2].post(MAPS, map(&format!("m{n}"))).await.is(201);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(revision(&worlds[1].get(path).await.is(200)), before);
    let refused = Apiserver::new(Settings::default(), handles(&theirs, 6003).await).await.err().unwrap();
    assert!(refused.to_string().contains("another certificate authority"), "{refused}");
}
