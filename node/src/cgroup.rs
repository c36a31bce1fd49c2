//! Resource limits, where this machine lets us set them.
//!
//! Version 2 with the unified hierarchy, or version 1 with a hierarchy for each controller. A machine that allows neither
//! runs everything without limits, which is said once, when the node starts.

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a container may use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Limits {
    pub(crate) cores: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
}

impl Limits {
    pub(crate) fn of(container: &Container) -> Self {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let get = |name: &str| quantity(limits?.get(name)?).filter(|value| *value > 0.0);
        Self {
            cores: get("cpu"),
            // A float holds every number of bytes that a machine can have.
            memory_bytes: get("memory").map(|bytes| bytes as u64),
        }
    }
}

/// The number that a Kubernetes quantity such as `100m` or `1Gi` stands for.
pub(crate) fn quantity(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let factor = match &text[end..] {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        exponent => 10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * factor)
}

/// The hierarchies of this machine that we may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroups {
    Unified(PathBuf),
    Separate { memory: Option<PathBuf>, cpu: Option<PathBuf> },
    None,
}

/// Length of the interval in which CPU time is given out.
const PERIOD_MICROSECONDS: u64 = 100_000;

impl Cgroups {
    /// Looks under `mount` (`/sys/fs/cgroup`) for what can be written, and makes the group `parent` there.
    pub(crate) fn detect(mount: &Path, parent: &str) -> Self {
        if parent.is_empty() {
            return Self::None;
        }
        let unified = mount.join("cgroup.controllers").exists();
        let found = if unified {
            let root = mount.join(parent);
            match fs::create_dir_all(&root).and_then(|()| delegate(mount)).and_then(|()| delegate(&root)) {
                Ok(()) => Self::Unified(root),
                Err(_) => Self::None,
            }
        } else {
            let controller = |name: &str, limit: &str| {
                let root = mount.join(name).join(parent);
                fs::create_dir_all(&root).ok()?;
                root.join(limit).exists().then_some(root)
            };
            match (controller("memory", "memory.limit_in_bytes"), controller("cpu", "cpu.cfs_quota_us")) {
                (None, None) => Self::None,
                (memory, cpu) => Self::Separate { memory, cpu },
            }
        };
        let (memory, cpu) = found.holds();
        for (held, what) in [(memory, "memory"), (cpu, "CPU")] {
            if !held {
                tracing::info!("{what} limits are not enforced: no cgroup for them can be written here");
            }
        }
        found
    }

    /// Which limits have an effect: on memory, and on CPU time.
    fn holds(&self) -> (bool, bool) {
        match self {
            Self::Unified(_) => (true, true),
            Self::Separate { memory, cpu } => (memory.is_some(), cpu.is_some()),
            Self::None => (false, false),
        }
    }

    /// Makes the groups in which a container with these limits is to run.
    pub(crate) fn confine(&self, pod_uid: &str, container: &str, limits: Limits) -> io::Result<Confinement> {
        let mut groups = Vec::new();
        if limits == Limits::default() {
            return Ok(Confinement { groups });
        }
        match self {
            Self::None => {}
            Self::Unified(root) => {
                let pod = root.join(pod_uid);
                fs::create_dir_all(&pod)?;
                delegate(&pod)?;
                let group = make(&pod.join(container), &mut groups)?;
                if let Some(bytes) = limits.memory_bytes {
                    set(&group, "memory.max", &bytes.to_string())?;
                }
                if let Some(cores) = limits.cores {
                    set(&group, "cpu.max", &format!("{} {PERIOD_MICROSECONDS}", share(cores)))?;
                }
            }
            Self::Separate { memory, cpu } => {
                let path = |root: &Path| root.join(pod_uid).join(container);
                if let (Some(root), Some(bytes)) = (memory, limits.memory_bytes) {
                    let group = make(&path(root), &mut groups)?;
                    set(&group, "memory.limit_in_bytes", &bytes.to_string())?;
                }
                if let (Some(root), Some(cores)) = (cpu, limits.cores) {
                    let group = make(&path(root), &mut groups)?;
                    set(&group, "cpu.cfs_period_us", &PERIOD_MICROSECONDS.to_string())?;
                    set(&group, "cpu.cfs_quota_us", &share(cores).to_string())?;
                }
            }
        }
        Ok(Confinement { groups })
    }
}

