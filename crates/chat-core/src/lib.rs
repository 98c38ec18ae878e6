//! The decisions of a chat node as pure functions, without a clock, a store or a wire. Time comes in as an argument,
//! and the work to be done goes out as [`Effect`]s and [`Job`]s.
//!
//! - [`entry`]: an entry of a log, before and after it has a seq
//! - [`hint`]: how an entry is announced by push notifications
//! - `shown`: an entry as its readers are shown it
//! - [`target`]: the rules for what may be done to a message that is in the log already
//! - [`chat`]: one chat: its members, head, waiting commands and unsettled entries
//! - `group`: the part of a chat that changes are about: its kind, title, picture, policy and members; `role`: the
//!   rights of a member; [`policy`]: who may do what in a group, and what those who join may read
//! - [`change`]: the rules for who may make which change of a group, and how each changes the group
//! - [`content`]: the content of entries, and the fingerprints of requests
//! - [`receipts`]: the delivered and read watermarks of one chat
//! - [`recent`]: the answers to repeated requests
//! - [`retention`]: how long the server keeps what is said in a chat, and after which time messages disappear
//! - [`settings`]: how a user keeps one of their chats
//! - `outcome`: the answers to commands, and the reasons for which commands are refused
//! - [`bytes`]: bounds on the bytes that queues hold
//! - [`shard`]: the state of one shard: many chats, and the next write
//!
//! This crate knows nothing of tasks, of the store's statements or of the stream's frames. Numbers in comments ("rule
//! 5", "fine print 2") are those of `docs/delivery.md`, which also explains the words: entry, head, settle, inbox row,
//! wake.

#![warn(missing_docs)]
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
pub mod hint;
mod outcome;
pub mod policy;
pub mod receipts;
pub mod recent;
pub mod retention;
mod role;
pub mod settings;
pub mod shard;
mod shown;
pub mod target;

use tern_types::{DeviceId, RequestId, Seq, SessionId, UserId};

pub use change::Change;
pub use chat::{Chat, ChatKind, Member, Role, Snapshot};
pub use entry::{Entry, EntryKind, MediaRef, NewEntry, Sending};
pub use outcome::{ChangeRefusal, Outcome, Place, Refusal, WrittenAck};
pub use shard::{Effect, Event, Job, JobDone, ShardState};
pub use shown::Shown;

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
