//! Nodes to ask, and chains to start them with.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use onex_toyblc::block::Block;
use onex_toyblc::ledger::Ledger;
use onex_toyblc::mine::{Search, draft};
use onex_toyblc::rules::Rules;
use onex_toyblc::{Account, Miner, Node, Settings};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Settings of a node that does nothing by itself, on free ports.
pub fn quiet() -> Settings {
    Settings {
        miner: None,
        address: "somebody".to_owned(),
        interval_seconds: 1,
        p2p_addr: "127.0.0.1:0".parse().unwrap(),
        peers: Vec::new(),
        accounts: vec!["toyblc:onex(#)666".parse::<Account>().unwrap()],
        http_addr: "127.0.0.1:0".parse().unwrap(),
        data_dir: None,
        chain_id: String::new(),
        max_inbound_peers: 128,
        max_outbound_peers: 4,
    }
}

/// A loopback address that no other test has, in this process or another, so that nobody takes a port that is given back.
pub fn own_address() -> IpAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(0);
    let number = u32::from(TAKEN.fetch_add(1, Ordering::Relaxed));
    // Above the addresses that Pods get.
    IpAddr::from((0x7f80_0000_u32 | (std::process::id() & 0x7fff) << 8 | number).to_be_bytes())
}

/// Settings of a miner with an interval of one second.
pub fn miner() -> Settings {
    Settings { miner: Some(Miner { hashes_per_second: 2000 }), ..quiet() }
}

/// With these peers.
pub fn with_peers(settings: Settings, peers: &[SocketAddr]) -> Settings {
    Settings { peers: peers.iter().map(|peer| (*peer).into()).collect(), ..settings }
}

/// With its chain kept here.
pub fn kept_in(settings: Settings, directory: &Path) -> Settings {
    Settings { data_dir: Some(PathBuf::from(directory)), ..settings }
}

/// Of the chain with this id.
pub fn of_chain(settings: Settings, id: &str) -> Settings {
    Settings { chain_id: id.to_owned(), ..settings }
}

/// A node that runs until it is stopped or dropped.
pub struct Running {
    pub p2p: SocketAddr,
    pub http: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub fn start(settings: Settings) -> Self {
        Self::try_start(settings).unwrap()
    }

    pub fn try_start(settings: Settings) -> anyhow::Result<Self> {
        let node = Node::new(settings)?;
        let shutdown = CancellationToken::new();
        let (p2p, http, router) = (node.p2p_addr(), node.http_addr(), node.router());
        let task = tokio::spawn(node.run(shutdown.clone()));
        Ok(Self { p2p, http, router, shutdown, task })
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }

    /// Asks the node; the answer's status and JSON.
    pub async fn ask(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
    }

    pub async fn raw(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(request(Method::GET, path, None)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    pub async fn height(&self) -> u64 {
        self.get("/v1/height").await["height"].as_u64().unwrap()
    }

    /// The hash of the newest block.
    pub async fn tip(&self) -> String {
        self.get("/v1/height").await["hash"].as_str().unwrap().to_owned()
    }

    /// The hash of the block with this index, if the chain is so long.
    pub async fn hash(&self, index: u64) -> Option<String> {
        let (status, body) = self.ask(request(Method::GET, &format!("/v1/blocks/{index}"), None)).await;
        (status == StatusCode::OK).then(|| body["hash"].as_str().unwrap().to_owned())
    }

    pub async fn peers(&self) -> usize {
        self.get("/v1/peers").await.as_array().unwrap().len()
    }

    pub async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await;
        let line = text
            .as_str()
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix(&format!("toyblc_{name} ")))
            .map(str::to_owned);
        line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A request by somebody with an account.
pub fn request(method: Method, path: &str, body: Option<Value>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("authorization", "Basic dG95YmxjOm9uZXgoIyk2NjY=");
    match body {
        Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap(),
        None => request.body(Body::empty()).unwrap(),
    }
}

/// Waits until something holds; says what did not if it takes too long.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes every node have the same block with this index.
pub async fn agree(nodes: &[&Running], index: u64) {
    eventually(&format!("all nodes have the same block {index}"), async || {
        let mut hashes = Vec::new();
        for node in nodes {
            hashes.push(node.hash(index).await);
        }
        hashes[0].is_some() && hashes.iter().all(|hash| *hash == hashes[0])
    })
    .await;
}

/// Appends blocks, three seconds apart, so that their difficulty stays the least and the last is from a minute ago.
pub fn grow(directory: &Path, blocks: u64, data: &str, until: i64) {
    let rules = Rules::default();
    let (mut ledger, _) = Ledger::open(rules, Some(directory)).unwrap();
    for number in 1..=blocks {
        let timestamp = until - 3 * (blocks - number) as i64;
        let draft = draft(&rules, &ledger.tip().block.clone(), timestamp, 1, data.to_owned(), "before".to_owned());
        ledger.insert(Search::new(draft).run(0, u64::MAX).unwrap(), now()).unwrap();
    }
}

/// A block that could follow the genesis block.
pub fn first_block(data: &str) -> Block {
    let rules = Rules::default();
    Search::new(draft(&rules, &rules.genesis(), now() - 60, 1, data.to_owned(), "me".to_owned()))
        .run(0, u64::MAX)
        .unwrap()
}

/// A block that could follow that one.
pub fn child_of(parent: &Block) -> Block {
    let child = draft(&Rules::default(), parent, parent.timestamp + 3, 1, parent.data.clone(), "me".to_owned());
    Search::new(child).run(0, u64::MAX).unwrap()
}

pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}
