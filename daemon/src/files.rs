//! Files that other programs read while we write them: they appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Only the owner (mode 0600): keys, and whatever carries one.
    Owner,
    /// Everybody (mode 0644).
    Everybody,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everybody => 0o644,
        }
    }
}

/// Replaces `path` with `content` in one step.
///
/// A reader sees the old file or the new one, never a part, also after a crash. The new file never exists with wider
/// permissions than `readers` says, not even for a moment.
///
/// # Errors
/// Whatever the file system answers; the old file is then still there.
pub fn replace(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let draft = draft_beside(path)?;
    let written = write_draft(&draft, content, readers).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The draft may hold a key, so it is not left lying about. Whether that works changes nothing for the caller.
        let _ = fs::remove_file(&draft);
        return written;
    }
    // The rename itself is only durable when the directory is.
    parent(path).and_then(File::open).and_then(|directory| directory.sync_all())
}

/// Makes `path` and what is missing above it, readable by nobody but the owner (mode 0700).
///
/// A directory that is already there keeps its permissions.
///
/// # Errors
/// Whatever the file system answers.
pub fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")),
    }
}

fn draft_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let draft = format!(".{}.{}.draft", name.to_string_lossy(), std::process::id());
    Ok(parent(path)?.join(draft))
}

fn write_draft(draft: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(readers.mode()).open(draft)?;
    // `mode` only counts for a file that is new, and the umask may have narrowed it.
    file.set_permissions(fs::Permissions::from_mode(readers.mode()))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_content_and_only_the_asked_readers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "old").unwrap();
        replace(&path, b"new", Readers::Owner).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn a_file_in_a_directory_that_is_missing_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(replace(&directory.path().join("absent/key"), b"new", Readers::Owner).is_err());
    }
}
