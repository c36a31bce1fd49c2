//! One connection, one request at a time: as little client as can be.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{kubeconfig::Cluster, lean::Lean};

/// A server to connect to.
pub(crate) struct Server {
    host: String,
    port: u16,
    tls: TlsConnector,
    token: Option<String>,
}

/// A connection to it.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
}

impl Server {
    pub(crate) fn new(cluster: Cluster) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for authority in cluster.authorities {
            roots.add(authority)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match cluster.identity {
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key)?,
            None => config.with_no_client_auth(),
        };
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { host: cluster.host, port: cluster.port, tls, token: cluster.token })
    }

    async fn stream(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        self.tls.connect(name, stream).await.context("shaking hands")
    }

    /// Opens a connection for a load of small requests.
    pub(crate) async fn connect_lean(&self) -> Result<Lean> {
        Ok(Lean::new(self.stream().await?, &self.host, self.token.as_deref()))
    }

    /// Opens a connection of one's own.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = self.stream().await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // A connection that breaks fails the request that waits for it, which says so.
            let _ = connection.await;
        });
        Ok(Connection { sender, host: self.host.clone(), token: self.token.clone() })
    }
}

impl Connection {
    /// Sends a request, and answers when the head of the answer is there.
    pub(crate) async fn start(
        &mut self,
        method: Method,
        path: &str,
        accept: &str,
        media: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("accept", accept)
            .header("content-type", media);
        let request = match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        let request = request.body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and reads the whole answer, which must be a success.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        accept: &str,
        media: &str,
        body: Bytes,
    ) -> Result<Bytes> {
        let answer = self.start(method, path, accept, media, body).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(bytes)
    }

    /// A page as text.
    pub(crate) async fn text(&mut self, path: &str) -> Result<String> {
        let bytes = self.send(Method::GET, path, "*/*", "application/json", Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
