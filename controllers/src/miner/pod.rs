//! What a Miner looks like as a Pod, and a genesis Miner as a Service. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, Pod, PodSecurityContext, PodSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use onex_crds::{CHAIN_NAMESPACE, Chain, Miner, MinerSpec, chain, duration, names};
use serde_json::{Value, json};

use crate::Settings;
use crate::report::{difference, missing};
use crate::settings::MinerType;

/// Where nodes talk to each other.
const PEER_PORT: i32 = 6001;
/// Where a node answers HTTP, health included.
const HTTP_PORT: i32 = 38080;
/// Where the genesis Service answers HTTP.
const SERVICE_HTTP_PORT: i32 = 8080;
/// How a node is told which chain is its own, so that it never joins another. As a variable, because OneX's own image does
/// not know such a flag. The name, and not the uid: a Chain that is made again goes on with the miners that are left.
const CHAIN_ID: &str = "ONEX_CHAIN_ID";
/// The one container of a miner's Pod.
pub(crate) const CONTAINER: &str = "toyblc";

/// The Pod that realises `miner` on `chain`. `owned`: whether it lives where its Miner does and can name it as owner.
pub(crate) fn pod(miner: &Miner, chain: &Chain, miner_type: &MinerType, settings: &Settings, owned: bool) -> Pod {
    let chains = (names::ANNOTATION_CHAIN_SETTINGS.to_owned(), chain_settings(chain, settings));
    let wanted = miner.spec.metadata.annotations.clone().into_iter().chain(annotations(miner)).chain([chains]);
    Pod {
        metadata: ObjectMeta {
            name: Some(miner.name_any()),
            namespace: miner.namespace(),
            labels: Some(labels(miner)),
            annotations: Some(wanted.collect()),
            owner_references: owner(miner).filter(|_| owned).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container(miner, chain, miner_type, settings)],
            restart_policy: Some(miner.spec.restart_policy.clone()).filter(|policy| !policy.is_empty()),
            node_name: Some(settings.node.clone()).filter(|node| !node.is_empty()),
            termination_grace_period_seconds: Some(i64::from(settings.grace_seconds)),
            // A miner talks to its peers and to nobody else.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn container(miner: &Miner, chain: &Chain, miner_type: &MinerType, settings: &Settings) -> Container {
    let image = image(chain, settings);
    let share = BTreeMap::from([
        ("cpu".to_owned(), Quantity(miner_type.cpu.clone())),
        ("memory".to_owned(), Quantity(miner_type.memory.clone())),
    ]);
    Container {
        name: CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(arguments(miner, chain, miner_type, settings)),
        env: Some(vec![EnvVar { name: CHAIN_ID.to_owned(), value: Some(chain.name_any()), value_from: None }]),
        ports: Some(vec![port("websocket", PEER_PORT), port("http", HTTP_PORT)]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/healthz".to_owned()),
                port: IntOrString::Int(HTTP_PORT),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(5),
            timeout_seconds: Some(2),
            ..Probe::default()
        }),
        resources: Some(ResourceRequirements { limits: Some(share.clone()), requests: Some(share), claims: None }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn arguments(miner: &Miner, chain: &Chain, miner_type: &MinerType, settings: &Settings) -> Vec<String> {
    let mut arguments = vec![
        format!("--p2p-addr=0.0.0.0:{PEER_PORT}"),
        format!("--peers=ws://{}:{PEER_PORT}", genesis_host(&miner.spec.chain_name, settings)),
        format!("--http.addr=0.0.0.0:{HTTP_PORT}"),
    ];
    if miner.genesis_of().is_none() {
        let interval = interval_seconds(chain);
        arguments.extend([
            "--miner".to_owned(),
            // The namespace of a Miner is its user, and so the account that is rewarded.
            format!("--address={}", miner.namespace().unwrap_or_default()),
            format!("--min-mine-interval={}", duration::of_seconds(interval)),
            format!("--mining-difficulty={}", miner_type.mining_difficulty),
        ]);
    }
    arguments
}

fn image<'a>(chain: &'a Chain, settings: &'a Settings) -> &'a str {
    Some(chain.spec.image.as_str()).filter(|image| !image.is_empty()).unwrap_or(&settings.image)
}

fn interval_seconds(chain: &Chain) -> u64 {
    let interval = u64::try_from(chain.spec.min_mine_interval_seconds).ok().filter(|seconds| *seconds > 0);
    interval.unwrap_or(chain::DEFAULT_MIN_MINE_INTERVAL_SECONDS as u64)
}

/// What Pods get of their Chain and cannot change while they live.
pub(crate) fn chain_settings(chain: &Chain, settings: &Settings) -> String {
    format!("{} {}s", image(chain, settings), interval_seconds(chain))
}

/// From which settings of its Chain the Pod was made, if it says.
pub(crate) fn made_from_chain(pod: &Pod) -> Option<&String> {
    pod.annotations().get(names::ANNOTATION_CHAIN_SETTINGS)
}

/// The name under which all miners of a chain find its genesis.
// From the Chain's name, not from its status: the status may not be written yet, and the name never changes.
pub(crate) fn genesis_host(chain: &str, settings: &Settings) -> String {
    format!("{chain}.{CHAIN_NAMESPACE}.{}", settings.service_domain)
}

fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// The labels of the Miner's Pod: what the Miner asks for, and the name of its set or, outside of a set, its own. A genesis
/// has the name of its Chain besides, which nobody can ask for: by both, its Service finds it and nothing else.
pub(crate) fn labels(miner: &Miner) -> BTreeMap<String, String> {
    let mut labels = miner.spec.metadata.labels.clone();
    labels.remove(names::LABEL_CHAIN_NAME);
    labels.extend(miner.genesis_of().map(chain_label));
    let set = miner.labels().get(names::LABEL_MINERSET_NAME).filter(|_| miner.genesis_of().is_none());
    labels.insert(
        names::LABEL_MINERSET_NAME.to_owned(),
        set.cloned().unwrap_or_else(|| names::label_value(&miner.name_any())),
    );
    labels
}

fn chain_label(chain: &str) -> (String, String) {
    (names::LABEL_CHAIN_NAME.to_owned(), names::label_value(chain))
}

/// The annotations by which a Pod is known to be the Miner's.
pub(crate) fn annotations(miner: &Miner) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (names::ANNOTATION_MINER_NAMESPACE.to_owned(), miner.namespace().unwrap_or_default()),
        (names::ANNOTATION_MINER.to_owned(), miner.name_any()),
        (names::ANNOTATION_MADE_FROM.to_owned(), made_from(&miner.spec)),
    ]);
    if let Some(owner) = miner.controller() {
        annotations.insert(names::ANNOTATION_OWNER_KIND.to_owned(), owner.kind.clone());
        annotations.insert(names::ANNOTATION_OWNER_NAME.to_owned(), owner.name.clone());
    }
    annotations
}

