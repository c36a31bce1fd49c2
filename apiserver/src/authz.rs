//! What may they do. Denied, unless something here allows it.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    Inner,
    audit::{self, Notes},
    authn::User,
    request::Target,
    status::{About, Status},
};

/// Lets through what is allowed.
pub(crate) async fn authorize(State(_): State<Arc<Inner>>, request: Request, next: Next) -> Response {
    let target = request.extensions().get::<Target>().cloned().unwrap_or_default();
    let user = request.extensions().get::<User>().cloned().unwrap_or_default();
    let allowed = is_allowed(&user, &target);
    if let Some(notes) = request.extensions().get::<Notes>() {
        notes.add(audit::DECISION, if allowed { "allow" } else { "forbid" });
    }
    if allowed {
        return next.run(request).await;
    }
    refusal(&user, &target).into_response()
}

/// `system:masters` may do everything; anybody may ask for health and version; whoever has shown who they are may look
/// at discovery. Roles come with RBAC.
fn is_allowed(user: &User, target: &Target) -> bool {
    if user.is_in("system:masters") {
        return true;
    }
    if target.is_resource || target.verb != "get" {
        return false;
    }
    let first = target.path.split('/').find(|p| !p.is_empty()).unwrap_or_default();
    match first {
        "healthz" | "livez" | "readyz" | "version" => true,
        "" | "api" | "apis" | "openapi" | ".well-known" | "openid" => user.is_in("system:authenticated"),
        _ => false,
    }
}

fn refusal(user: &User, target: &Target) -> Status {
    let Target { verb, path, group, resource, namespace, name, subresource, .. } = target;
    if !target.is_resource {
        return Status::forbidden_path(format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name));
    }
    let full = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    let place = match namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!("User {:?} cannot {verb} resource {full:?} in API group {group:?} {place}", user.name);
    Status::forbidden(About { group, resource, name }, why)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn what_nothing_allows_is_denied() {
        let admin = User::new("admin", vec!["system:masters".to_owned()]);
        let bob = User::new("bob", vec![]);
        let nobody = User { name: "system:anonymous".to_owned(), ..User::default() };
        let may = |user: &User, path: &str| is_allowed(user, &Target::read(&Method::GET, path, ""));
        let cases = [
            (&admin, "/api/v1/secrets", true),
            (&bob, "/api/v1/secrets", false),
            (&bob, "/apis", true),
            (&bob, "/metrics", false),
            (&nobody, "/readyz", true),
            (&nobody, "/version", true),
            (&nobody, "/apis", false),
            (&nobody, "/api/v1/namespaces", false),
        ];
        for (user, path, allowed) in cases {
            assert_eq!(may(user, path), allowed, "{} {path}", user.name);
        }
    }
}
