//! Delays between attempts: exponential with full jitter, and never shorter than the server asks.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Ceiling of the first delay: a gateway that restarts is back in about a second.
pub const BASE: Duration = Duration::from_millis(500);
/// Ceiling of every delay, not counting the time that the server asks for. A person who looks at the app waits at
/// most this long.
pub const CAP: Duration = Duration::from_secs(30);
/// After this many doublings the ceiling is above the cap for certain. The bound keeps the shift in range.
const MAX_DOUBLINGS: u32 = 16;

/// The state of one thing that is tried again and again.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    rng: SmallRng,
}

/// Starts without failures. `seed` feeds the jitter.
impl Backoff {
    pub fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Notes a success: the next delay is a first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure, and returns the delay before the next attempt. `asked` is the time that the server asked for;
    /// jitter is added to it, so that clients that were told the same time do not come back together.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let ceiling = BASE
            .saturating_mul(1 << self.failures.min(MAX_DOUBLINGS))
            .min(CAP);
        self.failures = self.failures.saturating_add(1);
        asked.unwrap_or_default() + self.rng.random_range(Duration::ZERO..=ceiling)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_lies_between_what_was_asked_and_the_doubling_ceiling(seed: u64, failures in 0u32..100, asked in 0u64..100_000) {
            let asked = Duration::from_millis(asked);
            let mut backoff = Backoff::new(seed);
            for _ in 0..failures {
                backoff.next(None);
            }
            let delay = backoff.next(Some(asked));
            let ceiling = BASE.saturating_mul(2u32.saturating_pow(failures)).min(CAP);
            prop_assert!(delay >= asked && delay <= asked + ceiling, "{delay:?} after {failures}");
        }
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let delays: Vec<Duration> = (0..1000).map(|seed| Backoff::new(seed).next(None)).collect();
        let low = delays.iter().filter(|delay| **delay < BASE / 4).count();
        let high = delays.iter().filter(|delay| **delay > BASE * 3 / 4).count();
        assert!(
            (150..350).contains(&low) && (150..350).contains(&high),
            "{low} low, {high} high"
        );
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(7);
        for _ in 0..20 {
            backoff.next(None);
        }
        backoff.reset();
        assert!(backoff.next(None) <= BASE);
    }
}
