//! Decides what a device sends to a chat: a message, or a reaction to an earlier one, an edit or a deletion.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1::{Envelope, MessageKind};

use crate::bench::meter::Clock;
use crate::bench::slim::Content;

/// The share of reactions among all that is sent.
const REACTIONS: f64 = 0.12;
/// The share of edits.
const EDITS: f64 = 0.03;
/// The share of deletions.
const DELETIONS: f64 = 0.01;
/// The bytes of a reaction. It is longer than an emoji, because it carries the time at which it was made.
const REACTION: u32 = 16;

/// Something to send to a chat. The number is the seq of the message that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Say,
    React(u64),
    Edit(u64),
    Delete(u64),
}

impl Deed {
    /// Returns the envelope and the body with which this is sent. The body contains the present time, except for a
    /// deletion, which has none. `body` is the length of a message's body in bytes.
    pub fn message(self, clock: &Clock, body: u32) -> (Envelope, Bytes) {
        let (kind, target_seq, body) = match self {
            Self::Say => return (Envelope::default(), clock.stamp(body)),
            Self::React(target) => (MessageKind::Reaction, target, clock.stamp(REACTION)),
            Self::Edit(target) => (MessageKind::Edit, target, clock.stamp(body)),
            Self::Delete(target) => (MessageKind::Delete, target, Bytes::new()),
        };
        let envelope = Envelope {
            kind: kind.into(),
            target_seq,
            ..Default::default()
        };
        (envelope, body)
    }
}

/// The messages of one chat to which a device may do something.
///
/// Nothing may be refused, and who reacts to a message cannot know that it is being deleted. So only messages with an
/// even seq are edited and reacted to, and only those with an odd one are deleted, each once.
#[derive(Debug, Default)]
pub struct Known {
    /// The newest message of somebody else to which a reaction is possible.
    to_react: Option<u64>,
    /// The newest message of the device that it may edit.
    to_edit: Option<u64>,
    /// The newest message of the device that it may delete.
    to_delete: Option<u64>,
}

impl Known {
    /// Notes a message of somebody else.
    pub fn heard(&mut self, seq: u64) {
        if seq.is_multiple_of(2) {
            self.to_react = Some(seq);
        }
    }

    /// Notes a message of the device that has its place.
    pub fn sent(&mut self, seq: u64) {
        if seq.is_multiple_of(2) {
            self.to_edit = Some(seq);
        } else {
            self.to_delete = Some(seq);
        }
    }

    /// Returns whether the chat certainly has a message.
    pub fn is_begun(&self) -> bool {
        [self.to_react, self.to_edit, self.to_delete]
            .iter()
            .any(Option::is_some)
    }

    /// Returns what to send next. `chance` is a random number from 0 to 1. If there is no message to which the device
    /// could do what chance says, it sends a message.
    pub fn choose(&mut self, chance: f64) -> Deed {
        let deed = if chance < DELETIONS {
            self.to_delete.take().map(Deed::Delete)
        } else if chance < DELETIONS + EDITS {
            self.to_edit.map(Deed::Edit)
        } else if chance < DELETIONS + EDITS + REACTIONS {
            self.to_react.map(Deed::React)
        } else {
            None
        };
        deed.unwrap_or(Deed::Say)
    }
}

/// The numbers of reactions, edits and deletions that were sent during the whole run.
#[derive(Debug, Default)]
pub struct Counts {
    reactions: AtomicU64,
    edits: AtomicU64,
    deletions: AtomicU64,
}

impl Counts {
    /// Counts what is sent.
    pub fn add(&self, deed: Deed) {
        let count = match deed {
            Deed::Say => return,
            Deed::React(_) => &self.reactions,
            Deed::Edit(_) => &self.edits,
            Deed::Delete(_) => &self.deletions,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the sum of all.
    pub fn total(&self) -> u64 {
        let counts = [&self.reactions, &self.edits, &self.deletions];
        counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [reactions, edits, deletions] =
            [&self.reactions, &self.edits, &self.deletions].map(|count| count.load(Ordering::Relaxed));
        write!(f, "{reactions} reactions, {edits} edits, {deletions} deletions")
    }
}

/// The part of a delivered entry that matters here.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    /// True if it is a message that says something, and neither about another one nor deleted.
    pub is_message: bool,
    /// The body, which contains the time at which it was made. Without content it is empty.
    pub body: Bytes,
}

impl Delivered {
    /// Reads an encoded `EntryContent`. Returns `None` if it changes the chat: nobody has sent that here.
    pub fn read(content: Bytes) -> Option<Self> {
        let content = Content::decode(content).ok()?;
        let is_message = content.message.as_ref().is_some_and(|message| {
            let kind = message.envelope.as_ref().map_or(0, |envelope| envelope.kind);
            matches!(
                MessageKind::try_from(kind),
                Ok(MessageKind::Unspecified | MessageKind::Message)
            )
        });
        match (content.message, content.erased) {
            (Some(message), _) => Some(Self {
                is_message,
                body: message.body,
            }),
            (None, Some(_)) => Some(Self {
                is_message,
                body: Bytes::new(),
            }),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tern_proto::v1::{ChatCreated, EntryContent, Erased, Message, entry_content};

    use super::*;

    #[test]
    fn nobody_reacts_to_what_may_be_deleted_and_nothing_is_deleted_twice() {
        let (delete, edit, react, say) = (0.005, 0.02, 0.1, 0.5);
        let mut known = Known::default();
        for chance in [delete, edit, react, say] {
            assert_eq!(known.choose(chance), Deed::Say, "there is no message");
        }
        assert!(!known.is_begun());
        for seq in [3, 4] {
            known.heard(seq);
        }
        for seq in [5, 6, 7] {
            known.sent(seq);
        }
        assert!(known.is_begun());
        assert_eq!(known.choose(react), Deed::React(4));
        assert_eq!(known.choose(edit), Deed::Edit(6));
        assert_eq!(known.choose(delete), Deed::Delete(7));
        assert_eq!(known.choose(delete), Deed::Say);
        assert_eq!(known.choose(say), Deed::Say);
    }

    #[test]
    fn a_delivery_is_read_whatever_became_of_its_content() {
        let content = |content| {
            EntryContent {
                content: Some(content),
                ..Default::default()
            }
            .encoded()
        };
        let clock = Clock::start();
        let sent = |deed: Deed| {
            let (envelope, body) = deed.message(&clock, 200);
            let message = Message {
                envelope: Some(envelope),
                body,
            };
            Delivered::read(content(entry_content::Content::Message(message))).unwrap()
        };
        let said = sent(Deed::Say);
        assert_eq!((said.is_message, said.body.len()), (true, 200));
        assert!(clock.age_of(&said.body).is_some());
        let reaction = sent(Deed::React(2));
        assert_eq!((reaction.is_message, reaction.body.len()), (false, 16));
        assert!(clock.age_of(&reaction.body).is_some());
        assert_eq!(sent(Deed::Edit(2)).body.len(), 200);
        assert!(sent(Deed::Delete(3)).body.is_empty());
        let erased = content(entry_content::Content::Erased(Erased::default()));
        let erased = Delivered::read(erased).unwrap();
        assert_eq!((erased.is_message, erased.body.len()), (false, 0));
        let created = content(entry_content::Content::ChatCreated(ChatCreated::default()));
        assert_eq!(Delivered::read(created), None);
    }
}
