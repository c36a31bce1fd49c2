//! What may they do. Denied, unless a role allows it.

mod bindings;
mod defaults;
mod escalation;
mod rules;

use std::sync::Arc;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use serde_json::Value;

use crate::{
    Inner,
    audit::{self, Notes},
    authn::User,
    handlers::PATIENCE,
    registry::behind,
    request::{Target, pairs},
    router::{Next, target_of},
    selector,
    status::{About, Status},
    window::Windows,
};
use bindings::Bindings;
pub(crate) use defaults::{aggregate, ensure};
pub(crate) use escalation::Escalation;
pub(crate) use rules::Rule;

/// What somebody wants to do, in the words of Kubernetes' authorization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    /// Empty for what is in no namespace, and for all of them.
    pub(crate) namespace: &'a str,
    /// Empty for collections.
    pub(crate) name: &'a str,
    /// Where it is no resource.
    pub(crate) path: &'a str,
    pub(crate) is_resource: bool,
}

impl<'a> From<&'a Target> for Asked<'a> {
    fn from(target: &'a Target) -> Self {
        Self {
            verb: target.verb,
            group: &target.group,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            path: &target.path,
            is_resource: target.is_resource,
        }
    }
}

/// What was decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// May be empty.
    pub(crate) reason: String,
}

/// Decides.
pub(crate) struct Authorizer {
    bindings: Bindings,
}

impl Authorizer {
    /// Over the windows of the four kinds of RBAC, which have been declared.
    pub(crate) fn new(windows: &Windows) -> Self {
        Self { bindings: Bindings::new(windows) }
    }

    /// Whether the user may do it.
    ///
    /// The windows must show what anybody was told of.
    pub(crate) fn decide(&self, user: &User, asked: &Asked<'_>) -> Decision {
        let allow = |reason: String| Decision { allowed: true, reason };
        if user.is_in(MASTERS) {
            return allow(String::new());
        }
        if is_open(asked) {
            return allow(String::new());
        }
        match self.bindings.grant(user, asked) {
            Ok(grant) => allow(grant.to_string()),
            Err(missing) => Decision { allowed: false, reason: lacks(&missing) },
        }
    }

    /// All that the user may do in a namespace, and what kept from knowing more.
    pub(crate) fn rules(&self, user: &User, namespace: &str) -> (Vec<Rule>, String) {
        let (rules, missing) = self.bindings.rules(user, namespace);
        (rules, lacks(&missing))
    }

    /// The rules of the role that a binding names.
    fn of_role(&self, namespace: &str, binding: &Value) -> Option<Vec<Rule>> {
        self.bindings.of_role(namespace, binding)
    }
}

fn lacks(missing: &[String]) -> String {
    match missing {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

/// Who is in it may do everything, also what no role says.
pub(crate) const MASTERS: &str = "system:masters";

/// Probes ask without credentials, and before there are roles.
fn is_open(asked: &Asked<'_>) -> bool {
    let first = asked.path.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    !asked.is_resource && asked.verb == "get" && matches!(first, "healthz" | "livez" | "readyz" | "version")
}

/// Lets through what is allowed.
pub(crate) async fn authorize(server: &Arc<Inner>, request: Request, next: impl Next) -> Response {
    let target = target_of(&request);
    let user = request.extensions().get::<Arc<User>>().cloned().unwrap_or_default();
    let named = named(&target, request.uri().query().unwrap_or_default());
    let mut asked = Asked::from(&*target);
    if let Some(name) = &named {
        asked.name = name;
    }
    // Who was told that they may must not be turned away. Masters may whatever the windows show.
    if !user.is_in(MASTERS) && !is_open(&asked) && !server.windows.current_here(PATIENCE).await {
        return behind().into_response();
    }
    let decision = server.authorizer.decide(&user, &asked);
    if let Some(notes) = request.extensions().get::<Notes>() {
        notes.add(audit::DECISION, if decision.allowed { "allow" } else { "forbid" });
        notes.add(audit::REASON, decision.reason.clone());
    }
    if decision.allowed {
        return next(request).await;
    }
    refusal(&user, &asked, &decision.reason).into_response()
}

/// A collection of which only one object is asked for: roles may name it.
fn named(target: &Target, query: &str) -> Option<String> {
    if !target.name.is_empty() || !matches!(target.verb, "list" | "watch" | "deletecollection") {
        return None;
    }
    let (_, selector) = pairs(query).find(|(name, _)| name == "fieldSelector")?;
    selector::name_in(&selector)
}

/// The 403 of somebody who may not do it.
pub(crate) fn refusal(user: &User, asked: &Asked<'_>, reason: &str) -> Status {
    let Asked { verb, path, group, resource, namespace, name, subresource, .. } = *asked;
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !asked.is_resource {
        return Status::forbidden_path(format!("forbidden: User {:?} cannot {verb} path {path:?}{reason}", user.name));
    }
    let full = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
    let place = match namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!("User {:?} cannot {verb} resource {full:?} in API group {group:?} {place}{reason}", user.name);
    Status::forbidden(About { group, resource, name }, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_health_and_version_are_open_to_everybody() {
        let asks = |path, verb| is_open(&Asked { verb, path, ..Asked::default() });
        for (path, verb, open) in [
            ("/readyz", "get", true),
            ("/livez/ping", "get", true),
            ("/version/", "get", true),
            ("/version", "post", false),
            ("/metrics", "get", false),
            ("/apis", "get", false),
            ("/", "get", false),
        ] {
            assert_eq!(asks(path, verb), open, "{verb} {path}");
        }
        let resource = Asked { verb: "get", path: "/version", is_resource: true, ..Asked::default() };
        assert!(!is_open(&resource));
    }
}
