//! This module says when the store has to erase messages that disappear. The store knows which ones they are; the engine
//! only keeps the time of the next one, so there is one timer, however many messages wait.

use std::collections::BTreeMap;

use tern_types::{ChatId, Seq, Timestamp};

use super::{Call, Engine};
use crate::model::{Entry, Event};

impl Engine {
    /// Notes when an entry disappears that goes into the store.
    pub(super) fn expires(&mut self, entry: &Entry) {
        self.expire_at(entry.expires_at());
    }

    fn expire_at(&mut self, at: Option<Timestamp>) {
        self.next_expiry = [self.next_expiry, at].into_iter().flatten().min();
    }

    pub(super) fn tick_expiry(&mut self, now: Timestamp) {
        if self.next_expiry.is_some_and(|at| at <= now) {
            self.next_expiry = None;
            self.effects.calls.push(Call::Expire);
        }
    }

    /// Tells the app which messages have disappeared.
    pub(super) fn expired(&mut self, gone: Vec<(ChatId, Seq)>, next: Option<Timestamp>) {
        self.expire_at(next);
        let mut by_chat: BTreeMap<ChatId, Vec<Seq>> = BTreeMap::new();
        for (chat, seq) in gone {
            by_chat.entry(chat).or_default().push(seq);
        }
        for (chat, seqs) in by_chat {
            self.gone(chat, &seqs);
            self.effects.events.push(Event::Gone { chat, seqs });
        }
    }

    /// Updates the counts of a chat whose messages are gone.
    pub(super) fn gone(&mut self, chat: ChatId, seqs: &[Seq]) {
        let Some(state) = self.chats.get_mut(&chat) else {
            return;
        };
        let before = state.unread_mentions();
        seqs.iter().for_each(|seq| state.mention_gone(*seq));
        if state.unread_mentions() != before {
            self.dirty.insert(chat);
        }
        self.recount(chat);
    }
}
