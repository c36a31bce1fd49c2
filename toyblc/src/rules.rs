//! What makes a block acceptable after its parent: the rules all nodes share. Pure.
//!
//! Nothing here depends on a flag of this node, so all nodes judge alike. The interval at which a chain grows comes
//! from its miners, who write it into their blocks; how fast they may change it, and what a block that comes early or
//! late must prove, is judged here from two blocks alone.

use std::time::Duration;

use crate::block::{Block, BlockHash, DEFAULT_ADDRESS, MAX_ADDRESS_BYTES, MAX_DATA_BYTES};

/// The longest interval a block may name: one year.
pub const MAX_INTERVAL_SECONDS: u64 = 366 * 24 * 3600;

/// How far ahead of our clock a block's timestamp may be.
pub const MAX_AHEAD_SECONDS: i64 = 10;

/// After how many blocks that all come one slack early or late the difficulty has changed by about a factor of e.
const DAMPING: i128 = 16;

/// Into how small a part of its parent's difficulty a late block's may fall.
const STEEPEST_FALL: u64 = 8;

/// No chain gets harder than this, so that sums of work cannot overflow in the age of the universe.
const MAX_DIFFICULTY: u64 = 1 << 62;

/// Why a block cannot follow its parent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The hash is not the hash of the fields.
    #[error("the hash does not belong to the block's fields")]
    Hash,
    /// The hash is not small enough.
    #[error("the hash does not prove a difficulty of {0}")]
    Work(u64),
    /// The index or the link is not that of a child of the parent.
    #[error("the block does not follow its parent")]
    Link,
    /// The difficulty is not the one the rules demand.
    #[error("the difficulty is {found}, and {required} is required")]
    Difficulty {
        /// What the block says.
        found: u64,
        /// What it should say.
        required: u64,
    },
    /// The interval is out of bounds, or more than twice or less than half of the parent's.
    #[error("an interval of {0} s may not follow")]
    Interval(u64),
    /// The block says it is older than its parent.
    #[error("the block is older than its parent")]
    Older,
    /// The block is from a time that has not come; it may be right later, or for a node with a better clock.
    #[error("the block is from the future")]
    Future,
    /// Data or address is too long.
    #[error("the block is too large")]
    TooLarge,
    /// Another block claims to be the first.
    #[error("the block belongs to another chain")]
    Genesis,
}

/// The shared rules. [`Rules::default`] is what nodes run with; tests may make hashing cheaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The difficulty of the first blocks, below which none may fall.
    pub minimum_difficulty: u64,
}

impl Default for Rules {
    /// Even the slowest of our miners finds a block of this difficulty in half a second.
    fn default() -> Self {
        Self { minimum_difficulty: 256 }
    }
}

impl Rules {
    /// The first block, the same for every node. It alone needs no proof of work: it is known by its hash.
    pub fn genesis(&self) -> Block {
        Block {
            index: 0,
            previous_hash: BlockHash::NONE,
            timestamp: 1_465_154_705,
            data: "genesis block".to_owned(),
            difficulty: self.minimum_difficulty,
            interval_seconds: 0,
            nonce: 0,
            address: DEFAULT_ADDRESS.to_owned(),
            hash: BlockHash::NONE,
        }
        .sealed()
    }

    /// What a child of `parent` with this timestamp and interval must prove.
    ///
    /// The time between the two beyond the interval is what the network spent searching. Where that is less than the
    /// [`slack`], the child must be harder than its parent, where it is more, easier: by a sixteenth for a whole slack.
    /// A block that comes before its interval is over is allowed, and is harder still (at most by an eighth).
    ///
    /// Because the child's own timestamp counts, a search that takes long gets easier while it lasts, down to an
    /// eighth: a chain whose miners leave does not stand still.
    pub fn difficulty(&self, parent: &Block, timestamp: i64, interval_seconds: u64) -> u64 {
        if parent.index == 0 {
            return self.minimum_difficulty;
        }
        let slack = slack(interval_seconds).as_millis() as i128;
        let gap = (i128::from(timestamp) - i128::from(parent.timestamp)) * 1000;
        let searched = (gap - i128::from(interval_seconds) * 1000).max(-slack);
        let before = i128::from(parent.difficulty);
        let after = if searched <= slack {
            // Rounded up, or a difficulty below the damping could never grow.
            (before * (DAMPING * slack + slack - searched) + DAMPING * slack - 1) / (DAMPING * slack)
        } else {
            before * DAMPING * slack / (DAMPING * slack + searched - slack)
        };
        let floor = self.minimum_difficulty.max(parent.difficulty / STEEPEST_FALL);
        u64::try_from(after).unwrap_or(MAX_DIFFICULTY).clamp(floor, MAX_DIFFICULTY.max(floor))
    }

