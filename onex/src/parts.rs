//! The parts, one by one: what each is made from, and how it starts.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use onex_apiserver::{Apiserver, Furniture, Handles};
use onex_audit::AuditLog;
use onex_controllers::mirror::Monitor;
use onex_controllers::{Controllers, pages};
use onex_daemon::files::{self, Readers};
use onex_daemon::listener;
use onex_daemon::pki::{self, Authority, Clients};
use onex_db::Db;
use onex_node::Node;
use onex_storage::Location;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::arguments::Ports;
use crate::platform::{Platform, Stage};
use crate::settings::Settings;
use crate::stores::{self, Pods};
use crate::{kubeconfig, say, sockets};

/// How long the apiserver may take to become ready.
const READY: Duration = Duration::from_secs(30);

/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// The file in the data directory that lets kubectl in.
pub const KUBECONFIG: &str = "kubeconfig";

/// What the parts are made from.
pub struct Parts<'a> {
    pub directory: &'a Path,
    pub settings: Settings,
    pub ports: Ports,
    pub authority: Authority,
    /// The platform's audit log, once somebody wants it. It is opened once.
    pub audit: OnceCell<Arc<dyn AuditLog>>,
    /// The rows, once somebody wants them. They are opened once.
    pub db: OnceLock<Db>,
}

/// A socket that listens, and where.
pub type Socket = (TcpListener, SocketAddr);

/// How a part reaches the apiserver.
pub enum Door<'a> {
    /// Through its router, as whoever we say.
    Here(&'a Apiserver),
    /// Over the network, as whom the kubeconfig says.
    Kubeconfig(&'a Path),
}

impl Door<'_> {
    async fn client(&self, user: &str, groups: &[&str]) -> anyhow::Result<kube::Client> {
        match self {
            Self::Here(apiserver) => Ok(onex_client::over_router(apiserver.router_as(user, groups), "default")),
            Self::Kubeconfig(path) => Ok(onex_client::over_kubeconfig(path).await?),
        }
    }
}

