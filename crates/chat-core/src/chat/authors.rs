//! The senders of a chat's newest entries, and what else is known of these. They tell whose messages a receipt concerns,
//! how many of a member's own messages lie after their read mark, and what may be done to a message.

use std::collections::VecDeque;

use tern_types::{Seq, Timestamp, UserId};

use crate::recent::Placed;
use crate::target::Target;

/// The most entries that are remembered, at 32 bytes each: as many as a device is behind while it catches up. A receipt
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
    sent_at: Timestamp,
    /// True if the entry counts as unread.
    counts: bool,
    is_message: bool,
    erased: bool,
    expires_after_s: u32,
}

impl Authored {
    fn new(target: Target, counts: bool) -> Self {
        Self {
            sender: target.sender,
            sent_at: target.sent_at,
            counts,
            is_message: target.is_message,
            erased: target.erased,
            expires_after_s: target.expires_after_s,
        }
    }
}

impl Authors {
    /// Remembers the entries that were loaded with the chat, and nothing else. `entries` are their senders and places,
    /// ascending. The memory goes back from the head to the first seq that is missing.
    ///
    /// An entry counts as unread if its ordinal is higher than that of the entry before. So the oldest entry is
    /// remembered only if it is the chat's first; otherwise nobody knows whether it counts. For example, of the entries
    /// 1, 3, 4 and 5 of a chat whose head is 5, only 4 and 5 are remembered.
    pub fn load<'a>(&mut self, head: Seq, entries: impl DoubleEndedIterator<Item = (UserId, &'a Placed)>) {
        *self = Self {
            first: head.next(),
            entries: VecDeque::new(),
        };
        let mut oldest: Option<(UserId, &Placed)> = None;
        for (sender, placed) in entries.rev() {
            let expected = match oldest {
                Some(_) => self.first.previous().previous(),
                None => self.first.previous(),
            };
            if placed.seq != expected || self.entries.len() >= REMEMBERED {
                break;
            }
            if let Some((its_sender, its)) = oldest.replace((sender, placed)) {
                self.push_front(its.target(its_sender), its.ordinal > placed.ordinal);
            }
        }
        if let Some((sender, placed)) = oldest
            && self.first == Seq(2)
        {
            self.push_front(placed.target(sender), placed.ordinal > 0);
        }
    }

    /// Adds the entry before the first.
    fn push_front(&mut self, target: Target, counts: bool) {
        self.first = self.first.previous();
        self.entries.push_front(Authored::new(target, counts));
    }

    /// Adds the entry that is now the head. Its seq must be the one after the last entry.
    pub fn push(&mut self, seq: Seq, target: Target, counts: bool) {
        if self.entries.is_empty() {
            self.first = seq;
        }
        debug_assert_eq!(
            seq.0,
            self.first.0 + self.entries.len() as u64,
            "the entries have no gap"
        );
        self.entries.push_back(Authored::new(target, counts));
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

    /// Returns what decides about doing something to the entry at `seq`; `None` if the entry is not remembered.
    pub fn target(&self, seq: Seq) -> Option<Target> {
        let entry = self.entries.get(self.place(seq)?)?;
        Some(Target {
            sender: entry.sender,
            sent_at: entry.sent_at,
            is_message: entry.is_message,
            erased: entry.erased,
            expires_after_s: entry.expires_after_s,
        })
    }

    /// Notes that the content of the entry at `seq` is gone, if the entry is remembered.
    pub fn erase(&mut self, seq: Seq) {
        if let Some(place) = self.place(seq)
            && let Some(entry) = self.entries.get_mut(place)
        {
            entry.erased = true;
        }
    }

    /// Returns the place of the entry at `seq` in the list; `None` if `seq` is below the first.
    fn place(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.0.checked_sub(self.first.0)?).ok()
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

    fn message(n: u64) -> Target {
        Target {
            sender: user(n),
            sent_at: Timestamp(n as i64),
            is_message: true,
            erased: false,
            expires_after_s: 0,
        }
    }

    /// The messages with these seqs and ordinals. The sender of entry n is user n.
    fn placed(entries: &[(u64, u64)]) -> Vec<(UserId, Placed)> {
        let placed = |(n, ordinal): &(u64, u64)| {
            let placed = Placed {
                seq: Seq(*n),
                ordinal: *ordinal,
                sent_at: Timestamp(*n as i64),
                fingerprint: [0; 16],
                is_message: true,
                erased: false,
                expires_after_s: 0,
            };
            (user(*n), placed)
        };
        entries.iter().map(placed).collect()
    }

    fn load(authors: &mut Authors, head: u64, entries: &[(u64, u64)]) {
        let placed = placed(entries);
        authors.load(Seq(head), placed.iter().map(|(user, placed)| (*user, placed)));
    }

    fn between(authors: &Authors, since: u64, upto: u64) -> Option<Vec<UserId>> {
        Some(authors.between(Seq(since), Seq(upto))?.collect())
    }

    #[test]
    fn they_are_known_as_far_back_as_nothing_is_missing() {
        let mut authors = Authors::default();
        // Entry 5 does not count as unread: it has the ordinal of entry 4.
        load(&mut authors, 6, &[(1, 1), (3, 2), (4, 3), (5, 3), (6, 4)]);
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
        authors.push(Seq(7), message(7), true);
        assert_eq!(between(&authors, 5, 100), Some(vec![user(6), user(7)]));
        assert_eq!(between(&authors, 7, 7), Some(vec![]));
    }

    #[test]
    fn a_new_chat_is_known_from_its_first_entry_on_and_only_the_newest_are_kept() {
        let mut authors = Authors::default();
        load(&mut authors, 0, &[]);
        for n in 1..=300 {
            authors.push(Seq(n), message(n), n % 2 == 0);
        }
        assert_eq!(between(&authors, 43, 60), None);
        assert_eq!(between(&authors, 44, 45), Some(vec![user(45)]));
        assert_eq!(between(&authors, 298, 300), Some(vec![user(299), user(300)]));
        assert_eq!(authors.counted(user(44), Seq(43)), None);
        load(&mut authors, 2, &[(1, 1), (2, 1)]);
        assert_eq!(authors.all_counted().collect::<Vec<_>>(), [(Seq(1), user(1))]);
        load(&mut authors, 900, &[]);
        assert_eq!(
            between(&authors, 899, 900),
            None,
            "of another owner's entries nothing is known"
        );
    }

    #[test]
    fn what_is_known_of_a_message_is_known_for_as_long_as_its_sender() {
        let mut authors = Authors::default();
        load(&mut authors, 5, &[(3, 2), (4, 3), (5, 3)]);
        assert_eq!(authors.target(Seq(4)), Some(message(4)));
        assert_eq!(authors.target(Seq(3)), None, "whether it counts is not known");
        assert_eq!(authors.target(Seq(6)), None);
        authors.push(Seq(6), message(6), true);
        for seq in [Seq(1), Seq(6), Seq(7)] {
            authors.erase(seq);
        }
        let erased = Target {
            erased: true,
            ..message(6)
        };
        assert_eq!(authors.target(Seq(6)), Some(erased));
        assert_eq!(authors.target(Seq(5)), Some(message(5)));
    }
}
