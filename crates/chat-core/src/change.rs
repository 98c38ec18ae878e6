//! Changes of a chat: the rules for who may make which change, and how each changes the chat. Each action has its
//! rules in a file of its own, and [`Action::rules`] names them all.

mod add;
mod freeze;
mod hand_over;
mod join;
pub mod own;
mod remove;
#[cfg(test)]
mod run_tests;
mod set_description;
mod set_picture;
mod set_policy;
mod set_retention;
mod set_role;
mod set_title;
mod succeed;

use std::cmp::Reverse;

use bytes::Bytes;
use tern_types::{InviteId, RequestId, Seq, UserId};

use super::entry::{EntryKind, Fingerprint, MediaRef, NewEntry, Sending};
use super::group::{ChatKind, Group, Role};
use super::policy::Policy;
use super::retention::Retention;
use super::{ChangeRefusal, Refusal};

/// A change of a group that a member or a back end asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The user who makes the change. [`UserId::SYSTEM`] stands for a back end that acts for no user; it may
    /// do what an owner may.
    pub actor: UserId,
    /// The device that asks, or `DeviceId::BACK_END`.
    pub device: tern_types::DeviceId,
    /// The request that asks for the change (rule 5).
    pub request: RequestId,
    /// The fingerprint of that request.
    pub fingerprint: Fingerprint,
    /// The effect on the group.
    pub action: Action,
    /// The facts about its sending. For a unary call they are the default.
    pub sending: Sending,
}

impl Change {
    /// Returns the entry at `seq` that the change becomes. `action` is what is permitted of the change's action, and
    /// `group` is as it was when that was decided.
    pub(crate) fn entry(&self, action: &Action, group: &Group, seq: Seq) -> NewEntry {
        let (kind, content) = (action.kind(), action.content_at(self.actor, group, seq));
        NewEntry {
            media: action.media(),
            sending: self.sending.clone(),
            ..NewEntry::change(
                kind,
                self.actor,
                self.device,
                self.request,
                self.fingerprint,
                content,
            )
        }
    }
}

/// The effect of a change on the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Adds these users as members with the role [`Role::Member`].
    Add(Vec<UserId>),
    /// Removes a member. An actor who removes themselves leaves the group.
    Remove(UserId),
    /// Gives a member another role.
    SetRole(UserId, Role),
    /// Sets the title.
    SetTitle(String),
    /// Sets the picture, which the actor's ticket names. `None` removes the picture.
    SetPicture(Option<MediaRef>),
    /// Makes the actor, who is no member yet, one by an invite link.
    Join {
        /// The link, whose token the actor has shown.
        invite: InviteId,
        /// The actor.
        user: UserId,
    },
    /// Sets the description.
    SetDescription(String),
    /// Sets the policy.
    SetPolicy(Policy),
    /// Freezes the chat, or ends that.
    Freeze(bool),
    /// Makes a member an owner, and the owner who asks for it an admin.
    HandOver {
        /// The owner, who is the actor.
        from: UserId,
        /// The member.
        to: UserId,
    },
    /// Removes the last owner, whom another member follows. Nobody asks for it: `Remove` becomes this.
    Succeed {
        /// The last owner.
        owner: UserId,
        /// The member who is the owner from then on.
        heir: UserId,
    },
    /// Sets how long messages are kept, and whether they disappear.
    SetRetention(Retention),
    /// Writes a user's own log.
    Own(Box<own::OwnChange>),
    /// Stands for the actions of chats of every kind, in tests.
    #[cfg(test)]
    OfEveryKind,
}

/// The result of a permitted change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permitted {
    /// The group is in that state already, so there is no entry.
    Nothing,
    /// The action becomes an entry. `Add` names only the users who are not members yet, and `Remove` of the last owner
    /// is [`Action::Succeed`].
    Entry(Action),
}

/// The rules of one action.
trait Rules {
    /// Returns the kind of the entry that the action becomes.
    fn kind(&self) -> EntryKind;

    /// Returns the content of that entry, an encoded `tern.v1.EntryContent`, if `actor` makes the change. It depends on
    /// nothing but the action, so that a repeated request has the same.
    fn content(&self, actor: UserId) -> Bytes;

    /// Returns the content of the entry at `seq`, with what follows from the group as it was when the change was
    /// permitted.
    fn content_at(&self, actor: UserId, _group: &Group, _seq: Seq) -> Bytes {
        self.content(actor)
    }

