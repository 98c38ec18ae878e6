//! Changes of a group: who may make them, and what they do to its members.

use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{RequestId, UserId};

use super::Refusal;
use super::chat::{Chat, ChatKind, Role};
use super::entry::{EntryKind, Fingerprint};

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// [`UserId::SYSTEM`]: the back end in nobody's name, which may do everything.
    pub actor: UserId,
    pub device: tern_types::DeviceId,
    pub request: RequestId,
    pub fingerprint: Fingerprint,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Add(Vec<UserId>),
    /// Removing oneself is leaving.
    Remove(UserId),
    SetRole(UserId, Role),
    SetTitle(String),
}

/// What a permitted change comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permitted {
    /// The group is like that already.
    Nothing,
    /// Becomes an entry.
    Entry(Action),
}

impl Action {
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Add(_) => EntryKind::MembersAdded,
            Self::Remove(_) => EntryKind::MemberRemoved,
            Self::SetRole(..) => EntryKind::RoleChanged,
            Self::SetTitle(_) => EntryKind::ChatUpdated,
        }
    }
}

/// Whether `change` may be made to `chat` as it is now.
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
            let same = chat.title() == title;
            Ok(if same {
                Permitted::Nothing
            } else {
                Permitted::Entry(change.action.clone())
            })
        }
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
    let Some(member) = chat.member(user) else {
        return Ok(Permitted::Nothing);
    };
    if actor != user {
        at_least(role, Role::Admin)?;
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
