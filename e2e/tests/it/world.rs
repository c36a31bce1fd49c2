//! A platform as a person starts it, and kubectl as a person types it.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

/// The ConfigMap that every namespace has.
pub const EVERYWHERE: &str = "kube-root-ca.crt";

/// How long anything may take on a busy machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a command that ends by itself may take. Some of ours say `--timeout=60s`.
const LONGEST_COMMAND: Duration = Duration::from_secs(180);

/// The image that the node runs as our own chain.
pub const TOYBLC: &str = "ccr.ccs.tencentyun.com/onexstack/onex-toyblc-amd64:v1.0.0";

/// Asks `question` until the answer is there, and fails with what was missing last.
pub fn eventually<T>(patience: Duration, mut question: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match question() {
            Ok(answer) => return answer,
            Err(missing) => assert!(start.elapsed() < patience, "after {patience:?}: {missing}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A running `onex up` with a directory of its own. It is stopped when it is dropped, and must leave no process behind.
pub struct World {
    home: TempDir,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl World {
    /// A platform for this test alone. It holds nobody to limits: the miners of a debug build share what there is.
    pub fn start() -> Self {
        Self::start_with(&["--ports", "auto", "--set", "node.cgroup_parent="])
    }

    /// A platform started with more arguments than its data directory.
    pub fn start_with(arguments: &[&str]) -> Self {
        let world = Self::prepared(arguments);
        world.up();
        world
    }

    /// A platform that trusts, and is trusted by, the same as this one: both have one authority.
    pub fn start_beside(&self, arguments: &[&str]) -> Self {
        let world = Self::prepared(arguments);
        fs::create_dir_all(world.data_dir()).unwrap();
        let (from, to) = (self.data_dir().join("pki"), world.data_dir().join("pki"));
        assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
        world.up();
        world
    }

    /// A platform that begins with what a backup holds.
    pub fn restored_from(backup: &Path, arguments: &[&str]) -> Self {
        let world = Self::prepared(arguments);
        let mut restore = onex();
        restore.args(["restore", backup.to_str().unwrap(), "--data-dir", world.data_dir().to_str().unwrap()]);
        Said::by("restore".to_owned(), restore).ok();
        world.up();
        world
    }

    fn prepared(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { home: tempfile::tempdir().unwrap(), arguments, child: Mutex::new(None) }
    }

    /// The platform that tests share when a namespace of their own is all they need.
    ///
    /// It runs as long as any test holds it, so that the last one stops it; a static would never be dropped.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = shared.upgrade() {
            return world;
        }
        let world = Arc::new(Self::start());
        *shared = Arc::downgrade(&world);
        world
    }

    /// Starts the platform on this world's data directory, and waits until it is ready.
    pub fn up(&self) {
        // A crash leaves it behind, and it would look ready too early.
        let _ = fs::remove_file(self.data_dir().join("endpoints.json"));
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let child = onex()
            .args(["up", "--data-dir", self.data_dir().to_str().unwrap()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child() = Some(child);
        eventually(PATIENCE, || match self.child().as_mut().unwrap().try_wait().unwrap() {
            Some(status) => panic!("onex up ended with {status}:\n{}", self.said()),
            None if self.data_dir().join("endpoints.json").exists() => Ok(()),
            None => Err(format!("there is no endpoints.json:\n{}", self.said())),
        });
        eventually(PATIENCE, || self.kubectl("get --raw /readyz").out_or_err());
    }

    /// Asks the platform to stop, as `signal` does, and waits until it has.
    pub fn stop(&self, signal: Signal) -> ExitStatus {
        let mut child = self.child().take().expect("the platform runs");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it did not stop within {PATIENCE:?}:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the platform without a chance to tidy up.
    pub fn crash(&self) {
        self.stop(Signal::KILL);
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("onex.log")
    }

    /// Everything the platform printed, at every start.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap()
    }

    /// Writes a file for kubectl to read, and answers where it is.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// kubectl with `line` as it would be typed; no argument may hold a space.
    pub fn kubectl(&self, line: &str) -> Said {
        self.kubectl_with(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn kubectl_with(&self, arguments: &[&str]) -> Said {
        Said::by(arguments.join(" "), self.command(&kubectl(), arguments))
    }

    /// kubectl that reads `input`, for `-f -`.
    pub fn kubectl_reading(&self, line: &str, input: &str) -> Said {
        let command = self.command(&kubectl(), &line.split_whitespace().collect::<Vec<_>>());
        Said::reading(line.to_owned(), command, input)
    }

    /// kubectl that goes on until it is told to end, such as `get -w`. What it prints is in the answer's file.
    pub fn kubectl_running(&self, line: &str) -> Running {
        self.running_on(self.command(&kubectl(), &line.split_whitespace().collect::<Vec<_>>()))
    }

    /// A command that goes on until it is told to end.
    pub fn running_on(&self, mut command: Command) -> Running {
        let mut output = tempfile::NamedTempFile::new_in(self.home.path()).unwrap();
        output.disable_cleanup(true); // goes with the directory
        let child = command.stdin(Stdio::null()).stdout(output.reopen().unwrap()).spawn().unwrap();
        Running { child, output: output.path().to_owned() }
    }

    /// `kubectl`, whichever it is, for this platform.
    pub fn command(&self, kubectl: &Path, arguments: &[&str]) -> Command {
        let mut command = self.program(kubectl);
        command.arg(format!("--cache-dir={}", self.home.path().join("cache").display())).args(arguments);
        command
    }

    /// `program` with this platform's kubeconfig and nothing of the home of whoever runs the tests.
    pub fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.home.path())
            .env_remove("KUBERNETES_SERVICE_HOST");
        command
    }

    /// The object that `kubectl get` names in `line`; null if there is none now.
    pub fn get(&self, line: &str) -> Value {
        let found = self.kubectl(&format!("get {line} --ignore-not-found -o json")).ok();
        if found.trim().is_empty() { Value::Null } else { serde_json::from_str(&found).unwrap() }
    }

    /// The names of the objects that `kubectl get` lists, without what every namespace has.
    pub fn names(&self, line: &str) -> Vec<String> {
        let out = self.kubectl(&format!("get {line} -o name")).ok();
        let names = out.lines().map(|name| name.split_once('/').unwrap().1.to_owned());
        names.filter(|name| name != EVERYWHERE).collect()
    }

    /// Creates what `yaml` says.
    pub fn create(&self, yaml: &str) {
        // An older kubectl takes what begins with a brace for JSON.
        self.kubectl_reading("create -f -", &format!("---\n{yaml}")).ok();
    }

    /// A chain whose genesis miner runs. It lives in `kube-system`, as all do.
    pub fn chain(&self, name: &str, interval_seconds: u32) {
        self.create(&format!(
            "{{apiVersion: apps.onex.io/v1beta1, kind: Chain, metadata: {{name: {name}, namespace: kube-system}},
              spec: {{image: '{TOYBLC}', minMineIntervalSeconds: {interval_seconds}, minerType: S1.SMALL2}}}}"
        ));
        self.running("kube-system", &[name]);
    }

    /// A set of miners of `chain`; whoever needs them running waits with [`World::sized`].
    pub fn minerset(&self, namespace: &str, name: &str, chain: &str, replicas: u32) {
        self.create(&format!(
            "{{apiVersion: apps.onex.io/v1beta1, kind: MinerSet, metadata: {{name: {name}, namespace: {namespace}}},
              spec: {{replicas: {replicas}, template: {{spec: {{chainName: {chain}, minerType: S1.SMALL1}}}}}}}}"
        ));
    }

    /// Waits until the set has exactly `size` miners, each Running in a Pod of its own, and says so in its status.
    pub fn sized(&self, namespace: &str, name: &str, size: usize) {
        eventually(PATIENCE, || {
            let status = self.get(&format!("minerset {name} -n {namespace}"))["status"].clone();
            let counts =
                ["replicas", "readyReplicas", "availableReplicas"].map(|field| status[field].as_u64().unwrap_or(0));
            if counts != [size as u64; 3] {
                return Err(format!("{name} should have {size} miners, and has {status}"));
            }
            let mut pods = self.names(&format!("pods -n {namespace}"));
            pods.retain(|pod| pod.starts_with(&format!("{name}-")));
            if pods.len() == size { Ok(()) } else { Err(format!("{name} should have {size} pods, and has {pods:?}")) }
        });
    }

    /// Waits until all these miners are Running.
    pub fn running(&self, namespace: &str, miners: &[&str]) {
        for miner in miners {
            eventually(PATIENCE, || {
                let said = self.kubectl(&format!("get miner {miner} -n {namespace} -o jsonpath={{.status.phase}}"));
                if said.out == "Running" { Ok(()) } else { Err(format!("{miner}: {}{}", said.out, said.err)) }
            });
        }
    }

    /// The processes that belong to this platform, itself included, each with its command line.
    pub fn processes(&self) -> Vec<(Pid, Vec<String>)> {
        let directory = self.data_dir();
        let directory = directory.to_str().unwrap();
        let numbered = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| numbered(entry.ok()?));
        let ours = processes.filter_map(|process| {
            let read = |file: &str| fs::read(format!("/proc/{}/{file}", process.as_raw_nonzero())).ok();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let (command, environment) = (text(read("cmdline")?), text(read("environ").unwrap_or_default()));
            let kubectl = environment.contains("KUBECONFIG=");
            let ours = command.contains(directory) || (environment.contains(directory) && !kubectl);
            ours.then(|| (process, command.split_terminator('\0').map(str::to_owned).collect()))
        });
        ours.collect()
    }

    /// The processes that mine, each with the directory of its chain, which no two may share.
    pub fn nodes(&self) -> Vec<(Pid, String)> {
        let processes = self.processes().into_iter();
        let nodes = processes.filter(|(_, command)| command.get(1).is_some_and(|word| word == "toyblc"));
        nodes
            .map(|(process, command)| {
                let directory = command.iter().find_map(|word| word.strip_prefix("--data-dir="));
                (process, directory.expect("a node is told where its chain is").to_owned())
            })
            .collect()
    }

    /// The process that runs the Pod, by its directory.
    pub fn node_of(&self, namespace: &str, pod: &str) -> Pid {
        let part = format!("/{namespace}_{pod}/");
        let found: Vec<_> = self.nodes().into_iter().filter(|(_, directory)| directory.contains(&part)).collect();
        assert_eq!(found.len(), 1, "{namespace}/{pod} should be one process: {found:?}");
        found[0].0
    }

    /// Waits until no process of this platform is left.
    pub fn nothing_left(&self) {
        eventually(Duration::from_secs(30), || match self.processes() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("processes outlived the platform: {left:?}")),
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.home.disable_cleanup(true);
            #[allow(clippy::print_stderr, reason = "shown only when the test fails")]
            {
                eprintln!("what the platform kept and said is in {}", self.home.path().display());
            }
            if let Some(mut child) = self.child().take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            return;
        }
        if self.child().is_some() {
            let status = self.stop(Signal::TERM);
            assert!(status.success(), "onex up ended with {status}:\n{}", self.said());
        }
        self.nothing_left();
    }
}

