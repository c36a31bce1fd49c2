//! The loop of the node: from Pods in the apiserver to Pods that run, and back.
//!
//! It is driven by levels: whatever happened, [`Pods::look_at`] compares the Pod of one name as it is in the apiserver with what
//! runs under that name, and takes the next step.

use super::bind::{self, Decision};
use super::{Cluster, MANAGER, code};
use crate::runner::{self, Runner, Wish, with_causes};
use crate::seen::PodSeen;
use crate::{PodName, pod, status};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the processes of a Pod that vanished may take to stop. Whoever deletes by force does not want to wait.
const GRACE_OF_THE_VANISHED: Duration = Duration::from_secs(2);

/// Between two looks at everything, for what no event tells: room for more Pods, directories that nobody needs.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// Between two tries to write what the apiserver did not take.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why a Pod failed that the node could not go on with.
const BUG: &str = "NodeError";

/// A Pod that this node has taken on.
struct Worker {
    uid: String,
    stage: Stage,
}

/// How far it is.
enum Stage {
    /// It runs, or tries to.
    Running(watch::Sender<Wish>),
    /// Nothing of it runs, and nothing will. The object is still there.
    Over,
    /// It is over, and the object is being removed.
    Removing,
}

/// What a task has to tell when it ends.
enum Done {
    /// Nothing of this Pod runs any more, and its status says so.
    Over(PodName, String),
    /// Whatever ran of this Pod ended with a bug of ours.
    Broke(PodName, String),
    /// The object was removed, or somebody else did that.
    Removed(PodName),
    /// It was tried to remove the object, and it is unknown whether it was.
    NotRemoved(PodName),
    /// It was tried to bind the Pod with this uid, and it was not.
    NotBound(String),
    /// People were told why the Pod with this uid has to wait, or could not be told now.
    Told(String),
    /// The Pod was bound; that is known as soon as the watch says so.
    Bound,
}

/// All Pods of this node.
pub(crate) struct Pods {
    cluster: Arc<Cluster>,
    runner: Arc<Runner>,
    shutdown: CancellationToken,
    workers: HashMap<PodName, Worker>,
    tasks: JoinSet<Done>,
    /// What each task is taken to have told if it panics, so that nothing waits for it for ever.
    otherwise: HashMap<task::Id, Done>,
    /// The uids of Pods that are being bound, until they are seen with a node.
    binding: HashSet<String>,
    /// The uids of Pods of which it is being said why they have to wait.
    telling: HashSet<String>,
    /// Whether the apiserver has told all Pods since the node was started. Before that nobody knows whose home is empty.
    synced: bool,
}

impl Pods {
    pub(crate) fn new(cluster: Arc<Cluster>, runner: Arc<Runner>, shutdown: CancellationToken) -> Self {
        Self {
            cluster,
            runner,
            shutdown,
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            otherwise: HashMap::new(),
            binding: HashSet::new(),
            telling: HashSet::new(),
            synced: false,
        }
    }

