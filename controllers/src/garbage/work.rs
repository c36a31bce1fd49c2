//! What a worker does with an object from the queue: decide by the graph, ask where the graph does not know, act.

use super::graph::{Decision, Object, Propagation, Reference, Uid, Verified};
use super::queue::Outcome;
use super::{Collector, NAME};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::events::{Event, EventType};
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The finalizer of an object whose dependents are to outlive it.
pub(super) const ORPHAN: &str = "orphan";
/// The finalizer of an object that waits for its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// How many dependents of one object are let go at the same time.
const LET_GO_TOGETHER: usize = 16;
/// How often owners are asked for before the object waits for its next turn.
const ROUNDS: usize = 3;
/// How soon to look again when the graph is not complete yet.
const NOT_COMPLETE: Duration = Duration::from_millis(100);

/// Why an object has to be tried again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the apiserver does not serve the owner's kind {0}")]
    UnknownKind(String),
    #[error("the object has changed since it was seen")]
    Changed,
    #[error("its owners keep changing")]
    Restless,
    #[error("owner {0} exists but has not been seen by a watch yet")]
    Unwatched(String),
    #[error("the apiserver did not answer in time")]
    TimedOut,
    #[error("the collector panicked")]
    Panicked,
    #[error("the apiserver refused")]
    Apiserver(#[from] kube::Error),
}

impl Trouble {
    /// Whether it passes by itself as soon as the watches have caught up.
    fn is_ordinary(&self) -> bool {
        matches!(self, Self::Changed | Self::Restless | Self::Unwatched(_))
    }
}

/// What the apiserver says about an owner that no watch has shown.
enum Answer {
    Present,
    Absent,
    /// An object of the whole cluster cannot be owned from inside a namespace; no request could settle it.
    Misplaced,
}

impl Collector {
    /// Works until `shutdown`, from the moment that every resource has been listed once.
    pub(super) async fn work(&self, shutdown: CancellationToken) {
        if shutdown.run_until_cancelled(self.first_listing()).await.is_none() {
            return;
        }
        while let Some(uid) = shutdown.run_until_cancelled(self.queue.next()).await {
            // A panic is a bug that costs this object a turn, and the others nothing.
            let settled = AssertUnwindSafe(self.settle(&uid)).catch_unwind().await;
            let result = settled.unwrap_or(Err(Trouble::Panicked));
            let outcome = *result.as_ref().unwrap_or(&Outcome::Failed);
            let failures = self.queue.done(&uid, outcome);
            if let Err(trouble) = result {
                self.report(&uid, &trouble, failures);
            }
        }
    }

    async fn first_listing(&self) {
        loop {
            let listed = self.listed.notified();
            if self.is_complete() {
                return;
            }
            // The pause is for resources that cannot be listed: patience with them ends without a notice.
            drop(tokio::time::timeout(Duration::from_secs(1), listed).await);
        }
    }

    /// Only the first of a row of failures is news.
    fn report(&self, uid: &Uid, trouble: &Trouble, failures: u32) {
        let graph = self.graph.lock();
        let object = graph.get(uid).map(describe).unwrap_or_default();
        drop(graph);
        let error = trouble as &dyn std::error::Error;
        if failures == 1 && !trouble.is_ordinary() {
            tracing::warn!(object, error, "an object could not be judged or collected; it will be tried again");
        } else {
            tracing::debug!(object, error, failures, "an object could still not be judged or collected");
        }
    }

    async fn settle(&self, uid: &Uid) -> Result<Outcome, Trouble> {
        let mut verified = Verified::default();
        for _ in 0..ROUNDS {
            let (decision, object) = {
                let graph = self.graph.lock();
                (graph.what_to_do(uid, &verified), graph.get(uid).cloned())
            };
            let Some(object) = object else {
                return Ok(Outcome::Settled);
            };
            match decision {
                Decision::Keep => return keep(verified),
                Decision::Verify(owners) => self.verify(&object, owners, &mut verified).await?,
                Decision::Delete(propagation) => return self.delete(&object, propagation).await,
                Decision::Release(owners) => {
                    self.strip(&object, &owners).await?;
                    return keep(verified);
                }
                Decision::Orphan(_) | Decision::Finish if !self.is_complete() => {
                    return Ok(Outcome::After(NOT_COMPLETE));
                }
                Decision::Orphan(dependents) => return self.let_go(&object, dependents).await,
                Decision::Finish => return self.remove_finalizer(&object, FOREGROUND).await,
            }
        }
        Err(Trouble::Restless)
    }

