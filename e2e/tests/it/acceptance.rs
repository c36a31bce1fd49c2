//! What must hold for every kubectl there is, line by line: the acceptance script of the checklist of Kubernetes' behaviour.
//!
//! One test an area, so that a failure says what it is about; what failed says with which kubectl.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::versions::clients;
use crate::world::{PATIENCE, Running, Said, World, eventually};

/// One kubectl, in a namespace of its own.
struct Client<'w> {
    world: &'w World,
    version: &'w str,
    program: &'w Path,
    namespace: String,
}

/// Does `work` with every kubectl.
fn with_every_kubectl(area: &str, work: impl Fn(&Client<'_>)) {
    let world = World::shared();
    for (number, (version, program)) in clients().iter().enumerate() {
        let client = Client { world: &world, version, program, namespace: format!("{area}-{number}") };
        let created = client.run(&format!("create ns {}", client.namespace)).ok();
        assert_eq!(created, format!("namespace/{} created\n", client.namespace), "{version}");
        work(&client);
        client.run(&format!("delete ns {} --wait=false", client.namespace)).ok();
    }
}

impl Client<'_> {
    fn command(&self, line: &str) -> Command {
        let mut arguments: Vec<_> = line.split_whitespace().collect();
        arguments.extend(["-n", &self.namespace]);
        self.world.command(self.program, &arguments)
    }

    /// This kubectl with `line` as it would be typed; no argument may hold a space.
    fn run(&self, line: &str) -> Said {
        Said::by(format!("{}: {line}", self.version), self.command(line))
    }

    /// What `line` prints on success must be `expected`.
    #[track_caller]
    fn says(&self, line: &str, expected: &str) {
        assert_eq!(self.run(line).ok(), expected, "{}: {line}", self.version);
    }

    /// `line` must fail, and complain with every part of `expected`.
    #[track_caller]
    fn refuses(&self, line: &str, expected: &[&str]) {
        let said = self.run(line).refused();
        let missing: Vec<_> = expected.iter().filter(|part| !said.contains(*part)).collect();
        assert!(missing.is_empty(), "{}: {line}: {missing:?} is missing in:\n{said}", self.version);
    }

    /// What `line` prints on success must have every part of `expected`.
    #[track_caller]
    fn tells(&self, line: &str, expected: &[&str]) -> String {
        let said = self.run(line).ok();
        let missing: Vec<_> = expected.iter().filter(|part| !said.contains(*part)).collect();
        assert!(missing.is_empty(), "{}: {line}: {missing:?} is missing in:\n{said}", self.version);
        said
    }

    fn watching(&self, line: &str) -> Running {
        self.world.running_on(self.command(line))
    }

    fn get(&self, line: &str) -> Value {
        serde_json::from_str(&self.run(&format!("get {line} -o json")).ok()).unwrap()
    }

    /// A file with `content` in flow style.
    fn file(&self, name: &str, content: &str) -> String {
        self.world.file(&format!("{}-{name}.yaml", self.namespace), &format!("---\n{content}\n"))
    }

    /// A file with a set of no miners, which no controller touches.
    fn set(&self, name: &str, labels: &str, spec: &str) -> String {
        let content = format!(
            "{{apiVersion: apps.onex.io/v1beta1, kind: MinerSet,
              metadata: {{name: {name}, labels: {{of: onex, {labels}}}, annotations: {{apps.onex.io/paused: ''}}}},
              spec: {{replicas: 0, {spec} template: {{spec: {{chainName: none}}}}}}}}"
        );
        self.file(name, &content)
    }

    /// The minor version, such as 27.
    fn minor(&self) -> u32 {
        self.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).expect("a version has a minor one")
    }
}

#[test]
fn every_kubectl_finds_out_what_there_is() {
    with_every_kubectl("finds", |client| {
        client.tells("version", &["Client Version: ", "Server Version: ", "v1.33."]);
        client.tells("api-resources", &["minersets", "SHORTNAMES", "apps.onex.io/v1beta1"]);
        client.says(
            "api-resources --api-group=apps.onex.io -o name --sort-by=name",
            "chains.apps.onex.io\nminers.apps.onex.io\nminersets.apps.onex.io\n",
        );
        client.tells("api-versions", &["apps.onex.io/v1beta1\n", "coordination.k8s.io/v1\n", "v1\n"]);
        let ready = client.tells("get --raw /readyz?verbose", &["[+]ping ok\n"]);
        assert!(ready.ends_with("readyz check passed\n"), "{ready}");
        client.tells("explain minerset.spec --recursive", &["MinerSet", "replicas", "<integer>", "chainName"]);
        client.tells("explain pod.spec.containers.image", &["<string>"]);
        client.refuses("explain minerset.spec.wrong", &["\"wrong\" does not exist"]);
        client.refuses("get nothings", &["the server doesn't have a resource type \"nothings\""]);
    });
}

