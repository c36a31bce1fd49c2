//! Kinds that clients define, and what becomes of their objects.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Answer, TABLE, World};

pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRON: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

/// A definition with all that one version can say.
pub fn crontab() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"], "properties": {
                        "cronSpec": {"type": "string"},
                        "image": {"type": "string", "default": "cron:1"},
                        "replicas": {"type": "integer", "minimum": 0},
                        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    }},
                    "status": {"type": "object", "properties": {
                        "replicas": {"type": "integer"}, "selector": {"type": "string"},
                        "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                            "items": {"type": "object", "required": ["type"], "properties":
                                {"type": {"type": "string"}, "status": {"type": "string"}}}},
                    }},
                }}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "selectableFields": [{"jsonPath": ".spec.cronSpec"}],
            }],
        },
    })
}

fn cron(name: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": {"cronSpec": "* *"}})
}

/// Waits until a condition of a definition is as wanted.
async fn condition(world: &World, name: &str, kind: &str, status: &str) -> Value {
    for _ in 0..500 {
        let crd = world.get(&format!("{CRDS}/{name}")).await.is(200);
        let found = crd["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).cloned();
        if let Some(found) = found.filter(|found| found["status"] == status) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is not {kind}={status}: {}", world.get(&format!("{CRDS}/{name}")).await.text);
}

async fn defined(crd: Value) -> World {
    let world = World::new().await;
    world.post(CRDS, crd).await.is(201);
    world
}

fn said(answer: &Answer, code: u16) -> Vec<String> {
    let causes = answer.is(code)["details"]["causes"].clone();
    let said = |cause: &Value| format!("{}: {}", cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap());
    causes.as_array().unwrap_or_else(|| panic!("{}", answer.text)).iter().map(said).collect()
}

#[tokio::test]
async fn objects_can_be_made_as_soon_as_the_definition_is_answered() {
    let world = defined(crontab()).await;
    let made = world.post(CRON, cron("a")).await.is(201);
    assert_eq!(made["spec"], json!({"cronSpec": "* *", "image": "cron:1"}));
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(world.get(&format!("{CRON}/a")).await.is(200), made);
    let list = world.get(CRON).await.is(200);
    assert_eq!((&list["kind"], &list["items"][0]), (&json!("CronTabList"), &made));
    let names = condition(&world, "crontabs.stable.example.com", "NamesAccepted", "True").await;
    assert_eq!((&names["reason"], &names["message"]), (&json!("NoConflicts"), &json!("no conflicts found")));
    let established = condition(&world, "crontabs.stable.example.com", "Established", "True").await;
    assert_eq!(established["reason"], "InitialNamesAccepted");
    let crd = world.get(&format!("{CRDS}/crontabs.stable.example.com")).await.is(200);
    assert_eq!(crd["status"]["acceptedNames"], crd["spec"]["names"]);
    assert_eq!(crd["spec"]["names"]["singular"], "crontab");
    assert_eq!(crd["spec"]["names"]["listKind"], "CronTabList");
    assert_eq!(crd["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
}

#[tokio::test]
async fn nothing_that_is_legal_in_a_definition_is_lost() {
    let mut crd = crontab();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    spec["deep"] = json!({"type": "object", "properties": {"deeper": {"type": "array", "maxItems": 3, "items": {
        "type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"default": {"b": [1, null]}, "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "integer", "nullable": true}}}}}}}});
    spec["port"] = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    spec["word"] = json!({"type": "string", "enum": ["a", "b"], "default": "a", "example": "b", "pattern": "^[ab]$"});
    spec["map"] = json!({"type": "object", "additionalProperties": {"type": "string", "format": "date"}});
    let world = World::new().await;
    let path = format!("{CRDS}?fieldValidation=Strict");
    let made = world.post(&path, crd.clone()).await.is(201);
    assert_eq!(made["spec"]["versions"], crd["spec"]["versions"]);
}

