//! What a node counts, and the Prometheus text it becomes.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything a node counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Blocks this node found.
    pub mined: Counter,
    /// Blocks taken into the tree, from anyone.
    pub accepted: Counter,
    /// Blocks that broke a rule.
    pub rejected: Counter,
    /// How often the main chain changed to another branch.
    pub reorganisations: Counter,
    /// How many blocks left the main chain.
    pub abandoned: Counter,
    /// Hashes tried.
    pub hashes: Counter,
    /// Messages heard from peers.
    pub messages_received: Counter,
    /// Messages sent to single peers.
    pub messages_sent: Counter,
    /// Peers that were banned.
    pub banned: Counter,
}

/// What a node can say about itself at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    /// The index of the newest block.
    pub height: u64,
    /// The work of the chain.
    pub work: u128,
    /// The difficulty of the newest block.
    pub difficulty: u64,
    /// When the newest block was mined.
    pub timestamp: i64,
    /// Connections from others.
    pub inbound: usize,
    /// Connections to others.
    pub outbound: usize,
    /// Blocks that wait for their parents.
    pub orphans: usize,
    /// Blocks in memory.
    pub held: usize,
    /// Hashes tried in a second, lately.
    pub hash_rate: u64,
}

/// The text that Prometheus reads.
pub fn render(counters: &Counters, gauges: &Gauges) -> String {
    let mut text = String::with_capacity(4096);
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(&str, u128)]| {
        let _ = writeln!(text, "# HELP toyblc_{name} {help}\n# TYPE toyblc_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "toyblc_{name}{labels} {value}");
        }
    };
    let mut gauge = |name, help, value| metric(name, "gauge", help, &[("", value)]);
    gauge("height", "Index of the newest block.", gauges.height.into());
    gauge("work", "Work of the whole chain, in hashes.", gauges.work);
    gauge("difficulty", "Difficulty of the newest block, in hashes.", gauges.difficulty.into());
    gauge("tip_timestamp_seconds", "When the newest block was mined.", gauges.timestamp.max(0).unsigned_abs().into());
    gauge("orphans", "Blocks that wait for their parents.", gauges.orphans as u128);
    gauge("blocks_in_memory", "Blocks held in memory.", gauges.held as u128);
    gauge("hash_rate", "Hashes tried in a second, lately.", gauges.hash_rate.into());
    let peers =
        [("{direction=\"inbound\"}", gauges.inbound as u128), ("{direction=\"outbound\"}", gauges.outbound as u128)];
    metric("peers", "gauge", "Connected peers.", &peers);
    let mut counter = |name, help, counter: &Counter| metric(name, "counter", help, &[("", counter.get().into())]);
    counter("blocks_mined_total", "Blocks this node found.", &counters.mined);
    counter("blocks_accepted_total", "Blocks taken in, from anyone.", &counters.accepted);
    counter("blocks_rejected_total", "Blocks that broke a rule.", &counters.rejected);
    counter("reorganisations_total", "Changes to another branch.", &counters.reorganisations);
    counter("blocks_abandoned_total", "Blocks that left the main chain.", &counters.abandoned);
    counter("hashes_total", "Hashes tried.", &counters.hashes);
    counter("messages_received_total", "Messages heard from peers.", &counters.messages_received);
    counter("messages_sent_total", "Messages sent to single peers.", &counters.messages_sent);
    counter("peers_banned_total", "Peers that were banned.", &counters.banned);
    text
}
