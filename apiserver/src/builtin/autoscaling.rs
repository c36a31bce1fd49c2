//! autoscaling: HorizontalPodAutoscalers, in version 2.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::{fill, kubernetes, list, object, refuse, refuse_negative, refuse_unsupported, text};
use crate::{
    kinds::{Cell, Hooks, Kind},
    meta,
    status::is_enough,
    table::{age_column, column, name_column},
};

const TYPES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// HorizontalPodAutoscalers.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<HorizontalPodAutoscaler>("horizontalpodautoscalers", &["hpa"]);
    kind.categories = vec!["all".to_owned()];
    kind.status = true;
    kind.columns = vec![
        name_column(),
        column(
            "Reference",
            "string",
            "What is scaled.",
            Cell::Function(|hpa, _| {
                let target = &hpa["spec"]["scaleTargetRef"];
                format!("{}/{}", text(target, "kind"), text(target, "name")).into()
            }),
        ),
        column(
            "Targets",
            "string",
            "What is measured, and what is wanted.",
            Cell::Function(|hpa, _| targets(hpa).into()),
        ),
        column(
            "MinPods",
            "string",
            "How many at least.",
            Cell::Function(|hpa, _| {
                hpa["spec"]["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |n| n.to_string()).into()
            }),
        ),
        column(
            "MaxPods",
            "string",
            "How many at most.",
            Cell::Function(|hpa, _| hpa["spec"]["maxReplicas"].as_i64().unwrap_or(0).into()),
        ),
        column(
            "Replicas",
            "string",
            "How many there are.",
            Cell::Function(|hpa, _| hpa["status"]["currentReplicas"].as_i64().unwrap_or(0).into()),
        ),
        age_column(),
    ];
    kind.hooks = Hooks { fill: fill_autoscaler, check, prepare, ..Hooks::default() };
    kind
}

/// The first two metrics as `what: now/wanted`, and how many more there are.
pub fn targets(hpa: &Value) -> String {
    let (wanted, seen) = (list(&hpa["spec"], "metrics"), list(&hpa["status"], "currentMetrics"));
    let shown: Vec<String> = wanted
        .iter()
        .enumerate()
        .map(|(index, metric)| target(metric, seen.get(index).unwrap_or(&Value::Null)))
        .collect();
    match shown.len() {
        0 => "<none>".to_owned(),
        1 | 2 => shown.join(", "),
        more => format!("{} + {} more...", shown[..2].join(", "), more - 2),
    }
}

fn target(metric: &Value, seen: &Value) -> String {
    let Some((_, field)) = TYPES.iter().find(|(kind, _)| metric["type"] == *kind) else {
        return "<unknown type>".to_owned();
    };
    let (target, current) = (&metric[*field]["target"], &seen[*field]["current"]);
    let amount = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let known = |value: &Value| if value.is_null() { "<unknown>".to_owned() } else { amount(value) };
    let average = !target["averageValue"].is_null();
    match *field {
        "pods" => format!("{}/{}", known(&current["averageValue"]), amount(&target["averageValue"])),
        "object" | "external" if average => {
            format!("{}/{} (avg)", known(&current["averageValue"]), amount(&target["averageValue"]))
        }
        "object" | "external" => format!("{}/{}", known(&current["value"]), amount(&target["value"])),
        _ => {
            let name = text(&metric[*field], "name");
            if average {
                return format!("{name}: {}/{}", known(&current["averageValue"]), amount(&target["averageValue"]));
            }
            let percent = |value: &Value, none: &str| value.as_i64().map_or(none.to_owned(), |n| format!("{n}%"));
            let now = percent(&current["averageUtilization"], "<unknown>");
            format!("{name}: {now}/{}", percent(&target["averageUtilization"], "<auto>"))
        }
    }
}

fn fill_autoscaler(hpa: &mut Value) {
    let Some(spec) = hpa.as_object_mut().and_then(|hpa| object(hpa, "spec")) else { return };
    fill(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let usual = json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        spec.insert("metrics".to_owned(), usual);
    }
    let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    fill_rules(behavior, "scaleUp", json!([pods, percent]), Some(0));
    fill_rules(behavior, "scaleDown", json!([percent]), None);
}

fn fill_rules(behavior: &mut Map<String, Value>, direction: &str, policies: Value, window: Option<i64>) {
    let Some(rules) = object(behavior, direction) else { return };
    fill(rules, "selectPolicy", "Max");
    if rules.get("policies").is_none_or(Value::is_null) {
        rules.insert("policies".to_owned(), policies);
    }
    if let Some(seconds) = window {
        fill(rules, "stabilizationWindowSeconds", seconds);
    }
}

