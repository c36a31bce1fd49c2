//! Every error is a Kubernetes `Status`: the reasons, codes and sentences that clients match on.

use std::borrow::Cow;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use onex_crds::Invalid;
use serde_json::{Value, json};

/// An answer that is not what was asked for.
#[derive(Clone, Debug)]
pub struct Status {
    /// The HTTP status.
    pub code: u16,
    /// The word that programs match on; may be empty. Others than ours come from webhooks.
    pub reason: Cow<'static, str>,
    /// The sentence that people read.
    pub message: String,
    /// `details`, or null.
    pub details: Value,
    /// `metadata.continue`, where the client may go on from here.
    pub proceed: Option<String>,
}

/// What handlers answer.
pub type Result<T, E = Status> = std::result::Result<T, E>;

/// The thing that an error is about, as `details` names it.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The API group; empty for the core.
    pub group: &'a str,
    /// The plural resource name.
    pub resource: &'a str,
    /// The object's name; may be empty.
    pub name: &'a str,
}

impl About<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    fn details(&self) -> Value {
        let mut details = json!({ "kind": self.resource });
        if !self.name.is_empty() {
            details["name"] = self.name.into();
        }
        if !self.group.is_empty() {
            details["group"] = self.group.into();
        }
        details
    }
}

/// No answer names more causes than this, as nobody reads more.
pub(crate) const MOST_CAUSES: usize = 100;
/// And of what the client wrote itself, no more bytes than this are said in one piece.
const MOST_TEXT: usize = 1024;

/// More is wrong than will be told: a check may stop here. One request must not make a hundred times its size of answer.
pub fn is_enough(wrong: &[Invalid]) -> bool {
    wrong.len() > MOST_CAUSES
}

