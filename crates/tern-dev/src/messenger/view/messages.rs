//! Puts the entries of a chat together to messages as they are now, and says which of them a command is about.

use tern_client::{Act, Entry, Message, Messages, QueuedMessage, SendState};
use tern_types::{ChatId, Seq};

use super::{Room, View};

impl View {
    /// Returns the messages of a chat as they are now. What this device is still to send is done to them already,
    /// unless it was refused.
    pub(super) fn messages(&self, room: &Room) -> Messages {
        let mut messages: Messages = room.entries.values().collect();
        for queued in room.queued.iter().filter(|queued| !was_refused(queued)) {
            messages.apply(queued.message.act(), Some(self.me), queued.created_at);
        }
        messages
    }

    /// Returns one message of a chat as it is now, or `None` if it is not loaded.
    pub fn message(&self, chat: ChatId, seq: Seq) -> Option<Message> {
        self.messages(self.rooms.get(&chat)?).get(seq).cloned()
    }

    /// Returns the message of the open chat that a command is about: the one whose number was typed, or else the
    /// selected one, or else the newest one, and with `own` the user's newest one. In a thread the newest ones are those
    /// of the thread. `None` if there is none, or if it was deleted.
    pub fn target(&self, typed: Option<u64>, own: bool) -> Option<Message> {
        let messages = self.messages(self.rooms.get(&self.open?)?);
        let here = |message: &Message| message.deleted.is_none();
        if let Some(seq) = typed.map(Seq).or(self.selected) {
            return messages.get(seq).filter(|message| here(message)).cloned();
        }
        let shown = |message: &Message| here(message) && is_in(self.thread, message);
        let mut newest = messages.into_values().rev().filter(shown);
        newest.find(|message| !own || message.entry.sender == Some(self.me))
    }

    /// Returns the seq of the newest pinned message of the open chat that is loaded, or `None` if there is none.
    pub fn newest_pinned(&self) -> Option<Seq> {
        let messages = self.messages(self.rooms.get(&self.open?)?);
        let mut newest = messages.into_values().rev();
        Some(newest.find(|message| message.pinned)?.entry.seq)
    }

    /// Returns whether messages of the user to the open chat have no place in it yet.
    pub fn is_sending(&self) -> bool {
        let room = self.open.and_then(|chat| self.rooms.get(&chat));
        let waits = |queued: &QueuedMessage| queued.message.act() == Act::Message && !was_refused(queued);
        room.is_some_and(|room| room.queued.iter().any(waits))
    }

    /// Selects the message above the selected one, or with `down` the one below. Without a selection it begins with
    /// the newest message, and below that the selection ends. Returns false if there is no message above.
    pub fn select(&mut self, down: bool) -> bool {
        let seqs = self.selectable();
        let at = self
            .selected
            .and_then(|selected| seqs.iter().position(|seq| *seq == selected));
        let next = match (at, down) {
            (Some(at), true) => at + 1,
            (None, true) => seqs.len(),
            (Some(0), false) => return false,
            (Some(at), false) => at - 1,
            (None, false) => seqs.len().saturating_sub(1),
        };
        self.selected = seqs.get(next).copied();
        true
    }

    /// Returns the seqs of the messages of the open chat to which something can be done, ascending.
    fn selectable(&self) -> Vec<Seq> {
        let Some(room) = self.open.and_then(|chat| self.rooms.get(&chat)) else {
            return Vec::new();
        };
        let messages = self.messages(room).into_values();
        let shown = |message: &Message| message.deleted.is_none() && is_in(self.thread, message);
        let here = messages.filter(shown);
        here.map(|message| message.entry.seq).collect()
    }

    /// Returns the seq of the user's message that is the `nth` from the end, counted from 1.
    pub fn own_message(&self, chat: ChatId, nth: usize) -> Option<Seq> {
        let messages = self.messages(self.rooms.get(&chat)?).into_values().rev();
        let own = |message: &Message| message.entry.sender == Some(self.me) && message.deleted.is_none();
        let mut own = messages.filter(own);
        Some(own.nth(nth.checked_sub(1)?)?.entry.seq)
    }

    /// Returns what an entry did to an earlier message, as in "Bob reacted 👍 to #12 “hello”". Returns `None` if it
    /// did nothing, or if the message is not loaded.
    pub fn deed(&self, entry: &Entry) -> Option<String> {
        let messages = self.messages(self.rooms.get(&entry.chat)?);
        let message = messages.get(entry.act().target()?)?;
        let (who, number) = (self.author(entry), message.entry.seq);
        let about = format!("#{number} “{}”", self.first_line(message));
        Some(match entry.act() {
            Act::Delete { .. } => format!("{who} deleted #{number}"),
            _ if message.deleted.is_some() => return None,
            Act::Edit { .. } => format!("{who} edited #{number}: {}", self.said(message)),
            Act::React { key, take_back, .. } => {
                let key = super::clean(&String::from_utf8_lossy(key));
                if take_back {
                    format!("{who} took {key} back from {about}")
                } else {
                    format!("{who} reacted {key} to {about}")
                }
            }
            Act::Pin { take_back: true, .. } => format!("{who} unpinned {about}"),
            Act::Pin { .. } => format!("{who} pinned {about}"),
            Act::Message | Act::Erased | Act::Nothing => return None,
        })
    }
}

/// Returns whether a message is the one with which this thread begins, or in it. Without a thread every message is.
pub(super) fn is_in(thread: Option<Seq>, message: &Message) -> bool {
    thread.is_none_or(|root| message.entry.seq == root || message.thread_root() == Some(root))
}

/// Returns whether the server has refused a message of the outbox.
pub(super) fn was_refused(queued: &QueuedMessage) -> bool {
    matches!(queued.state, SendState::Failed { .. })
}
