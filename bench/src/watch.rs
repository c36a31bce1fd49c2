//! Many watchers of one collection: how long from the request that changes an object until each of them has the news.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    http::{Connection, Server, Shared},
    objects::Objects,
    resident,
    table::Row,
};

const JSON: &str = "application/json";
/// What comes before the value of a change of ours.
const VALUE: &[u8] = br#""bench/value":"change-"#;

/// What comes before the revision of an object.
const REVISION: &[u8] = br#""resourceVersion":""#;

/// What one watcher saw.
#[derive(Default)]
struct Seen {
    /// The value of each change of ours, and when it came.
    values: Vec<(String, Instant)>,
    /// Events that came twice, or after a later one.
    doubled: usize,
}

/// How many watchers there are, and how many of them share a connection.
#[derive(Clone, Copy)]
pub(crate) struct Watchers {
    pub(crate) count: usize,
    pub(crate) per_connection: usize,
}

/// The connection of a watcher, which lasts as long as somebody holds it.
#[expect(dead_code, reason = "it is only held")]
enum Held {
    Own(Connection),
    Shared(Shared),
}

impl Watchers {
    /// Opens as many watches.
    async fn open(self, server: &Server, url: &str) -> Result<Vec<(Incoming, Held)>> {
        let mut open = Vec::with_capacity(self.count);
        let mut shared: Option<Shared> = None;
        for number in 0..self.count {
            let (answer, held) = if self.per_connection > 1 {
                if number % self.per_connection == 0 {
                    shared = Some(server.connect_shared().await?);
                }
                let connection = shared.clone().context("no connection")?;
                (connection.get(url, JSON).await?, Held::Shared(connection))
            } else {
                let mut connection = server.connect().await?;
                (connection.start(Method::GET, url, JSON, JSON, Bytes::new()).await?, Held::Own(connection))
            };
            ensure!(answer.status().is_success(), "watcher number {number}: {}", answer.status());
            open.push((answer.into_body(), held));
        }
        Ok(open)
    }
}

/// Opens watchers, makes `changes`, and times each delivery.
pub(crate) async fn fan_out(
    server: &Arc<Server>,
    objects: &Arc<Objects>,
    how: Watchers,
    changes: usize,
    pause: Duration,
) -> Result<Vec<Row>> {
    let watchers = how.count;
    let path = objects.path();
    let body = server.connect().await?.send(Method::GET, &format!("{path}?limit=1"), JSON, JSON, Bytes::new()).await?;
    let list: Value = serde_json::from_slice(&body)?;
    let revision = crate::text(&list, &["metadata", "resourceVersion"]).to_owned();
    let (done, mut results) = mpsc::channel(watchers.max(1));
    let before = resident(server).await;
    let url = format!("{path}?watch=true&resourceVersion={revision}&timeoutSeconds=600");
    let open = how.open(server, &url).await?;
    let memory = before.zip(resident(server).await).map(|(before, after)| after.saturating_sub(before));
    for (body, held) in open {
        let done = done.clone();
        tokio::spawn(async move {
            let seen = read(body, changes).await;
            // The receiver waits for all of them.
            let _ = done.send((seen, held)).await;
        });
    }
    drop(done);
    let began = Instant::now();
    let sent = change(server, objects, changes, pause).await?;
    let mut times = Vec::new();
    let mut doubled = 0;
    while let Some((seen, _held)) = results.recv().await {
        let seen = seen?;
        doubled += seen.doubled;
        for (value, at) in seen.values {
            times.push(at.saturating_duration_since(*sent.get(&value).context("a change that nobody made")?));
        }
    }
    let spent = began.elapsed();
    let name = format!("watch, request to client, {watchers} watchers");
    let mut row = Row::timed(("watch", &name), spent, times);
    let missing = watchers * changes - row.count();
    row.note = match (missing, doubled) {
        (0, 0) => "every change delivered once".to_owned(),
        _ => format!("{missing} changes not delivered, {doubled} events doubled or out of order"),
    };
    let each = memory.map(|memory| memory / watchers.max(1) as u64);
    let mut cost = Row::bytes("memory_watcher", "resident memory, for each watcher", each);
    cost.note = each.map_or_else(|| "not told".to_owned(), |each| format!("{:.1} KB", each as f64 / 1e3));
    Ok(vec![cost, row])
}

/// Changes an object again and again, `pause` apart, and answers when each request was sent.
async fn change(
    server: &Server,
    objects: &Objects,
    changes: usize,
    pause: Duration,
) -> Result<HashMap<String, Instant>> {
    let mut connection = server.connect().await?;
    let path = format!("{}/many0-000000", objects.path());
    let mut sent = HashMap::new();
    for number in 0..changes {
        sent.insert(number.to_string(), Instant::now());
        let change = objects.change(&format!("change-{number}"));
        connection.send(Method::PATCH, &path, JSON, "application/merge-patch+json", change).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(sent)
}

/// Reads a watch until `changes` of ours were seen.
async fn read(mut body: Incoming, changes: usize) -> Result<Seen> {
    let (mut seen, mut buffer, mut newest) = (Seen::default(), Vec::new(), 0);
    let patience = Duration::from_secs(60);
    while seen.values.len() < changes {
        let Ok(Some(frame)) = tokio::time::timeout(patience, body.frame()).await else { break };
        let now = Instant::now();
        buffer.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let revision = after(&line, REVISION).and_then(|revision| revision.parse::<u64>().ok()).unwrap_or_default();
            seen.doubled += usize::from(revision <= newest);
            newest = newest.max(revision);
            // The controllers change the object too, and leave our value as it is.
            let Some(value) = after(&line, VALUE) else { continue };
            if seen.values.last().is_none_or(|(last, _)| last != value) {
                seen.values.push((value.to_owned(), now));
            }
        }
    }
    Ok(seen)
}

/// The text between `mark` and the next quote. Looked for rather than parsed: a thousand watchers share the server's cores.
fn after<'a>(line: &'a [u8], mark: &[u8]) -> Option<&'a str> {
    let begin = memchr::memmem::find(line, mark)? + mark.len();
    let length = line[begin..].iter().position(|b| *b == b'"')?;
    std::str::from_utf8(&line[begin..begin + length]).ok()
}
