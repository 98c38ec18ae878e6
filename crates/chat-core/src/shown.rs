//! An entry as its readers are shown it, whether it is pushed to them or they read it from the log.

use bytes::Bytes;
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Seq, Timestamp, UserId};

use crate::entry::Entry;

/// The parts of an entry that its readers are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The chat of the log.
    pub chat: ChatId,
    /// The place in the log.
    pub seq: Seq,
    /// The number of entries up to and with this one that count as unread.
    pub ordinal: u64,
    /// The time of the entry, by the wall clock.
    pub sent_at: Timestamp,
    /// The user who sent the entry, or [`UserId::SYSTEM`].
    pub sender: UserId,
    /// The sending device, or [`DeviceId::BACK_END`].
    pub device: DeviceId,
    /// The request that the entry answers.
    pub request: RequestId,
    /// The encoded `tern.v1.EntryContent`.
    pub content: Bytes,
}

impl Shown {
    /// Returns the entry as the public API has it. The sender is empty if it is the system, and the device if it is a
    /// back end.
    pub fn into_wire(self) -> v1::Entry {
        let text = |is_shown: bool, id: &dyn std::fmt::Display| {
            if is_shown { id.to_string() } else { String::new() }
        };
        v1::Entry {
            chat_id: self.chat.to_string(),
            seq: self.seq.0,
            sent_at_ms: self.sent_at.0,
            sender_user_id: text(self.sender != UserId::SYSTEM, &self.sender),
            sender_device_id: text(self.device != DeviceId::BACK_END, &self.device),
            request_id: self.request.to_string(),
            ordinal: self.ordinal,
            content: self.content,
        }
    }
}

impl From<&Entry> for Shown {
    fn from(entry: &Entry) -> Self {
        Self {
            chat: entry.chat,
            seq: entry.seq,
            ordinal: entry.ordinal,
            sent_at: entry.sent_at,
            sender: entry.new.sender,
            device: entry.new.device,
            request: entry.new.request,
            content: entry.new.content.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::entry::NewEntry;

    fn shown(sender: UserId, device: DeviceId) -> v1::Entry {
        let request = RequestId(Uuid::from_u128(3));
        let new = NewEntry::message(sender, device, request, [0; 16], Bytes::from_static(b"content"));
        let entry = Entry {
            chat: ChatId(Uuid::from_u128(4)),
            seq: Seq(5),
            ordinal: 6,
            sent_at: Timestamp(7),
            new: Arc::new(new),
        };
        Shown::from(&entry).into_wire()
    }

    #[test]
    fn an_entry_is_shown_with_its_sender_unless_that_is_the_system_or_a_back_end() {
        let (user, device) = (UserId(Uuid::from_u128(1)), DeviceId(Uuid::from_u128(2)));
        let whole = v1::Entry {
            chat_id: Uuid::from_u128(4).to_string(),
            seq: 5,
            sent_at_ms: 7,
            sender_user_id: user.to_string(),
            sender_device_id: device.to_string(),
            request_id: Uuid::from_u128(3).to_string(),
            ordinal: 6,
            content: Bytes::from_static(b"content"),
        };
        assert_eq!(shown(user, device), whole);
        let by_back_end = shown(user, DeviceId::BACK_END);
        assert_eq!(
            (by_back_end.sender_user_id, by_back_end.sender_device_id),
            (user.to_string(), String::new())
        );
        let by_system = shown(UserId::SYSTEM, DeviceId::BACK_END);
        assert_eq!(by_system.sender_user_id, "");
    }
}
