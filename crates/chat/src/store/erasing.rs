//! Erases what was done to a message that is deleted. The commit of the deletion erases the message and the first of
//! what was done to it, so that its cost is bounded. If there is more, it leaves a row in `erasures`, and the rest is
//! erased here, in batches with a transaction each. Readers get nothing of it meanwhile: see `erased!` in `entries.rs`.
//!
//! Rows to be changed are named by their `ctid`, which a `LATERAL` probe has found. If the planner could join the table
//! with what is to be erased, it would read all of it as long as it believes that the table is empty.

use std::time::Duration;

use sqlx::PgPool;

/// The most entries that one batch erases. A batch takes some tens of milliseconds.
pub const BATCH: i64 = 1_000;

/// Joins deleted messages with the first entries that edit them or react to them: those that fulfil `$which` (of the
/// rows `e`), in this order, at most `$limit` for each. `$of` is the name of the rows, which have `chat_id` and
/// `target_seq`. The entries are the rows `a` with `kind` and `seq`.
macro_rules! first_acts {
    ($of:literal, $which:literal, $order:literal, $limit:literal) => {
        concat!(
            "
    CROSS JOIN LATERAL (
        SELECT a.kind, a.seq FROM (
            (SELECT e.kind, e.seq FROM entry_targets e WHERE e.chat_id = ",
            $of,
            ".chat_id AND e.target_seq = ",
            $of,
            ".target_seq AND e.kind = 2",
            $which,
            " ORDER BY e.seq LIMIT ",
            $limit,
            ")
            UNION ALL
            (SELECT e.kind, e.seq FROM entry_targets e WHERE e.chat_id = ",
            $of,
            ".chat_id AND e.target_seq = ",
            $of,
            ".target_seq AND e.kind = 4",
            $which,
            " ORDER BY e.seq LIMIT ",
            $limit,
            ")
        ) a ORDER BY ",
            $order,
            " LIMIT ",
            $limit,
            "
    ) a"
        )
    };
}
pub(super) use first_acts;

/// Blanks the bodies of the entries that `$gone` names by `chat_id` and `seq`, and forgets their fingerprints, by which
/// short contents could be guessed.
macro_rules! blank {
    ($gone:literal) => {
        concat!(
            "
    UPDATE messages b SET body = '', fingerprint = '' WHERE b.ctid = ANY (ARRAY(
        SELECT o.ctid FROM ",
            $gone,
            " g CROSS JOIN LATERAL (
            SELECT o.ctid FROM messages o
            WHERE o.chat_id = g.chat_id AND o.seq = g.seq AND octet_length(o.body) > 0 LIMIT 1
        ) o
    ))"
        )
    };
}
pub(super) use blank;

/// Deletes rows of a table that has a row for each thing that somebody did to a message, at most `$limit` for each of
/// the messages that `$of` names by `chat_id` and `target_seq`. `$which` is a condition on `$of`.
macro_rules! forget {
    ($table:literal, $of:literal, $which:literal, $limit:literal) => {
        concat!(
            "
    DELETE FROM ",
            $table,
            " f WHERE f.ctid = ANY (ARRAY(
        SELECT x.ctid FROM ",
            $of,
            " CROSS JOIN LATERAL (
            SELECT x.ctid FROM ",
            $table,
            " x WHERE x.chat_id = ",
            $of,
            ".chat_id AND x.target_seq = ",
            $of,
            ".target_seq LIMIT ",
            $limit,
            "
        ) x WHERE ",
            $which,
            "
    ))"
        )
    };
}
pub(super) use forget;

/// Selects the age of the oldest erasure in seconds; null if there is none.
pub const OLDEST: &str = "SELECT extract(epoch FROM now() - min(since))::float8 FROM erasures";

/// Erases at most $1 entries about the message whose erasure is the oldest, and ends the erasure if these were the
/// last. It passes over an erasure at which another node is. Returns the number of erasures that it worked at, which is
/// 0 or 1, and of entries that it blanked.
///
/// There are no more reactions and counts to be deleted than entries, so the last batch leaves none. An erasure begins
/// with the oldest entry, and passes over those that the commit of the deletion has erased.
pub const ERASE: &str = concat!(
    "
WITH d AS MATERIALIZED (
    SELECT chat_id, target_seq, after_seq FROM erasures ORDER BY since LIMIT 1 FOR UPDATE SKIP LOCKED
), acts AS MATERIALIZED (
    SELECT d.chat_id, a.seq FROM d",
    first_acts!("d", " AND e.seq > d.after_seq", "a.seq", "$1"),
    "
), blanked AS (",
    blank!("acts"),
    " RETURNING 1
), forgotten AS (",
    forget!("reactions", "d", "true", "$1"),
    "
), uncounted AS (",
    forget!("act_counts", "d", "true", "$1"),
    "
), moved AS (
    UPDATE erasures s SET after_seq = (SELECT max(seq) FROM acts) FROM d
    WHERE s.chat_id = d.chat_id AND s.target_seq = d.target_seq AND (SELECT count(*) FROM acts) >= $1
), ended AS (
    DELETE FROM erasures s USING d
    WHERE s.chat_id = d.chat_id AND s.target_seq = d.target_seq AND (SELECT count(*) FROM acts) < $1
)
SELECT (SELECT count(*) FROM d), (SELECT count(*) FROM blanked)"
);

/// Returns the age of the oldest erasure of a cell, which it reads from the cell's pool; `None` if there is none.
pub async fn oldest(pool: &PgPool) -> sqlx::Result<Option<Duration>> {
    let age: Option<f64> = sqlx::query_scalar(OLDEST).fetch_one(pool).await?;
    // The age is negative if the store's clock was set back.
    Ok(age.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// Erases one batch of at most `most` entries, in a transaction of its own on a connection of this cell's pool. Returns
/// how many it blanked; `None` if there was nothing to erase.
pub async fn erase(pool: &PgPool, most: i64) -> sqlx::Result<Option<u64>> {
    let (found, blanked): (i64, i64) = sqlx::query_as(ERASE).bind(most).fetch_one(pool).await?;
    Ok((found > 0).then(|| blanked.unsigned_abs()))
}
