//! admissionregistration.k8s.io: whom to ask before a write.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use onex_crds::{Invalid, Problem};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Map, Value, json};
use url::Url;

use super::{fill, go, items, kubernetes, list, refuse, refuse_unsupported, text};
use crate::{
    admission::webhooks::check_conditions,
    kinds::{Cell, Hooks, Kind},
    meta,
    status::is_enough,
    table::{age_column, column, name_column},
};

/// Both kinds of configuration.
pub fn kinds() -> Vec<Kind> {
    let mut mutating = kubernetes::<MutatingWebhookConfiguration>("mutatingwebhookconfigurations", &[]);
    mutating.hooks = Hooks { fill: |object| fill_webhooks(object, true), check, ..Hooks::default() };
    let mut validating = kubernetes::<ValidatingWebhookConfiguration>("validatingwebhookconfigurations", &[]);
    validating.hooks = Hooks { fill: |object| fill_webhooks(object, false), check, ..Hooks::default() };
    for kind in [&mut mutating, &mut validating] {
        kind.namespaced = false;
        kind.categories = vec!["api-extensions".to_owned()];
        kind.generation = true;
        kind.columns = vec![
            name_column(),
            column(
                "Webhooks",
                "integer",
                "How many webhooks there are.",
                Cell::Function(|object, _| list(object, "webhooks").len().into()),
            ),
            age_column(),
        ];
    }
    vec![mutating, validating]
}

fn fill_webhooks(configuration: &mut Value, mutates: bool) {
    let Some(fields) = configuration.as_object_mut() else { return };
    for webhook in items(fields, "webhooks") {
        fill(webhook, "failurePolicy", "Fail");
        fill(webhook, "matchPolicy", "Equivalent");
        fill(webhook, "namespaceSelector", json!({}));
        fill(webhook, "objectSelector", json!({}));
        fill(webhook, "timeoutSeconds", 10);
        if mutates {
            fill(webhook, "reinvocationPolicy", "Never");
        }
        items(webhook, "rules").for_each(|rule| fill(rule, "scope", "*"));
        let service = webhook.get_mut("clientConfig").and_then(|config| config.get_mut("service"));
        if let Some(service) = service.and_then(Value::as_object_mut) {
            fill(service, "port", 443);
        }
    }
}

fn check(configuration: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let mut names = HashSet::new();
    for (index, webhook) in list(configuration, "webhooks").iter().enumerate() {
        if is_enough(&wrong) {
            break;
        }
        let at = format!("webhooks[{index}]");
        check_webhook(webhook, &at, &mut wrong);
        let name = text(webhook, "name");
        if !name.is_empty() && !names.insert(name) {
            wrong.push(Invalid { field: format!("{at}.name"), problem: Problem::Duplicate(name.into()) });
        }
    }
    wrong
}

fn check_webhook(webhook: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    check_name(text(webhook, "name"), &format!("{at}.name"), wrong);
    for (index, rule) in list(webhook, "rules").iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        check_rule(rule, &format!("{at}.rules[{index}]"), wrong);
    }
    let mut word = |field: &str, supported: &[&str]| {
        refuse_unsupported(&format!("{at}.{field}"), text(webhook, field), supported, wrong);
    };
    word("failurePolicy", &["Fail", "Ignore"]);
    word("matchPolicy", &["Equivalent", "Exact"]);
    word("reinvocationPolicy", &["IfNeeded", "Never"]);
    word("sideEffects", &["None", "NoneOnDryRun"]);
    if text(webhook, "sideEffects").is_empty() {
        wrong.push(Invalid::required(format!("{at}.sideEffects"), "must specify one of None, NoneOnDryRun"));
    }
    if let Some(seconds) = webhook["timeoutSeconds"].as_i64().filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        wrong.push(Invalid::value(format!("{at}.timeoutSeconds"), seconds, why));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        meta::check_label_selector(&webhook[selector], &format!("{at}.{selector}"), wrong);
    }
    check_client(&webhook["clientConfig"], &format!("{at}.clientConfig"), wrong);
    check_versions(list(webhook, "admissionReviewVersions"), &format!("{at}.admissionReviewVersions"), wrong);
    check_conditions(list(webhook, "matchConditions"), &format!("{at}.matchConditions"), wrong);
}

/// At least three segments: `name.of.a-domain`.
fn check_name(name: &str, field: &str, wrong: &mut Vec<Invalid>) {
    if name.is_empty() {
        return wrong.push(Invalid::required(field, ""));
    }
    let complaints = meta::dns_subdomain(name);
    if complaints.is_empty() && name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        return wrong.push(Invalid::value(field, name, why));
    }
    refuse(field, name, complaints, wrong);
}

fn words<'a>(rule: &'a Value, field: &str) -> Vec<&'a str> {
    list(rule, field).iter().map(|word| word.as_str().unwrap_or_default()).collect()
}

