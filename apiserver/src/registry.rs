//! Step 4 of `kubectl apply`: the write path, once for all kinds.
//!
//! prepare → fill → admit → check → compare-and-put. What comes out is durable, and every request that begins after the
//! answer sees it: requests wait for what was promised (`handlers::handle`), not writes for their readers.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, BytesMut};
use onex_crds::Invalid;
use onex_storage::{Error as StorageError, Expected, Key, Revision, Storage};
use rand::RngExt as _;
use serde_json::{Map, Value, json};

use crate::{
    admission::{Notes, Operation, Review, Rounds, Rules, Sent},
    authn::User,
    kinds::{Kind, Kinds},
    meta,
    patch::{self, Managers, Writer},
    status::{About, Result, Status},
    window::{Item, Stored, Window, Windows},
};

/// The time, from outside.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// The write path.
pub struct Registry {
    storage: Arc<dyn Storage>,
    windows: Arc<Windows>,
    kinds: Arc<Kinds>,
    rules: Rules,
    clock: Clock,
    passing: Duration,
}

/// Who writes, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Do everything but store it.
    pub dry_run: bool,
    /// The field manager.
    pub manager: String,
    /// Who asks, for admission.
    pub user: Arc<User>,
    /// Managed fields are right already: the object comes from an apply.
    pub tracked: bool,
    /// What else the client asked for, as webhooks are told.
    pub asked: Asked,
    /// What the request leaves behind besides its answer.
    pub notes: Arc<Notes>,
}

/// What of the options of a write matters to nobody but those who are told of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// The request is a PATCH.
    pub patch: bool,
    /// The client named its field manager.
    pub named: bool,
    /// `fieldValidation`: `Ignore`, `Warn`, `Strict`, or empty.
    pub validation: &'static str,
    /// `force`, of an apply.
    pub force: Option<bool>,
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    Main,
    /// The status.
    Status,
    /// The number of replicas.
    Scale,
    /// A namespace's own finalizers.
    Finalize,
    /// The node of a Pod.
    Binding,
    /// Whether what was asked for is granted.
    Approval,
    /// What the containers of a Pod may use.
    Resize,
    /// Containers that look into a Pod that runs.
    EphemeralContainers,
}

impl Part {
    /// The subresource, as managed fields and admission name it.
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Finalize => "finalize",
            Self::Binding => "binding",
            Self::Approval => "approval",
            Self::Resize => "resize",
            Self::EphemeralContainers => "ephemeralcontainers",
        }
    }
}

/// An object that was written, or would have been.
pub struct Written {
    /// The object in its stored form.
    pub outcome: Outcome,
    /// It was not there before.
    pub created: bool,
}

/// What became of a write.
pub enum Outcome {
    /// The object is stored, at this revision.
    Stored(Stored, u64),
    /// The object is not stored: the write was a dry run, or took its last finalizer.
    Shown(Value),
}

impl Outcome {
    /// The object in its stored form, with its resourceVersion.
    pub fn value(self) -> Value {
        match self {
            Self::Stored(stored, revision) => stored.value_at(revision),
            Self::Shown(object) => object,
        }
    }

    /// Writes the JSON of [`Outcome::value`].
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Stored(stored, revision) => stored.write(*revision, out),
            Self::Shown(object) => out.put_slice(object.to_string().as_bytes()),
        }
    }
}

/// What a deletion did.
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Outcome),
    /// The object stays until its finalizers, or its grace period, are done.
    Marked(Outcome),
}

/// `DeleteOptions`, as far as they matter here.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// How long the object may stay.
    pub grace_seconds: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<String>,
    /// Only if the object is this one.
    pub uid: Option<String>,
    /// Only if the object is at this revision.
    pub resource_version: Option<String>,
    /// Do everything but delete it.
    pub dry_run: bool,
    /// Who asks, for admission.
    pub user: Arc<User>,
    /// What the request leaves behind besides its answer.
    pub notes: Arc<Notes>,
}

