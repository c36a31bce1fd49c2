//! Webhooks: what is asked of others before a write.
//!
//! A configuration is compiled when it changes, never for a request; while there is none, a write costs a comparison of two
//! numbers. The mutating ones are asked one after the other, in the order of their configurations' names; the validating
//! ones all at once, when the object is what will be stored.
//!
//! Nobody is asked about webhook configurations themselves, in exempt namespaces, about what the apiserver writes of its
//! own, and about what parts of the platform report (a Node's heartbeat, a status, an Event): otherwise a webhook that is
//! dead could not be removed, and would make Nodes look dead as well. What parts of the platform want (a Pod of a Miner) is
//! asked about like anybody's wish.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use super::{Admit, Review, Validate};
use crate::{
    Settings,
    authz::Authorizer,
    kinds::Kind,
    meta, patch,
    registry::{self, Part, Registry},
    status::{Result, Status},
    window::{Window, Windows},
};

mod call;
mod condition;
mod hook;
mod question;
mod trust;

use call::Dial;
pub(crate) use condition::check as check_conditions;
use hook::Hook;
use question::{Asked, Verdict};

/// What a configuration was compiled to, and at which revision it was.
type Compiled = (u64, Vec<Arc<Hook>>);

/// The webhooks of one kind of configuration.
pub(super) struct Webhooks {
    authorizer: Arc<Authorizer>,
    window: Arc<Window>,
    dial: Dial,
    budget: Duration,
    exempt: Vec<String>,
    /// The newest change of the window that `compiled` shows.
    seen: AtomicU64,
    any: AtomicBool,
    compiled: RwLock<Arc<[Arc<Hook>]>>,
    /// By their names.
    configurations: Mutex<HashMap<Arc<str>, Compiled>>,
}

/// How often the rules were asked of one write, and what webhooks did so far.
#[derive(Default)]
pub struct Rounds {
    /// The rules are asked again.
    again: bool,
    /// A webhook changed the object.
    changed: bool,
    /// Those who want to be asked again if another one changes the object, and were asked already.
    invoked: Vec<Arc<Hook>>,
    /// Those who must be asked again.
    due: Vec<Arc<Hook>>,
    /// The object after the last webhook of the first round.
    last: Option<Value>,
}

impl Rounds {
    /// Whether the rules are to be asked once more. Only ever once.
    pub(crate) fn next(&mut self) -> bool {
        let again = self.changed && !self.again;
        self.again |= again;
        again
    }
}

impl Webhooks {
    pub(super) fn new(settings: &Settings, windows: &Arc<Windows>, authorizer: &Arc<Authorizer>, prefix: &str) -> Self {
        Self {
            authorizer: authorizer.clone(),
            window: windows.of(prefix).expect("webhook configurations are compiled in"),
            dial: Dial::new(windows),
            budget: Duration::from_secs(settings.webhook_budget_seconds),
            exempt: settings.webhook_exempt_namespaces.clone(),
            seen: AtomicU64::new(u64::MAX),
            any: AtomicBool::new(false),
            compiled: RwLock::new(Arc::new([])),
            configurations: Mutex::default(),
        }
    }

    /// The webhooks as they are configured now; nothing if there are none.
    ///
    /// A request sees the windows as of all that anybody was told of, so whoever configured a webhook is asked at once.
    fn current(&self) -> Option<Arc<[Arc<Hook>]>> {
        if self.window.changed() != self.seen.load(Ordering::Acquire) {
            self.compile();
        }
        self.any.load(Ordering::Acquire).then(|| self.compiled.read().clone())
    }

    /// Compiles what changed. What did not keeps its connections.
    fn compile(&self) {
        let mut before = self.configurations.lock();
        let changed = self.window.changed();
        let snapshot = self.window.snapshot();
        let (mut after, mut all) = (HashMap::new(), Vec::new());
        for item in snapshot.items.values() {
            let kept = before.remove(&item.key).filter(|(revision, _)| *revision == item.revision);
            let (revision, hooks) = kept
                .unwrap_or_else(|| (item.revision, hook::compile(&item.stored.value_without_managers(), &self.dial)));
            all.extend(hooks.iter().cloned());
            after.insert(item.key.clone(), (revision, hooks));
        }
        *before = after;
        self.any.store(!all.is_empty(), Ordering::Release);
        *self.compiled.write() = all.into();
        // What changed since will be looked at by the next request.
        self.seen.store(changed, Ordering::Release);
    }