fn check_rule(rule: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let operations = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (field, others) in [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")]
    {
        let (words, field) = (words(rule, field), format!("{at}.{field}"));
        if words.is_empty() {
            wrong.push(Invalid::required(field.clone(), ""));
        }
        if words.len() > 1 && words.contains(&"*") {
            let why = format!("if '*' is present, must not specify other {others}");
            wrong.push(Invalid::printed(field.clone(), go::strings(&json!(words)), why));
        }
        for (index, word) in words.iter().enumerate() {
            if is_enough(wrong) {
                return;
            }
            match others {
                "operations" if !operations.contains(word) => {
                    wrong.push(Invalid::not_supported(format!("{field}[{index}]"), *word, &operations));
                }
                "API versions" if word.is_empty() => wrong.push(Invalid::required(format!("{field}[{index}]"), "")),
                _ => {}
            }
        }
    }
    check_resources(&words(rule, "resources"), &format!("{at}.resources"), wrong);
    refuse_unsupported(&format!("{at}.scope"), text(rule, "scope"), &["*", "Cluster", "Namespaced"], wrong);
}

fn check_resources(resources: &[&str], field: &str, wrong: &mut Vec<Invalid>) {
    if resources.is_empty() {
        wrong.push(Invalid::required(field, ""));
    }
    let (mut whole, mut every) = (HashSet::new(), HashSet::new());
    for (index, resource) in resources.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{field}[{index}]");
        if resource.is_empty() {
            wrong.push(Invalid::required(at, ""));
            continue;
        }
        let Some((name, subresource)) = resource.split_once('/') else { continue };
        if whole.contains(name) {
            let why = format!("if '{name}/*' is present, must not specify {resource}");
            wrong.push(Invalid::value(at.clone(), *resource, why));
        }
        if every.contains(subresource) {
            let why = format!("if '*/{subresource}' is present, must not specify {resource}");
            wrong.push(Invalid::value(at, *resource, why));
        }
        if subresource == "*" {
            whole.insert(name);
        }
        if name == "*" {
            every.insert(subresource);
        }
    }
    if resources.len() > 1 && resources.contains(&"*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        wrong.push(Invalid::printed(field, go::strings(&json!(resources)), why));
    }
    if resources.contains(&"*") && resources.iter().any(|resource| *resource != "*" && !resource.contains('/')) {
        let why = "if '*' is present, must not specify other resources without subresources";
        wrong.push(Invalid::printed(field, go::strings(&json!(resources)), why));
    }
}

fn check_client(config: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    match (config["url"].as_str(), config["service"].as_object()) {
        (Some(url), None) => check_url(url, &format!("{at}.url"), wrong),
        (None, Some(service)) => check_service(service, &format!("{at}.service"), wrong),
        _ => wrong.push(Invalid::required(at, "exactly one of url or service is required")),
    }
    let Some(bundle) = config["caBundle"].as_str().and_then(|bundle| STANDARD.decode(bundle).ok()) else { return };
    // Nothing but space stands in many manifests where a tool is to write the bundle later.
    let blank = bundle.iter().all(u8::is_ascii_whitespace);
    let mut certificates = CertificateDer::pem_slice_iter(&bundle);
    if !blank && certificates.next().is_none_or(|first| first.is_err()) {
        let why = "unable to load root certificates: unable to parse bytes as PEM block";
        wrong.push(Invalid::value(format!("{at}.caBundle"), config["caBundle"].clone(), why));
    }
}

