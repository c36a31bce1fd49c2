//! The rules that OneX has for MinerSets: a selector of their own, and protection from deletion.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;

use super::{Admit, Operation, Review};
use crate::{
    registry::{Part, Registry, about, is_terminating},
    status::{Result, Status},
};

/// Forces a set's selector, template label and display name, and refuses the deletion of protected sets.
///
/// The name is known by now even if it was generated, so no two sets share a selector. Each object is looked at, so the
/// protection also holds when a whole collection is deleted. A namespace with a protected set in it stays.
pub(super) struct MinerSet;

#[async_trait]
impl Admit for MinerSet {
    fn name(&self) -> &'static str {
        "MinerSet"
    }

    async fn admit(&self, review: &mut Review<'_>, registry: &Registry) -> Result<()> {
        if review.operation == Operation::Delete && review.kind.plural == "namespaces" && review.kind.group.is_empty() {
            return refuse_if_a_set_is_protected(review, registry);
        }
        if review.kind.group != "apps.onex.io" || review.kind.plural != "minersets" || review.part != Part::Main {
            return Ok(());
        }
        if review.operation == Operation::Delete {
            return refuse_if_protected(review);
        }
        let Some(object) = review.object.as_deref_mut() else { return Ok(()) };
        let Ok(mut set) = onex_crds::MinerSet::deserialize(&*object) else {
            return Ok(()); // what is wrong with it is said by the check that follows
        };
        let before = set.spec.clone();
        onex_crds::minerset::admit(&mut set);
        if set.spec != before {
            object["spec"]["selector"] = serde_json::to_value(&set.spec.selector).map_err(Status::internal)?;
            object["spec"]["template"] = serde_json::to_value(&set.spec.template).map_err(Status::internal)?;
        }
        Ok(())
    }
}

fn refuse_if_protected(review: &Review<'_>) -> Result<()> {
    match review.old {
        Some(old) if is_protected(old) => {
            let name = old["metadata"]["name"].as_str().unwrap_or_default();
            Err(Status::forbidden(about(review.kind, name), "minerset has deletion protection turned on"))
        }
        _ => Ok(()),
    }
}

/// Nothing new enters a namespace that is going, so the Miners of a set that stays would be lost all the same.
fn refuse_if_a_set_is_protected(review: &Review<'_>, registry: &Registry) -> Result<()> {
    if review.old.is_some_and(is_terminating) {
        return Ok(()); // it was too late already, and asking again does no more
    }
    let Some(sets) = registry.kinds().find("apps.onex.io", "v1beta1", "minersets") else { return Ok(()) };
    let namespace = review.old.and_then(|old| old["metadata"]["name"].as_str()).unwrap_or_default();
    let range = format!("{}{namespace}/", sets.prefix);
    let there = registry.window(&sets).snapshot();
    let protected = there.range(&range, None).map(|item| item.stored.value_without_managers()).find(is_protected);
    let Some(set) = protected else { return Ok(()) };
    let set = set["metadata"]["name"].as_str().unwrap_or_default();
    let why = format!("minerset {set:?} in it has deletion protection turned on");
    Err(Status::forbidden(about(review.kind, namespace), why))
}

fn is_protected(set: &Value) -> bool {
    set["metadata"]["annotations"]["apps.onex.io/deletion-protection"] == "true"
}
