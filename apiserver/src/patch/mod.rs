//! The four ways to change a part of an object: pure functions from an object and a patch to the object as it shall be.
//!
//! Nothing here stores, defaults or validates: the corridor does that with what comes out. Recursion is as deep as the
//! values are, and those were bounded when they were parsed.

pub mod apply;
mod json;
mod made;
pub mod managed_fields;
mod merge;
mod strategic;

pub use apply::apply;
pub use json::json;
pub use managed_fields::{Managers, Writer, record};
pub use merge::{merge, no_object};
pub use strategic::strategic;

use serde_json::Value;

/// Levels of objects and lists that an object may have. A patch can add levels to what is there, and what is nested
/// deeper than a JSON parser goes could be stored and never be read again.
pub const MOST_LEVELS: usize = 100;

/// Whether `value` has at most so many levels of objects and lists. Looks no deeper than that.
pub fn nests_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(fields) => levels > 0 && fields.values().all(|value| nests_within(value, levels - 1)),
        Value::Array(items) => levels > 0 && items.iter().all(|value| nests_within(value, levels - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
