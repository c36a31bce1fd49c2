//! Jobs.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use onex_controllers::{Clock, Settings};
use onex_crds::job::{COMPLETE, FAILED, SUSPENDED};
use onex_crds::{Job, JobPhase, JobStatus, Truth, job};
use serde_json::{Value, json};

use crate::world::{Making, SetClock, USER, World};

/// A Job whose Pod has one container.
fn job(name: &str, spec: Value) -> Value {
    let template = json!({"metadata": {"labels": {"tier": "gold"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": 1}}}]}});
    let mut whole = json!({ "template": template });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "batch.onex.io/v1beta1", "kind": "Job", "metadata": {"name": name, "namespace": USER}, "spec": whole})
}

fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

fn holds(job: &Job, type_: &str) -> bool {
    job::get(&status(job).conditions, type_).is_some_and(|told| told.status == Truth::True)
}

async fn in_phase(world: &World, name: &str, phase: JobPhase) -> Job {
    world.until::<Job>(USER, name, move |job| status(job).phase == Some(phase)).await
}

/// Lets the controller look at the Job at the time that it is now.
async fn poke(world: &World, clock: &Arc<SetClock>, name: &str) {
    let poked = Patch::Merge(json!({"metadata": {"annotations": {"poked": clock.now().to_string()}}}));
    match world.api::<Job>(USER).patch(name, &PatchParams::default(), &poked).await {
        // It was looked at meanwhile, and went as it should.
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        poked => drop(poked.unwrap()),
    }
}

#[tokio::test]
async fn a_job_becomes_a_pod_and_is_done_when_that_is() {
    let clock = SetClock::new();
    let world = World::by(&clock).await;
    let made = world.apply::<Job>(USER, job("hello", json!({}))).await;
    in_phase(&world, "hello", JobPhase::Running).await;
    let pod = world.until::<Pod>(USER, "hello-0", |_| true).await;
    assert_eq!((pod.owner_references()[0].uid.clone(), pod.labels()["tier"].as_str()), (made.uid().unwrap(), "gold"));
    assert_eq!(pod.spec.as_ref().unwrap().restart_policy.as_deref(), Some("Never"));
    clock.put_forward(30);
    let ended = clock.now();
    clock.put_forward(30);
    world.report_end(USER, "hello-0", 0, ended).await;
    let done = in_phase(&world, "hello", JobPhase::Succeeded).await;
    assert!(holds(&done, COMPLETE));
    let status = status(&done);
    assert_eq!(status.ended_at.unwrap().0.as_second(), ended.as_second());
    assert_eq!((status.failed, status.pod_ref.unwrap().name.as_str()), (0, "hello-0"));
    assert_eq!(world.reasons(USER, "hello").await, ["Completed", "SuccessfulCreate"]);
    // Its Pod, and what it said, goes with the Job.
    world.until_there_are::<Pod>(USER, &["hello-0"]).await;
    world.delete::<Job>(USER, "hello").await;
    world.until_there_are::<Pod>(USER, &[]).await;
}

#[tokio::test]
async fn a_job_that_fails_is_tried_again_later_and_later_and_given_up_in_the_end() {
    let clock = SetClock::new();
    let world = World::by(&clock).await;
    world.apply::<Job>(USER, job("bad", json!({"backoffLimit": 2}))).await;
    for (pod, wait) in [("bad-0", 10), ("bad-1", 20)] {
        world.until::<Pod>(USER, pod, |_| true).await;
        in_phase(&world, "bad", JobPhase::Running).await;
        world.report_end(USER, pod, 3, clock.now()).await;
        world.until::<Job>(USER, "bad", |job| status(job).error_message.contains("is tried again at")).await;
        clock.put_forward(wait);
        poke(&world, &clock, "bad").await;
    }
    world.until::<Pod>(USER, "bad-2", |_| true).await;
    in_phase(&world, "bad", JobPhase::Running).await;
    world.report_end(USER, "bad-2", 3, clock.now()).await;
    let given_up = in_phase(&world, "bad", JobPhase::Failed).await;
    assert_eq!(job::get(&status(&given_up).conditions, FAILED).unwrap().reason, "BackoffLimitExceeded");
    assert_eq!(status(&given_up).failed, 3);
    world.until_there_are::<Pod>(USER, &["bad-0", "bad-1", "bad-2"]).await;
    let reasons = world.reasons(USER, "bad").await;
    assert_eq!(reasons, ["BackoffLimitExceeded", "SuccessfulCreate"]);
}

#[tokio::test]
async fn a_job_that_takes_too_long_loses_its_pod_and_has_failed() {
    let clock = SetClock::new();
    let world = World::by(&clock).await;
    world.apply::<Job>(USER, job("slow", json!({"activeDeadlineSeconds": 100}))).await;
    in_phase(&world, "slow", JobPhase::Running).await;
    clock.put_forward(101);
    poke(&world, &clock, "slow").await;
    let failed = in_phase(&world, "slow", JobPhase::Failed).await;
    assert_eq!(job::get(&status(&failed).conditions, FAILED).unwrap().reason, "DeadlineExceeded");
    world.until_there_are::<Pod>(USER, &[]).await;
}

#[tokio::test]
async fn a_suspended_job_lets_its_pod_go_and_starts_anew_when_it_may() {
    let clock = SetClock::new();
    let world = World::by(&clock).await;
    world.apply::<Job>(USER, job("later", json!({}))).await;
    in_phase(&world, "later", JobPhase::Running).await;
    world.patch::<Job>(USER, "later", json!({"spec": {"suspend": true}})).await;
    let suspended = world.until::<Job>(USER, "later", |job| holds(job, SUSPENDED)).await;
    assert_eq!((status(&suspended).phase, status(&suspended).started_at), (Some(JobPhase::Pending), None));
    world.until_there_are::<Pod>(USER, &[]).await;
    clock.put_forward(1000);
    world.patch::<Job>(USER, "later", json!({"spec": {"suspend": false}})).await;
    let resumed = in_phase(&world, "later", JobPhase::Running).await;
    assert_eq!(status(&resumed).started_at.unwrap().0.as_second(), clock.now().as_second());
    assert_eq!((holds(&resumed, SUSPENDED), status(&resumed).failed), (false, 0));
}

#[tokio::test]
async fn a_job_that_ended_goes_when_it_was_kept_for_as_long_as_it_says() {
    let clock = SetClock::new();
    let world = World::by(&clock).await;
    world.apply::<Job>(USER, job("brief", json!({"ttlSecondsAfterFinished": 60}))).await;
    in_phase(&world, "brief", JobPhase::Running).await;
    world.report_end(USER, "brief-0", 0, clock.now()).await;
    in_phase(&world, "brief", JobPhase::Succeeded).await;
    clock.put_forward(61);
    poke(&world, &clock, "brief").await;
    world.until_gone::<Job>(USER, "brief").await;
    world.until_there_are::<Pod>(USER, &[]).await;
}

#[tokio::test]
async fn a_pod_that_somebody_deletes_is_made_again() {
    let world = World::new().await;
    world.apply::<Job>(USER, job("again", json!({}))).await;
    in_phase(&world, "again", JobPhase::Running).await;
    let first = world.until::<Pod>(USER, "again-0", |_| true).await;
    world.delete::<Pod>(USER, "again-0").await;
    world.until::<Pod>(USER, "again-0", |pod| pod.uid() != first.uid()).await;
    assert_eq!(status(&in_phase(&world, "again", JobPhase::Running).await).failed, 0);
}

#[tokio::test]
async fn a_job_finds_its_pod_again_when_its_status_was_lost() {
    let world = World::new().await;
    world.apply::<Job>(USER, job("lost", json!({}))).await;
    let before = in_phase(&world, "lost", JobPhase::Running).await;
    let lost = Patch::Merge(json!({"status": {"phase": null, "podRef": null, "startedAt": null}}));
    world.api::<Job>(USER).patch_status("lost", &PatchParams::default(), &lost).await.unwrap();
    let after = in_phase(&world, "lost", JobPhase::Running).await;
    assert_eq!(status(&after).pod_ref, status(&before).pod_ref);
    world.until_there_are::<Pod>(USER, &["lost-0"]).await;
}

#[tokio::test]
async fn a_job_whose_pods_name_is_taken_says_so_and_goes_on_when_it_is_free() {
    let world = World::without_kubelet().await;
    let stranger = json!({"metadata": {"name": "mine-0", "namespace": USER},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.apply::<Pod>(USER, stranger).await;
    world.apply::<Job>(USER, job("mine", json!({}))).await;
    let told = world.until::<Job>(USER, "mine", |job| status(job).error_message.contains("its name is taken")).await;
    assert_eq!(status(&told).phase, Some(JobPhase::Pending));
    world.delete::<Pod>(USER, "mine-0").await;
    world.until::<Pod>(USER, "mine-0", |pod| !pod.owner_references().is_empty()).await;
    world.until::<Job>(USER, "mine", |job| status(job).error_message.is_empty()).await;
}

/// B29: nobody did them. One without a template is still left to who does what its type says, and who writes the status.
#[tokio::test]
async fn b29_a_job_for_somebody_else_waits_for_them_and_keeps_what_they_say() {
    let world = World::new().await;
    let spec = json!({"type": "AWS", "providerSpec": {"instanceType": "m4.xlarge"}, "ttlSecondsAfterFinished": 0});
    let aws = json!({"metadata": {"name": "aws", "namespace": USER}, "spec": spec});
    world.apply::<Job>(USER, aws).await;
    in_phase(&world, "aws", JobPhase::Pending).await;
    let say = |said: Value| {
        let (api, patch) = (world.api::<Job>(USER), Patch::Merge(json!({ "status": said })));
        async move { api.patch_status("aws", &PatchParams::default(), &patch).await.unwrap() }
    };
    say(json!({"phase": "Running", "providerStatus": {"instance": "i-1"}})).await;
    let running = in_phase(&world, "aws", JobPhase::Running).await;
    assert_eq!(status(&running).provider_status, Some(json!({"instance": "i-1"})));
    world.until_there_are::<Pod>(USER, &[]).await;
    say(json!({"phase": "Succeeded"})).await;
    world.until_gone::<Job>(USER, "aws").await;
}

#[tokio::test]
async fn the_pods_of_a_job_in_another_cluster_go_before_it_does() {
    let elsewhere = World::with(Settings { controllers: Vec::new(), ..Settings::default() }, true).await;
    let making = Making { provider: Some(elsewhere.client.clone()), kubelet: false, ..Making::default() };
    let world = World::made_of(making).await;
    world.apply::<Job>(USER, job("away", json!({}))).await;
    let running = in_phase(&world, "away", JobPhase::Running).await;
    assert_eq!(running.finalizers(), ["job.onex.io/finalizer"]);
    let pod = elsewhere.until::<Pod>(USER, "away-0", |_| true).await;
    assert!(pod.owner_references().is_empty());
    world.until_there_are::<Pod>(USER, &[]).await;
    world.delete::<Job>(USER, "away").await;
    world.until_gone::<Job>(USER, "away").await;
    elsewhere.until_there_are::<Pod>(USER, &[]).await;
}