/// The settings of a Miner that its Pod cannot change while it lives. A Pod that was made from others is replaced.
///
/// What the Chain says is not among them: see [`chain_settings`].
pub(crate) fn made_from(spec: &MinerSpec) -> String {
    format!("{}/{}/{}", spec.chain_name, spec.miner_type, spec.restart_policy)
}

/// Whether Miners of these two specs would make the same Pod; [`made_from`] without writing it down.
pub(crate) fn is_made_from_the_same(one: &MinerSpec, other: &MinerSpec) -> bool {
    (&one.chain_name, &one.miner_type, &one.restart_policy)
        == (&other.chain_name, &other.miner_type, &other.restart_policy)
}

/// Whether the Pod is the Miner's: it names it as its owner or, owned by nobody, in its annotations.
pub(crate) fn belongs(pod: &Pod, miner: &Miner) -> bool {
    match pod.owner_references().iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) => Some(&owner.uid) == miner.metadata.uid.as_ref(),
        None => {
            let says = |key: &str| pod.annotations().get(key).map(String::as_str);
            says(names::ANNOTATION_MINER) == Some(&miner.name_any())
                && says(names::ANNOTATION_MINER_NAMESPACE)
                    .is_none_or(|namespace| Some(namespace) == miner.namespace().as_deref())
        }
    }
}

pub(crate) fn owner(miner: &Miner) -> Option<OwnerReference> {
    let owner = miner.controller_owner_ref(&())?;
    Some(OwnerReference { block_owner_deletion: Some(true), ..owner })
}

