//! PATCH, in four kinds: JSON patch, merge patch, strategic merge patch, server-side apply.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::header;
use onex_crds::Invalid;
use serde_json::Value;

use super::{Context, create::answer, options::Write};
use crate::{
    body,
    patch::{self, Writer},
    registry::{Part, Wanted, Written, about},
    status::{Result, Status},
};

pub(super) const JSON: &str = "application/json-patch+json";
pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";

/// Changes the object as the patch says.
pub(super) async fn patch(cx: &Context, part: Part, body: Body) -> Result<Response> {
    let form = cx.object_form()?;
    let media = media(cx)?;
    let write = cx.write_options("PatchOptions")?;
    hold_options(media, &write)?;
    let bytes = body::read(body).await?;
    let written = if media == APPLY {
        apply(cx, part, &bytes, &write).await?
    } else {
        change(cx, part, media, &bytes, &write).await?
    };
    answer(cx, form, written)
}

/// The kind of patch, if this kind of object takes it.
pub(super) fn media(cx: &Context) -> Result<&'static str> {
    let named = cx.header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
    let served: &[&'static str] =
        if cx.kind.strategic { &[JSON, MERGE, STRATEGIC, APPLY] } else { &[JSON, MERGE, APPLY] };
    served.iter().copied().find(|s| *s == named).ok_or_else(|| Status::unsupported_media_type(served))
}

pub(super) fn hold_options(media: &str, write: &Write) -> Result<()> {
    let wrong = match (media == APPLY, write.force, write.named) {
        (false, Some(_), _) => Invalid::forbidden("force", "may not be specified for non-apply patch"),
        (true, _, false) => Invalid::required("fieldManager", "is required for apply patch"),
        _ => return Ok(()),
    };
    Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[wrong]))
}

async fn change(cx: &Context, part: Part, media: &str, bytes: &Bytes, write: &Write) -> Result<Written> {
    let document = if media == JSON { Value::Null } else { document(cx, bytes, write)? };
    let patched = |old: &Value| -> Result<Wanted> {
        let served = cx.to_served(old.clone());
        let mut object = match media {
            JSON => patch::json(&served, bytes)?,
            MERGE => patch::merge(served, &document)?,
            _ => patch::strategic(served, &document, cx.kind.schema())?,
        };
        let unknown = fit(cx, &mut object)?;
        cx.judge(write.validation, unknown).map_err(|all| not_fit(cx, &format!("strict decoding error: {all}")))?;
        if part == Part::Main {
            cx.warn_of(&mut object);
        }
        Ok(cx.to_stored(object).into())
    };
    cx.server.registry.update(&cx.kind, cx.namespace(), &cx.target.name, part, &write.options, patched).await
}

/// A patch that is an object. Fields that are written twice are complained of.
pub(super) fn document(cx: &Context, bytes: &[u8], write: &Write) -> Result<Value> {
    let decoded = body::json(bytes).map_err(|wrong| {
        let why = wrong.message.strip_prefix("couldn't get version/kind; json parse error: ").map(str::to_owned);
        Status::bad_request(format!("error decoding patch: {}", why.unwrap_or(wrong.message)))
    })?;
    if !decoded.object.is_object() {
        return Err(patch::no_object(&decoded.object));
    }
    let strict = |all| Status::bad_request(format!("error strict decoding patch: {all}"));
    cx.judge(write.validation, decoded.duplicates.iter().map(|d| format!("json: {d}")).collect()).map_err(strict)?;
    Ok(decoded.object)
}

/// Makes the patched object one of its kind again. Answers complaints about unknown fields, which are removed.
fn fit(cx: &Context, object: &mut Value) -> Result<Vec<String>> {
    cx.hold_identity(object)?;
    let shape = cx.kind.decode(object);
    if let Some(wrong) = shape.wrong {
        return Err(not_fit(cx, &wrong));
    }
    let url = &cx.target.name;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name != url {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({url})"
        )));
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    if cx.kind.namespaced && !namespace.is_empty() && namespace != cx.namespace() {
        let why = format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            cx.namespace()
        );
        return Err(Status::bad_request(why));
    }
    Ok(shape.unknown.iter().map(|path| format!("unknown field {path:?}")).collect())
}

