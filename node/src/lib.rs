//! A kubelet for processes: it registers a Node, binds waiting Pods to it, and runs their containers as child processes.
//!
//! It is not a container runtime. There are no images, no namespaces and no volumes: an image is a name that the
//! [`Settings`] map to a local executable (`…/onex-toyblc…` is our own program), and what isolates one Pod from another is an
//! address of its own on loopback, a directory of its own, a process group and, where the machine allows it, a cgroup.
//!
//! What a process cannot have is refused with a reason where it would be missed (volumes, sidecars, unknown variables), and
//! left out where not: security contexts, lifecycle hooks, deadlines, affinity and taints. Probes by exec, gRPC and
//! HTTPS fail and say why. A Service's name in arguments and variables is replaced when a container starts, and not followed
//! after that.
//!
//! With [`Settings::dry_run`] no process is started at all: Pods take the same ways through the apiserver, and what would run
//! is pretended.
//!
//! Start at [`Node`]. A walk through one Pod: [`api`](self) sees it and binds it, `runner` gives it a home and an address,
//! `launch` turns each container into a command line, `process` starts it through the [`shim`], `container` looks after
//! it until it ends, and `status` says what is seen.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test ends where it goes wrong"))]

mod addresses;
mod api;
mod arguments;
mod backoff;
mod cgroup;
mod container;
mod dry;
mod events;
mod home;
mod image;
mod launch;
mod log;
mod node;
mod pod;
mod probe;
mod process;
mod reaper;
mod records;
mod router;
pub mod runner;
mod seen;
mod settings;
mod shim;
mod spawner;
mod status;

pub use addresses::AddressRange;
pub use events::Notice;
pub use launch::{Surroundings, Target};
pub use node::Node;
pub use pod::PodName;
pub use seen::{ContainerSeen, PodSeen, State, Terminated};
pub use settings::Settings;
pub use shim::shim;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// What can keep the node, or the start of one process, from working.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be made, read or written.
    #[error("using the data directory {path}")]
    DataDirectory {
        /// The directory or file in question.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread that starts every process could not be started.
    #[error("starting the thread that starts processes")]
    Spawner(#[source] io::Error),
    /// The thread that looks for what containers left behind could not be started.
    #[error("starting the thread that looks for what containers left behind")]
    Reaper(#[source] io::Error),
    /// The path of the running program is unknown, so it cannot start itself as shim.
    #[error("finding the path of the running program")]
    OwnProgram(#[source] io::Error),
    /// A process could not be started.
    #[error("starting {program:?}")]
    Start {
        /// The executable.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The shim was started with arguments it does not understand.
    #[error("the shim expects `--parent PID [--cgroup DIRECTORY]... -- PROGRAM [ARGUMENT]...`, and {0}")]
    ShimUsage(&'static str),
    /// The process that wanted the program is gone, so the program must not be started.
    #[error("the parent process {0} is gone")]
    ParentGone(i32),
    /// The kernel refused to send a signal when the parent dies.
    #[error("asking to die with the parent")]
    ParentDeathSignal(#[source] io::Error),
    /// The shim could not become the program.
    #[error("executing {program:?}")]
    Execute {
        /// The executable.
        program: OsString,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
