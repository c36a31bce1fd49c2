//! Step 1 of every walk: accepts connections, speaks TLS, and hands requests to a router.
//!
//! One listener serves HTTP/1.1 and HTTP/2, chosen by ALPN or by the first bytes. Everything a stranger can make grow
//! is bounded by [`Limits`].

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::lingering::Lingering;
use crate::paced::Paced;
use crate::pki::{self, Subject};

/// What one listener allows its clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections open at once. More wait in the kernel's queue until one ends.
    pub connections: u32,
    /// Requests in flight on one HTTP/2 connection.
    pub streams_per_connection: u32,
    /// How long a client may take to shake hands, in seconds.
    pub handshake_seconds: u64,
    /// How long a connection may stay without its first request, and an HTTP/1.1 connection without a complete request
    /// head, in seconds.
    pub request_head_seconds: u64,
    /// How long a silent HTTP/2 connection is left alone before it is asked whether it lives, in seconds.
    pub ping_after_seconds: u64,
    /// How long a client may leave unread what is sent to it, in seconds. Then the connection is closed.
    pub unread_seconds: u64,
    /// How long requests in flight may take to end once the part stops, in seconds. What is left is cut off.
    pub drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            streams_per_connection: 250,
            handshake_seconds: 10,
            request_head_seconds: 90,
            ping_after_seconds: 30,
            unread_seconds: 300,
            drain_seconds: 5,
        }
    }
}

/// Bytes one connection or stream may have queued towards a client that does not read.
///
/// Small, because a thousand slow watchers multiply it; large enough to fill a socket.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// So many connections may have as much encrypted and waiting for their sockets,
const ROOMY_CONNECTIONS: usize = 64;
/// and the others so much: a record of TLS.
const CROWDED_BUFFER_BYTES: usize = 16 * 1024;

/// How long a client may leave our ping unanswered.
const PONG_SECONDS: u64 = 20;

/// Who is at the other end of a connection. Every request carries one in its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The chain the client showed, its own certificate first, verified against the listener's client authority.
    ///
    /// Empty when the client showed none, and always on a listener without TLS.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// Whom its own certificate names, read once for all requests of the connection. `None` also when it names nobody.
    pub subject: Option<Arc<Subject>>,
}

impl Peer {
    /// A client at `address` that showed these, verified already.
    #[must_use]
    pub fn new(address: SocketAddr, certificates: &[CertificateDer<'static>]) -> Self {
        let subject = certificates.first().and_then(pki::subject).map(Arc::new);
        Self { address, certificates: certificates.into(), subject }
    }
}

/// Is cancelled when the listener starts to drain. Every request carries one in its extensions.
///
/// A handler whose answer has no end of its own (a watch, a followed log) ends it then; whoever does not is cut off
/// after [`Limits::drain_seconds`].
#[derive(Debug, Clone)]
pub struct Draining(pub CancellationToken);

/// Ends the connection that a request came on. Every request carries one in its extensions.
#[derive(Debug, Clone)]
pub struct Closing(CancellationToken);

impl Closing {
    /// No further request is taken on this connection; those under way are answered. HTTP/2 says so with GOAWAY.
    pub fn after_this(&self) {
        self.0.cancel();
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled, then lets requests in flight end.
///
/// With `tls` every connection must shake hands first; without it the listener speaks plain HTTP. Returns when the last
/// connection is gone, at most [`Limits::drain_seconds`] after the cancellation.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use onex_daemon::listener::{self, Limits};
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let shutdown = tokio_util::sync::CancellationToken::new();
/// listener::serve(listener, None, axum::Router::new(), shutdown, Limits::default()).await;
/// # Ok(()) }
/// ```
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    shutdown: CancellationToken,
    limits: Limits,
) {
    let connections = TaskTracker::new();
    let free = Arc::new(Semaphore::new(limits.connections as usize));
    let server = Arc::new(Server { tls: tls.map(TlsAcceptor::from), router, shutdown, limits });
    while let Some((stream, address, permit)) = server.next_connection(&listener, &free).await {
        let server = server.clone();
        let others = server.limits.connections as usize - free.available_permits();
        let room = if others <= ROOMY_CONNECTIONS { SEND_BUFFER_BYTES } else { CROWDED_BUFFER_BYTES };
        connections.spawn(async move {
            server.connection(stream, address, room).await;
            drop(permit);
        });
    }
    drop(listener); // new clients are refused at once instead of waiting in a queue that nobody reads
    connections.close();
    connections.wait().await;
}

struct Server {
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: CancellationToken,
    limits: Limits,
}

impl Server {
    /// Waits for room and then for a client. `None` when the part stops.
    async fn next_connection(
        &self,
        listener: &TcpListener,
        free: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = tokio::select! {
            permit = free.clone().acquire_owned() => permit.ok()?,
            () = self.shutdown.cancelled() => return None,
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => return None,
            };
            match accepted {
                Ok((stream, address)) => return Some((stream, address, permit)),
                Err(error) => self.after_failed_accept(&error).await,
            }
        }
    }

