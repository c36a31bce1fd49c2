//! The recent part of the chain as a tree of blocks, and the choice of its branch. Pure.
//!
//! Bounds: below the tip [`KEEP`] blocks of the main chain are held, as many blocks of side branches, and
//! [`MAX_ORPHANS`] blocks whose parents are not known. The oldest block held is the base; a branch that leaves the
//! main chain below it cannot be judged here (see [`Ledger::deepen`](crate::ledger::Ledger::deepen)).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::block::{Block, BlockHash};
use crate::rules::{Rejection, Rules};

/// How many blocks of the main chain are held in memory below the tip.
pub const KEEP: u64 = 1024;

/// How many blocks may wait for their parents.
pub const MAX_ORPHANS: usize = 128;

/// What became of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// We had it.
    Known,
    /// It waits for its parent.
    Orphan,
    /// It is part of the tree, beside the main chain.
    Side,
    /// The main chain has a new tip.
    Tip(Change),
}

/// How the main chain changed: first `left` blocks were taken from its end, then `joined` were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// How many blocks are no longer on the main chain; 0 when it just grew.
    pub left: u64,
    /// The blocks that are now, in order, each with the work of the chain up to and with it.
    pub joined: Vec<Placed>,
}

/// A block in its place, with the work of all blocks up to and with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The block.
    pub block: Arc<Block>,
    /// The sum of the difficulties from the first block after genesis to this one.
    pub work: u128,
}

/// The tree, its main chain, and the blocks that wait. See the module's words for its bounds.
pub struct Chain {
    rules: Rules,
    keep: u64,
    tree: HashMap<BlockHash, Placed>,
    /// From the base to the tip, without a gap.
    main: VecDeque<BlockHash>,
    orphans: Orphans,
}

impl Chain {
    /// The chain that has only its genesis block.
    pub fn new(rules: Rules) -> Self {
        let genesis = Placed { block: Arc::new(rules.genesis()), work: 0 };
        Self::restore(rules, vec![genesis], KEEP).expect("the genesis block is a chain")
    }

    /// A chain whose newest blocks are `recent`, in order, and that holds `keep` of them. Links and hashes are checked
    /// again, because blocks come from a disk; `None` when they do not hold.
    pub fn restore(rules: Rules, recent: Vec<Placed>, keep: u64) -> Option<Self> {
        let linked = recent.windows(2).all(|pair| pair[1].block.previous_hash == pair[0].block.hash);
        if recent.is_empty() || !linked || recent.iter().any(|placed| rules.check_alone(&placed.block).is_err()) {
            return None;
        }
        let main = recent.iter().map(|placed| placed.block.hash).collect();
        let tree = recent.into_iter().map(|placed| (placed.block.hash, placed)).collect();
        Some(Self { rules, keep: keep.max(1), tree, main, orphans: Orphans::default() })
    }

    /// The rules that blocks are judged by.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The newest block of the main chain.
    pub fn tip(&self) -> &Placed {
        &self.tree[self.main.back().expect("a chain has at least its base")]
    }

    /// The oldest block held.
    pub fn base(&self) -> &Placed {
        &self.tree[self.main.front().expect("a chain has at least its base")]
    }

    /// The block of this hash, on the main chain or beside it, if it is still held.
    pub fn get(&self, hash: &BlockHash) -> Option<&Placed> {
        self.tree.get(hash)
    }

    /// The block of the main chain with this index, if it is still held.
    pub fn at(&self, index: u64) -> Option<&Placed> {
        let offset = index.checked_sub(self.base().block.index)?;
        self.main.get(usize::try_from(offset).ok()?).map(|hash| &self.tree[hash])
    }

    /// How many blocks wait for their parents.
    pub fn orphans(&self) -> usize {
        self.orphans.waiting.len()
    }

    /// How many blocks are held, beside those that wait.
    pub fn held(&self) -> usize {
        self.tree.len()
    }

    /// How many blocks below the tip are to be held from now on. More are forgotten as the chain grows.
    pub fn keep(&mut self, keep: u64) {
        self.keep = keep.max(1);
    }

