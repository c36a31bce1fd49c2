//! From a container's spec to a command line of this machine.

use crate::arguments::{self, ServiceName};
use crate::home::Home;
use crate::{PodName, Settings, image, pod, records};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An address that serves a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Address or host name.
    pub host: String,
    /// From the Service's port to the port at `host`.
    pub ports: BTreeMap<u16, u16>,
}

/// What containers want to know about the cluster.
#[async_trait]
pub trait Surroundings: Send + Sync + 'static {
    /// An address that serves the Service `name`, or `None` as long as there is none. A Pod that is alone behind a Service
    /// (as the first node of a chain is) is told its own address.
    async fn target(&self, namespace: &str, name: &str, asking: &PodName) -> Option<Target>;

    /// The texts of a ConfigMap, `None` when there is no such ConfigMap, or why it cannot be read.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, String>>, String>;

    /// The texts of a Secret, `None` when there is no such Secret, or why it cannot be read.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, String>>, String>;
}

/// A program with everything it is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
}

/// Why a container cannot be started now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// Nobody said which program the image is.
    Image(String),
    /// The container's configuration asks for something that is not there.
    Configuration(String),
    /// The program is not on this machine, or cannot be executed.
    Program(String),
    /// Something the container names will exist soon.
    NotYet(String),
}

impl Hindrance {
    /// Kubernetes' word for it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Image(_) => "ErrImageNeverPull",
            Self::Configuration(_) => "CreateContainerConfigError",
            Self::Program(_) => "CreateContainerError",
            Self::NotYet(_) => "ContainerCreating",
        }
    }

    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Image(text) | Self::Configuration(text) | Self::Program(text) | Self::NotYet(text) => text,
        }
    }
}

/// What a container is started in.
pub(crate) struct Place<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) home: &'a Home,
    pub(crate) settings: &'a Settings,
    pub(crate) surroundings: &'a dyn Surroundings,
}

/// The command line for `container`, or what is in the way.
pub(crate) async fn plan(container: &Container, place: &Place<'_>) -> Result<Launch, Hindrance> {
    let image = container.image.as_deref().unwrap_or_default();
    let program = image::find(place.settings, image).ok_or_else(|| {
        Hindrance::Image(format!(
            "Container image {image:?} is not present: this node runs processes and never pulls images. \
             Map it to a local executable with the node's setting `images`, e.g. images = {{ {image:?} = [\"/path/to/program\"] }}"
        ))
    })?;
    if let Some(unsupported) = unsupported(container) {
        return Err(Hindrance::Configuration(unsupported.to_owned()));
    }
    let mut environment = place.environment(container).await?;
    let mut words = words(container, program.words);
    for word in &mut words {
        *word = arguments::expand(word, &environment);
    }
    place.localize(words.iter_mut().chain(environment.values_mut())).await?;
    environment.extend(place.own_variables(container));
    if words.is_empty() {
        let message = format!("image {image:?} stands for the container's command, and there is none");
        return Err(Hindrance::Configuration(message));
    }
    let program_path = executable(&words.remove(0), &place.settings.path)?;
    if program.toyblc && !words.iter().any(|word| word.starts_with("--data-dir")) {
        words.push(format!("--data-dir={}", place.home.chain().display()));
    }
    Ok(Launch { program: program_path, arguments: words, environment, directory: place.home.work() })
}

/// What a plain process cannot have. Better not to run than to run without a file or a neighbour that it counts on.
fn unsupported(container: &Container) -> Option<&'static str> {
    let mounts = container.volume_mounts.iter().flatten();
    // Only programs that talk to the apiserver by themselves miss this one, and they say so.
    let mut needed = mounts.filter(|mount| mount.mount_path != "/var/run/secrets/kubernetes.io/serviceaccount");
    if needed.next().is_some() {
        return Some("this node mounts no volumes: its containers are processes that see the machine's files");
    }
    container
        .restart_policy
        .as_ref()
        .map(|_| "this node does not support sidecars: a container with its own restartPolicy")
}

