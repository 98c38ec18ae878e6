//! A [`ChatState`] is one chat of this device: its cursor, its unread entries, and its properties as the entries change
//! them.

use std::collections::VecDeque;

use tern_proto::v1::{ChatKind, Role, entry_content::Content};
use tern_types::{ChatId, Seq, Timestamp, UserId};

use super::cursor::Cursor;
use super::{ChatRow, StoredChat};
use crate::model::{Act, Chat, Entry, ListedChat};

/// The most seqs of unread entries above the last listing that are remembered for each chat. Further ones are
/// not counted as unread.
const MAX_UNREAD: usize = 10_000;

/// The state of a call about the chat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum LookUp {
    Idle,
    /// The call is under way.
    Running,
    /// The call is under way, and since it was made, an entry has added the person to the chat. If the answer says that
    /// the person is no member, it is older than that entry, and the call is made again.
    Outdated,
    /// The call failed, and may be made again at this time.
    Again(Timestamp),
}

/// One chat of this device.
#[derive(Debug)]
pub struct ChatState {
    pub(super) row: ChatRow,
    pub(super) cursor: Cursor,
    /// The time since which entries are held because earlier ones are missing, and none was applied, or if that is
    /// later, the time at which the present stream was opened. `None`: there is no gap.
    pub(super) gap_since: Option<Timestamp>,
    /// The state of the call that reads the chat's properties.
    pub(super) look_up: LookUp,
    /// The state of the call that reads missing entries.
    pub(super) fill: LookUp,
    /// The number of refusals in a row to read them on this stream, because the person is not a member.
    pub(super) refusals: u32,
    /// The seqs of the unread entries above the last listing, ascending.
    pub(super) unread: VecDeque<Seq>,
    /// Those of them that mention this person.
    pub(super) mentions: VecDeque<Seq>,
    /// True if only the server can say how many unread messages mention this person, or how many ask to join.
    pub(super) recount: bool,
    /// The seq of the last entry applied since the start that is no message. It may have changed title, role or
    /// members. Every answer of the server is newer than the entries that were applied before the start.
    changed: Seq,
}

impl ChatState {
    /// Makes the state of a chat as the store has it.
    pub fn new(stored: StoredChat) -> Self {
        Self {
            cursor: Cursor::new(stored.row.cursor),
            row: stored.row,
            gap_since: None,
            look_up: LookUp::Idle,
            fill: LookUp::Idle,
            refusals: 0,
            unread: stored.unread.into(),
            mentions: stored.mentions.into(),
            recount: false,
            changed: Seq::ZERO,
        }
    }

    /// Makes the state of a chat of which nothing is known but its id.
    pub(super) fn unknown(chat: ChatId) -> Self {
        let row = ChatRow {
            chat: Chat::unknown(chat),
            cursor: None,
            known: false,
            confirmed_read: Seq::ZERO,
            listed_head: Seq::ZERO,
            listed_unread: 0,
            own: Seq::ZERO,
            listed_mentions: 0,
            listed_first_mention: Seq::ZERO,
            settings_seq: Seq::ZERO,
        };
        Self::new(StoredChat {
            row,
            unread: Vec::new(),
            mentions: Vec::new(),
        })
    }

    /// Notes that this is the direct chat with `peer`, so that it is known.
    pub(super) fn direct(&mut self, peer: UserId) {
        let chat = &mut self.row.chat;
        (chat.kind, chat.peer, chat.member_count, chat.role) =
            (ChatKind::Direct, Some(peer), 2, Role::Member);
        self.row.known = true;
    }

    /// Takes what the server says of the chat. If entries above its head were applied already and are not all messages,
    /// they may have changed title, role and members. These then stay as the entries left them, and the chat is known
    /// only with the next answer. Settings that came by the person's own log stay, since the answer may be older.
    pub(super) fn learn(&mut self, listed: ListedChat) {
        let ListedChat {
            chat, has_settings, ..
        } = listed;
        let unread = self.unread_of(&chat);
        let (mentions, first_mention) = self.mentions_of(&chat);
        let row = &mut self.row;
        row.known = self.changed <= chat.head;
        (row.listed_head, row.listed_unread) = (chat.head, unread);
        (row.listed_mentions, row.listed_first_mention) = (mentions, first_mention);
        row.confirmed_read = row.confirmed_read.max(chat.read);
        self.unread.retain(|seq| *seq > chat.head);
        self.mentions.retain(|seq| *seq > chat.head);
        self.recount = false;
        let before = std::mem::replace(&mut row.chat, chat);
        let chat = &mut row.chat;
        chat.head = chat.head.max(before.head);
        chat.active_at = chat.active_at.max(before.active_at);
        chat.read = chat.read.max(before.read);
        if !has_settings || row.settings_seq > Seq::ZERO {
            chat.settings = before.settings;
            chat.settings.marked_unread &= chat.read == before.read;
        }
        if !row.known {
            (chat.title, chat.role) = (before.title, before.role);
            (chat.description, chat.policy) = (before.description, before.policy);
            (chat.frozen, chat.retention) = (before.frozen, before.retention);
            (chat.member_count, chat.left) = (before.member_count, before.left);
        }
        self.read_up_to(self.row.chat.read);
    }

    /// Returns the number of unread entries after an answer of the server. The server counts from the read mark that it
    /// knows. If the one here is higher, because it is still on its way, the answer counts too many: at most the entries
    /// that are unread here and those that are still to come are unread. Example: 9 of 10 entries are read here, and the
    /// server, which does not know it, says that 10 are unread. Then 1 is.
    fn unread_of(&self, chat: &Chat) -> u32 {
        if !self.row.known || chat.read >= self.row.chat.read {
            return chat.unread;
        }
        let at = self.cursor.at().unwrap_or_default();
        let coming = u32::try_from(chat.head.0.saturating_sub(at.0)).unwrap_or(u32::MAX);
        chat.unread.min(self.unread().saturating_add(coming))
    }

