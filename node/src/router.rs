//! The kubelet API: what the apiserver asks a node.

use crate::log::{self, ContainerLogs, Request};
use crate::runner::Shelf;
use crate::{PodName, Settings, pod};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use serde::{Deserialize, Deserializer};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What the handlers know.
#[derive(Clone)]
struct Kubelet {
    node: Arc<str>,
    shelf: Arc<Shelf>,
    pods: Store<Pod>,
    streams: Arc<Semaphore>,
}

impl Kubelet {
    /// The logs of a container, or why there are none.
    fn find(&self, namespace: String, name: &str, container: &str) -> Result<Arc<ContainerLogs>, (StatusCode, String)> {
        let pod = self.pods.get(&ObjectRef::new(name).within(&namespace));
        let found = self.shelf.get(&PodName { namespace, name: name.to_owned() }, container);
        found.ok_or_else(|| {
            let Some(pod) = pod else {
                return (StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
            };
            let mut known = pod::init_containers(&pod).iter().chain(pod::containers(&pod));
            if known.any(|known| known.name == container) {
                return is_waiting(name, container);
            }
            (StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {name:?}"))
        })
    }
}

pub(crate) fn router(settings: &Settings, shelf: Arc<Shelf>, pods: Store<Pod>) -> Router {
    let kubelet = Kubelet {
        node: settings.node_name.as_str().into(),
        shelf,
        pods,
        streams: Arc::new(Semaphore::new(settings.log_streams)),
    };
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(list))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .with_state(kubelet)
}

async fn list(State(kubelet): State<Kubelet>) -> Json<List<Pod>> {
    let pods = kubelet.pods.state_filter(|pod| pod::node(pod) == Some(&kubelet.node));
    Json(List { items: pods.iter().map(|pod| Pod::clone(pod)).collect(), ..List::default() })
}

/// The query of a log request, as kubectl writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LogQuery {
    #[serde(deserialize_with = "flag")]
    follow: bool,
    #[serde(deserialize_with = "flag")]
    previous: bool,
    #[serde(deserialize_with = "flag")]
    timestamps: bool,
    tail_lines: Option<u64>,
    since_seconds: Option<u32>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<u64>,
}

/// A flag without value is set, as it is for Go's clients.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(serde::de::Error::custom(format!("{other:?} is neither true nor false"))),
    }
}

impl LogQuery {
    fn request(&self, now: Timestamp) -> Request {
        let ago = |seconds| now.checked_sub(SignedDuration::from_secs(i64::from(seconds))).ok();
        Request {
            // What is over cannot grow.
            follow: self.follow && !self.previous,
            tail_lines: self.tail_lines,
            since: self.since_time.or_else(|| self.since_seconds.and_then(ago)),
            timestamps: self.timestamps,
            limit_bytes: self.limit_bytes,
        }
    }
}

async fn logs(
    State(kubelet): State<Kubelet>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, (StatusCode, String)> {
    let logs = kubelet.find(namespace, &name, &container)?;
    let log = if query.previous {
        let none = || format!("previous terminated container {container:?} in pod {name:?} not found");
        logs.previous().ok_or_else(|| (StatusCode::BAD_REQUEST, none()))?
    } else {
        logs.current().ok_or_else(|| is_waiting(&name, &container))?
    };
    let busy = |_| (StatusCode::TOO_MANY_REQUESTS, "too many logs are being read".to_owned());
    let permit = Arc::clone(&kubelet.streams).try_acquire_owned().map_err(busy)?;
    let lines = log::read(log, query.request(Timestamp::now())).map(move |piece| {
        let _until_the_end = &permit;
        piece
    });
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((plain, Body::from_stream(lines)).into_response())
}

fn is_waiting(pod: &str, container: &str) -> (StatusCode, String) {
    let message = format!("container {container:?} in pod {pod:?} is waiting to start: ContainerCreating");
    (StatusCode::BAD_REQUEST, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    use tower::ServiceExt;

    fn name() -> PodName {
        PodName { namespace: "n".into(), name: "p".into() }
    }

    /// A node with one Pod, whose container `c` printed two lines in its second run and one in its first.
    fn kubelet(directory: &std::path::Path, streams: usize) -> Router {
        let logs = log::ContainerLogs::open(directory.join("c"), 1 << 20).unwrap();
        for run in [&["first"][..], &["one", "two"][..]] {
            let log = logs.begin().unwrap();
            for line in run {
                log.write(line.as_bytes(), true, Timestamp::now()).unwrap();
            }
            log.end();
        }
        let waiting = log::ContainerLogs::open(directory.join("w"), 1 << 20).unwrap();
        let shelf = Arc::new(Shelf::default());
        shelf.put(name(), [("c".to_owned(), Arc::new(logs)), ("w".to_owned(), Arc::new(waiting))].into());
        let settings = Settings { log_streams: streams, ..Settings::default() };
        router(&settings, shelf, kube::runtime::reflector::store().0)
    }

    async fn ask(kubelet: &Router, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let answer = kubelet.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn logs_are_served_as_a_kubelet_does() {
        let directory = tempfile::tempdir().unwrap();
        let kubelet = kubelet(directory.path(), 8);
        for (path, status, body) in [
            ("/healthz", 200, "ok"),
            ("/containerLogs/n/p/c", 200, "one\ntwo\n"),
            ("/containerLogs/n/p/c?tailLines=1&follow=true", 200, "two\n"),
            ("/containerLogs/n/p/c?previous=true", 200, "first\n"),
            ("/containerLogs/n/p/w", 400, "is waiting to start"),
            ("/containerLogs/n/p/w?previous=true", 400, "previous terminated container"),
            ("/containerLogs/n/p/none", 404, "not"),
            ("/containerLogs/n/none/c", 404, "does not exist"),
            ("/pods", 200, "PodList"),
        ] {
            let answer = ask(&kubelet, path).await;
            assert_eq!(answer.0, status, "{path}");
            assert!(answer.1.contains(body), "{path}: {}", answer.1);
        }
    }

    #[tokio::test]
    async fn no_more_logs_are_read_at_once_than_the_settings_allow() {
        let directory = tempfile::tempdir().unwrap();
        let kubelet = kubelet(directory.path(), 0);
        assert_eq!(ask(&kubelet, "/containerLogs/n/p/c").await.0, 429);
    }

    fn query(text: &str) -> Result<LogQuery, String> {
        let uri = format!("http://node/?{text}").parse().unwrap();
        Query::try_from_uri(&uri).map(|Query(query)| query).map_err(|error| error.to_string())
    }

    #[test]
    fn a_query_is_read_as_kubectl_writes_it() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let request =
            query("follow=true&tailLines=5&sinceSeconds=60&timestamps=true&limitBytes=9").unwrap().request(now);
        let expected = Request {
            follow: true,
            tail_lines: Some(5),
            since: Some(Timestamp::from_second(1_700_000_000 - 60).unwrap()),
            timestamps: true,
            limit_bytes: Some(9),
        };
        assert_eq!(request, expected);
        assert_eq!(query("").unwrap().request(now), Request::default());
        assert!(!query("follow=true&previous=true").unwrap().request(now).follow);
        let since = query("sinceTime=2023-11-14T22:13:20Z").unwrap().request(now).since;
        assert_eq!(since, Some(now));
    }

    #[test]
    fn a_wrong_query_is_refused() {
        for text in ["tailLines=x", "tailLines=-1", "follow=perhaps", "sinceTime=yesterday"] {
            assert!(query(text).is_err(), "{text}");
        }
    }
}
