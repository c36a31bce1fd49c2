//! Strategic merge patch: a merge patch that knows which lists merge item by item, and obeys directives.
//!
//! Nulls remove, maps merge, and a list merges only where the schema says so; anything the schema does not know merges
//! like a plain map, and its lists are replaced.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::{
    schema::Schema,
    status::{self, Status},
};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// `object` after `patch`, merged as `schema` says.
pub fn strategic(object: Value, patch: &Value, schema: &Schema) -> status::Result<Value> {
    let (Value::Object(fields), Value::Object(patch)) = (object, patch) else {
        return Err(super::no_object(patch));
    };
    merge_map(fields, patch, Some(schema)).map(Value::Object)
}

/// How one field merges.
struct Strategy<'a> {
    merges: bool,
    replaces: bool,
    key: Option<&'a str>,
}

impl<'a> Strategy<'a> {
    fn of(schema: Option<&'a Schema>) -> Self {
        let words = schema.and_then(|s| s.patch_strategy.as_deref()).unwrap_or_default();
        Self {
            merges: words.split(',').any(|w| w == "merge"),
            replaces: words.split(',').any(|w| w == "replace"),
            key: schema.and_then(|s| s.merge_key.as_deref()),
        }
    }
}

fn merge_map(
    mut fields: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Schema>,
) -> status::Result<Map<String, Value>> {
    match patch.get(PATCH).map(|word| word.as_str().unwrap_or_default()) {
        Some("replace") => return Ok(without_directives_in(patch)),
        Some("delete") => return Ok(Map::new()),
        None | Some("merge") => {}
        Some(word) => return Err(Status::bad_request(format!("unknown patch type: {word}"))),
    }
    retain_keys(&mut fields, patch)?;
    for (name, value) in patch {
        if name == PATCH || name == RETAIN_KEYS || name.starts_with(SET_ORDER) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            delete_from_list(&mut fields, list, value)?;
        } else {
            merge_field(&mut fields, name, value, schema.and_then(|s| s.field(name)).map(AsRef::as_ref))?;
        }
    }
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix(SET_ORDER) {
            set_order(
                &mut fields,
                list,
                order,
                patch.get(list),
                schema.and_then(|s| s.field(list)).map(AsRef::as_ref),
            )?;
        }
    }
    Ok(fields)
}

fn merge_field(
    fields: &mut Map<String, Value>,
    name: &str,
    patch: &Value,
    schema: Option<&Schema>,
) -> status::Result<()> {
    if patch.is_null() {
        fields.remove(name);
        return Ok(());
    }
    let strategy = Strategy::of(schema);
    let merged = match (fields.remove(name), patch) {
        (Some(Value::Object(before)), Value::Object(patch)) if !strategy.replaces => {
            Some(Value::Object(merge_map(before, patch, schema)?))
        }
        (Some(Value::Array(before)), Value::Array(patch)) if strategy.merges => {
            Some(Value::Array(merge_list(before, patch, strategy.key, schema)?))
        }
        _ => without_directives(patch),
    };
    if let Some(merged) = merged {
        fields.insert(name.to_owned(), merged);
    }
    Ok(())
}

/// `$retainKeys`: whatever it does not name goes, and the patch may set nothing else.
fn retain_keys(fields: &mut Map<String, Value>, patch: &Map<String, Value>) -> status::Result<()> {
    let Some(directive) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let names: Vec<&str> = match directive.as_array() {
        Some(names) => names.iter().filter_map(Value::as_str).collect(),
        None => return Err(Status::bad_request("invalid patch format of retainKeys")),
    };
    let stray =
        patch.iter().any(|(name, value)| !value.is_null() && !name.starts_with('$') && !names.contains(&name.as_str()));
    if stray {
        return Err(Status::unprocessable("the server rejected our request due to an error in our request"));
    }
    fields.retain(|name, _| names.contains(&name.as_str()));
    Ok(())
}

