//! Takes out of the store what need not be kept any more.
//!
//! - [`disappear`]: erases messages whose time to disappear has come
//! - this file: erases what chats have kept for long enough, and deletes the entries that nobody needs any more
//! - `kept`: the rules for what is erased and deleted, and when
//! - [`erase`]: erases contents, with what the store has about them
//! - [`slow`]: trims a chat of which the store has too much for one statement
//!
//! None of this locks the head of a chat, and none of it writes `inbox`. Whatever a device has not acknowledged is at
//! or above the lowest seq of the chat's inbox rows and unsettled rows. One statement reads both, so that an entry that
//! is being settled is seen in one of them, and that seq never falls. Each step may be done again, and by two trimmers
//! at once: the seq up to which all is erased is written last.

pub mod disappear;
pub mod erase;
mod kept;
pub mod slow;

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tern_store::{millis, postgres};
use tern_types::{ChatId, Seq, Timestamp};
use uuid::Uuid;

use tern_chat_core::EntryKind;
use tern_chat_core::retention::Mode;

use super::retention::mode_of_row;
use erase::Place;
use kept::Kept;

/// The most entries of all chats together that one round erases or deletes.
pub const PAGE: i64 = 512;
/// The most rounds of one call. A chat that has more is looked at again at once, after the others have had their turn.
const ROUNDS: usize = 16;

/// Selects when the first message is to disappear, or the first chat is to be trimmed, in milliseconds; NULL if there is
/// neither. A trimmer asks no more of a cell with nothing to do.
pub const FIRST_DUE: &str = concat!(
    "SELECT ",
    millis!(
        "least((SELECT min(x.expires_at) FROM expiring x), (SELECT min(c.trim_at) FROM chats c WHERE c.trim_at IS NOT NULL))"
    )
);

/// Claims the chats whose time to be trimmed came by $1 (milliseconds), the earliest first, at most $2: gives them the
/// time $3, at which others look at them if this node does not end its work. It waits for no lock.
pub const CLAIM: &str = concat!(
    "
WITH due AS MATERIALIZED (
    SELECT c.chat_id, c.trim_at FROM chats c WHERE c.trim_at <= to_timestamp($1::int8 / 1000.0)
    ORDER BY c.trim_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE chats c SET trim_at = to_timestamp($3::int8 / 1000.0) FROM due WHERE c.chat_id = due.chat_id
)
SELECT d.chat_id, ",
    millis!("d.trim_at"),
    " FROM due d"
);

/// Selects what decides about trimming chats ($1). A device owes an acknowledgement of nothing below `owed_from`.
pub const STATES: &str = "
SELECT c.chat_id, c.retention_mode, c.keep_s, c.trimmed_seq, c.first_seq, c.trim_at IS NOT NULL AS is_timed, h.head_seq,
       least((SELECT min(i.from_seq) FROM inbox i WHERE i.chat_id = c.chat_id),
             (SELECT min(u.from_seq) FROM unsettled u WHERE u.chat_id = c.chat_id), h.head_seq + 1) AS owed_from
FROM unnest($1::uuid[]) AS w(chat_id)
CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = w.chat_id LIMIT 1) c
CROSS JOIN LATERAL (SELECT * FROM chat_heads h WHERE h.chat_id = w.chat_id LIMIT 1) h";

/// Selects entries of chats ($1) above a seq ($2) and up to a seq ($3), in the order of the chats and of the seqs, at
/// most $4, each with the place of its chat in the list.
pub const ENTRIES: &str = concat!(
    "
SELECT w.place, m.seq, m.kind, m.ordinal, ",
    millis!("m.sent_at"),
    " AS sent_at, m.has_body
FROM unnest($1::uuid[], $2::int8[], $3::int8[]) WITH ORDINALITY AS w(chat_id, above, upto, place)
CROSS JOIN LATERAL (
    SELECT m.seq, m.kind, m.ordinal, m.sent_at, octet_length(m.body) > 0 AS has_body FROM messages m
    WHERE m.chat_id = w.chat_id AND m.seq > w.above AND m.seq <= w.upto ORDER BY m.seq LIMIT $4
) m
ORDER BY w.place, m.seq LIMIT $4"
);

/// Notes the seqs ($2) up to which chats ($1) are trimmed.
pub const MARK: &str = "
UPDATE chats c SET trimmed_seq = n.seq FROM unnest($1::uuid[], $2::int8[]) AS n(chat_id, seq)
WHERE c.chat_id = n.chat_id AND c.trimmed_seq < n.seq";

