//! The APIServices follow the table of kinds: one for each group in each version that is served.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    Inner,
    builtin::apiservices::{MANAGED, local},
    discovery,
    kinds::Kind,
    registry::{DeleteOptions, Options},
};

/// How soon something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether all is well.
const EVERY: Duration = Duration::from_secs(60);
/// How firmly the core comes first, and by how much less each group after it.
const FIRST: u32 = 18_000;
const STEP: u32 = 100;
/// What groups that clients define have.
const CUSTOM: (u32, u32) = (1000, 100);

/// Keeps the APIServices until `shutdown`.
pub(crate) async fn keep(server: Arc<Inner>, shutdown: CancellationToken) {
    let kind = server.kinds.find("apiregistration.k8s.io", "v1", "apiservices").expect("it is compiled in");
    let mut news = server.registry.window(&kind).news();
    let mut defined = server.definitions.news();
    loop {
        news.borrow_and_update();
        defined.borrow_and_update();
        let pause = if look(&server, &kind).await { EVERY } else { AGAIN };
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = news.changed() => {}
            _ = defined.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Makes those that are missing, and takes away those of groups that are served no more. `false` if that failed.
async fn look(server: &Inner, kind: &Arc<Kind>) -> bool {
    let wanted = wanted(server);
    let snapshot = server.registry.window(kind).snapshot();
    let there = |name: &String| snapshot.items.contains_key(kind.key("", name).as_str());
    let missing = wanted.iter().filter(|(name, _)| !there(name)).map(|(_, service)| service);
    let made = join_all(missing.map(|service| make(server, kind, service))).await;
    let mut well = !made.contains(&false);
    for item in snapshot.items.values().filter(|item| item.label(MANAGED) == Some("true")) {
        let name = item.key.strip_prefix(kind.prefix.as_str()).unwrap_or_default();
        if !wanted.contains_key(name) {
            let gone = server.registry.delete(kind, "", name, &DeleteOptions::default()).await;
            well &= gone.is_ok() || server.registry.get(kind, "", name).is_err();
        }
    }
    well
}

async fn make(server: &Inner, kind: &Arc<Kind>, service: &Value) -> bool {
    let options = Options { manager: "onex-apiserver".to_owned(), ..Options::default() };
    let made = server.registry.create(kind, "", service.clone(), &options).await;
    made.is_ok() || server.registry.get(kind, "", name(service)).is_ok()
}

fn name(service: &Value) -> &str {
    service["metadata"]["name"].as_str().unwrap_or_default()
}

/// The APIServices of all that is served, by name.
fn wanted(server: &Inner) -> BTreeMap<String, Value> {
    let table = server.kinds.table();
    let mut priority = FIRST;
    let mut wanted = BTreeMap::new();
    for (group, versions) in discovery::versions(&table.kinds) {
        let of_group = || table.kinds.iter().filter(|kind| kind.group == group);
        let is_custom = of_group().all(|kind| kind.custom.is_some());
        for (place, version) in versions.iter().rev().enumerate() {
            let place = u32::try_from(place).unwrap_or(u32::MAX).saturating_mul(15).saturating_add(15).min(1000);
            let service = match is_custom {
                true => local(group, version, "true", CUSTOM),
                false => local(group, version, "onstart", (priority, place)),
            };
            wanted.insert(name(&service).to_owned(), service);
        }
        priority = if is_custom { priority } else { priority.saturating_sub(STEP).max(CUSTOM.0 + STEP) };
    }
    wanted
}
