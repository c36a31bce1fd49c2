//! coordination.k8s.io: leases, by which controllers elect a leader.

use k8s_openapi::api::coordination::v1::Lease;
use onex_crds::Invalid;
use serde_json::Value;

use super::kubernetes;
use crate::{
    kinds::{Hooks, Kind},
    table::{age_column, column, name_column, path},
};

/// Leases. An update must say which version it saw: two candidates that both write blindly would both lead.
pub fn lease() -> Kind {
    let mut kind = kubernetes::<Lease>("leases", &[]);
    kind.columns = vec![
        name_column(),
        column("Holder", "string", "Who holds the lease.", path(".spec.holderIdentity")),
        age_column(),
    ];
    kind.unconditional_update = false;
    kind.create_on_update = true;
    kind.hooks = Hooks { check, ..Hooks::default() };
    kind
}

fn check(lease: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let spec = &lease["spec"];
    let mut wrong = Vec::new();
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        wrong.push(Invalid::value("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
    if let Some(transitions) = spec["leaseTransitions"].as_i64().filter(|transitions| *transitions < 0) {
        wrong.push(Invalid::value("spec.leaseTransitions", transitions, "must be greater than or equal to 0"));
    }
    if spec["preferredHolder"].is_string() && !spec["strategy"].is_string() {
        let why = "can only be specified when `strategy` is set";
        wrong.push(Invalid::value("spec.preferredHolder", spec["preferredHolder"].clone(), why));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_lasts_some_time_and_never_changes_hands_less_than_never() {
        let wrong = check(&json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}), None);
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(
            wrong,
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
        assert!(check(&json!({"spec": {"leaseDurationSeconds": 15}}), None).is_empty());
    }
}
