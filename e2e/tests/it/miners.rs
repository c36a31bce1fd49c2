//! Sets grow and shrink, and what is lost comes back.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::door::ask_miner;
use crate::world::{PATIENCE, World, eventually};

#[test]
fn a_set_scales_to_five_to_twenty_and_to_one_within_seconds() {
    let world = World::start();
    world.chain("scales", 43200);
    world.minerset("scale", "test", "scales", 2);
    world.sized("scale", "test", 2);
    for size in [5, 20, 1] {
        let out = world.kubectl(&format!("scale minerset/test -n scale --replicas={size}")).ok();
        assert_eq!(out, "minerset.apps.onex.io/test scaled\n");
        world.sized("scale", "test", size);
        // The genesis miner is the one more.
        eventually(PATIENCE, || match world.nodes() {
            nodes if nodes.len() == size + 1 => Ok(()),
            nodes => Err(format!("there should be {} processes: {nodes:?}", size + 1)),
        });
    }
    let refused = world.kubectl("scale minerset/test -n scale --replicas=3 --current-replicas=2").refused();
    assert!(refused.contains("Expected replicas to be 2, was 1"), "{refused}");
    world.kubectl("scale minerset/test -n scale --replicas=0 --current-replicas=1").ok();
    world.sized("scale", "test", 0);
}

#[test]
fn a_set_that_is_larger_than_the_node_runs_as_far_as_there_is_room_and_the_rest_waits() {
    let world = World::start_with(&["--ports", "auto", "--set", "node.cgroup_parent=", "--set", "node.max_pods=3"]);
    world.chain("crowded", 43200);
    world.minerset("crowd", "set", "crowded", 4);
    let pods = || {
        let pods = world.get("pods -n crowd")["items"].clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entry = |pod: &Value| (text(&pod["metadata"]["uid"]), text(&pod["status"]["phase"]));
        pods.as_array().unwrap().iter().map(entry).collect::<BTreeMap<_, _>>()
    };
    let all = eventually(PATIENCE, || {
        let all = pods();
        let are = |wanted: &str| all.values().filter(|phase| *phase == wanted).count();
        if (are("Running"), are("Pending")) == (2, 2) { Ok(all) } else { Err(format!("the Pods are {all:?}")) }
    });
    eventually(PATIENCE, || {
        let told = world.kubectl("describe pods -n crowd").ok();
        let said = told.contains("FailedScheduling") && told.contains("Too many pods");
        if said { Ok(()) } else { Err(told) }
    });
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(pods(), all, "nobody tries again and again");
    world.kubectl("scale ms set -n crowd --replicas=2").ok();
    world.sized("crowd", "set", 2);
}

#[test]
fn get_w_shows_a_set_and_its_miners_as_they_change() {
    let world = World::shared();
    world.chain("watched", 43200);
    world.minerset("watch", "seen", "watched", 1);
    world.sized("watch", "seen", 1);
    let miners = world.kubectl_running("get miners -n watch -w --output-watch-events");
    let set = world.kubectl_running("get minersets -n watch -w");
    let tells = |out: &str, words: &[&str]| {
        out.lines().any(|line| words.iter().all(|word| line.split_whitespace().any(|cell| cell == *word)))
    };
    // What is there is printed first, and whatever happens after that is seen.
    miners.prints(|out| tells(out, &["ADDED", "seen-0", "Running"]));
    set.prints(|out| tells(out, &["seen", "1/1"]));
    world.kubectl("scale ms/seen -n watch --replicas=2").ok();
    miners.prints(|out| tells(out, &["ADDED", "seen-1"]) && tells(out, &["MODIFIED", "seen-1", "Running"]));
    let printed = set.prints(|out| tells(out, &["seen", "2/2"]));
    assert_eq!(printed.matches("NAME").count(), 1, "the header comes once:\n{printed}");
    world.kubectl("scale ms/seen -n watch --replicas=0").ok();
    miners.prints(|out| tells(out, &["DELETED", "seen-0"]) && tells(out, &["DELETED", "seen-1"]));
    set.prints(|out| tells(out, &["seen", "0/0"]));
}

