//! Members of an etcd that do not hear each other, or of whom nothing is heard at all.
//!
//! Each member lives in a network namespace of its own, all joined by the one of the test, which routes between them: a member
//! that is cut off notices it as it would of a cable that was pulled. The test process begins itself again in a namespace, for
//! which it needs to be root or to be allowed namespaces of users. `ONEX_PARTITION_SECONDS` says how long a member is cut off:
//! 2, and 60 at night.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use onex_storage::{Error, Etcd, Expected, Key, Page, Revision, Settings, Storage};
use tokio::time::{Instant, sleep, timeout};

const LONG: Duration = Duration::from_secs(90);

#[test]
fn of_three_members_any_may_be_cut_off_and_nothing_acknowledged_is_lost() {
    let Some(mut command) = in_a_namespace() else {
        // Said past the test harness, which shows nothing of what passes.
        let why = "NOT RUN: partition: there are no namespaces of networks here for whoever runs this\n";
        return std::io::stderr().write_all(why.as_bytes()).unwrap();
    };
    let inside = ["partition::inside", "--exact", "--ignored", "--nocapture"];
    let output = command.arg(std::env::current_exe().unwrap()).args(inside).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
}

/// How to begin a program in a namespace of its own; nothing, if that is not allowed here.
fn in_a_namespace() -> Option<Command> {
    [&["--net"][..], &["--user", "--map-root-user", "--net"]].into_iter().find_map(|how| {
        let mut tried = Command::new("unshare");
        tried.args(how).args(["sh", "-c", "ip link add name a0 type veth peer name b0"]).env("PATH", path());
        let works = tried.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        let mut command = Command::new("unshare");
        command.args(how).env("PATH", path());
        works.then_some(command)
    })
}

/// Where `ip` is may not be where users look.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn run(command: &str) {
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
}

