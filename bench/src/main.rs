//! The load tool: what creating, reading, listing and watching cost, beside etcd's raw puts in the same run.
//!
//! It speaks plain HTTP/1.1 over TLS with the certificate of a kubeconfig, one connection a client, so that what is measured
//! is the server and not a client library. It runs on the same cores as the server: compare rows, not machines.

mod etcd;
mod http;
mod kubeconfig;
mod load;
mod objects;
mod platform;
mod table;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::Value;

use crate::{http::Server, objects::Objects, platform::Platform, table::Row};

/// Measures an apiserver.
#[derive(Parser)]
struct Arguments {
    /// Whose apiserver to measure, instead of a platform of its own.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The program that is started as `onex up` in an empty directory.
    #[arg(long, default_value = "target/release/onex")]
    onex: PathBuf,
    /// What to create: `configmaps`, or `minersets` without replicas, which the controllers look after.
    #[arg(long, default_value = "configmaps")]
    resource: String,
    /// How many objects, of about 1 KB.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// How many clients at the same time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How many watchers.
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// How many changes they are told of.
    #[arg(long, default_value_t = 500)]
    changes: usize,
    /// How far apart the changes are, in milliseconds.
    #[arg(long, default_value_t = 20)]
    pause_ms: u64,
    /// A quick run: fewer of everything.
    #[arg(long)]
    short: bool,
    /// Print one JSON object a row instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.short {
        arguments.count = arguments.count.min(2000);
        arguments.changes = arguments.changes.min(100);
    }
    let objects = Arc::new(Objects::new(&arguments.resource)?);
    let mut rows = Vec::new();
    let platform = match &arguments.kubeconfig {
        Some(_) => None,
        None => Some(Platform::start(&arguments.onex).await?),
    };
    rows.extend(platform.as_ref().map(Platform::row));
    let kubeconfig = arguments.kubeconfig.clone().or(platform.as_ref().map(Platform::kubeconfig));
    let server = Arc::new(Server::new(kubeconfig::read(&kubeconfig.context("no kubeconfig")?)?)?);
    tokio::time::sleep(Duration::from_secs(2)).await; // what "idle" means in the table
    rows.extend(measure(&arguments, &server, &objects).await?);
    if platform.is_none() {
        objects.clean(&server).await.context("cleaning up")?;
    }
    table::print(&rows, arguments.json);
    Ok(())
}

async fn measure(arguments: &Arguments, server: &Arc<Server>, objects: &Arc<Objects>) -> Result<Vec<Row>> {
    let (count, clients) = (arguments.count, arguments.clients);
    let pause = Duration::from_millis(arguments.pause_ms);
    objects.prepare(server).await?;
    let mut rows = vec![Row::note("load average before", table::load_average())];
    rows.push(Row::bytes("resident memory, idle", resident(server).await?));
    rows.push(load::create(server, objects, "create, 1 client", "one", count.min(500), 1).await?);
    rows.push(load::create(server, objects, &format!("create, {clients} clients"), "many", count, clients).await?);
    rows.extend(etcd::puts(objects, clients, count).await?);
    rows.push(load::get(server, objects, "get, 1 client", count, 2000.min(count), 1).await?);
    rows.push(load::get(server, objects, &format!("get, {clients} clients"), count, count, clients).await?);
    rows.push(load::update(server, objects, &format!("update, {clients} clients"), count, count / 2, clients).await?);
    for (name, accept, query) in load::LISTS {
        rows.push(load::list(server, objects, &format!("{name} of {}", count + count.min(500)), accept, query).await?);
    }
    rows.extend(watch::fan_out(server, objects, arguments.watchers, arguments.changes, pause).await?);
    rows.push(Row::bytes("resident memory, loaded", resident(server).await?));
    rows.push(Row::note("load average after", table::load_average()));
    Ok(rows)
}

/// What the server says of its own memory.
async fn resident(server: &Server) -> Result<u64> {
    let text = server.connect().await?.text("/metrics").await?;
    let line =
        text.lines().find(|l| l.starts_with("process_resident_memory_bytes ")).context("no memory in /metrics")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse::<f64>()? as u64)
}

/// A field of an object as text.
fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(object, |value, name| &value[*name]).as_str().unwrap_or_default()
}
