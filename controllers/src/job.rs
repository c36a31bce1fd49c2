//! A Job with a template is done by a Pod, and by another one when that failed.
//!
//! The first Pod is called `<job>-0`, and the one after the third failure `<job>-3`: a Pod tells by its name how often the Job
//! had failed before, so that failures are neither forgotten when a failed Pod goes nor counted twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, Preconditions};
use kube::core::ApiResource;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use onex_crds::conditions::{Truth, whole_seconds};
use onex_crds::job::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED};
use onex_crds::{Job, JobCondition, JobPhase, JobStatus, LocalReference, names};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::{Context, News};
use crate::error::{Error, Result, ignore_gone, is_gone, is_taken};
use crate::report::{self, params, post};
use crate::{is_paused, namespace};

/// How many Pods that failed are kept, for people to read what they said.
const KEPT: usize = 10;
/// How often a Job is looked at that waits for a time: clocks are put right, and timers do not notice.
const CLOCK_CHECK: Duration = Duration::from_secs(300);

/// Settings of the job controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds between the first failure of a Job and the next try; twice as many after each further one. Default 10.
    pub backoff_seconds: u64,
    /// Seconds between two tries at most. Default 360.
    pub backoff_max_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { backoff_seconds: 10, backoff_max_seconds: 360 }
    }
}

/// What is to be done about a Job, and what is to be said of it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plan {
    /// Metadata of the Job to be merged: its finalizers.
    mark: Option<Value>,
    /// Pods that are to go.
    delete: Vec<Target>,
    /// The Pod that is to be made.
    create: Option<Value>,
    /// The Job itself has been kept for long enough.
    expire: bool,
    /// What to tell people besides.
    news: Vec<News>,
    /// What is said of the Job.
    status: JobStatus,
    /// When to look again without being called.
    wait: Option<Duration>,
}

/// An object that is to go, and no other of its name.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    name: String,
    uid: Option<String>,
}

