//! A Chain becomes a keystore and a genesis Miner, both named after it. It stays for as long as anybody uses it.

mod keystore;
mod users;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::Patch;
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use onex_crds::conditions::{self, CONFIG_MAPS_CREATED, DELETION_ALLOWED, MINERS_CREATED, MINERS_READY, READY};
use onex_crds::{Chain, ChainStatus, Condition, LocalReference, Miner, MinerSpec, Severity, names};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::context::{Context, News};
use crate::error::{Error, Result};
use crate::report::{self, difference, plain, post};
use crate::{is_paused, may_adopt, namespace};

/// How often a Chain that waits for others to go is looked at, besides when they go.
const IMPATIENCE: Duration = Duration::from_secs(15);

/// What there is of a Chain.
#[derive(Clone, Debug, Default)]
struct Seen {
    secret: Option<Secret>,
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
    /// It was ours, as its label says, and lost its owner.
    Adopt(Value),
    /// Somebody else has its name.
    Taken(String),
}

/// What came of one child: an error is told in a condition, and the pass is tried again.
type Outcome<K> = Result<Option<K>>;

/// One pass over one Chain.
pub(crate) async fn reconcile(chain: Arc<Chain>, context: Arc<Context>) -> Result<Action> {
    if is_paused(&*chain) {
        return Ok(Action::await_change());
    }
    if chain.metadata.deletion_timestamp.is_some() {
        return farewell(&chain, &context).await;
    }
    let mut seen = observe(&chain, &context).await?;
    let step = key(&chain, seen.secret.as_ref(), || keystore::secret(&chain, &SystemRandom::new()))?;
    let secret = act(&chain, "create the key of the Chain", step, seen.secret.take(), &context).await?;
    let address = secret.as_ref().ok().and_then(Option::as_ref).and_then(keystore::address);
    let plan = plan(&chain, &seen, address.as_deref());
    let chain = mark(&chain, plan.mark.as_ref(), &context).await?;
    let keystore = match secret {
        Ok(_) => act(&chain, "create the keystore", plan.keystore, seen.keystore, &context).await?,
        Err(why) => Err(why),
    };
    let genesis = act(&chain, "create the genesis Miner", plan.genesis, seen.genesis, &context).await?;
    let status = status(&chain, &keystore, &genesis, context.clock.now());
    report::status(&api(&chain, &context)?, &chain, &status).await?;
    keystore?;
    genesis?;
    Ok(context.settings.next_look(None))
}

async fn observe(chain: &Chain, context: &Context) -> Result<Seen> {
    let namespace = namespace(chain)?;
    let secrets: Api<Secret> = Api::namespaced(context.apiserver.clone(), namespace);
    let keystores: Api<ConfigMap> = Api::namespaced(context.apiserver.clone(), namespace);
    let miners: Api<Miner> = Api::namespaced(context.apiserver.clone(), namespace);
    Ok(Seen {
        secret: secrets.get_opt(&keystore::name(chain)).await.map_err(Error::doing("look for the key of the Chain"))?,
        keystore: keystores.get_opt(&keystore::name(chain)).await.map_err(Error::doing("look for the keystore"))?,
        genesis: miners.get_opt(&chain.name_any()).await.map_err(Error::doing("look for the genesis Miner"))?,
    })
}

/// What is to be done about the key: it is made once, and again only when it was lost.
fn key(chain: &Chain, secret: Option<&Secret>, fresh: impl FnOnce() -> Option<Secret>) -> Result<Step<Secret>> {
    let fresh = || fresh().ok_or(Error::Late { doing: "make a key for the Chain" });
    Ok(match secret {
        None => Step::Create(Box::new(fresh()?)),
        Some(there) if keystore::address(there).is_some() => claim(chain, there, json!({})),
        Some(there) => claim(chain, there, json!({"data": fresh()?.data})),
    })
}

