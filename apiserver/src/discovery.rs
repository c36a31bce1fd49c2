//! What is served here: the documents from which clients learn groups, versions, resources and verbs.
//!
//! Both forms are printed from the table of kinds: one document for everything (aggregated), which kubectl and
//! controller-runtime ask for, and one per group and version (legacy), which everything else asks for.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::kinds::{Kind, Kinds, Table};

const PLAIN: &str = "application/json";
const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// What every `status` and every `scale` can do.
const PART_VERBS: &[&str] = &["get", "patch", "update"];

/// One document, ready to be sent.
#[derive(Clone, Debug)]
pub struct Document {
    /// The media type, with the parameters by which clients know the aggregated form.
    pub content_type: &'static str,
    /// The quoted ETag; empty for legacy documents, which have none.
    pub etag: String,
    /// The JSON.
    pub body: Bytes,
}

impl Document {
    fn legacy(content: &Value) -> Self {
        Self { content_type: PLAIN, etag: String::new(), body: content.to_string().into() }
    }

    fn aggregated(content_type: &'static str, content: &Value) -> Self {
        let body = content.to_string();
        let etag = format!("\"{}\"", hex::encode_upper(Sha512::digest(&body)));
        Self { content_type, etag, body: body.into() }
    }
}

/// The documents of the table of kinds as it is now. They are printed once for each state of the table.
pub struct Documents {
    kinds: Arc<Kinds>,
    printed: Mutex<Option<Arc<Printed>>>,
}

struct Printed {
    table: Arc<Table>,
    documents: OnceLock<HashMap<(String, &'static str), Document>>,
}

impl Documents {
    /// Documents of these kinds, those that come later included.
    pub fn new(kinds: &Arc<Kinds>) -> Self {
        Self { kinds: kinds.clone(), printed: Mutex::new(None) }
    }

    /// The legacy document at `/api`, for a client that found us at `address`.
    pub fn core_versions(&self, address: &str) -> Document {
        let table = self.kinds.table();
        let versions = groups(&table.kinds).into_iter().find(|group| group.name.is_empty()).map(|group| group.versions);
        Document::legacy(&json!({
            "kind": "APIVersions",
            "versions": versions.unwrap_or_default(),
            // The client has found us already; no other address is better for any network.
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        }))
    }

    /// The document at any other path, given as its segments: `["apis", "apps.onex.io"]`. Where there is an aggregated
    /// form, `wanted` is the version of it that the client prefers: `v2` or `v2beta1`.
    pub fn get(&self, path: &[&str], wanted: Option<&str>) -> Option<Document> {
        let table = self.kinds.table();
        let printed = {
            let mut printed = self.printed.lock();
            match &*printed {
                Some(printed) if Arc::ptr_eq(&printed.table, &table) => printed.clone(),
                _ => printed.insert(Arc::new(Printed { table, documents: OnceLock::new() })).clone(),
            }
        };
        let documents = printed.documents.get_or_init(|| all(&printed.table.kinds));
        let wanted = match (path, wanted) {
            (["api"] | ["apis"], Some("v2")) => V2,
            (["api"] | ["apis"], Some("v2beta1")) => V2BETA1,
            _ => PLAIN,
        };
        documents.get(&(path.join("/"), wanted)).cloned()
    }
}

fn all(kinds: &[Arc<Kind>]) -> HashMap<(String, &'static str), Document> {
    let groups = groups(kinds);
    let mut documents = HashMap::new();
    let mut legacy = |path: String, content: Value| {
        documents.insert((path, PLAIN), Document::legacy(&content));
    };
    let named = || groups.iter().filter(|group| !group.name.is_empty());
    let list: Vec<Value> = named().map(Group::legacy).collect();
    legacy("apis".to_owned(), json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}));
    for group in named() {
        let mut content = group.legacy();
        content["kind"] = "APIGroup".into();
        content["apiVersion"] = "v1".into();
        legacy(format!("apis/{}", group.name), content);
    }
    for group in &groups {
        for version in &group.versions {
            legacy(format!("{}{version}", group.path()), group.resources(version));
        }
    }
    for (media, version) in [(V2, "v2"), (V2BETA1, "v2beta1")] {
        for path in ["api", "apis"] {
            let items: Vec<Value> =
                groups.iter().filter(|group| group.name.is_empty() == (path == "api")).map(Group::aggregated).collect();
            let content = json!({
                "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
                "metadata": {}, "items": items,
            });
            documents.insert((path.to_owned(), media), Document::aggregated(media, &content));
        }
    }
    documents
}

