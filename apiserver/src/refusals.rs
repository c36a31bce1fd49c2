//! Errors in the form that the client asked for, whoever made them. They are made as JSON, which is what nearly all read.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use http::{HeaderValue, header};

use crate::{
    Inner, answer,
    negotiate::{self, Media, View},
    protobuf,
    router::{Next, target_of},
};

/// No error is longer: texts and causes have their bounds.
const LONGEST: usize = 1024 * 1024;

/// Writes the `Status` of a refusal as protobuf or YAML, for those who prefer that.
pub(crate) async fn speak(server: &Arc<Inner>, request: Request, next: impl Next) -> Response {
    let asked = request.headers().get(header::ACCEPT).filter(|accept| is_special(accept)).cloned();
    let target = asked.as_ref().map(|_| target_of(&request));
    let response = next(request).await;
    let (Some(accept), Some(target)) = (asked, target) else { return response };
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == "application/json");
    if response.status().as_u16() < 400 || !is_json {
        return response;
    }
    // Where a custom resource is asked for, nobody expects protobuf; where nothing is, it is as good as JSON.
    let kind = server.kinds.find(&target.group, &target.version, &target.resource);
    let speaks = || kind.as_ref().is_none_or(|kind| protobuf::speaks(kind));
    match negotiate::form(accept.to_str().unwrap_or_default(), false, speaks, |view| view == View::Whole) {
        Ok(form) if matches!(form.media, Media::Protobuf | Media::Yaml) => translated(response, form.media).await,
        // What was refused is worth more to the client than that it cannot be said as asked for.
        _ => response,
    }
}

fn is_special(accept: &HeaderValue) -> bool {
    accept.to_str().is_ok_and(|accept| accept.contains("protobuf") || accept.contains("yaml"))
}

async fn translated(response: Response, media: Media) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(json) = to_bytes(body, LONGEST).await else { return Response::from_parts(parts, Body::empty()) };
    let status: Option<serde_json::Value> = serde_json::from_slice(&json).ok();
    let written = status.filter(|status| status["kind"] == "Status").map(|status| answer::write(media, &status));
    let Some(Ok(written)) = written else { return Response::from_parts(parts, Body::from(json)) };
    let (head, body) = written.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(head.headers);
    Response::from_parts(parts, body)
}
