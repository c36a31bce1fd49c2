//! LIST: a walk over a snapshot. No lock is held, and nothing is encoded again.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, Bytes};
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::{
    Context,
    get::wait_for,
    options::{List, Match},
    selection::Selection,
};
use crate::{
    answer::{Messages, Pieces, Shown},
    negotiate::{Form, Media, PROTOBUF, View},
    portions::Batch,
    protobuf,
    status::{Result, Status},
    window::{Item, Snapshot, Window},
};

/// What comes of writing. JSON is never refused: its bytes are there already.
type Encoded<T> = std::result::Result<T, protobuf::Error>;

/// Where a list goes on: the revision it shows, and the last key given, without the prefix.
struct Token {
    revision: i64,
    after: String,
}

impl Token {
    fn write(&self) -> String {
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": format!("{}\0", self.after)});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn read(text: &str) -> Result<Self> {
        let wrong =
            |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| wrong(&e.to_string()))?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(&crate::body::go_error(&bytes, &e)))?;
        let start = token["start"].as_str().unwrap_or_default();
        let version = token["v"].as_str().unwrap_or_default();
        if version != "meta.k8s.io/v1" {
            return Err(wrong(&format!("server does not recognize this encoded version {version}")));
        }
        if start.is_empty() || start.contains("..") || start.starts_with('/') {
            return Err(wrong("unrecognized start key"));
        }
        let revision = token["rv"].as_i64().ok_or_else(|| wrong("no revision"))?;
        Ok(Self { revision, after: start.trim_end_matches('\0').to_owned() })
    }
}

/// One page of a collection.
pub(super) struct Listed {
    /// All that is there,
    whole: Snapshot,
    /// and the part of it in which all is that is asked for.
    pub(super) snapshot: Snapshot,
    /// The common beginning of the keys.
    pub(super) range: String,
    pub(super) selection: Selection,
    /// The items, if they were collected; streamed from the snapshot otherwise.
    pub(super) items: Option<Vec<Arc<Item>>>,
    proceed: Option<String>,
    remaining: Option<usize>,
}

/// Answers a collection, or a page of it.
pub(super) async fn list(cx: &Context) -> Result<Response> {
    let form = cx.form(|view| !matches!(view, View::Metadata(_)))?;
    let options = cx.list_options()?;
    let listed = look(cx, &options).await?;
    let answer = cx.answer(form)?;
    if let Some(messages) = answer.messages() {
        return binary(cx, messages, listed).await;
    }
    match form.media {
        Media::Json => {
            let Pieces { head, row } = answer.pieces(listed.metadata())?;
            stream(cx, Written::Json(row), head.as_bytes(), listed)
        }
        _ => whole(cx, form, &listed),
    }
}

/// Takes the snapshot that the options ask for, and the page of it.
pub(super) async fn look(cx: &Context, options: &List) -> Result<Listed> {
    let selection = cx.selection()?;
    let window = cx.server.registry.window(&cx.kind);
    let token = options.proceed.as_deref().map(Token::read).transpose()?;
    let (whole, snapshot) = match snapshot(cx, &window, options, token.as_ref()).await? {
        Some(past) => (past.clone(), past),
        None => selection.snapshots(&window),
    };
    let range = range(cx, &selection);
    let mut listed = Listed { whole, snapshot, range, selection, items: None, proceed: None, remaining: None };
    if options.limit > 0 || token.is_some() {
        page(cx, &window, options.limit, token.as_ref(), &mut listed);
    }
    Ok(listed)
}

/// The past state that is asked for; nothing, if it is the present one.
async fn snapshot(cx: &Context, window: &Window, options: &List, token: Option<&Token>) -> Result<Option<Snapshot>> {
    if let Some(token) = token {
        if token.revision < 0 {
            return Ok(None); // the client knows that this page shows another state than the first
        }
        wait_for(cx, Some(token.revision.unsigned_abs())).await?; // only a forged token is ahead of us
        return window.snapshot_at(token.revision.unsigned_abs()).map(Some).map_err(|_| expired(token));
    }
    wait_for(cx, options.revision).await?;
    let exact = options.matching == Some(Match::Exact) || (options.matching.is_none() && options.limit > 0);
    match options.revision {
        Some(revision) if revision > 0 && exact => window
            .snapshot_at(revision)
            .map(Some)
            .map_err(|_| Status::expired("The resourceVersion for the provided list is too old.")),
        _ => Ok(None),
    }
}

fn expired(token: &Token) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.proceed = Some(Token { revision: -1, after: token.after.clone() }.write());
    status
}

/// The narrowest beginning of keys that has all that is selected.
fn range(cx: &Context, selection: &Selection) -> String {
    let kind = &cx.kind;
    let namespace = if cx.namespace().is_empty() { selection.namespace().unwrap_or_default() } else { cx.namespace() };
    match (kind.namespaced, namespace, selection.name()) {
        (true, "", _) | (false, _, None) => kind.prefix.clone(),
        (true, namespace, None) => format!("{}{namespace}/", kind.prefix),
        (_, namespace, Some(name)) => kind.key(namespace, name),
    }
}

