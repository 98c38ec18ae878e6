//! Which seqs of a chat went through a session: a few ranges, because pushes may overtake each other.

/// Ranges remembered. Beyond it the lowest is forgotten, which costs a repeated delivery at worst.
const MAX_RANGES: usize = 4;

/// Ascending, disjoint, not adjacent ranges of seqs, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `from..=to`; nothing when that is empty.
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
        if self.0.len() > MAX_RANGES {
            self.0.remove(0);
        }
    }

    pub fn contains(&self, seq: u64) -> bool {
        self.0.iter().any(|&(start, end)| (start..=end).contains(&seq))
    }

    /// The lowest seq from `seq` on that is not in.
    pub fn first_missing(&self, seq: u64) -> u64 {
        self.0
            .iter()
            .find(|&&(start, end)| (start..=end).contains(&seq))
            .map_or(seq, |&(_, end)| end.saturating_add(1))
    }

    /// Forgets everything up to `seq`.
    pub fn forget_to(&mut self, seq: u64) {
        self.0.retain_mut(|range| {
            range.0 = range.0.max(seq.saturating_add(1));
            range.0 <= range.1
        });
    }

    /// Forgets everything from `seq` on.
    pub fn forget_from(&mut self, seq: u64) {
        self.0.retain_mut(|range| {
            range.1 = range.1.min(seq.saturating_sub(1));
            range.0 <= range.1
        });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
            steps in proptest::collection::vec((0u8..4, 1u64..40, 0u64..6), 1..60),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (kind, seq, len) in steps {
                match kind {
                    0 | 1 => {
                        ranges.insert(seq, seq + len);
                        model.extend(seq..=seq + len);
                    }
                    2 => {
                        ranges.forget_to(seq);
                        model.retain(|s| *s > seq);
                    }
                    _ => {
                        ranges.forget_from(seq + 20);
                        model.retain(|s| *s < seq + 20);
                    }
                }
                prop_assert!(ranges.0.len() <= MAX_RANGES);
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
