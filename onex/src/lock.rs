//! One platform a data directory.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The right to use a data directory, for as long as this lives. The system takes it back also from a killed process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the right that the file `name` in `directory` stands for, or says who has it.
    pub fn take(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let path = directory.join(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("could not open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => bail!(
                "another onex{} already runs on {}; stop it first, or choose another place with --data-dir",
                holder(&mut file),
                directory.display()
            ),
            Err(error) => return Err(error).with_context(|| format!("could not lock {}", path.display())),
        }
        // Only for the message above; the lock itself does not depend on it.
        file.set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()))
            .with_context(|| format!("could not write {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut process = String::new();
    match file.read_to_string(&mut process) {
        Ok(_) if !process.is_empty() => format!(" (process {process})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_at_a_time_and_the_second_is_told_who() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::take(directory.path(), "lock").unwrap();
        let refused = Lock::take(directory.path(), "lock").unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Lock::take(directory.path(), "lock").unwrap();
    }
}