    async fn verify(&self, object: &Object, owners: Vec<Reference>, verified: &mut Verified) -> Result<(), Trouble> {
        for owner in owners {
            let stranger = self.graph.lock().crosses_namespaces(&owner, &object.namespace);
            if stranger {
                self.warn_of_stranger(object, &owner).await;
            }
            match self.ask_for(object, &owner).await? {
                Answer::Present => verified.present.push(owner),
                Answer::Misplaced => verified.misplaced.push(owner),
                Answer::Absent => {
                    self.graph.lock().note_absent(&owner, &object.namespace);
                    verified.absent.push(owner);
                }
            }
        }
        Ok(())
    }

    async fn ask_for(&self, object: &Object, owner: &Reference) -> Result<Answer, Trouble> {
        let served = self.catalogue.read().find(owner.group(), &owner.kind).cloned();
        let Some(served) = served else {
            return Err(Trouble::UnknownKind(format!("{} of {}", owner.kind, owner.api_version)));
        };
        if served.namespaced && object.namespace.is_empty() {
            return Ok(Answer::Misplaced);
        }
        let api = served.metadata(&self.client, &object.namespace);
        let found = self.in_time(api.get_opt(&owner.name)).await?;
        let same = found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&*owner.uid.0));
        Ok(if same { Answer::Present } else { Answer::Absent })
    }

    async fn delete(&self, object: &Object, propagation: Propagation) -> Result<Outcome, Trouble> {
        tracing::debug!(object = describe(object), ?propagation, "deleting an object whose owners are gone or going");
        let parameters = DeleteParams {
            propagation_policy: Some(match propagation {
                Propagation::Background => PropagationPolicy::Background,
                Propagation::Foreground => PropagationPolicy::Foreground,
                Propagation::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions {
                uid: Some(object.uid.0.to_string()),
                resource_version: Some(object.revision.to_string()),
            }),
            ..DeleteParams::default()
        };
        let deleted = self.in_time(self.door(object).delete(&object.name, &parameters)).await;
        if found(deleted)?.is_none() {
            self.note_gone(object);
        }
        Ok(Outcome::Settled)
    }

    /// Takes `object` out of the owners of all `dependents`, then lets it go.
    async fn let_go(&self, object: &Object, dependents: Vec<Uid>) -> Result<Outcome, Trouble> {
        let owner = std::slice::from_ref(&object.uid);
        let dependents: Vec<Object> = {
            let graph = self.graph.lock();
            dependents.iter().filter_map(|uid| graph.get(uid).cloned()).collect()
        };
        // One that changed meanwhile does not keep the others from being let go; it makes for another turn.
        let stripped: Vec<Result<(), Trouble>> = futures::stream::iter(dependents)
            .map(|dependent| async move { self.strip(&dependent, owner).await })
            .buffer_unordered(LET_GO_TOGETHER)
            .collect()
            .await;
        stripped.into_iter().collect::<Result<(), Trouble>>()?;
        self.remove_finalizer(object, ORPHAN).await
    }

    /// Removes the references to `owners` from an object that is still as it was seen.
    async fn strip(&self, object: &Object, owners: &[Uid]) -> Result<(), Trouble> {
        let left = object.owners.iter().filter(|reference| !owners.contains(&reference.uid));
        let left: Vec<Value> = left.map(written).collect();
        let owner_references = if left.is_empty() { Value::Null } else { Value::Array(left) };
        let change = json!({"metadata": {
            "uid": &*object.uid.0,
            "resourceVersion": &*object.revision,
            "ownerReferences": owner_references,
        }});
        self.patch(object, change).await
    }

    async fn remove_finalizer(&self, object: &Object, finalizer: &str) -> Result<Outcome, Trouble> {
        let now = self.in_time(self.door(object).get_opt(&object.name)).await?;
        let Some(now) = now.filter(|now| now.metadata.uid.as_deref() == Some(&*object.uid.0)) else {
            self.note_gone(object);
            return Ok(Outcome::Settled);
        };
        let finalizers = now.metadata.finalizers.unwrap_or_default();
        let left: Vec<&String> = finalizers.iter().filter(|other| *other != finalizer).collect();
        if left.len() < finalizers.len() {
            let change = json!({"metadata": {
                "uid": &*object.uid.0,
                "resourceVersion": now.metadata.resource_version,
                "finalizers": left,
            }});
            self.patch(object, change).await?;
        }
        Ok(Outcome::Settled)
    }

    async fn patch(&self, object: &Object, change: Value) -> Result<(), Trouble> {
        let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
        let (door, change) = (self.door(object), Patch::Merge(change));
        let patched = self.in_time(door.patch(&object.name, &parameters, &change)).await;
        if found(patched)?.is_none() {
            self.note_gone(object);
        }
        Ok(())
    }

    /// An object that the apiserver no longer has is gone, whether or not the watch has said so.
    fn note_gone(&self, object: &Object) {
        let look = self.graph.lock().remove(&object.uid);
        self.look_at(look);
    }

    async fn warn_of_stranger(&self, object: &Object, owner: &Reference) {
        let Reference { api_version, kind, name, uid, .. } = owner;
        let namespace = &*object.namespace;
        let event = Event {
            type_: EventType::Warning,
            reason: "OwnerRefInvalidNamespace".to_owned(),
            note: Some(format!(
                "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {}] does not exist in namespace \"{namespace}\"",
                uid.0
            )),
            action: "CollectGarbage".to_owned(),
            secondary: None,
        };
        let published = self.in_time(self.recorder.publish(&event, &named(object))).await;
        if let Err(error) = published {
            tracing::debug!(object = describe(object), %error, "a warning about an owner in another namespace was lost");
        }
    }

    fn door(&self, object: &Object) -> Api<PartialObjectMeta<DynamicObject>> {
        object.served.metadata(&self.client, &object.namespace)
    }

    async fn in_time<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
        let limit = Duration::from_secs(self.settings.request_seconds.max(1));
        Ok(tokio::time::timeout(limit, request).await.map_err(|_| Trouble::TimedOut)??)
    }
}

