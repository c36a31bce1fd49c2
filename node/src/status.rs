//! The status of a Pod, computed whole from what is seen.

use crate::pod::{self, RestartPolicy};
use crate::seen::{ContainerSeen, PodSeen, State, Terminated};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::net::Ipv4Addr;

/// What `pod` is, seen from here. Conditions that did not change keep the time at which they last did.
pub(crate) fn compute(
    pod: &Pod,
    seen: &PodSeen,
    before: Option<&PodStatus>,
    host: Ipv4Addr,
    now: Timestamp,
) -> PodStatus {
    let ips = seen.address.map(|address| address.to_string());
    PodStatus {
        phase: Some(phase(pod::restart_policy(pod), seen).to_owned()),
        conditions: Some(conditions(pod, seen, before, now)),
        host_ip: Some(host.to_string()),
        host_ips: Some(vec![HostIP { ip: host.to_string() }]),
        pod_ip: ips.clone(),
        pod_ips: ips.map(|ip| vec![PodIP { ip }]),
        start_time: Some(Time(seen.started_at)),
        init_container_statuses: Some(statuses(pod::init_containers(pod), &seen.init)).filter(|all| !all.is_empty()),
        container_statuses: Some(statuses(pod::containers(pod), &seen.containers)),
        qos_class: before.and_then(|status| status.qos_class.clone()),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// What changes in the status of `pod` when nothing of it runs and nobody looks after it.
pub(crate) fn without_processes(pod: &Pod, phase: &str, reason: &str, now: Time) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let (mut conditions, mut containers) = (before.conditions, before.container_statuses);
    let readiness = |condition: &&mut PodCondition| matches!(&*condition.type_, "Ready" | "ContainersReady");
    for ready in conditions.iter_mut().flatten().filter(readiness) {
        if std::mem::replace(&mut ready.status, "False".to_owned()) != "False" {
            (ready.reason, ready.last_transition_time) = (Some(reason.to_owned()), Some(now.clone()));
        }
    }
    for container in containers.iter_mut().flatten() {
        (container.ready, container.started) = (false, Some(false));
    }
    let phase = Some(phase.to_owned());
    PodStatus { phase, conditions, container_statuses: containers, ..PodStatus::default() }
}

/// Kubernetes' rules for the one word that sums a Pod up.
fn phase(policy: RestartPolicy, seen: &PodSeen) -> &'static str {
    if seen.stopped {
        let fine = seen.containers.iter().all(ContainerSeen::succeeded);
        return if fine { "Succeeded" } else { "Failed" };
    }
    let gave_up = |container: &ContainerSeen| {
        let end = container.terminated();
        end.is_some_and(|end| end.exit_code != 0 && !policy.for_init().restarts(end.exit_code))
    };
    if seen.init.iter().any(gave_up) {
        return "Failed";
    }
    if !seen.init.iter().all(ContainerSeen::succeeded) {
        return "Pending";
    }
    // A container that waits to be started again counts as running; one that never ran keeps the Pod pending.
    let never_ran =
        |container: &ContainerSeen| matches!(container.state, State::Waiting { .. }) && container.last.is_none();
    if seen.containers.iter().any(never_ran) {
        return "Pending";
    }
    if policy == RestartPolicy::Always || !seen.containers.iter().all(|container| container.terminated().is_some()) {
        return "Running";
    }
    if seen.containers.iter().all(ContainerSeen::succeeded) { "Succeeded" } else { "Failed" }
}

fn conditions(pod: &Pod, seen: &PodSeen, before: Option<&PodStatus>, now: Timestamp) -> Vec<PodCondition> {
    let names = |containers: &[Container], seen: &[ContainerSeen], lacks: fn(&ContainerSeen) -> bool| {
        let lacking = containers.iter().zip(seen).filter(|(_, seen)| lacks(seen));
        lacking.map(|(container, _)| container.name.clone()).collect::<Vec<_>>()
    };
    let uninitialized = names(pod::init_containers(pod), &seen.init, |seen| !seen.succeeded());
    let unready = names(pod::containers(pod), &seen.containers, |seen| !seen.ready);
    let over = matches!(phase(pod::restart_policy(pod), seen), "Succeeded" | "Failed");
    let completed = |problem: Option<(&'static str, String)>| match problem {
        Some(_) if over => Some(("PodCompleted", String::new())),
        other => other,
    };
    let initialized = problem("ContainersNotInitialized", "incomplete", &uninitialized);
    let ready = completed(problem("ContainersNotReady", "unready", &unready));
    let ours = [
        ("PodReadyToStartContainers", seen.address.is_none().then(|| ("NoAddress", String::new()))),
        ("Initialized", initialized),
        ("Ready", ready.clone()),
        ("ContainersReady", ready),
        ("PodScheduled", None),
    ];
    // Somebody else's conditions stay as they are.
    let others = before.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let others: Vec<_> = others.filter(|other| ours.iter().all(|(kind, _)| *kind != other.type_)).cloned().collect();
    let ours = ours.into_iter().map(|(kind, problem)| condition(kind, problem, before, now));
    ours.chain(others).collect()
}