/// The Job's Pods, sorted by what they mean.
#[derive(Debug, Default)]
struct Sorted<'a> {
    /// Not ended, and to stay: how often the Job had failed before it, and the Pod.
    active: Vec<(i32, &'a Pod)>,
    failed: Vec<(i32, &'a Pod)>,
    succeeded: Option<&'a Pod>,
    going: bool,
    /// How often the Job has failed, as far as its Pods tell.
    failures: i32,
    /// The Pod that came last.
    last: Option<String>,
}

/// One pass over one Job.
pub(crate) async fn reconcile(job: Arc<Job>, context: Arc<Context>) -> Result<Action> {
    if is_paused(&*job) {
        return Ok(Action::await_change());
    }
    let pods = observe(&job, &context).await?;
    if job.metadata.deletion_timestamp.is_some() {
        return release(&job, &pods, &context).await;
    }
    let settings = &context.settings.job;
    let mut plan = plan(&job, &pods, settings, context.provider_is_home, context.clock.now());
    if let Some(mark) = &plan.mark {
        // Before the first Pod, so that none can be left behind. The Job is another one now, and calls again.
        let mut mark = mark.clone();
        mark["resourceVersion"] = json!(job.resource_version());
        let patch = Patch::Merge(json!({"metadata": mark}));
        let marked = jobs(&job, &context)?.patch(&job.name_any(), &params(), &patch).await;
        return marked.map(|_| Action::await_change()).map_err(Error::changing("mark the Job"));
    }
    let acted = act(&job, &mut plan, &context).await;
    if let Err(error) = &acted
        && !error.is_stale()
    {
        plan.status.error_message = error.story();
    }
    if plan.expire && acted.is_ok() {
        return Ok(Action::await_change());
    }
    let reported = report::status(&jobs(&job, &context)?, &*job, &plan.status).await;
    if let Ok(true) = reported {
        // Told once: the status remembers it.
        for news in &plan.news {
            context.tell(&job.object_ref(&()), news).await;
        }
    }
    acted?;
    reported?;
    Ok(context.settings.next_look(plan.wait.map(|wait| wait.min(CLOCK_CHECK))))
}

/// The Pods of the Job, whatever becomes of them.
async fn observe(job: &Job, context: &Context) -> Result<Vec<Pod>> {
    let uid = job.uid().unwrap_or_default();
    let ours = kube::api::ListParams::default().labels(&format!("{}={uid}", names::LABEL_JOB_UID));
    let pods: Api<Pod> = Api::namespaced(context.provider.clone(), namespace(job)?);
    Ok(pods.list(&ours).await.map_err(Error::doing("look for the Pods"))?.items)
}

fn plan(job: &Job, pods: &[Pod], settings: &Settings, home: bool, now: Timestamp) -> Plan {
    let status = job.status.clone().unwrap_or_default();
    let mut plan = Plan { status, ..Plan::default() };
    let finalizer = names::FINALIZER_JOB.to_owned();
    if !home && !job.finalizers().contains(&finalizer) {
        let finalizers: Vec<_> = job.finalizers().iter().cloned().chain([finalizer]).collect();
        plan.mark = Some(json!({"finalizers": finalizers}));
    }
    let sorted = sort(job, pods);
    if job.outcome().is_some() {
        plan.stops(&sorted.active);
        plan.keeps_for(job, now);
    } else if job.spec.template.is_none() {
        plan.leaves_it_to_others(job);
    } else {
        plan.status.failed = plan.status.failed.max(sorted.failures);
        plan.status.pod_ref = sorted.last.clone().map(|name| LocalReference { name }).or(plan.status.pod_ref);
        plan.pursues(job, &sorted, settings, home, now);
        plan.clears(&sorted.failed);
    }
    plan
}

fn sort<'a>(job: &Job, pods: &'a [Pod]) -> Sorted<'a> {
    let mut sorted = Sorted::default();
    let mut pods: Vec<(i32, &Pod)> = pods.iter().filter_map(|pod| Some((before(job, pod)?, pod))).collect();
    pods.sort_by_key(|(before, _)| *before);
    sorted.last = pods.last().map(|(_, pod)| pod.name_any());
    for (before, pod) in pods {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        // What is stopped ends somehow, which says nothing about the Job.
        let stopped = pod.metadata.deletion_timestamp.is_some();
        let failed = !stopped && phase == "Failed";
        sorted.failures = sorted.failures.max(before.saturating_add(restarts(pod)).saturating_add(i32::from(failed)));
        match phase {
            _ if stopped => sorted.going = true,
            "Succeeded" => sorted.succeeded = Some(pod),
            "Failed" => sorted.failed.push((before, pod)),
            _ => sorted.active.push((before, pod)),
        }
    }
    sorted
}

