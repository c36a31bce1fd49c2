//! JSON Patch, RFC 6902.

use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

use super::{MOST_LEVELS, nests_within};
use crate::{
    body::{go_error, go_name},
    status::{self, Status},
};

/// What one patch may hold.
const MOST_OPERATIONS: usize = 10_000;
/// What the `copy`s of one patch may add up to. Without it, thirty of them make gigabytes.
const MOST_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// `object` after the operations of `patch`, all of them or an error.
pub fn json(object: &Value, patch: &[u8]) -> status::Result<Value> {
    let wrong = |why: String| Status::bad_request(format!("error decoding patch: {why}"));
    let operations: Value = serde_json::from_slice(patch).map_err(|error| wrong(go_error(patch, &error)))?;
    let Value::Array(operations) = operations else {
        let found = go_name(&operations);
        return Err(wrong(format!("json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp")));
    };
    if operations.len() > MOST_OPERATIONS {
        return Err(too_many(operations.len()));
    }
    let mut patched = object.clone();
    let mut copied = 0;
    for operation in operations {
        if !operation.is_object() {
            let found = go_name(&operation);
            return Err(wrong(format!("json: cannot unmarshal {found} into Go value of type handlers.jsonPatchOp")));
        }
        let operation: PatchOperation = serde_json::from_value(operation).map_err(|_| inapplicable())?;
        if let PatchOperation::Copy(copy) = &operation {
            copied += size_at(&patched, &copy.from);
            if copied > MOST_COPIED_BYTES {
                return Err(inapplicable());
            }
        }
        json_patch::patch(&mut patched, std::slice::from_ref(&operation)).map_err(|_| inapplicable())?;
    }
    if nests_within(&patched, MOST_LEVELS) { Ok(patched) } else { Err(inapplicable()) }
}

fn size_at(object: &Value, at: &Pointer) -> usize {
    at.resolve(object).map(|value| value.to_string().len()).unwrap_or_default()
}

fn too_many(count: usize) -> Status {
    let mut status = Status::too_large(MOST_OPERATIONS);
    status.message = format!(
        "Request entity too large: The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {count}"
    );
    status
}

fn inapplicable() -> Status {
    Status::unprocessable("the server rejected our request due to an error in our request")
}
