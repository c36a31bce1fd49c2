//! Who did what: events for those who have to know afterwards.
//!
//! A policy says what is recorded of which request; without one nothing is, and nothing is spent on it.

mod event;
mod policy;
mod sink;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{self, Poll},
};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use onex_audit::AuditLog;
use onex_daemon::listener::Peer;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use event::{DECISION, Level, REASON, Stage};

use crate::{
    Error, Inner,
    authn::{Impersonator, User},
    body,
    registry::Clock,
    router::{AuditId, Next, target_of},
    status::{Said, Status},
};
use event::{Facts, Outcome};
use policy::{Decided, Policy};
use sink::Sink;

/// An answer that is longer is recorded without it, in bytes.
const ANSWER_BYTES: usize = 4 << 20;

/// What is recorded, and where. Nothing without a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A Policy of audit.k8s.io/v1, YAML or JSON. Empty: nothing is recorded. The content of Secrets and tokens never is.
    pub policy_file: String,
    /// A file for events, a line of JSON each. Empty: none. Only its owner may read it.
    pub log_file: String,
    /// The file is put aside when it would be longer, in bytes.
    pub log_bytes: u64,
    /// So many files that were put aside are kept.
    pub log_backups: usize,
    /// Each request that the policy names is also a record of the platform's own audit log (`stores.audit`).
    pub platform: bool,
    /// Answers wait until their events are on disk, and a request that cannot be recorded is refused. Otherwise events wait
    /// in a queue, and those that find no room there are dropped and counted (`apiserver_audit_error_total`).
    pub wait: bool,
    /// How much the queue holds, in bytes.
    pub queue_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy_file: String::new(),
            log_file: String::new(),
            log_bytes: 100 << 20,
            log_backups: 10,
            platform: false,
            wait: false,
            queue_bytes: 64 << 20,
        }
    }
}

/// What records.
pub(crate) struct Auditor {
    policy: Policy,
    sink: Sink,
    wait: bool,
    platform: bool,
    clock: Clock,
}

impl Auditor {
    /// Reads the policy and opens what is written to. `None` when nothing is to be recorded.
    pub(crate) fn new(
        settings: &Settings,
        log: Option<Arc<dyn AuditLog>>,
        clock: Clock,
    ) -> Result<Option<Self>, Error> {
        if settings.policy_file.is_empty() {
            return Ok(None);
        }
        let wrong = |path: &str, why: String| Error::Audit { path: path.to_owned(), why };
        let text = std::fs::read_to_string(&settings.policy_file);
        let text = text.map_err(|why| wrong(&settings.policy_file, why.to_string()))?;
        let policy = Policy::read(&text).map_err(|why| wrong(&settings.policy_file, why))?;
        let log = log.filter(|_| settings.platform);
        let platform = log.is_some();
        let sink = Sink::start(settings, log).map_err(|why| wrong(&settings.log_file, why.to_string()))?;
        Ok(Some(Self { policy, sink, wait: settings.wait, platform, clock }))
    }

    /// Records the stage, unless the policy leaves it out.
    async fn tell(&self, record: &Recorded, stage: Stage, outcome: &Outcome) -> Result<(), String> {
        let Some((line, in_platform)) = self.entry(record, stage, outcome) else { return Ok(()) };
        if self.wait {
            return self.sink.write(line, in_platform).await;
        }
        self.sink.offer(line, in_platform);
        Ok(())
    }

    /// The same where nobody can wait.
    fn mention(&self, record: &Recorded, stage: Stage, outcome: &Outcome) {
        if let Some((line, in_platform)) = self.entry(record, stage, outcome) {
            self.sink.offer(line, in_platform);
        }
    }

    fn entry(
        &self,
        record: &Recorded,
        stage: Stage,
        outcome: &Outcome,
    ) -> Option<(Vec<u8>, Option<onex_audit::Record>)> {
        if record.decided.omit_stages.contains(&stage) {
            return None;
        }
        let now = (self.clock)();
        let mut line = record.facts.event(stage, outcome, now).to_string().into_bytes();
        line.push(b'\n');
        let is_last = matches!(stage, Stage::ResponseComplete | Stage::Panic);
        let in_platform = (is_last && self.platform).then(|| record.facts.record(outcome, now));
        Some((line, in_platform))
    }

