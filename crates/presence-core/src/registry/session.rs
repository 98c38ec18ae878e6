//! A [`Session`] is a device's live stream on a gateway. This module decides which sessions of a device or of a user
//! newer ones replace.

use std::num::NonZeroU64;

use tern_types::{DeviceId, SessionId, Timestamp, UserId};

use super::{Effect, Gateway, LinkId};
use crate::activity::Sign;

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The user who has the session.
    pub user: UserId,
    /// The device that has the session.
    pub device: DeviceId,
    /// The gateway process that has the session.
    pub gateway: Gateway,
    /// The session's id on its gateway.
    pub session: SessionId,
    /// The newest sign of activity on the session.
    pub sign: Sign,
    /// The time at which the session began, by its gateway's wall clock.
    pub since: Timestamp,
    /// The number that the session's stream drew from the store when it was opened. `None` if the stream is not open
    /// yet.
    pub(super) number: Option<NonZeroU64>,
    /// The session's position in the order in which this node first heard of its sessions.
    pub(super) arrival: u64,
    /// The announce stream on which the session was last announced.
    pub(super) link: LinkId,
}

impl Session {
    /// Returns the session's rank among the sessions of its device: the highest is the newest. `None` if its stream is
    /// not open yet. One query may give several streams of a gateway the same number; their session ids are in the
    /// order in which they began. For example, with the same number session 11 is newer than session 10.
    fn rank(&self) -> Option<(NonZeroU64, SessionId)> {
        Some((self.number?, self.session))
    }

    /// Returns the key by which the sessions of a user are ordered when there are too many. The first one is removed:
    /// the session whose stream was opened first. Sessions whose streams are not open yet come last.
    pub(super) fn age(&self) -> (bool, Option<NonZeroU64>, u64) {
        (self.number.is_none(), self.number, self.arrival)
    }

    pub(super) fn replaced(&self) -> Effect {
        Effect::Replaced {
            gateway: self.gateway.clone(),
            session: self.session,
        }
    }
}

/// Returns the newer of two signs. An announcement has the session's newest sign, and may overtake an older sign that
/// waits in its gateway's queue.
pub(super) fn newer(known: Sign, told: Sign) -> Sign {
    if told.said >= known.said { told } else { known }
}

/// Decides which of a device's sessions are replaced, given what is known of `session` now. If a newer stream of the
/// device is open, `session` is replaced; otherwise all older ones are.
pub(super) fn replaced(sessions: &[Session], session: &Session) -> Vec<Effect> {
    let Some(rank) = session.rank() else {
        return Vec::new();
    };
    let of_device = || {
        let others = sessions.iter().filter(|other| other.device == session.device);
        others.filter_map(|other| Some((other, other.rank()?)))
    };
    if of_device().any(|(_, other)| other > rank) {
        return vec![session.replaced()];
    }
    of_device()
        .filter(|(_, other)| *other < rank)
        .map(|(other, _)| other.replaced())
        .collect()
}
