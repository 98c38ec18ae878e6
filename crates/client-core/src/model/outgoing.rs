//! This module makes the messages that change, answer or pass on others.

use bytes::Bytes;
use tern_proto::v1::{self, MessageKind};
use tern_types::Seq;

use super::message::Message;
use super::{Outgoing, To};

impl Outgoing {
    /// Makes an edit, which replaces the body of the person's own message. The rest of the message stays: what it
    /// replies to, its mentions, its attachments. If it has attachments, their tickets have to be renewed before the
    /// edit is sent.
    pub fn edit(message: &Message, body: impl Into<Bytes>) -> Self {
        let edit = Self::about(message.entry.chat, MessageKind::Edit, message.entry.seq, body);
        let before = message.envelope().cloned().unwrap_or_default();
        let envelope = v1::Envelope {
            kind: edit.envelope.kind,
            target_seq: edit.envelope.target_seq,
            traceparent: String::new(),
            ..before
        };
        Self { envelope, ..edit }
    }

    /// Makes a deletion, which deletes a message for everyone.
    pub fn delete(to: impl Into<To>, target: Seq) -> Self {
        Self::about(to, MessageKind::Delete, target, Bytes::new())
    }

    /// Makes a reaction of 1 to 64 bytes to a message, such as an emoji. With `take_back` it takes the person's equal
    /// reaction back.
    pub fn reaction(to: impl Into<To>, target: Seq, key: impl Into<Bytes>, take_back: bool) -> Self {
        let mut reaction = Self::about(to, MessageKind::Reaction, target, key);
        reaction.envelope.take_back = take_back;
        reaction
    }

    /// Pins a message for all members. With `take_back` it ends that the message is pinned.
    pub fn pin(to: impl Into<To>, target: Seq, take_back: bool) -> Self {
        let mut pin = Self::about(to, MessageKind::Pin, target, Bytes::new());
        pin.envelope.take_back = take_back;
        pin
    }

    /// Makes a message that says the same in another chat, and that it was passed on once more. What belongs to the
    /// first chat is left out: what the message replies to, its thread, its mentions. If it has attachments, their
    /// tickets have to be renewed before it is sent. Returns `None` if the message was deleted.
    pub fn forward(message: &Message, to: impl Into<To>) -> Option<Self> {
        let content = message.entry.message()?;
        let mut forward = Self::new(to, content.body.clone());
        forward.envelope.times_forwarded = message.times_forwarded().saturating_add(1);
        if let Some(before) = &content.envelope {
            forward.envelope.attachments.clone_from(&before.attachments);
        }
        Some(forward)
    }

    /// Makes the message a reply to another one of the chat.
    #[must_use]
    pub fn replying_to(mut self, message: Seq) -> Self {
        self.envelope.reply_to_seq = message.0;
        self
    }

    /// Makes the message a part of the thread that begins with this message of the chat.
    #[must_use]
    pub fn in_thread(mut self, root: Seq) -> Self {
        self.envelope.thread_root_seq = root.0;
        self
    }

    fn about(to: impl Into<To>, kind: MessageKind, target: Seq, body: impl Into<Bytes>) -> Self {
        let mut message = Self::new(to, body);
        (message.envelope.kind, message.envelope.target_seq) = (kind.into(), target.0);
        message
    }
}

#[cfg(test)]
mod tests {
    use tern_proto::v1::entry_content::Content;
    use tern_types::{ChatId, UserId};

    use super::*;
    use crate::model::{Entry, Messages};
    use crate::testing::entry;

    const CHAT: ChatId = ChatId(uuid::Uuid::from_u128(1));

    /// Returns a message with all that an envelope can say.
    fn message() -> Message {
        let envelope = v1::Envelope {
            kind: MessageKind::Message.into(),
            reply_to_seq: 3,
            thread_root_seq: 2,
            mentioned_user_ids: vec![UserId::SYSTEM.to_string()],
            traceparent: "00-x".to_owned(),
            attachments: vec![v1::Attachment {
                media_id: "a picture".to_owned(),
                ..Default::default()
            }],
            times_forwarded: 4,
            ..Default::default()
        };
        let content = v1::Message {
            envelope: Some(envelope),
            body: "hello".into(),
        };
        let entry = Entry {
            content: v1::EntryContent {
                content: Some(Content::Message(content)),
                ..Default::default()
            },
            ..entry(CHAT, 9)
        };
        let messages: Messages = std::iter::once(&entry).collect();
        messages.get(Seq(9)).unwrap().clone()
    }

    #[test]
    fn an_edit_keeps_what_it_does_not_change() {
        let message = message();
        let edit = Outgoing::edit(&message, "hallo");
        assert_eq!((edit.to, edit.body.as_ref()), (To::Chat(CHAT), &b"hallo"[..]));
        let expected = v1::Envelope {
            kind: MessageKind::Edit.into(),
            target_seq: 9,
            traceparent: String::new(),
            ..message.envelope().unwrap().clone()
        };
        assert_eq!(edit.envelope, expected);
    }

    #[test]
    fn what_is_passed_on_says_nothing_of_the_chat_that_it_comes_from() {
        let other = ChatId(uuid::Uuid::from_u128(2));
        let forward = Outgoing::forward(&message(), other).unwrap();
        assert_eq!(forward.body.as_ref(), b"hello");
        let expected = v1::Envelope {
            kind: MessageKind::Message.into(),
            attachments: message().envelope().unwrap().attachments.clone(),
            times_forwarded: 5,
            ..Default::default()
        };
        assert_eq!(forward.envelope, expected);
    }

    #[test]
    fn a_reply_and_a_part_of_a_thread_are_messages() {
        let reply = Outgoing::new(CHAT, "yes").replying_to(Seq(7)).in_thread(Seq(5));
        let seqs = (reply.envelope.reply_to_seq, reply.envelope.thread_root_seq);
        assert_eq!(seqs, (7, 5));
        assert_eq!(reply.act(), crate::model::Act::Message);
    }
}
