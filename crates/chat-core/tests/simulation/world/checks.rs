//! The rules that must hold after each step, and those that must hold once the world is at rest.

use std::collections::BTreeSet;

use tern_chat_core::EntryKind;
use tern_types::{DeviceId, Seq, UserId};

use super::device::Device;
use super::step::Request;
use super::{HISTORY, OLD, World};

impl World {
    /// Checks the rules that hold after each step.
    pub fn check_always(&self) {
        for (place, entry) in self.store.log.iter().enumerate() {
            assert_eq!(entry.seq, Seq(place as u64 + 1), "rule 2: no gaps");
        }
        for (request, seq) in &self.placed {
            let entry = &self.store.log[seq.0 as usize - 1];
            assert_eq!(
                entry.new.request,
                self.requests[*request].id(),
                "rule 1: acknowledged is in the log"
            );
        }
        self.check_targets();
    }

    /// Checks that the message that a request is about is none for its sender, as the sender was told: it is no message,
    /// it was deleted, or it is older than the sender's membership. None of these ends, so it does not matter when the
    /// node that says so has read the store.
    pub(super) fn check_is_not_there(&self, request: &Request) {
        let Request::Send(entry) = request else { return };
        let about = entry.about.as_ref().expect("a request about an entry");
        let target = &self.store.log[about.target.0 as usize - 1];
        let sees = self.store.members.iter().any(|interval| {
            interval.user == entry.sender && interval.left.is_none() && interval.joined <= about.target
        });
        let is_there = target.new.kind == EntryKind::Message && !self.store.erased().contains(&about.target);
        assert!(!(sees && is_there), "{entry:?} is about an entry that is there");
    }

    /// Checks that nothing was done to an entry that is no message or was deleted before, or by somebody who may not.
    fn check_targets(&self) {
        let (owner, mut deleted) = (self.people[0], BTreeSet::new());
        for entry in &self.store.log {
            let Some(about) = &entry.new.about else { continue };
            let target = &self.store.log[about.target.0 as usize - 1];
            assert!(target.seq < entry.seq && target.new.kind == EntryKind::Message);
            assert!(!deleted.contains(&target.seq), "{entry:?} comes after a deletion");
            let (by, own) = (entry.new.sender, target.new.sender == entry.new.sender);
            let sees = self.store.members.iter().any(|interval| {
                let lasts = interval.left.is_none_or(|left| left > entry.seq);
                interval.user == by && interval.joined <= target.seq && lasts
            });
            assert!(
                sees,
                "{entry:?} is about an entry of before its sender's membership"
            );
            match entry.new.kind {
                EntryKind::Edit => assert!(own, "{entry:?}"),
                EntryKind::Delete => {
                    assert!(own || by == owner, "{entry:?}");
                    deleted.insert(target.seq);
                }
                EntryKind::Pin => assert_eq!(by, owner),
                _ => {}
            }
        }
    }

    /// Checks the rules that hold once the world is at rest.
    pub fn check_quiet(&self) {
        self.check_always();
        assert!(
            self.unanswered.is_empty(),
            "everybody got an answer: {:?}",
            self.unanswered
        );
        let requests: BTreeSet<_> = self.store.log.iter().map(|entry| entry.new.request).collect();
        assert_eq!(requests.len(), self.store.log.len(), "rule 5: nothing twice");
        let placed = self
            .placed
            .values()
            .map(|seq| self.store.log[seq.0 as usize - 1].new.request);
        let declined = self.declined.iter().map(|request| self.requests[*request].id());
        let told: BTreeSet<_> = placed.chain(declined).collect();
        let untold = requests.difference(&told).count() as u64;
        assert_eq!(
            untold,
            HISTORY - OLD,
            "who has an entry in the log was told of it"
        );
        for device in &self.devices {
            self.check_complete(device);
        }
        let owed = self.store.inbox.iter().filter(|(device, _)| {
            // Nobody can acknowledge for a user without a device.
            let waits_for_a_device = |user: &UserId| **device == DeviceId::reserved(*user);
            !self.people.iter().any(waits_for_a_device)
        });
        let owed: Vec<_> = owed.collect();
        assert!(owed.is_empty(), "nothing is owed: {owed:?}");
        assert!(
            self.store.unsettled.is_empty(),
            "everything is settled: {:?}",
            self.store.unsettled
        );
    }

    /// Checks that the device has every entry that it is entitled to.
    fn check_complete(&self, device: &Device) {
        let its = self
            .store
            .members
            .iter()
            .filter(|interval| interval.user == device.user);
        for interval in its.filter(|interval| interval.devices.contains(&device.id)) {
            let from = interval.joined.max(device.base.next());
            let to = interval.left.unwrap_or(self.store.head());
            for seq in (from.0..=to.0).map(Seq) {
                assert!(
                    device.stored.contains(&seq),
                    "a device has not got {seq:?} of {interval:?}"
                );
            }
        }
    }
}
