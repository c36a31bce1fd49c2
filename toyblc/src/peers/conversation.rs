//! One connection, from the first word to the last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as Wire, Message as Frame, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::message::{self, BlocksAfter, Hello, MAX_BLOCKS, MAX_MESSAGE_BYTES, Message};
use super::table::{Direction, Introduction, PeerId, QUEUE};
use crate::block::Block;
use crate::ledger::Place;
use crate::node::{Core, Fault, Taken};

/// How often a quiet connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// A connection that says nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a peer may take to accept one message.
const SEND: Duration = Duration::from_secs(10);

/// More messages than this within [`PACE_WINDOW`] are misbehaviour.
const PACE: u32 = 5_000;

/// See [`PACE`].
const PACE_WINDOW: Duration = Duration::from_secs(10);

/// What one question for many blocks costs, which is answered from the disk: as much as a hundred messages. See [`Fare`].
const DEAR: Duration = Duration::from_millis(200);

/// So often a peer may claim a heavier chain and then not deliver it.
const MAX_DOUBTS: u32 = 3;

/// Of how much block text an answer is made.
const ANSWER_BYTES: usize = 512 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    /// The other side closed it, or the network did, or we did for a reason noted elsewhere.
    Closed,
    /// It leads to ourselves.
    Myself,
    /// There is another to the same node.
    Duplicate,
    /// The other side has another chain. No fault of its own: an address may have been theirs before it was ours.
    AnotherChain,
    /// The other side broke the rules; it is banned.
    Misbehaved(String),
    /// Our chain cannot be kept any more; the node is stopping.
    Broken,
}

/// How a WebSocket to a peer is set up: small buffers, because there may be many, and bounded messages.
pub fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(8 * 1024)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// Speaks with a peer until one side has enough.
pub async fn converse(
    core: Arc<Core>,
    socket: WebSocketStream<TcpStream>,
    remote: SocketAddr,
    direction: Direction,
) -> End {
    let (sink, source) = socket.split();
    let (sender, queue) = mpsc::channel(QUEUE);
    let stop = core.stop.child_token();
    let id = core.peers.join(direction, remote, sender.clone(), stop.clone());
    let writing = core.tasks.spawn(write(sink, greeting(&core, direction), queue, stop.clone()));
    let mut conversation = Conversation {
        core,
        id,
        remote,
        sender,
        since: Instant::now(),
        messages: 0,
        fare: Fare { paid: Instant::now() },
        met: false,
        reached: None,
        doubts: 0,
    };
    let end = conversation.listen(source, &stop).await;
    if let End::Misbehaved(how) = &end {
        tracing::info!(%remote, how, "a peer misbehaved and is banned for a while");
        conversation.core.peers.ban(id, Instant::now());
        conversation.core.counters.banned.add(1);
    }
    conversation.core.peers.leave(id);
    conversation.core.settle();
    stop.cancel();
    // A writer that panicked has nothing more to say either.
    let _ = writing.await;
    end
}

/// What is said first: who we are, and the question both sides ask. Who dials shows its newest block at once, as OneX's
/// nodes do.
fn greeting(core: &Core, direction: Direction) -> Vec<String> {
    let tip = core.tip();
    let hello = Hello {
        node_id: core.id.clone(),
        genesis: core.rules.genesis().hash,
        chain_id: core.settings.chain_id.clone(),
        listen: core.p2p_addr.to_string(),
        tip: tip.claim(),
    };
    let mut greeting = vec![Message::Hello(hello).encode(), Message::QueryLatest.encode()];
    if direction == Direction::Outbound {
        greeting.extend([message::encode_blocks(&[&*tip.block]), Message::QueryPeers.encode()]);
    }
    core.counters.messages_sent.add(greeting.len() as u64);
    greeting
}

