//! Reads logs: windows for devices that catch up, pages for people and back ends.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Seq, Timestamp, UserId};

use tern_chat_core::Shown;
use tern_chat_core::content::of_erased;
use tern_store::{Pools, millis};

use super::ReadError;
use super::readable::readable;
use super::seal::{MasterKey, Sealer, Turn};

/// Names four further columns of the table `messages` under this alias: the body, the kind of an entry; for an edit or
/// reaction whose body was erased the seq of the message that it is about; and whether a body that was erased is one of a
/// message that nobody deleted, or about such a message. [`entry`] reads them.
///
/// The body is blank if it was erased, and also if it is that of an edit of a deleted message, or of a reaction to one,
/// which is still to be erased (`erasing.rs`). Only such entries are looked up. A scalar subquery is never hashed, so
/// it is a probe of two keys, whatever the planner believes.
macro_rules! erased {
    ($messages:literal) => {
        concat!(
            "CASE WHEN ",
            $messages,
            ".kind IN (2, 4) AND (
            SELECT s.deleted_seq > 0 FROM entry_targets t
            CROSS JOIN LATERAL (
                SELECT s.deleted_seq FROM message_state s WHERE s.chat_id = t.chat_id AND s.seq = t.target_seq LIMIT 1
            ) s WHERE t.chat_id = ",
            $messages,
            ".chat_id AND t.seq = ",
            $messages,
            ".seq
        ) THEN ''::bytea ELSE ",
            $messages,
            ".body END AS body, ",
            $messages,
            ".kind AS entry_kind, CASE WHEN octet_length(",
            $messages,
            ".body) = 0 OR ",
            $messages,
            ".kind IN (2, 4) THEN (SELECT t.target_seq FROM entry_targets t WHERE t.chat_id = ",
            $messages,
            ".chat_id AND t.seq = ",
            $messages,
            ".seq AND t.kind <> 1) END AS target_seq, octet_length(",
            $messages,
            ".body) = 0 AND coalesce((SELECT s.deleted_seq FROM message_state s WHERE s.chat_id = ",
            $messages,
            ".chat_id AND s.seq = coalesce((SELECT t.target_seq FROM entry_targets t WHERE t.chat_id = ",
            $messages,
            ".chat_id AND t.seq = ",
            $messages,
            ".seq AND t.kind <> 1), ",
            $messages,
            ".seq)), 0) = 0 AS expired"
        )
    };
}
pub(super) use erased;

/// Selects the entries of a chat ($1) that a user ($2) is entitled to, ascending from seq $3, at most $4. The statement
/// itself limits them to the user's intervals of membership (fine print 6). `joins` is true for the entry that begins
/// an interval, unless it is the log's first.
///
/// The result ends with the entry at which the bodies reach $5 bytes. Later bodies are not read, because Postgres knows
/// the length of a body without reading it. `found` counts all entries that $4 allows, also those that $5 cuts off.
pub const UPWARDS: &str = concat!(
    "
SELECT * FROM (
    SELECT e.*, e.seq = i.joined_seq AND e.seq > 1 AS joins, count(*) OVER () AS found,
           sum(octet_length(e.body)) OVER (ORDER BY e.seq) - octet_length(e.body) AS bytes_before
    FROM members i CROSS JOIN LATERAL (
        SELECT m.seq, m.ordinal, m.sender_user, m.sender_device, m.request_id, ",
    erased!("m"),
    ", ",
    millis!("m.sent_at"),
    " AS sent_at
        FROM messages m
        WHERE m.chat_id = $1 AND m.seq >= greatest($3, i.joined_seq)
            AND m.seq <= coalesce(i.left_seq, 9223372036854775807)
        ORDER BY m.seq LIMIT $4
    ) e
    WHERE i.chat_id = $1 AND i.user_id = $2
    ORDER BY e.seq LIMIT $4
) w WHERE w.bytes_before < $5 ORDER BY w.seq"
);

