//! The table of Miners.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::rows::{Columns, NAME, Query, Stored, fit};

/// What is known of a Miner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Miner {
    /// A name for people.
    pub display_name: String,
    /// What it is doing.
    pub phase: String,
    /// Its type.
    pub miner_type: String,
    /// The Chain it belongs to.
    pub chain_name: String,
    /// Its share of the processor, in thousandths of a core.
    pub cpu: i64,
    /// Its memory, in MiB.
    pub memory: i64,
}

/// Which Miners are wanted, besides those of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinersWhere {
    /// Only those of this Chain.
    pub chain_name: Option<String>,
    /// Only those that do this.
    pub phase: Option<String>,
    /// Only those of this type.
    pub miner_type: Option<String>,
}

impl Columns for Miner {
    type Where = MinersWhere;
    const KIND: &'static str = "Miner";

    fn conditions(wanted: &MinersWhere) -> Vec<(&'static str, String)> {
        let MinersWhere { chain_name, phase, miner_type } = wanted;
        let conditions = [("chainName", chain_name), ("phase", phase), ("minerType", miner_type)];
        conditions.into_iter().filter_map(|(column, value)| Some((column, value.clone()?))).collect()
    }
}

impl Stored for Miner {
    const TABLE: &'static str = "gateway_miner";
    const COLUMNS: &'static [&'static str] = &["displayName", "phase", "minerType", "chainName", "cpu", "memory"];

    fn fitted(self) -> Self {
        let (display_name, chain_name) = (fit(&self.display_name, NAME), fit(&self.chain_name, NAME));
        Self { display_name, chain_name, phase: fit(&self.phase, 45), miner_type: fit(&self.miner_type, 63), ..self }
    }

    fn bind(&self, query: Query) -> Query {
        let query = query.bind(self.display_name.clone()).bind(self.phase.clone());
        let query = query.bind(self.miner_type.clone()).bind(self.chain_name.clone());
        query.bind(self.cpu).bind(self.memory)
    }

    fn read(row: &AnyRow, at: usize) -> sqlx::Result<Self> {
        Ok(Self {
            display_name: row.try_get(at)?,
            phase: row.try_get(at + 1)?,
            miner_type: row.try_get(at + 2)?,
            chain_name: row.try_get(at + 3)?,
            cpu: row.try_get(at + 4)?,
            memory: row.try_get(at + 5)?,
        })
    }
}
