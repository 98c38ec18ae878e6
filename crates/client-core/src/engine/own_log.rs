//! This module applies the person's own log (own.proto), by which the person's devices know of each other. It is a log
//! like that of a chat, with a cursor and acknowledgements, but it is no chat to show: the app gets what its entries do.

use tern_proto::v1::entry_content::Content;
use tern_types::{ChatId, Seq, UserId};

use super::chat_state::ChatState;
use super::{Change, Engine};
use crate::model::{ChatSettings, Entry, Event, vanished};

impl Engine {
    /// Applies an entry of the own log, and stores it.
    pub(super) fn own_log_applied(&mut self, entry: Entry) {
        match &entry.content.content {
            Some(Content::ChatSettingsChanged(changed)) => {
                if let Ok(chat) = changed.chat_id.parse() {
                    let settings = changed.settings.clone().unwrap_or_default();
                    self.settings_changed(chat, settings, entry.seq);
                }
            }
            Some(Content::MessagesHidden(_)) => self.hides(&entry),
            Some(Content::JoinRequested(asked)) => {
                if let (Ok(chat), Ok(user)) = (asked.chat_id.parse(), asked.user_id.parse()) {
                    self.join_requested(chat, user);
                }
            }
            Some(Content::AccountChanged(changed)) => self.effects.events.push(Event::AccountChanged {
                change: changed.change(),
                subject: changed.subject_id.clone(),
            }),
            _ => {}
        }
        self.effects.changes.push(Change::Entry(without_draft(entry)));
    }

    /// Takes older entries that were read from the server. Of the own log only hidden messages count, since what else it
    /// says may not hold any more.
    pub(super) fn history(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.expires(&entry);
            let entry = if entry.chat == self.own_log {
                self.hides(&entry);
                without_draft(entry)
            } else {
                entry
            };
            self.effects.changes.push(Change::Entry(entry));
        }
    }

    /// Takes the settings of a chat that the entry `seq` of the own log has. Older ones than those that are known change
    /// nothing. A chat that is not known yet gets its settings with the look-up that its first entry causes.
    pub(super) fn settings_changed(&mut self, chat: ChatId, settings: ChatSettings, seq: Seq) {
        if let Some(state) = self.chats.get_mut(&chat)
            && seq > state.row.settings_seq
        {
            state.row.settings_seq = seq;
            state.row.chat.settings = settings;
            self.dirty.insert(chat);
        }
    }

    /// Erases the messages that an entry of the own log hides.
    fn hides(&mut self, entry: &Entry) {
        if let Some(Content::MessagesHidden(hidden)) = &entry.content.content
            && let Ok(chat) = hidden.chat_id.parse()
        {
            self.hidden(chat, hidden.seqs.iter().map(|seq| Seq(*seq)).collect());
        }
    }

    /// Erases messages that the person has deleted for themselves.
    pub(super) fn hidden(&mut self, chat: ChatId, seqs: Vec<Seq>) {
        self.gone(chat, &seqs);
        let at = self.chats.get(&chat).and_then(ChatState::cursor);
        let ahead = seqs.iter().filter(|seq| at < Some(**seq));
        self.hidden_ahead.extend(ahead.map(|seq| (chat, *seq)));
        let change = Change::Hide {
            chat,
            seqs: seqs.clone(),
        };
        self.effects.changes.push(change);
        self.effects.events.push(Event::Gone { chat, seqs });
    }

    /// Returns an entry as the app is told of it: without its content if the person has deleted the message for
    /// themselves before it came. The store leaves the content out by itself.
    pub(super) fn as_told(&mut self, mut entry: Entry) -> Entry {
        if self.hidden_ahead.remove(&(entry.chat, entry.seq))
            && let Some(kind) = entry.kind()
        {
            self.gone(entry.chat, &[entry.seq]);
            entry.content = vanished(kind, entry.target());
            entry.unknown.clear();
        }
        entry
    }

    /// Forgets hidden messages whose entries come no more, because the chat's cursor was raised over them.
    pub(super) fn hidden_passed_by(&mut self, chat: ChatId) {
        let at = self
            .chats
            .get(&chat)
            .and_then(ChatState::cursor)
            .unwrap_or_default();
        let passed = (chat, Seq::ZERO)..=(chat, at);
        while let Some(first) = self.hidden_ahead.range(passed.clone()).next().copied() {
            self.hidden_ahead.remove(&first);
        }
    }

    fn join_requested(&mut self, chat: ChatId, user: UserId) {
        if let Some(state) = self.chats.get(&chat) {
            let count = state.row.chat.join_request_count.saturating_add(1);
            self.join_requests(chat, count);
        }
        self.effects.events.push(Event::JoinRequested { chat, user });
    }
}

/// Returns an entry of the own log as it is stored. The draft of a chat is in one place only, the chat's settings, so
/// that nothing of it is left when it is sent or thrown away.
fn without_draft(mut entry: Entry) -> Entry {
    if let Some(Content::ChatSettingsChanged(changed)) = &mut entry.content.content
        && let Some(settings) = &mut changed.settings
    {
        settings.draft.clear();
        entry.unknown.clear();
    }
    entry
}
