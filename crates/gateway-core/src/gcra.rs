//! A rate limiter by the generic cell rate algorithm (GCRA): a leaky bucket that is kept as one point in time, the
//! time at which the bucket is empty again.
//!
//! Example: with 20 a second and a burst of 200, each item moves that time 50 ms ahead. An item is refused while that
//! time lies more than 199 × 50 ms in the future.

use std::time::Duration;

use tern_types::Timestamp;

/// A limiter for a sustained rate with bursts.
#[derive(Debug, Clone, Copy)]
pub struct Gcra {
    /// The time that one item takes to leave the bucket, in nanoseconds. It is at least 1.
    interval_ns: i64,
    /// The time by which `empty_at_ns` may lie in the future when an item is taken, in nanoseconds. With the slowest
    /// rate and the largest burst it is 136 years. An `i64` has room for 292 years from 1970 on.
    tolerance_ns: i64,
    /// The time at which the bucket is empty again, in nanoseconds on the scale of [`Timestamp`].
    empty_at_ns: i64,
}

/// The longest time that a limiter reckons with, in nanoseconds: 73 years. Sums of it with a time have room in an
/// `i64`.
const MOST_NS: i64 = i64::MAX / 4;

impl Gcra {
    /// Makes a limiter that lets `burst` items pass at once, and `per_second` items a second over a longer time. Each
    /// of the two counts as 1 if it is 0. A rate of more than a billion a second counts as a billion, since an item takes
    /// a whole number of nanoseconds.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval_ns = (1_000_000_000 / i64::from(per_second.max(1))).max(1);
        Self {
            interval_ns,
            tolerance_ns: interval_ns * i64::from(burst.max(1) - 1),
            empty_at_ns: 0,
        }
    }

    /// Makes a limiter that lets `burst` items pass at once, and one in each `interval` over a longer time. A burst of
    /// 0 counts as 1, and an interval of 0 as a nanosecond. The time that the whole burst takes counts as 73 years at
    /// most.
    pub fn every(interval: Duration, burst: u32) -> Self {
        let interval_ns = i64::try_from(interval.as_nanos()).unwrap_or(MOST_NS);
        let interval_ns = interval_ns.clamp(1, MOST_NS);
        let tolerance_ns = interval_ns.saturating_mul(i64::from(burst.max(1) - 1));
        Self {
            interval_ns,
            tolerance_ns: tolerance_ns.min(MOST_NS),
            empty_at_ns: 0,
        }
    }

    /// Takes one item. Returns `Err` if the rate is exceeded, with the time after which the next item may be taken.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let now_ns = now.0.saturating_mul(1_000_000);
        let full_until = self.empty_at_ns - self.tolerance_ns;
        if now_ns < full_until {
            return Err(Duration::from_nanos(full_until.abs_diff(now_ns)));
        }
        self.empty_at_ns = self.empty_at_ns.max(now_ns).saturating_add(self.interval_ns);
        debug_assert!(
            self.empty_at_ns - now_ns <= self.tolerance_ns + self.interval_ns,
            "the bucket holds more than the burst"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut gcra = Gcra::new(20, 200);
        let now = Timestamp(1_000_000);
        assert!((0..200).all(|_| gcra.take(now).is_ok()));
        assert_eq!(gcra.take(now), Err(Duration::from_millis(50)));
        assert!(gcra.take(now + Duration::from_millis(49)).is_err());
        assert!(gcra.take(now + Duration::from_millis(50)).is_ok());
        assert!(gcra.take(now + Duration::from_millis(50)).is_err());
        let later = now + Duration::from_secs(60);
        assert_eq!((0..300).filter(|_| gcra.take(later).is_ok()).count(), 200);
    }

    #[test]
    fn a_rate_of_many_millions_a_second_is_a_limit_too() {
        let now = Timestamp(1_700_000_000_000);
        for per_second in [1_000_001, 5_000_000, u32::MAX] {
            let mut gcra = Gcra::new(per_second, 20);
            let taken = (0..30).filter(|_| gcra.take(now).is_ok()).count();
            assert_eq!(taken, 20, "a burst with {per_second} a second");
        }
        let mut gcra = Gcra::new(5_000_000, 5_000);
        for millisecond in 0..10 {
            let now = now + Duration::from_millis(millisecond);
            let taken = (0..6_000).filter(|_| gcra.take(now).is_ok()).count();
            assert_eq!(taken, 5_000, "in millisecond {millisecond}");
        }
    }

    #[test]
    fn the_slowest_rate_with_the_largest_burst_does_not_overflow() {
        let mut gcra = Gcra::new(0, u32::MAX);
        let now = Timestamp(1_700_000_000_000);
        assert!((0..1_000).all(|_| gcra.take(now).is_ok()));
    }

    #[test]
    fn a_rate_may_be_lower_than_one_a_second() {
        let (interval, now) = (Duration::from_secs(120), Timestamp(1_000_000));
        let mut gcra = Gcra::every(interval, 30);
        assert!((0..30).all(|_| gcra.take(now).is_ok()));
        assert_eq!(gcra.take(now), Err(interval));
        assert!(gcra.take(now + interval).is_ok());
        assert!(gcra.take(now + interval).is_err());
        let later = now + interval * 100;
        assert_eq!((0..50).filter(|_| gcra.take(later).is_ok()).count(), 30);
    }

    #[test]
    fn the_longest_interval_does_not_overflow() {
        let now = Timestamp(1_700_000_000_000);
        for (interval, burst) in [(Duration::MAX, u32::MAX), (Duration::from_secs(1 << 31), 1000)] {
            let mut gcra = Gcra::every(interval, burst);
            assert!(gcra.take(now).is_ok());
            let _ = gcra.take(now);
        }
        let mut gcra = Gcra::every(Duration::ZERO, 0);
        assert!(gcra.take(now).is_ok() && gcra.take(now).is_err());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(pauses in proptest::collection::vec(0i64..200, 1..500)) {
            let mut gcra = Gcra::new(10, 5);
            let (mut now, mut taken) = (Timestamp(5_000), 0u32);
            for pause in pauses {
                now.0 += pause;
                taken += u32::from(gcra.take(now).is_ok());
                let allowed = 5 + (now.0 - 5_000) / 100;
                prop_assert!(i64::from(taken) <= allowed);
            }
        }
    }
}
