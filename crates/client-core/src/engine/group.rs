//! This module follows how entries change a group: description, policy, retention, whether it is frozen, and the roles
//! that change together with something else.

use tern_proto::v1::{Role, entry_content::Content};
use tern_types::{ChatId, Seq, UserId};

use super::Engine;
use super::chat_state::ChatState;
use crate::model::Entry;

impl ChatState {
    /// Updates the chat from an applied entry, besides what [`ChatState::absorb`] does. `me` is this person.
    pub(super) fn absorb_group(&mut self, entry: &Entry, me: UserId) {
        let my_id = me.to_string();
        let chat = &mut self.row.chat;
        match &entry.content.content {
            Some(Content::ChatDescriptionChanged(changed)) => {
                chat.description.clone_from(&changed.description);
            }
            Some(Content::GroupPolicyChanged(changed)) => chat.policy = changed.policy.unwrap_or_default(),
            Some(Content::ChatFrozen(changed)) => chat.frozen = changed.frozen,
            Some(Content::RetentionChanged(changed)) => {
                chat.retention = changed.retention.unwrap_or_default()
            }
            // An owner who hands the group over becomes an admin.
            Some(Content::RoleChanged(changed)) if changed.handed_over && entry.sender == Some(me) => {
                chat.role = Role::Admin;
            }
            Some(Content::MemberRemoved(removed)) if removed.new_owner_user_id == my_id => {
                chat.role = Role::Owner;
            }
            Some(Content::MembersAdded(added)) => {
                // Perhaps they had asked to join, and another admin has taken them.
                self.recount |= chat.join_request_count > 0;
                if added.user_ids.contains(&my_id) {
                    chat.history_from_seq = match added.history_from_seq {
                        0 => entry.seq,
                        seq => Seq(seq),
                    };
                }
            }
            _ => {}
        }
    }
}

impl Engine {
    /// Notes how many people ask to join a group.
    pub(super) fn join_requests(&mut self, chat: ChatId, count: u32) {
        if let Some(state) = self.chats.get_mut(&chat)
            && state.row.chat.join_request_count != count
        {
            state.row.chat.join_request_count = count;
            self.dirty.insert(chat);
        }
    }
}
