//! Pods: the defaults, the usual mistakes, and what may change.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;
use onex_crds::{Invalid, Problem};
use serde_json::{Map, Value, json};

use super::{
    columns, fill, items, kubernetes, list, object, quantity::thousandths, refuse, refuse_port, refuse_unsupported,
    text,
};
use crate::{
    kinds::{Hooks, Kind, Subresource},
    meta,
    status::is_enough,
};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Pods.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<Pod>("pods", &["po"]);
    kind.categories = vec!["all".to_owned()];
    kind.status = true;
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
        Subresource { name: "log", speaks: ("", "v1", "Pod"), verbs: &["get"] },
    ];
    kind.hooks = Hooks { fill: fill_pod, check, prepare, grace, ..Hooks::default() };
    kind
}

fn fill_pod(pod: &mut Value) {
    if let Some(spec) = pod.as_object_mut().and_then(|pod| object(pod, "spec")) {
        fill_spec(spec);
    }
}

/// Also for the templates of kinds that make Pods.
fn fill_spec(spec: &mut Map<String, Value>) {
    fill(spec, "restartPolicy", "Always");
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "schedulerName", "default-scheduler");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "enableServiceLinks", true);
    for (from, to) in [("serviceAccountName", "serviceAccount"), ("serviceAccount", "serviceAccountName")] {
        if let Some(account) = spec.get(from).filter(|account| *account != "").cloned() {
            fill(spec, to, account);
        }
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for containers in CONTAINERS {
        for container in items(spec, containers) {
            fill_container(container, host_network);
        }
    }
    items(spec, "volumes").for_each(fill_volume);
}

fn fill_container(container: &mut Map<String, Value>, host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if always_pulled(image) { "Always" } else { "IfNotPresent" };
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        fill(port, "protocol", "TCP");
        if host_network {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            fill(port, "hostPort", number);
        }
    }
    for variable in items(container, "env") {
        if let Some(reference) =
            variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")).and_then(Value::as_object_mut)
        {
            fill(reference, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            fill_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)).and_then(Value::as_object_mut)
        {
            fill_http(hook);
        }
    }
    if let Some(resources) = object(container, "resources") {
        request_limits(resources);
    }
}

/// Whether the image has no tag, or the tag `latest`: then it may have changed since it was pulled.
fn always_pulled(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn fill_probe(probe: &mut Map<String, Value>) {
    for (field, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(field).and_then(Value::as_i64).unwrap_or_default() == 0 {
            probe.insert(field.to_owned(), default.into());
        }
    }
    fill_http(probe);
}

fn fill_http(action: &mut Map<String, Value>) {
    if let Some(http) = action.get_mut("httpGet").and_then(Value::as_object_mut) {
        fill(http, "path", "/");
        fill(http, "scheme", "HTTP");
    }
}

/// Who limits a resource and does not say what they request, requests the limit.
fn request_limits(resources: &mut Map<String, Value>) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if let Some(requests) = object(resources, "requests") {
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
    }
}

fn fill_volume(volume: &mut Map<String, Value>) {
    if volume.iter().all(|(field, value)| field == "name" || value.is_null()) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            fill(source, "defaultMode", 0o644);
            for projection in items(source, "sources") {
                if let Some(token) = projection.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
                    fill(token, "expirationSeconds", 3600);
                }
            }
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
fn quality(spec: &Value) -> &'static str {
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
    let volumes = check_volumes(list(spec, "volumes"), &mut wrong);
    if list(spec, "containers").is_empty() {
        wrong.push(Invalid::required("spec.containers", ""));
    }
    let mut names = HashSet::new();
    for kind in CONTAINERS {
        for (index, container) in list(spec, kind).iter().enumerate() {
            if is_enough(&wrong) {
                return wrong;
            }
            check_container(container, &format!("spec.{kind}[{index}]"), &mut names, &volumes, &mut wrong);
        }
    }
    refuse_unsupported(
        "spec.restartPolicy",
        text(spec, "restartPolicy"),
        &["Always", "OnFailure", "Never"],
        &mut wrong,
    );
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    refuse_unsupported("spec.dnsPolicy", text(spec, "dnsPolicy"), &policies, &mut wrong);
    for field in ["nodeName", "serviceAccountName"] {
        let name = text(spec, field);
        if !name.is_empty() {
            refuse(&format!("spec.{field}"), name, meta::dns_subdomain(name), &mut wrong);
        }
    }
    meta::check_labels(&spec["nodeSelector"], "spec.nodeSelector", &mut wrong);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let why = "must be between 1 and 2147483647, inclusive";
        wrong.push(Invalid::value("spec.activeDeadlineSeconds", seconds, why));
    }
    if let Some(seconds) = spec["terminationGracePeriodSeconds"].as_i64().filter(|seconds| *seconds < 0) {
        let why = "must be greater than or equal to 0";
        wrong.push(Invalid::value("spec.terminationGracePeriodSeconds", seconds, why));
    }
    wrong
}

fn check_volumes<'a>(volumes: &'a [Value], wrong: &mut Vec<Invalid>) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        if is_enough(wrong) {
            break;
        }
        check_name(volume, &format!("spec.volumes[{index}].name"), &mut names, wrong);
        if volume
            .as_object()
            .is_some_and(|v| v.iter().filter(|(field, value)| *field != "name" && !value.is_null()).count() > 1)
        {
            let why = "may not specify more than 1 volume type";
            wrong.push(Invalid::forbidden(format!("spec.volumes[{index}]"), why));
        }
    }
    names
}

