//! Decides when a node begins and stops giving things up. It is pure: callers pass in the delays and the time.
//!
//! The input is a delay, the time that work waits before it is begun. A level begins when the delay has reached its
//! threshold in two consecutive windows; of several such levels, the highest begins. A level is left, for the one
//! below, when the delay has stayed below half of its threshold for [`HOLD`]. For example, at delays of 70 ms in two
//! windows [`Level::Presence`] begins, and it is left after 5 s below 30 ms. If a level begins within 20 s
//! after one was left, the delay had fallen only because things were given up. So each time this happens, the
//! time to hold doubles: 10 s, 20 s, and so on up to 80 s.

use std::time::Duration;

use tern_types::{NoticeKind, Timestamp};

/// The length of a window. Two windows decide, which is shorter than a delay that people notice, and longer than a
/// batch or a checkpoint takes.
pub const WINDOW: Duration = Duration::from_millis(250);
/// The shortest time that a level is held.
pub const HOLD: Duration = Duration::from_secs(5);
/// The longest time that a level is held, however often it came back.
const MAX_HOLD: Duration = Duration::from_secs(80);
/// The time after a level was left within which a new rise counts as a relapse: the level was left too early.
const RELAPSE: Duration = Duration::from_secs(20);

/// The level of shedding, which says what a node gives up. Each level includes those before it. Messages are never
/// given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// Nothing is given up.
    #[default]
    Nothing = 0,
    /// Typing is dropped.
    Typing = 1,
    /// The changes of a user's presence are told once in 10 s at most.
    Presence = 2,
    /// Delivered receipts are told late.
    Receipts = 3,
    /// New streams are refused.
    Streams = 4,
}

impl Level {
    /// All levels, ascending.
    pub const ALL: [Self; 5] = [
        Self::Nothing,
        Self::Typing,
        Self::Presence,
        Self::Receipts,
        Self::Streams,
    ];

    /// Reads a level that another node sent. A number that this version does not know counts as the highest level.
    pub fn from_wire(level: u32) -> Self {
        let index = usize::try_from(level).unwrap_or(usize::MAX);
        Self::ALL.get(index).copied().unwrap_or(Self::Streams)
    }

    /// Returns the level from which on notices of this kind are dropped.
    pub fn drops(kind: NoticeKind) -> Self {
        match kind {
            NoticeKind::Typing => Self::Typing,
        }
    }

    /// Returns the number by which the level is sent to other nodes.
    pub fn to_wire(self) -> u32 {
        self as u32
    }

    /// Returns the name in metrics of the thing that the level gives up.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Typing => "typing",
            Self::Presence => "presence",
            Self::Receipts => "receipts",
            Self::Streams => "streams",
        }
    }

    /// Returns the delay from which on the level begins. A node with little to do begins work within 1 ms, and one that
    /// is busy all the time within 10 to 20 ms.
    pub fn threshold(self) -> Duration {
        Duration::from_millis(match self {
            Self::Nothing => 0,
            Self::Typing => 40,
            Self::Presence => 60,
            Self::Receipts => 100,
            Self::Streams => 500,
        })
    }

    /// Returns the highest level whose threshold `delay` has reached.
    fn reached_by(delay: Duration) -> Self {
        let reached = Self::ALL.into_iter().rev();
        let mut reached = reached.filter(|level| delay >= level.threshold());
        reached.next().unwrap_or_default()
    }

    fn below(self) -> Self {
        Self::from_wire(self.to_wire().saturating_sub(1))
    }
}

/// The state that keeps the level of one node from window to window.
#[derive(Debug)]
pub struct Controller {
    level: Level,
    /// The level that the previous window's delay had reached.
    reached: Level,
    /// The time since which the delay has been below half of the level's threshold.
    calm_since: Option<Timestamp>,
    /// The time for which the present level is held.
    hold: Duration,
    /// The time at which a level was last left, if none has begun since.
    left_at: Option<Timestamp>,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            level: Level::Nothing,
            reached: Level::Nothing,
            calm_since: None,
            hold: HOLD,
            left_at: None,
        }
    }
}

impl Controller {
    /// Returns the present level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes the delay of the window that has just ended, and returns the level from now on.
    pub fn window(&mut self, delay: Duration, now: Timestamp) -> Level {
        let reached = Level::reached_by(delay);
        let confirmed = reached.min(std::mem::replace(&mut self.reached, reached));
        if confirmed > self.level {
            self.raise(confirmed, now);
        } else if delay * 2 < self.level.threshold() {
            self.calm(now);
        } else {
            self.calm_since = None;
        }
        self.level
    }

