//! Roles, and who has them.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use onex_crds::Invalid;
use serde_json::Value;

use super::{go, kubernetes, list, text};
use crate::{
    kinds::{Cell, Hooks, Kind, Names},
    table::{age_column, column, name_column, wide_column},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The kinds of this group.
pub fn kinds() -> Vec<Kind> {
    let mut roles = [kubernetes::<Role>("roles", &[]), kubernetes::<ClusterRole>("clusterroles", &[])];
    for kind in &mut roles {
        kind.hooks = Hooks { check: check_role, ..Hooks::default() };
        kind.columns = vec![name_column(), created_column()];
    }
    let mut bindings =
        [kubernetes::<RoleBinding>("rolebindings", &[]), kubernetes::<ClusterRoleBinding>("clusterrolebindings", &[])];
    for kind in &mut bindings {
        kind.hooks = Hooks { fill: fill_binding, check: check_binding, ..Hooks::default() };
        let listed = |name, cell| wide_column(name, "string", "Who has the role.", Cell::Function(cell));
        kind.columns = vec![
            name_column(),
            column("Role", "string", "The role that is given.", Cell::Function(role)),
            age_column(),
            listed("Users", |object, _| subjects(object, "User")),
            listed("Groups", |object, _| subjects(object, "Group")),
            listed("ServiceAccounts", |object, _| subjects(object, "ServiceAccount")),
        ];
    }
    let mut kinds: Vec<Kind> = roles.into_iter().chain(bindings).collect();
    for kind in &mut kinds {
        kind.namespaced = !kind.plural.starts_with("cluster");
        kind.names = Names::Segment;
        kind.create_on_update = true;
    }
    kinds
}

fn created_column() -> crate::kinds::Column {
    let created = |object: &Value, _| object["metadata"]["creationTimestamp"].clone();
    column("Created At", "date", "When the object was created.", Cell::Function(created))
}

fn role(object: &Value, _: i64) -> Value {
    let reference = &object["roleRef"];
    format!("{}/{}", text(reference, "kind"), text(reference, "name")).into()
}

fn subjects(object: &Value, kind: &str) -> Value {
    let of_kind = list(object, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
    let shown = |subject: &Value| match (kind, text(subject, "namespace")) {
        ("ServiceAccount", namespace) => format!("{namespace}/{}", text(subject, "name")),
        _ => text(subject, "name").to_owned(),
    };
    of_kind.map(shown).collect::<Vec<_>>().join(", ").into()
}

fn check_role(role: &Value, _: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let namespaced = !text(&role["metadata"], "namespace").is_empty();
    for (index, rule) in list(role, "rules").iter().enumerate() {
        if crate::status::is_enough(&wrong) {
            break;
        }
        let at = format!("rules[{index}]");
        let is_empty = |field: &str| list(rule, field).is_empty();
        if is_empty("verbs") {
            wrong.push(Invalid::required(format!("{at}.verbs"), "verbs must contain at least one value"));
        }
        if !is_empty("nonResourceURLs") {
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                wrong.push(Invalid::printed(
                    format!("{at}.nonResourceURLs"),
                    go::strings(&rule["nonResourceURLs"]),
                    why,
                ));
            }
            if !is_empty("apiGroups") || !is_empty("resources") || !is_empty("resourceNames") {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                wrong.push(Invalid::printed(
                    format!("{at}.nonResourceURLs"),
                    go::strings(&rule["nonResourceURLs"]),
                    why,
                ));
            }
            continue;
        }
        if is_empty("apiGroups") {
            let why = "resource rules must supply at least one api group";
            wrong.push(Invalid::required(format!("{at}.apiGroups"), why));
        }
        if is_empty("resources") {
            let why = "resource rules must supply at least one resource";
            wrong.push(Invalid::required(format!("{at}.resources"), why));
        }
    }
    for (index, selector) in list(&role["aggregationRule"], "clusterRoleSelectors").iter().enumerate() {
        let at = format!("aggregationRule.clusterRoleSelectors[{index}].matchLabels");
        crate::meta::check_labels(&selector["matchLabels"], &at, &mut wrong);
    }
    if role["aggregationRule"].is_object() && list(&role["aggregationRule"], "clusterRoleSelectors").is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        wrong.push(Invalid::required("aggregationRule.clusterRoleSelectors", why));
    }
    wrong
}

