//! Odd input: legal JSON of a shape that nobody means, and requests that ask for less than they seem to.

use http::Method;
use serde_json::{Value, json};

use crate::world::{MAPS, SETS, World, map, set};

#[tokio::test]
async fn metadata_of_another_shape_is_refused_field_by_field() {
    let world = World::new().await;
    let metas = [
        json!([]),
        json!("x"),
        json!({"name": 5}),
        json!({"name": "a", "labels": {"a": 1}}),
        json!({"name": "a", "labels": []}),
        json!({"name": "a", "annotations": "x"}),
        json!({"name": "a", "finalizers": "x"}),
        json!({"name": "a", "finalizers": [null]}),
        json!({"name": "a", "finalizers": [{}]}),
        json!({"name": "a", "ownerReferences": {}}),
        json!({"name": "a", "ownerReferences": [null]}),
        json!({"name": "a", "managedFields": "x"}),
        json!({"name": "a", "creationTimestamp": "yesterday"}),
    ];
    for meta in metas {
        let answer = world.post(MAPS, json!({"metadata": meta})).await;
        assert!(matches!(answer.code, 400 | 422), "{meta}: {}", answer.text);
    }
    let answer = world.post(MAPS, json!({"apiVersion": 5, "metadata": {"name": "a"}})).await;
    assert!(answer.says(400).contains("cannot unmarshal number into Go struct field .apiVersion of type string"));
    assert_eq!(world.get(MAPS).await.is(200)["items"], json!([]));
}

#[tokio::test]
async fn a_null_in_a_map_of_texts_is_the_empty_text_and_the_object_stays_to_be_seen() {
    let world = World::new().await;
    let object =
        json!({"metadata": {"name": "a", "labels": {"x": null}, "annotations": {"y": null}}, "data": {"z": null}});
    let made = world.post(MAPS, object).await.is(201);
    assert_eq!(made["metadata"]["labels"], json!({"x": ""}));
    assert_eq!(made["metadata"]["annotations"], json!({"y": ""}));
    assert_eq!(made["data"], json!({"z": ""}));
    let path = format!("{MAPS}/a");
    let put = json!([{"op": "add", "path": "/metadata/labels/w", "value": null}]);
    let patched = world.patch("application/json-patch+json", &path, put).await.is(200);
    assert_eq!(patched["metadata"]["labels"], json!({"x": "", "w": ""}));
    assert_eq!(world.get(&format!("{MAPS}?labelSelector=w%3D")).await.is(200)["items"][0]["metadata"]["name"], "a");
}

