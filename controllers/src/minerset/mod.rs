//! A MinerSet keeps a number of Miners that are alike. Step 8 of `kubectl apply -f minerset.yaml`.

pub(crate) mod plan;
mod rank;
mod report;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, ListParams, Patch, Preconditions};
use kube::core::SelectorExt;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use onex_crds::conditions::{self, OWNER_REMEDIATED};
use onex_crds::{Condition, Miner, MinerSet, names};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::context::{Context, News, members_of};
use crate::error::{Error, Result, is_gone, is_taken, words};
use crate::report::{params, post};
use crate::{is_paused, may_adopt, namespace};
use plan::{Plan, Seen};

/// How often a set that is not complete is looked at, besides when something changes.
const IMPATIENCE: Duration = Duration::from_secs(15);
/// How many Miners are written at the same time for one set.
const AT_ONCE: usize = 64;
/// How many Miners are created before it is known whether any can be. Twice as many follow each time that all could.
const FIRST_FEW: usize = 8;

/// What came of a plan.
#[derive(Debug, Default)]
struct Outcome {
    /// The Miners of the set by name, as the apiserver last answered.
    miners: BTreeMap<String, Arc<Miner>>,
    /// Why Miners could not be created, if so.
    not_created: Option<String>,
    /// The first thing that went wrong; the pass is tried again.
    error: Option<Error>,
}

/// One pass over one MinerSet, and a word to people when it failed.
pub(crate) async fn reconcile(set: Arc<MinerSet>, context: Arc<Context>) -> Result<Action> {
    let set = admitted((*context.views.sets.freshest(set)).clone());
    let passed = pass(&set, &context).await;
    // A stale view is nobody's business: the next pass will see.
    if let Err(error) = &passed
        && !error.is_stale()
    {
        context.tell(&set.object_ref(&()), &News::warning("ReconcileError", error.story())).await;
    }
    passed
}

/// The set as our apiserver would have stored it. Another Kubernetes knows no admission of ours, and there it selects nothing.
fn admitted(mut set: MinerSet) -> MinerSet {
    onex_crds::minerset::admit(&mut set);
    set
}

async fn pass(set: &MinerSet, context: &Context) -> Result<Action> {
    if is_paused(set) {
        return Ok(Action::await_change());
    }
    let seen = observe(set, context).await?;
    let now = context.clock.now();
    if plan::is_deleting(set) {
        // The Miners go by their owner references; what is left to do is to say so.
        let outcome = Outcome::of(plan::claim(set, &seen.miners).0);
        report(set, &report::status(set, &seen, &outcome, now), context).await?;
        return Ok(Action::await_change());
    }
    let plan = plan::plan(set, &seen, context.settings.batch.max(1), now);
    let set = mark(set, plan.mark.as_ref(), context).await?;
    let outcome = act(&set, &plan, &seen, context).await?;
    let status = report::status(&set, &seen, &outcome, now);
    warn_of_type(&set, &seen, context).await;
    report(&set, &status, context).await?;
    match outcome.error {
        Some(error) => Err(error),
        None if plan.more => Ok(Action::requeue(Duration::ZERO)),
        None => Ok(context.settings.next_look(report::next_look(&set, &status, &outcome, now))),
    }
}

async fn observe(set: &MinerSet, context: &Context) -> Result<Seen> {
    let spec = &set.spec.template.spec;
    let chain = context.chain(&spec.chain_name).await?;
    let chain = chain.map(|chain| crate::miner::pod::chain_settings(&chain, &context.settings));
    let share = context.settings.types.get(&spec.miner_type).cloned();
    Ok(Seen { chain, share, miners: members(set, context).await? })
}

/// The Miners that the set selects, which is always by its name.
async fn members(set: &MinerSet, context: &Context) -> Result<Vec<Arc<Miner>>> {
    let views = &context.views;
    if views.miners.is_ready() {
        return Ok(views.miners.group(&members_of(namespace(set)?, &set.name_any())));
    }
    let parameters = ListParams::default().labels(&set.selector_text());
    let listed = miners(set, context)?.list(&parameters).await.map_err(Error::doing("list the Miners of the set"))?;
    Ok(listed.items.into_iter().map(Arc::new).collect())
}

async fn mark(set: &MinerSet, mark: Option<&Value>, context: &Context) -> Result<MinerSet> {
    let Some(mark) = mark else { return Ok(set.clone()) };
    let patch = Patch::Merge(json!({"metadata": mark}));
    let marked = api(set, context)?.patch(&set.name_any(), &params(), &patch).await;
    let marked = marked.map_err(Error::changing("mark the MinerSet"))?;
    Ok(admitted((*context.views.sets.wrote_own(marked)).clone()))
}

