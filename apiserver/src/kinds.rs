//! The live table of descriptors: everything that the corridor needs to know of a kind.
//!
//! Handlers, discovery, OpenAPI and tables read these; none of them names a kind. [`builtin`] is the list of the kinds
//! that are compiled in.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use onex_crds::Invalid;
use parking_lot::RwLock;
use serde_json::Value;

use crate::{
    authn::User,
    custom::Custom,
    registry::Part,
    schema::{self, Schema},
    table::Path,
};

/// One kind in one version, as clients see it.
pub struct Kind {
    /// The API group; empty for the core.
    pub group: String,
    /// The version: `v1`, `v1beta1`.
    pub version: String,
    /// The kind: `MinerSet`.
    pub kind: String,
    /// The kind of a list of them: `MinerSetList`.
    pub list_kind: String,
    /// The resource name: `minersets`.
    pub plural: String,
    /// The singular name: `minerset`.
    pub singular: String,
    /// Short names: `ms`.
    pub short_names: Vec<String>,
    /// Categories: `all`.
    pub categories: Vec<String>,
    /// Objects live in namespaces.
    pub namespaced: bool,
    /// There is a status subresource.
    pub status: bool,
    /// There is a scale subresource.
    pub scale: Option<Scale>,
    /// Further subresources, as discovery lists them.
    pub subresources: Vec<Subresource>,
    /// Strategic merge patch is accepted (compiled-in kinds).
    pub strategic: bool,
    /// Who writes the status may write labels too, as kubelets do.
    pub labels_by_status: bool,
    /// The printed columns; the first is the name.
    pub columns: Vec<Column>,
    /// Fields that `fieldSelector` knows besides `metadata.name` and `metadata.namespace`: the label, and the path.
    pub selectable: Vec<(String, Vec<String>)>,
    /// Where objects are stored: `/registry/pods/`, with a slash at the end.
    pub prefix: String,
    /// A deletion answers the object rather than a `Status`.
    pub returns_deleted: bool,
    /// Whoever deletes an object and does not say what becomes of its dependents, leaves them without an owner.
    pub orphans_dependents: bool,
    /// PUT may come without a resourceVersion.
    pub unconditional_update: bool,
    /// All objects can be deleted with one request.
    pub deletes_collections: bool,
    /// PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// `metadata.generation` is kept (kinds with a spec).
    pub generation: bool,
    /// `status` in the body of a create is kept: nodes register with theirs.
    pub status_on_create: bool,
    /// Its objects are news, which nobody needs for longer than `event_ttl_seconds` after they were written.
    pub passing: bool,
    /// What names look like.
    pub names: Names,
    /// The beginning of the name of an object that comes without any.
    pub generate_name: Option<&'static str>,
    /// What the kind does beyond its schema.
    pub hooks: Hooks,
    /// How objects are turned from the stored form to this kind and back, where several kinds share one store (events).
    pub conversion: Option<Conversion>,
    /// Objects of it are questions, answered and not kept.
    pub review: Option<Review>,
    /// The schema as published, made at first need.
    pub published: Published,
    /// What clients that still use the kind are warned of.
    pub deprecation: Option<String>,
    /// What a CustomResourceDefinition says of the kind; nothing for those that are compiled in.
    pub custom: Option<Box<Custom>>,
    /// Its objects define other kinds: who writes one is answered when the table shows it.
    pub defines_kinds: bool,
    compiled: OnceLock<Arc<Schema>>,
    blank: OnceLock<Value>,
}

/// How `/scale` maps onto the object. Paths as in `.spec.replicas`, split at the dots.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Where the wanted number is.
    pub spec: Vec<String>,
    /// Where the number seen is.
    pub status: Vec<String>,
    /// Where the selector is: text, or a LabelSelector object.
    pub selector: Vec<String>,
}

/// A subresource other than status and scale, as discovery lists it.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// The last segment: `log`.
    pub name: &'static str,
    /// The kind that it speaks: group, version, kind.
    pub speaks: (&'static str, &'static str, &'static str),
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

/// One printed column.
#[derive(Clone, Debug)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// `name` for the first column.
    pub format: String,
    /// What it says.
    pub description: String,
    /// 0 is always shown; more only with `-o wide`.
    pub priority: i32,
    /// Where the cell comes from.
    pub cell: Cell,
}

/// Where a cell comes from.
#[derive(Clone)]
pub enum Cell {
    /// A path into the object, as a CRD's JSONPath without braces: `.spec.minerType`.
    Path(Path),
    /// A function of the object and of the time (seconds since 1970), for what a path cannot say.
    Function(fn(&Value, i64) -> Value),
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Function(_) => f.write_str("Function"),
        }
    }
}

/// A question that is answered, or a word that is heard, and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// May somebody do it?
    SubjectAccess,
    /// May somebody do it in this namespace?
    LocalSubjectAccess,
    /// May I do it?
    SelfSubjectAccess,
    /// What may I do?
    SelfSubjectRules,
    /// Who am I?
    SelfSubject,
    /// Whose token is this?
    Token,
    /// This Pod runs on that node.
    Binding,
}

