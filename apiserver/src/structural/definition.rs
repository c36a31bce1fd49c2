//! What Kubernetes refuses in the schema of a CustomResourceDefinition, besides that it must be structural.

use onex_crds::{Invalid, Problem};
use serde_json::Value;

use super::{
    node::texts,
    structure::{kind, properties, says},
};

/// A schema is read no deeper than this: JSON comes no deeper anyway.
pub const MOST_DEPTH: usize = 100;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const META: [&str; 3] = ["metadata", "kind", "apiVersion"];

/// What stands around a schema, as far as it matters within.
#[derive(Clone)]
pub struct Around {
    /// Why there may be no default; empty when there may be one.
    pub no_default: String,
    /// Where nobody can tell any more which value of the old object a value was; empty if one can.
    pub uncorrelated: String,
    inside_meta: bool,
    root: bool,
}

impl Around {
    /// Nothing: it is the root.
    pub fn root() -> Self {
        Self { no_default: String::new(), uncorrelated: String::new(), inside_meta: false, root: true }
    }

    /// What stands around that which is inside of `schema`, whose parts are found again by their names or keys if `found`.
    fn inside(&self, at: &str, found: bool) -> Self {
        let uncorrelated = if found || !self.uncorrelated.is_empty() { &self.uncorrelated } else { at };
        Self { root: false, uncorrelated: uncorrelated.to_owned(), ..self.clone() }
    }
}

/// Everything that is wrong with a schema and all below it.
pub fn check(schema: &Value, at: &str, around: &Around, wrong: &mut Vec<Invalid>) {
    if !schema.is_object() {
        return;
    }
    unsupported(schema, at, around, wrong);
    if schema["uniqueItems"] == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        wrong.push(Invalid::forbidden(format!("{at}.uniqueItems"), why));
    }
    below(schema, at, around, wrong);
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if schema[preserve] == false {
        wrong.push(Invalid::value(format!("{at}.{preserve}"), false, "must be true or undefined"));
    }
    map_type(schema, at, wrong);
    list_type(schema, at, wrong);
    list_keys(schema, at, wrong);
    super::rules::check_form(schema, at, &around.uncorrelated, wrong);
}

fn unsupported(schema: &Value, at: &str, around: &Around, wrong: &mut Vec<Invalid>) {
    let named = kind(schema);
    if !named.is_empty() && !TYPES.contains(&named) {
        wrong.push(Invalid::not_supported(format!("{at}.type"), named, &TYPES));
    }
    if !schema["default"].is_null() && !around.no_default.is_empty() {
        let why = format!("must not be set {}", around.no_default);
        wrong.push(Invalid::forbidden(format!("{at}.default"), why));
    }
    for keyword in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let set = match keyword {
            "additionalItems" | "dependencies" | "$ref" => !schema[keyword].is_null(),
            _ => says(schema, keyword),
        };
        if set {
            wrong.push(Invalid::forbidden(format!("{at}.{keyword}"), format!("{keyword} is not supported")));
        }
    }
    if named == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        wrong.push(Invalid::forbidden(format!("{at}.type"), why));
    }
    if schema["items"].is_array() && says(schema, "items") {
        let why = "items must be a schema object and not an array";
        wrong.push(Invalid::forbidden(format!("{at}.items"), why));
    }
    if around.inside_meta && schema["x-kubernetes-embedded-resource"] == true {
        let why = "must not be used inside of resource meta";
        wrong.push(Invalid::forbidden(format!("{at}.x-kubernetes-embedded-resource"), why));
    }
}

