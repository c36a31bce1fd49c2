//! Server-side apply: a client says what it wants of an object, and owns just that.
//!
//! What it wanted before, does not want any more, and nobody else owns, goes. What another owns and would change is a
//! conflict, unless it is forced.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::managed_fields::{
    self as managed, Difference, Entry, FieldSet, Part, Step, Writer, item_keys, item_step, parts,
};
use crate::{
    schema::{ListType, Schema, Shape},
    status::{self, MOST_CAUSES, Status},
};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What all annotations of an object may add up to; a longer record of the last apply is left out.
const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

/// `live` after `applied`, with `metadata.managedFields` brought up to date.
///
/// `reset` names the fields that cannot be set here, such as `["status"]` on the main resource: they are neither
/// written nor owned. The caller fills in defaults and checks the result. Applying the same again changes nothing.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    force: bool,
    writer: Writer<'_>,
    reset: &[&[&str]],
    schema: &Schema,
) -> status::Result<Value> {
    let wanted = wanted(applied, reset, schema)?;
    let nothing = Value::Object(Map::new());
    let mut entries = managed::entries(live).unwrap_or_default();
    if let Some(live) = live
        && entries.is_empty()
    {
        entries = before_first_apply(live, reset, writer, schema);
    }
    let live = live.unwrap_or(&nothing);
    let mut outcome = Outcome::of(live, &wanted, &entries, writer, schema);
    let conflicts = conflicts(&entries, &outcome.difference, writer);
    if !force && !conflicts.is_empty() {
        let open = explained_by_last_applied(live, conflicts, writer, schema);
        if !open.is_empty() {
            return Err(conflict(&open));
        }
    }
    if writer.manager == "kubectl" {
        record_last_applied(live, &wanted, &mut outcome.object);
    }
    let entries = outcome.entries(entries, writer);
    managed::write(&mut outcome.object, entries);
    Ok(outcome.object)
}

/// What the client wants, checked against the schema, without nulls and without what cannot be set here.
fn wanted(applied: &Value, reset: &[&[&str]], schema: &Schema) -> status::Result<Value> {
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let mut problems = Vec::new();
    check(applied, Some(schema), &mut Vec::new(), &mut problems);
    if !problems.is_empty() {
        return Err(untyped(applied, &problems));
    }
    let mut wanted = applied.clone();
    remove_nulls(&mut wanted);
    for path in reset {
        remove(&mut wanted, path);
    }
    Ok(wanted)
}

