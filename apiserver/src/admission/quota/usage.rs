//! What an object uses of what a namespace may hold, under the names that ResourceQuotas give it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    builtin::{pod, quantity::Amount},
    kinds::{Kind, Kinds},
};

/// Amounts by name: `pods`, `requests.cpu`, `count/minersets.apps.onex.io`.
pub type Usage = BTreeMap<String, Amount>;

/// What a container may be made to say by a quota.
const DEMANDED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
/// Kinds of the core whose number has a name without `count/`.
const NAMED: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];

/// The name under which objects of a kind are counted.
pub fn counted(kind: &Kind) -> String {
    match kind.group.as_str() {
        "" => format!("count/{}", kind.plural),
        group => format!("count/{}.{group}", kind.plural),
    }
}

/// Nobody counts these: they come and go by themselves.
pub fn is_exempt(kind: &Kind) -> bool {
    kind.kind == "Event" && matches!(kind.group.as_str(), "" | "events.k8s.io")
}

/// What says more about itself than that it is there.
pub fn is_measured(kind: &Kind) -> bool {
    kind.group.is_empty() && matches!(kind.plural.as_str(), "pods" | "services" | "persistentvolumeclaims")
}

/// Adds what `number` objects of the kind use by being there.
pub fn count(kind: &Kind, number: usize, usage: &mut Usage) {
    usage.insert(counted(kind), Amount::whole(number));
    // Pods that are over are there, and not counted as Pods.
    if kind.group.is_empty() && kind.plural != "pods" && NAMED.contains(&kind.plural.as_str()) {
        usage.insert(kind.plural.clone(), Amount::whole(number));
    }
}

/// What one object uses.
pub fn of(kind: &Kind, object: &Value, now: i64) -> Usage {
    let mut usage = Usage::new();
    count(kind, 1, &mut usage);
    measure(kind, object, now, &mut usage);
    usage
}

/// Adds what one object uses besides being there.
pub fn measure(kind: &Kind, object: &Value, now: i64, usage: &mut Usage) {
    if !is_measured(kind) {
        return;
    }
    match kind.plural.as_str() {
        "pods" if is_over(object, now) => {}
        "pods" => {
            add(usage, "pods", Amount::whole(1));
            for (name, amount) in of_pod(object) {
                add(usage, &name, amount);
            }
        }
        "services" => measure_service(&object["spec"], usage),
        _ => measure_claim(object, usage),
    }
}

/// Adds one usage to another.
pub fn plus(usage: &mut Usage, other: &Usage) {
    for (name, amount) in other {
        add(usage, name, *amount);
    }
}

fn add(usage: &mut Usage, name: &str, amount: Amount) {
    match usage.get_mut(name) {
        Some(sum) => *sum = sum.plus(amount),
        None => {
            usage.insert(name.to_owned(), amount);
        }
    }
}

fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map_or(&[], Vec::as_slice)
}

/// The Pod runs no more, or should not.
fn is_over(pod: &Value, now: i64) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let meta = &pod["metadata"];
    // The time of a deletion is its end: the grace is within.
    crate::table::seconds(&meta["deletionTimestamp"]).is_some_and(|end| {
        let grace = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        now > end.saturating_add(grace)
    })
}

/// What the Pod asks for, under the names of quotas.
fn of_pod(pod: &Value) -> Usage {
    let mut usage = Usage::new();
    name_demands(&demands(pod, "requests"), &demands(pod, "limits"), &mut usage);
    usage
}

fn name_demands(requests: &Usage, limits: &Usage, usage: &mut Usage) {
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                usage.insert(name.clone(), *amount);
                usage.insert(format!("requests.{name}"), *amount);
            }
            _ if name.starts_with("hugepages-") => {
                usage.insert(name.clone(), *amount);
                usage.insert(format!("requests.{name}"), *amount);
            }
            _ if name.contains('/') => {
                usage.insert(format!("requests.{name}"), *amount);
            }
            _ => {}
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
}

