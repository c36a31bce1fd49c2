//! How much a namespace may hold, and how much its Pods ask for.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::world::{Answer, MAPS, SETS, World, map, set};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn quota(world: &World, name: &str, spec: Value) {
    world.post(QUOTAS, json!({"metadata": {"name": name}, "spec": spec})).await.is(201);
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

/// What the status of a quota says is used, once it says so.
async fn used(world: &World, name: &str, expected: Value) {
    for _ in 0..100 {
        let status = world.get(&format!("{QUOTAS}/{name}")).await.is(200)["status"].clone();
        if status["used"] == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = world.get(&format!("{QUOTAS}/{name}")).await.is(200)["status"].clone();
    assert_eq!(status["used"], expected, "it was never so");
}

fn codes(answers: &[Answer]) -> (usize, usize) {
    let of = |code: u16| answers.iter().filter(|answer| answer.code == code).count();
    (of(201), of(403))
}

#[tokio::test]
async fn nobody_takes_more_than_there_is() {
    let world = World::new().await;
    quota(&world, "q", json!({"hard": {"configmaps": 3, "count/minersets.apps.onex.io": 1}})).await;
    // The ConfigMap with the authority is not there: this apiserver was given none.
    for name in ["a", "b", "c"] {
        world.post(MAPS, map(name)).await.is(201);
    }
    let refused = world.post(MAPS, map("d")).await;
    assert_eq!(
        refused.says(403),
        "configmaps \"d\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3"
    );
    world.post(SETS, set("one")).await.is(201);
    let refused = world.post(SETS, set("two")).await.says(403);
    let counted = "count/minersets.apps.onex.io=1";
    assert_eq!(
        refused,
        format!(
            "minersets.apps.onex.io \"two\" is forbidden: exceeded quota: q, requested: {counted}, used: {counted}, limited: \
             {counted}"
        )
    );
    let status = world.get(&format!("{QUOTAS}/q")).await.is(200)["status"].clone();
    assert_eq!(status["used"], json!({"configmaps": "3", "count/minersets.apps.onex.io": "1"}));
    assert_eq!(status["hard"], json!({"configmaps": "3", "count/minersets.apps.onex.io": "1"}));
    // Elsewhere there is no quota.
    world.post("/api/v1/namespaces/kube-public/configmaps", map("d")).await.is(201);
}

#[tokio::test]
async fn what_goes_makes_room_at_once() {
    let world = World::new().await;
    quota(&world, "q", json!({"hard": {"configmaps": 1}})).await;
    for round in 0..20 {
        world.post(MAPS, map("a")).await.is(201);
        assert_eq!(world.post(MAPS, map("b")).await.code, 403, "round {round}");
        world.delete(&format!("{MAPS}/a"), Value::Null).await.is(200);
    }
    used(&world, "q", json!({"configmaps": "0"})).await;
}

#[tokio::test]
async fn of_many_at_once_exactly_as_many_as_fit_get_a_place() {
    let world = World::new().await;
    quota(&world, "q", json!({"hard": {"configmaps": 40}})).await;
    quota(&world, "r", json!({"hard": {"configmaps": 50, "count/configmaps": 60}})).await;
    let maps = (0..100).map(|n| map(&format!("m{n}")));
    let answers = join_all(maps.map(|map| world.post(MAPS, map))).await;
    assert_eq!(codes(&answers), (40, 60), "{:?}", answers.iter().find(|answer| !matches!(answer.code, 201 | 403)));
    used(&world, "q", json!({"configmaps": "40"})).await;
    used(&world, "r", json!({"configmaps": "40", "count/configmaps": "40"})).await;
}

#[tokio::test]
async fn what_was_not_written_in_the_end_is_not_counted() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    quota(&world, "q", json!({"hard": {"configmaps": 2}})).await;
    for _ in 0..5 {
        world.post(MAPS, map("a")).await.is(409);
    }
    world.post(&format!("{MAPS}?dryRun=All"), map("b")).await.is(201);
    world.post(&format!("{MAPS}?dryRun=All"), map("c")).await.is(201);
    world.post(MAPS, map("b")).await.is(201);
    world.post(&format!("{MAPS}?dryRun=All"), map("c")).await.is(403);
    used(&world, "q", json!({"configmaps": "2"})).await;
}

