//! A connection that is closed so that the client still gets the last answer, and that is given up when the client reads
//! nothing of what it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// What a client goes on to send is thrown away for so long,
const PATIENCE: Duration = Duration::from_secs(2);
/// and up to so many bytes.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Closes in two steps: says that nothing more will come, and reads what the client was sending until it hears that. The
/// kernel would answer it with a reset otherwise, which throws away what the client has not read yet: the refusal of a body
/// that is too long, before all.
pub struct Lingering<S> {
    stream: S,
    end: CancellationToken,
    said: bool,
    left: usize,
    patience: Option<Pin<Box<Sleep>>>,
    /// How long the client may read nothing,
    unread: Duration,
    /// and, if it does not, when that is over.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    /// Lingers no more once `end` is cancelled, and fails when nothing can be written for as long as `unread`.
    pub fn new(stream: S, end: CancellationToken, unread: Duration) -> Self {
        Self { stream, end, said: false, left: MOST_BYTES, patience: None, unread, stalled: None }
    }

    /// Whoever waits for the client to read waits no longer than that. Nobody else would end it: what is to be sent next, or the
    /// end of it, is not asked for before what was sent has gone.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let unread = self.unread;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(unread)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.stream).poll_flush(cx);
        self.in_time(cx, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.said {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.said = true;
        }
        let patience = this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        let mut buffer = [0; 16 * 1024];
        loop {
            if this.end.is_cancelled() || this.left == 0 || patience.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut thrown = ReadBuf::new(&mut buffer);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut thrown)) {
                Ok(()) if !thrown.filled().is_empty() => this.left = this.left.saturating_sub(thrown.filled().len()),
                // The client is gone too, one way or the other.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
