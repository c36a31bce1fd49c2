//! Chains.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use onex_crds::{Chain, Miner, MinerSet, conditions};
use serde_json::{Value, json};

use crate::world::{SYSTEM, USER, World, chain, minerset};

fn condition<'a>(chain: &'a Chain, type_: &str) -> Option<&'a onex_crds::Condition> {
    conditions::get(&chain.status.as_ref()?.conditions, type_)
}

#[tokio::test]
async fn a_deleted_chain_leaves_nothing_behind() {
    let world = World::with_chain().await;
    world.running(SYSTEM, "genesis").await;
    world.delete::<Chain>(SYSTEM, "genesis").await;
    world.until_gone::<Chain>(SYSTEM, "genesis").await;
    world.until_gone::<Miner>(SYSTEM, "genesis").await;
    world.until_gone::<Pod>(SYSTEM, "genesis").await;
    world.until_gone::<Service>(SYSTEM, "genesis").await;
    world.until_gone::<ConfigMap>(SYSTEM, "genesis-keystore").await;
}

#[tokio::test]
async fn a_chain_that_is_made_again_gets_children_of_its_own() {
    let world = World::with_chain().await;
    let first = world.running(SYSTEM, "genesis").await;
    world.delete::<Chain>(SYSTEM, "genesis").await;
    world.until_gone::<Chain>(SYSTEM, "genesis").await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    let second = world
        .until::<Miner>(SYSTEM, "genesis", |miner| {
            miner.uid() != first.uid() && miner.phase() == onex_crds::Phase::Running
        })
        .await;
    let chain = world
        .until::<Chain>(SYSTEM, "genesis", |chain| condition(chain, "Ready").is_some_and(|ready| ready.is_true()))
        .await;
    assert_eq!(second.controller().unwrap().uid, chain.uid().unwrap());
}

#[tokio::test]
async fn references_that_were_lost_are_filled_in_again() {
    let world = World::with_chain().await;
    world
        .until::<Chain>(SYSTEM, "genesis", |chain| condition(chain, "Ready").is_some_and(|ready| ready.is_true()))
        .await;
    let lost = kube::api::Patch::Merge(json!({"status": {"minerRef": null, "configMapRef": null}}));
    world.api::<Chain>(SYSTEM).patch_status("genesis", &Default::default(), &lost).await.unwrap();
    world
        .until::<Chain>(SYSTEM, "genesis", |chain| {
            chain.status.as_ref().is_some_and(|status| status.miner_ref.is_some() && status.config_map_ref.is_some())
        })
        .await;
}

#[tokio::test]
async fn a_genesis_that_somebody_deletes_is_made_again() {
    let world = World::with_chain().await;
    let first = world.running(SYSTEM, "genesis").await;
    world.delete::<Miner>(SYSTEM, "genesis").await;
    world
        .until::<Miner>(SYSTEM, "genesis", |miner| {
            miner.uid() != first.uid() && miner.phase() == onex_crds::Phase::Running
        })
        .await;
}

#[tokio::test]
async fn a_miner_with_the_label_of_a_chain_is_no_genesis_and_makes_the_name_taken() {
    let world = World::new().await;
    let mut stranger = crate::world::miner("genesis");
    stranger["metadata"]["namespace"] = Value::from(SYSTEM);
    world.apply::<Miner>(SYSTEM, stranger).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    let chain = world.until::<Chain>(SYSTEM, "genesis", |chain| condition(chain, "MinersCreated").is_some()).await;
    assert_eq!(condition(&chain, "MinersCreated").unwrap().reason, "MinerCreationFailed");
    assert_eq!(chain.status.unwrap().miner_ref, None);
}

#[tokio::test]
async fn a_deleted_namespace_leaves_nothing_behind() {
    let world = World::with_chain().await;
    world.apply::<MinerSet>(USER, minerset("test", 3)).await;
    world.complete_set("test", 3).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let _ = namespaces.delete(USER, &DeleteParams::default()).await.unwrap();
    for _ in 0..2000 {
        if namespaces.get_opt(USER).await.unwrap().is_none() {
            world.until_there_are::<Miner>(USER, &[]).await;
            world.until_there_are::<Pod>(USER, &[]).await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the namespace is still there: {:?}", namespaces.get(USER).await);
}
