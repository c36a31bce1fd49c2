//! One node of a blockchain, realised as one Pod.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::{CustomResource, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::wrong_miner_type;
use crate::conditions::Condition;
use crate::{Chain, GROUP, Invalid, Kind, duration, is_zero, names};

/// The type of a Miner that names none.
pub const DEFAULT_MINER_TYPE: &str = "S1.SMALL1";
/// What happens to a Miner's process that ends, when the Miner does not say.
pub const DEFAULT_RESTART_POLICY: &str = "Always";
/// How long a Miner waits for its Pod to go, when it does not say.
pub const DEFAULT_POD_DELETION_TIMEOUT: &str = "10s";
/// The restart policies of a Pod.
pub const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

/// What a Miner should be.
// Words that users write are plain strings, not enums: a value that does not decode could not be refused at its field.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "apps.onex.io",
    version = "v1beta1",
    kind = "Miner",
    plural = "miners",
    singular = "miner",
    shortname = "mi",
    category = "all",
    namespaced,
    status = "MinerStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One node of a blockchain, realised as one Pod of the same namespace and name.",
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.phase",
        description = "What the miner is doing: Pending, Provisioning, Running, Deleting or Failed."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".spec.minerType",
        description = "The miner's share of processor and memory, and its mining difficulty.",
        priority = 1
    ),
    selectable = ".spec.minerType"
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("default" = {}))]
pub struct MinerSpec {
    /// Labels and annotations that are copied to the Pod.
    pub metadata: TemplateMeta,
    /// A name for people. Miners of a set are named after the set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// The miner's share of processor and memory, and its mining difficulty.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("default" = "S1.SMALL1"))]
    pub miner_type: String,
    /// The chain to join, by its name in kube-system.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chain_name: String,
    /// What happens when the miner's process ends: Always, OnFailure or Never restart it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("default" = "Always", "enum" = ["Always", "OnFailure", "Never"]))]
    pub restart_policy: String,
    /// How long a deleted miner waits for its Pod to go, for example 10s. 0s waits forever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "10s"))]
    pub pod_deletion_timeout: Option<String>,
}

/// The labels and annotations of something that is made from a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels, by which objects are selected.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations, which programs and people may read.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What was last seen of a Miner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MinerStatus {
    /// The Pod that runs the miner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_ref: Option<ObjectReference>,
    /// When the phase last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Time>,
    /// In one word, why the miner cannot run until someone changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    /// For people, why the miner cannot run until someone changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_message: Option<String>,
    /// Where the miner can be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-patch-strategy" = "merge", "x-kubernetes-patch-merge-key" = "type"))]
    pub addresses: Vec<Address>,
    /// What the miner is doing: Pending, Provisioning, Running, Deleting or Failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The settings of the chain from which the Pod was made: the image, and the shortest time between two blocks.
    // Not in OneX.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chain_settings: String,
    /// The generation of the spec that was last acted on.
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// What is known about the miner.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What a Miner is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing has happened yet.
    #[default]
    Pending,
    /// The Pod is there and not healthy yet, or no longer.
    Provisioning,
    /// The Pod is healthy.
    Running,
    /// The Miner is being deleted.
    Deleting,
    /// The Miner cannot run until someone changes something.
    Failed,
    /// Nobody can tell.
    Unknown,
}

impl Phase {
    /// The word as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Provisioning => "Provisioning",
            Self::Running => "Running",
            Self::Deleting => "Deleting",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }
}

/// Why a Miner or a MinerSet cannot work, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailureReason {
    /// The spec asks for what there is not.
    InvalidConfiguration,
    /// The spec changed in a way that cannot be followed.
    UnsupportedChange,
    /// There is no room.
    InsufficientResources,
    /// Creating failed for good.
    CreateError,
    /// Updating failed for good.
    UpdateError,
    /// Deleting failed for good.
    DeleteError,
    /// The miner did not join in time.
    JoinClusterTimeoutError,
}

