//! The changes of one kind, as the apiserver tells them.

use std::time::Duration;

use futures::TryStreamExt;
use kube::Client;
use kube::api::WatchParams;
use kube::core::WatchEvent;
use onex_db::mirror::Change;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use super::objects::{Copied, Object};
use super::{FIRST_PAUSE, Trouble};

/// How long the apiserver may say nothing. It ends a watch before that, and says every minute how far it is.
const SILENCE: Duration = Duration::from_secs(300);

/// A change that was seen.
pub(super) struct Seen<K: Copied> {
    /// When.
    pub at: Instant,
    /// The revision up to which everything was seen with it.
    pub revision: String,
    /// What became of an object, unless it only says how far the apiserver is.
    pub change: Option<Change<K::Row>>,
}

/// Sends every change after `revision`, until nobody takes them or there is trouble. Whoever takes them slowly makes it wait.
pub(super) async fn read<K: Copied>(apiserver: Client, mut revision: String, sender: Sender<Seen<K>>) -> Trouble {
    loop {
        let began = Instant::now();
        match session(&apiserver, &mut revision, &sender).await {
            Ok(()) if sender.is_closed() => return Trouble::Missed,
            // A watch ends when its time is over, or when we were too slow. One that ends at once is not asked for at once.
            Ok(()) => tokio::time::sleep(FIRST_PAUSE.saturating_sub(began.elapsed())).await,
            Err(trouble) => return trouble,
        }
    }
}

async fn session<K: Copied>(
    apiserver: &Client,
    revision: &mut String,
    sender: &Sender<Seen<K>>,
) -> Result<(), Trouble> {
    let request = K::everywhere().watch(&WatchParams::default(), revision).map_err(kube::Error::BuildRequest)?;
    let events = apiserver.request_events::<Object<K>>(request).await?;
    let mut events = std::pin::pin!(events);
    loop {
        let change = match tokio::time::timeout(SILENCE, events.try_next()).await {
            Ok(Ok(Some(event))) => event,
            // It stopped in the middle of a line: the next one begins where this one was.
            Ok(Ok(None) | Err(kube::Error::ReadEvents(_))) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error.into()),
        };
        let change = match change {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                revision.clone_from(&object.metadata.resource_version);
                Some(Change::Set(object.into_row()))
            }
            WatchEvent::Deleted(object) => {
                *revision = object.metadata.resource_version;
                Some(Change::Gone { namespace: object.metadata.namespace, name: object.metadata.name })
            }
            WatchEvent::Bookmark(bookmark) => {
                *revision = bookmark.metadata.resource_version;
                None
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        };
        if sender.send(Seen { at: Instant::now(), revision: revision.clone(), change }).await.is_err() {
            return Ok(());
        }
    }
}
