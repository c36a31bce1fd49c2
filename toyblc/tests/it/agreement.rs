//! Nodes come to have one chain.

use axum::http::Method;
use onex_toyblc::{Miner, Settings};
use serde_json::{Value, json};

use crate::world::{
    Running, agree, eventually, grow, kept_in, miner, now, of_chain, own_address, quiet, request, with_peers,
};

#[tokio::test]
async fn eight_nodes_around_one_agree_on_a_growing_chain() {
    let genesis = Running::start(quiet());
    let miners: Vec<_> = (0..7).map(|_| Running::start(with_peers(miner(), &[genesis.p2p]))).collect();
    let mut nodes: Vec<_> = miners.iter().collect();
    nodes.push(&genesis);
    agree(&nodes, 4).await;
    agree(&nodes, 8).await;
    assert_eq!(genesis.metric("blocks_mined_total").await, 0);
}

/// The size that a Chain is meant for. All in one process, so connections are fewer than nodes would open by themselves:
/// both ends of each are files of ours.
#[tokio::test]
async fn fifty_nodes_keep_one_chain_and_its_interval() {
    const BLOCKS: u64 = 20;
    let genesis = Running::start(quiet());
    let settings = Settings {
        miner: Some(Miner { hashes_per_second: 40 }),
        max_outbound_peers: 2,
        ..with_peers(miner(), &[genesis.p2p])
    };
    let mut nodes: Vec<_> = (1..50).map(|_| Running::start(settings.clone())).collect();
    nodes.push(genesis);
    let nodes: Vec<_> = nodes.iter().collect();
    // While they find each other, and how hard a block must be for so many.
    agree(&nodes, 8).await;
    let first = nodes[0].height().await;
    agree(&nodes, first + BLOCKS).await;
    let blocks = nodes[0].get(&format!("/v1/blocks?from={first}&limit={}", BLOCKS + 1)).await;
    let blocks = blocks.as_array().unwrap();
    let seconds = |block: &Value| block["timestamp"].as_f64().unwrap();
    let mean = (seconds(&blocks[BLOCKS as usize]) - seconds(&blocks[0])) / BLOCKS as f64;
    assert!((0.5..=2.0).contains(&mean), "a block every {mean} s");
    for index in [1, first / 2, first, first + BLOCKS / 2] {
        agree(&nodes, index).await;
    }
    let mut mined = 0;
    for node in &nodes {
        mined += u64::from(node.metric("blocks_mined_total").await > 0);
    }
    assert!(mined > 5, "only {mined} of them found any block");
}

#[tokio::test]
async fn the_others_go_on_when_the_node_they_were_told_of_is_gone() {
    let genesis = Running::start(quiet());
    let miners: Vec<_> = (0..3).map(|_| Running::start(with_peers(miner(), &[genesis.p2p]))).collect();
    eventually("the miners know each other", async || {
        for miner in &miners {
            if miner.peers().await < 3 {
                return false;
            }
        }
        true
    })
    .await;
    genesis.stop().await;
    let height = miners[0].height().await;
    let nodes: Vec<_> = miners.iter().collect();
    agree(&nodes, height + 4).await;
}

#[tokio::test]
async fn a_late_joiner_gets_a_long_chain() {
    let directory = tempfile::tempdir().unwrap();
    grow(directory.path(), 2_500, "long", now() - 60);
    let old = Running::start(kept_in(quiet(), directory.path()));
    let joiner = Running::start(with_peers(quiet(), &[old.p2p]));
    agree(&[&old, &joiner], 2_500).await;
    assert_eq!(joiner.hash(7).await, old.hash(7).await);
    let held = joiner.metric("blocks_in_memory").await;
    assert!(held < 1_200, "{held} blocks in memory");
}