    /// Runs Pods until the shutdown, and returns when nothing of them runs any more.
    pub(crate) async fn run(mut self, writer: Writer<Pod>) {
        let pods = Api::<Pod>::all(self.cluster.client.clone());
        let changes = watcher(pods, watcher::Config::default()).default_backoff().modify(super::slim).reflect(writer);
        let mut changes = std::pin::pin!(changes);
        let mut node = self.cluster.node.subscribe();
        let mut around = tokio::time::interval(LOOK_AROUND);
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(change) = changes.next() => match change {
                    Ok(Event::Apply(pod) | Event::Delete(pod)) => self.look_at(&PodName::of(&pod)),
                    Ok(Event::InitDone) => {
                        self.synced = true;
                        self.look_around();
                    }
                    Ok(Event::Init | Event::InitApply(_)) => {}
                    Err(error) => tracing::warn!(error = with_causes(&error), "watching pods failed, and is tried again"),
                },
                Some(ended) = self.tasks.join_next_with_id() => self.end_of_task(ended),
                Ok(()) = node.changed() => self.look_around(),
                _ = around.tick() => self.look_around(),
            }
        }
        self.stop_all().await;
    }

    fn start(&mut self, otherwise: Done, work: impl Future<Output = Done> + Send + 'static) {
        let id = self.tasks.spawn(work).id();
        self.otherwise.insert(id, otherwise);
    }

    fn end_of_task(&mut self, ended: Result<(task::Id, Done), JoinError>) {
        let done = match ended {
            Ok((id, done)) => {
                self.otherwise.remove(&id);
                Some(done)
            }
            Err(error) => {
                tracing::error!(%error, "a task of a pod broke");
                self.otherwise.remove(&error.id())
            }
        };
        if let Some(done) = done {
            self.go_on(done);
        }
    }

    fn look_around(&mut self) {
        let known = self.cluster.pods.state();
        let waiting: HashSet<&str> =
            known.iter().filter(|pod| pod::node(pod).is_none()).map(|pod| pod::uid(pod)).collect();
        self.binding.retain(|uid| waiting.contains(uid.as_str()));
        let mut names: BTreeSet<PodName> = known.iter().map(|pod| PodName::of(pod)).collect();
        names.extend(self.workers.keys().cloned());
        for name in &names {
            self.look_at(name);
        }
        if !self.synced {
            return;
        }
        let (pods, workers) = (&self.cluster.pods, &self.workers);
        self.runner.sweep(|name| workers.contains_key(name) || pods.get(&reference(name)).is_some());
    }

    /// Takes the next step with the Pod of this name, if there is one to take.
    fn look_at(&mut self, name: &PodName) {
        let pod = self.cluster.pods.get(&reference(name));
        match &pod {
            Some(pod) if pod::node(pod).is_none() => self.schedule(pod),
            Some(pod) => drop(self.binding.remove(pod::uid(pod))),
            None => {}
        }
        let pod = pod.filter(|pod| pod::node(pod) == Some(&self.cluster.settings.node_name));
        let Some(worker) = self.workers.get_mut(name) else {
            if let Some(pod) = pod {
                self.take_on(name, pod);
            }
            return;
        };
        match (pod.filter(|pod| pod::uid(pod) == worker.uid), &worker.stage) {
            (Some(pod), Stage::Running(wishes)) => wish(wishes, &pod, pod::is_deleting(&pod).then(|| grace(&pod))),
            (Some(pod), Stage::Over) if pod::is_deleting(&pod) => {
                worker.stage = Stage::Removing;
                self.remove(name.clone(), &pod);
            }
            (Some(_), Stage::Over | Stage::Removing) => {}
            // It vanished, or another one took its name: that one has to wait until nothing of this one runs.
            (None, Stage::Running(wishes)) => {
                let pod = Arc::clone(&wishes.borrow().pod);
                wish(wishes, &pod, Some(grace(&pod).min(GRACE_OF_THE_VANISHED)));
            }
            (None, Stage::Over | Stage::Removing) => {
                self.workers.remove(name);
                self.runner.forget(name);
                if self.cluster.pods.get(&reference(name)).is_some() {
                    self.look_at(name);
                }
            }
        }
    }

    fn take_on(&mut self, name: &PodName, pod: Arc<Pod>) {
        let uid = pod::uid(&pod).to_owned();
        let over = pod::is_over(&pod);
        let stage = if over || pod::is_deleting(&pod) {
            // Nothing of it can run: it is over, or we were away and everything was killed.
            if over {
                self.runner.remember(&pod);
            }
            Stage::Over
        } else if !self.has_room() {
            // Somebody else bound it to us. A refusal would be for ever, and whoever wants it would try again for ever.
            return self.tell_to_wait(&pod, bind::no_room());
        } else {
            let (sender, wishes) = watch::channel(Wish { pod: Arc::clone(&pod), stop_by: None });
            let (cluster, runner) = (Arc::clone(&self.cluster), Arc::clone(&self.runner));
            let work = attend(cluster, runner, name.clone(), wishes, self.shutdown.clone());
            self.start(Done::Broke(name.clone(), uid.clone()), work);
            Stage::Running(sender)
        };
        let again = matches!(stage, Stage::Over);
        self.workers.insert(name.clone(), Worker { uid, stage });
        if again {
            self.look_at(name);
        }
    }

    fn has_room(&self) -> bool {
        let room = self.cluster.settings.room() as usize;
        // Counting takes as long as there are Pods, and is asked for by each of them.
        if self.workers.len() + self.binding.len() < room {
            return true;
        }
        let running = self.workers.values().filter(|worker| matches!(worker.stage, Stage::Running(_)));
        running.count() + self.binding.len() < room
    }

    fn schedule(&mut self, pod: &Arc<Pod>) {
        let uid = pod::uid(pod).to_owned();
        if self.binding.contains(&uid) {
            return;
        }
        let node = self.cluster.node.borrow().clone();
        let Some(node) = node else {
            return; // not registered yet: everything is looked at again when it is
        };
        match bind::decide(pod, &node, self.has_room()) {
            Decision::Leave => {}
            Decision::Bind => {
                self.binding.insert(uid.clone());
                let (cluster, runner, pod) = (Arc::clone(&self.cluster), Arc::clone(&self.runner), Arc::clone(pod));
                self.start(Done::NotBound(uid.clone()), async move {
                    if bind(&cluster, &runner, &pod).await { Done::Bound } else { Done::NotBound(uid) }
                });
            }
            Decision::Impossible(why) => self.tell_to_wait(pod, why),
        }
    }

    /// Says why `pod` does not run, unless its status says so already. It is looked at again before long.
    fn tell_to_wait(&mut self, pod: &Arc<Pod>, why: String) {
        let Some(status) = bind::unschedulable(pod, &why, Time(Timestamp::now())) else {
            return;
        };
        let uid = pod::uid(pod).to_owned();
        if !self.telling.insert(uid.clone()) {
            return;
        }
        self.runner.notices.warning(pod, "FailedScheduling", bind::ACTION, why);
        let (cluster, pod) = (Arc::clone(&self.cluster), Arc::clone(pod));
        self.start(Done::Told(uid.clone()), async move {
            if let Err(error) = patch_status(&cluster, &pod, json!(status)).await {
                tracing::debug!(error = with_causes(&error), "could not say that a pod cannot be scheduled");
            }
            Done::Told(uid)
        });
    }

    fn remove(&mut self, name: PodName, pod: &Pod) {
        let (cluster, shutdown) = (Arc::clone(&self.cluster), self.shutdown.clone());
        let (namespace, uid) = (name.namespace.clone(), pod::uid(pod).to_owned());
        self.start(Done::NotRemoved(name.clone()), async move {
            let pods = Api::<Pod>::namespaced(cluster.client.clone(), &namespace);
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid.clone()), ..Preconditions::default() }),
                ..DeleteParams::default()
            };
            until_taken(&shutdown, || async {
                let _permit = cluster.requests.acquire().await;
                pods.delete(&name.name, &parameters).await.map(drop)
            })
            .await;
            Done::Removed(name)
        });
    }

    fn go_on(&mut self, done: Done) {
        match done {
            Done::Over(name, uid) => {
                if let Some(worker) = self.workers.get_mut(&name).filter(|worker| worker.uid == uid) {
                    worker.stage = Stage::Over;
                }
                self.look_at(&name);
            }
            Done::Broke(name, uid) => self.give_up(name, uid),
            // It is looked at again before long.
            Done::NotRemoved(name) => {
                if let Some(worker) = self.workers.get_mut(&name) {
                    worker.stage = Stage::Over;
                }
            }
            // What is left is that the watch says it is gone. Until then nobody else gets the name.
            Done::Removed(name) => self.look_at(&name),
            Done::NotBound(uid) => {
                self.binding.remove(&uid);
            }
            Done::Told(uid) => {
                self.telling.remove(&uid);
            }
            Done::Bound => {}
        }
    }

    /// Says of a Pod whose task broke that it is over: its processes went with the task.
    fn give_up(&mut self, name: PodName, uid: String) {
        let worker = self.workers.get_mut(&name).filter(|worker| worker.uid == uid);
        let Some(Stage::Running(wishes)) = worker.map(|worker| std::mem::replace(&mut worker.stage, Stage::Over))
        else {
            return;
        };
        let pod = Arc::clone(&wishes.borrow().pod);
        let (cluster, shutdown) = (Arc::clone(&self.cluster), self.shutdown.clone());
        self.start(Done::Over(name.clone(), uid.clone()), async move {
            let status = PodStatus {
                reason: Some(BUG.to_owned()),
                message: Some("the node could not go on with this Pod because of a bug; its log tells more".to_owned()),
                ..status::without_processes(&pod, "Failed", BUG, Time(Timestamp::now()))
            };
            until_taken(&shutdown, || patch_status(&cluster, &pod, json!(status))).await;
            Done::Over(name, uid)
        });
    }

    /// Stops everything at once, and kills what does not stop in time. The Pods in the apiserver stay as they are.
    async fn stop_all(mut self) {
        let patience = Duration::from_secs(self.cluster.settings.shutdown_seconds);
        for worker in self.workers.values() {
            if let Stage::Running(wishes) = &worker.stage {
                let pod = Arc::clone(&wishes.borrow().pod);
                wish(wishes, &pod, Some(patience));
            }
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // The kill itself takes a moment, too. What is left after that dies with its task.
        if tokio::time::timeout(patience + Duration::from_secs(2), all).await.is_err() {
            tracing::warn!("some pods did not stop in time and are killed");
            self.tasks.shutdown().await;
        }
        self.runner.kill_leftovers().await;
    }
}

