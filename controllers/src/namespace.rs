//! Empties namespaces that are being deleted, says in their conditions what is still in the way, and then lets them go.
//!
//! One pass: list what is left of every resource that lives in namespaces, delete what is not being deleted yet, list again,
//! write the conditions. A pass that finds nothing reads the resources anew, so that nothing of a kind that came later stays
//! behind, and takes the finalizer `kubernetes` off. What cannot be listed or deleted holds up this namespace, never its
//! other content and never other namespaces. Leftovers are no error: they are looked at again after a while, at most
//! [`LONGEST_PAUSE`] later.

use crate::context::Clock;
use crate::discovery::{Catalogue, Served};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, PartialObjectMeta, Request};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// The name under which changes are written.
const NAME: &str = "namespace-controller";
/// The finalizer, of the spec and not of the metadata, that this controller answers for.
const FINALIZER: &str = "kubernetes";
/// What a resource must offer for its objects to be removed.
const NEEDED: [&str; 2] = ["list", "delete"];
/// The first and the longest pause between two looks at a namespace that is not empty yet.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many resources of one namespace are emptied at the same time.
const TOGETHER: usize = 8;
/// How many objects are listed by one request.
const PAGE: u32 = 500;
/// Conditions that differ only in their counts are written at most this often: each write is an event for every watcher.
const QUIET: Duration = Duration::from_secs(2);
/// Several changes of a namespace in a row are answered by one pass. Our own conditions are such changes.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How namespaces are emptied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many namespaces are emptied at the same time.
    pub workers: u16,
    /// Seconds after which a request is given up, to be tried again later.
    pub request_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { workers: 8, request_seconds: 30 }
    }
}

/// Empties and releases deleted namespaces until `shutdown`, and returns when the passes that were begun are done.
pub async fn run(client: Client, settings: Settings, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let config = controller::Config::default().concurrency(settings.workers.max(1)).debounce(DEBOUNCE);
    let deleter = Arc::new(Deleter { client, settings, clock, catalogue: Mutex::default() });
    let mut failing = false;
    Controller::new(namespaces, watcher::Config::default())
        .with_config(config)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(
            guarded,
            |namespace, trouble, deleter| Action::requeue(trouble.pause(&namespace, deleter.clock.now())),
            deleter,
        )
        .for_each(|result| {
            report(&result, &mut failing);
            std::future::ready(())
        })
        .await;
}

type Passed<R> = Result<R, controller::Error<Trouble, watcher::Error>>;

fn report<R>(result: &Passed<R>, failing: &mut bool) {
    match result {
        Ok(_) => *failing = false,
        // The namespace is gone, which is all that was wanted.
        Err(controller::Error::ObjectNotFound(_)) => {}
        Err(controller::Error::ReconcilerFailed(Trouble::Changed, _)) => {}
        Err(error) if !*failing => {
            *failing = true;
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "deleted namespaces wait; this will be tried again"
            );
        }
        Err(error) => tracing::debug!(error = error as &dyn std::error::Error, "deleted namespaces still wait"),
    }
}

/// Why a pass could not be finished.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the namespace has changed since it was seen")]
    Changed,
    #[error("the apiserver did not answer in time")]
    TimedOut,
    #[error("the pass panicked")]
    Panicked,
    #[error("the apiserver refused")]
    Apiserver(#[from] kube::Error),
}

impl Trouble {
    /// As people should read it in a condition.
    fn words(&self) -> String {
        match self {
            Self::Apiserver(kube::Error::Api(status)) => status.message.clone(),
            Self::Apiserver(error) => error.to_string(),
            other => other.to_string(),
        }
    }

    fn is(&self, code: u16) -> bool {
        matches!(self, Self::Apiserver(kube::Error::Api(status)) if status.code == code)
    }

    fn pause(&self, namespace: &Namespace, now: Timestamp) -> Duration {
        match self {
            Self::Changed => DEBOUNCE,
            Self::TimedOut | Self::Panicked | Self::Apiserver(_) => pause_at_age(age(namespace, now)),
        }
    }
}

struct Deleter {
    client: Client,
    settings: Settings,
    clock: Arc<dyn Clock>,
    /// What the apiserver served when last asked; emptied when that has proved wrong.
    catalogue: Mutex<Option<Arc<Catalogue>>>,
}

/// A panic is a bug that costs this namespace a pass, and the others nothing.
async fn guarded(namespace: Arc<Namespace>, deleter: Arc<Deleter>) -> Result<Action, Trouble> {
    let pass = AssertUnwindSafe(reconcile(namespace, deleter));
    pass.catch_unwind().await.unwrap_or(Err(Trouble::Panicked))
}

