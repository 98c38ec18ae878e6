//! A [`Place`] is the device's position in a chat's log, as far as it follows from the entries that went out on one
//! stream and from the device's acknowledgements.
//!
//! Entries have to be sent so that they suit a client that takes rules 4 and 5 of messaging.proto literally and drops
//! every entry above its cursor + 1. Three rules follow, and [`crate::session::duty`] keeps them:
//!
//! - A live entry goes out when it is the one after the last that went out. If entries below it did not go out, the
//!   log is read from the first of them on instead. Example: 7 went out last and 9 is pushed. The log is read from 8
//!   on.
//! - The log is read from a seq below which the device has taken everything, or is owed nothing. That is
//!   [`Place::start`], or if that is 0, the device's place as the store knows it. Only reading brings a `Skipped`, so a
//!   `Skipped` never spans an entry that the device had to drop.
//! - The result of an own send may overtake entries below it. A client that holds the result goes on above it. A client
//!   that drops it acknowledges the entry just below it next, and is then sent the dropped entry. Example: the result
//!   of 5 goes out before the entry 4. After an acknowledgement of 4 the log is read from 5 on; after one of 5 it is
//!   not.

use super::ranges::Ranges;

/// The position of one device in one chat's log. The default says that nothing is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The entries `first..next` went out, ascending and without a hole. Both are 0 while nothing is known.
    first: u64,
    next: u64,
    /// True if the device is known to have taken everything below `first`, or not to be owed it.
    sure: bool,
    /// The entries that went out before their turn and are not acknowledged, so that the device may have dropped them.
    /// They lie at `next` or above, or below it if the entries that were missing below them went out since.
    early: Ranges,
}

/// The answer of [`Place::turn`]: whether a live entry may go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The entry may go out: it is the one after the last that went out, or the first of all.
    Next,
    /// The entry went out before.
    Again,
    /// The device has taken the entry, or is not owed it, as far as is known. It may go out all the same: a repetition
    /// costs little, and an acknowledgement may have been wrong.
    Past,
    /// The entry may not go out yet, because so many entries below it did not go out. `u64::MAX` says that their number
    /// is not known.
    Hole(u64),
}

impl Place {
    /// Returns whether the live entry `seq` may go out now.
    pub fn turn(&self, seq: u64) -> Turn {
        if self.next == 0 || seq == self.next {
            Turn::Next
        } else if seq > self.next {
            match self.early.contains(seq) {
                true => Turn::Again,
                false => Turn::Hole(seq - self.next),
            }
        } else if seq >= self.first {
            Turn::Again
        } else if self.sure {
            Turn::Past
        } else {
            // The first entry that went out on this stream was not the next one for the device.
            Turn::Hole(u64::MAX)
        }
    }

    /// Notes that the entry `seq` went out, or the result of an own send that stands for it.
    pub fn went(&mut self, seq: u64) {
        if self.next == 0 {
            (self.first, self.next, self.sure) = (seq, seq, seq <= 1);
        }
        if seq == self.next {
            self.next = seq.saturating_add(1);
            self.catch_up_with_early();
        } else {
            self.went_early(seq);
        }
        debug_assert_ne!(self.next, seq, "an entry that went out is not the next one");
    }

    /// Notes that the entry `seq` went out although entries below it did not go out, or may not have.
    pub(crate) fn went_early(&mut self, seq: u64) {
        if seq >= self.next {
            self.early.insert(seq, seq);
        } else if !self.sure && seq.saturating_add(1) == self.first {
            // `first..next` went out before this entry, so a client may have dropped it.
            self.early.insert(self.first, self.next - 1);
            self.first = seq;
        } else if self.early.contains(seq) {
            // It went out before. A client that dropped it takes it now, and has dropped all that came after it.
            self.early.insert(seq, self.next - 1);
        }
    }

    /// Notes that a window of the log went out: everything that the device is owed from `from` on and below `next`.
    /// If `from` is 0, the window was read from the device's place as the store knows it, which was `first`.
    pub(crate) fn went_from(&mut self, from: u64, first: u64, next: u64) {
        let joins = self.sure && from <= self.upto();
        self.early.forget_to(next.saturating_sub(1));
        if joins {
            self.next = self.next.max(next);
        } else {
            (self.first, self.next, self.sure) = (first, next, true);
        }
        self.catch_up_with_early();
    }

    /// Notes that the device acknowledged everything up to `seq`; `before` is the seq that it acknowledged before that.
    /// If this shows that the device dropped entries that went out, returns the seq from which on the log is to be read
    /// at once.
    pub fn acknowledged(&mut self, seq: u64, before: u64) -> Option<u64> {
        let next = seq.saturating_add(1);
        self.early.forget_to(seq);
        if seq < before || self.next <= next {
            // Either the acknowledgement before was wrong, or the device has everything that went out.
            (self.first, self.next, self.sure) = (next, next, true);
            self.catch_up_with_early();
            return None;
        }
        if next < self.first {
            // The first entry that went out on this stream was not the next one for the device. If the place came from
            // the store (`sure`), the device is owed nothing in between.
            let dropped = !self.sure;
            if dropped {
                self.back_to(next);
            }
            return dropped.then_some(next);
        }
        (self.first, self.sure) = (next, true);
        let dropped = self.early.contains(next);
        if dropped {
            self.next = next;
            self.early.forget_to(next);
        }
        dropped.then_some(next)
    }

