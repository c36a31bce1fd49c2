//! What nodes say to each other: JSON texts `{"type": n, "data": "<base64 of JSON>"}`.
//!
//! The types 0 to 2 are OneX's. The others are ours, and a node that knows only OneX's gets along without them.

use std::borrow::Borrow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::block::{Block, BlockHash};
use crate::ledger::{MAX_LOCATOR, Place};

/// The longest message that is read or written.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The most blocks in one message.
pub const MAX_BLOCKS: usize = 500;

/// The most addresses in one message.
pub const MAX_ADDRESSES: usize = 32;

/// How much JSON of blocks goes into one message; a third more as base64, which stays below [`MAX_MESSAGE_BYTES`].
const MAX_BLOCKS_BYTES: usize = 512 * 1024;

/// A message, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Type 0: send your newest block (as [`Message::Blocks`]).
    QueryLatest,
    /// Type 1: send all your blocks (as [`Message::Blocks`]); answered with the newest that fit into one message.
    QueryAll,
    /// Type 2: blocks, asked for or not.
    Blocks(Vec<Block>),
    /// Type 3: who I am. The first thing both sides say.
    Hello(Hello),
    /// Type 4: send the blocks after the newest of these places that you have too (as [`Message::BlocksAfter`]).
    QueryAfter(Vec<Place>),
    /// Type 5: the answer to type 4.
    BlocksAfter(BlocksAfter),
    /// Type 6: send addresses of nodes you know (as [`Message::Peers`]).
    QueryPeers,
    /// Type 7: addresses, as `ip:port`.
    Peers(Vec<String>),
    /// A type that a later version may have. Not answered.
    Unknown(u64),
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Chosen at random when the node starts.
    pub node_id: String,
    /// The hash of its genesis block.
    pub genesis: BlockHash,
    /// The id of its chain; empty when it was told none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain_id: String,
    /// Where it listens, as `ip:port`. An unspecified IP means: the one you see.
    pub listen: String,
    /// How far its chain is.
    #[serde(flatten)]
    pub tip: Tip,
}

/// The end of somebody's chain, as they claim it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// The index of the newest block.
    pub height: u64,
    /// Its hash.
    pub hash: BlockHash,
    /// The work of the whole chain, as a decimal text because JSON's numbers end too early.
    #[serde(with = "decimal")]
    pub work: u128,
}

/// The answer to [`Message::QueryAfter`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksAfter {
    /// How far the chain goes of which the blocks are a part.
    pub tip: Tip,
    /// Blocks in order.
    pub blocks: Vec<Block>,
}

