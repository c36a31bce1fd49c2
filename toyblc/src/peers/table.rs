//! Who is connected, who might be, and who may not.
//!
//! Bounds: connections as the settings say, [`MAX_KNOWN`] addresses, [`MAX_BANNED`] bans, [`QUEUE`] messages waiting for
//! one peer. A peer that does not keep up is disconnected, and costs the others nothing.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::RngExt;
use rand::seq::{IndexedRandom, IteratorRandom};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::PeerAddress;
use super::message::MAX_ADDRESSES;

/// How many messages may wait for one peer.
pub const QUEUE: usize = 64;

/// How many addresses of nodes are remembered.
pub const MAX_KNOWN: usize = 256;

/// How many bans are remembered.
pub const MAX_BANNED: usize = 1024;

/// How many peers can be named by flag and by `POST /v1/peers`.
pub const MAX_CONFIGURED: usize = 64;

/// How long a peer that misbehaved is not spoken to.
pub const BAN: Duration = Duration::from_secs(600);

/// How long we wait for blocks that we asked a peer for, before we ask another.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// After how many failed attempts an address is forgotten.
const MAX_FAILURES: u32 = 3;

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// They did.
    Inbound,
    /// We did.
    Outbound,
}

/// Names a connection for as long as the process lives.
pub type PeerId = u64;

/// One connection.
pub struct Peer {
    /// Who opened it.
    pub direction: Direction,
    /// The other end.
    pub remote: SocketAddr,
    /// What waits to be sent.
    pub sender: mpsc::Sender<Utf8Bytes>,
    /// Ends the connection.
    pub stop: CancellationToken,
    node_id: Option<String>,
    listen: Option<SocketAddr>,
    /// When it was asked last, while it owes an answer.
    asked: Option<Instant>,
    /// How many answers it owes.
    owed: u32,
}

/// What became of a peer's introduction.
#[derive(Debug, PartialEq, Eq)]
pub enum Introduction {
    /// The connection stays.
    Welcome,
    /// We are connected to that node already, by a connection that is to stay.
    Duplicate,
    /// The node is banned.
    Banned,
}

/// Who is banned. An id is a claim that anybody can copy, so it names only those that have no address of their own.
#[derive(PartialEq, Eq, Hash)]
enum Banned {
    Host(IpAddr),
    Local(String),
}

#[derive(Default)]
struct State {
    last: PeerId,
    connected: HashMap<PeerId, Peer>,
    known: HashMap<SocketAddr, u32>,
    banned: HashMap<Banned, Instant>,
    configured: HashSet<PeerAddress>,
}

/// See the module's words.
#[derive(Default)]
pub struct Table(Mutex<State>);

impl Table {
    /// Notes a new connection.
    pub fn join(
        &self,
        direction: Direction,
        remote: SocketAddr,
        sender: mpsc::Sender<Utf8Bytes>,
        stop: CancellationToken,
    ) -> PeerId {
        let mut state = self.0.lock();
        state.last += 1;
        let id = state.last;
        let peer = Peer { direction, remote, sender, stop, node_id: None, listen: None, asked: None, owed: 0 };
        state.connected.insert(id, peer);
        id
    }

    /// Forgets a connection that ended.
    pub fn leave(&self, id: PeerId) {
        self.0.lock().connected.remove(&id);
    }

    /// Takes note of who is at the other end. Of two connections between two nodes, the one opened by the node with the
    /// smaller id stays, so that both sides close the same one. Connections to different hosts lead to different nodes,
    /// whatever they claim: or anybody could have another's closed.
    pub fn introduce(
        &self,
        id: PeerId,
        ours: &str,
        theirs: &str,
        listen: Option<SocketAddr>,
        now: Instant,
    ) -> Introduction {
        let mut state = self.0.lock();
        let Some((direction, host)) = state.connected.get(&id).map(|peer| (peer.direction, peer.remote.ip())) else {
            return Introduction::Duplicate;
        };
        if is_shared(host) && state.is_banned(&Banned::Local(theirs.to_owned()), now) {
            return Introduction::Banned;
        }
        let same = |peer: &Peer| peer.node_id.as_deref() == Some(theirs) && peer.remote.ip() == host;
        let twin = state.connected.iter().find(|(other, peer)| **other != id && same(peer));
        if let Some((_, twin)) = twin {
            let wanted = if ours < theirs { Direction::Outbound } else { Direction::Inbound };
            if twin.direction == direction || direction != wanted {
                return Introduction::Duplicate;
            }
            twin.stop.cancel();
        }
        if let Some(peer) = state.connected.get_mut(&id) {
            peer.node_id = Some(theirs.to_owned());
            peer.listen = listen;
        }
        drop(state);
        self.learn(listen);
        Introduction::Welcome
    }

