//! The OpenAPI v2 document in protobuf, which kubectl before 1.29 cannot do without.
//!
//! Each constant below says where the fields of one message of gnostic's `openapi.v2` go.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

/// The Swagger 2.0 `document` as an `openapi.v2.Document`.
///
/// What a Swagger document may hold and ours do not (forms, OAuth, headers of answers) is left out.
pub fn encode_openapi_v2(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    fields(document, DOCUMENT, 16, &mut out);
    out
}

/// Writes the inside of a message.
type Encode = fn(&Value, &mut Vec<u8>);

/// How a value is written.
#[derive(Clone, Copy)]
enum How {
    Text,
    Flag,
    Whole,
    Real,
    /// As YAML in a text, which JSON is.
    Any,
    /// A message.
    One(Encode),
    /// A list of any of these.
    Each(&'static How),
}

/// The JSON name, the number, and how it is written.
type Known = (&'static str, u32, How);

use How::{Any, Each, Flag, One, Real, Text, Whole};

const DOCUMENT: &[Known] = &[
    ("swagger", 1, Text),
    ("info", 2, One(|value, out| fields(value, INFO, 7, out))),
    ("host", 3, Text),
    ("basePath", 4, Text),
    ("schemes", 5, Each(&Text)),
    ("consumes", 6, Each(&Text)),
    ("produces", 7, Each(&Text)),
    ("paths", 8, One(paths)),
    ("definitions", 9, One(|value, out| named(value, 1, One(schema), out))),
    ("security", 12, Each(&One(|value, out| named(value, 1, One(scopes), out)))),
    ("securityDefinitions", 13, One(|value, out| named(value, 1, One(security), out))),
];

const INFO: &[Known] =
    &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text), ("termsOfService", 4, Text)];

const PATH_ITEM: &[Known] = &[
    ("$ref", 1, Text),
    ("get", 2, One(operation)),
    ("put", 3, One(operation)),
    ("post", 4, One(operation)),
    ("delete", 5, One(operation)),
    ("options", 6, One(operation)),
    ("head", 7, One(operation)),
    ("patch", 8, One(operation)),
    ("parameters", 9, Each(&One(parameter))),
];

const OPERATION: &[Known] = &[
    ("tags", 1, Each(&Text)),
    ("summary", 2, Text),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("produces", 6, Each(&Text)),
    ("consumes", 7, Each(&Text)),
    ("parameters", 8, Each(&One(parameter))),
    ("responses", 9, One(responses)),
    ("schemes", 10, Each(&Text)),
    ("deprecated", 11, Flag),
    ("security", 12, Each(&One(|value, out| named(value, 1, One(scopes), out)))),
];

const BODY_PARAMETER: &[Known] =
    &[("description", 1, Text), ("name", 2, Text), ("in", 3, Text), ("required", 4, Flag), ("schema", 5, One(schema))];

/// Parameters in headers and paths.
const PARAMETER: &[Known] = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 5, Text),
    ("format", 6, Text),
    ("items", 7, One(|value, out| fields(value, ITEMS, 18, out))),
    ("default", 9, Any),
    ("uniqueItems", 19, Flag),
    ("enum", 20, Each(&Any)),
];

/// Parameters in queries and forms: as the others, with one field in between.
const QUERY_PARAMETER: &[Known] = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("allowEmptyValue", 5, Flag),
    ("type", 6, Text),
    ("format", 7, Text),
    ("items", 8, One(|value, out| fields(value, ITEMS, 18, out))),
    ("default", 10, Any),
    ("uniqueItems", 20, Flag),
    ("enum", 21, Each(&Any)),
];

/// What a parameter that is a list holds.
const ITEMS: &[Known] = &[("type", 1, Text), ("format", 2, Text), ("default", 5, Any), ("enum", 16, Each(&Any))];

const RESPONSE: &[Known] =
    &[("description", 1, Text), ("schema", 2, One(|value, out| write(value, 1, One(schema), out)))];

const SCHEMA: &[Known] = &[
    ("$ref", 1, Text),
    ("format", 2, Text),
    ("title", 3, Text),
    ("description", 4, Text),
    ("default", 5, Any),
    ("multipleOf", 6, Real),
    ("maximum", 7, Real),
    ("exclusiveMaximum", 8, Flag),
    ("minimum", 9, Real),
    ("exclusiveMinimum", 10, Flag),
    ("maxLength", 11, Whole),
    ("minLength", 12, Whole),
    ("pattern", 13, Text),
    ("maxItems", 14, Whole),
    ("minItems", 15, Whole),
    ("uniqueItems", 16, Flag),
    ("maxProperties", 17, Whole),
    ("minProperties", 18, Whole),
    ("required", 19, Each(&Text)),
    ("enum", 20, Each(&Any)),
    ("additionalProperties", 21, One(additional_properties)),
    ("type", 22, One(one_or_more_texts)),
    ("items", 23, One(|value, out| write(value, 1, One(schema), out))),
    ("allOf", 24, Each(&One(schema))),
    ("properties", 25, One(|value, out| named(value, 1, One(schema), out))),
    ("discriminator", 26, Text),
    ("readOnly", 27, Flag),
    ("externalDocs", 29, One(|value, out| fields(value, &[("description", 1, Text), ("url", 2, Text)], 3, out))),
    ("example", 30, Any),
];

