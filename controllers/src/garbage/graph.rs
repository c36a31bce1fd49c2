//! Who owns whom, and what follows from it. Pure: no clock, no I/O.
//!
//! The graph is told what watches saw ([`Graph::observe`], [`Graph::remove`]) and answers two questions: which objects
//! are worth a look now, and what is to be done with one ([`Graph::what_to_do`]). It never asks for the deletion of an object
//! because an owner has merely not been seen yet: it asks for a check first ([`Decision::Verify`]).

use crate::discovery::Served;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// What makes an object that object, also after another took its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Uid(pub Arc<str>);

/// One entry of an object's `ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub uid: Uid,
    pub api_version: Arc<str>,
    pub kind: Arc<str>,
    pub name: Box<str>,
    pub controller: Option<bool>,
    pub blocks: Option<bool>,
}

impl Reference {
    /// The API group of the owner.
    pub fn group(&self) -> &str {
        self.api_version.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Whether this describes `owner` rightly; a wrong description is not believed.
    fn describes(&self, owner: &Object) -> bool {
        let resource = &owner.served.resource;
        self.uid == owner.uid
            && self.name == owner.name
            && *self.kind == *resource.kind
            && self.group() == resource.group
    }
}

/// What the collector keeps of an object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub uid: Uid,
    pub served: Arc<Served>,
    /// Empty for objects of the whole cluster.
    pub namespace: Box<str>,
    pub name: Box<str>,
    /// Its `resourceVersion`, so that it is only changed as it was seen.
    pub revision: Box<str>,
    pub owners: Box<[Reference]>,
    /// Whether it has a `deletionTimestamp`.
    pub deleting: bool,
    /// Whether it carries the finalizer `orphan`.
    pub orphans: bool,
    /// Whether it carries the finalizer `foregroundDeletion`.
    pub foreground: bool,
}

impl Object {
    /// It stays until the dependents that block it are gone.
    fn awaits_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    /// Its dependents are to lose it as an owner before it goes.
    pub fn lets_go(&self) -> bool {
        self.deleting && self.orphans
    }

    /// Whether `reference` really makes `owner` an owner: rightly described, and not across namespaces.
    fn belongs_to(&self, owner: &Self, reference: &Reference) -> bool {
        reference.describes(owner) && (owner.namespace.is_empty() || owner.namespace == self.namespace)
    }

    fn blocks(&self, owner: &Self) -> bool {
        self.owners.iter().any(|reference| reference.blocks == Some(true) && self.belongs_to(owner, reference))
    }

    fn same_ties(&self, other: &Self) -> bool {
        let flags = |object: &Self| (object.deleting, object.orphans, object.foreground);
        self.owners == other.owners && flags(self) == flags(other)
    }
}

/// How the dependents of a deleted object are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What is to be done with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing.
    Keep,
    /// Ask the apiserver whether these owners exist, then ask again with the answers.
    Verify(Vec<Reference>),
    /// No owner is left to live for.
    Delete(Propagation),
    /// Another owner is left: drop the references to these, which are gone or wait to go.
    Release(Vec<Uid>),
    /// Take this object out of the owners of these, then remove its finalizer `orphan`.
    Orphan(Vec<Uid>),
    /// Nothing blocks its deletion any more: remove its finalizer `foregroundDeletion`.
    Finish,
}

/// What the apiserver said about owners that the graph does not know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verified {
    /// They exist.
    pub present: Vec<Reference>,
    /// They do not.
    pub absent: Vec<Reference>,
    /// They could not own this object wherever they are. It is left alone: such a reference is a mistake, and no reason to delete.
    pub misplaced: Vec<Reference>,
}

enum Standing {
    Solid,
    /// It is being deleted in the foreground: its dependents are to go first.
    Waiting,
    Dangling,
    Unknown,
}

/// Objects and their owners.
#[derive(Debug)]
pub(crate) struct Graph {
    objects: HashMap<Uid, Object>,
    /// By owner, also by owners that were never seen.
    dependents: HashMap<Uid, HashSet<Uid>>,
    absent: Absences,
    words: HashSet<Arc<str>>,
}

