//! What a request leaves behind besides its answer.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// No request keeps more warnings, or more annotations, than this.
const MOST: usize = 256;

/// Warnings for the client, annotations for the audit log, and how long webhooks may still take. Shared by all that the
/// request does.
#[derive(Debug, Default)]
pub struct Notes {
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<BTreeMap<String, String>>,
    held: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
    webhooks_until: OnceLock<Instant>,
}

impl Notes {
    /// Warns the client, once.
    pub fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock();
        if warnings.len() < MOST && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// What the client is to be warned of, whatever the answer is.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }

    /// Adds an annotation to what is audited of the request.
    pub fn annotate(&self, key: String, value: String) {
        let mut annotations = self.annotations.lock();
        if annotations.len() < MOST {
            annotations.insert(key, value);
        }
    }

    /// What is to be audited of the request besides itself.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().clone()
    }

    /// Keeps something until the request is over, however it ends.
    pub(super) fn hold(&self, held: Arc<dyn Any + Send + Sync>) {
        self.held.lock().push(held);
    }

    /// Until when webhooks may answer, given how long all of them together may take. The clock starts at the first question.
    pub fn webhooks_until(&self, budget: Duration) -> Instant {
        *self.webhooks_until.get_or_init(|| Instant::now() + budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_can_say_is_bounded() {
        let notes = Notes::default();
        for index in 0..2 * MOST {
            notes.warn(format!("w{index}"));
            notes.warn("again".to_owned());
            notes.annotate(format!("k{index}"), String::new());
        }
        assert_eq!((notes.warnings().len(), notes.annotations().len()), (MOST, MOST));
    }
}
