//! What is always there, and what does not stay: system namespaces, and events that are old.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Inner,
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
        for name in NAMESPACES {
            if !ensure(&server, name).await {
                pause = Duration::from_millis(500);
            }
        }
        expire_events(&server).await;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn ensure(server: &Inner, name: &str) -> bool {
    let kind = server.kinds.core("namespaces");
    if server.registry.get(&kind, "", name).is_ok() {
        return true;
    }
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let options = Options { manager: "onex-apiserver".to_owned(), ..Options::default() };
    match server.registry.create(&kind, "", object, &options).await {
        Err(status) if status.reason != "AlreadyExists" => {
            tracing::warn!(namespace = name, error = status.message, "a system namespace could not be made");
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
    for item in snapshot.range(&kind.prefix, None) {
        let event = item.value();
        let times = [
            &event["lastTimestamp"],
            &event["eventTime"],
            &event["series"]["lastObservedTime"],
            &event["metadata"]["creationTimestamp"],
        ];
        let newest = times.into_iter().filter_map(table::seconds).max().unwrap_or(i64::MAX);
        if newest < oldest {
            let meta = |field: &str| event["metadata"][field].as_str().unwrap_or_default();
            let options = DeleteOptions { uid: Some(meta("uid").to_owned()), ..DeleteOptions::default() };
            // Whoever is faster is right as well, and a store that is away is told of by the writes that matter.
            let _ = server.registry.delete(&kind, meta("namespace"), meta("name"), &options).await;
        }
    }
}