/// What the whole Pod requests, or what it is limited to: what its containers do together, or what one does that comes before
/// them, and what it costs besides.
pub fn demands(pod: &Value, which: &str) -> Usage {
    let spec = &pod["spec"];
    let mut together = Usage::new();
    for container in list(spec, "containers") {
        plus(&mut together, &amounts(&container["resources"][which]));
    }
    let (mut before, mut sidecars) = (Usage::new(), Usage::new());
    for container in list(spec, "initContainers") {
        let own = amounts(&container["resources"][which]);
        if container["restartPolicy"] == "Always" {
            plus(&mut together, &own);
            plus(&mut sidecars, &own);
            most(&mut before, &sidecars);
        } else {
            let mut at_once = own;
            plus(&mut at_once, &sidecars);
            most(&mut before, &at_once);
        }
    }
    most(&mut together, &before);
    // What is said of the Pod as a whole counts instead.
    for (name, amount) in amounts(&spec["resources"][which]) {
        together.insert(name, amount);
    }
    for (name, amount) in amounts(&spec["overhead"]) {
        if which == "requests" || together.contains_key(&name) {
            add(&mut together, &name, amount);
        }
    }
    together
}

fn most(usage: &mut Usage, other: &Usage) {
    for (name, amount) in other {
        let sum = usage.entry(name.clone()).or_default();
        *sum = sum.or_more(*amount);
    }
}

/// The amounts of a map of quantities.
pub fn amounts(quantities: &Value) -> Usage {
    let quantities = quantities.as_object().into_iter().flatten();
    quantities.filter_map(|(name, amount)| Some((name.clone(), Amount::read(amount)?))).collect()
}

fn measure_service(spec: &Value, usage: &mut Usage) {
    let ports = list(spec, "ports");
    let open = match spec["type"].as_str() {
        Some("NodePort") => ports.len(),
        Some("LoadBalancer") => {
            add(usage, "services.loadbalancers", Amount::whole(1));
            let given = || ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count();
            if spec["allocateLoadBalancerNodePorts"] == false { given() } else { ports.len() }
        }
        _ => return,
    };
    add(usage, "services.nodeports", Amount::whole(open));
}

fn measure_claim(claim: &Value, usage: &mut Usage) {
    let class = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = class.or(claim["spec"]["storageClassName"].as_str()).unwrap_or_default();
    let within = |name: &str| format!("{class}.storageclass.storage.k8s.io/{name}");
    if !class.is_empty() {
        add(usage, &within("persistentvolumeclaims"), Amount::whole(1));
    }
    let asked = Amount::read(&claim["spec"]["resources"]["requests"]["storage"]);
    let given = Amount::read(&claim["status"]["allocatedResources"]["storage"]);
    if let Some(asked) = asked {
        let storage = given.map_or(asked, |given| asked.or_more(given));
        add(usage, "requests.storage", storage);
        if !class.is_empty() {
            add(usage, &within("requests.storage"), storage);
        }
    }
}

/// The kind that a name of a quota counts; nothing if no such kind is served.
pub fn kind_of(kinds: &Kinds, name: &str) -> Option<std::sync::Arc<Kind>> {
    let (plural, group) = match name.strip_prefix("count/") {
        Some(resource) => resource.split_once('.').unwrap_or((resource, "")),
        None if NAMED.contains(&name) => (name, ""),
        None if name.starts_with("services.") => ("services", ""),
        None if name == "requests.storage" || name.contains(".storageclass.storage.k8s.io/") => {
            ("persistentvolumeclaims", "")
        }
        None => ("pods", ""),
    };
    let table = kinds.table();
    let found = table.kinds.iter().find(|kind| kind.plural == plural && kind.group == group && kind.namespaced);
    found.filter(|kind| kind.review.is_none()).cloned()
}

