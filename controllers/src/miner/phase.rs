//! What is said of a Miner, from what is seen of its Pod. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Resource, ResourceExt};
use onex_crds::conditions::{self, HEALTH_CHECK_SUCCEEDED, OWNER_REMEDIATED, POD_HEALTHY, SERVICE_CREATED};
use onex_crds::{Address, AddressType, Condition, Miner, MinerStatus, Phase, Severity};

use super::Sight;
use crate::Settings;

/// The phase of a Miner; what is asked later in this list wins: Pod there, Pod healthy, failed, deleted.
pub(crate) fn phase(deleting: bool, failed: bool, pod: bool, healthy: bool) -> Phase {
    match (deleting, failed, pod, healthy) {
        (true, ..) => Phase::Deleting,
        (_, true, ..) => Phase::Failed,
        (_, _, false, _) => Phase::Pending,
        (_, _, true, false) => Phase::Provisioning,
        (_, _, true, true) => Phase::Running,
    }
}

/// What is said of `miner`. `acted` tells whether everything that was to be done was done.
pub(super) fn status(miner: &Miner, sight: &Sight, acted: bool, settings: &Settings, now: Timestamp) -> MinerStatus {
    let old = miner.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone();
    conditions::set(&mut conditions, sight.health.clone(), now);
    match &sight.service {
        Some(trouble) => conditions::set(&mut conditions, trouble.clone(), now),
        None => conditions::remove(&mut conditions, SERVICE_CREATED),
    }
    let parts = [POD_HEALTHY, SERVICE_CREATED, HEALTH_CHECK_SUCCEEDED, OWNER_REMEDIATED];
    if let Some(sum) = conditions::summary(&conditions, &parts) {
        conditions::set(&mut conditions, sum, now);
    }
    let deleting = miner.metadata.deletion_timestamp.is_some();
    let phase = phase(deleting, sight.failure.is_some(), sight.pod.is_some(), sight.health.is_true());
    MinerStatus {
        pod_ref: sight.pod.as_ref().map(reference),
        last_updated: if old.phase == Some(phase) { old.last_updated } else { Some(conditions::whole_seconds(now)) },
        failure_reason: sight.failure.as_ref().map(|(reason, _)| *reason),
        failure_message: sight.failure.as_ref().map(|(_, message)| message.clone()),
        addresses: addresses(miner, sight.pod.as_ref(), settings),
        phase: Some(phase),
        chain_settings: sight.pod.as_ref().and_then(super::pod::made_from_chain).cloned().unwrap_or_default(),
        observed_generation: if acted {
            miner.metadata.generation.unwrap_or_default()
        } else {
            old.observed_generation
        },
        conditions,
    }
}

/// What the Pod says of its health. `lost`: there was one, as far as is known.
pub(crate) fn health(pod: Option<&Pod>, lost: bool) -> Condition {
    let provisioning =
        |message: String| Condition::no(POD_HEALTHY, Severity::Warning, conditions::REASON_POD_PROVISIONING, message);
    let Some(pod) = pod else {
        return if lost {
            Condition::no(
                POD_HEALTHY,
                Severity::Error,
                conditions::REASON_POD_NOT_FOUND,
                "the Pod is gone, and is to be created again",
            )
        } else {
            provisioning("the Pod is not there yet".to_owned())
        };
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return provisioning("the Pod is going, and is to be created again".to_owned());
    }
    let status = pod.status.as_ref();
    let ready =
        status.and_then(|status| status.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready"));
    match ready.map(|ready| ready.status.as_str()) {
        Some("True") => Condition::yes(POD_HEALTHY),
        Some("False") => {
            let message =
                why(pod).or_else(|| ready?.message.clone()).unwrap_or_else(|| "the Pod is not ready".to_owned());
            Condition::no(POD_HEALTHY, Severity::Warning, conditions::REASON_POD_CONDITIONS_FAILED, message)
        }
        Some(_) => {
            let message = ready.and_then(|ready| ready.message.clone()).unwrap_or_default();
            Condition::unknown(POD_HEALTHY, conditions::REASON_POD_CONDITIONS_FAILED, message)
        }
        None => provisioning(why(pod).unwrap_or_else(|| "the Pod has not started yet".to_owned())),
    }
}

/// What its container waits for or ended with: more telling than that a Pod is not ready.
fn why(pod: &Pod) -> Option<String> {
    let state = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?;
    let (reason, message) = match (&state.waiting, &state.terminated) {
        (Some(waiting), _) => (waiting.reason.clone()?, waiting.message.clone()),
        (None, Some(ended)) => (ended.reason.clone()?, Some(format!("exit code {}", ended.exit_code))),
        (None, None) => return None,
    };
    Some(message.map_or(reason.clone(), |message| format!("{reason}: {message}")))
}

fn reference(pod: &Pod) -> ObjectReference {
    let whole = pod.object_ref(&());
    // The revision changes all the time, and nobody refers to a revision.
    ObjectReference { resource_version: None, ..whole }
}

fn addresses(miner: &Miner, pod: Option<&Pod>, settings: &Settings) -> Vec<Address> {
    let ip = pod.and_then(|pod| pod.status.as_ref()?.pod_ip.clone()).filter(|ip| !ip.is_empty());
    let name = miner.genesis_of().filter(|_| ip.is_some()).map(|chain| super::pod::genesis_host(chain, settings));
    let address = |type_| move |address| Address { type_, address };
    ip.map(address(AddressType::InternalIP)).into_iter().chain(name.map(address(AddressType::InternalDNS))).collect()
}

/// Whether the Pod has come to an end that its kubelet will not change.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Failed" | "Succeeded"))
        && pod.meta().deletion_timestamp.is_none()
}

