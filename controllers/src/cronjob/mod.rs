//! A CronJob makes a Job whenever its schedule is due.
//!
//! A Job has the name of its CronJob and of the time it was made for, so that one time never gets two Jobs, and says that time in an
//! annotation, so that what was made is known after a crash, too.

mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use onex_crds::conditions::whole_seconds;
use onex_crds::cronjob::{DEFAULT_FAILED_JOBS, DEFAULT_SUCCESSFUL_JOBS};
use onex_crds::schedule::Schedule;
use onex_crds::{Concurrency, CronJob, CronJobStatus, Job, names};

use crate::context::{Context, News};
use crate::error::{Error, Result, is_gone, is_taken};
use crate::report::{self, post};
use crate::{is_paused, namespace};

/// Of more missed times than this, somebody is told: a clock was wrong, or nobody worked for long.
const MANY_MISSED: usize = 100;
/// How often a CronJob is looked at although nothing is due: clocks are put right, and timers do not notice.
const CLOCK_CHECK: Duration = Duration::from_secs(300);

/// What is to be done about a CronJob.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plan {
    /// Jobs that are to go, and why.
    delete: Vec<Target>,
    /// The Job that is to be made.
    create: Option<Box<Job>>,
    /// What to tell people besides.
    news: Vec<News>,
    /// When to look again without being called.
    wait: Option<Duration>,
}

/// A Job that is to go, and no other of its name.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    name: String,
    uid: Option<String>,
}

/// One pass over one CronJob.
pub(crate) async fn reconcile(cron: Arc<CronJob>, context: Arc<Context>) -> Result<Action> {
    if is_paused(&*cron) || cron.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut jobs = observe(&cron, &context).await?;
    let plan = plan(&cron, &jobs, context.clock.now());
    let me = cron.object_ref(&());
    for news in &plan.news {
        context.tell(&me, news).await;
    }
    let acted = act(&cron, &plan, &mut jobs, &context).await;
    let status = status(&cron, &jobs);
    let api: Api<CronJob> = Api::namespaced(context.apiserver.clone(), namespace(&*cron)?);
    let reported = report::status(&api, &*cron, &status).await;
    acted?;
    reported?;
    Ok(context.settings.next_look(plan.wait.map(|wait| wait.min(CLOCK_CHECK))))
}

/// The Jobs that are the CronJob's.
async fn observe(cron: &CronJob, context: &Context) -> Result<Vec<Job>> {
    let made = ListParams::default().labels(&format!("{}={}", names::LABEL_CRONJOB_NAME, cron.name_any()));
    let jobs = jobs(cron, context)?.list(&made).await.map_err(Error::doing("look for the Jobs"))?;
    Ok(jobs.items.into_iter().filter(|job| is_ours(cron, job)).collect())
}

fn is_ours(cron: &CronJob, job: &Job) -> bool {
    let owner = job.owner_references().iter().find(|owner| owner.controller == Some(true));
    owner.is_some_and(|owner| Some(&owner.uid) == cron.metadata.uid.as_ref())
}

fn plan(cron: &CronJob, jobs: &[Job], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    plan.tells_of_ends(cron, jobs);
    plan.forgets(jobs, Some(true), cron.spec.successful_jobs_history_limit.unwrap_or(DEFAULT_SUCCESSFUL_JOBS));
    plan.forgets(jobs, Some(false), cron.spec.failed_jobs_history_limit.unwrap_or(DEFAULT_FAILED_JOBS));
    if cron.spec.suspend != Some(true) {
        plan.follows_the_schedule(cron, jobs, now);
    }
    plan
}

/// Whether the Job is under way, as far as anybody can tell.
fn is_active(job: &Job) -> bool {
    job.outcome().is_none() && job.metadata.deletion_timestamp.is_none()
}

/// The time a Job was made for.
fn scheduled(job: &Job) -> Option<Timestamp> {
    job.annotations().get(names::ANNOTATION_SCHEDULED)?.parse().ok()
}

