//! A small platform: the apiserver over a store in memory, all controllers, and a pretended kubelet.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::{Json, Router};
use futures::StreamExt;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use onex_apiserver::{Apiserver, Handles};
use onex_controllers::{Clock, Controllers, Settings};
use onex_crds::{Chain, Miner, MinerSet};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

pub const USER: &str = "user-admin";
pub const SYSTEM: &str = "kube-system";

/// The longest that anything may take; nothing here should take a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub client: Client,
    _stop: DropGuard,
}

/// What a [`World`] is made of, where it is not the usual.
pub struct Making<Door> {
    pub settings: Settings,
    pub apiserver: onex_apiserver::Settings,
    /// Whether Pods become ready at once.
    pub kubelet: bool,
    /// Through which the controllers reach the apiserver; the test and the kubelet go straight in.
    pub door: Door,
    /// Where Pods live, if not in this world.
    pub provider: Option<Client>,
    /// What time it is, if not what it is.
    pub clock: Option<Arc<SetClock>>,
}

/// A clock that stands still until it is put forward.
pub struct SetClock(parking_lot::Mutex<Timestamp>);

impl SetClock {
    /// It begins with the time that it is, as objects are stamped by the apiserver.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(parking_lot::Mutex::new(Timestamp::now())))
    }

    pub fn put_forward(&self, seconds: i64) {
        *self.0.lock() += SignedDuration::from_secs(seconds);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

impl Default for Making<fn(Router) -> Router> {
    fn default() -> Self {
        let (settings, apiserver) = Default::default();
        Self { settings, apiserver, kubelet: true, door: |router| router, provider: None, clock: None }
    }
}

impl World {
    /// A platform in which every Pod becomes ready at once.
    pub async fn new() -> Self {
        Self::with(Settings::default(), true).await
    }

    /// A platform without a kubelet: Pods stay as they are made.
    pub async fn without_kubelet() -> Self {
        Self::with(Settings::default(), false).await
    }

    pub async fn with(settings: Settings, kubelet: bool) -> Self {
        Self::made_of(Making { settings, kubelet, ..Making::default() }).await
    }

    /// A platform whose controllers reach the apiserver through `door`.
    pub async fn whose_controllers_see(settings: Settings, kubelet: bool, door: impl FnOnce(Router) -> Router) -> Self {
        let Making { apiserver, provider, clock, .. } = Making::default();
        Self::made_of(Making { settings, apiserver, kubelet, door, provider, clock }).await
    }

    pub async fn made_of<Door: FnOnce(Router) -> Router>(making: Making<Door>) -> Self {
        let Making { settings, apiserver, kubelet, door, provider, clock } = making;
        let url = "memory:".parse().unwrap();
        let storage = onex_storage::open(&url, &onex_storage::Settings::default()).await.unwrap();
        let server = Arc::new(Apiserver::new(apiserver, Handles::over(storage)).await.unwrap());
        let stop = CancellationToken::new();
        tokio::spawn({
            let (server, stop) = (server.clone(), stop.clone());
            async move { server.run(stop).await }
        });
        server.ready().await;
        let router = server.router_as("admin", &["system:masters"]);
        let client = onex_client::over_router(router.clone(), "default");
        let controllers = Controllers::new(settings, onex_client::over_router(door(router), "default"));
        let controllers = match provider {
            Some(provider) => controllers.with_provider(provider),
            None => controllers,
        };
        let controllers = match clock {
            Some(clock) => controllers.with_clock(clock),
            None => controllers,
        };
        tokio::spawn(controllers.run(stop.clone()));
        if kubelet {
            tokio::spawn(pretend(client.clone(), stop.clone()));
        }
        Self { client, _stop: stop.drop_guard() }
    }

    /// A platform whose controllers go by this clock.
    pub async fn by(clock: &Arc<SetClock>) -> Self {
        Self::made_of(Making { clock: Some(clock.clone()), ..Making::default() }).await
    }

    /// The same, with the chain `genesis` applied as the sample has it.
    pub async fn with_chain() -> Self {
        let world = Self::new().await;
        world.apply::<Chain>(SYSTEM, chain("genesis")).await;
        world
    }

    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub async fn apply<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        self.api(namespace).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    pub async fn patch<K>(&self, namespace: &str, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api(namespace).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    pub async fn delete<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let _ = self.api::<K>(namespace).delete(name, &DeleteParams::background()).await.unwrap();
    }

    /// The object as soon as it is as it should be.
    #[track_caller]
    pub fn until<K>(&self, namespace: &str, name: &str, is: impl Fn(&K) -> bool) -> impl Future<Output = K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let (api, name, caller) = (self.api::<K>(namespace), name.to_owned(), std::panic::Location::caller());
        async move {
            let mut last = None;
            for _ in 0..PATIENCE.as_millis() / 10 {
                last = api.get_opt(&name).await.unwrap();
                if let Some(object) = last.as_ref().filter(|object| is(object)) {
                    return object.clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{caller}: {name} is not as it should be: {last:#?}");
        }
    }

    /// Waits until the namespace holds exactly these objects of the kind.
    #[track_caller]
    pub fn until_there_are<K>(&self, namespace: &str, names: &[&str]) -> impl Future<Output = Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.until_all::<K>(namespace, move |there| there.iter().map(ResourceExt::name_any).eq(names.iter().cloned()))
    }

    /// All objects of the kind in the namespace, as soon as they are as they should be.
    #[track_caller]
    pub fn until_all<K>(&self, namespace: &str, are: impl Fn(&[K]) -> bool) -> impl Future<Output = Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let (api, caller) = (self.api::<K>(namespace), std::panic::Location::caller());
        async move {
            let mut last = Vec::new();
            for _ in 0..PATIENCE.as_millis() / 10 {
                last = api.list(&ListParams::default()).await.unwrap().items;
                if are(&last) {
                    return last;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let names: Vec<String> = last.iter().map(ResourceExt::name_any).collect();
            panic!("{caller}: not as it should be: {names:?}");
        }
    }

    /// Waits until the object is no longer there.
    #[track_caller]
    pub fn until_gone<K>(&self, namespace: &str, name: &str) -> impl Future<Output = ()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let name = name.to_owned();
        let all = self.until_all::<K>(namespace, move |there| there.iter().all(|object| object.name_any() != name));
        async move { drop(all.await) }
    }

    /// The reasons of all events about the object, each once, in alphabetical order.
    pub async fn reasons(&self, namespace: &str, name: &str) -> Vec<String> {
        let events = self.api::<Event>(namespace).list(&ListParams::default()).await.unwrap();
        let about = events.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
        let mut reasons: Vec<String> = about.filter_map(|event| event.reason).collect();
        reasons.sort();
        reasons.dedup();
        reasons
    }

    pub async fn complete_set(&self, name: &str, replicas: i32) -> MinerSet {
        self.until::<MinerSet>(USER, name, move |set| {
            set.replicas() == replicas
                && set.status.as_ref().is_some_and(|status| {
                    (status.replicas, status.ready_replicas) == (replicas, replicas)
                        && Some(status.observed_generation) == set.metadata.generation
                })
        })
        .await
    }

    pub async fn running(&self, namespace: &str, name: &str) -> Miner {
        self.until::<Miner>(namespace, name, |miner| miner.phase() == onex_crds::Phase::Running).await
    }

    /// Says of a Pod that its only container ended, and when.
    pub async fn report_end(&self, namespace: &str, name: &str, exit_code: i32, at: Timestamp) {
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        let ended = json!({"exitCode": exit_code, "finishedAt": at.to_string()});
        let container = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": ended}});
        let status = json!({"status": {"phase": phase, "containerStatuses": [container]}});
        self.api::<Pod>(namespace).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// Says of a Pod what a kubelet would.
    pub async fn report(&self, namespace: &str, name: &str, ready: &str, message: &str) {
        report(&self.api(namespace), name, ready, message).await.unwrap();
    }
}

/// A door behind which these requests are refused.
pub fn refusing(router: Router, which: impl Fn(&Request) -> bool + Clone + Send + Sync + 'static) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let refused = which(&request);
        async move {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden",
                "message": "the quota is used up",
            });
            if refused { (StatusCode::FORBIDDEN, Json(status)).into_response() } else { next.run(request).await }
        }
    }))
}

