//! How something is changed: in the database first, and then in what this process remembers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use onex_db::accounts::{Change, PolicyRow};
use onex_proto::{Error, Reason};
use tokio::sync::OwnedMutexGuard;

use crate::Inner;
use crate::policy::Line;

/// A change that is being made. Dropped before it is committed, it was never made.
pub struct Writing {
    center: Arc<Inner>,
    /// What it does to the database.
    pub change: Change,
    added: Vec<(i64, Line)>,
    removed: Vec<Line>,
    /// One after the other, so that this process sees its own changes in their order.
    _turn: OwnedMutexGuard<()>,
}

impl Inner {
    /// Begins a change.
    pub async fn writing(self: &Arc<Self>) -> Result<Writing, Error> {
        let turn = self.turn.clone().lock_owned().await;
        let change = self.accounts.change().await.map_err(|error| unavailable(&error))?;
        Ok(Writing { center: self.clone(), change, added: Vec::new(), removed: Vec::new(), _turn: turn })
    }

    /// Learns what others have changed, if they did.
    pub async fn follow(&self) -> Result<(), onex_db::Error> {
        let revisions = self.accounts.revisions().await?;
        let (seen, seen_policies) = (*self.revision.borrow(), self.policies_revision.load(SeqCst));
        if revisions.accounts == seen && revisions.policies == seen_policies {
            return Ok(());
        }
        let _turn = self.turn.clone().lock_owned().await;
        self.refresh().await
    }

    /// Learns everything anew. Whoever calls it has the turn.
    pub(crate) async fn refresh(&self) -> Result<(), onex_db::Error> {
        // Asked first: what is changed meanwhile is noticed the next time.
        let revisions = self.accounts.revisions().await?;
        self.known.forget_all();
        if self.policies_revision.load(SeqCst) != revisions.policies {
            let mut policies = crate::policy::Policies::default();
            for row in self.accounts.all_policies().await? {
                if let Some(line) = line_of(&row) {
                    policies.insert(row.id, &line);
                }
            }
            *self.policies.write() = policies;
            self.policies_revision.store(revisions.policies, SeqCst);
        }
        self.seen(revisions.accounts);
        Ok(())
    }

    fn seen(&self, revision: i64) {
        self.revision.send_if_modified(|seen| {
            let newer = revision > *seen;
            *seen = revision.max(*seen);
            newer
        });
    }
}

impl Writing {
    /// Adds a line of the policies.
    ///
    /// # Errors
    /// What the database says.
    pub async fn add(&mut self, line: &Line) -> Result<i64, onex_db::Error> {
        let number = self.change.add_policy(&row_of(line)).await?;
        self.added.push((number, line.clone()));
        Ok(number)
    }

    /// Notes that lines of the policies were removed.
    pub fn removed(&mut self, rows: impl IntoIterator<Item = PolicyRow>) {
        self.removed.extend(rows.into_iter().filter_map(|row| line_of(&row)));
    }

    /// Makes the change, of what belongs to `user_id` if of anybody, and forgets what this process remembers of it. Once it has
    /// begun it is done, also when whoever asked leaves.
    ///
    /// # Errors
    /// When the database does not answer: then it may have been made or not.
    pub async fn commit(self, user_id: &str) -> Result<(), Error> {
        let user_id = user_id.to_owned();
        let done = tokio::spawn(self.finish(user_id)).await;
        done.unwrap_or_else(|_| Err(Error::new(Reason::Unknown, "internal")))
    }

    async fn finish(self, user_id: String) -> Result<(), Error> {
        let Self { center, change, added, removed, _turn } = self;
        let (revision, policy_changes) = (change.revision, change.policy_changes);
        let committed = change.commit().await;
        let in_order = *center.revision.borrow() == revision - 1;
        if let (Ok(()), true) = (&committed, in_order) {
            center.known.forget(&user_id);
            if policy_changes > 0 {
                let mut policies = center.policies.write();
                removed.iter().for_each(|line| policies.remove(line));
                added.iter().for_each(|(number, line)| policies.insert(*number, line));
                center.policies_revision.fetch_add(policy_changes, SeqCst);
            }
            center.seen(revision);
            return Ok(());
        }
        // Others changed something too, or nobody knows whether this was: nothing that is remembered is sure.
        center.known.forget_all();
        if let Err(error) = center.refresh().await {
            tracing::warn!(error = error.story(), "could not learn what changed; trying again");
        }
        committed.map_err(|error| unavailable(&error))
    }
}

/// A line as it is kept.
pub fn row_of(line: &Line) -> PolicyRow {
    let (ptype, words) = match line {
        Line::Policy { sub, obj, act, deny } => {
            ("p", [sub.clone(), obj.clone(), act.clone(), if *deny { "deny" } else { "allow" }.to_owned()])
        }
        Line::Role { sub, role } => ("g", [sub.clone(), role.clone(), String::new(), String::new()]),
    };
    PolicyRow { id: 0, ptype: ptype.to_owned(), words }
}

/// A kept line. Nothing if it is none that we know: others write to the table too.
pub fn line_of(row: &PolicyRow) -> Option<Line> {
    let [first, second, third, fourth] = row.words.clone();
    match (row.ptype.as_str(), fourth.as_str()) {
        ("p", "allow" | "") => Some(Line::Policy { sub: first, obj: second, act: third, deny: false }),
        ("p", _) => Some(Line::Policy { sub: first, obj: second, act: third, deny: true }),
        ("g", _) => Some(Line::Role { sub: first, role: second }),
        _ => None,
    }
}

/// What the database said, for whoever asked: it is logged here, and they are told no more than what they can do.
pub fn unavailable(error: &onex_db::Error) -> Error {
    if error.is_passing() {
        tracing::warn!(error = error.story(), "the database did not answer");
        Error::new(Reason::Unavailable, "unavailable")
    } else {
        tracing::error!(error = error.story(), "the database did not do what was asked");
        Error::new(Reason::Unknown, "internal")
    }
}
