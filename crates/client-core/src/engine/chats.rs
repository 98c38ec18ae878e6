//! This module handles all chats: it applies and acknowledges entries, keeps the read marks, and produces the effects
//! that are made once for each chat at the end of an `apply`.

use tern_proto::v1::{self, client_item::Item};
use tern_types::{ChatId, Seq, Timestamp, UserId};

use super::chat_state::ChatState;
use super::cursor::Offered;
use super::look_up::Listing;
use super::{Change, ChatRow, Engine};
use crate::model::{Entry, Event};

/// The number of chats that may wait before the engine holds no entries for further ones. While this many
/// wait, an entry of another chat that comes before its turn is dropped, and the server sends it again. A
/// chat waits for missing entries or for a look-up.
const MAX_WAITING: usize = 64;

impl Engine {
    pub(super) fn entry_came(&mut self, entry: v1::Entry, now: Timestamp) {
        match Entry::try_from(entry) {
            Ok(entry) => self.offer(entry, now),
            Err(error) => tracing::warn!(%error, "entry ignored"),
        }
    }

    /// Takes an entry from the server, or one that was made from the result of an own send.
    pub(super) fn offer(&mut self, entry: Entry, now: Timestamp) {
        let chat = entry.chat;
        let crowded = self.waiting.len() >= MAX_WAITING && !self.waiting.contains(&chat);
        let state = self.chats.entry(chat).or_insert_with(|| ChatState::unknown(chat));
        let ahead = entry.seq > state.cursor.at().unwrap_or_default().next();
        if ahead && crowded {
            return;
        }
        match state.cursor.offer(entry) {
            Offered::Applied(entries) => self.applied(chat, entries, now),
            Offered::Repeated => {
                self.acks.insert(chat);
            }
            Offered::Held => {
                state.watch_gap(false, now);
                self.waiting.insert(chat);
                self.begin(chat, now);
            }
        }
    }

    /// Starts an unknown cursor at 0 if the chat's first entry is held and all chats have been listed. Before the
    /// listing that may be wrong: after a restored backup, the held first entry may be the result of an own message
    /// that was sent again, in a chat that the device acknowledged long before.
    pub(super) fn begin(&mut self, chat: ChatId, now: Timestamp) {
        if let Some(state) = self
            .chats
            .get_mut(&chat)
            .filter(|state| state.cursor.has_the_first())
            && self.listing.done
        {
            let entries = state.cursor.start(Seq::ZERO);
            self.applied(chat, entries, now);
        }
    }

    /// Adds the chat to `waiting` or removes it, so that a tick need not go through all chats.
    pub(super) fn watch(&mut self, chat: ChatId) {
        if self.chats.get(&chat).is_some_and(ChatState::waits) {
            self.waiting.insert(chat);
        } else {
            self.waiting.remove(&chat);
        }
    }

    /// Applies entries of a chat over which its cursor has moved. They are stored, told to the app, and acknowledged at
    /// the end of the `apply`.
    pub(super) fn applied(&mut self, chat: ChatId, entries: Vec<Entry>, now: Timestamp) {
        let me = self.me.user;
        let progress = !entries.is_empty();
        for mut entry in entries {
            if let Some(state) = self.chats.get_mut(&chat) {
                if entry.device == Some(self.me.device) {
                    entry.complete_expiry(state.row.chat.retention.disappear_after_s);
                }
                state.absorb(&entry, me);
            }
            self.own_entry_applied(&entry);
            self.removal_applied(&entry);
            self.typing_ends(&entry);
            self.expires(&entry);
            if chat == self.own_log {
                self.own_log_applied(entry);
            } else {
                let told = self.as_told(entry.clone());
                self.effects.changes.push(Change::Entry(entry));
                self.effects.events.push(Event::Entry(told));
            }
        }
        if let Some(state) = self.chats.get_mut(&chat) {
            state.watch_gap(progress, now);
        }
        self.hidden_passed_by(chat);
        self.passed_by(chat);
        self.recount(chat);
        self.watch(chat);
        self.acks.insert(chat);
        self.dirty.insert(chat);
    }

    /// Raises the cursor over entries that are not this device's.
    pub(super) fn skipped(&mut self, skipped: &v1::Skipped, now: Timestamp) {
        let Ok(chat) = skipped.chat_id.parse::<ChatId>() else {
            return;
        };
        let state = self.chats.entry(chat).or_insert_with(|| ChatState::unknown(chat));
        let to = Seq(skipped.to_seq);
        let raised = state.cursor.at() < Some(to);
        let entries = state.cursor.skip(to);
        if raised && chat != self.own_log {
            self.effects.events.push(Event::Skipped { chat, to });
        }
        self.applied(chat, entries, now);
    }