pub fn chain(name: &str) -> Value {
    json!({
        "apiVersion": "apps.onex.io/v1beta1", "kind": "Chain", "metadata": {"name": name, "namespace": SYSTEM},
        "spec": {
            "bootstrapAccount": "0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e",
            "image": "ccr.ccs.tencentyun.com/onexstack/onex-toyblc-amd64:v1.0.0",
            "minMineIntervalSeconds": 43200, "minerType": "S1.SMALL2",
        },
    })
}

pub fn minerset(name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps.onex.io/v1beta1", "kind": "MinerSet", "metadata": {"name": name, "namespace": USER},
        "spec": {
            "deletePolicy": "Random", "displayName": "testminerset", "replicas": replicas,
            "template": {"spec": {"chainName": "genesis", "minerType": "M1.MEDIUM2"}},
        },
    })
}

pub fn miner(name: &str) -> Value {
    json!({
        "apiVersion": "apps.onex.io/v1beta1", "kind": "Miner", "metadata": {"name": name, "namespace": USER},
        "spec": {"displayName": "testminer", "chainName": "genesis", "minerType": "M1.MEDIUM2"},
    })
}

/// Says of every new Pod that it is ready.
async fn pretend(client: Client, stop: CancellationToken) {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff().applied_objects();
    let mut pods = std::pin::pin!(pods.take_until(stop.cancelled_owned()));
    while let Some(pod) = pods.next().await {
        let Ok(pod) = pod else { continue };
        if pod.metadata.deletion_timestamp.is_none() && pod.status.as_ref().is_none_or(|status| status.pod_ip.is_none())
        {
            let api = Api::namespaced(client.clone(), &pod.namespace().unwrap());
            // A Pod that is gone by now, or in a namespace that is, needs no report.
            let _ = report(&api, &pod.name_any(), "True", "").await;
        }
    }
}

async fn report(pods: &Api<Pod>, name: &str, ready: &str, message: &str) -> kube::Result<Pod> {
    let mut condition = BTreeMap::from([("type", "Ready"), ("status", ready)]);
    if !message.is_empty() {
        condition.insert("message", message);
    }
    let status = json!({"status": {"phase": "Running", "podIP": "127.64.0.9", "conditions": [condition]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await
}
