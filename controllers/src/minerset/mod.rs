//! A MinerSet keeps a number of Miners that are alike. Step 8 of `kubectl apply -f minerset.yaml`.

pub(crate) mod plan;
mod rank;
mod report;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, ListParams, Patch, PostParams, Preconditions};
use kube::core::SelectorExt;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use onex_crds::conditions::{self, OWNER_REMEDIATED};
use onex_crds::{CHAIN_NAMESPACE, Chain, Condition, Miner, MinerSet};
use serde_json::{Value, json};

use crate::context::{Context, News};
use crate::error::{Error, Result, is_gone, is_taken, words};
use crate::report::params;
use crate::{is_paused, may_adopt, namespace};
use plan::{Plan, Seen};

/// How often a set that is not complete is looked at, besides when something changes.
const IMPATIENCE: Duration = Duration::from_secs(15);
/// How many Miners are written at the same time for one set.
const AT_ONCE: usize = 8;

/// What came of a plan.
#[derive(Debug, Default)]
struct Outcome {
    /// The Miners of the set, as the apiserver last answered.
    miners: Vec<Miner>,
    /// Why Miners could not be created, if so.
    not_created: Option<String>,
    /// The first thing that went wrong; the pass is tried again.
    error: Option<Error>,
}

/// One pass over one MinerSet, and a word to people when it failed.
pub(crate) async fn reconcile(set: Arc<MinerSet>, context: Arc<Context>) -> Result<Action> {
    let set = admitted((*set).clone());
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
        let outcome = Outcome { miners: plan::claim(set, &seen.miners).0, ..Outcome::default() };
        let status = report::status(set, seen.chain, &outcome, now);
        crate::report::status(&api(set, context)?, set, &status).await?;
        return Ok(Action::await_change());
    }
    let plan = plan::plan(set, &seen, context.settings.batch.max(1), now);
    let set = mark(set, plan.mark.as_ref(), context).await?;
    let outcome = act(&set, &plan, &seen, context).await?;
    let status = report::status(&set, seen.chain, &outcome, now);
    crate::report::status(&api(&set, context)?, &set, &status).await?;
    match outcome.error {
        Some(error) => Err(error),
        None if plan.more => Ok(Action::requeue(Duration::ZERO)),
        None => Ok(context.settings.next_look(report::next_look(&set, &status, &outcome.miners, now))),
    }
}

async fn observe(set: &MinerSet, context: &Context) -> Result<Seen> {
    let chains: Api<Chain> = Api::namespaced(context.apiserver.clone(), CHAIN_NAMESPACE);
    let chain = chains.get_opt(&set.spec.template.spec.chain_name).await.map_err(Error::doing("look for the Chain"))?;
    let selector = set.selector_text();
    if selector.is_empty() {
        // An empty selector would select the Miners of everybody.
        return Ok(Seen { chain: chain.is_some(), miners: Vec::new() });
    }
    let listed = miners(set, context)?.list(&ListParams::default().labels(&selector)).await;
    Ok(Seen { chain: chain.is_some(), miners: listed.map_err(Error::doing("list the Miners of the set"))?.items })
}

async fn mark(set: &MinerSet, mark: Option<&Value>, context: &Context) -> Result<MinerSet> {
    let Some(mark) = mark else { return Ok(set.clone()) };
    let patch = Patch::Merge(json!({"metadata": mark}));
    let marked = api(set, context)?.patch(&set.name_any(), &params(), &patch).await;
    marked.map(admitted).map_err(Error::changing("mark the MinerSet"))
}

async fn act(set: &MinerSet, plan: &Plan, seen: &Seen, context: &Context) -> Result<Outcome> {
    if !plan.adopt.is_empty() {
        may_adopt(&api(set, context)?, set).await?;
    }
    let api = miners(set, context)?;
    let me = set.object_ref(&());
    let (claimed, _) = plan::claim(set, &seen.miners);
    let mut outcome = Outcome { miners: claimed, ..Outcome::default() };
    change(&api, &me, plan, &mut outcome, context).await;
    delete(&api, &me, plan, &mut outcome, context).await;
    create(&api, &me, set, plan, &mut outcome, context).await;
    Ok(outcome)
}