    /// The interval nearest to `wanted` that a child of `parent` may name.
    ///
    /// The first block after genesis is free to choose; after that at most half or twice the parent's, so one block
    /// cannot run away with a chain, and a chain whose interval was edited gets there in a few blocks.
    pub fn interval(&self, parent: &Block, wanted: u64) -> u64 {
        let (low, high) = match parent.interval_seconds {
            0 => (1, MAX_INTERVAL_SECONDS),
            before => (before.div_ceil(2), (before * 2).min(MAX_INTERVAL_SECONDS)),
        };
        wanted.clamp(low, high)
    }

    /// What `block` itself says that is wrong, whatever stands before it: its hash, its work, its size.
    pub fn check_alone(&self, block: &Block) -> Result<(), Rejection> {
        if block.data.len() > MAX_DATA_BYTES || block.address.len() > MAX_ADDRESS_BYTES {
            return Err(Rejection::TooLarge);
        }
        if block.digest() != block.hash {
            return Err(Rejection::Hash);
        }
        if block.index == 0 {
            return if block.hash == self.genesis().hash { Ok(()) } else { Err(Rejection::Genesis) };
        }
        if block.difficulty < self.minimum_difficulty || !block.hash.proves(block.difficulty) {
            return Err(Rejection::Work(block.difficulty));
        }
        Ok(())
    }

    /// Whether `block`, already [checked alone](Self::check_alone), may follow `parent`, seen at `now`.
    pub fn check_after(&self, parent: &Block, block: &Block, now: i64) -> Result<(), Rejection> {
        if block.index != parent.index + 1 || block.previous_hash != parent.hash {
            return Err(Rejection::Link);
        }
        if block.interval_seconds == 0 || self.interval(parent, block.interval_seconds) != block.interval_seconds {
            return Err(Rejection::Interval(block.interval_seconds));
        }
        // Stricter than a median of the last few: a chain's time never runs backwards.
        if block.timestamp < parent.timestamp {
            return Err(Rejection::Older);
        }
        let required = self.difficulty(parent, block.timestamp, block.interval_seconds);
        if block.difficulty != required {
            return Err(Rejection::Difficulty { found: block.difficulty, required });
        }
        if block.timestamp > now.saturating_add(MAX_AHEAD_SECONDS) {
            return Err(Rejection::Future);
        }
        Ok(())
    }
}

