//! What the node reads off a Pod object.

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodSpec};
use kube::{Resource, ResourceExt};
use std::fmt;

/// Namespace and name: what a Pod's address and directory belong to, also when the Pod is re-created.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl PodName {
    /// The name of `pod`.
    pub fn of(pod: &Pod) -> Self {
        Self { namespace: pod.namespace().unwrap_or_else(|| "default".to_owned()), name: pod.name_any() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }

    /// Init containers are never started again once they succeeded.
    pub(crate) fn for_init(self) -> Self {
        match self {
            Self::Always => Self::OnFailure,
            other => other,
        }
    }
}

pub(crate) fn restart_policy(pod: &Pod) -> RestartPolicy {
    match spec(pod).and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

pub(crate) fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn containers(pod: &Pod) -> &[Container] {
    spec(pod).map_or(&[], |spec| &spec.containers)
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

/// The uid of the controller that owns the Pod, or nothing.
pub(crate) fn owner(pod: &Pod) -> &str {
    pod.owner_references().iter().find(|owner| owner.controller == Some(true)).map_or("", |owner| owner.uid.as_str())
}

pub(crate) fn node(pod: &Pod) -> Option<&str> {
    spec(pod)?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// A year: more than anybody waits, and less than what a clock cannot count.
const LONGEST_GRACE_SECONDS: u64 = 365 * 24 * 3600;

/// Seconds that containers have between SIGTERM and SIGKILL.
pub(crate) fn grace_seconds(pod: &Pod) -> u64 {
    let wanted = pod.metadata.deletion_grace_period_seconds.or_else(|| spec(pod)?.termination_grace_period_seconds);
    u64::try_from(wanted.unwrap_or(30)).unwrap_or(0).min(LONGEST_GRACE_SECONDS)
}

/// Succeeded or Failed: nothing of it will ever run again.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// It wants the address of the machine instead of one of its own.
pub(crate) fn has_host_network(pod: &Pod) -> bool {
    spec(pod).is_some_and(|spec| spec.host_network == Some(true))
}

pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    pod.object_ref(&())
}
