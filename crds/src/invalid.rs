//! What is wrong with an object, and at which field: the causes of a Kubernetes `422 Invalid`.

use std::fmt;

use serde_json::Value;

/// One thing wrong with an object, at one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalid {
    /// The path as users write it: `spec.replicas`, `metadata.labels`, `spec.ports[0].name`.
    pub field: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// The kinds of complaint that Kubernetes knows; each maps to a `reason` in `details.causes`.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// The field must be set. The text may be empty.
    Required(String),
    /// The value is not acceptable.
    Invalid(Value, String),
    /// The value is not acceptable: as it is to be shown, and why. For values that are no scalars.
    Printed(String, String),
    /// The value is not one of the supported ones.
    NotSupported(Value, Vec<String>),
    /// The field may not be set, or may not change.
    Forbidden(String),
    /// The value is there twice.
    Duplicate(Value),
    /// More than this many bytes.
    TooLong(usize),
    /// More than this many items.
    TooMany {
        /** how many there are */
        actual: usize,
        /** how many there may be */
        most: usize,
    },
    /// The value has the wrong type.
    WrongType(Value, String),
    /// The value refers to something that is not there.
    NotFound(Value),
}

impl Invalid {
    /// `field` must be set.
    pub fn required(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Required(why.into()) }
    }

    /// `field` holds `value`, which is wrong because of `why`.
    pub fn value(field: impl Into<String>, value: impl Into<Value>, why: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Invalid(value.into(), why.into()) }
    }

    /// `field` holds what is shown as `value`, which is wrong because of `why`.
    pub fn printed(field: impl Into<String>, value: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Printed(value.into(), why.into()) }
    }

    /// `field` holds `value`, which is none of `supported`.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let supported = supported.iter().map(|s| (*s).to_owned()).collect();
        Self { field: field.into(), problem: Problem::NotSupported(value.into(), supported) }
    }

    /// `field` may not be what it is, whatever the value.
    pub fn forbidden(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Forbidden(why.into()) }
    }

    /// The `reason` of the cause, as Kubernetes names it.
    pub fn reason(&self) -> &'static str {
        match self.problem {
            Problem::Required(_) => "FieldValueRequired",
            Problem::Invalid(..) | Problem::Printed(..) => "FieldValueInvalid",
            Problem::NotSupported(..) => "FieldValueNotSupported",
            Problem::Forbidden(_) => "FieldValueForbidden",
            Problem::Duplicate(_) => "FieldValueDuplicate",
            Problem::TooLong(_) => "FieldValueTooLong",
            Problem::TooMany { .. } => "FieldValueTooMany",
            Problem::WrongType(..) => "FieldValueTypeInvalid",
            Problem::NotFound(_) => "FieldValueNotFound",
        }
    }

    /// The `message` of the cause, without the field.
    pub fn message(&self) -> String {
        self.problem.to_string()
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required(why) => with_reason(f, "Required value", why),
            Self::Invalid(value, why) => with_reason(f, &format!("Invalid value: {}", shown(value)), why),
            Self::Printed(value, why) => with_reason(f, &format!("Invalid value: {value}"), why),
            Self::NotSupported(value, supported) => {
                let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
                write!(f, "Unsupported value: {}: supported values: {}", listed(value), supported.join(", "))
            }
            Self::Forbidden(why) => with_reason(f, "Forbidden", why),
            Self::Duplicate(value) => write!(f, "Duplicate value: {}", in_go(value, false)),
            Self::TooLong(most) => write!(f, "Too long: may not be more than {most} bytes"),
            Self::TooMany { actual, most } => write!(f, "Too many: {actual}: must have at most {most} items"),
            Self::WrongType(value, why) => with_reason(f, &format!("Invalid value: {}", shown(value)), why),
            Self::NotFound(value) => write!(f, "Not found: {}", shown(value)),
        }
    }
}

fn with_reason(f: &mut fmt::Formatter<'_>, head: &str, why: &str) -> fmt::Result {
    if why.is_empty() { f.write_str(head) } else { write!(f, "{head}: {why}") }
}

/// Several values at once as Go prints them.
fn listed(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            format!("[]string{{{}}}", items.join(", "))
        }
        one => shown(one),
    }
}

/// Scalars as JSON; anything larger by its type, because an error is no place for a whole object.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        scalar => scalar.to_string(),
    }
}

/// An item that is there twice is shown whole, in the syntax of Go, as Kubernetes does.
fn in_go(value: &Value, inside: bool) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k:?}:{}", in_go(v, true))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| in_go(item, true)).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Null if inside => "interface {}(nil)".to_owned(),
        Value::Null => "\"null\"".to_owned(),
        scalar => scalar.to_string(),
    }
}
