//! The members of a cluster, one of which is asked at a time.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, GetResponse, Identity, KvClient, LeaseClient, ResponseHeader,
    TlsOptions, WatchClient,
};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};

use super::revision_of;
use crate::{Error, Result, Revision, Settings};

/// How long one member has for an answer to a read.
const READ: Duration = Duration::from_secs(2);
/// How long one member has for an answer to a write. It may wait for its disk and for others.
const WRITE: Duration = Duration::from_secs(5);
/// How long members are tried before the cluster is said to be away.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(1);
/// A connection on which nothing comes back for so long is given up, which ends its watches.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));
/// As much as a list in pieces may be answered with, if all its objects are as large as can be.
const LARGEST_ANSWER: usize = 1 << 30;
/// What etcd takes of a request unless it was started otherwise.
const USUAL_LIMIT: usize = 1536 << 10;

/// Read for the revision that comes with the answer. Whoever uses the cluster may read this key: it is the compactors'.
pub(super) const ANY: &str = super::compactor::KEY;

/// The members.
pub(super) struct Connections {
    members: Vec<Member>,
    options: ConnectOptions,
    /// Which one is asked.
    current: AtomicUsize,
}

struct Member {
    url: String,
    /// Made when it is needed first: it may be away.
    client: OnceCell<Client>,
}

/// What became of a try.
enum Failure {
    /// Another member, or the same one later, may do better. `sent`: it may have been done.
    Away { sent: bool, why: String },
    /// It is no use.
    Told(Error),
}

impl Connections {
    pub fn new(members: &[String], settings: &Settings) -> Result<Self> {
        let (alive, answers) = KEEP_ALIVE;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(alive, answers)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let is_said = |file: &PathBuf| !file.as_os_str().is_empty();
        if !settings.etcd_user.is_empty() {
            let password = text(&settings.etcd_password_file)?;
            options = options.with_user(&settings.etcd_user, password.trim_end()).with_auto_token_refresh(true);
        }
        let is_secure = is_said(&settings.etcd_ca_file);
        if is_secure {
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(text(&settings.etcd_ca_file)?));
            if is_said(&settings.etcd_cert_file) {
                let (certificate, key) = (text(&settings.etcd_cert_file)?, text(&settings.etcd_key_file)?);
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        let scheme = if is_secure { "https" } else { "http" };
        let member = |member: &String| Member { url: format!("{scheme}://{member}"), client: OnceCell::new() };
        Ok(Self { members: members.iter().map(member).collect(), options, current: AtomicUsize::new(0) })
    }

    /// Reads, from one member after the other if need be.
    pub async fn get(&self, key: impl Into<Vec<u8>>, options: GetOptions) -> Result<GetResponse> {
        let key: Vec<u8> = key.into();
        let read = |client: Client| {
            let (key, options) = (key.clone(), options.clone());
            async move { kv(&client).get(key, Some(options)).await }
        };
        self.read(read).await
    }

    /// The revision of the newest change.
    pub async fn newest(&self) -> Result<Revision> {
        let answer = self.get(ANY, GetOptions::new().with_count_only()).await?;
        Ok(revision_of(&answer))
    }

    pub async fn compact(&self, revision: i64) -> Result<()> {
        self.read(|client| async move { kv(&client).compact(revision, None).await.map(drop) }).await
    }

    /// Does what may be done twice.
    pub async fn read<T, W>(&self, work: impl Fn(Client) -> W + Send + Sync) -> Result<T>
    where
        W: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let until = Instant::now() + PATIENCE;
        loop {
            let (member, tried) = self.attempt(READ, &work).await;
            match tried {
                Ok(answer) => return Ok(answer),
                Err(Failure::Told(error)) => return Err(error),
                Err(Failure::Away { why, .. }) => self.next(member, until, why).await?,
            }
        }
    }

