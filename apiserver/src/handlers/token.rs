//! `serviceaccounts/token`: a token for an account, good for a while.

use std::sync::{Arc, LazyLock};

use axum::{body::Body, response::Response};
use http::StatusCode;
use k8s_openapi::api::authentication::v1::TokenRequest;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::Context;
use crate::{
    answer::{with_code, write},
    body,
    builtin::schemas,
    kinds::Kind,
    negotiate::View,
    registry::about,
    schema::{self, Schema},
    service_accounts::{Reference, Wish},
    status::{About, Result, Status},
};

/// Nobody asks for less: a token must outlive its way to whoever uses it.
const LEAST_SECONDS: i64 = 10 * 60;
/// And nobody for more.
const MOST_SECONDS: i64 = 1 << 32;
/// Who does not say how long gets so much.
const USUAL_SECONDS: i64 = 60 * 60;
/// What is asked for the tokens that Pods get by themselves: the odd seconds tell them apart.
const POD_SECONDS: i64 = 60 * 60 + 7;
/// So long they are really good, for programs that never read them again.
const POD_SECONDS_IN_TRUTH: i64 = 365 * 24 * 60 * 60;

/// Answers the request with a token in its status.
pub(super) async fn create(cx: &Context, body: Body) -> Result<Response> {
    let write_options = cx.write_options("CreateOptions")?;
    let form = cx.form(|view| view == View::Whole)?;
    let mut request = request(cx, body, write_options.validation).await?;
    let (namespace, name) = (cx.namespace(), cx.target.name.as_str());
    hold_place(&request["metadata"], namespace, name)?;
    let account = cx.server.registry.get(&cx.kind, namespace, name)?.value();
    let tokens = &cx.server.service_accounts;
    let audiences = match texts(&request["spec"]["audiences"]) {
        none if none.is_empty() => tokens.audiences().to_vec(),
        named => named,
    };
    let mut seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(USUAL_SECONDS);
    hold_seconds(seconds)?;
    let bound = bound(cx, &request["spec"]["boundObjectRef"])?;
    let most = tokens.most_seconds();
    if most > 0 && seconds > most {
        cx.warn(format!("requested expiration of {seconds} seconds shortened to {most} seconds"));
        seconds = most;
    }
    let for_us = audiences.iter().all(|audience| tokens.audiences().contains(audience));
    let warn_after = (bound.pod.is_some() && seconds == POD_SECONDS && for_us).then_some(seconds);
    let good_for = if warn_after.is_some() { POD_SECONDS_IN_TRUTH } else { seconds };
    let now = cx.server.now();
    let wish = Wish {
        namespace,
        account: reference(&account),
        audiences: &audiences,
        seconds: good_for,
        warn_after,
        pod: bound.pod,
        secret: bound.secret,
        node: bound.node,
    };
    let token = tokens.issue(wish, now).map_err(Status::internal)?;
    request["metadata"]["name"] = name.into();
    request["metadata"]["namespace"] = namespace.into();
    request["metadata"]["creationTimestamp"] = time(now).into();
    request["spec"]["audiences"] = audiences.into();
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": time(now.saturating_add(seconds))});
    Ok(with_code(write(form.media, &request)?, StatusCode::CREATED))
}

/// What a TokenRequest may look like.
static SHAPE: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let (name, schemas) = schemas::publish::<TokenRequest>("authentication.k8s.io", "v1", "TokenRequest");
    let reference = json!({"$ref": format!("#/components/schemas/{name}")});
    Schema::compile(&reference, &Value::Object(schemas.into_iter().collect()))
});