#[tokio::test]
async fn two_long_branches_become_one_when_their_nodes_meet() {
    let (light, heavy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    grow(light.path(), 1_250, "light", now() - 60);
    grow(heavy.path(), 1_300, "heavy", now() - 60);
    let light = Running::start(kept_in(quiet(), light.path()));
    let heavy = Running::start(with_peers(kept_in(quiet(), heavy.path()), &[light.p2p]));
    let tip = heavy.tip().await;
    eventually("the lighter branch was left", async || light.tip().await == tip).await;
    assert_eq!(light.metric("reorganisations_total").await, 1);
    assert_eq!(light.metric("blocks_abandoned_total").await, 1_250);
    assert_eq!(light.hash(1).await, heavy.hash(1).await);
}

#[tokio::test]
async fn a_block_made_on_request_reaches_everybody() {
    let hub = Running::start(quiet());
    let (one, other) =
        (Running::start(with_peers(quiet(), &[hub.p2p])), Running::start(with_peers(quiet(), &[hub.p2p])));
    eventually("both are connected", async || hub.peers().await == 2).await;
    let (_, block) = one.ask(request(Method::POST, "/v1/blocks", Some(json!({"data": "hello"})))).await;
    assert_eq!(block["data"], "hello");
    agree(&[&one, &hub, &other], 1).await;
    assert_eq!(other.get("/v1/blocks/1").await, block);
}

/// The genesis of a Chain is not told its interval, and has two hours by default.
#[tokio::test]
async fn posting_to_a_node_that_does_not_mine_leaves_the_miners_their_pace() {
    let genesis = Running::start(Settings { interval_seconds: 7_200, ..quiet() });
    let post = async || genesis.ask(request(Method::POST, "/v1/blocks", Some(json!({"data": "posted"})))).await.1;
    assert_eq!(post().await["intervalSeconds"], 7_200, "the first block has nobody's interval to keep");
    let miner = Running::start(with_peers(miner(), &[genesis.p2p]));
    eventually("the miner is back at a second", async || genesis.get("/v1/height").await["intervalSeconds"] == 1).await;
    for _ in 0..10 {
        assert_eq!(post().await["intervalSeconds"], 1);
    }
    let height = genesis.height().await;
    agree(&[&genesis, &miner], height + 3).await;
}

#[tokio::test]
async fn a_node_told_of_itself_stays_alone_and_mines() {
    // Listening everywhere and dialling localhost, as OneX's defaults do: only the conversation tells who is there.
    let start = || {
        let free = std::net::TcpListener::bind((own_address(), 0)).unwrap().local_addr().unwrap();
        let everywhere = std::net::SocketAddr::from(([0, 0, 0, 0], free.port()));
        Running::try_start(Settings { p2p_addr: everywhere, ..with_peers(miner(), &[free]) })
    };
    // Another test may have the port on an address of its own: then another port.
    let node = (0..50).find_map(|_| start().ok()).expect("there is a port that is free everywhere");
    eventually("it mines", async || node.height().await >= 2).await;
    eventually("it is not its own peer", async || node.peers().await == 0).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(node.peers().await, 0);
}

/// Every chain has the same genesis block, so without ids the heavier of two would replace the other.
#[tokio::test]
async fn two_chains_whose_nodes_meet_stay_two_chains() {
    let (light, heavy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    grow(&light.path().join("chains/light"), 3, "light", now() - 60);
    grow(&heavy.path().join("chains/heavy"), 9, "heavy", now() - 60);
    let light = Running::start(of_chain(kept_in(quiet(), light.path()), "light"));
    let heavy = Running::start(of_chain(with_peers(kept_in(quiet(), heavy.path()), &[light.p2p]), "heavy"));
    eventually("they have met", async || light.metric("messages_received_total").await > 0).await;
    eventually("they have parted", async || light.peers().await == 0 && heavy.peers().await == 0).await;
    assert_eq!((light.height().await, heavy.height().await), (3, 9));
    for node in [&light, &heavy] {
        assert_eq!(node.metric("peers_banned_total").await, 0);
        assert_eq!(node.metric("reorganisations_total").await, 0);
    }
}
