//! Running Pods as processes, without an apiserver: [`Runner::run`] is told what is wanted and shows what it sees.

use crate::cgroup::Cgroups;
use crate::container::{Keeper, Part};
use crate::dry::Pretence;
use crate::events::{Notice, Notices};
use crate::home::{Home, Homes};
use crate::launch::Surroundings;
use crate::log::ContainerLogs;
use crate::records::Records;
use crate::seen::{ContainerSeen, PodSeen};
use crate::spawner::Spawner;
use crate::{Error, PodName, Result, Settings, pod};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What is wanted of one Pod.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The Pod as it is now. Only its metadata and the images of its containers may change.
    pub pod: Arc<Pod>,
    /// It has to stop: SIGTERM now, SIGKILL then. May only become earlier.
    pub stop_by: Option<Instant>,
}

/// Runs Pods. One for each node.
pub struct Runner {
    pub(crate) settings: Settings,
    pub(crate) shim: Vec<String>,
    pub(crate) surroundings: Arc<dyn Surroundings>,
    pub(crate) cgroups: Cgroups,
    pub(crate) spawner: Spawner,
    pub(crate) notices: Notices,
    homes: Mutex<Homes>,
    shelf: Arc<Shelf>,
    /// What stands for processes in a dry run.
    pretence: Option<Pretence>,
}

impl Runner {
    /// A runner under `settings.data_dir`, and the notices it will send. Kills what an earlier run left behind, so there must
    /// be no other runner with this directory. Its processes end with it. Needs a tokio runtime.
    pub fn new(
        settings: Settings,
        surroundings: Arc<dyn Surroundings>,
        shelf: Arc<Shelf>,
    ) -> Result<(Self, mpsc::Receiver<Notice>)> {
        let mut settings = settings;
        let own = |subcommand: &str| -> Result<Vec<String>> {
            let path = std::env::current_exe().map_err(Error::OwnProgram)?;
            Ok(vec![path.to_string_lossy().into_owned(), subcommand.to_owned()])
        };
        if settings.toyblc.is_empty() {
            settings.toyblc = own("toyblc")?;
        }
        let shim = if settings.shim.is_empty() { own("shim")? } else { settings.shim.clone() };
        // Processes run elsewhere, so what they are told about directories has to be absolute.
        settings.data_dir = std::path::absolute(&settings.data_dir)
            .map_err(|source| Error::DataDirectory { path: settings.data_dir.clone(), source })?;
        let records = Records::open(&settings.data_dir)?;
        let killed = records.kill_leftovers()?;
        if killed > 0 {
            tracing::warn!(killed, "killed processes that outlived an earlier run of the node");
        }
        let salt = settings.data_dir.to_string_lossy().into_owned();
        let homes = Homes::open(settings.data_dir.join("pods"), settings.pod_range, &salt)?;
        let (notices, receiver) = Notices::new();
        let runner = Self {
            cgroups: Cgroups::detect(Path::new("/sys/fs/cgroup"), &settings.cgroup_parent),
            spawner: Spawner::start(records, tokio::runtime::Handle::current())?,
            homes: Mutex::new(homes),
            shelf,
            pretence: settings.dry_run.then(|| Pretence::new(settings.pod_range, &salt)),
            shim,
            surroundings,
            notices,
            settings,
        };
        Ok((runner, receiver))
    }

    /// Runs one Pod until it is over or was told to stop, and shows on `board` what happens. Two Pods of one name must not run
    /// at the same time.
    pub async fn run(self: Arc<Self>, wishes: watch::Receiver<Wish>, board: Arc<watch::Sender<PodSeen>>) {
        let pod = Arc::clone(&wishes.borrow().pod);
        if let Some(pretence) = &self.pretence {
            return pretence.run(&pod, wishes, &board).await;
        }
        let Some((home, logs)) = self.settle(&pod, wishes.clone()).await else {
            return board.send_modify(|seen| seen.stopped = true);
        };
        board.send_modify(|seen| seen.address = Some(home.address));
        let keeper = |part, name: &str| -> Option<Keeper> {
            Some(Keeper {
                runner: Arc::clone(&self),
                part,
                home: home.clone(),
                logs: logs.get(name).cloned()?,
                wishes: wishes.clone(),
                board: Arc::clone(&board),
            })
        };
        for (index, container) in pod::init_containers(&pod).iter().enumerate() {
            if let Some(keeper) = keeper(Part::Init(index), &container.name) {
                keeper.run().await;
            }
            if !board.borrow().init[index].succeeded() {
                break;
            }
        }
        let initialized = board.borrow().init.iter().all(ContainerSeen::succeeded);
        if initialized {
            let named = pod::containers(&pod).iter().enumerate();
            join_all(named.filter_map(|(index, container)| Some(keeper(Part::Main(index), &container.name)?.run())))
                .await;
        }
        if wishes.borrow().stop_by.is_some() {
            board.send_modify(|seen| seen.stopped = true);
        }
    }

