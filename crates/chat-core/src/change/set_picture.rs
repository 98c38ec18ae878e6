//! The action that gives the group another picture, or none. An admin or an owner may do it.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least};
use crate::Refusal;
use crate::chat::{Chat, Role};
use crate::content::encode;
use crate::entry::{EntryKind, MediaRef};

pub(super) struct SetPicture(pub Option<MediaRef>);

impl Rules for SetPicture {
    fn kind(&self) -> EntryKind {
        EntryKind::ChatUpdated
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::ChatPictureChanged(v1::ChatPictureChanged {
            media_id: self
                .0
                .map_or_else(String::new, |picture| picture.media.to_string()),
        }))
    }

    fn permit(&self, chat: &Chat, _: UserId, role: Role) -> Result<Permitted, Refusal> {
        at_least(role, Role::Admin)?;
        Ok(if chat.picture() == self.0.map(|picture| picture.media) {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::SetPicture(self.0))
        })
    }

    fn apply(&self, chat: &mut Chat, _: Seq) {
        chat.set_picture(self.0.map(|picture| picture.media));
    }

    fn media(&self) -> Vec<MediaRef> {
        self.0.into_iter().collect()
    }
}