/// How often the Job had failed when this Pod was made; `None` if it is not ours after all.
fn before(job: &Job, pod: &Pod) -> Option<i32> {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    if owner.is_some_and(|owner| Some(&owner.uid) != job.metadata.uid.as_ref()) {
        return None;
    }
    let name = pod.metadata.name.as_deref()?;
    name.strip_prefix(&job.name_any())?.strip_prefix('-')?.parse().ok().filter(|before| *before >= 0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    statuses.map(|status| status.restart_count).fold(0, i32::saturating_add)
}

/// When the last of the Pod's containers ended.
fn ended(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    let ends = statuses.filter_map(|status| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    ends.max()
}

impl Plan {
    /// What is to be done about a Job that has not ended and that is ours to do.
    fn pursues(&mut self, job: &Job, sorted: &Sorted<'_>, settings: &Settings, home: bool, now: Timestamp) {
        if let Some(pod) = sorted.succeeded {
            self.stops(&sorted.active);
            return self.succeeds(ended(pod).unwrap_or(now).min(now), now);
        }
        if job.spec.suspend == Some(true) {
            self.stops(&sorted.active);
            return self.suspends(now);
        }
        self.resumes(now);
        if let Some((reason, why)) = self.defeat(job, now) {
            self.stops(&sorted.active);
            return self.fails(&reason, &why, sorted.active.is_empty() && !sorted.going, now);
        }
        self.status.error_message.clear();
        self.status.phase = Some(JobPhase::Pending);
        if let Some(((_, pod), others)) = sorted.active.split_last() {
            self.stops(others);
            self.follows(pod);
        } else if !sorted.going {
            self.tries(job, sorted, settings, home, now);
        }
        self.wait = [self.wait, self.until_deadline(job, now)].into_iter().flatten().min();
    }

    /// The next Pod, as soon as it is time for it.
    fn tries(&mut self, job: &Job, sorted: &Sorted<'_>, settings: &Settings, home: bool, now: Timestamp) {
        let last = sorted.failed.last().map(|(_, pod)| *pod);
        let failed_at = last.and_then(|pod| ended(pod).or(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)));
        let again = failed_at.and_then(|at| at.checked_add(settings.delay(self.status.failed)).ok());
        if let Some(again) = again.filter(|again| *again > now) {
            self.status.error_message = format!("the pod failed, and is tried again at {}", whole_seconds(again).0);
            self.wait = Duration::try_from(again.duration_since(now)).ok();
            return;
        }
        self.status.started_at.get_or_insert_with(|| whole_seconds(now));
        self.create = Some(pod(job, self.status.failed, home));
    }

    /// What the Pod says is what is said of the Job.
    fn follows(&mut self, pod: &Pod) {
        // Somebody may have lost the status.
        let made = pod.metadata.creation_timestamp.clone();
        self.status.started_at = self.status.started_at.take().or(made);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        self.status.phase = Some(match phase {
            Some("Running") => JobPhase::Running,
            Some("Unknown") => JobPhase::Unknown,
            _ => JobPhase::Pending,
        });
        self.status.error_message = hindrance(pod).unwrap_or_default();
    }

    fn succeeds(&mut self, at: Timestamp, now: Timestamp) {
        let reached = job::REASON_COMPLETIONS_REACHED;
        self.is(SUCCESS_CRITERIA_MET, Truth::True, reached, "", now);
        self.is(COMPLETE, Truth::True, reached, "", now);
        self.ends(JobPhase::Succeeded, at, "");
        self.news.push(News::normal("Completed", "Job completed"));
    }

    /// The Job will have failed, and has when nothing of it runs any more.
    fn fails(&mut self, reason: &str, why: &str, over: bool, now: Timestamp) {
        if self.is(FAILURE_TARGET, Truth::True, reason, why, now) {
            let told =
                if reason == job::REASON_DEADLINE_EXCEEDED { "DeadlineExceeded" } else { "BackoffLimitExceeded" };
            self.news.push(News::warning(told, why));
        }
        self.status.error_message = why.to_owned();
        if over {
            self.is(FAILED, Truth::True, reason, why, now);
            self.ends(JobPhase::Failed, now, why);
        }
    }

    fn ends(&mut self, phase: JobPhase, at: Timestamp, why: &str) {
        self.status.phase = Some(phase);
        self.status.ended_at = Some(whole_seconds(at));
        self.status.error_message = why.to_owned();
    }

    fn suspends(&mut self, now: Timestamp) {
        self.status.phase = Some(JobPhase::Pending);
        self.status.started_at = None;
        self.status.error_message.clear();
        if self.is(SUSPENDED, Truth::True, job::REASON_SUSPENDED, "Job suspended", now) {
            self.news.push(News::normal("Suspended", "Job suspended"));
        }
    }

    fn resumes(&mut self, now: Timestamp) {
        let suspended = job::get(&self.status.conditions, SUSPENDED).is_some_and(|told| told.status == Truth::True);
        if suspended {
            self.is(SUSPENDED, Truth::False, job::REASON_RESUMED, "Job resumed", now);
            self.news.push(News::normal("Resumed", "Job resumed"));
        }
    }

    /// Why the Job is given up, if it is.
    fn defeat(&self, job: &Job, now: Timestamp) -> Option<(String, String)> {
        if let Some(told) = job::get(&self.status.conditions, FAILURE_TARGET).filter(|told| told.status == Truth::True)
        {
            return Some((told.reason.clone(), told.message.clone()));
        }
        if self.until_deadline(job, now) == Some(Duration::ZERO) {
            let why = "Job was active longer than specified deadline".to_owned();
            return Some((job::REASON_DEADLINE_EXCEEDED.to_owned(), why));
        }
        (self.status.failed > job.spec.backoff_limit()).then(|| {
            let why = "Job has reached the specified backoff limit".to_owned();
            (job::REASON_BACKOFF_LIMIT_EXCEEDED.to_owned(), why)
        })
    }

    fn until_deadline(&self, job: &Job, now: Timestamp) -> Option<Duration> {
        let allowed = SignedDuration::from_secs(job.spec.active_deadline_seconds?);
        let deadline = self.status.started_at.as_ref()?.0.checked_add(allowed).ok()?;
        Some(Duration::try_from(deadline.duration_since(now)).unwrap_or_default())
    }

    /// Who knows the type says how far it is. That nobody has said anything yet is said by us.
    fn leaves_it_to_others(&mut self, job: &Job) {
        if self.status.phase.is_none() {
            self.status.phase = Some(JobPhase::Pending);
            let note = format!("there is no template of a pod: the job waits for who does {:?}", job.spec.type_);
            self.news.push(News::normal("WaitingForProvider", note));
        }
    }

    /// How long a Job that ended is kept.
    fn keeps_for(&mut self, job: &Job, now: Timestamp) {
        let Some(allowed) = job.spec.ttl_seconds_after_finished else { return };
        // Who did it may not have said when.
        let ended = self.status.ended_at.get_or_insert_with(|| whole_seconds(now)).0;
        let until = ended.checked_add(SignedDuration::from_secs(i64::from(allowed))).unwrap_or(Timestamp::MAX);
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        self.expire = left.is_zero();
        self.wait = Some(left);
    }

    fn stops(&mut self, pods: &[(i32, &Pod)]) {
        self.delete.extend(pods.iter().map(|(_, pod)| Target::of(*pod)));
    }

    /// Those that failed first are counted already, and go.
    fn clears(&mut self, failed: &[(i32, &Pod)]) {
        let (counted, surplus) = (self.status.failed, failed.len().saturating_sub(KEPT));
        let gone = failed.iter().take(surplus).filter(|(before, _)| *before < counted);
        self.delete.extend(gone.map(|(_, pod)| Target::of(*pod)));
    }

    /// Notes a condition; tells whether it was not so before.
    fn is(&mut self, type_: &str, status: Truth, reason: &str, message: &str, now: Timestamp) -> bool {
        let conditions = &mut self.status.conditions;
        let told = conditions.iter().position(|told| told.type_ == type_);
        if told.is_some_and(|at| conditions[at].status == status) {
            return false;
        }
        let now = Some(whole_seconds(now));
        let condition = JobCondition {
            type_: type_.to_owned(),
            status,
            last_probe_time: now.clone(),
            last_transition_time: now,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        match told {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
        true
    }
}

impl Target {
    fn of(object: &impl ResourceExt) -> Self {
        Self { name: object.name_any(), uid: object.uid() }
    }
}

impl Settings {
    /// How long a Job waits that has failed so often: twice as long each time.
    fn delay(&self, failures: i32) -> SignedDuration {
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or_default().min(30);
        let seconds = self.backoff_seconds.saturating_mul(1 << doublings).min(self.backoff_max_seconds);
        SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

/// What keeps the Pod's containers from running, in the words of its kubelet.
fn hindrance(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let statuses = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()).find_map(|waiting| {
        let reason = waiting.reason.clone()?;
        // What is about to run is not kept from it.
        let kept = !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing");
        kept.then(|| waiting.message.as_ref().map_or(reason.clone(), |message| format!("{reason}: {message}")))
    });
    waiting.or_else(|| {
        let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")?;
        (scheduled.status == "False").then(|| scheduled.message.clone())?
    })
}

/// The Pod that does `job` after it failed so often: what the user wrote, as it was written.
fn pod(job: &Job, failures: i32, home: bool) -> Value {
    let mut pod = job.spec.template.clone().unwrap_or_default();
    let text =
        |fields: &Value| -> BTreeMap<String, String> { serde_json::from_value(fields.clone()).unwrap_or_default() };
    let (mut labels, annotations) = (text(&pod["metadata"]["labels"]), text(&pod["metadata"]["annotations"]));
    labels.insert(names::LABEL_JOB_NAME.to_owned(), job.name_any());
    labels.insert(names::LABEL_JOB_UID.to_owned(), job.uid().unwrap_or_default());
    let owner = job.controller_owner_ref(&()).filter(|_| home);
    let owners: Vec<OwnerReference> =
        owner.map(|owner| OwnerReference { block_owner_deletion: Some(true), ..owner }).into_iter().collect();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"] = json!({
        "name": format!("{}-{failures}", job.name_any()),
        "namespace": job.namespace(),
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": owners,
    });
    // Written by the apiserver of OneX; a plain Kubernetes leaves the template as it is.
    if pod["spec"]["restartPolicy"].as_str().unwrap_or_default().is_empty() {
        pod["spec"]["restartPolicy"] = json!("Never");
    }
    pod
}

async fn act(job: &Job, plan: &mut Plan, context: &Context) -> Result<()> {
    let me = job.object_ref(&());
    for target in &plan.delete {
        delete_pod(job, target, context).await?;
        let news = News::normal("SuccessfulDelete", format!("deleted pod {}", target.name));
        context.tell(&me, &news).await;
    }
    if let Some(pod) = &plan.create {
        let created = create_pod(job, pod, context).await;
        let news = match &created {
            Ok(name) => Some(News::normal("SuccessfulCreate", format!("created pod {name}"))),
            Err(stale) if stale.is_stale() => None,
            Err(error) => Some(News::warning("FailedCreate", error.story())),
        };
        if let Some(news) = news {
            context.tell(&me, &news).await;
        }
        plan.status.pod_ref = Some(LocalReference { name: created? });
    }
    if plan.expire {
        let deleted = jobs(job, context)?.delete(&job.name_any(), &only(job.uid())).await;
        ignore_gone(deleted.map(drop)).map_err(Error::doing("delete a Job that was kept for long enough"))?;
    }
    Ok(())
}

async fn create_pod(job: &Job, pod: &Value, context: &Context) -> Result<String> {
    const DOING: &str = "create the Pod";
    // As the user wrote it: types would refuse a quantity that is written as a number.
    let kind = ApiResource::erase::<Pod>(&());
    let pods: Api<DynamicObject> = Api::namespaced_with(context.provider.clone(), namespace(job)?, &kind);
    let pod: DynamicObject =
        serde_json::from_value(pod.clone()).expect("metadata is made by us, and the rest is any JSON");
    match pods.create(&post(), &pod).await {
        Ok(created) => Ok(created.name_any()),
        Err(error) if is_gone(&error) && !context.provider_is_home => {
            // Our own apiserver makes namespaces as they are needed; other clusters want to be asked.
            let mut home = Namespace::default();
            home.metadata.name = job.namespace();
            let made = Api::<Namespace>::all(context.provider.clone()).create(&post(), &home).await;
            made.map_err(Error::doing("create the namespace of the Pod"))?;
            Err(Error::Stale { doing: DOING })
        }
        Err(error) if is_taken(&error) => {
            let name = pod.name_any();
            let there = pods.get_opt(&name).await.map_err(Error::doing("look who has the name of the Pod"))?;
            let ours = there.is_none_or(|there| there.labels().get(names::LABEL_JOB_UID) == job.uid().as_ref());
            let by = format!("the Pod {name} does not belong to this job");
            Err(if ours { Error::Stale { doing: DOING } } else { Error::Taken { doing: DOING, by } })
        }
        Err(error) => Err(Error::doing(DOING)(error)),
    }
}

async fn delete_pod(job: &Job, target: &Target, context: &Context) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(context.provider.clone(), namespace(job)?);
    let deleted = pods.delete(&target.name, &only(target.uid.clone())).await;
    ignore_gone(deleted.map(drop)).map_err(Error::doing("delete a Pod"))
}

/// Lets go of a Job that is being deleted. Where its Pods cannot name it as their owner, they go first.
async fn release(job: &Job, pods: &[Pod], context: &Context) -> Result<Action> {
    let left: Vec<_> = job.finalizers().iter().filter(|name| *name != names::FINALIZER_JOB).collect();
    if left.len() == job.finalizers().len() {
        return Ok(Action::await_change());
    }
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        delete_pod(job, &Target::of(pod), context).await?;
    }
    if pods.is_empty() || context.provider_is_home {
        let patch = json!({"metadata": {"resourceVersion": job.resource_version(), "finalizers": left}});
        let released = jobs(job, context)?.patch(&job.name_any(), &params(), &Patch::Merge(patch)).await;
        ignore_gone(released.map(drop)).map_err(Error::doing("release the Job"))?;
    }
    Ok(context.settings.next_look(None))
}

