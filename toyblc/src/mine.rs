//! The search for nonces: by a miner that leaves the machine to others, and on request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::block::{Block, BlockHash, Preimage};
use crate::node::{Core, Fault, Refused, now, since_epoch};
use crate::peers::table::{Direction, jitter};
use crate::rules::Rules;
use crate::settings::{Miner, Settings};

/// How often a miner hashes a little.
const TICK: Duration = Duration::from_millis(50);

/// How long a miner hashes at once at most, so that it never holds up what else the thread does.
const BATCH: Duration = Duration::from_millis(1);

/// A miner with no peers waits this long for one: a block that nobody sees helps nobody.
const COMPANY: Duration = Duration::from_secs(30);

/// The most that the start of a search is put off at random, so that of many miners one is first.
const MAX_JITTER: Duration = Duration::from_secs(5);

/// How long a block on request may take.
const REQUEST: Duration = Duration::from_secs(30);

/// A child of `parent` that lacks only its nonce and hash.
///
/// The interval is `interval_seconds` as far as the rules allow.
pub fn draft(
    rules: &Rules,
    parent: &Block,
    timestamp: i64,
    interval_seconds: u64,
    data: String,
    address: String,
) -> Block {
    let interval_seconds = rules.interval(parent, interval_seconds);
    let timestamp = timestamp.max(parent.timestamp);
    Block {
        index: parent.index + 1,
        previous_hash: parent.hash,
        timestamp,
        data,
        difficulty: rules.difficulty(parent, timestamp, interval_seconds),
        interval_seconds,
        nonce: 0,
        address,
        hash: BlockHash::NONE,
    }
}

/// A block whose nonce is being searched for.
pub struct Search {
    draft: Block,
    preimage: Preimage,
}

impl Search {
    /// Prepares the search for the nonce of `draft`.
    pub fn new(draft: Block) -> Self {
        Self { preimage: Preimage::of(&draft), draft }
    }

    /// Tries `count` nonces from `first` on; the finished block, if one of them is right.
    pub fn run(&self, first: u64, count: u64) -> Option<Block> {
        let hashes = (first..first.saturating_add(count)).map(|nonce| (nonce, self.preimage.hash(nonce)));
        let (nonce, hash) = { hashes }.find(|(_, hash)| hash.proves(self.draft.difficulty))?;
        Some(Block { nonce, hash, ..self.draft.clone() })
    }
}

