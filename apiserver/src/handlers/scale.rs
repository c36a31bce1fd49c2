//! `/scale`: the number of replicas, as `autoscaling/v1` says it, of any kind that has one.

use std::sync::{Arc, LazyLock};

use axum::{body::Body, response::Response};
use k8s_openapi::api::autoscaling::v1::Scale as AutoScale;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{
    Context,
    options::Write,
    patch::{self, JSON},
};
use crate::{
    answer::write,
    body,
    builtin::schemas,
    kinds::Scale,
    negotiate::View,
    patch::{self as patches, Writer},
    registry::{Part, Wanted},
    schema::{self, Schema},
    selector::Labels,
    status::{Result, Status},
};

/// Answers the scale.
pub(super) fn get(cx: &Context) -> Result<Response> {
    let form = cx.form(|view| view == View::Whole)?;
    let item = cx.server.registry.get(&cx.kind, cx.namespace(), &cx.target.name)?;
    let (object, paths) = (cx.to_served(item.value()), paths(cx));
    if cx.kind.custom.is_some() && look(&object, &paths.spec).is_null() {
        let path = format!(".{}", paths.spec.join("."));
        return Err(Status::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    write(form.media, &of(paths, &object))
}

/// Sets the scale. A missing content type means JSON: `kubectl scale --current-replicas` sends none.
pub(super) async fn update(cx: &Context, body: Body) -> Result<Response> {
    let write = cx.write_options("UpdateOptions")?;
    let bytes = body::read(body).await?;
    let decoded = body::decode(body::media_type(&cx.headers), &bytes)?;
    let mut wanted = decoded.object;
    let mut complaints = decoded.duplicates;
    complaints.extend(fit(cx, &mut wanted).map_err(|why| cannot_be_handled(&why))?);
    cx.judge(write.validation, complaints)
        .map_err(|all| cannot_be_handled(&format!("strict decoding error: {all}")))?;
    set(cx, &write, |_| Ok(wanted.clone())).await
}

/// Patches the scale.
pub(super) async fn patch(cx: &Context, body: Body) -> Result<Response> {
    let media = patch::media(cx)?;
    let write = cx.write_options("PatchOptions")?;
    patch::hold_options(media, &write)?;
    let bytes = body::read(body).await?;
    if media == patch::APPLY {
        return apply(cx, &write, &bytes).await;
    }
    let document = if media == JSON { Value::Null } else { patch::document(cx, &bytes, &write)? };
    let change = |scale: Value| {
        let mut wanted = match media {
            JSON => patches::json(&scale, &bytes)?,
            _ => patches::merge(scale, &document)?,
        };
        let not_fit = |why: String| {
            let cause = Invalid::value("patch", Value::Null, why);
            Status::invalid("autoscaling", "Scale", &cx.target.name, &[cause])
        };
        let unknown = fit(cx, &mut wanted).map_err(not_fit)?;
        cx.judge(write.validation, unknown).map_err(|all| not_fit(format!("strict decoding error: {all}")))?;
        Ok(wanted)
    };
    set(cx, &write, change).await
}

/// Server-side apply: of the object itself it is the one field that a Scale sets, under the name that it has there.
async fn apply(cx: &Context, write_options: &Write, bytes: &[u8]) -> Result<Response> {
    let form = cx.form(|view| view == View::Whole)?;
    let decoded = body::yaml(bytes).map_err(|e| Status::bad_request(format!("error decoding YAML: {}", e.message)))?;
    let mut scale = decoded.object;
    let mut complaints = decoded.duplicates;
    complaints.extend(fit(cx, &mut scale).map_err(|why| cannot_be_handled(&why))?);
    let strict = |all| Status::bad_request(format!("error strict decoding patch: {all}"));
    cx.judge(write_options.validation, complaints).map_err(strict)?;
    if !scale["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let (paths, api_version, now) = (paths(cx), cx.kind.api_version(), cx.server.registry.now());
    let (name, options) = (&cx.target.name, &write_options.options);
    let mut config = json!({"apiVersion": api_version, "kind": cx.kind.kind, "metadata": {"name": name}});
    for precondition in ["uid", "resourceVersion"] {
        if let Some(seen) = scale["metadata"][precondition].as_str().filter(|seen| !seen.is_empty()) {
            config["metadata"][precondition] = seen.into();
        }
    }
    if !scale["spec"]["replicas"].is_null() {
        put(&mut config, &paths.spec, replicas(cx, &scale)?.into());
    }
    let subresource = Part::Scale.subresource();
    let writer =
        Writer { manager: &options.manager, api_version: &api_version, subresource, now: &now, blank: cx.kind.blank() };
    let force = write_options.force.unwrap_or(false);
    let change = |old: &Value| {
        let object = patches::apply(Some(old), &config, force, writer, &[], cx.kind.schema())?;
        Ok(Wanted { object, tracked: true })
    };
    let written = cx.server.registry.update(&cx.kind, cx.namespace(), name, Part::Scale, options, change).await?;
    write(form.media, &of(paths, &written.outcome.value()))
}

/// What a Scale may look like.
static SHAPE: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let (name, schemas) = schemas::publish::<AutoScale>("autoscaling", "v1", "Scale");
    let reference = json!({"$ref": format!("#/components/schemas/{name}")});
    Schema::compile(&reference, &Value::Object(schemas.into_iter().collect()))
});

/// Makes a value a Scale of this object, or says why it is none. Answers complaints about unknown fields.
fn fit(cx: &Context, scale: &mut Value) -> Result<Vec<String>, String> {
    if !scale.is_object() {
        return Err("it is no object".to_owned());
    }
    if !matches!(scale["kind"].as_str(), None | Some("" | "Scale")) {
        return Err(format!("it is a {}", scale["kind"]));
    }
    let shape = schema::decode(scale, &SHAPE);
    if let Some(wrong) = shape.wrong {
        return Err(wrong);
    }
    let (url, name) = (&cx.target.name, scale["metadata"]["name"].as_str().unwrap_or_default());
    if !name.is_empty() && name != url {
        return Err(format!("the name of the object ({name}) does not match the name on the URL ({url})"));
    }
    Ok(shape.unknown.iter().map(|path| format!("unknown field {path:?}")).collect())
}

fn cannot_be_handled(why: &str) -> Status {
    Status::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {why}"))
}

async fn set(cx: &Context, write_options: &Write, change: impl Fn(Value) -> Result<Value>) -> Result<Response> {
    let form = cx.form(|view| view == View::Whole)?;
    let paths = paths(cx);
    let changed = |old: &Value| {
        let wanted = change(of(paths, old))?;
        let replicas = replicas(cx, &wanted)?;
        let mut object = old.clone();
        put(&mut object, &paths.spec, replicas.into());
        for precondition in ["uid", "resourceVersion"] {
            if let Some(seen) = wanted["metadata"][precondition].as_str().filter(|s| !s.is_empty()) {
                object["metadata"][precondition] = seen.into();
            }
        }
        Ok(object.into())
    };
    let name = &cx.target.name;
    let options = &write_options.options;
    let written = cx.server.registry.update(&cx.kind, cx.namespace(), name, Part::Scale, options, changed).await?;
    write(form.media, &of(paths, &written.outcome.value()))
}

/// The number wanted. None at all is none wanted, as Go reads it.
fn replicas(cx: &Context, scale: &Value) -> Result<i64> {
    let count = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if count >= 0 {
        return Ok(count);
    }
    let wrong = Invalid::value("spec.replicas", count, "must be greater than or equal to 0");
    Err(Status::invalid("autoscaling", "Scale", &cx.target.name, &[wrong]))
}

fn paths(cx: &Context) -> &Scale {
    cx.kind.scale.as_ref().expect("only kinds with a scale get here")
}

/// The scale of an object.
pub(crate) fn of(paths: &Scale, object: &Value) -> Value {
    let meta = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {},
        "status": {"replicas": look(object, &paths.status).as_i64().unwrap_or(0)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(field) {
            scale["metadata"][field] = value.clone();
        }
    }
    if let Some(wanted) = look(object, &paths.spec).as_i64().filter(|n| *n != 0) {
        scale["spec"]["replicas"] = wanted.into();
    }
    let selector = match look(object, &paths.selector) {
        Value::String(text) => text.clone(),
        Value::Object(_) => Labels::from_label_selector(look(object, &paths.selector)).to_string(),
        _ => String::new(),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

fn look<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |value, name| &value[name.as_str()])
}

/// Sets what is at the path.
pub(crate) fn put(object: &mut Value, path: &[String], value: Value) {
    let place = path.iter().fold(object, |value, name| &mut value[name.as_str()]);
    *place = value;
}