    fn is_exempt(&self, review: &Review<'_>) -> bool {
        let kind = review.kind;
        let namespace = question::namespace(review);
        (kind.group == "admissionregistration.k8s.io" && !kind.namespaced)
            || review.user.name.is_empty()
            || self.exempt.iter().any(|exempt| exempt == namespace)
            || (review.user.is_own_part() && is_report(review))
    }

    fn hooks(&self, review: &Review<'_>) -> Option<Arc<[Arc<Hook>]>> {
        self.current().filter(|_| !self.is_exempt(review))
    }

    /// Asks one webhook. No verdict: it was not answered, and that is to be ignored.
    async fn ask(&self, hook: &Hook, asked: &Asked, review: &Review<'_>) -> Result<Option<Verdict>> {
        if review.dry_run && !hook.is_without_side_effects {
            return Err(Status::bad_request(format!("admission webhook {:?} does not support dry run", hook.name)));
        }
        let until = review.notes.webhooks_until(self.budget);
        match hook.ask(asked, review, until).await {
            Ok(verdict) => {
                for (key, value) in &verdict.annotations {
                    review.notes.annotate(format!("{}/{key}", hook.name), value.clone());
                }
                verdict.warnings.iter().for_each(|warning| review.notes.warn(warning.clone()));
                Ok(Some(verdict))
            }
            Err(why) if hook.ignores_failure => {
                tracing::warn!(webhook = hook.name, why, "a webhook does not answer; it is ignored, as configured");
                review.notes.annotate(hook.failed_open(), hook.name.clone());
                Ok(None)
            }
            Err(why) => {
                tracing::warn!(webhook = hook.name, why, "a webhook does not answer; the write is refused");
                Err(Status::internal(format!("failed calling webhook {:?}: {why}", hook.name)))
            }
        }
    }
}

/// A word on how things are, rather than on how they should be.
fn is_report(review: &Review<'_>) -> bool {
    let kind = review.kind;
    matches!(review.part, Part::Status | Part::Finalize)
        || matches!(
            (kind.group.as_str(), kind.plural.as_str()),
            ("" | "events.k8s.io", "events") | ("", "nodes") | ("coordination.k8s.io", "leases")
        )
}

/// Asks the webhooks that may change the object.
pub(super) struct Mutating(pub(super) Webhooks);

#[async_trait]
impl Admit for Mutating {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    async fn admit(&self, review: &mut Review<'_>, registry: &Registry) -> Result<()> {
        let Some(hooks) = self.0.hooks(review) else { return Ok(()) };
        if review.rounds.again && review.rounds.last.as_ref() != review.object.as_deref() {
            // A rule of ours changed what a webhook had made.
            review.rounds.due = review.rounds.invoked.clone();
        }
        for hook in hooks.iter() {
            if review.rounds.again && !review.rounds.due.iter().any(|due| Arc::ptr_eq(due, hook)) {
                continue; // who was not asked before is not asked again
            }
            let Some(asked) = hook.concerns(review, registry, &self.0.authorizer)? else { continue };
            let verdict = self.0.ask(hook, &asked, review).await?;
            if let Some(verdict) = verdict {
                verdict.hold(&hook.name)?;
                if !verdict.patch.is_empty() && change(hook, asked, &verdict.patch, review)? {
                    review.rounds.changed = true;
                    review.rounds.due = review.rounds.invoked.clone();
                }
            }
            if hook.wants_reinvocation && !review.rounds.again {
                review.rounds.invoked.push(hook.clone());
            }
        }
        if review.rounds.changed && !review.rounds.again {
            review.rounds.last = review.object.as_deref().cloned();
        }
        Ok(())
    }
}

