//! Reading a log, also one that is being written.

use super::Log;
use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Which part of a log is wanted, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Request {
    /// Go on with what is being written, until the run ends.
    pub(crate) follow: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    /// Put its time before each line.
    pub(crate) timestamps: bool,
    pub(crate) limit_bytes: Option<u64>,
}

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// The lines of `log` that `request` asks for. At most a few pieces wait for a slow reader.
pub(crate) fn read(log: Arc<Log>, request: Request) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (pieces, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut out = Out { pieces, format: Format::new(request) };
        if let Err(error) = copy(&log, request, &mut out).await {
            let _ = out.pieces.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn copy(log: &Log, request: Request, out: &mut Out) -> io::Result<()> {
    let mut progress = log.progress.subscribe();
    let (mut files, mut generation) = log.open_after(None)?;
    if let Some(lines) = request.tail_lines {
        files = tokio::task::spawn_blocking(move || seek_to_tail(files, lines)).await.map_err(io::Error::other)??;
    }
    loop {
        let Some(last) = files.pop() else {
            return Ok(());
        };
        for file in files.drain(..) {
            out.copy_all(&mut tokio::fs::File::from_std(file)).await?;
        }
        let mut last = tokio::fs::File::from_std(last);
        loop {
            // Looked at before reading, so that nothing written before the end or the change of files is missed.
            let seen = *progress.borrow_and_update();
            out.copy_all(&mut last).await?;
            if out.is_done() || !request.follow || (seen.ended && seen.generation == generation) {
                return Ok(());
            }
            if seen.generation != generation {
                break;
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return Ok(()) },
                () = out.pieces.closed() => return Ok(()),
            }
        }
        (files, generation) = log.open_after(Some(generation))?;
    }
}

/// Puts each file where the last `lines` of all of them begin.
fn seek_to_tail(mut files: Vec<std::fs::File>, lines: u64) -> io::Result<Vec<std::fs::File>> {
    let mut wanted = lines;
    for file in files.iter_mut().rev() {
        wanted -= seek_back(file, wanted)?;
    }
    Ok(files)
}

/// Puts `file` before its last `lines` lines, and says how many there were.
fn seek_back(file: &mut std::fs::File, lines: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(0);
    }
    let mut seen = 0;
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let length = usize::try_from(end - start).unwrap_or(CHUNK);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk[..length])?;
        for at in (0..length).rev().filter(|at| chunk[*at] == b'\n') {
            if seen == lines {
                file.seek(SeekFrom::Start(start + at as u64 + 1))?;
                return Ok(seen);
            }
            seen += 1;
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(seen)
}

/// What was printed, of `bytes` as they are on disk.
pub(super) fn plain(bytes: &[u8]) -> Vec<u8> {
    Format::new(Request::default()).feed(bytes)
}

/// Where the pieces go.
struct Out {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    format: Format,
}

impl Out {
    /// Everything up to the present end of `file`.
    async fn copy_all(&mut self, file: &mut tokio::fs::File) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        while !self.is_done() {
            let length = file.read(&mut chunk).await?;
            if length == 0 {
                break;
            }
            let piece = self.format.feed(&chunk[..length]);
            if !piece.is_empty() && self.pieces.send(Ok(piece.into())).await.is_err() {
                self.format.left = Some(0);
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.format.left == Some(0)
    }
}

/// Turns lines on disk into lines for people.
#[derive(Debug)]
struct Format {
    timestamps: bool,
    since: Option<String>,
    left: Option<u64>,
    /// The begin of a line whose end was not read yet.
    begun: Vec<u8>,
    /// The line given last was a piece, so what follows continues it.
    inside: bool,
}

impl Format {
    fn new(request: Request) -> Self {
        Self {
            timestamps: request.timestamps,
            // Times are written with a fixed width, so they compare as text.
            since: request.since.map(|since| format!("{since:.9}")),
            left: request.limit_bytes,
            begun: Vec::new(),
            inside: false,
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let mut line = std::mem::take(&mut self.begun);
            line.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            self.line(&line, &mut out);
        }
        self.begun.extend_from_slice(rest);
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut fields = line.splitn(3, |byte| *byte == b' ');
        let (Some(time), Some(kind), Some(text)) = (fields.next(), fields.next(), fields.next()) else {
            return; // torn by a crash of the machine
        };
        if self.since.as_ref().is_some_and(|since| time < since.as_bytes()) {
            return;
        }
        if self.timestamps && !self.inside {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        self.inside = kind == b"P";
        if !self.inside {
            out.push(b'\n');
        }
    }
}
