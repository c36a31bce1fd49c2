//! `onex backup`, `onex restore` and `onex doctor`, on platforms that run and on data that is damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Signal;

use crate::world::{Said, World, onex};

fn onex_says(line: &str, data: &Path, rest: &[&str]) -> Said {
    let mut command = onex();
    command.args(line.split_whitespace()).args(["--data-dir", data.to_str().unwrap()]).args(rest);
    Said::by(line.to_owned(), command)
}

#[test]
fn a_backup_of_a_running_platform_is_a_platform_as_it_was() {
    let world = World::start();
    world.kubectl("create configmap before --from-literal=a=1").ok();
    world.kubectl("create serviceaccount robot").ok();
    let token = world.kubectl("create token robot").ok();
    let home = tempfile::tempdir().unwrap();
    let copy = home.path().join("copy");
    let target = copy.to_str().unwrap();
    let said = onex_says("backup", &world.data_dir(), &[target]).ok();
    assert!(said.contains(" objects as of revision "), "{said}");
    world.kubectl("create configmap after").ok();
    let refused = onex_says("backup", &world.data_dir(), &[target]);
    assert!(!refused.status.success() && refused.err.contains("is there already"), "{}", refused.err);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&copy), mode(&copy.join("pki/ca.key"))), (0o700, 0o600));

    let other = World::restored_from(&copy, &["--ports", "auto", "--set", "node.cgroup_parent="]);
    assert_eq!(other.get("configmap before")["data"]["a"], "1");
    assert!(other.get("configmap after").is_null());
    // The keys came along: what was given out is still believed.
    let server = other.kubectl("config view -o jsonpath={.clusters[0].cluster.server}").ok();
    let authority = other.data_dir().join("pki/ca.crt");
    let as_robot = format!("--kubeconfig=/dev/null --server={server} --certificate-authority={}", authority.display());
    let who = other.kubectl(&format!("{as_robot} --token={} auth whoami", token.trim())).ok();
    assert!(who.contains("system:serviceaccount:default:robot"), "{who}");
    let refused = onex_says("restore", &other.data_dir(), &[target]);
    assert!(!refused.status.success() && refused.err.contains("there is data in"), "{}", refused.err);
}

#[test]
fn the_doctor_finds_what_is_damaged_and_says_where() {
    let world = World::start();
    world.kubectl("create configmap a --from-literal=a=1").ok();
    let healthy = onex_says("doctor", &world.data_dir(), &[]).ok();
    for found in ["storage        every checksum holds", "authority      good for", "free disk", "fsync          p50 "]
    {
        assert!(healthy.contains(found), "{found} in {healthy}");
    }
    assert!(!healthy.contains("WRONG"), "{healthy}");
    world.stop(Signal::TERM);
    let log = fs::read_dir(world.data_dir().join("storage")).unwrap().map(|file| file.unwrap().path());
    let log = log.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "log")).unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[1000] ^= 1;
    fs::write(&log, bytes).unwrap();
    let key = world.data_dir().join("pki/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let ill = onex_says("doctor", &world.data_dir(), &[]);
    assert!(!ill.status.success());
    assert!(ill.out.contains(&format!("WRONG  storage        {} is damaged at byte ", log.display())), "{}", ill.out);
    assert!(ill.out.contains(&format!("others may read {} (mode 644)", key.display())), "{}", ill.out);
    assert!(ill.err.contains("2 things are wrong"), "{}", ill.err);
    let refused = onex_says("backup", &world.data_dir(), &[world.data_dir().join("copy").to_str().unwrap()]);
    assert!(!refused.status.success() && refused.err.contains("is damaged at byte"), "{}", refused.err);
    assert!(!world.data_dir().join("copy").exists() && !world.data_dir().join("copy.unfinished").exists());
}