#[test]
fn get_w_of_one_object_shows_nothing_of_the_others() {
    let world = World::shared();
    world.create("{apiVersion: v1, kind: ConfigMap, metadata: {name: mine, namespace: one}}");
    let watch = world.kubectl_running("get cm mine -n one -w");
    watch.prints(|out| out.contains("mine"));
    world.create("{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: one}, data: {a: b}}");
    world.kubectl("patch cm mine -n one -p {\"data\":{\"a\":\"1\",\"b\":\"2\"}}").ok();
    let printed = watch.prints(|out| out.lines().count() >= 3);
    assert!(!printed.contains("other"), "{printed}");
    assert!(printed.lines().any(|line| line.split_whitespace().nth(1) == Some("2")), "{printed}");
}

#[test]
fn a_deleted_pod_comes_back_under_its_name_as_another_pod() {
    let world = World::shared();
    world.chain("healed", 43200);
    world.minerset("heal", "set", "healed", 2);
    world.sized("heal", "set", 2);
    let uid = || world.kubectl("get pod set-1 -n heal --ignore-not-found -o jsonpath={.metadata.uid}").ok();
    let (before, process) = (uid(), world.node_of("heal", "set-1"));
    let deleted = world.kubectl("delete pod set-1 -n heal").ok();
    assert!(deleted.starts_with("pod \"set-1\" deleted"), "{deleted}");
    eventually(PATIENCE, || match uid() {
        after if !after.is_empty() && after != before => Ok(()),
        after => Err(format!("the pod was {before:?} and is {after:?}")),
    });
    world.sized("heal", "set", 2);
    world.running("heal", &["set-1"]);
    let others: Vec<_> = world.nodes().into_iter().filter(|(other, _)| *other == process).collect();
    assert!(others.is_empty(), "the old process still runs: {others:?}");
    assert_ne!(world.node_of("heal", "set-1"), process);
}

#[test]
fn a_pod_deleted_by_force_is_replaced_and_never_runs_twice() {
    let world = World::shared();
    world.chain("forced", 43200);
    world.minerset("force", "set", "forced", 1);
    world.sized("force", "set", 1);
    let process = world.node_of("force", "set-0");
    world.kubectl("delete pod set-0 -n force --grace-period=0 --force").ok();
    let after = eventually(PATIENCE, || {
        let nodes = world.nodes().into_iter().filter(|(_, directory)| directory.contains("/force_set-0/"));
        match nodes.map(|(process, _)| process).collect::<Vec<_>>()[..] {
            [one] if one != process => Ok(one),
            ref others => Err(format!("these run: {others:?}")),
        }
    });
    world.sized("force", "set", 1);
    assert_eq!(world.node_of("force", "set-0"), after);
}

#[test]
fn a_set_deleted_and_declared_again_at_once_has_all_its_miners() {
    let world = World::shared();
    world.chain("again", 43200);
    for round in 0..3 {
        world.minerset("again", "set", "again", 3);
        if round > 0 {
            world.sized("again", "set", 3);
        }
        world.kubectl("delete ms set -n again").ok();
    }
    eventually(PATIENCE, || match world.names("miners,pods -n again") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("still there: {left:?}")),
    });
}

#[test]
fn of_many_sizes_asked_for_in_quick_succession_the_last_one_counts() {
    let world = World::shared();
    world.chain("hasty", 43200);
    world.minerset("hasty", "set", "hasty", 1);
    for size in [6, 2, 8, 0, 5, 3] {
        world.kubectl(&format!("scale ms set -n hasty --replicas={size}")).ok();
    }
    world.sized("hasty", "set", 3);
    let nodes = || world.nodes().into_iter().filter(|(_, directory)| directory.contains("/hasty_set-")).count();
    eventually(PATIENCE, || if nodes() == 3 { Ok(()) } else { Err(format!("{} run", nodes())) });
}

