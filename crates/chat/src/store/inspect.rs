//! Answers the questions of operators: about one chat, one message, or all that waits. No message waits for these
//! statements. [`chat`] and [`message`] each read one snapshot.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool, Row};
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Seq, Timestamp, UserId};
use uuid::Uuid;

use tern_store::{Gathered, Pools, millis, postgres};

use super::entries::{entry, erased};
use super::seal::{MasterKey, Sealer};
use super::{ReadError, people};

/// The number of slots in each range of [`unsettled`].
pub(crate) const SLOTS_A_RANGE: u16 = 256;
/// The size in bytes up to which a cell's inbox is counted, which takes some tens of milliseconds. For a larger one
/// Postgres's estimate serves.
const COUNTED_BYTES: i64 = 64 << 20;

/// Selects a chat with its head, the time of its last entry, and how many unsettled commits and inbox rows it has.
pub const CHAT: &str = concat!(
    "SELECT c.kind, c.title, c.created_by, ",
    millis!("c.created_at"),
    " AS created_at, h.head_seq,
    (SELECT ",
    millis!("m.sent_at"),
    " FROM messages m WHERE m.chat_id = c.chat_id AND m.seq = h.head_seq) AS last_at,
    (SELECT count(*) FROM unsettled u WHERE u.chat_id = c.chat_id) AS unsettled,
    (SELECT count(*) FROM inbox i WHERE i.chat_id = c.chat_id) AS inbox_rows
FROM chats c JOIN chat_heads h ON h.chat_id = c.chat_id WHERE c.chat_id = $1"
);

/// Selects the present members of a chat.
pub const MEMBERS: &str = "
SELECT user_id, role, joined_seq, cardinality(devices) AS devices FROM members
WHERE chat_id = $1 AND left_seq IS NULL ORDER BY user_id";

/// Selects the entry that a request ($3) of a user ($2) became, in a known chat ($1).
pub const PLACED: &str = "
SELECT chat_id, seq FROM messages WHERE chat_id = $1 AND sender_user = $2 AND request_id = $3";

/// Selects the entry that a request ($2) of a user ($1) became, in any of their chats. It probes the index for each of
/// these chats.
pub(crate) const PLACED_ANYWHERE: &str = "
SELECT r.chat_id, r.seq FROM (SELECT DISTINCT m.chat_id FROM members m WHERE m.user_id = $1) mine
JOIN messages r ON r.chat_id = mine.chat_id AND r.sender_user = $1 AND r.request_id = $2 LIMIT 1";

/// Selects an entry, the head of its chat, and the wrapped key that opens its body.
pub const MESSAGE: &str = concat!(
    "SELECT m.seq, m.ordinal, m.kind, m.sender_user, m.sender_device, m.request_id, ",
    erased!("m"),
    ", ",
    millis!("m.sent_at"),
    " AS sent_at, c.wrapped_key, h.head_seq
FROM messages m JOIN chats c ON c.chat_id = m.chat_id JOIN chat_heads h ON h.chat_id = m.chat_id
WHERE m.chat_id = $1 AND m.seq = $2"
);

/// Selects the time of the commit that an entry ($2) was part of; no row if the entry is settled. Settling deletes the
/// lowest rows first, so a row at or below the entry means that the entry's own row is there too.
pub(crate) const UNSETTLED_SINCE: &str = concat!(
    "SELECT ",
    millis!("u.committed_at"),
    " FROM unsettled u WHERE u.chat_id = $1 AND u.from_seq <= $2 ORDER BY u.from_seq DESC LIMIT 1"
);

/// Selects the devices that are entitled to an entry, a row for each. A user without a device has one row, in which the
/// device is null.
pub(crate) const RECIPIENTS: &str = concat!(
    "SELECT m.user_id, m.left_seq IS NOT NULL AS left_since, d.device_id, i.from_seq, ",
    millis!("i.since"),
    " AS since, ",
    millis!("i.notified_at"),
    " AS notified_at
FROM members m
LEFT JOIN LATERAL unnest(m.devices) AS d(device_id) ON true
LEFT JOIN inbox i ON i.chat_id = m.chat_id AND i.device_id = coalesce(d.device_id, m.user_id)
WHERE m.chat_id = $1 AND m.joined_seq <= $2 AND coalesce(m.left_seq, $2) >= $2"
);

/// Selects, for each range of $1 slots that has unsettled commits, their number and the age of the oldest in
/// milliseconds.
pub const UNSETTLED: &str = "
SELECT (slot / $1)::int4 AS range, count(*) AS commits,
       (extract(epoch FROM now() - min(committed_at)) * 1000)::int8 AS age
FROM unsettled GROUP BY 1 ORDER BY 1";

/// Selects the position in Postgres's WAL, in bytes.
pub(crate) const WAL_BYTES: &str = "
SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END
        - '0/0'::pg_lsn)::int8";

