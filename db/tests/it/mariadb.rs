//! A real MariaDB, for the tests of whoever keeps rows in one.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// The password of the user that tests are.
pub const PASSWORD: &str = "not(a)secret";

/// How long a server may take to answer. It takes a tenth of a second where nobody else works.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server, which ends with this.
pub struct Mariadb {
    port: u16,
    directory: tempfile::TempDir,
    process: Mutex<Option<Child>>,
}

impl Mariadb {
    /// A server of one's own, to be killed.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        succeeds(Command::new("cp").arg("-r").arg(template()).arg(directory.path().join("data")));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { port, directory, process: Mutex::new(None) };
        server.restart();
        let everything =
            format!("create user onex@'127.0.0.1' identified by '{PASSWORD}'; grant all on *.* to onex@'127.0.0.1'");
        server.ask(&everything);
        server
    }

    /// A server that tests which run at the same time share.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Mariadb>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A new database on it.
    pub fn database(&self) -> url::Url {
        static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name = format!("onex{}", MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.ask(&format!("create database {name}"));
        let mut url = url::Url::parse(&format!("mysql://onex@127.0.0.1:{}/{name}", self.port)).unwrap();
        url.set_password(Some(PASSWORD)).unwrap();
        url
    }

    /// What the server's own client answers to a statement, as an administrator.
    pub fn ask(&self, statement: &str) -> String {
        String::from_utf8(succeeds(self.client().args(["-N", "-e", statement])).stdout).unwrap()
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again, and returns when it answers.
    pub fn restart(&self) {
        let mut server = Command::new(program("mariadbd"));
        server.arg("--no-defaults").args(self.options()).arg(format!("--port={}", self.port));
        server.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF"]);
        server
            .args(["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"])
            .arg(self.named("--socket", "socket"));
        server.args([self.named("--pid-file", "pid"), self.named("--log-error", "log")]);
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        *self.process.lock().unwrap() = Some(server.expect("MariaDB is installed by `.ci/prepare tests`"));
        let started = Instant::now();
        let answers = || self.client().args(["-e", "select 1"]).output().unwrap().status.success();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() || !answers() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let ended = self.process.lock().unwrap().as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "MariaDB ended: {}", log());
            assert!(started.elapsed() < PATIENCE, "MariaDB does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it where it is (`STOP`), or lets it go on (`CONT`).
    pub fn signal(&self, signal: &str) {
        let process = self.process.lock().unwrap().as_ref().unwrap().id().to_string();
        succeeds(Command::new("kill").args([&format!("-{signal}"), &process]));
    }

    fn client(&self) -> Command {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-uroot"]).arg(self.named("--socket", "socket"));
        client
    }

    fn named(&self, option: &str, file: &str) -> String {
        format!("{option}={}", self.directory.path().join(file).display())
    }

    fn options(&self) -> Vec<String> {
        [as_me(), vec![self.named("--datadir", "data")]].concat()
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Root has to say that it means it.
fn as_me() -> Vec<String> {
    let me = String::from_utf8(succeeds(Command::new("id").arg("-un")).stdout).unwrap();
    vec![format!("--user={}", me.trim())]
}

/// The data of a new server. To make it takes seconds, so it is kept where the tests are built.
fn template() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let version = succeeds(Command::new(program("mariadbd")).args(["--no-defaults", "--version"])).stdout;
    let version = String::from_utf8(version).unwrap();
    let plain: String = version.chars().filter(|c| c.is_ascii_digit() || *c == '.').take(12).collect();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mariadb-{plain}"));
    if !kept.exists() {
        let making = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = making.path().join("data");
        let mut install = Command::new("mariadb-install-db");
        install.arg("--no-defaults").args(as_me()).arg(format!("--datadir={}", data.display()));
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=16M"]);
        succeeds(&mut install);
        // Another process may have been faster.
        let _ = std::fs::rename(data, &kept);
    }
    kept
}

/// Servers are not always on the path of people.
fn program(name: &str) -> PathBuf {
    let beside = Path::new("/usr/sbin").join(name);
    if beside.exists() { beside } else { name.into() }
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output();
    let output =
        output.unwrap_or_else(|error| panic!("{command:?}: {error}; `.ci/prepare tests` installs what tests need"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
