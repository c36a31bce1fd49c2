//! What every controller holds: the doors, the time, the settings, and a voice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use onex_crds::{CHAIN_NAMESPACE, Chain, Miner, MinerSet, names};
use onex_db::Db;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Error;
use crate::view::View;
use crate::{Result, Settings, mirror};

/// The name under which controllers write and report.
pub const COMPONENT: &str = "onex-blockchain-controller";

/// How many failing objects are remembered; beyond that all start over with the shortest pause.
const REMEMBERED_FAILURES: usize = 10_000;

/// Tells the time. Passed in, so that tests can say what time it is.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// What every controller holds.
pub struct Context {
    /// The truth: Chains, MinerSets, Miners.
    pub apiserver: Client,
    /// The cluster where Pods and Services live.
    pub provider: Client,
    /// Whether that is the same cluster. Only then can a Pod name its Miner as owner.
    pub provider_is_home: bool,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The settings.
    pub settings: Settings,
    /// Where objects are copied to, and how far that is.
    pub mirror: Option<(Db, Arc<mirror::Monitor>)>,
    /// What the watches have shown.
    pub(crate) views: Views,
    recorder: Recorder,
    speech: Mutex<Speech>,
    failures: Mutex<HashMap<String, u32>>,
}

/// What the watches of all controllers have shown: each kind is watched once, and kept once.
pub(crate) struct Views {
    pub(crate) chains: View<Chain>,
    pub(crate) sets: View<MinerSet>,
    /// Grouped by the set whose label they carry; see [`set_of`].
    pub(crate) miners: View<Miner>,
    /// Without their specs, which are compared by an annotation.
    pub(crate) pods: View<Pod>,
}

impl Views {
    fn new() -> Self {
        let nothing_more = |pod: &mut Pod| {
            slim(pod);
            pod.spec = None;
        };
        Self {
            chains: View::new(slim, |_| None),
            sets: View::new(slim, |_| None),
            miners: View::new(slim, set_of),
            pods: View::new(nothing_more, |_| None),
        }
    }
}

/// The group of a Miner: the set whose label it carries.
fn set_of(miner: &Miner) -> Option<String> {
    let set = miner.labels().get(names::LABEL_MINERSET)?;
    Some(members_of(miner.namespace().as_deref().unwrap_or_default(), set))
}

/// The group of the Miners of a set.
pub(crate) fn members_of(namespace: &str, set: &str) -> String {
    format!("{namespace}/{set}")
}

/// Managed fields are trees of maps, larger in memory than all the rest of an object.
pub(crate) fn slim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

