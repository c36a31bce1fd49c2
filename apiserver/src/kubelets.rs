//! The way to kubelets: HTTPS, with a certificate that says that we are the apiserver.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::status::{Result, Status};

/// How long a kubelet may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client for all kubelets.
pub(crate) struct Kubelets(Option<Client<HttpsConnector<HttpConnector>, Body>>);

impl Kubelets {
    pub(crate) fn new(tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self(tls.map(|tls| {
            let connector =
                HttpsConnectorBuilder::new().with_tls_config((*tls).clone()).https_only().enable_http1().build();
            Client::builder(TokioExecutor::new()).build(connector)
        }))
    }

    /// Asks, and answers the beginning of the answer; its body goes on by itself.
    pub(crate) async fn get(&self, url: &str) -> Result<Response<Body>> {
        let Some(client) = &self.0 else {
            return Err(Status::unavailable("this apiserver has no way to kubelets"));
        };
        let request = Request::get(url).body(Body::empty()).map_err(Status::internal)?;
        match tokio::time::timeout(PATIENCE, client.request(request)).await {
            Ok(Ok(response)) => Ok(response.map(Body::new)),
            Ok(Err(error)) => Err(Status::unavailable(format!("the kubelet does not answer: {error}"))),
            Err(_) => Err(Status::unavailable("the kubelet does not answer in time")),
        }
    }
}
