//! chain, minerset, miner, job, cronjob, garbage, namespace, mirror: what keeps the world as the kinds say it should be.
//!
//! Every pass observes, plans, acts and reports. Planning is a pure function of what was observed; names of children are
//! deterministic, so acting twice on a stale view collides instead of doubling; status is what is seen, written only when it
//! changed; nothing waits inside a pass. The truth is reached through the API only: this crate knows no storage, and works
//! against any Kubernetes on which the CRDs are installed. Only the [`mirror`] writes elsewhere: a copy, into tables. Start at
//! [`Controllers`].

mod chain;
mod context;
mod cronjob;
pub mod discovery;
mod error;
pub mod garbage;
pub mod job;
pub mod leader;
mod miner;
mod minerset;
pub mod mirror;
pub mod namespace;
pub mod pages;
mod report;
mod settings;
mod view;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use onex_crds::{CHAIN_NAMESPACE, Chain, CronJob, Job, Miner, MinerSet, names};
use onex_db::Db;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use error::{chain_of, in_time};
use leader::Elect;
use view::{Calls, View};

pub use context::{COMPONENT, Clock, Context, SystemClock};
pub use error::{Error, Result};
pub use settings::{MinerType, Settings};

/// The controllers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// A Chain becomes a keystore and a genesis Miner.
    Chain,
    /// A MinerSet keeps a number of Miners.
    MinerSet,
    /// A Miner becomes a Pod.
    Miner,
    /// A Job becomes Pods, one after the other, until one succeeds.
    Job,
    /// A CronJob becomes Jobs, on a schedule.
    CronJob,
    /// A deleted Namespace is emptied.
    Namespace,
    /// What lost its owner is deleted.
    Garbage,
    /// Chains, MinerSets and Miners are copied into tables.
    Mirror,
}

/// The list of controllers, in no order that matters.
pub fn controllers() -> [Name; 8] {
    use Name::{Chain, CronJob, Garbage, Job, Miner, MinerSet, Mirror, Namespace};
    [Chain, MinerSet, Miner, Job, CronJob, Namespace, Garbage, Mirror]
}

/// All controllers of one platform.
pub struct Controllers {
    settings: Settings,
    apiserver: Client,
    provider: Option<Client>,
    clock: Arc<dyn Clock>,
    /// Where objects are copied to, and how far that is.
    mirror: Option<(Db, Arc<mirror::Monitor>)>,
    /// Others may do the same work.
    among_others: bool,
}

impl Controllers {
    /// Controllers whose Pods live where everything else does.
    pub fn new(settings: Settings, apiserver: Client) -> Self {
        Self { settings, apiserver, provider: None, clock: Arc::new(SystemClock), mirror: None, among_others: false }
    }

    /// The same, with Pods and genesis Services in another cluster.
    pub fn with_provider(self, provider: Client) -> Self {
        Self { provider: Some(provider), ..self }
    }

    /// The same, by another clock.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The same, with objects copied into the tables of `db`; `monitor` says how far that is. Without them, the mirror rests.
    pub fn with_mirror(self, db: Db, monitor: Arc<mirror::Monitor>) -> Self {
        Self { mirror: Some((db, monitor)), ..self }
    }

    /// The same, where others may do the same work: one at a time works, unless the settings say otherwise.
    pub fn among_others(self) -> Self {
        Self { among_others: true, ..self }
    }

    /// Works until `shutdown`, and then until the passes under way are finished.
    pub async fn run(self, shutdown: CancellationToken) {
        let elects = match self.settings.leader.elect {
            Elect::Auto => self.among_others,
            Elect::Always => true,
            Elect::Never => false,
        };
        if elects {
            let work = |turn| self.work(turn);
            leader::lead(self.apiserver.clone(), &self.settings.leader, shutdown, work).await;
        } else {
            self.work(shutdown).await;
        }
    }