    /// The counters of the metrics page.
    pub(crate) fn write_metrics(&self, text: &mut String) -> std::fmt::Result {
        use std::fmt::Write;
        let counts = &self.sink.counts;
        let (dropped, failed) = (counts.dropped.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed));
        writeln!(text, "# HELP apiserver_audit_event_total Events that were written.")?;
        writeln!(text, "# TYPE apiserver_audit_event_total counter")?;
        writeln!(text, "apiserver_audit_event_total {}", counts.written.load(Ordering::Relaxed))?;
        writeln!(text, "# HELP apiserver_audit_error_total Events that were not, by what was in the way.")?;
        writeln!(text, "# TYPE apiserver_audit_error_total counter")?;
        writeln!(text, "apiserver_audit_error_total{{plugin=\"queue\"}} {dropped}")?;
        writeln!(text, "apiserver_audit_error_total{{plugin=\"log\"}} {failed}")
    }
}

/// What those say who are asked on the way of a request that is recorded: in the extensions of such a request, and of no other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    annotations: BTreeMap<String, String>,
    made: Option<(String, String)>,
}

impl Notes {
    /// Adds an annotation to the event.
    pub(crate) fn add(&self, name: impl Into<String>, value: impl Into<String>) {
        self.0.lock().annotations.insert(name.into(), value.into());
    }

    /// Says what a new object is called.
    pub(crate) fn made(&self, object: &Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        self.0.lock().made = Some((text("name"), text("uid")));
    }
}

/// A request that is recorded.
struct Recorded {
    decided: Decided,
    facts: Facts,
    notes: Notes,
}

impl Recorded {
    fn new(
        decided: Decided,
        request: &Request,
        user: Arc<User>,
        impersonated: Option<Arc<User>>,
        now: jiff::Timestamp,
    ) -> Self {
        let extensions = request.extensions();
        let id = extensions.get::<AuditId>().and_then(|id| id.0.to_str().ok()).unwrap_or_default().to_owned();
        let headers = request.headers();
        let facts = Facts {
            level: decided.level,
            id,
            uri: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            target: target_of(request),
            user,
            impersonated,
            source: sources(headers, extensions.get::<Peer>()),
            agent: text(headers, header::USER_AGENT.as_str()).chars().take(1024).collect(),
            received: now,
            request: None,
        };
        Self { decided, facts, notes: Notes::default() }
    }

    fn so_far(&self) -> Outcome {
        let noted = self.notes.0.lock();
        Outcome { made: noted.made.clone(), annotations: noted.annotations.clone(), ..Outcome::default() }
    }

    fn outcome(&self, response: &Response) -> Outcome {
        Outcome {
            code: response.status().as_u16(),
            status: response.extensions().get::<Said>().map(|said| (said.message.clone(), said.reason.to_string())),
            ..self.so_far()
        }
    }

    fn object(&self, media: &str, bytes: &[u8]) -> Option<Value> {
        let mut object = match media {
            "application/vnd.kubernetes.protobuf" => crate::protobuf::decode(bytes).ok()?.object,
            media if media.contains("yaml") => body::yaml(bytes).ok()?.object,
            media if media.contains("json") => serde_json::from_slice(bytes).ok()?,
            _ => return None,
        };
        if self.decided.omit_managed_fields {
            omit_managed_fields(&mut object);
            object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(omit_managed_fields);
        }
        Some(object)
    }
}

