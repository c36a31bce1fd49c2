//! What a watch has shown of a kind: kept once for all controllers, found by name or by group, and never behind what we wrote
//! ourselves.
//!
//! A pass that looks here right after it wrote sees what it wrote, although the watch has yet to tell: the apiserver's answer
//! is kept aside until the watch has come as far. So nothing has to wait, and nothing is done twice. That something is *not*
//! here is only a hint; where more hangs on it than an attempt that would collide, it is asked for.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::chain_of;

/// How long an answer is kept that no watch confirms. Only one that a list overtook stays that long.
const UNCONFIRMED: Duration = Duration::from_secs(30);

/// Every object of a kind, as far as a watch and our own writes have shown.
pub(crate) struct View<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    writer: Mutex<Option<Writer<K>>>,
    /// Leaves out what nobody looks at.
    slim: fn(&mut K),
    /// The group of an object, if it is in one.
    group: fn(&K) -> Option<String>,
    kept: RwLock<Kept<K>>,
    listeners: RwLock<Vec<Listener<K>>>,
    /// Everything was shown once. The store knows it too, but wakes only the last of those who wait for it.
    listed: watch::Sender<bool>,
}

/// Told of every object that changed or went. The second is whether that was a write of the one who listens.
type Listener<K> = Box<dyn Fn(&K, bool) + Send + Sync>;

struct Kept<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// Everything up to this revision has been shown.
    reached: u64,
    /// What we wrote and the watch has yet to show.
    ahead: HashMap<ObjectRef<K>, Ahead<K>>,
    groups: HashMap<String, HashSet<ObjectRef<K>>>,
}

struct Ahead<K> {
    /// The object as the apiserver answered; `None` when it said that it is gone.
    object: Option<Arc<K>>,
    uid: Option<String>,
    revision: u64,
    since: Instant,
    /// Whether whoever listens to its own kind knows it already.
    own: bool,
}

