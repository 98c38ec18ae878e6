//! A [`Backoff`] gives the delays between attempts. They grow exponentially with full jitter, and are never shorter
//! than the server asks.

use std::time::Duration;

/// The ceiling of the first delay: a gateway that restarts is back in about a second. The ceiling doubles
/// with each failure.
pub(crate) const BASE: Duration = Duration::from_millis(500);
/// The ceiling of every delay, not counting the time that the server asks for. A person who looks at the app waits at
/// most this long.
const CAP: Duration = Duration::from_secs(30);
/// The number of doublings after which the ceiling is above the cap for certain. The bound keeps the shift in range.
const MAX_DOUBLINGS: u32 = 16;

/// The failures so far of one thing that is tried again and again.
#[derive(Debug)]
pub struct Backoff {
    /// The number of failures in a row.
    failures: u32,
    /// The state of the jitter, a splitmix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
    /// 2014). It has to spread clients; it need not be hard to guess.
    jitter: u64,
}

impl Backoff {
    /// Makes a backoff without failures. `seed` feeds the jitter.
    pub fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            jitter: seed,
        }
    }

    /// Notes a success, after which the next delay is a first one again.
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
        asked.unwrap_or_default() + ceiling.mul_f64(self.fraction())
    }

    /// Returns the next pseudorandom number, uniform from 0 up to but not including 1.
    fn fraction(&mut self) -> f64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.jitter ^ (self.jitter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // A double holds no more than the upper 53 bits.
        let fraction = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        debug_assert!(
            (0.0..1.0).contains(&fraction),
            "a delay is never longer than its ceiling"
        );
        fraction
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