impl Parts<'_> {
    /// Listens where the apiserver will be.
    pub async fn apiserver_socket(&self) -> anyhow::Result<Socket> {
        let listen = &self.settings.apiserver.listen;
        let address = listen
            .parse()
            .with_context(|| format!("the setting apiserver.listen is {listen:?}, which is not ADDRESS:PORT"))?;
        sockets::bind("apiserver", "apiserver.listen", address, self.ports).await
    }

    /// Listens where the node's kubelet API will be.
    pub async fn kubelet_socket(&self) -> anyhow::Result<Socket> {
        let address = SocketAddr::from((self.settings.node.address, self.settings.up.kubelet_port));
        sockets::bind("kubelet", "up.kubelet_port", address, self.ports).await
    }

    /// The rows.
    pub fn db(&self) -> anyhow::Result<Db> {
        if let Some(db) = self.db.get() {
            return Ok(db.clone());
        }
        let db = stores::db(&self.settings.stores.db_url(self.directory)?, &self.settings.db)?;
        say::out(&format!("  db           is {}", db.place()));
        Ok(self.db.get_or_init(|| db).clone())
    }

    /// Where the rows are, without a password.
    pub fn db_place(&self) -> anyhow::Result<String> {
        Ok(onex_db::place(&self.settings.stores.db_url(self.directory)?))
    }

    /// Listens where the controllers will say how they are, if they are to.
    pub async fn controllers_socket(&self) -> anyhow::Result<Option<Socket>> {
        let listen = &self.settings.up.controllers_listen;
        if listen.is_empty() {
            return Ok(None);
        }
        let address = listen
            .parse()
            .with_context(|| format!("the setting up.controllers_listen is {listen:?}, which is not ADDRESS:PORT"))?;
        sockets::bind("controllers", "up.controllers_listen", address, self.ports).await.map(Some)
    }

    /// Starts the apiserver, and returns when it is ready.
    pub async fn apiserver(
        &self,
        platform: &mut Platform,
        (socket, address): Socket,
    ) -> anyhow::Result<Arc<Apiserver>> {
        let location = self.settings.stores.storage_location(self.directory);
        say::out(&format!("  storage      opening {location}"));
        let storage = stores::storage(&location, &self.settings.storage).await?;
        let authority = &self.authority;
        let to_kubelets = authority.issue_client("system:onex-apiserver", MASTERS)?;
        let kubelet = Some(pki::client_config(authority.certificate(), Some(&to_kubelets))?);
        let furniture = Furniture { authority: Some(authority.certificate_pem().to_owned()), address: Some(address) };
        let handles = Handles { storage, kubelet, audit: self.audit_log().await?, furniture };
        let apiserver = Arc::new(Apiserver::new(self.settings.apiserver.clone(), handles).await?);
        say::out(&format!("  apiserver    starting on https://{address}"));
        let identity = authority.issue_server(&self.names(address.ip()))?;
        let tls = pki::server_config(&identity, Clients::MayShow(authority.certificate()))?;
        let stage = platform.stage("apiserver");
        let (background, token) = (apiserver.clone(), stage.token());
        stage.run("apiserver", async move {
            background.run(token).await;
            Ok::<_, Infallible>(())
        });
        self.listen(stage, "apiserver's listener", socket, Some(tls), apiserver.router(), apiserver.drained());
        self.write_kubeconfig(address)?;
        tokio::select! {
            ready = tokio::time::timeout(READY, apiserver.ready()) => {
                ready.with_context(|| format!("the apiserver was not ready after {} s", READY.as_secs()))?;
            }
            ending = platform.ending() => bail!(ending),
        }
        Ok(apiserver)
    }

    /// The platform's audit log, if the apiserver is to write there.
    async fn audit_log(&self) -> anyhow::Result<Option<Arc<dyn AuditLog>>> {
        let wanted = &self.settings.apiserver.audit;
        if !wanted.platform || wanted.policy_file.is_empty() {
            return Ok(None);
        }
        self.audit().await.map(Some)
    }

    /// The platform's audit log.
    pub async fn audit(&self) -> anyhow::Result<Arc<dyn AuditLog>> {
        let open = async || {
            let url = self.settings.stores.audit_url(self.directory)?;
            say::out(&format!("  audit        opening {url}"));
            stores::audit(&url, &self.settings.audit).await
        };
        self.audit.get_or_try_init(open).await.cloned()
    }

    /// Starts the node, which runs Pods as processes of this machine.
    pub async fn node(
        &self,
        platform: &mut Platform,
        (socket, address): Socket,
        door: &Door<'_>,
    ) -> anyhow::Result<()> {
        let name = &self.settings.node.node_name;
        say::out(&format!("  node         starting {name} on https://{address}"));
        let client = door.client(&format!("system:node:{name}"), &["system:nodes", MASTERS]).await?;
        let node = Node::new(self.settings.node.clone(), client, address.port());
        let identity = self.authority.issue_server(&[&address.ip().to_string(), "localhost"])?;
        let tls = pki::server_config(&identity, Clients::MustShow(self.authority.certificate()))?;
        let stage = platform.stage("node");
        self.listen(stage, "kubelet's listener", socket, Some(tls), node.router(), stage.token());
        stage.run("node", node.run(stage.token()));
        Ok(())
    }

    /// Starts the controllers, whose miners live in `pods`. Where the apiserver is elsewhere, or the storage belongs to several,
    /// others may run the same.
    pub async fn controllers(
        &self,
        platform: &mut Platform,
        socket: Option<Socket>,
        door: &Door<'_>,
        pods: Pods,
    ) -> anyhow::Result<()> {
        say::out("  controllers  starting");
        let client = door.client("system:onex-controllers", &[MASTERS]).await?;
        let mut settings = self.settings.controllers.clone();
        let controllers = match pods {
            Pods::Local => {
                settings.node = self.settings.node.node_name.clone();
                Controllers::new(settings, client)
            }
            Pods::Cluster(cluster) => Controllers::new(settings, client).with_provider(cluster),
        };
        let is_shared = matches!(self.settings.stores.storage_location(self.directory), Location::Etcd(_));
        let controllers = match door {
            Door::Here(_) if !is_shared => controllers,
            _ => controllers.among_others(),
        };
        let monitor = Arc::<Monitor>::default();
        let db = self.db()?;
        let controllers = controllers.with_mirror(db, monitor.clone());
        let stage = platform.stage("controllers");
        let token = stage.token();
        if let Some((socket, _)) = socket {
            self.listen(stage, "controllers' listener", socket, None, pages::router(monitor), token.clone());
        }
        stage.run("controllers", async move {
            controllers.run(token).await;
            Ok::<_, Infallible>(())
        });
        Ok(())
    }

    pub fn listen(
        &self,
        stage: &Stage,
        part: &'static str,
        socket: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        router: Router,
        end: CancellationToken,
    ) {
        let limits = self.settings.up.limits.clone();
        let served = listener::serve(socket, tls, router, end, limits);
        stage.run(part, async move {
            served.await;
            Ok::<_, Infallible>(())
        });
    }

    /// Every name under which a certificate for clients is valid.
    pub fn names(&self, address: IpAddr) -> Vec<String> {
        let own = ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default.svc"];
        let mut names: Vec<String> = own.iter().map(|&name| name.to_owned()).collect();
        names.extend(self.settings.up.names.iter().cloned());
        if !address.is_unspecified() {
            names.push(address.to_string());
        }
        names
    }

    fn write_kubeconfig(&self, address: SocketAddr) -> anyhow::Result<()> {
        let admin = self.authority.issue_client("admin", MASTERS)?;
        let path = self.directory.join(KUBECONFIG);
        let text = kubeconfig::write(reachable(address), &self.authority, &admin);
        files::replace(&path, text.as_bytes(), Readers::Owner)
            .with_context(|| format!("could not write {}", path.display()))
    }
}

/// An address that a client on this machine can connect to: one that stands for all addresses is none.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_interfaces_is_reached_on_loopback() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
