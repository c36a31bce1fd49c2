//! Who owns which field: `metadata.managedFields`, as sets of paths.
//!
//! A [`FieldSet`] is the parsed form of `fieldsV1`. [`track_update`] keeps the record on every write that is not an
//! apply; [`super::apply`](mod@super::apply) does so itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Map, Value, json};

use crate::schema::{ListType, Schema, Shape};

/// More `Update` entries than this are folded into `ancient-changes`.
const MOST_UPDATE_ENTRIES: usize = 10;

/// One step of a path into an object, in the order in which `fieldsV1` sorts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A field of an object, or a key of a map: `f:replicas`.
    Field(String),
    /// The item of a list that has these keys, as JSON: `k:{"name":"a"}`.
    Item(String),
    /// The member of a set, as JSON: `v:"a"`.
    Member(String),
    /// The item at this place of a list: `i:0`.
    Index(u64),
}

impl Step {
    fn parse(text: &str) -> Option<Self> {
        match text.split_at_checked(2)? {
            ("f:", name) => Some(Self::Field(name.to_owned())),
            ("k:", keys) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(keys).ok()?;
                Some(Self::Item(serde_json::to_string(&keys).ok()?))
            }
            ("v:", member) => Some(Self::Member(serde_json::from_str::<Value>(member).ok()?.to_string())),
            ("i:", index) => Some(Self::Index(index.parse().ok()?)),
            _ => None,
        }
    }

    fn print(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Item(keys) => format!("k:{keys}"),
            Self::Member(member) => format!("v:{member}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// As conflicts say it: `.replicas`, `[name="a"]`, `[="a"]`, `[0]`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Item(keys) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Member(member) => write!(f, "[={member}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A set of fields, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeMap<Step, Node>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    owned: bool,
    below: FieldSet,
}

impl FieldSet {
    /// Reads `fieldsV1`. `None` if it is not one.
    pub fn parse(fields: &Value) -> Option<Self> {
        let mut set = BTreeMap::new();
        for (name, below) in fields.as_object()?.iter().filter(|(name, _)| *name != ".") {
            let owned = below.as_object()?.is_empty() || below.get(".").is_some();
            set.insert(Step::parse(name)?, Node { owned, below: Self::parse(below)? });
        }
        Some(Self(set))
    }

    /// Writes `fieldsV1`.
    pub fn print(&self) -> Value {
        let mut fields = Map::new();
        for (step, node) in &self.0 {
            let mut below = node.below.print();
            if node.owned && !node.below.is_empty() {
                below["."] = json!({});
            }
            fields.insert(step.print(), below);
        }
        Value::Object(fields)
    }

    /// There is no field in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The field at `path` is in it, itself and not only something below.
    pub fn contains(&self, path: &[Step]) -> bool {
        match path {
            [] => false,
            [last] => self.0.get(last).is_some_and(|node| node.owned),
            [first, rest @ ..] => self.0.get(first).is_some_and(|node| node.below.contains(rest)),
        }
    }

    /// Adds the field at `path`.
    pub fn insert(&mut self, path: &[Step]) {
        if let [first, rest @ ..] = path {
            let node = self.0.entry(first.clone()).or_default();
            if rest.is_empty() { node.owned = true } else { node.below.insert(rest) }
        }
    }

    /// Adds all fields of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (step, node) in &other.0 {
            let mine = self.0.entry(step.clone()).or_default();
            mine.owned |= node.owned;
            mine.below.extend(&node.below);
        }
    }

    /// Takes away the fields of `other`, but nothing that only lies below one.
    pub fn subtract(&mut self, other: &Self) {
        self.0.retain(|step, node| {
            if let Some(theirs) = other.0.get(step) {
                node.owned &= !theirs.owned;
                node.below.subtract(&theirs.below);
            }
            node.owned || !node.below.is_empty()
        });
    }

    /// The fields that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut common = BTreeMap::new();
        for (step, node) in &self.0 {
            let Some(theirs) = other.0.get(step) else {
                continue;
            };
            let both = Node { owned: node.owned && theirs.owned, below: node.below.intersection(&theirs.below) };
            if both.owned || !both.below.is_empty() {
                common.insert(step.clone(), both);
            }
        }
        Self(common)
    }

    /// Takes away the field at `path` and everything below it.
    pub fn cut(&mut self, path: &[&str]) {
        let [first, rest @ ..] = path else { return };
        let step = Step::Field((*first).to_owned());
        let Some(node) = self.0.get_mut(&step) else {
            return;
        };
        if rest.is_empty() {
            node.owned = false;
            node.below = Self::default();
        } else {
            node.below.cut(rest);
        }
        if !node.owned && node.below.is_empty() {
            self.0.remove(&step);
        }
    }

    /// Every field in it, in order.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.walk(&mut Vec::new(), &mut paths);
        paths
    }

    fn walk(&self, path: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
        for (step, node) in &self.0 {
            path.push(step.clone());
            if node.owned {
                paths.push(path.clone());
            }
            node.below.walk(path, paths);
            path.pop();
        }
    }

    pub(super) fn below(&self, step: &Step) -> Option<&Self> {
        self.0.get(step).map(|node| &node.below)
    }

    /// The step is in the set, or leads to something that is and is a field that the schema names. (A named field is
    /// never listed for itself, so it lives as long as something below it does.)
    pub(super) fn holds(&self, step: &Step, named: bool) -> bool {
        self.0.get(step).is_some_and(|node| node.owned || (named && !node.below.is_empty()))
    }

    /// The fields of an applied `value`.
    pub fn of(value: &Value, schema: &Schema) -> Self {
        let mut set = Self::default();
        set.collect(value, Some(schema));
        set
    }

    /// True if nothing of `value` is worth a step of its own.
    fn collect(&mut self, value: &Value, schema: Option<&Schema>) -> bool {
        let Some(parts) = parts(value, schema) else {
            return true;
        };
        for part in &parts {
            let mut node = Node::default();
            let whole = node.below.collect(part.value, part.schema);
            node.owned = whole || !part.named;
            self.0.insert(part.step.clone(), node);
        }
        parts.is_empty()
    }
}