#[tokio::test]
async fn a_quota_counts_what_was_there_before_it_and_follows_its_spec() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.post(MAPS, map(name)).await.is(201);
    }
    quota(&world, "q", json!({"hard": {"configmaps": 2}})).await;
    used(&world, "q", json!({"configmaps": "3"})).await;
    world.post(MAPS, map("d")).await.is(403);
    world.merge(&format!("{QUOTAS}/q"), json!({"spec": {"hard": {"configmaps": 4, "secrets": 1}}})).await.is(200);
    world.post(MAPS, map("d")).await.is(201);
    world.post(MAPS, map("e")).await.is(403);
    used(&world, "q", json!({"configmaps": "4", "secrets": "0"})).await;
    world.delete(&format!("{QUOTAS}/q"), Value::Null).await.is(200);
    world.post(MAPS, map("e")).await.is(201);
}

#[tokio::test]
async fn pods_say_what_they_need_and_get_it_while_there_is_some() {
    let world = World::new().await;
    quota(&world, "q", json!({"hard": {"pods": 5, "requests.cpu": "1", "limits.memory": "1Gi"}})).await;
    assert_eq!(
        world.post(PODS, pod("silent", json!({}))).await.says(403),
        "pods \"silent\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    let needs = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"memory": "256Mi"}});
    world.post(PODS, pod("a", needs("700m"))).await.is(201);
    assert_eq!(
        world.post(PODS, pod("b", needs("400m"))).await.says(403),
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=400m, used: requests.cpu=700m, limited: \
         requests.cpu=1"
    );
    world.post(PODS, pod("b", needs("300m"))).await.is(201);
    used(&world, "q", json!({"pods": "2", "requests.cpu": "1", "limits.memory": "512Mi"})).await;
    // Who has ended needs nothing.
    world.merge(&format!("{PODS}/a/status"), json!({"status": {"phase": "Succeeded"}})).await.is(200);
    used(&world, "q", json!({"pods": "1", "requests.cpu": "300m", "limits.memory": "256Mi"})).await;
    world.post(PODS, pod("c", needs("700m"))).await.is(201);
}

#[tokio::test]
async fn a_scope_chooses_the_pods_of_a_quota() {
    let world = World::new().await;
    quota(&world, "best", json!({"hard": {"pods": 1}, "scopes": ["BestEffort"]})).await;
    let high = json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]);
    quota(&world, "high", json!({"hard": {"pods": 0}, "scopeSelector": {"matchExpressions": high}})).await;
    world.post(PODS, pod("a", json!({}))).await.is(201);
    world.post(PODS, pod("b", json!({}))).await.is(403);
    world.post(PODS, pod("c", json!({"requests": {"cpu": 1}}))).await.is(201);
    used(&world, "best", json!({"pods": "1"})).await;
    used(&world, "high", json!({"pods": "0"})).await;
}

#[tokio::test]
async fn what_grows_needs_room_too() {
    let world = World::new().await;
    quota(&world, "q", json!({"hard": {"requests.storage": "3Gi", "services.nodeports": 1}})).await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |storage: &str| {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}});
        json!({"metadata": {"name": "c"}, "spec": spec})
    };
    world.post(claims, claim("4Gi")).await.is(403);
    world.post(claims, claim("2Gi")).await.is(201);
    let services = "/api/v1/namespaces/default/services";
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
    world.post(services, service).await.is(201);
    let refused = world.merge(&format!("{services}/s"), json!({"spec": {"type": "NodePort"}})).await.says(403);
    assert!(refused.contains("requested: services.nodeports=2, used: services.nodeports=0"), "{refused}");
    used(&world, "q", json!({"requests.storage": "2Gi", "services.nodeports": "0"})).await;
}