    /// Judges a block seen at `now` (seconds since 1970) and puts it in its place, with all that waited for it.
    ///
    /// Of two branches with equal work the one seen first stays the main chain.
    pub fn insert(&mut self, block: Block, now: i64) -> Result<Outcome, Rejection> {
        if self.tree.contains_key(&block.hash) {
            return Ok(Outcome::Known);
        }
        if self.orphans.contains(&block.hash) {
            return Ok(Outcome::Orphan);
        }
        self.rules.check_alone(&block)?;
        if !self.tree.contains_key(&block.previous_hash) {
            self.orphans.add(Arc::new(block));
            return Ok(Outcome::Orphan);
        }
        let best = self.attach(Arc::new(block), now)?;
        if self.tree[&best].work <= self.tip().work {
            self.shed();
            return Ok(Outcome::Side);
        }
        let change = self.choose(best);
        self.forget();
        Ok(Outcome::Tip(change))
    }

    /// Adds a block whose parent is held, then the orphans above it; returns the one of them with most work.
    fn attach(&mut self, block: Arc<Block>, now: i64) -> Result<BlockHash, Rejection> {
        let mut best = self.place(Arc::clone(&block), now)?;
        let mut parents = vec![block.hash];
        while let Some(parent) = parents.pop() {
            for child in self.orphans.take_children(&parent) {
                // An orphan that turns out wrong is forgotten; who sent it is no longer known.
                let Ok(hash) = self.place(child, now) else {
                    continue;
                };
                parents.push(hash);
                if self.tree[&hash].work > self.tree[&best].work {
                    best = hash;
                }
            }
        }
        Ok(best)
    }

    fn place(&mut self, block: Arc<Block>, now: i64) -> Result<BlockHash, Rejection> {
        let parent = self.tree.get(&block.previous_hash).ok_or(Rejection::Link)?;
        self.rules.check_after(&parent.block, &block, now)?;
        let work = parent.work + u128::from(block.difficulty);
        let hash = block.hash;
        self.tree.insert(hash, Placed { block, work });
        Ok(hash)
    }

    /// Makes the branch that ends in `tip` the main chain.
    fn choose(&mut self, tip: BlockHash) -> Change {
        let mut joined = Vec::new();
        let mut at = &self.tree[&tip];
        while self.at(at.block.index).is_none_or(|main| main.block.hash != at.block.hash) {
            joined.push(at.clone());
            at = &self.tree[&at.block.previous_hash];
        }
        joined.reverse();
        let left = self.tip().block.index - at.block.index;
        self.main.truncate(self.main.len() - left as usize);
        self.main.extend(joined.iter().map(|placed| placed.block.hash));
        Change { left, joined }
    }

    /// Moves the base up when the main chain has become an eighth too long, and cuts what hung below.
    fn forget(&mut self) {
        if self.main.len() as u64 <= self.keep + self.keep / 8 + 1 {
            return self.shed();
        }
        let surplus = self.main.len() - 1 - self.keep as usize;
        for hash in self.main.drain(..surplus) {
            self.tree.remove(&hash);
        }
        let base = self.base().block.index;
        let mut sides = self.sides();
        sides.sort_by_key(|placed| placed.block.index);
        for side in sides {
            // Parents are looked at before their children, so a whole cut branch goes.
            if side.block.index <= base || !self.tree.contains_key(&side.block.previous_hash) {
                self.tree.remove(&side.block.hash);
            }
        }
    }

    /// When there are more side blocks than `keep`, keeps only the side branch with most work, or none if that alone is
    /// too long.
    fn shed(&mut self) {
        if (self.tree.len() - self.main.len()) as u64 <= self.keep {
            return;
        }
        let sides = self.sides();
        let Some(best) = sides.iter().max_by_key(|placed| placed.work) else {
            return;
        };
        let mut kept = HashSet::new();
        let mut at = best;
        while self.at(at.block.index).is_none_or(|main| main.block.hash != at.block.hash) {
            kept.insert(at.block.hash);
            at = &self.tree[&at.block.previous_hash];
        }
        if kept.len() as u64 > self.keep {
            kept.clear();
        }
        for side in &sides {
            if !kept.contains(&side.block.hash) {
                self.tree.remove(&side.block.hash);
            }
        }
    }

    fn sides(&self) -> Vec<Placed> {
        let main: HashSet<_> = self.main.iter().collect();
        self.tree.iter().filter(|(hash, _)| !main.contains(hash)).map(|(_, placed)| placed.clone()).collect()
    }
}

/// Blocks that wait for their parents, the oldest arrivals dropped first.
#[derive(Default)]
struct Orphans {
    waiting: VecDeque<Arc<Block>>,
}

impl Orphans {
    fn contains(&self, hash: &BlockHash) -> bool {
        self.waiting.iter().any(|block| block.hash == *hash)
    }

