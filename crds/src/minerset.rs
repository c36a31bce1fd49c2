//! A number of Miners that are alike.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::miner::{FailureReason, MinerSpec, TemplateMeta};
use crate::rollout::{Leeway, Remediation, Strategy};
use crate::{Invalid, Kind, is_zero, names};

/// How many Miners a set has that does not say.
pub const DEFAULT_REPLICAS: i32 = 1;
/// How long a set may take before it is said to be stuck, in seconds, when it does not say.
pub const DEFAULT_PROGRESS_DEADLINE_SECONDS: i32 = 600;
/// The words a `deletePolicy` may be.
pub const DELETE_POLICIES: [&str; 3] = ["Random", "Newest", "Oldest"];

/// What a MinerSet should be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "apps.onex.io",
    version = "v1beta1",
    kind = "MinerSet",
    plural = "minersets",
    singular = "minerset",
    shortname = "ms",
    category = "all",
    namespaced,
    status = "MinerSetStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A number of miners that are alike.",
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "The miners that are ready."
    ),
    printcolumn(
        name = "Current",
        type_ = "integer",
        json_path = ".status.replicas",
        description = "The miners that are there."
    ),
    printcolumn(
        name = "Available",
        type_ = "string",
        json_path = ".status.availableReplicas",
        description = "The miners that have been ready for minReadySeconds."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Selector",
        type_ = "string",
        json_path = ".status.selector",
        description = "The labels by which the set knows its miners.",
        priority = 1
    ),
    selectable = ".status.replicas",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    )
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("default" = {}))]
pub struct MinerSetSpec {
    /// How many miners there should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 1))]
    pub replicas: Option<i32>,
    /// The labels by which the set knows its miners. The server sets it to the name of the set, whatever was written.
    pub selector: LabelSelector,
    /// What the miners should be. A change is passed on to the miners that are there.
    pub template: MinerTemplate,
    /// A name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// Which miners go first when the set shrinks, after those that are marked or unhealthy: Random, Newest or Oldest.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("default" = "Random", "enum" = ["Random", "Newest", "Oldest"]))]
    pub delete_policy: String,
    /// How long a miner must be ready before it counts as available, in seconds.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub min_ready_seconds: i32,
    /// How long the set may make no progress before it is said to be stuck, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 600))]
    pub progress_deadline_seconds: Option<i32>,
    /// Whether changes of the template and of the chain's settings wait. The set still grows and shrinks.
    // Not in OneX, as the next two: as a Deployment has them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How a change reaches the miners that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// When miners that do not work are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<Remediation>,
}

/// What the Miners of a set should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MinerTemplate {
    /// The labels and annotations of the miners.
    pub metadata: TemplateMeta,
    /// The spec of the miners.
    pub spec: MinerSpec,
}

/// What was last seen of a MinerSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MinerSetStatus {
    /// The selector as text, for the scale subresource.
    // Not in OneX. A CRD's scale subresource can only point at a text, and autoscalers need it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The miners of the set, those that are being deleted included.
    // Always written, also when zero.
    pub replicas: i32,
    /// The miners that have all labels of the template.
    #[serde(skip_serializing_if = "is_zero")]
    pub fully_labeled_replicas: i32,
    /// The miners whose Pod is healthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub ready_replicas: i32,
    /// The miners that have been ready for minReadySeconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub available_replicas: i32,
    /// The miners that are as the template and the chain say now.
    #[serde(skip_serializing_if = "is_zero")]
    pub updated_replicas: i32,
    /// The generation of the spec that was last acted on.
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// In one word, why the set cannot work until someone changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    /// For people, why the set cannot work until someone changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_message: Option<String>,
    /// What is known about the set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-patch-strategy" = "merge", "x-kubernetes-patch-merge-key" = "type"))]
    pub conditions: Vec<Condition>,
}

/// Who goes first when a set shrinks, among Miners that are neither marked nor unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeletePolicy {
    /// No age is preferred.
    #[default]
    Random,
    /// The youngest.
    Newest,
    /// The oldest.
    Oldest,
}

