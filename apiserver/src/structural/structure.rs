//! Whether a schema is structural: every value it speaks of has a type of its own, and conditions only narrow it.

use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::pattern;

/// Where in a schema another one stands.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Why a schema is not structural. The order is that of the text, as Kubernetes has it.
pub fn check(schema: &Value, at: &str) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    spine(schema, Level::Root, at, &mut wrong);
    complete(schema, Some(schema), at, at, &mut wrong);
    wrong.sort_by_cached_key(ToString::to_string);
    wrong
}

/// Whether a keyword says anything: Go does not tell `""` and `false` from nothing.
pub fn says(schema: &Value, keyword: &str) -> bool {
    match &schema[keyword] {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// The `type` of a schema; empty if it says none.
pub fn kind(schema: &Value) -> &str {
    schema["type"].as_str().unwrap_or_default()
}

/// The fields that a schema names.
pub fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn list<'a>(schema: &'a Value, keyword: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    schema[keyword].as_array().into_iter().flatten().enumerate()
}

fn spine(s: &Value, level: Level, at: &str, wrong: &mut Vec<Invalid>) {
    let embedded = s["x-kubernetes-embedded-resource"] == true;
    let preserve = s["x-kubernetes-preserve-unknown-fields"] == true;
    let int_or_string = s["x-kubernetes-int-or-string"] == true;
    if kind(s) == "array" && !s["items"].is_object() {
        wrong.push(Invalid::required(format!("{at}.items"), "must be specified"));
    }
    if s["items"].is_object() {
        spine(&s["items"], Level::Item, &format!("{at}.items"), wrong);
    }
    for (name, property) in properties(s) {
        spine(property, Level::Field, &format!("{at}.properties[{name}]"), wrong);
    }
    let additional = &s["additionalProperties"];
    if !additional.is_null() {
        let at = format!("{at}.additionalProperties");
        if level == Level::Root {
            wrong.push(Invalid::forbidden(&at, "must not be used at the root"));
        }
        if additional.is_object() {
            spine(additional, Level::Field, &at, wrong);
        }
        if embedded {
            wrong.push(Invalid::forbidden(&at, "must not be used if x-kubernetes-embedded-resource is set"));
        }
    }
    if int_or_string {
        for (keyword, set) in
            [("x-kubernetes-preserve-unknown-fields", preserve), ("x-kubernetes-embedded-resource", embedded)]
        {
            if set {
                let why = "must be false if x-kubernetes-int-or-string is true";
                wrong.push(Invalid::value(format!("{at}.{keyword}"), true, why));
            }
        }
    }
    let either = |s: &Value| s["anyOf"] == json!([{"type": "integer"}, {"type": "string"}]);
    conditions(s, either(s), either(&s["allOf"][0]), at, wrong);
    let type_at = format!("{at}.type");
    if embedded && kind(s) != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        wrong.push(match kind(s) {
            "" => Invalid::required(type_at, why),
            other => Invalid::value(type_at, other, why),
        });
    } else if kind(s).is_empty() && !int_or_string && !preserve {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        wrong.push(Invalid::required(type_at, why));
    } else if level == Level::Root && !matches!(kind(s), "" | "object") {
        wrong.push(Invalid::value(type_at, kind(s), "must be object at the root"));
    }
    meta_fields(s, level, level == Level::Root || embedded, at, wrong);
    if embedded && !preserve && !says(s, "properties") {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        wrong.push(Invalid::required(format!("{at}.properties"), why));
    }
}

/// What every object has, the schema may restrict only a little.
fn meta_fields(s: &Value, level: Level, of_object: bool, at: &str, wrong: &mut Vec<Invalid>) {
    let fields = &s["properties"];
    for name in ["kind", "apiVersion"] {
        if of_object && fields[name].is_object() && kind(&fields[name]) != "string" {
            let at = format!("{at}.properties[{name}].type");
            wrong.push(Invalid::value(at, kind(&fields[name]), "must be string"));
        }
    }
    let Some(metadata) = fields["metadata"].as_object() else { return };
    let at = format!("{at}.properties[metadata]");
    if of_object && kind(&fields["metadata"]) != "object" {
        wrong.push(Invalid::value(format!("{at}.type"), kind(&fields["metadata"]), "must be object"));
    }
    if level == Level::Root && !only_names(metadata) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        wrong.push(Invalid::forbidden(at, why));
    }
}

