//! The action by which a user joins a group by an invite link. Whoever has shown the link's token may, so the actor is
//! no member yet. Whether the link is in force is known to the store only, which refuses the change if it is not.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{InviteId, Seq, UserId};

use super::{Action, Permitted, Rules, add};
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};
use crate::{ChangeRefusal, Refusal};

pub(super) struct Join {
    pub invite: InviteId,
    pub user: UserId,
}

impl Rules for Join {
    fn kind(&self) -> EntryKind {
        EntryKind::MembersAdded
    }

    fn content(&self, _: UserId) -> Bytes {
        encode(Content::MembersAdded(v1::MembersAdded {
            user_ids: vec![self.user.to_string()],
            ..Default::default()
        }))
    }

    fn content_at(&self, _: UserId, group: &Group, seq: Seq) -> Bytes {
        add::of_joining(&[self.user], group, seq)
    }

    fn is_for_strangers(&self) -> bool {
        true
    }

    fn permit(&self, group: &Group, actor: UserId, _: Role) -> Result<Permitted, ChangeRefusal> {
        if actor == UserId::SYSTEM {
            return Err(Refusal::NotAMember.into());
        }
        if group.member(actor).is_some() {
            return Ok(Permitted::Nothing);
        }
        // A group with members has an owner, and nobody is there who could be it.
        if group.members.is_empty() {
            return Err(ChangeRefusal::InviteNotFound);
        }
        if group.members.len() >= MAX_GROUP_MEMBERS {
            return Err(ChangeRefusal::GroupFull);
        }
        Ok(Permitted::Entry(Action::Join {
            invite: self.invite,
            user: actor,
        }))
    }

    fn apply(&self, group: &mut Group, seq: Seq) {
        group.join(self.user, seq);
        // The entry is the new member's own.
        if let Some(member) = group.members.get_mut(&self.user) {
            member.last_sent = seq;
        }
        debug_assert!(group.members.len() <= MAX_GROUP_MEMBERS);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tern_types::{DeviceId, RequestId};
    use uuid::Uuid;

    use super::*;
    use crate::change::{Change, permit};
    use crate::entry::Sending;
    use crate::group::{ChatKind, Member};

    const INVITE: InviteId = InviteId(Uuid::from_u128(7));

    fn user(n: usize) -> UserId {
        UserId(Uuid::from_u128(n as u128))
    }

    fn join(user: UserId) -> Action {
        let invite = INVITE;
        Action::Join { invite, user }
    }

    /// Makes a chat whose members are the users 1 to `members`.
    fn chat(kind: ChatKind, members: usize) -> Group {
        let members = (1..=members).map(|n| (user(n), Member::joined_at(Seq(1))));
        Group {
            kind,
            members: members.collect(),
            ..Group::default()
        }
    }

    fn asked(group: &Group, actor: UserId) -> Result<Permitted, ChangeRefusal> {
        let change = Change {
            actor,
            device: DeviceId::BACK_END,
            request: RequestId(Uuid::nil()),
            fingerprint: [0; 16],
            action: join(actor),
            sending: Sending::default(),
        };
        permit(group, &change)
    }

    #[test]
    fn whoever_is_no_member_joins_a_group_that_has_room() {
        let most = MAX_GROUP_MEMBERS;
        let joins = |n| Ok(Permitted::Entry(join(user(n))));
        let cases: [(ChatKind, usize, UserId, Result<Permitted, ChangeRefusal>); 9] = [
            (ChatKind::Group, 2, user(9), joins(9)),
            (ChatKind::Group, 0, user(9), Err(ChangeRefusal::InviteNotFound)),
            (ChatKind::Group, 2, user(2), Ok(Permitted::Nothing)),
            (ChatKind::Group, most - 1, user(5000), joins(5000)),
            (ChatKind::Group, most, user(5000), Err(ChangeRefusal::GroupFull)),
            (ChatKind::Group, most, user(1), Ok(Permitted::Nothing)),
            (ChatKind::Direct, 2, user(9), Err(ChangeRefusal::NotAGroup)),
            (ChatKind::Direct, 2, user(1), Err(ChangeRefusal::NotAGroup)),
            (
                ChatKind::Group,
                2,
                UserId::SYSTEM,
                Err(Refusal::NotAMember.into()),
            ),
        ];
        for (kind, members, actor, expected) in cases {
            let actual = asked(&chat(kind, members), actor);
            assert_eq!(actual, expected, "{actor} into {kind:?} of {members}");
        }
    }

    #[test]
    fn who_joins_is_a_member_from_the_entry_on_and_has_sent_it() {
        let mut group = chat(ChatKind::Group, 2);
        join(user(9)).apply(&mut group, Seq(7));
        let expected = Member {
            last_sent: Seq(7),
            ..Member::joined_at(Seq(7))
        };
        assert_eq!(group.member(user(9)), Some(&expected));
        let content = v1::EntryContent::decode(join(user(9)).content(user(9))).unwrap();
        let added = v1::MembersAdded {
            user_ids: vec![user(9).to_string()],
            ..Default::default()
        };
        assert_eq!(content.content, Some(Content::MembersAdded(added)));
    }
}
