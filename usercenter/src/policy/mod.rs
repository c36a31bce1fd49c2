//! Who may do what: Casbin's model, and an index that decides without looking at every line.
//!
//! A policy allows or denies a subject an operation on an object. A subject has what its roles have, and theirs, up to ten
//! deep. An object or an operation that ends in `*` stands for all that begin so. Something is allowed when a policy allows
//! it and none denies it; what no policy speaks of is denied. In the words of Casbin: [`MODEL`].

mod names;

use std::collections::HashMap;

use names::{Names, Patterns};

/// The model, as Casbin reads it.
pub const MODEL: &str = "\
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && keyMatch(r.act, p.act)
";

/// How deep roles of roles are followed.
const DEEPEST: usize = 10;

/// A line of the policies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Line {
    /// What a subject may or may not do.
    Policy {
        /// The user or role.
        sub: String,
        /// The object, or how it begins and a `*`.
        obj: String,
        /// The operation, or how it begins and a `*`.
        act: String,
        /// Whether it is denied.
        deny: bool,
    },
    /// A role that a subject has.
    Role {
        /// The user or role.
        sub: String,
        /// The role.
        role: String,
    },
}

/// All lines, so that a decision takes a few lookups however many they are.
#[derive(Debug, Default)]
pub struct Policies {
    subjects: Names,
    objects: Patterns,
    operations: Patterns,
    rules: HashMap<(u32, u32, u32), Effects>,
    roles: HashMap<u32, Vec<Role>>,
}

/// The number of the line that allows, and of the one that denies.
#[derive(Debug, Clone, Copy, Default)]
struct Effects {
    allow: Option<i64>,
    deny: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Role {
    role: u32,
    number: i64,
}

/// Why something is allowed or denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The subject and its roles, nearest first.
    pub roles: Vec<String>,
    /// The lines that speak of it with their numbers, those that deny first.
    pub lines: Vec<(i64, Line)>,
}

impl Policies {
    /// Adds a line. One that is there already gets the new number.
    pub fn insert(&mut self, number: i64, line: &Line) {
        match line {
            Line::Policy { sub, obj, act, deny } => {
                let key = (self.subjects.take(sub), self.objects.take(obj), self.operations.take(act));
                let effects = self.rules.entry(key).or_default();
                let slot = if *deny { &mut effects.deny } else { &mut effects.allow };
                if slot.replace(number).is_some() {
                    self.release(key);
                }
            }
            Line::Role { sub, role } => {
                let (sub, role) = (self.subjects.take(sub), self.subjects.take(role));
                let roles = self.roles.entry(sub).or_default();
                match roles.iter_mut().find(|other| other.role == role) {
                    Some(other) => {
                        other.number = number;
                        self.subjects.release(sub);
                        self.subjects.release(role);
                    }
                    None => roles.push(Role { role, number }),
                }
            }
        }
    }

    /// Takes a line away, if it is there.
    pub fn remove(&mut self, line: &Line) {
        match line {
            Line::Policy { sub, obj, act, deny } => {
                let found = (self.subjects.find(sub), self.objects.find(obj), self.operations.find(act));
                let (Some(sub), Some(obj), Some(act)) = found else { return };
                let key = (sub, obj, act);
                let Some(effects) = self.rules.get_mut(&key) else { return };
                let slot = if *deny { &mut effects.deny } else { &mut effects.allow };
                if slot.take().is_none() {
                    return;
                }
                if effects.allow.is_none() && effects.deny.is_none() {
                    self.rules.remove(&key);
                }
                self.release(key);
            }
            Line::Role { sub, role } => {
                let (Some(sub), Some(role)) = (self.subjects.find(sub), self.subjects.find(role)) else { return };
                let Some(roles) = self.roles.get_mut(&sub) else { return };
                let Some(place) = roles.iter().position(|other| other.role == role) else { return };
                roles.swap_remove(place);
                if roles.is_empty() {
                    self.roles.remove(&sub);
                }
                self.subjects.release(sub);
                self.subjects.release(role);
            }
        }
    }

    fn release(&mut self, (sub, obj, act): (u32, u32, u32)) {
        self.subjects.release(sub);
        self.objects.release(obj);
        self.operations.release(act);
    }

    /// Whether `sub` may do `act` to `obj`.
    #[must_use]
    pub fn allow(&self, sub: &str, obj: &str, act: &str) -> bool {
        let Some(sub) = self.subjects.find(sub) else { return false };
        let (objects, operations) = (self.objects.matching(obj), self.operations.matching(act));
        if objects.is_empty() || operations.is_empty() {
            return false;
        }
        let mut allowed = false;
        for sub in self.with_roles(sub) {
            for &obj in &objects {
                for &act in &operations {
                    if let Some(effects) = self.rules.get(&(sub, obj, act)) {
                        if effects.deny.is_some() {
                            return false;
                        }
                        allowed = true;
                    }
                }
            }
        }
        allowed
    }

