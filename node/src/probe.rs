//! Asking a container whether it is well.

use crate::image;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpStream;

/// What a probe decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// How the question is put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    Http {
        host: String,
        port: u16,
        path: String,
        headers: Vec<(String, String)>,
    },
    Tcp {
        host: String,
        port: u16,
    },
    /// A question that this node cannot put, and why.
    Unsupported(String),
}

/// When a question is put, and how often it has to be answered alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) check: Check,
    pub(crate) delay: Duration,
    /// From one question to the next, as long as the verdict is not the good one.
    pub(crate) period_until_good: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) successes: u32,
    /// How many answers have to be bad as long as the verdict is not the good one.
    pub(crate) failures_until_good: u32,
    pub(crate) failures: u32,
}

/// The port on which `toyblc` answers `/healthz` when its arguments do not say.
const TOYBLC_PORT: u16 = 38080;

/// Between two questions to a container that is not ready.
const HURRY: Duration = Duration::from_millis(500);

/// The probes of `container`, started with `arguments`. Our own program needs none: it is asked for its health anyway.
pub(crate) fn plans(container: &Container, arguments: &[String], address: Ipv4Addr) -> Vec<Plan> {
    let named = [
        (Kind::Startup, &container.startup_probe),
        (Kind::Readiness, &container.readiness_probe),
        (Kind::Liveness, &container.liveness_probe),
    ];
    let mut plans: Vec<Plan> =
        named.into_iter().filter_map(|(kind, probe)| Some(plan(kind, probe.as_ref()?, container, address))).collect();
    let toyblc = image::is_toyblc(container.image.as_deref().unwrap_or_default());
    if toyblc && container.readiness_probe.is_none() {
        plans.push(toyblc_plan(arguments, address));
    }
    plans
}

fn toyblc_plan(arguments: &[String], address: Ipv4Addr) -> Plan {
    let port = arguments
        .iter()
        .filter_map(|argument| argument.strip_prefix("--http.addr="))
        .find_map(|address| address.rsplit_once(':')?.1.parse().ok());
    Plan {
        kind: Kind::Readiness,
        check: Check::Http {
            host: address.to_string(),
            port: port.unwrap_or(TOYBLC_PORT),
            path: "/healthz".to_owned(),
            headers: Vec::new(),
        },
        delay: Duration::from_millis(50),
        period_until_good: Duration::from_millis(250),
        period: Duration::from_secs(5),
        timeout: Duration::from_secs(3),
        successes: 1,
        // Some seconds, in which it may start.
        failures_until_good: 20,
        failures: 3,
    }
}

fn plan(kind: Kind, probe: &Probe, container: &Container, address: Ipv4Addr) -> Plan {
    let seconds = |value: Option<i32>, default: u64, least: u64| {
        let value = value.and_then(|value| u64::try_from(value).ok());
        Duration::from_secs(value.unwrap_or(default).max(least))
    };
    let count =
        |value: Option<i32>, default: u32| value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1);
    let period = seconds(probe.period_seconds, 10, 1);
    let failures = count(probe.failure_threshold, 3);
    // Readiness is asked for more often until it is there, and has to be missing for as long as it says all the same.
    let hurry = if kind == Kind::Readiness { (period.as_millis() / HURRY.as_millis()).max(1) as u32 } else { 1 };
    Plan {
        kind,
        check: check(probe, container, address),
        delay: seconds(probe.initial_delay_seconds, 0, 0),
        period_until_good: period / hurry,
        period,
        timeout: seconds(probe.timeout_seconds, 1, 1),
        successes: count(probe.success_threshold, 1),
        failures_until_good: failures.saturating_mul(hurry),
        failures,
    }
}

fn check(probe: &Probe, container: &Container, address: Ipv4Addr) -> Check {
    let host =
        |named: &Option<String>| named.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| address.to_string());
    let checked = match (&probe.http_get, &probe.tcp_socket) {
        (Some(get), _) if is_https(get) => None,
        (Some(get), _) => port(&get.port, container).map(|port| Check::Http {
            host: host(&get.host),
            port,
            path: get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
            headers: get
                .http_headers
                .iter()
                .flatten()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        }),
        (None, Some(socket)) => port(&socket.port, container).map(|port| Check::Tcp { host: host(&socket.host), port }),
        (None, None) => None,
    };
    checked.unwrap_or_else(|| {
        let why = "this node asks by plain HTTP or TCP on a port that exists, not by exec, gRPC or HTTPS";
        Check::Unsupported(why.to_owned())
    })
}

fn is_https(get: &HTTPGetAction) -> bool {
    get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .and_then(|port| u16::try_from(port.container_port).ok())
            .or_else(|| name.parse().ok()),
    }
}

