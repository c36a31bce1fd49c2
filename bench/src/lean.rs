//! A client that does nothing but send and wait: it shares the cores with what it measures, so what it takes is missing there.
//!
//! It speaks the little of HTTP/1.1 that a load of small requests needs: one request at a time, and an answer that says how
//! long it is.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// No answer of a load of small requests is longer, head and body.
const LONGEST: usize = 1 << 20;

/// A connection of one client.
pub(crate) struct Lean {
    stream: TlsStream<TcpStream>,
    /// What is the same in all heads, from the host on.
    head: String,
    out: Vec<u8>,
    read: BytesMut,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'static str,
    pub(crate) path: &'a str,
    pub(crate) media: &'static str,
    pub(crate) body: &'a [u8],
}

impl Lean {
    pub(crate) fn new(stream: TlsStream<TcpStream>, host: &str, token: Option<&str>) -> Self {
        let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(" HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n{bearer}");
        Self { stream, head, out: Vec::with_capacity(4096), read: BytesMut::with_capacity(16 * 1024) }
    }

    /// Sends a request and reads the whole answer, which must be a success.
    pub(crate) async fn send(&mut self, ask: Ask<'_>) -> Result<()> {
        let Ask { method, path, media, body } = ask;
        self.out.clear();
        for part in [method, " ", path, &self.head, "content-type: ", media, "\r\ncontent-length: "] {
            self.out.extend_from_slice(part.as_bytes());
        }
        self.out.extend_from_slice(body.len().to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        let (status, head, length) = loop {
            if let Some(found) = head_of(&self.read)? {
                break found;
            }
            self.more().await?;
        };
        while self.read.len() < head + length {
            self.more().await?;
        }
        if !(200..300).contains(&status) {
            bail!("{status}: {}", String::from_utf8_lossy(&self.read[head..head + length]));
        }
        self.read.advance(head + length);
        Ok(())
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(self.read.len() < LONGEST, "an answer is longer than {LONGEST} bytes");
        ensure!(self.stream.read_buf(&mut self.read).await? > 0, "the server closed the connection");
        Ok(())
    }
}

/// The status, how long the head is, and how long the body; nothing if the head is not there yet.
fn head_of(read: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(read).context("what was answered is no HTTP")? else {
        return Ok(None);
    };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("an answer does not say how long it is")?;
    Ok(Some((response.code.unwrap_or_default(), head, std::str::from_utf8(length.value)?.parse()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_its_body_is() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\ndate: now\r\n\r\nhello";
        assert_eq!(head_of(answer).unwrap(), Some((201, answer.len() - 5, 5)));
        assert_eq!(head_of(&answer[..30]).unwrap(), None);
        assert!(head_of(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(head_of(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }
}
