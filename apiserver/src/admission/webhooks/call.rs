//! The way to a webhook: HTTPS, with connections that are kept, and bounds on everything that comes back.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use rand::RngExt as _;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::{net::TcpStream, time::Instant};
use tower::Service;

use super::trust::Trust;
use crate::window::{Window, Windows};

/// An answer may be so long. It is a patch at most, of an object that is no longer than that.
const MOST_BYTES: usize = 3 * 1024 * 1024;
/// Connections to a webhook that nobody uses are kept for so long.
const IDLE: Duration = Duration::from_secs(30);

/// How to get to one webhook.
pub(super) struct Way {
    url: String,
    client: Result<Client<HttpsConnector<Dial>, Full<Bytes>>, String>,
}

impl Way {
    /// `config` is a `clientConfig`. What is wrong with it is told when it is used: it is stored already.
    pub(super) fn new(config: &Value, dial: &Dial) -> Self {
        let service = &config["service"];
        let text = |name: &str| service[name].as_str().unwrap_or_default();
        let (url, service) = match config["url"].as_str() {
            Some(url) => (clean(url), None),
            None => {
                let (namespace, name) = (text("namespace"), text("name"));
                let port = service["port"].as_i64().unwrap_or(443);
                let path = text("path").trim_start_matches('/');
                let reference = Reference { namespace: namespace.to_owned(), name: name.to_owned(), port };
                (clean(&format!("https://{name}.{namespace}.svc:{port}/{path}")), Some(reference))
            }
        };
        let client = tls(config["caBundle"].as_str().unwrap_or_default()).map(|tls| {
            let dial = Dial { service: service.map(Arc::new), ..dial.clone() };
            let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_timer(hyper_util::rt::TokioTimer::new())
                .build(https.wrap_connector(dial))
        });
        Self { url, client }
    }

    /// Posts, and answers the body of a good answer. It may take `seconds`, and not last longer than `until`.
    pub(super) async fn post(&self, body: Bytes, seconds: u64, until: Instant) -> Result<Bytes, String> {
        let left = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(seconds));
        let told = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let url = format!("{}?timeout={told}s", self.url);
        let failed = |why: String| format!("Post {url:?}: {why}");
        let client = self.client.as_ref().map_err(|why| failed(why.clone()))?;
        let request = Request::post(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(body))
            .map_err(|error| failed(error.to_string()))?;
        let answer = async {
            let response = client.request(request).await.map_err(|error| failed(innermost(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
            let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
        };
        let late = || failed("context deadline exceeded".to_owned());
        tokio::time::timeout(left, answer).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The URL with its path as client-go would send it: `//a/./b/../c/` is `/a/c`. Go's own servers redirect what is not clean,
/// and envtest writes two slashes into every configuration.
fn clean(url: &str) -> String {
    let start = url.find("://").map_or(0, |scheme| scheme + 3);
    let Some(path) = url[start..].find('/').map(|slash| start + slash) else { return url.to_owned() };
    let mut segments = Vec::new();
    for segment in url[path..].split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("{}/{}", &url[..path], segments.join("/"))
}

/// What client-go makes of an answer that is no success. Redirects are not followed.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    const SHOWN: usize = 256;
    match status.as_u16() {
        404 => "the server could not find the requested resource".to_owned(),
        500.. => {
            let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
            let text = if text.is_empty() { "unknown".into() } else { text };
            format!("an error on the server ({text:?}) has prevented the request from succeeding")
        }
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

/// The cause of all causes: what a person can act on.
fn innermost(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// TLS that trusts the bundle; or, when there is none, what the system trusts.
fn tls(bundle: &str) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let pem = STANDARD.decode(bundle).map_err(|error| format!("caBundle is no base64: {error}"))?;
    if pem.iter().all(u8::is_ascii_whitespace) {
        let builder = builder.with_native_roots().map_err(|error| format!("the system trusts nobody: {error}"))?;
        return Ok(builder.with_no_client_auth());
    }
    let trust = Arc::new(Trust::new(&pem, provider)?);
    Ok(builder.dangerous().with_custom_certificate_verifier(trust).with_no_client_auth())
}

/// A Service, by reference.
struct Reference {
    namespace: String,
    name: String,
    port: i64,
}

/// Opens connections. Names of Services are found among our own objects: nothing else here would route to them.
#[derive(Clone)]
pub(super) struct Dial {
    services: Arc<Window>,
    endpoints: Arc<Window>,
    service: Option<Arc<Reference>>,
}

impl Dial {
    pub(super) fn new(windows: &Windows) -> Self {
        let window = |prefix| windows.of(prefix).expect("services and endpoints are compiled in");
        let (services, endpoints) = (window("/registry/services/specs/"), window("/registry/services/endpoints/"));
        Self { services, endpoints, service: None }
    }

    /// An address behind the Service, any of those that are ready.
    fn resolve(&self, wanted: &Reference) -> Result<SocketAddr, String> {
        let Reference { namespace, name, port } = wanted;
        let at = |prefix: &str| format!("{prefix}{namespace}/{name}");
        let service = self.services.get(&at("/registry/services/specs/"));
        let service = service.ok_or_else(|| format!("service {name:?} not found"))?.stored.value_without_managers();
        if service["spec"]["type"] == "ExternalName" {
            return Err("unsupported service type \"ExternalName\"".to_owned());
        }
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let found = ports.clone().find(|candidate| candidate["port"] == *port);
        let found = found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        let nobody = || format!("no endpoints available for service {name:?}");
        let endpoints = self.endpoints.get(&at("/registry/services/endpoints/")).ok_or_else(nobody)?;
        let endpoints = endpoints.stored.value_without_managers();
        let mut ready = Vec::new();
        for subset in endpoints["subsets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let mut ports = subset["ports"].as_array().into_iter().flatten();
            let port = ports.find(|candidate| text(&candidate["name"]) == text(&found["name"]));
            let port = port.and_then(|port| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok());
            let Some(port) = port else { continue };
            let addresses = subset["addresses"].as_array().into_iter().flatten();
            ready.extend(
                addresses.filter_map(|address| Some(SocketAddr::new(text(&address["ip"]).parse().ok()?, port))),
            );
        }
        if ready.is_empty() {
            return Err(nobody());
        }
        Ok(ready[rand::rng().random_range(0..ready.len())])
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<TcpStream>> {
        let addresses: Vec<SocketAddr> = match &self.service {
            Some(service) => vec![self.resolve(service).map_err(io::Error::other)?],
            None => {
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let found = tokio::net::lookup_host((host.as_str(), uri.port_u16().unwrap_or(443))).await;
                let unknown = |_| io::Error::other(format!("dial tcp: lookup {host}: no such host"));
                found.map_err(unknown)?.collect()
            }
        };
        let mut failed = io::Error::other("dial tcp: no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Err(error) => failed = io::Error::other(format!("dial tcp {address}: connect: {}", plain(&error))),
            }
        }
        Err(failed)
    }
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn a_path_is_clean_before_it_is_asked_for() {
        for (given, asked) in [
            ("https://a:1//hook", "https://a:1/hook"),
            ("https://a/x/./y/../z/", "https://a/x/z"),
            ("https://a/../..", "https://a/"),
            ("https://a", "https://a"),
            ("https://[::1]:443/", "https://[::1]:443/"),
        ] {
            assert_eq!(clean(given), asked);
        }
    }
}