    /// Whether to ask this peer for blocks now: only one peer is asked at a time, unless it lets us wait.
    pub fn ask(&self, id: PeerId, now: Instant) -> bool {
        let mut state = self.0.lock();
        if state.connected.values().any(|peer| waits(peer, now)) {
            return false;
        }
        let Some(peer) = state.connected.get_mut(&id) else { return false };
        peer.asked = Some(now);
        peer.owed += 1;
        true
    }

    /// How many answers the peer owes: more than one when it lets us wait and was asked again.
    pub fn owed(&self, id: PeerId) -> u32 {
        self.0.lock().connected.get(&id).map_or(0, |peer| peer.owed)
    }

    /// The peer has answered; whether it was asked.
    pub fn answered(&self, id: PeerId) -> bool {
        let mut state = self.0.lock();
        let Some(peer) = state.connected.get_mut(&id).filter(|peer| peer.owed > 0) else { return false };
        peer.owed -= 1;
        if peer.owed == 0 {
            peer.asked = None;
        }
        true
    }

    /// Whether blocks are on their way that we asked for.
    pub fn asking(&self, now: Instant) -> bool {
        self.0.lock().connected.values().any(|peer| waits(peer, now))
    }

    /// Sends a text to every peer but one. Whoever has too much waiting is disconnected.
    pub fn broadcast(&self, text: &Utf8Bytes, except: Option<PeerId>) {
        for (id, peer) in &self.0.lock().connected {
            if Some(*id) != except && peer.sender.try_send(text.clone()).is_err() {
                peer.stop.cancel();
            }
        }
    }

    /// Sends a text to one peer, chosen at random.
    pub fn whisper(&self, text: &Utf8Bytes) {
        if let Some(peer) = self.0.lock().connected.values().choose(&mut rand::rng()) {
            // Whoever is too busy for this is found out by the next broadcast.
            let _ = peer.sender.try_send(text.clone());
        }
    }

    /// How many connections there are, by direction.
    pub fn count(&self, direction: Direction) -> usize {
        self.0.lock().connected.values().filter(|peer| peer.direction == direction).count()
    }