    /// Returns whether `actor` may make the change while the chat is frozen.
    fn is_possible_while_frozen(&self, _actor: UserId) -> bool {
        false
    }

    /// Returns whether only groups may be changed in this way.
    fn is_for_groups(&self) -> bool {
        true
    }

    /// Returns whether somebody who is no member may make the change. Their role is then [`Role::Member`].
    fn is_for_strangers(&self) -> bool {
        false
    }

    /// Returns whether the change is one of own logs, which no other chat has.
    fn is_for_own_logs(&self) -> bool {
        false
    }

    /// Decides whether `actor`, who has this role, may make the change to the group as it is now. `Err` says why not.
    fn permit(&self, group: &Group, actor: UserId, role: Role) -> Result<Permitted, ChangeRefusal>;

    /// Changes the group, once the entry is committed at `seq`.
    fn apply(&self, group: &mut Group, seq: Seq);

    /// Returns roughly the bytes that the action takes in memory, besides its fixed size.
    fn bytes(&self) -> usize {
        0
    }

    /// Returns the media that the action's entry refers to.
    fn media(&self) -> Vec<MediaRef> {
        Vec::new()
    }
}

impl Action {
    /// Calls `ask` with the rules of this action, and returns its result.
    fn rules<T>(&self, ask: impl FnOnce(&dyn Rules) -> T) -> T {
        match self {
            Self::Add(users) => ask(&add::Add(users)),
            Self::Remove(user) => ask(&remove::Remove(*user)),
            Self::SetRole(user, role) => ask(&set_role::SetRole(*user, *role)),
            Self::SetTitle(title) => ask(&set_title::SetTitle(title)),
            Self::SetPicture(picture) => ask(&set_picture::SetPicture(*picture)),
            Self::Join { invite, user } => ask(&join::Join {
                invite: *invite,
                user: *user,
            }),
            Self::SetDescription(text) => ask(&set_description::SetDescription(text)),
            Self::SetPolicy(policy) => ask(&set_policy::SetPolicy(*policy)),
            Self::Freeze(frozen) => ask(&freeze::Freeze(*frozen)),
            Self::HandOver { from, to } => ask(&hand_over::HandOver { from: *from, to: *to }),
            Self::Succeed { owner, heir } => ask(&succeed::Succeed {
                owner: *owner,
                heir: *heir,
            }),
            Self::SetRetention(retention) => ask(&set_retention::SetRetention(*retention)),
            Self::Own(change) => ask(&own::Own(change)),
            #[cfg(test)]
            Self::OfEveryKind => ask(&tests::OfEveryKind),
        }
    }

    /// Returns roughly the bytes that the action takes in memory, besides its fixed size.
    pub fn bytes(&self) -> usize {
        self.rules(|rules| rules.bytes())
    }

    /// Returns the kind of the entry that the action becomes.
    pub fn kind(&self) -> EntryKind {
        self.rules(|rules| rules.kind())
    }

    /// Returns the content of the entry that the action becomes when `actor` makes the change: an encoded
    /// `tern.v1.EntryContent`, without what only the chat's owner knows.
    pub fn content(&self, actor: UserId) -> Bytes {
        self.rules(|rules| rules.content(actor))
    }

    /// Returns the content of the entry at `seq` that the action becomes, whole.
    fn content_at(&self, actor: UserId, group: &Group, seq: Seq) -> Bytes {
        self.rules(|rules| rules.content_at(actor, group, seq))
    }

    /// Returns whether the action ends somebody's membership.
    pub(crate) fn removes(&self) -> bool {
        matches!(self, Self::Remove(_) | Self::Succeed { .. })
    }

    /// Returns the media that the action's entry refers to.
    pub fn media(&self) -> Vec<MediaRef> {
        self.rules(|rules| rules.media())
    }

    /// Changes the group, once the action's entry is committed at `seq`.
    pub(crate) fn apply(&self, group: &mut Group, seq: Seq) {
        self.rules(|rules| {
            debug_assert!(
                group.kind == ChatKind::Group || !rules.is_for_groups(),
                "a change of a group"
            );
            rules.apply(group, seq);
        });
    }
}

