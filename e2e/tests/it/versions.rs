//! The same work by every kubectl on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use crate::world::{Said, World, kubectl, tools};

/// Every kubectl there is, by the version it calls itself: beside the one in the path, where Google's SDK keeps them, and
/// among the tools of this project.
pub fn clients() -> &'static BTreeMap<String, PathBuf> {
    static CLIENTS: LazyLock<BTreeMap<String, PathBuf>> = LazyLock::new(|| {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|directory| directory.join(kubectl()))
            .find(|path| path.is_file());
        let beside = found
            .as_deref()
            .and_then(|path| fs::canonicalize(path).ok())
            .and_then(|path| path.parent().map(Path::to_owned));
        let mut places = vec![PathBuf::from("/usr/lib/google-cloud-sdk/bin"), tools()];
        places.extend(beside);
        let is_client = |path: &PathBuf| {
            let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl"));
            named && path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        };
        let inside = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten();
        let files = inside.filter_map(|entry| Some(entry.ok()?.path())).filter(is_client);
        files.chain([kubectl()]).filter_map(|path| Some((version(&path)?, path))).collect()
    });
    assert!(!CLIENTS.is_empty(), "there is no kubectl: install one, or name it in KUBECTL");
    &CLIENTS
}

fn version(client: &Path) -> Option<String> {
    let output = std::process::Command::new(client).args(["version", "--client", "-o", "json"]).output().ok()?;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(answer["clientVersion"]["gitVersion"].as_str()?.to_owned())
}

#[test]
fn every_kubectl_on_this_machine_can_do_the_daily_work() {
    let world = World::shared();
    for (number, (version, client)) in clients().iter().enumerate() {
        daily_work(&world, version, client, &format!("daily-{number}"));
    }
}

fn daily_work(world: &World, version: &str, client: &Path, namespace: &str) {
    let run = |line: &str| {
        let arguments: Vec<_> = line.split_whitespace().collect();
        Said::by(format!("{version}: {line}"), world.command(client, &arguments))
    };
    let file = |name: &str, display: &str| {
        world.file(
            &format!("{namespace}-{name}.yaml"),
            &format!(
                "---\n{{apiVersion: apps.onex.io/v1beta1, kind: MinerSet, metadata: {{name: {name}, namespace: {namespace}}},
                  spec: {{replicas: 0, displayName: {display}, template: {{spec: {{chainName: none}}}}}}}}"
            ),
        )
    };
    assert!(run("version").ok().contains("Server Version: "));
    assert!(run("api-resources").ok().contains("minersets"));
    assert!(run("explain minerset.spec.replicas").ok().contains("integer"));
    run(&format!("create ns {namespace}")).ok();
    run(&format!("create cm data -n {namespace} --from-literal=a=b")).ok();
    run(&format!("create secret generic key -n {namespace} --from-literal=a=b")).ok();
    run(&format!("create sa robot -n {namespace}")).ok();
    run(&format!("create -f {}", file("made", "made"))).ok();
    let again = run(&format!("create -f {}", file("made", "made"))).refused();
    assert!(again.contains("(AlreadyExists)"), "{version}: {again}");
    assert!(run(&format!("apply -f {}", file("set", "one"))).ok().ends_with("created\n"));
    assert!(run(&format!("apply -f {}", file("set", "one"))).ok().ends_with("unchanged\n"));
    assert!(run(&format!("apply -f {}", file("set", "two"))).ok().ends_with("configured\n"));
    let applied = run(&format!("apply --server-side -f {}", file("served", "one"))).ok();
    assert!(applied.ends_with("serverside-applied\n"), "{version}: {applied}");
    let shown = run(&format!("get ms -n {namespace}")).ok();
    assert!(shown.starts_with("NAME") && shown.contains("AVAILABLE"), "{version}: {shown}");
    assert_eq!(run(&format!("get ms set -n {namespace} -o jsonpath={{.spec.displayName}}")).ok(), "two");
    run(&format!("patch ms set -n {namespace} -p {{\"spec\":{{\"minReadySeconds\":1}}}}")).ok();
    run(&format!("label ms set -n {namespace} a=b")).ok();
    run(&format!("scale ms set -n {namespace} --replicas=0")).ok();
    run(&format!("wait ms/set -n {namespace} --for=jsonpath={{.metadata.labels.a}}=b --timeout=20s")).ok();
    assert!(run(&format!("describe ms set -n {namespace}")).ok().contains("Kind:         MinerSet"));
    run(&format!("delete ms --all -n {namespace}")).ok();
    run(&format!("delete ns {namespace} --timeout=60s")).ok();
}
