//! DaemonSets.

use k8s_openapi::api::apps::v1::DaemonSet;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{
    super::{
        go,
        replicas::{refuse_amount, refuse_more_than_all, worth},
        templates::{
            check_lasting, check_same_selector, check_selector, check_template, container_columns, fill_template,
            images, labels, names, selector_column,
        },
    },
    counted, fill, number, object, refuse_negative, text, workload,
};
use crate::{
    kinds::{Cell, Hooks, Kind},
    table::{age_column, column, name_column},
};

/// Counts the templates that the set has had. It was a field of the spec once, and the annotation is what is left of it.
const TEMPLATES: &str = "deprecated.daemonset.template.generation";

/// DaemonSets.
pub fn kind() -> Kind {
    let mut kind = workload::<DaemonSet>("daemonsets", "ds");
    kind.columns = vec![
        name_column(),
        counted("Desired", "Nodes that are to run the Pod.", |object, _| status(object, "desiredNumberScheduled")),
        counted("Current", "Nodes that run the Pod.", |object, _| status(object, "currentNumberScheduled")),
        counted("Ready", "Nodes where the Pod is ready.", |object, _| status(object, "numberReady")),
        counted("Up-to-date", "Nodes that run the present template.", |object, _| {
            status(object, "updatedNumberScheduled")
        }),
        counted("Available", "Nodes where the Pod has been ready for minReadySeconds.", |object, _| {
            status(object, "numberAvailable")
        }),
        column(
            "Node Selector",
            "string",
            "The labels of the nodes.",
            Cell::Function(|object, _| labels(&object["spec"]["template"]["spec"]["nodeSelector"]).into()),
        ),
        age_column(),
    ];
    kind.columns.extend(container_columns(names, images));
    kind.columns.push(selector_column());
    kind.hooks = Hooks { fill: fill_set, check, prepare, ..Hooks::default() };
    kind
}

fn status(object: &Value, field: &str) -> Value {
    number(&object["status"], field).into()
}

fn fill_set(set: &mut Value) {
    let Some(spec) = set.as_object_mut().and_then(|set| object(set, "spec")) else { return };
    fill_template(spec);
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = object(spec, "updateStrategy") {
        fill(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }
}

fn prepare(set: &mut Value, old: Option<&Value>) {
    let count = |set: &Value| text(&set["metadata"]["annotations"], TEMPLATES).parse::<i64>().unwrap_or(0);
    let templates = match old {
        None => {
            set["status"] = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0,
                "numberReady": 0});
            count(set).max(1)
        }
        Some(old) => count(old) + i64::from(old["spec"]["template"] != set["spec"]["template"]),
    };
    let annotations =
        set.as_object_mut().and_then(|set| object(set, "metadata")).and_then(|m| object(m, "annotations"));
    if let Some(annotations) = annotations {
        annotations.insert(TEMPLATES.to_owned(), templates.to_string().into());
    }
}

fn check(set: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &set["spec"];
    check_selector(spec, "empty selector is invalid for daemonset", &mut wrong);
    check_template(&spec["template"], "spec.template", &[], &mut wrong);
    check_lasting(&spec["template"], "spec.template", "DaemonSet", &mut wrong);
    refuse_negative(spec, "spec", &["minReadySeconds", "revisionHistoryLimit"], &mut wrong);
    check_strategy(&spec["updateStrategy"], &mut wrong);
    if let Some(old) = old {
        check_same_selector(spec, &old["spec"], &mut wrong);
    }
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    refuse_negative(&set["status"], "status", &counts, &mut wrong);
    wrong
}

fn check_strategy(strategy: &Value, wrong: &mut Vec<Invalid>) {
    let at = |field: &str| format!("spec.updateStrategy.rollingUpdate.{field}");
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = &strategy["rollingUpdate"];
            for field in ["maxUnavailable", "maxSurge"] {
                refuse_amount(&at(field), &rolling[field], wrong);
                refuse_more_than_all(&at(field), &rolling[field], wrong);
            }
            match (worth(&rolling["maxUnavailable"]).0 != 0, worth(&rolling["maxSurge"]).0 != 0) {
                (true, true) => {
                    let why = "may not be set when maxUnavailable is non-zero";
                    wrong.push(Invalid::printed(at("maxSurge"), go::int_or_string(&rolling["maxSurge"]), why));
                }
                (false, false) => {
                    wrong.push(Invalid::required(at("maxUnavailable"), "cannot be 0 when maxSurge is 0"));
                }
                _ => {}
            }
        }
        other => wrong.push(Invalid::not_supported("spec.updateStrategy.type", other, &["RollingUpdate", "OnDelete"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_counted_in_an_annotation() {
        let mut set = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {"nodeName": "n"}}}});
        prepare(&mut set, None);
        assert_eq!(set["metadata"]["annotations"][TEMPLATES], "1");
        let old = set.clone();
        set["metadata"]["annotations"] = json!({});
        prepare(&mut set, Some(&old));
        assert_eq!(set["metadata"]["annotations"][TEMPLATES], "1");
        set["spec"]["template"]["spec"]["nodeName"] = json!("m");
        prepare(&mut set, Some(&old));
        assert_eq!(set["metadata"]["annotations"][TEMPLATES], "2");
    }

    #[test]
    fn pods_are_missing_or_too_many_but_not_both() {
        let complaints = |unavailable: i64, surge: i64| {
            let mut wrong = Vec::new();
            let rolling = json!({"maxUnavailable": unavailable, "maxSurge": surge});
            check_strategy(&json!({"type": "RollingUpdate", "rollingUpdate": rolling}), &mut wrong);
            wrong.into_iter().map(|wrong| wrong.field).collect::<Vec<_>>()
        };
        assert_eq!(complaints(1, 0), [""; 0]);
        assert_eq!(complaints(0, 1), [""; 0]);
        assert_eq!(complaints(1, 1), ["spec.updateStrategy.rollingUpdate.maxSurge"]);
        assert_eq!(complaints(0, 0), ["spec.updateStrategy.rollingUpdate.maxUnavailable"]);
    }
}
