//! A device and its gateway.

use std::collections::BTreeSet;

use bytes::Bytes;
use tern_chat::state::{EntryKind, NewEntry};
use tern_types::{DeviceId, RequestId, Seq, UserId};

pub struct Device {
    pub user: UserId,
    pub id: DeviceId,
    pub online: bool,
    /// Stored without a gap up to here; `None`: it knows nothing of the chat yet.
    pub cursor: Option<Seq>,
    /// What it stored since the start.
    pub stored: BTreeSet<Seq>,
    /// What lies up to here was before its time.
    pub base: Seq,
    /// Its gateway knows of a row: acknowledgements are written.
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

    /// Rule 6: a forward is a hint; applied once, in order. What is ahead is dropped here: the hardest case.
    pub fn take(&mut self, seq: Seq) {
        if self.cursor.is_some_and(|cursor| seq == cursor.next()) {
            self.cursor = Some(seq);
            self.stored.insert(seq);
        }
        self.unacked = true;
    }

    /// There is nothing for it up to here.
    pub fn skip(&mut self, to: Seq) {
        self.cursor = Some(self.cursor.map_or(to, |cursor| cursor.max(to)));
    }
}

/// A message of this device's.
pub fn message(from: &Device) -> NewEntry {
    NewEntry {
        media: Vec::new(),
        trace: None,
        arrived: None,
        read_receipts_off: false,
        acked: Seq::ZERO,
        kind: EntryKind::Message,
        sender: from.user,
        device: from.id,
        request: RequestId::random(),
        fingerprint: [1; 16],
        counts: true,
        content: Bytes::new(),
    }
}
