//! What Pods get that say nothing of it: a priority, and patience with nodes in trouble.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admit, Operation, Review};
use crate::{
    registry::{Part, Registry, about},
    status::{Result, Status},
};

/// What a node in trouble is tainted with.
const TROUBLES: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// For how long a Pod stays on such a node.
const PATIENCE_SECONDS: i64 = 300;

/// Whether a new Pod, or a change of one, is written; and no part of it.
fn writes_pod(review: &Review<'_>) -> bool {
    review.kind.group.is_empty()
        && review.kind.plural == "pods"
        && review.part == Part::Main
        && review.operation != Operation::Delete
}

/// Gives Pods the priority of their class, and lets only one class be that of Pods that name none.
pub(super) struct Priority;

#[async_trait]
impl Admit for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, review: &mut Review<'_>, registry: &Registry) -> Result<()> {
        let kind = review.kind;
        if kind.group == "scheduling.k8s.io" && review.operation != Operation::Delete {
            return hold_only_default(review, registry);
        }
        if !writes_pod(review) {
            return Ok(());
        }
        let Some(pod) = review.object.as_deref_mut().filter(|pod| pod["spec"].is_object()) else { return Ok(()) };
        if let Some(old) = review.old {
            for field in ["priority", "preemptionPolicy"] {
                if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
                    pod["spec"][field] = old["spec"][field].clone();
                }
            }
            return Ok(());
        }
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let forbidden = |why: String| Err(Status::forbidden(about(kind, &name), why));
        let spec = &mut pod["spec"];
        let class = match spec["priorityClassName"].as_str().unwrap_or_default() {
            "" => match usual(registry) {
                Some(class) => {
                    spec["priorityClassName"] = class["metadata"]["name"].clone();
                    class
                }
                None => json!({"value": 0, "preemptionPolicy": "PreemptLowerPriority"}),
            },
            named => match classes(registry).find(|class| class["metadata"]["name"] == named) {
                Some(class) => class,
                None => return forbidden(format!("no PriorityClass with name {named} was found")),
            },
        };
        let (priority, said) = (class["value"].as_i64().unwrap_or(0), &spec["priority"]);
        if said.as_i64().is_some_and(|said| said != priority) {
            return forbidden(format!(
                "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller \
                 computed {priority} from the given PriorityClass name"
            ));
        }
        let (policy, said) = (class["preemptionPolicy"].as_str(), spec["preemptionPolicy"].as_str());
        if let (Some(policy), Some(said)) = (policy, said.filter(|said| Some(*said) != policy)) {
            return forbidden(format!(
                "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            ));
        }
        spec["priority"] = priority.into();
        if let Some(policy) = policy {
            spec["preemptionPolicy"] = policy.into();
        }
        Ok(())
    }
}

fn classes(registry: &Registry) -> impl Iterator<Item = Value> {
    let kind = registry.kinds().find("scheduling.k8s.io", "v1", "priorityclasses").expect("it is compiled in");
    let snapshot = registry.window(&kind).snapshot();
    snapshot.items.into_iter().map(|(_, item)| item.value())
}

/// The class of Pods that name none; of several, the least.
fn usual(registry: &Registry) -> Option<Value> {
    classes(registry).filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64())
}

fn hold_only_default(review: &Review<'_>, registry: &Registry) -> Result<()> {
    let Some(class) = review.object.as_deref().filter(|class| class["globalDefault"] == true) else { return Ok(()) };
    let name = &class["metadata"]["name"];
    match usual(registry).map(|usual| usual["metadata"]["name"].clone()).filter(|usual| usual != name) {
        None => Ok(()),
        Some(other) => {
            let other = other.as_str().unwrap_or_default().to_owned();
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(Status::forbidden(about(review.kind, name.as_str().unwrap_or_default()), why))
        }
    }
}

/// Lets Pods stay for a while on a node that is in trouble.
pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Admit for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, review: &mut Review<'_>, _: &Registry) -> Result<()> {
        if !writes_pod(review) {
            return Ok(());
        }
        if let Some(spec) = review.object.as_deref_mut().and_then(|pod| pod["spec"].as_object_mut()) {
            let said = spec.get("tolerations").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let more: Vec<Value> = TROUBLES
                .into_iter()
                .filter(|trouble| !said.iter().any(|toleration| tolerates(toleration, trouble)))
                .map(|trouble| {
                    json!({"key": trouble, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": PATIENCE_SECONDS})
                })
                .collect();
            match spec.get_mut("tolerations") {
                _ if more.is_empty() => {}
                Some(Value::Array(tolerations)) => tolerations.extend(more),
                None | Some(Value::Null) => drop(spec.insert("tolerations".to_owned(), more.into())),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn tolerates(toleration: &Value, trouble: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    (text("key").is_empty() || text("key") == trouble) && matches!(text("effect"), "" | "NoExecute")
}
