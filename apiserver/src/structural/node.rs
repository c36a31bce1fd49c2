//! The compiled schema of a custom resource: one node for every value that the schema speaks of.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::{
    formats::Format,
    pattern,
    rules::{Compiled, Rule},
};

/// What the schema says of one value.
#[derive(Debug, Default)]
pub struct Node {
    /// `type`, if it says one.
    pub kind: Option<Kind>,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `null` is a value of its own here.
    pub nullable: bool,
    /// Fields that the schema does not know are kept.
    pub preserve: bool,
    /// A whole object with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// What stands there when nothing was written.
    pub default: Option<Value>,
    /// Whether there is a default here or below.
    pub defaults: bool,
    /// The fields that have a name.
    pub properties: BTreeMap<String, Node>,
    /// What fields without a name look like.
    pub additional: Option<Additional>,
    /// What a list's items look like.
    pub items: Option<Box<Node>>,
    /// What makes two items of a list the same.
    pub list: List,
    /// What a value must satisfy beyond its type.
    pub limits: Limits,
    /// `allOf`, `anyOf`, `oneOf` and `not`; most schemas have none.
    pub junctions: Option<Box<Junctions>>,
    /// `x-kubernetes-validations`.
    pub rules: Vec<Rule>,
    /// The same, ready to be asked.
    pub compiled: Option<Compiled>,
    /// Whether there are rules here or below.
    pub ruled: bool,
    /// Whether there is a set, a map of items or an embedded object here or below.
    pub listed: bool,
}

/// The types of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

/// `additionalProperties`
#[derive(Debug)]
pub enum Additional {
    /// `true`, or `false`, which says that there are none.
    Any(bool),
    /// A schema.
    Of(Box<Node>),
}

/// `x-kubernetes-list-type`
#[derive(Clone, Debug, Default, PartialEq)]
pub enum List {
    /// As a whole.
    #[default]
    Atomic,
    /// Every item is there once.
    Set,
    /// Items are known by the values of these fields.
    Map(Vec<String>),
}

/// The keywords that restrict a value.
#[derive(Debug, Default)]
pub struct Limits {
    pub format: Option<Format>,
    pub enumeration: Vec<Value>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<String>,
}

/// A regular expression, and how it was written.
#[derive(Debug)]
pub struct Pattern {
    pub source: String,
    pub regex: Regex,
}

/// Alternatives and conditions.
#[derive(Debug, Default)]
pub struct Junctions {
    pub all: Vec<Node>,
    pub any: Vec<Node>,
    pub one: Vec<Node>,
    pub not: Option<Node>,
}

impl Kind {
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

impl Node {
    /// Reads a schema in which [`super::definition::check`] found nothing wrong. What it does not understand it leaves out.
    pub fn read(schema: &Value) -> Node {
        let mut node = Node {
            kind: schema["type"].as_str().and_then(Kind::of),
            int_or_string: schema["x-kubernetes-int-or-string"] == true,
            nullable: schema["nullable"] == true,
            preserve: schema["x-kubernetes-preserve-unknown-fields"] == true,
            embedded: schema["x-kubernetes-embedded-resource"] == true,
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            list: list(schema),
            limits: limits(schema),
            junctions: junctions(schema),
            ..Node::default()
        };
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            node.properties.insert(name.clone(), Node::read(property));
        }
        node.additional = match &schema["additionalProperties"] {
            Value::Bool(allowed) => Some(Additional::Any(*allowed)),
            values @ Value::Object(_) => Some(Additional::Of(Box::new(Node::read(values)))),
            _ => None,
        };
        node.rules = Rule::all(schema);
        node.compiled = Compiled::of(schema);
        if schema["items"].is_object() {
            node.items = Some(Box::new(Node::read(&schema["items"])));
        }
        node.sum_up();
        node
    }

    /// Notes what the nodes below have, so that walks can leave out what has nothing for them.
    pub fn sum_up(&mut self) {
        self.defaults = self.default.is_some() || self.children().any(|child| child.defaults);
        self.ruled = !self.rules.is_empty() || self.children().any(|child| child.ruled);
        self.listed = self.list != List::Atomic || self.embedded || self.children().any(|child| child.listed);
    }

    fn children(&self) -> impl Iterator<Item = &Node> {
        let additional = match &self.additional {
            Some(Additional::Of(values)) => Some(&**values),
            _ => None,
        };
        self.properties.values().chain(additional).chain(self.items.as_deref())
    }

    /// Whether a rule here or below needs a stack of its own.
    pub fn deep_rules(&self) -> bool {
        self.ruled && (self.rules.iter().any(Rule::deep) || self.children().any(Node::deep_rules))
    }

    /// What fields without a name of their own look like, if there is a schema for them.
    pub fn values(&self) -> Option<&Node> {
        match &self.additional {
            Some(Additional::Of(values)) => Some(values),
            _ => None,
        }
    }

    /// The schema of the field `name`.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or_else(|| self.values())
    }
}

fn list(schema: &Value) -> List {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => List::Set,
        Some("map") => List::Map(texts(&schema["x-kubernetes-list-map-keys"])),
        _ => List::Atomic,
    }
}

/// The texts in a list of texts.
pub fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn limits(schema: &Value) -> Limits {
    let whole = |name: &str| schema[name].as_i64().or_else(|| schema[name].as_f64().map(|float| float as i64));
    Limits {
        format: schema["format"].as_str().and_then(Format::named),
        enumeration: schema["enum"].as_array().cloned().unwrap_or_default(),
        maximum: schema["maximum"].as_f64(),
        exclusive_maximum: schema["exclusiveMaximum"] == true,
        minimum: schema["minimum"].as_f64(),
        exclusive_minimum: schema["exclusiveMinimum"] == true,
        multiple_of: schema["multipleOf"].as_f64(),
        max_length: whole("maxLength"),
        min_length: whole("minLength"),
        pattern: schema["pattern"]
            .as_str()
            .filter(|source| !source.is_empty())
            .and_then(|source| Some(Pattern { source: source.to_owned(), regex: pattern::compile(source).ok()? })),
        max_items: whole("maxItems"),
        min_items: whole("minItems"),
        max_properties: whole("maxProperties"),
        min_properties: whole("minProperties"),
        required: texts(&schema["required"]),
    }
}

fn junctions(schema: &Value) -> Option<Box<Junctions>> {
    let nodes = |name: &str| schema[name].as_array().into_iter().flatten().map(Node::read).collect::<Vec<_>>();
    let not = schema["not"].is_object().then(|| Node::read(&schema["not"]));
    let junctions = Junctions { all: nodes("allOf"), any: nodes("anyOf"), one: nodes("oneOf"), not };
    let none =
        junctions.all.is_empty() && junctions.any.is_empty() && junctions.one.is_empty() && junctions.not.is_none();
    (!none).then(|| Box::new(junctions))
}
