//! Shedding under load: a node measures how long its work waits, and at each [`Level`] gives up something
//! dispensable, so that the essential work goes on.
//!
//! ```text
//!   meters (queue times) ──every 250 ms──> level (pure) ──> this node's level ──┐
//!                                  levels that other nodes said on their links ──┴─ the highest ──> each role
//! ```
//!
//! Nodes tell each other only the level that they measured themselves, never one they heard of, so that levels cannot
//! keep each other up.

mod meter;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_types::{Clock, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::Instrument;

use crate::drain::Drain;
use crate::gather::gather;
use crate::level::Controller;
use crate::metrics;

pub use crate::level::{HOLD, Level, WINDOW};
pub use meter::Meter;

/// The state that says what a process gives up at present. Clones share one state.
#[derive(Clone, Debug)]
pub struct Shedding(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    on: bool,
    meters: Mutex<Vec<Arc<Meter>>>,
    heard: Mutex<Heard>,
    own: watch::Sender<Level>,
    level: watch::Sender<Level>,
}

#[derive(Debug, Default)]
struct Heard {
    last: u64,
    levels: HashMap<u64, Level>,
}

/// The level that one other node sends on its link. It counts as long as this value lives.
#[derive(Debug)]
pub struct HeardLevel {
    shedding: Shedding,
    number: u64,
}

impl Default for Shedding {
    /// Makes a state that heeds the levels of other nodes, but measures nothing itself because it is not started. It is
    /// for tests and for nodes on their own.
    fn default() -> Self {
        Self::new(true)
    }
}

impl Shedding {
    fn new(on: bool) -> Self {
        Self(Arc::new(Inner {
            on,
            meters: Mutex::default(),
            heard: Mutex::default(),
            own: watch::Sender::new(Level::Nothing),
            level: watch::Sender::new(Level::Nothing),
        }))
    }

    /// Makes a state in which nothing is ever given up.
    pub fn off() -> Self {
        Self::new(false)
    }

    /// Makes a state, and begins to measure, until the drain has ended. Unless `on` is set, nothing is ever measured or
    /// given up.
    pub fn start(on: bool, drain: Drain) -> Self {
        let shedding = Self::new(on);
        if on {
            let run = shedding.clone().run(drain);
            tokio::spawn(run.instrument(tracing::info_span!("shedding")));
        }
        shedding
    }

    /// Returns the level in effect at present: the highest of this node's own and those of other nodes.
    pub fn level(&self) -> Level {
        *self.0.level.borrow()
    }

    /// Returns a receiver that follows the level in effect.
    pub fn follow(&self) -> watch::Receiver<Level> {
        self.0.level.subscribe()
    }

    /// Returns a receiver that follows the level that this node measured itself, which is the one that it tells others.
    pub fn own(&self) -> watch::Receiver<Level> {
        let mut own = self.0.own.subscribe();
        if *own.borrow() != Level::Nothing {
            // The receiver counts the present level as a change, because the caller has not sent it to the other node
            // yet.
            own.mark_changed();
        }
        own
    }

    /// Counts that something was dropped or put off because of this level.
    pub fn gave_up(&self, what: Level) {
        metrics::gave_up(what);
    }

    /// Adds a signal to be measured, and returns the meter that records its delays. `signal` is its name in metrics and
    /// logs.
    pub fn meter(&self, signal: &'static str) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(signal));
        lock(&self.0.meters).push(meter.clone());
        meter
    }

    /// Begins to heed the level of another node. Call it when a link to the node begins.
    pub fn hear(&self) -> HeardLevel {
        let mut heard = lock(&self.0.heard);
        heard.last += 1;
        HeardLevel {
            number: heard.last,
            shedding: self.clone(),
        }
    }

    async fn run(self, drain: Drain) {
        let mut windows = interval(WINDOW);
        windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut controller = Controller::default();
        loop {
            tokio::select! {
                _ = windows.tick() => {}
                () = drain.ended() => return,
            }
            self.window(&mut controller, Clock::monotonic());
        }
    }

    fn window(&self, controller: &mut Controller, now: Timestamp) {
        let mut worst = ("none", std::time::Duration::ZERO);
        for meter in lock(&self.0.meters).iter() {
            let median = meter.take_median();
            metrics::delay(meter.signal(), median);
            if median > worst.1 {
                worst = (meter.signal(), median);
            }
        }
        let (before, level) = (controller.level(), controller.window(worst.1, now));
        if level != before {
            tracing::warn!(?level, ?before, signal = worst.0, delay = ?worst.1, "shedding level of this node");
            self.0.own.send_replace(level);
            self.combine();
        }
    }

    fn combine(&self) {
        // The lock is held to the end, so that of two concurrent changes the later one sees both.
        let heard = lock(&self.0.heard);
        let level = heard.levels.values().max().copied();
        let level = level.unwrap_or_default().max(*self.0.own.borrow());
        let changed = self
            .0
            .level
            .send_if_modified(|now| std::mem::replace(now, level) != level);
        metrics::shed_level(level, *self.0.own.borrow());
        if changed {
            tracing::info!(?level, "shedding");
        }
    }
}

impl HeardLevel {
    /// Sets the level that the other node has sent.
    pub fn says(&self, level: Level) {
        if !self.shedding.0.on {
            return;
        }
        let before = lock(&self.shedding.0.heard).levels.insert(self.number, level);
        if before.unwrap_or_default() != level {
            self.shedding.combine();
        }
    }
}

impl Drop for HeardLevel {
    fn drop(&mut self) {
        let before = lock(&self.shedding.0.heard).levels.remove(&self.number);
        if before.is_some_and(|level| level != Level::Nothing) {
            self.shedding.combine();
        }
    }
}

/// Takes items like [`gather`], but returns an empty list as soon as this node's own level has changed, so
/// that the next frame carries the new level.
pub async fn gather_or_level<T>(
    items: &mut mpsc::Receiver<T>,
    max: usize,
    own: &mut watch::Receiver<Level>,
) -> Option<Vec<T>> {
    tokio::select! {
        biased;
        Ok(()) = own.changed() => Some(Vec::new()),
        items = gather(items, max) => items,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn overload(shedding: &Shedding, meter: &Meter, controller: &mut Controller) {
        for _ in 0..2 {
            (0..10).for_each(|_| meter.record(Duration::from_millis(70)));
            shedding.window(controller, Clock::monotonic());
        }
    }

    #[test]
    fn the_highest_of_what_was_measured_and_heard_counts_and_only_what_was_measured_is_told() {
        let shedding = Shedding::default();
        let (meter, mut controller) = (shedding.meter("queue"), Controller::default());
        overload(&shedding, &meter, &mut controller);
        assert_eq!(
            (shedding.level(), *shedding.own().borrow()),
            (Level::Presence, Level::Presence)
        );
        let heard = shedding.hear();
        heard.says(Level::Receipts);
        assert_eq!(
            (shedding.level(), *shedding.own().borrow()),
            (Level::Receipts, Level::Presence)
        );
        drop(heard);
        assert_eq!(shedding.level(), Level::Presence);
    }

    #[test]
    fn switched_off_it_hears_nothing() {
        let shedding = Shedding::off();
        shedding.hear().says(Level::Streams);
        assert_eq!(shedding.level(), Level::Nothing);
    }
}
