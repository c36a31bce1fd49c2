//! DELETE, of one object and of a collection.

use axum::{body::Body, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use onex_crds::Invalid;
use serde::Deserialize;
use serde_json::Value;

use super::{Context, list};
use crate::{
    answer::{json_response, write},
    body,
    negotiate::{Form, Media, View},
    registry::{DeleteOptions, Deleted, Outcome, about},
    request::is_true,
    status::{self, Result, Status},
};

/// So many objects of a collection are deleted at the same time.
const CONCURRENT: usize = 64;

/// Deletes the object, or marks it for deletion.
pub(super) async fn delete(cx: &Context, body: Body) -> Result<Response> {
    let form = cx.form(|view| view == View::Whole)?;
    let options = options(cx, body).await?;
    let name = &cx.target.name;
    let deleted = cx.server.registry.delete(&cx.kind, cx.namespace(), name, &options).await?;
    match deleted {
        Deleted::Gone(last) if !cx.kind.returns_deleted => {
            let last = last.value();
            let uid = last["metadata"]["uid"].as_str().unwrap_or_default();
            write(form.media, &status::deleted(about(&cx.kind, name), uid))
        }
        Deleted::Gone(object) | Deleted::Marked(object) => write(form.media, &cx.to_served(object.value())),
    }
}

/// Deletes all objects that are selected, each as if alone.
pub(super) async fn delete_collection(cx: &Context, body: Body) -> Result<Response> {
    let form = cx.form(|view| view == View::Whole)?;
    let options = options(cx, body).await?;
    let listed = list::look(cx, &cx.list_options()?).await?;
    let metadata = listed.metadata();
    let keys: Vec<String> = listed.collected().iter().map(|item| item.key[cx.kind.prefix.len()..].to_owned()).collect();
    let one = |key: String| {
        let options = &options;
        async move {
            let (namespace, name) =
                if cx.kind.namespaced { key.split_once('/').unwrap_or(("", &key)) } else { ("", key.as_str()) };
            match cx.server.registry.delete(&cx.kind, namespace, name, options).await {
                Ok(Deleted::Gone(object) | Deleted::Marked(object)) => Ok(Some(object)),
                Err(gone) if gone.code == 404 => Ok(None), // somebody else deleted it
                Err(error) => Err(error),
            }
        }
    };
    // All are tried before the first error is answered, so that one protected object does not keep the others.
    let outcomes: Vec<Result<Option<Outcome>>> = stream::iter(keys).map(one).buffered(CONCURRENT).collect().await;
    let deleted: Vec<Outcome> = outcomes.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
    let answer = cx.answer(Form { view: View::Whole, ..form })?;
    if form.media == Media::Json && cx.kind.conversion.is_none() {
        return Ok(json_response(Body::from(joined(&answer.pieces(metadata)?.head, &deleted))));
    }
    answer.list(deleted.into_iter().map(|object| cx.to_served(object.value())).collect(), metadata)
}

/// A list of these objects, as their bytes: trees of ten thousand of them would be many times as large.
fn joined(head: &str, objects: &[Outcome]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(head.as_bytes());
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        object.write(&mut out);
    }
    out.put_slice(b"]}\n");
    out.freeze()
}

/// `DeleteOptions` as clients write them.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Given {
    kind: Option<String>,
    dry_run: Option<Vec<String>>,
    grace_period_seconds: Option<i64>,
    orphan_dependents: Option<bool>,
    preconditions: Option<Preconditions>,
    propagation_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Given {
    /// A word of the wrong type is refused: a deletion must not do more than was asked for.
    fn read(options: Value) -> Result<Self> {
        let wrong = |why: String| {
            Status::bad_request(format!("the object provided is unrecognized (must be of type DeleteOptions): {why}"))
        };
        if !options.is_object() {
            return Err(wrong("it is no object".to_owned()));
        }
        let given: Self = serde_json::from_value(options).map_err(|error| wrong(error.to_string()))?;
        match given.kind.as_deref() {
            None | Some("" | "DeleteOptions") => Ok(given),
            Some(other) => Err(wrong(format!("its kind is {other:?}"))),
        }
    }
}

/// `DeleteOptions` from the body or, if there is none, from the query.
async fn options(cx: &Context, body: Body) -> Result<DeleteOptions> {
    let bytes = body::read(body).await?;
    let given = match bytes.is_empty() {
        true => from_query(cx)?,
        false => Given::read(body::decode(body::media_type(&cx.headers), &bytes)?.object)?,
    };
    judged(cx, given)
}

/// `DeleteOptions` as they stand in another object; null for the usual.
pub(super) fn read_options(cx: &Context, options: &Value) -> Result<DeleteOptions> {
    judged(cx, if options.is_null() { Given::default() } else { Given::read(options.clone())? })
}

fn judged(cx: &Context, given: Given) -> Result<DeleteOptions> {
    let mut wrong = Vec::new();
    let mut dry_run = cx.dry_run(&mut wrong);
    for wanted in given.dry_run.iter().flatten() {
        if wanted == "All" {
            dry_run = true;
        } else {
            wrong.push(Invalid::not_supported("dryRun", vec![wanted.clone()], &["All"]));
        }
    }
    let propagation = propagation(&given, &mut wrong);
    if !wrong.is_empty() {
        return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &wrong));
    }
    let preconditions = given.preconditions.unwrap_or_default();
    Ok(DeleteOptions {
        // A negative grace period means the shortest there is.
        grace_seconds: given.grace_period_seconds.map(|s| if s < 0 { 1 } else { s }),
        propagation,
        uid: preconditions.uid.filter(|uid| !uid.is_empty()),
        resource_version: preconditions.resource_version.filter(|seen| !seen.is_empty()),
        dry_run,
        user: cx.user.clone(),
        notes: cx.notes().clone(),
    })
}

fn propagation(given: &Given, wrong: &mut Vec<Invalid>) -> Option<String> {
    let policy = given.propagation_policy.as_deref().filter(|p| !p.is_empty());
    match (policy, given.orphan_dependents) {
        (Some(policy), Some(_)) => {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            wrong.push(Invalid::value("propagationPolicy", policy, why));
            None
        }
        (Some(policy @ ("Background" | "Foreground" | "Orphan")), None) => Some(policy.to_owned()),
        (Some(other), None) => {
            wrong.push(Invalid::not_supported(
                "propagationPolicy",
                other,
                &["Foreground", "Background", "Orphan", "nil"],
            ));
            None
        }
        (None, Some(orphan)) => Some(if orphan { "Orphan" } else { "Background" }.to_owned()),
        (None, None) => None,
    }
}

fn from_query(cx: &Context) -> Result<Given> {
    let given = |name: &str| cx.parameter(name).filter(|text| !text.is_empty());
    let grace = given("gracePeriodSeconds").map(|text| {
        text.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    });
    Ok(Given {
        grace_period_seconds: grace.transpose()?,
        orphan_dependents: given("orphanDependents").map(|text| is_true(&text)),
        propagation_policy: given("propagationPolicy"),
        ..Given::default()
    })
}