/// Selects the messages, and what was done to them (kinds below 10), of a chat ($1) that a user ($2) may read, also those
/// of before they joined, descending from below seq $3, bounded as in [`UPWARDS`].
pub const DOWNWARDS: &str = concat!(
    "
SELECT * FROM (
    SELECT e.*, count(*) OVER () AS found,
           sum(octet_length(e.body)) OVER (ORDER BY e.seq DESC) - octet_length(e.body) AS bytes_before
    FROM ",
    readable!("$1", "$2"),
    " i CROSS JOIN LATERAL (
        SELECT m.seq, m.ordinal, m.sender_user, m.sender_device, m.request_id, ",
    erased!("m"),
    ", ",
    millis!("m.sent_at"),
    " AS sent_at
        FROM messages m
        WHERE m.chat_id = $1 AND m.seq >= i.from_seq AND m.seq <= least($3 - 1, i.to_seq) AND m.kind < 10
        ORDER BY m.seq DESC LIMIT $4
    ) e
    ORDER BY e.seq DESC LIMIT $4
) w WHERE w.bytes_before < $5 ORDER BY w.seq DESC"
);

/// Selects the seq of the last entry of a chat ($1) that a user ($2) may have; null if they never were a member.
pub const LAST: &str = "
SELECT max(coalesce(m.left_seq, h.head_seq)) FROM members m JOIN chat_heads h ON h.chat_id = m.chat_id
WHERE m.chat_id = $1 AND m.user_id = $2";

/// Selects the place of a device ($3) of a user ($2) in a chat ($1). The device has acknowledged every entry below this
/// seq, or is not owed it. For example, in a chat with head 7 where everything is settled, a device without an inbox
/// row is at 8. One statement reads all of it, as for `resume_seq` in `listing.rs`: an entry that is being settled is
/// seen either as unsettled or in the inbox. An acknowledgement that only the owner's memory knows does not count.
pub const PLACE: &str = "
SELECT least((SELECT i.from_seq FROM inbox i WHERE i.chat_id = $1 AND i.device_id = $3),
             (SELECT min(greatest(u.from_seq, m.joined_seq)) FROM unsettled u
              JOIN members m ON m.chat_id = u.chat_id AND m.user_id = $2
                  AND coalesce(m.left_seq, u.from_seq) >= u.from_seq
              WHERE u.chat_id = $1),
             h.head_seq + 1)
FROM chat_heads h WHERE h.chat_id = $1";

/// Selects a chat's wrapped data key.
pub const KEY: &str = "SELECT wrapped_key FROM chats WHERE chat_id = $1";

/// One step of a log for one reader.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An entry that the reader may have.
    Entry(v1::Entry),
    /// A range of seqs, up to and with `to`, that has nothing for the reader: they were no member then, or the entries
    /// were trimmed.
    Skipped {
        /// The last seq of the range.
        to: Seq,
        /// The reason for which the reader does not get the last entries of the range.
        reason: v1::SkipReason,
    },
}

impl Item {
    /// Returns the seq of the entry, or the last seq that is skipped.
    pub fn seq(&self) -> Seq {
        match self {
            Self::Entry(entry) => Seq(entry.seq),
            Self::Skipped { to, .. } => *to,
        }
    }
}

/// A part of a log without a hole between its items.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    /// The items in ascending order of their seqs.
    pub items: Vec<Item>,
    /// The seq to ask for next.
    pub next: Seq,
    /// True if there were no further entries when the window was read.
    pub done: bool,
}

