//! What is thrown at the parsers of bytes from outside.
//!
//! `fuzz/` runs these by coverage, and the apiserver's tests run them by chance: one list, so that neither knows more.

use std::time::{Duration, Instant};

use axum::{Router, body::Body};
use http::{Method, Request};
use http_body_util::BodyExt;
use onex_apiserver::{
    Apiserver, Handles, Settings, builtin, kinds::Kind, negotiate, request, selector, structural::Structural,
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A name, which is also that of the directory with its corpus, and what to do with some bytes.
pub type Target = (&'static str, fn(&World, &[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("protobuf", protobuf),
    ("patches", patches),
    ("selectors", selectors),
    ("paths", paths),
    ("bodies", bodies),
    ("schemas", schemas),
    ("rules", rules),
];

/// No input of a few KiB may keep the server busy for longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// An apiserver in this process that holds an object of some kinds.
pub struct World {
    runtime: Runtime,
    router: Router,
    kinds: Vec<Kind>,
}

impl World {
    /// Starts it.
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let router = runtime.block_on(async {
            let storage = onex_storage::open(&"memory:".parse().expect("a URL"), &Default::default()).await;
            let handles = Handles::over(storage.expect("memory"));
            let server = std::sync::Arc::new(Apiserver::new(Settings::default(), handles).await.expect("an apiserver"));
            let (running, router) = (server.clone(), server.router_as("fuzz", &["system:masters"]));
            tokio::spawn(async move { running.run(CancellationToken::new()).await });
            server.ready().await;
            router
        });
        let world = Self { runtime, router, kinds: builtin::kinds() };
        for (path, object) in OBJECTS.iter().map(|(path, object)| (path, object())) {
            let collection = path.rsplit_once('/').expect("a path has a slash").0;
            let body = object.to_string();
            let code = world.send(Method::POST, collection, &[("content-type", "application/json")], body.as_bytes());
            assert_eq!(code, 201, "{path}");
        }
        world
    }

    /// Sends a request, and holds what holds for every answer.
    fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> u16 {
        let mut request = Request::builder().method(method.clone()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return 0 };
        let asked = request::Target::read(&method, request.uri().path(), request.uri().query().unwrap_or_default());
        let began = Instant::now();
        let (code, text) = self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.expect("every request is answered");
            let code = response.status().as_u16();
            if asked.is_long_running() && code < 400 {
                return (code, Vec::new());
            }
            (code, response.into_body().collect().await.expect("every answer is whole").to_bytes().to_vec())
        });
        assert!(began.elapsed() < PATIENCE, "{method} {path} took {:?}", began.elapsed());
        if text.starts_with(b"k8s\0") {
            let answer = onex_apiserver::protobuf::decode(&text);
            assert!(answer.is_ok() || code < 400, "{method} {path}: a Status that cannot be read");
            return code;
        }
        let text = String::from_utf8_lossy(&text);
        assert!(code != 500 || !text.contains("panic"), "{method} {path}: {text}");
        if code >= 400 && path.starts_with("/api") && method != Method::HEAD && !text.starts_with("apiVersion: v1\n") {
            let status: Value =
                serde_json::from_str(&text).unwrap_or_else(|why| panic!("{method} {path}: {why}: {text}"));
            assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)), "{method} {path}: {text}");
        }
        code
    }
}

/// Where an object is, and what it is.
type Object = (&'static str, fn() -> Value);

const OBJECTS: &[Object] = &[
    (
        "/api/v1/namespaces/default/configmaps/a",
        || json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}),
    ),
    ("/api/v1/namespaces/default/pods/a", || {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [
            {"name": "c", "image": "i", "env": [{"name": "E", "value": "1"}], "ports": [{"containerPort": 80}]}]}})
    }),
    ("/apis/apps.onex.io/v1beta1/namespaces/default/minersets/a", || {
        json!({"apiVersion": "apps.onex.io/v1beta1", "kind": "MinerSet", "metadata": {"name": "a"},
            "spec": {"replicas": 1, "template": {"spec": {"chainName": "genesis"}}}})
    }),
];

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Bodies of typed Go clients.
fn protobuf(world: &World, data: &[u8]) {
    const MEDIA: &str = "application/vnd.kubernetes.protobuf";
    let _ = onex_apiserver::protobuf::decode(data);
    let Some((first, rest)) = data.split_first() else { return };
    let (path, _) = OBJECTS[usize::from(*first) % OBJECTS.len()];
    world.send(Method::PUT, &format!("{path}?dryRun=All"), &[("content-type", MEDIA)], rest);
    world.send(Method::DELETE, &format!("{path}?dryRun=All"), &[("content-type", MEDIA)], rest);
}

