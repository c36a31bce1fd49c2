//! The node as a service: settings in, a router and a loop out.

use crate::api::{self, Cluster};
use crate::router;
use crate::runner::{Runner, Shelf};
use crate::{Result, Settings};
use axum::Router;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use kube::runtime::reflector::{self, Store, store::Writer};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A kubelet for processes. See the crate's documentation.
pub struct Node {
    settings: Settings,
    apiserver: Client,
    kubelet_port: u16,
    shelf: Arc<Shelf>,
    pods: Store<Pod>,
    writer: Writer<Pod>,
}

impl Node {
    /// A node that talks to `apiserver`, and whose [`Node::router`] is served at `settings.address` on `kubelet_port`. Nothing
    /// happens before [`Node::run`].
    pub fn new(settings: Settings, apiserver: Client, kubelet_port: u16) -> Self {
        let (pods, writer) = reflector::store();
        Self { settings, apiserver, kubelet_port, shelf: Arc::default(), pods, writer }
    }

    /// The kubelet API: `/containerLogs/{namespace}/{pod}/{container}`, `/pods` and `/healthz`. It does not ask who is calling,
    /// so serve it only to the apiserver.
    pub fn router(&self) -> Router {
        router::router(&self.settings, Arc::clone(&self.shelf), self.pods.clone())
    }

    /// Runs until `shutdown`, then stops every process within `settings.shutdown_seconds` and leaves the Pods as they are in
    /// the apiserver, so that the next run starts them again. Every process dies with this future.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let (services, services_writer) = reflector::store::<Service>();
        let cluster =
            Arc::new(Cluster::new(self.apiserver, self.settings.clone(), self.kubelet_port, self.pods, services));
        let surroundings = Arc::clone(&cluster) as Arc<_>;
        let (settings, shelf) = (self.settings, self.shelf);
        // Killing what a crash left behind takes its time.
        let made = tokio::task::spawn_blocking(move || Runner::new(settings, surroundings, shelf)).await;
        let (runner, notices) = made.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let pods = api::Pods::new(Arc::clone(&cluster), Arc::new(runner), shutdown);
        tokio::select! {
            () = pods.run(self.writer) => {}
            () = api::keep_registered(&cluster) => {}
            () = api::watch_services(&cluster, services_writer) => {}
            () = api::publish(&cluster, notices) => {}
        }
        Ok(())
    }
}
