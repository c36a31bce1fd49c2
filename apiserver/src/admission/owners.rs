//! OwnerReferencesPermissionEnforcement: nobody lets an object go, or keeps its owner, who could not delete it, or finalize the
//! owner, themselves.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{Operation, Review, Validate};
use crate::{
    authn::User,
    authz::{Asked, Authorizer},
    registry::{Registry, about},
    status::{Result, Status},
};

/// The rule. As in Kubernetes, it is asked only where a setting says so.
pub(super) struct OwnerReferences(pub(super) Arc<Authorizer>);

#[async_trait]
impl Validate for OwnerReferences {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn is_usual(&self) -> bool {
        false
    }

    async fn validate(&self, review: &Review<'_>, registry: &Registry) -> Result<()> {
        // Who has no name is the platform itself.
        let Some(object) = review.object.as_deref().filter(|_| !review.user.name.is_empty()) else { return Ok(()) };
        let before = review.old.map(owners).unwrap_or_default();
        let now = owners(object);
        if before == now {
            return Ok(());
        }
        let kind = review.kind;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let forbidden =
            |why: &str, reason: String| Err(Status::forbidden(about(kind, name), format!("{why}: {reason}")));
        if review.operation != Operation::Create {
            let subresource = review.part.subresource();
            let asked =
                Asked { group: &kind.group, subresource, name, ..asked("delete", &kind.plural, review.namespace) };
            if let Err(reason) = self.allows(review.user, &asked) {
                return forbidden("cannot set an ownerRef on a resource you can't delete", reason);
            }
        }
        let blocks = |owner: &Value| owner["blockOwnerDeletion"] == true;
        let blocked = |owner: &Value| before.iter().any(|old| old["uid"] == owner["uid"] && blocks(old));
        for owner in now.iter().filter(|owner| blocks(owner) && !blocked(owner)) {
            let text = |field: &str| owner[field].as_str().unwrap_or_default();
            let (version, named) = (text("apiVersion"), text("kind"));
            let table = registry.kinds().table();
            let mut kinds =
                table.kinds.iter().filter(|kind| kind.kind == named && kind.api_version() == version).peekable();
            if kinds.peek().is_none() {
                let why = format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {version} \
                     Kind {named}"
                );
                return forbidden(&why, format!("no matches for kind {named:?} in version {version:?}"));
            }
            for owner_kind in kinds {
                let namespace = if owner_kind.namespaced { review.namespace } else { "" };
                let update = asked("update", &owner_kind.plural, namespace);
                let asked = Asked { group: &owner_kind.group, subresource: "finalizers", name: text("name"), ..update };
                if let Err(reason) = self.allows(review.user, &asked) {
                    let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set \
                               finalizers on";
                    return forbidden(why, reason);
                }
            }
        }
        Ok(())
    }
}

impl OwnerReferences {
    fn allows(&self, user: &User, asked: &Asked<'_>) -> Result<(), String> {
        let decision = self.0.decide(user, asked);
        if decision.allowed { Ok(()) } else { Err(format!("{}, <nil>", decision.reason)) }
    }
}

fn asked<'a>(verb: &'a str, resource: &'a str, namespace: &'a str) -> Asked<'a> {
    Asked { verb, resource, namespace, is_resource: true, ..Asked::default() }
}

fn owners(object: &Value) -> Vec<Value> {
    object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default()
}
