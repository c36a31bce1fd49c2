//! Who needs a Chain: while anybody does, it is not deleted under them.

use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use onex_crds::{Chain, Miner, MinerSet};

use crate::context::Context;
use crate::error::{Error, Result};

/// How many of a kind are named.
const NAMED: usize = 3;

/// Who uses the Chain, as it is told to people; nothing when nobody does.
pub(super) async fn of(chain: &Chain, context: &Context) -> Result<Option<String>> {
    let name = chain.name_any();
    let views = &context.views;
    let sets = views.sets.store().state_filter(|set| is_set_of(&name, set));
    let miners = views.miners.store().state_filter(|miner| is_miner_of(&name, miner));
    if !sets.is_empty() || !miners.is_empty() {
        return Ok(Some(told(&names(sets.iter().map(|set| &**set)), &names(miners.iter().map(|miner| &**miner)))));
    }
    // Nobody is seen. The view may be behind, and this cannot be undone.
    let doing = "look for those who use the Chain";
    let all = ListParams::default();
    let sets = Api::<MinerSet>::all(context.apiserver.clone()).list(&all).await.map_err(Error::doing(doing))?;
    let miners = Api::<Miner>::all(context.apiserver.clone()).list(&all).await.map_err(Error::doing(doing))?;
    let sets = names(sets.iter().filter(|set| is_set_of(&name, set)));
    let miners = names(miners.iter().filter(|miner| is_miner_of(&name, miner)));
    Ok((!sets.is_empty() || !miners.is_empty()).then(|| told(&sets, &miners)))
}

fn is_set_of(chain: &str, set: &MinerSet) -> bool {
    set.spec.template.spec.chain_name == chain
}

/// Its genesis goes with it.
fn is_miner_of(chain: &str, miner: &Miner) -> bool {
    miner.spec.chain_name == chain && miner.genesis_of().is_none()
}

fn names<'a, K: Resource + 'a>(objects: impl Iterator<Item = &'a K>) -> Vec<String> {
    let name = |object: &K| format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let mut names: Vec<String> = objects.map(name).collect();
    names.sort();
    names
}

fn told(sets: &[String], miners: &[String]) -> String {
    let some = |what: &str, names: &[String]| {
        let named = names[..names.len().min(NAMED)].join(", ");
        let more = names.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("{what} {named}{more}"))
    };
    let parts = [some("miner sets", sets), some("miners", miners)];
    format!("it is used by {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", and by "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_named_and_the_others_counted() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(told(&names(&["n/a"]), &[]), "it is used by miner sets n/a");
        assert_eq!(
            told(&names(&["n/a"]), &names(&["n/1", "n/2", "n/3", "n/4", "n/5"])),
            "it is used by miner sets n/a, and by miners n/1, n/2, n/3 and 2 more"
        );
    }
}