#[tokio::test]
async fn what_is_no_base64_and_no_time_is_refused_in_the_words_of_go() {
    let world = World::new().await;
    let secret = json!({"metadata": {"name": "s"}, "data": {"k": "%%%"}});
    let answer = world.post("/api/v1/namespaces/default/secrets", secret).await;
    assert_eq!(
        answer.says(400),
        r#"Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0"#
    );
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = |time: &str| json!({"metadata": {"name": "l"}, "spec": {"renewTime": time}});
    let answer = world.post(leases, lease("now")).await;
    assert!(answer.says(400).contains(r#"parsing time "now" as "2006-01-02T15:04:05"#), "{}", answer.text);
    world.post(leases, lease("2026-01-02T03:04:05.000006Z")).await.is(201);
}

#[tokio::test]
async fn base64_is_read_as_leniently_as_in_go_and_stored_in_one_way() {
    let world = World::new().await;
    let written = "aGVs\nbG8s\r\nd29ybGR=\n"; // broken into lines, and with a bit left over
    let secrets = "/api/v1/namespaces/default/secrets";
    let made = world.post(secrets, json!({"metadata": {"name": "s"}, "data": {"k": written}})).await.is(201);
    assert_eq!(made["data"]["k"], "aGVsbG8sd29ybGQ=");
    let map = json!({"metadata": {"name": "m"}, "binaryData": {"k": written}});
    assert_eq!(world.post(MAPS, map).await.is(201)["binaryData"]["k"], "aGVsbG8sd29ybGQ=");
    let patched = world.merge(&format!("{secrets}/s"), json!({"data": {"k": "eA=\n="}})).await.is(200);
    assert_eq!(patched["data"]["k"], "eA==");
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": written}});
    let apply = world.patch("application/apply-patch+yaml", &format!("{secrets}/a?fieldManager=m"), object).await;
    assert_eq!(apply.is(201)["data"]["k"], "aGVsbG8sd29ybGQ=");
}

/// One object that Go cannot decode ends every informer of its kind, so none may be stored.
#[tokio::test]
async fn what_go_cannot_read_is_not_stored() {
    let world = World::new().await;
    let post = async |kind: &str, object: Value| {
        let group = if kind == "leases" { "/apis/coordination.k8s.io/v1" } else { "/api/v1" };
        let place = if kind == "nodes" { "" } else { "/namespaces/default" };
        world.post(&format!("{group}{place}/{kind}?dryRun=All"), object).await
    };
    let named = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
    let event = |field: &str, time: &str| {
        json!({
            "metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "reportingComponent": "c",
            "reportingInstance": "i", "action": "a", "reason": "r", field: time,
        })
    };
    let lease = |time: &str| named(json!({"acquireTime": time, "renewTime": time}));
    for (time, plain, micro) in [
        ("2026-01-02T03:04:05Z", 201, 400),
        ("2026-01-02T03:04:05.000006Z", 201, 201),
        ("2026-01-02T03:04:05.000006+01:30", 201, 201),
        ("2026-01-02T03:04:05.000006789Z", 201, 400),
        ("2026-01-02T03:04:05.1-08:00", 201, 400),
        ("2026-01-02T03:04:05.Z", 400, 400),
        ("2026-01-02T03:04:05.00.006Z", 400, 400),
        ("2026-01-02T03Z", 400, 400),
        ("2026-01-02T03:04:05+01", 400, 400),
        ("2026-01-02T03:04:05.000006", 400, 400),
        ("2026-01-02T03:04:05.000006Z[Europe/Berlin]", 400, 400),
        ("2026-01-02t03:04:05.000006z", 400, 400),
        ("2026-01-02 03:04:05.000006Z", 400, 400),
        ("2026-02-30T03:04:05.000006Z", 400, 400),
        ("2026-01-02T03:04:60.000006Z", 400, 400),
        ("２026-01-02T03:04:05.000006Z", 400, 400),
        ("", 400, 400),
    ] {
        assert_eq!(post("events", event("firstTimestamp", time)).await.code, plain, "{time}");
        assert_eq!(post("events", event("eventTime", time)).await.code, micro, "{time}");
        assert_eq!(post("leases", lease(time)).await.code, micro, "{time}");
    }
    assert_eq!(
        post("leases", lease("2026-01-02T03:04:05Z")).await.says(400),
        r#"Lease in version "v1" cannot be handled as a Lease: parsing time "2026-01-02T03:04:05Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "2026-01-02T03:04:05Z" as "2006""#
    );
    let pod = |resources: Value, size: Value| {
        let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
        named(json!({"containers": containers, "volumes": [{"name": "v", "emptyDir": {"sizeLimit": size}}]}))
    };
    post("pods", pod(json!({"limits": {"cpu": "500m", "memory": 1.5e9}}), json!("1Gi"))).await.is(201);
    for wrong in [
        post("pods", pod(json!({"limits": {"cpu": "lots"}}), json!("1Gi"))).await,
        post("pods", pod(json!({}), json!("big"))).await,
        post("nodes", json!({"metadata": {"name": "n"}, "status": {"capacity": {"pods": "many"}}})).await,
    ] {
        assert!(wrong.says(400).contains(": quantities must match the regular expression '^"), "{}", wrong.text);
    }
    let service = |target: Value| named(json!({"ports": [{"port": 80, "targetPort": target}]}));
    for port in [json!(80), json!("http")] {
        post("services", service(port)).await.is(201);
    }
    for (port, found) in
        [(json!(80.5), "number 80.5"), (json!(1_u64 << 31), "number 2147483648"), (json!(true), "bool")]
    {
        assert_eq!(
            post("services", service(port)).await.says(400),
            format!(
                r#"Service in version "v1" cannot be handled as a Service: json: cannot unmarshal {found} into Go value of type int32"#
            )
        );
    }
}

#[tokio::test]
async fn a_deletion_that_is_not_understood_deletes_nothing() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let path = format!("{MAPS}/a");
    let odd = [
        json!([]),
        json!("x"),
        json!({"kind": "ConfigMap"}),
        json!({"dryRun": "All"}),
        json!({"preconditions": "x"}),
        json!({"preconditions": {"uid": 5}}),
        json!({"gracePeriodSeconds": "x"}),
        json!({"propagationPolicy": 5}),
        json!({"orphanDependents": "true"}),
    ];
    for options in odd {
        world.delete(&path, options.clone()).await.is(400);
        world.delete(MAPS, options).await.is(400);
    }
    for query in ["propagationPolicy=Perhaps", "dryRun=Some", "propagationPolicy=Orphan&orphanDependents=true"] {
        world.delete(&format!("{path}?{query}"), Value::Null).await.is(422);
    }
    world.delete(&format!("{path}?gracePeriodSeconds=x"), Value::Null).await.is(400);
    for dry in [json!({"dryRun": ["All"]}), json!({"dryRun": ["All"], "propagationPolicy": "Foreground"})] {
        world.delete(&path, dry).await.is(200);
    }
    world.delete(&format!("{MAPS}?dryRun=All"), json!({})).await.is(200);
    assert!(world.get(&path).await.is(200)["metadata"].get("deletionTimestamp").is_none());
}

#[tokio::test]
async fn a_scale_that_is_not_understood_scales_nothing() {
    let world = World::new().await;
    world.post(SETS, set("a")).await.is(201);
    let path = format!("{SETS}/a/scale");
    let named =
        |spec: Value| json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "a"}, "spec": spec});
    for odd in [
        json!([]),
        json!("x"),
        json!({"kind": "MinerSet"}),
        named(json!("x")),
        named(json!({"replicas": "5"})),
        named(json!({"replicas": 2.5})),
    ] {
        world.put(&path, odd).await.is(400);
    }
    world.put(&path, json!({"metadata": {"name": "b"}, "spec": {"replicas": 7}})).await.is(400);
    world.put(&path, named(json!({"replicas": -1}))).await.is(422);
    let typo = world.put(&format!("{path}?fieldValidation=Strict"), named(json!({"replica": 7}))).await;
    assert_eq!(
        typo.says(400),
        r#"Scale in version "v1" cannot be handled as a Scale: strict decoding error: unknown field "spec.replica""#
    );
    world.merge(&path, json!({"spec": "x"})).await.is(422);
    world.merge(&path, json!({"spec": {"replicas": "x"}})).await.is(422);
    world.merge(&format!("{path}?force=true"), json!({"spec": {"replicas": 7}})).await.is(422);
    world.put(&format!("{path}?dryRun=All"), named(json!({"replicas": 7}))).await.is(200);
    let stale = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"replicas": 7}});
    assert_eq!(world.put(&path, stale).await.is(409)["reason"], "Conflict");
    assert_eq!(world.get(&format!("{SETS}/a")).await.is(200)["spec"]["replicas"], 2);
    let media = world.send(Method::PUT, &path, &[], named(json!({"replicas": 7})).to_string()).await;
    assert_eq!(media.is(200)["spec"]["replicas"], 7);
}

