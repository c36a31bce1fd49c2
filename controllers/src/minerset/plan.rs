//! What is to be done so that a set has the Miners it should have. Pure: what was seen goes in, what to do comes out.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use onex_crds::conditions::{self, OWNER_REMEDIATED, POD_HEALTHY};
use onex_crds::{Miner, MinerSet, names};
use serde_json::{Map, Value, json};

use super::rank;
use crate::MinerType;
use crate::report::{difference, missing, plain};

/// What there is of a set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Whether the Chain that the Miners should join is there.
    pub chain: bool,
    /// What Miners of the template's type get; nothing when the type is in no table.
    pub share: Option<MinerType>,
    /// The Miners that the selector finds, whoever controls them.
    pub miners: Vec<Arc<Miner>>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// A merge patch of the set's metadata.
    pub mark: Option<Value>,
    /// Merge patches of Miners, by name: adoptions and template changes.
    pub change: Vec<(String, Value)>,
    /// Miners to adopt; each is also in `change`.
    pub adopt: BTreeSet<String>,
    /// Slots for which a Miner is to be created.
    pub create: Vec<usize>,
    /// Slots to use instead when the name of one in `create` turns out to be taken by a stranger.
    pub spare: Vec<usize>,
    /// Miners to delete.
    pub delete: Vec<String>,
    /// Those of them whose health check asked for it.
    pub remediate: BTreeSet<String>,
    /// Whether this was a part of the work, and the next part can follow at once.
    pub more: bool,
}

/// How many names of strangers a set of few Miners gets past at least.
const SPARE: usize = 64;

/// What is to be done for `set`, at most `batch` Miners at a time.
pub(crate) fn plan(set: &MinerSet, seen: &Seen, batch: usize, now: Timestamp) -> Plan {
    let (claimed, adopt) = claim(set, &seen.miners);
    let remediate = remediate(&claimed);
    let change = changes(set, &claimed, &adopt, seen.share.is_some());
    let mut plan = Plan { mark: mark(set), change, adopt, ..Plan::default() };
    let wanted = usize::try_from(set.replicas()).unwrap_or_default();
    if claimed.len() < wanted {
        if seen.chain && seen.share.is_some() && !set.annotations().contains_key(names::ANNOTATION_DISABLE_MINER_CREATE)
        {
            let missing = wanted - claimed.len();
            (plan.create, plan.spare) = slots(set, &seen.miners, missing.min(batch));
            plan.more = missing > batch;
        }
    } else {
        let going = rank::order(set.spec.delete_policy(), &claimed, now).into_iter().take(claimed.len() - wanted);
        let mut going: Vec<String> = going.filter(|miner| !is_deleting(*miner)).map(ResourceExt::name_any).collect();
        plan.more = going.len() > batch;
        going.truncate(batch);
        plan.delete = going;
    }
    plan.delete.extend(remediate.iter().filter(|name| !plan.delete.contains(name)).cloned().collect::<Vec<_>>());
    plan.remediate = remediate;
    plan
}

/// The Miners of the set: those it controls, and those nobody controls, which are to be adopted. Others' are left alone.
pub(crate) fn claim(set: &MinerSet, miners: &[Arc<Miner>]) -> (Vec<Arc<Miner>>, BTreeSet<String>) {
    let mut claimed = Vec::new();
    let mut adopt = BTreeSet::new();
    for miner in miners {
        match miner.controller() {
            Some(owner) if Some(&owner.uid) == set.metadata.uid.as_ref() => claimed.push(miner.clone()),
            None if !is_deleting(&**miner) => {
                adopt.insert(miner.name_any());
                claimed.push(miner.clone());
            }
            _ => {}
        }
    }
    (claimed, adopt)
}