/// The first word of `command` names the program inside of the image, so the mapping stands for it.
fn words(container: &Container, mapped: Vec<String>) -> Vec<String> {
    let command = container.command.clone().unwrap_or_default();
    let skipped = if mapped.is_empty() { 0 } else { 1 };
    let mut words = mapped;
    words.extend(command.into_iter().skip(skipped));
    words.extend(container.args.iter().flatten().cloned());
    words
}

fn executable(word: &str, path: &str) -> Result<PathBuf, Hindrance> {
    let candidates: Vec<PathBuf> = if word.contains('/') {
        vec![PathBuf::from(word)]
    } else {
        path.split(':').map(|directory| Path::new(directory).join(word)).collect()
    };
    let is_executable =
        |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    candidates
        .into_iter()
        .find(is_executable)
        .ok_or_else(|| Hindrance::Program(format!("{word:?} is no executable of this machine")))
}

impl Place<'_> {
    /// What the container says, in its order: a value may refer to those before it.
    async fn environment(&self, container: &Container) -> Result<BTreeMap<String, String>, Hindrance> {
        let mut environment = BTreeMap::new();
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let (texts, optional) = match (&source.config_map_ref, &source.secret_ref) {
                (Some(map), _) => (self.texts("ConfigMap", &map.name).await?, map.optional),
                (None, Some(secret)) => (self.texts("Secret", &secret.name).await?, secret.optional),
                (None, None) => continue,
            };
            match texts {
                Ok(texts) => environment.extend(texts.into_iter().map(|(key, text)| (format!("{prefix}{key}"), text))),
                Err(missing) if optional != Some(true) => return Err(Hindrance::Configuration(missing)),
                Err(_) => {}
            }
        }
        for variable in container.env.iter().flatten() {
            if let Some(value) = self.value(variable).await? {
                let value = arguments::expand(&value, &environment);
                environment.insert(variable.name.clone(), value);
            }
        }
        Ok(environment)
    }

    async fn value(&self, variable: &EnvVar) -> Result<Option<String>, Hindrance> {
        let Some(source) = &variable.value_from else {
            return Ok(Some(variable.value.clone().unwrap_or_default()));
        };
        match source {
            EnvVarSource { field_ref: Some(field), .. } => match self.field(&field.field_path) {
                Some(value) => Ok(Some(value)),
                None => Err(Hindrance::Configuration(format!("unsupported fieldPath: {}", field.field_path))),
            },
            EnvVarSource { config_map_key_ref: Some(key), .. } => {
                self.text("ConfigMap", &key.name, &key.key, key.optional).await
            }
            EnvVarSource { secret_key_ref: Some(key), .. } => {
                self.text("Secret", &key.name, &key.key, key.optional).await
            }
            _ => {
                let message = format!("the source of variable {} is not supported by this node", variable.name);
                Err(Hindrance::Configuration(message))
            }
        }
    }

    /// One text of a ConfigMap or Secret. The value itself never gets into a message.
    async fn text(
        &self,
        kind: &str,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Result<Option<String>, Hindrance> {
        let found = match self.texts(kind, name).await? {
            Ok(mut texts) => texts
                .remove(key)
                .ok_or_else(|| format!("couldn't find key {key} in {kind} {}/{name}", self.namespace())),
            Err(missing) => Err(missing),
        };
        match found {
            Ok(text) => Ok(Some(text)),
            Err(_) if optional == Some(true) => Ok(None),
            Err(missing) => Err(Hindrance::Configuration(missing)),
        }
    }

    /// The texts, or (inside) that there is no such object, or that nobody can tell.
    async fn texts(&self, kind: &str, name: &str) -> Result<Result<BTreeMap<String, String>, String>, Hindrance> {
        let namespace = self.namespace();
        let found = match kind {
            "Secret" => self.surroundings.secret(&namespace, name).await,
            _ => self.surroundings.config_map(&namespace, name).await,
        };
        match found {
            Ok(Some(texts)) => Ok(Ok(texts)),
            Ok(None) => Ok(Err(format!("{} {name:?} not found", kind.to_lowercase()))),
            Err(why) => Err(Hindrance::Configuration(format!("cannot read {kind} {name:?}: {why}"))),
        }
    }

    fn namespace(&self) -> String {
        PodName::of(self.pod).namespace
    }

    fn field(&self, path: &str) -> Option<String> {
        let pod = self.pod;
        let keyed = |kind: &str| path.strip_prefix(kind)?.strip_prefix("['")?.strip_suffix("']");
        if let Some(key) = keyed("metadata.labels") {
            return Some(pod.labels().get(key).cloned().unwrap_or_default());
        }
        if let Some(key) = keyed("metadata.annotations") {
            return Some(pod.annotations().get(key).cloned().unwrap_or_default());
        }
        let spec = pod::spec(pod)?;
        Some(match path {
            "metadata.name" => pod.name_any(),
            "metadata.namespace" => self.namespace(),
            "metadata.uid" => pod::uid(pod).to_owned(),
            "status.podIP" | "status.podIPs" => self.home.address.to_string(),
            "status.hostIP" | "status.hostIPs" => self.settings.address.to_string(),
            "spec.nodeName" => self.settings.node_name.clone(),
            "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
            _ => return None,
        })
    }

    /// Puts addresses for names into `texts`, once every Service they name has one.
    async fn localize(&self, texts: impl Iterator<Item = &mut String>) -> Result<(), Hindrance> {
        let texts: Vec<&mut String> = texts.collect();
        let named: BTreeSet<ServiceName> = texts.iter().flat_map(|text| arguments::services(text)).collect();
        let asking = PodName::of(self.pod);
        let mut targets = BTreeMap::new();
        for service in named {
            let target = self.surroundings.target(&service.namespace, &service.name, &asking).await;
            let target = target.ok_or_else(|| {
                let ServiceName { namespace, name } = &service;
                Hindrance::NotYet(format!("waiting for Service {namespace}/{name} and a running Pod behind it"))
            })?;
            targets.insert(service, target);
        }
        for text in texts {
            *text = arguments::localize(text, self.home.address, &targets);
        }
        Ok(())
    }

    fn own_variables(&self, container: &Container) -> [(String, String); 5] {
        [
            ("PATH", self.settings.path.clone()),
            ("HOME", self.home.work().display().to_string()),
            ("HOSTNAME", self.pod.name_any()),
            (records::MARK, self.settings.data_dir.display().to_string()),
            (records::CONTAINER_MARK, format!("{}/{}", pod::uid(self.pod), container.name)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::net::Ipv4Addr;

    /// A cluster with one Service, one ConfigMap and one Secret.
    struct Small;

    #[async_trait]
    impl Surroundings for Small {
        async fn target(&self, namespace: &str, name: &str, _: &PodName) -> Option<Target> {
            (namespace == "kube-system" && name == "genesis")
                .then(|| Target { host: "127.64.9.9".into(), ports: BTreeMap::new() })
        }

        async fn config_map(&self, _: &str, name: &str) -> Result<Option<BTreeMap<String, String>>, String> {
            Ok((name == "map").then(|| BTreeMap::from([("KEY".into(), "from map".into())])))
        }

        async fn secret(&self, _: &str, name: &str) -> Result<Option<BTreeMap<String, String>>, String> {
            Ok((name == "secret").then(|| BTreeMap::from([("KEY".into(), "from secret".into())])))
        }
    }

    async fn planned(container: Value) -> Result<Launch, Hindrance> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
            "spec": {"containers": [container]},
        }))
        .unwrap();
        let settings = Settings {
            images: BTreeMap::from([
                ("sh".to_owned(), vec!["/bin/sh".to_owned()]),
                ("local".to_owned(), Vec::new()),
                ("nowhere".to_owned(), vec!["/no/such/program".to_owned()]),
            ]),
            toyblc: vec!["/bin/echo".into(), "toyblc".into()],
            ..Settings::default()
        };
        let home = Home { path: PathBuf::from("/data/n_p"), address: Ipv4Addr::new(127, 64, 0, 1) };
        let place = Place { pod: &pod, home: &home, settings: &settings, surroundings: &Small };
        plan(&pod::containers(&pod)[0], &place).await
    }

    #[tokio::test]
    async fn a_miner_runs_our_own_program_at_its_own_address_with_its_own_chain() {
        let launch = planned(json!({
            "name": "toyblc", "image": "ccr.example.com/onexstack/onex-toyblc-amd64:v1",
            "args": ["--p2p-addr=0.0.0.0:6001", "--peers=ws://genesis.kube-system.svc.onexstack.com:6001"],
        }))
        .await
        .unwrap();
        assert_eq!(launch.program, Path::new("/bin/echo"));
        let expected =
            ["toyblc", "--p2p-addr=127.64.0.1:6001", "--peers=ws://127.64.9.9:6001", "--data-dir=/data/n_p/chain"];
        assert_eq!(launch.arguments, expected);
        assert_eq!(launch.directory, Path::new("/data/n_p/work"));
    }

    #[tokio::test]
    async fn the_mapping_stands_for_the_first_word_of_the_command() {
        for (image, command, expected) in [
            ("sh", json!(["sh", "-c", "true"]), ["/bin/sh", "-c", "true", "end"]),
            ("sh", json!(null), ["/bin/sh", "end", "", ""]),
            ("local", json!(["sh", "-c", "true"]), ["sh", "-c", "true", "end"]),
        ] {
            let container = json!({"name": "c", "image": image, "command": command, "args": ["end"]});
            let launch = planned(container).await.unwrap();
            let name = Path::new(expected[0]).file_name().unwrap();
            assert_eq!(launch.program.file_name().unwrap(), name);
            let expected: Vec<_> = expected[1..].iter().filter(|word| !word.is_empty()).collect();
            assert_eq!(launch.arguments.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn variables_come_from_where_the_container_says() {
        let launch = planned(json!({
            "name": "c", "image": "sh", "args": ["$(BOTH)", "$(UNKNOWN)"],
            "envFrom": [{"prefix": "ALL_", "configMapRef": {"name": "map"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "LITERAL", "value": "x"},
                {"name": "BOTH", "value": "$(LITERAL)-$(ALL_KEY)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "MAP", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "KEY"}}},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "KEY"}}},
                {"name": "OPTIONAL", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "NO", "optional": true}}},
            ],
        }))
        .await
        .unwrap();
        assert_eq!(launch.arguments, ["x-from map", "$(UNKNOWN)"]);
        let get = |name: &str| launch.environment.get(name).map(String::as_str);
        assert_eq!(get("IP"), Some("127.64.0.1"));
        assert_eq!(get("APP"), Some("web"));
        assert_eq!(get("MAP"), Some("from map"));
        assert_eq!(get("SECRET"), Some("from secret"));
        assert_eq!(get("OPTIONAL"), None);
        assert_eq!(get("HOSTNAME"), Some("p"));
        assert_eq!(get("OWNED_BY_ONEX_CONTAINER"), Some("u/c"));
        assert!(get("PATH").unwrap().contains("/usr/bin"));
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_said_in_kubernetes_words() {
        let from = |source: Value| json!({"name": "c", "image": "sh", "env": [{"name": "A", "valueFrom": source}]});
        for (container, reason) in [
            (json!({"name": "c", "image": "nginx:1.27"}), "ErrImageNeverPull"),
            (json!({"name": "c", "image": "nowhere"}), "CreateContainerError"),
            (json!({"name": "c", "image": "local"}), "CreateContainerConfigError"),
            (from(json!({"configMapKeyRef": {"name": "none", "key": "K"}})), "CreateContainerConfigError"),
            (from(json!({"secretKeyRef": {"name": "secret", "key": "NO"}})), "CreateContainerConfigError"),
            (
                json!({"name": "c", "image": "sh", "volumeMounts": [{"name": "v", "mountPath": "/etc/v"}]}),
                "CreateContainerConfigError",
            ),
            (json!({"name": "c", "image": "sh", "restartPolicy": "Always"}), "CreateContainerConfigError"),
            (from(json!({"fieldRef": {"fieldPath": "spec.what"}})), "CreateContainerConfigError"),
            (json!({"name": "c", "image": "sh", "args": ["http://web.n.svc/"]}), "ContainerCreating"),
        ] {
            assert_eq!(planned(container.clone()).await.unwrap_err().reason(), reason, "{container}");
        }
    }
}
