//! A [`Message`] is a message as it is now: what it says after its last edit, who has reacted to it, whether it is
//! pinned, and whether it was deleted. The log has only what happened, one entry after the other; [`Messages`] puts
//! that together.

use std::collections::BTreeMap;

use bytes::Bytes;
use tern_proto::v1::{self, MessageKind, entry_content::Content};
use tern_types::{Seq, Timestamp, UserId};

use super::Entry;
use super::act::{Act, erased};

/// A message as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The message's entry. Its content is that of the last edit, if the message was edited, and is erased if the
    /// message was deleted. [`Entry::text`] and [`Entry::attached`] read it.
    pub entry: Entry,
    /// The time of the last edit. `None`: the message says what it said first.
    pub edited_at: Option<Timestamp>,
    /// Present if the message was deleted for everyone.
    pub deleted: Option<Deletion>,
    /// The time of the deletion. `None`: the message was not deleted, or the deletion's own entry has not come yet.
    pub deleted_at: Option<Timestamp>,
    /// True if the message is pinned.
    pub pinned: bool,
    /// The seq of the entry that pinned the message. `None`: it is not pinned, or that entry is not in the log yet.
    pub pinned_seq: Option<Seq>,
    /// The number of messages that this device has of the thread that begins with this one, also of those that were
    /// deleted.
    pub reply_count: u32,
    /// The time at which the message disappears, by the server's clock. `None`: it stays.
    pub expires_at: Option<Timestamp>,
    /// The reactions to the message, in the order in which each was made first.
    pub reactions: Vec<Reaction>,
}

/// A choice among the messages of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// The messages in the thread that begins with this one, without the message itself.
    Thread(Seq),
    /// The messages of this person.
    Sender(UserId),
    /// The messages with attachments.
    WithAttachments,
    /// The pinned messages.
    Pinned,
}

/// The circumstances of an act.
#[derive(Debug, Clone, Copy)]
struct Done {
    who: Option<UserId>,
    at: Timestamp,
    /// The seq of the change's own entry. `None`: it is not in the log yet.
    seq: Option<Seq>,
}

/// The deletion of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// The person who deleted the message. `None`: a back end did in nobody's name, or the deletion's own entry has not
    /// come yet.
    pub by: Option<UserId>,
}

/// Equal reactions to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// The body of the reactions, such as an emoji in UTF-8.
    pub key: Bytes,
    /// The people who reacted so, each once, in the order in which they did. [`UserId::SYSTEM`] stands for a back end
    /// in nobody's name.
    pub users: Vec<UserId>,
}

impl Reaction {
    /// Returns the reaction as text. Bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.key)
    }

    /// Returns the number of people who reacted so.
    pub fn count(&self) -> usize {
        self.users.len()
    }

    /// Returns whether this person reacted so.
    pub fn is_by(&self, user: UserId) -> bool {
        self.users.contains(&user)
    }
}

impl Message {
    /// Makes a message of its entry. Returns `None` if the entry is no message, or if the message has vanished.
    fn new(entry: &Entry) -> Option<Self> {
        let deleted = match entry.act() {
            Act::Message => None,
            Act::Erased if !entry.has_vanished() => Some(Deletion { by: None }),
            _ => return None,
        };
        Some(Self {
            entry: entry.clone(),
            edited_at: None,
            deleted,
            deleted_at: None,
            pinned: false,
            pinned_seq: None,
            reply_count: 0,
            expires_at: entry.expires_at(),
            reactions: Vec::new(),
        })
    }

    /// Returns the seq of the message that this one replies to, or `None` if it is no reply.
    pub fn reply_to(&self) -> Option<Seq> {
        self.envelope_seq(|envelope| envelope.reply_to_seq)
    }

    /// Returns the seq of the message with which this one's thread begins, or `None` if it is in no thread.
    pub fn thread_root(&self) -> Option<Seq> {
        self.envelope_seq(|envelope| envelope.thread_root_seq)
    }