    /// Makes everything from `from` on go out again. The device has everything below `from`, or is not owed it. With
    /// `from` 0 nothing is known any more.
    pub(crate) fn back_to(&mut self, from: u64) {
        *self = Self {
            first: from,
            next: from,
            sure: from > 0,
            early: Ranges::default(),
        };
    }

    /// Returns the seq from which on the log is to be read for entries that did not go out. 0 stands for the device's
    /// place as the store knows it.
    pub fn start(&self) -> u64 {
        if self.sure { self.upto() } else { 0 }
    }

    /// Returns the seq from which on the log is to be read for entries that went out and were not acknowledged. 0
    /// stands for the device's place as the store knows it.
    pub fn base(&self) -> u64 {
        if self.sure { self.first } else { 0 }
    }

    /// Returns whether all of `from..=to` went out in order, with none that the device may have dropped.
    pub fn covers(&self, from: u64, to: u64) -> bool {
        self.first <= from && to < self.upto()
    }

    /// Returns the seq of the last entry that went out in its turn, 0 for none.
    pub fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Returns the end of the entries from `first` on that went out in order, with none that the device may have
    /// dropped. The entry with the returned seq is not one of them.
    fn upto(&self) -> u64 {
        let doubted = self.early.first().filter(|seq| *seq < self.next);
        doubted.unwrap_or(self.next)
    }

    /// Moves `next` over the entries that went out early and follow it directly.
    fn catch_up_with_early(&mut self) {
        self.next = self.early.first_missing(self.next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn went(seqs: &[u64]) -> Place {
        let mut place = Place::default();
        seqs.iter().for_each(|seq| place.went(*seq));
        place
    }

    #[test]
    fn where_the_device_stands_is_not_known_before_it_said_so() {
        let place = went(&[7, 8]);
        assert_eq!((place.turn(9), place.turn(8)), (Turn::Next, Turn::Again));
        assert_eq!(
            (place.turn(11), place.turn(3)),
            (Turn::Hole(2), Turn::Hole(u64::MAX))
        );
        assert_eq!((place.start(), place.base()), (0, 0));
        let first = went(&[1, 2]);
        assert_eq!(
            (first.turn(5), first.start(), first.base()),
            (Turn::Hole(2), 3, 1)
        );
    }

    #[test]
    fn an_acknowledgement_shows_whether_the_device_took_what_went_out_first() {
        let mut took = went(&[7, 8]);
        assert_eq!(took.acknowledged(7, 0), None);
        assert_eq!((took.start(), took.base(), took.turn(11)), (9, 8, Turn::Hole(2)));
        let mut dropped = went(&[7, 8]);
        assert_eq!(dropped.acknowledged(4, 0), Some(5));
        assert_eq!(dropped.acknowledged(4, 4), None, "it is being read");
        assert_eq!((dropped.start(), dropped.turn(9)), (5, Turn::Hole(4)));
    }

    #[test]
    fn who_holds_an_early_result_goes_on_and_who_drops_it_gets_the_entry() {
        // The result of 5 overtakes the entry 4.
        let early = went(&[1, 2, 3, 5, 4, 6]);
        assert_eq!((early.turn(7), early.turn(5)), (Turn::Next, Turn::Again));
        assert_eq!(early.start(), 5, "what is read is read from the doubted one on");
        let mut holds = early.clone();
        assert_eq!(holds.acknowledged(6, 0), None);
        assert_eq!(holds.start(), 7);
        let mut drops = early;
        assert_eq!(drops.acknowledged(3, 0), None, "it was under way");
        assert_eq!(drops.acknowledged(4, 3), Some(5));
        assert_eq!(drops.turn(7), Turn::Hole(2));
    }

    #[test]
    fn an_entry_that_overtook_the_result_below_it_is_doubted() {
        let mut place = went(&[8, 7, 9]);
        assert_eq!(place.acknowledged(7, 0), Some(8));
        let mut holds = went(&[8, 7, 9]);
        assert_eq!(holds.acknowledged(9, 0), None);
        assert_eq!(holds.start(), 10);
    }

    proptest! {
        /// Runs against a client that drops everything above its cursor + 1. The place never claims that the client
        /// took an entry that it did not take.
        #[test]
        fn the_start_is_never_above_what_a_literal_client_took(
            stands in 0u64..12, steps in prop::collection::vec((0u8..5, 1u64..20), 0..60),
        ) {
            let (mut place, mut cursor, mut said) = (Place::default(), stands, 0);
            for (kind, seq) in steps {
                match kind {
                    0 if matches!(place.turn(seq), Turn::Next | Turn::Past) => {
                        place.went(seq);
                        cursor += u64::from(seq == cursor + 1);
                    }
                    0 if place.turn(seq) == Turn::Again => {}
                    0 => {
                        let from = if place.start() > 0 { place.start() } else { stands + 1 };
                        let next = from.max(seq) + 1;
                        prop_assert!(from <= cursor + 1, "{} was left out: {:?}", cursor + 1, place);
                        place.went_from(place.start(), from, next);
                        cursor = cursor.max(next - 1);
                    }
                    1 | 2 => {
                        place.went(seq);
                        cursor += u64::from(seq == cursor + 1);
                    }
                    3 => {
                        place.went_early(seq);
                        cursor += u64::from(seq == cursor + 1);
                    }
                    _ if cursor > 0 => {
                        prop_assert!(place.acknowledged(cursor, said).is_none_or(|from| from == cursor + 1));
                        said = cursor;
                    }
                    _ => {}
                }
                prop_assert!(place.start() <= cursor + 1, "{:?} of one that stands at {}", place, cursor);
            }
        }
    }
}
