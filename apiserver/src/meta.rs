//! What `metadata` may look like: names, labels, annotations, owners, finalizers, and what may never change.
//!
//! The name rules are also those of label selectors and of names inside specs, so each is a function of its own that
//! answers every complaint in Kubernetes' words.

use std::collections::BTreeSet;

use onex_crds::{Invalid, Problem};
use serde_json::{Map, Value};

use crate::{
    kinds::{Kind, Names},
    status::is_enough,
};

/// All annotations of an object together may be this many bytes.
pub const ANNOTATIONS_BYTES: usize = 256 * 1024;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const IMMUTABLE: &str = "field is immutable";

/// Everything wrong with `meta`; with `old`, also what may not change. An empty list means that it is fine.
pub fn check(meta: &Value, old: Option<&Value>, kind: &Kind) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    check_names(meta, kind, &mut wrong);
    check_labels(&meta["labels"], "metadata.labels", &mut wrong);
    check_annotations(&meta["annotations"], &mut wrong);
    check_owners(&meta["ownerReferences"], &mut wrong);
    check_finalizers(&meta["finalizers"], kind, &mut wrong);
    if let Some(old) = old {
        check_changes(meta, old, &mut wrong);
    }
    wrong
}

fn check_names(meta: &Value, kind: &Kind, wrong: &mut Vec<Invalid>) {
    let generate = text(meta, "generateName");
    if !generate.is_empty() {
        refuse("metadata.generateName", generate, name(&masked(generate), kind.names), wrong);
    }
    let own = text(meta, "name");
    if own.is_empty() {
        wrong.push(Invalid::required("metadata.name", "name or generateName is required"));
    } else {
        refuse("metadata.name", own, name(own, kind.names), wrong);
    }
    let namespace = text(meta, "namespace");
    match (kind.namespaced, namespace.is_empty()) {
        (true, true) => wrong.push(Invalid::required("metadata.namespace", "")),
        (true, false) => refuse("metadata.namespace", namespace, dns_label(namespace), wrong),
        (false, false) => wrong.push(Invalid::forbidden("metadata.namespace", "not allowed on this type")),
        (false, true) => {}
    }
    if let Some(generation) = meta["generation"].as_i64().filter(|g| *g < 0) {
        wrong.push(Invalid::value("metadata.generation", generation, "must be greater than or equal to 0"));
    }
}

/// A prefix may end in a dash, since something follows it.
fn masked(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            format!("{}a", &rest[..rest.len() - rest.chars().next_back().map_or(0, char::len_utf8)])
        }
        _ => prefix.to_owned(),
    }
}

/// Leaves out what is empty, as Kubernetes does: no labels and `labels: {}` are one and the same object.
pub fn leave_out_empty(meta: &mut Value) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if let Some(meta) = meta.as_object_mut() {
        let optional = ["labels", "annotations", "finalizers", "ownerReferences"];
        meta.retain(|field, value| !(optional.contains(&field.as_str()) && empty(value)));
    }
}

/// Complaints about a map of labels, each at `field`.
pub fn check_labels(labels: &Value, field: &str, wrong: &mut Vec<Invalid>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if is_enough(wrong) {
            return;
        }
        refuse(field, key, qualified_name(key), wrong);
        let value = value.as_str().unwrap_or_default();
        refuse(field, value, label_value(value), wrong);
    }
}

