//! Entries of a chat's log: messages, what is done to them, and changes of the chat.

use std::sync::Arc;

use bytes::Bytes;
use tern_types::{ChatId, DeviceId, MediaId, RequestId, Seq, Timestamp, TraceContext, UserId};

use crate::hint::PushHint;

/// A hash of a request's content: the first 16 bytes of a SHA-256. It tells a repetition of a request from another
/// request with the same request_id (rule 5).
pub type Fingerprint = [u8; 16];

/// The fingerprint of an entry whose content and fingerprint the store no longer has. Whoever repeats its request_id is
/// taken to repeat the request.
pub const FORGOTTEN: Fingerprint = [0; 16];

/// The kind of an entry. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum EntryKind {
    /// A message.
    Message = 1,
    /// Another content for a message.
    Edit = 2,
    /// The deletion of a message for everyone.
    Delete = 3,
    /// A reaction to a message.
    Reaction = 4,
    /// A pin on a message.
    Pin = 5,
    /// The first entry of a group.
    ChatCreated = 10,
    /// Users became members.
    MembersAdded = 11,
    /// A member was removed, or left.
    MemberRemoved = 12,
    /// A member got another role.
    RoleChanged = 13,
    /// The chat got another title, picture, description, policy or retention, or was frozen.
    ChatUpdated = 14,
    /// An entry of a user's own log.
    Own = 20,
}

impl EntryKind {
    /// Returns the number as it is stored.
    pub fn number(self) -> i16 {
        self as i16
    }

    /// Returns true for messages and what is done to them, and false for changes of the chat.
    pub fn is_message(self) -> bool {
        self.number() < Self::ChatCreated.number()
    }
}

/// A media object that an entry refers to. The sender proved by a ticket that they may attach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaRef {
    /// The object.
    pub media: MediaId,
    /// The time at which the ticket expires, by the wall clock. From then on the media may be deleted, and an entry
    /// that has no seq yet is refused.
    pub expires_at: Timestamp,
}

/// The part of an entry that is about an earlier message. The kind of the entry says what is done to the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The seq of the message.
    pub target: Seq,
    /// True if a reaction or a pin is taken back.
    pub take_back: bool,
    /// The body of a reaction, by which equal reactions are counted together. Empty for other kinds.
    pub reaction: Bytes,
}

/// An entry that has no seq yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The kind of the entry.
    pub kind: EntryKind,
    /// The user who sends the entry, or [`UserId::SYSTEM`].
    pub sender: UserId,
    /// The sending device, or [`DeviceId::BACK_END`].
    pub device: DeviceId,
    /// The request that the entry answers. A sender has one entry at most for each (rule 5).
    pub request: RequestId,
    /// The fingerprint of that request.
    pub fingerprint: Fingerprint,
    /// True if the entry counts as unread.
    pub counts: bool,
    /// The encoded `tern.v1.EntryContent`.
    pub content: Bytes,
    /// The media that the entry refers to, each once.
    pub media: Vec<MediaRef>,
    /// The earlier message that the entry is about, and what it says about it. `None` for kinds that stand alone.
    pub about: Option<About>,
    /// The message with which the entry's thread begins; `None` if it is in no thread. Whether there is such a message
    /// is not known.
    pub thread_root: Option<Seq>,
    /// The users whom the entry mentions, each once and without the sender. Whether they are members is not known.
    pub mentions: Vec<UserId>,
    /// The facts about its sending.
    pub sending: Sending,
    /// The seconds from its sending on after which the message disappears; 0: it stays. Before the entry has a seq,
    /// this is what its sender asked for. Afterwards it is what holds, and the content says it too.
    pub expires_after_s: u32,
    /// How the entry is announced by push notifications.
    pub hint: PushHint,
}

/// The facts about the sending of a message that the owner needs beside the entry itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sending {
    /// The trace context of the span that the message comes from; `None` if it is not traced. It is not stored.
    pub trace: Option<TraceContext>,
    /// The time at which the message arrived at this node, by the monotonic clock; `None` for changes by a unary call.
    /// It is not stored.
    pub arrived: Option<Timestamp>,
    /// True if the sender had read receipts turned off. Others are then not told that the sender has read the entries
    /// before this one. It is stored with the sender's read mark.
    pub read_receipts_off: bool,
    /// The seq up to which the sending device had acknowledged the chat when it sent this, as its gateway says. It is
    /// not stored.
    pub acked: Seq,
}

impl NewEntry {
    /// Makes a message that counts as unread. It refers to no media and to no other message, and the facts about its
    /// sending are the default.
    pub fn message(
        sender: UserId,
        device: DeviceId,
        request: RequestId,
        fingerprint: Fingerprint,
        content: Bytes,
    ) -> Self {
        Self {
            kind: EntryKind::Message,
            sender,
            device,
            request,
            fingerprint,
            counts: true,
            content,
            media: Vec::new(),
            about: None,
            thread_root: None,
            mentions: Vec::new(),
            sending: Sending::default(),
            expires_after_s: 0,
            hint: PushHint::Usual,
        }
    }

    /// Makes the entry of a change of the chat, which does not count as unread. It refers to no media, and the facts
    /// about its sending are the default.
    pub fn change(
        kind: EntryKind,
        actor: UserId,
        device: DeviceId,
        request: RequestId,
        fingerprint: Fingerprint,
        content: Bytes,
    ) -> Self {
        debug_assert!(!kind.is_message(), "the kind is that of a change");
        let hint = if kind == EntryKind::Own {
            PushHint::of_own(&content)
        } else {
            PushHint::Usual
        };
        Self {
            kind,
            counts: false,
            hint,
            ..Self::message(actor, device, request, fingerprint, content)
        }
    }

    /// Returns whether a back end sent the entry, in the sender's name or in nobody's.
    pub(crate) fn is_of_back_end(&self) -> bool {
        self.device == DeviceId::BACK_END
    }
}

/// An entry with its seq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The chat of the log.
    pub chat: ChatId,
    /// The place in the log.
    pub seq: Seq,
    /// The number of entries up to and with this one that count as unread: `tern.v1.Entry.ordinal`.
    pub ordinal: u64,
    /// The time at which the owner gave the entry its seq, by the wall clock, but never before that of the entry below
    /// it.
    pub sent_at: Timestamp,
    /// The entry itself.
    pub new: Arc<NewEntry>,
}
