//! The senders of a chat's newest entries. They tell whose messages a receipt concerns, and how many of a member's own
//! messages lie after their read mark.

use std::collections::VecDeque;

use tern_types::{Seq, UserId};

/// The most entries that are remembered, at 17 bytes each: as many as a device is behind while it catches up. A receipt
/// for older entries goes to all members who sent anything since.
const REMEMBERED: usize = 256;

/// The senders of the newest entries, up to the head and without a gap.
#[derive(Debug, Default)]
pub struct Authors {
    /// The seq of the first entry that is remembered.
    first: Seq,
    /// The entries from `first` on, ascending and without a gap.
    entries: VecDeque<Authored>,
}

#[derive(Debug, Clone, Copy)]
struct Authored {
    sender: UserId,
    /// True if the entry counts as unread.
    counts: bool,
}

impl Authors {
    /// Remembers the entries that were loaded with the chat, and nothing else. `entries` are seq, sender and ordinal,
    /// ascending. The memory goes back from the head to the first seq that is missing.
    ///
    /// An entry counts as unread if its ordinal is higher than that of the entry before. So the oldest entry is
    /// remembered only if it is the chat's first; otherwise nobody knows whether it counts. For example, of the entries
    /// 1, 3, 4 and 5 of a chat whose head is 5, only 4 and 5 are remembered.
    pub fn load(&mut self, head: Seq, entries: impl DoubleEndedIterator<Item = (Seq, UserId, u64)>) {
        *self = Self {
            first: head.next(),
            entries: VecDeque::new(),
        };
        let mut oldest: Option<(UserId, u64)> = None;
        for (seq, sender, ordinal) in entries.rev() {
            let expected = match oldest {
                Some(_) => self.first.previous().previous(),
                None => self.first.previous(),
            };
            if seq != expected || self.entries.len() >= REMEMBERED {
                break;
            }
            if let Some((sender, its)) = oldest.replace((sender, ordinal)) {
                self.push_front(sender, its > ordinal);
            }
        }
        if let Some((sender, ordinal)) = oldest
            && self.first == Seq(2)
        {
            self.push_front(sender, ordinal > 0);
        }
    }

    /// Adds the entry before the first.
    fn push_front(&mut self, sender: UserId, counts: bool) {
        self.first = self.first.previous();
        self.entries.push_front(Authored { sender, counts });
    }

    /// Adds the entry that is now the head. Its seq must be the one after the last entry.
    pub fn push(&mut self, seq: Seq, sender: UserId, counts: bool) {
        if self.entries.is_empty() {
            self.first = seq;
        }
        debug_assert_eq!(
            seq.0,
            self.first.0 + self.entries.len() as u64,
            "the entries have no gap"
        );
        self.entries.push_back(Authored { sender, counts });
        if self.entries.len() > REMEMBERED {
            self.entries.pop_front();
            self.first = self.first.next();
        }
    }

    /// Returns the senders of the entries after `since`, up to `upto`; `None` if not all entries after `since` are
    /// remembered.
    pub fn between(&self, since: Seq, upto: Seq) -> Option<impl Iterator<Item = UserId>> {
        let after = self.after(since)?;
        let count = usize::try_from(upto.0.saturating_sub(since.0)).unwrap_or(usize::MAX);
        Some(after.take(count).map(|entry| entry.sender))
    }

    /// Returns how many entries after `since` the sender sent that count as unread; `None` if not all entries after
    /// `since` are remembered.
    pub fn counted(&self, sender: UserId, since: Seq) -> Option<u32> {
        let own = self.after(since)?.filter(|entry| entry.sender == sender);
        u32::try_from(own.filter(|entry| entry.counts).count()).ok()
    }

    /// Returns the seq and sender of each remembered entry that counts as unread.
    pub(crate) fn all_counted(&self) -> impl Iterator<Item = (Seq, UserId)> {
        let seqs = (self.first.0..).map(Seq);
        let counted = seqs.zip(&self.entries).filter(|(_, entry)| entry.counts);
        counted.map(|(seq, entry)| (seq, entry.sender))
    }

    /// Returns whether all entries after `since` are remembered.
    pub fn reach(&self, since: Seq) -> bool {
        since.next() >= self.first
    }

    /// Returns the entries after `since`; `None` if not all of them are remembered.
    fn after(&self, since: Seq) -> Option<impl Iterator<Item = &Authored>> {
        let skipped = usize::try_from(since.next().0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        self.reach(since).then(|| self.entries.iter().skip(skipped))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn user(n: u64) -> UserId {
        UserId(Uuid::from_u128(n.into()))
    }

    fn between(authors: &Authors, since: u64, upto: u64) -> Option<Vec<UserId>> {
        Some(authors.between(Seq(since), Seq(upto))?.collect())
    }

    #[test]
    fn they_are_known_as_far_back_as_nothing_is_missing() {
        let mut authors = Authors::default();
        // Entry 5 does not count as unread: it has the ordinal of entry 4.
        let entries = [(1, 1), (3, 2), (4, 3), (5, 3), (6, 4)].map(|(n, ordinal)| (Seq(n), user(n), ordinal));
        authors.load(Seq(6), entries.into_iter());
        assert_eq!(between(&authors, 4, 6), Some(vec![user(5), user(6)]));
        assert_eq!(between(&authors, 3, 4), Some(vec![user(4)]));
        assert_eq!(between(&authors, 2, 6), None, "whether 3 counts is not known");
        assert_eq!(
            (authors.counted(user(5), Seq(4)), authors.counted(user(6), Seq(4))),
            (Some(0), Some(1))
        );
        assert_eq!(
            authors.all_counted().map(|(seq, _)| seq.0).collect::<Vec<_>>(),
            [4, 6]
        );
        authors.push(Seq(7), user(7), true);
        assert_eq!(between(&authors, 5, 100), Some(vec![user(6), user(7)]));
        assert_eq!(between(&authors, 7, 7), Some(vec![]));
    }

    #[test]
    fn a_new_chat_is_known_from_its_first_entry_on_and_only_the_newest_are_kept() {
        let mut authors = Authors::default();
        authors.load(Seq::ZERO, std::iter::empty());
        for n in 1..=300 {
            authors.push(Seq(n), user(n), n % 2 == 0);
        }
        assert_eq!(between(&authors, 43, 60), None);
        assert_eq!(between(&authors, 44, 45), Some(vec![user(45)]));
        assert_eq!(between(&authors, 298, 300), Some(vec![user(299), user(300)]));
        assert_eq!(authors.counted(user(44), Seq(43)), None);
        let entries = [(1, 1), (2, 1)].map(|(n, ordinal)| (Seq(n), user(n), ordinal));
        authors.load(Seq(2), entries.into_iter());
        assert_eq!(authors.all_counted().collect::<Vec<_>>(), [(Seq(1), user(1))]);
        authors.load(Seq(900), std::iter::empty());
        assert_eq!(
            between(&authors, 899, 900),
            None,
            "of another owner's entries nothing is known"
        );
    }
}