/// Complaints about a `LabelSelector`, each at `field`.
pub fn check_label_selector(selector: &Value, field: &str, wrong: &mut Vec<Invalid>) {
    check_labels(&selector["matchLabels"], &format!("{field}.matchLabels"), wrong);
    for (index, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{field}.matchExpressions[{index}]");
        let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                wrong.push(Invalid::required(format!("{at}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                wrong.push(Invalid::forbidden(format!("{at}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let why = "not a valid selector operator";
                wrong.push(Invalid::value(format!("{at}.operator"), other, why));
            }
        }
        let key = text(expression, "key");
        refuse(&format!("{at}.key"), key, qualified_name(key), wrong);
        for (index, value) in values.iter().enumerate() {
            if is_enough(wrong) {
                return;
            }
            let value = value.as_str().unwrap_or_default();
            refuse(&format!("{at}.values[{index}]"), value, label_value(value), wrong);
        }
    }
}

fn check_annotations(annotations: &Value, wrong: &mut Vec<Invalid>) {
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        if is_enough(wrong) {
            return;
        }
        refuse("metadata.annotations", key, qualified_name(&key.to_lowercase()), wrong);
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > ANNOTATIONS_BYTES {
        wrong.push(Invalid { field: "metadata.annotations".to_owned(), problem: Problem::TooLong(ANNOTATIONS_BYTES) });
    }
}

fn check_owners(owners: &Value, wrong: &mut Vec<Invalid>) {
    let field = "metadata.ownerReferences";
    let mut controller: Option<&str> = None;
    for owner in owners.as_array().into_iter().flatten() {
        if is_enough(wrong) {
            return;
        }
        let version = text(owner, "apiVersion");
        if version.is_empty() || version.ends_with('/') {
            wrong.push(Invalid::value(format!("{field}.apiVersion"), version, "version must not be empty"));
        }
        for part in ["kind", "name", "uid"] {
            if text(owner, part).is_empty() {
                wrong.push(Invalid::value(format!("{field}.{part}"), "", format!("{part} must not be empty")));
            }
        }
        if version == "v1" && text(owner, "kind") == "Event" {
            wrong.push(Invalid::value(field, owner.clone(), "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner["controller"] == true {
            let name = text(owner, "name");
            match controller {
                None => controller = Some(name),
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    wrong.push(Invalid::value(field, Value::Array(Vec::new()), why));
                    break; // one complaint is enough: many owners must not make a long error
                }
            }
        }
    }
}

fn check_finalizers(finalizers: &Value, kind: &Kind, wrong: &mut Vec<Invalid>) {
    let field = "metadata.finalizers";
    let names = strings(finalizers);
    let listed = finalizers.as_array().into_iter().flatten().filter_map(Value::as_str).enumerate();
    for (index, name) in listed {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{field}[{index}]");
        refuse(&at, name, qualified_name(name), wrong);
        // Only the core insists on this; elsewhere a bare word is a finalizer like any other.
        if kind.group.is_empty()
            && !name.contains('/')
            && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name)
        {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            wrong.push(Invalid::value(at, name, why));
        }
    }
    if names.contains("orphan") && names.contains("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        wrong.push(Invalid::value(field, finalizers.clone(), why));
    }
}

/// Everything wrong with `managedFields` that a client sent.
pub fn check_managers(entries: &Value) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    for (index, entry) in entries.as_array().into_iter().flatten().enumerate() {
        if is_enough(&wrong) {
            break;
        }
        let at = |part: &str| format!("metadata.managedFields[{index}].{part}");
        // `[{}]` is how clients ask for the managers to be forgotten.
        if entry.as_object().is_none_or(Map::is_empty) {
            continue;
        }
        let operation = text(entry, "operation");
        if operation != "Apply" && operation != "Update" {
            wrong.push(Invalid::value(at("operation"), operation, "must be `Apply` or `Update`"));
        }
        let fields = text(entry, "fieldsType");
        if !fields.is_empty() && fields != "FieldsV1" {
            wrong.push(Invalid::value(at("fieldsType"), fields, "must be `FieldsV1`"));
        }
        let manager = text(entry, "manager");
        if manager.len() > 128 {
            wrong.push(Invalid { field: at("manager"), problem: Problem::TooLong(128) });
        }
    }
    wrong
}

fn check_changes(meta: &Value, old: &Value, wrong: &mut Vec<Invalid>) {
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if meta[field] != old[field] {
            wrong.push(Invalid::value(format!("metadata.{field}"), meta[field].clone(), IMMUTABLE));
        }
    }
    let generation = meta["generation"].as_i64().unwrap_or_default();
    if generation < old["generation"].as_i64().unwrap_or_default() {
        wrong.push(Invalid::value("metadata.generation", generation, "must not be decremented"));
    }
    if old["deletionTimestamp"].is_string() {
        let had = strings(&old["finalizers"]);
        let added: Vec<&str> = strings(&meta["finalizers"]).difference(&had).copied().collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
            );
            wrong.push(Invalid::forbidden("metadata.finalizers", why));
        }
    }
}

