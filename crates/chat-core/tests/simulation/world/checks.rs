//! The rules that must hold after each step, and those that must hold once the world is at rest.

use std::collections::{BTreeSet, HashMap};

use tern_chat_core::chat::Acts;
use tern_chat_core::target::Windows;
use tern_chat_core::{Entry, EntryKind, NewEntry, Refusal};
use tern_types::limits::MAX_ACTS_PER_PERSON;
use tern_types::{DeviceId, Seq, UserId};

use super::device::Device;
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

    /// Checks that the reason for which an entry about a message was refused is so. None of the reasons ends, so it
    /// does not matter when the node that says so has read the store.
    pub(super) fn check_refusal(&self, entry: &NewEntry, refusal: &Refusal) {
        let Some(about) = &entry.about else { return };
        let target = &self.store.log[about.target.0 as usize - 1];
        let own = target.new.sender == entry.sender;
        let by_owner = entry.sender == self.people[0];
        let (age, windows) = (self.now.since(target.sent_at), Windows::default());
        match refusal {
            Refusal::TargetNotFound => self.check_is_not_there(entry, target),
            Refusal::NotAllowed => {
                let may = match entry.kind {
                    EntryKind::Edit => own,
                    EntryKind::Delete => own || by_owner,
                    EntryKind::Pin => by_owner,
                    _ => true,
                };
                assert!(!may, "{entry:?} is allowed");
            }
            Refusal::TooOld => {
                let late = match entry.kind {
                    EntryKind::Edit => own && age > windows.edit,
                    EntryKind::Delete => own && !by_owner && age > windows.delete,
                    _ => false,
                };
                assert!(late, "{entry:?} is in time");
            }
            Refusal::TooManyActs => {
                let count = Acts::of(entry).map_or(0, |acts| self.store.count(acts));
                assert!(count >= MAX_ACTS_PER_PERSON, "{entry:?} is number {count}");
            }
            _ => {}
        }
    }

    /// Checks that the message that an entry is about is none for its sender: it is no message, it was deleted, or it
    /// is older than the sender's membership.
    fn check_is_not_there(&self, entry: &NewEntry, target: &Entry) {
        let sees = self.store.members.iter().any(|interval| {
            interval.user == entry.sender && interval.left.is_none() && interval.joined <= target.seq
        });
        let is_there = target.new.kind == EntryKind::Message && !self.store.erased().contains(&target.seq);
        assert!(!(sees && is_there), "{entry:?} is about an entry that is there");
    }

    /// Checks that nothing was done to an entry that is no message or was deleted before, by somebody who may not, too
    /// late or too often.
    fn check_targets(&self) {
        let (owner, mut deleted) = (self.people[0], BTreeSet::new());
        let (mut counts, windows) = (HashMap::new(), Windows::default());
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
            if let Some(acts) = Acts::of(&entry.new) {
                let count = counts.entry(acts).or_insert(0);
                *count += 1;
                assert!(*count <= MAX_ACTS_PER_PERSON, "{entry:?} is number {count}");
            }
            match entry.new.kind {
                EntryKind::Edit => {
                    assert!(own, "{entry:?}");
                    let late = entry.sent_at.since(target.sent_at) > windows.edit;
                    assert!(!late, "{entry:?} comes too late");
                }
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
