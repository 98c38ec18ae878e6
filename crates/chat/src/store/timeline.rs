//! Reads the messages of all chats of a user in the order of their times, page by page: those of a span of time, and
//! those that none of the user's devices has acknowledged.
//!
//! There is no index of messages by time. The times of a chat's entries never decrease from seq to seq, so the first
//! entry of a page is found in each chat by halving. A page then has the first entries of all chats together. Those that
//! are messages are read as they are now.

use sqlx::PgPool;
use tern_proto::v1;
use tern_store::{Gathered, Pools, millis};
use tern_types::{ChatId, Seq, Timestamp, UserId};
use uuid::Uuid;

use super::ReadError;
use super::history::{Bounds, places};
use super::seal::MasterKey;

/// Builds the statement of the first entries after a place (time $2, chat $3, seq $4) and before a time ($5) in the
/// chats of a user ($1), at most $6, in the order of time, chat and seq. `wanted` is true for those that fulfil
/// `$wanted`. It has only what the user may read (rule 7). `$which` is a further condition on memberships `i`. Only
/// entries from `$low` on are looked at, which may use `$marks`.
///
/// `search` halves the ranges of all chats at once. A chat whose first entry is later than those of n others can have at
/// most $6 - n entries of the page, so no more of it are read.
macro_rules! first_entries {
    ($marks:literal, $low:literal, $which:literal, $wanted:literal) => {
        concat!(
            "
WITH RECURSIVE mine AS MATERIALIZED (
    SELECT i.chat_id, greatest(i.joined_seq, ",
            $low,
            ") AS low, l.seq AS last
    FROM members i
    CROSS JOIN LATERAL (SELECT h.head_seq FROM chat_heads h WHERE h.chat_id = i.chat_id LIMIT 1) h",
            $marks,
            "
    CROSS JOIN LATERAL (
        SELECT m.seq, ",
            millis!("m.sent_at"),
            " AS sent_at FROM messages m
        WHERE m.chat_id = i.chat_id
            AND m.seq BETWEEN greatest(i.joined_seq, ",
            $low,
            ") AND coalesce(i.left_seq, h.head_seq)
        ORDER BY m.seq DESC LIMIT 1
    ) l
    WHERE i.user_id = $1",
            $which,
            " AND (l.sent_at, i.chat_id, l.seq) > ($2, $3, $4)
), search AS (
    SELECT chat_id, low, last AS high, last FROM mine
    UNION ALL
    SELECT s.chat_id, CASE WHEN m.passed THEN m.seq + 1 ELSE s.low END,
           CASE WHEN m.passed THEN s.high ELSE s.middle END, s.last
    FROM (SELECT s.*, (s.low + s.high) / 2 AS middle FROM search s WHERE s.low < s.high) s
    CROSS JOIN LATERAL (
        SELECT m.seq, (",
            millis!("m.sent_at"),
            ", m.chat_id, m.seq) <= ($2, $3, $4) AS passed
        FROM messages m WHERE m.chat_id = s.chat_id AND m.seq BETWEEN s.middle AND s.last ORDER BY m.seq LIMIT 1
    ) m
)
SELECT e.chat_id, e.seq, e.sent_at, e.wanted FROM (
    SELECT s.chat_id, f.seq, s.last, row_number() OVER (ORDER BY f.sent_at, s.chat_id, f.seq) AS place
    FROM search s
    CROSS JOIN LATERAL (
        SELECT m.seq, ",
            millis!("m.sent_at"),
            " AS sent_at FROM messages m
        WHERE m.chat_id = s.chat_id AND m.seq BETWEEN s.low AND s.last ORDER BY m.seq LIMIT 1
    ) f
    WHERE s.low >= s.high AND f.sent_at < $5
    ORDER BY f.sent_at, s.chat_id, f.seq LIMIT $6
) f
CROSS JOIN LATERAL (
    SELECT m.chat_id, m.seq, ",
            millis!("m.sent_at"),
            " AS sent_at, ",
            $wanted,
            " AS wanted
    FROM messages m WHERE m.chat_id = f.chat_id AND m.seq BETWEEN f.seq AND f.last
    ORDER BY m.seq LIMIT $6 - f.place + 1
) e
WHERE e.sent_at < $5 ORDER BY e.sent_at, e.chat_id, e.seq LIMIT $6"
        )
    };
}

/// Builds the statement of the messages that none of the user's devices has acknowledged. As in
/// [`super::listing::RECEIPTS`], the device that got furthest counts, or the read mark if that is higher, and what is
/// not settled counts as not acknowledged. An entry that is being settled is seen either as unsettled or in the inbox,
/// because one statement reads all of it. Own messages are left out. Of a user who left a chat, the devices are those
/// of the newest membership, so the entry that removed them and what came before are still looked at.
macro_rules! undelivered {
    ($which:literal) => {
        first_entries!(
            "
    CROSS JOIN LATERAL (
        SELECT n.devices, n.read_seq FROM members n WHERE n.chat_id = i.chat_id AND n.user_id = $1
        ORDER BY n.joined_seq DESC LIMIT 1
    ) n
    CROSS JOIN LATERAL (
        SELECT greatest(n.read_seq, least(
            (SELECT max(coalesce(b.from_seq - 1, h.head_seq))
             FROM unnest(CASE WHEN n.devices = '{}' THEN ARRAY[$1] ELSE n.devices END) AS d(device_id)
             LEFT JOIN LATERAL (
                 SELECT b.from_seq FROM inbox b WHERE b.chat_id = i.chat_id AND b.device_id = d.device_id LIMIT 1
             ) b ON true),
            (SELECT min(u.from_seq) - 1 FROM unsettled u WHERE u.chat_id = i.chat_id))) + 1 AS seq
        OFFSET 0
    ) d",
            "d.seq",
            $which,
            "m.kind = 1 AND m.sender_user <> $1"
        )
    };
}

/// Selects the first entries of all chats of a user.
pub const SENT: &str = first_entries!("", "1", "", "m.kind = 1");
/// Selects the first entries of all chats of a user that were not delivered to them.
pub const UNDELIVERED: &str = undelivered!("");
/// Selects the first entries of one chat ($7) that were not delivered to a user.
pub const UNDELIVERED_IN: &str = undelivered!(" AND i.chat_id = $7");

/// The messages that a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All messages that were sent before this time.
    SentBefore(Timestamp),
    /// The messages of others that none of the user's devices has acknowledged, as far as the store knows.
    Undelivered,
    /// The messages of others in this chat that none of the user's devices has acknowledged, as far as the store knows.
    UndeliveredIn(ChatId),
}

/// The place of an entry among those of all chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The time of the entry.
    pub at: Timestamp,
    /// The entry's chat.
    pub chat: ChatId,
    /// The entry's seq.
    pub seq: Seq,
}

impl Place {
    /// Returns the place after which the entries of this time begin.
    pub fn before(time: Timestamp) -> Self {
        Self {
            at: Timestamp(time.0.saturating_sub(1)),
            chat: ChatId(Uuid::max()),
            seq: Seq(i64::MAX as u64),
        }
    }
}

/// A page of messages, the oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The messages. They may be fewer than were asked for, or none, and there is a next page all the same.
    pub messages: Vec<v1::HistoryMessage>,
    /// The place after which the next page begins; `None` if there are no more messages.
    pub next: Option<Place>,
    /// True if a cell did not answer, so that its messages are missing.
    pub partial: bool,
}

