//! Namespaces that are deleted, against the real apiserver, in memory and without a socket.

use crate::garbage::{Cluster, within};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

impl Cluster {
    async fn namespace(&self, name: &str) -> Namespace {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        self.namespaces().create(&PostParams::default(), &namespace).await.unwrap()
    }

    async fn fill<K>(&self, namespace: &str, object: Value)
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    async fn delete_namespace(&self, name: &str) {
        self.namespaces().delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn namespace_gone(&self, namespace: &Namespace) {
        let gone = conditions::is_deleted(namespace.metadata.uid.as_deref().unwrap());
        within(await_condition(self.namespaces(), &namespace.name_any(), gone)).await.unwrap();
    }

    async fn count<K>(&self, namespace: &str) -> usize
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.list(&ListParams::default()).await.unwrap().items.len()
    }
}

fn condition<'a>(namespace: &'a Namespace, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = namespace.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&condition.status, condition.message.as_deref().unwrap_or_default()))
}

#[tokio::test]
async fn a_deleted_namespace_takes_everything_in_it_along_and_nothing_else() {
    let cluster = Cluster::start().await;
    let doomed = cluster.namespace("doomed").await;
    cluster.namespace("spared").await;
    for namespace in ["doomed", "spared"] {
        cluster.fill::<ConfigMap>(namespace, json!({"metadata": {"name": "a"}})).await;
        cluster.fill::<Secret>(namespace, json!({"metadata": {"name": "a"}})).await;
        cluster.fill::<Lease>(namespace, json!({"metadata": {"name": "a"}, "spec": {}})).await;
        let event = json!({"metadata": {"name": "a"}, "involvedObject": {"kind": "ConfigMap", "name": "a", "namespace": namespace}});
        cluster.fill::<Event>(namespace, event).await;
    }
    cluster.delete_namespace("doomed").await;
    cluster.namespace_gone(&doomed).await;
    for (namespace, left) in [("doomed", 0), ("spared", 1)] {
        assert_eq!(cluster.count::<ConfigMap>(namespace).await, left);
        assert_eq!(cluster.count::<Secret>(namespace).await, left);
        assert_eq!(cluster.count::<Lease>(namespace).await, left);
        assert_eq!(cluster.count::<Event>(namespace).await, left);
    }
}

#[tokio::test]
async fn a_namespace_that_cannot_go_says_what_holds_it_and_goes_when_that_is_done() {
    let cluster = Cluster::start().await;
    let namespace = cluster.namespace("held").await;
    let finalizers = json!(["example.com/hold"]);
    cluster.fill::<ConfigMap>("held", json!({"metadata": {"name": "held", "finalizers": finalizers}})).await;
    cluster.fill::<ConfigMap>("held", json!({"metadata": {"name": "free"}})).await;
    cluster.delete_namespace("held").await;
    let told = |namespace: Option<&Namespace>| {
        namespace.and_then(|namespace| condition(namespace, "NamespaceContentRemaining"))
            == Some(("True", "Some resources are remaining: configmaps. has 1 resource instances"))
    };
    let now = within(await_condition(cluster.namespaces(), "held", told)).await.unwrap().unwrap();
    assert_eq!(now.status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
    let held = "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
    assert_eq!(condition(&now, "NamespaceFinalizersRemaining"), Some(("True", held)));
    for fine in [
        "NamespaceDeletionDiscoveryFailure",
        "NamespaceDeletionGroupVersionParsingFailure",
        "NamespaceDeletionContentFailure",
    ] {
        assert_eq!(condition(&now, fine).unwrap().0, "False", "{fine}");
    }
    let map = cluster.maps("held").get("held").await.unwrap();
    cluster.remove_finalizers(&map).await;
    cluster.namespace_gone(&namespace).await;
}

#[tokio::test]
async fn a_name_can_be_used_again_at_once() {
    let cluster = Cluster::start().await;
    for _ in 0..5 {
        let namespace = cluster.namespace("again").await;
        cluster.fill::<ConfigMap>("again", json!({"metadata": {"name": "a"}})).await;
        cluster.delete_namespace("again").await;
        cluster.namespace_gone(&namespace).await;
    }
}
