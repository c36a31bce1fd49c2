//! etcd, which others may use at the same time: other apiservers of ours, and Kubernetes' own.
//!
//! Keys and values are laid down as they come, a revision is etcd's, and a write compares the revision of the last change, as
//! kube-apiserver does. What was asked of one member is asked of the next when that one is away; only a write that may have
//! happened is never sent twice.

mod compactor;
mod connection;
mod lease;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use parking_lot::Mutex;
use tokio::sync::watch as news;

use crate::{
    Changes, Entry, Error, Expected, Key, Listing, Page, Prefix, Result, Revision, Settings, Storage,
    map::{check, check_key},
};
use connection::{Connections, header};
use lease::Leases;

/// So large an answer is aimed at, when a list is read in pieces.
const PIECE_BYTES: usize = 4 << 20;
/// The first piece of a list has so many entries, and no piece has more than the second.
const PIECE: (usize, usize) = (200, 10_000);

/// A cluster of etcd.
pub struct Etcd {
    link: Arc<Link>,
    leases: Leases,
    newest: Newest,
    /// Ends with the last handle.
    compactor: tokio::task::JoinHandle<()>,
}

/// Nobody can want to see so far: the storage is closed.
const CLOSED: u64 = u64::MAX;

/// What watches share with the rest.
struct Link {
    connections: Connections,
    /// The newest revision that somebody was told of and wants to see.
    wanted: news::Sender<u64>,
}

impl Etcd {
    /// Connects to the members of one cluster, which are given as `host:port`.
    ///
    /// Must be called inside a tokio runtime. Fails if none of them answers.
    pub async fn open(members: &[String], settings: &Settings) -> Result<Self> {
        let connections = Connections::new(members, settings)?;
        let link = Arc::new(Link { connections, wanted: news::Sender::new(0) });
        link.connections.newest().await?;
        let period = Duration::from_secs(settings.history_seconds.max(1));
        let compactor = tokio::spawn(compactor::compact_now_and_then(link.clone(), period));
        Ok(Self { link, leases: Leases::default(), newest: Newest::default(), compactor })
    }

    async fn write(&self, key: &Key, expected: Expected, operation: TxnOp) -> Result<Revision> {
        let compare = match expected {
            Expected::Absent => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
            Expected::At(revision) => Compare::mod_revision(key.as_str(), CompareOp::Equal, signed(revision)),
        };
        let otherwise = TxnOp::get(key.as_str(), None);
        let txn = Txn::new().when([compare]).and_then([operation]).or_else([otherwise]);
        let answer = self.link.connections.write(|mut kv| async move { kv.txn(txn).await }).await?;
        if answer.succeeded() {
            return Ok(header(answer.header()));
        }
        let current = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
            _ => None,
        });
        Err(Error::Conflict { current: current.and_then(entry) })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.compactor.abort();
        self.link.wanted.send_replace(CLOSED);
    }
}

#[async_trait]
impl Storage for Etcd {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let mut found = self.link.connections.get(key.as_str(), GetOptions::new()).await?;
        Ok(found.take_kvs().pop().and_then(entry))
    }

    async fn list(&self, page: Page) -> Result<Listing> {
        let limit = page.limit.unwrap_or(usize::MAX);
        let mut at = page.at;
        let mut start = beginning(&page);
        let mut entries: Vec<Entry> = Vec::new();
        let mut piece = PIECE.0;
        loop {
            let wanted = (limit - entries.len()).min(piece);
            let mut options = GetOptions::new().with_range(behind(&page.prefix.0));
            // Before the first change etcd is at 1, and 0 means now.
            options = at.map_or(options.clone(), |at| options.with_revision(signed(at).max(1)));
            let options =
                if wanted == 0 { options.with_count_only() } else { options.with_limit(signed_count(wanted)) };
            let mut found = match self.link.connections.get(start.clone(), options).await {
                Err(Error::Compacted { .. }) => return Err(Error::Compacted { oldest: self.link.oldest().await? }),
                Err(Error::Future { .. }) => return Err(Error::Future { newest: self.newest().await? }),
                found => found?,
            };
            let revision = *at.get_or_insert_with(|| header(found.header()));
            let (more, count) = (found.more(), usize::try_from(found.count()).unwrap_or_default());
            let given = found.kvs().len();
            // Also of what is none of ours, and not shown: or it would be asked for again and again.
            let last = found.kvs().last().map(|kv| [kv.key(), &[0]].concat());
            let bytes: usize = found.kvs().iter().map(|kv| kv.key().len() + kv.value().len()).sum();
            entries.extend(found.take_kvs().into_iter().filter_map(entry));
            let Some(last) = last.filter(|_| more && entries.len() < limit) else {
                return Ok(Listing { revision, entries, remaining: count - given });
            };
            start = last;
            piece = (PIECE_BYTES * given / bytes.max(1)).clamp(PIECE.0 / 10, PIECE.1);
        }
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected) -> Result<Revision> {
        self.put_for(key, value, expected, None).await
    }

    async fn put_for(
        &self,
        key: &Key,
        value: Bytes,
        expected: Expected,
        lifetime: Option<Duration>,
    ) -> Result<Revision> {
        check(key, &value)?;
        let put = |options| self.write(key, expected, TxnOp::put(key.as_str(), value.clone(), options));
        let done = match lifetime {
            None => put(None).await,
            Some(lifetime) => {
                let lease = self.leases.of(&self.link.connections, lifetime).await?;
                match put(Some(PutOptions::new().with_lease(lease))).await {
                    // Somebody revoked it, or we were asleep while it expired.
                    Err(error) if connection::is_without_lease(&error) => {
                        self.leases.forget(lifetime, lease).await;
                        let lease = self.leases.of(&self.link.connections, lifetime).await?;
                        put(Some(PutOptions::new().with_lease(lease))).await
                    }
                    done => done,
                }
            }
        };
        match done {
            Err(Error::Size { limit, .. }) => Err(Error::Size { what: "value", bytes: value.len(), limit }),
            done => done,
        }
    }

    async fn delete(&self, key: &Key, expected: Revision) -> Result<Revision> {
        check_key(key)?;
        self.write(key, Expected::At(expected), TxnOp::delete(key.as_str(), None::<DeleteOptions>)).await
    }

    async fn watch(&self, prefix: &Prefix, since: Revision) -> Result<Changes> {
        let newest = self.link.connections.newest().await?;
        if since > newest {
            return Err(Error::Future { newest });
        }
        watch::watch(self.link.clone(), prefix.clone(), since).await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        match self.link.connections.compact(signed(revision)).await {
            Err(Error::Compacted { .. }) => Ok(()),
            Err(Error::Future { .. }) => Err(Error::Future { newest: self.newest().await? }),
            done => done,
        }
    }

    async fn newest(&self) -> Result<Revision> {
        let revision = self.newest.ask(&self.link.connections).await?;
        self.link.wanted.send_if_modified(|wanted| std::mem::replace(wanted, revision.0.max(*wanted)) < revision.0);
        Ok(revision)
    }

    fn is_shared(&self) -> bool {
        true
    }
}

