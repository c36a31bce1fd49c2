//! A crowd: many clients that list everything at once and then watch, each reading at its own pace. What is measured is the
//! memory that the server needs for them, over what it needs for its state.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use crate::{
    http::{Connection, Server},
    load::{self, Work},
    objects::Objects,
    resident,
    table::Row,
};

const JSON: &str = "application/json";

/// How clients get the state that they watch from: what programs call it, what people call it, and whether it comes as events.
const WAYS: [(&str, &str, bool); 2] = [("crowd_list", "LIST and WATCH", false), ("crowd_watchlist", "WatchList", true)];

/// So many bytes a second are read by the first client, the second, and so on, and again from the beginning; nothing means as
/// many as come.
const PACES: [Option<u64>; 4] = [None, Some(4 << 20), Some(512 << 10), Some(32 << 10)];

/// What one object of the state has beside its filler.
const OBJECT_BYTES: u64 = 512;

/// What a crowd is to be measured with.
pub(crate) struct Crowd {
    /// How much state there is, in bytes.
    pub(crate) bytes: u64,
    /// How large an object is, in bytes.
    pub(crate) object_bytes: u64,
    /// How long the clients read.
    pub(crate) length: Duration,
}

/// What the clients of a crowd saw together.
#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    /// So many have everything, and watch.
    complete: AtomicUsize,
    /// So many events of changes came to those.
    news: AtomicU64,
}

impl Crowd {
    /// Makes the state, and answers how large it is.
    pub(crate) async fn prepare(&self, server: &Arc<Server>, objects: &Arc<Objects>) -> Result<Row> {
        let count = usize::try_from(self.bytes / self.object_bytes.max(1)).unwrap_or(usize::MAX).max(1);
        let larger = Arc::new(objects.of_bytes(self.object_bytes.saturating_sub(OBJECT_BYTES)));
        let mut made =
            load::create(server, &larger, ("crowd_create", "create, for the crowd"), "crowd", count, 64).await?;
        made.note = format!("{:.0} MB", self.bytes as f64 / 1e6);
        Ok(made)
    }

    /// Lets so many clients in, both ways, one after the other.
    pub(crate) async fn rows(
        &self,
        server: &Arc<Server>,
        objects: &Arc<Objects>,
        clients: usize,
        loaded: u64,
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (id, name, as_events) in WAYS {
            let seen = Arc::new(Seen::default());
            let peak = self.visit(server, objects, clients, as_events, &seen).await?;
            let extra = peak.saturating_sub(loaded);
            let (bytes, complete) = (seen.bytes.load(Ordering::Relaxed), seen.complete.load(Ordering::Relaxed));
            let mut row = Row::bytes(
                &format!("{id}_{clients}"),
                &format!("extra memory, {clients} clients at once, {name}"),
                Some(extra),
            );
            row.note = format!(
                "{:.1} MB; {:.1} GB were read, {complete} clients had it all and heard of {} changes",
                extra as f64 / 1e6,
                bytes as f64 / 1e9,
                seen.news.load(Ordering::Relaxed)
            );
            rows.push(row);
            tokio::time::sleep(Duration::from_secs(2)).await; // the server notices that they went
        }
        Ok(rows)
    }

    /// Answers the most memory that the server had while they were there.
    async fn visit(
        &self,
        server: &Arc<Server>,
        objects: &Arc<Objects>,
        clients: usize,
        as_events: bool,
        seen: &Arc<Seen>,
    ) -> Result<u64> {
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(server.connect().await?);
        }
        let end = Instant::now() + self.length;
        let mut crowd = JoinSet::new();
        for (number, connection) in connections.into_iter().enumerate() {
            let reader =
                Reader { seen: seen.clone(), pace: PACES[number % PACES.len()], began: Instant::now(), read: 0 };
            crowd.spawn(tokio::time::timeout_at(end.into(), reader.client(connection, objects.path(), as_events)));
        }
        let over = Arc::new(AtomicBool::new(false));
        let changes = tokio::spawn(change(server.clone(), objects.clone(), over.clone()));
        let mut peak = 0;
        while Instant::now() < end {
            let now = resident(server).await.context("the server does not tell how much memory it has")?;
            peak = peak.max(now);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        over.store(true, Ordering::Relaxed);
        changes.await??;
        while let Some(client) = crowd.join_next().await {
            // Who was cut off by the clock is one that reads slowly; who failed before says why.
            if let Ok(ended) = client? {
                ended?;
            }
        }
        Ok(peak)
    }
}

/// Changes one object ten times a second, so that those who watch have something to hear of.
async fn change(server: Arc<Server>, objects: Arc<Objects>, over: Arc<AtomicBool>) -> Result<()> {
    let mut connection = server.connect_lean().await?;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        Work::Update.once(&mut connection, &objects, "crowd-000000", &format!("crowd-{number}")).await?;
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// One of the crowd.
struct Reader {
    seen: Arc<Seen>,
    pace: Option<u64>,
    began: Instant,
    read: u64,
}

impl Reader {
    async fn client(mut self, mut connection: Connection, path: String, as_events: bool) -> Result<()> {
        let from = match as_events {
            true => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
            false => format!("resourceVersion={}", self.list(&mut connection, &path).await?),
        };
        let url = format!("{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds=3600&{from}");
        let mut body = self.begin(&mut connection, &url).await?;
        let mut complete = !as_events;
        while let Some(frame) = self.next(&mut body).await? {
            if complete {
                let lines = memchr::memchr_iter(b'\n', &frame).count();
                self.seen.news.fetch_add(lines as u64, Ordering::Relaxed);
            } else if memchr::memmem::find(&frame, br#""k8s.io/initial-events-end""#).is_some() {
                complete = true;
                self.seen.complete.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Reads a whole list, and answers what to watch from.
    async fn list(&mut self, connection: &mut Connection, path: &str) -> Result<String> {
        const REVISION: &[u8] = br#""resourceVersion":""#;
        let mut body = self.begin(connection, path).await?;
        let head = self.next(&mut body).await?.context("an empty list")?;
        let begin = memchr::memmem::find(&head, REVISION).context("a list without a revision")? + REVISION.len();
        let revision = head[begin..].iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte));
        let revision = revision.collect();
        while self.next(&mut body).await?.is_some() {}
        self.seen.complete.fetch_add(1, Ordering::Relaxed);
        Ok(revision)
    }

    async fn begin(&self, connection: &mut Connection, url: &str) -> Result<Incoming> {
        let answer = connection.start(Method::GET, url, JSON, JSON, Bytes::new()).await?;
        ensure!(answer.status().is_success(), "{url}: {}", answer.status());
        Ok(answer.into_body())
    }

    /// The next bytes, at this client's own pace.
    async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>> {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let data = frame?.into_data().unwrap_or_default();
        self.read += data.len() as u64;
        self.seen.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if let Some(pace) = self.pace {
            let due = self.began + Duration::from_secs_f64(self.read as f64 / pace as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        Ok(Some(data))
    }
}
