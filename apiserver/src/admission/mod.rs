//! What may be written beyond what a kind says of itself: a visible list, asked in order.

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    authn::User,
    kinds::Kind,
    registry::{Part, Registry},
    status::Result,
};

mod minerset;
mod namespace;

/// One rule about writes.
#[async_trait]
pub trait Admit: Send + Sync + 'static {
    /// The name that settings and messages use.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses the write.
    async fn admit(&self, review: &mut Review<'_>, registry: &Registry) -> Result<()>;
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
pub fn rules() -> Vec<Box<dyn Admit>> {
    vec![
        Box::new(namespace::AutoProvision), // before Lifecycle, which refuses namespaces that are not there
        Box::new(namespace::Lifecycle),
        Box::new(minerset::MinerSet), // after the name is known: its selector holds the name
    ]
}