/// Mines for as long as the node runs.
pub(crate) async fn mine(core: Arc<Core>, miner: Miner) {
    let mut tips = core.tips();
    let mut patience = Patience::default();
    tokio::select! {
        () = core.stop.cancelled() => return,
        () = company(&core) => {}
    }
    loop {
        let parent = Arc::clone(&tips.borrow_and_update().block);
        let found = tokio::select! {
            () = core.stop.cancelled() => return,
            changed = tips.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            found = find(&core, miner, &parent, &mut patience) => found,
        };
        tracing::info!(index = found.index, difficulty = found.difficulty, "found a block");
        match core.offer(vec![found], None, false) {
            Ok(_) => core.counters.mined.add(1),
            Err(Refused::Broken) => return,
            Err(Refused::Rule(error)) => {
                tracing::error!(%error, "a block of our own breaks a rule");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Returns once there is a peer, or none is to be expected.
async fn company(core: &Core) {
    let since = Instant::now();
    while core.peers.has_configured() && since.elapsed() < COMPANY {
        if core.peers.count(Direction::Inbound) + core.peers.count(Direction::Outbound) > 0 {
            return;
        }
        sleep(TICK).await;
    }
}

/// How many ticks a miner will still hold back while blocks are on their way that may change where it should mine.
///
/// At first ten seconds of them; every tick it mines gives one back. Whoever promises blocks and sends none thus costs it
/// half of its time, and never all.
struct Patience(u32);

impl Patience {
    const MOST: u32 = 200;

    /// Whether to hold back in this tick, in which there is reason to or not.
    fn hold_back(&mut self, reason: bool) -> bool {
        let hold = reason && self.0 > 0;
        self.0 = if hold { self.0 - 1 } else { (self.0 + 1).min(Self::MOST) };
        hold
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self(Self::MOST)
    }
}

/// A child of `parent`, found without haste. Dropped when there is another tip.
async fn find(core: &Core, miner: Miner, parent: &Block, patience: &mut Patience) -> Block {
    wait_for_turn(core, parent).await;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let budget = (miner.hashes_per_second * TICK.as_millis() as u64 / 1000).max(1);
    let mut search = attempt(core, parent);
    let mut nonce = u64::from(rand::rng().random::<u32>());
    loop {
        ticks.tick().await;
        if patience.hold_back(core.peers.asking(Instant::now())) {
            continue;
        }
        if now() > search.draft.timestamp {
            search = attempt(core, parent);
        }
        let (tried, found) = search_briefly(&search, nonce, budget);
        core.counters.hashes.add(tried);
        nonce += tried;
        if let Some(block) = found {
            return block;
        }
    }
}

/// Returns when the interval after `parent` is over, and some time more.
async fn wait_for_turn(core: &Core, parent: &Block) {
    let interval = pause_after(&core.rules, parent, core.settings.interval_seconds);
    let due = Duration::from_secs(parent.timestamp.max(0).unsigned_abs() + interval);
    // In pieces, because the clock on the wall may be set meanwhile.
    while let Some(rest) = due.checked_sub(since_epoch()).filter(|rest| !rest.is_zero()) {
        sleep(rest.min(Duration::from_secs(10))).await;
    }
    sleep(jitter(Duration::from_millis(interval.saturating_mul(500)).min(MAX_JITTER))).await;
}

/// How many seconds after `parent` a miner begins to search that wants blocks every `wanted` seconds.
///
/// Its own interval, also where the parent's is so much longer that its block must name more: such a block is early and so
/// harder, which is allowed, and brings a chain back soon that somebody made slow.
fn pause_after(rules: &Rules, parent: &Block, wanted: u64) -> u64 {
    wanted.min(rules.interval(parent, wanted))
}

/// The interval to name after `parent`. Who does not mine by itself has no opinion: its setting is a default that nobody
/// chose for this chain, and miners would have to follow it.
fn opinion(settings: &Settings, parent: &Block) -> u64 {
    match parent.interval_seconds {
        before if before > 0 && settings.miner.is_none() => before,
        _ => settings.interval_seconds,
    }
}

fn attempt(core: &Core, parent: &Block) -> Search {
    begin(core, parent, format!("miner at {}", since_epoch().as_millis()))
}

fn begin(core: &Core, parent: &Block, data: String) -> Search {
    let address = core.settings.address.clone();
    Search::new(draft(&core.rules, parent, now(), opinion(&core.settings, parent), data, address))
}

/// Tries up to `budget` nonces in about [`BATCH`] at most; how many were tried, and the block if one was right.
fn search_briefly(search: &Search, first: u64, budget: u64) -> (u64, Option<Block>) {
    let began = Instant::now();
    let mut tried = 0;
    while tried < budget && (tried == 0 || began.elapsed() < BATCH) {
        let some = (budget - tried).min(16);
        if let Some(block) = search.run(first + tried, some) {
            return (block.nonce - first + 1, Some(block));
        }
        tried += some;
    }
    (tried, None)
}

/// Why no block was mined on request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unmined {
    #[error("too many blocks are being asked for")]
    TooMany,
    #[error("no block was found in time")]
    TooLate,
    #[error("the node is stopping")]
    Stopping,
}

/// Mines a block with this data at once and as fast as one thread can, and puts it at the end of the main chain.
///
/// Comes before its interval is over, if need be, which the rules allow for a higher difficulty.
pub(crate) async fn mine_now(core: Arc<Core>, data: String) -> Result<Block, Unmined> {
    let place = Arc::clone(&core.requests).try_acquire_owned().map_err(|_| Unmined::TooMany)?;
    let bench = Arc::clone(&core.workbench).lock_owned().await;
    let busy = Arc::clone(&core);
    let searching = tokio::task::spawn_blocking(move || {
        // Held until the search has ended, also when who asked has gone.
        let _held = (place, bench);
        search_and_offer(&busy, &data)
    });
    let block = searching.await.map_err(|_| Unmined::Stopping)??;
    core.sync().await;
    Ok(block)
}

fn search_and_offer(core: &Core, data: &str) -> Result<Block, Unmined> {
    let began = Instant::now();
    let mut nonce = u64::from(rand::rng().random::<u32>());
    while began.elapsed() < REQUEST {
        if core.stop.is_cancelled() {
            return Err(Unmined::Stopping);
        }
        // So few at once that a new tip, or a new second and its lower difficulty, is soon noticed.
        let Some(block) = begin(core, &core.tip().block, data.to_owned()).run(nonce, 4096) else {
            core.counters.hashes.add(4096);
            nonce += 4096;
            continue;
        };
        core.counters.hashes.add(block.nonce - nonce + 1);
        nonce = block.nonce + 1;
        match core.offer(vec![block.clone()], None, false) {
            Err(Refused::Broken) => return Err(Unmined::Stopping),
            // Somebody else was quicker, or our clock was set back: again, on the new tip.
            Err(Refused::Rule(_)) => continue,
            Ok(_) => core.counters.mined.add(1),
        }
        let there = core.read(|ledger| ledger.hash_at(block.index)).map_err(|Fault::Broken| Unmined::Stopping)?;
        if there == Some(block.hash) {
            return Ok(block);
        }
    }
    Err(Unmined::TooLate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless() -> Search {
        let rules = Rules { minimum_difficulty: 50 };
        Search::new(draft(&rules, &rules.genesis(), 2_000_000_000, 1, "data".to_owned(), "me".to_owned()))
    }

    #[test]
    fn a_found_block_is_right_and_the_attempts_are_counted() {
        let block = harmless().run(1_000, u64::MAX).unwrap();
        assert_eq!(block.digest(), block.hash);
        assert!(block.hash.proves(50));
        let (tried, found) = search_briefly(&harmless(), block.nonce, 1);
        assert_eq!((tried, found), (1, Some(block)));
    }

    #[test]
    fn a_brief_search_stays_within_its_budget_and_its_time() {
        let hopeless = Search::new(Block { difficulty: u64::MAX, ..harmless().draft });
        assert_eq!(search_briefly(&hopeless, 0, 7), (7, None));
        // The best of some, because on a busy machine a thread may stand still for any time.
        let tries = (0..20).map(|_| {
            let began = Instant::now();
            let (tried, _) = search_briefly(&hopeless, 0, u64::MAX);
            assert!(tried > 0);
            began.elapsed()
        });
        let quickest = tries.min().unwrap();
        assert!(quickest < Duration::from_millis(500), "{quickest:?}");
    }

    #[test]
    fn promises_of_blocks_stop_a_miner_for_ten_seconds_and_then_for_half_of_the_time() {
        let mut patience = Patience::default();
        let held = |patience: &mut Patience, ticks, reason| (0..ticks).filter(|_| patience.hold_back(reason)).count();
        assert_eq!(TICK * Patience::MOST, Duration::from_secs(10));
        assert_eq!(held(&mut patience, 200, true), 200);
        assert_eq!(held(&mut patience, 1000, true), 500);
        assert_eq!(held(&mut patience, 1000, false), 0);
        assert_eq!(held(&mut patience, 200, true), 200);
    }

    #[test]
    fn an_interval_that_was_edited_from_hours_to_a_second_is_kept_at_once_and_named_soon() {
        let rules = Rules::default();
        let mut parent = Block { interval_seconds: 43_200, ..rules.genesis() };
        let (mut blocks, mut waited) = (0, 0);
        while parent.interval_seconds > 1 {
            waited += pause_after(&rules, &parent, 1);
            parent = draft(&rules, &parent, parent.timestamp + 1, 1, String::new(), String::new());
            blocks += 1;
        }
        assert_eq!((blocks, waited), (16, 16));
        // Into the other direction the rules set the pace, or one block would stop a chain.
        assert_eq!(pause_after(&rules, &parent, 43_200), 2);
    }

    #[test]
    fn a_draft_is_never_older_than_its_parent() {
        let rules = Rules::default();
        let parent = rules.genesis();
        let draft = draft(&rules, &parent, parent.timestamp - 100, 1, String::new(), String::new());
        assert_eq!(draft.timestamp, parent.timestamp);
    }
}
