//! Creating and updating.

use serde_json::{Value, json};

use crate::world::{MAPS, SETS, World, map, set};

#[tokio::test]
async fn a_created_object_comes_back_with_what_only_the_server_sets() {
    let world = World::new().await;
    let mut object = map("one");
    object["metadata"]["uid"] = "mine".into();
    object["metadata"]["creationTimestamp"] = Value::Null;
    let answer = world.post(MAPS, object).await;
    let created = answer.is(201);
    let meta = &created["metadata"];
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
    assert!(meta["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(meta["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(meta["namespace"], "default");
    assert_eq!(meta["managedFields"][0]["operation"], "Update");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-cache, private");
    assert!(answer.headers.contains_key("audit-id"));
    assert_eq!(world.get(&format!("{MAPS}/one")).await.is(200), created);
}

#[tokio::test]
async fn a_minerset_is_filled_and_gets_a_selector_of_its_own() {
    let world = World::new().await;
    let mut wanted = set("test");
    wanted["spec"].as_object_mut().unwrap().remove("replicas");
    wanted["status"] = json!({"replicas": 7});
    let made = world.post(SETS, wanted).await.is(201);
    assert_eq!(made["spec"]["replicas"], 1);
    assert_eq!(made["spec"]["deletePolicy"], "Random");
    assert_eq!(made["spec"]["selector"], json!({"matchLabels": {"apps.onex.io/minerset": "test"}}));
    assert_eq!(made["spec"]["template"]["metadata"]["labels"], json!({"apps.onex.io/minerset": "test"}));
    assert_eq!(made["spec"]["template"]["spec"]["displayName"], "miner-for-test-minerset");
    assert_eq!(made["metadata"]["generation"], 1);
    assert_ne!(made["status"]["replicas"], 7);
}

#[tokio::test]
async fn generated_names_are_known_to_the_selector() {
    let world = World::new().await;
    let mut wanted = set("");
    wanted["metadata"] = json!({"generateName": "pool-"});
    let made = world.post(SETS, wanted).await.is(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("pool-") && name.len() == 10, "{name}");
    assert_eq!(made["spec"]["selector"]["matchLabels"]["apps.onex.io/minerset"], name);
    let nameless = world.post(MAPS, json!({"metadata": {}})).await;
    assert!(nameless.says(422).contains("metadata.name: Required value: name or generateName is required"));
}

#[tokio::test]
async fn a_name_can_only_be_taken_once() {
    let world = World::new().await;
    world.post(SETS, set("a")).await.is(201);
    let again = world.post(SETS, set("a")).await;
    assert_eq!(again.says(409), r#"minersets.apps.onex.io "a" already exists"#);
    assert_eq!(again.json()["details"], json!({"name": "a", "group": "apps.onex.io", "kind": "minersets"}));
    assert_eq!(again.json()["reason"], "AlreadyExists");
}

#[tokio::test]
async fn the_namespace_of_a_new_object_comes_to_be() {
    let world = World::new().await;
    world.post("/api/v1/namespaces/fresh/configmaps", map("a")).await.is(201);
    let namespace = world.get("/api/v1/namespaces/fresh").await.is(200);
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "fresh");
}

#[tokio::test]
async fn without_auto_provision_a_missing_namespace_is_not_found() {
    let settings =
        onex_apiserver::Settings { disable_admission: vec!["NamespaceAutoProvision".to_owned()], ..Default::default() };
    let world = World::with(settings).await;
    let answer = world.post("/api/v1/namespaces/nope/configmaps", map("a")).await;
    assert_eq!(answer.says(404), r#"namespaces "nope" not found"#);
}

#[tokio::test]
async fn an_update_needs_the_newest_version_and_changes_nothing_twice() {
    let world = World::new().await;
    let path = format!("{MAPS}/a");
    let first = world.post(MAPS, map("a")).await.is(201);
    let mut wanted = first.clone();
    wanted["data"]["a"] = "2".into();
    let second = world.put(&path, wanted.clone()).await.is(200);
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    let stale = world.put(&path, wanted.clone()).await;
    assert_eq!(
        stale.says(409),
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    let same = world.put(&path, second.clone()).await.is(200);
    assert_eq!(same, second, "an update that changes nothing keeps its version");
    wanted["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    wanted["data"]["a"] = "3".into();
    world.put(&path, wanted).await.is(200);
    world.put(&format!("{MAPS}/missing"), map("missing")).await.is(404);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let world = World::new().await;
    let path = format!("{SETS}/a");
    let made = world.post(SETS, set("a")).await.is(201);
    let mut both = made.clone();
    both["spec"]["replicas"] = 5.into();
    both["status"] = json!({"replicas": 3});
    let spec = world.put(&path, both.clone()).await.is(200);
    assert_eq!(spec["spec"]["replicas"], 5);
    assert_ne!(spec["status"]["replicas"], 3);
    assert_eq!(spec["metadata"]["generation"], 2);
    both["metadata"]["resourceVersion"] = spec["metadata"]["resourceVersion"].clone();
    both["spec"]["replicas"] = 9.into();
    let status = world.put(&format!("{path}/status"), both).await.is(200);
    assert_eq!(status["spec"]["replicas"], 5);
    assert_eq!(status["status"]["replicas"], 3);
    assert_eq!(status["metadata"]["generation"], 2, "a status is no new generation");
    let mut labelled = status.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(world.put(&path, labelled).await.is(200)["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_dry_run_does_everything_but_store() {
    let world = World::new().await;
    let made = world.post(&format!("{SETS}?dryRun=All"), set("a")).await.is(201);
    assert_eq!(made["spec"]["selector"]["matchLabels"]["apps.onex.io/minerset"], "a");
    world.get(&format!("{SETS}/a")).await.is(404);
    world.post(&format!("{SETS}?dryRun=Some"), set("a")).await.is(422);
    world.post(SETS, set("a")).await.is(201);
    world.post(&format!("{SETS}?dryRun=All"), set("a")).await.is(409);
    world.delete(&format!("{SETS}/a?dryRun=All"), Value::Null).await.is(200);
    let path = format!("{SETS}/a");
    let patched = world.merge(&format!("{path}?dryRun=All"), json!({"spec": {"replicas": 8}})).await.is(200);
    assert_eq!(patched["spec"]["replicas"], 8);
    assert_eq!(world.get(&path).await.is(200)["spec"]["replicas"], 2);
}

#[tokio::test]
async fn scale_is_a_view_of_the_replicas() {
    let world = World::new().await;
    world.post(SETS, set("a")).await.is(201);
    let path = format!("{SETS}/a/scale");
    let scale = world.get(&path).await.is(200);
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"]["selector"], "apps.onex.io/minerset=a");
    assert_eq!(world.merge(&path, json!({"spec": {"replicas": 5}})).await.is(200)["spec"]["replicas"], 5);
    let body =
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "a"}, "spec": {"replicas": 6}});
    // kubectl scale --current-replicas sends no content type.
    let answer = world.send(http::Method::PUT, &path, &[], body.to_string()).await;
    assert_eq!(answer.is(200)["spec"]["replicas"], 6);
    assert_eq!(world.get(&format!("{SETS}/a")).await.is(200)["metadata"]["generation"], 3);
    let negative = world.merge(&path, json!({"spec": {"replicas": -1}})).await;
    assert!(negative.says(422).contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"));
    world.get(&format!("{SETS}/missing/scale")).await.is(404);
}

#[tokio::test]
async fn a_hundred_writers_of_one_object_lose_no_update() {
    let world = std::sync::Arc::new(World::new().await);
    world.post(MAPS, map("a")).await.is(201);
    let one = |n: usize| {
        let world = world.clone();
        tokio::spawn(async move {
            let patch = json!({"data": {format!("k{n}"): "v"}});
            world.merge(&format!("{MAPS}/a"), patch).await.is(200);
        })
    };
    let writers: Vec<_> = (0..20).map(one).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let data = world.get(&format!("{MAPS}/a")).await.is(200)["data"].as_object().unwrap().len();
    assert_eq!(data, 21);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.post(pods, pod).await.is(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    world.post(&format!("{pods}/p/binding"), binding.clone()).await.is(201);
    assert_eq!(world.get(&format!("{pods}/p")).await.is(200)["spec"]["nodeName"], "n");
    world.post(&format!("{pods}/p/binding"), binding).await.is(409);
    let bound = world.get(&format!("{pods}?fieldSelector=spec.nodeName=n")).await.is(200);
    assert_eq!(bound["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pod_is_bound_only_as_it_was_seen_and_only_to_what_could_be_a_node() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |finalizers: Value| json!({"metadata": {"name": "p", "finalizers": finalizers}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let bind = async |meta: Value, node: &str| {
        world.post(&format!("{pods}/p/binding"), json!({"metadata": meta, "target": {"name": node}})).await
    };
    let made = world.post(pods, pod(json!(["x.io/stay"]))).await.is(201);
    let invalid = bind(json!({}), "../Nowhere").await;
    assert!(
        invalid.says(422).starts_with(r#"Binding "p" is invalid: target.name: Invalid value: "../Nowhere": "#),
        "{}",
        invalid.text
    );
    let other = bind(json!({"name": "p", "uid": "another"}), "n").await;
    assert!(other.says(409).contains("Precondition failed: UID in precondition: another"), "{}", other.text);
    bind(json!({"resourceVersion": "1"}), "n").await.is(409);
    let seen =
        json!({"name": "p", "uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]});
    world.delete(&format!("{pods}/p"), json!({})).await.is(200);
    let late = bind(json!({}), "n").await;
    assert_eq!(
        late.says(409),
        r#"Operation cannot be fulfilled on pods/binding "p": pod p is being deleted, cannot be assigned to a host"#
    );
    world.merge(&format!("{pods}/p"), json!({"metadata": {"finalizers": null}})).await.is(200);
    let again = world.post(pods, pod(Value::Null)).await.is(201);
    bind(seen, "n").await.is(409);
    bind(json!({"name": "p", "uid": again["metadata"]["uid"]}), "n").await.is(201);
    let bound = world.get(&format!("{pods}/p")).await.is(200);
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["uid"]), (&json!("n"), &again["metadata"]["uid"]));
}

#[tokio::test]
async fn a_chain_needs_no_spec() {
    let world = World::new().await;
    let chains = "/apis/apps.onex.io/v1beta1/namespaces/kube-system/chains";
    let made = world.post(chains, json!({"metadata": {"name": "bare"}})).await.is(201);
    assert_eq!(made["spec"]["minerType"], "S1.SMALL2");
    assert_eq!(made["spec"]["minMineIntervalSeconds"], 43200);
    assert_eq!(made["spec"]["bootstrapAccount"], "0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e");
}

#[tokio::test]
async fn an_event_does_not_bring_a_namespace_back() {
    let world = World::new().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "gone", "name": "x", "kind": "Pod"}});
    let answer = world.post("/api/v1/namespaces/gone/events", event).await;
    assert_eq!(answer.says(404), r#"namespaces "gone" not found"#);
    world.get("/api/v1/namespaces/gone").await.is(404);
}

/// B28: the default prefix of OneX is for Miners without any name, and not for all of them.
#[tokio::test]
async fn b28_a_miner_without_a_name_gets_one_and_one_with_a_name_gets_no_prefix() {
    let world = World::new().await;
    let path = "/apis/apps.onex.io/v1beta1/namespaces/default/miners";
    let unnamed = world.post(path, json!({"spec": {"chainName": "genesis"}})).await.is(201);
    assert!(unnamed["metadata"]["name"].as_str().unwrap().starts_with("mi-"), "{unnamed}");
    let named = world.post(path, json!({"metadata": {"name": "a"}, "spec": {"chainName": "genesis"}})).await.is(201);
    assert!(named["metadata"].get("generateName").is_none(), "{named}");
    world.post(SETS, json!({"spec": {"template": {"spec": {"chainName": "genesis"}}}})).await.is(422);
}

#[tokio::test]
async fn a_name_that_is_yet_to_be_generated_is_not_warned_of() {
    let world = World::new().await;
    let mut object = set("");
    object["metadata"] = json!({"generateName": "gen-"});
    let created = world.post(SETS, object).await;
    created.is(201);
    assert_eq!(created.warnings(), [""; 0]);
    let dotted = world.post(SETS, set("a.b")).await;
    dotted.is(201);
    assert_eq!(dotted.warnings().len(), 1);
}
