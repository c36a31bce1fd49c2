//! What a real kube-apiserver answered, and what we answer.
//!
//! `tests/golden/NAME.http` has requests, `NAME.json` what kube-apiserver v1.33.2 answered (`record.py`). Both answers are
//! compared field by field, after what differs from run to run (uids, times, versions) has been checked for its form and
//! made equal. Where we differ knowingly, the step says in which parts and why: `# differs: PARTS - REASON`.

use std::{fs, path::Path};

use http::Method;
use onex_apiserver::Settings;
use serde_json::{Value, json};

use crate::world::{Answer, World};

struct Step {
    title: String,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    /// JSON pointers, or `code`, `body`, `warning`.
    differs: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    text.split("\n### ").skip(1).map(step).collect()
}

fn step(part: &str) -> Step {
    let (title, rest) = part.split_once('\n').unwrap();
    let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
    let notes = head.lines().filter_map(|line| line.strip_prefix("# differs: "));
    let differs = notes.map(|note| note.split_once(" - ").expect("a reason").0);
    let mut lines = head.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    Step {
        title: title.trim().to_owned(),
        method: method.parse().unwrap(),
        path: path.to_owned(),
        headers: lines.map(header).collect(),
        differs: differs.flat_map(|parts| parts.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect(),
        body: body.trim_matches('\n').to_owned(),
    }
}

/// What differs from run to run, if it has the form that it must have.
fn volatile(field: &str, value: &Value) -> Option<&'static str> {
    let text = value.as_str()?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match field {
        "uid" if uuid(text) => Some("UID"),
        "resourceVersion" if digits(text) => Some("VERSION"),
        "continue" => Some("TOKEN"),
        "creationTimestamp"
        | "deletionTimestamp"
        | "time"
        | "lastTransitionTime"
        | "renewTime"
        | "expirationTimestamp"
            if text.len() >= 20 && text.ends_with('Z') =>
        {
            Some("TIME")
        }
        _ => None,
    }
}

/// A cell that does not say how old something is, or since when it is there.
fn cell(cell: &Value) -> Value {
    let text = cell.as_str().unwrap_or_default();
    let is_age = text.strip_suffix('s').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let is_time = text.len() == 20 && text.ends_with('Z') && text.starts_with("20");
    if is_age || is_time { "AGE".into() } else { cell.clone() }
}

fn uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// The same, whenever and wherever it was answered.
fn settled(field: &str, value: &Value) -> Value {
    if let Some(word) = volatile(field, value) {
        return word.into();
    }
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), settled(name, value))).collect(),
        Value::Array(cells) if field == "cells" => cells.iter().map(cell).collect(),
        // They come in the order of their times, which may be those of one second or of two.
        Value::Array(managers) if field == "managedFields" => {
            let mut managers: Vec<Value> = managers.iter().map(|entry| settled("", entry)).collect();
            let text = |entry: &Value, part: &str| entry[part].as_str().unwrap_or_default().to_owned();
            let who = |entry: &Value| ["operation", "manager", "subresource"].map(|part| text(entry, part));
            managers.sort_by_key(who);
            managers.into()
        }
        Value::Array(items) => items.iter().map(|item| settled("", item)).collect(),
        Value::String(text) => words(text).into(),
        other => other.clone(),
    }
}

