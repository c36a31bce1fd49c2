//! What stays when a node goes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::world::{Running, eventually, kept_in, miner, of_chain, quiet, request, with_peers};

/// Not a test of its own: what the next one runs as a process that it can kill.
#[tokio::test]
#[ignore = "runs for ever; started by a_killed_node_keeps_its_chain"]
async fn a_process_that_mines() {
    let directory = std::env::var("TOYBLC_TEST_DIRECTORY").expect("started by another test");
    let node = Running::start(kept_in(miner(), Path::new(&directory)));
    loop {
        let height = node.height().await;
        // A line of its own, wherever the test harness left the cursor.
        #[expect(clippy::print_stdout, reason = "how the parent hears of it")]
        {
            println!("\nheight {height} {}", node.hash(height).await.unwrap());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts a node, waits until its chain has `height` blocks, and kills it. The last tip it told of.
fn run_and_kill(directory: &Path, height: u64) -> (u64, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "restart::a_process_that_mines", "--ignored", "--nocapture"]);
    command.env("TOYBLC_TEST_DIRECTORY", directory).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Killed(command.spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = lines.filter_map(|line| {
        let (height, hash) = line.strip_prefix("height ")?.split_once(' ')?;
        Some((height.parse().unwrap(), hash.to_owned()))
    });
    told.find(|(told, _)| *told >= height).unwrap()
}

#[tokio::test]
async fn a_killed_node_keeps_its_chain() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let (height, hash) = tokio::task::spawn_blocking(move || {
        run_and_kill(&path, 2);
        run_and_kill(&path, 4)
    })
    .await
    .unwrap();
    let node = Running::start(kept_in(quiet(), directory.path()));
    assert!(node.height().await >= height);
    assert_eq!(node.hash(height).await, Some(hash));
}

#[tokio::test]
async fn a_stopped_node_goes_on_with_its_chain_and_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let other = Running::start(miner());
    let node = Running::start(with_peers(kept_in(quiet(), directory.path()), &[other.p2p]));
    eventually("there are blocks", async || node.height().await >= 2).await;
    let (height, tip) = (node.height().await, node.hash(1).await);
    node.stop().await;
    eventually("the other is ahead", async || other.height().await >= height + 2).await;
    let node = Running::start(with_peers(kept_in(quiet(), directory.path()), &[other.p2p]));
    assert!(node.height().await >= height);
    assert_eq!(node.hash(1).await, tip);
    eventually("it caught up", async || node.height().await >= height + 2).await;
}

/// A Miner that is told of another Chain keeps its data directory. It must not carry the one's history into the other.
#[tokio::test]
async fn a_node_that_moves_to_another_chain_starts_clean_and_finds_the_first_again() {
    let directory = tempfile::tempdir().unwrap();
    let start = |chain: &str| Running::start(of_chain(kept_in(quiet(), directory.path()), chain));
    let post = async |node: &Running| {
        let body = serde_json::json!({"data": "a block"});
        node.ask(request(axum::http::Method::POST, "/v1/blocks", Some(body))).await;
        node.tip().await
    };
    for chain in ["", "a", "b"] {
        let node = start(chain);
        assert_eq!(node.height().await, 0, "{chain:?} begins with nothing of another");
        let tip = post(&node).await;
        node.stop().await;
        let node = start(chain);
        assert_eq!(node.tip().await, tip, "{chain:?} was kept");
        post(&node).await;
        node.stop().await;
    }
    for chain in ["a", "", "b"] {
        let node = start(chain);
        assert_eq!(node.height().await, 2, "{chain:?} is still there");
        node.stop().await;
    }
}
