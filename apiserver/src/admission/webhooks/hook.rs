//! One webhook, compiled from its configuration, and what it wants to be asked about.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    call::{Dial, Way},
    condition::Conditions,
    question::{self, Asked, Subject, Verdict},
};
use crate::{
    admission::{Operation, Review},
    authz::Authorizer,
    registry::{Registry, about},
    selector::Labels,
    status::{Result, Status},
};

/// One webhook.
pub struct Hook {
    /// The name, as messages say it.
    pub(super) name: String,
    configuration: String,
    /// Its place in the configuration.
    index: usize,
    mutates: bool,
    rules: Vec<Rule>,
    is_equivalent: bool,
    namespaces: Labels,
    objects: Labels,
    conditions: Conditions,
    pub(super) ignores_failure: bool,
    pub(super) is_without_side_effects: bool,
    pub(super) wants_reinvocation: bool,
    seconds: u64,
    /// The version of the review that it reads: `v1` or `v1beta1`.
    version: &'static str,
    way: Way,
}

/// Which writes a webhook wants to be asked about.
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    scope: Scope,
}

enum Scope {
    All,
    Cluster,
    Namespaced,
}

/// The webhooks of a configuration, in its order.
pub(super) fn compile(configuration: &Value, dial: &Dial) -> Vec<Arc<Hook>> {
    let name = text(&configuration["metadata"]["name"]);
    let mutates = configuration["kind"] == "MutatingWebhookConfiguration";
    let hooks = configuration["webhooks"].as_array().into_iter().flatten().enumerate();
    hooks.map(|(index, hook)| Arc::new(Hook::new(name, mutates, index, hook, dial))).collect()
}

impl Hook {
    fn new(configuration: &str, mutates: bool, index: usize, hook: &Value, dial: &Dial) -> Self {
        let versions = strings(&hook["admissionReviewVersions"]);
        let known = ["v1", "v1beta1"];
        let version = versions.iter().find_map(|version| known.into_iter().find(|known| known == version));
        Self {
            name: text(&hook["name"]).to_owned(),
            configuration: configuration.to_owned(),
            index,
            mutates,
            rules: hook["rules"].as_array().into_iter().flatten().map(Rule::new).collect(),
            is_equivalent: hook["matchPolicy"] != "Exact",
            namespaces: Labels::from_label_selector(&hook["namespaceSelector"]),
            objects: Labels::from_label_selector(&hook["objectSelector"]),
            conditions: Conditions::of(hook),
            ignores_failure: hook["failurePolicy"] == "Ignore",
            is_without_side_effects: hook["sideEffects"] == "None" || hook["sideEffects"] == "NoneOnDryRun",
            wants_reinvocation: hook["reinvocationPolicy"] == "IfNeeded",
            seconds: hook["timeoutSeconds"].as_u64().unwrap_or(10),
            version: version.unwrap_or("v1"),
            way: Way::new(&hook["clientConfig"], dial),
        }
    }

    /// What the webhook is to be asked about the write; nothing if it does not concern it.
    pub(super) fn concerns(
        &self,
        review: &Review<'_>,
        registry: &Registry,
        authorizer: &Arc<Authorizer>,
    ) -> Result<Option<Asked>> {
        let subject = Subject::of(review);
        let namespace = self.wants_namespace(review, registry);
        if !matches!(namespace, Ok(false)) && self.wants_object(review) {
            let found = match self.rules.iter().any(|rule| rule.wants(&subject, review.kind.into())) {
                true => Some(None),
                false if self.is_equivalent => self.equivalent(&subject, review, registry).map(Some),
                false => None,
            };
            if let Some(equivalent) = found {
                namespace?;
                let asked = Asked::of(review, registry, equivalent);
                return match self.conditions.hold(&asked, review, authorizer) {
                    Ok(holds) => Ok(holds.then_some(asked)),
                    Err(why) => {
                        tracing::warn!(webhook = self.name, why, "a condition of a webhook fails");
                        let about = about(review.kind, question::name(review));
                        if self.ignores_failure { Ok(None) } else { Err(Status::forbidden(about, why)) }
                    }
                };
            }
        }
        Ok(None)
    }

