//! Watches, which also tell how far they are when nothing changes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use etcd_client::{Event, EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};
use futures::{StreamExt, stream};
use tokio::{sync::watch as news, time::timeout};

use super::{
    CLOSED, Link, behind,
    connection::{ANY, Connections, header},
};
use crate::{Change, Changes, Entry, Error, Key, Prefix, Result, Revision, Run};

/// What was changed in the prefix comes by itself within this; what is beside it must be asked for.
const GRACE: Duration = Duration::from_millis(3);
/// How often it is asked for.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a member may take to begin a watch.
const BEGIN: Duration = Duration::from_secs(3);

/// Every change in the prefix after a revision.
pub(super) async fn watch(link: Arc<Link>, prefix: Prefix, since: Revision) -> Result<Changes> {
    let stream = begin(&link.connections, &prefix, since).await?;
    // Of a revision that is just gone etcd still tells what was put, but not what was deleted.
    let options = GetOptions::new().with_count_only().with_revision(i64::try_from(since.0).unwrap_or(i64::MAX).max(1));
    match link.connections.get(ANY, options).await {
        Err(Error::Compacted { .. }) => {
            let oldest = link.oldest().await?;
            return Ok(stream::once(std::future::ready(Err(Error::Compacted { oldest }))).boxed());
        }
        other => other?,
    };
    let tells_progress = link.connections.tells_progress().await;
    let wanted = link.wanted.subscribe();
    let watcher = Watcher { link, stream, prefix, seen: since, wanted, tells_progress };
    Ok(stream::unfold(Some(watcher), |watcher| async { watcher?.next().await }).boxed())
}

async fn begin(connections: &Connections, prefix: &Prefix, since: Revision) -> Result<WatchStream> {
    let start = i64::try_from(since.0).unwrap_or(i64::MAX - 1) + 1;
    let options = WatchOptions::new()
        .with_range(behind(&prefix.0))
        .with_start_revision(start)
        .with_prev_key()
        .with_progress_notify();
    let first = if prefix.0.is_empty() { vec![0] } else { prefix.0.as_bytes().to_vec() };
    let mut client = connections.watcher().await?;
    match timeout(BEGIN, client.watch(first, Some(options))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            connections.watch_ended();
            Err(Error::Unavailable(error.to_string().into()))
        }
        Err(_) => {
            connections.watch_ended();
            Err(Error::Unavailable("etcd begins no watch".into()))
        }
    }
}

fn away(error: etcd_client::Error) -> Error {
    Error::Unavailable(error.to_string().into())
}

struct Watcher {
    link: Arc<Link>,
    stream: WatchStream,
    prefix: Prefix,
    seen: Revision,
    /// How far somebody wants to see.
    wanted: news::Receiver<u64>,
    /// Whether the members can be asked how far a watch is.
    tells_progress: bool,
}

impl Watcher {
    /// The next run, and who watches on; nobody, after an error. Nothing, once the storage is closed.
    async fn next(mut self) -> Option<(Result<Run>, Option<Self>)> {
        let mut closed = self.wanted.clone();
        let run = tokio::select! {
            _ = closed.wait_for(|wanted| *wanted == CLOSED) => return None,
            run = self.run() => run,
        };
        match run {
            Ok(run) => {
                self.seen = run.revision;
                Some((Ok(run), Some(self)))
            }
            Err(error) => {
                if matches!(error, Error::Unavailable(_)) {
                    self.link.connections.watch_ended();
                }
                Some((Err(error), None))
            }
        }
    }

    async fn run(&mut self) -> Result<Run> {
        let mut pause = GRACE;
        loop {
            let is_behind = *self.wanted.borrow_and_update() > self.seen.0;
            let message = tokio::select! {
                message = self.stream.message() => message.map_err(away)?,
                () = tokio::time::sleep(pause), if is_behind => {
                    pause = AGAIN;
                    self.ask_for_progress().await?;
                    continue;
                }
                _ = self.wanted.changed(), if !is_behind => {
                    pause = GRACE;
                    continue;
                }
            };
            let answer = message.ok_or_else(|| Error::Unavailable("etcd ended the watch".into()))?;
            if let Some(run) = self.read(&answer)? {
                return Ok(run);
            }
        }
    }

    /// What an answer says, if it says anything new.
    fn read(&self, answer: &WatchResponse) -> Result<Option<Run>> {
        if answer.compact_revision() > 0 {
            return Err(Error::Compacted { oldest: Revision(answer.compact_revision().unsigned_abs()) });
        }
        if answer.canceled() {
            return Err(Error::Unavailable(format!("etcd ended the watch: {}", answer.cancel_reason()).into()));
        }
        if answer.created() {
            return Ok(None);
        }
        if answer.events().is_empty() {
            let revision = header(answer.header());
            return Ok((revision > self.seen).then(|| Run { changes: Vec::new(), revision }));
        }
        let changes: Vec<Change> = answer.events().iter().filter_map(change).collect();
        let revisions = answer.events().iter().filter_map(|event| Some(event.kv()?.mod_revision().unsigned_abs()));
        let revision = Revision(revisions.max().unwrap_or(self.seen.0));
        Ok(Some(Run { changes, revision }))
    }

    /// Sees to it that an answer comes although nothing in the prefix changes.
    async fn ask_for_progress(&mut self) -> Result<()> {
        if self.tells_progress {
            return self.stream.request_progress().await.map_err(away);
        }
        // The answers of old versions may come before the changes that they are about. A change of our own does not.
        let key = format!("{}{BEAT}", self.prefix.as_str());
        let beat = key.clone();
        self.link.connections.write(|mut kv| async move { kv.put(beat, Bytes::new(), None).await }).await?;
        self.link.connections.write(|mut kv| async move { kv.delete(key, None).await }).await.map(drop)
    }
}

/// The end of a key that is there for a moment, for what it says in passing.
const BEAT: &str = ".onex-progress";

/// Whether a key is there only for what its changes say of time.
pub(super) fn is_beat(key: &str) -> bool {
    key.ends_with(BEAT)
}

fn change(event: &Event) -> Option<Change> {
    let kv = event.kv()?;
    let key = Key::from(std::str::from_utf8(kv.key()).ok().filter(|key| !is_beat(key))?);
    let revision = Revision(kv.mod_revision().unsigned_abs());
    let value = (event.event_type() == EventType::Put).then(|| Bytes::copy_from_slice(kv.value()));
    let previous = event.prev_kv().map(|before| Entry {
        key: key.clone(),
        revision: Revision(before.mod_revision().unsigned_abs()),
        value: Bytes::copy_from_slice(before.value()),
    });
    Some(Change { key, revision, value, previous })
}
