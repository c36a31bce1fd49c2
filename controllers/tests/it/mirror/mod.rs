//! Objects and their rows, over a file and over a real MariaDB.

mod trouble;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use onex_apiserver::{Apiserver, Handles};
use onex_controllers::{Controllers, Name, Settings, mirror};
use onex_crds::{Chain, Miner, MinerSet};
use onex_db::Db;
use onex_db::mirror::{self as tables, Change, Columns, LARGEST_PAGE, Row, Wanted};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use crate::mariadb::Mariadb;

const USER: &str = "user-admin";
const SYSTEM: &str = "kube-system";
const PATIENCE: Duration = Duration::from_secs(120);

/// An apiserver in memory, a database, and nothing else at first.
struct World {
    client: Client,
    router: axum::Router,
    db: Db,
    database: Database,
    monitor: Arc<mirror::Monitor>,
    _stop: DropGuard,
}

enum Database {
    File { _keeps: tempfile::TempDir },
    Server(Arc<Mariadb>),
}

/// The controller, for as long as this is kept.
struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Databases are asked quickly here whether they are there.
fn impatient() -> onex_db::Settings {
    onex_db::Settings { connect_seconds: 1, answer_seconds: 10, ..Default::default() }
}

fn never() -> mirror::Settings {
    mirror::Settings { compare_seconds: 0, ..Default::default() }
}

