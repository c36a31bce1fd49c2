//! The conditions of a definition, as the server keeps them.

use serde_json::{Value, json};

use super::{list, text};

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Condition {
    pub(super) fn new(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds, reason, message: message.into() }
    }

    /// Writes the condition into a definition. The time of its last transition stays where it does not change sides.
    /// `true` if anything changed.
    pub(super) fn set(&self, crd: &mut Value, now: &str) -> bool {
        let status = if self.holds { "True" } else { "False" };
        let conditions = &mut crd["status"]["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        let conditions = conditions.as_array_mut().expect("made a list above");
        let wanted = |time: &str| json!({"type": self.kind, "status": status, "reason": self.reason, "message": self.message, "lastTransitionTime": time});
        let Some(found) = conditions.iter_mut().find(|condition| condition["type"] == self.kind) else {
            conditions.push(wanted(now));
            return true;
        };
        let since =
            if text(found, "status") == status { text(found, "lastTransitionTime").to_owned() } else { now.to_owned() };
        let wanted = wanted(&since);
        let changed = *found != wanted;
        *found = wanted;
        changed
    }
}

/// Whether a condition of a definition is `True`.
pub(super) fn holds(crd: &Value, kind: &str) -> bool {
    find(crd, kind).is_some_and(|condition| condition["status"] == "True")
}

/// A condition of a definition.
pub(super) fn find<'a>(crd: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&crd["status"], "conditions").iter().find(|condition| condition["type"] == kind)
}
