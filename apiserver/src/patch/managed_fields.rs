//! Who owns which field: `metadata.managedFields`, as sets of paths.
//!
//! A [`FieldSet`] is the parsed form of `fieldsV1`. [`record`] keeps the record on every write that is not an
//! apply; [`super::apply`](mod@super::apply) does so itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Map, Value, json};

use super::made;
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

    pub(super) fn print(&self) -> String {
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

impl Node {
    fn is_empty(&self) -> bool {
        !self.owned && self.below.is_empty()
    }

    fn print(&self) -> Value {
        let mut below = self.below.print();
        if self.owned && !self.below.is_empty() {
            below["."] = json!({});
        }
        below
    }
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
        Value::Object(self.0.iter().map(|(step, node)| (step.print(), node.print())).collect())
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

/// The same, but for fields that `other` has too and just so.
fn unlike<'v, 's>(value: &'v Value, other: Option<&Value>, schema: Option<&'s Schema>) -> Option<Vec<Part<'v, 's>>> {
    match (value, other) {
        (Value::Object(fields), Some(Value::Object(other))) if !schema.is_some_and(|s| s.atomic) => {
            let unlike = fields.iter().filter(|(name, value)| !value.is_null() && other.get(*name) != Some(value));
            Some(unlike.map(|(name, value)| field(name, value, schema)).collect())
        }
        _ => parts(value, schema),
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
        let (changed, removed) = compare(Some(old), Some(new), Some(schema));
        Self { changed: changed.below, removed: removed.below }
    }

    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    pub fn strip(&mut self) {
        strip(&mut self.changed);
        strip(&mut self.removed);
    }
}

/// What is changed and what is removed, here and below.
fn compare(old: Option<&Value>, new: Option<&Value>, schema: Option<&Schema>) -> (Node, Node) {
    let (mut changed, mut removed) = (Node::default(), Node::default());
    if old == new {
        return (changed, removed);
    }
    let (before, after) = (old.map(|v| unlike(v, new, schema)), new.map(|v| unlike(v, old, schema)));
    // If one of them is a leaf, there is nothing below that both could share.
    changed.owned = old.is_none() || matches!((&before, &after), (Some(None), Some(_)) | (Some(_), Some(None)));
    removed.owned = new.is_none();
    for (step, (old, new, schema)) in pairs(before.flatten(), after.flatten()) {
        let (added, gone) = compare(old, new, schema);
        if !gone.is_empty() {
            removed.below.0.insert(step.clone(), gone);
        }
        if !added.is_empty() {
            changed.below.0.insert(step, added);
        }
    }
    (changed, removed)
}

type Pair<'v, 's> = (Option<&'v Value>, Option<&'v Value>, Option<&'s Schema>);

/// The parts that are on either side, by their steps.
fn pairs<'v, 's>(before: Option<Vec<Part<'v, 's>>>, after: Option<Vec<Part<'v, 's>>>) -> BTreeMap<Step, Pair<'v, 's>> {
    let before = before.into_iter().flatten().map(|part| (part.step, (Some(part.value), None, part.schema)));
    let mut pairs: BTreeMap<Step, Pair<'v, 's>> = before.collect();
    for part in after.into_iter().flatten() {
        pairs.entry(part.step).or_insert((None, None, part.schema)).1 = Some(part.value);
    }
    pairs
}

/// What of the metadata nobody owns.
pub(super) const UNOWNED: [&str; 8] =
    ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"];

/// Takes out what nobody owns: what the server says, and what makes the object itself.
pub(super) fn strip(set: &mut FieldSet) {
    set.cut(&["apiVersion"]);
    set.cut(&["kind"]);
    for name in UNOWNED {
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
    /// What an object of the kind says of itself before anything is written in it: nobody owns that.
    pub blank: &'a Value,
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
        let fields = match &entry["fieldsV1"] {
            Value::Null => FieldSet::default(),
            fields => FieldSet::parse(fields)?,
        };
        Some(Self { fields, ..Self::parse_head(entry)? })
    }

    /// Everything but the fields.
    fn parse_head(entry: &Value) -> Option<Self> {
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
            fields: FieldSet::default(),
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
    parsed(list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default())
}

fn parsed(entries: &[Value]) -> Option<Vec<Entry>> {
    entries.iter().map(Entry::parse).collect()
}

/// Writes the entries into the object; without entries, tracking is off.
pub(super) fn write(object: &mut Value, entries: Vec<Entry>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    match printed(entries) {
        Some(entries) => metadata.insert("managedFields".to_owned(), entries),
        None => metadata.remove("managedFields"),
    };
}

/// The entries, sorted as Kubernetes sorts them; nothing if there are none.
fn printed(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|entry| !entry.fields.is_empty());
    // Operation, time, manager, version, subresource. RFC 3339 in UTC sorts as text.
    entries.sort_by(|a, b| {
        let key =
            |e: &Entry| (!e.applied, e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone());
        key(a).cmp(&key(b))
    });
    (!entries.is_empty()).then(|| entries.iter().map(Entry::print).collect())
}

/// `managedFields` as they are, and as a client sent them.
#[derive(Debug, Default)]
pub struct Managers {
    /// Those of the stored object.
    pub live: Option<Value>,
    /// Those in the body; none, if the client left them out.
    pub sent: Option<Value>,
}

/// The record after `writer` made `new` out of `old` by anything but an apply. Neither object has its own.
///
/// What they changed is theirs from now on; what is gone is nobody's. Nothing changes in the record, times included, when
/// nothing changed in the object. Tracking begins with the creation (`old` is `None`), and is off for an object without
/// entries. A client may send entries of its own, or `[]` or `[{}]` to forget them all.
pub fn record(
    old: Option<&Value>,
    new: &Value,
    managers: Managers,
    writer: Writer<'_>,
    schema: &Schema,
) -> Option<Value> {
    let theirs = managers.sent.filter(|sent| writer.subresource.is_empty() && Some(sent) != managers.live.as_ref());
    let entries = match theirs.as_ref().and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => Vec::new(),
        Some([Value::Object(one)]) if one.is_empty() => Vec::new(),
        Some(sent) => parsed(sent).unwrap_or_else(|| live_entries(managers.live.as_ref())),
        None => match managers.live {
            // The usual: what we wrote ourselves is changed in its place.
            Some(Value::Array(live)) if !live.is_empty() => return amended(old, new, live, writer, schema),
            _ => Vec::new(),
        },
    };
    if entries.is_empty() && old.is_some() {
        return None;
    }
    if old.is_none()
        && entries.is_empty()
        && let Some(record) = made::record(new, writer, schema)
    {
        return record;
    }
    compared(old, new, entries, writer, schema)
}

/// The record that a comparison of the two objects leads to.
pub(super) fn compared(
    old: Option<&Value>,
    new: &Value,
    entries: Vec<Entry>,
    writer: Writer<'_>,
    schema: &Schema,
) -> Option<Value> {
    let difference = tracked_difference(old, new, writer, schema);
    printed(capped(take(entries, &difference, writer)))
}

fn live_entries(live: Option<&Value>) -> Vec<Entry> {
    live.and_then(Value::as_array).and_then(|live| parsed(live)).unwrap_or_default()
}

fn tracked_difference(old: Option<&Value>, new: &Value, writer: Writer<'_>, schema: &Schema) -> Difference {
    let mut difference = Difference::between(old.unwrap_or(writer.blank), new, schema);
    difference.strip();
    difference
}

/// Moves what changed into the writer's `Update` entry, without reading all that did not.
fn amended(
    old: Option<&Value>,
    new: &Value,
    mut live: Vec<Value>,
    writer: Writer<'_>,
    schema: &Schema,
) -> Option<Value> {
    let difference = tracked_difference(old, new, writer, schema);
    if difference.is_empty() {
        return Some(live.into());
    }
    let is_writers = |entry: &Value| Entry::parse_head(entry).is_some_and(|entry| entry.is(writer, false));
    let mut own = None;
    for (index, entry) in live.iter_mut().enumerate() {
        if is_writers(entry) {
            own.get_or_insert(index);
        } else if let Some(fields) = entry["fieldsV1"].as_object_mut() {
            subtract(fields, &difference.changed);
        }
        if let Some(fields) = entry["fieldsV1"].as_object_mut() {
            subtract(fields, &difference.removed);
        }
    }
    if !difference.changed.is_empty() {
        let own = own.unwrap_or_else(|| {
            live.push(Entry::new(writer, false).print());
            live.len() - 1
        });
        if let Some(fields) = live[own]["fieldsV1"].as_object_mut() {
            extend(fields, &difference.changed);
        }
        live[own]["time"] = writer.now.into();
    }
    live.retain(|entry| entry["fieldsV1"].as_object().is_some_and(|fields| !fields.is_empty()));
    if live.iter().filter(|entry| entry["operation"] == "Update").count() > MOST_UPDATE_ENTRIES {
        return printed(capped(parsed(&live).unwrap_or_default()));
    }
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    live.sort_by_cached_key(|entry| {
        let words = ["time", "manager", "apiVersion", "subresource"].map(|name| text(entry, name));
        (entry["operation"] != "Apply", words)
    });
    (!live.is_empty()).then(|| live.into())
}

/// [`FieldSet::subtract`], of printed fields.
fn subtract(fields: &mut Map<String, Value>, set: &FieldSet) {
    for (step, node) in &set.0 {
        let name = step.print();
        let Some(mine) = fields.get_mut(&name).and_then(Value::as_object_mut) else { continue };
        let owned = is_owned(mine) && !node.owned;
        subtract(mine, &node.below);
        own(mine, owned);
        if mine.is_empty() && !owned {
            fields.remove(&name);
        }
    }
}

/// [`FieldSet::extend`], of printed fields.
fn extend(fields: &mut Map<String, Value>, set: &FieldSet) {
    for (step, node) in &set.0 {
        match fields.entry(step.print()) {
            serde_json::map::Entry::Vacant(place) => {
                place.insert(node.print());
            }
            serde_json::map::Entry::Occupied(mut place) => {
                let Some(mine) = place.get_mut().as_object_mut() else { continue };
                let owned = is_owned(mine) || node.owned;
                extend(mine, &node.below);
                own(mine, owned);
            }
        }
    }
}

fn is_owned(field: &Map<String, Value>) -> bool {
    field.is_empty() || field.contains_key(".")
}

/// Notes whether the field is owned itself: a dot, unless there is nothing below it.
fn own(field: &mut Map<String, Value>, owned: bool) {
    field.remove(".");
    if owned && !field.is_empty() {
        field.insert(".".to_owned(), json!({}));
    }
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
    let mut surplus = updates.len().saturating_sub(MOST_UPDATE_ENTRIES);
    let mut kept: Vec<Entry> = Vec::new();
    let mut ancient: BTreeMap<String, usize> = BTreeMap::new();
    for update in updates {
        match ancient.get(&update.api_version) {
            Some(first) if surplus > 0 => {
                let bucket = &mut kept[*first];
                "ancient-changes".clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.fields.extend(&update.fields);
                bucket.time = update.time;
                surplus -= 1;
            }
            _ => {
                ancient.entry(update.api_version.clone()).or_insert(kept.len());
                kept.push(update);
            }
        }
    }
    kept.extend(applies);
    kept
}