impl World {
    async fn over_a_file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("mirror.sqlite").display()).parse().unwrap();
        Self::over(&url, Database::File { _keeps: directory }).await
    }

    async fn over_mariadb(server: impl FnOnce() -> Arc<Mariadb> + Send + 'static) -> Self {
        let making = tokio::task::spawn_blocking(|| {
            let server = server();
            (server.database(), server)
        });
        let (url, server) = making.await.unwrap();
        Self::over(&url, Database::Server(server)).await
    }

    async fn over(url: &url::Url, database: Database) -> Self {
        let storage = onex_storage::open(&"memory:".parse().unwrap(), &Default::default()).await.unwrap();
        let server = Arc::new(Apiserver::new(Default::default(), Handles::over(storage)).await.unwrap());
        let router = server.router_as("admin", &["system:masters"]);
        let client = onex_client::over_router(router.clone(), "default");
        let stop = CancellationToken::new();
        let (running, token) = (server.clone(), stop.clone());
        tokio::spawn(async move { running.run(token).await });
        server.ready().await;
        let db = onex_db::open(url, &impatient()).unwrap();
        Self { client, router, db, database, monitor: Arc::default(), _stop: stop.drop_guard() }
    }

    fn mirrored(&self, settings: mirror::Settings) -> Running {
        self.mirrored_through(self.client.clone(), settings)
    }

    fn mirrored_through(&self, apiserver: Client, settings: mirror::Settings) -> Running {
        let settings = Settings { controllers: vec![Name::Mirror], mirror: settings, ..Settings::default() };
        let controllers = Controllers::new(settings, apiserver);
        let controllers = controllers.with_mirror(self.db.clone(), self.monitor.clone());
        let stop = CancellationToken::new();
        Running { task: tokio::spawn(controllers.run(stop.clone())), stop }
    }

    fn api<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(
        &self,
        namespace: &str,
    ) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api(namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    async fn status<K>(&self, namespace: &str, name: &str, status: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api::<K>(namespace).patch_status(name, &PatchParams::default(), &patch).await.unwrap()
    }

    async fn miner(&self, name: &str) -> Miner {
        self.create(USER, miner(name)).await
    }

    async fn delete(&self, name: &str) {
        let _ = self.api::<Miner>(USER).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The row as soon as it is as it should be.
    #[track_caller]
    fn until<T: Columns>(
        &self,
        namespace: &str,
        name: &str,
        is: impl Fn(&Row<T>) -> bool,
    ) -> impl Future<Output = Row<T>> {
        let caller = std::panic::Location::caller();
        async move {
            let (began, mut last) = (Instant::now(), None);
            while began.elapsed() < PATIENCE {
                last = self.db.mirror::<T>().get(namespace, name).await.ok().flatten();
                if let Some(row) = last.as_ref().filter(|row| is(row)) {
                    return row.clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{caller}: {namespace}/{name} did not become so; last {last:?}, and {:?}", self.monitor.unready());
        }
    }

    #[track_caller]
    fn eventually<Work: Future<Output = bool>>(&self, so: impl Fn() -> Work) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let began = Instant::now();
            while !so().await {
                assert!(began.elapsed() < PATIENCE, "{caller}: it did not become so; {:?}", self.monitor.unready());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn is_ready(&self) -> bool {
        self.monitor.unready().is_empty() && self.number("up", "Miner") == 1.0
    }

    /// What a page of the controllers answers.
    async fn page(&self, path: &str) -> (u16, String) {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = onex_controllers::pages::router(self.monitor.clone()).oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn ready(&self) {
        self.eventually(|| self.is_ready()).await;
    }

    /// What the metrics say.
    fn number(&self, name: &str, kind: &str) -> f64 {
        let series = format!("onex_mirror_{name}{{kind=\"{kind}\"}} ");
        let text = self.monitor.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }

    /// Every row of Miners, whoever reads it.
    async fn rows(&self) -> BTreeMap<String, (String, String)> {
        let (mut rows, mut offset) = (BTreeMap::new(), 0);
        loop {
            let wanted = Wanted { offset, limit: LARGEST_PAGE, ..Wanted::default() };
            let page = self.db.mirror::<tables::Miner>().list(&wanted).await.unwrap();
            let row = |row: Row<tables::Miner>| (row.name, (row.of.display_name, row.of.phase));
            rows.extend(page.rows.into_iter().map(row));
            offset += u64::from(LARGEST_PAGE);
            if offset >= page.total {
                return rows;
            }
        }
    }

    async fn objects(&self) -> BTreeMap<String, (String, String)> {
        let all = self.api::<Miner>(USER).list(&ListParams::default()).await.unwrap();
        let phase = |miner: &Miner| {
            let phase = miner.status.as_ref().and_then(|status| status.phase);
            phase.map_or("Pending", |phase| phase.as_str()).to_owned()
        };
        all.items.iter().map(|miner| (miner.name_any(), (miner.spec.display_name.clone(), phase(miner)))).collect()
    }

    async fn rows_equal_objects(&self) {
        self.eventually(|| async { self.rows().await == self.objects().await }).await;
    }
}

fn miner(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"displayName": format!("miner {name}"), "minerType": "S1.SMALL1", "chainName": "genesis"}
    })
}

fn chain() -> Value {
    json!({
        "metadata": {"name": "genesis"},
        "spec": {"displayName": "Genesis", "minerType": "S1.SMALL2", "image": "toyblc:1", "minMineIntervalSeconds": 60}
    })
}

fn minerset(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"displayName": "Set", "deletePolicy": "Newest", "minReadySeconds": 5, "template": {"spec": {"chainName": "genesis"}}}
    })
}

macro_rules! over_both {
    ($($test:ident)*) => {
        mod over_a_file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::World::over_a_file().await).await;
            })*
        }
        mod over_mariadb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::World::over_mariadb(super::Mariadb::shared).await).await;
            })*
        }
    };
}

over_both! {
    every_object_has_a_row_that_follows_it
    b1_a_set_that_does_not_say_how_many_has_a_row
    b3_all_rows_of_objects_that_are_gone_go_at_once
    b16_the_processor_is_counted_in_thousandths_and_memory_in_mebibytes
    b16_a_failure_that_is_over_is_cleared
    a_row_that_was_changed_by_hand_or_lost_is_mended
    a_comparison_that_finds_nothing_writes_nothing
    whoever_wrote_finds_it_in_the_list
    of_thousands_of_changes_none_is_missed
}

