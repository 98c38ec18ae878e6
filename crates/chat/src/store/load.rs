//! Loads a chat in one snapshot.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tern_store::{Pools, millis, postgres};
use tern_types::{ChatId, MediaId, RequestId, Seq, Timestamp, UserId};
use uuid::Uuid;

use tern_chat_core::EntryKind;
use tern_chat_core::chat::{LookUp, Member, Snapshot};
use tern_chat_core::entry::FORGOTTEN;
use tern_chat_core::receipts::Watermark;
use tern_chat_core::recent::Placed;

use super::last_messages::last_messages;
use super::listing::{RECEIPTS, kind, role, watermark};
use super::policy::policy;
use super::seal::MasterKey;
use super::{ReadError, acts, people, retention};

/// Selects a chat with its head and its lowest unsettled seq.
pub const CHAT: &str = "
SELECT c.kind, c.title, c.picture, c.wrapped_key, c.user_low, c.user_high, h.head_seq, h.head_ordinal,
       (SELECT min(u.from_seq) FROM unsettled u WHERE u.chat_id = c.chat_id) AS unsettled,
       c.description, c.send_role, c.add_role, c.edit_role, c.slow_mode_s, c.joiner_history, c.frozen,
       c.retention_mode, c.keep_s, c.disappear_after_s, c.trim_at IS NOT NULL AS trims,
       (SELECT x.seq FROM expiring x WHERE x.chat_id = c.chat_id LIMIT 1) IS NOT NULL AS expires
FROM chats c JOIN chat_heads h ON h.chat_id = c.chat_id
WHERE c.chat_id = $1";

/// Selects the two people of a direct chat; NULL for other chats.
pub(crate) const PEOPLE: &str = "SELECT user_low, user_high FROM chats WHERE chat_id = $1";

/// Is true of an entry of the table `messages` under this alias that was deleted, or has disappeared.
macro_rules! gone {
    ($messages:literal) => {
        concat!(
            "octet_length(",
            $messages,
            ".body) = 0 AND coalesce((
    SELECT s.deleted_seq > 0 OR s.disappeared FROM message_state s WHERE s.chat_id = ",
            $messages,
            ".chat_id AND s.seq = ",
            $messages,
            ".seq
), false)"
        )
    };
}

/// Selects the requests of a chat above seq $2, those that wait for an answer ($3, $4), however old they are (rule 5),
/// and those of the entries $5, to which something is to be done. `erased` is true if an entry was deleted or has
/// disappeared. Of an entry whose content is gone for another reason, because every device has it or it was kept for
/// long enough, it is false: devices have such a message, and something may be done to it.
pub const PLACED: &str = concat!(
    "
SELECT sender_user, request_id, seq, ordinal, fingerprint, kind, ",
    gone!("messages"),
    " AS erased, ",
    millis!("sent_at"),
    " AS sent_at
FROM messages WHERE chat_id = $1 AND seq > $2
UNION
SELECT m.sender_user, m.request_id, m.seq, m.ordinal, m.fingerprint, m.kind, ",
    gone!("m"),
    ", ",
    millis!("m.sent_at"),
    "
FROM unnest($3::uuid[], $4::uuid[]) AS r(sender_user, request_id)
CROSS JOIN LATERAL (
    SELECT * FROM messages m
    WHERE m.chat_id = $1 AND m.sender_user = r.sender_user AND m.request_id = r.request_id LIMIT 1
) AS m
UNION
SELECT m.sender_user, m.request_id, m.seq, m.ordinal, m.fingerprint, m.kind, ",
    gone!("m"),
    ", ",
    millis!("m.sent_at"),
    "
FROM unnest($5::int8[]) AS t(seq)
CROSS JOIN LATERAL (SELECT * FROM messages o WHERE o.chat_id = $1 AND o.seq = t.seq LIMIT 1) AS m
ORDER BY seq"
);

/// The number of seqs below the head whose requests are read with a chat: as many as its state remembers.
const RECENT: i64 = 256;

