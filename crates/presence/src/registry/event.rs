//! What happens to the registry, and what follows.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;

use tern_types::{DeviceId, SessionId, Timestamp, UserId};

use super::SlotSet;
use crate::activity::Sign;
use crate::watches::WatchLink;

/// One run of a gateway process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gateway {
    pub name: Arc<str>,
    pub incarnation: u64,
}

/// Names one announce stream of a gateway. Only the newest of a gateway counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A session as its gateway announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub user: UserId,
    pub device: DeviceId,
    pub session: SessionId,
    /// When it began, by the gateway's clock.
    pub since: Timestamp,
    /// What its stream drew from the store when it was opened; `None`: it is not open yet.
    pub number: Option<NonZeroU64>,
    pub sign: Sign,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// The gateway opened an announce stream.
    Linked { gateway: Gateway, link: LinkId },
    /// It broke. Its sessions stay.
    Unlinked { gateway: Gateway, link: LinkId },
    Announced {
        gateway: Gateway,
        link: LinkId,
        announcement: Announcement,
    },
    Ended {
        gateway: Gateway,
        link: LinkId,
        user: UserId,
        session: SessionId,
    },
    /// The person came to the device, is there still, or left it. Of a session that is not known it says nothing: the
    /// session's announcement will.
    Signed {
        gateway: Gateway,
        link: LinkId,
        user: UserId,
        session: SessionId,
        sign: Sign,
    },
    /// The session's stream is open. Of a session that is not known it says nothing: the session's announcement will.
    Opened {
        gateway: Gateway,
        link: LinkId,
        user: UserId,
        session: SessionId,
        number: NonZeroU64,
    },
    /// This node follows a newer map.
    MapChanged {
        owned: SlotSet,
        gateways: HashSet<Gateway>,
    },
    /// Some seconds have passed.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The event was not taken: the user's slot belongs to another node.
    NotOwner,
    /// Tell the gateway to end this session: its device has a newer one.
    Replaced { gateway: Gateway, session: SessionId },
    /// The signs of the user's sessions are others now: see [`super::Registry::signs`].
    Signs(UserId),
    /// There is something to take for this watch stream.
    Tell(WatchLink),
    /// End this stream: its gateway's incarnation is gone, or was for a while and has to announce all again.
    EndLink { gateway: Gateway, link: LinkId },
}

/// The user's slot belongs to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the owner of the user's slot")]
pub struct NotOwner;