/// Deletes the entries of a chat ($1) from its first ($2) up to a seq ($3), with all about them. The next one is the
/// first then, and $4 is the ordinal before it. It does nothing if another trimmer has been faster. The triggers of
/// `messages` end what the entries refer to. Something may have been done to a message, or been said in the thread that
/// begins with it, after its row was deleted. What the store notes of that is below the first entry, and goes here too.
pub const FORGET: &str = "
WITH raised AS (
    UPDATE chats SET first_seq = $3::int8 + 1, first_ordinal = $4 WHERE chat_id = $1 AND first_seq = $2 RETURNING chat_id
), entries AS (
    DELETE FROM messages WHERE chat_id = $1 AND seq BETWEEN $2 AND $3 AND EXISTS (SELECT FROM raised) RETURNING seq
), targets AS (
    DELETE FROM entry_targets WHERE chat_id = $1 AND seq BETWEEN $2 AND $3 AND EXISTS (SELECT FROM raised)
), states AS (
    DELETE FROM message_state WHERE chat_id = $1 AND seq <= $3 AND EXISTS (SELECT FROM raised)
), reacted AS (
    DELETE FROM reactions WHERE chat_id = $1 AND target_seq <= $3 AND EXISTS (SELECT FROM raised)
), mentioned AS (
    DELETE FROM mentions WHERE chat_id = $1 AND seq BETWEEN $2 AND $3 AND EXISTS (SELECT FROM raised)
), hinted AS (
    DELETE FROM push_hints WHERE chat_id = $1 AND seq BETWEEN $2 AND $3 AND EXISTS (SELECT FROM raised)
), counted AS (
    DELETE FROM act_counts WHERE chat_id = $1 AND target_seq <= $3 AND EXISTS (SELECT FROM raised)
), expires AS (
    DELETE FROM expiring WHERE chat_id = $1 AND seq <= $3 AND EXISTS (SELECT FROM raised)
)
SELECT count(*) FROM entries";

/// Sets when chats ($1) are trimmed next ($2, in milliseconds; NULL: never), but only those that are to be trimmed at
/// the time $3, or have no time if that is NULL. So a choice that the members make meanwhile is not overlooked.
pub const SCHEDULE: &str = "
UPDATE chats c SET trim_at = to_timestamp(n.at_ms / 1000.0)
FROM unnest($1::uuid[], $2::int8[]) AS n(chat_id, at_ms)
WHERE c.chat_id = n.chat_id AND c.trim_at IS NOT DISTINCT FROM to_timestamp($3::int8 / 1000.0)";

/// Selects chats in the order of their ids, those after $1, at most $2, and whether each leaves its retention to the
/// operator and has no time to be trimmed.
pub const UNTIMED: &str = "
SELECT c.chat_id, c.retention_mode = 0 AND c.trim_at IS NULL FROM chats c
WHERE c.chat_id > $1 ORDER BY c.chat_id LIMIT $2";

/// The counts of what was taken out of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// The number of bodies that were erased.
    pub erased: u64,
    /// The number of entries that were deleted.
    pub forgotten: u64,
}

/// An entry that may be erased or deleted.
struct Found {
    /// The number of its chat among those that are trimmed together.
    place: usize,
    seq: Seq,
    kind: i16,
    ordinal: i64,
    sent_at: Timestamp,
    has_body: bool,
}

/// Returns when the first message of the cell is to disappear, or its first chat is to be trimmed; `None` if there is
/// neither.
pub async fn first_due(pool: &PgPool) -> sqlx::Result<Option<Timestamp>> {
    let due: Option<i64> = sqlx::query_scalar(FIRST_DUE).fetch_one(pool).await?;
    Ok(due.map(Timestamp))
}

/// Claims chats that are to be trimmed by `now`, by the wall clock, at most `most`, until `until`. Returns them with
/// the times at which they were to be trimmed, the earliest first.
pub async fn claim(
    pool: &PgPool,
    now: Timestamp,
    until: Timestamp,
    most: i64,
) -> sqlx::Result<Vec<(ChatId, Timestamp)>> {
    let claim = sqlx::query_as(CLAIM).bind(now.0).bind(most).bind(until.0);
    let mut rows: Vec<(Uuid, i64)> = claim.fetch_all(pool).await?;
    rows.sort_unstable_by_key(|(_, at)| *at);
    let chats = rows.into_iter().map(|(chat, at)| (ChatId(chat), Timestamp(at)));
    Ok(chats.collect())
}

/// Trims chats of one cell, each by its mode or the operator's. `claim` is the time up to which this node has claimed
/// them by [`claim`]. With `None` the caller only has a hint that something of them need not be kept: entries are not
/// deleted then, and a chat keeps the time at which it is trimmed next.
pub async fn chats(
    pool: &PgPool,
    ids: &[ChatId],
    default: Mode,
    now: Timestamp,
    claim: Option<Timestamp>,
) -> sqlx::Result<Trimmed> {
    by_pages(pool, ids, default, now, claim, PAGE).await
}

