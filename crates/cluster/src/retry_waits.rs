//! Spaces the attempts at anything that is retried without end, such as a link or a call to etcd.

use std::time::Duration;

use rand::Rng;

/// The first wait. A process that restarts listens again in about this time.
pub(crate) const BASE: Duration = Duration::from_millis(50);
/// The longest wait. A node that was away is found within half a second of its return. An attempt that is refused costs
/// next to nothing, and one that nobody answers has a timeout of its own.
pub(crate) const MAX: Duration = Duration::from_millis(500);
/// The time after which a link counts as healthy. When it breaks after that, the next wait is the first one again.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Exponential back-off with jitter: each wait is between half of its step and the whole step. The steps double from
/// 50 ms to 500 ms. It is for anything that is retried without end.
#[derive(Debug, Default)]
pub struct RetryWaits {
    failures: u32,
}

impl RetryWaits {
    /// Returns the wait after an attempt that lasted for `lived`. An attempt of 10 s or more counts as a success, after
    /// which the steps begin anew.
    pub fn next(&mut self, lived: Duration) -> Duration {
        self.failures = if lived >= HEALTHY_AFTER { 0 } else { self.failures };
        let step = BASE.saturating_mul(1 << self.failures.min(16)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Makes the next wait the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_never_leave_their_bounds() {
        let mut waits = RetryWaits::default();
        for _ in 0..100 {
            let wait = waits.next(Duration::ZERO);
            assert!(wait >= BASE / 2 && wait <= MAX);
        }
        waits.reset();
        assert!(waits.next(Duration::ZERO) <= BASE);
    }
}
