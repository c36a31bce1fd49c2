//! One connection, one request at a time: as little client as can be. Or many at once over one, by HTTP/2, where more clients
//! are wanted than a process may have sockets.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, request::Builder};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
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
    /// The same for HTTP/2.
    tls_shared: TlsConnector,
    token: Option<String>,
}

/// A connection to it.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
}

/// A connection that several requests may be under way on. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Shared {
    sender: http2::SendRequest<Full<Bytes>>,
    authority: String,
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
        let mut shared = config.clone();
        shared.alpn_protocols = vec![b"h2".to_vec()];
        let (tls, tls_shared) = (TlsConnector::from(Arc::new(config)), TlsConnector::from(Arc::new(shared)));
        Ok(Self { host: cluster.host, port: cluster.port, tls, tls_shared, token: cluster.token })
    }

    async fn stream(&self, tls: &TlsConnector) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        tls.connect(name, stream).await.context("shaking hands")
    }

    /// Opens a connection for a load of small requests.
    pub(crate) async fn connect_lean(&self) -> Result<Lean> {
        Ok(Lean::new(self.stream(&self.tls).await?, &self.host, self.token.as_deref()))
    }

    /// Opens a connection of one's own.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.stream(&self.tls).await?)).await?;
        tokio::spawn(async move {
            // A connection that breaks fails the request that waits for it, which says so.
            let _ = connection.await;
        });
        Ok(Connection { sender, host: self.host.clone(), token: self.token.clone() })
    }

    /// Opens a connection for several requests at once.
    pub(crate) async fn connect_shared(&self) -> Result<Shared> {
        let stream = TokioIo::new(self.stream(&self.tls_shared).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(async move {
            // As above.
            let _ = connection.await;
        });
        Ok(Shared { sender, authority: format!("{}:{}", self.host, self.port), token: self.token.clone() })
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
        let request = Request::builder().method(method).uri(path).header("host", &self.host);
        let request = request.header("accept", accept).header("content-type", media);
        let request = authorized(request, self.token.as_deref()).body(Full::new(body))?;
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

impl Shared {
    /// Asks for something, and answers when the head of the answer is there.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> Result<Response<Incoming>> {
        let url = format!("https://{}{path}", self.authority);
        let request = Request::builder().uri(url).header("accept", accept);
        let request = authorized(request, self.token.as_deref()).body(Full::new(Bytes::new()))?;
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }
}

fn authorized(request: Builder, token: Option<&str>) -> Builder {
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}
