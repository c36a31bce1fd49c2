//! Who writes and who reads, and what of their answers must be so.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{House, truth::Object};
use crate::world::{Answer, MAPS};

/// So few that everybody is about the same ones.
const NAMES: u64 = 12;
const JSON: &[(&str, &str)] = &[("accept", "application/json"), ("content-type", "application/json")];

/// The object as a client writes it.
fn object(name: &str, number: u64, side: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"side": side}},
        "data": {"number": number.to_string(), "padding": "x".repeat(1500)}})
}

pub fn revision(json: &Value) -> u64 {
    json["metadata"]["resourceVersion"].as_str().and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// One of those who ask. Each has luck of its own.
pub struct Client {
    pub house: Arc<House>,
    pub rng: StdRng,
    number: u64,
}

impl Client {
    pub fn new(house: Arc<House>, number: u64) -> Self {
        let rng = StdRng::seed_from_u64(house.seed * 1000 + number);
        Self { house, rng, number: number * 1_000_000 }
    }

    /// Asks one of the apiservers. Nothing, if nobody knows what became of it.
    async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        let luck = self.rng.random();
        self.ask_at(luck, method, path, body).await
    }

    async fn ask_at(&mut self, luck: u32, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        let door = self.house.door(luck).await;
        let gives_up = self.house.is_rough() && self.rng.random_range(0..25) == 0;
        let patience = if gives_up { self.rng.random_range(0..30) } else { 200_000 };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = tokio::select! {
            biased;
            () = door.server.drained().cancelled_owned() => return None,
            answer = timeout(Duration::from_millis(patience), door.send(method.clone(), path, JSON, body)) => answer.ok()?,
        };
        match answer.code {
            429 | 503 | 504 => self.house.count("unavailable"),
            500.. | 403 => self.house.complain(format!("{method} {path}: {answer:?}")),
            _ => return Some(answer),
        }
        None
    }

    async fn think(&mut self) {
        let pause = self.rng.random_range(0..25);
        sleep(Duration::from_millis(pause)).await;
    }

    fn name(&mut self) -> String {
        format!("m{:02}", self.rng.random_range(0..NAMES))
    }

    pub async fn write(mut self, turns: u32) {
        for _ in 0..turns {
            let name = self.name();
            self.number += 1;
            let side = if self.rng.random() { "left" } else { "right" };
            let object = object(&name, self.number, side);
            let path = format!("{MAPS}/{name}");
            match self.rng.random_range(0..10) {
                0..4 => self.put_in(Method::POST, MAPS, &name, object, None).await,
                4..6 => {
                    let patch = json!({"metadata": {"labels": {"side": side}}, "data": object["data"]});
                    self.patch(&path, &name, patch).await;
                }
                6..8 => {
                    let Some(seen) = self.get(&name).await else { continue };
                    let mut object = object;
                    object["metadata"]["resourceVersion"] = seen.revision.to_string().into();
                    self.put_in(Method::PUT, &path, &name, object, Some(seen.revision)).await;
                }
                _ => {
                    let seen = if self.rng.random() { self.get(&name).await } else { None };
                    self.delete(&path, &name, seen.map(|seen| seen.revision)).await;
                }
            }
            self.think().await;
        }
    }

    async fn patch(&mut self, path: &str, name: &str, patch: Value) {
        let door = self.house.door(self.rng.random()).await;
        let (number, floor) = (self.number, self.house.told());
        let answer = tokio::select! {
            biased;
            () = door.server.drained().cancelled_owned() => None,
            answer = door.merge(path, patch) => Some(answer),
        };
        self.judge(name, number, floor, None, answer.filter(|answer| !matches!(answer.code, 429 | 503 | 504)));
    }

    async fn put_in(&mut self, method: Method, path: &str, name: &str, object: Value, expected: Option<u64>) {
        let (number, floor) = (self.number, self.house.told());
        let is_new = method == Method::POST;
        let answer = self.ask(method, path, Some(object)).await;
        if is_new && let Some(answer) = answer.as_ref().filter(|answer| answer.code == 409) {
            let there = self.house.truth(|truth| truth.between(name, floor, truth.newest));
            if there.iter().all(Option::is_none) {
                self.house.complain(format!("{name} could not be made, and was not there: {answer:?}"));
            }
            self.house.refused(number);
            return;
        }
        self.judge(name, number, floor, expected, answer);
    }

    /// What an answer to a write says must be so.
    fn judge(&self, name: &str, number: u64, floor: u64, expected: Option<u64>, answer: Option<Answer>) {
        let Some(answer) = answer else {
            self.house.count("unknown");
            return;
        };
        let between = self.house.truth(|truth| truth.between(name, floor, truth.newest));
        match answer.code {
            200 | 201 => {
                let revision = revision(&answer.json());
                let change = self.house.truth(|truth| truth.changes.iter().find(|c| c.revision == revision).cloned());
                let is_ours = change.as_ref().is_some_and(|change| {
                    change.name == name && change.after.as_ref().is_some_and(|object| object.number == number)
                });
                let before = change.as_ref().and_then(|change| change.before.as_ref()).map(|before| before.revision);
                if !is_ours || revision <= floor || (expected.is_some() && before != expected) {
                    self.house
                        .complain(format!("{name} number {number} was acknowledged, and is {change:?}: {answer:?}"));
                }
                self.house.tell(revision);
                self.house.count("written");
            }
            404 if between.iter().any(Option::is_none) => self.house.refused(number),
            409 if expected.is_none() || between.iter().flatten().any(|now| Some(now.revision) != expected) => {
                self.house.refused(number);
            }
            _ => self.house.complain(format!("{name} number {number} was {between:?}, and the answer was {answer:?}")),
        }
    }

    async fn delete(&mut self, path: &str, name: &str, expected: Option<u64>) {
        let floor = self.house.told();
        let options = expected.map(|revision| json!({"preconditions": {"resourceVersion": revision.to_string()}}));
        let Some(answer) = self.ask(Method::DELETE, path, options).await else { return };
        let between = self.house.truth(|truth| truth.between(name, floor, truth.newest));
        let is_right = match answer.code {
            200 | 404 => between.iter().any(Option::is_none),
            409 => between.iter().flatten().any(|now| expected.is_none_or(|expected| now.revision != expected)),
            _ => false,
        };
        if !is_right {
            self.house.complain(format!("{name} was deleted expecting {expected:?}: {answer:?}, {between:?}"));
        }
        if answer.code == 200 {
            self.house.deleted(name);
        }
    }

    async fn get(&mut self, name: &str) -> Option<Object> {
        let floor = self.house.told();
        let answer = self.ask(Method::GET, &format!("{MAPS}/{name}"), None).await?;
        let seen = match answer.code {
            200 => Some(Object::of(&answer.json(), revision(&answer.json()))),
            404 => None,
            _ => {
                self.house.complain(format!("{answer:?}"));
                return None;
            }
        };
        let between = self.house.truth(|truth| truth.between(name, floor, truth.newest));
        if !between.contains(&seen) {
            self.house.complain(format!("{name} was seen as {seen:?} after {floor}, and was {between:?}"));
        }
        self.house.tell(seen.as_ref().map_or(0, |seen| seen.revision));
        seen
    }

    pub async fn read(mut self, turns: u32) {
        for _ in 0..turns {
            let side = ["left", "right"].into_iter().nth(self.rng.random_range(0..4));
            let query = side.map(|side| format!("labelSelector=side%3D{side}")).unwrap_or_default();
            match self.rng.random_range(0..5) {
                0 => drop(self.list(&query, side).await),
                1 => self.past(&query, side).await,
                2 => {
                    let name = self.name();
                    self.get(&name).await;
                }
                _ => self.pages(&query, side).await,
            }
            self.think().await;
        }
    }

    /// All that there is, and where it begins to be watched.
    pub async fn list(&mut self, query: &str, side: Option<&str>) -> Option<u64> {
        let luck = self.rng.random();
        self.list_at(luck, query, side).await
    }

    /// The same, of a certain apiserver.
    pub async fn list_at(&mut self, luck: u32, query: &str, side: Option<&str>) -> Option<u64> {
        let floor = self.house.told();
        let answer = self.ask_at(luck, Method::GET, &format!("{MAPS}?{query}"), None).await?;
        let list = answer.is(200);
        let at = revision(&list);
        self.hold_list(&items(&list), at, side, floor);
        self.house.count("listed");
        Some(at)
    }

    fn hold_list(&self, items: &[(String, Object)], at: u64, side: Option<&str>, floor: u64) {
        let (wanted, newest) = self.house.truth(|truth| (truth.at(at, side), truth.newest));
        if !items.iter().map(|(name, object)| (name, object)).eq(&wanted) {
            self.house.complain(format!("the list at {at} is {items:?}, and was {wanted:?}"));
        }
        if at < floor || at > newest {
            self.house.complain(format!("the list is of {at}, after {floor} and before {newest}"));
        }
        self.house.tell(at);
    }

    /// What was once, as it was.
    async fn past(&mut self, query: &str, side: Option<&str>) {
        let told = self.house.told();
        let at = told - self.rng.random_range(0..told.min(60));
        let path = format!("{MAPS}?{query}&resourceVersion={at}&resourceVersionMatch=Exact");
        let Some(answer) = self.ask(Method::GET, &path, None).await else { return };
        if answer.code == 410 {
            return self.house.expired(&format!("the state at {at}"));
        }
        let list = answer.is(200);
        self.hold_list(&items(&list), revision(&list), side, at);
        if revision(&list) != at {
            self.house.complain(format!("{at} was asked for, and {} was shown", revision(&list)));
        }
        self.house.count("past");
    }

    async fn pages(&mut self, query: &str, side: Option<&str>) {
        let limit = self.rng.random_range(1..6);
        let floor = self.house.told();
        let (mut all, mut at, mut token): (Vec<_>, u64, Option<String>) = (Vec::new(), 0, None);
        loop {
            let proceed = token.as_ref().map(|token| format!("&continue={token}")).unwrap_or_default();
            let Some(answer) = self.ask(Method::GET, &format!("{MAPS}?{query}&limit={limit}{proceed}"), None).await
            else {
                if token.is_none() {
                    return;
                }
                continue; // the same page once more
            };
            if answer.code == 410 && token.is_some() {
                return self.house.expired("a page");
            }
            let list = answer.is(200);
            let page = items(&list);
            if page.len() > limit || (at != 0 && at != revision(&list)) {
                self.house.complain(format!("a page of {limit} at {at}: {list}"));
            }
            at = revision(&list);
            all.extend(page);
            token = list["metadata"]["continue"].as_str().map(str::to_owned);
            if token.is_none() {
                break;
            }
            self.think().await;
        }
        self.hold_list(&all, at, side, floor);
        self.house.count("pages");
    }
}

fn items(list: &Value) -> Vec<(String, Object)> {
    let item = |item: &Value| {
        let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (name, Object::of(item, revision(item)))
    };
    list["items"].as_array().into_iter().flatten().map(item).collect()
}