    async fn work(&self, shutdown: CancellationToken) {
        let mut wanted = self.settings.controllers.clone();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return shutdown.cancelled().await;
        }
        let (settings, provider) = (self.settings.clone(), self.provider.clone());
        let mut context = Context::new(settings, self.apiserver.clone(), provider, self.clock.clone());
        context.mirror = self.mirror.clone();
        let context = Arc::new(context);
        // A task each, so that they do not wait for each other; they end with this future.
        let mut running = JoinSet::new();
        for &name in &wanted {
            running.spawn(run_one(name, work(name, context.clone(), shutdown.clone()), shutdown.clone()));
        }
        running.spawn(async move { follow(&wanted, &context, shutdown).await });
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// How long passes that have begun may take when a controller is asked to stop.
const LAST_PASSES: Duration = Duration::from_secs(5);

async fn run_one(name: Name, work: BoxFuture<'static, ()>, shutdown: CancellationToken) {
    tracing::info!(controller = ?name, "starting");
    // A controller that never saw the apiserver waits for it, and would wait on after it was asked to stop.
    let cut = {
        let shutdown = shutdown.clone();
        async move {
            shutdown.cancelled().await;
            tokio::time::sleep(LAST_PASSES).await;
        }
    };
    tokio::select! {
        () = work => tracing::info!(controller = ?name, "stopped"),
        () = cut => tracing::info!(controller = ?name, "stopped before its last passes were done"),
    }
}

/// How long Miners wait until all Pods were listed once. Without that they ask for each, and while nobody answers they have to.
const FIRST_LIST_OF_PODS: Duration = Duration::from_secs(5);

/// What a controller does. It listens to the views from the moment that this was called.
fn work(name: Name, context: Arc<Context>, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
    let settings = &context.settings;
    let (seen, stop) = (context.clone(), shutdown.clone());
    match name {
        Name::Chain => drive(chains(&context), chain::reconcile, context, shutdown).boxed(),
        Name::MinerSet => {
            let work = drive(minersets(&context), minerset::reconcile, context, shutdown);
            async move {
                if stop.run_until_cancelled(seen.views.miners.ready()).await.is_some() {
                    work.await;
                }
            }
            .boxed()
        }
        Name::Miner => {
            let work = drive(miners(&context), miner::reconcile, context, shutdown);
            async move {
                let listed = tokio::time::timeout(FIRST_LIST_OF_PODS, seen.views.pods.ready());
                if stop.run_until_cancelled(listed).await.is_some() {
                    work.await;
                }
            }
            .boxed()
        }
        Name::Job => drive(jobs(&context), job::reconcile, context, shutdown).boxed(),
        Name::CronJob => drive(cron_jobs(&context), cronjob::reconcile, context, shutdown).boxed(),
        Name::Namespace => {
            namespace::run(context.apiserver.clone(), settings.namespace.clone(), context.clock.clone(), shutdown)
                .boxed()
        }
        Name::Garbage => garbage::run(context.apiserver.clone(), settings.garbage.clone(), shutdown).boxed(),
        Name::Mirror => match context.mirror.clone() {
            Some(tables) => {
                let (apiserver, clock) = (context.apiserver.clone(), context.clock.clone());
                mirror::run(apiserver, tables, settings.mirror.clone(), clock, shutdown).boxed()
            }
            None => async move { shutdown.cancelled().await }.boxed(),
        },
    }
}

/// Fills the views that these controllers look at.
async fn follow(wanted: &[Name], context: &Context, shutdown: CancellationToken) {
    let views = &context.views;
    let is_wanted = |any: &[Name]| any.iter().any(|name| wanted.contains(name));
    let apiserver = || context.apiserver.clone();
    let all = watcher::Config::default;
    if is_wanted(&[Name::Chain, Name::MinerSet, Name::Miner]) {
        let pods = async {
            if is_wanted(&[Name::Miner]) {
                let labelled = all().labels(names::LABEL_MINERSET_NAME);
                views.pods.follow(Api::all(context.provider.clone()), labelled, shutdown.clone()).await;
            }
        };
        tokio::join!(
            views.chains.follow(Api::all(apiserver()), all(), shutdown.clone()),
            views.sets.follow(Api::all(apiserver()), all(), shutdown.clone()),
            views.miners.follow(Api::all(apiserver()), all(), shutdown.clone()),
            pods,
        );
    }
}

/// A Chain is looked at when it, its genesis, its key or its keystore changes, and when it waits for somebody who goes.
fn chains(context: &Context) -> Controller<Chain> {
    let views = &context.views;
    let (calls, waits) = (Calls::new(), Calls::new());
    let chains = [views.chains.store(), views.chains.store()];
    let is_going = |chains: &Store<Chain>, name: &str| {
        let chain = chains.get(&ObjectRef::new(name).within(CHAIN_NAMESPACE));
        let going = chain.filter(|chain| chain.metadata.deletion_timestamp.is_some());
        going.map(|chain| ObjectRef::from_obj(&*chain)).into_iter().collect()
    };
    let [of_sets, of_miners] = chains;
    views.sets.tell(&waits, move |set: &MinerSet| is_going(&of_sets, &set.spec.template.spec.chain_name));
    views.miners.tell(&waits, move |miner: &Miner| is_going(&of_miners, &miner.spec.chain_name));
    views.chains.tell_themselves(&calls);
    views.miners.tell(&calls, |miner: &Miner| owners(miner));
    let keystores = Api::<PartialObjectMeta<ConfigMap>>::all(context.apiserver.clone());
    let labelled = watcher::Config::default().labels(names::LABEL_CHAIN_NAME);
    let secrets = Api::<PartialObjectMeta<Secret>>::all(context.apiserver.clone());
    let controller = of_every(&views.chains, calls).reconcile_on(waits.answer(COLLECTING));
    let controller = watching(controller, keystores, labelled.clone(), |keystore| owners(&keystore));
    watching(controller, secrets, labelled, |secret| owners(&secret))
}

/// The objects of kind `K` that own `child`.
fn owners<K: Resource<DynamicType = ()>>(child: &impl Resource) -> Vec<ObjectRef<K>> {
    let namespace = child.meta().namespace.as_deref();
    child.owner_references().iter().filter_map(|owner| ObjectRef::from_owner_ref(namespace, owner, ())).collect()
}

/// How long changes of Miners are collected before their sets are looked at once more. It is also how often a set that changes
/// all the time says how it is.
const COLLECTING: Duration = Duration::from_millis(100);

/// A MinerSet is looked at when it, a Miner with its label, or its Chain changes.
fn minersets(context: &Context) -> Controller<MinerSet> {
    let views = &context.views;
    let (calls, members) = (Calls::new(), Calls::new());
    views.sets.tell_themselves(&calls);
    views.miners.tell(&members, |miner: &Miner| {
        // By owner and by label: an orphan has only its label, and a Miner that lost its label only its owner.
        let namespace = miner.namespace().unwrap_or_default();
        let owner =
            miner.controller().filter(|owner| owner.kind == MinerSet::kind(&())).map(|owner| owner.name.clone());
        let label = miner.labels().get(names::LABEL_MINERSET).cloned();
        let label = label.filter(|label| Some(label) != owner.as_ref());
        let set = |name: String| ObjectRef::new(&name).within(&namespace);
        owner.into_iter().chain(label).map(set).collect()
    });
    let sets = views.sets.store();
    views.chains.tell(&calls, move |chain: &Chain| {
        // Its settings may have changed, and it may have come or be about to go.
        let name = chain.name_any();
        let concerned = |set: &MinerSet| set.spec.template.spec.chain_name == name;
        sets.state_filter(concerned).iter().map(|set| ObjectRef::from_obj(&**set)).collect()
    });
    of_every(&views.sets, calls).reconcile_on(members.answer(COLLECTING))
}

/// A Miner is looked at when it, its Pod or its Service changes, and when its Chain does.
fn miners(context: &Context) -> Controller<Miner> {
    let views = &context.views;
    let calls = Calls::new();
    views.miners.tell_themselves(&calls);
    views.pods.tell(&calls, |pod: &Pod| namesake(pod));
    let miners = views.miners.store();
    views.chains.tell(&calls, move |chain: &Chain| {
        let name = chain.name_any();
        let of_a_set = |miner: &Miner| miner.controller().is_some_and(|owner| owner.kind == MinerSet::kind(&()));
        // Those of a set hear from their set that something changed.
        let concerned = |miner: &Miner| {
            let waits = miner.status.as_ref().is_none_or(|status| status.pod_ref.is_none());
            miner.spec.chain_name == name && (waits || !of_a_set(miner))
        };
        miners.state_filter(concerned).iter().map(|miner| ObjectRef::from_obj(&**miner)).collect()
    });
    let labelled = watcher::Config::default().labels(names::LABEL_CHAIN_NAME);
    let services = Api::<Service>::all(context.provider.clone());
    watching(of_every(&views.miners, calls), services, labelled, |service| namesake(&service))
}

/// A Job is looked at when it or a Pod of it changes.
fn jobs(context: &Context) -> Controller<Job> {
    let labelled = watcher::Config::default().labels(names::LABEL_JOB_NAME);
    let pods = Api::<Pod>::all(context.provider.clone());
    watching(alone::<Job>(context), pods, labelled, |pod: Pod| {
        let job = pod.labels().get(names::LABEL_JOB_NAME).cloned();
        let namespace = pod.namespace().unwrap_or_default();
        job.map(|name| ObjectRef::new(&name).within(&namespace)).into_iter().collect()
    })
}

/// A CronJob is looked at when it or a Job that it owns changes.
fn cron_jobs(context: &Context) -> Controller<CronJob> {
    let labelled = watcher::Config::default().labels(names::LABEL_CRONJOB_NAME);
    watching(alone::<CronJob>(context), Api::<Job>::all(context.apiserver.clone()), labelled, |job: Job| owners(&job))
}

/// Pods and genesis Services have the name and the namespace of their Miner.
fn namesake(child: &impl Resource) -> Vec<ObjectRef<Miner>> {
    vec![ObjectRef::new(&child.name_any()).within(child.meta().namespace.as_deref().unwrap_or_default())]
}

/// Lets `controller` look at the objects that a `Child` concerns when it changes, and at all its objects whenever the
/// children were listed anew: a list does not say which of them went while nobody watched.
fn watching<K, Child>(
    controller: Controller<K>,
    children: Api<Child>,
    which: watcher::Config,
    concerned: impl Fn(Child) -> Vec<ObjectRef<K>> + Send + Sync + 'static,
) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    Child: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // Room for one: all objects are looked at after it, so that a second one would say nothing new.
    let (mut listed, lists) = futures::channel::mpsc::channel(0);
    let changes = watcher(children, which).inspect_ok(move |change| {
        if matches!(change, watcher::Event::InitDone) {
            let _ = listed.try_send(());
        }
    });
    controller.watches_stream(changes.touched_objects(), concerned).reconcile_all_on(lists)
}