async fn request(cx: &Context, body: Body, validation: super::options::Validation) -> Result<Value> {
    let cannot = |why: &str| {
        Status::bad_request(format!("TokenRequest in version \"v1\" cannot be handled as a TokenRequest: {why}"))
    };
    let bytes = body::read(body).await?;
    let decoded = body::decode(body::media_type(&cx.headers), &bytes)?;
    let mut request = decoded.object;
    if !request.is_object() {
        return Err(cannot("it is no object"));
    }
    for (field, own) in [("kind", "TokenRequest"), ("apiVersion", "authentication.k8s.io/v1")] {
        match request[field].as_str() {
            None | Some("") => request[field] = own.into(),
            Some(said) if said == own => {}
            Some(said) => return Err(cannot(&format!("its {field} is {said:?}"))),
        }
    }
    let mut complaints = decoded.duplicates;
    let shape = schema::decode(&mut request, &SHAPE);
    if let Some(wrong) = shape.wrong {
        return Err(cannot(&wrong));
    }
    if !decoded.protobuf {
        complaints.extend(shape.unknown.iter().map(|path| format!("unknown field {path:?}")));
    }
    cx.judge(validation, complaints).map_err(|all| cannot(&format!("strict decoding error: {all}")))?;
    for field in ["metadata", "spec"] {
        if !request[field].is_object() {
            request[field] = json!({});
        }
    }
    Ok(request)
}

/// Name and namespace are those of the URL, or are not said.
fn hold_place(metadata: &Value, namespace: &str, name: &str) -> Result<()> {
    for (field, of_url) in [("name", name), ("namespace", namespace)] {
        let said = metadata[field].as_str().unwrap_or_default();
        if !said.is_empty() && said != of_url {
            let why = format!("must match the service account {field} if specified");
            return Err(invalid(name, Invalid::value(format!("metadata.{field}"), said, why)));
        }
    }
    Ok(())
}

fn hold_seconds(seconds: i64) -> Result<()> {
    let why = match seconds {
        ..LEAST_SECONDS => "may not specify a duration less than 10 minutes",
        LEAST_SECONDS..=MOST_SECONDS => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    Err(invalid("", Invalid::value("spec.expirationSeconds", seconds, why)))
}

fn invalid(name: &str, cause: Invalid) -> Status {
    Status::invalid("authentication.k8s.io", "TokenRequest", name, &[cause])
}

/// What a token ends with.
#[derive(Default)]
struct Bindings {
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
}

fn bound(cx: &Context, wanted: &Value) -> Result<Bindings> {
    let mut bindings = Bindings::default();
    if !wanted.is_object() {
        return Ok(bindings);
    }
    let said = |field: &str| wanted[field].as_str().unwrap_or_default();
    let (version, name) = (said("apiVersion"), said("name"));
    // The version within the core does not matter, as kube-apiserver has it.
    let core = !version.contains('/');
    let place = match said("kind") {
        "Pod" | "Secret" if core => cx.namespace(),
        "Node" if core => "",
        kind => {
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let (kind, object) = find(cx, &format!("{}s", said("kind").to_lowercase()), place, name)?;
    let there = reference(&object);
    match kind.plural.as_str() {
        "pods" => {
            let account = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if account != cx.target.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    cx.target.name
                )));
            }
            bindings.node = node_of(cx, &object);
            bindings.pod = Some(there.clone());
        }
        "secrets" => bindings.secret = Some(there.clone()),
        _ => bindings.node = Some(there.clone()),
    }
    let uid = said("uid");
    if uid.is_empty() || uid == there.uid {
        return Ok(bindings);
    }
    let why = format!(
        "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
         deleted and then recreated"
    );
    Err(Status::conflict(About { group: "", resource: &kind.kind, name }, why))
}

fn find(cx: &Context, plural: &str, namespace: &str, name: &str) -> Result<(Arc<Kind>, Value)> {
    let kind = cx.server.kinds.core(plural);
    match cx.server.registry.get(&kind, namespace, name) {
        Ok(item) => {
            let object = item.value();
            Ok((kind, object))
        }
        Err(_) => Err(Status::not_found(about(&kind, name))),
    }
}

/// Where a Pod is. A node that is not there is still named.
fn node_of(cx: &Context, pod: &Value) -> Option<Reference> {
    let name = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())?;
    let nameless = Reference { name: name.to_owned(), uid: String::new() };
    Some(find(cx, "nodes", "", name).map_or(nameless, |(_, node)| reference(&node)))
}

fn reference(object: &Value) -> Reference {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    Reference { name: text("name"), uid: text("uid") }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// As metadata says it.
fn time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    crate::registry::seconds(time)
}
