//! PUT: an object as the client wants it to be.

use axum::{body::Body, response::Response};
use serde_json::Value;

use super::{Context, create::answer};
use crate::{
    registry::Part,
    status::{Result, Status},
};

/// Replaces the object, or its part.
pub(super) async fn update(cx: &Context, part: Part, body: Body) -> Result<Response> {
    let write = cx.write_options("UpdateOptions")?;
    let form = cx.object_form()?;
    let mut object = cx.object(body, write.validation).await?;
    if part == Part::Main {
        cx.warn_of(&mut object);
    }
    let object = cx.to_stored(object);
    let name = &cx.target.name;
    let registry = &cx.server.registry;
    let change = |old: &Value| Ok(changed(part, old, &object).into());
    let written = match registry.update(&cx.kind, cx.namespace(), name, part, &write.options, change).await {
        Err(missing) if missing.code == 404 && cx.kind.create_on_update && part == Part::Main => {
            let mut object = object.clone();
            if let Some(metadata) = object["metadata"].as_object_mut() {
                if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|v| !v.is_empty() && v != "0") {
                    return Err(Status::modified(crate::registry::about(&cx.kind, name)));
                }
                metadata.remove("resourceVersion");
            }
            registry.create(&cx.kind, cx.namespace(), object, &write.options).await?
        }
        other => other?,
    };
    answer(cx, form, written)
}

/// The wanted object. Of `/finalize` only the namespace's own finalizers count.
fn changed(part: Part, old: &Value, wanted: &Value) -> Value {
    if part != Part::Finalize {
        return wanted.clone();
    }
    let mut object = old.clone();
    if let Some(spec) = object["spec"].as_object_mut() {
        match wanted["spec"]["finalizers"].as_array().filter(|finalizers| !finalizers.is_empty()) {
            Some(finalizers) => spec.insert("finalizers".to_owned(), finalizers.clone().into()),
            None => spec.remove("finalizers"),
        };
    }
    for precondition in ["uid", "resourceVersion"] {
        if let Some(seen) = wanted["metadata"].get(precondition) {
            object["metadata"][precondition] = seen.clone();
        }
    }
    object
}
