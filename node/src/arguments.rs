//! What has to change in arguments and environment when a container runs as a plain process.
//!
//! A process has no network of its own, so "all my addresses" has to be the Pod's address; and no DNS knows the names of
//! Services, so each is replaced by an address that serves it.

use crate::launch::Target;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// A Service named by a host name such as `genesis.kube-system.svc.onexstack.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Replaces `$(NAME)` by the variable of that name. `$$` is a dollar sign, and an unknown name stays as it is written.
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(rest) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

fn reference(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('(')?.split_once(')')
}

/// Every Service that `text` names.
pub(crate) fn services(text: &str) -> BTreeSet<ServiceName> {
    text.split(|c| !is_word(c)).filter_map(service).collect()
}

/// `text` with the Pod's address for `0.0.0.0`, and with an address for each Service that has one in `targets`.
pub(crate) fn localize(text: &str, pod: Ipv4Addr, targets: &BTreeMap<ServiceName, Target>) -> String {
    let mut localized = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = split_where(rest, |c| !is_word(c));
        rest = after;
        if word == "0.0.0.0" && !after.starts_with('/') {
            localized.push_str(&pod.to_string());
        } else if let Some(target) = service(word).and_then(|name| targets.get(&name)) {
            localized.push_str(&target.host);
            if let Some((port, after)) = port(rest) {
                let port = target.ports.get(&port).copied().unwrap_or(port);
                localized.push_str(&format!(":{port}"));
                rest = after;
            }
        } else {
            localized.push_str(word);
        }
        let (between, after) = split_where(rest, is_word);
        localized.push_str(between);
        rest = after;
    }
    localized
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_')
}

fn split_where(text: &str, stops: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stops).unwrap_or(text.len()))
}

/// A port directly behind a host, and what follows it.
fn port(after: &str) -> Option<(u16, &str)> {
    let (digits, rest) = split_where(after.strip_prefix(':')?, |c| !c.is_ascii_digit());
    Some((digits.parse().ok()?, rest))
}

fn service(word: &str) -> Option<ServiceName> {
    let mut labels = word.split('.');
    let (name, namespace, svc) = (labels.next()?, labels.next()?, labels.next()?);
    let valid =
        |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && !label.contains('_');
    (svc == "svc" && valid(name) && valid(namespace))
        .then(|| ServiceName { namespace: namespace.to_owned(), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        BTreeMap::from([("A".into(), "one".into()), ("EMPTY".into(), String::new())])
    }

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)", "one"),
            ("x$(A)y$(A)z", "xoneyonez"),
            ("$(EMPTY)", ""),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$$(A)", "$(A)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("100$", "100$"),
        ] {
            assert_eq!(expand(text, &variables()), expected, "{text}");
        }
    }

    fn targets() -> BTreeMap<ServiceName, Target> {
        let genesis = ServiceName { namespace: "kube-system".into(), name: "genesis".into() };
        BTreeMap::from([(
            genesis,
            Target { host: "127.64.0.9".into(), ports: BTreeMap::from([(8080, 38080), (6001, 6001)]) },
        )])
    }

    #[test]
    fn arguments_are_rewritten_for_a_local_process() {
        for (text, expected) in [
            ("", ""),
            ("--miner", "--miner"),
            ("--p2p-addr=0.0.0.0:6001", "--p2p-addr=127.64.0.1:6001"),
            ("--bind=0.0.0.0", "--bind=127.64.0.1"),
            ("0.0.0.0:1,0.0.0.0:2", "127.64.0.1:1,127.64.0.1:2"),
            ("--allow=0.0.0.0/0", "--allow=0.0.0.0/0"),
            ("10.0.0.0:80", "10.0.0.0:80"),
            ("0.0.0.0.example.com:80", "0.0.0.0.example.com:80"),
            ("--peers=ws://genesis.kube-system.svc.onexstack.com:6001", "--peers=ws://127.64.0.9:6001"),
            ("http://genesis.kube-system.svc:8080/healthz", "http://127.64.0.9:38080/healthz"),
            ("http://genesis.kube-system.svc.cluster.local/x:9", "http://127.64.0.9/x:9"),
            ("genesis.kube-system.svc:9999", "127.64.0.9:9999"),
            ("genesis.kube-system.svc:8080", "127.64.0.9:38080"),
            ("genesis.kube-system.svc:8080a b", "127.64.0.9:38080a b"),
            ("genesis.kube-system.svc:99999", "127.64.0.9:99999"),
            ("genesis.kube-system.svc:6001,genesis.kube-system.svc:8080,x", "127.64.0.9:6001,127.64.0.9:38080,x"),
            ("other.kube-system.svc:6001", "other.kube-system.svc:6001"),
            ("genesis.kube-system.example.com", "genesis.kube-system.example.com"),
            ("ünïcode 0.0.0.0:1 ü", "ünïcode 127.64.0.1:1 ü"),
        ] {
            let localized = localize(text, Ipv4Addr::new(127, 64, 0, 1), &targets());
            assert_eq!(localized, expected, "{text}");
        }
    }

    #[test]
    fn services_are_found_where_they_are_named() {
        let named = |text| {
            services(text)
                .into_iter()
                .map(|service| format!("{}/{}", service.namespace, service.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(named("--peers=ws://a.b.svc.x.com:1,ws://c.d.svc:2"), ["b/a", "d/c"]);
        assert!(named("a.svc x.y.z -a.b.svc .b.svc").is_empty());
    }
}
