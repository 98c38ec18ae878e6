//! This module has a chat as this device sees it, and as the server lists it.

use tern_proto::v1;
use tern_types::{ChatId, IdError, Seq, Timestamp, UserId};

use super::optional;

/// The policy of a group: who may do what, and what those who join may read. A field that is not set has its default.
pub type GroupPolicy = v1::GroupPolicy;
/// How long the server keeps what is said in a chat, and after which time messages disappear everywhere.
pub type Retention = v1::Retention;
/// How the person keeps a chat: muted, archived, pinned, marked as unread, with a draft.
pub type ChatSettings = v1::ChatSettings;

/// A chat as this device sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    /// The chat's id.
    pub id: ChatId,
    /// The kind: a direct chat or a group.
    pub kind: v1::ChatKind,
    /// The title of a group. It is empty for a direct chat.
    pub title: String,
    /// The description of a group.
    pub description: String,
    /// The other person of a direct chat.
    pub peer: Option<UserId>,
    /// The number of members, with this person. 0 while it is not known.
    pub member_count: u32,
    /// The role of this person in the chat.
    pub role: v1::Role,
    /// The policy of a group.
    pub policy: GroupPolicy,
    /// True if the operator froze the chat: nobody may send or change anything.
    pub frozen: bool,
    /// How long the server keeps messages, and whether they disappear.
    pub retention: Retention,
    /// How this person keeps the chat.
    pub settings: ChatSettings,
    /// The number of people who ask to join the group, if this person may answer them. It may be too high after
    /// somebody else has refused one, until the chat is read from the server again.
    pub join_request_count: u32,
    /// The seq of the last entry that this device knows of.
    pub head: Seq,
    /// The first seq that this person may read. Zero while it is not known.
    pub history_from_seq: Seq,
    /// The time at which the chat's last entry was sent, or the time of the chat's creation if it has none.
    pub active_at: Timestamp,
    /// The seq up to which the person has read everything.
    pub read: Seq,
    /// The number of unread entries.
    pub unread: u32,
    /// The number of unread messages that mention this person. If the server listed 100 of them, there may be more.
    pub unread_mention_count: u32,
    /// The seq of the first of these. `None`: there is none, or it is not known at the moment.
    pub first_unread_mention_seq: Option<Seq>,
    /// True if the person is not a member any more.
    pub left: bool,
}

impl Chat {
    /// Makes a chat of which nothing is known but its id.
    pub fn unknown(id: ChatId) -> Self {
        Self {
            id,
            kind: v1::ChatKind::Unspecified,
            title: String::new(),
            description: String::new(),
            peer: None,
            member_count: 0,
            role: v1::Role::Unspecified,
            policy: GroupPolicy::default(),
            frozen: false,
            retention: Retention::default(),
            settings: ChatSettings::default(),
            join_request_count: 0,
            head: Seq::ZERO,
            history_from_seq: Seq::ZERO,
            active_at: Timestamp(0),
            read: Seq::ZERO,
            unread: 0,
            unread_mention_count: 0,
            first_unread_mention_seq: None,
            left: false,
        }
    }
}

/// The user's chats as the server lists them, from all pages.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatList {
    /// The chats.
    pub chats: Vec<ListedChat>,
    /// True if the server said that chats are missing.
    pub partial: bool,
}

/// A chat as the server lists it, with fields that only the engine needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedChat {
    /// The chat.
    pub chat: Chat,
    /// True if the answer has the person's settings of the chat. Without them the chat's settings are empty.
    pub has_settings: bool,
    /// The seq at which the cursor of a new device starts.
    pub resume: Seq,
}

impl TryFrom<v1::Chat> for ListedChat {
    type Error = IdError;

    fn try_from(chat: v1::Chat) -> Result<Self, IdError> {
        let active_at = chat
            .last_entry
            .as_ref()
            .map_or(chat.created_at_ms, |entry| entry.sent_at_ms);
        let first_mention = Seq(chat.first_unread_mention_seq);
        Ok(Self {
            has_settings: chat.settings.is_some(),
            resume: Seq(chat.resume_seq),
            chat: Chat {
                id: chat.chat_id.parse()?,
                kind: chat.kind(),
                role: chat.role(),
                peer: optional(&chat.peer_user_id)?,
                member_count: chat.member_count,
                policy: chat.policy.unwrap_or_default(),
                frozen: chat.frozen,
                retention: chat.retention.unwrap_or_default(),
                join_request_count: chat.join_request_count,
                head: Seq(chat.head_seq),
                history_from_seq: Seq(chat.history_from_seq),
                active_at: Timestamp(active_at),
                read: Seq(chat.read_seq),
                unread: u32::try_from(chat.unread_count).unwrap_or(u32::MAX),
                unread_mention_count: chat.unread_mention_count,
                first_unread_mention_seq: Some(first_mention).filter(|seq| *seq > Seq::ZERO),
                left: false,
                title: chat.title,
                description: chat.description,
                settings: chat.settings.unwrap_or_default(),
            },
        })
    }
}
