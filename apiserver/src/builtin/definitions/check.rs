//! What is wrong with a definition, in the words of Kubernetes. What is wrong with a schema in it, the engine says.

use std::collections::BTreeSet;

use onex_crds::{Invalid, Problem};
use serde_json::Value;

use super::super::{list, refuse, refuse_unsupported, text};
use crate::{custom, meta};

/// Says that somebody who may has approved of a group of Kubernetes' own.
const APPROVED: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// So many fields of a version can be selected by.
const MOST_SELECTABLE: usize = 8;
/// What may stand at the root of a schema beside a status subresource, and what Kubernetes calls it.
const ROOT: &[(&str, &str)] = &[
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];
const IMMUTABLE: &str = "field is immutable";

/// All that is wrong. What did not change is not looked at again.
pub(super) fn check(crd: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let (spec, metadata) = (&crd["spec"], &crd["metadata"]);
    let same = old.is_some_and(|old| old["spec"] == *spec);
    if !same {
        check_name(text(metadata, "name"), spec, &mut wrong);
        check_spec(spec, old.map(|old| &old["spec"]), &mut wrong);
    }
    if let Some(old) = old.filter(|_| !same) {
        check_changes(crd, old, &mut wrong);
    }
    check_stored(crd, &mut wrong);
    check_approval(crd, old, &mut wrong);
    wrong
}

fn check_name(name: &str, spec: &Value, wrong: &mut Vec<Invalid>) {
    let mut complaints = meta::dns_subdomain(name);
    if name != format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group")) {
        complaints.push("must be spec.names.plural+\".\"+spec.group".to_owned());
    }
    refuse("metadata.name", name, complaints, wrong);
}

fn check_spec(spec: &Value, old: Option<&Value>, wrong: &mut Vec<Invalid>) {
    let group = text(spec, "group");
    let complaints = meta::dns_subdomain(group);
    if group.is_empty() {
        wrong.push(Invalid::required("spec.group", ""));
    } else if !complaints.is_empty() {
        wrong.push(Invalid::value("spec.group", group, complaints.join(",")));
    } else if !group.contains('.') {
        wrong.push(Invalid::value("spec.group", group, "should be a domain with at least one dot"));
    }
    if text(spec, "scope").is_empty() {
        wrong.push(Invalid::required("spec.scope", ""));
    }
    refuse_unsupported("spec.scope", text(spec, "scope"), &["Cluster", "Namespaced"], wrong);
    check_versions(spec, old, wrong);
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(&spec["names"], field).is_empty() {
            wrong.push(Invalid::required(format!("spec.names.{field}"), ""));
        }
    }
    check_names(&spec["names"], wrong);
    check_conversion(&spec["conversion"], wrong);
    if spec["preserveUnknownFields"] == true {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        wrong.push(Invalid::value("spec.preserveUnknownFields", true, why));
    }
}