/// How often a write is tried again when somebody else is faster.
const ATTEMPTS: usize = 24;
/// How often a new name is tried for a `generateName`.
const NAMES: usize = 8;
/// How long a write waits until readers see it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Registry {
    /// A write path over `storage`. Admission is asked in the order given. What is passing is of no interest after `passing`.
    pub fn new(
        storage: Arc<dyn Storage>,
        windows: Arc<Windows>,
        kinds: Arc<Kinds>,
        rules: Rules,
        clock: Clock,
        passing: Duration,
    ) -> Self {
        Self { storage, windows, kinds, rules, clock, passing }
    }

    /// The table of kinds.
    pub fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    /// Namespaces come to be when they are first used.
    pub fn provisions(&self) -> bool {
        self.rules.admit.iter().any(|rule| rule.name() == "NamespaceAutoProvision")
    }

    /// The windows that reads look into.
    pub fn windows(&self) -> &Arc<Windows> {
        &self.windows
    }

    /// The window of a kind.
    pub fn window(&self, kind: &Kind) -> Arc<Window> {
        match &kind.custom {
            // Also when the definition is gone, and this request began before.
            Some(custom) => custom.window.clone(),
            None => self.windows.of(&kind.prefix).expect("every kind that is compiled in has a window"),
        }
    }

    /// Now.
    pub fn timestamp(&self) -> jiff::Timestamp {
        (self.clock)()
    }

    /// Now, as metadata says it.
    pub fn now(&self) -> String {
        seconds(self.timestamp())
    }

    /// The object, or 404.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Item>> {
        self.window(kind).get(&kind.key(namespace, name)).ok_or_else(|| Status::not_found(about(kind, name)))
    }

    /// Stores a new object.
    pub async fn create(&self, kind: &Arc<Kind>, namespace: &str, object: Value, options: &Options) -> Result<Written> {
        if kind.is_ending() {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status { message: why.to_owned(), ..Status::method_not_allowed() });
        }
        if object["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty()) {
            let object = self.prepare_new(kind, namespace, object, options)?;
            return self.create_named(kind, namespace, object, options).await;
        }
        for attempt in 1..=NAMES {
            let object = self.prepare_new(kind, namespace, object.clone(), options)?;
            match self.create_named(kind, namespace, object, options).await {
                Err(status) if status.reason == "AlreadyExists" && attempt < NAMES => {}
                Err(status) if status.reason == "AlreadyExists" => {
                    let name = status.details["name"].as_str().unwrap_or_default().to_owned();
                    return Err(Status::no_free_name(about(kind, &name)));
                }
                other => return other,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn create_named(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        mut object: Value,
        options: &Options,
    ) -> Result<Written> {
        let name = text(&object["metadata"]["name"]).to_owned();
        let sent = take_managers(&mut object);
        kind.fill(&mut object);
        meta::leave_out_empty(&mut object["metadata"]);
        hold_depth(&object)?;
        // Before admission and `prepare`: what only the server sets belongs to nobody.
        let managers = match options.tracked {
            true => sent.clone(),
            false => self.track(kind, Part::Main, None, &object, Managers::default(), options),
        };
        self.admit(Review::create(kind, namespace, &mut object, options)).await?;
        meta::leave_out_empty(&mut object["metadata"]);
        hold_depth(&object)?;
        (kind.hooks.prepare)(&mut object, None);
        kind.complete(&mut object);
        (kind.hooks.requested_by)(&mut object, &options.user);
        self.check(kind, &object, None, &sent)?;
        // Not before: what is wrong with the object is told first, and a dry run stores nothing that could have a revision.
        let revision = metadata(&mut object)?.remove("resourceVersion").unwrap_or_default();
        if !options.dry_run && text(&revision).parse::<u64>().is_ok_and(|revision| revision != 0) {
            return Err(Status::plain("resourceVersion should not be set on objects to be created"));
        }
        self.validate(&Review::create(kind, namespace, &mut object, options)).await?;
        put_managers(&mut object, managers);
        if options.dry_run {
            if let Ok(existing) = self.get(kind, namespace, &name) {
                return Err(Status::already_exists(about(kind, &name), existing.is_terminating()));
            }
            return Ok(Written { outcome: Outcome::Shown(object), created: true });
        }
        let key = kind.key(namespace, &name);
        match self.put(kind, &key, object, Expected::Absent).await {
            Err(StorageError::Conflict { current }) => {
                let there = current.as_ref().and_then(|entry| serde_json::from_slice::<Value>(&entry.value).ok());
                self.catch_up(current).await?; // who is told that it exists must also find it
                Err(Status::already_exists(about(kind, &name), there.is_some_and(|object| is_terminating(&object))))
            }
            other => other.map_err(stored).map(|outcome| Written { outcome, created: true }),
        }
    }

    fn prepare_new(&self, kind: &Kind, namespace: &str, mut object: Value, options: &Options) -> Result<Value> {
        let meta = metadata(&mut object)?;
        for field in
            ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"]
        {
            meta.remove(field);
        }
        if !options.tracked {
            meta.remove("managedFields");
        }
        if kind.namespaced {
            meta.insert("namespace".to_owned(), namespace.into());
        } else {
            meta.remove("namespace");
        }
        if text(meta.get("name").unwrap_or(&Value::Null)).is_empty() {
            let mut prefix = text(meta.get("generateName").unwrap_or(&Value::Null)).to_owned();
            if let Some(usual) = kind.generate_name.filter(|_| prefix.is_empty()) {
                prefix = usual.to_owned();
                meta.insert("generateName".to_owned(), usual.into());
            }
            if prefix.is_empty() {
                let cause = Invalid::required("metadata.name", "name or generateName is required");
                return Err(Status::invalid(&kind.group, &kind.kind, "", &[cause]));
            }
            meta.insert("name".to_owned(), generated(&prefix).into());
        }
        meta.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        meta.insert("creationTimestamp".to_owned(), self.now().into());
        if kind.generation {
            meta.insert("generation".to_owned(), 1.into());
        }
        if kind.status && !kind.status_on_create {
            remove(&mut object, "status");
        }
        Ok(object)
    }

    /// Changes an object. `change` answers the wanted object from the present one, and is asked again when somebody else
    /// was faster.
    pub async fn update(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        name: &str,
        part: Part,
        options: &Options,
        change: impl Fn(&Value) -> Result<Wanted>,
    ) -> Result<Written> {
        let key = kind.key(namespace, name);
        for _ in 0..ATTEMPTS {
            let item = self.get(kind, namespace, name)?;
            let old = item.value();
            let wanted = change(&old)?;
            let Some(new) = self.prepare_changed(kind, namespace, part, old, wanted, options).await? else {
                let outcome = Outcome::Stored(item.stored.clone(), item.revision);
                return Ok(Written { outcome, created: false });
            };
            if options.dry_run {
                return Ok(Written { outcome: Outcome::Shown(new), created: false });
            }
            let expected = Revision(item.revision);
            let outcome = if self.is_done(kind, &new) {
                self.remove(&key, expected).await.map(|()| Outcome::Shown(new))
            } else {
                self.put(kind, &key, new, Expected::At(expected)).await
            };
            match outcome {
                Err(StorageError::Conflict { current }) => self.catch_up(current).await?,
                other => return other.map_err(stored).map(|outcome| Written { outcome, created: false }),
            }
        }
        Err(Status::modified(about(kind, name)))
    }

    /// The object to store; nothing if nothing changes.
    async fn prepare_changed(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        part: Part,
        mut old: Value,
        wanted: Wanted,
        options: &Options,
    ) -> Result<Option<Value>> {
        let Wanted { mut object, tracked } = wanted;
        self.hold_preconditions(kind, &old, &object)?;
        let managers = Managers { live: take_managers(&mut old), sent: take_managers(&mut object) };
        keep(kind, part, &old, &mut object)?;
        if part == Part::Main || kind.custom.is_some() {
            kind.fill(&mut object);
        }
        if matches!(part, Part::Approval | Part::Resize | Part::EphemeralContainers) {
            let wrong = (kind.hooks.amend)(part, &mut object, &old, &self.now());
            if !wrong.is_empty() {
                return Err(Status::invalid(&kind.group, &kind.kind, text(&old["metadata"]["name"]), &wrong));
            }
        }
        meta::leave_out_empty(&mut object["metadata"]);
        hold_depth(&object)?;
        // Before admission and `prepare`: what only the server sets belongs to nobody, and so does the place of a Pod.
        let (live, sent) = (managers.live.clone(), managers.sent.clone());
        let managers = match tracked {
            true => managers.sent,
            false if part == Part::Binding => managers.live,
            false => self.track(kind, part, Some(&old), &object, managers, options),
        };
        if part == Part::Main {
            (kind.hooks.prepare)(&mut object, Some(&old));
            kind.complete(&mut object);
        }
        self.admit(Review::update(kind, namespace, part, &old, &mut object, options)).await?;
        meta::leave_out_empty(&mut object["metadata"]);
        hold_depth(&object)?;
        if matches!(part, Part::Main | Part::Status | Part::Scale) {
            self.check(kind, &object, Some(&old), &sent)?;
        }
        self.validate(&Review::update(kind, namespace, part, &old, &mut object, options)).await?;
        if part != Part::Binding {
            bump_generation(kind, &old, &mut object);
        }
        let changed = object != old || managers != live;
        put_managers(&mut object, managers);
        Ok(changed.then_some(object))
    }

    fn track(
        &self,
        kind: &Kind,
        part: Part,
        old: Option<&Value>,
        object: &Value,
        managers: Managers,
        options: &Options,
    ) -> Option<Value> {
        let (api_version, now) = (kind.api_version(), self.now());
        let writer = Writer {
            manager: &options.manager,
            api_version: &api_version,
            subresource: part.subresource(),
            now: &now,
            blank: kind.blank(),
        };
        let Some(conversion) = &kind.conversion else {
            return patch::record(old, object, managers, writer, kind.schema());
        };
        // Managers own fields under the names that they wrote them with.
        let old = old.map(|old| (conversion.serve)(old.clone()));
        let served = (conversion.serve)(object.clone());
        patch::record(old.as_ref(), &served, managers, writer, kind.schema())
    }

    fn hold_preconditions(&self, kind: &Kind, old: &Value, new: &Value) -> Result<()> {
        let (old, new) = (&old["metadata"], &new["metadata"]);
        let name = text(&old["name"]);
        let uid = text(&new["uid"]);
        if !uid.is_empty() && uid != text(&old["uid"]) {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", text(&old["uid"]));
            return Err(Status::conflict(about(kind, name), why));
        }
        match text(&new["resourceVersion"]) {
            "" | "0" if kind.unconditional_update => Ok(()),
            "" | "0" => Err(unversioned(kind, name)),
            seen if seen == text(&old["resourceVersion"]) => Ok(()),
            seen if seen.parse::<u64>().is_err() => {
                let cause = Invalid::value("metadata.resourceVersion", seen, "must be a number");
                Err(Status::invalid(&kind.group, &kind.kind, name, &[cause]))
            }
            _ => Err(Status::modified(about(kind, name))),
        }
    }

    fn check(&self, kind: &Kind, object: &Value, old: Option<&Value>, sent: &Option<Value>) -> Result<()> {
        let mut wrong = meta::check(&object["metadata"], old.map(|o| &o["metadata"]), kind);
        // The record of an object is a little deeper than the object.
        if sent.as_ref().is_some_and(|sent| !patch::nests_within(sent, patch::MOST_LEVELS + 8)) {
            return Err(Status::bad_request("metadata.managedFields is nested too deep"));
        }
        wrong.extend(sent.as_ref().map(meta::check_managers).unwrap_or_default());
        wrong.extend(kind.check(object, old));
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&kind.group, &kind.kind, text(&object["metadata"]["name"]), &wrong))
    }

    async fn admit(&self, mut review: Review<'_>) -> Result<()> {
        for rule in &self.rules.admit {
            rule.admit(&mut review, self).await?;
        }
        if review.rounds.next() {
            for rule in &self.rules.admit {
                rule.admit(&mut review, self).await?;
            }
        }
        Ok(())
    }

    /// Asks those who only refuse. The object is what will be stored.
    async fn validate(&self, review: &Review<'_>) -> Result<()> {
        for rule in &self.rules.validate {
            rule.validate(review, self).await?;
        }
        Ok(())
    }

    /// Deletes an object, or marks it for deletion.
    pub async fn delete(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        let key = kind.key(namespace, name);
        for _ in 0..ATTEMPTS {
            let item = self.get(kind, namespace, name)?;
            let old = item.value();
            hold_delete_preconditions(kind, &old, options)?;
            self.admit(Review::delete(kind, namespace, &old, options)).await?;
            self.validate(&Review::delete(kind, namespace, &old, options)).await?;
            let marked = self.marked(kind, &old, options);
            if options.dry_run {
                let shown = marked.map(|marked| Deleted::Marked(Outcome::Shown(marked)));
                return Ok(shown.unwrap_or(Deleted::Gone(Outcome::Shown(old))));
            }
            let unchanged = Outcome::Stored(item.stored.clone(), item.revision);
            let expected = Revision(item.revision);
            let outcome = match marked {
                None => {
                    drop(old); // a tree of many small pieces, while the disk works
                    self.remove(&key, expected).await.map(|()| Deleted::Gone(unchanged))
                }
                Some(same) if same == old => return Ok(Deleted::Marked(unchanged)),
                Some(marked) => self.put(kind, &key, marked, Expected::At(expected)).await.map(Deleted::Marked),
            };
            match outcome {
                Err(StorageError::Conflict { current }) => self.catch_up(current).await?,
                other => return other.map_err(stored),
            }
        }
        Err(Status::modified(about(kind, name)))
    }

    /// The object as it is to stay for now; nothing if it may go at once.
    fn marked(&self, kind: &Kind, old: &Value, options: &DeleteOptions) -> Option<Value> {
        let mut new = old.clone();
        let usual = kind.orphans_dependents.then_some("Orphan");
        let finalizers = finalizers(old, options.propagation.as_deref(), usual);
        let mut grace = (kind.hooks.grace)(old, options.grace_seconds).max(0);
        let meta = new["metadata"].as_object_mut().expect("stored objects have metadata");
        let was_marked = meta.contains_key("deletionTimestamp");
        let before = meta.get("deletionGracePeriodSeconds").and_then(Value::as_i64).or(was_marked.then_some(0));
        if was_marked {
            grace = grace.min(before.unwrap_or(0)); // a second deletion may only shorten
        }
        if finalizers.is_empty() && grace == 0 && !(kind.hooks.held)(old) {
            return None;
        }
        if finalizers.is_empty() {
            meta.remove("finalizers");
        } else {
            meta.insert("finalizers".to_owned(), finalizers.into());
        }
        if !was_marked || Some(grace) != before {
            let grace_period = Duration::from_secs(grace.unsigned_abs());
            let until = (self.clock)().checked_add(grace_period).unwrap_or(jiff::Timestamp::MAX);
            meta.insert("deletionTimestamp".to_owned(), seconds(until).into());
            meta.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
            if !was_marked && let Some(generation) = meta.get("generation").and_then(Value::as_i64) {
                meta.insert("generation".to_owned(), (generation + 1).into());
            }
            (kind.hooks.prepare)(&mut new, Some(old));
        }
        Some(new)
    }

    /// The object waited only for its finalizers, and they are done.
    fn is_done(&self, kind: &Kind, object: &Value) -> bool {
        let meta = &object["metadata"];
        is_terminating(object)
            && meta["finalizers"].as_array().is_none_or(Vec::is_empty)
            && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
            && !(kind.hooks.held)(object)
    }

    async fn put(
        &self,
        kind: &Kind,
        key: &str,
        mut object: Value,
        expected: Expected,
    ) -> Result<Outcome, StorageError> {
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("resourceVersion"); // the store knows it, and only the store
        }
        let window = self.window(kind);
        let encoded = window.encode(&object).expect("every object that gets here has metadata");
        // A tree of many small pieces, which nobody needs while the disk works.
        drop(object);
        let offer = window.offer(encoded);
        let lifetime = kind.passing.then_some(self.passing);
        let key = Key(Arc::from(key));
        let value = offer.stored.raw().clone();
        let revision = match lifetime {
            None => self.storage.put(&key, value, expected).await?,
            lifetime => self.storage.put_for(&key, value, expected, lifetime).await?,
        };
        self.windows.promise(revision.0);
        Ok(Outcome::Stored(offer.taken(), revision.0))
    }

    async fn remove(&self, key: &str, expected: Revision) -> Result<(), StorageError> {
        let revision = self.storage.delete(&Key(Arc::from(key)), expected).await?;
        self.windows.promise(revision.0);
        Ok(())
    }

    /// Waits until the windows show what was faster.
    async fn catch_up(&self, current: Option<onex_storage::Entry>) -> Result<()> {
        match current {
            Some(entry) if self.windows.reached(entry.revision.0, PATIENCE).await => Ok(()),
            // Nobody says when it went: before now.
            None if self.windows.reached(self.windows.newest().await.map_err(|_| behind())?, PATIENCE).await => Ok(()),
            _ => Err(behind()),
        }
    }
}

