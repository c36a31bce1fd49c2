//! The core group: namespaces, ConfigMaps, secrets, endpoints and service accounts. Larger kinds have files of their own.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::{Binding, ConfigMap, Endpoints, Namespace, Secret, ServiceAccount};
use onex_crds::{Invalid, Problem};
use serde_json::{Value, json};

use super::{
    columns, events, fill, items, kubernetes, list, node, object, pod, refuse, refuse_port, selectable, service, text,
};
use crate::{
    kinds::{Hooks, Kind, Names, Review, Subresource},
    meta,
    status::is_enough,
};

/// The data of a ConfigMap or a Secret may be this many bytes.
const DATA_BYTES: usize = 1024 * 1024;
/// The label by which a namespace can be selected by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The kinds of the core, in the order of their names.
pub fn kinds() -> Vec<Kind> {
    vec![
        binding(),
        config_map(),
        endpoints(),
        events::core_kind(),
        namespace(),
        node::kind(),
        pod::kind(),
        secret(),
        service_account(),
        service::kind(),
    ]
}

fn binding() -> Kind {
    let mut kind = kubernetes::<Binding>("bindings", &[]);
    kind.review = Some(Review::Binding);
    kind
}

fn namespace() -> Kind {
    let mut kind = kubernetes::<Namespace>("namespaces", &["ns"]);
    kind.deletes_collections = false; // one request must not end everything
    kind.namespaced = false;
    kind.status = true;
    kind.names = Names::Label;
    kind.columns = columns::namespace();
    kind.selectable = selectable(&["status.phase"]);
    kind.subresources = vec![Subresource { name: "finalize", speaks: ("", "v1", "Namespace"), verbs: &["update"] }];
    kind.hooks = Hooks {
        fill: name_namespace,
        prepare: prepare_namespace,
        held: |namespace| !list(&namespace["spec"], "finalizers").is_empty(),
        check: check_namespace,
        ..Hooks::default()
    };
    kind
}

fn check_namespace(namespace: &Value, _: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    for name in list(&namespace["spec"], "finalizers").iter().filter_map(Value::as_str) {
        refuse("spec.finalizers", name, meta::qualified_name(name), &mut wrong);
        if !name.contains('/') && name != "kubernetes" {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            wrong.push(Invalid::value("spec.finalizers", name, why));
        }
    }
    wrong
}

fn name_namespace(namespace: &mut Value) {
    let name = text(&namespace["metadata"], "name").to_owned();
    if name.is_empty() {
        return; // it is generated later, and written by `prepare`
    }
    if let Some(labels) =
        namespace.as_object_mut().and_then(|n| object(n, "metadata")).and_then(|m| object(m, "labels"))
    {
        labels.insert(NAME_LABEL.to_owned(), name.into());
    }
}

/// The finalizers of the spec and the phase are the server's: they end with `/finalize` and by the namespace controller.
fn prepare_namespace(namespace: &mut Value, old: Option<&Value>) {
    name_namespace(namespace);
    let Some(fields) = namespace.as_object_mut() else { return };
    if let Some(old) = old {
        for part in ["spec", "status"] {
            fields.insert(part.to_owned(), old[part].clone());
        }
        let terminating = fields.get("metadata").is_some_and(|meta| meta["deletionTimestamp"].is_string());
        // A namespace goes when it is empty: there is no time that it is given.
        fields.get_mut("metadata").and_then(Value::as_object_mut).map(|meta| meta.remove("deletionGracePeriodSeconds"));
        if terminating && let Some(status) = object(fields, "status") {
            status.insert("phase".to_owned(), "Terminating".into());
        }
        return;
    }
    fields.insert("status".to_owned(), json!({"phase": "Active"}));
    let Some(spec) = object(fields, "spec") else { return };
    let finalizers = spec.entry("finalizers").or_insert(Value::Null);
    match finalizers.as_array_mut() {
        Some(finalizers) if finalizers.iter().any(|f| f == "kubernetes") => {}
        Some(finalizers) => finalizers.push("kubernetes".into()),
        None => *finalizers = json!(["kubernetes"]),
    }
}

fn config_map() -> Kind {
    let mut kind = kubernetes::<ConfigMap>("configmaps", &["cm"]);
    kind.columns = columns::config_map();
    kind.hooks = Hooks { check: check_config_map, ..Hooks::default() };
    kind
}

fn check_config_map(map: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    for field in ["data", "binaryData"] {
        check_keys(&map[field], field, &mut wrong);
    }
    let binary = map["binaryData"].as_object();
    for key in map["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            let why = "duplicate of key present in binaryData";
            wrong.push(Invalid::value(format!("data[{key}]"), key.as_str(), why));
        }
    }
    if size(&map["data"], str::len) + size(&map["binaryData"], decoded_length) > DATA_BYTES {
        wrong.push(Invalid { field: String::new(), problem: Problem::TooLong(DATA_BYTES) });
    }
    check_immutable(map, old, &["data", "binaryData"], &mut wrong);
    wrong
}

