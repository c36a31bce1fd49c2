//! A block: its fields, its hash and its proof of work. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The most bytes a block's `data` may have.
pub const MAX_DATA_BYTES: usize = 16 * 1024;

/// The most bytes a block's `address` may have.
pub const MAX_ADDRESS_BYTES: usize = 128;

/// The wallet that mined the genesis block, and that mines when no other is named.
pub const DEFAULT_ADDRESS: &str = "0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e";

/// The SHA-256 of a block. Written as 64 lowercase hex digits; [`BlockHash::NONE`] is written `0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// What stands where the genesis block has no parent.
    pub const NONE: Self = Self([0; 32]);

    /// Whether this hash proves that `difficulty` hashes were needed, on average, to find it.
    ///
    /// That is so when the hash, read as a 256-bit number, times the difficulty stays below 2^256; hence one hash in
    /// `difficulty` passes, for every difficulty and not only for powers of two.
    pub fn proves(&self, difficulty: u64) -> bool {
        let mut carry = 0u128;
        for limb in self.0.rchunks_exact(8) {
            let limb = u64::from_be_bytes(limb.try_into().expect("rchunks_exact(8) gives eight bytes"));
            carry = (u128::from(limb) * u128::from(difficulty) + carry) >> 64;
        }
        carry == 0
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("0");
        }
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a block hash.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a block hash is 64 lowercase hex digits")]
pub struct NotAHash;

impl FromStr for BlockHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        if text == "0" {
            return Ok(Self::NONE);
        }
        // One spelling only: two spellings of one block would be two blocks to whoever compares text.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(NotAHash);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAHash)?;
        if bytes == Self::NONE.0 { Err(NotAHash) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for BlockHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One block. Its JSON names are OneX's, with `difficulty`, `intervalSeconds` and `nonce` added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// How many blocks stand before this one.
    pub index: u64,
    /// The hash of the block before; [`BlockHash::NONE`] for genesis.
    pub previous_hash: BlockHash,
    /// When its miner says it was mined, in seconds since 1970.
    pub timestamp: i64,
    /// What people wanted to be written down.
    pub data: String,
    /// How many hashes it takes on average to find such a block.
    pub difficulty: u64,
    /// The least number of seconds its miner leaves between blocks; 0 in genesis, which promises nothing.
    pub interval_seconds: u64,
    /// The number that was searched for.
    pub nonce: u64,
    /// Whose block this is.
    pub address: String,
    /// SHA-256 over every field above.
    pub hash: BlockHash,
}

impl Block {
    /// The hash that the other fields have. A block is only itself when `hash` equals it.
    pub fn digest(&self) -> BlockHash {
        Preimage::of(self).hash(self.nonce)
    }

    /// This block with the hash its fields have.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.hash = self.digest();
        self
    }
}

/// Everything of a block but its nonce, already hashed, so that trying a nonce costs one or two compressions.
#[derive(Clone)]
pub struct Preimage(Sha256);

impl Preimage {
    /// The part of `block` that stays while nonces are tried.
    ///
    /// Numbers have a fixed width and texts carry their length, so two different blocks never hash the same bytes.
    pub fn of(block: &Block) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"onex-toyblc block 1\n");
        hasher.update(block.index.to_be_bytes());
        hasher.update(block.previous_hash.0);
        hasher.update(block.timestamp.to_be_bytes());
        text(&mut hasher, &block.data);
        hasher.update(block.difficulty.to_be_bytes());
        hasher.update(block.interval_seconds.to_be_bytes());
        text(&mut hasher, &block.address);
        Self(hasher)
    }

    /// The hash of the block with this nonce.
    pub fn hash(&self, nonce: u64) -> BlockHash {
        let mut hasher = self.0.clone();
        hasher.update(nonce.to_be_bytes());
        BlockHash(hasher.finalize().into())
    }
}

fn text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_be_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block() -> impl Strategy<Value = Block> {
        (any::<u64>(), any::<[u8; 32]>(), any::<i64>(), ".{0,20}", any::<u64>(), any::<u64>(), any::<u64>(), ".{0,9}")
            .prop_map(|(index, previous, timestamp, data, difficulty, interval_seconds, nonce, address)| {
                Block {
                    index,
                    previous_hash: BlockHash(previous),
                    timestamp,
                    data,
                    difficulty,
                    interval_seconds,
                    nonce,
                    address,
                    hash: BlockHash::NONE,
                }
                .sealed()
            })
    }

    /// One field of the block, and only that, made different.
    fn mutated(block: &Block, field: u8) -> Block {
        let mut other = block.clone();
        match field {
            0 => other.index ^= 1,
            1 => other.previous_hash.0[31] ^= 1,
            2 => other.timestamp ^= 1,
            3 => other.data.push('x'),
            4 => other.difficulty ^= 1,
            5 => other.interval_seconds ^= 1,
            6 => other.nonce ^= 1,
            7 => other.address.push('x'),
            _ => other.hash.0[0] ^= 1,
        }
        other
    }

    proptest! {
        #[test]
        fn json_and_back_is_the_same_block(block in block()) {
            let json = serde_json::to_string(&block).unwrap();
            prop_assert_eq!(serde_json::from_str::<Block>(&json).unwrap(), block);
        }

        #[test]
        fn no_field_can_change_without_the_hash_telling(block in block(), field in 0u8..9) {
            let other = mutated(&block, field);
            prop_assert_ne!(other.digest(), other.hash);
        }

        #[test]
        fn bytes_cannot_wander_from_one_text_to_the_next(block in block(), cut in 0usize..30) {
            let both = format!("{}{}", block.data, block.address);
            let cut = (0..=both.len()).rfind(|at| *at <= cut && both.is_char_boundary(*at)).unwrap();
            let other = Block { data: both[..cut].to_owned(), address: both[cut..].to_owned(), ..block.clone() };
            prop_assert_eq!(other.digest() == block.hash, other.data == block.data);
        }

        #[test]
        fn a_hash_proves_what_two_to_the_256_divided_by_it_allows(bytes in any::<[u8; 32]>(), zeros in 0usize..8, difficulty in 1u64..) {
            let mut bytes = bytes;
            bytes[..zeros].fill(0);
            let hash = BlockHash(bytes);
            // The same question asked by long division, byte by byte: is the hash at most (2^256 - 1) / difficulty?
            let mut remainder = 0u128;
            let target: Vec<u8> = (0..32).map(|_| {
                let dividend = remainder << 8 | 0xff;
                remainder = dividend % u128::from(difficulty);
                (dividend / u128::from(difficulty)) as u8
            }).collect();
            prop_assert_eq!(hash.proves(difficulty), bytes.as_slice() <= target.as_slice());
        }
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let hash = BlockHash([0xab; 32]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse::<BlockHash>(), Err(NotAHash));
        assert_eq!("0".parse(), Ok(BlockHash::NONE));
        assert_eq!("0".repeat(64).parse::<BlockHash>(), Err(NotAHash));
        assert_eq!("abc".parse::<BlockHash>(), Err(NotAHash));
    }
}
