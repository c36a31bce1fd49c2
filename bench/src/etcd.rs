//! The rival's row: raw puts of the same bytes by the same number of clients, on the same disk, in the same run.
//!
//! etcd speaks gRPC, and a put is a message of two fields: written by hand here, so that the row measures etcd and not a
//! client library.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{
    objects::{Objects, share},
    table::Row,
};

/// An etcd of our own, which ends with us.
pub(crate) struct Etcd {
    child: Child,
    directory: std::path::PathBuf,
    port: u16,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may be gone already, and its directory is in the temporary folder in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Etcd {
    /// Starts one beside us, and waits until it takes puts.
    pub(crate) async fn start() -> Result<Self> {
        let port = free_port()?;
        let directory = std::env::temp_dir().join(format!("onex-bench-etcd-{}", std::process::id()));
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()?));
        let child = Command::new("etcd")
            .args(["--name", "bench", "--log-level", "error", "--data-dir"])
            .arg(&directory)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("etcd cannot be started; is it installed? (Debian: etcd-server)")?;
        let etcd = Self { child, directory, port };
        etcd.ready().await?;
        Ok(etcd)
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Etcd {
    async fn ready(&self) -> Result<()> {
        for _ in 0..100 {
            if let Ok(mut sender) = self.connect().await
                && put(&mut sender, b"ready", b"yes").await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("etcd does not get ready")
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // A connection that breaks fails the put that waits for it, which says so.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Puts objects as [`crate::load::create`] makes them.
    pub(crate) async fn puts(
        &self,
        objects: &Arc<Objects>,
        row: (&str, &str),
        prefix: &str,
        count: usize,
        clients: usize,
    ) -> Result<Row> {
        let mut senders = Vec::new();
        for _ in 0..clients {
            senders.push(self.connect().await?);
        }
        let began = Instant::now();
        let client = |(number, mut sender): (usize, SendRequest<Full<Bytes>>)| {
            let objects = objects.clone();
            let names = share(prefix, count, number, clients);
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(names.len());
                for name in names {
                    let value = objects.object(&name);
                    let began = Instant::now();
                    put(&mut sender, name.as_bytes(), &value).await?;
                    times.push(began.elapsed());
                }
                anyhow::Ok(times)
            })
        };
        let clients: Vec<_> = senders.into_iter().enumerate().map(client).collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await??);
        }
        Ok(Row::timed(row, began.elapsed(), times))
    }
}

/// `etcdserverpb.KV/Put` with key (field 1) and value (field 2).
async fn put(sender: &mut SendRequest<Full<Bytes>>, key: &[u8], value: &[u8]) -> Result<()> {
    let mut message = BytesMut::new();
    for (tag, bytes) in [(0x0a, key), (0x12, value)] {
        message.put_u8(tag);
        put_length(&mut message, bytes.len());
        message.put_slice(bytes);
    }
    let mut body = BytesMut::with_capacity(message.len() + 5);
    body.put_u8(0); // not compressed
    body.put_u32(u32::try_from(message.len())?);
    body.put_slice(&message);
    let request = Request::post("http://127.0.0.1/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body.freeze()))?;
    sender.ready().await?;
    let answer = sender.send_request(request).await?.into_body().collect().await?;
    let status = answer.trailers().and_then(|t| t.get("grpc-status")).map(|s| s.as_bytes().to_vec());
    ensure!(status.as_deref() == Some(b"0"), "etcd refused a put");
    Ok(())
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}
