//! People bring kinds of their own.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{PATIENCE, World, eventually};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: crontabs.stable.example.com
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        description: A job that comes back.
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, description: When it runs.}
              replicas: {type: integer, minimum: 0, default: 1}
          status:
            type: object
            properties: {replicas: {type: integer}, ready: {type: boolean}}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
"#;

fn job(name: &str, when: &str) -> String {
    format!(
        "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}, namespace: jobs}}\nspec: {{cronSpec: '{when}'}}\n"
    )
}

#[test]
fn a_kind_is_defined_used_and_taken_away_with_kubectl() {
    let world = World::start();
    world.kubectl_reading("apply -f -", DEFINITION).ok();
    world.kubectl("wait --for=condition=Established --timeout=60s crd/crontabs.stable.example.com").ok();
    let began = Instant::now();
    assert_eq!(world.kubectl_reading("apply -f -", &job("a", "* *")).ok(), "crontab.stable.example.com/a created\n");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(world.kubectl_reading("apply -f -", &job("a", "1 1")).ok(), "crontab.stable.example.com/a configured\n");
    assert_eq!(
        world.kubectl_reading("apply --server-side --field-manager=other -f -", &job("b", "2 2")).ok(),
        "crontab.stable.example.com/b serverside-applied\n"
    );
    let table = world.kubectl("get ct -n jobs").ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "SPEC", "REPLICAS", "AGE"]);
    assert_eq!(rows[1][..4], ["a", "1", "1", "1"]);
    let explained = world.kubectl("explain crontab.spec.cronSpec").ok();
    assert!(explained.contains("When it runs."), "{explained}");

    let invalid =
        world.kubectl_reading("apply -f -", &job("c", "* *").replace("cronSpec:", "unknown: 1, cronSpec:")).refused();
    assert!(invalid.contains("strict decoding error: unknown field \"spec.unknown\""), "{invalid}");
    let strategic = world.kubectl("patch ct a -n jobs -p {\"spec\":{\"replicas\":2}}").refused();
    assert!(strategic.contains("is not supported by stable.example.com/v1, Kind=CronTab"), "{strategic}");
    world.kubectl("scale ct a -n jobs --replicas=3").ok();
    assert_eq!(world.get("ct a -n jobs")["spec"]["replicas"], 3);
    world.kubectl("patch ct a -n jobs --subresource=status --type=merge -p {\"status\":{\"ready\":true}}").ok();
    world.kubectl("wait ct a -n jobs --for=jsonpath={.status.ready}=true --timeout=60s").ok();
    world.kubectl("delete ct b -n jobs").ok();

    world.kubectl("delete crd crontabs.stable.example.com --timeout=60s").ok();
    assert_eq!(world.get("crd crontabs.stable.example.com"), Value::Null);
    // kubectl remembers the name for some minutes; the server does not.
    let gone = world.kubectl("get ct -n jobs").refused();
    assert!(gone.contains("the server could not find the requested resource"), "{gone}");
    let groups = world.kubectl("get --raw /apis").ok();
    assert!(!groups.contains("stable.example.com"), "{groups}");
}

#[test]
fn what_was_defined_survives_a_crash_and_its_namespace_does_not_survive_it() {
    let world = World::start();
    world.kubectl_reading("apply -f -", DEFINITION).ok();
    world.kubectl("wait --for=condition=Established --timeout=60s crd/crontabs.stable.example.com").ok();
    world.kubectl_reading("apply -f -", &job("a", "* *")).ok();
    world.crash();
    world.up();
    assert_eq!(world.names("ct -n jobs"), ["a"]);
    // The namespace takes what is in it along, also of kinds that came later than its controller.
    world.kubectl("delete ns jobs --timeout=60s").ok();
    assert_eq!(world.names("ct -A"), [""; 0]);
}

#[test]
fn what_a_custom_resource_owns_goes_with_it() {
    let world = World::start();
    world.kubectl_reading("apply -f -", DEFINITION).ok();
    world.kubectl("wait --for=condition=Established --timeout=60s crd/crontabs.stable.example.com").ok();
    world.kubectl_reading("apply -f -", &job("owner", "* *")).ok();
    let uid = world.get("ct owner -n jobs")["metadata"]["uid"].as_str().unwrap().to_owned();
    world.create(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  namespace: jobs\n  ownerReferences:\n  - {{apiVersion: \
         stable.example.com/v1, kind: CronTab, name: owner, uid: {uid}}}\n"
    ));
    world.kubectl("delete ct owner -n jobs").ok();
    eventually(PATIENCE, || match world.get("cm owned -n jobs") {
        Value::Null => Ok(()),
        _ => Err("the ConfigMap is still there".to_owned()),
    });
}
