//! Several processes with the same controllers: one works at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use http::StatusCode;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use onex_controllers::leader::{self, Elect};
use onex_controllers::{Controllers, Settings};
use onex_crds::MinerSet;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::{SYSTEM, USER, World, minerset};

const LEASE: &str = "onex-controllers";

fn electing() -> Settings {
    let leader =
        leader::Settings { elect: Elect::Always, lease_seconds: 3, retry_seconds: 1, ..leader::Settings::default() };
    Settings { leader, ..Settings::default() }
}

/// Controllers that end when this is dropped, without a word.
fn begin(world: &World, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    tokio::spawn(Controllers::new(electing(), world.client.clone()).run(stop.clone()))
}

async fn led_by_other_than(world: &World, holder: &str) -> LeaseSpec {
    let holder = holder.to_owned();
    let is_other = move |lease: &Lease| {
        let now = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        !now.is_empty() && now != holder
    };
    world.until::<Lease>(SYSTEM, LEASE, is_other).await.spec.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_crashes_is_replaced_within_its_lease_and_who_stops_at_once() {
    // A world that has no controllers but those.
    let world = World::with(Settings { controllers: Vec::new(), ..Settings::default() }, true).await;
    let stop = CancellationToken::new();
    let first = begin(&world, &stop);
    let leader = led_by_other_than(&world, "").await;
    assert_eq!((leader.lease_duration_seconds, leader.lease_transitions), (Some(3), Some(0)));
    let orderly = CancellationToken::new();
    let second = begin(&world, &orderly);
    world.apply::<onex_crds::Chain>(SYSTEM, crate::world::chain("genesis")).await;
    world.apply::<MinerSet>(USER, minerset("test", 3)).await;
    world.complete_set("test", 3).await;

    first.abort();
    let crashed = Instant::now();
    let next = led_by_other_than(&world, leader.holder_identity.as_deref().unwrap()).await;
    let took = crashed.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
    assert_eq!(next.lease_transitions, Some(1));
    world.patch::<MinerSet>(USER, "test", json!({"spec": {"replicas": 5}})).await;
    world.complete_set("test", 5).await;

    let third = begin(&world, &stop);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    orderly.cancel();
    second.await.unwrap();
    let stopped = Instant::now();
    let last = led_by_other_than(&world, next.holder_identity.as_deref().unwrap()).await;
    assert!(stopped.elapsed() < Duration::from_millis(2500), "{:?}", stopped.elapsed());
    assert_eq!(last.lease_transitions, Some(2));
    world.patch::<MinerSet>(USER, "test", json!({"spec": {"replicas": 2}})).await;
    world.complete_set("test", 2).await;
    stop.cancel();
    third.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_its_lease_stops_and_does_not_take_it_back() {
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = is_cut.clone();
    let door = move |router: axum::Router| {
        router.layer(from_fn(move |request: Request, next: Next| {
            let cut = cut.clone();
            async move {
                match cut.load(Ordering::Relaxed) {
                    true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    false => next.run(request).await,
                }
            }
        }))
    };
    let world = World::whose_controllers_see(electing(), true, door).await;
    let leader = led_by_other_than(&world, "").await;
    let stop = CancellationToken::new();
    let other = begin(&world, &stop);
    is_cut.store(true, Ordering::Relaxed);
    let next = led_by_other_than(&world, leader.holder_identity.as_deref().unwrap()).await;
    is_cut.store(false, Ordering::Relaxed);
    world.apply::<onex_crds::Chain>(SYSTEM, crate::world::chain("genesis")).await;
    world.apply::<MinerSet>(USER, minerset("test", 4)).await;
    world.complete_set("test", 4).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let now = led_by_other_than(&world, "").await;
    assert_eq!((now.holder_identity, now.lease_transitions), (next.holder_identity, Some(1)));
    stop.cancel();
    other.await.unwrap();
}