/// Applies the patch of a webhook. Answers whether it changed anything.
fn change(hook: &Hook, asked: Asked, operations: &[u8], review: &mut Review<'_>) -> Result<bool> {
    let nowhere = || {
        let why = "attempted to modify the object, which is not supported for this operation";
        Status::internal(format!("admission webhook {:?} {why}", hook.name))
    };
    if serde_json::from_slice::<Vec<Value>>(operations).is_ok_and(|operations| operations.is_empty()) {
        return Ok(false);
    }
    let (Some(object), Some(shown)) = (review.object.as_deref_mut(), &asked.object) else { return Err(nowhere()) };
    let wrong = |why: &dyn std::fmt::Display| {
        Status::internal(format!("the patch of admission webhook {:?} does not apply: {why}", hook.name))
    };
    let mut patched = patch::json(shown, operations).map_err(|status| wrong(&status.message))?;
    if patched == *shown {
        return Ok(false);
    }
    match review.part {
        Part::Scale => {
            let paths = review.kind.scale.as_ref().ok_or_else(nowhere)?;
            let replicas = patched["spec"]["replicas"].as_i64().unwrap_or_default();
            crate::handlers::scale::put(object, &paths.spec, replicas.max(0).into());
            return Ok(true);
        }
        Part::Binding => return Err(nowhere()),
        _ => {}
    }
    for field in ["apiVersion", "kind"] {
        if patched[field] != shown[field] {
            return Err(wrong(&format!("it changes {field}")));
        }
    }
    let shape = asked.kind.decode(&mut patched); // also takes out what the kind does not know
    if let Some(why) = shape.wrong {
        return Err(wrong(&why));
    }
    let mut changed = asked.stored(patched, review.kind);
    hold_identity(review.kind, object, &mut changed)?;
    if let Some(old) = review.old {
        registry::keep(review.kind, review.part, old, &mut changed)?;
    }
    if review.part == Part::Main {
        review.kind.fill(&mut changed);
        (review.kind.hooks.prepare)(&mut changed, review.old);
    }
    meta::leave_out_empty(&mut changed["metadata"]);
    let really = changed != *object;
    *object = changed;
    Ok(really)
}

/// Which object it is, and what only the server sets, is no webhook's to say.
fn hold_identity(kind: &Kind, before: &Value, after: &mut Value) -> Result<()> {
    let was = &before["metadata"];
    for field in ["name", "namespace", "uid"] {
        if was[field] != after["metadata"][field] {
            let value = after["metadata"][field].clone();
            let cause = onex_crds::Invalid::value(format!("metadata.{field}"), value, "field is immutable");
            let name = was["name"].as_str().unwrap_or_default();
            return Err(Status::invalid(&kind.group, &kind.kind, name, &[cause]));
        }
    }
    let after = after["metadata"].as_object_mut().expect("it has a name, as was seen above");
    after.remove("managedFields");
    let servers =
        ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"];
    for field in servers {
        match was.get(field) {
            Some(value) => after.insert(field.to_owned(), value.clone()),
            None => after.remove(field),
        };
    }
    Ok(())
}

/// Asks the webhooks that only say yes or no.
pub(super) struct Validating(pub(super) Webhooks);

#[async_trait]
impl Validate for Validating {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    async fn validate(&self, review: &Review<'_>, registry: &Registry) -> Result<()> {
        let Some(hooks) = self.0.hooks(review) else { return Ok(()) };
        let mut concerned = Vec::new();
        for hook in hooks.iter() {
            if let Some(asked) = hook.concerns(review, registry, &self.0.authorizer)? {
                concerned.push((hook, asked));
            }
        }
        let ask = |(hook, asked): (&Arc<Hook>, Asked)| {
            let hook = hook.clone();
            async move {
                match self.0.ask(&hook, &asked, review).await? {
                    Some(verdict) => verdict.hold(&hook.name),
                    None => Ok(()),
                }
            }
        };
        join_all(concerned.into_iter().map(ask)).await.into_iter().collect()
    }
}