    /// Another kind with the same objects, by whose name the webhook knows them.
    fn equivalent(
        &self,
        subject: &Subject<'_>,
        review: &Review<'_>,
        registry: &Registry,
    ) -> Option<Arc<crate::kinds::Kind>> {
        let table = registry.kinds().table();
        let same = |kind: &&Arc<crate::kinds::Kind>| {
            kind.prefix == review.kind.prefix
                && (&kind.group, &kind.version) != (&review.kind.group, &review.kind.version)
        };
        let equivalents: Vec<_> = table.kinds.iter().filter(same).collect();
        let wanted = |rule: &Rule| equivalents.iter().find(|kind| rule.wants(subject, (&****kind).into()));
        self.rules.iter().find_map(wanted).map(|kind| (*kind).clone())
    }

    fn wants_namespace(&self, review: &Review<'_>, registry: &Registry) -> Result<bool> {
        let is_namespace = review.kind.group.is_empty() && review.kind.plural == "namespaces";
        if self.namespaces.is_everything() || (review.namespace.is_empty() && !is_namespace) {
            return Ok(true);
        }
        if is_namespace
            && review.operation != Operation::Delete
            && let Some(object) = review.object.as_deref()
        {
            return Ok(self.namespaces.matches_object(object));
        }
        let namespaces = registry.kinds().core("namespaces");
        let namespace = match registry.get(&namespaces, "", question::namespace(review)) {
            // A dry run in a namespace that would be made: it has the label that every namespace has.
            Err(_) if review.dry_run && registry.provisions() => {
                let name = |key: &str| (key == "kubernetes.io/metadata.name").then_some(review.namespace);
                return Ok(self.namespaces.matches(&name));
            }
            found => found?,
        };
        Ok(self.namespaces.matches(&|key| namespace.label(key)))
    }

    fn wants_object(&self, review: &Review<'_>) -> bool {
        let matches = |object: &Value| self.objects.matches_object(object);
        self.objects.is_everything() || review.object.as_deref().is_some_and(matches) || review.old.is_some_and(matches)
    }

    /// Asks. What went wrong is told in Kubernetes' words.
    pub(super) async fn ask(&self, asked: &Asked, review: &Review<'_>, until: Instant) -> Result<Verdict, String> {
        let uid = uuid::Uuid::new_v4().to_string();
        let question = Bytes::from(asked.question(review, self.version, &uid).to_string());
        let answer = self.way.post(question, self.seconds, until).await;
        let answer = answer.map_err(|why| format!("failed to call webhook: {why}"))?;
        Verdict::read(&answer, self.version, &uid, self.mutates)
            .map_err(|why| format!("received invalid webhook response: {why}"))
    }

    /// Where the audit log looks for webhooks that did not answer and were ignored.
    pub(super) fn failed_open(&self) -> String {
        let kind = if self.mutates { "mutation" } else { "validating" };
        format!("failed-open.{kind}.webhook.admission.k8s.io/{}_index_{}", self.configuration, self.index)
    }
}

/// The resource by whose name a rule may know an object.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    group: &'a str,
    version: &'a str,
    plural: &'a str,
}

impl<'a> From<&'a crate::kinds::Kind> for Known<'a> {
    fn from(kind: &'a crate::kinds::Kind) -> Self {
        Self { group: &kind.group, version: &kind.version, plural: &kind.plural }
    }
}

