//! This module counts the unread messages that mention this person, as a chat's state counts all unread ones: those up
//! to the last listing as the server counted them, and those above it one by one. Of the listed ones only the first is
//! known by its seq. So when some of them are read or deleted, the server has to count the others.

use tern_types::{ChatId, Seq};

use super::chat_state::{ChatState, LookUp};
use super::{Call, Engine};
use crate::model::Chat;

impl ChatState {
    /// Returns the number of unread messages that mention this person, and the seq of the first one if it is known.
    pub(super) fn unread_mentions(&self) -> (u32, Option<Seq>) {
        let new = u32::try_from(self.mentions.len()).unwrap_or(u32::MAX);
        let first = match self.row.listed_mentions {
            0 => self.mentions.front().copied(),
            _ => Some(self.row.listed_first_mention).filter(|seq| *seq > Seq::ZERO),
        };
        (self.row.listed_mentions.saturating_add(new), first)
    }

    /// Returns the number of mentions up to the head of an answer of the server, and the seq of the first one. If the
    /// answer does not know of a read mark that is still on its way, it may count too many, as it does all unread ones.
    pub(super) fn mentions_of(&self, chat: &Chat) -> (u32, Seq) {
        let first = chat.first_unread_mention_seq.unwrap_or_default();
        let read = self.row.chat.read;
        if !self.row.known || chat.read >= read || first > read {
            return (chat.unread_mention_count, first);
        }
        let at = self.cursor.at().unwrap_or_default();
        let coming = u32::try_from(chat.head.0.saturating_sub(at.0)).unwrap_or(u32::MAX);
        let (known, first) = self.unread_mentions();
        let count = chat.unread_mention_count.min(known.saturating_add(coming));
        (count, first.unwrap_or_default())
    }

    /// Notes that everything up to `seq` is read.
    pub(super) fn mentions_read(&mut self, seq: Seq) {
        while self.mentions.front().is_some_and(|first| *first <= seq) {
            self.mentions.pop_front();
        }
        let first = self.row.listed_first_mention;
        if seq >= self.row.listed_head {
            (self.row.listed_mentions, self.row.listed_first_mention) = (0, Seq::ZERO);
            self.recount = false;
        } else if first > Seq::ZERO && seq >= first {
            self.first_mention_gone();
        }
    }

    /// Notes that a message is not to be read any more, because it was deleted or is gone.
    pub(super) fn mention_gone(&mut self, message: Seq) {
        let listed = message > self.row.chat.read && message <= self.row.listed_head;
        if let Ok(index) = self.mentions.binary_search(&message) {
            self.mentions.remove(index);
        } else if listed && message == self.row.listed_first_mention {
            self.first_mention_gone();
        } else if listed && self.row.listed_mentions > 0 {
            self.recount = true;
        }
    }

    /// Notes that the first one of the listed mentions is unread no more.
    fn first_mention_gone(&mut self) {
        self.row.listed_mentions = self.row.listed_mentions.saturating_sub(1);
        self.row.listed_first_mention = Seq::ZERO;
        self.recount = self.row.listed_mentions > 0;
    }
}

impl Engine {
    /// Asks the server for a chat whose counts this device cannot keep up to date by itself.
    pub(super) fn recount(&mut self, chat: ChatId) {
        let done = self.listing.done;
        if let Some(state) = self.chats.get_mut(&chat)
            && state.recount
            && state.row.known
            && state.look_up == LookUp::Idle
            && done
        {
            state.look_up = LookUp::Running;
            self.effects.calls.push(Call::GetChat(chat));
        }
    }
}
