//! The calls over REST: a request becomes a message, and the answer JSON.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts as _, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use axum::{Json, Router};
use onex_proto::usercenter as v1;
use onex_proto::{Error, Language, Method, Reason, Route, Rules, openapi, usercenter_routes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::call::{Call, language};
use crate::calls::calls;
use crate::{SERVICE, Usercenter, around};

/// All pages.
pub fn router(center: &Usercenter) -> Router {
    let mut router = Router::new();
    for route in usercenter_routes() {
        router = router.route(route.path, page(center.clone(), route));
    }
    if center.0.settings.openapi {
        // Made when it is asked for: nobody keeps it in memory.
        router = router
            .route("/openapi/openapi.json", get(|| async { Json(openapi::document(SERVICE)) }))
            .route("/openapi/", get(|| async { Html(openapi::PAGE) }));
    }
    let lost = |request: Request| async move {
        failed(&Error::new(Reason::PageNotFound, "page.not.found"), language(request.headers()))
    };
    let wrong = |request: Request| async move {
        failed(&Error::new(Reason::MethodNotAllowed, "method.not.allowed"), language(request.headers()))
    };
    let router = router.route("/healthz", get(|| async { Json(serde_json::json!({ "status": "ok" })) }));
    let router = router.fallback(lost).method_not_allowed_fallback(wrong);
    // Outermost, so that every answer has a trace, also to what is refused.
    router.layer(axum::middleware::from_fn_with_state(center.clone(), around::rest))
}

macro_rules! pages {
    ($($rpc:ident $function:ident $request:ident $answer:ident;)*) => {
        /// The page of one route.
        fn page(center: Usercenter, route: &'static Route) -> MethodRouter {
            match route.rpc {
                $(stringify!($rpc) => on(filter(route.method), move |request: Request| {
                    let center = center.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let language = language(&parts.headers);
                        let call = Call::of(&parts.headers, &parts.extensions);
                        let answered = async {
                            let message: v1::$request = message(&center, route, parts, body).await?;
                            center.$function(&call, message).await
                        };
                        answer(answered.await, language)
                    }
                }),)*
                other => unreachable!("{other} has a route and no function"),
            }
        }
    };
}

calls!(pages);

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Delete => MethodFilter::DELETE,
    }
}

fn unreadable(why: impl ToString) -> Error {
    Error::new(Reason::Codec, "codec").with(why)
}

/// The message that a request carries: what is in the path wins over what is in the query or the body.
async fn message<M: DeserializeOwned + Rules>(
    center: &Usercenter,
    route: &Route,
    mut parts: Parts,
    body: Body,
) -> Result<M, Error> {
    let path = RawPathParams::from_request_parts(&mut parts, &()).await.map_err(unreadable)?;
    let mut fields = if route.method.has_body() {
        body_fields(center, &parts, body).await?
    } else {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(unreadable)?;
        query.0.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
    };
    for (name, value) in &path {
        fields.insert(name.to_owned(), Value::String(value.to_owned()));
    }
    let message: M = serde_json::from_value(Value::Object(fields)).map_err(unreadable)?;
    let violations = message.violations();
    if violations.is_empty() { Ok(message) } else { Err(Error::invalid(violations)) }
}

async fn body_fields(center: &Usercenter, parts: &Parts, body: Body) -> Result<Map<String, Value>, Error> {
    let kind = parts.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if kind.is_some_and(|kind| kind != "application/json") {
        return Err(unreadable("the body must be application/json"));
    }
    let most = center.0.settings.body_bytes;
    let bytes = to_bytes(body, most as usize).await;
    let bytes = bytes.map_err(|_| Error::new(Reason::TooLarge, "body.too.large").with(most))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(unreadable)
}

fn answer<T: Serialize>(outcome: Result<T, Error>, language: Language) -> Response {
    match outcome {
        Ok(message) => Json(message).into_response(),
        Err(error) => failed(&error, language),
    }
}

/// An error as REST tells it.
pub fn failed(error: &Error, language: Language) -> Response {
    let code = StatusCode::from_u16(error.reason.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (code, Json(error.body(language))).into_response();
    if let Some(wait) = error.metadata().get("retryAfterSeconds").and_then(|wait| wait.parse().ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    response.extensions_mut().insert(error.reason);
    response
}
