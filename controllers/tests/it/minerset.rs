//! MinerSets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use http::Method;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use onex_controllers::Settings;
use onex_crds::{Chain, Miner, MinerSet, conditions};
use serde_json::{Value, json};

use crate::world::{Making, SYSTEM, USER, World, chain, minerset, refusing};

impl World {
    async fn scale(&self, name: &str, replicas: i32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.api::<MinerSet>(USER).patch_scale(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn miners(&self) -> Vec<String> {
        let miners = self.api::<Miner>(USER).list(&Default::default()).await.unwrap();
        miners.iter().map(ResourceExt::name_any).collect()
    }

    async fn set(replicas: i32) -> Self {
        let world = Self::with_chain().await;
        world.apply::<MinerSet>(USER, minerset("a", replicas)).await;
        world.complete_set("a", replicas).await;
        world
    }
}

#[tokio::test]
async fn a_set_grows_and_shrinks_as_it_is_scaled() {
    let world = World::set(2).await;
    world.scale("a", 5).await;
    world.complete_set("a", 5).await;
    world.until_there_are::<Miner>(USER, &["a-0", "a-1", "a-2", "a-3", "a-4"]).await;
    world.scale("a", 1).await;
    world.complete_set("a", 1).await;
    assert_eq!(world.miners().await.len(), 1);
    world.until_all::<Pod>(USER, |pods| pods.len() == 1).await;
    world.scale("a", 0).await;
    world.complete_set("a", 0).await;
    world.until_there_are::<Pod>(USER, &[]).await;
    assert_eq!(world.reasons(USER, "a").await, ["SuccessfulCreate", "SuccessfulDelete"]);
}

#[tokio::test]
async fn a_large_set_is_made_in_batches_and_whole() {
    let world = World::with(Settings { batch: 10, ..Settings::default() }, true).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world.apply::<MinerSet>(USER, minerset("a", 45)).await;
    world.complete_set("a", 45).await;
    world.scale("a", 3).await;
    world.complete_set("a", 3).await;
}

#[tokio::test]
async fn a_deleted_miner_comes_back_under_its_name() {
    let world = World::set(3).await;
    let before = world.running(USER, "a-1").await;
    world.delete::<Miner>(USER, "a-1").await;
    world
        .until::<Miner>(USER, "a-1", |miner| miner.uid() != before.uid() && miner.phase() == onex_crds::Phase::Running)
        .await;
    assert_eq!(world.miners().await, ["a-0", "a-1", "a-2"]);
}

#[tokio::test]
async fn a_set_that_shrinks_removes_its_unhealthy_miner_first() {
    let world = World::set(3).await;
    world.report(USER, "a-1", "False", "it does not answer").await;
    let miner = world.until::<Miner>(USER, "a-1", |miner| conditions::is_false(miner.conditions(), "PodHealthy")).await;
    assert_eq!(conditions::get(miner.conditions(), "Ready").unwrap().message, "it does not answer");
    world.scale("a", 2).await;
    world.until_there_are::<Miner>(USER, &["a-0", "a-2"]).await;
}

#[tokio::test]
async fn a_marked_miner_goes_first_and_policies_decide_among_the_others() {
    let world = World::set(3).await;
    world.patch::<Miner>(USER, "a-2", json!({"metadata": {"annotations": {"apps.onex.io/delete-miner": ""}}})).await;
    world.scale("a", 2).await;
    world.until_there_are::<Miner>(USER, &["a-0", "a-1"]).await;
    // Age counts in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    world.scale("a", 3).await;
    world.complete_set("a", 3).await;
    world.patch::<MinerSet>(USER, "a", json!({"spec": {"deletePolicy": "Newest", "replicas": 2}})).await;
    world.until_there_are::<Miner>(USER, &["a-0", "a-1"]).await;
}

#[tokio::test]
async fn miners_that_were_left_behind_are_adopted() {
    let world = World::set(2).await;
    let before = world.running(USER, "a-0").await.uid();
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    let _ = world.api::<MinerSet>(USER).delete("a", &orphan).await.unwrap();
    world.until_gone::<MinerSet>(USER, "a").await;
    assert_eq!(world.miners().await, ["a-0", "a-1"]);
    let set = world.apply::<MinerSet>(USER, minerset("a", 2)).await;
    let adopted = world.until::<Miner>(USER, "a-0", |miner| miner.controller().is_some()).await;
    assert_eq!(adopted.uid(), before);
    assert_eq!(adopted.controller().unwrap().uid, set.uid().unwrap());
    world.complete_set("a", 2).await;
    assert!(world.reasons(USER, "a").await.contains(&"SuccessfulAdopt".to_owned()));
}

#[tokio::test]
async fn a_name_that_a_stranger_holds_is_skipped() {
    let world = World::with_chain().await;
    world.apply::<Miner>(USER, crate::world::miner("a-0")).await;
    world.apply::<MinerSet>(USER, minerset("a", 2)).await;
    world.complete_set("a", 2).await;
    assert_eq!(world.miners().await, ["a-0", "a-1", "a-2"]);
}

#[tokio::test]
async fn b21_a_set_waits_for_its_chain_says_so_and_then_goes_on() {
    let world = World::new().await;
    world.apply::<MinerSet>(USER, minerset("a", 2)).await;
    let set = world.until::<MinerSet>(USER, "a", |set| conditions::is_false(set.conditions(), "Ready")).await;
    assert_eq!(conditions::get(set.conditions(), "Ready").unwrap().reason, "ChainNotFound");
    assert_eq!(world.miners().await, [""; 0]);
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world.complete_set("a", 2).await;
}

#[tokio::test]
async fn b21_a_set_whose_chain_is_gone_still_shrinks_and_goes() {
    let world = World::set(3).await;
    world.delete::<Chain>(SYSTEM, "genesis").await;
    // It waits for the set, unless somebody insists.
    world.patch::<Chain>(SYSTEM, "genesis", json!({"metadata": {"finalizers": null}})).await;
    world.until_gone::<Chain>(SYSTEM, "genesis").await;
    world
        .until::<MinerSet>(USER, "a", |set| {
            conditions::get(set.conditions(), "MinersCreated").is_some_and(|created| created.reason == "ChainNotFound")
        })
        .await;
    world.scale("a", 1).await;
    world.until_all::<Miner>(USER, |miners| miners.len() == 1).await;
    world.delete::<MinerSet>(USER, "a").await;
    world.until_there_are::<Miner>(USER, &[]).await;
    world.until_there_are::<Pod>(USER, &[]).await;
}

#[tokio::test]
async fn a_paused_set_is_left_alone_until_it_is_not() {
    let world = World::set(1).await;
    world
        .patch::<MinerSet>(
            USER,
            "a",
            json!({"metadata": {"annotations": {"apps.onex.io/paused": ""}}, "spec": {"replicas": 3}}),
        )
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(world.miners().await, ["a-0"]);
    world.patch::<MinerSet>(USER, "a", json!({"metadata": {"annotations": {"apps.onex.io/paused": null}}})).await;
    world.complete_set("a", 3).await;
}

#[tokio::test]
async fn a_set_that_may_not_create_miners_does_not_replace_them() {
    let world = World::set(2).await;
    world
        .patch::<MinerSet>(USER, "a", json!({"metadata": {"annotations": {"apps.onex.io/disable-miner-create": ""}}}))
        .await;
    world.delete::<Miner>(USER, "a-0").await;
    world.until_there_are::<Miner>(USER, &["a-1"]).await;
    let set = world.until::<MinerSet>(USER, "a", |set| conditions::is_false(set.conditions(), "Resized")).await;
    assert_eq!(conditions::get(set.conditions(), "Resized").unwrap().reason, "ScalingUp");
}

#[tokio::test]
async fn b22_a_changed_template_reaches_pods() {
    let world = World::set(2).await;
    let before = world.until::<Pod>(USER, "a-0", |_| true).await;
    let template =
        json!({"spec": {"template": {"metadata": {"labels": {"tier": "gold"}}, "spec": {"minerType": "S1.SMALL1"}}}});
    world.patch::<MinerSet>(USER, "a", template).await;
    for name in ["a-0", "a-1"] {
        let miner = world.until::<Miner>(USER, name, |miner| miner.spec.miner_type == "S1.SMALL1").await;
        assert_eq!(miner.labels()["tier"], "gold");
        world
            .until::<Pod>(USER, name, |pod| {
                pod.spec.as_ref().unwrap().containers[0].resources.as_ref().unwrap().limits.as_ref().unwrap()["cpu"].0
                    == "50m"
            })
            .await;
    }
    let after = world.until::<Pod>(USER, "a-0", |_| true).await;
    assert_ne!(after.uid(), before.uid());
    world.complete_set("a", 2).await;
}

#[tokio::test]
async fn a_failed_health_check_gets_a_miner_replaced() {
    let world = World::set(2).await;
    let before = world.running(USER, "a-0").await;
    let mut conditions = serde_json::to_value(before.conditions()).unwrap();
    conditions
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "OwnerRemediated", "status": "False", "severity": "Warning"}));
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    world.api::<Miner>(USER).patch_status("a-0", &PatchParams::default(), &patch).await.unwrap();
    world
        .until::<Miner>(USER, "a-0", |miner| miner.uid() != before.uid() && miner.phase() == onex_crds::Phase::Running)
        .await;
}

