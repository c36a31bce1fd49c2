//! What nodes do about peers without manners.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use onex_toyblc::block::Block;
use onex_toyblc::ledger::Ledger;
use onex_toyblc::peers::message::{BlocksAfter, Hello, Message, Tip};
use onex_toyblc::rules::Rules;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::world::{Running, eventually, first_block, grow, kept_in, now, of_chain, quiet};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(node: &Running) -> Socket {
    connect_async(format!("ws://{}/any/path", node.p2p)).await.unwrap().0
}

async fn say(socket: &mut Socket, text: String) {
    socket.send(Frame::Text(text.into())).await.unwrap();
}

/// The next message that is of interest to `pick`.
async fn hear<T>(socket: &mut Socket, pick: impl Fn(Message) -> Option<T>) -> T {
    let hearing = async {
        loop {
            if let Frame::Text(text) = socket.next().await.unwrap().unwrap()
                && let Some(picked) = pick(Message::decode(&text).unwrap())
            {
                return picked;
            }
        }
    };
    timeout(Duration::from_secs(60), hearing).await.unwrap()
}

async fn is_closed(socket: &mut Socket) -> bool {
    let closing = async { while let Some(Ok(_)) = socket.next().await {} };
    timeout(Duration::from_secs(60), closing).await.is_ok()
}

fn hello(message: Message) -> Option<Hello> {
    if let Message::Hello(hello) = message { Some(hello) } else { None }
}

fn blocks(message: Message) -> Option<Vec<Block>> {
    if let Message::Blocks(blocks) = message { Some(blocks) } else { None }
}