/// Reads a chat in one snapshot, and looks up in its log what it is told to. `None` if there is no such chat.
pub async fn chat(
    pools: &Pools,
    master: &MasterKey,
    chat: ChatId,
    look_up: &LookUp,
) -> Result<Option<Snapshot>, ReadError> {
    let mut tx = postgres::snapshot(pools.of(chat)).await?;
    let Some(row) = sqlx::query(CHAT).bind(chat.0).fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let head: i64 = row.try_get("head_seq")?;
    let members = sqlx::query(RECEIPTS).bind(chat.0).fetch_all(&mut *tx).await?;
    let placed = placed(&mut tx, chat, head - RECENT, look_up).await?;
    let acts = acts::counts(&mut tx, chat, &look_up.acts).await?;
    let expiring = if row.try_get("expires")? {
        retention::expiring(&mut tx, chat, head - RECENT, &look_up.targets).await?
    } else {
        HashMap::new()
    };
    let people = pair(row.try_get("user_low")?, row.try_get("user_high")?);
    let blocked = people::blocked(&mut *tx, people.as_slice()).await?;
    let policy = policy(&row, chat)?;
    let last = match policy.wait() {
        Some(wait) => last_messages(&mut tx, chat, head, head - RECENT, wait).await?,
        None => HashMap::new(),
    };
    tx.commit().await?;

    let wrapped: Vec<u8> = row.try_get("wrapped_key")?;
    let placed = placed.iter().map(|row| placed_row(row, &expiring));
    let placed = placed.collect::<sqlx::Result<Vec<_>>>()?;
    Ok(Some(Snapshot {
        kind: kind(row.try_get("kind")?).ok_or(ReadError::Unknown(chat, "a kind of chat"))?,
        title: row.try_get("title")?,
        picture: row.try_get::<Option<Uuid>, _>("picture")?.map(MediaId),
        key: master.unwrap(chat, &wrapped).map_err(|_| ReadError::Key(chat))?,
        head: Seq::from_i64(head),
        ordinal: u64::try_from(row.try_get::<i64, _>("head_ordinal")?).unwrap_or(0),
        members: members
            .iter()
            .map(|row| member_row(row, head - RECENT, &last)?.ok_or(ReadError::Unknown(chat, "a role")))
            .collect::<Result<_, ReadError>>()?,
        unsettled: row.try_get::<Option<i64>, _>("unsettled")?.map(Seq::from_i64),
        last_sent_at: placed
            .iter()
            .map(|(.., placed)| placed.sent_at)
            .max()
            .unwrap_or_default(),
        targets: placed
            .iter()
            .filter(|(.., placed)| look_up.targets.binary_search(&placed.seq).is_ok())
            .map(|(sender, _, placed)| (placed.seq, placed.target(*sender)))
            .collect(),
        acts,
        placed,
        looked_up: look_up.requests.clone(),
        blocked: !blocked.is_empty(),
        description: row.try_get("description")?,
        policy,
        frozen: row.try_get("frozen")?,
        retention: retention::of_row(&row, chat)?,
        trims: row.try_get("trims")?,
    }))
}

/// Selects by [`PLACED`] the requests above a seq, and those that are looked up.
async fn placed(
    db: &mut PgConnection,
    chat: ChatId,
    above: i64,
    look_up: &LookUp,
) -> sqlx::Result<Vec<PgRow>> {
    let (users, requests): (Vec<Uuid>, Vec<Uuid>) = look_up
        .requests
        .iter()
        .map(|(user, request)| (user.0, request.0))
        .unzip();
    let targets: Vec<i64> = look_up.targets.iter().map(|seq| seq.to_i64()).collect();
    sqlx::query(PLACED)
        .bind(chat.0)
        .bind(above)
        .bind(users)
        .bind(requests)
        .bind(targets)
        .fetch_all(db)
        .await
}

/// Returns whether the chat is a direct one and one of the two people has blocked the other.
pub async fn is_blocked(pools: &Pools, chat: ChatId) -> sqlx::Result<bool> {
    let pool = pools.of(chat);
    let people: Option<(Option<Uuid>, Option<Uuid>)> =
        sqlx::query_as(PEOPLE).bind(chat.0).fetch_optional(pool).await?;
    let people = people.and_then(|(low, high)| pair(low, high));
    let blocked = people::blocked(pool, people.as_slice()).await?;
    Ok(!blocked.is_empty())
}

/// Returns the two people of a direct chat, whose columns of the chat's row these are.
fn pair(low: Option<Uuid>, high: Option<Uuid>) -> Option<(UserId, UserId)> {
    low.zip(high).map(|(low, high)| (UserId(low), UserId(high)))
}

/// Reads the member from a row of [`RECEIPTS`]; `None` if this version does not know the role. Entries up to the seq
/// `unknown` were not read. A member who had joined by then counts as the sender of the last of them, so that nobody
/// misses a receipt. `last` has the times of the last messages up to that seq, where they matter.
fn member_row(
    row: &PgRow,
    unknown: i64,
    last: &HashMap<UserId, Timestamp>,
) -> sqlx::Result<Option<(UserId, Member, Watermark)>> {
    let Some(role) = role(row.try_get("role")?) else {
        return Ok(None);
    };
    let user = UserId(row.try_get("user_id")?);
    let (joined, unknown) = (Seq::from_i64(row.try_get("joined_seq")?), Seq::from_i64(unknown));
    let member = Member {
        role,
        joined,
        last_sent: if joined <= unknown { unknown } else { Seq::ZERO },
        own_unread: u32::try_from(row.try_get::<i32, _>("own_unread")?).unwrap_or(0),
        history: Seq::from_i64(row.try_get("history_from")?),
        last_message: last.get(&user).copied(),
    };
    Ok(Some((user, member, watermark(row)?)))
}

/// Reads a row of [`PLACED`]. `expiring` has the times at which messages disappear.
fn placed_row(row: &PgRow, expiring: &HashMap<Seq, Timestamp>) -> sqlx::Result<(UserId, RequestId, Placed)> {
    let stored: Vec<u8> = row.try_get("fingerprint")?;
    let mut fingerprint = FORGOTTEN;
    for (to, from) in fingerprint.iter_mut().zip(stored) {
        *to = from;
    }
    let sent_at = Timestamp(row.try_get("sent_at")?);
    let seq = Seq::from_i64(row.try_get("seq")?);
    let placed = Placed {
        seq,
        ordinal: u64::try_from(row.try_get::<i64, _>("ordinal")?).unwrap_or(0),
        sent_at,
        fingerprint,
        is_message: row.try_get::<i16, _>("kind")? == EntryKind::Message.number(),
        erased: row.try_get("erased")?,
        expires_after_s: expiring
            .get(&seq)
            .map_or(0, |at| retention::seconds(at.since(sent_at))),
    };
    Ok((
        UserId(row.try_get("sender_user")?),
        RequestId(row.try_get("request_id")?),
        placed,
    ))
}