fn check_keys(data: &Value, field: &str, wrong: &mut Vec<Invalid>) {
    for key in data.as_object().into_iter().flatten().map(|(key, _)| key) {
        if is_enough(wrong) {
            return;
        }
        refuse(&format!("{field}[{key}]"), key, meta::config_key(key), wrong);
    }
}

fn size(data: &Value, length: fn(&str) -> usize) -> usize {
    data.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str().map(length)).sum()
}

fn decoded_length(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

fn check_immutable(object: &Value, old: Option<&Value>, fields: &[&str], wrong: &mut Vec<Invalid>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    let why = "field is immutable when `immutable` is set";
    if object["immutable"] != true {
        wrong.push(Invalid::forbidden("immutable", why));
    }
    for field in fields {
        let same = |value: &Value| value.as_object().filter(|map| !map.is_empty()).cloned();
        if same(&object[field]) != same(&old[field]) {
            wrong.push(Invalid::forbidden(*field, why));
        }
    }
}

fn secret() -> Kind {
    let mut kind = kubernetes::<Secret>("secrets", &[]);
    kind.columns = columns::secret();
    kind.selectable = selectable(&["type"]);
    kind.hooks = Hooks { fill: fill_secret, check: check_secret, ..Hooks::default() };
    kind
}

/// `stringData` is for writing only: it goes over `data`.
fn fill_secret(secret: &mut Value) {
    let Some(fields) = secret.as_object_mut() else { return };
    fill(fields, "type", "Opaque");
    let Some(Value::Object(plain)) = fields.remove("stringData") else { return };
    let Some(data) = object(fields, "data") else { return };
    for (key, value) in plain {
        data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
    }
}

fn check_secret(secret: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    check_keys(&secret["data"], "data", &mut wrong);
    for (key, value) in secret["data"].as_object().into_iter().flatten() {
        // The value itself stays out of the message: it may be a secret all the same.
        if value.as_str().is_some_and(|value| STANDARD.decode(value).is_err()) {
            wrong.push(Invalid::value(format!("data[{key}]"), "", "illegal base64 data"));
        }
    }
    if size(&secret["data"], decoded_length) > DATA_BYTES {
        wrong.push(Invalid { field: "data".to_owned(), problem: Problem::TooLong(DATA_BYTES) });
    }
    check_secret_type(secret, &mut wrong);
    if old.is_some_and(|old| old["type"] != secret["type"]) {
        wrong.push(Invalid::value("type", secret["type"].clone(), "field is immutable"));
    }
    check_immutable(secret, old, &["data"], &mut wrong);
    wrong
}

/// What a well-known type of secret must hold.
fn check_secret_type(secret: &Value, wrong: &mut Vec<Invalid>) {
    let required: &[&str] = match text(secret, "type") {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/basic-auth" => {
            if secret["data"]["username"].is_null() && secret["data"]["password"].is_null() {
                wrong.push(Invalid::required("data[username]", ""));
                wrong.push(Invalid::required("data[password]", ""));
            }
            &[]
        }
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            if text(&secret["metadata"]["annotations"], annotation).is_empty() {
                wrong.push(Invalid::required(format!("metadata.annotations[{annotation}]"), ""));
            }
            &[]
        }
        _ => &[],
    };
    for key in [".dockercfg", ".dockerconfigjson"].iter().filter(|key| required.contains(key)) {
        let bytes = secret["data"][*key].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
            && !secret["data"][*key].is_null()
        {
            let why = crate::body::go_error(&bytes, &error);
            wrong.push(Invalid::value(format!("data[{key}]"), "<secret contents redacted>", why));
        }
    }
    let missing = required.iter().filter(|key| secret["data"][**key].is_null());
    wrong.extend(missing.map(|key| Invalid::required(format!("data[{key}]"), "")));
}

fn endpoints() -> Kind {
    let mut kind = kubernetes::<Endpoints>("endpoints", &["ep"]);
    kind.prefix = "/registry/services/endpoints/".to_owned();
    kind.deprecation = Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned());
    kind.create_on_update = true;
    kind.columns = columns::endpoints();
    kind.hooks = Hooks { fill: fill_endpoints, check: check_endpoints, ..Hooks::default() };
    kind
}

fn fill_endpoints(endpoints: &mut Value) {
    let Some(fields) = endpoints.as_object_mut() else { return };
    for subset in items(fields, "subsets") {
        items(subset, "ports").for_each(|port| fill(port, "protocol", "TCP"));
    }
}

