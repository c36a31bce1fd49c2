//! What really happened, as it is noted below everything that is on trial.

use std::collections::BTreeMap;

use bytes::Bytes;
use onex_storage::{Entry, Error, Expected, Key, Revision};
use serde_json::Value;

/// Where the objects are that clients of the simulation care about.
const PREFIX: &str = "/registry/configmaps/default/";

/// What is looked at of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The revision of its last change.
    pub revision: u64,
    /// Which write made it so: no two writes have the same number.
    pub number: u64,
    /// A label that selectors ask for.
    pub side: String,
}

impl Object {
    /// As a client is shown it.
    pub fn of(json: &Value, revision: u64) -> Self {
        let number = json["data"]["number"].as_str().and_then(|number| number.parse().ok());
        let side = json["metadata"]["labels"]["side"].as_str().unwrap_or_default().to_owned();
        Self { revision, number: number.unwrap_or_default(), side }
    }
}

/// One change of one of these objects.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub name: String,
    pub before: Option<Object>,
    pub after: Option<Object>,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub what: &'static str,
    pub name: String,
    pub object: Object,
}

/// What was stored, in order.
#[derive(Default)]
pub struct Truth {
    now: BTreeMap<Key, (Revision, Bytes)>,
    pub newest: u64,
    pub changes: Vec<Change>,
}

type Checked = Result<(), String>;

fn hold(is_so: bool, why: impl FnOnce() -> String) -> Checked {
    if is_so { Ok(()) } else { Err(why()) }
}

impl Truth {
    /// Notes a write, and holds the storage's answer against what is there.
    pub fn wrote(
        &mut self,
        key: &Key,
        value: Option<&Bytes>,
        expected: Expected,
        answer: &onex_storage::Result<Revision>,
    ) -> Checked {
        let current = self.now.get(key);
        let is_as_expected = match expected {
            Expected::Absent => current.is_none(),
            Expected::At(revision) => current.is_some_and(|(at, _)| *at == revision),
        };
        match answer {
            Ok(revision) => {
                hold(is_as_expected, || format!("{key} was written at {revision}, and was not as {expected:?}"))?;
                hold(revision.0 == self.newest + 1, || format!("{key}: {revision} comes after {}", self.newest))?;
                self.note(key, value, *revision);
                Ok(())
            }
            Err(Error::Conflict { current: told }) => {
                hold(!is_as_expected, || format!("{key} was not written, and was as {expected:?}"))?;
                let told = told.as_ref().map(|entry| (entry.revision, entry.value.clone()));
                hold(told.as_ref() == current, || format!("{key} is {current:?}, and was said to be {told:?}"))
            }
            Err(Error::Unavailable(_)) => Ok(()),
            Err(other) => Err(format!("{key}: {other}")),
        }
    }

    fn note(&mut self, key: &Key, value: Option<&Bytes>, revision: Revision) {
        self.newest = revision.0;
        let seen = |(at, value): &(Revision, Bytes)| {
            Object::of(&serde_json::from_slice(value).expect("what the apiserver stores is JSON"), at.0)
        };
        if let Some(name) = key.as_str().strip_prefix(PREFIX) {
            let before = self.now.get(key).map(seen);
            let after = value.map(|value| seen(&(revision, value.clone())));
            self.changes.push(Change { revision: revision.0, name: name.to_owned(), before, after });
        }
        match value {
            Some(value) => drop(self.now.insert(key.clone(), (revision, value.clone()))),
            None => drop(self.now.remove(key)),
        }
    }

    /// Holds a whole storage against what should be in it.
    pub fn is_all(&self, newest: Revision, entries: &[Entry]) -> Checked {
        hold(newest.0 == self.newest, || format!("the storage is at {newest}, and {} was the last", self.newest))?;
        let there = entries.iter().map(|entry| (&entry.key, (entry.revision, &entry.value)));
        let wanted = self.now.iter().map(|(key, (revision, value))| (key, (*revision, value)));
        hold(there.eq(wanted), || "what is stored is not what was written".to_owned())
    }

    /// The objects at a revision; if `side` is given, those that have it.
    pub fn at(&self, revision: u64, side: Option<&str>) -> BTreeMap<String, Object> {
        let mut objects = BTreeMap::new();
        for change in self.changes.iter().take_while(|change| change.revision <= revision) {
            match &change.after {
                Some(object) => drop(objects.insert(change.name.clone(), object.clone())),
                None => drop(objects.remove(&change.name)),
            }
        }
        objects.retain(|_, object| side.is_none_or(|side| object.side == side));
        objects
    }

    /// What a watcher is to be told next.
    pub fn next(&self, since: u64, side: Option<&str>) -> Option<Event> {
        self.changes.iter().filter(|change| change.revision > since).find_map(|change| {
            let takes = |object: &&Object| side.is_none_or(|side| object.side == side);
            let (before, after) = (change.before.as_ref().filter(takes), change.after.as_ref().filter(takes));
            let (what, object) = match (before, after) {
                (None, None) => return None,
                (None, Some(after)) => ("ADDED", after),
                (Some(_), Some(after)) => ("MODIFIED", after),
                (Some(before), None) => ("DELETED", before),
            };
            // What goes is told as it was, with the revision at which it went.
            let object = Object { revision: change.revision, ..object.clone() };
            Some(Event { what, name: change.name.clone(), object })
        })
    }

    /// Everything that an object was from one revision to another: also nothing.
    pub fn between(&self, name: &str, from: u64, to: u64) -> Vec<Option<Object>> {
        let earlier = self.changes.iter().rfind(|change| change.name == name && change.revision <= from);
        let first = earlier.and_then(|change| change.after.clone());
        let within = |change: &&Change| change.name == name && change.revision > from && change.revision <= to;
        std::iter::once(first).chain(self.changes.iter().filter(within).map(|change| change.after.clone())).collect()
    }
}