/// The windows do not show in time what they must.
pub fn behind() -> Status {
    Status::unavailable("the storage cannot be followed; reads would show the past")
}

/// What `change` wants the object to be.
pub struct Wanted {
    /// The whole object.
    pub object: Value,
    /// Managed fields are right already: it came from an apply.
    pub tracked: bool,
}

impl From<Value> for Wanted {
    fn from(object: Value) -> Self {
        Self { object, tracked: false }
    }
}

/// What an error about an object says of it.
pub fn about<'a>(kind: &'a Kind, name: &'a str) -> About<'a> {
    About { group: &kind.group, resource: &kind.plural, name }
}

/// The answer to a write that the store refused.
pub fn stored(error: StorageError) -> Status {
    match error {
        StorageError::Unavailable(cause) => {
            tracing::error!(error = %cause, "the storage is unavailable");
            Status::unavailable("the storage is unavailable; whether this write was done is not known")
        }
        StorageError::Size { what: "value", limit, .. } => Status::too_large(limit),
        other => Status::internal(other),
    }
}

/// What is deeper could not be read again by everybody.
fn hold_depth(object: &Value) -> Result<()> {
    if patch::nests_within(object, patch::MOST_LEVELS) {
        return Ok(());
    }
    Err(Status::bad_request(format!("the object is nested deeper than {} levels", patch::MOST_LEVELS)))
}

