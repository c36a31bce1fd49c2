//! The REST and watch face of the kinds.
//!
//! kubectl, client-go, kube-rs and every other Kubernetes client talk to this crate as if it were kube-apiserver. It
//! names no kind outside [`builtin`] and [`admission`], but for the few that it is made of itself (namespaces, events,
//! nodes), and keeps no truth: that is the storage's. Start at
//! [`Apiserver`]; [`router`] shows the layers in the order in which a request meets them.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::Router;
use onex_audit::AuditLog;
use onex_storage::Storage;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub mod admission;
mod answer;
mod apiservices;
pub mod audit;
pub mod authn;
mod authz;
mod body;
mod bootstrap;
pub mod builtin;
mod cel;
pub mod custom;
pub mod discovery;
mod furnish;
mod gzip;
mod handlers;
mod health;
mod index;
pub mod kinds;
mod kubelets;
mod limits;
pub mod meta;
mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod patch;
mod portions;
pub mod protobuf;
mod refusals;
pub mod registry;
pub mod request;
mod router;
pub mod schema;
pub mod selector;
pub mod service_accounts;
pub mod status;
pub mod structural;
pub mod table;
pub mod version;
pub mod window;

use authn::{Tokens, User};
use authz::Authorizer;
use custom::Definitions;
pub use furnish::Furniture;
use kinds::Kinds;
use kubelets::Kubelets;
use metrics::Metrics;
use registry::{Clock, Registry};
use service_accounts::ServiceAccounts;
use window::{Bounds, Windows};

/// What can be set of the apiserver.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it listens. Port 0 takes a free one.
    pub listen: String,
    /// A file of static tokens, `token,user,uid,"group,group"` a line. Empty: none.
    pub token_file: String,
    /// Requests that change nothing, at the same time. More are answered 429. 0: no limit.
    pub max_requests_in_flight: usize,
    /// Requests that change something, at the same time. More are answered 429. 0: no limit.
    pub max_mutating_requests_in_flight: usize,
    /// A request that is no watch and no log is answered 504 after so many seconds; one that changes something after 34 at
    /// the latest.
    pub request_timeout_seconds: u64,
    /// When asked to stop, it says that it is not ready for so many seconds before it turns away requests, so that those who
    /// distribute them can go elsewhere.
    pub shutdown_delay_seconds: u64,
    /// Then requests in flight may take so many seconds to end.
    pub drain_seconds: u64,
    /// Of so many requests over HTTP/2 each is told that the next one should come over a new connection: 0.01 is one in a
    /// hundred. For servers behind a load balancer.
    pub goaway_chance: f64,
    /// Watchers may resume, and pages go on, for so many seconds.
    pub history_seconds: u64,
    /// History that refers to more bytes than this, per resource, is forgotten from its old end.
    pub history_bytes: usize,
    /// Events are deleted after so many seconds.
    pub event_ttl_seconds: u64,
    /// Tokens of ServiceAccounts.
    pub service_accounts: service_accounts::Settings,
    /// What is recorded of requests, and where.
    pub audit: audit::Settings,
    /// Admission rules that are asked though they are not usually, by name: `OwnerReferencesPermissionEnforcement`.
    pub enable_admission: Vec<String>,
    /// Admission rules that are not asked, by name: `NamespaceAutoProvision`, `NamespaceLifecycle`, `MinerSet`, `LimitRanger`,
    /// `Priority`, `DefaultTolerationSeconds`, `ServiceAccount`, `MutatingAdmissionWebhook`, `ValidatingAdmissionWebhook`,
    /// `ResourceQuota`.
    pub disable_admission: Vec<String>,
    /// All webhooks of one request together may take so many seconds. What is not answered by then has failed.
    pub webhook_budget_seconds: u64,
    /// Namespaces in which no webhook is asked, so that none that is dead can keep the platform from its own work.
    pub webhook_exempt_namespaces: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:52443".to_owned(),
            token_file: String::new(),
            max_requests_in_flight: 2000,
            max_mutating_requests_in_flight: 1000,
            request_timeout_seconds: 60,
            shutdown_delay_seconds: 0,
            drain_seconds: 5,
            goaway_chance: 0.0,
            history_seconds: 300,
            history_bytes: 64 * 1024 * 1024,
            event_ttl_seconds: 2 * 60 * 60,
            service_accounts: service_accounts::Settings::default(),
            enable_admission: Vec::new(),
            disable_admission: Vec::new(),
            audit: audit::Settings::default(),
            webhook_budget_seconds: 30,
            webhook_exempt_namespaces: vec!["kube-system".to_owned()],
        }
    }
}

