//! WATCH: a cursor in a history that all watchers share.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, header};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Context, frames::Frames, get::wait_for, options::List, selection::Selection};
use crate::{
    answer::{Row, partial_of},
    metrics::Watching,
    negotiate::View,
    portions::{Batch, Portions},
    status::{Result, Status},
    table::MetaVersion,
    window::{END_OF_FRAME, Event, Item, Run, Snapshot, Window, begin_frame},
};

/// How often a watcher that wants bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// So long before its end, a watch sends a last bookmark.
const FAREWELL: Duration = Duration::from_secs(2);
/// No watch lasts longer than so many seconds: a day.
const LONGEST: u64 = 24 * 60 * 60;
/// At most so many events are handled at once.
const RUN: usize = 256;

/// Answers a stream of changes.
pub(super) async fn watch(cx: &Context) -> Result<Response> {
    let form = cx.form(|view| !matches!(view, View::MetadataList(_)))?;
    let frames = Frames::of(form.media, &cx.kind)?;
    let options = cx.list_options()?;
    let selection = cx.selection()?;
    let window = cx.server.registry.window(&cx.kind);
    let answer = cx.answer(form)?;
    let row = answer.row(form.view);
    let announce = options.initial_events == Some(true) && options.bookmarks;
    let announce = announce.then(|| answer.empty_list()).transpose()?.map(|list| STANDARD.encode(list));
    wait_for(cx, options.revision).await?;
    let media = frames.media();
    let watcher = Watcher { announce, ..Watcher::start(cx, &options, selection, window, (frames, row)) };
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(piece), watcher))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}

struct Watcher {
    window: Arc<Window>,
    selection: Selection,
    everything: bool,
    range: String,
    frames: Frames,
    row: Option<Row>,
    /// The synthetic beginning: the state that is sent first, and the last key that was sent.
    initial: Option<(Snapshot, Option<Arc<str>>)>,
    /// What was written of it, and not handed out yet.
    batch: Batch,
    portions: Portions,
    /// For a bookmark that says that the beginning is over: an empty list, to put the beginning into.
    announce: Option<String>,
    cursor: u64,
    news: watch::Receiver<u64>,
    bookmarks: Option<Instant>,
    deadline: Instant,
    said_farewell: bool,
    /// Goes off at the next bookmark, or at the end.
    alarm: Pin<Box<Sleep>>,
    shutdown: CancellationToken,
    /// The shutdown, waited for.
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
    counted: Watching,
}

impl Watcher {
    fn start(
        cx: &Context,
        options: &List,
        selection: Selection,
        window: Arc<Window>,
        (frames, row): (Frames, Option<Row>),
    ) -> Self {
        let news = window.news();
        let from_now = matches!(options.revision, None | Some(0));
        let fresh = options.initial_events.unwrap_or(from_now);
        let (_, snapshot) = selection.snapshots(&window);
        let cursor = if fresh || from_now { snapshot.revision } else { options.revision.unwrap_or(0) };
        let seconds = options
            .timeout_seconds
            .map(|asked| asked.min(LONGEST))
            .unwrap_or_else(|| rand::rng().random_range(1800..3600));
        let range = match (cx.kind.namespaced, cx.namespace()) {
            (true, namespace) if !namespace.is_empty() => format!("{}{namespace}/", cx.kind.prefix),
            _ => cx.kind.prefix.clone(),
        };
        // Nobody watches for longer than it is known who they are.
        let known = cx.expires.map_or(u64::MAX, |end| u64::try_from(end + 1 - cx.server.now()).unwrap_or(0));
        let deadline = Instant::now() + Duration::from_secs(seconds.min(known));
        Self {
            everything: selection.is_everything() && range == cx.kind.prefix,
            window,
            selection,
            range,
            frames,
            row,
            initial: fresh.then_some((snapshot, None)),
            batch: Batch::new(&cx.server.portions),
            portions: cx.server.portions.clone(),
            announce: None,
            cursor,
            news,
            bookmarks: options.bookmarks.then(|| Instant::now() + BOOKMARKS),
            deadline,
            said_farewell: false,
            alarm: Box::pin(tokio::time::sleep_until(deadline)),
            shutdown: cx.server.shutdown.clone(),
            ending: Box::pin(cx.server.shutdown.clone().cancelled_owned()),
            over: false,
            counted: cx.server.metrics.watching(&cx.kind),
        }
    }

