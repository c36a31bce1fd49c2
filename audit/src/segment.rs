//! The files of the log: lines of JSON, in files named by the number of their first line.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{Error, RECORD_BYTES, Record, Result, unavailable};

/// One file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The number of its first record.
    pub first: u64,
    /// How long it is, in bytes of whole and durable records.
    pub bytes: u64,
}

impl Segment {
    /// Where it is.
    pub fn path(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{:020}.jsonl", self.first))
    }
}

/// The files in a directory, oldest first.
pub fn all(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(".jsonl")).and_then(|number| number.parse().ok());
        if let Some(first) = first {
            segments.push(Segment { first, bytes: entry.metadata()?.len() });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Makes the newest file end with its last whole record, and answers how many it has.
///
/// What a crash left half-written was acknowledged to nobody. It is put aside all the same, so that nothing is lost if it
/// was something else that damaged the file.
pub fn recover(directory: &Path, segment: &mut Segment) -> io::Result<u64> {
    let path = segment.path(directory);
    let mut reader = BufReader::new(File::open(&path)?);
    let (mut whole, mut count) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.by_ref().take(RECORD_BYTES as u64 + 1).read_until(b'\n', &mut line)? as u64;
        let is_whole = line.last() == Some(&b'\n') && serde_json::from_slice::<Record>(&line).is_ok();
        if !is_whole {
            break;
        }
        whole += length;
        count += 1;
    }
    if whole < segment.bytes {
        let aside = directory.join(format!("{:020}.{whole}.cut", segment.first));
        reader.seek(SeekFrom::Start(whole))?;
        let mut cut = File::create(&aside)?;
        io::copy(&mut reader, &mut cut)?;
        cut.sync_all()?;
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(whole)?;
        file.sync_all()?;
        tracing::warn!(bytes = segment.bytes - whole, aside = %aside.display(), "the end of the audit log was no whole record");
        segment.bytes = whole;
    }
    Ok(count)
}

/// The newest file, open for appending.
pub struct Tail {
    file: File,
    /// What is in it.
    pub segment: Segment,
}

impl Tail {
    /// Opens the file of a segment, making it if need be.
    pub fn open(directory: &Path, segment: Segment) -> io::Result<Self> {
        let path = segment.path(directory);
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        if is_new {
            File::open(directory)?.sync_all()?; // the name of the file is durable too
        }
        Ok(Self { file, segment })
    }

    /// Appends whole lines, durably: all of them, or none.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.segment.bytes += lines.len() as u64,
            // A half would be taken for the beginning of the next.
            Err(_) => self.file.set_len(self.segment.bytes)?,
        }
        written
    }
}

/// A place in the log that a reader has found already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The number of the record there.
    pub number: u64,
    /// The first record of its file.
    pub first: u64,
    /// Where in the file.
    pub offset: u64,
}

/// At most `most` records from `number` on, of a segment with `bytes` durable bytes; and where the next one is.
///
/// `hint` saves looking for the place from the beginning of the file.
pub fn read(
    directory: &Path,
    segment: Segment,
    number: u64,
    most: usize,
    hint: Option<Cursor>,
) -> Result<(Vec<Record>, Cursor)> {
    let path = segment.path(directory);
    let start =
        hint.filter(|hint| hint.first == segment.first && hint.number <= number && hint.offset <= segment.bytes);
    let mut at = start.unwrap_or(Cursor { number: segment.first, first: segment.first, offset: 0 });
    let mut file = File::open(&path).map_err(unavailable)?;
    file.seek(SeekFrom::Start(at.offset)).map_err(unavailable)?;
    let mut reader = BufReader::new(file.take(segment.bytes - at.offset));
    let mut records = Vec::new();
    let mut line = Vec::new();
    while records.len() < most {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(unavailable)?;
        if length == 0 {
            break;
        }
        if at.number >= number {
            let record = serde_json::from_slice(&line);
            records.push(record.map_err(|why| Error::Damaged { path: path.clone(), why: why.to_string() })?);
        }
        at.number += 1;
        at.offset += length as u64;
    }
    Ok((records, at))
}
