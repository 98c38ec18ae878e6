//! A device, and the facts that its gateway knows of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use tern_chat_core::target::About;
use tern_chat_core::{EntryKind, NewEntry};
use tern_types::limits::MAX_ACTS_PER_PERSON;
use tern_types::{DeviceId, RequestId, Seq, UserId};

/// A device.
pub struct Device {
    pub user: UserId,
    pub id: DeviceId,
    pub online: bool,
    /// The seq up to which the device has stored every entry; `None` if it knows nothing of the chat yet.
    pub cursor: Option<Seq>,
    /// The seqs of the entries that it stored since the start.
    pub stored: BTreeSet<Seq>,
    /// The seq up to which the entries were before the device's time.
    pub base: Seq,
    /// True if its gateway knows of an inbox row, so that acknowledgements are written.
    pub row: bool,
    /// True if it has something to acknowledge.
    pub unacked: bool,
}

impl Device {
    /// Makes a device that is offline and knows nothing of the chat.
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

    /// Gives the device an entry, which it stores only if it is the next one (rule 6). An entry further ahead is
    /// dropped here, which is the hardest case.
    pub fn take(&mut self, seq: Seq) {
        if self.cursor.is_some_and(|cursor| seq == cursor.next()) {
            self.cursor = Some(seq);
            self.stored.insert(seq);
        }
        self.unacked = true;
    }

    /// Gives the device a `Skipped`: there is nothing for it up to `to`.
    pub fn skip(&mut self, to: Seq) {
        self.cursor = Some(self.cursor.map_or(to, |cursor| cursor.max(to)));
    }
}

/// Makes the `count` requests of a log: messages of all devices in turn, and from the 51st on reactions of the third
/// device. It has reacted to the second message as often as one person may, and to the first once less.
pub fn history(devices: &[Device], count: u64) -> Vec<NewEntry> {
    let most = u64::from(MAX_ACTS_PER_PERSON);
    let request = |n: u64| {
        let to = match n.checked_sub(50) {
            Some(n) if n < most => 2,
            Some(n) if n < 2 * most - 1 => 1,
            _ => return message(&devices[n as usize % devices.len()]),
        };
        about(&devices[2], EntryKind::Reaction, Seq(to), false)
    };
    (0..count).map(request).collect()
}

/// Makes an entry of this kind about the entry at `target`, from this device.
pub fn about(from: &Device, kind: EntryKind, target: Seq, take_back: bool) -> NewEntry {
    NewEntry {
        kind,
        counts: false,
        about: Some(About {
            target,
            take_back,
            reaction: Bytes::new(),
        }),
        ..message(from)
    }
}

/// Makes a new message from this device.
pub fn message(from: &Device) -> NewEntry {
    NewEntry::message(from.user, from.id, RequestId::random(), [1; 16], Bytes::new())
}
