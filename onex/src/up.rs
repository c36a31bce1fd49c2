//! `onex up`, and each part by its name: opens the stores, starts what was asked for, says what runs where, and stops it
//! all again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use onex_daemon::files::{self, Readers};
use onex_daemon::pki::Authority;
use onex_daemon::telemetry;
use tokio::sync::OnceCell;

use crate::arguments::Up;
use crate::lock::Lock;
use crate::parts::{Door, KUBECONFIG, Parts, Socket, reachable};
use crate::platform::Platform;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::stores::Pods;
use crate::{say, stores};

/// The file that tells programs where each part listens. It is there while they run.
const ENDPOINTS: &str = "endpoints.json";

/// What is to run in this process.
pub enum What {
    /// All parts.
    Everything,
    /// The storage and the apiserver.
    Apiserver,
    /// The usercenter.
    Usercenter,
    /// The controllers, against the apiserver that a kubeconfig names.
    Controllers(PathBuf),
    /// The node, against the apiserver that a kubeconfig names.
    Node(PathBuf),
}

impl What {
    /// The files that say who uses which part of the data directory.
    fn locks(&self) -> &'static [&'static str] {
        match self {
            Self::Everything => &["lock", "node.lock", "usercenter.lock"],
            Self::Usercenter => &["usercenter.lock"],
            Self::Apiserver => &["lock"],
            Self::Node(_) => &["node.lock"],
            // They keep nothing there.
            Self::Controllers(_) => &[],
        }
    }

    /// Whether others find their way by what this process writes.
    fn announces(&self) -> bool {
        matches!(self, Self::Everything | Self::Apiserver)
    }
}

/// Runs what was asked for until somebody asks it to stop, or a part ends by itself.
pub async fn up(what: What, arguments: Up) -> anyhow::Result<()> {
    let started = Instant::now();
    let directory = arguments.place.directory()?;
    let mut settings: Settings = arguments.place.settings.layers().read()?;
    // A relative path in the settings is meant from the data directory; an absolute one stays what it is.
    settings.node.data_dir = directory.join(&settings.node.data_dir);
    settings.node.dry_run |= settings.stores.is_dry_run();
    keep_keys_in(&directory, &mut settings.apiserver.service_accounts.keys);
    telemetry::init(&settings.telemetry)?;
    let mut signals = Signals::listen().context("could not listen for Ctrl-C")?;

    say::out(&format!("onex {} in {}", env!("CARGO_PKG_VERSION"), directory.display()));
    files::private_directory(&directory)
        .with_context(|| format!("could not make the data directory {}", directory.display()))?;
    let _locks: Vec<Lock> = what.locks().iter().map(|name| Lock::take(&directory, name)).collect::<Result<_, _>>()?;
    if what.announces() {
        // A crash leaves it behind, and whoever waits for it must not find the old one.
        let _ = std::fs::remove_file(directory.join(ENDPOINTS));
    }
    let patience = Duration::from_secs(settings.up.stop_seconds);
    let authority = Authority::open_or_create(&directory.join("pki"))?;
    let (audit, db) = (OnceCell::new(), OnceLock::new());
    let parts = Parts { directory: &directory, settings, ports: arguments.ports, authority, audit, db };
    let mut platform = Platform::new();
    let outcome = tokio::select! {
        ending = run(&what, &parts, &mut platform, started) => Err(ending),
        reason = signals.next() => {
            say::out(&format!("{reason}: stopping everything; once more leaves at once"));
            Ok(())
        }
    };
    leave_at_once_when_asked_again(signals);
    stop(platform, patience).await;
    outcome
}

/// Tokens outlive a restart, so the keys that sign them are kept beside the authority, unless the setting says where.
fn keep_keys_in(directory: &Path, keys: &mut String) {
    let named = if keys.is_empty() { "pki/service-accounts" } else { keys.as_str() };
    *keys = directory.join(named).to_string_lossy().into_owned();
}

