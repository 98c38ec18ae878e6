//! Watermarks of one chat: how far each user has got. They only rise, and only the newest is sent.

use tern_types::{IdMap, IdSet, Seq, UserId};

/// How far one user has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    pub delivered: Seq,
    pub read: Seq,
}

impl Watermark {
    /// As others are told: nobody is said to have read what no device of theirs has.
    pub fn told(self) -> Self {
        Self {
            delivered: self.delivered,
            read: self.read.min(self.delivered),
        }
    }
}

/// A watermark to be told, and to whose messages it applies: those sent after `since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Risen {
    pub user: UserId,
    pub mark: Watermark,
    pub since: Seq,
    /// The user's own devices are told too: one of them marked it. Of own sends they know by the entry.
    pub marked: bool,
}

/// In memory only: delivered is the complement of the inbox, read marks are written by the shard.
#[derive(Debug, Default)]
pub struct Receipts {
    marks: IdMap<UserId, Watermark>,
    /// Users whose mark rose since the last [`Self::take_risen`].
    risen: IdMap<UserId, Rising>,
}

#[derive(Debug)]
struct Rising {
    /// What was told before.
    before: Watermark,
    marked: bool,
}

impl Receipts {
    pub fn mark(&self, user: UserId) -> Watermark {
        self.marks.get(&user).copied().unwrap_or_default()
    }

    /// What the store knows, without telling anybody.
    pub fn load(&mut self, user: UserId, stored: Watermark) {
        let mark = self.marks.entry(user).or_default();
        mark.read = mark.read.max(stored.read);
        mark.delivered = mark.delivered.max(stored.delivered);
    }

    /// One of the user's devices has stored everything up to `seq`. True when that is news.
    pub fn delivered(&mut self, user: UserId, seq: Seq) -> bool {
        self.raise(user, false, |mark| mark.delivered = mark.delivered.max(seq))
    }

    /// One of the user's devices has got `from..=seq`: told also where a load brought it. True when it may be news.
    pub fn delivered_since(&mut self, user: UserId, from: Seq, seq: Seq) -> bool {
        self.delivered(user, seq);
        let (mark, before) = (self.mark(user).told(), from.previous());
        if mark.delivered > seq {
            // Another device was further.
            return self.risen.contains_key(&user);
        }
        let before = Watermark {
            delivered: before,
            read: mark.read.min(before),
        };
        let rising = Rising {
            before,
            marked: false,
        };
        self.risen.entry(user).or_insert(rising);
        true
    }

    /// The user has read everything up to `seq`. True when that is news.
    pub fn read(&mut self, user: UserId, seq: Seq) -> bool {
        self.raise(user, true, |mark| {
            mark.read = mark.read.max(seq);
            mark.delivered = mark.delivered.max(seq);
        })
    }

    /// The user's own send: they have read what stands before it, as far as it came to them. A reply is often the only
    /// sign of that. True when it is news; what is on its way to them becomes news when it is delivered.
    pub fn sent(&mut self, user: UserId, seq: Seq) -> bool {
        self.raise(user, false, |mark| mark.read = mark.read.max(seq))
    }

    /// What has risen since the last call, once for each user.
    pub fn take_risen(&mut self) -> Vec<Risen> {
        let marks = &self.marks;
        self.risen
            .drain()
            .filter_map(|(user, Rising { before, marked })| {
                let mark = marks.get(&user)?.told();
                let since = match (mark.delivered > before.delivered, mark.read > before.read) {
                    (true, true) => before.delivered.min(before.read),
                    (true, false) => before.delivered,
                    _ => before.read,
                };
                Some(Risen {
                    user,
                    mark,
                    since,
                    marked,
                })
            })
            .collect()
    }

    /// Forgets who is a member no longer.
    pub fn retain(&mut self, members: &IdSet<UserId>) {
        self.marks.retain(|user, _| members.contains(user));
    }

    fn raise(&mut self, user: UserId, marks: bool, change: impl FnOnce(&mut Watermark)) -> bool {
        let mark = self.marks.entry(user).or_default();
        let (before, read) = (mark.told(), mark.read);
        change(mark);
        let marked = marks && mark.read > read;
        let rose = mark.told() != before;
        if rose {
            let rising = self.risen.entry(user).or_insert(Rising {
                before,
                marked: false,
            });
            rising.marked |= marked;
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
                marked: true
            }]
        );
        assert!(receipts.take_risen().is_empty());
        assert!(!receipts.delivered(user, Seq(5)));
    }

    fn watermark(delivered: u64, read: u64) -> Watermark {
        Watermark {
            delivered: Seq(delivered),
            read: Seq(read),
        }
    }

    #[test]
    fn a_reply_tells_the_others_that_it_was_read_and_a_later_mark_has_nothing_to_add() {
        let user = UserId::random();
        let mut receipts = Receipts::default();
        receipts.delivered(user, Seq(6));
        receipts.take_risen();
        assert!(receipts.sent(user, Seq(7)));
        let risen = Risen {
            user,
            mark: watermark(6, 6),
            since: Seq::ZERO,
            marked: false,
        };
        assert_eq!(receipts.take_risen(), [risen]);
        assert_eq!(receipts.mark(user).read, Seq(7));
        assert!(!receipts.read(user, Seq(6)));
    }

    #[test]
    fn what_crosses_a_send_is_read_when_it_is_delivered_or_marked() {
        for marked in [false, true] {
            let user = UserId::random();
            let mut receipts = Receipts::default();
            assert!(!receipts.sent(user, Seq(7)), "nothing had come to them");
            assert!(receipts.take_risen().is_empty());
            let news = if marked {
                receipts.read(user, Seq(6))
            } else {
                receipts.delivered(user, Seq(6))
            };
            assert!(news);
            let told: Vec<_> = receipts.take_risen().iter().map(|risen| risen.mark).collect();
            assert_eq!(told, [watermark(6, 6)]);
        }
    }

    proptest! {
        #[test]
        fn rule_10_watermarks_only_rise(seqs in prop::collection::vec((0..3u8, 0..50u64), 1..50)) {
            let user = UserId::random();
            let (mut receipts, mut told) = (Receipts::default(), Watermark::default());
            for (what, seq) in seqs {
                let news = match what {
                    0 => receipts.read(user, Seq(seq)),
                    1 => receipts.sent(user, Seq(seq)),
                    _ => receipts.delivered(user, Seq(seq)),
                };
                let known = receipts.mark(user);
                for risen in receipts.take_risen() {
                    prop_assert!(risen.mark.delivered >= told.delivered && risen.mark.read >= told.read);
                    prop_assert!(risen.mark != told);
                    prop_assert!(risen.mark.read <= risen.mark.delivered);
                    told = risen.mark;
                    prop_assert!(news);
                }
                prop_assert_eq!(told.delivered, known.delivered);
                prop_assert_eq!(told.read, known.read.min(known.delivered), "nothing is kept from them");
            }
        }
    }
}
