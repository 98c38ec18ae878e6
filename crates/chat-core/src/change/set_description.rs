//! The action that gives the group another description. The group's policy says which role may do it.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least};
use crate::ChangeRefusal;
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};

pub(super) struct SetDescription<'a>(pub &'a str);

impl Rules for SetDescription<'_> {
    fn kind(&self) -> EntryKind {
        EntryKind::ChatUpdated
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::ChatDescriptionChanged(v1::ChatDescriptionChanged {
            description: self.0.to_owned(),
        }))
    }

    fn permit(&self, group: &Group, _: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        at_least(role, group.policy.edit_role)?;
        Ok(if group.description == self.0 {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::SetDescription(self.0.to_owned()))
        })
    }

    fn apply(&self, group: &mut Group, _: Seq) {
        self.0.clone_into(&mut group.description);
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}
