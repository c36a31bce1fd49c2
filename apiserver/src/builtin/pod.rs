//! Pods: the defaults, the usual mistakes, and what may change.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;
use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::{
    columns, fill, items, kubernetes, list, object,
    pod_parts::amend,
    pod_spec::{CONTAINERS, check_spec, fill_spec},
    quantity::thousandths,
    text,
};
use crate::kinds::{Hooks, Kind, Subresource};

/// Pods.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<Pod>("pods", &["po"]);
    kind.categories = vec!["all".to_owned()];
    kind.status = true;
    kind.labels_by_status = true;
    kind.generation = true;
    kind.returns_deleted = true;
    kind.columns = columns::pod();
    kind.selectable = super::selectable(&[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ]);
    kind.selectable.push(("status.podIPs".to_owned(), vec!["status".to_owned(), "podIP".to_owned()]));
    kind.subresources = vec![
        Subresource { name: "binding", speaks: ("", "v1", "Binding"), verbs: &["create"] },
        Subresource { name: "ephemeralcontainers", speaks: ("", "v1", "Pod"), verbs: &["get", "patch", "update"] },
        Subresource { name: "eviction", speaks: ("policy", "v1", "Eviction"), verbs: &["create"] },
        Subresource { name: "log", speaks: ("", "v1", "Pod"), verbs: &["get"] },
        Subresource { name: "resize", speaks: ("", "v1", "Pod"), verbs: &["get", "patch", "update"] },
    ];
    kind.hooks = Hooks { fill: fill_pod, check, prepare, grace, amend, ..Hooks::default() };
    kind
}

fn fill_pod(pod: &mut Value) {
    if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
        fill_addresses(status);
    }
    let Some(spec) = pod.as_object_mut().and_then(|pod| object(pod, "spec")) else { return };
    fill_spec(spec);
    fill(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for containers in CONTAINERS {
        for container in items(spec, containers) {
            for port in items(container, "ports").filter(|_| host_network) {
                let number = port.get("containerPort").cloned().unwrap_or_default();
                fill(port, "hostPort", number);
            }
            if let Some(resources) = object(container, "resources") {
                request_limits(resources);
            }
        }
    }
}

/// Whoever reports one address reports a list of one: EndpointSlices are made of the list. Where the two differ, the one is
/// right, as it is of those who do not know the list.
fn fill_addresses(status: &mut Map<String, Value>) {
    let known = |address: &Value| address.as_str().is_some_and(|address| !address.is_empty());
    let first = status.get("podIPs").map(|list| list[0]["ip"].clone()).unwrap_or_default();
    match status.get("podIP").cloned().filter(known) {
        Some(one) if one != first => drop(status.insert("podIPs".to_owned(), json!([{"ip": one}]))),
        None if known(&first) => drop(status.insert("podIP".to_owned(), first)),
        _ => {}
    }
}

/// Who limits a resource and does not say what they request, requests the limit.
pub fn request_limits(resources: &mut Map<String, Value>) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if let Some(requests) = object(resources, "requests") {
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
    }
}

fn prepare(pod: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        pod["status"] = json!({"phase": "Pending", "qosClass": quality(&pod["spec"])});
    }
}

/// A Pod that runs nowhere goes at once; any other gets the time to stop that was asked for, or else that it declares.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let nowhere = text(&pod["spec"], "nodeName").is_empty();
    if nowhere || matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed") {
        return 0;
    }
    match asked.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30) {
        ..0 => 1,
        seconds => seconds,
    }
}

/// How firmly the Pod's resources are promised.
pub fn quality(spec: &Value) -> &'static str {
    let containers = || ["initContainers", "containers"].into_iter().flat_map(|name| list(spec, name));
    let amount = |container: &Value, which: &str, resource: &str| {
        thousandths(&container["resources"][which][resource]).filter(|amount| *amount > 0)
    };
    let both = ["cpu", "memory"];
    let some = containers().any(|c| both.iter().any(|r| amount(c, "limits", r).or(amount(c, "requests", r)).is_some()));
    let firm = |c: &Value| {
        both.iter().all(|r| amount(c, "limits", r).is_some() && amount(c, "limits", r) == amount(c, "requests", r))
    };
    match (some, containers().all(firm)) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn check(pod: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &pod["spec"];
    if let Some(old) = old {
        check_change(spec, &old["spec"], &mut wrong);
    }
    check_spec(spec, "spec", &[], &mut wrong);
    if old.is_none() && !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        wrong.push(Invalid::forbidden("spec.nodeName", why));
    }
    wrong
}

