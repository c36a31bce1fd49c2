//! Who is bound to which role: what the windows of the four kinds show, indexed by subject.
//!
//! It follows the windows change by change, so that one new binding among a hundred thousand costs what one binding costs.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use serde_json::Value;

use super::{Asked, rules::Rule};
use crate::{
    authn::User,
    window::{Run, Window, Windows},
};

/// So many changes are taken in at a time.
const AT_ONCE: usize = 1024;

const ROLES: usize = 0;
const CLUSTER_ROLES: usize = 1;
const ROLE_BINDINGS: usize = 2;
const CLUSTER_ROLE_BINDINGS: usize = 3;
/// Where the four kinds are stored.
pub(crate) const PREFIXES: [&str; 4] =
    ["/registry/roles/", "/registry/clusterroles/", "/registry/rolebindings/", "/registry/clusterrolebindings/"];

/// Roles and bindings as they are now.
pub(crate) struct Bindings {
    windows: [Arc<Window>; 4],
    /// Up to where each window was followed.
    seen: [AtomicU64; 4],
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// By key in the store.
    roles: HashMap<Arc<str>, Vec<Rule>>,
    bindings: HashMap<Arc<str>, Arc<Binding>>,
    by_subject: HashMap<Subject, Bound>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(Box<str>),
    Group(Box<str>),
}

/// The bindings of one subject.
#[derive(Default)]
struct Bound {
    everywhere: Vec<Arc<Binding>>,
    within: HashMap<Box<str>, Vec<Arc<Binding>>>,
}

/// One binding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// Empty for a ClusterRoleBinding.
    namespace: Box<str>,
    name: Box<str>,
    /// The key of the role in the store.
    role: Box<str>,
    role_kind: Box<str>,
    role_name: Box<str>,
    subjects: Vec<Subject>,
}

/// Why something is allowed.
pub(crate) struct Grant {
    binding: Arc<Binding>,
    subject: Subject,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding { namespace, name, role_kind, role_name, .. } = &*self.binding;
        match &**namespace {
            "" => write!(f, "RBAC: allowed by ClusterRoleBinding {name:?} of {role_kind} {role_name:?} to ")?,
            namespace => {
                let full = format!("{name}/{namespace}");
                write!(f, "RBAC: allowed by RoleBinding {full:?} of {role_kind} {role_name:?} to ")?;
            }
        }
        match &self.subject {
            Subject::User(user) => match user.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':')) {
                Some((namespace, account)) => write!(f, "ServiceAccount {:?}", format!("{account}/{namespace}")),
                None => write!(f, "User {user:?}"),
            },
            Subject::Group(group) => write!(f, "Group {group:?}"),
        }
    }
}

impl Binding {
    fn read(namespace: &str, name: &str, object: &Value) -> Self {
        let reference = &object["roleRef"];
        let (kind, role) = (text(&reference["kind"]), text(&reference["name"]));
        let key = match kind {
            "ClusterRole" => format!("{}{role}", PREFIXES[CLUSTER_ROLES]),
            _ => format!("{}{namespace}/{role}", PREFIXES[ROLES]),
        };
        let subjects = object["subjects"].as_array().into_iter().flatten();
        Self {
            namespace: namespace.into(),
            name: name.into(),
            role: key.into(),
            role_kind: kind.into(),
            role_name: role.into(),
            subjects: subjects.filter_map(|subject| Subject::read(subject, namespace)).collect(),
        }
    }
}

impl Subject {
    fn read(subject: &Value, namespace: &str) -> Option<Self> {
        let name = text(&subject["name"]);
        Some(match text(&subject["kind"]) {
            "User" => Self::User(name.into()),
            "Group" => Self::Group(name.into()),
            "ServiceAccount" => {
                let of = Some(text(&subject["namespace"])).filter(|of| !of.is_empty()).unwrap_or(namespace);
                Self::User(format!("system:serviceaccount:{of}:{name}").into())
            }
            _ => return None,
        })
    }

