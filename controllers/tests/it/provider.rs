//! Pods and genesis Services in another cluster than everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::{Api, Client, ResourceExt};
use onex_controllers::Settings;
use onex_crds::{Chain, Miner, Phase, conditions};
use serde_json::json;

use crate::world::{Making, SYSTEM, USER, World, chain, miner};

/// A cluster with a kubelet, and without anything of ours: whoever needs a namespace has to make it.
async fn elsewhere() -> World {
    let apiserver = onex_apiserver::Settings {
        disable_admission: vec!["NamespaceAutoProvision".to_owned()],
        ..onex_apiserver::Settings::default()
    };
    let settings = Settings { controllers: Vec::new(), ..Settings::default() };
    World::made_of(Making { apiserver, settings, ..Making::default() }).await
}

async fn home(provider: Client) -> World {
    let world = World::made_of(Making { kubelet: false, provider: Some(provider), ..Making::default() }).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world
}

#[tokio::test]
async fn b44_pods_and_services_live_and_go_in_the_cluster_of_the_provider() {
    let elsewhere = elsewhere().await;
    let home = home(elsewhere.client.clone()).await;
    home.apply::<Miner>(USER, miner("free")).await;
    home.running(USER, "free").await;
    home.running(SYSTEM, "genesis").await;
    assert!(Api::<Namespace>::all(elsewhere.client.clone()).get_opt(USER).await.unwrap().is_some());
    for (namespace, name) in [(USER, "free"), (SYSTEM, "genesis")] {
        let pod = elsewhere.until::<Pod>(namespace, name, |_| true).await;
        // An owner that is not there would have it collected as garbage.
        assert_eq!(pod.owner_references(), []);
        assert_eq!(pod.annotations()["apps.onex.io/miner"], name);
        home.until_there_are::<Pod>(namespace, &[]).await;
    }
    let service = elsewhere.until::<Service>(SYSTEM, "genesis", |_| true).await;
    assert_eq!(service.owner_references(), []);
    home.until_there_are::<Service>(SYSTEM, &[]).await;

    elsewhere.delete::<Pod>(USER, "free").await;
    home.until::<Miner>(USER, "free", |miner| miner.phase() != Phase::Running).await;
    home.running(USER, "free").await;

    home.delete::<Miner>(USER, "free").await;
    home.until_gone::<Miner>(USER, "free").await;
    elsewhere.until_there_are::<Pod>(USER, &[]).await;
    home.delete::<Chain>(SYSTEM, "genesis").await;
    home.until_gone::<Miner>(SYSTEM, "genesis").await;
    elsewhere.until_there_are::<Pod>(SYSTEM, &[]).await;
    elsewhere.until_there_are::<Service>(SYSTEM, &[]).await;
}

/// How the provider treats requests about Pods: it does what they ask, refuses deletions, or answers nothing at all.
const WILLING: u8 = 0;
const STUBBORN: u8 = 1;
const SILENT: u8 = 2;

fn moody(router: Router, mood: Arc<AtomicU8>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let mood = mood.load(Ordering::Relaxed);
        async move {
            let about_pods = request.uri().path().contains("/pods/");
            match mood {
                STUBBORN if about_pods && request.method() == Method::DELETE => StatusCode::FORBIDDEN.into_response(),
                SILENT if about_pods => std::future::pending().await,
                _ => next.run(request).await,
            }
        }
    }))
}

/// The Miner `free`, deleted when its provider turned moody.
async fn deleted_in(bad_mood: u8) -> World {
    let mood = Arc::new(AtomicU8::new(WILLING));
    let home = World::whose_controllers_see(Settings::default(), true, |router| moody(router, mood.clone())).await;
    home.apply::<Chain>(SYSTEM, chain("genesis")).await;
    home.apply::<Miner>(USER, miner("free")).await;
    home.running(USER, "free").await;
    home.patch::<Miner>(USER, "free", json!({"spec": {"podDeletionTimeout": "3s"}})).await;
    mood.store(bad_mood, Ordering::Relaxed);
    home.delete::<Miner>(USER, "free").await;
    home
}

#[tokio::test]
async fn a_deleted_miner_whose_pod_may_not_be_deleted_says_so_and_then_goes() {
    let home = deleted_in(STUBBORN).await;
    let failed = |miner: &Miner| {
        conditions::get(miner.conditions(), "PodHealthy").is_some_and(|told| told.reason == "DeletionFailed")
    };
    home.until::<Miner>(USER, "free", failed).await;
    home.until_gone::<Miner>(USER, "free").await;
    assert!(home.reasons(USER, "free").await.contains(&"FailedDeletePod".to_owned()));
}

#[tokio::test]
async fn a_deleted_miner_whose_provider_does_not_answer_goes() {
    let home = deleted_in(SILENT).await;
    home.until_gone::<Miner>(USER, "free").await;
    assert!(home.reasons(USER, "free").await.contains(&"FailedDeletePod".to_owned()));
}
