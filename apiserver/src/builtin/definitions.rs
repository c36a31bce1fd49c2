//! CustomResourceDefinitions: what they may say. What comes of them is in [`crate::custom`].

mod check;
mod keywords;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::{fill, kubernetes, list, object, text};
use crate::{
    custom::CLEANUP,
    kinds::{Cell, Hooks, Kind, Names},
    table::{column, name_column},
};

pub(crate) use check::{approval, is_protected};

/// `apiextensions.k8s.io/v1` CustomResourceDefinition.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<CustomResourceDefinition>("customresourcedefinitions", &["crd", "crds"]);
    kind.prefix = "/registry/apiextensions.k8s.io/customresourcedefinitions/".to_owned();
    kind.categories = vec!["api-extensions".to_owned()];
    kind.namespaced = false;
    kind.status = true;
    kind.generation = true;
    kind.unconditional_update = false;
    kind.defines_kinds = true;
    kind.names = Names::Segment; // the check speaks about the name
    kind.columns =
        vec![name_column(), column("Created At", "date", "When the definition was made.", Cell::Function(created_at))];
    kind.hooks = Hooks {
        prune: keywords::prune,
        fill: fill_in,
        check: check::check,
        prepare,
        // It is marked first, however it is deleted: its objects go before it.
        held: |crd| !crd["metadata"]["deletionTimestamp"].is_string(),
        ..Hooks::default()
    };
    kind
}

/// Not how long ago: definitions are old.
fn created_at(crd: &Value, _now: i64) -> Value {
    crd["metadata"]["creationTimestamp"].clone()
}

fn fill_in(crd: &mut Value) {
    let Some(spec) = crd.as_object_mut().and_then(|crd| object(crd, "spec")) else { return };
    if let Some(names) = object(spec, "names") {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !kind.is_empty() {
            fill(names, "singular", kind.to_lowercase());
            fill(names, "listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = object(spec, "conversion") {
        fill(conversion, "strategy", "None");
    }
}

/// Notes in which versions objects may be stored, and what is still to do when the definition goes.
fn prepare(crd: &mut Value, old: Option<&Value>) {
    let storage = list(&crd["spec"], "versions").iter().find(|version| version["storage"] == true);
    let storage = storage.map(|version| text(version, "name").to_owned());
    let going = crd["metadata"]["deletionTimestamp"].as_str().map(str::to_owned);
    let Some(fields) = crd.as_object_mut() else { return };
    if old.is_none() {
        fields.insert("status".to_owned(), json!({"acceptedNames": {"kind": "", "plural": ""}}));
    }
    let Some(status) = object(fields, "status") else { return };
    if let Some(storage) = storage {
        let stored = status.entry("storedVersions").or_insert(Value::Null);
        if !stored.is_array() {
            *stored = json!([]);
        }
        if let Some(stored) = stored.as_array_mut().filter(|stored| !stored.iter().any(|name| *name == storage)) {
            stored.push(storage.into());
        }
    }
    let Some(time) = going.filter(|_| old.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_string())) else {
        return;
    };
    let conditions = status.entry("conditions").or_insert(Value::Null);
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "Terminating");
        conditions.push(json!({
            "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending", "lastTransitionTime": time,
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        }));
    }
    if let Some(metadata) = object(fields, "metadata") {
        let finalizers = metadata.entry("finalizers").or_insert(Value::Null);
        match finalizers.as_array_mut() {
            Some(finalizers) if finalizers.iter().any(|finalizer| finalizer == CLEANUP) => {}
            Some(finalizers) => finalizers.push(CLEANUP.into()),
            None => *finalizers = json!([CLEANUP]),
        }
    }
}
