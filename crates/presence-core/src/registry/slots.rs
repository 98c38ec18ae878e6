//! A [`SlotSet`] is a set of slots.

use std::fmt;

use tern_types::{SLOTS, Slot};

/// The number of 64-bit words that hold one bit for each slot.
const WORDS: usize = SLOTS as usize / 64;
const _: () = assert!(WORDS * 64 == SLOTS as usize, "each slot has a bit");

/// A set of slots, with one bit for each slot. [`Self::contains`] reads one word only: each look-up calls it for each
/// of its users.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; WORDS]>);

impl SlotSet {
    /// Makes a set without slots.
    pub fn empty() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// Makes the set of all slots.
    pub fn all() -> Self {
        Self(Box::new([u64::MAX; WORDS]))
    }

    /// Returns whether the slot is in the set.
    pub fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64] >> (slot.index() % 64) & 1 == 1
    }

    /// Adds a slot. Does nothing if it is in the set already.
    pub fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    /// Reads a set of which bit n % 8 of byte n / 8 is slot n. `None` if there are not as many bits as slots.
    pub fn from_bits(bits: &[u8]) -> Option<Self> {
        if bits.len() != WORDS * 8 {
            return None;
        }
        let mut words = Box::new([0; WORDS]);
        for (word, bytes) in words.iter_mut().zip(bits.chunks_exact(8)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Some(Self(words))
    }

    /// Removes the slots that are not in `other`.
    pub fn keep(&mut self, other: &Self) {
        for (word, kept) in self.0.iter_mut().zip(other.0.iter()) {
            *word &= kept;
        }
    }

    /// Returns the slots that are in this set and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        Self(Box::new(std::array::from_fn(|word| {
            self.0[word] & !other.0[word]
        })))
    }

    /// Adds the slots of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0.iter()) {
            *word |= more;
        }
    }

    /// Returns whether no slot is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Returns the number of slots in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<T: IntoIterator<Item = Slot>>(slots: T) -> Self {
        let mut set = Self::empty();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots", self.len())
    }
}
