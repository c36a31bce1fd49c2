//! `onex backup` and `onex restore`: all that cannot be made again, in a directory that is laid out as a data directory is.
//!
//! That is the objects, the keys, and the rows: users, their key pairs and policies. What the node keeps of running miners is theirs, and can be mined again.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use onex_daemon::files;
use onex_storage::{Inspection, Location};

use crate::arguments::{Backup, Restore};
use crate::say;
use crate::settings::Settings;
use crate::stores;

/// The keys of the platform: its authority, and those that sign tokens.
const KEYS: &str = "pki";
/// The objects, as an embedded storage keeps them.
const STORAGE: &str = "storage";
/// The rows, as an embedded database keeps them.
const ROWS: &str = "db";
/// And their file.
const ROWS_FILE: &str = "onex.sqlite";

/// Copies the data of a platform, which may go on running.
pub async fn backup(arguments: Backup) -> anyhow::Result<()> {
    let directory = arguments.place.directory()?;
    let settings: Settings = arguments.place.settings.layers().read()?;
    let target = std::path::absolute(&arguments.target).context("the target is no path")?;
    if target.exists() {
        bail!("{} is there already; a backup is never written over another", target.display());
    }
    // Under another name until it is whole.
    let unfinished = target.with_file_name(format!(
        "{}.unfinished",
        target.file_name().context("the target has no name")?.to_string_lossy()
    ));
    let done = copy(&directory, &settings, &unfinished).await;
    let kept = match done {
        Ok(kept) => kept,
        Err(error) => {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
    };
    fs::rename(&unfinished, &target).with_context(|| format!("could not name the backup {}", target.display()))?;
    say::out(&format!("{} holds {}", target.display(), holds(&kept)));
    Ok(())
}

async fn copy(directory: &Path, settings: &Settings, target: &Path) -> anyhow::Result<Inspection> {
    if target.exists() {
        fs::remove_dir_all(target).with_context(|| format!("could not remove {}", target.display()))?;
    }
    files::private_directory(target).with_context(|| format!("could not make {}", target.display()))?;
    let storage = target.join(STORAGE);
    let location = settings.stores.storage_location(directory);
    let kept = match &location {
        Location::Memory => bail!("the storage is memory:, which only the process that made it can see"),
        Location::File(from) => {
            let (from, to) = (from.clone(), storage);
            tokio::task::spawn_blocking(move || onex_storage::back_up(&from, &to)).await?
        }
        Location::Etcd(_) => {
            let opened = onex_storage::open(&location, &settings.storage).await;
            let opened = opened.with_context(|| format!("could not open the storage {location}"))?;
            onex_storage::back_up_from(&*opened, &storage).await
        }
    };
    let kept = kept.with_context(|| format!("could not copy the storage {location}"))?;
    let keys = directory.join(KEYS);
    if keys.exists() {
        copy_files(&keys, &target.join(KEYS)).context("could not copy the keys")?;
    }
    copy_rows(directory, settings, target).await?;
    Ok(kept)
}

/// Copies the rows, which may be in use.
async fn copy_rows(directory: &Path, settings: &Settings, target: &Path) -> anyhow::Result<()> {
    let url = settings.stores.db_url(directory)?;
    let Some(file) = stores::db_file(&url) else {
        let place = onex_db::place(&url);
        say::wrong(&format!("users, key pairs and policies are in {place} and not copied; it has tools of its own"));
        return Ok(());
    };
    // To open it would make it.
    if !file.exists() {
        return Ok(());
    }
    let db = stores::db(&url, &settings.db)?;
    let rows = target.join(ROWS);
    files::private_directory(&rows).with_context(|| format!("could not make {}", rows.display()))?;
    let copy = rows.join(ROWS_FILE);
    db.copy_to(&copy).await.with_context(|| format!("could not copy the rows of {}", db.place()))?;
    fs::File::open(&copy)?.sync_all()?;
    fs::File::open(&rows)?.sync_all()?;
    Ok(())
}

/// Puts a backup where there is no data yet.
pub async fn restore(arguments: Restore) -> anyhow::Result<()> {
    let directory = arguments.place.directory()?;
    let from = arguments.source.join(STORAGE);
    for part in [STORAGE, KEYS, ROWS] {
        let there = directory.join(part);
        if there.exists() {
            bail!("there is data in {} already; choose another place with --data-dir", there.display());
        }
    }
    files::private_directory(&directory)
        .with_context(|| format!("could not make the data directory {}", directory.display()))?;
    // Read and checked whole, and written anew.
    let to = directory.join(STORAGE);
    let kept = tokio::task::spawn_blocking(move || onex_storage::back_up(&from, &to)).await?;
    let kept = kept.with_context(|| format!("{} is no backup", arguments.source.display()))?;
    let keys = arguments.source.join(KEYS);
    if keys.exists() {
        copy_files(&keys, &directory.join(KEYS)).context("could not copy the keys")?;
    }
    let rows = arguments.source.join(ROWS);
    if rows.exists() {
        copy_files(&rows, &directory.join(ROWS)).context("could not copy the rows")?;
    }
    say::out(&format!("{} holds {}", directory.display(), holds(&kept)));
    Ok(())
}

fn holds(kept: &Inspection) -> String {
    let (entries, revision, megabytes) = (kept.entries, kept.newest, kept.file_bytes as f64 / 1e6);
    format!("{entries} objects as of revision {revision}, {megabytes:.1} MB")
}

/// Copies a directory of small files that are for nobody else to read.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    files::private_directory(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_files(&path, &target)?;
        } else {
            // Keeps who may read it.
            fs::copy(&path, &target).with_context(|| format!("could not copy {}", path.display()))?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    fs::File::open(to)?.sync_all()?;
    Ok(())
}
