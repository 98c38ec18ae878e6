//! Changes of a group: who may make which, and how they change its members.

use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{RequestId, UserId};

use super::Refusal;
use super::chat::{Chat, ChatKind, Role};
use super::entry::{EntryKind, Fingerprint, MediaRef};

/// A change of a group that a member or a back end asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The user who makes the change. [`UserId::SYSTEM`] stands for a back end that acts for no user; it may make any
    /// change.
    pub actor: UserId,
    pub device: tern_types::DeviceId,
    pub request: RequestId,
    pub fingerprint: Fingerprint,
    pub action: Action,
}

/// What a change does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Add(Vec<UserId>),
    /// Removes a member. An actor who removes themselves leaves the group.
    Remove(UserId),
    SetRole(UserId, Role),
    SetTitle(String),
    /// Sets the picture, which the actor's ticket names. `None` removes the picture.
    SetPicture(Option<MediaRef>),
}

/// The result of a permitted change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permitted {
    /// The group is in that state already, so there is no entry.
    Nothing,
    /// The action becomes an entry. `Add` names only the users who are not members yet.
    Entry(Action),
}

impl Action {
    /// Roughly the bytes that the action takes in memory, besides its fixed size.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Add(users) => std::mem::size_of_val(users.as_slice()),
            Self::SetTitle(title) => title.len(),
            Self::Remove(_) | Self::SetRole(..) | Self::SetPicture(_) => 0,
        }
    }

    /// The kind of the entry that the action becomes.
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Add(_) => EntryKind::MembersAdded,
            Self::Remove(_) => EntryKind::MemberRemoved,
            Self::SetRole(..) => EntryKind::RoleChanged,
            Self::SetTitle(_) | Self::SetPicture(_) => EntryKind::ChatUpdated,
        }
    }

    /// The media that the action's entry refers to.
    pub fn media(&self) -> Vec<MediaRef> {
        match self {
            Self::SetPicture(picture) => picture.iter().copied().collect(),
            Self::Add(_) | Self::Remove(_) | Self::SetRole(..) | Self::SetTitle(_) => Vec::new(),
        }
    }
}

/// Decides whether `change` may be made to `chat` as it is now. `Err` says why not.
pub fn permit(chat: &Chat, change: &Change) -> Result<Permitted, Refusal> {
    if chat.kind() != ChatKind::Group {
        return if is_member(chat, change.actor) {
            Err(Refusal::NotAGroup)
        } else {
            Err(Refusal::NotAMember)
        };
    }
    let role = if change.actor == UserId::SYSTEM {
        Role::Owner
    } else {
        chat.member(change.actor).ok_or(Refusal::NotAMember)?.role
    };
    match &change.action {
        Action::Add(users) => add(chat, role, users),
        Action::Remove(user) => remove(chat, role, change.actor, *user),
        Action::SetRole(user, to) => set_role(chat, role, *user, *to),
        Action::SetTitle(title) => {
            at_least(role, Role::Admin)?;
            Ok(unless(chat.title() == title, change))
        }
        Action::SetPicture(picture) => {
            at_least(role, Role::Admin)?;
            let same = chat.picture() == picture.map(|picture| picture.media);
            Ok(unless(same, change))
        }
    }
}

fn unless(same: bool, change: &Change) -> Permitted {
    if same {
        Permitted::Nothing
    } else {
        Permitted::Entry(change.action.clone())
    }
}

fn add(chat: &Chat, role: Role, users: &[UserId]) -> Result<Permitted, Refusal> {
    at_least(role, Role::Admin)?;
    let mut new: Vec<UserId> = users
        .iter()
        .copied()
        .filter(|user| chat.member(*user).is_none())
        .collect();
    new.sort_unstable();
    new.dedup();
    if chat.member_count() + new.len() > MAX_GROUP_MEMBERS {
        return Err(Refusal::GroupFull);
    }
    Ok(if new.is_empty() {
        Permitted::Nothing
    } else {
        Permitted::Entry(Action::Add(new))
    })
}

fn remove(chat: &Chat, role: Role, actor: UserId, user: UserId) -> Result<Permitted, Refusal> {
    if actor != user {
        at_least(role, Role::Admin)?;
    }
    let Some(member) = chat.member(user) else {
        return Ok(Permitted::Nothing);
    };
    if actor != user {
        at_least(role, member.role)?;
    }
    if member.role == Role::Owner && owners(chat) == 1 && chat.member_count() > 1 {
        return Err(Refusal::LastOwner);
    }
    Ok(Permitted::Entry(Action::Remove(user)))
}