async fn change(api: &Api<Miner>, me: &ObjectReference, plan: &Plan, outcome: &mut Outcome, context: &Context) {
    let answers = stream::iter(plan.change.clone())
        .map(|(name, patch)| async move {
            let answer = api.patch(&name, &params(), &Patch::Merge(patch)).await;
            (name, answer)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>();
    for (name, answer) in answers.await {
        let adopted = plan.adopt.contains(&name);
        match answer {
            Ok(miner) => {
                if adopted {
                    context
                        .tell(
                            me,
                            &News::normal("SuccessfulAdopt", format!("adopted miner {name}"))
                                .about(miner.object_ref(&())),
                        )
                        .await;
                }
                outcome.saw(miner);
            }
            Err(error) if is_gone(&error) => outcome.miners.retain(|miner| miner.name_any() != name),
            Err(error) => {
                let why = format!("could not adopt miner {name}: {}", words(&error));
                let error = Error::doing("change a Miner")(error);
                if adopted {
                    outcome.miners.retain(|miner| miner.name_any() != name);
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
    let uids: Vec<(String, Option<String>)> = outcome
        .miners
        .iter()
        .filter(|miner| plan.delete.contains(&miner.name_any()))
        .map(|miner| (miner.name_any(), miner.uid()))
        .collect();
    let answers = stream::iter(uids)
        .map(|(name, uid)| async move {
            // By uid, so that a Miner that took the name meanwhile is not the one that goes.
            let only = Preconditions { uid, resource_version: None };
            let answer =
                api.delete(&name, &DeleteParams { preconditions: Some(only), ..DeleteParams::default() }).await;
            (name, answer)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>();
    for (name, answer) in answers.await {
        match answer {
            Ok(either) => {
                context
                    .tell(
                        me,
                        &News::normal("SuccessfulDelete", format!("deleted miner {name}")).about(reference(me, &name)),
                    )
                    .await;
                match either.left() {
                    Some(miner) if plan.remediate.contains(&name) => outcome.saw(remediated(api, miner, context).await),
                    Some(miner) if plan::is_deleting(&miner) => outcome.saw(miner),
                    _ => outcome.miners.retain(|miner| miner.name_any() != name),
                }
            }
            Err(error) if is_gone(&error) => outcome.miners.retain(|miner| miner.name_any() != name),
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
async fn remediated(api: &Api<Miner>, mut miner: Miner, context: &Context) -> Miner {
    let mut status = miner.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, Condition::yes(OWNER_REMEDIATED), context.clock.now());
    if let Err(error) = crate::report::status(api, &miner, &status).await {
        tracing::debug!(miner = miner.name_any(), error = error.story(), "could not mark a remediated miner");
    }
    miner.status = Some(status);
    miner
}

async fn create(
    api: &Api<Miner>,
    me: &ObjectReference,
    set: &MinerSet,
    plan: &Plan,
    outcome: &mut Outcome,
    context: &Context,
) {
    let answers = stream::iter(plan.create.clone())
        .map(|slot| create_one(api, plan::child(set, slot)))
        // In order, so that of several failures the same is told every time: the status stays as it is.
        .buffered(AT_ONCE)
        .collect::<VecDeque<_>>();
    let mut spare = plan.spare.iter();
    let mut answers = answers.await;
    while let Some(answer) = answers.pop_front() {
        match answer {
            Ok(Created::Made(miner)) => {
                let news = News::normal("SuccessfulCreate", format!("created miner {}", miner.name_any()));
                context.tell(me, &news.about(miner.object_ref(&()))).await;
                outcome.saw(*miner);
            }
            Ok(Created::There(miner))
                if plan::claim(set, std::slice::from_ref(&*miner)).0.len() == 1 && is_selected(set, &miner) =>
            {
                outcome.saw(*miner)
            }
            // The selector cannot see who holds the name, so the plan could not know.
            Ok(Created::There(_)) => match spare.next() {
                Some(slot) => answers.push_back(create_one(api, plan::child(set, *slot)).await),
                None => outcome.failed(Error::Stale { doing: "find a free name for a Miner" }),
            },
            Err((name, error)) => {
                let why = format!("could not create miner {name}: {}", words(&error));
                let error = Error::doing("create a Miner")(error);
                if !error.is_stale() {
                    outcome.not_created.get_or_insert(why);
                }
                outcome.failed(error);
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

async fn create_one(api: &Api<Miner>, child: Miner) -> Result<Created, (String, kube::Error)> {
    let name = child.name_any();
    let post = PostParams { field_manager: params().field_manager, ..PostParams::default() };
    match api.create(&post, &child).await {
        Ok(miner) => Ok(Created::Made(Box::new(miner))),
        Err(taken) if is_taken(&taken) => match api.get_opt(&name).await {
            Ok(Some(miner)) => Ok(Created::There(Box::new(miner))),
            Ok(None) => Err((name, taken)), // the next pass finds it free
            Err(error) => Err((name, error)),
        },
        Err(error) => Err((name, error)),
    }
}

fn is_selected(set: &MinerSet, miner: &Miner) -> bool {
    kube::core::Selector::try_from(set.spec.selector.clone()).is_ok_and(|selector| selector.matches(miner.labels()))
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
    /// Takes in what the apiserver answered about one Miner.
    fn saw(&mut self, miner: Miner) {
        match self.miners.iter_mut().find(|there| there.name_any() == miner.name_any()) {
            Some(there) => *there = miner,
            None => self.miners.push(miner),
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
    use onex_crds::{Kind, MinerSetSpec, MinerSpec, MinerStatus, minerset, names};

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
        let mut orphan = plan::child(&minerset(1), 0);
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
        let orphan = miners.create(&Default::default(), &plan::child(&minerset(1), 0)).await.unwrap();
        miners.patch("a-0", &params(), &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}))).await.unwrap();
        let patch = json!({"metadata": {"resourceVersion": orphan.resource_version(), "labels": {"a": "c"}}});
        let adopt = ["a-0".to_owned()];
        let plan = Plan { change: vec![("a-0".to_owned(), patch)], adopt: adopt.into(), ..Plan::default() };
        let context = Context::new(Default::default(), client.clone(), None, Arc::new(SystemClock));
        let mut outcome = Outcome { miners: vec![orphan], ..Outcome::default() };
        change(&miners, &minerset(1).object_ref(&()), &plan, &mut outcome, &context).await;
        assert!(outcome.error.unwrap().is_stale());
        assert_eq!(outcome.miners, [], "it counts as ours");
        let events = Api::<Event>::namespaced(client, "user-admin").list(&Default::default()).await.unwrap();
        assert_eq!(events.items, []);
    }
}