/// Trims chats as [`chats`] does, with at most `page` entries in a round. What the rounds before one that fails have done
/// stays done.
async fn by_pages(
    pool: &PgPool,
    ids: &[ChatId],
    default: Mode,
    now: Timestamp,
    claim: Option<Timestamp>,
    page: i64,
) -> sqlx::Result<Trimmed> {
    let mut trimmed = Trimmed::default();
    let (mut open, mut done) = (states(pool, ids, default).await?, Vec::new());
    for _ in 0..ROUNDS {
        trimmed.erased += round(pool, &mut open, now, page).await?;
        let (more, ended): (Vec<Kept>, Vec<Kept>) = open.into_iter().partition(|kept| kept.unfinished);
        open = more;
        done.extend(ended);
        if open.is_empty() {
            break;
        }
    }
    if claim.is_some() {
        for kept in &mut done {
            trimmed.forgotten += forget(pool, kept, now, page).await?;
        }
    }
    let next = done
        .iter()
        .chain(&open)
        .filter(|kept| claim.is_some() || !kept.is_timed)
        .map(|kept| (kept.chat, kept.next_look(now)));
    schedule(pool, next, claim).await?;
    Ok(trimmed)
}

/// Gives a page of chats that leave their retention to the operator, and have no time to be trimmed, one within
/// `within` from `now`. The page has the chats after `after`, in the order of their ids, at most `most`. Returns the
/// last of it; `None` if there are no more chats.
pub async fn begin(
    pool: &PgPool,
    after: ChatId,
    most: i64,
    now: Timestamp,
    within: Duration,
) -> sqlx::Result<Option<ChatId>> {
    let untimed = sqlx::query_as(UNTIMED).bind(after.0).bind(most);
    let page: Vec<(Uuid, bool)> = untimed.fetch_all(pool).await?;
    let step = within / u32::try_from(page.len()).unwrap_or(u32::MAX).max(1);
    let untimed = page.iter().zip(0..).filter(|((_, untimed), _)| *untimed);
    let times = untimed.map(|((chat, _), number): (_, u32)| (ChatId(*chat), Some(now + step * number)));
    schedule(pool, times, None).await?;
    let last = page.last().filter(|_| page.len() as i64 >= most);
    Ok(last.map(|(chat, _)| ChatId(*chat)))
}

/// Reads what decides about trimming the chats, in the order of their ids. A chat with a mode that this version does
/// not know is left out.
async fn states(pool: &PgPool, ids: &[ChatId], default: Mode) -> sqlx::Result<Vec<Kept>> {
    let ids: Vec<Uuid> = ids.iter().map(|chat| chat.0).collect();
    let rows = sqlx::query(STATES).bind(ids).fetch_all(pool).await?;
    let states = rows.iter().map(|row| state(row, default));
    let mut states: Vec<Kept> = states
        .filter_map(Result::transpose)
        .collect::<sqlx::Result<_>>()?;
    states.sort_unstable_by_key(|kept| kept.chat);
    Ok(states)
}

/// Reads a row of [`STATES`]; `None` if this version does not know the chat's mode.
fn state(row: &PgRow, default: Mode) -> sqlx::Result<Option<Kept>> {
    let Some(mode) = mode_of_row(row)? else {
        return Ok(None);
    };
    let seq = |column| row.try_get(column).map(Seq::from_i64);
    Ok(Some(Kept {
        chat: ChatId(row.try_get("chat_id")?),
        mode: mode.or(default),
        trimmed: seq("trimmed_seq")?,
        first: seq("first_seq")?,
        head: seq("head_seq")?,
        owed_from: seq("owed_from")?,
        is_timed: row.try_get("is_timed")?,
        oldest: None,
        unfinished: false,
    }))
}

