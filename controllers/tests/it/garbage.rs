//! The garbage collector against the real apiserver, in memory and without a socket.

use crate::world::World;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Resource, ResourceExt};
use onex_controllers::{Name, Settings};
use serde_json::{Value, json};
use std::time::Duration;

/// Far more than anything here takes, so that only what never happens fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A platform on which only what is deleted matters: no chains, no kubelet.
pub(crate) struct Cluster {
    pub client: Client,
    _world: World,
}

impl Cluster {
    pub async fn start() -> Self {
        let settings = Settings { controllers: vec![Name::Garbage, Name::Namespace], ..Settings::default() };
        let world = World::with(settings, false).await;
        Self { client: world.client.clone(), _world: world }
    }

    pub fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    pub fn maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A ConfigMap in `default` with these owners.
    async fn map(&self, name: &str, owners: &[Value]) -> ConfigMap {
        self.map_in("default", name, owners, &[]).await
    }

    async fn map_in(&self, namespace: &str, name: &str, owners: &[Value], finalizers: &[&str]) -> ConfigMap {
        let map = json!({"metadata": {"name": name, "ownerReferences": owners, "finalizers": finalizers}});
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        self.maps(namespace).create(&PostParams::default(), &map).await.unwrap()
    }

    async fn delete(&self, map: &ConfigMap, how: DeleteParams) {
        self.maps(&map.namespace().unwrap()).delete(&map.name_any(), &how).await.unwrap();
    }

    async fn gone(&self, map: &ConfigMap) {
        let maps = self.maps(&map.namespace().unwrap());
        let name = map.name_any();
        let condition = conditions::is_deleted(map.metadata.uid.as_deref().unwrap());
        within(await_condition(maps, &name, condition)).await.unwrap();
    }

    async fn names(&self) -> Vec<String> {
        let maps = self.maps("default").list(&ListParams::default()).await.unwrap();
        maps.iter().map(ResourceExt::name_any).collect()
    }

    /// Returns when the collector has dealt with everything that happened before.
    async fn settled(&self) {
        let canary = self.map("canary", &[stranger("nobody", "no-such-uid")]).await;
        self.gone(&canary).await;
    }

    pub async fn remove_finalizers(&self, map: &ConfigMap) {
        let change = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let maps = self.maps(&map.namespace().unwrap());
        maps.patch(&map.name_any(), &PatchParams::default(), &change).await.unwrap();
    }
}

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

fn owner(map: &ConfigMap) -> Value {
    stranger(&map.name_any(), &map.uid().unwrap())
}

fn blocking(map: &ConfigMap) -> Value {
    let mut owner = owner(map);
    owner["blockOwnerDeletion"] = true.into();
    owner
}

fn stranger(name: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid})
}

#[tokio::test]
async fn children_and_their_children_follow_a_deleted_owner() {
    let cluster = Cluster::start().await;
    let grandparent = cluster.map("grandparent", &[]).await;
    let parent = cluster.map("parent", &[owner(&grandparent)]).await;
    let child = cluster.map("child", &[owner(&parent)]).await;
    let other = cluster.map("other", &[]).await;
    cluster.map("others-child", &[owner(&other)]).await;
    cluster.delete(&grandparent, DeleteParams::background()).await;
    cluster.gone(&parent).await;
    cluster.gone(&child).await;
    cluster.settled().await;
    assert_eq!(cluster.names().await, ["other", "others-child"]);
}

#[tokio::test]
async fn an_owner_made_a_moment_ago_costs_no_child_its_life() {
    let cluster = Cluster::start().await;
    for number in 0..100 {
        // Another resource, so that another watch has to show it.
        let namespace = json!({"metadata": {"name": format!("owner-{number}")}});
        let namespace: Namespace = serde_json::from_value(namespace).unwrap();
        let namespace = cluster.namespaces().create(&PostParams::default(), &namespace).await.unwrap();
        let owner =
            json!({"apiVersion": "v1", "kind": "Namespace", "name": namespace.name_any(), "uid": namespace.uid()});
        cluster.map(&format!("child-{number}"), &[owner]).await;
    }
    cluster.settled().await;
    assert_eq!(cluster.names().await.len(), 100);
}

#[tokio::test]
async fn a_child_of_nobody_goes() {
    let cluster = Cluster::start().await;
    let alive = cluster.map("alive", &[]).await;
    let never_was = cluster.map("child-of-nobody", &[stranger("nobody", "no-such-uid")]).await;
    let successor = cluster.map("child-of-another", &[stranger("alive", "an-earlier-uid")]).await;
    cluster.gone(&never_was).await;
    cluster.gone(&successor).await;
    assert_eq!(cluster.maps("default").get("alive").await.unwrap().uid(), alive.uid());
}

#[tokio::test]
async fn a_child_of_two_lives_on_with_the_one_that_is_left() {
    let cluster = Cluster::start().await;
    let (a, b) = (cluster.map("a", &[]).await, cluster.map("b", &[]).await);
    cluster.map("child", &[owner(&a), blocking(&b)]).await;
    cluster.delete(&a, DeleteParams::background()).await;
    let only_b = |map: Option<&ConfigMap>| {
        let owners = map.and_then(|map| map.metadata.owner_references.as_deref()).unwrap_or_default();
        owners.len() == 1 && owners[0].name == "b" && owners[0].block_owner_deletion == Some(true)
    };
    within(await_condition(cluster.maps("default"), "child", only_b)).await.unwrap();
}