/// What a quota that limits these demands of each container, and is not said: `limits.cpu for: a,b; limits.memory for: a`.
pub fn unsaid<'a>(pod: &Value, limited: impl Iterator<Item = &'a str>) -> Option<String> {
    let containers = || ["containers", "initContainers"].into_iter().flat_map(|part| list(&pod["spec"], part));
    let said = |container: &Value| {
        let resources = &container["resources"];
        let mut usage = Usage::new();
        name_demands(&amounts(&resources["requests"]), &amounts(&resources["limits"]), &mut usage);
        usage
    };
    let whole = said(&pod["spec"]);
    let mut missing = Vec::new();
    for name in limited.filter(|name| DEMANDED.contains(name) && !whole.contains_key(*name)) {
        let silent = containers().filter(|container| !said(container).contains_key(name));
        let mut names: Vec<_> = silent.map(|container| container["name"].as_str().unwrap_or_default()).collect();
        if !names.is_empty() {
            names.sort_unstable();
            missing.push(format!("{name} for: {}", names.join(",")));
        }
    }
    missing.sort();
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// Whether an object is what the scopes of a quota speak of. Only Pods are.
pub fn is_in_scope(spec: &Value, kind: &Kind, object: &Value) -> bool {
    let requirements = list(&spec["scopeSelector"], "matchExpressions");
    let scopes = list(spec, "scopes");
    if scopes.is_empty() && requirements.is_empty() {
        return true;
    }
    let is_pod = kind.group.is_empty() && kind.plural == "pods";
    let exists = Value::Null;
    is_pod
        && scopes.iter().all(|scope| has_scope(object, scope.as_str().unwrap_or_default(), &exists))
        && requirements.iter().all(|one| has_scope(object, one["scopeName"].as_str().unwrap_or_default(), one))
}

fn has_scope(pod: &Value, scope: &str, requirement: &Value) -> bool {
    let spec = &pod["spec"];
    match scope {
        "Terminating" => spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0),
        "NotTerminating" => spec["activeDeadlineSeconds"].as_i64().is_none_or(|seconds| seconds < 0),
        "BestEffort" => pod::quality(spec) == "BestEffort",
        "NotBestEffort" => pod::quality(spec) != "BestEffort",
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().filter(|class| !class.is_empty());
            let named = || list(requirement, "values").iter().any(|value| value.as_str() == class);
            match requirement["operator"].as_str() {
                Some("In") => class.is_some() && named(),
                Some("NotIn") => class.is_none() || !named(),
                Some("DoesNotExist") => class.is_none(),
                _ => class.is_some(),
            }
        }
        "CrossNamespacePodAffinity" => is_drawn_elsewhere(&spec["affinity"]),
        _ => false,
    }
}