fn untyped(applied: &Value, problems: &[String]) -> Status {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, namespace) = (text(&applied["metadata"]["name"]), text(&applied["metadata"]["namespace"]));
    let (version, kind) = (text(&applied["apiVersion"]), text(&applied["kind"]));
    let problems = match problems {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let core = if version.contains('/') { "" } else { "/" }; // as Go prints a version of the group without a name
    Status::plain(format!(
        "failed to create typed patch object ({namespace}/{name}; {core}{version}, Kind={kind}): {problems}"
    ))
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

fn remove(value: &mut Value, path: &[&str]) {
    match path {
        [] => {}
        [last] => {
            value.as_object_mut().map(|fields| fields.remove(*last));
        }
        [first, rest @ ..] => {
            if let Some(below) = value.get_mut(first) {
                remove(below, rest);
            }
        }
    }
}

/// What an object was before anything was tracked belongs to a manager of its own, so that applies can conflict with it.
fn before_first_apply(live: &Value, reset: &[&[&str]], writer: Writer<'_>, schema: &Schema) -> Vec<Entry> {
    let mut entry = Entry::new(Writer { manager: "before-first-apply", ..writer }, false);
    let mut difference = Difference::between(&Value::Object(Map::new()), live, schema);
    difference.strip();
    entry.fields = difference.changed;
    for path in reset {
        entry.fields.cut(path);
    }
    vec![entry]
}

/// What an apply comes to, before anyone asks whether it may.
struct Outcome {
    object: Value,
    /// What the writer owns from now on.
    fields: FieldSet,
    /// From the live object to the new one.
    difference: Difference,
}

impl Outcome {
    fn of(live: &Value, wanted: &Value, entries: &[Entry], writer: Writer<'_>, schema: &Schema) -> Self {
        let mut fields = FieldSet::of(wanted, schema);
        let mut owned = fields.clone();
        owned.insert(&[Step::Field("metadata".to_owned())]); // whoever owns it: an object without cannot be
        let mut last = FieldSet::default();
        for entry in entries {
            if entry.is(writer, true) { last.extend(&entry.fields) } else { owned.extend(&entry.fields) }
        }
        let mut object = merge(live, wanted, Some(schema));
        prune(&mut object, Some(schema), &last, &owned);
        let mut difference = Difference::between(live, &object, schema);
        difference.strip();
        managed::strip(&mut fields);
        Self { object, fields, difference }
    }

    /// The record as it shall be. The writer's time moves only if something did; who changed nothing yet has none.
    fn entries(&self, mut entries: Vec<Entry>, writer: Writer<'_>) -> Vec<Entry> {
        for entry in &mut entries {
            entry.fields.subtract(&self.difference.changed);
            entry.fields.subtract(&self.difference.removed);
        }
        let mut mine = Entry::new(writer, true);
        mine.fields = self.fields.clone();
        let before = entries.iter().position(|entry| entry.is(writer, true)).map(|at| entries.remove(at));
        match before {
            Some(before)
                if self.difference.is_empty()
                    && before.fields == mine.fields
                    && before.api_version == mine.api_version =>
            {
                mine.time = before.time;
            }
            None if self.difference.is_empty() => mine.time = None,
            _ => {}
        }
        entries.push(mine);
        entries
    }
}

/// `live` with everything that `wanted` says.
fn merge(live: &Value, wanted: &Value, schema: Option<&Schema>) -> Value {
    let (Some(before), Some(after)) = (parts(live, schema), parts(wanted, schema)) else {
        return wanted.clone();
    };
    match (live, wanted) {
        (Value::Object(fields), Value::Object(_)) => {
            let mut merged = fields.clone();
            for part in after {
                let Step::Field(name) = part.step else {
                    continue;
                };
                let value = match fields.get(&name) {
                    Some(before) if !before.is_null() => merge(before, part.value, part.schema),
                    _ => part.value.clone(),
                };
                merged.insert(name, value);
            }
            Value::Object(merged)
        }
        (Value::Array(_), Value::Array(_)) => Value::Array(merge_items(&before, &after)),
        _ => wanted.clone(),
    }
}

/// The items of both lists. Those of `after` stand in its order; the others stay between them where they were.
fn merge_items(before: &[Part<'_, '_>], after: &[Part<'_, '_>]) -> Vec<Value> {
    let live: HashMap<&Step, &Part<'_, '_>> = before.iter().map(|part| (&part.step, part)).collect();
    let wanted: BTreeSet<&Step> = after.iter().map(|part| &part.step).collect();
    let mut shared = after.iter().map(|part| &part.step).filter(|step| live.contains_key(step)).peekable();
    let mut merged = Vec::new();
    let mut left = before.iter().peekable();
    for part in after {
        // Items of ours that stand elsewhere now are passed over; those that are not ours are kept here.
        while let Some(other) = left.next_if(|other| shared.peek() != Some(&&other.step)) {
            if !wanted.contains(&other.step) {
                merged.push(other.value.clone());
            }
        }
        merged.push(match live.get(&part.step) {
            Some(before) => merge(before.value, part.value, part.schema),
            None => part.value.clone(),
        });
        if shared.next_if(|step| **step == part.step).is_some() {
            left.next_if(|other| other.step == part.step);
        }
    }
    merged.extend(left.filter(|other| !wanted.contains(&other.step)).map(|other| other.value.clone()));
    merged
}

/// Removes what the writer owned by its last apply (`last`) and nobody owns now.
fn prune(value: &mut Value, schema: Option<&Schema>, last: &FieldSet, owned: &FieldSet) {
    let nothing = FieldSet::default();
    let steps: Vec<(Step, bool)> = match parts(value, schema) {
        Some(parts) => parts.into_iter().map(|part| (part.step, part.named)).collect(),
        None => return,
    };
    let gone = |step: &Step, named: bool| last.holds(step, named) && !owned.holds(step, named);
    match value {
        Value::Object(fields) => {
            for (step, named) in steps {
                let Step::Field(name) = &step else { continue };
                if gone(&step, named) {
                    fields.remove(name);
                } else if let (Some(below), Some(last)) = (fields.get_mut(name), last.below(&step)) {
                    let schema = schema.and_then(|s| s.field(name)).map(AsRef::as_ref);
                    prune(below, schema, last, owned.below(&step).unwrap_or(&nothing));
                }
            }
        }
        Value::Array(items) => {
            let Some(list) = schema else { return };
            let mut index = 0;
            items.retain_mut(|item| {
                index += 1;
                let Some(step) = item_step(item, index - 1, list) else {
                    return true;
                };
                if gone(&step, false) {
                    return false;
                }
                if let Some(last) = last.below(&step) {
                    prune(item, list.items().map(AsRef::as_ref), last, owned.below(&step).unwrap_or(&nothing));
                }
                true
            });
        }
        _ => {}
    }
}

/// A field that another manager owns and the apply would change.
struct Conflict {
    manager: String,
    path: Vec<Step>,
}

impl Conflict {
    fn field(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

fn conflicts(entries: &[Entry], difference: &Difference, writer: Writer<'_>) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.is(writer, true)) {
        let mut manager = format!("{:?}", entry.manager);
        if !entry.subresource.is_empty() {
            manager.push_str(&format!(" with subresource {:?}", entry.subresource));
        }
        if !entry.applied {
            manager.push_str(&format!(" using {}", entry.api_version));
        }
        for path in entry.fields.intersection(&difference.changed).paths() {
            conflicts.push(Conflict { manager: manager.clone(), path });
        }
    }
    conflicts.sort_by(|a, b| (&a.manager, &a.path).cmp(&(&b.manager, &b.path)));
    conflicts
}

fn conflict(conflicts: &[Conflict]) -> Status {
    let causes: Vec<(String, String)> =
        conflicts.iter().map(|c| (c.field(), format!("conflict with {}", c.manager))).collect();
    if let [one] = conflicts {
        let message =
            format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, status::cut(one.field()));
        return Status::apply_conflict(message, &causes);
    }
    let mut by_manager: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in conflicts.iter().take(MOST_CAUSES) {
        by_manager.entry(&one.manager).or_default().push(format!("- {}", status::cut(one.field())));
    }
    let mut lines: Vec<String> = by_manager
        .iter()
        .map(|(manager, fields)| format!("conflicts with {manager}:\n{}", fields.join("\n")))
        .collect();
    if conflicts.len() > MOST_CAUSES {
        lines.push(format!("and {} more", conflicts.len() - MOST_CAUSES));
    }
    let message = format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"));
    Status::apply_conflict(message, &causes)
}

/// The conflicts that remain when `kubectl` goes from client-side to server-side apply: a field that still is what
/// kubectl's own annotation says may be taken.
fn explained_by_last_applied(
    live: &Value,
    conflicts: Vec<Conflict>,
    writer: Writer<'_>,
    schema: &Schema,
) -> Vec<Conflict> {
    let annotation = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    let Some(last) = annotation.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return conflicts;
    };
    if writer.manager != "kubectl" || !last.is_object() {
        return conflicts;
    }
    let mut explained = FieldSet::of(&last, schema);
    explained.subtract(&Difference::between(live, &last, schema).changed);
    conflicts.into_iter().filter(|conflict| !explained.contains(&conflict.path)).collect()
}

