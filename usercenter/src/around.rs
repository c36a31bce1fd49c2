//! What every call goes through, on either wire: it gets a trace, a place, a limit of time, and a line in the log.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use onex_proto::{Error, Language, Reason};

use crate::call::{Trace, language};
use crate::{Usercenter, rest};

/// The header with the trace of an answer.
const TRACE: &str = "x-trace-id";

/// Around a call over REST.
pub async fn rest(State(center): State<Usercenter>, request: Request, next: Next) -> Response {
    around(&center, request, next, rest::failed).await
}

/// Around a call over gRPC.
pub async fn grpc(State(center): State<Usercenter>, request: Request, next: Next) -> Response {
    around(&center, request, next, |error, language| {
        let mut response = error.status(language).into_http::<axum::body::Body>();
        response.extensions_mut().insert(error.reason);
        response
    })
    .await
}

async fn around(
    center: &Usercenter,
    mut request: Request,
    next: Next,
    failed: impl Fn(&Error, Language) -> Response,
) -> Response {
    let started = Instant::now();
    let trace = trace_of(&request);
    request.extensions_mut().insert(Trace(trace.clone()));
    let language = language(request.headers());
    // Never the path or the query: what is in them is the caller's.
    let page = match request.extensions().get::<MatchedPath>() {
        Some(path) if path.as_str().contains("{*") => request.uri().path().chars().take(128).collect(),
        Some(path) => path.as_str().to_owned(),
        None => String::new(),
    };
    let method = request.method().clone();
    let mut response = match answered(center, request, next).await {
        Ok(response) => response,
        Err(error) => failed(&error, language),
    };
    let reason = response.extensions().get::<Reason>().map_or("", |reason| reason.name());
    let milliseconds = started.elapsed().as_millis();
    tracing::debug!(%method, page, code = response.status().as_u16(), reason, milliseconds, trace, "called");
    if let Ok(trace) = HeaderValue::try_from(trace) {
        response.headers_mut().insert(TRACE, trace);
    }
    response
}

async fn answered(center: &Usercenter, request: Request, next: Next) -> Result<Response, Error> {
    let _place = center.0.places.try_acquire().map_err(|_| busy())?;
    let patience = Duration::from_secs(center.0.settings.call_seconds.max(1).into());
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(patience, work).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => {
            tracing::error!("a call panicked");
            Err(Error::new(Reason::Unknown, "internal"))
        }
        Err(_) => Err(Error::new(Reason::Timeout, "timeout")),
    }
}

/// Too many at once.
pub fn busy() -> Error {
    Error::new(Reason::RateLimit, "too.many.requests").and("retryAfterSeconds", 1)
}

/// The trace that the caller is in, by W3C's header, or a new one.
fn trace_of(request: &Request) -> String {
    let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let theirs = parent.and_then(|parent| parent.split('-').nth(1)).filter(|trace| {
        trace.len() == 32
            && trace.bytes().all(|byte| byte.is_ascii_hexdigit())
            && trace.bytes().any(|byte| byte != b'0')
    });
    theirs.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_ascii_lowercase)
}
