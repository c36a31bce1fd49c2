//! What is inside a Pod, or a template of Pods: the defaults, and the usual mistakes.

use std::collections::HashSet;

use onex_crds::{Invalid, Problem};
use serde_json::{Map, Value, json};

use super::{
    fill, items, list, object, pod_placement, quantity::thousandths, refuse, refuse_port, refuse_unsupported, text,
};
use crate::{meta, status::is_enough};

/// The lists of containers that a Pod has.
pub const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fills in what a Pod, or a template of Pods, leaves out. What only a Pod gets is [`super::pod`]'s.
pub fn fill_spec(spec: &mut Map<String, Value>) {
    fill(spec, "restartPolicy", "Always");
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "schedulerName", "default-scheduler");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    for (from, to) in [("serviceAccountName", "serviceAccount"), ("serviceAccount", "serviceAccountName")] {
        if let Some(account) = spec.get(from).filter(|account| *account != "").cloned() {
            fill(spec, to, account);
        }
    }
    for containers in CONTAINERS {
        items(spec, containers).for_each(fill_container);
    }
    items(spec, "volumes").for_each(fill_volume);
}

pub fn fill_container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if always_pulled(image) { "Always" } else { "IfNotPresent" };
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        fill(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        if let Some(reference) =
            variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")).and_then(Value::as_object_mut)
        {
            fill(reference, "apiVersion", "v1");
        }
        if let Some(reference) = variable
            .get_mut("valueFrom")
            .and_then(|from| from.get_mut("resourceFieldRef"))
            .and_then(Value::as_object_mut)
        {
            fill(reference, "divisor", "0");
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
    object(container, "resources");
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

/// A reference to a field of the Pod is to one of `v1`.
fn fill_reference(item: &mut Map<String, Value>) {
    if let Some(reference) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
        fill(reference, "apiVersion", "v1");
    }
}

fn fill_volume(volume: &mut Map<String, Value>) {
    if volume.iter().all(|(field, value)| field == "name" || value.is_null()) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        path.entry("type").or_insert_with(|| "".into());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            fill(source, "defaultMode", 0o644);
            items(source, "items").for_each(fill_reference);
            for projection in items(source, "sources") {
                if let Some(token) = projection.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
                    fill(token, "expirationSeconds", 3600);
                }
                if let Some(api) = projection.get_mut("downwardAPI").and_then(Value::as_object_mut) {
                    items(api, "items").for_each(fill_reference);
                }
            }
        }
    }
}

/// The usual mistakes in the spec of a Pod or of a template. Besides its own volumes, containers may mount `claims`.
pub fn check_spec(spec: &Value, at: &str, claims: &[&str], wrong: &mut Vec<Invalid>) {
    let mut volumes = check_volumes(list(spec, "volumes"), at, wrong);
    volumes.extend(claims);
    if list(spec, "containers").is_empty() {
        wrong.push(Invalid::required(format!("{at}.containers"), ""));
    }
    let mut names = HashSet::new();
    for kind in CONTAINERS {
        for (index, container) in list(spec, kind).iter().enumerate() {
            if is_enough(wrong) {
                return;
            }
            check_container(container, &format!("{at}.{kind}[{index}]"), &mut names, &volumes, wrong);
        }
    }
    let restarts = ["Always", "OnFailure", "Never"];
    refuse_unsupported(&format!("{at}.restartPolicy"), text(spec, "restartPolicy"), &restarts, wrong);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    refuse_unsupported(&format!("{at}.dnsPolicy"), text(spec, "dnsPolicy"), &policies, wrong);
    meta::check_labels(&spec["nodeSelector"], &format!("{at}.nodeSelector"), wrong);
    pod_placement::check_affinity(spec, at, wrong);
    pod_placement::check_spread(spec, at, wrong);
    for field in ["serviceAccountName", "nodeName"] {
        let name = text(spec, field);
        if !name.is_empty() {
            refuse(&format!("{at}.{field}"), name, meta::dns_subdomain(name), wrong);
        }
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let why = "must be between 1 and 2147483647, inclusive";
        wrong.push(Invalid::value(format!("{at}.activeDeadlineSeconds"), seconds, why));
    }
    for field in ["hostname", "subdomain"] {
        let name = text(spec, field);
        if !name.is_empty() {
            refuse(&format!("{at}.{field}"), name, meta::dns_label(name), wrong);
        }
    }
    pod_placement::check_tolerations(spec, at, wrong);
}

fn check_volumes<'a>(volumes: &'a [Value], at: &str, wrong: &mut Vec<Invalid>) -> HashSet<&'a str> {
    let (mut names, mut all) = (HashSet::new(), HashSet::new());
    for (index, volume) in volumes.iter().enumerate() {
        if is_enough(wrong) {
            break;
        }
        let before = wrong.len();
        check_volume(volume, &format!("{at}.volumes[{index}]"), wrong);
        let field = format!("{at}.volumes[{index}].name");
        let name = text(volume, "name");
        if wrong.len() == before {
            check_name(volume, &field, &mut names, wrong);
        } else if name.is_empty() {
            wrong.push(Invalid::required(field, ""));
        } else {
            refuse(&field, name, meta::dns_label(name), wrong);
        }
        all.insert(name); // those who mount it are right
    }
    all
}

