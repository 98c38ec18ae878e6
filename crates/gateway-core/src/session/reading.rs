//! A [`CatchUp`] is the progress of reading one chat's log.

use std::time::Duration;

use tern_types::Timestamp;

use super::settings::{RETRY, RETRY_MAX};

/// The reading of one chat's log.
#[derive(Debug)]
pub struct CatchUp {
    /// The first seq of the reading: everything from here on and below `next` was sent. 0 stands for the device's place
    /// as the store knows it, which is not known here yet.
    pub start: u64,
    /// The first seq of the window that is under way, or else of the one to ask for next.
    pub next: u64,
    /// The highest seq that is known to be wanted.
    pub(super) target: u64,
    /// True if more was wanted after the window under way was asked for. That window may have been read before the new
    /// entries were there.
    pub(super) news: bool,
    /// The state of the next window.
    pub state: State,
    /// The seq to go back to after the window under way.
    pub(super) back_to: Option<u64>,
    /// The number of windows that failed in a row.
    pub(super) failures: u32,
}

/// The state of a chat's next window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The chat waits in the reader's queue.
    Queued,
    /// The window was asked for.
    Reading,
    /// The window could not be read, and is asked for again.
    Failed {
        /// The time of the next attempt, by the monotonic clock.
        retry_at: Timestamp,
    },
}

impl CatchUp {
    /// Makes a reading from `from` up to `target`, which the caller is to put into the queue. With `from` 0 it begins
    /// at the device's place as the store knows it.
    pub fn new(from: u64, target: u64) -> Self {
        Self {
            start: from,
            next: from,
            target,
            news: false,
            state: State::Queued,
            back_to: None,
            failures: 0,
        }
    }

    /// Raises the target: everything up to `target` is wanted.
    pub fn wants(&mut self, target: u64) {
        self.target = self.target.max(target);
        self.news |= self.state == State::Reading;
    }

    /// Widens the reading to everything from `from` up to `target`. With `from` 0 only the target is raised, since
    /// nothing is known of the entries below.
    pub fn extend(&mut self, from: u64, target: u64) {
        self.wants(target);
        let reading = self.state == State::Reading;
        if from == 0 || (self.start == 0 && reading) {
            return;
        }
        if self.start == 0 || from < self.start {
            self.start = from;
            if reading {
                self.back_to = Some(from);
            } else {
                self.next = from;
            }
        }
    }

    /// Notes that the device has everything up to `seq`, so that it need not be read.
    pub fn has(&mut self, seq: u64) {
        if self.state != State::Reading {
            self.next = self.next.max(seq.saturating_add(1));
            if self.start == 0 {
                self.start = self.next;
            }
        }
    }

    /// Makes everything from `from` on be read and sent again. It may be called only while no window is under way.
    pub(crate) fn go_back(&mut self, from: u64) {
        debug_assert!(
            self.state != State::Reading,
            "the window under way would be read twice"
        );
        self.start = self.start.min(from);
        self.next = self.next.min(from);
    }

    /// Returns the time at which the failed window is asked for again, or `None` if the last one did not fail.
    pub(crate) fn retry_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Failed { retry_at } => Some(retry_at),
            State::Queued | State::Reading => None,
        }
    }

    /// Notes that the window under way failed.
    pub(super) fn failed(&mut self, now: Timestamp) {
        self.state = State::Failed {
            retry_at: now + back_off(self.failures),
        };
        self.failures = self.failures.saturating_add(1);
        if let Some(from) = self.back_to.take() {
            self.next = from;
        }
    }
}

/// Returns the pause after a failure. `failures` is the number of failures in a row before it.
pub(super) fn back_off(failures: u32) -> Duration {
    RETRY.saturating_mul(1 << failures.min(8)).min(RETRY_MAX)
}