/// Selects the size of a cell's inbox in bytes, and Postgres's estimate of its rows.
pub(crate) const INBOX_SIZE: &str =
    "SELECT pg_relation_size(oid), greatest(reltuples, 0)::int8 FROM pg_class WHERE oid = 'inbox'::regclass";

/// Counts the rows of the inbox, and selects the age of the oldest in milliseconds.
pub(crate) const INBOX_COUNTED: &str = "
SELECT count(*), coalesce((extract(epoch FROM now() - min(since)) * 1000)::int8, 0) FROM inbox";

/// Selects the age in milliseconds of the oldest inbox row in a sample of about 1 % of the pages.
pub(crate) const INBOX_SAMPLED: &str = "
SELECT coalesce((extract(epoch FROM now() - min(since)) * 1000)::int8, 0) FROM inbox TABLESAMPLE SYSTEM (1)";

/// A chat and its present members.
#[derive(Debug, Clone)]
pub struct ChatFacts {
    /// The stored number: see [`super::listing::kind`].
    pub kind: i16,
    /// The title of a group. It is empty for a direct chat.
    pub title: String,
    /// The user who made the chat, or [`UserId::SYSTEM`].
    pub created_by: UserId,
    /// The time at which the chat was made.
    pub created_at: Timestamp,
    /// The seq of the last entry.
    pub head: Seq,
    /// The time of the last entry; `None` if the log has none.
    pub last_at: Option<Timestamp>,
    /// The number of commits that are not settled.
    pub unsettled: u32,
    /// The number of inbox rows of the chat.
    pub inbox_rows: u32,
    /// The present members.
    pub members: Vec<MemberFacts>,
}

/// A present member.
#[derive(Debug, Clone)]
pub struct MemberFacts {
    /// The member.
    pub user: UserId,
    /// The stored number: see [`super::listing::role`].
    pub role: i16,
    /// The seq of the entry that made the user a member.
    pub joined: Seq,
    /// The number of the member's devices.
    pub devices: u32,
}

/// One entry, and the devices that are entitled to it.
#[derive(Debug, Clone)]
pub struct MessageFacts {
    /// The entry.
    pub entry: v1::Entry,
    /// The stored number: see [`tern_chat_core::entry::EntryKind`].
    pub kind: i16,
    /// The head of the entry's chat.
    pub head: Seq,
    /// The time of the entry's commit if the entry is not settled yet; `None`: it is settled.
    pub unsettled_since: Option<Timestamp>,
    /// The devices that are entitled to the entry.
    pub recipients: Vec<Recipient>,
}

/// A device that is entitled to an entry, or a user without a device who is.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// The user.
    pub user: UserId,
    /// True if the user has left the chat since.
    pub left: bool,
    /// True if the user is suspended.
    pub suspended: bool,
    /// The device; `None` if the user has none.
    pub device: Option<DeviceId>,
    /// The display name of the device.
    pub name: String,
    /// True if the device is linked and not revoked.
    pub active: bool,
    /// The time at which the device was linked; 0 if there is no device.
    pub linked_at: Timestamp,
    /// The device's inbox row in the chat, if it has one.
    pub owes: Option<Owes>,
}

/// An inbox row.
#[derive(Debug, Clone, Copy)]
pub struct Owes {
    /// The first seq that the device has not acknowledged.
    pub from: Seq,
    /// The time at which the row was written.
    pub since: Timestamp,
    /// The time at which the device was notified of the row, if it was.
    pub notified_at: Option<Timestamp>,
}

/// The unsettled commits of one range of slots.
#[derive(Debug, Clone, Copy)]
pub struct Unsettled {
    /// The number of the range. Its first slot is this times [`SLOTS_A_RANGE`].
    pub range: u32,
    /// The number of unsettled commits.
    pub commits: u64,
    /// The age of the oldest of them in milliseconds.
    pub oldest_age_ms: i64,
}

/// The unsettled commits of all cells.
#[derive(Debug, Clone)]
pub struct AllUnsettled {
    /// The ranges of slots that have some, in ascending order.
    pub ranges: Vec<Unsettled>,
    /// True if a cell did not answer, so that its commits are missing.
    pub partial: bool,
}