    /// Does what must not be done twice. The answer [`Error::Unavailable`] leaves open whether it was done.
    pub async fn write<T, W>(&self, work: impl FnOnce(KvClient) -> W + Clone + Send) -> Result<T>
    where
        W: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let until = Instant::now() + PATIENCE;
        loop {
            let work = work.clone();
            let (member, tried) = self.attempt(WRITE, move |client| work(kv(&client))).await;
            match tried {
                Ok(answer) => return Ok(answer),
                Err(Failure::Told(error)) => return Err(error),
                Err(Failure::Away { sent: false, why }) => self.next(member, until, why).await?,
                Err(Failure::Away { sent: true, why }) => {
                    self.leave(member);
                    return Err(Error::Unavailable(why.into()));
                }
            }
        }
    }

    async fn attempt<T, W>(&self, time: Duration, work: impl FnOnce(Client) -> W + Send) -> (usize, Result<T, Failure>)
    where
        W: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let index = self.current.load(Ordering::Relaxed) % self.members.len();
        let member = &self.members[index];
        let connect = member.client.get_or_try_init(|| Client::connect([&member.url], Some(self.options.clone())));
        let client = match timeout(CONNECT, connect).await {
            Ok(Ok(client)) => client.clone(),
            Ok(Err(error)) => return (index, Err(judge(error, false))),
            Err(_) => return (index, Err(Failure::Away { sent: false, why: "etcd does not answer".to_owned() })),
        };
        let answer = match timeout(time, work(client)).await {
            Ok(answer) => answer.map_err(|error| judge(error, true)),
            Err(_) => Err(Failure::Away { sent: true, why: format!("etcd did not answer in {} s", time.as_secs()) }),
        };
        (index, answer)
    }

    /// Asks another member from now on.
    fn leave(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        let _ = self.current.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn next(&self, member: usize, until: Instant, why: String) -> Result<()> {
        self.leave(member);
        if Instant::now() >= until {
            return Err(Error::Unavailable(why.into()));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// A client of the present member, for what lasts: watches and leases.
    pub async fn watcher(&self) -> Result<WatchClient> {
        let client = self.read(|client| async move { Ok(client) }).await?;
        Ok(client.watch_client().max_decoding_message_size(LARGEST_ANSWER))
    }

    pub async fn grant(&self, seconds: i64) -> Result<i64> {
        let granted = self.read(|client| {
            let mut leases: LeaseClient = client.lease_client();
            async move { leases.grant(seconds, None).await }
        });
        Ok(granted.await?.id())
    }

    /// A watch on this member has ended: the next one is to be on another.
    pub fn watch_ended(&self) {
        self.leave(self.current.load(Ordering::Relaxed) % self.members.len());
    }

    /// The versions of etcd from which on an answer to a question for progress is true.
    pub async fn tells_progress(&self) -> bool {
        let status = self.read(|mut client| async move { client.status().await });
        status.await.is_ok_and(|status| is_fit(status.version()))
    }
}

/// etcd's issues 15220 and 17507: before, an answer may overtake the changes that it is about.
fn is_fit(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        (major, minor, _) => (major, minor) > (3, 5),
    }
}

fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(LARGEST_ANSWER)
}

fn text(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|cause| Error::File { file: file.to_owned(), cause })
}

/// The revision that an answer was given at.
pub(super) fn header(header: Option<&ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| header.revision().unsigned_abs()))
}

const NO_LEASE: &str = "requested lease not found";

/// Whether a write was refused, and not done, because its lease is gone.
pub(super) fn is_without_lease(error: &Error) -> bool {
    matches!(error, Error::Unavailable(why) if why.to_string().ends_with(NO_LEASE))
}

/// What an error of etcd, or of the way there, means.
fn judge(error: etcd_client::Error, sent: bool) -> Failure {
    const UNAVAILABLE: i32 = 14;
    const UNKNOWN: i32 = 2;
    const INTERNAL: i32 = 13;
    const CANCELLED: i32 = 1;
    let etcd_client::Error::GRpcStatus(status) = &error else {
        return Failure::Away { sent, why: error.to_string() };
    };
    let (code, message) = (status.code() as i32, status.message());
    // The words of etcd are all that says which error it is. The revisions are asked for by whoever needs them.
    if message.contains("has been compacted") {
        return Failure::Told(Error::Compacted { oldest: Revision(0) });
    }
    if message.contains("is a future revision") {
        return Failure::Told(Error::Future { newest: Revision(0) });
    }
    if message.contains("request is too large") || message.contains("received message larger than max") {
        return Failure::Told(Error::Size { what: "value", bytes: 0, limit: USUAL_LIMIT });
    }
    if message.contains("no leader") || message.contains("error trying to connect") || message.contains("tcp connect") {
        return Failure::Away { sent: false, why: message.to_owned() };
    }
    match code {
        UNAVAILABLE | UNKNOWN | INTERNAL | CANCELLED => Failure::Away { sent, why: format!("etcd: {message}") },
        _ => Failure::Told(Error::Unavailable(format!("etcd: {message}").into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_believed_from_the_versions_on_that_tell_it_right() {
        for (version, fit) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.1", false),
            ("3.5.13", true),
            ("3.6.0", true),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(is_fit(version), fit, "{version}");
        }
    }
}
