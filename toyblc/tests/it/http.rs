//! The HTTP API.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use onex_toyblc::Settings;
use serde_json::{Value, json};

use crate::world::{Running, grow, kept_in, now, own_address, quiet, request};

fn anonymous(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_wrong_password_is_answered_401() {
    let node = Running::start(quiet());
    for credentials in
        ["", "Basic dG95YmxjOndyb25n", "Basic ???", "Bearer dG95YmxjOm9uZXgoIyk2NjY=", "Basic dG95YmxjOg=="]
    {
        let request = Request::post("/v1/blocks")
            .header("authorization", credentials)
            .body(Body::from(r#"{"data":"x"}"#))
            .unwrap();
        let response = node.raw(request).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{credentials}");
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    }
    let (_, body) = node.ask(anonymous("/v1/blocks")).await;
    assert_eq!(body["reason"], "Unauthenticated");
    assert!(body["message"].is_string() && body.get("metadata").is_none());
    assert_eq!(node.height().await, 0);
}

#[tokio::test]
async fn what_is_not_there_is_answered_404() {
    let node = Running::start(quiet());
    for path in ["/", "/nothing", "/v1/nothing", "/v1/blocks/1/2"] {
        let (status, body) = node.ask(request(Method::GET, path, None)).await;
        assert_eq!((status, &body["reason"]), (StatusCode::NOT_FOUND, &json!("PageNotFound")), "{path}");
    }
    for block in ["1", &"ab".repeat(32)] {
        let (status, body) = node.ask(request(Method::GET, &format!("/v1/blocks/{block}"), None)).await;
        assert_eq!((status, &body["reason"]), (StatusCode::NOT_FOUND, &json!("NotFound")), "{body}");
    }
    let (status, body) = node.ask(request(Method::DELETE, "/v1/blocks", None)).await;
    assert_eq!((status, &body["reason"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("MethodNotAllowed")));
}

#[tokio::test]
async fn anybody_may_ask_for_health_and_metrics() {
    let node = Running::start(quiet());
    assert_eq!(node.ask(anonymous("/healthz")).await, (StatusCode::OK, json!({"status": "ok"})));
    let (status, text) = node.ask(anonymous("/metrics")).await;
    assert_eq!(status, StatusCode::OK);
    for line in text.as_str().unwrap().lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("toyblc_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn a_posted_block_is_mined_at_once_and_can_be_asked_for() {
    let node = Running::start(quiet());
    assert_eq!(node.get("/v1/peers").await, json!([]));
    let mut posted = Vec::new();
    for number in 1..=5 {
        let (status, block) =
            node.ask(request(Method::POST, "/v1/blocks", Some(json!({"data": format!("block {number}")})))).await;
        assert_eq!(status, StatusCode::OK, "{block}");
        assert_eq!((&block["index"], &block["address"]), (&json!(number), &json!("somebody")));
        posted.push(block);
    }
    assert_eq!(node.get("/v1/blocks?from=1").await, Value::from(posted.clone()));
    assert_eq!(node.get("/v1/blocks?from=2&limit=2").await, Value::from(posted[1..3].to_vec()));
    assert_eq!(node.get("/v1/blocks?limit=1").await, Value::from(posted[4..].to_vec()));
    assert_eq!(node.get("/v1/blocks?limit=0").await, json!([]));
    assert_eq!(node.get("/v1/blocks?from=99").await, json!([]));
    let genesis = &node.get("/v1/blocks").await[0];
    assert_eq!(genesis["previousHash"], "0");
    assert_eq!(genesis["data"], "genesis block");
    let hash = posted[2]["hash"].as_str().unwrap();
    assert_eq!(node.get(&format!("/v1/blocks/{hash}")).await, posted[2]);
    let height = node.get("/v1/height").await;
    assert_eq!((&height["height"], &height["hash"]), (&json!(5), &posted[4]["hash"]));
}

#[tokio::test]
async fn an_old_block_is_found_by_hash_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    grow(directory.path(), 1_300, "long", now() - 60);
    let node = Running::start(kept_in(quiet(), directory.path()));
    let old = node.get("/v1/blocks/5").await;
    assert_eq!(node.get(&format!("/v1/blocks/{}", old["hash"].as_str().unwrap())).await, old);
    let newest = node.get("/v1/blocks").await;
    assert_eq!(newest.as_array().unwrap().len(), 1_000);
    assert_eq!(newest[999]["index"], 1_300);
}

#[tokio::test]
async fn bad_input_is_answered_400_and_the_node_goes_on() {
    let node = Running::start(quiet());
    let post = |path: &str, body: &str| {
        let request = Request::post(path)
            .header("authorization", "Basic dG95YmxjOm9uZXgoIyk2NjY=")
            .header("content-type", "application/json");
        request.body(Body::from(body.to_owned())).unwrap()
    };
    let long = format!(r#"{{"data":"{}"}}"#, "x".repeat(17_000));
    for (path, body) in [
        ("/v1/blocks", "{"),
        ("/v1/blocks", "[]"),
        ("/v1/blocks", r#"{"data":7}"#),
        ("/v1/blocks", r#"{"data":""}"#),
        ("/v1/blocks", &long),
        ("/v1/peers", r#"{"peer":"http://a:1"}"#),
    ] {
        let (status, answer) = node.ask(post(path, body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer["reason"].is_string());
    }
    assert_eq!(node.ask(post("/v1/blocks", &"x".repeat(1 << 20))).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    for path in ["/v1/blocks?limit=many", "/v1/blocks/not-a-hash"] {
        assert_eq!(node.ask(request(Method::GET, path, None)).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(node.height().await, 0);
}

#[tokio::test]
async fn a_posted_peer_is_connected_to() {
    let (one, other) = (Running::start(quiet()), Running::start(quiet()));
    let (status, _) =
        one.ask(request(Method::POST, "/v1/peers", Some(json!({"peer": format!("ws://{}", other.p2p)})))).await;
    assert_eq!(status, StatusCode::OK);
    crate::world::eventually("they are connected", async || one.peers().await == 1 && other.peers().await == 1).await;
    assert_eq!(one.get("/v1/peers").await, json!([format!("ws://{}", other.p2p)]));
    assert_eq!(other.get("/v1/peers").await, json!([format!("ws://{}", one.p2p)]));
}

#[tokio::test]
async fn every_answer_has_a_trace_id() {
    let node = Running::start(quiet());
    let named = Request::get("/healthz").header("trace-id", "mine").body(Body::empty()).unwrap();
    assert_eq!(node.raw(named).await.headers()["trace-id"], "mine");
    assert!(!node.raw(anonymous("/nothing")).await.headers()["trace-id"].is_empty());
}

#[tokio::test]
async fn the_api_is_served_on_its_address_until_the_node_stops() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = Running::start(Settings { http_addr: (own_address(), 0).into(), ..quiet() });
    let address = node.http;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
    node.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let node = Running::start(quiet());
    let error = onex_toyblc::Node::new(Settings { http_addr: node.http, ..quiet() }).err().unwrap();
    assert!(format!("{error:#}").contains(&node.http.to_string()), "{error:#}");
}
