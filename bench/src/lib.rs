//! The load tool: what creating, reading, listing and watching cost, beside a rival in the same run.
//!
//! It speaks plain HTTP/1.1 over TLS with the certificate of a kubeconfig, one connection a client, so that what is measured
//! is the server and not a client library. It runs on the same cores as the server: compare rows, not machines.

mod canvas;
mod crowd;
mod etcd;
mod http;
mod kubeconfig;
mod lean;
mod load;
mod objects;
mod platform;
mod plot;
mod sweep;
mod table;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    crowd::Crowd, etcd::Etcd, http::Server, objects::Objects, platform::Platform, sweep::Sweep, table::Row,
    watch::Watchers,
};

/// Whom to measure beside ours, in the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rival {
    /// etcd by its own protocol: raw puts of the same bytes by as many clients. It is started, and so must be installed.
    Etcd,
}

/// What to measure.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Whose apiserver to measure, instead of a platform of its own
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The program that is started as `onex up` in an empty directory [default: this one]
    #[arg(long, value_name = "FILE")]
    pub onex: Option<PathBuf>,
    /// Whom to measure beside it
    #[arg(long, value_enum)]
    pub rival: Option<Rival>,
    /// Another apiserver to measure beside it, such as kube-apiserver
    #[arg(long, value_name = "FILE")]
    pub rival_kubeconfig: Option<PathBuf>,
    /// What to create: `configmaps`, or `minersets` without replicas, which the controllers look after
    #[arg(long, default_value = "configmaps")]
    pub resource: String,
    /// How many objects, of about 1 KB
    #[arg(long, default_value_t = 10_000)]
    pub count: usize,
    /// How many clients at the same time
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// How many watchers
    #[arg(long, default_value_t = 100)]
    pub watchers: usize,
    /// How many of them share a connection, by HTTP/2: a process may have only so many sockets
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=250))]
    pub watchers_per_connection: u32,
    /// How many changes they are told of
    #[arg(long, default_value_t = 500)]
    pub changes: usize,
    /// How far apart the changes are, in milliseconds
    #[arg(long, default_value_t = 20)]
    pub pause_ms: u64,
    /// How many requests a second to send whatever the answers take: creates, then gets, then updates, for five seconds each;
    /// may be repeated
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Vec<u32>,
    /// The same at rates from a tenth to all of what as many clients as asked for reached
    #[arg(long)]
    pub sweep: bool,
    /// Draw latency against these rates, as a PNG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// How many clients list everything at once and then watch it, each reading at its own pace, to see what memory they cost;
    /// may be repeated
    #[arg(long, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(1..=8000))]
    pub crowd: Vec<u32>,
    /// How much state the crowd lists, in millions of bytes
    #[arg(long, value_name = "MB", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=16_000))]
    pub crowd_mb: u64,
    /// How large an object of that state is, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(600..=1_000_000))]
    pub crowd_object: u64,
    /// How long a crowd reads, each way, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub crowd_seconds: u64,
    /// A quick run of less than 40 seconds: fewer of everything
    #[arg(long)]
    pub short: bool,
    /// Print one JSON object a row instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Measures, and prints what was measured.
///
/// # Errors
/// When the platform or the rival cannot be started, or a request fails: a figure of failed requests would say nothing.
pub async fn run(mut arguments: Arguments) -> Result<()> {
    if arguments.short {
        arguments.count = arguments.count.min(15_000); // enough for a second of each: the first moments are slower
        arguments.changes = arguments.changes.min(100);
    }
    if let Some(file) = &arguments.plot {
        plot::check(file, arguments.sweep || !arguments.rate.is_empty())?;
    }
    let objects = Arc::new(Objects::new(&arguments.resource)?);
    let etcd = match arguments.rival {
        Some(Rival::Etcd) => Some(Etcd::start().await?),
        None => None,
    };
    let platform = match &arguments.kubeconfig {
        Some(_) => None,
        None => {
            let program = arguments.onex.clone().map_or_else(std::env::current_exe, Ok)?;
            Some(Platform::start(&program).await?)
        }
    };
    let mut rows: Vec<Row> = platform.iter().map(Platform::row).collect();
    let kubeconfig = arguments.kubeconfig.clone().or(platform.as_ref().map(Platform::kubeconfig));
    let server = Arc::new(Server::new(kubeconfig::read(&kubeconfig.context("no kubeconfig")?)?)?);
    tokio::time::sleep(Duration::from_secs(2)).await; // what "idle" means in the table
    rows.push(Row::note("load_before", "load average before", table::load_average()));
    rows.extend(measure(&arguments, &server, &objects, platform.as_ref(), etcd.as_ref()).await?);
    if platform.is_none() {
        objects.clean(&server).await.context("cleaning up")?;
    }
    drop((platform, etcd));
    if let Some(kubeconfig) = &arguments.rival_kubeconfig {
        let server = Arc::new(Server::new(kubeconfig::read(kubeconfig)?)?);
        let theirs = measure(&arguments, &server, &objects, None, None).await.context("measuring the rival")?;
        rows.extend(theirs.into_iter().map(Row::of_rival));
        if let Err(error) = objects.clean(&server).await {
            // An apiserver alone has nobody who empties namespaces.
            rows.push(Row::note("rival_left_behind", "rival: what was left behind", format!("{error:#}")));
        }
    }
    rows.push(Row::note("load_after", "load average after", table::load_average()));
    table::print(&rows, arguments.json);
    match &arguments.plot {
        Some(file) => plot::write(file, &rows),
        None => Ok(()),
    }
}

