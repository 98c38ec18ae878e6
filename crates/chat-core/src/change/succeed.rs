//! The action that removes the last owner of a group while there are other members, and makes one of these the owner in
//! the same entry. Who may remove somebody, or leave, causes it; nobody asks for it by name.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::remove::Remove;
use super::{Permitted, Rules};
use crate::ChangeRefusal;
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};

pub(super) struct Succeed {
    pub owner: UserId,
    pub heir: UserId,
}

impl Rules for Succeed {
    fn kind(&self) -> EntryKind {
        EntryKind::MemberRemoved
    }

    fn content(&self, actor: UserId) -> Bytes {
        encode(Content::MemberRemoved(v1::MemberRemoved {
            user_id: self.owner.to_string(),
            left: self.owner == actor,
            new_owner_user_id: self.heir.to_string(),
        }))
    }

    fn is_possible_while_frozen(&self, actor: UserId) -> bool {
        Remove(self.owner).is_possible_while_frozen(actor)
    }

    fn permit(&self, group: &Group, actor: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        Remove(self.owner).permit(group, actor, role)
    }

    fn apply(&self, group: &mut Group, seq: Seq) {
        Remove(self.owner).apply(group, seq);
        let heir = group.members.get_mut(&self.heir);
        debug_assert!(heir.is_some(), "only a member follows the owner");
        if let Some(heir) = heir {
            heir.role = Role::Owner;
        }
    }
}