impl MinerSetSpec {
    /// The policy that is written; Random when none is.
    pub fn delete_policy(&self) -> DeletePolicy {
        match self.delete_policy.as_str() {
            "Newest" => DeletePolicy::Newest,
            "Oldest" => DeletePolicy::Oldest,
            // Anything else was refused by `check` before it was stored.
            _ => DeletePolicy::Random,
        }
    }
}

impl Kind for MinerSet {
    fn fill(&mut self) {
        self.spec.replicas.get_or_insert(DEFAULT_REPLICAS);
        self.spec.progress_deadline_seconds.get_or_insert(DEFAULT_PROGRESS_DEADLINE_SECONDS);
        if self.spec.delete_policy.is_empty() {
            self.spec.delete_policy = DELETE_POLICIES[0].to_owned();
        }
        self.spec.template.spec.fill();
        self.status.get_or_insert_default();
    }

    fn check(&self, old: Option<&Self>) -> Vec<Invalid> {
        let mut wrong = Vec::new();
        if old.is_none() {
            wrong.extend(self.wrong_name().map(|why| Invalid::value("metadata.name", self.name_any(), why)));
        }
        for (field, number) in [
            ("spec.replicas", self.spec.replicas),
            ("spec.minReadySeconds", Some(self.spec.min_ready_seconds)),
            ("spec.progressDeadlineSeconds", self.spec.progress_deadline_seconds),
        ] {
            if let Some(number) = number.filter(|number| *number < 0) {
                wrong.push(Invalid::value(field, number, "must be greater than or equal to 0"));
            }
        }
        let policy = self.spec.delete_policy.as_str();
        if !policy.is_empty() && !DELETE_POLICIES.contains(&policy) {
            wrong.push(Invalid::not_supported("spec.deletePolicy", policy, &DELETE_POLICIES));
        }
        wrong.extend(self.spec.strategy.iter().flat_map(|strategy| strategy.check("spec.strategy")));
        wrong.extend(self.spec.remediation.iter().flat_map(|remediation| remediation.check("spec.remediation")));
        wrong.extend(self.spec.template.metadata.check("spec.template.metadata"));
        wrong.extend(self.spec.template.spec.check("spec.template.spec"));
        wrong
    }

    fn warn(&self) -> Vec<String> {
        // A name that is yet to be generated is not looked at: it ends in a dash.
        let why = self.metadata.name.as_deref().and_then(names::not_a_label);
        why.map(|why| format!("metadata.name: this is used in Miner names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{why}]"))
            .into_iter()
            .collect()
    }
}

impl MinerSet {
    /// How many Miners there should be.
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(DEFAULT_REPLICAS)
    }

    /// How many of its Miners may be missing, and how many too many, while they change.
    pub fn leeway(&self) -> Leeway {
        let replicas = usize::try_from(self.replicas()).unwrap_or_default();
        self.spec.strategy.clone().unwrap_or_default().leeway(replicas)
    }

    /// What is known about it.
    pub fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    /// The selector as text: `apps.onex.io/minerset=test`. Empty when it cannot be read, and then it selects nothing.
    pub fn selector_text(&self) -> String {
        kube::core::Selector::try_from(self.spec.selector.clone())
            .map(|selector| selector.to_string())
            .unwrap_or_default()
    }

    /// Whether DELETE is refused, however it comes: alone, in a collection or with the namespace.
    pub fn is_protected(&self) -> bool {
        self.annotations().get(names::ANNOTATION_DELETION_PROTECTION).is_some_and(|value| value == "true")
    }

    /// The name becomes the value of a label that every Miner of the set carries.
    fn wrong_name(&self) -> Option<String> {
        let name = self.name_any();
        names::not_a_subdomain(&name).or_else(|| names::not_a_label_value(&name))
    }
}