#[test]
fn every_kubectl_creates_and_is_told_what_is_wrong() {
    with_every_kubectl("creates", |client| {
        client.says("create cm c --from-literal=a=b", "configmap/c created\n");
        client.says("get cm c -o jsonpath={.data.a}", "b");
        client.says("create secret generic s --from-literal=k=v", "secret/s created\n");
        client.says("get secret s -o jsonpath={.data.k},{.type}", "dg==,Opaque");
        client.says("create sa robot", "serviceaccount/robot created\n");
        let made = client.set("made", "", "");
        client.says(&format!("create -f {made}"), "minerset.apps.onex.io/made created\n");
        client.refuses(
            &format!("create -f {made}"),
            &["Error from server (AlreadyExists): ", "minersets.apps.onex.io \"made\" already exists"],
        );
        let dry = client.set("dry", "", "");
        client
            .says(&format!("create --dry-run=server -f {dry}"), "minerset.apps.onex.io/dry created (server dry run)\n");
        client.refuses("get ms dry", &["Error from server (NotFound): minersets.apps.onex.io \"dry\" not found"]);
        let odd = client.set("odd", "", "wrong: 1,");
        client.refuses(
            &format!("create -f {odd}"),
            &["Error from server (BadRequest): ", "strict decoding error: unknown field \"spec.wrong\""],
        );
        let warned = client.run(&format!("create --validate=warn -f {odd}"));
        assert!(warned.err.contains("Warning: unknown field \"spec.wrong\""), "{}: {}", client.version, warned.err);
        assert_eq!(warned.ok(), "minerset.apps.onex.io/odd created\n");
        client.tells("delete ms odd", &["minerset.apps.onex.io \"odd\" deleted"]);
        let ignored = client.run(&format!("create --validate=false -f {odd}"));
        assert_eq!((ignored.err.as_str(), ignored.out.as_str()), ("", "minerset.apps.onex.io/odd created\n"));
        let invalid = client.set("bad", "", "minReadySeconds: -1,");
        client.refuses(&format!("create -f {invalid}"), &["The MinerSet \"bad\" is invalid: spec.minReadySeconds"]);
        client.says("run p --image=x --dry-run=server -o name", "pod/p\n");
    });
}

#[test]
fn every_kubectl_applies_and_learns_of_conflicts() {
    with_every_kubectl("applies", |client| {
        let apply = |spec: &str| format!("apply -f {}", client.set("set", "", spec));
        client.says(&apply("displayName: one,"), "minerset.apps.onex.io/set created\n");
        client.says(&apply("displayName: one,"), "minerset.apps.onex.io/set unchanged\n");
        let same = client.set("set", "", "displayName: one,");
        assert!(client.run(&format!("diff -f {same}")).ok().is_empty());
        let other = client.set("set", "", "displayName: two,");
        let difference = client.run(&format!("diff -f {other}"));
        assert_eq!(difference.status.code(), Some(1), "{}: {}", client.version, difference.err);
        assert!(difference.out.contains("-  displayName: one\n+  displayName: two\n"), "{}", difference.out);
        client.says(&apply("displayName: two,"), "minerset.apps.onex.io/set configured\n");
        client.says("get ms set -o jsonpath={.spec.displayName}", "two");
        client.says(&apply(""), "minerset.apps.onex.io/set configured\n");
        client.says("get ms set -o jsonpath={.spec.displayName}", "");
        client.tells("apply view-last-applied ms/set", &["kind: MinerSet", "replicas: 0"]);

        let served = |spec: &str| format!("apply --server-side -f {}", client.set("served", "", spec));
        client.says(&served("displayName: one,"), "minerset.apps.onex.io/served serverside-applied\n");
        let theirs = served("displayName: two,") + " --field-manager=other";
        client.refuses(
            &theirs,
            &[
                "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.displayName",
                "Please review the fields above--they currently have other managers.",
            ],
        );
        client.says(&(theirs + " --force-conflicts"), "minerset.apps.onex.io/served serverside-applied\n");
        client.says("get ms served -o jsonpath={.spec.displayName}", "two");
        // What was applied by the client goes on to be applied by the server.
        let set = client.set("set", "", "displayName: three,");
        client.says(&format!("apply --server-side -f {set}"), "minerset.apps.onex.io/set serverside-applied\n");
        let mut managers: Vec<_> = client.get("ms set --show-managed-fields")["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["manager"].as_str().unwrap().to_owned())
            .collect();
        managers.sort();
        assert_eq!(managers, ["kubectl", "kubectl-last-applied"], "{}", client.version);

        let map = |name: &str| {
            format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{app: x}}}}, data: {{}}}}")
        };
        let both = client.file("both", &format!("{}\n---\n{}", map("kept"), map("pruned")));
        client.says(&format!("apply -f {both}"), "configmap/kept created\nconfigmap/pruned created\n");
        let one = client.file("one", &map("kept"));
        let prune = format!("apply -f {one} --prune -l app=x --prune-allowlist=core/v1/ConfigMap");
        client.says(&prune, "configmap/kept unchanged\nconfigmap/pruned pruned\n");
    });
}

