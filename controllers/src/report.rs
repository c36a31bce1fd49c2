//! The last step of every pass: the status is written when it is not what is there, and not otherwise.

use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams, PostParams};
use kube::core::object::HasStatus;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::context::COMPONENT;
use crate::error::{Error, Result, is_gone};

/// Writes `status` unless `object` has it already. Tells whether it was written.
///
/// The write is refused when somebody else wrote the object since it was seen: conditions are one list, and theirs
/// would be lost.
pub(crate) async fn status<K>(api: &Api<K>, object: &K, status: &K::Status) -> Result<bool>
where
    K: Resource + HasStatus + Clone + std::fmt::Debug + DeserializeOwned,
    K::Status: Serialize + PartialEq,
{
    written(api, object, status).await.map(|written| written.is_some())
}

/// The same, and answers the object if it was written.
pub(crate) async fn written<K>(api: &Api<K>, object: &K, status: &K::Status) -> Result<Option<K>>
where
    K: Resource + HasStatus + Clone + std::fmt::Debug + DeserializeOwned,
    K::Status: Serialize + PartialEq,
{
    if object.status() == Some(status) {
        return Ok(None);
    }
    let (old, new) = (plain(&object.status()), plain(status));
    let Some(change) = difference(&old, &new) else { return Ok(None) };
    let patch = json!({"metadata": {"resourceVersion": object.resource_version()}, "status": change});
    match api.patch_status(&object.name_any(), &params(), &Patch::Merge(patch)).await {
        Ok(object) => Ok(Some(object)),
        Err(gone) if is_gone(&gone) => Ok(None), // nobody is left to read it
        Err(error) => Err(Error::doing("write the status")(error)),
    }
}

/// Who writes.
pub(crate) fn params() -> PatchParams {
    PatchParams { field_manager: Some(COMPONENT.to_owned()), ..PatchParams::default() }
}

/// The same, of what is new.
pub(crate) fn post() -> PostParams {
    PostParams { field_manager: params().field_manager, ..PostParams::default() }
}

/// The merge patch that turns `old` into `new`; `None` when they are the same.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut change = Map::new();
            for (key, value) in new {
                match old.get(key) {
                    Some(before) => change.extend(difference(before, value).map(|value| (key.clone(), value))),
                    None => drop(change.insert(key.clone(), value.clone())),
                }
            }
            change.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null)));
            (!change.is_empty()).then_some(Value::Object(change))
        }
        (Value::Null, Value::Object(_)) => Some(new.clone()),
        _ => (old != new).then(|| new.clone()),
    }
}

/// Those of the `wanted` labels or annotations that are not there as they should be.
pub(crate) fn missing(there: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Option<Value> {
    let missing: BTreeMap<_, _> = wanted.iter().filter(|(key, value)| there.get(*key) != Some(value)).collect();
    (!missing.is_empty()).then(|| plain(&missing))
}

/// As it travels: keys that are not written are not there.
pub(crate) fn plain<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("our kinds are plain data with text keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_only_what_changed() {
        for (old, new, change) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), Some(json!({"b": null}))),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1, "c": 3}}), Some(json!({"a": {"c": 3}}))),
            (json!({"l": [1]}), json!({"l": [1, 2]}), Some(json!({"l": [1, 2]}))),
            (json!(null), json!({"a": 1}), Some(json!({"a": 1}))),
            (json!({}), json!({}), None),
        ] {
            assert_eq!(difference(&old, &new), change);
        }
    }
}
