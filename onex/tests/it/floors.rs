//! The house stands: who may depend on whom, held over `cargo metadata`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The floors, ground first. A crate depends only on crates of floors below its own.
const FLOORS: [&[&str]; 4] = [
    &["onex-crds", "onex-proto", "onex-storage", "onex-audit", "onex-db", "onex-daemon"],
    &["onex-client"],
    // The load tool knows no other crate: what it measures is a process.
    &["onex-apiserver", "onex-controllers", "onex-node", "onex-usercenter", "onex-toyblc", "onex-bench"],
    &["onex"],
];

/// Outside the house, looking in: nothing may depend on these.
const VISITORS: [&str; 1] = ["onex-e2e"];

/// Heavy libraries, each with the one crate that may name it.
const OWNERS: [(&str, &str); 7] = [
    ("etcd-client", "onex-storage"),
    ("rdkafka", "onex-audit"),
    ("mongodb", "onex-pump"),
    ("redis", "onex-cache"),
    ("sqlx", "onex-db"),
    ("rcgen", "onex-daemon"),
    ("tracing-subscriber", "onex-daemon"),
];

/// Other TLS stacks than rustls with ring.
const BANNED: [&str; 5] = ["openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "boring-sys"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace")
}

/// Every crate of the workspace with what it depends on, except for its tests.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let named = |package: &Value| {
        let depends = package["dependencies"].as_array().unwrap().iter();
        let built = depends.filter(|dependency| dependency["kind"] != "dev");
        (text(&package["name"]), built.map(|dependency| text(&dependency["name"])).collect())
    };
    metadata["packages"].as_array().unwrap().iter().map(named).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

#[test]
fn every_crate_has_a_floor() {
    for name in dependencies().keys() {
        let visits = VISITORS.contains(&name.as_str());
        assert!(floor(name).is_some() || visits, "{name} stands on no floor: add it to FLOORS, and to ARCHITECTURE.md");
    }
}

#[test]
fn a_crate_depends_only_on_lower_floors() {
    for (name, depends) in dependencies() {
        for other in depends.iter().filter(|other| other.starts_with("onex")) {
            assert!(!VISITORS.contains(&other.as_str()), "{name} depends on {other}, which only visits");
            let below = VISITORS.contains(&name.as_str()) || floor(other) < floor(&name);
            assert!(below, "{name} depends on {other}, which is not on a lower floor");
        }
    }
}

#[test]
fn a_heavy_library_has_one_owner() {
    for (name, depends) in dependencies() {
        for (library, owner) in OWNERS {
            let names_it = depends.iter().any(|dependency| dependency == library);
            assert!(!names_it || name == owner, "{name} names {library}, which is {owner}'s");
        }
    }
}

#[test]
fn there_is_one_tls_stack() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(!BANNED.contains(&name), "{name} is a second TLS stack");
    }
}