/// Keeps kubectl's annotation true, where there is one, so that going back to client-side apply works.
fn record_last_applied(live: &Value, wanted: &Value, object: &mut Value) {
    if live["metadata"]["annotations"][LAST_APPLIED].is_null() {
        return;
    }
    let mut record = wanted.clone();
    if let Some(Value::Object(annotations)) = record.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    let record = format!("{record}\n");
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations")
        && record.len() <= MOST_ANNOTATION_BYTES
    {
        annotations.insert(LAST_APPLIED.to_owned(), record.into());
    }
}

/// Says what in `value` the schema cannot type.
fn check(value: &Value, schema: Option<&Schema>, path: &mut Vec<Step>, problems: &mut Vec<String>) {
    let Some(schema) = schema else { return };
    if problems.len() >= MOST_PROBLEMS {
        return;
    }
    match (&schema.shape, value) {
        (_, Value::Null) | (Shape::Any, _) => {}
        (Shape::Object(_) | Shape::Map(_), Value::Object(fields)) => {
            for (name, below) in fields {
                path.push(Step::Field(name.clone()));
                match schema.field(name) {
                    Some(known) => check(below, Some(known), path, problems),
                    None if schema.preserve_unknown || is_identity(path, schema) => {}
                    None => problems.push(problem(path, "field not declared in schema")),
                }
                path.pop();
            }
        }
        (Shape::List(item, _), Value::Array(items)) => {
            check_items(items, schema, path, problems);
            for (index, below) in items.iter().enumerate() {
                path.push(item_step(below, index, schema).unwrap_or(Step::Index(index as u64)));
                check(below, Some(item), path, problems);
                path.pop();
            }
        }
        (Shape::String(_), Value::String(_))
        | (Shape::Boolean, Value::Bool(_))
        | (Shape::Integer(_) | Shape::Number, Value::Number(_))
        | (Shape::IntOrString, Value::Number(_) | Value::String(_)) => {}
        (shape, found) => problems.push(problem(path, &mistyped(shape, found))),
    }
}

