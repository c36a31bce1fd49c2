//! What people read: explain, describe, lists, selectors, wait.

use crate::world::{PATIENCE, World, eventually};

#[test]
fn explain_tells_every_field_of_a_set() {
    let world = World::shared();
    let told = world.kubectl("explain minerset.spec --recursive").ok();
    for line in ["KIND:       MinerSet", "VERSION:    v1beta1", "FIELD: spec <MinerSetSpec>"] {
        assert!(told.contains(line), "{line} is missing:\n{told}");
    }
    for field in [
        "replicas\t<integer>",
        "deletePolicy\t<string>",
        "displayName\t<string>",
        "minReadySeconds\t<integer>",
        "progressDeadlineSeconds\t<integer>",
        "selector\t<LabelSelector>",
        "template\t<",
        "chainName\t<string>",
        "podDeletionTimeout\t<string>",
    ] {
        assert!(told.contains(field), "{field} is missing:\n{told}");
    }
    // Only a newer kubectl tells it.
    let schema = world.kubectl("get --raw /openapi/v3/apis/apps.onex.io/v1beta1").ok();
    assert!(schema.contains("\"enum\":[\"Random\",\"Newest\",\"Oldest\"]"), "{schema}");
    let told = world.kubectl("explain chain.spec.minMineIntervalSeconds").ok();
    assert!(told.contains("FIELD: minMineIntervalSeconds <integer>"), "{told}");
    for kind in ["miner.status.conditions", "pod.spec.containers", "configmap", "ns", "event", "lease.spec"] {
        world.kubectl(&format!("explain {kind}")).ok();
    }
}

#[test]
fn api_resources_lists_the_kinds_with_their_short_names() {
    let world = World::shared();
    let listed = world.kubectl("api-resources --no-headers").ok();
    let rows: Vec<Vec<&str>> = listed.lines().map(|row| row.split_whitespace().collect()).collect();
    for row in [
        "chains ch apps.onex.io/v1beta1 true Chain",
        "minersets ms apps.onex.io/v1beta1 true MinerSet",
        "miners mi apps.onex.io/v1beta1 true Miner",
        "namespaces ns v1 false Namespace",
        "configmaps cm v1 true ConfigMap",
        "secrets v1 true Secret",
        "pods po v1 true Pod",
        "serviceaccounts sa v1 true ServiceAccount",
        "leases coordination.k8s.io/v1 true Lease",
        "events ev events.k8s.io/v1 true Event",
    ] {
        let row: Vec<_> = row.split(' ').collect();
        assert!(rows.contains(&row), "{row:?} is missing:\n{listed}");
    }
    let versions = world.kubectl("api-versions").ok();
    for version in ["v1", "apps.onex.io/v1beta1", "coordination.k8s.io/v1", "events.k8s.io/v1"] {
        assert!(versions.lines().any(|line| line == version), "{version} is missing:\n{versions}");
    }
    let all = world.kubectl("get all -n nowhere");
    assert!(all.status.success() && all.err.contains("No resources found in nowhere namespace."), "{}", all.err);
    let ready = world.kubectl("get --raw /readyz?verbose").ok();
    assert!(ready.ends_with("readyz check passed\n"), "{ready}");
}

#[test]
fn describe_ends_with_what_happened() {
    let world = World::shared();
    world.chain("described", 43200);
    world.minerset("describe", "set", "described", 1);
    world.sized("describe", "set", 1);
    let told = eventually(PATIENCE, || {
        let told = world.kubectl("describe minerset set -n describe").ok();
        if told.contains("SuccessfulCreate") { Ok(told) } else { Err(told) }
    });
    let events = told.split_once("Events:").expect("describe tells events").1;
    assert!(events.contains("Normal") && events.contains("created miner set-0"), "{events}");
    // Events are told some time after what they tell of.
    eventually(PATIENCE, || {
        let told = world.kubectl("describe miner set-0 -n describe").ok();
        let all = told.contains("SuccessfulSetPodRef") || told.contains("SuccessfulCreate");
        if all { Ok(()) } else { Err(told) }
    });
    eventually(PATIENCE, || {
        let told = world.kubectl("describe pod set-0 -n describe").ok();
        if told.contains("toyblc:") && told.contains("Started") { Ok(()) } else { Err(told) }
    });
    let listed = world.kubectl("events -n describe --for minerset/set").ok();
    assert!(listed.contains("SuccessfulCreate"), "{listed}");
    let listed = world.kubectl("get events -n describe --field-selector involvedObject.kind=MinerSet").ok();
    assert!(listed.contains("SuccessfulCreate") && !listed.contains("pod/"), "{listed}");
    let sorted = world.kubectl("get events -n describe --sort-by=.lastTimestamp").ok();
    assert!(sorted.contains("SuccessfulCreate"), "kubectl shows nothing where a field is nowhere: {sorted}");
    world.kubectl("describe ns describe").ok();
    world.kubectl("describe node").ok();
}