/// Whether the Service is the genesis Miner's: it names it as its owner or, owned by nobody, carries the label of its chain.
pub(crate) fn serves(service: &Service, genesis: &Miner) -> bool {
    let Some(chain) = genesis.genesis_of() else { return false };
    match service.owner_references().iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) => Some(&owner.uid) == genesis.metadata.uid.as_ref(),
        None => service.labels().get(names::LABEL_CHAIN_NAME) == Some(&names::label_value(chain)),
    }
}

/// The Service under which all miners of `chain` find the genesis Miner `miner`.
///
/// OneX asks for a NodePort. Nothing outside of the cluster dials it, and a ClusterIP works where no ports are allocated.
pub(crate) fn service(miner: &Miner, chain: &str, owned: bool) -> Service {
    let port = |name: &str, port, target| ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::Int(target)),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: ObjectMeta {
            name: Some(chain.to_owned()),
            namespace: miner.namespace(),
            labels: Some(BTreeMap::from([chain_label(chain)])),
            owner_references: owner(miner).filter(|_| owned).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            // Without the Chain's label, the Pods of a MinerSet of that name would answer, too.
            selector: Some(BTreeMap::from([
                (names::LABEL_MINERSET_NAME.to_owned(), names::label_value(&miner.name_any())),
                chain_label(chain),
            ])),
            ports: Some(vec![port("websocket", PEER_PORT, PEER_PORT), port("http", SERVICE_HTTP_PORT, HTTP_PORT)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The merge patch that makes a Service lead where the `wanted` one does, if it does not.
pub(crate) fn repair(service: &Service, wanted: &Service) -> Option<Value> {
    let leads = |service: &Service| {
        let spec = service.spec.clone().unwrap_or_default();
        // What the cluster fills in is its own affair.
        let port = |port| ServicePort { node_port: None, app_protocol: None, ..port };
        let ports: Vec<_> = spec.ports.unwrap_or_default().into_iter().map(port).collect();
        json!({"selector": spec.selector, "ports": ports})
    };
    let mut patch = json!({});
    if let Some(spec) = difference(&leads(service), &leads(wanted)) {
        patch["spec"] = spec;
    }
    if let Some(labels) = missing(service.labels(), wanted.labels()) {
        patch["metadata"] = json!({"labels": labels}); // we watch by it
    }
    (patch != json!({})).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miner::tests::{genesis, genesis_chain, miner};

    fn made(miner: &Miner) -> Pod {
        let settings = Settings::default();
        pod(miner, &genesis_chain(), &settings.types["M1.MEDIUM2"], &settings, true)
    }

    fn arguments_of(pod: &Pod) -> Vec<String> {
        pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap()
    }

    #[test]
    fn b19_a_miner_mines_for_the_account_of_its_user_and_dials_the_genesis() {
        assert_eq!(
            arguments_of(&made(&miner())),
            [
                "--p2p-addr=0.0.0.0:6001",
                "--peers=ws://genesis.kube-system.svc.onexstack.com:6001",
                "--http.addr=0.0.0.0:38080",
                "--miner",
                "--address=user-admin",
                "--min-mine-interval=12h0m0s",
                "--mining-difficulty=1",
            ]
        );
    }

    #[test]
    fn every_node_is_told_which_chain_is_its_own() {
        for miner in [miner(), genesis()] {
            let env = made(&miner).spec.unwrap().containers[0].env.clone().unwrap();
            assert_eq!((env[0].name.as_str(), env[0].value.as_deref()), ("ONEX_CHAIN_ID", Some("genesis")));
        }
    }

    #[test]
    fn b17_a_genesis_does_not_mine_and_its_service_finds_it() {
        let genesis = genesis();
        let pod = made(&genesis);
        assert_eq!(arguments_of(&pod).len(), 3);
        let service = service(&genesis, "genesis", true);
        let selector = service.spec.as_ref().unwrap().selector.clone().unwrap();
        assert_eq!(
            json!(selector),
            json!({"apps.onex.io/minerset-name": "genesis", "apps.onex.io/chain-name": "genesis"})
        );
        assert!(selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)));
        let ports: Vec<_> =
            service.spec.unwrap().ports.unwrap().into_iter().map(|port| (port.port, port.target_port)).collect();
        assert_eq!(ports, [(6001, Some(IntOrString::Int(6001))), (8080, Some(IntOrString::Int(38080)))]);
    }

    #[test]
    fn the_pod_of_a_set_is_labelled_with_the_set() {
        let mut miner = miner();
        miner.labels_mut().insert(names::LABEL_MINERSET_NAME.to_owned(), "test".to_owned());
        miner.spec.metadata.labels.insert("tier".to_owned(), "gold".to_owned());
        let pod = made(&miner);
        assert_eq!(pod.labels()["apps.onex.io/minerset-name"], "test");
        assert_eq!(pod.labels()["tier"], "gold");
    }

    #[test]
    fn no_set_of_the_chains_name_gets_behind_its_service() {
        let mut member = miner();
        member.labels_mut().insert(names::LABEL_MINERSET_NAME.to_owned(), "genesis".to_owned());
        member.spec.metadata.labels.insert(names::LABEL_CHAIN_NAME.to_owned(), "genesis".to_owned());
        let selector = service(&genesis(), "genesis", true).spec.unwrap().selector.unwrap();
        assert!(!selector.iter().all(|(key, value)| made(&member).labels().get(key) == Some(value)));
    }

    #[test]
    fn a_service_is_repaired_when_it_leads_astray_and_left_alone_otherwise() {
        let wanted = service(&genesis(), "genesis", true);
        let mut filled_in = wanted.clone();
        let spec = filled_in.spec.as_mut().unwrap();
        spec.cluster_ip = Some("10.0.0.1".to_owned());
        spec.ports.as_mut().unwrap()[0].node_port = Some(30_000);
        assert_eq!(repair(&filled_in, &wanted), None);

        let mut astray = wanted.clone();
        astray.metadata.labels = None;
        let spec = astray.spec.as_mut().unwrap();
        spec.selector = Some(BTreeMap::from([("app".to_owned(), "mine".to_owned())]));
        spec.ports.as_mut().unwrap()[1].port = 80;
        let patch = repair(&astray, &wanted).unwrap();
        assert_eq!(patch["metadata"]["labels"], json!({"apps.onex.io/chain-name": "genesis"}));
        assert_eq!(patch["spec"]["ports"], json!(wanted.spec.unwrap().ports));
        let selector =
            json!({"app": null, "apps.onex.io/minerset-name": "genesis", "apps.onex.io/chain-name": "genesis"});
        assert_eq!(patch["spec"]["selector"], selector);
    }

    #[test]
    fn b44_the_pod_gets_what_its_type_promises_and_no_more() {
        let pod = made(&miner());
        let resources = pod.spec.unwrap().containers[0].resources.clone().unwrap();
        assert_eq!(resources.requests, resources.limits);
        assert_eq!(resources.limits.unwrap()["memory"], Quantity("1Gi".to_owned()));
    }

    #[test]
    fn the_image_is_the_chains_or_else_the_settings() {
        let image = |pod: Pod| pod.spec.unwrap().containers[0].image.clone().unwrap();
        assert_eq!(image(made(&miner())), Settings::default().image);
        let settings = Settings::default();
        let mut chain = genesis_chain();
        chain.spec.image = "toyblc:v1".to_owned();
        assert_eq!(image(pod(&miner(), &chain, &settings.types["S1.SMALL1"], &settings, true)), "toyblc:v1");
    }

    #[test]
    fn a_pod_in_another_cluster_names_its_miner_without_owning() {
        let settings = Settings::default();
        let pod = pod(&miner(), &genesis_chain(), &settings.types["S1.SMALL1"], &settings, false);
        assert_eq!(pod.metadata.owner_references, None);
        assert_eq!(pod.annotations()["apps.onex.io/miner"], "free");
        assert_eq!(pod.annotations()["apps.onex.io/miner-namespace"], "user-admin");
        assert!(belongs(&pod, &miner()));
    }

    #[test]
    fn a_pod_of_an_earlier_miner_of_that_name_is_not_ours() {
        let mut pod = made(&miner());
        assert!(belongs(&pod, &miner()));
        pod.metadata.owner_references.as_mut().unwrap()[0].uid = "earlier".to_owned();
        assert!(!belongs(&pod, &miner()));
        pod.metadata.owner_references = None;
        pod.metadata.annotations = None;
        assert!(!belongs(&pod, &miner()));
    }
}
