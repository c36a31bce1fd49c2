//! discovery.k8s.io: EndpointSlices. (What the server says of itself is `crate::discovery`.)

use std::{collections::HashSet, net::IpAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use onex_crds::{Invalid, Problem};
use serde_json::Value;

use super::{fill, items, kubernetes, list, refuse, refuse_change, refuse_unsupported, text};
use crate::{
    kinds::{Cell, Hooks, Kind},
    meta,
    status::is_enough,
    table::{age_column, column, name_column, path},
};

const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;

/// EndpointSlices.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<EndpointSlice>("endpointslices", &[]);
    kind.generation = true;
    kind.columns = vec![
        name_column(),
        column("AddressType", "string", "What the addresses are.", path(".addressType")),
        column("Ports", "string", "The ports.", Cell::Function(|slice, _| ports(slice).into())),
        column("Endpoints", "string", "The addresses.", Cell::Function(|slice, _| addresses(slice).into())),
        age_column(),
    ];
    kind.hooks = Hooks { fill: fill_slice, check, prepare, ..Hooks::default() };
    kind
}

fn fill_slice(slice: &mut Value) {
    let Some(fields) = slice.as_object_mut() else { return };
    for port in items(fields, "ports") {
        if port.get("name").is_none_or(Value::is_null) {
            port.insert("name".to_owned(), "".into());
        }
        fill(port, "protocol", "TCP");
    }
}

/// Labels and annotations say what a slice is about, so a change of them is a new generation as well.
fn prepare(slice: &mut Value, old: Option<&Value>) {
    let Some(old) = old else { return };
    let said =
        |object: &Value, field: &str| object["metadata"][field].as_object().filter(|map| !map.is_empty()).cloned();
    if ["labels", "annotations"].iter().any(|field| said(slice, field) != said(old, field)) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        if let Some(meta) = slice.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("generation".to_owned(), generation.into());
        }
    }
}

fn ports(slice: &Value) -> String {
    let port = |port: &Value| match (port["port"].as_i64(), port["name"].as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    };
    some(list(slice, "ports").iter().map(port).collect())
}

fn addresses(slice: &Value) -> String {
    let endpoints = list(slice, "endpoints").iter().flat_map(|endpoint| list(endpoint, "addresses"));
    some(endpoints.filter_map(Value::as_str).map(str::to_owned).collect())
}

/// The first three, and how many more there are.
fn some(all: Vec<String>) -> String {
    match all.len() {
        0 => "<unset>".to_owned(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

fn check(slice: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let kind = text(slice, "addressType");
    if kind.is_empty() {
        wrong.push(Invalid::required("addressType", ""));
    }
    refuse_unsupported("addressType", kind, &["FQDN", "IPv4", "IPv6"], &mut wrong);
    check_ports(list(slice, "ports"), &mut wrong);
    let endpoints = list(slice, "endpoints");
    if endpoints.len() > MOST_ENDPOINTS {
        let problem = Problem::TooMany { actual: endpoints.len(), most: MOST_ENDPOINTS };
        wrong.push(Invalid { field: "endpoints".to_owned(), problem });
    } else {
        for (index, endpoint) in endpoints.iter().enumerate() {
            if is_enough(&wrong) {
                return wrong;
            }
            check_endpoint(endpoint, kind, &format!("endpoints[{index}]"), &mut wrong);
        }
    }
    if let Some(old) = old {
        refuse_change("addressType", &slice["addressType"], &old["addressType"], &mut wrong);
    }
    wrong
}

fn check_ports(ports: &[Value], wrong: &mut Vec<Invalid>) {
    if ports.len() > MOST_PORTS {
        let problem = Problem::TooMany { actual: ports.len(), most: MOST_PORTS };
        return wrong.push(Invalid { field: "ports".to_owned(), problem });
    }
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let name = text(port, "name");
        if !name.is_empty() {
            refuse(&format!("ports[{index}].name"), name, meta::dns_label(name), wrong);
        }
        if !names.insert(name) {
            let problem = Problem::Duplicate(name.into());
            wrong.push(Invalid { field: format!("ports[{index}].name"), problem });
        }
        refuse_unsupported(&format!("ports[{index}].protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"], wrong);
    }
}

fn check_endpoint(endpoint: &Value, kind: &str, at: &str, wrong: &mut Vec<Invalid>) {
    let addresses = list(endpoint, "addresses");
    match addresses.len() {
        0 => wrong.push(Invalid::required(format!("{at}.addresses"), "must contain at least 1 address")),
        actual if actual > MOST_ADDRESSES => {
            let problem = Problem::TooMany { actual, most: MOST_ADDRESSES };
            return wrong.push(Invalid { field: format!("{at}.addresses"), problem });
        }
        _ => {}
    }
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        if is_enough(wrong) {
            return;
        }
        let field = format!("{at}.addresses[{index}]");
        match (kind, address.parse::<IpAddr>()) {
            ("FQDN", _) => refuse(&field, address, meta::dns_subdomain(address), wrong),
            ("IPv4" | "IPv6", Err(_)) => {
                let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                wrong.push(Invalid::value(field, address, why));
            }
            ("IPv4", Ok(IpAddr::V6(_))) => wrong.push(Invalid::value(field, address, "must be an IPv4 address")),
            ("IPv6", Ok(IpAddr::V4(_))) => wrong.push(Invalid::value(field, address, "must be an IPv6 address")),
            _ => {}
        }
    }
    if let Some(host) = endpoint["hostname"].as_str() {
        refuse(&format!("{at}.hostname"), host, meta::dns_label(host), wrong);
    }
    if let Some(node) = endpoint["nodeName"].as_str() {
        refuse(&format!("{at}.nodeName"), node, meta::dns_subdomain(node), wrong);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::core::filled, *};
    use crate::table::printed;

    #[test]
    fn a_slice_holds_addresses_of_one_kind() {
        let endpoint = |addresses: Value| json!({ "addresses": addresses });
        let slice = filled(
            &kind(),
            json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}],
                "endpoints": [endpoint(json!(["10.0.0.1"])), endpoint(json!(["10.0.0.2", "10.0.0.3"])), endpoint(json!(["10.0.0.4"]))]}),
        );
        assert_eq!(slice["ports"][0], json!({"port": 80, "name": "", "protocol": "TCP"}));
        assert_eq!(check(&slice, Some(&slice)), []);
        assert_eq!(
            printed(&kind(), std::slice::from_ref(&slice), 0),
            "Name | AddressType | Ports | Endpoints | Age\n\
             s | IPv4 | 80 | 10.0.0.1,10.0.0.2,10.0.0.3 + 1 more... | <unknown>"
        );
        let mut wrong = slice.clone();
        wrong["endpoints"] = json!([endpoint(json!(["::1"])), endpoint(json!([]))]);
        let wrong: Vec<String> = check(&wrong, None).iter().map(ToString::to_string).collect();
        assert_eq!(
            wrong,
            [
                "endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address",
            ]
        );
    }
}