fn delete_from_list(fields: &mut Map<String, Value>, list: &str, gone: &Value) -> status::Result<()> {
    let Some(gone) = gone.as_array() else {
        return Err(Status::bad_request("invalid patch format of primitive list"));
    };
    let gone: HashSet<String> = gone.iter().map(Value::to_string).collect();
    if let Some(Value::Array(items)) = fields.get_mut(list) {
        items.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

fn merge_list(
    before: Vec<Value>,
    patch: &[Value],
    key: Option<&str>,
    schema: Option<&Schema>,
) -> status::Result<Vec<Value>> {
    if before.iter().chain(patch).any(Value::is_array) {
        return Err(Status::unprocessable("the server rejected our request due to an error in our request"));
    }
    let merged = if before.iter().chain(patch).any(Value::is_object) {
        let Some(key) = key else {
            return Err(Status::plain("cannot merge lists without merge key for a list of objects"));
        };
        merge_items(before.clone(), patch, key, schema.and_then(Schema::items).map(AsRef::as_ref))?
    } else {
        let mut seen = HashSet::new();
        before.iter().chain(patch).filter(|item| seen.insert(item.to_string())).cloned().collect()
    };
    Ok(ordered(merged, patch, &before, key))
}

fn merge_items(before: Vec<Value>, patch: &[Value], key: &str, schema: Option<&Schema>) -> status::Result<Vec<Value>> {
    let replaced = patch.iter().any(|item| item[PATCH] == "replace");
    let mut merged = if replaced { Vec::new() } else { before };
    let gone = removals(patch, key)?;
    merged.retain(|item| !identity(item, Some(key)).is_some_and(|name| gone.contains(&name)));
    let mut known = places(&merged, Some(key));
    for item in patch {
        let Value::Object(fields) = item else {
            return Err(Status::bad_request(
                "unsupported strategic merge patch format: objects and scalars in one list",
            ));
        };
        if matches!(fields.get(PATCH).and_then(Value::as_str), Some("replace" | "delete")) {
            continue;
        }
        let Some(name) = identity(item, Some(key)) else {
            return Err(Status::plain(format!("map: {item} does not contain declared merge key: {key}")));
        };
        match known.get(&name).map(|at| &mut merged[*at]) {
            Some(Value::Object(same)) => *same = merge_map(std::mem::take(same), fields, schema)?,
            _ => {
                known.insert(name, merged.len());
                merged.extend(without_directives(item));
            }
        }
    }
    Ok(merged)
}

/// The identities of the items that `patch` removes.
fn removals(patch: &[Value], key: &str) -> status::Result<HashSet<String>> {
    let removed = patch.iter().filter(|item| item[PATCH] == "delete");
    removed
        .map(|item| {
            identity(item, Some(key)).ok_or_else(|| Status::plain("delete patch type with no merge key defined"))
        })
        .collect()
}

/// `$setElementOrder`: the items that it names stand in that order; others keep their place as far as they can.
fn set_order(
    fields: &mut Map<String, Value>,
    list: &str,
    order: &Value,
    patch: Option<&Value>,
    schema: Option<&Schema>,
) -> status::Result<()> {
    let Some(order) = order.as_array() else {
        return Err(Status::bad_request("invalid patch format of setElementOrder list"));
    };
    let key = Strategy::of(schema).key;
    let known = places(order, key);
    let stray =
        |item: &Value| item.get(PATCH).is_none() && identity(item, key).is_some_and(|name| !known.contains_key(&name));
    if patch.and_then(Value::as_array).is_some_and(|items| items.iter().any(stray)) {
        return Err(Status::plain(format!("the order in patch list doesn't match $setElementOrder list of {list}")));
    }
    if let Some(Value::Array(items)) = fields.get_mut(list) {
        let current = std::mem::take(items);
        *items = ordered(current.clone(), order, &current, key);
    }
    Ok(())
}

/// The items in the order of `wanted`, and those that it does not know woven in where `before` had them.
///
/// An item that `before` does not know comes as early as `wanted` allows, as kube-apiserver has it.
fn ordered(items: Vec<Value>, wanted: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let (wanted, before) = (places(wanted, key), places(before, key));
    let place =
        |list: &HashMap<String, usize>, item: &Value| identity(item, key).and_then(|name| list.get(&name).copied());
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place(&wanted, item).is_some());
    named.sort_by_cached_key(|item| place(&wanted, item));
    others.sort_by_cached_key(|item| place(&before, item).unwrap_or(usize::MAX));
    let mut woven = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        if let Some(at) = place(&before, &item) {
            while let Some(other) = others.next_if(|other| place(&before, other).is_some_and(|place| place < at)) {
                woven.push(other);
            }
        }
        woven.push(item);
    }
    woven.extend(others);
    woven
}

/// Where each item stands. Lists are as long as a request may be, so nothing here searches them item by item.
fn places(list: &[Value], key: Option<&str>) -> HashMap<String, usize> {
    let named = list.iter().enumerate().filter_map(|(at, item)| Some((identity(item, key)?, at)));
    named.rev().collect()
}

/// What makes an item itself: its merge key, or all of it.
fn identity(item: &Value, key: Option<&str>) -> Option<String> {
    match key {
        Some(key) if item.is_object() => item.get(key).map(Value::to_string),
        _ => Some(item.to_string()),
    }
}

/// What a patch means where nothing was before: itself, without nulls and directives. `None` is nothing at all.
fn without_directives(patch: &Value) -> Option<Value> {
    match patch {
        Value::Object(fields) if fields.get(PATCH).is_some_and(|word| word == "delete") => None,
        Value::Object(fields) if is_only_directive(fields) => None,
        Value::Object(fields) => Some(Value::Object(without_directives_in(fields))),
        Value::Array(items) => Some(items.iter().filter_map(without_directives).collect()),
        scalar => Some(scalar.clone()),
    }
}

fn is_only_directive(fields: &Map<String, Value>) -> bool {
    fields.len() == 1 && fields.contains_key(PATCH)
}

fn without_directives_in(fields: &Map<String, Value>) -> Map<String, Value> {
    let is_directive = |name: &str| {
        name == PATCH || name == RETAIN_KEYS || name.starts_with(DELETE_FROM) || name.starts_with(SET_ORDER)
    };
    let written = fields.iter().filter(|(name, value)| !value.is_null() && !is_directive(name));
    written.filter_map(|(name, value)| Some((name.clone(), without_directives(value)?))).collect()
}