/// What a command answered.
pub struct Said {
    line: String,
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Runs `command` until it ends; `line` is what to call it.
    pub fn by(line: String, command: Command) -> Self {
        Self::reading(line, command, "")
    }

    /// Runs `command` with `input` until it ends. One that hangs is killed, and fails the test.
    pub fn reading(line: String, mut command: Command, input: &str) -> Self {
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        // In a group of its own, so that whatever it started can be ended with it.
        let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let group = Pid::from_child(&child);
        let (ended, wait) = mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let hangs = wait.recv_timeout(LONGEST_COMMAND) == Err(mpsc::RecvTimeoutError::Timeout);
            if hangs {
                let _ = kill_process_group(group, Signal::KILL);
            }
            hangs
        });
        if let Some(mut stdin) = child.stdin.take() {
            // It may have refused before it read everything.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().unwrap();
        drop(ended);
        let said = Self::of(line, output);
        let hangs = watchdog.join().unwrap();
        assert!(!hangs, "{}: still running after {LONGEST_COMMAND:?}\n{}{}", said.line, said.out, said.err);
        said
    }

    fn of(line: String, output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { line, status: output.status, out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it printed, having succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{}: {}\n{}{}", self.line, self.status, self.out, self.err);
        self.out
    }

    /// What it complained about, having failed.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.status.success(), "{} should have been refused:\n{}{}", self.line, self.out, self.err);
        self.err
    }

    /// For [`eventually`].
    pub fn out_or_err(self) -> Result<String, String> {
        if self.status.success() { Ok(self.out) } else { Err(format!("{}: {}{}", self.line, self.out, self.err)) }
    }
}

