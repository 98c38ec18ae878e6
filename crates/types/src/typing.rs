//! The limit on passing on that a person is typing: at most once in 3 s for each person and chat. The client, its
//! gateway and the chat's owner each apply it for themselves.

use std::time::Duration;

use crate::Timestamp;

/// The time within which typing is passed on at most once.
pub const EVERY: Duration = Duration::from_secs(3);
/// The time for which the others see that a person is typing, after it was last passed on.
pub const EXPIRES: Duration = Duration::from_secs(6);

/// The limit for one person who is typing in one chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Typist {
    /// The time from which typing may be passed on again.
    next: Timestamp,
    /// The time until which the others see the person typing.
    shown_until: Timestamp,
}

impl Typist {
    /// Returns whether to pass on that the person is typing or, if `stopped`, that they stopped. Stopping is passed
    /// on at once if the others see the person typing, and otherwise not at all. Both begin a new interval of
    /// [`EVERY`].
    ///
    /// Typing is accepted up to `leeway` before the interval is over, because signs that are sent every 3 s do not
    /// arrive at exact intervals. The next interval then begins where this one would have ended, so over a longer time
    /// it is still one in 3 s. For example, with a leeway of 500 ms, typing passes at 0 s and at 2.6 s, and not again
    /// before 5.5 s.
    pub fn take(&mut self, stopped: bool, leeway: Duration, now: Timestamp) -> bool {
        let passes = if stopped {
            self.is_shown(now)
        } else {
            now >= self.next - leeway
        };
        if passes {
            let since = if stopped { now } else { self.next.max(now) };
            self.next = since + EVERY;
            self.shown_until = if stopped { now } else { now + EXPIRES };
        }
        passes
    }

    /// Notes that the person sent a message, after which the others no longer see them typing.
    pub fn wrote(&mut self, now: Timestamp) {
        self.shown_until = self.shown_until.min(now);
    }

    /// Returns whether the others see the person typing.
    pub(crate) fn is_shown(&self, now: Timestamp) -> bool {
        now < self.shown_until
    }

    /// Returns whether this value may be forgotten: the interval is over and nobody sees the person typing.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.next && !self.is_shown(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEEWAY: Duration = Duration::from_millis(500);

    #[test]
    fn stopping_passes_at_once_where_it_is_shown_and_begins_the_three_seconds_anew() {
        let mut typist = Typist::default();
        let cases = [
            (10_000, true, false),
            (10_001, false, true),
            (11_000, false, false),
            (11_500, true, true),
            (11_600, true, false),
            (13_900, false, false),
            (14_500, false, true),
            (17_300, false, true),
            (19_900, false, false),
            (20_000, false, true),
            (26_000, true, false),
        ];
        for (at, stopped, expected) in cases {
            assert_eq!(typist.take(stopped, LEEWAY, Timestamp(at)), expected, "at {at}");
        }
        assert!(typist.is_over(Timestamp(26_000)));
    }

    #[test]
    fn a_message_ends_it_so_that_stopping_says_nothing() {
        let mut typist = Typist::default();
        assert!(typist.take(false, LEEWAY, Timestamp(10_000)));
        typist.wrote(Timestamp(11_000));
        assert!(!typist.take(true, LEEWAY, Timestamp(11_001)));
        assert!(!typist.is_over(Timestamp(11_001)), "the 3 s go on");
    }

    #[test]
    fn over_any_time_it_is_one_in_three_seconds_however_often_it_is_said() {
        for every in (1..4000).step_by(37) {
            let (mut typist, mut passed, start) = (Typist::default(), 0, 1_000_000);
            for press in 0..200 {
                let now = start + press * every;
                passed += i64::from(typist.take(false, LEEWAY, Timestamp(now)));
                assert!((passed - 1) * 3000 <= now - start + 500, "each {every} ms");
            }
            let time = 199 * every;
            let most = time / every.max(3000);
            assert!(
                passed >= most.min(time / 3000 / 2),
                "it does pass: {passed} of {most}"
            );
        }
    }
}