fn fill_binding(binding: &mut Value) {
    if let Some(reference) = binding.get_mut("roleRef").and_then(Value::as_object_mut) {
        super::fill(reference, "apiGroup", GROUP);
    }
    for subject in binding.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(fields) = subject.as_object_mut() else { continue };
        if matches!(fields.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            super::fill(fields, "apiGroup", GROUP);
        }
    }
}

fn check_binding(binding: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let reference = &binding["roleRef"];
    if text(reference, "apiGroup") != GROUP {
        wrong.push(Invalid::not_supported("roleRef.apiGroup", text(reference, "apiGroup"), &[GROUP]));
    }
    let namespaced = !text(&binding["metadata"], "namespace").is_empty();
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(reference, "kind")) {
        wrong.push(Invalid::not_supported("roleRef.kind", text(reference, "kind"), kinds));
    }
    match text(reference, "name") {
        "" => wrong.push(Invalid::required("roleRef.name", "")),
        name => {
            let complaints = crate::meta::path_segment(name);
            wrong.extend(complaints.into_iter().map(|why| Invalid::value("roleRef.name", name, why)));
        }
    }
    for (index, subject) in list(binding, "subjects").iter().enumerate() {
        if crate::status::is_enough(&wrong) {
            break;
        }
        check_subject(subject, &format!("subjects[{index}]"), namespaced, &mut wrong);
    }
    if let Some(old) = old
        && old["roleRef"] != *reference
    {
        let [group, kind, name] = ["apiGroup", "kind", "name"].map(|field| text(reference, field));
        let shown = format!("rbac.RoleRef{{APIGroup:{group:?}, Kind:{kind:?}, Name:{name:?}}}");
        wrong.push(Invalid::printed("roleRef", shown, "cannot change roleRef"));
    }
    wrong
}

fn check_subject(subject: &Value, at: &str, namespaced: bool, wrong: &mut Vec<Invalid>) {
    if text(subject, "name").is_empty() {
        wrong.push(Invalid::required(format!("{at}.name"), ""));
    }
    let group = text(subject, "apiGroup");
    match text(subject, "kind") {
        "ServiceAccount" => {
            let name = text(subject, "name");
            if !name.is_empty() {
                let complaints = crate::meta::dns_subdomain(name);
                wrong.extend(complaints.into_iter().map(|why| Invalid::value(format!("{at}.name"), name, why)));
            }
            if !group.is_empty() {
                wrong.push(Invalid::not_supported(format!("{at}.apiGroup"), group, &[""]));
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                wrong.push(Invalid::required(format!("{at}.namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                wrong.push(Invalid::not_supported(format!("{at}.apiGroup"), group, &[GROUP]));
            }
        }
        other => {
            wrong.push(Invalid::not_supported(format!("{at}.kind"), other, &["ServiceAccount", "User", "Group"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(wrong: Vec<Invalid>) -> Vec<String> {
        wrong.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_rule_is_of_resources_or_of_paths_and_has_verbs() {
        let role = |rule: Value| json!({"metadata": {"name": "r"}, "rules": [rule]});
        let none: [&str; 0] = [];
        let good = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(said(check_role(&role(good), None)), none);
        assert_eq!(said(check_role(&role(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]})), None)), none);
        assert_eq!(
            said(check_role(&role(json!({})), None)),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
        let mut both = role(json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]}));
        assert_eq!(check_role(&both, None).len(), 1);
        both["metadata"]["namespace"] = "a".into();
        assert_eq!(check_role(&both, None).len(), 2);
    }

    #[test]
    fn a_binding_keeps_its_role_and_names_subjects_that_can_be() {
        let mut binding = json!({
            "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "ann"}, {"kind": "ServiceAccount", "name": "s", "namespace": "a"}],
        });
        fill_binding(&mut binding);
        assert_eq!(said(check_binding(&binding, None)), [""; 0]);
        let mut other = binding.clone();
        other["roleRef"]["name"] = "edit".into();
        assert_eq!(
            said(check_binding(&other, Some(&binding))),
            [
                "roleRef: Invalid value: rbac.RoleRef{APIGroup:\"rbac.authorization.k8s.io\", Kind:\"ClusterRole\", Name:\"edit\"}: cannot change roleRef"
            ]
        );
        other["roleRef"]["kind"] = "Role".into();
        other["subjects"] = json!([{"kind": "Robot", "name": ""}, {"kind": "ServiceAccount", "name": "s"}]);
        assert_eq!(
            said(check_binding(&other, None)),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[0].name: Required value",
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                "subjects[1].namespace: Required value",
            ]
        );
    }
}
