//! The node: its parts, and how they run together.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::block::{Block, BlockHash};
use crate::chain::{Outcome, Placed};
use crate::ledger::{self, Ledger};
use crate::metrics::{Counters, Gauges};
use crate::peers::message::{self, Tip};
use crate::peers::table::{Direction, PeerId, Table};
use crate::peers::{self, PeerAddress};
use crate::rules::{Rejection, Rules};
use crate::settings::Settings;
use crate::{http, mine, store};

/// How often appended blocks are forced to the disk.
const SYNC: Duration = Duration::from_secs(1);

/// How long connections may take to close when the node stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// How many blocks may be asked for by `POST` at once; one is mined at a time.
const MAX_REQUESTS: usize = 16;

/// A blockchain node that has its chain and its sockets, and does not run yet.
pub struct Node {
    core: Arc<Core>,
    p2p: TcpListener,
    http: TcpListener,
    http_addr: SocketAddr,
}

impl Node {
    /// Reads the chain and takes the two addresses. Says what cannot be had.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let rules = Rules::default();
        let (ledger, cut) = Ledger::open(rules, settings.chain_dir().as_deref()).context("opening the chain")?;
        if let Some(cut) = cut {
            let path = cut.path.display();
            tracing::warn!(%path, cut.offset, cut.bytes, "the chain's file had a torn end, which was cut and kept as .cut");
        }
        for other in settings.other_chain_dirs() {
            let (path, chain) = (other.display(), &settings.chain_id);
            tracing::warn!(%path, chain, "another chain is kept here; it stays as it is and is not used");
        }
        let p2p = bind(settings.p2p_addr).context("listening for peers")?;
        let http = bind(settings.http_addr).context("listening for HTTP")?;
        let http_addr = http.local_addr().context("listening for HTTP")?;
        let p2p_addr = p2p.local_addr().context("listening for peers")?;
        let core = Arc::new(Core::new(settings, rules, ledger, p2p_addr));
        Ok(Self { core, p2p, http, http_addr })
    }

    /// The HTTP API, which also works without a socket.
    pub fn router(&self) -> axum::Router {
        http::router(Arc::clone(&self.core))
    }

    /// Where peers connect; a port given as 0 is known here.
    pub fn p2p_addr(&self) -> SocketAddr {
        self.core.p2p_addr
    }

    /// Where the HTTP API is; a port given as 0 is known here.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The newest block, now and whenever it changes.
    pub fn tips(&self) -> watch::Receiver<Placed> {
        self.core.tips.subscribe()
    }

    /// Runs until `shutdown`, or until the chain cannot be kept. All that was accepted is on the disk at the end.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let core = self.core;
        tracing::info!(
            node = core.id, p2p = %core.p2p_addr, http = %self.http_addr, height = core.tip().block.index,
            miner = core.settings.miner.is_some(), "the node is running"
        );
        if !self.http_addr.ip().is_loopback() {
            tracing::info!("the HTTP API can be reached from other machines: choose --accounts of your own");
        }
        let listener = tokio::net::TcpListener::from_std(self.http)?;
        core.tasks.spawn(http::serve(http::router(Arc::clone(&core)), listener, core.stop.clone()));
        core.tasks.spawn(peers::welcome(Arc::clone(&core), tokio::net::TcpListener::from_std(self.p2p)?));
        core.tasks.spawn(peers::look_around(Arc::clone(&core)));
        core.tasks.spawn(keep_house(Arc::clone(&core)));
        for address in &core.settings.peers {
            core.add_peer(address.clone());
        }
        if let Some(miner) = core.settings.miner {
            core.tasks.spawn(mine::mine(Arc::clone(&core), miner));
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = core.stop.cancelled() => {}
        }
        core.stop.cancel();
        core.tasks.close();
        if timeout(FAREWELL, core.tasks.wait()).await.is_err() {
            tracing::debug!("some connections did not end in time and are cut");
        }
        core.sync().await;
        match core.failure.lock().take() {
            Some(error) => Err(error).context("the chain cannot be kept"),
            None => Ok(()),
        }
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("the address {address} cannot be used"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What all parts of a running node share.
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    /// Names this run of the node; peers recognise by it who they already know, and a node itself.
    pub(crate) id: String,
    pub(crate) p2p_addr: SocketAddr,
    pub(crate) peers: Table,
    pub(crate) counters: Counters,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Places for blocks mined on request, and the one that is being mined.
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) workbench: Arc<tokio::sync::Mutex<()>>,
    /// Searches through the whole file: one at a time.
    pub(crate) lookups: Arc<Semaphore>,
    ledger: Mutex<Ledger>,
    tips: watch::Sender<Placed>,
    hash_rate: AtomicU64,
    failure: Mutex<Option<store::Error>>,
}