/// Erases at most `page` entries of the chats, and notes how far they are trimmed. Returns the number of bodies.
async fn round(pool: &PgPool, chats: &mut [Kept], now: Timestamp, page: i64) -> sqlx::Result<u64> {
    let ranges = chats.iter().map(|kept| (kept.chat, kept.trimmed, kept.upto()));
    let found = entries(pool, &ranges.collect::<Vec<_>>(), page).await?;
    // A full page may have been cut within the chat of its last entry, and says nothing of the chats after that.
    let cut = found.last().map(|last| last.place);
    let cut = cut.filter(|_| found.len() as i64 >= page);
    for (place, kept) in chats.iter_mut().enumerate() {
        kept.unfinished = cut.is_some_and(|cut| place > cut);
    }
    let (mut places, mut messages, mut marks): (Vec<Place>, Vec<Place>, Vec<Place>) = Default::default();
    for of_chat in found.chunk_by(|one, other| one.place == other.place) {
        let place = of_chat[0].place;
        let Some(kept) = chats.get_mut(place) else {
            continue;
        };
        let over = of_chat
            .iter()
            .take_while(|entry| kept.is_over(entry.sent_at, now));
        let (over, left) = of_chat.split_at(over.count());
        kept.oldest = left.first().map(|entry| entry.sent_at);
        kept.unfinished = left.is_empty() && cut == Some(place);
        let chat = kept.chat;
        let with_content = over
            .iter()
            .filter(|entry| entry.has_body && erase::has_content(entry.kind));
        places.extend(with_content.map(|entry| (chat, entry.seq)));
        // Edits and reactions go together with a message whose time is over, even those of a moment ago. In a chat that
        // keeps messages until they are delivered they stay, because devices may not have them yet.
        if matches!(kept.mode, Mode::ForTime(_)) {
            let message = over
                .iter()
                .filter(|entry| entry.kind == EntryKind::Message.number());
            messages.extend(message.map(|entry| (chat, entry.seq)));
        }
        if let Some(last) = over.last() {
            kept.trimmed = last.seq;
            marks.push((chat, last.seq));
        }
    }
    if marks.is_empty() {
        return Ok(0);
    }
    let mut tx = postgres::begin(pool).await?;
    let erased = erase::erase(&mut tx, erase::KEPT_ENOUGH, &places).await?;
    let (mut tx, of_acts) = erase::erase_acts(pool, tx, &messages).await?;
    let (ids, seqs) = erase::columns(&marks);
    sqlx::query(MARK).bind(ids).bind(seqs).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(erased + of_acts)
}

/// Deletes the entries of a chat that nobody needs any more. Returns their number.
async fn forget(pool: &PgPool, kept: &mut Kept, now: Timestamp, page: i64) -> sqlx::Result<u64> {
    let mut forgotten = 0;
    for round in 1..=ROUNDS {
        if kept.first > kept.forgettable() {
            break;
        }
        let range = (kept.chat, kept.first.previous(), kept.forgettable());
        let found = entries(pool, &[range], page).await?;
        let old = found.iter().take_while(|entry| kept::is_old(entry.sent_at, now));
        let Some(upto) = old.last() else { break };
        let deleted: i64 = sqlx::query_scalar(FORGET)
            .bind(kept.chat.0)
            .bind(kept.first.to_i64())
            .bind(upto.seq.to_i64())
            .bind(upto.ordinal)
            .fetch_one(pool)
            .await?;
        forgotten += u64::try_from(deleted).unwrap_or(0);
        kept.first = upto.seq.next();
        kept.unfinished |= round == ROUNDS;
    }
    Ok(forgotten)
}

/// Reads at most `page` entries of chats, each chat with the seq above which they are and the seq up to which.
async fn entries(pool: &PgPool, ranges: &[(ChatId, Seq, Seq)], page: i64) -> sqlx::Result<Vec<Found>> {
    let rows = sqlx::query(ENTRIES)
        .bind(ranges.iter().map(|(chat, ..)| chat.0).collect::<Vec<Uuid>>())
        .bind(
            ranges
                .iter()
                .map(|(_, above, _)| above.to_i64())
                .collect::<Vec<i64>>(),
        )
        .bind(
            ranges
                .iter()
                .map(|(.., upto)| upto.to_i64())
                .collect::<Vec<i64>>(),
        )
        .bind(page)
        .fetch_all(pool)
        .await?;
    let found = rows.iter().map(|row| {
        let place: i64 = row.try_get("place")?;
        Ok(Found {
            place: usize::try_from(place - 1).unwrap_or(usize::MAX),
            seq: Seq::from_i64(row.try_get("seq")?),
            kind: row.try_get("kind")?,
            ordinal: row.try_get("ordinal")?,
            sent_at: Timestamp(row.try_get("sent_at")?),
            has_body: row.try_get("has_body")?,
        })
    });
    found.collect()
}

/// Sets when chats are trimmed next, as [`SCHEDULE`] says.
async fn schedule(
    pool: &PgPool,
    times: impl IntoIterator<Item = (ChatId, Option<Timestamp>)>,
    claim: Option<Timestamp>,
) -> sqlx::Result<()> {
    let times = times.into_iter().map(|(chat, at)| (chat.0, at.map(|at| at.0)));
    let mut times: Vec<(Uuid, Option<i64>)> = times.collect();
    // `MARK` takes chats in this order too, so that two trimmers wait for each other in one direction only.
    times.sort_unstable_by_key(|(chat, _)| *chat);
    let (chats, times): (Vec<Uuid>, Vec<Option<i64>>) = times.into_iter().unzip();
    if chats.is_empty() {
        return Ok(());
    }
    let schedule = sqlx::query(SCHEDULE).bind(chats).bind(times);
    schedule
        .bind(claim.map(|claim| claim.0))
        .execute(pool)
        .await
        .map(drop)
}