/// One address of a Miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// What the address is: Hostname, ExternalIP, InternalIP, ExternalDNS or InternalDNS.
    #[serde(rename = "type")]
    pub type_: AddressType,
    /// The address.
    pub address: String,
}

/// What kind of address an [`Address`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::upper_case_acronyms)]
pub enum AddressType {
    /// The host name.
    Hostname,
    /// An IP for the world.
    ExternalIP,
    /// An IP inside the cluster.
    InternalIP,
    /// A name for the world.
    ExternalDNS,
    /// A name inside the cluster.
    InternalDNS,
}

impl MinerSpec {
    /// Fills in what the user left out, in a Miner as in the template of a MinerSet.
    pub(crate) fn fill(&mut self) {
        if self.miner_type.is_empty() {
            self.miner_type = DEFAULT_MINER_TYPE.to_owned();
        }
        if self.restart_policy.is_empty() {
            self.restart_policy = DEFAULT_RESTART_POLICY.to_owned();
        }
        self.pod_deletion_timeout.get_or_insert_with(|| DEFAULT_POD_DELETION_TIMEOUT.to_owned());
    }

    /// What is wrong, with fields named from `path` on.
    pub(crate) fn check(&self, path: &str) -> Vec<Invalid> {
        let mut wrong = self.metadata.check(&format!("{path}.metadata"));
        wrong.extend(wrong_miner_type(&format!("{path}.minerType"), &self.miner_type));
        let field = format!("{path}.chainName");
        if self.chain_name.is_empty() {
            wrong.push(Invalid::required(field, "a miner must name the chain it joins"));
        } else if let Some(why) = names::not_a_subdomain(&self.chain_name) {
            wrong.push(Invalid::value(field, self.chain_name.as_str(), why));
        }
        if !self.restart_policy.is_empty() && !RESTART_POLICIES.contains(&self.restart_policy.as_str()) {
            let field = format!("{path}.restartPolicy");
            wrong.push(Invalid::not_supported(field, self.restart_policy.as_str(), &RESTART_POLICIES));
        }
        if let Some(text) = &self.pod_deletion_timeout
            && let Err(why) = duration::parse(text)
        {
            wrong.push(Invalid::value(format!("{path}.podDeletionTimeout"), text.as_str(), why));
        }
        wrong
    }

    /// How long a deleted Miner waits for its Pod to go. `None` waits forever, and so does what cannot be read.
    pub fn pod_deletion_timeout(&self) -> Option<Duration> {
        let text = self.pod_deletion_timeout.as_deref().unwrap_or(DEFAULT_POD_DELETION_TIMEOUT);
        duration::parse(text).ok().filter(|timeout| !timeout.is_zero())
    }
}

impl TemplateMeta {
    /// What is wrong, with fields named from `path` on.
    pub(crate) fn check(&self, path: &str) -> Vec<Invalid> {
        let mut wrong = Vec::new();
        let labels = format!("{path}.labels");
        for (key, value) in &self.labels {
            wrong
                .extend(names::not_a_qualified_name(key).map(|why| Invalid::value(labels.as_str(), key.as_str(), why)));
            wrong.extend(
                names::not_a_label_value(value).map(|why| Invalid::value(labels.as_str(), value.as_str(), why)),
            );
        }
        let annotations = format!("{path}.annotations");
        for key in self.annotations.keys() {
            // Kubernetes compares the keys of annotations without regard to case.
            let why = names::not_a_qualified_name(&key.to_lowercase());
            wrong.extend(why.map(|why| Invalid::value(annotations.as_str(), key.as_str(), why)));
        }
        wrong
    }
}

impl Kind for Miner {
    fn fill(&mut self) {
        self.spec.fill();
        self.status.get_or_insert_default();
    }

    fn check(&self, old: Option<&Self>) -> Vec<Invalid> {
        let mut wrong = Vec::new();
        if old.is_none() {
            wrong.extend(
                names::not_a_subdomain(&self.name_any())
                    .map(|why| Invalid::value("metadata.name", self.name_any(), why)),
            );
        }
        wrong.extend(self.spec.check("spec"));
        wrong
    }
}