fn strings(list: &Value) -> BTreeSet<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn refuse(field: &str, value: &str, complaints: Vec<String>, wrong: &mut Vec<Invalid>) {
    wrong.extend(complaints.into_iter().map(|why| Invalid::value(field, value, why)));
}

/// What is wrong with the name of an object.
pub fn name(name: &str, rule: Names) -> Vec<String> {
    match rule {
        Names::Subdomain => dns_subdomain(name),
        Names::Label => dns_label(name),
        Names::Label1035 => dns_1035_label(name),
        Names::Segment => path_segment(name),
    }
}

/// What is wrong with `name` as one segment of a path.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// What is wrong with `name` as an RFC 1123 subdomain.
pub fn dns_subdomain(name: &str) -> Vec<String> {
    let mut wrong = too_long(name, 253);
    if !name.split('.').all(is_label) {
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                    and must start and end with an alphanumeric character";
        wrong.push(regular(what, &format!("{LABEL}(\\.{LABEL})*"), &["example.com"]));
    }
    wrong
}

/// What is wrong with `name` as an RFC 1123 label.
pub fn dns_label(name: &str) -> Vec<String> {
    let mut wrong = too_long(name, 63);
    if is_label(name) {
        return wrong;
    }
    if name.split('.').all(is_label) {
        wrong.push("must not contain dots".to_owned());
    } else {
        let what = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                    and must start and end with an alphanumeric character";
        wrong.push(regular(what, LABEL, &["my-name", "123-abc"]));
    }
    wrong
}

/// What is wrong with `name` as an RFC 1035 label.
pub fn dns_1035_label(name: &str) -> Vec<String> {
    let mut wrong = too_long(name, 63);
    if !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        let what = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
                    start with an alphabetic character, and end with an alphanumeric character";
        wrong.push(regular(what, LABEL_1035, &["my-name", "abc-123"]));
    }
    wrong
}

/// What is wrong with `key` as a label's key, a finalizer, an annotation's key: a name with an optional DNS prefix.
pub fn qualified_name(key: &str) -> Vec<String> {
    let what = "must consist of alphanumeric characters, '-', '_' or '.', \
                and must start and end with an alphanumeric character";
    let examples = ["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = key.split('/').collect();
    let mut wrong = Vec::new();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(dns_subdomain(prefix).into_iter().map(|w| format!("prefix part {w}")));
            }
            name
        }
        _ => {
            let what = regular(&format!("a qualified name {what}"), QUALIFIED, &examples);
            return vec![format!("{what} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    }
    wrong.extend(too_long(name, 63).into_iter().map(|w| format!("name part {w}")));
    if !is_qualified(name) {
        wrong.push(format!("name part {}", regular(what, QUALIFIED, &examples)));
    }
    wrong
}

/// What is wrong with `value` as a label's value.
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, 63);
    if !value.is_empty() && !is_qualified(value) {
        let what = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                    and must start and end with an alphanumeric character";
        wrong.push(regular(what, &format!("({QUALIFIED})?"), &["MyValue", "my_value", "12345"]));
    }
    wrong
}

