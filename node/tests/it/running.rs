//! What happens to the processes of a Pod.

use crate::world::{World, dies, heard, is_alive, line, own_address, pod, process};
use onex_node::State;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;

/// More than a test waits for the end of a Pod: one that ends only because it is killed then fails its test.
const LONG: Duration = Duration::from_secs(600);

fn waiting_for(state: &State) -> &str {
    match state {
        State::Waiting { reason, .. } => reason,
        _ => "",
    }
}

#[tokio::test]
async fn a_process_that_is_killed_is_started_again() {
    let world = World::new();
    let mut running = world.run(pod("echo $$$$ > pid; exec sleep 1000"));
    let first = line(&world.file("pid")).await;
    running.until_running().await;
    std::fs::remove_file(world.file("pid")).unwrap();
    kill_process(process(&first), Signal::KILL).unwrap();
    let seen = running.until(|seen| seen.containers[0].restarts == 1 && seen.containers[0].ready).await;
    let last = seen.containers[0].last.as_ref().unwrap();
    assert_eq!((last.exit_code, last.signal, last.reason.as_str()), (137, Some(9), "Error"));
    assert_ne!(line(&world.file("pid")).await, first);
    running.stop(LONG).await;
}

#[tokio::test]
async fn a_crash_is_waited_out_longer_and_longer() {
    let world = World::new();
    let mut running = world.run(pod("exit 3"));
    let seen = running.until(|seen| waiting_for(&seen.containers[0].state) == "CrashLoopBackOff").await;
    assert_eq!(seen.containers[0].last.as_ref().unwrap().exit_code, 3);
    let message = |state: &State| matches!(state, State::Waiting { message, .. } if message.contains("back-off 2 s"));
    running.until(|seen| message(&seen.containers[0].state)).await;
    assert!(running.stop(LONG).await.0.stopped);
}

