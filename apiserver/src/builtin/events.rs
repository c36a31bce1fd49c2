//! Events, which are served in two groups and stored once, as the core has them.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Event as CoreEvent, events::v1::Event};
use onex_crds::{Invalid, Problem};
use serde_json::{Map, Value};

use super::{columns, kubernetes, refuse, text};
use crate::{
    kinds::{Conversion, Hooks, Kind},
    meta,
};

/// Where events of both groups are stored.
const PREFIX: &str = "/registry/events/";

/// Fields with other names in the two groups: core, then events.k8s.io. All others are the same.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

const REFERENCE: [&str; 7] = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];

/// `v1` Event, the stored form.
pub fn core_kind() -> Kind {
    let mut kind = kubernetes::<CoreEvent>("events", &["ev"]);
    kind.columns = columns::event();
    kind.create_on_update = true;
    kind.passing = true;
    for field in REFERENCE {
        kind.selectable.push(by(&format!("involvedObject.{field}"), &["involvedObject", field]));
    }
    kind.selectable.extend([
        by("reason", &["reason"]),
        by("reportingComponent", &["reportingComponent"]),
        // The component that the old form names, or else the new one's.
        by("source", &["source", "component"]),
        by("source", &["reportingComponent"]),
        by("type", &["type"]),
    ]);
    kind.hooks = Hooks { fill, check, ..Hooks::default() };
    kind
}

/// `events.k8s.io/v1` Event. Its objects are stored as core events: [`to_core`] before they are stored, [`from_core`]
/// before they are answered. Its columns and hooks take either form.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<Event>("events", &["ev"]);
    kind.prefix = PREFIX.to_owned();
    kind.columns = columns::event();
    kind.create_on_update = true;
    kind.passing = true;
    // Selectors are matched against the stored form, so the fields are the core's, under the names of this group.
    kind.selectable = core_kind().selectable.into_iter().map(|(label, path)| (relabelled(&label), path)).collect();
    kind.conversion = Some(Conversion { store: Arc::new(to_core), serve: Arc::new(from_core) });
    kind.hooks = Hooks {
        fill: fill_new,
        check: |event, old| {
            let mut wrong = check(&to_core(event.clone()), old.cloned().map(to_core).as_ref());
            if old.is_none() {
                check_first(&to_core(event.clone()), &mut wrong);
            }
            wrong
        },
        ..Hooks::default()
    };
    kind
}

fn relabelled(label: &str) -> String {
    match label.strip_prefix("involvedObject.") {
        Some(field) => format!("regarding.{field}"),
        None => label.replace("reportingComponent", "reportingController"),
    }
}

fn by(label: &str, path: &[&str]) -> (String, Vec<String>) {
    (label.to_owned(), path.iter().map(|part| (*part).to_owned()).collect())
}

/// An `events.k8s.io/v1` Event as the core's. What is already a core event stays as it is.
pub fn to_core(event: Value) -> Value {
    rename(event, "v1", |(core, new)| (new, core))
}

/// A core Event as that of `events.k8s.io/v1`.
pub fn from_core(event: Value) -> Value {
    rename(event, "events.k8s.io/v1", |(core, new)| (core, new))
}

/// The newer group leaves out who reports, where nobody is named.
fn rename(
    event: Value,
    version: &str,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    let Value::Object(mut fields) = event else { return event };
    if fields.get("apiVersion").and_then(Value::as_str) == Some(version) {
        return Value::Object(fields);
    }
    let mut renamed = Map::new();
    for (from, to) in RENAMED.map(direction) {
        if let Some(value) = fields.remove(from) {
            renamed.insert(to.to_owned(), value);
        }
    }
    fields.append(&mut renamed);
    for name in ["reportingController", "reportingInstance"] {
        if version != "v1" && fields.get(name).is_some_and(|who| who == "") {
            fields.remove(name);
        }
    }
    fields.insert("apiVersion".to_owned(), version.into());
    Value::Object(fields)
}

/// Says also what is not known, as Kubernetes does: `kubectl get events --sort-by=.lastTimestamp` shows nothing at all when
/// no event has the field.
fn fill(event: &mut Value) {
    let Some(fields) = event.as_object_mut() else { return };
    for time in ["eventTime", "firstTimestamp", "lastTimestamp"] {
        fields.entry(time).or_insert(Value::Null);
    }
    for name in ["reportingComponent", "reportingInstance"] {
        fields.entry(name).or_insert_with(|| "".into());
    }
    fields.entry("source").or_insert_with(|| Map::new().into());
}