impl Link {
    /// The oldest revision that can be read. Etcd does not tell it, only of each whether it can.
    async fn oldest(&self) -> Result<Revision> {
        let (mut gone, mut there) = (0, self.connections.newest().await?.0);
        while there - gone > 1 {
            let middle = gone + (there - gone) / 2;
            let options = GetOptions::new().with_count_only().with_revision(signed(Revision(middle)));
            match self.connections.get(connection::ANY, options).await {
                Ok(_) => there = middle,
                Err(Error::Compacted { .. }) => gone = middle,
                Err(error) => return Err(error),
            }
        }
        Ok(Revision(there))
    }
}

/// Asks for the newest revision, once for all who want to know it at the same time.
#[derive(Default)]
struct Newest {
    /// How often it was asked for.
    asked: AtomicU64,
    turn: tokio::sync::Mutex<()>,
    /// The last answer, and up to which of those who asked it is good for: those who asked before etcd was.
    answer: Mutex<(u64, Option<Result<Revision, String>>)>,
}

impl Newest {
    async fn ask(&self, connections: &Connections) -> Result<Revision> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let _turn = self.turn.lock().await;
        if let (good_for, Some(answer)) = &*self.answer.lock()
            && *good_for >= mine
        {
            return answer.clone().map_err(|why| Error::Unavailable(why.into()));
        }
        let good_for = self.asked.load(Ordering::SeqCst);
        let answer = connections.newest().await;
        let told = answer.as_ref().copied().map_err(ToString::to_string);
        *self.answer.lock() = (good_for, Some(told));
        answer
    }
}

/// An entry as etcd keeps it. What has no name that is text is none of ours.
fn entry(kv: KeyValue) -> Option<Entry> {
    let revision = Revision(kv.mod_revision().unsigned_abs());
    let (key, value) = kv.into_key_value();
    let key = String::from_utf8(key).ok().filter(|key| !watch::is_beat(key))?;
    Some(Entry { key: Key::from(key), revision, value: value.into() })
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn signed_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The first key that a page may show.
fn beginning(page: &Page) -> Vec<u8> {
    match &page.after {
        Some(last) if last.as_str() >= &*page.prefix.0 => after(last.as_str()),
        // An empty beginning is no key to etcd; the least that is one is a zero.
        _ if page.prefix.0.is_empty() => vec![0],
        _ => page.prefix.0.as_bytes().to_vec(),
    }
}

/// The least key that is greater than this one.
fn after(key: &str) -> Vec<u8> {
    [key.as_bytes(), &[0]].concat()
}

/// The least key that is greater than all with this beginning; a zero says that there is none.
fn behind(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Nothing but the header is wanted of this answer.
fn revision_of(answer: &GetResponse) -> Revision {
    header(answer.header())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_nothing_begins_with_it_any_more() {
        assert_eq!(behind("/a/"), b"/a0");
        assert_eq!(behind(""), [0]);
        assert_eq!(beginning(&Page::all("")), [0]);
        let page = Page { after: Some("/a/b".into()), ..Page::all("/a/") };
        assert_eq!(beginning(&page), b"/a/b\0");
        let page = Page { after: Some("/".into()), ..Page::all("/a/") };
        assert_eq!(beginning(&page), b"/a/");
    }
}