async fn stop(platform: Platform, patience: Duration) {
    let late = platform.stop(patience).await;
    if late.is_empty() {
        say::out("stopped");
    } else {
        let seconds = patience.as_secs();
        say::wrong(&format!("cut off after {seconds} s what did not stop: {}", late.join(", ")));
    }
}

/// A second request to stop ends the process. Its miners end with it: the system sees to that.
fn leave_at_once_when_asked_again(mut signals: Signals) {
    tokio::spawn(async move {
        let reason = signals.next().await;
        say::wrong(&format!("{reason} again: leaving at once"));
        std::process::exit(130);
    });
}

/// Starts what was asked for, says so, and then returns only when a part ends that nobody asked to.
async fn run(what: &What, parts: &Parts<'_>, platform: &mut Platform, started: Instant) -> anyhow::Error {
    raise_open_files();
    let begun = match what {
        What::Everything => everything(parts, platform).await,
        What::Apiserver => apiserver(parts, platform).await,
        What::Usercenter => usercenter(parts, platform).await,
        What::Controllers(kubeconfig) => controllers(parts, platform, kubeconfig).await,
        What::Node(kubeconfig) => node(parts, platform, kubeconfig).await,
    };
    // Held while the parts run, and gone with the file it wrote when they are asked to stop.
    let announced = match begun {
        Ok(running) => running.announce(parts.directory, started),
        Err(error) => return error,
    };
    match announced {
        Ok(_announcement) => anyhow!(platform.ending().await),
        Err(error) => error,
    }
}

async fn everything(parts: &Parts<'_>, platform: &mut Platform) -> anyhow::Result<Running> {
    let pods = stores::pods(&parts.settings.stores.pods).await?;
    // All sockets before anything runs: a busy port is the likeliest mistake, and then nothing needs to be undone.
    let socket = parts.apiserver_socket().await?;
    let kubelet = match pods {
        Pods::Local => Some(parts.kubelet_socket().await?),
        Pods::Cluster(_) => None,
    };
    let monitor = parts.controllers_socket().await?;
    let usercenter = parts.usercenter_sockets().await?;
    let mut running = Running::default();
    running.listens("apiserver", &socket);
    running.listens("usercenter", &usercenter.rest);
    running.listens("usercenterGrpc", &usercenter.grpc);
    running.says_in_the_clear("controllers", monitor.as_ref());
    let apiserver = parts.apiserver(platform, socket).await?;
    parts.usercenter(platform, usercenter).await?;
    let door = Door::Here(&apiserver);
    if let Some(kubelet) = kubelet {
        running.listens("kubelet", &kubelet);
        parts.node(platform, kubelet, &door).await?;
    }
    parts.controllers(platform, monitor, &door, pods).await?;
    running.is_at("db", parts.db_place()?);
    running.is_at("storage", parts.settings.stores.storage_location(parts.directory));
    running.is_at("pods", &parts.settings.stores.pods);
    Ok(running)
}

async fn apiserver(parts: &Parts<'_>, platform: &mut Platform) -> anyhow::Result<Running> {
    let socket = parts.apiserver_socket().await?;
    let mut running = Running::default();
    running.listens("apiserver", &socket);
    parts.apiserver(platform, socket).await?;
    running.is_at("storage", parts.settings.stores.storage_location(parts.directory));
    Ok(running)
}

async fn usercenter(parts: &Parts<'_>, platform: &mut Platform) -> anyhow::Result<Running> {
    let sockets = parts.usercenter_sockets().await?;
    let mut running = Running::default();
    // In the table only: endpoints.json is the apiserver's, which may run on the same directory.
    running.is_at("usercenter", format_args!("https://{}", sockets.rest.1));
    running.is_at("usercenterGrpc", format_args!("https://{}", sockets.grpc.1));
    parts.usercenter(platform, sockets).await?;
    Ok(running)
}