/// What is to be done about everything else, when `address` is the account of the Chain.
fn plan(chain: &Chain, seen: &Seen, address: Option<&str>) -> Plan {
    let finalizer = names::FINALIZER_CHAIN.to_owned();
    let mark = (!chain.finalizers().contains(&finalizer)).then(|| {
        let finalizers: Vec<_> = chain.finalizers().iter().cloned().chain([finalizer]).collect();
        json!({"finalizers": finalizers})
    });
    let keystore = match (&seen.keystore, address.map(|address| keystore::public(chain, address))) {
        (_, None) => Step::Keep, // there is nothing to tell yet
        (None, Some(wanted)) => Step::Create(Box::new(wanted)),
        (Some(there), Some(wanted)) => {
            let content = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get(keystore::KEYSTORE)).cloned();
            let same = content(there) == content(&wanted);
            claim(chain, there, if same { json!({}) } else { json!({"data": wanted.data}) })
        }
    };
    let genesis = match &seen.genesis {
        None => Step::Create(Box::new(genesis(chain))),
        Some(there) => {
            let wanted = MinerSpec {
                chain_name: chain.name_any(),
                miner_type: chain.spec.miner_type.clone(),
                ..there.spec.clone()
            };
            let change = difference(&plain(&there.spec), &plain(&wanted)).map(|spec| json!({"spec": spec}));
            claim(chain, there, change.unwrap_or_else(|| json!({})))
        }
    };
    Plan { mark, keystore, genesis }
}

/// Ours stays, what lost its owner is adopted when its label says it was ours, and all else is somebody else's. What is
/// kept gets the `change`, and its labels back: we watch by them.
fn claim<K: Resource<DynamicType = ()>>(chain: &Chain, child: &K, mut change: Value) -> Step<K> {
    let wanted = labels(chain);
    if let Some(labels) = report::missing(child.labels(), &wanted) {
        change["metadata"]["labels"] = labels;
    }
    match child.owner_references().iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) if Some(&owner.uid) == chain.metadata.uid.as_ref() => {
            if change == json!({}) {
                Step::Keep
            } else {
                Step::Change(change)
            }
        }
        Some(owner) => Step::Taken(format!("{} {} controls it", owner.kind, owner.name)),
        None if child.labels().get(names::LABEL_CHAIN_NAME) == wanted.get(names::LABEL_CHAIN_NAME) => {
            let owners: Vec<OwnerReference> = child.owner_references().iter().cloned().chain(owner(chain)).collect();
            change["metadata"]["ownerReferences"] = json!(owners);
            change["metadata"]["resourceVersion"] = json!(child.resource_version());
            Step::Adopt(change)
        }
        None => Step::Taken("it does not belong to this chain".to_owned()),
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
        labels: Some(labels(chain)),
        owner_references: owner(chain).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn labels(chain: &Chain) -> BTreeMap<String, String> {
    let name = (names::LABEL_CHAIN_NAME.to_owned(), names::label_value(&chain.name_any()));
    [name].into_iter().chain(crate::watch_label(chain)).collect()
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
        .map_err(Error::changing("mark the Chain"))
}

