//! A device and its gateway.

use std::collections::BTreeSet;

use bytes::Bytes;
use tern_chat_core::{EntryKind, NewEntry, Sending};
use tern_types::{DeviceId, RequestId, Seq, UserId};

pub struct Device {
    pub user: UserId,
    pub id: DeviceId,
    pub online: bool,
    /// The device has stored every entry up to here; `None`: it knows nothing of the chat yet.
    pub cursor: Option<Seq>,
    /// The entries that it stored since the start.
    pub stored: BTreeSet<Seq>,
    /// Entries up to here were before the device's time.
    pub base: Seq,
    /// Its gateway knows of an inbox row, so acknowledgements are written.
    pub row: bool,
    pub unacked: bool,
}

impl Device {
    pub fn new(user: UserId, id: DeviceId, base: Seq) -> Self {
        Self {
            user,
            id,
            online: false,
            cursor: None,
            stored: BTreeSet::new(),
            base,
            row: false,
            unacked: false,
        }
    }

    /// The device gets an entry, and stores it only if it is the next one (rule 6). An entry further ahead is dropped
    /// here, which is the hardest case.
    pub fn take(&mut self, seq: Seq) {
        if self.cursor.is_some_and(|cursor| seq == cursor.next()) {
            self.cursor = Some(seq);
            self.stored.insert(seq);
        }
        self.unacked = true;
    }

    /// The device gets a Skipped: there is nothing for it up to here.
    pub fn skip(&mut self, to: Seq) {
        self.cursor = Some(self.cursor.map_or(to, |cursor| cursor.max(to)));
    }
}

/// A message from this device.
pub fn message(from: &Device) -> NewEntry {
    NewEntry {
        sending: Sending::default(),
        media: Vec::new(),
        kind: EntryKind::Message,
        sender: from.user,
        device: from.id,
        request: RequestId::random(),
        fingerprint: [1; 16],
        counts: true,
        content: Bytes::new(),
    }
}
