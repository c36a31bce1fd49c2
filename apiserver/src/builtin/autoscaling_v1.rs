//! autoscaling/v1: HorizontalPodAutoscalers as they were before they knew other metrics than the CPU.
//!
//! They are stored in version 2. What version 1 has no fields for stands in annotations, in the words of version 1, so that who reads
//! and writes it loses nothing.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler;
use serde_json::{Map, Value, json};

use super::{autoscaling, kubernetes, text};
use crate::kinds::{Cell, Conversion, Kind};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// HorizontalPodAutoscalers in version 1.
pub fn kind() -> Kind {
    let newer = autoscaling::kind();
    let mut kind = kubernetes::<HorizontalPodAutoscaler>("horizontalpodautoscalers", &["hpa"]);
    kind.categories = newer.categories;
    kind.status = newer.status;
    kind.prefix = newer.prefix;
    kind.columns = newer.columns;
    for column in kind.columns.iter_mut().filter(|column| column.name == "Targets") {
        column.cell = Cell::Function(|hpa, _| autoscaling::targets(&to_new(hpa.clone())).into());
    }
    kind.conversion = Some(Conversion { store: Arc::new(to_new), serve: Arc::new(to_old) });
    kind.hooks = newer.hooks; // which see the stored form
    kind
}

/// Version 1 as version 2. What is that already stays as it is.
fn to_new(mut hpa: Value) -> Value {
    if hpa["apiVersion"] == "autoscaling/v2" || !hpa.is_object() {
        return hpa;
    }
    hpa["apiVersion"] = "autoscaling/v2".into();
    let mut noted = |name: &str| {
        let annotations = hpa["metadata"].get_mut("annotations")?.as_object_mut()?;
        let text = annotations.remove(name)?;
        serde_json::from_str::<Value>(text.as_str()?).ok()
    };
    let (metrics, behavior) = (noted(METRICS), noted(BEHAVIOR));
    let (current, conditions) = (noted(CURRENT), noted(CONDITIONS));
    if let Some(spec) = hpa["spec"].as_object_mut() {
        let mut all = converted(metrics, |metric| newer(metric, "target"));
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|percent| !percent.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !all.is_empty() {
            spec.insert("metrics".to_owned(), all.into());
        }
        if let Some(behavior) = behavior.filter(Value::is_object) {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = hpa["status"].as_object_mut() {
        let mut all = converted(current, |metric| newer(metric, "current"));
        let percent = status.remove("currentCPUUtilizationPercentage").filter(|percent| !percent.is_null());
        if let Some(percent) = percent.filter(|_| all.is_empty()) {
            all.push(
                json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}),
            );
        }
        if !all.is_empty() {
            status.insert("currentMetrics".to_owned(), all.into());
        }
        if let Some(conditions) = conditions.filter(Value::is_array) {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    hpa
}

/// Version 2 as version 1.
fn to_old(mut hpa: Value) -> Value {
    if hpa["apiVersion"] == "autoscaling/v1" || !hpa.is_object() {
        return hpa;
    }
    hpa["apiVersion"] = "autoscaling/v1".into();
    let mut notes = Map::new();
    let mut note = |name: &str, value: Value| notes.insert(name.to_owned(), value.to_string().into());
    if let Some(spec) = hpa["spec"].as_object_mut() {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let mut others = Vec::new();
        for metric in metrics.as_array().into_iter().flatten() {
            match percent(metric, "target") {
                Some(percent) => drop(spec.insert("targetCPUUtilizationPercentage".to_owned(), percent)),
                None => others.push(older(metric, "target")),
            }
        }
        if !others.is_empty() {
            note(METRICS, others.into());
        }
        if let Some(behavior) = spec.remove("behavior").filter(|behavior| !behavior.is_null()) {
            note(BEHAVIOR, behavior);
        }
    }
    if let Some(status) = hpa["status"].as_object_mut() {
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        let metrics = metrics.as_array().map_or(&[][..], Vec::as_slice);
        if let Some(percent) = metrics.iter().find_map(|metric| percent(metric, "current")) {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        if !metrics.is_empty() {
            note(CURRENT, metrics.iter().map(|metric| older(metric, "current")).collect());
        }
        if let Some(conditions) =
            status.remove("conditions").filter(|all| all.as_array().is_some_and(|all| !all.is_empty()))
        {
            note(CONDITIONS, conditions);
        }
    }
    if !notes.is_empty() && matches!(hpa["metadata"]["annotations"], Value::Object(_) | Value::Null) {
        for (name, note) in notes {
            hpa["metadata"]["annotations"][name] = note;
        }
    }
    hpa
}

fn converted(list: Option<Value>, convert: impl Fn(&Value) -> Value) -> Vec<Value> {
    list.as_ref().and_then(Value::as_array).into_iter().flatten().map(convert).collect()
}

/// The share of the CPU, which is all that version 1 has a field for.
fn percent(metric: &Value, which: &str) -> Option<Value> {
    let is_cpu = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
    let percent = &metric["resource"][which]["averageUtilization"];
    (is_cpu && !percent.is_null()).then(|| percent.clone())
}

/// The field that says more of a metric: `Pods` has `pods`.
fn field(metric: &Value) -> String {
    let kind = text(metric, "type");
    let mut letters = kind.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Moves a value, if it is there.
fn carry(from: &Value, name: &str, to: &mut Map<String, Value>, named: &str) {
    if !from[name].is_null() {
        to.insert(named.to_owned(), from[name].clone());
    }
}

/// A metric of version 1 in version 2: `which` is what is wanted, `target`, or what is seen, `current`.
fn newer(metric: &Value, which: &str) -> Value {
    let field = field(metric);
    let old = &metric[&field];
    let (mut new, mut amounts, mut named) = (Map::new(), Map::new(), Map::new());
    for name in ["name", "container"] {
        carry(old, name, &mut new, name);
    }
    carry(old, "target", &mut new, "describedObject");
    carry(old, "metricName", &mut named, "name");
    for selector in ["selector", "metricSelector"] {
        carry(old, selector, &mut named, "selector");
    }
    carry(old, &format!("{which}AverageUtilization"), &mut amounts, "averageUtilization");
    for average in [format!("{which}AverageValue"), "averageValue".to_owned()] {
        carry(old, &average, &mut amounts, "averageValue");
    }
    carry(old, &format!("{which}Value"), &mut amounts, "value");
    if which == "target" {
        let kinds = [("averageUtilization", "Utilization"), ("averageValue", "AverageValue")];
        let kind = kinds.iter().find(|(name, _)| amounts.contains_key(*name)).map_or("Value", |(_, kind)| kind);
        if kind == "AverageValue" {
            amounts.remove("value"); // version 1 had to write one
        }
        amounts.insert("type".to_owned(), kind.into());
    }
    if !named.is_empty() {
        new.insert("metric".to_owned(), named.into());
    }
    new.insert(which.to_owned(), amounts.into());
    json!({"type": metric["type"], field: new})
}

/// A metric of version 2 in version 1.
fn older(metric: &Value, which: &str) -> Value {
    let field = field(metric);
    let new = &metric[&field];
    let mut old = Map::new();
    for name in ["name", "container"] {
        carry(new, name, &mut old, name);
    }
    carry(new, "describedObject", &mut old, "target");
    carry(&new["metric"], "name", &mut old, "metricName");
    let selector = if field == "external" { "metricSelector" } else { "selector" };
    carry(&new["metric"], "selector", &mut old, selector);
    let amounts = &new[which];
    carry(amounts, "averageUtilization", &mut old, &format!("{which}AverageUtilization"));
    let average = if field == "object" { "averageValue".to_owned() } else { format!("{which}AverageValue") };
    carry(amounts, "averageValue", &mut old, &average);
    carry(amounts, "value", &mut old, &format!("{which}Value"));
    if field == "object" && amounts["value"].is_null() {
        old.insert(format!("{which}Value"), "0".into()); // it cannot be left out there
    }
    json!({"type": metric["type"], field: old})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_the_same_and_nothing_is_lost() {
        let reference = json!({"kind": "Service", "name": "s"});
        let selector = json!({"matchLabels": {"a": "b"}});
        let new = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "annotations": {"mine": "x"}},
            "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {"selectPolicy": "Max"}}, "metrics": [
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                    "target": {"type": "Utilization", "averageUtilization": 7}}},
                {"type": "Pods", "pods": {"metric": {"name": "m", "selector": selector}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Object", "object": {"describedObject": reference, "metric": {"name": "m"}, "target": {"type": "Value", "value": "9"}}},
                {"type": "Object", "object": {"describedObject": reference, "metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "8"}}},
                {"type": "External", "external": {"metric": {"name": "q", "selector": selector}, "target": {"type": "Value", "value": "30"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
            ]},
            "status": {"desiredReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}], "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5, "averageValue": "10m"}}},
                {"type": "External", "external": {"metric": {"name": "q", "selector": selector}, "current": {"value": "3"}}},
            ]},
        });
        let old = to_old(new.clone());
        assert_eq!(
            (&old["apiVersion"], &old["spec"]["targetCPUUtilizationPercentage"]),
            (&json!("autoscaling/v1"), &json!(60))
        );
        assert_eq!(old["status"], json!({"desiredReplicas": 1, "currentCPUUtilizationPercentage": 5}));
        let noted: Value = serde_json::from_str(text(&old["metadata"]["annotations"], METRICS)).expect("JSON");
        assert_eq!(
            noted[2],
            json!({"type": "Pods", "pods": {"metricName": "m", "selector": selector, "targetAverageValue": "5"}})
        );
        assert_eq!(to_new(old), new);
    }
}
