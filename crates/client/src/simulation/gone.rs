//! Messages that vanish in the simulated world: they disappear after a time, or the person has deleted them for
//! themselves on another device, which comes by the person's own log.

use std::collections::BTreeSet;

use tern_proto::v1::{self, MessageKind, entry_content::Content};
use tern_types::{ChatId, RequestId, Seq};

use tern_client_core::model::{Entry, vanished};
use tern_client_core::testing::{credentials, entry};

use super::{Wire, World, wire};

impl World {
    /// Adds a message of another person that disappears after a time. If `lost` is set, its live push is lost.
    pub fn other_writes_briefly(&mut self, chat: ChatId, after_s: u32, lost: bool) {
        let seq = self.logs[&chat].entries.len() as u64 + 1;
        let mut brief = Entry {
            request: Some(RequestId::random()),
            sent_at: self.now,
            ..entry(chat, seq)
        };
        brief.content.expires_after_s = after_s;
        self.push(brief, lost);
    }

    /// Lets the person delete the message of the chat that `target` chooses for themselves, on another device.
    pub fn hide(&mut self, chat: ChatId, target: usize, lost: bool) {
        let log = &self.logs[&chat];
        if log.entries.is_empty() {
            return;
        }
        let hidden = v1::MessagesHidden {
            chat_id: chat.to_string(),
            seqs: vec![log.entries[target % log.entries.len()].seq.0],
        };
        let me = credentials().user;
        let own = ChatId::own(me);
        let hides = Entry {
            sender: Some(me),
            request: Some(RequestId::random()),
            content: v1::EntryContent {
                content: Some(Content::MessagesHidden(hidden)),
                ..Default::default()
            },
            ..entry(own, self.logs[&own].entries.len() as u64 + 1)
        };
        self.push(hides, lost);
    }

    fn push(&mut self, entry: Entry, lost: bool) {
        let connected = self.connected;
        if let Some(log) = self.logs.get_mut(&entry.chat) {
            log.entries.push(entry.clone());
            if connected && !lost {
                log.down.push_back(Wire::Entry(wire(&entry)));
            }
        }
    }

    /// Returns entries of one chat as the device should have them at the end: without what has vanished.
    pub fn without_gone(&self, entries: Vec<Entry>) -> Vec<Entry> {
        let hidden: BTreeSet<(ChatId, Seq)> = self.hidden();
        let is_due = |entry: &Entry| entry.expires_at().is_some_and(|at| at <= self.now);
        let gone = |entry: &Entry| match entry.kind() {
            Some(MessageKind::Unspecified | MessageKind::Message) => {
                hidden.contains(&(entry.chat, entry.seq)) || is_due(entry)
            }
            Some(MessageKind::Edit | MessageKind::Reaction) => {
                let target = entry.target();
                target.is_some_and(|target| hidden.contains(&(entry.chat, target)))
            }
            Some(MessageKind::Delete | MessageKind::Pin) | None => false,
        };
        let without = |entry: Entry| match (gone(&entry), entry.kind()) {
            (true, Some(kind)) => Entry {
                content: vanished(kind, entry.target()),
                ..entry
            },
            _ => entry,
        };
        entries.into_iter().map(without).collect()
    }

    fn hidden(&self) -> BTreeSet<(ChatId, Seq)> {
        let own = &self.logs[&ChatId::own(credentials().user)];
        let hides = own
            .entries
            .iter()
            .filter_map(|entry| match &entry.content.content {
                Some(Content::MessagesHidden(hidden)) => Some(hidden),
                _ => None,
            });
        let messages = hides.flat_map(|hidden| {
            let chat: ChatId = hidden.chat_id.parse().unwrap();
            hidden.seqs.iter().map(move |seq| (chat, Seq(*seq)))
        });
        messages.collect()
    }
}
