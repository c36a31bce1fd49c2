//! policy: PodDisruptionBudgets.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{
    kubernetes, refuse_negative, refuse_unsupported,
    replicas::{refuse_amount, refuse_more_than_all},
    templates::check_label_selector,
    text,
};
use crate::{
    kinds::{Cell, Hooks, Kind},
    table::{age_column, column, name_column},
};

/// PodDisruptionBudgets.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<PodDisruptionBudget>("poddisruptionbudgets", &["pdb"]);
    kind.status = true;
    kind.generation = true;
    kind.unconditional_update = false;
    kind.columns = vec![
        name_column(),
        column(
            "Min Available",
            "string",
            "How many Pods must stay.",
            Cell::Function(|budget, _| amount(&budget["spec"]["minAvailable"])),
        ),
        column(
            "Max Unavailable",
            "string",
            "How many Pods may be missing.",
            Cell::Function(|budget, _| amount(&budget["spec"]["maxUnavailable"])),
        ),
        column(
            "Allowed Disruptions",
            "integer",
            "How many Pods may be evicted now.",
            Cell::Function(|budget, _| budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0).into()),
        ),
        age_column(),
    ];
    kind.hooks = Hooks { check, prepare, ..Hooks::default() };
    kind
}

fn amount(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(text) => text.clone().into(),
        other => other.to_string().into(),
    }
}

fn prepare(budget: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        let nothing = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        budget["status"] = nothing;
    }
}

fn check(budget: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &budget["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        wrong.push(Invalid::value("spec", spec.clone(), why));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        refuse_amount(&format!("spec.{field}"), &spec[field], &mut wrong);
        refuse_more_than_all(&format!("spec.{field}"), &spec[field], &mut wrong);
    }
    check_label_selector(&spec["selector"], "spec.selector", &mut wrong);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let policy = text(spec, "unhealthyPodEvictionPolicy");
    refuse_unsupported("spec.unhealthyPodEvictionPolicy", policy, &policies, &mut wrong);
    let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    refuse_negative(&budget["status"], "status", &counts, &mut wrong);
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::printed;

    #[test]
    fn a_budget_says_one_number() {
        let complaints =
            |spec: Value| check(&json!({ "spec": spec }), None).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(complaints(json!({"minAvailable": "50%"})).is_empty());
        assert_eq!(
            complaints(json!({"minAvailable": 1, "maxUnavailable": "101%"})),
            [
                "spec: Invalid value: \"object\": minAvailable and maxUnavailable cannot be both set",
                "spec.maxUnavailable: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"101%\"}: must not be \
                 greater than 100%",
            ]
        );
        let budget =
            json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1}, "status": {"disruptionsAllowed": 2}});
        assert_eq!(
            printed(&kind(), &[budget], 0),
            "Name | Min Available | Max Unavailable | Allowed Disruptions | Age\nb | 1 | N/A | 2 | <unknown>"
        );
    }
}
