//! Miners and their Pods.

use std::future::ready;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use futures::StreamExt;
use futures::stream::once;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use onex_controllers::{Name, Settings};
use onex_crds::{Chain, FailureReason, Miner, Phase, conditions};
use serde_json::json;
use tokio::sync::watch;

use crate::world::{SYSTEM, USER, World, chain, miner};

impl World {
    async fn free() -> Self {
        let world = Self::with_chain().await;
        world.apply::<Miner>(USER, miner("free")).await;
        world.running(USER, "free").await;
        world
    }
}

fn health(miner: &Miner) -> &str {
    conditions::get(miner.conditions(), "PodHealthy").map_or("", |healthy| healthy.reason.as_str())
}

#[tokio::test]
async fn b7_a_lost_pod_is_made_again() {
    let world = World::free().await;
    let before = world.until::<Pod>(USER, "free", |_| true).await;
    world.delete::<Pod>(USER, "free").await;
    world.until::<Pod>(USER, "free", |pod| pod.uid() != before.uid()).await;
    let miner = world
        .until::<Miner>(USER, "free", |miner| {
            miner.status.as_ref().unwrap().pod_ref.as_ref().is_some_and(|pod| pod.uid != before.uid())
        })
        .await;
    assert_ne!(miner.phase(), Phase::Failed);
    world.running(USER, "free").await;
    assert!(world.reasons(USER, "free").await.contains(&"Deleted".to_owned()));
}

#[tokio::test]
async fn b2_a_miner_is_provisioning_until_its_pod_is_ready_and_again_when_it_is_not() {
    let world = World::without_kubelet().await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world.apply::<Miner>(USER, miner("free")).await;
    let miner = world.until::<Miner>(USER, "free", |miner| miner.phase() == Phase::Provisioning).await;
    assert_eq!(health(&miner), "PodProvisioning");
    world.report(USER, "free", "True", "").await;
    world.running(USER, "free").await;
    world.report(USER, "free", "False", "probe failed").await;
    let miner = world.until::<Miner>(USER, "free", |miner| miner.phase() == Phase::Provisioning).await;
    assert_eq!(health(&miner), "PodConditionsFailed");
}

#[tokio::test]
async fn a_miner_waits_for_its_chain() {
    let world = World::new().await;
    world.apply::<Miner>(USER, miner("free")).await;
    let waiting = world.until::<Miner>(USER, "free", |miner| health(miner) == "ChainNotFound").await;
    assert_eq!(waiting.phase(), Phase::Pending);
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world.running(USER, "free").await;
}

#[tokio::test]
async fn an_unknown_type_fails_the_miner_until_it_is_mended() {
    let world = World::with_chain().await;
    let mut unknown = miner("free");
    unknown["spec"]["minerType"] = json!("XXL");
    world.apply::<Miner>(USER, unknown).await;
    let failed = world.until::<Miner>(USER, "free", |miner| miner.phase() == Phase::Failed).await;
    assert_eq!(failed.status.unwrap().failure_reason, Some(FailureReason::InvalidConfiguration));
    assert!(world.reasons(USER, "free").await.contains(&"MinerTypeUnsupported".to_owned()));
    world.patch::<Miner>(USER, "free", json!({"spec": {"minerType": "S1.SMALL1"}})).await;
    let mended = world.running(USER, "free").await;
    assert_eq!(mended.status.unwrap().failure_reason, None);
}

#[tokio::test]
async fn b20_a_deleted_miner_is_seen_deleting_until_its_pod_is_gone() {
    let world = World::free().await;
    world.patch::<Pod>(USER, "free", json!({"metadata": {"finalizers": ["test.onex.io/hold"]}})).await;
    world.delete::<Miner>(USER, "free").await;
    let going = world.until::<Miner>(USER, "free", |miner| miner.phase() == Phase::Deleting).await;
    assert_eq!(health(&going), "Deleting");
    world.patch::<Pod>(USER, "free", json!({"metadata": {"finalizers": null}})).await;
    world.until_gone::<Miner>(USER, "free").await;
    world.until_gone::<Pod>(USER, "free").await;
}

#[tokio::test]
async fn a_deleted_miner_gives_up_on_a_pod_that_does_not_go() {
    let world = World::free().await;
    world.patch::<Miner>(USER, "free", json!({"spec": {"podDeletionTimeout": "1s"}})).await;
    world.patch::<Pod>(USER, "free", json!({"metadata": {"finalizers": ["test.onex.io/hold"]}})).await;
    world.delete::<Miner>(USER, "free").await;
    world.until_gone::<Miner>(USER, "free").await;
    assert!(world.reasons(USER, "free").await.contains(&"FailedDeletePod".to_owned()));
}

#[tokio::test]
async fn a_pod_of_somebody_else_is_neither_used_nor_deleted() {
    let world = World::with_chain().await;
    let stranger = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "free", "namespace": USER},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    });
    let pod = world.apply::<Pod>(USER, stranger).await;
    world.apply::<Miner>(USER, miner("free")).await;
    let waiting = world.until::<Miner>(USER, "free", |miner| health(miner) == "PodProvisioning").await;
    assert_eq!(waiting.status.unwrap().pod_ref, None);
    world.delete::<Miner>(USER, "free").await;
    world.until_gone::<Miner>(USER, "free").await;
    assert_eq!(world.until::<Pod>(USER, "free", |_| true).await.uid(), pod.uid());
}

