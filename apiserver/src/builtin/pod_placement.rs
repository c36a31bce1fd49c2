//! Where a Pod may run: the usual mistakes in tolerations, affinities and the spread over a topology.

use onex_crds::Invalid;
use serde_json::Value;

use super::{list, refuse, refuse_unsupported, text};
use crate::{meta, status::is_enough};

/// The usual mistakes in where the Pods of a spec want to be.
pub fn check_affinity(spec: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    let (affinity, at) = (&spec["affinity"], format!("{at}.affinity"));
    let nodes = &affinity["nodeAffinity"];
    if nodes[required].is_object() {
        let at = format!("{at}.nodeAffinity.{required}.nodeSelectorTerms");
        let terms = list(&nodes[required], "nodeSelectorTerms");
        if terms.is_empty() {
            wrong.push(Invalid::required(at.as_str(), "must have at least one node selector term"));
        }
        for (index, term) in terms.iter().enumerate() {
            check_node_term(term, &format!("{at}[{index}]"), wrong);
        }
    }
    for (index, term) in list(nodes, preferred).iter().enumerate() {
        let at = format!("{at}.nodeAffinity.{preferred}[{index}]");
        check_weight(term, &at, wrong);
        check_node_term(&term["preference"], &format!("{at}.preference"), wrong);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (index, term) in list(&affinity[kind], required).iter().enumerate() {
            check_pod_term(term, &format!("{at}.{kind}.{required}[{index}]"), wrong);
        }
        for (index, term) in list(&affinity[kind], preferred).iter().enumerate() {
            let at = format!("{at}.{kind}.{preferred}[{index}]");
            check_weight(term, &at, wrong);
            check_pod_term(&term["podAffinityTerm"], &format!("{at}.podAffinityTerm"), wrong);
        }
    }
}

fn check_weight(term: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let weight = term["weight"].as_i64().unwrap_or_default();
    if !(1..=100).contains(&weight) {
        wrong.push(Invalid::value(format!("{at}.weight"), weight, "must be in the range 1-100"));
    }
}

fn check_node_term(term: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    for (index, requirement) in list(term, "matchExpressions").iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{at}.matchExpressions[{index}]");
        let (operator, count) = (text(requirement, "operator"), list(requirement, "values").len());
        match operator {
            "In" | "NotIn" if count == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                wrong.push(Invalid::required(format!("{at}.values"), why));
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                wrong.push(Invalid::forbidden(format!("{at}.values"), why));
            }
            "Gt" | "Lt" if count != 1 => {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                wrong.push(Invalid::required(format!("{at}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                wrong.push(Invalid::value(format!("{at}.operator"), other, "not a valid selector operator"));
            }
        }
        let key = text(requirement, "key");
        refuse(&format!("{at}.key"), key, meta::qualified_name(key), wrong);
    }
}

fn check_pod_term(term: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    if is_enough(wrong) {
        return;
    }
    meta::check_label_selector(&term["labelSelector"], &format!("{at}.labelSelector"), wrong);
    let (key, at) = (text(term, "topologyKey"), format!("{at}.topologyKey"));
    if key.is_empty() {
        wrong.push(Invalid::required(at.as_str(), "can not be empty"));
    }
    refuse(&at, key, meta::qualified_name(key), wrong);
}

/// The usual mistakes in how Pods are spread.
pub fn check_spread(spec: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    for (index, spread) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{at}.topologySpreadConstraints[{index}]");
        let skew = spread["maxSkew"].as_i64().unwrap_or_default();
        if skew <= 0 {
            wrong.push(Invalid::value(format!("{at}.maxSkew"), skew, "must be greater than zero"));
        }
        if text(spread, "topologyKey").is_empty() {
            wrong.push(Invalid::required(format!("{at}.topologyKey"), "can not be empty"));
        }
        let what = text(spread, "whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&what) {
            let at = format!("{at}.whenUnsatisfiable");
            wrong.push(Invalid::not_supported(at, what, &["DoNotSchedule", "ScheduleAnyway"]));
        }
        meta::check_label_selector(&spread["labelSelector"], &format!("{at}.labelSelector"), wrong);
    }
}

/// The usual mistakes in what Pods bear with.
pub fn check_tolerations(spec: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{at}.tolerations[{index}]");
        let (key, operator, value) = (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"));
        if key.is_empty() {
            if operator != "Exists" {
                let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                wrong.push(Invalid::value(format!("{at}.operator"), operator, why));
            }
        } else {
            refuse(&format!("{at}.key"), key, meta::qualified_name(key), wrong);
        }
        let effect = text(toleration, "effect");
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            wrong.push(Invalid::value(format!("{at}.effect"), effect, why));
        }
        match operator {
            "" | "Equal" => refuse(&format!("{at}.operator"), value, meta::label_value(value), wrong),
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                wrong.push(Invalid::value(format!("{at}.operator"), value, why));
            }
            _ => refuse_unsupported(&format!("{at}.operator"), operator, &["Equal", "Exists"], wrong),
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        refuse_unsupported(&format!("{at}.effect"), effect, &effects, wrong);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_placed_says_why() {
        let spec = json!({
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In"}, {"key": "zone", "operator": "Exists", "values": ["a"]},
                    {"key": "cores", "operator": "Gt", "values": ["1", "2"]}]}]}}},
            "tolerations": [{"key": "k", "operator": "Exists"}, {"key": "k", "effect": "Never"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        });
        let mut wrong = Vec::new();
        check_affinity(&spec, "spec", &mut wrong);
        check_tolerations(&spec, "spec", &mut wrong);
        check_spread(&spec, "spec", &mut wrong);
        let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        let terms = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
        assert_eq!(
            said,
            [
                format!("{terms}.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
                format!("{terms}.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
                format!("{terms}.matchExpressions[2].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'"),
                "spec.tolerations[1].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"".to_owned(),
            ]
        );
    }
}