/// An owner that only a request has shown is asked for again, unless a watch shows it first.
fn keep(verified: Verified) -> Result<Outcome, Trouble> {
    match verified.present.first() {
        Some(owner) => Err(Trouble::Unwatched(format!("{}/{}", owner.kind, owner.name))),
        None => Ok(Outcome::Settled),
    }
}

/// `None` when the object is not there; a conflict is news that has not arrived yet.
fn found<T>(result: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Trouble::Apiserver(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Err(Trouble::Apiserver(kube::Error::Api(status))) if status.code == 409 => Err(Trouble::Changed),
        Err(other) => Err(other),
    }
}

fn written(reference: &Reference) -> Value {
    let mut value = json!({
        "apiVersion": &*reference.api_version,
        "kind": &*reference.kind,
        "name": &*reference.name,
        "uid": &*reference.uid.0,
    });
    for (field, set) in [("controller", reference.controller), ("blockOwnerDeletion", reference.blocks)] {
        if let Some(set) = set {
            value[field] = Value::Bool(set);
        }
    }
    value
}

fn named(object: &Object) -> ObjectReference {
    let resource = &object.served.resource;
    ObjectReference {
        api_version: Some(resource.api_version.clone()),
        kind: Some(resource.kind.clone()),
        namespace: Some(object.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
        name: Some(object.name.to_string()),
        uid: Some(object.uid.0.to_string()),
        ..ObjectReference::default()
    }
}

fn describe(object: &Object) -> String {
    format!("{} {}/{}", object.served.qualified(), object.namespace, object.name)
}
