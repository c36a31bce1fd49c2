//! What happened, counted: `/metrics` in the text form of Prometheus, under the names that scrapers know.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderValue, header};
use parking_lot::RwLock;

use crate::{Inner, discovery, request::Target};

/// The upper bounds of the buckets of durations, in seconds.
const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// No more different label sets than this are kept apart; the rest is counted as `other`.
const SETS: usize = 2000;

/// verb, group, version, resource, subresource, code
type Labels = (&'static str, String, String, String, String, u16);

/// All counters.
pub(crate) struct Metrics {
    requests: RwLock<BTreeMap<Labels, Arc<Series>>>,
    watchers: RwLock<BTreeMap<String, Arc<AtomicI64>>>,
    in_flight: AtomicI64,
    started: f64,
}

#[derive(Default)]
struct Series {
    count: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let started = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
        Self { requests: RwLock::default(), watchers: RwLock::default(), in_flight: AtomicI64::new(0), started }
    }

    /// One watcher more, or less.
    pub(crate) fn watchers(&self, resource: &str, change: i64) {
        if let Some(count) = self.watchers.read().get(resource) {
            count.fetch_add(change, Ordering::Relaxed);
            return;
        }
        self.watchers.write().entry(resource.to_owned()).or_default().fetch_add(change, Ordering::Relaxed);
    }

    /// Some request is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    fn record(&self, labels: Labels, seconds: f64) {
        let known = self.requests.read().get(&labels).cloned();
        let series = known.unwrap_or_else(|| {
            let mut requests = self.requests.write();
            let labels = if requests.len() < SETS {
                labels
            } else {
                ("other", String::new(), String::new(), String::new(), String::new(), 0)
            };
            requests.entry(labels).or_default().clone()
        });
        series.count.fetch_add(1, Ordering::Relaxed);
        series.micros.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            series.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts a request and how long it took to be answered.
pub(crate) async fn count(State(server): State<Arc<Inner>>, request: Request, next: Next) -> Response {
    let target = request.extensions().get::<Target>().cloned().unwrap_or_default();
    let began = Instant::now();
    let in_flight = InFlight::one(&server.metrics.in_flight);
    let response = next.run(request).await;
    drop(in_flight);
    server.metrics.record(labels(&server, target, response.status().as_u16()), began.elapsed().as_secs_f64());
    response
}

/// Names that are unknown here can be made up by anybody, in any number and of any length: they are no labels.
fn labels(server: &Inner, target: Target, code: u16) -> Labels {
    let Target { verb, group, version, resource, mut subresource, .. } = target;
    let Some(kind) = server.kinds.find(&group, &version, &resource) else {
        return (verb, String::new(), String::new(), String::new(), String::new(), code);
    };
    if !discovery::parts(&kind).iter().any(|(name, ..)| *name == subresource) {
        subresource.clear();
    }
    (verb, group, version, resource, subresource, code)
}

/// A request that is being answered. It ends with this, also when its client goes away or its handler panics.
struct InFlight<'a>(&'a AtomicI64);

impl<'a> InFlight<'a> {
    fn one(count: &'a AtomicI64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers `/metrics`.
pub(crate) fn page(server: &Inner) -> Response {
    let mut text = String::new();
    write_page(server, &mut text).expect("a String takes everything");
    let mut response = Response::new(Body::from(text));
    let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

fn write_page(server: &Inner, text: &mut String) -> std::fmt::Result {
    let metrics = &server.metrics;
    let requests: Vec<_> = metrics.requests.read().iter().map(|(l, s)| (l.clone(), s.clone())).collect();
    writeln!(text, "# HELP apiserver_request_total Requests by what they asked for and how they were answered.")?;
    writeln!(text, "# TYPE apiserver_request_total counter")?;
    for (labels, series) in &requests {
        writeln!(text, "apiserver_request_total{{{}}} {}", shown(labels), series.count.load(Ordering::Relaxed))?;
    }
    writeln!(text, "# HELP apiserver_request_duration_seconds Time until the answer began.")?;
    writeln!(text, "# TYPE apiserver_request_duration_seconds histogram")?;
    for (labels, series) in &requests {
        let labels = shown(labels);
        let mut sum = 0;
        for (bound, bucket) in BUCKETS.iter().zip(&series.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            writeln!(text, "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {sum}")?;
        }
        let count = series.count.load(Ordering::Relaxed);
        let seconds = series.micros.load(Ordering::Relaxed) as f64 / 1e6;
        writeln!(text, "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(text, "apiserver_request_duration_seconds_sum{{{labels}}} {seconds}")?;
        writeln!(text, "apiserver_request_duration_seconds_count{{{labels}}} {count}")?;
    }
    writeln!(text, "# HELP apiserver_current_inflight_requests Requests whose answer has not begun.")?;
    writeln!(text, "# TYPE apiserver_current_inflight_requests gauge")?;
    writeln!(text, "apiserver_current_inflight_requests {}", metrics.in_flight.load(Ordering::Relaxed))?;
    writeln!(text, "# HELP apiserver_longrunning_requests Watches that are open.")?;
    writeln!(text, "# TYPE apiserver_longrunning_requests gauge")?;
    for (resource, count) in metrics.watchers.read().iter() {
        let count = count.load(Ordering::Relaxed);
        let resource = escaped(resource);
        writeln!(text, "apiserver_longrunning_requests{{verb=\"WATCH\",resource=\"{resource}\"}} {count}")?;
    }
    writeln!(text, "# HELP apiserver_storage_objects Objects in the store.")?;
    writeln!(text, "# TYPE apiserver_storage_objects gauge")?;
    for kind in server.kinds.table().kinds.iter().filter(|k| k.is_stored()) {
        let full = if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group) };
        let full = escaped(&full);
        writeln!(text, "apiserver_storage_objects{{resource=\"{full}\"}} {}", server.registry.window(kind).count())?;
    }
    if let Some(auditor) = &server.audit {
        auditor.write_metrics(text)?;
    }
    writeln!(text, "# HELP onex_storage_revision The revision that reads show.")?;
    writeln!(text, "# TYPE onex_storage_revision gauge")?;
    writeln!(text, "onex_storage_revision {}", server.windows.revision())?;
    writeln!(text, "# HELP process_start_time_seconds When this process started.")?;
    writeln!(text, "# TYPE process_start_time_seconds gauge")?;
    writeln!(text, "process_start_time_seconds {}", metrics.started)?;
    if let Some(bytes) = resident_bytes() {
        writeln!(text, "# HELP process_resident_memory_bytes Memory that is resident.")?;
        writeln!(text, "# TYPE process_resident_memory_bytes gauge")?;
        writeln!(text, "process_resident_memory_bytes {bytes}")?;
    }
    Ok(())
}

fn shown((verb, group, version, resource, subresource, code): &Labels) -> String {
    let verb = verb.to_uppercase();
    let [group, version, resource, subresource] = [group, version, resource, subresource].map(|label| escaped(label));
    format!(
        "verb=\"{verb}\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",subresource=\"{subresource}\",code=\"{code}\""
    )
}

/// A label as it stands between quotes.
fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Linux tells; elsewhere nobody is asked.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_its_line() {
        let label = "a\"} 1\nb\\".to_owned();
        let labels = ("get", label, "v1".to_owned(), "pods".to_owned(), String::new(), 200);
        assert_eq!(
            shown(&labels),
            r#"verb="GET",group="a\"} 1\nb\\",version="v1",resource="pods",subresource="",code="200""#
        );
    }
}
