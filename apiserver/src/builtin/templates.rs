//! Templates of Pods, and the selectors that find what was made from them: shared by every kind that makes Pods.

use onex_crds::Invalid;
use serde_json::{Map, Value};

use super::{
    go, list, object,
    pod_spec::{check_spec, fill_spec},
    refuse, text,
};
use crate::{
    kinds::{Cell, Column},
    meta,
    selector::Labels,
    status::is_enough,
    table::wide_column,
};

const NONE: &str = "<none>";

/// Fills in what the template at `template` leaves out.
pub fn fill_template(fields: &mut Map<String, Value>) {
    if let Some(spec) = object(fields, "template").and_then(|template| object(template, "spec")) {
        fill_spec(spec);
    }
}

/// The usual mistakes in a template. Besides its own volumes, its containers may mount `claims`.
pub fn check_template(template: &Value, at: &str, claims: &[&str], wrong: &mut Vec<Invalid>) {
    meta::check_labels(&template["metadata"]["labels"], &format!("{at}.labels"), wrong);
    check_spec(&template["spec"], &format!("{at}.spec"), claims, wrong);
    if !list(&template["spec"], "ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        wrong.push(Invalid::forbidden(format!("{at}.spec.ephemeralContainers"), why));
    }
}

/// Pods that are to be there all the time start again when they end, and end when they are deleted.
pub fn check_lasting(template: &Value, at: &str, kind: &str, wrong: &mut Vec<Invalid>) {
    let policy = text(&template["spec"], "restartPolicy");
    if policy != "Always" {
        wrong.push(Invalid::not_supported(format!("{at}.spec.restartPolicy"), policy, &["Always"]));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        wrong.push(Invalid::forbidden(format!("{at}.spec.activeDeadlineSeconds"), why));
    }
}

/// A selector that is there, says something, and finds the Pods of the template. `empty` is said of one that is not.
pub fn check_selector(spec: &Value, empty: &str, wrong: &mut Vec<Invalid>) {
    let selector = &spec["selector"];
    if selector.is_null() {
        wrong.push(Invalid::required("spec.selector", ""));
    } else {
        check_label_selector(selector, "spec.selector", wrong);
        if is_empty(selector) {
            wrong.push(Invalid::printed("spec.selector", go::label_selector(selector), empty));
        }
    }
    if !is_empty(selector) {
        check_finds(spec, wrong);
    }
}

fn is_empty(selector: &Value) -> bool {
    let labels = selector["matchLabels"].as_object().is_none_or(Map::is_empty);
    labels && list(selector, "matchExpressions").is_empty()
}

/// The selector finds the Pods of the template.
pub fn check_finds(spec: &Value, wrong: &mut Vec<Invalid>) {
    let template = &spec["template"];
    if !Labels::from_label_selector(&spec["selector"]).matches_object(template) {
        let labels = go::labels(&template["metadata"]["labels"]);
        let why = "`selector` does not match template `labels`";
        wrong.push(Invalid::printed("spec.template.metadata.labels", labels, why));
    }
}

/// The selector stays.
pub fn check_same_selector(spec: &Value, old: &Value, wrong: &mut Vec<Invalid>) {
    if spec["selector"] != old["selector"] {
        let selector = go::label_selector(&spec["selector"]);
        wrong.push(Invalid::printed("spec.selector", selector, "field is immutable"));
    }
}

/// The usual mistakes in a LabelSelector.
pub fn check_label_selector(selector: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    meta::check_labels(&selector["matchLabels"], &format!("{at}.matchLabels"), wrong);
    for (index, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{at}.matchExpressions[{index}]");
        let values = list(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                wrong.push(Invalid::required(format!("{at}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                wrong.push(Invalid::forbidden(format!("{at}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                wrong.push(Invalid::value(format!("{at}.operator"), other, "not a valid selector operator"));
            }
        }
        let key = text(requirement, "key");
        refuse(&format!("{at}.key"), key, meta::qualified_name(key), wrong);
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            if is_enough(wrong) {
                return;
            }
            refuse(&format!("{at}.values[{index}]"), value, meta::label_value(value), wrong);
        }
    }
}

/// The wide columns that tell what the Pods of a template run.
pub fn container_columns(names: fn(&Value, i64) -> Value, images: fn(&Value, i64) -> Value) -> [Column; 2] {
    [
        wide_column("Containers", "string", "The containers of the template.", Cell::Function(names)),
        wide_column("Images", "string", "What the containers run.", Cell::Function(images)),
    ]
}

/// What the containers of `/spec/template` are called.
pub fn names(object: &Value, _now: i64) -> Value {
    joined(&object["spec"]["template"], "name")
}

/// What the containers of `/spec/template` run.
pub fn images(object: &Value, _now: i64) -> Value {
    joined(&object["spec"]["template"], "image")
}

/// One field of all containers of a template.
pub fn joined(template: &Value, field: &str) -> Value {
    let containers = list(&template["spec"], "containers").iter();
    containers.map(|container| text(container, field)).collect::<Vec<_>>().join(",").into()
}

/// The wide column of a selector.
pub fn selector_column() -> Column {
    let cell = Cell::Function(|object, _| selector(&object["spec"]["selector"]).into());
    wide_column("Selector", "string", "The labels by which Pods are found.", cell)
}

/// A LabelSelector as text; `<none>` if it finds everything, `<error>` if it makes no sense.
pub fn selector(selector: &Value) -> String {
    if selector.is_null() || is_empty(selector) {
        return NONE.to_owned();
    }
    Labels::from_label_selector(selector).to_string()
}

/// Labels as text, in the order of their names; `<none>` if there are none.
pub fn labels(labels: &Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}
