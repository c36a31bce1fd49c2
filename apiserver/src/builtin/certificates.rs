//! certificates: CertificateSigningRequests, which say who asked and are approved or denied by somebody else.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use onex_crds::{Invalid, Problem};
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer, Pem, X509CertificationRequest};

use super::{kubernetes, list, object, selectable, text};
use crate::{
    authn::User,
    kinds::{Cell, Hooks, Kind, Subresource},
    meta,
    registry::Part,
    status::is_enough,
    table::{age_column, column, human_duration, name_column},
};

/// What a certificate may be for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Conditions that say what was decided.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// CertificateSigningRequests.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<CertificateSigningRequest>("certificatesigningrequests", &["csr"]);
    kind.namespaced = false;
    kind.status = true;
    kind.subresources = vec![Subresource {
        name: "approval",
        speaks: ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
        verbs: &["get", "patch", "update"],
    }];
    kind.selectable = selectable(&["spec.signerName"]);
    kind.columns = vec![
        name_column(),
        age_column(),
        column("SignerName", "string", "Who is to sign.", Cell::Function(|csr, _| or_none(&csr["spec"]["signerName"]))),
        column("Requestor", "string", "Who asks.", Cell::Function(|csr, _| text(&csr["spec"], "username").into())),
        column(
            "RequestedDuration",
            "string",
            "How long the certificate is to last.",
            Cell::Function(|csr, _| match csr["spec"]["expirationSeconds"].as_i64() {
                Some(seconds) => human_duration(seconds).into(),
                None => "<none>".into(),
            }),
        ),
        column("Condition", "string", "What was decided.", Cell::Function(|csr, _| decided(csr).into())),
    ];
    kind.hooks = Hooks { check, prepare, requested_by, amend: approve, ..Hooks::default() };
    kind
}

fn or_none(value: &Value) -> Value {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or("<none>").into()
}

fn decided(csr: &Value) -> String {
    let holds = |kind: &str| !conditions(csr, kind).is_empty();
    let mut decided = match (holds("Denied"), holds("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if holds("Failed") {
        decided.push_str(",Failed");
    }
    if !text(&csr["status"], "certificate").is_empty() {
        decided.push_str(",Issued");
    }
    decided
}

fn conditions<'a>(csr: &'a Value, kind: &str) -> Vec<&'a Value> {
    list(&csr["status"], "conditions").iter().filter(|condition| condition["type"] == kind).collect()
}

/// Nobody comes with an approval of their own, and what was asked for stays.
fn prepare(csr: &mut Value, old: Option<&Value>) {
    match old {
        None => csr["status"] = json!({}),
        Some(old) => {
            for part in ["spec", "status"] {
                csr[part] = old[part].clone();
            }
        }
    }
}

/// Who asks is what the server knows, whatever the request says.
fn requested_by(csr: &mut Value, user: &User) {
    let Some(spec) = csr.as_object_mut().and_then(|csr| object(csr, "spec")) else { return };
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    for (field, value) in [("username", &user.name), ("uid", &user.uid)] {
        if !value.is_empty() {
            spec.insert(field.to_owned(), value.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(*user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(*user.extra));
    }
}

/// Dates what was decided, and says what is wrong with it.
fn approve(_: Part, csr: &mut Value, old: &Value, now: &str) -> Vec<Invalid> {
    let before = list(&old["status"], "conditions");
    let conditions =
        csr.get_mut("status").and_then(|status| status.get_mut("conditions")).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        date(condition, before, now);
    }
    let mut wrong = check_request(csr);
    refuse_removal(csr, old, &mut wrong);
    wrong
}

fn date(condition: &mut Map<String, Value>, before: &[Value], now: &str) {
    let written = |condition: &Map<String, Value>, field: &str| condition.get(field).is_some_and(Value::is_string);
    if !written(condition, "lastUpdateTime") {
        condition.insert("lastUpdateTime".to_owned(), now.into());
    }
    if !written(condition, "lastTransitionTime") {
        let same = |old: &&Value| {
            ["type", "status"].iter().all(|field| condition.get(*field) == old.get(*field))
                && old["lastTransitionTime"].is_string()
        };
        let since = before.iter().find(same).map_or_else(|| now.into(), |old| old["lastTransitionTime"].clone());
        condition.insert("lastTransitionTime".to_owned(), since);
    }
}

fn refuse_removal(csr: &Value, old: &Value, wrong: &mut Vec<Invalid>) {
    for kind in ["Approved", "Denied", "Failed"] {
        if conditions(csr, kind).len() < conditions(old, kind).len() {
            let why = format!("updates may not remove a condition of type {kind:?}");
            wrong.push(Invalid::forbidden("status.conditions", why));
        }
    }
}

fn check(csr: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = check_request(csr);
    let Some(old) = old else { return wrong };
    refuse_removal(csr, old, &mut wrong);
    for kind in DECISIONS {
        let (new, before) = (conditions(csr, kind), conditions(old, kind));
        if new.len() > before.len() {
            let why = format!("updates may not add a condition of type {kind:?}");
            wrong.push(Invalid::forbidden("status.conditions", why));
        } else if new.len() == before.len() && new != before {
            let why = format!("updates may not modify a condition of type {kind:?}");
            wrong.push(Invalid::forbidden("status.conditions", why));
        }
    }
    let (new, before) = (text(&csr["status"], "certificate"), text(&old["status"], "certificate"));
    if new != before && !before.is_empty() {
        let why = "updates may not modify existing certificate content";
        wrong.push(Invalid::forbidden("status.certificate", why));
    }
    wrong
}

fn check_request(csr: &Value) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &csr["spec"];
    if let Err(why) = read_request(text(spec, "request")) {
        wrong.push(Invalid::printed("spec.request", "<request data>", why));
    }
    check_usages(list(spec, "usages"), &mut wrong);
    check_signer(text(spec, "signerName"), &mut wrong);
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|seconds| *seconds < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        wrong.push(Invalid::value("spec.expirationSeconds", seconds, why));
    }
    check_conditions(csr, &mut wrong);
    wrong
}

