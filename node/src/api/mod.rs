//! Talking to the apiserver. No other module does.

mod bind;
mod pods;
mod registration;
mod services;

pub(crate) use pods::Pods;
pub(crate) use registration::keep_registered;
pub(crate) use services::watch_services;

use crate::Settings;
use crate::events::Notice;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::Store;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// How many requests are under way at the same time; a thousand Pods that change at once wait for each other.
const REQUESTS: usize = 64;

/// Who we are to the apiserver when we change an object.
const MANAGER: &str = "onex-node";

/// Between two events, so that a storm of them does not become the apiserver's.
const BETWEEN_EVENTS: Duration = Duration::from_millis(10);

/// The cluster as the node sees it.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) kubelet_port: u16,
    /// Every Pod, because this is the scheduler, too, and because Services choose among all of them.
    pub(crate) pods: Store<Pod>,
    pub(crate) services: Store<Service>,
    /// Our own Node as it was read last.
    pub(crate) node: watch::Sender<Option<Node>>,
    pub(crate) requests: Semaphore,
}

impl Cluster {
    pub(crate) fn new(
        client: Client,
        settings: Settings,
        kubelet_port: u16,
        pods: Store<Pod>,
        services: Store<Service>,
    ) -> Self {
        Self {
            client,
            settings,
            kubelet_port,
            pods,
            services,
            node: watch::Sender::new(None),
            requests: Semaphore::new(REQUESTS),
        }
    }
}

/// Drops what is kept of every object and never looked at.
fn slim<K: kube::ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
}

/// The HTTP status of an answer that is an error.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Writes notices as Events, one after the other, for as long as there are any.
pub(crate) async fn publish(cluster: &Cluster, mut notices: mpsc::Receiver<Notice>) {
    let recorder = |controller: &str| {
        let reporter =
            Reporter { controller: controller.to_owned(), instance: Some(cluster.settings.node_name.clone()) };
        Recorder::new(cluster.client.clone(), reporter)
    };
    let (kubelet, scheduler) = (recorder("kubelet"), recorder("default-scheduler"));
    while let Some(notice) = notices.recv().await {
        let recorder = if notice.action == bind::ACTION { &scheduler } else { &kubelet };
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.to_owned(),
            note: Some(notice.note),
            action: notice.action.to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &notice.regarding).await {
            // An event is a courtesy; the namespace may be going away, for example.
            tracing::debug!(%error, reason = notice.reason, "could not write an event");
        }
        tokio::time::sleep(BETWEEN_EVENTS).await;
    }
}
