//! The table of kinds follows the definitions that are stored.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use onex_storage::{Page, Prefix, Storage};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    GROUP, PLURAL,
    definition::{self, Schemas},
    names::{self, Taken},
    status::{Condition, find, holds},
    text,
};
use crate::{
    Inner,
    kinds::{Kind, Kinds},
    registry::{Options, Part, Wanted},
    status::{Result, Status},
    window::{Snapshot, Window, Windows},
};

/// How soon something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The kind of definitions.
pub(super) fn definitions(kinds: &Kinds) -> Arc<Kind> {
    kinds.find(GROUP, "v1", PLURAL).expect("definitions are compiled in")
}

/// How far the table of kinds has followed the definitions.
pub(crate) struct Definitions {
    window: Arc<Window>,
    /// The table shows the definitions as of this revision.
    seen: watch::Sender<u64>,
}

impl Definitions {
    /// Declares the windows of what the store has definitions of, and puts their kinds into the table.
    pub(crate) async fn restore(kinds: &Kinds, windows: &Windows, storage: &dyn Storage) -> onex_storage::Result<Self> {
        let kind = definitions(kinds);
        let page = Page { prefix: Prefix(kind.prefix.as_str().into()), after: None, limit: None, at: None };
        let stored = storage.list(page).await?;
        let read = |entry: &onex_storage::Entry| serde_json::from_slice::<Value>(&entry.value).ok();
        let mut table = Vec::new();
        for mut crd in stored.entries.iter().filter_map(read).filter(|crd| holds(crd, "Established")) {
            let window = windows.declare(&definition::prefix(&crd), definition::paths(&crd));
            if let Ok(schemas) = definition::schemas_of(&crd) {
                definition::leave_out_schemas(&mut crd);
                table.extend(definition::kinds(&crd, &schemas, &window));
            }
        }
        kinds.define(table);
        let window = windows.of(&kind.prefix).expect("every kind that is compiled in has a window");
        Ok(Self { window, seen: watch::Sender::new(0) })
    }

    /// Told after every look at the definitions, which may have changed the table.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }

    /// Waits until the table shows every definition that anybody was told of, or for as long as `patience`.
    pub(crate) async fn settled(&self, windows: &Windows, patience: Duration) {
        if !windows.current(patience).await {
            return;
        }
        let newest = self.window.changed();
        let mut seen = self.seen.subscribe();
        let _ = tokio::time::timeout(patience, seen.wait_for(|seen| *seen >= newest)).await;
    }
}

/// Follows the definitions until `shutdown`.
pub(crate) async fn keep(server: Arc<Inner>, shutdown: CancellationToken) {
    let mut news = server.definitions.window.news();
    let mut keeper = Keeper { server, known: HashMap::new() };
    loop {
        news.borrow_and_update();
        let well = tokio::select! {
            () = shutdown.cancelled() => return,
            well = keeper.look() => well,
        };
        let again = async { if well { std::future::pending().await } else { tokio::time::sleep(AGAIN).await } };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = again => {}
            changed = news.changed() => if changed.is_err() { return },
        }
    }
}

/// What is known of one definition.
struct Known {
    revision: u64,
    /// It was read since its kinds were looked at.
    fresh: bool,
    /// The definition without its schemas, with the status that it is to have.
    crd: Value,
    /// The compiled schemas, or what is wrong with them.
    schemas: std::result::Result<Schemas, String>,
    /// What the schemas were compiled from.
    compiled: Value,
    kinds: Vec<Arc<Kind>>,
    /// What the kinds were made from, in which window.
    made: Option<(Value, Arc<Window>)>,
    /// The status is not stored yet.
    unsaid: Vec<Condition>,
}

struct Keeper {
    server: Arc<Inner>,
    known: HashMap<Arc<str>, Known>,
}

impl Keeper {
    /// Brings the table up to the definitions as they are. `false` if something is to be tried again.
    async fn look(&mut self) -> bool {
        let server = self.server.clone();
        let snapshot = server.definitions.window.snapshot();
        let gone = self.read(&snapshot);
        let now = server.registry.now();
        self.judge_names(&now);
        let well = self.establish(&now).await;
        self.publish();
        for prefix in &gone {
            server.windows.shut(prefix);
        }
        server.definitions.seen.send_replace(snapshot.revision);
        self.say(&now);
        well
    }

