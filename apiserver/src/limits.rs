//! How much at once, for how long, and until when.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use onex_daemon::listener::Closing;
use tokio::sync::Semaphore;

use crate::{
    Inner, Settings,
    authn::User,
    metrics::Terminated,
    request::Target,
    router::{Next, asked_timeout, target_of},
    status::Status,
};

/// No write may take longer, whatever is asked for.
const LONGEST_WRITE: Duration = Duration::from_secs(34);

/// Places for requests. Watches and logs take none. Where there is no limit, there are no places.
pub(crate) struct InFlight {
    reads: Option<Semaphore>,
    writes: Option<Semaphore>,
}

impl InFlight {
    pub(crate) fn new(settings: &Settings) -> Self {
        let places = |most: usize| (most > 0).then(|| Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            reads: places(settings.max_requests_in_flight),
            writes: places(settings.max_mutating_requests_in_flight),
        }
    }
}

/// Answers 429 when all places are taken, or when the server is about to end. Parts of the platform itself are never
/// turned away, nor is whoever asks how it is; whoever may do everything gets in also when it is full.
pub(crate) async fn in_flight(server: &Arc<Inner>, request: Request, next: impl Next) -> Response {
    let (own, almighty) = request
        .extensions()
        .get::<Arc<User>>()
        .map_or((false, false), |user| (user.is_own_part(), user.is_in("system:masters")));
    let target = target_of(&request);
    if own || asks_how_it_is(&target) {
        return next(request).await;
    }
    if server.shutdown.is_cancelled() {
        if let Some(closing) = request.extensions().get::<Closing>() {
            closing.after_this();
        }
        return terminated(Status::shutting_down());
    }
    let places = if target.is_read_only() { &server.limits.reads } else { &server.limits.writes };
    let Some(places) = places.as_ref().filter(|_| !target.is_long_running()) else { return next(request).await };
    match places.try_acquire() {
        Ok(_place) => next(request).await,
        Err(_) if almighty => next(request).await,
        Err(_) => terminated(Status::too_many_requests()),
    }
}

fn asks_how_it_is(target: &Target) -> bool {
    let first = target.path.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    !target.is_resource && matches!(first, "healthz" | "livez" | "readyz" | "metrics")
}

/// Answers 504 when a request takes too long. What it was about may still happen, so no client is told to try it again.
pub(crate) async fn deadline(server: &Arc<Inner>, request: Request, next: impl Next) -> Response {
    let target = target_of(&request);
    if target.is_long_running() {
        return next(request).await;
    }
    let most = Duration::from_secs(server.settings.request_timeout_seconds);
    let (most, why) = match target.is_read_only() || !target.is_resource {
        true => (most, "request did not complete within the allotted timeout"),
        false => {
            let why = "request did not complete within requested timeout - context deadline exceeded";
            (most.min(LONGEST_WRITE), why)
        }
    };
    let asked = match asked_timeout(request.uri().query().unwrap_or_default()) {
        Ok(asked) => asked.unwrap_or(most).min(most),
        Err(status) => return status.into_response(),
    };
    tokio::time::timeout(asked, next(request)).await.unwrap_or_else(|_| terminated(Status::late(why)))
}

/// An answer that is counted as one of ours.
fn terminated(status: Status) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(Terminated);
    response
}