    /// The next piece of the stream; nothing when it is over.
    async fn next(&mut self) -> Option<Bytes> {
        // What was begun is told to its end.
        while self.batch.ready() > 0 || !self.is_over() {
            if self.batch.ready() == 0 {
                self.initial();
            }
            if let Some(bytes) = self.batch.next() {
                return Some(bytes);
            }
            self.news.borrow_and_update();
            match self.window.events_after(self.cursor, RUN) {
                Run::Gone(begins) => {
                    self.over = true;
                    return Some(self.gone(begins));
                }
                Run::Events(events, up_to) => {
                    let (piece, taken) = self.piece(&events);
                    self.cursor = if taken < events.len() { events[taken - 1].revision } else { up_to };
                    if piece.is_some() {
                        return piece;
                    }
                    if events.len() == RUN {
                        continue; // there may be more, and nothing of this run was for us
                    }
                }
            }
            // Looked at after the events, the last of which tell that the objects went with their kind.
            if self.window.is_closed() {
                return None;
            }
            if let Some(bookmark) = self.pause().await {
                return Some(bookmark);
            }
        }
        None
    }

    /// Looked at before each piece: a watcher that is always behind never pauses.
    fn is_over(&mut self) -> bool {
        self.over |= self.shutdown.is_cancelled() || Instant::now() >= self.deadline;
        self.over
    }

    /// Waits for news. Answers a bookmark when it is time for one.
    async fn pause(&mut self) -> Option<Bytes> {
        let farewell = self.deadline.checked_sub(FAREWELL).filter(|_| self.bookmarks.is_some() && !self.said_farewell);
        let next = [self.bookmarks, farewell].into_iter().flatten().min().unwrap_or(self.deadline).min(self.deadline);
        if self.alarm.deadline() != next {
            self.alarm.as_mut().reset(next);
        }
        tokio::select! {
            changed = self.news.changed() => { self.over |= changed.is_err(); None }
            () = &mut self.ending => { self.over = true; None }
            () = &mut self.alarm => {
                if Instant::now() >= self.deadline {
                    self.over = true;
                    return None;
                }
                self.said_farewell |= farewell.is_some_and(|at| at <= Instant::now());
                self.bookmarks = self.bookmarks.map(|_| Instant::now() + BOOKMARKS);
                if let Run::Events(events, up_to) = self.window.events_after(self.cursor, 1)
                    && events.is_empty()
                {
                    self.cursor = up_to;
                }
                Some(self.bookmark(None))
            }
        }
    }

    /// Writes a portion of the synthetic beginning, if there is more of it.
    fn initial(&mut self) {
        let Some((snapshot, mut after)) = self.initial.take() else { return };
        self.batch.begin();
        let mut complete = true;
        for item in snapshot.range(&self.range, after.clone().as_deref()) {
            after = Some(item.key.clone());
            if self.selection.takes(item) {
                self.counted.told();
                added(&self.frames, self.row.as_mut(), item, &mut self.batch);
            }
            if self.batch.is_full() {
                complete = false;
                break;
            }
        }
        if !complete {
            self.initial = Some((snapshot, after));
        } else if let Some(list) = self.announce.take() {
            let bookmark = self.bookmark(Some(list));
            self.batch.out().extend_from_slice(&bookmark);
        }
        self.batch.end();
    }