#[test]
fn a_genesis_miner_that_comes_back_still_knows_its_chain() {
    let world = World::shared();
    world.chain("remembers", 1);
    world.minerset("remember", "set", "remembers", 1);
    world.sized("remember", "set", 1);
    let height = || {
        let pod = world.get("pod remembers -n kube-system");
        let address = pod["status"]["podIP"].as_str().and_then(|address| address.parse().ok());
        let answer = ask_miner(address.ok_or("it has no address")?, "/v1/height")?;
        Ok::<_, String>(answer["height"].as_u64().unwrap())
    };
    let reach = |least: u64| {
        eventually(PATIENCE, || match height()? {
            height if height >= least => Ok(height),
            height => Err(format!("the height is {height}, and should reach {least}")),
        })
    };
    let before = reach(2);
    world.kubectl("delete ms set -n remember --cascade=foreground").ok();
    world.kubectl("delete pod remembers -n kube-system").ok();
    // Nobody is left to learn it from.
    reach(before);
}

#[test]
fn a_deleted_miner_of_a_set_is_replaced() {
    let world = World::shared();
    world.chain("replaced", 43200);
    world.minerset("replace", "set", "replaced", 1);
    world.sized("replace", "set", 1);
    let before = world.kubectl("get miner set-0 -n replace -o jsonpath={.metadata.uid}").ok();
    world.kubectl("delete miner set-0 -n replace").ok();
    eventually(PATIENCE, || {
        let miners = world.get("miners -n replace")["items"].clone();
        let new = miners[0]["metadata"]["uid"].as_str().is_some_and(|uid| uid != before);
        if new { Ok(()) } else { Err(format!("the miners are {miners}")) }
    });
    world.sized("replace", "set", 1);
}

#[test]
fn a_killed_miner_is_restarted_and_its_last_words_are_kept() {
    let world = World::shared();
    world.chain("killed", 1);
    let process = world.node_of("kube-system", "killed");
    let before = world.kubectl("logs killed -n kube-system").ok();
    assert!(before.contains("the node is running"), "{before}");
    kill_process(process, Signal::KILL).unwrap();
    eventually(PATIENCE, || {
        let pod = world.get("pod killed -n kube-system")["status"]["containerStatuses"][0].clone();
        let restarted = pod["restartCount"] == 1 && pod["ready"] == true;
        if restarted { Ok(()) } else { Err(format!("the container is {pod:#}")) }
    });
    let container = world.get("pod killed -n kube-system")["status"]["containerStatuses"][0].clone();
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 137, "{container:#}");
    assert_ne!(world.node_of("kube-system", "killed"), process);
    world.running("kube-system", &["killed"]);

    let previous = world.kubectl("logs killed -n kube-system --previous").ok();
    assert!(previous.starts_with(&before), "the log of before was:\n{before}\nand is now:\n{previous}");
    let now = world.kubectl("logs killed -n kube-system").ok();
    assert!(now.contains("the node is running") && !now.starts_with(&before), "{now}");
}

#[test]
fn a_miner_that_hangs_is_not_ready_before_long_and_ready_again_when_it_goes_on() {
    let world = World::shared();
    world.chain("hung", 43200);
    let process = world.node_of("kube-system", "hung");
    let until = |wanted: bool| {
        eventually(PATIENCE, || {
            let container = world.get("pod hung -n kube-system")["status"]["containerStatuses"][0].clone();
            if container["ready"] == wanted { Ok(()) } else { Err(format!("the container is {container:#}")) }
        });
    };
    until(true);
    let asked = Instant::now();
    kill_process(process, Signal::STOP).unwrap();
    until(false);
    // Asked every five seconds, it may fail to answer three times.
    assert!(asked.elapsed() < Duration::from_secs(40), "it took {:?}", asked.elapsed());
    kill_process(process, Signal::CONT).unwrap();
    until(true);
}