#[tokio::test]
async fn labels_and_annotations_of_the_spec_are_on_the_pod() {
    let world = World::free().await;
    let spec = json!({"spec": {"metadata": {"labels": {"tier": "gold"}, "annotations": {"note": "x"}}}});
    world.patch::<Miner>(USER, "free", spec).await;
    let pod = world.until::<Pod>(USER, "free", |pod| pod.labels().contains_key("tier")).await;
    assert_eq!(pod.annotations()["note"], "x");
    assert_eq!(pod.annotations()["apps.onex.io/miner"], "free");
    assert_eq!(pod.labels()["apps.onex.io/minerset-name"], "free");
}

/// In OneX Pods were found by their name alone, so that of two of a name in two namespaces neither was.
#[tokio::test]
async fn b33_miners_of_one_name_in_two_namespaces_have_a_pod_each() {
    let world = World::free().await;
    let mut other = miner("free");
    other["metadata"]["namespace"] = json!("user-other");
    world.apply::<Miner>("user-other", other).await;
    world.running("user-other", "free").await;
    let (ours, theirs) =
        (world.until::<Pod>(USER, "free", |_| true).await, world.until::<Pod>("user-other", "free", |_| true).await);
    world.delete::<Pod>("user-other", "free").await;
    world.until::<Pod>("user-other", "free", |pod| pod.uid() != theirs.uid()).await;
    world.running("user-other", "free").await;
    assert_eq!(world.until::<Pod>(USER, "free", |_| true).await.uid(), ours.uid());
}

#[tokio::test]
async fn a_paused_miner_is_left_alone() {
    let world = World::free().await;
    world.patch::<Miner>(USER, "free", json!({"metadata": {"annotations": {"apps.onex.io/paused": ""}}})).await;
    world.delete::<Pod>(USER, "free").await;
    world.until_gone::<Pod>(USER, "free").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(world.api::<Pod>(USER).get_opt("free").await.unwrap().is_none());
    world.patch::<Miner>(USER, "free", json!({"metadata": {"annotations": {"apps.onex.io/paused": null}}})).await;
    world.running(USER, "free").await;
}

#[tokio::test]
async fn a_pod_that_is_replaced_because_its_miner_changed_is_nothing_to_warn_of() {
    let world = World::free().await;
    let before = world.until::<Pod>(USER, "free", |_| true).await;
    world.patch::<Pod>(USER, "free", json!({"metadata": {"finalizers": ["test.onex.io/hold"]}})).await;
    world.patch::<Miner>(USER, "free", json!({"spec": {"minerType": "S1.SMALL1"}})).await;
    world.until::<Miner>(USER, "free", |miner| health(miner) == "PodReplaced").await;
    world.patch::<Pod>(USER, "free", json!({"metadata": {"finalizers": null}})).await;
    world.until::<Pod>(USER, "free", |pod| pod.uid() != before.uid()).await;
    world.running(USER, "free").await;
    assert_eq!(world.reasons(USER, "free").await, ["SuccessfulCreate", "SuccessfulSetPodRef"]);
}

/// The watch of the Pods ends as if its history were gone, and the list that follows has to wait.
fn blindfolded(router: Router, blind: watch::Receiver<bool>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let mut blind = blind.clone();
        async move {
            if request.uri().path() != "/api/v1/pods" {
                return next.run(request).await;
            }
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            if !watches {
                blind.wait_for(|blind| !blind).await.unwrap();
                return next.run(request).await;
            }
            let expired =
                json!({"kind": "Status", "status": "Failure", "reason": "Expired", "message": "", "code": 410});
            let expired = format!("{}\n", json!({"type": "ERROR", "object": expired}));
            let (parts, body) = next.run(request).await.into_parts();
            let blindfold = async move { drop(blind.wait_for(|blind| *blind).await.unwrap()) };
            let frames = body.into_data_stream().take_until(Box::pin(blindfold));
            Response::from_parts(parts, Body::from_stream(frames.chain(once(ready(Ok(expired.into()))))))
        }
    }))
}

/// The list after a watch that broke shows what is there; a Pod that went meanwhile was missed until the next resync.
#[tokio::test]
async fn a_pod_that_is_lost_while_nobody_watches_is_made_again() {
    let (blindfold, blind) = watch::channel(false);
    let settings = Settings { controllers: vec![Name::Chain, Name::Miner], ..Settings::default() };
    let world = World::whose_controllers_see(settings, true, |router| blindfolded(router, blind)).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world.apply::<Miner>(USER, miner("free")).await;
    world.running(USER, "free").await;
    let before = world.until::<Pod>(USER, "free", |_| true).await;
    // The last write of a pass is answered by another pass, which must not be the one that misses the Pod.
    tokio::time::sleep(Duration::from_millis(500)).await;
    blindfold.send_replace(true);
    world.delete::<Pod>(USER, "free").await;
    world.until_gone::<Pod>(USER, "free").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.api::<Miner>(USER).get("free").await.unwrap().phase(), Phase::Running, "somebody saw it");
    blindfold.send_replace(false);
    world.until::<Pod>(USER, "free", |pod| pod.uid() != before.uid()).await;
}

#[tokio::test]
async fn a_miner_tells_once_that_it_found_its_pod() {
    let world = World::free().await;
    world.report(USER, "free", "False", "probe failed").await;
    world.until::<Miner>(USER, "free", |miner| health(miner) == "PodConditionsFailed").await;
    let events = world.api::<Event>(USER).list(&ListParams::default()).await.unwrap();
    let told: Vec<_> =
        events.into_iter().filter(|event| event.reason.as_deref() == Some("SuccessfulSetPodRef")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].involved_object.kind.as_deref(), Some("Miner"));
    assert_eq!(told[0].count.unwrap_or(1), 1);
}
