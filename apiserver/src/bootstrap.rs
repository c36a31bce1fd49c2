//! What is always there, and what does not stay: system namespaces, and events that are old.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Inner, authz, builtin,
    kinds::Kind,
    registry::{DeleteOptions, Options},
    table,
};

/// Namespaces that are always there.
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
/// How often the system namespaces are looked after.
const EVERY: Duration = Duration::from_secs(60);

/// Looks after them until `shutdown`.
pub(crate) async fn keep(server: Arc<Inner>, shutdown: CancellationToken) {
    loop {
        let mut pause = EVERY;
        // All at once: they share the few waits for the disk.
        let objects = join_all(always_there().map(|object| ensure(&server, object)));
        let (objects, has_roles) = tokio::join!(objects, authz::ensure(&server));
        server.has_roles.fetch_or(has_roles, Ordering::AcqRel);
        if !has_roles || objects.contains(&false) {
            pause = Duration::from_millis(500);
        }
        expire_events(&server).await;
        server.service_accounts.rotate(server.now());
        server.windows.trim();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What is made again when it is gone.
fn always_there() -> impl Iterator<Item = Value> {
    let namespace = |name: &&str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    NAMESPACES.iter().map(namespace).chain(builtin::always_there())
}

async fn ensure(server: &Inner, object: Value) -> bool {
    let (version, name) = (object["apiVersion"].as_str(), object["kind"].as_str());
    let is_kind = |kind: &Arc<Kind>| Some(kind.kind.as_str()) == name && Some(kind.api_version().as_str()) == version;
    let Some(kind) = server.kinds.table().kinds.iter().find(|kind| is_kind(kind)).cloned() else { return true };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if server.registry.get(&kind, "", &name).is_ok() {
        return true;
    }
    let options = Options { manager: "onex-apiserver".to_owned(), ..Options::default() };
    match server.registry.create(&kind, "", object, &options).await {
        Err(status) if status.reason != "AlreadyExists" => {
            tracing::warn!(kind = kind.kind, name, error = status.message, "a system object could not be made");
            false
        }
        _ => true,
    }
}

/// Deletes events whose last news is older than the time to live.
async fn expire_events(server: &Inner) {
    let kind = server.kinds.core("events");
    let oldest = server.now() - i64::try_from(server.settings.event_ttl_seconds).unwrap_or(i64::MAX);
    let snapshot = server.registry.window(&kind).snapshot();
    for (index, item) in snapshot.range(&kind.prefix, None).enumerate() {
        if server.stopping.is_cancelled() {
            return;
        }
        if index % AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
        let Ok(event) = serde_json::from_slice::<Dated>(item.stored.raw()) else { continue };
        if event.newest(server.now()).is_some_and(|newest| newest < oldest) {
            let meta = event.metadata;
            let options = DeleteOptions { uid: Some(meta.uid), ..DeleteOptions::default() };
            // Whoever is faster is right as well, and a store that is away is told of by the writes that matter.
            let _ = server.registry.delete(&kind, &meta.namespace, &meta.name, &options).await;
        }
    }
}

/// So many events are looked at before others have their turn.
const AT_ONCE: usize = 256;

/// What says how old an event is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dated {
    last_timestamp: Option<Value>,
    event_time: Option<Value>,
    series: Option<Series>,
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    last_observed_time: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: Option<Value>,
}

impl Dated {
    /// The time of its last news, in seconds since 1970. What claims to come from the future is not believed.
    fn newest(&self, now: i64) -> Option<i64> {
        let observed = self.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
        let times = [&self.last_timestamp, &self.event_time, &self.metadata.creation_timestamp];
        let times = times.into_iter().filter_map(Option::as_ref).chain(observed);
        times.filter_map(table::seconds).filter(|time| *time <= now).max()
    }
}
