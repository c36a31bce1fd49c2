//! What is deleted goes, with everything that belongs to it, and nothing else.

use serde_json::Value;

use crate::world::{PATIENCE, World, eventually};

fn gone(world: &World, line: &str) {
    eventually(PATIENCE, || {
        let left = world.kubectl(&format!("get {line} -o name --ignore-not-found")).ok();
        if left.is_empty() { Ok(()) } else { Err(format!("still there: {left}")) }
    });
}

/// A ConfigMap owned by the one called `owner`.
fn owned(world: &World, namespace: &str, name: &str, owner: &str, blocks: bool) {
    let uid = world.kubectl(&format!("get cm {owner} -n {namespace} -o jsonpath={{.metadata.uid}}")).ok();
    world.create(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: {namespace}, ownerReferences: [
          {{apiVersion: v1, kind: ConfigMap, name: {owner}, uid: {uid}, blockOwnerDeletion: {blocks}}}]}}}}"
    ));
}

#[test]
fn an_object_with_a_finalizer_goes_when_the_finalizer_does() {
    let world = World::shared();
    world.create(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: held, namespace: finals, finalizers: [example.com/hold]}}",
    );
    let deleted = world.kubectl("delete cm held -n finals --wait=false").ok();
    assert!(deleted.starts_with("configmap \"held\" deleted"), "{deleted}");
    let held = world.get("cm held -n finals");
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held:#}");
    let again = world.kubectl("create cm held -n finals").refused();
    assert!(again.contains("object is being deleted: configmaps \"held\" already exists"), "{again}");
    let refused = world
        .kubectl("patch cm held -n finals --type=merge -p {\"metadata\":{\"finalizers\":[\"example.com/hold\",\"example.com/new\"]}}")
        .refused();
    assert!(
        refused
            .contains("metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted"),
        "{refused}"
    );
    let mut wait = world.kubectl_running("wait cm/held -n finals --for=delete --timeout=60s");
    world.kubectl("patch cm held -n finals --type=merge -p {\"metadata\":{\"finalizers\":null}}").ok();
    assert!(wait.ends().success());
    gone(&world, "cm held -n finals");
}

#[test]
fn what_an_object_owns_goes_in_the_background() {
    let world = World::shared();
    world.kubectl("create cm top -n background").ok();
    owned(&world, "background", "middle", "top", false);
    owned(&world, "background", "low", "middle", false);
    world.kubectl("create cm bystander -n background").ok();
    world.kubectl("delete cm top -n background").ok();
    gone(&world, "cm top middle low -n background");
    assert_eq!(world.names("cm -n background"), ["bystander"]);
}

#[test]
fn an_owner_deleted_in_the_foreground_goes_last() {
    let world = World::shared();
    world.kubectl("create cm top -n foreground").ok();
    owned(&world, "foreground", "low", "top", true);
    world.kubectl("patch cm low -n foreground -p {\"metadata\":{\"finalizers\":[\"example.com/hold\"]}}").ok();
    world.kubectl("delete cm top -n foreground --cascade=foreground --wait=false").ok();
    let deleting = |name: &str| {
        eventually(PATIENCE, || {
            let object = world.get(&format!("cm {name} -n foreground"));
            match &object["metadata"]["deletionTimestamp"] {
                Value::Null => Err(format!("{name} is not being deleted: {object:#}")),
                _ => Ok(object),
            }
        })
    };
    deleting("low");
    assert_eq!(deleting("top")["metadata"]["finalizers"], serde_json::json!(["foregroundDeletion"]));
    world.kubectl("patch cm low -n foreground --type=merge -p {\"metadata\":{\"finalizers\":null}}").ok();
    gone(&world, "cm top low -n foreground");
}

#[test]
fn an_orphan_stays_and_has_no_owner_any_more() {
    let world = World::shared();
    world.kubectl("create cm top -n orphan").ok();
    owned(&world, "orphan", "low", "top", true);
    world.kubectl("delete cm top -n orphan --cascade=orphan").ok();
    gone(&world, "cm top -n orphan");
    assert_eq!(world.get("cm low -n orphan")["metadata"]["ownerReferences"], Value::Null);
}

#[test]
fn a_set_deleted_without_its_miners_leaves_them_mining_and_a_new_one_adopts_them() {
    let world = World::shared();
    world.chain("adopted", 43200);
    world.minerset("adopt", "set", "adopted", 2);
    world.sized("adopt", "set", 2);
    let process = world.node_of("adopt", "set-0");
    world.kubectl("delete ms set -n adopt --cascade=orphan").ok();
    gone(&world, "ms set -n adopt");
    assert_eq!(world.names("miners -n adopt"), ["set-0", "set-1"]);
    world.minerset("adopt", "set", "adopted", 2);
    world.sized("adopt", "set", 2);
    let set = world.get("ms set -n adopt");
    let miner = world.get("miner set-0 -n adopt");
    assert_eq!(miner["metadata"]["ownerReferences"][0]["uid"], set["metadata"]["uid"]);
    assert_eq!(world.node_of("adopt", "set-0"), process, "it was not restarted");
}

