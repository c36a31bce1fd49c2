//! A platform of the bench's own: started in an empty directory, timed until it is ready, stopped at the end.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{http::Server, kubeconfig, table::Row};

/// A running `onex up`.
pub(crate) struct Platform {
    child: Child,
    directory: PathBuf,
    /// How long it took from the start of the process until `/readyz` answered 200.
    pub(crate) ready_after: Duration,
}

impl Drop for Platform {
    fn drop(&mut self) {
        // SIGTERM, so that it stops its miners; the standard library can only kill.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Platform {
    /// Starts the program and waits until it is ready.
    pub(crate) async fn start(program: &Path) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("onex-bench-{}", std::process::id()));
        let began = Instant::now();
        let child = Command::new(program)
            .args(["up", "--ports", "auto", "--data-dir"])
            .arg(&directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut platform = Self { child, directory, ready_after: Duration::ZERO };
        while began.elapsed() < Duration::from_secs(30) {
            if platform.is_ready().await {
                platform.ready_after = began.elapsed();
                return Ok(platform);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        bail!("the platform does not get ready")
    }

    /// The kubeconfig of its administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    async fn is_ready(&self) -> bool {
        if !self.directory.join("endpoints.json").exists() {
            return false;
        }
        let Ok(cluster) = kubeconfig::read(&self.kubeconfig()) else { return false };
        let Ok(server) = Server::new(cluster) else { return false };
        match server.connect().await {
            Ok(mut connection) => connection.text("/readyz").await.is_ok(),
            Err(_) => false,
        }
    }

    /// How much of its memory is its own, in bytes: the rest are pages of its program, which the system takes back when it needs
    /// room.
    pub(crate) fn own_memory(&self) -> Option<u64> {
        own_memory(&std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?)
    }

    /// How long the start took.
    pub(crate) fn row(&self) -> Row {
        Row::note("ready", "onex up, cold, to /readyz 200", format!("{:.0} ms", self.ready_after.as_secs_f64() * 1e3))
    }
}

/// What `/proc/…/status` says of memory that is backed by no file.
fn own_memory(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_of_ones_own_is_told_from_that_of_the_program() {
        let status = "VmRSS:\t   43536 kB\nRssAnon:\t    8328 kB\nRssFile:\t   35208 kB\n";
        assert_eq!(super::own_memory(status), Some(8328 * 1024));
        assert_eq!(super::own_memory("VmRSS:\t   43536 kB\n"), None);
    }
}