#[tokio::test]
async fn containers_get_the_usual_and_no_more_than_they_may() {
    let world = World::new().await;
    let container =
        json!({"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}, "min": {"cpu": "100m"}});
    let spec = json!({"limits": [container, {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]});
    world.post(LIMITS, json!({"metadata": {"name": "l"}, "spec": spec})).await.is(201);
    let made = world.post(PODS, pod("a", json!({}))).await.is(201);
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    assert_eq!(
        world.post(PODS, pod("b", json!({"limits": {"cpu": "2"}}))).await.says(403),
        "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}}}});
    assert_eq!(
        world.post("/api/v1/namespaces/default/persistentvolumeclaims", claim).await.says(403),
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"
    );
    // A resize is held to the same.
    let resize = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}});
    let strategic = "application/strategic-merge-patch+json";
    let path = format!("{PODS}/a/resize");
    assert!(world.patch(strategic, &path, resize("2")).await.says(403).contains("but limit is 2"));
    let resized = world.patch(strategic, &path, resize("900m")).await.is(200);
    assert_eq!(resized["spec"]["containers"][0]["resources"]["limits"]["cpu"], "900m");
    assert_eq!(resized["metadata"]["generation"], 2);
}

#[tokio::test]
async fn every_pod_runs_as_somebody_who_exists() {
    let world = World::new().await;
    world
        .merge("/api/v1/namespaces/default/serviceaccounts/default", json!({"imagePullSecrets": [{"name": "s"}]}))
        .await;
    let made = world.post(PODS, pod("a", json!({}))).await.is(201);
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["serviceAccount"], "default");
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "s"}]));
    let mut other = pod("b", json!({}));
    other["spec"]["serviceAccountName"] = "robot".into();
    assert_eq!(
        world.post(PODS, other.clone()).await.says(403),
        "pods \"b\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
    );
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    world.post(accounts, json!({"metadata": {"name": "robot"}})).await.is(201);
    assert_eq!(world.post(PODS, other).await.is(201)["spec"]["serviceAccountName"], "robot");
    // A namespace that comes to be with its first Pod has its account in time.
    world.post("/api/v1/namespaces/fresh/pods", pod("a", json!({}))).await.is(201);
}

#[tokio::test]
async fn containers_that_look_into_a_pod_are_a_part_of_their_own() {
    let world = World::new().await;
    world.post(PODS, pod("a", json!({}))).await.is(201);
    let path = format!("{PODS}/a/ephemeralcontainers");
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}});
    let strategic = "application/strategic-merge-patch+json";
    let patched = world.patch(strategic, &path, debug.clone()).await.is(200);
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["name"], "debug");
    assert_eq!(world.get(&path).await.is(200)["spec"]["ephemeralContainers"][0]["name"], "debug");
    let mut less = patched;
    less["spec"].as_object_mut().unwrap().remove("ephemeralContainers");
    assert!(world.put(&path, less).await.says(422).contains("may not be removed"));
    // By the front door they cannot come.
    world.post(PODS, pod("b", json!({}))).await.is(201);
    world.patch(strategic, &format!("{PODS}/b"), debug).await.is(422);
}

#[tokio::test]
async fn a_pod_gets_a_priority_and_patience_with_nodes_in_trouble() {
    let world = World::new().await;
    let made = world.post(PODS, pod("a", json!({}))).await.is(201);
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    let tolerated: Vec<_> = made["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t["key"].clone()).collect();
    assert_eq!(tolerated, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    // Who writes the Pod again as they wrote it first takes nothing away.
    let mut again = made.clone();
    for field in ["priority", "preemptionPolicy", "tolerations"] {
        again["spec"].as_object_mut().unwrap().remove(field);
    }
    again["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(world.put(&format!("{PODS}/a"), again).await.is(200)["spec"], made["spec"]);
    let of_class = |name: &str, class: &str| {
        let mut pod = pod(name, json!({}));
        pod["spec"]["priorityClassName"] = class.into();
        pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        pod
    };
    let refused = world.post(PODS, of_class("b", "high")).await.says(403);
    assert_eq!(refused, "pods \"b\" is forbidden: no PriorityClass with name high was found");
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str| json!({"metadata": {"name": name}, "value": 1000, "globalDefault": true});
    world.post(classes, class("high")).await.is(201);
    let made = world.post(PODS, of_class("b", "high")).await.is(201);
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["tolerations"]),
        (&json!(1000), &json!([{"operator": "Exists"}]))
    );
    assert_eq!(world.post(PODS, pod("c", json!({}))).await.is(201)["spec"]["priorityClassName"], "high");
    assert_eq!(
        world.post(classes, class("higher")).await.says(403),
        "priorityclasses.scheduling.k8s.io \"higher\" is forbidden: PriorityClass high is already marked as default. Only one \
         default can exist"
    );
}

#[tokio::test]
async fn an_empty_spec_and_an_empty_status_are_there() {
    let world = World::new().await;
    let node = world.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.is(201);
    assert_eq!((&node["spec"], &node["status"]), (&json!({}), &json!({})));
    let map = world.post(MAPS, map("m")).await.is(201);
    assert!(map.get("spec").is_none() && map.get("status").is_none());
}
