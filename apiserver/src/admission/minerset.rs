//! The rules that OneX has for MinerSets: a selector of their own, and protection from deletion.

use async_trait::async_trait;

use super::{Admit, Operation, Review};
use crate::{
    registry::{Part, Registry, about},
    status::{Result, Status},
};

/// Forces a set's selector, template label and display name, and refuses the deletion of protected sets.
///
/// The name is known by now even if it was generated, so no two sets share a selector. Each object is looked at, so the
/// protection also holds when a whole collection, or the namespace, is deleted.
pub(super) struct MinerSet;

#[async_trait]
impl Admit for MinerSet {
    fn name(&self) -> &'static str {
        "MinerSet"
    }

    async fn admit(&self, review: &mut Review<'_>, _: &Registry) -> Result<()> {
        if review.kind.group != "apps.onex.io" || review.kind.plural != "minersets" || review.part != Part::Main {
            return Ok(());
        }
        if review.operation == Operation::Delete {
            return refuse_if_protected(review);
        }
        let Some(object) = review.object.as_deref_mut() else { return Ok(()) };
        let Ok(mut set) = serde_json::from_value::<onex_crds::MinerSet>(object.clone()) else {
            return Ok(()); // what is wrong with it is said by the check that follows
        };
        onex_crds::minerset::admit(&mut set);
        let admitted = serde_json::to_value(&set).map_err(Status::internal)?;
        object["spec"]["selector"] = admitted["spec"]["selector"].clone();
        object["spec"]["template"] = admitted["spec"]["template"].clone();
        Ok(())
    }
}

fn refuse_if_protected(review: &Review<'_>) -> Result<()> {
    let Some(old) = review.old else { return Ok(()) };
    if old["metadata"]["annotations"]["apps.onex.io/deletion-protection"] == "true" {
        let name = old["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Status::forbidden(about(review.kind, name), "minerset has deletion protection turned on"));
    }
    Ok(())
}
