//! The action that removes a member. An admin or an owner may remove members whose role is not higher than theirs, and
//! everybody may leave, also while the chat is frozen. If the last owner is removed while there are other members, one of
//! them follows.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least, heir, is_last_owner};
use crate::ChangeRefusal;
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};

pub(super) struct Remove(pub UserId);

impl Rules for Remove {
    fn kind(&self) -> EntryKind {
        EntryKind::MemberRemoved
    }

    fn content(&self, actor: UserId) -> Bytes {
        encode(Content::MemberRemoved(v1::MemberRemoved {
            user_id: self.0.to_string(),
            left: self.0 == actor,
            ..Default::default()
        }))
    }

    fn is_possible_while_frozen(&self, actor: UserId) -> bool {
        self.0 == actor
    }

    fn permit(&self, group: &Group, actor: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        let user = self.0;
        if actor != user {
            at_least(role, Role::Admin)?;
        }
        let Some(member) = group.member(user) else {
            return Ok(Permitted::Nothing);
        };
        if actor != user {
            at_least(role, member.role)?;
        }
        let heir = heir(group, user).filter(|_| is_last_owner(group, member.role));
        Ok(Permitted::Entry(match heir {
            Some(heir) => Action::Succeed { owner: user, heir },
            None => Action::Remove(user),
        }))
    }

    fn apply(&self, group: &mut Group, _: Seq) {
        group.members.remove(&self.0);
    }
}
