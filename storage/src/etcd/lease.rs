//! Leases, by which etcd deletes by itself what was only to be there for a while.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::connection::Connections;
use crate::Result;

/// A lease is good for all that is written within so long, so that there are few of them.
const SHARED: Duration = Duration::from_secs(60);
/// And for no more entries than so many: etcd deletes all of them at once.
const MOST: usize = 1000;

/// The leases that are in use, by how long what they are for lives.
#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<Duration, Lease>>);

struct Lease {
    id: i64,
    until: Instant,
    entries: usize,
}

impl Leases {
    /// A lease of at least `lifetime`, and at most a minute or a twentieth more.
    pub async fn of(&self, connections: &Connections, lifetime: Duration) -> Result<i64> {
        let mut leases = self.0.lock().await;
        if let Some(lease) = leases.get_mut(&lifetime)
            && lease.until > Instant::now()
            && lease.entries < MOST
        {
            lease.entries += 1;
            return Ok(lease.id);
        }
        let shared = SHARED.min(lifetime / 20);
        let until = Instant::now() + shared;
        let seconds = (lifetime + shared).as_secs().max(1);
        let id = connections.grant(i64::try_from(seconds).unwrap_or(i64::MAX)).await?;
        leases.insert(lifetime, Lease { id, until, entries: 1 });
        Ok(id)
    }

    /// This lease is none any more.
    pub async fn forget(&self, lifetime: Duration, id: i64) {
        let mut leases = self.0.lock().await;
        if leases.get(&lifetime).is_some_and(|lease| lease.id == id) {
            leases.remove(&lifetime);
        }
    }
}