    /// Returns how often the message had been passed on when it was sent.
    pub fn times_forwarded(&self) -> u32 {
        self.envelope().map_or(0, |envelope| envelope.times_forwarded)
    }

    /// Returns whether this person has made this reaction to the message.
    pub fn has_reaction(&self, user: UserId, key: &[u8]) -> bool {
        let mut reactions = self.reactions.iter();
        reactions.any(|reaction| reaction.key == key && reaction.is_by(user))
    }

    /// Returns the envelope, or `None` if the message was deleted or has none.
    pub(super) fn envelope(&self) -> Option<&v1::Envelope> {
        self.entry.message()?.envelope.as_ref()
    }

    fn envelope_seq(&self, seq: impl Fn(&v1::Envelope) -> u64) -> Option<Seq> {
        self.envelope().map(seq).filter(|seq| *seq > 0).map(Seq)
    }

    /// Applies what was done to the message. Acts come in the order of their seqs.
    fn apply(&mut self, act: Act<'_>, done: Done) {
        let who = done.who;
        match act {
            Act::Delete { .. } => self.delete(done),
            // Nothing can be done to a message that was deleted.
            _ if self.deleted.is_some() => {}
            // Only the sender may edit a message. The server refuses all others, and so does this device.
            Act::Edit { envelope, body, .. } if who == self.entry.sender => {
                self.edit(envelope, body, done.at)
            }
            Act::React { key, take_back, .. } => self.react(key, who.unwrap_or(UserId::SYSTEM), take_back),
            Act::Pin { take_back, .. } => {
                self.pinned = !take_back;
                self.pinned_seq = done.seq.filter(|_| !take_back);
            }
            Act::Edit { .. } | Act::Message | Act::Erased | Act::Nothing => {}
        }
    }

    fn edit(&mut self, envelope: &v1::Envelope, body: &Bytes, at: Timestamp) {
        let envelope = v1::Envelope {
            kind: MessageKind::Message.into(),
            target_seq: 0,
            ..envelope.clone()
        };
        self.entry.content.content = Some(Content::Message(v1::Message {
            envelope: Some(envelope),
            body: body.clone(),
        }));
        self.entry.unknown.clear();
        self.edited_at = Some(at);
    }

    fn delete(&mut self, done: Done) {
        let known = self.deleted.and_then(|deletion| deletion.by);
        self.deleted = Some(Deletion {
            by: known.or(done.who),
        });
        self.deleted_at = self.deleted_at.or(Some(done.at));
        self.entry.content = erased(MessageKind::Message, None);
        self.entry.unknown.clear();
        (self.edited_at, self.pinned, self.pinned_seq) = (None, false, None);
        self.reactions.clear();
    }

    fn react(&mut self, key: &Bytes, who: UserId, take_back: bool) {
        let at = self.reactions.iter().position(|reaction| reaction.key == key);
        match (at, take_back) {
            (Some(at), true) => {
                let users = &mut self.reactions[at].users;
                users.retain(|user| *user != who);
                if users.is_empty() {
                    self.reactions.remove(at);
                }
            }
            (Some(at), false) if !self.reactions[at].is_by(who) => self.reactions[at].users.push(who),
            (None, false) => self.reactions.push(Reaction {
                key: key.clone(),
                users: vec![who],
            }),
            // The person has this reaction already, or nobody has the one that is taken back. Nothing changes.
            (Some(_), false) | (None, true) => {}
        }
    }
}

/// Messages of one chat as they are now, by their seqs. They are collected from entries of the chat in the order of
/// their seqs. What is done to a message that is not among the entries does nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Messages(BTreeMap<Seq, Message>);

impl Messages {
    /// Applies an entry, whose seq is above those of the entries before.
    pub fn add(&mut self, entry: &Entry) {
        let Some(message) = Message::new(entry) else {
            let done = Done {
                who: entry.sender,
                at: entry.sent_at,
                seq: Some(entry.seq),
            };
            return self.done(entry.act(), done);
        };
        let root = message.thread_root().filter(|root| *root < entry.seq);
        if let Some(root) = root.and_then(|root| self.0.get_mut(&root)) {
            root.reply_count = root.reply_count.saturating_add(1);
        }
        self.0.insert(entry.seq, message);
    }