/// A volume is of one type, which says what it needs.
fn check_volume(volume: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let sources = volume.as_object().into_iter().flatten();
    let mut sources = sources.filter(|(field, value)| *field != "name" && !value.is_null());
    let Some((source, named)) = sources.next() else { return };
    let needed = match source.as_str() {
        "configMap" => "name",
        "persistentVolumeClaim" => "claimName",
        "secret" => "secretName",
        _ => "",
    };
    if !needed.is_empty() && text(named, needed).is_empty() {
        wrong.push(Invalid::required(format!("{at}.{source}.{needed}"), ""));
    }
    let many = "may not specify more than 1 volume type";
    wrong.extend(sources.map(|(source, _)| Invalid::forbidden(format!("{at}.{source}"), many)));
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
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = text(container, "terminationMessagePolicy");
    refuse_unsupported(&format!("{at}.terminationMessagePolicy"), policy, &policies, wrong);
    let policy = text(container, "imagePullPolicy");
    refuse_unsupported(&format!("{at}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"], wrong);
    check_ports(list(container, "ports"), at, wrong);
    check_environment(list(container, "env"), at, wrong);
    for (index, source) in list(container, "envFrom").iter().enumerate() {
        if !source["configMapRef"].is_object() && !source["secretRef"].is_object() {
            let at = if index == 0 { format!("{at}.envFrom") } else { format!("{at}.envFrom[{index}]") };
            wrong.push(Invalid::value(at, "", "must specify one of: `configMapRef` or `secretRef`"));
        }
    }
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
        } else {
            check_source(&variable["valueFrom"], &format!("{at}.valueFrom"), wrong);
        }
    }
}

/// Where a variable has its value from.
fn check_source(source: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let others =
        ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
    if source["fieldRef"].is_object() {
        let (path, at) = (text(&source["fieldRef"], "fieldPath"), format!("{at}.fieldRef.fieldPath"));
        let of_map = ["metadata.annotations['", "metadata.labels['"].iter().any(|map| path.starts_with(map));
        if path.is_empty() {
            wrong.push(Invalid::required(at, ""));
        } else if others.contains(&path) {
            wrong.push(Invalid::not_supported(at, path, &FIELDS));
        } else if !of_map && !FIELDS.contains(&path) {
            let why = format!("error converting fieldPath: field label not supported: {path}");
            wrong.push(Invalid::value(at, path, why));
        }
    }
    for reference in ["configMapKeyRef", "secretKeyRef"].iter().filter(|name| source[**name].is_object()) {
        let (key, at) = (text(&source[*reference], "key"), format!("{at}.{reference}.key"));
        if key.is_empty() {
            wrong.push(Invalid::required(at, ""));
        } else {
            refuse(&at, key, meta::config_key(key), wrong);
        }
    }
}

fn check_mounts(mounts: &[Value], container: &str, volumes: &HashSet<&str>, wrong: &mut Vec<Invalid>) {
    let mut paths = HashSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{container}.volumeMounts[{index}]");
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
        for field in ["subPath", "subPathExpr"] {
            let path = text(mount, field);
            let field = format!("{container}.volumeMounts.{field}");
            if path.starts_with('/') {
                wrong.push(Invalid::value(field, path, "must be a relative path"));
            } else if path.split('/').any(|part| part == "..") {
                wrong.push(Invalid::value(field, path, "must not contain '..'"));
            }
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
            let is_standard = ["cpu", "memory", "ephemeral-storage"].contains(&resource.as_str());
            if !is_standard && !resource.contains('/') && !resource.starts_with("hugepages-") {
                for why in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for containers",
                ] {
                    wrong.push(Invalid::printed(field.as_str(), resource.as_str(), why));
                }
            }
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
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
    let mut handlers = handlers.iter().filter(|h| fields.get(**h).is_some_and(Value::is_object));
    match handlers.next() {
        None => wrong.push(Invalid::required(at, "must specify a handler type")),
        Some(&"exec") if list(&probe["exec"], "command").is_empty() => {
            wrong.push(Invalid::required(format!("{at}.exec.command"), ""));
        }
        Some(&"httpGet") => check_http(&probe["httpGet"], &format!("{at}.httpGet"), wrong),
        Some(_) => {}
    }
    let many = "may not specify more than 1 handler type";
    wrong.extend(handlers.map(|handler| Invalid::forbidden(format!("{at}.{handler}"), many)));
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(number) = probe[field].as_i64().filter(|number| *number < 0) {
            wrong.push(Invalid::value(format!("{at}.{field}"), number, "must be greater than or equal to 0"));
        }
    }
    if !at.ends_with(".readinessProbe")
        && let Some(number) = probe["successThreshold"].as_i64().filter(|number| *number > 1)
    {
        wrong.push(Invalid::value(format!("{at}.successThreshold"), number, "must be 1"));
    }
}

fn check_http(action: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    match &action["port"] {
        Value::String(name) => refuse(&format!("{at}.port"), name, meta::port_name(name), wrong),
        port => refuse_port(&format!("{at}.port"), port, wrong),
    }
    refuse_unsupported(&format!("{at}.scheme"), text(action, "scheme"), &["HTTP", "HTTPS"], wrong);
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