#[tokio::test]
async fn b9_sets_with_generated_names_do_not_share_their_miners() {
    let world = World::with_chain().await;
    let mut generated = minerset("", 1);
    generated["metadata"]["name"] = Value::Null;
    generated["metadata"]["generateName"] = Value::from("gen-");
    let (one, two) =
        (world.apply::<MinerSet>(USER, generated.clone()).await, world.apply::<MinerSet>(USER, generated).await);
    assert_ne!(one.selector_text(), two.selector_text());
    for set in [one, two] {
        world.complete_set(&set.name_any(), 1).await;
        world.running(USER, &format!("{}-0", set.name_any())).await;
    }
}

/// On another Kubernetes nobody admits sets: such a set selected nothing, saw none of its Miners, and tried to make them
/// again and again.
#[tokio::test]
async fn a_set_that_nobody_admitted_keeps_its_miners_all_the_same() {
    let apiserver = onex_apiserver::Settings {
        disable_admission: vec!["MinerSet".to_owned()],
        ..onex_apiserver::Settings::default()
    };
    let world = World::made_of(Making { apiserver, ..Making::default() }).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    let set = world.apply::<MinerSet>(USER, minerset("a", 3)).await;
    assert_eq!(set.selector_text(), "", "somebody admitted it");
    let set = world.complete_set("a", 3).await;
    assert_eq!(set.status.unwrap().selector, "apps.onex.io/minerset=a");
    world.scale("a", 1).await;
    world.complete_set("a", 1).await;
    world.until_all::<Miner>(USER, |miners| miners.len() == 1).await;
}

