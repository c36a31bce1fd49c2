//! Step 2 of `kubectl apply`: the layers, in the order in which a request meets them.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use onex_daemon::listener::Closing;
use serde_json::json;

use crate::{
    Inner, answer::json_response, audit, authn, authz, body, discovery, gzip, handlers, health, limits, metrics,
    negotiate, refusals, request::Target, service_accounts, status::Status, version,
};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What a request is called in its answer and in the audit log.
#[derive(Clone, Debug)]
pub(crate) struct AuditId(pub(crate) HeaderValue);

/// What a request meets after a layer: the layers further in, and then its handler.
pub(crate) trait Next: FnOnce(Request) -> Self::Answered + Send {
    /// The answer to come.
    type Answered: Future<Output = Response> + Send;
}

impl<N: FnOnce(Request) -> A + Send, A: Future<Output = Response> + Send> Next for N {
    type Answered = A;
}

/// Puts layers around a handler: one function, compiled as a whole. Layers that are boxed one by one would cost each request
/// two allocations a layer, and more than all that they do.
macro_rules! through {
    ($server:expr, $request:expr; $handler:path) => { $handler($server, $request) };
    ($server:expr, $request:expr; $layer:path, $($further:path),+) => {
        $layer($server, $request, |request| through!($server, request; $($further),+))
    };
}

/// All that the apiserver answers.
pub(crate) fn router(server: Arc<Inner>) -> Router {
    Router::new().fallback(answer).with_state(server)
}

async fn answer(State(server): State<Arc<Inner>>, request: Request) -> Response {
    through!(
        &server, request;
        finish, // outermost, so that every answer has its headers
        body::finish, // refused or not, a body is read to its end
        catch_panics, // a bug answers 500 instead of closing the connection
        read_target, // all that follows asks what the request is about
        refusals::speak, // whoever refuses: the layers do, and the handlers
        gzip::compress, // needs to know that it is no watch
        metrics::count, // before authn: refusals count too
        authn::authenticate,
        audit::record, // after authn: it says who; before all that may refuse
        limits::in_flight, // after authn: strangers take no place
        limits::deadline,
        authz::authorize,
        dispatch
    )
    .await
}

async fn dispatch(server: &Arc<Inner>, request: Request) -> Response {
    let target = target_of(&request);
    let user = request.extensions().get::<Arc<authn::User>>().cloned().unwrap_or_default();
    if target.is_resource {
        // In a box, or every layer would have room on its stack for the largest of all handlers.
        return Box::pin(handlers::handle(server.clone(), target, user, request)).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Status::method_not_allowed().into_response();
    }
    page(server, &target.path, &request).unwrap_or_else(IntoResponse::into_response)
}

/// What a request is about, as [`read_target`] found out.
pub(crate) fn target_of(request: &Request) -> Arc<Target> {
    request.extensions().get::<Arc<Target>>().cloned().unwrap_or_default()
}

/// Everything that is no resource.
fn page(server: &Inner, path: &str, request: &Request) -> Result<Response, Status> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let accept = header(header::ACCEPT);
    let wanted = negotiate::aggregated(accept);
    let query = request.uri().query().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        [] => Ok(json_response(Body::from(paths(server).to_string()))),
        // Some checks have a slash in their name.
        [page @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            Ok(health::answer(server, page, &check.join("/"), query))
        }
        ["version"] => Ok(json_response(Body::from(version::document().to_string()))),
        ["metrics"] => Ok(metrics::page(server)),
        ["api"] if wanted.is_none() => Ok(discovery_response(server.documents.core_versions(host(request)), "")),
        ["api" | "apis", ..] => {
            let document = server.documents.get(&parts, wanted).ok_or_else(Status::no_such_path)?;
            Ok(discovery_response(document, header(header::IF_NONE_MATCH)))
        }
        [".well-known", ..] | ["openid", ..] => {
            server.service_accounts.document(path, host(request)).ok_or_else(Status::no_such_path)
        }
        ["openapi", rest @ ..] => server.openapi.answer(rest, query, accept, header(header::IF_NONE_MATCH)),
        _ => Err(Status::no_such_path()),
    }
}

