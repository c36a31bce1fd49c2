use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use onex_daemon::listener::{self, Draining, Limits, Peer};
use onex_daemon::pki::{self, Authority, Clients};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct World {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    parts: Parts,
}

async fn world(tls: Option<Arc<ServerConfig>>, limits: Limits) -> World {
    let router = Router::new()
        .route("/who", get(|Extension(peer): Extension<Peer>| async move { who(&peer) }))
        .route("/endless", get(|| async { Body::from_stream(first_then_nothing()) }))
        .route("/parts", get(|Extension(parts): Extension<Parts>| async move { Body::from_stream(parts.endless()) }))
        .route(
            "/polite",
            get(|Extension(Draining(token)): Extension<Draining>| async move {
                Body::from_stream(first_then_nothing().take_until(token.cancelled_owned()))
            }),
        );
    let parts = Parts::default();
    let router = router.layer(Extension(parts.clone()));
    let socket = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(listener::serve(socket, tls, router, shutdown.clone(), limits));
    World { address, shutdown, served, parts }
}

/// The parts of endless answers, counted.
#[derive(Clone, Default)]
struct Parts {
    made: Arc<AtomicUsize>,
    here: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// One of them.
struct Part(Vec<u8>, Parts);

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.1.here.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Parts {
    fn part(&self) -> Bytes {
        self.made.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Bytes::from_owner(Part(vec![b'x'; 8 * 1024], self.clone()))
    }

    fn endless(self) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send {
        futures::stream::repeat_with(move || Ok(self.part()))
    }
}

/// A loopback address of this world alone: nobody else takes a port of it that was freed.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 192 + NEXT.fetch_add(1, Ordering::Relaxed) % 63, high, low)
}

fn who(peer: &Peer) -> String {
    match &peer.subject {
        Some(subject) => format!("{} of {}", subject.common_name, subject.organizations.join(",")),
        None => "nobody".to_owned(),
    }
}

fn first_then_nothing() -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    futures::stream::once(async { Ok(Bytes::from_static(b"first")) }).chain(futures::stream::pending())
}