async fn controllers(parts: &Parts<'_>, platform: &mut Platform, kubeconfig: &Path) -> anyhow::Result<Running> {
    let pods = stores::pods(&parts.settings.stores.pods).await?;
    let monitor = parts.controllers_socket().await?;
    let mut running = Running::default();
    match &monitor {
        // In the table only: endpoints.json is the apiserver's, which may run on the same directory.
        Some((_, address)) => running.is_at("controllers", format_args!("http://{address}")),
        None => running.is_at("controllers", "in this process"),
    }
    parts.controllers(platform, monitor, &Door::Kubeconfig(kubeconfig), pods).await?;
    running.is_at("db", parts.db_place()?);
    running.is_at("pods", &parts.settings.stores.pods);
    Ok(running)
}

async fn node(parts: &Parts<'_>, platform: &mut Platform, kubeconfig: &Path) -> anyhow::Result<Running> {
    let socket = parts.kubelet_socket().await?;
    let mut running = Running::default();
    // In the table only: endpoints.json is the apiserver's, which may run on the same directory.
    running.is_at("kubelet", format_args!("https://{}", socket.1));
    parts.node(platform, socket, &Door::Kubeconfig(kubeconfig)).await?;
    Ok(running)
}

/// What runs where.
#[derive(Default)]
struct Running {
    endpoints: BTreeMap<&'static str, String>,
    rows: Vec<(&'static str, String)>,
}

/// The file of endpoints, which goes when this does: it says what can be reached.
struct Announcement(Option<PathBuf>);

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // If it is gone already, that is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Running {
    fn listens(&mut self, part: &'static str, (_, address): &Socket) {
        let address = format!("https://{}", reachable(*address));
        self.endpoints.insert(part, address.clone());
        self.rows.push((part, address));
    }

    /// Where a part says how it is; if nowhere, it is still there.
    fn says_in_the_clear(&mut self, part: &'static str, socket: Option<&Socket>) {
        let Some((_, address)) = socket else { return self.is_at(part, "in this process") };
        let address = format!("http://{}", reachable(*address));
        self.endpoints.insert(part, address.clone());
        self.rows.push((part, address));
    }

    fn is_at(&mut self, part: &'static str, place: impl std::fmt::Display) {
        self.rows.push((part, place.to_string()));
    }

    /// Tells programs and people.
    fn announce(&self, directory: &Path, started: Instant) -> anyhow::Result<Announcement> {
        let announcement = self.write_endpoints(directory)?;
        say::out(&format!("ready after {} ms\n", started.elapsed().as_millis()));
        for (part, place) in &self.rows {
            say::out(&format!("  {part:<15}{place}"));
        }
        if self.endpoints.contains_key("apiserver") {
            let kubeconfig = directory.join(KUBECONFIG);
            say::out(&format!("\n  export KUBECONFIG={}", quoted(&kubeconfig.to_string_lossy())));
        }
        say::out("\nCtrl-C stops it.");
        Ok(announcement)
    }

    fn write_endpoints(&self, directory: &Path) -> anyhow::Result<Announcement> {
        if self.endpoints.is_empty() {
            return Ok(Announcement(None));
        }
        let path = directory.join(ENDPOINTS);
        let text = serde_json::to_vec_pretty(&self.endpoints).expect("text makes JSON");
        files::replace(&path, &text, Readers::Everybody)
            .with_context(|| format!("could not write {}", path.display()))?;
        Ok(Announcement(Some(path)))
    }
}

/// A path as a shell reads it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// A watcher is a connection and a miner is a handful of files, so the low default limit is raised as far as allowed.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "could not raise the limit of open files");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_blank_or_a_quote_can_still_be_pasted() {
        assert_eq!(quoted("/home/u/.local/share/onex/kubeconfig"), "/home/u/.local/share/onex/kubeconfig");
        assert_eq!(quoted("/my data/it's"), r"'/my data/it'\''s'");
    }
}