    /// A client that left before it was accepted is no reason to wait; too many open files is.
    async fn after_failed_accept(&self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        tracing::warn!(%error, "could not accept a connection; trying again in 100 ms");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Lets at most `room` bytes wait for the socket, besides what a body has under way.
    async fn connection(&self, stream: TcpStream, address: SocketAddr, room: usize) {
        if let Err(error) = keep_alive(&stream) {
            tracing::debug!(%address, %error, "could not set socket options");
        }
        let Some(acceptor) = &self.tls else {
            return self.http(self.lingering(stream), Peer::new(address, &[])).await;
        };
        let patience = Duration::from_secs(self.limits.handshake_seconds);
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(patience, acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(room)))) => handshake,
            () = self.shutdown.cancelled() => return,
        };
        match handshake {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let peer = Peer::new(address, certificates);
                self.http(self.lingering(stream), peer).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "the TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "the TLS handshake took too long"),
        }
    }

    fn lingering<S>(&self, stream: S) -> Lingering<S> {
        Lingering::new(stream, self.shutdown.clone(), Duration::from_secs(self.limits.unread_seconds))
    }

    /// Serves requests of one connection until the client leaves, or until the part stops and they have ended.
    async fn http<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address;
        let draining = Draining(self.shutdown.clone());
        let router = self.router.clone();
        let asked = CancellationToken::new();
        let first_request = asked.clone();
        let enough = CancellationToken::new();
        let closing = Closing(enough.clone());
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            first_request.cancel();
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(draining.clone());
            request.extensions_mut().insert(closing.clone());
            answer(router.clone(), request.map(Body::new))
        });
        let protocol = self.protocol();
        let connection = protocol.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut closing = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break Some(ended),
                () = self.patience_without(&asked) => {
                    tracing::debug!(%address, "the connection was closed: nothing was asked on it");
                    return;
                }
                () = enough.cancelled(), if !closing => {
                    connection.as_mut().graceful_shutdown();
                    closing = true;
                }
                () = self.shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let deadline = Duration::from_secs(self.limits.drain_seconds);
                    break tokio::time::timeout(deadline, connection.as_mut()).await.ok();
                }
            }
        };
        match ended {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%address, %error, "the connection broke"),
            None => tracing::debug!(%address, "the connection was cut off: it outlived the drain"),
        }
    }

    /// Ends when a client has taken too long over its first request. Hyper's own patience begins only once it knows the
    /// protocol, so a client that says nothing would hold its place for ever.
    async fn patience_without(&self, asked: &CancellationToken) {
        let patience = Duration::from_secs(self.limits.request_head_seconds);
        if tokio::time::timeout(patience, asked.cancelled()).await.is_ok() {
            std::future::pending().await
        }
    }

    fn protocol(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(SEND_BUFFER_BYTES)
            .header_read_timeout(Duration::from_secs(self.limits.request_head_seconds));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams_per_connection)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(Duration::from_secs(self.limits.ping_after_seconds.max(1)))
            .keep_alive_timeout(Duration::from_secs(PONG_SECONDS));
        builder
    }
}

async fn answer(mut router: Router, request: Request) -> Result<Response, Infallible> {
    Ok(router.call(request).await?.map(Paced::body))
}

/// Small answers leave at once, and a peer that vanished is noticed also on an HTTP/1.1 watch, which has no pings.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    Ok(())
}