async fn every_object_has_a_row_that_follows_it(world: World) {
    let made: Chain = world.create(SYSTEM, chain()).await;
    let running = world.mirrored(never());
    world.ready().await;
    let row = world.until::<tables::Chain>(SYSTEM, "genesis", |_| true).await;
    let created = made.creation_timestamp().unwrap().0.as_microsecond();
    assert_eq!(row.created_at, created);
    let expected = tables::Chain {
        display_name: "Genesis".to_owned(),
        miner_type: "S1.SMALL2".to_owned(),
        image: "toyblc:1".to_owned(),
        min_mine_interval_seconds: 60,
    };
    assert_eq!(row.of, expected);

    world.create::<MinerSet>(USER, minerset("test")).await;
    let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"});
    let status = json!({"replicas": 4, "fullyLabeledReplicas": 3, "readyReplicas": 2, "availableReplicas": 1, "conditions": [condition]});
    world.status::<MinerSet>(USER, "test", status).await;
    let row = world.until::<tables::MinerSet>(USER, "test", |row| row.of.available_replicas == 1).await;
    let conditions: Value = serde_json::from_str(row.of.conditions.as_deref().unwrap()).unwrap();
    assert_eq!((&conditions[0]["type"], &conditions[0]["status"]), (&json!("Ready"), &json!("True")));
    let expected = tables::MinerSet {
        replicas: 1,
        display_name: "Set".to_owned(),
        delete_policy: "Newest".to_owned(),
        min_ready_seconds: 5,
        fully_labeled_replicas: 3,
        ready_replicas: 2,
        available_replicas: 1,
        failure_reason: None,
        failure_message: None,
        conditions: row.of.conditions.clone(),
    };
    assert_eq!(row.of, expected);

    world.miner("m").await;
    assert_eq!(world.until::<tables::Miner>(USER, "m", |_| true).await.of.phase, "Pending");
    world.status::<Miner>(USER, "m", json!({"phase": "Running"})).await;
    let row = world.until::<tables::Miner>(USER, "m", |row| row.of.phase == "Running").await;
    assert_eq!((row.of.chain_name.as_str(), row.of.display_name.as_str()), ("genesis", "miner m"));
    world.delete("m").await;
    world.eventually(|| async { world.rows().await.is_empty() }).await;
    running.stop().await;
    assert_eq!((world.monitor.unready(), world.number("up", "Miner")), (Vec::new(), 0.0));
}

/// Its row was made from a pointer to nothing.
async fn b1_a_set_that_does_not_say_how_many_has_a_row(world: World) {
    let _running = world.mirrored(never());
    world.create::<MinerSet>(USER, minerset("test")).await;
    assert_eq!(world.until::<tables::MinerSet>(USER, "test", |_| true).await.of.replicas, 1);
}

/// The hourly cleaner ended the process, and would have removed one row an hour.
async fn b3_all_rows_of_objects_that_are_gone_go_at_once(world: World) {
    let row = |at: usize| Change::Set(Row::new(USER, &format!("gone-{at}"), 1, tables::Miner::default()));
    let left: Vec<_> = (0..2500).map(row).collect();
    world.db.mirror().apply(&left, Some(99), 1).await.unwrap();
    world.miner("there").await;
    let _running = world.mirrored(never());
    world.ready().await;
    assert_eq!(world.rows().await.into_keys().collect::<Vec<_>>(), ["there"]);
    assert_eq!((world.number("mended_rows_total", "Miner"), world.number("rows", "Miner")), (2501.0, 1.0));
}

/// The share of a processor that is no whole core was 0, and 2Gi were a negative number.
async fn b16_the_processor_is_counted_in_thousandths_and_memory_in_mebibytes(world: World) {
    let _running = world.mirrored(never());
    for (name, cpu, memory, expected) in
        [("small", "250m", "128Mi", (250, 128)), ("large", "2", "2Gi", (2000, 2048)), ("odd", "much", "", (0, 0))]
    {
        let mut object = miner(name);
        object["metadata"]["annotations"] = json!({"apps.onex.io/vCPU": cpu, "apps.onex.io/memoryMb": memory});
        world.create::<Miner>(USER, object).await;
        let row = world.until::<tables::Miner>(USER, name, |_| true).await;
        assert_eq!((row.of.cpu, row.of.memory), expected, "{name}");
    }
}

