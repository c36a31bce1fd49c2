//! `wire/messages.txt`, parsed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::OnceLock,
};

/// Which messages there are, and which kinds they are.
pub(super) struct Table {
    messages: Vec<Message>,
    names: HashMap<String, usize>,
    kinds: HashMap<(&'static str, &'static str), usize>,
    versions: HashSet<&'static str>,
    /// Where the messages are that all objects are made of.
    pub object_meta: usize,
    pub list_meta: usize,
    /// Where the message is that its unions refer to.
    pub schema: usize,
}

/// A message: its fields by number, and by the name that they have in JSON.
#[derive(Default)]
pub(super) struct Message {
    fields: BTreeMap<u32, Field>,
    /// In the order of their names.
    places: Box<[Place]>,
}

/// Where a field of the JSON stands.
pub(super) struct Place {
    name: &'static str,
    /// The messages in the parent that it stands within, from the outside: those of fields without a name.
    pub within: Box<[u32]>,
    pub number: u32,
    pub field: Field,
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// The name in JSON; `None` if the message's own fields stand in its parent.
    pub name: Option<&'static str>,
    pub many: Many,
    pub kind: Kind,
    /// A scalar whose zero means something.
    pub keeps_zero: bool,
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Many {
    One,
    List,
    Map,
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    String,
    Int,
    Bool,
    Double,
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    Raw,
    Strings,
    OrArray,
    OrBool,
    OrStrings,
    Message(usize),
}

impl Kind {
    fn scalar(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::String,
            "int" => Self::Int,
            "bool" => Self::Bool,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "time" => Self::Time,
            "microtime" => Self::MicroTime,
            "duration" => Self::Duration,
            "quantity" => Self::Quantity,
            "intorstring" => Self::IntOrString,
            "raw" => Self::Raw,
            "strings" => Self::Strings,
            "or-array" => Self::OrArray,
            "or-bool" => Self::OrBool,
            "or-strings" => Self::OrStrings,
            _ => return None,
        })
    }
}

/// One line of the table that says something.
enum Line {
    Package { package: &'static str, version: &'static str },
    Message { name: &'static str, is_kind: bool },
    Field { number: u32, name: &'static str, kind: &'static str },
}

impl Line {
    fn parse(line: &'static str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let first = words.next().filter(|word| !word.starts_with('#'))?;
        Some(match (first, words.next(), words.next()) {
            ("@", Some(package), Some(version)) => Self::Package { package, version },
            (number, Some(name), Some(kind)) => Self::Field { number: number.parse().ok()?, name, kind },
            (name, mark, _) => Self::Message { name, is_kind: mark == Some("!") },
        })
    }
}

/// The table. Parsed at first need; a test holds that it can be.
pub(super) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::parse(include_str!("../../wire/messages.txt")))
}

impl Table {
    fn parse(text: &'static str) -> Self {
        let (messages, kinds, versions, names) = (Vec::new(), HashMap::new(), HashSet::new(), names(text));
        let [object_meta, list_meta, schema] =
            ["meta.ObjectMeta", "meta.ListMeta", "apiextensions.JSONSchemaProps"].map(|name| names[name]);
        let mut table = Self { messages, names, kinds, versions, object_meta, list_meta, schema };
        let (mut package, mut version) = ("", "");
        for line in text.lines().filter_map(Line::parse) {
            match line {
                Line::Package { package: name, version: of } => {
                    (package, version) = (name, of);
                    table.versions.insert(of);
                }
                Line::Message { name, is_kind } => {
                    if is_kind {
                        table.kinds.insert((version, name), table.messages.len());
                    }
                    table.messages.push(Message::default());
                }
                Line::Field { number, name, kind } => {
                    let message = table.messages.last_mut().expect("a field stands below its message");
                    message.fields.insert(number, Field::parse(name, kind, package, &table.names));
                }
            }
        }
        for index in 0..table.messages.len() {
            let mut places = Vec::new();
            table.places(&table.messages[index], &[], &mut places);
            places.sort_unstable_by_key(|place| place.name);
            table.messages[index].places = places.into();
        }
        table
    }

    fn places(&self, message: &Message, within: &[u32], places: &mut Vec<Place>) {
        for (&number, &field) in &message.fields {
            match (field.name, field.kind) {
                (Some(name), _) => places.push(Place { name, within: within.into(), number, field }),
                (None, Kind::Message(index)) => {
                    self.places(&self.messages[index], &[within, &[number]].concat(), places);
                }
                (None, _) => {}
            }
        }
    }

    /// Where the message of a kind is. What belongs to no group in particular may come in the name of any.
    pub fn index(&self, api_version: &str, kind: &str) -> Option<usize> {
        let api_version = match kind {
            "DeleteOptions" | "Status" | "PartialObjectMetadata" => "meta.k8s.io/v1",
            _ => api_version,
        };
        self.kinds.get(&(api_version, kind)).copied()
    }

    /// The message of a kind.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        self.index(api_version, kind).map(|index| self.message(index))
    }

    /// Some kind of this version is known.
    pub fn has_version(&self, api_version: &str) -> bool {
        self.versions.contains(api_version)
    }

    /// The message that [`Kind::Message`] means.
    pub fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }
}

/// Where each message stands, by `package.Message`.
fn names(text: &'static str) -> HashMap<String, usize> {
    let mut names = HashMap::new();
    let mut current = "";
    for line in text.lines().filter_map(Line::parse) {
        match line {
            Line::Package { package, .. } => current = package,
            Line::Message { name, .. } => {
                names.insert(format!("{current}.{name}"), names.len());
            }
            Line::Field { .. } => {}
        }
    }
    names
}

impl Message {
    /// The field of this number.
    pub fn field(&self, number: u32) -> Option<&Field> {
        self.fields.get(&number)
    }

    /// The field of this name in JSON, wherever it stands.
    pub fn place(&self, name: &str) -> Option<&Place> {
        self.places.binary_search_by(|place| place.name.cmp(name)).ok().map(|found| &self.places[found])
    }
}

#[cfg(test)]
impl Table {
    /// All kinds, each with its version.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.kinds.keys().copied()
    }
}

#[cfg(test)]
impl Message {
    /// All fields by their names in JSON.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, Field)> {
        self.places.iter().map(|place| (place.name, place.field))
    }
}

impl Field {
    fn parse(name: &'static str, kind: &str, package: &str, names: &HashMap<String, usize>) -> Self {
        let (kind, keeps_zero) = kind.strip_suffix('*').map_or((kind, false), |kind| (kind, true));
        let (kind, many) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
            (Some(kind), _) => (kind, Many::List),
            (_, Some(kind)) => (kind, Many::Map),
            _ => (kind, Many::One),
        };
        let message = || {
            let full = if kind.contains('.') { kind.to_owned() } else { format!("{package}.{kind}") };
            Kind::Message(*names.get(&full).expect("the table has every message that it names"))
        };
        let kind = Kind::scalar(kind).unwrap_or_else(message);
        Self { name: Some(name).filter(|name| *name != "-"), many, kind, keeps_zero }
    }
}
