//! Removing what the schema does not know.

use serde_json::Value;

use super::node::{Additional, Node};
use crate::schema::{complain, joined};

/// What every object has, whatever its schema says.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes unknown fields, and nulls where none may be and nothing stands in for them. Answers the removed fields' paths.
pub fn prune(object: &mut Value, root: &Node) -> Vec<String> {
    let mut walk = Walk { path: Vec::new(), removed: Vec::new() };
    walk.value(object, Some(root), true, false);
    nulls(object, Some(root));
    walk.removed.sort();
    walk.removed
}

/// Prunes a value that stands somewhere inside: a default.
pub fn prune_part(value: &mut Value, node: &Node) {
    Walk { path: Vec::new(), removed: Vec::new() }.value(value, Some(node), node.embedded, false);
}

struct Walk {
    path: Vec<String>,
    removed: Vec<String>,
}

impl Walk {
    /// `kept` says that the list around this item keeps what it does not know.
    fn value(&mut self, value: &mut Value, node: Option<&Node>, resource: bool, kept: bool) {
        let preserve = kept || node.is_some_and(|node| node.preserve);
        match value {
            Value::Object(fields) => {
                let unknown = |name: &str| {
                    let known = node.is_some_and(|node| {
                        node.properties.contains_key(name)
                            || node.additional.is_some()
                            || (resource && META.contains(&name))
                    });
                    !known && !preserve
                };
                if fields.keys().any(|name| unknown(name)) {
                    let here = &mut self.path;
                    let removed = &mut self.removed;
                    fields.retain(|name, _| {
                        let keep = !unknown(name);
                        if !keep {
                            here.push(name.clone());
                            complain(removed, || joined(here));
                            here.pop();
                        }
                        keep
                    });
                }
                let Some(node) = node else { return };
                for (name, field) in fields {
                    if !matches!(field, Value::Object(_) | Value::Array(_))
                        || (resource && META.contains(&name.as_str()))
                    {
                        continue;
                    }
                    let below = match (node.properties.get(name), &node.additional) {
                        (Some(property), _) => Some(property),
                        (None, Some(Additional::Of(values))) => Some(&**values),
                        (None, Some(Additional::Any(_))) => None,
                        (None, None) => continue,
                    };
                    self.path.push(name.clone());
                    self.value(field, below, below.is_some_and(|below| below.embedded), false);
                    self.path.pop();
                }
            }
            Value::Array(items) => {
                let below = node.and_then(|node| node.items.as_deref());
                if below.is_none() && preserve {
                    return;
                }
                for (index, item) in items.iter_mut().enumerate() {
                    if matches!(item, Value::Object(_) | Value::Array(_)) {
                        self.path.push(format!("[{index}]"));
                        self.value(item, below, below.is_some_and(|below| below.embedded), preserve);
                        self.path.pop();
                    }
                }
            }
            _ => {}
        }
    }
}

/// A null where none may be is as good as nothing, unless a default will stand there.
fn nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(fields) => {
            let of = |name: &str| node.and_then(|node| node.field(name));
            fields.retain(|name, field| {
                !(field.is_null() && of(name).is_some_and(|node| !node.nullable && node.default.is_none()))
            });
            for (name, field) in fields {
                if matches!(field, Value::Object(_) | Value::Array(_)) {
                    nulls(field, of(name));
                }
            }
        }
        Value::Array(items) => {
            let below = node.and_then(|node| node.items.as_deref());
            for item in items {
                if matches!(item, Value::Object(_) | Value::Array(_)) {
                    nulls(item, below);
                }
            }
        }
        _ => {}
    }
}