/// Sends the greeting, then what is queued, and a ping when there is nothing.
///
/// The greeting does not wait in the queue, so that nothing overtakes it: who hears a block knows of which chain it is.
async fn write(
    mut sink: SplitSink<WebSocketStream<TcpStream>, Frame>,
    greeting: Vec<String>,
    mut queue: mpsc::Receiver<Utf8Bytes>,
    stop: CancellationToken,
) {
    let mut ping = interval(PING);
    for text in greeting {
        if !matches!(timeout(SEND, sink.send(Frame::Text(text.into()))).await, Ok(Ok(()))) {
            return stop.cancel();
        }
    }
    loop {
        let frame = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            text = queue.recv() => match text {
                Some(text) => Frame::Text(text),
                None => break,
            },
            _ = ping.tick() => Frame::Ping(Default::default()),
        };
        if !matches!(timeout(SEND, sink.send(frame)).await, Ok(Ok(()))) {
            break;
        }
    }
    stop.cancel();
    // A courtesy; the connection ends in any case.
    let _ = timeout(Duration::from_millis(500), sink.close()).await;
}

/// The pace at which a peer's dear questions are answered: those of [`PACE_WINDOW`] at once, then one every [`DEAR`].
///
/// Who asks more waits. It is not banned, because a node that has much to catch up with asks as fast as it is answered.
struct Fare {
    /// Until when all that was asked is paid for.
    paid: Instant,
}

impl Fare {
    /// How long the question that comes at `now` has to wait.
    fn charge(&mut self, now: Instant) -> Duration {
        self.paid = self.paid.max(now) + DEAR;
        self.paid.saturating_duration_since(now + PACE_WINDOW)
    }
}

struct Conversation {
    core: Arc<Core>,
    id: PeerId,
    remote: SocketAddr,
    sender: mpsc::Sender<Utf8Bytes>,
    /// Since when `messages` are counted.
    since: Instant,
    messages: u32,
    fare: Fare,
    /// Whether it said hello.
    met: bool,
    /// The last block of the peer's branch that we have.
    reached: Option<Place>,
    /// How often it claimed a heavier chain since it last sent something of it.
    doubts: u32,
}

