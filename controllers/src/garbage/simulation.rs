//! The graph against a model of an apiserver: random owners, random deletions, watches that lag behind each other.

use super::graph::{Decision, Graph, Object, Propagation, Reference, Uid, Verified};
use crate::discovery::Served;
use kube::core::ApiResource;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A resource of the group `example`.
pub(super) fn kind(name: &str, namespaced: bool) -> Arc<Served> {
    let resource = ApiResource {
        group: "example".to_owned(),
        version: "v1".to_owned(),
        api_version: "example/v1".to_owned(),
        kind: name.to_owned(),
        plural: name.to_lowercase(),
    };
    Arc::new(Served { resource, namespaced, verbs: BTreeSet::new() })
}

/// A reference to the [`thing`] of that name.
pub(super) fn reference(owner: &str) -> Reference {
    Reference {
        uid: Uid(owner.into()),
        api_version: "example/v1".into(),
        kind: "Thing".into(),
        name: owner.into(),
        controller: None,
        blocks: None,
    }
}

/// An object in the namespace `n1` whose uid is its name.
pub(super) fn thing(name: &str) -> Object {
    Object {
        uid: Uid(name.into()),
        served: kind("Thing", true),
        namespace: "n1".into(),
        name: name.into(),
        revision: "1".into(),
        owners: Box::default(),
        deleting: false,
        orphans: false,
        foreground: false,
    }
}

/// A [`thing`] with owners.
pub(super) fn child(name: &str, owners: &[&str]) -> Object {
    Object { owners: owners.iter().map(|owner| reference(owner)).collect(), ..thing(name) }
}

/// As many watches, each in its own order, none in step with another.
const WATCHES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Someone creates an object with these owners; a number may mean an object long gone, or one that never was.
    Create { namespace: u8, owners: Vec<(u8, bool)> },
    /// Someone adds an owner, which may close a circle.
    Adopt { object: u8, owner: u8, blocks: bool },
    /// Someone deletes an object.
    Delete { object: u8, propagation: Propagation },
    /// A watch shows its next event.
    Show { watch: usize },
    /// A worker takes the next object.
    Work,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let propagation =
        prop_oneof![Just(Propagation::Background), Just(Propagation::Foreground), Just(Propagation::Orphan)];
    let step = prop_oneof![
        4 => (0..6_u8, prop::collection::vec((0..20_u8, any::<bool>()), 0..4))
            .prop_map(|(namespace, owners)| Step::Create { namespace, owners }),
        // Among few objects, so that circles close.
        3 => (0..6_u8, 0..6_u8, prop::bool::weighted(0.8))
            .prop_map(|(object, owner, blocks)| Step::Adopt { object, owner, blocks }),
        2 => (0..12_u8, propagation).prop_map(|(object, propagation)| Step::Delete { object, propagation }),
        4 => (0..WATCHES).prop_map(|watch| Step::Show { watch }),
        4 => Just(Step::Work),
    ];
    prop::collection::vec(step, 1..80)
}

enum Shown {
    Is(Object),
    Gone(Uid),
}

/// What became of a request.
#[derive(PartialEq)]
enum Answer {
    Done,
    Conflict,
}

struct World {
    /// What the apiserver has.
    truth: BTreeMap<Uid, Object>,
    created: u8,
    revision: u64,
    watches: [VecDeque<Shown>; WATCHES],
    graph: Graph,
    queue: VecDeque<Uid>,
    /// Objects that were promised to outlive their only owner.
    promised: BTreeSet<Uid>,
    /// Objects that are or were in no namespace.
    of_the_cluster: BTreeSet<Uid>,
    kinds: [Arc<Served>; 2],
}

impl World {
    fn new() -> Self {
        Self {
            truth: BTreeMap::new(),
            created: 0,
            revision: 0,
            watches: Default::default(),
            // Small, so that absences are forgotten and have to be asked for again.
            graph: Graph::new(2),
            queue: VecDeque::new(),
            promised: BTreeSet::new(),
            of_the_cluster: BTreeSet::new(),
            kinds: [kind("Thing", true), kind("Thing", false)],
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Create { namespace, owners } => self.create(*namespace, owners),
            Step::Adopt { object, owner, blocks } => self.adopt(*object, *owner, *blocks),
            Step::Delete { object, propagation } => self.delete_by_a_user(*object, *propagation),
            Step::Show { watch } => self.show(*watch),
            Step::Work => self.work(),
        }
    }

