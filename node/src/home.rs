//! The directory and the address of each Pod.
//!
//! Both belong to a Pod's name, not to its uid: a Miner whose Pod is re-created finds its chain again, and its peers find it at
//! the same address. A Pod of the same name that somebody else owns starts empty. What no Pod has asked for during
//! `keep_directory_seconds` is removed, address included.

use crate::addresses::{AddressRange, Addresses};
use crate::{Error, PodName, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where one Pod lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    pub(crate) address: Ipv4Addr,
}

impl Home {
    /// The working directory of every container; empty for each new Pod.
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// What outlives the Pod: the chain of a blockchain node.
    pub(crate) fn chain(&self) -> PathBuf {
        self.path.join("chain")
    }

    /// The logs of one container.
    pub(crate) fn logs(&self, container: &str) -> PathBuf {
        self.path.join("logs").join(container)
    }
}

/// What is remembered of a Pod across restarts of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Deed {
    uid: String,
    owner: String,
    address: Ipv4Addr,
}

/// All homes of this node.
#[derive(Debug)]
pub(crate) struct Homes {
    root: PathBuf,
    addresses: Addresses,
    deeds: HashMap<String, Deed>,
    empty_since: HashMap<String, Instant>,
}

impl Homes {
    /// Reads what an earlier run of the node left under `root`. `salt` differs between the nodes of one machine.
    pub(crate) fn open(root: PathBuf, range: AddressRange, salt: &str) -> Result<Self> {
        let mut homes =
            Self { addresses: Addresses::new(range, salt), deeds: HashMap::new(), empty_since: HashMap::new(), root };
        homes.read().map_err(|source| homes.error(source))?;
        Ok(homes)
    }

    fn read(&mut self) -> io::Result<()> {
        // Logs may hold what programs should not have printed.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let Ok(directory) = entry.file_name().into_string() else {
                continue;
            };
            // A directory without a readable deed is from a crash in its first moment: it is taken over or swept.
            let deed = fs::read(entry.path().join("home.json"))
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Deed>(&bytes).ok())
                .filter(|deed| self.addresses.restore(&directory, deed.address));
            self.empty_since.insert(directory.clone(), Instant::now());
            if let Some(deed) = deed {
                self.deeds.insert(directory, deed);
            }
        }
        Ok(())
    }

    /// Makes the home of a Pod ready. A Pod with another uid finds an empty working directory and no logs; one with
    /// another owner finds no chain either.
    pub(crate) fn settle(&mut self, pod: &PodName, uid: &str, owner: &str) -> Result<Home> {
        let directory = directory(pod);
        self.try_settle(&directory, uid, owner).map_err(|source| self.error(source))
    }

    fn try_settle(&mut self, directory: &str, uid: &str, owner: &str) -> io::Result<Home> {
        self.empty_since.remove(directory);
        let path = self.root.join(directory);
        let before = self.deeds.get(directory).cloned();
        if before.as_ref().is_none_or(|deed| deed.uid != uid) {
            remove(&path.join("work"))?;
            remove(&path.join("logs"))?;
        }
        if before.as_ref().is_none_or(|deed| deed.owner != owner) {
            remove(&path.join("chain"))?;
        }
        let address = match &before {
            Some(deed) => deed.address,
            None => self
                .addresses
                .claim(directory)
                .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "every Pod address is held"))?,
        };
        let home = Home { path, address };
        fs::create_dir_all(home.work())?;
        let deed = Deed { uid: uid.to_owned(), owner: owner.to_owned(), address };
        if before.as_ref() != Some(&deed) {
            write(&home.path.join("home.json"), &deed)?;
        }
        self.deeds.insert(directory.to_owned(), deed);
        Ok(home)
    }

    /// Notes which homes nobody lives in, and removes those that were empty for `keep`.
    pub(crate) fn sweep(&mut self, lives: impl Fn(&PodName) -> bool, keep: Duration, now: Instant) {
        let directories: Vec<String> = match fs::read_dir(&self.root) {
            Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect(),
            Err(error) => return tracing::warn!(%error, "cannot look for directories that no Pod needs"),
        };
        for directory in directories {
            if pod_name(&directory).is_some_and(|pod| lives(&pod)) {
                self.empty_since.remove(&directory);
                continue;
            }
            let since = *self.empty_since.entry(directory.clone()).or_insert(now);
            if now.saturating_duration_since(since) >= keep {
                self.demolish(&directory);
            }
        }
    }

    fn demolish(&mut self, directory: &str) {
        if let Err(error) = remove(&self.root.join(directory)) {
            return tracing::warn!(%error, directory, "cannot remove the directory of a Pod that is gone");
        }
        self.empty_since.remove(directory);
        if let Some(deed) = self.deeds.remove(directory) {
            self.addresses.release(deed.address);
        }
    }

    fn error(&self, source: io::Error) -> Error {
        Error::DataDirectory { path: self.root.clone(), source }
    }
}