/// Microseconds of CPU time in each period; the kernel takes no less than a millisecond.
fn share(cores: f64) -> u64 {
    ((cores * PERIOD_MICROSECONDS as f64) as u64).max(1000)
}

fn delegate(group: &Path) -> io::Result<()> {
    set(group, "cgroup.subtree_control", "+cpu +memory")
}

fn make(group: &Path, groups: &mut Vec<PathBuf>) -> io::Result<PathBuf> {
    fs::create_dir_all(group)?;
    groups.push(group.to_owned());
    Ok(group.to_owned())
}

fn set(group: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::write(group.join(file), value)
}

/// The groups of one running container.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    groups: Vec<PathBuf>,
}

impl Confinement {
    pub(crate) fn groups(&self) -> &[PathBuf] {
        &self.groups
    }

    /// Whether the kernel killed something in here because the memory was used up.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let counted = |file: &Path| {
            fs::read_to_string(file).is_ok_and(|text| {
                text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
            })
        };
        self.groups
            .iter()
            .any(|group| counted(&group.join("memory.events")) || counted(&group.join("memory.oom_control")))
    }

    /// False when there still is something in it. What was killed takes a moment to leave.
    pub(crate) fn remove(&self) -> bool {
        remove(&self.groups);
        !self.groups.iter().any(|group| group.exists())
    }
}

/// Removes the groups of a container, and those of its Pod when they are empty. A group with processes stays.
pub(crate) fn remove(groups: &[PathBuf]) {
    for group in groups {
        let _ = fs::remove_dir(group);
        if let Some(pod) = group.parent() {
            let _ = fs::remove_dir(pod);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("100m", Some(0.1)),
            ("2", Some(2.0)),
            ("0.5", Some(0.5)),
            ("1024Mi", Some(1_073_741_824.0)),
            ("1Gi", Some(1_073_741_824.0)),
            ("1G", Some(1e9)),
            ("1e3", Some(1000.0)),
            ("12E2", Some(1200.0)),
            ("", None),
            ("Gi", None),
            ("1X", None),
        ] {
            assert_eq!(quantity(&Quantity(text.into())), expected, "{text}");
        }
    }

    #[test]
    fn a_machine_without_cgroups_sets_no_limits() {
        let mount = tempfile::tempdir().unwrap();
        assert_eq!(Cgroups::detect(mount.path(), "onex"), Cgroups::None);
        assert_eq!(Cgroups::detect(Path::new("/sys/fs/cgroup"), ""), Cgroups::None);
    }

    #[test]
    fn limits_are_written_into_the_unified_hierarchy() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let cgroups = Cgroups::detect(mount.path(), "onex");
        let limits = Limits { cores: Some(0.05), memory_bytes: Some(1 << 30) };
        let confinement = cgroups.confine("uid", "toyblc", limits).unwrap();
        let group = mount.path().join("onex/uid/toyblc");
        assert_eq!(confinement.groups(), std::slice::from_ref(&group));
        assert_eq!(fs::read_to_string(group.join("memory.max")).unwrap(), "1073741824");
        assert_eq!(fs::read_to_string(group.join("cpu.max")).unwrap(), "5000 100000");
        assert!(!confinement.ran_out_of_memory());
        fs::write(group.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        assert!(confinement.ran_out_of_memory());
    }

    #[test]
    fn limits_are_written_into_separate_hierarchies() {
        let mount = tempfile::tempdir().unwrap();
        for (controller, file) in [("memory", "memory.limit_in_bytes"), ("cpu", "cpu.cfs_quota_us")] {
            let root = mount.path().join(controller).join("onex");
            fs::create_dir_all(&root).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        let cgroups = Cgroups::detect(mount.path(), "onex");
        let limits = Limits { cores: Some(2.0), memory_bytes: None };
        let confinement = cgroups.confine("uid", "c", limits).unwrap();
        let group = mount.path().join("cpu/onex/uid/c");
        assert_eq!(confinement.groups(), std::slice::from_ref(&group));
        assert_eq!(fs::read_to_string(group.join("cpu.cfs_quota_us")).unwrap(), "200000");
    }

    #[test]
    fn a_container_without_limits_is_not_confined() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.controllers"), "").unwrap();
        let cgroups = Cgroups::detect(mount.path(), "onex");
        let confinement = cgroups.confine("uid", "c", Limits::default()).unwrap();
        assert!(confinement.groups().is_empty());
    }
}
