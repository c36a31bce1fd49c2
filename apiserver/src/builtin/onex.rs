//! The kinds of OneX: descriptors from the typed CRDs, and the hooks as functions over the value.

use onex_crds::{Chain, Invalid, Miner, MinerSet};
use serde_json::Value;

use super::schemas;
use crate::{
    kinds::{Cell, Column, Hooks, Kind, Names, Published, Scale},
    selector::Labels,
    table::{age_column, column, name_column, path, wide_column},
};

/// Chains, miner sets and miners.
pub fn kinds() -> Vec<Kind> {
    let mut chain = onex::<Chain>();
    chain.columns = vec![name_column(), age_column()];
    let mut miner_set = onex::<MinerSet>();
    miner_set.columns = miner_set_columns();
    let mut miner = onex::<Miner>();
    miner.columns = miner_columns();
    miner.generate_name = Some("mi-");
    vec![chain, miner_set, miner]
}

/// The descriptor of a typed kind. Everything but the columns comes from its CRD.
fn onex<K: onex_crds::Kind>() -> Kind {
    let crd = K::crd().spec;
    let version = crd.versions.into_iter().next().expect("every kind has a version");
    let (group, names) = (crd.group, crd.names);
    let published = {
        let (group, version, name) = (group.clone(), version.name.clone(), names.kind.clone());
        Published::new(move || schemas::publish::<K>(&group, &version, &name))
    };
    let subresources = version.subresources.unwrap_or_default();
    let mut kind = Kind::new(&group, &version.name, &names.kind, &names.plural, published);
    kind.singular = names.singular.unwrap_or(kind.singular);
    kind.short_names = names.short_names.unwrap_or_default();
    kind.categories = names.categories.unwrap_or_default();
    kind.namespaced = crd.scope == "Namespaced";
    kind.status = subresources.status.is_some();
    kind.scale = subresources.scale.map(|scale| Scale {
        spec: split(&scale.spec_replicas_path),
        status: split(&scale.status_replicas_path),
        // The object under `spec` rather than the text under `status`, so that it is there before any controller ran.
        selector: split(".spec.selector"),
    });
    kind.selectable = version
        .selectable_fields
        .into_iter()
        .flatten()
        .map(|field| (field.json_path.trim_start_matches('.').to_owned(), split(&field.json_path)))
        .collect();
    kind.prefix = format!("/registry/{group}/{}/", names.plural);
    kind.generation = true;
    // The typed check speaks about the name: it knows what the names of children need.
    kind.names = Names::Segment;
    kind.hooks = Hooks { fill: fill::<K>, check: check::<K>, warn_of_new: warn::<K>, ..Hooks::default() };
    kind
}

fn split(path: &str) -> Vec<String> {
    path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The object as its type. As in Go, null is the same as nothing.
fn typed<K: onex_crds::Kind>(value: &Value) -> Result<K, serde_json::Error> {
    if !holds_null(value) {
        return K::deserialize(value);
    }
    let mut value = value.clone();
    remove_nulls(&mut value);
    K::deserialize(&value)
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(|field| field.is_null() || holds_null(field)),
        Value::Array(items) => items.iter().any(holds_null),
        _ => false,
    }
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// Fills through the type, and writes back only what that changed: all else stays as the client wrote it.
fn fill<K: onex_crds::Kind>(value: &mut Value) {
    remove_nulls(value);
    // A spec in which nothing is written may be left out whole: all that it needs can be filled in.
    if let Some(fields) = value.as_object_mut() {
        super::object(fields, "spec");
    }
    // What does not decode is `check`'s to complain about.
    let Ok(before) = typed::<K>(value) else { return };
    let mut after = before.clone();
    after.fill();
    if after == before {
        return;
    }
    let (Ok(before), Ok(after)) = (serde_json::to_value(&before), serde_json::to_value(&after)) else { return };
    write_changes(value, &before, &after);
}

fn write_changes(value: &mut Value, before: &Value, after: &Value) {
    if before == after {
        return;
    }
    match (value, after) {
        (Value::Object(fields), Value::Object(wanted)) => {
            for (name, wanted) in wanted.iter().filter(|(name, wanted)| before[name.as_str()] != **wanted) {
                write_changes(fields.entry(name.clone()).or_insert(Value::Null), &before[name], wanted);
            }
        }
        (value, after) => *value = after.clone(),
    }
}

fn check<K: onex_crds::Kind>(value: &Value, old: Option<&Value>) -> Vec<Invalid> {
    match (typed::<K>(value), old.map(typed::<K>).transpose()) {
        (Ok(object), Ok(old)) => object.check(old.as_ref()),
        // An old object of another time that no longer decodes must not keep anybody from mending it.
        (Ok(object), Err(_)) => object.check(None),
        (Err(error), _) => vec![Invalid::value("spec", value["spec"].clone(), error.to_string())],
    }
}

fn warn<K: onex_crds::Kind>(value: &Value) -> Vec<String> {
    typed::<K>(value).map(|object| object.warn()).unwrap_or_default()
}

fn miner_set_columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Ready", "integer", "Miners that are ready, of those wanted.", Cell::Function(ready)),
        column(
            "Current",
            "integer",
            "Miners that are there.",
            Cell::Function(|set, _| counted(set, "replicas").into()),
        ),
        column(
            "Available",
            "string",
            "Miners that have been ready for at least minReadySeconds.",
            Cell::Function(|set, _| counted(set, "availableReplicas").into()),
        ),
        age_column(),
        wide_column("Selector", "string", "The labels by which the set knows its miners.", Cell::Function(selector)),
    ]
}