#[tokio::test]
async fn fields_that_the_schema_does_not_know_are_pruned_and_told_of() {
    let world = defined(crontab()).await;
    let mut object = cron("a");
    object["spec"]["foo"] = json!(1);
    object["spec"]["any"] = json!({"kept": [1, {"x": null}]});
    object["metadata"]["bar"] = json!(1);
    let strict = world.post(&format!("{CRON}?fieldValidation=Strict"), object.clone()).await;
    let message = strict.says(400);
    assert!(
        message.contains("strict decoding error: unknown field \"metadata.bar\", unknown field \"spec.foo\""),
        "{message}"
    );
    let warned = world.post(CRON, object.clone()).await;
    assert_eq!(
        warned.warnings(),
        ["299 - \"unknown field \\\"metadata.bar\\\"\"", "299 - \"unknown field \\\"spec.foo\\\"\""]
    );
    let made = warned.is(201);
    assert!(made["spec"]["foo"].is_null() && made["metadata"]["bar"].is_null());
    assert_eq!(made["spec"]["any"], object["spec"]["any"]);
}

#[tokio::test]
async fn an_apply_knows_the_metadata_of_objects_inside_of_objects() {
    let mut crd = crontab();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    spec["template"] =
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}});
    let world = defined(crd).await;
    let mut object = cron("a");
    object["metadata"]["unknownMeta"] = json!("x");
    object["spec"]["template"] =
        json!({"apiVersion": "v1", "kind": "Sub", "metadata": {"name": "b", "unknownSubMeta": "x"}});
    let apply = "application/apply-patch+yaml";
    let path = format!("{CRON}/a?fieldManager=one&fieldValidation=Strict");
    let refused = world.patch(apply, &path, object.clone()).await;
    for field in [".metadata.unknownMeta", ".spec.template.metadata.unknownSubMeta"] {
        assert!(refused.text.contains(&format!("{field}: field not declared in schema")), "{}", refused.text);
    }
    object["metadata"] = json!({"name": "a"});
    object["spec"]["template"]["metadata"] = json!({"name": "b"});
    let made = world.patch(apply, &path, object).await.is(201);
    assert_eq!(made["spec"]["template"], json!({"apiVersion": "v1", "kind": "Sub", "metadata": {"name": "b"}}));
}

#[tokio::test]
async fn unknown_words_in_a_schema_are_pruned_and_told_of() {
    let world = World::new().await;
    let mut crd = crontab();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["image"]["typo"] =
        json!(1);
    let strict = world.post(&format!("{CRDS}?fieldValidation=Strict"), crd.clone()).await.says(400);
    let path = "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.image.typo";
    assert!(strict.contains(&format!("strict decoding error: unknown field \"{path}\"")), "{strict}");
    let made = world.post(CRDS, crd).await.is(201);
    assert_eq!(made["spec"]["versions"][0]["schema"], crontab()["spec"]["versions"][0]["schema"]);
}

#[tokio::test]
async fn beside_a_status_subresource_a_schema_says_little_about_the_whole_object() {
    let world = World::new().await;
    let mut crd = crontab();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["anyOf"] = json!([{"required": ["spec"]}]);
    let refused = world.post(CRDS, crd.clone()).await.says(422);
    assert!(
        refused.contains("fields are allowed at the root of the schema if the status subresource is enabled"),
        "{refused}"
    );
    crd["spec"]["versions"][0]["subresources"].as_object_mut().unwrap().remove("status");
    world.post(CRDS, crd).await.is(201);
}

#[tokio::test]
async fn values_that_the_schema_forbids_are_refused_in_the_words_of_kubernetes() {
    let world = defined(crontab()).await;
    let mut object = cron("a");
    object["spec"] = json!({"replicas": "two"});
    let mut said = said(&world.post(CRON, object).await, 422);
    said.sort();
    assert_eq!(
        said,
        [
            "spec.cronSpec: Required value",
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ]
    );
}

#[tokio::test]
async fn an_update_names_its_version_and_a_strategic_patch_is_no_patch_of_a_custom_resource() {
    let world = defined(crontab()).await;
    world.post(CRON, cron("a")).await.is(201);
    let path = format!("{CRON}/a");
    let refused = world.put(&path, cron("a")).await;
    assert_eq!(said(&refused, 422), ["metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"]);
    let strategic =
        world.patch("application/strategic-merge-patch+json", &path, json!({"spec": {"replicas": 1}})).await;
    assert_eq!(
        strategic.says(415),
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
         application/merge-patch+json, application/apply-patch+yaml"
    );
    assert_eq!(world.merge(&path, json!({"spec": {"replicas": 1}})).await.is(200)["spec"]["replicas"], 1);
}

