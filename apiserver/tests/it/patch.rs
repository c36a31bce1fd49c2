//! Patches of all kinds.

use serde_json::{Value, json};

use crate::world::{MAPS, SETS, World, map, set};

const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

#[tokio::test]
async fn each_kind_of_patch_changes_what_it_says() {
    let world = World::new().await;
    world.post(SETS, set("a")).await.is(201);
    let path = format!("{SETS}/a");
    let patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]);
    assert_eq!(world.patch(JSON, &path, patch).await.is(200)["spec"]["replicas"], 3);
    assert_eq!(world.merge(&path, json!({"spec": {"replicas": 4}})).await.is(200)["spec"]["replicas"], 4);
    let patched = world.patch(STRATEGIC, &path, json!({"spec": {"replicas": 5}})).await.is(200);
    assert_eq!(patched["spec"]["replicas"], 5);
    let same = world.merge(&path, json!({"spec": {"replicas": 5}})).await.is(200);
    assert_eq!(same["metadata"]["resourceVersion"], patched["metadata"]["resourceVersion"], "nothing changed");
    let failed = world.patch(JSON, &path, json!([{"op": "test", "path": "/spec/replicas", "value": 9}])).await;
    assert_eq!(failed.says(422), "the server rejected our request due to an error in our request");
    world.patch("application/cbor", &path, json!({})).await.is(415);
    world.merge(&format!("{SETS}/missing"), json!({})).await.is(404);
    let stale = world.merge(&path, json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 6}})).await;
    stale.is(409);
    world.merge(&format!("{path}?force=true"), json!({})).await.is(422);
}