/// Where the client found us. HTTP/2 says it in the URI.
fn host(request: &Request) -> &str {
    let named = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(|authority| authority.as_str()).or_else(named).unwrap_or_default()
}

fn discovery_response(document: discovery::Document, seen: &str) -> Response {
    let mut response = if !document.etag.is_empty() && seen == document.etag {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::from(document.body))
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(document.content_type));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&document.etag)
        && !document.etag.is_empty()
    {
        headers.insert(header::ETAG, etag);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    }
    response
}

fn paths(server: &Inner) -> serde_json::Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for kind in server.kinds.table().kinds.iter().filter(|k| !k.group.is_empty()) {
        paths.push(format!("/apis/{}", kind.group));
        paths.push(format!("/apis/{}/{}", kind.group, kind.version));
    }
    for other in ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"] {
        paths.push(other.to_owned());
    }
    paths.extend(service_accounts::PATHS.map(str::to_owned));
    paths.sort();
    paths.dedup();
    json!({ "paths": paths })
}

async fn finish(server: &Arc<Inner>, mut request: Request, next: impl Next) -> Response {
    let given = request.headers().get(AUDIT_ID).filter(|id| id.len() <= 64).cloned();
    let made = || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("digits and dashes");
    let id = given.unwrap_or_else(made);
    request.extensions_mut().insert(AuditId(id.clone()));
    let chance = server.settings.goaway_chance;
    if chance > 0.0
        && request.version() == http::Version::HTTP_2
        && rand::random::<f64>() < chance
        && let Some(closing) = request.extensions().get::<Closing>()
    {
        closing.after_this();
    }
    let mut response = next(request).await;
    let headers = response.headers_mut();
    headers.insert(AUDIT_ID, id);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

async fn catch_panics(_server: &Arc<Inner>, request: Request, next: impl Next) -> Response {
    AssertUnwindSafe(next(request)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a request met a bug; it was answered 500, and the panic is above");
        Status::internal("this request caused apiserver to panic. Look in the logs for details.").into_response()
    })
}

async fn read_target(_server: &Arc<Inner>, mut request: Request, next: impl Next) -> Response {
    let target = Target::read(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
    let span = tracing::debug_span!("request", verb = target.verb, path = %target.path);
    request.extensions_mut().insert(Arc::new(target));
    tracing::Instrument::instrument(next(request), span).await
}

/// How long `?timeout=` asks a request to last at most.
pub(crate) fn asked_timeout(query: &str) -> Result<Option<Duration>, Status> {
    let Some((_, text)) = crate::request::pairs(query).find(|(name, _)| name == "timeout") else { return Ok(None) };
    let wrong = || {
        let what = if text.parse::<f64>().is_ok() { "missing unit in" } else { "invalid" };
        Status::bad_request(format!("invalid timeout specified in the request URL - time: {what} duration {text:?}"))
    };
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let asked = go_duration(&text).ok_or_else(wrong)?;
    Ok(Some(asked).filter(|asked| !asked.is_zero())) // `0s` is no limit either
}

/// A duration as Go writes it: `32s`, `1m30s`, `500ms`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_durations_of_go() {
        assert_eq!(go_duration("32s"), Some(Duration::from_secs(32)));
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(go_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(go_duration("5"), None);
        assert_eq!(go_duration("s"), None);
    }

    #[test]
    fn no_time_at_all_means_no_limit() {
        for query in ["", "timeout=", "timeout=0", "timeout=0s", "timeout=0h0m0s"] {
            assert!(matches!(asked_timeout(query), Ok(None)), "{query}");
        }
        assert!(matches!(asked_timeout("timeout=1ms"), Ok(Some(_))));
        assert!(asked_timeout("timeout=soon").is_err());
    }
}
