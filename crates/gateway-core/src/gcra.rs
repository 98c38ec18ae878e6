//! A rate limiter: the generic cell rate algorithm (GCRA), a leaky bucket that is kept as one point in time.

use std::time::Duration;

use tern_types::Timestamp;

/// A limiter for a sustained rate with bursts.
#[derive(Debug, Clone, Copy)]
pub struct Gcra {
    interval_us: i64,
    tolerance_us: i64,
    /// When the bucket is empty again, in microseconds.
    empty_at_us: i64,
}

impl Gcra {
    /// A limiter that lets `burst` pass at once, and `per_second` a second over a longer time. 0 counts as 1, for
    /// both.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval_us = 1_000_000 / i64::from(per_second.max(1));
        Self {
            interval_us,
            tolerance_us: interval_us * i64::from(burst.max(1) - 1),
            empty_at_us: 0,
        }
    }

    /// Takes one. `Err` when the rate is exceeded, with the time to wait until one is free.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let now_us = now.0.saturating_mul(1000);
        let full_until = self.empty_at_us - self.tolerance_us;
        if now_us < full_until {
            return Err(Duration::from_micros(full_until.abs_diff(now_us)));
        }
        self.empty_at_us = self.empty_at_us.max(now_us) + self.interval_us;
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