#[tokio::test]
async fn a_node_that_speaks_only_onex_gets_along() {
    let node = Running::start(quiet());
    let mut socket = connect(&node).await;
    say(&mut socket, r#"{"type": 1}"#.to_owned()).await;
    assert_eq!(hear(&mut socket, blocks).await, [Rules::default().genesis()]);
    let block = first_block("from outside");
    say(&mut socket, Message::Blocks(vec![block.clone()]).encode()).await;
    eventually("the block was taken in", async || node.height().await == 1).await;
    say(&mut socket, r#"{"type":0}"#.to_owned()).await;
    assert_eq!(hear(&mut socket, blocks).await, [block]);
}

#[tokio::test]
async fn an_invalid_block_ends_the_conversation_and_changes_nothing() {
    let node = Running::start(quiet());
    let mut socket = connect(&node).await;
    let good = first_block("good");
    let bad = Block { data: "better".to_owned(), ..good };
    say(&mut socket, Message::Blocks(vec![bad]).encode()).await;
    assert!(is_closed(&mut socket).await);
    assert_eq!(node.height().await, 0);
    assert_eq!(node.metric("blocks_rejected_total").await, 1);
    assert_eq!(node.metric("peers_banned_total").await, 1);
}

#[tokio::test]
async fn a_message_that_is_too_long_or_makes_no_sense_ends_the_conversation() {
    let node = Running::start(quiet());
    for text in [
        "x".repeat(2 << 20),
        "{".to_owned(),
        r#"{"type":2,"data":"!"}"#.to_owned(),
        r#"{"type":2,"data":"e30="}"#.to_owned(),
    ] {
        let mut socket = connect(&node).await;
        // It may hang up before all is said.
        let _ = socket.send(Frame::Text(text.into())).await;
        assert!(is_closed(&mut socket).await);
    }
    assert_eq!(node.metric("peers_banned_total").await, 4);
    eventually("nobody is left", async || node.peers().await == 0).await;
}

#[tokio::test]
async fn more_peers_than_allowed_are_turned_away() {
    let node = Running::start(onex_toyblc::Settings { max_inbound_peers: 2, ..quiet() });
    let _first = connect(&node).await;
    let second = connect(&node).await;
    assert!(connect_async(format!("ws://{}", node.p2p)).await.is_err());
    drop(second);
    eventually("a place is free again", async || connect_async(format!("ws://{}", node.p2p)).await.is_ok()).await;
}

#[tokio::test]
async fn a_peer_of_another_chain_is_not_spoken_to() {
    let node = Running::start(quiet());
    let mut socket = connect(&node).await;
    let mut hello = hear(&mut socket, hello).await;
    hello.node_id = "stranger".to_owned();
    hello.genesis = first_block("another beginning").hash;
    say(&mut socket, Message::Hello(hello).encode()).await;
    assert!(is_closed(&mut socket).await);
}

#[tokio::test]
async fn a_peer_with_another_chain_id_is_hung_up_on_and_not_banned() {
    let node = Running::start(of_chain(quiet(), "ours"));
    let introduce = async |chain_id: &str| {
        let mut socket = connect(&node).await;
        let mut hello = hear(&mut socket, hello).await;
        assert_eq!(hello.chain_id, "ours");
        (hello.node_id, hello.chain_id) = (format!("of {chain_id}"), chain_id.to_owned());
        say(&mut socket, Message::Hello(hello).encode()).await;
        say(&mut socket, Message::Blocks(vec![first_block(chain_id)]).encode()).await;
        socket
    };
    assert!(is_closed(&mut introduce("theirs").await).await);
    assert_eq!((node.height().await, node.metric("peers_banned_total").await), (0, 0));
    // Who was not told of an id takes part, as OneX's own nodes do, which say no hello at all.
    for (height, chain_id) in [(1, ""), (1, "ours")] {
        let mut socket = introduce(chain_id).await;
        say(&mut socket, Message::QueryLatest.encode()).await;
        eventually("its block is taken in", async || node.height().await == height).await;
    }
}

#[tokio::test]
async fn an_answer_to_no_question_ends_the_conversation() {
    let node = Running::start(quiet());
    let mut socket = connect(&node).await;
    let hello = hear(&mut socket, hello).await;
    let tip = Tip { work: u128::MAX, ..hello.tip };
    say(&mut socket, Message::BlocksAfter(BlocksAfter { tip, blocks: vec![first_block("unasked")] }).encode()).await;
    assert!(is_closed(&mut socket).await);
    assert_eq!(node.height().await, 0);
}

#[tokio::test]
async fn a_peer_that_claims_more_than_it_has_is_hung_up_on() {
    let node = Running::start(quiet());
    let mut socket = connect(&node).await;
    let mut hello = hear(&mut socket, hello).await;
    hello.node_id = "boaster".to_owned();
    hello.tip.work = u128::MAX;
    let tip = hello.tip;
    for _ in 0..3 {
        say(&mut socket, Message::Hello(hello.clone()).encode()).await;
        hear(&mut socket, |message| matches!(message, Message::QueryAfter(_)).then_some(())).await;
        say(&mut socket, Message::BlocksAfter(BlocksAfter { tip, blocks: Vec::new() }).encode()).await;
    }
    assert!(is_closed(&mut socket).await);
}

/// Answers a node's questions from a chain, as often as said; says hello first, with the chain's tip.
async fn teach(node: &Running, ledger: &Ledger, answers: usize) -> Socket {
    let mut socket = connect(node).await;
    let mut hello = hear(&mut socket, hello).await;
    let tip = ledger.tip();
    hello.node_id = format!("teacher of {answers}");
    hello.tip = Tip { height: tip.block.index, hash: tip.block.hash, work: tip.work };
    let tip = hello.tip;
    say(&mut socket, Message::Hello(hello).encode()).await;
    for _ in 0..answers {
        let places =
            hear(&mut socket, |message| if let Message::QueryAfter(places) = message { Some(places) } else { None })
                .await;
        let blocks = ledger.read(ledger.after(&places).unwrap(), 500, usize::MAX).unwrap();
        let blocks = blocks.iter().map(|block| (**block).clone()).collect();
        say(&mut socket, Message::BlocksAfter(BlocksAfter { tip, blocks }).encode()).await;
    }
    socket
}

#[tokio::test]
async fn a_long_branch_begun_with_one_peer_is_finished_with_another() {
    let (light, heavy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    grow(light.path(), 1_250, "light", now() - 60);
    grow(heavy.path(), 1_300, "heavy", now() - 60);
    let node = Running::start(kept_in(quiet(), light.path()));
    let (ledger, _) = Ledger::open(Rules::default(), Some(heavy.path())).unwrap();
    drop(teach(&node, &ledger, 2).await);
    eventually("most of the branch was taken in", async || node.metric("blocks_accepted_total").await == 1_000).await;
    assert_eq!(node.height().await, 1_250);
    let _socket = teach(&node, &ledger, 3).await;
    eventually("the branch is the chain", async || node.tip().await == ledger.tip().block.hash.to_string()).await;
}
