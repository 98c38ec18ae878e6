//! Decides what a presented refresh token stands for, and which one a device gets when it is linked.
//!
//! Each exchange makes the next token of the device. Because the answer may get lost, the token before the present one
//! gives the present one again, until the present one is used or a day has passed. For example, a device that exchanges
//! token 4 and does not get the answer presents token 4 again, and gets token 5. Whoever presents token 4 after token 5
//! was used, or more than a day later, has a copy, so the device is revoked. Only a token that this server made counts
//! as a copy, since anybody may know a device's id and make a token up.

use std::fmt;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tern_types::Timestamp;

/// The time after which a token that was not used is no longer valid.
pub const UNUSED_ENDS: Duration = Duration::from_secs(60 * 24 * 3600);

/// The time for which the token before the present one gives the present one again.
pub const SAME_PAIR_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The SHA-256 of a token's secret.
#[derive(Clone, Copy)]
pub struct TokenHash(pub [u8; 32]);

impl PartialEq for TokenHash {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// The stored facts about a device's refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The number of the present token: 1 for the first one.
    pub rotation: u64,
    /// The hash of the present token.
    pub current: TokenHash,
    /// The hash of the token before the present one.
    pub previous: Option<TokenHash>,
    /// The time at which the present token was made.
    pub issued_at: Timestamp,
}

/// A refresh token as it was presented.
#[derive(Clone, Copy, Debug)]
pub struct Presented {
    /// The number that the token says it has.
    pub rotation: u64,
    /// The hash of its secret.
    pub hash: TokenHash,
    /// True if its secret is the one that this server makes for the device and this number.
    pub genuine: bool,
}

/// The next step for a token that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make a new token, and store the presented one as the one before it.
    Rotate {
        /// The number of the new token.
        next: u64,
    },
    /// Return the present token again.
    SamePairAgain,
    /// The token was copied: revoke the device.
    Reused,
    /// Refuse it: it is not a token of the device, or was not used in time.
    Unknown,
}

/// Decides what a presented token stands for, given what is stored of the device's tokens.
pub fn judge(stored: &Stored, presented: &Presented, now: Timestamp) -> Verdict {
    let age = now.since(stored.issued_at);
    if presented.hash == stored.current {
        return if age > UNUSED_ENDS {
            Verdict::Unknown
        } else {
            Verdict::Rotate {
                next: stored.rotation + 1,
            }
        };
    }
    if stored.previous == Some(presented.hash) {
        return if age > SAME_PAIR_AGAIN {
            Verdict::Reused
        } else {
            Verdict::SamePairAgain
        };
    }
    if !presented.genuine {
        return Verdict::Unknown;
    }
    if presented.rotation > stored.rotation {
        // This server made the token, and the store does not know it. So the store has lost its latest changes (in a
        // fail-over, or by a restore).
        return Verdict::Rotate {
            next: presented.rotation.saturating_add(1),
        };
    }
    Verdict::Reused
}

/// The refresh token for a device whose request to be linked is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// Make the token with this number, and store the present one, if there is one, as the one before it.
    Next(u64),
    /// Return the present token, which has this number, again.
    Present(u64),
}

/// Decides which token a device gets when its request to be linked is answered, perhaps not for the first time. `made`
/// returns the hash of the token that this server makes with a number.
///
/// Any of the answers may arrive, and in any order, so a repetition gives the present token again: if it made another
/// one, the token of the first answer would count as copied after the second repetition. Only if the present token was
/// made under an older signing key, and cannot be made again, a repetition makes the next one.
pub fn linked(stored: Option<&Stored>, made: impl Fn(u64) -> TokenHash) -> Linked {
    match stored {
        None => Linked::Next(1),
        Some(stored) if made(stored.rotation) == stored.current => Linked::Present(stored.rotation),
        Some(stored) => Linked::Next(stored.rotation + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const MOMENT: Duration = Duration::from_millis(1);

    fn hash(number: u8) -> TokenHash {
        TokenHash([number; 32])
    }

    /// Returns the state in which token number 5 is the present one, made `age` ago, and number 4 is the one before it.
    fn stored(age: Duration) -> Stored {
        Stored {
            rotation: 5,
            current: hash(5),
            previous: Some(hash(4)),
            issued_at: NOW - age,
        }
    }

    fn ours(rotation: u8) -> Presented {
        Presented {
            rotation: rotation.into(),
            hash: hash(rotation),
            genuine: true,
        }
    }

    /// Returns `token` as if it was made under another signing key, so that only its hash can be known.
    fn foreign(token: Presented) -> Presented {
        Presented {
            genuine: false,
            ..token
        }
    }

    /// Judges the token of each case, and compares the verdict with the one that is named last.
    fn check<const N: usize>(cases: [(&str, Stored, Presented, Verdict); N]) {
        for (name, stored, presented, verdict) in cases {
            assert_eq!(judge(&stored, &presented, NOW), verdict, "{name}");
        }
    }

    #[test]
    fn the_present_token_is_renewed_for_as_long_as_it_may_be_unused() {
        let next = Verdict::Rotate { next: 6 };
        check([
            ("the present one", stored(HOUR), ours(5), next),
            (
                "the present one after a key change",
                stored(HOUR),
                foreign(ours(5)),
                next,
            ),
            (
                "the present one, just in time",
                stored(UNUSED_ENDS),
                ours(5),
                next,
            ),
            (
                "the present one, too late",
                stored(UNUSED_ENDS + MOMENT),
                ours(5),
                Verdict::Unknown,
            ),
        ]);
    }

    #[test]
    fn the_token_before_gives_the_same_pair_for_a_day_and_an_older_one_was_copied() {
        use Verdict::*;
        check([
            ("the one before", stored(HOUR), ours(4), SamePairAgain),
            (
                "the one before after a key change",
                stored(HOUR),
                foreign(ours(4)),
                SamePairAgain,
            ),
            (
                "the one before, just in time",
                stored(SAME_PAIR_AGAIN),
                ours(4),
                SamePairAgain,
            ),
            (
                "the one before, too late",
                stored(SAME_PAIR_AGAIN + MOMENT),
                ours(4),
                Reused,
            ),
            ("an old one", stored(HOUR), ours(3), Reused),
            (
                "an old one, much later",
                stored(UNUSED_ENDS + MOMENT),
                ours(3),
                Reused,
            ),
        ]);
    }

    #[test]
    fn a_token_that_the_store_does_not_know_is_renewed_only_if_this_server_made_it() {
        use Verdict::*;
        let largest = Presented {
            rotation: u64::MAX,
            ..ours(9)
        };
        let first = Stored {
            previous: None,
            ..stored(HOUR)
        };
        check([
            (
                "one that the store lost",
                stored(HOUR),
                ours(6),
                Rotate { next: 7 },
            ),
            ("a guess", stored(HOUR), foreign(ours(9)), Unknown),
            ("a guess at an old one", stored(HOUR), foreign(ours(3)), Unknown),
            ("the largest number", stored(HOUR), foreign(largest), Unknown),
            ("the first one's guess", first, foreign(ours(4)), Unknown),
        ]);
    }

    #[test]
    fn a_repeated_request_gives_the_present_token_unless_it_cannot_be_made_again() {
        let ours = |number: u64| hash(number as u8);
        let other_key = |_: u64| hash(99);
        let present = stored(HOUR);
        assert_eq!(linked(None, ours), Linked::Next(1));
        assert_eq!(linked(Some(&present), ours), Linked::Present(5));
        assert_eq!(linked(Some(&present), other_key), Linked::Next(6));
    }
}
