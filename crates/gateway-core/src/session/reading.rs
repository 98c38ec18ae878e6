//! Where the reading of one chat's log stands.

use std::time::Duration;

use tern_types::Timestamp;

use super::settings::{RETRY, RETRY_MAX};

/// The reading of one chat's log.
#[derive(Debug)]
pub struct CatchUp {
    /// Everything from here to below `next` was sent. 0: the reading begins at the device's place as the store knows
    /// it, which is not known here yet.
    pub start: u64,
    /// The first seq of the window that is asked for next, or that was asked for last.
    pub next: u64,
    /// The highest seq that is known to be wanted.
    pub(super) target: u64,
    /// More was wanted after the window under way was asked for: it may have been read before the new entries were
    /// there.
    pub(super) news: bool,
    pub state: State,
    /// Where to go back to after the window under way.
    pub(super) back_to: Option<u64>,
    /// Windows that failed in a row.
    pub(super) failures: u32,
}

/// How far the next window of a chat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The chat waits in the reader's queue.
    Queued,
    /// The window was asked for.
    Reading,
    /// The window could not be read, and is asked for again at `retry_at`.
    Failed { retry_at: Timestamp },
}

impl CatchUp {
    /// A reading from `from` (0: from the device's place as the store knows it) up to `target`, not yet queued.
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

    /// Widens the reading to everything from `from` up to `target`. `from` 0: everything up to `target` that the
    /// device does not have yet.
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

    /// The device has everything up to `seq`: that need not be read.
    pub fn has(&mut self, seq: u64) {
        if self.state != State::Reading {
            self.next = self.next.max(seq.saturating_add(1));
            if self.start == 0 {
                self.start = self.next;
            }
        }
    }

    /// Has everything from `from` on sent again. Only while no window is under way.
    pub fn go_back(&mut self, from: u64) {
        self.start = self.start.min(from);
        self.next = self.next.min(from);
    }

    /// When the failed window is asked for again; `None` where none failed.
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Failed { retry_at } => Some(retry_at),
            State::Queued | State::Reading => None,
        }
    }

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

/// The pause after a failure, by the number of failures in a row before it.
pub(super) fn back_off(failures: u32) -> Duration {
    RETRY.saturating_mul(1 << failures.min(8)).min(RETRY_MAX)
}
