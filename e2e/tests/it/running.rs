//! The program itself: starting it twice, where a port is taken, and stopping it.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::world::{PATIENCE, World, eventually, onex};

#[test]
fn a_second_platform_on_the_same_directory_is_refused_and_the_first_serves_on() {
    let world = World::shared();
    let directory = world.data_dir();
    let second = onex().args(["up", "--ports", "auto", "--data-dir"]).arg(&directory).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("already runs on") && said.contains(directory.to_str().unwrap()), "{said}");
    world.kubectl("get --raw /readyz").ok();
}

#[test]
fn a_port_that_is_taken_is_named_with_a_way_out() {
    // Another program may hold the port already: then it is taken all the same.
    let _holder = TcpListener::bind("127.0.0.1:52443");
    let directory = tempfile::tempdir().unwrap();
    let output = onex().args(["up", "--ports", "default", "--data-dir"]).arg(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
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
    let mined = std::fs::metadata(chain_file(&world)).unwrap().len();

    // Nobody who is still looking holds it up.
    let mut watch = world.kubectl_running("get miners -n return -w");
    let mut follow = world.kubectl_running("logs set-0 -n return -f");
    watch.prints(|out| out.contains("set-0"));
    follow.prints(|out| !out.is_empty());
    let asked = Instant::now();
    assert!(world.stop(Signal::INT).success(), "{}", world.said());
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
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
    let now = std::fs::metadata(chain_file(&world)).unwrap().len();
    assert!(now >= mined, "the chain had {mined} bytes before and has {now} now");
}

/// The biggest file of the genesis miner's chain.
fn chain_file(world: &World) -> std::path::PathBuf {
    let directory = world.data_dir().join("node/pods/kube-system_returns/chain");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    files.max_by_key(|file| file.metadata().unwrap().len()).unwrap().path()
}