#[test]
fn every_kubectl_reads_in_every_form() {
    with_every_kubectl("reads", |client| {
        for name in ["a", "b", "c"] {
            client.run(&format!("create -f {}", client.set(name, &format!("team: {name}"), ""))).ok();
        }
        let table = client.tells("get ms", &["AVAILABLE"]);
        for table in [table, client.run("get ms --chunk-size=2").ok()] {
            let names: Vec<_> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
            assert_eq!(names, ["NAME", "a", "b", "c"], "{}: {table}", client.version);
        }
        client.tells("get ms -o wide", &["AVAILABLE"]);
        client.tells("get ms -A", &["NAMESPACE", &client.namespace]);
        client.tells("get ms --show-labels", &["LABELS", "team=a"]);
        client.tells("get ms -L team", &["TEAM"]);
        client.tells("get ms a -o yaml", &["apiVersion: apps.onex.io/v1beta1\n", "kind: MinerSet\n"]);
        let names = "minerset.apps.onex.io/a\nminerset.apps.onex.io/b\nminerset.apps.onex.io/c\n";
        client.says("get ms -o name", names);
        client.says("get ms -o name --sort-by=.metadata.name", names);
        client.says("get ms -o jsonpath={.items[*].metadata.name}", "a b c");
        client.says("get ms -o custom-columns=N:.metadata.name", "N\na\nb\nc\n");
        client.says("get ms -o name -l team=b", "minerset.apps.onex.io/b\n");
        client.says("get ms -o name -l team!=b", "minerset.apps.onex.io/a\nminerset.apps.onex.io/c\n");
        client.says("get ms -o name --field-selector=metadata.name=c", "minerset.apps.onex.io/c\n");
        client.refuses("get ms --field-selector=spec.wrong=c", &["field label not supported: spec.wrong"]);
        let list = client.get("ms");
        assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&"List".into(), 3), "{list}");
        client.tells("get ms,cm,ch,mi", &["minerset.apps.onex.io/a"]);
        client.tells("get ms/a ms/b", &["a", "b"]);
        client
            .refuses("get ms a nobody", &["Error from server (NotFound): minersets.apps.onex.io \"nobody\" not found"]);
        client.says("get ms nobody --ignore-not-found", "");
        client.run("get all").ok();
        client.tells("get --raw /apis/apps.onex.io/v1beta1", &["\"kind\":\"APIResourceList\""]);
        client.tells("get ms a --subresource=scale", &["NAME", "a"]);
    });
}

#[test]
fn every_kubectl_sees_changes_as_they_happen() {
    with_every_kubectl("watches", |client| {
        let watch = client.watching("get ms -w --output-watch-events");
        client.run(&format!("create -f {}", client.set("x", "", ""))).ok();
        // Whether the watch began before or after it.
        watch.prints(|out| out.contains("ADDED"));
        let one = client.watching("get ms x -w -o jsonpath={.metadata.labels.a};");
        one.prints(|out| out == ";");
        client.run("label ms x a=b").ok();
        watch.prints(|out| out.contains("MODIFIED"));
        one.prints(|out| out == ";b;");
        client.run("delete ms x").ok();
        let events = watch.prints(|out| out.contains("DELETED"));
        one.prints(|out| out == ";b;b;");
        let first: Vec<_> = events.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(first, ["EVENT", "ADDED", "MODIFIED", "DELETED"], "{}: {events}", client.version);
    });
}

