//! One running program: started through the shim, listened to, waited for, killed.

use crate::cgroup::Confinement;
use crate::launch::Launch;
use crate::log::{self, Log};
use crate::records::CONTAINER_MARK;
use crate::spawner::Spawner;
use crate::{Error, Result};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// How long is listened to a program that ended: a child of it may have kept the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long killed processes may take to leave their cgroups.
const LEAVING: Duration = Duration::from_secs(2);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 128 and the signal when a signal ended it, as shells say it.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) out_of_memory: bool,
    pub(crate) at: Timestamp,
}

/// A program that was started. Dropping it kills the program and all of its process group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    captures: JoinSet<()>,
    log: Arc<Log>,
    confinement: Confinement,
    spawner: Spawner,
    /// What everything that it starts carries in its environment.
    mark: Option<String>,
    ended: bool,
    pub(crate) started_at: Timestamp,
}

impl Process {
    /// Starts `launch` by `shim` (executable and first arguments), in a process group of its own.
    pub(crate) async fn start(
        launch: &Launch,
        shim: &[String],
        confinement: Confinement,
        log: Arc<Log>,
        spawner: &Spawner,
    ) -> Result<Self> {
        let start = |source| Error::Start { program: launch.program.clone(), source };
        let command = command(launch, shim, &confinement);
        let groups = confinement.groups().to_vec();
        let mut child = spawner.spawn(command, groups).await.map_err(start)?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.expect("a child that nobody waited for has a number");
        let mut captures = JoinSet::new();
        if let Some(output) = child.stdout.take() {
            captures.spawn(log::capture(output, Arc::clone(&log)));
        }
        if let Some(output) = child.stderr.take() {
            captures.spawn(log::capture(output, Arc::clone(&log)));
        }
        Ok(Self {
            child,
            pid,
            captures,
            log,
            confinement,
            spawner: spawner.clone(),
            mark: launch.environment.get(CONTAINER_MARK).cloned(),
            ended: false,
            started_at: Timestamp::now(),
        })
    }

    /// A name for this run that no other has.
    pub(crate) fn id(&self) -> String {
        format!("process://{}-{}", self.pid.as_raw_nonzero(), self.started_at.as_millisecond())
    }

    /// Asks all of the process group to stop.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops all of the process group.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // It may just have ended, which is what was wanted.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Waits until the program ended. May be cancelled and called again.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// To be called after the end: sees to it that whatever it started is gone and the last words are in the log.
    pub(crate) async fn clean_up(&mut self, status: io::Result<ExitStatus>) -> Exit {
        let at = Timestamp::now();
        // Who outlives the first process of a container has no one left to look after it.
        self.kill();
        // Not all of them need to be in its group.
        if let Some(mark) = self.mark.clone() {
            self.spawner.reaper().reap(mark).await;
        }
        let listened = async { while self.captures.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, listened).await;
        let out_of_memory = self.confinement.ran_out_of_memory();
        let left = async {
            while !self.confinement.remove() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(LEAVING, left).await;
        self.close();
        exit(status.ok(), out_of_memory, at)
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.captures.abort_all();
            self.log.end();
            let _ = self.confinement.remove();
            self.spawner.records().remove(self.pid);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
            self.close();
        }
    }
}

fn command(launch: &Launch, shim: &[String], confinement: &Confinement) -> Command {
    let mut command = Command::new(shim.first().map_or("", String::as_str));
    command.args(shim.iter().skip(1));
    command.args(["--parent".to_owned(), std::process::id().to_string()]);
    for group in confinement.groups() {
        command.arg("--cgroup").arg(group);
    }
    command.arg("--").arg(&launch.program).args(&launch.arguments);
    command
        .env_clear()
        .envs(&launch.environment)
        .current_dir(&launch.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

fn exit(status: Option<ExitStatus>, out_of_memory: bool, at: Timestamp) -> Exit {
    let signal = status.and_then(|status| status.signal());
    let code = status.and_then(|status| status.code()).or(signal.map(|signal| 128 + signal));
    Exit {
        // Nobody can tell how it ended when waiting failed; then it counts as killed.
        code: code.unwrap_or(137),
        signal,
        out_of_memory,
        at,
    }
}