impl Graph {
    /// An empty graph that remembers up to `absences` owners known to be gone.
    pub fn new(absences: usize) -> Self {
        Self {
            objects: HashMap::new(),
            dependents: HashMap::new(),
            absent: Absences::new(absences),
            words: HashSet::new(),
        }
    }

    /// The object as it was last seen.
    pub fn get(&self, uid: &Uid) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// Takes in an object as it is now. Returns what deserves a look because of it.
    #[must_use]
    pub fn observe(&mut self, object: Object) -> Vec<Uid> {
        let Some(known) = self.objects.get_mut(&object.uid) else {
            return self.take_in(object);
        };
        if known.same_ties(&object) {
            // Most updates change neither owners nor deletion: only the revision is news.
            known.revision = object.revision;
            return Vec::new();
        }
        let before = std::mem::replace(known, object.clone());
        self.untie(&before);
        self.tie(&object);
        let mut look = self.awaiting_owners(&before);
        look.extend(self.awaiting_owners(&object));
        if object.awaits_dependents() && !before.awaits_dependents() {
            look.extend(self.dependents_of(&object.uid));
        }
        look.push(object.uid);
        look
    }

    fn take_in(&mut self, object: Object) -> Vec<Uid> {
        // Seen now counts for more than gone before: whatever the cause, believing it costs nobody's life.
        self.absent.withdraw(&object.uid);
        self.tie(&object);
        let mut look = self.awaiting_owners(&object);
        if object.awaits_dependents() {
            look.extend(self.dependents_of(&object.uid));
        }
        if object.deleting || !object.owners.is_empty() {
            look.push(object.uid.clone());
        }
        self.objects.insert(object.uid.clone(), object);
        look
    }

    /// Takes note that an object is gone for good. Returns what deserves a look because of it.
    #[must_use]
    pub fn remove(&mut self, uid: &Uid) -> Vec<Uid> {
        let namespaced = self.objects.get(uid).is_some_and(|object| !object.namespace.is_empty());
        let mut look = self.forget(uid);
        let dependents = self.dependents_of(uid);
        if !dependents.is_empty() {
            self.absent.add(Absence::Gone { uid: uid.clone(), namespaced });
        }
        look.extend(dependents);
        look
    }

    /// Stops knowing an object without concluding that it is gone. Returns what deserves a look because of it.
    #[must_use]
    pub fn forget(&mut self, uid: &Uid) -> Vec<Uid> {
        let Some(object) = self.objects.remove(uid) else {
            return Vec::new();
        };
        self.untie(&object);
        self.awaiting_owners(&object)
    }

    /// All objects of a resource that are not in `listed`.
    pub fn unlisted(&self, served: &Arc<Served>, listed: &HashSet<Uid>) -> Vec<Uid> {
        let ours = self.objects.values().filter(|object| Arc::ptr_eq(&object.served, served));
        ours.filter(|object| !listed.contains(&object.uid)).map(|object| object.uid.clone()).collect()
    }

    /// Remembers that `reference`, made by an object in `namespace`, leads nowhere.
    pub fn note_absent(&mut self, reference: &Reference, namespace: &str) {
        self.absent.add(Absence::at(reference, namespace));
    }

    /// Whether `reference`, made by an object in `namespace`, means an object of another namespace.
    pub fn crosses_namespaces(&self, reference: &Reference, namespace: &str) -> bool {
        let owner = self.objects.get(&reference.uid);
        owner.is_some_and(|owner| !owner.namespace.is_empty() && *owner.namespace != *namespace)
    }

    /// A shared copy of a word that comes again and again, such as a kind.
    pub fn word(&mut self, word: &str) -> Arc<str> {
        /// Anyone may write any kind into a reference; beyond this many, words are no longer shared.
        const SHARED: usize = 1024;
        if let Some(known) = self.words.get(word) {
            return known.clone();
        }
        let word: Arc<str> = word.into();
        if self.words.len() < SHARED {
            self.words.insert(word.clone());
        }
        word
    }

    /// What is to be done with an object, in the light of what was `verified` about its owners.
    pub fn what_to_do(&self, uid: &Uid, verified: &Verified) -> Decision {
        let Some(object) = self.objects.get(uid) else {
            return Decision::Keep;
        };
        if object.lets_go() {
            return Decision::Orphan(self.dependents_of(uid));
        }
        if object.awaits_dependents() && !self.is_blocked(object) {
            return Decision::Finish;
        }
        if object.deleting || object.owners.is_empty() {
            return Decision::Keep;
        }
        self.judge(object, verified)
    }

