//! Numbers of replicas: how many may be missing or too many, and what a status may say of them.

use onex_crds::Invalid;
use serde_json::Value;

use super::{go, refuse_negative};

/// A number, or a percentage: what it is worth, and whether it is one of a hundred.
pub fn worth(value: &Value) -> (i64, bool) {
    match value {
        Value::String(text) => match text.strip_suffix('%').and_then(|number| number.parse().ok()) {
            Some(percent) => (percent, true),
            None => (text.parse().unwrap_or(0), false),
        },
        number => (number.as_i64().unwrap_or(0), false),
    }
}

/// Neither a number of at least zero nor a percentage. Nothing written is fine.
pub fn refuse_amount(field: &str, value: &Value, wrong: &mut Vec<Invalid>) {
    match value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                           regex used for validation is '[0-9]+%')";
                wrong.push(Invalid::printed(field, go::int_or_string(value), why));
            }
        }
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            wrong.push(Invalid::value(field, value.clone(), "must be greater than or equal to 0"));
        }
        _ => {}
    }
}

/// More than all of them.
pub fn refuse_more_than_all(field: &str, value: &Value, wrong: &mut Vec<Invalid>) {
    if matches!(worth(value), (101.., true)) {
        wrong.push(Invalid::printed(field, go::int_or_string(value), "must not be greater than 100%"));
    }
}

/// What a status says of its replicas: nothing below zero, no part larger than the whole, and no collision forgotten.
pub fn check_status(status: &Value, old: Option<&Value>, parts: &[&str], ready: &str, wrong: &mut Vec<Invalid>) {
    refuse_negative(status, "status", &["replicas", "observedGeneration", "collisionCount"], wrong);
    refuse_negative(status, "status", parts, wrong);
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    for part in parts.iter().filter(|part| number(part) > number("replicas") && !is_apart(part)) {
        wrong.push(Invalid::value(format!("status.{part}"), number(part), "cannot be greater than status.replicas"));
    }
    if number("availableReplicas") > number("readyReplicas") {
        let why = format!("cannot be greater than {ready}");
        wrong.push(Invalid::value("status.availableReplicas", number("availableReplicas"), why));
    }
    let before = old.and_then(|old| old["status"]["collisionCount"].as_i64()).unwrap_or(0);
    if number("collisionCount") < before {
        wrong.push(Invalid::value("status.collisionCount", number("collisionCount"), "cannot be decremented"));
    }
}

/// Replicas that are not counted among the others.
fn is_apart(part: &str) -> bool {
    matches!(part, "unavailableReplicas" | "terminatingReplicas")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_numbers_or_parts_of_a_hundred() {
        assert_eq!(worth(&json!(3)), (3, false));
        assert_eq!(worth(&json!("25%")), (25, true));
        let complaints = |value: Value| {
            let mut wrong = Vec::new();
            refuse_amount("f", &value, &mut wrong);
            refuse_more_than_all("f", &value, &mut wrong);
            wrong.len()
        };
        let cases =
            [(json!(0), 0), (json!(-1), 1), (json!("100%"), 0), (json!("101%"), 1), (json!("x"), 1), (json!("5"), 1)];
        for (value, expected) in cases {
            assert_eq!(complaints(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn a_part_is_not_larger_than_the_whole() {
        let mut wrong = Vec::new();
        let status = json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 1, "unavailableReplicas": 5});
        let parts = ["readyReplicas", "availableReplicas", "unavailableReplicas"];
        let old = json!({"status": {"collisionCount": 1}});
        check_status(&status, Some(&old), &parts, "readyReplicas", &mut wrong);
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(
            wrong,
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.collisionCount: Invalid value: 0: cannot be decremented",
            ]
        );
    }
}
