//! CronJobs.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use onex_controllers::Clock;
use onex_crds::{CronJob, CronJobStatus, Job, JobPhase};
use serde_json::{Value, json};

use crate::world::{SetClock, USER, World};

const HOUR: i64 = 3600;

/// A CronJob that makes a Job every hour after it was made.
fn cron(spec: Value) -> Value {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut whole = json!({"schedule": "@every 1h", "jobTemplate": {"spec": {"template": template}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "batch.onex.io/v1beta1", "kind": "CronJob", "metadata": {"name": "tick", "namespace": USER},
        "spec": whole})
}

fn status(cron: &CronJob) -> CronJobStatus {
    cron.status.clone().unwrap_or_default()
}

/// A world with a clock of its own, in which the CronJob was made.
struct Hours {
    clock: Arc<SetClock>,
    world: World,
}

impl Hours {
    async fn with(spec: Value) -> Self {
        let clock = SetClock::new();
        let world = World::by(&clock).await;
        world.apply::<CronJob>(USER, cron(spec)).await;
        Self { clock, world }
    }

    /// Time passes, and the controller notices.
    async fn pass(&self, seconds: i64) {
        self.clock.put_forward(seconds);
        let now = self.clock.now().to_string();
        self.world.patch::<CronJob>(USER, "tick", json!({"metadata": {"annotations": {"poked": now}}})).await;
    }

    /// The Jobs there are, the oldest first, as soon as there are so many and all of them run that have not ended.
    async fn jobs(&self, many: usize) -> Vec<Job> {
        let phase = |job: &Job| job.status.as_ref().and_then(|status| status.phase);
        let settled = move |jobs: &[Job]| {
            jobs.len() == many && jobs.iter().all(|job| phase(job) != Some(JobPhase::Pending) && phase(job).is_some())
        };
        self.world.until_all::<Job>(USER, settled).await
    }

    async fn until(&self, is: impl Fn(&CronJobStatus) -> bool) -> CronJobStatus {
        status(&self.world.until::<CronJob>(USER, "tick", |cron| is(&status(cron))).await)
    }

    /// Waits until people were told of this about the CronJob.
    async fn until_told(&self, reason: &str) {
        let about = |event: &Event| event.involved_object.name.as_deref() == Some("tick");
        let told =
            |events: &[Event]| events.iter().any(|event| about(event) && event.reason.as_deref() == Some(reason));
        self.world.until_all::<Event>(USER, told).await;
    }

    /// The Pod of the Job ends.
    async fn end(&self, job: &Job, exit_code: i32) {
        let pod = format!("{}-0", job.name_any());
        self.world.report_end(USER, &pod, exit_code, self.clock.now()).await;
        self.world.until::<Job>(USER, &job.name_any(), |job| job.outcome().is_some()).await;
    }
}

#[tokio::test]
async fn a_cron_job_makes_a_job_each_time_and_says_which_run_and_which_ran() {
    let hours = Hours::with(json!({})).await;
    hours.pass(HOUR - 10).await;
    hours.jobs(0).await;
    hours.pass(20).await;
    let jobs = hours.jobs(1).await;
    assert_eq!(jobs[0].owner_references()[0].kind, "CronJob");
    let told = hours.until(|status| status.active.len() == 1).await;
    assert_eq!(told.active[0].name.as_deref(), Some(jobs[0].name_any().as_str()));
    let scheduled: jiff::Timestamp =
        jobs[0].annotations()["batch.onex.io/cronjob-scheduled-timestamp"].parse().unwrap();
    assert_eq!(told.last_schedule_time.unwrap().0, scheduled);
    hours.end(&jobs[0], 0).await;
    let told = hours.until(|status| status.active.is_empty()).await;
    assert_eq!(told.last_successful_time.unwrap().0.as_second(), hours.clock.now().as_second());
    hours.pass(HOUR).await;
    hours.jobs(2).await;
    let reasons = hours.world.reasons(USER, "tick").await;
    assert_eq!(reasons, ["SawCompletedJob", "SuccessfulCreate"]);
    // They go with it.
    hours.world.delete::<CronJob>(USER, "tick").await;
    hours.world.until_there_are::<Job>(USER, &[]).await;
}

#[tokio::test]
async fn jobs_that_overlap_do_so_only_where_that_is_allowed() {
    let hours = Hours::with(json!({"concurrencyPolicy": "Allow"})).await;
    hours.pass(HOUR + 1).await;
    hours.jobs(1).await;
    hours.pass(HOUR).await;
    hours.jobs(2).await;
    assert_eq!(hours.until(|status| status.active.len() == 2).await.active.len(), 2);
}

/// B29: it ran once, and then waited for a Job that nobody did.
#[tokio::test]
async fn b29_forbid_waits_for_the_job_and_goes_on_when_that_ended() {
    let hours = Hours::with(json!({"concurrencyPolicy": "Forbid"})).await;
    hours.pass(HOUR + 1).await;
    let first = hours.jobs(1).await.remove(0);
    hours.pass(HOUR).await;
    hours.until_told("JobAlreadyActive").await;
    hours.jobs(1).await;
    hours.end(&first, 0).await;
    // What was due meanwhile is made up for.
    hours.jobs(2).await;
}

/// B29: it failed first, and then ended one Job in a pass.
#[tokio::test]
async fn b29_replace_ends_the_job_that_runs_and_starts_the_next() {
    let hours = Hours::with(json!({"concurrencyPolicy": "Replace"})).await;
    hours.pass(HOUR + 1).await;
    let first = hours.jobs(1).await.remove(0);
    hours.pass(HOUR).await;
    hours.world.until_gone::<Job>(USER, &first.name_any()).await;
    let second = hours.jobs(1).await.remove(0);
    assert_ne!(second.name_any(), first.name_any());
    hours.until(|status| status.active.iter().map(|job| job.name.clone()).eq([Some(second.name_any())])).await;
    assert!(!hours.world.reasons(USER, "tick").await.contains(&"FailedCreate".to_owned()));
}

#[tokio::test]
async fn of_those_that_ended_as_many_are_kept_as_it_says() {
    let hours = Hours::with(json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0,
        "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}}))
    .await;
    hours.pass(HOUR + 1).await;
    let first = hours.jobs(1).await.remove(0);
    hours.end(&first, 0).await;
    hours.pass(HOUR).await;
    let second = hours.jobs(2).await.remove(1);
    hours.end(&second, 0).await;
    hours.world.until_gone::<Job>(USER, &first.name_any()).await;
    hours.pass(HOUR).await;
    let third = hours.jobs(2).await.remove(1);
    hours.world.report_end(USER, &format!("{}-0", third.name_any()), 1, hours.clock.now()).await;
    hours.world.until_gone::<Job>(USER, &third.name_any()).await;
    assert_eq!(hours.jobs(1).await[0].name_any(), second.name_any());
}

#[tokio::test]
async fn a_suspended_cron_job_makes_nothing_until_it_goes_on() {
    let hours = Hours::with(json!({"suspend": true, "startingDeadlineSeconds": 60})).await;
    hours.pass(2 * HOUR + 100).await;
    hours.jobs(0).await;
    hours.world.patch::<CronJob>(USER, "tick", json!({"spec": {"suspend": false}})).await;
    // What was due is longer ago than it may be.
    hours.until_told("MissSchedule").await;
    hours.jobs(0).await;
    hours.pass(HOUR - 90).await;
    hours.jobs(1).await;
}

#[tokio::test]
async fn after_a_long_absence_one_job_is_made_up_for_and_somebody_is_told() {
    let hours = Hours::with(json!({})).await;
    hours.pass(500 * HOUR + 1).await;
    hours.jobs(1).await;
    hours.until(|status| status.last_schedule_time.is_some()).await;
    assert_eq!(hours.world.reasons(USER, "tick").await, ["SuccessfulCreate", "TooManyMissedTimes"]);
}
