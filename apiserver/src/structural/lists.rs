//! Sets and maps of items: nothing may be in them twice.

use std::{borrow::Cow, collections::HashMap};

use onex_crds::{Invalid, Problem};
use serde_json::{Map, Value};

use super::{
    node::{List, Node},
    path::Path,
};
use crate::status::is_enough;

/// What is there twice, below `value`.
pub fn check(node: &Node, value: &Value, path: &Path<'_>, wrong: &mut Vec<Invalid>) {
    if !node.listed || is_enough(wrong) {
        return;
    }
    match value {
        Value::Array(items) => {
            match &node.list {
                List::Set => once(items.iter().map(Cow::Borrowed), path, wrong),
                List::Map(keys) => map(items, keys, path, wrong),
                List::Atomic => {}
            }
            if let Some(below) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    check(below, item, &Path::Index(path, index), wrong);
                }
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(property) = node.properties.get(name) {
                    check(property, field, &Path::Field(path, name), wrong);
                }
                if let Some(values) = node.values() {
                    check(values, field, &Path::Key(path, name), wrong);
                }
            }
        }
        _ => {}
    }
}

fn map(items: &[Value], keys: &[String], path: &Path<'_>, wrong: &mut Vec<Invalid>) {
    for (index, item) in items.iter().enumerate() {
        if !matches!(item, Value::Object(_) | Value::Null) {
            let why = "must be an object for an array of list-type map";
            return wrong.push(Invalid::value(Path::Index(path, index).field(), item.clone(), why));
        }
    }
    let key = |item: &Value| {
        let fields = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(fields.collect::<Map<_, _>>())
    };
    once(items.iter().map(|item| Cow::Owned(key(item))), path, wrong);
}

/// Complains of what is there a second time; of a third it does not.
fn once<'a>(items: impl Iterator<Item = Cow<'a, Value>>, path: &Path<'_>, wrong: &mut Vec<Invalid>) {
    if items.size_hint().1.is_some_and(|most| most <= 1) {
        return;
    }
    let mut seen: HashMap<String, u32> = HashMap::new();
    for (index, item) in items.enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            let field = Path::Index(path, index).field();
            wrong.push(Invalid { field, problem: Problem::Duplicate(item.into_owned()) });
            if is_enough(wrong) {
                return;
            }
        }
    }
}