/// A command that goes on until this is dropped.
pub struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    /// Waits until what it printed satisfies `enough`, and answers it.
    #[track_caller]
    pub fn prints(&self, enough: impl Fn(&str) -> bool) -> String {
        eventually(PATIENCE, || {
            let printed = fs::read_to_string(&self.output).unwrap();
            if enough(&printed) { Ok(printed) } else { Err(format!("it printed only:\n{printed}")) }
        })
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        eventually(PATIENCE, || self.child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program under test.
pub fn onex() -> Command {
    let mut command = Command::new(binary());
    // What the tester has set for platforms of their own is not meant for this one.
    let settings = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("ONEX_"));
    for name in settings.chain(["RUST_LOG".into()]) {
        command.env_remove(name);
    }
    command
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ONEX_BINARY") {
        return path.into();
    }
    let built = ["debug", "release"].map(|profile| target().join(profile).join("onex"));
    let newest = built.into_iter().filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).max();
    newest.expect("there is no onex to test: run `cargo build -p onex`, or name one in ONEX_BINARY").1
}

/// Where cargo builds: it put this very program into `<profile>/deps` there.
fn target() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).expect("cargo has built this").to_owned()
}

/// Where `.ci/prepare` puts what it installs.
pub fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/tools")
}

/// The kubectl that tests use when they do not care which.
pub fn kubectl() -> PathBuf {
    std::env::var_os("KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from)
}