/// Takes one step for one child and tells of it. Why there is no child becomes a condition; all else just stops the pass.
async fn act<K>(
    chain: &Chain,
    doing: &'static str,
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
    let change = async |patch: Value| {
        let name = seen.as_ref().map(ResourceExt::name_any).unwrap_or_default();
        let changed = children.patch(&name, &report::params(), &Patch::Merge(patch)).await;
        changed.map(|child| Ok(Some(child))).map_err(Error::changing("change a child of the Chain"))
    };
    match step {
        Step::Keep => Ok(Ok(seen)),
        Step::Taken(by) => Ok(Err(Error::Taken { doing, by })),
        Step::Change(patch) => change(patch).await,
        Step::Adopt(patch) => {
            may_adopt(&api(chain, context)?, chain).await?;
            change(patch).await
        }
        Step::Create(child) => match children.create(&post(), &child).await.map_err(Error::doing(doing)) {
            Ok(child) => {
                let note = format!("created {} {}", K::kind(&()), child.name_any());
                context.tell(&me, &News::normal("SuccessfulCreate", note).about(child.object_ref(&()))).await;
                Ok(Ok(Some(child)))
            }
            Err(error) if error.is_stale() => Err(error),
            Err(error) => {
                context.tell(&me, &News::warning("FailedCreate", error.story())).await;
                Ok(Err(error))
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
        Err(why) => Condition::no(type_, Severity::Error, reason, why.story()),
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

/// Lets a Chain that is being deleted go, when nobody uses it any more. Until then it says who does.
async fn farewell(chain: &Chain, context: &Context) -> Result<Action> {
    if !chain.finalizers().iter().any(|name| name == names::FINALIZER_CHAIN) {
        return Ok(Action::await_change());
    }
    let Some(users) = users::of(chain, context).await? else { return release(chain, context).await };
    let mut status = chain.status.clone().unwrap_or_default();
    let waits = Condition::no(DELETION_ALLOWED, Severity::Info, conditions::REASON_IN_USE, users);
    conditions::set(&mut status.conditions, waits, context.clock.now());
    report::status(&api(chain, context)?, chain, &status).await?;
    Ok(Action::requeue(IMPATIENCE))
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

    const ACCOUNT: &str = "0xabc";

    fn settled(chain: &Chain) -> Seen {
        Seen {
            secret: keystore::secret(chain, &SystemRandom::new()),
            keystore: Some(keystore::public(chain, ACCOUNT)),
            genesis: Some(genesis(chain)),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    #[test]
    fn a_new_chain_is_marked_and_gets_a_keystore_and_a_genesis_of_its_name() {
        let plan = plan(&chain(), &Seen::default(), Some(ACCOUNT));
        assert_eq!(plan.mark, Some(json!({"finalizers": ["chain.onex.io/finalizer"]})));
        let (Step::Create(keystore), Step::Create(genesis)) = (plan.keystore, plan.genesis) else {
            panic!("both are missing")
        };
        assert_eq!(keystore.name_any(), "genesis-keystore");
        assert_eq!(keystore.data.unwrap()["keystore.json"], r#"{"address":"0xabc","secretName":"genesis-keystore"}"#);
        assert_eq!(genesis.name_any(), "genesis");
        assert_eq!(genesis.spec.miner_type, "S1.SMALL2");
        assert_eq!(genesis.labels()["apps.onex.io/chain-name"], "genesis");
        assert_eq!(genesis.genesis_of(), Some("genesis"));
    }

    #[test]
    fn b6_every_chain_has_a_key_of_its_own_in_a_secret_and_only_its_account_in_the_config_map() {
        let fresh = || keystore::secret(&chain(), &SystemRandom::new());
        let (one, two) = (fresh().unwrap(), fresh().unwrap());
        let account = keystore::address(&one).unwrap();
        assert_ne!(Some(&account), keystore::address(&two).as_ref());
        assert!(account.starts_with("0x") && account.len() == 42, "{account}");
        assert_ne!(account, onex_crds::chain::DEFAULT_BOOTSTRAP_ACCOUNT);
        let told = keystore::public(&chain(), &account).data.unwrap();
        assert_eq!(told["keystore.json"], format!(r#"{{"address":"{account}","secretName":"genesis-keystore"}}"#));
        assert_eq!(told.len(), 1);
        // What is there stays, and what was lost is made again.
        assert_eq!(key(&chain(), Some(&one), || panic!("it has one")).unwrap(), Step::Keep);
        let mut lost = one;
        lost.data = None;
        assert!(matches!(key(&chain(), Some(&lost), fresh).unwrap(), Step::Change(_)));
    }

    #[test]
    fn a_config_map_that_says_something_else_is_mended() {
        let chain = chain();
        let mut seen = settled(&chain);
        seen.keystore.as_mut().unwrap().data = None;
        let Step::Change(patch) = plan(&chain, &seen, Some(ACCOUNT)).keystore else { panic!("it is mended") };
        assert!(patch["data"]["keystore.json"].as_str().unwrap().contains(ACCOUNT));
    }

    #[test]
    fn a_settled_chain_is_left_alone() {
        let mut chain = chain();
        chain.metadata.finalizers = Some(vec![names::FINALIZER_CHAIN.to_owned()]);
        assert_eq!(plan(&chain, &settled(&chain), Some(ACCOUNT)), Plan::default());
    }

    #[test]
    fn a_miner_with_the_label_but_another_owner_does_not_count_as_genesis() {
        let chain = chain();
        let mut seen = settled(&chain);
        seen.genesis.as_mut().unwrap().metadata.owner_references.as_mut().unwrap()[0].uid = "old-uid".to_owned();
        assert_eq!(plan(&chain, &seen, Some(ACCOUNT)).genesis, Step::Taken("Chain genesis controls it".to_owned()));
    }

    #[test]
    fn a_child_that_lost_its_owner_is_adopted_and_a_stranger_is_not() {
        let chain = chain();
        let mut seen = settled(&chain);
        seen.genesis.as_mut().unwrap().metadata.owner_references = None;
        seen.keystore.as_mut().unwrap().metadata.owner_references = None;
        seen.keystore.as_mut().unwrap().metadata.labels = None;
        let plan = plan(&chain, &seen, Some(ACCOUNT));
        let Step::Adopt(patch) = plan.genesis else { panic!("it is adopted") };
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "chain-uid");
        assert!(matches!(plan.keystore, Step::Taken(_)));
    }

    #[test]
    fn a_child_that_lost_its_label_gets_it_back_and_with_it_that_of_its_watchers() {
        let mut chain = chain();
        let mut seen = settled(&chain);
        seen.keystore.as_mut().unwrap().metadata.labels = None;
        let labels = json!({"apps.onex.io/chain-name": "genesis"});
        assert_eq!(plan(&chain, &seen, Some(ACCOUNT)).keystore, Step::Change(json!({"metadata": {"labels": labels}})));
        chain.labels_mut().insert(names::LABEL_WATCH_FILTER.to_owned(), "blue".to_owned());
        let labels = json!({"apps.onex.io/watch-filter": "blue"});
        assert_eq!(plan(&chain, &seen, Some(ACCOUNT)).genesis, Step::Change(json!({"metadata": {"labels": labels}})));
        assert_eq!(keystore::public(&chain, ACCOUNT).labels()["apps.onex.io/watch-filter"], "blue");
        assert_eq!(genesis(&chain).labels()["apps.onex.io/watch-filter"], "blue");
    }

    #[test]
    fn a_change_of_the_miner_type_reaches_the_genesis() {
        let mut chain = chain();
        let seen = settled(&chain);
        chain.spec.miner_type = "M1.MEDIUM1".to_owned();
        assert_eq!(
            plan(&chain, &seen, Some(ACCOUNT)).genesis,
            Step::Change(json!({"spec": {"minerType": "M1.MEDIUM1"}}))
        );
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
        let taken = Error::Taken { doing: "create the genesis Miner", by: "Chain old controls it".to_owned() };
        let status = status(&chain, &Ok(None), &Err(taken), now());
        let ready = conditions::get(&status.conditions, READY).unwrap();
        assert_eq!(ready.reason, "MinerCreationFailed");
        assert_eq!(
            ready.message,
            "could not create the genesis Miner, because its name is taken: Chain old controls it"
        );
        assert_eq!(status.observed_generation, 0);
    }

    #[tokio::test]
    async fn a_chain_that_went_after_it_was_seen_adopts_nobody() {
        let (client, _stop) = crate::tests::a_platform().await;
        let miners = Api::<Miner>::namespaced(client.clone(), "kube-system");
        let mut seen = chain();
        seen.metadata.finalizers = Some(vec![names::FINALIZER_CHAIN.to_owned()]);
        let mut orphan = genesis(&seen);
        orphan.metadata.owner_references = None;
        miners.create(&post(), &orphan).await.unwrap();
        let clock = Arc::new(crate::context::SystemClock);
        let context = Arc::new(Context::new(Default::default(), client, None, clock));
        assert!(reconcile(Arc::new(seen), context).await.unwrap_err().is_stale());
        assert_eq!(miners.get("genesis").await.unwrap().controller(), None);
    }

    /// Chains whose children could not be made were looked at every two seconds for ever, and told of it each time.
    #[tokio::test]
    async fn why_a_child_cannot_be_made_is_written_before_the_pass_fails_and_is_tried_again_later_each_time() {
        let (client, _stop) = crate::tests::a_platform().await;
        let chains = Api::<Chain>::namespaced(client.clone(), "kube-system");
        let chain = chains.create(&post(), &Chain::new("genesis", ChainSpec::default())).await.unwrap();
        let metadata = ObjectMeta { name: Some(keystore::name(&chain)), ..ObjectMeta::default() };
        let strangers = ConfigMap { metadata, ..ConfigMap::default() };
        Api::namespaced(client.clone(), "kube-system").create(&post(), &strangers).await.unwrap();
        let clock = Arc::new(crate::context::SystemClock);
        let context = Arc::new(Context::new(Default::default(), client, None, clock));
        let error = reconcile(Arc::new(chain), context).await.unwrap_err();
        let told = chains.get("genesis").await.unwrap().status.unwrap().conditions;
        assert_eq!(conditions::get(&told, CONFIG_MAPS_CREATED).unwrap().message, error.story());
    }
}