    /// Reads what changed. Answers the prefixes of what is gone.
    fn read(&mut self, snapshot: &Snapshot) -> Vec<String> {
        for (key, item) in &snapshot.items {
            if self.known.get(key).is_some_and(|known| known.revision == item.revision) {
                continue;
            }
            let mut crd = item.value();
            let compiled = serde_json::json!([crd["metadata"]["uid"], crd["metadata"]["generation"]]);
            let (schemas, kinds, made) = match self.known.remove(key) {
                Some(known) if known.compiled == compiled => (known.schemas, known.kinds, known.made),
                Some(known) => (schemas_of(&crd), known.kinds, known.made),
                None => (schemas_of(&crd), Vec::new(), None),
            };
            definition::leave_out_schemas(&mut crd);
            let (revision, unsaid) = (item.revision, Vec::new());
            let known = Known { revision, fresh: true, crd, schemas, compiled, kinds, made, unsaid };
            self.known.insert(key.clone(), known);
        }
        let mut gone = Vec::new();
        self.known.retain(|key, known| {
            let stays = snapshot.items.contains_key(key);
            if !stays && known.made.is_some() {
                gone.push(definition::prefix(&known.crd));
            }
            stays
        });
        gone
    }

    /// Gives names to those that want others than they have, the oldest first.
    fn judge_names(&mut self, now: &str) {
        let wants = |known: &Known| {
            let crd = &known.crd;
            !holds(crd, "NamesAccepted") || crd["spec"]["names"] != crd["status"]["acceptedNames"]
        };
        let mut waiting: Vec<Arc<str>> =
            self.known.iter().filter(|(_, known)| wants(known)).map(|(key, _)| key.clone()).collect();
        waiting.sort_by_cached_key(|key| {
            let metadata = &self.known[key].crd["metadata"];
            (text(metadata, "creationTimestamp").to_owned(), text(metadata, "name").to_owned())
        });
        for key in waiting {
            let group = text(&self.known[&key].crd["spec"], "group");
            let mut taken = Taken::default();
            self.server.kinds.builtin().iter().filter(|kind| kind.group == group).for_each(|kind| taken.add_kind(kind));
            let others = self.known.iter().filter(|(other, _)| **other != key);
            others
                .filter(|(_, known)| text(&known.crd["spec"], "group") == group)
                .for_each(|(_, known)| taken.add(&known.crd["status"]["acceptedNames"]));
            let known = self.known.get_mut(&key).expect("it was found there");
            known.fresh = true;
            let (accepted, condition) = names::judge(&known.crd, &taken);
            let mut changed = known.crd["status"]["acceptedNames"] != accepted;
            known.crd["status"]["acceptedNames"] = accepted;
            let mut conditions = vec![condition];
            if find(&known.crd, "Established").is_none() && !conditions[0].holds {
                conditions.push(Condition::new("Established", false, "NotAccepted", "not all names are accepted"));
            }
            for condition in conditions {
                if condition.set(&mut known.crd, now) || std::mem::take(&mut changed) {
                    known.unsaid.push(condition);
                }
            }
        }
    }

    /// Opens the windows and makes the kinds of those that may be served. `false` if a window could not be opened.
    async fn establish(&mut self, now: &str) -> bool {
        let server = self.server.clone();
        let mut well = true;
        for known in self.known.values_mut().filter(|known| known.fresh) {
            known.fresh = false;
            for condition in further(known) {
                if condition.set(&mut known.crd, now) {
                    known.unsaid.push(condition);
                }
            }
            let was = holds(&known.crd, "Established");
            let Some(schemas) = known.schemas.as_ref().ok().filter(|_| was || holds(&known.crd, "NamesAccepted"))
            else {
                continue;
            };
            let (prefix, paths) = (definition::prefix(&known.crd), definition::paths(&known.crd));
            let window = match server.windows.of(&prefix).filter(|window| window.paths() == paths) {
                Some(window) => window,
                None => match server.windows.open(&prefix, paths).await {
                    Ok(window) => window,
                    Err(error) => {
                        tracing::warn!(%prefix, %error, "the objects of a definition cannot be listed; trying again");
                        well = false;
                        known.fresh = true;
                        continue;
                    }
                },
            };
            let print = definition::fingerprint(&known.crd);
            let same =
                known.made.as_ref().is_some_and(|(made, in_window)| *made == print && Arc::ptr_eq(in_window, &window));
            if !same {
                known.kinds = definition::kinds(&known.crd, schemas, &window);
                known.made = Some((print, window));
            }
            if !was {
                let message = "the initial names have been accepted";
                let condition = Condition::new("Established", true, "InitialNamesAccepted", message);
                condition.set(&mut known.crd, now);
                known.unsaid.push(condition);
            }
        }
        well
    }