/// The size of the whole inbox.
#[derive(Debug, Clone, Copy, Default)]
pub struct InboxSize {
    /// The number of rows.
    pub rows: u64,
    /// The age of the oldest row in milliseconds; 0 if there is none.
    pub oldest_age_ms: i64,
    /// True if the number of rows is an estimate and the age is from a sample.
    pub estimated: bool,
    /// True if a cell did not answer, so that its rows are missing.
    pub partial: bool,
}

/// Reads a chat; `None` if there is no such chat.
pub async fn chat(pools: &Pools, chat: ChatId) -> sqlx::Result<Option<ChatFacts>> {
    let mut tx = postgres::snapshot(pools.of(chat)).await?;
    let Some(row) = sqlx::query(CHAT).bind(chat.0).fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let members = sqlx::query(MEMBERS).bind(chat.0).fetch_all(&mut *tx).await?;
    let member = |row: &sqlx::postgres::PgRow| {
        Ok(MemberFacts {
            user: UserId(row.try_get("user_id")?),
            role: row.try_get("role")?,
            joined: Seq::from_i64(row.try_get("joined_seq")?),
            devices: count(i64::from(row.try_get::<i32, _>("devices")?)),
        })
    };
    Ok(Some(ChatFacts {
        kind: row.try_get("kind")?,
        title: row.try_get("title")?,
        created_by: UserId(row.try_get("created_by")?),
        created_at: Timestamp(row.try_get("created_at")?),
        head: Seq::from_i64(row.try_get("head_seq")?),
        last_at: row.try_get::<Option<i64>, _>("last_at")?.map(Timestamp),
        unsettled: count(row.try_get("unsettled")?),
        inbox_rows: count(row.try_get("inbox_rows")?),
        members: members.iter().map(member).collect::<sqlx::Result<_>>()?,
    }))
}

/// Finds the entry that a sender's request became: in this chat or, if none is given, in any of the sender's chats.
pub async fn placed(
    pools: &Pools,
    chat: Option<ChatId>,
    sender: UserId,
    request: RequestId,
) -> sqlx::Result<Option<(ChatId, Seq)>> {
    let found: Option<(Uuid, i64)> = match chat {
        Some(id) => {
            let placed = sqlx::query_as(PLACED).bind(id.0).bind(sender.0).bind(request.0);
            placed.fetch_optional(pools.of(id)).await?
        }
        None => {
            let of_cell = |pool| async move {
                let placed = sqlx::query_as(PLACED_ANYWHERE).bind(sender.0).bind(request.0);
                placed.fetch_optional(&pool).await
            };
            let Gathered { answers, partial } = pools.gather(of_cell).await?;
            let found = answers.into_iter().flatten().next();
            if found.is_none() && partial {
                return Err(sqlx::Error::PoolTimedOut);
            }
            found
        }
    };
    Ok(found.map(|(chat, seq)| (ChatId(chat), Seq::from_i64(seq))))
}

/// Reads an entry and the devices that are entitled to it; `None` if there is no such entry.
pub async fn message(
    pools: &Pools,
    master: &MasterKey,
    chat: ChatId,
    seq: Seq,
) -> Result<Option<MessageFacts>, ReadError> {
    let mut tx = postgres::snapshot(pools.of(chat)).await?;
    let row = sqlx::query(MESSAGE).bind(chat.0).bind(seq.to_i64());
    let Some(row) = row.fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let since: Option<i64> = sqlx::query_scalar(UNSETTLED_SINCE)
        .bind(chat.0)
        .bind(seq.to_i64())
        .fetch_optional(&mut *tx)
        .await?;
    let recipients = sqlx::query(RECIPIENTS)
        .bind(chat.0)
        .bind(seq.to_i64())
        .fetch_all(&mut *tx)
        .await?;
    let wrapped: Vec<u8> = row.try_get("wrapped_key")?;
    let key = master.unwrap(chat, &wrapped).map_err(|_| ReadError::Key(chat))?;
    Ok(Some(MessageFacts {
        entry: entry(&row, chat, &Sealer::new(&key))?,
        kind: row.try_get("kind")?,
        head: Seq::from_i64(row.try_get("head_seq")?),
        unsettled_since: since.map(Timestamp),
        recipients: described(
            &mut tx,
            recipients.iter().map(recipient).collect::<sqlx::Result<_>>()?,
        )
        .await?,
    }))
}