#[tokio::test]
async fn a_put_names_its_object_and_a_patch_cannot_move_it() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let path = format!("{MAPS}/a");
    assert_eq!(
        world.put(&path, json!({"data": {"a": "2"}})).await.says(400),
        "the name of the object (a based on URL) was undeterminable: name must be provided"
    );
    assert!(
        world
            .merge(&path, json!({"metadata": {"name": "b"}}))
            .await
            .says(400)
            .contains("does not match the name on the URL")
    );
    assert_eq!(
        world.merge(&path, json!({"metadata": {"namespace": "other"}})).await.says(400),
        "the namespace of the object (other) does not match the namespace on the request (default)"
    );
    assert!(world.merge(&path, json!({"metadata": {"uid": "x"}})).await.says(409).contains("Precondition failed: UID"));
    let kept = world.merge(&path, json!({"metadata": {"creationTimestamp": null, "generation": 9, "deletionTimestamp": "2026-01-01T00:00:00Z"}})).await;
    assert!(kept.is(200)["metadata"].get("deletionTimestamp").is_none());
}

#[tokio::test]
async fn warnings_reach_the_client_whatever_the_answer_and_the_language() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let mut taken = map("a");
    taken["unknown"] = 1.into();
    let answer = world.post(MAPS, taken).await;
    answer.is(409);
    assert_eq!(answer.warnings(), [r#"299 - "unknown field \"unknown\"""#]);
    let path = format!("{MAPS}/a");
    let warned = world.merge(&path, json!({"spéc": 1})).await;
    warned.is(200);
    let bytes: Vec<&[u8]> = warned.headers.get_all("warning").iter().map(http::HeaderValue::as_bytes).collect();
    assert_eq!(bytes, [r#"299 - "unknown field \"spéc\"""#.as_bytes()]);
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u-1"});
    let doubled = world.merge(&path, json!({"metadata": {"ownerReferences": [owner, owner]}})).await;
    assert_eq!(doubled.is(200)["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    assert!(doubled.warnings()[0].contains("duplicate UID(s) observed: u-1"), "{:?}", doubled.warnings());
}

#[tokio::test]
async fn an_update_of_a_lease_says_which_version_it_is_of() {
    let world = World::new().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    world.post(leases, lease.clone()).await.is(201);
    assert_eq!(
        world.put(&format!("{leases}/l"), lease).await.says(422),
        r#"leases.coordination.k8s.io "l" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"#
    );
}

#[tokio::test]
async fn an_event_is_managed_under_the_names_of_the_group_that_wrote_it() {
    let world = World::new().await;
    let group = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Make", "reason": "Made", "type": "Normal",
        "reportingController": "test", "reportingInstance": "test-1", "regarding": {"kind": "MinerSet", "namespace": "default", "name": "b"}, "note": "noted",
    });
    let made = world.post(group, event).await.is(201);
    let fields = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert!(
        fields.get("f:note").is_some() && fields.get("f:regarding").is_some() && fields.get("f:message").is_none(),
        "{fields}"
    );
    let path = format!("{group}/e");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}});
    let patched = world.patch("application/strategic-merge-patch+json", &path, series).await.is(200);
    assert_eq!(patched["series"]["count"], 2);
    let mut again = patched;
    again["note"] = "noted again".into();
    assert_eq!(world.put(&path, again).await.is(200)["note"], "noted again");
    let core = world.get("/api/v1/namespaces/default/events/e").await.is(200);
    assert_eq!(
        (&core["message"], &core["series"]["count"], &core["involvedObject"]["name"]),
        (&json!("noted again"), &json!(2), &json!("b"))
    );
    let counted = json!({"count": 3, "lastTimestamp": "2026-01-01T00:01:00Z"});
    world.patch("application/strategic-merge-patch+json", "/api/v1/namespaces/default/events/e", counted).await.is(200);
    assert_eq!(world.get(&path).await.is(200)["deprecatedCount"], 3);
    let missing = world
        .patch("application/strategic-merge-patch+json", "/api/v1/namespaces/default/events/none", json!({"count": 2}))
        .await;
    missing.is(404);
}

