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

    /// How long the start took.
    pub(crate) fn row(&self) -> Row {
        Row::note("ready", "onex up, cold, to /readyz 200", format!("{:.0} ms", self.ready_after.as_secs_f64() * 1e3))
    }
}