/// Over either form, which it keeps.
fn fill_new(event: &mut Value) {
    let stored = text(event, "apiVersion") == "v1";
    let mut core = to_core(event.take());
    fill(&mut core);
    *event = if stored { core } else { from_core(core) };
}

/// Over the stored form.
fn check(event: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let namespace = text(&event["metadata"], "namespace");
    let involved = text(&event["involvedObject"], "namespace");
    let agrees = match involved {
        // Events of what lives in no namespace live in `default`.
        "" => namespace.is_empty() || namespace == "default",
        _ => namespace == involved,
    };
    if !agrees {
        wrong.push(Invalid::value("involvedObject.namespace", involved, "does not match event.namespace"));
    }
    if !text(event, "eventTime").is_empty() {
        check_new(event, &mut wrong);
    }
    wrong
}

/// What a new event of the newer group must say, and what it may say no more.
fn check_first(event: &Value, wrong: &mut Vec<Invalid>) {
    if text(event, "eventTime").is_empty() {
        wrong.push(Invalid::required("eventTime", ""));
    }
    let kind = text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        wrong.push(Invalid::value("type", "", format!("has invalid value: {kind}")));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let is_set = match &event[field] {
            Value::Null => false,
            Value::Object(fields) => fields.values().any(|value| value.as_str().is_some_and(|text| !text.is_empty())),
            number => number != 0,
        };
        if is_set {
            wrong.push(Invalid::value(field, "", "needs to be unset"));
        }
    }
}

/// What an event must say that has an `eventTime`, and so comes from a client of the newer interface.
fn check_new(event: &Value, wrong: &mut Vec<Invalid>) {
    let controller = text(event, "reportingComponent");
    if controller.is_empty() {
        wrong.push(Invalid::required("reportingController", ""));
    } else {
        refuse("reportingController", controller, meta::qualified_name(controller), wrong);
    }
    for field in ["reportingInstance", "action", "reason"] {
        let value = text(event, field);
        if value.is_empty() {
            wrong.push(Invalid::required(field, ""));
        } else if value.len() > 128 {
            wrong.push(Invalid { field: field.to_owned(), problem: Problem::TooLong(128) });
        }
    }
    if text(event, "message").len() > 1024 {
        wrong.push(Invalid { field: "message".to_owned(), problem: Problem::TooLong(1024) });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_reads_the_same_in_both_groups() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"name": "p"},
            "message": "m", "reportingComponent": "c", "source": {"component": "s"}, "firstTimestamp": "t1",
            "lastTimestamp": "t2", "count": 2, "reason": "r", "series": {"count": 3}});
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"},
            "regarding": {"name": "p"}, "note": "m", "reportingController": "c", "deprecatedSource": {"component": "s"},
            "deprecatedFirstTimestamp": "t1", "deprecatedLastTimestamp": "t2", "deprecatedCount": 2, "reason": "r",
            "series": {"count": 3}});
        assert_eq!(from_core(core.clone()), new);
        assert_eq!(to_core(new.clone()), core);
        assert_eq!(to_core(core.clone()), core);
        assert_eq!(from_core(new.clone()), new);
    }

    #[test]
    fn an_event_lives_with_what_it_is_about() {
        let wrong = |namespace: &str, involved: &str| {
            check(&json!({"metadata": {"namespace": namespace}, "involvedObject": {"namespace": involved}}), None).len()
        };
        assert_eq!([wrong("a", "a"), wrong("default", ""), wrong("a", "b"), wrong("a", "")], [0, 0, 1, 1]);
    }

    #[test]
    fn both_groups_select_by_the_same_fields_in_the_same_order() {
        let paths = |kind: Kind| kind.selectable.into_iter().map(|(_, path)| path).collect::<Vec<_>>();
        assert_eq!(paths(kind()), paths(core_kind()));
        let labels: Vec<String> = kind().selectable.into_iter().map(|(label, _)| label).collect();
        assert!(labels.contains(&"regarding.uid".to_owned()) && labels.contains(&"reportingController".to_owned()));
    }

    #[test]
    fn a_new_event_says_who_reports_it() {
        let event = json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "eventTime": "t", "reason": "r"});
        let fields: Vec<String> = check(&event, None).into_iter().map(|wrong| wrong.field).collect();
        assert_eq!(fields, ["reportingController", "reportingInstance", "action"]);
    }
}
