//! The keeper of the quotas: the only one in this process that writes what is used.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Ask, InFlight, New, PATIENCE, PREFIX, Quota, Quotas, Refusal, Reserved, Wanted, short, usage};
use crate::{
    Inner,
    kinds::Kind,
    registry::{Options, Part, behind},
    status::Status,
    window::{Run, Snapshot, Window},
};

/// How often it is looked whether something went.
const TICK: Duration = Duration::from_millis(250);
/// Counting takes at most one part of so many of the time,
const SHARE: u32 = 20;
/// unless no more objects than these have to be read for it.
const FEW: usize = 500;
/// How often a batch is tried again when somebody else writes the status.
const ATTEMPTS: usize = 8;
/// So many objects are counted before others have their turn.
const AT_ONCE: usize = 256;

/// What is known of the use of one namespace.
pub(super) struct Ledger {
    /// What is there was counted at this revision of the windows.
    pub(super) counted: u64,
    when: Instant,
    took: Duration,
    /// So many objects were read for it.
    read: usize,
    /// Something happened that no window tells: a request ended, or a write of ours failed.
    is_stale: bool,
    in_flight: InFlight,
    /// By the names of the quotas, what requests gave back since it was counted.
    pub(super) given_back: HashMap<String, usage::Usage>,
    /// By the names of the quotas, the revision that was seen last, and since when.
    pub(super) seen: HashMap<String, (String, Instant)>,
}

impl Ledger {
    fn new() -> Self {
        let (when, took) = (Instant::now(), Duration::ZERO);
        let (given_back, seen) = (HashMap::new(), HashMap::new());
        Self { counted: 0, when, took, read: 0, is_stale: true, in_flight: InFlight::new(), given_back, seen }
    }

    /// Counting is cheap enough to do it now.
    fn is_rested(&self) -> bool {
        self.read <= FEW || self.when.elapsed() >= self.took * SHARE
    }
}

/// Gives writes their places, and counts what is used, until `shutdown`.
pub(crate) async fn keep(server: Arc<Inner>, shutdown: CancellationToken) {
    let quotas = server.quotas.clone();
    let Some(mut asked) = quotas.asked.lock().take() else { return };
    let mut ledgers: HashMap<String, Ledger> = HashMap::new();
    let mut news = quotas.window.news();
    loop {
        let mut asks = Vec::new();
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = asked.recv_many(&mut asks, super::MOST_WAITING) => {}
            _ = news.changed() => {}
            () = tokio::time::sleep(TICK), if quotas.window.count() > 0 => {}
        }
        let mut batches: HashMap<String, Vec<Ask>> = HashMap::new();
        for ask in asks {
            batches.entry(ask.namespace.clone()).or_default().push(ask);
        }
        for namespace in namespaces(&quotas.window) {
            batches.entry(namespace).or_default();
        }
        let mut work = Vec::new();
        for (namespace, asks) in batches {
            let ledger = ledgers.remove(&namespace).unwrap_or_else(Ledger::new);
            work.push(Keeper { server: &server, quotas: &quotas, namespace, ledger }.work(asks));
        }
        ledgers = join_all(work).await.into_iter().collect();
    }
}

/// The namespaces that have a quota.
fn namespaces(window: &Window) -> BTreeSet<String> {
    if window.count() == 0 {
        return BTreeSet::new();
    }
    let snapshot = window.snapshot();
    let namespace = |key: &Arc<str>| Some(key.strip_prefix(PREFIX)?.split_once('/')?.0.to_owned());
    snapshot.items.keys().filter_map(namespace).collect()
}

/// The keeper at work on one namespace.
pub(super) struct Keeper<'a> {
    pub(super) server: &'a Inner,
    quotas: &'a Quotas,
    pub(super) namespace: String,
    pub(super) ledger: Ledger,
}

