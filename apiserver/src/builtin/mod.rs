//! The list of the kinds that are compiled in.
//!
//! This is the one place of the apiserver that names kinds. Each file makes descriptors ([`Kind`]) for one group; what a
//! kind does beyond its schema is functions over `serde_json::Value`, so that what a client sent comes back.

pub mod admissionregistration;
pub mod apiservices;
pub mod apps;
pub mod autoscaling;
pub mod autoscaling_v1;
pub mod batch;
pub mod certificates;
mod columns;
pub mod coordination;
pub mod core;
mod cron;
pub mod definitions;
pub mod events;
mod flow_objects;
pub mod flowcontrol;
mod go;
pub mod limit_ranges;
mod markers;
pub mod networking;
pub mod node;
pub mod onex;
pub mod pod;
mod pod_parts;
mod pod_placement;
mod pod_spec;
pub mod policy;
pub mod quantity;
pub mod rbac;
mod replicas;
pub mod replication;
pub mod resource_quotas;
pub mod reviews;
pub mod runtime_classes;
pub mod scheduling;
pub mod schemas;
pub mod service;
pub mod slices;
pub mod storage_classes;
mod templates;
pub mod volumes;

use k8s_openapi::Resource;
use onex_crds::Invalid;
use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::kinds::{Kind, Published, Scale};

/// Every kind that is compiled in, the core first: discovery answers ambiguous names in this order.
pub fn kinds() -> Vec<Kind> {
    let mut kinds = core::kinds();
    kinds.extend(onex::kinds());
    kinds.extend(replication::kinds());
    kinds.extend(volumes::kinds());
    kinds.push(limit_ranges::kind());
    kinds.push(resource_quotas::kind());
    kinds.extend(apps::kinds());
    kinds.extend(batch::kinds());
    kinds.extend(onex::batch_kinds());
    kinds.push(autoscaling::kind());
    kinds.push(autoscaling_v1::kind());
    kinds.push(policy::kind());
    kinds.extend(networking::kinds());
    kinds.extend(storage_classes::kinds());
    kinds.push(slices::kind());
    kinds.push(runtime_classes::kind());
    kinds.push(scheduling::kind());
    kinds.push(certificates::kind());
    kinds.extend(flowcontrol::kinds());
    kinds.push(events::kind());
    kinds.push(coordination::lease());
    kinds.extend(reviews::kinds());
    kinds.extend(rbac::kinds());
    kinds.extend(admissionregistration::kinds());
    kinds.push(definitions::kind());
    kinds.push(apiservices::kind());
    kinds
}

/// Objects without a namespace that are always there, and made again when they are gone.
pub fn always_there() -> impl Iterator<Item = Value> {
    let classes =
        scheduling::SYSTEM.iter().map(|(name, value, description)| scheduling::system(name, *value, description));
    classes.chain(flow_objects::levels()).chain(flow_objects::schemas())
}

/// The descriptor of a Kubernetes kind, with the usual behaviour.
fn kubernetes<K>(plural: &str, short_names: &[&str]) -> Kind
where
    K: Resource + JsonSchema + 'static,
{
    let published = Published::new(|| schemas::publish::<K>(K::GROUP, K::VERSION, K::KIND));
    let mut kind = Kind::new(K::GROUP, K::VERSION, K::KIND, plural, published);
    kind.short_names = short_names.iter().map(|name| (*name).to_owned()).collect();
    kind
}

/// Fields to select by, where the label is the path.
fn selectable(fields: &[&str]) -> Vec<(String, Vec<String>)> {
    fields.iter().map(|field| ((*field).to_owned(), field.split('.').map(str::to_owned).collect())).collect()
}

/// Sets what is not written. As for Go, null and empty text count as not written.
fn fill(fields: &mut Map<String, Value>, name: &str, default: impl Into<Value>) {
    let written = fields.get(name).is_some_and(|value| !value.is_null() && value != "");
    if !written {
        fields.insert(name.to_owned(), default.into());
    }
}

/// The fields of the object at `name`, made when it is not there.
fn object<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let value = fields.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The objects of the list at `name`; none when it is not there.
fn items<'a>(fields: &'a mut Map<String, Value>, name: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    fields.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The items of the list at `name`; none when it is not there.
fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map_or(&[], Vec::as_slice)
}

/// The text at `name`; empty when it is not there.
fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// Complaints of a name rule, as causes at `field`.
fn refuse(field: &str, value: &str, complaints: Vec<String>, wrong: &mut Vec<Invalid>) {
    wrong.extend(complaints.into_iter().map(|why| Invalid::value(field, value, why)));
}

/// A port that is not between 1 and 65535.
fn refuse_port(field: &str, port: &Value, wrong: &mut Vec<Invalid>) {
    match port.as_i64() {
        Some(1..=65535) => {}
        _ => wrong.push(Invalid::value(field, port.clone(), "must be between 1 and 65535, inclusive")),
    }
}

/// A value that is none of `supported`. Nothing written is fine: it was filled in, or is not needed.
fn refuse_unsupported(field: &str, value: &str, supported: &[&str], wrong: &mut Vec<Invalid>) {
    if !value.is_empty() && !supported.contains(&value) {
        wrong.push(Invalid::not_supported(field, value, supported));
    }
}