fn only_names(metadata: &Map<String, Value>) -> bool {
    metadata.iter().all(|(keyword, value)| match keyword.as_str() {
        "type" | "default" | "example" | "externalDocs" => true,
        "properties" => value
            .as_object()
            .is_none_or(|fields| fields.keys().all(|name| matches!(name.as_str(), "name" | "generateName"))),
        _ => !says(&json!({ keyword: value }), keyword),
    })
}

/// The conditions of a schema: they stand in `allOf`, `anyOf`, `oneOf` and `not`, and may only narrow.
fn conditions(s: &Value, skip_any: bool, skip_first_any: bool, at: &str, wrong: &mut Vec<Invalid>) {
    if !skip_any {
        for (index, part) in list(s, "anyOf") {
            condition(part, false, &format!("{at}.anyOf[{index}]"), wrong);
        }
    }
    for (index, part) in list(s, "allOf") {
        condition(part, skip_first_any && index == 0, &format!("{at}.allOf[{index}]"), wrong);
    }
    for (index, part) in list(s, "oneOf") {
        condition(part, false, &format!("{at}.oneOf[{index}]"), wrong);
    }
    if s["not"].is_object() {
        condition(&s["not"], false, &format!("{at}.not"), wrong);
    }
    if let Some(source) = s["pattern"].as_str().filter(|source| !source.is_empty())
        && let Err(error) = pattern::compile(source)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        wrong.push(Invalid::value(format!("{at}.pattern"), source, why));
    }
}

fn condition(s: &Value, skip_any: bool, at: &str, wrong: &mut Vec<Invalid>) {
    conditions(s, skip_any, false, at, wrong);
    if s["items"].is_object() {
        condition(&s["items"], false, &format!("{at}.items"), wrong);
    }
    for (name, property) in properties(s) {
        condition(property, false, &format!("{at}.properties[{name}]"), wrong);
    }
    let forbidden = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    for (keyword, why) in forbidden {
        let set = match keyword {
            "default" => !s[keyword].is_null(),
            "additionalProperties" => s[keyword].is_object() || s[keyword] == true,
            _ => says(s, keyword),
        };
        if set {
            wrong.push(Invalid::forbidden(format!("{at}.{keyword}"), why));
        }
    }
    if s["properties"]["metadata"].is_object() {
        wrong.push(Invalid::forbidden(
            format!("{at}.properties[metadata]"),
            "must not be specified in a nested context",
        ));
    }
}

/// Whatever a condition speaks of, the schema around it must know.
fn complete(condition: &Value, s: Option<&Value>, at: &str, from: &str, wrong: &mut Vec<Invalid>) {
    let Some(s) = s else {
        return wrong.push(Invalid::required(at, format!("because it is defined in {from}")));
    };
    if condition["not"].is_object() {
        complete_part(&condition["not"], Some(s), at, &format!("{from}.not"), wrong);
    }
    for junction in ["allOf", "anyOf", "oneOf"] {
        for (index, part) in list(condition, junction) {
            complete_part(part, Some(s), at, &format!("{from}.{junction}[{index}]"), wrong);
        }
    }
}

fn complete_part(condition: &Value, s: Option<&Value>, at: &str, from: &str, wrong: &mut Vec<Invalid>) {
    complete(condition, s, at, from, wrong);
    let Some(s) = s else { return };
    if condition["items"].is_object() {
        let items = s.get("items").filter(|items| items.is_object());
        complete_part(&condition["items"], items, &format!("{at}.items"), &format!("{from}.items"), wrong);
    }
    for (name, property) in properties(condition) {
        let at = format!("{at}.properties[{name}]");
        let from = format!("{from}.properties[{name}]");
        let known = s["properties"].get(name);
        complete_part(property, known, &at, &from, wrong);
    }
}
