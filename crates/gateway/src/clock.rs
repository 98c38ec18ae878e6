//! The time of one stream.

use std::time::Duration;

use tern_types::{Clock, Timestamp};
use tokio::time::Instant;

/// The longest sleep of a stream's timer.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// A stream's monotonic time: the process's monotonic time when the stream began, and what has passed since by
/// tokio's clock, which tests can pause. A step of the wall clock neither ends streams nor keeps them from ending.
#[derive(Debug, Clone, Copy)]
pub struct StreamClock {
    began: Timestamp,
    at: Instant,
}

impl StreamClock {
    /// Starts a clock.
    pub fn start() -> Self {
        Self {
            began: Clock::monotonic(),
            at: Instant::now(),
        }
    }

    /// Returns the stream's time now.
    pub fn now(&self) -> Timestamp {
        self.began + self.elapsed()
    }

    /// Returns how long the stream has existed.
    pub fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// Returns the time from now until `due`, at most an hour. Zero if `due` has passed.
    pub fn until(&self, due: Timestamp) -> Duration {
        due.since(self.now()).min(MAX_SLEEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_streams_time_is_what_has_passed_whatever_the_wall_clock_says() {
        let clock = StreamClock::start();
        let hour = Duration::from_secs(3600);
        let due = clock.now() + hour;
        tokio::time::advance(hour).await;
        assert_eq!((clock.now(), clock.until(due)), (due, Duration::ZERO));
    }
}
