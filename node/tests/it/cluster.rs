//! The node and the real apiserver, in memory.

use crate::world::{PATIENCE, dies, line, lines, shim};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node as NodeObject, Pod, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use onex_apiserver::{Apiserver, Handles};
use onex_node::{Node, Settings};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

const NAMESPACE: &str = "user-admin";

struct Cluster {
    directory: TempDir,
    client: Client,
    settings: Settings,
    node: Option<(CancellationToken, JoinHandle<onex_node::Result<()>>)>,
    kubelet: axum::Router,
    _apiserver: DropGuard,
}

impl Cluster {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let storage = onex_storage::open(&"memory:".parse().unwrap(), &Default::default()).await.unwrap();
        let handles = Handles::over(storage);
        let apiserver = Apiserver::new(Default::default(), handles).await.unwrap();
        let client = onex_client::over_router(apiserver.router_as("system:node:onex", &["system:masters"]), "default");
        let stop = CancellationToken::new();
        let shutdown = stop.clone();
        tokio::spawn(async move { apiserver.run(shutdown).await });
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            data_dir: directory.path().join("node"),
            images: BTreeMap::from([("sh".to_owned(), vec!["/bin/sh".to_owned(), "-c".to_owned()])]),
            shim: vec![shim().display().to_string()],
            cgroup_parent: String::new(),
            shutdown_seconds: 1,
            ..Settings::default()
        };
        change(&mut settings);
        let mut cluster = Self {
            directory,
            client,
            settings,
            node: None,
            kubelet: axum::Router::new(),
            _apiserver: stop.drop_guard(),
        };
        cluster.start_node();
        cluster
    }

    fn start_node(&mut self) {
        self.start_node_against(self.client.clone());
    }

    fn start_node_against(&mut self, apiserver: Client) {
        let node = Node::new(self.settings.clone(), apiserver, 10250);
        self.kubelet = node.router();
        let shutdown = CancellationToken::new();
        self.node = Some((shutdown.clone(), tokio::spawn(node.run(shutdown))));
    }

    async fn stop_node(&mut self) {
        let (shutdown, running) = self.node.take().unwrap();
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Waits until the Pod of this name, or that there is none, is as wanted.
    async fn until(&self, name: &str, wanted: impl Fn(Option<&Pod>) -> bool) -> Option<Pod> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pod = self.api::<Pod>().get_opt(name).await.unwrap();
            if wanted(pod.as_ref()) {
                return pod;
            }
            assert!(Instant::now() < deadline, "this is not what was waited for: {pod:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_ready(&self, name: &str) -> Pod {
        self.until(name, |pod| pod.is_some_and(|pod| condition(pod, "Ready") == "True")).await.unwrap()
    }

    async fn until_phase(&self, name: &str, phase: &str) -> Pod {
        let is = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase);
        self.until(name, |pod| pod.is_some_and(is)).await.unwrap()
    }

    fn home(&self, pod: &str) -> PathBuf {
        self.directory.path().join("node/pods").join(format!("{NAMESPACE}_{pod}"))
    }

    fn file(&self, pod: &str, name: &str) -> PathBuf {
        self.home(pod).join("work").join(name)
    }
}

fn pod(name: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "sh", "args": [script]}]},
    })
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> &'a str {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let found = conditions.into_iter().flatten().find(|condition| condition.type_ == kind);
    found.map_or("", |condition| condition.status.as_str())
}

fn restarts(pod: &Pod) -> i32 {
    pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].restart_count
}

const FOREVER: &str = "echo $$$$ > pid; exec sleep 1000";