#[tokio::test]
async fn the_table_has_the_columns_of_the_definition() {
    let world = defined(crontab()).await;
    world.post(CRON, cron("a")).await.is(201);
    let path = format!("{CRON}/a/status");
    world
        .merge(
            &path,
            json!({"status": {"conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]}}),
        )
        .await
        .is(200);
    let table = world.table(CRON).await.is(200);
    let columns: Vec<(&str, &str, i64)> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), c["type"].as_str().unwrap(), c["priority"].as_i64().unwrap()))
        .collect();
    assert_eq!(
        columns,
        [
            ("Name", "string", 0),
            ("Spec", "string", 0),
            ("Replicas", "integer", 1),
            ("Ready", "string", 0),
            ("Age", "date", 0)
        ]
    );
    let cells = &table["rows"][0]["cells"];
    assert_eq!(cells.as_array().unwrap()[..4], [json!("a"), json!("* *"), json!(null), json!("True")]);
    assert!(cells[4].as_str().unwrap().ends_with('s'), "{cells}");
    assert_eq!(
        table["columnDefinitions"][1]["description"],
        "Custom resource definition column (in JSONPath format): .spec.cronSpec"
    );
}

#[tokio::test]
async fn objects_are_selected_by_the_fields_that_the_definition_names() {
    let world = defined(crontab()).await;
    world.post(CRON, cron("a")).await.is(201);
    let mut other = cron("b");
    other["spec"]["cronSpec"] = json!("1 1");
    world.post(CRON, other).await.is(201);
    let names = |list: Value| {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].clone()).collect::<Vec<_>>()
    };
    let selected = world.get(&format!("{CRON}?fieldSelector=spec.cronSpec%3D1%201")).await.is(200);
    assert_eq!(names(selected), ["b"]);
    assert_eq!(
        world.get(&format!("{CRON}?fieldSelector=spec.image%3Dx")).await.says(400),
        "field label not supported: spec.image"
    );
}

#[tokio::test]
async fn status_and_scale_are_parts_of_their_own_where_the_definition_says_so() {
    let world = defined(crontab()).await;
    let mut object = cron("a");
    object["status"] = json!({"replicas": 7});
    assert!(world.post(CRON, object).await.is(201)["status"].is_null(), "a create cannot set the status");
    let path = format!("{CRON}/a");
    let reported = world
        .merge(
            &format!("{path}/status"),
            json!({"status": {"replicas": 2, "selector": "a=b"}, "spec": {"cronSpec": "x"},
            "metadata": {"labels": {"x": "y"}}}),
        )
        .await
        .is(200);
    assert_eq!(reported["status"], json!({"replicas": 2, "selector": "a=b"}));
    assert_eq!((&reported["spec"]["cronSpec"], &reported["metadata"]["generation"]), (&json!("* *"), &json!(1)));
    assert!(reported["metadata"]["labels"].is_null());
    assert_eq!(world.merge(&path, json!({"status": {"replicas": 9}})).await.is(200)["status"]["replicas"], 2);
    let missing = world.get(&format!("{path}/scale")).await.says(500);
    assert!(missing.contains("the spec replicas field \".spec.replicas\" does not exist"), "{missing}");
    let scaled = world.merge(&format!("{path}/scale"), json!({"spec": {"replicas": 4}})).await.is(200);
    assert_eq!(scaled["spec"], json!({"replicas": 4}));
    assert_eq!(scaled["status"], json!({"replicas": 2, "selector": "a=b"}));
    let object = world.get(&path).await.is(200);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(4), &json!(2)));
    world.merge(&path, json!({"metadata": {"labels": {"x": "y"}}})).await.is(200);
    assert_eq!(world.get(&path).await.is(200)["metadata"]["generation"], 2);
}

#[tokio::test]
async fn without_a_status_subresource_the_status_is_a_field_like_others() {
    let mut crd = crontab();
    crd["spec"]["versions"][0].as_object_mut().unwrap().remove("subresources");
    let world = defined(crd).await;
    let mut object = cron("a");
    object["status"] = json!({"replicas": 7});
    assert_eq!(world.post(CRON, object).await.is(201)["status"]["replicas"], 7);
    let changed = world.merge(&format!("{CRON}/a"), json!({"status": {"replicas": 8}})).await.is(200);
    assert_eq!((&changed["status"]["replicas"], &changed["metadata"]["generation"]), (&json!(8), &json!(2)));
    assert_eq!(world.get(&format!("{CRON}/a/status")).await.code, 404);
    assert_eq!(world.get(&format!("{CRON}/a/scale")).await.code, 404);
}

