//! Points in time, and the two clocks that they come from. Pure code is given the time as an argument; only adapters
//! read a clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time in milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// The two clocks of this process.
///
/// The wall clock of a machine may be set back or forward at any moment, even by an hour. So code that waits, expires
/// something or measures time inside a process uses [`Clock::monotonic`]. Times that are stored, shown to people, or
/// compared with a stored or signed time come from [`Clock::wall`]. Never compare times of the two clocks with each
/// other, nor monotonic times of two processes.
#[derive(Debug, Clone, Copy)]
pub struct Clock;

impl Clock {
    /// Returns the time of the machine's clock. A later call may return an earlier time, and two machines differ.
    #[allow(clippy::disallowed_methods, reason = "the place that gives it its name")]
    pub fn wall() -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Returns the time of the wall clock when this was first called, plus the time that has passed since. It never
    /// goes back, and setting the wall clock does not change it.
    pub fn monotonic() -> Timestamp {
        static BEGAN: OnceLock<(Timestamp, Instant)> = OnceLock::new();
        let (began, at) = BEGAN.get_or_init(|| (Self::wall(), Instant::now()));
        *began + at.elapsed()
    }
}

impl Timestamp {
    /// Returns the time that has passed since `earlier`, or zero if `earlier` is later than `self`.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns the time itself if it is a multiple of `interval`, which is at least a millisecond, and else the next
    /// multiple. What is due at multiples is due together, and wakes its process once.
    #[must_use]
    pub fn rounded_up(self, interval: Duration) -> Self {
        let interval = millis(interval).max(1);
        let multiples = self.0.saturating_add(interval - 1).div_euclid(interval);
        Self(multiples.saturating_mul(interval))
    }
}

/// Returns the duration in whole milliseconds, and `i64::MAX` for a longer one.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_begins_at_the_wall_clocks_and_never_goes_back() {
        let first = Clock::monotonic();
        // The two clocks agree unless somebody has set this machine's clock since the process began.
        let apart = first.since(Clock::wall()) + Clock::wall().since(first);
        assert!(apart < Duration::from_secs(86_400), "{apart:?}");
        let mut last = first;
        for _ in 0..1000 {
            let next = Clock::monotonic();
            assert!(next >= last);
            last = next;
        }
    }
}
