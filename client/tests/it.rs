//! What a client over a router may rely on, asked of a small axum router.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where, and that is all it can do")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The other end of the one watch that the router serves.
type Pen = mpsc::Sender<Bytes>;

#[derive(Clone, Default)]
struct Server {
    pen: Arc<Mutex<Option<Pen>>>,
}

fn router(server: Server) -> Router {
    Router::new()
        .route("/api/v1/namespaces/default/configmaps", get(list_or_watch).post(create))
        .route("/api/v1/namespaces/default/configmaps/{name}", get(missing))
        .with_state(server)
}

async fn list_or_watch(State(server): State<Server>, Query(query): Query<Value>) -> Response {
    if query.get("watch").is_none() {
        return Json(json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": [map("a")]}))
            .into_response();
    }
    let (pen, page) = mpsc::channel(1);
    *server.pen.lock().unwrap() = Some(pen);
    Body::from_stream(ReceiverStream::new(page).map(Ok::<_, Infallible>)).into_response()
}

async fn create(Json(object): Json<Value>) -> Response {
    (StatusCode::CREATED, Json(object)).into_response()
}

async fn missing() -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
        "message": "configmaps \"b\" not found", "code": 404});
    (StatusCode::NOT_FOUND, Json(status)).into_response()
}

fn map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "resourceVersion": "1"}})
}

fn event(name: &str) -> Bytes {
    format!("{}\n", json!({"type": "ADDED", "object": map(name)})).into()
}

fn configmaps(server: Server) -> Api<ConfigMap> {
    Api::default_namespaced(onex_client::over_router(router(server), "default"))
}

fn name(event: WatchEvent<ConfigMap>) -> String {
    match event {
        WatchEvent::Added(map) => map.metadata.name.unwrap(),
        other => panic!("not an addition: {other:?}"),
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute")
}

#[tokio::test]
async fn objects_and_refusals_come_through_as_over_a_socket() {
    let api = configmaps(Server::default());
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    let map: ConfigMap = serde_json::from_value(map("c")).unwrap();
    assert_eq!(api.create(&PostParams::default(), &map).await.unwrap().metadata.name.unwrap(), "c");
    match api.get("b").await {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"))
        }
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_watch_hands_over_each_event_when_it_is_written_not_when_the_answer_ends() {
    let server = Server::default();
    let api = configmaps(server.clone());
    let events = api.watch(&WatchParams::default(), "0").await.unwrap();
    let mut events = std::pin::pin!(events);
    let pen = server.pen.lock().unwrap().clone().expect("the watch is open");
    for expected in ["x", "y", "z"] {
        pen.send(event(expected)).await.unwrap();
        assert_eq!(name(within(events.try_next()).await.unwrap().unwrap()), expected);
    }
    // An event that arrives in two pieces is one event.
    let whole = event("halved");
    let writing = async {
        pen.send(whole.slice(..9)).await.unwrap();
        pen.send(whole.slice(9..)).await.unwrap();
    };
    let (read, ()) = within(async { tokio::join!(events.try_next(), writing) }).await;
    assert_eq!(name(read.unwrap().unwrap()), "halved");
}

#[tokio::test]
async fn a_server_does_not_run_ahead_of_a_slow_watcher() {
    let server = Server::default();
    let events = configmaps(server.clone()).watch(&WatchParams::default(), "0").await.unwrap();
    let pen = server.pen.lock().unwrap().clone().expect("the watch is open");
    let mut written = 0;
    while tokio::time::timeout(Duration::from_millis(100), pen.send(event("x"))).await.is_ok() {
        written += 1;
        assert!(written < 100, "nobody reads, yet the server goes on writing");
    }
    drop(events);
}

#[tokio::test]
async fn an_abandoned_watch_is_dropped_at_the_server_too() {
    let server = Server::default();
    let events = configmaps(server.clone()).watch(&WatchParams::default(), "0").await.unwrap();
    let pen = server.pen.lock().unwrap().clone().expect("the watch is open");
    drop(events);
    within(pen.closed()).await;
}

#[tokio::test]
async fn a_kubeconfig_that_is_missing_or_broken_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let missing = onex_client::over_kubeconfig(&path).await.err().expect("there is no file");
    std::fs::write(&path, "contexts: []\ncurrent-context: nowhere\n").unwrap();
    let broken = onex_client::over_kubeconfig(&path).await.err().expect("the context is not there");
    for error in [missing, broken] {
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
