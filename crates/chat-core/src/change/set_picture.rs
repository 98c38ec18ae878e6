//! The action that gives the group another picture, or none. The group's policy says which role may do it.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least};
use crate::ChangeRefusal;
use crate::content::encode;
use crate::entry::{EntryKind, MediaRef};
use crate::group::{Group, Role};

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

    fn permit(&self, group: &Group, _: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        at_least(role, group.policy.edit_role)?;
        Ok(if group.picture == self.0.map(|picture| picture.media) {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::SetPicture(self.0))
        })
    }

    fn apply(&self, group: &mut Group, _: Seq) {
        group.picture = self.0.map(|picture| picture.media);
    }

    fn media(&self) -> Vec<MediaRef> {
        self.0.into_iter().collect()
    }
}