/// What is said of the CronJob. Both times also remember what can no longer be seen.
fn status(cron: &CronJob, jobs: &[Job]) -> CronJobStatus {
    let old = cron.status.clone().unwrap_or_default();
    let latest = |old: Option<Time>, seen: Option<Timestamp>| old.map(|time| time.0).max(seen).map(whole_seconds);
    let succeeded = jobs.iter().filter(|job| job.outcome() == Some(true));
    let success = succeeded.filter_map(|job| Some(job.status.as_ref()?.ended_at.as_ref()?.0)).max();
    let mut active: Vec<&Job> = jobs.iter().filter(|job| is_active(job)).collect();
    active.sort_by_key(|job| (scheduled(job), job.name_any()));
    CronJobStatus {
        active: active.into_iter().map(reference).collect(),
        last_schedule_time: latest(old.last_schedule_time, jobs.iter().filter_map(scheduled).max()),
        last_successful_time: latest(old.last_successful_time, success),
    }
}

fn reference(job: &Job) -> ObjectReference {
    // The revision changes all the time, and nobody refers to a revision.
    ObjectReference { resource_version: None, ..job.object_ref(&()) }
}

impl Plan {
    /// Tells of Jobs that were under way when last looked at.
    fn tells_of_ends(&mut self, cron: &CronJob, jobs: &[Job]) {
        let active = cron.status.iter().flat_map(|status| &status.active);
        for name in active.filter_map(|job| job.name.as_deref()) {
            match jobs.iter().find(|job| job.name_any() == name) {
                Some(job) => {
                    if let Some(succeeded) = job.outcome() {
                        let how = if succeeded { "Complete" } else { "Failed" };
                        let note = format!("Saw completed job: {name}, condition: {how}");
                        self.news.push(News::normal("SawCompletedJob", note));
                    }
                }
                None => self.news.push(News::normal("MissingJob", format!("Active job went missing: {name}"))),
            }
        }
    }

    /// The oldest of those that ended in this way go, beyond as many as are kept.
    fn forgets(&mut self, jobs: &[Job], outcome: Option<bool>, limit: i32) {
        let ended = jobs.iter().filter(|job| job.outcome() == outcome && job.metadata.deletion_timestamp.is_none());
        let mut ended: Vec<&Job> = ended.collect();
        ended.sort_by_key(|job| (scheduled(job).is_none(), scheduled(job), job.name_any()));
        let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        self.delete.extend(ended.into_iter().take(surplus).map(Target::of));
    }

    fn follows_the_schedule(&mut self, cron: &CronJob, jobs: &[Job], now: Timestamp) {
        let schedule = match Schedule::parse(&cron.spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => {
                let note = format!("unparseable schedule {:?}: {why}", cron.spec.schedule);
                return self.news.push(News::warning("UnparseableSchedule", note));
            }
        };
        let zone = match cron.spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(_) => {
                    return self.news.push(News::warning("UnknownTimeZone", format!("unknown time zone {name:?}")));
                }
            },
        };
        let begun = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let Some(next) = schedule::next(&schedule, &zone, begun, now) else {
            let note = format!("the schedule {:?} is never due", cron.spec.schedule);
            return self.news.push(News::warning("InvalidSchedule", note));
        };
        self.wait = Duration::try_from(next.duration_since(now)).ok();
        let since = status(cron, jobs).last_schedule_time.map_or(begun, |time| time.0);
        let Some(due) = schedule::last(&schedule, &zone, begun, since, now) else { return };
        let deadline = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        let earliest = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
        if earliest.is_some_and(|earliest| due < earliest) {
            let note = format!("Missed scheduled time to start a job: {due}");
            return self.news.push(News::warning("MissSchedule", note));
        }
        let span = (since.max(earliest.unwrap_or(since)), now);
        if schedule::count(&schedule, &zone, begun, span, MANY_MISSED) > MANY_MISSED {
            let note = format!(
                "too many missed start times (> {MANY_MISSED}): only the last is made up for. Set or decrease \
                 startingDeadlineSeconds, or check the clock"
            );
            self.news.push(News::warning("TooManyMissedTimes", note));
        }
        self.makes(cron, jobs, due);
    }

    /// The Job of the time that is due, as those allow that are under way.
    fn makes(&mut self, cron: &CronJob, jobs: &[Job], due: Timestamp) {
        let mut active = jobs.iter().filter(|job| is_active(job)).peekable();
        match cron.spec.concurrency() {
            Concurrency::Forbid if active.peek().is_some() => {
                let note = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.news.push(News::normal("JobAlreadyActive", note));
            }
            Concurrency::Replace => self.delete.extend(active.map(Target::of)),
            Concurrency::Forbid | Concurrency::Allow => {}
        }
        self.create = Some(Box::new(job(cron, due)));
    }
}