/// How long the network should search for a block once its interval is over: a quarter of it, between 250 ms and 10 s.
///
/// Long against the milliseconds a block needs to reach all nodes, so that forks stay rare.
pub fn slack(interval_seconds: u64) -> Duration {
    Duration::from_millis(interval_seconds.saturating_mul(250).clamp(250, 10_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parent(difficulty: u64, interval_seconds: u64) -> Block {
        Block { index: 7, timestamp: 2_000_000_000, difficulty, interval_seconds, ..Rules::default().genesis() }
            .sealed()
    }

    #[test]
    fn genesis_is_the_same_for_ever() {
        let genesis = Rules::default().genesis();
        assert_eq!(genesis.hash.to_string(), "86d7bddfe6e04da68c79546e89f0f79e34fc787870232068507536d236d3385e");
    }

    #[test]
    fn early_blocks_are_harder_and_late_ones_easier() {
        let rules = Rules::default();
        let parent = parent(160_000, 1);
        let after = |seconds| rules.difficulty(&parent, parent.timestamp + seconds, 1);
        assert_eq!(after(0), 180_000);
        assert_eq!(after(1), 170_000);
        assert_eq!(after(2), 134_736);
        assert_eq!(after(3600), 20_000);
    }

    #[test]
    fn the_first_block_may_name_any_interval_and_later_ones_half_or_twice_the_last() {
        let rules = Rules::default();
        assert_eq!(rules.interval(&rules.genesis(), 43_200), 43_200);
        assert_eq!(rules.interval(&parent(256, 60), 1), 30);
        assert_eq!(rules.interval(&parent(256, 60), 45), 45);
        assert_eq!(rules.interval(&parent(256, 60), 43_200), 120);
        assert_eq!(rules.interval(&parent(256, 1), 0), 1);
        assert_eq!(rules.interval(&parent(256, 3), 1), 2);
    }

    /// A network of `rate` hashes a second that starts searching when the interval is over: seconds each block took.
    fn simulate(rate: f64, interval: u64, blocks: usize, difficulty: u64, seed: u64) -> Vec<f64> {
        let rules = Rules::default();
        let mut parent = parent(difficulty, interval);
        let mut state = seed;
        let mut gaps = Vec::new();
        for _ in 0..blocks {
            // A small generator of our own keeps the run the same for ever.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut effort = -(1.0 - (state >> 11) as f64 / (1u64 << 53) as f64).ln();
            let mut timestamp = parent.timestamp + interval as i64;
            loop {
                let second = rate / rules.difficulty(&parent, timestamp, interval) as f64;
                if effort <= second {
                    break;
                }
                effort -= second;
                timestamp += 1;
            }
            gaps.push((timestamp - parent.timestamp) as f64);
            let difficulty = rules.difficulty(&parent, timestamp, interval);
            parent = Block { index: parent.index + 1, timestamp, difficulty, ..parent };
        }
        gaps
    }

    fn mean(gaps: &[f64]) -> f64 {
        gaps.iter().sum::<f64>() / gaps.len() as f64
    }

    #[test]
    fn a_network_of_any_speed_settles_at_its_interval() {
        for (rate, interval, expected) in
            [(4_000.0, 1, 1.25), (200_000.0, 1, 1.25), (50_000.0, 10, 12.5), (50_000.0, 60, 70.0)]
        {
            let gaps = simulate(rate, interval, 2_000, 256, 42);
            let settled = mean(&gaps[500..]);
            assert!((settled / expected - 1.0).abs() < 0.15, "{rate} hashes a second, {interval} s: {settled} s");
        }
    }

    #[test]
    fn a_network_that_shrinks_from_fifty_miners_to_one_goes_on_within_a_minute() {
        let gaps = simulate(800.0, 1, 200, 50 * 800, 7);
        assert!(gaps[..4].iter().sum::<f64>() < 60.0, "{:?}", &gaps[..4]);
        assert!(mean(&gaps[20..]) < 2.0, "{gaps:?}");
    }

    proptest! {
        #[test]
        fn difficulty_never_leaves_its_bounds(difficulty in 256u64..(1 << 62), gap in 0i64..i64::MAX / 2, interval in 1u64..=MAX_INTERVAL_SECONDS) {
            let parent = parent(difficulty, interval);
            let next = Rules::default().difficulty(&parent, parent.timestamp + gap, interval);
            prop_assert!(next >= 256 && next >= difficulty / 8);
            prop_assert!(u128::from(next) <= u128::from(difficulty) * 9 / 8 + 1);
        }

        #[test]
        fn waiting_never_makes_a_block_harder(difficulty in 256u64..(1 << 62), gap in 0i64..100_000, interval in 1u64..50_000) {
            let parent = parent(difficulty, interval);
            let at = |gap| Rules::default().difficulty(&parent, parent.timestamp + gap, interval);
            prop_assert!(at(gap + 1) <= at(gap));
        }
    }
}
