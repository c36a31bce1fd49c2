//! A real etcd, for the tests of whoever stores in one.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

/// The members of a cluster, which end with it.
pub struct Cluster {
    members: Vec<Member>,
    _directory: tempfile::TempDir,
}

struct Member {
    port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// Ports that nobody has: so many at once, so that none is given twice.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Cluster {
    pub fn of(count: usize, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * count);
        let (clients, peers) = ports.split_at(count);
        let everybody: Vec<_> = peers.iter().map(|port| format!("m{port}=http://127.0.0.1:{port}")).collect();
        let member = |(client, peer): (&u16, &u16)| {
            let scheme = if more.contains(&"--cert-file") { "https" } else { "http" };
            let (client_url, peer_url) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let data = directory.path().join(peer.to_string()).display().to_string();
            let name = format!("m{peer}");
            let arguments = [
                ["--name", &name],
                ["--data-dir", &data],
                ["--listen-client-urls", &client_url],
                ["--advertise-client-urls", &client_url],
                ["--listen-peer-urls", &peer_url],
                ["--initial-advertise-peer-urls", &peer_url],
                ["--initial-cluster", &everybody.join(",")],
                ["--log-level", "error"],
            ];
            let arguments = arguments.concat().into_iter().chain(more.iter().copied()).map(str::to_owned).collect();
            Member { port: *client, arguments, process: None }
        };
        let members = clients.iter().zip(peers).map(member).collect();
        let mut cluster = Self { members, _directory: directory };
        for index in 0..count {
            cluster.start(index);
        }
        cluster
    }

    pub fn start(&mut self, index: usize) {
        let member = &mut self.members[index];
        let started = Command::new("etcd").args(&member.arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        member.process = Some(started.expect("etcd is installed by `.ci/prepare tests`"));
    }

    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops a member where it is (`STOP`), or lets it go on (`CONT`).
    pub fn signal(&self, index: usize, signal: &str) {
        let process = self.members[index].process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &process]).status().unwrap().success());
        // Threads that run go on for a moment.
        let tasks = std::path::PathBuf::from(format!("/proc/{process}/task"));
        let stands = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat"))).unwrap_or_default();
            stat.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with('T'))
        };
        while signal == "STOP" && !std::fs::read_dir(&tasks).unwrap().all(stands) {
            std::thread::yield_now();
        }
    }

    /// Where all members are.
    pub fn members(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}
