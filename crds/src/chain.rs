//! A blockchain: one genesis Miner and one keystore.

use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::{CHAIN_NAMESPACE, Invalid, Kind, image, is_zero, names};

/// The account that is rewarded when a Chain names none.
pub const DEFAULT_BOOTSTRAP_ACCOUNT: &str = "0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e";
/// The type of the genesis Miner when a Chain names none.
pub const DEFAULT_MINER_TYPE: &str = "S1.SMALL2";
/// Twelve hours: the pause between two blocks when a Chain names none.
pub const DEFAULT_MIN_MINE_INTERVAL_SECONDS: i32 = 43_200;

/// What a Chain should be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "apps.onex.io",
    version = "v1beta1",
    kind = "Chain",
    plural = "chains",
    singular = "chain",
    shortname = "ch",
    category = "all",
    namespaced,
    status = "ChainStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A blockchain: one genesis miner, and the settings that all its miners share. Lives in kube-system.",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("default" = {}))]
pub struct ChainSpec {
    /// A name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// The type of the genesis miner: its share of processor and memory, and its mining difficulty.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("default" = "S1.SMALL2"))]
    pub miner_type: String,
    /// The image that miners of this chain run. The controller's own default when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The shortest time between two blocks of one miner, in seconds. 43200 (12 hours) when not positive.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(extend("default" = 43200))]
    pub min_mine_interval_seconds: i32,
    /// The account that the genesis block rewards.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e"))]
    pub bootstrap_account: Option<String>,
}

/// What was last seen of a Chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ChainStatus {
    /// The ConfigMap that holds the keystore, in the namespace of the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<LocalReference>,
    /// The genesis miner, in the namespace of the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miner_ref: Option<LocalReference>,
    /// The generation of the spec that was last acted on.
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// What is known about the chain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// An object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LocalReference {
    /// The name of the object.
    pub name: String,
}

impl Kind for Chain {
    fn fill(&mut self) {
        if self.spec.miner_type.is_empty() {
            self.spec.miner_type = DEFAULT_MINER_TYPE.to_owned();
        }
        if self.spec.min_mine_interval_seconds <= 0 {
            self.spec.min_mine_interval_seconds = DEFAULT_MIN_MINE_INTERVAL_SECONDS;
        }
        if self.spec.bootstrap_account.as_deref().is_none_or(str::is_empty) {
            self.spec.bootstrap_account = Some(DEFAULT_BOOTSTRAP_ACCOUNT.to_owned());
        }
        self.status.get_or_insert_default();
    }

    fn check(&self, old: Option<&Self>) -> Vec<Invalid> {
        let mut wrong = Vec::new();
        if old.is_none() {
            wrong.extend(self.wrong_name().map(|why| Invalid::value("metadata.name", self.name_any(), why)));
            if self.metadata.namespace.as_deref() != Some(CHAIN_NAMESPACE) {
                wrong.push(Invalid::forbidden("metadata.namespace", format!("must be set to `{CHAIN_NAMESPACE}`")));
            }
        }
        wrong.extend(wrong_miner_type("spec.minerType", &self.spec.miner_type));
        if !self.spec.image.is_empty()
            && let Some(why) = image::not_a_reference(&self.spec.image)
        {
            wrong.push(Invalid::value("spec.image", self.spec.image.as_str(), why));
        }
        wrong
    }

    fn warn(&self) -> Vec<String> {
        // Only a Chain from before `check` asked for it has such a name: it lives on, without a genesis Service.
        let why = self.metadata.name.as_ref().and_then(|_| self.wrong_name());
        why.map(|why| format!("metadata.name: {why}")).into_iter().collect()
    }
}

impl Chain {
    /// The genesis Service has the name of the Chain, and Services are stricter about names than other objects are.
    fn wrong_name(&self) -> Option<String> {
        names::not_a_service_name(&self.name_any()).map(|why| format!("the genesis Service has this name, so {why}"))
    }
}

/// Types are a table of the controllers' settings, so that any plausible name is accepted here.
pub(crate) fn wrong_miner_type(field: &str, miner_type: &str) -> Option<Invalid> {
    if miner_type.is_empty() {
        return Some(Invalid::required(field, ""));
    }
    names::not_a_label_value(miner_type).map(|why| Invalid::value(field, miner_type, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(namespace: &str) -> Chain {
        let mut chain = Chain::new("genesis", ChainSpec::default());
        chain.metadata.namespace = Some(namespace.to_owned());
        chain
    }

    #[test]
    fn an_empty_chain_gets_every_default() {
        let mut chain = chain(CHAIN_NAMESPACE);
        chain.fill();
        assert_eq!(chain.spec.miner_type, "S1.SMALL2");
        assert_eq!(chain.spec.min_mine_interval_seconds, 43_200);
        assert_eq!(chain.spec.bootstrap_account.as_deref(), Some(DEFAULT_BOOTSTRAP_ACCOUNT));
        assert_eq!(chain.check(None), []);
    }

    #[test]
    fn what_the_user_wrote_stays() {
        let mut chain = chain(CHAIN_NAMESPACE);
        chain.spec.bootstrap_account = Some("0xabc".to_owned());
        chain.spec.min_mine_interval_seconds = 1;
        chain.fill();
        assert_eq!(chain.spec.bootstrap_account.as_deref(), Some("0xabc"));
        assert_eq!(chain.spec.min_mine_interval_seconds, 1);
    }

    #[test]
    fn a_chain_outside_kube_system_is_refused_on_create_only() {
        let mut chain = chain("default");
        chain.fill();
        let wrong = chain.check(None);
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].to_string(), "metadata.namespace: Forbidden: must be set to `kube-system`");
        assert_eq!(chain.check(Some(&chain)), []);
    }

    #[test]
    fn a_name_that_no_service_can_have_is_refused_on_create_only() {
        for name in ["a.b", "1st", "A", "", &"a".repeat(64)] {
            let mut chain = Chain { metadata: chain(CHAIN_NAMESPACE).metadata, ..Chain::default() };
            chain.metadata.name = Some(name.to_owned());
            chain.fill();
            let wrong = chain.check(None);
            assert_eq!(wrong.len(), 1, "{name}");
            assert_eq!(wrong[0].field, "metadata.name");
            assert!(wrong[0].message().contains("the genesis Service has this name, so "), "{}", wrong[0]);
            assert_eq!(chain.check(Some(&chain)), []);
            assert_eq!(chain.warn().len(), 1);
        }
        assert_eq!(chain(CHAIN_NAMESPACE).warn(), [""; 0]);
    }

    #[test]
    fn a_bad_image_is_refused_at_its_field() {
        let mut chain = chain(CHAIN_NAMESPACE);
        chain.spec.image = "Not An Image".to_owned();
        chain.fill();
        assert_eq!(chain.check(None)[0].field, "spec.image");
    }
}
