//! The table of Chains.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::rows::{Columns, NAME, Query, Stored, fit};

/// What is known of a Chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chain {
    /// A name for people.
    pub display_name: String,
    /// The type of the genesis Miner.
    pub miner_type: String,
    /// The image that Miners of the Chain run.
    pub image: String,
    /// The shortest time between two blocks of one Miner, in seconds.
    pub min_mine_interval_seconds: i64,
}

impl Columns for Chain {
    type Where = ();
    const KIND: &'static str = "Chain";

    fn conditions((): &()) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl Stored for Chain {
    const TABLE: &'static str = "gateway_chain";
    const COLUMNS: &'static [&'static str] = &["displayName", "minerType", "image", "minMineIntervalSeconds"];

    fn fitted(self) -> Self {
        let (display_name, miner_type) = (fit(&self.display_name, NAME), fit(&self.miner_type, 63));
        Self { display_name, miner_type, image: fit(&self.image, 512), ..self }
    }

    fn bind(&self, query: Query) -> Query {
        let query = query.bind(self.display_name.clone()).bind(self.miner_type.clone());
        query.bind(self.image.clone()).bind(self.min_mine_interval_seconds)
    }

    fn read(row: &AnyRow, at: usize) -> sqlx::Result<Self> {
        Ok(Self {
            display_name: row.try_get(at)?,
            miner_type: row.try_get(at + 1)?,
            image: row.try_get(at + 2)?,
            min_mine_interval_seconds: row.try_get(at + 3)?,
        })
    }
}
