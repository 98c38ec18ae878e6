//! The delivery of entries to devices, and the acknowledgements of devices.

use tern_chat_core::Origin;
use tern_chat_core::shard::{Event, Pushed, WakesDone, Woken};
use tern_types::{RequestId, Seq, SessionId, UserId};
use uuid::Uuid;

use super::World;

impl World {
    /// Delivers a push to the devices of these users that are online.
    pub(super) fn push(&mut self, users: &[UserId], what: &Pushed) {
        for n in 0..self.devices.len() {
            if !self.devices[n].online || !users.contains(&self.devices[n].user) {
                continue;
            }
            match what {
                Pushed::Entry(entry) => self.take(n, entry.seq),
                Pushed::Added(_) => self.read(n),
                Pushed::Receipt { .. } | Pushed::Notice { .. } => {}
            }
        }
    }

    /// Gives a device an entry. A device that knows nothing of the chat first asks for the place where it begins.
    pub(super) fn take(&mut self, n: usize, seq: Seq) {
        let device = &mut self.devices[n];
        assert!(
            self.store.interval(device.user, seq).is_some(),
            "rule 7: {seq:?} is of a time when its reader was no member"
        );
        if device.cursor.is_none() {
            let resume = self.store.resume(device.user, device.id);
            // A user who is not a member any more is told nothing of the chat. A new device then begins with the first
            // entry that it gets.
            let begins = resume.unwrap_or(seq.previous());
            if resume.is_none() {
                device.base = device.base.max(begins);
            }
            device.cursor = Some(begins);
        }
        device.take(seq);
    }

    /// Performs a wake: the gateways of the devices that are online become responsible.
    pub(super) fn wake(&mut self, node: usize, fails: bool) {
        let Some((upto, missing)) = self.nodes[node].wakes.pop_front() else {
            return;
        };
        if !fails {
            for missing in missing {
                if let Some(n) = self
                    .devices
                    .iter()
                    .position(|device| device.id == missing.device && device.online)
                {
                    self.drain(n);
                }
            }
        }
        self.apply(
            node,
            Event::WakesDone(WakesDone {
                chat: self.chat,
                log: 0,
                upto,
                woken: if fails { Woken::NotAll } else { Woken::All },
            }),
        );
    }

    /// Brings a device online, which reads what it is owed if it has an inbox row.
    pub(super) fn connect(&mut self, n: usize) {
        self.devices[n].online = true;
        if self.store.inbox.contains_key(&self.devices[n].id) {
            self.drain(n);
        }
    }

    /// Lets a device with an inbox row read what it is owed.
    fn drain(&mut self, n: usize) {
        self.devices[n].row = true;
        self.read(n);
    }

    /// Reads the log for the device from its place, as `store/entries.rs` does. A wake may name a seq above that
    /// place, because another owner may have written a lower row.
    fn read(&mut self, n: usize) {
        let from = self.store.place(self.devices[n].user, self.devices[n].id);
        for seq in (from.0..=self.store.head().0).map(Seq) {
            let Some(interval) = self.store.interval(self.devices[n].user, seq) else {
                continue;
            };
            if interval.joined == seq {
                self.devices[n].skip(seq.previous());
            }
            self.take(n, seq);
        }
        self.devices[n].unacked = true;
    }

    /// Sends the acknowledgement of a device that is online and has something to acknowledge.
    pub(super) fn ack(&mut self, node: usize, n: usize) {
        let device = &mut self.devices[n];
        let Some(cursor) = device.cursor.filter(|_| device.online && device.unacked) else {
            return;
        };
        let origin = Origin::Link {
            link: n as u64,
            reference: 0,
            session: SessionId(0),
            request: RequestId(Uuid::nil()),
        };
        let (user, id, seq, write) = (device.user, device.id, cursor, device.row);
        // An acknowledgement that is to be written is repeated until its row is gone.
        device.unacked = write;
        self.apply(
            node,
            Event::Ack {
                origin,
                chat: self.chat,
                user,
                device: id,
                seq,
                write,
            },
        );
    }
}
