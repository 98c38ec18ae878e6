//! This module tells the server whether the person is at this device, and watches the people whom the screen shows.

use std::time::Duration;

use tern_proto::v1::{self, client_item::Item};
use tern_types::{Timestamp, UserId};

use super::Engine;
use crate::model::{Event, Presence};

/// The interval between two signs that the person is there, until the server names one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);
/// The shortest interval that is used, whatever the server names.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The presence of this person, and the people whose presence the app shows.
#[derive(Debug, Default)]
pub(super) struct Presences {
    /// True if the person is at this device.
    active: bool,
    /// The interval between two signs that the person is there.
    interval: Duration,
    /// The time at which the server is told again that the person is there. `None`: the person is not there, or no
    /// stream was opened since the last one was lost.
    sign_at: Option<Timestamp>,
    /// The people to watch. `None`: the app has not named any yet.
    watched: Option<Vec<UserId>>,
}

impl Presences {
    pub(super) fn new(active: bool) -> Self {
        Self {
            active,
            interval: DEFAULT_INTERVAL,
            sign_at: None,
            watched: None,
        }
    }

    pub(super) fn active(&self) -> bool {
        self.active
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.sign_at
    }

    /// Notes that the stream was lost, so that no more signs are due.
    pub(super) fn lost(&mut self) {
        self.sign_at = None;
    }

    fn sign_next(&mut self, now: Timestamp) {
        self.sign_at = self.active.then(|| now + self.interval);
    }
}

impl Engine {
    /// Starts on a new stream. `Open` has told the server whether the person is there, but the people to watch have to
    /// be sent again.
    pub(super) fn presence_opened(&mut self, interval_ms: u32, now: Timestamp) {
        self.presences.interval = match interval_ms {
            0 => DEFAULT_INTERVAL,
            millis => Duration::from_millis(millis.into()).max(MIN_INTERVAL),
        };
        self.presences.sign_next(now);
        if self
            .presences
            .watched
            .as_ref()
            .is_some_and(|watched| !watched.is_empty())
        {
            self.send_watches();
        }
    }

    pub(super) fn set_active(&mut self, active: bool, now: Timestamp) {
        self.presences.active = active;
        if self.session.open() {
            self.effects.items.push(Item::SetActive(v1::SetActive { active }));
            self.presences.sign_next(now);
        }
    }

    pub(super) fn tick_presence(&mut self, now: Timestamp) {
        if self.session.open() && self.presences.sign_at.is_some_and(|at| at <= now) {
            debug_assert!(self.presences.active, "a sign is due although the person is away");
            self.set_active(true, now);
        }
    }

    pub(super) fn watch_presence(&mut self, users: Vec<UserId>) {
        self.presences.watched = Some(users);
        if self.session.open() {
            self.send_watches();
        }
    }

    fn send_watches(&mut self) {
        let watched = self.presences.watched.iter().flatten();
        let user_ids = watched.map(ToString::to_string).collect();
        self.effects
            .items
            .push(Item::WatchPresence(v1::WatchPresence { user_ids }));
    }

    pub(super) fn presence_came(&mut self, presence: &v1::Presence) {
        let Ok(user) = presence.user_id.parse() else {
            return;
        };
        let presence = match presence.state() {
            v1::PresenceState::Unspecified | v1::PresenceState::Hidden => Presence::Hidden,
            v1::PresenceState::Online => Presence::Online,
            v1::PresenceState::Offline => Presence::LastSeen(Timestamp(presence.last_seen_ms)),
        };
        self.effects.events.push(Event::Presence { user, presence });
    }

    pub(super) fn watch_result_came(&mut self, result: v1::WatchResult) {
        let limited = result
            .limited_user_ids
            .iter()
            .filter_map(|user| user.parse().ok());
        self.effects.events.push(Event::Watching {
            error: result.error(),
            limited: limited.collect(),
            retry_after: Duration::from_millis(result.retry_after_ms.into()),
        });
    }
}