/// The Pod wants to be near, or far from, Pods of other namespaces.
fn is_drawn_elsewhere(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().map(|which| &affinity[which]).any(|affinity| {
        let required = list(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = list(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter();
        let mut terms = required.chain(preferred.map(|preferred| &preferred["podAffinityTerm"]));
        terms.any(|term| !list(term, "namespaces").is_empty() || term["namespaceSelector"].is_object())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(plural: &str) -> Kind {
        crate::builtin::kinds().into_iter().find(|kind| kind.plural == plural).expect("it is compiled in")
    }

    fn shown(plural: &str, object: &Value) -> String {
        let usage = of(&kind(plural), object, 1000);
        usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pod_uses_what_its_containers_ask_for_together() {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu, "example.com/gpu": 1}, "limits": {"cpu": cpu}});
        let mut pod = json!({"spec": {
            "containers": [{"resources": resources("200m")}, {"resources": resources("300m")}],
            "initContainers": [
                {"resources": resources("100m"), "restartPolicy": "Always"},
                {"resources": resources("800m")},
            ],
        }});
        let used = "count/pods=1 cpu=900m limits.cpu=900m pods=1 requests.cpu=900m requests.example.com/gpu=3";
        assert_eq!(shown("pods", &pod), used);
        pod["status"] = json!({"phase": "Failed"});
        assert_eq!(shown("pods", &pod), "count/pods=1");
        pod["status"] = json!({"phase": "Running"});
        let at = |seconds: i64| jiff::Timestamp::from_second(seconds).expect("a time").to_string();
        pod["metadata"] = json!({"deletionTimestamp": at(980), "deletionGracePeriodSeconds": 30});
        assert_eq!(shown("pods", &pod), used);
        pod["metadata"] = json!({"deletionTimestamp": at(960), "deletionGracePeriodSeconds": 30});
        assert_eq!(shown("pods", &pod), "count/pods=1");
    }

    #[test]
    fn services_open_ports_and_claims_take_space() {
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            shown("services", &service),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2"
        );
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
        assert_eq!(
            shown("persistentvolumeclaims", &claim),
            "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             fast.storageclass.storage.k8s.io/requests.storage=2Gi persistentvolumeclaims=1 requests.storage=2Gi"
        );
        assert_eq!(shown("minersets", &json!({})), "count/minersets.apps.onex.io=1");
        assert_eq!(shown("secrets", &json!({})), "count/secrets=1 secrets=1");
    }

    #[test]
    fn every_name_of_a_quota_leads_to_the_kind_that_it_counts() {
        let kinds = Kinds::new(crate::builtin::kinds());
        let plural = |name: &str| kind_of(&kinds, name).map(|kind| kind.plural.clone());
        let cases = [
            ("pods", "pods"),
            ("limits.memory", "pods"),
            ("requests.example.com/gpu", "pods"),
            ("services.nodeports", "services"),
            ("requests.storage", "persistentvolumeclaims"),
            ("fast.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims"),
            ("count/minersets.apps.onex.io", "minersets"),
            ("count/deployments.apps", "deployments"),
            ("secrets", "secrets"),
        ];
        for (name, expected) in cases {
            assert_eq!(plural(name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(plural("count/horses.example.com"), None);
        assert_eq!(plural("count/nodes"), None);
    }

    #[test]
    fn containers_say_what_is_limited() {
        let said = json!({"limits": {"cpu": 1}, "requests": {"cpu": 1}});
        let pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}, {"name": "c", "resources": said}]}});
        let limited = ["pods", "limits.cpu", "requests.memory"];
        assert_eq!(
            unsaid(&pod, limited.into_iter()).as_deref(),
            Some("limits.cpu for: a,b; requests.memory for: a,b,c")
        );
        assert_eq!(unsaid(&pod, ["pods", "requests.example.com/gpu"].into_iter()), None);
    }

    #[test]
    fn scopes_choose_pods() {
        let pod = json!({"spec": {"containers": [{"name": "c"}], "priorityClassName": "high"}});
        let (pods, secrets) = (kind("pods"), kind("secrets"));
        let scoped = |scope: &str| is_in_scope(&json!({"scopes": [scope]}), &pods, &pod);
        assert!(scoped("BestEffort") && scoped("NotTerminating") && scoped("PriorityClass"));
        assert!(!scoped("NotBestEffort") && !scoped("Terminating") && !scoped("CrossNamespacePodAffinity"));
        assert!(!is_in_scope(&json!({"scopes": ["BestEffort"]}), &secrets, &json!({})));
        assert!(is_in_scope(&json!({}), &secrets, &json!({})));
        let chosen = |operator: &str, values: &[&str]| {
            let one = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            is_in_scope(&json!({"scopeSelector": {"matchExpressions": [one]}}), &pods, &pod)
        };
        assert!(chosen("In", &["high"]) && chosen("NotIn", &["low"]) && chosen("Exists", &[]));
        assert!(!chosen("In", &["low"]) && !chosen("NotIn", &["high"]) && !chosen("DoesNotExist", &[]));
        let near = json!({"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]});
        let pod = json!({"spec": {"affinity": {"podAntiAffinity": near}}});
        assert!(is_in_scope(&json!({"scopes": ["CrossNamespacePodAffinity"]}), &pods, &pod));
    }
}