/// Neither a namespace nor a name can have an underscore.
fn directory(pod: &PodName) -> String {
    format!("{}_{}", pod.namespace, pod.name)
}

fn pod_name(directory: &str) -> Option<PodName> {
    let (namespace, name) = directory.split_once('_')?;
    Some(PodName { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Written beside and renamed, so that a crash leaves the old deed or the new one.
fn write(path: &Path, deed: &Deed) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, serde_json::to_vec(deed)?)?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodName {
        PodName { namespace: "user-admin".into(), name: name.into() }
    }

    fn open(root: &Path) -> Homes {
        Homes::open(root.to_owned(), AddressRange::default(), "test").unwrap()
    }

    fn leave_things(home: &Home) {
        for directory in [home.work(), home.chain(), home.logs("toyblc")] {
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("thing"), "x").unwrap();
        }
    }

    #[test]
    fn a_recreated_pod_keeps_its_chain_and_address_but_not_its_working_files() {
        let root = tempfile::tempdir().unwrap();
        let first = open(root.path()).settle(&pod("a"), "uid-1", "miner").unwrap();
        leave_things(&first);
        let again = open(root.path()).settle(&pod("a"), "uid-2", "miner").unwrap();
        assert_eq!(first, again);
        assert!(again.chain().join("thing").exists());
        assert!(!again.work().join("thing").exists());
        assert!(!again.logs("toyblc").exists());
    }

    #[test]
    fn the_same_pod_keeps_everything_over_a_restart() {
        let root = tempfile::tempdir().unwrap();
        leave_things(&open(root.path()).settle(&pod("a"), "uid-1", "").unwrap());
        let home = open(root.path()).settle(&pod("a"), "uid-1", "").unwrap();
        assert!(home.work().join("thing").exists());
        assert!(home.logs("toyblc").join("thing").exists());
    }

    #[test]
    fn a_pod_of_another_owner_starts_with_an_empty_chain() {
        let root = tempfile::tempdir().unwrap();
        let mut homes = open(root.path());
        leave_things(&homes.settle(&pod("a"), "uid-1", "miner-1").unwrap());
        let home = homes.settle(&pod("a"), "uid-2", "miner-2").unwrap();
        assert!(!home.chain().exists());
    }

    #[test]
    fn an_empty_home_is_removed_after_a_while_and_its_address_is_free() {
        let root = tempfile::tempdir().unwrap();
        let mut homes = open(root.path());
        let gone = homes.settle(&pod("gone"), "1", "").unwrap();
        let stays = homes.settle(&pod("stays"), "2", "").unwrap();
        let (start, keep) = (Instant::now(), Duration::from_secs(60));
        let lives = |name: &PodName| name.name == "stays";
        homes.sweep(lives, keep, start);
        homes.sweep(lives, keep, start + Duration::from_secs(59));
        assert!(gone.path.exists());
        homes.sweep(lives, keep, start + keep);
        assert!(!gone.path.exists());
        assert!(stays.path.exists());
        assert!(!homes.deeds.contains_key("user-admin_gone"));
    }

    #[test]
    fn the_homes_of_pods_are_for_nobody_else_to_look_into() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("node/pods");
        open(&root);
        assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