fn counted(set: &Value, field: &str) -> i64 {
    set["status"][field].as_i64().unwrap_or_default()
}

fn ready(set: &Value, _now: i64) -> Value {
    let wanted = set["spec"]["replicas"].as_i64().unwrap_or(onex_crds::minerset::DEFAULT_REPLICAS.into());
    format!("{}/{wanted}", counted(set, "readyReplicas")).into()
}

fn selector(set: &Value, _now: i64) -> Value {
    Labels::from_label_selector(&set["spec"]["selector"]).to_string().into()
}

fn miner_columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Status", "string", "How far the miner is.", Cell::Function(phase)),
        age_column(),
        wide_column("Type", "string", "The miner type, which says how large the miner is.", path(".spec.minerType")),
    ]
}

fn phase(miner: &Value, _now: i64) -> Value {
    match &miner["status"]["phase"] {
        Value::String(phase) if !phase.is_empty() => phase.clone().into(),
        _ => "Pending".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::printed;

    fn kind(name: &str) -> Kind {
        kinds().into_iter().find(|kind| kind.kind == name).expect("a kind of OneX")
    }

    fn object(kind: &Kind, spec: Value) -> Value {
        let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.kind,
            "metadata": {"name": "a", "namespace": "kube-system"}, "spec": spec});
        (kind.hooks.fill)(&mut object);
        let once = object.clone();
        (kind.hooks.fill)(&mut object);
        assert_eq!(object, once, "filling twice is filling once");
        object
    }

    #[test]
    fn what_was_written_stays_and_what_was_not_is_filled() {
        let set = object(&kind("MinerSet"), json!({"replicas": 0, "displayName": null, "unheard": [1]}));
        assert_eq!(set["spec"]["replicas"], 0);
        assert_eq!(set["spec"]["unheard"], json!([1]));
        assert_eq!(set["spec"]["template"]["spec"]["minerType"], "S1.SMALL1");
        assert!(set["spec"].get("displayName").is_none());
        let chain = object(&kind("Chain"), Value::Null);
        assert_eq!(chain["spec"]["minerType"], "S1.SMALL2");
    }

    #[test]
    fn every_kind_refuses_a_name_that_its_children_could_not_have() {
        for kind in kinds() {
            let mut object = object(&kind, json!({"chainName": "c", "template": {"spec": {"chainName": "c"}}}));
            assert_eq!((kind.hooks.check)(&object, None), [], "{}", kind.kind);
            object["metadata"]["name"] = json!("A_b");
            let fields: Vec<String> = (kind.hooks.check)(&object, None).into_iter().map(|wrong| wrong.field).collect();
            assert_eq!(fields, ["metadata.name"], "{}", kind.kind);
        }
    }

    #[test]
    fn what_does_not_decode_is_refused_rather_than_stored() {
        let set = kind("MinerSet");
        let wrong = (set.hooks.check)(&json!({"metadata": {"name": "a"}, "spec": {"replicas": "many"}}), None);
        assert_eq!(wrong[0].field, "spec");
        assert!(wrong[0].message().contains("invalid type: string \"many\""), "{}", wrong[0].message());
    }

    #[test]
    fn kubectl_shows_what_is_there_of_what_is_wanted() {
        let set = kind("MinerSet");
        let mut shown = object(&set, json!({"replicas": 3, "selector": {"matchLabels": {"x": "y"}}}));
        shown["status"] = json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1});
        assert_eq!(
            printed(&set, &[shown], 0),
            "Name | Ready | Current | Available | Age | (Selector)\na | 1/3 | 2 | 1 | <unknown> | x=y"
        );
        let miner = object(&kind("Miner"), json!({"chainName": "c"}));
        assert_eq!(
            printed(&kind("Miner"), &[miner], 0),
            "Name | Status | Age | (Type)\na | Pending | <unknown> | S1.SMALL1"
        );
    }

    #[test]
    fn descriptors_are_those_of_the_crds() {
        let set = kind("MinerSet");
        assert_eq!(set.prefix, "/registry/apps.onex.io/minersets/");
        assert_eq!(
            (set.short_names.as_slice(), set.categories.as_slice()),
            (["ms".to_owned()].as_slice(), ["all".to_owned()].as_slice())
        );
        assert_eq!(set.scale.expect("a set scales").spec, ["spec", "replicas"]);
        assert!(set.status && set.namespaced && set.generation && set.strategic);
        assert_eq!(kind("Chain").short_names, ["ch"]);
        assert_eq!(kind("Miner").short_names, ["mi"]);
    }
}
