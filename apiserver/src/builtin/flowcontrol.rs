//! flowcontrol: FlowSchemas and PriorityLevelConfigurations. They are kept and shown; requests are bounded by settings.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{fill, kubernetes, list, object, refuse, refuse_negative, text};
use crate::{
    kinds::{Cell, Hooks, Kind},
    meta,
    table::{age_column, column, name_column, path},
};

const NONE: &str = "<none>";

/// The kinds of the group.
pub fn kinds() -> Vec<Kind> {
    vec![schema(), level()]
}

fn schema() -> Kind {
    let mut kind = kubernetes::<FlowSchema>("flowschemas", &[]);
    kind.namespaced = false;
    kind.status = true;
    kind.generation = true;
    kind.columns = vec![
        name_column(),
        column("PriorityLevel", "string", "How important.", path(".spec.priorityLevelConfiguration.name")),
        column(
            "MatchingPrecedence",
            "string",
            "Which schema is asked first.",
            Cell::Function(|schema, _| schema["spec"]["matchingPrecedence"].as_i64().unwrap_or(0).into()),
        ),
        column(
            "DistinguisherMethod",
            "string",
            "What tells flows apart.",
            Cell::Function(|schema, _| schema["spec"]["distinguisherMethod"]["type"].as_str().unwrap_or(NONE).into()),
        ),
        age_column(),
        column("MissingPL", "string", "The level is not there.", Cell::Function(dangling)),
    ];
    kind.hooks = Hooks { fill: fill_schema, check: check_schema, prepare, ..Hooks::default() };
    kind
}

fn dangling(schema: &Value, _now: i64) -> Value {
    let found = list(&schema["status"], "conditions").iter().find(|condition| condition["type"] == "Dangling");
    found.map_or("?", |condition| text(condition, "status")).into()
}

fn prepare(object: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        object["status"] = json!({});
    }
}

fn fill_schema(schema: &mut Value) {
    let Some(spec) = schema.as_object_mut().and_then(|schema| object(schema, "spec")) else { return };
    if spec.get("matchingPrecedence").and_then(Value::as_i64).unwrap_or(0) == 0 {
        spec.insert("matchingPrecedence".to_owned(), 1000.into());
    }
}

fn check_schema(schema: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &schema["spec"];
    let precedence = spec["matchingPrecedence"].as_i64().unwrap_or(0);
    if precedence < 1 {
        wrong.push(Invalid::value("spec.matchingPrecedence", precedence, "must be a positive value"));
    }
    if precedence > 10_000 {
        wrong.push(Invalid::value("spec.matchingPrecedence", precedence, "must not be greater than 10000"));
    }
    if precedence == 1 && text(&schema["metadata"], "name") != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        wrong.push(Invalid::value("spec.matchingPrecedence", precedence, why));
    }
    if spec["distinguisherMethod"].is_object() {
        let kind = text(&spec["distinguisherMethod"], "type");
        if !["ByNamespace", "ByUser"].contains(&kind) {
            let known = ["ByNamespace", "ByUser"];
            wrong.push(Invalid::not_supported("spec.distinguisherMethod", kind, &known));
        }
    }
    let level = text(&spec["priorityLevelConfiguration"], "name");
    if level.is_empty() {
        let why = "must reference a priority level";
        wrong.push(Invalid::required("spec.priorityLevelConfiguration.name", why));
    } else {
        refuse("spec.priorityLevelConfiguration.name", level, meta::dns_subdomain(level), &mut wrong);
    }
    for (index, rule) in list(spec, "rules").iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        if list(rule, "subjects").is_empty() {
            wrong.push(Invalid::required(format!("{at}.subjects"), "subjects must contain at least one value"));
        }
        if list(rule, "resourceRules").is_empty() && list(rule, "nonResourceRules").is_empty() {
            let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
            wrong.push(Invalid::required(at, why));
        }
    }
    wrong
}

fn level() -> Kind {
    let mut kind = kubernetes::<PriorityLevelConfiguration>("prioritylevelconfigurations", &[]);
    kind.namespaced = false;
    kind.status = true;
    kind.generation = true;
    kind.columns = vec![
        name_column(),
        column("Type", "string", "Whether it is limited.", path(".spec.type")),
        column(
            "NominalConcurrencyShares",
            "string",
            "Its part of what there is.",
            Cell::Function(|level, _| number(&level["spec"]["limited"]["nominalConcurrencyShares"])),
        ),
        column("Queues", "string", "How many queues.", Cell::Function(|level, _| queuing(level, "queues"))),
        column(
            "HandSize",
            "string",
            "How many queues a flow may use.",
            Cell::Function(|level, _| queuing(level, "handSize")),
        ),
        column(
            "QueueLengthLimit",
            "string",
            "How long a queue may get.",
            Cell::Function(|level, _| queuing(level, "queueLengthLimit")),
        ),
        age_column(),
    ];
    kind.hooks = Hooks { fill: fill_level, check: check_level, prepare, ..Hooks::default() };
    kind
}

fn number(value: &Value) -> Value {
    value.as_i64().map_or_else(|| NONE.into(), Value::from)
}

