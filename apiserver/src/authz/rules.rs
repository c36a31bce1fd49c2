//! What a role allows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Asked;

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    /// Only objects of these names; all, if there are none.
    pub(crate) names: Vec<String>,
    /// Paths that are no resource's.
    pub(crate) paths: Vec<String>,
}

/// No rule is taken apart into more pieces: somebody who may write roles must not keep the server busy.
const MOST_PIECES: usize = 50_000;

impl Rule {
    /// The rules of a role, as it is stored.
    pub(crate) fn all(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn read(rule: &Value) -> Self {
        let texts = |field: &str| {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: texts("verbs"),
            groups: texts("apiGroups"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            paths: texts("nonResourceURLs"),
        }
    }

    /// Whether it allows what is asked.
    pub(crate) fn allows(&self, asked: &Asked<'_>) -> bool {
        if !has(&self.verbs, asked.verb) {
            return false;
        }
        if !asked.is_resource {
            return self.paths.iter().any(|path| path_matches(path, asked.path));
        }
        has(&self.groups, asked.group)
            && self.resources.iter().any(|resource| resource_matches(resource, asked.resource, asked.subresource))
            && (self.names.is_empty() || (!asked.name.is_empty() && self.names.iter().any(|name| name == asked.name)))
    }

    /// Whether it allows all that the other does.
    fn covers(&self, other: &Self) -> bool {
        let all = |owned: &[String], wanted: &[String]| {
            owned.iter().any(|one| one == "*") || wanted.iter().all(|one| owned.contains(one))
        };
        if !all(&self.verbs, &other.verbs) {
            return false;
        }
        let resources = |wanted: &String| {
            let (resource, part) = wanted.split_once('/').unwrap_or((wanted, ""));
            self.resources.iter().any(|owned| owned == wanted || resource_matches(owned, resource, part))
        };
        let names =
            self.names.is_empty() || (!other.names.is_empty() && other.names.iter().all(|n| self.names.contains(n)));
        let path = |wanted: &String| {
            self.paths.iter().any(|owned| match owned.strip_suffix('*') {
                Some(stem) => wanted.trim_end_matches('*').starts_with(stem),
                None => owned == wanted,
            })
        };
        (other.resources.is_empty()
            || (all(&self.groups, &other.groups) && other.resources.iter().all(resources) && names))
            && other.paths.iter().all(path)
    }

    /// The rule as many that each allow one thing.
    fn pieces(&self) -> Vec<Self> {
        let one = |text: &str| vec![text.to_owned()];
        let mut pieces = Vec::new();
        for verb in &self.verbs {
            for path in &self.paths {
                pieces.push(Self { verbs: one(verb), paths: one(path), ..Self::default() });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    let piece =
                        Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    if self.names.is_empty() {
                        pieces.push(piece);
                        continue;
                    }
                    pieces.extend(self.names.iter().map(|name| Self { names: one(name), ..piece.clone() }));
                }
            }
        }
        pieces
    }

    fn count_of_pieces(&self) -> usize {
        let things = self.groups.len().saturating_mul(self.resources.len()).saturating_mul(self.names.len().max(1));
        self.verbs.len().saturating_mul(things.saturating_add(self.paths.len()))
    }

    /// As an error shows it.
    pub(crate) fn shown(&self) -> String {
        let fields = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("NonResourceURLs", &self.paths),
            ("Verbs", &self.verbs),
        ];
        let fields = fields.into_iter().filter(|(_, values)| !values.is_empty());
        let texts = |values: &[String]| values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" ");
        let shown: Vec<String> = fields.map(|(name, values)| format!("{name}:[{}]", texts(values))).collect();
        format!("{{{}}}", shown.join(", "))
    }

    /// As a review of rules lists it: whether it is of resources, and what it says.
    pub(crate) fn listed(&self) -> (bool, Value) {
        if self.paths.is_empty() {
            let mut rule = json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources});
            if !self.names.is_empty() {
                rule["resourceNames"] = json!(self.names);
            }
            (true, rule)
        } else {
            (false, json!({"verbs": self.verbs, "nonResourceURLs": self.paths}))
        }
    }
}

/// What may be done with the same resources as one rule, in the order in which rules are shown.
pub(crate) fn together(pieces: Vec<Rule>) -> Vec<Rule> {
    let mut verbs: BTreeMap<(Vec<String>, Vec<String>), Vec<String>> = BTreeMap::new();
    let (simple, mut rules): (Vec<Rule>, Vec<Rule>) =
        pieces.into_iter().partition(|rule| rule.names.is_empty() && rule.paths.is_empty());
    for rule in simple {
        verbs.entry((rule.groups, rule.resources)).or_default().extend(rule.verbs);
    }
    let simple = verbs.into_iter();
    rules.extend(simple.map(|((groups, resources), verbs)| Rule { verbs, groups, resources, ..Rule::default() }));
    rules.sort_by_cached_key(Rule::shown);
    rules
}

