//! Entries of a chat's log: messages, reactions, and changes of the chat.

use std::sync::Arc;

use bytes::Bytes;
use tern_types::{ChatId, DeviceId, MediaId, RequestId, Seq, Timestamp, TraceContext, UserId};

/// A hash of what a request asks for: the first 16 bytes of a SHA-256. Two different requests with one request_id
/// have different fingerprints.
pub type Fingerprint = [u8; 16];

/// The kind of an entry. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum EntryKind {
    Message = 1,
    Reaction = 4,
    ChatCreated = 10,
    MembersAdded = 11,
    MemberRemoved = 12,
    RoleChanged = 13,
    ChatUpdated = 14,
}

impl EntryKind {
    /// The number as it is stored.
    pub fn number(self) -> i16 {
        self as i16
    }

    /// Whether history shows the entry: true for messages and reactions, false for changes of the chat.
    pub fn is_message(self) -> bool {
        self.number() < Self::ChatCreated.number()
    }
}

/// A media object that an entry refers to. The sender proved by a ticket that they may attach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaRef {
    pub media: MediaId,
    /// When the ticket expires. From then on the media may be deleted.
    pub expires_at: Timestamp,
}

/// An entry that has no seq yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    pub kind: EntryKind,
    pub sender: UserId,
    pub device: DeviceId,
    pub request: RequestId,
    pub fingerprint: Fingerprint,
    /// Whether the entry counts as unread.
    pub counts: bool,
    /// The encoded `tern.v1.EntryContent`.
    pub content: Bytes,
    /// The media that the entry refers to, each once.
    pub media: Vec<MediaRef>,
    /// How it was sent.
    pub sending: Sending,
}

/// The facts about a message's sender and its way that the owner needs beside the entry itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sending {
    /// The trace context of the span that the message comes from; `None` if it is not traced. Not stored.
    pub trace: Option<TraceContext>,
    /// When the message arrived at this node, by the monotonic clock; `None` for changes by a unary call. Not stored.
    pub arrived: Option<Timestamp>,
    /// The sender had read receipts turned off: others are not told that the sender has read the entries before this
    /// one. Stored with the sender's read mark.
    pub read_receipts_off: bool,
    /// How far the sending device had acknowledged the chat when it sent this, as its gateway says. Not stored.
    pub acked: Seq,
}

impl NewEntry {
    /// Whether a back end sent the entry in the sender's name.
    pub fn is_of_back_end(&self) -> bool {
        self.device == DeviceId::BACK_END
    }
}

/// An entry with its seq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub chat: ChatId,
    pub seq: Seq,
    /// How many entries up to this one count as unread: `tern.v1.Entry.ordinal`.
    pub ordinal: u64,
    /// When the owner gave the entry its seq, by the wall clock, but never before the entry below it.
    pub sent_at: Timestamp,
    pub new: Arc<NewEntry>,
}
