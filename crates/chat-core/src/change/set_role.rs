//! The action that gives a member another role. Only an owner may do it, and the group keeps an owner.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least, is_last_owner};
use crate::ChangeRefusal;
use crate::content::{encode, role_to_wire};
use crate::entry::EntryKind;
use crate::group::{Group, Role};

pub(super) struct SetRole(pub UserId, pub Role);

impl Rules for SetRole {
    fn kind(&self) -> EntryKind {
        EntryKind::RoleChanged
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::RoleChanged(v1::RoleChanged {
            user_id: self.0.to_string(),
            role: role_to_wire(self.1).into(),
            ..Default::default()
        }))
    }

    fn permit(&self, group: &Group, _: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        at_least(role, Role::Owner)?;
        let Self(user, to) = *self;
        let member = group.member(user).ok_or(ChangeRefusal::UserNotFound(user))?;
        if member.role == to {
            return Ok(Permitted::Nothing);
        }
        if is_last_owner(group, member.role) {
            return Err(ChangeRefusal::LastOwner);
        }
        Ok(Permitted::Entry(Action::SetRole(user, to)))
    }

    fn apply(&self, group: &mut Group, _: Seq) {
        let member = group.members.get_mut(&self.0);
        debug_assert!(member.is_some(), "only a member gets a role");
        if let Some(member) = member {
            member.role = self.1;
        }
    }
}