impl<K> View<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// A view of nothing yet, that keeps objects without what `slim` takes away, and finds them by the `group` they are in.
    pub(crate) fn new(slim: fn(&mut K), group: fn(&K) -> Option<String>) -> Self {
        let (store, writer) = reflector::store();
        let kept = Kept { reached: 0, ahead: HashMap::new(), groups: HashMap::new() };
        let (kept, listeners) = (RwLock::new(kept), RwLock::default());
        Self {
            store,
            writer: Mutex::new(Some(writer)),
            slim,
            group,
            kept,
            listeners,
            listed: watch::Sender::new(false),
        }
    }

    /// Follows the objects until `shutdown`. What is watched without an answer is tried again, later each time.
    pub(crate) async fn follow(&self, objects: Api<K>, which: watcher::Config, shutdown: CancellationToken) {
        let Some(mut writer) = self.writer.lock().take() else { return };
        let changes = watcher(objects, which).default_backoff();
        let mut changes = std::pin::pin!(changes.take_until(shutdown.cancelled_owned()));
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => self.take(change, &mut writer),
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), error = %chain_of(&error), "a watch was interrupted")
                }
            }
        }
    }

    /// Lets `calls` be told of whom each change concerns.
    pub(crate) fn tell<C>(
        &self,
        calls: &Arc<Calls<C>>,
        concerned: impl Fn(&K) -> Vec<ObjectRef<C>> + Send + Sync + 'static,
    ) where
        C: Resource<DynamicType = ()> + 'static,
    {
        let calls = calls.clone();
        self.listeners.write().push(Box::new(move |object, _| calls.call(concerned(object))));
    }

    /// Lets `calls` be told of each object that changed, unless by [`View::wrote_own`].
    pub(crate) fn tell_themselves(&self, calls: &Arc<Calls<K>>) {
        let calls = calls.clone();
        self.listeners.write().push(Box::new(move |object, own| {
            if !own {
                calls.call([ObjectRef::from_obj(object)]);
            }
        }));
    }

    /// The objects without our latest writes, as `kube` wants them.
    pub(crate) fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Waits until everything was shown once.
    pub(crate) async fn ready(&self) {
        // Nobody fills it any more only when everything ends.
        drop(self.listed.subscribe().wait_for(|listed| *listed).await);
    }

    /// Whether everything was shown once.
    pub(crate) fn is_ready(&self) -> bool {
        *self.listed.borrow()
    }

    /// The object of this name. Unless it is there, nobody knows.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.current(&self.kept.read(), &ObjectRef::new(name).within(namespace))
    }

    /// The same object as we last wrote it, if that is news.
    pub(crate) fn freshest(&self, object: Arc<K>) -> Arc<K> {
        let there = self.current(&self.kept.read(), &ObjectRef::from_obj(&*object));
        there.filter(|there| there.uid() == object.uid()).unwrap_or(object)
    }

    /// All objects in a group, by name.
    pub(crate) fn group(&self, group: &str) -> Vec<Arc<K>> {
        let kept = self.kept.read();
        let members = kept.groups.get(group).into_iter().flatten();
        let mut members: Vec<Arc<K>> = members.filter_map(|member| self.current(&kept, member)).collect();
        members.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        members
    }

    /// Takes in what the apiserver answered to a write: from now on it is seen.
    pub(crate) fn wrote(&self, object: K) -> Arc<K> {
        self.keep_aside(object, false)
    }

    /// The same for a write about which whoever listens to its own kind need not be told.
    pub(crate) fn wrote_own(&self, object: K) -> Arc<K> {
        self.keep_aside(object, true)
    }

    /// Takes in that the apiserver said that this object is gone.
    pub(crate) fn is_gone(&self, object: &K) {
        let name = ObjectRef::from_obj(object);
        let mut kept = self.kept.write();
        let before = self.current(&kept, &name).filter(|there| there.uid() == object.uid());
        if before.is_some() {
            let (uid, since) = (object.uid(), Instant::now());
            kept.ahead.insert(name, Ahead { object: None, uid, revision: u64::MAX, since, own: false });
            self.regroup(&mut kept, before.as_deref(), None);
        }
    }

    fn keep_aside(&self, mut object: K, own: bool) -> Arc<K> {
        (self.slim)(&mut object);
        let object = Arc::new(object);
        let (name, revision) = (ObjectRef::from_obj(&*object), revision(&*object));
        let mut kept = self.kept.write();
        // What the watch has shown already is not news: it may be gone by now.
        let known = kept.ahead.get(&name).filter(|ahead| ahead.uid == object.uid()).map_or(0, |ahead| ahead.revision);
        if revision > kept.reached.max(known) {
            let before = self.current(&kept, &name);
            let (uid, since) = (object.uid(), Instant::now());
            kept.ahead.insert(name, Ahead { object: Some(object.clone()), uid, revision, since, own });
            self.regroup(&mut kept, before.as_deref(), Some(&object));
        }
        object
    }

    fn current(&self, kept: &Kept<K>, name: &ObjectRef<K>) -> Option<Arc<K>> {
        match kept.ahead.get(name).filter(|ahead| ahead.since.elapsed() < UNCONFIRMED) {
            Some(ahead) => ahead.object.clone(),
            None => self.store.get(name),
        }
    }

    fn take(&self, mut change: Event<K>, writer: &mut Writer<K>) {
        if let Event::Apply(object) | Event::InitApply(object) = &mut change {
            (self.slim)(object);
        }
        match &change {
            Event::Apply(object) | Event::Delete(object) => {
                let own = self.take_one(&change, object, writer);
                self.say(object, own);
            }
            Event::Init | Event::InitApply(_) => writer.apply_watcher_event(&change),
            Event::InitDone => {
                let before = self.take_all(&change, writer);
                self.listed.send_replace(true);
                let there = self.store.state();
                let names: HashSet<ObjectRef<K>> = there.iter().map(|object| ObjectRef::from_obj(&**object)).collect();
                // A list does not say which of them went while nobody watched.
                let gone = before.into_iter().filter(|object| !names.contains(&ObjectRef::from_obj(&**object)));
                for object in gone.chain(there) {
                    self.say(&object, false);
                }
            }
        }
    }

    /// Takes in one change, and answers whether it was a write of the one who listens to it.
    fn take_one(&self, change: &Event<K>, object: &K, writer: &mut Writer<K>) -> bool {
        let (name, shown) = (ObjectRef::from_obj(object), revision(object));
        let mut kept = self.kept.write();
        let before = self.current(&kept, &name);
        writer.apply_watcher_event(change);
        kept.reached = kept.reached.max(shown);
        let deleted = matches!(change, Event::Delete(_));
        let mut own = false;
        if let Some(ahead) = kept.ahead.get(&name) {
            let same = ahead.uid == object.uid();
            let caught_up = ahead.revision <= shown || same && deleted || !same && ahead.object.is_none();
            own = ahead.own && ahead.revision == shown && !deleted;
            if caught_up {
                kept.ahead.remove(&name);
            }
        }
        let after = self.current(&kept, &name);
        self.regroup(&mut kept, before.as_deref(), after.as_deref());
        own
    }

    /// Takes in a whole list, and answers what was there before.
    fn take_all(&self, change: &Event<K>, writer: &mut Writer<K>) -> Vec<Arc<K>> {
        let mut kept = self.kept.write();
        let before = self.store.state();
        writer.apply_watcher_event(change);
        let there = self.store.state();
        kept.reached = there.iter().map(|object| revision(&**object)).max().unwrap_or_default();
        // Whatever is not in the list yet is shown by the watch that follows it.
        kept.ahead.clear();
        kept.groups.clear();
        for object in &there {
            self.regroup(&mut kept, None, Some(object));
        }
        before
    }

    fn regroup(&self, kept: &mut Kept<K>, before: Option<&K>, after: Option<&K>) {
        let group = |object: Option<&K>| object.and_then(self.group);
        let (old, new) = (group(before), group(after));
        if old == new {
            return;
        }
        if let (Some(object), Some(group)) = (before, old)
            && let Some(members) = kept.groups.get_mut(&group)
        {
            members.remove(&ObjectRef::from_obj(object));
            if members.is_empty() {
                kept.groups.remove(&group);
            }
        }
        if let (Some(object), Some(group)) = (after, new) {
            kept.groups.entry(group).or_default().insert(ObjectRef::from_obj(object));
        }
    }

    fn say(&self, object: &K, own: bool) {
        for listener in self.listeners.read().iter() {
            listener(object, own);
        }
    }
}