/// Fills in what the store knows of the recipients' users and devices, and sorts them by user and the time at which the
/// device was linked.
async fn described(db: &mut PgConnection, mut recipients: Vec<Recipient>) -> sqlx::Result<Vec<Recipient>> {
    let suspended = people::suspended(db, recipients.iter().map(|to| to.user)).await?;
    let devices = people::described(db, recipients.iter().filter_map(|to| to.device)).await?;
    for to in &mut recipients {
        to.suspended = suspended.contains(&to.user);
        if let Some(device) = to.device.and_then(|device| devices.get(&device)) {
            to.name = device.name.clone();
            to.active = device.active;
            to.linked_at = device.linked_at;
        }
    }
    recipients.sort_by_key(|to| (to.user, to.linked_at, to.device));
    Ok(recipients)
}

/// Counts the unsettled commits of the cells that answer, by ranges of slots. Fails if none does.
pub async fn unsettled(pools: &Pools) -> sqlx::Result<AllUnsettled> {
    let of_cell = |pool| async move {
        let ranges = sqlx::query_as::<_, (i32, i64, i64)>(UNSETTLED);
        ranges.bind(i32::from(SLOTS_A_RANGE)).fetch_all(&pool).await
    };
    let Gathered { answers, partial } = pools.gather(of_cell).await?;
    // The slots of a range are in several cells.
    let mut ranges: BTreeMap<u32, Unsettled> = BTreeMap::new();
    for (range, commits, age) in answers.into_iter().flatten() {
        let range = u32::try_from(range).unwrap_or(0);
        let sum = ranges.entry(range).or_insert(Unsettled {
            range,
            commits: 0,
            oldest_age_ms: age,
        });
        sum.commits += u64::try_from(commits).unwrap_or(0);
        sum.oldest_age_ms = sum.oldest_age_ms.max(age);
    }
    Ok(AllUnsettled {
        ranges: ranges.into_values().collect(),
        partial,
    })
}

/// Returns the bytes of WAL that were written since the database cluster was made; on a standby, those that were
/// replayed.
pub async fn wal_bytes(pools: &Pools) -> sqlx::Result<i64> {
    sqlx::query_scalar(WAL_BYTES).fetch_one(pools.people()).await
}

/// Measures the inboxes of the cells that answer. It counts a small one, and estimates a large one. Fails if no cell
/// answers.
pub async fn inbox_size(pools: &Pools) -> sqlx::Result<InboxSize> {
    let of_cell = |pool: PgPool| async move { inbox_of_cell(&pool).await };
    let Gathered { answers, partial } = pools.gather(of_cell).await?;
    let sum = |sum: InboxSize, cell: InboxSize| InboxSize {
        rows: sum.rows + cell.rows,
        oldest_age_ms: sum.oldest_age_ms.max(cell.oldest_age_ms),
        estimated: sum.estimated || cell.estimated,
        partial,
    };
    let none = InboxSize {
        partial,
        ..InboxSize::default()
    };
    Ok(answers.into_iter().fold(none, sum))
}

async fn inbox_of_cell(pool: &PgPool) -> sqlx::Result<InboxSize> {
    let (bytes, estimate): (i64, i64) = sqlx::query_as(INBOX_SIZE).fetch_one(pool).await?;
    let estimated = bytes > COUNTED_BYTES;
    let (rows, oldest_age_ms): (i64, i64) = if estimated {
        (estimate, sqlx::query_scalar(INBOX_SAMPLED).fetch_one(pool).await?)
    } else {
        sqlx::query_as(INBOX_COUNTED).fetch_one(pool).await?
    };
    Ok(InboxSize {
        rows: u64::try_from(rows).unwrap_or(0),
        oldest_age_ms,
        estimated,
        partial: false,
    })
}

/// Reads a row of [`RECIPIENTS`], which says nothing of the user and of the device.
fn recipient(row: &sqlx::postgres::PgRow) -> sqlx::Result<Recipient> {
    let owes = row.try_get::<Option<i64>, _>("from_seq")?;
    let since = Timestamp(row.try_get::<Option<i64>, _>("since")?.unwrap_or_default());
    let notified_at = row.try_get::<Option<i64>, _>("notified_at")?.map(Timestamp);
    Ok(Recipient {
        user: UserId(row.try_get("user_id")?),
        left: row.try_get("left_since")?,
        suspended: false,
        device: row.try_get::<Option<Uuid>, _>("device_id")?.map(DeviceId),
        name: String::new(),
        active: false,
        linked_at: Timestamp(0),
        owes: owes.map(|from| Owes {
            from: Seq::from_i64(from),
            since,
            notified_at,
        }),
    })
}

fn count(rows: i64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
