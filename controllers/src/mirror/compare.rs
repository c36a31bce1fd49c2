//! All rows against all objects.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use kube::api::ListParams;
use onex_db::mirror::{Change, LARGEST_PAGE, Row};
use serde::Deserialize;

use super::objects::{Copied, Object};
use super::{Copying, Trouble};

/// How many objects are asked for at once.
const PAGE: u32 = 1000;

/// A row, without what is in it.
struct Known {
    number: i64,
    content: u64,
}

/// Names and contents as numbers. Others each time, so that two that happen to be alike are told apart by the next comparison.
struct Digest(RandomState, RandomState);

impl Digest {
    fn name<T>(&self, row: &Row<T>) -> (u64, u64) {
        let name = (&row.namespace, &row.name);
        (self.0.hash_one(name), self.1.hash_one(name))
    }

    fn content<T: std::hash::Hash>(&self, row: &Row<T>) -> u64 {
        self.0.hash_one((row.created_at, &row.of))
    }
}

#[derive(Deserialize)]
#[serde(bound = "K: Copied")]
struct Page<K: Copied> {
    metadata: PageMeta,
    items: Vec<Object<K>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    r#continue: String,
}

impl<K: Copied> Copying<'_, K> {
    /// Makes all rows what the objects are, and returns the revision at which they were that.
    pub(super) async fn compare(&self) -> Result<String, Trouble> {
        self.gauges.compares();
        let digest = Digest(RandomState::new(), RandomState::new());
        // The rows first: what changes in between is told after the revision of the list.
        let mut rows = self.rows(&digest).await?;
        let (mut wrong, mut total) = (Vec::new(), 0);
        let mut asked = ListParams::default().limit(PAGE);
        let revision = loop {
            let request = K::everywhere().list(&asked).map_err(kube::Error::BuildRequest)?;
            let page: Page<K> = self.apiserver.request(request).await?;
            total += page.items.len() as u64;
            for object in page.items {
                let row = object.into_row();
                let known = rows.remove(&digest.name(&row));
                if known.is_none_or(|known| known.content != digest.content(&row)) {
                    wrong.push(Change::Set(row));
                }
            }
            if wrong.len() >= self.settings.batch || page.metadata.r#continue.is_empty() {
                self.apply(&wrong, None).await?;
                self.gauges.mended(wrong.len());
                wrong.clear();
            }
            if page.metadata.r#continue.is_empty() {
                break page.metadata.resource_version;
            }
            asked = asked.continue_token(&page.metadata.r#continue);
        };
        let gone: Vec<_> = rows.into_values().map(|known| known.number).collect();
        for some in gone.chunks(self.settings.batch.max(1)) {
            self.table.remove(some).await?;
            self.gauges.mended(some.len());
        }
        tracing::debug!(kind = K::KIND, objects = total, gone = gone.len(), "the mirror has compared everything");
        let now = self.clock.now();
        self.table.compared(revision.parse().unwrap_or_default(), now.as_microsecond()).await?;
        self.gauges.compared(total, now.as_second());
        Ok(revision)
    }

    async fn rows(&self, digest: &Digest) -> Result<HashMap<(u64, u64), Known>, Trouble> {
        let (mut rows, mut last) = (HashMap::new(), 0);
        loop {
            let some = self.table.after(last, LARGEST_PAGE).await?;
            let Some((number, _)) = some.last() else { return Ok(rows) };
            last = *number;
            let known = |(number, row): (i64, Row<K::Row>)| {
                (digest.name(&row), Known { number, content: digest.content(&row) })
            };
            rows.extend(some.into_iter().map(known));
        }
    }
}
