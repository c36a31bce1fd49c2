//! How much at once, and for how long.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::{Inner, Settings, authn::User, request::Target, router::asked_timeout, status::Status};

/// Places for requests. Watches and logs take none.
pub(crate) struct InFlight {
    reads: Semaphore,
    writes: Semaphore,
}

impl InFlight {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            reads: Semaphore::new(settings.max_requests_in_flight),
            writes: Semaphore::new(settings.max_mutating_requests_in_flight),
        }
    }
}

/// Answers 429 when all places are taken. Parts of the platform itself are never turned away.
pub(crate) async fn in_flight(State(server): State<Arc<Inner>>, request: Request, next: Next) -> Response {
    let target = request.extensions().get::<Target>().cloned().unwrap_or_default();
    let own = request.extensions().get::<User>().is_some_and(User::is_own_part);
    if target.is_long_running() || own {
        return next.run(request).await;
    }
    let places = if target.is_read_only() { &server.limits.reads } else { &server.limits.writes };
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => Status::too_many_requests().into_response(),
    }
}

/// Answers 504 when a request takes too long. What it was about may still happen.
pub(crate) async fn deadline(State(server): State<Arc<Inner>>, request: Request, next: Next) -> Response {
    let target = request.extensions().get::<Target>().cloned().unwrap_or_default();
    if target.is_long_running() {
        return next.run(request).await;
    }
    let most = Duration::from_secs(server.settings.request_timeout_seconds);
    let asked = match asked_timeout(request.uri().query().unwrap_or_default()) {
        Ok(asked) => asked.unwrap_or(most).min(most),
        Err(status) => return status.into_response(),
    };
    let late = || Status::timeout("request did not complete within the allotted timeout").into_response();
    tokio::time::timeout(asked, next.run(request)).await.unwrap_or_else(|_| late())
}
