//! How the user keeps chats: the order of the list, what is muted, pinned or in the archive, and drafts.

use std::cmp::Reverse;

use tern_client::Chat;
use tern_proto::v1::ChatKind;
use tern_types::{ChatId, Timestamp};

use super::View;

/// The chats that the list shows.
pub struct Listed<'a> {
    /// The chats, in the order of the list.
    pub chats: Vec<&'a Chat>,
    /// The number of archived chats, which come last in the list.
    pub archived: usize,
    /// True if the archived chats are left out.
    pub folded: bool,
}

impl View {
    /// Returns the chats for the list: those that are pinned, the last pinned first; then the others, the most recently
    /// active first; then those in the archive.
    pub fn chats(&self) -> Vec<&Chat> {
        let chats = self.rooms.values().filter_map(|room| room.chat.as_ref());
        let mut chats: Vec<&Chat> = chats.filter(|chat| chat.kind != ChatKind::Self_).collect();
        chats.sort_by_key(|chat| {
            let settings = &chat.settings;
            let pinned = Reverse(settings.pinned_at_ms);
            (settings.archived, pinned, Reverse(chat.active_at), chat.id)
        });
        chats
    }

    /// Returns the chats that are shown in the list. Those in the archive are shown if the archive or one of them is
    /// open.
    pub fn listed(&self) -> Listed<'_> {
        let mut chats = self.chats();
        let archived = chats.iter().filter(|chat| chat.settings.archived).count();
        let is_open = |chat: &&Chat| chat.settings.archived && self.open == Some(chat.id);
        let folded = !self.archive_open && !chats.iter().any(is_open);
        if folded {
            chats.retain(|chat| !chat.settings.archived);
        }
        Listed {
            chats,
            archived,
            folded,
        }
    }

    /// Returns what there is to say of a chat in a list, as in "2 new, 1 for you, muted". `now` is the time by the wall
    /// clock.
    pub fn kept(&self, chat: &Chat, now: Timestamp) -> String {
        let settings = &chat.settings;
        let count = |count: u32, what: &str| (count > 0).then(|| format!("{count} {what}"));
        let says = |is: bool, what: &str| is.then(|| what.to_owned());
        let all = [
            count(chat.unread, "new"),
            count(chat.unread_mention_count, "for you"),
            says(chat.unread == 0 && settings.marked_unread, "marked as unread"),
            says(is_muted(chat, now), "muted"),
            says(settings.pinned_at_ms > 0, "pinned"),
            says(settings.archived, "archived"),
            says(!self.draft(chat.id).is_empty(), "draft"),
        ];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Returns what the user has begun to write in a chat, on this device or another. It is empty if there is nothing.
    pub fn draft(&self, chat: ChatId) -> String {
        let Some(room) = self.rooms.get(&chat) else {
            return String::new();
        };
        let kept = room.chat.as_ref().map(|chat| &chat.settings.draft[..]);
        let kept = || String::from_utf8_lossy(kept.unwrap_or_default()).into_owned();
        room.draft.clone().unwrap_or_else(kept)
    }

    /// Notes that the server has this draft, so that a later one of another device counts.
    pub fn draft_kept(&mut self, chat: ChatId, draft: &str) {
        let room = self.room(chat);
        if room.draft.as_deref() == Some(draft) {
            room.draft = None;
            if let Some(chat) = &mut room.chat {
                chat.settings.draft = draft.to_owned().into_bytes().into();
            }
        }
    }
}

/// Returns whether a chat is muted. `now` is the time by the wall clock.
pub fn is_muted(chat: &Chat, now: Timestamp) -> bool {
    chat.settings.muted_until_ms > now.0
}