#[test]
fn logs_can_be_cut_and_followed() {
    let world = World::shared();
    world.chain("logged", 1);
    world.minerset("log", "set", "logged", 1);
    world.sized("log", "set", 1);
    eventually(PATIENCE, || match world.kubectl("logs set-0 -n log").ok().lines().count() {
        0 | 1 => Err("it has not found a block yet".to_owned()),
        _ => Ok(()),
    });
    let tail = world.kubectl("logs set-0 -n log --tail=1").ok();
    assert_eq!(tail.lines().count(), 1, "{tail}");
    // Not the first line, and one of the log, which may have grown since.
    let all = world.kubectl("logs set-0 -n log").ok();
    assert!(all.find(&tail).is_some_and(|at| at > 0), "{all}\n{tail}");
    assert_eq!(world.kubectl("logs set-0 -n log --tail=0").ok(), "");
    assert!(world.kubectl("logs set-0 -n log --limit-bytes=10").ok().len() <= 10);
    let stamped = world.kubectl("logs set-0 -n log --timestamps --tail=1").ok();
    assert!(stamped.starts_with("20") && stamped.contains('Z'), "{stamped}");

    let refused = world.kubectl("logs set-0 -n log --previous").refused();
    assert!(refused.contains("previous terminated container \"toyblc\" in pod \"set-0\" not found"), "{refused}");
    let refused = world.kubectl("logs set-0 -n log -c other").refused();
    assert!(refused.contains("container other is not valid for pod set-0"), "{refused}");

    // What is followed goes on until the container ends, and shows its last line.
    let mut follow = world.kubectl_running("logs set-0 -n log -f");
    follow.prints(|out| out.contains("the node is running"));
    assert!(follow.is_running(), "nothing has ended, and neither should -f");
    world.kubectl("delete minerset set -n log").ok();
    assert!(follow.ends().success());
}

#[test]
fn a_set_that_shrinks_lets_the_marked_miner_go_first() {
    let world = World::shared();
    world.chain("shrinking", 43200);
    world.minerset("shrink", "set", "shrinking", 3);
    world.sized("shrink", "set", 3);
    world.kubectl("annotate miner set-1 -n shrink apps.onex.io/delete-miner=").ok();
    world.kubectl("scale ms set -n shrink --replicas=2").ok();
    world.sized("shrink", "set", 2);
    let left: HashSet<_> = world.names("miners -n shrink").into_iter().collect();
    assert_eq!(left, HashSet::from(["set-0".to_owned(), "set-2".to_owned()]));
}

#[test]
fn a_protected_set_cannot_be_deleted() {
    let world = World::shared();
    world.minerset("protect", "set", "no-such-chain", 0);
    world.kubectl("annotate ms set -n protect apps.onex.io/deletion-protection=true").ok();
    let refused = world.kubectl("delete ms set -n protect").refused();
    assert!(refused.contains("(Forbidden)") && refused.contains("deletion protection"), "{refused}");
    world.kubectl("annotate ms set -n protect apps.onex.io/deletion-protection-").ok();
    world.kubectl("delete ms set -n protect").ok();
}

#[test]
fn a_miner_of_an_unknown_type_says_what_is_wrong_and_starts_nothing() {
    let world = World::shared();
    world.chain("typed", 43200);
    world.create(
        "{apiVersion: apps.onex.io/v1beta1, kind: Miner, metadata: {name: odd, namespace: typed},
          spec: {chainName: typed, minerType: X9.HUGE}}",
    );
    eventually(PATIENCE, || {
        let status = world.get("miner odd -n typed")["status"].clone();
        let named = status["failureMessage"].as_str().is_some_and(|message| message.contains("X9.HUGE"));
        if named { Ok(()) } else { Err(format!("the status is {status:#}")) }
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(world.names("pods -n typed").is_empty());
}
