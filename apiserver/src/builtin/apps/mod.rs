//! apps: Deployments, ReplicaSets, StatefulSets, DaemonSets, and the ControllerRevisions that they keep.

use k8s_openapi::{Resource, api::apps::v1::ControllerRevision};
use onex_crds::Invalid;
use schemars::JsonSchema;
use serde_json::Value;

use super::{fill, kubernetes, list, object, refuse_change, refuse_negative, text};
use crate::{
    kinds::{Cell, Hooks, Kind},
    meta,
    table::{age_column, column, name_column, path},
};

mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;

/// The kinds of the group, in the order of their names.
pub fn kinds() -> Vec<Kind> {
    vec![controller_revision(), daemon_set::kind(), deployment::kind(), replica_set::kind(), stateful_set::kind()]
}

/// What the kinds that make Pods have in common.
fn workload<K: Resource + JsonSchema + 'static>(plural: &str, short_name: &str) -> Kind {
    let mut kind = kubernetes::<K>(plural, &[short_name]);
    kind.categories = vec!["all".to_owned()];
    kind.status = true;
    kind.generation = true;
    kind
}

/// A column of a number in the status.
fn counted(name: &str, description: &str, cell: fn(&Value, i64) -> Value) -> crate::kinds::Column {
    column(name, "integer", description, Cell::Function(cell))
}

/// A number that is zero when nobody has written it.
fn number(object: &Value, field: &str) -> i64 {
    object[field].as_i64().unwrap_or(0)
}

/// Names of Pods come from this one.
fn warn_of_name(object: &Value) -> Vec<String> {
    let complaints = meta::dns_label(text(&object["metadata"], "name"));
    let warning = |complaint: &String| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
             recommended: [{complaint}]"
        )
    };
    complaints.first().map(warning).into_iter().collect()
}

fn controller_revision() -> Kind {
    let mut kind = kubernetes::<ControllerRevision>("controllerrevisions", &[]);
    kind.columns = vec![
        name_column(),
        column(
            "Controller",
            "string",
            "Who keeps the revision.",
            Cell::Function(|object, _| controller(object).into()),
        ),
        column("Revision", "string", "The number of the revision.", path(".revision")),
        age_column(),
    ];
    kind.hooks = Hooks { check: check_revision, ..Hooks::default() };
    kind
}

fn check_revision(revision: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    if revision["revision"].as_i64().is_some_and(|number| number < 0) {
        wrong.push(Invalid::value("revision", revision["revision"].clone(), "must be greater than or equal to 0"));
    }
    match (&revision["data"], old) {
        (_, Some(old)) => refuse_change("data", &revision["data"], &old["data"], &mut wrong),
        (Value::Null, None) => wrong.push(Invalid::required("data", "data is mandatory")),
        (Value::Object(_), None) => {}
        (_, None) => wrong.push(Invalid::required("data", "data must be a valid JSON object")),
    }
    wrong
}

/// `deployment.apps/web`.
fn controller(object: &Value) -> String {
    let owners = list(&object["metadata"], "ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else { return "<none>".to_owned() };
    let kind = text(owner, "kind").to_lowercase();
    let kind = match text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}"),
        None => kind,
    };
    format!("{kind}/{}", text(owner, "name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::core::filled, *};
    use crate::table::printed;

    fn complaints(kind: &Kind, object: Value, old: Option<Value>) -> Vec<String> {
        (kind.hooks.check)(&object, old.as_ref()).iter().map(ToString::to_string).collect()
    }

    /// The least that such a kind takes.
    fn least(kind: &Kind) -> Value {
        let template =
            json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template});
        filled(kind, json!({"metadata": {"name": "a"}, "spec": spec}))
    }

    fn workloads() -> Vec<Kind> {
        kinds().into_iter().filter(|kind| kind.status).collect()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let filled: serde_json::Map<String, Value> =
            workloads().iter().map(|kind| (kind.kind.clone(), least(kind)["spec"].clone())).collect();
        insta::assert_json_snapshot!(filled);
    }

    #[test]
    fn the_least_is_enough_and_an_update_that_changes_nothing_is_fine() {
        for kind in workloads() {
            let object = least(&kind);
            assert!(complaints(&kind, object.clone(), None).is_empty(), "{}", kind.kind);
            assert!(complaints(&kind, object.clone(), Some(object)).is_empty(), "{}", kind.kind);
        }
    }

    #[test]
    fn a_selector_finds_what_is_made_and_stays() {
        for kind in workloads() {
            let old = least(&kind);
            let mut other = old.clone();
            other["spec"]["selector"]["matchLabels"]["app"] = json!("b");
            let said = complaints(&kind, other.clone(), None).join("\n");
            let expected = r#"spec.template.metadata.labels: Invalid value: map[string]string{"app":"a"}: `selector` does not match template `labels`"#;
            assert!(said.contains(expected), "{}: {said}", kind.kind);
            other["spec"]["template"]["metadata"]["labels"]["app"] = json!("b");
            assert!(complaints(&kind, other.clone(), None).is_empty(), "{}", kind.kind);
            assert!(!complaints(&kind, other, Some(old.clone())).is_empty(), "{}", kind.kind);
            let mut none = old.clone();
            none["spec"]["selector"] = json!({});
            let said = complaints(&kind, none, None).join("\n");
            assert!(said.contains("empty selector is invalid for"), "{}: {said}", kind.kind);
        }
    }

    #[test]
    fn pods_that_are_to_last_start_again() {
        for kind in workloads() {
            let mut object = least(&kind);
            object["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
            object["spec"]["template"]["spec"]["activeDeadlineSeconds"] = json!(5);
            let said = complaints(&kind, object, None);
            assert_eq!(
                said[0], "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "{}",
                kind.kind
            );
            assert!(said[1].starts_with("spec.template.spec.activeDeadlineSeconds: Forbidden: "), "{}", said[1]);
        }
    }

    #[test]
    fn kubectl_shows_what_there_is_of_what_is_wanted() {
        let shown: Vec<String> = workloads()
            .iter()
            .map(|kind| {
                let mut object = least(kind);
                object["spec"]["replicas"] = json!(3);
                object["status"] = json!({"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1,
                    "desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2,
                    "numberAvailable": 1});
                format!("{}\n{}", kind.kind, printed(kind, &[object], 0))
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n\n"));
        let revision = json!({"metadata": {"name": "r", "ownerReferences": [
            {"kind": "X", "apiVersion": "v1", "name": "x"},
            {"kind": "DaemonSet", "apiVersion": "apps/v1", "name": "d", "controller": true}]}, "revision": 3});
        assert_eq!(
            printed(&controller_revision(), &[revision], 0),
            "Name | Controller | Revision | Age\nr | daemonset.apps/d | 3 | <unknown>"
        );
    }

    #[test]
    fn a_revision_says_something_and_goes_on_saying_it() {
        let kind = controller_revision();
        assert_eq!(complaints(&kind, json!({"revision": 1}), None), ["data: Required value: data is mandatory"]);
        assert_eq!(
            complaints(&kind, json!({"revision": -1, "data": []}), None),
            [
                "revision: Invalid value: -1: must be greater than or equal to 0",
                "data: Required value: data must be a valid JSON object"
            ]
        );
        let old = json!({"revision": 1, "data": {"a": 1}});
        assert!(complaints(&kind, json!({"revision": 2, "data": {"a": 1}}), Some(old.clone())).is_empty());
        assert_eq!(
            complaints(&kind, json!({"revision": 2, "data": {"a": 2}}), Some(old)),
            ["data: Invalid value: \"object\": field is immutable"]
        );
    }
}
