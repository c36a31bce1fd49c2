//! The program itself: starting it twice, where a port is taken, and stopping it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::world::{PATIENCE, Said, World, eventually, onex};

#[test]
fn a_second_platform_on_the_same_directory_is_refused_and_the_first_serves_on() {
    let world = World::shared();
    let directory = world.data_dir();
    let mut second = onex();
    second.args(["up", "--ports", "auto", "--data-dir"]).arg(&directory);
    let second = Said::by("a second onex up".to_owned(), second);
    assert_eq!(second.status.code(), Some(1));
    let said = second.err;
    assert!(said.contains("already runs on") && said.contains(directory.to_str().unwrap()), "{said}");
    world.kubectl("get --raw /readyz").ok();
}

#[test]
fn a_port_that_is_taken_is_named_with_a_way_out() {
    // Another program may hold the port already: then it is taken all the same.
    let _holder = TcpListener::bind("127.0.0.1:52443");
    let directory = tempfile::tempdir().unwrap();
    let mut up = onex();
    up.args(["up", "--ports", "default", "--data-dir"]).arg(directory.path());
    let up = Said::by("onex up".to_owned(), up);
    assert_eq!(up.status.code(), Some(1));
    let said = up.err;
    assert!(said.contains("another program already listens on 127.0.0.1:52443"), "{said}");
    assert!(said.contains("--set apiserver.listen=") && said.contains("--ports auto"), "{said}");
}

#[test]
fn ctrl_c_stops_everything_the_miners_too_and_what_was_declared_comes_back_with_the_next_start() {
    let world = World::start();
    world.chain("returns", 1);
    world.minerset("return", "set", "returns", 2);
    world.sized("return", "set", 2);
    let uid = || world.kubectl("get ms set -n return -o jsonpath={.metadata.uid}").ok();
    let before = uid();
    let mined = fs::metadata(chain_file(&world)).unwrap().len();

    // Nobody who is still looking holds it up.
    let mut watch = world.kubectl_running("get miners -n return -w");
    let mut follow = world.kubectl_running("logs set-0 -n return -f");
    watch.prints(|out| out.contains("set-0"));
    follow.prints(|out| !out.is_empty());
    let asked = Instant::now();
    assert!(world.stop(Signal::INT).success(), "{}", world.said());
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    watch.ends();
    follow.ends();
    assert!(world.said().ends_with("stopped\n"), "{}", world.said());
    assert!(!world.data_dir().join("endpoints.json").exists());
    world.nothing_left();

    world.up();
    assert_eq!(uid(), before);
    world.sized("return", "set", 2);
    eventually(PATIENCE, || match world.nodes().len() {
        3 => Ok(()),
        other => Err(format!("there are {other} miners")),
    });
    let now = fs::metadata(chain_file(&world)).unwrap().len();
    assert!(now >= mined, "the chain had {mined} bytes before and has {now} now");
}

#[test]
fn a_miner_is_held_to_the_limits_of_its_type_or_the_platform_says_that_it_is_not() {
    // With the settings that people have.
    let world = World::start_with(&["--ports", "auto"]);
    world.chain("limited", 43200);
    let limit = memory_limit(world.node_of("kube-system", "limited"));
    // The type of the chain's first miner is S1.SMALL2.
    let expected = (!world.said().contains("memory limits are not enforced")).then_some(256 << 20);
    assert_eq!(limit, expected, "{}", world.said());
}

/// How many bytes the process may use, in the group that the node made for it.
fn memory_limit(process: Pid) -> Option<u64> {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.as_raw_nonzero())).unwrap();
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controller, group) = (fields.next()?, fields.next()?.strip_prefix('/')?);
        let (mount, file) = match controller {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = Path::new(mount).join(group);
        let ours = group.parent()?.parent()?.file_name()? == "onex";
        fs::read_to_string(group.join(file)).ok().filter(|_| ours)?.trim().parse().ok()
    })
}

/// The biggest file of the genesis miner's chain.
fn chain_file(world: &World) -> PathBuf {
    let directory = world.data_dir().join("node/pods/kube-system_returns/chain/chains/returns");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    files.max_by_key(|file| file.metadata().unwrap().len()).unwrap().path()
}
