//! The roles that are there from the beginning, and those that are made of others.

use std::sync::Arc;

use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Inner,
    kinds::Kind,
    registry::{Options, Part},
    selector,
    status::Status,
};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Says `"false"` on an object that is to stay as somebody made it.
const UPDATED: &str = "rbac.authorization.kubernetes.io/autoupdate";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Defaults {
    cluster_roles: Vec<Role>,
    cluster_role_bindings: Vec<Binding>,
    roles: Vec<Role>,
    role_bindings: Vec<Binding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Role {
    name: String,
    #[serde(default)]
    namespace: String,
    /// It is a part of this role.
    aggregates_to: Option<String>,
    /// It is made of the parts of this role.
    aggregates: Option<String>,
    #[serde(default)]
    rules: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Binding {
    name: String,
    #[serde(default)]
    namespace: String,
    role: String,
    subjects: Vec<Value>,
}

fn label(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}

fn metadata(name: &str, namespace: &str) -> Value {
    let mut meta = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {UPDATED: "true"},
    });
    if !namespace.is_empty() {
        meta["namespace"] = namespace.into();
    }
    meta
}

impl Role {
    fn object(self, kind: &str) -> Value {
        let mut meta = metadata(&self.name, &self.namespace);
        if let Some(role) = &self.aggregates_to {
            meta["labels"][label(role)] = "true".into();
        }
        let mut object =
            json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": meta, "rules": self.rules});
        if let Some(role) = &self.aggregates {
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label(role): "true"}}]});
        }
        object
    }
}

impl Binding {
    fn object(self, kind: &str, role: &str) -> Value {
        let with_group = |mut subject: Value| {
            if subject["kind"] != "ServiceAccount" {
                subject["apiGroup"] = GROUP.into();
            }
            subject
        };
        json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": kind,
            "metadata": metadata(&self.name, &self.namespace),
            "roleRef": {"apiGroup": GROUP, "kind": role, "name": self.role},
            "subjects": self.subjects.into_iter().map(with_group).collect::<Vec<_>>(),
        })
    }
}

/// What is there from the beginning: plural names and objects.
fn defaults() -> Vec<(&'static str, Value)> {
    let defaults: Defaults = serde_saphyr::from_str(include_str!("roles.yaml")).expect("a test reads it too");
    let roles = defaults.cluster_roles.into_iter().map(|role| ("clusterroles", role.object("ClusterRole")));
    let bindings = defaults.cluster_role_bindings.into_iter();
    let bindings = bindings.map(|binding| ("clusterrolebindings", binding.object("ClusterRoleBinding", "ClusterRole")));
    let within = defaults.roles.into_iter().map(|role| ("roles", role.object("Role")));
    let bound = defaults.role_bindings.into_iter();
    let bound = bound.map(|binding| ("rolebindings", binding.object("RoleBinding", "Role")));
    roles.chain(bindings).chain(within).chain(bound).collect()
}

fn kind(server: &Inner, plural: &str) -> Arc<Kind> {
    server.kinds.find(GROUP, "v1", plural).expect("the kinds of RBAC are compiled in")
}

fn ourselves() -> Options {
    Options { manager: "onex-apiserver".to_owned(), ..Options::default() }
}

/// Makes what is missing of the roles that are there from the beginning. Answers whether all are as they should be.
pub(crate) async fn ensure(server: &Inner) -> bool {
    let each = defaults().into_iter().map(|(plural, wanted)| async move {
        let outcome = ensure_one(server, &kind(server, plural), &wanted).await;
        if let Err(status) = &outcome {
            tracing::warn!(kind = plural, object = %wanted["metadata"]["name"], error = status.message, "a role could not be made");
        }
        outcome.is_ok()
    });
    // All at once: they share the few waits for the disk.
    join_all(each).await.into_iter().all(|done| done)
}

async fn ensure_one(server: &Inner, kind: &Arc<Kind>, wanted: &Value) -> Result<(), Status> {
    let text = |field: &str| wanted["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let Ok(item) = server.registry.get(kind, namespace, name) else {
        return match server.registry.create(kind, namespace, wanted.clone(), &ourselves()).await {
            Err(status) if status.reason != "AlreadyExists" => Err(status),
            _ => Ok(()),
        };
    };
    if completed(&item.value(), wanted).is_none() {
        return Ok(());
    }
    let change = |old: &Value| Ok(completed(old, wanted).unwrap_or_else(|| old.clone()).into());
    server.registry.update(kind, namespace, name, Part::Main, &ourselves(), change).await.map(|_| ())
}

