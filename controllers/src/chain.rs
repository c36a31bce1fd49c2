//! A Chain becomes a keystore and a genesis Miner, both named after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use onex_crds::conditions::{self, CONFIG_MAPS_CREATED, MINERS_CREATED, MINERS_READY, READY};
use onex_crds::{Chain, ChainStatus, Condition, LocalReference, Miner, MinerSpec, Severity, names};
use serde_json::{Value, json};

use crate::context::{Context, News};
use crate::error::{Error, Result};
use crate::report::{self, difference, plain};
use crate::{is_paused, namespace};

/// The key of the keystore in its ConfigMap.
const KEYSTORE: &str = "keystore.json";

/// What there is of a Chain.
#[derive(Clone, Debug, Default)]
struct Seen {
    keystore: Option<ConfigMap>,
    genesis: Option<Miner>,
}

/// What is to be done about it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plan {
    /// Metadata of the Chain to be merged: its finalizers.
    mark: Option<Value>,
    keystore: Step<ConfigMap>,
    genesis: Step<Miner>,
}

/// What is to be done about one child.
#[derive(Clone, Debug, Default, PartialEq)]
enum Step<K> {
    /// It is as it should be.
    #[default]
    Keep,
    /// It is not there.
    Create(Box<K>),
    /// It is ours, and not quite as it should be.
    Change(Value),
    /// Somebody else has its name.
    Taken(String),
}

/// What came of one child: an error is told and tried again.
type Outcome<K> = Result<Option<K>, String>;

/// One pass over one Chain.
pub(crate) async fn reconcile(chain: Arc<Chain>, context: Arc<Context>) -> Result<Action> {
    if is_paused(&*chain) {
        return Ok(Action::await_change());
    }
    if chain.metadata.deletion_timestamp.is_some() {
        return release(&chain, &context).await;
    }
    let seen = observe(&chain, &context).await?;
    let plan = plan(&chain, &seen);
    let chain = mark(&chain, plan.mark.as_ref(), &context).await?;
    let keystore = act(&chain, "keystore ConfigMap", plan.keystore, seen.keystore, &context).await?;
    let genesis = act(&chain, "genesis Miner", plan.genesis, seen.genesis, &context).await?;
    let failed = keystore.is_err() || genesis.is_err();
    let status = status(&chain, &keystore, &genesis, context.clock.now());
    report::status(&api(&chain, &context)?, &chain, &status).await?;
    // Whatever holds a name is on its way out, or somebody has to act: neither is worth a hurry.
    Ok(Action::requeue(if failed { std::time::Duration::from_secs(2) } else { context.settings.resync() }))
}

async fn observe(chain: &Chain, context: &Context) -> Result<Seen> {
    let namespace = namespace(chain)?;
    let keystores: Api<ConfigMap> = Api::namespaced(context.apiserver.clone(), namespace);
    let miners: Api<Miner> = Api::namespaced(context.apiserver.clone(), namespace);
    Ok(Seen {
        keystore: keystores.get_opt(&keystore_name(chain)).await.map_err(Error::doing("look for the keystore"))?,
        genesis: miners.get_opt(&chain.name_any()).await.map_err(Error::doing("look for the genesis Miner"))?,
    })
}

fn plan(chain: &Chain, seen: &Seen) -> Plan {
    let finalizer = names::FINALIZER_CHAIN.to_owned();
    let mark = (!chain.finalizers().contains(&finalizer)).then(|| {
        let finalizers: Vec<_> = chain.finalizers().iter().cloned().chain([finalizer]).collect();
        json!({"finalizers": finalizers})
    });
    let keystore = match &seen.keystore {
        None => Step::Create(Box::new(keystore(chain))),
        // What is in it was generated once and stays.
        Some(there) => claim(chain, there, || None),
    };
    let genesis = match &seen.genesis {
        None => Step::Create(Box::new(genesis(chain))),
        Some(there) => claim(chain, there, || {
            let wanted = MinerSpec {
                chain_name: chain.name_any(),
                miner_type: chain.spec.miner_type.clone(),
                ..there.spec.clone()
            };
            difference(&plain(&there.spec), &plain(&wanted)).map(|spec| json!({"spec": spec}))
        }),
    };
    Plan { mark, keystore, genesis }
}

