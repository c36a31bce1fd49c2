//! The log that lasts as long as the process.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{AuditLog, Batch, Position, Record, Result, Settings, hold_reader, line};

/// A log in memory.
pub struct Memory {
    state: Mutex<State>,
    /// How many records there have ever been.
    grown: watch::Sender<u64>,
    keep_bytes: u64,
}

#[derive(Default)]
struct State {
    /// The number of the first record that is kept.
    first: u64,
    /// The records, and their lengths as lines.
    records: VecDeque<(Record, u64)>,
    bytes: u64,
    committed: BTreeMap<String, u64>,
}

impl Memory {
    /// An empty log.
    pub fn new(settings: &Settings) -> Self {
        Self { state: Mutex::default(), grown: watch::Sender::new(0), keep_bytes: settings.keep_bytes }
    }
}

impl State {
    fn forget(&mut self, keep_bytes: u64) {
        let needed = self.committed.values().min().copied().unwrap_or(u64::MAX);
        while self.bytes > keep_bytes && self.first < needed {
            let Some((_, bytes)) = self.records.pop_front() else { return };
            self.bytes -= bytes;
            self.first += 1;
        }
    }

    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

#[async_trait]
impl AuditLog for Memory {
    async fn append(&self, records: &[Record]) -> Result<()> {
        let sized = records.iter().map(|record| Ok((record.clone(), line(record)?.len() as u64)));
        let sized = sized.collect::<Result<Vec<_>>>()?;
        let mut state = self.state.lock();
        state.bytes += sized.iter().map(|(_, bytes)| bytes).sum::<u64>();
        state.records.extend(sized);
        state.forget(self.keep_bytes);
        self.grown.send_replace(state.end());
        Ok(())
    }

    async fn read(&self, reader: &str, most: usize) -> Result<Batch> {
        hold_reader(reader)?;
        let mut grown = self.grown.subscribe();
        loop {
            {
                let state = self.state.lock();
                let from = state.committed.get(reader).copied().unwrap_or(0).max(state.first);
                let skipped = usize::try_from(from - state.first).unwrap_or(usize::MAX);
                let records: Vec<Record> =
                    state.records.iter().skip(skipped).take(most.max(1)).map(|(record, _)| record.clone()).collect();
                if !records.is_empty() {
                    let next = Position(from + records.len() as u64);
                    return Ok(Batch { records, next });
                }
                grown.mark_unchanged();
            }
            grown.changed().await.map_err(crate::unavailable)?;
        }
    }

    async fn commit(&self, reader: &str, position: Position) -> Result<()> {
        hold_reader(reader)?;
        let mut state = self.state.lock();
        let position = position.0.min(state.end());
        let committed = state.committed.entry(reader.to_owned()).or_default();
        *committed = position.max(*committed);
        Ok(())
    }
}