    /// Updates the chat from an applied entry. `me` is this person. Entries of one chat come in ascending order.
    pub(super) fn absorb(&mut self, entry: &Entry, me: UserId) {
        self.row.chat.head = self.row.chat.head.max(entry.seq);
        self.row.chat.active_at = self.row.chat.active_at.max(entry.sent_at);
        let own = entry.sender == Some(me);
        if own && entry.is_message() {
            self.row.own = self.row.own.max(entry.seq);
            self.read_own(entry.seq);
        }
        // A listing has counted everything up to its head already.
        if entry.seq <= self.row.listed_head {
            return;
        }
        if !own
            && entry.counts_as_unread()
            && entry.seq > self.row.chat.read
            && self.unread.len() < MAX_UNREAD
        {
            debug_assert!(
                self.unread.back().is_none_or(|last| *last < entry.seq),
                "unread entries are not ascending"
            );
            self.unread.push_back(entry.seq);
            if entry.mentions(me) {
                self.mentions.push_back(entry.seq);
            }
        }
        if let Act::Delete { target } = entry.act() {
            self.mention_gone(target);
        }
        if !entry.is_message() {
            self.changed = entry.seq;
        }
        self.absorb_content(entry, me);
        self.absorb_group(entry, me);
    }

    fn absorb_content(&mut self, entry: &Entry, me: UserId) {
        if !self.row.known
            && let Some(sender) = entry.sender
            && sender != me
            && ChatId::direct(me, sender) == entry.chat
        {
            self.direct(sender);
        }
        let my_id = me.to_string();
        let chat = &mut self.row.chat;
        match &entry.content.content {
            Some(Content::ChatCreated(created)) => {
                (chat.kind, chat.title) = (ChatKind::Group, created.title.clone());
                let sender = entry.sender.map(|sender| sender.to_string());
                let others = created
                    .member_user_ids
                    .iter()
                    .filter(|id| Some(*id) != sender.as_ref())
                    .count();
                chat.member_count = u32::try_from(others + usize::from(sender.is_some())).unwrap_or(u32::MAX);
                chat.role = if entry.sender == Some(me) {
                    Role::Owner
                } else {
                    Role::Member
                };
                self.row.known = true;
            }
            Some(Content::ChatUpdated(updated)) => chat.title.clone_from(&updated.title),
            Some(Content::MembersAdded(added)) => {
                let count = u32::try_from(added.user_ids.len()).unwrap_or(u32::MAX);
                chat.member_count = chat.member_count.saturating_add(count);
                if added.user_ids.contains(&my_id) {
                    // The device knows the chat from an earlier membership, or by placeholders.
                    (chat.role, chat.left) = (Role::Member, false);
                    self.row.known = false;
                    if self.look_up == LookUp::Running {
                        self.look_up = LookUp::Outdated;
                    }
                }
            }
            Some(Content::MemberRemoved(removed)) => {
                chat.member_count = chat.member_count.saturating_sub(1);
                chat.left |= removed.user_id == my_id;
            }
            Some(Content::RoleChanged(changed)) if changed.user_id == my_id => chat.role = changed.role(),
            _ => {}
        }
    }

    /// Moves the read mark over an own message if nothing before it is unread. The server does the same, since own
    /// messages are never unread. If the server marks more as read because of a send, it says so by a receipt.
    fn read_own(&mut self, seq: Seq) {
        if !self.unread.is_empty() || self.row.listed_unread > 0 {
            return;
        }
        if self.row.confirmed_read >= self.row.chat.read {
            self.row.confirmed_read = self.row.confirmed_read.max(seq);
        }
        self.read_up_to(seq);
    }

    /// Raises the read mark to `seq`, and removes what is read from the unread entries.
    pub(super) fn read_up_to(&mut self, seq: Seq) {
        if seq > self.row.chat.read {
            self.row.chat.read = seq;
            self.row.chat.settings.marked_unread = false;
        }
        self.mentions_read(seq);
        while self.unread.front().is_some_and(|first| *first <= seq) {
            self.unread.pop_front();
        }
        if seq >= self.row.listed_head {
            self.row.listed_unread = 0;
        }
    }

    /// Returns whether the chat waits for a look-up, or holds entries that wait for earlier ones.
    pub(super) fn waits(&self) -> bool {
        !self.row.known || self.cursor.first_held().is_some()
    }

    pub(super) fn cursor(&self) -> Option<Seq> {
        self.cursor.at()
    }

    /// Returns the number of unread entries that are known here.
    fn unread(&self) -> u32 {
        let new = u32::try_from(self.unread.len()).unwrap_or(u32::MAX);
        self.row.listed_unread.saturating_add(new)
    }

    /// Returns the chat as the store is to keep it, with the present cursor and unread count.
    pub(super) fn row(&mut self) -> ChatRow {
        self.row.chat.unread = self.unread();
        let (count, first) = self.unread_mentions();
        self.row.chat.unread_mention_count = count;
        self.row.chat.first_unread_mention_seq = first;
        self.row.cursor = self.cursor.at();
        self.row.clone()
    }

    /// Notes whether there is a gap below the held entries. With `progress`, which says that entries were just applied,
    /// the time of the gap starts anew.
    pub(super) fn watch_gap(&mut self, progress: bool, now: Timestamp) {
        let gap = self.cursor.at().is_some() && self.cursor.first_held().is_some();
        if progress || !gap {
            self.refusals = 0;
        }
        self.gap_since = if gap {
            self.gap_since.filter(|_| !progress).or(Some(now))
        } else {
            None
        };
    }
}