    fn create(&mut self, namespace: u8, owners: &[(u8, bool)]) {
        let name = self.created.to_string();
        let namespace = ["", "n1", "n1", "n1", "n1", "n2"][usize::from(namespace)];
        let mut seen = BTreeSet::new();
        let owners = owners.iter().filter(|(owner, _)| seen.insert(*owner));
        let owners: Vec<Reference> = owners.map(|(owner, blocks)| self.owned(*owner, *blocks)).collect();
        let object = Object {
            served: self.kinds[usize::from(namespace.is_empty())].clone(),
            namespace: namespace.into(),
            owners: owners.into(),
            ..thing(&name)
        };
        if namespace.is_empty() {
            self.of_the_cluster.insert(object.uid.clone());
        }
        self.created += 1;
        self.store(object);
    }

    /// Nobody can name an object that is still to come: uids are not guessed.
    fn owned(&self, owner: u8, blocks: bool) -> Reference {
        let owner = if owner < self.created { owner.to_string() } else { "never".to_owned() };
        Reference { blocks: Some(blocks), ..reference(&owner) }
    }

    fn adopt(&mut self, object: u8, owner: u8, blocks: bool) {
        let Some(mut object) = self.truth.get(&numbered(object)).cloned() else { return };
        let new = self.owned(owner, blocks);
        if object.owners.iter().all(|reference| reference.uid != new.uid) {
            self.promised.remove(&object.uid);
            object.owners = object.owners.iter().cloned().chain([new]).collect();
            self.store(object);
        }
    }

    fn delete_by_a_user(&mut self, object: u8, propagation: Propagation) {
        let Some(object) = self.truth.get(&numbered(object)).filter(|object| !object.deleting) else { return };
        let uid = object.uid.clone();
        if propagation == Propagation::Orphan {
            let only = |other: &&Object| other.owners.len() == 1 && self.owns(&uid, other, &other.owners[0]);
            let promised: Vec<Uid> = self.truth.values().filter(only).map(|other| other.uid.clone()).collect();
            self.promised.extend(promised);
        }
        self.promised.remove(&uid);
        self.delete(&uid, propagation);
    }

    /// As an apiserver does it: the propagation becomes a finalizer, and an object without finalizers goes at once.
    fn delete(&mut self, uid: &Uid, propagation: Propagation) {
        let Some(object) = self.truth.get(uid) else { return };
        let deleted = Object {
            deleting: true,
            orphans: propagation == Propagation::Orphan,
            foreground: propagation == Propagation::Foreground,
            ..object.clone()
        };
        self.store(deleted);
    }

    fn store(&mut self, mut object: Object) {
        self.revision += 1;
        object.revision = self.revision.to_string().into();
        let number: usize = object.name.parse().unwrap();
        let watch = &mut self.watches[number % WATCHES];
        if object.deleting && !object.orphans && !object.foreground {
            self.truth.remove(&object.uid);
            watch.push_back(Shown::Gone(object.uid));
        } else {
            watch.push_back(Shown::Is(object.clone()));
            self.truth.insert(object.uid.clone(), object);
        }
    }

    fn show(&mut self, watch: usize) {
        match self.watches[watch].pop_front() {
            Some(Shown::Is(object)) => self.queue.extend(self.graph.observe(object)),
            Some(Shown::Gone(uid)) => self.queue.extend(self.graph.remove(&uid)),
            None => {}
        }
    }

    fn show_all(&mut self) {
        for watch in 0..WATCHES {
            while !self.watches[watch].is_empty() {
                self.show(watch);
            }
        }
    }

    /// Whether `reference` makes the object `owner` an owner of `object`, by what the apiserver has.
    fn owns(&self, owner: &Uid, object: &Object, reference: &Reference) -> bool {
        let owner = self.truth.get(owner).filter(|owner| owner.uid == reference.uid);
        owner.is_some_and(|owner| owner.namespace.is_empty() || owner.namespace == object.namespace)
    }

    fn is_misplaced(&self, object: &Object, reference: &Reference) -> bool {
        object.namespace.is_empty() && !self.of_the_cluster.contains(&reference.uid)
    }

    fn work(&mut self) {
        let Some(uid) = self.queue.pop_front() else { return };
        let mut verified = Verified::default();
        loop {
            let decision = self.graph.what_to_do(&uid, &verified);
            let Some(object) = self.graph.get(&uid).cloned() else { return };
            let answer = match decision {
                Decision::Verify(owners) => {
                    self.verify(&object, owners, &mut verified);
                    continue;
                }
                Decision::Keep => Answer::Done,
                Decision::Delete(propagation) => self.collect(&object, propagation),
                Decision::Release(owners) => self.strip(&object, &owners),
                Decision::Orphan(_) => self.let_go(&uid),
                Decision::Finish => self.finish(&object),
            };
            if answer == Answer::Conflict || !verified.present.is_empty() {
                self.queue.push_back(uid);
            }
            return;
        }
    }