/// A part of a value that can be owned by itself.
pub(super) struct Part<'v, 's> {
    pub step: Step,
    pub value: &'v Value,
    pub schema: Option<&'s Schema>,
    /// It is a field that the schema names, not a key of a map or an item.
    pub named: bool,
}

/// The parts of `value`; `None` if it can only be owned as a whole. Nulls are no parts: they mean "not written".
pub(super) fn parts<'v, 's>(value: &'v Value, schema: Option<&'s Schema>) -> Option<Vec<Part<'v, 's>>> {
    match value {
        Value::Object(fields) => {
            if schema.is_some_and(|s| s.atomic) {
                return None;
            }
            let written = fields.iter().filter(|(_, value)| !value.is_null());
            Some(written.map(|(name, value)| field(name, value, schema)).collect())
        }
        Value::Array(items) => {
            let schema = schema?;
            let mut seen = BTreeSet::new();
            let mut parts = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let step = item_step(item, index, schema)?;
                if seen.insert(step.clone()) {
                    parts.push(Part { step, value: item, schema: schema.items().map(AsRef::as_ref), named: false });
                }
            }
            (*schema.list_type() != ListType::Atomic).then_some(parts)
        }
        _ => None,
    }
}

fn field<'v, 's>(name: &str, value: &'v Value, schema: Option<&'s Schema>) -> Part<'v, 's> {
    let named = matches!(schema.map(|s| &s.shape), Some(Shape::Object(o)) if o.properties.contains_key(name));
    let schema = schema.and_then(|s| s.field(name)).map(AsRef::as_ref);
    Part { step: Step::Field(name.to_owned()), value, schema, named }
}

/// How an item of a list is known; `None` in atomic lists.
pub(super) fn item_step(item: &Value, index: usize, list: &Schema) -> Option<Step> {
    match list.list_type() {
        ListType::Atomic => None,
        ListType::Set => Some(Step::Member(item.to_string())),
        ListType::Map(keys) => Some(item_keys(item, keys, list).unwrap_or(Step::Index(index as u64))),
    }
}

