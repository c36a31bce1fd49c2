//! Which processes this node started, written down so that a later run of the node can kill what outlived a crash.
//!
//! Children die with the node (see `shim`), so normally nothing is left. But a child of a child is not told, and may still
//! hold a port or a database. It is killed with its container, by the mark that it carries; after a crash of the node, or when
//! it gave up that mark, as late as the node stops or starts.

use crate::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The environment variable that names the node's data directory, by which a process, and whatever it starts, can be told to
/// be ours.
pub(crate) const MARK: &str = "OWNED_BY_ONEX_NODE";

/// The environment variable by which what a container started can be told: the uid of its Pod, and its name.
pub(crate) const CONTAINER_MARK: &str = "OWNED_BY_ONEX_CONTAINER";

/// One started process. The start time tells it from a later process that got the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    pid: i32,
    started: u64,
    cgroups: Vec<PathBuf>,
}

/// The records, one file for each process.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    directory: PathBuf,
    mark: String,
}

impl Records {
    /// The records of the node whose data is in `data_dir`.
    pub(crate) fn open(data_dir: &Path) -> Result<Self> {
        let directory = data_dir.join("processes");
        match fs::create_dir_all(&directory) {
            Ok(()) => Ok(Self { directory, mark: format!("{MARK}={}", data_dir.display()) }),
            Err(source) => Err(Error::DataDirectory { path: directory, source }),
        }
    }

    /// Writes down a process that runs.
    pub(crate) fn add(&self, pid: Pid, cgroups: &[PathBuf]) -> io::Result<()> {
        let pid = pid.as_raw_nonzero().get();
        let process = Process::read(pid).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let record = Record { pid, started: process.started, cgroups: cgroups.to_vec() };
        fs::write(self.file(pid), serde_json::to_vec(&record)?)
    }

    /// Forgets a process that has ended.
    pub(crate) fn remove(&self, pid: Pid) {
        let _ = fs::remove_file(self.file(pid.as_raw_nonzero().get()));
    }

    fn file(&self, pid: i32) -> PathBuf {
        self.directory.join(format!("{pid}.json"))
    }

    /// Kills what an earlier run of the node left behind, and waits until it is gone. Returns how many there were.
    ///
    /// Call it before anything is started or after everything ended, and never while another node uses the same directory.
    pub(crate) fn kill_leftovers(&self) -> Result<usize> {
        self.try_kill_leftovers().map_err(|source| Error::DataDirectory { path: self.directory.clone(), source })
    }

    fn try_kill_leftovers(&self) -> io::Result<usize> {
        let (mut records, mut files) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            // An unreadable record was torn by a crash of the machine, which ended the process too.
            records.extend(serde_json::from_slice::<Record>(&fs::read(&path)?));
            files.push(path);
        }
        let killed = kill(PATIENCE, |pid, process, environ| {
            let written = records.iter().any(|record| record.pid == pid && record.started == process.started);
            written || self.is_marked(environ)
        });
        for record in &records {
            crate::cgroup::remove(&record.cgroups);
        }
        files.iter().try_for_each(fs::remove_file)?;
        Ok(killed)
    }

    /// Kills what containers of this node left behind that end now, by their marks, and waits until it is gone. Returns how
    /// many there were.
    pub(crate) fn kill_marked(&self, containers: &[String]) -> usize {
        let marks: HashSet<String> = containers.iter().map(|mark| format!("{CONTAINER_MARK}={mark}")).collect();
        let is_of_container =
            |variable: &[u8]| std::str::from_utf8(variable).is_ok_and(|variable| marks.contains(variable));
        kill(EXEC, |_, _, environ| self.is_marked(environ) && variables(environ).any(is_of_container))
    }

    fn is_marked(&self, environ: &[u8]) -> bool {
        variables(environ).any(|variable| variable == self.mark.as_bytes())
    }
}

fn variables(environ: &[u8]) -> impl Iterator<Item = &[u8]> {
    environ.split(|byte| *byte == 0)
}