/// Decides whether `change` may be made to the group as it is now. `Err` says why not.
pub(crate) fn permit(group: &Group, change: &Change) -> Result<Permitted, ChangeRefusal> {
    let role = if change.actor == UserId::SYSTEM {
        Role::Owner
    } else {
        match group.member(change.actor) {
            Some(member) => member.role,
            None if change.action.rules(|rules| rules.is_for_strangers()) => Role::Member,
            None => return Err(Refusal::NotAMember.into()),
        }
    };
    change.action.rules(|rules| {
        if rules.is_for_groups() && group.kind != ChatKind::Group {
            return Err(ChangeRefusal::NotAGroup);
        }
        if rules.is_for_own_logs() != (group.kind == ChatKind::Own) {
            return Err(ChangeRefusal::NotAGroup);
        }
        if group.frozen && change.actor != UserId::SYSTEM && !rules.is_possible_while_frozen(change.actor) {
            return Err(Refusal::Frozen.into());
        }
        rules.permit(group, change.actor, role)
    })
}

/// Refuses a role that may do less than `needed`.
fn at_least(role: Role, needed: Role) -> Result<(), ChangeRefusal> {
    if role >= needed {
        Ok(())
    } else {
        Err(ChangeRefusal::RoleTooLow)
    }
}

/// Returns whether `role`, which a member has, is that of the group's only owner.
fn is_last_owner(group: &Group, role: Role) -> bool {
    let owners = group.members.values().filter(|member| member.role == Role::Owner);
    role == Role::Owner && owners.count() == 1
}

/// Returns the member who becomes the owner if `owner`, the last one, goes: the admin who has been a member for the
/// longest time or, if there is no admin, that member. Of those who joined by the same entry it is the one with the
/// lowest id. `None` if nobody else is a member.
fn heir(group: &Group, owner: UserId) -> Option<UserId> {
    let others = group.members.iter().filter(|(user, _)| **user != owner);
    let first = others.min_by_key(|(user, member)| (Reverse(member.role), member.joined, **user));
    first.map(|(user, _)| *user)
}

