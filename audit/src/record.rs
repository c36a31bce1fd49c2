//! What is recorded.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// One request, and what was decided about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Tells records apart, and grows with time.
    pub id: Uuid,
    /// When it was decided.
    pub time: jiff::Timestamp,
    /// Which part of the platform decided.
    pub component: String,
    /// Who asked.
    pub user: User,
    /// Whom they wanted to be taken for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonated: Option<User>,
    /// What was to be done: `create`, `list`; for what is no resource, the method in lower case.
    pub verb: String,
    /// To what.
    pub object: Object,
    /// What was decided.
    pub decision: Decision,
    /// The policy that decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How the request ended, as an HTTP status; 0 while it lasts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: u16,
    /// Where the request came from, the client first, then those who passed it on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// What the client calls itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// The request, as the client was told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// What the component adds, in its own form.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

/// Somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// Tells apart users who had the same name one after the other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// What was asked for: a resource, or a path that is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// The API group; empty for the core.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The plural name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// The part of it, such as `status`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// The namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The path and query as they were asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was allowed.
    Allow,
    /// It was not.
    Deny,
    /// Nobody got as far as deciding: the client did not show who they are, or asked for what cannot be.
    Refuse,
}

impl Record {
    /// A time-ordered id for a new record.
    pub fn new_id() -> Uuid {
        Uuid::now_v7()
    }
}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_with_time() {
        let ids: Vec<Uuid> = (0..1000).map(|_| Record::new_id()).collect();
        assert!(ids.is_sorted());
    }
}
