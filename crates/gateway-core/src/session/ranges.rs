//! [`Ranges`] is a set of seqs, kept as a few ranges. It holds the entries of a chat that went out before their turn.

/// The most ranges that are remembered. If there are more, the highest is forgotten, which costs a repeated delivery at
/// worst. If the lowest were forgotten, the log might be read from above it, and its entries would be missed.
const MAX_RANGES: usize = 4;

/// A set of seqs as ascending ranges that neither overlap nor touch, both ends included. It may forget seqs that were
/// inserted, the highest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `from..=to`; an empty range adds nothing.
    pub fn insert(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        let (mut low, mut high) = (from, to);
        self.0.retain(|&(start, end)| {
            let touches = start <= to.saturating_add(1) && from <= end.saturating_add(1);
            if touches {
                (low, high) = (low.min(start), high.max(end));
            }
            !touches
        });
        let at = self.0.partition_point(|range| range.0 < low);
        self.0.insert(at, (low, high));
        self.0.truncate(MAX_RANGES);
        debug_assert!(
            self.0
                .windows(2)
                .all(|pair| pair[0].1.saturating_add(1) < pair[1].0),
            "ranges overlap, touch, or are not ascending"
        );
    }

    /// Returns whether `seq` is in the set.
    pub fn contains(&self, seq: u64) -> bool {
        self.0.iter().any(|&(start, end)| (start..=end).contains(&seq))
    }

    /// Returns the lowest seq that is not in the set and not below `seq`.
    pub(crate) fn first_missing(&self, seq: u64) -> u64 {
        self.0
            .iter()
            .find(|&&(start, end)| (start..=end).contains(&seq))
            .map_or(seq, |&(_, end)| end.saturating_add(1))
    }

    /// Removes every seq up to and including `seq`.
    pub(crate) fn forget_to(&mut self, seq: u64) {
        self.0.retain_mut(|range| {
            range.0 = range.0.max(seq.saturating_add(1));
            range.0 <= range.1
        });
    }

    /// Returns the lowest seq in the set, or `None` if the set is empty.
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|range| range.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_never_claim_what_was_not_inserted(
            steps in proptest::collection::vec((0u8..3, 1u64..40, 0u64..6), 1..60),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (kind, seq, len) in steps {
                match kind {
                    0 | 1 => {
                        ranges.insert(seq, seq + len);
                        model.extend(seq..=seq + len);
                    }
                    _ => {
                        ranges.forget_to(seq);
                        model.retain(|s| *s > seq);
                    }
                }
                prop_assert!(ranges.0.len() <= MAX_RANGES);
                prop_assert!(ranges.first().is_none_or(|first| model.contains(&first)));
                prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                for seq in 1..60 {
                    prop_assert!(!ranges.contains(seq) || model.contains(&seq));
                    let missing = ranges.first_missing(seq);
                    prop_assert!(missing >= seq && (seq..missing).all(|s| model.contains(&s)));
                    prop_assert!(!ranges.contains(missing));
                }
            }
        }
    }

    #[test]
    fn neighbours_become_one_range() {
        let mut ranges = Ranges::default();
        for seq in [5, 7, 6, 4] {
            ranges.insert(seq, seq);
        }
        assert_eq!(ranges.0, [(4, 7)]);
        assert_eq!(ranges.first_missing(4), 8);
        assert_eq!(ranges.first_missing(3), 3);
        ranges.insert(9, 8);
        assert!(!ranges.contains(9));
    }
}
