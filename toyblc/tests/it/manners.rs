//! What nodes do about peers without manners.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use onex_toyblc::block::Block;
use onex_toyblc::ledger::{Ledger, Place};
use onex_toyblc::peers::message::{BlocksAfter, Hello, Message, Tip};
use onex_toyblc::rules::Rules;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::world::{Running, child_of, eventually, first_block, grow, kept_in, miner, now, of_chain, quiet, request};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(node: &Running) -> Socket {
    connect_async(format!("ws://{}/any/path", node.p2p)).await.unwrap().0
}

async fn say(socket: &mut Socket, text: String) {
    socket.send(Frame::Text(text.into())).await.unwrap();
}

/// The next message that is of interest to `pick`; `None` when the node hangs up before.
async fn hear_or_closed<T>(socket: &mut Socket, pick: impl Fn(Message) -> Option<T>) -> Option<T> {
    let hearing = async {
        loop {
            match socket.next().await {
                Some(Ok(Frame::Text(text))) => {
                    if let Some(picked) = pick(Message::decode(&text).unwrap()) {
                        return Some(picked);
                    }
                }
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    };
    timeout(Duration::from_secs(60), hearing).await.unwrap()
}

/// The next message that is of interest to `pick`.
async fn hear<T>(socket: &mut Socket, pick: impl Fn(Message) -> Option<T>) -> T {
    hear_or_closed(socket, pick).await.expect("the node hung up")
}

async fn is_closed(socket: &mut Socket) -> bool {
    let closing = async { while let Some(Ok(_)) = socket.next().await {} };
    timeout(Duration::from_secs(60), closing).await.is_ok()
}

fn hello(message: Message) -> Option<Hello> {
    if let Message::Hello(hello) = message { Some(hello) } else { None }
}

fn question(message: Message) -> Option<Vec<Place>> {
    if let Message::QueryAfter(places) = message { Some(places) } else { None }
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
async fn an_address_where_another_chain_lives_is_forgotten() {
    let (node, stranger) = (Running::start(of_chain(quiet(), "ours")), Running::start(of_chain(quiet(), "theirs")));
    let mut gossip = connect(&node).await;
    say(&mut gossip, Message::Peers(vec![stranger.p2p.to_string()]).encode()).await;
    let heard = async || stranger.metric("messages_received_total").await;
    eventually("it is tried", async || heard().await > 0).await;
    let once = heard().await;
    // Longer than a round of looking for peers.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(heard().await, once, "it is not tried again");
}

/// After ten seconds it is asked again, and then answers both questions.
#[tokio::test]
async fn a_slow_peer_is_not_taken_for_one_that_answers_unasked() {
    let directory = tempfile::tempdir().unwrap();
    grow(directory.path(), 3, "slow", now() - 60);
    let (ledger, _) = Ledger::open(Rules::default(), Some(directory.path())).unwrap();
    let node = Running::start(quiet());
    let mut socket = teach(&node, &ledger, 0).await;
    let newest = Message::Blocks(vec![(*ledger.tip().block).clone()]).encode();
    for _ in 0..2 {
        let asked = async {
            while timeout(Duration::from_millis(500), hear(&mut socket, question)).await.is_err() {
                say(&mut socket, newest.clone()).await;
            }
        };
        timeout(Duration::from_secs(60), asked).await.unwrap();
    }
    let blocks: Vec<_> = ledger.read(1, 3, usize::MAX).unwrap().iter().map(|block| (**block).clone()).collect();
    for _ in 0..2 {
        let answer = BlocksAfter { tip: claim(&ledger), blocks: blocks.clone() };
        say(&mut socket, Message::BlocksAfter(answer).encode()).await;
    }
    eventually("it has the blocks", async || node.height().await == 3).await;
    say(&mut socket, Message::QueryPeers.encode()).await;
    hear(&mut socket, |message| matches!(message, Message::Peers(_)).then_some(())).await;
    assert_eq!(node.metric("peers_banned_total").await, 0);
}

/// What a branch brought into memory goes when the peer that began it is banned in the middle of it.
#[tokio::test]
async fn a_branch_that_ends_in_a_bad_block_does_not_stay_in_memory() {
    let (long, short) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    grow(long.path(), 2_500, "long", now() - 60);
    grow(short.path(), 10, "short", now() - 60);
    let node = Running::start(kept_in(quiet(), long.path()));
    let (ledger, _) = Ledger::open(Rules::default(), Some(short.path())).unwrap();
    let branch: Vec<_> = ledger.read(1, 10, usize::MAX).unwrap().iter().map(|block| (**block).clone()).collect();
    let bad = Block { data: "bad".to_owned(), ..child_of(&branch[9]) };
    let mut socket = connect(&node).await;
    let tip = boast(&mut socket).await;
    for blocks in [branch, vec![bad]] {
        hear(&mut socket, question).await;
        say(&mut socket, Message::BlocksAfter(BlocksAfter { tip, blocks }).encode()).await;
    }
    assert!(is_closed(&mut socket).await);
    eventually("it is banned", async || node.metric("peers_banned_total").await == 1).await;
    assert!(node.metric("blocks_in_memory").await > 2_500);
    let body = serde_json::json!({"data": "the next"});
    node.ask(request(axum::http::Method::POST, "/v1/blocks", Some(body))).await;
    assert_eq!(node.height().await, 2_501);
    let held = node.metric("blocks_in_memory").await;
    assert!(held < 1_200, "{held} blocks in memory");
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
    let tip = boast(&mut socket).await;
    for number in 0..3 {
        hear(&mut socket, question).await;
        say(&mut socket, Message::BlocksAfter(BlocksAfter { tip, blocks: Vec::new() }).encode()).await;
        // Another block without a parent is another reason to ask.
        let orphan = child_of(&first_block(&format!("missing {number}")));
        let _ = socket.send(Frame::Text(Message::Blocks(vec![orphan]).encode().into())).await;
    }
    assert!(is_closed(&mut socket).await);
}

/// Says hello with more work than there is; the tip it claims.
async fn boast(socket: &mut Socket) -> Tip {
    let mut hello = hear(socket, hello).await;
    hello.node_id = "boaster".to_owned();
    hello.tip.work = u128::MAX;
    say(socket, Message::Hello(hello.clone()).encode()).await;
    hello.tip
}

/// Blocks that the node has already lead nowhere, however often their order changes.
#[tokio::test]
async fn a_peer_that_answers_with_known_blocks_in_turn_is_hung_up_on() {
    let directory = tempfile::tempdir().unwrap();
    grow(directory.path(), 2, "known", now() - 60);
    let known = Ledger::open(Rules::default(), Some(directory.path())).unwrap().0.read(1, 2, usize::MAX).unwrap();
    let node = Running::start(kept_in(quiet(), directory.path()));
    let mut socket = connect(&node).await;
    let tip = boast(&mut socket).await;
    for turn in 0..20 {
        let asked = hear_or_closed(&mut socket, question).await;
        if asked.is_none() {
            // Two steps upwards, then three doubts.
            assert!(turn <= 5, "hung up on after {turn} answers");
            return;
        }
        let blocks = vec![(*known[turn % 2]).clone()];
        say(&mut socket, Message::BlocksAfter(BlocksAfter { tip, blocks }).encode()).await;
        let orphan = child_of(&first_block(&format!("missing {turn}")));
        let _ = socket.send(Frame::Text(Message::Blocks(vec![orphan]).encode().into())).await;
    }
    panic!("the node asks for ever");
}

/// Each such question reads up to half a megabyte from the disk.
#[tokio::test]
async fn a_peer_that_asks_for_many_blocks_again_and_again_is_made_to_wait() {
    let node = Running::start(quiet());
    for question in [Message::QueryAll.encode(), Message::QueryAfter(Vec::new()).encode()] {
        let mut socket = connect(&node).await;
        let began = std::time::Instant::now();
        for _ in 0..55 {
            say(&mut socket, question.clone()).await;
        }
        for _ in 0..55 {
            let of_interest = |message| matches!(message, Message::Blocks(_) | Message::BlocksAfter(_)).then_some(());
            hear(&mut socket, of_interest).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_second_hello_ends_the_conversation() {
    let node = Running::start(quiet());
    let mut socket = connect(&node).await;
    let mut hello = hear(&mut socket, hello).await;
    hello.node_id = "forgetful".to_owned();
    for _ in 0..2 {
        say(&mut socket, Message::Hello(hello.clone()).encode()).await;
    }
    assert!(is_closed(&mut socket).await);
    assert_eq!(node.metric("peers_banned_total").await, 1);
}

/// Ten seconds pass for each question that is not answered.
#[tokio::test]
async fn a_peer_that_lets_a_miner_wait_for_blocks_neither_stops_it_nor_stays() {
    let node = Running::start(miner());
    let mut socket = connect(&node).await;
    boast(&mut socket).await;
    let orphans = async {
        for number in 0.. {
            let orphan = child_of(&first_block(&format!("missing {number}")));
            let text = Message::Blocks(vec![orphan]).encode();
            if socket.send(Frame::Text(text.into())).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(Duration::from_secs(60), orphans).await.expect("it is hung up on after three questions");
    assert!(node.height().await >= 3);
}

fn claim(ledger: &Ledger) -> Tip {
    let tip = ledger.tip();
    Tip { height: tip.block.index, hash: tip.block.hash, work: tip.work }
}

/// Answers a node's questions from a chain, as often as said; says hello first, with the chain's tip.
async fn teach(node: &Running, ledger: &Ledger, answers: usize) -> Socket {
    let mut socket = connect(node).await;
    let mut hello = hear(&mut socket, hello).await;
    let tip = claim(ledger);
    (hello.node_id, hello.tip) = (format!("teacher of {answers}"), tip);
    say(&mut socket, Message::Hello(hello).encode()).await;
    for _ in 0..answers {
        let places = hear(&mut socket, question).await;
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
