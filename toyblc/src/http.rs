//! The HTTP API: `/v1` for those with an account, health and metrics for everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use onex_daemon::listener::{self, Limits};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::block::{Block, BlockHash, MAX_DATA_BYTES};
use crate::ledger::Ledger;
use crate::metrics;
use crate::mine::{Unmined, mine_now};
use crate::node::{Core, Fault};
use crate::peers::PeerAddress;
use crate::peers::message::decimal;
use crate::settings::Account;

/// The most blocks in one answer, and as many as are sent when nothing is said.
pub const MAX_BLOCKS: u64 = 1000;

/// About how many bytes of blocks one answer has at most.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// No request needs more: JSON may escape each byte of `data` into six.
const MAX_BODY_BYTES: usize = 6 * MAX_DATA_BYTES + 1024;

const TRACE_ID: HeaderName = HeaderName::from_static("trace-id");

/// Serves until `stop`, and then finishes what was begun.
pub(crate) async fn serve(router: Router, listener: TcpListener, stop: CancellationToken) {
    let limits = Limits { connections: 256, request_head_seconds: 10, ..Limits::default() };
    listener::serve(listener, None, router, stop, limits).await;
}

/// Every route, in the order a request meets them.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let keys: Arc<[Key]> = core.settings.accounts.iter().map(Key::of).collect();
    let v1 = Router::new()
        .route("/blocks", get(list_blocks).post(create_block))
        .route("/blocks/{block}", get(get_block))
        .route("/height", get(get_height))
        .route("/peers", get(list_peers).post(create_peer))
        .fallback(no_page)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(keys, authenticate));
    Router::new()
        .nest("/v1", v1)
        .route("/healthz", get(healthz))
        .route("/metrics", get(get_metrics))
        .fallback(no_page)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(trace))
        .with_state(core)
}

/// An answer that says what went wrong, in the form of OneX's services.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    reason: &'static str,
    message: String,
    metadata: BTreeMap<&'static str, String>,
}

impl Problem {
    fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into(), metadata: BTreeMap::new() }
    }

    fn argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    fn bind(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BindError", message)
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.metadata.insert(name, value.to_string());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            reason: &'static str,
            message: String,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            metadata: BTreeMap<&'static str, String>,
        }
        let Self { status, reason, message, metadata } = self;
        (status, Json(Body { reason, message, metadata })).into_response()
    }
}

impl From<Fault> for Problem {
    fn from(Fault::Broken: Fault) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "the chain cannot be read; the node is stopping")
    }
}

impl From<Unmined> for Problem {
    fn from(unmined: Unmined) -> Self {
        match unmined {
            Unmined::TooMany => Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", unmined.to_string()),
            Unmined::TooLate | Unmined::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", unmined.to_string())
            }
        }
    }
}

/// Names every answer, by the name the caller chose if there is one.
async fn trace(request: Request, next: Next) -> Response {
    let given = request.headers().get(TRACE_ID).filter(|given| given.len() <= 128).cloned();
    let id = given.unwrap_or_else(|| {
        let id = hex::encode(rand::random::<[u8; 16]>());
        HeaderValue::from_str(&id).expect("hex digits can stand in a header")
    });
    let mut response = next.run(request).await;
    response.headers_mut().insert(TRACE_ID, id);
    response
}

/// What a right `user:password` hashes to. Hashes are compared, so that the time it takes tells nothing.
struct Key([u8; 32]);

impl Key {
    fn of(account: &Account) -> Self {
        Self(Sha256::digest(format!("{}:{}", account.user, account.password)).into())
    }
}

async fn authenticate(State(keys): State<Arc<[Key]>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credentials =
        header.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let credentials = credentials.and_then(|(_, encoded)| BASE64_STANDARD.decode(encoded.trim()).ok());
    let hash = credentials.map(Sha256::digest);
    let right = hash.is_some_and(|hash| keys.iter().filter(|key| hash.as_slice() == key.0).count() > 0);
    if right {
        return next.run(request).await;
    }
    let problem =
        Problem::new(StatusCode::UNAUTHORIZED, "Unauthenticated", "the user or the password is wrong, or missing");
    ([(WWW_AUTHENTICATE, "Basic realm=\"toyblc\", charset=\"UTF-8\"")], problem).into_response()
}

#[derive(Deserialize)]
struct Window {
    from: Option<u64>,
    limit: Option<u64>,
}

/// `GET /v1/blocks?from=&limit=`: blocks in order, the newest 1000 if nothing is said.
async fn list_blocks(
    State(core): State<Arc<Core>>,
    window: Result<Query<Window>, QueryRejection>,
) -> Result<Json<Vec<Arc<Block>>>, Problem> {
    let Query(Window { from, limit }) = window.map_err(|error| Problem::bind(error.body_text()))?;
    let limit = limit.unwrap_or(MAX_BLOCKS).min(MAX_BLOCKS);
    let from = from.unwrap_or_else(|| (core.tip().block.index + 1).saturating_sub(limit));
    Ok(Json(core.read(|ledger| ledger.read(from, limit, MAX_ANSWER_BYTES))?))
}

