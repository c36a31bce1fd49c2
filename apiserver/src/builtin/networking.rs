//! networking: Ingresses and their classes, NetworkPolicies, and the addresses of Services.

use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};
use onex_crds::{Invalid, Problem};
use serde_json::{Map, Value, json};

use super::{
    fill, items, kubernetes, list, object, refuse, refuse_change, refuse_port, refuse_unsupported,
    templates::{check_label_selector, selector},
    text,
};
use crate::{
    kinds::{Cell, Hooks, Kind},
    meta,
    status::is_enough,
    table::{age_column, column, name_column, path},
};

const NONE: &str = "<none>";

/// The kinds of the group.
pub fn kinds() -> Vec<Kind> {
    vec![ingress_class(), ingress(), ip_address(), network_policy(), service_cidr()]
}

fn ingress() -> Kind {
    let mut kind = kubernetes::<Ingress>("ingresses", &["ing"]);
    kind.prefix = "/registry/ingress/".to_owned();
    kind.status = true;
    kind.generation = true;
    kind.columns = vec![
        name_column(),
        column(
            "Class",
            "string",
            "Who serves it.",
            Cell::Function(|ingress, _| ingress["spec"]["ingressClassName"].as_str().unwrap_or(NONE).into()),
        ),
        column("Hosts", "string", "The hosts that it is for.", Cell::Function(|ingress, _| hosts(ingress).into())),
        column("Address", "string", "Where it is reached.", Cell::Function(|ingress, _| addresses(ingress).into())),
        column(
            "Ports",
            "string",
            "The ports that are open.",
            Cell::Function(|i, _| if list(&i["spec"], "tls").is_empty() { "80" } else { "80, 443" }.into()),
        ),
        age_column(),
    ];
    kind.hooks = Hooks {
        check: check_ingress,
        prepare: |ingress, old| {
            if old.is_none() {
                ingress["status"] = json!({"loadBalancer": {}});
            }
        },
        ..Hooks::default()
    };
    kind
}

/// The first three hosts, and how many more rules there are.
fn hosts(ingress: &Value) -> String {
    let rules = list(&ingress["spec"], "rules");
    let named: Vec<&str> = rules.iter().map(|rule| text(rule, "host")).filter(|host| !host.is_empty()).collect();
    match named.len() {
        0 => "*".to_owned(),
        4.. => format!("{} + {} more...", named[..3].join(","), rules.len() - 3),
        _ => named.join(","),
    }
}

