//! Objects are changed in all the ways kubectl knows.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::world::{Said, World, kubectl};

fn set(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: apps.onex.io/v1beta1
kind: MinerSet
metadata:
  name: {name}
  namespace: {namespace}
spec:
  {spec}
  template:
    spec:
      chainName: none
"
    )
}

#[test]
fn a_set_is_patched_as_merge_json_and_strategic() {
    let world = World::shared();
    world.minerset("patches", "set", "none", 0);
    let spec = || world.get("ms set -n patches")["spec"].clone();
    let patch = |line: &str| world.kubectl(&format!("patch ms set -n patches {line}"));
    assert_eq!(
        patch("--type=merge -p {\"spec\":{\"displayName\":\"merged\"}}").ok(),
        "minerset.apps.onex.io/set patched\n"
    );
    assert_eq!(spec()["displayName"], "merged");
    patch("--type=json -p [{\"op\":\"replace\",\"path\":\"/spec/displayName\",\"value\":\"json\"}]").ok();
    assert_eq!(spec()["displayName"], "json");
    patch("-p {\"spec\":{\"displayName\":\"strategic\",\"minReadySeconds\":3}}").ok();
    assert_eq!((&spec()["displayName"], &spec()["minReadySeconds"]), (&"strategic".into(), &3.into()));
    assert_eq!(
        patch("--type=merge -p {\"spec\":{\"displayName\":\"strategic\"}}").ok(),
        "minerset.apps.onex.io/set patched (no change)\n"
    );
    patch("--type=merge -p {\"spec\":{\"displayName\":null}}").ok();
    assert_eq!(spec()["displayName"], Value::Null);

    let failed = patch("--type=json -p [{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":9}]").refused();
    assert!(failed.contains("the server rejected our request due to an error in our request"), "{failed}");
    let invalid = patch("--type=merge -p {\"spec\":{\"replicas\":-4}}").refused();
    assert!(invalid.contains("spec.replicas: Invalid value: -4: must be greater than or equal to 0"), "{invalid}");
    let missing = world.kubectl("patch ms nobody -n patches --type=merge -p {}").refused();
    assert_eq!(missing, "Error from server (NotFound): minersets.apps.onex.io \"nobody\" not found\n");
}

#[test]
fn a_status_is_patched_apart_and_lists_merge_by_their_key() {
    let world = World::shared();
    world.kubectl("create cm data -n status --from-literal=a=1").ok();
    let finalizers = || world.get("cm data -n status")["metadata"]["finalizers"].clone();
    world.kubectl("patch cm data -n status -p {\"metadata\":{\"finalizers\":[\"a.io/a\"]}}").ok();
    world.kubectl("patch cm data -n status -p {\"metadata\":{\"finalizers\":[\"b.io/b\"]}}").ok();
    let mut both: Vec<_> = finalizers().as_array().unwrap().clone();
    both.sort_by_key(Value::to_string);
    assert_eq!(both, [json!("a.io/a"), json!("b.io/b")], "strategic merge adds to finalizers");
    world.kubectl("patch cm data -n status --type=merge -p {\"metadata\":{\"finalizers\":null}}").ok();
    assert_eq!(finalizers(), Value::Null);

    // The annotation keeps the controller away, which would put its own status right back.
    world.create(
        "{apiVersion: apps.onex.io/v1beta1, kind: MinerSet,
          metadata: {name: set, namespace: status, annotations: {apps.onex.io/paused: ''}},
          spec: {replicas: 0, template: {spec: {chainName: none}}}}",
    );
    let patch = "{\"spec\":{\"displayName\":\"no\"},\"status\":{\"replicas\":7}}";
    world.kubectl(&format!("patch ms set -n status --subresource=status --type=merge -p {patch}")).ok();
    let set = world.get("ms set -n status");
    assert_eq!((&set["status"]["replicas"], &set["spec"]["displayName"]), (&7.into(), &Value::Null));
    let patch = "{\"spec\":{\"displayName\":\"yes\"},\"status\":{\"replicas\":8}}";
    world.kubectl(&format!("patch ms set -n status --type=merge -p {patch}")).ok();
    let set = world.get("ms set -n status");
    assert_eq!((&set["status"]["replicas"], &set["spec"]["displayName"]), (&7.into(), &"yes".into()));
}

#[test]
fn labels_and_annotations_are_set_changed_and_removed() {
    let world = World::shared();
    world.kubectl("create cm data -n labels").ok();
    let metadata = || world.get("cm data -n labels")["metadata"].clone();
    assert_eq!(world.kubectl("label cm data -n labels team=red").ok(), "configmap/data labeled\n");
    assert_eq!(metadata()["labels"], json!({"team": "red"}));
    let refused = world.kubectl("label cm data -n labels team=blue").refused();
    assert!(refused.contains("'team' already has a value (red), and --overwrite is false"), "{refused}");
    world.kubectl("label cm data -n labels team=blue --overwrite").ok();
    assert_eq!(metadata()["labels"]["team"], "blue");
    assert_eq!(world.kubectl("label cm data -n labels team-").ok(), "configmap/data unlabeled\n");
    assert_eq!(metadata()["labels"], Value::Null);
    world.kubectl("annotate cm --all -n labels note=kept").ok();
    assert_eq!(metadata()["annotations"]["note"], "kept");
    world.kubectl("annotate cm data -n labels note-").ok();
    assert_eq!(metadata()["annotations"], Value::Null);
    let refused = world.kubectl("label cm data -n labels team=-no-").refused();
    assert!(refused.contains("team"), "{refused}");
}