/// More problems than this are not looked for.
const MOST_PROBLEMS: usize = 100;

/// `apiVersion`, `kind` and `metadata` stand in every whole object, whether its schema lists them or not.
fn is_identity(path: &[Step], schema: &Schema) -> bool {
    (path.len() == 1 || schema.embedded)
        && matches!(path.last(), Some(Step::Field(name)) if matches!(name.as_str(), "apiVersion" | "kind" | "metadata"))
}

/// Items of a map-like list must have their keys, and none may be there twice.
fn check_items(items: &[Value], list: &Schema, path: &[Step], problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if let ListType::Map(keys) = list.list_type()
            && item_keys(item, keys, list).is_none()
        {
            let missing = keys.first().map(String::as_str).unwrap_or_default();
            problems.push(problem(
                path,
                &format!("element {index}: associative list with keys has an element that omits key field {missing:?} (and doesn't have default value)"),
            ));
        } else if let Some(step) = item_step(item, index, list)
            && !seen.insert(step.clone())
        {
            problems.push(problem(path, &format!("duplicate entries for key {step}")));
        }
    }
}

fn problem(path: &[Step], what: &str) -> String {
    let path: String = path.iter().map(ToString::to_string).collect();
    if path.is_empty() { what.to_owned() } else { format!("{path}: {what}") }
}

fn mistyped(shape: &Shape, found: &Value) -> String {
    let wanted = match shape {
        Shape::Object(_) | Shape::Map(_) => "map",
        Shape::List(..) => "list",
        Shape::Integer(_) | Shape::Number => "numeric (int or float)",
        Shape::Boolean => "boolean",
        Shape::String(_) | Shape::IntOrString => "string",
        Shape::Any => "anything",
    };
    let is_number = matches!(shape, Shape::Integer(_) | Shape::Number);
    let found = match found {
        // Of a number Go names the type of what came, of all else it prints it.
        Value::String(_) if is_number => "string".to_owned(),
        Value::Bool(_) if is_number => "bool".to_owned(),
        Value::Object(_) => "map".to_owned(),
        Value::Array(_) => "list".to_owned(),
        scalar => format!("&value.valueUnstructured{{Value:{scalar}}}"),
    };
    format!("expected {wanted}, got {found}")
}