/// Ours stays, what lost its owner is adopted when its label says it was ours, and all else is somebody else's.
fn claim<K: Resource<DynamicType = ()>>(chain: &Chain, child: &K, change: impl FnOnce() -> Option<Value>) -> Step<K> {
    match child.owner_references().iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) if Some(&owner.uid) == chain.metadata.uid.as_ref() => change().map_or(Step::Keep, Step::Change),
        Some(owner) => Step::Taken(format!("{} {} controls it", owner.kind, owner.name)),
        None if child.labels().get(names::LABEL_CHAIN_NAME) == Some(&names::label_value(&chain.name_any())) => {
            let mut patch = change().unwrap_or_else(|| json!({}));
            let owners: Vec<OwnerReference> = child.owner_references().iter().cloned().chain(owner(chain)).collect();
            patch["metadata"] = json!({"resourceVersion": child.resource_version(), "ownerReferences": owners});
            Step::Change(patch)
        }
        None => Step::Taken("it does not belong to this chain".to_owned()),
    }
}

fn keystore_name(chain: &Chain) -> String {
    // Deterministic, so that a stale view collides instead of making a second one.
    format!("{}-keystore", chain.name_any())
}

fn keystore(chain: &Chain) -> ConfigMap {
    let address = chain.spec.bootstrap_account.as_deref().unwrap_or(onex_crds::chain::DEFAULT_BOOTSTRAP_ACCOUNT);
    let content = json!({"address": address}).to_string();
    ConfigMap {
        metadata: child(chain, keystore_name(chain)),
        data: Some(BTreeMap::from([(KEYSTORE.to_owned(), content)])),
        ..ConfigMap::default()
    }
}

fn genesis(chain: &Chain) -> Miner {
    let spec =
        MinerSpec { chain_name: chain.name_any(), miner_type: chain.spec.miner_type.clone(), ..MinerSpec::default() };
    Miner { metadata: child(chain, chain.name_any()), spec, status: None }
}

fn child(chain: &Chain, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: chain.namespace(),
        labels: Some(BTreeMap::from([(names::LABEL_CHAIN_NAME.to_owned(), names::label_value(&chain.name_any()))])),
        owner_references: owner(chain).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn owner(chain: &Chain) -> Option<OwnerReference> {
    let owner = chain.controller_owner_ref(&())?;
    Some(OwnerReference { block_owner_deletion: Some(true), ..owner })
}

async fn mark(chain: &Chain, mark: Option<&Value>, context: &Context) -> Result<Chain> {
    let Some(mark) = mark else { return Ok(chain.clone()) };
    let mut mark = mark.clone();
    mark["resourceVersion"] = json!(chain.resource_version());
    let patch = Patch::Merge(json!({"metadata": mark}));
    api(chain, context)?
        .patch(&chain.name_any(), &report::params(), &patch)
        .await
        .map_err(Error::doing("mark the Chain"))
}

/// Takes one step for one child and tells of it. What the apiserver refuses becomes a condition, not an error.
async fn act<K>(
    chain: &Chain,
    noun: &'static str,
    step: Step<K>,
    seen: Option<K>,
    context: &Context,
) -> Result<Outcome<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let children: Api<K> = Api::namespaced(context.apiserver.clone(), namespace(chain)?);
    let me = chain.object_ref(&());
    match step {
        Step::Keep => Ok(Ok(seen)),
        Step::Taken(by) => Ok(Err(format!("the name of the {noun} is taken: {by}"))),
        Step::Change(patch) => {
            let name = seen.as_ref().map(ResourceExt::name_any).unwrap_or_default();
            let changed = children.patch(&name, &report::params(), &Patch::Merge(patch)).await;
            changed.map(|child| Ok(Some(child))).map_err(Error::doing("change a child of the Chain"))
        }
        Step::Create(child) => match children.create(&post(), &child).await {
            Ok(child) => {
                let news = News::normal("SuccessfulCreate", format!("created {noun} {}", child.name_any()));
                context.tell(&me, &news.about(child.object_ref(&()))).await;
                Ok(Ok(Some(child)))
            }
            Err(error) => {
                let why = format!("could not create {noun} {}: {error}", child.name_any());
                context.tell(&me, &News::warning("FailedCreate", why.as_str())).await;
                Ok(Err(why))
            }
        },
    }
}

