//! `onex doctor`: what is wrong with the data of a platform and with the machine it stands on, or that nothing is.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use onex_daemon::pki;
use onex_storage::{Location, Storage as _};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::arguments::Place;
use crate::say;
use crate::settings::Settings;

/// So many writes are timed, each as large as a small object.
const SYNCS: usize = 100;
const SYNC_BYTES: usize = 2048;
/// A disk that takes longer than this, in the middle, makes every write of every client wait.
const SLOW: Duration = Duration::from_millis(20);
/// Less room than this fills up before anybody looks.
const ROOM: u64 = 1 << 30;
/// A certificate that ends so soon should have been renewed.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What was looked at, and whether it is as it should be.
struct Findings {
    wrong: usize,
}

impl Findings {
    fn good(&mut self, what: &str, said: &str) {
        say::out(&format!("  ok     {what:<14} {said}"));
    }

    fn bad(&mut self, what: &str, said: &str) {
        self.wrong += 1;
        say::out(&format!("  WRONG  {what:<14} {said}"));
    }

    fn note(&mut self, what: &str, found: anyhow::Result<String>) {
        match found {
            Ok(said) => self.good(what, &said),
            Err(error) => self.bad(what, &format!("{error:#}")),
        }
    }
}

/// Looks at everything, says what it saw, and fails if anything is wrong. Changes nothing; the platform may go on running.
pub async fn doctor(arguments: Place) -> anyhow::Result<()> {
    let directory = arguments.directory()?;
    let settings: Settings = arguments.settings.layers().read()?;
    let location = settings.stores.storage_location(&directory);
    say::out(&format!("onex {} in {}", env!("CARGO_PKG_VERSION"), directory.display()));
    let mut findings = Findings { wrong: 0 };
    findings.note("data directory", readable(&directory));
    findings.note("storage", storage(&location, &settings).await);
    findings.note("authority", authority(&directory.join("pki")));
    // A disk is asked where the data is, or would be.
    let place = directory.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/")).to_owned();
    findings.note("free disk", room(&place));
    let timed = tokio::task::spawn_blocking(move || sync_times(&place)).await?;
    findings.note("fsync", timed);
    match findings.wrong {
        0 => Ok(()),
        1 => bail!("1 thing is wrong"),
        wrong => bail!("{wrong} things are wrong"),
    }
}

fn readable(directory: &Path) -> anyhow::Result<String> {
    if !directory.exists() {
        return Ok("is not there yet; `onex up` makes it".to_owned());
    }
    let mode = fs::metadata(directory)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("others may read it (mode {mode:o}); it holds keys and Secrets: chmod 700 {}", directory.display());
    }
    Ok(format!("mode {mode:o}"))
}

async fn storage(location: &Location, settings: &Settings) -> anyhow::Result<String> {
    match location {
        Location::Memory => Ok("memory: keeps nothing".to_owned()),
        Location::File(path) if !path.exists() => Ok(format!("{} is not there yet", path.display())),
        Location::File(path) => {
            let path = path.clone();
            let seen = tokio::task::spawn_blocking(move || onex_storage::inspect(&path)).await??;
            let torn = seen.torn.as_ref().map_or(String::new(), |(file, bytes)| {
                format!(
                    "; a crash left {bytes} bytes of an unfinished write in {}, which the next start drops",
                    file.display()
                )
            });
            Ok(format!(
                "every checksum holds: {} objects, revisions {} to {}, {:.1} MB{torn}",
                seen.entries,
                seen.oldest,
                seen.newest,
                seen.file_bytes as f64 / 1e6
            ))
        }
        Location::Etcd(members) => {
            let opened = onex_storage::Etcd::open(members, &settings.storage).await?;
            let asked = Instant::now();
            let newest = opened.newest().await?;
            Ok(format!("{location} answers in {:.1} ms, revision {newest}", asked.elapsed().as_secs_f64() * 1e3))
        }
    }
}

fn authority(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join("ca.crt");
    if !directory.exists() {
        return Ok("is not there yet".to_owned());
    }
    let pem = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
    let certificate =
        CertificateDer::from_pem_slice(&pem).with_context(|| format!("{} is no certificate", path.display()))?;
    let subject = pki::subject(&certificate).with_context(|| format!("{} cannot be read", path.display()))?;
    let key = directory.join("ca.key");
    let mode = fs::metadata(&key).with_context(|| format!("could not read {}", key.display()))?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("others may read {} (mode {:o})", key.display(), mode & 0o777);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let left = u64::try_from(*subject.validity.end()).unwrap_or_default().saturating_sub(now);
    let days = left / (24 * 60 * 60);
    if left < SOON.as_secs() {
        bail!("{} is good for {days} more days; the next start renews it", path.display());
    }
    Ok(format!("good for {days} more days"))
}

fn room(place: &Path) -> anyhow::Result<String> {
    let seen = rustix::fs::statvfs(place).with_context(|| format!("could not ask about {}", place.display()))?;
    let free = seen.f_bavail.saturating_mul(seen.f_frsize);
    if seen.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        bail!("{} is mounted read-only", place.display());
    }
    let said = format!("{:.1} GB", free as f64 / 1e9);
    if free < ROOM { bail!("only {said}") } else { Ok(said) }
}

/// How long a small write takes to be on the disk, beside the data.
fn sync_times(place: &Path) -> anyhow::Result<String> {
    let path = place.join(format!(".onex-doctor-{}", std::process::id()));
    let timed = (|| {
        let mut file = File::options().create_new(true).read(true).write(true).open(&path)?;
        // Room first, as the log has it: growing a file is slower.
        file.write_all(&vec![0; SYNCS * SYNC_BYTES])?;
        file.sync_all()?;
        let content = [7; SYNC_BYTES];
        let mut times = Vec::with_capacity(SYNCS);
        for index in 0..SYNCS {
            let begun = Instant::now();
            file.write_all_at(&content, (index * SYNC_BYTES) as u64)?;
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        std::io::Result::Ok(times)
    })();
    let _ = fs::remove_file(&path);
    let mut times = timed.with_context(|| format!("could not write in {}", place.display()))?;
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    let shown = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    let said = format!("p50 {}, p99 {}", shown(at(50)), shown(at(99)));
    if at(50) > SLOW { bail!("{said}: each write of each client waits for it") } else { Ok(said) }
}
