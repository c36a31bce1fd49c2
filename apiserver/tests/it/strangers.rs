//! Clients that take no part as they should, over real sockets with TLS: they cost the others nothing, and do not stay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use onex_apiserver::Settings;
use onex_daemon::{
    listener::{self, Limits},
    pki::{self, Authority, Clients},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::world::{MAPS, World, map};

/// On a busy machine everything may take long; what stands still takes for ever.
const LONG: Duration = Duration::from_secs(60);

/// An apiserver behind a socket.
struct House {
    world: World,
    address: std::net::SocketAddr,
    connector: TlsConnector,
    _authority: tempfile::TempDir,
    _stop: DropGuard,
}

impl House {
    async fn new(settings: Settings, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(directory.path()).unwrap();
        let identity = authority.issue_server(&["localhost"]).unwrap();
        let tls = pki::server_config(&identity, Clients::MayShow(authority.certificate())).unwrap();
        let admin = authority.issue_client("admin", "system:masters").unwrap();
        let connector = TlsConnector::from(pki::client_config(authority.certificate(), Some(&admin)).unwrap());
        let world = World::with(settings).await;
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (door.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(listener::serve(door, Some(tls), world.server.router(), stop.clone(), limits));
        Self { world, address, connector, _authority: directory, _stop: stop.drop_guard() }
    }

    async fn plain(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        // So that the kernel keeps little for who does not read.
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connector.connect("localhost".try_into().unwrap(), self.plain().await).await.unwrap()
    }

    async fn watching(&self, query: &str) -> TlsStream<TcpStream> {
        let mut connection = self.connect().await;
        let head =
            format!("GET {MAPS}?watch=true{query} HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        connection
    }
}

/// The events in what came over a connection so far, and how much of it they are. Chunks of HTTP end with their event here.
async fn events(mut connection: TlsStream<TcpStream>, told: mpsc::UnboundedSender<Value>) {
    let mut received = Vec::new();
    while connection.read_buf(&mut received).await.is_ok_and(|read| read > 0) {
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            // Heads and lengths of chunks stand on lines of their own.
            let Ok(event) = serde_json::from_slice::<Value>(&line) else { continue };
            if event.is_object() && told.send(event).is_err() {
                return;
            }
        }
    }
}

fn name(event: &Value) -> &str {
    event["object"]["metadata"]["name"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_never_reads_is_cut_off_alone_and_the_others_are_told_at_once() {
    const EVENTS: usize = 300;
    let settings = Settings { history_bytes: 1 << 20, ..Settings::default() };
    let house = House::new(settings, Limits::default()).await;
    let frozen = house.watching("&resourceVersion=1").await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let (told, events_of) = mpsc::unbounded_channel();
        tokio::spawn(events(house.watching("").await, told));
        others.push(events_of);
    }
    // Who watches from now on is told of what is made from now on.
    house.world.post(MAPS, map("first")).await.is(201);
    let mut object = map("");
    // More than the kernel keeps of what is not read.
    object["data"]["a"] = "x".repeat(40_000).into();
    for other in &mut others {
        // It may have begun before or after.
        while name(&timeout(LONG, other.recv()).await.unwrap().unwrap()) != "first" {}
    }
    let mut slowest = Duration::ZERO;
    for number in 0..EVENTS {
        object["metadata"]["name"] = format!("m{number:04}").into();
        house.world.post(MAPS, object.clone()).await.is(201);
        let made = Instant::now();
        for other in &mut others {
            let event = timeout(LONG, other.recv()).await.expect("nobody waits for who does not read").unwrap();
            assert_eq!(name(&event), format!("m{number:04}"));
        }
        slowest = slowest.max(made.elapsed());
    }
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    // When it reads at last, it finds the oldest, in order, and then that it is too late.
    let (told, mut late) = mpsc::unbounded_channel();
    tokio::spawn(events(frozen, told));
    let mut seen = Vec::new();
    loop {
        let event = timeout(LONG, late.recv()).await.unwrap().expect("it is told why the watch ends");
        if event["type"] == "ERROR" {
            assert_eq!(event["object"]["code"], 410, "{event}");
            break;
        }
        seen.push(name(&event).to_owned());
    }
    seen.retain(|name| name.starts_with('m'));
    let expected: Vec<_> = (0..seen.len()).map(|number| format!("m{number:04}")).collect();
    assert!(seen == expected && seen.len() < EVENTS, "{} of {EVENTS}", seen.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_of_what_it_is_sent_loses_its_place() {
    let house = House::new(Settings::default(), Limits { unread_seconds: 1, ..Limits::default() }).await;
    let (told, mut events_of) = mpsc::unbounded_channel();
    tokio::spawn(events(house.watching("").await, told));
    let mut frozen = house.watching("&resourceVersion=1").await;
    let mut object = map("");
    object["data"]["a"] = "x".repeat(500_000).into();
    for number in 0..30 {
        object["metadata"]["name"] = format!("m{number:04}").into();
        house.world.post(MAPS, object.clone()).await.is(201);
        while name(&timeout(LONG, events_of.recv()).await.unwrap().unwrap()) != format!("m{number:04}") {}
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    // What the kernel has is still there, and nothing comes after it, though the watch would last for an hour.
    let ended = timeout(LONG, async {
        let mut buffer = vec![0; 1 << 16];
        while frozen.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    });
    ended.await.expect("the connection was closed");
    house.world.post(MAPS, map("last")).await.is(201);
    while name(&timeout(LONG, events_of.recv()).await.unwrap().unwrap()) != "last" {}
}

/// Sends a byte after the other, slowly, until nobody takes any more. Answers what came back.
async fn drip(mut connection: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    let (mut answer, mut bytes) = (Vec::new(), bytes.iter().cycle());
    loop {
        let byte = [*bytes.next().unwrap()];
        if connection.write_all(&byte).await.is_err() || connection.flush().await.is_err() {
            return answer;
        }
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_millis(200), connection.read_buf(&mut answer)).await {
            return answer;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_one_byte_after_the_other_is_cut_off_and_nobody_else_waits() {
    let settings = Settings { request_timeout_seconds: 2, max_mutating_requests_in_flight: 4, ..Settings::default() };
    let limits = Limits { handshake_seconds: 2, request_head_seconds: 2, ..Limits::default() };
    let house = Arc::new(House::new(settings, limits).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let others = tokio::spawn({
        let (house, is_over) = (house.clone(), is_over.clone());
        async move {
            let (mut slowest, mut count) = (Duration::ZERO, 0);
            while !is_over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                house.world.post(MAPS, map(&format!("m{count}"))).await.is(201);
                house.world.get(&format!("{MAPS}/m{count}")).await.is(200);
                (slowest, count) = (slowest.max(asked.elapsed()), count + 1);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (slowest, count)
        }
    });
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    let body = format!("{head}content-length: 100000\r\n\r\n");
    let slow_to_shake_hands = async { drip(house.plain().await, &[22, 3, 1, 16, 0, 1, 0, 15, 252, 3, 3, 7]).await };
    let slow_to_ask = async { drip(house.connect().await, format!("{head}x: ").as_bytes()).await };
    let slow_to_say_what = async {
        let mut connection = house.connect().await;
        connection.write_all(body.as_bytes()).await.unwrap();
        drip(connection, b" ").await
    };
    let all = async { tokio::join!(slow_to_shake_hands, slow_to_ask, slow_to_say_what) };
    let (_, unasked, late) = timeout(LONG, all).await.expect("each of them is cut off");
    assert!(!unasked.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&unasked));
    assert!(late.starts_with(b"HTTP/1.1 504 "), "{}", String::from_utf8_lossy(&late));
    is_over.store(true, Ordering::Relaxed);
    let (slowest, count) = others.await.unwrap();
    assert!(count > 10 && slowest < Duration::from_secs(5), "{count} requests, {slowest:?}");
}