#[tokio::test]
async fn yaml_that_grows_without_bound_is_refused() {
    let world = World::new().await;
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    world.send(Method::POST, MAPS, &[("content-type", "application/yaml")], bomb).await.is(400);
}

#[tokio::test]
async fn two_who_apply_a_new_object_at_once_both_succeed() {
    let world = World::new().await;
    let one = |manager: usize| {
        let world = &world;
        async move {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {format!("k{manager}"): "v"}});
            let path = format!("{MAPS}/a?fieldManager=m{manager}");
            world.patch("application/apply-patch+yaml", &path, object).await.code
        }
    };
    let codes = futures::future::join_all((0..16).map(one)).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 200 | 201)), "{codes:?}");
    assert_eq!(world.get(&format!("{MAPS}/a")).await.is(200)["data"].as_object().unwrap().len(), 16);
}

#[tokio::test]
async fn a_patch_of_many_operations_or_of_the_wrong_form_is_refused_with_the_right_code() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let path = format!("{MAPS}/a");
    let (json_patch, merge, strategic) =
        ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json");
    let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "test", "path": "/data/a", "value": "1"})).collect();
    let cases = [
        (json_patch, json!(many), 413),
        (json_patch, json!({}), 400),
        (json_patch, json!("x"), 400),
        (json_patch, json!([{"op": "test", "path": "/data/a", "value": "2"}]), 422),
        (json_patch, json!([{"op": "remove", "path": "/data/none"}]), 422),
        (json_patch, json!([{"op": "replace", "path": "", "value": []}]), 400),
        (json_patch, json!([{"op": "add", "path": "/metadata/labels", "value": "x"}]), 422),
        (merge, json!([]), 400),
        (merge, json!("x"), 400),
        (merge, json!({"metadata": null}), 400),
        (merge, json!({"data": "x"}), 422),
        (merge, json!({"metadata": {"resourceVersion": "1"}}), 409),
        (merge, json!({"kind": "Secret"}), 400),
        (strategic, json!([]), 400),
        (strategic, json!({"data": {"$patch": "perhaps"}}), 400),
    ];
    for (media, patch, code) in cases {
        let answer = world.patch(media, &path, patch.clone()).await;
        let shown: String = patch.to_string().chars().take(80).collect();
        assert_eq!(answer.code, code, "{media} {shown}: {}", answer.text);
    }
    assert_eq!(world.get(&path).await.is(200)["data"], json!({"a": "1"}));
    world.merge(&format!("{MAPS}/none"), json!({"data": {}})).await.is(404);
    let big = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    world.send(Method::PATCH, &path, &[("content-type", merge)], big).await.is(413);
}

