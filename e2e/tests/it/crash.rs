//! kill -9 of the whole platform while it is written to, again and again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use serde_json::Value;
use tokio::sync::Notify;

use crate::door::{administrator, ask_miner};
use crate::world::{EVERYWHERE, PATIENCE, World, eventually};

/// How many write at the same time.
const WRITERS: usize = 8;

/// Where they write.
const NAMESPACE: &str = "crash";

/// What a writer knows of one object: what it was last told, and what it asked for and was never answered.
#[derive(Debug, Default, Clone)]
struct Known {
    /// The revision and the value that were acknowledged; nothing when a deletion was.
    acknowledged: Option<(u64, String)>,
    /// What may or may not have happened; `None` stands for a deletion.
    unanswered: Vec<Option<String>>,
}

/// Everything all writers know, by object.
type Knowledge = BTreeMap<String, Known>;

/// Which content each revision was given to, over all rounds.
#[derive(Default)]
struct Revisions(HashMap<u64, (String, String)>);

impl Revisions {
    fn note(&mut self, revision: u64, name: &str, value: &str) {
        let content = (name.to_owned(), value.to_owned());
        let before = self.0.entry(revision).or_insert_with(|| content.clone());
        assert_eq!(*before, content, "revision {revision} was given twice");
    }

    fn newest(&self) -> u64 {
        self.0.keys().copied().max().unwrap_or(0)
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_no_process_is_orphaned_when_the_platform_is_killed() {
    let rounds =
        std::env::var("ONEX_CRASH_ROUNDS").map_or(10, |rounds| rounds.parse::<usize>().expect("a number of rounds"));
    let world = World::start();
    world.chain("survives", 1);
    world.minerset(NAMESPACE, "set", "survives", 2);
    world.sized(NAMESPACE, "set", 2);
    let before = miners(&world);
    assert_eq!(before.len(), 3);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut known, mut revisions) = (Knowledge::new(), Revisions::default());
    for round in 0..rounds {
        // Early and late, so that it hits writes of every age.
        let life = Duration::from_millis((round as u64 * 137) % 700);
        known = runtime.block_on(write_until_killed(&world, round, known, &mut revisions, life));
        no_orphans(&world);
        world.up();
        let found = runtime.block_on(read(&world));
        compare(round, &mut known, &found, &mut revisions);
        mines_again(&world, &before);
    }
    world.sized(NAMESPACE, "set", 2);
    assert!(known.len() > rounds, "hardly anything was written: {known:?}");
}

/// Lets all writers write, kills the platform `life` after its first answer, and answers what they know then.
async fn write_until_killed(
    world: &World,
    round: usize,
    known: Knowledge,
    revisions: &mut Revisions,
    life: Duration,
) -> Knowledge {
    let client = administrator(world).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut shares: Vec<Knowledge> = vec![Knowledge::new(); WRITERS];
    for (number, object) in known.into_iter().enumerate() {
        shares[number % WRITERS].extend([object]);
    }
    let answered = Arc::new(Notify::new());
    let writers: Vec<_> = shares
        .into_iter()
        .enumerate()
        .map(|(number, known)| {
            let writer = Writer { maps: maps.clone(), known, answers: Vec::new(), answered: answered.clone() };
            tokio::spawn(writer.write(round, number))
        })
        .collect();
    tokio::time::timeout(PATIENCE, answered.notified()).await.expect("a write is answered");
    tokio::time::sleep(life).await;
    tokio::task::block_in_place(|| world.crash());
    let mut known = Knowledge::new();
    for writer in writers {
        let writer = writer.await.unwrap();
        for (revision, name, value) in &writer.answers {
            revisions.note(*revision, name, value);
        }
        known.extend(writer.known);
    }
    known
}

struct Writer {
    maps: Api<ConfigMap>,
    known: Knowledge,
    /// Every revision it was given, for which object and value.
    answers: Vec<(u64, String, String)>,
    /// Told of every answer.
    answered: Arc<Notify>,
}

impl Writer {
    /// Creates, changes and deletes, one after the other, until a request goes unanswered.
    async fn write(mut self, round: usize, number: usize) -> Self {
        for turn in 0.. {
            let name = format!("object-{round}-{number}-{turn}");
            let value = format!("created in round {round}");
            if !self.put(&name, &value).await {
                break;
            }
            // An older object of its own, so that there are changes and deletions too.
            let older = self.known.keys().nth(turn % self.known.len()).unwrap().clone();
            let goes_on = match turn % 4 {
                0 | 2 => self.put(&older, &format!("changed in round {round} turn {turn}")).await,
                3 => self.delete(&older).await,
                _ => true,
            };
            if !goes_on {
                break;
            }
        }
        self
    }

