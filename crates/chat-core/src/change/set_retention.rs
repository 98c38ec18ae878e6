//! The action that changes how long the server keeps a chat's messages, and whether they disappear. In a direct chat
//! either of the two may do it, in a group whoever has the role that its policy names.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use super::{Action, Permitted, Rules, at_least};
use crate::ChangeRefusal;
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{ChatKind, Group, Role};
use crate::retention::Retention;

pub(super) struct SetRetention(pub Retention);

impl Rules for SetRetention {
    fn kind(&self) -> EntryKind {
        EntryKind::ChatUpdated
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::RetentionChanged(v1::RetentionChanged {
            retention: Some(self.0.to_wire()),
        }))
    }

    fn is_for_groups(&self) -> bool {
        false
    }

    fn permit(&self, group: &Group, _: UserId, role: Role) -> Result<Permitted, ChangeRefusal> {
        if group.kind == ChatKind::Group {
            at_least(role, group.policy.edit_role)?;
        }
        Ok(if group.retention == self.0 {
            Permitted::Nothing
        } else {
            Permitted::Entry(Action::SetRetention(self.0))
        })
    }

    fn apply(&self, group: &mut Group, _: Seq) {
        group.retention = self.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::Mode;

    const NEW: Retention = Retention {
        mode: Mode::UntilDelivered,
        disappear_after_s: 60,
    };

    #[test]
    fn either_of_two_people_may_change_it_and_of_a_group_an_admin_may() {
        let too_low = Err(ChangeRefusal::RoleTooLow);
        let cases = [
            (ChatKind::Direct, Role::Member, Ok(())),
            (ChatKind::Group, Role::Member, too_low),
            (ChatKind::Group, Role::Admin, Ok(())),
            (ChatKind::Group, Role::Owner, Ok(())),
        ];
        for (kind, role, expected) in cases {
            let mut group = Group {
                kind,
                ..Group::default()
            };
            let permit = |group: &Group| SetRetention(NEW).permit(group, UserId::random(), role);
            let expected = expected.map(|()| Permitted::Entry(Action::SetRetention(NEW)));
            assert_eq!(permit(&group), expected, "{role:?} of a {kind:?}");
            if expected.is_ok() {
                SetRetention(NEW).apply(&mut group, Seq(7));
                assert_eq!(group.retention, NEW);
                assert_eq!(permit(&group), Ok(Permitted::Nothing), "it is so already");
            }
        }
    }
}