#[tokio::test]
async fn a_pod_that_waits_out_a_crash_stops_without_waiting_for_its_turn() {
    let world = World::with(|settings| {
        (settings.restart_delay_seconds, settings.restart_delay_max_seconds) = (600, 600);
    });
    let mut running = world.run(pod("exit 3"));
    running.until(|seen| waiting_for(&seen.containers[0].state) == "CrashLoopBackOff").await;
    let (seen, took) = running.stop(LONG).await;
    assert!(seen.stopped);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn a_process_may_clean_up_before_it_stops() {
    let world = World::new();
    let script = "trap 'echo bye > bye; exit 0' TERM; echo up > up; while :; do sleep 0.05; done";
    let running = world.run(pod(script));
    line(&world.file("up")).await;
    let (seen, took) = running.stop(LONG).await;
    assert_eq!(line(&world.file("bye")).await, "bye");
    assert!(matches!(&seen.containers[0].state, State::Terminated(end) if end.exit_code == 0));
    assert!(took < Duration::from_secs(25), "{took:?}");
}

#[tokio::test]
async fn a_process_that_does_not_stop_in_time_is_killed() {
    let world = World::new();
    let running = world.run(pod("trap '' TERM; echo up > up; while :; do sleep 0.05; done"));
    line(&world.file("up")).await;
    let (seen, took) = running.stop(Duration::from_millis(500)).await;
    assert!(matches!(&seen.containers[0].state, State::Terminated(end) if end.signal == Some(9)));
    assert!(took >= Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn what_a_process_started_does_not_outlive_it() {
    let world = World::new();
    let mut running = world.run(pod("sleep 1000 & echo $! > child; exit 1"));
    let child = line(&world.file("child")).await;
    running.until(|seen| seen.containers[0].last.is_some()).await;
    assert!(dies(&child).await);
    running.stop(LONG).await;
}

#[tokio::test]
async fn no_process_outlives_the_runner() {
    let world = World::new();
    let running = world.run(pod("echo $$$$ > pid; exec sleep 1000"));
    let pid = line(&world.file("pid")).await;
    assert!(is_alive(&pid));
    running.task.abort();
    drop(world);
    assert!(dies(&pid).await);
}

#[tokio::test]
async fn the_restart_policy_decides_what_is_started_again() {
    for (policy, script, expected) in
        [("Never", "exit 0", 0), ("Never", "exit 4", 4), ("OnFailure", "[ -e again ] || { touch again; exit 1; }", 0)]
    {
        let world = World::new();
        let mut wanted = pod(script);
        wanted["spec"]["restartPolicy"] = json!(policy);
        let seen = world.run(wanted).end().await;
        let State::Terminated(end) = &seen.containers[0].state else { panic!("{policy}: {seen:?}") };
        assert_eq!(end.exit_code, expected, "{policy}");
        assert_eq!(seen.containers[0].restarts, i32::from(policy == "OnFailure"));
    }
}

#[tokio::test]
async fn init_containers_run_one_after_the_other_before_the_others() {
    let world = World::new();
    let mut wanted = pod("echo main >> order; echo done > done; exec sleep 1000");
    let step = |name: &str| json!({"name": name, "image": "sh", "args": [format!("sleep 0.1; echo {name} >> order")]});
    wanted["spec"]["initContainers"] = json!([step("one"), step("two")]);
    let mut running = world.run(wanted);
    running.until_running().await;
    line(&world.file("done")).await;
    assert_eq!(std::fs::read_to_string(world.file("order")).unwrap(), "one\ntwo\nmain\n");
    running.stop(LONG).await;
}

#[tokio::test]
async fn an_image_that_nobody_mapped_waits_and_says_how_to_map_it() {
    let mut world = World::new();
    let mut wanted = pod("");
    wanted["spec"]["containers"][0]["image"] = json!("nginx:1.27");
    let mut running = world.run(wanted);
    let seen = running.until(|seen| waiting_for(&seen.containers[0].state) == "ErrImageNeverPull").await;
    assert!(matches!(&seen.containers[0].state, State::Waiting { message, .. } if message.contains("images")));
    let notice = world.notices.recv().await.unwrap();
    assert!(notice.warning);
    assert_eq!(notice.reason, "ErrImageNeverPull");
    assert!(running.stop(LONG).await.0.stopped);
}

#[tokio::test]
async fn an_image_that_changes_is_run_instead() {
    let world = World::with(|settings| {
        settings.images.insert("other".to_owned(), vec!["/bin/sh".to_owned(), "-ec".to_owned()]);
    });
    let mut running = world.run(pod("echo $- > flags; exec sleep 1000"));
    running.until_running().await;
    assert!(!line(&world.file("flags")).await.contains('e'));
    std::fs::remove_file(world.file("flags")).unwrap();
    let mut changed = pod("echo $- > flags; exec sleep 1000");
    changed["spec"]["containers"][0]["image"] = json!("other");
    running.wishes.send_modify(|wish| wish.pod = serde_json::from_value(changed).unwrap());
    assert!(line(&world.file("flags")).await.contains('e'));
    assert_eq!(running.until_running().await.containers[0].restarts, 1);
    running.stop(LONG).await;
}

#[tokio::test]
async fn a_container_waits_for_the_service_it_names() {
    let world = World::new();
    let mut running = world.run(pod("echo http://web.n.svc:80/ 0.0.0.0:1 > address; exec sleep 1000"));
    let waits = |state: &State| matches!(state, State::Waiting { message, .. } if message.contains("Service n/web"));
    let seen = running.until(|seen| waits(&seen.containers[0].state)).await;
    world.services.add("n/web", "127.9.9.9");
    running.until_running().await;
    let expected = format!("http://127.9.9.9:80/ {}:1", seen.address.unwrap());
    assert_eq!(line(&world.file("address")).await, expected);
    running.stop(LONG).await;
}

#[tokio::test]
async fn a_recreated_pod_has_the_same_address() {
    let world = World::new();
    let mut first = world.run(pod("exec sleep 1000"));
    let address = first.until_running().await.address;
    first.stop(LONG).await;
    let mut again = pod("exec sleep 1000");
    again["metadata"]["uid"] = json!("another-uid");
    let mut second = world.run(again);
    assert_eq!(second.until_running().await.address, address);
    second.stop(LONG).await;
}

#[tokio::test]
async fn a_pod_is_ready_when_its_probe_says_so() {
    let world = World::new();
    let address = own_address();
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut wanted = pod("exec sleep 1000");
    wanted["spec"]["containers"][0]["readinessProbe"] =
        json!({"tcpSocket": {"host": address, "port": port}, "periodSeconds": 1, "failureThreshold": 1});
    let mut running = world.run(wanted);
    assert!(!running.until_running().await.containers[0].ready);
    let listener = TcpListener::bind((address, port)).await.unwrap();
    running.until(|seen| seen.containers[0].ready).await;
    drop(listener);
    running.until(|seen| !seen.containers[0].ready).await;
    running.stop(LONG).await;
}

#[tokio::test]
async fn a_process_that_is_not_alive_is_started_again() {
    let world = World::new();
    let mut wanted = pod("exec sleep 1000");
    wanted["spec"]["containers"][0]["livenessProbe"] =
        json!({"tcpSocket": {"host": own_address(), "port": 1}, "periodSeconds": 1, "failureThreshold": 1});
    let mut running = world.run(wanted);
    running.until(|seen| seen.containers[0].restarts > 0).await;
    running.stop(LONG).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_waited_for() {
    let world = World::with(|settings| {
        settings.images.insert("sh".to_owned(), vec!["/no/such/program".to_owned()]);
    });
    let mut running = world.run(pod(""));
    running.until(|seen| waiting_for(&seen.containers[0].state) == "CreateContainerError").await;
    running.stop(LONG).await;
}

#[tokio::test]
async fn a_pod_on_the_hosts_network_has_the_hosts_address() {
    let world = World::new();
    let mut wanted = pod("echo 0.0.0.0:1 > address; exec sleep 1000");
    wanted["spec"]["hostNetwork"] = json!(true);
    let mut running = world.run(wanted);
    assert_eq!(running.until_running().await.address.unwrap().to_string(), "127.0.0.1");
    assert_eq!(line(&world.file("address")).await, "127.0.0.1:1");
    running.stop(LONG).await;
}

/// How many processes a test of many Pods starts.
const MANY: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_start_and_stop_together() {
    let world = World::new();
    let mut all: Vec<_> = (0..MANY)
        .map(|n| {
            let mut wanted = pod("echo $$$$ > pid; exec sleep 1000");
            wanted["metadata"]["name"] = json!(format!("p{n}"));
            wanted["metadata"]["uid"] = json!(format!("uid-{n}"));
            world.run(wanted)
        })
        .collect();
    let mut addresses = std::collections::BTreeSet::new();
    for running in &mut all {
        addresses.insert(running.until_running().await.address);
    }
    assert_eq!(addresses.len(), MANY);
    let start = std::time::Instant::now();
    for running in &all {
        running.wishes.send_modify(|wish| wish.stop_by = Some(tokio::time::Instant::now() + LONG));
    }
    for running in &mut all {
        assert!(running.end().await.stopped);
    }
    assert!(start.elapsed() < Duration::from_secs(29), "{:?}", start.elapsed());
    assert_eq!(std::fs::read_dir(world.directory.path().join("node/processes")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_process_that_uses_more_memory_than_its_limit_is_killed_unless_the_node_says_that_it_holds_nobody_to_limits()
{
    let groups = Groups::new();
    let holds = groups.can_limit_memory();
    let (world, said) = heard(|| World::with(|settings| settings.cgroup_parent.clone_from(&groups.parent)));
    assert_eq!(said.contains("memory limits are not enforced"), !holds, "{said}");
    let mut wanted = pod("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo $x | wc -c");
    wanted["spec"]["restartPolicy"] = json!("Never");
    wanted["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "32Mi", "cpu": "500m"}});
    let seen = world.run(wanted).end().await;
    let State::Terminated(end) = &seen.containers[0].state else { panic!("{seen:?}") };
    assert_eq!(end.reason, if holds { "OOMKilled" } else { "Completed" }, "{seen:?}");
    assert_eq!(groups.pods(), Vec::<PathBuf>::new(), "nothing of the Pod is left");
}

/// The cgroups of one test. What is left of them is removed with this.
struct Groups {
    parent: String,
}

impl Groups {
    fn new() -> Self {
        Self { parent: format!("onex-test-{}", std::process::id()) }
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        ["", "memory", "cpu"]
            .into_iter()
            .map(|controller| Path::new("/sys/fs/cgroup").join(controller).join(&self.parent))
    }

    /// Whether this machine lets us limit memory, found out by doing it.
    fn can_limit_memory(&self) -> bool {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let (mount, file) = match unified {
            true => ("/sys/fs/cgroup", "memory.max"),
            false => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        };
        let group = Path::new(mount).join(&self.parent).join("probe");
        let ancestors = [Path::new(mount).to_owned(), Path::new(mount).join(&self.parent)];
        let made = std::fs::create_dir_all(&group).is_ok();
        let mut delegate = ancestors.iter().map(|group| group.join("cgroup.subtree_control"));
        let delegated = !unified || delegate.all(|file| std::fs::write(file, "+cpu +memory").is_ok());
        let file = group.join(file);
        let limited = made && delegated && file.exists() && std::fs::write(file, (32 << 20).to_string()).is_ok();
        let _ = std::fs::remove_dir(group);
        limited
    }

    fn pods(&self) -> Vec<PathBuf> {
        let inside = self.directories().filter_map(|parent| std::fs::read_dir(parent).ok()).flatten();
        inside.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for directory in self.directories() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

#[tokio::test]
async fn a_child_that_left_its_group_ends_with_its_container_and_no_other() {
    let world = World::new();
    let mut other = pod("echo $$$$ > pid; exec sleep 1000");
    (other["metadata"]["name"], other["metadata"]["uid"]) = (json!("other"), json!("another-uid"));
    let mut other = world.run(other);
    other.until_running().await;
    let mut running =
        world.run(pod("setsid sleep 1000 & [ -e first ] || { echo $! > first; exit 1; }; echo $! > second; wait"));
    let first = line(&world.file("first")).await;
    running.until(|seen| seen.containers[0].last.is_some()).await;
    assert!(!is_alive(&first), "a restart begins with nothing of the run before");
    running.until(|seen| seen.containers[0].restarts == 1 && seen.containers[0].ready).await;
    let second = line(&world.file("second")).await;
    running.stop(LONG).await;
    assert!(!is_alive(&second));
    assert!(other.seen.borrow().containers[0].ready);
    other.stop(LONG).await;
}

#[tokio::test]
async fn a_child_that_nobody_can_tell_does_not_hold_up_the_end_and_is_killed_by_the_next_run_of_the_node() {
    let world = World::new();
    // It keeps the pipe of the log open, and is nobody's any more when its parent has ended.
    let script = "env -u OWNED_BY_ONEX_CONTAINER setsid sleep 1000 & echo $! > child; trap '' TERM; while :; do sleep 0.05; done";
    let running = world.run(pod(script));
    let child = line(&world.file("child")).await;
    let (_, took) = running.stop(Duration::from_millis(200)).await;
    assert!(took < Duration::from_secs(20), "{took:?}");
    let _again = world.again();
    assert!(dies(&child).await);
}
