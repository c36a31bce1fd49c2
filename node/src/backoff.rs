//! How long a container waits before it is started again.

use std::time::Duration;

/// Doubles from `first` to `most`, and starts over after a run that was long enough to count as healthy.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// How long to wait after a run of `ran`.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= self.most {
            self.next = self.first;
        }
        let delay = self.next.min(self.most);
        self.next = (delay * 2).min(self.most);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(runs: &[u64]) -> Vec<u64> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        runs.iter().map(|ran| backoff.after(Duration::from_secs(*ran)).as_secs()).collect()
    }

    #[test]
    fn delays_double_up_to_the_bound() {
        assert_eq!(delays(&[0, 0, 0, 0, 0, 0]), [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn a_long_run_starts_the_doubling_over() {
        assert_eq!(delays(&[0, 0, 0, 10, 0]), [1, 2, 4, 1, 2]);
    }
}