#[tokio::test]
async fn applies_that_make_no_sense_are_refused_with_the_right_code() {
    let world = World::new().await;
    let apply = async |path: &str, object: Value| world.patch("application/apply-patch+yaml", path, object).await;
    let path = format!("{MAPS}/a?fieldManager=m");
    let named = |more: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    apply(&format!("{MAPS}/a"), named(json!({}))).await.is(422);
    for odd in [json!([]), json!("x"), json!({"metadata": {"name": "a"}}), named(json!({"kind": "Secret"}))] {
        apply(&path, odd).await.is(400);
    }
    apply(&path, named(json!({"metadata": {"name": "b"}}))).await.is(400);
    apply(&path, named(json!({"metadata": {"name": "a", "managedFields": []}}))).await.is(400);
    let odd = [
        json!({"data": "x"}),
        json!({"data": {"a": {}}}),
        json!({"metadata": {"name": "a", "finalizers": [null]}}),
        json!({"metadata": []}),
    ];
    for object in odd {
        let answer = apply(&path, named(object.clone())).await;
        assert!(
            matches!(answer.code, 400 | 422 | 500) && answer.json()["kind"] == "Status",
            "{object}: {}",
            answer.text
        );
        assert!(!answer.text.contains("panic"), "{object}: {}", answer.text);
    }
    assert_eq!(world.get(MAPS).await.is(200)["items"], json!([]));
    let made = apply(&format!("{path}&dryRun=All"), named(json!({"data": {"a": "1"}}))).await.is(201);
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    world.get(&format!("{MAPS}/a")).await.is(404);
}

#[tokio::test]
async fn a_collection_that_holds_one_protected_object_loses_all_others() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        let mut object = set(name);
        if name == "b" {
            object["metadata"]["annotations"] = json!({"apps.onex.io/deletion-protection": "true"});
        }
        world.post(SETS, object).await.is(201);
    }
    world.delete(SETS, Value::Null).await.is(403);
    let left = world.get(SETS).await.is(200);
    let names: Vec<&str> =
        left["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b"]);
}

#[tokio::test]
async fn a_terminating_object_takes_no_finalizer_and_goes_with_its_last_one() {
    let world = World::new().await;
    let mut object = set("a");
    object["metadata"]["finalizers"] = json!(["eyes.io/x"]);
    world.post(SETS, object).await.is(201);
    let path = format!("{SETS}/a");
    let marked = world.delete(&path, json!({"gracePeriodSeconds": 30})).await.is(200);
    assert_eq!(
        (&marked["metadata"]["generation"], &marked["metadata"]["deletionGracePeriodSeconds"]),
        (&json!(2), &json!(0))
    );
    let again = world.delete(&path, Value::Null).await.is(200);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    let more = world.merge(&path, json!({"metadata": {"finalizers": ["eyes.io/x", "eyes.io/y"]}})).await;
    assert!(more.says(422).contains("metadata.finalizers: Forbidden: no new finalizers can be added"), "{}", more.text);
    assert!(world.post(SETS, set("a")).await.says(409).starts_with("object is being deleted: "));
    let mut last = world.get(&path).await.is(200);
    last["metadata"].as_object_mut().unwrap().remove("finalizers");
    let mut watch = world
        .watch(&format!("{SETS}?watch=1&resourceVersion={}", last["metadata"]["resourceVersion"].as_str().unwrap()))
        .await;
    world.put(&path, last).await.is(200);
    assert_eq!(watch.told().await, "DELETED a");
    world.get(&path).await.is(404);
}

/// One field of a protobuf message that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    assert!(length < 128, "one byte says the length");
    [&[number << 3 | 2, length], bytes].concat()
}

fn enveloped(kind: &str, raw: &[u8]) -> Vec<u8> {
    let identity = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &identity), field(2, raw)].concat()
}

