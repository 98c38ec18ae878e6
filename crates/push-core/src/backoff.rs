//! Computes when a push that failed is tried again.

use std::time::Duration;

/// The bound of the wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The shortest wait, so that no draw makes a worker try at once.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest wait: a provider that was away for an hour gets the pushes within five minutes of its return.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The longest wait that a provider may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// The part of a wait by which those of many pushes differ.
const SPREAD: f64 = 0.1;

/// Returns the wait after so many failures in a row, which are at least one, if the provider says none: a part of a
/// bound that doubles from a second to [`LONGEST_WAIT`]. `random` is a random number from 0 to 1 that says which part.
/// The waits of many pushes that failed together are thereby spread over the whole time ("full jitter").
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

/// Returns the wait after a failure for which the provider said one: at least what it said, and a tenth more at most, so
/// that all pushes that it put off do not come back at once. What is above [`LONGEST_ASKED`] is taken for a mistake.
/// `random` is as in [`backoff`].
pub fn asked(wait: Duration, random: f64) -> Duration {
    let wait = wait.min(LONGEST_ASKED);
    let part = if random.is_nan() {
        1.0
    } else {
        random.clamp(0.0, 1.0)
    };
    wait + wait.mul_f64(part * SPREAD)
}

/// Returns the wait of a push that is not tried because its provider is away. It is at least `wait`, after which the
/// provider is tried again. A push that has been due for long waits longer, up to a quarter of its age and
/// [`LONGEST_WAIT`], because each wait costs a claim and a look, and such pushes pile up.
pub fn away(wait: Duration, age: Duration, random: f64) -> Duration {
    let bound = (age / 4).min(LONGEST_WAIT);
    let part = if random.is_nan() {
        1.0
    } else {
        random.clamp(0.0, 1.0)
    };
    wait.max(bound.mul_f64(0.5 + part / 2.0))
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

    #[test]
    fn what_a_provider_asks_for_is_waited_and_spread() {
        let minute = Duration::from_secs(60);
        assert_eq!(asked(minute, 0.0), minute);
        assert_eq!(asked(minute, 1.0), Duration::from_secs(66));
        assert_eq!(asked(Duration::from_secs(86_400), 0.0), LONGEST_ASKED);
    }

    #[test]
    fn what_has_waited_for_long_is_looked_at_less_often() {
        let wait = |age, random| away(Duration::from_secs(1), Duration::from_secs(age), random).as_secs();
        assert_eq!([wait(0, 1.0), wait(4, 1.0), wait(40, 1.0)], [1, 1, 10]);
        assert_eq!(
            [wait(40, 0.0), wait(86_400, 0.0), wait(86_400, 1.0)],
            [5, 150, 300]
        );
        let minute = Duration::from_secs(60);
        assert_eq!(away(minute, minute, 1.0), minute);
    }

    proptest! {
        #[test]
        fn a_wait_never_leaves_its_bounds(failures: u32, random in prop::num::f64::ANY) {
            let wait = backoff(failures, random);
            prop_assert!(wait >= SHORTEST && wait <= LONGEST_WAIT);
        }
    }
}
