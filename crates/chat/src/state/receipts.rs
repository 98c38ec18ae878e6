//! Watermarks of one chat: how far each user has got. They only rise, and only the newest is sent.

use tern_types::{IdMap, IdSet, Seq, UserId};

/// How far one user has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    pub delivered: Seq,
    pub read: Seq,
    /// The user had turned read receipts off when they marked it: a property of the mark, not of the user, so that what
    /// holds is known wherever the mark is.
    pub read_receipts_off: bool,
}

impl Watermark {
    /// As others are told: nobody is said to have read what no device of theirs has, or what they keep to themselves.
    pub fn told(self) -> Self {
        let read = if self.read_receipts_off {
            Seq::ZERO
        } else {
            self.read
        };
        Self { read, ..self }.own()
    }

    /// As the user's own devices are told.
    pub fn own(self) -> Self {
        Self {
            delivered: self.delivered,
            read: self.read.min(self.delivered),
            read_receipts_off: false,
        }
    }

    /// Where either of them is the further one; the setting is that of the further read mark, `self`'s when they are equal.
    #[must_use]
    pub fn raised_by(self, other: Self) -> Self {
        Self {
            delivered: self.delivered.max(other.delivered),
            read: self.read.max(other.read),
            read_receipts_off: if other.read > self.read {
                other.read_receipts_off
            } else {
                self.read_receipts_off
            },
        }
    }
}

/// A watermark that is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Risen {
    pub user: UserId,
    /// What others are told, and whose messages it concerns: those after `since`, up to the mark. `None`: nothing that
    /// others are told has risen.
    pub others: Option<(Watermark, Seq)>,
    /// What the user's own devices are told: one of them marked it, or sent something behind what others had sent.
    pub own: Option<Watermark>,
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
        let mark = self.marks.entry(user).or_insert(stored);
        *mark = mark.raised_by(stored);
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
            ..mark
        };
        let rising = Rising {
            before,
            marked: false,
        };
        self.risen.entry(user).or_insert(rising);
        true
    }

    /// The user has read everything up to `seq`, and had read receipts turned off or not. True when anything is another
    /// than before. A lower mark than before says nothing, not even about the setting.
    pub fn read(&mut self, user: UserId, seq: Seq, off: bool) -> bool {
        let before = self.mark(user);
        self.raise(user, true, |mark| {
            mark.read_at(seq, off);
            mark.delivered = mark.delivered.max(seq);
        });
        self.mark(user) != before
    }

    /// The user's own send: they have read up to `seq`, which had come to them before, or which they sent. A reply is often
    /// the only sign of that. `tell_own`: their devices are told as of a mark. True when it is news.
    pub fn sent(&mut self, user: UserId, seq: Seq, off: bool, tell_own: bool) -> bool {
        if seq <= self.mark(user).read {
            return false;
        }
        self.raise(user, tell_own, |mark| {
            mark.read_at(seq, off);
            mark.delivered = mark.delivered.max(seq);
        })
    }

    /// Everybody is told anew how far the others have got.
    pub fn tell_all(&mut self) {
        for user in self.marks.keys() {
            let rising = Rising {
                before: Watermark::default(),
                marked: false,
            };
            self.risen.insert(*user, rising);
        }
    }

    /// What has risen since the last call, once for each user.
    pub fn take_risen(&mut self) -> Vec<Risen> {
        let marks = &self.marks;
        self.risen
            .drain()
            .filter_map(|(user, Rising { before, marked })| {
                let mark = marks.get(&user)?;
                Some(Risen {
                    user,
                    others: since(before, mark.told()).map(|since| (mark.told(), since)),
                    own: marked.then(|| mark.own()),
                })
            })
            .collect()
    }

    /// Forgets who is a member no longer.
    pub fn retain(&mut self, members: &IdSet<UserId>) {
        self.marks.retain(|user, _| members.contains(user));
    }

    /// True when somebody is to be told.
    fn raise(&mut self, user: UserId, marks: bool, change: impl FnOnce(&mut Watermark)) -> bool {
        let mark = self.marks.entry(user).or_default();
        let (before, read) = (mark.told(), mark.read);
        change(mark);
        let marked = marks && mark.read > read;
        let news = marked || since(before, mark.told()).is_some();
        if news {
            let rising = self.risen.entry(user).or_insert(Rising {
                before,
                marked: false,
            });
            rising.marked |= marked;
        }
        news
    }
}

impl Watermark {
    fn read_at(&mut self, seq: Seq, off: bool) {
        if seq >= self.read {
            (self.read, self.read_receipts_off) = (seq, off);
        }
    }
}

