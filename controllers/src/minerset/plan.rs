//! What is to be done so that a set has the Miners it should have. Pure: what was seen goes in, what to do comes out.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use onex_crds::conditions::{self, OWNER_REMEDIATED, POD_HEALTHY, READY};
use onex_crds::{Miner, MinerSet, names};
use serde_json::{Map, Value, json};

use super::rank;
use crate::MinerType;
use crate::report::{difference, missing, plain};

/// What there is of a set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The settings that Pods get of the Chain that the Miners should join, if it is there.
    pub chain: Option<String>,
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
    /// Those of them that are beyond what is wanted, while a change is under way.
    pub surge: BTreeSet<usize>,
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
    let remediate = remediate(set, &claimed, now);
    let change = changes(set, seen, &claimed, &adopt, now);
    let mut plan = Plan { mark: mark(set), change, adopt, ..Plan::default() };
    let replicas = usize::try_from(set.replicas()).unwrap_or_default();
    let wanted = replicas + surge(set, seen, &claimed, now);
    if claimed.len() < wanted {
        if seen.chain.is_some()
            && seen.share.is_some()
            && !set.annotations().contains_key(names::ANNOTATION_DISABLE_MINER_CREATE)
        {
            let missing = wanted - claimed.len();
            (plan.create, plan.spare) = slots(set, &seen.miners, missing.min(batch));
            plan.surge = plan.create.iter().skip(replicas.saturating_sub(claimed.len())).copied().collect();
            plan.more = missing > batch;
        }
    } else if claimed.len() > wanted {
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

/// How many Miners beyond what is wanted there are to be: some while a change is under way, and those that are there until
/// all others work again. They are marked to go first.
fn surge(set: &MinerSet, seen: &Seen, claimed: &[Arc<Miner>], now: Timestamp) -> usize {
    let most = set.leeway().surge;
    if most == 0 || set.spec.paused {
        return 0;
    }
    let living = || claimed.iter().map(|miner| &**miner).filter(|miner| !is_deleting(*miner));
    let (extra, lasting): (Vec<&Miner>, Vec<&Miner>) =
        living().partition(|miner| miner.annotations().contains_key(names::ANNOTATION_DELETE_MINER));
    let changing =
        lasting.iter().filter(|miner| is_outdated(set, seen, miner) || !is_available(set, miner, now)).count();
    let begins = lasting.iter().any(|miner| is_outdated(set, seen, miner));
    changing.min(if begins { most } else { most.min(extra.len()) })
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
pub(crate) fn child(set: &MinerSet, slot: usize, seen: &Seen) -> Miner {
    let template = &set.spec.template;
    // With what its controller would write on it first, so that it does not have to.
    let mut annotations = template.metadata.annotations.clone();
    annotations.extend(seen.share.iter().flat_map(crate::miner::share));
    annotations.extend(granted(seen));
    annotations.extend(from_template(set).map(|keys| (names::ANNOTATION_FROM_TEMPLATE.to_owned(), keys)));
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

/// What a set gives all its Miners; computed once for many of them.
struct Gift {
    labels: BTreeMap<String, String>,
    /// See [`from_template`].
    keys: Option<String>,
    /// See [`granted`].
    granted: Option<(String, String)>,
}

/// The annotation that lets a Miner have the present settings of the chain.
fn granted(seen: &Seen) -> Option<(String, String)> {
    seen.chain.clone().map(|settings| (names::ANNOTATION_CHAIN_SETTINGS.to_owned(), settings))
}

/// Which labels and annotations are the template's, as it is written on Miners. Nothing when it has only the set's own label.
fn from_template(set: &MinerSet) -> Option<String> {
    let template = &set.spec.template.metadata;
    let labels: Vec<&String> = template.labels.keys().filter(|key| *key != names::LABEL_MINERSET).collect();
    let annotations: Vec<&String> = template.annotations.keys().collect();
    let any = !labels.is_empty() || !annotations.is_empty();
    any.then(|| json!({"labels": labels, "annotations": annotations}).to_string())
}

/// The merge patch that takes from a Miner what an earlier template gave it and this one does not, by kind of metadata.
fn removed(set: &MinerSet, miner: &Miner, gift: &Gift) -> [(&'static str, Map<String, Value>); 2] {
    let written = miner.annotations().get(names::ANNOTATION_FROM_TEMPLATE);
    if written == gift.keys.as_ref() {
        return [("labels", Map::new()), ("annotations", Map::new())];
    }
    let before: BTreeMap<String, Vec<String>> =
        written.and_then(|written| serde_json::from_str(written).ok()).unwrap_or_default();
    let gone = |kind: &str, there: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
        let keys = before.get(kind).into_iter().flatten();
        let gone = keys.filter(|key| there.contains_key(*key) && !wanted.contains_key(*key));
        gone.map(|key| (key.clone(), Value::Null)).collect::<Map<_, _>>()
    };
    let mut annotations = gone("annotations", miner.annotations(), &set.spec.template.metadata.annotations);
    annotations.insert(names::ANNOTATION_FROM_TEMPLATE.to_owned(), json!(gift.keys));
    [("labels", gone("labels", miner.labels(), &gift.labels)), ("annotations", annotations)]
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

/// Miners to be replaced because they do not work: those whose health check asks for it, and those that were unready for as long
/// as the set allows. Only so many at a time, and none when so many do not work that it would not help.
fn remediate(set: &MinerSet, claimed: &[Arc<Miner>], now: Timestamp) -> BTreeSet<String> {
    if too_many_unhealthy(set, claimed.iter().map(|miner| &**miner)).is_some() {
        return BTreeSet::new();
    }
    let wish = set.spec.remediation.clone().unwrap_or_default();
    let replicas = usize::try_from(set.replicas()).unwrap_or_default();
    let living = || claimed.iter().map(|miner| &**miner).filter(|miner| !is_deleting(*miner));
    let in_flight = replicas.saturating_sub(living().count());
    let patience = wish.unhealthy_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let lost = |miner: &Miner| {
        patience.is_some_and(|patience| {
            let ready = conditions::get(miner.conditions(), READY).filter(|ready| !ready.is_true());
            let since = ready.and_then(|ready| ready.last_transition_time.as_ref());
            since.is_some_and(|since| now.duration_since(since.0).unsigned_abs() > patience)
        })
    };
    living()
        .filter(|miner| !miner.annotations().contains_key(names::ANNOTATION_SKIP_REMEDIATION))
        .filter(|miner| conditions::is_false(miner.conditions(), OWNER_REMEDIATED) || lost(miner))
        .take(wish.max_in_flight(replicas, set.leeway().unavailable).saturating_sub(in_flight))
        .map(ResourceExt::name_any)
        .collect()
}

/// How many Miners do not work, if they are too many to be replaced.
pub(crate) fn too_many_unhealthy<'a>(set: &MinerSet, miners: impl Iterator<Item = &'a Miner>) -> Option<usize> {
    let wish = set.spec.remediation.as_ref().filter(|wish| wish.max_unhealthy.is_some())?;
    let most = wish.max_unhealthy(usize::try_from(set.replicas()).unwrap_or_default());
    let unhealthy = miners.filter(|miner| !is_deleting(*miner) && !is_ready(miner)).count();
    (unhealthy > most).then_some(unhealthy)
}

/// The template, and the settings of the chain, passed on to the Miners that are there.
///
/// A change that replaces a Pod reaches as many working Miners as may be unavailable, and the next ones only when those work
/// again; Miners that do not work lose nothing and get it at once. A type that is in no table reaches nobody, and a set that is
/// paused passes on nothing.
fn changes(
    set: &MinerSet,
    seen: &Seen,
    claimed: &[Arc<Miner>],
    adopt: &BTreeSet<String>,
    now: Timestamp,
) -> Vec<(String, Value)> {
    let living = || claimed.iter().map(|miner| &**miner).filter(|miner| !is_deleting(*miner));
    let gift = Gift { labels: labels(set), keys: from_template(set), granted: granted(seen) };
    let replicas = usize::try_from(set.replicas()).unwrap_or_default();
    let available = living().filter(|miner| is_available(set, miner, now)).count();
    let mut may_disturb = available.saturating_sub(replicas.saturating_sub(set.leeway().unavailable));
    let mut changes = Vec::new();
    for miner in living() {
        let adopt = !adopt.is_empty() && adopt.contains(&miner.name_any());
        if set.spec.paused && !adopt {
            continue;
        }
        let mut whole = !is_outdated(set, seen, miner);
        if !whole && !set.spec.paused && seen.share.is_some() {
            let loses_nothing = !is_ready(miner);
            whole = loses_nothing || may_disturb > 0;
            may_disturb -= usize::from(whole && !loses_nothing && is_available(set, miner, now)).min(may_disturb);
        }
        let change = change(set, miner, &gift, whole, adopt);
        changes.extend(change.map(|change| (miner.name_any(), change)));
    }
    changes
}

/// Whether what the set would pass on makes the Miner replace its Pod.
pub(crate) fn is_outdated(set: &MinerSet, seen: &Seen, miner: &Miner) -> bool {
    let settings = miner.annotations().get(names::ANNOTATION_CHAIN_SETTINGS);
    !crate::miner::pod::is_made_from_the_same(&set.spec.template.spec, &miner.spec)
        || seen.chain.is_some() && settings != seen.chain.as_ref()
}

/// Whether the Miner works, and what it works by is its present spec and the settings of the chain that it is to have.
fn is_settled(miner: &Miner) -> bool {
    let Some(status) = &miner.status else { return false };
    let granted = miner.annotations().get(names::ANNOTATION_CHAIN_SETTINGS);
    // A Pod from before such settings were written down says nothing of them.
    let as_granted =
        status.chain_settings.is_empty() || granted.is_none_or(|granted| *granted == status.chain_settings);
    is_ready(miner) && as_granted && status.observed_generation >= miner.metadata.generation.unwrap_or_default()
}

/// Whether the Miner has worked for as long as it must to be counted on.
pub(crate) fn is_available(set: &MinerSet, miner: &Miner, now: Timestamp) -> bool {
    let wait = min_ready(set);
    is_settled(miner) && (wait.is_zero() || ready_for(miner, now).is_some_and(|age| age > wait))
}

pub(crate) fn min_ready(set: &MinerSet) -> Duration {
    Duration::from_secs(u64::try_from(set.spec.min_ready_seconds).unwrap_or_default())
}

/// How long the Miner has been ready.
pub(crate) fn ready_for(miner: &Miner, now: Timestamp) -> Option<Duration> {
    let since = conditions::get(miner.conditions(), POD_HEALTHY)
        .filter(|condition| condition.is_true())?
        .last_transition_time
        .as_ref()?;
    Some(now.duration_since(since.0).unsigned_abs())
}

/// The merge patch that makes the Miner as the template says; without `whole`, its spec is left for later.
fn change(set: &MinerSet, miner: &Miner, gift: &Gift, whole: bool, adopt: bool) -> Option<Value> {
    let mut metadata = Map::new();
    let [mut new_labels, mut new_annotations] = removed(set, miner, gift);
    let added = |there: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| match missing(there, wanted) {
        Some(Value::Object(added)) => added,
        _ => Map::new(),
    };
    new_labels.1.extend(added(miner.labels(), &gift.labels));
    new_annotations.1.extend(added(miner.annotations(), &set.spec.template.metadata.annotations));
    let granted = gift.granted.as_ref().filter(|_| whole);
    if let Some((key, settings)) = granted.filter(|(key, settings)| miner.annotations().get(key) != Some(settings)) {
        new_annotations.1.insert(key.clone(), json!(settings));
    }
    for (kind, change) in [new_labels, new_annotations] {
        if !change.is_empty() {
            metadata.insert(kind.to_owned(), Value::Object(change));
        }
    }
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

    const SETTINGS: &str = "toyblc:v1 43200s";

    fn seen(miners: Vec<Miner>) -> Seen {
        let miners = miners.into_iter().map(Arc::new).collect();
        Seen { chain: Some(SETTINGS.to_owned()), share: Some(share()), miners }
    }

    fn children(set: &MinerSet, slots: impl IntoIterator<Item = usize>) -> Vec<Miner> {
        slots
            .into_iter()
            .map(|slot| Miner { status: healthy("").status, ..child(set, slot, &seen(Vec::new())) })
            .collect()
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
        let without = |miners| Seen { chain: None, ..seen(miners) };
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
        let keys = json!({"apps.onex.io/from-template": r#"{"annotations":[],"labels":["tier"]}"#});
        let metadata = json!({"labels": {"tier": "gold"}, "annotations": keys});
        let patch = json!({"metadata": metadata, "spec": {"podDeletionTimeout": "1m0s"}});
        assert_eq!(planned(&set, &seen(miners)).change, [("a-0".to_owned(), patch.clone()), ("a-1".to_owned(), patch)]);
    }

    #[test]
    fn b22_a_label_that_the_template_loses_goes_from_old_miners() {
        let mut set = minerset(1);
        set.spec.template.metadata.labels.insert("tier".to_owned(), "gold".to_owned());
        set.spec.template.metadata.annotations.insert("note".to_owned(), "x".to_owned());
        let mut miners = children(&set, [0]);
        miners[0].labels_mut().insert("mine".to_owned(), "stays".to_owned());
        assert_eq!(planned(&set, &seen(miners.clone())).change, []);
        set.spec.template.metadata.labels.remove("tier");
        set.spec.template.metadata.annotations.remove("note");
        let gone = json!({"labels": {"tier": null}, "annotations": {"note": null, "apps.onex.io/from-template": null}});
        assert_eq!(planned(&set, &seen(miners)).change, [("a-0".to_owned(), json!({"metadata": gone}))]);
    }

    #[test]
    fn new_settings_of_the_chain_reach_working_miners_one_by_one() {
        let set = minerset(3);
        let mut miners = children(&set, [0, 1, 2]);
        for miner in &mut miners {
            miner.status.as_mut().unwrap().chain_settings = SETTINGS.to_owned();
        }
        let now = |miners: &[Miner]| Seen { chain: Some("toyblc:v2 60s".to_owned()), ..seen(miners.to_vec()) };
        let patch = json!({"metadata": {"annotations": {"apps.onex.io/chain-settings": "toyblc:v2 60s"}}});
        assert_eq!(planned(&set, &now(&miners)).change, [("a-0".to_owned(), patch.clone())]);
        miners[0].annotations_mut().insert(names::ANNOTATION_CHAIN_SETTINGS.to_owned(), "toyblc:v2 60s".to_owned());
        assert_eq!(planned(&set, &now(&miners)).change, [], "its Pod is still the old one");
        miners[0].status.as_mut().unwrap().chain_settings = "toyblc:v2 60s".to_owned();
        assert_eq!(planned(&set, &now(&miners)).change, [("a-1".to_owned(), patch)]);
    }

    fn rolling(set: &mut MinerSet, rolling: Value) {
        set.spec.strategy = serde_json::from_value(json!({"rollingUpdate": rolling})).unwrap();
    }

    #[test]
    fn as_many_miners_change_at_a_time_as_may_be_unavailable_and_none_while_the_set_is_paused() {
        let mut set = minerset(5);
        let mut miners = children(&set, [0, 1, 2, 3, 4]);
        set.spec.template.spec.miner_type = "M1.MEDIUM1".to_owned();
        rolling(&mut set, json!({"maxUnavailable": 2}));
        let names = |plan: Plan| plan.change.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(planned(&set, &seen(miners.clone()))), ["a-0", "a-1"]);
        let unavailable = &mut miners[4];
        unavailable.status = None;
        assert_eq!(names(planned(&set, &seen(miners.clone()))), ["a-0", "a-4"]);
        set.spec.min_ready_seconds = 100_000;
        assert_eq!(names(planned(&set, &seen(miners.clone()))), ["a-4"], "none is available yet");
        set.spec.paused = true;
        assert_eq!(planned(&set, &seen(miners)), Plan::default());
    }

    #[test]
    fn a_change_with_a_surge_makes_room_before_it_disturbs_anybody_and_lets_it_go_after() {
        let mut set = minerset(2);
        let mut miners = children(&set, [0, 1]);
        set.spec.template.spec.miner_type = "M1.MEDIUM1".to_owned();
        rolling(&mut set, json!({"maxUnavailable": 0, "maxSurge": 1}));
        let first = planned(&set, &seen(miners.clone()));
        assert_eq!((&first.create[..], &first.surge, &first.change[..]), (&[2][..], &BTreeSet::from([2]), &[][..]));
        let mut extra = children(&set, [2]).remove(0);
        extra.annotations_mut().insert(names::ANNOTATION_DELETE_MINER.to_owned(), String::new());
        let with_extra = |miners: &[Miner]| seen([miners, &[extra.clone()]].concat());
        let second = planned(&set, &with_extra(&miners));
        assert_eq!((second.change.len(), second.delete.len()), (1, 0));
        for miner in &mut miners {
            miner.spec.miner_type = "M1.MEDIUM1".to_owned();
        }
        miners[1].metadata.generation = Some(2);
        assert_eq!(planned(&set, &with_extra(&miners)), Plan::default(), "one still changes");
        miners[1].status.as_mut().unwrap().observed_generation = 2;
        assert_eq!(planned(&set, &with_extra(&miners)).delete, ["a-2"]);
    }

    #[test]
    fn miners_that_are_unready_for_too_long_are_replaced_some_at_a_time_and_not_when_they_are_too_many() {
        let mut set = minerset(4);
        let mut miners = children(&set, [0, 1, 2, 3]);
        for miner in &mut miners[..2] {
            let conditions = &mut miner.status.as_mut().unwrap().conditions;
            conditions::set(conditions, Condition::no(POD_HEALTHY, Severity::Warning, "", ""), second(900));
            conditions::set(conditions, Condition::no(READY, Severity::Warning, "", ""), second(900));
        }
        let deleted = |set: &MinerSet| planned(set, &seen(miners.clone())).delete;
        assert_eq!(deleted(&set), [""; 0]);
        let wish = |wish: Value| serde_json::from_value(wish).unwrap();
        set.spec.remediation = wish(json!({"unhealthySeconds": 200}));
        assert_eq!(deleted(&set), [""; 0], "they were unready for a hundred seconds");
        set.spec.remediation = wish(json!({"unhealthySeconds": 60}));
        assert_eq!(deleted(&set), ["a-0"]);
        set.spec.remediation = wish(json!({"unhealthySeconds": 60, "maxInFlight": "50%"}));
        assert_eq!(deleted(&set), ["a-0", "a-1"]);
        set.spec.remediation = wish(json!({"unhealthySeconds": 60, "maxUnhealthy": 1}));
        assert_eq!(deleted(&set), [""; 0]);
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
        assert_eq!(child(&set, 1, &Seen::default()).labels()["apps.onex.io/watch-filter"], "blue");
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