fn read_request(base64: &str) -> Result<(), String> {
    let bytes = STANDARD.decode(base64).map_err(|error| format!("illegal base64 data: {error}"))?;
    let pem = Pem::iter_from_buffer(&bytes).next().and_then(Result::ok);
    let Some(pem) = pem.filter(|pem| pem.label == "CERTIFICATE REQUEST") else {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    X509CertificationRequest::from_der(&pem.contents).map(drop).map_err(|_| "it is no certificate request".to_owned())
}

fn check_usages(usages: &[Value], wrong: &mut Vec<Invalid>) {
    if usages.is_empty() {
        wrong.push(Invalid::required("spec.usages", ""));
    }
    let mut seen = std::collections::HashSet::new();
    for (index, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("spec.usages[{index}]");
        if !USAGES.contains(&usage) {
            wrong.push(Invalid::not_supported(at.clone(), usage, &USAGES));
        }
        if !seen.insert(usage) {
            wrong.push(Invalid { field: at, problem: Problem::Duplicate(usage.into()) });
        }
    }
}

fn check_signer(signer: &str, wrong: &mut Vec<Invalid>) {
    if signer.is_empty() {
        return wrong.push(Invalid::required("spec.signerName", ""));
    }
    let fits = match signer.split_once('/') {
        Some((domain, path)) => {
            domain.contains('.') && meta::dns_subdomain(domain).is_empty() && meta::dns_subdomain(path).is_empty()
        }
        None => false,
    };
    if signer == "kubernetes.io/legacy-unknown" {
        let why = "the legacy signerName is not allowed via this API version";
        wrong.push(Invalid::value("spec.signerName", signer, why));
    } else if !fits {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        wrong.push(Invalid::value("spec.signerName", signer, why));
    }
}

fn check_conditions(csr: &Value, wrong: &mut Vec<Invalid>) {
    let mut seen = std::collections::HashSet::new();
    for (index, condition) in list(&csr["status"], "conditions").iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = |field: &str| format!("status.conditions[{index}].{field}");
        let (kind, status) = (text(condition, "type"), text(condition, "status"));
        if kind.is_empty() {
            wrong.push(Invalid::required(at("type"), ""));
        }
        let allowed: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        if status.is_empty() {
            wrong.push(Invalid::required(at("status"), ""));
        } else if !allowed.contains(&status) {
            wrong.push(Invalid::not_supported(at("status"), status, allowed));
        }
        let other = DECISIONS.iter().find(|other| DECISIONS.contains(&kind) && **other != kind);
        if other.is_some_and(|other| seen.contains(*other)) {
            let why = "Approved and Denied conditions are mutually exclusive";
            wrong.push(Invalid::value(at("type"), kind, why));
        }
        if !seen.insert(kind) {
            wrong.push(Invalid { field: at("type"), problem: Problem::Duplicate(kind.into()) });
        }
    }
}
