//! Converts chats, members and receipts to the public API.

use std::collections::HashMap;

use tern_proto::v1;
use tern_types::{ChatId, Seq, UserId};

use tern_chat_core::chat::{ChatKind, Role};
use tern_chat_core::content::role_to_wire;
use tern_chat_core::receipts::Watermark;

use super::caller::Caller;
use crate::store::listing::ChatView;

/// Converts a chat to how the caller sees it. Only a device is told its `resume_seq`.
pub fn chat(view: ChatView, caller: Caller) -> v1::Chat {
    let unread = view.unread();
    let mut mentions = view.mentions.iter().filter(|seq| **seq > view.read).peekable();
    let first_unread_mention_seq = mentions.peek().map_or(0, |seq| seq.0);
    let unread_mention_count = u32::try_from(mentions.count()).unwrap_or(u32::MAX);
    v1::Chat {
        chat_id: view.chat.to_string(),
        kind: kind(view.kind).into(),
        title: view.title,
        created_by_user_id: view.created_by.to_string(),
        created_at_ms: view.created_at.0,
        head_seq: view.head.0,
        head_ordinal: view.head_ordinal,
        resume_seq: if caller.device.is_some() { view.resume.0 } else { 0 },
        read_seq: view.read.0,
        unread_count: unread,
        member_count: view.member_count,
        role: role_to_wire(view.role).into(),
        peer_user_id: view.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        last_entry: view.last_entry,
        unread_mention_count,
        first_unread_mention_seq,
        picture_media_id: view.picture.map(|media| media.to_string()).unwrap_or_default(),
        description: view.description,
        policy: (view.kind == ChatKind::Group).then(|| view.policy.to_wire()),
        frozen: view.frozen,
        join_request_count: view.join_requests,
        history_from_seq: view.history_from.0,
        retention: Some(view.retention.to_wire()),
        first_seq: view.first.0,
        ..v1::Chat::default()
    }
}

/// Converts the kind of a chat.
pub fn kind(kind: ChatKind) -> v1::ChatKind {
    match kind {
        ChatKind::Direct => v1::ChatKind::Direct,
        ChatKind::Group => v1::ChatKind::Group,
        ChatKind::Own => v1::ChatKind::Self_,
    }
}

/// Converts a member of a chat.
pub fn member((user, role, joined): (UserId, Role, Seq)) -> v1::Member {
    v1::Member {
        user_id: user.to_string(),
        role: role_to_wire(role).into(),
        joined_seq: joined.0,
    }
}

/// Makes the receipts of a chat from the watermarks in the store and in the owner's memory. `caller` sees their own
/// read mark as they set it; those of others are shown as [`Watermark::told`] allows.
pub fn receipts(
    chat: ChatId,
    caller: UserId,
    stored: Vec<(UserId, Seq, Watermark)>,
    live: &[(UserId, Watermark)],
) -> Vec<v1::Receipt> {
    let live: HashMap<UserId, Watermark> = live.iter().copied().collect();
    let receipts = stored.into_iter().map(|(user, _, known)| {
        let mark = merged(known, live.get(&user));
        let shown = if caller == user { mark } else { mark.told() };
        v1::Receipt {
            chat_id: chat.to_string(),
            user_id: user.to_string(),
            delivered_seq: shown.delivered.0,
            read_seq: shown.read.0,
        }
    });
    receipts.collect()
}

/// Returns the store's watermark, raised by the owner's if there is one.
pub fn merged(stored: Watermark, live: Option<&Watermark>) -> Watermark {
    live.map_or(stored, |live| live.raised_by(stored))
}
