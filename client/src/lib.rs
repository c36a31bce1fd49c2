//! The Rust SDK: doors to OneX's services, over a URL or over a `Router` in the same process.
//!
//! Today there is one service with a door, the apiserver, and its door is a plain [`kube::Client`]: [`over_router`]
//! opens it without a socket, [`over_kubeconfig`] over the network. Whoever holds one cannot tell which it is. This
//! crate holds no types of its own for what travels through; the kinds are in `onex-crds`.
//!
//! # A router is a client away
//!
//! `kube::Client` takes any tower service from requests to responses, and [`axum::Router`] is one, body types included:
//! nothing needs to be converted. What that gives, held by `tests/it.rs`:
//!
//! - A watch streams: each event arrives when the server writes it, long before the answer ends.
//! - Nothing runs ahead: a server that streams is polled as its reader reads, so a slow reader slows its own stream
//!   only.
//! - Dropping the stream drops the server's body at once, so an abandoned watch costs nothing.
//! - The request carries no `Peer` (there is no connection), so a router that asks who is calling must be one that
//!   already knows, as the apiserver's `router_as` is.
//! - There is no TLS, no HTTP framing and no connection to lose: `onex up` and component tests run controllers against
//!   the real apiserver at the cost of a function call. Faults of a network need a network to be tested.

use std::path::{Path, PathBuf};

use axum::Router;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be read, or names something that is not in it.
    #[error("could not use the kubeconfig {path}")]
    Kubeconfig {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The kubeconfig can be read, but no client can be made of it, for example because of a broken certificate.
    #[error("could not make a client from the kubeconfig {path}")]
    Client {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client of the apiserver behind `router`, in this process and without a socket.
///
/// `namespace` is what [`kube::Api::default_namespaced`] means. Must be called inside a tokio runtime.
#[must_use]
pub fn over_router(router: Router, namespace: &str) -> kube::Client {
    kube::Client::new(router, namespace)
}

/// A client of the cluster that the current context of the kubeconfig at `path` names.
///
/// Must be called inside a tokio runtime. Nothing is sent yet: a server that cannot be reached shows on first use.
///
/// # Errors
/// When the file cannot be read or does not describe a client.
pub async fn over_kubeconfig(path: &Path) -> Result<kube::Client, Error> {
    let unusable = |source| Error::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable)?;
    kube::Client::try_from(config).map_err(|source| Error::Client { path: path.to_owned(), source: Box::new(source) })
}
