//! A node without apiserver: Pods are handed to the runner by the test.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use onex_node::runner::{self, Runner, Shelf, Wish};
use onex_node::{Notice, PodName, PodSeen, Settings, State, Surroundings, Target};
use parking_lot::Mutex;
use rustix::process::Pid;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long anything may take on a busy machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster whose Services appear when the test says so.
#[derive(Default)]
pub struct Services(Mutex<BTreeMap<String, String>>);

impl Services {
    pub fn add(&self, name: &str, host: &str) {
        self.0.lock().insert(name.to_owned(), host.to_owned());
    }
}

#[async_trait]
impl Surroundings for Services {
    async fn target(&self, namespace: &str, name: &str, _: &PodName) -> Option<Target> {
        let host = self.0.lock().get(&format!("{namespace}/{name}")).cloned()?;
        Some(Target { host, ports: BTreeMap::new() })
    }

    async fn config_map(&self, _: &str, _: &str) -> Result<Option<BTreeMap<String, String>>, String> {
        Ok(None)
    }

    async fn secret(&self, _: &str, _: &str) -> Result<Option<BTreeMap<String, String>>, String> {
        Ok(None)
    }
}

pub struct World {
    pub directory: TempDir,
    pub services: Arc<Services>,
    pub notices: mpsc::Receiver<Notice>,
    runner: Arc<Runner>,
    settings: Settings,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            data_dir: directory.path().join("node"),
            images: BTreeMap::from([("sh".to_owned(), vec!["/bin/sh".to_owned(), "-c".to_owned()])]),
            shim: vec![shim().display().to_string()],
            cgroup_parent: String::new(),
            ..Settings::default()
        };
        change(&mut settings);
        let services = Arc::new(Services::default());
        let surroundings = Arc::clone(&services) as Arc<dyn Surroundings>;
        let (runner, notices) = Runner::new(settings.clone(), surroundings, Arc::new(Shelf::default())).unwrap();
        Self { directory, services, notices, runner: Arc::new(runner), settings }
    }

    /// The runner that a later run of the node would have.
    pub fn again(self) -> Runner {
        let Self { directory, services, runner, settings, .. } = self;
        drop(runner);
        let (runner, _) = Runner::new(settings, services, Arc::default()).unwrap();
        drop(directory);
        runner
    }

    pub fn run(&self, pod: Value) -> Running {
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        let board = runner::board(&pod);
        let seen = board.subscribe();
        let (wishes, receiver) = watch::channel(Wish { pod, stop_by: None });
        let task = tokio::spawn(Arc::clone(&self.runner).run(receiver, board));
        Running { wishes, seen, task }
    }

    /// A file that a process of the Pod `p` wrote into its working directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("node/pods/n_p/work").join(name)
    }
}

pub struct Running {
    pub wishes: watch::Sender<Wish>,
    pub seen: watch::Receiver<PodSeen>,
    pub task: JoinHandle<()>,
}

impl Running {
    /// Waits until the Pod looks as wanted.
    pub async fn until(&mut self, wanted: impl FnMut(&PodSeen) -> bool) -> PodSeen {
        let seen = tokio::time::timeout(PATIENCE, self.seen.wait_for(wanted)).await;
        let seen = seen.ok().map(|seen| seen.expect("the pod still runs").clone());
        seen.unwrap_or_else(|| panic!("this is not what was waited for: {:?}", self.seen.borrow()))
    }

    pub async fn until_running(&mut self) -> PodSeen {
        self.until(|seen| matches!(seen.containers[0].state, State::Running { .. })).await
    }

    /// Stops the Pod, and returns what is seen of it then, and after how long.
    pub async fn stop(mut self, grace: Duration) -> (PodSeen, Duration) {
        let start = Instant::now();
        self.wishes.send_modify(|wish| wish.stop_by = Some(start + grace));
        let seen = self.end().await;
        (seen, start.elapsed())
    }

    /// Waits until nothing of the Pod runs any more.
    pub async fn end(&mut self) -> PodSeen {
        tokio::time::timeout(PATIENCE, &mut self.task).await.expect("the pod ends").unwrap();
        self.seen.borrow().clone()
    }
}

/// The Pod `n/p` with one container that runs `script` in a shell. As in Kubernetes, a dollar is written twice.
pub fn pod(script: &str) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": "p", "uid": "uid-of-p"},
        "spec": {"containers": [{"name": "c", "image": "sh", "args": [script]}]},
    })
}

pub fn shim() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_onex-node-shim"))
}

/// Waits for a file with a whole line, and returns the line.
pub async fn line(path: &Path) -> String {
    lines(path, 1).await.join("\n")
}

/// Waits for a file with that many whole lines, and returns all that it has.
pub async fn lines(path: &Path, least: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') && text.lines().count() >= least => {
                return text.lines().map(str::to_owned).collect();
            }
            _ if Instant::now() > deadline => panic!("{} was not written", path.display()),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// What `work` answers, and what this thread logs meanwhile.
pub fn heard<T>(work: impl FnOnce() -> T) -> (T, String) {
    let said = Arc::new(Mutex::new(String::new()));
    let answer = tracing::subscriber::with_default(Ears(Arc::clone(&said)), work);
    let said = said.lock().clone();
    (answer, said)
}

/// Writes down every event.
struct Ears(Arc<Mutex<String>>);

impl tracing::Subscriber for Ears {
    fn event(&self, event: &tracing::Event<'_>) {
        let mut said = self.0.lock();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            *said += &format!("{field}={value:?}\n");
        });
    }

    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The process with this number.
pub fn process(pid: &str) -> Pid {
    Pid::from_raw(pid.parse().unwrap()).unwrap()
}

/// A loopback address that no other test and no Pod has: a port of it that is free stays free.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 + NEXT.fetch_add(1, Ordering::Relaxed) % 64, high, low)
}

/// Whether the process still runs; a zombie does not.
pub fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub async fn dies(pid: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    !is_alive(pid)
}