#[test]
fn an_object_is_edited_in_an_editor() {
    let world = World::shared();
    world.minerset("edits", "set", "none", 0);
    let editor = world.file("editor", "#!/bin/sh\nsed -i 's/chainName: none/chainName: edited/' \"$1\"\n");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let edit = |resource: &str, editor: &str| {
        let mut command = world.command(&kubectl(), &["edit", resource, "-n", "edits"]);
        command.env("KUBE_EDITOR", editor);
        Said::by(format!("edit {resource}"), command)
    };
    assert_eq!(edit("ms/set", &editor).ok(), "minerset.apps.onex.io/set edited\n");
    assert_eq!(world.get("ms set -n edits")["spec"]["template"]["spec"]["chainName"], "edited");
    assert!(edit("ms/set", "true").err.contains("Edit cancelled, no changes made."));
    world.kubectl("create cm data -n edits --from-literal=key=old").ok();
    edit("cm/data", "sed -i s/old/new/").ok();
    assert_eq!(world.get("cm data -n edits")["data"]["key"], "new");
}

#[test]
fn apply_creates_leaves_alone_changes_and_takes_away() {
    let world = World::shared();
    let apply = |spec: &str| world.kubectl_reading("apply -f -", &set("set", "applies", spec));
    assert_eq!(apply("replicas: 0\n  displayName: first").ok(), "minerset.apps.onex.io/set created\n");
    assert_eq!(apply("replicas: 0\n  displayName: first").ok(), "minerset.apps.onex.io/set unchanged\n");
    let before = world.get("ms set -n applies");
    assert_eq!(apply("replicas: 0\n  displayName: second").ok(), "minerset.apps.onex.io/set configured\n");
    let after = world.get("ms set -n applies");
    assert_eq!(after["spec"]["displayName"], "second");
    assert_eq!(
        after["metadata"]["generation"].as_i64().unwrap(),
        before["metadata"]["generation"].as_i64().unwrap() + 1
    );
    apply("replicas: 0").ok();
    let spec = world.get("ms set -n applies")["spec"].clone();
    assert_eq!((&spec["displayName"], &spec["replicas"]), (&Value::Null, &0.into()));
}

#[test]
fn apply_prunes_what_is_no_longer_declared() {
    let world = World::shared();
    let map = |name: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: prunes, labels: {{app: p}}}}}}\n"
        )
    };
    world.create("{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: prunes, labels: {app: p}}}");
    let line = "apply -n prunes --prune -l app=p --prune-allowlist=core/v1/ConfigMap -f -";
    world.kubectl_reading(line, &(map("one") + &map("two"))).ok();
    let pruned = world.kubectl_reading(line, &map("one")).ok();
    assert!(pruned.contains("configmap/one unchanged") && pruned.contains("configmap/two pruned"), "{pruned}");
    assert_eq!(world.names("cm -n prunes"), ["one", "other"], "what was not applied is not pruned");
}

#[test]
fn diff_shows_what_apply_would_change_and_changes_nothing() {
    let world = World::shared();
    let old = world.file("diff-old.yaml", &set("set", "diffs", "replicas: 0\n  displayName: before"));
    let new = world.file("diff-new.yaml", &set("set", "diffs", "replicas: 0\n  displayName: after"));
    world.kubectl(&format!("apply -f {old}")).ok();
    assert_eq!(world.kubectl(&format!("diff -f {old}")).ok(), "");
    for server_side in ["", " --server-side --force-conflicts"] {
        let shown = world.kubectl(&format!("diff -f {new}{server_side}"));
        assert_eq!(shown.status.code(), Some(1), "{}{}", shown.out, shown.err);
        assert!(
            shown.out.contains("-  displayName: before") && shown.out.contains("+  displayName: after"),
            "{}",
            shown.out
        );
    }
    assert_eq!(world.get("ms set -n diffs")["spec"]["displayName"], "before");
}

