//! Watermarks of one chat: how far each user has got. They only rise, and only the newest is sent.

use std::collections::{HashMap, HashSet};

use tern_types::{Seq, UserId};

/// How far one user has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    pub delivered: Seq,
    pub read: Seq,
}

/// A watermark to be told, and to whose messages it applies: those sent after `since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Risen {
    pub user: UserId,
    pub mark: Watermark,
    pub since: Seq,
    /// The user's own devices are told of read marks.
    pub read_rose: bool,
}

/// In memory only: delivered is the complement of the inbox, read marks are written by the shard.
#[derive(Debug, Default)]
pub struct Receipts {
    marks: HashMap<UserId, Watermark>,
    /// Users whose mark rose since the last [`Self::take_risen`], with what it was then.
    before: HashMap<UserId, Watermark>,
}

impl Receipts {
    pub fn mark(&self, user: UserId) -> Watermark {
        self.marks.get(&user).copied().unwrap_or_default()
    }

    /// What the store knows, without telling anybody.
    pub fn load(&mut self, user: UserId, stored: Watermark) {
        let mark = self.marks.entry(user).or_default();
        mark.read = mark.read.max(stored.read);
        mark.delivered = mark.delivered.max(stored.delivered).max(mark.read);
    }

    /// One of the user's devices has stored everything up to `seq`. True when that is news.
    pub fn delivered(&mut self, user: UserId, seq: Seq) -> bool {
        self.raise(user, |mark| mark.delivered = mark.delivered.max(seq))
    }

    /// The user has read everything up to `seq`. True when that is news.
    pub fn read(&mut self, user: UserId, seq: Seq) -> bool {
        self.raise(user, |mark| {
            mark.read = mark.read.max(seq);
            mark.delivered = mark.delivered.max(seq);
        })
    }

    /// The user's own send: they have read what stands before it. Told to nobody.
    pub fn sent(&mut self, user: UserId, seq: Seq) {
        let mark = self.marks.entry(user).or_default();
        mark.read = mark.read.max(seq);
    }

    /// What has risen since the last call, once for each user.
    pub fn take_risen(&mut self) -> Vec<Risen> {
        let marks = &self.marks;
        self.before
            .drain()
            .filter_map(|(user, before)| {
                let mark = marks.get(&user).copied()?;
                let since = match (mark.delivered > before.delivered, mark.read > before.read) {
                    (true, true) => before.delivered.min(before.read),
                    (true, false) => before.delivered,
                    _ => before.read,
                };
                Some(Risen {
                    user,
                    mark,
                    since,
                    read_rose: mark.read > before.read,
                })
            })
            .collect()
    }

    /// Forgets who is a member no longer.
    pub fn retain(&mut self, members: &HashSet<UserId>) {
        self.marks.retain(|user, _| members.contains(user));
    }

    fn raise(&mut self, user: UserId, change: impl FnOnce(&mut Watermark)) -> bool {
        let mark = self.marks.entry(user).or_default();
        let before = *mark;
        change(mark);
        let rose = *mark != before;
        if rose {
            self.before.entry(user).or_insert(before);
        }
        rose
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rule_10_many_rises_are_told_once_as_the_newest() {
        let user = UserId::random();
        let mut receipts = Receipts::default();
        for seq in [3, 5, 4] {
            receipts.delivered(user, Seq(seq));
        }
        receipts.read(user, Seq(2));
        let mark = Watermark {
            delivered: Seq(5),
            read: Seq(2),
        };
        assert_eq!(
            receipts.take_risen(),
            [Risen {
                user,
                mark,
                since: Seq::ZERO,
                read_rose: true
            }]
        );
        assert!(receipts.take_risen().is_empty());
        assert!(!receipts.delivered(user, Seq(5)));
    }

    #[test]
    fn an_own_send_is_read_and_told_to_nobody() {
        let user = UserId::random();
        let mut receipts = Receipts::default();
        receipts.sent(user, Seq(7));
        assert!(receipts.take_risen().is_empty());
        assert_eq!(receipts.mark(user).read, Seq(7));
    }

    proptest! {
        #[test]
        fn rule_10_watermarks_only_rise(seqs in prop::collection::vec((any::<bool>(), 0..50u64), 1..50)) {
            let user = UserId::random();
            let (mut receipts, mut told) = (Receipts::default(), Watermark::default());
            for (read, seq) in seqs {
                if read { receipts.read(user, Seq(seq)) } else { receipts.delivered(user, Seq(seq)) };
                for risen in receipts.take_risen() {
                    prop_assert!(risen.mark.delivered >= told.delivered && risen.mark.read >= told.read);
                    prop_assert!(risen.mark != told);
                    prop_assert!(risen.mark.read <= risen.mark.delivered);
                    told = risen.mark;
                }
            }
        }
    }
}
