//! The parts of a chat's log that a user may read as history. Each interval of membership has such a part: it begins with
//! the entry that made the user a member or, by the group's policy, before it, and ends with the interval.
//!
//! The stream, windows and the inbox go by the intervals themselves.

use sqlx::PgExecutor;
use tern_proto::v1;
use tern_types::{ChatId, Seq, UserId};

/// Selects the parts of the log of a chat that a user may read: their first and last seqs, `from_seq` and `to_seq`. No two
/// of them overlap: where a later membership shows what an earlier one did too, the part is that of the later one. The
/// part of a membership that lasts ends with the highest seq that there can be.
macro_rules! readable {
    ($chat:literal, $user:literal) => {
        concat!(
            "(SELECT r.from_seq, r.to_seq FROM (
        SELECT coalesce(m.history_seq, m.joined_seq) AS from_seq,
               least(coalesce(m.left_seq, 9223372036854775807),
                     min(coalesce(m.history_seq, m.joined_seq))
                         OVER (ORDER BY m.joined_seq ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) - 1) AS to_seq
        FROM members m WHERE m.chat_id = ",
            $chat,
            " AND m.user_id = ",
            $user,
            "
    ) r WHERE r.from_seq <= r.to_seq)"
        )
    };
}
pub(super) use readable;

/// The most parts of a log that are looked at for gaps between them. A part is a membership, which takes two entries of
/// the log. Of somebody who came and went more often, the oldest gaps are not named.
const MAX_PARTS: i64 = 4096;

/// Selects the newest $3 parts of the log of a chat ($1) that a user ($2) may read, the newest first: the first and the
/// last seq of each, and of all of them together.
pub const PARTS: &str = concat!(
    "
SELECT p.from_seq, p.to_seq, min(p.from_seq) OVER (), max(p.to_seq) OVER () FROM (
    SELECT i.from_seq, least(i.to_seq, h.head_seq) AS to_seq FROM ",
    readable!("$1", "$2"),
    " i CROSS JOIN LATERAL (SELECT h.head_seq FROM chat_heads h WHERE h.chat_id = $1 LIMIT 1) h
) p ORDER BY p.from_seq DESC LIMIT $3"
);

/// The parts of a log that a user may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// The lowest seq that the user may read.
    pub first: Seq,
    /// The highest seq that the user may read.
    pub last: Seq,
    /// The first and the last seq of each part, ascending and without overlaps.
    parts: Vec<(Seq, Seq)>,
}

impl Parts {
    /// Reads the parts; `None` if the user never was a member.
    pub async fn read(db: impl PgExecutor<'_>, chat: ChatId, user: UserId) -> sqlx::Result<Option<Self>> {
        let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(PARTS)
            .bind(chat.0)
            .bind(user.0)
            .bind(MAX_PARTS)
            .fetch_all(db)
            .await?;
        let seq = Seq::from_i64;
        Ok(rows.first().map(|(_, _, first, last)| Self {
            first: seq(*first),
            last: seq(*last),
            parts: rows.iter().rev().map(|row| (seq(row.0), seq(row.1))).collect(),
        }))
    }

    /// Returns the gaps between the parts, ascending: the first and the last seq of each.
    fn gaps(&self) -> impl Iterator<Item = (Seq, Seq)> {
        let between = self.parts.windows(2).filter_map(|pair| match pair {
            [(_, before), (after, _)] => Some((before.next(), after.previous())),
            _ => None,
        });
        between.filter(|(from, to)| from <= to)
    }

    /// Returns the gap that a seq is in; `None` if the user may read it, or it is in no gap.
    pub fn gap_at(&self, seq: Seq) -> Option<(Seq, Seq)> {
        self.gaps().find(|(from, to)| (*from..=*to).contains(&seq))
    }

    /// Returns the gaps of which a part is among the seqs from `low` to `high`, whole and ascending.
    pub fn gaps_among(&self, low: Seq, high: Seq) -> Vec<v1::Gap> {
        let among = self.gaps().filter(|(from, to)| *from <= high && *to >= low);
        let gap = |(from, to): (Seq, Seq)| v1::Gap {
            from_seq: from.0,
            to_seq: to.0,
        };
        among.map(gap).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[(u64, u64)]) -> Parts {
        let parts: Vec<_> = parts.iter().map(|(from, to)| (Seq(*from), Seq(*to))).collect();
        let (first, last) = (parts[0].0, parts[parts.len() - 1].1);
        Parts { first, last, parts }
    }

    fn among(of: &Parts, low: u64, high: u64) -> Vec<(u64, u64)> {
        let gaps = of.gaps_among(Seq(low), Seq(high));
        gaps.iter().map(|gap| (gap.from_seq, gap.to_seq)).collect()
    }

    #[test]
    fn gaps_are_what_lies_between_the_parts() {
        let one = parts(&[(5, 100)]);
        assert_eq!(among(&one, 1, 1_000), [], "what is before and after is no gap");
        let three = parts(&[(5, 100), (200, 250), (251, 300), (302, 400)]);
        let (first, second) = ((101, 199), (301, 301));
        let cases = [
            (1, 1_000, vec![first, second]),
            (5, 100, vec![]),
            (100, 101, vec![first]),
            (120, 130, vec![first]),
            (199, 200, vec![first]),
            (200, 300, vec![]),
            (250, 301, vec![second]),
        ];
        for (low, high, expected) in cases {
            assert_eq!(among(&three, low, high), expected, "{low} to {high}");
        }
        let at = |seq| three.gap_at(Seq(seq)).map(|(from, to)| (from.0, to.0));
        let found = [100, 101, 199, 200, 250, 301, 1_000].map(at);
        let expected = [None, Some(first), Some(first), None, None, Some(second), None];
        assert_eq!(found, expected);
    }
}