/// Three members, each behind a cable of its own.
struct Cluster {
    members: Vec<Child>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        run("ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward");
        let directory = tempfile::tempdir().unwrap();
        let everybody = (0..3).map(|n| format!("m{n}=http://10.77.{n}.2:2380")).collect::<Vec<_>>().join(",");
        let member = |n: usize| {
            let data = directory.path().join(n.to_string()).display().to_string();
            let etcd = format!(
                "ip link set lo up; until ip addr show dev b{n} 2>/dev/null | grep -q 'inet '; do sleep 0.02; done
                exec etcd --name m{n} --data-dir {data} --initial-cluster {everybody} --log-level error \
                --listen-client-urls http://10.77.{n}.2:2379 --advertise-client-urls http://10.77.{n}.2:2379 \
                --listen-peer-urls http://10.77.{n}.2:2380 --initial-advertise-peer-urls http://10.77.{n}.2:2380"
            );
            let begun = Command::new("unshare")
                .args(["--net", "sh", "-c", &etcd])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let begun = begun.unwrap();
            let pid = begun.id();
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == own {
                std::thread::sleep(Duration::from_millis(5));
            }
            run(&format!(
                "ip link add name a{n} type veth peer name b{n} && ip link set b{n} netns {pid} &&
                ip addr add 10.77.{n}.1/24 dev a{n} && ip link set a{n} up &&
                nsenter --net=/proc/{pid}/ns/net ip link set b{n} up &&
                nsenter --net=/proc/{pid}/ns/net ip addr add 10.77.{n}.2/24 dev b{n} &&
                nsenter --net=/proc/{pid}/ns/net ip route add default via 10.77.{n}.1"
            ));
            begun
        };
        Self { members: (0..3).map(member).collect(), _directory: directory }
    }

    /// Nobody hears of it any more.
    fn pull(&self, n: usize) {
        let pid = self.members[n].id();
        run(&format!("nsenter --net=/proc/{pid}/ns/net ip link set b{n} down"));
    }

    fn plug_in(&self, n: usize) {
        let pid = self.members[n].id();
        run(&format!(
            "nsenter --net=/proc/{pid}/ns/net sh -c 'ip link set b{n} up && ip route replace default via 10.77.{n}.1'"
        ));
    }

    /// The others do not hear of it any more, while clients do.
    fn part_from_others(&self, n: usize, parted: bool) {
        run(&format!("echo {} > /proc/sys/net/ipv4/conf/a{n}/forwarding", u8::from(!parted)));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// Who writes for as long as it goes on, and what they were told.
struct Writers {
    over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<BTreeMap<String, Revision>>>,
}

impl Writers {
    fn new(storage: &Arc<dyn Storage>) -> Self {
        let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = |writer: usize| {
            let (storage, over, count) = (storage.clone(), over.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let mut told = BTreeMap::new();
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("/w/{writer}/{number:06}");
                    match storage.put(&Key::from(key.as_str()), Bytes::from("x"), Expected::Absent).await {
                        Ok(revision) => {
                            told.insert(key, revision);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Error::Unavailable(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                    sleep(Duration::from_millis(2)).await;
                }
                told
            })
        };
        let tasks = (0..4).map(writer).collect();
        Self { over, acknowledged, tasks }
    }

    /// Waits until writes are acknowledged that were asked for after this.
    async fn go_on(&self) -> Duration {
        let asked = Instant::now();
        // As many as there are writers may have been asked for before.
        let enough = self.acknowledged.load(Ordering::Relaxed) + 10;
        while self.acknowledged.load(Ordering::Relaxed) < enough {
            assert!(asked.elapsed() < LONG, "no write is acknowledged any more");
            sleep(Duration::from_millis(10)).await;
        }
        asked.elapsed()
    }

    async fn end(self) -> BTreeMap<String, Revision> {
        self.over.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

/// Watches to the end, and begins again where it was whenever the watch ends.
async fn follow(storage: Arc<dyn Storage>, since: Revision, until: Arc<AtomicU64>) -> BTreeMap<String, Revision> {
    let (mut seen, mut reached) = (BTreeMap::new(), since);
    while reached.0 < until.load(Ordering::Relaxed) {
        let Ok(mut changes) = storage.watch(&"/w/".into(), reached).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while reached.0 < until.load(Ordering::Relaxed)
            && let Ok(run) = timeout(Duration::from_secs(1), changes.next()).await
        {
            let Some(Ok(run)) = run else { break };
            for change in run.changes {
                assert!(change.revision > reached, "{change:?} is told after {reached}");
                assert_eq!(seen.insert(change.key.to_string(), change.revision), None);
            }
            assert!(run.revision >= reached);
            reached = run.revision;
        }
    }
    seen
}

/// No test, but what the test above runs in a namespace: in a process of its own, with `--ignored`. Ignored because without that
/// namespace there are no cables to cut.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it needs the namespace that another test makes for it"]
async fn inside() {
    let length = std::env::var("ONEX_PARTITION_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let length = Duration::from_secs(length);
    let cluster = Cluster::new();
    let members: Vec<_> = (0..3).map(|n| format!("10.77.{n}.2:2379")).collect();
    let began = Instant::now();
    let storage: Arc<dyn Storage> = loop {
        match Etcd::open(&members, &Settings::default()).await {
            Ok(storage) => break Arc::new(storage),
            Err(error) => assert!(began.elapsed() < LONG, "{error}"),
        }
    };
    let since = storage.newest().await.unwrap();
    let until = Arc::new(AtomicU64::new(u64::MAX));
    let follower = tokio::spawn(follow(storage.clone(), since, until.clone()));
    let writers = Writers::new(&storage);
    writers.go_on().await;
    for n in 0..3 {
        cluster.pull(n);
        let took = writers.go_on().await;
        assert!(took < Duration::from_secs(30), "{took:?}");
        sleep(length).await;
        cluster.plug_in(n);
        writers.go_on().await;
    }
    for n in 0..3 {
        cluster.part_from_others(n, true);
        let took = writers.go_on().await;
        assert!(took < Duration::from_secs(30), "{took:?}");
        sleep(length).await;
        cluster.part_from_others(n, false);
        writers.go_on().await;
    }
    // Of a minority nobody is told anything that may not be so.
    (0..2).for_each(|n| cluster.pull(n));
    sleep(Duration::from_secs(2)).await;
    let (asked, key) = (Instant::now(), Key::from("/w/0/000000"));
    let (read, newest) = tokio::join!(storage.get(&key), storage.newest());
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert!(matches!(newest, Err(Error::Unavailable(_))), "{newest:?}");
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    sleep(length).await;
    (0..2).for_each(|n| cluster.plug_in(n));
    writers.go_on().await;

    let acknowledged = writers.end().await;
    let there = storage.list(Page::all("/w/")).await.unwrap();
    until.store(there.entries.iter().map(|entry| entry.revision.0).max().unwrap(), Ordering::Relaxed);
    let there: BTreeMap<_, _> = there.entries.into_iter().map(|e| (e.key.to_string(), e.revision)).collect();
    for (key, revision) in &acknowledged {
        assert_eq!(there.get(key), Some(revision), "{key}");
    }
    assert_eq!(timeout(LONG, follower).await.unwrap().unwrap(), there, "each change was told once");
}
