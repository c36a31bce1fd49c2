//! What is recorded of which request: an audit policy, as Kubernetes reads it.

use serde::Deserialize;

use super::event::{Level, Stage};
use crate::{authn::User, request::Target};

/// A policy: the first rule that matches decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde::de::IgnoredAny,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What is recorded of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// How much.
    pub level: Level,
    /// At which stages not.
    pub omit_stages: Vec<Stage>,
    /// Objects are recorded without who owns which field.
    pub omit_managed_fields: bool,
}

/// Objects of these are never recorded, only who touched them: their content is secret.
const SECRET: [(&str, &str, &str); 3] =
    [("", "secrets", ""), ("", "serviceaccounts", "token"), ("authentication.k8s.io", "tokenreviews", "")];

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// In words, when it is no audit policy, or one that could match nothing it names.
    pub fn read(text: &str) -> Result<Self, String> {
        let policy: Self = serde_saphyr::from_str(text).map_err(|why| why.to_string())?;
        if policy.kind != "Policy" || policy.api_version != "audit.k8s.io/v1" {
            return Err(format!("{} {} is not a Policy of audit.k8s.io/v1", policy.api_version, policy.kind));
        }
        if policy.rules.is_empty() {
            return Err("it has no rules".to_owned());
        }
        for (number, rule) in policy.rules.iter().enumerate() {
            rule.hold().map_err(|why| format!("rules[{number}]: {why}"))?;
        }
        Ok(policy)
    }

    /// What is to be recorded of this request; nothing without a rule that matches.
    pub fn decide(&self, user: &User, target: &Target) -> Option<Decided> {
        let rule = self.rules.iter().find(|rule| rule.matches(user, target))?;
        if rule.level == Level::None {
            return None;
        }
        let is_secret = target.is_resource
            && SECRET.iter().any(|(group, resource, part)| {
                target.group == *group
                    && target.resource == *resource
                    && (part.is_empty() || target.subresource == *part)
            });
        Some(Decided {
            level: if is_secret { Level::Metadata } else { rule.level },
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        })
    }
}

impl Rule {
    fn hold(&self) -> Result<(), String> {
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.paths.is_empty() {
            return Err("nonResourceURLs stand alone: nothing is a resource and none".to_owned());
        }
        for path in &self.paths {
            let stem = path.strip_suffix('*').unwrap_or(path);
            if path != "*" && (!path.starts_with('/') || stem.contains('*')) {
                return Err(format!("nonResourceURLs: {path:?} is not \"*\" nor a path with at most one * at its end"));
            }
        }
        for resources in &self.resources {
            if resources.group.contains('/') {
                return Err(format!("resources: {:?} is a group with a version", resources.group));
            }
            if resources.resources.is_empty() && !resources.resource_names.is_empty() {
                return Err("resources: resourceNames need resources".to_owned());
            }
        }
        Ok(())
    }

    fn matches(&self, user: &User, target: &Target) -> bool {
        let any = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|one| one == wanted);
        if !any(&self.users, &user.name) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| user.is_in(group)) {
            return false;
        }
        if !self.verbs.iter().any(|verb| verb == "*") && !any(&self.verbs, target.verb) {
            return false;
        }
        if target.is_resource {
            self.paths.is_empty()
                && any(&self.namespaces, &target.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.match_target(target)))
        } else {
            let matches = |path: &String| match path.strip_suffix('*') {
                Some(stem) => target.path.starts_with(stem),
                None => *path == target.path,
            };
            self.resources.is_empty()
                && self.namespaces.is_empty()
                && (self.paths.is_empty() || self.paths.iter().any(matches))
        }
    }
}