    /// Why `sub` may do `act` to `obj`, or may not.
    #[must_use]
    pub fn explain(&self, sub: &str, obj: &str, act: &str) -> Explanation {
        let Some(id) = self.subjects.find(sub) else {
            return Explanation { allowed: false, roles: vec![sub.to_owned()], lines: Vec::new() };
        };
        let (objects, operations) = (self.objects.matching(obj), self.operations.matching(act));
        let subjects = self.with_roles(id);
        let (mut denying, mut allowing) = (Vec::new(), Vec::new());
        for &sub in &subjects {
            for &obj in &objects {
                for &act in &operations {
                    let Some(effects) = self.rules.get(&(sub, obj, act)) else { continue };
                    let line = |deny| Line::Policy {
                        sub: self.subjects.name(sub).to_owned(),
                        obj: self.objects.text(obj),
                        act: self.operations.text(act),
                        deny,
                    };
                    denying.extend(effects.deny.map(|number| (number, line(true))));
                    allowing.extend(effects.allow.map(|number| (number, line(false))));
                }
            }
        }
        let allowed = denying.is_empty() && !allowing.is_empty();
        denying.append(&mut allowing);
        let roles = subjects.iter().map(|&sub| self.subjects.name(sub).to_owned()).collect();
        Explanation { allowed, roles, lines: denying }
    }

    /// A subject and all its roles, nearest first.
    fn with_roles(&self, sub: u32) -> Vec<u32> {
        let mut all = vec![sub];
        let mut level = 0;
        for _ in 0..DEEPEST {
            let end = all.len();
            for place in level..end {
                for role in self.roles.get(&all[place]).into_iter().flatten() {
                    if !all.contains(&role.role) {
                        all.push(role.role);
                    }
                }
            }
            if all.len() == end {
                break;
            }
            level = end;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        let parts: Vec<String> = text.split(", ").map(str::to_owned).collect();
        match parts.as_slice() {
            [sub, role] => Line::Role { sub: sub.clone(), role: role.clone() },
            [sub, obj, act, eft] => {
                Line::Policy { sub: sub.clone(), obj: obj.clone(), act: act.clone(), deny: eft == "deny" }
            }
            _ => panic!("{text}"),
        }
    }

    fn policies(lines: &[&str]) -> Policies {
        let mut policies = Policies::default();
        for (number, text) in (1..).zip(lines) {
            policies.insert(number, &line(text));
        }
        policies
    }

    #[test]
    fn what_no_policy_speaks_of_is_denied_and_a_deny_wins() {
        let policies = policies(&[
            "alice, data1, read, allow",
            "admin, *, *, allow",
            "alice, admin",
            "alice, secret/*, *, deny",
            "admin, boss",
            "boss, moon, fly, allow",
        ]);
        for (sub, obj, act, allowed) in [
            ("alice", "data1", "read", true),
            ("alice", "data9", "write", true),
            ("alice", "secret/1", "read", false),
            ("admin", "secret/1", "read", true),
            ("alice", "moon", "fly", true),
            ("boss", "data1", "read", false),
            ("bob", "data1", "read", false),
        ] {
            assert_eq!(policies.allow(sub, obj, act), allowed, "{sub} {obj} {act}");
            assert_eq!(policies.explain(sub, obj, act).allowed, allowed, "{sub} {obj} {act}");
        }
        assert!(!Policies::default().allow("root", "*", "*"));
    }

    #[test]
    fn an_explanation_names_the_lines_and_the_roles_that_they_come_by() {
        let policies = policies(&["admin, *, *, allow", "alice, admin", "alice, secret/*, *, deny"]);
        let why = policies.explain("alice", "secret/1", "read");
        assert_eq!(why.roles, ["alice", "admin"]);
        assert_eq!(why.lines, [(3, line("alice, secret/*, *, deny")), (1, line("admin, *, *, allow"))]);
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let lines = ["a, o, x*, allow", "a, o, x*, deny", "b, *, x, allow", "a, b", "b, a", "a, a"];
        let mut all = policies(&lines);
        lines.iter().for_each(|text| all.insert(9, &line(text)));
        for text in lines {
            all.remove(&line(text));
            all.remove(&line(text));
        }
        assert!(all.rules.is_empty() && all.roles.is_empty());
        assert!(all.subjects.is_empty() && all.objects.is_empty() && all.operations.is_empty());
    }
}
