//! Computes when a push that failed is tried again.

use std::time::Duration;

/// The bound of the wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The shortest wait, so that no draw makes a worker try at once.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest wait: a provider that was away for an hour gets the pushes within five minutes of its return.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Returns the wait after so many failures in a row, at least one, if the provider does not say how long to wait. It is
/// a part of a bound that doubles from a second to [`LONGEST_WAIT`]. `random` is a random number from 0 to 1 that says
/// which part. So the waits of many pushes that failed together are spread over the whole time ("full jitter").
pub fn backoff(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let bound = FIRST.saturating_mul(1 << doublings).min(LONGEST_WAIT);
    let part = if random.is_nan() {
        1.0
    } else {
        random.clamp(0.0, 1.0)
    };
    bound.mul_f64(part).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_doubles_from_a_second_to_five_minutes() {
        let bounds = [1, 2, 3, 9, 10, 100, u32::MAX].map(|failures| backoff(failures, 1.0).as_secs());
        assert_eq!(bounds, [1, 2, 4, 256, 300, 300, 300]);
        assert_eq!(backoff(3, 0.5), Duration::from_secs(2));
        assert_eq!(backoff(10, 0.0), SHORTEST);
    }

    proptest! {
        #[test]
        fn a_wait_never_leaves_its_bounds(failures: u32, random in prop::num::f64::ANY) {
            let wait = backoff(failures, random);
            prop_assert!(wait >= SHORTEST && wait <= LONGEST_WAIT);
        }
    }
}