fn jobs(job: &Job, context: &Context) -> Result<Api<Job>> {
    Ok(Api::namespaced(context.apiserver.clone(), namespace(job)?))
}

/// Deletes that object and no other of its name.
fn only(uid: Option<String>) -> DeleteParams {
    let preconditions = Some(Preconditions { uid, resource_version: None });
    DeleteParams { preconditions, ..DeleteParams::background() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn job(spec: Value) -> Job {
        let mut whole = json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": whole})).unwrap()
    }

    /// The Pod after so many failures, in this phase; one that ended did so at second 100.
    fn pod_that(before: i32, phase: &str) -> Pod {
        let mut pod: Pod = serde_json::from_value(super::pod(&job(json!({})), before, true)).unwrap();
        let state = match phase {
            "Failed" | "Succeeded" => json!({"terminated": {"exitCode": 1, "finishedAt": at(100).to_string()}}),
            _ => json!({}),
        };
        let container =
            json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        pod.metadata.creation_timestamp = Some(Time(at(90)));
        pod.status = Some(serde_json::from_value(json!({"phase": phase, "containerStatuses": [container]})).unwrap());
        pod
    }

    fn planned(job: &Job, pods: &[Pod], second: i64) -> Plan {
        plan(job, pods, &Settings::default(), true, at(second))
    }

    /// The Job after the plan was followed.
    fn after(job: &Job, plan: &Plan) -> Job {
        Job { status: Some(plan.status.clone()), ..job.clone() }
    }

    fn names_of(targets: &[Target]) -> Vec<&str> {
        targets.iter().map(|target| target.name.as_str()).collect()
    }

    fn holds(plan: &Plan, type_: &str) -> bool {
        job::get(&plan.status.conditions, type_).is_some_and(|told| told.status == Truth::True)
    }

    fn made(plan: &Plan) -> Option<&str> {
        plan.create.as_ref()?["metadata"]["name"].as_str()
    }

    #[test]
    fn a_new_job_is_started_with_what_the_user_wrote() {
        let plan = planned(&job(json!({})), &[], 50);
        assert_eq!(made(&plan), Some("a-0"));
        let pod = plan.create.as_ref().unwrap();
        assert_eq!(pod["spec"], json!({"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(pod["metadata"]["labels"]["batch.onex.io/job-name"], "a");
        assert_eq!((plan.status.phase, plan.status.started_at.clone()), (Some(JobPhase::Pending), Some(Time(at(50)))));
    }

    #[test]
    fn the_phase_is_what_is_seen_of_the_pod() {
        for (phase, said) in
            [("Pending", JobPhase::Pending), ("Running", JobPhase::Running), ("Unknown", JobPhase::Unknown)]
        {
            let plan = planned(&job(json!({})), &[pod_that(0, phase)], 50);
            assert_eq!((plan.status.phase, plan.create.as_ref()), (Some(said), None));
            assert_eq!(plan.status.pod_ref.unwrap().name, "a-0");
        }
        let mut pod = pod_that(0, "Pending");
        pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].state =
            serde_json::from_value(json!({"waiting": {"reason": "ErrImageNeverPull", "message": "no such image"}}))
                .unwrap();
        assert_eq!(planned(&job(json!({})), &[pod], 50).status.error_message, "ErrImageNeverPull: no such image");
    }

    #[test]
    fn a_job_whose_pod_succeeded_is_complete_since_then() {
        let plan = planned(&job(json!({})), &[pod_that(0, "Succeeded")], 150);
        assert!(holds(&plan, COMPLETE) && holds(&plan, SUCCESS_CRITERIA_MET));
        assert_eq!((plan.status.phase, plan.status.ended_at.clone()), (Some(JobPhase::Succeeded), Some(Time(at(100)))));
        let done = after(&job(json!({})), &plan);
        assert_eq!(planned(&done, &[], 200), Plan { status: plan.status, ..Plan::default() });
    }

    #[test]
    fn a_job_that_failed_waits_longer_each_time_and_is_tried_again() {
        let job = job(json!({}));
        let waits = planned(&job, &[pod_that(0, "Failed")], 104);
        assert_eq!((waits.status.failed, made(&waits), waits.wait), (1, None, Some(Duration::from_secs(6))));
        assert_eq!(waits.status.error_message, "the pod failed, and is tried again at 1970-01-01T00:01:50Z");
        let tries = planned(&job, &[pod_that(0, "Failed")], 110);
        assert_eq!((made(&tries), tries.status.error_message.as_str()), (Some("a-1"), ""));
        let twice = planned(&job, &[pod_that(0, "Failed"), pod_that(1, "Failed")], 110);
        assert_eq!((twice.status.failed, twice.wait), (2, Some(Duration::from_secs(10))));
        let delays: Vec<i64> = [1, 2, 6, 7, i32::MAX].map(|n| Settings::default().delay(n).as_secs()).into();
        assert_eq!(delays, [10, 20, 320, 360, 360]);
    }

    #[test]
    fn failures_are_counted_once_and_not_forgotten_when_their_pods_go() {
        let job = job(json!({"backoffLimit": 1}));
        let first = planned(&job, &[pod_that(0, "Failed")], 110);
        let job = after(&job, &first);
        assert_eq!(planned(&job, &[pod_that(0, "Failed"), pod_that(1, "Running")], 120).status.failed, 1);
        // Somebody deleted it: the next one is still the one after the first failure.
        let gone = planned(&job, &[], 120);
        assert_eq!((gone.status.failed, made(&gone)), (1, Some("a-1")));
        let given_up = planned(&job, &[pod_that(1, "Failed")], 200);
        assert_eq!((given_up.status.failed, given_up.status.phase), (2, Some(JobPhase::Failed)));
        assert_eq!(job::get(&given_up.status.conditions, FAILED).unwrap().reason, "BackoffLimitExceeded");
        assert_eq!(made(&given_up), None);
    }

    #[test]
    fn a_container_that_is_started_again_failed_as_well() {
        let job = job(json!({"backoffLimit": 2}));
        let mut pod = pod_that(0, "Running");
        let restarts = |pod: &mut Pod, many| {
            pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].restart_count = many;
        };
        restarts(&mut pod, 2);
        let goes_on = planned(&job, std::slice::from_ref(&pod), 50);
        assert_eq!((goes_on.status.failed, goes_on.delete.len()), (2, 0));
        restarts(&mut pod, 3);
        let given_up = planned(&job, &[pod], 50);
        assert_eq!(names_of(&given_up.delete), ["a-0"]);
        assert!(holds(&given_up, FAILURE_TARGET) && !holds(&given_up, FAILED));
    }

    #[test]
    fn a_deadline_ends_a_job_when_its_pod_is_gone() {
        let job = job(json!({"activeDeadlineSeconds": 30}));
        let started = planned(&job, &[], 50);
        let job = after(&job, &started);
        let runs = planned(&job, &[pod_that(0, "Running")], 79);
        assert_eq!((runs.delete.len(), runs.wait), (0, Some(Duration::from_secs(1))));
        let late = planned(&job, &[pod_that(0, "Running")], 80);
        assert_eq!(names_of(&late.delete), ["a-0"]);
        assert_eq!(late.status.error_message, "Job was active longer than specified deadline");
        let job = after(&job, &late);
        let mut going = pod_that(0, "Failed");
        going.metadata.deletion_timestamp = Some(Time(at(80)));
        assert!(!holds(&planned(&job, &[going], 81), FAILED));
        let over = planned(&job, &[], 82);
        assert!(holds(&over, FAILED));
        assert_eq!((over.status.failed, over.status.ended_at), (0, Some(Time(at(82)))));
    }

    #[test]
    fn a_suspended_job_has_no_pod_and_its_time_begins_anew() {
        let mut job = job(json!({"suspend": true, "activeDeadlineSeconds": 30}));
        let suspended = planned(&job, &[pod_that(0, "Running")], 50);
        assert_eq!(names_of(&suspended.delete), ["a-0"]);
        assert!(holds(&suspended, SUSPENDED));
        job = after(&job, &suspended);
        assert_eq!(planned(&job, &[], 500), Plan { status: suspended.status, ..Plan::default() });
        job.spec.suspend = Some(false);
        let resumed = planned(&job, &[], 500);
        assert_eq!((made(&resumed), resumed.status.started_at.clone()), (Some("a-0"), Some(Time(at(500)))));
        assert!(!holds(&resumed, SUSPENDED));
    }

    #[test]
    fn a_job_that_ended_is_kept_for_as_long_as_it_says() {
        let job = job(json!({"ttlSecondsAfterFinished": 10}));
        let done = after(&job, &planned(&job, &[pod_that(0, "Succeeded")], 100));
        let kept = planned(&done, &[], 105);
        assert_eq!((kept.expire, kept.wait), (false, Some(Duration::from_secs(5))));
        assert!(planned(&done, &[], 110).expire);
    }

    /// In OneX nobody did them, and whoever did wrote the status.
    #[test]
    fn a_job_without_a_template_is_left_to_who_knows_its_type() {
        let mut job = job(json!({"type": "AWS"}));
        job.spec.template = None;
        let waits = planned(&job, &[], 50);
        assert_eq!((waits.create.as_ref(), waits.status.phase), (None, Some(JobPhase::Pending)));
        job.status = Some(JobStatus { phase: Some(JobPhase::Running), ..JobStatus::default() });
        assert_eq!(planned(&job, &[], 50), Plan { status: job.status.clone().unwrap(), ..Plan::default() });
    }

    #[test]
    fn pods_of_others_do_not_count_whatever_they_carry() {
        let mut foreign = pod_that(0, "Succeeded");
        foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "other".to_owned();
        let mut misnamed = pod_that(0, "Succeeded");
        misnamed.metadata.name = Some("b-0".to_owned());
        assert_eq!(made(&planned(&job(json!({})), &[foreign, misnamed], 50)), Some("a-0"));
    }

    #[test]
    fn of_many_failures_the_last_are_kept() {
        let job = job(json!({"backoffLimit": 100}));
        let pods: Vec<Pod> = (0..12).map(|before| pod_that(before, "Failed")).collect();
        let plan = planned(&job, &pods, 101);
        assert_eq!((names_of(&plan.delete), plan.status.failed), (vec!["a-0", "a-1"], 12));
    }

    #[test]
    fn a_job_whose_pods_live_elsewhere_is_marked_and_does_not_own_them() {
        let plan = super::plan(&job(json!({})), &[], &Settings::default(), false, at(50));
        assert_eq!(plan.mark, Some(json!({"finalizers": ["job.onex.io/finalizer"]})));
        assert_eq!(plan.create.unwrap()["metadata"]["ownerReferences"], json!([]));
    }
}
