//! Pods that only seem to run: what a dry run has in place of processes.

use crate::addresses::{AddressRange, Addresses};
use crate::runner::Wish;
use crate::seen::{ContainerSeen, PodSeen, State, Terminated};
use crate::{PodName, pod};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Shows Pods that are ready from the first moment until they are to stop.
pub(crate) struct Pretence {
    addresses: Mutex<Addresses>,
}

impl Pretence {
    /// Pods get addresses of `range`, on which nobody listens.
    pub(crate) fn new(range: AddressRange, salt: &str) -> Self {
        Self { addresses: Mutex::new(Addresses::new(range, salt)) }
    }

    /// Shows on `board` what a real run would, and returns when it would be over.
    ///
    /// What is shown first is all that happens, so that a Pod costs one write of its status.
    pub(crate) async fn run(&self, pod: &Pod, mut wishes: watch::Receiver<Wish>, board: &watch::Sender<PodSeen>) {
        let name = PodName::of(pod).to_string();
        let address = self.addresses.lock().claim(&name);
        let ends = ends_by_itself(pod);
        board.send_modify(|seen| {
            seen.address = address;
            let (init, containers) = (pod::init_containers(pod), pod::containers(pod));
            for (container, seen) in init.iter().zip(&mut seen.init) {
                end(seen, &id(pod, &container.name));
            }
            for (container, seen) in containers.iter().zip(&mut seen.containers) {
                begin(seen, &id(pod, &container.name));
                if ends {
                    end(seen, &id(pod, &container.name));
                }
            }
        });
        if !ends {
            // The other end goes with the Pod, which stops it just as well.
            drop(wishes.wait_for(|wish| wish.stop_by.is_some()).await);
            board.send_modify(|seen| {
                for (container, seen) in pod::containers(pod).iter().zip(&mut seen.containers) {
                    end(seen, &id(pod, &container.name));
                }
                seen.stopped = true;
            });
        }
        if let Some(address) = address {
            self.addresses.lock().release(address);
        }
    }
}

/// A Job waits for its Pods to end, and everybody else for theirs to run.
fn ends_by_itself(pod: &Pod) -> bool {
    pod.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.kind == "Job")
}

fn id(pod: &Pod, container: &str) -> String {
    format!("dry-run://{}/{container}", pod::uid(pod))
}

/// It runs, and if it ran under an earlier run of the node, it never stopped.
fn begin(seen: &mut ContainerSeen, id: &str) {
    let before = seen.terminated().filter(|end| end.id == id).and_then(|end| end.started_at);
    seen.state = State::Running { started_at: before.unwrap_or_else(Timestamp::now) };
    (seen.ready, seen.started, seen.id) = (true, true, id.to_owned());
}

/// It ended well, unless it had ended already.
fn end(seen: &mut ContainerSeen, id: &str) {
    let started_at = match &seen.state {
        State::Terminated(_) => return,
        State::Running { started_at } => Some(*started_at),
        State::Waiting { .. } => None,
    };
    seen.state = State::Terminated(Terminated {
        exit_code: 0,
        signal: None,
        reason: "Completed".to_owned(),
        message: String::new(),
        started_at,
        finished_at: Timestamp::now(),
        id: id.to_owned(),
    });
    (seen.ready, seen.id) = (false, id.to_owned());
}