fn reference(name: &PodName) -> ObjectRef<Pod> {
    ObjectRef::new(&name.name).within(&name.namespace)
}

fn grace(pod: &Pod) -> Duration {
    Duration::from_secs(pod::grace_seconds(pod))
}

/// Tells a running Pod what is wanted now. Time to stop can become shorter, not longer.
fn wish(wishes: &watch::Sender<Wish>, pod: &Arc<Pod>, grace: Option<Duration>) {
    let by = grace.map(|grace| Instant::now() + grace);
    wishes.send_if_modified(|wish| {
        let stop_by = match (wish.stop_by, by) {
            (Some(before), Some(by)) => Some(before.min(by)),
            (before, by) => before.or(by),
        };
        let changed = stop_by != wish.stop_by || !Arc::ptr_eq(&wish.pod, pod);
        wish.stop_by = stop_by;
        wish.pod = Arc::clone(pod);
        changed
    });
}

/// Runs one Pod and reports what is seen of it, until it is over.
async fn attend(
    cluster: Arc<Cluster>,
    runner: Arc<Runner>,
    name: PodName,
    wishes: watch::Receiver<Wish>,
    shutdown: CancellationToken,
) -> Done {
    let pod = Arc::clone(&wishes.borrow().pod);
    let board = runner::board(&pod);
    let shown = board.subscribe();
    tokio::join!(runner.run(wishes.clone(), board), report(&cluster, wishes, shown, &shutdown));
    Done::Over(name, pod::uid(&pod).to_owned())
}