/// The revision of an object. They are numbers wherever watches are: one that is none is before all others.
fn revision<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// Objects that are to be looked at: each once, however often it is called for meanwhile.
pub(crate) struct Calls<K: Resource<DynamicType = ()> + 'static> {
    waiting: Mutex<Waiting<K>>,
    rung: Notify,
}

/// Who was called for, and in which order.
struct Waiting<K: Resource<DynamicType = ()> + 'static> {
    names: HashSet<ObjectRef<K>>,
    order: Vec<ObjectRef<K>>,
}

impl<K: Resource<DynamicType = ()> + 'static> Calls<K> {
    /// Nobody is called for yet.
    pub(crate) fn new() -> Arc<Self> {
        let waiting = Waiting { names: HashSet::new(), order: Vec::new() };
        Arc::new(Self { waiting: Mutex::new(waiting), rung: Notify::new() })
    }

    /// Lets these be looked at.
    pub(crate) fn call(&self, objects: impl IntoIterator<Item = ObjectRef<K>>) {
        let mut waiting = self.waiting.lock();
        for object in objects {
            if waiting.names.insert(object.clone()) {
                waiting.order.push(object);
            }
        }
        if !waiting.order.is_empty() {
            self.rung.notify_one();
        }
    }

    fn all(&self) -> Vec<ObjectRef<K>> {
        let mut waiting = self.waiting.lock();
        waiting.names.clear();
        std::mem::take(&mut waiting.order)
    }

    /// Those who were called for, in order. They are collected for `pause` after every handful, so that what changes all the
    /// time is looked at now and then, and what changes once is looked at at once.
    pub(crate) fn answer(self: Arc<Self>, pause: Duration) -> impl Stream<Item = ObjectRef<K>> + Send + 'static {
        let handfuls = stream::unfold((self, None::<Instant>), move |(calls, last)| async move {
            loop {
                if let Some(last) = last {
                    tokio::time::sleep_until(last + pause).await;
                }
                let order = calls.all();
                if !order.is_empty() {
                    return Some((stream::iter(order), (calls, (!pause.is_zero()).then(Instant::now))));
                }
                calls.rung.notified().await;
            }
        });
        handfuls.flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onex_crds::{Miner, MinerSpec};

    fn miner(name: &str, uid: &str, revision: u64, group: &str) -> Miner {
        let mut miner = Miner::new(name, MinerSpec::default());
        miner.metadata.namespace = Some("n".to_owned());
        miner.metadata.uid = Some(uid.to_owned());
        miner.metadata.resource_version = Some(revision.to_string());
        miner.labels_mut().insert("group".to_owned(), group.to_owned());
        miner
    }

    struct Watched {
        view: View<Miner>,
        writer: Writer<Miner>,
        calls: Arc<Calls<Miner>>,
    }

    impl Watched {
        fn listed(miners: impl IntoIterator<Item = Miner>) -> Self {
            let view = View::new(|_| {}, |miner: &Miner| miner.labels().get("group").cloned());
            let writer = view.writer.lock().take().unwrap();
            let calls = Calls::new();
            view.tell_themselves(&calls);
            let mut watched = Self { view, writer, calls };
            watched.list(miners);
            watched
        }

        fn list(&mut self, miners: impl IntoIterator<Item = Miner>) {
            self.show(Event::Init);
            for miner in miners {
                self.show(Event::InitApply(miner));
            }
            self.show(Event::InitDone);
        }

        fn show(&mut self, change: Event<Miner>) {
            self.view.take(change, &mut self.writer);
        }

        fn group(&self, group: &str) -> Vec<String> {
            self.view.group(group).iter().map(|miner| miner.name_any()).collect()
        }

        fn revision(&self, name: &str) -> Option<u64> {
            self.view.get("n", name).map(|miner| revision(&*miner))
        }

        fn called(&self) -> Vec<String> {
            self.calls.all().into_iter().map(|miner| miner.name).collect()
        }
    }

    #[tokio::test]
    async fn all_who_wait_for_the_first_list_go_on_when_it_is_there() {
        let view = Arc::new(View::new(|_: &mut Miner| {}, |_| None));
        let mut writer = view.writer.lock().take().unwrap();
        let wait = |view: Arc<View<Miner>>| tokio::spawn(async move { view.ready().await });
        let waiting = [wait(view.clone()), wait(view.clone())];
        tokio::task::yield_now().await;
        assert!(!view.is_ready());
        view.take(Event::Init, &mut writer);
        view.take(Event::InitDone, &mut writer);
        for one in waiting {
            tokio::time::timeout(Duration::from_secs(10), one).await.expect("it goes on").unwrap();
        }
        assert!(view.is_ready());
    }

    #[tokio::test]
    async fn a_write_is_seen_at_once_and_is_not_undone_by_what_the_watch_shows_of_before() {
        let mut watched = Watched::listed([miner("a", "1", 5, "x")]);
        watched.view.wrote(miner("a", "1", 8, "y"));
        assert_eq!(
            (watched.revision("a"), watched.group("x"), watched.group("y")),
            (Some(8), vec![], vec!["a".into()])
        );
        watched.show(Event::Apply(miner("a", "1", 7, "x")));
        assert_eq!((watched.revision("a"), watched.group("y")), (Some(8), vec!["a".into()]));
        watched.show(Event::Apply(miner("a", "1", 9, "x")));
        assert_eq!(
            (watched.revision("a"), watched.group("x"), watched.group("y")),
            (Some(9), vec!["a".into()], vec![])
        );
    }

    #[tokio::test]
    async fn an_answer_that_comes_after_what_followed_it_is_no_news() {
        let mut watched = Watched::listed([]);
        watched.show(Event::Apply(miner("a", "1", 5, "x")));
        watched.show(Event::Delete(miner("a", "1", 6, "x")));
        watched.view.wrote(miner("a", "1", 5, "x"));
        assert_eq!((watched.revision("a"), watched.group("x")), (None, vec![]));
    }

    #[tokio::test]
    async fn what_is_said_to_be_gone_is_gone_until_another_takes_its_name() {
        let mut watched = Watched::listed([miner("a", "1", 5, "x")]);
        watched.view.is_gone(&miner("a", "other", 5, "x"));
        assert_eq!(watched.revision("a"), Some(5));
        watched.view.is_gone(&miner("a", "1", 5, "x"));
        watched.show(Event::Apply(miner("a", "1", 6, "x")));
        assert_eq!((watched.revision("a"), watched.group("x")), (None, vec![]));
        watched.show(Event::Delete(miner("a", "1", 7, "x")));
        watched.show(Event::Apply(miner("a", "2", 8, "x")));
        assert_eq!((watched.revision("a"), watched.group("x")), (Some(8), vec!["a".into()]));
    }

    #[tokio::test]
    async fn what_takes_the_name_of_something_that_went_is_seen_before_the_watch_tells_of_either() {
        let mut watched = Watched::listed([miner("a", "1", 5, "x")]);
        watched.view.is_gone(&miner("a", "1", 5, "x"));
        watched.view.wrote(miner("a", "2", 8, "x"));
        assert_eq!((watched.revision("a"), watched.group("x")), (Some(8), vec!["a".into()]));
        watched.show(Event::Apply(miner("a", "1", 6, "x")));
        watched.show(Event::Delete(miner("a", "1", 7, "x")));
        assert_eq!((watched.revision("a"), watched.group("x")), (Some(8), vec!["a".into()]));
        watched.show(Event::Apply(miner("a", "2", 8, "x")));
        watched.show(Event::Delete(miner("a", "2", 9, "x")));
        assert_eq!((watched.revision("a"), watched.group("x")), (None, vec![]));
    }

    #[tokio::test]
    async fn a_list_tells_of_those_that_went_and_replaces_everything() {
        let mut watched = Watched::listed([miner("a", "1", 5, "x"), miner("b", "2", 6, "x")]);
        watched.called();
        // A store that was set back counts from the beginning.
        watched.list([miner("a", "1", 2, "y")]);
        assert_eq!(watched.called(), ["b", "a"]);
        assert_eq!((watched.revision("a"), watched.revision("b"), watched.group("x")), (Some(2), None, vec![]));
        watched.view.wrote(miner("c", "3", 3, "y"));
        assert_eq!(watched.group("y"), ["a", "c"]);
    }

    #[tokio::test]
    async fn nobody_is_told_of_its_own_writes() {
        let mut watched = Watched::listed([miner("a", "1", 5, "x")]);
        watched.called();
        watched.view.wrote_own(miner("a", "1", 6, "x"));
        watched.show(Event::Apply(miner("a", "1", 6, "x")));
        assert_eq!(watched.called(), [""; 0]);
        watched.view.wrote(miner("a", "1", 7, "x"));
        watched.show(Event::Apply(miner("a", "1", 7, "x")));
        assert_eq!(watched.called(), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_all_the_time_is_looked_at_now_and_then() {
        let calls = Calls::<Miner>::new();
        let name = || [ObjectRef::new("a")];
        calls.call(name());
        let mut answered = std::pin::pin!(calls.clone().answer(Duration::from_millis(100)));
        let start = Instant::now();
        answered.next().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            calls.call(name());
        }
        answered.next().await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        assert!(futures::poll!(answered.next()).is_pending());
    }
}