/// What the apiserver is given.
pub struct Handles {
    /// Where the truth lives.
    pub storage: Arc<dyn Storage>,
    /// How kubelets are asked for logs: TLS with a client certificate that they trust. Without it there are no logs.
    pub kubelet: Option<Arc<rustls::ClientConfig>>,
    /// The platform's own audit log, for `audit.platform`.
    pub audit: Option<Arc<dyn AuditLog>>,
    /// What every namespace is furnished with.
    pub furniture: Furniture,
}

impl Handles {
    /// A storage, and nothing else.
    pub fn over(storage: Arc<dyn Storage>) -> Self {
        Self { storage, kubelet: None, audit: None, furniture: Furniture::default() }
    }
}

/// A situation that keeps the apiserver from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be read.
    #[error("the store could not be read")]
    Storage(#[from] onex_storage::Error),
    /// What is needed for the audit log is not as it should be.
    #[error("the audit log: {path}: {why}")]
    Audit {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The keys that sign tokens could not be had.
    #[error("the keys that sign tokens of service accounts")]
    Keys(#[from] service_accounts::Error),
    /// A setting names admission rules that there are not: a slip there would switch off nothing.
    #[error("{setting} names {unknown:?}, and there are only {known}")]
    Admission {
        /// Which setting.
        setting: &'static str,
        /// The name.
        unknown: String,
        /// The rules that there are.
        known: String,
    },
    /// The store belongs to others, with another certificate authority.
    #[error(
        "the storage is used by apiservers with another certificate authority; copy the directory pki/ of one of them before the first start"
    )]
    Authority,
    /// The token file is not as it should be.
    #[error("the token file {path}: {why}")]
    Tokens {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The apiserver.
pub struct Apiserver {
    inner: Arc<Inner>,
}

/// What all requests share.
pub(crate) struct Inner {
    settings: Settings,
    kinds: Arc<Kinds>,
    definitions: Definitions,
    windows: Arc<Windows>,
    registry: Registry,
    tokens: Tokens,
    audit: Option<audit::Auditor>,
    authorizer: Arc<Authorizer>,
    quotas: Arc<admission::Quotas>,
    furniture: Furniture,
    service_accounts: Arc<ServiceAccounts>,
    kubelets: Kubelets,
    metrics: Arc<Metrics>,
    limits: limits::InFlight,
    portions: portions::Portions,
    compressing: gzip::Compressing,
    documents: discovery::Documents,
    openapi: openapi::Documents,
    clock: Clock,
    feed_from: u64,
    /// Reads are right once the windows show this revision: that of the store when we started.
    ready_at: u64,
    /// The roles that are there from the beginning have been made.
    has_roles: AtomicBool,
    /// It was asked to stop: it is ready for nothing new.
    stopping: CancellationToken,
    /// Requests are turned away, and watches end.
    shutdown: CancellationToken,
    /// Nothing is in flight any more.
    drained: CancellationToken,
}

impl Inner {
    /// Now, in seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        (self.clock)().as_second()
    }
}

impl Apiserver {
    /// Reads the store. Requests are answered once [`Apiserver::run`] runs.
    ///
    /// # Errors
    /// When the store or the token file cannot be read.
    pub async fn new(settings: Settings, handles: Handles) -> Result<Self, Error> {
        let tokens = Tokens::read(&settings.token_file)?;
        let kinds = Arc::new(Kinds::new(builtin::kinds()));
        let bounds =
            Bounds { age: Duration::from_secs(settings.history_seconds), bytes: settings.history_bytes, pins: 64 };
        let metrics = Arc::new(Metrics::new());
        let storage = metrics::Timed::over(handles.storage, metrics.clone());
        furnish::check(&*storage, &kinds, &handles.furniture).await?;
        let windows = Arc::new(Windows::new(storage.clone(), kinds.stored(), bounds));
        // What is defined in the store has windows before they are filled, with as much history as all others.
        let definitions = Definitions::restore(&kinds, &windows, &*storage).await?;
        let feed_from = windows.load().await?;
        let ready_at = windows.newest().await?;
        windows.promise(ready_at);
        let clock: Clock = Arc::new(jiff::Timestamp::now);
        let audit = audit::Auditor::new(&settings.audit, handles.audit, clock.clone())?;
        let service_accounts = Arc::new(ServiceAccounts::open(&settings.service_accounts, clock().as_second())?);
        let authorizer = Arc::new(Authorizer::new(&windows));
        let quotas = admission::Quotas::new(&windows);
        let rules = admission::Rules::all(&settings, &windows, &authorizer, &quotas);
        let rules = rules.chosen(&settings.enable_admission, &settings.disable_admission)?;
        let passing = Duration::from_secs(settings.event_ttl_seconds);
        let registry = Registry::new(storage, windows.clone(), kinds.clone(), rules, clock.clone(), passing);
        let inner = Inner {
            limits: limits::InFlight::new(&settings),
            portions: portions::Portions::default(),
            compressing: gzip::Compressing::default(),
            settings,
            windows,
            registry,
            tokens,
            audit,
            authorizer,
            quotas,
            furniture: handles.furniture,
            service_accounts,
            kubelets: Kubelets::new(handles.kubelet),
            metrics,
            documents: discovery::Documents::new(&kinds),
            openapi: openapi::Documents::new(&kinds),
            kinds,
            definitions,
            clock,
            feed_from,
            ready_at,
            has_roles: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            drained: CancellationToken::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The face for clients on the network, who show a certificate or a token.
    pub fn router(&self) -> Router {
        router::router(self.inner.clone())
    }

    /// The face for a client in this process, who is who the caller says.
    pub fn router_as(&self, user: &str, groups: &[&str]) -> Router {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        self.router().layer(axum::Extension(Arc::new(User::new(user, groups))))
    }

    /// Keeps the windows complete, the system namespaces there and old events away, until `shutdown`, and then for as long as
    /// the drain takes: it is not ready any more, after a while new requests are turned away and watches end, and those in
    /// flight are waited for.
    pub async fn run(&self, shutdown: CancellationToken) {
        let inner = &self.inner;
        let _drained = inner.drained.clone().drop_guard();
        // A task of its own: no write is seen while the feed waits for somebody else's work.
        let keep = tokio::spawn(bootstrap::keep(inner.clone(), inner.stopping.clone()));
        let end = tokio::spawn(custom::end(inner.clone(), inner.stopping.clone()));
        let aggregate = tokio::spawn(authz::aggregate(inner.clone(), inner.stopping.clone()));
        let furnish = tokio::spawn(furnish::keep(inner.clone(), inner.stopping.clone()));
        let register = tokio::spawn(apiservices::keep(inner.clone(), inner.stopping.clone()));
        // Requests in flight need these to the end.
        let define = tokio::spawn(custom::keep(inner.clone(), inner.drained.clone()));
        let reserve = tokio::spawn(admission::keep_quotas(inner.clone(), inner.drained.clone()));
        let feed = inner.windows.feed(inner.feed_from, inner.drained.clone());
        let stop = async {
            shutdown.cancelled().await;
            self.drain().await;
        };
        tokio::join!(feed, stop);
        for task in [keep, define, end, aggregate, furnish, register, reserve] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a keeper of what is always there has a bug");
            }
        }
    }

    async fn drain(&self) {
        let Inner { settings, stopping, shutdown, drained, metrics, .. } = &*self.inner;
        stopping.cancel();
        tokio::time::sleep(Duration::from_secs(settings.shutdown_delay_seconds)).await;
        shutdown.cancel();
        let idle = async {
            while metrics.is_busy() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(settings.drain_seconds), idle).await;
        drained.cancel();
    }

    /// Is cancelled when the drain is over: a listener should stop then, and not before.
    pub fn drained(&self) -> CancellationToken {
        self.inner.drained.clone()
    }

    /// Waits until requests can be answered.
    pub async fn ready(&self) {
        while !health::is_ready(&self.inner) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
