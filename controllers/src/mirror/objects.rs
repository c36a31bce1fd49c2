//! What the row of an object is, kind by kind.

use std::collections::BTreeMap;
use std::hash::Hash;

use jiff::Timestamp;
use kube::Resource;
use kube::core::Request;
use onex_crds::chain::{ChainSpec, ChainStatus};
use onex_crds::miner::{MinerSpec, MinerStatus, Phase};
use onex_crds::minerset::{MinerSetSpec, MinerSetStatus};
use onex_crds::{Chain, Miner, MinerSet, names};
use onex_db::mirror::{self, Columns, Row};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::quantity;

/// A kind that is copied.
pub(super) trait Copied: Resource<DynamicType = ()> + Sized + Clone + Send + Sync + 'static {
    /// What is asked for.
    type Spec: DeserializeOwned + Default + Clone + Send + Sync + 'static;
    /// What is seen.
    type Status: DeserializeOwned + Default + Clone + Send + Sync + 'static;
    /// The columns that its objects become.
    type Row: Columns + Hash;

    /// The kind, as everybody knows it.
    const KIND: &'static str = <Self::Row as Columns>::KIND;

    /// The columns of an object.
    fn columns(spec: Self::Spec, status: Self::Status, metadata: &Meta) -> Self::Row;

    /// Requests for the objects of all namespaces.
    fn everywhere() -> Request {
        Request::new(Self::url_path(&(), None))
    }
}

/// As much of an object as is copied: managed fields alone are larger than all of it.
#[derive(Clone, Deserialize)]
#[serde(bound = "K: Copied")]
pub(super) struct Object<K: Copied> {
    pub metadata: Meta,
    #[serde(default)]
    spec: K::Spec,
    #[serde(default)]
    status: Option<K::Status>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub namespace: String,
    pub name: String,
    pub resource_version: String,
    creation_timestamp: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl<K: Copied> Object<K> {
    pub fn into_row(self) -> Row<K::Row> {
        let Meta { namespace, name, creation_timestamp, .. } = &self.metadata;
        let created: Option<Timestamp> = creation_timestamp.as_ref().and_then(|created| created.parse().ok());
        let created = created.map_or(0, Timestamp::as_microsecond);
        let columns = K::columns(self.spec, self.status.unwrap_or_default(), &self.metadata);
        Row::new(namespace, name, created, columns)
    }
}

impl Meta {
    fn quantity(&self, annotation: &str, read: impl Fn(&str) -> Option<i64>) -> i64 {
        self.annotations.as_ref().and_then(|all| read(all.get(annotation)?)).unwrap_or_default()
    }
}

impl Copied for Chain {
    type Spec = ChainSpec;
    type Status = ChainStatus;
    type Row = mirror::Chain;

    fn columns(spec: ChainSpec, _: ChainStatus, _: &Meta) -> mirror::Chain {
        mirror::Chain {
            display_name: spec.display_name,
            miner_type: spec.miner_type,
            image: spec.image,
            min_mine_interval_seconds: spec.min_mine_interval_seconds.into(),
        }
    }
}

impl Copied for MinerSet {
    type Spec = MinerSetSpec;
    type Status = MinerSetStatus;
    type Row = mirror::MinerSet;

    fn columns(spec: MinerSetSpec, status: MinerSetStatus, _: &Meta) -> mirror::MinerSet {
        let conditions =
            (!status.conditions.is_empty()).then(|| serde_json::to_string(&status.conditions).ok()).flatten();
        mirror::MinerSet {
            replicas: spec.replicas.unwrap_or(onex_crds::minerset::DEFAULT_REPLICAS).into(),
            display_name: spec.display_name,
            delete_policy: spec.delete_policy,
            min_ready_seconds: spec.min_ready_seconds.into(),
            fully_labeled_replicas: status.fully_labeled_replicas.into(),
            ready_replicas: status.ready_replicas.into(),
            available_replicas: status.available_replicas.into(),
            failure_reason: status.failure_reason.and_then(|reason| word(&reason)),
            failure_message: status.failure_message,
            conditions,
        }
    }
}

impl Copied for Miner {
    type Spec = MinerSpec;
    type Status = MinerStatus;
    type Row = mirror::Miner;

    fn columns(spec: MinerSpec, status: MinerStatus, metadata: &Meta) -> mirror::Miner {
        mirror::Miner {
            display_name: spec.display_name,
            phase: status.phase.unwrap_or(Phase::Pending).as_str().to_owned(),
            miner_type: spec.miner_type,
            chain_name: spec.chain_name,
            cpu: metadata.quantity(names::ANNOTATION_CPU, quantity::thousandths),
            memory: metadata.quantity(names::ANNOTATION_MEMORY, quantity::mebibytes),
        }
    }
}

/// A word as it is written in JSON.
fn word(word: &impl serde::Serialize) -> Option<String> {
    serde_json::to_value(word).ok()?.as_str().map(str::to_owned)
}
