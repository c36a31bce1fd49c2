//! What an object of a kind may look like: the compiled form of an OpenAPI schema.
//!
//! One tree serves every question about shape: does this field exist, is this value of the right type, how do two
//! lists merge. It is compiled once per kind, from k8s-openapi's types, ours, or a CustomResourceDefinition.

use std::{collections::BTreeMap, sync::Arc};

use base64::{
    DecodeError, Engine as _,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

use crate::builtin::quantity;

/// The shape of one value.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// What the value is.
    pub shape: Shape,
    /// What stands there when nothing was written.
    pub default: Option<Value>,
    /// `null` is a value of its own here.
    pub nullable: bool,
    /// Fields that the schema does not know are kept.
    pub preserve_unknown: bool,
    /// The value is a whole object with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// The number or text is an amount such as `500m`.
    pub quantity: bool,
    /// Server-side apply owns the object, or the map, as a whole.
    pub atomic: bool,
    /// How strategic merge patch merges a list: by this key of its items.
    pub merge_key: Option<String>,
    /// `x-kubernetes-patch-strategy`, for instance `merge` or `merge,retainKeys`.
    pub patch_strategy: Option<String>,
    /// The OpenAPI schema as it is published, without its children's.
    pub facets: Facets,
}

/// The kind of a value.
#[derive(Clone, Debug, Default)]
pub enum Shape {
    /// Anything at all.
    #[default]
    Any,
    /// An object with named fields.
    Object(Object),
    /// An object whose keys are free: labels, data, limits.
    Map(Arc<Schema>),
    /// A list.
    List(Arc<Schema>, ListType),
    /// Text. The format is `byte`, `date-time`, `micro-time` or empty.
    String(String),
    /// A whole number. The format is `int32` or `int64`.
    Integer(String),
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A port, a percentage, a quantity: whole number or text.
    IntOrString,
}

/// An object with named fields.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// The Go-like name of the type, as error messages say it: `MinerSetSpec`.
    pub name: String,
    /// The Go-like package of a type that has one: `v1`.
    pub package: String,
    /// The fields.
    pub properties: BTreeMap<String, Arc<Schema>>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Other fields are allowed and look like this.
    pub additional: Option<Arc<Schema>>,
}

/// How a list merges under server-side apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// As a set of scalars.
    Set,
    /// As a map: items are known by the values of these fields.
    Map(Vec<String>),
}

/// What a value must satisfy beyond its shape, as CRDs can say it.
#[derive(Clone, Debug, Default)]
pub struct Facets {
    /// The only values allowed.
    pub enumeration: Vec<Value>,
    /// The least number allowed.
    pub minimum: Option<f64>,
    /// The greatest number allowed.
    pub maximum: Option<f64>,
    /// The least length of a text.
    pub min_length: Option<u64>,
    /// The greatest length of a text.
    pub max_length: Option<u64>,
    /// The regular expression that a text must match.
    pub pattern: Option<String>,
    /// The least number of items.
    pub min_items: Option<u64>,
    /// The greatest number of items.
    pub max_items: Option<u64>,
}

impl Schema {
    /// The schema of the field `name`, whether it is named or one of a map's.
    pub fn field(&self, name: &str) -> Option<&Arc<Schema>> {
        match &self.shape {
            Shape::Object(object) => object.properties.get(name).or(object.additional.as_ref()),
            Shape::Map(values) => Some(values),
            _ => None,
        }
    }

    /// The schema of a list's items.
    pub fn items(&self) -> Option<&Arc<Schema>> {
        match &self.shape {
            Shape::List(items, _) => Some(items),
            _ => None,
        }
    }

    /// How a list merges under server-side apply; atomic for everything that is not a list.
    pub fn list_type(&self) -> &ListType {
        match &self.shape {
            Shape::List(_, list_type) => list_type,
            _ => &ListType::Atomic,
        }
    }

    /// Compiles a published schema. `definitions` resolves `$ref`s by their last segment.
    ///
    /// Recursion ends where a type contains itself: from there on anything is allowed.
    pub fn compile(published: &Value, definitions: &Value) -> Arc<Schema> {
        Arc::new(compile(published, definitions, &mut Vec::new()))
    }
}