/// A DNS label that is there once.
fn check_name<'a>(named: &'a Value, field: &str, names: &mut HashSet<&'a str>, wrong: &mut Vec<Invalid>) {
    let name = text(named, "name");
    if name.is_empty() {
        return wrong.push(Invalid::required(field, ""));
    }
    refuse(field, name, meta::dns_label(name), wrong);
    if !names.insert(name) {
        wrong.push(Invalid { field: field.to_owned(), problem: Problem::Duplicate(name.into()) });
    }
}

fn check_container<'a>(
    container: &'a Value,
    at: &str,
    names: &mut HashSet<&'a str>,
    volumes: &HashSet<&str>,
    wrong: &mut Vec<Invalid>,
) {
    check_name(container, &format!("{at}.name"), names, wrong);
    let image = text(container, "image");
    if image.is_empty() {
        wrong.push(Invalid::required(format!("{at}.image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        wrong.push(Invalid::value(format!("{at}.image"), image, why));
    }
    let policy = text(container, "imagePullPolicy");
    refuse_unsupported(&format!("{at}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"], wrong);
    check_ports(list(container, "ports"), at, wrong);
    check_environment(list(container, "env"), at, wrong);
    check_mounts(list(container, "volumeMounts"), at, volumes, wrong);
    check_resources(&container["resources"], at, wrong);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        check_probe(&container[probe], &format!("{at}.{probe}"), wrong);
    }
}

fn check_ports(ports: &[Value], at: &str, wrong: &mut Vec<Invalid>) {
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{at}.ports[{index}]");
        let name = text(port, "name");
        if !name.is_empty() {
            refuse(&format!("{at}.name"), name, meta::port_name(name), wrong);
            if !names.insert(name) {
                wrong.push(Invalid { field: format!("{at}.name"), problem: Problem::Duplicate(name.into()) });
            }
        }
        match port["containerPort"].as_i64().unwrap_or_default() {
            0 => wrong.push(Invalid::required(format!("{at}.containerPort"), "")),
            _ => refuse_port(&format!("{at}.containerPort"), &port["containerPort"], wrong),
        }
        if !port["hostPort"].is_null() && port["hostPort"] != 0 {
            refuse_port(&format!("{at}.hostPort"), &port["hostPort"], wrong);
        }
        refuse_unsupported(&format!("{at}.protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"], wrong);
    }
}

fn check_environment(variables: &[Value], at: &str, wrong: &mut Vec<Invalid>) {
    for (index, variable) in variables.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{at}.env[{index}]");
        let name = text(variable, "name");
        if name.is_empty() {
            wrong.push(Invalid::required(format!("{at}.name"), ""));
        } else {
            refuse(&format!("{at}.name"), name, meta::environment_name(name), wrong);
        }
        if !text(variable, "value").is_empty() && variable["valueFrom"].is_object() {
            let why = "may not be specified when `value` is not empty";
            wrong.push(Invalid::value(format!("{at}.valueFrom"), "", why));
        }
    }
}

fn check_mounts(mounts: &[Value], at: &str, volumes: &HashSet<&str>, wrong: &mut Vec<Invalid>) {
    let mut paths = HashSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{at}.volumeMounts[{index}]");
        let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            wrong.push(Invalid::required(format!("{at}.name"), ""));
        } else if !volumes.contains(name) {
            wrong.push(Invalid { field: format!("{at}.name"), problem: Problem::NotFound(name.into()) });
        }
        if path.is_empty() {
            wrong.push(Invalid::required(format!("{at}.mountPath"), ""));
        } else if !paths.insert(path) {
            wrong.push(Invalid::value(format!("{at}.mountPath"), path, "must be unique"));
        }
    }
}

fn check_resources(resources: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    for which in ["limits", "requests"] {
        for (resource, amount) in resources[which].as_object().into_iter().flatten() {
            if is_enough(wrong) {
                return;
            }
            let field = format!("{at}.resources.{which}[{resource}]");
            match thousandths(amount) {
                None => {
                    let why =
                        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                    wrong.push(Invalid::value(field, amount.clone(), why));
                }
                Some(..0) => wrong.push(Invalid::value(field, amount.clone(), "must be greater than or equal to 0")),
                Some(_) => {}
            }
        }
    }
    for (resource, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][resource];
        if let (Some(requested), Some(limited)) = (thousandths(request), thousandths(limit))
            && requested > limited
        {
            let limit = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
            let why = format!("must be less than or equal to {resource} limit of {limit}");
            wrong.push(Invalid::value(format!("{at}.resources.requests"), request.clone(), why));
        }
    }
}

fn check_probe(probe: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let Some(fields) = probe.as_object() else { return };
    let handlers =
        ["exec", "grpc", "httpGet", "tcpSocket"].iter().filter(|h| fields.get(**h).is_some_and(Value::is_object));
    match handlers.count() {
        0 => wrong.push(Invalid::required(at, "must specify a handler type")),
        1 => {}
        _ => wrong.push(Invalid::forbidden(at, "may not specify more than 1 handler type")),
    }
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(number) = probe[field].as_i64().filter(|number| *number < 0) {
            wrong.push(Invalid::value(format!("{at}.{field}"), number, "must be greater than or equal to 0"));
        }
    }
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
    fn images_that_may_have_changed_are_always_pulled() {
        let cases = [
            ("a", true),
            ("r:5000/a", true),
            ("a:latest", true),
            ("a:v1", false),
            ("a@sha256:00", false),
            ("a:latest@sha256:00", false),
        ];
        for (image, expected) in cases {
            assert_eq!(always_pulled(image), expected, "{image}");
        }
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