/// The object with what it lacks; nothing if it lacks nothing, or is to stay as it is.
fn completed(there: &Value, wanted: &Value) -> Option<Value> {
    if there["metadata"]["annotations"][UPDATED] == "false" {
        return None;
    }
    let mut whole = there.clone();
    for (place, field) in [("labels", "/metadata/labels"), ("annotations", "/metadata/annotations")] {
        let wanted = wanted.pointer(field).and_then(Value::as_object).cloned().unwrap_or_default();
        if !whole["metadata"][place].is_object() {
            whole["metadata"][place] = Value::Object(Map::new());
        }
        let fields = whole["metadata"][place].as_object_mut().expect("made one above");
        for (name, value) in wanted {
            fields.entry(name).or_insert(value);
        }
    }
    // The rules of a role that is made of others are not its own.
    let lists: &[&str] = if wanted["aggregationRule"].is_null() { &["rules", "subjects"] } else { &[] };
    for list in lists {
        let Some(items) = wanted[list].as_array() else { continue };
        if !whole[list].is_array() {
            whole[list] = json!([]);
        }
        let there = whole[list].as_array_mut().expect("made one above");
        for item in items {
            if !there.contains(item) {
                there.push(item.clone());
            }
        }
    }
    (whole != *there).then_some(whole)
}

/// Keeps roles that are made of others complete, until `shutdown`.
pub(crate) async fn aggregate(server: Arc<Inner>, shutdown: CancellationToken) {
    let kind = kind(&server, "clusterroles");
    let window = server.registry.window(&kind);
    let mut news = window.news();
    loop {
        news.mark_unchanged();
        for (name, rules) in aggregated(&server, &kind) {
            let change = |old: &Value| {
                let mut new = old.clone();
                new["rules"] = rules.clone();
                Ok(new.into())
            };
            let changed = server.registry.update(&kind, "", &name, Part::Main, &ourselves(), change).await;
            if let Err(status) = changed.map(|_| ())
                && status.code != 404
            {
                tracing::warn!(
                    role = name,
                    error = status.message,
                    "a role that is made of others could not be written"
                );
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            news = news.changed() => if news.is_err() { return },
        }
    }
}

/// The roles whose rules are not those of their parts, and what they should be.
fn aggregated(server: &Inner, kind: &Kind) -> Vec<(String, Value)> {
    let snapshot = server.registry.window(kind).snapshot();
    let all: Vec<Value> = snapshot.items.values().map(|item| item.stored.value_without_managers()).collect();
    let mut wrong = Vec::new();
    for role in &all {
        let Some(selectors) = role["aggregationRule"]["clusterRoleSelectors"].as_array().filter(|s| !s.is_empty())
        else {
            continue;
        };
        let selectors: Vec<_> = selectors.iter().map(selector::Labels::from_label_selector).collect();
        let mut rules: Vec<&Value> = Vec::new();
        for part in all.iter().filter(|part| part["metadata"]["name"] != role["metadata"]["name"]) {
            if selectors.iter().any(|selector| selector.matches_object(part)) {
                for rule in part["rules"].as_array().into_iter().flatten() {
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
            }
        }
        let rules = json!(rules);
        if role["rules"] != rules && !(role["rules"].is_null() && rules == json!([])) {
            wrong.push((role["metadata"]["name"].as_str().unwrap_or_default().to_owned(), rules));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_binds_a_role_that_there_is_from_the_beginning() {
        let defaults = defaults();
        let there = |plural: &str, namespace: &Value, name: &Value| {
            defaults.iter().any(|(of, object)| {
                *of == plural && object["metadata"]["name"] == *name && object["metadata"]["namespace"] == *namespace
            })
        };
        for (plural, object) in defaults.iter().filter(|(plural, _)| plural.ends_with("bindings")) {
            let (roles, namespace) = match *plural {
                "clusterrolebindings" => ("clusterroles", &Value::Null),
                _ => ("roles", &object["metadata"]["namespace"]),
            };
            assert!(there(roles, namespace, &object["roleRef"]["name"]), "{object}");
        }
        assert!(defaults.len() > 40, "{}", defaults.len());
    }

    #[test]
    fn what_was_taken_away_comes_back_and_what_was_added_stays() {
        let wanted = json!({"metadata": {"labels": {"a": "1"}, "annotations": {UPDATED: "true"}}, "rules": [{"verbs": ["get"]}]});
        let there = json!({"metadata": {"labels": {"b": "2"}}, "rules": [{"verbs": ["list"]}]});
        let whole = completed(&there, &wanted).unwrap();
        assert_eq!(whole["rules"], json!([{"verbs": ["list"]}, {"verbs": ["get"]}]));
        assert_eq!(whole["metadata"]["labels"], json!({"a": "1", "b": "2"}));
        assert_eq!(completed(&whole, &wanted), None);
        let mine = json!({"metadata": {"annotations": {UPDATED: "false"}}, "rules": []});
        assert_eq!(completed(&mine, &wanted), None);
    }
}
