//! A Miner is realised as one Pod, and the genesis of a chain as one Service besides. Step 9 of `kubectl apply`.

pub(crate) mod phase;
pub(crate) mod pod;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use onex_crds::conditions::{self, POD_HEALTHY, REASON_POD_REPLACED, SERVICE_CREATED};
use onex_crds::{CHAIN_NAMESPACE, Chain, Condition, FailureReason, Miner, MinerSet, Severity, names};
use serde_json::{Value, json};

use crate::context::{Context, News};
use crate::error::{Error, Result, ignore_gone, in_time, is_gone};
use crate::report::{self, missing, params, plain, post};
use crate::{MinerType, Settings, is_paused, namespace};

/// How often a Miner is looked at that waits for something that may not announce itself.
const IMPATIENCE: Duration = Duration::from_secs(15);

/// How long the cluster of the Pods may take to answer. A fraction of a pass, so that what is next can still be done: a
/// Miner must be able to go although nobody answers.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// What there is of a Miner.
#[derive(Debug, Default)]
struct Seen {
    /// The Pod of its name, whoever it belongs to.
    pod: Option<Pod>,
    /// Its Chain; only asked for when a Pod may have to be made.
    chain: Option<Chain>,
    /// The Service of its chain's name, whoever it belongs to; only looked for when it is a genesis.
    service: Option<Service>,
    /// Why not everything could be looked for. What is to go must be able to, whatever becomes of the cluster of its Pod;
    /// all other Miners wait for a better view.
    trouble: Option<Error>,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plan {
    steps: Vec<Step>,
    /// What to tell people besides.
    news: Vec<News>,
    /// When to look again without being called; otherwise when all is quiet.
    wait: Option<Duration>,
    /// Why the Miner cannot work until somebody changes something.
    failure: Option<(FailureReason, String)>,
    /// What to say of the Pod's health instead of what the Pod says.
    health: Option<Condition>,
    /// Why a genesis has no Service, if it cannot have one.
    service: Option<Condition>,
    /// Whether the Miner goes although its Pod or Service could not be deleted: it has waited for as long as it should.
    regardless: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Merge into the Miner's metadata.
    Mark(Value),
    /// Make the Pod.
    CreatePod(Box<Pod>),
    /// Merge into the Pod.
    ChangePod(Value),
    /// Let the Pod go.
    DeletePod,
    /// Make the genesis Service.
    CreateService(Box<Service>),
    /// Merge into the genesis Service of this name.
    ChangeService(String, Value),
    /// Let the genesis Service go.
    DeleteService(Box<Service>),
    /// Let the Miner go: the last step there is.
    Release,
}

/// How soon a Miner is told of whose Pod has just been made or deleted, unless more happens before.
const SOON: Duration = Duration::from_millis(100);

/// How long the name of a Pod that is gone stays free. Conditions know whole seconds, so it is half of this at least.
const ABSENCE: Duration = Duration::from_secs(2);

/// What is known of a Miner after the plan was followed.
#[derive(Clone, Debug)]
struct Sight {
    /// The Pod that is the Miner's.
    pod: Option<Pod>,
    health: Condition,
    /// Why a genesis has no Service, if it cannot have one.
    service: Option<Condition>,
    failure: Option<(FailureReason, String)>,
}

/// What came of a plan.
#[derive(Debug)]
struct Outcome {
    /// The Miner as the apiserver last answered.
    miner: Miner,
    /// Its Pod likewise.
    pod: Option<Pod>,
    /// Whether the Miner was let go.
    released: bool,
    /// What went wrong; the steps after it were not taken.
    error: Option<Error>,
}

/// One pass over one Miner.
pub(crate) async fn reconcile(miner: Arc<Miner>, context: Arc<Context>) -> Result<Action> {
    if is_paused(&*miner) {
        return Ok(Action::await_change());
    }
    let miner = context.views.miners.freshest(miner);
    let mut seen = Seen::default();
    let looked = in_time(LONGEST_ANSWER, "see what there is of the Miner", observe(&miner, &mut seen, &context)).await;
    match looked {
        Err(error) if !is_deleting(&*miner) => return Err(error),
        looked => seen.trouble = looked.err(),
    }
    let now = context.clock.now();
    let plan = plan(&miner, &seen, &context.settings, context.provider_is_home, now);
    let mut outcome = act(&miner, &plan, &seen, &context).await;
    if outcome.released {
        return Ok(Action::await_change());
    }
    if outcome.error.is_none() && seen.trouble.is_none() && changes_soon(&plan, is_deleting(&*miner)) {
        return Ok(Action::requeue(SOON));
    }
    outcome.error = outcome.error.or(seen.trouble);
    let sight = sight(&plan, &outcome);
    let status = phase::status(&outcome.miner, &sight, outcome.error.is_none(), &context.settings, now);
    let reported = report::written(&miners(&miner, &context)?, &outcome.miner, &status).await;
    let reported = reported.map(|written| written.map(|miner| context.views.miners.wrote_own(miner)).is_some());
    if let (Ok(true), Some(pod), false) = (&reported, &status.pod_ref, had_pod(&outcome.miner)) {
        let note = format!("found pod {}", pod.name.as_deref().unwrap_or_default());
        let news = News::normal("SuccessfulSetPodRef", note).about(pod.clone());
        context.tell(&miner.object_ref(&()), &news).await;
    }
    match outcome.error {
        Some(error) => Err(error),
        None => reported.map(|_| context.settings.next_look(plan.wait)),
    }
}

/// Whether what was just done is about to show, so that telling of it can wait: it would be told of twice within a moment.
fn changes_soon(plan: &Plan, deleting: bool) -> bool {
    let shows = |step: &Step| match step {
        Step::CreatePod(_) => true,
        // A Pod that makes room for another one is told of, so that its end is no loss.
        Step::DeletePod => deleting,
        _ => false,
    };
    plan.failure.is_none() && plan.steps.iter().any(shows)
}

async fn observe(miner: &Miner, seen: &mut Seen, context: &Context) -> Result<()> {
    let name = miner.name_any();
    seen.pod = context.views.pods.get(namespace(miner)?, &name).map(|pod| (*pod).clone());
    // That it is not seen does not say that it is not there. Only a new Miner tries its luck: a Pod of that name would collide.
    let is_new = miner.status.as_ref().is_none_or(|status| status.conditions.is_empty());
    if seen.pod.is_none() && (is_deleting(miner) || !is_new) {
        let pod = pods(miner, context)?.get_opt(&name).await.map_err(Error::doing("look for the Pod"))?;
        seen.pod = pod.map(|pod| (*context.views.pods.wrote(pod)).clone());
    }
    if seen.pod.is_some() {
        let chain = context.views.chains.get(CHAIN_NAMESPACE, &miner.spec.chain_name);
        seen.chain = chain.map(|chain| (*chain).clone());
    } else if !is_deleting(miner) {
        seen.chain = context.chain(&miner.spec.chain_name).await?.map(|chain| (*chain).clone());
    }
    if let Some(chain) = miner.genesis_of() {
        seen.service =
            services(miner, context)?.get_opt(chain).await.map_err(Error::doing("look for the genesis Service"))?;
    }
    Ok(())
}

fn plan(miner: &Miner, seen: &Seen, settings: &Settings, home: bool, now: Timestamp) -> Plan {
    if is_deleting(miner) { farewell(miner, seen, now) } else { upkeep(miner, seen, settings, home, now) }
}

/// What is to be done for a Miner that should be there.
fn upkeep(miner: &Miner, seen: &Seen, settings: &Settings, home: bool, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    plan.steps.extend(mark(miner, settings).map(Step::Mark));
    let Some(miner_type) = settings.types.get(&miner.spec.miner_type) else {
        let message = format!("the miner type {:?} is in no table", miner.spec.miner_type);
        if seen.pod.is_none() {
            let reason = conditions::REASON_MINER_TYPE_UNSUPPORTED;
            plan.health = Some(Condition::no(POD_HEALTHY, Severity::Error, reason, message.as_str()));
        }
        // Told once: the status remembers it.
        if miner.status.as_ref().and_then(|status| status.failure_message.as_ref()) != Some(&message) {
            plan.news.push(News::warning("MinerTypeUnsupported", message.as_str()));
        }
        plan.failure = Some((FailureReason::InvalidConfiguration, message));
        return plan;
    };
    match &seen.pod {
        Some(pod) if !pod::belongs(pod, miner) => {
            let message = format!("the Pod {} is there and belongs to somebody else", phase::named(pod));
            plan.health =
                Some(Condition::no(POD_HEALTHY, Severity::Warning, conditions::REASON_POD_PROVISIONING, message));
            plan.wait = Some(IMPATIENCE);
        }
        Some(pod) if is_replaced(miner, pod, seen.chain.as_ref(), settings) => {
            plan.steps.extend((!is_deleting(pod)).then_some(Step::DeletePod));
            let message = "the Pod is going, and is to be created again";
            plan.health = Some(Condition::no(POD_HEALTHY, Severity::Warning, REASON_POD_REPLACED, message));
        }
        Some(pod) => plan.steps.extend(keep(miner, pod, home)),
        None => match (absence(miner, now), &seen.chain) {
            (Some(wait), _) => plan.leaves_its_name_alone(miner, wait),
            (None, Some(chain)) => {
                plan.steps.push(Step::CreatePod(Box::new(pod::pod(miner, chain, miner_type, settings, home))))
            }
            (None, None) => plan.misses_its_chain(miner),
        },
    }
    if let Some(chain) = miner.genesis_of() {
        plan.is_led_to(seen.service.as_ref(), pod::service(miner, chain, home), miner);
    }
    plan
}

/// How much longer the name of a Pod that is gone is to stay free; `None` if it may be used.
///
/// `kubectl delete pod` and everything else that waits for a deletion looks twice, and waits for ever if it finds another
/// Pod of that name the second time.
fn absence(miner: &Miner, now: Timestamp) -> Option<Duration> {
    if had_pod(miner) {
        return Some(ABSENCE);
    }
    let told = conditions::get(miner.conditions(), POD_HEALTHY)?;
    if told.reason != conditions::REASON_POD_NOT_FOUND && told.reason != REASON_POD_REPLACED {
        return None;
    }
    let since = told.last_transition_time.as_ref()?.0;
    let until = since.checked_add(SignedDuration::try_from(ABSENCE).ok()?).ok()?;
    Duration::try_from(until.duration_since(now)).ok().filter(|left| !left.is_zero())
}

/// What is to be done for a Miner that is going: the Pod first, then the Service, then the Miner itself. It waits for what
/// does not go and for what cannot be seen, as long as it has patience.
fn farewell(miner: &Miner, seen: &Seen, now: Timestamp) -> Plan {
    let patience = patience(miner, now);
    let mut plan = Plan {
        health: Some(Condition::no(POD_HEALTHY, Severity::Info, conditions::REASON_DELETING, "")),
        regardless: patience == Some(Duration::ZERO),
        ..Plan::default()
    };
    let pod = seen.pod.as_ref().filter(|pod| pod::belongs(pod, miner));
    if let Some(pod) = pod {
        if pod.metadata.deletion_timestamp.is_none() {
            plan.steps.push(Step::DeletePod);
        }
        if !plan.regardless {
            plan.wait = Some(patience.unwrap_or(IMPATIENCE));
            return plan;
        }
        plan.news.push(News::warning("FailedDeletePod", "the Pod did not go in time, and is left behind"));
    }
    if let Some(trouble) = &seen.trouble {
        if !plan.regardless {
            return plan;
        }
        plan.news.push(News::warning("FailedDeletePod", trouble.story()));
    }
    if let Some(service) = seen.service.as_ref().filter(|service| pod::serves(service, miner)) {
        plan.steps.push(Step::DeleteService(Box::new(service.clone())));
    }
    plan.steps.push(Step::Release);
    plan
}

/// How much longer a Miner waits for its Pod to go; `None` for as long as it takes.
fn patience(miner: &Miner, now: Timestamp) -> Option<Duration> {
    let timeout = miner.spec.pod_deletion_timeout()?;
    let since = miner.metadata.deletion_timestamp.as_ref()?.0;
    let deadline = since.checked_add(SignedDuration::try_from(timeout).ok()?).ok()?;
    Some(Duration::try_from(deadline.duration_since(now)).unwrap_or_default())
}

/// The finalizer, and what its type gets it, as annotations.
fn mark(miner: &Miner, settings: &Settings) -> Option<Value> {
    let mut mark = json!({});
    let finalizer = names::FINALIZER_MINER.to_owned();
    if !miner.finalizers().contains(&finalizer) {
        let finalizers: Vec<_> = miner.finalizers().iter().cloned().chain([finalizer]).collect();
        mark["finalizers"] = json!(finalizers);
        mark["resourceVersion"] = json!(miner.resource_version());
    }
    if let Some(miner_type) = settings.types.get(&miner.spec.miner_type) {
        let wanted: BTreeMap<String, String> = share(miner_type).into();
        if wanted.iter().any(|(key, value)| miner.annotations().get(key) != Some(value)) {
            mark["annotations"] = json!(wanted);
        }
    }
    mark.as_object().is_some_and(|mark| !mark.is_empty()).then_some(mark)
}

/// What a type gets its Miners, as annotations.
pub(crate) fn share(miner_type: &MinerType) -> [(String, String); 2] {
    [
        (names::ANNOTATION_CPU.to_owned(), miner_type.cpu.clone()),
        (names::ANNOTATION_MEMORY.to_owned(), miner_type.memory.clone()),
    ]
}

/// Whether the Miner's own Pod is to make room for another one, or is doing so.
fn is_replaced(miner: &Miner, pod: &Pod, chain: Option<&Chain>, settings: &Settings) -> bool {
    let made_from = pod.annotations().get(names::ANNOTATION_MADE_FROM);
    let outdated = made_from.is_some_and(|made_from| *made_from != pod::made_from(&miner.spec));
    // A Pod that is to run always and has ended anyway was thrown out; only another one will run.
    let thrown_out = miner.spec.restart_policy == "Always" && phase::has_ended(pod);
    outdated
        || thrown_out
        || chain.is_some_and(|chain| is_outdated(miner, pod, &pod::chain_settings(chain, settings)))
        || (is_deleting(pod) && was_replaced(miner))
}

/// Whether the Pod is to be replaced because the Chain changed. A set says to which of its Miners a change comes when, so that
/// it does not stop a whole blockchain at once.
fn is_outdated(miner: &Miner, pod: &Pod, settings: &String) -> bool {
    let of_a_set = miner.controller().is_some_and(|owner| owner.kind == MinerSet::kind(&()));
    let granted = miner.annotations().get(names::ANNOTATION_CHAIN_SETTINGS) == Some(settings);
    pod::made_from_chain(pod).is_some_and(|made_from| made_from != settings) && (granted || !of_a_set)
}

/// Whether the Miner's Pod was being replaced when last looked at.
fn was_replaced(miner: &Miner) -> bool {
    conditions::get(miner.conditions(), POD_HEALTHY).is_some_and(|told| told.reason == REASON_POD_REPLACED)
}

/// What is to be done about the Miner's own Pod.
fn keep(miner: &Miner, pod: &Pod, home: bool) -> Option<Step> {
    if is_deleting(pod) {
        return None;
    }
    let annotations = miner.spec.metadata.annotations.clone().into_iter().chain(pod::annotations(miner)).collect();
    let mut metadata = json!({});
    for (key, there, wanted) in
        [("annotations", pod.annotations(), annotations), ("labels", pod.labels(), pod::labels(miner))]
    {
        if let Some(missing) = missing(there, &wanted) {
            metadata[key] = missing;
        }
    }
    if home && pod.owner_references().is_empty() {
        metadata["ownerReferences"] = plain(&pod::owner(miner).map(|owner| vec![owner]));
    }
    let changes = metadata.as_object().is_some_and(|metadata| !metadata.is_empty());
    changes.then(|| Step::ChangePod(json!({"metadata": metadata})))
}

impl Plan {
    fn leaves_its_name_alone(&mut self, miner: &Miner, wait: Duration) {
        if had_pod(miner) && !was_replaced(miner) {
            self.news.push(News::warning("Deleted", "the Pod is gone, and is to be created again"));
        }
        // What was told once it was gone stays, and with it the time since when.
        let told = conditions::get(miner.conditions(), POD_HEALTHY).filter(|_| !had_pod(miner)).cloned();
        self.health = Some(told.unwrap_or_else(|| phase::health(None, true)));
        self.wait = Some(wait);
    }

