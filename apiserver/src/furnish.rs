//! What every namespace has: an account for its Pods, and the authority by which they know us. And the Service under which
//! they look for us.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use onex_daemon::pki::have_same_key;
use onex_storage::{Key, Storage};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Inner,
    kinds::{Kind, Kinds},
    registry::{Options, Part},
    status::Status,
    window::{Run, Window},
};

/// The account of Pods that name none.
const ACCOUNT: &str = "default";
/// The ConfigMap with the authority.
const AUTHORITY: &str = "kube-root-ca.crt";
/// So many changes are looked at in one go.
const AT_ONCE: usize = 1024;
/// So often it is looked after all, and after the Service, which nobody but apiservers write.
const REGULAR: Duration = Duration::from_secs(60);
/// After a failure, the next try.
const RETRY: Duration = Duration::from_millis(500);

/// What namespaces are furnished with, besides their account.
#[derive(Clone, Debug, Default)]
pub struct Furniture {
    /// The authority of our certificate, as PEM. Without it there is no ConfigMap.
    pub authority: Option<String>,
    /// Where we listen. Without it there is no Service.
    pub address: Option<SocketAddr>,
}

/// Refuses an authority that is not the one of those who share the store: whoever trusts them would not trust us, and each would
/// write its own over the other's, for ever.
pub(crate) async fn check(storage: &dyn Storage, kinds: &Kinds, furniture: &Furniture) -> Result<(), Error> {
    let Some(ours) = furniture.authority.as_deref().filter(|_| storage.is_shared()) else { return Ok(()) };
    let key = Key::from(kinds.core("configmaps").key("kube-system", AUTHORITY));
    let Some(entry) = storage.get(&key).await? else { return Ok(()) };
    let map: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    match map["data"]["ca.crt"].as_str() {
        Some(theirs) if !have_same_key(ours, theirs) => Err(Error::Authority),
        _ => Ok(()),
    }
}

/// Keeps every namespace furnished until `shutdown`.
pub(crate) async fn keep(server: Arc<Inner>, shutdown: CancellationToken) {
    let kinds = ["namespaces", "serviceaccounts", "configmaps"].map(|plural| server.kinds.core(plural));
    let mut follow = kinds.each_ref().map(|kind| Follow::new(server.registry.window(kind)));
    let (mut pause, mut shown) = (None, None::<Instant>);
    let mut all = true;
    loop {
        let mut names = Vec::new();
        for follow in &mut follow {
            match follow.namespaces(&server.kinds.core("namespaces").prefix) {
                Some(some) => names.extend(some),
                None => all = true,
            }
        }
        if all {
            names = every_namespace(&server);
        }
        names.sort();
        names.dedup();
        all = false;
        for name in names {
            if let Err(status) = furnish(&server, &name).await {
                tracing::debug!(namespace = name, error = status.message, "a namespace is not furnished yet");
                (all, pause) = (true, Some(RETRY));
            }
        }
        if shown.is_none_or(|shown| shown.elapsed() >= REGULAR) {
            match show_ourselves(&server).await {
                Ok(()) => shown = Some(Instant::now()),
                Err(status) => {
                    tracing::debug!(error = status.message, "the Service kubernetes is not there yet");
                    pause = Some(RETRY);
                }
            }
        }
        let [namespaces, accounts, maps] = &mut follow;
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = namespaces.news.changed() => {}
            _ = accounts.news.changed() => {}
            _ = maps.news.changed() => {}
            () = tokio::time::sleep(pause.take().unwrap_or(REGULAR)) => {}
        }
    }
}

/// One window, followed change by change.
struct Follow {
    window: Arc<Window>,
    news: tokio::sync::watch::Receiver<u64>,
    seen: u64,
}

impl Follow {
    fn new(window: Arc<Window>) -> Self {
        let (news, seen) = (window.news(), window.changed());
        Self { window, news, seen }
    }

    /// The namespaces in which something changed that concerns us; nothing if nobody knows any more.
    fn namespaces(&mut self, of_namespaces: &str) -> Option<Vec<String>> {
        self.news.mark_unchanged();
        let mut names = Vec::new();
        loop {
            let (events, up_to) = match self.window.events_after(self.seen, AT_ONCE) {
                Run::Events(events, up_to) => (events, up_to),
                Run::Gone(_) => {
                    self.seen = self.window.changed();
                    return None;
                }
            };
            for event in &events {
                if let Some(name) = event.item.key.strip_prefix(of_namespaces) {
                    names.push(name.to_owned());
                    continue;
                }
                let mut parts = event.item.key.rsplit('/');
                if let (Some(ACCOUNT | AUTHORITY), Some(namespace)) = (parts.next(), parts.next()) {
                    names.push(namespace.to_owned());
                }
            }
            self.seen = up_to;
            if events.len() < AT_ONCE {
                return Some(names);
            }
        }
    }
}