fn compile(published: &Value, definitions: &Value, path: &mut Vec<String>) -> Schema {
    if let Some(reference) = published["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default().replace("~1", "/");
        if path.contains(&name) || definitions[&name].is_null() {
            return Schema { preserve_unknown: true, ..Schema::default() };
        }
        let target = &definitions[&name];
        path.push(name.clone());
        let mut schema = compile(target, definitions, path);
        path.pop();
        let go_name = name.rsplit('.').next().unwrap_or_default();
        match (&mut schema.shape, go_name) {
            (Shape::Object(object), _) => {
                object.name = go_name.to_owned();
                object.package = name.rsplit('.').nth(1).unwrap_or_default().to_owned();
            }
            // What these read is narrower than what they publish.
            (Shape::String(format), "MicroTime") => *format = MICRO_TIME.to_owned(),
            (_, "Quantity") => schema.quantity = true,
            _ => {}
        }
        read_extensions(&mut schema, published);
        return schema;
    }
    // OpenAPI v3 writes a field that is a reference with a default as `allOf` of one; schemars writes `anyOf` with null.
    for combination in ["allOf", "anyOf", "oneOf"] {
        if published.get("type").is_none()
            && published.get("properties").is_none()
            && published["x-kubernetes-int-or-string"] != true
            && let Some(parts) = published[combination].as_array()
        {
            let real: Vec<&Value> =
                parts.iter().filter(|p| p["type"] != "null" && p["enum"] != serde_json::json!([null])).collect();
            if let [one] = real.as_slice() {
                let mut schema = compile(one, definitions, path);
                schema.nullable |= real.len() < parts.len();
                read_extensions(&mut schema, published);
                return schema;
            }
        }
    }
    let mut schema = Schema { shape: shape(published, definitions, path), ..Schema::default() };
    read_extensions(&mut schema, published);
    schema
}

fn shape(published: &Value, definitions: &Value, path: &mut Vec<String>) -> Shape {
    if published["x-kubernetes-int-or-string"] == true {
        return Shape::IntOrString;
    }
    let format = published["format"].as_str().unwrap_or_default().to_owned();
    let named = match &published["type"] {
        Value::Array(types) => types.iter().find(|t| *t != "null").and_then(Value::as_str),
        one => one.as_str(),
    };
    match named {
        Some("string") => Shape::String(format),
        Some("integer") => Shape::Integer(format),
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Boolean,
        Some("array") => {
            let items = Arc::new(compile(&published["items"], definitions, path));
            Shape::List(items, list_type(published))
        }
        Some("object") | None if published.get("properties").is_some() => object(published, definitions, path),
        Some("object") => match &published["additionalProperties"] {
            values @ Value::Object(_) => Shape::Map(Arc::new(compile(values, definitions, path))),
            Value::Bool(true) => Shape::Map(Arc::new(Schema { preserve_unknown: true, ..Schema::default() })),
            _ if published["x-kubernetes-preserve-unknown-fields"] == true => Shape::Any,
            _ => Shape::Object(Object::default()),
        },
        _ => Shape::Any,
    }
}

fn object(published: &Value, definitions: &Value, path: &mut Vec<String>) -> Shape {
    let mut object = Object::default();
    for (name, field) in published["properties"].as_object().into_iter().flatten() {
        object.properties.insert(name.clone(), Arc::new(compile(field, definitions, path)));
    }
    object.required =
        published["required"].as_array().into_iter().flatten().filter_map(|r| r.as_str().map(str::to_owned)).collect();
    if published["additionalProperties"].is_object() {
        object.additional = Some(Arc::new(compile(&published["additionalProperties"], definitions, path)));
    }
    Shape::Object(object)
}

fn list_type(published: &Value) -> ListType {
    match published["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = published["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListType::Map(keys.filter_map(|k| k.as_str().map(str::to_owned)).collect())
        }
        _ => ListType::Atomic,
    }
}

fn read_extensions(schema: &mut Schema, published: &Value) {
    let text = |name: &str| published[name].as_str().map(str::to_owned);
    if let Some(default) = published.get("default") {
        schema.default = Some(default.clone());
    }
    schema.nullable |= published["nullable"] == true
        || published["type"].as_array().is_some_and(|types| types.iter().any(|t| t == "null"));
    schema.preserve_unknown |= published["x-kubernetes-preserve-unknown-fields"] == true;
    schema.embedded |= published["x-kubernetes-embedded-resource"] == true;
    schema.merge_key = text("x-kubernetes-patch-merge-key").or(schema.merge_key.take());
    schema.patch_strategy = text("x-kubernetes-patch-strategy").or(schema.patch_strategy.take());
    if let Shape::List(_, kind) = &mut schema.shape
        && published.get("x-kubernetes-list-type").is_some()
    {
        *kind = list_type(published);
    }
    match published["x-kubernetes-map-type"].as_str() {
        Some("atomic") => schema.atomic = true,
        Some("granular") => schema.atomic = false, // a field may say so of a type that is atomic elsewhere
        _ => {}
    }
    read_facets(&mut schema.facets, published);
}

