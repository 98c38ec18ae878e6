//! Who sent the newest entries: whose messages a receipt concerns.

use std::collections::VecDeque;

use tern_types::{Seq, UserId};

/// Entries remembered, 16 bytes each: as many as a device is behind while it catches up. A receipt of older ones goes to
/// all who sent anything since.
const REMEMBERED: usize = 256;

/// The senders of the newest entries, up to the head.
#[derive(Debug, Default)]
pub struct Authors {
    /// Of the entry that the first of them sent.
    first: Seq,
    senders: VecDeque<UserId>,
}

impl Authors {
    /// From what was read with the chat: the newest of `entries`, which ascend, as long as none is missing.
    pub fn load(&mut self, head: Seq, entries: impl DoubleEndedIterator<Item = (Seq, UserId)>) {
        *self = Self {
            first: head.next(),
            senders: VecDeque::new(),
        };
        for (seq, sender) in entries.rev() {
            if seq.next() != self.first || self.senders.len() >= REMEMBERED {
                break;
            }
            self.first = seq;
            self.senders.push_front(sender);
        }
    }

    /// The next entry.
    pub fn push(&mut self, seq: Seq, sender: UserId) {
        if self.senders.is_empty() {
            self.first = seq;
        }
        self.senders.push_back(sender);
        if self.senders.len() > REMEMBERED {
            self.senders.pop_front();
            self.first = self.first.next();
        }
    }

    /// Who sent what lies after `since`, up to `upto`; `None`: it reaches further back than what is known.
    pub fn between(&self, since: Seq, upto: Seq) -> Option<impl Iterator<Item = UserId>> {
        if since.next() < self.first {
            return None;
        }
        let place = |seq: Seq| usize::try_from(seq.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        let (from, to) = (place(since.next()), place(upto.next()));
        Some(self.senders.iter().copied().take(to).skip(from))
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
        let entries = [1, 2, 4, 5, 6].map(|n| (Seq(n), user(n)));
        authors.load(Seq(6), entries.into_iter());
        assert_eq!(between(&authors, 4, 6), Some(vec![user(5), user(6)]));
        assert_eq!(between(&authors, 3, 4), Some(vec![user(4)]));
        assert_eq!(between(&authors, 2, 6), None);
        authors.push(Seq(7), user(7));
        assert_eq!(between(&authors, 5, 100), Some(vec![user(6), user(7)]));
        assert_eq!(between(&authors, 7, 7), Some(vec![]));
    }

    #[test]
    fn a_new_chat_is_known_from_its_first_entry_on_and_only_the_newest_are_kept() {
        let mut authors = Authors::default();
        authors.load(Seq::ZERO, std::iter::empty());
        for n in 1..=300 {
            authors.push(Seq(n), user(n));
        }
        assert_eq!(between(&authors, 43, 60), None);
        assert_eq!(between(&authors, 44, 45), Some(vec![user(45)]));
        assert_eq!(between(&authors, 298, 300), Some(vec![user(299), user(300)]));
        authors.load(Seq(900), std::iter::empty());
        assert_eq!(
            between(&authors, 899, 900),
            None,
            "of another owner's entries nothing is known"
        );
    }
}