#[test]
fn a_set_deleted_in_the_foreground_outlives_its_miners() {
    let world = World::shared();
    world.chain("outlived", 43200);
    world.minerset("outlive", "set", "outlived", 2);
    world.sized("outlive", "set", 2);
    world.kubectl("delete ms set -n outlive --cascade=foreground --timeout=60s").ok();
    // kubectl has waited for the set; the miners must be gone before it.
    assert_eq!(world.names("miners -n outlive"), Vec::<String>::new());
    gone(&world, "pods -n outlive");
}

#[test]
fn a_deleted_chain_leaves_nothing_behind() {
    let world = World::start();
    world.chain("doomed", 1);
    let keystore = world.kubectl("get chain doomed -n kube-system -o jsonpath={.status.configMapRef.name}").ok();
    assert_eq!(world.nodes().len(), 1);
    let deleted = world.kubectl("delete chain doomed -n kube-system").ok();
    assert!(deleted.starts_with("chain.apps.onex.io \"doomed\" deleted"), "{deleted}");
    gone(&world, "chains,miners,pods -A");
    gone(&world, "services -n kube-system");
    gone(&world, &format!("cm {keystore} -n kube-system"));
    eventually(PATIENCE, || match world.nodes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("still mining: {left:?}")),
    });
}

#[test]
fn a_deleted_namespace_leaves_nothing_behind() {
    let world = World::start();
    world.chain("stays", 43200);
    world.kubectl("create ns doomed").ok();
    world.minerset("doomed", "set", "stays", 3);
    world.kubectl("create cm data -n doomed").ok();
    world.kubectl("create secret generic key -n doomed").ok();
    world.create("{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: held, namespace: doomed}}");
    world.sized("doomed", "set", 3);
    assert_eq!(world.nodes().len(), 4);
    assert_eq!(world.kubectl("delete ns doomed --timeout=60s").ok(), "namespace \"doomed\" deleted\n");
    gone(&world, "ns doomed");
    // If the namespace came back, its things would too.
    gone(&world, "ms,mi,pods,cm,secrets,leases,events,services -n doomed");
    eventually(PATIENCE, || match world.nodes() {
        nodes if nodes.len() == 1 => Ok(()),
        nodes => Err(format!("only the genesis miner should be left: {nodes:?}")),
    });
    let refused = world.kubectl("delete ns kube-system").refused();
    assert!(
        refused.contains("namespaces \"kube-system\" is forbidden: this namespace may not be deleted"),
        "{refused}"
    );
}

#[test]
fn a_deletion_that_a_crash_interrupts_is_finished_by_the_next_start() {
    let world = World::start();
    world.chain("stays", 43200);
    world.minerset("doomed", "set", "stays", 5);
    world.minerset("kept", "doomed", "stays", 2);
    world.sized("doomed", "set", 5);
    world.sized("kept", "doomed", 2);
    world.kubectl("delete ns doomed --wait=false").ok();
    world.kubectl("delete ms doomed -n kept --cascade=foreground --wait=false").ok();
    world.crash();
    world.nothing_left();
    world.up();
    gone(&world, "ns doomed");
    gone(&world, "ms,mi,pods -n kept");
    eventually(PATIENCE, || match world.nodes() {
        nodes if nodes.len() == 1 => Ok(()),
        nodes => Err(format!("only the genesis miner should be left: {nodes:?}")),
    });
}

#[test]
fn nothing_new_enters_a_namespace_that_is_going() {
    let world = World::shared();
    world.kubectl("create ns leaving").ok();
    world.create(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: held, namespace: leaving, finalizers: [example.com/hold]}}",
    );
    world.kubectl("delete ns leaving --wait=false").ok();
    assert_eq!(world.get("ns leaving")["status"]["phase"], "Terminating");
    let refused = world.kubectl("create cm late -n leaving").refused();
    assert!(
        refused.contains("configmaps \"late\" is forbidden: unable to create new content in namespace leaving because it is being terminated"),
        "{refused}"
    );
    eventually(PATIENCE, || {
        let conditions = world.get("ns leaving")["status"]["conditions"].to_string();
        if conditions.contains("NamespaceFinalizersRemaining") { Ok(()) } else { Err(conditions) }
    });
    world.kubectl("patch cm held -n leaving --type=merge -p {\"metadata\":{\"finalizers\":null}}").ok();
    gone(&world, "ns leaving");
}