    fn raise(&mut self, level: Level, now: Timestamp) {
        let relapsed = self.left_at.is_some_and(|at| now.since(at) < RELAPSE);
        if relapsed {
            self.hold = (self.hold * 2).min(MAX_HOLD);
        } else if self.level == Level::Nothing {
            self.hold = HOLD;
        }
        self.left_at = None;
        self.calm_since = None;
        self.level = level;
    }

    fn calm(&mut self, now: Timestamp) {
        let since = *self.calm_since.get_or_insert(now);
        if now.since(since) >= self.hold {
            self.level = self.level.below();
            self.calm_since = None;
            self.left_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Clock {
        controller: Controller,
        now: Timestamp,
    }

    impl Clock {
        fn new() -> Self {
            Self {
                controller: Controller::default(),
                now: Timestamp(1_000_000),
            }
        }

        fn window(&mut self, millis: u64) -> Level {
            self.now = self.now + WINDOW;
            self.controller.window(Duration::from_millis(millis), self.now)
        }

        /// Feeds windows with this delay until the level changes, and returns how long that took.
        fn until_change(&mut self, millis: u64) -> Duration {
            let (began, level) = (self.now, self.controller.level());
            while self.window(millis) == level {}
            self.now.since(began)
        }
    }

    #[test]
    fn a_level_begins_after_two_windows_and_one_late_batch_begins_none() {
        let mut clock = Clock::new();
        assert_eq!(clock.window(150), Level::Nothing);
        assert_eq!(clock.window(1), Level::Nothing);
        assert_eq!(clock.window(150), Level::Nothing);
        assert_eq!(clock.window(70), Level::Presence, "what both windows reached");
        assert_eq!(clock.window(900), Level::Presence);
        assert_eq!(clock.window(900), Level::Streams);
    }

    #[test]
    fn it_is_left_one_step_at_a_time_and_held_while_the_delay_is_not_well_below() {
        let mut clock = Clock::new();
        clock.window(120);
        assert_eq!(clock.window(120), Level::Receipts);
        for _ in 0..200 {
            assert_eq!(clock.window(60), Level::Receipts, "over half of the threshold");
        }
        assert_eq!(clock.until_change(10), HOLD + WINDOW);
        assert_eq!(clock.controller.level(), Level::Presence);
        clock.until_change(10);
        assert_eq!(clock.controller.level(), Level::Typing);
        clock.until_change(10);
        assert_eq!(clock.controller.level(), Level::Nothing);
    }

    #[test]
    fn a_level_that_comes_back_is_held_longer_each_time_and_anew_after_calm() {
        let mut clock = Clock::new();
        clock.until_change(45);
        assert_eq!(clock.until_change(1), HOLD + WINDOW);
        clock.until_change(45);
        assert_eq!(clock.until_change(1), HOLD * 2 + WINDOW);
        clock.until_change(45);
        assert_eq!(clock.until_change(1), HOLD * 4 + WINDOW);
        for _ in 0..100 {
            clock.window(1);
        }
        clock.until_change(45);
        assert_eq!(clock.until_change(1), HOLD + WINDOW);
    }

    #[test]
    fn what_another_version_says_is_a_level() {
        for level in Level::ALL {
            assert_eq!(Level::from_wire(level.to_wire()), level);
        }
        assert_eq!(Level::from_wire(7), Level::Streams);
        assert_eq!(Level::from_wire(u32::MAX), Level::Streams);
    }

    proptest! {
        #[test]
        fn a_level_never_rises_above_what_was_measured_and_falls_step_by_step(
            delays in prop::collection::vec(0u64..1000, 1..400),
        ) {
            let (mut clock, mut before) = (Clock::new(), Level::Nothing);
            for delay in delays {
                let level = clock.window(delay);
                if level > before {
                    prop_assert!(level <= Level::reached_by(Duration::from_millis(delay)));
                } else {
                    prop_assert!(level == before || level == before.below());
                }
                before = level;
            }
            for _ in 0..2_000 {
                clock.window(0);
            }
            prop_assert_eq!(clock.controller.level(), Level::Nothing);
        }
    }
}