/// What may not change.
fn refuse_change(field: &str, new: &Value, old: &Value, wrong: &mut Vec<Invalid>) {
    if new != old {
        wrong.push(Invalid::value(field, new.clone(), "field is immutable"));
    }
}

/// Numbers below zero, of these fields of the object at `at`.
fn refuse_negative(object: &Value, at: &str, fields: &[&str], wrong: &mut Vec<Invalid>) {
    for field in fields {
        if let Some(number) = object[*field].as_i64().filter(|number| *number < 0) {
            wrong.push(Invalid::value(format!("{at}.{field}"), number, "must be greater than or equal to 0"));
        }
    }
}

/// Where a controller that scales finds the numbers, and the selector.
fn scale(selector: &[&str]) -> Scale {
    let path = |path: &[&str]| path.iter().map(|part| (*part).to_owned()).collect();
    Scale { spec: path(&["spec", "replicas"]), status: path(&["status", "replicas"]), selector: path(selector) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::registry::Part;

    #[test]
    fn only_kinds_that_convert_share_a_place_in_the_store() {
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for kind in kinds().into_iter().filter(|kind| kind.conversion.is_none()) {
            assert!(kind.prefix.starts_with("/registry/") && kind.prefix.ends_with('/'), "{}", kind.prefix);
            *places.entry(kind.prefix).or_default() += 1;
        }
        assert!(places.values().all(|count| *count == 1), "{places:?}");
        let converted: Vec<String> = kinds().into_iter().filter(|k| k.conversion.is_some()).map(|k| k.prefix).collect();
        assert!(converted.iter().all(|prefix| places.contains_key(prefix)), "{converted:?}");
    }

    #[test]
    fn the_printed_columns_are_as_published() {
        let columns = |kind: &Kind| {
            let column =
                |c: &crate::kinds::Column| format!("{}{}:{}", c.name, if c.priority > 0 { "*" } else { "" }, c.kind);
            let columns: Vec<String> = kind.columns.iter().map(column).collect();
            format!("{}/{}: {}", kind.group, kind.kind, columns.join(", "))
        };
        insta::assert_snapshot!(kinds().iter().map(columns).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn no_hook_panics_over_an_object_of_another_shape() {
        let shapes = [
            serde_json::json!({}),
            Value::Null,
            serde_json::json!([]),
            serde_json::json!("x"),
            serde_json::json!({"metadata": 1, "spec": [], "data": "x", "subsets": [1, {"ports": {}}], "stringData": {"a": 1}}),
            serde_json::json!({"metadata": {"labels": []}, "spec": {"containers": [1, {"ports": [null], "env": [{"valueFrom": 1}]}], "ports": [1], "clusterIPs": {}, "finalizers": {}}}),
        ];
        for kind in kinds() {
            for shape in &shapes {
                let mut object = shape.clone();
                (kind.hooks.fill)(&mut object);
                (kind.hooks.check)(&object, Some(shape));
                (kind.hooks.warn)(&object);
                (kind.hooks.grace)(&object, None);
                (kind.hooks.held)(&object);
                kind.columns.iter().for_each(|column| {
                    if let crate::kinds::Cell::Function(cell) = &column.cell {
                        cell(&object, 0);
                    }
                });
                if object.is_object() {
                    (kind.hooks.prepare)(&mut object, None);
                    (kind.hooks.prepare)(&mut object, Some(shape));
                    (kind.hooks.requested_by)(&mut object, &crate::authn::User::default());
                    for part in [Part::Approval, Part::Resize, Part::EphemeralContainers] {
                        (kind.hooks.amend)(part, &mut object, shape, "");
                    }
                }
            }
        }
    }

    /// They were compared each with each, which a megabyte of names turned into minutes.
    #[test]
    fn many_names_are_told_apart_in_time() {
        let some = |make: fn(usize) -> Value| (0..50_000).map(make).collect::<Vec<Value>>();
        let ports = some(
            |n| serde_json::json!({"port": n % 65535 + 1, "name": format!("p{n}"), "targetPort": 1, "protocol": "TCP"}),
        );
        let service = serde_json::json!({"spec": {"type": "ClusterIP", "ports": ports}});
        let mounts = some(|n| serde_json::json!({"name": format!("v{n}"), "mountPath": format!("/{n}")}));
        let volumes = some(|n| serde_json::json!({"name": format!("v{n}")}));
        let tolerations = some(|n| serde_json::json!({"key": format!("t{n}")}));
        let containers = serde_json::json!([{"name": "c", "image": "i", "volumeMounts": mounts}]);
        let spec = serde_json::json!({"containers": containers, "volumes": volumes, "tolerations": tolerations});
        let pod = serde_json::json!({ "spec": spec });
        // What this thread worked: the machine may be busy with others.
        let worked = || -> std::time::Duration {
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            std::time::Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
        };
        let before = worked();
        for (kind, object) in [(service::kind(), service), (pod::kind(), pod)] {
            let wrong = (kind.hooks.check)(&object, Some(&object));
            assert!(wrong.is_empty(), "{}: {}", kind.kind, wrong[0]);
        }
        let worked = worked() - before;
        assert!(worked.as_secs() < 8, "{worked:?}"); // each with each: over a minute
    }
}
