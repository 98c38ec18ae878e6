//! Reading logs: windows for devices that catch up, pages for people and back ends.

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tern_proto::raw;
use tern_types::{ChatId, RequestId, Seq, UserId};
use uuid::Uuid;

use super::load::StoreError;
use super::millis;
use super::seal::{MasterKey, Sealer};

/// Fine print 6: the intervals of membership limit what is read, in the statement that reads. Ascending from $3.
/// `joins`: the entry that begins an interval above the log's start.
pub const UPWARDS: &str = concat!(
    "
SELECT e.*, e.seq = i.joined_seq AND e.seq > 1 AS joins FROM members i CROSS JOIN LATERAL (
    SELECT m.seq, m.ordinal, m.sender_user, m.sender_device, m.request_id, m.body, ",
    millis!("m.sent_at"),
    " AS sent_at
    FROM messages m
    WHERE m.chat_id = $1 AND m.seq >= greatest($3, i.joined_seq)
        AND m.seq <= coalesce(i.left_seq, 9223372036854775807)
    ORDER BY m.seq LIMIT $4
) e
WHERE i.chat_id = $1 AND i.user_id = $2
ORDER BY e.seq LIMIT $4"
);

/// The same downwards from below $3, messages only (kinds below 10).
pub const DOWNWARDS: &str = concat!(
    "
SELECT e.* FROM members i CROSS JOIN LATERAL (
    SELECT m.seq, m.ordinal, m.sender_user, m.sender_device, m.request_id, m.body, ",
    millis!("m.sent_at"),
    " AS sent_at
    FROM messages m
    WHERE m.chat_id = $1 AND m.seq >= i.joined_seq
        AND m.seq <= least($3 - 1, coalesce(i.left_seq, 9223372036854775807)) AND m.kind < 10
    ORDER BY m.seq DESC LIMIT $4
) e
WHERE i.chat_id = $1 AND i.user_id = $2
ORDER BY e.seq DESC LIMIT $4"
);

/// The last entry that the user may have; null: they never were a member.
pub const LAST: &str = "
SELECT max(coalesce(m.left_seq, h.head_seq)) FROM members m JOIN chat_heads h ON h.chat_id = m.chat_id
WHERE m.chat_id = $1 AND m.user_id = $2";

pub const KEY: &str = "SELECT wrapped_key FROM chats WHERE chat_id = $1";

/// What lies at one place for one reader.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Entry(raw::Entry),
    /// Nothing up to here: not a member then, or trimmed.
    Skipped {
        to: Seq,
    },
}

impl Item {
    pub fn seq(&self) -> Seq {
        match self {
            Self::Entry(entry) => Seq(entry.seq),
            Self::Skipped { to } => *to,
        }
    }
}

/// A part of a log, without a hole between its items.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    pub items: Vec<Item>,
    /// Ask on from here.
    pub next: Seq,
    /// There was no more when it was read.
    pub done: bool,
}

/// What `user` may have of the chat from `from` on, ascending, at most `limit` items (two at least) and about
/// `max_bytes`. What begins an interval is preceded by Skipped also where it is asked for first: who was removed and added
/// again has acknowledged the removal, and waits for what lies between.
pub async fn window(
    pool: &PgPool,
    master: &MasterKey,
    chat: ChatId,
    user: UserId,
    from: Seq,
    limit: u32,
    max_bytes: usize,
) -> Result<Window, StoreError> {
    let from = from.max(Seq(1));
    // A Skipped is no progress by itself.
    let limit = limit.max(2);
    let rows = sqlx::query(UPWARDS)
        .bind(chat.0)
        .bind(user.0)
        .bind(from.to_i64())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    let mut window = Window {
        items: Vec::new(),
        next: from,
        done: rows.len() < limit as usize,
    };
    if rows.is_empty() {
        let last: Option<i64> = sqlx::query_scalar(LAST)
            .bind(chat.0)
            .bind(user.0)
            .fetch_one(pool)
            .await?;
        if let Some(last) = last.map(Seq::from_i64).filter(|last| *last >= from) {
            // Read a moment later: only what is trimmed is really skipped.
            if last == from.previous() || entries_between(pool, chat, from, last).await? == 0 {
                window.items.push(Item::Skipped { to: last });
                window.next = last.next();
            } else {
                window.done = false;
            }
        }
        return Ok(window);
    }
    let sealer = sealer(pool, master, chat).await?;
    let mut bytes = 0;
    for row in &rows {
        let entry = entry(row, chat, &sealer)?;
        bytes += entry.content.len();
        let seq = Seq(entry.seq);
        let skips = seq > window.next || row.try_get("joins")?;
        let full = window.items.len() + usize::from(skips) >= limit as usize;
        if !window.items.is_empty() && (full || bytes > max_bytes) {
            window.done = false;
            break;
        }
        if skips {
            window.items.push(Item::Skipped { to: seq.previous() });
            window.next = seq;
            if full {
                window.done = false;
                break;
            }
        }
        window.items.push(Item::Entry(entry));
        window.next = seq.next();
    }
    Ok(window)
}

/// Messages below `before`, descending, at most `limit`.
pub async fn history(
    pool: &PgPool,
    master: &MasterKey,
    chat: ChatId,
    user: UserId,
    before: Seq,
    limit: u32,
) -> Result<Vec<raw::Entry>, StoreError> {
    let rows = sqlx::query(DOWNWARDS)
        .bind(chat.0)
        .bind(user.0)
        .bind(before.to_i64())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let sealer = sealer(pool, master, chat).await?;
    rows.iter().map(|row| entry(row, chat, &sealer)).collect()
}

pub const BETWEEN: &str = "SELECT count(*) FROM messages WHERE chat_id = $1 AND seq BETWEEN $2 AND $3";

async fn entries_between(pool: &PgPool, chat: ChatId, from: Seq, to: Seq) -> sqlx::Result<i64> {
    sqlx::query_scalar(BETWEEN)
        .bind(chat.0)
        .bind(from.to_i64())
        .bind(to.to_i64())
        .fetch_one(pool)
        .await
}

async fn sealer(pool: &PgPool, master: &MasterKey, chat: ChatId) -> Result<Sealer, StoreError> {
    let wrapped: Vec<u8> = sqlx::query_scalar(KEY).bind(chat.0).fetch_one(pool).await?;
    let key = master.unwrap(chat, &wrapped).map_err(|_| StoreError::Key(chat))?;
    Ok(Sealer::new(&key))
}

/// An entry as it goes out, from a row with the columns of [`UPWARDS`].
pub fn entry(row: &PgRow, chat: ChatId, sealer: &Sealer) -> Result<raw::Entry, StoreError> {
    let sender = UserId(row.try_get("sender_user")?);
    let device: Uuid = row.try_get("sender_device")?;
    let request = RequestId(row.try_get("request_id")?);
    let body: Vec<u8> = row.try_get("body")?;
    Ok(raw::Entry {
        chat_id: chat.to_string(),
        seq: Seq::from_i64(row.try_get("seq")?).0,
        sent_at_ms: row.try_get("sent_at")?,
        sender_user_id: if sender == UserId::SYSTEM {
            String::new()
        } else {
            sender.to_string()
        },
        sender_device_id: if device.is_nil() {
            String::new()
        } else {
            device.to_string()
        },
        request_id: request.to_string(),
        ordinal: u64::try_from(row.try_get::<i64, _>("ordinal")?).unwrap_or(0),
        content: sealer
            .open(&body, chat, sender, request)
            .map_err(|_| StoreError::Key(chat))?,
    })
}
