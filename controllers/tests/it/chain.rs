//! Chains.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret, Service};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use onex_controllers::Settings;
use onex_crds::{Chain, Miner, MinerSet, conditions};
use serde_json::{Value, json};

use crate::world::{SYSTEM, USER, World, chain, minerset, refusing};

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
async fn b32_a_chain_that_is_made_again_gets_children_of_its_own() {
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
async fn b8_references_that_were_lost_are_filled_in_again() {
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

/// A Miner with the label of the chain `genesis` and without an owner.
fn labelled(namespace: &str, name: &str) -> Value {
    let mut miner = crate::world::miner(name);
    miner["metadata"]["namespace"] = Value::from(namespace);
    miner["metadata"]["labels"] = json!({"apps.onex.io/chain-name": "genesis"});
    miner
}

/// B18: in OneX the label alone made a genesis, and a Chain that saw it thought that it had one.
#[tokio::test]
async fn b18_a_miner_with_the_label_of_a_chain_is_no_genesis() {
    let world = World::new().await;
    for (namespace, name) in [(SYSTEM, "impostor"), (USER, "genesis")] {
        world.apply::<Miner>(namespace, labelled(namespace, name)).await;
    }
    let chain = world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    let genesis = world.running(SYSTEM, "genesis").await;
    assert_eq!(genesis.controller().unwrap().uid, chain.uid().unwrap());
    for (namespace, name) in [(SYSTEM, "impostor"), (USER, "genesis")] {
        assert_eq!(world.running(namespace, name).await.controller(), None);
        let pod = world.until::<Pod>(namespace, name, |_| true).await;
        let arguments = pod.spec.unwrap().containers[0].args.clone().unwrap();
        assert!(arguments.contains(&"--miner".to_owned()), "{arguments:?}");
    }
    world.until_there_are::<Service>(SYSTEM, &["genesis"]).await;
    world.until_there_are::<Service>(USER, &[]).await;
}

#[tokio::test]
async fn a_labelled_miner_of_nobody_with_the_name_of_a_genesis_is_adopted() {
    let world = World::new().await;
    let orphan = world.apply::<Miner>(SYSTEM, labelled(SYSTEM, "genesis")).await;
    let chain = world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    let adopted = world.until::<Miner>(SYSTEM, "genesis", |miner| miner.controller().is_some()).await;
    assert_eq!(adopted.uid(), orphan.uid());
    assert_eq!(adopted.controller().unwrap().uid, chain.uid().unwrap());
    assert_eq!(adopted.spec.miner_type, "S1.SMALL2");
    world.until::<Service>(SYSTEM, "genesis", |_| true).await;
}

#[tokio::test]
async fn a_strangers_miner_with_the_name_of_a_genesis_is_told_of_until_it_goes() {
    let world = World::new().await;
    let mut stranger = crate::world::miner("genesis");
    stranger["metadata"]["namespace"] = Value::from(SYSTEM);
    world.apply::<Miner>(SYSTEM, stranger).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    let chain = world.until::<Chain>(SYSTEM, "genesis", |chain| condition(chain, "MinersCreated").is_some()).await;
    assert_eq!(condition(&chain, "MinersCreated").unwrap().reason, "MinerCreationFailed");
    assert_eq!(chain.status.unwrap().miner_ref, None);
    world.delete::<Miner>(SYSTEM, "genesis").await;
    world
        .until::<Chain>(SYSTEM, "genesis", |chain| condition(chain, "MinersCreated").is_some_and(|made| made.is_true()))
        .await;
}

#[tokio::test]
async fn a_genesis_service_that_leads_astray_is_mended() {
    let world = World::with_chain().await;
    world.running(SYSTEM, "genesis").await;
    let made = world.until::<Service>(SYSTEM, "genesis", |_| true).await;
    let astray = json!({"spec": {"selector": {"apps.onex.io/minerset-name": "other", "app": "mine"}}});
    world.patch::<Service>(SYSTEM, "genesis", astray).await;
    let selector = made.spec.unwrap().selector;
    world.until::<Service>(SYSTEM, "genesis", |service| service.spec.as_ref().unwrap().selector == selector).await;
}

#[tokio::test]
async fn a_service_of_somebody_else_is_told_of_and_not_touched() {
    let world = World::new().await;
    let spec = json!({"selector": {"app": "mine"}, "ports": [{"port": 80}]});
    let stranger = json!({"metadata": {"name": "genesis", "namespace": SYSTEM}, "spec": spec});
    let stranger = world.apply::<Service>(SYSTEM, stranger).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    let chain = world
        .until::<Chain>(SYSTEM, "genesis", |chain| {
            condition(chain, "MinersReady").is_some_and(|ready| ready.reason == "NameTaken @ Miner/genesis")
        })
        .await;
    assert_eq!(condition(&chain, "Ready").unwrap().status, conditions::Truth::False);
    let there = world.until::<Service>(SYSTEM, "genesis", |_| true).await;
    assert_eq!(there.resource_version(), stranger.resource_version());
}

#[tokio::test]
async fn whoever_watches_a_chain_by_its_label_sees_its_children_too() {
    let settings = Settings { watch_filter: "blue".to_owned(), ..Settings::default() };
    let world = World::with(settings, true).await;
    let blue = |mut object: Value| {
        object["metadata"]["labels"] = json!({"apps.onex.io/watch-filter": "blue"});
        object
    };
    world.apply::<Chain>(SYSTEM, blue(chain("genesis"))).await;
    world.apply::<MinerSet>(USER, blue(minerset("a", 2))).await;
    world.running(SYSTEM, "genesis").await;
    world.complete_set("a", 2).await;
}

#[tokio::test]
async fn a_keystore_that_is_refused_is_told_of_and_tried_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let first_five = move |request: &Request| {
        let keystore = request.method() == Method::POST && request.uri().path().ends_with("/configmaps");
        keystore && counted.fetch_add(1, Ordering::Relaxed) < 5
    };
    let door = |router| refusing(router, first_five);
    let world = World::whose_controllers_see(Settings::default(), true, door).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    let refused = |chain: &Chain| condition(chain, "ConfigMapsCreated").is_some_and(|made| !made.is_true());
    let told = world.until::<Chain>(SYSTEM, "genesis", refused).await;
    assert_eq!(
        condition(&told, "ConfigMapsCreated").unwrap().message,
        "could not create the keystore: the quota is used up"
    );
    let made = |chain: &Chain| condition(chain, "ConfigMapsCreated").is_some_and(|made| made.is_true());
    world.until::<Chain>(SYSTEM, "genesis", made).await;
    assert_eq!(tries.load(Ordering::Relaxed), 6);
    let events = world.api::<Event>(SYSTEM).list(&ListParams::default()).await.unwrap();
    let about: Vec<_> = events.into_iter().filter(|event| event.reason.as_deref() == Some("FailedCreate")).collect();
    assert_eq!(about[0].message.as_deref(), Some("could not create the keystore: the quota is used up"));
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

/// B42: in OneX a chain was deleted under its sets, which then only failed.
#[tokio::test]
async fn b42_a_chain_in_use_says_by_whom_and_goes_when_they_are_gone() {
    let world = World::with_chain().await;
    world.apply::<MinerSet>(USER, minerset("test", 2)).await;
    world.complete_set("test", 2).await;
    world.apply::<Miner>(USER, crate::world::miner("free")).await;
    world.running(USER, "free").await;
    world.delete::<Chain>(SYSTEM, "genesis").await;
    let says = |words: &'static str| {
        move |chain: &Chain| condition(chain, "DeletionAllowed").is_some_and(|told| told.message.contains(words))
    };
    let waiting = world.until::<Chain>(SYSTEM, "genesis", says("miner sets user-admin/test")).await;
    let told = condition(&waiting, "DeletionAllowed").unwrap();
    assert_eq!((told.status, told.reason.as_str()), (conditions::Truth::False, "InUse"));
    // It goes on working for them.
    world.patch::<MinerSet>(USER, "test", json!({"spec": {"replicas": 3}})).await;
    world.complete_set("test", 3).await;
    assert_eq!(world.running(SYSTEM, "genesis").await.metadata.deletion_timestamp, None);
    world.delete::<MinerSet>(USER, "test").await;
    world.until::<Chain>(SYSTEM, "genesis", says("used by miners user-admin/free")).await;
    world.delete::<Miner>(USER, "free").await;
    world.until_gone::<Chain>(SYSTEM, "genesis").await;
    world.until_gone::<Miner>(SYSTEM, "genesis").await;
}

/// B6: in OneX all chains shared one key, which stood in a ConfigMap and in the source.
#[tokio::test]
async fn b6_the_key_of_a_chain_is_a_secret_of_its_own_and_comes_back_when_it_is_lost() {
    let world = World::with_chain().await;
    world.apply::<Chain>(SYSTEM, chain("other")).await;
    let account = async |name: &str| {
        let name = format!("{name}-keystore");
        let secret = world.until::<Secret>(SYSTEM, &name, |_| true).await;
        let address = String::from_utf8(secret.data.as_ref().unwrap()["address"].0.clone()).unwrap();
        let told = format!(r#"{{"address":"{address}","secretName":"{name}"}}"#);
        world.until::<ConfigMap>(SYSTEM, &name, |map| map.data.as_ref().unwrap()["keystore.json"] == told).await;
        (address, secret)
    };
    let (one, secret) = account("genesis").await;
    assert_ne!(one, account("other").await.0);
    assert_eq!(secret.owner_references()[0].kind, "Chain");
    world.delete::<Secret>(SYSTEM, "genesis-keystore").await;
    world.until::<Secret>(SYSTEM, "genesis-keystore", |again| again.uid() != secret.uid()).await;
    assert_ne!(account("genesis").await.0, one);
    world.delete::<Chain>(SYSTEM, "genesis").await;
    world.until_gone::<Secret>(SYSTEM, "genesis-keystore").await;
}

/// A changed image or interval reached only Pods that were made after it.
#[tokio::test]
async fn b22_a_changed_chain_reaches_pods_that_run() {
    let world = World::with_chain().await;
    world.apply::<MinerSet>(USER, minerset("test", 3)).await;
    world.complete_set("test", 3).await;
    world.apply::<Miner>(USER, crate::world::miner("free")).await;
    world.running(USER, "free").await;
    world
        .patch::<Chain>(SYSTEM, "genesis", json!({"spec": {"image": "toyblc:v2", "minMineIntervalSeconds": 60}}))
        .await;
    let is_new = |pod: &Pod| {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let interval = container.args.as_ref().unwrap().iter().any(|argument| argument == "--min-mine-interval=1m0s");
        container.image.as_deref() == Some("toyblc:v2") && (interval || pod.name_any() == "genesis")
    };
    for (namespace, name) in [(SYSTEM, "genesis"), (USER, "free"), (USER, "test-0"), (USER, "test-1"), (USER, "test-2")]
    {
        world.until::<Pod>(namespace, name, is_new).await;
    }
    let set = world
        .until::<MinerSet>(USER, "test", |set| {
            set.status.as_ref().is_some_and(|status| (status.updated_replicas, status.ready_replicas) == (3, 3))
                && conditions::is_true(set.conditions(), "UpToDate")
        })
        .await;
    assert_eq!(set.status.unwrap().failure_reason, None);
}