fn check_versions(spec: &Value, old: Option<&Value>, wrong: &mut Vec<Invalid>) {
    let versions = list(spec, "versions");
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        let name = text(version, "name");
        let complaints = meta::dns_1035_label(name);
        if !complaints.is_empty() {
            wrong.push(Invalid::value(format!("{at}.name"), name, complaints.join(",")));
        }
        let before = old.and_then(|old| list(old, "versions").iter().find(|before| text(before, "name") == name));
        if before != Some(version) {
            check_version(version, &at, before, wrong);
        }
    }
    let names: BTreeSet<&str> = versions.iter().map(|version| text(version, "name")).collect();
    let value = || spec["versions"].clone();
    if names.len() < versions.len() {
        wrong.push(Invalid::value("spec.versions", value(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        wrong.push(Invalid::value("spec.versions", value(), why));
    }
}

fn check_version(version: &Value, at: &str, before: Option<&Value>, wrong: &mut Vec<Invalid>) {
    check_deprecation(version, at, wrong);
    let schema = &version["schema"]["openAPIV3Schema"];
    let path = format!("{at}.schema.openAPIV3Schema");
    if schema.is_null() {
        wrong.push(Invalid::required(&path, "schemas are required"));
    } else if before.is_none_or(|before| before["schema"]["openAPIV3Schema"] != *schema) {
        if version["subresources"]["status"].is_object() {
            check_root(schema, &path, wrong);
        }
        wrong.extend(custom::compile(schema, &path).err().unwrap_or_default());
    }
    check_scale(&version["subresources"]["scale"], &format!("{at}.subresources.scale"), wrong);
    for (index, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
        check_column(column, &format!("{at}.additionalPrinterColumns[{index}]"), wrong);
    }
    check_selectable(list(version, "selectableFields"), schema, &format!("{at}.selectableFields"), wrong);
}

/// The status is checked by what its field says, so nothing about the whole object may be said that it would have to keep.
fn check_root(schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let other = |name: &str| ROOT.iter().all(|(keyword, _)| *keyword != name);
    if schema.as_object().is_some_and(|keywords| keywords.iter().any(|(name, value)| other(name) && !value.is_null())) {
        let names: Vec<&str> = ROOT.iter().map(|(_, name)| *name).collect();
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        );
        wrong.push(Invalid::value(at, schema.clone(), why));
    }
}

fn check_deprecation(version: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let mut refuse = |why: &str| wrong.push(Invalid::value(format!("{at}.deprecationWarning"), warning, why));
    if version["deprecated"] != true {
        return refuse("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        refuse("must be <= 256 characters long");
    }
    if warning.is_empty() {
        refuse("must not be an empty string");
    }
    if let Some(at) = warning.char_indices().find(|(_, c)| c.is_control()).map(|(at, _)| at) {
        refuse(&format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

fn check_scale(scale: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    if !scale.is_object() {
        return;
    }
    let selector = text(scale, "labelSelectorPath");
    let paths: [(&str, &[&str], &str, bool); 3] = [
        ("specReplicasPath", &[".spec."], "should be a json path under .spec", true),
        ("statusReplicasPath", &[".status."], "should be a json path under .status", true),
        (
            "labelSelectorPath",
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
            !selector.is_empty(),
        ),
    ];
    for (field, under, why, needed) in paths {
        let (path, at) = (text(scale, field), format!("{at}.{field}"));
        if !needed {
            continue;
        }
        if path.is_empty() {
            wrong.push(Invalid::required(at, ""));
        } else if !path.starts_with('.') {
            wrong.push(Invalid::value(at, path, "must be a simple json path starting with ."));
        } else if !under.iter().any(|under| path.starts_with(under)) {
            wrong.push(Invalid::value(at, path, why));
        }
    }
}

fn check_column(column: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    if text(column, "name").is_empty() {
        wrong.push(Invalid::required(format!("{at}.name"), ""));
    }
    let one_of = |words: &[&str]| format!("must be one of {}", words.join(","));
    match text(column, "type") {
        "" => wrong.push(Invalid::required(format!("{at}.type"), one_of(COLUMN_TYPES))),
        known if COLUMN_TYPES.contains(&known) => {}
        other => wrong.push(Invalid::value(format!("{at}.type"), other, one_of(COLUMN_TYPES))),
    }
    let format = text(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        wrong.push(Invalid::value(format!("{at}.format"), format, one_of(COLUMN_FORMATS)));
    }
    let path = text(column, "jsonPath");
    if path.is_empty() {
        wrong.push(Invalid::required(format!("{at}.jsonPath"), ""));
    } else if !path.starts_with('.') {
        wrong.push(Invalid::value(format!("{at}.jsonPath"), path, "must be a simple json path starting with ."));
    }
}

fn check_selectable(fields: &[Value], schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let mut seen = BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let (at, path) = (format!("{at}[{index}].jsonPath"), text(field, "jsonPath"));
        if path.is_empty() {
            wrong.push(Invalid::required(at, ""));
            continue;
        }
        let Some(found) = path.strip_prefix('.').and_then(|path| follow(path, schema)) else {
            wrong.push(Invalid::value(at, path, "is an invalid path: does not refer to a valid field"));
            continue;
        };
        if path == ".metadata" || path.starts_with(".metadata.") {
            wrong.push(Invalid::value(&at, path, "must not point to fields in metadata"));
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                       are allowed.";
            wrong.push(Invalid::value(&at, path, why));
        }
        if !seen.insert(path) {
            wrong.push(Invalid { field: at, problem: Problem::Duplicate(path.into()) });
        }
    }
    if seen.len() > MOST_SELECTABLE {
        let problem = Problem::TooMany { actual: seen.len(), most: MOST_SELECTABLE };
        wrong.push(Invalid { field: at.to_owned(), problem });
    }
}

/// The schema of the field at a path without lists.
fn follow<'a>(path: &str, schema: &'a Value) -> Option<&'a Value> {
    path.split('.').try_fold(schema, |schema, name| {
        schema["properties"]
            .get(name)
            .or_else(|| Some(&schema["additionalProperties"]).filter(|values| values.is_object()))
    })
}

fn check_names(names: &Value, wrong: &mut Vec<Invalid>) {
    let mut label = |field: String, name: &str, checked: &str, before: &str| {
        let complaints = meta::dns_1035_label(checked);
        if !name.is_empty() && !complaints.is_empty() {
            wrong.push(Invalid::value(field, name, format!("{before}{}", complaints.join(","))));
        }
    };
    for field in ["plural", "singular"] {
        let name = text(names, field);
        label(format!("spec.names.{field}"), name, name, "");
    }
    for field in ["kind", "listKind"] {
        let name = text(names, field);
        let before = "may have mixed case, but should otherwise match: ";
        label(format!("spec.names.{field}"), name, &name.to_lowercase(), before);
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in list(names, field).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let why = meta::dns_1035_label(name);
            if !why.is_empty() {
                wrong.push(Invalid::value(format!("spec.names.{field}[{index}]"), name, why.join(",")));
            }
        }
    }
    let kind = text(names, "kind");
    if !kind.is_empty() && kind == text(names, "listKind") {
        wrong.push(Invalid::value("spec.names.listKind", kind, "kind and listKind may not be the same"));
    }
}

fn check_conversion(conversion: &Value, wrong: &mut Vec<Invalid>) {
    match text(conversion, "strategy") {
        "" => wrong.push(Invalid::required("spec.conversion.strategy", "")),
        "None" if !conversion["webhook"].is_null() => wrong.push(Invalid::forbidden(
            "spec.conversion.webhookClientConfig",
            "should not be set when strategy is not set to Webhook",
        )),
        "None" => {}
        "Webhook" => wrong.push(Invalid::value(
            "spec.conversion.strategy",
            "Webhook",
            "conversion by webhooks is not supported by this server: serve versions that differ in their name only, with None",
        )),
        other => wrong.push(Invalid::not_supported("spec.conversion.strategy", other, &["None", "Webhook"])),
    }
}

fn check_changes(crd: &Value, old: &Value, wrong: &mut Vec<Invalid>) {
    let established = list(&old["status"], "conditions")
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let fields: [(&str, &[&str], bool); 4] = [
        ("spec.scope", &["scope"], established),
        ("spec.names.kind", &["names", "kind"], established),
        ("spec.group", &["group"], true),
        ("spec.names.plural", &["names", "plural"], true),
    ];
    for (field, path, fixed) in fields {
        let look = |crd: &Value| path.iter().fold(crd["spec"].clone(), |value, name| value[*name].clone());
        let (value, before) = (look(crd), look(old));
        if fixed && value != before {
            wrong.push(Invalid::value(field, value, IMMUTABLE));
        }
    }
}

/// Objects may be stored in every version that status.storedVersions names: it must go on to be known.
fn check_stored(crd: &Value, wrong: &mut Vec<Invalid>) {
    let stored = list(&crd["status"], "storedVersions");
    let versions = list(&crd["spec"], "versions");
    let value = || crd["status"]["storedVersions"].clone();
    if stored.is_empty() {
        let why = "must have at least one stored version";
        return wrong.push(Invalid::value("status.storedVersions", value(), why));
    }
    for version in versions.iter().filter(|version| version["storage"] == true) {
        let name = text(version, "name");
        if !stored.iter().any(|stored| stored == name) {
            let why = format!("must have the storage version {name}");
            wrong.push(Invalid::value("status.storedVersions", value(), why));
        }
    }
    for (index, name) in stored.iter().enumerate().filter_map(|(index, name)| Some((index, name.as_str()?))) {
        if !versions.iter().any(|version| text(version, "name") == name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            wrong.push(Invalid::value(format!("status.storedVersions[{index}]"), name, why));
        }
    }
}

/// Whether a group is Kubernetes' own.
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// Whether a definition in a group of Kubernetes' own is approved, the reason, and the message.
pub(crate) fn approval(crd: &Value) -> (bool, &'static str, String) {
    let annotation = crd["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default();
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    if annotation.is_empty() {
        let why = format!("protected groups must have approval annotation {APPROVED:?}, {see}");
        return (false, "MissingAnnotation", why);
    }
    if annotation.starts_with("unapproved") {
        return (false, "UnapprovedAnnotation", format!("not approved: {annotation:?}"));
    }
    match url::Url::parse(annotation) {
        Ok(url) if url.has_host() => (true, "ApprovedAnnotation", format!("approved in {annotation}")),
        _ => {
            let why = format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \
                 \"unapproved\", {see}"
            );
            (false, "InvalidAnnotation", why)
        }
    }
}

fn check_approval(crd: &Value, old: Option<&Value>, wrong: &mut Vec<Invalid>) {
    if !is_protected(text(&crd["spec"], "group")) {
        return;
    }
    let (_, reason, why) = approval(crd);
    if old.is_some_and(|old| approval(old).1 == reason) {
        return;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    match reason {
        "MissingAnnotation" => wrong.push(Invalid::required(field, why)),
        "InvalidAnnotation" => {
            wrong.push(Invalid::value(field, crd["metadata"]["annotations"][APPROVED].clone(), why));
        }
        _ => {}
    }
}