    /// What these events are to this watcher, up to about a portion; nothing, if they are nothing to it. Also answers
    /// how many of them were looked at.
    fn piece(&mut self, events: &[Arc<Event>]) -> (Option<Bytes>, usize) {
        let mut single: Option<Bytes> = None;
        let mut many = BytesMut::new();
        let (mut taken, size) = (0, self.portions.size());
        for event in events {
            if many.len() + single.as_ref().map_or(0, Bytes::len) >= size {
                break;
            }
            taken += 1;
            let Some(line) = self.line(event) else { continue };
            self.counted.told();
            match single.take() {
                // One event is sent as the bytes that all watchers share; several are put together for one write.
                None if many.is_empty() => single = Some(line),
                Some(first) => {
                    many.extend_from_slice(&first);
                    many.extend_from_slice(&line);
                }
                None => many.extend_from_slice(&line),
            }
        }
        (single.or_else(|| (!many.is_empty()).then(|| self.portions.full(many))), taken)
    }

    fn line(&mut self, event: &Event) -> Option<Bytes> {
        if self.everything && self.row.is_none() {
            return Some(self.frames.shared(event));
        }
        if !event.item.key.starts_with(&self.range) {
            return None;
        }
        let before = event.previous.as_ref().filter(|p| self.selection.takes(p));
        let now = !event.deleted && self.selection.takes(&event.item);
        let (change, item) = match (before, now) {
            (None, false) => return None,
            (None, true) => ("ADDED", &event.item),
            (Some(_), true) => ("MODIFIED", &event.item),
            // What leaves the selection is told as it was before, with the revision of the change.
            (Some(before), false) => ("DELETED", before),
        };
        if self.row.is_none() && change == event.change() {
            return Some(self.frames.shared(event));
        }
        Some(told(&self.frames, self.row.as_mut(), change, item, event.revision))
    }

    /// A bookmark; with an empty list, the one at the end of the beginning.
    fn bookmark(&mut self, list: Option<String>) -> Bytes {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if let Some(list) = list {
            metadata["annotations"] =
                json!({"k8s.io/initial-events-end": "true", "kubernetes.io/initial-events-list-blueprint": list});
        }
        let object = match &mut self.row {
            Some(row) => row.bookmark(metadata),
            None => json!({"metadata": metadata}),
        };
        self.frames.shown("BOOKMARK", &self.named(object))
    }

    fn named(&self, mut object: Value) -> Value {
        if object.get("kind").is_none() {
            object["kind"] = self.selection.kind().into();
            object["apiVersion"] = self.selection.api_version().into();
        }
        object
    }

    fn gone(&self, begins: u64) -> Bytes {
        let status = Status::expired(format!("too old resource version: {} ({begins})", self.cursor));
        self.frames.shown("ERROR", &status.object())
    }
}

/// As [`frame`](crate::window::frame), of the metadata alone.
fn metadata_frame(change: &str, item: &Item, revision: u64, version: MetaVersion) -> Bytes {
    let mut out = BytesMut::with_capacity(item.stored.metadata().len() + 160);
    begin_frame(change, &mut out);
    partial_of(&item.stored, revision, version, &mut out);
    out.put_slice(END_OF_FRAME);
    out.freeze()
}

/// Tells of an object that was there in the beginning.
fn added(frames: &Frames, row: Option<&mut Row>, item: &Item, batch: &mut Batch) {
    const ADDED: &str = "ADDED";
    if row.is_some() || !matches!(frames, Frames::Json) {
        return batch.out().extend_from_slice(&told(frames, row, ADDED, item, item.revision));
    }
    begin_frame(ADDED, batch.out());
    batch.object(&item.stored, item.revision);
    batch.out().extend_from_slice(END_OF_FRAME);
}

fn told(frames: &Frames, row: Option<&mut Row>, change: &str, item: &Item, revision: u64) -> Bytes {
    match row {
        None => frames.stored(change, item, revision),
        Some(row) => match (frames, row.copied()) {
            (Frames::Json, Some(version)) => metadata_frame(change, item, revision, version),
            _ => frames.shown(change, &row.shown(item.stored.value_at(revision))),
        },
    }
}