/// The object is marked for deletion.
pub fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// A timestamp as metadata says it: UTC, whole seconds.
pub fn seconds(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>> {
    let Some(fields) = object.as_object_mut() else {
        return Err(Status::bad_request("the object provided is not a JSON object"));
    };
    let meta = fields.entry("metadata").or_insert_with(|| json!({}));
    if meta.is_null() {
        *meta = json!({});
    }
    meta.as_object_mut().ok_or_else(|| Status::bad_request("metadata is not a JSON object"))
}

/// A name that begins with `prefix`, as Kubernetes makes them: no vowels, so no words.
fn generated(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    let mut name: String = prefix.chars().take(58).collect();
    name.extend((0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])));
    name
}

/// Puts back what this write may not change.
pub(crate) fn keep(kind: &Kind, part: Part, old: &Value, object: &mut Value) -> Result<()> {
    metadata(object)?;
    match part {
        Part::Main => {
            if kind.status {
                copy(old, object, "status");
            }
        }
        Part::Status => {
            let status = object.get("status").cloned();
            let meta = object["metadata"].take();
            *object = old.clone();
            object["metadata"] = meta;
            match status {
                Some(status) if !status.is_null() => object["status"] = status,
                _ => remove(object, "status"),
            }
            if kind.custom.is_some() {
                object["metadata"] = old["metadata"].clone();
            }
            for field in ["labels", "ownerReferences"].into_iter().skip(usize::from(kind.labels_by_status)) {
                copy(&old["metadata"], &mut object["metadata"], field);
            }
        }
        Part::Approval => {
            let conditions = object["status"].get("conditions").cloned();
            let meta = object["metadata"].take();
            *object = old.clone();
            object["metadata"] = meta;
            object["status"]["conditions"] = conditions.unwrap_or_else(|| json!([]));
        }
        Part::Resize | Part::EphemeralContainers => {
            for field in ["metadata", "status"] {
                copy(old, object, field);
            }
        }
        Part::Scale | Part::Finalize | Part::Binding => {}
    }
    let meta = &mut object["metadata"];
    let always = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ];
    for field in always {
        copy(&old["metadata"], meta, field);
    }
    remove(meta, "selfLink");
    Ok(())
}