fn every_namespace(server: &Inner) -> Vec<String> {
    let kind = server.kinds.core("namespaces");
    let snapshot = server.registry.window(&kind).snapshot();
    snapshot.items.keys().filter_map(|key| key.strip_prefix(&kind.prefix)).map(str::to_owned).collect()
}

async fn furnish(server: &Inner, namespace: &str) -> Result<(), Status> {
    let Ok(there) = server.registry.get(&server.kinds.core("namespaces"), "", namespace) else { return Ok(()) };
    if there.is_terminating() {
        return Ok(());
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
    ensure(server, "serviceaccounts", namespace, ACCOUNT, account, |_| None).await?;
    let Some(authority) = &server.furniture.authority else { return Ok(()) };
    let why = "The authority of the certificate that the apiserver shows.";
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": authority},
        "metadata": {"name": AUTHORITY, "annotations": {"kubernetes.io/description": why}},
    });
    let is_shared = server.windows.is_shared();
    let mended = |old: &Value| {
        // One of several may have renewed it.
        if is_shared && old["data"]["ca.crt"].as_str().is_some_and(|theirs| have_same_key(authority, theirs)) {
            return None;
        }
        let mut new = old.clone();
        new["data"] = json!({"ca.crt": authority});
        (new["data"] != old["data"]).then_some(new)
    };
    ensure(server, "configmaps", namespace, AUTHORITY, map, mended).await
}

/// The Service `kubernetes`, and where it leads.
async fn show_ourselves(server: &Inner) -> Result<(), Status> {
    let Some(address) = server.furniture.address else { return Ok(()) };
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {"clusterIP": "None", "ports": [{"name": "https", "port": 443, "targetPort": address.port()}]},
    });
    let is_shared = server.windows.is_shared();
    let mended = |old: &Value| {
        let mut new = old.clone();
        if is_shared {
            return None; // each of several has a port of its own, which its address says
        }
        new["spec"]["ports"][0]["targetPort"] = address.port().into();
        (new != *old).then_some(new)
    };
    ensure(server, "services", "default", "kubernetes", service, mended).await?;
    // A listener on all interfaces is reached on this machine's own.
    let ip = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
    let subsets =
        json!([{"addresses": [{"ip": ip}], "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}]}]);
    let endpoints =
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes"}, "subsets": subsets});
    let mended = |old: &Value| {
        let mut new = old.clone();
        new["subsets"] = if is_shared { beside(&old["subsets"], &subsets[0]) } else { subsets.clone() };
        (new != *old).then_some(new)
    };
    ensure(server, "endpoints", "default", "kubernetes", endpoints, mended).await
}

/// Where those are who share the store, with us among them. Whoever is gone is forgotten when there are many.
fn beside(others: &Value, ours: &Value) -> Value {
    const MOST: usize = 16;
    let mut all: Vec<Value> = others.as_array().cloned().unwrap_or_default();
    let is_ours = |subset: &Value| {
        let has = |list: &str, one: &Value| subset[list].as_array().is_some_and(|list| list.contains(one));
        has("addresses", &ours["addresses"][0]) && has("ports", &ours["ports"][0])
    };
    if !all.iter().any(is_ours) {
        all.insert(0, ours.clone());
        all.truncate(MOST);
    }
    all.into()
}

/// Makes the object, or mends the one that is there.
async fn ensure(
    server: &Inner,
    plural: &str,
    namespace: &str,
    name: &str,
    object: Value,
    mended: impl Fn(&Value) -> Option<Value>,
) -> Result<(), Status> {
    let kind: Arc<Kind> = server.kinds.core(plural);
    let options = Options { manager: "onex-apiserver".to_owned(), ..Options::default() };
    let Ok(item) = server.registry.get(&kind, namespace, name) else {
        return match server.registry.create(&kind, namespace, object, &options).await {
            // Somebody was faster, or the namespace goes.
            Err(status) if status.reason != "AlreadyExists" && status.code != 403 => Err(status),
            _ => Ok(()),
        };
    };
    if mended(&item.value()).is_none() {
        return Ok(());
    }
    let change = |old: &Value| Ok(mended(old).unwrap_or_else(|| old.clone()).into());
    server.registry.update(&kind, namespace, name, Part::Main, &options, change).await.map(|_| ())
}
