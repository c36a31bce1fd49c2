//! Deletes what nobody owns any more, and sees to it that deletions wait for, or let go of, what the deleted object owned.
//!
//! Three parts: [`watch`] follows every resource that can be listed, watched and deleted, metadata only, into the
//! [`graph`]; whatever a change puts in question waits in the [`queue`]; [`work`] decides by the graph and acts through the API.
//! Everything reacts to watch events. The only things looked at by the clock are the list of resources, and what failed.
//!
//! Nothing is deleted on the word of the graph alone: an owner that was never seen is asked for at the apiserver, and every
//! deletion names the uid and the revision that were judged.

mod graph;
mod queue;
#[cfg(test)]
mod simulation;
mod tied;
mod watch;
mod work;

use crate::discovery::{Catalogue, Served};
use graph::{Graph, Uid};
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use parking_lot::{Mutex, RwLock};
use queue::Queue;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The name under which the collector writes events and changes.
const NAME: &str = "garbage-collector-controller";
/// How many owners known to be gone are remembered; an older one costs a request.
const ABSENCES: usize = 4096;
/// How long an object waits before its dependents are let go. A dependent made just before its owner was deleted is announced
/// by another watch, which may be this much behind; one that is missed would be collected instead of kept.
const LETTING_GO: Duration = Duration::from_millis(200);

/// How the collector works.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many objects are worked on at the same time.
    pub workers: usize,
    /// Seconds between two looks at which resources exist. A new custom resource is noticed at once.
    pub discovery_seconds: u64,
    /// Seconds after which a resource that cannot be listed no longer holds up deletions of others.
    pub listing_seconds: u64,
    /// Seconds after which a request is given up, to be tried again later.
    pub request_seconds: u64,
    /// Resources that neither own nor are owned, written as `resource.group`.
    pub ignored_resources: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 20,
            discovery_seconds: 30,
            listing_seconds: 30,
            request_seconds: 30,
            ignored_resources: vec!["events".to_owned(), "events.events.k8s.io".to_owned()],
        }
    }
}

/// Collects garbage until `shutdown`, and returns when what was begun is done.
///
/// Two collectors at a time do no harm, only double work.
pub async fn run(client: Client, settings: Settings, shutdown: CancellationToken) {
    let collector = Arc::new(Collector::new(client, settings));
    let tasks = TaskTracker::new();
    for _ in 0..collector.settings.workers.max(1) {
        let (collector, shutdown) = (collector.clone(), shutdown.clone());
        tasks.spawn(async move { collector.work(shutdown).await });
    }
    collector.follow_resources(&tasks, &shutdown).await;
    tasks.close();
    tasks.wait().await;
}

struct Collector {
    client: Client,
    settings: Settings,
    recorder: Recorder,
    graph: Mutex<Graph>,
    queue: Queue<Uid>,
    catalogue: RwLock<Arc<Catalogue>>,
    /// By group and plural name.
    followed: Mutex<HashMap<(String, String), Followed>>,
    /// Told when a resource has been listed.
    listed: Notify,
    /// Told when the list of resources may have changed.
    stale: Notify,
}

/// A resource that is being watched.
struct Followed {
    served: Arc<Served>,
    stop: CancellationToken,
    listing: Arc<watch::Listing>,
}

impl Collector {
    fn new(client: Client, settings: Settings) -> Self {
        let reporter = Reporter { controller: NAME.to_owned(), instance: None };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            graph: Mutex::new(Graph::new(ABSENCES)),
            queue: Queue::default(),
            catalogue: RwLock::default(),
            followed: Mutex::default(),
            listed: Notify::new(),
            stale: Notify::new(),
        }
    }

    /// Puts objects into the queue.
    fn look_at(&self, uids: Vec<Uid>) {
        let graph = self.graph.lock();
        for uid in uids {
            if graph.get(&uid).is_some_and(graph::Object::lets_go) {
                self.queue.add_after(uid, LETTING_GO);
            } else {
                self.queue.add(uid);
            }
        }
    }

    /// Whether the graph holds all there was when it was filled. A resource that cannot be listed is waited for only so long.
    fn is_complete(&self) -> bool {
        let patience = Duration::from_secs(self.settings.listing_seconds);
        let followed = self.followed.lock();
        !followed.is_empty() && followed.values().all(|followed| followed.listing.is_done_or_older_than(patience))
    }
}