/// A controller of the objects of a view that are called for.
fn of_every<K>(view: &View<K>, calls: Arc<Calls<K>>) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    Controller::for_stream(stream::pending(), view.store()).reconcile_on(calls.answer(Duration::ZERO))
}

/// A controller of every object of a kind that nobody else looks at, each kept without what no pass looks at.
fn alone<K>(context: &Context) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (objects, writer) = reflector::store();
    let all = Api::<K>::all(context.apiserver.clone());
    let changes = watcher(all, watcher::Config::default()).modify(context::slim).reflect(writer);
    Controller::for_stream(changes.applied_objects(), objects)
}

/// How long a pass may take. The largest makes a batch of Miners in seconds; what takes longer waits for somebody who does
/// not answer, and would keep a worker from everybody else.
const LONGEST_PASS: Duration = Duration::from_secs(60);

/// Lets one controller work. A pass that fails is tried again later; a pass that panics is a bug that stops nothing else.
async fn drive<K, Pass>(
    controller: Controller<K>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> Pass + Copy + Send + Sync + 'static,
    context: Arc<Context>,
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    Pass: Future<Output = Result<Action>> + Send + 'static,
{
    let guarded = move |object: Arc<K>, context: Arc<Context>| {
        async move {
            if !context.looks_after(&*object) {
                return Ok(Action::await_change());
            }
            let name = full_name(&*object);
            let pass = in_time(LONGEST_PASS, "finish the pass", reconcile(object, context.clone()));
            // In a task of its own, so that passes use all of the machine. It ends with this future.
            let passed = AbortOnDropHandle::new(tokio::spawn(pass)).await;
            let action = passed.unwrap_or_else(|broken| Err(Error::Panicked(said(broken))))?;
            context.succeeded(&name);
            Ok(action)
        }
        .boxed()
    };
    controller
        .with_config(controller::Config::default().concurrency(context.settings.workers.max(1)))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(guarded, retry, context)
        .for_each(|result| async {
            match result {
                Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                // A child can outlive its owner for a moment.
                Err(controller::Error::ObjectNotFound(object)) => {
                    tracing::trace!(%object, "called for an object that is not there")
                }
                Err(error) => tracing::warn!(error = %chain_of(&error), "a watch was interrupted"),
            }
        })
        .await;
}

/// Decides when a failed pass is tried again, and is where failures are logged.
fn retry<K: Resource<DynamicType = ()>>(object: Arc<K>, error: &Error, context: Arc<Context>) -> Action {
    let name = full_name(&*object);
    match error {
        stale if stale.is_stale() => tracing::debug!(object = name, error = error.story(), "will look again"),
        _ => tracing::warn!(object = name, error = error.story(), "a pass failed"),
    }
    Action::requeue(context.failed(&name))
}

fn full_name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{}/{}/{}", K::kind(&()), object.meta().namespace.as_deref().unwrap_or_default(), object.name_any())
}