/// Reads what `user` may have of the chat from `from` on, ascending: at most `limit` items and about `max_bytes`
/// bytes of contents; the first entry always fits.
///
/// A Skipped precedes the entry that begins an interval of membership, even if the window begins with that entry. For
/// example, a member was removed by entry 3 and added again by entry 6. They have acknowledged 3, and wait for 4 and 5,
/// so a window from 6 on begins with `Skipped { to: 5 }`. If a Skipped before an entry is the first item, that entry
/// follows it even with a limit of one: alone it would be no progress, because the next window would begin with it
/// again.
pub async fn window(
    pools: &Pools,
    master: &MasterKey,
    chat: ChatId,
    user: UserId,
    from: Seq,
    limit: u32,
    max_bytes: usize,
) -> Result<Window, ReadError> {
    let from = from.max(Seq(1));
    let limit = limit.max(1);
    let rows = sqlx::query(UPWARDS)
        .bind(chat.0)
        .bind(user.0)
        .bind(from.to_i64())
        .bind(i64::from(limit))
        .bind(budget(max_bytes))
        .fetch_all(pools.of(chat))
        .await?;
    let mut window = Window {
        items: Vec::new(),
        next: from,
        done: !more(&rows, limit)?,
    };
    if rows.is_empty() {
        let last: Option<i64> = sqlx::query_scalar(LAST)
            .bind(chat.0)
            .bind(user.0)
            .fetch_one(pools.of(chat))
            .await?;
        if let Some(last) = last.map(Seq::from_i64).filter(|last| *last >= from) {
            // The head was read a moment after the entries, so only what is trimmed is really skipped.
            if last == from.previous() || entries_between(pools, chat, from, last).await? == 0 {
                let reason = v1::SkipReason::Retention;
                window.items.push(Item::Skipped { to: last, reason });
                window.next = last.next();
            } else {
                window.done = false;
            }
        }
        return Ok(window);
    }
    let entries = open(&rows, chat, &sealer(pools, master, chat).await?).await?;
    let mut bytes = 0;
    for (row, entry) in rows.iter().zip(entries) {
        bytes += entry.content.len();
        let seq = Seq(entry.seq);
        let joins: bool = row.try_get("joins")?;
        let skips = seq > window.next || joins;
        let full = window.items.len() + usize::from(skips) >= limit as usize;
        if !window.items.is_empty() && (full || bytes > max_bytes) {
            window.done = false;
            break;
        }
        if skips {
            window.items.push(Item::Skipped {
                to: seq.previous(),
                reason: skip_reason(joins),
            });
        }
        window.items.push(Item::Entry(entry));
        window.next = seq.next();
    }
    Ok(window)
}

/// Returns why the entries before one are skipped. If that one begins an interval of membership (`joins`), the reader
/// was no member before; otherwise the entries were trimmed.
fn skip_reason(joins: bool) -> v1::SkipReason {
    match joins {
        true => v1::SkipReason::NotAMember,
        false => v1::SkipReason::Retention,
    }
}

/// Reads the place of a device, as far as the store knows it: see [`PLACE`]. `None` if there is no such chat.
pub async fn place(pools: &Pools, chat: ChatId, user: UserId, device: DeviceId) -> sqlx::Result<Option<Seq>> {
    let place: Option<i64> = sqlx::query_scalar(PLACE)
        .bind(chat.0)
        .bind(user.0)
        .bind(device.0)
        .fetch_optional(pools.of(chat))
        .await?;
    Ok(place.map(Seq::from_i64))
}

/// A page of messages, the newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// The messages and reactions in descending order of their seqs.
    pub messages: Vec<v1::Entry>,
    /// True if there may be older messages.
    pub more: bool,
}

/// Reads the messages below `before` that `user` may have, descending: at most `limit` and about `max_bytes` bytes.
pub async fn history(
    pools: &Pools,
    master: &MasterKey,
    chat: ChatId,
    user: UserId,
    before: Seq,
    limit: u32,
    max_bytes: usize,
) -> Result<History, ReadError> {
    let rows = sqlx::query(DOWNWARDS)
        .bind(chat.0)
        .bind(user.0)
        .bind(before.to_i64())
        .bind(i64::from(limit))
        .bind(budget(max_bytes))
        .fetch_all(pools.of(chat))
        .await?;
    if rows.is_empty() {
        return Ok(History::default());
    }
    let messages = open(&rows, chat, &sealer(pools, master, chat).await?).await?;
    Ok(History {
        messages,
        more: more(&rows, limit)?,
    })
}

