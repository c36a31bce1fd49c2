//! From watches into the graph: one task a resource, metadata only.

use super::graph::{Object, Reference, Uid};
use super::tied::Tied;
use super::{Collector, Followed};
use crate::discovery::{Catalogue, Served};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a resource must offer to take part.
const NEEDED: [&str; 3] = ["list", "watch", "delete"];
/// Changes of many resources at once, as when an extension is installed, are taken in together.
const RESOURCES_SETTLE: Duration = Duration::from_millis(250);
/// The pause after the resources could not be read, doubled each time up to the regular period.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How far the first listing of a resource is.
pub(super) struct Listing {
    done: AtomicBool,
    since: Instant,
}

impl Listing {
    fn new() -> Self {
        Self { done: AtomicBool::new(false), since: Instant::now() }
    }

    /// Whether it was listed, or has been given its chance for as long as `patience`.
    pub fn is_done_or_older_than(&self, patience: Duration) -> bool {
        self.done.load(Ordering::Acquire) || self.since.elapsed() >= patience
    }
}

impl Collector {
    /// Keeps one watch for every resource there is, until `shutdown`.
    pub(super) async fn follow_resources(self: &Arc<Self>, tasks: &TaskTracker, shutdown: &CancellationToken) {
        let period = Duration::from_secs(self.settings.discovery_seconds.max(1));
        let mut pause = FIRST_PAUSE;
        loop {
            let wait = match Catalogue::read(&self.client).await {
                Ok(catalogue) => {
                    pause = FIRST_PAUSE;
                    self.follow(Arc::new(catalogue), tasks, shutdown);
                    period
                }
                Err(error) => {
                    tracing::warn!(%error, retry = ?pause, "the resources to collect garbage from could not be read");
                    let wait = pause;
                    pause = (pause * 2).min(period);
                    wait
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.stale.notified() => tokio::time::sleep(RESOURCES_SETTLE).await,
            }
        }
    }

    fn follow(self: &Arc<Self>, catalogue: Arc<Catalogue>, tasks: &TaskTracker, shutdown: &CancellationToken) {
        let mut followed = self.followed.lock();
        let gone: Vec<_> = followed.extract_if(|_, followed| self.is_gone(followed, &catalogue)).collect();
        for served in catalogue.resources().iter().filter(|served| self.takes_part(served)) {
            let key = (served.resource.group.clone(), served.resource.plural.clone());
            followed.entry(key).or_insert_with(|| self.start(served.clone(), tasks, shutdown));
        }
        drop(followed);
        *self.catalogue.write() = catalogue;
        for (_, followed) in gone {
            self.stop(&followed);
        }
    }

    fn takes_part(&self, served: &Served) -> bool {
        served.supports(&NEEDED) && !self.settings.ignored_resources.contains(&served.qualified())
    }

    /// Whether the resource is no longer there as it was. An unreadable group proves nothing.
    fn is_gone(&self, followed: &Followed, catalogue: &Catalogue) -> bool {
        let resource = &followed.served.resource;
        !catalogue.resources().contains(&followed.served) && !catalogue.doubts(&resource.group)
    }

    fn start(self: &Arc<Self>, served: Arc<Served>, tasks: &TaskTracker, shutdown: &CancellationToken) -> Followed {
        let (stop, listing) = (shutdown.child_token(), Arc::new(Listing::new()));
        let watch = {
            let (collector, served, listing, stop) = (self.clone(), served.clone(), listing.clone(), stop.clone());
            async move {
                stop.run_until_cancelled(collector.watch(&served, &listing)).await;
            }
        };
        tasks.spawn(watch);
        Followed { served, stop, listing }
    }

    /// Ends a watch. Its objects are no longer known, which is not the same as gone: nothing is deleted for it.
    fn stop(&self, followed: &Followed) {
        followed.stop.cancel();
        let mut graph = self.graph.lock();
        let known = graph.unlisted(&followed.served, &HashSet::new());
        let look: Vec<Uid> = known.iter().flat_map(|uid| graph.forget(uid)).collect();
        drop(graph);
        self.look_at(look);
    }

    async fn watch(&self, served: &Arc<Served>, listing: &Listing) {
        let everywhere = Api::<Tied>::all_with(self.client.clone(), &served.resource);
        let mut events = std::pin::pin!(watcher(everywhere, Config::default()).default_backoff());
        let mut listed = HashSet::new();
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failing = false;
                    self.take_in(served, event, &mut listed, listing);
                }
                // Said once: the watcher pauses and tries again for as long as it takes.
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(resource = served.qualified(), %error, "a watch for garbage broke off");
                }
                Err(error) => {
                    tracing::debug!(resource = served.qualified(), %error, "a watch for garbage is still broken")
                }
            }
        }
    }

    fn take_in(&self, served: &Arc<Served>, event: Event<Tied>, listed: &mut HashSet<Uid>, listing: &Listing) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.extend(self.observe(served, object.metadata)),
            Event::InitDone => {
                self.drop_unlisted(served, &std::mem::take(listed));
                listing.done.store(true, Ordering::Release);
                self.listed.notify_waiters();
            }
            Event::Apply(object) => {
                self.observe(served, object.metadata);
                self.note_new_resources(served);
            }
            Event::Delete(object) => {
                if let Some(uid) = object.metadata.uid {
                    let look = self.graph.lock().remove(&Uid(uid.into()));
                    self.look_at(look);
                }
                self.note_new_resources(served);
            }
        }
    }

    fn observe(&self, served: &Arc<Served>, metadata: ObjectMeta) -> Option<Uid> {
        let mut graph = self.graph.lock();
        let object = object(served, metadata, |word| graph.word(word))?;
        let uid = object.uid.clone();
        let look = graph.observe(object);
        drop(graph);
        self.look_at(look);
        Some(uid)
    }

    /// What was known and is not in a complete list was deleted while the watch was broken.
    fn drop_unlisted(&self, served: &Arc<Served>, listed: &HashSet<Uid>) {
        let mut graph = self.graph.lock();
        let gone = graph.unlisted(served, listed);
        let look: Vec<Uid> = gone.iter().flat_map(|uid| graph.remove(uid)).collect();
        drop(graph);
        self.look_at(look);
    }

    /// Definitions of resources are resources too: seeing one change is how a new one is noticed at once.
    fn note_new_resources(&self, served: &Served) {
        if matches!(served.resource.group.as_str(), "apiextensions.k8s.io" | "apiregistration.k8s.io") {
            self.stale.notify_one();
        }
    }
}

fn object(served: &Arc<Served>, metadata: ObjectMeta, mut word: impl FnMut(&str) -> Arc<str>) -> Option<Object> {
    let finalizers = metadata.finalizers.unwrap_or_default();
    let has = |finalizer: &str| finalizers.iter().any(|other| other == finalizer);
    let owners = metadata.owner_references.unwrap_or_default();
    Some(Object {
        uid: Uid(metadata.uid?.into()),
        served: served.clone(),
        namespace: metadata.namespace.unwrap_or_default().into(),
        name: metadata.name?.into(),
        revision: metadata.resource_version.unwrap_or_default().into(),
        owners: owners.into_iter().map(|owner| reference(owner, &mut word)).collect(),
        deleting: metadata.deletion_timestamp.is_some(),
        orphans: has(super::work::ORPHAN),
        foreground: has(super::work::FOREGROUND),
    })
}

fn reference(owner: OwnerReference, word: &mut impl FnMut(&str) -> Arc<str>) -> Reference {
    Reference {
        uid: Uid(owner.uid.into()),
        api_version: word(&owner.api_version),
        kind: word(&owner.kind),
        name: owner.name.into(),
        controller: owner.controller,
        blocks: owner.block_owner_deletion,
    }
}
