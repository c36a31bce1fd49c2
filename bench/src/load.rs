//! Closed-loop loads: each client sends its next request when the last one is answered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;

use crate::{
    http::Server,
    lean::{Ask, Lean},
    objects::{Objects, items, share},
    table::Row,
};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// The lists that are measured: what they are called by programs and people, Accept, query.
pub(crate) const LISTS: &[(&str, &str, &str, &str)] = &[
    ("list", "list as JSON", JSON, ""),
    ("list_table", "list as Table", TABLE, ""),
    ("list_none", "list, selector that matches none", JSON, "?labelSelector=app%3Dnone"),
];

/// What a client does again and again.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Create,
    Get,
    Update,
}

impl Work {
    /// `value` is what a change sets, which must not be there already: what changes nothing is not written.
    pub(crate) async fn once(self, connection: &mut Lean, objects: &Objects, name: &str, value: &str) -> Result<()> {
        let path = objects.path();
        let (method, path, media, body) = match self {
            Self::Create => ("POST", path, JSON, objects.object(name)),
            Self::Get => ("GET", format!("{path}/{name}"), JSON, Bytes::new()),
            Self::Update => ("PATCH", format!("{path}/{name}"), MERGE, objects.change(value)),
        };
        connection.send(Ask { method, path: &path, media, body: &body }).await
    }
}

/// Creates `count` objects: durable when answered.
pub(crate) async fn create(
    server: &Arc<Server>,
    objects: &Arc<Objects>,
    row: (&str, &str),
    prefix: &str,
    count: usize,
    clients: usize,
) -> Result<Row> {
    closed(server, objects, row, Work::Create, prefix, count, count, clients).await
}

/// Reads objects of the `present` ones that [`create`] made as `many0`.
pub(crate) async fn get(
    server: &Arc<Server>,
    objects: &Arc<Objects>,
    row: (&str, &str),
    present: usize,
    count: usize,
    clients: usize,
) -> Result<Row> {
    closed(server, objects, row, Work::Get, "many0", present, count, clients).await
}

/// Changes objects of the `present` ones that [`create`] made as `many0`: durable when answered.
pub(crate) async fn update(
    server: &Arc<Server>,
    objects: &Arc<Objects>,
    row: (&str, &str),
    present: usize,
    count: usize,
    clients: usize,
) -> Result<Row> {
    closed(server, objects, row, Work::Update, "many0", present, count, clients).await
}

#[expect(clippy::too_many_arguments, reason = "a load is described by as many numbers")]
async fn closed(
    server: &Arc<Server>,
    objects: &Arc<Objects>,
    row: (&str, &str),
    work: Work,
    prefix: &str,
    present: usize,
    count: usize,
    clients: usize,
) -> Result<Row> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(server.connect_lean().await?);
    }
    let began = Instant::now();
    let client = |(number, mut connection): (usize, Lean)| {
        let objects = objects.clone();
        let mut names = share(prefix, present, number, clients);
        names.truncate(count.div_ceil(clients));
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(names.len());
            for name in names {
                let began = Instant::now();
                work.once(&mut connection, &objects, &name, &name).await?;
                times.push(began.elapsed());
            }
            anyhow::Ok(times)
        })
    };
    let clients: Vec<_> = connections.into_iter().enumerate().map(client).collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    Ok(Row::timed(row, began.elapsed(), times))
}

/// Lists everything a few times.
pub(crate) async fn list(
    server: &Arc<Server>,
    objects: &Arc<Objects>,
    id: &str,
    name: &str,
    accept: &str,
    query: &str,
) -> Result<Row> {
    let mut connection = server.connect().await?;
    let path = format!("{}{query}", objects.path());
    let (mut times, mut bytes, mut found) = (Vec::new(), 0, 0);
    let began = Instant::now();
    for _ in 0..7 {
        let began = Instant::now();
        let body = connection.send(Method::GET, &path, accept, JSON, Bytes::new()).await?;
        times.push(began.elapsed());
        bytes = body.len();
        found = items(&serde_json::from_slice(&body)?);
        ensure!((found > 0) == query.is_empty(), "a list of {found} objects");
    }
    let spent: Duration = times.iter().sum();
    let mut row = Row::timed((id, name), spent.min(began.elapsed()), times);
    row.note = format!("{found} objects, {:.1} MB", bytes as f64 / 1e6);
    Ok(row)
}