/// The rules of admission on create and update, applied when the name is known: the selector, the template's label and
/// the Miners' display name follow the name of the set, whatever was written.
pub fn admit(set: &mut MinerSet) {
    let name = set.name_any();
    let label = BTreeMap::from([(names::LABEL_MINERSET.to_owned(), name.clone())]);
    set.spec.template.metadata.labels.extend(label.clone());
    set.spec.selector = LabelSelector { match_labels: Some(label), match_expressions: None };
    set.spec.template.spec.display_name = format!("miner-for-{name}-minerset");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> MinerSet {
        let mut set = MinerSet::new("test", MinerSetSpec::default());
        set.spec.template.spec.chain_name = "genesis".to_owned();
        set.fill();
        admit(&mut set);
        set
    }

    #[test]
    fn a_set_without_replicas_has_one() {
        let set = set();
        assert_eq!(set.spec.replicas, Some(1));
        assert_eq!(set.spec.delete_policy, "Random");
        assert_eq!(set.spec.progress_deadline_seconds, Some(600));
        assert_eq!(set.spec.template.spec.miner_type, "S1.SMALL1");
        assert_eq!(set.check(None), []);
    }

    #[test]
    fn zero_replicas_stay_zero() {
        let mut set = set();
        set.spec.replicas = Some(0);
        set.fill();
        assert_eq!(set.spec.replicas, Some(0));
    }

    #[test]
    fn admission_forces_selector_label_and_display_name() {
        let mut set = set();
        set.spec.selector.match_labels = Some(BTreeMap::from([("mine".to_owned(), "yes".to_owned())]));
        set.spec.template.metadata.labels.insert("tier".to_owned(), "gold".to_owned());
        admit(&mut set);
        assert_eq!(set.selector_text(), "apps.onex.io/minerset=test");
        assert_eq!(set.spec.template.metadata.labels["apps.onex.io/minerset"], "test");
        assert_eq!(set.spec.template.metadata.labels["tier"], "gold");
        assert_eq!(set.spec.template.spec.display_name, "miner-for-test-minerset");
    }

    #[test]
    fn each_bad_field_is_named() {
        type Spoil = fn(&mut MinerSet);
        let table: [(Spoil, &str); 8] = [
            (|s| s.metadata.name = Some("a".repeat(64)), "metadata.name"),
            (|s| s.metadata.name = Some("Test".to_owned()), "metadata.name"),
            (|s| s.spec.replicas = Some(-1), "spec.replicas"),
            (|s| s.spec.min_ready_seconds = -1, "spec.minReadySeconds"),
            (|s| s.spec.progress_deadline_seconds = Some(-1), "spec.progressDeadlineSeconds"),
            (|s| s.spec.delete_policy = "Biggest".to_owned(), "spec.deletePolicy"),
            (|s| s.spec.template.spec.chain_name.clear(), "spec.template.spec.chainName"),
            (
                |s| drop(s.spec.template.metadata.labels.insert("a".to_owned(), "b c".to_owned())),
                "spec.template.metadata.labels",
            ),
        ];
        for (spoil, field) in table {
            let mut set = set();
            spoil(&mut set);
            let fields: Vec<String> = set.check(None).into_iter().map(|wrong| wrong.field).collect();
            assert_eq!(fields, [field]);
        }
    }

    #[test]
    fn a_name_with_dots_is_allowed_with_a_warning() {
        let mut set = set();
        set.metadata.name = Some("a.b".to_owned());
        assert_eq!(set.check(None), []);
        assert_eq!(set.warn().len(), 1);
    }

    #[test]
    fn keys_that_clients_expect_are_written_also_when_empty() {
        let mut set = MinerSet::new("test", MinerSetSpec::default());
        set.status = Some(MinerSetStatus::default());
        let json = serde_json::to_value(&set).unwrap();
        assert_eq!(
            json["spec"],
            serde_json::json!({"selector": {}, "template": {"metadata": {}, "spec": {"metadata": {}}}})
        );
        assert_eq!(json["status"], serde_json::json!({"replicas": 0}));
    }
}