    fn verify(&mut self, object: &Object, owners: Vec<Reference>, verified: &mut Verified) {
        for owner in owners {
            if self.is_misplaced(object, &owner) {
                verified.misplaced.push(owner);
            } else if self.owns(&owner.uid, object, &owner) {
                verified.present.push(owner);
            } else {
                self.graph.note_absent(&owner, &object.namespace);
                verified.absent.push(owner);
            }
        }
    }

    /// The object as the apiserver has it, if it is still as the graph saw it.
    fn as_seen(&self, object: &Object) -> Option<Object> {
        self.truth.get(&object.uid).filter(|now| now.revision == object.revision).cloned()
    }

    fn collect(&mut self, object: &Object, propagation: Propagation) -> Answer {
        let Some(now) = self.as_seen(object) else { return Answer::Conflict };
        for reference in &now.owners {
            let alive = self.owns(&reference.uid, &now, reference);
            let waits = alive && self.truth[&reference.uid].deleting && self.truth[&reference.uid].foreground;
            assert!(!self.is_misplaced(&now, reference), "{:?} was deleted for a mistake", now.uid);
            assert!(!alive || waits, "{:?} was deleted although {:?} owns it", now.uid, reference.uid);
        }
        assert!(!self.promised.contains(&now.uid), "{:?} was deleted although its owner let it go", now.uid);
        self.delete(&now.uid, propagation);
        Answer::Done
    }

    fn strip(&mut self, object: &Object, owners: &[Uid]) -> Answer {
        let Some(mut now) = self.as_seen(object) else { return Answer::Conflict };
        now.owners = now.owners.iter().filter(|reference| !owners.contains(&reference.uid)).cloned().collect();
        self.store(now);
        Answer::Done
    }

    /// The pause before letting go is for the watches to catch up; here they do.
    fn let_go(&mut self, uid: &Uid) -> Answer {
        self.show_all();
        let Decision::Orphan(dependents) = self.graph.what_to_do(uid, &Verified::default()) else {
            return Answer::Done;
        };
        for dependent in dependents {
            let dependent = self.graph.get(&dependent).unwrap().clone();
            if self.strip(&dependent, std::slice::from_ref(uid)) == Answer::Conflict {
                return Answer::Conflict;
            }
        }
        if let Some(now) = self.truth.get(uid).cloned() {
            self.store(Object { orphans: false, ..now });
        }
        Answer::Done
    }

    fn finish(&mut self, object: &Object) -> Answer {
        for dependent in self.truth.values().filter(|dependent| dependent.uid != object.uid) {
            // A dependent that no watch has shown yet cannot be waited for.
            let Some(seen) = self.graph.get(&dependent.uid) else { continue };
            let blocks = |reference: &&Reference| reference.uid == object.uid && reference.blocks == Some(true);
            let ties = seen.owners.iter().filter(blocks).any(|tie| self.owns(&object.uid, dependent, tie));
            let in_a_circle = seen.deleting && seen.foreground;
            assert!(!ties || in_a_circle, "{:?} went before {:?}, which blocked it", object.uid, dependent.uid);
        }
        if let Some(now) = self.truth.get(&object.uid).cloned() {
            self.store(Object { foreground: false, ..now });
        }
        Answer::Done
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.show_all();
            if self.queue.is_empty() {
                return;
            }
            self.work();
        }
        panic!("it does not come to rest: {:?}", self.queue);
    }

    fn check(&self) {
        for object in self.truth.values() {
            assert!(!object.deleting, "{:?} waits for ever", object.uid);
            let is_owner = |reference: &Reference| {
                self.owns(&reference.uid, object, reference) || self.is_misplaced(object, reference)
            };
            assert!(object.owners.iter().all(is_owner), "{:?} has an owner that is gone", object.uid);
            let known = self.graph.get(&object.uid).expect("the graph shows what there is");
            assert_eq!(known.revision, object.revision);
        }
        let known = self.graph.unlisted(&self.kinds[0], &Default::default()).len()
            + self.graph.unlisted(&self.kinds[1], &Default::default()).len();
        assert_eq!(known, self.truth.len());
    }
}

fn numbered(number: u8) -> Uid {
    Uid(number.to_string().into())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_ownerless_go_the_owned_stay_and_nothing_waits_for_ever(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.settle();
        world.check();
    }
}
