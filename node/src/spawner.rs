//! The one thread that starts every process.
//!
//! The kernel sends the parent-death signal when the *thread* that started a child ends, and the runtime's threads come and
//! go. This one lives as long as the node: when it ends, all processes are killed.

use crate::reaper::Reaper;
use crate::records::Records;
use crate::{Error, Result};
use rustix::process::Pid;
use std::io;
use std::path::PathBuf;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// How many starts wait for the thread at most.
const QUEUE: usize = 64;

/// One process to be started.
struct Request {
    command: Command,
    cgroups: Vec<PathBuf>,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// Starts processes that do not outlive it.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    requests: mpsc::Sender<Request>,
    records: Records,
    reaper: Reaper,
}

impl Spawner {
    /// Starts the thread, and the one that looks after it for what is left. `runtime` will watch over the children.
    pub(crate) fn start(records: Records, runtime: Handle) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let written = records.clone();
        let reaper = Reaper::start(records.clone())?;
        std::thread::Builder::new()
            .name("onex-spawner".to_owned())
            .spawn(move || serve(receiver, &written, &runtime))
            .map_err(Error::Spawner)?;
        Ok(Self { requests, records, reaper })
    }

    /// Starts `command` and writes it down.
    pub(crate) async fn spawn(&self, command: Command, cgroups: Vec<PathBuf>) -> io::Result<Child> {
        let (answer, answered) = oneshot::channel();
        let request = Request { command, cgroups, answer };
        let gone = || io::Error::other("the thread that starts processes is gone");
        self.requests.send(request).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    pub(crate) fn reaper(&self) -> &Reaper {
        &self.reaper
    }
}

fn serve(mut requests: mpsc::Receiver<Request>, records: &Records, runtime: &Handle) {
    while let Some(mut request) = requests.blocking_recv() {
        let child = {
            let _context = runtime.enter();
            request.command.spawn()
        };
        let child = child.and_then(|child| {
            let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
            let pid = pid.ok_or_else(|| io::Error::other("the process ended before it was seen"))?;
            records.add(pid, &request.cgroups)?;
            Ok(child)
        });
        // Nobody waits any more: the child is dropped, and with it killed.
        let _ = request.answer.send(child);
    }
}
