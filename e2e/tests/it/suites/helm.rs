//! A chart lives its life under Helm.

use std::path::Path;

use serde_json::Value;

use crate::world::{Said, World, tools};

/// Helm in `namespace` with `line` as it would be typed; no argument may hold a space.
fn helm(world: &World, namespace: &str, line: &str) -> Said {
    let program = tools().join("helm");
    assert!(program.is_file(), "there is no Helm: run `.ci/prepare tests`");
    let mut command = world.program(&program);
    command.args(line.split_whitespace()).args(["--namespace", namespace]);
    Said::by(format!("helm {line}"), command)
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls_a_chart() {
    let world = World::shared();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/helm/chart");
    let chart = chart.to_str().unwrap();
    let run = |line: &str| helm(&world, "helm", line);
    let json = |line: &str| serde_json::from_str::<Value>(&run(&format!("{line} -o json")).ok()).unwrap();
    let value = |line: &str| world.kubectl(&format!("get {line} -n helm")).ok();

    let installed = run(&format!("install post {chart} --create-namespace")).ok();
    assert!(installed.contains("STATUS: deployed\n") && installed.contains("post says hello."), "{installed}");
    assert_eq!(value("cm post -o jsonpath={.data.greeting},{.data.revision},{.data.minersets}"), "hello,1,true");
    assert_eq!(value("secret post -o jsonpath={.data.password}"), "Zmlyc3Q=");
    assert_eq!(value("ms post -o jsonpath={.spec.replicas}"), "0");
    let again = run(&format!("install post {chart}")).refused();
    assert!(again.contains("cannot reuse a name that is still in use"), "{again}");
    let listed = json("list");
    assert_eq!((&listed[0]["name"], &listed[0]["status"]), (&"post".into(), &"deployed".into()), "{listed}");
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let all = json("list --all-namespaces");
    assert_eq!(all[0]["namespace"], "helm", "{all}");
    let status = json("status post");
    assert_eq!((&status["info"]["status"], &status["version"]), (&"deployed".into(), &1.into()), "{status}");
    assert!(run("get manifest post").ok().contains("kind: MinerSet"));

    run(&format!("upgrade post {chart} --set greeting=bye,extra=true")).ok();
    assert_eq!(value("cm post -o jsonpath={.data.greeting},{.data.revision}"), "bye,2");
    assert_eq!(value("cm post-extra -o jsonpath={.data.found}"), "hello", "the chart looks up what was there before");
    assert_eq!(value("ms post -o jsonpath={.spec.displayName}"), "bye");
    assert_eq!(json("get values post"), serde_json::json!({"greeting": "bye", "extra": true}));

    let history = json("history post");
    let states: Vec<_> = history.as_array().unwrap().iter().map(|release| release["status"].clone()).collect();
    assert_eq!(states, ["superseded", "deployed"], "{history}");
    run("rollback post 1").ok();
    assert_eq!(value("cm post -o jsonpath={.data.greeting}"), "hello");
    assert_eq!(value("cm -o name -l a!=b").lines().filter(|name| name.contains("post")).count(), 1, "extra is gone");
    assert_eq!(json("history post").as_array().unwrap().len(), 3);

    let removed = run("uninstall post --wait --timeout 60s").ok();
    assert_eq!(removed, "release \"post\" uninstalled\n");
    assert_eq!(value("ms,svc,secret,sa -o name").lines().filter(|name| name.contains("post")).count(), 0);
    assert_eq!(json("list"), serde_json::json!([]));
    let gone = run("status post").refused();
    assert!(gone.contains("release: not found"), "{gone}");
}
