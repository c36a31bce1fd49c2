//! `pods/log`: asks the kubelet of the Pod's node, over mutual TLS, and passes on what it says.

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::Context;
use crate::{
    request::pairs,
    status::{Result, Status},
};

/// What the kubelet understands of the client's query.
const PASSED: &[&str] =
    &["follow", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "previous", "limitBytes", "stream"];

/// Streams the log of a container.
pub(super) async fn log(cx: &Context) -> Result<Response> {
    let pod = cx.server.registry.get(&cx.kind, cx.namespace(), &cx.target.name)?.value();
    let container = container(cx, &pod)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Ok(text(Body::empty())); // not scheduled yet: it has said nothing
    }
    let address = address(cx, node)?;
    let path = format!("/containerLogs/{}/{}/{container}", cx.namespace(), cx.target.name);
    let url = format!("https://{address}{path}?{}", passed(&cx.query));
    let answer = cx.server.kubelets.get(&url).await?;
    let status = answer.status();
    if status.is_success() {
        return Ok(text(answer.into_body()));
    }
    let said = http_body_util::BodyExt::collect(http_body_util::Limited::new(answer.into_body(), 4096)).await;
    let said = said.map(|c| String::from_utf8_lossy(&c.to_bytes()).trim().to_owned()).unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Err(Status::bad_request(said)),
        _ => Err(Status::internal(said)),
    }
}

fn passed(query: &str) -> String {
    let mut passed = Serializer::new(String::new());
    for (name, value) in pairs(query).filter(|(name, _)| PASSED.contains(&name.as_ref())) {
        passed.append_pair(&name, &value);
    }
    passed.finish()
}

fn container(cx: &Context, pod: &Value) -> Result<String> {
    let names = |field: &str| {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (containers, others) = (names("containers"), names("initContainers"));
    let pod_name = &cx.target.name;
    match cx.parameter("container").filter(|c| !c.is_empty()) {
        Some(wanted) if containers.contains(&wanted) || others.contains(&wanted) => Ok(wanted),
        Some(wanted) => Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}"))),
        None => match containers.as_slice() {
            [one] => Ok(one.clone()),
            many => {
                let why = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    many.join(" ")
                );
                Err(Status::bad_request(why))
            }
        },
    }
}

/// Where the kubelet of a node listens, as the Node says.
fn address(cx: &Context, node: &str) -> Result<String> {
    let nodes = cx.server.kinds.core("nodes");
    let node = cx.server.registry.get(&nodes, "", node)?.value();
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let internal = addresses.iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    match (internal, port) {
        (Some(host), Some(port)) => Ok(authority(host, port)),
        _ => Err(Status::unavailable("the node says nowhere where its kubelet listens")),
    }
}

/// Host and port as a URL has them. An address of IPv6 stands in brackets.
fn authority(host: &str, port: u64) -> String {
    let brackets = host.parse::<std::net::Ipv6Addr>().is_ok();
    if brackets { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn text(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_any_family_can_stand_in_a_url() {
        for (host, expected) in
            [("10.0.0.1", "10.0.0.1:10250"), ("fd00::1", "[fd00::1]:10250"), ("node-1", "node-1:10250")]
        {
            assert_eq!(authority(host, 10250), expected);
            assert!(format!("https://{expected}/containerLogs").parse::<http::Uri>().is_ok());
        }
    }
}