fn check_endpoints(endpoints: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    for (index, subset) in list(endpoints, "subsets").iter().enumerate() {
        if is_enough(&wrong) {
            return wrong;
        }
        let at = format!("subsets[{index}]");
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            wrong.push(Invalid::required(at.clone(), "must specify `addresses` or `notReadyAddresses`"));
        }
        for (port_index, port) in list(subset, "ports").iter().enumerate() {
            if is_enough(&wrong) {
                return wrong;
            }
            refuse_port(&format!("{at}.ports[{port_index}].port"), &port["port"], &mut wrong);
        }
        for list_name in ["addresses", "notReadyAddresses"] {
            for (address_index, address) in list(subset, list_name).iter().enumerate() {
                if is_enough(&wrong) {
                    return wrong;
                }
                let ip = text(address, "ip");
                if ip.parse::<std::net::IpAddr>().is_err() {
                    let field = format!("{at}.{list_name}[{address_index}].ip");
                    wrong.push(Invalid::value(
                        field,
                        ip,
                        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    ));
                }
            }
        }
    }
    wrong
}

fn service_account() -> Kind {
    let mut kind = kubernetes::<ServiceAccount>("serviceaccounts", &["sa"]);
    kind.returns_deleted = true;
    kind.columns = columns::service_account();
    let speaks = ("authentication.k8s.io", "v1", "TokenRequest");
    kind.subresources = vec![Subresource { name: "token", speaks, verbs: &["create"] }];
    kind
}

/// The object as the hook fills it, for tests.
#[cfg(test)]
pub fn filled(kind: &Kind, mut object: Value) -> Value {
    (kind.hooks.fill)(&mut object);
    let once = object.clone();
    (kind.hooks.fill)(&mut object);
    assert_eq!(object, once, "filling twice is filling once");
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(kind: &Kind, object: Value, old: Option<Value>) -> Vec<String> {
        (kind.hooks.check)(&object, old.as_ref()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_namespace_is_born_with_its_label_its_finalizer_and_its_phase() {
        let kind = namespace();
        let mut born = filled(&kind, json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["x/y"]}}));
        (kind.hooks.prepare)(&mut born, None);
        assert_eq!(
            born,
            json!({"metadata": {"name": "a", "labels": {NAME_LABEL: "a"}}, "spec": {"finalizers": ["x/y", "kubernetes"]},
                "status": {"phase": "Active"}})
        );
        let mut changed = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Gone"}});
        (kind.hooks.prepare)(&mut changed, Some(&born));
        assert_eq!(changed, {
            let mut expected = born.clone();
            expected["metadata"]["labels"] = json!({NAME_LABEL: "a"});
            expected
        });
        changed["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        (kind.hooks.prepare)(&mut changed, Some(&born));
        assert_eq!(changed["status"]["phase"], "Terminating");
        assert!((kind.hooks.held)(&changed));
    }

    #[test]
    fn string_data_goes_over_data_and_does_not_stay() {
        let secret = filled(&secret(), json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "z"}}));
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eg==", "b": "eQ=="}}));
    }

    #[test]
    fn secrets_are_refused_for_their_keys_values_types_and_changes() {
        let kind = secret();
        assert_eq!(
            complaints(&kind, json!({"type": "Opaque", "data": {"a/b": "eA=="}}), None),
            [
                "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
              (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            ]
        );
        assert_eq!(
            complaints(&kind, json!({"type": "Opaque", "data": {"a": "hunter2!"}}), None),
            ["data[a]: Invalid value: \"\": illegal base64 data"]
        );
        assert_eq!(
            complaints(&kind, json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), None),
            ["data[tls.key]: Required value"]
        );
        assert_eq!(
            complaints(&kind, json!({"type": "b"}), Some(json!({"type": "a"}))),
            ["type: Invalid value: \"b\": field is immutable"]
        );
        let large = json!({"type": "Opaque", "data": {"a": STANDARD.encode("x".repeat(DATA_BYTES + 3))}});
        assert_eq!(complaints(&kind, large, None), ["data: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn an_immutable_config_map_stays() {
        let old = json!({"immutable": true, "data": {"a": "b"}});
        let why = "Forbidden: field is immutable when `immutable` is set";
        assert_eq!(
            complaints(&config_map(), json!({"data": {"a": "c"}}), Some(old.clone())),
            [format!("immutable: {why}"), format!("data: {why}")]
        );
        assert!(complaints(&config_map(), old.clone(), Some(old)).is_empty());
        assert_eq!(
            complaints(&config_map(), json!({"data": {"a": ""}, "binaryData": {"a": ""}}), None),
            ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]
        );
    }

    #[test]
    fn endpoints_need_addresses_and_ports_that_exist() {
        let object =
            filled(&endpoints(), json!({"subsets": [{"addresses": [{"ip": "x"}], "ports": [{"port": 0}]}, {}]}));
        assert_eq!(object["subsets"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(
            complaints(&endpoints(), object, None),
            [
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)",
                "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
            ]
        );
    }
}
