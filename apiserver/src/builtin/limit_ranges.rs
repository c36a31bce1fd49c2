//! LimitRanges: how much a container, a Pod or a claim may ask for, and what it gets that asks for nothing.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::LimitRange;
use onex_crds::{Invalid, Problem};
use serde_json::Value;

use super::{
    items, kubernetes, list, object,
    quantity::{Amount, unreadable},
    refuse, text,
};
use crate::{
    kinds::{Cell, Hooks, Kind},
    meta,
    status::is_enough,
    table::{column, name_column},
};

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];
const COMPUTED: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

/// LimitRanges.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<LimitRange>("limitranges", &["limits"]);
    kind.create_on_update = true;
    let when = Cell::Function(|range, _| range["metadata"]["creationTimestamp"].clone());
    kind.columns = vec![name_column(), column("Created At", "date", "When it was created.", when)];
    kind.hooks = Hooks { fill, check, ..Hooks::default() };
    kind
}

/// A limit that is not written is the greatest; a request, the limit, or else the least.
fn fill(range: &mut Value) {
    let Some(spec) = range.as_object_mut().and_then(|range| object(range, "spec")) else { return };
    for limit in items(spec, "limits").filter(|limit| limit.get("type").is_some_and(|kind| kind == "Container")) {
        let fallback = [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")];
        for (name, from) in fallback {
            let Some(Value::Object(from)) = limit.get(from).cloned() else { continue };
            let Some(to) = object(limit, name) else { continue };
            for (resource, amount) in from {
                to.entry(resource).or_insert(amount);
            }
        }
    }
}

fn check(range: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let mut types = BTreeSet::new();
    for (index, limit) in list(&range["spec"], "limits").iter().enumerate() {
        if is_enough(&wrong) {
            return wrong;
        }
        let at = format!("spec.limits[{index}]");
        let kind = text(limit, "type");
        refuse(&format!("{at}.type"), kind, meta::qualified_name(kind), &mut wrong);
        if !kind.contains('/') && !TYPES.contains(&kind) {
            let why = "must be a standard limit type or fully qualified";
            wrong.push(Invalid::value(format!("{at}.type"), kind, why));
        }
        if !types.insert(kind) {
            wrong.push(Invalid { field: format!("{at}.type"), problem: Problem::Duplicate(kind.into()) });
        }
        check_limit(limit, kind, &at, &mut wrong);
    }
    wrong
}

fn check_limit(limit: &Value, kind: &str, at: &str, wrong: &mut Vec<Invalid>) {
    let mut resources = BTreeSet::new();
    for which in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let amounts = limit[which].as_object().filter(|amounts| !amounts.is_empty());
        if kind == "Pod" && which.starts_with("default") {
            if amounts.is_some() {
                wrong.push(Invalid::forbidden(format!("{at}.{which}"), "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (resource, amount) in amounts.into_iter().flatten() {
            if is_enough(wrong) {
                return;
            }
            check_resource(resource, amount, kind, &format!("{at}.{which}[{resource}]"), wrong);
            resources.insert(resource.as_str());
        }
    }
    let storage = |which: &str| !limit[which]["storage"].is_null();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        wrong.push(Invalid::required(format!("{at}.limits"), why));
    }
    for resource in resources {
        if is_enough(wrong) {
            return;
        }
        check_order(limit, resource, at, wrong);
    }
}

fn check_resource(resource: &str, amount: &Value, kind: &str, field: &str, wrong: &mut Vec<Invalid>) {
    refuse(field, resource, meta::qualified_name(resource), wrong);
    let known = COMPUTED.contains(&resource) || resource.starts_with("hugepages-");
    if !resource.contains('/') && !known {
        match kind {
            "Container" | "Pod" => {
                wrong.push(Invalid::printed(field, resource, "must be a standard resource for containers"));
            }
            _ if resource == "storage" => {}
            _ => wrong.push(Invalid::printed(field, resource, "must be a standard resource type or fully qualified")),
        }
    }
    if Amount::read(amount).is_none() {
        let why = unreadable(amount).unwrap_or_else(|| "has too many digits".to_owned());
        wrong.push(Invalid::value(field, amount.clone(), why));
    }
}

/// From the least over the defaults to the most.
fn check_order(limit: &Value, resource: &str, at: &str, wrong: &mut Vec<Invalid>) {
    let amount = |which: &str| Amount::read(&limit[which][resource]).map(|amount| (amount, amount.to_string()));
    // The smaller one, the greater one, which of both is shown at which field, and what they are called.
    let order = [
        ("min", "max", "min", "min", "min value", "max value"),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min value", "default request value"),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request value", "max value"),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "defaultRequest",
            "default request value",
            "default limit value",
        ),
        ("min", "default", "min", "default", "min value", "default value"),
        ("default", "max", "max", "default", "default value", "max value"),
    ];
    for (small, great, shown, field, one, other) in order {
        if let (Some((less, less_text)), Some((more, more_text))) = (amount(small), amount(great))
            && less.thousandths > more.thousandths
        {
            let shown = limit[shown][resource].clone();
            let why = format!("{one} {less_text} is greater than {other} {more_text}");
            wrong.push(Invalid::value(format!("{at}.{field}[{resource}]"), shown, why));
        }
    }
    let Some((ratio, ratio_text)) = amount("maxLimitRequestRatio") else { return };
    let field = format!("{at}.maxLimitRequestRatio[{resource}]");
    let shown = limit["maxLimitRequestRatio"][resource].clone();
    if ratio.thousandths < 1000 {
        wrong.push(Invalid::value(&*field, shown.clone(), format!("ratio {ratio_text} is less than 1")));
    }
    if let (Some((min, _)), Some((max, _))) = (amount("min"), amount("max"))
        && ratio.thousandths * min.thousandths > max.thousandths * 1000
    {
        #[allow(clippy::cast_precision_loss, reason = "it is shown with six digits")]
        let most = max.thousandths as f64 / min.thousandths as f64;
        let why = format!("ratio {ratio_text} is greater than max/min = {most:.6}");
        wrong.push(Invalid::value(field, shown, why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_written_follows_from_what_is() {
        let mut range = json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}},
            {"type": "Pod", "max": {"cpu": "4"}},
        ]}});
        fill(&mut range);
        let [container, pod] = [0, 1].map(|index| range["spec"]["limits"][index].clone());
        assert_eq!(container["default"], json!({"cpu": "2"}));
        assert_eq!(container["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
        assert_eq!(pod, json!({"type": "Pod", "max": {"cpu": "4"}}));
    }

    #[test]
    fn amounts_rise_from_the_least_to_the_most() {
        let complaints = |limit: Value| {
            let limits = json!({"spec": {"limits": [limit]}});
            check(&limits, None).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let good = json!({"type": "Container", "min": {"cpu": "100m"}, "defaultRequest": {"cpu": "200m"},
            "default": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "10"}});
        assert_eq!(complaints(good), [""; 0]);
        assert_eq!(
            complaints(json!({"type": "Container", "min": {"cpu": "3"}, "default": {"cpu": "1"}, "max": {"cpu": "2"}})),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
                "spec.limits[0].default[cpu]: Invalid value: \"3\": min value 3 is greater than default value 1",
            ]
        );
        assert_eq!(
            complaints(json!({"type": "Pod", "default": {"cpu": "1"}, "max": {"horses": 1}})),
            [
                "spec.limits[0].max[horses]: Invalid value: horses: must be a standard resource for containers",
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ]
        );
        assert_eq!(
            complaints(json!({"type": "PersistentVolumeClaim"})),
            [
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was \
              provided"
            ]
        );
        let ratio =
            json!({"type": "Container", "min": {"cpu": 1}, "max": {"cpu": 2}, "maxLimitRequestRatio": {"cpu": 3}});
        assert_eq!(
            complaints(ratio),
            ["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: 3: ratio 3 is greater than max/min = 2.000000"]
        );
        let twice = json!({"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}]}});
        assert_eq!(check(&twice, None)[0].to_string(), "spec.limits[1].type: Duplicate value: \"Pod\"");
    }
}
