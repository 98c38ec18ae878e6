//! A chat as the store has it at one moment.

use std::fmt;
use std::sync::Arc;

use tern_types::{MediaId, RequestId, Seq, Timestamp, UserId};

use super::acts::Acts;
use crate::group::{ChatKind, Member};
use crate::policy::Policy;
use crate::receipts::Watermark;
use crate::recent::Placed;
use crate::retention::Retention;
use crate::target::Target;

/// The chat's data key of 32 bytes. The store unwraps it and uses it; the state only carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatKey(pub Arc<[u8; 32]>);

impl fmt::Debug for ChatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatKey(…)")
    }
}

/// The requests and entries that a load looks up in the chat's log, however old they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LookUp {
    /// The requests of the commands that wait.
    pub requests: Vec<(UserId, RequestId)>,
    /// The entries that these commands are about, each once and ascending.
    pub targets: Vec<Seq>,
    /// The acts whose numbers decide about these commands.
    pub acts: Vec<Acts>,
}

/// A chat as the store had it at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The kind of the chat.
    pub kind: ChatKind,
    /// The title; empty for direct chats.
    pub title: String,
    /// The picture, if there is one.
    pub picture: Option<MediaId>,
    /// The chat's data key.
    pub key: ChatKey,
    /// The seq of the last entry; 0 if there is none.
    pub head: Seq,
    /// The ordinal of the entry at the head.
    pub ordinal: u64,
    /// The present members with their watermarks.
    pub members: Vec<(UserId, Member, Watermark)>,
    /// The lowest seq that is not settled; `None` if everything is settled.
    pub unsettled: Option<Seq>,
    /// The newest requests in the log, and those requests of `looked_up` that are in it, by ascending seq.
    pub placed: Vec<(UserId, RequestId, Placed)>,
    /// The requests that the load was told to look up. One that is not in `placed` is not in the log.
    pub looked_up: Vec<(UserId, RequestId)>,
    /// The entries that the load was told to look up, as far as they are in the log.
    pub targets: Vec<(Seq, Target)>,
    /// The numbers of the acts that the load was told to look up. Acts that nobody has done are left out.
    pub acts: Vec<(Acts, u32)>,
    /// The highest time of an entry of `placed`, by the wall clock; 0 if `placed` is empty.
    pub last_sent_at: Timestamp,
    /// True if one of a direct chat's two people has blocked the other. It is false for groups.
    pub blocked: bool,
    /// The description; empty for direct chats.
    pub description: String,
    /// The rules of a group; the default for direct chats.
    pub policy: Policy,
    /// True if the operator froze the chat.
    pub frozen: bool,
    /// The members' choice of how long their messages are kept.
    pub retention: Retention,
    /// True if the store has a time at which the chat is trimmed next.
    pub trims: bool,
}

impl Snapshot {
    /// Returns what a load finds of a chat that was just made: these people are its members, and it has no entry.
    pub fn of_new_chat(kind: ChatKind, people: impl IntoIterator<Item = UserId>, key: ChatKey) -> Self {
        let member = |user| (user, Member::joined_at(Seq(1)), Watermark::default());
        Self {
            kind,
            title: String::new(),
            picture: None,
            key,
            head: Seq::ZERO,
            ordinal: 0,
            members: people.into_iter().map(member).collect(),
            unsettled: None,
            placed: Vec::new(),
            looked_up: Vec::new(),
            targets: Vec::new(),
            acts: Vec::new(),
            last_sent_at: Timestamp::default(),
            blocked: false,
            description: String::new(),
            policy: Policy::default(),
            frozen: false,
            retention: Retention::default(),
            trims: false,
        }
    }
}