const BASIC: &[Known] = &[("type", 1, Text), ("description", 2, Text)];
const API_KEY: &[Known] = &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)];

fn paths(value: &Value, out: &mut Vec<u8>) {
    named(&extensions_of(value, true), 1, Any, out);
    named(&extensions_of(value, false), 2, One(|item, out| fields(item, PATH_ITEM, 10, out)), out);
}

fn operation(value: &Value, out: &mut Vec<u8>) {
    fields(value, OPERATION, 13, out);
}

fn parameter(value: &Value, out: &mut Vec<u8>) {
    if value.get("$ref").is_some() {
        return write(value, 2, One(reference), out);
    }
    let real: Encode = match value["in"].as_str() {
        Some("body") => |value, out| write(value, 1, One(|value, out| fields(value, BODY_PARAMETER, 6, out)), out),
        Some(_) => |value, out| write(value, 2, One(non_body_parameter), out),
        None => return,
    };
    write(value, 1, One(real), out);
}

fn non_body_parameter(value: &Value, out: &mut Vec<u8>) {
    let (number, encode): (u32, Encode) = match value["in"].as_str() {
        Some("header") => (1, |value, out| fields(value, PARAMETER, 22, out)),
        Some("formData") => (2, |value, out| fields(value, QUERY_PARAMETER, 23, out)),
        Some("path") => (4, |value, out| fields(value, PARAMETER, 22, out)),
        _ => (3, |value, out| fields(value, QUERY_PARAMETER, 23, out)),
    };
    write(value, number, One(encode), out);
}

fn reference(value: &Value, out: &mut Vec<u8>) {
    fields(value, &[("$ref", 1, Text), ("description", 2, Text)], 0, out);
}

fn responses(value: &Value, out: &mut Vec<u8>) {
    named(&extensions_of(value, false), 1, One(response), out);
    named(&extensions_of(value, true), 2, Any, out);
}

fn response(value: &Value, out: &mut Vec<u8>) {
    if value.get("$ref").is_some() {
        write(value, 2, One(reference), out);
    } else {
        write(value, 1, One(|value, out| fields(value, RESPONSE, 5, out)), out);
    }
}

fn schema(value: &Value, out: &mut Vec<u8>) {
    fields(value, SCHEMA, 31, out);
}

fn additional_properties(value: &Value, out: &mut Vec<u8>) {
    if value.is_boolean() { write(value, 2, Flag, out) } else { write(value, 1, One(schema), out) }
}

fn one_or_more_texts(value: &Value, out: &mut Vec<u8>) {
    if value.is_array() { write(value, 1, Each(&Text), out) } else { write(value, 1, Text, out) }
}

fn scopes(value: &Value, out: &mut Vec<u8>) {
    write(value, 1, Each(&Text), out);
}

fn security(value: &Value, out: &mut Vec<u8>) {
    match value["type"].as_str() {
        Some("basic") => write(value, 1, One(|value, out| fields(value, BASIC, 3, out)), out),
        Some("apiKey") => write(value, 2, One(|value, out| fields(value, API_KEY, 5, out)), out),
        _ => {}
    }
}

/// The fields of `value` that are vendor extensions, or those that are not.
fn extensions_of(value: &Value, extensions: bool) -> Value {
    let fields = value.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| name.starts_with("x-") == extensions)
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect::<Map<_, _>>()
        .into()
}

/// The known fields of an object, and its vendor extensions under the number `extensions`.
fn fields(value: &Value, known: &[Known], extensions: u32, out: &mut Vec<u8>) {
    for (name, number, how) in known {
        if let Some(value) = value.get(*name) {
            write(value, *number, *how, out);
        }
    }
    if extensions > 0 {
        named(&extensions_of(value, true), extensions, Any, out);
    }
}

/// Each entry of an object as a message of a name and a value.
fn named(value: &Value, number: u32, how: How, out: &mut Vec<u8>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let mut entry = Vec::new();
        bytes(1, name.as_bytes(), &mut entry);
        write(value, 2, how, &mut entry);
        bytes(number, &entry, out);
    }
}

fn write(value: &Value, number: u32, how: How, out: &mut Vec<u8>) {
    match how {
        Text => {
            if let Some(text) = value.as_str() {
                bytes(number, text.as_bytes(), out);
            }
        }
        Flag => {
            if value == true {
                varint(number, 1, out);
            }
        }
        Whole => {
            if let Some(whole) = value.as_i64() {
                varint(number, whole.cast_unsigned(), out);
            }
        }
        Real => {
            if let Some(real) = value.as_f64() {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend_from_slice(&real.to_le_bytes());
            }
        }
        Any => {
            let mut any = Vec::new();
            bytes(2, value.to_string().as_bytes(), &mut any);
            bytes(number, &any, out);
        }
        One(encode) => {
            let mut message = Vec::new();
            encode(value, &mut message);
            bytes(number, &message, out);
        }
        Each(how) => value.as_array().into_iter().flatten().for_each(|item| write(item, number, *how, out)),
    }
}

fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}