async fn report(set: &MinerSet, status: &onex_crds::MinerSetStatus, context: &Context) -> Result<()> {
    if let Some(written) = crate::report::written(&api(set, context)?, set, status).await? {
        context.views.sets.wrote_own(written);
    }
    Ok(())
}

/// Told once: the status remembers it.
async fn warn_of_type(set: &MinerSet, seen: &Seen, context: &Context) {
    let told = set.status.as_ref().and_then(|status| status.failure_message.as_ref());
    let message = report::unknown_type(set);
    if seen.share.is_none() && told != Some(&message) {
        context.tell(&set.object_ref(&()), &News::warning("MinerTypeUnsupported", message)).await;
    }
}

async fn act(set: &MinerSet, plan: &Plan, seen: &Seen, context: &Context) -> Result<Outcome> {
    if !plan.adopt.is_empty() {
        may_adopt(&api(set, context)?, set).await?;
    }
    let api = miners(set, context)?;
    let me = set.object_ref(&());
    let mut outcome = Outcome::of(plan::claim(set, &seen.miners).0);
    change(&api, &me, plan, &mut outcome, context).await;
    delete(&api, &me, plan, &mut outcome, context).await;
    create(&api, &me, set, seen, plan, &mut outcome, context).await;
    Ok(outcome)
}

async fn change(api: &Api<Miner>, me: &ObjectReference, plan: &Plan, outcome: &mut Outcome, context: &Context) {
    let answers = plan.change.clone().into_iter().map(|(name, patch)| {
        let api = api.clone();
        aside(async move {
            let answer = api.patch(&name, &params(), &Patch::Merge(patch)).await;
            (name, answer)
        })
    });
    for (name, answer) in stream::iter(answers).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        let adopted = plan.adopt.contains(&name);
        match answer {
            Ok(miner) => {
                if adopted {
                    let news = News::normal("SuccessfulAdopt", format!("adopted miner {name}"));
                    context.tell(me, &news.about(miner.object_ref(&()))).await;
                }
                outcome.saw(context.views.miners.wrote(miner));
            }
            Err(error) if is_gone(&error) => outcome.lost(&name, context),
            Err(error) => {
                let why = format!("could not adopt miner {name}: {}", words(&error));
                let error = Error::doing("change a Miner")(error);
                if adopted {
                    outcome.miners.remove(&name);
                    // That somebody else was faster is nobody's business.
                    if !error.is_stale() {
                        context.tell(me, &News::warning("FailedAdopt", why)).await;
                    }
                }
                outcome.failed(error);
            }
        }
    }
}

async fn delete(api: &Api<Miner>, me: &ObjectReference, plan: &Plan, outcome: &mut Outcome, context: &Context) {
    let there = plan.delete.iter().filter_map(|name| outcome.miners.get(name));
    let uids: Vec<(String, Option<String>)> = there.map(|miner| (miner.name_any(), miner.uid())).collect();
    let answers = uids.into_iter().map(|(name, uid)| {
        let api = api.clone();
        aside(async move {
            // By uid, so that a Miner that took the name meanwhile is not the one that goes.
            let only = Preconditions { uid, resource_version: None };
            let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
            let answer = api.delete(&name, &parameters).await;
            (name, answer)
        })
    });
    for (name, answer) in stream::iter(answers).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        match answer {
            Ok(either) => {
                let news = News::normal("SuccessfulDelete", format!("deleted miner {name}"));
                context.tell(me, &news.about(reference(me, &name))).await;
                match either.left().filter(plan::is_deleting) {
                    Some(miner) => {
                        let remediated = plan.remediate.contains(&name);
                        let miner = if remediated { remediated_by(api, miner, context).await } else { miner };
                        outcome.saw(context.views.miners.wrote(miner));
                    }
                    None => outcome.lost(&name, context),
                }
            }
            Err(error) if is_gone(&error) => outcome.lost(&name, context),
            Err(error) => {
                let why = format!("could not delete miner {name}: {}", words(&error));
                let error = Error::doing("delete a Miner")(error);
                if !error.is_stale() {
                    context.tell(me, &News::warning("FailedDelete", why)).await;
                }
                outcome.failed(error);
            }
        }
    }
}

/// Tells the health check that its wish was fulfilled. If that cannot be written, the Miner goes all the same.
async fn remediated_by(api: &Api<Miner>, miner: Miner, context: &Context) -> Miner {
    let mut status = miner.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, Condition::yes(OWNER_REMEDIATED), context.clock.now());
    match crate::report::written(api, &miner, &status).await {
        Ok(written) => written.unwrap_or(miner),
        Err(error) => {
            tracing::debug!(miner = miner.name_any(), error = error.story(), "could not mark a remediated miner");
            miner
        }
    }
}

