//! This module says what an entry does to the messages of its chat. Most entries are messages; others change an earlier
//! one.

use bytes::Bytes;
use tern_proto::v1::{self, MessageKind, entry_content::Content};
use tern_types::{Seq, UserId};

use super::{Entry, Outgoing};

/// The effect of an entry on the messages of its chat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act<'a> {
    /// It is a message.
    Message,
    /// It was a message. Its content was erased, because the message was deleted for everyone, or because it is gone
    /// without a trace ([`Entry::has_vanished`]).
    Erased,
    /// It replaces the envelope and the body of a message.
    Edit {
        /// The message.
        target: Seq,
        /// The new envelope.
        envelope: &'a v1::Envelope,
        /// The new body.
        body: &'a Bytes,
    },
    /// It deletes a message for everyone.
    Delete {
        /// The message.
        target: Seq,
    },
    /// It adds a reaction of its sender to a message, or takes it back.
    React {
        /// The message.
        target: Seq,
        /// The reaction, such as an emoji in UTF-8.
        key: &'a Bytes,
        /// True if the sender takes this reaction back.
        take_back: bool,
    },
    /// It pins a message for all members, or ends that.
    Pin {
        /// The message.
        target: Seq,
        /// True if the message is not pinned any more.
        take_back: bool,
    },
    /// It does nothing to messages: it changes the chat, it is an edit or a reaction whose content was erased, or this
    /// version does not know its kind.
    Nothing,
}

impl Act<'_> {
    /// Returns the seq of the message that is changed, or `None` if none is.
    pub fn target(&self) -> Option<Seq> {
        match *self {
            Self::Edit { target, .. }
            | Self::Delete { target }
            | Self::React { target, .. }
            | Self::Pin { target, .. } => Some(target),
            Self::Message | Self::Erased | Self::Nothing => None,
        }
    }
}

impl Entry {
    /// Returns what the entry does to the messages of its chat.
    pub fn act(&self) -> Act<'_> {
        match &self.content.content {
            Some(Content::Message(message)) => act(message.envelope.as_ref(), &message.body),
            Some(Content::Erased(_)) if self.kind() == Some(MessageKind::Message) => Act::Erased,
            _ => Act::Nothing,
        }
    }

    /// Returns the kind of the message that the entry is, or was before its content was erased. Returns `None` if it
    /// changes the chat, or if this version does not know the kind.
    pub fn kind(&self) -> Option<MessageKind> {
        let kind = match self.content.content.as_ref()? {
            // A message without an envelope is an ordinary one.
            Content::Message(message) => message.envelope.as_ref().map_or(0, |envelope| envelope.kind),
            Content::Erased(erased) => erased.kind,
            _ => return None,
        };
        match MessageKind::try_from(kind).ok()? {
            MessageKind::Unspecified => Some(MessageKind::Message),
            kind => Some(kind),
        }
    }

    /// Returns the seq of the message that the entry is about, or was about before its content was erased. Returns
    /// `None` if it is about none.
    pub fn target(&self) -> Option<Seq> {
        let target = match self.content.content.as_ref()? {
            Content::Message(message) => message.envelope.as_ref()?.target_seq,
            Content::Erased(erased) => erased.target_seq,
            _ => return None,
        };
        (self.kind()? != MessageKind::Message && target > 0).then_some(Seq(target))
    }

    /// Returns whether the entry is a message of any kind, or was one before its content was erased. Every other entry
    /// changes the chat, as far as this version knows.
    pub fn is_message(&self) -> bool {
        matches!(
            &self.content.content,
            Some(Content::Message(_) | Content::Erased(_))
        )
    }

    /// Returns whether the entry raises the chat's unread count. A message counts even after its content was erased. If
    /// it was `uncounted` before, it then counts too, because that is erased with the rest.
    pub fn counts_as_unread(&self) -> bool {
        match self.act() {
            Act::Message => !self
                .message()
                .and_then(|message| message.envelope.as_ref())
                .is_some_and(|envelope| envelope.uncounted),
            Act::Erased => true,
            _ => false,
        }
    }

    /// Returns whether the entry is a message that mentions this person and counts as unread for them.
    pub fn mentions(&self, user: UserId) -> bool {
        let envelope = self.message().and_then(|message| message.envelope.as_ref());
        let names = |id: &String| id.parse::<UserId>() == Ok(user);
        self.counts_as_unread()
            && self.sender != Some(user)
            && envelope.is_some_and(|envelope| envelope.mentioned_user_ids.iter().any(names))
    }
}