    fn judge(&self, object: &Object, verified: &Verified) -> Decision {
        let mut unknown = Vec::new();
        let mut going = Vec::new();
        let (mut solid, mut waiting) = (false, false);
        for reference in &object.owners {
            match self.standing(object, reference, verified) {
                Standing::Solid => solid = true,
                Standing::Dangling => going.push(reference.uid.clone()),
                Standing::Waiting => {
                    waiting = true;
                    going.push(reference.uid.clone());
                }
                Standing::Unknown => unknown.push(reference.clone()),
            }
        }
        match (solid, going.is_empty()) {
            _ if !unknown.is_empty() => Decision::Verify(unknown),
            (true, true) => Decision::Keep,
            (true, false) => Decision::Release(going),
            (false, _) => Decision::Delete(self.propagation(object, waiting)),
        }
    }

    fn standing(&self, object: &Object, reference: &Reference, verified: &Verified) -> Standing {
        if self.absent.contains(reference, &object.namespace) || verified.absent.contains(reference) {
            return Standing::Dangling;
        }
        match self.objects.get(&reference.uid).filter(|owner| object.belongs_to(owner, reference)) {
            Some(owner) if owner.awaits_dependents() => Standing::Waiting,
            Some(_) => Standing::Solid,
            None if verified.present.contains(reference) || verified.misplaced.contains(reference) => Standing::Solid,
            None => Standing::Unknown,
        }
    }

    fn propagation(&self, object: &Object, an_owner_waits: bool) -> Propagation {
        if an_owner_waits && self.dependents.contains_key(&object.uid) {
            // The owner is to outlive the whole tree below it, so this one has to wait for its own dependents too.
            Propagation::Foreground
        } else if object.orphans {
            Propagation::Orphan
        } else if object.foreground {
            Propagation::Foreground
        } else {
            Propagation::Background
        }
    }

    /// Whether a dependent still holds up the deletion of `owner`.
    ///
    /// In a circle of owners everyone waits for everyone; a dependent that itself waits for `owner` does not count.
    fn is_blocked(&self, owner: &Object) -> bool {
        let dependents = self.dependents.get(&owner.uid).into_iter().flatten();
        let mut blocking = dependents.filter(|uid| **uid != owner.uid && self.holds_up(uid, &owner.uid));
        blocking.any(|dependent| !self.waits_for(dependent, &owner.uid))
    }

    fn holds_up(&self, dependent: &Uid, owner: &Uid) -> bool {
        let both = self.objects.get(dependent).zip(self.objects.get(owner));
        both.is_some_and(|(object, owner)| object.blocks(owner))
    }

    /// Whether `waiting` cannot go before `target`, directly or through others that are deleted in the foreground.
    fn waits_for(&self, waiting: &Uid, target: &Uid) -> bool {
        let mut seen = HashSet::from([waiting]);
        let mut next = vec![waiting];
        while let Some(uid) = next.pop() {
            if !self.objects.get(uid).is_some_and(Object::awaits_dependents) {
                continue;
            }
            for dependent in self.dependents.get(uid).into_iter().flatten() {
                if self.holds_up(dependent, uid) {
                    if dependent == target {
                        return true;
                    }
                    if seen.insert(dependent) {
                        next.push(dependent);
                    }
                }
            }
        }
        false
    }

    fn dependents_of(&self, uid: &Uid) -> Vec<Uid> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    fn awaiting_owners(&self, object: &Object) -> Vec<Uid> {
        let owners = object.owners.iter().map(|reference| &reference.uid);
        owners.filter(|uid| self.objects.get(*uid).is_some_and(Object::awaits_dependents)).cloned().collect()
    }

    fn tie(&mut self, object: &Object) {
        for reference in &object.owners {
            self.dependents.entry(reference.uid.clone()).or_default().insert(object.uid.clone());
        }
    }

