//! The action by which an owner hands the group over: another member becomes an owner, and the owner an admin, in the
//! same entry. Only an owner may do it, for themselves.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least};
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};
use crate::{ChangeRefusal, Refusal};

pub(super) struct HandOver {
    pub from: UserId,
    pub to: UserId,
}

impl Rules for HandOver {
    fn kind(&self) -> EntryKind {
        EntryKind::RoleChanged
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::RoleChanged(v1::RoleChanged {
            user_id: self.to.to_string(),
            role: v1::Role::Owner.into(),
            handed_over: true,
        }))
    }

    fn permit(&self, group: &Group, actor: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        let Self { from, to } = *self;
        // The system is no member, and so has nothing to hand over.
        if actor != from || group.member(from).is_none() {
            return Err(Refusal::NotAMember.into());
        }
        at_least(role, Role::Owner)?;
        if group.member(to).is_none() {
            return Err(ChangeRefusal::UserNotFound(to));
        }
        Ok(if from == to {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::HandOver { from, to })
        })
    }

    fn apply(&self, group: &mut Group, _: Seq) {
        debug_assert_ne!(self.from, self.to, "somebody else becomes the owner");
        for (user, role) in [(self.from, Role::Admin), (self.to, Role::Owner)] {
            let member = group.members.get_mut(&user);
            debug_assert!(member.is_some(), "only a member gets a role");
            if let Some(member) = member {
                member.role = role;
            }
        }
    }
}