/// The reader of the messages of a user's chats.
#[derive(Clone, Copy)]
pub struct Timeline<'a> {
    /// The connections to the store.
    pub pools: &'a Pools,
    /// The key that unwraps the chats' data keys.
    pub master: &'a MasterKey,
    /// The user, of whose chats only what they may read is read.
    pub user: UserId,
}

/// An entry that a statement found.
struct Found {
    place: Place,
    wanted: bool,
}

impl Timeline<'_> {
    /// Reads a page of the messages after a place.
    pub async fn page(self, which: Which, after: Place, bounds: Bounds) -> Result<Page, ReadError> {
        let of_cell =
            |pool: PgPool| async move { self.first_entries(which, after, bounds.limit, &pool).await };
        let Gathered { answers, partial } = match which {
            Which::SentBefore(_) | Which::Undelivered => self.pools.gather(of_cell).await?,
            Which::UndeliveredIn(chat) => Gathered {
                answers: vec![of_cell(self.pools.of(chat).clone()).await?],
                partial: false,
            },
        };
        let limit = bounds.limit as usize;
        let (found, more) = earliest(answers, limit);
        let wanted: Vec<Place> = found
            .iter()
            .filter(|found| found.wanted)
            .map(|found| found.place)
            .collect();
        let seqs: Vec<(ChatId, Seq)> = wanted.iter().map(|place| (place.chat, place.seq)).collect();
        let (messages, covered) = places::at(self.pools, self.master, self.user, &seqs, bounds.bytes).await?;
        let next = if covered < wanted.len() {
            wanted[..covered].last().copied()
        } else {
            found.last().filter(|_| more).map(|last| last.place)
        };
        Ok(Page {
            messages,
            next,
            partial,
        })
    }

    /// Reads the first entries of one cell.
    async fn first_entries(
        self,
        which: Which,
        after: Place,
        limit: u32,
        pool: &PgPool,
    ) -> sqlx::Result<Vec<Found>> {
        let (statement, before) = match which {
            Which::SentBefore(time) => (SENT, time),
            Which::Undelivered => (UNDELIVERED, Timestamp(i64::MAX)),
            Which::UndeliveredIn(_) => (UNDELIVERED_IN, Timestamp(i64::MAX)),
        };
        let query = sqlx::query_as::<_, (Uuid, i64, i64, bool)>(statement)
            .bind(self.user.0)
            .bind(after.at.0)
            .bind(after.chat.0)
            .bind(after.seq.to_i64())
            .bind(before.0)
            .bind(i64::from(limit));
        let query = match which {
            Which::UndeliveredIn(chat) => query.bind(chat.0),
            Which::SentBefore(_) | Which::Undelivered => query,
        };
        let rows = query.fetch_all(pool).await?;
        let found = rows.into_iter().map(|(chat, seq, at, wanted)| Found {
            place: Place {
                at: Timestamp(at),
                chat: ChatId(chat),
                seq: Seq::from_i64(seq),
            },
            wanted,
        });
        Ok(found.collect())
    }
}