fn problem(reason: &'static str, what: &str, containers: &[String]) -> Option<(&'static str, String)> {
    if containers.is_empty() {
        return None;
    }
    Some((reason, format!("containers with {what} status: [{}]", containers.join(" "))))
}

fn condition(
    kind: &str,
    problem: Option<(&'static str, String)>,
    before: Option<&PodStatus>,
    now: Timestamp,
) -> PodCondition {
    let status = if problem.is_none() { "True" } else { "False" };
    let earlier = before
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == kind))
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    let (reason, message) = problem.unzip();
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message: message.filter(|message| !message.is_empty()),
        last_transition_time: Some(earlier.unwrap_or(Time(now))),
        ..PodCondition::default()
    }
}

fn statuses(containers: &[Container], seen: &[ContainerSeen]) -> Vec<ContainerStatus> {
    containers.iter().zip(seen).map(|(container, seen)| status(container, seen)).collect()
}

fn status(container: &Container, seen: &ContainerSeen) -> ContainerStatus {
    let image = container.image.clone().unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        image_id: if seen.id.is_empty() { String::new() } else { image.clone() },
        image,
        container_id: Some(seen.id.clone()).filter(|id| !id.is_empty()),
        ready: seen.ready,
        started: Some(seen.started),
        restart_count: seen.restarts,
        state: Some(state(&seen.state)),
        last_state: Some(ContainerState {
            terminated: seen.last.as_ref().map(terminated),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

fn state(state: &State) -> ContainerState {
    let mut described = ContainerState::default();
    match state {
        State::Waiting { reason, message } => {
            described.waiting = Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: Some(message.clone()).filter(|message| !message.is_empty()),
            });
        }
        State::Running { started_at } => {
            described.running = Some(ContainerStateRunning { started_at: Some(Time(*started_at)) });
        }
        State::Terminated(end) => described.terminated = Some(terminated(end)),
    }
    described
}

fn terminated(end: &Terminated) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: end.exit_code,
        signal: end.signal,
        reason: Some(end.reason.clone()),
        message: Some(end.message.clone()).filter(|message| !message.is_empty()),
        started_at: end.started_at.map(Time),
        finished_at: Some(Time(end.finished_at)),
        container_id: Some(end.id.clone()).filter(|id| !id.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(policy: &str, init: usize, containers: usize) -> Pod {
        let many = |prefix: &str, count: usize| -> Vec<_> {
            (0..count).map(|n| json!({"name": format!("{prefix}{n}"), "image": "x"})).collect()
        };
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"restartPolicy": policy, "initContainers": many("i", init), "containers": many("c", containers)},
        }))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// `w` waits, `W` waits after a failed run, `r` runs, `R` runs and is ready, a digit ended with that code.
    fn containers(text: &str) -> Vec<ContainerSeen> {
        let end = |code| Terminated {
            exit_code: code,
            signal: None,
            reason: "Error".into(),
            message: String::new(),
            started_at: Some(at(1)),
            finished_at: at(2),
            id: "process://1".into(),
        };
        text.chars()
            .map(|what| ContainerSeen {
                state: match what {
                    'w' | 'W' => State::Waiting { reason: "ContainerCreating".into(), message: String::new() },
                    'r' | 'R' => State::Running { started_at: at(3) },
                    code => State::Terminated(end(code.to_digit(10).unwrap() as i32)),
                },
                last: (what == 'W').then(|| end(1)),
                restarts: 0,
                ready: what == 'R',
                started: what == 'R',
                id: String::new(),
            })
            .collect()
    }

    fn seen(init: &str, main: &str) -> PodSeen {
        PodSeen {
            address: Some(Ipv4Addr::new(127, 64, 0, 1)),
            started_at: at(0),
            init: containers(init),
            containers: containers(main),
            stopped: false,
        }
    }

    fn of(policy: &str, init: &str, main: &str) -> PodStatus {
        let pod = pod(policy, init.len(), main.len());
        compute(&pod, &seen(init, main), None, Ipv4Addr::LOCALHOST, at(10))
    }

    #[test]
    fn the_phase_follows_kubernetes_rules() {
        for (policy, init, main, expected) in [
            ("Always", "", "w", "Pending"),
            ("Always", "", "R", "Running"),
            ("Always", "", "Rw", "Pending"),
            ("Always", "", "W", "Running"),
            ("Always", "", "0", "Running"),
            ("Never", "", "0", "Succeeded"),
            ("Never", "", "01", "Failed"),
            ("Never", "", "1r", "Running"),
            ("OnFailure", "", "0W", "Running"),
            ("OnFailure", "", "00", "Succeeded"),
            ("Always", "r", "w", "Pending"),
            ("Always", "0w", "w", "Pending"),
            ("Always", "W", "w", "Pending"),
            ("Always", "0", "R", "Running"),
            ("Never", "1", "w", "Failed"),
        ] {
            let phase = of(policy, init, main).phase.unwrap();
            assert_eq!(phase, expected, "{policy} {init:?} {main:?}");
        }
    }

    fn is_true(status: &PodStatus, kind: &str) -> bool {
        let conditions = status.conditions.as_ref().unwrap();
        conditions.iter().find(|condition| condition.type_ == kind).unwrap().status == "True"
    }

    #[test]
    fn a_pod_is_ready_when_every_container_is() {
        for (init, main, initialized, ready) in [
            ("", "R", true, true),
            ("", "Rr", true, false),
            ("w", "w", false, false),
            ("0", "R", true, true),
            ("", "W", true, false),
        ] {
            let status = of("Always", init, main);
            assert_eq!(is_true(&status, "Initialized"), initialized, "{init:?} {main:?}");
            assert_eq!(is_true(&status, "Ready"), ready, "{init:?} {main:?}");
            assert_eq!(is_true(&status, "ContainersReady"), ready, "{init:?} {main:?}");
            assert!(is_true(&status, "PodScheduled"));
        }
    }

    #[test]
    fn a_condition_remembers_when_it_changed() {
        let pod = pod("Always", 0, 1);
        let time = |status: &PodStatus, kind: &str| {
            let conditions = status.conditions.clone().unwrap();
            let condition = conditions.into_iter().find(|condition| condition.type_ == kind).unwrap();
            condition.last_transition_time.unwrap().0
        };
        let first = compute(&pod, &seen("", "r"), None, Ipv4Addr::LOCALHOST, at(10));
        let second = compute(&pod, &seen("", "R"), Some(&first), Ipv4Addr::LOCALHOST, at(20));
        assert_eq!((time(&second, "Ready"), time(&second, "PodScheduled")), (at(20), at(10)));
    }

    #[test]
    fn a_pod_that_was_stopped_is_over() {
        for (main, expected) in [("0", "Succeeded"), ("00", "Succeeded"), ("01", "Failed"), ("w", "Failed")] {
            let stopped = PodSeen { stopped: true, ..seen("", main) };
            let status = compute(&pod("Always", 0, main.len()), &stopped, None, Ipv4Addr::LOCALHOST, at(10));
            assert_eq!(status.phase.as_deref(), Some(expected), "{main}");
            assert!(!is_true(&status, "Ready"));
        }
    }

    #[test]
    fn what_a_status_says_is_remembered_by_the_next_run_of_the_node() {
        let mut before = pod("Always", 0, 3);
        let status = compute(&before, &seen("", "R1w"), None, Ipv4Addr::LOCALHOST, at(10));
        before.status = Some(status);
        let remembered = PodSeen::first(&before, at(50)).containers;
        let codes: Vec<_> = remembered.iter().map(|c| c.terminated().map(|end| end.exit_code)).collect();
        assert_eq!(codes, [Some(137), Some(1), None]);
    }
}
