//! Tells who is in a chat and whom a message can reach, whether the user may write, and which of the user's messages
//! were refused.

use tern_client::{Entry, Mark, QueuedMessage, SendState};
use tern_proto::v1::{ChatKind, Role, entry_content::Content};
use tern_types::{ChatId, RequestId, UserId};

use super::{Room, View};

impl Room {
    /// Returns how many members there are beside the user `me`, which is how many a message can reach. A user who has
    /// left is not among the members.
    pub(super) fn others(&self, me: UserId) -> usize {
        if !self.members.is_empty() {
            return self.members.iter().filter(|user| **user != me).count();
        }
        let Some(chat) = &self.chat else { return 1 };
        let members = usize::try_from(chat.member_count).unwrap_or(usize::MAX);
        members.saturating_sub(usize::from(!chat.left))
    }

    /// Returns the marks of the other members. People who have left do not count.
    pub(super) fn marks_of_others(&self, me: UserId) -> impl Iterator<Item = (UserId, Mark)> {
        let counts =
            move |user: &UserId| *user != me && (self.members.is_empty() || self.members.contains(user));
        let marks = self.marks.iter().map(|(user, mark)| (*user, *mark));
        marks.filter(move |(user, _)| counts(user))
    }

    /// Updates the members by an entry that has just come. Older entries must not be given: they say nothing of the
    /// present members.
    pub(super) fn members_changed(&mut self, entry: &Entry) {
        let Some(content) = &entry.content.content else {
            return;
        };
        match content {
            // If no members are loaded yet, this entry would name only some of them; all are loaded later.
            Content::MembersAdded(added) if !self.members.is_empty() => {
                let added = added.user_ids.iter().filter_map(|id| id.parse::<UserId>().ok());
                self.members.extend(added);
            }
            Content::MemberRemoved(removed) => {
                if let Ok(user) = removed.user_id.parse::<UserId>() {
                    self.members.remove(&user);
                    self.marks.remove(&user);
                    self.typing.remove(&user);
                }
            }
            _ => {}
        }
    }
}

impl View {
    /// Returns why the user can do nothing in this chat, or `None` if they can.
    pub fn closed(&self, chat: ChatId) -> Option<&'static str> {
        let chat = self.rooms.get(&chat)?.chat.as_ref()?;
        if chat.left && chat.kind != ChatKind::Self_ {
            return Some("you are not in this group any more");
        }
        chat.frozen.then_some("the operator froze this chat")
    }

    /// Returns why the user cannot write in this chat, or `None` if they can. Who cannot write may still react.
    pub fn silent(&self, chat: ChatId) -> Option<&'static str> {
        let closed = self.closed(chat);
        let known = self.rooms.get(&chat)?.chat.as_ref()?;
        let only = match known.policy.send_role() {
            Role::Unspecified | Role::Member => return closed,
            Role::Admin => "only admins write here",
            Role::Owner => "only owners write here",
        };
        let may = known.kind != ChatKind::Group || known.role >= known.policy.send_role();
        closed.or_else(|| (!may).then_some(only))
    }

    /// Returns the refused message that is the `nth` from the end, counted from 1.
    pub fn failed(&self, chat: ChatId, nth: usize) -> Option<&QueuedMessage> {
        let queued = self.rooms.get(&chat)?.queued.iter().rev();
        let mut failed = queued.filter(|queued| matches!(queued.state, SendState::Failed { .. }));
        failed.nth(nth.checked_sub(1)?)
    }

    /// Removes a message that will not be sent.
    pub fn forget(&mut self, chat: ChatId, request: RequestId) {
        let queued = &mut self.room(chat).queued;
        queued.retain(|queued| queued.message.request != request);
    }
}
