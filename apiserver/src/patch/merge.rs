//! JSON Merge Patch, RFC 7386.

use serde_json::Value;

use crate::status::{self, Status};

/// `object` with the fields of `patch` set, and those that are null there removed.
pub fn merge(mut object: Value, patch: &Value) -> status::Result<Value> {
    if !patch.is_object() {
        return Err(Status::bad_request("error decoding patch: a merge patch is a JSON object"));
    }
    json_patch::merge(&mut object, patch);
    Ok(object)
}
