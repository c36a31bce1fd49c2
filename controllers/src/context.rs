//! What every controller holds: the doors, the time, the settings, and a voice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use onex_db::Db;
use parking_lot::Mutex;

use crate::{Settings, mirror};

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
    recorder: Recorder,
    failures: Mutex<HashMap<String, u32>>,
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
            failures: Mutex::default(),
        }
    }

    /// Tells people that something was done to the object.
    ///
    /// An event is worth less than the work it tells about: when it cannot be written, that is logged and no more.
    pub async fn tell(&self, object: &ObjectReference, news: &News) {
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
