//! The kinds of OneX as Rust types: spec, status, defaults, checks.
//!
//! No I/O happens here. `crds/yaml/` is printed from these types and held fresh by a test, so the same CRDs install on
//! any Kubernetes. Start at [`Kind`]; the kinds are [`Chain`], [`MinerSet`], [`Miner`], [`CronJob`] and [`Job`].

// Clippy takes two printer columns of one type for a repetition.
#![allow(clippy::duplicated_attributes)]

pub mod chain;
pub mod conditions;
pub mod cronjob;
pub mod duration;
pub mod image;
pub mod invalid;
pub mod job;
pub mod miner;
pub mod minerset;
pub mod names;
pub mod rollout;
pub mod schedule;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde::{Serialize, de::DeserializeOwned};

pub use chain::{Chain, ChainSpec, ChainStatus, LocalReference};
pub use conditions::{Condition, Severity, Truth};
pub use cronjob::{Concurrency, CronJob, CronJobSpec, CronJobStatus, JobTemplate};
pub use invalid::{Invalid, Problem};
pub use job::{Job, JobCondition, JobPhase, JobSpec, JobStatus};
pub use miner::{Address, AddressType, FailureReason, Miner, MinerSpec, MinerStatus, Phase, TemplateMeta};
pub use minerset::{DeletePolicy, MinerSet, MinerSetSpec, MinerSetStatus, MinerTemplate};
pub use rollout::{Leeway, Remediation, RollingUpdate, Strategy};

/// The API group of blockchains: Chains, MinerSets and Miners.
pub const GROUP: &str = "apps.onex.io";
/// The API group of CronJobs and Jobs.
pub const BATCH_GROUP: &str = "batch.onex.io";
/// The one version that is served and stored.
pub const VERSION: &str = "v1beta1";
/// The only namespace a Chain may live in, and where Miners look their Chain up.
pub const CHAIN_NAMESPACE: &str = "kube-system";

/// What a kind of OneX adds to its CRD: the two hooks of the write path, and a few words for people.
///
/// Values arrive here already decoded, so the schema (with its `default`s, `spec` among them) is applied first.
/// The schema of the type says more than the CRD, which has no place for the strategic-merge markers.
pub trait Kind:
    kube::Resource<DynamicType = ()>
    + CustomResourceExt
    + schemars::JsonSchema
    + Serialize
    + DeserializeOwned
    + Clone
    + PartialEq
    + 'static
{
    /// Fills in what the user left out. Never overwrites what they wrote.
    ///
    /// Runs on create and update, not on read. Filling twice is filling once.
    fn fill(&mut self) {}

    /// Says what is wrong, and at which field. `old` is there on update. Runs after [`Kind::fill`].
    fn check(&self, _old: Option<&Self>) -> Vec<Invalid> {
        Vec::new()
    }

    /// What deserves a `Warning` header on create, although it is not wrong.
    fn warn(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The CRDs of all kinds, as they install on any Kubernetes.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Chain::crd(), MinerSet::crd(), Miner::crd(), CronJob::crd(), Job::crd()]
}

/// Serde's question whether an optional number was left at zero.
pub(crate) fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}
