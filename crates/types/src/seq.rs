//! Seqs: the places of entries in a chat's log.

use std::fmt;

/// The seq of an entry in a chat's log: 1, 2, 3 … without gaps. 0 is the place before the first entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The place before the first entry.
    pub const ZERO: Self = Self(0);

    /// Returns the seq after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the seq before this one. [`Self::ZERO`] has none and returns itself.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Returns the number that Postgres stores. Seqs stay far below 2^63: at a million entries a second, reaching it
    /// takes 290,000 years.
    pub fn to_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// Reads the number that Postgres stores. A negative one, which does not occur there, counts as 0.
    pub fn from_i64(value: i64) -> Self {
        Self(u64::try_from(value).unwrap_or(0))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