fn page(cx: &Context, window: &Window, limit: usize, token: Option<&Token>, listed: &mut Listed) {
    let prefix = &cx.kind.prefix;
    let after = token.map(|t| format!("{prefix}{}", t.after));
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut rest = listed.snapshot.range(&listed.range, after.as_deref());
    let mut items: Vec<Arc<Item>> = Vec::new();
    for item in rest.by_ref() {
        if !listed.selection.takes(item) {
            continue;
        }
        if items.len() == limit {
            let last = items.last().map(|i| i.key[prefix.len()..].to_owned()).unwrap_or_default();
            let revision = i64::try_from(listed.snapshot.revision).unwrap_or(i64::MAX);
            listed.proceed = Some(Token { revision, after: last }.write());
            // With a selector nobody knows how many are left without looking at them all.
            listed.remaining = listed.selection.is_everything().then(|| rest.count() + 1);
            break;
        }
        items.push(item.clone());
    }
    if listed.proceed.is_some() {
        window.pin(&listed.whole);
    }
    listed.items = Some(items);
}

impl Listed {
    /// `metadata` of the list.
    pub(super) fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.snapshot.revision.to_string()});
        if let Some(token) = &self.proceed {
            metadata["continue"] = token.clone().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }

    /// Shows the items from `at` on, as long as `each` answers that it wants more. `true` when that was all.
    fn walk(&self, at: &mut Position, mut each: impl FnMut(&Item) -> Encoded<bool>) -> Encoded<bool> {
        if let Some(items) = &self.items {
            let from = if let Position::Next(next) = *at { next } else { 0 };
            for (index, item) in items.iter().enumerate().skip(from) {
                if !each(item)? && index + 1 < items.len() {
                    *at = Position::Next(index + 1);
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let after = if let Position::After(key) = &*at { Some(key.clone()) } else { None };
        for item in self.snapshot.range(&self.range, after.as_deref()) {
            if self.selection.takes(item) && !each(item)? {
                *at = Position::After(item.key.clone());
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn collected(&self) -> Vec<Arc<Item>> {
        let all = || self.snapshot.range(&self.range, None).filter(|i| self.selection.takes(i)).cloned().collect();
        self.items.clone().unwrap_or_else(all)
    }
}

/// The list in protobuf. How long it is must be said first.
async fn binary(cx: &Context, mut messages: Messages, listed: Listed) -> Result<Response> {
    const TURN: usize = 256; // others have theirs after so many items
    let (mut length, mut at) = (0, Position::Start);
    let mut done = false;
    while !done {
        let mut left = TURN;
        let measured = listed.walk(&mut at, |item| {
            length += messages.measure(item)?;
            left -= 1;
            Ok(left > 0)
        });
        done = measured.map_err(Status::internal)?;
        if !done {
            tokio::task::yield_now().await;
        }
    }
    let head = messages.begin(&listed.metadata(), length).map_err(Status::internal)?;
    stream(cx, Written::Protobuf(messages), &head, listed)
}

/// The list in portions: what comes before the items, the items, and what comes after them.
fn stream(cx: &Context, written: Written, head: &[u8], listed: Listed) -> Result<Response> {
    let (media, batch) = (written.media(), Batch::new(&cx.server.portions));
    let mut state = Streaming { listed, written, at: Position::Start, first: true, done: false, batch };
    state.fill(head).map_err(Status::internal)?;
    let body = if state.done && state.batch.ready() == 1 {
        Body::from(state.batch.next().unwrap_or_default())
    } else {
        Body::from_stream(futures::stream::try_unfold(state, |mut state| async move {
            Ok::<_, protobuf::Error>(state.next()?.map(|bytes| (bytes, state)))
        }))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}

/// How items are written.
enum Written {
    /// As the stored bytes, or what is shown of them, with commas between them.
    Json(Option<Shown>),
    Protobuf(Messages),
}

impl Written {
    fn media(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Protobuf(_) => PROTOBUF,
        }
    }

    fn item(&mut self, item: &Item, first: &mut bool, batch: &mut Batch) -> Encoded<()> {
        let row = match self {
            Self::Protobuf(messages) => return messages.write(item, batch.out()),
            Self::Json(row) => row,
        };
        if !std::mem::take(first) {
            batch.out().put_u8(b',');
        }
        match row {
            None => batch.object(&item.stored, item.revision),
            Some(row) => row.write(item, batch.out()),
        }
        Ok(())
    }

    fn end(&self) -> &'static [u8] {
        match self {
            Self::Json(_) => b"]}\n",
            Self::Protobuf(messages) => messages.end(),
        }
    }
}

/// How far a streamed list has come.
struct Streaming {
    listed: Listed,
    written: Written,
    at: Position,
    first: bool,
    /// All was written.
    done: bool,
    batch: Batch,
}

enum Position {
    Start,
    /// The next item of a collected page.
    Next(usize),
    /// The last key that was looked at.
    After(Arc<str>),
}

impl Streaming {
    /// The next bytes of the list. Nothing when it is complete.
    fn next(&mut self) -> Encoded<Option<Bytes>> {
        if self.batch.ready() == 0 && !self.done {
            self.fill(&[])?;
        }
        Ok(self.batch.next())
    }

    /// Writes a portion, after `head`.
    fn fill(&mut self, head: &[u8]) -> Encoded<()> {
        let Self { listed, written, at, first, batch, .. } = self;
        batch.begin();
        batch.out().put_slice(head);
        self.done = listed.walk(at, |item| {
            written.item(item, first, batch)?;
            Ok(!batch.is_full())
        })?;
        if self.done {
            batch.out().put_slice(written.end());
        }
        batch.end();
        Ok(())
    }
}

/// The list as YAML, or indented: for people, who ask for few.
fn whole(cx: &Context, form: Form, listed: &Listed) -> Result<Response> {
    let objects = listed.collected().iter().map(|item| cx.to_served(item.value())).collect();
    cx.answer(form)?.list(objects, listed.metadata())
}
