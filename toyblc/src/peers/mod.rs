//! Gossip: who we are connected to, and what is said.
//!
//! Every node listens, keeps a connection to each peer it was told of, and opens a few more to nodes that it hears
//! of, so that the others still hear from each other when the node all were told of is gone.

mod address;
mod conversation;
pub mod message;
pub mod table;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error as Wire;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

pub use address::{NotAnAddress, PeerAddress};
use conversation::{End, converse, limits};
use message::Message;
use table::{Direction, jitter};

use crate::node::Core;

/// How long each step of connecting may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pauses between attempts to reach a peer: from the first to the second, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// A connection that lasted so long was a good one: the next attempt comes soon.
const GOOD: Duration = Duration::from_secs(10);

/// How often we look for more peers, and ask one for its newest block and its acquaintances.
const ROUND: Duration = Duration::from_secs(5);

/// Why a peer was not reached.
#[derive(Debug, thiserror::Error)]
enum Unreached {
    #[error("the name cannot be resolved")]
    Name(#[source] io::Error),
    #[error("nobody answers")]
    Connect(#[source] io::Error),
    #[error("it does not speak WebSocket")]
    Handshake(#[source] Box<Wire>),
    #[error("it took too long")]
    TooLong,
    #[error("the address is our own")]
    Myself,
    #[error("the peer is banned")]
    Banned,
}

/// Lets others connect, as many as the settings allow; the rest are turned away at once.
pub(crate) async fn welcome(core: Arc<Core>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(core.settings.max_inbound_peers));
    loop {
        let accepted = tokio::select! {
            () = core.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely; a pause lets some be closed.
                tracing::warn!(%error, "a peer could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(%remote, "turned a peer away: all places are taken");
            continue;
        };
        if core.peers.bans(remote.ip(), Instant::now()) {
            continue;
        }
        let host = Arc::clone(&core);
        core.tasks.spawn(async move {
            let _place = place;
            if let Ok(Ok(socket)) = timeout(PATIENCE, shake_hands(stream)).await {
                converse(host, socket, remote, Direction::Inbound).await;
            }
        });
    }
}

async fn shake_hands(stream: TcpStream) -> Result<WebSocketStream<TcpStream>, Box<Wire>> {
    stream.set_nodelay(true).map_err(|error| Box::new(error.into()))?;
    accept_async_with_config(stream, Some(limits())).await.map_err(Box::new)
}

/// Stays connected to a peer for as long as the node runs.
pub(crate) async fn keep_connected(core: Arc<Core>, address: PeerAddress) {
    let mut pause = PAUSES.0;
    while !core.stop.is_cancelled() {
        let began = Instant::now();
        let Some(connected) = core.stop.run_until_cancelled(connect(&core, &address)).await else { return };
        match connected {
            Ok((socket, remote)) => match converse(Arc::clone(&core), socket, remote, Direction::Outbound).await {
                End::Myself => return forget_myself(&core, &address),
                // The name may lead to one of ours later, so another chain's is dialled again, without haste.
                End::Duplicate | End::Misbehaved(_) | End::AnotherChain => pause = PAUSES.1,
                End::Closed | End::Broken => {}
            },
            Err(Unreached::Myself) => return forget_myself(&core, &address),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(peer = %address, %error, cause, "a peer was not reached; trying again");
            }
        }
        if began.elapsed() > GOOD {
            pause = PAUSES.0;
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = sleep(pause / 2 + jitter(pause / 2)) => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn forget_myself(core: &Core, address: &PeerAddress) {
    tracing::debug!(peer = %address, "the peer is this node itself");
    core.peers.unconfigure(address);
}

/// Opens more connections while there are too few, and keeps the conversation going.
pub(crate) async fn look_around(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = sleep(ROUND / 2 + jitter(ROUND)) => {}
        }
        // A block that was lost on the way, for whatever reason, is heard of again here.
        core.peers.whisper(&Message::QueryLatest.encode().into());
        if core.peers.count(Direction::Outbound) >= core.settings.max_outbound_peers {
            continue;
        }
        core.peers.whisper(&Message::QueryPeers.encode().into());
        let Some(candidate) = core.peers.candidate(Instant::now()) else { continue };
        let candidate_address = candidate.into();
        let Some(reached) = core.stop.run_until_cancelled(connect(&core, &candidate_address)).await else { return };
        core.peers.tried(candidate, reached.is_ok());
        if let Ok((socket, remote)) = reached {
            let core = Arc::clone(&core);
            core.tasks.clone().spawn(async move {
                if let End::Myself = converse(Arc::clone(&core), socket, remote, Direction::Outbound).await {
                    core.peers.unlearn(candidate);
                }
            });
        }
    }
}

/// Opens a connection, from our own address if we have one, so that peers know us by it.
async fn connect(core: &Core, address: &PeerAddress) -> Result<(WebSocketStream<TcpStream>, SocketAddr), Unreached> {
    let late = |_| Unreached::TooLong;
    let found = timeout(PATIENCE, lookup_host(address.authority())).await.map_err(late)?.map_err(Unreached::Name)?;
    let mut last = Unreached::Name(io::ErrorKind::NotFound.into());
    // Names such as localhost have two addresses, of which only one may answer.
    for remote in found.take(4) {
        if remote == core.p2p_addr {
            return Err(Unreached::Myself);
        }
        if core.peers.bans(remote.ip(), Instant::now()) {
            last = Unreached::Banned;
            continue;
        }
        match timeout(PATIENCE, open(core.p2p_addr.ip(), remote)).await {
            Ok(Ok(stream)) => return upgrade(stream, address).await.map(|socket| (socket, remote)),
            Ok(Err(error)) => last = Unreached::Connect(error),
            Err(_) => last = Unreached::TooLong,
        }
    }
    Err(last)
}

async fn open(ours: IpAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // From a loopback address only the loopback can be reached.
    let usable =
        !ours.is_unspecified() && ours.is_ipv4() == remote.is_ipv4() && ours.is_loopback() == remote.ip().is_loopback();
    if usable {
        socket.bind(SocketAddr::new(ours, 0))?;
    }
    let stream = socket.connect(remote).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn upgrade(stream: TcpStream, address: &PeerAddress) -> Result<WebSocketStream<TcpStream>, Unreached> {
    let shaking = client_async_with_config(format!("{address}/"), stream, Some(limits()));
    let shaken = timeout(PATIENCE, shaking).await.map_err(|_| Unreached::TooLong)?;
    shaken.map(|(socket, _)| socket).map_err(|error| Unreached::Handshake(Box::new(error)))
}