/// A group and its kinds. Versions are in the order of preference.
struct Group<'a> {
    name: &'a str,
    versions: Vec<&'a str>,
    kinds: Vec<&'a Kind>,
}

/// Groups in the order in which the table names them, which is how clients resolve ambiguous names.
fn groups(kinds: &[Arc<Kind>]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for kind in kinds {
        let index = groups.iter().position(|group| group.name == kind.group).unwrap_or_else(|| {
            groups.push(Group { name: &kind.group, versions: Vec::new(), kinds: Vec::new() });
            groups.len() - 1
        });
        groups[index].kinds.push(kind);
        if !groups[index].versions.contains(&kind.version.as_str()) {
            groups[index].versions.push(&kind.version);
        }
    }
    for group in &mut groups {
        group.versions.sort_by_key(|version| Reverse(priority(version)));
        group.kinds.sort_by(|a, b| a.plural.cmp(&b.plural));
    }
    groups
}

/// The groups, and the versions of each, the preferred one first.
pub(crate) fn versions(kinds: &[Arc<Kind>]) -> Vec<(&str, Vec<&str>)> {
    groups(kinds).into_iter().map(|group| (group.name, group.versions)).collect()
}

/// Stable before beta before alpha, and the higher number first; what is no such version comes last, `a` before `b`.
fn priority(version: &str) -> (u8, u64, u64, Reverse<&str>) {
    let none = (0, 0, 0, Reverse(version));
    let Some(rest) = version.strip_prefix('v') else { return none };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(digits);
    let Ok(major) = major.parse() else { return none };
    let (rank, minor) = match rest {
        "" => return (3, major, 0, Reverse(version)),
        _ => match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => return none,
        },
    };
    minor.parse().map_or(none, |minor| (rank, major, minor, Reverse(version)))
}

impl Group<'_> {
    /// The path of its versions, with a slash at the end.
    fn path(&self) -> String {
        if self.name.is_empty() { "api/".to_owned() } else { format!("apis/{}/", self.name) }
    }

    fn kinds_of(&self, version: &str) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().copied().filter(move |kind| kind.version == version)
    }

    fn legacy(&self) -> Value {
        let version = |version: &&str| json!({"groupVersion": format!("{}/{version}", self.name), "version": version});
        let versions: Vec<Value> = self.versions.iter().map(version).collect();
        json!({"name": self.name, "preferredVersion": versions[0], "versions": versions})
    }

    fn resources(&self, version: &str) -> Value {
        let mut resources: Vec<Value> = self.kinds_of(version).flat_map(legacy_resources).collect();
        resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        let group_version = if self.name.is_empty() { version.to_owned() } else { format!("{}/{version}", self.name) };
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
    }

    fn aggregated(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|version| {
                let resources: Vec<Value> = self.kinds_of(version).map(aggregated_resource).collect();
                json!({"version": version, "freshness": "Current", "resources": resources})
            })
            .collect();
        let mut group = json!({"metadata": {"creationTimestamp": null}, "versions": versions});
        if !self.name.is_empty() {
            group["metadata"]["name"] = self.name.into();
        }
        group
    }
}

