//! Long answers, compressed for clients that ask for it. A list stays a stream: each piece is compressed as it comes.

use std::{io::Write as _, sync::Arc};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Inner,
    router::{Next, target_of},
};

/// Answers up to this length are not worth the work.
const SHORT: usize = 128 * 1024;
/// Pieces go out when they are about this long.
const PIECE: usize = 16 * 1024;
/// So many answers are compressed at once: each remembers a third of a megabyte. Others go out as they are.
const PLACES: usize = 32;

/// Places for answers that are being compressed.
pub(crate) struct Compressing(Arc<Semaphore>);

impl Default for Compressing {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

/// Compresses long answers about resources. Watches and logs are never long answers: each of their pieces is news.
pub(crate) async fn compress(server: &Arc<Inner>, request: Request, next: impl Next) -> Response {
    let target = target_of(&request);
    let lists = target.is_resource && !target.is_long_running();
    let wanted = lists && request.method() != Method::HEAD && accepts(request.headers());
    let response = next(request).await;
    if !wanted || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let Ok(place) = server.compressing.0.clone().try_acquire_owned() else { return response };
    let (mut parts, mut body) = response.into_parts();
    let mut begin = Vec::new();
    // Only the length of an answer in one piece is known beforehand.
    while begin.iter().map(Bytes::len).sum::<usize>() <= SHORT {
        match body.frame().await {
            Some(Ok(frame)) => begin.extend(frame.into_data().ok()),
            Some(Err(error)) => return Response::from_parts(parts, broken(begin, error)),
            None => return Response::from_parts(parts, Body::from(begin.concat())),
        }
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let pieces = Pieces { begin, body, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())), _place: place };
    let stream = futures::stream::try_unfold(pieces, |mut pieces| async move {
        Ok::<_, axum::Error>(pieces.next().await?.map(|piece| (piece, pieces)))
    });
    Response::from_parts(parts, Body::from_stream(stream))
}

/// What there was, and then the error that ended it.
fn broken(begin: Vec<Bytes>, error: axum::Error) -> Body {
    Body::from_stream(futures::stream::iter(begin.into_iter().map(Ok).chain([Err(error)])))
}

fn accepts(headers: &HeaderMap) -> bool {
    let asked = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    asked.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let refused = |weight: &str| weight.strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0);
        parts.next() == Some("gzip") && !parts.any(refused)
    })
}

/// An answer that is being compressed.
struct Pieces {
    /// What was read before it was known that the answer is long.
    begin: Vec<Bytes>,
    body: Body,
    /// None when all is said.
    encoder: Option<GzEncoder<Vec<u8>>>,
    _place: OwnedSemaphorePermit,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, axum::Error> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(None) };
        for piece in std::mem::take(&mut self.begin) {
            encoder.write_all(&piece).map_err(axum::Error::new)?;
        }
        while encoder.get_ref().len() < PIECE {
            let Some(frame) = self.body.frame().await else {
                return Ok(Some(encoder.finish().map_err(axum::Error::new)?.into()));
            };
            if let Ok(data) = frame?.into_data() {
                encoder.write_all(&data).map_err(axum::Error::new)?;
            }
        }
        let piece = std::mem::take(encoder.get_mut());
        self.encoder = Some(encoder);
        Ok(Some(piece.into()))
    }
}
