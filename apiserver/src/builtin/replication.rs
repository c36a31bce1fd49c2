//! ReplicationControllers and PodTemplates: what there was before the group apps.

use k8s_openapi::api::core::v1::{PodTemplate, ReplicationController};
use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::{
    fill, go, kubernetes, object, refuse_negative,
    replicas::check_status,
    scale, selectable,
    templates::{check_lasting, check_template, container_columns, fill_template, images, joined, labels, names},
};
use crate::{
    kinds::{Cell, Hooks, Kind},
    selector::Labels,
    table::{age_column, column, name_column, wide_column},
};

/// The kinds.
pub fn kinds() -> Vec<Kind> {
    vec![pod_template(), controller()]
}

fn pod_template() -> Kind {
    let mut kind = kubernetes::<PodTemplate>("podtemplates", &[]);
    kind.returns_deleted = true;
    kind.generation = true;
    kind.columns = vec![
        name_column(),
        column(
            "Containers",
            "string",
            "The containers of the template.",
            Cell::Function(|o, _| joined(&o["template"], "name")),
        ),
        column("Images", "string", "What the containers run.", Cell::Function(|o, _| joined(&o["template"], "image"))),
        column(
            "Pod Labels",
            "string",
            "The labels of the template.",
            Cell::Function(|object, _| labels(&object["template"]["metadata"]["labels"]).into()),
        ),
    ];
    kind.hooks = Hooks {
        fill: |template| {
            if let Some(fields) = template.as_object_mut() {
                fill_template(fields);
            }
        },
        check: |template, _| {
            let mut wrong = Vec::new();
            check_template(&template["template"], "template", &[], &mut wrong);
            wrong
        },
        ..Hooks::default()
    };
    kind
}

fn controller() -> Kind {
    let mut kind = kubernetes::<ReplicationController>("replicationcontrollers", &["rc"]);
    kind.categories = vec!["all".to_owned()];
    kind.prefix = "/registry/controllers/".to_owned();
    kind.status = true;
    kind.generation = true;
    kind.orphans_dependents = true; // as it was before there was garbage collection
    kind.scale = Some(scale(&["spec", "selector"]));
    let number = |name: &str, description: &str, cell: fn(&Value, i64) -> Value| {
        column(name, "integer", description, Cell::Function(cell))
    };
    kind.columns = vec![
        name_column(),
        number("Desired", "Pods that are wanted.", |rc, _| rc["spec"]["replicas"].as_i64().unwrap_or(0).into()),
        number("Current", "Pods that there are.", |rc, _| rc["status"]["replicas"].as_i64().unwrap_or(0).into()),
        number("Ready", "Pods that are ready.", |rc, _| rc["status"]["readyReplicas"].as_i64().unwrap_or(0).into()),
        age_column(),
    ];
    kind.columns.extend(container_columns(names, images));
    kind.columns.push(wide_column(
        "Selector",
        "string",
        "The labels by which Pods are found.",
        Cell::Function(|rc, _| labels(&rc["spec"]["selector"]).into()),
    ));
    kind.selectable = selectable(&["status.replicas"]);
    kind.hooks = Hooks { fill: fill_controller, check, prepare, ..Hooks::default() };
    kind
}

/// Who says no selector means the labels of the template, and the labels of the controller are the same.
fn fill_controller(rc: &mut Value) {
    let labels = rc["spec"]["template"]["metadata"]["labels"].clone();
    let Some(fields) = rc.as_object_mut() else { return };
    let is_empty = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
    let labelled = !is_empty(Some(&labels));
    if labelled
        && let Some(meta) = object(fields, "metadata")
        && is_empty(meta.get("labels"))
    {
        meta.insert("labels".to_owned(), labels.clone());
    }
    let Some(spec) = object(fields, "spec") else { return };
    fill(spec, "replicas", 1);
    if labelled && is_empty(spec.get("selector")) {
        spec.insert("selector".to_owned(), labels);
    }
    if spec.get("template").is_some_and(Value::is_object) {
        fill_template(spec);
    }
}

fn prepare(rc: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        rc["status"] = json!({"replicas": 0});
    }
}

fn check(rc: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &rc["spec"];
    refuse_negative(spec, "spec", &["minReadySeconds", "replicas"], &mut wrong);
    if spec["selector"].as_object().is_none_or(Map::is_empty) {
        wrong.push(Invalid::required("spec.selector", ""));
    }
    if spec["template"].is_null() {
        wrong.push(Invalid::required("spec.template", ""));
    } else {
        let template = &spec["template"];
        if !Labels::from_label_selector(&json!({"matchLabels": spec["selector"]})).matches_object(template) {
            let labels = go::labels(&template["metadata"]["labels"]);
            let why = "`selector` does not match template `labels`";
            wrong.push(Invalid::printed("spec.template.metadata.labels", labels, why));
        }
        check_template(template, "spec.template", &[], &mut wrong);
        check_lasting(template, "spec.template", "ReplicationController", &mut wrong);
    }
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    check_status(&rc["status"], old, &parts, "readyReplicas", &mut wrong);
    wrong
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};
    use crate::table::printed;

    #[test]
    fn a_controller_takes_its_selector_from_its_template() {
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let rc = filled(&controller(), json!({"metadata": {"name": "rc"}, "spec": {"template": template}}));
        assert_eq!(rc["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(rc["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(check(&rc, None), []);
        assert_eq!(
            printed(&controller(), &[rc], 0),
            "Name | Desired | Current | Ready | Age | (Containers) | (Images) | (Selector)\n\
             rc | 1 | 0 | 0 | <unknown> | c | i | a=b"
        );
        let wrong: Vec<String> = check(&json!({"spec": {}}), None).iter().map(ToString::to_string).collect();
        assert_eq!(wrong, ["spec.selector: Required value", "spec.template: Required value"]);
    }
}
