//! Many Miners at once, on a node that only pretends to run their Pods.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use onex_controllers::Settings;
use onex_crds::{Chain, Miner, MinerSet, Phase};
use onex_node::Node;
use serde::de::DeserializeOwned;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::world::{SYSTEM, USER, World, chain, minerset};

/// The longest that nothing may happen, however busy the machine and however slow the build. How long all takes is printed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until as many are counted as wanted, for as long as the count changes.
async fn goes_on(wanted: usize, count: impl AsyncFn() -> usize) {
    let (mut last, mut deadline) = (usize::MAX, Instant::now());
    loop {
        let now = count().await;
        if now == wanted {
            return;
        }
        if now != last {
            (last, deadline) = (now, Instant::now() + PATIENCE);
        }
        assert!(Instant::now() < deadline, "nothing happens any more: {now} instead of {wanted}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

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
        let sets: Api<MinerSet> = self.world.api(USER);
        // Sets know, and are fewer than their Miners.
        goes_on(count, async || {
            let there = sets.list(&ListParams::default()).await.unwrap();
            let ready = there.iter().filter_map(|set| usize::try_from(set.status.as_ref()?.ready_replicas).ok());
            ready.sum()
        })
        .await;
        let miners = self.world.api::<Miner>(USER).list(&ListParams::default()).await.unwrap();
        assert_eq!(miners.iter().filter(|miner| miner.phase() == Phase::Running).count(), count);
    }

    async fn until_none<K>(&self)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let objects: Api<K> = self.world.api(USER);
        goes_on(0, async || {
            let one = objects.list_metadata(&ListParams::default().limit(1)).await.unwrap();
            let more = one.metadata.remaining_item_count.unwrap_or_default();
            one.items.len() + usize::try_from(more).unwrap()
        })
        .await;
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
        self.until_none::<Miner>().await;
        self.until_none::<Pod>().await;
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

/// The whole scale. Ignored because it is a measurement: a debug build on a busy machine takes half an hour for it, and it asks for
/// nothing that the test above does not. `cargo test --release -p onex-controllers --test it scale::ten_thousand -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a release build, of which the test above holds a tenth"]
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
