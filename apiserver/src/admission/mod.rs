//! What may be written beyond what a kind says of itself: a visible list, asked in order.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    Error, Settings,
    authn::User,
    authz::{Authorizer, Escalation},
    kinds::Kind,
    registry::{DeleteOptions, Options, Part, Registry},
    status::Result,
    window::Windows,
};

mod limit_ranger;
mod minerset;
mod namespace;
mod notes;
mod owners;
mod pods;
mod quota;
mod service_account;
pub(crate) mod webhooks;

pub use notes::Notes;
pub(crate) use quota::{Quotas, keep as keep_quotas};
pub use webhooks::Rounds;

/// One rule about writes, which is asked before the object is checked, and may change it.
///
/// It may be asked twice of one write: again when a webhook changed the object after it.
#[async_trait]
pub trait Admit: Send + Sync + 'static {
    /// The name that settings and messages use.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses the write.
    async fn admit(&self, review: &mut Review<'_>, registry: &Registry) -> Result<()>;
}

/// One rule about writes that only refuses. It sees the object as it will be stored.
#[async_trait]
pub trait Validate: Send + Sync + 'static {
    /// The name that settings and messages use.
    fn name(&self) -> &'static str;

    /// It cannot be switched off.
    fn is_needed(&self) -> bool {
        false
    }

    /// It is asked unless a setting says otherwise; if not, only where a setting says so.
    fn is_usual(&self) -> bool {
        true
    }

    /// Refuses the write, or lets it be.
    async fn validate(&self, review: &Review<'_>, registry: &Registry) -> Result<()>;
}

/// A write that is about to happen.
pub struct Review<'a> {
    /// What is done.
    pub operation: Operation,
    /// To what kind of object.
    pub kind: &'a Kind,
    /// In which namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Which part of the object is written.
    pub part: Part,
    /// The object to be stored; none when it is deleted.
    pub object: Option<&'a mut Value>,
    /// The object as it is; none when it is new.
    pub old: Option<&'a Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// Who does it.
    pub user: &'a User,
    /// The options that came with it.
    pub sent: Sent<'a>,
    /// What the request leaves behind besides its answer: warnings, annotations for the audit log.
    pub notes: &'a Notes,
    /// How often the rules were asked, and what webhooks did so far.
    pub rounds: Rounds,
}

/// The options that came with a write.
#[derive(Clone, Copy)]
pub enum Sent<'a> {
    /// Of a create or an update.
    Write(&'a Options),
    /// Of a deletion.
    Delete(&'a DeleteOptions),
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change.
    Update,
    /// The end, or its beginning.
    Delete,
}

/// All rules, in the order in which they are asked.
pub struct Rules {
    /// Those that may change the object.
    pub admit: Vec<Box<dyn Admit>>,
    /// Those that see what will be stored.
    pub validate: Vec<Box<dyn Validate>>,
}

impl Rules {
    /// Every rule that there is.
    pub(crate) fn all(
        settings: &Settings,
        windows: &Arc<Windows>,
        authorizer: &Arc<Authorizer>,
        quotas: &Arc<Quotas>,
    ) -> Self {
        let limits = limit_ranger::LimitRanger::new(windows);
        let webhooks = |prefix| webhooks::Webhooks::new(settings, windows, authorizer, prefix);
        Self {
            admit: vec![
                Box::new(namespace::AutoProvision), // before Lifecycle, which refuses namespaces that are not there
                Box::new(namespace::Lifecycle),
                Box::new(minerset::MinerSet), // after the name is known: its selector holds the name
                Box::new(limits.clone()),
                Box::new(pods::Priority),
                Box::new(pods::DefaultTolerationSeconds),
                Box::new(service_account::ServiceAccount), // after Lifecycle: a new namespace gets its account
                // Last: webhooks see what the platform makes of an object, and the rules above have the last word over it.
                Box::new(webhooks::Mutating(webhooks("/registry/mutatingwebhookconfigurations/"))),
            ],
            validate: vec![
                Box::new(limits),
                Box::new(owners::OwnerReferences(authorizer.clone())),
                Box::new(Escalation(authorizer.clone())), // asks about what will be stored, whoever changed it on the way
                Box::new(webhooks::Validating(webhooks("/registry/validatingwebhookconfigurations/"))),
                Box::new(quota::ResourceQuota(quotas.clone())), // last: what others refuse need not be reserved
            ],
        }
    }

    /// Those that are usual and those that are enabled, without those that are disabled.
    ///
    /// # Errors
    /// When there is no rule of a name.
    pub fn chosen(mut self, enabled: &[String], disabled: &[String]) -> Result<Self, Error> {
        let known = self.names();
        for (setting, names) in [("enable_admission", enabled), ("disable_admission", disabled)] {
            if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
                return Err(Error::Admission { setting, unknown: unknown.clone(), known: known.join(", ") });
            }
        }
        let is_in = |names: &[String], name: &str| names.iter().any(|n| n == name);
        self.admit.retain(|rule| !is_in(disabled, rule.name()));
        self.validate.retain(|rule| {
            let wanted = rule.is_usual() || is_in(enabled, rule.name());
            wanted && !is_in(disabled, rule.name())
        });
        Ok(self)
    }

    /// What those are called that can be chosen.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.admit.iter().map(|rule| rule.name()).collect();
        let validate = self.validate.iter().filter(|rule| !rule.is_needed());
        for name in validate.map(|rule| rule.name()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}