#[test]
fn every_kubectl_changes_what_is_there() {
    with_every_kubectl("changes", |client| {
        client.run(&format!("create -f {}", client.set("x", "", ""))).ok();
        client.says("label ms x a=b", "minerset.apps.onex.io/x labeled\n");
        client.refuses("label ms x a=c", &["'a' already has a value (b), and --overwrite is false"]);
        client.says("label ms x a-", "minerset.apps.onex.io/x unlabeled\n");
        client.tells("annotate ms --all note=yes", &["minerset.apps.onex.io/x annotate"]);
        client.says("get ms x -o jsonpath={.metadata.annotations.note}", "yes");
        client.says("patch ms x -p {\"spec\":{\"minReadySeconds\":1}}", "minerset.apps.onex.io/x patched\n");
        client.says(
            "patch ms x --type=merge -p {\"spec\":{\"minReadySeconds\":1}}",
            "minerset.apps.onex.io/x patched (no change)\n",
        );
        client.says(
            "patch ms x --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/minReadySeconds\",\"value\":2}]",
            "minerset.apps.onex.io/x patched\n",
        );
        client.says("get ms x -o jsonpath={.spec.minReadySeconds}", "2");
        client.run("create cm c --from-literal=a=b").ok();
        client.says("patch cm c -p {\"data\":{\"c\":\"d\"}}", "configmap/c patched\n");
        client.says("get cm c -o jsonpath={.data}", "{\"a\":\"b\",\"c\":\"d\"}");
        for (resource, expression, changed) in [
            ("ms/x", "s/minReadySeconds:.2/minReadySeconds: 3/", "minerset.apps.onex.io/x"),
            ("cm/c", "s/a:.b/a: e/", "configmap/c"),
        ] {
            let editor =
                client.world.file(&format!("{}-editor", client.namespace), &format!("sed -i '{expression}' \"$1\"\n"));
            let mut edit = client.command(&format!("edit {resource}"));
            edit.env("KUBE_EDITOR", format!("sh {editor}"));
            let edited = Said::by(format!("{}: edit {resource}", client.version), edit).ok();
            assert_eq!(edited, format!("{changed} edited\n"), "{}", client.version);
        }
        client.says("get ms x -o jsonpath={.spec.minReadySeconds}", "3");
        client.says("get cm c -o jsonpath={.data}", "{\"a\":\"e\",\"c\":\"d\"}");
        let replace = client.set("x", "", "displayName: replaced,");
        client.says(&format!("replace -f {replace}"), "minerset.apps.onex.io/x replaced\n");
        client.says("get ms x -o jsonpath={.spec.displayName},{.metadata.annotations.note}", "replaced,");
        let forced = client.tells(&format!("replace --force -f {replace}"), &["minerset.apps.onex.io \"x\" deleted"]);
        assert!(forced.ends_with("minerset.apps.onex.io/x replaced\n"), "{forced}");
        client.says("scale ms x --replicas=2", "minerset.apps.onex.io/x scaled\n");
        client.refuses("scale ms x --replicas=1 --current-replicas=5", &["Expected replicas to be 5, was 2"]);
        client.says("scale ms x --replicas=0 --current-replicas=2", "minerset.apps.onex.io/x scaled\n");
        client.says("get ms x -o jsonpath={.spec.replicas}", "0");
    });
}