fn not_fit(cx: &Context, why: &str) -> Status {
    let cause = Invalid::value("patch", Value::Null, why);
    Status::invalid(&cx.kind.group, &cx.kind.kind, &cx.target.name, &[cause])
}

/// What is applied is of another kind, or of none: as Go prints a kind.
fn not_it(object: &Value) -> Status {
    let said = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let version = said("apiVersion");
    let core = if version.contains('/') { "" } else { "/" };
    Status::bad_request(format!("invalid object type: {core}{version}, Kind={}", said("kind")))
}

/// Server-side apply: creates the object if it is not there.
async fn apply(cx: &Context, part: Part, bytes: &Bytes, write: &Write) -> Result<Written> {
    let config = config(cx, bytes, write)?;
    let registry = &cx.server.registry;
    let now = registry.now();
    let api_version = cx.kind.api_version();
    let applied = |live: Option<&Value>| {
        let (manager, force) = (write.options.manager.as_str(), write.force.unwrap_or(false));
        let writer = Writer {
            manager,
            api_version: &api_version,
            subresource: part.subresource(),
            now: &now,
            blank: cx.kind.blank(),
        };
        let mut object = patch::apply(live, &config, force, writer, reset(cx, part), cx.kind.schema())?;
        object["metadata"]["name"] = cx.target.name.clone().into();
        fit(cx, &mut object)?;
        if part == Part::Main {
            match live {
                Some(_) => cx.warn_of(&mut object),
                None => cx.warn_of_new(&mut object),
            }
        }
        Ok(object)
    };
    let change = |old: &Value| -> Result<Wanted> {
        let object = applied(Some(&cx.to_served(old.clone())))?;
        Ok(Wanted { object: cx.to_stored(object), tracked: true })
    };
    let mut tries = 2; // somebody else may create it, or delete it, at the same moment
    loop {
        tries -= 1;
        match registry.update(&cx.kind, cx.namespace(), &cx.target.name, part, &write.options, change).await {
            Err(missing) if missing.code == 404 && part == Part::Main => {}
            other => return other,
        }
        if let Some(uid) = config["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(about(&cx.kind, &cx.target.name), why));
        }
        let options = crate::registry::Options { tracked: true, ..write.options.clone() };
        match registry.create(&cx.kind, cx.namespace(), cx.to_stored(applied(None)?), &options).await {
            Err(taken) if taken.reason == "AlreadyExists" && tries > 0 => {}
            other => return other,
        }
    }
}

fn reset(cx: &Context, part: Part) -> &'static [&'static [&'static str]] {
    match part {
        Part::Main if cx.kind.status => &[&["status"]],
        Part::Status => &[&["spec"]],
        _ => &[],
    }
}

fn config(cx: &Context, bytes: &Bytes, write: &Write) -> Result<Value> {
    let decoded = body::yaml(bytes).map_err(|e| Status::bad_request(format!("error decoding YAML: {}", e.message)))?;
    let strict = |all| Status::bad_request(format!("error strict decoding patch: {all}"));
    cx.judge(write.validation, decoded.duplicates).map_err(strict)?;
    let mut object = decoded.object;
    if !object.is_object() {
        return Err(Status::bad_request("the applied configuration is not an object"));
    }
    for field in ["apiVersion", "kind"] {
        if object[field].as_str().unwrap_or_default().is_empty() {
            return Err(Status::bad_request(format!(
                "invalid object type: {field} must be set in the applied configuration"
            )));
        }
    }
    if object["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let expected = (cx.kind.api_version(), cx.kind.kind.as_str());
    if (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default())
        != (expected.0.as_str(), expected.1)
    {
        return Err(not_it(&object));
    }
    cx.hold_identity(&mut object)?;
    cx.hold_place(object)
}