impl Target {
    fn of(job: &Job) -> Self {
        Self { name: job.name_any(), uid: job.uid() }
    }
}

/// The Job that `cron` makes for the time that is due.
fn job(cron: &CronJob, due: Timestamp) -> Job {
    let template = &cron.spec.job_template;
    let mut labels: BTreeMap<String, String> = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(crate::watch_label(cron));
    labels.insert(names::LABEL_CRONJOB_NAME.to_owned(), cron.name_any());
    let mut annotations = template.metadata.annotations.clone().unwrap_or_default();
    let local = cron.spec.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
    let told = match local {
        Some(zone) => due.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        None => due.to_string(),
    };
    annotations.insert(names::ANNOTATION_SCHEDULED.to_owned(), told);
    let owner = cron.controller_owner_ref(&());
    let owner = owner.map(|owner| OwnerReference { block_owner_deletion: Some(true), ..owner });
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, due)),
            namespace: cron.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The minutes since 1970; the seconds, which are two digits more, where the schedule knows seconds.
fn job_name(cron: &CronJob, due: Timestamp) -> String {
    let seconds = due.as_second();
    let time = if seconds % 60 == 0 { seconds / 60 } else { seconds };
    format!("{}-{time}", cron.name_any())
}

/// Deletes and makes what is planned, and keeps `jobs` what is known to be there.
async fn act(cron: &CronJob, plan: &Plan, jobs: &mut Vec<Job>, context: &Context) -> Result<()> {
    let me = cron.object_ref(&());
    for target in &plan.delete {
        let deleted = delete(cron, target, context).await;
        let news = match &deleted {
            Ok(()) => News::normal("SuccessfulDelete", format!("Deleted job {}", target.name)),
            Err(error) => News::warning("FailedDelete", format!("Deleted job: {}", error.story())),
        };
        context.tell(&me, &news).await;
        deleted?;
        jobs.retain(|job| job.uid() != target.uid);
    }
    let Some(job) = &plan.create else { return Ok(()) };
    // What was made for this time may be gone already, and only the status of now remembers it.
    let api: Api<CronJob> = Api::namespaced(context.apiserver.clone(), namespace(cron)?);
    let live = api.get_opt(&cron.name_any()).await.map_err(Error::doing("look at the CronJob of now"))?;
    if live.is_none_or(|live| live.resource_version() != cron.resource_version()) {
        return Err(Error::Stale { doing: "create the Job" });
    }
    match create(cron, job, context).await {
        Ok(created) => {
            let note = format!("Created job {}", created.name_any());
            context.tell(&me, &News::normal("SuccessfulCreate", note).about(created.object_ref(&()))).await;
            jobs.push(created);
            Ok(())
        }
        Err(error) => {
            if !error.is_stale() {
                context.tell(&me, &News::warning("FailedCreate", error.story())).await;
            }
            Err(error)
        }
    }
}