/// Puts the question once. The error says what was wrong with the answer.
pub(crate) async fn ask(check: &Check, timeout: Duration) -> Result<(), String> {
    let asked = async {
        match check {
            Check::Http { host, port, path, headers } => get(host, *port, path, headers).await,
            Check::Tcp { host, port } => connect(host, *port).await.map(drop),
            Check::Unsupported(why) => Err(why.clone()),
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

async fn get(host: &str, port: u16, path: &str, headers: &[(String, String)]) -> Result<(), String> {
    let stream = TokioIo::new(connect(host, port).await?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let mut request = http::Request::get(path).header(http::header::USER_AGENT, "onex-node");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header(http::header::HOST, format!("{host}:{port}"));
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // The body is not read: dropping the connection ends it.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await, // it ended with the answer, or with an error that the answer knows
    };
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
}

/// Counts answers until enough of them agree.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    plan: &'a Plan,
    run: u32,
    last: Option<bool>,
    verdict: Option<bool>,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self { plan, run: 0, last: None, verdict: None }
    }

    /// The verdict after one more answer, or `None` as long as too few agree.
    pub(crate) fn count(&mut self, good: bool) -> Option<bool> {
        self.run = if self.last == Some(good) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(good);
        let needed = match (good, self.is_good()) {
            (true, _) => self.plan.successes,
            (false, true) => self.plan.failures,
            (false, false) => self.plan.failures_until_good,
        };
        let verdict = (self.run >= needed).then_some(good);
        self.verdict = verdict.or(self.verdict);
        verdict
    }

    /// From the last question to the next one.
    pub(crate) fn period(&self) -> Duration {
        let hurries = self.last == Some(false) && !self.is_good();
        if hurries { self.plan.period_until_good } else { self.plan.period }
    }

    fn is_good(&self) -> bool {
        self.verdict == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 1);

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_toyblc_without_probe_is_asked_for_its_health() {
        let container = container(json!({"name": "toyblc", "image": "a/onex-toyblc:1"}));
        for (arguments, expected) in [(vec![], 38080), (vec!["--http.addr=127.64.0.1:9000".to_owned()], 9000)] {
            let plans = plans(&container, &arguments, ADDRESS);
            assert_eq!(plans.len(), 1);
            assert!(
                matches!(&plans[0].check, Check::Http { port, path, .. } if *port == expected && path == "/healthz")
            );
        }
    }

    #[test]
    fn a_container_without_probe_is_not_asked() {
        assert!(plans(&container(json!({"name": "c", "image": "sh"})), &[], ADDRESS).is_empty());
    }

    #[test]
    fn probes_are_read_from_the_container() {
        let container = container(json!({
            "name": "c", "image": "sh",
            "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"port": "web", "path": "/ready"}, "periodSeconds": 2},
            "livenessProbe": {"tcpSocket": {"port": 7}, "failureThreshold": 5},
            "startupProbe": {"exec": {"command": ["true"]}},
        }));
        let plans = plans(&container, &[], ADDRESS);
        assert!(matches!(plans[0].check, Check::Unsupported(_)));
        let expected =
            Check::Http { host: "127.64.0.1".into(), port: 8080, path: "/ready".into(), headers: Vec::new() };
        assert_eq!((&plans[1].check, plans[1].period), (&expected, Duration::from_secs(2)));
        // Kubernetes would ask three times in six seconds; asking more often must not make it lose patience earlier.
        assert_eq!(plans[1].period_until_good * plans[1].failures_until_good, Duration::from_secs(6));
        assert_eq!(plans[1].failures, 3);
        assert!(matches!(&plans[2].check, Check::Tcp { port: 7, .. }));
        assert_eq!(plans[2].failures, 5);
    }

    #[test]
    fn a_verdict_needs_enough_answers_that_agree() {
        let mut plan = toyblc_plan(&[], ADDRESS);
        (plan.successes, plan.failures) = (2, 3);
        let mut tally = Tally::new(&plan);
        let verdicts: Vec<_> =
            [true, true, false, false, true, false, false, false].map(|good| tally.count(good)).into();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts, [None, yes, None, None, None, None, None, no]);
    }

    #[test]
    fn whoever_was_well_is_asked_as_often_as_agreed_and_not_given_more_chances() {
        let mut plan = toyblc_plan(&[], ADDRESS);
        (plan.successes, plan.failures_until_good, plan.failures) = (1, 4, 2);
        let mut tally = Tally::new(&plan);
        let verdicts: Vec<_> = [false, false, true, false, false, false]
            .map(|good| (tally.count(good), tally.period() == plan.period))
            .into();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(
            verdicts,
            [(None, false), (None, false), (yes, true), (None, true), (no, false), (None, false)],
            "hurries only as long as it is not well"
        );
    }

    async fn answers(status: &'static str) -> Result<(), String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let check = Check::Http { host: "127.0.0.1".into(), port, path: "/healthz".into(), headers: Vec::new() };
        ask(&check, Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn an_answer_below_400_is_good() {
        assert_eq!(answers("200 OK").await, Ok(()));
        assert_eq!(answers("302 Found").await, Ok(()));
        assert!(answers("503 Service Unavailable").await.unwrap_err().contains("503"));
    }
}
