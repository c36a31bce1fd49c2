//! Of several processes that run the same controllers, one at a time works: whoever holds a Lease.
//!
//! The record is that of client-go's leader election, so `kubectl get lease` shows who leads, and programs of others may take
//! part. Clocks are not compared: a lease has expired when it was seen unchanged for as long as it says.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Settings of the election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether to stand for election before working: `auto`, where others may do the same work; `always`; or `never`.
    /// Default `auto`.
    pub elect: Elect,
    /// The name of the Lease. Default `onex-controllers`.
    pub name: String,
    /// Its namespace. Default `kube-system`.
    pub namespace: String,
    /// Seconds after which the others take over from a leader that says nothing any more. Default 15.
    pub lease_seconds: u16,
    /// Seconds after which a leader that cannot renew its lease stops; less than `lease_seconds`. Default 10.
    pub renew_seconds: u16,
    /// Seconds between two looks at the lease. Default 2.
    pub retry_seconds: u16,
}

/// Whether to stand for election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Elect {
    /// Where others may do the same work.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case: there is nobody else.
    Never,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            elect: Elect::Auto,
            name: "onex-controllers".to_owned(),
            namespace: "kube-system".to_owned(),
            lease_seconds: 15,
            renew_seconds: 10,
            retry_seconds: 2,
        }
    }
}

/// Does the work whenever it is our turn, until `shutdown`. The work is given a token that ends with the turn; it is dropped
/// when the turn was lost, and waited for when it ends in order.
pub(crate) async fn lead<Work: Future<Output = ()>>(
    client: Client,
    settings: &Settings,
    shutdown: CancellationToken,
    work: impl Fn(CancellationToken) -> Work,
) {
    let candidate = Candidate::new(client, settings);
    let mut seen = None;
    loop {
        let held = tokio::select! {
            () = shutdown.cancelled() => return,
            held = candidate.win(&mut seen) => held,
        };
        tracing::info!(lease = settings.name, identity = candidate.identity, "leading");
        let turn = shutdown.child_token();
        let _ended = turn.clone().drop_guard();
        tokio::select! {
            () = work(turn) => {
                candidate.release().await;
                return;
            }
            why = candidate.hold(held) => {
                tracing::warn!(lease = settings.name, why, "no longer leading; what was begun is left to the next one");
            }
        }
    }
}

/// What was seen of the lease, and since when.
type Seen = Option<(LeaseSpec, Instant)>;

struct Candidate {
    leases: Api<Lease>,
    identity: String,
    name: String,
    namespace: String,
    lease: Duration,
    renew: Duration,
    retry: Duration,
}

impl Candidate {
    fn new(client: Client, settings: &Settings) -> Self {
        let seconds = |seconds: u16| Duration::from_secs(seconds.max(1).into());
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        // Two that begin in one process are two as well.
        let moment = Timestamp::now().as_nanosecond();
        let lease = seconds(settings.lease_seconds);
        Self {
            leases: Api::namespaced(client, &settings.namespace),
            identity: format!("{}_{}_{moment:x}", host.trim(), std::process::id()),
            name: settings.name.clone(),
            namespace: settings.namespace.clone(),
            lease,
            // Whoever stops as late as the others begin would work beside them.
            renew: seconds(settings.renew_seconds).min(lease * 2 / 3),
            retry: seconds(settings.retry_seconds).min(lease / 3),
        }
    }

    /// Waits until the lease is ours, and answers it.
    async fn win(&self, seen: &mut Seen) -> Lease {
        loop {
            match self.in_time(self.try_to_win(seen)).await {
                Ok(Some(held)) => return held,
                Ok(None) => {}
                Err(why) => tracing::debug!(lease = self.name, why, "the lease cannot be asked for"),
            }
            tokio::time::sleep(self.retry).await;
        }
    }

    async fn try_to_win(&self, seen: &mut Seen) -> Result<Option<Lease>, kube::Error> {
        let parameters = PostParams::default();
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease { metadata, spec: Some(self.record(None)) };
            return taken(self.leases.create(&parameters, &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if !seen.as_ref().is_some_and(|(known, _)| *known == spec) {
            *seen = Some((spec.clone(), Instant::now()));
        }
        let since = seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let is_held = spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
        if is_held && since < lasts.map_or(self.lease, Duration::from_secs) {
            return Ok(None);
        }
        let ours = Lease { spec: Some(self.record(Some(&spec))), ..lease };
        taken(self.leases.replace(&self.name, &parameters, &ours).await)
    }

    /// Renews the lease for as long as that works, and answers why it does not any more.
    async fn hold(&self, mut held: Lease) -> String {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.retry).await;
            match self.in_time(self.renew(&held)).await {
                Ok(Some(lease)) => (held, renewed) = (lease, Instant::now()),
                Ok(None) => return "somebody else has the lease".to_owned(),
                Err(why) if renewed.elapsed() + self.retry >= self.renew => return why,
                Err(why) => tracing::debug!(lease = self.name, why, "the lease was not renewed"),
            }
        }
    }

    /// Nothing, if somebody else has it.
    async fn renew(&self, held: &Lease) -> Result<Option<Lease>, kube::Error> {
        let mut lease = held.clone();
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        match self.leases.replace(&self.name, &PostParams::default(), &lease).await {
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                // A write whose answer was lost is ours as well.
                let now = self.leases.get_opt(&self.name).await?;
                let is_ours = |lease: &Lease| {
                    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.identity)
                };
                Ok(now.filter(is_ours))
            }
            renewed => renewed.map(Some),
        }
    }

    /// Lets the next one begin at once.
    async fn release(&self) {
        let released = self.in_time(async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
            else {
                return Ok(());
            };
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        });
        if let Err(why) = released.await {
            tracing::debug!(lease = self.name, why, "the lease was not released; it will expire");
        }
    }

    /// What the lease says when it is ours, after what it said before.
    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let transitions = before.map_or(0, |before| before.lease_transitions.unwrap_or_default() + 1);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.lease.as_secs()).ok(),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
        match tokio::time::timeout(self.retry, asked).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("the apiserver does not answer".to_owned()),
        }
    }
}

/// Whether a write was the first: whoever was faster has the lease.
fn taken(written: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match written {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        written => written.map(Some),
    }
}