/// The keys of an item, with the defaults that the schema knows. `None` if it has none of them.
pub(super) fn item_keys(item: &Value, keys: &[String], list: &Schema) -> Option<Step> {
    let fields = item.as_object()?;
    let mut found = BTreeMap::new();
    for key in keys {
        let default = || list.items().and_then(|s| s.field(key)).and_then(|s| s.default.as_ref());
        if let Some(value) = fields.get(key).filter(|v| !v.is_null()).or_else(default) {
            found.insert(key, value);
        }
    }
    if found.is_empty() {
        return None;
    }
    serde_json::to_string(&found).ok().map(Step::Item)
}

/// What is different between two values.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub changed: FieldSet,
    /// Fields that are gone.
    pub removed: FieldSet,
}

impl Difference {
    pub fn between(old: &Value, new: &Value, schema: &Schema) -> Self {
        let mut difference = Self::default();
        difference.compare(Some(old), Some(new), Some(schema), &mut Vec::new());
        difference
    }

    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    fn compare(&mut self, old: Option<&Value>, new: Option<&Value>, schema: Option<&Schema>, path: &mut Vec<Step>) {
        if old == new {
            return;
        }
        let (before, after) = (old.map(|v| parts(v, schema)), new.map(|v| parts(v, schema)));
        match (old, new) {
            (None, _) => self.changed.insert(path),
            (_, None) => self.removed.insert(path),
            _ => {}
        }
        match (before, after) {
            // One of them is a leaf: there is nothing below that both could share.
            (Some(None), Some(None)) => self.changed.insert(path),
            (Some(None), Some(Some(parts))) => {
                self.changed.insert(path);
                self.each(Vec::new(), parts, path);
            }
            (Some(Some(parts)), Some(None)) => {
                self.changed.insert(path);
                self.each(parts, Vec::new(), path);
            }
            (before, after) => {
                self.each(before.flatten().unwrap_or_default(), after.flatten().unwrap_or_default(), path);
            }
        }
    }

    fn each(&mut self, before: Vec<Part<'_, '_>>, after: Vec<Part<'_, '_>>, path: &mut Vec<Step>) {
        let mut pairs = BTreeMap::new();
        for part in before {
            pairs.insert(part.step, (Some(part.value), None, part.schema));
        }
        for part in after {
            pairs.entry(part.step).or_insert((None, None, part.schema)).1 = Some(part.value);
        }
        for (step, (old, new, schema)) in pairs {
            path.push(step);
            self.compare(old, new, schema, path);
            path.pop();
        }
    }

    pub fn strip(&mut self) {
        strip(&mut self.changed);
        strip(&mut self.removed);
    }
}

/// Takes out what nobody owns: what the server says, and what makes the object itself.
pub(super) fn strip(set: &mut FieldSet) {
    set.cut(&["apiVersion"]);
    set.cut(&["kind"]);
    for name in
        ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"]
    {
        set.cut(&["metadata", name]);
    }
    set.subtract(&FieldSet(BTreeMap::from([(
        Step::Field("metadata".to_owned()),
        Node { owned: true, below: FieldSet::default() },
    )])));
}

/// Who writes, as what, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// The version that the object is written in: `apps.onex.io/v1beta1`.
    pub api_version: &'a str,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// The time, as RFC 3339 in whole seconds.
    pub now: &'a str,
}

/// What a manager owns through one operation.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub applied: bool,
    pub manager: String,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub fields: FieldSet,
}

impl Entry {
    pub fn new(writer: Writer<'_>, applied: bool) -> Self {
        Self {
            applied,
            manager: writer.manager.to_owned(),
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: Some(writer.now.to_owned()),
            fields: FieldSet::default(),
        }
    }

    fn parse(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        Some(Self {
            applied: match entry["operation"].as_str()? {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            },
            manager: text("manager"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: entry["time"].as_str().map(str::to_owned),
            fields: if entry["fieldsV1"].is_null() {
                FieldSet::default()
            } else {
                FieldSet::parse(&entry["fieldsV1"])?
            },
        })
    }

    fn print(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": if self.applied { "Apply" } else { "Update" },
            "apiVersion": self.api_version, "fieldsType": "FieldsV1", "fieldsV1": self.fields.print(),
        });
        if let Some(time) = &self.time {
            entry["time"] = time.as_str().into();
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }

