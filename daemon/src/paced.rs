//! Answers that are made no faster than they leave.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use futures::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};

/// A body whose next part is asked for when the one before has left.
///
/// A library of HTTP asks a body for more than it can send, up to a bound, so that it never waits for the body. Multiplied by a
/// thousand clients who read slowly that is a lot of memory for nothing: what is needed can be made when there is room for it.
pub struct Paced {
    body: Body,
    last: Arc<Part>,
}

/// The part of a body that is under way.
#[derive(Default)]
struct Part {
    is_under_way: AtomicBool,
    /// Who waits until it has left.
    waiting: AtomicWaker,
}

/// The bytes of a part. They are dropped when they have left, or when nobody wants them any more.
struct Leaving {
    bytes: Bytes,
    part: Arc<Part>,
}

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.part.is_under_way.store(false, Ordering::Release);
        self.part.waiting.wake();
    }
}

impl Paced {
    /// Paces a body. One whose length is known is in memory already, and left as it is.
    pub fn body(body: Body) -> Body {
        match hyper::body::Body::size_hint(&body).exact() {
            Some(_) => body,
            None => Body::new(Self { body, last: Arc::default() }),
        }
    }
}

impl hyper::body::Body for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.last.is_under_way.load(Ordering::Acquire) {
            self.last.waiting.register(cx.waker());
            // It may have left before there was somebody to wake.
            if self.last.is_under_way.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
        let paced = frame?.map_data(|bytes| {
            if bytes.is_empty() {
                return bytes;
            }
            self.last.is_under_way.store(true, Ordering::Release);
            Bytes::from_owner(Leaving { bytes, part: self.last.clone() })
        });
        Poll::Ready(Some(Ok(paced)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn a_part_is_made_when_the_one_before_has_left() {
        let parts = futures::stream::iter(["one", "two"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part))));
        let mut body = Paced::body(Body::from_stream(parts)).into_data_stream();
        let first = body.next().await.unwrap().unwrap();
        assert_eq!(first, "one");
        assert!(futures::poll!(body.next()).is_pending(), "the first part is still here");
        let half = first.slice(1..);
        drop(first);
        assert!(futures::poll!(body.next()).is_pending(), "and so is a piece of it");
        let waiting = tokio::spawn(async move { (body.next().await.unwrap().unwrap(), body) });
        tokio::task::yield_now().await;
        drop(half);
        let (second, mut body) = waiting.await.unwrap();
        assert_eq!(second, "two");
        drop(second);
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_that_is_there_already_is_left_as_it_is() {
        let body = Paced::body(Body::from("all of it"));
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(9));
    }
}
