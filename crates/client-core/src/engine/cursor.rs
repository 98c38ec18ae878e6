//! A [`Cursor`] is the device's place in one chat's log. It lets each entry be applied once and in order, and holds
//! entries that come before their turn.

use std::collections::BTreeMap;

use tern_types::Seq;

use crate::model::Entry;

/// The most entries of one chat that are held because an earlier one is missing: twice the server's window.
pub const MAX_HELD: usize = 512;
/// The most bytes that the bodies of a chat's held entries have together. One entry always fits.
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// The cursor and the held entries of one chat.
#[derive(Debug, Default)]
pub struct Cursor {
    /// The seq up to which everything is stored. `None`: the place to begin is not known yet.
    at: Option<Seq>,
    /// The held entries. All of them lie above `at` + 1.
    held: BTreeMap<Seq, Entry>,
    /// The number of bytes in the bodies of the held entries.
    held_bytes: usize,
}

/// The outcome of [`Cursor::offer`].
#[derive(Debug, PartialEq)]
pub enum Offered {
    /// These entries are next, in order. The cursor now stands on the last of them.
    Applied(Vec<Entry>),
    /// The entry was applied before.
    Repeated,
    /// The entry waits for earlier ones, or was dropped for lack of room. A dropped entry comes again.
    Held,
}

impl Cursor {
    /// Makes a cursor at `at`, with no entries held.
    pub fn new(at: Option<Seq>) -> Self {
        Self {
            at,
            ..Self::default()
        }
    }

    /// Returns the seq up to which everything is stored, or `None` if the place to begin is not known yet.
    pub fn at(&self) -> Option<Seq> {
        self.at
    }

    /// Returns the lowest seq that is held, or `None` if none is.
    pub(super) fn first_held(&self) -> Option<Seq> {
        self.held.keys().next().copied()
    }

    /// Returns whether an entry of which `is` holds is held.
    pub(super) fn holds(&self, is: impl Fn(&Entry) -> bool) -> bool {
        self.held.values().any(is)
    }

    /// Takes an entry from the server, or one that was made from the result of an own send. Example: the cursor is at 4
    /// and 6 is held. The entry 5 is applied, and 6 with it.
    pub fn offer(&mut self, entry: Entry) -> Offered {
        match self.at {
            Some(at) if entry.seq <= at => Offered::Repeated,
            Some(at) if entry.seq == at.next() => {
                self.at = Some(entry.seq);
                let mut applied = vec![entry];
                self.advance(&mut applied);
                Offered::Applied(applied)
            }
            _ => {
                self.hold(entry);
                Offered::Held
            }
        }
    }

    /// Returns whether the cursor is unknown and the chat's first entry is held. Then the cursor can begin at 0.
    pub(super) fn has_the_first(&self) -> bool {
        self.at.is_none() && self.first_held() == Some(Seq(1))
    }

    /// Sets an unknown cursor to `at`, and returns the held entries that are next. A known cursor stays, and nothing is
    /// returned.
    pub fn start(&mut self, at: Seq) -> Vec<Entry> {
        if self.at.is_some() {
            Vec::new()
        } else {
            self.skip(at)
        }
    }

    /// Raises the cursor to `to`, and returns the held entries that are next. Entries at or below `to` are not this
    /// device's: held ones are dropped, since the server sends every entry that is the device's before it skips it.
    pub fn skip(&mut self, to: Seq) -> Vec<Entry> {
        self.at = self.at.max(Some(to));
        let mut applied = Vec::new();
        self.advance(&mut applied);
        applied
    }

    /// Moves the cursor over the held entries that are next, and appends them to `applied`. Drops those below it.
    fn advance(&mut self, applied: &mut Vec<Entry>) {
        let Some(mut at) = self.at else { return };
        while let Some(first) = self.held.first_entry() {
            if *first.key() > at.next() {
                break;
            }
            let entry = first.remove();
            self.held_bytes -= size(&entry);
            if entry.seq > at {
                at = entry.seq;
                applied.push(entry);
            }
        }
        self.at = Some(at);
        debug_assert!(
            !self.held.is_empty() || self.held_bytes == 0,
            "bytes are counted of entries that are not held"
        );
    }