    /// Where the connected peers are: the address they listen on if they told us, else the one they came from.
    pub fn addresses(&self) -> Vec<PeerAddress> {
        let state = self.0.lock();
        let mut addresses: Vec<_> =
            state.connected.values().map(|peer| peer.listen.unwrap_or(peer.remote).into()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// Addresses to tell a peer, other than its own.
    pub fn recommend(&self, id: PeerId) -> Vec<String> {
        let state = self.0.lock();
        let others = state.connected.iter().filter(|(other, _)| **other != id).filter_map(|(_, peer)| peer.listen);
        others.map(|address| address.to_string()).sample(&mut rand::rng(), MAX_ADDRESSES)
    }

    /// Remembers where a node may be.
    pub fn learn(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let mut state = self.0.lock();
        for address in addresses {
            let usable = address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
            if usable && state.known.len() < MAX_KNOWN {
                state.known.entry(address).or_default();
            }
        }
    }

    /// An address, chosen at random, of a node that we know and are not connected to.
    pub fn candidate(&self, now: Instant) -> Option<SocketAddr> {
        let state = self.0.lock();
        let connected: HashSet<_> =
            state.connected.values().flat_map(|peer| [Some(peer.remote), peer.listen]).flatten().collect();
        let free = |address: &&SocketAddr| !connected.contains(address) && !state.bans(address.ip(), now);
        let candidates: Vec<_> = state.known.keys().filter(free).collect();
        candidates.choose(&mut rand::rng()).map(|address| **address)
    }

    /// Notes how an attempt to connect went; an address that fails again and again is forgotten.
    pub fn tried(&self, address: SocketAddr, reached: bool) {
        let mut state = self.0.lock();
        let Some(failures) = state.known.get_mut(&address) else { return };
        *failures = if reached { 0 } else { *failures + 1 };
        if *failures >= MAX_FAILURES {
            state.known.remove(&address);
        }
    }

    /// Forgets an address, because it is our own or that of another chain.
    pub fn unlearn(&self, address: SocketAddr) {
        self.0.lock().known.remove(&address);
    }

    /// Does not speak to this peer for a while.
    pub fn ban(&self, id: PeerId, now: Instant) {
        let mut state = self.0.lock();
        let Some(peer) = state.connected.get(&id) else { return };
        let (host, node) = (peer.remote.ip(), peer.node_id.clone());
        peer.stop.cancel();
        if !is_shared(host) {
            state.remember_ban(Banned::Host(host), now);
        } else if let Some(node) = node {
            state.remember_ban(Banned::Local(node), now);
        }
    }

    /// Whether a host is banned.
    pub fn bans(&self, host: IpAddr, now: Instant) -> bool {
        self.0.lock().bans(host, now)
    }

    /// How many bans are in force.
    pub fn banned(&self, now: Instant) -> usize {
        self.0.lock().banned.values().filter(|until| now < **until).count()
    }

    /// Adds a peer to stay connected to. `None` when there are too many, `false` when it was added before.
    pub fn configure(&self, address: PeerAddress) -> Option<bool> {
        let mut state = self.0.lock();
        if state.configured.contains(&address) {
            return Some(false);
        }
        (state.configured.len() < MAX_CONFIGURED).then(|| state.configured.insert(address))
    }

    /// Takes a peer off the list, because it is ourselves.
    pub fn unconfigure(&self, address: &PeerAddress) {
        self.0.lock().configured.remove(address);
    }

    /// Whether there are peers that we should be connected to.
    pub fn has_configured(&self) -> bool {
        !self.0.lock().configured.is_empty()
    }
}

impl State {
    fn bans(&self, host: IpAddr, now: Instant) -> bool {
        self.is_banned(&Banned::Host(host), now)
    }

    fn is_banned(&self, whom: &Banned, now: Instant) -> bool {
        self.banned.get(whom).is_some_and(|until| now < *until)
    }

    fn remember_ban(&mut self, whom: Banned, now: Instant) {
        self.banned.retain(|_, until| now < *until);
        if self.banned.len() < MAX_BANNED {
            self.banned.insert(whom, now + BAN);
        }
    }
}

/// Whether many nodes may come from this address: all on this machine that have none of their own. A Pod has.
fn is_shared(host: IpAddr) -> bool {
    let host = host.to_canonical();
    host == Ipv4Addr::LOCALHOST || host == Ipv6Addr::LOCALHOST
}

fn waits(peer: &Peer, now: Instant) -> bool {
    peer.asked.is_some_and(|asked| now.duration_since(asked) < PATIENCE)
}

/// Some time up to `most`, so that many nodes do not do the same thing at once.
pub fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::rng().random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(
        table: &Table,
        direction: Direction,
        remote: &str,
    ) -> (PeerId, mpsc::Receiver<Utf8Bytes>, CancellationToken) {
        let (sender, queue) = mpsc::channel(2);
        let stop = CancellationToken::new();
        (table.join(direction, remote.parse().unwrap(), sender, stop.clone()), queue, stop)
    }

    #[test]
    fn both_sides_of_two_crossing_connections_keep_the_same_one() {
        let now = Instant::now();
        let kept = |ours: &str, theirs: &str, first: Direction, second: Direction| {
            let table = Table::default();
            let (one, _, one_stop) = connect(&table, first, "127.0.0.2:1");
            let (two, _, _) = connect(&table, second, "127.0.0.2:2");
            assert_eq!(table.introduce(one, ours, theirs, None, now), Introduction::Welcome);
            let second_stays = table.introduce(two, ours, theirs, None, now) == Introduction::Welcome;
            assert_eq!(second_stays, one_stop.is_cancelled());
            if second_stays { second } else { first }
        };
        use Direction::{Inbound, Outbound};
        for (first, second) in [(Inbound, Outbound), (Outbound, Inbound)] {
            assert_eq!(kept("a", "b", first, second), Outbound);
            assert_eq!(kept("b", "a", first, second), Inbound);
        }
        assert_eq!(kept("a", "b", Inbound, Inbound), Inbound);
    }

    #[test]
    fn a_peer_that_does_not_keep_up_is_disconnected_alone() {
        let table = Table::default();
        let (_, mut quick, quick_stop) = connect(&table, Direction::Inbound, "127.0.0.2:1");
        let (_, _slow, slow_stop) = connect(&table, Direction::Inbound, "127.0.0.3:1");
        for _ in 0..3 {
            table.broadcast(&"block".into(), None);
            quick.try_recv().unwrap();
        }
        assert!(slow_stop.is_cancelled() && !quick_stop.is_cancelled());
    }

    #[test]
    fn bans_end_and_never_shut_out_the_whole_machine() {
        let (table, now) = (Table::default(), Instant::now());
        let (stranger, _, stop) = connect(&table, Direction::Inbound, "127.9.0.2:1");
        let (local, _, _) = connect(&table, Direction::Inbound, "127.0.0.1:1");
        table.introduce(local, "me", "bad", None, now);
        table.ban(stranger, now);
        table.ban(local, now);
        assert!(stop.is_cancelled());
        assert!(table.bans("127.9.0.2".parse().unwrap(), now));
        assert!(!table.bans("127.9.0.2".parse().unwrap(), now + BAN));
        assert!(!table.bans("127.0.0.1".parse().unwrap(), now));
        let (again, _, _) = connect(&table, Direction::Inbound, "127.0.0.1:2");
        assert_eq!(table.introduce(again, "me", "bad", None, now), Introduction::Banned);
        assert_eq!(table.introduce(again, "me", "good", None, now), Introduction::Welcome);
    }

    #[test]
    fn a_copied_id_neither_closes_nor_bans_who_has_it() {
        let (table, now) = (Table::default(), Instant::now());
        let (victim, _, victim_stop) = connect(&table, Direction::Inbound, "127.9.0.2:1");
        let (local, _, local_stop) = connect(&table, Direction::Inbound, "127.0.0.1:1");
        assert_eq!(table.introduce(victim, "me", "victim", None, now), Introduction::Welcome);
        assert_eq!(table.introduce(local, "me", "local", None, now), Introduction::Welcome);
        for (direction, host, copied) in [
            (Direction::Inbound, "127.9.0.3:1", "victim"),
            (Direction::Outbound, "127.9.0.4:1", "victim"),
            (Direction::Outbound, "127.9.0.5:1", "local"),
            (Direction::Outbound, "127.0.0.1:2", "victim"),
        ] {
            let (copy, _, _) = connect(&table, direction, host);
            assert_eq!(table.introduce(copy, "me", copied, None, now), Introduction::Welcome, "{host}");
            assert!(!victim_stop.is_cancelled() && !local_stop.is_cancelled());
            table.ban(copy, now);
        }
        for (host, id) in [("127.9.0.2:2", "victim"), ("127.0.0.1:3", "local")] {
            table.0.lock().connected.clear();
            let (again, _, _) = connect(&table, Direction::Inbound, host);
            assert!(!table.bans(host.parse::<SocketAddr>().unwrap().ip(), now));
            assert_eq!(table.introduce(again, "me", id, None, now), Introduction::Welcome);
        }
    }

    #[test]
    fn one_peer_is_asked_at_a_time_and_not_waited_for_for_ever() {
        let (table, now) = (Table::default(), Instant::now());
        let (one, _, _) = connect(&table, Direction::Inbound, "127.0.0.2:1");
        let (two, _, _) = connect(&table, Direction::Inbound, "127.0.0.3:1");
        assert!(table.ask(one, now));
        assert!(!table.ask(two, now) && table.asking(now));
        assert!(table.ask(two, now + PATIENCE));
        assert!(table.answered(two) && !table.answered(two));
        assert!(!table.asking(now + PATIENCE));
    }

    #[test]
    fn a_slow_peer_that_is_asked_twice_may_answer_twice() {
        let (table, now) = (Table::default(), Instant::now());
        let (slow, _, _) = connect(&table, Direction::Inbound, "127.0.0.2:1");
        assert!(table.ask(slow, now) && !table.ask(slow, now));
        assert!(table.ask(slow, now + PATIENCE));
        assert_eq!(table.owed(slow), 2);
        assert!(table.answered(slow) && table.asking(now + PATIENCE));
        assert!(table.answered(slow) && !table.asking(now + PATIENCE));
        assert!(!table.answered(slow));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let table = Table::default();
        table.learn((0..1000u32).map(|host| SocketAddr::from((Ipv4Addr::from(0x7f00_0000 + host + 1), 6001))));
        assert_eq!(table.0.lock().known.len(), MAX_KNOWN);
        let address = table.candidate(Instant::now()).unwrap();
        for _ in 0..MAX_FAILURES {
            table.tried(address, false);
        }
        assert_eq!(table.0.lock().known.len(), MAX_KNOWN - 1);
        for port in 1..1000 {
            table.configure(format!("ws://host:{port}").parse().unwrap());
        }
        assert_eq!(table.0.lock().configured.len(), MAX_CONFIGURED);
    }
}
