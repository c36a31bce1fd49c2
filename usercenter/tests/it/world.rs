//! A usercenter over a database in memory, with a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use onex_audit::AuditLog;
use onex_daemon::listener::Peer;
use onex_db::Db;
use onex_proto::token::{Algorithm, Claims, sign};
use onex_usercenter::keys::Keys;
use onex_usercenter::{Handles, Settings, Usercenter, password, throttle};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use url::Url;

/// A password that keeps to all rules.
pub const PASSWORD: &str = "correct horse 1";

pub struct World {
    pub center: Usercenter,
    pub db: Db,
    pub admin_password: String,
    pub audit: Arc<dyn AuditLog>,
    pub now: Arc<AtomicI64>,
    router: Router,
    key_file: tempfile::TempDir,
    settings: Settings,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// What it says, if it succeeded.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.code, 200, "{self:?}");
        self.body
    }

    /// Holds that it failed so, in the form that all errors have.
    #[track_caller]
    pub fn fails(self, code: u16, reason: &str) -> Value {
        assert_eq!((self.code, self.body["reason"].as_str()), (code, Some(reason)), "{self:?}");
        assert_eq!(self.body["code"], code);
        assert!(self.body["message"].is_string() && self.body["metadata"].is_object(), "{self:?}");
        self.body
    }
}

/// Settings that make no test wait.
pub fn settings() -> Settings {
    let password = password::Settings { memory_kib: 8, passes: 1, at_once: 4 };
    let throttle = throttle::Settings { registrations_per_address: 1000, ..throttle::Settings::default() };
    Settings { password, throttle, audit: true, ..Settings::default() }
}

impl World {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::over(&Url::parse("sqlite::memory:").unwrap(), settings).await
    }

    /// Over another database.
    pub async fn over(url: &Url, settings: Settings) -> Self {
        let db = onex_db::open(url, &onex_db::Settings::default()).unwrap();
        let audit = onex_audit::open(&Url::parse("memory:").unwrap(), &onex_audit::Settings::default()).await.unwrap();
        let now = Arc::new(AtomicI64::new(1_800_000_000_000_000));
        let key_file = tempfile::tempdir().unwrap();
        let center = start(&settings, &db, &audit, &now, &key_file).await;
        let admin_password = center.first_password().unwrap();
        assert_eq!(center.first_password(), None, "it is told once");
        let router = center.router();
        Self { center, db, admin_password, audit, now, router, key_file, settings }
    }

    /// Another usercenter over the same database.
    pub async fn another(&self) -> Self {
        self.another_over(self.db.clone()).await
    }

    /// Another usercenter over the same database, by connections of its own.
    pub async fn another_over(&self, db: Db) -> Self {
        let center = start(&self.settings, &db, &self.audit, &self.now, &self.key_file).await;
        assert_eq!(center.first_password(), None, "there is an administrator already");
        Self {
            router: center.router(),
            center,
            db,
            admin_password: self.admin_password.clone(),
            audit: self.audit.clone(),
            now: self.now.clone(),
            key_file: tempfile::tempdir().unwrap(),
            settings: self.settings.clone(),
        }
    }

    /// Starts it again, with another log.
    pub async fn replace_audit(&mut self, audit: Arc<dyn AuditLog>) {
        self.audit = audit;
        self.center = start(&self.settings, &self.db, &self.audit, &self.now, &self.key_file).await;
        self.router = self.center.router();
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.now.load(Ordering::SeqCst) / 1_000_000
    }

    pub fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// A request as the listener hands it on.
    pub async fn send(&self, mut request: Request<Body>) -> Answer {
        let address = request.headers_mut().remove("test-address");
        let address = address.map_or("192.0.2.1", |address| Box::leak(address.to_str().unwrap().into()));
        request.extensions_mut().insert(Peer::new(format!("{address}:1").parse().unwrap(), &[]));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { code, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).unwrap()).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, token, Value::Null).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("POST", path, token, body).await
    }

    pub async fn put(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("PUT", path, token, body).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        self.call("DELETE", path, token, Value::Null).await
    }

    pub async fn login(&self, username: &str, password: &str) -> Answer {
        self.post("/v1/auth/login", "", json!({ "username": username, "password": password })).await
    }

    pub async fn register(&self, username: &str) -> String {
        let body = json!({ "username": username, "password": PASSWORD, "email": "a@b.example" });
        text(&self.post("/v1/users", "", body).await.ok()["userID"])
    }

    /// A new user with an access token.
    pub async fn user(&self, username: &str) -> (String, String) {
        let id = self.register(username).await;
        (id, text(&self.login(username, PASSWORD).await.ok()["accessToken"]))
    }

    pub async fn admin(&self) -> String {
        text(&self.login("admin", &self.admin_password).await.ok()["accessToken"])
    }

    /// A new key pair.
    pub async fn secret(&self, token: &str, name: &str) -> (String, String) {
        let secret = self.post("/v1/secrets", token, json!({ "name": name })).await.ok();
        (text(&secret["secretID"]), text(&secret["secretKey"]))
    }

    /// A token signed with a key pair, as onexctl signs it.
    pub fn signed(&self, (id, key): &(String, String)) -> String {
        sign(key.as_bytes(), Algorithm::Hs256, Some(id), &self.claims())
    }

    pub fn claims(&self) -> Claims {
        let now = self.seconds();
        Claims { iss: "onexctl".to_owned(), iat: now, nbf: now, exp: Some(now + 7200), ..Claims::default() }
    }

    /// Whose token it is, as the gateway asks.
    pub async fn whose(&self, token: &str) -> Answer {
        self.post("/v1/auth/authenticate", "", json!({ "token": token })).await
    }

    /// A line of the policies, by an administrator.
    pub async fn policy(&self, line: [&str; 4]) -> i64 {
        let [sub, obj, act, eft] = line;
        let policy = json!({ "ptype": "p", "sub": sub, "obj": obj, "act": act, "eft": eft });
        let made = self.post("/v1/policies", &self.admin().await, json!({ "policy": policy })).await.ok();
        text(&made["policyID"]).parse().unwrap()
    }
}

async fn start(
    settings: &Settings,
    db: &Db,
    audit: &Arc<dyn AuditLog>,
    now: &Arc<AtomicI64>,
    key_file: &tempfile::TempDir,
) -> Usercenter {
    let clock = {
        let now = now.clone();
        Arc::new(move || now.load(Ordering::SeqCst))
    };
    let keys = Keys::open_or_create(&key_file.path().join("key")).unwrap();
    let handles = Handles { db: db.clone(), audit: Some(audit.clone()), keys, clock };
    Usercenter::new(settings.clone(), handles).await.unwrap()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
