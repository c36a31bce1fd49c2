//! An object, as far as garbage is concerned: who it is, and whom it belongs to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::DynamicObject;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;

/// The metadata that matters here. The rest, of which the record of who wrote which field is the most, is not even read: every
/// object that anybody changes passes by here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Tied {
    /// Labels, annotations and managed fields are left out.
    #[serde(deserialize_with = "ties")]
    pub metadata: ObjectMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ties {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
}

fn ties<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Ties { name, namespace, uid, resource_version, owner_references, finalizers, deletion_timestamp } =
        Ties::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        owner_references,
        finalizers,
        deletion_timestamp,
        ..ObjectMeta::default()
    })
}

impl Resource for Tied {
    type DynamicType = <DynamicObject as Resource>::DynamicType;
    type Scope = <DynamicObject as Resource>::Scope;

    fn metadata_api() -> bool {
        true
    }

    fn kind(resource: &Self::DynamicType) -> Cow<'_, str> {
        DynamicObject::kind(resource)
    }

    fn group(resource: &Self::DynamicType) -> Cow<'_, str> {
        DynamicObject::group(resource)
    }

    fn version(resource: &Self::DynamicType) -> Cow<'_, str> {
        DynamicObject::version(resource)
    }

    fn plural(resource: &Self::DynamicType) -> Cow<'_, str> {
        DynamicObject::plural(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_ties_an_object_is_read_and_the_rest_is_not() {
        let owner =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "1", "blockOwnerDeletion": true});
        let object = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {
                "name": "b", "namespace": "n", "uid": "2", "resourceVersion": "3", "ownerReferences": [owner],
                "finalizers": ["foregroundDeletion"], "deletionTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"a": "b"}, "managedFields": [{"manager": "m", "fieldsV1": {"f:data": {}}}],
            },
        });
        let Tied { metadata } = serde_json::from_value(object).expect("it is well formed");
        assert_eq!(metadata.name.as_deref(), Some("b"));
        assert_eq!(metadata.namespace.as_deref(), Some("n"));
        assert_eq!(metadata.uid.as_deref(), Some("2"));
        assert_eq!(metadata.resource_version.as_deref(), Some("3"));
        assert_eq!(metadata.owner_references.expect("it has one")[0].block_owner_deletion, Some(true));
        assert_eq!(metadata.finalizers.expect("it has one"), ["foregroundDeletion"]);
        assert!(metadata.deletion_timestamp.is_some());
        assert!(metadata.labels.is_none() && metadata.managed_fields.is_none());
    }
}
