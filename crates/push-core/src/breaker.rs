//! Leaves a provider alone while it does not answer.

use std::time::Duration;

use tern_types::Timestamp;

/// The number of failures in a row after which the breaker opens.
const FAILURES: u32 = 10;
/// The time for which the breaker opens first.
const FIRST: Duration = Duration::from_secs(1);
/// The longest time for which the breaker opens, so that a provider that is back is found within a minute.
const LONGEST: Duration = Duration::from_secs(60);
/// The time for which other pushes wait for the outcome of a probe. No push takes as long.
const PROBE: Duration = Duration::from_secs(15);

/// The state of a circuit breaker: it opens after ten failures in a row, for a second at first. Then one push finds out
/// whether the provider answers. If it fails too, the breaker opens for twice as long, up to a minute. Times are those
/// of one clock that does not go back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    /// The failures in a row, as long as the breaker is closed.
    failures: u32,
    /// The number of times that it opened since the provider last answered.
    opened: u32,
    /// The time until which it lets nothing through; `None` while it is closed.
    until: Option<Timestamp>,
    /// True while a probe is under way.
    probing: bool,
}

impl Breaker {
    /// Lets a push through, or says until when it has to wait. The caller tells what became of a push that was let
    /// through by [`Self::answered`] or [`Self::failed`].
    pub fn admit(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        if let Some(until) = self.closed_until(now) {
            return Err(until);
        }
        if self.is_open() {
            self.until = Some(now + PROBE);
            self.probing = true;
        }
        Ok(())
    }

    /// Returns until when pushes have to wait, if they do. Unlike [`Self::admit`] it lets nothing through.
    pub fn closed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| now < *until)
    }

    /// Notes that the provider answered, whatever its answer was. Returns true if the breaker was open and closes now.
    pub fn answered(&mut self) -> bool {
        let was_open = self.is_open();
        *self = Self::default();
        was_open
    }

    /// Notes that the provider did not answer, or had no time. Returns true if the breaker was closed and opens now.
    /// While it is open, only the failure of a probe counts.
    pub fn failed(&mut self, now: Timestamp) -> bool {
        if self.is_open() {
            if std::mem::take(&mut self.probing) {
                self.open(now);
            }
            return false;
        }
        self.failures += 1;
        if self.failures < FAILURES {
            return false;
        }
        self.open(now);
        true
    }

    /// Returns whether the breaker is open, also while a probe is under way.
    pub fn is_open(&self) -> bool {
        self.until.is_some()
    }

    fn open(&mut self, now: Timestamp) {
        let time = FIRST.saturating_mul(1 << self.opened.min(16)).min(LONGEST);
        self.opened = self.opened.saturating_add(1);
        self.failures = 0;
        self.until = Some(now + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    #[test]
    fn it_opens_after_ten_failures_in_a_row() {
        let mut breaker = Breaker::default();
        for _ in 0..9 {
            assert!(!breaker.failed(at(0)));
        }
        assert!(
            !breaker.answered() && breaker == Breaker::default(),
            "an answer ends the row"
        );
        for _ in 0..9 {
            assert!(!breaker.failed(at(0)) && breaker.admit(at(0)).is_ok());
        }
        assert!(breaker.failed(at(0)), "it opens once");
        assert_eq!(breaker.admit(at(999)), Err(at(1000)));
    }

    #[test]
    fn one_probe_finds_out_whether_the_provider_is_back() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(at(0));
        }
        assert!(
            !breaker.failed(at(500)),
            "what was under way when it opened does not count"
        );
        assert_eq!(breaker.admit(at(600)), Err(at(1000)));
        assert_eq!(breaker.closed_until(at(999)), Some(at(1000)));
        assert_eq!(breaker.closed_until(at(1000)), None, "and a look is no probe");
        let mut now = 1000;
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(breaker.admit(at(now)), Ok(()), "a probe");
            assert_eq!(breaker.admit(at(now)), Err(at(now + 15_000)), "and no other push");
            assert!(!breaker.failed(at(now)));
            assert_eq!(breaker.admit(at(now)), Err(at(now + seconds * 1000)));
            now += seconds * 1000;
        }
        assert_eq!(breaker.admit(at(now)), Ok(()));
        assert!(breaker.answered() && breaker == Breaker::default(), "it closes");
    }

    #[test]
    fn a_probe_of_which_nothing_is_heard_is_repeated() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(at(0));
        }
        assert_eq!(breaker.admit(at(1000)), Ok(()));
        assert_eq!(breaker.admit(at(15_999)), Err(at(16_000)));
        assert_eq!(breaker.admit(at(16_000)), Ok(()));
    }
}