/// The text is not a message.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// The text or its data is not the JSON it should be.
    #[error("the message is not what its type demands")]
    Json(#[from] serde_json::Error),
    /// The data is not base64.
    #[error("the message's data is not base64")]
    Base64(#[from] base64::DecodeError),
    /// There is more in it than there may be.
    #[error("the message holds too many items")]
    TooMany,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    r#type: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

impl Message {
    /// The message as it is sent.
    ///
    /// Of blocks, only as many as fit are sent: at least one, at most [`MAX_BLOCKS`].
    pub fn encode(&self) -> String {
        match self {
            Self::QueryLatest => envelope(0, None),
            Self::QueryAll => envelope(1, None),
            Self::Blocks(blocks) => encode_blocks(blocks),
            Self::Hello(hello) => envelope(3, Some(json(hello))),
            Self::QueryAfter(places) => envelope(4, Some(json(places))),
            Self::BlocksAfter(answer) => encode_blocks_after(&answer.tip, &answer.blocks),
            Self::QueryPeers => envelope(6, None),
            Self::Peers(addresses) => envelope(7, Some(json(addresses))),
            Self::Unknown(number) => envelope(*number, None),
        }
    }

    /// Reads a message. Never panics, whatever the text.
    pub fn decode(text: &str) -> Result<Self, Malformed> {
        let envelope: Envelope = serde_json::from_str(text)?;
        let data = BASE64_STANDARD.decode(envelope.data.unwrap_or_default())?;
        Ok(match envelope.r#type {
            0 => Self::QueryLatest,
            1 => Self::QueryAll,
            2 => Self::Blocks(at_most(MAX_BLOCKS, serde_json::from_slice(&data)?)?),
            3 => Self::Hello(serde_json::from_slice(&data)?),
            4 => Self::QueryAfter(at_most(MAX_LOCATOR + 1, serde_json::from_slice(&data)?)?),
            5 => {
                let BlocksAfter { tip, blocks } = serde_json::from_slice(&data)?;
                Self::BlocksAfter(BlocksAfter { tip, blocks: at_most(MAX_BLOCKS, blocks)? })
            }
            6 => Self::QueryPeers,
            7 => Self::Peers(at_most(MAX_ADDRESSES, serde_json::from_slice(&data)?)?),
            other => Self::Unknown(other),
        })
    }
}

/// [`Message::Blocks`] of blocks that are shared.
pub fn encode_blocks<B: Borrow<Block>>(blocks: &[B]) -> String {
    envelope(2, Some(fitting(blocks)))
}

/// [`Message::BlocksAfter`] of blocks that are shared.
pub fn encode_blocks_after<B: Borrow<Block>>(tip: &Tip, blocks: &[B]) -> String {
    let mut data = b"{\"tip\":".to_vec();
    data.extend(json(tip));
    data.extend(b",\"blocks\":");
    data.extend(fitting(blocks));
    data.push(b'}');
    envelope(5, Some(data))
}

/// The first blocks, as many as fit into a message, as a JSON array.
fn fitting<B: Borrow<Block>>(blocks: &[B]) -> Vec<u8> {
    let mut array = vec![b'['];
    for (number, block) in blocks.iter().take(MAX_BLOCKS).enumerate() {
        let block = json(block.borrow());
        if number > 0 && array.len() + block.len() > MAX_BLOCKS_BYTES {
            break;
        }
        if number > 0 {
            array.push(b',');
        }
        array.extend(block);
    }
    array.push(b']');
    array
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("messages are numbers, texts and lists of them")
}

fn envelope(number: u64, data: Option<Vec<u8>>) -> String {
    let envelope = Envelope { r#type: number, data: data.map(|data| BASE64_STANDARD.encode(data)) };
    serde_json::to_string(&envelope).expect("an envelope is a number and a text")
}

fn at_most<T>(limit: usize, items: Vec<T>) -> Result<Vec<T>, Malformed> {
    if items.len() > limit { Err(Malformed::TooMany) } else { Ok(items) }
}

/// Numbers too large for JSON, as decimal texts.
pub mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the number as a text.
    pub fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    /// Reads a number from a text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::Rules;

    fn genesis() -> Block {
        Rules::default().genesis()
    }

    #[test]
    fn messages_survive_the_wire() {
        let hash = genesis().hash;
        let tip = Tip { height: 7, hash, work: u128::MAX };
        let hello =
            Hello { node_id: "me".into(), genesis: hash, chain_id: "a".into(), listen: "0.0.0.0:6001".into(), tip };
        for message in [
            Message::QueryLatest,
            Message::QueryAll,
            Message::Blocks(vec![genesis()]),
            Message::Hello(hello),
            Message::QueryAfter(vec![Place { index: 0, hash }]),
            Message::BlocksAfter(BlocksAfter { tip, blocks: vec![genesis(), genesis()] }),
            Message::QueryPeers,
            Message::Peers(vec!["127.0.0.1:6001".into()]),
            Message::Unknown(99),
        ] {
            assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }
    }

    #[test]
    fn a_hello_without_a_chain_is_understood() {
        let tip = Tip { height: 0, hash: genesis().hash, work: 0 };
        let hello = Hello {
            node_id: "me".into(),
            genesis: genesis().hash,
            chain_id: String::new(),
            listen: "0.0.0.0:6001".into(),
            tip,
        };
        assert!(!String::from_utf8(json(&hello)).unwrap().contains("chainId"));
        assert_eq!(Message::decode(&Message::Hello(hello.clone()).encode()).unwrap(), Message::Hello(hello));
    }

    #[test]
    fn the_queries_of_onex_are_understood_as_it_writes_them() {
        assert_eq!(Message::decode(r#"{"type": 1}"#).unwrap(), Message::QueryAll);
        assert_eq!(Message::decode(r#"{"type":0,"data":null}"#).unwrap(), Message::QueryLatest);
        assert_eq!(Message::QueryAll.encode(), r#"{"type":1}"#);
        let (kind, data) = (r#"{"type":2,"data":"W10="}"#, Message::Blocks(vec![]));
        assert_eq!(Message::decode(kind).unwrap(), data);
    }

    #[test]
    fn no_message_is_longer_than_what_is_read() {
        // Control characters are the worst: JSON makes six bytes of one.
        let large = Block { data: "\u{1}".repeat(crate::block::MAX_DATA_BYTES), ..genesis() };
        let text = encode_blocks(&vec![large; MAX_BLOCKS]);
        assert!(text.len() <= MAX_MESSAGE_BYTES, "{} bytes", text.len());
        assert!(matches!(Message::decode(&text).unwrap(), Message::Blocks(blocks) if !blocks.is_empty()));
        let Message::Blocks(blocks) = Message::decode(&encode_blocks(&vec![genesis(); 2 * MAX_BLOCKS])).unwrap() else {
            panic!()
        };
        assert_eq!(blocks.len(), MAX_BLOCKS);
    }

    #[test]
    fn lists_that_are_too_long_are_refused() {
        let message = Message::Peers(vec!["127.0.0.1:1".into(); MAX_ADDRESSES + 1]);
        assert!(matches!(Message::decode(&message.encode()), Err(Malformed::TooMany)));
    }

    proptest! {
        #[test]
        fn no_text_makes_decoding_panic(number in 0u64..9, data in any::<Vec<u8>>(), text in ".{0,50}") {
            let _ = Message::decode(&text);
            let _ = Message::decode(&envelope(number, Some(data)));
        }
    }
}