/// A failure was written and never taken away again.
async fn b16_a_failure_that_is_over_is_cleared(world: World) {
    let _running = world.mirrored(never());
    world.create::<MinerSet>(USER, minerset("test")).await;
    let failed = json!({"replicas": 0, "failureReason": "InvalidConfiguration", "failureMessage": "no such type"});
    world.status::<MinerSet>(USER, "test", failed).await;
    let row = world.until::<tables::MinerSet>(USER, "test", |row| row.of.failure_message.is_some()).await;
    assert_eq!(row.of.failure_reason.as_deref(), Some("InvalidConfiguration"));
    world.status::<MinerSet>(USER, "test", json!({"failureReason": null, "failureMessage": null})).await;
    let row = world.until::<tables::MinerSet>(USER, "test", |row| row.of.failure_message.is_none()).await;
    assert_eq!(row.of.failure_reason, None);
}

async fn a_row_that_was_changed_by_hand_or_lost_is_mended(world: World) {
    let _running = world.mirrored(mirror::Settings { compare_seconds: 1, ..Default::default() });
    for name in ["changed", "lost", "untouched"] {
        world.miner(name).await;
    }
    world.rows_equal_objects().await;
    let changed = tables::Miner { display_name: "by hand".to_owned(), ..Default::default() };
    let by_hand = [
        Change::Set(Row::new(USER, "changed", 0, changed)),
        Change::Gone { namespace: USER.to_owned(), name: "lost".to_owned() },
        Change::Set(Row::new("nowhere", "never", 0, tables::Miner::default())),
    ];
    world.db.mirror().apply(&by_hand, None, 1).await.unwrap();
    assert_ne!(world.rows().await, world.objects().await);
    world.rows_equal_objects().await;
}

async fn a_comparison_that_finds_nothing_writes_nothing(world: World) {
    let long = json!({"metadata": {"name": "long"}, "spec": {"displayName": "x".repeat(1000), "chainName": "genesis"}});
    world.create::<Miner>(USER, long).await;
    world.create::<MinerSet>(USER, minerset("test")).await;
    let running = world.mirrored(never());
    world.ready().await;
    running.stop().await;
    let before = world.until::<tables::Miner>(USER, "long", |_| true).await;
    let mended = world.number("mended_rows_total", "Miner");
    let _running = world.mirrored(never());
    world.ready().await;
    assert_eq!(world.until::<tables::Miner>(USER, "long", |_| true).await, before);
    assert_eq!((mended, world.number("mended_rows_total", "Miner")), (1.0, 1.0));
    assert_eq!(world.number("mended_rows_total", "MinerSet"), 1.0);
}

async fn whoever_wrote_finds_it_in_the_list(world: World) {
    let _running = world.mirrored(never());
    world.ready().await;
    let table = world.db.mirror::<tables::Miner>();
    for at in 0..20 {
        let name = format!("m{at}");
        let revision = world.miner(&name).await.resource_version().unwrap().parse().unwrap();
        assert!(table.reached(revision, PATIENCE).await.unwrap());
        assert!(table.get(USER, &name).await.unwrap().is_some());
    }
    assert!(!table.reached(u64::MAX, Duration::from_millis(10)).await.unwrap());
}

async fn of_thousands_of_changes_none_is_missed(world: World) {
    let _running = world.mirrored(mirror::Settings { batch: 50, ..never() });
    world.ready().await;
    futures::future::join_all((0..300).map(|at| {
        let (world, name) = (&world, format!("m{at}"));
        async move {
            world.miner(&name).await;
            for phase in ["Provisioning", "Running", "Failed"] {
                world.status::<Miner>(USER, &name, json!({ "phase": phase })).await;
            }
            if at % 3 == 0 {
                world.delete(&name).await;
            }
        }
    }))
    .await;
    world.rows_equal_objects().await;
    assert_eq!(world.rows().await.len(), 200);
    world.eventually(|| async { world.number("lag_seconds", "Miner") == 0.0 }).await;
    assert!(world.number("changes_total", "Miner") >= 1300.0);
    assert!(world.number("transactions_total", "Miner") < 1300.0);
}