impl Outgoing {
    /// Returns what the message will do to the messages of its chat.
    pub fn act(&self) -> Act<'_> {
        act(Some(&self.envelope), &self.body)
    }
}

fn act<'a>(envelope: Option<&'a v1::Envelope>, body: &'a Bytes) -> Act<'a> {
    let Some(envelope) = envelope else {
        return Act::Message;
    };
    let (target, take_back) = (Seq(envelope.target_seq), envelope.take_back);
    match MessageKind::try_from(envelope.kind) {
        Ok(MessageKind::Unspecified | MessageKind::Message) => Act::Message,
        Ok(MessageKind::Edit) => Act::Edit {
            target,
            envelope,
            body,
        },
        Ok(MessageKind::Delete) => Act::Delete { target },
        Ok(MessageKind::Reaction) => Act::React {
            target,
            key: body,
            take_back,
        },
        Ok(MessageKind::Pin) => Act::Pin { target, take_back },
        Err(_) => Act::Nothing,
    }
}

/// Makes the content of an entry whose content was erased.
pub fn erased(kind: MessageKind, target: Option<Seq>) -> v1::EntryContent {
    let erased = v1::Erased {
        kind: kind.into(),
        target_seq: target.unwrap_or_default().0,
        ..Default::default()
    };
    v1::EntryContent {
        content: Some(Content::Erased(erased)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use tern_types::ChatId;

    use super::*;
    use crate::testing::entry;

    fn with(content: Option<Content>) -> Entry {
        Entry {
            content: v1::EntryContent {
                content,
                ..Default::default()
            },
            ..entry(ChatId(uuid::Uuid::from_u128(1)), 9)
        }
    }

    fn message(kind: i32, target_seq: u64) -> Entry {
        let envelope = v1::Envelope {
            kind,
            target_seq,
            ..Default::default()
        };
        with(Some(Content::Message(v1::Message {
            envelope: Some(envelope),
            body: "👍".into(),
        })))
    }

    #[test]
    fn an_entry_is_a_message_or_about_one_or_neither() {
        use MessageKind as Kind;
        let renamed = Content::ChatUpdated(v1::ChatUpdated::default());
        let gone = |kind, target| with(erased(kind, target).content);
        let bare = with(Some(Content::Message(v1::Message::default())));
        let cases = [
            ("no envelope", bare, Some(Kind::Message), None, true),
            ("a message", message(1, 0), Some(Kind::Message), None, true),
            (
                "one with a target",
                message(1, 4),
                Some(Kind::Message),
                None,
                true,
            ),
            ("an edit", message(2, 4), Some(Kind::Edit), Some(4), false),
            ("a deletion", message(3, 4), Some(Kind::Delete), Some(4), false),
            ("a reaction", message(4, 4), Some(Kind::Reaction), Some(4), false),
            ("a pin", message(5, 4), Some(Kind::Pin), Some(4), false),
            ("a kind to come", message(99, 4), None, None, false),
            ("a title", with(Some(renamed)), None, None, false),
            ("a content to come", with(None), None, None, false),
            (
                "an erased message",
                gone(Kind::Message, None),
                Some(Kind::Message),
                None,
                true,
            ),
            (
                "an erased reaction",
                gone(Kind::Reaction, Some(Seq(4))),
                Some(Kind::Reaction),
                Some(4),
                false,
            ),
        ];
        for (what, entry, kind, target, counts) in cases {
            assert_eq!(entry.kind(), kind, "{what}");
            assert_eq!(entry.target(), target.map(Seq), "{what}");
            assert_eq!(entry.counts_as_unread(), counts, "{what}");
        }
    }

    #[test]
    fn an_act_names_its_message_and_what_was_erased_does_nothing() {
        let reaction = message(4, 7);
        let key = Bytes::from("👍");
        let act = Act::React {
            target: Seq(7),
            key: &key,
            take_back: false,
        };
        assert_eq!((reaction.act(), act.target()), (act, Some(Seq(7))));
        let erased = |kind, target| with(erased(kind, target).content);
        let edit = erased(MessageKind::Edit, Some(Seq(7)));
        assert_eq!((edit.act(), edit.is_message()), (Act::Nothing, true));
        assert_eq!(erased(MessageKind::Message, None).act(), Act::Erased);
        assert!(!with(None).is_message());
    }
}
