//! This module has the events that the registry takes, and the effects that it returns.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;

use tern_types::{DeviceId, SessionId, Timestamp, UserId};

use super::SlotSet;
use crate::activity::Sign;
use crate::follows::FollowLink;
use crate::watches::WatchLink;

/// One run of a gateway process: a restarted gateway has a new incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gateway {
    /// The name of the gateway's node.
    pub name: Arc<str>,
    /// The incarnation of the gateway's process.
    pub incarnation: u64,
}

/// The id of one announce stream of a gateway. A newer stream has a greater id, and only the newest of a gateway
/// counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A session as its gateway announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The user who has the session.
    pub user: UserId,
    /// The device that has the session.
    pub device: DeviceId,
    /// The session's id on its gateway.
    pub session: SessionId,
    /// The time at which the session began, by the gateway's wall clock.
    pub since: Timestamp,
    /// The number that its stream drew from the store when it was opened. `None` if the stream is not open yet.
    pub number: Option<NonZeroU64>,
    /// The newest sign of activity on the session.
    pub sign: Sign,
}

/// Something that happened and that changes the registry.
#[derive(Clone, Debug)]
pub enum Event {
    /// The gateway opened an announce stream.
    Linked {
        /// The gateway.
        gateway: Gateway,
        /// The new announce stream.
        link: LinkId,
    },
    /// The gateway's announce stream broke. Its sessions stay.
    Unlinked {
        /// The gateway.
        gateway: Gateway,
        /// The announce stream that broke.
        link: LinkId,
    },
    /// The gateway announced a session, for the first time or again.
    Announced {
        /// The gateway.
        gateway: Gateway,
        /// The announce stream by which the gateway says it.
        link: LinkId,
        /// The session.
        announcement: Announcement,
    },
    /// The session has ended.
    Ended {
        /// The gateway.
        gateway: Gateway,
        /// The announce stream by which the gateway says it.
        link: LinkId,
        /// The user who had the session.
        user: UserId,
        /// The session's id on its gateway.
        session: SessionId,
    },
    /// The person came to the device, is still there, or left it. The event is ignored if the session is not known,
    /// because the session's announcement will have the sign.
    Signed {
        /// The gateway.
        gateway: Gateway,
        /// The announce stream by which the gateway says it.
        link: LinkId,
        /// The user who has the session.
        user: UserId,
        /// The session's id on its gateway.
        session: SessionId,
        /// The sign of activity.
        sign: Sign,
    },
    /// The session's stream is open. The event is ignored if the session is not known, because the session's
    /// announcement will have the number.
    Opened {
        /// The gateway.
        gateway: Gateway,
        /// The announce stream by which the gateway says it.
        link: LinkId,
        /// The user who has the session.
        user: UserId,
        /// The session's id on its gateway.
        session: SessionId,
        /// The number that the stream drew from the store. A newer stream of a device has a higher one.
        number: NonZeroU64,
    },
    /// The gateway has announced all its sessions of these slots.
    Said {
        /// The gateway.
        gateway: Gateway,
        /// The announce stream by which the gateway says it.
        link: LinkId,
        /// The slots.
        slots: SlotSet,
        /// The version of the gateway's map when it began.
        map_version: i64,
    },
    /// This node follows a newer map.
    MapChanged {
        /// The version of the map.
        map_version: i64,
        /// The slots that this node owns.
        owned: SlotSet,
        /// The gateways that exist.
        gateways: HashSet<Gateway>,
    },
    /// Time has passed. Sessions that their gateways have not announced again within [`super::STALE_AFTER`]
    /// are removed. Announce streams of gateways that have not said slots within [`super::AGAIN_AFTER`] are
    /// to be ended.
    Tick,
}

/// Something that has to be done after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The event was not applied: the user's slot belongs to another node.
    NotOwner,
    /// The gateway is to be told to end this session, because its device has a newer one, or its user has too many.
    Replaced {
        /// The gateway that has the session.
        gateway: Gateway,
        /// The session's id on its gateway.
        session: SessionId,
    },
    /// The signs of the user's sessions may have changed: see [`super::Registry::signs`].
    Signs(UserId),
    /// The user has other sessions than before.
    Sessions(UserId),
    /// There is something to take for this stream of look-ups.
    TellChanged(FollowLink),
    /// There is something to take for this watch stream.
    Tell(WatchLink),
    /// This announce stream is to be ended. Either its gateway's incarnation has left the map, perhaps only for a
    /// while, and has to announce everything again; or the gateway has not said slots for too long; or it has opened a
    /// newer stream.
    EndLink {
        /// The gateway.
        gateway: Gateway,
        /// The announce stream to be ended.
        link: LinkId,
    },
}

/// The error for a user whose slot belongs to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the owner of the user's slot")]
pub struct NotOwner;
