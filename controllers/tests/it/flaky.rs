//! Controllers whose requests are refused, whose answers are lost and whose watches break, at random but by a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures::StreamExt;
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use kube::ResourceExt;
use onex_controllers::Settings;
use onex_crds::{Chain, Miner, MinerSet};
use serde_json::json;

use crate::world::{SYSTEM, USER, World, chain, minerset};

/// Dice that fall the same way for the same seed, as far as the order of requests is the same.
#[derive(Clone)]
struct Dice(Arc<AtomicU64>);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        // SplitMix64.
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn flaky(router: Router, dice: Dice) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let dice = dice.clone();
        async move {
            let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let write = request.method() != Method::GET;
            match dice.roll(10) {
                0 if !watch => broken(),
                1 if write => {
                    // Done, but the answer is lost.
                    drop(next.run(request).await);
                    broken()
                }
                _ if watch => cut(next.run(request).await, Duration::from_millis(200 + dice.roll(2_000))),
                _ => next.run(request).await,
            }
        }
    }))
}

fn broken() -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "InternalError", "message": "the dice said so", "code": 500});
    (StatusCode::INTERNAL_SERVER_ERROR, Json(status)).into_response()
}

/// The same answer, that ends after a while.
fn cut(response: Response, after: Duration) -> Response {
    let (parts, body) = response.into_parts();
    let frames = body.into_data_stream().take_until(tokio::time::sleep(after));
    Response::from_parts(parts, Body::from_stream(frames))
}

async fn live_through_everything(seed: u64) {
    // Shown when the test fails: with it the faults come again.
    #[allow(clippy::print_stdout)]
    {
        println!("seed {seed}");
    }
    let dice = Dice(Arc::new(AtomicU64::new(seed)));
    let world = World::whose_controllers_see(Settings::default(), true, |router| flaky(router, dice)).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world.apply::<MinerSet>(USER, minerset("a", 5)).await;
    world.complete_set("a", 5).await;
    world.running(SYSTEM, "genesis").await;
    world.until_there_are::<Miner>(USER, &["a-0", "a-1", "a-2", "a-3", "a-4"]).await;

    world.delete::<Pod>(USER, "a-1").await;
    world.delete::<Miner>(USER, "a-2").await;
    world.patch::<MinerSet>(USER, "a", json!({"spec": {"replicas": 8}})).await;
    world.complete_set("a", 8).await;
    let miners = world.until_all::<Miner>(USER, |miners| miners.len() == 8).await;
    assert!(
        miners.iter().all(|miner| miner.metadata.deletion_timestamp.is_none()),
        "{:?}",
        miners.iter().map(ResourceExt::name_any)
    );

    world.patch::<MinerSet>(USER, "a", json!({"spec": {"replicas": 2}})).await;
    world.complete_set("a", 2).await;
    world.until_all::<Pod>(USER, |pods| pods.len() == 2).await;

    world.delete::<MinerSet>(USER, "a").await;
    world.delete::<Chain>(SYSTEM, "genesis").await;
    world.until_there_are::<Miner>(USER, &[]).await;
    world.until_there_are::<Pod>(USER, &[]).await;
    world.until_gone::<Miner>(SYSTEM, "genesis").await;
    world.until_gone::<Pod>(SYSTEM, "genesis").await;
    world.until_gone::<Service>(SYSTEM, "genesis").await;
}

#[tokio::test]
async fn refused_requests_lost_answers_and_broken_watches_only_cost_time() {
    for seed in [1, 2, 3] {
        live_through_everything(seed).await;
    }
}

#[tokio::test]
async fn a_set_whose_pass_fails_says_so() {
    let no_deletions = |router: Router| {
        router.layer(from_fn(|request: Request, next: Next| async move {
            if request.method() == Method::DELETE { broken() } else { next.run(request).await }
        }))
    };
    let world = World::whose_controllers_see(Settings::default(), true, no_deletions).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world.apply::<MinerSet>(USER, minerset("a", 1)).await;
    world.complete_set("a", 1).await;
    world.patch::<MinerSet>(USER, "a", json!({"spec": {"replicas": 0}})).await;
    world
        .until_all::<Event>(USER, |events| events.iter().any(|event| event.reason.as_deref() == Some("ReconcileError")))
        .await;
    assert_eq!(world.reasons(USER, "a").await, ["FailedDelete", "ReconcileError", "SuccessfulCreate"]);
}
