//! HTTP/1.1 as it goes over a socket, between the real listener and a client that writes every byte itself.

use std::time::Duration;

use onex_daemon::listener::{self, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::world::{MAPS, World, map};

/// A connection to a server that is gone when this is.
struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    _stop: tokio_util::sync::DropGuard,
}

impl Connection {
    async fn new(world: &World) -> Self {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(door.local_addr().unwrap()).await.unwrap();
        let (router, stop) = (world.server.router_as("admin", &["system:masters"]), CancellationToken::new());
        tokio::spawn(listener::serve(door, None, router, stop.clone(), Limits::default()));
        Self { socket, received: Vec::new(), _stop: stop.drop_guard() }
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The head and the body of the next answer, which says how long it is or comes in pieces.
    async fn answer(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n").await.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if let Some(length) = length {
            return (head.clone(), self.exactly(length.parse().unwrap()).await);
        }
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        let mut body = String::new();
        loop {
            let length = usize::from_str_radix(self.until("\r\n").await.trim(), 16).unwrap();
            body.push_str(&self.exactly(length).await);
            assert_eq!(self.exactly(2).await, "\r\n");
            if length == 0 {
                return (head, body);
            }
        }
    }

    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|bytes| bytes == end.as_bytes()) {
                return self.exactly(at + end.len()).await;
            }
            self.receive().await;
        }
    }

    async fn exactly(&mut self, length: usize) -> String {
        while self.received.len() < length {
            self.receive().await;
        }
        String::from_utf8(self.received.drain(..length).collect()).unwrap()
    }

    async fn receive(&mut self) {
        let read = tokio::time::timeout(Duration::from_secs(5), self.socket.read_buf(&mut self.received)).await;
        assert_ne!(read.expect("an answer within five seconds").unwrap(), 0, "the connection ended");
    }
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: onex\r\ncontent-type: application/json\r\n{more}\r\n\r\n")
}

fn pieces(body: &str, size: usize) -> String {
    let piece = |bytes: &[u8]| format!("{:x}\r\n{}\r\n", bytes.len(), std::str::from_utf8(bytes).unwrap());
    body.as_bytes().chunks(size).map(piece).collect::<String>() + "0\r\n\r\n"
}

#[tokio::test]
async fn one_connection_takes_bodies_in_pieces_and_gives_them_and_goes_on_after_a_refusal() {
    let world = World::new().await;
    let mut connection = Connection::new(&world).await;
    for name in ["a", "b"] {
        let mut object = map(name);
        object["data"]["a"] = "x".repeat(100_000).into();
        connection.write(head("POST", MAPS, "transfer-encoding: chunked") + &pieces(&object.to_string(), 7000)).await;
        assert!(connection.answer().await.0.starts_with("http/1.1 201 "));
    }
    // Refused before anybody read the body, which must not be taken for the next request.
    connection
        .write(head("POST", "/nowhere", "transfer-encoding: chunked") + &pieces(&"{}".repeat(50_000), 7000))
        .await;
    assert!(connection.answer().await.0.starts_with("http/1.1 405 "));
    connection.write(head("GET", MAPS, "accept: application/json")).await;
    let (head, body) = connection.answer().await;
    assert!(head.starts_with("http/1.1 200 ") && head.contains("transfer-encoding: chunked"), "{head}");
    let list: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(list["items"][1]["metadata"]["name"], "b");
    assert!(body.len() > 200_000);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_there() {
    let world = World::new().await;
    let mut connection = Connection::new(&world).await;
    connection.write(head("POST", MAPS, "content-length: 1000000000")).await;
    connection.write(vec![b' '; 3 * 1024 * 1024 + 1]).await; // and not a byte of the rest
    let (head, body) = connection.answer().await;
    assert!(head.starts_with("http/1.1 413 "), "{head}");
    assert!(body.contains("Request entity too large: limit is 3145728"), "{body}");
    // What would come is no request, and nobody wants to read it.
    assert_eq!(connection.socket.read_buf(&mut connection.received).await.unwrap(), 0, "the connection is over");
}

/// What an HTTP/2 client with these headers is answered, and whether the connection can then be used again.
async fn over_http2(router: axum::Router, headers: &[(&str, &str)]) -> (u16, bool) {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(door.local_addr().unwrap()).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(listener::serve(door, None, router, stop.clone(), Limits::default()));
    let _stop = stop.drop_guard();
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(socket));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let mut connection = tokio::spawn(connection);
    let mut request = http::Request::get("http://onex/version");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let code = answer.status().as_u16();
    http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(500), &mut connection).await;
    if let Ok(ended) = &ended {
        ended.as_ref().unwrap().as_ref().expect("it says goodbye instead of breaking off");
    }
    (code, ended.is_err())
}

#[tokio::test]
async fn whoever_does_not_say_who_they_are_has_one_request_on_a_connection_of_http2() {
    let world = World::new().await;
    assert_eq!(over_http2(world.server.router(), &[("authorization", "Bearer wrong")]).await, (401, false));
    assert_eq!(over_http2(world.server.router(), &[]).await, (200, false));
    assert_eq!(over_http2(world.server.router_as("somebody", &[]), &[]).await, (200, true));
}

#[tokio::test]
async fn a_client_that_sends_all_of_a_body_that_is_too_long_still_hears_why_not() {
    let world = World::new().await;
    let mut connection = Connection::new(&world).await;
    connection.write(head("POST", MAPS, "content-length: 20000000")).await;
    connection.write(vec![b' '; 20_000_000]).await; // it looks at what comes back only when it has said all
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (head, body) = connection.answer().await;
    assert!(head.starts_with("http/1.1 413 ") && body.contains("RequestEntityTooLarge"), "{head}");
}