/// Writes the status whenever it changes. At the shutdown nothing is written any more: that the processes are stopped is not
/// the end of the Pod.
async fn report(
    cluster: &Cluster,
    wishes: watch::Receiver<Wish>,
    mut shown: watch::Receiver<PodSeen>,
    shutdown: &CancellationToken,
) {
    let mut before = wishes.borrow().pod.status.clone();
    loop {
        let seen = shown.borrow_and_update().clone();
        let pod = Arc::clone(&wishes.borrow().pod);
        let now = Timestamp::now();
        let status = status::compute(&pod, &seen, before.as_ref(), cluster.settings.address, now);
        if is_replaced(cluster, &pod) {
            return;
        }
        if before.as_ref() != Some(&status) {
            let patch = merge(before.as_ref(), &status);
            let written = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                written = patch_status(cluster, &pod, patch) => written,
            };
            match written {
                Ok(()) => before = Some(status),
                // It is gone. Its processes are still looked after.
                Err(error) if code(&error) == Some(404) => return,
                Err(error) => {
                    tracing::warn!(pod = %pod.name_any(), error = with_causes(&error), "a status was not taken, and is tried again");
                    tokio::time::sleep(TRY_AGAIN).await;
                    continue;
                }
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            changed = shown.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether another Pod has the name of `pod` by now.
fn is_replaced(cluster: &Cluster, pod: &Pod) -> bool {
    let now = cluster.pods.get(&ObjectRef::from_obj(pod));
    now.is_some_and(|now| pod::uid(&now) != pod::uid(pod))
}

/// A merge patch from one status to the next: what is not there any more has to be named.
fn merge(before: Option<&PodStatus>, after: &PodStatus) -> Value {
    let fields = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let mut patch = fields(after);
    for (field, _) in before.map(fields).unwrap_or_default() {
        patch.entry(field).or_insert(Value::Null);
    }
    Value::Object(patch)
}

/// The uid makes the apiserver refuse it when the name is another Pod's meanwhile.
async fn patch_status(cluster: &Cluster, pod: &Pod, status: Value) -> Result<(), kube::Error> {
    let _permit = cluster.requests.acquire().await;
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), &PodName::of(pod).namespace);
    let patch = Patch::Merge(json!({"metadata": {"uid": pod::uid(pod)}, "status": status}));
    let parameters = PatchParams::apply(MANAGER);
    pods.patch_status(&pod.name_any(), &parameters, &patch).await.map(drop)
}

/// True when the Pod has a node now.
async fn bind(cluster: &Cluster, runner: &Runner, pod: &Pod) -> bool {
    let node = &cluster.settings.node_name;
    let name = PodName::of(pod);
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), &name.namespace);
    let binding = bind::binding(pod, node);
    let bound = {
        let _permit = cluster.requests.acquire().await;
        pods.create_subresource::<_, Value>("binding", &name.name, &PostParams::default(), &binding).await
    };
    match bound {
        Ok(_) => {
            let note = format!("Successfully assigned {name} to {node}");
            runner.notices.normal(pod, "Scheduled", bind::ACTION, note);
            true
        }
        // Somebody was faster, or it is gone.
        Err(error) if matches!(code(&error), Some(404 | 409)) => false,
        // It is looked at again before long.
        Err(error) => {
            tracing::warn!(pod = %name, error = with_causes(&error), "could not bind a pod");
            false
        }
    }
}