    /// Two entries of one manager are the same whatever their time, and for an apply whatever their version.
    pub fn is(&self, writer: Writer<'_>, applied: bool) -> bool {
        self.applied == applied
            && self.manager == writer.manager
            && self.subresource == writer.subresource
            && (applied || self.api_version == writer.api_version)
    }
}

/// The entries of an object; `None` where one of them makes no sense.
pub(super) fn entries(object: Option<&Value>) -> Option<Vec<Entry>> {
    let list = object.map(|o| &o["metadata"]["managedFields"]);
    list.and_then(Value::as_array).into_iter().flatten().map(Entry::parse).collect()
}

/// Writes the entries into the object, sorted as Kubernetes sorts them; without entries, tracking is off.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    // Operation, time, manager, version, subresource. RFC 3339 in UTC sorts as text.
    entries.sort_by(|a, b| {
        let key =
            |e: &Entry| (!e.applied, e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone());
        key(a).cmp(&key(b))
    });
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), entries.iter().map(Entry::print).collect());
    }
}

/// Records that `writer` made `new` out of `old` by anything but an apply.
///
/// What they changed is theirs from now on; what is gone is nobody's. Nothing changes in the record, times included, when
/// nothing changed in the object. Tracking begins with the creation (`old` is `None`), and is off for an object without
/// entries. A client may send entries of its own, or `[]` or `[{}]` to forget them all.
pub fn track_update(old: Option<&Value>, new: &mut Value, writer: Writer<'_>, schema: &Schema) {
    let before = entries_before(old, new, writer.subresource);
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if before.is_empty() && old.is_some() {
        return;
    }
    let mut difference = Difference::between(old.unwrap_or(&Value::Object(Map::new())), new, schema);
    difference.strip();
    let entries = take(before, &difference, writer);
    write(new, capped(entries));
}

fn entries_before(old: Option<&Value>, new: &Value, subresource: &str) -> Vec<Entry> {
    let live = || entries(old).unwrap_or_default();
    if !subresource.is_empty() {
        return live();
    }
    match new["metadata"]["managedFields"].as_array().map(Vec::as_slice) {
        Some([]) => return Vec::new(),
        Some([Value::Object(one)]) if one.is_empty() => return Vec::new(),
        _ => {}
    }
    entries(Some(new)).filter(|sent| !sent.is_empty()).unwrap_or_else(live)
}

/// Moves the changed fields from whoever had them into the writer's `Update` entry.
pub(super) fn take(mut entries: Vec<Entry>, difference: &Difference, writer: Writer<'_>) -> Vec<Entry> {
    if difference.is_empty() {
        return entries;
    }
    for entry in entries.iter_mut().filter(|entry| !entry.is(writer, false)) {
        entry.fields.subtract(&difference.changed);
    }
    for entry in &mut entries {
        entry.fields.subtract(&difference.removed);
    }
    if !difference.changed.is_empty() {
        let at = entries.iter().position(|entry| entry.is(writer, false)).unwrap_or(entries.len());
        if at == entries.len() {
            entries.push(Entry::new(writer, false));
        }
        entries[at].fields.extend(&difference.changed);
        entries[at].time = Some(writer.now.to_owned());
    }
    entries
}

/// The oldest `Update` entries become one of `ancient-changes` for each version, until there are few enough.
fn capped(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|entry| !entry.fields.is_empty());
    let (mut updates, applies): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| !entry.applied);
    updates.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let mut index = 0;
    let mut ancient: BTreeMap<String, usize> = BTreeMap::new();
    while updates.len() > MOST_UPDATE_ENTRIES && index < updates.len() {
        let version = updates[index].api_version.clone();
        if let Some(first) = ancient.get(&version).copied() {
            let gone = updates.remove(index);
            let bucket = &mut updates[first];
            "ancient-changes".clone_into(&mut bucket.manager);
            bucket.subresource.clear();
            bucket.fields.extend(&gone.fields);
            bucket.time = gone.time;
        } else {
            ancient.insert(version, index);
            index += 1;
        }
    }
    updates.extend(applies);
    updates
}