/// Almost nothing of a Pod may change: what runs is what was declared.
fn check_change(spec: &Value, old: &Value, wrong: &mut Vec<Invalid>) {
    let tolerations: HashSet<&Value> = list(spec, "tolerations").iter().collect();
    let kept = list(old, "tolerations").iter().all(|toleration| tolerations.contains(toleration));
    let deadline = match (old["activeDeadlineSeconds"].as_i64(), spec["activeDeadlineSeconds"].as_i64()) {
        (Some(before), Some(after)) if after > before => {
            let why = "must be less than or equal to previous value";
            wrong.push(Invalid::value("spec.activeDeadlineSeconds", after, why));
            true
        }
        (Some(_), None) => false,
        _ => true,
    };
    if !kept || !deadline || fixed(spec, old) != fixed(old, old) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                   `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                   `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        wrong.push(Invalid::forbidden("spec", why));
    }
}

/// The spec without what may change.
fn fixed(spec: &Value, old: &Value) -> Value {
    let mut fixed = spec.clone();
    let Some(fields) = fixed.as_object_mut() else { return fixed };
    fields.remove("activeDeadlineSeconds");
    fields.remove("tolerations");
    fields.retain(|_, value| !value.is_null() && *value != json!([]) && *value != json!(""));
    if old["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0)
        && spec["terminationGracePeriodSeconds"] == 1
    {
        fields.insert("terminationGracePeriodSeconds".to_owned(), old["terminationGracePeriodSeconds"].clone());
    }
    for containers in ["containers", "initContainers"] {
        items(fields, containers).for_each(|container| drop(container.remove("image")));
    }
    fixed
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};
    use crate::table::printed;

    fn pod(spec: Value) -> Value {
        filled(&kind(), json!({"metadata": {"name": "a"}, "spec": spec}))
    }

    #[test]
    fn the_address_of_a_pod_is_the_first_of_its_addresses() {
        for (status, one, all) in [
            (json!({"podIP": "10.0.0.1"}), json!("10.0.0.1"), json!([{"ip": "10.0.0.1"}])),
            (
                json!({"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}]}),
                json!("10.0.0.2"),
                json!([{"ip": "10.0.0.2"}]),
            ),
            (
                json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}]}),
                json!("10.0.0.1"),
                json!([{"ip": "10.0.0.1"}, {"ip": "::1"}]),
            ),
            (json!({"podIP": ""}), json!(""), Value::Null),
        ] {
            let mut pod = json!({"metadata": {"name": "a"}, "status": status});
            (kind().hooks.fill)(&mut pod);
            assert_eq!((&pod["status"]["podIP"], &pod["status"]["podIPs"]), (&one, &all));
        }
    }

    fn complaints(pod: &Value, old: Option<&Value>) -> Vec<String> {
        check(pod, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_gets_the_usual_settings() {
        let pod = pod(json!({
            "containers": [{
                "name": "c", "image": "registry:5000/a/b", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}}, "resources": {"limits": {"cpu": "1"}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            }],
            "volumes": [{"name": "v"}, {"name": "w", "configMap": {"name": "x"}}],
        }));
        insta::assert_json_snapshot!(pod);
    }

    #[test]
    fn promises_follow_from_requests_and_limits() {
        let class = |resources: Value| {
            quality(&pod(json!({"containers": [{"name": "c", "image": "i", "resources": resources}]}))["spec"])
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"limits": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}})), "Guaranteed");
    }

    #[test]
    fn a_pod_gets_time_to_stop_only_where_it_runs() {
        let pod = |node: &str, phase: &str, seconds: i64| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": seconds}, "status": {"phase": phase}});
        assert_eq!(grace(&pod("n", "Running", 7), None), 7);
        assert_eq!(grace(&pod("n", "Running", 7), Some(0)), 0);
        assert_eq!(grace(&pod("n", "Running", 7), Some(-1)), 1);
        assert_eq!(grace(&pod("", "Pending", 7), None), 0);
        assert_eq!(grace(&pod("n", "Failed", 7), Some(9)), 0);
    }

    #[test]
    fn the_usual_mistakes_are_named_at_their_field() {
        let cases = [
            (json!({}), vec!["spec.containers: Required value"]),
            (
                json!({"containers": [{"image": " i"}, {"name": "a", "image": "i"}, {"name": "a", "image": "i"}], "restartPolicy": "Sometimes"}),
                vec![
                    "spec.containers[0].name: Required value",
                    "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
                    "spec.containers[2].name: Duplicate value: \"a\"",
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 99999}, {}],
                    "volumeMounts": [{"name": "v", "mountPath": "/x"}], "env": [{}],
                    "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1", "memory": "much"}}, "livenessProbe": {}}]}),
                vec![
                    "spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
                    "spec.containers[0].ports[1].containerPort: Required value",
                    "spec.containers[0].env[0].name: Required value",
                    "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
                    "spec.containers[0].resources.limits[memory]: Invalid value: \"much\": quantities must match the regular \
                     expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                    "spec.containers[0].resources.requests[memory]: Invalid value: \"much\": quantities must match the regular \
                     expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                    "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(complaints(&pod(spec), None), expected);
        }
    }

    #[test]
    fn only_a_few_fields_may_change() {
        let old = pod(json!({"containers": [{"name": "a", "image": "i:1"}], "activeDeadlineSeconds": 10}));
        let changed = |field: &str, value: Value| {
            let mut new = old.clone();
            *new.pointer_mut("/spec").unwrap().as_object_mut().unwrap().entry(field).or_insert(Value::Null) = value;
            complaints(&new, Some(&old)).len()
        };
        let mut image = old["spec"]["containers"].clone();
        image[0]["image"] = json!("i:2");
        assert_eq!(changed("containers", image.clone()), 0);
        assert_eq!(changed("activeDeadlineSeconds", json!(5)), 0);
        assert_eq!(changed("activeDeadlineSeconds", json!(50)), 1);
        assert_eq!(changed("tolerations", json!([{"key": "a"}])), 0);
        assert_eq!(changed("nodeName", json!("n")), 1);
        image[0]["command"] = json!(["x"]);
        assert_eq!(changed("containers", image), 1);
    }

    #[test]
    fn kubectl_shows_how_a_pod_is() {
        let pod = |status: Value, deleted: bool| {
            let mut pod = json!({
                "metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": {"containers": [{"name": "c"}, {"name": "d"}], "initContainers": [{"name": "i"}], "nodeName": "n"},
                "status": status,
            });
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:01:00Z");
            }
            pod
        };
        let container = |name: &str, ready: bool, state: Value| {
            json!({"name": name, "ready": ready, "restartCount": 2, "state": state,
            "lastState": {"terminated": {"finishedAt": "1970-01-01T00:02:00Z"}}})
        };
        let running = || json!({"running": {}});
        let cases = [
            pod(json!({"phase": "Pending"}), false),
            pod(
                json!({"phase": "Running", "podIP": "127.0.0.9", "containerStatuses": [container("c", true, running()), container("d", true, running())]}),
                false,
            ),
            pod(json!({"phase": "Running", "containerStatuses": [container("c", true, running())]}), true),
            pod(
                json!({"phase": "Running", "containerStatuses": [container("c", false, json!({"waiting": {"reason": "CrashLoopBackOff"}}))]}),
                false,
            ),
            pod(
                json!({"phase": "Pending", "containerStatuses": [container("c", false, json!({"waiting": {"reason": "ErrImageNeverPull"}}))]}),
                false,
            ),
            pod(
                json!({"phase": "Succeeded", "containerStatuses": [container("c", false, json!({"terminated": {"reason": "Completed", "exitCode": 0}}))]}),
                true,
            ),
            pod(
                json!({"phase": "Running", "containerStatuses": [container("c", false, json!({"terminated": {"reason": "Completed"}})), container("d", true, running())]}),
                false,
            ),
            pod(
                json!({"phase": "Failed", "containerStatuses": [container("c", false, json!({"terminated": {"exitCode": 3}}))]}),
                false,
            ),
            pod(json!({"phase": "Pending", "initContainerStatuses": [container("i", false, running())]}), false),
            pod(
                json!({"phase": "Pending", "initContainerStatuses": [container("i", false, json!({"terminated": {"exitCode": 1, "reason": "Error"}}))]}),
                false,
            ),
        ];
        insta::assert_snapshot!(printed(&kind(), &cases, 300));
    }
}
