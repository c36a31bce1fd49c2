//! What is said of a set, and when it is worth another look. Pure.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use onex_crds::conditions::{self, MINERS_CREATED, MINERS_READY, READY, REMEDIATION_ALLOWED, RESIZED, UP_TO_DATE};
use onex_crds::{Condition, FailureReason, Miner, MinerSet, MinerSetStatus, Severity};

use super::plan::{Seen, is_outdated, is_ready, min_ready, ready_for, too_many_unhealthy};
use super::{IMPATIENCE, Outcome};

/// What is said of `set` when these are its Miners.
pub(super) fn status(set: &MinerSet, seen: &Seen, outcome: &Outcome, now: Timestamp) -> MinerSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let mut status = counted(set, seen, outcome, now);
    status.conditions = old.conditions.clone();
    for condition in [created(set, seen, outcome), resized(set, &status), ready(outcome), up_to_date(set, &status)] {
        conditions::set(&mut status.conditions, condition, now);
    }
    match too_many_unhealthy(set, outcome.miners()) {
        Some(unhealthy) => {
            let message = format!("{unhealthy} miners do not work, which is more than may be for one to be replaced");
            let reason = conditions::REASON_TOO_MANY_UNHEALTHY;
            conditions::set(
                &mut status.conditions,
                Condition::no(REMEDIATION_ALLOWED, Severity::Warning, reason, message),
                now,
            );
        }
        None => conditions::remove(&mut status.conditions, REMEDIATION_ALLOWED),
    }
    if let Some(sum) = conditions::summary(&status.conditions, &[MINERS_CREATED, RESIZED, MINERS_READY]) {
        conditions::set(&mut status.conditions, sum, now);
    }
    let acted = outcome.error.is_none();
    status.observed_generation =
        if acted { set.metadata.generation.unwrap_or_default() } else { old.observed_generation };
    if seen.share.is_none() {
        status.failure_reason = Some(FailureReason::InvalidConfiguration);
        status.failure_message = Some(unknown_type(set));
    } else if let Some(message) = stuck(set, &status, now) {
        status.failure_reason = Some(FailureReason::JoinClusterTimeoutError);
        status.failure_message = Some(message);
    }
    status
}

/// When to look again without having been called, if that is worth it.
pub(super) fn next_look(
    set: &MinerSet,
    status: &MinerSetStatus,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<Duration> {
    let wait = min_ready(set);
    if status.ready_replicas != set.replicas() || status.replicas != set.replicas() {
        return Some(IMPATIENCE);
    }
    if status.available_replicas == set.replicas() {
        return None;
    }
    // The last one to become available decides; a second more, because available means strictly longer.
    let age = outcome.miners().filter_map(|miner| ready_for(miner, now)).min().unwrap_or_default();
    Some(wait.saturating_sub(age) + Duration::from_secs(1))
}

fn counted(set: &MinerSet, seen: &Seen, outcome: &Outcome, now: Timestamp) -> MinerSetStatus {
    let miners = || outcome.miners();
    let wanted = &set.spec.template.metadata.labels;
    let labeled = |miner: &&Miner| wanted.iter().all(|(key, value)| miner.labels().get(key) == Some(value));
    let available = |miner: &&Miner| {
        let wait = min_ready(set);
        is_ready(miner) && (wait.is_zero() || ready_for(miner, now).is_some_and(|age| age > wait))
    };
    let updated = |miner: &&Miner| !is_outdated(set, seen, miner);
    MinerSetStatus {
        selector: set.selector_text(),
        replicas: count(miners()),
        fully_labeled_replicas: count(miners().filter(labeled)),
        ready_replicas: count(miners().filter(|miner| is_ready(miner))),
        available_replicas: count(miners().filter(available)),
        updated_replicas: count(miners().filter(updated)),
        ..MinerSetStatus::default()
    }
}

fn count<'a>(miners: impl Iterator<Item = &'a Miner>) -> i32 {
    i32::try_from(miners.count()).unwrap_or(i32::MAX)
}

fn created(set: &MinerSet, seen: &Seen, outcome: &Outcome) -> Condition {
    if seen.share.is_none() {
        let reason = conditions::REASON_MINER_TYPE_UNSUPPORTED;
        return Condition::no(MINERS_CREATED, Severity::Error, reason, unknown_type(set));
    }
    if seen.chain.is_none() {
        let name = &set.spec.template.spec.chain_name;
        let message = format!("there is no chain {name:?} in {}, so no miners are created", onex_crds::CHAIN_NAMESPACE);
        return Condition::no(MINERS_CREATED, Severity::Error, conditions::REASON_CHAIN_NOT_FOUND, message);
    }
    match &outcome.not_created {
        Some(why) => {
            Condition::no(MINERS_CREATED, Severity::Error, conditions::REASON_MINER_CREATION_FAILED, why.as_str())
        }
        None => Condition::yes(MINERS_CREATED),
    }
}

