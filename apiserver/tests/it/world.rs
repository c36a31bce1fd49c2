//! A whole apiserver in this process, and a client that speaks plain HTTP to it.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use futures::StreamExt;
use http::{HeaderMap, Method, Request, header};
use http_body_util::BodyExt;
use onex_apiserver::{Apiserver, Handles, Settings};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use crate::cluster::Cluster;

pub const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
pub const SETS: &str = "/apis/apps.onex.io/v1beta1/namespaces/default/minersets";
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An apiserver with nothing in it but the system namespaces.
pub struct World {
    router: Router,
    pub server: Arc<Apiserver>,
    /// The face of another user over the same apiserver has none.
    _stop: Option<DropGuard>,
    /// Where it stores, if that is a server of its own. Ends last.
    _cluster: Option<Cluster>,
}

/// A storage over all members of a cluster, once they answer.
pub async fn etcd(cluster: &Cluster) -> Arc<dyn onex_storage::Storage> {
    let location = format!("etcd://{}", cluster.members().join(",")).parse().unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match onex_storage::open(&location, &onex_storage::Settings::default()).await {
            Ok(storage) => return storage,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    /// The body, as far as it is text.
    pub text: String,
    pub bytes: bytes::Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The body as JSON, of an answer that must have this code.
    #[track_caller]
    pub fn is(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }

    /// The message of a `Status`, of an answer that must have this code.
    #[track_caller]
    pub fn says(&self, code: u16) -> String {
        self.is(code)["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.headers.get_all(header::WARNING).iter().map(|v| v.to_str().unwrap()).collect()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    /// In memory; in an etcd of its own for each test, if `ONEX_TEST_STORAGE` is `etcd`.
    pub async fn with(settings: Settings) -> Self {
        if std::env::var("ONEX_TEST_STORAGE").is_ok_and(|storage| storage == "etcd") {
            let cluster = Cluster::of(1, &[]);
            let storage = etcd(&cluster).await;
            return Self { _cluster: Some(cluster), ..Self::over(storage, settings).await };
        }
        let url = "memory:".parse().unwrap();
        let storage = onex_storage::open(&url, &onex_storage::Settings::default()).await.unwrap();
        Self::over(storage, settings).await
    }

    /// An apiserver over what is stored already.
    pub async fn over(storage: Arc<dyn onex_storage::Storage>, settings: Settings) -> Self {
        let world = Self::unready_over(storage, settings).await;
        world.server.ready().await;
        world
    }

    /// The same, without waiting until it is ready.
    pub async fn unready_over(storage: Arc<dyn onex_storage::Storage>, settings: Settings) -> Self {
        Self::unready_of(Handles::over(storage), settings).await
    }

    /// The same, of all that an apiserver can be given.
    pub async fn unready_of(handles: Handles, settings: Settings) -> Self {
        Self::of(Apiserver::new(settings, handles).await.unwrap())
    }

    /// An apiserver that runs from now on.
    pub fn of(server: Apiserver) -> Self {
        let server = Arc::new(server);
        let stop = CancellationToken::new();
        tokio::spawn({
            let (server, stop) = (server.clone(), stop.clone());
            async move { server.run(stop).await }
        });
        Self {
            router: server.router_as("admin", &["system:masters"]),
            server,
            _stop: Some(stop.drop_guard()),
            _cluster: None,
        }
    }

    /// Sends a GET as somebody who shows nothing but this token.
    pub async fn with_token(&self, token: &str, path: &str) -> Answer {
        let request = Request::get(path).header("accept", "application/json");
        let request = request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
        answered(self.server.router().oneshot(request).await.unwrap()).await
    }

    /// The same apiserver, as somebody else sees it.
    pub fn as_user(&self, user: &str, groups: &[&str]) -> Self {
        Self { router: self.server.router_as(user, groups), server: self.server.clone(), _stop: None, _cluster: None }
    }

    /// The same face of the same apiserver, which runs no longer for having it.
    pub fn door(&self) -> Self {
        Self { router: self.router.clone(), server: self.server.clone(), _stop: None, _cluster: None }
    }

    /// Sends a request. The media types are those that kubectl sends unless `headers` says otherwise.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answered(self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", "application/json")], Body::empty()).await
    }

    pub async fn table(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", TABLE)], Body::empty()).await
    }

    pub async fn post(&self, path: &str, object: Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub async fn put(&self, path: &str, object: Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub async fn patch(&self, media: &str, path: &str, patch: Value) -> Answer {
        self.send(Method::PATCH, path, &[("content-type", media)], patch.to_string()).await
    }

    pub async fn merge(&self, path: &str, patch: Value) -> Answer {
        self.patch("application/merge-patch+json", path, patch).await
    }

    pub async fn delete(&self, path: &str, options: Value) -> Answer {
        let body = if options.is_null() { Body::empty() } else { Body::from(options.to_string()) };
        self.send(Method::DELETE, path, &[("content-type", "application/json")], body).await
    }

    /// Begins to watch.
    pub async fn watch(&self, path: &str) -> Watch {
        self.watch_as(path, "application/json").await
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Watch {
        let begun = self.begin_to_watch(path, accept).await;
        begun.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// Begins to watch, if that is allowed.
    pub async fn begin_to_watch(&self, path: &str, accept: &str) -> Result<Watch, Answer> {
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        if response.status() != 200 {
            return Err(answered(response).await);
        }
        let pieces = response.into_body().into_data_stream().map(|p| p.unwrap().to_vec()).boxed();
        Ok(Watch { pieces, buffer: Vec::new() })
    }
}

async fn answered(response: axum::response::Response) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Answer { code: parts.status.as_u16(), headers: parts.headers, text, bytes }
}

/// A watch that is open.
pub struct Watch {
    pieces: futures::stream::BoxStream<'static, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; nothing when the stream ended.
    pub async fn next(&mut self) -> Option<Value> {
        let event = tokio::time::timeout(Duration::from_secs(60), self.event()).await;
        event.expect("an event within a minute")
    }

    /// The same, whenever it comes. May be given up, and asked for again.
    pub async fn event(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let piece = self.pieces.next().await?;
            self.buffer.extend(piece);
        }
    }

    /// The next piece of the stream as it comes; nothing when the stream ended.
    pub async fn piece(&mut self) -> Option<Vec<u8>> {
        self.pieces.next().await
    }

    /// The next event as `TYPE name`.
    pub async fn told(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap_or_default()
        )
    }

    /// Nothing comes for a while.
    pub async fn is_silent(&mut self) {
        let quiet = tokio::time::timeout(Duration::from_millis(150), self.pieces.next()).await.is_err();
        assert!(quiet && self.buffer.is_empty(), "nothing was expected");
    }
}

pub fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub fn labelled(name: &str, labels: Value) -> Value {
    let mut map = map(name);
    map["metadata"]["labels"] = labels;
    map
}

pub fn set(name: &str) -> Value {
    json!({
        "apiVersion": "apps.onex.io/v1beta1", "kind": "MinerSet", "metadata": {"name": name},
        "spec": {"replicas": 2, "displayName": "test", "template": {"spec": {"chainName": "genesis", "minerType": "M1.MEDIUM2"}}},
    })
}
