//! The record of an object that is new: all that is in it is its maker's.
//!
//! What [`super::managed_fields`] would find by a comparison with nothing, written down at once: most writes that come in
//! numbers make something.

use serde_json::{Map, Value, json};

use super::managed_fields::{UNOWNED, Writer, parts};
use crate::schema::Schema;

/// The record of `new`, whose maker sent none. `None` if it takes a comparison: where the blank object has a value that is
/// another in `new`. The inner is nothing if there is no field that anybody could own.
pub(super) fn record(new: &Value, writer: Writer<'_>, schema: &Schema) -> Option<Option<Value>> {
    let mut fields = beyond(writer.blank, new, Some(schema), Place::Top)?;
    if fields.get("f:metadata").and_then(Value::as_object).is_some_and(Map::is_empty) {
        fields.remove("f:metadata");
    }
    if fields.is_empty() {
        return Some(None);
    }
    let mut entry = Map::new();
    let mut say = |name: &str, value: Value| entry.insert(name.to_owned(), value);
    say("manager", writer.manager.into());
    say("operation", "Update".into());
    say("apiVersion", writer.api_version.into());
    say("time", writer.now.into());
    say("fieldsType", "FieldsV1".into());
    say("fieldsV1", fields.into());
    if !writer.subresource.is_empty() {
        say("subresource", writer.subresource.into());
    }
    Some(Some(Value::Array(vec![entry.into()])))
}

/// Where in an object a value is: some fields at its top are nobody's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Metadata,
    Below,
}

impl Place {
    fn of(self, name: &str) -> Self {
        if self == Self::Top && name == "metadata" { Self::Metadata } else { Self::Below }
    }

    fn is_nobodys(self, name: &str) -> bool {
        match self {
            Self::Top => matches!(name, "apiVersion" | "kind"),
            Self::Metadata => UNOWNED.contains(&name),
            Self::Below => false,
        }
    }
}

/// The fields of `new` that `blank` has not; nothing if both have something that is not alike.
fn beyond(blank: &Value, new: &Value, schema: Option<&Schema>, place: Place) -> Option<Map<String, Value>> {
    let (Value::Object(blank), Value::Object(fields)) = (blank, new) else { return None };
    if schema.is_some_and(|schema| schema.atomic) {
        return None;
    }
    let mut found = Map::new();
    for (name, value) in fields.iter().filter(|(name, value)| !value.is_null() && !place.is_nobodys(name)) {
        let below = schema.and_then(|schema| schema.field(name)).map(AsRef::as_ref);
        let further = place.of(name);
        let printed = match blank.get(name) {
            Some(same) if same == value => continue,
            Some(other) if !other.is_null() => {
                let more = beyond(other, value, below, further)?;
                if more.is_empty() {
                    continue;
                }
                more
            }
            _ if further == Place::Metadata => beyond(&json!({}), value, below, further)?,
            _ => owned(value, below),
        };
        found.insert(format!("f:{name}"), printed.into());
    }
    Some(found)
}

/// A value that is somebody's with all that is in it.
fn owned(value: &Value, schema: Option<&Schema>) -> Map<String, Value> {
    let mut found = Map::new();
    match value {
        Value::Object(fields) if !schema.is_some_and(|schema| schema.atomic) => {
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let below = schema.and_then(|schema| schema.field(name)).map(AsRef::as_ref);
                found.insert(format!("f:{name}"), owned(value, below).into());
            }
        }
        Value::Array(_) => {
            for part in parts(value, schema).into_iter().flatten() {
                found.insert(part.step.print(), owned(part.value, part.schema).into());
            }
        }
        _ => {}
    }
    if !found.is_empty() {
        found.insert(".".to_owned(), json!({}));
    }
    found
}