fn read_facets(facets: &mut Facets, published: &Value) {
    if let Some(values) = published["enum"].as_array() {
        facets.enumeration = values.clone();
    }
    facets.minimum = published["minimum"].as_f64().or(facets.minimum);
    facets.maximum = published["maximum"].as_f64().or(facets.maximum);
    facets.min_length = published["minLength"].as_u64().or(facets.min_length);
    facets.max_length = published["maxLength"].as_u64().or(facets.max_length);
    facets.min_items = published["minItems"].as_u64().or(facets.min_items);
    facets.max_items = published["maxItems"].as_u64().or(facets.max_items);
    if let Some(pattern) = published["pattern"].as_str() {
        facets.pattern = Some(pattern.to_owned());
    }
}

/// What a typed decode of `value` would say: fields that are not known, and the first value of a wrong type.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Paths of unknown fields, which were removed: `spec.foo`.
    pub unknown: Vec<String>,
    /// The first type error, in the words of Go's JSON decoder.
    pub wrong: Option<String>,
}

/// Removes what the schema does not know, and says what is of the wrong type.
pub fn decode(value: &mut Value, schema: &Schema) -> Decoded {
    let mut decoded = Decoded::default();
    walk(value, schema, &mut Vec::new(), "", &mut decoded);
    decoded
}

fn walk(value: &mut Value, schema: &Schema, path: &mut Vec<String>, owner: &str, decoded: &mut Decoded) {
    if value.is_null() {
        return; // null means "not written" wherever Go decodes it
    }
    match (&schema.shape, &mut *value) {
        (Shape::Any, _) => {}
        (Shape::Object(object), Value::Object(fields)) => walk_object(fields, object, schema, path, decoded),
        (Shape::Map(values), Value::Object(fields)) => {
            for (name, field) in fields {
                unnull(field, values);
                path.push(format!("{KEY}{name}"));
                walk(field, values, path, owner, decoded);
                path.pop();
            }
        }
        (Shape::List(items, _), Value::Array(list)) => {
            for (index, item) in list.iter_mut().enumerate() {
                unnull(item, items);
                path.push(format!("[{index}]"));
                walk(item, items, path, owner, decoded);
                path.pop();
            }
        }
        (Shape::String(format), Value::String(text)) if format == "byte" => match from_base64(text) {
            Ok(bytes) => *text = BASE64.encode(bytes), // as Go would write it
            Err(wrong) => {
                decoded.wrong.get_or_insert(wrong);
            }
        },
        (Shape::String(format), Value::String(text)) => {
            if decoded.wrong.is_none() {
                decoded.wrong = not_time(text, format);
            }
        }
        (Shape::IntOrString, found) if schema.quantity => {
            if decoded.wrong.is_none() {
                decoded.wrong = quantity::unreadable(found);
            }
            if let Some(written) = quantity::canonical(found) {
                *found = written.into();
            }
        }
        (Shape::Boolean, Value::Bool(_))
        | (Shape::Number, Value::Number(_))
        | (Shape::IntOrString, Value::String(_)) => {}
        (Shape::IntOrString, Value::Number(number)) if fits(number, "int32") => {}
        (Shape::Integer(format), Value::Number(number)) if fits(number, format) => {}
        (shape, found) => {
            if decoded.wrong.is_none() {
                decoded.wrong = Some(type_error(found, shape, path, owner));
            }
        }
    }
}

fn walk_object(
    fields: &mut serde_json::Map<String, Value>,
    object: &Object,
    schema: &Schema,
    path: &mut Vec<String>,
    decoded: &mut Decoded,
) {
    // A null is a field that was not written, as Go decodes it; Go clients send `creationTimestamp: null` in every object.
    fields.retain(|name, field| !field.is_null() || object.properties.get(name).is_none_or(|known| known.nullable));
    let mut unknown = Vec::new();
    for (name, field) in fields.iter_mut() {
        path.push(name.clone());
        match object.properties.get(name).or(object.additional.as_ref()) {
            Some(known) => walk(field, known, path, &object.name, decoded),
            None if schema.preserve_unknown
                || (schema.embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")) => {}
            None => unknown.push(name.clone()),
        }
        path.pop();
    }
    for name in unknown {
        fields.remove(&name);
        path.push(name);
        complain(&mut decoded.unknown, || joined(path));
        path.pop();
    }
}

/// Go has no null in a `map[string]string` or a `[]string`: it decodes one as the type's zero value.
fn unnull(value: &mut Value, schema: &Schema) {
    if value.is_null() && !schema.nullable {
        *value = match &schema.shape {
            Shape::String(format) if !matches!(format.as_str(), "date-time" | MICRO_TIME) => "".into(),
            Shape::Integer(_) | Shape::Number | Shape::IntOrString => 0.into(),
            Shape::Boolean => false.into(),
            Shape::Object(_) => Value::Object(serde_json::Map::new()),
            _ => return,
        };
    }
}

/// The format of times with six digits of a second: those of leases and events.
const MICRO_TIME: &str = "micro-time";

/// What is wrong with a text that must be a time.
fn not_time(text: &str, format: &str) -> Option<String> {
    let layout = match format {
        "date-time" if !is_time(text, None) => "2006-01-02T15:04:05Z07:00",
        MICRO_TIME if !is_time(text, Some(6)) => "2006-01-02T15:04:05.000000Z07:00",
        _ => return None,
    };
    Some(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))
}

