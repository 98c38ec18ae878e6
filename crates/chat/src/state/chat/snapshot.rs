//! A chat as the store has it at one moment.

use std::fmt;
use std::sync::Arc;

use tern_types::{MediaId, RequestId, Seq, Timestamp, UserId};

use crate::state::receipts::Watermark;
use crate::state::recent::Placed;

/// `tern.v1.ChatKind`; the number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum ChatKind {
    Direct = 1,
    Group = 2,
}

/// `tern.v1.Role`; the number is stored. Ordered by what they may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Role {
    Member = 1,
    Admin = 2,
    Owner = 3,
}

/// A present member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub role: Role,
    pub joined: Seq,
    /// No entry of theirs is above this one; 0: they never sent any. Too high, they are told of receipts that do not
    /// concern them; too low, they would miss some.
    pub last_sent: Seq,
    /// Messages of theirs after their own read mark that count as unread: for others, not for them.
    pub own_unread: u32,
}

/// The chat's data key; opened by the store's adapter, only carried here.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatKey(pub Arc<[u8; 32]>);

impl fmt::Debug for ChatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatKey(…)")
    }
}

/// A chat as the store had it at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub kind: ChatKind,
    pub title: String,
    pub picture: Option<MediaId>,
    pub key: ChatKey,
    pub head: Seq,
    pub ordinal: u64,
    pub members: Vec<(UserId, Member, Watermark)>,
    /// The lowest entry that is not settled yet.
    pub unsettled: Option<Seq>,
    /// The newest requests, and those that were asked for.
    pub placed: Vec<(UserId, RequestId, Placed)>,
    /// What was asked for: such a request that is not in `placed` has no place in the log.
    pub looked_up: Vec<(UserId, RequestId)>,
    pub last_sent_at: Timestamp,
    /// Direct chats: one of the two has blocked the other.
    pub blocked: bool,
}