/// After which seq `now` says more than `before`; `None`: nowhere.
fn since(before: Watermark, now: Watermark) -> Option<Seq> {
    let delivered = (now.delivered > before.delivered).then_some(before.delivered);
    let read = (now.read > before.read).then_some(before.read);
    delivered.into_iter().chain(read).min()
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
        receipts.read(user, Seq(2), false);
        let mark = watermark(5, 2);
        assert_eq!(
            receipts.take_risen(),
            [Risen {
                user,
                others: Some((mark, Seq::ZERO)),
                own: Some(mark),
            }]
        );
        assert!(receipts.take_risen().is_empty());
        assert!(!receipts.delivered(user, Seq(5)));
    }

    fn watermark(delivered: u64, read: u64) -> Watermark {
        Watermark {
            delivered: Seq(delivered),
            read: Seq(read),
            read_receipts_off: false,
        }
    }

    /// What others are told.
    fn told(receipts: &mut Receipts) -> Vec<Watermark> {
        let risen = receipts.take_risen();
        risen
            .iter()
            .filter_map(|risen| risen.others)
            .map(|(mark, _)| mark)
            .collect()
    }

    #[test]
    fn a_reply_tells_the_others_that_it_was_read_and_a_later_mark_has_nothing_to_add() {
        let user = UserId::random();
        let mut receipts = Receipts::default();
        receipts.delivered(user, Seq(6));
        receipts.take_risen();
        assert!(receipts.sent(user, Seq(7), false, true));
        let mark = watermark(7, 7);
        let risen = Risen {
            user,
            others: Some((mark, Seq::ZERO)),
            own: Some(mark),
        };
        assert_eq!(receipts.take_risen(), [risen]);
        assert!(!receipts.read(user, Seq(6), false));
        assert!(
            receipts.sent(user, Seq(8), false, false),
            "their devices know by the entry"
        );
        assert_eq!(receipts.take_risen()[0].own, None);
    }

    #[test]
    fn who_keeps_reading_to_themselves_is_told_to_others_as_delivered_until_a_mark_says_otherwise() {
        let user = UserId::random();
        let mut receipts = Receipts::default();
        receipts.read(user, Seq(3), false);
        assert_eq!(told(&mut receipts), [watermark(3, 3)]);
        receipts.read(user, Seq(5), true);
        let risen = Risen {
            user,
            others: Some((watermark(5, 0), Seq(3))),
            own: Some(watermark(5, 5)),
        };
        assert_eq!(receipts.take_risen(), [risen]);
        receipts.delivered(user, Seq(6));
        receipts.take_risen();
        receipts.sent(user, Seq(7), true, false);
        assert_eq!(told(&mut receipts), [watermark(7, 0)], "a reply tells no more");
        assert!(!receipts.read(user, Seq(4), false), "an old mark says nothing");
        assert!(receipts.read(user, Seq(7), false), "the same again, and told");
        let risen = receipts.take_risen();
        assert_eq!(
            risen[0].others,
            Some((watermark(7, 7), Seq::ZERO)),
            "of all before"
        );
    }

    #[test]
    fn a_setting_alone_is_kept_although_nobody_is_told() {
        let user = UserId::random();
        let mut receipts = Receipts::default();
        receipts.read(user, Seq(3), false);
        receipts.take_risen();
        assert!(receipts.read(user, Seq(3), true), "to be written");
        assert!(receipts.take_risen().is_empty());
        assert_eq!(receipts.mark(user).told(), watermark(3, 0));
        // A snapshot that was read before that is written.
        receipts.load(user, watermark(3, 3));
        assert_eq!(receipts.mark(user).told(), watermark(3, 0));
        receipts.load(user, watermark(4, 4));
        assert_eq!(receipts.mark(user).told(), watermark(4, 4));
    }

    proptest! {
        #[test]
        fn rule_10_watermarks_only_rise(steps in prop::collection::vec((0..3u8, 0..50u64, any::<bool>()), 1..50)) {
            let user = UserId::random();
            let (mut receipts, mut seen, mut own) = (Receipts::default(), Watermark::default(), Seq::ZERO);
            for (what, seq, off) in steps {
                let news = match what {
                    0 => receipts.read(user, Seq(seq), off),
                    1 => receipts.sent(user, Seq(seq), off, seq % 2 == 0),
                    _ => receipts.delivered(user, Seq(seq)),
                };
                let known = receipts.mark(user);
                for risen in receipts.take_risen() {
                    prop_assert!(news);
                    if let Some((mark, since)) = risen.others {
                        prop_assert!(mark.delivered > seen.delivered || mark.read > seen.read || since < seen.read);
                        prop_assert!(mark.read <= mark.delivered);
                        prop_assert!(mark.read == Seq::ZERO || !known.read_receipts_off);
                        seen = seen.raised_by(mark);
                    }
                    if let Some(mark) = risen.own {
                        prop_assert!(mark.read > own || what == 0);
                        prop_assert!(what == 0 || seq % 2 == 0);
                        own = own.max(mark.read);
                    }
                }
                prop_assert_eq!(seen.delivered, known.delivered);
                if !known.read_receipts_off {
                    prop_assert_eq!(seen.read, known.read.min(known.delivered), "nothing is kept from them");
                }
            }
        }
    }
}