/// RFC 3339 as Go reads it, with so many digits after the second where that matters. Nothing else may be stored: a client
/// of Go fails over a whole list for one time that it cannot read.
fn is_time(text: &str, digits: Option<usize>) -> bool {
    let Some((time, rest)) = text.split_at_checked(19) else { return false };
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    is_like(time, "0000-00-00T00:00:00")
        && !time.ends_with("60") // Go has no leap seconds
        && digits.is_none_or(|digits| fraction.len() == digits)
        && (zone == "Z" || is_like(zone, "+00:00") || is_like(zone, "-00:00"))
        && text.parse::<jiff::Timestamp>().is_ok()
}

/// The text is as long as the pattern and has a digit wherever that has a zero.
fn is_like(text: &str, pattern: &str) -> bool {
    let alike = |(have, want): (u8, u8)| if want == b'0' { have.is_ascii_digit() } else { have == want };
    text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(alike)
}

/// As Go reads it: line breaks do not count, and bits that are left over at the end may be anything.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    let plain: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    BASE64.decode(&plain).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            _ => plain.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })
}

/// As Kubernetes does, no more is complained of than anybody reads.
const MOST_COMPLAINTS: usize = 100;

/// Adds a complaint, if there are not too many. A path is as long as the client makes it: what is said of it is not.
pub(crate) fn complain(complaints: &mut Vec<String>, path: impl Fn() -> String) {
    if complaints.len() < MOST_COMPLAINTS {
        let mut path = path();
        path.truncate(path.floor_char_boundary(1024));
        complaints.push(path);
    }
}

/// Begins the part of a path that is a key of a map.
const KEY: char = '\0';

fn fits(number: &serde_json::Number, format: &str) -> bool {
    match number.as_i64() {
        Some(whole) => format != "int32" || i32::try_from(whole).is_ok(),
        None => false,
    }
}

fn type_error(found: &Value, shape: &Shape, path: &[String], owner: &str) -> String {
    let found = match found {
        Value::String(_) => "string".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(n) => format!("number {n}"),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
        Value::Null => "null".to_owned(),
    };
    // Go says the number only when a number does not fit; a number where text belongs is just "number".
    let found = if matches!(shape, Shape::Integer(_) | Shape::Number | Shape::IntOrString) {
        found
    } else {
        found.split(' ').next().unwrap_or_default().to_owned()
    };
    if matches!(shape, Shape::IntOrString) {
        // It decodes itself, and so does not know in which field it is.
        return format!("json: cannot unmarshal {found} into Go value of type int32");
    }
    // Go names the fields of its types: no places in lists, no keys of maps.
    let fields: Vec<&str> = path.iter().map(String::as_str).filter(|part| !part.starts_with(['[', KEY])).collect();
    format!(
        "json: cannot unmarshal {found} into Go struct field {owner}.{} of type {}",
        fields.join("."),
        go_type(shape)
    )
}

fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::Any => "interface {}".to_owned(),
        Shape::Object(object) if object.package.is_empty() => object.name.clone(),
        Shape::Object(object) => format!("{}.{}", object.package, object.name),
        Shape::Map(values) => format!("map[string]{}", go_type(&values.shape)),
        Shape::List(items, _) => format!("[]{}", go_type(&items.shape)),
        Shape::String(format) if matches!(format.as_str(), "date-time" | MICRO_TIME) => "time.Time".to_owned(),
        Shape::String(_) => "string".to_owned(),
        Shape::Integer(format) if format.is_empty() => "int64".to_owned(),
        Shape::Integer(format) => format.clone(),
        Shape::Number => "float64".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
    }
}

/// `["spec", "ports", "[0]", "name"]` as `spec.ports[0].name`.
pub fn joined(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if !text.is_empty() && !part.starts_with('[') {
            text.push('.');
        }
        text.push_str(part.strip_prefix(KEY).unwrap_or(part));
    }
    text
}