async fn create(
    api: &Api<Miner>,
    me: &ObjectReference,
    set: &MinerSet,
    seen: &Seen,
    plan: &Plan,
    outcome: &mut Outcome,
    context: &Context,
) {
    let child = |slot: usize| {
        let mut child = plan::child(set, slot, seen);
        if plan.surge.contains(&slot) {
            child.annotations_mut().insert(names::ANNOTATION_DELETE_MINER.to_owned(), String::new());
        }
        child
    };
    let (mut spare, mut wanted, mut together) = (plan.spare.iter(), &plan.create[..], FIRST_FEW);
    // What is refused is refused to all: a quota that is used up is not asked hundreds of times.
    let mut refused = false;
    while !wanted.is_empty() && !refused {
        let (few, rest) = wanted.split_at(together.min(wanted.len()));
        (wanted, together) = (rest, together * 2);
        let children: Vec<Miner> = few.iter().map(|slot| child(*slot)).collect();
        let answers = children.into_iter().map(|child| aside(create_one(api.clone(), child)));
        // In order, so that of several failures the same is told every time: the status stays as it is.
        let mut answers = stream::iter(answers).buffered(AT_ONCE).collect::<VecDeque<_>>().await;
        while let Some(answer) = answers.pop_front() {
            match answer {
                Ok(Created::Made(miner)) => {
                    let news = News::normal("SuccessfulCreate", format!("created miner {}", miner.name_any()));
                    context.tell(me, &news.about(miner.object_ref(&()))).await;
                    outcome.saw(context.views.miners.wrote(*miner));
                }
                Ok(Created::There(miner)) if is_of(set, &miner) => outcome.saw(context.views.miners.wrote(*miner)),
                // The selector cannot see who holds the name, so the plan could not know.
                Ok(Created::There(_)) => match spare.next() {
                    Some(slot) => answers.push_back(create_one(api.clone(), child(*slot)).await),
                    None => outcome.failed(Error::Stale { doing: "find a free name for a Miner" }),
                },
                Err((name, error)) => {
                    let why = format!("could not create miner {name}: {}", words(&error));
                    let error = Error::doing("create a Miner")(error);
                    refused = true;
                    if !error.is_stale() {
                        outcome.not_created.get_or_insert(why);
                    }
                    outcome.failed(error);
                }
            }
        }
    }
    if let Some(why) = &outcome.not_created {
        context.tell(me, &News::warning("FailedCreate", why.as_str())).await;
    }
}

/// How an attempt to create a Miner ended.
enum Created {
    /// It is new.
    Made(Box<Miner>),
    /// One of that name was there already.
    There(Box<Miner>),
}

async fn create_one(api: Api<Miner>, child: Miner) -> Result<Created, (String, kube::Error)> {
    let name = child.name_any();
    match api.create(&post(), &child).await {
        Ok(miner) => Ok(Created::Made(Box::new(miner))),
        Err(taken) if is_taken(&taken) => match api.get_opt(&name).await {
            Ok(Some(miner)) => Ok(Created::There(Box::new(miner))),
            Ok(None) => Err((name, taken)), // the next pass finds it free
            Err(error) => Err((name, error)),
        },
        Err(error) => Err((name, error)),
    }
}

/// Does `work` in a task of its own, so that many of them use all of the machine. It ends with this future.
async fn aside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match AbortOnDropHandle::new(tokio::spawn(work)).await {
        Ok(done) => done,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}

fn is_of(set: &MinerSet, miner: &Miner) -> bool {
    let selected = kube::core::Selector::try_from(set.spec.selector.clone())
        .is_ok_and(|selector| selector.matches(miner.labels()));
    selected && plan::claim(set, &[Arc::new(miner.clone())]).0.len() == 1
}

/// A Miner of the set, by name alone.
fn reference(set: &ObjectReference, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(Miner::api_version(&()).into_owned()),
        kind: Some(Miner::kind(&()).into_owned()),
        name: Some(name.to_owned()),
        namespace: set.namespace.clone(),
        ..ObjectReference::default()
    }
}

impl Outcome {
    /// Nothing has come of anything yet, and these are the Miners.
    fn of(miners: Vec<Arc<Miner>>) -> Self {
        let miners = miners.into_iter().map(|miner| (miner.name_any(), miner)).collect();
        Self { miners, ..Self::default() }
    }

    fn miners(&self) -> impl Iterator<Item = &Miner> {
        self.miners.values().map(|miner| &**miner)
    }

    /// Takes in what the apiserver answered about one Miner.
    fn saw(&mut self, miner: Arc<Miner>) {
        self.miners.insert(miner.name_any(), miner);
    }