fn below(schema: &Value, at: &str, around: &Around, wrong: &mut Vec<Invalid>) {
    let inner = around.inside(at, schema["x-kubernetes-map-type"] != "atomic");
    let additional = &schema["additionalProperties"];
    if !additional.is_null() {
        let at = format!("{at}.additionalProperties");
        if says(schema, "properties") && *additional != true {
            let why = "additionalProperties and properties are mutual exclusive";
            wrong.push(Invalid::forbidden(&at, why));
        }
        let mut inner = inner.clone();
        if around.inside_meta {
            inner.no_default = "inside additionalProperties applying to object metadata".to_owned();
        }
        check(additional, &at, &inner, wrong);
    }
    for (name, property) in properties(schema) {
        let mut inner = inner.clone();
        let of_object = around.root || schema["x-kubernetes-embedded-resource"] == true;
        if of_object && META.contains(&name.as_str()) {
            inner.inside_meta = true;
            if around.root {
                inner.no_default = format!("in top-level {name}");
            }
        }
        check(property, &format!("{at}.properties[{name}]"), &inner, wrong);
    }
    check(&schema["not"], &format!("{at}.not"), &inner, wrong);
    for junction in ["allOf", "oneOf", "anyOf"] {
        for (index, part) in schema[junction].as_array().into_iter().flatten().enumerate() {
            check(part, &format!("{at}.{junction}[{index}]"), &inner, wrong);
        }
    }
    let inner = around.inside(at, schema["x-kubernetes-list-type"] == "map");
    check(&schema["items"], &format!("{at}.items"), &inner, wrong);
}

fn needs_type(schema: &Value, wanted: &str, keyword: &str, at: &str, wrong: &mut Vec<Invalid>) -> bool {
    let why = format!("must be {wanted} if {keyword} is specified");
    match kind(schema) {
        found if found == wanted => return true,
        "" => wrong.push(Invalid::required(format!("{at}.type"), why)),
        found => wrong.push(Invalid::value(format!("{at}.type"), found, why)),
    }
    false
}

fn map_type(schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let keyword = "x-kubernetes-map-type";
    let Some(named) = schema[keyword].as_str() else { return };
    needs_type(schema, "object", keyword, at, wrong);
    if !matches!(named, "atomic" | "granular") {
        wrong.push(Invalid::not_supported(format!("{at}.{keyword}"), named, &["atomic", "granular"]));
    }
}

fn list_type(schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let keyword = "x-kubernetes-list-type";
    let Some(named) = schema[keyword].as_str() else { return };
    let items = &schema["items"];
    if needs_type(schema, "array", keyword, at, wrong) && named == "set" && items.is_object() {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let inner = &items["x-kubernetes-list-type"];
        match kind(items) {
            "array" if !inner.is_null() && inner != "atomic" => {
                wrong.push(Invalid::value(format!("{at}.items.{keyword}"), inner.clone(), why));
            }
            "object" if items["x-kubernetes-map-type"] != "atomic" => {
                // Kubernetes shows the list type here.
                let shown = inner.as_str().unwrap_or("null");
                wrong.push(Invalid::value(format!("{at}.items.x-kubernetes-map-type"), shown, why));
            }
            _ => {}
        }
    }
    if !matches!(named, "atomic" | "set" | "map") {
        wrong.push(Invalid::not_supported(format!("{at}.{keyword}"), named, &["atomic", "set", "map"]));
    }
}

fn list_keys(schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let keys = texts(&schema["x-kubernetes-list-map-keys"]);
    let keys_at = format!("{at}.x-kubernetes-list-map-keys");
    let type_at = format!("{at}.x-kubernetes-list-type");
    let named = schema["x-kubernetes-list-type"].as_str();
    let items = &schema["items"];
    if !keys.is_empty() {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match named {
            None => wrong.push(Invalid::required(type_at, why)),
            Some("map") => {}
            Some(other) => wrong.push(Invalid::value(type_at, other, why)),
        }
    }
    if named == Some("map") {
        let what = "if x-kubernetes-list-type is map";
        if keys.is_empty() {
            wrong.push(Invalid::required(&keys_at, format!("must not be empty {what}")));
        }
        match items {
            Value::Null => wrong.push(Invalid::required(format!("{at}.items"), format!("must have a schema {what}"))),
            Value::Object(_) => key_fields(schema, &keys, at, &keys_at, wrong),
            other => {
                let why = format!("must only have a single schema {what}");
                wrong.push(Invalid::value(format!("{at}.items"), other.clone(), why));
            }
        }
    }
    if let Some(named @ ("set" | "map")) = named
        && items.is_object()
    {
        if items["nullable"] == true {
            let why = format!("cannot be nullable when x-kubernetes-list-type is {named}");
            wrong.push(Invalid::forbidden(format!("{at}.items.nullable"), why));
        }
        if named == "map" {
            keys_are_there(items, &keys, at, wrong);
        }
    }
}