    /// Replaces the table, if it is another one.
    fn publish(&self) {
        let mut sorted: BTreeMap<(&str, &str), &[Arc<Kind>]> = BTreeMap::new();
        for known in self.known.values() {
            if let Some(first) = known.kinds.first() {
                sorted.insert((&first.group, &first.plural), &known.kinds);
            }
        }
        let wanted: Vec<Arc<Kind>> = sorted.into_values().flatten().cloned().collect();
        let table = self.server.kinds.table();
        let present = &table.kinds[self.server.kinds.builtin().len()..];
        if present.len() != wanted.len() || !present.iter().zip(&wanted).all(|(a, b)| Arc::ptr_eq(a, b)) {
            self.server.kinds.define(wanted);
        }
    }

    /// Stores what the statuses are to say. Nobody waits for that: admission may take its time over it, and the kinds are
    /// served already.
    fn say(&mut self, now: &str) {
        for known in self.known.values_mut().filter(|known| !known.unsaid.is_empty()) {
            let telling = Telling {
                server: self.server.clone(),
                seen: known.crd.clone(),
                conditions: std::mem::take(&mut known.unsaid),
                now: now.to_owned(),
            };
            tokio::spawn(telling.store());
        }
    }
}

/// A status on its way into the store.
struct Telling {
    server: Arc<Inner>,
    seen: Value,
    conditions: Vec<Condition>,
    now: String,
}

impl Telling {
    async fn store(self) {
        let kind = definitions(&self.server.kinds);
        let name = text(&self.seen["metadata"], "name");
        let change = |old: &Value| told(old, &self.seen, &self.conditions, &self.now);
        let options = Options { manager: "onex-apiserver".to_owned(), ..Options::default() };
        while !self.server.shutdown.is_cancelled() {
            match self.server.registry.update(&kind, "", name, Part::Status, &options, change).await {
                Ok(_) => return,
                Err(status) if matches!(status.code, 404 | 409) => return, // the news of it was another reason to look
                Err(status) => {
                    tracing::warn!(
                        name,
                        error = status.message,
                        "the status of a definition cannot be written; trying again"
                    );
                }
            }
            tokio::select! {
                () = self.server.shutdown.cancelled() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

/// The definition with the status that it is to have, if it is still the one that was seen.
fn told(old: &Value, seen: &Value, conditions: &[Condition], now: &str) -> Result<Wanted> {
    let same = |field: &str| old["metadata"][field] == seen["metadata"][field];
    if !same("uid") || !same("generation") {
        return Err(Status { code: 409, ..Status::internal("the definition changed meanwhile") });
    }
    let mut wanted = old.clone();
    wanted["status"]["acceptedNames"] = seen["status"]["acceptedNames"].clone();
    for condition in conditions {
        condition.set(&mut wanted, now);
    }
    Ok(wanted.into())
}

fn schemas_of(crd: &Value) -> std::result::Result<Schemas, String> {
    definition::schemas_of(crd).map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// Conditions besides those about names.
fn further(known: &Known) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if let Err(wrong) = &known.schemas {
        conditions.push(Condition::new("NonStructuralSchema", true, "Violations", wrong.as_str()));
    }
    if crate::builtin::definitions::is_protected(text(&known.crd["spec"], "group")) {
        let (holds, reason, message) = crate::builtin::definitions::approval(&known.crd);
        conditions.push(Condition::new("KubernetesAPIApprovalPolicyConformant", holds, reason, message));
    }
    conditions
}