#[tokio::test]
async fn b24_a_set_whose_miners_are_refused_says_which_and_why_and_goes_on_when_they_are_not() {
    let (tries, quota) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (tried, allowed) = (tries.clone(), quota.clone());
    let beyond_the_quota = move |request: &Request| {
        let miner = request.method() == Method::POST && request.uri().path().ends_with(&format!("/{USER}/miners"));
        miner && tried.fetch_add(1, Ordering::Relaxed) >= allowed.load(Ordering::Relaxed)
    };
    let door = |router| refusing(router, beyond_the_quota);
    let world = World::whose_controllers_see(Settings::default(), true, door).await;
    world.apply::<Chain>(SYSTEM, chain("genesis")).await;
    world.apply::<MinerSet>(USER, minerset("a", 12)).await;
    let set = world.until::<MinerSet>(USER, "a", |set| conditions::is_false(set.conditions(), "MinersCreated")).await;
    let created = conditions::get(set.conditions(), "MinersCreated").unwrap();
    assert_eq!(created.reason, "MinerCreationFailed");
    assert_eq!(created.message, "could not create miner a-0: the quota is used up");
    assert_eq!(conditions::get(set.conditions(), "Ready").unwrap().reason, "MinerCreationFailed");
    let failures = |events: &[Event]| -> usize {
        let failures = events.iter().filter(|event| event.reason.as_deref() == Some("FailedCreate"));
        failures.map(|event| event.series.as_ref().and_then(|series| series.count).unwrap_or(1) as usize).sum()
    };
    let told = failures(&world.until_all::<Event>(USER, |events| failures(events) > 1).await);
    // Every pass tries a few, and tells once.
    assert!(told * 8 <= tries.load(Ordering::Relaxed), "{told} times of {tries:?}");
    quota.store(usize::MAX, Ordering::Relaxed);
    world.complete_set("a", 12).await;
}

#[tokio::test]
async fn miners_and_sets_can_be_selected_by_their_fields() {
    let world = World::set(2).await;
    world.apply::<Miner>(USER, crate::world::miner("free")).await;
    world.patch::<Miner>(USER, "free", json!({"spec": {"minerType": "S1.SMALL1"}})).await;
    let by = |fields: &str| ListParams::default().fields(fields);
    let miners = async |fields| {
        let there = world.api::<Miner>(USER).list(&by(fields)).await.unwrap();
        there.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    };
    assert_eq!(miners("spec.minerType=M1.MEDIUM2").await, ["a-0", "a-1"]);
    assert_eq!(miners("spec.minerType!=M1.MEDIUM2").await, ["free"]);
    let sets = async |fields| world.api::<MinerSet>(USER).list(&by(fields)).await.unwrap().items.len();
    assert_eq!((sets("status.replicas=2").await, sets("status.replicas=3").await), (1, 0));
    let refused = world.api::<Miner>(USER).list(&by("spec.chainName=genesis")).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 400));
}

