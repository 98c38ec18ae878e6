//! Who sent the newest entries: whose messages a receipt concerns, and which of them are unread to whom.

use std::collections::VecDeque;

use tern_types::{Seq, UserId};

/// Entries remembered, 17 bytes each: as many as a device is behind while it catches up. A receipt of older ones goes to
/// all who sent anything since.
const REMEMBERED: usize = 256;

/// The newest entries, up to the head.
#[derive(Debug, Default)]
pub struct Authors {
    /// Seq of the first of them.
    first: Seq,
    entries: VecDeque<Authored>,
}

#[derive(Debug, Clone, Copy)]
struct Authored {
    sender: UserId,
    /// Unread counts rise by it.
    counts: bool,
}

impl Authors {
    /// From what was read with the chat: sender and ordinal of the newest entries, which ascend, as long as none is missing.
    /// Whether an entry counts shows by the ordinal before it: the oldest that was read is remembered only where it is
    /// the chat's first.
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

    fn push_front(&mut self, sender: UserId, counts: bool) {
        self.first = self.first.previous();
        self.entries.push_front(Authored { sender, counts });
    }

    /// The next entry.
    pub fn push(&mut self, seq: Seq, sender: UserId, counts: bool) {
        if self.entries.is_empty() {
            self.first = seq;
        }
        self.entries.push_back(Authored { sender, counts });
        if self.entries.len() > REMEMBERED {
            self.entries.pop_front();
            self.first = self.first.next();
        }
    }

    /// Who sent what lies after `since`, up to `upto`; `None`: it reaches further back than what is known.
    pub fn between(&self, since: Seq, upto: Seq) -> Option<impl Iterator<Item = UserId>> {
        let after = self.after(since)?;
        let count = usize::try_from(upto.0.saturating_sub(since.0)).unwrap_or(usize::MAX);
        Some(after.take(count).map(|entry| entry.sender))
    }

    /// How many entries of the sender that count as unread lie after `since`; `None` likewise.
    pub fn counted(&self, sender: UserId, since: Seq) -> Option<u32> {
        let own = self.after(since)?.filter(|entry| entry.sender == sender);
        u32::try_from(own.filter(|entry| entry.counts).count()).ok()
    }

    /// Seq and sender of each entry that counts as unread.
    pub fn all_counted(&self) -> impl Iterator<Item = (Seq, UserId)> {
        let seqs = (self.first.0..).map(Seq);
        let counted = seqs.zip(&self.entries).filter(|(_, entry)| entry.counts);
        counted.map(|(seq, entry)| (seq, entry.sender))
    }

    /// Whether all entries after `since` are known.
    pub fn reach(&self, since: Seq) -> bool {
        since.next() >= self.first
    }

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
        // 5 does not count as unread.
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
