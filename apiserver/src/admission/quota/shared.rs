//! Quotas that other processes give places of as well, as the apiservers over one etcd do.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    New, PATIENCE, Quota, Wanted,
    keeper::Keeper,
    usage::{self, Usage},
};
use crate::{builtin::quantity::Amount, window::Run};

/// No write takes as long as this, so nobody still has a place that was taken before.
const SETTLED: Duration = Duration::from_secs(40);

impl Keeper<'_> {
    /// Notes what requests did not use after all, and how long each of the quotas has been as it is.
    pub(super) async fn look_at_others(&mut self, landed: impl Iterator<Item = Arc<Wanted>>) {
        let landed: Vec<_> = landed.collect();
        if !landed.is_empty() && self.server.windows.current(PATIENCE).await {
            let unused: Vec<_> = landed.into_iter().filter(|wanted| !self.is_there(wanted)).collect();
            for (quota, amounts) in unused.iter().flat_map(|wanted| &wanted.amounts) {
                usage::plus(self.ledger.given_back.entry(quota.clone()).or_default(), amounts);
            }
        }
        for quota in self.read() {
            let seen = self.ledger.seen.entry(quota.name).or_insert_with(|| (String::new(), Instant::now()));
            if seen.0 != quota.revision {
                *seen = (quota.revision, Instant::now());
            }
        }
    }

    /// What is used as far as it may be said. Of what others keep places for in a shared store nothing is seen, so of what
    /// the status says only that is taken back which is known to be gone; and the rest when nobody can have a place any more.
    pub(super) fn held(&self, quota: &Quota, there: &Usage, gone: &Usage) -> Usage {
        let is_settled = self
            .ledger
            .seen
            .get(&quota.name)
            .is_some_and(|(revision, since)| *revision == quota.revision && since.elapsed() >= SETTLED);
        if !self.server.windows.is_shared() || is_settled {
            return there.clone();
        }
        let given_back = self.ledger.given_back.get(&quota.name);
        let at_least = |name: &String, there: Amount| {
            let Some(said) = quota.used.get(name) else { return there };
            let gone = [Some(gone), given_back].into_iter().flatten().filter_map(|gone| gone.get(name));
            let left = gone.fold(*said, |left, gone| left.less(*gone));
            if left.thousandths > there.thousandths { left } else { there }
        };
        there.iter().map(|(name, there)| (name.clone(), at_least(name, *there))).collect()
    }

    /// What went, or became less, since it was counted, as each of the quotas sees it.
    pub(super) fn gone(&self, quotas: &[Quota]) -> Vec<Usage> {
        let now = self.server.now();
        let mut gone = vec![Usage::new(); quotas.len()];
        if !self.server.windows.is_shared() || self.ledger.counted == 0 {
            return gone;
        }
        for kind in self.kinds(quotas) {
            let within = format!("{}{}/", kind.prefix, self.namespace);
            let Run::Events(events, _) =
                self.server.registry.window(&kind).events_after(self.ledger.counted, usize::MAX)
            else {
                continue;
            };
            for event in events.iter().filter(|event| event.item.key.starts_with(&within)) {
                let Some(before) = event.previous.as_ref().filter(|_| event.deleted || usage::is_measured(&kind))
                else {
                    continue;
                };
                let before = before.value();
                let uses = usage::of(&kind, &before, now);
                for (quota, gone) in quotas.iter().zip(&mut gone) {
                    if usage::is_in_scope(&quota.spec, &kind, &before) {
                        usage::plus(gone, &uses);
                    }
                }
            }
        }
        gone
    }

    /// The new object of a request can be seen. One of the same name may be somebody else's.
    fn is_there(&self, wanted: &Wanted) -> bool {
        let Some(New { prefix, key, uid }) = &wanted.new else { return false };
        let item = self.server.windows.of(prefix).and_then(|window| window.get(key));
        item.is_some_and(|item| item.value()["metadata"]["uid"] == *uid)
    }
}
