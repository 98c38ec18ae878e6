//! The watermarks of one chat, which say how far each user has received and read it. They only rise, and receipts carry
//! only the newest (rule 10).

use tern_types::{IdMap, IdSet, Seq, UserId};

/// The marks up to which one user has received and read a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    /// The highest seq up to which some device of the user has stored every entry.
    pub delivered: Seq,
    /// The highest seq up to which the user has read every entry.
    pub read: Seq,
    /// True if the user had read receipts turned off when they set the read mark. The setting belongs to the mark and
    /// not to the user, so that whoever has the mark (the owner, the store, the next owner) knows whether others may
    /// see it.
    pub read_receipts_off: bool,
}

impl Watermark {
    /// Returns the watermark that other users see. It shows no entry as read that no device of the user has, and
    /// nothing as read if the user had read receipts turned off.
    pub fn told(self) -> Self {
        let read = if self.read_receipts_off {
            Seq::ZERO
        } else {
            self.read
        };
        Self { read, ..self }.own()
    }

    /// Returns the watermark that the user's own devices see. It shows no entry as read that none of them has.
    pub fn own(self) -> Self {
        Self {
            delivered: self.delivered,
            read: self.read.min(self.delivered),
            read_receipts_off: false,
        }
    }

    /// Returns the higher of each of the two marks. The setting is that of the higher read mark, and `self`'s if both
    /// read marks are equal.
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

/// A watermark that has risen since it was last pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Risen {
    /// The user whose watermark it is.
    pub user: UserId,
    /// The watermark for others, and the seq after which it says something new. It concerns the senders of the entries
    /// after that seq, up to the watermark: if `delivered` rose from 3 to 5, the senders of entries 4 and 5. `None` if
    /// nothing rose that others see.
    pub others: Option<(Watermark, Seq)>,
    /// The watermark for the user's own devices, if one of them set a read mark, or sent a message after entries of
    /// others.
    pub own: Option<Watermark>,
}

/// The watermarks of a chat's users. They live in memory only: the store derives delivered from the inbox, and the
/// shard writes the read marks.
#[derive(Debug, Default)]
pub struct Receipts {
    marks: IdMap<UserId, Watermark>,
    /// The users whose watermark rose since the last [`Self::take_risen`].
    risen: IdMap<UserId, Rising>,
}

/// A rise of a user's watermark that nobody has been told of yet.
#[derive(Debug)]
struct Rising {
    /// The watermark that others were told before it rose.
    before: Watermark,
    /// True if the user's own devices are to be told too.
    marked: bool,
}

impl Receipts {
    /// Returns the user's watermark, and zero for a user of whom nothing is known.
    pub fn mark(&self, user: UserId) -> Watermark {
        self.marks.get(&user).copied().unwrap_or_default()
    }

    /// Raises the user's watermark to what the store has, without telling anybody.
    pub fn load(&mut self, user: UserId, stored: Watermark) {
        let mark = self.marks.entry(user).or_insert(stored);
        *mark = mark.raised_by(stored);
    }

    /// Notes that one of the user's devices has stored every entry up to `seq`. Returns true if somebody is to be told.
    pub fn delivered(&mut self, user: UserId, seq: Seq) -> bool {
        self.raise(user, false, |mark| mark.delivered = mark.delivered.max(seq))
    }

    /// Notes that one of the user's devices has newly stored `from..=seq`. Others are told even if a load has already
    /// raised the watermark to `seq`, because a load tells nobody. Returns true if somebody may have to be told.
    pub(crate) fn delivered_since(&mut self, user: UserId, from: Seq, seq: Seq) -> bool {
        self.delivered(user, seq);
        let (mark, before) = (self.mark(user).told(), from.previous());
        if mark.delivered > seq {
            // Another device is further already, so this acknowledgement adds nothing.
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

    /// Notes that the user has read every entry up to `seq`, with read receipts turned off if `off`. Returns true if
    /// the watermark or its setting changed. A mark below the present one does not change the setting.
    pub fn read(&mut self, user: UserId, seq: Seq, off: bool) -> bool {
        let before = self.mark(user);
        self.raise(user, true, |mark| {
            mark.read_at(seq, off);
            mark.delivered = mark.delivered.max(seq);
        });
        self.mark(user) != before
    }

    /// Notes that the user sent a message and so has read every entry up to `seq`, which
    /// [`super::chat::Chat::read_by_sending`] works out. A reply is often the only sign that somebody has read a chat.
    /// With `tell_own` the user's own devices are told too. Returns true if somebody is to be told.
    pub fn sent(&mut self, user: UserId, seq: Seq, off: bool, tell_own: bool) -> bool {
        if seq <= self.mark(user).read {
            return false;
        }
        self.raise(user, tell_own, |mark| {
            mark.read_at(seq, off);
            mark.delivered = mark.delivered.max(seq);
        })
    }

    /// Marks every user's watermark as risen from zero, so that everybody is told anew how far the others are.
    pub fn tell_all(&mut self) {
        for user in self.marks.keys() {
            let rising = Rising {
                before: Watermark::default(),
                marked: false,
            };
            self.risen.insert(*user, rising);
        }
    }

    /// Takes the watermarks that rose since the last call, one for each user.
    pub(crate) fn take_risen(&mut self) -> Vec<Risen> {
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

    /// Forgets the watermarks of users who are not among `members`.
    pub fn retain(&mut self, members: &IdSet<UserId>) {
        self.marks.retain(|user, _| members.contains(user));
    }

    /// Applies `change` to the user's watermark and notes it as risen if others or, with `marks`, the user's own
    /// devices are to be told. Returns true if somebody is to be told.
    fn raise(&mut self, user: UserId, marks: bool, change: impl FnOnce(&mut Watermark)) -> bool {
        let mark = self.marks.entry(user).or_default();
        let (before, read) = (mark.told(), mark.read);
        change(mark);
        let marked = marks && mark.read > read;
        debug_assert!(
            mark.delivered >= before.delivered && mark.read >= read,
            "rule 10: watermarks only rise"
        );
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
    /// Sets the read mark and its setting, unless the mark is further already.
    fn read_at(&mut self, seq: Seq, off: bool) {
        if seq >= self.read {
            (self.read, self.read_receipts_off) = (seq, off);
        }
    }
}

/// Returns the lowest seq after which `now` says more than `before`, or `None` if it says nothing more.
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

    /// Takes what rose, and returns the watermarks that others are told.
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
        // The first snapshot was read before that mark was written.
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
