//! JSON Merge Patch, RFC 7386.

use serde_json::Value;

use crate::{
    body::go_name,
    status::{self, Status},
};

/// What Go says when a patch is no JSON object.
pub fn no_object(patch: &Value) -> Status {
    let found = go_name(patch);
    Status::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
    ))
}

/// `object` with the fields of `patch` set, and those that are null there removed.
pub fn merge(mut object: Value, patch: &Value) -> status::Result<Value> {
    if !patch.is_object() {
        return Err(no_object(patch));
    }
    json_patch::merge(&mut object, patch);
    Ok(object)
}