    fn add(&mut self, block: Arc<Block>) {
        if self.waiting.len() == MAX_ORPHANS {
            self.waiting.pop_front();
        }
        self.waiting.push_back(block);
    }

    fn take_children(&mut self, parent: &BlockHash) -> Vec<Arc<Block>> {
        let (children, rest) = self.waiting.drain(..).partition(|block| block.previous_hash == *parent);
        self.waiting = rest;
        children.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mine;

    const RULES: Rules = Rules { minimum_difficulty: 1 };
    const NOW: i64 = 2_000_000_000;

    /// A child of `parent` that comes `gap` seconds after it.
    fn child(parent: &Block, gap: i64, data: &str) -> Block {
        let timestamp = if parent.index == 0 { NOW - 1_000_000 } else { parent.timestamp + gap };
        let draft = mine::draft(&RULES, parent, timestamp, 1, data.to_owned(), "me".to_owned());
        mine::Search::new(draft).run(0, u64::MAX).expect("there is a nonce")
    }

    /// A tree of blocks: each hangs below one that came before it.
    fn tree() -> impl Strategy<Value = Vec<Block>> {
        prop::collection::vec((any::<prop::sample::Index>(), 0i64..6), 1..24).prop_map(|shape| {
            let mut blocks = vec![RULES.genesis()];
            for (number, (parent, gap)) in shape.into_iter().enumerate() {
                blocks.push(child(parent.get(&blocks), gap, &number.to_string()));
            }
            blocks.remove(0);
            blocks
        })
    }

    fn work(blocks: &[Block], block: &Block) -> u128 {
        let parent = blocks.iter().find(|other| other.hash == block.previous_hash);
        u128::from(block.difficulty) + parent.map_or(0, |parent| work(blocks, parent))
    }

    /// What a store that follows the changes would hold.
    #[derive(Default)]
    struct Follower(Vec<BlockHash>);

    impl Follower {
        fn follow(&mut self, outcome: &Outcome) {
            if let Outcome::Tip(change) = outcome {
                self.0.truncate(self.0.len() - change.left as usize);
                self.0.extend(change.joined.iter().map(|placed| placed.block.hash));
            }
        }
    }

    proptest! {
        #[test]
        fn most_work_wins_in_whatever_order_blocks_arrive(blocks in tree(), seed in any::<[u8; 32]>()) {
            let mut shuffled = blocks.clone();
            shuffled.sort_by_key(|block| crc32fast::hash(&[seed.as_slice(), block.hash.to_string().as_bytes()].concat()));
            let mut chain = Chain::new(RULES);
            let mut follower = Follower::default();
            for block in shuffled {
                follower.follow(&chain.insert(block, NOW).unwrap());
            }
            let most = blocks.iter().map(|block| work(&blocks, block)).max().unwrap();
            prop_assert_eq!(chain.tip().work, most);
            prop_assert_eq!(chain.orphans(), 0);
            prop_assert_eq!(chain.held(), blocks.len() + 1);
            // Following the changes one by one leads to the chain that the tip's links tell.
            let mut linked = Vec::new();
            let mut at = &*chain.tip().block;
            while at.index > 0 {
                linked.push(at.hash);
                at = blocks.iter().find(|block| block.hash == at.previous_hash).map_or(&*chain.base().block, |block| block);
            }
            linked.reverse();
            prop_assert_eq!(follower.0, linked);
        }

        #[test]
        fn of_equal_branches_the_first_seen_stays(length in 1usize..6) {
            let genesis = RULES.genesis();
            let branch = |name: &str| {
                let mut blocks = vec![child(&genesis, 1, name)];
                for _ in 1..length {
                    blocks.push(child(blocks.last().unwrap(), 1, name));
                }
                blocks
            };
            let (first, second) = (branch("first"), branch("second"));
            let mut chain = Chain::new(RULES);
            for block in first.iter().chain(&second) {
                chain.insert(block.clone(), NOW).unwrap();
            }
            prop_assert_eq!(&*chain.tip().block, first.last().unwrap());
        }

        #[test]
        fn a_block_with_one_field_changed_is_refused(field in 0u8..9, seal in any::<bool>()) {
            let rules = Rules::default();
            let genesis = rules.genesis();
            let mut chain = Chain::new(rules);
            let mined = |parent: &Block, timestamp| {
                let draft = mine::draft(&rules, parent, timestamp, 1, "data".into(), "me".into());
                mine::Search::new(draft).run(0, u64::MAX).unwrap()
            };
            let first = mined(&genesis, NOW - 100);
            chain.insert(first.clone(), NOW).unwrap();
            let good = mined(&first, NOW - 99);
            let mut bad = good.clone();
            match field {
                0 => bad.index += 1,
                1 => bad.previous_hash = genesis.hash,
                2 => bad.timestamp += 1,
                3 => bad.data.push('x'),
                4 => bad.difficulty -= 1,
                5 => bad.interval_seconds += 1,
                6 => bad.nonce ^= 1,
                7 => bad.address.push('x'),
                _ => bad.hash = first.digest(),
            }
            if seal {
                // Even with the right hash: one in 256 has the work by luck, and then may only differ in free fields.
                bad = bad.sealed();
                prop_assume!(!bad.hash.proves(256) && bad.hash != good.hash);
            } else if field == 8 {
                // A hash we know is a block we have.
                bad.hash = mined(&first, NOW - 50).hash;
            }
            prop_assert!(chain.insert(bad, NOW).is_err());
            prop_assert_eq!(&*chain.tip().block, &first);
            prop_assert!(matches!(chain.insert(good, NOW), Ok(Outcome::Tip(_))));
        }
    }

    #[test]
    fn a_chain_forgets_what_is_far_below_its_tip() {
        let mut chain = Chain::new(RULES);
        chain.keep(16);
        let mut tip = RULES.genesis();
        for _ in 0..200 {
            let side = child(&tip, 3, "side");
            let next = child(&tip, 2, "main");
            chain.insert(next.clone(), NOW).unwrap();
            chain.insert(side, NOW).unwrap();
            tip = next;
        }
        assert_eq!(chain.tip().block.index, 200);
        assert!(chain.held() <= 2 * (16 + 2) + 1, "{} blocks held", chain.held());
        assert!(chain.base().block.index >= 200 - 18);
        assert!(chain.at(chain.base().block.index - 1).is_none());
    }

    #[test]
    fn side_branches_are_bounded_and_the_best_of_them_stays() {
        let mut chain = Chain::new(RULES);
        chain.keep(16);
        let first = child(&RULES.genesis(), 1, "first");
        let second = child(&first, 1, "second");
        let third = child(&second, 1, "third");
        for block in [&first, &second, &third] {
            chain.insert(block.clone(), NOW).unwrap();
        }
        let rival = child(&first, 1, "rival");
        chain.insert(rival.clone(), NOW).unwrap();
        for number in 0..100 {
            assert_eq!(chain.insert(child(&RULES.genesis(), 1, &number.to_string()), NOW), Ok(Outcome::Side));
            assert!(chain.held() <= 4 + 16);
        }
        assert!(chain.get(&rival.hash).is_some());
    }

    /// Early blocks are light, so a branch of them can become long before it is heavier than the chain.
    #[test]
    fn a_side_branch_is_bounded_also_when_it_is_the_only_one() {
        let mut chain = Chain::new(RULES);
        chain.keep(16);
        let mut heavy = RULES.genesis();
        for _ in 0..40 {
            heavy = child(&heavy, 0, "heavy");
            chain.insert(heavy.clone(), NOW).unwrap();
        }
        let mut side = chain.base().block.as_ref().clone();
        let mut longest = 0;
        for _ in 0..40 {
            side = child(&side, 60, "side");
            chain.insert(side.clone(), NOW).unwrap();
            longest = longest.max(chain.held());
        }
        assert_eq!(*chain.tip().block, heavy);
        assert!(longest <= 2 * 16 + 3, "{longest} blocks held");
    }

    #[test]
    fn orphans_are_bounded() {
        let mut chain = Chain::new(RULES);
        let missing = child(&RULES.genesis(), 1, "missing");
        for number in 0..2 * MAX_ORPHANS {
            assert_eq!(chain.insert(child(&missing, 1, &number.to_string()), NOW), Ok(Outcome::Orphan));
        }
        assert_eq!(chain.orphans(), MAX_ORPHANS);
    }

    #[test]
    fn a_block_from_the_future_is_refused_until_its_time_has_come() {
        let mut chain = Chain::new(RULES);
        let block = child(&RULES.genesis(), 1, "soon");
        assert_eq!(chain.insert(block.clone(), block.timestamp - 11), Err(Rejection::Future));
        assert!(matches!(chain.insert(block.clone(), block.timestamp - 10), Ok(Outcome::Tip(_))));
    }
}
