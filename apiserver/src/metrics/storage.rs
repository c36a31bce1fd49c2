//! How long the store takes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use onex_storage::{Changes, Entry, Expected, Key, Listing, Page, Prefix, Result, Revision, Storage};

use super::{Metrics, Operation};

/// A storage that is timed.
pub(crate) struct Timed {
    storage: Arc<dyn Storage>,
    metrics: Arc<Metrics>,
}

impl Timed {
    /// The same storage, timed.
    pub(crate) fn over(storage: Arc<dyn Storage>, metrics: Arc<Metrics>) -> Arc<dyn Storage> {
        Arc::new(Self { storage, metrics })
    }

    async fn time<T>(&self, operation: Operation, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let outcome = work.await;
        self.metrics.stored(operation, began.elapsed());
        outcome
    }
}

#[async_trait::async_trait]
impl Storage for Timed {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.time(Operation::Get, self.storage.get(key)).await
    }

    async fn list(&self, page: Page) -> Result<Listing> {
        self.time(Operation::List, self.storage.list(page)).await
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected) -> Result<Revision> {
        self.time(Operation::Put, self.storage.put(key, value, expected)).await
    }

    async fn put_for(
        &self,
        key: &Key,
        value: Bytes,
        expected: Expected,
        lifetime: Option<Duration>,
    ) -> Result<Revision> {
        self.time(Operation::Put, self.storage.put_for(key, value, expected, lifetime)).await
    }

    async fn delete(&self, key: &Key, expected: Revision) -> Result<Revision> {
        self.time(Operation::Delete, self.storage.delete(key, expected)).await
    }

    async fn watch(&self, prefix: &Prefix, since: Revision) -> Result<Changes> {
        self.storage.watch(prefix, since).await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.storage.compact(revision).await
    }

    async fn newest(&self) -> Result<Revision> {
        self.storage.newest().await
    }

    fn takes_writes(&self) -> bool {
        self.storage.takes_writes()
    }

    fn is_shared(&self) -> bool {
        self.storage.is_shared()
    }
}