#[test]
fn replace_puts_an_object_in_anothers_place() {
    let world = World::shared();
    let old = world.file("replace-old.yaml", &set("set", "replaces", "replicas: 0\n  displayName: before"));
    let new = world.file("replace-new.yaml", &set("set", "replaces", "replicas: 0"));
    world.kubectl(&format!("create -f {old}")).ok();
    let uid = || world.get("ms set -n replaces")["metadata"]["uid"].clone();
    let first = uid();
    assert_eq!(world.kubectl(&format!("replace -f {new}")).ok(), "minerset.apps.onex.io/set replaced\n");
    assert_eq!(world.get("ms set -n replaces")["spec"]["displayName"], Value::Null);
    assert_eq!(uid(), first);
    world.kubectl(&format!("replace --force -f {old}")).ok();
    assert_ne!(uid(), first);

    let mut stale = world.get("ms set -n replaces");
    world.kubectl("label ms set -n replaces touched=yes").ok();
    stale["spec"]["displayName"] = "stale".into();
    let stale = world.file("replace-stale.json", &stale.to_string());
    let refused = world.kubectl(&format!("replace -f {stale}")).refused();
    assert!(
        refused.contains("(Conflict)")
            && refused.contains(
                "Operation cannot be fulfilled on minersets.apps.onex.io \"set\": the object has been modified; \
                 please apply your changes to the latest version and try again"
            ),
        "{refused}"
    );
}

#[test]
fn server_side_apply_names_the_owner_of_a_field_before_it_takes_it() {
    let world = World::shared();
    let apply = |spec: &str, flags: &str| {
        world.kubectl_reading(&format!("apply --server-side {flags} -f -"), &set("set", "owners", spec))
    };
    let first = apply("replicas: 0\n  displayName: first", "--field-manager=one").ok();
    assert_eq!(first, "minerset.apps.onex.io/set serverside-applied\n");
    let refused = apply("replicas: 0\n  displayName: second", "--field-manager=two").refused();
    assert!(refused.contains("Apply failed with 1 conflict: conflict with \"one\": .spec.displayName"), "{refused}");
    apply("replicas: 0\n  displayName: second", "--field-manager=two --force-conflicts").ok();
    let object: Value =
        serde_json::from_str(&world.kubectl("get ms set -n owners -o json --show-managed-fields").ok()).unwrap();
    assert_eq!(object["spec"]["displayName"], "second");
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    let owner = |name: &str| {
        let entry = managers.iter().find(|entry| entry["manager"] == name && entry["operation"] == "Apply");
        entry.unwrap_or_else(|| panic!("{name} manages nothing: {managers:#?}"))["fieldsV1"]["f:spec"].clone()
    };
    assert!(owner("one").get("f:displayName").is_none() && owner("two").get("f:displayName").is_some());

    // What its only owner no longer mentions goes away.
    apply("replicas: 0", "--field-manager=two").ok();
    assert_eq!(world.get("ms set -n owners")["spec"]["displayName"], Value::Null);
    // The same by another way: who writes without applying owns what they wrote.
    world.kubectl("patch ms set -n owners --type=merge -p {\"spec\":{\"displayName\":\"patched\"}}").ok();
    let refused = apply("replicas: 0\n  displayName: applied", "--field-manager=two").refused();
    assert!(
        refused.contains("conflict with \"kubectl-patch\" using apps.onex.io/v1beta1: .spec.displayName"),
        "{refused}"
    );
}

#[test]
fn server_side_apply_of_an_unknown_field_is_refused() {
    let world = World::shared();
    let refused = world
        .kubectl_reading("apply --server-side -f -", &set("odd", "owners", "replicas: 0\n  replicsa: 1"))
        .refused();
    assert!(refused.contains(".spec.replicsa: field not declared in schema"), "{refused}");
}

#[test]
fn the_parts_of_a_set_are_read_and_written_by_their_names() {
    let world = World::shared();
    // The annotation keeps the controller away, which would put its own status right back.
    world.create(
        "{apiVersion: apps.onex.io/v1beta1, kind: MinerSet,
          metadata: {name: set, namespace: parts, annotations: {apps.onex.io/paused: ''}},
          spec: {replicas: 0, template: {spec: {chainName: none}}}}",
    );
    let set = |line: &str| world.kubectl(&format!("{line} -n parts"));
    assert!(set("get ms set --subresource=status").ok().contains("set "));
    assert!(set("get ms set --subresource=scale").ok().contains("set "));
    assert!(set("get ms set --subresource=scale -o jsonpath={.kind}").ok().contains("Scale"));
    set("patch ms set --subresource=scale --type=merge -p {\"spec\":{\"replicas\":1}}").ok();
    assert_eq!(world.get("ms set -n parts")["spec"]["replicas"], 1);
    set("patch ms set --subresource=status --type=merge -p {\"status\":{\"failureMessage\":\"patched\"}}").ok();
    assert_eq!(world.get("ms set -n parts --subresource=status")["status"]["failureMessage"], "patched");
    let status = "apiVersion: apps.onex.io/v1beta1
kind: MinerSet
metadata:
  name: set
  namespace: parts
status:
  failureReason: InvalidConfiguration
";
    let apply = "apply --server-side --subresource=status --field-manager=person -f -";
    assert!(world.kubectl_reading(apply, status).ok().contains("serverside-applied"));
    let object = world.get("ms set -n parts --show-managed-fields");
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|entry| entry["manager"] == "person" && entry["subresource"] == "status"));
    world.kubectl_reading("replace --subresource=status -f -", &world.get("ms set -n parts").to_string()).ok();
}