fn addresses(ingress: &Value) -> String {
    let points = list(&ingress["status"]["loadBalancer"], "ingress").iter();
    let mut found: Vec<&str> = points
        .map(|point| match text(point, "ip") {
            "" => text(point, "hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    found.sort_unstable();
    found.dedup();
    found.join(",")
}

fn check_ingress(ingress: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &ingress["spec"];
    let rules = list(spec, "rules");
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        wrong.push(Invalid::printed("spec", "null", why));
    }
    if !spec["defaultBackend"].is_null() {
        check_backend(&spec["defaultBackend"], "spec.defaultBackend", &mut wrong);
    }
    for (index, rule) in rules.iter().enumerate() {
        if is_enough(&wrong) {
            return wrong;
        }
        check_rule(rule, &format!("spec.rules[{index}]"), &mut wrong);
    }
    for (index, tls) in list(spec, "tls").iter().enumerate() {
        for (host_index, host) in list(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
            if is_enough(&wrong) {
                return wrong;
            }
            check_host(host, &format!("spec.tls[{index}].hosts[{host_index}]"), &mut wrong);
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        refuse("spec.ingressClassName", class, meta::dns_subdomain(class), &mut wrong);
    }
    wrong
}

fn check_host(host: &str, at: &str, wrong: &mut Vec<Invalid>) {
    if host.contains('*') {
        let rest = host.strip_prefix("*.").unwrap_or(host);
        if rest.contains('*') || !meta::dns_subdomain(rest).is_empty() {
            let why = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
                       consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character \
                       (e.g. '*.example.com', regex used for validation is \
                       '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
            wrong.push(Invalid::value(at, host, why));
        }
    } else {
        refuse(at, host, meta::dns_subdomain(host), wrong);
    }
}

fn check_rule(rule: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let host = text(rule, "host");
    if !host.is_empty() {
        if host.parse::<std::net::IpAddr>().is_ok() {
            wrong.push(Invalid::value(format!("{at}.host"), host, "must be a DNS name, not an IP address"));
        }
        check_host(host, &format!("{at}.host"), wrong);
    }
    if !rule["http"].is_object() {
        return;
    }
    let paths = list(&rule["http"], "paths");
    if paths.is_empty() {
        wrong.push(Invalid::required(format!("{at}.http.paths"), ""));
    }
    for (index, path) in paths.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        check_path(path, &format!("{at}.http.paths[{index}]"), wrong);
    }
}

fn check_path(path: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let written = text(path, "path");
    let mut refuse_path = |why: String| wrong.push(Invalid::value(format!("{at}.path"), written, why));
    match text(path, "pathType") {
        "" => return wrong.push(Invalid::required(format!("{at}.pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !written.starts_with('/') {
                refuse_path("must be an absolute path".to_owned());
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| written.contains(**part)) {
                refuse_path(format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|end| written.ends_with(**end)) {
                refuse_path(format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !written.is_empty() && !written.starts_with('/') {
                refuse_path("must be an absolute path".to_owned());
            }
        }
        other => {
            let known = ["Exact", "ImplementationSpecific", "Prefix"];
            wrong.push(Invalid::not_supported(format!("{at}.pathType"), other, &known));
        }
    }
    check_backend(&path["backend"], &format!("{at}.backend"), wrong);
}

fn check_backend(backend: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_object(), resource.is_object()) {
        (true, true) => wrong.push(Invalid::value(at, "", "cannot set both resource and service backends")),
        (false, false) => wrong.push(Invalid::value(at, "", "resource or service backend is required")),
        (false, true) => {
            for field in ["kind", "name"].iter().filter(|field| text(resource, field).is_empty()) {
                wrong.push(Invalid::required(format!("{at}.resource.{field}"), ""));
            }
        }
        (true, false) => {
            let name = text(service, "name");
            if name.is_empty() {
                wrong.push(Invalid::required(format!("{at}.service.name"), ""));
            } else {
                refuse(&format!("{at}.service.name"), name, meta::dns_1035_label(name), wrong);
            }
            let (port, number) = (text(&service["port"], "name"), service["port"]["number"].as_i64().unwrap_or(0));
            match (port.is_empty(), number) {
                (true, 0) => wrong.push(Invalid::required(at, "port name or number is required")),
                (true, _) => refuse_port(&format!("{at}.service.port.number"), &service["port"]["number"], wrong),
                (false, 0) => refuse(&format!("{at}.service.port.name"), port, meta::port_name(port), wrong),
                (false, _) => wrong.push(Invalid::value(at, "", "cannot set both port name & port number")),
            }
        }
    }
}

fn ingress_class() -> Kind {
    let mut kind = kubernetes::<IngressClass>("ingressclasses", &[]);
    kind.namespaced = false;
    kind.generation = true;
    kind.columns = vec![
        name_column(),
        column("Controller", "string", "Who serves the class.", path(".spec.controller")),
        column(
            "Parameters",
            "string",
            "What else the controller is told.",
            Cell::Function(|class, _| parameters(&class["spec"]["parameters"]).into()),
        ),
        age_column(),
    ];
    kind.hooks = Hooks {
        fill: |class| {
            if let Some(parameters) = class.pointer_mut("/spec/parameters").and_then(Value::as_object_mut) {
                fill(parameters, "scope", "Cluster");
            }
        },
        check: check_class,
        ..Hooks::default()
    };
    kind
}

fn parameters(parameters: &Value) -> String {
    if parameters.is_null() {
        return NONE.to_owned();
    }
    let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
    format!("{}{group}/{}", text(parameters, "kind"), text(parameters, "name"))
}

fn check_class(class: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let controller = text(&class["spec"], "controller");
    if controller.len() > 250 {
        wrong.push(Invalid { field: "spec.controller".to_owned(), problem: Problem::TooLong(250) });
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => wrong.push(Invalid::required("spec.controller", "")),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            refuse("spec.controller", domain, meta::dns_subdomain(domain), &mut wrong);
        }
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            wrong.push(Invalid::value("spec.controller", controller, why));
        }
    }
    let parameters = &class["spec"]["parameters"];
    if parameters.is_object() {
        for field in ["kind", "name"].iter().filter(|field| text(parameters, field).is_empty()) {
            wrong.push(Invalid::required(format!("spec.parameters.{field}"), ""));
        }
        let scope = text(parameters, "scope");
        refuse_unsupported("spec.parameters.scope", scope, &["Cluster", "Namespace"], &mut wrong);
    }
    if let Some(old) = old {
        refuse_change("spec.controller", &class["spec"]["controller"], &old["spec"]["controller"], &mut wrong);
    }
    wrong
}

fn network_policy() -> Kind {
    let mut kind = kubernetes::<NetworkPolicy>("networkpolicies", &["netpol"]);
    kind.generation = true;
    kind.columns = vec![
        name_column(),
        column(
            "Pod-Selector",
            "string",
            "The Pods that it is about.",
            Cell::Function(|policy, _| selector(&policy["spec"]["podSelector"]).into()),
        ),
        age_column(),
    ];
    kind.hooks = Hooks { fill: fill_policy, check: check_policy, ..Hooks::default() };
    kind
}

fn fill_policy(policy: &mut Value) {
    let Some(spec) = policy.as_object_mut().and_then(|policy| object(policy, "spec")) else { return };
    for direction in ["ingress", "egress"] {
        items(spec, direction).for_each(|rule| items(rule, "ports").for_each(|port| fill(port, "protocol", "TCP")));
    }
    let has = |spec: &Map<String, Value>, field: &str| {
        spec.get(field).and_then(Value::as_array).is_some_and(|l| !l.is_empty())
    };
    if !has(spec, "policyTypes") {
        let types = if has(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
    object(spec, "podSelector");
}

fn check_policy(policy: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &policy["spec"];
    check_label_selector(&spec["podSelector"], "spec.podSelector", &mut wrong);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(spec, direction).iter().enumerate() {
            let at = format!("spec.{direction}[{index}]");
            for (index, port) in list(rule, "ports").iter().enumerate() {
                if is_enough(&wrong) {
                    return wrong;
                }
                check_policy_port(port, &format!("{at}.ports[{index}]"), &mut wrong);
            }
            for (index, peer) in list(rule, peers).iter().enumerate() {
                if is_enough(&wrong) {
                    return wrong;
                }
                check_peer(peer, &format!("{at}.{peers}[{index}]"), &mut wrong);
            }
        }
    }
    for (index, kind) in list(spec, "policyTypes").iter().filter_map(Value::as_str).enumerate() {
        refuse_unsupported(&format!("spec.policyTypes[{index}]"), kind, &["Ingress", "Egress"], &mut wrong);
    }
    wrong
}

fn check_policy_port(port: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    refuse_unsupported(&format!("{at}.protocol"), text(port, "protocol"), &["TCP", "UDP", "SCTP"], wrong);
    let end = &port["endPort"];
    match &port["port"] {
        Value::Number(number) => {
            refuse_port(&format!("{at}.port"), &port["port"], wrong);
            if let Some(end) = end.as_i64()
                && number.as_i64().is_some_and(|number| end < number)
            {
                let why = "must be greater than or equal to `port`";
                wrong.push(Invalid::value(format!("{at}.endPort"), port["port"].clone(), why));
            }
        }
        Value::String(name) => {
            if !end.is_null() {
                let why = "may not be specified when `port` is non-numeric";
                wrong.push(Invalid::value(format!("{at}.endPort"), end.clone(), why));
            }
            refuse(&format!("{at}.port"), name, meta::port_name(name), wrong);
        }
        _ if !end.is_null() => {
            let why = "may not be specified when `port` is not specified";
            wrong.push(Invalid::value(format!("{at}.endPort"), end.clone(), why));
        }
        _ => {}
    }
}

fn check_peer(peer: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let selectors = ["podSelector", "namespaceSelector"];
    let selects = selectors.iter().any(|field| !peer[*field].is_null());
    for field in selectors {
        check_label_selector(&peer[field], &format!("{at}.{field}"), wrong);
    }
    if peer["ipBlock"].is_null() {
        if !selects {
            wrong.push(Invalid::required(at, "must specify a peer"));
        }
        return;
    }
    if selects {
        wrong.push(Invalid::forbidden(at, "may not specify both ipBlock and another peer"));
    }
    check_cidr(text(&peer["ipBlock"], "cidr"), &format!("{at}.ipBlock.cidr"), wrong);
}

fn check_cidr(cidr: &str, at: &str, wrong: &mut Vec<Invalid>) {
    let valid = cidr.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    if cidr.is_empty() {
        wrong.push(Invalid::required(at, ""));
    } else if !valid {
        wrong.push(Invalid::value(at, cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
    }
}

fn ip_address() -> Kind {
    let mut kind = kubernetes::<IPAddress>("ipaddresses", &["ip"]);
    kind.namespaced = false;
    kind.columns = vec![
        name_column(),
        column(
            "ParentRef",
            "string",
            "Whose the address is.",
            Cell::Function(|address, _| parent(&address["spec"]["parentRef"]).into()),
        ),
    ];
    kind.hooks = Hooks { check: check_address, ..Hooks::default() };
    kind
}

fn parent(reference: &Value) -> String {
    if reference.is_null() {
        return NONE.to_owned();
    }
    let group = Some(text(reference, "group")).filter(|group| !group.is_empty()).map(|group| format!(".{group}"));
    let parts = [text(reference, "namespace"), text(reference, "name")];
    let mut shown = format!("{}{}", text(reference, "resource"), group.unwrap_or_default()).to_lowercase();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        shown.push('/');
        shown.push_str(part);
    }
    shown
}

fn check_address(address: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let name = text(&address["metadata"], "name");
    if name.parse::<std::net::IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        wrong.push(Invalid::value("metadata.name", name, why));
    }
    let reference = &address["spec"]["parentRef"];
    if reference.is_null() {
        wrong.push(Invalid::required("spec.parentRef", ""));
    } else {
        for field in ["resource", "name"].iter().filter(|field| text(reference, field).is_empty()) {
            wrong.push(Invalid::required(format!("spec.parentRef.{field}"), ""));
        }
    }
    if let Some(old) = old {
        refuse_change("spec.parentRef", reference, &old["spec"]["parentRef"], &mut wrong);
    }
    wrong
}

fn service_cidr() -> Kind {
    let mut kind = kubernetes::<ServiceCIDR>("servicecidrs", &[]);
    kind.namespaced = false;
    kind.status = true;
    kind.columns = vec![
        name_column(),
        column(
            "CIDRs",
            "string",
            "The ranges of addresses.",
            Cell::Function(|ranges, _| {
                let ranges = list(&ranges["spec"], "cidrs").iter().filter_map(Value::as_str);
                ranges.collect::<Vec<_>>().join(",").into()
            }),
        ),
        age_column(),
    ];
    kind.hooks = Hooks {
        check: check_ranges,
        prepare: |ranges, old| {
            if old.is_none() {
                ranges["status"] = json!({});
            }
        },
        ..Hooks::default()
    };
    kind
}

fn check_ranges(ranges: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let cidrs = list(&ranges["spec"], "cidrs");
    if cidrs.is_empty() {
        wrong.push(Invalid::required("spec.cidrs", "at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        let why = "must only hold 2 values";
        wrong.push(Invalid::value("spec.cidrs", ranges["spec"]["cidrs"].clone(), why));
    }
    for (index, cidr) in cidrs.iter().take(2).filter_map(Value::as_str).enumerate() {
        check_cidr(cidr, &format!("spec.cidrs[{index}]"), &mut wrong);
    }
    if let Some(old) = old {
        refuse_change("spec.cidrs", &ranges["spec"]["cidrs"], &old["spec"]["cidrs"], &mut wrong);
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};
    use crate::table::printed;

    fn complaints(kind: &Kind, object: Value) -> Vec<String> {
        (kind.hooks.check)(&object, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_ingress_leads_somewhere() {
        let service = json!({"service": {"name": "web", "port": {"number": 80}}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": service});
        let spec = json!({"ingressClassName": "n", "rules": [{"host": "a.example", "http": {"paths": [path]}}]});
        let good = json!({"metadata": {"name": "i"}, "spec": spec});
        assert!(complaints(&ingress(), good.clone()).is_empty());
        assert_eq!(
            complaints(&ingress(), json!({"spec": {}})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        let mut bad = good.clone();
        bad["spec"]["rules"][0]["host"] = json!("10.0.0.1");
        bad["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!("a//b");
        bad["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"] = json!({"name": "", "port": {}});
        assert_eq!(
            complaints(&ingress(), bad),
            [
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
                "spec.rules[0].http.paths[0].backend.service.name: Required value",
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
            ]
        );
        assert_eq!(
            printed(&ingress(), &[good], 0),
            "Name | Class | Hosts | Address | Ports | Age\ni | n | a.example |  | 80 | <unknown>"
        );
    }

    #[test]
    fn a_class_names_its_controller_for_good() {
        let class = |controller: &str| json!({"spec": {"controller": controller}});
        assert!(complaints(&ingress_class(), class("a.io/b")).is_empty());
        assert_eq!(complaints(&ingress_class(), class("a")).len(), 1);
        assert_eq!(check_class(&class("a.io/c"), Some(&class("a.io/b"))).len(), 1);
    }

    #[test]
    fn a_policy_is_about_what_comes_in_and_what_goes_out_if_it_says_so() {
        let kinds = |spec: Value| filled(&network_policy(), json!({ "spec": spec }))["spec"]["policyTypes"].clone();
        assert_eq!(kinds(json!({})), json!(["Ingress"]));
        assert_eq!(kinds(json!({"egress": [{}]})), json!(["Ingress", "Egress"]));
        assert_eq!(
            complaints(
                &network_policy(),
                json!({"spec": {"ingress": [{"from": [{}, {"ipBlock": {"cidr": "x"}}], "ports": [{"port": 0}]}]}})
            ),
            [
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].from[1].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or \
                 2001:db8::/64)",
            ]
        );
    }

    #[test]
    fn addresses_are_addresses_and_ranges_are_ranges() {
        let reference = json!({"resource": "services", "namespace": "a", "name": "s"});
        let address = json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": reference}});
        assert!(complaints(&ip_address(), address.clone()).is_empty());
        assert_eq!(printed(&ip_address(), &[address], 0), "Name | ParentRef\n10.0.0.1 | services/a/s");
        assert_eq!(complaints(&ip_address(), json!({"metadata": {"name": "x"}})).len(), 2);
        assert!(complaints(&service_cidr(), json!({"spec": {"cidrs": ["10.0.0.0/16"]}})).is_empty());
        assert_eq!(complaints(&service_cidr(), json!({"spec": {"cidrs": ["10.0.0.0/40"]}})).len(), 1);
    }
}
