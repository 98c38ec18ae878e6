//! The effects of changes of a group on its members, title and picture. [`crate::change`] decides who may make them.

use tern_types::{IdSet, MediaId, Seq, UserId};

use super::{Chat, Member, Role};

impl Chat {
    /// Adds a member, who is entitled to the entries from `seq` on.
    pub(crate) fn join(&mut self, user: UserId, seq: Seq) {
        debug_assert!(!self.members.contains_key(&user), "nobody joins twice");
        let member = Member {
            role: Role::Member,
            joined: seq,
            last_sent: Seq::ZERO,
            own_unread: 0,
        };
        self.members.insert(user, member);
    }

    /// Removes a member, whose receipts are forgotten.
    pub(crate) fn leave(&mut self, user: UserId) {
        self.members.remove(&user);
        let members: IdSet<UserId> = self.members.keys().copied().collect();
        self.receipts.retain(&members);
    }

    /// Sets the role of a member. Does nothing if there is no such member.
    pub(crate) fn set_role(&mut self, user: UserId, role: Role) {
        if let Some(member) = self.members.get_mut(&user) {
            member.role = role;
        }
    }

    /// Sets the title.
    pub(crate) fn set_title(&mut self, title: &str) {
        title.clone_into(&mut self.title);
    }

    /// Sets the picture, or removes it.
    pub(crate) fn set_picture(&mut self, picture: Option<MediaId>) {
        self.picture = picture;
    }
}
