//! The OpenAPI documents: what objects look like and what can be done with them, as clients download it.
//!
//! kubectl asks them before it creates or applies anything: whether the server checks fields, and whether it takes
//! strategic merge patches. Both versions are printed from one list of operations and one set of schemas, at first need,
//! and kept as bytes. Start at [`Documents::answer`].

mod operations;
mod swagger;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use k8s_openapi::{
    api::{authentication::v1::TokenRequest, autoscaling::v1::Scale, core::v1::Binding, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1 as meta,
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::{
    builtin::schemas,
    kinds::{Kind, Kinds, Table},
    negotiate, protobuf,
    request::pairs,
    status::{Result, Status},
    version,
};

const JSON: &str = "application/json";
/// What answers in protobuf are called. The form with an `@`, which clients ask for, is no valid media type.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What clients may ask for at `/openapi/v2`, the usual first.
const V2_SERVED: &[&str] = &[JSON, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", PROTOBUF];

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const AUTOSCALING: &str = "io.k8s.api.autoscaling.v1.";

/// The documents of the table of kinds as it is now.
pub struct Documents {
    kinds: Arc<Kinds>,
    printed: Mutex<Option<Arc<Printed>>>,
}

/// The documents of one state of the table, each made at first need.
struct Printed {
    table: Arc<Table>,
    index: OnceLock<Document>,
    groups: BTreeMap<String, Arc<OnceLock<Document>>>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

#[derive(Clone)]
struct Document {
    hash: String,
    body: Bytes,
}

impl Document {
    fn new(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { hash: hex::encode_upper(Sha512::digest(&body)), body }
    }

    /// The document, or 304 if the client has it.
    fn answer(&self, media: &'static str, seen: &str) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let mut response = if seen == etag {
            status_only(StatusCode::NOT_MODIFIED)
        } else {
            Response::new(Body::from(self.body.clone()))
        };
        set(&mut response, header::CONTENT_TYPE, media);
        set(&mut response, header::ETAG, &etag);
        set(&mut response, header::VARY, "Accept");
        response
    }
}

fn status_only(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("hashes, media types and group names are visible ASCII");
    response.headers_mut().insert(name, value);
}

impl Documents {
    /// Documents of these kinds, those that come later included.
    pub fn new(kinds: &Arc<Kinds>) -> Self {
        Self { kinds: kinds.clone(), printed: Mutex::new(None) }
    }

    /// Answers `/openapi/…`. `path` is what follows that, as segments; `seen` is `If-None-Match`.
    ///
    /// # Errors
    /// 404 for a path or a version that is not served, 406 for a client that reads no form of a document.
    pub fn answer(&self, path: &[&str], query: &str, accept: &str, seen: &str) -> Result<Response> {
        let printed = self.printed();
        match path {
            ["v2"] => match negotiate::first(accept, V2_SERVED) {
                None => Err(Status::not_acceptable(V2_SERVED)),
                Some(JSON) => Ok(printed.v2().answer(JSON, seen)),
                Some(_) => Ok(printed.v2_protobuf().answer(PROTOBUF, seen)),
            },
            // The index is JSON whatever is asked for: Go's clients that speak protobuf ask for protobuf here too.
            ["v3"] => Ok(printed.index().answer(JSON, seen)),
            ["v3", group @ ..] => {
                acceptable(accept)?;
                let path = group.join("/");
                let document = printed.group(&path).ok_or_else(Status::no_such_path)?;
                Ok(versioned(document, &path, query, seen))
            }
            _ => Err(Status::no_such_path()),
        }
    }

    fn printed(&self) -> Arc<Printed> {
        let table = self.kinds.table();
        let mut printed = self.printed.lock();
        match &*printed {
            Some(printed) if Arc::ptr_eq(&printed.table, &table) => printed.clone(),
            before => {
                let fresh = Arc::new(Printed::new(table, before.as_deref()));
                printed.insert(fresh).clone()
            }
        }
    }
}

fn acceptable(accept: &str) -> Result<()> {
    negotiate::first(accept, &[JSON]).map(|_| ()).ok_or_else(|| Status::not_acceptable(&[JSON]))
}

/// A client that names the hash may keep the document for good; one that names an old hash is sent to the new one.
fn versioned(document: &Document, path: &str, query: &str, seen: &str) -> Response {
    let asked = pairs(query).find(|(name, _)| name == "hash").map(|(_, hash)| hash);
    match asked.as_deref() {
        None | Some("") => document.answer(JSON, seen),
        Some(hash) if hash == document.hash => {
            let mut response = document.answer(JSON, seen);
            set(&mut response, header::CACHE_CONTROL, "public, immutable, max-age=31536000");
            response
        }
        Some(_) => {
            let mut response = status_only(StatusCode::MOVED_PERMANENTLY);
            set(&mut response, header::LOCATION, &location(path, document));
            response
        }
    }
}

fn location(path: &str, document: &Document) -> String {
    format!("/openapi/v3/{path}?hash={}", document.hash)
}

impl Printed {
    /// Documents of a table; those of groups in which nothing changed are as they were before.
    fn new(table: Arc<Table>, before: Option<&Printed>) -> Self {
        let (kinds, known) = (by_group(&table), before.map(|before| by_group(&before.table)).unwrap_or_default());
        let document = |path: &String| {
            let same = known.get(path).is_some_and(|known| {
                known.len() == kinds[path].len() && known.iter().zip(&kinds[path]).all(|(a, b)| Arc::ptr_eq(a, b))
            });
            before.filter(|_| same).and_then(|before| before.groups.get(path).cloned()).unwrap_or_default()
        };
        let groups = kinds.keys().map(|path| (path.clone(), document(path))).collect();
        Self { table, index: OnceLock::new(), groups, v2: OnceLock::new(), v2_protobuf: OnceLock::new() }
    }

    fn index(&self) -> &Document {
        self.index.get_or_init(|| {
            let paths: Map<String, Value> = self
                .groups
                .keys()
                .filter_map(|path| {
                    let document = self.group(path)?;
                    Some((path.clone(), json!({ "serverRelativeURL": location(path, document) })))
                })
                .collect();
            Document::new(json!({ "paths": paths }).to_string())
        })
    }

    fn group(&self, path: &str) -> Option<&Document> {
        let made = self.groups.get(path)?;
        Some(made.get_or_init(|| Document::new(self.v3(path).to_string())))
    }

    /// The document of one group and version.
    fn v3(&self, path: &str) -> Value {
        let kinds: Vec<&Kind> = self.kinds().filter(|kind| base(kind) == path).collect();
        let mut paths = Map::new();
        let mut all = self.shared_schemas();
        for kind in kinds {
            paths.extend(operations::of(kind).iter().map(|(path, item)| (path.clone(), item.v3())));
            all.extend(schemas_of(kind));
        }
        let schemas = referenced(&paths, all);
        json!({
            "openapi": "3.0.0", "info": info(), "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": {"BearerToken": bearer()}},
        })
    }

    fn v2(&self) -> &Document {
        self.v2.get_or_init(|| Document::new(self.swagger().to_string()))
    }

    fn v2_protobuf(&self) -> &Document {
        self.v2_protobuf.get_or_init(|| Document::new(protobuf::encode_openapi_v2(&self.swagger())))
    }

    fn swagger(&self) -> Value {
        let mut paths = Map::new();
        let mut all = self.shared_schemas();
        for kind in self.kinds() {
            paths.extend(operations::of(kind).iter().map(|(path, item)| (path.clone(), item.v2())));
            all.extend(schemas_of(kind));
        }
        let definitions: Map<String, Value> =
            all.into_iter().map(|(name, schema)| (name, swagger::schema(schema))).collect();
        json!({
            "swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions,
            "securityDefinitions": {"BearerToken": bearer()}, "security": [{"BearerToken": []}],
        })
    }

    fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.table.kinds.iter().map(Arc::as_ref)
    }

    /// The schemas that operations of every kind speak.
    fn shared_schemas(&self) -> BTreeMap<String, Value> {
        let mut all = schemas::definitions::<meta::DeleteOptions>();
        all.extend(schemas::definitions::<meta::Status>());
        all.extend(schemas::definitions::<meta::ListMeta>());
        all.extend(schemas::definitions::<meta::Patch>());
        all.extend(schemas::definitions::<meta::WatchEvent<()>>());
        all.extend(schemas::definitions::<Scale>());
        all.extend(schemas::definitions::<Binding>());
        all.extend(schemas::definitions::<TokenRequest>());
        all.extend(schemas::definitions::<Eviction>());
        // Only of what is compiled in, so that a definition changes no document but its own.
        let compiled_in = self.kinds().filter(|kind| kind.custom.is_none());
        let mut versions: Vec<(&str, &str)> = compiled_in.map(|k| (k.group.as_str(), k.version.as_str())).collect();
        versions.push(("autoscaling", "v1"));
        versions.sort_unstable();
        versions.dedup();
        for kind in ["DeleteOptions", "WatchEvent"] {
            let kinds = versions.iter().map(|(group, version)| gvk(group, version, kind)).collect();
            identify(&mut all, &format!("{META}{kind}"), kinds);
        }
        identify(&mut all, &format!("{META}Status"), vec![gvk("", "v1", "Status")]);
        identify(&mut all, &format!("{AUTOSCALING}Scale"), vec![gvk("autoscaling", "v1", "Scale")]);
        identify(&mut all, "io.k8s.api.core.v1.Binding", vec![gvk("", "v1", "Binding")]);
        identify(&mut all, "io.k8s.api.policy.v1.Eviction", vec![gvk("policy", "v1", "Eviction")]);
        let request = gvk("authentication.k8s.io", "v1", "TokenRequest");
        identify(&mut all, "io.k8s.api.authentication.v1.TokenRequest", vec![request]);
        all
    }
}

fn by_group(table: &Table) -> BTreeMap<String, Vec<&Arc<Kind>>> {
    let mut groups: BTreeMap<String, Vec<&Arc<Kind>>> = BTreeMap::new();
    table.kinds.iter().for_each(|kind| groups.entry(base(kind)).or_default().push(kind));
    groups
}

fn identify(all: &mut BTreeMap<String, Value>, name: &str, kinds: Vec<Value>) {
    if let Some(schema) = all.get_mut(name) {
        schema["x-kubernetes-group-version-kind"] = kinds.into();
    }
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// `api/v1`, `apis/apps.onex.io/v1beta1`.
fn base(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn info() -> Value {
    let version = version::document();
    json!({"title": "OneX", "version": version["gitVersion"].as_str().unwrap_or("unversioned")})
}

fn bearer() -> Value {
    json!({"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"})
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The schemas of a kind, and of its list.
fn schemas_of(kind: &Kind) -> BTreeMap<String, Value> {
    let mut all = kind.published.schemas().clone();
    let name = kind.published.name();
    let list = &kind.list_kind;
    let text = |description: &str| json!({"type": "string", "description": description});
    all.insert(
        format!("{name}List"),
        json!({
            "description": format!("A list of {}.", kind.plural),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text("The version of the form that this list is written in: the group and the version."),
                "kind": text("What this is, in CamelCase."),
                "metadata": {"description": "The version of the list, and where it goes on.",
                    "allOf": [reference(&format!("{META}ListMeta"))]},
                "items": {"description": "The objects.", "type": "array", "items": {"allOf": [reference(name)]}},
            },
            "x-kubernetes-group-version-kind": [gvk(&kind.group, &kind.version, list)],
        }),
    );
    all
}

/// The schemas that the paths refer to, and those that these refer to.
fn referenced(paths: &Map<String, Value>, mut all: BTreeMap<String, Value>) -> Map<String, Value> {
    let mut names = Vec::new();
    paths.values().for_each(|path| references(path, &mut names));
    let mut found = Map::new();
    while let Some(name) = names.pop() {
        if let Some(schema) = all.remove(&name) {
            references(&schema, &mut names);
            found.insert(name, schema);
        }
    }
    found
}

fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) {
                names.push(name.to_owned());
            }
            fields.values().for_each(|value| references(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::builtin;

    fn documents() -> Documents {
        Documents::new(&Arc::new(Kinds::new(builtin::kinds())))
    }

    async fn read(response: Response) -> Bytes {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
    }

    async fn json_at(documents: &Documents, path: &[&str]) -> Value {
        serde_json::from_slice(&read(documents.answer(path, "", "", "").unwrap()).await).unwrap()
    }

    fn missing(document: &Value, schemas: &Value) -> Vec<String> {
        let mut names = Vec::new();
        references(document, &mut names);
        names.retain(|name| schemas[name].is_null());
        names
    }

    #[tokio::test]
    async fn the_index_leads_to_every_group_by_its_hash() {
        let documents = documents();
        let index = json_at(&documents, &["v3"]).await;
        let paths = index["paths"].as_object().unwrap();
        let names: Vec<&String> = paths.keys().collect();
        let path = |kind: &Kind| match kind.group.as_str() {
            "" => "api/v1".to_owned(),
            group => format!("apis/{group}/{}", kind.version),
        };
        let wanted: BTreeSet<String> = builtin::kinds().iter().map(path).collect();
        assert_eq!(names, wanted.iter().collect::<Vec<_>>());
        let url = paths["apis/apps.onex.io/v1beta1"]["serverRelativeURL"].as_str().unwrap();
        let query = url.split_once('?').unwrap().1;
        let path = ["v3", "apis", "apps.onex.io", "v1beta1"];
        let response = documents.answer(&path, query, "application/json", "").unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["cache-control"], "public, immutable, max-age=31536000");
        let etag = response.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(documents.answer(&path, query, "", &etag).unwrap().status(), 304);
        let moved = documents.answer(&path, "hash=OLD", "", "").unwrap();
        assert_eq!((moved.status().as_u16(), moved.headers()["location"].to_str().unwrap()), (301, url));
    }

    #[tokio::test]
    async fn unknown_groups_and_media_types_are_refused() {
        let documents = documents();
        let code = |path: &[&str], accept: &str| documents.answer(path, "", accept, "").unwrap_err().code;
        assert_eq!(code(&["v3", "apis", "nowhere", "v1"], ""), 404);
        assert_eq!(code(&["v4"], ""), 404);
        assert_eq!(code(&["v3", "api", "v1"], "text/html"), 406);
        assert_eq!(code(&["v2"], "text/html"), 406);
        assert!(documents.answer(&["v3", "api", "v1"], "", "application/cbor, */*", "").is_ok());
        assert!(documents.answer(&["v3"], "", "text/html", "").is_ok(), "which leaves no choice");
    }

    #[tokio::test]
    async fn kubectl_finds_what_it_asks_for_before_an_apply() {
        let document = json_at(&documents(), &["v3", "apis", "apps.onex.io", "v1beta1"]).await;
        let path = "/apis/apps.onex.io/v1beta1/namespaces/{namespace}/minersets/{name}";
        let patch = &document["paths"][path]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"], gvk("apps.onex.io", "v1beta1", "MinerSet"));
        assert_eq!(patch["x-kubernetes-action"], "patch");
        let content = patch["requestBody"]["content"].as_object().unwrap();
        assert!(content.contains_key("application/strategic-merge-patch+json"));
        let parameters: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(parameters, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        let name = "com.github.onexstack.onex.pkg.apis.apps.v1beta1.MinerSet";
        let schema = &document["components"]["schemas"][name];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk("apps.onex.io", "v1beta1", "MinerSet")]));
        assert_eq!(missing(&document, &document["components"]["schemas"]), [""; 0]);
    }

