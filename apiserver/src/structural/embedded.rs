//! Objects inside objects: they have an `apiVersion`, a `kind` and `metadata` as every object has.

use std::sync::{Arc, LazyLock};

use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{node::Node, path::Path};
use crate::{
    builtin::schemas::{OBJECT_META, definitions},
    meta,
    schema::{Schema, decode},
    status::is_enough,
};

static METADATA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let definitions = definitions::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>();
    let definitions = json!(definitions);
    Schema::compile(&definitions[OBJECT_META], &definitions)
});

/// What is wrong with the embedded objects below `value`. The root itself is none.
pub fn check(node: &Node, value: &Value, path: &Path<'_>, wrong: &mut Vec<Invalid>) {
    if !node.listed || is_enough(wrong) {
        return;
    }
    match value {
        Value::Object(fields) => {
            if node.embedded {
                check_object(value, path, wrong);
            }
            for (name, field) in fields {
                if let Some(property) = node.properties.get(name) {
                    check(property, field, &Path::Field(path, name), wrong);
                } else if let Some(values) = node.values() {
                    check(values, field, &Path::Key(path, name), wrong);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Some(below) = &node.items {
                    check(below, item, &Path::Index(path, index), wrong);
                }
            }
        }
        _ => {}
    }
}

/// What is wrong with the names and metadata of an object.
pub fn check_object(object: &Value, path: &Path<'_>, wrong: &mut Vec<Invalid>) {
    let field = |name: &str| Path::Field(path, name).field();
    for name in ["apiVersion", "kind"] {
        if object.get(name).is_none() {
            wrong.push(Invalid::required(field(name), "must not be empty"));
        }
    }
    match object.get("apiVersion") {
        Some(Value::String(version)) if version.is_empty() => {
            wrong.push(Invalid::value(field("apiVersion"), "", "must not be empty"));
        }
        Some(Value::String(version)) if version.matches('/').count() > 1 => {
            let why = format!("unexpected GroupVersion string: {version}");
            wrong.push(Invalid::value(field("apiVersion"), version.as_str(), why));
        }
        Some(Value::String(_)) | None => {}
        Some(other) => wrong.push(Invalid::value(field("apiVersion"), other.clone(), "must be a string")),
    }
    match object.get("kind") {
        Some(Value::String(kind)) if kind.is_empty() => {
            wrong.push(Invalid::value(field("kind"), "", "must not be empty"));
        }
        Some(Value::String(kind)) => {
            let whys = meta::dns_1035_label(&kind.to_lowercase());
            if !whys.is_empty() {
                let why = format!("may have mixed case, but should otherwise match: {}", whys.join(","));
                wrong.push(Invalid::value(field("kind"), kind.as_str(), why));
            }
        }
        None => {}
        Some(other) => wrong.push(Invalid::value(field("kind"), other.clone(), "must be a string")),
    }
    if let Some(metadata) = object.get("metadata") {
        check_metadata(metadata, &field("metadata"), wrong);
    }
}

fn check_metadata(metadata: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    if !metadata.is_object() && !metadata.is_null() {
        let found = if metadata.is_array() { "array" } else { "value" };
        let why = format!("json: cannot unmarshal {found} into Go value of type v1.ObjectMeta");
        return wrong.push(Invalid::value(at, metadata.clone(), why));
    }
    if let Some(why) = decode(&mut metadata.clone(), &METADATA).wrong {
        return wrong.push(Invalid::value(at, metadata.clone(), why));
    }
    let text = |name: &str| metadata[name].as_str().unwrap_or_default();
    let mut refuse = |name: &str, whys: Vec<String>| {
        for why in whys {
            wrong.push(Invalid::value(format!("{at}.{name}"), text(name), why));
        }
    };
    for name in ["name", "generateName"] {
        if !text(name).is_empty() {
            refuse(name, meta::path_segment(text(name)));
        }
    }
    if !text("namespace").is_empty() {
        refuse("namespace", meta::dns_label(text("namespace")));
    }
    meta::check_labels(&metadata["labels"], &format!("{at}.labels"), wrong);
    for key in metadata["annotations"].as_object().into_iter().flatten().map(|(key, _)| key) {
        for why in meta::qualified_name(&key.to_lowercase()) {
            wrong.push(Invalid::value(format!("{at}.annotations"), key.as_str(), why));
        }
    }
}

/// Removes what no metadata has from the embedded objects below `value`; answers the paths.
pub fn prune(node: &Node, value: &mut Value, path: &mut Vec<String>, removed: &mut Vec<String>) {
    if !node.listed {
        return;
    }
    match value {
        Value::Object(fields) => {
            if node.embedded
                && let Some(metadata) = fields.get_mut("metadata")
            {
                let decoded = decode(metadata, &METADATA);
                let here = crate::schema::joined(path);
                for unknown in decoded.unknown {
                    crate::schema::complain(removed, || format!("{here}.metadata.{unknown}"));
                }
            }
            for (name, field) in fields {
                if let Some(below) = node.field(name) {
                    path.push(name.clone());
                    prune(below, field, path, removed);
                    path.pop();
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                if let Some(below) = &node.items {
                    path.push(format!("[{index}]"));
                    prune(below, item, path, removed);
                    path.pop();
                }
            }
        }
        _ => {}
    }
}
