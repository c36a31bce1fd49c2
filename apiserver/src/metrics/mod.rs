//! What happened, counted: under the names and labels that scrapers of kube-apiserver know.
//!
//! Counting is a lookup and a few atomic additions. Everything else happens when somebody asks for the page.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{extract::Request, response::Response};
use http::header;
use parking_lot::RwLock;

mod page;
mod storage;

pub(crate) use page::page;
pub(crate) use storage::Timed;

use crate::{
    Inner, discovery,
    kinds::Kind,
    request::Target,
    router::{Next, target_of},
};

/// The upper bounds of the buckets of durations, in seconds.
const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// No more different label sets than this are kept apart; the rest is counted as `other`.
const SETS: usize = 2000;

/// What was asked for, and how it was answered. The code comes last: what differs only there stands together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    code: u16,
}

/// Which kind is watched: group, version, resource, and the kind.
type Watched = (String, String, String, String);

/// All counters.
pub(crate) struct Metrics {
    requests: RwLock<BTreeMap<Labels, Arc<Series>>>,
    /// Of those, the ones that were cut short to protect the server.
    terminations: RwLock<BTreeMap<Labels, u64>>,
    watchers: RwLock<BTreeMap<Watched, Arc<Watchers>>>,
    /// Requests that are being answered: those that change nothing, and the others.
    in_flight: [AtomicI64; 2],
    /// By what is done with the store.
    storage: [Series; Operation::ALL.len()],
    started: f64,
}

/// Durations, counted.
#[derive(Default)]
struct Series {
    count: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
}

impl Series {
    fn record(&self, duration: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let seconds = duration.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The watchers of one kind.
#[derive(Default)]
pub(crate) struct Watchers {
    open: AtomicI64,
    events: AtomicU64,
}

impl Watchers {
    /// A watcher was sent an event.
    pub(crate) fn told(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

/// One watcher, which is counted for as long as this is there.
pub(crate) struct Watching(Arc<Watchers>);

impl std::ops::Deref for Watching {
    type Target = Watchers;

    fn deref(&self) -> &Watchers {
        &self.0
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is done with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    List,
    Put,
    Delete,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Get, Self::List, Self::Put, Self::Delete];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// Marks an answer that a limit gave in place of the handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminated;

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            requests: RwLock::default(),
            terminations: RwLock::default(),
            watchers: RwLock::default(),
            in_flight: Default::default(),
            storage: Default::default(),
            started: jiff::Timestamp::now().as_millisecond() as f64 / 1000.0,
        }
    }

    /// Counts a watcher of this kind.
    pub(crate) fn watching(&self, kind: &Kind) -> Watching {
        let Kind { group, version, plural, kind, .. } = kind;
        let watched = (group.clone(), version.clone(), plural.clone(), kind.clone());
        let known = self.watchers.read().get(&watched).cloned();
        let watchers = known.unwrap_or_else(|| self.watchers.write().entry(watched).or_default().clone());
        watchers.open.fetch_add(1, Ordering::Relaxed);
        Watching(watchers)
    }

    /// Some request that has an end is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Counts what the store was asked to do.
    fn stored(&self, operation: Operation, duration: Duration) {
        self.storage[operation as usize].record(duration);
    }

    fn record(&self, labels: Labels, duration: Duration, terminated: bool) {
        if terminated {
            let mut terminations = self.terminations.write();
            let labels = bounded(labels.clone(), terminations.len());
            *terminations.entry(labels).or_default() += 1;
        }
        if let Some(series) = self.requests.read().get(&labels) {
            return series.record(duration);
        }
        let mut requests = self.requests.write();
        let labels = bounded(labels, requests.len());
        requests.entry(labels).or_default().record(duration);
    }
}

fn bounded(labels: Labels, sets: usize) -> Labels {
    if sets < SETS { labels } else { Labels { verb: "other", ..Labels::default() } }
}

/// Counts a request and how long it took to be answered.
pub(crate) async fn count(server: &Arc<Inner>, request: Request, next: impl Next) -> Response {
    let target = target_of(&request);
    let applies = || {
        let media = request.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
        media.is_some_and(|media| media.starts_with("application/apply-patch"))
    };
    let verb = reported(&target, applies);
    let dry_run = request.uri().query().is_some_and(|query| query.contains("dryRun=All"));
    let began = Instant::now();
    let in_flight = (!target.is_long_running())
        .then(|| InFlight::one(&server.metrics.in_flight[usize::from(!target.is_read_only())]));
    let response = next(request).await;
    drop(in_flight);
    let terminated = response.extensions().get::<Terminated>().is_some();
    let labels = Labels { verb, dry_run: if dry_run { "All" } else { "" }, ..labels(server, &target) };
    server.metrics.record(Labels { code: response.status().as_u16(), ..labels }, began.elapsed(), terminated);
    response
}

/// The verb as kube-apiserver's metrics have it: mostly the method.
fn reported(target: &Target, applies: impl FnOnce() -> bool) -> &'static str {
    match target.verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if applies() => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        "options" => "OPTIONS",
        _ => "other",
    }
}

/// Names that are unknown here can be made up by anybody, in any number and of any length: they are no labels.
fn labels(server: &Inner, target: &Target) -> Labels {
    let Target { group, version, resource, subresource, namespace, name, verb, .. } = target;
    let Some(kind) = server.kinds.find(group, version, resource) else { return Labels::default() };
    let is_known = subresource.is_empty() || discovery::parts(&kind).iter().any(|(name, ..)| name == subresource);
    let subresource = if is_known { subresource.clone() } else { String::new() };
    let scope = match (name.is_empty() && *verb != "create", namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    Labels {
        group: group.clone(),
        version: version.clone(),
        resource: resource.clone(),
        subresource,
        scope,
        ..Labels::default()
    }
}

/// A request that is being answered. It ends with this, also when its client goes away or its handler panics.
struct InFlight<'a>(&'a AtomicI64);

impl<'a> InFlight<'a> {
    fn one(count: &'a AtomicI64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
