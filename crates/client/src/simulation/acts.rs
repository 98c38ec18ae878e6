//! Edits, deletions, reactions and pins in the simulated world. The server erases what is deleted, and refuses what is
//! to be done to a message that is not there.

use std::collections::BTreeSet;

use tern_proto::v1::{self, MessageKind, entry_content::Content};
use tern_types::{ChatId, RequestId, Seq, UserId};

use tern_client_core::engine::Input;
use tern_client_core::model::{Act, Entry, Message, Messages, Outgoing, erased};
use tern_client_core::testing::{entry, user};

use super::{Log, Wire, World, wire};

/// Something that a person does to an earlier message.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    Edit,
    Delete,
    React { take_back: bool },
    Pin { take_back: bool },
}

impl Deed {
    fn to(self, message: &Message) -> Outgoing {
        let (chat, seq) = (message.entry.chat, message.entry.seq);
        match self {
            Self::Edit => Outgoing::edit(message, format!("edit of {seq}")),
            Self::Delete => Outgoing::delete(chat, seq),
            Self::React { take_back } => Outgoing::reaction(chat, seq, "👍", take_back),
            Self::Pin { take_back } => Outgoing::pin(chat, seq, take_back),
        }
    }
}

impl Log {
    /// Returns the message that this number chooses, or `None` if there are no messages. Those that disappear are left
    /// out, because it would depend on the moment whether something may be done to them.
    fn choose(&self, number: usize) -> Option<Message> {
        let messages: Messages = self.entries.iter().collect();
        let stay = messages
            .into_values()
            .filter(|message| message.expires_at.is_none());
        let mut messages: Vec<Message> = stay.collect();
        (!messages.is_empty()).then(|| messages.swap_remove(number % messages.len()))
    }

    /// Returns whether the server takes this from the user.
    pub fn takes(&self, act: Act<'_>, who: UserId) -> bool {
        let Some(target) = act.target() else { return true };
        let messages: Messages = self.entries.iter().collect();
        messages.get(target).is_some_and(|message| {
            let edit = matches!(act, Act::Edit { .. });
            message.deleted.is_none() && (!edit || message.entry.sender == Some(who))
        })
    }

    /// Adds an entry. If it deletes a message, what the log has of that message's content is erased.
    pub fn put(&mut self, entry: Entry) {
        if let Act::Delete { target } = entry.act() {
            for former in &mut self.entries {
                let about = former.target() == Some(target)
                    && matches!(former.kind(), Some(MessageKind::Edit | MessageKind::Reaction));
                if about || former.seq == target {
                    former.content = erased(former.kind().unwrap(), former.target());
                }
            }
        }
        self.entries.push(entry);
    }
}

impl World {
    /// Lets another person do something to the message of the chat that `target` chooses. If `lost` is set, the live
    /// push of the entry does not reach the device.
    pub fn other_acts(&mut self, chat: ChatId, deed: Deed, target: usize, lost: bool) {
        let connected = self.connected;
        let log = self.logs.get_mut(&chat).unwrap();
        let Some(message) = log.choose(target) else { return };
        let outgoing = deed.to(&message);
        let other = user(2);
        if !log.takes(outgoing.act(), other) {
            return;
        }
        let content = v1::Message {
            envelope: Some(outgoing.envelope),
            body: outgoing.body,
        };
        let entry = Entry {
            sender: Some(other),
            request: Some(RequestId::random()),
            content: v1::EntryContent {
                content: Some(Content::Message(content)),
                ..Default::default()
            },
            ..entry(chat, log.entries.len() as u64 + 1)
        };
        log.put(entry.clone());
        if connected && !lost {
            log.down.push_back(Wire::Entry(wire(&entry)));
        }
    }

    /// Lets the device do something to the message of the chat that `target` chooses.
    pub fn device_acts(&mut self, chat: ChatId, deed: Deed, target: usize) {
        if let Some(message) = self.logs[&chat].choose(target) {
            self.apply(Input::Send(deed.to(&message)));
        }
    }

    /// Lets the app read the messages from before the device was linked. The answer is on its way.
    pub fn read_history(&mut self, chat: ChatId) {
        let log = &self.logs[&chat];
        self.page = log.entries[..usize::try_from(log.base).unwrap()].to_vec();
    }

    /// Lets the answer arrive.
    pub fn store_history(&mut self) {
        let page = std::mem::take(&mut self.page);
        self.apply(Input::History(page));
    }

    /// Checks that the device has what the log has, with nothing left of what was deleted, and that it shows the same
    /// messages as would follow from the log.
    pub fn check_messages(&self) {
        for (chat, log) in &self.logs {
            let stored = self.store.history(*chat, None, usize::MAX).unwrap();
            let seqs: BTreeSet<Seq> = stored.iter().map(|entry| entry.seq).collect();
            let owed: Vec<Entry> = log
                .entries
                .iter()
                .filter(|entry| seqs.contains(&entry.seq))
                .cloned()
                .collect();
            assert!(owed.len() as u64 >= log.entries.len() as u64 - log.base);
            let owed = self.without_gone(owed);
            assert_eq!(comparable(stored), comparable(owed.clone()));
            let shown = self.store.messages(*chat, None, usize::MAX).unwrap();
            let text = |message: &Message| Some((message.entry.seq, message.entry.text()?.into_owned()));
            let texts: Vec<_> = shown.iter().filter_map(text).collect();
            assert_eq!(self.store.indexed(*chat), texts);
            let expected: Messages = comparable(owed).iter().collect();
            let expected: Vec<Message> = expected.into_values().collect();
            let shown = shown.into_iter().map(|message| Message {
                entry: without_ordinal(message.entry),
                ..message
            });
            assert_eq!(shown.collect::<Vec<_>>(), expected);
        }
    }
}

/// Returns the entries without their ordinals, which the results of the device's own sends do not say.
fn comparable(entries: Vec<Entry>) -> Vec<Entry> {
    entries.into_iter().map(without_ordinal).collect()
}

fn without_ordinal(entry: Entry) -> Entry {
    Entry { ordinal: 0, ..entry }
}
