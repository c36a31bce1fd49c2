//! Objects as people see them in lists: `Table`, and `PartialObjectMetadata` for programs that need only the head.
//!
//! Cells come from the columns of the descriptor; nothing here names a kind.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    kinds::{Cell, Column, Kind},
    status::{Result, Status},
};

/// What a row carries of its object: `includeObject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata, as `PartialObjectMetadata`: the usual.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads `includeObject`; a 400 for words that are none of the three.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// The version of `meta.k8s.io` that a client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetaVersion {
    /// `meta.k8s.io/v1`.
    #[default]
    V1,
    /// `meta.k8s.io/v1beta1`.
    V1beta1,
}

impl MetaVersion {
    /// As `apiVersion` says it.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// Name and age: what is shown of a kind that says nothing else.
pub fn usual_columns() -> Vec<Column> {
    vec![name_column(), age_column()]
}

/// The first column of nearly every table.
pub fn name_column() -> Column {
    Column {
        format: "name".to_owned(),
        ..column("Name", "string", "The name, unique among its kind in its namespace.", path(".metadata.name"))
    }
}

/// How long ago the object was created.
pub fn age_column() -> Column {
    column("Age", "string", "The time since the object was created.", Cell::Function(age))
}

/// A column that is always shown.
pub fn column(name: &str, kind: &str, description: &str, cell: Cell) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: String::new(),
        description: description.to_owned(),
        priority: 0,
        cell,
    }
}

/// A column that is shown with `-o wide`.
pub fn wide_column(name: &str, kind: &str, description: &str, cell: Cell) -> Column {
    Column { priority: 1, ..column(name, kind, description, cell) }
}

/// A cell that is read from the object.
pub fn path(path: &str) -> Cell {
    Cell::Path(Path::new(path))
}

fn age(object: &Value, now: i64) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

/// The age of a timestamp, as kubectl shows it; `<unknown>` when there is none.
pub fn since(timestamp: &Value, now: i64) -> String {
    match seconds(timestamp) {
        Some(then) => human_duration(now - then),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds since 1970 of an RFC 3339 timestamp, or nothing.
pub fn seconds(timestamp: &Value) -> Option<i64> {
    let timestamp: jiff::Timestamp = timestamp.as_str()?.parse().ok()?;
    Some(timestamp.as_second())
}

/// A duration in at most two units, as kubectl shows ages: `5m`, `3h12m`, `2d`.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match seconds {
        // Clocks of different machines may disagree by a second.
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// `columnDefinitions` of a kind.
pub fn definitions(kind: &Kind) -> Value {
    let definition = |column: &Column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    };
    kind.columns.iter().map(definition).collect()
}

/// One row: the cells, and what `include` says of the object.
pub fn row(kind: &Kind, object: &Value, include: Include, version: MetaVersion, now: i64) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), cells(kind, object, now));
    match include {
        Include::None => {}
        Include::Metadata => {
            row.insert("object".to_owned(), partial(object, version));
        }
        Include::Object => {
            row.insert("object".to_owned(), object.clone());
        }
    }
    Value::Object(row)
}

/// What is shown of an object in the columns of its kind.
pub fn cells(kind: &Kind, object: &Value, now: i64) -> Value {
    kind.columns.iter().map(|column| cell(column, object, now)).collect()
}

fn cell(column: &Column, object: &Value, now: i64) -> Value {
    let found = match &column.cell {
        Cell::Function(function) => return function(object, now),
        Cell::Path(path) => path.first(object),
    };
    match (found, column.kind.as_str()) {
        (None, _) => Value::Null,
        (Some(value), "date") => match value {
            Value::String(_) if seconds(value).is_none() => "<invalid>".into(),
            _ => since(value, now).into(),
        },
        (Some(value), "string") => match value {
            Value::String(_) => value.clone(),
            Value::Null => Value::Null,
            other => other.to_string().into(),
        },
        (Some(value), "integer") => value.as_i64().or(value.as_f64().map(|n| n as i64)).into(),
        (Some(value), "number") => value.as_f64().into(),
        (Some(value), "boolean") => value.as_bool().into(),
        (Some(_), _) => Value::Null,
    }
}