impl Context {
    /// A context whose Pods live at `provider`, or in the same cluster when there is none.
    pub fn new(settings: Settings, apiserver: Client, provider: Option<Client>, clock: Arc<dyn Clock>) -> Self {
        let reporter = Reporter { controller: COMPONENT.to_owned(), instance: None };
        Self {
            recorder: Recorder::new(apiserver.clone(), reporter),
            provider_is_home: provider.is_none(),
            provider: provider.unwrap_or_else(|| apiserver.clone()),
            apiserver,
            clock,
            settings,
            mirror: None,
            views: Views::new(),
            speech: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Tells people that something was done to the object.
    ///
    /// An event is worth less than the work it tells about: when it cannot be written, that is logged and no more, and of very
    /// many of them only the first are written.
    pub async fn tell(&self, object: &ObjectReference, news: &News) {
        if !self.speech.lock().may_tell(object.uid.as_deref().unwrap_or_default(), news.reason) {
            tracing::debug!(reason = news.reason, "an event was left out, because there were so many");
            return;
        }
        let event = Event {
            type_: news.type_,
            reason: news.reason.to_owned(),
            note: Some(news.note.chars().take(1024).collect()),
            action: news.reason.to_owned(),
            secondary: news.about.clone(),
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::debug!(reason = news.reason, %error, "an event was not recorded");
        }
    }

    /// The Chain of this name. That it is not seen is not enough to say that it is not there.
    pub(crate) async fn chain(&self, name: &str) -> Result<Option<Arc<Chain>>> {
        let seen = self.views.chains.get(CHAIN_NAMESPACE, name);
        if seen.is_some() || name.is_empty() {
            return Ok(seen);
        }
        let chains: Api<Chain> = Api::namespaced(self.apiserver.clone(), CHAIN_NAMESPACE);
        let chain = chains.get_opt(name).await.map_err(Error::doing("look for the Chain"))?;
        Ok(chain.map(|chain| self.views.chains.wrote(chain)))
    }

    /// Whether the object is one of those that we look after.
    pub(crate) fn looks_after<K: Resource>(&self, object: &K) -> bool {
        let filter = self.settings.watch_filter.as_str();
        filter.is_empty() || object.labels().get(names::LABEL_WATCH_FILTER).is_some_and(|label| label == filter)
    }

    /// How long to wait before the next try after `object` failed once more: 0.05 s at first, doubling up to 30 s.
    pub(crate) fn failed(&self, object: &str) -> Duration {
        let mut failures = self.failures.lock();
        if failures.len() >= REMEMBERED_FAILURES {
            failures.clear();
        }
        let times = failures.entry(object.to_owned()).or_default();
        *times += 1;
        Duration::from_millis(50 << (*times - 1).min(10)).min(Duration::from_secs(30))
    }

    /// Forgets the failures of `object`.
    pub(crate) fn succeeded(&self, object: &str) {
        self.failures.lock().remove(object);
    }
}

/// Who has been told how much: as clients of Kubernetes do, so that thousands of Miners that come and go at once are not
/// outnumbered by the news of them.
#[derive(Default)]
struct Speech {
    all: Patience,
    of_one: HashMap<(String, &'static str), Patience>,
}

/// How many events of one reason are written about one object at once, and after how many seconds another one is.
const OF_ONE: (f64, f64) = (25.0, 300.0);
/// The same for all events together.
const OF_ALL: (f64, f64) = (500.0, 0.02);
/// How many objects are remembered; beyond that all start over.
const REMEMBERED_OBJECTS: usize = 10_000;

impl Speech {
    fn may_tell(&mut self, uid: &str, reason: &'static str) -> bool {
        if self.of_one.len() >= REMEMBERED_OBJECTS {
            self.of_one.clear();
        }
        self.of_one.entry((uid.to_owned(), reason)).or_default().take(OF_ONE) && self.all.take(OF_ALL)
    }
}

/// How much of a patience is used up, and when that was.
#[derive(Default)]
struct Patience(Option<(f64, Instant)>);

impl Patience {
    fn take(&mut self, (most, seconds_each): (f64, f64)) -> bool {
        let now = Instant::now();
        let used =
            self.0.map_or(0.0, |(used, at)| (used - now.duration_since(at).as_secs_f64() / seconds_each).max(0.0));
        let may = used + 1.0 <= most;
        self.0 = Some((if may { used + 1.0 } else { used }, now));
        may
    }
}

/// Something to tell people.
#[derive(Clone, Debug)]
pub struct News {
    type_: EventType,
    reason: &'static str,
    note: String,
    about: Option<ObjectReference>,
}

impl News {
    /// Something went as planned.
    pub fn normal(reason: &'static str, note: impl Into<String>) -> Self {
        Self { type_: EventType::Normal, reason, note: note.into(), about: None }
    }

    /// Something did not.
    pub fn warning(reason: &'static str, note: impl Into<String>) -> Self {
        Self { type_: EventType::Warning, reason, note: note.into(), about: None }
    }

    /// Names the other object that took part; news about different objects are never folded into one.
    pub fn about(self, object: ObjectReference) -> Self {
        Self { about: Some(object), ..self }
    }
}

impl PartialEq for News {
    fn eq(&self, other: &Self) -> bool {
        (self.reason, &self.note) == (other.reason, &other.note)
    }
}