/// The Miner for one slot of the set.
pub(crate) fn child(set: &MinerSet, slot: usize, share: Option<&MinerType>) -> Miner {
    let template = &set.spec.template;
    // With what its controller would write on it first, so that it does not have to.
    let mut annotations = template.metadata.annotations.clone();
    annotations.extend(share.into_iter().flat_map(crate::miner::share));
    Miner {
        metadata: ObjectMeta {
            name: Some(child_name(set, slot)),
            namespace: set.namespace(),
            labels: Some(labels(set)),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: owner(set).map(|owner| vec![owner]),
            finalizers: Some(vec![names::FINALIZER_MINER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Whether the Miner works, as far as this generation of its spec goes.
pub(crate) fn is_ready(miner: &Miner) -> bool {
    miner
        .status
        .as_ref()
        .is_some_and(|status| status.pod_ref.is_some() && conditions::is_true(&status.conditions, POD_HEALTHY))
}

pub(crate) fn is_deleting<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

// Names are deterministic so that acting twice on a stale view collides instead of doubling.
fn child_name(set: &MinerSet, slot: usize) -> String {
    format!("{}-{slot}", set.name_any())
}

/// The smallest free slots: as many as needed, and at least as many again to fall back on.
fn slots(set: &MinerSet, miners: &[Arc<Miner>], needed: usize) -> (Vec<usize>, Vec<usize>) {
    let prefix = format!("{}-", set.name_any());
    let slot = |miner: &Arc<Miner>| slot_of(&prefix, miner.metadata.name.as_deref()?);
    let taken: HashSet<usize> = miners.iter().filter_map(slot).collect();
    let mut free = (0..).filter(|slot| !taken.contains(slot));
    (free.by_ref().take(needed).collect(), free.take(needed.max(SPARE)).collect())
}

/// The slot that a name stands for, if it is the one that [`child_name`] gives it.
fn slot_of(prefix: &str, name: &str) -> Option<usize> {
    let digits = name.strip_prefix(prefix)?;
    let canonical = digits == "0" || !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|_| canonical)
}

fn owner(set: &MinerSet) -> Option<OwnerReference> {
    let owner = set.controller_owner_ref(&())?;
    Some(OwnerReference { block_owner_deletion: Some(true), ..owner })
}

fn labels(set: &MinerSet) -> BTreeMap<String, String> {
    let mut labels = set.spec.template.metadata.labels.clone();
    labels.insert(names::LABEL_MINERSET_NAME.to_owned(), names::label_value(&set.name_any()));
    labels.extend(crate::watch_label(set));
    labels
}

/// A set carries the name of its Chain, so that people can select by it.
fn mark(set: &MinerSet) -> Option<Value> {
    let chain = names::label_value(&set.spec.template.spec.chain_name);
    (set.labels().get(names::LABEL_CHAIN_NAME) != Some(&chain))
        .then(|| json!({"labels": {names::LABEL_CHAIN_NAME: chain}}))
}

/// Miners whose health check asks their owner for another one.
fn remediate(claimed: &[Arc<Miner>]) -> BTreeSet<String> {
    claimed
        .iter()
        .filter(|miner| {
            !is_deleting(&***miner) && !miner.annotations().contains_key(names::ANNOTATION_SKIP_REMEDIATION)
        })
        .filter(|miner| conditions::is_false(miner.conditions(), OWNER_REMEDIATED))
        .map(|miner| miner.name_any())
        .collect()
}

/// The template passed on to the Miners that are there.
///
/// A change that replaces a Pod reaches one working Miner at a time, and the next one only when all that have it work again;
/// Miners that do not work lose nothing and get it at once. A type that is in no table reaches nobody.
fn changes(
    set: &MinerSet,
    claimed: &[Arc<Miner>],
    adopt: &BTreeSet<String>,
    type_is_known: bool,
) -> Vec<(String, Value)> {
    let living: Vec<&Miner> = claimed.iter().map(|miner| &**miner).filter(|miner| !is_deleting(*miner)).collect();
    let labels = labels(set);
    let mut may_disturb =
        type_is_known && living.iter().filter(|miner| !is_replaced_by(set, miner)).all(|miner| is_settled(miner));
    let mut changes = Vec::new();
    for miner in living {
        let lacks_nothing = !is_ready(miner) && type_is_known;
        let whole = !is_replaced_by(set, miner) || lacks_nothing || std::mem::take(&mut may_disturb);
        let adopt = !adopt.is_empty() && adopt.contains(&miner.name_any());
        let change = change(set, miner, &labels, whole, adopt);
        changes.extend(change.map(|change| (miner.name_any(), change)));
    }
    changes
}

/// Whether the template's spec, once passed on, makes the Miner replace its Pod.
fn is_replaced_by(set: &MinerSet, miner: &Miner) -> bool {
    !crate::miner::pod::is_made_from_the_same(&set.spec.template.spec, &miner.spec)
}

/// Whether the Miner works, and what it works by is its present spec.
fn is_settled(miner: &Miner) -> bool {
    let observed = miner.status.as_ref().map_or(0, |status| status.observed_generation);
    is_ready(miner) && observed >= miner.metadata.generation.unwrap_or_default()
}

/// The merge patch that makes the Miner as the template says; without `whole`, its spec is left for later.
fn change(set: &MinerSet, miner: &Miner, labels: &BTreeMap<String, String>, whole: bool, adopt: bool) -> Option<Value> {
    let mut metadata = Map::new();
    let annotations = &set.spec.template.metadata.annotations;
    metadata.extend(missing(miner.labels(), labels).map(|labels| ("labels".to_owned(), labels)));
    metadata
        .extend(missing(miner.annotations(), annotations).map(|annotations| ("annotations".to_owned(), annotations)));
    if adopt {
        let owners: Vec<OwnerReference> = miner.owner_references().iter().cloned().chain(owner(set)).collect();
        metadata.insert("ownerReferences".to_owned(), plain(&owners));
        // Owners are one list: if somebody else adopted it meanwhile, theirs must not be lost.
        metadata.insert("resourceVersion".to_owned(), json!(miner.resource_version()));
    }
    let mut patch = Map::new();
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    // Comparing them is cheap, and nearly always all there is to do.
    if whole && miner.spec != set.spec.template.spec {
        let spec = difference(&plain(&miner.spec), &plain(&set.spec.template.spec));
        patch.extend(spec.map(|spec| ("spec".to_owned(), spec)));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minerset::tests::{healthy, minerset, second};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use onex_crds::{Condition, Severity};
    use proptest::prelude::*;

    fn share() -> MinerType {
        MinerType::new("50m", "128Mi", 7)
    }

    fn seen(miners: Vec<Miner>) -> Seen {
        Seen { chain: true, share: Some(share()), miners: miners.into_iter().map(Arc::new).collect() }
    }

    fn children(set: &MinerSet, slots: impl IntoIterator<Item = usize>) -> Vec<Miner> {
        slots.into_iter().map(|slot| Miner { status: healthy("").status, ..child(set, slot, Some(&share())) }).collect()
    }

    fn planned(set: &MinerSet, seen: &Seen) -> Plan {
        plan(set, seen, 30, second(1_000))
    }

    #[test]
    fn an_empty_set_fills_its_smallest_slots() {
        let plan = planned(&minerset(3), &seen(Vec::new()));
        assert_eq!(plan.create, [0, 1, 2]);
        assert_eq!(plan.delete, [""; 0]);
        assert!(!plan.more);
    }

    #[test]
    fn a_gap_is_filled_before_a_new_slot_is_opened() {
        let set = minerset(4);
        let plan = planned(&set, &seen(children(&set, [0, 2])));
        assert_eq!(plan.create, [1, 3]);
        assert_eq!(plan.spare[..2], [4, 5]);
    }

    #[test]
    fn a_full_set_is_left_alone() {
        let set = minerset(2);
        let plan = planned(&set, &seen(children(&set, [0, 1])));
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn more_than_a_batch_is_done_in_parts() {
        let set = minerset(70);
        let first = planned(&set, &seen(Vec::new()));
        assert_eq!((first.create.len(), first.more), (30, true));
        let last = planned(&set, &seen(children(&set, 0..60)));
        assert_eq!((last.create.len(), last.more), (10, false));
        let shrink = planned(&minerset(0), &seen(children(&set, 0..70)));
        assert_eq!((shrink.delete.len(), shrink.more), (30, true));
    }

    #[test]
    fn a_miner_that_is_going_holds_its_slot_and_goes_first() {
        let set = minerset(1);
        let mut miners = children(&set, [0, 1]);
        miners[1].metadata.deletion_timestamp = Some(Time(second(1)));
        assert_eq!(planned(&set, &seen(miners.clone())), Plan::default());
        // Asked for two, the set waits until the name is free.
        assert_eq!(planned(&minerset(2), &seen(miners)).create, [0; 0]);
    }

    #[test]
    fn an_unhealthy_miner_goes_first() {
        let set = minerset(2);
        let mut miners = children(&set, [0, 1, 2]);
        miners[1].status = None;
        assert_eq!(planned(&set, &seen(miners)).delete, ["a-1"]);
    }

    #[test]
    fn an_orphan_is_adopted_and_somebody_elses_miner_is_not() {
        let set = minerset(2);
        let mut miners = children(&set, [0, 1]);
        miners[0].metadata.owner_references = None;
        miners[0].metadata.resource_version = Some("7".to_owned());
        miners[1].metadata.owner_references.as_mut().unwrap()[0].uid = "other".to_owned();
        let plan = planned(&set, &seen(miners));
        assert_eq!(plan.adopt, BTreeSet::from(["a-0".to_owned()]));
        let (name, patch) = &plan.change[0];
        assert_eq!(name, "a-0");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "set-uid");
        // The stranger's name is taken, so the next slot is used.
        assert_eq!(plan.create, [2]);
    }

    #[test]
    fn without_its_chain_a_set_shrinks_but_does_not_grow() {
        let set = minerset(1);
        let without = |miners| Seen { chain: false, ..seen(miners) };
        assert_eq!(planned(&set, &without(Vec::new())).create, [0; 0]);
        assert_eq!(planned(&set, &without(children(&set, [0, 1]))).delete.len(), 1);
    }

    #[test]
    fn a_set_that_may_not_create_does_not() {
        let mut set = minerset(1);
        set.annotations_mut().insert(names::ANNOTATION_DISABLE_MINER_CREATE.to_owned(), String::new());
        assert_eq!(planned(&set, &seen(Vec::new())).create, [0; 0]);
    }

    #[test]
    fn a_failed_health_check_gets_the_miner_replaced_unless_that_is_to_be_skipped() {
        let set = minerset(2);
        let mut miners = children(&set, [0, 1]);
        for miner in &mut miners {
            let conditions = &mut miner.status.as_mut().unwrap().conditions;
            conditions::set(conditions, Condition::no(OWNER_REMEDIATED, Severity::Warning, "", ""), second(1));
        }
        miners[1].annotations_mut().insert(names::ANNOTATION_SKIP_REMEDIATION.to_owned(), String::new());
        let plan = planned(&set, &seen(miners));
        assert_eq!(plan.delete, ["a-0"]);
        assert_eq!(plan.remediate, BTreeSet::from(["a-0".to_owned()]));
    }

    #[test]
    fn labels_annotations_and_harmless_fields_of_the_template_reach_all_miners_at_once() {
        let mut set = minerset(2);
        let miners = children(&set, [0, 1]);
        set.spec.template.metadata.labels.insert("tier".to_owned(), "gold".to_owned());
        set.spec.template.spec.pod_deletion_timeout = Some("1m0s".to_owned());
        let patch = json!({"metadata": {"labels": {"tier": "gold"}}, "spec": {"podDeletionTimeout": "1m0s"}});
        assert_eq!(planned(&set, &seen(miners)).change, [("a-0".to_owned(), patch.clone()), ("a-1".to_owned(), patch)]);
    }

    #[test]
    fn a_change_that_replaces_pods_reaches_working_miners_one_by_one() {
        let mut set = minerset(3);
        let mut miners = children(&set, [0, 1, 2]);
        set.spec.template.spec.miner_type = "M1.MEDIUM1".to_owned();
        let patch = json!({"spec": {"minerType": "M1.MEDIUM1"}});
        assert_eq!(planned(&set, &seen(miners.clone())).change, [("a-0".to_owned(), patch.clone())]);
        // Passed on, but not yet acted on: the next one waits.
        miners[0].spec.miner_type = "M1.MEDIUM1".to_owned();
        miners[0].metadata.generation = Some(2);
        assert_eq!(planned(&set, &seen(miners.clone())).change, []);
        // One that does not work has nothing to lose.
        miners[2].status = None;
        assert_eq!(planned(&set, &seen(miners.clone())).change, [("a-2".to_owned(), patch.clone())]);
        miners[2] = Miner { status: miners[1].status.clone(), ..miners[2].clone() };
        miners[0].status.as_mut().unwrap().observed_generation = 2;
        assert_eq!(planned(&set, &seen(miners)).change, [("a-1".to_owned(), patch)]);
    }

    #[test]
    fn whoever_watches_a_set_by_its_label_sees_its_miners_too() {
        let mut set = minerset(2);
        let old = children(&set, [0]);
        set.labels_mut().insert(names::LABEL_WATCH_FILTER.to_owned(), "blue".to_owned());
        let labels = json!({"apps.onex.io/watch-filter": "blue"});
        assert_eq!(planned(&set, &seen(old)).change, [("a-0".to_owned(), json!({"metadata": {"labels": labels}}))]);
        assert_eq!(child(&set, 1, None).labels()["apps.onex.io/watch-filter"], "blue");
    }

    #[test]
    fn only_the_name_that_a_slot_has_stands_for_it() {
        let slots = ["a-0", "a-10", "a-01", "a-+1", "a-", "b-1", "a-x"].map(|name| slot_of("a-", name));
        assert_eq!(slots, [Some(0), Some(10), None, None, None, None, None]);
    }

    #[test]
    fn a_type_that_is_in_no_table_reaches_nobody() {
        let mut set = minerset(3);
        let miners = children(&set, [0, 1]);
        set.spec.template.spec.miner_type = "XXL".to_owned();
        let plan = planned(&set, &Seen { share: None, ..seen(miners) });
        assert_eq!((plan.change, plan.create), (vec![], vec![]));
    }

    #[test]
    fn a_set_is_marked_with_its_chain() {
        let mut set = minerset(0);
        set.metadata.labels = None;
        assert_eq!(
            planned(&set, &seen(Vec::new())).mark,
            Some(json!({"labels": {"apps.onex.io/chain-name": "genesis"}}))
        );
    }

    proptest! {
        #[test]
        fn following_the_plan_ends_with_as_many_miners_as_wanted(wanted in 0..80i32, there in prop::collection::btree_set(0..90usize, 0..60), batch in 1..40usize) {
            let set = minerset(wanted);
            let mut miners = children(&set, there);
            for _ in 0..100 {
                let plan = plan(&set, &seen(miners.clone()), batch, second(1_000));
                prop_assert!(plan.create.is_empty() || plan.delete.is_empty());
                prop_assert!(plan.create.len() <= batch && plan.delete.len() <= batch);
                if plan == Plan::default() { break }
                miners.retain(|miner| !plan.delete.contains(&miner.name_any()));
                miners.extend(children(&set, plan.create));
            }
            prop_assert_eq!(miners.len(), wanted as usize);
            let names: BTreeSet<String> = miners.iter().map(ResourceExt::name_any).collect();
            prop_assert_eq!(names.len(), miners.len());
        }
    }
}
