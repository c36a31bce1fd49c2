//! Keys and sessions that tokens were verified with, remembered until somebody changes something.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// Whom the tokens that name a key are for, and what verifies them.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user.
    pub user_id: String,
    /// Whether the user is let in.
    pub let_in: bool,
    /// What signed the tokens.
    pub key: Key,
}

/// What signs tokens.
#[derive(PartialEq, Eq)]
pub enum Key {
    /// A session: its tokens are ours.
    Session {
        /// The temporary secret.
        key: [u8; 64],
        /// When it ends, unless it is prolonged, in seconds.
        expires: i64,
    },
    /// A key pair: its tokens are made by whoever has it.
    Pair {
        /// The key.
        key: String,
        /// Whether it is in use.
        enabled: bool,
        /// When it expires, in seconds; 0: never.
        expires: i64,
    },
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Session { .. } => "Session",
            Self::Pair { .. } => "Pair",
        })
    }
}

/// Holders by the name of their key. It is bounded: when it is full, it begins anew.
#[derive(Debug)]
pub struct Known {
    most: usize,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    holders: HashMap<String, Arc<Holder>>,
    /// Grows whenever something is forgotten.
    epoch: u64,
}

impl Known {
    /// Remembers so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), state: RwLock::default() }
    }

    /// Who is remembered under this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Holder>> {
        self.state.read().holders.get(name).cloned()
    }

    /// To be asked before the database is, and given back with its answer.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.state.read().epoch
    }

    /// Remembers a holder, unless something was forgotten since `epoch`: then the database may have said what does not hold
    /// any more.
    pub fn remember(&self, name: &str, holder: &Arc<Holder>, epoch: u64) {
        let mut state = self.state.write();
        if state.epoch != epoch {
            return;
        }
        if state.holders.len() >= self.most {
            state.holders.clear();
        }
        state.holders.insert(name.to_owned(), holder.clone());
    }

    /// Forgets whatever is of this user.
    pub fn forget(&self, user_id: &str) {
        let mut state = self.state.write();
        state.epoch += 1;
        state.holders.retain(|_, holder| holder.user_id != user_id);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        let mut state = self.state.write();
        state.epoch += 1;
        state.holders.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(user_id: &str) -> Arc<Holder> {
        let key = Key::Session { key: [0; 64], expires: 0 };
        Arc::new(Holder { user_id: user_id.to_owned(), let_in: true, key })
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let known = Known::new(10);
        let epoch = known.epoch();
        known.forget("a");
        known.remember("k", &holder("a"), epoch);
        assert_eq!(known.get("k"), None);
        known.remember("k", &holder("a"), known.epoch());
        assert_eq!(known.get("k"), Some(holder("a")));
        known.forget("b");
        assert!(known.get("k").is_some());
        known.forget("a");
        assert!(known.get("k").is_none());
    }

    #[test]
    fn no_more_is_remembered_than_is_allowed() {
        let known = Known::new(3);
        for number in 0..10 {
            known.remember(&number.to_string(), &holder("a"), known.epoch());
            assert!(known.state.read().holders.len() <= 3);
        }
    }
}