impl Keeper<'_> {
    async fn work(mut self, asks: Vec<Ask>) -> (String, Ledger) {
        let (flying, landed): (InFlight, InFlight) =
            std::mem::take(&mut self.ledger.in_flight).into_iter().partition(|(held, _)| held.strong_count() > 0);
        self.ledger.in_flight = flying;
        self.ledger.is_stale |= !landed.is_empty();
        if self.server.windows.is_shared() {
            self.look_at_others(landed.into_iter().map(|(_, wanted)| wanted)).await;
        }
        if !asks.is_empty() {
            self.settle(asks).await;
        } else if self.ledger.is_rested() && self.is_due() && self.count().await.is_err() {
            self.ledger.is_stale = true; // the next tick tries again
        }
        (self.namespace, self.ledger)
    }

    fn is_due(&mut self) -> bool {
        self.ledger.is_stale || self.has_changed() || self.read().iter().any(|quota| !quota.is_counted)
    }

    pub(super) fn read(&self) -> Vec<Quota> {
        self.quotas.of_namespace(&self.namespace)
    }

    /// The kinds that the quotas count.
    pub(super) fn kinds(&self, quotas: &[Quota]) -> Vec<Arc<Kind>> {
        let names: BTreeSet<&String> = quotas.iter().flat_map(|quota| quota.hard.keys()).collect();
        let mut kinds: Vec<Arc<Kind>> = Vec::new();
        for kind in names.into_iter().filter_map(|name| usage::kind_of(&self.server.kinds, name)) {
            if !kinds.iter().any(|known| known.prefix == kind.prefix) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// Something that is counted came, went or changed since it was counted.
    fn has_changed(&mut self) -> bool {
        let revision = self.server.windows.revision();
        let changed = self.kinds(&self.read()).iter().any(|kind| {
            let window = self.server.registry.window(kind);
            let within = format!("{}{}/", kind.prefix, self.namespace);
            window.changed() > self.ledger.counted
                && match window.events_after(self.ledger.counted, usize::MAX) {
                    Run::Events(events, _) => events.iter().any(|event| event.item.key.starts_with(&within)),
                    Run::Gone(_) => true,
                }
        });
        if !changed && self.ledger.counted > 0 {
            self.ledger.counted = revision; // nobody need look at the same changes again
        }
        changed
    }

    /// Counts what is there, and writes it into the quotas that say something else.
    async fn count(&mut self) -> Result<(), Status> {
        // Nothing is left out, whoever is in the middle of it: first the quotas, so that who reserves from now on makes our
        // write fail; then who reserved before; then what is there, in which those are or are not.
        if !self.server.windows.current(PATIENCE).await {
            return Err(behind());
        }
        let quotas = self.read();
        let in_flight: Vec<_> = self.ledger.in_flight.iter().filter_map(|(held, _)| held.upgrade()).collect();
        let gone = self.gone(&quotas);
        let counted = self.server.windows.revision();
        let began = Instant::now();
        let snapshots: Vec<_> = self.kinds(&quotas).into_iter().map(|kind| self.snapshot(kind)).collect();
        let (mut used, read) = self.there(&quotas, &snapshots).await;
        let is_seen = |wanted: &Wanted| {
            let Some(New { prefix, key, .. }) = &wanted.new else { return false };
            snapshots.iter().any(|(kind, snapshot)| kind.prefix == *prefix && snapshot.items.contains_key(key.as_str()))
        };
        let unseen: Vec<_> = in_flight.iter().filter(|reserved| !is_seen(&reserved.0)).collect();
        self.ledger.read = read;
        (self.ledger.when, self.ledger.took) = (Instant::now(), began.elapsed());
        for (quota, used) in quotas.iter().zip(&mut used) {
            for reserved in unseen.iter().filter_map(|reserved| reserved.0.amounts.get(&quota.name)) {
                usage::plus(used, reserved);
            }
        }
        let mut is_held = false;
        for ((mut quota, used), gone) in quotas.into_iter().zip(used).zip(gone) {
            let limited = |name: &String| (name.clone(), used.get(name).copied().unwrap_or_default());
            let there = quota.hard.keys().map(limited).collect();
            let used = self.held(&quota, &there, &gone);
            is_held |= used != there;
            if quota.used != used || !quota.is_counted {
                quota.used = used;
                self.write(&quota).await?;
            }
        }
        self.ledger.counted = counted;
        self.ledger.given_back.clear();
        // What others have places for may be over soon.
        self.ledger.is_stale = is_held;
        Ok(())
    }

    fn snapshot(&self, kind: Arc<Kind>) -> (Arc<Kind>, Snapshot) {
        let snapshot = self.server.registry.window(&kind).snapshot();
        (kind, snapshot)
    }

    /// What the objects of the namespace use, as each of the quotas sees it; and how many of them had to be read.
    async fn there(&self, quotas: &[Quota], snapshots: &[(Arc<Kind>, Snapshot)]) -> (Vec<usage::Usage>, usize) {
        let now = self.server.now();
        let mut read = 0;
        let mut used = vec![usage::Usage::new(); quotas.len()];
        for (kind, snapshot) in snapshots {
            let within = format!("{}{}/", kind.prefix, self.namespace);
            if !usage::is_measured(kind) {
                let number = snapshot.range(&within, None).count();
                for (quota, used) in quotas.iter().zip(&mut used) {
                    if usage::is_in_scope(&quota.spec, kind, &Value::Null) {
                        usage::count(kind, number, used);
                    }
                }
                continue;
            }
            for (index, item) in snapshot.range(&within, None).enumerate() {
                read += 1;
                if index % AT_ONCE == AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
                let object = item.value();
                let uses = usage::of(kind, &object, now);
                for (quota, used) in quotas.iter().zip(&mut used) {
                    if usage::is_in_scope(&quota.spec, kind, &object) {
                        usage::plus(used, &uses);
                    }
                }
            }
        }
        (used, read)
    }

    /// Writes what is used, if the quota still is what it was.
    async fn write(&self, quota: &Quota) -> Result<(), Status> {
        let registry = &self.server.registry;
        let kind = registry.kinds().core("resourcequotas");
        let options = Options { manager: "onex-apiserver".to_owned(), ..Options::default() };
        let used: Map<String, Value> =
            quota.used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
        let change = |old: &Value| {
            let mut new = old.clone();
            // Whoever reserved meanwhile would be forgotten: the version must be the one that was looked at.
            new["metadata"]["resourceVersion"] = quota.revision.clone().into();
            new["status"]["hard"] = old["spec"]["hard"].clone();
            new["status"]["used"] = used.clone().into();
            Ok(new.into())
        };
        registry.update(&kind, &self.namespace, &quota.name, Part::Status, &options, change).await.map(drop)
    }

    /// Answers all who ask, each as if they had come one after the other.
    async fn settle(&mut self, asks: Vec<Ask>) {
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            match self.try_to_settle(&asks).await {
                Ok(answers) => {
                    for (ask, answer) in asks.into_iter().zip(answers) {
                        let answer = answer.map_err(Refusal::Exceeded).map(|()| {
                            let wanted = Arc::new(ask.wanted);
                            let reserved = Arc::new(Reserved(wanted.clone()));
                            if !ask.dry_run {
                                self.ledger.in_flight.push((Arc::downgrade(&reserved), wanted));
                            }
                            reserved
                        });
                        let _ = ask.answer.send(answer); // who does not wait any more has no reservation either
                    }
                    return;
                }
                Err(status) => {
                    self.ledger.is_stale = true;
                    failed = Some(status);
                }
            }
        }
        for ask in asks {
            let status = failed.clone().unwrap_or_else(behind);
            let _ = ask.answer.send(Err(Refusal::Unknown(status)));
        }
    }

    async fn try_to_settle(&mut self, asks: &[Ask]) -> Result<Vec<Result<(), String>>, Status> {
        if !self.server.windows.current(PATIENCE).await {
            return Err(behind());
        }
        let mut quotas = self.read();
        let mut answers = serve(&mut quotas, asks);
        let is_counted = quotas.iter().all(|quota| quota.is_counted);
        let is_refused = answers.iter().any(Result::is_err);
        if !is_counted || is_refused && self.ledger.is_rested() && (self.ledger.is_stale || self.has_changed()) {
            self.count().await?;
            if !self.server.windows.current(PATIENCE).await {
                return Err(behind());
            }
            quotas = self.read();
            answers = serve(&mut quotas, asks);
        }
        for quota in quotas.iter().filter(|quota| quota.is_taken_from) {
            self.write(quota).await?;
        }
        Ok(answers)
    }
}

/// Gives each in turn what they ask for, from all quotas or from none.
fn serve(quotas: &mut [Quota], asks: &[Ask]) -> Vec<Result<(), String>> {
    let serve = |ask: &Ask| {
        let wanted = &ask.wanted.amounts;
        let short = |quota: &Quota| short(quota, wanted.get(&quota.name)?);
        if let Some(why) = quotas.iter().find_map(short) {
            return Err(why);
        }
        for quota in quotas.iter_mut().filter(|_| !ask.dry_run) {
            if let Some(wanted) = wanted.get(&quota.name) {
                usage::plus(&mut quota.used, wanted);
                quota.is_taken_from = true;
            }
        }
        Ok(())
    };
    asks.iter().map(serve).collect()
}
