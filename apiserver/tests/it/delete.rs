//! Deletion: at once, in time, and not at all.

use serde_json::{Value, json};

use crate::world::{MAPS, SETS, World, labelled, map, set};

#[tokio::test]
async fn what_nothing_holds_is_gone_at_once() {
    let world = World::new().await;
    let uid = world.post(SETS, set("a")).await.is(201)["metadata"]["uid"].clone();
    let deleted = world.delete(&format!("{SETS}/a"), json!({"propagationPolicy": "Background"})).await.is(200);
    assert_eq!(deleted["status"], "Success");
    assert_eq!(deleted["details"], json!({"name": "a", "group": "apps.onex.io", "kind": "minersets", "uid": uid}));
    world.delete(&format!("{SETS}/a"), Value::Null).await.is(404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let world = World::new().await;
    let path = format!("{SETS}/a");
    let mut object = set("a");
    object["metadata"]["finalizers"] = json!(["x.io/one"]);
    world.post(SETS, object).await.is(201);
    let mut watch = world.watch(&format!("{SETS}?watch=true")).await;
    watch.told().await;
    let marked = world.delete(&path, Value::Null).await.is(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(marked["metadata"]["generation"], 2);
    let again = world.delete(&path, Value::Null).await.is(200);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    let more = world.merge(&path, json!({"metadata": {"finalizers": ["x.io/one", "x.io/two"]}})).await;
    assert!(more.says(422).contains("no new finalizers can be added if the object is being deleted"));
    let taken = world.post(SETS, set("a")).await;
    assert!(taken.says(409).starts_with("object is being deleted: "));
    world.merge(&path, json!({"metadata": {"finalizers": null}})).await.is(200);
    world.get(&path).await.is(404);
    assert_eq!(watch.told().await, "MODIFIED a");
    assert_eq!(watch.told().await, "DELETED a");
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let world = World::new().await;
    for (name, policy, wanted) in [("a", "Foreground", "foregroundDeletion"), ("b", "Orphan", "orphan")] {
        world.post(MAPS, map(name)).await.is(201);
        let marked = world.delete(&format!("{MAPS}/{name}"), json!({"propagationPolicy": policy})).await.is(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([wanted]));
    }
    world.post(MAPS, map("c")).await.is(201);
    world.delete(&format!("{MAPS}/c"), json!({"propagationPolicy": "Sideways"})).await.is(422);
    world.delete(&format!("{MAPS}/c"), json!({"propagationPolicy": "Orphan", "orphanDependents": true})).await.is(422);
    let by_query = world.delete(&format!("{MAPS}/c?propagationPolicy=Foreground"), Value::Null).await.is(200);
    assert_eq!(by_query["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn preconditions_are_held() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let path = format!("{MAPS}/a");
    let wrong = world.delete(&path, json!({"preconditions": {"uid": "other"}})).await;
    assert!(wrong.says(409).contains("the UID in the precondition (other) does not match the UID in record ("));
    world.delete(&path, json!({"preconditions": {"resourceVersion": "1"}})).await.is(409);
    world.get(&path).await.is(200);
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let world = World::new().await;
    for (name, colour) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        world.post(MAPS, labelled(name, json!({"colour": colour}))).await.is(201);
    }
    let deleted = world.delete(&format!("{MAPS}?labelSelector=colour=red"), Value::Null).await.is(200);
    assert_eq!(deleted["kind"], "ConfigMapList");
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    assert_eq!(world.get(MAPS).await.is(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn b10_a_protected_minerset_survives_every_kind_of_deletion() {
    let world = World::new().await;
    let mut object = set("a");
    object["metadata"]["annotations"] = json!({"apps.onex.io/deletion-protection": "true"});
    world.post(SETS, object).await.is(201);
    world.post(SETS, set("b")).await.is(201);
    let refused = world.delete(&format!("{SETS}/a"), Value::Null).await;
    assert!(refused.says(403).contains("minerset has deletion protection turned on"));
    world.delete(SETS, Value::Null).await.is(403);
    world.get(&format!("{SETS}/a")).await.is(200);
    world.get(&format!("{SETS}/b")).await.is(404);
}

/// Nothing new enters a namespace that is going: the set would have stayed, and its Miners would not.
#[tokio::test]
async fn b10_a_namespace_with_a_protected_minerset_in_it_stays() {
    let world = World::new().await;
    let (space, sets) = ("/api/v1/namespaces/prod", "/apis/apps.onex.io/v1beta1/namespaces/prod/minersets");
    let mut object = set("a");
    object["metadata"]["annotations"] = json!({"apps.onex.io/deletion-protection": "true"});
    world.post(sets, object).await.is(201);
    let refused = world.delete(space, Value::Null).await.says(403);
    assert!(refused.contains(r#"minerset "a" in it has deletion protection turned on"#), "{refused}");
    assert_eq!(world.get(space).await.is(200)["status"]["phase"], "Active");
    let open = json!({"metadata": {"annotations": {"apps.onex.io/deletion-protection": null}}});
    world.merge(&format!("{sets}/a"), open).await.is(200);
    world.delete(space, Value::Null).await.is(200);
}

#[tokio::test]
async fn a_namespace_is_marked_and_takes_nothing_new() {
    let world = World::new().await;
    world.post("/api/v1/namespaces", json!({"metadata": {"name": "going"}})).await.is(201);
    let marked = world.delete("/api/v1/namespaces/going", Value::Null).await.is(200);
    assert_eq!((&marked["kind"], &marked["status"]["phase"]), (&json!("Namespace"), &json!("Terminating")));
    let refused = world.post("/api/v1/namespaces/going/configmaps", map("a")).await;
    refused.is(403);
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut empty = marked.clone();
    empty["spec"]["finalizers"] = json!([]);
    world.put("/api/v1/namespaces/going/finalize", empty).await.is(200);
    world.get("/api/v1/namespaces/going").await.is(404);
    let needed = world.delete("/api/v1/namespaces/default", Value::Null).await;
    assert_eq!(needed.says(403), r#"namespaces "default" is forbidden: this namespace may not be deleted"#);
}

#[tokio::test]
async fn a_pod_on_a_node_has_its_grace_period() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
    world.post(pods, pod("n")).await.is(201);
    let path = format!("{pods}/p");
    let marked = world.delete(&path, Value::Null).await.is(200);
    assert_eq!(marked["kind"], "Pod");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = world.delete(&path, json!({"gracePeriodSeconds": 5})).await.is(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = world.delete(&path, json!({"gracePeriodSeconds": 60})).await.is(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    world.delete(&path, json!({"gracePeriodSeconds": 0})).await.is(200);
    world.get(&path).await.is(404);
    world.post(pods, pod("")).await.is(201);
    world.delete(&path, Value::Null).await.is(200);
    world.get(&path).await.is(404);
}

#[tokio::test]
async fn some_kinds_answer_their_last_state_and_the_others_what_was_deleted() {
    let world = World::new().await;
    let core = "/api/v1/namespaces/default";
    let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}});
    world.post(&format!("{core}/services"), service).await.is(201);
    assert_eq!(world.delete(&format!("{core}/services/s"), Value::Null).await.is(200)["kind"], "Service");
    world.post(&format!("{core}/serviceaccounts"), json!({"metadata": {"name": "a"}})).await.is(201);
    assert_eq!(world.delete(&format!("{core}/serviceaccounts/a"), Value::Null).await.is(200)["kind"], "ServiceAccount");
    let made = world.post(MAPS, map("a")).await.is(201);
    let told = world.delete(&format!("{MAPS}/a"), Value::Null).await.is(200);
    assert_eq!(
        told,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}})
    );
}

#[tokio::test]
async fn the_system_namespaces_are_there_and_the_needed_ones_stay() {
    let world = World::new().await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        world.get(&format!("/api/v1/namespaces/{name}")).await.is(200);
    }
    for name in ["default", "kube-system", "kube-public"] {
        let why = format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
        assert_eq!(world.delete(&format!("/api/v1/namespaces/{name}"), Value::Null).await.says(403), why);
    }
}

#[tokio::test]
async fn an_event_goes_when_its_last_news_is_old() {
    let url = "memory:".parse().unwrap();
    let storage = onex_storage::open(&url, &onex_storage::Settings::default()).await.unwrap();
    let before = World::over(storage.clone(), onex_apiserver::Settings::default()).await;
    let events = "/api/v1/namespaces/default/events";
    let now = before.get("/api/v1/namespaces/default").await.is(200)["metadata"]["creationTimestamp"].clone();
    for (name, last) in [("old", json!("2020-01-01T00:00:00Z")), ("young", now)] {
        let event =
            json!({"metadata": {"name": name}, "involvedObject": {"namespace": "default"}, "lastTimestamp": last});
        before.post(events, event).await.is(201);
    }
    // The creation counts as news too, so both are young for now.
    before.get(&format!("{events}/old")).await.is(200);
    drop(before);
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let settings = onex_apiserver::Settings { event_ttl_seconds: 1, ..Default::default() };
    let after = World::over(storage, settings).await;
    let mut left = 2;
    for _ in 0..100 {
        left = after.get(events).await.is(200)["items"].as_array().unwrap().len();
        if left == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_grace_period_of_ages_is_no_harm() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    world.post(pods, pod).await.is(201);
    let path = format!("{pods}/p");
    let marked = world.delete(&path, json!({"gracePeriodSeconds": i64::MAX})).await.is(200);
    assert!(marked["metadata"]["deletionTimestamp"].as_str().unwrap().starts_with("9999-"), "{marked}");
    let shorter = world.delete(&path, json!({"gracePeriodSeconds": 5})).await.is(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    world.delete(&path, json!({"gracePeriodSeconds": 0})).await.is(200);
    world.get(&path).await.is(404);
}
