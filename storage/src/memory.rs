//! The storage that lasts as long as the process: the map, and nothing below it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Changes, Clock, Entry, Expected, Key, Listing, Page, Prefix, Result, Revision, Settings, Storage,
    map::{Batch, Map, Write, check, trim_now_and_then},
};

/// A storage in memory. What is in it is gone when it is dropped.
pub struct Memory {
    map: Arc<Map>,
    /// Held from deciding a write until it is applied.
    writing: Mutex<()>,
}

impl Memory {
    /// An empty storage. Must be called inside a tokio runtime.
    pub fn new(settings: &Settings, clock: Clock) -> Self {
        let map = Arc::new(Map::new(settings, clock));
        trim_now_and_then(&map);
        Self { map, writing: Mutex::new(()) }
    }

    fn write(&self, write: Write) -> Result<Revision> {
        let _writing = self.writing.lock();
        let mut batch = Batch::new(&self.map);
        let revision = batch.write(&self.map, write)?;
        self.map.apply(batch);
        Ok(revision)
    }
}

#[async_trait]
impl Storage for Memory {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.map.get(key))
    }

    async fn list(&self, page: Page) -> Result<Listing> {
        self.map.list(&page)
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected) -> Result<Revision> {
        check(key, &value)?;
        self.write(Write::Put { key: key.clone(), value, expected })
    }

    async fn delete(&self, key: &Key, expected: Revision) -> Result<Revision> {
        self.write(Write::Delete { key: key.clone(), expected })
    }

    async fn watch(&self, prefix: &Prefix, since: Revision) -> Result<Changes> {
        self.map.watch(prefix, since)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.write(Write::Compact(revision)).map(drop)
    }

    async fn newest(&self) -> Result<Revision> {
        Ok(self.map.newest())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.map.close();
    }
}
