//! Who are you, and what may you do: users, their key pairs, sessions and policies.
//!
//! [`Usercenter::router`] takes REST calls and [`Usercenter::grpc`] the same over gRPC; both are made from one list, and each
//! call is one function. The truth is in the database: what this process remembers of it (holders of keys, and all policies)
//! is forgotten when a revision there grows, which every change makes it do, whoever makes it. So what is revoked is
//! refused everywhere at once. Nothing is allowed unless a policy says so, and what everybody may do is what they
//! do to themselves.
//!
//! A login begins a session. Its access tokens are signed with a secret that ends with the session; its refresh token can be
//! spent once. A program signs tokens itself, with a key pair.

mod around;
mod call;
mod calls;
mod decision;
mod first;
mod grpc;
mod identity;
pub mod keys;
mod known;
pub mod password;
mod policies;
pub mod policy;
mod rest;
mod secrets;
mod sessions;
mod settings;
pub mod throttle;
mod users;
mod writing;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use axum::Router;
use onex_audit::AuditLog;
use onex_db::accounts::Accounts;
use onex_db::{Db, Engine};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use keys::Keys;
use known::Known;
use password::Passwords;
use policy::Policies;
pub use settings::Settings;
use throttle::Throttle;
pub use users::{ADMIN, ADMIN_ID};

/// The service's name in the `.proto` files.
pub const SERVICE: &str = "usercenter.v1.UserCenter";

/// How often sessions that are over are removed.
const CLEANING: Duration = Duration::from_secs(60 * 60);

/// How many can watch the revision at the same time.
const WATCHERS: usize = 256;

/// Tells the time, in microseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What the usercenter is given.
pub struct Handles {
    /// Where the truth is.
    pub db: Db,
    /// Where decisions are recorded, if [`Settings::audit`] says so.
    pub audit: Option<Arc<dyn AuditLog>>,
    /// Its own keys.
    pub keys: Keys,
    /// What time it is.
    pub clock: Clock,
}

/// Why the usercenter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database said so.
    #[error("the usercenter's database: {}", .0.story())]
    Database(#[from] onex_db::Error),
    /// A setting cannot be used.
    #[error(transparent)]
    Password(#[from] password::Error),
    /// There is no administrator, and none could be made.
    #[error("the administrator could not be made: {0}")]
    Admin(String),
    /// There is no randomness.
    #[error(transparent)]
    Keys(#[from] keys::Error),
}

/// The usercenter. Clones are the same one.
#[derive(Clone)]
pub struct Usercenter(Arc<Inner>);

struct Inner {
    settings: Settings,
    accounts: Accounts,
    engine: Engine,
    audit: Option<Arc<dyn AuditLog>>,
    keys: Keys,
    refresh_key: [u8; 64],
    clock: Clock,
    passwords: Passwords,
    throttle: Throttle,
    policies: RwLock<Policies>,
    known: Known,
    /// The revision that this process has seen of everything.
    revision: watch::Sender<i64>,
    /// And of the policies.
    policies_revision: AtomicI64,
    /// Whoever has it changes something.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// One for each call at the same time.
    places: Semaphore,
    /// One for each watcher at the same time.
    watchers: Arc<Semaphore>,
    /// The administrator's password, until it is told.
    first_password: Mutex<Option<String>>,
}

impl Usercenter {
    /// The usercenter over a database, which is prepared first: an administrator is made if there is none.
    ///
    /// # Errors
    /// When the database cannot be used, or a setting.
    pub async fn new(settings: Settings, handles: Handles) -> Result<Self, Error> {
        let accounts = handles.db.accounts();
        accounts.prepare().await?;
        let inner = Inner {
            passwords: Passwords::new(&settings.password)?,
            throttle: Throttle::new(settings.throttle.clone()),
            known: Known::new(settings.remembered as usize),
            places: Semaphore::new(settings.calls_in_flight.max(1) as usize),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            refresh_key: handles.keys.refresh(),
            engine: handles.db.engine(),
            audit: handles.audit,
            keys: handles.keys,
            clock: handles.clock,
            policies: RwLock::default(),
            revision: watch::Sender::new(0),
            policies_revision: AtomicI64::new(0),
            turn: Arc::default(),
            first_password: Mutex::default(),
            accounts,
            settings,
        };
        let center = Self(Arc::new(inner));
        center.0.refresh().await?;
        center.begin().await?;
        Ok(center)
    }

    /// The password of the administrator that [`Usercenter::new`] made. It is told once.
    #[must_use]
    pub fn first_password(&self) -> Option<String> {
        self.0.first_password.lock().take()
    }

    /// The calls over REST.
    pub fn router(&self) -> Router {
        rest::router(self)
    }

    /// The calls over gRPC.
    pub async fn grpc(&self) -> Router {
        grpc::router(self).await
    }

    /// Learns now what other usercenters over the same database have changed. [`Usercenter::run`] does so all the time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn follow(&self) -> Result<(), Error> {
        Ok(self.0.follow().await?)
    }

    /// Follows what others change, and removes what is over, until `shutdown`.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut cleaning = tokio::time::interval(CLEANING);
        let pause = u64::from(self.0.settings.follow_milliseconds);
        // A file is ours alone.
        let shared = self.0.engine == Engine::Mysql && pause > 0;
        let mut following = tokio::time::interval(Duration::from_millis(pause.max(1)));
        following.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut lost = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = cleaning.tick() => match self.0.accounts.forget_sessions(self.0.seconds()).await {
                    Ok(gone) => tracing::debug!(gone, "sessions that were over were removed"),
                    Err(error) => tracing::warn!(error = error.story(), "sessions that are over could not be removed"),
                },
                _ = following.tick(), if shared => match self.0.follow().await {
                    Ok(()) => lost = false,
                    // Said once, and not ten times a second.
                    Err(error) if !lost => {
                        lost = true;
                        // What is remembered may not hold any more.
                        self.0.known.forget_all();
                        tracing::warn!(error = error.story(), "could not ask whether others changed something");
                    }
                    Err(_) => self.0.known.forget_all(),
                },
            }
        }
    }

    /// Whether `user` may make the call `name` of ours on `object`.
    fn allows(&self, user: &str, object: &str, name: &str) -> bool {
        self.0.policies.read().allow(user, object, &operation(name))
    }

    /// How many rows to list.
    fn limit(&self, asked: i64) -> i64 {
        if asked == 0 { self.0.settings.page.into() } else { asked }
    }
}

/// The name of a call of ours, as policies use it.
fn operation(name: &str) -> String {
    format!("/{SERVICE}/{name}")
}

fn microseconds_to_seconds(microseconds: i64) -> i64 {
    microseconds.div_euclid(1_000_000)
}

/// The clock of this machine.
#[must_use]
pub fn clock() -> Clock {
    Arc::new(|| jiff::Timestamp::now().as_microsecond())
}
