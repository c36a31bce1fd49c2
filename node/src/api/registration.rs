//! The Node object and its heartbeat.

use super::{Cluster, MANAGER, code};
use crate::runner::with_causes;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use tokio::time::Instant;

/// Where the kubelets of a cluster renew their Leases.
const LEASES: &str = "kube-node-lease";

/// Between two tries to reach an apiserver that does not answer.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Keeps the Node object and its Lease there and fresh. Does not return.
pub(crate) async fn keep_registered(cluster: &Cluster) {
    let every = Duration::from_secs(u64::from(cluster.settings.lease_seconds.max(1)));
    let status_every = Duration::from_secs(u64::from(cluster.settings.status_seconds.max(1)));
    let mut status_at = Instant::now();
    loop {
        let due = Instant::now() >= status_at;
        let pause = match beat(cluster, due).await {
            Ok(written) => {
                if written {
                    status_at = Instant::now() + status_every;
                }
                every
            }
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "the node could not be reported, and is tried again");
                TRY_AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Reads our Node, writes what is due, renews the Lease. True when the Node's status was written.
async fn beat(cluster: &Cluster, due: bool) -> Result<bool, kube::Error> {
    let nodes = Api::<Node>::all(cluster.client.clone());
    let name = &cluster.settings.node_name;
    let known = nodes.get_opt(name).await?;
    let write = due || known.is_none();
    let mut node = match known {
        Some(node) => node,
        None => create(cluster, &nodes).await?,
    };
    if write {
        let status = status(cluster, &node, Time(Timestamp::now()));
        let patch = Patch::Merge(json!({"status": status}));
        node = nodes.patch_status(name, &PatchParams::apply(MANAGER), &patch).await?;
    }
    renew(cluster, &node).await?;
    cluster.node.send_replace(Some(node));
    Ok(write)
}

async fn create(cluster: &Cluster, nodes: &Api<Node>) -> Result<Node, kube::Error> {
    let mut node = Node::default();
    node.meta_mut().name = Some(cluster.settings.node_name.clone());
    node.meta_mut().labels = Some(labels(&cluster.settings.node_name));
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match nodes.create(&parameters, &node).await {
        Err(error) if code(&error) == Some(409) => nodes.get(&cluster.settings.node_name).await,
        other => other,
    }
}

async fn renew(cluster: &Cluster, node: &Node) -> Result<(), kube::Error> {
    let leases = Api::<Lease>::namespaced(cluster.client.clone(), LEASES);
    let name = &cluster.settings.node_name;
    let spec = json!({
        "holderIdentity": name,
        "leaseDurationSeconds": cluster.settings.lease_seconds.saturating_mul(4),
        "renewTime": MicroTime(Timestamp::now()),
    });
    let patch = Patch::Merge(json!({"spec": spec}));
    match leases.patch(name, &PatchParams::apply(MANAGER), &patch).await {
        Err(error) if code(&error) == Some(404) => {
            let mut lease = Lease::default();
            lease.meta_mut().name = Some(name.clone());
            lease.meta_mut().owner_references = node.owner_ref(&()).map(|owner| vec![owner]);
            lease.spec = serde_json::from_value(spec).ok();
            leases.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn labels(name: &str) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", std::env::consts::OS),
        ("kubernetes.io/arch", architecture()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// As Go calls it, because that is what node selectors say.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn status(cluster: &Cluster, node: &Node, now: Time) -> NodeStatus {
    let settings = &cluster.settings;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let capacity: BTreeMap<String, Quantity> = [
        ("cpu", cores.to_string()),
        ("memory", format!("{}Ki", memory_kibibytes(&read("/proc/meminfo")))),
        ("pods", settings.room().to_string()),
    ]
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .into();
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    NodeStatus {
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        addresses: Some(vec![
            address("InternalIP", settings.address.to_string()),
            address("Hostname", settings.node_name.clone()),
        ]),
        conditions: Some(conditions(node, &now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(cluster.kubelet_port) }),
        }),
        node_info: Some(info()),
        ..NodeStatus::default()
    }
}

fn conditions(node: &Node, now: &Time) -> Vec<NodeCondition> {
    let before = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let earlier = before
            .and_then(|before| before.iter().find(|condition| condition.type_ == kind && condition.status == status))
            .and_then(|condition| condition.last_transition_time.clone());
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(earlier.unwrap_or_else(|| now.clone())),
        }
    };
    vec![condition("Ready", "True", "KubeletReady", "the node runs processes")]
}

fn info() -> NodeSystemInfo {
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: concat!("process://", env!("CARGO_PKG_VERSION")).to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kubelet_version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        machine_id: read("/etc/machine-id"),
        operating_system: std::env::consts::OS.to_owned(),
        os_image: pretty_name(&read("/etc/os-release")),
        ..NodeSystemInfo::default()
    }
}

/// A file that describes the machine; nothing when it is not there.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn memory_kibibytes(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|total| total.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

fn pretty_name(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described_from_its_own_files() {
        assert_eq!(memory_kibibytes("MemTotal:       24686592 kB\nMemFree: 1 kB"), 24_686_592);
        assert_eq!(memory_kibibytes(""), 0);
        assert_eq!(pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\""), "Debian GNU/Linux 12");
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let mut node = Node::default();
        node.status.get_or_insert_default().conditions = Some(conditions(&node, &at(1)));
        let later = &conditions(&node, &at(9))[0];
        assert_eq!((later.last_transition_time.clone(), later.last_heartbeat_time.clone()), (Some(at(1)), Some(at(9))));
    }
}