/// Those of `wanted` that `owned` do not cover, in pieces.
pub(crate) fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut missing = Vec::new();
    for rule in wanted {
        if owned.iter().any(|own| own.covers(rule)) {
            continue;
        }
        if rule.count_of_pieces() > MOST_PIECES {
            missing.push(rule.clone()); // nobody needs such a rule, and who has it in one piece may pass it on
            continue;
        }
        missing.extend(rule.pieces().into_iter().filter(|piece| !owned.iter().any(|own| own.covers(piece))));
    }
    missing
}

fn has(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == "*" || value == wanted)
}

/// `pods`, `pods/log`, `*/scale`, `*`.
fn resource_matches(pattern: &str, resource: &str, part: &str) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || (pattern == resource && part.is_empty()),
        Some((of, named)) => (of == "*" || of == resource) && named == part && !part.is_empty(),
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(stem) => path.starts_with(stem),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(rule: Value) -> Rule {
        Rule::read(&rule)
    }

    fn asked<'a>(verb: &'a str, group: &'a str, what: &'a str, name: &'a str) -> Asked<'a> {
        let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
        Asked { verb, group, resource, subresource, name, is_resource: true, ..Asked::default() }
    }

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_else() {
        let pods = rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}));
        let logs = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}));
        let scales =
            rule(json!({"verbs": ["update"], "apiGroups": ["apps", "apps.onex.io"], "resources": ["*/scale"]}));
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        let named =
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}));
        let cases = [
            (&pods, asked("get", "", "pods", "x"), true),
            (&pods, asked("list", "", "pods", ""), true),
            (&pods, asked("delete", "", "pods", "x"), false),
            (&pods, asked("get", "apps", "pods", "x"), false),
            (&pods, asked("get", "", "pods/log", "x"), false),
            (&logs, asked("get", "", "pods/log", "x"), true),
            (&logs, asked("get", "", "pods", "x"), false),
            (&scales, asked("update", "apps.onex.io", "minersets/scale", "x"), true),
            (&scales, asked("update", "apps.onex.io", "minersets", "x"), false),
            (&scales, asked("update", "", "pods/scale", "x"), false),
            (&all, asked("impersonate", "x.io", "foos/bar", ""), true),
            (&named, asked("get", "", "secrets", "a"), true),
            (&named, asked("get", "", "secrets", "b"), false),
            (&named, asked("get", "", "secrets", ""), false),
        ];
        for (rule, asked, allowed) in cases {
            assert_eq!(rule.allows(&asked), allowed, "{rule:?} {asked:?}");
        }
    }

    #[test]
    fn paths_may_end_with_a_star() {
        let health = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}));
        let all = rule(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        let asks = |path| Asked { verb: "get", path, ..Asked::default() };
        for (path, allowed) in [("/healthz/ping", true), ("/healthz", false), ("/version", true), ("/version/", false)]
        {
            assert_eq!(health.allows(&asks(path)), allowed, "{path}");
            assert!(all.allows(&asks(path)));
        }
        let of_resources = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert!(!of_resources.allows(&asks("/version")));
        assert!(!all.allows(&asked("get", "", "pods", "")));
    }

    #[test]
    fn what_is_granted_must_be_held_though_it_may_be_held_in_pieces() {
        let owned = [
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "services"]})),
            rule(json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]})),
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz*"]})),
            rule(json!({"verbs": ["update"], "apiGroups": ["apps"], "resources": ["*/scale"]})),
        ];
        let missing = |wanted: Value| {
            let missing = uncovered(&owned, &[rule(wanted)]);
            missing.iter().map(Rule::shown).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(missing(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]})), none);
        assert_eq!(
            missing(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "services"]})),
            [r#"{APIGroups:[""], Resources:["services"], Verbs:["list"]}"#]
        );
        assert_eq!(
            missing(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["b"]})),
            none
        );
        assert_eq!(
            missing(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]})),
            [r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#]
        );
        assert_eq!(missing(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/ping"]})), none);
        assert_eq!(
            missing(json!({"verbs": ["get"], "nonResourceURLs": ["/*"]})),
            [r#"{NonResourceURLs:["/*"], Verbs:["get"]}"#]
        );
        assert_eq!(
            missing(json!({"verbs": ["update"], "apiGroups": ["apps"], "resources": ["deployments/scale"]})),
            none
        );
        assert_eq!(missing(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]})).len(), 1);
    }

    #[test]
    fn a_rule_of_a_million_pieces_is_not_taken_apart() {
        let many = |prefix: &str| (0..1000).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
        let wanted = rule(json!({"verbs": many("v"), "apiGroups": many("g"), "resources": many("r")}));
        assert_eq!(uncovered(&[], &[wanted]).len(), 1);
    }
}
