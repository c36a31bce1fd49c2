//! Two platforms over one etcd of three members: any process of theirs may be killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use serde_json::Value;

use crate::cluster::{Cluster, free_ports};
use crate::door::administrator;
use crate::world::{EVERYWHERE, PATIENCE, World, eventually};

/// Where they write.
const NAMESPACE: &str = "several";
const WRITERS: usize = 4;

/// How long a writer tries one object, and how long one try may take.
const STUBBORN: Duration = Duration::from_secs(60);
const TRY: Duration = Duration::from_secs(15);

#[test]
fn any_process_may_be_killed_under_load_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of(3, &[]);
    let storage = format!("stores.storage=\"etcd://{}\"", cluster.members().join(","));
    // Ports that stay the same over a restart, as clients expect of an address.
    let ports = free_ports(4);
    let settings = |node: usize| -> Vec<String> {
        let (apiserver, kubelet) = (ports[2 * node], ports[2 * node + 1]);
        vec![
            storage.clone(),
            format!("apiserver.listen=\"127.0.0.1:{apiserver}\""),
            format!("up.kubelet_port={kubelet}"),
            "up.controllers_listen=\"127.0.0.1:0\"".to_owned(),
            "usercenter.listen=\"127.0.0.1:0\"".to_owned(),
            "usercenter.grpc_listen=\"127.0.0.1:0\"".to_owned(),
            format!("node.node_name=\"node{node}\""),
            "node.cgroup_parent=".to_owned(),
            "controllers.leader.lease_seconds=6".to_owned(),
        ]
    };
    let (first, second) = (settings(0), settings(1));
    let one = World::start_with(&set(&first));
    let other = one.start_beside(&set(&second));
    one.kubectl(&format!("create namespace {NAMESPACE}")).ok();
    one.chain("shared", 1);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let doors = runtime.block_on(async { [administrator(&one).await, administrator(&other).await] });
    let writers: Vec<_> = (0..WRITERS).map(|n| runtime.spawn(write(doors.clone(), n, over.clone()))).collect();
    let pause = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    pause(1);
    for member in 0..3 {
        cluster.kill(member);
        pause(2);
        cluster.start(member);
        pause(3); // it catches up before the next one dies
    }
    for (size, (killed, left)) in [(2, (&one, &other)), (3, (&other, &one))] {
        // Whoever leads is killed in the middle of the work, half of the time.
        left.minerset(NAMESPACE, &format!("set{size}"), "shared", size);
        killed.crash();
        eventually(PATIENCE, || {
            let found = left.get(&format!("minerset set{size} -n {NAMESPACE}"))["status"]["replicas"].clone();
            if found == size { Ok(()) } else { Err(format!("set{size} has {found} miners")) }
        });
        killed.up();
    }
    over.store(true, Ordering::Relaxed);
    let told: Vec<Told> = writers.into_iter().map(|writer| runtime.block_on(writer).unwrap()).collect();
    let acknowledged: BTreeMap<_, _> = told.iter().flat_map(|told| &told.acknowledged).collect();
    assert!(acknowledged.len() > 500, "only {} writes were acknowledged", acknowledged.len());

    for world in [&one, &other] {
        let there = runtime.block_on(read(world));
        for (name, revision) in &acknowledged {
            assert_eq!(there.get(*name), Some(*revision), "{name}");
        }
        let asked: usize = told.iter().map(|told| told.asked).sum();
        assert!(there.len() <= asked, "{} objects, and {asked} were asked for", there.len());
        for size in [2, 3] {
            let miners = world.names(&format!("miners -n {NAMESPACE} -l apps.onex.io/minerset-name=set{size}"));
            let expected: Vec<_> = (0..size).map(|n| format!("set{size}-{n}")).collect();
            assert_eq!(miners, expected);
        }
    }
    // The lease says how often the leader changed, and nobody led who did not hold it.
    let lease = one.get("lease onex-controllers -n kube-system");
    assert!(lease["spec"]["leaseTransitions"].as_u64().unwrap() >= 1, "{lease}");
}

/// The settings as arguments.
fn set(settings: &[String]) -> Vec<&str> {
    settings.iter().flat_map(|setting| ["--set", setting]).collect()
}

/// What one writer was told.
struct Told {
    /// The revision of each object that it was told of.
    acknowledged: BTreeMap<String, String>,
    asked: usize,
}

/// Creates one object after the other, each until somebody says that it is there.
async fn write(doors: [Client; 2], writer: usize, over: Arc<AtomicBool>) -> Told {
    let maps: Vec<Api<ConfigMap>> = doors.into_iter().map(|door| Api::namespaced(door, NAMESPACE)).collect();
    let mut told = Told { acknowledged: BTreeMap::new(), asked: 0 };
    let mut door = writer;
    while !over.load(Ordering::Relaxed) {
        let name = format!("w{writer}-{:06}", told.asked);
        told.asked += 1;
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < STUBBORN, "nobody takes {name}");
            let parameters = PostParams::default();
            match tokio::time::timeout(TRY, maps[door % 2].create(&parameters, &map)).await {
                Ok(Ok(made)) => {
                    told.acknowledged.insert(name, made.metadata.resource_version.unwrap());
                    break;
                }
                // It had happened, though nobody was told.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 && begun.elapsed() > Duration::ZERO => break,
                // What may be tried again.
                Ok(Err(kube::Error::Api(status))) => {
                    assert!(matches!(status.code, 429 | 503 | 504), "{name}: {status:?}");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            door += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        door += 1;
    }
    told
}

/// The revision of every object there is.
async fn read(world: &World) -> BTreeMap<String, String> {
    let maps: Api<ConfigMap> = Api::namespaced(administrator(world).await, NAMESPACE);
    let there = maps.list(&ListParams::default()).await.unwrap().into_iter();
    let entry = |map: ConfigMap| (map.metadata.name.unwrap(), map.metadata.resource_version.unwrap());
    there.map(entry).filter(|(name, _)| name != EVERYWHERE).collect()
}

#[test]
fn what_etcd_holds_is_laid_out_as_in_kubernetes() {
    let cluster = Cluster::of(1, &[]);
    let storage = format!("stores.storage=\"etcd://{}\"", cluster.members()[0]);
    let world = World::start_with(&["--ports", "auto", "--set", "node.cgroup_parent=", "--set", &storage]);
    world.kubectl("create configmap a --from-literal=b=c").ok();
    world.create("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}");
    let read = |key: &str| {
        let arguments = ["--endpoints", &cluster.members()[0], "get", key, "--print-value-only"];
        let said = std::process::Command::new("etcdctl").env("ETCDCTL_API", "3").args(arguments).output().unwrap();
        serde_json::from_slice::<Value>(&said.stdout).unwrap_or_default()
    };
    let map = read("/registry/configmaps/default/a");
    assert_eq!((&map["kind"], &map["data"]["b"]), (&"ConfigMap".into(), &"c".into()));
    assert_eq!(map["metadata"]["resourceVersion"], Value::Null, "only the store knows it");
    for key in [
        "/registry/services/specs/default/s",
        "/registry/minions/onex",
        "/registry/apiregistration.k8s.io/apiservices/v1.",
        "/registry/namespaces/kube-system",
    ] {
        assert!(read(key)["metadata"]["uid"].is_string(), "{key}");
    }
}
