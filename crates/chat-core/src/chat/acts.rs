//! The numbers of what one person does to one message. Each of these acts is an entry of the log, and takes work when
//! the message is deleted, so they are bounded.
//!
//! The store counts them, and refuses the commit of one too many as if the head had moved. The load that follows brings
//! the numbers for the commands that wait, by which the owner refuses. So an act is not looked up before it is
//! committed.

use tern_types::limits::MAX_ACTS_PER_PERSON;
use tern_types::{IdMap, Seq, UserId};

use crate::entry::{EntryKind, NewEntry};

/// The acts that are counted together: those of one person, of one kind, on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Acts {
    /// The seq of the message.
    pub target: Seq,
    /// The person.
    pub user: UserId,
    /// The kind: edits, or reactions with those that are taken back.
    pub kind: EntryKind,
}

impl Acts {
    /// Returns the acts among which the entry counts, and `None` if its kind is not counted.
    pub fn of(entry: &NewEntry) -> Option<Self> {
        let about = entry.about.as_ref()?;
        let counts = matches!(entry.kind, EntryKind::Edit | EntryKind::Reaction);
        counts.then_some(Self {
            target: about.target,
            user: entry.sender,
            kind: entry.kind,
        })
    }
}

/// The numbers that the last load brought, with what this owner committed since. They are those of the commands that
/// waited for the load, so there are no more of them than commands of one chat may wait.
#[derive(Debug, Default)]
pub(super) struct ActCounts(IdMap<Acts, u32>);

impl ActCounts {
    /// Takes over the numbers of a load. Returns whether one of them has reached the bound.
    pub fn load(&mut self, counts: Vec<(Acts, u32)>) -> bool {
        self.0 = counts.into_iter().collect();
        self.0.values().any(|count| *count >= MAX_ACTS_PER_PERSON)
    }

    /// Counts an entry that is committed, if its number is known.
    pub fn committed(&mut self, entry: &NewEntry) {
        if let Some(count) = Acts::of(entry).and_then(|acts| self.0.get_mut(&acts)) {
            *count = count.saturating_add(1);
        }
    }

    /// Returns whether the sender is known to have done this as often as one person may.
    pub fn are_spent(&self, entry: &NewEntry) -> bool {
        let count = Acts::of(entry).and_then(|acts| self.0.get(&acts));
        count.is_some_and(|count| *count >= MAX_ACTS_PER_PERSON)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tern_types::{DeviceId, RequestId};
    use uuid::Uuid;

    use super::*;
    use crate::target::About;

    fn entry(user: u128, kind: EntryKind, target: u64, take_back: bool) -> NewEntry {
        let id = Uuid::from_u128(user);
        let about = About {
            target: Seq(target),
            take_back,
            reaction: Bytes::new(),
        };
        NewEntry {
            kind,
            about: Some(about),
            ..NewEntry::message(UserId(id), DeviceId(id), RequestId(id), [0; 16], Bytes::new())
        }
    }

    #[test]
    fn edits_and_reactions_are_counted_by_person_and_message() {
        use EntryKind::{Delete, Edit, Pin, Reaction};
        let reaction = Acts::of(&entry(1, Reaction, 7, false));
        assert!(reaction.is_some());
        assert_eq!(reaction, Acts::of(&entry(1, Reaction, 7, true)), "taken back");
        for other in [
            entry(2, Reaction, 7, false),
            entry(1, Reaction, 8, false),
            entry(1, Edit, 7, false),
        ] {
            assert!(Acts::of(&other).is_some());
            assert_ne!(Acts::of(&other), reaction, "{other:?}");
        }
        for kind in [Delete, Pin] {
            assert_eq!(Acts::of(&entry(1, kind, 7, false)), None, "{kind:?}");
        }
    }

    #[test]
    fn what_is_known_is_counted_on_up_to_the_bound() {
        let (mine, other) = (
            entry(1, EntryKind::Reaction, 7, false),
            entry(2, EntryKind::Reaction, 7, false),
        );
        let mut counts = ActCounts::default();
        assert!(!counts.are_spent(&mine), "nothing is known yet");
        let acts = Acts::of(&mine).unwrap();
        assert!(!counts.load(vec![(acts, MAX_ACTS_PER_PERSON - 1)]));
        assert!(!counts.are_spent(&mine));
        counts.committed(&other);
        assert!(!counts.are_spent(&mine), "another person's do not count");
        counts.committed(&mine);
        assert!(counts.are_spent(&mine));
        assert!(!counts.are_spent(&other));
        assert!(counts.load(vec![(acts, MAX_ACTS_PER_PERSON)]));
        assert!(!counts.load(Vec::new()), "a load replaces what was known");
        assert!(!counts.are_spent(&mine));
    }
}