async fn create(cron: &CronJob, job: &Job, context: &Context) -> Result<Job> {
    const DOING: &str = "create the Job";
    let api = jobs(cron, context)?;
    match api.create(&post(), job).await {
        Err(error) if is_taken(&error) => {
            let name = job.name_any();
            let there = api.get_opt(&name).await.map_err(Error::doing("look who has the name of the Job"))?;
            // Of one that is ours and not seen, somebody took the label.
            match there {
                Some(there) if is_ours(cron, &there) => Ok(there),
                Some(_) => Err(Error::Taken { doing: DOING, by: format!("the Job {name} is somebody else's") }),
                None => Err(Error::Stale { doing: DOING }),
            }
        }
        created => created.map_err(Error::doing(DOING)),
    }
}

async fn delete(cron: &CronJob, target: &Target, context: &Context) -> Result<()> {
    // By uid, so that a Job that took the name meanwhile is not the one that goes.
    let only = Preconditions { uid: target.uid.clone(), resource_version: None };
    let how = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
    match jobs(cron, context)?.delete(&target.name, &how).await {
        Err(error) if is_gone(&error) => Ok(()),
        deleted => deleted.map(drop).map_err(Error::doing("delete a Job")),
    }
}

fn jobs(cron: &CronJob, context: &Context) -> Result<Api<Job>> {
    Ok(Api::namespaced(context.apiserver.clone(), namespace(cron)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onex_crds::Kind;
    use serde_json::{Value, json};

    fn at(time: &str) -> Timestamp {
        format!("2026-01-02T{time}Z").parse().unwrap()
    }

    /// Made at eight, and due at every full hour.
    fn cron(spec: Value) -> CronJob {
        let mut whole = json!({"schedule": "0 * * * *", "jobTemplate": {
            "metadata": {"labels": {"tier": "gold"}, "annotations": {"note": "x"}}, "spec": {"type": "x"}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut cron: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "u", "creationTimestamp": at("08:00:00").to_string()},
            "spec": whole,
        }))
        .unwrap();
        cron.fill();
        cron
    }

    /// The Job for this time, in this phase.
    fn job_that(cron: &CronJob, time: &str, phase: &str) -> Job {
        let mut job = job(cron, at(time));
        job.metadata.uid = Some(job.name_any());
        let mut status = json!({ "phase": phase });
        if matches!(phase, "Succeeded" | "Failed") {
            status["endedAt"] = json!((at(time) + SignedDuration::from_secs(60)).to_string());
        }
        job.status = Some(serde_json::from_value(status).unwrap());
        job
    }

    fn times(plan: &Plan) -> Option<String> {
        Some(scheduled(plan.create.as_ref()?)?.to_string())
    }

    fn told(plan: &Plan, reason: &str) -> bool {
        format!("{:?}", plan.news).contains(&format!("{reason:?}"))
    }

    fn deleted(plan: &Plan) -> Vec<&str> {
        plan.delete.iter().map(|target| target.name.as_str()).collect()
    }

    #[test]
    fn before_it_is_due_nothing_is_done() {
        let plan = plan(&cron(json!({})), &[], at("08:59:00"));
        assert_eq!(plan, Plan { wait: Some(Duration::from_secs(60)), ..Plan::default() });
    }

    #[test]
    fn a_job_is_what_the_template_says_and_is_named_after_its_time() {
        let cron = cron(json!({"timeZone": "Asia/Tokyo"}));
        let job = *plan(&cron, &[], at("09:00:00")).create.unwrap();
        assert_eq!(job.name_any(), format!("c-{}", at("09:00:00").as_second() / 60));
        assert_eq!(job.annotations()["batch.onex.io/cronjob-scheduled-timestamp"], "2026-01-02T18:00:00+09:00");
        assert_eq!((job.annotations()["note"].as_str(), job.labels()["tier"].as_str()), ("x", "gold"));
        assert_eq!(job.labels()["batch.onex.io/cronjob-name"], "c");
        assert_eq!((job.owner_references()[0].uid.as_str(), job.spec.type_.as_str()), ("u", "x"));
        assert!(is_ours(&cron, &job));
    }

    #[test]
    fn times_that_are_no_whole_minutes_have_names_of_their_own() {
        let cron = cron(json!({"schedule": "@every 20s"}));
        let names: Vec<String> = ["08:00:20", "08:00:40", "08:01:00"].map(|time| job_name(&cron, at(time))).into();
        assert_eq!(names, ["c-1767340820", "c-1767340840", "c-29455681"]);
        assert_eq!(times(&plan(&cron, &[], at("08:00:41"))).unwrap(), at("08:00:40").to_string());
    }

    #[test]
    fn a_time_gets_one_job_whatever_is_remembered_of_it() {
        let mut cron = cron(json!({}));
        let made = job_that(&cron, "09:00:00", "Running");
        // The status was lost, and the Job is seen.
        assert_eq!(times(&plan(&cron, std::slice::from_ref(&made), at("09:30:00"))), None);
        // The Job is gone, and the status remembers.
        cron.status = Some(status(&cron, &[made]));
        assert_eq!(times(&plan(&cron, &[], at("09:30:00"))), None);
        assert_eq!(times(&plan(&cron, &[], at("10:00:00"))).unwrap(), at("10:00:00").to_string());
    }

    #[test]
    fn of_times_that_were_missed_the_last_is_made_up_for() {
        let plan_at = |spec: Value, time: Timestamp| plan(&cron(spec), &[], time);
        let late = plan_at(json!({}), at("11:30:00"));
        assert_eq!((times(&late).unwrap(), late.news.len()), (at("11:00:00").to_string(), 0));
        let days_later = at("11:30:00") + SignedDuration::from_hours(100);
        let very_late = plan_at(json!({}), days_later);
        assert!(told(&very_late, "TooManyMissedTimes") && very_late.create.is_some());
        // Those before the deadline do not count.
        let bounded = plan_at(json!({"startingDeadlineSeconds": 7200}), days_later);
        assert!(bounded.news.is_empty() && bounded.create.is_some());
    }

    #[test]
    fn a_time_that_is_too_long_ago_is_left_out() {
        let plan = plan(&cron(json!({"startingDeadlineSeconds": 60})), &[], at("09:01:01"));
        assert!(told(&plan, "MissSchedule"));
        assert_eq!((times(&plan), plan.wait), (None, Some(Duration::from_secs(3539))));
        let in_time = super::plan(&cron(json!({"startingDeadlineSeconds": 60})), &[], at("09:01:00"));
        assert!(in_time.create.is_some());
    }

    #[test]
    fn what_still_runs_is_joined_waited_for_or_ended() {
        for (policy, created, gone, reason) in [
            ("Allow", true, vec![], None),
            ("Forbid", false, vec![], Some("JobAlreadyActive")),
            ("Replace", true, vec!["c-29455740", "c-29455800"], None),
        ] {
            let cron = cron(json!({ "concurrencyPolicy": policy }));
            let running = [job_that(&cron, "09:00:00", "Running"), job_that(&cron, "10:00:00", "Pending")];
            let plan = plan(&cron, &running, at("11:00:00"));
            assert_eq!((plan.create.is_some(), deleted(&plan)), (created, gone), "{policy}");
            assert!(reason.is_none_or(|reason| told(&plan, reason)));
        }
    }

    /// B29: nobody did the Jobs, so that the first one was never over.
    #[test]
    fn b29_forbid_goes_on_when_the_job_has_ended_in_whatever_way() {
        let cron = cron(json!({"concurrencyPolicy": "Forbid"}));
        for phase in ["Succeeded", "Failed"] {
            let ended = job_that(&cron, "09:00:00", phase);
            assert_eq!(times(&plan(&cron, &[ended], at("10:00:00"))).unwrap(), at("10:00:00").to_string());
        }
    }

    /// B29: it ended one of the Jobs, failed, and tried again for the next.
    #[test]
    fn b29_replace_ends_all_that_run_and_makes_the_new_one_in_one_pass() {
        let cron = cron(json!({"concurrencyPolicy": "Replace"}));
        let running: Vec<Job> =
            ["08:10:00", "08:20:00", "08:30:00"].map(|time| job_that(&cron, time, "Running")).into();
        let plan = plan(&cron, &running, at("09:00:00"));
        assert_eq!((plan.delete.len(), times(&plan).unwrap()), (3, at("09:00:00").to_string()));
    }

    #[test]
    fn a_suspended_cron_job_makes_nothing_and_still_tidies_up() {
        let cron = cron(json!({"suspend": true, "failedJobsHistoryLimit": 0}));
        let plan = plan(&cron, &[job_that(&cron, "09:00:00", "Failed")], at("12:00:00"));
        assert_eq!((times(&plan), deleted(&plan), plan.wait), (None, vec!["c-29455740"], None));
    }

    #[test]
    fn the_oldest_that_ended_go_beyond_as_many_as_are_kept() {
        let cron = cron(json!({"suspend": true, "successfulJobsHistoryLimit": 2}));
        let jobs: Vec<Job> = ["09:04:00", "09:02:00", "09:01:00", "09:03:00"]
            .map(|time| job_that(&cron, time, "Succeeded"))
            .into_iter()
            .chain([job_that(&cron, "09:00:00", "Failed"), job_that(&cron, "08:59:00", "Running")])
            .collect();
        assert_eq!(deleted(&plan(&cron, &jobs, at("10:00:00"))), ["c-29455741", "c-29455742"]);
    }

    /// B31: one pass wrote two statuses, of which one was lost.
    #[test]
    fn b31_the_status_is_all_that_is_seen() {
        let cron = cron(json!({}));
        let jobs = [
            job_that(&cron, "09:00:00", "Succeeded"),
            job_that(&cron, "11:00:00", "Running"),
            job_that(&cron, "10:00:00", "Failed"),
        ];
        let status = status(&cron, &jobs);
        let active: Vec<&str> = status.active.iter().filter_map(|job| job.name.as_deref()).collect();
        assert_eq!(active, ["c-29455860"]);
        assert_eq!(status.last_schedule_time, Some(Time(at("11:00:00"))));
        assert_eq!(status.last_successful_time, Some(Time(at("09:01:00"))));
        assert_eq!(status.active[0].api_version.as_deref(), Some("batch.onex.io/v1beta1"));
        // What can no longer be seen is remembered.
        let later = CronJob { status: Some(status.clone()), ..cron };
        let remembered = super::status(&later, &[]);
        assert_eq!(remembered, CronJobStatus { active: vec![], ..status });
    }

    #[test]
    fn people_are_told_of_jobs_that_ended_or_vanished() {
        let mut cron = cron(json!({"suspend": true}));
        let running = [job_that(&cron, "09:00:00", "Running"), job_that(&cron, "10:00:00", "Running")];
        cron.status = Some(status(&cron, &running));
        let plan = plan(&cron, &[job_that(&cron, "09:00:00", "Succeeded")], at("11:00:00"));
        assert!(told(&plan, "SawCompletedJob") && told(&plan, "MissingJob"));
    }

    #[test]
    fn what_makes_no_sense_is_told_and_nothing_is_made() {
        for (spec, reason) in [
            (json!({"schedule": "0 0 30 2 *"}), "InvalidSchedule"),
            (json!({"schedule": "every day"}), "UnparseableSchedule"),
            (json!({"timeZone": "Mars/Olympus"}), "UnknownTimeZone"),
        ] {
            let plan = plan(&cron(spec), &[], at("12:00:00"));
            assert!(told(&plan, reason) && plan.create.is_none() && plan.wait.is_none(), "{reason}");
        }
    }
}
