//! ResourceQuotas: nobody takes more of a namespace than there is.
//!
//! What is used stands in the status of each quota. A write first reserves what it will use, with compare-and-put, so that no
//! two writers take the last place; [`keep`] does that for all of them, many at a time, and counts anew what is there when
//! something went, or when somebody would be refused. A reservation lasts as long as its request: until then it is counted
//! beside what is there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

mod keeper;
mod shared;
mod usage;

pub(crate) use keeper::keep;
pub(super) use usage::demands;

use super::{Operation, Review, Validate};
use crate::{
    builtin::quantity::Amount,
    kinds::Kind,
    registry::{Part, Registry, about, behind},
    status::{Result, Status},
    window::{Window, Windows},
};
use usage::Usage;

/// Where quotas are stored.
const PREFIX: &str = "/registry/resourcequotas/";
/// So many writes wait for their place; more wait until they may wait.
const MOST_WAITING: usize = 1024;
/// How long a write waits for its place.
const PATIENCE: Duration = Duration::from_secs(10);

/// The quotas, and the way to their keeper.
pub(crate) struct Quotas {
    window: Arc<Window>,
    ask: mpsc::Sender<Ask>,
    asked: Mutex<Option<mpsc::Receiver<Ask>>>,
}

impl Quotas {
    /// # Panics
    /// If quotas are not compiled in.
    pub(crate) fn new(windows: &Windows) -> Arc<Self> {
        let (ask, asked) = mpsc::channel(MOST_WAITING);
        let window = windows.of(PREFIX).expect("quotas are compiled in");
        Arc::new(Self { window, ask, asked: Mutex::new(Some(asked)) })
    }

    /// The quotas of a namespace, with the revisions at which they stand so.
    fn of_namespace(&self, namespace: &str) -> Vec<Quota> {
        if self.window.count() == 0 {
            return Vec::new();
        }
        let snapshot = self.window.snapshot();
        let within = format!("{PREFIX}{namespace}/");
        snapshot.range(&within, None).map(|item| Quota::read(item.value())).collect()
    }
}

/// One quota, as it stands.
struct Quota {
    name: String,
    revision: String,
    spec: Value,
    /// What there may be.
    hard: Usage,
    /// What is used, as far as it was counted.
    used: Usage,
    /// What was counted is what is limited now.
    is_counted: bool,
    /// More is used than its status says.
    is_taken_from: bool,
}

impl Quota {
    fn read(mut quota: Value) -> Self {
        let text = |field: &str| quota["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (name, revision) = (text("name"), text("resourceVersion"));
        let (hard, used) = (usage::amounts(&quota["spec"]["hard"]), usage::amounts(&quota["status"]["used"]));
        let is_counted = usage::amounts(&quota["status"]["hard"]) == hard && hard.keys().eq(used.keys());
        Self { name, revision, spec: quota["spec"].take(), hard, used, is_counted, is_taken_from: false }
    }
}

/// A write that wants its place.
struct Ask {
    namespace: String,
    wanted: Wanted,
    dry_run: bool,
    /// The reservation; or why there is none, for a 403.
    answer: oneshot::Sender<Result<Arc<Reserved>, Refusal>>,
}

/// Why there is no place.
enum Refusal {
    /// There is not enough left.
    Exceeded(String),
    /// It could not be found out.
    Unknown(Status),
}

/// What a write will use.
#[derive(Debug)]
struct Wanted {
    /// How much, by quota.
    amounts: BTreeMap<String, Usage>,
    /// The object, if it is new.
    new: Option<New>,
}

/// A new object.
#[derive(Debug)]
struct New {
    prefix: String,
    key: String,
    uid: Value,
}

/// What a request in flight will use. It is counted for as long as the request keeps it.
#[derive(Debug)]
struct Reserved(Arc<Wanted>);

/// The rule.
pub(super) struct ResourceQuota(pub(super) Arc<Quotas>);

#[async_trait]
impl Validate for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn validate(&self, review: &Review<'_>, registry: &Registry) -> Result<()> {
        let kind = review.kind;
        let Some(object) = review.object.as_deref().filter(|_| kind.namespaced && changes_use(review)) else {
            return Ok(());
        };
        let quotas = self.0.of_namespace(review.namespace);
        if quotas.is_empty() {
            return Ok(());
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let forbidden = |why: String| Status::forbidden(about(kind, name), why);
        let amounts = wanted(review, object, &quotas, registry.timestamp().as_second()).map_err(forbidden)?;
        if amounts.is_empty() {
            return Ok(());
        }
        let new = || New {
            prefix: kind.prefix.clone(),
            key: kind.key(review.namespace, name),
            uid: object["metadata"]["uid"].clone(),
        };
        let new = review.old.is_none().then(new);
        let wanted = Wanted { amounts, new };
        let (answer, answered) = oneshot::channel();
        let ask = Ask { namespace: review.namespace.to_owned(), wanted, dry_run: review.dry_run, answer };
        let asked = async {
            self.0.ask.send(ask).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Some(Ok(reserved))) => {
                review.notes.hold(reserved);
                Ok(())
            }
            Ok(Some(Err(Refusal::Exceeded(why)))) => Err(forbidden(why)),
            Ok(Some(Err(Refusal::Unknown(status)))) => Err(status),
            Ok(None) | Err(_) => Err(behind()),
        }
    }
}

