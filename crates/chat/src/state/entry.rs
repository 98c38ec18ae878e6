//! Items of a chat's log.

use std::sync::Arc;

use bytes::Bytes;
use tern_types::{ChatId, DeviceId, RequestId, Seq, Timestamp, TraceContext, UserId};

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
    /// Of the span that it comes from, where it is traced. Not stored.
    pub trace: Option<TraceContext>,
    /// When a message came to this node. Not stored.
    pub arrived: Option<Timestamp>,
    /// Its sender turned read receipts off: nobody is told that they have read what stands before it. Stored with the
    /// read mark.
    pub read_receipts_off: bool,
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