fn set_role(chat: &Chat, role: Role, user: UserId, to: Role) -> Result<Permitted, Refusal> {
    at_least(role, Role::Owner)?;
    let member = chat.member(user).ok_or(Refusal::UserNotFound(user))?;
    if member.role == to {
        return Ok(Permitted::Nothing);
    }
    if member.role == Role::Owner && owners(chat) == 1 {
        return Err(Refusal::LastOwner);
    }
    Ok(Permitted::Entry(Action::SetRole(user, to)))
}

fn at_least(role: Role, needed: Role) -> Result<(), Refusal> {
    if role >= needed {
        Ok(())
    } else {
        Err(Refusal::RoleTooLow)
    }
}

fn owners(chat: &Chat) -> usize {
    chat.members()
        .filter(|(_, member)| member.role == Role::Owner)
        .count()
}

fn is_member(chat: &Chat, user: UserId) -> bool {
    user == UserId::SYSTEM || chat.member(user).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tern_types::{ChatId, DeviceId, MediaId, Seq, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::chat::{ChatKey, Member, Snapshot};
    use crate::receipts::Watermark;

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    /// User 1 is the owner, 2 an admin, 3 and 4 are members; 9 is not in the group.
    fn chat(kind: ChatKind) -> Chat {
        let roles = [Role::Owner, Role::Admin, Role::Member, Role::Member];
        let members = roles.into_iter().zip(1..).map(|(role, n)| {
            let member = Member {
                role,
                joined: Seq(1),
                last_sent: Seq::ZERO,
                own_unread: 0,
            };
            (user(n), member, Watermark::default())
        });
        let mut chat = Chat::loading(ChatId(Uuid::nil()), Timestamp(0));
        let answers = chat.load(Snapshot {
            kind,
            title: "old".into(),
            picture: Some(media(1).media),
            key: ChatKey(Arc::new([0; 32])),
            head: Seq(1),
            ordinal: 0,
            members: members.collect(),
            unsettled: None,
            placed: Vec::new(),
            looked_up: Vec::new(),
            blocked: false,
            last_sent_at: Timestamp(0),
        });
        assert!(answers.is_empty());
        chat
    }

    fn media(n: u128) -> MediaRef {
        MediaRef {
            media: MediaId(Uuid::from_u128(n)),
            expires_at: Timestamp(n as i64),
        }
    }

    fn asked(chat: &Chat, actor: UserId, action: Action) -> Result<Permitted, Refusal> {
        let request = RequestId(Uuid::nil());
        permit(
            chat,
            &Change {
                actor,
                device: DeviceId::BACK_END,
                request,
                fingerprint: [0; 16],
                action,
            },
        )
    }

    #[test]
    fn roles_allow_what_they_say() {
        let title = || Action::SetTitle("new".into());
        let picture = || Action::SetPicture(Some(media(2)));
        let cases: [(u128, Action, Result<(), Refusal>); 21] = [
            (1, title(), Ok(())),
            (2, title(), Ok(())),
            (3, title(), Err(Refusal::RoleTooLow)),
            (9, title(), Err(Refusal::NotAMember)),
            (2, picture(), Ok(())),
            (2, Action::SetPicture(None), Ok(())),
            (3, picture(), Err(Refusal::RoleTooLow)),
            (9, picture(), Err(Refusal::NotAMember)),
            (2, Action::Add(vec![user(9)]), Ok(())),
            (3, Action::Add(vec![user(9)]), Err(Refusal::RoleTooLow)),
            (2, Action::Remove(user(3)), Ok(())),
            (2, Action::Remove(user(1)), Err(Refusal::RoleTooLow)),
            (3, Action::Remove(user(4)), Err(Refusal::RoleTooLow)),
            (3, Action::Remove(user(9)), Err(Refusal::RoleTooLow)),
            (3, Action::Remove(user(3)), Ok(())),
            (1, Action::Remove(user(1)), Err(Refusal::LastOwner)),
            (1, Action::SetRole(user(3), Role::Owner), Ok(())),
            (1, Action::SetRole(user(1), Role::Member), Err(Refusal::LastOwner)),
            (2, Action::SetRole(user(3), Role::Admin), Err(Refusal::RoleTooLow)),
            (
                1,
                Action::SetRole(user(9), Role::Admin),
                Err(Refusal::UserNotFound(user(9))),
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
        assert_eq!(asked(&chat, user(1), users(1021)), Err(Refusal::GroupFull));
    }

    #[test]
    fn only_groups_change() {
        let chat = chat(ChatKind::Direct);
        let title = Action::SetTitle("new".into());
        assert_eq!(asked(&chat, user(1), title.clone()), Err(Refusal::NotAGroup));
        assert_eq!(asked(&chat, user(9), title), Err(Refusal::NotAMember));
    }
}