/// How far a change has come. A set that changes is Ready all the while: it works.
fn up_to_date(set: &MinerSet, status: &MinerSetStatus) -> Condition {
    let (updated, there) = (status.updated_replicas, status.replicas);
    if updated >= there {
        return Condition::yes(UP_TO_DATE);
    }
    let message = format!("{updated} of {there} miners are as the template and the chain say");
    let reason = if set.spec.paused { conditions::REASON_PAUSED } else { conditions::REASON_ROLLING_UPDATE };
    Condition::no(UP_TO_DATE, Severity::Info, reason, message)
}

/// What is said of a type that is in no table.
pub(super) fn unknown_type(set: &MinerSet) -> String {
    format!("the miner type {:?} is in no table, so no miners of it are created", set.spec.template.spec.miner_type)
}

fn resized(set: &MinerSet, status: &MinerSetStatus) -> Condition {
    let (wanted, there, ready) = (set.replicas(), status.replicas, status.ready_replicas);
    if there > wanted {
        let message = format!("scaling down to {wanted} miners, {there} are there");
        return Condition::no(RESIZED, Severity::Warning, conditions::REASON_SCALING_DOWN, message);
    }
    if there < wanted || ready < wanted {
        let message = format!("scaling up to {wanted} miners, {there} are there and {ready} ready");
        return Condition::no(RESIZED, Severity::Warning, conditions::REASON_SCALING_UP, message);
    }
    Condition::yes(RESIZED)
}

fn ready(outcome: &Outcome) -> Condition {
    // By name, so that of several equally bad ones the same is named every time.
    let named = outcome
        .miners
        .iter()
        .filter_map(|(name, miner)| Some((name.as_str(), conditions::get(miner.conditions(), READY)?)));
    let mut known = 0;
    let theirs = conditions::aggregate(MINERS_READY, "Miner", named.inspect(|_| known += 1));
    match theirs {
        Some(worst) if !worst.is_true() => worst,
        _ if known < outcome.miners.len() => {
            Condition::unknown(MINERS_READY, conditions::REASON_WAITING, "some miners have not been looked at yet")
        }
        _ => Condition::yes(MINERS_READY),
    }
}

