//! Keeps pushes from a provider that is away, so that they neither wait for time-outs nor add to its load.
//!
//! Each line to a provider has a breaker of its own. After [`FAILURES`] failures in a row it opens for a second, and no
//! push is tried. Then one push is tried, the probe. If it fails too, the breaker stays open for twice the time, at
//! most a minute. Otherwise the breaker closes, and counts from zero.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_types::Timestamp;

use crate::provider::Delivery;

/// The reason of a [`Delivery::Later`] that says that nothing was tried.
pub const BREAKER_OPEN: &str = "breaker";
/// The reason of a [`Delivery::Later`] that says that the device, the app or this server sends too much. It says
/// nothing about whether the provider is there.
pub(crate) const TOO_MANY: &str = "too_many";

/// The reason of a [`Delivery::Later`] that a relay gave: the relay is there, and has breakers of its own.
pub(crate) const RELAYED: &str = "relay_later";

/// The failures in a row after which a breaker opens.
const FAILURES: u32 = 10;
/// The time for which a breaker opens first.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time for which a breaker opens.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The time after which another probe is let through if nothing was heard of the last one. It is longer than a push
/// may take.
const PROBE: Duration = Duration::from_secs(15);
/// The most lines whose failures are remembered. Devices choose the Web Push services, so there may be any number.
const MAX_LINES: usize = 1024;

/// A way to a provider, or to one of its services, that may be away while the others are not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// Apple's service.
    Apns { sandbox: bool },
    /// Firebase Cloud Messaging.
    Fcm,
    /// The relay.
    Relay,
    /// The Web Push service at this origin. Each has a breaker of its own, because a device may name one that is never
    /// there.
    WebPush(String),
}

/// The breakers of all lines.
#[derive(Debug, Default)]
pub(crate) struct Breakers(Mutex<HashMap<Line, Breaker>>);

/// The state of a line with failures. A line without one has no breaker.
#[derive(Debug, Clone, Copy, Default)]
struct Breaker {
    /// The failures in a row.
    failures: u32,
    /// The time until which nothing is tried, by the monotonic clock.
    shut_until: Option<Timestamp>,
    /// The time for which the breaker opened last.
    pause: Duration,
    /// True if a probe is under way.
    probing: bool,
}

impl Breakers {
    /// Asks whether a push may be tried. Returns `Err` with the time to wait if not.
    pub(crate) fn admit(&self, line: &Line, now: Timestamp) -> Result<(), Duration> {
        match self.lock().get_mut(line) {
            Some(breaker) => breaker.admit(now),
            None => Ok(()),
        }
    }

    /// Notes what became of a push that was tried.
    pub(crate) fn note(&self, line: &Line, sent: &Delivery, now: Timestamp) {
        let failed = match sent {
            Delivery::Later { reason, .. } => ![TOO_MANY, BREAKER_OPEN, RELAYED].contains(reason),
            Delivery::Sent | Delivery::TokenEnded { .. } | Delivery::Refused { .. } => false,
        };
        let mut lines = self.lock();
        if !failed {
            lines.remove(line);
            return;
        }
        if !lines.contains_key(line) && lines.len() >= MAX_LINES {
            // One of the lines is forgotten to make room. If it fails again, its failures are counted anew.
            if let Some(gone) = lines.keys().next().cloned() {
                lines.remove(&gone);
            }
        }
        lines.entry(line.clone()).or_default().failed(now);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Line, Breaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breaker {
    fn admit(&mut self, now: Timestamp) -> Result<(), Duration> {
        match self.shut_until {
            Some(until) if now < until => Err(until.since(now)),
            Some(_) => {
                self.probing = true;
                self.shut_until = Some(now + PROBE);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn failed(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES {
            return;
        }
        let open = self.shut_until.is_some_and(|until| now < until);
        // These pushes were under way when the breaker opened. Their failures say nothing new.
        if open && !self.probing {
            return;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.shut_until = Some(now + self.pause);
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(reason: &'static str) -> Delivery {
        Delivery::Later {
            after: None,
            reason,
            detail: String::new(),
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp(1_000_000 + ms)
    }

    fn fail(breakers: &Breakers, line: &Line, times: u32, ms: i64) {
        for _ in 0..times {
            breakers.note(line, &later("connect"), at(ms));
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_for_twice_the_time_after_each_probe_that_fails() {
        let (breakers, line) = (Breakers::default(), Line::Fcm);
        fail(&breakers, &line, FAILURES - 1, 0);
        assert_eq!(breakers.admit(&line, at(0)), Ok(()));
        // More failures of pushes that were under way do not keep it open for longer.
        fail(&breakers, &line, 100, 0);
        let mut now = 0;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(seconds);
            assert_eq!(breakers.admit(&line, at(now)), Err(pause));
            now += i64::try_from(pause.as_millis()).unwrap();
            assert_eq!(breakers.admit(&line, at(now - 1)), Err(Duration::from_millis(1)));
            assert_eq!(breakers.admit(&line, at(now)), Ok(()), "the probe");
            assert_eq!(breakers.admit(&line, at(now)), Err(PROBE), "one alone");
            fail(&breakers, &line, 1, now);
        }
        now += 60_000;
        assert_eq!(breakers.admit(&line, at(now)), Ok(()), "the probe");
        breakers.note(&line, &Delivery::Sent, at(now));
        for _ in 0..100 {
            assert_eq!(breakers.admit(&line, at(now)), Ok(()));
        }
    }

    #[test]
    fn a_probe_of_which_nothing_is_heard_is_followed_by_another() {
        let (breakers, line) = (Breakers::default(), Line::Relay);
        fail(&breakers, &line, FAILURES, 0);
        assert_eq!(breakers.admit(&line, at(1000)), Ok(()));
        assert!(breakers.admit(&line, at(1001)).is_err());
        let after = 1000 + i64::try_from(PROBE.as_millis()).unwrap();
        assert_eq!(breakers.admit(&line, at(after)), Ok(()));
    }

    #[test]
    fn only_failures_in_a_row_of_the_same_line_count() {
        let breakers = Breakers::default();
        let (one, another) = (
            Line::WebPush("https://a".into()),
            Line::WebPush("https://b".into()),
        );
        for sent in [
            Delivery::Sent,
            Delivery::TokenEnded {
                since: None,
                reason: String::new(),
            },
            Delivery::Refused {
                reason: "request",
                detail: String::new(),
            },
            later(TOO_MANY),
            later(RELAYED),
        ] {
            fail(&breakers, &one, FAILURES - 1, 0);
            breakers.note(&one, &sent, at(0));
            fail(&breakers, &one, FAILURES - 1, 0);
            assert_eq!(breakers.admit(&one, at(0)), Ok(()), "{sent:?}");
            breakers.note(&one, &sent, at(0));
        }
        fail(&breakers, &one, FAILURES, 0);
        assert!(breakers.admit(&one, at(0)).is_err());
        assert_eq!(breakers.admit(&another, at(0)), Ok(()));
    }

    #[test]
    fn the_lines_that_are_remembered_are_bounded() {
        let breakers = Breakers::default();
        for number in 0..=MAX_LINES {
            fail(&breakers, &Line::WebPush(number.to_string()), 1, 0);
        }
        assert_eq!(breakers.lock().len(), MAX_LINES);
    }
}