#[derive(Deserialize)]
struct NewBlock {
    data: String,
}

/// `POST /v1/blocks {data}`: mines a block with this data at once, and answers with it when it is on the disk.
async fn create_block(
    State(core): State<Arc<Core>>,
    body: Result<Json<NewBlock>, JsonRejection>,
) -> Result<Json<Block>, Problem> {
    let Json(NewBlock { data }) = body.map_err(unreadable)?;
    if data.is_empty() || data.len() > MAX_DATA_BYTES {
        let problem = Problem::argument("data must have some bytes, and not too many");
        return Err(problem.with("bytes", data.len()).with("max", MAX_DATA_BYTES));
    }
    Ok(Json(mine_now(core, data).await?))
}

/// `GET /v1/blocks/{index or hash}`: one block of the main chain.
async fn get_block(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Result<Json<Arc<Block>>, Problem> {
    let missing =
        || Problem::new(StatusCode::NOT_FOUND, "NotFound", "no such block on the main chain").with("block", &name);
    let at = |index| move |ledger: &Ledger| Ok(ledger.read(index, 1, usize::MAX)?.pop());
    if let Ok(index) = name.parse::<u64>() {
        return core.read(at(index))?.map(Json).ok_or_else(missing);
    }
    let hash: BlockHash = name.parse().map_err(|_| Problem::argument("a block is named by its index or its hash"))?;
    let recent = core.read(|ledger| Ok(ledger.chain().get(&hash).map(|placed| placed.block.index)))?;
    let index = match recent {
        Some(index) => Some(index),
        None => find_old(&core, hash).await?,
    };
    let block = index.map(|index| core.read(at(index))).transpose()?.flatten();
    block.filter(|block| block.hash == hash).map(Json).ok_or_else(missing)
}

/// The index of a block that is no longer in memory. Reads the whole file, one such search at a time.
async fn find_old(core: &Arc<Core>, hash: BlockHash) -> Result<Option<u64>, Problem> {
    if hash == core.rules.genesis().hash {
        return Ok(Some(0));
    }
    let place = Arc::clone(&core.lookups).acquire_owned().await.map_err(|_| Fault::Broken)?;
    let finder = core.read(|ledger| Ok(ledger.finder()))?;
    let searching = tokio::task::spawn_blocking(move || {
        let _held = place;
        finder.run(hash)
    });
    let found = searching.await.map_err(|_| Fault::Broken)?;
    Ok(core.read(|_| found)?)
}

/// What `GET /v1/height` answers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Height {
    height: u64,
    hash: BlockHash,
    #[serde(with = "decimal")]
    work: u128,
    difficulty: u64,
    interval_seconds: u64,
    timestamp: i64,
}

async fn get_height(State(core): State<Arc<Core>>) -> Json<Height> {
    let tip = core.tip();
    let Block { index: height, hash, difficulty, interval_seconds, timestamp, .. } = *tip.block;
    Json(Height { height, hash, work: tip.work, difficulty, interval_seconds, timestamp })
}

async fn list_peers(State(core): State<Arc<Core>>) -> Json<Vec<String>> {
    Json(core.peers.addresses().iter().map(ToString::to_string).collect())
}

#[derive(Serialize, Deserialize)]
struct NewPeer {
    peer: String,
}

/// `POST /v1/peers {peer}`: stays connected to this peer until the node ends.
async fn create_peer(
    State(core): State<Arc<Core>>,
    body: Result<Json<NewPeer>, JsonRejection>,
) -> Result<Json<NewPeer>, Problem> {
    let Json(NewPeer { peer }) = body.map_err(unreadable)?;
    let address: PeerAddress =
        peer.parse().map_err(|error: crate::peers::NotAnAddress| Problem::argument(error.to_string()))?;
    let peer = address.to_string();
    if !core.add_peer(address) {
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "there are too many such peers"));
    }
    Ok(Json(NewPeer { peer }))
}

async fn healthz() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok" }))
}

async fn get_metrics(State(core): State<Arc<Core>>) -> Response {
    let text = metrics::render(&core.counters, &core.gauges());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn no_page() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "PageNotFound", "there is nothing at this address")
}

async fn no_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this cannot be done with what is at this address")
}

fn unreadable(error: JsonRejection) -> Problem {
    let status = if error.status() == StatusCode::PAYLOAD_TOO_LARGE { error.status() } else { StatusCode::BAD_REQUEST };
    Problem::new(status, "BindError", error.body_text())
}