impl Resources {
    fn match_target(&self, target: &Target) -> bool {
        let names = || self.resource_names.is_empty() || self.resource_names.contains(&target.name);
        self.group == target.group
            && (self.resources.is_empty() || self.resources.iter().any(|r| is_of(r, target)))
            && names()
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/status`, `*`: the part is named whole, or not meant.
fn is_of(pattern: &str, target: &Target) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || (pattern == target.resource && target.subresource.is_empty()),
        Some((resource, part)) => {
            (resource == "*" || resource == target.resource)
                && (if part == "*" { !target.subresource.is_empty() } else { part == target.subresource })
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn policy(rules: &str) -> Result<Policy, String> {
        Policy::read(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}"))
    }

    fn level(policy: &Policy, user: &User, method: Method, path: &str) -> Level {
        policy.decide(user, &Target::read(&method, path, "")).map_or(Level::None, |decided| decided.level)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            r#"
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:onex-controllers"], verbs: [watch]}
- {level: None, nonResourceURLs: ["/healthz*", /version]}
- {level: Request, resources: [{group: "", resources: [pods, pods/log]}], namespaces: [a, b]}
- {level: RequestResponse, resources: [{group: "", resources: ["*/status"]}]}
- {level: None, resources: [{group: "", resources: [configmaps], resourceNames: [noisy]}]}
- {level: Request, userGroups: [auditors], verbs: ["*"]}
- {level: Metadata, resources: [{group: ""}, {group: apps.onex.io}], omitStages: [ResponseStarted]}
"#,
        )
        .unwrap();
        let ann = User::new("ann", vec![]);
        let auditor = User::new("eve", vec!["auditors".to_owned()]);
        let part = User::new("system:onex-controllers", vec![]);
        let cases = [
            (&part, "/api/v1/watch/pods", Level::None),
            (&part, "/api/v1/pods/x", Level::Metadata),
            (&ann, "/healthz/ping", Level::None),
            (&ann, "/version", Level::None),
            (&ann, "/version/", Level::None),
            (&ann, "/api/v1/namespaces/a/pods/x", Level::Request),
            (&ann, "/api/v1/namespaces/a/pods/x/log", Level::Request),
            (&ann, "/api/v1/namespaces/a/pods/x/exec", Level::Metadata),
            (&ann, "/api/v1/namespaces/c/pods/x", Level::Metadata),
            (&ann, "/api/v1/namespaces/c/pods/x/status", Level::RequestResponse),
            (&ann, "/api/v1/namespaces/c/configmaps/noisy", Level::None),
            (&auditor, "/api/v1/namespaces/c/configmaps/quiet", Level::Request),
            (&auditor, "/metrics", Level::Request),
            (&ann, "/apis/apps.onex.io/v1beta1/chains", Level::Metadata),
            (&ann, "/apis/batch/v1/jobs", Level::None),
            (&ann, "/metrics", Level::None),
        ];
        for (user, path, wanted) in cases {
            assert_eq!(level(&policy, user, Method::GET, path), wanted, "{} {path}", user.name);
        }
        let decided = policy.decide(&ann, &Target::read(&Method::GET, "/api/v1/nodes", "")).unwrap();
        assert_eq!(decided.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
    }

    #[test]
    fn what_is_secret_is_never_recorded_with_its_content() {
        let policy = policy("rules: [{level: RequestResponse}]").unwrap();
        let ann = User::new("ann", vec![]);
        for (path, wanted) in [
            ("/api/v1/namespaces/a/secrets", Level::Metadata),
            ("/api/v1/namespaces/a/serviceaccounts/default/token", Level::Metadata),
            ("/apis/authentication.k8s.io/v1/tokenreviews", Level::Metadata),
            ("/api/v1/namespaces/a/serviceaccounts/default", Level::RequestResponse),
        ] {
            assert_eq!(level(&policy, &ann, Method::POST, path), wanted, "{path}");
        }
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused_with_the_reason() {
        for (rules, why) in [
            ("rules: []", "no rules"),
            ("rules: [{level: Everything}]", "unknown variant"),
            ("rules: [{level: None, verb: [get]}]", "unknown field"),
            ("rules: [{level: None, resources: [{group: \"\"}], nonResourceURLs: [/x]}]", "rules[0]: nonResourceURLs"),
            ("rules: [{level: None, nonResourceURLs: [\"/a*b\"]}]", "rules[0]: nonResourceURLs"),
            ("rules: [{level: None, resources: [{group: apps/v1}]}]", "version"),
            ("rules: [{level: None, resources: [{resourceNames: [x]}]}]", "need resources"),
        ] {
            let refused = policy(rules).unwrap_err();
            assert!(refused.contains(why), "{rules}: {refused}");
        }
        let other = Policy::read("apiVersion: v1\nkind: ConfigMap\nrules: [{level: None}]").unwrap_err();
        assert!(other.contains("is not a Policy"), "{other}");
    }
}
