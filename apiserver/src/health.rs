//! `/healthz`, `/livez`, `/readyz`: what works, check by check.

use std::sync::atomic::Ordering;

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};

use crate::{Inner, request::pairs};

/// Requests can be answered.
pub(crate) fn is_ready(server: &Inner) -> bool {
    failing(server, "readyz").is_empty()
}

fn checks(page: &str) -> &'static [&'static str] {
    match page {
        "readyz" => &[
            "ping",
            "log",
            "storage",
            "storage-writes",
            "informer-sync",
            "poststarthook/rbac/bootstrap-roles",
            "poststarthook/start-system-namespaces-controller",
            "shutdown",
        ],
        _ => &[
            "ping",
            "log",
            "storage",
            "poststarthook/rbac/bootstrap-roles",
            "poststarthook/start-system-namespaces-controller",
        ],
    }
}

fn works(server: &Inner, check: &str) -> bool {
    match check {
        "storage" => server.windows.is_connected(),
        "storage-writes" => server.windows.takes_writes(),
        "informer-sync" => server.windows.revision() >= server.ready_at,
        "poststarthook/start-system-namespaces-controller" => {
            server.registry.get(&server.kinds.core("namespaces"), "", "kube-system").is_ok()
        }
        "poststarthook/rbac/bootstrap-roles" => server.has_roles.load(Ordering::Acquire),
        "shutdown" => !server.stopping.is_cancelled(),
        _ => true,
    }
}

/// Probes that were written for Kubernetes ask for `etcd`: what they mean is the store.
fn ours(check: &str) -> &str {
    if check == "etcd" { "storage" } else { check }
}

fn failing(server: &Inner, page: &str) -> Vec<&'static str> {
    checks(page).iter().copied().filter(|check| !works(server, check)).collect()
}

/// Answers one of the pages, or one check of it if that is not empty.
pub(crate) fn answer(server: &Inner, page: &str, check: &str, query: &str) -> Response {
    let has = |name: &str| pairs(query).any(|(k, _)| k == name);
    let excluded = pairs(query).filter(|(k, _)| k == "exclude");
    let excluded: Vec<String> = excluded.map(|(_, v)| ours(&v).to_owned()).collect();
    let mut wanted = checks(page).to_vec();
    wanted.retain(|name| check.is_empty() || *name == ours(check));
    if wanted.is_empty() {
        return text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    }
    let mut lines = String::new();
    let mut healthy = true;
    for check in &wanted {
        if excluded.iter().any(|e| e == check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if works(server, check) {
            lines.push_str(&format!("[+]{check} ok\n"));
        } else {
            healthy = false;
            lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    for unknown in excluded.iter().filter(|e| !wanted.contains(&e.as_str())) {
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown:?}\n"));
    }
    match (healthy, has("verbose")) {
        (true, false) => text(StatusCode::OK, "ok".to_owned()),
        (true, true) => text(StatusCode::OK, format!("{lines}{page} check passed\n")),
        (false, _) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{page} check failed\n")),
    }
}

fn text(code: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