    /// Applies what the person `who` did at the time `at`. Example: what waits in the outbox is shown as if it had been
    /// done already.
    pub fn apply(&mut self, act: Act<'_>, who: Option<UserId>, at: Timestamp) {
        self.done(act, Done { who, at, seq: None });
    }

    fn done(&mut self, act: Act<'_>, done: Done) {
        if let Some(message) = act.target().and_then(|target| self.0.get_mut(&target)) {
            message.apply(act, done);
        }
    }

    /// Sets how many messages the thread has that begins with this message, if it is here.
    pub fn set_reply_count(&mut self, root: Seq, count: u32) {
        if let Some(message) = self.0.get_mut(&root) {
            message.reply_count = count;
        }
    }

    /// Returns the message with this seq, or `None` if it is not here.
    pub fn get(&self, seq: Seq) -> Option<&Message> {
        self.0.get(&seq)
    }

    /// Returns the messages, ascending by seq.
    pub fn into_values(self) -> impl DoubleEndedIterator<Item = Message> {
        self.0.into_values()
    }
}

impl<'a> FromIterator<&'a Entry> for Messages {
    fn from_iter<I: IntoIterator<Item = &'a Entry>>(entries: I) -> Self {
        let mut messages = Self::default();
        entries.into_iter().for_each(|entry| messages.add(entry));
        messages
    }
}

#[cfg(test)]
mod tests {
    use tern_types::ChatId;

    use super::*;
    use crate::model::Outgoing;
    use crate::testing::{entry, user};

    const CHAT: ChatId = ChatId(uuid::Uuid::from_u128(1));

    /// Makes the entry of a message that the user with this number has sent.
    fn sent(seq: u64, number: u128, message: Outgoing) -> Entry {
        let content = v1::Message {
            envelope: Some(message.envelope),
            body: message.body,
        };
        Entry {
            sender: Some(user(number)),
            sent_at: Timestamp(i64::try_from(seq).unwrap()),
            content: v1::EntryContent {
                content: Some(Content::Message(content)),
                ..Default::default()
            },
            ..entry(CHAT, seq)
        }
    }

    /// Makes messages in which the user 2 has written "hello" with the seq 1, and then these entries have come.
    fn after(entries: Vec<Entry>) -> Messages {
        let hello = sent(1, 2, Outgoing::new(CHAT, "hello"));
        std::iter::once(&hello).chain(&entries).collect()
    }

    fn edit(body: &'static str) -> Outgoing {
        Outgoing::edit(after(vec![]).get(Seq(1)).unwrap(), body)
    }

    fn react(key: &'static str, take_back: bool) -> Outgoing {
        Outgoing::reaction(CHAT, Seq(1), key, take_back)
    }

    #[test]
    fn the_last_edit_of_the_sender_counts_and_nobody_elses() {
        let messages = after(vec![
            sent(2, 2, edit("hallo")),
            sent(3, 2, edit("good day")),
            sent(4, 3, edit("forged")),
        ]);
        let message = messages.get(Seq(1)).unwrap();
        assert_eq!(message.entry.text().as_deref(), Some("good day"));
        assert_eq!(message.edited_at, Some(Timestamp(3)));
        assert_eq!(
            message.entry.kind(),
            Some(MessageKind::Message),
            "it is still a message"
        );
        assert_eq!(messages.into_values().count(), 1, "edits are no messages");
    }

    #[test]
    fn equal_reactions_are_counted_together_and_each_person_counts_once() {
        let messages = after(vec![
            sent(2, 3, react("👍", false)),
            sent(3, 1, react("👍", false)),
            sent(4, 1, react("👍", false)),
            sent(5, 1, react("🐟", false)),
            sent(6, 3, react("👍", true)),
            sent(7, 3, react("👍", true)),
            sent(8, 3, react("never made", true)),
            sent(9, 1, react("🐟", true)),
        ]);
        let message = messages.get(Seq(1)).unwrap();
        let expected = Reaction {
            key: "👍".into(),
            users: vec![user(1)],
        };
        assert_eq!(message.reactions, [expected]);
        assert!(message.has_reaction(user(1), "👍".as_bytes()));
        assert!(!message.has_reaction(user(3), "👍".as_bytes()));
    }