impl Miner {
    /// What it was last seen doing; a Miner nobody has looked at is Pending.
    pub fn phase(&self) -> Phase {
        self.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
    }

    /// What is known about it.
    pub fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    /// The owner that controls it: a MinerSet, a Chain, or nobody.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references().iter().find(|owner| owner.controller == Some(true))
    }

    /// The Chain this Miner is the genesis of.
    ///
    /// Decided by who controls it, never by a label: labels can be written by anyone and copied by any template.
    pub fn genesis_of(&self) -> Option<&str> {
        let owner = self.controller()?;
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        (group == GROUP && owner.kind == Chain::kind(&())).then_some(owner.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miner() -> Miner {
        let mut miner = Miner::new("free", MinerSpec { chain_name: "genesis".to_owned(), ..MinerSpec::default() });
        miner.fill();
        miner
    }

    fn fields(miner: &Miner) -> Vec<String> {
        miner.check(None).into_iter().map(|wrong| wrong.field).collect()
    }

    #[test]
    fn a_miner_gets_every_default_and_keeps_its_name() {
        let miner = miner();
        assert_eq!(miner.spec.miner_type, "S1.SMALL1");
        assert_eq!(miner.spec.restart_policy, "Always");
        assert_eq!(miner.spec.pod_deletion_timeout(), Some(Duration::from_secs(10)));
        assert_eq!(miner.metadata.generate_name, None);
        assert_eq!(miner.check(None), []);
    }

    #[test]
    fn each_bad_field_is_named() {
        type Spoil = fn(&mut Miner);
        let table: [(Spoil, &str); 9] = [
            (|m| m.metadata.name = Some("A_b".to_owned()), "metadata.name"),
            (|m| m.spec.chain_name.clear(), "spec.chainName"),
            (|m| m.spec.chain_name = "A b".to_owned(), "spec.chainName"),
            (|m| m.spec.miner_type = "S1 SMALL".to_owned(), "spec.minerType"),
            (|m| m.spec.restart_policy = "Sometimes".to_owned(), "spec.restartPolicy"),
            (|m| m.spec.pod_deletion_timeout = Some("soon".to_owned()), "spec.podDeletionTimeout"),
            (|m| m.spec.pod_deletion_timeout = Some("-1s".to_owned()), "spec.podDeletionTimeout"),
            (|m| drop(m.spec.metadata.labels.insert("a b".to_owned(), String::new())), "spec.metadata.labels"),
            (|m| drop(m.spec.metadata.annotations.insert("/".to_owned(), String::new())), "spec.metadata.annotations"),
        ];
        for (spoil, field) in table {
            let mut miner = miner();
            spoil(&mut miner);
            assert_eq!(fields(&miner), [field]);
        }
    }

    #[test]
    fn a_timeout_of_zero_waits_forever() {
        let mut miner = miner();
        miner.spec.pod_deletion_timeout = Some("0s".to_owned());
        assert_eq!(fields(&miner), [""; 0]);
        assert_eq!(miner.spec.pod_deletion_timeout(), None);
    }

    #[test]
    fn a_label_does_not_make_a_genesis_but_a_controlling_chain_does() {
        let mut miner = miner();
        miner.labels_mut().insert(names::LABEL_CHAIN_NAME.to_owned(), "genesis".to_owned());
        assert_eq!(miner.genesis_of(), None);
        let chain = Chain {
            metadata: kube::core::ObjectMeta {
                name: Some("genesis".to_owned()),
                uid: Some("1".to_owned()),
                ..Default::default()
            },
            ..Chain::default()
        };
        miner.owner_references_mut().extend(chain.owner_ref(&()));
        assert_eq!(miner.genesis_of(), None);
        miner.metadata.owner_references = chain.controller_owner_ref(&()).map(|owner| vec![owner]);
        assert_eq!(miner.genesis_of(), Some("genesis"));
    }

    #[test]
    fn a_miner_nobody_has_looked_at_is_pending() {
        assert_eq!(miner().phase(), Phase::Pending);
    }
}
