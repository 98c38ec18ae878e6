//! The decisions of a chat node as pure functions, without a clock, a store or a wire. Time comes in as an argument,
//! and the work to be done goes out as [`Effect`]s and [`Job`]s.
//!
//! - [`entry`]: an entry of a log, before and after it has a seq
//! - [`chat`]: one chat: its members, head, waiting commands and unsettled entries
//! - `group`: the part of a chat that changes are about: its kind, title, picture and members
//! - [`change`]: the rules for who may make which change of a group, and how each changes the group
//! - [`content`]: the content of entries, and the fingerprints of requests
//! - [`receipts`]: the delivered and read watermarks of one chat
//! - [`recent`]: the answers to repeated requests
//! - [`bytes`]: bounds on the bytes that queues hold
//! - [`shard`]: the state of one shard: many chats, and the next write
//!
//! This crate knows nothing of tasks, of the store's statements or of the stream's frames. Numbers in comments ("rule
//! 5", "fine print 2") are those of `docs/delivery.md`, which also explains the words: entry, head, settle, inbox row,
//! wake.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests draw ids and read a clock")
)]

mod bytes;
pub mod change;
pub mod chat;
pub mod content;
pub mod entry;
mod group;
pub mod receipts;
pub mod recent;
pub mod shard;

use std::time::Duration;

use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{ChatId, DeviceId, RequestId, Seq, SessionId, Timestamp, UserId};

pub use change::Change;
pub use chat::{Chat, ChatKind, Member, Role, Snapshot};
pub use entry::{Entry, EntryKind, MediaRef, NewEntry, Sending};
pub use shard::{Effect, Event, Job, JobDone, ShardState};

/// The caller that waits for an answer. The state returns the same value with the answer, and reads nothing of it but
/// its kind: an acknowledgement that cannot be written is refused only to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An item of a gateway's link.
    Link {
        /// The number that this node has given the link.
        link: u64,
        /// The item's `reference` on the link, which the answer repeats.
        reference: u64,
        /// The session that sent the item.
        session: SessionId,
        /// The request_id of a send. It is nil for acknowledgements and read marks.
        request: RequestId,
    },
    /// A unary call, or a task of this node, by the number under which the node keeps it until the answer comes.
    Call(u64),
}

impl Origin {
    /// Returns the session that sent the item, and `None` for unary calls. The push of an entry leaves the session out,
    /// because it gets the answer instead.
    pub fn session(self) -> Option<SessionId> {
        match self {
            Self::Link { session, .. } => Some(session),
            Self::Call(_) => None,
        }
    }
}

/// The direct chat that a load makes first if it does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Making {
    /// The maker, then the other person.
    pub people: (UserId, UserId),
    /// True if a device of the maker asked for it. Then the other person counts towards the maker's daily limit of
    /// new strangers.
    pub by_device: bool,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The entry is committed. A repeated request gets the same answer as the first time.
    Placed {
        /// The chat whose log has the entry.
        chat: ChatId,
        /// The entry's place in the log.
        seq: Seq,
        /// The time at which the entry got its seq, by the wall clock.
        sent_at: Timestamp,
    },
    /// The command made no entry, for example because the group has that title already. It is also the answer to a
    /// read mark that is noted, and to [`Event::BlocksChanged`] once the chat is as the store has it.
    Unchanged,
    /// The acknowledgement is written.
    AckWritten {
        /// The chat.
        chat: ChatId,
        /// The seq up to which the device has stored every entry.
        seq: Seq,
        /// The seq at which the device's inbox row begins now. `None` if it has no row any more.
        row: Option<Seq>,
    },
    /// The command was refused. Nothing of it is stored, but after [`Refusal::STORE_AWAY`] and
    /// [`Refusal::TOO_LATE`] nobody knows: it may be stored all the same.
    Refused(Refusal),
    /// This node does not own the chat any more, or has forgotten it because the store is another one. The caller
    /// should send the same request again.
    NotOwner,
}

/// The reason why a command was refused. The text of each is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller is no member of the chat, or the chat does not exist. The caller is not told which.
    #[error("not a member of this chat, or there is no such chat")]
    NotAMember,
    /// One of the direct chat's two people does not exist.
    #[error("no such user")]
    PeerNotFound,
    /// The user whom the command names does not exist, or is no member of the group.
    #[error("no user has the id {0}")]
    UserNotFound(UserId),
    /// One of the two people has blocked the other. The caller is not told which.
    #[error("this chat takes no messages")]
    NotAccepted,
    /// The request would reach more new strangers than its sender may reach in a day. The caller should send it again
    /// later.
    #[error("too many people that the sender had nothing to do with before, for one day")]
    StrangersLimited {
        /// The time from now after which there is room for one more stranger.
        retry_after: Duration,
    },
    /// The request_id belongs to an earlier request with another content (rule 5).
    #[error("the request_id was used for something else")]
    RequestIdReused,
    /// The change needs a higher role than the member has.
    #[error("the member's role does not allow this")]
    RoleTooLow,
    /// The chat is a direct chat, which cannot be changed.
    #[error("only groups can be changed")]
    NotAGroup,
    /// The group would have too many members.
    #[error("the group would have more than {} members", MAX_GROUP_MEMBERS)]
    GroupFull,
    /// The group would keep members but no owner.
    #[error("the group would be left without an owner")]
    LastOwner,
    /// A ticket of the attached media is not valid, or not valid any more.
    #[error("a ticket of the attachments has expired, or is not one of this sender for this media")]
    MediaTicket,
    /// A field is not valid: the name of the field, and the fault.
    #[error("{0} {1}")]
    Invalid(&'static str, &'static str),
    /// A field has too many items.
    #[error("{field} must be at most {most}")]
    TooMany {
        /// The name of the field, with the fields that it is in, such as `envelope.attachments`.
        field: &'static str,
        /// The largest number of items that the field may have.
        most: usize,
    },
    /// The store has the chat, but this node cannot read it: its key does not open with the node's master key, or it
    /// has a value that this version does not know. No caller can change that, but an operator can, or another version.
    #[error("the chat cannot be read")]
    Unreadable,
    /// The command cannot be carried out now. The caller should send the same request again later.
    #[error("{reason}")]
    Unavailable {
        /// The reason, for people.
        reason: &'static str,
        /// The time that the caller should wait.
        retry_after: Duration,
    },
}

impl Refusal {
    /// The store did not answer. The entry may be committed all the same, and the repeated request finds it then.
    pub const STORE_AWAY: Self = Self::Unavailable {
        reason: "the store is away",
        retry_after: Duration::from_millis(500),
    };
    /// Another transaction holds a lock on the chat, or on one of its people, in the store.
    pub const HELD: Self = Self::Unavailable {
        reason: "the chat is held in the store",
        retry_after: Duration::from_secs(1),
    };
    /// The command waited for as long as a caller is kept waiting. If its batch was at the writer, it may be committed
    /// all the same, and the repeated request finds it then.
    pub const TOO_LATE: Self = Self::Unavailable {
        reason: "the store takes too long",
        retry_after: Duration::from_secs(1),
    };
    /// A bounded queue of the chat's owner is full.
    pub const OVERLOADED: Self = Self::Unavailable {
        reason: "the chat's node has too much to do",
        retry_after: Duration::from_millis(500),
    };
}

/// A device that has not acknowledged entries that it is entitled to, and now has an inbox row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The user of the device.
    pub user: UserId,
    /// The device, or the reserved one of a user who has no device ([`DeviceId::reserved`]).
    pub device: DeviceId,
    /// The first seq that the device lacks.
    pub from: Seq,
}
