//! What the people who look at a Pod should be told, on its way to the apiserver.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio::sync::mpsc;

/// One thing that happened to a Pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Whether somebody should look at it.
    pub warning: bool,
    /// One word, as Kubernetes uses it: `Started`, `BackOff`.
    pub reason: &'static str,
    /// What was being done.
    pub action: &'static str,
    /// A sentence.
    pub note: String,
    /// The Pod.
    pub regarding: ObjectReference,
}

/// Where notices go. Never waits: when the queue is full a notice is dropped, because work must not wait for gossip.
#[derive(Debug, Clone)]
pub(crate) struct Notices(mpsc::Sender<Notice>);

/// How many notices wait for the apiserver at most.
pub(crate) const QUEUE: usize = 1024;

impl Notices {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    pub(crate) fn normal(&self, pod: &Pod, reason: &'static str, action: &'static str, note: String) {
        self.send(pod, false, reason, action, note);
    }

    pub(crate) fn warning(&self, pod: &Pod, reason: &'static str, action: &'static str, note: String) {
        self.send(pod, true, reason, action, note);
    }

    fn send(&self, pod: &Pod, warning: bool, reason: &'static str, action: &'static str, note: String) {
        let notice = Notice { warning, reason, action, note, regarding: crate::pod::reference(pod) };
        if self.0.try_send(notice).is_err() {
            tracing::debug!(reason, "dropped a notice, because too many wait");
        }
    }
}