/// Kills what `is_ours` by its number, by what the system says of it, or by its environment. For `unclear` at most, it waits for
/// an environment that is not there yet.
fn kill(unclear: Duration, is_ours: impl Fn(i32, &Process, &[u8]) -> bool) -> usize {
    let start = Instant::now();
    let mut killed = BTreeSet::new();
    loop {
        // Looked for again each time: what is killed may just have started another.
        let left = Left::look(&is_ours);
        let waits = left.unclear && start.elapsed() < unclear;
        if (left.ours.is_empty() && !waits) || start.elapsed() > PATIENCE {
            return killed.len();
        }
        for pid in left.ours.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        killed.extend(left.ours);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a look at all processes found.
#[derive(Debug, Default)]
struct Left {
    /// The processes that are surely ours: those written down, and those that carry our mark.
    ours: Vec<i32>,
    /// Whether there is a process of which that cannot be told yet.
    unclear: bool,
}

impl Left {
    fn look(is_ours: impl Fn(i32, &Process, &[u8]) -> bool) -> Self {
        let mut left = Self::default();
        let Ok(entries) = fs::read_dir("/proc") else {
            return left;
        };
        let own = i32::try_from(std::process::id());
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        for pid in pids.filter(|pid| own != Ok(*pid)) {
            let Some(process) = Process::read(pid).filter(Process::is_alive) else {
                continue;
            };
            let environ = fs::read(format!("/proc/{pid}/environ"));
            if is_ours(pid, &process, environ.as_deref().unwrap_or_default()) {
                left.ours.push(pid);
            } else if process.has_no_environment_yet && environ.is_ok_and(|environ| environ.is_empty()) {
                left.unclear = true;
            }
        }
        left
    }
}

/// How long somebody else's exec may hold up the end of a container. It takes a moment, but who dies slowly has no environment
/// either.
const EXEC: Duration = Duration::from_secs(1);

/// How long killed processes may take to disappear.
const PATIENCE: Duration = Duration::from_secs(5);

/// What /proc says about a process.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    state: char,
    /// Ticks after boot.
    started: u64,
    /// For a moment in the middle of exec, the old environment is gone and the new one not there. A thread of the kernel
    /// never has one. So it also looks for a process of another user, whose environment cannot be read at all.
    has_no_environment_yet: bool,
}

/// The flag of a thread of the kernel, in the flags of /proc/PID/stat.
const PF_KTHREAD: u64 = 0x0020_0000;

impl Process {
    /// A zombie only waits for somebody to look at its exit code.
    fn is_alive(&self) -> bool {
        self.state != 'Z' && self.state != 'X'
    }

    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may contain both blanks and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
        let (flags, end_of_environment) = (number(6)?, number(48)?);
        Some(Self {
            state: fields.first()?.chars().next()?,
            started: number(19)?,
            has_no_environment_yet: flags & PF_KTHREAD == 0 && end_of_environment == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct World {
        directory: tempfile::TempDir,
        records: Records,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let records = Records::open(directory.path()).unwrap();
            Self { directory, records }
        }

        fn sleeper(&self, mark: &str) -> (Child, Pid) {
            let child = Command::new("sleep").arg("1000").env(MARK, mark).spawn().unwrap();
            let pid = Pid::from_child(&child);
            (child, pid)
        }

        fn mark(&self) -> String {
            self.directory.path().display().to_string()
        }
    }

    fn stat(flags: u64, end_of_environment: u64) -> String {
        let between = "0 ".repeat(28);
        format!("77 (a) (b c) S 1 70 70 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 4242 {between}{end_of_environment} 0")
    }

    #[test]
    fn a_process_name_with_parentheses_does_not_confuse_the_reader() {
        let process = Process { state: 'S', started: 4242, has_no_environment_yet: false };
        assert_eq!(Process::parse(&stat(4_194_560, 9000)), Some(process));
    }

    #[test]
    fn a_process_in_the_middle_of_exec_is_told_from_a_thread_of_the_kernel() {
        assert!(Process::parse(&stat(4_194_560, 0)).unwrap().has_no_environment_yet);
        assert!(!Process::parse(&stat(PF_KTHREAD, 0)).unwrap().has_no_environment_yet);
        let own = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive() && !own.has_no_environment_yet);
    }

    #[test]
    fn processes_are_recognised_however_soon_after_their_start() {
        let world = World::new();
        for _ in 0..50 {
            let (mut child, _) = world.sleeper(&world.mark());
            assert_eq!(world.records.kill_leftovers().unwrap(), 1);
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_that_outlived_the_node_is_killed_once() {
        let world = World::new();
        let (mut child, pid) = world.sleeper("it cleared its environment");
        world.records.add(pid, &[]).unwrap();
        assert_eq!(world.records.kill_leftovers().unwrap(), 1);
        assert!(!child.wait().unwrap().success());
        assert_eq!(world.records.kill_leftovers().unwrap(), 0);
    }

    #[test]
    fn a_process_that_a_container_left_behind_is_killed() {
        let world = World::new();
        let (mut child, _) = world.sleeper(&world.mark());
        assert_eq!(world.records.kill_leftovers().unwrap(), 1);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn what_one_container_left_behind_is_killed_without_its_neighbours() {
        let world = World::new();
        let sleeper = |node: &str, container: &str| {
            Command::new("sleep").arg("1000").env(MARK, node).env(CONTAINER_MARK, container).spawn().unwrap()
        };
        let mark = world.mark();
        let (mut left, mut again) = (sleeper(&mark, "uid/c"), sleeper(&mark, "uid/d"));
        let mut others = [("/another/node", "uid/c"), (&mark, "uid/cc"), (&mark, "other/c")]
            .map(|(node, container)| sleeper(node, container));
        assert_eq!(world.records.kill_marked(&["uid/c".to_owned(), "uid/d".to_owned()]), 2);
        for killed in [&mut left, &mut again] {
            assert!(!killed.wait().unwrap().success());
        }
        for other in &mut others {
            assert!(other.try_wait().unwrap().is_none());
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }

    #[test]
    fn the_processes_of_others_are_left_alone() {
        let world = World::new();
        let (mut child, pid) = world.sleeper("/another/node");
        let raw = pid.as_raw_nonzero().get();
        let started = Process::read(raw).unwrap().started - 1;
        let record = Record { pid: raw, started, cgroups: Vec::new() };
        fs::write(world.records.file(raw), serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(world.records.kill_leftovers().unwrap(), 0);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_cgroups_of_a_process_that_died_with_the_node_are_removed() {
        let world = World::new();
        let hierarchy = tempfile::tempdir().unwrap();
        let group = hierarchy.path().join("onex/pod/container");
        fs::create_dir_all(&group).unwrap();
        let (mut child, pid) = world.sleeper("");
        world.records.add(pid, std::slice::from_ref(&group)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(world.records.kill_leftovers().unwrap(), 0);
        assert_eq!(fs::read_dir(hierarchy.path().join("onex")).unwrap().count(), 0);
    }
}
