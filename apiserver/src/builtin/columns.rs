//! What kubectl shows of Kubernetes' own kinds.

use serde_json::Value;

use super::{list, text};
use crate::{
    kinds::{Cell, Column},
    selector::Labels,
    table::{age_column, column, name_column, path, seconds, since, wide_column},
};

const NONE: &str = "<none>";

pub fn namespace() -> Vec<Column> {
    vec![name_column(), column("Status", "string", "Active, or Terminating.", path(".status.phase")), age_column()]
}

pub fn config_map() -> Vec<Column> {
    vec![
        name_column(),
        column(
            "Data",
            "string",
            "How many keys there are.",
            Cell::Function(|map, _| (keys(&map["data"]) + keys(&map["binaryData"])).into()),
        ),
        age_column(),
    ]
}

pub fn secret() -> Vec<Column> {
    vec![
        name_column(),
        column("Type", "string", "What kind of secret it is.", path(".type")),
        column("Data", "string", "How many keys there are.", Cell::Function(|secret, _| keys(&secret["data"]).into())),
        age_column(),
    ]
}

fn keys(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

pub fn service_account() -> Vec<Column> {
    vec![
        name_column(),
        column(
            "Secrets",
            "string",
            "How many secrets it may use.",
            Cell::Function(|account, _| list(account, "secrets").len().into()),
        ),
        age_column(),
    ]
}

pub fn endpoints() -> Vec<Column> {
    vec![
        name_column(),
        column(
            "Endpoints",
            "string",
            "The addresses that are ready.",
            Cell::Function(|object, _| addresses(object).into()),
        ),
        age_column(),
    ]
}

/// The first three addresses with their ports, and how many more there are.
fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(endpoints, "subsets") {
        for address in list(subset, "addresses") {
            let ip = text(address, "ip");
            if list(subset, "ports").is_empty() {
                all.push(ip.to_owned());
            }
            for port in list(subset, "ports") {
                let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                all.push(format!("{host}:{}", port["port"]));
            }
        }
    }
    match all.len() {
        0 => NONE.to_owned(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

pub fn service() -> Vec<Column> {
    vec![
        name_column(),
        column("Type", "string", "How the service is reached.", path(".spec.type")),
        column(
            "Cluster-IP",
            "string",
            "The address within the cluster.",
            Cell::Function(|service, _| cluster_address(service).into()),
        ),
        column(
            "External-IP",
            "string",
            "The address from outside.",
            Cell::Function(|service, _| outside_address(service).into()),
        ),
        column("Port(s)", "string", "The ports.", Cell::Function(|service, _| ports(service).into())),
        age_column(),
        wide_column(
            "Selector",
            "string",
            "The labels of the Pods behind it.",
            Cell::Function(|service, _| selector(service).into()),
        ),
    ]
}

fn cluster_address(service: &Value) -> String {
    let address = text(&service["spec"], "clusterIP");
    if address.is_empty() { NONE.to_owned() } else { address.to_owned() }
}

fn outside_address(service: &Value) -> String {
    let spec = &service["spec"];
    let texts = |values: &[Value]| values.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let mut found = texts(list(spec, "externalIPs"));
    match text(spec, "type") {
        "ExternalName" => found = texts(std::slice::from_ref(&spec["externalName"])),
        "LoadBalancer" => {
            let ingress = list(&service["status"]["loadBalancer"], "ingress");
            let balanced = ingress.iter().filter_map(|entry| entry["ip"].as_str().or(entry["hostname"].as_str()));
            found.splice(0..0, balanced.map(str::to_owned));
            if found.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => {}
    }
    if found.is_empty() { NONE.to_owned() } else { found.join(",") }
}

fn ports(service: &Value) -> String {
    let one = |port: &Value| match port["nodePort"].as_i64() {
        Some(node) if node > 0 => format!("{}:{node}/{}", port["port"], text(port, "protocol")),
        _ => format!("{}/{}", port["port"], text(port, "protocol")),
    };
    let ports: Vec<String> = list(&service["spec"], "ports").iter().map(one).collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}

fn selector(service: &Value) -> String {
    let labels = Labels::from_label_selector(&serde_json::json!({"matchLabels": service["spec"]["selector"]}));
    if labels.is_everything() { NONE.to_owned() } else { labels.to_string() }
}

pub fn node() -> Vec<Column> {
    let wide = |name, description, cell| wide_column(name, "string", description, cell);
    vec![
        name_column(),
        column("Status", "string", "Whether Pods run there.", Cell::Function(|node, _| node_status(node).into())),
        column("Roles", "string", "What the node is for.", Cell::Function(|node, _| roles(node).into())),
        age_column(),
        column("Version", "string", "The version of the node's agent.", path(".status.nodeInfo.kubeletVersion")),
        wide(
            "Internal-IP",
            "The address within the cluster.",
            Cell::Function(|node, _| node_address(node, "InternalIP").into()),
        ),
        wide(
            "External-IP",
            "The address from outside.",
            Cell::Function(|node, _| node_address(node, "ExternalIP").into()),
        ),
        wide("OS-Image", "The operating system.", Cell::Function(|node, _| about(node, "osImage").into())),
        wide("Kernel-Version", "The kernel.", Cell::Function(|node, _| about(node, "kernelVersion").into())),
        wide(
            "Container-Runtime",
            "What runs the containers.",
            Cell::Function(|node, _| about(node, "containerRuntimeVersion").into()),
        ),
    ]
}

fn node_status(node: &Value) -> String {
    let ready = list(&node["status"], "conditions").iter().find(|condition| condition["type"] == "Ready");
    let mut status = match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (label, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        if let Some(role) = label.strip_prefix("node-role.kubernetes.io/").filter(|role| !role.is_empty()) {
            roles.push(role);
        } else if label == "kubernetes.io/role" {
            roles.extend(value.as_str().filter(|role| !role.is_empty()));
        }
    }
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn node_address(node: &Value, kind: &str) -> String {
    let address = list(&node["status"], "addresses").iter().find(|address| address["type"] == kind);
    address.map_or(NONE, |address| text(address, "address")).to_owned()
}

fn about(node: &Value, field: &str) -> String {
    match text(&node["status"]["nodeInfo"], field) {
        "" => "<unknown>".to_owned(),
        known => known.to_owned(),
    }
}

/// The columns of events of both groups. They differ in the names of six fields, so each cell tries both.
pub fn event() -> Vec<Column> {
    vec![
        column("Last Seen", "string", "When it last happened.", Cell::Function(last_seen)),
        column("Type", "string", "Normal, or Warning.", path(".type")),
        column("Reason", "string", "Why, in one word.", path(".reason")),
        column("Object", "string", "What it happened to.", Cell::Function(|event, _| about_what(event).into())),
        wide_column(
            "Subobject",
            "string",
            "Which part of the object.",
            Cell::Function(|event, _| {
                either(event, "involvedObject", "regarding")["fieldPath"].as_str().unwrap_or_default().into()
            }),
        ),
        wide_column("Source", "string", "Who says so.", Cell::Function(|event, _| source(event).into())),
        column(
            "Message",
            "string",
            "What happened.",
            Cell::Function(|event, _| either(event, "message", "note").as_str().unwrap_or_default().trim().into()),
        ),
        wide_column("First Seen", "string", "When it first happened.", Cell::Function(first_seen)),
        wide_column("Count", "string", "How often it happened.", Cell::Function(|event, _| count(event).into())),
        Column { priority: 1, ..name_column() },
    ]
}

fn either<'a>(event: &'a Value, core: &str, new: &str) -> &'a Value {
    let value = &event[core];
    if value.is_null() { &event[new] } else { value }
}

fn about_what(event: &Value) -> String {
    let object = either(event, "involvedObject", "regarding");
    let kind = text(object, "kind").to_lowercase();
    match text(object, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let source = either(event, "source", "deprecatedSource");
    let (component, host) = match text(source, "component") {
        "" => (text(event, "reportingComponent"), text(event, "reportingInstance")),
        component => (component, text(source, "host")),
    };
    let component = if component.is_empty() { text(event, "reportingController") } else { component };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

fn first_seen(event: &Value, now: i64) -> Value {
    let first = either(event, "firstTimestamp", "deprecatedFirstTimestamp");
    since(if seconds(first).is_some() { first } else { &event["eventTime"] }, now).into()
}

fn last_seen(event: &Value, now: i64) -> Value {
    let last = either(event, "lastTimestamp", "deprecatedLastTimestamp");
    let series = &event["series"]["lastObservedTime"];
    if seconds(series).is_some() {
        return since(series, now).into();
    }
    if seconds(last).is_some() { since(last, now).into() } else { first_seen(event, now) }
}

fn count(event: &Value) -> i64 {
    let plain = either(event, "count", "deprecatedCount").as_i64();
    event["series"]["count"].as_i64().or(plain).unwrap_or(1).max(1)
}

pub fn pod() -> Vec<Column> {
    let wide = |name, description, cell| wide_column(name, "string", description, cell);
    vec![
        name_column(),
        column(
            "Ready",
            "string",
            "Containers that are ready, of all.",
            Cell::Function(|pod, _| summary(pod).ready().into()),
        ),
        column("Status", "string", "How the Pod is.", Cell::Function(|pod, _| summary(pod).reason.into())),
        column(
            "Restarts",
            "string",
            "How often containers were restarted, and when last.",
            Cell::Function(|pod, now| summary(pod).restarts(now).into()),
        ),
        age_column(),
        wide(
            "IP",
            "The address of the Pod.",
            Cell::Function(|pod, _| or_none(pod.pointer("/status/podIPs/0/ip").or(pod.pointer("/status/podIP")))),
        ),
        wide("Node", "Where the Pod runs.", Cell::Function(|pod, _| or_none(pod.pointer("/spec/nodeName")))),
        wide(
            "Nominated Node",
            "Where the Pod may run when others have left.",
            Cell::Function(|pod, _| or_none(pod.pointer("/status/nominatedNodeName"))),
        ),
        wide(
            "Readiness Gates",
            "Conditions that hold, of those that readiness waits for.",
            Cell::Function(|pod, _| gates(pod).into()),
        ),
    ]
}

fn or_none(found: Option<&Value>) -> Value {
    found.and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or(NONE).into()
}

fn gates(pod: &Value) -> String {
    let gates = list(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = gates.iter().filter(|gate| condition(pod, text(gate, "conditionType"))).count();
    format!("{met}/{}", gates.len())
}

fn condition(pod: &Value, kind: &str) -> bool {
    list(&pod["status"], "conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
}

/// What the state of all containers comes to.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<i64>,
}

impl Summary {
    fn ready(&self) -> String {
        format!("{}/{}", self.ready, self.total)
    }

    fn restarts(&self, now: i64) -> String {
        match self.last_restart {
            Some(then) if self.restarts > 0 => {
                format!("{} ({} ago)", self.restarts, crate::table::human_duration(now - then))
            }
            _ => self.restarts.to_string(),
        }
    }

    fn count(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or_default();
        self.last_restart = self.last_restart.max(seconds(&container["lastState"]["terminated"]["finishedAt"]));
    }
}

/// The one word under STATUS. It is found as kubectl's users know it: from the first init container that is not done, or
/// else from the containers, the first one last.
fn summary(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = text(status, "phase");
    let mut summary = Summary { reason: phase.to_owned(), ..Summary::default() };
    if !text(status, "reason").is_empty() {
        summary.reason = text(status, "reason").to_owned();
    }
    if list(status, "conditions").iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    summary.total =
        list(spec, "containers").len() + list(spec, "initContainers").iter().filter(|c| is_sidecar(c)).count();
    let mut sidecars = Summary::default();
    let initializing = initialization(pod, &mut summary, &mut sidecars);
    if !initializing || condition(pod, "Initialized") {
        (summary.restarts, summary.last_restart) = (sidecars.restarts, sidecars.last_restart);
        work(pod, &mut summary);
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        if text(status, "reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// Says whether an init container is in the way, and if so, what it does.
fn initialization(pod: &Value, summary: &mut Summary, sidecars: &mut Summary) -> bool {
    let declared = list(&pod["spec"], "initContainers");
    for (index, container) in list(&pod["status"], "initContainerStatuses").iter().enumerate() {
        summary.count(container);
        let sidecar = declared.iter().any(|c| c["name"] == container["name"] && is_sidecar(c));
        if sidecar {
            sidecars.count(container);
        }
        let (ended, waiting) = (&container["state"]["terminated"], text(&container["state"]["waiting"], "reason"));
        if ended["exitCode"] == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        summary.reason = if ended.is_object() {
            format!("Init:{}", ending(ended))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", declared.len())
        };
        return true;
    }
    false
}

fn work(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for container in list(&pod["status"], "containerStatuses").iter().rev() {
        summary.count(container);
        let state = &container["state"];
        if !text(&state["waiting"], "reason").is_empty() {
            summary.reason = text(&state["waiting"], "reason").to_owned();
        } else if state["terminated"].is_object() {
            summary.reason = ending(&state["terminated"]);
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    // One container is done and another still runs: the Pod is not done.
    if summary.reason == "Completed" && running {
        summary.reason = if condition(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn ending(terminated: &Value) -> String {
    let number = |field: &str| terminated[field].as_i64().unwrap_or_default();
    match (text(terminated, "reason"), number("signal")) {
        ("", 0) => format!("ExitCode:{}", number("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