#[tokio::test]
async fn a_patched_object_is_checked_like_any_other() {
    let world = World::new().await;
    world.post(SETS, set("a")).await.is(201);
    let path = format!("{SETS}/a");
    let negative = world.merge(&path, json!({"spec": {"replicas": -1}})).await;
    assert!(negative.says(422).contains("spec.replicas: Invalid value: -1"));
    let unknown = world.merge(&format!("{path}?fieldValidation=Strict"), json!({"spec": {"foo": 1}})).await;
    assert!(unknown.says(422).contains(r#"strict decoding error: unknown field "spec.foo""#), "{}", unknown.text);
    let warned = world.merge(&path, json!({"spec": {"foo": 1}})).await;
    warned.is(200);
    assert_eq!(warned.warnings(), [r#"299 - "unknown field \"spec.foo\"""#]);
    assert_eq!(world.get(&path).await.is(200)["spec"]["replicas"], 2);
}

fn applied(replicas: Option<i64>) -> Value {
    let mut object = set("a");
    object["metadata"]["namespace"] = "default".into();
    match replicas {
        Some(count) => object["spec"]["replicas"] = count.into(),
        None => drop(object["spec"].as_object_mut().unwrap().remove("replicas")),
    }
    object
}

#[tokio::test]
async fn apply_creates_owns_conflicts_and_gives_way_to_force() {
    let world = World::new().await;
    let path = format!("{SETS}/a");
    let apply = |manager: &str, force: bool| format!("{path}?fieldManager={manager}&force={force}");
    world.patch(APPLY, &path, applied(Some(2))).await.is(422);
    let made = world.patch(APPLY, &apply("one", false), applied(Some(2))).await.is(201);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("one"), &json!("Apply")));
    assert_eq!(entry["fieldsV1"]["f:spec"]["f:replicas"], json!({}));
    let same = world.patch(APPLY, &apply("one", false), applied(Some(2))).await.is(200);
    assert_eq!(
        same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"],
        "applied twice is applied once"
    );
    world.patch(APPLY, &apply("two", false), applied(Some(2))).await.is(200);
    let conflict = world.patch(APPLY, &apply("two", false), applied(Some(3))).await;
    assert_eq!(
        conflict.says(409),
        r#"Apply failed with 1 conflict: conflict with "one": .spec.replicas"#,
        "appliers are known by their name alone"
    );
    assert_eq!(conflict.json()["details"]["causes"][0]["field"], ".spec.replicas");
    let forced = world.patch(APPLY, &apply("two", true), applied(Some(3))).await.is(200);
    assert_eq!(forced["spec"]["replicas"], 3);
}

#[tokio::test]
async fn writes_by_other_means_take_fields_from_their_appliers() {
    let world = World::new().await;
    let path = format!("{MAPS}/a?fieldManager=one");
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1", "y": "1"}});
    world.patch(APPLY, &path, object.clone()).await.is(201);
    world.merge(&format!("{MAPS}/a?fieldManager=kubectl-edit"), json!({"data": {"x": "2"}})).await.is(200);
    let conflict = world.patch(APPLY, &path, object).await;
    assert!(conflict.says(409).contains(r#"conflict with "kubectl-edit" using v1: .data.x"#));
    let without = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "2"}});
    let left = world.patch(APPLY, &path, without).await.is(200);
    assert_eq!(left["data"], json!({"x": "2"}), "what nobody applies any more is gone");
}

#[tokio::test]
async fn an_unknown_field_cannot_be_applied() {
    let world = World::new().await;
    let mut object = applied(Some(1));
    object["spec"]["foo"] = 1.into();
    let answer = world.patch(APPLY, &format!("{SETS}/a?fieldManager=one"), object).await;
    assert!(answer.says(500).contains(".spec.foo: field not declared in schema"), "{}", answer.text);
}

#[tokio::test]
async fn strategic_merge_knows_the_keys_of_lists() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "one"}, {"name": "b", "image": "two"}]}});
    world.post(pods, pod).await.is(201);
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b", "image": "three"}]}});
    let patched = world.patch(STRATEGIC, &format!("{pods}/p"), patch).await.is(200);
    assert_eq!(patched["spec"]["containers"][0]["image"], "one");
    assert_eq!(patched["spec"]["containers"][1]["image"], "three");
    world.post(MAPS, map("m")).await.is(201);
    let patched =
        world.patch(STRATEGIC, &format!("{MAPS}/m"), json!({"metadata": {"finalizers": ["a.io/x"]}})).await.is(200);
    assert_eq!(patched["metadata"]["finalizers"], json!(["a.io/x"]));
    let patched =
        world.patch(STRATEGIC, &format!("{MAPS}/m"), json!({"metadata": {"finalizers": ["a.io/y"]}})).await.is(200);
    assert_eq!(patched["metadata"]["finalizers"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_many_conflicts_a_hundred_are_listed() {
    let world = World::new().await;
    let apply = async |manager: &str, value: &str| {
        let data: serde_json::Map<String, Value> = (0..300).map(|n| (format!("k{n}"), value.into())).collect();
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
        world.patch(APPLY, &format!("{MAPS}/a?fieldManager={manager}"), object).await
    };
    apply("first", "1").await.is(201);
    let conflict = apply("second", "2").await.is(409);
    assert_eq!(conflict["details"]["causes"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn a_conflict_over_very_many_fields_is_told_in_few_words() {
    let world = World::new().await;
    let applied = |value: &str| {
        let data: serde_json::Map<_, _> =
            (0..400).map(|n| (format!("{n}-{}", "k".repeat(200)), Value::from(value))).collect();
        let mut map = map("many");
        map["data"] = data.into();
        map
    };
    let path = |manager: &str| format!("{MAPS}/many?fieldManager={manager}");
    world.patch("application/apply-patch+yaml", &path("one"), applied("1")).await.is(201);
    let refused = world.patch("application/apply-patch+yaml", &path("two"), applied("2")).await;
    let message = refused.says(409);
    assert!(message.starts_with("Apply failed with 400 conflicts: conflicts with \"one\":\n- .data."), "{message}");
    assert!(message.ends_with("\nand 300 more") && message.len() < 50_000, "{} bytes", message.len());
    assert_eq!(refused.json()["details"]["causes"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn who_applies_a_scale_owns_the_number_through_the_scale() {
    let world = World::new().await;
    world.post(SETS, set("a")).await.is(201);
    let scale = |replicas: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": replicas}});
    let path = format!("{SETS}/a/scale?fieldManager=scaler");
    let refused = world.patch(APPLY, &path, scale(json!(5))).await;
    assert!(refused.says(409).ends_with(": .spec.replicas"), "{}", refused.text);
    let scaled = world.patch(APPLY, &format!("{path}&force=true"), scale(json!(5))).await.is(200);
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    let object = world.get(&format!("{SETS}/a")).await.is(200);
    assert_eq!(object["spec"]["replicas"], 5);
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    let scaler = managers.iter().find(|entry| entry["manager"] == "scaler").unwrap();
    assert_eq!(
        (&scaler["operation"], &scaler["subresource"], &scaler["apiVersion"], &scaler["fieldsV1"]),
        (&json!("Apply"), &json!("scale"), &json!("apps.onex.io/v1beta1"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    world.patch(APPLY, &path, scale(json!(-1))).await.is(422);
    let other = world.patch(APPLY, &format!("{SETS}/a/scale?fieldManager=other"), scale(json!(7))).await;
    assert!(other.says(409).contains("conflict with \"scaler\" with subresource \"scale\""), "{}", other.text);
}

#[tokio::test]
async fn a_name_is_warned_of_only_while_it_can_be_chosen() {
    let world = World::new().await;
    let made = world.post(SETS, set("a.b")).await;
    assert_eq!((made.code, made.warnings().len()), (201, 1), "{:?}", made.warnings());
    let path = format!("{SETS}/a.b");
    let patched = world.merge(&path, json!({"spec": {"replicas": 3}})).await;
    let put = world.put(&path, set("a.b")).await;
    assert_eq!((patched.code, put.code), (200, 200));
    assert!(patched.warnings().is_empty() && put.warnings().is_empty(), "{:?}", patched.warnings());
}
