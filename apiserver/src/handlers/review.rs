//! POST of a question, which is answered and not kept.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Body, response::Response};
use http::StatusCode;
use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::{Context, create};
use crate::{
    answer::with_code,
    authn::{self, User},
    authz::Asked,
    kinds::Review,
    negotiate::View,
    status::{Result, Status},
};

/// Answers the question of the body in its status.
pub(super) async fn answer(cx: &Context, review: Review, body: Body) -> Result<Response> {
    if review == Review::Binding {
        return create::bind(cx, body).await;
    }
    let options = cx.write_options("CreateOptions")?;
    let form = cx.form(|view| view == View::Whole)?;
    let mut question = cx.object(body, options.validation).await?;
    let spec = &question["spec"];
    let status = match review {
        Review::SelfSubjectAccess => {
            let wrong = attributes_mistakes(spec);
            hold(cx, wrong)?;
            access(cx, &cx.user, spec)
        }
        Review::SubjectAccess | Review::LocalSubjectAccess => {
            let mut wrong = attributes_mistakes(spec);
            wrong.extend(subject_mistakes(spec));
            if review == Review::LocalSubjectAccess {
                wrong.extend(place_mistakes(spec, cx.namespace()));
            }
            hold(cx, wrong)?;
            access(cx, &subject(spec), spec)
        }
        Review::SelfSubjectRules => rules(cx, text(&spec["namespace"]))?,
        Review::SelfSubject => json!({"userInfo": shown(&cx.user)}),
        Review::Token => token(cx, spec)?,
        Review::Binding => Value::Null, // heard above
    };
    question["status"] = status;
    if !question["metadata"].is_object() {
        question["metadata"] = json!({});
    }
    question["metadata"]["creationTimestamp"] = Value::Null;
    Ok(with_code(cx.answer(form)?.object(&question)?, StatusCode::CREATED))
}

fn hold(cx: &Context, wrong: Vec<Invalid>) -> Result<()> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&cx.kind.group, &cx.kind.kind, "", &wrong))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn attributes_mistakes(spec: &Value) -> Vec<Invalid> {
    let (resource, path) = (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    let field = "spec.resourceAttributes";
    match (resource, path) {
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            vec![Invalid::value("spec.nonResourceAttributes", spec["nonResourceAttributes"].clone(), why)]
        }
        (false, false) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            vec![Invalid::value(field, Value::Null, why)]
        }
        _ => Vec::new(),
    }
}

fn subject_mistakes(spec: &Value) -> Option<Invalid> {
    let nobody = text(&spec["user"]).is_empty() && spec["groups"].as_array().is_none_or(Vec::is_empty);
    nobody.then(|| Invalid::value("spec.user", text(&spec["user"]), "at least one of user or group must be specified"))
}

fn place_mistakes(spec: &Value, namespace: &str) -> Option<Invalid> {
    let said = text(&spec["resourceAttributes"]["namespace"]);
    if spec["nonResourceAttributes"].is_object() {
        let why = "disallowed on this kind of request";
        return Some(Invalid::value("spec.nonResourceAttributes", spec["nonResourceAttributes"].clone(), why));
    }
    let why = "must match metadata.namespace";
    (said != namespace).then(|| Invalid::value("spec.resourceAttributes.namespace", said, why))
}

/// Whom a review asks about. Their groups are those that it names, and no others.
fn subject(spec: &Value) -> User {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    let extra: BTreeMap<String, Vec<String>> = extra.map(|(name, values)| (name.clone(), texts(values))).collect();
    User {
        name: text(&spec["user"]).to_owned(),
        uid: text(&spec["uid"]).to_owned(),
        groups: texts(&spec["groups"]).into(),
        extra: Arc::new(extra),
    }
}

fn access(cx: &Context, user: &User, spec: &Value) -> Value {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let asked = if resource.is_object() {
        let said = |field: &str| text(&resource[field]);
        Asked {
            verb: said("verb"),
            group: said("group"),
            resource: said("resource"),
            subresource: said("subresource"),
            namespace: said("namespace"),
            name: said("name"),
            is_resource: true,
            ..Asked::default()
        }
    } else {
        Asked { verb: text(&path["verb"]), path: text(&path["path"]), ..Asked::default() }
    };
    let decision = cx.server.authorizer.decide(user, &asked);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    status
}

fn rules(cx: &Context, namespace: &str) -> Result<Value> {
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, lacking) = cx.server.authorizer.rules(&cx.user, namespace);
    let (resources, paths): (Vec<_>, Vec<_>) = rules.iter().map(|rule| rule.listed()).partition(|(is_of, _)| *is_of);
    let only = |rules: Vec<(bool, Value)>| rules.into_iter().map(|(_, rule)| rule).collect::<Vec<_>>();
    let mut status =
        json!({"resourceRules": only(resources), "nonResourceRules": only(paths), "incomplete": !lacking.is_empty()});
    if !lacking.is_empty() {
        status["evaluationError"] = lacking.into();
    }
    Ok(status)
}

fn token(cx: &Context, spec: &Value) -> Result<Value> {
    let token = text(&spec["token"]);
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(match authn::bearer(&cx.server, token, &audiences) {
        Ok(bearer) => json!({"authenticated": true, "user": shown(&bearer.user), "audiences": bearer.audiences}),
        Err(why) => json!({"user": {}, "error": why}),
    })
}

fn shown(user: &User) -> Value {
    let mut shown = Map::new();
    shown.insert("username".to_owned(), user.name.clone().into());
    if !user.uid.is_empty() {
        shown.insert("uid".to_owned(), user.uid.clone().into());
    }
    shown.insert("groups".to_owned(), json!(*user.groups));
    if !user.extra.is_empty() {
        shown.insert("extra".to_owned(), json!(*user.extra));
    }
    Value::Object(shown)
}