/// The first byte says which kind of patch of which object, and whether it is forced.
fn patches(world: &World, data: &[u8]) {
    let Some((first, patch)) = data.split_first() else { return };
    let first = usize::from(*first);
    let (path, _) = OBJECTS[first % OBJECTS.len()];
    let media = PATCHES[(first / 4) % PATCHES.len()];
    let force = if media.contains("apply") && first >= 128 { "&force=true" } else { "" };
    let part = if first & 64 == 0 { "" } else { "/status" };
    let path = format!("{path}{part}?dryRun=All&fieldManager=fuzz{force}");
    world.send(Method::PATCH, &path, &[("content-type", media)], patch);
}

/// Label selectors and field selectors.
fn selectors(world: &World, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let object = json!({"metadata": {"name": "a", "namespace": "b", "labels": {"x": "1", "y": ""}}, "status": {"phase": "Running"}});
    if let Ok(selector) = selector::Labels::parse(text) {
        selector.matches_object(&object);
    }
    for kind in &world.kinds {
        if let Ok(selector) = selector::Fields::parse(text, kind) {
            selector.matches_object(kind, &object);
        }
    }
}

/// Lines of text: a method, a path with its query, and what is accepted.
fn paths(world: &World, data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let method = Method::from_bytes(lines.next().unwrap_or_default().as_bytes()).unwrap_or(Method::GET);
    let (path, accept) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let query = path.split_once('?').map_or("", |(_, query)| query);
    request::Target::read(&method, path, query);
    negotiate::aggregated(accept);
    let _ = negotiate::form(accept, false, || true, |_| true);
    // What is there stays there.
    let safe = if matches!(method, Method::GET | Method::HEAD) { method } else { Method::POST };
    world.send(safe, path, &[("accept", accept)], b"");
}

/// A schema of a definition, a zero, and an object.
fn schemas(world: &World, data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let schema = serde_json::from_slice::<Value>(parts.next().unwrap_or_default()).unwrap_or_default();
    let object = serde_json::from_slice::<Value>(parts.next().unwrap_or_default()).unwrap_or_default();
    asked(&schema, &object);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.x.io"},
        "spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All";
    world.send(Method::POST, path, &[("content-type", "application/json")], definition.to_string().as_bytes());
}

/// A rule in CEL.
fn rules(_: &World, data: &[u8]) {
    let Ok(rule) = std::str::from_utf8(data) else { return };
    let text = json!({"type": "string"});
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"type": "integer"}, "b": text, "c": {"type": "array", "items": text},
            "d": {"type": "object", "additionalProperties": text}, "e": {"type": "string", "format": "date-time"},
        },
        "x-kubernetes-validations": [{"rule": rule, "messageExpression": rule}],
    });
    let list: Vec<String> = (0..50).map(|n| format!("item {n}")).collect();
    asked(&schema, &json!({"a": 7, "b": "text", "c": list, "d": {"x": "y"}, "e": "2026-01-02T03:04:05Z"}));
}

/// What requests do with a schema and an object.
fn asked(schema: &Value, object: &Value) {
    let began = Instant::now();
    if let Ok(structural) = Structural::compile(schema, "spec") {
        let mut new = object.clone();
        structural.prune(&mut new);
        structural.fill(&mut new);
        structural.check(&new, None);
        structural.check(&new, Some(object));
    }
    assert!(began.elapsed() < PATIENCE, "{schema} took {:?}", began.elapsed());
}

/// JSON and YAML.
fn bodies(world: &World, data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let (path, _) = OBJECTS[usize::from(*first) % OBJECTS.len()];
    let media = if *first < 128 { "application/json" } else { "application/yaml" };
    for validation in ["Strict", "Warn", "Ignore"] {
        let path = format!("{path}?dryRun=All&fieldValidation={validation}");
        world.send(Method::PUT, &path, &[("content-type", media)], body);
    }
}
