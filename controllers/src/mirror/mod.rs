//! Chains, MinerSets and Miners, copied into tables that can be asked with SQL.
//!
//! One controller for all kinds: [`objects`] says what the row of an object is, and everything else is the same. It compares all rows
//! with all objects, and then writes every change it is told of, many in one transaction when there are many. It compares
//! again at every start, whenever it may have missed something, and from time to time, so that a row that somebody changed
//! or lost is mended.
//!
//! Nothing is kept for a database that is away: the watch is given up, and a comparison mends everything when it is back. So
//! what it holds is two batches, and while it compares a few bytes for every row.

mod compare;
mod monitor;
mod objects;
mod quantity;
mod read;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use onex_crds::{Chain, Miner, MinerSet};
use onex_db::Db;
use onex_db::mirror::{Change, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::Clock;
use crate::error::words;
pub use monitor::Monitor;
use monitor::{Doing, Gauges};
use objects::Copied;
use read::Seen;

/// The pause after something failed, doubled each time up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often rows are counted while they change.
const COUNT: Duration = Duration::from_secs(10);

/// Settings of the mirror controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds after which all rows are compared with all objects again; 0 never does that while all goes well. Default 3600.
    pub compare_seconds: u64,
    /// How many changes go into one transaction at most. Default 2000.
    pub batch: usize,
    /// Milliseconds between the beginnings of two transactions, unless there are `batch` changes before: what changes all the time is
    /// written less often, and the disk is left to others. A change after a while of rest is written at once. Default 50.
    pub pause_milliseconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { compare_seconds: 3600, batch: 2000, pause_milliseconds: 50 }
    }
}

/// Why a round of the mirror ended before its time.
#[derive(Debug)]
enum Trouble {
    Database(onex_db::Error),
    Apiserver(kube::Error),
    /// The apiserver no longer knows what happened since.
    Missed,
}

impl From<onex_db::Error> for Trouble {
    fn from(error: onex_db::Error) -> Self {
        Self::Database(error)
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 410 => Self::Missed,
            error => Self::Apiserver(error),
        }
    }
}

impl Trouble {
    fn story(&self) -> String {
        match self {
            Self::Database(error) => error.story(),
            Self::Apiserver(error) => words(error),
            Self::Missed => "the apiserver no longer knows all changes".to_owned(),
        }
    }
}

/// Keeps the tables of `db` what the objects are, until `shutdown`.
pub(crate) async fn run(
    apiserver: Client,
    (db, monitor): (Db, Arc<Monitor>),
    settings: Settings,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    let mirror = Mirror { apiserver, db, monitor, settings, clock };
    tokio::join!(mirror.keep::<Chain>(&shutdown), mirror.keep::<MinerSet>(&shutdown), mirror.keep::<Miner>(&shutdown));
}

struct Mirror {
    apiserver: Client,
    db: Db,
    monitor: Arc<Monitor>,
    settings: Settings,
    clock: Arc<dyn Clock>,
}

/// The copy of one kind.
struct Copying<'a, K: Copied> {
    apiserver: &'a Client,
    table: Table<K::Row>,
    gauges: &'a Gauges,
    settings: &'a Settings,
    clock: &'a dyn Clock,
}

impl Mirror {
    async fn keep<K: Copied>(&self, shutdown: &CancellationToken) {
        let gauges = self.monitor.of::<K>();
        let Self { apiserver, settings, .. } = self;
        let copying = Copying::<K> { apiserver, table: self.db.mirror(), gauges, settings, clock: &*self.clock };
        // Also when the turn to work is lost.
        let _rests = gauges.at_rest_when_dropped();
        shutdown.run_until_cancelled(copying.forever()).await;
    }
}