    fn untie(&mut self, object: &Object) {
        for reference in &object.owners {
            if let Some(dependents) = self.dependents.get_mut(&reference.uid) {
                dependents.remove(&object.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&reference.uid);
                }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Absence {
    /// The object was seen, and then it was gone. What was in a namespace never was a right owner for objects of the
    /// whole cluster, so for them its end means nothing.
    Gone { uid: Uid, namespaced: bool },
    /// There is no such object where a reference looks for it.
    At { uid: Uid, api_version: Arc<str>, kind: Arc<str>, name: Box<str>, namespace: Box<str> },
}

impl Absence {
    fn at(reference: &Reference, namespace: &str) -> Self {
        let Reference { uid, api_version, kind, name, .. } = reference.clone();
        Self::At { uid, api_version, kind, name, namespace: namespace.into() }
    }
}

/// The last absences noted; uids never come back, so an absence stays true.
#[derive(Debug)]
struct Absences {
    known: HashSet<Absence>,
    oldest_first: VecDeque<Absence>,
    capacity: usize,
}

impl Absences {
    fn new(capacity: usize) -> Self {
        Self { known: HashSet::new(), oldest_first: VecDeque::new(), capacity }
    }

    fn add(&mut self, absence: Absence) {
        if self.known.insert(absence.clone()) {
            self.oldest_first.push_back(absence);
        }
        while self.known.len() > self.capacity {
            let Some(oldest) = self.oldest_first.pop_front() else { return };
            self.known.remove(&oldest);
        }
    }

    fn withdraw(&mut self, uid: &Uid) {
        for namespaced in [false, true] {
            let absence = Absence::Gone { uid: uid.clone(), namespaced };
            if self.known.remove(&absence) {
                self.oldest_first.retain(|other| *other != absence);
            }
        }
    }

    fn contains(&self, reference: &Reference, namespace: &str) -> bool {
        let gone = |namespaced| self.known.contains(&Absence::Gone { uid: reference.uid.clone(), namespaced });
        gone(false) || (gone(true) && !namespace.is_empty()) || self.known.contains(&Absence::at(reference, namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{child, kind, reference, thing};
    use super::*;

    fn uid(name: &str) -> Uid {
        Uid(name.into())
    }

    fn graph(objects: impl IntoIterator<Item = Object>) -> Graph {
        let mut graph = Graph::new(8);
        for object in objects {
            let _ = graph.observe(object);
        }
        graph
    }

    fn decide(graph: &Graph, name: &str) -> Decision {
        graph.what_to_do(&uid(name), &Verified::default())
    }

    fn going(object: Object, orphans: bool, foreground: bool) -> Object {
        Object { deleting: true, orphans, foreground, ..object }
    }

    fn blocking(mut object: Object) -> Object {
        for owner in &mut object.owners {
            owner.blocks = Some(true);
        }
        object
    }

    fn sorted(mut uids: Vec<Uid>) -> Vec<Uid> {
        uids.sort();
        uids
    }

    #[test]
    fn an_owner_that_was_never_seen_is_asked_for_before_anything_is_deleted() {
        let mut graph = graph([child("miner", &["set"])]);
        assert_eq!(decide(&graph, "miner"), Decision::Verify(vec![reference("set")]));
        let present = Verified { present: vec![reference("set")], ..Verified::default() };
        assert_eq!(graph.what_to_do(&uid("miner"), &present), Decision::Keep);
        let absent = Verified { absent: vec![reference("set")], ..Verified::default() };
        assert_eq!(graph.what_to_do(&uid("miner"), &absent), Decision::Delete(Propagation::Background));
        graph.note_absent(&reference("set"), "n1");
        assert_eq!(decide(&graph, "miner"), Decision::Delete(Propagation::Background), "an absence is remembered");
    }

    #[test]
    fn an_owner_that_was_seen_to_go_needs_no_asking() {
        let mut graph = graph([thing("set"), child("miner", &["set"])]);
        assert_eq!(decide(&graph, "miner"), Decision::Keep);
        assert_eq!(graph.remove(&uid("set")), [uid("miner")]);
        assert_eq!(decide(&graph, "miner"), Decision::Delete(Propagation::Background));
    }

    #[test]
    fn an_owner_that_is_only_no_longer_watched_is_not_gone() {
        let mut graph = graph([thing("set"), child("miner", &["set"])]);
        assert_eq!(graph.forget(&uid("set")), []);
        assert_eq!(decide(&graph, "miner"), Decision::Verify(vec![reference("set")]));
    }

    #[test]
    fn an_object_that_is_seen_again_was_not_gone() {
        let mut graph = graph([thing("set"), child("miner", &["set"])]);
        let _ = graph.remove(&uid("set"));
        let _ = graph.observe(thing("set"));
        assert_eq!(decide(&graph, "miner"), Decision::Keep);
    }

    #[test]
    fn one_living_owner_is_enough_and_the_dead_are_struck_off() {
        let mut graph = graph([thing("a"), thing("b"), child("miner", &["a", "b"])]);
        let _ = graph.remove(&uid("a"));
        assert_eq!(decide(&graph, "miner"), Decision::Release(vec![uid("a")]));
    }

    #[test]
    fn an_unknown_owner_is_asked_for_even_when_another_is_gone() {
        let mut graph = graph([thing("a"), child("miner", &["a", "b"])]);
        let _ = graph.remove(&uid("a"));
        assert_eq!(decide(&graph, "miner"), Decision::Verify(vec![reference("b")]));
    }

    #[test]
    fn a_reference_that_describes_another_object_is_not_believed() {
        let elsewhere = Object { namespace: "n2".into(), ..thing("set") };
        let renamed = Object { name: "other".into(), ..thing("set") };
        let of_another_kind = Object { served: kind("Other", true), ..thing("set") };
        for (case, owner) in [("namespace", elsewhere), ("name", renamed), ("kind", of_another_kind)] {
            let graph = graph([owner, child("miner", &["set"])]);
            assert_eq!(decide(&graph, "miner"), Decision::Verify(vec![reference("set")]), "{case}");
            assert_eq!(graph.crosses_namespaces(&reference("set"), "n1"), case == "namespace");
        }
        let of_the_cluster = Object { namespace: "".into(), ..thing("set") };
        let graph = graph([of_the_cluster, child("miner", &["set"])]);
        assert_eq!(decide(&graph, "miner"), Decision::Keep);
    }

    #[test]
    fn a_misplaced_reference_is_no_reason_to_delete() {
        let graph = graph([child("miner", &["set"])]);
        let verified = Verified { misplaced: vec![reference("set")], ..Verified::default() };
        assert_eq!(graph.what_to_do(&uid("miner"), &verified), Decision::Keep);
    }

    #[test]
    fn an_object_of_the_cluster_does_not_die_with_an_owner_in_a_namespace() {
        let mut graph = graph([thing("set"), Object { namespace: "".into(), ..child("node", &["set"]) }]);
        let _ = graph.remove(&uid("set"));
        assert_eq!(decide(&graph, "node"), Decision::Verify(vec![reference("set")]));
    }

    #[test]
    fn foreground_takes_the_leaves_in_the_background_and_what_has_dependents_in_the_foreground() {
        let graph = graph([
            going(thing("set"), false, true),
            blocking(child("miner", &["set"])),
            child("leaf", &["set"]),
            child("pod", &["miner"]),
        ]);
        assert_eq!(decide(&graph, "miner"), Decision::Delete(Propagation::Foreground));
        assert_eq!(decide(&graph, "leaf"), Decision::Delete(Propagation::Background));
        assert_eq!(decide(&graph, "pod"), Decision::Keep, "its owner is not being deleted yet");
        assert_eq!(decide(&graph, "set"), Decision::Keep, "the miner blocks it");
    }

    #[test]
    fn foreground_ends_when_no_dependent_blocks_any_more() {
        let mut graph =
            graph([going(thing("set"), false, true), blocking(child("miner", &["set"])), child("leaf", &["set"])]);
        assert_eq!(graph.remove(&uid("miner")), [uid("set")], "the owner that waits is told");
        assert_eq!(decide(&graph, "set"), Decision::Finish, "a dependent that does not block is not waited for");
    }

    #[test]
    fn an_owner_that_waits_to_go_is_struck_off_where_another_lives() {
        let graph = graph([going(thing("a"), false, true), thing("b"), child("miner", &["a", "b"])]);
        assert_eq!(decide(&graph, "miner"), Decision::Release(vec![uid("a")]));
    }

    #[test]
    fn beginning_to_wait_puts_all_dependents_in_question() {
        let mut graph = graph([thing("set"), child("a", &["set"]), child("b", &["set"])]);
        let look = graph.observe(going(thing("set"), false, true));
        assert_eq!(sorted(look), [uid("a"), uid("b"), uid("set")]);
    }

    #[test]
    fn circles_do_not_wait_for_themselves() {
        let itself = graph([going(blocking(child("a", &["a"])), false, true)]);
        assert_eq!(decide(&itself, "a"), Decision::Finish);
        let circle = |last_deleted| {
            graph([
                going(blocking(child("a", &["c"])), false, true),
                going(blocking(child("b", &["a"])), false, true),
                Object { deleting: last_deleted, foreground: last_deleted, ..blocking(child("c", &["b"])) },
            ])
        };
        assert_eq!(decide(&circle(false), "a"), Decision::Keep, "c is no part of the waiting yet");
        assert_eq!(decide(&circle(false), "c"), Decision::Delete(Propagation::Foreground));
        for name in ["a", "b", "c"] {
            assert_eq!(decide(&circle(true), name), Decision::Finish);
        }
    }

    #[test]
    fn a_circle_still_waits_for_a_dependent_outside_of_it() {
        let graph = graph([
            going(blocking(child("a", &["b"])), false, true),
            going(blocking(child("b", &["a"])), false, true),
            blocking(child("pod", &["a"])),
        ]);
        assert_eq!(decide(&graph, "a"), Decision::Keep);
    }

    #[test]
    fn orphaning_lets_every_dependent_go_first() {
        let graph = graph([going(thing("set"), true, false), child("a", &["set"]), child("b", &["set", "x"])]);
        let Decision::Orphan(dependents) = decide(&graph, "set") else { panic!("not an orphaning") };
        assert_eq!(sorted(dependents), [uid("a"), uid("b")]);
        assert_eq!(decide(&graph, "a"), Decision::Keep, "its owner is still there");
    }

    #[test]
    fn the_finalizers_an_object_already_has_say_how_its_dependents_are_treated() {
        for (orphans, foreground, expected) in [
            (true, false, Propagation::Orphan),
            (false, true, Propagation::Foreground),
            (false, false, Propagation::Background),
        ] {
            let mut graph = graph([thing("a"), Object { orphans, foreground, ..child("b", &["a"]) }]);
            let _ = graph.remove(&uid("a"));
            assert_eq!(decide(&graph, "b"), Decision::Delete(expected));
        }
    }

    #[test]
    fn what_is_being_deleted_is_not_deleted_again() {
        let mut graph = graph([thing("a"), going(child("b", &["a"]), false, false)]);
        let _ = graph.remove(&uid("a"));
        assert_eq!(decide(&graph, "b"), Decision::Keep);
    }

    #[test]
    fn an_update_that_changes_no_tie_is_taken_in_silently() {
        let mut graph = graph([thing("a"), child("b", &["a"])]);
        let newer = Object { revision: "7".into(), ..child("b", &["a"]) };
        assert_eq!(graph.observe(newer), []);
        assert_eq!(*graph.get(&uid("b")).unwrap().revision, *"7");
    }

    #[test]
    fn a_lost_listing_shows_what_was_deleted_meanwhile() {
        let a = thing("a");
        let served = a.served.clone();
        let graph = graph([a, Object { served: served.clone(), ..thing("b") }, thing("of another resource")]);
        assert_eq!(graph.unlisted(&served, &HashSet::from([uid("b")])), [uid("a")]);
    }

    #[test]
    fn nothing_is_kept_of_what_is_gone_but_a_bounded_number_of_absences() {
        let mut graph = Graph::new(8);
        for number in 0..100 {
            let (owner, dependent) = (format!("owner{number}"), format!("dependent{number}"));
            let _ = graph.observe(thing(&owner));
            let _ = graph.observe(child(&dependent, &[&owner]));
            let _ = graph.remove(&uid(&owner));
            let _ = graph.remove(&uid(&dependent));
        }
        assert!(graph.objects.is_empty() && graph.dependents.is_empty());
        assert_eq!((graph.absent.known.len(), graph.absent.oldest_first.len()), (8, 8));
    }
}
