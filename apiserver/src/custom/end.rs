//! What is left of a kind when its definition is deleted: its objects go first, then the definition.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{CLEANUP, definition, keep::definitions, list, status::Condition, status::holds, text};
use crate::{
    Inner,
    kinds::Kind,
    registry::{DeleteOptions, Options, Part},
    window::Window,
};

/// How often it is looked whether objects that take their time are gone.
const PAUSE: Duration = Duration::from_millis(100);
/// So many objects are deleted at the same time.
const CONCURRENT: usize = 64;

/// Ends definitions that are marked for deletion, until `shutdown`.
pub(crate) async fn end(server: Arc<Inner>, shutdown: CancellationToken) {
    let kind = definitions(&server.kinds);
    let window = server.registry.window(&kind);
    let mut news = window.news();
    loop {
        news.borrow_and_update();
        let done = tokio::select! {
            () = shutdown.cancelled() => return,
            done = look(&server, &kind, &window) => done,
        };
        let again = async { if done { std::future::pending().await } else { tokio::time::sleep(PAUSE).await } };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = again => {}
            changed = news.changed() => if changed.is_err() { return },
        }
    }
}

/// `false` if something is left to do that no change of a definition will tell of.
async fn look(server: &Inner, kind: &Arc<Kind>, window: &Window) -> bool {
    let mut done = true;
    for item in window.snapshot().items.values().filter(|item| item.is_terminating()) {
        let crd = item.value();
        if list(&crd["metadata"], "finalizers").iter().any(|finalizer| finalizer == CLEANUP) {
            done &= finish(server, kind, &crd).await;
        }
    }
    done
}

/// Deletes the objects of a definition, and lets it go when there are none. `false` if there are some.
async fn finish(server: &Inner, kind: &Arc<Kind>, crd: &Value) -> bool {
    if !holds(crd, "Established") {
        let why = Condition::new("Terminating", false, "NeverEstablished", "resource was never established");
        return say(server, kind, crd, why, true).await;
    }
    let Some(window) = server.windows.of(&definition::prefix(crd)) else { return false };
    // Those that wait for others are asked to go once; who deletes them again would only shorten their time.
    let bare = definition::bare(crd, &window);
    let keys: Vec<String> = window
        .snapshot()
        .items
        .values()
        .filter(|item| !item.is_terminating())
        .map(|item| item.key[bare.prefix.len()..].to_owned())
        .collect();
    let delete = |key: String| {
        let bare = &bare;
        async move {
            let (namespace, name) =
                if bare.namespaced { key.split_once('/').unwrap_or(("", &key)) } else { ("", key.as_str()) };
            match server.registry.delete(bare, namespace, name, &DeleteOptions::default()).await {
                Err(status) if status.code != 404 => Some(status.message),
                _ => None,
            }
        }
    };
    let failed: Vec<String> =
        stream::iter(keys).map(delete).buffered(CONCURRENT).filter_map(std::future::ready).collect().await;
    if !server.windows.current(crate::handlers::PATIENCE).await {
        return false;
    }
    if let Some(first) = failed.first() {
        let why = format!("could not issue all deletes: {first}");
        say(server, kind, crd, Condition::new("Terminating", true, "InstanceDeletionFailed", why), false).await;
        return false;
    }
    if window.count() > 0 {
        let why = "CustomResource deletion is in progress";
        say(server, kind, crd, Condition::new("Terminating", true, "InstanceDeletionInProgress", why), false).await;
        return false;
    }
    let why = Condition::new("Terminating", false, "InstanceDeletionCompleted", "removed all instances");
    say(server, kind, crd, why, true).await
}

/// Writes how far the end is; with `over`, also lets the definition go. `false` if that could not be stored.
async fn say(server: &Inner, kind: &Arc<Kind>, crd: &Value, condition: Condition, over: bool) -> bool {
    let now = server.registry.now();
    let change = |old: &Value| {
        let mut wanted = old.clone();
        condition.set(&mut wanted, &now);
        if over && let Some(finalizers) = wanted["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != CLEANUP);
        }
        Ok(wanted.into())
    };
    let options = Options { manager: "onex-apiserver".to_owned(), ..Options::default() };
    let name = text(&crd["metadata"], "name");
    match server.registry.update(kind, "", name, Part::Status, &options, change).await {
        Err(status) if status.code != 404 => {
            tracing::warn!(name, error = status.message, "the end of a definition cannot be written");
            false
        }
        _ => true,
    }
}
