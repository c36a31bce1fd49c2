//! LimitRanges: what asks for nothing gets the usual, and nobody asks for more, or less, than they may.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Admit, Operation, Review, Validate, quota::demands};
use crate::{
    builtin::quantity::Amount,
    registry::{Part, Registry, about},
    status::{Result, Status},
    window::{Window, Windows},
};

/// Where LimitRanges are stored.
const PREFIX: &str = "/registry/limitranges/";
/// Where it is written what a Pod got.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// No refusal names more than this.
const MOST_COMPLAINTS: usize = 100;

/// The rule, which fills in and then refuses.
#[derive(Clone)]
pub(super) struct LimitRanger(Arc<Window>);

impl LimitRanger {
    /// # Panics
    /// If LimitRanges are not compiled in.
    pub(super) fn new(windows: &Windows) -> Self {
        Self(windows.of(PREFIX).expect("limit ranges are compiled in"))
    }

    /// What the namespace says of a kind of thing.
    fn limits(&self, namespace: &str, kinds: &[&str]) -> Vec<Value> {
        if self.0.count() == 0 {
            return Vec::new();
        }
        let snapshot = self.0.snapshot();
        let within = format!("{PREFIX}{namespace}/");
        let mut limits = Vec::new();
        for item in snapshot.range(&within, None) {
            let mut range = item.value();
            let all = range["spec"]["limits"].as_array_mut().map(std::mem::take).unwrap_or_default();
            limits.extend(all.into_iter().filter(|limit| kinds.iter().any(|kind| limit["type"] == *kind)));
        }
        limits
    }
}

#[async_trait]
impl Admit for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn admit(&self, review: &mut Review<'_>, _: &Registry) -> Result<()> {
        if !asks_of_containers(review) {
            return Ok(());
        }
        let limits = self.limits(review.namespace, &["Container"]);
        if let (false, Some(pod)) = (limits.is_empty(), review.object.as_deref_mut()) {
            fill(pod, &limits);
        }
        Ok(())
    }
}

#[async_trait]
impl Validate for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn validate(&self, review: &Review<'_>, _: &Registry) -> Result<()> {
        let kinds: &[&str] = match () {
            () if asks_of_containers(review) => &["Container", "Pod"],
            () if asks_for_storage(review) => &["PersistentVolumeClaim"],
            () => return Ok(()),
        };
        let Some(object) = review.object.as_deref() else { return Ok(()) };
        let wrong: Vec<String> =
            self.limits(review.namespace, kinds).iter().flat_map(|limit| complaints(limit, object)).collect();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match wrong.as_slice() {
            [] => Ok(()),
            [why] => Err(Status::forbidden(about(review.kind, name), why)),
            all => {
                let shown = all[..all.len().min(MOST_COMPLAINTS)].join(", ");
                Err(Status::forbidden(about(review.kind, name), format!("[{shown}]")))
            }
        }
    }
}

fn asks_of_containers(review: &Review<'_>) -> bool {
    let may_ask = match review.operation {
        Operation::Create => review.part == Part::Main,
        Operation::Update => review.part == Part::Resize,
        Operation::Delete => false,
    };
    may_ask && review.kind.group.is_empty() && review.kind.plural == "pods"
}

fn asks_for_storage(review: &Review<'_>) -> bool {
    let kind = review.kind;
    kind.group.is_empty()
        && kind.plural == "persistentvolumeclaims"
        && review.part == Part::Main
        && review.operation != Operation::Delete
}

/// Gives containers what they do not ask for, and writes down what that was.
fn fill(pod: &mut Value, limits: &[Value]) {
    let mut given = Vec::new();
    for (containers, called) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            if !matches!(container["resources"], Value::Object(_) | Value::Null) {
                continue;
            }
            // Limits first: what is given of both is told in the other order.
            let limited = give(container, "limits", limits, "default");
            let requested = give(container, "requests", limits, "defaultRequest");
            for (names, what) in [(requested, "request"), (limited, "limit")] {
                if !names.is_empty() {
                    given.push(format!("{} {what} for {called} {name}", names.join(", ")));
                }
            }
        }
    }
    if !given.is_empty() && matches!(pod["metadata"]["annotations"], Value::Object(_) | Value::Null) {
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", given.join("; ")).into();
    }
}

fn give(container: &mut Value, which: &str, limits: &[Value], usual: &str) -> Vec<String> {
    let amounts = &mut container["resources"][which];
    if amounts.is_null() {
        *amounts = Value::Object(Map::new());
    }
    let Some(amounts) = amounts.as_object_mut() else { return Vec::new() };
    let mut given = Vec::new();
    for (resource, amount) in limits.iter().flat_map(|limit| limit[usual].as_object().into_iter().flatten()) {
        if !amounts.contains_key(resource) {
            amounts.insert(resource.clone(), amount.clone());
            given.push(resource.clone());
        }
    }
    given.sort();
    given
}

/// What one limit has against an object.
fn complaints(limit: &Value, object: &Value) -> Vec<String> {
    let kind = limit["type"].as_str().unwrap_or_default();
    let containers = || {
        let lists = ["containers", "initContainers"].map(|name| &object["spec"][name]);
        lists.into_iter().filter_map(Value::as_array).flatten()
    };
    match kind {
        "PersistentVolumeClaim" => {
            let requests = &object["spec"]["resources"]["requests"];
            let amount = |name: &str| Amount::read(&requests[name]);
            let mut wrong: Vec<_> = amounts(limit, "min")
                .filter_map(|(name, least)| too_little(kind, name, least, amount(name), None))
                .collect();
            wrong.extend(
                amounts(limit, "max").filter_map(|(name, most)| too_much(kind, name, most, amount(name), "request")),
            );
            wrong
        }
        "Pod" => {
            let (requests, limits) = (demands(object, "requests"), demands(object, "limits"));
            judged(limit, kind, |name| (requests.get(name).copied(), limits.get(name).copied()))
        }
        _ => containers()
            .flat_map(|container| {
                let amount = |which: &str, name: &str| Amount::read(&container["resources"][which][name]);
                judged(limit, kind, |name| (amount("requests", name), amount("limits", name)))
            })
            .collect(),
    }
}