/// Converts a bound in bytes to the parameter of a statement. It is at least 1, so that the first row always fits.
pub(super) fn budget(max_bytes: usize) -> i64 {
    i64::try_from(max_bytes).unwrap_or(i64::MAX).max(1)
}

/// Returns whether there may be more rows than these, because the statement reached its limit or its bound in bytes.
/// `rows` have the column `found`, as in [`UPWARDS`].
pub(super) fn more(rows: &[PgRow], limit: u32) -> sqlx::Result<bool> {
    let Some(first) = rows.first() else {
        return Ok(false);
    };
    let found: i64 = first.try_get("found")?;
    Ok(found >= i64::from(limit) || found > rows.len() as i64)
}

/// Counts the entries of a chat ($1) from seq $2 up to and with seq $3.
pub const BETWEEN: &str = "SELECT count(*) FROM messages WHERE chat_id = $1 AND seq BETWEEN $2 AND $3";

async fn entries_between(pools: &Pools, chat: ChatId, from: Seq, to: Seq) -> sqlx::Result<i64> {
    sqlx::query_scalar(BETWEEN)
        .bind(chat.0)
        .bind(from.to_i64())
        .bind(to.to_i64())
        .fetch_one(pools.of(chat))
        .await
}

/// Reads the chat's data key, unwraps it, and prepares its cipher.
pub(super) async fn sealer(pools: &Pools, master: &MasterKey, chat: ChatId) -> Result<Sealer, ReadError> {
    let wrapped: Vec<u8> = sqlx::query_scalar(KEY)
        .bind(chat.0)
        .fetch_one(pools.of(chat))
        .await?;
    let key = master.unwrap(chat, &wrapped).map_err(|_| ReadError::Key(chat))?;
    Ok(Sealer::new(&key))
}

/// Opens the bodies of rows with the columns of [`UPWARDS`]. It yields to other tasks between large ones.
pub async fn open(rows: &[PgRow], chat: ChatId, sealer: &Sealer) -> Result<Vec<v1::Entry>, ReadError> {
    let (mut entries, mut turn) = (Vec::with_capacity(rows.len()), Turn::default());
    for row in rows {
        let entry = entry(row, chat, sealer)?;
        turn.worked(entry.content.len()).await;
        entries.push(entry);
    }
    Ok(entries)
}

/// Opens the body of a row with the columns of [`UPWARDS`]. An entry whose body was erased has a content that says so.
/// [`ReadError::Key`] if the body does not open.
pub fn entry(row: &PgRow, chat: ChatId, sealer: &Sealer) -> Result<v1::Entry, ReadError> {
    let (sender, request) = (
        UserId(row.try_get("sender_user")?),
        RequestId(row.try_get("request_id")?),
    );
    let body: Vec<u8> = row.try_get("body")?;
    let content = if body.is_empty() {
        let target = row.try_get::<Option<i64>, _>("target_seq")?.map(Seq::from_i64);
        of_erased(row.try_get("entry_kind")?, target, row.try_get("expired")?)
    } else {
        let content = sealer.open(&body, chat, sender, request);
        content.map_err(|_| ReadError::Key(chat))?
    };
    let shown = Shown {
        chat,
        seq: Seq::from_i64(row.try_get("seq")?),
        ordinal: u64::try_from(row.try_get::<i64, _>("ordinal")?).unwrap_or(0),
        sent_at: Timestamp(row.try_get("sent_at")?),
        sender,
        device: DeviceId(row.try_get("sender_device")?),
        request,
        content,
    };
    Ok(shown.into_wire())
}
