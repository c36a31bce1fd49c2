//! ServiceAccount: every Pod runs as somebody who exists.
//!
//! No volume with a token is added: the Pods of this platform run miners, who ask nobody; a node that is a real cluster adds
//! its own.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admit, Operation, Review};
use crate::{
    registry::{Part, Registry, about},
    status::{Result, Status},
};

/// The account of Pods that name none.
const DEFAULT: &str = "default";
/// Says that a Pod only mirrors what a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long the account of a new namespace may take until it is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// The rule.
pub(super) struct ServiceAccount;

#[async_trait]
impl Admit for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, review: &mut Review<'_>, registry: &Registry) -> Result<()> {
        let kind = review.kind;
        let is_new = review.operation == Operation::Create && review.part == Part::Main;
        if !is_new || !kind.group.is_empty() || kind.plural != "pods" {
            return Ok(());
        }
        let Some(pod) = review.object.as_deref_mut().filter(|pod| pod["spec"].is_object()) else { return Ok(()) };
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let forbidden = |why: String| Err(Status::forbidden(about(kind, &name), why));
        if pod["metadata"]["annotations"][MIRROR].is_string() {
            return match account(pod).is_empty() {
                true => Ok(()),
                false => forbidden("a mirror pod may not reference service accounts".to_owned()),
            };
        }
        if account(pod).is_empty() {
            for field in ["serviceAccountName", "serviceAccount"] {
                pod["spec"][field] = DEFAULT.into();
            }
        }
        let wanted = account(pod).to_owned();
        match find(registry, review.namespace, &wanted).await {
            Ok(account) => {
                let has_secrets = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
                if let (false, Some(secrets)) = (has_secrets, account["imagePullSecrets"].as_array()) {
                    pod["spec"]["imagePullSecrets"] = json!(secrets);
                }
                Ok(())
            }
            // Nobody makes accounts in a namespace that is not there yet.
            Err(_) if review.dry_run => Ok(()),
            Err(_) => {
                let account = format!("service account {}/{wanted}", review.namespace);
                forbidden(format!("error looking up {account}: serviceaccount {wanted:?} not found"))
            }
        }
    }
}

fn account(pod: &Value) -> &str {
    pod["spec"]["serviceAccountName"].as_str().unwrap_or_default()
}

/// The account. One that every namespace gets is waited for.
async fn find(registry: &Registry, namespace: &str, name: &str) -> Result<Value> {
    let kind = registry.kinds().core("serviceaccounts");
    let find = || registry.get(&kind, namespace, name).map(|item| item.value());
    if name != DEFAULT {
        return find();
    }
    let mut news = registry.window(&kind).news();
    let wait = async { while find().is_err() && news.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(PATIENCE, wait).await;
    find()
}
