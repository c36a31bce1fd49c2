//! scheduling: PriorityClasses.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{fill, kubernetes, refuse_change, refuse_unsupported, text};
use crate::{
    kinds::{Cell, Hooks, Kind},
    table::{age_column, column, name_column, path, wide_column},
};

/// The greatest value that is not the system's.
const GREATEST: i64 = 1_000_000_000;
/// The classes of the system, which are always there.
pub const SYSTEM: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// PriorityClasses.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<PriorityClass>("priorityclasses", &["pc"]);
    kind.namespaced = false;
    kind.columns = vec![
        name_column(),
        column(
            "Value",
            "integer",
            "How important.",
            Cell::Function(|class, _| class["value"].as_i64().unwrap_or(0).into()),
        ),
        column(
            "Global-Default",
            "boolean",
            "Pods that name no class have this one.",
            Cell::Function(|class, _| (class["globalDefault"] == true).into()),
        ),
        age_column(),
        wide_column("PreemptionPolicy", "string", "Whether others make room.", path(".preemptionPolicy")),
    ];
    kind.hooks = Hooks {
        fill: |class| {
            if let Some(fields) = class.as_object_mut() {
                fill(fields, "preemptionPolicy", "PreemptLowerPriority");
            }
        },
        check,
        prepare,
        ..Hooks::default()
    };
    kind
}

/// What it is worth never changes, and so neither does its generation.
fn prepare(class: &mut Value, old: Option<&Value>) {
    if old.is_none()
        && let Some(meta) = class.get_mut("metadata").and_then(Value::as_object_mut)
    {
        meta.insert("generation".to_owned(), 1.into());
    }
}

/// A class of the system, as it is made.
pub fn system(name: &str, value: i64, description: &str) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
        "description": description, "preemptionPolicy": "PreemptLowerPriority"})
}

fn check(class: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let (name, value) = (text(&class["metadata"], "name"), class["value"].as_i64().unwrap_or(0));
    if name.starts_with("system-") {
        let why = match SYSTEM.iter().find(|(known, ..)| *known == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, known, _)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
            Some(_) if class["globalDefault"] == true => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            let reserved = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            wrong.push(Invalid::forbidden("metadata.name", format!("{reserved}{why}")));
        }
    } else if value > GREATEST {
        let why = "maximum allowed value of a user defined priority is 1000000000";
        wrong.push(Invalid::forbidden("value", why));
    }
    let policy = text(class, "preemptionPolicy");
    refuse_unsupported("preemptionPolicy", policy, &["PreemptLowerPriority", "Never"], &mut wrong);
    if let Some(old) = old {
        if old["value"].as_i64().unwrap_or(0) != value {
            wrong.push(Invalid::forbidden("value", "may not be changed in an update."));
        }
        refuse_change("preemptionPolicy", &class["preemptionPolicy"], &old["preemptionPolicy"], &mut wrong);
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(class: &Value, old: Option<&Value>) -> Vec<String> {
        check(class, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn users_rank_below_the_system() {
        for (name, value, description) in SYSTEM {
            assert!(complaints(&system(name, value, description), None).is_empty());
        }
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        assert!(complaints(&class("a", GREATEST), None).is_empty());
        assert_eq!(
            complaints(&class("a", GREATEST + 1), None),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        assert_eq!(
            complaints(&class("system-a", 1), None),
            ["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. \
                 error: system-a is not a known system priority class"]
        );
        assert_eq!(
            complaints(&class("a", 2), Some(&class("a", 1))),
            ["value: Forbidden: may not be changed in an update."]
        );
    }
}