/// A `Table`. `metadata` is a list's: resourceVersion, continue, remainingItemCount; for one object and for watch events
/// only the resourceVersion. Without `headers` there are no column definitions: the later events of a watch.
pub fn table(kind: &Kind, rows: Vec<Value>, metadata: Value, version: MetaVersion, headers: bool) -> Value {
    let definitions = if headers { definitions(kind) } else { Value::Null };
    json!({
        "kind": "Table", "apiVersion": version.api_version(), "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// The table of one object, as GET and as each watch event have it.
pub fn table_of(kind: &Kind, object: &Value, include: Include, version: MetaVersion, headers: bool, now: i64) -> Value {
    let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"].as_str().unwrap_or_default() });
    table(kind, vec![row(kind, object, include, version, now)], metadata, version, headers)
}

/// Only the metadata of an object.
pub fn partial(object: &Value, version: MetaVersion) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": object["metadata"]})
}

/// Only the metadata of the objects of a list. `items` come from [`partial`].
pub fn partial_list(items: Vec<Value>, metadata: Value, version: MetaVersion) -> Value {
    json!({"kind": "PartialObjectMetadataList", "apiVersion": version.api_version(), "metadata": metadata, "items": items})
}

/// A simple JSONPath: `.spec.a`, `['a/b']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`.
#[derive(Clone, Debug)]
pub struct Path(Option<Arc<[Step]>>);

impl Path {
    /// Reads a path. One that is not understood leads to nothing.
    pub fn new(path: &str) -> Self {
        Self(steps(path).map(Arc::from))
    }

    /// The first value that the path leads to.
    pub fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        first(self.0.as_ref()?, object)
    }
}

fn first<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    match steps {
        [] => Some(value),
        [Step::Field(name), rest @ ..] => first(rest, value.get(name)?),
        [step, rest @ ..] => step.from(value).into_iter().find_map(|value| first(rest, value)),
    }
}

#[derive(Debug)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Filter(Vec<Step>, Comparison, Value),
}

#[derive(Debug)]
enum Comparison {
    Equal,
    Different,
}

impl Step {
    fn from<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let length = value.as_array().map_or(0, Vec::len);
                let index = if *index < 0 { *index + length as i64 } else { *index };
                usize::try_from(index).ok().and_then(|index| value.get(index)).into_iter().collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Filter(path, comparison, wanted) => {
                let holds = |item: &&Value| {
                    first(path, item).is_some_and(|found| (found == wanted) == matches!(comparison, Comparison::Equal))
                };
                value.as_array().into_iter().flatten().filter(holds).collect()
            }
        }
    }
}

fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}');
    rest = rest.strip_prefix('$').unwrap_or(rest);
    while !rest.is_empty() {
        let step;
        (step, rest) = if let Some(after) = rest.strip_prefix('.') { field(after)? } else { bracket(rest)? };
        steps.push(step);
    }
    Some(steps)
}

/// `spec`, up to the next dot or bracket. A backslash keeps a dot in the name.
fn field(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(c),
        }
    }
    match name.as_str() {
        "" => None,
        "*" => Some((Step::All, &text[end..])),
        _ => Some((Step::Field(name), &text[end..])),
    }
}

fn bracket(text: &str) -> Option<(Step, &str)> {
    let inside = text.strip_prefix('[')?;
    if let Some(filter) = inside.strip_prefix("?(") {
        let (condition, rest) = filter.split_once(")]")?;
        return Some((condition_of(condition)?, rest));
    }
    for quote in ['\'', '"'] {
        if let Some(quoted) = inside.strip_prefix(quote) {
            let (name, rest) = quoted.split_once(quote)?;
            return Some((Step::Field(name.to_owned()), rest.strip_prefix(']')?));
        }
    }
    let (inside, rest) = inside.split_once(']')?;
    let step = if inside == "*" { Step::All } else { Step::Index(inside.parse().ok()?) };
    Some((step, rest))
}

/// `@.type=="Ready"`.
fn condition_of(text: &str) -> Option<Step> {
    let (path, comparison, wanted) = match text.split_once("==") {
        Some((path, wanted)) => (path, Comparison::Equal, wanted),
        None => {
            let (path, wanted) = text.split_once("!=")?;
            (path, Comparison::Different, wanted)
        }
    };
    let wanted = wanted.trim();
    let quoted = |quote: char| wanted.strip_prefix(quote).and_then(|w| w.strip_suffix(quote));
    let wanted = match quoted('"').or(quoted('\'')) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(wanted).ok()?,
    };
    // A filter inside a filter would let a text recurse as deep as it is long.
    let path = path.trim().strip_prefix('@').filter(|path| !path.contains("?("))?;
    Some(Step::Filter(steps(path)?, comparison, wanted))
}