fn key_fields(schema: &Value, keys: &[String], at: &str, keys_at: &str, wrong: &mut Vec<Invalid>) {
    let items = &schema["items"];
    if kind(items) != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        return wrong.push(Invalid::value(format!("{at}.items.type"), kind(items), why));
    }
    let shown = || schema["x-kubernetes-list-map-keys"].clone();
    for (index, key) in keys.iter().enumerate() {
        match items["properties"].get(key) {
            Some(field) if matches!(kind(field), "array" | "object") => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                wrong.push(Invalid::value(format!("{at}.items.properties[{key}].type"), kind(items), why));
            }
            Some(_) => {}
            None => wrong.push(Invalid::value(keys_at, shown(), "entries must all be names of item properties")),
        }
        if keys[..index].contains(key) {
            wrong.push(Invalid::value(keys_at, shown(), "must not contain duplicate entries"));
        }
    }
}

fn keys_are_there(items: &Value, keys: &[String], at: &str, wrong: &mut Vec<Invalid>) {
    let required = texts(&items["required"]);
    for key in keys {
        let Some(field) = items["properties"].get(key) else { continue };
        let what = "this property is in x-kubernetes-list-map-keys, so it";
        let at = format!("{at}.items.properties[{key}]");
        if !required.contains(key) && field["default"].is_null() {
            let why = format!("{what} must have a default or be a required property");
            wrong.push(Invalid::required(format!("{at}.default"), why));
        }
        if field["nullable"] == true {
            wrong.push(Invalid::forbidden(format!("{at}.nullable"), format!("{what} cannot be nullable")));
        }
    }
}

/// What of the schema is not of the type that keywords have. Kubernetes cannot even read such a definition.
pub fn misread(schema: &Value, at: &str, depth: usize, wrong: &mut Vec<Invalid>) {
    let Some(keywords) = schema.as_object() else {
        let why = "json: cannot unmarshal into Go value of type v1.JSONSchemaProps";
        return wrong.push(mistyped(at, schema, why));
    };
    if depth > MOST_DEPTH {
        return wrong.push(Invalid::forbidden(at, format!("must not be nested deeper than {MOST_DEPTH} schemas")));
    }
    for (keyword, value) in keywords {
        if value.is_null() {
            continue;
        }
        let at = format!("{at}.{keyword}");
        let fits = match keyword.as_str() {
            "type"
            | "format"
            | "title"
            | "description"
            | "pattern"
            | "$ref"
            | "id"
            | "x-kubernetes-list-type"
            | "x-kubernetes-map-type" => value.is_string(),
            "nullable"
            | "uniqueItems"
            | "exclusiveMaximum"
            | "exclusiveMinimum"
            | "x-kubernetes-int-or-string"
            | "x-kubernetes-embedded-resource"
            | "x-kubernetes-preserve-unknown-fields" => value.is_boolean(),
            "maximum" | "minimum" | "multipleOf" => value.is_number(),
            "maxLength" | "minLength" | "maxItems" | "minItems" | "maxProperties" | "minProperties" => value.is_i64(),
            "required" | "x-kubernetes-list-map-keys" => {
                value.as_array().is_some_and(|list| list.iter().all(Value::is_string))
            }
            "enum" | "x-kubernetes-validations" => value.is_array(),
            "not" => {
                misread(value, &at, depth + 1, wrong);
                true
            }
            "items" if value.is_array() => true,
            "additionalProperties" if value.is_boolean() => true,
            "items" | "additionalProperties" => {
                misread(value, &at, depth + 1, wrong);
                true
            }
            "allOf" | "anyOf" | "oneOf" => {
                for (index, part) in value.as_array().into_iter().flatten().enumerate() {
                    misread(part, &format!("{at}[{index}]"), depth + 1, wrong);
                }
                value.is_array()
            }
            "properties" => {
                for (name, property) in value.as_object().into_iter().flatten() {
                    misread(property, &format!("{at}[{name}]"), depth + 1, wrong);
                }
                value.is_object()
            }
            _ => true,
        };
        if !fits {
            wrong.push(mistyped(&at, value, "the value is not of the type that this keyword has"));
        }
    }
}

fn mistyped(at: &str, value: &Value, why: &str) -> Invalid {
    Invalid { field: at.to_owned(), problem: Problem::WrongType(value.clone(), why.to_owned()) }
}