/// What names look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// An RFC 1123 subdomain: the usual.
    Subdomain,
    /// An RFC 1123 label: namespaces.
    Label,
    /// An RFC 1035 label: services.
    Label1035,
    /// Anything that is one path segment: RBAC.
    Segment,
}

/// What a kind does beyond its schema. All are functions over the value, so that what a client sent comes back.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Removes what no schema can tell to be unknown, and answers its paths: schemas inside an object.
    pub prune: fn(&mut Value) -> Vec<String>,
    /// Fills in what the user left out. Never overwrites what they wrote.
    pub fill: fn(&mut Value),
    /// What is wrong, and at which field. The old object is there on update.
    pub check: fn(&Value, Option<&Value>) -> Vec<Invalid>,
    /// What is legal, and still worth a warning.
    pub warn: fn(&Value) -> Vec<String>,
    /// The same, of what cannot be changed any more once the object is there: its name.
    pub warn_of_new: fn(&Value) -> Vec<String>,
    /// Right before a create or an update of the main resource is stored: sets what only the server sets.
    /// The old object is there on update.
    ///
    /// It is also asked when an object is marked for deletion: then `metadata.deletionTimestamp` is newly set.
    pub prepare: fn(&mut Value, Option<&Value>),
    /// Writes into a new object who asks for it. Asked after `prepare`.
    pub requested_by: fn(&mut Value, &User),
    /// What a write of a part ([`Part::Approval`], [`Part::Resize`], [`Part::EphemeralContainers`]) makes of the object, and
    /// what is wrong with it: the object as it is wanted, the old one, and the time.
    pub amend: fn(Part, &mut Value, &Value, &str) -> Vec<Invalid>,
    /// For how many seconds the object stays after a deletion, given what the client asked for.
    pub grace: fn(&Value, Option<i64>) -> i64,
    /// The object may not go yet for a reason other than `metadata.finalizers`: a namespace's own finalizers.
    pub held: fn(&Value) -> bool,
}

/// A change of form.
pub type Convert = Arc<dyn Fn(Value) -> Value + Send + Sync>;

/// Two ways to say the same thing.
#[derive(Clone)]
pub struct Conversion {
    /// From this kind to the stored form.
    pub store: Convert,
    /// From the stored form to this kind.
    pub serve: Convert,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            prune: |_| Vec::new(),
            fill: |_| {},
            check: |_, _| Vec::new(),
            warn: |_| Vec::new(),
            warn_of_new: |_| Vec::new(),
            prepare: |_, _| {},
            requested_by: |_, _| {},
            amend: |_, _, _, _| Vec::new(),
            grace: |_, _| 0,
            held: |_| false,
        }
    }
}

/// The OpenAPI v3 schema of the kind and of what it refers to.
pub struct Published {
    make: Box<dyn Fn() -> (String, BTreeMap<String, Value>) + Send + Sync>,
    made: OnceLock<(String, BTreeMap<String, Value>)>,
}

impl Published {
    /// `make` answers the name of the kind's own schema, and all schemas by name.
    /// References look like `#/components/schemas/NAME`.
    pub fn new(make: impl Fn() -> (String, BTreeMap<String, Value>) + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), made: OnceLock::new() }
    }

    /// The name of the kind's own schema.
    pub fn name(&self) -> &str {
        &self.made().0
    }

    /// The kind's schema and all that it refers to, by name.
    pub fn schemas(&self) -> &BTreeMap<String, Value> {
        &self.made().1
    }

    fn made(&self) -> &(String, BTreeMap<String, Value>) {
        self.made.get_or_init(|| (self.make)())
    }
}