    #[test]
    fn nothing_is_left_of_a_deleted_message_but_who_deleted_it() {
        let messages = after(vec![
            sent(2, 3, react("👍", false)),
            sent(3, 3, Outgoing::pin(CHAT, Seq(1), false)),
            sent(4, 2, edit("hallo")),
            sent(5, 1, Outgoing::delete(CHAT, Seq(1))),
            sent(6, 3, react("👍", false)),
            sent(7, 2, edit("back again")),
            sent(8, 3, Outgoing::delete(CHAT, Seq(1))),
        ]);
        let message = messages.get(Seq(1)).unwrap();
        assert_eq!(message.deleted, Some(Deletion { by: Some(user(1)) }));
        assert_eq!((message.entry.text(), message.entry.act()), (None, Act::Erased));
        assert_eq!((message.edited_at, message.pinned), (None, false));
        assert_eq!(
            (message.deleted_at, message.pinned_seq),
            (Some(Timestamp(5)), None)
        );
        assert_eq!(message.reactions, []);
    }

    #[test]
    fn who_deleted_a_message_is_known_when_the_deletions_own_entry_comes() {
        let gone = Entry {
            content: erased(MessageKind::Message, None),
            ..entry(CHAT, 4)
        };
        let deletion = sent(6, 3, Outgoing::delete(CHAT, Seq(4)));
        for (entries, by) in [(vec![gone.clone()], None), (vec![gone, deletion], Some(user(3)))] {
            let messages = after(entries);
            assert_eq!(messages.get(Seq(4)).unwrap().deleted, Some(Deletion { by }));
        }
    }

    #[test]
    fn what_is_done_to_a_message_that_is_not_here_does_nothing() {
        let missing = Seq(99);
        let messages = after(vec![
            sent(2, 2, Outgoing::delete(CHAT, missing)),
            sent(3, 2, Outgoing::pin(CHAT, missing, false)),
        ]);
        assert_eq!(messages, after(vec![]));
    }

    #[test]
    fn a_message_is_pinned_until_that_is_taken_back() {
        let pin = |seq, take_back| sent(seq, 3, Outgoing::pin(CHAT, Seq(1), take_back));
        let pinned = |entries| after(entries).get(Seq(1)).unwrap().pinned;
        assert!(pinned(vec![pin(2, false)]));
        assert!(!pinned(vec![pin(2, false), pin(3, true)]));
        let messages = after(vec![pin(2, false), pin(3, true), pin(4, false)]);
        assert_eq!(messages.get(Seq(1)).unwrap().pinned_seq, Some(Seq(4)));
    }

    #[test]
    fn the_replies_of_a_thread_are_counted_also_those_that_were_deleted() {
        let reply = |seq| sent(seq, 3, Outgoing::new(CHAT, "and so").in_thread(Seq(1)));
        let elsewhere = sent(4, 3, Outgoing::new(CHAT, "x").in_thread(Seq(99)));
        let deletion = sent(5, 3, Outgoing::delete(CHAT, Seq(2)));
        let messages = after(vec![reply(2), reply(3), elsewhere, deletion]);
        let count = |seq| messages.get(Seq(seq)).unwrap().reply_count;
        assert_eq!((count(1), count(2)), (2, 0));
    }

    #[test]
    fn what_has_vanished_is_no_message_and_takes_what_was_done_to_it_along() {
        let gone = Entry {
            content: crate::model::vanished(MessageKind::Message, None),
            ..entry(CHAT, 4)
        };
        let messages = after(vec![gone, sent(5, 3, Outgoing::pin(CHAT, Seq(4), false))]);
        assert_eq!(messages, after(vec![]));
    }
}
