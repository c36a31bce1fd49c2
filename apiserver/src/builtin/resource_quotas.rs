//! ResourceQuotas: how much a namespace may hold.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceQuota;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{
    kubernetes, list,
    quantity::{Amount, thousandths, unreadable},
    refuse, text,
};
use crate::{
    kinds::{Cell, Hooks, Kind},
    meta,
    status::is_enough,
    table::{age_column, column, name_column},
};

/// What can be limited by a name without a prefix.
const STANDARD: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// Scopes, each with those that cannot be meant together with it.
const SCOPES: [(&str, Option<&str>); 6] = [
    ("BestEffort", Some("NotBestEffort")),
    ("CrossNamespacePodAffinity", None),
    ("NotBestEffort", Some("BestEffort")),
    ("NotTerminating", Some("Terminating")),
    ("PriorityClass", None),
    ("Terminating", Some("NotTerminating")),
];

/// ResourceQuotas.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<ResourceQuota>("resourcequotas", &["quota"]);
    kind.status = true;
    kind.returns_deleted = true;
    kind.columns = vec![
        name_column(),
        column(
            "Request",
            "string",
            "What is used, of what there may be.",
            Cell::Function(|quota, _| shown(quota, false)),
        ),
        column("Limit", "string", "The same, of limits.", Cell::Function(|quota, _| shown(quota, true))),
        age_column(),
    ];
    kind.hooks = Hooks { check, prepare, ..Hooks::default() };
    kind
}

fn shown(quota: &Value, limits: bool) -> Value {
    let status = &quota["status"];
    let hard = status["hard"].as_object().into_iter().flatten();
    let mut shown: Vec<String> = hard
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let amount = |value: &Value| Amount::read(value).unwrap_or_default();
            format!("{name}: {}/{}", amount(&status["used"][name]), amount(hard))
        })
        .collect();
    shown.sort();
    shown.join(", ").into()
}

fn prepare(quota: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        quota["status"] = json!({});
    }
}

fn check(quota: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &quota["spec"];
    check_amounts(&spec["hard"], "spec.hard", &mut wrong);
    check_scopes(spec, &mut wrong);
    check_selector(spec, &mut wrong);
    for part in ["hard", "used"] {
        check_amounts(&quota["status"][part], &format!("status.{part}"), &mut wrong);
    }
    if let Some(old) = old {
        let scopes = |spec: &Value| list(spec, "scopes").iter().map(Value::to_string).collect::<BTreeSet<_>>();
        if scopes(spec) != scopes(&old["spec"]) {
            wrong.push(Invalid::value("spec.scopes", spec["scopes"].clone(), "field is immutable"));
        }
    }
    wrong
}

fn check_amounts(amounts: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        if is_enough(wrong) {
            return;
        }
        let field = format!("{at}[{name}]");
        refuse(&field, name, meta::qualified_name(name), wrong);
        if !name.contains('/') && !is_standard(name) {
            wrong.push(Invalid::printed(&*field, name, "must be a standard resource type or fully qualified"));
            wrong.push(Invalid::printed(&*field, name, "must be a standard resource for quota"));
        }
        match thousandths(amount) {
            // What Go reads and we cannot compare is more than anybody has.
            None => {
                let why = unreadable(amount).unwrap_or_else(|| "has too many digits".to_owned());
                wrong.push(Invalid::value(&*field, amount.clone(), why));
            }
            Some(..0) => wrong.push(Invalid::value(&*field, amount.clone(), "must be greater than or equal to 0")),
            Some(parts) if parts % 1000 != 0 && is_counted(name) => {
                wrong.push(Invalid::value(&*field, amount.clone(), "must be an integer"));
            }
            Some(_) => {}
        }
    }
}

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// There are only whole ones of it.
fn is_counted(name: &str) -> bool {
    let objects =
        ["pods", "persistentvolumeclaims", "configmaps", "secrets", "resourcequotas", "replicationcontrollers"];
    objects.contains(&name) || name == "services" || name.starts_with("services.") || name.starts_with("count/")
}

/// What a scope can be asked about: Pods, and what they use.
fn fits(scope: &str, resource: &str) -> bool {
    let of_pods = resource == "pods" || !STANDARD.contains(&resource) || is_computed(resource);
    match scope {
        "BestEffort" => resource == "pods",
        _ => of_pods,
    }
}

fn is_computed(resource: &str) -> bool {
    let resource = resource.trim_start_matches("requests.").trim_start_matches("limits.");
    matches!(resource, "cpu" | "memory" | "ephemeral-storage")
}

fn check_scopes(spec: &Value, wrong: &mut Vec<Invalid>) {
    let scopes: Vec<&str> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    let mut refuse = |why: &str| {
        let scopes: Vec<String> = scopes.iter().map(|scope| format!("{scope:?}")).collect();
        let shown = format!("[]core.ResourceQuotaScope{{{}}}", scopes.join(", "));
        wrong.push(Invalid::printed("spec.scopes", shown, why));
    };
    if scopes.iter().any(|scope| !SCOPES.iter().any(|(name, _)| name == scope)) {
        refuse("unsupported scope");
    }
    misfits(&scopes, spec).into_iter().for_each(refuse);
}