/// What became of blocks that were offered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many are new and have their place in the tree.
    pub(crate) placed: usize,
    /// How many wait for parents that we lack.
    pub(crate) orphans: usize,
}

/// Why offered blocks were not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// One breaks a rule.
    Rule(Rejection),
    /// The node is stopping because its chain cannot be kept.
    Broken,
}

/// The chain cannot be read; the node is stopping.
#[derive(Debug)]
pub(crate) enum Fault {
    Broken,
}

impl Core {
    fn new(settings: Settings, rules: Rules, ledger: Ledger, p2p_addr: SocketAddr) -> Self {
        Self {
            rules,
            id: hex::encode(rand::random::<[u8; 16]>()),
            p2p_addr,
            peers: Table::default(),
            counters: Counters::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            workbench: Arc::default(),
            lookups: Arc::new(Semaphore::new(1)),
            tips: watch::Sender::new(ledger.tip().clone()),
            ledger: Mutex::new(ledger),
            hash_rate: AtomicU64::new(0),
            failure: Mutex::new(None),
            settings,
        }
    }

    /// The newest block.
    pub(crate) fn tip(&self) -> Placed {
        self.tips.borrow().clone()
    }

    /// The newest block, now and whenever it changes.
    pub(crate) fn tips(&self) -> watch::Receiver<Placed> {
        self.tips.subscribe()
    }

