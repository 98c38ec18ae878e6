//! The action that adds members. The group's policy says which role may do it, and what the new members may read of the
//! time before. Users who are members already are left out.

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
        content(self.0, 0)
    }

    fn content_at(&self, _: UserId, group: &Group, seq: Seq) -> Bytes {
        of_joining(self.0, group, seq)
    }

    fn permit(&self, group: &Group, _: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        at_least(role, group.policy.add_role)?;
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

/// Returns the content of the entry at `seq` that makes the users members of the group, with the first seq that they
/// may read.
pub(super) fn of_joining(users: &[UserId], group: &Group, seq: Seq) -> Bytes {
    let first = group.policy.joiner_history.first(seq);
    content(users, if first == seq { 0 } else { first.0 })
}

fn content(users: &[UserId], history_from_seq: u64) -> Bytes {
    encode(Content::MembersAdded(v1::MembersAdded {
        user_ids: users.iter().map(ToString::to_string).collect(),
        history_from_seq,
    }))
}