fn amounts<'a>(limit: &'a Value, which: &str) -> impl Iterator<Item = (&'a str, Amount)> {
    let amounts = limit[which].as_object().into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.as_str(), Amount::read(amount)?)))
}

/// What a limit has against what is requested of a resource, and what it is limited to.
fn judged(limit: &Value, kind: &str, asked: impl Fn(&str) -> (Option<Amount>, Option<Amount>)) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, least) in amounts(limit, "min") {
        let (request, limited) = asked(name);
        wrong.extend(too_little(kind, name, least, request, limited));
    }
    for (name, most) in amounts(limit, "max") {
        let (request, limited) = asked(name);
        let more = || request.filter(|request| request.thousandths > most.thousandths);
        let more = || too_much(kind, name, most, more().or(Some(most)), "request");
        wrong.extend(too_much(kind, name, most, limited, "limit").or_else(more));
    }
    for (name, most) in amounts(limit, "maxLimitRequestRatio") {
        wrong.extend(too_far_apart(kind, name, most, asked(name)));
    }
    wrong
}

fn too_little(kind: &str, name: &str, least: Amount, request: Option<Amount>, limit: Option<Amount>) -> Option<String> {
    let rule = format!("minimum {name} usage per {kind} is {least}");
    let Some(request) = request else { return Some(format!("{rule}.  No request is specified")) };
    let less = |amount: &Amount| amount.thousandths < least.thousandths;
    if less(&request) {
        return Some(format!("{rule}, but request is {request}"));
    }
    Some(format!("{rule}, but limit is {}", limit.filter(less)?))
}

fn too_much(kind: &str, name: &str, most: Amount, amount: Option<Amount>, which: &str) -> Option<String> {
    let rule = format!("maximum {name} usage per {kind} is {most}");
    let Some(amount) = amount else { return Some(format!("{rule}.  No {which} is specified")) };
    (amount.thousandths > most.thousandths).then(|| format!("{rule}, but {which} is {amount}"))
}

fn too_far_apart(kind: &str, name: &str, most: Amount, asked: (Option<Amount>, Option<Amount>)) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {most}");
    let some = |amount: Option<Amount>| amount.filter(|amount| amount.thousandths != 0);
    let Some(request) = some(asked.0) else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = some(asked.1) else { return Some(format!("{rule}, but no limit is specified or limit is 0")) };
    let is_more = limit.thousandths.saturating_mul(1000) > most.thousandths.saturating_mul(request.thousandths);
    #[allow(clippy::cast_precision_loss, reason = "it is shown with six digits")]
    let ratio = limit.thousandths as f64 / request.thousandths as f64;
    is_more.then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_get_the_usual_and_it_is_written_down() {
        let limits =
            [json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "1"}})];
        let mut pod = json!({"metadata": {}, "spec": {
            "containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "2", "memory": "1Mi"}, "requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i"}],
        }});
        fill(&mut pod, &limits);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}})
        );
        assert_eq!(pod["spec"]["containers"][1]["resources"]["limits"]["cpu"], "2");
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; cpu request for init \
             container i; cpu, memory limit for init container i"
        );
    }

    #[test]
    fn the_words_of_refusals_are_those_of_kubernetes() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        let said = |limit: Value, resources: Value| complaints(&limit, &pod(resources));
        let container = |which: &str, amount: &str| json!({"type": "Container", which: {"cpu": amount}});
        assert_eq!(
            said(container("min", "1"), json!({})),
            ["minimum cpu usage per Container is 1.  No request is specified"]
        );
        assert_eq!(
            said(container("min", "1"), json!({"requests": {"cpu": "500m"}})),
            ["minimum cpu usage per Container is 1, but request is 500m"]
        );
        assert_eq!(
            said(container("max", "1"), json!({})),
            ["maximum cpu usage per Container is 1.  No limit is specified"]
        );
        assert_eq!(
            said(container("max", "1"), json!({"limits": {"cpu": "1500m"}, "requests": {"cpu": "1500m"}})),
            ["maximum cpu usage per Container is 1, but limit is 1500m"]
        );
        assert_eq!(
            said(container("maxLimitRequestRatio", "2"), json!({"limits": {"cpu": "3"}, "requests": {"cpu": "1"}})),
            ["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"]
        );
        assert_eq!(
            said(json!({"type": "Pod", "max": {"cpu": "2"}}), json!({"limits": {"cpu": "3"}})),
            ["maximum cpu usage per Pod is 2, but limit is 3"]
        );
        let fine = json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}});
        let all = json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "2"}});
        assert_eq!(said(all, fine), [""; 0]);
        let limit = json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
        let claim = |storage: &str| json!({"spec": {"resources": {"requests": {"storage": storage}}}});
        let said = |storage: &str| complaints(&limit, &claim(storage));
        assert_eq!(said("512Mi"), ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi"]);
        assert_eq!(said("3Gi"), ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]);
        assert_eq!(said("2Gi"), [""; 0]);
    }
}
