//! The samples of OneX, and what must be visible after they were applied.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::ResourceExt;
use onex_crds::{Chain, Miner, MinerSet, Phase, conditions};
use serde_json::json;

use crate::world::{SYSTEM, USER, World, miner, minerset};

#[tokio::test]
async fn the_chain_of_the_samples_gets_a_keystore_a_genesis_and_a_service() {
    let world = World::with_chain().await;
    let chain = world
        .until::<Chain>(SYSTEM, "genesis", |chain| {
            conditions::is_true(&chain.status.clone().unwrap_or_default().conditions, "Ready")
        })
        .await;
    assert_eq!(chain.metadata.generation, Some(1));
    assert_eq!(chain.finalizers(), ["chain.onex.io/finalizer"]);
    let status = chain.status.clone().unwrap();
    assert_eq!(status.miner_ref.unwrap().name, "genesis");
    assert_eq!(status.observed_generation, 1);
    for type_ in ["ConfigMapsCreated", "MinersCreated", "MinersReady", "Ready"] {
        assert!(conditions::is_true(&status.conditions, type_), "{type_}");
    }
    let keystore = world.until::<ConfigMap>(SYSTEM, &status.config_map_ref.unwrap().name, |_| true).await;
    assert_eq!(keystore.labels()["apps.onex.io/chain-name"], "genesis");
    assert_eq!(keystore.owner_references()[0].kind, "Chain");

    let genesis = world.running(SYSTEM, "genesis").await;
    assert_eq!(genesis.labels()["apps.onex.io/chain-name"], "genesis");
    assert_eq!(genesis.finalizers(), ["miner.onex.io/finalizer"]);
    assert_eq!(genesis.annotations()["apps.onex.io/vCPU"], "100m");
    assert_eq!(genesis.annotations()["apps.onex.io/memoryMb"], "256Mi");
    assert_eq!((genesis.spec.miner_type.as_str(), genesis.spec.chain_name.as_str()), ("S1.SMALL2", "genesis"));
    assert_eq!(genesis.genesis_of(), Some("genesis"));

    let service = world.until::<Service>(SYSTEM, "genesis", |_| true).await;
    let pod = world.until::<Pod>(SYSTEM, "genesis", |_| true).await;
    let selector = service.spec.unwrap().selector.unwrap();
    assert!(selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)));
}

#[tokio::test]
async fn the_minerset_of_the_samples_becomes_two_running_miners() {
    let world = World::with_chain().await;
    world.apply::<MinerSet>(USER, minerset("test", 2)).await;
    let set = world.complete_set("test", 2).await;
    assert_eq!(set.selector_text(), "apps.onex.io/minerset=test");
    assert_eq!(set.spec.template.metadata.labels["apps.onex.io/minerset"], "test");
    assert_eq!(set.spec.template.spec.display_name, "miner-for-test-minerset");
    let set = world.until::<MinerSet>(USER, "test", |set| conditions::is_true(set.conditions(), "Ready")).await;
    assert_eq!(set.labels()["apps.onex.io/chain-name"], "genesis");
    let status = set.status.clone().unwrap();
    assert_eq!(
        (status.replicas, status.fully_labeled_replicas, status.ready_replicas, status.available_replicas),
        (2, 2, 2, 2)
    );
    for type_ in ["Ready", "MinersCreated", "Resized", "MinersReady"] {
        assert!(conditions::is_true(&status.conditions, type_), "{type_}");
    }
    for miner in world.until_there_are::<Miner>(USER, &["test-0", "test-1"]).await {
        assert_eq!(miner.labels()["apps.onex.io/minerset"], "test");
        assert_eq!(miner.labels()["apps.onex.io/minerset-name"], "test");
        assert_eq!(miner.controller().unwrap().kind, "MinerSet");
        assert_eq!(miner.genesis_of(), None);
    }
    assert_eq!(world.reasons(USER, "test").await, ["SuccessfulCreate"]);
}

#[tokio::test]
async fn b23_the_miner_of_the_samples_runs_and_says_where() {
    let world = World::with_chain().await;
    world.apply::<Miner>(USER, miner("freeminer")).await;
    let miner = world.running(USER, "freeminer").await;
    assert_eq!(miner.metadata.generate_name, None);
    let status = miner.status.unwrap();
    assert_eq!(status.phase, Some(Phase::Running));
    let pod_ref = status.pod_ref.unwrap();
    assert_eq!((pod_ref.kind.as_deref(), pod_ref.name.as_deref()), (Some("Pod"), Some("freeminer")));
    assert_eq!(status.addresses[0].address, "127.64.0.9");
    assert!(conditions::is_true(&status.conditions, "PodHealthy"));
    assert!(conditions::is_true(&status.conditions, "Ready"));
    assert_eq!(world.reasons(USER, "freeminer").await, ["SuccessfulCreate", "SuccessfulSetPodRef"]);
}

#[tokio::test]
async fn a_settled_platform_is_quiet() {
    let world = World::with_chain().await;
    world.apply::<MinerSet>(USER, minerset("test", 2)).await;
    world.until::<MinerSet>(USER, "test", |set| conditions::is_true(set.conditions(), "Ready")).await;
    world
        .until::<Chain>(SYSTEM, "genesis", |chain| {
            conditions::is_true(&chain.status.clone().unwrap_or_default().conditions, "Ready")
        })
        .await;
    // Each controller's last write calls it once more; none of them may answer with another write.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let revision =
        || async { world.api::<Miner>(USER).list(&Default::default()).await.unwrap().metadata.resource_version };
    let before = revision().await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!(revision().await, before, "something was written although nothing changed");
    assert_eq!(json!(before).as_str().map(str::is_empty), Some(false));
}