/// Column definitions and rows, as text, for tests of tables.
#[cfg(test)]
pub fn printed(kind: &Kind, objects: &[Value], now: i64) -> String {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut lines = vec![
        kind.columns.iter().map(|c| if c.priority > 0 { format!("({})", c.name) } else { c.name.clone() }).collect(),
    ];
    lines.extend(
        objects.iter().map(|object| kind.columns.iter().map(|c| shown(&cell(c, object, now))).collect::<Vec<_>>()),
    );
    lines.into_iter().map(|line| line.join(" | ")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::kinds::Published;

    fn kind(columns: Vec<Column>) -> Kind {
        let mut kind =
            Kind::new("example.com", "v1", "Thing", "things", Published::new(|| (String::new(), BTreeMap::new())));
        kind.columns = columns;
        kind
    }

    #[test]
    fn durations_read_as_in_kubectl() {
        let (minute, hour, day) = (60, 3600, 86400);
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * minute, "2m"),
            (3 * minute + 5, "3m5s"),
            (10 * minute + 59, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (3 * hour + 12 * minute, "3h12m"),
            (8 * hour + 59 * minute, "8h"),
            (47 * hour, "47h"),
            (2 * day, "2d"),
            (2 * day + 3 * hour, "2d3h"),
            (8 * day + 3 * hour, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (3000 * day, "8y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn paths_lead_where_a_crd_author_expects() {
        let object = json!({"spec": {"a": {"b/c": 1, "d.e": 2}, "list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]}});
        let cases = [
            (".spec.a['b/c']", json!(1)),
            (".spec.a.d\\.e", json!(2)),
            ("{.spec.list[1].n}", json!(2)),
            (".spec.list[-1].n", json!(2)),
            (".spec.list[*].n", json!(1)),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type != 'A')].type", json!("Ready")),
        ];
        for (path, expected) in cases {
            assert_eq!(Path::new(path).first(&object), Some(&expected), "{path}");
        }
        for path in [".spec.missing", "spec", "..a", ".a[", ".spec.list[7].n", ".x[?(@.a)]"] {
            assert_eq!(Path::new(path).first(&object), None, "{path}");
        }
    }

    #[test]
    fn cells_take_the_type_of_their_column() {
        let kind = kind(vec![
            name_column(),
            column("Number", "integer", "", path(".spec.n")),
            column("Text", "string", "", path(".spec.n")),
            column("Flag", "boolean", "", path(".spec.f")),
            column("When", "date", "", path(".spec.when")),
            column("Never", "date", "", path(".spec.text")),
            column("Missing", "string", "", path(".spec.missing")),
            age_column(),
        ]);
        let object = json!({"metadata": {"name": "a"}, "spec": {"n": 3, "f": true, "when": "1970-01-01T00:00:00Z", "text": "soon"}});
        assert_eq!(
            row(&kind, &object, Include::None, MetaVersion::V1, 60),
            json!({"cells": ["a", 3, "3", true, "60s", "<invalid>", null, "<unknown>"]})
        );
    }

    #[test]
    fn a_row_carries_what_was_asked_for() {
        let kind = kind(usual_columns());
        let object = json!({"kind": "Thing", "metadata": {"name": "a", "resourceVersion": "7"}, "spec": {}});
        let row = |include| row(&kind, &object, include, MetaVersion::V1, 0)["object"].clone();
        assert_eq!(row(Include::parse(Some("None")).unwrap()), Value::Null);
        assert_eq!(row(Include::parse(Some("Object")).unwrap()), object);
        let partial =
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
        assert_eq!(row(Include::parse(None).unwrap()), partial);
        assert_eq!(Include::parse(Some("All")).unwrap_err().code, 400);
    }

    #[test]
    fn a_table_looks_as_kubectl_expects() {
        let kind = kind(usual_columns());
        let object =
            json!({"metadata": {"name": "a", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        let now = seconds(&json!("2026-01-01T00:05:00Z")).unwrap();
        insta::assert_json_snapshot!(table_of(&kind, &object, Include::Metadata, MetaVersion::V1, true, now));
        let later = table_of(&kind, &object, Include::None, MetaVersion::V1beta1, false, now);
        assert_eq!(later["columnDefinitions"], Value::Null);
        assert_eq!(later["apiVersion"], "meta.k8s.io/v1beta1");
    }

    proptest! {
        #[test]
        fn no_path_makes_the_reader_panic(path in "[.a-c\\[\\]'\"?@()=!*0-9\\\\{}$-]{0,30}|.{0,30}", seconds in any::<i64>()) {
            Path::new(&path).first(&json!({"a": [{"b": 1}], "b": {"c": []}}));
            human_duration(seconds);
        }
    }
}