#[test]
fn every_kubectl_waits_for_what_comes_and_goes() {
    with_every_kubectl("waits", |client| {
        let file = client.set("x", "", "");
        if client.minor() >= 31 {
            let mut wait = client.watching("wait --for=create ms/x --timeout=60s");
            client.run(&format!("create -f {file}")).ok();
            assert!(wait.ends().success(), "{}", client.version);
        } else {
            client.run(&format!("create -f {file}")).ok();
        }
        let mut ready = client.watching("wait ms/x --for=condition=Ready --timeout=60s");
        let mut shown = client.watching("wait ms/x --for=jsonpath={.status.replicas}=7 --timeout=60s");
        let status = "{\"status\":{\"replicas\":7,\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}";
        client.says(
            &format!("patch ms x --subresource=status --type=merge -p {status}"),
            "minerset.apps.onex.io/x patched\n",
        );
        assert!(ready.ends().success() && shown.ends().success(), "{}", client.version);
        client.says("wait ms/x --for=condition=Ready --timeout=5s", "minerset.apps.onex.io/x condition met\n");
        client.refuses(
            "wait ms/x --for=condition=Other --timeout=1s",
            &["timed out waiting for the condition on minersets/x"],
        );
        let mut gone = client.watching("wait ms/x --for=delete --timeout=60s");
        client.says(
            "patch ms x --type=merge -p {\"metadata\":{\"finalizers\":[\"a.io/b\"]}}",
            "minerset.apps.onex.io/x patched\n",
        );
        client.tells("delete ms x --wait=false", &["minerset.apps.onex.io \"x\" deleted"]);
        client.tells("get ms x -o jsonpath={.metadata.deletionTimestamp}", &["T"]);
        assert!(gone.is_running(), "{}: it is still there", client.version);
        client.says(
            "patch ms x --type=merge -p {\"metadata\":{\"finalizers\":null}}",
            "minerset.apps.onex.io/x patched\n",
        );
        assert!(gone.ends().success(), "{}", client.version);
        client.refuses("get ms x", &["(NotFound)"]);
    });
}

#[test]
fn every_kubectl_deletes_one_some_and_all() {
    with_every_kubectl("deletes", |client| {
        for name in ["a", "b", "c", "d", "e", "f", "g"] {
            client.run(&format!("create -f {}", client.set(name, &format!("team: {name}"), ""))).ok();
        }
        client.tells("delete ms a", &["minerset.apps.onex.io \"a\" deleted"]);
        client.refuses("delete ms a", &["Error from server (NotFound): minersets.apps.onex.io \"a\" not found"]);
        client.says("delete ms a --ignore-not-found", "");
        client.tells("delete ms b --cascade=orphan", &["\"b\" deleted"]);
        client.tells("delete ms c --cascade=foreground --timeout=60s", &["\"c\" deleted"]);
        client.tells("delete ms d --now", &["\"d\" deleted"]);
        client.tells("delete ms e --force --grace-period=0", &["\"e\" force deleted"]);
        client.tells("delete ms -l team=f", &["\"f\" deleted"]);
        client.says("get ms -o name", "minerset.apps.onex.io/g\n");
        client.says("delete ms --all --dry-run=server -o name", "minerset.apps.onex.io/g\n");
        client.tells("delete ms --all", &["\"g\" deleted"]);
        client.says("get ms -o name", "");
    });
}

#[test]
fn every_kubectl_describes_an_object_with_its_events() {
    with_every_kubectl("describes", |client| {
        client.run(&format!("create -f {}", client.set("x", "a: b", ""))).ok();
        let event = client.file(
            "event",
            &format!(
                "{{apiVersion: v1, kind: Event, metadata: {{name: x.1}}, type: Normal, reason: Tested, message: by hand,
                  firstTimestamp: '2026-01-01T00:00:00Z', lastTimestamp: '2026-01-01T00:00:00Z', count: 1,
                  source: {{component: test}},
                  involvedObject: {{apiVersion: apps.onex.io/v1beta1, kind: MinerSet, name: x, namespace: {},
                    uid: {}}}}}",
                client.namespace,
                client.get("ms x")["metadata"]["uid"].as_str().unwrap()
            ),
        );
        client.says(&format!("create -f {event}"), "event/x.1 created\n");
        client.tells("describe ms x", &["Kind:         MinerSet", "Labels:       a=b", "Tested", "by hand"]);
        client.tells("events --for minerset/x", &["REASON", "Tested", "MinerSet/x"]);
        client.tells("get events --field-selector=involvedObject.name=x", &["Tested"]);
        client.tells(&format!("describe ns {}", client.namespace), &["Status:       Active"]);
        client.run("create cm c --from-literal=a=b").ok();
        client.tells("describe cm c", &["Data\n====", "a:\n----\nb"]);
        client.run("create secret generic s --from-literal=k=value").ok();
        let secret = client.tells("describe secret s", &["k:  5 bytes"]);
        assert!(!secret.contains("dmFsdWU"), "{secret}");
        eventually(PATIENCE, || client.run("describe node").out_or_err());
    });
}