impl<K: Copied> Copying<'_, K> {
    async fn forever(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let trouble = match self.compare().await {
                Ok(revision) => {
                    pause = FIRST_PAUSE;
                    self.follow(revision).await.err()
                }
                Err(trouble) => Some(trouble),
            };
            let Some(trouble) = trouble else { continue };
            self.tell(&trouble);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Said once: then it tries again for as long as it takes.
    fn tell(&self, trouble: &Trouble) {
        let (kind, why) = (K::KIND, trouble.story());
        let was_well = match trouble {
            Trouble::Missed => return tracing::info!(kind, why, "the mirror compares everything again"),
            Trouble::Database(_) => self.gauges.failed(Doing::Away, why.clone()),
            Trouble::Apiserver(_) => self.gauges.failed(Doing::Blind, why.clone()),
        };
        match was_well {
            true => tracing::warn!(kind, why, "the mirror stands still"),
            false => tracing::debug!(kind, why, "the mirror still stands still"),
        }
    }

    /// Writes the changes after `revision`, until it is time to compare again.
    async fn follow(&self, revision: String) -> Result<(), Trouble> {
        let compare_at = match self.settings.compare_seconds {
            0 => None,
            seconds => Some(Instant::now() + Duration::from_secs(seconds)),
        };
        let most = self.settings.batch.max(1);
        let (sender, mut changes) = mpsc::channel(most);
        let reading = tokio::spawn(read::read::<K>(self.apiserver.clone(), revision, sender));
        let reading = AbortOnDropHandle::new(reading);
        let pause = Duration::from_millis(self.settings.pause_milliseconds);
        let (mut count_at, mut next) = (None, Instant::now());
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = gather(&mut changes, &mut batch, most, next) => {
                    if batch.is_empty() {
                        let missed = |_| Trouble::Missed;
                        return Err(reading.await.unwrap_or_else(missed));
                    }
                    next = Instant::now() + pause;
                    self.write(&mut batch).await?;
                    self.gauges.caught_up(changes.is_empty());
                    count_at.get_or_insert_with(|| Instant::now() + COUNT);
                }
                () = at(compare_at) => return Ok(()),
                () = at(count_at) => {
                    count_at = None;
                    self.gauges.counted(self.table.list(&Default::default()).await?.total);
                }
            }
        }
    }

    /// Writes what became of the objects that changed: of several changes of one, the last.
    async fn write(&self, batch: &mut Vec<Seen<K>>) -> Result<(), Trouble> {
        let Some(oldest) = batch.first().map(|seen| seen.at) else { return Ok(()) };
        self.gauges.behind_since(oldest);
        let count = batch.iter().filter(|seen| seen.change.is_some()).count();
        let mut revision = None;
        let mut last = HashMap::with_capacity(count);
        for seen in batch.drain(..) {
            revision = seen.revision.parse().ok().or(revision);
            if let Some(change) = seen.change {
                let (namespace, name) = change.object();
                last.insert((namespace.to_owned(), name.to_owned()), change);
            }
        }
        let changes: Vec<_> = last.into_values().collect();
        self.apply(&changes, revision).await?;
        self.gauges.wrote(count, oldest.elapsed());
        Ok(())
    }

    /// Writes changes, without those that the database refuses: one must not keep out all others.
    async fn apply(&self, changes: &[Change<K::Row>], revision: Option<u64>) -> Result<(), Trouble> {
        if changes.is_empty() && revision.is_none() {
            return Ok(());
        }
        let now = self.clock.now().as_microsecond();
        match self.table.apply(changes, revision, now).await {
            Err(error) if !error.is_passing() && !changes.is_empty() => {}
            outcome => return Ok(outcome?),
        }
        let mut refused = 0;
        for change in changes {
            match self.table.apply(std::slice::from_ref(change), None, now).await {
                Err(error) if !error.is_passing() => {
                    let (namespace, name) = change.object();
                    tracing::warn!(kind = K::KIND, namespace, name, why = error.story(), "a row was refused");
                    refused += 1;
                }
                outcome => outcome?,
            }
        }
        self.gauges.refused(refused);
        Ok(self.table.apply(&[], revision, now).await?)
    }
}

/// Takes what there is, and until `next` also what comes, but no more than `most`. Takes nothing when nothing will come any more.
/// What was taken when this is cut off stays.
async fn gather<T>(changes: &mut mpsc::Receiver<T>, batch: &mut Vec<T>, most: usize, next: Instant) {
    if batch.is_empty() && changes.recv_many(batch, most).await == 0 {
        return;
    }
    while batch.len() < most {
        match tokio::time::timeout_at(next, changes.recv_many(batch, most - batch.len())).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_written_at_once_after_a_rest_and_otherwise_when_it_is_time_or_full() {
        let (sender, mut changes) = mpsc::channel(100);
        let (mut batch, began) = (Vec::new(), Instant::now());
        sender.send(1).await.unwrap();
        gather(&mut changes, &mut batch, 3, began).await;
        assert_eq!((std::mem::take(&mut batch), began.elapsed()), (vec![1], Duration::ZERO));

        let pause = Duration::from_millis(50);
        sender.send(2).await.unwrap();
        gather(&mut changes, &mut batch, 3, began + pause).await;
        assert_eq!((batch.clone(), began.elapsed()), (vec![2], pause));

        // What was there when it was cut off is still there, and does not wait for more.
        let next = began + pause * 10;
        for change in 3..6 {
            sender.send(change).await.unwrap();
        }
        gather(&mut changes, &mut batch, 3, next).await;
        assert_eq!((std::mem::take(&mut batch), began.elapsed()), (vec![2, 3, 4], pause));

        drop(sender);
        gather(&mut changes, &mut batch, 3, next).await;
        assert_eq!((std::mem::take(&mut batch), began.elapsed()), (vec![5], pause));
        gather(&mut changes, &mut batch, 3, next).await;
        assert!(batch.is_empty());
    }
}