    /// Creates or replaces an object; false when there was no answer.
    async fn put(&mut self, name: &str, value: &str) -> bool {
        let object = self.known.entry(name.to_owned()).or_default();
        let exists = object.acknowledged.is_some();
        object.unanswered.push(Some(value.to_owned()));
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([("value".to_owned(), value.to_owned())])),
            ..ConfigMap::default()
        };
        let parameters = PostParams::default();
        let answer = match exists {
            true => self.maps.replace(name, &parameters, &map).await,
            false => self.maps.create(&parameters, &map).await,
        };
        match answer {
            Ok(stored) => {
                let revision = stored.metadata.resource_version.unwrap().parse().unwrap();
                self.acknowledge(name, Some((revision, value.to_owned())))
            }
            Err(error) => self.unanswered(name, error),
        }
    }

    async fn delete(&mut self, name: &str) -> bool {
        let object = self.known.get_mut(name).expect("it is one of its own");
        if object.acknowledged.is_none() {
            return true;
        }
        object.unanswered.push(None);
        match self.maps.delete(name, &DeleteParams::default()).await {
            Ok(_) => self.acknowledge(name, None),
            Err(error) => self.unanswered(name, error),
        }
    }

    fn acknowledge(&mut self, name: &str, what: Option<(u64, String)>) -> bool {
        self.answered.notify_one();
        self.answers.extend(what.iter().map(|(revision, value)| (*revision, name.to_owned(), value.clone())));
        self.known.insert(name.to_owned(), Known { acknowledged: what, unanswered: Vec::new() });
        true
    }

    /// A platform that is being killed does not answer; one that answers with an error is broken.
    fn unanswered(&self, name: &str, error: kube::Error) -> bool {
        assert!(!matches!(error, kube::Error::Api(_)), "{name}: {error}");
        false
    }
}

/// Every object there is, with its revision and value.
async fn read(world: &World) -> BTreeMap<String, (u64, String)> {
    let maps: Api<ConfigMap> = Api::namespaced(administrator(world).await, NAMESPACE);
    let list = maps.list(&ListParams::default()).await.unwrap();
    let entry = |map: ConfigMap| {
        let revision = map.metadata.resource_version.unwrap().parse().unwrap();
        let value = map.data.unwrap_or_default().remove("value").unwrap_or_default();
        (map.metadata.name.unwrap(), (revision, value))
    };
    list.items.into_iter().map(entry).collect()
}

/// Holds what is there against what the writers were told, and makes what is there what they know.
fn compare(round: usize, known: &mut Knowledge, found: &BTreeMap<String, (u64, String)>, revisions: &mut Revisions) {
    let newest = revisions.newest();
    for (name, object) in known.iter_mut() {
        let now = found.get(name);
        let as_told = now == object.acknowledged.as_ref();
        let as_asked = object.unanswered.iter().any(|asked| match (asked, now) {
            (Some(value), Some((_, there))) => value == there,
            (None, None) => true,
            _ => false,
        });
        assert!(as_told || as_asked, "round {round}: {name} is {now:?}, and should be {object:?}");
        if let (Some((before, _)), Some((after, _))) = (&object.acknowledged, now) {
            assert!(after >= before, "round {round}: {name} went back from revision {before} to {after}");
        }
        *object = Known { acknowledged: now.cloned(), unanswered: Vec::new() };
    }
    for (name, (revision, value)) in found.iter().filter(|(name, _)| *name != EVERYWHERE) {
        assert!(known.contains_key(name), "round {round}: nobody wrote {name}");
        revisions.note(*revision, name, value);
    }
    known.retain(|_, object| object.acknowledged.is_some());
    assert!(revisions.newest() >= newest);
}

/// Every miner of the killed platform is gone, before the next one could have ended it.
fn no_orphans(world: &World) {
    eventually(Duration::from_secs(30), || match world.processes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("orphans: {left:?}")),
    });
}

/// The miners, by namespace and name, each with its uid.
fn miners(world: &World) -> BTreeMap<String, String> {
    let miners = world.get("miners -A")["items"].clone();
    let entry = |miner: &Value| {
        let text = |field: &str| miner["metadata"][field].as_str().unwrap().to_owned();
        (format!("{}_{}", text("namespace"), text("name")), text("uid"))
    };
    miners.as_array().unwrap().iter().map(entry).collect()
}

/// Every miner is still the one it was, is one process, and answers.
fn mines_again(world: &World, before: &BTreeMap<String, String>) {
    eventually(PATIENCE, || {
        let directories: Vec<_> = world.nodes().into_iter().map(|(_, directory)| directory).collect();
        let runs = |miner: &String| directories.iter().any(|directory| directory.contains(&format!("/{miner}/")));
        if before.keys().all(runs) { Ok(()) } else { Err(format!("only these run: {directories:?}")) }
    });
    let directories: Vec<_> = world.nodes().into_iter().map(|(_, directory)| directory).collect();
    assert_eq!(directories.len(), before.len(), "none may run twice: {directories:?}");
    eventually(PATIENCE, || {
        let pods = world.get("pods -A")["items"].clone();
        for pod in pods.as_array().unwrap() {
            let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
            let address = pod["status"]["podIP"].as_str().and_then(|address| address.parse().ok());
            match address {
                Some(address) if ready => drop(ask_miner(address, "/v1/height")?),
                _ => return Err(format!("{} is {}", pod["metadata"]["name"], pod["status"])),
            }
        }
        Ok(())
    });
    assert_eq!(miners(world), *before, "a crash is no reason to replace a miner");
}