#[tokio::test]
async fn foreground_waits_for_children_that_block_and_takes_their_children_first() {
    let cluster = Cluster::start().await;
    let parent = cluster.map("parent", &[]).await;
    let child = cluster.map("child", &[blocking(&parent)]).await;
    let held = cluster.map_in("default", "held", &[blocking(&child)], &["example.com/hold"]).await;
    cluster.delete(&parent, DeleteParams::foreground()).await;
    let deleting = |map: Option<&ConfigMap>| map.is_some_and(|map| map.metadata.deletion_timestamp.is_some());
    within(await_condition(cluster.maps("default"), "held", deleting)).await.unwrap();
    cluster.settled().await;
    assert_eq!(cluster.names().await, ["child", "held", "parent"]);
    cluster.remove_finalizers(&held).await;
    cluster.gone(&parent).await;
    assert!(cluster.names().await.is_empty());
}

#[tokio::test]
async fn foreground_does_not_wait_for_children_that_do_not_block() {
    let cluster = Cluster::start().await;
    let parent = cluster.map("parent", &[]).await;
    cluster.map_in("default", "held", &[owner(&parent)], &["example.com/hold"]).await;
    cluster.delete(&parent, DeleteParams::foreground()).await;
    cluster.gone(&parent).await;
    assert_eq!(cluster.names().await, ["held"]);
}

#[tokio::test]
async fn orphans_stay_and_forget_their_owner() {
    let cluster = Cluster::start().await;
    let (parent, other) = (cluster.map("parent", &[]).await, cluster.map("other", &[]).await);
    cluster.map("only-child", &[owner(&parent)]).await;
    cluster.map("shared-child", &[owner(&parent), owner(&other)]).await;
    cluster.delete(&parent, DeleteParams::orphan()).await;
    cluster.gone(&parent).await;
    cluster.settled().await;
    let maps = cluster.maps("default");
    assert!(maps.get("only-child").await.unwrap().owner_references().is_empty());
    let shared = maps.get("shared-child").await.unwrap();
    assert_eq!(shared.owner_references().iter().map(|owner| owner.name.as_str()).collect::<Vec<_>>(), ["other"]);
}

#[tokio::test]
async fn an_owner_in_another_namespace_is_none_and_that_is_told() {
    let cluster = Cluster::start().await;
    let parent = cluster.map_in("elsewhere", "parent", &[], &[]).await;
    // The collector tells only of owners it has seen.
    cluster.settled().await;
    let child = cluster.map("child", &[owner(&parent)]).await;
    cluster.gone(&child).await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let events = events.list(&ListParams::default()).await.unwrap();
    let event = events.iter().find(|event| event.involved_object.uid == child.uid()).expect("an event about the child");
    assert_eq!(event.reason.as_deref(), Some("OwnerRefInvalidNamespace"));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert!(cluster.maps("elsewhere").get("parent").await.is_ok());
}

#[tokio::test]
async fn a_circle_of_owners_does_not_wait_for_itself() {
    let cluster = Cluster::start().await;
    let a = cluster.map("a", &[]).await;
    let b = cluster.map("b", &[blocking(&a)]).await;
    let c = cluster.map("c", &[blocking(&b)]).await;
    let change = Patch::Merge(json!({"metadata": {"ownerReferences": [blocking(&c)]}}));
    cluster.maps("default").patch("a", &PatchParams::default(), &change).await.unwrap();
    cluster.delete(&a, DeleteParams::foreground()).await;
    for map in [&a, &b, &c] {
        cluster.gone(map).await;
    }
}

#[tokio::test]
async fn a_large_family_is_collected_in_one_go() {
    let cluster = Cluster::start().await;
    let parent = cluster.map("parent", &[]).await;
    let (cluster, parent) = (&cluster, &parent);
    let family = futures::stream::iter(0..1000).map(|number| async move {
        let child = cluster.map(&format!("child-{number}"), &[owner(parent)]).await;
        cluster.map(&format!("grandchild-{number}"), &[owner(&child)]).await;
    });
    family.buffer_unordered(50).collect::<()>().await;
    cluster.delete(parent, DeleteParams::background()).await;
    within(async {
        while !cluster.names().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_object_of_the_cluster_is_never_owned_from_inside_a_namespace() {
    let cluster = Cluster::start().await;
    let map = cluster.map("map", &[]).await;
    let namespace = json!({"metadata": {"name": "owned", "ownerReferences": [owner(&map)]}});
    let namespace: Namespace = serde_json::from_value(namespace).unwrap();
    cluster.namespaces().create(&PostParams::default(), &namespace).await.unwrap();
    cluster.delete(&map, DeleteParams::background()).await;
    cluster.settled().await;
    let namespace = cluster.namespaces().get("owned").await.unwrap();
    assert!(namespace.meta().deletion_timestamp.is_none());
}
