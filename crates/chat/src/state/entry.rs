//! Items of a chat's log.

use std::sync::Arc;

use bytes::Bytes;
use tern_types::{ChatId, DeviceId, MediaId, RequestId, Seq, Timestamp, TraceContext, UserId};

/// Tells two requests under one request_id apart: the first 16 bytes of a SHA-256.
pub type Fingerprint = [u8; 16];

/// What an entry is; the number is stored.
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
    pub fn number(self) -> i16 {
        self as i16
    }

    /// Whether a person's history shows it as a message.
    pub fn is_message(self) -> bool {
        self.number() < Self::ChatCreated.number()
    }
}

/// Media that an entry refers to, by a ticket of its sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaRef {
    pub media: MediaId,
    /// When the ticket ends: from then on the media may be deleted.
    pub expires_at: Timestamp,
}

/// An entry without a place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    pub kind: EntryKind,
    pub sender: UserId,
    pub device: DeviceId,
    pub request: RequestId,
    pub fingerprint: Fingerprint,
    /// Whether unread counts rise by it.
    pub counts: bool,
    /// Encoded `tern.v1.EntryContent`.
    pub content: Bytes,
    /// Each media once.
    pub media: Vec<MediaRef>,
    /// Of the span that it comes from, where it is traced. Not stored.
    pub trace: Option<TraceContext>,
    /// When a message came to this node. Not stored.
    pub arrived: Option<Timestamp>,
    /// Its sender turned read receipts off: nobody is told that they have read what stands before it. Stored with the
    /// read mark.
    pub read_receipts_off: bool,
    /// What the sending device had of the chat when it sent this, as it said. Not stored.
    pub acked: Seq,
}

impl NewEntry {
    /// Sent by a back end, in the sender's name.
    pub fn is_of_back_end(&self) -> bool {
        self.device == DeviceId::BACK_END
    }
}

/// An entry with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub chat: ChatId,
    pub seq: Seq,
    pub ordinal: u64,
    pub sent_at: Timestamp,
    pub new: Arc<NewEntry>,
}