/// What is wrong with these scopes together, and over what is limited.
fn misfits(scopes: &[&str], spec: &Value) -> Vec<&'static str> {
    let hard: Vec<&String> = spec["hard"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
    let misfit = |scope: &&str| hard.iter().any(|name| is_standard(name) && !fits(scope, name));
    let mut wrong = Vec::new();
    if scopes.iter().any(misfit) {
        wrong.push("unsupported scope applied to resource");
    }
    let conflicts = |scope: &&str| {
        let other = SCOPES.iter().find(|(name, _)| name == scope).and_then(|(_, other)| *other);
        other.is_some_and(|other| scopes.contains(&other))
    };
    if scopes.iter().any(conflicts) {
        wrong.push("conflicting scopes");
    }
    wrong
}

fn check_selector(spec: &Value, wrong: &mut Vec<Invalid>) {
    let at = "spec.scopeSelector.matchExpressions";
    let requirements = list(&spec["scopeSelector"], "matchExpressions");
    for requirement in requirements {
        if is_enough(wrong) {
            return;
        }
        let (scope, operator) = (text(requirement, "scopeName"), text(requirement, "operator"));
        if !SCOPES.iter().any(|(name, _)| *name == scope) {
            wrong.push(Invalid::value(format!("{at}.scopeName"), scope, "unsupported scope"));
        } else if scope != "PriorityClass" && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                       ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                       ResourceQuotaScopeCrossNamespacePodAffinity";
            wrong.push(Invalid::value(format!("{at}.operator"), operator, why));
        }
        match (operator, list(requirement, "values").is_empty()) {
            ("In" | "NotIn", true) => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                wrong.push(Invalid::required(format!("{at}.values"), why));
            }
            ("Exists" | "DoesNotExist", false) => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                wrong.push(Invalid::value(format!("{at}.values"), requirement["values"].clone(), why));
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => wrong.push(Invalid::value(format!("{at}.operator"), operator, "not a valid selector operator")),
        }
    }
    let scopes: Vec<&str> = requirements.iter().map(|requirement| text(requirement, "scopeName")).collect();
    for why in misfits(&scopes, spec) {
        wrong.push(Invalid::value(at, spec["scopeSelector"].clone(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::printed;

    fn complaints(spec: Value) -> Vec<String> {
        check(&json!({ "spec": spec }), None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_quota_limits_what_there_is_in_whole_numbers_where_it_counts() {
        let good = json!({"hard": {"pods": "4", "requests.cpu": "500m", "count/minersets.apps.onex.io": 2,
            "requests.nvidia.com/gpu": 1, "limits.memory": "1Gi", "hugepages-2Mi": 1}});
        assert_eq!(complaints(good), [""; 0]);
        assert_eq!(
            complaints(json!({"hard": {"horses": "4", "pods": "1500m", "secrets": "-1", "services": "many"}})),
            [
                "spec.hard[horses]: Invalid value: horses: must be a standard resource type or fully qualified",
                "spec.hard[horses]: Invalid value: horses: must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[secrets]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[services]: Invalid value: \"many\": quantities must match the regular expression \
                 '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ]
        );
    }

    #[test]
    fn scopes_are_about_pods_and_do_not_contradict_each_other() {
        assert_eq!(complaints(json!({"hard": {"pods": 1}, "scopes": ["Terminating", "NotBestEffort"]})), [""; 0]);
        let wrong = complaints(json!({"hard": {"secrets": 1}, "scopes": ["Terminating", "NotTerminating", "Odd"]}));
        let shown =
            r#"spec.scopes: Invalid value: []core.ResourceQuotaScope{"Terminating", "NotTerminating", "Odd"}: "#;
        let why = ["unsupported scope", "unsupported scope applied to resource", "conflicting scopes"];
        assert_eq!(wrong, why.map(|why| format!("{shown}{why}")));
        let of = |operator: &str, values: &[&str]| {
            let requirement = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            complaints(json!({"hard": {"pods": 1}, "scopeSelector": {"matchExpressions": [requirement]}})).len()
        };
        assert_eq!((of("In", &["high"]), of("In", &[]), of("Exists", &["high"]), of("Is", &[])), (0, 1, 1, 1));
        let (new, old) = (json!({"spec": {"scopes": ["BestEffort"]}}), json!({"spec": {}}));
        assert_eq!(check(&new, Some(&old))[0].field, "spec.scopes");
    }

    #[test]
    fn kubectl_shows_what_is_used() {
        let quota = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"pods": "4", "limits.cpu": "2", "count/x.y": "1"}, "used": {"pods": "3", "limits.cpu": "1500m"}}});
        assert_eq!(
            printed(&kind(), &[quota], 0),
            "Name | Request | Limit | Age\nq | count/x.y: 0/1, pods: 3/4 | limits.cpu: 1500m/2 | <unknown>"
        );
    }
}