#[tokio::test]
async fn a_set_gets_past_miners_of_others_that_hold_its_names() {
    let world = World::with_chain().await;
    for slot in 0..3 {
        world.apply::<Miner>(USER, crate::world::miner(&format!("a-{slot}"))).await;
    }
    world.apply::<MinerSet>(USER, minerset("a", 1)).await;
    world.complete_set("a", 1).await;
    world.running(USER, "a-3").await;
}

/// In OneX a type that does not exist failed each Miner by itself, again and again, and the set did not know.
#[tokio::test]
async fn b25_a_type_that_is_in_no_table_is_told_by_the_set_and_disturbs_no_miner() {
    let world = World::set(2).await;
    let before = world.until::<Pod>(USER, "a-0", |_| true).await;
    let template = |miner_type: &str| json!({"spec": {"template": {"spec": {"minerType": miner_type}}, "replicas": 3}});
    world.patch::<MinerSet>(USER, "a", template("XXL")).await;
    let told = |set: &MinerSet| {
        conditions::get(set.conditions(), "MinersCreated").is_some_and(|told| told.reason == "MinerTypeUnsupported")
    };
    let set = world.until::<MinerSet>(USER, "a", told).await;
    assert!(set.status.unwrap().failure_message.unwrap().contains("\"XXL\" is in no table"));
    assert_eq!(world.miners().await, ["a-0", "a-1"]);
    assert_eq!(world.until::<Pod>(USER, "a-0", |_| true).await.uid(), before.uid());
    world.patch::<MinerSet>(USER, "a", template("S1.SMALL1")).await;
    let set = world.complete_set("a", 3).await;
    assert_eq!(set.status.unwrap().failure_message, None);
}

#[tokio::test]
async fn a_set_that_is_paused_grows_and_changes_when_it_is_not() {
    let world = World::set(2).await;
    let change = json!({"spec": {"paused": true, "replicas": 3, "template": {"spec": {"minerType": "S1.SMALL1"}}}});
    world.patch::<MinerSet>(USER, "a", change).await;
    let set = world.complete_set("a", 3).await;
    let waits =
        |set: &MinerSet| conditions::get(set.conditions(), "UpToDate").is_some_and(|told| told.reason == "Paused");
    world.until::<MinerSet>(USER, "a", waits).await;
    assert_eq!(set.status.unwrap().updated_replicas, 1, "the new one is as the template says");
    assert_eq!(world.running(USER, "a-0").await.spec.miner_type, "M1.MEDIUM2");
    world.patch::<MinerSet>(USER, "a", json!({"spec": {"paused": false}})).await;
    world.until_all::<Miner>(USER, |miners| miners.iter().all(|miner| miner.spec.miner_type == "S1.SMALL1")).await;
    world.complete_set("a", 3).await;
}

#[tokio::test]
async fn a_change_with_a_surge_and_a_label_that_goes_reaches_all_and_leaves_as_many_as_before() {
    let world = World::set(2).await;
    let strategy = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    let template = json!({"metadata": {"labels": {"tier": "gold"}}, "spec": {"minerType": "S1.SMALL1"}});
    world.patch::<MinerSet>(USER, "a", json!({"spec": {"strategy": strategy, "template": template}})).await;
    let all = |label: Option<&'static str>, miner_type: &'static str| {
        move |miners: &[Miner]| {
            let right = |miner: &Miner| {
                miner.labels().get("tier").map(String::as_str) == label && miner.spec.miner_type == miner_type
            };
            miners.len() == 2 && miners.iter().all(right)
        }
    };
    world.until_all::<Miner>(USER, all(Some("gold"), "S1.SMALL1")).await;
    let template = json!({"metadata": {"labels": {"tier": null}}, "spec": {"minerType": "M1.MEDIUM1"}});
    world.patch::<MinerSet>(USER, "a", json!({"spec": {"template": template}})).await;
    world.until_all::<Miner>(USER, all(None, "M1.MEDIUM1")).await;
    world.complete_set("a", 2).await;
}

#[tokio::test]
async fn a_miner_that_is_unready_for_too_long_is_replaced() {
    let world = World::set(2).await;
    world.patch::<MinerSet>(USER, "a", json!({"spec": {"remediation": {"unhealthySeconds": 1}}})).await;
    let before = world.running(USER, "a-1").await;
    world.report(USER, "a-1", "False", "it does not answer").await;
    world.until::<Miner>(USER, "a-1", |miner| conditions::is_false(miner.conditions(), "Ready")).await;
    // Conditions know whole seconds, and a set that is not complete is looked at every now and then.
    world
        .until::<Miner>(USER, "a-1", |miner| miner.uid() != before.uid() && miner.phase() == onex_crds::Phase::Running)
        .await;
}