    /// Looks something up in the chain.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Ledger) -> Result<T, store::Error>) -> Result<T, Fault> {
        look(&self.ledger.lock()).map_err(|error| {
            self.fail(error);
            Fault::Broken
        })
    }

    /// Hands blocks, in order of their index, to the chain, and tells all peers but `from` when there is a new tip.
    ///
    /// With `deep`, a branch may also leave the main chain below what is in memory.
    pub(crate) fn offer(&self, blocks: Vec<Block>, from: Option<PeerId>, deep: bool) -> Result<Taken, Refused> {
        let before = self.tip();
        let result = self.insert(blocks, deep);
        let tip = self.ledger.lock().tip().clone();
        if tip.work > before.work {
            self.announce(tip, from);
        }
        result
    }

    fn insert(&self, blocks: Vec<Block>, deep: bool) -> Result<Taken, Refused> {
        let mut ledger = self.ledger.lock();
        let mut taken = Taken::default();
        for block in blocks {
            let outcome = match take(&mut ledger, block, deep) {
                // Our clock may be the wrong one.
                Err(ledger::Error::Rejected(Rejection::Future)) => break,
                Err(ledger::Error::Rejected(rejection)) => {
                    self.counters.rejected.add(1);
                    return Err(Refused::Rule(rejection));
                }
                Err(ledger::Error::Store(error)) => {
                    self.fail(error);
                    return Err(Refused::Broken);
                }
                Ok(outcome) => outcome,
            };
            self.count(&outcome, &mut taken);
        }
        Ok(taken)
    }

    fn count(&self, outcome: &Outcome, taken: &mut Taken) {
        match outcome {
            Outcome::Known => {}
            Outcome::Orphan => taken.orphans += 1,
            Outcome::Side => {
                taken.placed += 1;
                self.counters.accepted.add(1);
            }
            Outcome::Tip(change) => {
                taken.placed += 1;
                self.counters.accepted.add(1);
                if change.left > 0 {
                    self.counters.reorganisations.add(1);
                    self.counters.abandoned.add(change.left);
                }
            }
        }
    }

    /// Tells everybody, here and elsewhere, of a new tip. Of two that come at once the one with less work is not news.
    fn announce(&self, tip: Placed, from: Option<PeerId>) {
        let text = message::encode_blocks(&[&*tip.block]).into();
        let newer = self.tips.send_if_modified(|known| {
            let newer = tip.work > known.work;
            if newer {
                *known = tip;
            }
            newer
        });
        if newer {
            self.peers.broadcast(&text, from);
        }
    }

    /// Stays connected to a peer from now on. `false` when there are too many such.
    pub(crate) fn add_peer(self: &Arc<Self>, address: PeerAddress) -> bool {
        match self.peers.configure(address.clone()) {
            None => false,
            Some(false) => true,
            Some(true) => {
                self.tasks.spawn(peers::keep_connected(Arc::clone(self), address));
                true
            }
        }
    }

    /// Whether a block is part of the tree in memory.
    pub(crate) fn holds(&self, hash: &BlockHash) -> bool {
        self.ledger.lock().chain().get(hash).is_some()
    }

    /// Lets go of what a deep synchronisation brought into memory, unless a peer is just answering.
    pub(crate) fn settle(&self) {
        if !self.peers.asking(Instant::now()) {
            self.ledger.lock().shallow();
        }
    }

    /// What the node can say about itself now.
    pub(crate) fn gauges(&self) -> Gauges {
        let (orphans, held) = {
            let ledger = self.ledger.lock();
            (ledger.chain().orphans(), ledger.chain().held())
        };
        let Placed { block, work } = self.tip();
        Gauges {
            height: block.index,
            work,
            difficulty: block.difficulty,
            timestamp: block.timestamp,
            inbound: self.peers.count(Direction::Inbound),
            outbound: self.peers.count(Direction::Outbound),
            orphans,
            held,
            hash_rate: self.hash_rate.load(Ordering::Relaxed),
        }
    }

    /// Returns when all that was accepted so far is on the disk.
    pub(crate) async fn sync(&self) {
        let Some(sync) = self.ledger.lock().sync() else { return };
        let done = tokio::task::spawn_blocking(|| sync.run()).await;
        if let Ok(Err(error)) = done {
            self.fail(error);
        }
    }

    /// Ends the node: a node that cannot keep its chain must not go on as if it could.
    fn fail(&self, error: store::Error) {
        self.failure.lock().get_or_insert(error);
        self.stop.cancel();
    }
}

/// Inserts a block; with `deep` also one whose parent is no longer in memory.
fn take(ledger: &mut Ledger, block: Block, deep: bool) -> Result<Outcome, ledger::Error> {
    let now = now();
    if deep && ledger.deepen(&block, now)? {
        tracing::info!(index = block.index, "a heavier branch leaves our chain far below its tip; taking it in");
    }
    ledger.insert(block, now)
}

/// The small things that must be done again and again.
async fn keep_house(core: Arc<Core>) {
    let mut ticks = interval(SYNC);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hashes = 0;
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        core.sync().await;
        let all = core.counters.hashes.get();
        // A mean that forgets half in about five seconds: miners pause between blocks.
        let rate = (core.hash_rate.load(Ordering::Relaxed) * 7 + (all - hashes)) / 8;
        core.hash_rate.store(rate, Ordering::Relaxed);
        hashes = all;
    }
}

impl Placed {
    /// This block as the end of a chain, as it is told to others.
    pub(crate) fn claim(&self) -> Tip {
        Tip { height: self.block.index, hash: self.block.hash, work: self.work }
    }
}

/// The time since 1970.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    since_epoch().as_secs() as i64
}