impl Kind {
    /// A kind with the usual behaviour, for [`builtin`] and for CRDs to refine.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, published: Published) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            list_kind: format!("{kind}List"),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            status: false,
            scale: None,
            subresources: Vec::new(),
            strategic: true,
            labels_by_status: false,
            columns: crate::table::usual_columns(),
            selectable: Vec::new(),
            prefix: format!("/registry/{plural}/"),
            returns_deleted: false,
            orphans_dependents: false,
            unconditional_update: true,
            deletes_collections: true,
            create_on_update: false,
            generation: false,
            status_on_create: false,
            passing: false,
            names: Names::Subdomain,
            generate_name: None,
            hooks: Hooks::default(),
            conversion: None,
            review: None,
            published,
            deprecation: None,
            custom: None,
            defines_kinds: false,
            compiled: OnceLock::new(),
            blank: OnceLock::new(),
        }
    }

    /// `v1`, or `apps.onex.io/v1beta1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// What an object of the kind says of itself before anything is written in it, made at first need.
    pub fn blank(&self) -> &Value {
        self.blank.get_or_init(|| match &self.custom {
            Some(_) => serde_json::json!({}),
            None => crate::builtin::schemas::blank(self.published.name(), self.published.schemas()),
        })
    }

    /// The compiled schema, made at first need.
    pub fn schema(&self) -> &Arc<Schema> {
        self.compiled.get_or_init(|| {
            let schemas = self.published.schemas();
            let definitions = Value::Object(schemas.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
            Schema::compile(
                &serde_json::json!({"$ref": format!("#/components/schemas/{}", self.published.name())}),
                &definitions,
            )
        })
    }

    /// Removes what the kind does not know, and says what is of the wrong type.
    pub fn decode(&self, object: &mut Value) -> schema::Decoded {
        match &self.custom {
            Some(custom) => custom.decode(object),
            None => {
                let mut decoded = schema::decode(object, self.schema());
                decoded.unknown.extend((self.hooks.prune)(object));
                decoded
            }
        }
    }

    /// Fills in what the user left out.
    pub fn fill(&self, object: &mut Value) {
        match &self.custom {
            Some(custom) => custom.fill(object),
            None => (self.hooks.fill)(object),
        }
    }

    /// Says of a spec and of a status that they are empty: those who read Kubernetes' own kinds expect them to be there.
    pub fn complete(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut().filter(|_| self.custom.is_none()) else { return };
        for part in ["spec", "status"] {
            if fields.get(part).is_none_or(Value::is_null) && self.schema().field(part).is_some() {
                fields.insert(part.to_owned(), serde_json::json!({}));
            }
        }
    }

    /// What is wrong, and at which field, besides metadata. The old object is there on update.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Invalid> {
        match &self.custom {
            Some(custom) => custom.check(object, old),
            None => (self.hooks.check)(object, old),
        }
    }

    /// Objects are stored as this kind shows them.
    pub fn is_stored(&self) -> bool {
        self.conversion.is_none() && self.review.is_none()
    }

    /// The definition of the kind is being deleted: nothing new may come.
    pub fn is_ending(&self) -> bool {
        self.custom.as_ref().is_some_and(|custom| custom.ending)
    }

    /// The verbs that the main resource has.
    pub fn verbs(&self) -> &'static [&'static str] {
        if self.review.is_some() {
            &["create"]
        } else if self.is_ending() {
            &["delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        } else if self.deletes_collections {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        } else {
            &["create", "delete", "get", "list", "patch", "update", "watch"]
        }
    }

    /// The key of an object in the store.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{}{namespace}/{name}", self.prefix) } else { format!("{}{name}", self.prefix) }
    }
}

/// The table of kinds. It changes when CustomResourceDefinitions do.
pub struct Kinds {
    builtin: Vec<Arc<Kind>>,
    table: RwLock<Arc<Table>>,
}

/// One state of the table.
pub struct Table {
    /// The kinds, in the order of discovery.
    pub kinds: Vec<Arc<Kind>>,
    /// By their plural names; few have the same one.
    by_plural: HashMap<String, Vec<Arc<Kind>>>,
}

impl Table {
    fn new(kinds: Vec<Arc<Kind>>) -> Arc<Self> {
        let mut by_plural: HashMap<String, Vec<_>> = HashMap::with_capacity(kinds.len());
        for kind in &kinds {
            by_plural.entry(kind.plural.clone()).or_default().push(kind.clone()); // what is compiled in comes first
        }
        Arc::new(Self { kinds, by_plural })
    }
}

impl Kinds {
    /// A table of these kinds, which are always in it.
    pub fn new(kinds: Vec<Kind>) -> Self {
        let builtin: Vec<_> = kinds.into_iter().map(Arc::new).collect();
        Self { table: RwLock::new(Table::new(builtin.clone())), builtin }
    }

    /// The kinds that are always in the table.
    pub fn builtin(&self) -> &[Arc<Kind>] {
        &self.builtin
    }

    /// Replaces what the table has besides the kinds that are always in it.
    pub fn define(&self, custom: impl IntoIterator<Item = Arc<Kind>>) {
        let table = Table::new(self.builtin.iter().cloned().chain(custom).collect());
        *self.table.write() = table;
    }

    /// The table as it is now.
    pub fn table(&self) -> Arc<Table> {
        self.table.read().clone()
    }

    /// The kind that is served at this path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let table = self.table.read();
        table.by_plural.get(plural)?.iter().find(|kind| kind.group == group && kind.version == version).cloned()
    }

    /// A kind of the core group.
    ///
    /// # Panics
    /// If there is none of that name: the callers name kinds that are always compiled in.
    pub fn core(&self, plural: &str) -> Arc<Kind> {
        self.find("", "v1", plural).expect("core kinds are compiled in")
    }

    /// What windows are always needed: a prefix, and the paths of the fields that selectors know there.
    ///
    /// Where several kinds share a prefix, the one without a conversion speaks for the stored form.
    pub fn stored(&self) -> Vec<(String, Vec<Vec<String>>)> {
        let stored = self.builtin.iter().filter(|k| k.is_stored());
        stored.map(|k| (k.prefix.clone(), k.selectable.iter().map(|(_, path)| path.clone()).collect())).collect()
    }
}