/// What is said of a Chain whose children are these.
fn status(chain: &Chain, keystore: &Outcome<ConfigMap>, genesis: &Outcome<Miner>, now: Timestamp) -> ChainStatus {
    let old = chain.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone();
    let created = [
        made(CONFIG_MAPS_CREATED, conditions::REASON_CONFIG_MAP_CREATION_FAILED, keystore),
        made(MINERS_CREATED, conditions::REASON_MINER_CREATION_FAILED, genesis),
        ready(genesis.as_ref().ok().and_then(Option::as_ref)),
    ];
    for condition in created {
        conditions::set(&mut conditions, condition, now);
    }
    if let Some(sum) = conditions::summary(&conditions, &[CONFIG_MAPS_CREATED, MINERS_CREATED, MINERS_READY]) {
        conditions::set(&mut conditions, sum, now);
    }
    let settled = keystore.is_ok() && genesis.is_ok();
    ChainStatus {
        config_map_ref: reference(keystore),
        miner_ref: reference(genesis),
        observed_generation: if settled {
            chain.metadata.generation.unwrap_or_default()
        } else {
            old.observed_generation
        },
        conditions,
    }
}

fn reference<K: ResourceExt>(child: &Outcome<K>) -> Option<LocalReference> {
    child.as_ref().ok()?.as_ref().map(|child| LocalReference { name: child.name_any() })
}

fn made<K>(type_: &str, reason: &str, child: &Outcome<K>) -> Condition {
    match child {
        Ok(_) => Condition::yes(type_),
        Err(why) => Condition::no(type_, Severity::Error, reason, why.as_str()),
    }
}

fn ready(genesis: Option<&Miner>) -> Condition {
    let theirs = genesis.and_then(|genesis| conditions::get(genesis.conditions(), READY));
    let name = genesis.map(ResourceExt::name_any).unwrap_or_default();
    conditions::aggregate(MINERS_READY, "Miner", theirs.map(|theirs| (name.as_str(), theirs))).unwrap_or_else(|| {
        Condition::no(
            MINERS_READY,
            Severity::Info,
            conditions::REASON_GENESIS_NOT_READY,
            "the genesis Miner is not ready yet",
        )
    })
}

/// Lets go of a Chain that is being deleted. Its children go by their owner references.
async fn release(chain: &Chain, context: &Context) -> Result<Action> {
    let left: Vec<_> = chain.finalizers().iter().filter(|name| *name != names::FINALIZER_CHAIN).collect();
    if left.len() < chain.finalizers().len() {
        let patch = json!({"metadata": {"resourceVersion": chain.resource_version(), "finalizers": left}});
        let released = api(chain, context)?.patch(&chain.name_any(), &report::params(), &Patch::Merge(patch)).await;
        if let Err(error) = released
            && !crate::error::is_gone(&error)
        {
            return Err(Error::doing("release the Chain")(error));
        }
    }
    Ok(Action::await_change())
}

fn api(chain: &Chain, context: &Context) -> Result<Api<Chain>> {
    Ok(Api::namespaced(context.apiserver.clone(), namespace(chain)?))
}

