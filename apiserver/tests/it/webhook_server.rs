//! A real webhook: HTTPS, with an authority of its own.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::Uri, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use onex_daemon::{
    listener::{self, Limits},
    pki::{self, Authority, Clients},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a webhook does: from the path and the request to how long it takes and what it responds.
type Mind = dyn Fn(&str, &Value) -> (Duration, Value) + Send + Sync;

/// A webhook that listens until this is dropped.
pub struct WebhookServer {
    pub port: u16,
    pub authority: String,
    /// What it shows itself.
    pub certificate: String,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    _stop: DropGuard,
}

struct Ear {
    mind: Box<Mind>,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
}

async fn review(State(ear): State<Arc<Ear>>, uri: Uri, Json(review): Json<Value>) -> Json<Value> {
    assert_eq!(review["kind"], "AdmissionReview");
    ear.heard.lock().push((uri.to_string(), review["request"].clone()));
    let (pause, mut response) = (ear.mind)(uri.path(), &review["request"]);
    tokio::time::sleep(pause).await;
    if response["uid"].is_null() {
        response["uid"] = review["request"]["uid"].clone();
    }
    Json(json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}))
}

impl WebhookServer {
    /// A webhook that responds at once.
    pub async fn new(mind: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        Self::slow(move |path, request| (Duration::ZERO, mind(path, request))).await
    }

    /// A webhook that takes its time.
    pub async fn slow(mind: impl Fn(&str, &Value) -> (Duration, Value) + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(directory.path()).unwrap();
        let identity = authority.issue_server(&["127.0.0.1", "hook.default.svc"]).unwrap();
        let tls = pki::server_config(&identity, Clients::Anybody).unwrap();
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = door.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::new(Ear { mind: Box::new(mind), heard: heard.clone() });
        let router = Router::new().fallback(post(review)).with_state(ear);
        let stop = CancellationToken::new();
        tokio::spawn(listener::serve(door, Some(tls), router, stop.clone(), Limits::default()));
        let authority = STANDARD.encode(authority.certificate_pem());
        let certificate = STANDARD.encode(identity.certificate_pem());
        Self { port, authority, certificate, heard, _stop: stop.drop_guard() }
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Value> {
        self.heard.lock().iter().map(|(_, request)| request.clone()).collect()
    }

    /// At which URLs it was asked so far.
    pub fn paths(&self) -> Vec<String> {
        self.heard.lock().iter().map(|(uri, _)| uri.clone()).collect()
    }

    /// A webhook of a configuration that asks here about every write of ConfigMaps; `more` goes over it.
    pub fn webhook(&self, name: &str, path: &str, more: Value) -> Value {
        let mut webhook = json!({
            "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.authority},
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        });
        for (field, value) in more.as_object().unwrap() {
            webhook[field] = value.clone();
        }
        webhook
    }
}

/// The response that says yes.
pub fn yes() -> Value {
    json!({"allowed": true})
}

/// The response that says yes, with changes.
pub fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}