async fn reconcile(namespace: Arc<Namespace>, deleter: Arc<Deleter>) -> Result<Action, Trouble> {
    if !awaits_us(&namespace) {
        return Ok(Action::await_change());
    }
    let catalogue = deleter.catalogue().await;
    let left = match &catalogue {
        Ok(catalogue) => deleter.sweep(catalogue, &namespace.name_any()).await,
        Err(trouble) => Leftovers::unknown(trouble),
    };
    if let (true, Ok(catalogue)) = (left.is_nothing(), &catalogue) {
        if deleter.reread().await? == *catalogue {
            deleter.finalize(&namespace).await?;
            return Ok(Action::await_change());
        }
        return Ok(Action::requeue(Duration::ZERO));
    }
    if !left.is_certain() {
        deleter.distrust_catalogue().await;
    }
    let now = deleter.clock.now();
    deleter.report(&namespace, &left, now).await?;
    Ok(Action::requeue(pause_at_age(age(&namespace, now))))
}

fn awaits_us(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    let ours = finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER));
    ours && namespace.metadata.deletion_timestamp.is_some()
}

fn age(namespace: &Namespace, now: Timestamp) -> Duration {
    let deleted = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    Duration::try_from(now.duration_since(deleted)).unwrap_or_default()
}

/// The longer a namespace has been waiting, the less a moment more matters.
fn pause_at_age(age: Duration) -> Duration {
    (age / 4).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

impl Deleter {
    async fn catalogue(&self) -> Result<Arc<Catalogue>, Trouble> {
        let mut cached = self.catalogue.lock().await;
        if let Some(catalogue) = &*cached {
            return Ok(catalogue.clone());
        }
        let catalogue = Arc::new(self.in_time(Catalogue::read(&self.client)).await?);
        *cached = Some(catalogue.clone());
        Ok(catalogue)
    }

    async fn reread(&self) -> Result<Arc<Catalogue>, Trouble> {
        self.distrust_catalogue().await;
        self.catalogue().await
    }

    async fn distrust_catalogue(&self) {
        *self.catalogue.lock().await = None;
    }

    /// Deletes what there is in a namespace and counts what stays.
    async fn sweep(&self, catalogue: &Catalogue, namespace: &str) -> Leftovers {
        let mut resources = catalogue.resources().to_vec();
        resources.retain(|served| served.namespaced && served.supports(&NEEDED));
        let swept: Vec<_> = futures::stream::iter(resources)
            .map(|served| async move {
                let result = self.clear(&served, namespace).await;
                (served, result)
            })
            .buffer_unordered(TOGETHER)
            .collect()
            .await;
        let mut left = Leftovers { undiscovered: catalogue.unavailable().to_vec(), ..Leftovers::default() };
        for (served, result) in swept {
            left.add(&served, result);
        }
        left
    }

    async fn clear(&self, served: &Served, namespace: &str) -> Result<Count, Trouble> {
        let before = self.count(served, namespace).await?;
        // What is being deleted already needs nothing more from us but patience.
        if before.undeleted == 0 {
            return Ok(before);
        }
        if served.supports(&["deletecollection"]) {
            self.delete_together(served, namespace).await?;
        } else {
            self.delete_one_by_one(served, namespace).await?;
        }
        self.count(served, namespace).await
    }

    async fn count(&self, served: &Served, namespace: &str) -> Result<Count, Trouble> {
        let mut count = Count::default();
        self.for_each_page(served, namespace, |page| page.iter().for_each(|object| count.add(object))).await?;
        Ok(count)
    }

    async fn for_each_page(
        &self,
        served: &Served,
        namespace: &str,
        mut visit: impl FnMut(&[PartialObjectMeta<DynamicObject>]),
    ) -> Result<(), Trouble> {
        let api = served.metadata(&self.client, namespace);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = self.in_time(api.list(&page)).await?;
            visit(&list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    async fn delete_together(&self, served: &Served, namespace: &str) -> Result<(), Trouble> {
        let api = served.metadata(&self.client, namespace);
        let request = Request::new(api.resource_url())
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .map_err(kube::Error::BuildRequest)?;
        // The answer lists whatever was deleted; it is read to its end and kept nowhere.
        self.in_time(async {
            let answer = self.client.request_stream(request).await?;
            let read = futures::io::copy(answer, &mut futures::io::sink()).await;
            read.map(drop).map_err(kube::Error::ReadEvents)
        })
        .await
    }

    async fn delete_one_by_one(&self, served: &Served, namespace: &str) -> Result<(), Trouble> {
        let api = served.metadata(&self.client, namespace);
        let mut objects = Vec::new();
        let undeleted = |object: &&PartialObjectMeta<DynamicObject>| object.metadata.deletion_timestamp.is_none();
        self.for_each_page(served, namespace, |page| {
            objects.extend(page.iter().filter(undeleted).map(|object| (object.name_any(), object.uid())));
        })
        .await?;
        for (name, uid) in objects {
            let parameters = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                preconditions: Some(Preconditions { uid, resource_version: None }),
                ..DeleteParams::default()
            };
            match self.in_time(api.delete(&name, &parameters)).await {
                // Gone, or another object by now: the next count tells.
                Err(trouble) if trouble.is(404) || trouble.is(409) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    async fn report(&self, namespace: &Namespace, left: &Leftovers, now: Timestamp) -> Result<(), Trouble> {
        let written = namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let Some(conditions) = updated(written, &left.findings(), now) else {
            return Ok(());
        };
        let change = Patch::Merge(json!({
            "metadata": {"resourceVersion": namespace.metadata.resource_version},
            "status": {"phase": "Terminating", "conditions": conditions},
        }));
        let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
        let api: Api<Namespace> = Api::all(self.client.clone());
        settled(self.in_time(api.patch_status(&namespace.name_any(), &parameters, &change)).await)
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), Trouble> {
        let mut released = namespace.clone();
        if let Some(finalizers) = released.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let (name, parameters) = (namespace.name_any(), PostParams::default());
        settled(self.in_time(api.replace_subresource("finalize", &name, &parameters, &released)).await)
    }

    async fn in_time<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
        let limit = Duration::from_secs(self.settings.request_seconds.max(1));
        Ok(tokio::time::timeout(limit, request).await.map_err(|_| Trouble::TimedOut)??)
    }
}

/// A namespace that is gone needs no writing; one that has changed is looked at again as it is now.
fn settled(result: Result<Namespace, Trouble>) -> Result<(), Trouble> {
    match result {
        Err(trouble) if trouble.is(404) => Ok(()),
        Err(trouble) if trouble.is(409) => Err(Trouble::Changed),
        other => other.map(drop),
    }
}

/// The objects of one resource in one namespace.
#[derive(Debug, Default)]
struct Count {
    objects: usize,
    undeleted: usize,
    finalizers: BTreeMap<String, usize>,
}

impl Count {
    fn add(&mut self, object: &PartialObjectMeta<DynamicObject>) {
        self.objects += 1;
        self.undeleted += usize::from(object.metadata.deletion_timestamp.is_none());
        for finalizer in object.finalizers() {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
}

/// What is still in a namespace after a pass, and what could not be found out.
#[derive(Debug, Default)]
struct Leftovers {
    undiscovered: Vec<String>,
    failures: Vec<String>,
    objects: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Leftovers {
    fn unknown(trouble: &Trouble) -> Self {
        Self { undiscovered: vec![trouble.words()], ..Self::default() }
    }

    fn add(&mut self, served: &Served, result: Result<Count, Trouble>) {
        match result {
            Err(trouble) => self.failures.push(format!("{}: {}", served.qualified(), trouble.words())),
            Ok(count) if count.objects == 0 => {}
            Ok(count) => {
                // Kubernetes writes the dot also for resources without a group, and people search for that text.
                let resource = format!("{}.{}", served.resource.plural, served.resource.group);
                self.objects.insert(resource, count.objects);
                for (finalizer, objects) in count.finalizers {
                    *self.finalizers.entry(finalizer).or_default() += objects;
                }
            }
        }
    }

    /// Whether everything was found out.
    fn is_certain(&self) -> bool {
        self.undiscovered.is_empty() && self.failures.is_empty()
    }

    fn is_nothing(&self) -> bool {
        self.is_certain() && self.objects.is_empty()
    }

    fn findings(&self) -> [Finding; 5] {
        [self.discovery(), parsing(), self.deletion(), self.content(), self.held_by_finalizers()]
    }

    fn discovery(&self) -> Finding {
        let groups = self.undiscovered.join(", ");
        let failed = format!("Discovery failed for some groups, {} failing: {groups}", self.undiscovered.len());
        Finding {
            kind: "NamespaceDeletionDiscoveryFailure",
            problem: (!self.undiscovered.is_empty()).then_some(("DiscoveryFailed", failed)),
            otherwise: ("ResourcesDiscovered", "All resources successfully discovered"),
        }
    }

    fn deletion(&self) -> Finding {
        let mut failures = self.failures.clone();
        failures.sort();
        let failed =
            format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", "));
        Finding {
            kind: "NamespaceDeletionContentFailure",
            problem: (!failures.is_empty()).then_some(("ContentDeletionFailed", failed)),
            otherwise: ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        }
    }

    fn content(&self) -> Finding {
        let counts = self.objects.iter().map(|(resource, count)| format!("{resource} has {count} resource instances"));
        let remain = format!("Some resources are remaining: {}", joined(counts));
        Finding {
            kind: "NamespaceContentRemaining",
            problem: (!self.objects.is_empty()).then_some(("SomeResourcesRemain", remain)),
            otherwise: ("ContentRemoved", "All content successfully removed"),
        }
    }

    fn held_by_finalizers(&self) -> Finding {
        let counts =
            self.finalizers.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"));
        let remain = format!("Some content in the namespace has finalizers remaining: {}", joined(counts));
        Finding {
            kind: "NamespaceFinalizersRemaining",
            problem: (!self.finalizers.is_empty()).then_some(("SomeFinalizersRemain", remain)),
            otherwise: ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        }
    }
}

/// Group versions come to us as values, so there is nothing that could fail; clients expect the condition all the same.
fn parsing() -> Finding {
    Finding {
        kind: "NamespaceDeletionGroupVersionParsingFailure",
        problem: None,
        otherwise: ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// One condition as it should read: the problem, or the reason and message of there being none.
struct Finding {
    kind: &'static str,
    problem: Option<(&'static str, String)>,
    otherwise: (&'static str, &'static str),
}

impl Finding {
    fn condition(&self, now: Timestamp) -> NamespaceCondition {
        let (reason, message) = match &self.problem {
            Some((reason, message)) => (*reason, message.clone()),
            None => (self.otherwise.0, self.otherwise.1.to_owned()),
        };
        NamespaceCondition {
            type_: self.kind.to_owned(),
            status: if self.problem.is_some() { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }
    }
}

/// The conditions with `findings` in them, or `None` when writing them would tell nothing new, or too little too soon.
fn updated(written: &[NamespaceCondition], findings: &[Finding], now: Timestamp) -> Option<Vec<NamespaceCondition>> {
    let mut conditions = written.to_vec();
    let mut worth_it = false;
    for new in findings.iter().map(|finding| finding.condition(now)) {
        let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
            worth_it = true;
            conditions.push(new);
            continue;
        };
        let turned = (&old.status, &old.reason) != (&new.status, &new.reason);
        if turned || old.message != new.message {
            worth_it |= turned || !is_recent(old, now);
            *old = new;
        }
    }
    worth_it.then_some(conditions)
}

fn is_recent(condition: &NamespaceCondition, now: Timestamp) -> bool {
    let written = condition.last_transition_time.as_ref();
    written.is_some_and(|written| now.duration_since(written.0).unsigned_abs() < QUIET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::ApiResource;
    use kube::runtime::wait::await_condition;

    fn served(group: &str, plural: &str) -> Served {
        let resource = ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version: format!("{group}/v1"),
            kind: plural.to_owned(),
            plural: plural.to_owned(),
        };
        Served { resource, namespaced: true, verbs: NEEDED.map(str::to_owned).into() }
    }

    fn count(objects: usize, finalizers: &[(&str, usize)]) -> Count {
        let finalizers = finalizers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Count { objects, undeleted: 0, finalizers }
    }

    fn told(left: &Leftovers) -> Vec<(String, String, String)> {
        let conditions = left.findings().into_iter().map(|finding| finding.condition(Timestamp::UNIX_EPOCH));
        conditions.map(|c| (c.status, c.reason.unwrap(), c.message.unwrap())).collect()
    }

    fn timestamp(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn leftovers_are_told_with_their_numbers_and_their_finalizers() {
        let mut left = Leftovers::default();
        left.add(&served("apps.onex.io", "miners"), Ok(count(3, &[("miner.onex.io", 2)])));
        left.add(&served("", "pods"), Ok(count(1, &[("miner.onex.io", 1), ("orphan", 1)])));
        left.add(&served("", "secrets"), Ok(count(0, &[])));
        assert!(!left.is_nothing() && left.is_certain());
        let told = told(&left);
        assert_eq!(told[3].0, "True");
        assert_eq!(told[3].1, "SomeResourcesRemain");
        assert_eq!(
            told[3].2,
            "Some resources are remaining: miners.apps.onex.io has 3 resource instances, pods. has 1 resource instances"
        );
        assert_eq!(
            told[4].2,
            "Some content in the namespace has finalizers remaining: \
             miner.onex.io in 3 resource instances, orphan in 1 resource instances"
        );
        assert!(told[..3].iter().all(|(status, ..)| status == "False"), "{told:?}");
    }

    #[test]
    fn what_cannot_be_found_out_is_told_and_keeps_the_namespace() {
        let mut left = Leftovers { undiscovered: vec!["metrics.example/v1".to_owned()], ..Leftovers::default() };
        left.add(&served("", "pods"), Err(Trouble::TimedOut));
        assert!(!left.is_nothing());
        let told = told(&left);
        assert_eq!(told[0].2, "Discovery failed for some groups, 1 failing: metrics.example/v1");
        assert_eq!(
            told[2].2,
            "Failed to delete all resource types, 1 remaining: pods: the apiserver did not answer in time"
        );
        assert_eq!((told[3].0.as_str(), told[3].1.as_str()), ("False", "ContentRemoved"));
    }

    #[test]
    fn all_five_conditions_are_written_at_first_and_others_are_left_alone() {
        let foreign =
            NamespaceCondition { type_: "Foreign".to_owned(), status: "True".to_owned(), ..Default::default() };
        let conditions =
            updated(std::slice::from_ref(&foreign), &Leftovers::default().findings(), timestamp(0)).unwrap();
        assert_eq!(conditions.len(), 6);
        assert_eq!(conditions[0], foreign);
    }

    #[test]
    fn the_same_findings_are_written_once() {
        let findings = Leftovers::default().findings();
        let conditions = updated(&[], &findings, timestamp(0)).unwrap();
        assert_eq!(updated(&conditions, &findings, timestamp(100)), None);
    }

    #[test]
    fn mere_counts_are_written_now_and_then_but_a_turn_at_once() {
        let left = |objects| {
            let mut left = Leftovers::default();
            left.add(&served("", "pods"), Ok(count(objects, &[])));
            left
        };
        let conditions = updated(&[], &left(9).findings(), timestamp(0)).unwrap();
        assert_eq!(updated(&conditions, &left(8).findings(), timestamp(1)), None, "a count, too soon");
        let later = updated(&conditions, &left(7).findings(), timestamp(5)).unwrap();
        assert!(later[3].message.as_ref().unwrap().ends_with("pods. has 7 resource instances"));
        assert_eq!(later[0].last_transition_time, Some(Time(timestamp(0))), "what stayed the same keeps its time");
        let turned = updated(&conditions, &left(0).findings(), timestamp(1)).unwrap();
        assert_eq!(turned[3].status, "False");
    }

    #[test]
    fn b34_pauses_grow_with_age_between_their_bounds() {
        assert_eq!(pause_at_age(Duration::ZERO), FIRST_PAUSE);
        assert_eq!(pause_at_age(Duration::from_secs(8)), Duration::from_secs(2));
        assert_eq!(pause_at_age(Duration::from_secs(86_400)), LONGEST_PAUSE);
    }

    #[test]
    fn only_a_deleted_namespace_with_our_finalizer_is_worked_on() {
        let namespace = |deleted: bool, finalizers: &[&str]| -> Namespace {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
                "spec": {"finalizers": finalizers},
            }))
            .unwrap()
        };
        assert!(awaits_us(&namespace(true, &["other", "kubernetes"])));
        assert!(!awaits_us(&namespace(true, &["other"])));
        assert!(!awaits_us(&namespace(false, &["kubernetes"])));
    }

    #[tokio::test]
    async fn conditions_are_dated_by_the_clock_that_was_passed_in() {
        struct Stopped;
        impl Clock for Stopped {
            fn now(&self) -> Timestamp {
                timestamp(1_000_000_000)
            }
        }
        let (client, _stop) = crate::tests::a_platform().await;
        let namespaces = Api::<Namespace>::all(client.clone());
        let maps = Api::<ConfigMap>::namespaced(client.clone(), "doomed");
        let held = json!({"metadata": {"name": "held", "finalizers": ["test.onex.io/hold"]}});
        maps.create(&PostParams::default(), &serde_json::from_value(held).unwrap()).await.unwrap();
        namespaces.delete("doomed", &DeleteParams::default()).await.unwrap();
        tokio::spawn(run(client, Settings::default(), Arc::new(Stopped), CancellationToken::new()));
        let conditions = |namespace: Option<&Namespace>| namespace?.status.as_ref()?.conditions.clone();
        let told = |namespace: Option<&Namespace>| conditions(namespace).is_some_and(|told| !told.is_empty());
        let namespace = await_condition(namespaces, "doomed", told).await.unwrap();
        let told = conditions(namespace.as_ref()).unwrap();
        assert!(told.iter().all(|told| told.last_transition_time == Some(Time(timestamp(1_000_000_000)))), "{told:?}");
    }
}
