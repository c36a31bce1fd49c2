//! What the controllers say about themselves over HTTP: `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::mirror::Monitor;

/// The pages. They name kinds and databases, and no object.
pub fn router(monitor: Arc<Monitor>) -> Router {
    Router::new()
        .route("/healthz", get("ok"))
        .route("/livez", get("ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(monitor)
}

/// A database that is away is nothing that a restart would mend, so `/livez` does not ask.
async fn ready(State(monitor): State<Arc<Monitor>>) -> impl IntoResponse {
    let unready = monitor.unready();
    if unready.is_empty() {
        return (StatusCode::OK, "ok".to_owned());
    }
    let lines: String = unready.iter().map(|line| format!("[-]mirror {line}\n")).collect();
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}readyz check failed\n"))
}

async fn metrics(State(monitor): State<Arc<Monitor>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], monitor.metrics())
}