/// Name, what it speaks, verbs.
pub(crate) type Part<'a> = (&'a str, (&'a str, &'a str, &'a str), &'a [&'a str]);

/// The subresources of a kind, in the order of their names.
pub(crate) fn parts(kind: &Kind) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = kind.subresources.iter().map(|part| (part.name, part.speaks, part.verbs)).collect();
    if kind.status {
        parts.push(("status", (&kind.group, &kind.version, &kind.kind), PART_VERBS));
    }
    if kind.scale.is_some() {
        parts.push(("scale", ("autoscaling", "v1", "Scale"), PART_VERBS));
    }
    parts.sort_unstable();
    parts
}

fn legacy_resources(kind: &Kind) -> Vec<Value> {
    let identity = format!("{}/{}/{}", kind.group, kind.version, kind.kind);
    let mut main = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": kind.verbs(),
    });
    if kind.review.is_none() {
        main["storageVersionHash"] = STANDARD.encode(&Sha256::digest(identity)[..8]).into();
    }
    if !kind.short_names.is_empty() {
        main["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        main["categories"] = json!(kind.categories);
    }
    let mut resources = vec![main];
    for (name, (group, version, speaks), verbs) in parts(kind) {
        let mut part = json!({
            "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
            "kind": speaks, "verbs": verbs,
        });
        if (group, version) != (&kind.group, &kind.version) {
            part["group"] = group.into();
            part["version"] = version.into();
        }
        resources.push(part);
    }
    resources
}

fn aggregated_resource(kind: &Kind) -> Value {
    let response_kind = |(group, version, kind)| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = parts(kind)
        .into_iter()
        .map(
            |(name, speaks, verbs)| json!({"subresource": name, "responseKind": response_kind(speaks), "verbs": verbs}),
        )
        .collect();
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": response_kind((kind.group.as_str(), kind.version.as_str(), kind.kind.as_str())),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs(),
    });
    for (field, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !list.is_empty() {
            resource[field] = json!(list);
        }
    }
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{builtin, kinds::Published};

    fn documents() -> Documents {
        Documents::new(&Arc::new(Kinds::new(builtin::kinds())))
    }

    fn read(document: Option<Document>) -> Value {
        serde_json::from_slice(&document.unwrap().body).unwrap()
    }

    #[test]
    fn legacy_documents_are_as_published() {
        let documents = documents();
        let page = |path: &[&str]| read(documents.get(path, None));
        insta::assert_json_snapshot!(
            "legacy",
            json!({
                "/api": read(Some(documents.core_versions("10.0.0.1:52443"))),
                "/apis": page(&["apis"]),
                "/apis/apps.onex.io": page(&["apis", "apps.onex.io"]),
                "/api/v1": page(&["api", "v1"]),
                "/apis/apps.onex.io/v1beta1": page(&["apis", "apps.onex.io", "v1beta1"]),
                "/apis/coordination.k8s.io/v1": page(&["apis", "coordination.k8s.io", "v1"]),
                "/apis/events.k8s.io/v1": page(&["apis", "events.k8s.io", "v1"]),
            })
        );
    }

    #[test]
    fn aggregated_documents_are_as_published() {
        let documents = documents();
        insta::assert_json_snapshot!(
            "aggregated",
            json!({
                "/api": read(documents.get(&["api"], Some("v2"))),
                "/apis": read(documents.get(&["apis"], Some("v2"))),
            })
        );
    }

    #[test]
    fn clients_know_the_aggregated_form_by_its_type_and_its_age_by_its_tag() {
        let documents = documents();
        let document = documents.get(&["apis"], Some("v2beta1")).unwrap();
        assert_eq!(document.content_type, "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList");
        assert_eq!(document.etag.len(), 130);
        assert_eq!(read(Some(document))["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        assert_eq!(documents.get(&["api", "v1"], Some("v2")).unwrap().content_type, "application/json");
        assert!(documents.get(&["apis", "nowhere"], None).is_none());
        assert!(documents.get(&["apis", "apps.onex.io", "v1"], None).is_none());
    }

    #[test]
    fn the_version_that_clients_should_prefer_comes_first() {
        let kind = |version: &str| {
            Kind::new("example.com", version, "Thing", "things", Published::new(|| (String::new(), BTreeMap::new())))
        };
        let kinds = ["v1alpha1", "v1beta2", "other", "v2", "v10", "v1beta10", "v1"].map(kind).into();
        let document = read(Documents::new(&Arc::new(Kinds::new(kinds))).get(&["apis", "example.com"], None));
        let versions: Vec<&str> =
            document["versions"].as_array().unwrap().iter().map(|v| v["version"].as_str().unwrap()).collect();
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "other"]);
        assert_eq!(document["preferredVersion"]["version"], "v10");
    }
}