/// Only what is new uses anything, or what may grow.
fn changes_use(review: &Review<'_>) -> bool {
    match review.operation {
        Operation::Create => review.part == Part::Main && !usage::is_exempt(review.kind),
        Operation::Update if review.kind.plural == "pods" => review.part == Part::Resize,
        Operation::Update => review.part == Part::Main && usage::is_measured(review.kind),
        Operation::Delete => false,
    }
}

/// What the write will use, by quota; or what it must say and does not.
fn wanted(review: &Review<'_>, object: &Value, quotas: &[Quota], now: i64) -> Result<BTreeMap<String, Usage>, String> {
    let kind = review.kind;
    let uses = usage::of(kind, object, now);
    let before = review.old.map(|old| usage::of(kind, old, now)).unwrap_or_default();
    let mut wanted = BTreeMap::new();
    for quota in quotas.iter().filter(|quota| usage::is_in_scope(&quota.spec, kind, object)) {
        if is_pod(kind)
            && uses.contains_key("pods")
            && let Some(unsaid) = usage::unsaid(object, quota.hard.keys().map(String::as_str))
        {
            return Err(format!("failed quota: {}: must specify {unsaid}", quota.name));
        }
        let counted_before = review.old.is_some_and(|old| usage::is_in_scope(&quota.spec, kind, old));
        let more = |name: &str, amount: Amount| match before.get(name) {
            Some(before) if counted_before => amount.less(*before),
            _ => amount,
        };
        let limited = uses.iter().filter(|(name, _)| quota.hard.contains_key(*name));
        let more: Usage = limited.map(|(name, amount)| (name.clone(), more(name, *amount))).collect();
        let more: Usage = more.into_iter().filter(|(_, amount)| amount.thousandths > 0).collect();
        if !more.is_empty() {
            wanted.insert(quota.name.clone(), more);
        }
    }
    Ok(wanted)
}

fn is_pod(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "pods"
}

/// What there is not enough of in a quota.
fn short(quota: &Quota, wanted: &Usage) -> Option<String> {
    let used = |name: &String| quota.used.get(name).copied().unwrap_or_default();
    let is_short = |name: &String, more: &Amount| {
        quota.hard.get(name).is_some_and(|hard| used(name).plus(*more).thousandths > hard.thousandths)
    };
    let short: Vec<_> = wanted.iter().filter(|(name, more)| is_short(name, more)).map(|(name, _)| name).collect();
    if short.is_empty() {
        return None;
    }
    let shown = |usage: &Usage| {
        let amount = |name: &String| usage.get(name).copied().unwrap_or_default();
        short.iter().map(|name| format!("{name}={}", amount(name))).collect::<Vec<_>>().join(",")
    };
    let (name, wanted, used, hard) = (&quota.name, shown(wanted), shown(&quota.used), shown(&quota.hard));
    Some(format!("exceeded quota: {name}, requested: {wanted}, used: {used}, limited: {hard}"))
}

/// Reservations of requests, and what they are for, which is known also when the request is over.
type InFlight = Vec<(Weak<Reserved>, Arc<Wanted>)>;
