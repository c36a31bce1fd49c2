//! Services.
//!
//! No address is allocated: nothing here would route it, and an invented one would send clients nowhere. A Service has a
//! `clusterIP` only when the user writes one (`None` makes it headless); kubectl shows `<none>` otherwise.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Service;
use onex_crds::{Invalid, Problem};
use serde_json::{Map, Value, json};

use super::{
    columns, fill, go, items, kubernetes, list, object, refuse, refuse_port, refuse_unsupported, selectable, text,
};
use crate::{
    kinds::{Hooks, Kind, Names},
    meta,
    status::is_enough,
};

/// Services.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<Service>("services", &["svc"]);
    kind.categories = vec!["all".to_owned()];
    kind.prefix = "/registry/services/specs/".to_owned();
    kind.status = true;
    kind.names = Names::Label1035;
    kind.returns_deleted = true;
    kind.create_on_update = true;
    kind.columns = columns::service();
    kind.selectable = selectable(&["spec.clusterIP", "spec.type"]);
    kind.hooks = Hooks { fill: fill_service, check, prepare, ..Hooks::default() };
    kind
}

fn fill_service(service: &mut Value) {
    let Some(spec) = service.as_object_mut().and_then(|service| object(service, "spec")) else { return };
    fill(spec, "type", "ClusterIP");
    fill(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        fill(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind.as_str()) {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if ["NodePort", "LoadBalancer"].contains(&kind.as_str()) {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in items(spec, "ports") {
        fill(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        fill(port, "targetPort", number);
    }
}

/// An address has a family, and so has one that somebody gives later. Who is found without a selector may have either.
fn fill_families(spec: &mut Map<String, Value>, kind: &str) {
    if kind == "ExternalName" {
        return;
    }
    let address = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_chosen = spec.get("selector").and_then(Value::as_object).is_some_and(|selector| !selector.is_empty());
    let (families, policy) = match address.as_str() {
        "None" if !is_chosen => (json!(["IPv4", "IPv6"]), "RequireDualStack"),
        address if address.contains(':') => (json!(["IPv6"]), "SingleStack"),
        _ => (json!(["IPv4"]), "SingleStack"),
    };
    let said = spec.get("ipFamilies").and_then(Value::as_array).map_or(0, Vec::len);
    fill(spec, "ipFamilyPolicy", if said > 1 { "RequireDualStack" } else { policy });
    if said == 0 {
        spec.insert("ipFamilies".to_owned(), families);
    }
}

/// The old field of one address, and the new list of addresses, say the same.
fn fill_addresses(spec: &mut Map<String, Value>) {
    let one = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let first = spec.get("clusterIPs").and_then(|list| list[0].as_str()).unwrap_or_default().to_owned();
    if !one.is_empty() && first.is_empty() {
        spec.insert("clusterIPs".to_owned(), json!([one]));
    } else if one.is_empty() && !first.is_empty() {
        spec.insert("clusterIP".to_owned(), first.into());
    }
}

fn prepare(service: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        service["status"] = json!({"loadBalancer": {}});
    }
    if let Some(spec) = service.as_object_mut().and_then(|service| object(service, "spec")) {
        let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        fill_addresses(spec);
        fill_families(spec, &kind);
    }
}

fn check(service: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let spec = &service["spec"];
    let mut wrong = Vec::new();
    let kind = text(spec, "type");
    refuse_unsupported("spec.type", kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &mut wrong);
    refuse_unsupported("spec.sessionAffinity", text(spec, "sessionAffinity"), &["ClientIP", "None"], &mut wrong);
    let address = text(spec, "clusterIP");
    if kind == "ExternalName" {
        let name = text(spec, "externalName").trim_end_matches('.');
        if name.is_empty() {
            wrong.push(Invalid::required("spec.externalName", ""));
        } else {
            refuse("spec.externalName", name, meta::dns_subdomain(name), &mut wrong);
        }
    } else if list(spec, "ports").is_empty() && address != "None" {
        wrong.push(Invalid::required("spec.ports", ""));
    }
    if !matches!(address, "" | "None") && address.parse::<std::net::IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        wrong.push(Invalid::value("spec.clusterIPs[0]", address, why));
    }
    meta::check_labels(&spec["selector"], "spec.selector", &mut wrong);
    check_ports(list(spec, "ports"), &mut wrong);
    check_change(spec, old.map(|old| &old["spec"]), &mut wrong);
    wrong
}

fn check_ports(ports: &[Value], wrong: &mut Vec<Invalid>) {
    let mut names = HashSet::new();
    let mut pairs = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            wrong.push(Invalid::required(at("name"), ""));
        } else if !name.is_empty() {
            refuse(&at("name"), name, meta::dns_label(name), wrong);
            if !names.insert(name) {
                wrong.push(Invalid { field: at("name"), problem: Problem::Duplicate(name.into()) });
            }
        }
        refuse_port(&at("port"), &port["port"], wrong);
        let protocol = text(port, "protocol");
        if protocol.is_empty() {
            wrong.push(Invalid::required(at("protocol"), ""));
        }
        refuse_unsupported(&at("protocol"), protocol, &["SCTP", "TCP", "UDP"], wrong);
        match &port["targetPort"] {
            Value::String(name) => refuse(&at("targetPort"), name, meta::port_name(name), wrong),
            number => refuse_port(&at("targetPort"), number, wrong),
        }
        if !pairs.insert((port["port"].as_i64(), protocol)) {
            let duplicate = json!({"port": port["port"], "protocol": protocol});
            wrong.push(Invalid { field: format!("spec.ports[{index}]"), problem: Problem::Duplicate(duplicate) });
        }
    }
}

fn check_change(spec: &Value, old: Option<&Value>, wrong: &mut Vec<Invalid>) {
    let Some(old) = old else { return };
    let stays = text(old, "type") != "ExternalName" && text(spec, "type") != "ExternalName";
    let (had, address) = (text(old, "clusterIP"), text(spec, "clusterIP"));
    if stays && !had.is_empty() && address != had {
        wrong.push(Invalid::printed("spec.clusterIPs[0]", go::strings(&json!([address])), "may not change once set"));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};

    fn complaints(spec: Value, old: Option<Value>) -> Vec<String> {
        let old = old.map(|old| filled(&kind(), json!({ "spec": old })));
        check(&filled(&kind(), json!({ "spec": spec })), old.as_ref()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_gets_its_usual_settings_but_no_address() {
        let service = filled(&kind(), json!({"spec": {"ports": [{"port": 80}]}}));
        insta::assert_json_snapshot!(service);
    }

    #[test]
    fn a_headless_service_needs_no_ports() {
        assert!(complaints(json!({"clusterIP": "None"}), None).is_empty());
        assert_eq!(complaints(json!({}), None), ["spec.ports: Required value"]);
    }

    #[test]
    fn ports_are_named_apart() {
        assert_eq!(
            complaints(json!({"ports": [{"port": 1}, {"port": 70000, "name": "a", "protocol": "X"}]}), None),
            [
                "spec.ports[0].name: Required value",
                "spec.ports[1].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.ports[1].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ]
        );
    }

    #[test]
    fn an_address_stays_once_set() {
        let headless = json!({"clusterIP": "None", "ports": [{"port": 1}]});
        assert_eq!(
            complaints(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}), Some(headless.clone())),
            ["spec.clusterIPs[0]: Invalid value: []string{\"10.0.0.1\"}: may not change once set"]
        );
        assert!(complaints(headless.clone(), Some(headless)).is_empty());
    }
}