#[cfg(test)]
mod tests {
    use tern_types::{DeviceId, MediaId, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::group::Member;

    /// The rules of [`Action::OfEveryKind`], which every member may do.
    pub(super) struct OfEveryKind;

    impl Rules for OfEveryKind {
        fn kind(&self) -> EntryKind {
            EntryKind::ChatUpdated
        }

        fn content(&self, _: UserId) -> Bytes {
            Bytes::new()
        }

        fn is_for_groups(&self) -> bool {
            false
        }

        fn permit(&self, _: &Group, _: UserId, _: Role) -> Result<Permitted, ChangeRefusal> {
            Ok(Permitted::Entry(Action::OfEveryKind))
        }

        fn apply(&self, group: &mut Group, _: Seq) {
            group.title = "of every kind".into();
        }
    }

    const NOT_A_MEMBER: ChangeRefusal = ChangeRefusal::Common(Refusal::NotAMember);

    pub(super) fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    /// Makes a chat in which user 1 is the owner, 2 an admin, and 3 and 4 are members; 9 is not in it.
    pub(super) fn chat(kind: ChatKind) -> Group {
        let roles = [Role::Owner, Role::Admin, Role::Member, Role::Member];
        let members = roles.into_iter().zip(1..).map(|(role, n)| {
            let member = Member {
                role,
                ..Member::joined_at(Seq(1))
            };
            (user(n), member)
        });
        Group {
            kind,
            title: "old".into(),
            picture: Some(media(1).media),
            members: members.collect(),
            ..Group::default()
        }
    }

    pub(super) fn media(n: u128) -> MediaRef {
        MediaRef {
            media: MediaId(Uuid::from_u128(n)),
            expires_at: Timestamp(n as i64),
        }
    }

    pub(super) fn asked(chat: &Group, actor: UserId, action: Action) -> Result<Permitted, ChangeRefusal> {
        let request = RequestId(Uuid::nil());
        permit(
            chat,
            &Change {
                actor,
                device: DeviceId::BACK_END,
                request,
                fingerprint: [0; 16],
                action,
                sending: Sending::default(),
            },
        )
    }

    #[test]
    fn roles_allow_what_they_say() {
        let title = || Action::SetTitle("new".into());
        let picture = || Action::SetPicture(Some(media(2)));
        let cases: [(u128, Action, Result<(), ChangeRefusal>); 21] = [
            (1, title(), Ok(())),
            (2, title(), Ok(())),
            (3, title(), Err(ChangeRefusal::RoleTooLow)),
            (9, title(), Err(NOT_A_MEMBER)),
            (2, picture(), Ok(())),
            (2, Action::SetPicture(None), Ok(())),
            (3, picture(), Err(ChangeRefusal::RoleTooLow)),
            (9, picture(), Err(NOT_A_MEMBER)),
            (2, Action::Add(vec![user(9)]), Ok(())),
            (3, Action::Add(vec![user(9)]), Err(ChangeRefusal::RoleTooLow)),
            (2, Action::Remove(user(3)), Ok(())),
            (2, Action::Remove(user(1)), Err(ChangeRefusal::RoleTooLow)),
            (3, Action::Remove(user(4)), Err(ChangeRefusal::RoleTooLow)),
            (3, Action::Remove(user(9)), Err(ChangeRefusal::RoleTooLow)),
            (3, Action::Remove(user(3)), Ok(())),
            (1, Action::Remove(user(1)), Ok(())),
            (1, Action::SetRole(user(3), Role::Owner), Ok(())),
            (
                1,
                Action::SetRole(user(1), Role::Member),
                Err(ChangeRefusal::LastOwner),
            ),
            (
                2,
                Action::SetRole(user(3), Role::Admin),
                Err(ChangeRefusal::RoleTooLow),
            ),
            (
                1,
                Action::SetRole(user(9), Role::Admin),
                Err(ChangeRefusal::UserNotFound(user(9))),
            ),
            (0, Action::Remove(user(3)), Ok(())),
        ];
        let chat = chat(ChatKind::Group);
        for (actor, action, expected) in cases {
            let actual = asked(&chat, user(actor), action.clone());
            assert_eq!(actual.clone().map(drop), expected, "{actor}: {action:?}");
            assert_ne!(actual, Ok(Permitted::Nothing), "{actor}: {action:?}");
        }
    }

    #[test]
    fn what_is_so_already_becomes_no_entry() {
        let chat = chat(ChatKind::Group);
        for action in [
            Action::Add(vec![user(2), user(3)]),
            Action::Remove(user(9)),
            Action::SetRole(user(2), Role::Admin),
            Action::SetTitle("old".into()),
            Action::SetPicture(Some(media(1))),
        ] {
            assert_eq!(
                asked(&chat, user(1), action.clone()),
                Ok(Permitted::Nothing),
                "{action:?}"
            );
        }
        let both = Action::Add(vec![user(9), user(2), user(9)]);
        assert_eq!(
            asked(&chat, user(1), both),
            Ok(Permitted::Entry(Action::Add(vec![user(9)])))
        );
    }

    #[test]
    fn a_group_has_1024_members_at_most() {
        let chat = chat(ChatKind::Group);
        let users = |count: u128| Action::Add((100..100 + count).map(user).collect());
        assert!(asked(&chat, user(1), users(1020)).is_ok());
        assert_eq!(asked(&chat, user(1), users(1021)), Err(ChangeRefusal::GroupFull));
    }

    #[test]
    fn only_groups_change() {
        let chat = chat(ChatKind::Direct);
        let title = Action::SetTitle("new".into());
        assert_eq!(
            asked(&chat, user(1), title.clone()),
            Err(ChangeRefusal::NotAGroup)
        );
        assert_eq!(asked(&chat, user(9), title), Err(NOT_A_MEMBER));
    }

    #[test]
    fn an_own_log_has_changes_of_its_own() {
        let note = || Action::Own(Box::new(own::OwnChange::Note(Bytes::new())));
        let title = Action::SetTitle("new".into());
        for (kind, action, refused) in [
            (ChatKind::Own, title, true),
            (ChatKind::Own, Action::OfEveryKind, true),
            (ChatKind::Own, note(), false),
            (ChatKind::Direct, note(), true),
            (ChatKind::Group, note(), true),
        ] {
            let permitted = asked(&chat(kind), UserId::SYSTEM, action.clone());
            let not_a_group = permitted == Err(ChangeRefusal::NotAGroup);
            assert_eq!(not_a_group, refused, "{action:?} in {kind:?}: {permitted:?}");
        }
    }

    #[test]
    fn an_action_of_every_kind_of_chat_changes_a_direct_chat_too() {
        for kind in [ChatKind::Direct, ChatKind::Group] {
            let (mut chat, action) = (chat(kind), Action::OfEveryKind);
            assert_eq!(
                asked(&chat, user(3), action.clone()),
                Ok(Permitted::Entry(action.clone()))
            );
            assert_eq!(asked(&chat, user(9), action.clone()), Err(NOT_A_MEMBER));
            action.apply(&mut chat, Seq(7));
            assert_eq!(chat.title, "of every kind", "{kind:?}");
        }
    }
}