fn queuing(level: &Value, field: &str) -> Value {
    number(&level["spec"]["limited"]["limitResponse"]["queuing"][field])
}

fn fill_level(level: &mut Value) {
    let Some(spec) = level.as_object_mut().and_then(|level| object(level, "spec")) else { return };
    if let Some(exempt) = spec.get_mut("exempt").and_then(Value::as_object_mut) {
        fill(exempt, "nominalConcurrencyShares", 0);
        fill(exempt, "lendablePercent", 0);
    }
    let Some(limited) = spec.get_mut("limited").and_then(Value::as_object_mut) else { return };
    fill(limited, "nominalConcurrencyShares", 30);
    fill(limited, "lendablePercent", 0);
    let queuing = limited.get_mut("limitResponse").and_then(|response| response.get_mut("queuing"));
    if let Some(queuing) = queuing.and_then(Value::as_object_mut) {
        for (field, usual) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            if queuing.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
                queuing.insert(field.to_owned(), usual.into());
            }
        }
    }
}

fn check_level(level: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &level["spec"];
    match text(spec, "type") {
        "Exempt" if !spec["limited"].is_null() => {
            wrong.push(Invalid::forbidden("spec.limited", "must be nil if the type is not Limited"));
        }
        "Exempt" => {}
        "Limited" => {
            if !spec["exempt"].is_null() {
                wrong.push(Invalid::forbidden("spec.exempt", "must be nil if the type is Limited"));
            }
            check_limited(&spec["limited"], &mut wrong);
        }
        other => wrong.push(Invalid::not_supported("spec.type", other, &["Exempt", "Limited"])),
    }
    wrong
}

fn check_limited(limited: &Value, wrong: &mut Vec<Invalid>) {
    if limited.is_null() {
        return wrong.push(Invalid::required("spec.limited", "must not be empty when type is Limited"));
    }
    refuse_negative(limited, "spec.limited", &["nominalConcurrencyShares", "lendablePercent"], wrong);
    let response = &limited["limitResponse"];
    let queuing = &response["queuing"];
    let at = "spec.limited.limitResponse";
    match text(response, "type") {
        "Reject" if !queuing.is_null() => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            wrong.push(Invalid::forbidden(format!("{at}.queuing"), why));
        }
        "Queue" if queuing.is_null() => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            wrong.push(Invalid::required(format!("{at}.queuing"), why));
        }
        "Queue" => {
            let (hand, queues) = (queuing["handSize"].as_i64().unwrap_or(0), queuing["queues"].as_i64().unwrap_or(0));
            for field in ["queues", "handSize", "queueLengthLimit"] {
                if let Some(number) = queuing[field].as_i64().filter(|number| *number < 1) {
                    wrong.push(Invalid::value(format!("{at}.queuing.{field}"), number, "must be positive"));
                }
            }
            if hand > queues {
                let why = format!("should not be greater than queues ({queues})");
                wrong.push(Invalid::value(format!("{at}.queuing.handSize"), hand, why));
            }
        }
        "Reject" => {}
        kind => wrong.push(Invalid::not_supported(format!("{at}.type"), kind, &["Queue", "Reject"])),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};
    use crate::table::printed;

    fn complaints(kind: &Kind, object: Value) -> Vec<String> {
        (kind.hooks.check)(&object, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_schema_sends_requests_to_a_level() {
        let schema_of = |spec: Value| filled(&schema(), json!({"metadata": {"name": "s"}, "spec": spec}));
        let good = schema_of(json!({"priorityLevelConfiguration": {"name": "l"}}));
        assert!(complaints(&schema(), good.clone()).is_empty());
        assert_eq!(
            printed(&schema(), &[good], 0),
            "Name | PriorityLevel | MatchingPrecedence | DistinguisherMethod | Age | MissingPL\n\
             s | l | 1000 | <none> | <unknown> | ?"
        );
        assert_eq!(
            complaints(&schema(), schema_of(json!({"matchingPrecedence": 20000, "rules": [{}]}))),
            [
                "spec.matchingPrecedence: Invalid value: 20000: must not be greater than 10000",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ]
        );
    }

    #[test]
    fn a_level_is_limited_or_not() {
        let level_of = |spec: Value| filled(&level(), json!({"metadata": {"name": "l"}, "spec": spec}));
        let queue = json!({"limitResponse": {"type": "Queue", "queuing": {}}});
        let good = level_of(json!({"type": "Limited", "limited": queue}));
        assert!(complaints(&level(), good.clone()).is_empty());
        assert_eq!(
            printed(&level(), &[good], 0),
            "Name | Type | NominalConcurrencyShares | Queues | HandSize | QueueLengthLimit | Age\n\
             l | Limited | 30 | 64 | 8 | 50 | <unknown>"
        );
        assert_eq!(
            complaints(&level(), level_of(json!({"type": "Limited"}))),
            ["spec.limited: Required value: must not be empty when type is Limited"]
        );
        assert_eq!(complaints(&level(), level_of(json!({"type": "X"}))).len(), 1);
    }
}
