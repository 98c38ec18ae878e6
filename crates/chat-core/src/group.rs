//! The part of a chat that changes are about: its kind, title, picture, policy, members and retention.
//! [`crate::change`] has the rules for who may change it.

use tern_types::{IdMap, MediaId, Seq, Timestamp, UserId};

use crate::policy::Policy;

pub use crate::role::Role;

use super::retention::Retention;

/// The kind of a chat, as `tern.v1.ChatKind`. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum ChatKind {
    /// A chat of two people.
    Direct = 1,
    /// A chat whose members come and go.
    Group = 2,
    /// A user's own log, whose only member is the user. It takes no messages.
    Own = 3,
}

/// A present member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member's role.
    pub role: Role,
    /// The seq of the entry that made the user a member.
    pub joined: Seq,
    /// A seq above which the member has sent no entry; 0 if they have sent none since they joined. If it is
    /// higher than need be, the member is told of receipts that do not concern them; if it were too low, they
    /// would miss some.
    pub last_sent: Seq,
    /// The number of the member's own messages after their read mark that count as unread. They are unread for
    /// others, not for the member.
    pub own_unread: u32,
    /// The first seq of the history that the member may read: `joined`, or a lower one if the group's policy had it so
    /// when they joined.
    pub history: Seq,
    /// The time of the member's last message, by the wall clock, as far as it is known; `None` if it was long ago. Slow
    /// mode depends on it.
    pub last_message: Option<Timestamp>,
}

impl Member {
    /// Returns a member whom the entry at `joined` has made one, who has sent nothing yet, and who may read nothing from
    /// before.
    pub fn joined_at(joined: Seq) -> Self {
        Self {
            role: Role::Member,
            joined,
            last_sent: Seq::ZERO,
            own_unread: 0,
            history: joined,
            last_message: None,
        }
    }
}

/// The kind, title, picture, policy, members and retention of a chat. A direct chat has two members, and of what is for
/// groups the defaults.
#[derive(Debug)]
pub(crate) struct Group {
    /// The kind of the chat. Most changes are for groups only.
    pub kind: ChatKind,
    /// The title, which is empty for direct chats.
    pub title: String,
    /// The picture, or `None` if there is none.
    pub picture: Option<MediaId>,
    /// The present members.
    pub members: IdMap<UserId, Member>,
    /// The description, which is empty for direct chats.
    pub description: String,
    /// The rules of the group.
    pub policy: Policy,
    /// True if the operator froze the chat: nobody but the system may send or change anything.
    pub frozen: bool,
    /// The members' choice of how long their messages are kept.
    pub retention: Retention,
}

impl Default for Group {
    /// Returns what a chat has before its first load.
    fn default() -> Self {
        Self {
            kind: ChatKind::Group,
            title: String::new(),
            picture: None,
            members: IdMap::default(),
            description: String::new(),
            policy: Policy::default(),
            frozen: false,
            retention: Retention::default(),
        }
    }
}

impl Group {
    /// Returns the present member with this id, or `None` if the user is not a member.
    pub fn member(&self, user: UserId) -> Option<&Member> {
        self.members.get(&user)
    }

    /// Adds a member, who is entitled to the entries from `seq` on, and may read what the policy says of those before.
    pub fn join(&mut self, user: UserId, seq: Seq) {
        debug_assert!(!self.members.contains_key(&user), "nobody joins twice");
        let member = Member {
            history: self.policy.joiner_history.first(seq),
            ..Member::joined_at(seq)
        };
        self.members.insert(user, member);
    }
}