fn omit_managed_fields(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Those who passed a request on say for whom. The connection itself cannot lie, and comes last.
fn sources(headers: &HeaderMap, peer: Option<&Peer>) -> Vec<String> {
    let said = text(headers, "x-forwarded-for").split(',').chain([text(headers, "x-real-ip")]);
    let mut sources: Vec<String> = Vec::new();
    let connection = peer.map(|peer| peer.address.ip());
    for address in said.filter_map(|address| address.trim().parse().ok()).take(16).chain(connection) {
        let address: std::net::IpAddr = address;
        let address = address.to_string();
        if sources.last() != Some(&address) {
            sources.push(address);
        }
    }
    sources
}

/// Records what the policy wants recorded of those who have shown who they are, or are nobody.
pub(crate) async fn record(server: &Arc<Inner>, mut request: Request, next: impl Next) -> Response {
    let Some(auditor) = &server.audit else { return next(request).await };
    let taken_for = request.extensions().get::<Arc<User>>().cloned().unwrap_or_default();
    let (user, impersonated) = match request.extensions().get::<Impersonator>().cloned() {
        Some(Impersonator(user)) => (user, Some(taken_for)),
        None => (taken_for, None),
    };
    let target = target_of(&request);
    let Some(decided) = auditor.policy.decide(&user, &target) else { return next(request).await };
    let level = decided.level;
    let mut record = Recorded::new(decided, &request, user, impersonated, (auditor.clock)());
    request.extensions_mut().insert(record.notes.clone());
    if let Err(why) = auditor.tell(&record, Stage::RequestReceived, &Outcome::default()).await {
        return Status::internal(format!("the request cannot be recorded: {why}")).into_response();
    }
    if level >= Level::Request && !target.is_read_only() {
        let (parts, body) = request.into_parts();
        let bytes = match body::read(body).await {
            Ok(bytes) => bytes,
            Err(refusal) => {
                let response = refusal.into_response();
                auditor.mention(&record, Stage::ResponseComplete, &record.outcome(&response));
                return response;
            }
        };
        record.facts.request = record.object(body::media_type(&parts.headers), &bytes);
        request = Request::from_parts(parts, Body::from(bytes));
    }
    let answered = AssertUnwindSafe(next(request)).catch_unwind().await;
    let mut response = match answered {
        Ok(response) => response,
        Err(panic) => {
            auditor.mention(&record, Stage::Panic, &Outcome { code: 500, ..record.so_far() });
            std::panic::resume_unwind(panic)
        }
    };
    let mut outcome = record.outcome(&response);
    if target.is_long_running() && response.status().is_success() {
        auditor.mention(&record, Stage::ResponseStarted, &outcome);
        let last = Last { server: server.clone(), record, outcome };
        return response.map(|body| Body::new(Followed { body, _last: last }));
    }
    if level == Level::RequestResponse {
        let media = text(response.headers(), header::CONTENT_TYPE.as_str());
        let media = media.split(';').next().unwrap_or_default().trim().to_owned();
        let (parts, body) = response.into_parts();
        let (bytes, body) = look_at(body).await;
        outcome.response = bytes.and_then(|bytes| record.object(&media, &bytes));
        response = Response::from_parts(parts, body);
    }
    // What happened has happened: the client is told, and whoever keeps the log.
    if let Err(why) = auditor.tell(&record, Stage::ResponseComplete, &outcome).await {
        tracing::error!(%why, request = %record.facts.id, "a request was answered and could not be recorded");
    }
    response
}

/// Records a request whose sender could not show who they are, or may not be taken for whom they say.
pub(crate) fn refused(server: &Inner, request: &Request, user: Option<Arc<User>>, response: &Response) {
    let Some(auditor) = &server.audit else { return };
    let user = user.unwrap_or_default();
    let target = target_of(request);
    let Some(decided) = auditor.policy.decide(&user, &target) else { return };
    let record = Recorded::new(decided, request, user, None, (auditor.clock)());
    auditor.mention(&record, Stage::ResponseComplete, &record.outcome(response));
}

/// The bytes of a body, unless they are too many; and a body that has them all.
async fn look_at(mut body: Body) -> (Option<Bytes>, Body) {
    let mut seen = BytesMut::new();
    while seen.len() <= ANSWER_BYTES {
        match body.frame().await {
            None => {
                let bytes = seen.freeze();
                return (Some(bytes.clone()), Body::from(bytes));
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    seen.extend_from_slice(&data);
                }
            }
            Some(Err(_)) => break, // the client meets the same end
        }
    }
    let first = futures::stream::iter([Ok::<_, axum::Error>(seen.freeze())]);
    (None, Body::from_stream(futures::StreamExt::chain(first, body.into_data_stream())))
}

/// Records the end of an answer, however it comes.
struct Last {
    server: Arc<Inner>,
    record: Recorded,
    outcome: Outcome,
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(auditor) = &self.server.audit {
            auditor.mention(&self.record, Stage::ResponseComplete, &self.outcome);
        }
    }
}

/// A body that is followed to its end.
struct Followed {
    body: Body,
    _last: Last,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
