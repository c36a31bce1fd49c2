//! The scheduler of a cluster of one node: which waiting Pods are ours.

use crate::{pod, status};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

/// What the events of scheduling are about.
pub(super) const ACTION: &str = "Binding";

/// What to do with a Pod that has no node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is ours.
    Bind,
    /// It is somebody else's, or has a node, or goes away.
    Leave,
    /// It would be ours, and something is in the way.
    Impossible(String),
}

/// Decides about `pod`. Only schedulerName and nodeSelector are looked at, not affinity and taints: with one node they could
/// only keep a Pod from running anywhere.
pub(super) fn decide(pod: &Pod, node: &Node, room: bool) -> Decision {
    let Some(spec) = pod::spec(pod) else {
        return Decision::Leave;
    };
    let scheduler = spec.scheduler_name.as_deref().unwrap_or_default();
    let ours = matches!(scheduler, "" | "default-scheduler");
    if !ours || pod::node(pod).is_some() || pod::is_deleting(pod) || pod::is_over(pod) {
        return Decision::Leave;
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return Decision::Leave;
    }
    let mut selector = spec.node_selector.iter().flatten();
    if !selector.all(|(key, value)| node.labels().get(key) == Some(value)) {
        return impossible("1 node(s) didn't match Pod's node affinity/selector");
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        return impossible("1 node(s) were unschedulable");
    }
    if !room {
        return Decision::Impossible(no_room());
    }
    Decision::Bind
}

/// Why a Pod has to wait while the node runs as many as it may.
pub(super) fn no_room() -> String {
    unavailable("Too many pods")
}

fn impossible(why: &str) -> Decision {
    Decision::Impossible(unavailable(why))
}

fn unavailable(why: &str) -> String {
    format!("0/1 nodes are available: {why}.")
}

/// What is posted to bind `pod` to `node`.
pub(super) fn binding(pod: &Pod, node: &str) -> Binding {
    Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    }
}

/// What changes in the status of `pod` when it cannot be scheduled, or `None` when it says so already. It may have run before,
/// when the node took more Pods.
pub(super) fn unschedulable(pod: &Pod, why: &str, now: Time) -> Option<PodStatus> {
    let before = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let about = |condition: &PodCondition| condition.type_ == "PodScheduled";
    let says = |condition: &PodCondition| about(condition) && condition.message.as_deref() == Some(why);
    if before.is_some_and(|conditions| conditions.iter().any(says)) {
        return None;
    }
    let mut status = status::without_processes(pod, "Pending", "Unschedulable", now.clone());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| !about(condition));
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(why.to_owned()),
        last_transition_time: Some(now),
        ..PodCondition::default()
    });
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn node(unschedulable: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "onex", "labels": {"kubernetes.io/os": "linux"}},
            "spec": {"unschedulable": unschedulable},
        }))
        .unwrap()
    }

    #[test]
    fn waiting_pods_of_ours_are_bound() {
        for (spec, bound) in [
            (json!({"containers": []}), true),
            (json!({"containers": [], "schedulerName": "default-scheduler"}), true),
            (json!({"containers": [], "schedulerName": "another"}), false),
            (json!({"containers": [], "nodeName": "elsewhere"}), false),
            (json!({"containers": [], "schedulingGates": [{"name": "wait"}]}), false),
            (json!({"containers": [], "nodeSelector": {"kubernetes.io/os": "linux"}}), true),
        ] {
            let expected = if bound { Decision::Bind } else { Decision::Leave };
            assert_eq!(decide(&pod(spec.clone()), &node(false), true), expected, "{spec}");
        }
    }

    #[test]
    fn what_keeps_a_pod_from_a_node_is_said() {
        let wrong = pod(json!({"containers": [], "nodeSelector": {"kubernetes.io/os": "windows"}}));
        let right = pod(json!({"containers": []}));
        for (pod, node, room, why) in [
            (&wrong, node(false), true, "selector"),
            (&right, node(true), true, "unschedulable"),
            (&right, node(false), false, "Too many pods"),
        ] {
            assert!(matches!(decide(pod, &node, room), Decision::Impossible(said) if said.contains(why)), "{why}");
        }
    }

    #[test]
    fn that_a_pod_cannot_be_scheduled_is_said_once() {
        let now = Time(Timestamp::UNIX_EPOCH);
        let mut pod = pod(json!({"containers": []}));
        pod.status = unschedulable(&pod, "no room", now.clone());
        assert!(pod.status.is_some());
        assert_eq!(unschedulable(&pod, "no room", now.clone()), None);
        let conditions = unschedulable(&pod, "another reason", now).unwrap().conditions;
        assert_eq!(conditions.map(|all| all.len()), Some(1));
    }

    #[test]
    fn a_pod_that_ran_and_does_not_fit_any_more_is_not_ready() {
        let mut pod = pod(json!({"containers": []}));
        pod.status = serde_json::from_value(json!({
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 2}],
        }))
        .unwrap();
        let status = unschedulable(&pod, "no room", Time(Timestamp::UNIX_EPOCH)).unwrap();
        let conditions = status.conditions.unwrap();
        let said: Vec<_> = conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str())).collect();
        assert_eq!(said, [("Ready", "False"), ("Initialized", "True"), ("PodScheduled", "False")]);
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        let container = &status.container_statuses.unwrap()[0];
        assert_eq!((container.ready, container.restart_count), (false, 2));
    }
}
