//! Counts delays as they occur, at the cost of one addition each, and returns their median once in each window.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The number of buckets. The bound of each is four thirds of the one before, from half a millisecond to about 20 s.
const BUCKETS: usize = 38;
/// The bound of the first bucket.
const FIRST: Duration = Duration::from_micros(500);
/// The fewest delays in a window for which there is a median. A few slow calls are no load.
const FEWEST: u32 = 5;

/// The delays of one signal in the present window.
#[derive(Debug)]
pub struct Meter {
    signal: &'static str,
    bounds: [u64; BUCKETS],
    counts: [AtomicU32; BUCKETS],
}

impl Meter {
    pub(super) fn new(signal: &'static str) -> Self {
        let mut bound = FIRST.as_micros() as u64;
        let bounds = std::array::from_fn(|_| {
            let this = bound;
            bound = bound * 4 / 3;
            this
        });
        Self {
            signal,
            bounds,
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Returns the name of the signal in metrics.
    pub fn signal(&self) -> &'static str {
        self.signal
    }

    /// Records that a piece of work waited for `delay` before it was begun.
    pub fn record(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let bucket = self
            .bounds
            .partition_point(|bound| *bound < micros)
            .min(BUCKETS - 1);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the median of the delays since the last call, and starts a new window. The median is rounded
    /// up by at most a third, and is never below 0.5 ms or above about 20 s. Returns zero if there were fewer
    /// than five delays.
    pub fn take_median(&self) -> Duration {
        let counts: [u32; BUCKETS] = std::array::from_fn(|i| self.counts[i].swap(0, Ordering::Relaxed));
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        if total < u64::from(FEWEST) {
            return Duration::ZERO;
        }
        let mut below = 0;
        let median = counts.iter().position(|count| {
            below += u64::from(*count);
            below * 2 >= total
        });
        median.map_or(Duration::ZERO, |bucket| {
            Duration::from_micros(self.bounds[bucket])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_window_and_a_few_say_nothing() {
        let meter = Meter::new("test");
        for millis in [1, 100, 100, 100] {
            meter.record(Duration::from_millis(millis));
        }
        assert_eq!(meter.take_median(), Duration::ZERO, "four are too few");
        for millis in [1, 1, 90, 90, 90, 4000, 90] {
            meter.record(Duration::from_millis(millis));
        }
        let median = meter.take_median();
        assert!((90..=120).contains(&median.as_millis()), "{median:?}");
        assert_eq!(meter.take_median(), Duration::ZERO, "the window is over");
    }

    #[test]
    fn the_longest_and_the_shortest_have_their_buckets() {
        let meter = Meter::new("test");
        for _ in 0..10 {
            meter.record(Duration::MAX);
        }
        assert!(meter.take_median() >= Duration::from_secs(15));
        for _ in 0..10 {
            meter.record(Duration::ZERO);
        }
        assert_eq!(meter.take_median(), FIRST);
    }
}
