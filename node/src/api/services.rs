//! What containers ask about the cluster: Services, ConfigMaps, Secrets.

use super::Cluster;
use crate::launch::{Surroundings, Target};
use crate::{PodName, pod};
use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;

/// Keeps the Services of the cluster at hand. Does not return.
pub(crate) async fn watch_services(cluster: &Cluster, writer: Writer<Service>) {
    let services = Api::<Service>::all(cluster.client.clone());
    let mut changes = std::pin::pin!(
        watcher(services, watcher::Config::default()).default_backoff().modify(super::slim).reflect(writer)
    );
    while let Some(change) = changes.next().await {
        if let Err(error) = change {
            tracing::warn!(%error, "watching services failed, and is tried again");
        }
    }
}

#[async_trait]
impl Surroundings for Cluster {
    async fn target(&self, namespace: &str, name: &str, asking: &PodName) -> Option<Target> {
        let service = self.services.get(&ObjectRef::new(name).within(namespace))?;
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Some(Target { host: spec.external_name.clone()?, ports: BTreeMap::new() });
        }
        if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
            return self.endpoint(namespace, name).await;
        }
        let pods = self.pods.state_filter(|pod| pod.namespace().as_deref() == Some(namespace));
        let chosen = choose(&service, pods.iter().map(|pod| &**pod), asking)?;
        let host = address(chosen)?.to_owned();
        let ports = ports(&service, chosen);
        Some(Target { host, ports })
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, String>>, String> {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let map = maps.get_opt(name).await.map_err(|error| error.to_string())?;
        Ok(map.map(|map| map.data.unwrap_or_default()))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, String>>, String> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let secret = secrets.get_opt(name).await.map_err(|error| error.to_string())?;
        let text = |(key, value): (String, k8s_openapi::ByteString)| Some((key, String::from_utf8(value.0).ok()?));
        Ok(secret.map(|secret| secret.data.unwrap_or_default().into_iter().filter_map(text).collect()))
    }
}

impl Cluster {
    /// Where a Service without selector leads: somebody wrote its Endpoints by hand.
    async fn endpoint(&self, namespace: &str, name: &str) -> Option<Target> {
        let endpoints = Api::<Endpoints>::namespaced(self.client.clone(), namespace);
        let found = endpoints.get_opt(name).await.ok()??;
        let subset = found.subsets?.into_iter().next()?;
        Some(Target { host: subset.addresses?.into_iter().next()?.ip, ports: BTreeMap::new() })
    }
}

/// The Pod that `asking` is led to by `service`: a ready one, else one that has an address; itself only when it is alone.
fn choose<'a>(service: &Service, pods: impl Iterator<Item = &'a Pod>, asking: &PodName) -> Option<&'a Pod> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    let selected = |pod: &&Pod| selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
    let usable = |pod: &&Pod| address(pod).is_some() && !pod::is_over(pod) && !pod::is_deleting(pod);
    // Names decide among equals, so that everybody is led to the same Pod.
    pods.filter(selected).filter(usable).min_by_key(|pod| (PodName::of(pod) == *asking, !is_ready(pod), pod.name_any()))
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// From the ports of `service` to those of `pod`.
fn ports(service: &Service, pod: &Pod) -> BTreeMap<u16, u16> {
    let spec = service.spec.as_ref();
    let declared = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let named = |name: &str| {
        let mut ports = pod::containers(pod).iter().flat_map(|container| container.ports.iter().flatten());
        ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port)
    };
    declared
        .filter_map(|port| {
            let target = match &port.target_port {
                None => port.port,
                Some(IntOrString::Int(number)) => *number,
                Some(IntOrString::String(name)) => named(name)?,
            };
            Some((u16::try_from(port.port).ok()?, u16::try_from(target).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "genesis", "namespace": "n"},
            "spec": {
                "selector": {"app": "chain"},
                "ports": [{"port": 6001}, {"port": 8080, "targetPort": 38080}, {"port": 80, "targetPort": "web"}],
            },
        }))
        .unwrap()
    }

    fn pod(name: &str, app: &str, ip: Option<&str>, ready: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 3000}]}]},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap()
    }

    fn chosen(pods: &[Pod], asking: &str) -> Option<String> {
        let asking = PodName { namespace: "n".into(), name: asking.into() };
        choose(&service(), pods.iter(), &asking).map(ResourceExt::name_any)
    }

    #[test]
    fn a_service_leads_to_a_ready_pod_and_to_oneself_only_when_alone() {
        let one = Some("127.64.0.1");
        for (pods, asking, expected) in [
            (vec![], "x", None),
            (vec![pod("a", "chain", None, false)], "x", None),
            (vec![pod("a", "other", one, true)], "x", None),
            (vec![pod("a", "chain", one, false)], "x", Some("a")),
            (vec![pod("a", "chain", one, false), pod("b", "chain", one, true)], "x", Some("b")),
            (vec![pod("b", "chain", one, true), pod("a", "chain", one, true)], "x", Some("a")),
            (vec![pod("a", "chain", one, false)], "a", Some("a")),
            (vec![pod("a", "chain", one, true), pod("b", "chain", one, false)], "a", Some("b")),
        ] {
            assert_eq!(chosen(&pods, asking).as_deref(), expected, "{asking} {}", pods.len());
        }
    }

    #[test]
    fn a_services_port_leads_to_the_pods_port() {
        let ports = ports(&service(), &pod("a", "chain", None, true));
        assert_eq!(ports, BTreeMap::from([(6001, 6001), (8080, 38080), (80, 3000)]));
    }
}
