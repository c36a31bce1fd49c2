//! Namespaces come to be when they are first used, and take nothing new while they go.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use super::{Admit, Operation, Review};
use crate::{
    registry::{Options, Registry, about, behind},
    status::{Result, Status},
};

/// How long a new namespace may take until it can be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the namespace of a new object, if it is not there.
pub(super) struct AutoProvision;

#[async_trait]
impl Admit for AutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    async fn admit(&self, review: &mut Review<'_>, registry: &Registry) -> Result<()> {
        if review.operation != Operation::Create || review.dry_run || !review.kind.namespaced || is_event(review) {
            return Ok(());
        }
        let namespaces = registry.kinds().core("namespaces");
        if registry.get(&namespaces, "", review.namespace).is_ok() {
            return Ok(());
        }
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": review.namespace}});
        // In the name of who asked, so that webhooks about namespaces are not gone round.
        let options =
            Options { manager: "onex-apiserver".to_owned(), user: Arc::new(review.user.clone()), ..Options::default() };
        match registry.create(&namespaces, "", object, &options).await {
            Err(status) if status.reason != "AlreadyExists" => Err(status),
            // Lifecycle looks for it next.
            _ if registry.windows().current(PATIENCE).await => Ok(()),
            _ => Err(behind()),
        }
    }
}

/// Keeps namespaces that are needed, and lets nothing into those that are missing or going.
pub(super) struct Lifecycle;

/// Namespaces that may not be deleted.
const NEEDED: &[&str] = &["default", "kube-system", "kube-public"];

#[async_trait]
impl Admit for Lifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, review: &mut Review<'_>, registry: &Registry) -> Result<()> {
        let namespaces = registry.kinds().core("namespaces");
        match review.operation {
            Operation::Delete if review.kind.prefix == namespaces.prefix => {
                let name = review.old.and_then(|o| o["metadata"]["name"].as_str()).unwrap_or_default();
                if NEEDED.contains(&name) {
                    return Err(Status::forbidden(about(&namespaces, name), "this namespace may not be deleted"));
                }
                Ok(())
            }
            Operation::Create if review.kind.namespaced => {
                let namespace = registry.get(&namespaces, "", review.namespace);
                match namespace {
                    Ok(namespace) if namespace.is_terminating() => Err(terminating(review)),
                    Ok(_) => Ok(()),
                    // A dry run provisions nothing, and would be refused for that alone.
                    Err(_) if review.dry_run && registry.provisions() => Ok(()),
                    Err(missing) => Err(missing),
                }
            }
            _ => Ok(()),
        }
    }
}

/// The last events about what was in a namespace come when it is gone. They must not bring it back.
fn is_event(review: &Review<'_>) -> bool {
    review.kind.kind == "Event" && matches!(review.kind.group.as_str(), "" | "events.k8s.io")
}

fn terminating(review: &Review<'_>) -> Status {
    let name = review.object.as_ref().and_then(|o| o["metadata"]["name"].as_str()).unwrap_or_default();
    let namespace = review.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = Status::forbidden(about(review.kind, name), why);
    status.details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    status
}