/// The name of a Pod for people.
pub(crate) fn named(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miner::tests::{genesis, miner, pod_that_is, second};
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting, ContainerStatus};
    use onex_crds::conditions::READY;
    use onex_crds::{FailureReason, Truth};

    fn sight(pod: Option<Pod>) -> Sight {
        Sight { health: health(pod.as_ref(), false), pod, service: None, failure: None }
    }

    fn said(miner: &Miner, sight: &Sight) -> MinerStatus {
        status(miner, sight, true, &Settings::default(), second(10))
    }

    #[test]
    fn the_table_of_phases() {
        use Phase::{Deleting, Failed, Pending, Provisioning, Running};
        for (deleting, failed, pod, healthy, expected) in [
            (false, false, false, false, Pending),
            (false, false, true, false, Provisioning),
            (false, false, true, true, Running),
            (false, true, false, false, Failed),
            (false, true, true, true, Failed),
            (true, false, true, true, Deleting),
            (true, true, false, false, Deleting),
        ] {
            assert_eq!(phase(deleting, failed, pod, healthy), expected);
        }
    }

    #[test]
    fn the_table_of_health() {
        for (pod, lost, status, reason) in [
            (None, false, Truth::False, "PodProvisioning"),
            (None, true, Truth::False, "PodNotFound"),
            (Some(pod_that_is(None)), false, Truth::False, "PodProvisioning"),
            (Some(pod_that_is(Some("True"))), false, Truth::True, ""),
            (Some(pod_that_is(Some("False"))), false, Truth::False, "PodConditionsFailed"),
            (Some(pod_that_is(Some("Unknown"))), false, Truth::Unknown, "PodConditionsFailed"),
        ] {
            let health = health(pod.as_ref(), lost);
            assert_eq!((health.status, health.reason.as_str()), (status, reason));
        }
    }

    #[test]
    fn what_a_container_waits_for_is_passed_on() {
        let mut pod = pod_that_is(Some("False"));
        let waiting = ContainerStateWaiting {
            reason: Some("ErrImageNeverPull".to_owned()),
            message: Some("no such image".to_owned()),
        };
        let state = ContainerState { waiting: Some(waiting), ..ContainerState::default() };
        pod.status.as_mut().unwrap().container_statuses =
            Some(vec![ContainerStatus { state: Some(state), ..ContainerStatus::default() }]);
        assert_eq!(health(Some(&pod), false).message, "ErrImageNeverPull: no such image");
    }

    #[test]
    fn a_ready_pod_makes_a_ready_running_miner_with_an_address() {
        let status = said(&miner(), &sight(Some(pod_that_is(Some("True")))));
        assert_eq!(status.phase, Some(Phase::Running));
        assert!(conditions::is_true(&status.conditions, READY));
        assert_eq!(status.addresses, [Address { type_: AddressType::InternalIP, address: "127.64.0.9".to_owned() }]);
        let pod_ref = status.pod_ref.unwrap();
        assert_eq!(
            (pod_ref.kind.as_deref(), pod_ref.name.as_deref(), pod_ref.uid.as_deref()),
            (Some("Pod"), Some("free"), Some("pod-uid"))
        );
        assert_eq!(status.last_updated, Some(conditions::whole_seconds(second(10))));
    }

    #[test]
    fn a_genesis_has_a_name_too() {
        let status = said(&genesis(), &sight(Some(pod_that_is(Some("True")))));
        assert_eq!(status.addresses[1].address, "genesis.kube-system.svc.onexstack.com");
    }

    #[test]
    fn a_failed_health_check_makes_a_running_miner_unready() {
        let mut miner = miner();
        let conditions = &mut miner.status.get_or_insert_default().conditions;
        conditions::set(conditions, Condition::no(HEALTH_CHECK_SUCCEEDED, Severity::Warning, "Slow", ""), second(1));
        let status = said(&miner, &sight(Some(pod_that_is(Some("True")))));
        assert_eq!(conditions::get(&status.conditions, READY).unwrap().reason, "Slow");
        assert_eq!(status.phase, Some(Phase::Running));
    }

    #[test]
    fn a_genesis_without_a_service_says_so_until_it_has_one() {
        let mut genesis = genesis();
        let trouble = Condition::no(SERVICE_CREATED, Severity::Error, "NameTaken", "somebody else's");
        let ready = || sight(Some(pod_that_is(Some("True"))));
        let told = said(&genesis, &Sight { service: Some(trouble), ..ready() });
        assert_eq!(conditions::get(&told.conditions, READY).unwrap().reason, "NameTaken");
        assert_eq!(told.phase, Some(Phase::Running));
        genesis.status = Some(told);
        let cured = said(&genesis, &ready());
        assert_eq!(conditions::get(&cured.conditions, SERVICE_CREATED), None);
        assert!(conditions::is_true(&cured.conditions, READY));
    }

    #[test]
    fn a_failure_goes_away_with_its_cause() {
        let mut miner = miner();
        let failure = Some((FailureReason::InvalidConfiguration, "no such type".to_owned()));
        let failed = said(&miner, &Sight { failure, ..sight(None) });
        assert_eq!((failed.phase, failed.failure_message.as_deref()), (Some(Phase::Failed), Some("no such type")));
        miner.status = Some(failed);
        let cured = said(&miner, &sight(None));
        assert_eq!((cured.phase, cured.failure_reason, cured.failure_message), (Some(Phase::Pending), None, None));
    }

    #[test]
    fn the_same_sight_gives_the_same_status() {
        let mut miner = miner();
        let first = said(&miner, &sight(Some(pod_that_is(None))));
        miner.status = Some(first.clone());
        assert_eq!(status(&miner, &sight(Some(pod_that_is(None))), true, &Settings::default(), second(99)), first);
    }
}
