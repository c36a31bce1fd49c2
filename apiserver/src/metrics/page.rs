//! `/metrics`: what was counted, in the text form of Prometheus.

use std::{fmt::Write as _, sync::atomic::Ordering};

use axum::{body::Body, response::Response};
use http::{HeaderValue, header};

use super::{BUCKETS, Labels, Operation, Series};
use crate::{Inner, version};

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
    requests(server, text)?;
    now(server, text)?;
    watches(server, text)?;
    store(server, text)?;
    if let Some(auditor) = &server.audit {
        auditor.write_metrics(text)?;
    }
    process(server, text)
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn requests(server: &Inner, text: &mut String) -> std::fmt::Result {
    let metrics = &server.metrics;
    let requests: Vec<_> = metrics.requests.read().iter().map(|(l, s)| (l.clone(), s.clone())).collect();
    let help = "Requests by what they asked for and how they were answered.";
    family(text, "apiserver_request_total", "counter", help)?;
    for (labels, series) in &requests {
        let count = series.count.load(Ordering::Relaxed);
        writeln!(text, "apiserver_request_total{{{},code=\"{}\"}} {count}", shown(labels), labels.code)?;
    }
    family(text, "apiserver_request_duration_seconds", "histogram", "Time until the answer began.")?;
    let alike = |a: &Labels, b: &Labels| Labels { code: 0, ..a.clone() } == Labels { code: 0, ..b.clone() };
    for same in requests.chunk_by(|(a, _), (b, _)| alike(a, b)) {
        let all: Vec<&Series> = same.iter().map(|(_, series)| series.as_ref()).collect();
        histogram(text, "apiserver_request_duration_seconds", &shown(&same[0].0), &all)?;
    }
    let help = "Requests that were cut short, or turned away, to protect the server.";
    family(text, "apiserver_request_terminations_total", "counter", help)?;
    for (labels, count) in metrics.terminations.read().iter() {
        writeln!(text, "apiserver_request_terminations_total{{{},code=\"{}\"}} {count}", shown(labels), labels.code)?;
    }
    let known = |result: bool| -> u64 {
        let series = requests.iter().filter(|(labels, _)| (labels.code != 401) == result);
        series.map(|(_, series)| series.count.load(Ordering::Relaxed)).sum()
    };
    family(text, "authentication_attempts", "counter", "Requests by whether their credentials were good.")?;
    writeln!(text, "authentication_attempts{{result=\"success\"}} {}", known(true))?;
    writeln!(text, "authentication_attempts{{result=\"failure\"}} {}", known(false))
}

fn now(server: &Inner, text: &mut String) -> std::fmt::Result {
    let [reads, writes] = &server.metrics.in_flight;
    let help = "Requests with an end whose answer has not begun.";
    family(text, "apiserver_current_inflight_requests", "gauge", help)?;
    for (kind, count) in [("readOnly", reads), ("mutating", writes)] {
        let count = count.load(Ordering::Relaxed);
        writeln!(text, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}")?;
    }
    Ok(())
}

fn watches(server: &Inner, text: &mut String) -> std::fmt::Result {
    let watchers: Vec<_> = server.metrics.watchers.read().iter().map(|(w, all)| (w.clone(), all.clone())).collect();
    family(text, "apiserver_longrunning_requests", "gauge", "Watches that are open.")?;
    for ((group, version, resource, _), watchers) in &watchers {
        let [group, version, resource] = [group, version, resource].map(|label| escaped(label));
        let open = watchers.open.load(Ordering::Relaxed);
        writeln!(
            text,
            "apiserver_longrunning_requests{{verb=\"WATCH\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",component=\"apiserver\"}} {open}"
        )?;
    }
    family(text, "apiserver_watch_events_total", "counter", "Events that were sent to watchers.")?;
    for ((group, version, _, kind), watchers) in &watchers {
        let [group, version, kind] = [group, version, kind].map(|label| escaped(label));
        let events = watchers.events.load(Ordering::Relaxed);
        writeln!(
            text,
            "apiserver_watch_events_total{{group=\"{group}\",version=\"{version}\",kind=\"{kind}\"}} {events}"
        )?;
    }
    Ok(())
}

