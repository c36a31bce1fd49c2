//! The table of MinerSets.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::rows::{Columns, NAME, Query, Stored, fit};

/// How many characters of a message or of conditions are kept.
const TEXT: usize = 1 << 16;

/// What is known of a MinerSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MinerSet {
    /// How many Miners there should be.
    pub replicas: i64,
    /// A name for people.
    pub display_name: String,
    /// Which Miners go first when the set shrinks.
    pub delete_policy: String,
    /// How long a Miner must be ready before it counts as available, in seconds.
    pub min_ready_seconds: i64,
    /// The Miners that have all labels of the template.
    pub fully_labeled_replicas: i64,
    /// The Miners whose Pod is healthy.
    pub ready_replicas: i64,
    /// The Miners that have been ready for long enough.
    pub available_replicas: i64,
    /// In one word, why the set cannot work; nothing when it can.
    pub failure_reason: Option<String>,
    /// For people, why the set cannot work; nothing when it can.
    pub failure_message: Option<String>,
    /// What is known about the set, as a JSON array of conditions; nothing when there are none.
    pub conditions: Option<String>,
}

impl Columns for MinerSet {
    type Where = ();
    const KIND: &'static str = "MinerSet";

    fn conditions((): &()) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl Stored for MinerSet {
    const TABLE: &'static str = "gateway_minerset";
    const COLUMNS: &'static [&'static str] = &[
        "replicas",
        "displayName",
        "deletePolicy",
        "minReadySeconds",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "failureReason",
        "failureMessage",
        "conditions",
    ];

    fn fitted(self) -> Self {
        let text = |text: Option<String>| text.map(|text| fit(&text, TEXT));
        Self {
            display_name: fit(&self.display_name, NAME),
            delete_policy: fit(&self.delete_policy, 32),
            failure_reason: text(self.failure_reason),
            failure_message: text(self.failure_message),
            // Half of an array is none, so that conditions that are too long are left out.
            conditions: self.conditions.filter(|conditions| conditions.len() <= TEXT),
            ..self
        }
    }

    fn bind(&self, query: Query) -> Query {
        let query = query.bind(self.replicas).bind(self.display_name.clone()).bind(self.delete_policy.clone());
        let query = query.bind(self.min_ready_seconds).bind(self.fully_labeled_replicas);
        let query = query.bind(self.ready_replicas).bind(self.available_replicas);
        query.bind(self.failure_reason.clone()).bind(self.failure_message.clone()).bind(self.conditions.clone())
    }

    fn read(row: &AnyRow, at: usize) -> sqlx::Result<Self> {
        Ok(Self {
            replicas: row.try_get(at)?,
            display_name: row.try_get(at + 1)?,
            delete_policy: row.try_get(at + 2)?,
            min_ready_seconds: row.try_get(at + 3)?,
            fully_labeled_replicas: row.try_get(at + 4)?,
            ready_replicas: row.try_get(at + 5)?,
            available_replicas: row.try_get(at + 6)?,
            failure_reason: row.try_get(at + 7)?,
            failure_message: row.try_get(at + 8)?,
            conditions: row.try_get(at + 9)?,
        })
    }

    fn size(&self) -> usize {
        let texts = [&self.failure_reason, &self.failure_message, &self.conditions];
        texts.into_iter().flatten().map(String::len).sum()
    }
}