/// What a panic said.
fn said(broken: JoinError) -> String {
    let Ok(panic) = broken.try_into_panic() else { return "it was cut off".to_owned() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Whether somebody asked controllers to leave the object alone.
fn is_paused<K: Resource>(object: &K) -> bool {
    object.annotations().contains_key(names::ANNOTATION_PAUSED)
}

/// Refuses to adopt children for an object that is going or gone, which a view of a moment ago does not tell.
async fn may_adopt<K>(api: &Api<K>, owner: &K) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let doing = "adopt what nobody owns";
    let live = api.get_opt(&owner.name_any()).await.map_err(Error::doing(doing))?;
    let stays = live.is_some_and(|live| live.uid() == owner.uid() && live.meta().deletion_timestamp.is_none());
    if stays { Ok(()) } else { Err(Error::Stale { doing }) }
}

/// The label by which controllers that see `owner` through their filter also see what it owns.
fn watch_label<K: Resource>(owner: &K) -> Option<(String, String)> {
    let label = owner.labels().get_key_value(names::LABEL_WATCH_FILTER);
    label.map(|(key, value)| (key.clone(), value.clone()))
}

fn namespace<K: Resource>(object: &K) -> Result<&str> {
    object.meta().namespace.as_deref().ok_or(Error::Incomplete("namespace"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kube::api::PostParams;
    use onex_apiserver::{Apiserver, Handles};
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// An apiserver in memory, for as long as the guard is kept.
    pub(crate) async fn a_platform() -> (Client, tokio_util::sync::DropGuard) {
        let storage = onex_storage::open(&"memory:".parse().unwrap(), &Default::default()).await.unwrap();
        let server = Arc::new(Apiserver::new(Default::default(), Handles::over(storage)).await.unwrap());
        let client = onex_client::over_router(server.router_as("admin", &["system:masters"]), "default");
        let stop = CancellationToken::new();
        let (running, token) = (server.clone(), stop.clone());
        tokio::spawn(async move { running.run(token).await });
        server.ready().await;
        (client, stop.drop_guard())
    }

    #[tokio::test]
    async fn what_is_kept_of_an_object_has_no_managed_fields() {
        let (client, _stop) = a_platform().await;
        let chains = Api::<Chain>::namespaced(client.clone(), onex_crds::CHAIN_NAMESPACE);
        let chain = json!({"metadata": {"name": "genesis"}, "spec": {"minerType": "S1.SMALL2"}});
        let made = chains.create(&PostParams::default(), &serde_json::from_value(chain).unwrap()).await.unwrap();
        assert!(!made.managed_fields().is_empty(), "nothing to leave out");
        let context = Context::new(Settings::default(), client, None, Arc::new(SystemClock));
        let seen = async {
            context.views.chains.ready().await;
            context.views.chains.get(onex_crds::CHAIN_NAMESPACE, "genesis").unwrap()
        };
        let chain = tokio::select! {
            chain = seen => chain,
            () = follow(&[Name::Chain], &context, CancellationToken::new()) => unreachable!("nobody stopped it"),
        };
        assert_eq!((chain.managed_fields(), chain.spec.miner_type.as_str()), (&[][..], "S1.SMALL2"));
    }

    /// A cluster of Pods that took requests and never answered occupied all workers, and no Miner was looked at any more.
    #[tokio::test(start_paused = true)]
    async fn a_pass_that_nobody_answers_gives_its_worker_back() {
        static PASSES: AtomicUsize = AtomicUsize::new(0);
        let (client, _stop) = a_platform().await;
        let chain = Chain::new("genesis", Default::default());
        let chains = Api::<Chain>::namespaced(client.clone(), onex_crds::CHAIN_NAMESPACE);
        chains.create(&PostParams::default(), &chain).await.unwrap();
        let settings = Settings { workers: 1, ..Settings::default() };
        let context = Arc::new(Context::new(settings, client, None, Arc::new(SystemClock)));
        let pass = |_: Arc<Chain>, _: Arc<Context>| async {
            if PASSES.fetch_add(1, Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            Ok(Action::await_change())
        };
        tokio::spawn(drive(super::chains(&context), pass, context.clone(), CancellationToken::new()));
        tokio::spawn(async move { follow(&[Name::Chain], &context, CancellationToken::new()).await });
        tokio::time::sleep(LONGEST_PASS / 2).await;
        assert_eq!(PASSES.load(Ordering::Relaxed), 1);
        tokio::time::sleep(LONGEST_PASS).await;
        assert_eq!(PASSES.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn without_any_controller_nothing_ends_before_the_shutdown() {
        let (client, _stop) = a_platform().await;
        let settings = Settings { controllers: Vec::new(), ..Settings::default() };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(Controllers::new(settings, client).run(shutdown.clone()));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!running.is_finished());
        shutdown.cancel();
        running.await.unwrap();
    }
}
