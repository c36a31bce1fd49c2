//! Who watches: some look at once, some are slow, some look only when all is over. Each must be told everything, once and in
//! order, or that it is too late.

use std::time::Duration;

use rand::RngExt as _;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::clients::{Client, revision};
use super::truth::{Event, Object};
use crate::world::{MAPS, Watch};

/// How somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Diligent,
    /// With pauses.
    Slow,
    /// Not before everything is over.
    Never,
    /// Leaves after a few events, and comes again.
    Coming,
}

/// A watch, and how far it has come.
struct Follower {
    client: Client,
    manner: Manner,
    side: Option<&'static str>,
    /// Everything up to here was told; nothing yet.
    since: Option<u64>,
}

/// Why a watch was over.
enum End {
    /// All is over, and everything was told.
    Settled,
    /// The connection ended, or the watcher left.
    Left,
    /// History does not reach back so far.
    Expired,
}

impl Client {
    pub async fn watch(mut self, manner: Manner) {
        let side = ["left", "right"].into_iter().nth(self.rng.random_range(0..4));
        let mut follower = Follower { client: self, manner, side, since: None };
        let house = follower.client.house.clone();
        let watched = timeout(Duration::from_secs(600), follower.follow()).await;
        if watched.is_err() {
            let next = house.truth(|truth| truth.next(follower.since.unwrap_or_default(), side));
            house.complain(format!("{manner:?} came to {:?}, and was never told {next:?}", follower.since));
        }
    }
}

impl Follower {
    async fn follow(&mut self) {
        loop {
            let Some(mut watch) = self.begin().await else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            match self.read(&mut watch).await {
                End::Settled => return,
                End::Left => self.client.house.count("resumed"),
                End::Expired => self.since = None,
            }
        }
    }

    /// Begins where it was, or from a list, or with everything that there is.
    async fn begin(&mut self) -> Option<Watch> {
        let house = self.client.house.clone();
        let query = self.side.map(|side| format!("&labelSelector=side%3D{side}")).unwrap_or_default();
        let is_streamed = self.since.is_none() && self.client.rng.random();
        if self.since.is_none() && !is_streamed {
            self.since = Some(self.client.list(&query, self.side).await?);
        }
        let floor = house.told();
        let from = match self.since {
            Some(since) => format!("&resourceVersion={since}"),
            None => "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
        };
        let everywhere = self.client.rng.random_range(0..3) == 0;
        let maps = if everywhere { "/api/v1/configmaps" } else { MAPS };
        let ends = match self.client.rng.random_range(0..6) {
            0 => format!("&timeoutSeconds={}", self.client.rng.random_range(1..4)),
            _ => "&timeoutSeconds=86400".to_owned(),
        };
        let path = format!("{maps}?watch=true&allowWatchBookmarks=true{from}{query}{ends}");
        let door = house.door(self.client.rng.random()).await;
        let begun = timeout(Duration::from_secs(100), door.begin_to_watch(&path, "application/json")).await.ok()?;
        let mut watch = match begun {
            Ok(watch) => watch,
            Err(refused) => {
                if !matches!(refused.code, 429 | 503 | 504) {
                    house.complain(format!("{path}: {refused:?}"));
                }
                return None;
            }
        };
        if self.since.is_none() {
            self.since = Some(self.beginning(&mut watch, floor).await?);
        }
        Some(watch)
    }

    /// Everything that there is, up to the bookmark that says so.
    async fn beginning(&mut self, watch: &mut Watch, floor: u64) -> Option<u64> {
        let house = self.client.house.clone();
        let mut there = Vec::new();
        loop {
            let event = watch.event().await?;
            let object = &event["object"];
            match event["type"].as_str() {
                Some("ADDED") => there.push((name(object), Object::of(object, revision(object)))),
                Some("BOOKMARK") if object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true" => {
                    let at = revision(object);
                    let (wanted, newest) = house.truth(|truth| (truth.at(at, self.side), truth.newest));
                    if !there.iter().map(|(name, object)| (name, object)).eq(&wanted) || at < floor || at > newest {
                        house.complain(format!("a watch began with {there:?} at {at} after {floor}: {wanted:?}"));
                    }
                    house.tell(at);
                    house.count("streamed");
                    return Some(at);
                }
                _ => {
                    house.complain(format!("a watch began with {event}"));
                    return None;
                }
            }
        }
    }

    async fn read(&mut self, watch: &mut Watch) -> End {
        let house = self.client.house.clone();
        let leaves_after = if self.manner == Manner::Coming { self.client.rng.random_range(1..8) } else { u32::MAX };
        let mut told = 0;
        if self.manner == Manner::Never {
            house.over.cancelled().await;
        }
        loop {
            if self.manner == Manner::Slow && !house.over.is_cancelled() {
                let pause = self.client.rng.random_range(0..700);
                sleep(Duration::from_millis(pause)).await;
            }
            if house.over.is_cancelled() && self.is_told_all() {
                return End::Settled;
            }
            let event = tokio::select! {
                biased;
                event = watch.event() => event,
                () = house.over.cancelled(), if !house.over.is_cancelled() => continue,
            };
            let Some(event) = event else { return End::Left };
            if event["type"] == "ERROR" {
                if event["object"]["code"] != 410 {
                    house.complain(format!("{:?} was told {event}", self.manner));
                }
                let is_late = matches!(self.manner, Manner::Slow | Manner::Never);
                house.count(if is_late { "cut off" } else { "too late" });
                if self.manner == Manner::Diligent && told > 0 && house.is_calm {
                    house.complain(format!("a diligent watcher was cut off at {:?}", self.since));
                }
                house.expired(&format!("a watch at {:?}", self.since));
                return End::Expired;
            }
            self.take(&event);
            told += 1;
            if told >= leaves_after && !house.over.is_cancelled() {
                let away = self.client.rng.random_range(0..900);
                sleep(Duration::from_millis(away)).await;
                return End::Left;
            }
        }
    }

    fn is_told_all(&self) -> bool {
        self.client.house.truth(|truth| truth.next(self.since.unwrap_or_default(), self.side)).is_none()
    }

    /// Holds one event against what must come next.
    fn take(&mut self, event: &Value) {
        let house = self.client.house.clone();
        let (object, since) = (&event["object"], self.since.unwrap_or_default());
        let at = revision(object);
        let (next, newest) = house.truth(|truth| (truth.next(since, self.side), truth.newest));
        if event["type"] == "BOOKMARK" {
            if at < since || at > newest || next.as_ref().is_some_and(|next| next.object.revision <= at) {
                house.complain(format!("a bookmark says {at} after {since}, and {next:?} was not told"));
            }
            house.count("bookmarks");
        } else {
            let what = ["ADDED", "MODIFIED", "DELETED"].into_iter().find(|what| event["type"] == *what);
            let told = Event { what: what.unwrap_or_default(), name: name(object), object: Object::of(object, at) };
            if next.as_ref() != Some(&told) {
                house.complain(format!("{:?} at {since} was told {told:?} instead of {next:?}", self.manner));
            }
            house.count("events");
        }
        house.tell(at);
        self.since = Some(at);
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