/// Returns the first entries of all cells together, at most `limit`, and whether there may be more. Each cell was asked
/// for as many.
fn earliest(answers: Vec<Vec<Found>>, limit: usize) -> (Vec<Found>, bool) {
    let mut found: Vec<Found> = answers.into_iter().flatten().collect();
    let more = found.len() >= limit;
    found.sort_unstable_by_key(|found| found.place);
    found.truncate(limit);
    (found, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(at: i64, chat: u128) -> Found {
        Found {
            place: Place {
                at: Timestamp(at),
                chat: ChatId(Uuid::from_u128(chat)),
                seq: Seq(1),
            },
            wanted: true,
        }
    }

    #[test]
    fn a_page_has_the_first_entries_of_all_cells_in_the_order_of_their_times() {
        let cells = || {
            vec![
                vec![found(1, 1), found(3, 1)],
                vec![],
                vec![found(1, 2), found(2, 2)],
            ]
        };
        let times = |limit| {
            let (page, more) = earliest(cells(), limit);
            let times: Vec<i64> = page.iter().map(|found| found.place.at.0).collect();
            (times, more)
        };
        assert_eq!(times(5), (vec![1, 1, 2, 3], false));
        assert_eq!(times(4), (vec![1, 1, 2, 3], true), "there may be more");
        assert_eq!(times(3), (vec![1, 1, 2], true));
        assert_eq!(times(2), (vec![1, 1], true));
    }

    #[test]
    fn a_page_begins_with_the_entries_of_its_time() {
        let after = Place::before(Timestamp(5));
        assert!(found(4, u128::MAX).place < after && after < found(5, 0).place);
        assert!(Place::before(Timestamp(i64::MIN)) < Place::before(Timestamp(i64::MAX)));
    }
}