/// Takes out who wrote which field: no hook looks at it, and it may be larger than all the rest.
fn take_managers(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

fn put_managers(object: &mut Value, managers: Option<Value>) {
    if let (Some(managers), Some(meta)) = (managers, object["metadata"].as_object_mut()) {
        meta.insert("managedFields".to_owned(), managers);
    }
}

fn copy(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => remove(to, field),
    }
}

/// An update must say which version it is of. Kubernetes prints the version that is missing as Go prints a `uint64`.
fn unversioned(kind: &Kind, name: &str) -> Status {
    let cause = Invalid::value("metadata.resourceVersion", 0, "must be specified for an update");
    // Kubernetes names the resource here, where it names the kind everywhere else.
    let mut status = Status::invalid(&kind.group, &kind.plural, name, &[cause]);
    status.message = status.message.replacen("value: 0:", "value: 0x0:", 1);
    status.details["causes"][0]["message"] = "Invalid value: 0x0: must be specified for an update".into();
    status
}

fn bump_generation(kind: &Kind, old: &Value, object: &mut Value) {
    if !kind.generation {
        return;
    }
    let same = |field: &String| {
        let ignored = match field.as_str() {
            "metadata" | "apiVersion" | "kind" => true,
            "status" => kind.status || kind.custom.is_none(),
            _ => false,
        };
        ignored || old.get(field) == object.get(field)
    };
    let fields = old.as_object().into_iter().chain(object.as_object()).flat_map(Map::keys);
    if !fields.into_iter().all(same) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

fn hold_delete_preconditions(kind: &Kind, old: &Value, options: &DeleteOptions) -> Result<()> {
    let meta = &old["metadata"];
    let checks = [
        ("UID", &options.uid, "uid", "deleted and then recreated"),
        ("ResourceVersion", &options.resource_version, "resourceVersion", "modified"),
    ];
    for (label, wanted, field, happened) in checks {
        if let Some(wanted) = wanted
            && wanted != text(&meta[field])
        {
            let why = format!(
                "the {label} in the precondition ({wanted}) does not match the {label} in record ({}). \
                 The object might have been {happened}",
                text(&meta[field])
            );
            let about = About { resource: &kind.kind, ..about(kind, text(&meta["name"])) };
            return Err(Status::conflict(about, why));
        }
    }
    Ok(())
}

/// The finalizers that the object is to have, given how its dependents are to be treated: as is asked for, or else as the
/// object says itself, or else as is `usual` for its kind.
fn finalizers(old: &Value, propagation: Option<&str>, usual: Option<&str>) -> Vec<Value> {
    let mut finalizers = old["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let says = finalizers.iter().any(|f| matches!(f.as_str(), Some("orphan" | "foregroundDeletion")));
    let wanted = match propagation.or(usual.filter(|_| !says)) {
        Some("Orphan") => Some("orphan"),
        Some("Foreground") => Some("foregroundDeletion"),
        Some(_) => None,
        None => return finalizers,
    };
    finalizers.retain(|f| !matches!(f.as_str(), Some("orphan" | "foregroundDeletion")) || f.as_str() == wanted);
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|f| f == wanted)
    {
        finalizers.push(wanted.into());
    }
    finalizers
}

impl<'a> Review<'a> {
    fn create(kind: &'a Kind, namespace: &'a str, object: &'a mut Value, options: &'a Options) -> Self {
        Self {
            operation: Operation::Create,
            kind,
            namespace,
            part: Part::Main,
            object: Some(object),
            old: None,
            dry_run: options.dry_run,
            user: &options.user,
            sent: Sent::Write(options),
            notes: &options.notes,
            rounds: Rounds::default(),
        }
    }

    fn update(
        kind: &'a Kind,
        namespace: &'a str,
        part: Part,
        old: &'a Value,
        object: &'a mut Value,
        options: &'a Options,
    ) -> Self {
        let create = Self::create(kind, namespace, object, options);
        Self { operation: Operation::Update, part, old: Some(old), ..create }
    }

    fn delete(kind: &'a Kind, namespace: &'a str, old: &'a Value, options: &'a DeleteOptions) -> Self {
        Self {
            operation: Operation::Delete,
            kind,
            namespace,
            part: Part::Main,
            object: None,
            old: Some(old),
            dry_run: options.dry_run,
            user: &options.user,
            sent: Sent::Delete(options),
            notes: &options.notes,
            rounds: Rounds::default(),
        }
    }
}
