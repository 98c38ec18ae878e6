//! This module says when a message disappears, and what then stands in its place.

use std::time::Duration;

use tern_proto::v1::{self, MessageKind, entry_content::Content};
use tern_types::{Seq, Timestamp};

use super::Entry;
use super::act::{Act, erased};

impl Entry {
    /// Returns the time at which the content disappears, by the server's clock. Returns `None` if it stays, or if it was
    /// erased already.
    pub fn expires_at(&self) -> Option<Timestamp> {
        let after = self.content.expires_after_s;
        (after > 0 && self.has_erasable_content()).then(|| self.sent_at + Duration::from_secs(after.into()))
    }

    /// Returns whether nothing is to be shown in the place of this message: it has disappeared, was not kept by the
    /// server, or the person has deleted it for themselves.
    pub fn has_vanished(&self) -> bool {
        matches!(&self.content.content, Some(Content::Erased(erased)) if erased.expired)
    }

    /// Completes the entry of an own message that was made from the result of its send, which does not say whether the
    /// message disappears. `disappear_after_s` is the chat's time in seconds, and 0 means that messages stay. An edit or
    /// a reaction has no time of its own here: it goes with its message, which may be older than the chat's time.
    pub(crate) fn complete_expiry(&mut self, disappear_after_s: u32) {
        let from_result = self.ordinal == 0 && self.content.expires_after_s == 0;
        if !from_result || self.act() != Act::Message {
            return;
        }
        let envelope = self.message().and_then(|message| message.envelope.as_ref());
        let own = envelope.map_or(0, |envelope| envelope.time_to_live_s);
        let times = [own, disappear_after_s].into_iter().filter(|time| *time > 0);
        self.content.expires_after_s = times.min().unwrap_or(0);
    }

    /// Returns whether the entry has a content that can be erased: that of a message, an edit or a reaction.
    fn has_erasable_content(&self) -> bool {
        let kind = self.kind().filter(|_| self.message().is_some());
        kind.is_some_and(|kind| match kind {
            MessageKind::Unspecified | MessageKind::Message | MessageKind::Edit | MessageKind::Reaction => {
                true
            }
            MessageKind::Delete | MessageKind::Pin => false,
        })
    }
}

/// Makes the content of an entry in whose place nothing is shown, see [`Entry::has_vanished`].
pub fn vanished(kind: MessageKind, target: Option<Seq>) -> v1::EntryContent {
    let mut content = erased(kind, target);
    if let Some(Content::Erased(erased)) = &mut content.content {
        erased.expired = true;
    }
    content
}

#[cfg(test)]
mod tests {
    use tern_types::ChatId;

    use super::*;
    use crate::model::Outgoing;
    use crate::testing::{NOW, entry};

    const CHAT: ChatId = ChatId(uuid::Uuid::from_u128(1));

    /// Returns an entry that was made from the result of a send.
    fn sent(message: Outgoing, time_to_live_s: u32) -> Entry {
        let mut envelope = message.envelope;
        envelope.time_to_live_s = time_to_live_s;
        let content = v1::Message {
            envelope: Some(envelope),
            body: message.body,
        };
        Entry {
            ordinal: 0,
            content: v1::EntryContent {
                content: Some(Content::Message(content)),
                ..Default::default()
            },
            ..entry(CHAT, 9)
        }
    }

    #[test]
    fn an_own_message_disappears_after_the_shorter_one_of_two_times() {
        let plain = || Outgoing::new(CHAT, "hello");
        for (message, own, of_chat, expected) in [
            (plain(), 0, 0, None),
            (plain(), 60, 0, Some(60)),
            (plain(), 0, 30, Some(30)),
            (plain(), 60, 30, Some(30)),
            (plain(), 5, 30, Some(5)),
            (Outgoing::reaction(CHAT, Seq(1), "👍", false), 0, 30, None),
            (Outgoing::delete(CHAT, Seq(1)), 0, 30, None),
            (Outgoing::pin(CHAT, Seq(1), false), 0, 30, None),
        ] {
            let mut entry = sent(message, own);
            entry.complete_expiry(of_chat);
            let expected = expected.map(|after| NOW + Duration::from_secs(after));
            assert_eq!(entry.expires_at(), expected, "{own} {of_chat}");
        }
        // The message that it replaces may stay, or go earlier.
        let mut edit = Outgoing::new(CHAT, "new");
        edit.envelope.kind = MessageKind::Edit.into();
        edit.envelope.target_seq = 1;
        let mut edit = sent(edit, 60);
        edit.complete_expiry(30);
        assert_eq!(edit.expires_at(), None, "it goes with its message");
        let mut of_server = Entry {
            ordinal: 9,
            ..sent(plain(), 60)
        };
        of_server.complete_expiry(30);
        assert_eq!(of_server.expires_at(), None, "the server has said it");
    }

    #[test]
    fn what_has_vanished_disappears_no_more() {
        for (content, gone) in [
            (vanished(MessageKind::Message, None), true),
            (erased(MessageKind::Message, None), false),
        ] {
            let entry = Entry {
                content: v1::EntryContent {
                    expires_after_s: 30,
                    ..content
                },
                ..entry(CHAT, 9)
            };
            assert_eq!((entry.has_vanished(), entry.expires_at()), (gone, None));
        }
    }
}
