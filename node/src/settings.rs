//! What can be set about a node. Every field has a default, so that an empty section is a working node.

use crate::addresses::AddressRange;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Settings of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Name of the Node object. Default `onex`.
    pub node_name: String,
    /// Directory for chains, logs and process records. Default `node`, relative to the working directory.
    pub data_dir: PathBuf,
    /// Address under which the kubelet API is reached and which Pods see as their host's. Default 127.0.0.1.
    pub address: Ipv4Addr,
    /// Which local executable stands for an image: pattern (with `*`) to executable and first arguments. The longest
    /// matching pattern wins. The first word of a container's `command` is replaced by the executable; an empty list means
    /// that the `command` is run as it is, from this machine. Default: none.
    pub images: BTreeMap<String, Vec<String>>,
    /// Executable and first arguments for `onex-toyblc` images. Default (empty): this program with `toyblc`.
    pub toyblc: Vec<String>,
    /// Executable and first arguments of the shim every process is started through. Default (empty): this program with `shim`.
    pub shim: Vec<String>,
    /// Loopback addresses that Pods get, as CIDR. Default 127.64.0.0/10.
    pub pod_range: AddressRange,
    /// Size of one log file in bytes; each container run keeps at most two. Default 8388608 (8 MiB).
    pub log_file_bytes: u64,
    /// How many log requests are served at the same time. Default 256.
    pub log_streams: usize,
    /// How many Pods this node runs; of Pods that only seem to run, a million at least. Default 1000.
    pub max_pods: u32,
    /// Whether Pods only seem to run: they get an address and become ready at once, and no process is started. Default false.
    pub dry_run: bool,
    /// Seconds before the first restart of a container; doubles with every further one. Default 1.
    pub restart_delay_seconds: u64,
    /// Seconds between restarts at most; a run longer than this starts the doubling over. Default 60.
    pub restart_delay_max_seconds: u64,
    /// Seconds between two renewals of the node's Lease. Default 10.
    pub lease_seconds: u32,
    /// Seconds between two writes of the Node's status. Default 60.
    pub status_seconds: u32,
    /// Seconds for which the directory of a Pod (with its chain) is kept after no Pod of that name exists. Default 600.
    pub keep_directory_seconds: u64,
    /// Seconds that processes have to stop by themselves when the node shuts down. Default 5.
    pub shutdown_seconds: u64,
    /// Name of the cgroup under which limits are set, from the root of each hierarchy; empty sets no limits. Default `onex`.
    pub cgroup_parent: String,
    /// The `PATH` of every process. Default `/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`.
    pub path: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_name: "onex".to_owned(),
            data_dir: PathBuf::from("node"),
            address: Ipv4Addr::LOCALHOST,
            images: BTreeMap::new(),
            toyblc: Vec::new(),
            shim: Vec::new(),
            pod_range: AddressRange::default(),
            log_file_bytes: 8 << 20,
            log_streams: 256,
            max_pods: 1000,
            dry_run: false,
            restart_delay_seconds: 1,
            restart_delay_max_seconds: 60,
            lease_seconds: 10,
            status_seconds: 60,
            keep_directory_seconds: 600,
            shutdown_seconds: 5,
            cgroup_parent: "onex".to_owned(),
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        }
    }
}

/// How many Pods a node takes that starts no processes for them.
const MAX_PODS_OF_A_DRY_RUN: u32 = 1_000_000;

impl Settings {
    /// How many Pods this node takes.
    pub(crate) fn room(&self) -> u32 {
        if self.dry_run { self.max_pods.max(MAX_PODS_OF_A_DRY_RUN) } else { self.max_pods }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(serde_json::from_str::<Settings>(r#"{"max_pod": 3}"#).is_err());
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let printed = serde_json::to_string(&Settings::default()).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&printed).unwrap(), Settings::default());
    }
}