    /// Takes in that the Miner of this name is gone.
    fn lost(&mut self, name: &str, context: &Context) {
        if let Some(miner) = self.miners.remove(name) {
            context.views.miners.is_gone(&miner);
        }
    }

    fn failed(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

fn api(set: &MinerSet, context: &Context) -> Result<Api<MinerSet>> {
    Ok(Api::namespaced(context.apiserver.clone(), namespace(set)?))
}

fn miners(set: &MinerSet, context: &Context) -> Result<Api<Miner>> {
    Ok(Api::namespaced(context.apiserver.clone(), namespace(set)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::context::SystemClock;
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::Event;
    use onex_crds::conditions::{self, POD_HEALTHY, READY};
    use onex_crds::{Kind, MinerSetSpec, MinerSpec, MinerStatus, minerset};

    pub(crate) fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The set `a` of the chain `genesis`, as the apiserver stores it.
    pub(crate) fn minerset(replicas: i32) -> MinerSet {
        let mut set = MinerSet::new("a", MinerSetSpec { replicas: Some(replicas), ..MinerSetSpec::default() });
        set.metadata.namespace = Some("user-admin".to_owned());
        set.metadata.uid = Some("set-uid".to_owned());
        set.metadata.generation = Some(1);
        set.labels_mut().insert(names::LABEL_CHAIN_NAME.to_owned(), "genesis".to_owned());
        set.spec.template.spec.chain_name = "genesis".to_owned();
        set.fill();
        minerset::admit(&mut set);
        set
    }

    /// A Miner of nobody that has worked since second 10.
    pub(crate) fn healthy(name: &str) -> Miner {
        let mut miner = Miner::new(name, MinerSpec { chain_name: "genesis".to_owned(), ..MinerSpec::default() });
        miner.fill();
        let mut conditions = Vec::new();
        conditions::set(&mut conditions, Condition::yes(POD_HEALTHY), second(10));
        conditions::set(&mut conditions, Condition::yes(READY), second(10));
        miner.status = Some(MinerStatus { pod_ref: Some(Default::default()), conditions, ..MinerStatus::default() });
        miner
    }

    #[tokio::test]
    async fn a_set_that_went_after_it_was_seen_adopts_nobody() {
        let (client, _stop) = crate::tests::a_platform().await;
        let sets = Api::<MinerSet>::namespaced(client.clone(), "user-admin");
        let miners = Api::<Miner>::namespaced(client.clone(), "user-admin");
        let mut orphan = plan::child(&minerset(1), 0, &Seen::default());
        orphan.metadata.owner_references = None;
        miners.create(&Default::default(), &orphan).await.unwrap();
        let context = Arc::new(Context::new(Default::default(), client, None, Arc::new(SystemClock)));
        let pass = |seen: &MinerSet| reconcile(Arc::new(seen.clone()), context.clone());

        let seen = minerset(1);
        assert!(pass(&seen).await.unwrap_err().is_stale(), "it is gone");
        let mut again = minerset(1);
        again.metadata.uid = None;
        again.metadata.finalizers = Some(vec!["test.onex.io/hold".to_owned()]);
        let again = sets.create(&Default::default(), &again).await.unwrap();
        assert!(pass(&seen).await.unwrap_err().is_stale(), "another one has its name");
        sets.delete("a", &Default::default()).await.unwrap();
        assert!(pass(&again).await.unwrap_err().is_stale(), "it is going");
        assert_eq!(miners.get("a-0").await.unwrap().controller(), None);
    }

    #[tokio::test]
    async fn that_somebody_else_was_faster_to_adopt_is_nothing_to_warn_of() {
        let (client, _stop) = crate::tests::a_platform().await;
        let miners = Api::<Miner>::namespaced(client.clone(), "user-admin");
        let orphan = miners.create(&Default::default(), &plan::child(&minerset(1), 0, &Seen::default())).await.unwrap();
        miners.patch("a-0", &params(), &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}))).await.unwrap();
        let patch = json!({"metadata": {"resourceVersion": orphan.resource_version(), "labels": {"a": "c"}}});
        let adopt = ["a-0".to_owned()];
        let plan = Plan { change: vec![("a-0".to_owned(), patch)], adopt: adopt.into(), ..Plan::default() };
        let context = Context::new(Default::default(), client.clone(), None, Arc::new(SystemClock));
        let mut outcome = Outcome::of(vec![Arc::new(orphan)]);
        change(&miners, &minerset(1).object_ref(&()), &plan, &mut outcome, &context).await;
        assert!(outcome.error.unwrap().is_stale());
        assert!(outcome.miners.is_empty(), "it counts as ours");
        let events = Api::<Event>::namespaced(client, "user-admin").list(&Default::default()).await.unwrap();
        assert_eq!(events.items, []);
    }
}
