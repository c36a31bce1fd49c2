//! Nobody grants what they do not hold.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{
    Asked, Authorizer, MASTERS, Rule,
    rules::{together, uncovered},
};
use crate::{
    admission::{Operation, Review, Validate},
    authn::User,
    registry::{Registry, about},
    status::{Result, Status},
};

/// No refusal names more rules than this.
const MOST_RULES: usize = 100;

/// Refuses roles and bindings that give away more than their writer has.
pub(crate) struct Escalation(pub(crate) Arc<Authorizer>);

#[async_trait]
impl Validate for Escalation {
    fn name(&self) -> &'static str {
        "RoleEscalation"
    }

    /// Without it, who may write one role could give themselves all.
    fn is_needed(&self) -> bool {
        true
    }

    async fn validate(&self, review: &Review<'_>, _: &Registry) -> Result<()> {
        let kind = review.kind;
        let is_written = matches!(review.operation, Operation::Create | Operation::Update);
        // Who has no name is the platform itself, which makes the first roles.
        if kind.group != "rbac.authorization.k8s.io" || !is_written || review.user.name.is_empty() {
            return Ok(());
        }
        let Some(object) = review.object.as_deref() else { return Ok(()) };
        if review.user.is_in(MASTERS) {
            return Ok(());
        }
        match kind.plural.as_str() {
            "roles" | "clusterroles" => self.hold_role(review, object),
            _ => self.hold_binding(review, object),
        }
    }
}

impl Escalation {
    fn hold_role(&self, review: &Review<'_>, object: &Value) -> Result<()> {
        let unchanged = |field: &str| review.old.is_some_and(|old| old[field] == object[field]);
        if unchanged("rules") && unchanged("aggregationRule") {
            return Ok(());
        }
        if self.may(review, "escalate", review.kind.plural.as_str(), "") {
            return Ok(());
        }
        if object["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|list| !list.is_empty())
            && !unchanged("aggregationRule")
        {
            // Whoever labels a role well could give it anything.
            let all = ["*".to_owned()];
            let everything =
                Rule { verbs: all.to_vec(), groups: all.to_vec(), resources: all.to_vec(), ..Rule::default() };
            let every_path = Rule { verbs: all.to_vec(), paths: all.to_vec(), ..Rule::default() };
            self.hold(
                review,
                object,
                &[everything, every_path],
                "must have cluster-admin privileges to use an aggregationRule",
            )?;
        }
        self.hold(review, object, &Rule::all(object), "")
    }

    fn hold_binding(&self, review: &Review<'_>, object: &Value) -> Result<()> {
        let same = |field: &str| review.old.is_some_and(|old| old[field] == object[field]);
        if same("subjects") && same("roleRef") {
            return Ok(());
        }
        let reference = &object["roleRef"];
        let (resource, name) = match reference["kind"].as_str() {
            Some("ClusterRole") => ("clusterroles", reference["name"].as_str().unwrap_or_default()),
            _ => ("roles", reference["name"].as_str().unwrap_or_default()),
        };
        if self.may(review, "bind", resource, name) {
            return Ok(());
        }
        let Some(rules) = self.0.of_role(review.namespace, object) else {
            return Err(Status::not_found(crate::status::About { group: "rbac.authorization.k8s.io", resource, name }));
        };
        self.hold(review, object, &rules, "")
    }

    fn may(&self, review: &Review<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let group = "rbac.authorization.k8s.io";
        let name = if name.is_empty() { name_of(review) } else { name };
        let asked =
            Asked { verb, group, resource, name, namespace: review.namespace, is_resource: true, ..Asked::default() };
        self.0.decide(review.user, &asked).allowed
    }

    fn hold(&self, review: &Review<'_>, object: &Value, wanted: &[Rule], instead: &str) -> Result<()> {
        let (owned, lacking) = self.0.rules(review.user, review.namespace);
        let missing = together(uncovered(&owned, wanted));
        if missing.is_empty() {
            return Ok(());
        }
        let about = about(review.kind, object["metadata"]["name"].as_str().unwrap_or_default());
        if !instead.is_empty() {
            return Err(Status::forbidden(about, instead));
        }
        let mut why = format!("{} is attempting to grant RBAC permissions not currently held:\n", shown(review.user));
        let lines: Vec<String> = missing.iter().take(MOST_RULES).map(Rule::shown).collect();
        why += &lines.join("\n");
        if missing.len() > MOST_RULES {
            why += &format!("\nand {} more", missing.len() - MOST_RULES);
        }
        if !lacking.is_empty() {
            why += &format!("; resolution errors: [{lacking}]");
        }
        why.truncate(why.floor_char_boundary(16 * 1024));
        Err(Status::forbidden(about, why))
    }
}

fn name_of<'a>(review: &'a Review<'_>) -> &'a str {
    review.object.as_deref().and_then(|object| object["metadata"]["name"].as_str()).unwrap_or_default()
}

fn shown(user: &User) -> String {
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    format!("user {:?} (groups=[{}])", user.name, groups.join(" "))
}