    /// Forgets all chats, because the server's store is another one.
    pub(super) fn forget_chats(&mut self) {
        self.chats.clear();
        self.waiting.clear();
        self.receipts.clear();
        self.acks.clear();
        self.reads.clear();
        self.dirty.clear();
        self.next_expiry = None;
        self.hidden_ahead.clear();
        self.listing = Listing::new(false);
    }

    // --- reading ---

    /// Raises the read mark because the app says so, at most to the last entry that is known.
    pub(super) fn mark_read(&mut self, chat: ChatId, seq: Seq) {
        let Some(state) = self.chats.get_mut(&chat) else {
            return;
        };
        let seq = seq.min(state.row.chat.head);
        if seq > state.row.chat.read {
            state.read_up_to(seq);
            debug_assert!(
                state.row.chat.read <= state.row.chat.head,
                "the person reads no further than to the last entry that is known"
            );
            self.reads.insert(chat);
            self.dirty.insert(chat);
        }
    }

    /// Takes a read mark that the server confirmed: another device of this person read the chat, or the server answers
    /// this device's own mark.
    pub(super) fn own_read(&mut self, chat: ChatId, read: Seq) {
        if let Some(state) = self.chats.get_mut(&chat)
            && read > state.row.confirmed_read
        {
            state.row.confirmed_read = read;
            state.read_up_to(read);
            self.dirty.insert(chat);
        }
        self.recount(chat);
    }

    /// Has all read marks sent that the server has not confirmed.
    pub(super) fn send_reads_again(&mut self) {
        let unconfirmed = self
            .chats
            .values()
            .filter(|state| state.row.chat.read > state.row.confirmed_read);
        self.reads.extend(unconfirmed.map(|state| state.row.chat.id));
    }

    /// Returns the chats whose receipts may have changed, the most recently active first: chats with own messages that
    /// not all others have read, and chats with unread messages, which this person may have read on another device.
    pub(super) fn awaiting_receipts(&self) -> Vec<ChatId> {
        let unread_by_others = |row: &ChatRow| {
            let members = usize::try_from(row.chat.member_count).unwrap_or(0);
            row.own > Seq::ZERO && self.receipts.readers(row.chat.id, row.own) < members.saturating_sub(1)
        };
        let mut rows: Vec<&ChatRow> = self.chats.values().map(|state| &state.row).collect();
        rows.retain(|row| !row.chat.left && (row.chat.unread > 0 || unread_by_others(row)));
        rows.sort_by_key(|row| std::cmp::Reverse(row.chat.active_at));
        rows.iter().map(|row| row.chat.id).collect()
    }

    // --- at the end of an apply ---

    /// Acknowledges the cursors of the chats in `acks`. A cursor that is unknown or 0 is not acknowledged.
    pub(super) fn flush_acks(&mut self) {
        for chat in std::mem::take(&mut self.acks) {
            if let Some(seq) = self
                .chats
                .get(&chat)
                .and_then(|state| state.cursor.at())
                .filter(|seq| seq.0 > 0)
            {
                self.effects.items.push(Item::Ack(v1::Ack {
                    chat_id: chat.to_string(),
                    seq: seq.0,
                }));
            }
        }
    }

    /// Sends the read marks of the chats in `reads`.
    pub(super) fn flush_reads(&mut self) {
        for chat in std::mem::take(&mut self.reads) {
            if let Some(state) = self.chats.get(&chat) {
                let seq = state.row.chat.read.0;
                self.effects.items.push(Item::MarkRead(v1::MarkRead {
                    chat_id: chat.to_string(),
                    seq,
                }));
            }
        }
    }

    /// Stores the chats in `dirty` and tells the app of them, except for the own log.
    pub(super) fn flush_dirty(&mut self) {
        for chat in std::mem::take(&mut self.dirty) {
            if let Some(state) = self.chats.get_mut(&chat) {
                let row = state.row();
                if chat != self.own_log {
                    self.effects.events.push(Event::Chat(row.chat.clone()));
                }
                self.effects.changes.push(Change::Chat(row));
            }
        }
    }

    /// Notes that a chat is the direct chat with `peer`. It may be unknown so far, since a message may have made it.
    pub(super) fn know_direct(&mut self, chat: ChatId, peer: UserId) {
        let state = self.chats.entry(chat).or_insert_with(|| ChatState::unknown(chat));
        if !state.row.known {
            state.direct(peer);
        }
    }
}