#[test]
fn wait_ends_when_a_condition_a_value_or_an_absence_is_there() {
    let world = World::shared();
    world.chain("awaited", 43200);
    world.minerset("await", "set", "awaited", 1);
    let line = "wait minerset/set -n await --for=condition=Ready --timeout=60s";
    assert_eq!(world.kubectl(line).ok(), "minerset.apps.onex.io/set condition met\n");
    world.kubectl("wait miner/set-0 -n await --for=jsonpath={.status.phase}=Running --timeout=60s").ok();
    world.kubectl("wait pod -n await --all --for=condition=Ready --timeout=60s").ok();
    let late = world.kubectl("wait ms/set -n await --for=jsonpath={.spec.replicas}=7 --timeout=1s").refused();
    assert!(late.contains("timed out waiting for the condition on minersets/set"), "{late}");

    let mut gone = world.kubectl_running("wait miner/set-0 -n await --for=delete --timeout=60s");
    world.kubectl("delete ms set -n await --wait=false").ok();
    assert!(gone.ends().success());
}

#[test]
fn the_kinds_that_kubectl_sends_as_protobuf_arrive_whole() {
    let world = World::shared();
    assert_eq!(world.kubectl("create ns proto").ok(), "namespace/proto created\n");
    world.kubectl("create cm plain -n proto --from-literal=a=b --from-literal=c=d").ok();
    assert_eq!(world.get("cm plain -n proto")["data"], serde_json::json!({"a": "b", "c": "d"}));
    world.kubectl("create secret generic hidden -n proto --from-literal=k=value").ok();
    let secret = world.get("secret hidden -n proto");
    assert_eq!((&secret["data"]["k"], &secret["type"]), (&"dmFsdWU=".into(), &"Opaque".into()));
    let told = world.kubectl("describe secret hidden -n proto").ok();
    assert!(told.contains("k:  5 bytes") && !told.contains("dmFsdWU"), "{told}");
    world.kubectl("create sa robot -n proto").ok();
    let again = world.kubectl("create cm plain -n proto").refused();
    assert_eq!(again, "error: failed to create configmap: configmaps \"plain\" already exists\n");
    let dry = world.kubectl("create ns dry --dry-run=server").ok();
    assert_eq!(dry, "namespace/dry created (server dry run)\n");
    let missing = world.kubectl("get ns dry").refused();
    assert_eq!(missing, "Error from server (NotFound): namespaces \"dry\" not found\n");
    assert_eq!(world.kubectl("delete ns proto").ok(), "namespace \"proto\" deleted\n");
}

#[test]
fn lists_are_selected_sorted_and_paged() {
    let world = World::shared();
    for (number, team) in ["red", "blue", "red", "green", "blue"].iter().enumerate() {
        world.create(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c{number}, namespace: lists, labels: {{team: {team}}}}}}}"
        ));
    }
    let names = |line: &str| world.names(&format!("cm -n lists {line}"));
    assert_eq!(names("-l team=red"), ["c0", "c2"]);
    assert_eq!(names("-l team!=red"), ["c1", "c3", "c4"]);
    assert_eq!(names("--selector=team"), ["c0", "c1", "c2", "c3", "c4"]);
    assert_eq!(
        world
            .kubectl_with(&["get", "cm", "-n", "lists", "-l", "team in (green, blue)", "-o", "name"])
            .ok()
            .lines()
            .count(),
        3
    );
    assert_eq!(names("--field-selector metadata.name=c3"), ["c3"]);
    assert_eq!(names("--chunk-size=2"), ["c0", "c1", "c2", "c3", "c4"]);
    let sorted = world.kubectl("get cm -n lists -l team --sort-by=.metadata.labels.team --no-headers").ok();
    let sorted: Vec<_> = sorted.lines().map(|row| row.split_whitespace().next().unwrap()).collect();
    assert_eq!(sorted, ["c1", "c4", "c3", "c0", "c2"]);
    let labelled = world.kubectl("get cm c0 -n lists --show-labels --no-headers").ok();
    assert!(labelled.trim_end().ends_with("team=red"), "{labelled}");
    let columns = world.kubectl("get cm c0 -n lists -L team").ok();
    assert!(columns.lines().next().unwrap().ends_with("TEAM"), "{columns}");
    let refused = world.kubectl("get ms -A --field-selector spec.replicas=1").refused();
    assert!(refused.contains("field label not supported: spec.replicas"), "{refused}");
    world.kubectl("delete cm -n lists -l team=red").ok();
    assert_eq!(names(""), ["c1", "c3", "c4"]);
    world.kubectl("delete cm -n lists --all").ok();
    assert_eq!(names(""), Vec::<String>::new());
}
