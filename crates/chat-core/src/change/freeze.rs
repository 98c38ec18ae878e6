//! The action that freezes a chat, or ends that. Only the system may do it. It is for direct chats too.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules};
use crate::ChangeRefusal;
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};

pub(super) struct Freeze(pub bool);

impl Rules for Freeze {
    fn kind(&self) -> EntryKind {
        EntryKind::ChatUpdated
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::ChatFrozen(v1::ChatFrozen { frozen: self.0 }))
    }

    fn is_for_groups(&self) -> bool {
        false
    }

    fn permit(&self, group: &Group, actor: UserId, _: Role) -> Result<Permitted, ChangeRefusal> {
        if actor != UserId::SYSTEM {
            return Err(ChangeRefusal::RoleTooLow);
        }
        Ok(if group.frozen == self.0 {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::Freeze(self.0))
        })
    }

    fn apply(&self, group: &mut Group, _: Seq) {
        group.frozen = self.0;
    }
}