impl Conversation {
    async fn listen(&mut self, mut source: SplitStream<WebSocketStream<TcpStream>>, stop: &CancellationToken) -> End {
        loop {
            let frame = tokio::select! {
                biased;
                () = stop.cancelled() => return End::Closed,
                frame = timeout(SILENCE, source.next()) => frame,
            };
            let done = match frame {
                Err(_) | Ok(None) => Err(End::Closed),
                Ok(Some(Err(error))) => Err(broken(&error)),
                Ok(Some(Ok(Frame::Text(text)))) => self.hear(&text).await,
                Ok(Some(Ok(Frame::Binary(_)))) => {
                    Err(End::Misbehaved("binary messages are not spoken here".to_owned()))
                }
                Ok(Some(Ok(Frame::Close(_)))) => Err(End::Closed),
                Ok(Some(Ok(_))) => self.pace(),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    fn pace(&mut self) -> Result<(), End> {
        if self.since.elapsed() > PACE_WINDOW {
            (self.since, self.messages) = (Instant::now(), 0);
        }
        self.messages += 1;
        if self.messages > PACE { Err(End::Misbehaved("too many messages".to_owned())) } else { Ok(()) }
    }

    async fn hear(&mut self, text: &str) -> Result<(), End> {
        self.pace()?;
        self.core.counters.messages_received.add(1);
        match Message::decode(text).map_err(|error| End::Misbehaved(error.to_string()))? {
            Message::QueryLatest => {
                let tip = self.core.tip();
                self.send(message::encode_blocks(&[&*tip.block])).await
            }
            Message::QueryAll => {
                sleep(self.fare.charge(Instant::now())).await;
                self.tell_all().await
            }
            Message::Blocks(blocks) => self.take(blocks).await,
            Message::Hello(hello) => self.meet(hello).await,
            Message::QueryAfter(places) => {
                sleep(self.fare.charge(Instant::now())).await;
                self.tell_after(&places).await
            }
            Message::BlocksAfter(answer) => self.take_answer(answer).await,
            Message::QueryPeers => self.send(Message::Peers(self.core.peers.recommend(self.id)).encode()).await,
            Message::Peers(addresses) => {
                self.core.peers.learn(addresses.iter().filter_map(|address| address.parse().ok()));
                Ok(())
            }
            Message::Unknown(_) => Ok(()),
        }
    }

    async fn meet(&mut self, hello: Hello) -> Result<(), End> {
        // Each hello may make us ask.
        if std::mem::replace(&mut self.met, true) {
            return Err(End::Misbehaved("it introduced itself twice".to_owned()));
        }
        if hello.node_id == self.core.id {
            return Err(End::Myself);
        }
        if hello.genesis != self.core.rules.genesis().hash {
            return Err(End::Misbehaved("its chain starts from another genesis block".to_owned()));
        }
        if hello.node_id.is_empty() || hello.node_id.len() > 64 {
            return Err(End::Misbehaved("its id is not an id".to_owned()));
        }
        let listen = hello.listen.parse().ok().map(|listen| self.reachable(listen));
        let (ours, theirs) = (&self.core.settings.chain_id, &hello.chain_id);
        if !ours.is_empty() && !theirs.is_empty() && ours != theirs {
            tracing::info!(remote = %self.remote, ours, theirs, "a peer has another chain; hanging up");
            // Only what is its own: who is elsewhere may be one of ours.
            let listen = listen.filter(|listen| listen.ip() == self.remote.ip());
            listen.into_iter().chain([self.remote]).for_each(|address| self.core.peers.unlearn(address));
            return Err(End::AnotherChain);
        }
        match self.core.peers.introduce(self.id, &self.core.id, &hello.node_id, listen, Instant::now()) {
            Introduction::Welcome => {}
            Introduction::Duplicate => return Err(End::Duplicate),
            Introduction::Banned => return Err(End::Closed),
        }
        tracing::debug!(remote = %self.remote, node = hello.node_id, height = hello.tip.height, "met a peer");
        if hello.tip.work > self.core.tip().work { self.ask().await } else { Ok(()) }
    }

    /// Where a peer listens that says it listens at `claimed`.
    fn reachable(&self, claimed: SocketAddr) -> SocketAddr {
        let ip = if claimed.ip().is_unspecified() { self.remote.ip() } else { claimed.ip() };
        SocketAddr::new(ip, claimed.port())
    }

    /// Asks for what follows the blocks we have: those of its branch that it sent before, else those of our chain.
    async fn ask(&mut self) -> Result<(), End> {
        if !self.core.peers.ask(self.id, Instant::now()) {
            return Ok(());
        }
        if self.core.peers.owed(self.id) > 1 {
            self.doubt()?;
        }
        let locator = self.core.read(|ledger| ledger.locator()).map_err(|Fault::Broken| End::Broken)?;
        let reached = self.reached.filter(|reached| self.core.holds(&reached.hash));
        let places = reached.into_iter().chain(locator).collect();
        self.send(Message::QueryAfter(places).encode()).await
    }

    /// Blocks that came by themselves, or as the answer to one of OneX's questions.
    async fn take(&mut self, blocks: Vec<Block>) -> Result<(), End> {
        let taken = self.offer(blocks, false).await?;
        if taken.orphans > 0 { self.ask().await } else { Ok(()) }
    }

    async fn take_answer(&mut self, answer: BlocksAfter) -> Result<(), End> {
        if self.core.peers.owed(self.id) == 0 {
            return Err(End::Misbehaved("an answer to no question".to_owned()));
        }
        let last = answer.blocks.iter().max_by_key(|block| block.index);
        let last = last.map(|block| Place { index: block.index, hash: block.hash });
        let heavier = answer.tip.work > self.core.tip().work;
        let taken = self.offer(answer.blocks, heavier).await?;
        self.core.peers.answered(self.id);
        let behind = answer.tip.work > self.core.tip().work;
        // Also blocks we had are a step, as long as they lead upwards: a branch that was begun with another peer is walked
        // along again.
        let higher = |last: &Place| self.reached.is_none_or(|reached| last.index > reached.index);
        let onward = last.filter(|last| (taken.placed > 0 || higher(last)) && self.core.holds(&last.hash));
        if behind && onward.is_some() {
            (self.reached, self.doubts) = (onward, 0);
            return self.ask().await;
        }
        self.core.settle();
        if behind {
            return self.doubt();
        }
        self.reached = None;
        Ok(())
    }

    /// The peer claims a heavier chain, and sent nothing of it that we could use, or nothing in time. Asking it is dear:
    /// meanwhile we ask nobody else, and may have to look far back for where such a chain begins.
    fn doubt(&mut self) -> Result<(), End> {
        self.doubts += 1;
        if self.doubts < MAX_DOUBTS {
            return Ok(());
        }
        tracing::warn!(remote = %self.remote, "a peer claims a heavier chain that we cannot take in; hanging up");
        Err(End::Closed)
    }

    /// Hands blocks to the chain, some at a time, so that others get their turn.
    async fn offer(&self, mut blocks: Vec<Block>, deep: bool) -> Result<Taken, End> {
        blocks.sort_by_key(|block| block.index);
        let mut total = Taken::default();
        let mut blocks = blocks.into_iter().peekable();
        while blocks.peek().is_some() {
            let some = blocks.by_ref().take(32).collect();
            let taken = self.core.offer(some, Some(self.id), deep).map_err(|refused| match refused {
                crate::node::Refused::Rule(rejection) => End::Misbehaved(rejection.to_string()),
                crate::node::Refused::Broken => End::Broken,
            })?;
            total.orphans += taken.orphans;
            tokio::task::yield_now().await;
        }
        Ok(total)
    }

    async fn tell_all(&self) -> Result<(), End> {
        let newest = |ledger: &crate::ledger::Ledger| {
            let from = (ledger.tip().block.index + 1).saturating_sub(MAX_BLOCKS as u64);
            ledger.read(from, MAX_BLOCKS as u64, ANSWER_BYTES)
        };
        let blocks = self.core.read(newest).map_err(|Fault::Broken| End::Broken)?;
        self.send(message::encode_blocks(&blocks)).await
    }

    async fn tell_after(&self, places: &[Place]) -> Result<(), End> {
        let following = |ledger: &crate::ledger::Ledger| {
            let from = ledger.after(places)?;
            Ok((ledger.tip().claim(), ledger.read(from, MAX_BLOCKS as u64, ANSWER_BYTES)?))
        };
        let (tip, blocks) = self.core.read(following).map_err(|Fault::Broken| End::Broken)?;
        self.send(message::encode_blocks_after(&tip, &blocks)).await
    }

    /// Queues a text. Waits when the queue is full, and then hears nothing either: who does not listen is not served.
    async fn send(&self, text: String) -> Result<(), End> {
        self.core.counters.messages_sent.add(1);
        self.sender.send(text.into()).await.map_err(|_| End::Closed)
    }
}

fn broken(error: &Wire) -> End {
    match error {
        Wire::Capacity(_) | Wire::Utf8(_) => End::Misbehaved(error.to_string()),
        _ => End::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dear_questions_are_answered_at_once_fifty_times_and_then_five_times_a_second() {
        let mut now = Instant::now();
        let mut fare = Fare { paid: now };
        for _ in 0..50 {
            assert_eq!(fare.charge(now), Duration::ZERO);
        }
        for _ in 0..50 {
            assert_eq!(fare.charge(now), DEAR);
            now += DEAR;
        }
        now += PACE_WINDOW;
        assert_eq!(fare.charge(now), Duration::ZERO);
    }
}