/// Tries until the apiserver took it, or says that there is nothing to do it to.
async fn until_taken<F>(shutdown: &CancellationToken, attempt: impl Fn() -> F)
where
    F: Future<Output = Result<(), kube::Error>>,
{
    loop {
        match attempt().await {
            Ok(()) => return,
            Err(error) if matches!(code(&error), Some(404 | 409)) => return,
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "the apiserver did not take it, and is asked again")
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Surroundings, Target};
    use async_trait::async_trait;
    use kube::runtime::reflector;
    use std::collections::BTreeMap;

    #[test]
    fn what_a_status_lost_is_named_in_the_patch() {
        let status = |phase: &str, reason: Option<&str>| PodStatus {
            phase: Some(phase.to_owned()),
            reason: reason.map(str::to_owned),
            ..PodStatus::default()
        };
        let patch = merge(Some(&status("Failed", Some("Evicted"))), &status("Running", None));
        assert_eq!(patch, json!({"phase": "Running", "reason": null}));
    }

    /// A cluster in which the question for a Service runs into a bug.
    struct Treacherous;

    #[async_trait]
    impl Surroundings for Treacherous {
        async fn target(&self, _: &str, _: &str, _: &PodName) -> Option<Target> {
            panic!("a bug")
        }

        async fn config_map(&self, _: &str, _: &str) -> Result<Option<BTreeMap<String, String>>, String> {
            Ok(None)
        }

        async fn secret(&self, _: &str, _: &str) -> Result<Option<BTreeMap<String, String>>, String> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_pod_on_which_the_node_breaks_fails_and_can_be_deleted() {
        let storage = onex_storage::open(&"memory:".parse().unwrap(), &Default::default()).await.unwrap();
        let handles = onex_apiserver::Handles::over(storage);
        let apiserver = onex_apiserver::Apiserver::new(Default::default(), handles).await.unwrap();
        let client = onex_client::over_router(apiserver.router_as("system:node:onex", &["system:masters"]), "default");
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        tokio::spawn(async move { apiserver.run(stop).await });
        let directory = tempfile::tempdir().unwrap();
        let settings = crate::Settings {
            data_dir: directory.path().join("node"),
            images: BTreeMap::from([("sh".to_owned(), vec!["/bin/sh".to_owned()])]),
            cgroup_parent: String::new(),
            ..Default::default()
        };
        let (known, writer) = reflector::store();
        let cluster = Cluster::new(client.clone(), settings.clone(), 10250, known, reflector::store().0);
        let (runner, _notices) = Runner::new(settings, Arc::new(Treacherous), Arc::default()).unwrap();
        let pods = Pods::new(Arc::new(cluster), Arc::new(runner), CancellationToken::new());
        let running = tokio::spawn(pods.run(writer));

        let pods = Api::<Pod>::default_namespaced(client);
        let container = json!({"name": "c", "image": "sh", "args": ["http://web.n.svc/"]});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "onex", "containers": [container]}});
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let reason = |pod: &Option<Pod>| pod.as_ref().and_then(|pod| pod.status.as_ref()?.reason.clone());
        let told = async {
            while reason(&pods.get_opt("p").await.unwrap()).as_deref() != Some(BUG) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            pods.delete("p", &DeleteParams::default()).await.unwrap();
            while pods.get_opt("p").await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.expect("it fails, and goes when it is deleted");
        assert!(!running.is_finished());
        running.abort();
    }

    #[test]
    fn the_time_to_stop_only_becomes_shorter() {
        let pod = Arc::new(Pod::default());
        let (sender, receiver) = watch::channel(Wish { pod: Arc::clone(&pod), stop_by: None });
        let start = Instant::now();
        let left = || receiver.borrow().stop_by.map(|by| (by - start).as_secs());
        for (grace, expected) in
            [(None, None), (Some(30), Some(30)), (Some(60), Some(30)), (Some(1), Some(1)), (None, Some(1))]
        {
            wish(&sender, &pod, grace.map(Duration::from_secs));
            assert_eq!(left(), expected, "{grace:?}");
        }
    }
}