#[tokio::test]
async fn protobuf_is_as_good_as_json_and_its_preconditions_are_held() {
    let world = World::new().await;
    let media = [("content-type", "application/vnd.kubernetes.protobuf"), ("accept", "application/json")];
    let entry = [field(1, b"k"), field(2, b"v")].concat();
    let object = [field(1, &field(1, b"p")), field(2, &entry)].concat();
    let made = world.send(Method::POST, MAPS, &media, enveloped("ConfigMap", &object)).await.is(201);
    assert_eq!((&made["metadata"]["name"], &made["data"]), (&json!("p"), &json!({"k": "v"})));
    let path = format!("{MAPS}/p");
    let options = |uid: &str| enveloped("DeleteOptions", &field(2, &field(1, uid.as_bytes())));
    world.send(Method::DELETE, &path, &media, options("another")).await.is(409);
    let dry = enveloped("DeleteOptions", &field(5, b"All"));
    world.send(Method::DELETE, &path, &media, dry).await.is(200);
    world.get(&path).await.is(200);
    world.send(Method::DELETE, &path, &media, options(made["metadata"]["uid"].as_str().unwrap())).await.is(200);
    world.get(&path).await.is(404);
    for broken in [&b""[..], b"k8s\0", b"k8s\0\x0a\xff", b"xxxx", &enveloped("Secret", b"")] {
        world.send(Method::POST, MAPS, &media, broken.to_vec()).await.is(400);
    }
}

#[tokio::test]
async fn no_error_is_much_longer_than_what_caused_it() {
    let world = World::new().await;
    let long = "k".repeat(100_000);
    let twice =
        format!(r#"{{"metadata":{{"name":"a"}},"data":{{"{long}":{{{}"a":1}}}}}}"#, r#""a":1,"#.repeat(100_000));
    let answer = world.send(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &[], twice).await;
    answer.is(400);
    assert!(answer.text.len() < 300_000, "{}", answer.text.len());
    let owner =
        |name: String| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": "u", "controller": true});
    let mut owners: Vec<Value> = vec![owner(long)];
    owners.extend((0..5000).map(|n| owner(n.to_string())));
    let answer = world.post(MAPS, json!({"metadata": {"name": "a", "ownerReferences": owners}})).await;
    assert!(answer.says(422).contains("Only one reference can have Controller set to true"));
    assert!(answer.text.len() < 1_000_000, "{}", answer.text.len());
    let unknown: serde_json::Map<String, Value> = (0..5000).map(|n| (format!("u{n}"), 1.into())).collect();
    let mut object = map("a");
    object.as_object_mut().unwrap().extend(unknown);
    let answer = world.post(&format!("{MAPS}?fieldValidation=Strict"), object).await;
    assert_eq!(answer.says(400).matches("unknown field").count(), 100);
}

#[tokio::test]
async fn what_is_wrong_a_hundred_thousand_times_is_said_a_hundred_times() {
    let world = World::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": vec![json!({"port": 0}); 285_000]}});
    let labels: serde_json::Map<String, Value> = (0..200_000).map(|n| (format!("-{n}"), "".into())).collect();
    let miners: serde_json::Map<String, Value> = (0..100_000).map(|n| (format!("-{n}"), "".into())).collect();
    let mut set = set("a");
    set["spec"]["template"]["metadata"] = json!({"labels": miners});
    for (path, object) in
        [(services, service), (MAPS, json!({"metadata": {"name": "m", "labels": labels}})), (SETS, set)]
    {
        let answer = world.post(path, object).await;
        let message = answer.says(422);
        assert_eq!(answer.json()["details"]["causes"].as_array().unwrap().len(), 100, "{path}");
        assert!(message.contains(", and at least ") && message.ends_with(" more]"), "{path}: {message}");
        assert!(answer.text.len() < 100_000, "{path}: {}", answer.text.len());
    }
    let answer = world.post(MAPS, map(&"N".repeat(1_000_000))).await;
    answer.is(422);
    assert!(answer.text.len() < 20_000, "{}", answer.text.len());
}

/// Clients that read lists with serde_json go 128 levels deep, and one object that is deeper breaks every list of its kind.
#[tokio::test]
async fn a_record_of_managers_is_no_deeper_than_clients_can_read() {
    let world = World::new().await;
    let mut object = world.post(MAPS, map("a")).await.is(201);
    let fields = |levels: usize| (0..levels).fold(json!({}), |below, _| json!({"f:a": below}));
    let mut sent = |levels| {
        let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields(levels)});
        object["metadata"]["managedFields"] = json!([entry]);
        object["metadata"]["resourceVersion"] = json!("");
        object.clone()
    };
    world.put(&format!("{MAPS}/a"), sent(90)).await.is(200);
    assert_eq!(world.put(&format!("{MAPS}/a"), sent(115)).await.says(400), "metadata.managedFields is nested too deep");
}