    /// The home of the Pod and the logs of its containers; `None` when it is to stop before it has them.
    async fn settle(&self, pod: &Pod, mut wishes: watch::Receiver<Wish>) -> Option<(Home, Logs)> {
        loop {
            match self.try_settle(pod) {
                Ok(settled) => return Some(settled),
                Err(error) => {
                    let note = format!("Error: making the directory of the Pod: {}", with_causes(&error));
                    self.notices.warning(pod, "FailedCreatePodSandBox", "Starting", note);
                }
            }
            let stopped = wishes.wait_for(|wish| wish.stop_by.is_some());
            if tokio::time::timeout(SETTLE_AGAIN, stopped).await.is_ok() {
                return None;
            }
        }
    }

    fn try_settle(&self, pod: &Pod) -> Result<(Home, Logs)> {
        let mut home = self.homes.lock().settle(&PodName::of(pod), pod::uid(pod), pod::owner(pod))?;
        if pod::has_host_network(pod) {
            home.address = self.settings.address;
        }
        let mut logs = Logs::new();
        for container in pod::init_containers(pod).iter().chain(pod::containers(pod)) {
            let directory = home.logs(&container.name);
            let opened = ContainerLogs::open(directory.clone(), self.settings.log_file_bytes);
            let opened = opened.map_err(|source| Error::DataDirectory { path: directory, source })?;
            logs.insert(container.name.clone(), Arc::new(opened));
        }
        self.shelf.put(PodName::of(pod), logs.clone());
        Ok((home, logs))
    }

    /// Makes the logs of a Pod readable that is over since before the node was started.
    pub(crate) fn remember(&self, pod: &Pod) {
        if self.pretence.is_some() {
            return;
        }
        if let Err(error) = self.try_settle(pod) {
            tracing::warn!(error = with_causes(&error), "the logs of a Pod that is over cannot be read");
        }
    }

    /// The Pod is gone: its logs cannot be asked for any more.
    pub(crate) fn forget(&self, name: &PodName) {
        self.shelf.remove(name);
    }

    /// Kills whatever is left of all Pods. To be called when none runs any more.
    pub(crate) async fn kill_leftovers(&self) {
        let records = self.spawner.records().clone();
        match tokio::task::spawn_blocking(move || records.kill_leftovers()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(killed)) => tracing::info!(killed, "killed processes that would have outlived the node"),
            Ok(Err(error)) => tracing::warn!(error = with_causes(&error), "cannot look for what outlives the node"),
            Err(error) => tracing::error!(%error, "looking for what outlives the node broke"),
        }
    }

    /// Removes the homes of Pods that do not exist any more for a while.
    pub(crate) fn sweep(&self, lives: impl Fn(&PodName) -> bool) {
        let keep = Duration::from_secs(self.settings.keep_directory_seconds);
        self.homes.lock().sweep(lives, keep, std::time::Instant::now());
    }
}

/// How long until a directory that could not be made is tried again.
const SETTLE_AGAIN: Duration = Duration::from_secs(5);

/// The logs of a Pod's containers, by name.
type Logs = HashMap<String, Arc<ContainerLogs>>;

/// An error in one line, with what led to it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A board for `pod` on which [`Runner::run`] shows what it sees, begun with what the Pod's status says.
pub fn board(pod: &Pod) -> Arc<watch::Sender<PodSeen>> {
    Arc::new(watch::Sender::new(PodSeen::first(pod, Timestamp::now())))
}

/// Where the logs of all Pods of this node can be found.
#[derive(Debug, Default)]
pub struct Shelf {
    logs: Mutex<HashMap<PodName, Logs>>,
}

impl Shelf {
    pub(crate) fn put(&self, pod: PodName, logs: Logs) {
        self.logs.lock().insert(pod, logs);
    }

    fn remove(&self, pod: &PodName) {
        self.logs.lock().remove(pod);
    }

    pub(crate) fn get(&self, pod: &PodName, container: &str) -> Option<Arc<ContainerLogs>> {
        self.logs.lock().get(pod)?.get(container).cloned()
    }
}
