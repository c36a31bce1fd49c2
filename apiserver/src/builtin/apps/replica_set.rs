//! ReplicaSets.

use k8s_openapi::api::apps::v1::ReplicaSet;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{
    super::{
        replicas::check_status,
        scale,
        templates::{
            check_lasting, check_same_selector, check_selector, check_template, container_columns, fill_template,
            images, names, selector_column,
        },
    },
    counted, fill, number, object, refuse_negative, workload,
};
use crate::{
    kinds::{Hooks, Kind},
    table::{age_column, name_column},
};

/// ReplicaSets.
pub fn kind() -> Kind {
    let mut kind = workload::<ReplicaSet>("replicasets", "rs");
    kind.scale = Some(scale(&["spec", "selector"]));
    kind.columns = vec![
        name_column(),
        counted("Desired", "Pods that are wanted.", |object, _| number(&object["spec"], "replicas").into()),
        counted("Current", "Pods that there are.", |object, _| number(&object["status"], "replicas").into()),
        counted("Ready", "Pods that are ready.", |object, _| number(&object["status"], "readyReplicas").into()),
        age_column(),
    ];
    kind.columns.extend(container_columns(names, images));
    kind.columns.push(selector_column());
    kind.selectable = super::super::selectable(&["status.replicas"]);
    kind.hooks = Hooks { fill: fill_set, check, prepare, ..Hooks::default() };
    kind
}

fn fill_set(set: &mut Value) {
    let Some(spec) = set.as_object_mut().and_then(|set| object(set, "spec")) else { return };
    fill_template(spec);
    fill(spec, "replicas", 1);
}

fn prepare(set: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        set["status"] = json!({"replicas": 0});
    }
}

fn check(set: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &set["spec"];
    refuse_negative(spec, "spec", &["replicas", "minReadySeconds"], &mut wrong);
    check_selector(spec, "empty selector is invalid for deployment", &mut wrong);
    check_template(&spec["template"], "spec.template", &[], &mut wrong);
    check_lasting(&spec["template"], "spec.template", "ReplicaSet", &mut wrong);
    if let Some(old) = old {
        check_same_selector(spec, &old["spec"], &mut wrong);
    }
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas", "terminatingReplicas"];
    check_status(&set["status"], old, &parts, "readyReplicas", &mut wrong);
    wrong
}
