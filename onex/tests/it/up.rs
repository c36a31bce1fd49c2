//! `onex up` and `onex config`, started as a person starts them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn onex(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onex"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A platform that is ready, and is gone when the test ends.
pub struct Platform {
    child: Option<Child>,
    directory: TempDir,
}

impl Platform {
    pub fn ready() -> Self {
        Self::ready_in(tempfile::tempdir().unwrap())
    }

    /// Another on the same directory, once this one has ended.
    pub fn again(mut self) -> Self {
        assert!(self.child.is_none(), "it still runs");
        Self::ready_in(std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap()))
    }

    /// One on this directory.
    pub fn ready_in(directory: TempDir) -> Self {
        let child = onex(&["up", "--ports", "auto", "--data-dir", directory.path().to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut platform = Self { child: Some(child), directory };
        let start = Instant::now();
        while !platform.path().join("endpoints.json").exists() {
            let ended = platform.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "not ready: {}", said(&platform.end()));
            std::thread::sleep(Duration::from_millis(20));
        }
        platform
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Asks it to stop, and waits until it has.
    pub fn end(&mut self) -> Output {
        let child = self.child.take().unwrap();
        // It may be gone already; then there is its output to be had all the same.
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        child.wait_with_output().unwrap()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_platform_says_where_it_is_lets_an_administrator_in_and_stops_when_asked() {
    let mut platform = Platform::ready();
    let kubeconfig = platform.path().join("kubeconfig");
    assert_eq!((mode(&kubeconfig), mode(&platform.path().join("pki/ca.key"))), (0o600, 0o600));
    let endpoints = fs::read(platform.path().join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_slice(&endpoints).unwrap();
    assert!(endpoints["apiserver"].as_str().unwrap().starts_with("https://127.0.0.1:"), "{endpoints}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let version = runtime.block_on(async {
        let client = onex_client::over_kubeconfig(&kubeconfig).await.unwrap();
        client.apiserver_version().await.unwrap()
    });
    assert_eq!(version.major, "1");

    let output = platform.end();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&format!("export KUBECONFIG={}", kubeconfig.display())), "{text}");
    assert!(output.stdout.ends_with(b"stopped\n"), "{text}");
    assert!(!platform.path().join("endpoints.json").exists(), "nothing can be reached any more");
}

#[test]
fn a_second_platform_on_the_same_directory_is_refused_and_told_why() {
    let platform = Platform::ready();
    let directory = platform.path().to_str().unwrap();
    let second = onex(&["up", "--ports", "auto", "--data-dir", directory]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = said(&second);
    assert!(text.contains("already runs") && text.contains(directory), "{text}");
    assert!(platform.path().join("endpoints.json").exists(), "the first one is left alone");
}

#[test]
fn a_busy_port_is_named_with_the_setting_that_chooses_another() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = holder.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let set = format!("apiserver.listen={busy}");
    let output = onex(&["up", "--data-dir", directory.path().to_str().unwrap(), "--set", &set]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains(&busy) && text.contains("--set apiserver.listen="), "{text}");
}

#[test]
fn a_setting_that_does_not_exist_is_named_with_the_place_it_came_from() {
    let output = onex(&["config"]).env("ONEX_APISERVER__LISTENN", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("ONEX_APISERVER__LISTENN") && text.contains("apiserver.listenn"), "{text}");
}

#[test]
fn what_config_prints_can_be_given_back_as_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let first = onex(&["config", "--set", "up.stop_seconds=7"]).output().unwrap();
    assert!(first.status.success(), "{}", said(&first));
    let file = directory.path().join("onex.toml");
    fs::write(&file, &first.stdout).unwrap();
    let again = onex(&["config", "--config", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&first.stdout));
    assert!(String::from_utf8_lossy(&again.stdout).contains("stop_seconds = 7"));
}