#[tokio::test]
async fn an_apply_merges_lists_as_the_schema_says() {
    let world = defined(crontab()).await;
    let path = format!("{CRON}/a?fieldManager=one");
    let apply = "application/apply-patch+yaml";
    world.patch(apply, &path, cron("a")).await.is(201);
    let status = |kind: &str| {
        json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
        "status": {"conditions": [{"type": kind, "status": "True"}]}})
    };
    world.patch(apply, &format!("{CRON}/a/status?fieldManager=x"), status("X")).await.is(200);
    let both = world.patch(apply, &format!("{CRON}/a/status?fieldManager=y"), status("Y")).await.is(200);
    assert_eq!(both["status"]["conditions"].as_array().unwrap().len(), 2, "{both}");
    let mut other = cron("a");
    other["spec"]["cronSpec"] = json!("9 9");
    let conflict = world.patch(apply, &format!("{CRON}/a?fieldManager=two"), other).await;
    assert!(conflict.says(409).contains(".spec.cronSpec"), "{}", conflict.text);
}

#[tokio::test]
async fn a_definition_that_goes_takes_its_objects_with_it() {
    let world = defined(crontab()).await;
    let mut held = cron("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.post(CRON, held).await.is(201);
    world.post(CRON, cron("free")).await.is(201);
    let mut watch = world.watch(&format!("{CRON}?watch=1")).await;
    assert_eq!([watch.told().await, watch.told().await], ["ADDED free", "ADDED held"]);
    let path = format!("{CRDS}/crontabs.stable.example.com");
    let going = world.delete(&path, Value::Null).await.is(200);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let refused = world.post(CRON, cron("late")).await;
    assert_eq!(refused.says(405), "create not allowed while custom resource definition is terminating");
    condition(&world, "crontabs.stable.example.com", "Terminating", "True").await;
    let mut told = vec![watch.told().await, watch.told().await];
    told.sort();
    assert_eq!(told, ["DELETED free", "MODIFIED held"]);
    world.merge(&format!("{CRON}/held"), json!({"metadata": {"finalizers": null}})).await.is(200);
    assert_eq!(watch.told().await, "DELETED held");
    assert!(watch.next().await.is_none(), "the watch ends with the kind");
    for _ in 0..500 {
        if world.get(&path).await.code == 404 && world.get(CRON).await.code == 404 {
            let groups = world.get("/apis").await.is(200);
            assert!(!groups.to_string().contains("stable.example.com"), "{groups}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the definition stays: {}", world.get(&path).await.text);
}

#[tokio::test]
async fn what_was_defined_is_served_after_a_restart() {
    let url = "memory:".parse().unwrap();
    let storage = onex_storage::open(&url, &onex_storage::Settings::default()).await.unwrap();
    let before = World::over(storage.clone(), Default::default()).await;
    before.post(CRDS, crontab()).await.is(201);
    before.post(CRON, cron("a")).await.is(201);
    condition(&before, "crontabs.stable.example.com", "Established", "True").await;
    drop(before);
    let after = World::over(storage, Default::default()).await;
    assert_eq!(after.get(&format!("{CRON}/a")).await.is(200)["spec"]["cronSpec"], "* *");
    after.post(CRON, cron("b")).await.is(201);
    assert_eq!(after.get(CRON).await.is(200)["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn versions_show_the_same_objects_under_their_own_name() {
    let mut crd = crontab();
    let mut old = crd["spec"]["versions"][0].clone();
    old["name"] = json!("v1beta1");
    old["storage"] = json!(false);
    old["deprecated"] = json!(true);
    old["selectableFields"] = json!([{"jsonPath": ".spec.image"}]);
    let mut unserved = old.clone();
    unserved["name"] = json!("v1alpha1");
    unserved["served"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().extend([old, unserved]);
    let world = defined(crd).await;
    let beta = CRON.replace("/v1/", "/v1beta1/");
    let mut object = cron("a");
    object["apiVersion"] = json!("stable.example.com/v1beta1");
    let made = world.post(&beta, object).await;
    assert_eq!(made.warnings(), ["299 - \"stable.example.com/v1beta1 CronTab is deprecated\""]);
    assert_eq!(made.is(201)["apiVersion"], "stable.example.com/v1beta1");
    assert_eq!(world.get(&format!("{CRON}/a")).await.is(200)["apiVersion"], "stable.example.com/v1");
    let mut watch = world.watch(&format!("{beta}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["apiVersion"], "stable.example.com/v1beta1");
    let selected = world.get(&format!("{beta}?fieldSelector=spec.image%3Dcron:1")).await.is(200);
    assert_eq!(selected["items"][0]["apiVersion"], "stable.example.com/v1beta1");
    assert_eq!(world.get(&format!("{beta}?fieldSelector=spec.cronSpec%3Dx")).await.code, 400);
    assert_eq!(world.get(&CRON.replace("/v1/", "/v1alpha1/")).await.code, 404);
    let group = world.get("/apis/stable.example.com").await.is(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn discovery_and_openapi_follow_the_definitions() {
    let world = World::new().await;
    let aggregated = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let before = world.send(http::Method::GET, "/apis", &aggregated, "").await;
    world.post(CRDS, crontab()).await.is(201);
    let after = world.send(http::Method::GET, "/apis", &aggregated, "").await;
    assert_ne!(before.headers["etag"], after.headers["etag"]);
    let last = after.json()["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["metadata"]["name"], "stable.example.com", "built-in groups come first");
    let resource = &last["versions"][0]["resources"][0];
    assert_eq!((&resource["shortNames"], &resource["categories"]), (&json!(["ct"]), &json!(["all"])));
    let parts: Vec<&Value> =
        resource["subresources"].as_array().unwrap().iter().map(|part| &part["subresource"]).collect();
    assert_eq!(parts, ["scale", "status"]);
    let list = world.get("/apis/stable.example.com/v1").await.is(200);
    assert_eq!(list["resources"][0]["name"], "crontabs");
    let v3 = world.get("/openapi/v3/apis/stable.example.com/v1").await.is(200);
    let schema = &v3["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "stable.example.com", "version": "v1", "kind": "CronTab"}])
    );
    assert_eq!(schema["properties"]["spec"]["properties"]["image"]["default"], "cron:1");
    assert_eq!(schema["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.cronSpec"}]));
    let patch = &v3["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
    let v2 = world.get("/openapi/v2").await.is(200);
    assert!(v2["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"].is_object());
    assert!(world.get("/openapi/v3").await.is(200)["paths"]["apis/stable.example.com/v1"].is_object());
}

#[tokio::test]
async fn a_definition_changes_no_document_but_that_of_its_group() {
    let world = World::new().await;
    let hash = async |path: &str| world.get("/openapi/v3").await.is(200)["paths"][path]["serverRelativeURL"].clone();
    let before = hash("api/v1").await;
    world.post(CRDS, crontab()).await.is(201);
    let defined = hash("apis/stable.example.com/v1").await;
    assert!(defined.is_string());
    let path = format!("{CRDS}/crontabs.stable.example.com");
    let version = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/description", "value": "new"}]);
    world.patch("application/json-patch+json", &path, version).await.is(200);
    assert_ne!(hash("apis/stable.example.com/v1").await, defined);
    assert_eq!(hash("api/v1").await, before);
    world.delete(&path, Value::Null).await.is(200);
    for _ in 0..500 {
        if hash("apis/stable.example.com/v1").await.is_null() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the document outlives its group");
}

#[tokio::test]
async fn fields_to_select_by_may_be_named_later() {
    let world = defined(crontab()).await;
    world.post(CRON, cron("a")).await.is(201);
    assert_eq!(world.get(&format!("{CRON}?fieldSelector=spec.image%3Dcron:1")).await.code, 400);
    let mut watch = world.watch(&format!("{CRON}?watch=1")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let fields =
        json!([{"op": "add", "path": "/spec/versions/0/selectableFields/-", "value": {"jsonPath": ".spec.image"}}]);
    world.patch("application/json-patch+json", &format!("{CRDS}/crontabs.stable.example.com"), fields).await.is(200);
    assert!(watch.next().await.is_none(), "who watches by the old fields begins again");
    world.post(CRON, cron("b")).await.is(201);
    let selected = world.get(&format!("{CRON}?fieldSelector=spec.image%3Dcron:1")).await.is(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 2, "{selected}");
}

#[tokio::test]
async fn many_definitions_at_once_are_all_established() {
    let world = World::new().await;
    let made = (0..60).map(|n| {
        let mut crd = crontab();
        crd["metadata"]["name"] = json!(format!("kinds{n}.stable.example.com"));
        crd["spec"]["names"] = json!({"plural": format!("kinds{n}"), "kind": format!("Kind{n}")});
        let world = &world;
        async move {
            world.post(CRDS, crd).await.is(201);
            let path = format!("/apis/stable.example.com/v1/namespaces/default/kinds{n}");
            let mut object = cron("a");
            object["kind"] = json!(format!("Kind{n}"));
            world.post(&path, object).await.is(201);
        }
    });
    futures::future::join_all(made).await;
    for n in 0..60 {
        condition(&world, &format!("kinds{n}.stable.example.com"), "Established", "True").await;
    }
    let resources = world.get("/apis/stable.example.com/v1").await.is(200)["resources"].clone();
    assert_eq!(resources.as_array().unwrap().len(), 3 * 60);
}

#[tokio::test]
async fn a_definition_that_makes_no_sense_is_refused_with_all_that_is_wrong() {
    let world = World::new().await;
    let mut crd = crontab();
    crd["metadata"]["name"] = json!("other.stable.example.com");
    crd["spec"]["scope"] = json!("World");
    crd["spec"]["conversion"] = json!({"strategy": "Webhook"});
    let version = &mut crd["spec"]["versions"][0];
    version["storage"] = json!(false);
    version["subresources"]["scale"]["specReplicasPath"] = json!(".status.x");
    version["additionalPrinterColumns"] = json!([{"name": "a", "type": "word", "jsonPath": "spec"}]);
    version["selectableFields"] = json!([{"jsonPath": ".spec.nothing"}, {"jsonPath": ".spec.any"}]);
    let fields: Vec<String> = said(&world.post(CRDS, crd).await, 422)
        .iter()
        .map(|cause| cause.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "spec.scope",
            "spec.versions[0].subresources.scale.specReplicasPath",
            "spec.versions[0].additionalPrinterColumns[0].type",
            "spec.versions[0].additionalPrinterColumns[0].jsonPath",
            "spec.versions[0].selectableFields[0].jsonPath",
            "spec.versions[0].selectableFields[1].jsonPath",
            "spec.versions",
            "spec.conversion.strategy",
            "status.storedVersions",
        ]
    );
}

#[tokio::test]
async fn what_objects_depend_on_cannot_change_once_they_may_exist() {
    let world = defined(crontab()).await;
    condition(&world, "crontabs.stable.example.com", "Established", "True").await;
    let path = format!("{CRDS}/crontabs.stable.example.com");
    let refused = world.merge(&path, json!({"spec": {"scope": "Cluster", "names": {"kind": "Other"}}})).await;
    let said = said(&refused, 422);
    assert!(said.contains(&"spec.scope: Invalid value: \"Cluster\": field is immutable".to_owned()), "{said:?}");
    assert!(said.contains(&"spec.names.kind: Invalid value: \"Other\": field is immutable".to_owned()), "{said:?}");
    let mut versions = crontab()["spec"]["versions"].clone();
    versions[0]["name"] = json!("v2");
    let refused = world.merge(&path, json!({"spec": {"versions": versions}})).await;
    assert!(refused.says(422).contains("v1 was previously a storage version, and must remain in spec.versions"));
}

#[tokio::test]
async fn names_that_another_kind_of_the_group_has_are_not_given() {
    let world = defined(crontab()).await;
    let mut other = crontab();
    other["metadata"]["name"] = json!("tabs.stable.example.com");
    other["spec"]["names"] = json!({"plural": "tabs", "kind": "CronTab", "listKind": "TabList", "singular": "tab"});
    world.post(CRDS, other).await.is(201);
    let conflict = condition(&world, "tabs.stable.example.com", "NamesAccepted", "False").await;
    assert_eq!(
        (&conflict["reason"], &conflict["message"]),
        (&json!("KindConflict"), &json!("\"CronTab\" is already in use"))
    );
    assert_eq!(condition(&world, "tabs.stable.example.com", "Established", "False").await["reason"], "NotAccepted");
    assert_eq!(world.get("/apis/stable.example.com/v1/tabs").await.code, 404);
    world.delete(&format!("{CRDS}/crontabs.stable.example.com"), Value::Null).await.is(200);
    condition(&world, "tabs.stable.example.com", "Established", "True").await;
    world.get("/apis/stable.example.com/v1/tabs").await.is(200);
    world.delete(&format!("{CRDS}/tabs.stable.example.com"), Value::Null).await.is(200);
}

#[tokio::test]
async fn what_is_compiled_in_cannot_be_defined_again() {
    let world = World::new().await;
    let mut crd = crontab();
    crd["metadata"]["name"] = json!("minersets.apps.onex.io");
    crd["spec"]["group"] = json!("apps.onex.io");
    crd["spec"]["names"] = json!({"plural": "minersets", "kind": "MinerSet"});
    world.post(CRDS, crd).await.is(201);
    let conflict = condition(&world, "minersets.apps.onex.io", "NamesAccepted", "False").await;
    assert!(conflict["message"].as_str().unwrap().ends_with("is already in use"), "{conflict}");
    world.delete(&format!("{CRDS}/minersets.apps.onex.io"), Value::Null).await.is(200);
    world.get("/apis/apps.onex.io/v1beta1/minersets").await.is(200);
}

#[tokio::test]
async fn a_group_of_kubernetes_needs_an_approval() {
    let world = World::new().await;
    let mut crd = crontab();
    crd["metadata"]["name"] = json!("crontabs.x.k8s.io");
    crd["spec"]["group"] = json!("x.k8s.io");
    let refused = world.post(CRDS, crd.clone()).await.says(422);
    assert!(
        refused.contains("protected groups must have approval annotation \"api-approved.kubernetes.io\""),
        "{refused}"
    );
    crd["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, experimental-only"});
    world.post(CRDS, crd).await.is(201);
    let condition = condition(&world, "crontabs.x.k8s.io", "KubernetesAPIApprovalPolicyConformant", "False").await;
    assert_eq!(condition["reason"], "UnapprovedAnnotation");
}

#[tokio::test]
async fn a_new_default_is_there_for_objects_that_are_older() {
    let world = defined(crontab()).await;
    world.post(CRON, cron("a")).await.is(201);
    let path = format!("{CRDS}/crontabs.stable.example.com");
    let mut versions = crontab()["spec"]["versions"].clone();
    versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["replicas"]["default"] = json!(3);
    versions[0]["additionalPrinterColumns"] = json!([]);
    world.merge(&path, json!({"spec": {"versions": versions}})).await.is(200);
    assert_eq!(world.get(&format!("{CRON}/a")).await.is(200)["spec"]["replicas"], 3);
    let mut watch = world.watch(&format!("{CRON}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["spec"]["replicas"], 3);
    let columns =
        world.send(http::Method::GET, CRON, &[("accept", TABLE)], "").await.is(200)["columnDefinitions"].clone();
    assert_eq!(columns.as_array().unwrap().len(), 2, "name and age");
}

#[tokio::test]
async fn the_rules_of_a_definition_are_asked_of_every_write() {
    let world = World::new().await;
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object",
        "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "message": "min is at most max"},
            {"rule": "self.max >= oldSelf.max", "message": "max only grows"},
        ],
    }}});
    let definition = |schema: Value| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "ranges.x.io"},
            "spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "ranges", "kind": "Range"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        })
    };
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut wrong = schema.clone();
    wrong["properties"]["spec"]["x-kubernetes-validations"][0]["rule"] = "self.min <".into();
    assert!(world.post(definitions, definition(wrong)).await.says(422).contains("compilation failed"));
    world.post(definitions, definition(schema)).await.is(201);
    let ranges = "/apis/x.io/v1/namespaces/default/ranges";
    let range = |min: i64, max: i64| {
        json!({
            "apiVersion": "x.io/v1", "kind": "Range", "metadata": {"name": "r"}, "spec": {"min": min, "max": max},
        })
    };
    assert_eq!(
        world.post(ranges, range(3, 2)).await.says(422),
        "Range.x.io \"r\" is invalid: spec: Invalid value: \"object\": min is at most max"
    );
    world.post(ranges, range(1, 5)).await.is(201);
    let path = format!("{ranges}/r");
    assert!(world.merge(&path, json!({"spec": {"max": 4}})).await.says(422).contains("max only grows"));
    world.merge(&path, json!({"spec": {"max": 6}})).await.is(200);
}
