//! Requests that kubectl would not send: to the apiserver as its administrator, and to the miners themselves.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::world::{PATIENCE, World};

/// How long a miner may take to answer, before it is asked again.
const ANSWER: Duration = Duration::from_secs(10);

/// Runs `work` to its end on this thread.
pub fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A client that is the administrator; it works only on the runtime it was made in.
pub async fn administrator(world: &World) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(world.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// The apiserver's answer to a body that is sent as it is.
pub fn send(world: &World, method: &str, path: &str, media: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let body = body.into();
    wait(within(PATIENCE, path, async {
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        let response = administrator(world).await.send(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into())))
    }))
    .unwrap()
}

/// The answer of `path`, if it comes in time.
async fn within<T>(
    patience: Duration,
    path: &str,
    answer: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let late = |_| Err(format!("{path}: no answer within {patience:?}"));
    tokio::time::timeout(patience, answer).await.unwrap_or_else(late)
}

/// What the miner at `address` answers those who know its account.
pub fn ask_miner(address: Ipv4Addr, path: &str) -> Result<Value, String> {
    wait(within(ANSWER, path, async {
        let account = BASE64_STANDARD.encode("toyblc:onex(#)666");
        let request = Request::get(format!("http://{address}:38080{path}"));
        let request = request.header("authorization", format!("Basic {account}")).body(Empty::<&[u8]>::new());
        let client = legacy::Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request.unwrap()).await.map_err(|error| format!("{path}: {error}"))?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|error| format!("{path}: {error}"))?.to_bytes();
        match status.is_success() {
            true => Ok(serde_json::from_slice(&bytes).unwrap()),
            false => Err(format!("{path}: {status} {}", String::from_utf8_lossy(&bytes))),
        }
    }))
}
