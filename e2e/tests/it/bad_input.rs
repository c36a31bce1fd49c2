//! What no server should be given, and the Status it answers.

use serde_json::{Value, json};

use crate::door::send;
use crate::world::World;

const SETS: &str = "/apis/apps.onex.io/v1beta1/namespaces/bad/minersets";
const JSON: &str = "application/json";

/// Checks that the answer is a Status with this code and reason, and answers its message.
#[track_caller]
fn status((code, body): (u16, Value), expected: u16, reason: &str) -> String {
    assert_eq!((code, &body["reason"]), (expected, &reason.into()), "{body:#}");
    assert_eq!((&body["kind"], &body["apiVersion"]), (&"Status".into(), &"v1".into()), "{body:#}");
    assert_eq!((&body["status"], &body["code"]), (&"Failure".into(), &expected.into()), "{body:#}");
    body["message"].as_str().unwrap().to_owned()
}

fn set(spec: Value) -> String {
    let metadata = json!({"name": "odd", "namespace": "bad"});
    json!({"apiVersion": "apps.onex.io/v1beta1", "kind": "MinerSet", "metadata": metadata, "spec": spec}).to_string()
}

#[test]
fn a_body_that_is_no_json_or_yaml_is_a_bad_request() {
    let world = World::shared();
    for (media, body) in [
        (JSON, "{\"apiVersion\": \"apps.onex.io/v1beta1\", "),
        (JSON, ""),
        (JSON, "\0\u{1}"),
        ("application/yaml", "apiVersion: [\n kind: }{"),
        ("application/yaml", "a: b: c: d"),
        ("application/vnd.kubernetes.protobuf", "k8s\0garbage"),
    ] {
        status(send(&world, "POST", SETS, media, body), 400, "BadRequest");
    }
    let refused = world.kubectl_reading("create -f -", "kind: [").refused();
    assert!(refused.contains("error parsing STDIN"), "{refused}");
    status(send(&world, "POST", SETS, "text/csv", "a,b"), 415, "UnsupportedMediaType");
    serves_on(&world);
}

#[test]
fn json_that_is_no_object_of_the_kind_is_a_bad_request() {
    let world = World::shared();
    for body in ["[]", "7", "\"text\"", "{\"metadata\": []}"] {
        status(send(&world, "POST", SETS, JSON, body), 400, "BadRequest");
    }
    // An object that leaves out its kind is taken for what the address says.
    let message = status(send(&world, "POST", SETS, JSON, "{}"), 422, "Invalid");
    assert!(message.contains("metadata.name: Required value: name or generateName is required"), "{message}");
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "odd"}}).to_string();
    status(send(&world, "POST", SETS, JSON, other), 400, "BadRequest");
    serves_on(&world);
}

#[test]
fn an_unknown_field_is_named_or_dropped_as_the_client_wishes() {
    let world = World::shared();
    let body = set(json!({"replicsa": 1, "replicas": 0, "template": {"spec": {"chainName": "none"}}}));
    let message =
        status(send(&world, "POST", &format!("{SETS}?fieldValidation=Strict"), JSON, &*body), 400, "BadRequest");
    assert_eq!(
        message,
        "MinerSet in version \"v1beta1\" cannot be handled as a MinerSet: strict decoding error: \
         unknown field \"spec.replicsa\""
    );
    let two = set(json!({"replicsa": 1, "template": {"spec": {"chainNam": "x"}}}));
    let message = status(send(&world, "POST", &format!("{SETS}?fieldValidation=Strict"), JSON, two), 400, "BadRequest");
    for field in ["spec.replicsa", "spec.template.spec.chainNam"] {
        assert!(message.contains(&format!("unknown field \"{field}\"")), "{message}");
    }
    let refused = world.kubectl_reading("create -f -", &body).refused();
    assert!(refused.contains("strict decoding error: unknown field \"spec.replicsa\""), "{refused}");
    let warned = world.kubectl_reading("create --validate=warn --dry-run=server -f -", &body);
    assert!(
        warned.status.success() && warned.err.contains("Warning: unknown field \"spec.replicsa\""),
        "{}",
        warned.err
    );
    let dropped = world.kubectl_reading("create --validate=false -o json -f -", &body).ok();
    let dropped: Value = serde_json::from_str(&dropped).unwrap();
    assert_eq!(dropped["spec"]["replicsa"], Value::Null);
    let twice = body.replacen("\"replicas\":0", "\"replicas\":0,\"replicas\":1", 1);
    let message =
        status(send(&world, "POST", &format!("{SETS}?fieldValidation=Strict"), JSON, twice), 400, "BadRequest");
    assert!(message.contains("duplicate field \"spec.replicas\""), "{message}");
    serves_on(&world);
}