fn prepare(hpa: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        hpa["status"] = json!({"desiredReplicas": 0});
    }
}

fn check(hpa: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &hpa["spec"];
    let (least, most) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64().unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        wrong.push(Invalid::value("spec.minReplicas", least, "must be greater than or equal to 1"));
    }
    if most < 1 {
        wrong.push(Invalid::value("spec.maxReplicas", most, "must be greater than 0"));
    }
    if least.is_some_and(|least| most < least) {
        wrong.push(Invalid::value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"));
    }
    for field in ["kind", "name"] {
        let value = text(&spec["scaleTargetRef"], field);
        let at = format!("spec.scaleTargetRef.{field}");
        if value.is_empty() {
            wrong.push(Invalid::required(at, ""));
        } else {
            refuse(&at, value, meta::path_segment(value), &mut wrong);
        }
    }
    for (index, metric) in list(spec, "metrics").iter().enumerate() {
        if is_enough(&wrong) {
            return wrong;
        }
        check_metric(metric, &format!("spec.metrics[{index}]"), &mut wrong);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let (rules, at) = (&spec["behavior"][direction], format!("spec.behavior.{direction}"));
        let policy = text(rules, "selectPolicy");
        refuse_unsupported(&format!("{at}.selectPolicy"), policy, &["Disabled", "Max", "Min"], &mut wrong);
        refuse_negative(rules, &at, &["stabilizationWindowSeconds"], &mut wrong);
    }
    refuse_negative(&hpa["status"], "status", &["currentReplicas", "desiredReplicas"], &mut wrong);
    wrong
}

fn check_metric(metric: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let kind = text(metric, "type");
    let Some((_, field)) = TYPES.iter().find(|(known, _)| *known == kind) else {
        if kind.is_empty() {
            wrong.push(Invalid::required(format!("{at}.type"), "must specify a metric source type"));
        } else {
            let known = TYPES.map(|(kind, _)| kind);
            wrong.push(Invalid::not_supported(format!("{at}.type"), kind, &known));
        }
        return;
    };
    if metric[*field].is_null() {
        let why = "must populate information for the given metric source";
        return wrong.push(Invalid::required(format!("{at}.{field}"), why));
    }
    for (_, other) in TYPES.iter().filter(|(known, other)| *known != kind && !metric[*other].is_null()) {
        let why = "must populate the given metric source only";
        wrong.push(Invalid::forbidden(format!("{at}.{other}"), why));
    }
    let target = &metric[*field]["target"];
    if text(target, "type").is_empty() {
        let why = "must specify a metric target type";
        wrong.push(Invalid::required(format!("{at}.{field}.target.type"), why));
    }
    let kinds = ["Utilization", "Value", "AverageValue"];
    refuse_unsupported(&format!("{at}.{field}.target.type"), text(target, "type"), &kinds, wrong);
    if let Some(percent) = target["averageUtilization"].as_i64().filter(|percent| *percent < 1) {
        let at = format!("{at}.{field}.target.averageUtilization");
        wrong.push(Invalid::value(at, percent, "must be greater than 0"));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};
    use crate::table::printed;

    fn autoscaler(spec: Value) -> Value {
        let mut hpa = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 5,
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}}});
        for (field, value) in spec.as_object().unwrap() {
            hpa["spec"][field] = value.clone();
        }
        filled(&kind(), hpa)
    }

    #[test]
    fn an_autoscaler_looks_at_the_cpu_unless_told_otherwise() {
        let hpa = autoscaler(json!({"behavior": {}}));
        assert_eq!(check(&hpa, None), []);
        assert_eq!(hpa["spec"]["behavior"]["scaleUp"]["policies"].as_array().unwrap().len(), 2);
        assert_eq!(
            printed(&kind(), &[hpa], 0),
            "Name | Reference | Targets | MinPods | MaxPods | Replicas | Age\n\
             h | Deployment/web | cpu: <unknown>/80% | 1 | 5 | 0 | <unknown>"
        );
    }

    #[test]
    fn its_bounds_and_its_metrics_make_sense() {
        let metrics =
            json!([{"type": "Pods"}, {"type": "X"}, {"type": "Resource", "resource": {"name": "cpu", "target": {}}}]);
        let wrong = check(&autoscaler(json!({"minReplicas": 9, "maxReplicas": 0, "metrics": metrics})), None);
        let fields: Vec<String> = wrong.into_iter().map(|wrong| wrong.field).collect();
        assert_eq!(
            fields,
            [
                "spec.maxReplicas",
                "spec.maxReplicas",
                "spec.metrics[0].pods",
                "spec.metrics[1].type",
                "spec.metrics[2].resource.target.type",
            ]
        );
    }
}
