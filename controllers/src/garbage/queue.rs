//! Work that waits for a worker: each item once, never with two workers at a time, failures after a growing pause.
//!
//! Bounded by the number of different items: adding what waits already changes nothing.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How a worker left an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is left to do until something changes.
    Settled,
    /// To be looked at again after this long; not a failure.
    After(Duration),
    /// To be tried again, after a pause that grows with each failure in a row.
    Failed,
}

/// Items that wait for a worker.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    /// What `ready` holds, to find it.
    waiting: HashSet<K>,
    /// With a worker now; `true` when it was added again meanwhile.
    busy: HashMap<K, bool>,
    /// By the moment they are due and the order they came in.
    later: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    counter: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            busy: HashMap::new(),
            later: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            counter: 0,
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Asks for `item` to be looked at as soon as a worker is free.
    pub fn add(&self, item: K) {
        self.state.lock().add(item);
        self.wake.notify_one();
    }

    /// Asks for `item` to be looked at after `pause`, or earlier if it is due earlier already.
    pub fn add_after(&self, item: K, pause: Duration) {
        self.state.lock().add_at(item, Instant::now() + pause);
        self.wake.notify_one();
    }

    /// The next item; it must be handed back with [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let woken = self.wake.notified();
            let mut woken = std::pin::pin!(woken);
            // Listening starts before looking, so that nothing added in between is missed.
            woken.as_mut().enable();
            let due = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some(item) = state.take() {
                    return item;
                }
                state.later.first_key_value().map(|((due, _), _)| *due)
            };
            match due {
                Some(due) => drop(tokio::time::timeout_at(due, woken).await),
                None => woken.await,
            }
        }
    }

    /// Hands an item back. Returns how many times in a row it has failed now.
    pub fn done(&self, item: &K, outcome: Outcome) -> u32 {
        let failures = self.state.lock().done(item, outcome);
        self.wake.notify_one();
        failures
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, item: K) {
        if let Some(due) = self.due.remove(&item) {
            self.later.remove(&due);
        }
        if let Some(again) = self.busy.get_mut(&item) {
            *again = true;
        } else if self.waiting.insert(item.clone()) {
            self.ready.push_back(item);
        }
    }

    fn add_at(&mut self, item: K, at: Instant) {
        if self.waiting.contains(&item) || self.due.get(&item).is_some_and(|(due, _)| *due <= at) {
            return;
        }
        if let Some(due) = self.due.remove(&item) {
            self.later.remove(&due);
        }
        self.counter += 1;
        self.due.insert(item.clone(), (at, self.counter));
        self.later.insert((at, self.counter), item);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let item = entry.remove();
            self.due.remove(&item);
            self.add(item);
        }
    }

    fn take(&mut self) -> Option<K> {
        let item = self.ready.pop_front()?;
        self.waiting.remove(&item);
        self.busy.insert(item.clone(), false);
        Some(item)
    }

    fn done(&mut self, item: &K, outcome: Outcome) -> u32 {
        let again = self.busy.remove(item).unwrap_or(false);
        let failures = match outcome {
            Outcome::Failed => {
                let failures = self.failures.entry(item.clone()).or_insert(0);
                *failures = failures.saturating_add(1);
                *failures
            }
            Outcome::Settled | Outcome::After(_) => {
                self.failures.remove(item);
                0
            }
        };
        match outcome {
            _ if again => self.add(item.clone()),
            Outcome::Settled => {}
            Outcome::After(pause) => self.add_at(item.clone(), Instant::now() + pause),
            Outcome::Failed => self.add_at(item.clone(), Instant::now() + pause_after(failures)),
        }
        failures
    }
}

fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn idle(queue: &Queue<&'static str>) -> bool {
        queue.next().now_or_never().is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_added_twice_is_worked_on_once() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Outcome::Settled);
        assert!(idle(&queue));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_added_while_it_is_worked_on_comes_again_only_afterwards() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(idle(&queue), "two workers would hold the same item");
        queue.done(&"a", Outcome::Settled);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_wait_longer_each_time_up_to_a_bound() {
        let queue = Queue::default();
        queue.add("a");
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(queue.next().await, "a");
            pauses.push(asked.elapsed());
            queue.done(&"a", Outcome::Failed);
        }
        assert!(pauses.is_sorted());
        assert!(pauses[1] >= FIRST_PAUSE && pauses[1] < FIRST_PAUSE * 2, "{pauses:?}");
        assert!(pauses[19] >= LONGEST_PAUSE && pauses[19] < LONGEST_PAUSE * 2, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_makes_the_next_pause_short_again() {
        let queue = Queue::default();
        queue.add("a");
        for _ in 0..5 {
            queue.next().await;
            queue.done(&"a", Outcome::Failed);
        }
        queue.next().await;
        queue.done(&"a", Outcome::Settled);
        queue.add("a");
        queue.next().await;
        assert_eq!(queue.done(&"a", Outcome::Failed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_early_when_something_changes() {
        let queue = Queue::default();
        queue.add_after("a", Duration::from_secs(60));
        assert!(idle(&queue));
        queue.add("a");
        assert_eq!(queue.next().now_or_never(), Some("a"));
        queue.done(&"a", Outcome::Settled);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(idle(&queue), "the pause was used up");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_worker_wakes_for_the_earliest_item() {
        let queue = Queue::default();
        queue.add_after("late", Duration::from_secs(60));
        queue.add_after("early", Duration::from_secs(1));
        let asked = Instant::now();
        assert_eq!(queue.next().await, "early");
        assert!(asked.elapsed() < Duration::from_secs(2));
    }
}