/// A sentence without the uids and numbers of revisions in it.
fn words(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        let is_revision =
            bare.len() > 1 && bare.bytes().all(|b| b.is_ascii_digit()) && text.contains("resource version");
        if uuid(bare) {
            word.replace(bare, "UID")
        } else if is_revision {
            word.replace(bare, "VERSION")
        } else {
            word.to_owned()
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Every place at which two values differ.
fn differences(at: &str, kube: &Value, ours: &Value, found: &mut Vec<(String, String)>) {
    match (kube, ours) {
        (Value::Object(one), Value::Object(other)) => {
            let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let place = format!("{at}/{}", name.replace('/', "~1"));
                differences(
                    &place,
                    one.get(name).unwrap_or(&Value::Null),
                    other.get(name).unwrap_or(&Value::Null),
                    found,
                );
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                differences(&format!("{at}/{index}"), one, other, found);
            }
        }
        (one, other) if one == other => {}
        (one, other) => found.push((at.to_owned(), format!("kube: {one}\n      ours: {other}"))),
    }
}

fn body(step: &Step, answer: &Answer) -> Value {
    if step.path.contains("watch") && answer.code == 200 {
        return answer.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    }
    serde_json::from_str(&answer.text).unwrap_or_else(|_| answer.text.clone().into())
}

/// What our answer differs in from the one of kube-apiserver, without what is known.
fn compare(step: &Step, kube: &Value, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    let media = answer.headers.get("content-type").map(|value| value.to_str().unwrap()).unwrap_or_default();
    let warning = answer.warnings().join(", ");
    differences("code", &kube["code"], &json!(answer.code), &mut found);
    differences("type", kube["headers"].get("content-type").unwrap_or(&json!("")), &json!(media), &mut found);
    differences("warning", kube["headers"].get("warning").unwrap_or(&json!("")), &json!(warning), &mut found);
    differences("", &settled("", &kube["body"]), &settled("", &body(step, answer)), &mut found);
    let is_known = |place: &str| {
        // What a column is about is told in our own words.
        if place.starts_with("/columnDefinitions/") && place.ends_with("/description") {
            return true;
        }
        // Items may say what they are, or leave it to the list.
        if place.starts_with("/items/") && matches!(place.rsplit('/').next(), Some("apiVersion" | "kind")) {
            return true;
        }
        step.differs.iter().any(|known| match known.as_str() {
            "body" => place.is_empty() || place.starts_with('/'),
            known => place == known || place.strip_prefix(known).is_some_and(|rest| rest.starts_with('/')),
        })
    };
    let found = found.into_iter().filter(|(place, _)| !is_known(place));
    found.map(|(place, what)| format!("  {place}\n      {what}")).collect()
}

/// Asks what was asked of kube-apiserver, in the same order.
async fn replay(name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = fs::read_to_string(directory.join(format!("{name}.http"))).unwrap();
    let recorded = fs::read_to_string(directory.join(format!("{name}.json"))).unwrap();
    let recorded: Vec<Value> = serde_json::from_str(&recorded).unwrap();
    let steps = steps(&text);
    assert_eq!(steps.len(), recorded.len(), "record it again: the requests have changed");
    // It was recorded without the controller that makes accounts.
    let settings = Settings { disable_admission: vec!["ServiceAccount".to_owned()], ..Settings::default() };
    let world = World::with(settings).await;
    let bob = world.as_user("bob", &["dev"]);
    let mut report = String::new();
    let mut wrong = 0;
    for (step, kube) in steps.iter().zip(&recorded) {
        assert_eq!(kube["step"], step.title.as_str(), "record it again: the requests have changed");
        let mut headers: Vec<(&str, &str)> = step.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            headers.push(("accept", "application/json"));
        }
        let asked = if headers.iter().any(|(name, _)| *name == "as") { &bob } else { &world };
        let answer = asked.send(step.method.clone(), &step.path, &headers, step.body.clone()).await;
        let differs = compare(step, kube, &answer);
        if !differs.is_empty() {
            wrong += 1;
            report += &format!("\n{name}: {}\n  {} {}\n{}\n", step.title, step.method, step.path, differs.join("\n"));
        }
    }
    assert!(wrong == 0, "{wrong} of {} answers are not those of kube-apiserver:\n{report}", steps.len());
}

#[tokio::test]
async fn config_maps_live_as_in_kubernetes() {
    replay("configmaps").await;
}

#[tokio::test]
async fn pods_live_as_in_kubernetes() {
    replay("pods").await;
}

#[tokio::test]
async fn the_other_kinds_of_the_core_live_as_in_kubernetes() {
    replay("core").await;
}

#[tokio::test]
async fn an_apply_owns_and_conflicts_as_in_kubernetes() {
    replay("apply").await;
}

#[tokio::test]
async fn lists_and_refusals_are_those_of_kubernetes() {
    replay("lists").await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_as_in_kubernetes() {
    replay("errors").await;
}

#[tokio::test]
async fn pages_watches_and_deletions_of_many_are_those_of_kubernetes() {
    replay("collections").await;
}

#[tokio::test]
async fn mistakes_in_pods_are_named_as_in_kubernetes() {
    replay("podspecs").await;
}

#[tokio::test]
async fn services_secrets_events_and_leases_are_checked_as_in_kubernetes() {
    replay("objects").await;
}

#[tokio::test]
async fn who_applies_owns_what_it_would_own_in_kubernetes() {
    replay("managers").await;
}

#[tokio::test]
async fn access_is_given_and_refused_as_in_kubernetes() {
    replay("access").await;
}

#[tokio::test]
async fn custom_resources_live_as_in_kubernetes() {
    replay("custom").await;
}

#[tokio::test]
async fn workloads_are_filled_in_and_refused_as_in_kubernetes() {
    replay("workloads").await;
}

#[tokio::test]
async fn discovery_says_what_it_says_in_kubernetes() {
    replay("discovery").await;
}
