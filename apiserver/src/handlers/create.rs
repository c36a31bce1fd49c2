//! POST: a new object.

use axum::{body::Body, response::Response};
use http::StatusCode;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::Context;
use crate::{
    answer::{with_code, write},
    body,
    kinds::Kind,
    meta,
    negotiate::{Form, View},
    registry::{Outcome, Part, Written, about, is_terminating},
    status::{About, Result, Status},
};

/// Stores the object of the body.
pub(super) async fn create(cx: &Context, body: Body) -> Result<Response> {
    let write = cx.write_options("CreateOptions")?;
    let form = cx.object_form()?;
    let mut object = cx.object(body, write.validation).await?;
    cx.warn_of_new(&mut object);
    let object = cx.to_stored(object);
    let written = cx.server.registry.create(&cx.kind, cx.namespace(), object, &write.options).await?;
    if let Some(notes) = &cx.record {
        match &written.outcome {
            Outcome::Stored(stored, _) => notes.made(&stored.value_without_managers()),
            Outcome::Shown(object) => notes.made(object),
        }
    }
    answer(cx, form, written)
}

/// Answers an object that was written: 201 if it is new, 200 if not.
pub(super) fn answer(cx: &Context, form: Form, written: Written) -> Result<Response> {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let answer = cx.answer(form)?;
    let response = match written.outcome {
        Outcome::Stored(stored, revision) => answer.stored(&stored, revision)?,
        Outcome::Shown(object) => answer.object(&cx.to_served(object))?,
    };
    Ok(with_code(response, code))
}

/// `pods/binding`, and `bindings` with the Pod's name: the scheduler's word on which node a Pod is to run.
pub(super) async fn bind(cx: &Context, body: Body) -> Result<Response> {
    let write_options = cx.write_options("CreateOptions")?;
    let form = cx.form(|view| view == View::Whole)?;
    let bytes = body::read(body).await?;
    let binding = body::decode(body::media_type(&cx.headers), &bytes)?.object;
    let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
    if node.is_empty() {
        return Err(Status::bad_request("target.name: Required value"));
    }
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        let why = format!("target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\"");
        return Err(Status::bad_request(why));
    }
    let pods = cx.server.kinds.core("pods");
    let named = binding["metadata"]["name"].as_str().unwrap_or_default();
    let name = if cx.target.name.is_empty() { named } else { cx.target.name.as_str() };
    let wrong: Vec<Invalid> =
        meta::dns_subdomain(&node).into_iter().map(|why| Invalid::value("target.name", node.as_str(), why)).collect();
    if !wrong.is_empty() {
        return Err(Status::invalid("", "Binding", name, &wrong));
    }
    let now = cx.server.registry.now();
    let bound = |pod: &Value| bound(&pods, pod, &binding["metadata"], &node, &now);
    cx.server
        .registry
        .update(&pods, cx.namespace(), name, Part::Binding, &write_options.options, |pod| bound(pod).map(Into::into))
        .await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(with_code(write(form.media, &done)?, StatusCode::CREATED))
}

/// The Pod on its node, if it is the one that the scheduler saw.
fn bound(pods: &Kind, pod: &Value, seen: &Value, node: &str, now: &str) -> Result<Value> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let conflict = |why: String| Err(Status::conflict(About { resource: "pods/binding", ..about(pods, name) }, why));
    let current = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if is_terminating(pod) {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if !current.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {current:?}"));
    }
    let mut pod = pod.clone();
    for precondition in ["uid", "resourceVersion"] {
        if seen[precondition].is_string() {
            pod["metadata"][precondition] = seen[precondition].clone();
        }
    }
    pod["spec"]["nodeName"] = node.into();
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let conditions = conditions.as_array_mut().expect("made an array above");
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions
        .push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    Ok(pod)
}