/// Ours and the rival take turns so often, as the speed of a shared machine drifts.
const TURNS: usize = 3;

async fn measure(
    arguments: &Arguments,
    server: &Arc<Server>,
    objects: &Arc<Objects>,
    platform: Option<&Platform>,
    etcd: Option<&Etcd>,
) -> Result<Vec<Row>> {
    let (count, clients) = (arguments.count, arguments.clients);
    let few = count.min(500);
    let pause = Duration::from_millis(arguments.pause_ms);
    objects.prepare(server).await?;
    let mut rows = vec![
        Row::bytes("memory_idle", "resident memory, idle", resident(server).await)
            .of_which(platform.and_then(Platform::own_memory)),
    ];
    rows.push(load::create(server, objects, ("create_1", "create, 1 client"), "one", few, 1).await?);
    if let Some(etcd) = etcd {
        rows.push(etcd.puts(objects, ("etcd_put_1", "etcd, raw put, 1 client"), "one", few, 1).await?);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let (prefix, count) = (format!("many{turn}"), count / TURNS);
        let name = format!("create, {clients} clients");
        ours.push(load::create(server, objects, ("create", &name), &prefix, count, clients).await?);
        if let Some(etcd) = etcd {
            let name = format!("etcd, raw put, {clients} clients");
            theirs.push(etcd.puts(objects, ("etcd_put", &name), &prefix, count, clients).await?);
        }
    }
    let (mut ours, theirs) = (Row::together(ours), theirs.into_iter().reduce(Row::and));
    ours.ratio = theirs.as_ref().and_then(|theirs| Some(ours.rate? / theirs.rate?));
    rows.push(ours);
    rows.extend(theirs);
    let present = count / TURNS;
    rows.push(load::get(server, objects, ("get_1", "get, 1 client"), present, present.min(2000), 1).await?);
    let name = format!("get, {clients} clients");
    rows.push(load::get(server, objects, ("get", &name), present, count, clients).await?);
    let name = format!("update, {clients} clients");
    rows.push(load::update(server, objects, ("update", &name), present, count / 2, clients).await?);
    rows.extend(at_fixed_rates(arguments, server, objects, &rows).await?);
    for (id, name, accept, query) in load::LISTS {
        rows.push(load::list(server, objects, id, name, accept, query).await?);
    }
    let per_connection = arguments.watchers_per_connection as usize;
    let watchers = Watchers { count: arguments.watchers, per_connection };
    rows.extend(watch::fan_out(server, objects, watchers, arguments.changes, pause).await?);
    rows.push(
        Row::bytes("memory_loaded", "resident memory, loaded", resident(server).await)
            .of_which(platform.and_then(Platform::own_memory)),
    );
    rows.extend(crowds(arguments, server, objects).await?);
    Ok(rows)
}

/// What memory the crowds cost that were asked for.
async fn crowds(arguments: &Arguments, server: &Arc<Server>, objects: &Arc<Objects>) -> Result<Vec<Row>> {
    if arguments.crowd.is_empty() {
        return Ok(Vec::new());
    }
    let crowd = Crowd {
        bytes: arguments.crowd_mb * 1_000_000,
        object_bytes: arguments.crowd_object,
        length: Duration::from_secs(arguments.crowd_seconds),
    };
    let mut rows = vec![crowd.prepare(server, objects).await?];
    tokio::time::sleep(Duration::from_secs(2)).await;
    let loaded = resident(server).await.context("the server does not tell how much memory it has")?;
    rows.push(Row::bytes("memory_crowd", "resident memory, with the state for the crowd", Some(loaded)));
    for clients in &arguments.crowd {
        rows.extend(crowd.rows(server, objects, *clients as usize, loaded).await?);
    }
    Ok(rows)
}

/// How long each request takes at the rates that were asked for, and at shares of those in `rows`.
async fn at_fixed_rates(
    arguments: &Arguments,
    server: &Server,
    objects: &Arc<Objects>,
    rows: &[Row],
) -> Result<Vec<Row>> {
    let (asked, swept) = match arguments.short {
        true => (Duration::from_secs(1), Duration::from_millis(500)),
        false => (Duration::from_secs(5), Duration::from_secs(2)),
    };
    let mut measured = Vec::new();
    if arguments.rate.is_empty() && !arguments.sweep {
        return Ok(measured);
    }
    let mut sweep = Sweep::new(server, objects, arguments.count / TURNS).await?;
    for work in sweep::WORKS {
        for rate in &arguments.rate {
            measured.push(sweep.at(work, *rate, asked).await?);
        }
        let closed = rows.iter().find(|row| row.id() == work.1).and_then(|row| row.rate);
        for rate in sweep::rates(closed.filter(|_| arguments.sweep)) {
            measured.push(sweep.at(work, rate, swept).await?);
        }
    }
    Ok(measured)
}

/// What the server says of its own memory.
async fn resident(server: &Server) -> Option<u64> {
    let text = server.connect().await.ok()?.text("/metrics").await.ok()?;
    let line = text.lines().find(|line| line.starts_with("process_resident_memory_bytes "))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? as u64)
}

/// A field of an object as text.
fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(object, |value, name| &value[*name]).as_str().unwrap_or_default()
}