#[tokio::test]
async fn a_node_registers_itself_and_keeps_its_lease() {
    let cluster = Cluster::new().await;
    let nodes = Api::<NodeObject>::all(cluster.client.clone());
    let deadline = Instant::now() + PATIENCE;
    let node = loop {
        match nodes.get_opt("onex").await.unwrap() {
            Some(node) if node.status.as_ref().is_some_and(|status| status.conditions.is_some()) => break node,
            _ => assert!(Instant::now() < deadline),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let status = node.status.unwrap();
    assert_eq!(status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port, 10250);
    // A thousand, as Kubernetes writes it.
    assert_eq!(status.capacity.unwrap()["pods"].0, "1k");
    let ready = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready");
    assert_eq!(ready.unwrap().status, "True");
    let leases = Api::<Lease>::namespaced(cluster.client.clone(), "kube-node-lease");
    while leases.get_opt("onex").await.unwrap().is_none() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_pod_is_bound_runs_and_goes_with_its_process_when_deleted() {
    let cluster = Cluster::new().await;
    cluster.create::<Pod>(pod("p", FOREVER)).await;
    let running = cluster.until_ready("p").await;
    assert_eq!(running.spec.unwrap().node_name.as_deref(), Some("onex"));
    let status = running.status.unwrap();
    assert!(status.pod_ip.unwrap().starts_with("127."));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let process = line(&cluster.file("p", "pid")).await;
    cluster.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    cluster.until("p", |pod| pod.is_none()).await;
    assert!(dies(&process).await);
}

#[tokio::test]
async fn a_pod_deleted_by_force_loses_its_process_too() {
    let cluster = Cluster::new().await;
    cluster.create::<Pod>(pod("p", "trap '' TERM; echo $$$$ > pid; while :; do sleep 0.1; done")).await;
    let process = line(&cluster.file("p", "pid")).await;
    cluster.api::<Pod>().delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(dies(&process).await);
}

#[tokio::test]
async fn a_pod_may_ask_for_more_time_to_stop_than_any_clock_can_count() {
    let cluster = Cluster::new().await;
    let mut wanted = pod("p", FOREVER);
    wanted["spec"]["terminationGracePeriodSeconds"] = json!(i64::MAX);
    cluster.create::<Pod>(wanted).await;
    cluster.until_ready("p").await;
    cluster.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    cluster.until("p", |pod| pod.is_none()).await;
}

#[tokio::test]
async fn a_pod_that_takes_the_name_of_another_waits_until_that_is_gone() {
    let cluster = Cluster::new().await;
    cluster.create::<Pod>(pod("p", "trap '' TERM; echo $$$$ > pid; while :; do sleep 0.1; done")).await;
    let first = line(&cluster.file("p", "pid")).await;
    let address = cluster.until_ready("p").await.status.unwrap().pod_ip;
    cluster.api::<Pod>().delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.create::<Pod>(pod("p", FOREVER)).await;
    let second = cluster.until_ready("p").await;
    assert_eq!(second.status.as_ref().unwrap().pod_ip, address);
    assert!(!crate::world::is_alive(&first));
    assert_ne!(line(&cluster.file("p", "pid")).await, first);
}

#[tokio::test]
async fn pods_run_again_after_the_node_was_restarted_and_none_runs_twice() {
    let mut cluster = Cluster::new().await;
    cluster.create::<Pod>(pod("p", "echo $$$$ > pid; echo started >> starts; exec sleep 1000")).await;
    cluster.until_ready("p").await;
    let first = line(&cluster.file("p", "pid")).await;
    cluster.stop_node().await;
    assert!(dies(&first).await);
    let left = cluster.api::<Pod>().get("p").await.unwrap();
    assert_eq!(left.status.unwrap().phase.as_deref(), Some("Running"));
    cluster.start_node();
    let again =
        cluster.until("p", |pod| pod.is_some_and(|pod| restarts(pod) == 1 && condition(pod, "Ready") == "True")).await;
    let last = again.unwrap().status.unwrap().container_statuses.unwrap()[0].last_state.clone();
    assert_eq!(last.unwrap().terminated.unwrap().reason.as_deref(), Some("ContainerStatusUnknown"));
    // Ready is said as soon as there is a process, which may not have come to its second line yet.
    assert_eq!(lines(&cluster.file("p", "starts"), 2).await, ["started"; 2]);
}

#[tokio::test]
async fn no_process_outlives_the_node_not_even_one_that_nobody_can_tell() {
    let mut cluster = Cluster::new().await;
    let script = "env -u OWNED_BY_ONEX_CONTAINER setsid sleep 1000 & echo $! > child; exec sleep 1000";
    cluster.create::<Pod>(pod("p", script)).await;
    cluster.until_ready("p").await;
    let child = line(&cluster.file("p", "child")).await;
    cluster.stop_node().await;
    assert!(!crate::world::is_alive(&child));
}

#[tokio::test]
async fn the_homes_of_pods_outlive_a_start_of_the_node_without_its_apiserver() {
    let mut cluster = Cluster::with(|settings| settings.keep_directory_seconds = 0).await;
    cluster.create::<Pod>(pod("p", FOREVER)).await;
    cluster.until_ready("p").await;
    let chain = cluster.home("p").join("chain");
    std::fs::create_dir(&chain).unwrap();
    cluster.stop_node().await;
    let away = axum::Router::new().fallback(|| async { http::StatusCode::SERVICE_UNAVAILABLE });
    cluster.start_node_against(onex_client::over_router(away, "default"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.stop_node().await;
    assert!(chain.exists(), "nobody had said that the Pod is gone");
    cluster.start_node();
    cluster.until("p", |pod| pod.is_some_and(|pod| restarts(pod) == 1 && condition(pod, "Ready") == "True")).await;
    assert!(chain.exists(), "the Pod is there");
    cluster.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while chain.exists() {
        assert!(Instant::now() < deadline, "nobody needs it any more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_pod_that_is_done_is_reported_and_not_run_again() {
    let mut cluster = Cluster::new().await;
    for (name, script, phase) in [("good", "echo done", "Succeeded"), ("bad", "echo oops; exit 3", "Failed")] {
        let mut wanted = pod(name, script);
        wanted["spec"]["restartPolicy"] = json!("Never");
        cluster.create::<Pod>(wanted).await;
        cluster.until_phase(name, phase).await;
    }
    cluster.stop_node().await;
    cluster.start_node();
    cluster.create::<Pod>(pod("later", FOREVER)).await;
    cluster.until_ready("later").await;
    assert_eq!(restarts(&cluster.until_phase("bad", "Failed").await), 0);
    let request =
        http::Request::get(format!("/containerLogs/{NAMESPACE}/bad/c")).body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(cluster.kubelet.clone(), request).await.unwrap();
    let log = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    assert_eq!(log, "oops\n");
    cluster.api::<Pod>().delete("bad", &DeleteParams::default()).await.unwrap();
    cluster.until("bad", |pod| pod.is_none()).await;
}

#[tokio::test]
async fn pods_find_each_other_by_the_name_of_a_service() {
    let cluster = Cluster::new().await;
    let script = format!("echo ws://genesis.{NAMESPACE}.svc.onexstack.com:8080 > peer; exec sleep 1000");
    cluster.create::<Pod>(pod("first", &script)).await;
    cluster.until("first", |pod| pod.is_some_and(|pod| condition(pod, "PodScheduled") == "True")).await;
    assert!(!cluster.file("first", "peer").exists());
    let ports = json!([{"port": 8080, "targetPort": 38080}]);
    cluster
        .create::<Service>(
            json!({"metadata": {"name": "genesis"}, "spec": {"selector": {"app": "first"}, "ports": ports}}),
        )
        .await;
    let address = cluster.until_ready("first").await.status.unwrap().pod_ip.unwrap();
    cluster.create::<Pod>(pod("second", &script)).await;
    cluster.until_ready("second").await;
    for name in ["first", "second"] {
        assert_eq!(line(&cluster.file(name, "peer")).await, format!("ws://{address}:38080"));
    }
}

#[tokio::test]
async fn a_pod_that_does_not_fit_waits_until_there_is_room() {
    let cluster = Cluster::with(|settings| settings.max_pods = 1).await;
    cluster.create::<Pod>(pod("first", FOREVER)).await;
    cluster.until_ready("first").await;
    cluster.create::<Pod>(pod("second", FOREVER)).await;
    cluster.until("second", |pod| pod.is_some_and(|pod| condition(pod, "PodScheduled") == "False")).await;
    cluster.api::<Pod>().delete("first", &DeleteParams::default()).await.unwrap();
    cluster.until_ready("second").await;
}

#[tokio::test]
async fn a_pod_that_somebody_else_bound_to_a_full_node_waits_too_and_never_fails() {
    let mut cluster = Cluster::with(|settings| settings.max_pods = 1).await;
    let bound = |name: &str| {
        let mut pod = pod(name, FOREVER);
        pod["spec"]["nodeName"] = json!("onex");
        pod
    };
    cluster.create::<Pod>(bound("first")).await;
    cluster.until_ready("first").await;
    let waiting = cluster.create::<Pod>(bound("second")).await;
    cluster.create::<Pod>(bound("third")).await;
    for name in ["second", "third"] {
        let pod = cluster.until(name, |pod| pod.is_some_and(|pod| condition(pod, "PodScheduled") == "False")).await;
        assert_eq!(pod.unwrap().status.unwrap().phase.as_deref(), Some("Pending"));
    }
    // One that nobody wants any more does not wait for its turn.
    cluster.api::<Pod>().delete("third", &DeleteParams::default()).await.unwrap();
    cluster.until("third", |pod| pod.is_none()).await;
    cluster.api::<Pod>().delete("first", &DeleteParams::default()).await.unwrap();
    let running = cluster.until_ready("second").await;
    assert_eq!((running.uid(), condition(&running, "PodScheduled")), (waiting.uid(), "True"));
    // A node that takes fewer Pods than it did says which of them do not run.
    cluster.stop_node().await;
    cluster.settings.max_pods = 0;
    cluster.start_node();
    let waits = |pod: &Pod| condition(pod, "PodScheduled") == "False" && condition(pod, "Ready") == "False";
    let pod = cluster.until("second", |pod| pod.is_some_and(waits)).await.unwrap();
    assert_eq!((pod.uid(), pod.status.unwrap().phase.as_deref()), (waiting.uid(), Some("Pending")));
}

#[tokio::test]
async fn a_configmap_that_is_missing_is_waited_for() {
    let cluster = Cluster::new().await;
    let mut wanted = pod("p", "echo $KEY > key; exec sleep 1000");
    let source = json!({"configMapKeyRef": {"name": "map", "key": "key"}});
    wanted["spec"]["containers"][0]["env"] = json!([{"name": "KEY", "valueFrom": source}]);
    cluster.create::<Pod>(wanted).await;
    let waits = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let waiting = statuses.and_then(|all| all.first()?.state.as_ref()?.waiting.as_ref());
        waiting.and_then(|waiting| waiting.reason.as_deref()) == Some("CreateContainerConfigError")
    };
    cluster.until("p", |pod| pod.is_some_and(waits)).await;
    cluster.create::<ConfigMap>(json!({"metadata": {"name": "map"}, "data": {"key": "value"}})).await;
    cluster.until_ready("p").await;
    assert_eq!(line(&cluster.file("p", "key")).await, "value");
}

#[tokio::test]
async fn what_happens_to_a_pod_can_be_read_in_its_events() {
    let cluster = Cluster::new().await;
    let created = cluster.create::<Pod>(pod("p", "exit 1")).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let events = cluster.api::<Event>().list(&ListParams::default()).await.unwrap();
        let about = events.iter().filter(|event| event.involved_object.uid == created.uid());
        let reasons: Vec<&str> = about.filter_map(|event| event.reason.as_deref()).collect();
        if ["Scheduled", "Started", "BackOff"].iter().all(|reason| reasons.contains(reason)) {
            break;
        }
        assert!(Instant::now() < deadline, "{reasons:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// B7: in OneX a dry run kept its Pods in the controller, and every restart of that lost them all.
#[tokio::test]
async fn b7_pods_of_a_dry_run_are_ready_at_once_without_any_process_and_outlive_the_node() {
    let mut cluster = Cluster::with(|settings| settings.dry_run = true).await;
    let nowhere = json!({
        "metadata": {"name": "p"},
        "spec": {
            "initContainers": [{"name": "first", "image": "no-such-image"}],
            "containers": [{"name": "c", "image": "no-such-image", "readinessProbe": {"httpGet": {"path": "/", "port": 1}}}],
        },
    });
    cluster.create::<Pod>(nowhere).await;
    let ready = cluster.until_ready("p").await;
    let status = ready.status.unwrap();
    assert!(status.pod_ip.as_ref().unwrap().starts_with("127."));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert!(container.container_id.as_ref().unwrap().starts_with("dry-run://"));
    assert!(!cluster.home("p").exists());

    cluster.stop_node().await;
    cluster.start_node();
    // Another one that becomes ready shows that the new run has looked around.
    cluster.create::<Pod>(pod("q", FOREVER)).await;
    cluster.until_ready("q").await;
    let again = cluster.api::<Pod>().get("p").await.unwrap();
    assert_eq!(again.resource_version(), ready.metadata.resource_version);
    cluster.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    cluster.until("p", |pod| pod.is_none()).await;
}

#[tokio::test]
async fn a_pod_of_a_job_ends_well_in_a_dry_run() {
    let cluster = Cluster::with(|settings| settings.dry_run = true).await;
    let owner =
        json!({"apiVersion": "batch.onex.io/v1beta1", "kind": "Job", "name": "j", "uid": "u", "controller": true});
    let mut done = pod("p", FOREVER);
    done["metadata"]["ownerReferences"] = json!([owner]);
    done["spec"]["restartPolicy"] = json!("Never");
    cluster.create::<Pod>(done).await;
    cluster.until_phase("p", "Succeeded").await;
}
