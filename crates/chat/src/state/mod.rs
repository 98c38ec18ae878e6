//! What a chat node decides, as pure functions: no clock, no store, no wire.
//!
//! - [`entry`]: items of a log, before and after they have their place
//! - [`chat`]: one chat: members, head, what waits, what is unsettled
//! - [`change`]: who may change a group how, and what it does to the members
//! - [`receipts`]: delivered and read watermarks of one chat
//! - [`recent`]: answers for repeated requests
//! - [`bytes`]: what bounds queues besides their length
//! - [`shard`]: many chats, and which write comes next

pub mod bytes;
pub mod change;
pub mod chat;
pub mod entry;
pub mod receipts;
pub mod recent;
pub mod shard;

use std::time::Duration;

use tern_types::{ChatId, DeviceId, RequestId, Seq, SessionId, Timestamp, UserId};

pub use change::Change;
pub use chat::{Chat, ChatKind, Member, Role, Snapshot};
pub use entry::{Entry, EntryKind, MediaRef, NewEntry};
pub use shard::{Effect, Event, Job, JobDone, ShardState};

/// Who waits for an answer. Opaque to the state: what comes in goes out with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An item of a gateway's link; `request` is nil for an acknowledgement.
    Link {
        link: u64,
        reference: u64,
        session: SessionId,
        request: RequestId,
    },
    /// A unary call, or a task of this node.
    Call(u64),
}

impl Origin {
    /// The session to leave out of live pushes: it gets the answer instead.
    pub fn session(self) -> Option<SessionId> {
        match self {
            Self::Link { session, .. } => Some(session),
            Self::Call(_) => None,
        }
    }
}

/// A direct chat is made where it does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Making {
    /// The one who makes it first.
    pub people: (UserId, UserId),
    /// From a device: the other one may be one new stranger too many for a day.
    pub by_device: bool,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The entry has its place. Also the answer to a repetition.
    Placed {
        chat: ChatId,
        seq: Seq,
        sent_at: Timestamp,
    },
    /// Nothing had to change.
    Unchanged,
    /// `row`: where the device's inbox row begins now, if it still has one.
    AckWritten {
        chat: ChatId,
        seq: Seq,
        row: Option<Seq>,
    },
    /// Nothing of it is stored.
    Refused(Refusal),
    /// Another node owns the chat now.
    NotOwner,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("not a member of this chat, or there is no such chat")]
    NotAMember,
    #[error("no such user")]
    PeerNotFound,
    #[error("no user has the id {0}")]
    UserNotFound(UserId),
    /// Does not say who blocked whom.
    #[error("this chat takes no messages")]
    NotAccepted,
    #[error("too many people that the sender had nothing to do with before, for one day")]
    StrangersLimited { retry_after: Duration },
    #[error("the request_id was used for something else")]
    RequestIdReused,
    #[error("the member's role does not allow this")]
    RoleTooLow,
    #[error("only groups can be changed")]
    NotAGroup,
    #[error("the group would have more than 1,024 members")]
    GroupFull,
    #[error("the group would be left without an owner")]
    LastOwner,
    #[error("a ticket of the attachments has expired, or is not one of this sender for this media")]
    MediaTicket,
    /// The field, and what is wrong with it.
    #[error("{0} {1}")]
    Invalid(&'static str, &'static str),
    #[error("{0}")]
    TooLarge(&'static str),
    /// Try the same again later.
    #[error("{reason}")]
    Unavailable {
        reason: &'static str,
        retry_after: Duration,
    },
}

impl Refusal {
    /// The store did not answer; whether the entry is in the log is known when the request comes again.
    pub const STORE_AWAY: Self = Self::Unavailable {
        reason: "the store is away",
        retry_after: Duration::from_millis(500),
    };
    /// Somebody else holds the chat, or one of its people, in the store.
    pub const HELD: Self = Self::Unavailable {
        reason: "the chat is held in the store",
        retry_after: Duration::from_secs(1),
    };
    /// It waited for as long as a caller is kept waiting. What of it was under way may have its place all the same, which
    /// shows when the request comes again.
    pub const TOO_LATE: Self = Self::Unavailable {
        reason: "the store takes too long",
        retry_after: Duration::from_secs(1),
    };
    /// More waits than is good; see the queue's bound.
    pub const OVERLOADED: Self = Self::Unavailable {
        reason: "the chat's node has too much to do",
        retry_after: Duration::from_millis(500),
    };
}

/// A device that has not acknowledged what it is entitled to, and now has an inbox row from `from` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub user: UserId,
    pub device: DeviceId,
    pub from: Seq,
}
