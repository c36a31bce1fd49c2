//! The variable `authorizer`: an expression may ask what whoever makes a request may do.
//!
//! `authorizer.group('apps').resource('deployments').namespace('n').check('create').allowed()`: each call says more of the
//! question, `check` decides it. `authorizer.requestResource` is what the request itself is about.

use std::{collections::HashMap, sync::Arc};

use kube_cel::cel::{
    Context, ExecutionError, Value,
    extractors::This,
    objects::{Key, Opaque},
};

use super::expression::AUTHORIZER;
use crate::{
    authn::User,
    authz::{Asked, Authorizer, Decision},
    meta,
};

/// A question, as far as it was put, or what was decided.
#[derive(Clone)]
struct Question {
    authorizer: Arc<Authorizer>,
    user: User,
    so_far: SoFar,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SoFar {
    Nothing,
    Path(String),
    Group(String),
    Resource(Resource),
    Decided(Decision),
}

/// The resource that a question is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the group of Kubernetes' first kinds.
    pub group: String,
    /// The plural, such as `pods`.
    pub resource: String,
    /// May be empty.
    pub subresource: String,
    /// May be empty.
    pub namespace: String,
    /// May be empty.
    pub name: String,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.so_far.fmt(f)
    }
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.user.name == other.user.name && self.so_far == other.so_far
    }
}

impl Eq for Question {}

impl Opaque for Question {
    fn runtime_type_name(&self) -> &str {
        match &self.so_far {
            SoFar::Nothing => "kubernetes.authorization.Authorizer",
            SoFar::Path(_) => "kubernetes.authorization.PathCheck",
            SoFar::Group(_) => "kubernetes.authorization.GroupCheck",
            SoFar::Resource(_) => "kubernetes.authorization.ResourceCheck",
            SoFar::Decided(_) => "kubernetes.authorization.Decision",
        }
    }
}

/// The key under which the variable, which has a field, keeps the question itself.
const ITSELF: &str = "";

/// Declares the variable with all its functions. `request` is what the request is about.
pub fn declare(context: &mut Context<'_>, authorizer: &Arc<Authorizer>, user: &User, request: Resource) {
    let question = |so_far| Question { authorizer: authorizer.clone(), user: user.clone(), so_far };
    let fields: HashMap<Key, Value> = [
        (ITSELF.into(), question(SoFar::Nothing).into()),
        ("requestResource".into(), question(SoFar::Resource(request)).into()),
    ]
    .into();
    context.add_variable_from_value(AUTHORIZER, fields);
    context.add_function("path", path);
    context.add_function("group", group);
    context.add_function("serviceAccount", service_account);
    context.add_function("resource", resource);
    context.add_function("subresource", |this: This<Value>, name: Arc<String>| {
        about(this, |r| r.subresource = text(name))
    });
    context.add_function("namespace", |this: This<Value>, name: Arc<String>| about(this, |r| r.namespace = text(name)));
    context.add_function("name", |this: This<Value>, name: Arc<String>| about(this, |r| r.name = text(name)));
    // Roles say nothing of selectors, so they change no decision.
    context.add_function("fieldSelector", |this: This<Value>, _: Arc<String>| about(this, |_| {}));
    context.add_function("labelSelector", |this: This<Value>, _: Arc<String>| about(this, |_| {}));
    context.add_function("check", check);
    context.add_function("allowed", |this: This<Value>| Ok(Value::Bool(decided(this)?.allowed)));
    context.add_function("reason", |this: This<Value>| Ok(Value::String(decided(this)?.reason.into())));
    context.add_function("errored", |this: This<Value>| decided(this).map(|_| Value::Bool(false)));
    context.add_function("error", |this: This<Value>| decided(this).map(|_| Value::String(String::new().into())));
}

type Answer = Result<Value, ExecutionError>;

impl From<Question> for Value {
    fn from(question: Question) -> Self {
        Value::Opaque(Arc::new(question))
    }
}

fn text(text: Arc<String>) -> String {
    Arc::unwrap_or_clone(text)
}

fn error<T>(why: &str) -> Result<T, ExecutionError> {
    Err(ExecutionError::function_error(AUTHORIZER, why))
}

fn question(This(this): This<Value>) -> Result<Question, ExecutionError> {
    let this = match &this {
        Value::Map(fields) => fields.map.get(&Key::from(ITSELF)).unwrap_or(&this),
        _ => &this,
    };
    match this {
        Value::Opaque(opaque) => {
            opaque.downcast_ref::<Question>().cloned().map_or_else(|| error("no such overload"), Ok)
        }
        _ => error("no such overload"),
    }
}

fn path(this: This<Value>, path: Arc<String>) -> Answer {
    let question = question(this)?;
    match question.so_far {
        SoFar::Nothing if path.trim().is_empty() => error("path must not be empty"),
        SoFar::Nothing => Ok(Question { so_far: SoFar::Path(text(path)), ..question }.into()),
        _ => error("no such overload"),
    }
}

fn group(this: This<Value>, group: Arc<String>) -> Answer {
    let question = question(this)?;
    match question.so_far {
        SoFar::Nothing => Ok(Question { so_far: SoFar::Group(text(group)), ..question }.into()),
        _ => error("no such overload"),
    }
}

fn service_account(this: This<Value>, namespace: Arc<String>, name: Arc<String>) -> Answer {
    let question = question(this)?;
    if question.so_far != SoFar::Nothing {
        return error("no such overload");
    }
    if !meta::dns_subdomain(&name).is_empty() {
        return error("Invalid service account name");
    }
    if !meta::dns_label(&namespace).is_empty() {
        return error("Invalid service account namespace");
    }
    let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    let user = User::new(&format!("system:serviceaccount:{namespace}:{name}"), groups);
    Ok(Question { user, ..question }.into())
}

fn resource(this: This<Value>, resource: Arc<String>) -> Answer {
    let question = question(this)?;
    match &question.so_far {
        SoFar::Group(_) if resource.trim().is_empty() => error("resource must not be empty"),
        SoFar::Group(group) => {
            let so_far = Resource { group: group.clone(), resource: text(resource), ..Resource::default() };
            Ok(Question { so_far: SoFar::Resource(so_far), ..question }.into())
        }
        _ => error("no such overload"),
    }
}

/// Says more of the resource that a question is about.
fn about(this: This<Value>, say: impl FnOnce(&mut Resource)) -> Answer {
    let mut question = question(this)?;
    match &mut question.so_far {
        SoFar::Resource(resource) => say(resource),
        _ => return error("no such overload"),
    }
    Ok(question.into())
}

fn check(this: This<Value>, verb: Arc<String>) -> Answer {
    let question = question(this)?;
    let asked = match &question.so_far {
        SoFar::Path(path) => Asked { verb: &verb, path, ..Asked::default() },
        SoFar::Resource(Resource { group, resource, subresource, namespace, name }) => {
            Asked { verb: &verb, group, resource, subresource, namespace, name, path: "", is_resource: true }
        }
        _ => return error("no such overload"),
    };
    let decision = question.authorizer.decide(&question.user, &asked);
    Ok(Question { so_far: SoFar::Decided(decision), ..question }.into())
}

fn decided(this: This<Value>) -> Result<Decision, ExecutionError> {
    match question(this)?.so_far {
        SoFar::Decided(decision) => Ok(decision),
        _ => error("no such overload"),
    }
}