fn check_url(url: &str, field: &str, wrong: &mut Vec<Invalid>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let parsed = match Url::parse(url) {
        Ok(parsed) => parsed,
        Err(why) => return wrong.push(Invalid::required(field, format!("url must be a valid URL: {why}{FORM}"))),
    };
    let mut refuse = |value: &str, why: String| wrong.push(Invalid::value(field, value, why));
    if parsed.scheme() != "https" {
        refuse(parsed.scheme(), format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if parsed.host_str().unwrap_or_default().is_empty() {
        refuse("", format!("host must be specified{FORM}"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        // It may be a password, so it is not said again.
        refuse("", "user information is not permitted in the URL".to_owned());
    }
    if let Some(fragment) = parsed.fragment().filter(|fragment| !fragment.is_empty()) {
        refuse(fragment, "fragments are not permitted in the URL".to_owned());
    }
    if let Some(query) = parsed.query().filter(|query| !query.is_empty()) {
        refuse(query, "query parameters are not permitted in the URL".to_owned());
    }
}

fn check_service(service: &Map<String, Value>, at: &str, wrong: &mut Vec<Invalid>) {
    let text = |field: &str| service.get(field).and_then(Value::as_str).unwrap_or_default();
    for field in ["name", "namespace"] {
        if text(field).is_empty() {
            wrong.push(Invalid::required(format!("{at}.{field}"), format!("service {field} is required")));
        }
    }
    let port = service.get("port").and_then(Value::as_i64).unwrap_or_default();
    if !(1..=65535).contains(&port) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        wrong.push(Invalid::value(format!("{at}.port"), port, why));
    }
    let path = text("path");
    if matches!(path, "" | "/") {
        return;
    }
    let field = format!("{at}.path");
    if !path.starts_with('/') {
        return wrong.push(Invalid::value(field, path, "must start with a '/'"));
    }
    let inner = path[1..].strip_suffix('/').unwrap_or(&path[1..]);
    for (index, segment) in inner.split('/').enumerate() {
        if is_enough(wrong) {
            return;
        }
        if segment.is_empty() {
            wrong.push(Invalid::value(field.clone(), path, format!("segment[{index}] may not be empty")));
            continue;
        }
        for why in meta::dns_subdomain(segment) {
            wrong.push(Invalid::value(field.clone(), path, format!("segment[{index}]: {why}")));
        }
    }
}

fn check_versions(versions: &[Value], field: &str, wrong: &mut Vec<Invalid>) {
    if versions.is_empty() {
        return wrong.push(Invalid::required(field, "must specify one of v1, v1beta1"));
    }
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let (at, version) = (format!("{field}[{index}]"), version.as_str().unwrap_or_default());
        if seen.insert(version) {
            refuse(&at, version, meta::dns_1035_label(version), wrong);
        } else {
            wrong.push(Invalid::value(at, version, "duplicate version"));
        }
    }
    if !seen.contains("v1") && !seen.contains("v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        wrong.push(Invalid::printed(field, go::strings(&json!(versions)), why));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};

    fn complaints(webhook: Value) -> Vec<String> {
        let mut whole = json!({
            "name": "w.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://h/p"},
            "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}],
        });
        for (field, value) in webhook.as_object().unwrap() {
            whole[field] = value.clone();
        }
        let object = filled(&kinds()[0], json!({"webhooks": [whole]}));
        check(&object, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_webhook_gets_its_usual_settings() {
        let webhook = json!({"clientConfig": {"service": {"name": "s"}}, "rules": [{}]});
        let mutating = filled(&kinds()[0], json!({"webhooks": [webhook.clone()]}));
        assert_eq!(
            mutating["webhooks"][0],
            json!({"failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "timeoutSeconds": 10, "reinvocationPolicy": "Never", "rules": [{"scope": "*"}],
                "clientConfig": {"service": {"name": "s", "port": 443}}})
        );
        let validating = filled(&kinds()[1], json!({"webhooks": [webhook]}));
        assert!(validating["webhooks"][0]["reinvocationPolicy"].is_null());
    }

    #[test]
    fn webhooks_are_refused_for_their_usual_mistakes() {
        assert!(complaints(json!({})).is_empty());
        assert!(complaints(json!({"clientConfig": {"url": "https://h/p", "caBundle": "Cg=="}})).is_empty());
        let cases = [
            (
                json!({"name": "short.name"}),
                "webhooks[0].name: Invalid value: \"short.name\": should be a domain with at least three segments separated by dots",
            ),
            (
                json!({"sideEffects": "Some"}),
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
            (
                json!({"sideEffects": null}),
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                json!({"timeoutSeconds": 31}),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                json!({"admissionReviewVersions": ["v9"]}),
                "webhooks[0].admissionReviewVersions: Invalid value: []string{\"v9\"}: must include at least one of v1, v1beta1",
            ),
            (
                json!({"clientConfig": {}}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                json!({"clientConfig": {"url": "http://h"}}),
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (
                json!({"clientConfig": {"service": {"name": "s", "namespace": "n", "path": "p"}}}),
                "webhooks[0].clientConfig.service.path: Invalid value: \"p\": must start with a '/'",
            ),
            (
                json!({"clientConfig": {"url": "https://h", "caBundle": "YWJj"}}),
                "webhooks[0].clientConfig.caBundle: Invalid value: \"YWJj\": unable to load root certificates: unable to parse bytes as PEM block",
            ),
            (
                json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["v1", "*"], "resources": ["a"]}]}),
                "webhooks[0].rules[0].apiVersions: Invalid value: []string{\"v1\", \"*\"}: if '*' is present, must not specify other API versions",
            ),
            (
                json!({"rules": [{"operations": ["PATCH"], "apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["a"]}]}),
                "webhooks[0].rules[0].operations[0]: Unsupported value: \"PATCH\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            ),
            (
                json!({"objectSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
                "webhooks[0].objectSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            ),
        ];
        for (webhook, expected) in cases {
            assert_eq!(complaints(webhook), [expected]);
        }
    }

    #[test]
    fn names_of_webhooks_are_there_once() {
        let webhook = json!({"name": "w.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://h"}});
        let wrong = check(&json!({"webhooks": [webhook.clone(), webhook]}), None);
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(wrong, ["webhooks[1].name: Duplicate value: \"w.example.com\""]);
    }
}
