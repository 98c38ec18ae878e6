//! The action that adds members. An admin or an owner may do it. Users who are members already are left out.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least};
use crate::ChangeRefusal;
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};

pub(super) struct Add<'a>(pub &'a [UserId]);

impl Rules for Add<'_> {
    fn kind(&self) -> EntryKind {
        EntryKind::MembersAdded
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::MembersAdded(v1::MembersAdded {
            user_ids: self.0.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }))
    }

    fn permit(&self, group: &Group, _: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        at_least(role, Role::Admin)?;
        let users = self.0.iter().copied();
        let mut new: Vec<UserId> = users.filter(|user| group.member(*user).is_none()).collect();
        new.sort_unstable();
        new.dedup();
        if group.members.len() + new.len() > MAX_GROUP_MEMBERS {
            return Err(ChangeRefusal::GroupFull);
        }
        Ok(if new.is_empty() {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::Add(new))
        })
    }

    fn apply(&self, group: &mut Group, seq: Seq) {
        for user in self.0 {
            group.join(*user, seq);
        }
        debug_assert!(group.members.len() <= MAX_GROUP_MEMBERS);
    }

    fn bytes(&self) -> usize {
        std::mem::size_of_val(self.0)
    }
}