async fn ask_http1(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: onex\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let count = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let world = world(None, Limits::default()).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    for _ in 0..3 {
        let answer = ask_http1(&mut stream, "/who").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("nobody"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_with_a_certificate_is_known_over_http2() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(directory.path()).unwrap();
    let server = pki::server_config(
        &authority.issue_server(&["localhost", "127.0.0.1"]).unwrap(),
        Clients::MayShow(authority.certificate()),
    );
    let world = world(Some(server.unwrap()), Limits::default()).await;
    let admin = authority.issue_client("admin", "system:masters").unwrap();
    for (identity, expected) in [(Some(&admin), "admin of system:masters"), (None, "nobody")] {
        let mut client = Arc::unwrap_or_clone(pki::client_config(authority.certificate(), identity).unwrap());
        client.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(world.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let tls = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(tls))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get("https://onex/who").body(Empty::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(answer.to_bytes(), expected);
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_turned_away() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) =
        (Authority::open_or_create(ours.path()).unwrap(), Authority::open_or_create(theirs.path()).unwrap());
    let server =
        pki::server_config(&ours.issue_server(&["localhost"]).unwrap(), Clients::MayShow(ours.certificate())).unwrap();
    let world = world(Some(server), Limits::default()).await;
    let stranger = theirs.issue_client("admin", "system:masters").unwrap();
    let client = pki::client_config(ours.certificate(), Some(&stranger)).unwrap();
    let tcp = TcpStream::connect(world.address).await.unwrap();
    let connected = tokio_rustls::TlsConnector::from(client).connect("localhost".try_into().unwrap(), tcp).await;
    // With TLS 1.3 the client learns of the refusal only when it reads.
    let refused = match connected {
        Err(_) => true,
        Ok(mut tls) => {
            tls.write_all(b"GET /who HTTP/1.1\r\nhost: onex\r\n\r\n").await.is_err()
                || tls.read(&mut [0; 64]).await.is_err()
        }
    };
    assert!(refused);
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(directory.path()).unwrap();
    let server = pki::server_config(&authority.issue_server(&["localhost"]).unwrap(), Clients::Anybody).unwrap();
    let world = world(Some(server), Limits { handshake_seconds: 0, ..Limits::default() }).await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_client_that_asks_nothing_loses_its_place_and_one_that_asked_keeps_it() {
    let world = world(None, Limits { request_head_seconds: 1, ..Limits::default() }).await;
    let mut watching = TcpStream::connect(world.address).await.unwrap();
    assert!(ask_http1(&mut watching, "/endless").await.contains("200 OK"));
    for said in ["", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut silent = TcpStream::connect(world.address).await.unwrap();
        silent.write_all(said.as_bytes()).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(30), silent.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{said:?} holds its place for ever");
    }
    let mut buffer = [0; 64];
    let first = watching.read(&mut buffer);
    let still = tokio::time::timeout(Duration::from_millis(100), first).await;
    assert!(!matches!(still, Ok(Ok(0) | Err(_))), "the watch was cut off");
}

#[tokio::test]
async fn no_more_clients_are_served_than_the_limit_until_one_leaves() {
    let world = world(None, Limits { connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(world.address).await.unwrap();
    ask_http1(&mut first, "/who").await;
    let mut second = TcpStream::connect(world.address).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(200), ask_http1(&mut second, "/who")).await;
    assert!(waiting.is_err(), "the second client is kept waiting");
    drop(first);
    let mut buffer = [0; 1024];
    assert!(second.read(&mut buffer).await.unwrap() > 0, "and served once there is room");
}

#[tokio::test]
async fn a_stream_that_watches_for_the_drain_ends_whole() {
    let world = world(None, Limits { drain_seconds: 60, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    assert!(ask_http1(&mut stream, "/polite").await.contains("200 OK"));
    let asked = Instant::now();
    world.shutdown.cancel();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the chunked answer has its end");
    world.served.await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(30), "nobody waited for the drain's deadline");
}

#[tokio::test]
async fn a_stream_without_an_end_is_cut_off_at_the_deadline() {
    let world = world(None, Limits { drain_seconds: 1, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    assert!(ask_http1(&mut stream, "/endless").await.contains("200 OK"));
    world.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(30), world.served).await.expect("serve returns by its deadline").unwrap();
    assert!(TcpStream::connect(world.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_server_for_known_clients_only_turns_away_who_shows_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(directory.path()).unwrap();
    let identity = authority.issue_server(&["localhost"]).unwrap();
    let server = pki::server_config(&identity, Clients::MustShow(authority.certificate())).unwrap();
    let world = world(Some(server), Limits::default()).await;
    let known = authority.issue_client("apiserver", "system:masters").unwrap();
    for (identity, served) in [(Some(&known), true), (None, false)] {
        let client = pki::client_config(authority.certificate(), identity).unwrap();
        let tcp = TcpStream::connect(world.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(client);
        let mut tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let asked = tls.write_all(b"GET /who HTTP/1.1\r\nhost: onex\r\n\r\n").await;
        let mut buffer = [0; 1024];
        let answer = match asked {
            Ok(()) => tls.read(&mut buffer).await.unwrap_or(0),
            Err(_) => 0,
        };
        assert_eq!(buffer[..answer].starts_with(b"HTTP/1.1 200"), served);
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_has_one_part_of_its_answer_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(directory.path()).unwrap();
    let identity = authority.issue_server(&["127.0.0.1"]).unwrap();
    let server = pki::server_config(&identity, Clients::MayShow(authority.certificate())).unwrap();
    let world = world(Some(server), Limits::default()).await;
    let client = pki::client_config(authority.certificate(), None).unwrap();
    let mut over_http2 = Arc::unwrap_or_clone(client.clone());
    over_http2.alpn_protocols = vec![b"h2".to_vec()];
    let connect = async |client| {
        let tcp = TcpStream::connect(world.address).await.unwrap();
        tokio_rustls::TlsConnector::from(client).connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap()
    };
    let enough = async |made| {
        while world.parts.made.load(Ordering::SeqCst) < made {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(60);

    let mut tls = connect(client).await;
    tls.write_all(b"GET /parts HTTP/1.1\r\nhost: onex\r\n\r\n").await.unwrap();
    tokio::time::timeout(patience, enough(20)).await.expect("sockets hold more than this");
    assert_eq!(world.parts.most.load(Ordering::SeqCst), 1, "one part for a connection of HTTP/1.1");
    drop(tls);

    let tls = connect(Arc::new(over_http2)).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
    tokio::spawn(connection);
    let before = world.parts.made.load(Ordering::SeqCst);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let request = hyper::Request::get("https://onex/parts").body(Empty::new()).unwrap();
        answers.push(sender.send_request(request).await.unwrap());
    }
    tokio::time::timeout(patience, enough(before + 60)).await.expect("the windows of HTTP/2 are larger than this");
    // The first client may not have been noticed to be gone.
    assert!(world.parts.most.load(Ordering::SeqCst) <= 3 + 1, "one part for each stream of HTTP/2");
}
