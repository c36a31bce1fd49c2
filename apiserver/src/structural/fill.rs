//! Defaults: what stands where nothing was written.

use serde_json::Value;

use super::node::Node;

/// Fills in defaults, also below what was just filled in. A null where none may be counts as nothing.
pub fn fill(value: &mut Value, node: &Node) {
    if !node.defaults {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, property) in &node.properties {
                let Some(default) = &property.default else { continue };
                let missing = fields.get(name).is_none_or(|found| found.is_null() && !property.nullable);
                if missing {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, field) in fields {
                match (node.properties.get(name), node.values()) {
                    (Some(property), _) => fill(field, property),
                    (None, Some(values)) => fill_here(field, values),
                    (None, None) => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &node.items else { return };
            for item in list {
                fill_here(item, items);
            }
        }
        _ => {}
    }
}

fn fill_here(value: &mut Value, node: &Node) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
    fill(value, node);
}
