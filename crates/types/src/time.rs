//! Points in time, and the two clocks that they come from. Pure code takes a time as an argument; only adapters ask for it.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// The clocks of this process.
///
/// The wall clock of a machine may be set back or forward at any moment, by an hour too. So whatever waits, expires or is
/// measured inside a process goes by [`Clock::monotonic`]; what is stored, shown to people, or compared with a time that
/// was stored or signed goes by [`Clock::wall`]. A time of one clock is never compared with a time of the other, nor is a
/// monotonic time of one process with another's.
#[derive(Debug, Clone, Copy)]
pub struct Clock;

impl Clock {
    /// What the machine's clock shows. Two calls may be in any order, and two machines differ.
    #[allow(clippy::disallowed_methods, reason = "the place that gives it its name")]
    pub fn wall() -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The wall clock's time when it was first asked for, and what has passed since. It never goes back, and no step of
    /// the wall clock moves it.
    pub fn monotonic() -> Timestamp {
        static BEGAN: OnceLock<(Timestamp, Instant)> = OnceLock::new();
        let (began, at) = BEGAN.get_or_init(|| (Self::wall(), Instant::now()));
        *began + at.elapsed()
    }
}

impl Timestamp {
    /// Time passed since `earlier`; zero when that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

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
        // Nobody has set this machine's clock by a day since.
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