fn post() -> PostParams {
    PostParams { field_manager: report::params().field_manager, ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onex_crds::{ChainSpec, Kind, Truth};

    fn chain() -> Chain {
        let mut chain = Chain::new("genesis", ChainSpec::default());
        chain.metadata.namespace = Some("kube-system".to_owned());
        chain.metadata.uid = Some("chain-uid".to_owned());
        chain.metadata.generation = Some(1);
        chain.fill();
        chain
    }

    fn settled(chain: &Chain) -> Seen {
        Seen { keystore: Some(keystore(chain)), genesis: Some(genesis(chain)) }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    #[test]
    fn a_new_chain_is_marked_and_gets_a_keystore_and_a_genesis_of_its_name() {
        let plan = plan(&chain(), &Seen::default());
        assert_eq!(plan.mark, Some(json!({"finalizers": ["chain.onex.io/finalizer"]})));
        let (Step::Create(keystore), Step::Create(genesis)) = (plan.keystore, plan.genesis) else {
            panic!("both are missing")
        };
        assert_eq!(keystore.name_any(), "genesis-keystore");
        assert_eq!(
            keystore.data.unwrap()["keystore.json"],
            r#"{"address":"0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e"}"#
        );
        assert_eq!(genesis.name_any(), "genesis");
        assert_eq!(genesis.spec.miner_type, "S1.SMALL2");
        assert_eq!(genesis.labels()["apps.onex.io/chain-name"], "genesis");
        assert_eq!(genesis.genesis_of(), Some("genesis"));
    }

    #[test]
    fn a_settled_chain_is_left_alone() {
        let mut chain = chain();
        chain.metadata.finalizers = Some(vec![names::FINALIZER_CHAIN.to_owned()]);
        assert_eq!(plan(&chain, &settled(&chain)), Plan::default());
    }

    #[test]
    fn a_miner_with_the_label_but_another_owner_does_not_count_as_genesis() {
        let chain = chain();
        let mut seen = settled(&chain);
        seen.genesis.as_mut().unwrap().metadata.owner_references.as_mut().unwrap()[0].uid = "old-uid".to_owned();
        assert_eq!(plan(&chain, &seen).genesis, Step::Taken("Chain genesis controls it".to_owned()));
    }

    #[test]
    fn a_child_that_lost_its_owner_is_adopted_and_a_stranger_is_not() {
        let chain = chain();
        let mut seen = settled(&chain);
        seen.genesis.as_mut().unwrap().metadata.owner_references = None;
        seen.keystore.as_mut().unwrap().metadata.owner_references = None;
        seen.keystore.as_mut().unwrap().metadata.labels = None;
        let plan = plan(&chain, &seen);
        let Step::Change(patch) = plan.genesis else { panic!("it is adopted") };
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "chain-uid");
        assert!(matches!(plan.keystore, Step::Taken(_)));
    }

    #[test]
    fn a_change_of_the_miner_type_reaches_the_genesis() {
        let mut chain = chain();
        let seen = settled(&chain);
        chain.spec.miner_type = "M1.MEDIUM1".to_owned();
        assert_eq!(plan(&chain, &seen).genesis, Step::Change(json!({"spec": {"minerType": "M1.MEDIUM1"}})));
    }

    #[test]
    fn references_are_filled_from_what_is_seen_also_when_a_status_was_lost() {
        let chain = chain();
        let seen = settled(&chain);
        let status = status(&chain, &Ok(seen.keystore), &Ok(seen.genesis), now());
        assert_eq!(status.miner_ref.unwrap().name, "genesis");
        assert_eq!(status.config_map_ref.unwrap().name, "genesis-keystore");
        assert_eq!(status.observed_generation, 1);
        assert!(conditions::is_true(&status.conditions, CONFIG_MAPS_CREATED));
        assert!(conditions::is_true(&status.conditions, MINERS_CREATED));
        let ready = conditions::get(&status.conditions, READY).unwrap();
        assert_eq!((ready.status, ready.reason.as_str()), (Truth::False, "GenesisNotReady"));
    }

    #[test]
    fn a_chain_is_ready_when_its_genesis_is() {
        let chain = chain();
        let mut seen = settled(&chain);
        let genesis = seen.genesis.as_mut().unwrap();
        genesis.fill();
        conditions::set(&mut genesis.status.as_mut().unwrap().conditions, Condition::yes(READY), now());
        let status = status(&chain, &Ok(seen.keystore), &Ok(seen.genesis), now());
        assert!(conditions::is_true(&status.conditions, READY));
    }

    #[test]
    fn a_failure_is_a_condition_and_the_generation_is_not_observed() {
        let chain = chain();
        let status = status(&chain, &Ok(None), &Err("no".to_owned()), now());
        assert_eq!(conditions::get(&status.conditions, READY).unwrap().reason, "MinerCreationFailed");
        assert_eq!(status.observed_generation, 0);
    }
}
