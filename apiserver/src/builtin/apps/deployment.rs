//! Deployments.

use k8s_openapi::api::apps::v1::Deployment;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{
    super::{
        go,
        replicas::{check_status, refuse_amount, refuse_more_than_all, worth},
        scale,
        templates::{
            check_lasting, check_same_selector, check_selector, check_template, container_columns, fill_template,
            images, names, selector_column,
        },
    },
    fill, number, object, refuse_negative, text, warn_of_name, workload,
};
use crate::{
    kinds::{Cell, Hooks, Kind},
    table::{age_column, column, name_column},
};

/// Deployments.
pub fn kind() -> Kind {
    let mut kind = workload::<Deployment>("deployments", "deploy");
    kind.scale = Some(scale(&["spec", "selector"]));
    kind.columns = vec![
        name_column(),
        column(
            "Ready",
            "string",
            "Pods that are ready, of those wanted.",
            Cell::Function(|object, _| {
                format!("{}/{}", number(&object["status"], "readyReplicas"), number(&object["spec"], "replicas")).into()
            }),
        ),
        column(
            "Up-to-date",
            "string",
            "Pods that were made from the present template.",
            Cell::Function(|object, _| number(&object["status"], "updatedReplicas").into()),
        ),
        column(
            "Available",
            "string",
            "Pods that have been ready for at least minReadySeconds.",
            Cell::Function(|object, _| number(&object["status"], "availableReplicas").into()),
        ),
        age_column(),
    ];
    kind.columns.extend(container_columns(names, images));
    kind.columns.push(selector_column());
    kind.hooks = Hooks { fill: fill_deployment, check, prepare, warn: warn_of_name, ..Hooks::default() };
    kind
}

fn fill_deployment(deployment: &mut Value) {
    let Some(spec) = deployment.as_object_mut().and_then(|deployment| object(deployment, "spec")) else { return };
    fill_template(spec);
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = object(spec, "strategy") {
        fill(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
}

/// Annotations go on to the ReplicaSets, so a change of them is a new generation as well.
fn prepare(deployment: &mut Value, old: Option<&Value>) {
    let Some(old) = old else {
        deployment["status"] = json!({});
        return;
    };
    let annotations = |object: &Value| object["metadata"]["annotations"].as_object().filter(|a| !a.is_empty()).cloned();
    if annotations(deployment) != annotations(old) {
        let generation = number(&old["metadata"], "generation") + 1;
        if let Some(meta) = deployment.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("generation".to_owned(), generation.into());
        }
    }
}

fn check(deployment: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &deployment["spec"];
    refuse_negative(spec, "spec", &["replicas"], &mut wrong);
    check_selector(spec, "empty selector is invalid for deployment", &mut wrong);
    check_template(&spec["template"], "spec.template", &[], &mut wrong);
    check_lasting(&spec["template"], "spec.template", "ReplicaSet", &mut wrong);
    check_strategy(&spec["strategy"], &mut wrong);
    refuse_negative(spec, "spec", &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], &mut wrong);
    if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64()
        && deadline <= number(spec, "minReadySeconds")
    {
        let why = "must be greater than minReadySeconds";
        wrong.push(Invalid::value("spec.progressDeadlineSeconds", deadline, why));
    }
    if let Some(old) = old {
        check_same_selector(spec, &old["spec"], &mut wrong);
    }
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas", "terminatingReplicas"];
    check_status(&deployment["status"], old, &parts, "readyReplicas", &mut wrong);
    wrong
}

fn check_strategy(strategy: &Value, wrong: &mut Vec<Invalid>) {
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "Recreate" if rolling.is_object() => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            wrong.push(Invalid::forbidden("spec.strategy.rollingUpdate", why));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let at = |field: &str| format!("spec.strategy.rollingUpdate.{field}");
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            refuse_amount(&at("maxUnavailable"), unavailable, wrong);
            refuse_amount(&at("maxSurge"), surge, wrong);
            if worth(unavailable).0 == 0 && worth(surge).0 == 0 {
                let why = "may not be 0 when `maxSurge` is 0";
                wrong.push(Invalid::printed(at("maxUnavailable"), go::int_or_string(unavailable), why));
            }
            refuse_more_than_all(&at("maxUnavailable"), unavailable, wrong);
        }
        other => wrong.push(Invalid::not_supported("spec.strategy.type", other, &["Recreate", "RollingUpdate"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_makes_room_somewhere() {
        let complaints = |strategy: Value| {
            let mut wrong = Vec::new();
            check_strategy(&strategy, &mut wrong);
            wrong.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let rolling = |unavailable: Value, surge: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
        assert!(complaints(rolling(json!("25%"), json!(0))).is_empty());
        assert_eq!(
            complaints(rolling(json!(0), json!("0%"))),
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: intstr.IntOrString{Type:0, IntVal:0, \
                 StrVal:\"\"}: may not be 0 when `maxSurge` is 0"]
        );
        assert_eq!(
            complaints(json!({"type": "Recreate", "rollingUpdate": {}})),
            ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
        );
        assert_eq!(
            complaints(json!({"type": "Blue"})),
            ["spec.strategy.type: Unsupported value: \"Blue\": supported values: \"Recreate\", \"RollingUpdate\""]
        );
    }

    #[test]
    fn other_annotations_are_another_generation() {
        let old = json!({"metadata": {"generation": 2, "annotations": {"a": "1"}}});
        let mut new = old.clone();
        prepare(&mut new, Some(&old));
        assert_eq!(new["metadata"]["generation"], 2);
        new["metadata"]["annotations"]["a"] = json!("2");
        prepare(&mut new, Some(&old));
        assert_eq!(new["metadata"]["generation"], 3);
    }
}