    /// A user under all names that bindings may know them by.
    fn all(user: &User) -> impl Iterator<Item = Self> + '_ {
        let groups = user.groups.iter().map(|group| Self::Group(group.as_str().into()));
        std::iter::once(Self::User(user.name.as_str().into())).chain(groups)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Bindings {
    /// Follows the windows, which have been declared.
    pub(crate) fn new(windows: &Windows) -> Self {
        Self {
            windows: PREFIXES.map(|prefix| windows.of(prefix).expect("the kinds of RBAC are compiled in")),
            seen: [const { AtomicU64::new(u64::MAX) }; 4],
            state: RwLock::default(),
        }
    }

    /// Why the user may do what is asked; or the roles that bindings name and that are not there.
    ///
    /// The windows must show what anybody was told of: then whoever made a binding is let in at once.
    pub(crate) fn grant(&self, user: &User, asked: &Asked<'_>) -> Result<Grant, Vec<String>> {
        self.follow();
        let state = self.state.read();
        let mut missing = Vec::new();
        for subject in Subject::all(user) {
            let Some(bound) = state.by_subject.get(&subject) else { continue };
            for binding in bound.that_concern(asked.namespace) {
                match state.roles.get(&*binding.role) {
                    Some(rules) if rules.iter().any(|rule| rule.allows(asked)) => {
                        return Ok(Grant { binding: binding.clone(), subject });
                    }
                    Some(_) => {}
                    None if missing.len() < 16 => missing.push(absent(binding)),
                    None => {}
                }
            }
        }
        Err(missing)
    }

    /// All that the user may do in the namespace; everywhere, if it is empty. And the roles that are not there.
    pub(crate) fn rules(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        self.follow();
        let state = self.state.read();
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        for subject in Subject::all(user) {
            let Some(bound) = state.by_subject.get(&subject) else { continue };
            for binding in bound.that_concern(namespace) {
                match state.roles.get(&*binding.role) {
                    Some(more) => rules.extend(more.iter().cloned()),
                    None if missing.len() < 16 => missing.push(absent(binding)),
                    None => {}
                }
            }
        }
        (rules, missing)
    }

    /// The rules of the role that a binding in the namespace names; nothing if it is not there.
    pub(crate) fn of_role(&self, namespace: &str, binding: &Value) -> Option<Vec<Rule>> {
        self.follow();
        let binding = Binding::read(namespace, "", binding);
        self.state.read().roles.get(&*binding.role).cloned()
    }

    /// Takes in what has changed since.
    fn follow(&self) {
        let is_new = |(window, seen): (&Arc<Window>, &AtomicU64)| window.changed() != seen.load(Ordering::Acquire);
        if !self.windows.iter().zip(&self.seen).any(is_new) {
            return;
        }
        let mut state = self.state.write();
        for (which, window) in self.windows.iter().enumerate() {
            let newest = window.changed();
            let mut seen = self.seen[which].load(Ordering::Acquire);
            if newest == seen {
                continue;
            }
            loop {
                match (seen, window.events_after(seen, AT_ONCE)) {
                    (u64::MAX, _) | (_, Run::Gone(_)) => {
                        state.read_whole(which, window);
                        break;
                    }
                    (_, Run::Events(events, up_to)) => {
                        for event in &events {
                            match event.deleted {
                                true => state.remove(which, &event.item.key),
                                false => state.put(which, &event.item.key, &event.item.stored.value_without_managers()),
                            }
                        }
                        if events.len() < AT_ONCE {
                            break;
                        }
                        seen = up_to;
                    }
                }
            }
            // What came meanwhile is taken in again by the next request, which does no harm.
            self.seen[which].store(newest, Ordering::Release);
        }
    }
}

fn absent(binding: &Binding) -> String {
    let Binding { role_kind, role_name, .. } = binding;
    format!("{}.rbac.authorization.k8s.io {role_name:?} not found", role_kind.to_lowercase())
}

impl Bound {
    fn that_concern(&self, namespace: &str) -> impl Iterator<Item = &Arc<Binding>> {
        let within = if namespace.is_empty() { None } else { self.within.get(namespace) };
        self.everywhere.iter().chain(within.into_iter().flatten())
    }

    fn at(&mut self, namespace: &str) -> &mut Vec<Arc<Binding>> {
        if namespace.is_empty() { &mut self.everywhere } else { self.within.entry(namespace.into()).or_default() }
    }
}

impl State {
    fn read_whole(&mut self, which: usize, window: &Window) {
        let snapshot = window.snapshot();
        let prefix = PREFIXES[which];
        let known = self.roles.keys().chain(self.bindings.keys());
        let gone: Vec<Arc<str>> =
            known.filter(|key| key.starts_with(prefix) && !snapshot.items.contains_key(&***key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(which, key));
        for item in snapshot.items.values() {
            self.put(which, &item.key, &item.stored.value_without_managers());
        }
    }

    fn put(&mut self, which: usize, key: &Arc<str>, object: &Value) {
        if matches!(which, ROLES | CLUSTER_ROLES) {
            self.roles.insert(key.clone(), Rule::all(object));
            return;
        }
        let rest = key.strip_prefix(PREFIXES[which]).unwrap_or_default();
        let (namespace, name) = match which {
            ROLE_BINDINGS => rest.split_once('/').unwrap_or_default(),
            CLUSTER_ROLE_BINDINGS => ("", rest),
            other => unreachable!("there are four kinds, and this is {other}"),
        };
        let binding = Arc::new(Binding::read(namespace, name, object));
        if self.bindings.get(key) == Some(&binding) {
            return;
        }
        self.remove(which, key);
        for subject in &binding.subjects {
            self.by_subject.entry(subject.clone()).or_default().at(namespace).push(binding.clone());
        }
        self.bindings.insert(key.clone(), binding);
    }

    fn remove(&mut self, which: usize, key: &Arc<str>) {
        if matches!(which, ROLES | CLUSTER_ROLES) {
            self.roles.remove(key);
            return;
        }
        let Some(binding) = self.bindings.remove(key) else { return };
        for subject in &binding.subjects {
            let Some(bound) = self.by_subject.get_mut(subject) else { continue };
            let there = bound.at(&binding.namespace);
            there.retain(|other| !Arc::ptr_eq(other, &binding));
            if there.is_empty() && !binding.namespace.is_empty() {
                bound.within.remove(&binding.namespace);
            }
            if bound.everywhere.is_empty() && bound.within.is_empty() {
                self.by_subject.remove(subject);
            }
        }
    }
}