/// The beginning of what a client wrote, for an answer.
pub(crate) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MOST_TEXT));
    text
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: Value::Null, proceed: None }
    }

    fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// The refusal of a webhook, in whatever words it chose: its `status`, and the sentence that we make of it.
    pub fn refused(status: &Value, message: String) -> Self {
        let code = status["code"].as_u64().unwrap_or_default();
        let code = u16::try_from(code).ok().filter(|code| (400..1000).contains(code)).unwrap_or(400);
        let mut refused = Self::new(code, "", message);
        refused.reason = Cow::Owned(cut(status["reason"].as_str().unwrap_or_default().to_owned()));
        if let Some(details) = status.get("details").filter(|details| details.is_object()) {
            refused.details = details.clone();
        }
        refused
    }

    /// 401: who are you?
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403, with a reason of one's own.
    pub fn forbidden(about: About<'_>, why: impl std::fmt::Display) -> Self {
        let name = if about.name.is_empty() { String::new() } else { format!(" {:?}", about.name) };
        let message = format!("{}{name} is forbidden: {why}", about.qualified());
        Self::new(403, "Forbidden", message).with(about.details())
    }

    /// 403 for a path that is no resource.
    pub fn forbidden_path(message: String) -> Self {
        Self::new(403, "Forbidden", message).with(json!({}))
    }

    /// 404 for an object.
    pub fn not_found(about: About<'_>) -> Self {
        Self::new(404, "NotFound", format!("{} {:?} not found", about.qualified(), about.name)).with(about.details())
    }

    /// 404 for a path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with(json!({}))
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).with(json!({}))
    }

    /// 406: none of the media types the client accepts is served.
    pub fn not_acceptable(served: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", served.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// 409: the name is taken.
    pub fn already_exists(about: About<'_>, terminating: bool) -> Self {
        let prefix = if terminating { "object is being deleted: " } else { "" };
        let message = format!("{prefix}{} {:?} already exists", about.qualified(), about.name);
        Self::new(409, "AlreadyExists", message).with(about.details())
    }

    /// 409: no free name was found for a `generateName`.
    pub fn no_free_name(about: About<'_>) -> Self {
        let mut status = Self::already_exists(about, false);
        status.message.push_str(", the server was not able to generate a unique name for the object");
        status.details["retryAfterSeconds"] = 1.into();
        status
    }

    /// 409: somebody else was faster.
    pub fn conflict(about: About<'_>, why: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {:?}: {why}", about.qualified(), about.name);
        Self::new(409, "Conflict", message).with(about.details())
    }

    /// 409: the object is not the version that the client saw.
    pub fn modified(about: About<'_>) -> Self {
        Self::conflict(
            about,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409: fields are owned by other managers. Each conflict is `(field, message)`.
    pub fn apply_conflict(message: String, conflicts: &[(String, String)]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .take(MOST_CAUSES)
            .map(|(field, message)| {
                json!({"reason": "FieldManagerConflict", "message": cut(message.clone()), "field": cut(field.clone())})
            })
            .collect();
        Self::new(409, "Conflict", message).with(json!({ "causes": causes }))
    }

    /// 410: history is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: the body is too long.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415: the body's media type is not served here.
    pub fn unsupported_media_type(served: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            served.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422: the object is understood, and wrong. What is more than anybody reads is only counted.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Invalid]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let (causes, more) = causes.split_at(causes.len().min(MOST_CAUSES));
        let mut texts: Vec<String> = causes.iter().map(|cause| cut(cause.to_string())).collect();
        if !more.is_empty() {
            texts.push(format!("and at least {} more", more.len()));
        }
        let name = cut(name.to_owned());
        let list = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut details = json!({ "kind": kind });
        if !name.is_empty() {
            details["name"] = name.as_str().into();
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        let cause =
            |c: &Invalid| json!({"reason": c.reason(), "message": cut(c.message()), "field": cut(c.field.clone())});
        details["causes"] = causes.iter().map(cause).collect();
        Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {list}")).with(details)
    }

    /// 422 without causes: a patch that cannot be applied.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message).with(json!({}))
    }

    /// 429: come back in a second.
    pub fn too_many_requests() -> Self {
        let message = "Too many requests, please try again later.";
        Self::new(429, "TooManyRequests", message).with(json!({ "retryAfterSeconds": 1 }))
    }

    /// 429: a Pod may not be evicted, because of its disruption budget. It may be later: after so many seconds, if not 0.
    pub fn over_budget(why: String, retry_after_seconds: u32) -> Self {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
        if retry_after_seconds > 0 {
            details["retryAfterSeconds"] = retry_after_seconds.into();
        }
        Self::new(429, "TooManyRequests", message).with(details)
    }

    /// 429: the server is about to end. Another one, or the next, answers in a while.
    pub fn shutting_down() -> Self {
        let message = "The apiserver is shutting down, please try again later.";
        Self::new(429, "TooManyRequests", message).with(json!({ "retryAfterSeconds": 5 }))
    }

    /// 429: what is stored is still being read.
    pub fn initializing() -> Self {
        Self::new(429, "TooManyRequests", "storage is (re)initializing").with(json!({ "retryAfterSeconds": 1 }))
    }

    /// 500 with the cause that may be told.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let details = json!({ "causes": [{ "message": message.to_string() }] });
        Self::new(500, "InternalError", format!("Internal error occurred: {message}")).with(details)
    }

    /// 500 without a reason, as Kubernetes answers where a plain Go error slips through.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 501: known to Kubernetes, and not to us.
    pub fn not_implemented(part: &str) -> Self {
        Self::new(501, "NotImplemented", format!("this platform offers no {part}: its Pods are processes of the node"))
    }

    /// 503: the store, or a part behind us, is away.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message).with(json!({ "retryAfterSeconds": 1 }))
    }

    /// 504: it is not there yet; come back in a second.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {}", message.into())).with(json!({ "retryAfterSeconds": 1 }))
    }

    /// 504: it took longer than it may. Nobody knows what came of it, so nobody is told to do it again.
    pub fn late(message: &str) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}")).with(json!({}))
    }

    /// 504: the client knows a newer revision than we do.
    pub fn future_revision(asked: u64, current: u64) -> Self {
        Self::timeout(format!("Too large resource version: {asked}, current: {current}")).with(json!({
            "retryAfterSeconds": 1,
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        }))
    }

    /// The `Status` object, as it goes over the wire.
    pub fn object(&self) -> Value {
        let mut object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            object["reason"] = self.reason.as_ref().into();
        }
        if !self.details.is_null() {
            object["details"] = self.details.clone();
        }
        if let Some(token) = &self.proceed {
            object["metadata"]["continue"] = token.clone().into();
        }
        object
    }
}

/// What an error said: in the extensions of its response.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// The word that programs match on.
    pub(crate) reason: Cow<'static, str>,
    /// The sentence that people read.
    pub(crate) message: String,
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.object().to_string()));
        *response.status_mut() = StatusCode::from_u16(self.code).expect("codes are written above");
        response.extensions_mut().insert(Said { reason: self.reason.clone(), message: self.message.clone() });
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.details["retryAfterSeconds"].as_u64() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == 403 {
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        response
    }
}

/// The `Status` of a deletion that is done.
pub fn deleted(about: About<'_>, uid: &str) -> Value {
    let mut details = about.details();
    details["uid"] = uid.into();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
