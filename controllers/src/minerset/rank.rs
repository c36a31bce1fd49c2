//! Who goes first when a set shrinks.

use std::borrow::Borrow;
use std::cmp::Reverse;

use jiff::Timestamp;
use kube::ResourceExt;
use onex_crds::conditions::{self, POD_HEALTHY};
use onex_crds::{DeletePolicy, Miner, names};

/// Who goes first when a set shrinks; the policy only decides among the healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// It is going already, so that letting it go costs nothing.
    Deleting,
    /// Somebody asked for it by annotation.
    MarkedForDeletion,
    /// It does no work.
    Unhealthy,
    /// It works.
    Healthy,
}

/// The rank of one Miner.
pub(crate) fn rank(miner: &Miner) -> Rank {
    if miner.metadata.deletion_timestamp.is_some() {
        Rank::Deleting
    } else if miner.annotations().contains_key(names::ANNOTATION_DELETE_MINER) {
        Rank::MarkedForDeletion
    } else if is_unhealthy(miner) {
        Rank::Unhealthy
    } else {
        Rank::Healthy
    }
}

/// The Miners in the order in which they go. The same Miners are always put in the same order.
pub(crate) fn order<M: Borrow<Miner>>(policy: DeletePolicy, miners: &[M], now: Timestamp) -> Vec<&Miner> {
    let mut ordered: Vec<&Miner> = miners.iter().map(Borrow::borrow).collect();
    ordered.sort_by_cached_key(|miner| {
        let rank = rank(miner);
        let preference = if rank == Rank::Healthy { preference(policy, miner, now) } else { Preference::None };
        (rank, preference, miner.name_any())
    });
    ordered
}

/// What a policy says of a healthy Miner; lower goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    /// Nothing: the name decides.
    None,
    /// Chance decides. A uid is random, and unlike a die it falls the same way in every pass.
    Chance(String),
    /// The oldest first; one whose age is not known goes last.
    Oldest(Timestamp),
    /// The youngest first; one whose age is not known counts as young.
    Newest(Reverse<Timestamp>),
}

fn preference(policy: DeletePolicy, miner: &Miner, now: Timestamp) -> Preference {
    let created = miner.creation_timestamp().map(|time| time.0).filter(|created| *created <= now);
    let created = created.unwrap_or(Timestamp::MAX);
    match policy {
        DeletePolicy::Random => Preference::Chance(miner.uid().unwrap_or_default()),
        DeletePolicy::Oldest => Preference::Oldest(created),
        DeletePolicy::Newest => Preference::Newest(Reverse(created)),
    }
}

/// No Pod, a failure, or a Pod that is known not to be healthy.
fn is_unhealthy(miner: &Miner) -> bool {
    let Some(status) = &miner.status else { return true };
    status.pod_ref.is_none()
        || status.failure_reason.is_some()
        || status.failure_message.is_some()
        || conditions::get(&status.conditions, POD_HEALTHY).is_some_and(|condition| !condition.is_true())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minerset::tests::{healthy, second};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use onex_crds::{Condition, FailureReason, Severity};
    use proptest::prelude::*;

    fn names(policy: DeletePolicy, miners: &[Miner]) -> Vec<String> {
        order(policy, miners, second(1_000)).into_iter().map(ResourceExt::name_any).collect()
    }

    fn born(name: &str, at: i64) -> Miner {
        let mut miner = healthy(name);
        miner.metadata.creation_timestamp = Some(Time(second(at)));
        miner
    }

    fn deleting(name: &str) -> Miner {
        let mut miner = healthy(name);
        miner.metadata.deletion_timestamp = Some(Time(second(1)));
        miner
    }

    fn marked(name: &str) -> Miner {
        let mut miner = healthy(name);
        miner.annotations_mut().insert(names::ANNOTATION_DELETE_MINER.to_owned(), String::new());
        miner
    }

    fn unhealthy(name: &str) -> Miner {
        let mut miner = healthy(name);
        let conditions = &mut miner.status.as_mut().unwrap().conditions;
        conditions::set(conditions, Condition::no(POD_HEALTHY, Severity::Warning, "", ""), second(1));
        miner
    }

    #[test]
    fn the_table_of_ranks() {
        assert_eq!(rank(&healthy("a")), Rank::Healthy);
        assert_eq!(rank(&deleting("a")), Rank::Deleting);
        assert_eq!(rank(&marked("a")), Rank::MarkedForDeletion);
        assert_eq!(rank(&unhealthy("a")), Rank::Unhealthy);
        let mut without_pod = healthy("a");
        without_pod.status.as_mut().unwrap().pod_ref = None;
        assert_eq!(rank(&without_pod), Rank::Unhealthy);
        let mut failed = healthy("a");
        failed.status.as_mut().unwrap().failure_reason = Some(FailureReason::InvalidConfiguration);
        assert_eq!(rank(&failed), Rank::Unhealthy);
        // A Pod nobody has reported on yet is not held against the Miner.
        let mut unknown = healthy("a");
        unknown.status.as_mut().unwrap().conditions.clear();
        assert_eq!(rank(&unknown), Rank::Healthy);
    }

    #[test]
    fn the_oldest_go_first_under_oldest_and_last_under_newest() {
        let miners = [born("a", 30), born("b", 10), born("c", 20)];
        assert_eq!(names(DeletePolicy::Oldest, &miners), ["b", "c", "a"]);
        assert_eq!(names(DeletePolicy::Newest, &miners), ["a", "c", "b"]);
    }

    #[test]
    fn a_miner_from_the_future_counts_as_young() {
        let miners = [born("future", 2_000), born("a", 10)];
        assert_eq!(names(DeletePolicy::Oldest, &miners), ["a", "future"]);
        assert_eq!(names(DeletePolicy::Newest, &miners), ["future", "a"]);
    }

    #[test]
    fn equally_old_miners_go_by_name() {
        let miners = [born("b", 10), born("a", 10)];
        assert_eq!(names(DeletePolicy::Oldest, &miners), ["a", "b"]);
        assert_eq!(names(DeletePolicy::Newest, &miners), ["a", "b"]);
    }

    fn any_miner() -> impl Strategy<Value = Miner> {
        ("[a-z]{1,4}", 0..4u8, 0..2_000i64, any::<u64>()).prop_map(|(name, kind, at, uid)| {
            let mut miner = match kind {
                0 => deleting(&name),
                1 => marked(&name),
                2 => unhealthy(&name),
                _ => healthy(&name),
            };
            miner.metadata.creation_timestamp = Some(Time(second(at)));
            miner.metadata.uid = Some(uid.to_string());
            miner
        })
    }

    proptest! {
        #[test]
        fn no_policy_lets_a_working_miner_go_before_one_that_is_not(
            miners in prop::collection::vec(any_miner(), 0..20),
            policy in prop::sample::select(vec![DeletePolicy::Random, DeletePolicy::Newest, DeletePolicy::Oldest]),
        ) {
            let ordered = order(policy, &miners, second(1_000));
            prop_assert!(ordered.is_sorted_by_key(|miner| rank(miner)));
            prop_assert_eq!(ordered.len(), miners.len());
            let mut shuffled = miners.clone();
            shuffled.reverse();
            let again: Vec<_> = order(policy, &shuffled, second(1_000)).into_iter().cloned().collect();
            let keys = |miners: Vec<&Miner>| miners.iter().map(|m| (m.name_any(), rank(m))).collect::<Vec<_>>();
            prop_assert_eq!(keys(ordered), keys(again.iter().collect()));
        }
    }
}
