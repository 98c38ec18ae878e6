//! The action that gives the group another title. An admin or an owner may do it.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least};
use crate::Refusal;
use crate::chat::{Chat, Role};
use crate::content::encode;
use crate::entry::EntryKind;

pub(super) struct SetTitle<'a>(pub &'a str);

impl Rules for SetTitle<'_> {
    fn kind(&self) -> EntryKind {
        EntryKind::ChatUpdated
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::ChatUpdated(v1::ChatUpdated {
            title: self.0.to_owned(),
        }))
    }

    fn permit(&self, chat: &Chat, _: UserId, role: Role) -> Result<Permitted, Refusal> {
        at_least(role, Role::Admin)?;
        Ok(if chat.title() == self.0 {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::SetTitle(self.0.to_owned()))
        })
    }

    fn apply(&self, chat: &mut Chat, _: Seq) {
        chat.set_title(self.0);
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}