/// Why the set is stuck: its resizing, or its change, has said the same for longer than it may.
fn stuck(set: &MinerSet, status: &MinerSetStatus, now: Timestamp) -> Option<String> {
    let patience = set.spec.progress_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok())?;
    let stalls = |type_| {
        let told = conditions::get(&status.conditions, type_).filter(|condition| !condition.is_true())?;
        let since = told.last_transition_time.as_ref()?.0;
        let stalled = now.duration_since(since).unsigned_abs() > Duration::from_secs(patience);
        stalled.then(|| format!("no progress in {patience} s: {}", told.message))
    };
    stalls(RESIZED).or_else(|| stalls(UP_TO_DATE).filter(|_| !set.spec.paused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minerset::plan::child;
    use crate::minerset::tests::{healthy, minerset, second};
    use onex_crds::{MinerStatus, Truth};
    use std::sync::Arc;

    fn outcome(set: &MinerSet, ready: usize, unready: usize) -> Outcome {
        let mut miners: Vec<Miner> = (0..ready + unready)
            .map(|slot| Miner { status: healthy("").status, ..child(set, slot, &with_chain()) })
            .collect();
        for miner in &mut miners[ready..] {
            let mut conditions = Vec::new();
            conditions::set(
                &mut conditions,
                Condition::no(READY, Severity::Warning, "PodProvisioning", "not yet"),
                second(10),
            );
            miner.status = Some(MinerStatus { conditions, ..MinerStatus::default() });
        }
        Outcome::of(miners.into_iter().map(Arc::new).collect())
    }

    fn with_chain() -> Seen {
        Seen {
            chain: Some("toyblc:v1 60s".to_owned()),
            share: Some(crate::MinerType::new("50m", "128Mi", 7)),
            ..Seen::default()
        }
    }

    fn said(status: &MinerSetStatus, type_: &str) -> (Truth, String) {
        let condition = conditions::get(&status.conditions, type_).unwrap();
        (condition.status, condition.reason.clone())
    }

    #[test]
    fn b23_a_complete_set_says_so_in_every_way() {
        let set = minerset(2);
        let status = status(&set, &with_chain(), &outcome(&set, 2, 0), second(20));
        assert_eq!(
            (status.replicas, status.fully_labeled_replicas, status.ready_replicas, status.available_replicas),
            (2, 2, 2, 2)
        );
        for type_ in [READY, MINERS_CREATED, RESIZED, MINERS_READY] {
            assert_eq!(said(&status, type_), (Truth::True, String::new()), "{type_}");
        }
        assert_eq!(status.observed_generation, 1);
        assert_eq!(status.selector, "apps.onex.io/minerset=a");
        assert_eq!(next_look(&set, &status, &Outcome::default(), second(20)), None);
    }

    #[test]
    fn an_empty_set_of_none_is_ready() {
        let set = minerset(0);
        assert_eq!(said(&status(&set, &with_chain(), &outcome(&set, 0, 0), second(20)), READY).0, Truth::True);
    }

    #[test]
    fn a_set_that_grows_or_shrinks_says_which() {
        let set = minerset(2);
        for (ready, unready, reason) in [(1, 0, "ScalingUp"), (1, 1, "ScalingUp"), (3, 0, "ScalingDown")] {
            let status = status(&set, &with_chain(), &outcome(&set, ready, unready), second(20));
            assert_eq!(said(&status, RESIZED), (Truth::False, reason.to_owned()));
            assert_eq!(next_look(&set, &status, &Outcome::default(), second(20)), Some(IMPATIENCE));
        }
    }

    #[test]
    fn the_worst_miner_is_named() {
        let set = minerset(2);
        let status = status(&set, &with_chain(), &outcome(&set, 1, 1), second(20));
        assert_eq!(said(&status, MINERS_READY), (Truth::False, "PodProvisioning @ Miner/a-1".to_owned()));
    }

    #[test]
    fn a_missing_chain_is_said_and_makes_the_set_unready() {
        let set = minerset(1);
        let status = status(&set, &Seen { chain: None, ..with_chain() }, &outcome(&set, 1, 0), second(20));
        assert_eq!(said(&status, MINERS_CREATED), (Truth::False, "ChainNotFound".to_owned()));
        assert_eq!(said(&status, READY), (Truth::False, "ChainNotFound".to_owned()));
    }

    #[test]
    fn a_change_that_does_not_come_on_is_told_of_and_so_is_what_is_too_broken_to_be_replaced() {
        let mut set = minerset(2);
        let outcome = outcome(&set, 1, 1);
        set.spec.template.spec.miner_type = "M1.MEDIUM1".to_owned();
        set.spec.remediation = serde_json::from_value(serde_json::json!({"maxUnhealthy": 0})).unwrap();
        let first = status(&set, &with_chain(), &outcome, second(0));
        assert_eq!(said(&first, UP_TO_DATE), (Truth::False, "RollingUpdate".to_owned()));
        assert_eq!(said(&first, REMEDIATION_ALLOWED), (Truth::False, "TooManyUnhealthy".to_owned()));
        assert_eq!(first.updated_replicas, 0);
        set.status = Some(first);
        assert!(status(&set, &with_chain(), &outcome, second(601)).failure_message.is_some());
        set.spec.paused = true;
        assert_eq!(said(&status(&set, &with_chain(), &outcome, second(2)), UP_TO_DATE).1, "Paused");
    }

    #[test]
    fn a_type_that_is_in_no_table_is_said_and_is_a_failure() {
        let set = minerset(1);
        let status = status(&set, &Seen { share: None, ..with_chain() }, &outcome(&set, 0, 0), second(20));
        assert_eq!(said(&status, MINERS_CREATED), (Truth::False, "MinerTypeUnsupported".to_owned()));
        assert_eq!(status.failure_reason, Some(FailureReason::InvalidConfiguration));
    }

    #[test]
    fn a_miner_is_available_when_it_was_ready_longer_than_asked_for() {
        let mut set = minerset(1);
        set.spec.min_ready_seconds = 30;
        for (now, available, look) in [(20, 0, Some(21)), (40, 0, Some(1)), (41, 1, None)] {
            let outcome = outcome(&set, 1, 0);
            let status = status(&set, &with_chain(), &outcome, second(now));
            assert_eq!((status.ready_replicas, status.available_replicas), (1, available), "{now}");
            assert_eq!(next_look(&set, &status, &outcome, second(now)), look.map(Duration::from_secs));
        }
    }

    #[test]
    fn a_set_without_progress_is_stuck_until_it_moves() {
        let mut set = minerset(2);
        set.status = Some(status(&set, &with_chain(), &outcome(&set, 1, 1), second(0)));
        assert_eq!(status(&set, &with_chain(), &outcome(&set, 1, 1), second(600)).failure_reason, None);
        let late = status(&set, &with_chain(), &outcome(&set, 1, 1), second(601));
        assert_eq!(late.failure_reason, Some(FailureReason::JoinClusterTimeoutError));
        set.status = Some(late);
        assert_eq!(status(&set, &with_chain(), &outcome(&set, 2, 0), second(602)).failure_reason, None);
    }

    #[test]
    fn the_same_sight_gives_the_same_status() {
        let mut set = minerset(2);
        let first = status(&set, &with_chain(), &outcome(&set, 1, 1), second(20));
        set.status = Some(first.clone());
        assert_eq!(status(&set, &with_chain(), &outcome(&set, 1, 1), second(25)), first);
    }
}