    #[tokio::test]
    async fn every_reference_of_every_document_leads_somewhere() {
        let documents = documents();
        for path in [
            &["v3", "api", "v1"][..],
            &["v3", "apis", "events.k8s.io", "v1"],
            &["v3", "apis", "coordination.k8s.io", "v1"],
            &["v3", "apis", "apiextensions.k8s.io", "v1"],
        ] {
            let document = json_at(&documents, path).await;
            assert_eq!(missing(&document, &document["components"]["schemas"]), [""; 0], "{path:?}");
        }
        let document = json_at(&documents, &["v2"]).await;
        assert_eq!(missing(&document, &document["definitions"]), [""; 0]);
    }

    #[tokio::test]
    async fn version_two_is_swagger_and_nothing_newer() {
        let documents = documents();
        let document = json_at(&documents, &["v2"]).await;
        let mut all = document.clone();
        // A schema of schemas, whose fields have these names.
        let schemas = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        assert!(all["definitions"].as_object_mut().unwrap().remove(schemas).is_some());
        let text = all.to_string();
        for newer in ["nullable", "oneOf", "anyOf", "allOf", "#/components", "requestBody"] {
            assert!(!text.contains(&format!("\"{newer}")), "{newer}");
        }
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert!(patch["consumes"].as_array().unwrap().contains(&json!("application/strategic-merge-patch+json")));
        let container = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(container["x-kubernetes-patch-merge-key"], "name");
    }

    #[tokio::test]
    async fn protobuf_comes_under_a_name_that_go_can_read() {
        let documents = documents();
        let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        let response = documents.answer(&["v2"], "", asked, "").unwrap();
        assert_eq!(response.headers()["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
        assert!(read(response).await.starts_with(b"\n\x032.0"));
    }

    #[tokio::test]
    async fn the_paths_of_a_kind_are_as_published() {
        let document = json_at(&documents(), &["v3", "apis", "apps.onex.io", "v1beta1"]).await;
        let mut lines = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(_, value)| value.is_object()) {
                let text = |field: &str| operation[field].as_str().unwrap_or_default().to_owned();
                lines.push(format!("{method} {path} {} {}", text("x-kubernetes-action"), text("operationId")));
            }
        }
        insta::assert_snapshot!("paths", lines.join("\n"));
    }
}
