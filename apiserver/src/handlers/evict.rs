//! `pods/eviction`: a deletion that asks the Pod's disruption budget first.

use axum::{body::Body, response::Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Context, delete};
use crate::{
    answer::{with_code, write},
    body,
    negotiate::View,
    registry::{DeleteOptions, Options, Part, about, is_terminating},
    selector::Labels,
    status::{Result, Status},
};

/// How often an eviction is tried again when the Pod changes meanwhile.
const ATTEMPTS: usize = 10;
/// More Pods than this are not noted as gone before the budget is counted again.
const MOST_DISRUPTED: usize = 2000;

/// Deletes the Pod, if its budget allows it.
pub(super) async fn evict(cx: &Context, body: Body) -> Result<Response> {
    let form = cx.form(|view| view == View::Whole)?;
    let bytes = body::read(body).await?;
    let eviction = body::decode(body::media_type(&cx.headers), &bytes)?.object;
    if !matches!(eviction["kind"].as_str(), None | Some("" | "Eviction")) {
        return Err(Status::bad_request(format!("not a Eviction object: {}", eviction["kind"])));
    }
    if eviction["metadata"]["name"] != cx.target.name.as_str() {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = delete::read_options(cx, &eviction["deleteOptions"])?;
    for attempt in 1..=ATTEMPTS {
        match try_once(cx, &options).await {
            Err(conflict) if conflict.code == 409 && options.resource_version.is_none() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
            Ok(()) => break,
        }
    }
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(with_code(write(form.media, &done)?, StatusCode::CREATED))
}

/// Only the Pod that was looked at is deleted where its state mattered: it may have become ready since.
async fn try_once(cx: &Context, options: &DeleteOptions) -> Result<()> {
    let registry = &cx.server.registry;
    let pod = registry.get(&cx.kind, cx.namespace(), &cx.target.name)?.value();
    let seen = || pod["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let mut options = options.clone();
    if let Some(uid) = options.uid.as_deref().filter(|uid| pod["metadata"]["uid"] != *uid) {
        let found = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Status::conflict(about(&cx.kind, &cx.target.name), why));
    }
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let is_over = matches!(phase, "Succeeded" | "Failed") || is_terminating(&pod);
    if phase == "Pending" || !is_over && spend(cx, &pod, &options).await? == Spent::Nothing {
        options.resource_version = options.resource_version.or_else(seen);
    }
    registry.delete(&cx.kind, cx.namespace(), &cx.target.name, &options).await.map(drop)
}

/// What an eviction costs.
#[derive(PartialEq)]
enum Spent {
    /// The Pod is not ready, so that nobody loses anything.
    Nothing,
    /// One disruption, or there is no budget.
    Settled,
}

/// Takes one disruption from the Pod's budget, if it has one.
async fn spend(cx: &Context, pod: &Value, options: &DeleteOptions) -> Result<Spent> {
    let Some(budget) = budget(cx, pod)? else { return Ok(Spent::Settled) };
    let status = &budget["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let healthy = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
    if !ready && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || healthy) {
        return Ok(Spent::Nothing);
    }
    let kind = cx.server.kinds.find("policy", "v1", "poddisruptionbudgets").expect("it was found above");
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
    let now = cx.server.registry.now();
    let write = Options {
        dry_run: options.dry_run,
        manager: "onex-apiserver".to_owned(),
        user: options.user.clone(),
        notes: options.notes.clone(),
        ..Options::default()
    };
    let less = |budget: &Value| less(budget, pod, &now).map(Into::into);
    cx.server.registry.update(&kind, cx.namespace(), name, Part::Status, &write, less).await?;
    Ok(Spent::Settled)
}

/// The budget that the Pod falls under. Two are one too many.
fn budget(cx: &Context, pod: &Value) -> Result<Option<Value>> {
    let Some(kind) = cx.server.kinds.find("policy", "v1", "poddisruptionbudgets") else { return Ok(None) };
    let snapshot = cx.server.registry.window(&kind).snapshot();
    let within = format!("{}{}/", kind.prefix, cx.namespace());
    let mut found = None;
    for item in snapshot.range(&within, None) {
        let budget = item.value();
        if !Labels::from_label_selector(&budget["spec"]["selector"]).matches_object(pod) {
            continue;
        }
        if found.replace(budget).is_some() {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::plain(why));
        }
    }
    Ok(found)
}

/// The budget with one disruption less, or why there is none left.
fn less(budget: &Value, pod: &str, now: &str) -> Result<Value> {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let (meta, status) = (&budget["metadata"], &budget["status"]);
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    if number("observedGeneration") < meta["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(Status::over_budget(why, 10));
    }
    let left = number("disruptionsAllowed");
    if left <= 0 {
        let (wanted, there) = (number("desiredHealthy"), number("currentHealthy"));
        let why = format!("The disruption budget {name} needs {wanted} healthy pods and has {there} currently");
        return Err(Status::over_budget(why, 0));
    }
    if status["disruptedPods"].as_object().is_some_and(|gone| gone.len() > MOST_DISRUPTED) {
        let why = format!("The disruption budget {name} has too many evictions that were not counted yet");
        return Err(Status::over_budget(why, 10));
    }
    let mut budget = budget.clone();
    budget["status"]["disruptionsAllowed"] = (left - 1).into();
    budget["status"]["disruptedPods"][pod] = now.into();
    if left == 1 {
        let generation = budget["metadata"]["generation"].clone();
        let conditions = &mut budget["status"]["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|condition| condition["type"] != "DisruptionAllowed");
            conditions.push(json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
                "message": "", "observedGeneration": generation, "lastTransitionTime": now}));
        }
    }
    Ok(budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_one_by_one() {
        let budget = |allowed: i64, observed: i64| {
            json!({"metadata": {"name": "b", "generation": 2}, "status": {"disruptionsAllowed": allowed,
                "observedGeneration": observed, "desiredHealthy": 3, "currentHealthy": 3}})
        };
        let spent = less(&budget(2, 2), "p", "now").unwrap();
        assert_eq!(
            (&spent["status"]["disruptionsAllowed"], &spent["status"]["disruptedPods"]["p"]),
            (&1.into(), &"now".into())
        );
        let last = less(&budget(1, 2), "p", "now").unwrap();
        assert_eq!(last["status"]["conditions"][0]["status"], "False");
        for (allowed, observed) in [(0, 2), (5, 1)] {
            assert_eq!(less(&budget(allowed, observed), "p", "now").unwrap_err().code, 429);
        }
    }
}
