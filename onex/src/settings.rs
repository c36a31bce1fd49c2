//! The whole settings file: a section a room, and what is shared.

use std::collections::BTreeMap;

use onex_daemon::listener::Limits;
use onex_daemon::telemetry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::stores::Stores;

/// All settings of OneX. Every one of them has a default; an empty file runs everything embedded, on loopback.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where things are kept, a URL each. What is left out is embedded, in the data directory.
    pub stores: Stores,
    /// How the storage behaves.
    #[schemars(with = "BTreeMap<String, Json>")]
    pub storage: onex_storage::Settings,
    /// How the embedded audit log behaves.
    #[schemars(with = "BTreeMap<String, Json>")]
    pub audit: onex_audit::Settings,
    /// How the rows are reached.
    #[schemars(with = "BTreeMap<String, Json>")]
    pub db: onex_db::Settings,
    /// How the platform is put together, and what it allows its clients.
    pub up: Up,
    /// The REST and watch face of the kinds.
    pub apiserver: onex_apiserver::Settings,
    /// What turns declared chains and sets into running miners.
    #[schemars(with = "BTreeMap<String, Json>")]
    pub controllers: onex_controllers::Settings,
    /// What runs Pods as processes on this machine.
    #[schemars(with = "BTreeMap<String, Json>")]
    pub node: onex_node::Settings,
    /// Who are you, and what may you do.
    pub usercenter: onex_usercenter::Settings,
    /// What the platform says about itself, on standard error.
    pub telemetry: telemetry::Settings,
}

/// How the platform is put together, and what it allows its clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Up {
    /// Port of the kubelet API at the node's address. Only the apiserver speaks to it.
    pub kubelet_port: u16,
    /// Where the controllers say how they are, in the clear: /readyz, /livez and /metrics. Empty: nowhere.
    pub controllers_listen: String,
    /// More names and addresses under which clients reach the apiserver, for its certificate.
    pub names: Vec<String>,
    /// How long a stop may take in all, in seconds. What is left then is cut off.
    pub stop_seconds: u64,
    /// What a listener allows its clients.
    pub limits: Limits,
}

impl Default for Up {
    fn default() -> Self {
        let controllers_listen = "127.0.0.1:20250".to_owned();
        Self { kubelet_port: 10250, controllers_listen, names: Vec::new(), stop_seconds: 20, limits: Limits::default() }
    }
}