/// What is wrong with `key` as a key of a ConfigMap or a Secret.
pub fn config_key(key: &str) -> Vec<String> {
    let mut wrong = too_long(key, 253);
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        let what = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        wrong.push(regular(what, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match key {
        "." | ".." => wrong.push(format!("must not be '{key}'")),
        _ if key.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// What is wrong with `name` as the name of a port, as RFC 6335 has it.
pub fn port_name(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > 15 {
        wrong.push("must be no more than 15 characters".to_owned());
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// What is wrong with `name` as an environment variable: printable, and no `=`.
pub fn environment_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

fn is_label(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_qualified(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn too_long(text: &str, most: usize) -> Vec<String> {
    if text.len() > most { vec![format!("must be no more than {most} characters")] } else { Vec::new() }
}

/// Kubernetes' sentence for a text that does not match a regular expression, odd spaces included.
fn regular(what: &str, expression: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{what} (e.g. {}regex used for validation is '{expression}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::kinds::Published;

    fn kind(group: &str) -> Kind {
        Kind::new(group, "v1", "Thing", "things", Published::new(|| (String::new(), BTreeMap::new())))
    }

    fn complaints(meta: Value, old: Option<Value>) -> Vec<String> {
        check(&meta, old.as_ref(), &kind("apps.onex.io")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_refused_in_the_words_of_kubernetes() {
        let cases = [
            (
                json!({"name": "A_b", "namespace": "default"}),
                "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            (json!({"namespace": "default"}), "metadata.name: Required value: name or generateName is required"),
            (json!({"name": "a"}), "metadata.namespace: Required value"),
            (
                json!({"name": "a", "namespace": "a.b"}),
                "metadata.namespace: Invalid value: \"a.b\": must not contain dots",
            ),
            (
                json!({"name": "a", "namespace": "b", "labels": {"x": "-"}}),
                "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric \
                 characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (
                json!({"name": "a", "namespace": "b", "finalizers": ["/x"]}),
                "metadata.finalizers[0]: Invalid value: \"/x\": prefix part must be non-empty",
            ),
            (
                json!({"name": "a", "namespace": "b", "annotations": {"x": "y".repeat(ANNOTATIONS_BYTES)}}),
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
        ];
        for (meta, expected) in cases {
            assert_eq!(complaints(meta, None), [expected]);
        }
    }

    #[test]
    fn a_prefix_for_generated_names_may_end_in_a_dash() {
        assert_eq!(complaints(json!({"generateName": "mi-", "name": "mi-x", "namespace": "d"}), None), [""; 0]);
        assert_eq!(complaints(json!({"generateName": "Mi-", "name": "x", "namespace": "d"}), None).len(), 1);
    }

    #[test]
    fn an_owner_must_be_named_whole_and_only_one_may_be_the_controller() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        let meta = json!({"name": "a", "namespace": "d", "ownerReferences": [owner("a"), owner("b")]});
        assert_eq!(
            complaints(meta, None),
            [
                "metadata.ownerReferences: Invalid value: \"array\": Only one reference can have Controller set to true. \
                 Found \"true\" in references for a and b"
            ]
        );
        let meta = json!({"name": "a", "namespace": "d", "ownerReferences": [{"apiVersion": "apps/", "kind": "x"}]});
        assert_eq!(
            complaints(meta, None),
            [
                "metadata.ownerReferences.apiVersion: Invalid value: \"apps/\": version must not be empty",
                "metadata.ownerReferences.name: Invalid value: \"\": name must not be empty",
                "metadata.ownerReferences.uid: Invalid value: \"\": uid must not be empty",
            ]
        );
    }

    #[test]
    fn what_is_being_deleted_gains_no_finalizer_and_keeps_its_identity() {
        let old = json!({"name": "a", "namespace": "d", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["x/a"]});
        let mut new = old.clone();
        new["finalizers"] = json!(["x/a", "x/b"]);
        new["uid"] = json!("2");
        assert_eq!(
            complaints(new, Some(old)),
            [
                "metadata.uid: Invalid value: \"2\": field is immutable",
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{\"x/b\"}",
            ]
        );
    }

    #[test]
    fn the_core_knows_its_bare_finalizers() {
        let meta = json!({"name": "a", "namespace": "d", "finalizers": ["bare"]});
        let wrong = check(&meta, None, &kind(""));
        assert_eq!(
            wrong[0].message(),
            "Invalid value: \"bare\": name is neither a standard finalizer name nor is it fully qualified"
        );
        assert!(check(&meta, None, &kind("apps.onex.io")).is_empty());
    }

    proptest! {
        #[test]
        fn no_metadata_makes_the_checks_panic(name in ".{0,80}", prefix in ".{0,80}", key in ".{0,80}", value in ".{0,80}") {
            let meta = json!({"name": name, "generateName": prefix, "namespace": value, "labels": {&key: &value},
                "annotations": {&key: &value}, "finalizers": [key], "ownerReferences": [{"name": value}]});
            check(&meta, Some(&json!({})), &kind(""));
        }
    }
}