    /// Holds an entry. If there is no room, the highest are dropped, because the lowest are needed first.
    fn hold(&mut self, entry: Entry) {
        debug_assert!(
            self.at.is_none_or(|at| entry.seq > at.next()),
            "an entry is held whose turn has come"
        );
        self.held_bytes += size(&entry);
        if let Some(before) = self.held.insert(entry.seq, entry) {
            self.held_bytes -= size(&before);
        }
        while self.held.len() > MAX_HELD || (self.held_bytes > MAX_HELD_BYTES && self.held.len() > 1) {
            if let Some((_, dropped)) = self.held.pop_last() {
                self.held_bytes -= size(&dropped);
            }
        }
    }
}

fn size(entry: &Entry) -> usize {
    entry.message().map_or(0, |message| message.body.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tern_types::ChatId;

    use super::*;
    use crate::testing::entry;

    fn chat() -> ChatId {
        ChatId(uuid::Uuid::from_u128(1))
    }

    fn seqs(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.seq.0).collect()
    }

    fn offered(cursor: &mut Cursor, seq: u64) -> Vec<u64> {
        match cursor.offer(entry(chat(), seq)) {
            Offered::Applied(entries) => seqs(&entries),
            _ => Vec::new(),
        }
    }

    #[test]
    fn an_unknown_cursor_begins_with_the_first_entry_or_where_it_is_told() {
        let mut cursor = Cursor::default();
        assert_eq!((offered(&mut cursor, 1), cursor.has_the_first()), (vec![], true));
        assert_eq!(seqs(&cursor.start(Seq::ZERO)), [1]);

        let mut cursor = Cursor::default();
        assert_eq!(offered(&mut cursor, 7), [0; 0]);
        assert!(!cursor.has_the_first());
        assert_eq!(offered(&mut cursor, 6), [0; 0]);
        assert_eq!(seqs(&cursor.start(Seq(5))), [6, 7]);
        assert_eq!(seqs(&cursor.start(Seq(9))), [0; 0], "it has begun already");
        assert_eq!(cursor.at(), Some(Seq(7)));
    }

    #[test]
    fn a_skip_raises_the_cursor_and_applies_what_follows() {
        let mut cursor = Cursor::new(Some(Seq(2)));
        for seq in [5, 6, 9] {
            offered(&mut cursor, seq);
        }
        assert_eq!(seqs(&cursor.skip(Seq(8))), [9], "what lies below is not owed");
        assert_eq!(seqs(&cursor.skip(Seq(4))), [0; 0], "a late skip lowers nothing");
        assert_eq!(cursor.at(), Some(Seq(9)));
    }

    #[test]
    fn the_held_are_bounded_and_the_lowest_stay() {
        let mut cursor = Cursor::new(Some(Seq::ZERO));
        for seq in (2..2 + 2 * MAX_HELD as u64).rev() {
            offered(&mut cursor, seq);
        }
        assert_eq!(offered(&mut cursor, 1).len(), MAX_HELD + 1);
    }

    proptest! {
        #[test]
        fn whatever_the_order_and_repetition_each_entry_is_applied_once_and_in_order(
            order in proptest::collection::vec(1u64..60, 0..300), skip_at in 0usize..300, skip_to in 0u64..80,
        ) {
            let mut cursor = Cursor::new(Some(Seq::ZERO));
            let mut applied = Vec::new();
            for (index, seq) in order.iter().enumerate() {
                if index == skip_at {
                    applied.extend(seqs(&cursor.skip(Seq(skip_to))));
                }
                applied.extend(offered(&mut cursor, *seq));
            }
            prop_assert!(applied.windows(2).all(|pair| pair[0] < pair[1]), "{applied:?}");
            prop_assert!(applied.last().is_none_or(|last| Some(Seq(*last)) <= cursor.at()));
            let missing = (1..=cursor.at().unwrap_or_default().0)
                .filter(|seq| order.contains(seq) && !applied.contains(seq))
                .all(|seq| seq <= skip_to);
            prop_assert!(missing, "{applied:?}");
        }
    }
}