fn store(server: &Inner, text: &mut String) -> std::fmt::Result {
    family(text, "apiserver_storage_objects", "gauge", "Objects in the store.")?;
    for kind in server.kinds.table().kinds.iter().filter(|k| k.is_stored()) {
        let full = if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group) };
        let full = escaped(&full);
        writeln!(text, "apiserver_storage_objects{{resource=\"{full}\"}} {}", server.registry.window(kind).count())?;
    }
    let help = "How long the store took, which stands where etcd does elsewhere.";
    family(text, "etcd_request_duration_seconds", "histogram", help)?;
    for operation in Operation::ALL {
        let labels = format!("operation=\"{}\"", operation.name());
        let series = &server.metrics.storage[operation as usize];
        histogram(text, "etcd_request_duration_seconds", &labels, &[series])?;
    }
    family(text, "onex_storage_revision", "gauge", "The revision that reads show.")?;
    writeln!(text, "onex_storage_revision {}", server.windows.revision())
}

fn process(server: &Inner, text: &mut String) -> std::fmt::Result {
    family(text, "kubernetes_build_info", "gauge", "Which Kubernetes this is like.")?;
    let version = version::document();
    let said = |name: &str| escaped(version[name].as_str().unwrap_or_default());
    writeln!(
        text,
        "kubernetes_build_info{{major=\"{}\",minor=\"{}\",git_version=\"{}\",platform=\"{}\"}} 1",
        said("major"),
        said("minor"),
        said("gitVersion"),
        said("platform")
    )?;
    family(text, "process_start_time_seconds", "gauge", "When this process started.")?;
    writeln!(text, "process_start_time_seconds {}", server.metrics.started)?;
    let found = [
        ("process_resident_memory_bytes", "gauge", "Memory that is resident.", kibibytes("VmRSS:")),
        ("process_virtual_memory_bytes", "gauge", "Memory that is addressed.", kibibytes("VmSize:")),
        ("process_open_fds", "gauge", "Files and sockets that are open.", open_files()),
        ("process_max_fds", "gauge", "How many there may be.", most_files()),
        ("process_cpu_seconds_total", "counter", "Time that was spent computing.", cpu_seconds()),
    ];
    for (name, kind, help, value) in found {
        if let Some(value) = value {
            family(text, name, kind, help)?;
            writeln!(text, "{name} {value}")?;
        }
    }
    Ok(())
}

/// One histogram of several series together.
fn histogram(text: &mut String, name: &str, labels: &str, all: &[&Series]) -> std::fmt::Result {
    let mut sum = 0;
    for (index, bound) in BUCKETS.iter().enumerate() {
        sum += all.iter().map(|series| series.buckets[index].load(Ordering::Relaxed)).sum::<u64>();
        writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}")?;
    }
    let count: u64 = all.iter().map(|series| series.count.load(Ordering::Relaxed)).sum();
    let micros: u64 = all.iter().map(|series| series.micros.load(Ordering::Relaxed)).sum();
    writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(text, "{name}_sum{{{labels}}} {}", micros as f64 / 1e6)?;
    writeln!(text, "{name}_count{{{labels}}} {count}")
}

/// All labels but the code.
fn shown(labels: &Labels) -> String {
    let Labels { verb, dry_run, group, version, resource, subresource, scope, .. } = labels;
    let [group, version, resource, subresource] = [group, version, resource, subresource].map(|label| escaped(label));
    format!(
        "verb=\"{verb}\",dry_run=\"{dry_run}\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",subresource=\"{subresource}\",scope=\"{scope}\",component=\"apiserver\""
    )
}

/// A label as it stands between quotes.
fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

// Linux tells; elsewhere nobody is asked.

fn kibibytes(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok().map(|kib: f64| kib * 1024.0)
}

fn open_files() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

fn most_files() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    const TICKS: f64 = 100.0; // a second has so many for programs, whatever the kernel counts in
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_its_line() {
        let labels =
            Labels { verb: "GET", group: "a\"} 1\nb\\".to_owned(), version: "v1".to_owned(), ..Labels::default() };
        assert_eq!(
            shown(&labels),
            r#"verb="GET",dry_run="",group="a\"} 1\nb\\",version="v1",resource="",subresource="",scope="",component="apiserver""#
        );
    }
}
