//! Many Miners at once, on a node that only pretends to run their Pods.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use onex_controllers::Settings;
use onex_crds::{Chain, Miner, MinerSet, Phase};
use onex_node::Node;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::world::{SYSTEM, USER, World, chain, minerset};

/// The longest that any step may take, however busy the machine and however slow the build. What it takes is printed.
const PATIENCE: Duration = Duration::from_secs(180);

struct Scene {
    world: World,
    _directory: TempDir,
    _stop: DropGuard,
}

impl Scene {
    /// A platform with a chain and a node in a dry run, which is all that `onex up` adds to this.
    async fn new() -> Self {
        let world = World::with(Settings { node: "onex".to_owned(), ..Settings::default() }, false).await;
        let directory = tempfile::tempdir().unwrap();
        let settings = onex_node::Settings {
            data_dir: directory.path().join("node"),
            // Nothing is started through it.
            shim: vec!["none".to_owned()],
            dry_run: true,
            ..onex_node::Settings::default()
        };
        let stop = CancellationToken::new();
        tokio::spawn(Node::new(settings, world.client.clone(), 10250).run(stop.clone()));
        world.apply::<Chain>(SYSTEM, chain("genesis")).await;
        world.running(SYSTEM, "genesis").await;
        Self { world, _directory: directory, _stop: stop.drop_guard() }
    }

    /// Waits until there are so many Miners, all of them Running.
    async fn until_running(&self, count: usize) {
        self.until(count, |miner| miner.phase() == Phase::Running).await;
    }

    async fn until(&self, count: usize, is: impl Fn(&Miner) -> bool) {
        let miners: Api<Miner> = self.world.api(USER);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = miners.list(&ListParams::default()).await.unwrap().items;
            let right = there.iter().filter(|miner| is(miner)).count();
            if (there.len(), right) == (count, count) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} are there, {right} of them as they should be",
                there.len()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_no_pods(&self) {
        let pods: Api<Pod> = self.world.api(USER);
        let deadline = Instant::now() + PATIENCE;
        while !pods.list_metadata(&ListParams::default()).await.unwrap().items.is_empty() {
            assert!(Instant::now() < deadline, "Pods are left");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sets, as many and as large as told, come, work and go.
    async fn come_and_go(&self, sets: &[(usize, i32)]) {
        let names = sets
            .iter()
            .flat_map(|&(sets, replicas)| (0..sets).map(move |set| (format!("of-{replicas}-{set}"), replicas)));
        let all: Vec<(String, i32)> = names.collect();
        let count = all.iter().map(|(_, replicas)| usize::try_from(*replicas).unwrap()).sum();
        let api: Api<MinerSet> = self.world.api(USER);
        let start = Instant::now();
        for (name, replicas) in &all {
            let set = serde_json::from_value(minerset(name, *replicas)).unwrap();
            api.create(&PostParams::default(), &set).await.unwrap();
        }
        self.until_running(count).await;
        told(sets, "run", start);
        for (name, replicas) in &all {
            self.world.complete_set(name, *replicas).await;
        }
        let start = Instant::now();
        let _ = api.delete_collection(&DeleteParams::background(), &ListParams::default()).await.unwrap();
        self.until(0, |_| true).await;
        self.until_no_pods().await;
        told(sets, "are gone", start);
    }
}

/// The figures are what the test of the whole scale is for.
#[allow(clippy::print_stdout)]
fn told(sets: &[(usize, i32)], what: &str, start: Instant) {
    println!("(sets, miners of each) {sets:?} {what} after {} ms", start.elapsed().as_millis());
}

/// A tenth of the whole scale, which is ten thousand.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_miners_of_sets_large_and_small_come_and_go() {
    Scene::new().await.come_and_go(&[(1, 500), (50, 10)]).await;
}

/// To be measured, with a release build and nothing else on the machine.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn ten_thousand_miners_come_and_go() {
    let scene = Scene::new().await;
    scene.come_and_go(&[(1, 10_000)]).await;
    scene.come_and_go(&[(1_000, 10)]).await;
}

/// A set that is refused what it asks for must not ask for all of it again and again.
#[tokio::test]
async fn a_large_set_beyond_its_quota_asks_for_a_few_at_a_time() {
    let world = World::with_chain().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/miners.apps.onex.io": "3"}}});
    let _: k8s_openapi::api::core::v1::ResourceQuota = world.apply(USER, quota).await;
    world.apply::<MinerSet>(USER, minerset("a", 500)).await;
    let set = world
        .until::<MinerSet>(USER, "a", |set| {
            set.status.as_ref().is_some_and(|status| status.ready_replicas == 3)
                && onex_crds::conditions::is_false(set.conditions(), "MinersCreated")
        })
        .await;
    let created = onex_crds::conditions::get(set.conditions(), "MinersCreated").unwrap();
    assert!(created.message.contains("exceeded quota"), "{}", created.message);
    let miners = world.api::<Miner>(USER).list(&ListParams::default()).await.unwrap();
    assert_eq!(miners.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["a-0", "a-1", "a-2"]);
}
