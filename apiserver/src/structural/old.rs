//! Which part of the old object a part of the new one was.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    go,
    node::{List, Node},
};

/// What a field was before, where the schema knows the field.
pub fn field<'a>(old: Option<&'a Value>, node: &Node, name: &str) -> Option<&'a Value> {
    node.field(name).and(old?.as_object()?.get(name))
}

/// The old items of a list, by their keys. Only lists that are maps have any that can be found again.
pub struct Items<'a> {
    keys: &'a [String],
    items: HashMap<String, &'a Value>,
}

impl<'a> Items<'a> {
    /// The old items, if the list is a map and there was one.
    pub fn of(node: &'a Node, old: Option<&'a Value>) -> Option<Self> {
        let (List::Map(keys), Some(Value::Array(list))) = (&node.list, old) else { return None };
        let mut items = HashMap::with_capacity(list.len());
        for item in list {
            if let Some(key) = key(item, keys) {
                items.entry(key).or_insert(item);
            }
        }
        Some(Self { keys, items })
    }

    /// What this item was.
    pub fn get(&self, item: &Value) -> Option<&'a Value> {
        self.items.get(&key(item, self.keys)?).copied()
    }
}

fn key(item: &Value, keys: &[String]) -> Option<String> {
    let fields = item.as_object()?;
    let mut text = String::new();
    for name in keys {
        match fields.get(name)? {
            Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => text.push_str(&go::number(number)),
            Value::String(value) => text.push_str(&serde_json::to_string(value).unwrap_or_default()),
            _ => return None,
        }
        text.push('\0');
    }
    Some(text)
}

/// Whether nothing changed, as far as the schema can tell. The order of a list that is a map does not matter.
pub fn equal(node: &Node, new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Array(new), Value::Array(before)) => {
            if new.len() != before.len() {
                return false;
            }
            match (&node.items, Items::of(node, Some(old))) {
                (Some(items), Some(known)) => {
                    new.iter().all(|item| known.get(item).is_some_and(|before| equal(items, item, before)))
                }
                _ => new == before,
            }
        }
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(name, value)| match (node.field(name), old.get(name)) {
                    (Some(below), Some(before)) => equal(below, value, before),
                    _ => false, // what the schema does not know cannot be compared
                })
        }
        (new, old) => new == old,
    }
}
