//! Measures the durable storage: puts per second and latency, one writer and many, and opening it again.
//!
//! `cargo run --release -p onex-storage --example puts -- [DIRECTORY]`; the directory must be on the disk in question,
//! and is left empty.
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use onex_storage::{Error, Expected, File, Key, Page, Result, Settings, Storage};

const VALUE_BYTES: usize = 1500;
const RUN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    if let (Some("open"), Some(directory)) = (std::env::args().nth(1).as_deref(), std::env::args().nth(2)) {
        return Ok(open_again(Path::new(&directory)).await?);
    }
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let directory = tempfile::tempdir_in(parent)?;
    println!("{:<34} {:>9} {:>8} {:>8} {:>8}", "", "puts/s", "p50 ms", "p99 ms", "max ms");
    for writers in [1, 16, 128, 512] {
        writes(&directory.path().join(writers.to_string()), writers).await?;
    }
    opening(&directory.path().join("opening")).await?;
    Ok(())
}

async fn open(directory: &Path) -> Result<Arc<File>> {
    Ok(Arc::new(File::open(directory, &Settings::default(), Arc::new(SystemTime::now)).await?))
}

/// Every writer updates entries of its own, one put after the other.
async fn writes(directory: &Path, writers: usize) -> Result<()> {
    let storage = open(directory).await?;
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let begun = Instant::now();
    let tasks: Vec<_> =
        (0..writers).map(|writer| tokio::spawn(write(storage.clone(), writer, value.clone()))).collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.map_err(|cause| Error::Unavailable(Box::new(cause)))??);
    }
    let rate = took.len() as f64 / begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let name = format!("{writers} writers, {VALUE_BYTES} bytes");
    println!("{name:<34} {rate:>9.0} {:>8.3} {:>8.3} {:>8.3}", at(0.5), at(0.99), at(1.0));
    Ok(())
}

async fn write(storage: Arc<File>, writer: usize, value: Bytes) -> Result<Vec<Duration>> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    let mut revisions = vec![Expected::Absent; 100];
    while begun.elapsed() < RUN {
        let index = took.len() % revisions.len();
        let key = Key::from(format!("/registry/bench/objects/{writer}/{index}"));
        let put = Instant::now();
        revisions[index] = Expected::At(storage.put(&key, value.clone(), revisions[index]).await?);
        took.push(put.elapsed());
    }
    Ok(took)
}

/// Opens a log of 300,000 entries of 1 KB.
async fn opening(directory: &Path) -> Result<()> {
    const ENTRIES: usize = 300_000;
    let storage = open(directory).await?;
    let begun = Instant::now();
    let tasks = (0..128).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for index in (writer..ENTRIES).step_by(128) {
                // Not one shared value: every entry must cost what it costs.
                let value = Bytes::from(vec![b'x'; 1000]);
                let key = Key::from(format!("/registry/bench/objects/{index:06}"));
                storage.put(&key, value, Expected::Absent).await?;
            }
            Ok::<_, Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(|cause| Error::Unavailable(Box::new(cause)))??;
    }
    println!("{ENTRIES} entries of 1 KB written in {:.2} s", begun.elapsed().as_secs_f64());
    drop(storage);
    // In a process of its own, so that its memory is that of the opened storage alone.
    let program = std::env::current_exe().map_err(|cause| Error::Unavailable(Box::new(cause)))?;
    let opened = std::process::Command::new(program).arg("open").arg(directory).status();
    opened.map(drop).map_err(|cause| Error::Unavailable(Box::new(cause)))
}

async fn open_again(directory: &Path) -> Result<()> {
    let begun = Instant::now();
    let storage = open(directory).await?;
    let listing = storage.list(Page { limit: Some(0), ..Page::all("") }).await?;
    let (entries, seconds) = (listing.remaining, begun.elapsed().as_secs_f64());
    println!("{entries} entries opened in {seconds:.2} s; resident memory {}", resident());
    Ok(())
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or("unknown".to_owned(), |line| line.trim().to_owned())
}
