//! What the runner observes of a Pod. The status of the Pod is computed from this, and from nothing else.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use std::net::Ipv4Addr;

/// How a run of a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminated {
    /// The exit code; 128 and the signal when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// One word: `Completed`, `Error`, `OOMKilled`.
    pub reason: String,
    /// More about it, or nothing.
    pub message: String,
    /// When it began, if that is known.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Which process it was.
    pub id: String,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not running, and it will be tried (again).
    Waiting {
        /// One word: `ContainerCreating`, `CrashLoopBackOff`.
        reason: String,
        /// What it waits for.
        message: String,
    },
    /// Running.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// It ended, and is not started again.
    Terminated(Terminated),
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSeen {
    /// What it is doing now.
    pub state: State,
    /// How the run before this one ended.
    pub last: Option<Terminated>,
    /// How often it was started again.
    pub restarts: i32,
    /// Running, and its readiness probe (if any) agrees.
    pub ready: bool,
    /// Running, and its startup probe (if any) has agreed once.
    pub started: bool,
    /// Which process it is or was.
    pub id: String,
}

impl ContainerSeen {
    fn waiting(reason: &str) -> Self {
        Self {
            state: State::Waiting { reason: reason.to_owned(), message: String::new() },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            id: String::new(),
        }
    }

    /// How its run ended, when it ended.
    pub(crate) fn terminated(&self) -> Option<&Terminated> {
        match &self.state {
            State::Terminated(terminated) => Some(terminated),
            _ => None,
        }
    }

    /// It ended well.
    pub(crate) fn succeeded(&self) -> bool {
        self.terminated().is_some_and(|end| end.exit_code == 0)
    }

    /// What the status says that an earlier run of the node saw. A container that ran then does not run now.
    fn remembered(status: &ContainerStatus, now: Timestamp) -> Self {
        let state = status.state.as_ref();
        let id = status.container_id.clone().unwrap_or_default();
        let terminated = state.and_then(ended).or_else(|| {
            let running = state?.running.as_ref()?;
            Some(Terminated {
                exit_code: 137,
                signal: Some(9),
                reason: "ContainerStatusUnknown".to_owned(),
                message: "the node was stopped while the container ran".to_owned(),
                started_at: running.started_at.as_ref().map(|time| time.0),
                finished_at: now,
                id: id.clone(),
            })
        });
        let fresh = Self::waiting("ContainerCreating");
        Self {
            state: terminated.map_or(fresh.state, State::Terminated),
            last: status.last_state.as_ref().and_then(ended),
            restarts: status.restart_count,
            ready: false,
            started: false,
            id,
        }
    }
}

fn ended(state: &ContainerState) -> Option<Terminated> {
    let terminated = state.terminated.as_ref()?;
    Some(Terminated {
        exit_code: terminated.exit_code,
        signal: terminated.signal,
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
        started_at: terminated.started_at.as_ref().map(|time| time.0),
        finished_at: terminated.finished_at.as_ref()?.0,
        id: terminated.container_id.clone().unwrap_or_default(),
    })
}

/// A Pod: its containers are in the order of its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSeen {
    /// Its address, once it has one.
    pub address: Option<Ipv4Addr>,
    /// When the node took it on.
    pub started_at: Timestamp,
    /// The init containers.
    pub init: Vec<ContainerSeen>,
    /// The containers.
    pub containers: Vec<ContainerSeen>,
    /// It was told to stop, and nothing of it runs any more.
    pub stopped: bool,
}

impl PodSeen {
    /// A Pod before anything of it was started, with what its status says about earlier runs.
    pub(crate) fn first(pod: &Pod, now: Timestamp) -> Self {
        let status = pod.status.as_ref();
        let find = |statuses: Option<&Vec<ContainerStatus>>, name: &str, reason: &str| {
            statuses
                .and_then(|statuses| statuses.iter().find(|status| status.name == name))
                .map_or_else(|| ContainerSeen::waiting(reason), |status| ContainerSeen::remembered(status, now))
        };
        let init_statuses = status.and_then(|status| status.init_container_statuses.as_ref());
        let statuses = status.and_then(|status| status.container_statuses.as_ref());
        let inits = crate::pod::init_containers(pod);
        let reason = if inits.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        Self {
            address: None,
            started_at: status.and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0),
            init: inits.iter().map(|container| find(init_statuses, &container.name, "PodInitializing")).collect(),
            containers: crate::pod::containers(pod)
                .iter()
                .map(|container| find(statuses, &container.name, reason))
                .collect(),
            stopped: false,
        }
    }
}
