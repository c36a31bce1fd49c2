//! The whole chain: the recent part in memory, all of it on disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::block::{Block, BlockHash};
use crate::chain::{Chain, Change, KEEP, Outcome, Placed};
use crate::rules::{Rejection, Rules};
use crate::store::{self, Cut, Finder, Store};

/// How far below the tip a heavier branch may leave the main chain and still win. Deeper forks are refused.
///
/// While such a branch is taken in, both branches are in memory, about half a kilobyte a block.
pub const MAX_DEPTH: u64 = 65_536;

/// How often [`Ledger::deepen`] reads the chain back at most.
pub const DEEPENING: Duration = Duration::from_secs(30);

/// The most entries of a locator.
pub const MAX_LOCATOR: usize = 64;

/// A place on somebody's main chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The block's index.
    pub index: u64,
    /// The block's hash.
    pub hash: BlockHash,
}

/// Why a block was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The block breaks a rule.
    #[error("the block is not acceptable")]
    Rejected(#[from] Rejection),
    /// The chain cannot be kept; the node cannot go on.
    #[error("the chain cannot be kept")]
    Store(#[from] store::Error),
}

/// The chain in memory and on disk, always with the same tip.
pub struct Ledger {
    chain: Chain,
    store: Store,
    deepened: Option<Instant>,
}

impl Ledger {
    /// The chain kept in `directory`, or one that ends with the process. Says what had to be cut.
    pub fn open(rules: Rules, directory: Option<&Path>) -> Result<(Self, Option<Cut>), store::Error> {
        let genesis = rules.genesis().hash;
        let (store, cut) = match directory {
            Some(directory) => Store::open(directory, genesis)?,
            None => (Store::temporary(genesis)?, None),
        };
        let chain = restore(rules, &store, KEEP, directory)?;
        Ok((Self { chain, store, deepened: None }, cut))
    }

    /// The recent part.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The newest block of the main chain.
    pub fn tip(&self) -> &Placed {
        self.chain.tip()
    }

    /// Judges a block seen at `now`, and writes down how the main chain changed.
    pub fn insert(&mut self, block: Block, now: i64) -> Result<Outcome, Error> {
        let outcome = self.chain.insert(block, now)?;
        if let Outcome::Tip(Change { joined, .. }) = &outcome {
            for placed in joined {
                self.store.append(placed)?;
            }
        }
        Ok(outcome)
    }

    /// Up to `count` blocks of the main chain from the index `from` on, in order, of about `max_bytes` at most.
    pub fn read(&self, from: u64, count: u64, max_bytes: usize) -> Result<Vec<Arc<Block>>, store::Error> {
        if let Some(first) = self.chain.at(from) {
            return Ok(self.recent(first.block.index, count, max_bytes));
        }
        let mut blocks = Vec::new();
        if from == 0 && count > 0 {
            blocks.push(Arc::new(self.chain.rules().genesis()));
        }
        let rest = self.store.read(from.max(1), count - blocks.len().min(count as usize) as u64, max_bytes)?;
        blocks.extend(rest.into_iter().map(|placed| placed.block));
        Ok(blocks)
    }

    fn recent(&self, from: u64, count: u64, max_bytes: usize) -> Vec<Arc<Block>> {
        let mut bytes = 0;
        let end = from.saturating_add(count).min(self.tip().block.index + 1);
        let placed = (from..end).map_while(|index| self.chain.at(index));
        let fitting = placed.take_while(|placed| {
            bytes += 512 + placed.block.data.len() + placed.block.address.len();
            bytes <= max_bytes || placed.block.index == from
        });
        fitting.map(|placed| Arc::clone(&placed.block)).collect()
    }

    /// The hash of the main chain's block with this index.
    pub fn hash_at(&self, index: u64) -> Result<Option<BlockHash>, store::Error> {
        Ok(self.read(index, 1, usize::MAX)?.first().map(|block| block.hash))
    }

    /// Places on our main chain, dense near the tip and ever sparser towards genesis, by which a peer finds where its
    /// chain and ours part.
    pub fn locator(&self) -> Result<Vec<Place>, store::Error> {
        let tip = self.tip().block.index;
        let mut places = Vec::new();
        let (mut back, mut step) = (0, 1);
        while back < tip && places.len() < MAX_LOCATOR - 1 {
            if let Some(hash) = self.hash_at(tip - back)? {
                places.push(Place { index: tip - back, hash });
            }
            if places.len() >= 10 {
                step *= 2;
            }
            back += step;
        }
        places.push(Place { index: 0, hash: self.chain.rules().genesis().hash });
        Ok(places)
    }

    /// The index of the first block after the newest place of `locator` that is on our main chain too.
    pub fn after(&self, locator: &[Place]) -> Result<u64, store::Error> {
        for place in locator.iter().take(MAX_LOCATOR) {
            if self.hash_at(place.index)? == Some(place.hash) {
                return Ok(place.index + 1);
            }
        }
        Ok(1)
    }

    /// Brings the main chain back into memory down to the parent of `block`, so that the branch it starts can be judged.
    /// Makes room for a branch in any case: call [`Ledger::shallow`] when it has been taken in, or will not be.
    ///
    /// `false` when that parent is not on the main chain, or lies deeper than [`MAX_DEPTH`], or is in memory anyway, or
    /// when this was done within [`DEEPENING`]. Side branches are forgotten. Refuses a block that may not follow, before
    /// anything is done for it: this is dear, and a block that nobody worked for is cheap.
    pub fn deepen(&mut self, block: &Block, now: i64) -> Result<bool, Error> {
        if block.previous_hash == self.tip().block.hash {
            self.shallow();
            return Ok(false);
        }
        self.chain.keep(MAX_DEPTH);
        let depth = self.tip().block.index.saturating_sub(block.index.saturating_sub(1));
        let inside = self.chain.get(&block.previous_hash).is_some();
        if block.index == 0 || inside || depth == 0 || depth > MAX_DEPTH {
            return Ok(false);
        }
        self.chain.rules().check_alone(block)?;
        let parent = self.read(block.index - 1, 1, usize::MAX)?.pop();
        let Some(parent) = parent.filter(|parent| parent.hash == block.previous_hash) else {
            return Ok(false);
        };
        self.chain.rules().check_after(&parent, block, now)?;
        if self.deepened.is_some_and(|deepened| deepened.elapsed() < DEEPENING) {
            return Ok(false);
        }
        self.deepened = Some(Instant::now());
        self.chain = restore(*self.chain.rules(), &self.store, depth, None)?;
        self.chain.keep(MAX_DEPTH);
        Ok(true)
    }

    /// Lets go of what [`Ledger::deepen`] brought into memory, as soon as another block joins the tree: until then a branch
    /// that one peer began can be finished by another.
    pub fn shallow(&mut self) {
        self.chain.keep(KEEP);
    }

    /// See [`Store::sync`].
    pub fn sync(&mut self) -> Option<store::Sync> {
        self.store.sync()
    }

    /// See [`Store::finder`].
    pub fn finder(&self) -> Finder {
        self.store.finder()
    }
}

/// The newest `keep` blocks of the store and the one before them, as a chain.
fn restore(rules: Rules, store: &Store, keep: u64, directory: Option<&Path>) -> Result<Chain, store::Error> {
    let base = store.height().saturating_sub(keep);
    let mut recent = Vec::new();
    if base == 0 {
        recent.push(Placed { block: Arc::new(rules.genesis()), work: 0 });
    }
    recent.extend(store.read(base.max(1), u64::MAX, usize::MAX)?);
    Chain::restore(rules, recent, KEEP)
        .ok_or_else(|| store::Error::Damaged(directory.unwrap_or(Path::new("")).join(store::FILE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mine;

    const RULES: Rules = Rules { minimum_difficulty: 1 };
    const START: i64 = 1_900_000_000;
    const NOW: i64 = 2_000_000_000;

    fn grow(ledger: &mut Ledger, blocks: u64, gap: i64, data: &str) {
        for _ in 0..blocks {
            let parent = Arc::clone(&ledger.tip().block);
            let timestamp = if parent.index == 0 { START } else { parent.timestamp + gap };
            let draft = mine::draft(&RULES, &parent, timestamp, 1, data.to_owned(), "me".to_owned());
            let block = mine::Search::new(draft).run(0, u64::MAX).unwrap();
            assert!(matches!(ledger.insert(block, NOW), Ok(Outcome::Tip(_))));
        }
    }

    fn everything(ledger: &Ledger) -> Vec<Arc<Block>> {
        ledger.read(0, u64::MAX, usize::MAX).unwrap()
    }

    fn temporary() -> Ledger {
        Ledger::open(RULES, None).unwrap().0
    }

    #[test]
    fn a_chain_reopened_goes_on_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(RULES, Some(directory.path())).unwrap();
        grow(&mut ledger, KEEP + 500, 2, "data");
        let (tip, blocks) = (ledger.tip().clone(), everything(&ledger));
        drop(ledger);
        let (mut ledger, cut) = Ledger::open(RULES, Some(directory.path())).unwrap();
        assert_eq!(cut, None);
        assert_eq!(ledger.tip(), &tip);
        assert_eq!(everything(&ledger), blocks);
        grow(&mut ledger, 1, 2, "more");
        assert_eq!(ledger.tip().block.index, KEEP + 501);
    }

    #[test]
    fn memory_holds_only_the_recent_part_and_the_rest_is_read_back() {
        let mut ledger = temporary();
        grow(&mut ledger, 3 * KEEP, 2, "data");
        assert!(ledger.chain().held() as u64 <= KEEP + KEEP / 8 + 2);
        let blocks = everything(&ledger);
        assert!(blocks.iter().enumerate().all(|(index, block)| block.index == index as u64));
        assert!(blocks.windows(2).all(|pair| pair[1].previous_hash == pair[0].hash));
        assert_eq!(ledger.read(5, 3, usize::MAX).unwrap(), blocks[5..8]);
        assert_eq!(ledger.read(0, 1, usize::MAX).unwrap(), blocks[..1]);
        assert!(ledger.read(3 * KEEP + 1, 3, usize::MAX).unwrap().is_empty());
    }

    #[test]
    fn a_locator_finds_where_two_chains_part() {
        let (mut ours, mut theirs) = (temporary(), temporary());
        grow(&mut ours, 2_000, 2, "common");
        for block in everything(&ours).into_iter().skip(1) {
            theirs.insert((*block).clone(), NOW).unwrap();
        }
        grow(&mut ours, 7, 2, "ours");
        grow(&mut theirs, 5, 2, "theirs");
        let locator = ours.locator().unwrap();
        assert!(locator.len() <= MAX_LOCATOR);
        assert_eq!(theirs.after(&locator).unwrap(), 2_001);
        assert_eq!(temporary().after(&locator).unwrap(), 1);
    }

    #[test]
    fn a_heavier_branch_that_leaves_far_below_memory_wins_after_deepening() {
        let (mut ours, mut theirs) = (temporary(), temporary());
        grow(&mut ours, 100, 2, "common");
        for block in everything(&ours).into_iter().skip(1) {
            theirs.insert((*block).clone(), NOW).unwrap();
        }
        grow(&mut ours, 3 * KEEP, 2, "ours");
        grow(&mut theirs, 3 * KEEP + 50, 2, "theirs");
        let branch = theirs.read(101, u64::MAX, usize::MAX).unwrap();
        assert!(matches!(ours.insert((*branch[0]).clone(), NOW), Ok(Outcome::Orphan)));
        assert!(ours.deepen(&branch[0], NOW).unwrap());
        for block in &branch {
            ours.insert((**block).clone(), NOW).unwrap();
        }
        assert_eq!(ours.tip(), theirs.tip());
        assert_eq!(everything(&ours), everything(&theirs));
        ours.shallow();
        grow(&mut ours, 1, 2, "next");
        assert!(ours.chain().held() as u64 <= KEEP + KEEP / 8 + 2);
    }

    #[test]
    fn deepening_needs_a_parent_on_the_main_chain() {
        let mut ledger = temporary();
        grow(&mut ledger, 2 * KEEP + 500, 2, "data");
        let stranger = Block { index: 10, ..RULES.genesis() }.sealed();
        assert!(!ledger.deepen(&stranger, NOW).unwrap());
    }

    /// A child of the chain's block `index`, with this difficulty and without any work.
    fn forged(ledger: &Ledger, index: u64, difficulty: u64) -> Block {
        let parent = ledger.read(index, 1, usize::MAX).unwrap().remove(0);
        let draft = mine::draft(&RULES, &parent, parent.timestamp + 2, 1, "forged".to_owned(), "me".to_owned());
        Block { difficulty, ..draft }.sealed()
    }

    #[test]
    fn nothing_is_read_back_for_a_block_that_nobody_worked_for() {
        let mut ledger = temporary();
        grow(&mut ledger, 2 * KEEP + 500, 2, "data");
        let held = ledger.chain().held();
        for (block, reason) in [
            (forged(&ledger, 10, u64::MAX), Rejection::Work(u64::MAX)),
            (forged(&ledger, 10, 2), Rejection::Difficulty { found: 2, required: 1 }),
        ] {
            // A hash may prove a difficulty of 2 by luck, so it is searched for.
            let block = match reason {
                Rejection::Difficulty { .. } => mine::Search::new(block).run(0, u64::MAX).unwrap(),
                _ => block,
            };
            let refused = ledger.deepen(&block, NOW);
            assert!(matches!(&refused, Err(Error::Rejected(found)) if *found == reason), "{refused:?}");
            assert_eq!(ledger.chain().held(), held);
        }
    }

    #[test]
    fn the_chain_is_not_read_back_again_and_again() {
        let mut ledger = temporary();
        grow(&mut ledger, 2 * KEEP + 500, 2, "data");
        assert!(ledger.deepen(&forged(&ledger, 500, 1), NOW).unwrap());
        ledger.shallow();
        assert!(!ledger.deepen(&forged(&ledger, 10, 1), NOW).unwrap());
        ledger.deepened = Instant::now().checked_sub(DEEPENING);
        assert!(ledger.deepen(&forged(&ledger, 10, 1), NOW).unwrap());
    }
}