impl Rule {
    fn new(rule: &Value) -> Self {
        let resources = strings(&rule["resources"]).into_iter().map(|resource| match resource.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (resource, String::new()),
        });
        Self {
            operations: strings(&rule["operations"]),
            groups: strings(&rule["apiGroups"]),
            versions: strings(&rule["apiVersions"]),
            resources: resources.collect(),
            scope: match text(&rule["scope"]) {
                "Cluster" => Scope::Cluster,
                "Namespaced" => Scope::Namespaced,
                _ => Scope::All,
            },
        }
    }

    fn wants(&self, subject: &Subject<'_>, known: Known<'_>) -> bool {
        let any = |words: &[String], word: &str| words.iter().any(|w| w == "*" || w == word);
        let resource = |(resource, subresource): &(String, String)| {
            (resource == "*" || resource == known.plural) && (subresource == "*" || subresource == subject.subresource)
        };
        let scope = match self.scope {
            Scope::All => true,
            Scope::Cluster => !subject.is_namespaced,
            Scope::Namespaced => subject.is_namespaced,
        };
        scope
            && any(&self.operations, subject.operation)
            && any(&self.groups, known.group)
            && any(&self.versions, known.version)
            && self.resources.iter().any(resource)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

impl Verdict {
    /// Refuses what the webhook refused.
    pub(super) fn hold(&self, name: &str) -> Result<()> {
        if self.allowed {
            return Ok(());
        }
        let denied = format!("admission webhook {name:?} denied the request");
        let message = match (text(&self.status["message"]), text(&self.status["reason"])) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        Err(Status::refused(&self.status, message))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wants(
        rule: Value,
        operation: &str,
        resource: (&str, &str, &str),
        subresource: &str,
        is_namespaced: bool,
    ) -> bool {
        let subject = Subject { operation, subresource, is_namespaced };
        let known = Known { group: resource.0, version: resource.1, plural: resource.2 };
        Rule::new(&rule).wants(&subject, known)
    }

    #[test]
    fn a_rule_wants_what_it_names_and_stars_stand_for_everything() {
        let pods = ("", "v1", "pods");
        let rule = |resources: Value, scope: &str| json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources, "scope": scope});
        assert!(wants(rule(json!(["pods"]), "*"), "CREATE", pods, "", true));
        assert!(!wants(rule(json!(["pods"]), "*"), "UPDATE", pods, "", true));
        assert!(!wants(rule(json!(["pods"]), "*"), "CREATE", ("", "v2", "pods"), "", true));
        assert!(!wants(rule(json!(["pods"]), "*"), "CREATE", ("apps", "v1", "pods"), "", true));
        assert!(!wants(rule(json!(["pods"]), "*"), "CREATE", pods, "status", true));
        assert!(!wants(rule(json!(["*"]), "*"), "CREATE", pods, "status", true));
        assert!(wants(rule(json!(["*/status"]), "*"), "CREATE", pods, "status", true));
        assert!(wants(rule(json!(["pods/*"]), "*"), "CREATE", pods, "", true));
        assert!(wants(rule(json!(["*/*"]), "*"), "CREATE", pods, "status", true));
        assert!(!wants(rule(json!(["*"]), "Cluster"), "CREATE", pods, "", true));
        assert!(wants(rule(json!(["*"]), "Cluster"), "CREATE", ("", "v1", "namespaces"), "", false));
        assert!(!wants(rule(json!(["*"]), "Namespaced"), "CREATE", ("", "v1", "namespaces"), "", false));
        let all = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        assert!(wants(all, "DELETE", ("apps.onex.io", "v1beta1", "miners"), "", true));
    }

    #[test]
    fn a_refusal_says_what_the_webhook_said_and_is_an_error_in_any_case() {
        let refusal = |status: Value| {
            let verdict = Verdict { allowed: false, status, ..Verdict::default() };
            let refused = verdict.hold("w.example.com").unwrap_err();
            (refused.code, refused.reason.into_owned(), refused.message)
        };
        let denied = |rest: &str| format!("admission webhook \"w.example.com\" denied the request{rest}");
        assert_eq!(refusal(json!({})), (400, String::new(), denied(" without explanation")));
        assert_eq!(refusal(json!({"code": 200, "reason": "Why"})), (400, "Why".to_owned(), denied(": Why")));
        let told = refusal(json!({"code": 403, "reason": "Forbidden", "message": "no"}));
        assert_eq!(told, (403, "Forbidden".to_owned(), denied(": no")));
        assert_eq!(refusal(json!({"code": 70000})).0, 400);
    }
}
