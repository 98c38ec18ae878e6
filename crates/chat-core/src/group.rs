//! The part of a chat that changes are about: its kind, title, picture and members. [`crate::change`] has the rules for
//! who may change it.

use tern_types::{IdMap, MediaId, Seq, UserId};

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

/// A member's role, as `tern.v1.Role`. The number is stored. A greater role may do more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Role {
    /// A member may send messages and leave.
    Member = 1,
    /// An admin may also add and remove members, and set title and picture.
    Admin = 2,
    /// An owner may also set roles.
    Owner = 3,
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
}

impl Member {
    /// Returns a member whom the entry at `joined` has made one, and who has sent nothing yet.
    pub fn joined_at(joined: Seq) -> Self {
        Self {
            role: Role::Member,
            joined,
            last_sent: Seq::ZERO,
            own_unread: 0,
        }
    }
}

/// The kind, title, picture and members of a chat. A direct chat has two members, no title and no picture.
#[derive(Debug)]
pub(crate) struct Group {
    /// The kind of the chat. Only a group may be changed.
    pub kind: ChatKind,
    /// The title, which is empty for direct chats.
    pub title: String,
    /// The picture, or `None` if there is none.
    pub picture: Option<MediaId>,
    /// The present members.
    pub members: IdMap<UserId, Member>,
}

impl Default for Group {
    /// Returns what a chat has before its first load.
    fn default() -> Self {
        Self {
            kind: ChatKind::Group,
            title: String::new(),
            picture: None,
            members: IdMap::default(),
        }
    }
}

impl Group {
    /// Returns the present member with this id, or `None` if the user is not a member.
    pub fn member(&self, user: UserId) -> Option<&Member> {
        self.members.get(&user)
    }

    /// Adds a member, who is entitled to the entries from `seq` on.
    pub fn join(&mut self, user: UserId, seq: Seq) {
        debug_assert!(!self.members.contains_key(&user), "nobody joins twice");
        self.members.insert(user, Member::joined_at(seq));
    }
}