#[test]
fn a_wrong_type_is_a_bad_request_that_names_the_field() {
    let world = World::shared();
    for (spec, field) in [
        (json!({"replicas": "two"}), "replicas"),
        (json!({"replicas": 1.5}), "replicas"),
        (json!({"replicas": 99_999_999_999_u64}), "replicas"),
        (json!({"template": []}), "template"),
        (json!({"displayName": {"a": "b"}}), "displayName"),
    ] {
        let message = status(send(&world, "POST", SETS, JSON, set(spec)), 400, "BadRequest");
        let expected = "MinerSet in version \"v1beta1\" cannot be handled as a MinerSet: json: cannot unmarshal ";
        assert!(message.starts_with(expected) && message.contains(field), "{message}");
    }
    status(send(&world, "POST", SETS, JSON, set(json!("text"))), 400, "BadRequest");
    serves_on(&world);
}

#[test]
fn a_value_out_of_bounds_is_invalid_and_says_where() {
    let world = World::shared();
    let template = json!({"spec": {"chainName": "none"}});
    let answer = send(&world, "POST", SETS, JSON, set(json!({"replicas": -1, "template": template})));
    let details = answer.1["details"].clone();
    let message = status(answer, 422, "Invalid");
    assert_eq!(
        message,
        "MinerSet.apps.onex.io \"odd\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    assert_eq!(
        (&details["name"], &details["group"], &details["kind"]),
        (&"odd".into(), &"apps.onex.io".into(), &"MinerSet".into())
    );
    assert_eq!(
        details["causes"],
        json!([{"reason": "FieldValueInvalid", "message": "Invalid value: -1: must be greater than or equal to 0", "field": "spec.replicas"}])
    );
    let answer = send(&world, "POST", SETS, JSON, set(json!({"deletePolicy": "Loudest"})));
    assert_eq!(answer.1["details"]["causes"][0]["reason"], "FieldValueNotSupported");
    let message = status(answer, 422, "Invalid");
    assert!(message.contains("spec.deletePolicy: Unsupported value: \"Loudest\""), "{message}");
    serves_on(&world);
}

#[test]
fn a_bad_name_is_invalid() {
    let world = World::shared();
    let sets = |name: &str| {
        let body = json!({"apiVersion": "apps.onex.io/v1beta1", "kind": "MinerSet", "metadata": {"name": name}});
        send(&world, "POST", SETS, JSON, body.to_string())
    };
    for name in ["Upper", "under_score", "-dash", "dash-", "sp ace", "sla/sh", &"a".repeat(254)] {
        let message = status(sets(name), 422, "Invalid");
        assert!(message.contains("metadata.name: Invalid value"), "{message}");
    }
    let message = status(sets(""), 422, "Invalid");
    assert!(message.contains("name or generateName is required"), "{message}");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a.b"}}).to_string();
    status(send(&world, "POST", "/api/v1/namespaces", JSON, namespace), 422, "Invalid");
    let elsewhere =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}}).to_string();
    let message = status(send(&world, "POST", "/api/v1/namespaces/bad/configmaps", JSON, elsewhere), 400, "BadRequest");
    assert_eq!(message, "the namespace of the provided object does not match the namespace sent on the request");
    serves_on(&world);
}