    /// There is to be a Service that leads to this genesis.
    fn is_led_to(&mut self, there: Option<&Service>, wanted: Service, genesis: &Miner) {
        let name = wanted.name_any();
        match there {
            None => self.steps.push(Step::CreateService(Box::new(wanted))),
            Some(there) if pod::serves(there, genesis) => {
                self.steps.extend(pod::repair(there, &wanted).map(|patch| Step::ChangeService(name, patch)));
            }
            Some(_) => {
                let message = format!("the Service {name} is there and belongs to somebody else");
                let taken = Condition::no(SERVICE_CREATED, Severity::Error, conditions::REASON_NAME_TAKEN, message);
                self.service = Some(taken);
                self.wait.get_or_insert(IMPATIENCE);
            }
        }
    }

    fn misses_its_chain(&mut self, miner: &Miner) {
        let message = format!("there is no chain {:?} in {CHAIN_NAMESPACE}", miner.spec.chain_name);
        self.health =
            Some(Condition::no(POD_HEALTHY, Severity::Error, conditions::REASON_CHAIN_NOT_FOUND, message.as_str()));
        if conditions::get(miner.conditions(), POD_HEALTHY)
            .is_none_or(|told| told.reason != conditions::REASON_CHAIN_NOT_FOUND)
        {
            self.news.push(News::warning("FailedCreate", message));
        }
        self.wait = Some(IMPATIENCE);
    }
}

/// Follows the plan to its end, or to the first step that fails.
async fn act(miner: &Miner, plan: &Plan, seen: &Seen, context: &Context) -> Outcome {
    let pod = seen.pod.clone().filter(|pod| pod::belongs(pod, miner));
    let mut outcome = Outcome { miner: miner.clone(), pod, released: false, error: None };
    let me = miner.object_ref(&());
    for news in &plan.news {
        context.tell(&me, news).await;
    }
    for step in &plan.steps {
        if let Err(error) = take(step, &mut outcome, context).await {
            if let Some(news) = bad_news(step, &error) {
                context.tell(&me, &news).await;
            }
            if plan.regardless && matches!(step, Step::DeletePod | Step::DeleteService(_)) {
                continue;
            }
            outcome.error = Some(error);
            break;
        }
    }
    outcome
}

async fn take(step: &Step, outcome: &mut Outcome, context: &Context) -> Result<()> {
    let miner = outcome.miner.clone();
    let name = miner.name_any();
    match step {
        Step::Mark(metadata) => {
            let patch = Patch::Merge(json!({"metadata": metadata}));
            let marked = miners(&miner, context)?.patch(&name, &params(), &patch).await;
            let marked = marked.map_err(Error::changing("mark the Miner"))?;
            outcome.miner = (*context.views.miners.wrote_own(marked)).clone();
        }
        Step::CreatePod(pod) => {
            let created = create_pod(&miner, pod, context).await?;
            let news = News::normal("SuccessfulCreate", format!("created pod {}", phase::named(&created)));
            context.tell(&miner.object_ref(&()), &news.about(created.object_ref(&()))).await;
            outcome.pod = Some((*context.views.pods.wrote(created)).clone());
        }
        Step::ChangePod(patch) => {
            let patched = pods(&miner, context)?.patch(&name, &params(), &Patch::Merge(patch)).await;
            let patched = patched.map_err(Error::changing("change the Pod"))?;
            outcome.pod = Some((*context.views.pods.wrote(patched)).clone());
        }
        Step::DeletePod => in_time(LONGEST_ANSWER, "delete the Pod", delete_pod(&miner, outcome, context)).await?,
        Step::CreateService(service) => {
            let created = services(&miner, context)?.create(&post(), service).await;
            created.map_err(Error::doing("create the genesis Service"))?;
        }
        Step::ChangeService(name, patch) => {
            let patched = services(&miner, context)?.patch(name, &params(), &Patch::Merge(patch)).await;
            patched.map_err(Error::changing("change the genesis Service"))?;
        }
        Step::DeleteService(service) => {
            let deletion = delete_service(&miner, service, context);
            in_time(LONGEST_ANSWER, "delete the genesis Service", deletion).await?;
        }
        Step::Release => {
            let left: Vec<_> =
                miner.finalizers().iter().filter(|finalizer| *finalizer != names::FINALIZER_MINER).collect();
            if left.len() < miner.finalizers().len() {
                let patch = json!({"metadata": {"resourceVersion": miner.resource_version(), "finalizers": left}});
                let released = miners(&miner, context)?.patch(&name, &params(), &Patch::Merge(patch)).await;
                ignore_gone(released.map(drop)).map_err(Error::doing("release the Miner"))?;
            }
            outcome.released = true;
        }
    }
    Ok(())
}

async fn create_pod(miner: &Miner, pod: &Pod, context: &Context) -> Result<Pod> {
    match pods(miner, context)?.create(&post(), pod).await {
        Err(error) if is_gone(&error) && !context.provider_is_home => {
            // Our own apiserver makes namespaces as they are needed; other clusters want to be asked.
            let mut home = Namespace::default();
            home.metadata.name = miner.namespace();
            let made = Api::<Namespace>::all(context.provider.clone()).create(&post(), &home).await;
            made.map_err(Error::doing("create the namespace of the Pod"))?;
            Err(Error::Stale { doing: "create the Pod" })
        }
        created => created.map_err(Error::doing("create the Pod")),
    }
}

async fn delete_pod(miner: &Miner, outcome: &mut Outcome, context: &Context) -> Result<()> {
    let before = outcome.pod.clone();
    let uid = before.as_ref().and_then(ResourceExt::uid);
    // By uid, so that a Pod that took the name meanwhile is not the one that goes.
    let left = match pods(miner, context)?.delete(&miner.name_any(), &only(uid)).await {
        Ok(answer) => answer.left().filter(is_deleting),
        Err(error) if is_gone(&error) => None,
        Err(error) => return Err(Error::doing("delete the Pod")(error)),
    };
    if let (None, Some(before)) = (&left, &before) {
        context.views.pods.is_gone(before);
    }
    outcome.pod = left.map(|left| (*context.views.pods.wrote(left)).clone());
    Ok(())
}

async fn delete_service(miner: &Miner, service: &Service, context: &Context) -> Result<()> {
    // By uid, so that a Service that took the name meanwhile is not the one that goes.
    let deleted = services(miner, context)?.delete(&service.name_any(), &only(service.uid())).await;
    ignore_gone(deleted.map(drop)).map_err(Error::doing("delete the genesis Service"))
}

/// What people are told when a step fails. A stale view is nobody's business: the next pass will see.
fn bad_news(step: &Step, error: &Error) -> Option<News> {
    if error.is_stale() {
        return None;
    }
    let reason = match step {
        Step::CreatePod(_) | Step::CreateService(_) => "FailedCreate",
        Step::DeletePod | Step::DeleteService(_) => "FailedDeletePod",
        _ => "ReconcileError",
    };
    Some(News::warning(reason, error.story()))
}

fn sight(plan: &Plan, outcome: &Outcome) -> Sight {
    let deleting = is_deleting(&outcome.miner);
    let failed = outcome.error.as_ref().filter(|_| deleting);
    let health = match failed {
        Some(error) => Condition::no(POD_HEALTHY, Severity::Warning, conditions::REASON_DELETION_FAILED, error.story()),
        None => plan.health.clone().unwrap_or_else(|| phase::health(outcome.pod.as_ref(), had_pod(&outcome.miner))),
    };
    Sight { pod: outcome.pod.clone(), health, service: plan.service.clone(), failure: plan.failure.clone() }
}

/// Whether the Miner had a Pod when last looked at.
fn had_pod(miner: &Miner) -> bool {
    miner.status.as_ref().is_some_and(|status| status.pod_ref.is_some())
}

fn is_deleting<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Deletes that object and no other of its name.
fn only(uid: Option<String>) -> DeleteParams {
    DeleteParams { preconditions: Some(Preconditions { uid, resource_version: None }), ..DeleteParams::default() }
}

fn miners(miner: &Miner, context: &Context) -> Result<Api<Miner>> {
    Ok(Api::namespaced(context.apiserver.clone(), namespace(miner)?))
}

fn pods(miner: &Miner, context: &Context) -> Result<Api<Pod>> {
    Ok(Api::namespaced(context.provider.clone(), namespace(miner)?))
}

fn services(miner: &Miner, context: &Context) -> Result<Api<Service>> {
    Ok(Api::namespaced(context.provider.clone(), namespace(miner)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Event, PodCondition, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use onex_crds::{ChainSpec, Kind, MinerSpec};

    pub(crate) fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn genesis_chain() -> Chain {
        let mut chain = Chain::new("genesis", ChainSpec::default());
        chain.metadata.namespace = Some("kube-system".to_owned());
        chain.metadata.uid = Some("chain-uid".to_owned());
        chain.fill();
        chain
    }

    /// The Miner `free` of nobody, marked as the controller marks it.
    pub(crate) fn miner() -> Miner {
        let spec =
            MinerSpec { chain_name: "genesis".to_owned(), miner_type: "M1.MEDIUM2".to_owned(), ..MinerSpec::default() };
        let mut miner = Miner::new("free", spec);
        miner.metadata.namespace = Some("user-admin".to_owned());
        miner.metadata.uid = Some("miner-uid".to_owned());
        miner.metadata.finalizers = Some(vec![names::FINALIZER_MINER.to_owned()]);
        miner.annotations_mut().insert(names::ANNOTATION_CPU.to_owned(), "250m".to_owned());
        miner.annotations_mut().insert(names::ANNOTATION_MEMORY.to_owned(), "1Gi".to_owned());
        miner.fill();
        miner
    }

    pub(crate) fn genesis() -> Miner {
        let mut genesis = miner();
        genesis.metadata.name = Some("genesis".to_owned());
        genesis.metadata.namespace = Some("kube-system".to_owned());
        genesis.metadata.owner_references = genesis_chain().controller_owner_ref(&()).map(|owner| vec![owner]);
        genesis
    }

    /// The Pod of [`miner`], with this status of its Ready condition.
    pub(crate) fn pod_that_is(ready: Option<&str>) -> Pod {
        let settings = Settings::default();
        let mut pod = pod::pod(&miner(), &genesis_chain(), &settings.types["M1.MEDIUM2"], &settings, true);
        pod.metadata.uid = Some("pod-uid".to_owned());
        let conditions = ready.map(|status| {
            vec![PodCondition { type_: "Ready".to_owned(), status: status.to_owned(), ..PodCondition::default() }]
        });
        pod.status = Some(PodStatus { conditions, pod_ip: Some("127.64.0.9".to_owned()), ..PodStatus::default() });
        pod
    }

    fn planned(miner: &Miner, seen: &Seen) -> Plan {
        plan(miner, seen, &Settings::default(), true, second(100))
    }

    fn deleted(mut miner: Miner, at: i64) -> Miner {
        miner.metadata.deletion_timestamp = Some(Time(second(at)));
        miner
    }

    #[test]
    fn a_new_miner_is_marked_before_its_pod_is_made() {
        let mut miner = miner();
        miner.metadata.finalizers = None;
        miner.metadata.annotations = None;
        let plan = planned(&miner, &Seen { chain: Some(genesis_chain()), ..Seen::default() });
        let [Step::Mark(mark), Step::CreatePod(pod)] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
        assert_eq!(mark["finalizers"], json!(["miner.onex.io/finalizer"]));
        assert_eq!(mark["annotations"], json!({"apps.onex.io/vCPU": "250m", "apps.onex.io/memoryMb": "1Gi"}));
        assert_eq!(pod.name_any(), "free");
    }

    #[test]
    fn a_settled_miner_is_left_alone() {
        assert_eq!(
            planned(&miner(), &Seen { pod: Some(pod_that_is(Some("True"))), ..Seen::default() }),
            Plan::default()
        );
    }

    /// `kubectl delete pod` gets the Pod, then lists and watches it. When another Pod took the name in between, it waited
    /// for ever for that one to go.
    #[test]
    fn a_lost_pod_is_told_of_and_made_again_when_its_name_was_free_for_a_while() {
        let (mut miner, seen) = (miner(), Seen { chain: Some(genesis_chain()), ..Seen::default() });
        let planned = |miner: &Miner, now| plan(miner, &seen, &Settings::default(), true, second(now));
        miner.status.get_or_insert_default().pod_ref = Some(Default::default());
        let lost = planned(&miner, 100);
        assert_eq!((&lost.steps[..], lost.news.len(), &lost.failure), (&[][..], 1, &None));
        assert!(lost.wait.is_some());
        let status = miner.status.get_or_insert_default();
        status.pod_ref = None;
        conditions::set(&mut status.conditions, lost.health.unwrap(), second(100));
        let waiting = planned(&miner, 101);
        assert_eq!((&waiting.steps[..], waiting.news.len()), (&[][..], 0));
        assert_eq!(waiting.wait, Some(Duration::from_secs(1)));
        assert!(matches!(planned(&miner, 102).steps[..], [Step::CreatePod(_)]));
    }

    #[test]
    fn a_genesis_gets_a_service_once() {
        let pod = Pod {
            metadata: kube::core::ObjectMeta {
                owner_references: pod::owner(&genesis()).map(|owner| vec![owner]),
                ..pod_that_is(None).metadata
            },
            ..pod_that_is(None)
        };
        let has_service = |steps: &[Step]| steps.iter().any(|step| matches!(step, Step::CreateService(_)));
        assert!(has_service(&planned(&genesis(), &Seen { pod: Some(pod.clone()), ..Seen::default() }).steps));
        let service = Some(pod::service(&genesis(), "genesis", true));
        assert!(!has_service(&planned(&genesis(), &Seen { pod: Some(pod), service, ..Seen::default() }).steps));
        assert!(!has_service(&planned(&miner(), &Seen { pod: Some(pod_that_is(None)), ..Seen::default() }).steps));
    }

    #[test]
    fn a_service_of_a_genesis_is_mended_and_one_of_somebody_else_is_told_of() {
        let mut service = pod::service(&genesis(), "genesis", true);
        service.spec.as_mut().unwrap().selector = None;
        let plan = planned(&genesis(), &Seen { service: Some(service.clone()), ..Seen::default() });
        let patch = pod::repair(&service, &pod::service(&genesis(), "genesis", true)).unwrap();
        assert_eq!((plan.steps, plan.service), (vec![Step::ChangeService("genesis".to_owned(), patch)], None));
        service.metadata.owner_references.as_mut().unwrap()[0].uid = "another-uid".to_owned();
        let plan = planned(&genesis(), &Seen { service: Some(service), ..Seen::default() });
        assert_eq!((plan.steps, plan.wait), (Vec::new(), Some(IMPATIENCE)));
        assert_eq!(plan.service.unwrap().reason, "NameTaken");
    }

    #[test]
    fn without_its_chain_a_miner_waits_and_says_so_once() {
        let mut miner = miner();
        let plan = planned(&miner, &Seen::default());
        assert_eq!(plan.steps, []);
        assert_eq!(plan.health.as_ref().unwrap().reason, "ChainNotFound");
        assert_eq!((plan.news.len(), plan.wait), (1, Some(IMPATIENCE)));
        conditions::set(&mut miner.status.get_or_insert_default().conditions, plan.health.unwrap(), second(1));
        assert_eq!(planned(&miner, &Seen::default()).news, []);
    }

    #[test]
    fn an_unknown_type_is_a_failure_and_no_pod_is_made() {
        let mut miner = miner();
        miner.spec.miner_type = "XXL".to_owned();
        let plan = planned(&miner, &Seen { chain: Some(genesis_chain()), ..Seen::default() });
        assert_eq!(plan.steps, []);
        assert_eq!(
            plan.failure,
            Some((FailureReason::InvalidConfiguration, "the miner type \"XXL\" is in no table".to_owned()))
        );
        assert_eq!(plan.news.len(), 1);
    }

    #[test]
    fn a_change_of_the_type_replaces_the_pod_and_the_annotations() {
        let mut miner = miner();
        miner.spec.miner_type = "S1.SMALL1".to_owned();
        let plan = planned(&miner, &Seen { pod: Some(pod_that_is(Some("True"))), ..Seen::default() });
        let [Step::Mark(mark), Step::DeletePod] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
        assert_eq!(mark["annotations"]["apps.onex.io/vCPU"], "50m");
    }

    #[test]
    fn new_settings_of_the_chain_replace_the_pods_of_free_miners_and_of_those_whose_set_lets_them() {
        let mut chain = genesis_chain();
        chain.spec.image = "toyblc:v2".to_owned();
        let settings = pod::chain_settings(&chain, &Settings::default());
        let seen = Seen { pod: Some(pod_that_is(Some("True"))), chain: Some(chain), ..Seen::default() };
        assert_eq!(planned(&miner(), &seen).steps, [Step::DeletePod]);
        let mut member = miner();
        let mut set = MinerSet::new("a", Default::default());
        set.metadata.uid = Some("set-uid".to_owned());
        member.metadata.owner_references = set.controller_owner_ref(&()).map(|owner| vec![owner]);
        let waits = |member: &Miner| !planned(member, &seen).steps.contains(&Step::DeletePod);
        assert!(waits(&member));
        member.annotations_mut().insert(names::ANNOTATION_CHAIN_SETTINGS.to_owned(), settings);
        assert!(!waits(&member));
    }

    #[test]
    fn a_pod_that_was_thrown_out_is_replaced_unless_it_may_end() {
        let mut pod = pod_that_is(Some("False"));
        pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        let seen = Seen { pod: Some(pod.clone()), ..Seen::default() };
        assert_eq!(planned(&miner(), &seen).steps, [Step::DeletePod]);
        let mut once = miner();
        once.spec.restart_policy = "Never".to_owned();
        pod.annotations_mut().insert(names::ANNOTATION_MADE_FROM.to_owned(), pod::made_from(&once.spec));
        assert_eq!(planned(&once, &Seen { pod: Some(pod), ..Seen::default() }).steps, []);
    }

    #[test]
    fn a_pod_that_is_replaced_is_nothing_to_warn_of() {
        let mut replaced = miner();
        let plans = |miner: &Miner, pod: Option<Pod>| {
            planned(miner, &Seen { pod, chain: Some(genesis_chain()), ..Seen::default() })
        };
        let tell = |miner: &mut Miner, plan: Plan, pod_ref| {
            let status = miner.status.get_or_insert_default();
            status.pod_ref = pod_ref;
            conditions::set(&mut status.conditions, plan.health.unwrap(), second(100));
        };
        let mut pod = pod_that_is(Some("False"));
        pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        let plan = plans(&replaced, Some(pod.clone()));
        assert_eq!(
            (&plan.steps[..], plan.health.as_ref().unwrap().reason.as_str()),
            (&[Step::DeletePod][..], "PodReplaced")
        );
        tell(&mut replaced, plan, Some(Default::default()));
        // It takes its time to go, and may look like any other Pod that goes.
        pod.metadata.deletion_timestamp = Some(Time(second(100)));
        let plan = plans(&replaced, Some(pod));
        assert_eq!((&plan.steps[..], plan.health.as_ref().unwrap().reason.as_str()), (&[][..], "PodReplaced"));
        tell(&mut replaced, plan, Some(Default::default()));
        let plan = plans(&replaced, None);
        assert_eq!((&plan.steps[..], &plan.news[..]), (&[][..], &[][..]));
        tell(&mut replaced, plan, None);
        assert_eq!(plans(&replaced, None).wait, Some(ABSENCE));
        // If it took no time to go, what was told when it went is told until its name may be used.
        let told = Condition::no(POD_HEALTHY, Severity::Warning, "PodReplaced", "");
        conditions::set(&mut replaced.status.as_mut().unwrap().conditions, told, second(99));
        let plan = plans(&replaced, None);
        assert_eq!((plan.wait, plan.health.unwrap().reason.as_str()), (Some(ABSENCE / 2), "PodReplaced"));
    }

    #[test]
    fn a_pod_that_is_going_is_waited_for() {
        let mut pod = pod_that_is(Some("True"));
        pod.metadata.deletion_timestamp = Some(Time(second(1)));
        assert_eq!(planned(&miner(), &Seen { pod: Some(pod), ..Seen::default() }).steps, []);
    }

    #[test]
    fn labels_and_annotations_of_the_spec_reach_the_pod() {
        let mut miner = miner();
        miner.spec.metadata.labels.insert("tier".to_owned(), "gold".to_owned());
        miner.spec.metadata.annotations.insert("note".to_owned(), "x".to_owned());
        let plan = planned(&miner, &Seen { pod: Some(pod_that_is(None)), ..Seen::default() });
        let change = json!({"metadata": {"labels": {"tier": "gold"}, "annotations": {"note": "x"}}});
        assert_eq!(plan.steps, [Step::ChangePod(change)]);
    }

    #[test]
    fn a_strangers_pod_is_not_touched() {
        let mut pod = pod_that_is(Some("True"));
        pod.metadata.owner_references.as_mut().unwrap()[0].uid = "other".to_owned();
        let seen = Seen { pod: Some(pod), ..Seen::default() };
        let plan = planned(&miner(), &seen);
        assert_eq!(plan.steps, []);
        assert!(plan.health.unwrap().message.contains("somebody else"));
        assert_eq!(planned(&deleted(miner(), 100), &seen).steps, [Step::Release]);
    }

    #[test]
    fn a_deleted_miner_waits_for_its_pod_and_then_goes() {
        let seen = Seen { pod: Some(pod_that_is(Some("True"))), ..Seen::default() };
        let plan = planned(&deleted(miner(), 95), &seen);
        assert_eq!(plan.steps, [Step::DeletePod]);
        assert_eq!(plan.wait, Some(Duration::from_secs(5)));
        assert_eq!(plan.health.unwrap().reason, "Deleting");
        assert_eq!(planned(&deleted(miner(), 95), &Seen::default()).steps, [Step::Release]);
    }

    #[test]
    fn a_deleted_miner_gives_up_on_its_pod_after_its_timeout_but_not_when_it_has_none() {
        let mut pod = pod_that_is(Some("True"));
        pod.metadata.deletion_timestamp = Some(Time(second(90)));
        let seen = Seen { pod: Some(pod), ..Seen::default() };
        let plan = planned(&deleted(miner(), 90), &seen);
        assert_eq!(plan.steps, [Step::Release]);
        assert_eq!(plan.news.len(), 1);
        let mut patient = deleted(miner(), 90);
        patient.spec.pod_deletion_timeout = Some("0s".to_owned());
        assert_eq!(planned(&patient, &seen).steps, []);
    }

    #[test]
    fn a_deleted_miner_of_which_not_everything_is_seen_waits_and_then_goes() {
        let late = || Some(Error::Late { doing: "look for the Pod" });
        let seen = Seen { trouble: late(), ..Seen::default() };
        let mut patient = deleted(miner(), 50);
        patient.spec.pod_deletion_timeout = Some("0s".to_owned());
        for waiting in [deleted(miner(), 95), patient] {
            assert_eq!(planned(&waiting, &seen).steps, []);
        }
        let plan = planned(&deleted(miner(), 90), &seen);
        assert_eq!((plan.steps, plan.news.len()), (vec![Step::Release], 1));
        // What is seen goes all the same.
        let seen = Seen { pod: Some(pod_that_is(None)), trouble: late(), ..Seen::default() };
        assert_eq!(planned(&deleted(miner(), 95), &seen).steps, [Step::DeletePod]);
        assert_eq!(planned(&deleted(miner(), 90), &seen).steps, [Step::DeletePod, Step::Release]);
    }

    #[test]
    fn only_a_miner_out_of_patience_goes_although_its_pod_cannot_be_deleted() {
        let seen = Seen { pod: Some(pod_that_is(Some("True"))), ..Seen::default() };
        for (since, regardless) in [(90, true), (91, false)] {
            assert_eq!(planned(&deleted(miner(), since), &seen).regardless, regardless);
            assert_eq!(planned(&deleted(miner(), since), &Seen::default()).regardless, regardless);
        }
    }

    #[test]
    fn a_deleted_genesis_takes_its_service_along() {
        for owned in [true, false] {
            let service = pod::service(&genesis(), "genesis", owned);
            let seen = Seen { service: Some(service.clone()), ..Seen::default() };
            let steps = planned(&deleted(genesis(), 95), &seen).steps;
            assert_eq!(steps, [Step::DeleteService(Box::new(service)), Step::Release]);
        }
    }

    #[test]
    fn a_deleted_genesis_leaves_a_service_of_somebody_else_alone() {
        let mut of_another = pod::service(&genesis(), "genesis", true);
        of_another.metadata.owner_references.as_mut().unwrap()[0].uid = "another-uid".to_owned();
        let mut of_nobody = pod::service(&genesis(), "genesis", false);
        of_nobody.metadata.labels = None;
        for service in [of_another, of_nobody] {
            let seen = Seen { service: Some(service), ..Seen::default() };
            assert_eq!(planned(&deleted(genesis(), 95), &seen).steps, [Step::Release]);
        }
    }

    #[tokio::test]
    async fn what_went_before_it_could_be_changed_is_nothing_to_warn_of() {
        let (client, _stop) = crate::tests::a_platform().await;
        let clock = Arc::new(crate::context::SystemClock);
        let context = Context::new(Settings::default(), client.clone(), None, clock);
        let labels = json!({"labels": {"tier": "gold"}});
        let service = Step::ChangeService("genesis".to_owned(), json!({"metadata": labels}));
        for step in [Step::Mark(labels.clone()), Step::ChangePod(json!({"metadata": labels})), service] {
            let plan = Plan { steps: vec![step], ..Plan::default() };
            let outcome = act(&miner(), &plan, &Seen::default(), &context).await;
            assert!(outcome.error.unwrap().is_stale(), "{plan:?}");
        }
        let events = Api::<Event>::namespaced(client, "user-admin").list(&Default::default()).await.unwrap();
        assert_eq!(events.items, []);
    }
}