#[test]
fn a_body_of_ten_megabytes_is_too_large() {
    let world = World::shared();
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat(10 << 20)}});
    let file = world.file("big.json", &body.to_string());
    let refused = world.kubectl(&format!("create --raw /api/v1/namespaces/bad/configmaps -f {file}")).refused();
    assert!(refused.contains("(RequestEntityTooLarge)") && refused.contains("limit is 3145728"), "{refused}");
    let refused = world.kubectl(&format!("create --validate=false -n bad -f {file}")).refused();
    assert!(refused.contains("Request entity too large: limit is 3145728"), "{refused}");
    // Just what fits in a request, and not in a ConfigMap.
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat(2 << 20)}});
    let answer = send(&world, "POST", "/api/v1/namespaces/bad/configmaps", JSON, body.to_string());
    let message = status(answer, 422, "Invalid");
    assert!(message.contains("Too long: may not be more than 1048576 bytes"), "{message}");
    serves_on(&world);
}

#[test]
fn an_object_a_thousand_deep_is_a_bad_request() {
    let world = World::shared();
    let deep = format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000));
    let map =
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"deep\"}},\"data\":{deep}}}");
    let maps = "/api/v1/namespaces/bad/configmaps";
    status(send(&world, "POST", maps, JSON, &*map), 400, "BadRequest");
    status(send(&world, "POST", maps, "application/yaml", &*map), 400, "BadRequest");
    let spec = format!(
        "{{\"apiVersion\":\"apps.onex.io/v1beta1\",\"kind\":\"MinerSet\",\"metadata\":{{\"name\":\"deep\"}},\"spec\":{deep}}}"
    );
    status(send(&world, "POST", &format!("{SETS}?fieldValidation=Strict"), JSON, spec), 400, "BadRequest");
    let file = world.file("deep.json", &map);
    world.kubectl(&format!("create --validate=false -n bad -f {file}")).refused();
    let lists = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    status(send(&world, "POST", maps, JSON, lists), 400, "BadRequest");
    serves_on(&world);
}

#[test]
fn what_does_not_exist_is_not_found_and_what_cannot_be_done_is_not_allowed() {
    let world = World::shared();
    let message = status(send(&world, "GET", &format!("{SETS}/nobody"), JSON, ""), 404, "NotFound");
    assert_eq!(message, "minersets.apps.onex.io \"nobody\" not found");
    for path in [
        "/apis/apps.onex.io/v1beta1/nothings",
        "/apis/nothing.io/v1/things",
        "/api/v1/namespaces/bad/configmaps/a/status",
    ] {
        let message = status(send(&world, "GET", path, JSON, ""), 404, "NotFound");
        assert_eq!(message, "the server could not find the requested resource", "{path}");
    }
    status(send(&world, "PUT", SETS, JSON, "{}"), 405, "MethodNotAllowed");
    let patch = send(&world, "PATCH", &format!("{SETS}/nobody"), JSON, "{}");
    status(patch, 415, "UnsupportedMediaType");
    let refused = world.kubectl("get nothings").refused();
    assert_eq!(refused, "error: the server doesn't have a resource type \"nothings\"\n");
    serves_on(&world);
}

#[test]
fn a_stranger_is_not_let_in() {
    let world = World::shared();
    let server = world.kubectl("config view -o jsonpath={.clusters[0].cluster.server}").ok();
    let nobody = world.file("nobody", "");
    let refused = world
        .kubectl(&format!("--kubeconfig={nobody} --server={server} --insecure-skip-tls-verify --token=wrong get ns"));
    let refused = refused.refused();
    assert!(refused.contains("You must be logged in to the server"), "{refused}");
    let refused = world.kubectl(&format!("--kubeconfig={nobody} --server={server} --token=wrong get ns")).refused();
    assert!(refused.contains("x509"), "its certificate is not one the whole world trusts: {refused}");
}

#[track_caller]
fn serves_on(world: &World) {
    world.kubectl("get --raw /readyz").ok();
    world.kubectl("get ns default").ok();
}
