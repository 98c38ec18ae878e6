//! Loads a chat in one snapshot, and makes groups.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, PgPool, Row};
use tern_store::millis;
use tern_store::postgres;
use tern_types::{ChatId, Clock, DeviceId, MediaId, RequestId, Seq, Slot, Timestamp, UserId};
use uuid::Uuid;

use tern_chat_core::chat::{ChatKind, Member, Role, Snapshot};
use tern_chat_core::content;
use tern_chat_core::entry::{Fingerprint, NewEntry};
use tern_chat_core::receipts::Watermark;
use tern_chat_core::recent::Placed;

use super::StoreError;
use super::commit::{add_members, share_users};
use super::listing::{RECEIPTS, kind, role, watermark};
use super::seal::{MasterKey, Sealer};
use super::{joining, strangers};

/// Begins a transaction whose statements all see the same moment.
pub const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The SQL condition that one of two people has blocked the other. Its arguments are the columns or parameters with
/// their ids.
macro_rules! blocked {
    ($one:literal, $other:literal) => {
        concat!(
            "(EXISTS (SELECT FROM blocks WHERE user_id = ",
            $one,
            " AND blocked_id = ",
            $other,
            ")
       OR EXISTS (SELECT FROM blocks WHERE user_id = ",
            $other,
            " AND blocked_id = ",
            $one,
            "))"
        )
    };
}
pub(super) use blocked;

/// A chat with its head and its lowest unsettled seq. Only direct chats have user_low and user_high, so no other chat
/// is blocked.
pub const CHAT: &str = concat!(
    "
SELECT c.kind, c.title, c.picture, c.wrapped_key, h.head_seq, h.head_ordinal,
       (SELECT min(u.from_seq) FROM unsettled u WHERE u.chat_id = c.chat_id) AS unsettled,
       ",
    blocked!("c.user_low", "c.user_high"),
    " AS blocked
FROM chats c JOIN chat_heads h ON h.chat_id = c.chat_id
WHERE c.chat_id = $1"
);

/// Whether the chat is a direct one and one of the two has blocked the other.
pub const IS_BLOCKED: &str = concat!(
    "SELECT ",
    blocked!("c.user_low", "c.user_high"),
    " FROM chats c WHERE c.chat_id = $1"
);

/// The newest requests of a chat, and those that wait for an answer, however old they are (rule 5).
pub const PLACED: &str = concat!(
    "
SELECT sender_user, request_id, seq, ordinal, fingerprint, ",
    millis!("sent_at"),
    " AS sent_at
FROM messages WHERE chat_id = $1 AND seq > $2
UNION
SELECT m.sender_user, m.request_id, m.seq, m.ordinal, m.fingerprint, ",
    millis!("m.sent_at"),
    "
FROM unnest($3::uuid[], $4::uuid[]) AS r(sender_user, request_id)
CROSS JOIN LATERAL (
    SELECT * FROM messages m
    WHERE m.chat_id = $1 AND m.sender_user = r.sender_user AND m.request_id = r.request_id LIMIT 1
) AS m
ORDER BY seq"
);

/// Inserts a group, unless the chat exists.
pub const NEW_CHAT: &str = "
INSERT INTO chats (chat_id, kind, title, created_by, wrapped_key)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";

/// Inserts the head of a group that has its first entry.
pub const NEW_HEAD: &str = "INSERT INTO chat_heads (chat_id, head_seq, head_ordinal) VALUES ($1, 1, 0)";

/// Inserts a group's first entry.
pub const FIRST_ENTRY: &str = "
INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
VALUES ($1, 1, 0, $2, $3, $4, $5, $6, $7, to_timestamp($8 / 1000.0))";

/// Inserts the unsettled row of a group's first entry.
pub const FIRST_UNSETTLED: &str = "INSERT INTO unsettled (chat_id, from_seq, slot) VALUES ($1, 1, $2)";

/// The fingerprint of the request that made a group.
pub const CREATED: &str = "SELECT m.fingerprint FROM messages m WHERE m.chat_id = $1 AND m.seq = 1";

/// Sets the role of a group's owner.
pub const SET_OWNER: &str = "UPDATE members SET role = $3 WHERE chat_id = $1 AND user_id = $2";

/// Requests that are read with a chat: as many as its state remembers.
const RECENT: i64 = 256;

/// Reads a chat in one snapshot, and looks up `requests` in its log. `None` if there is no such chat.
pub async fn chat(
    pool: &PgPool,
    master: &MasterKey,
    chat: ChatId,
    requests: &[(UserId, RequestId)],
) -> Result<Option<Snapshot>, StoreError> {
    let mut db = pool.acquire().await?;
    let mut tx = db.begin_with(SNAPSHOT).await?;
    let Some(row) = sqlx::query(CHAT).bind(chat.0).fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let head: i64 = row.try_get("head_seq")?;
    let members = sqlx::query(RECEIPTS).bind(chat.0).fetch_all(&mut *tx).await?;
    let placed = sqlx::query(PLACED)
        .bind(chat.0)
        .bind(head - RECENT)
        .bind(requests.iter().map(|(user, _)| user.0).collect::<Vec<_>>())
        .bind(requests.iter().map(|(_, request)| request.0).collect::<Vec<_>>())
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;

    let wrapped: Vec<u8> = row.try_get("wrapped_key")?;
    let placed = placed.iter().map(placed_row).collect::<sqlx::Result<Vec<_>>>()?;
    Ok(Some(Snapshot {
        kind: kind(row.try_get("kind")?).ok_or(StoreError::Unknown(chat, "a kind of chat"))?,
        title: row.try_get("title")?,
        picture: row.try_get::<Option<Uuid>, _>("picture")?.map(MediaId),
        key: master.unwrap(chat, &wrapped).map_err(|_| StoreError::Key(chat))?,
        head: Seq::from_i64(head),
        ordinal: u64::try_from(row.try_get::<i64, _>("head_ordinal")?).unwrap_or(0),
        members: members
            .iter()
            .map(|row| member_row(row, head - RECENT)?.ok_or(StoreError::Unknown(chat, "a role")))
            .collect::<Result<_, StoreError>>()?,
        unsettled: row.try_get::<Option<i64>, _>("unsettled")?.map(Seq::from_i64),
        last_sent_at: placed
            .iter()
            .map(|(.., placed)| placed.sent_at)
            .max()
            .unwrap_or_default(),
        placed,
        looked_up: requests.to_vec(),
        blocked: row.try_get("blocked")?,
    }))
}

/// Whether the chat is a direct one and one of the two people has blocked the other.
pub async fn is_blocked(pool: &PgPool, chat: ChatId) -> sqlx::Result<bool> {
    let blocked: Option<bool> = sqlx::query_scalar(IS_BLOCKED)
        .bind(chat.0)
        .fetch_optional(pool)
        .await?;
    Ok(blocked.unwrap_or_default())
}

/// The result of [`create_group`].
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    /// The group was made, with these members besides the owner and this first entry.
    New {
        members: Vec<UserId>,
        entry: Arc<NewEntry>,
        sent_at: Timestamp,
    },
    /// The same request made the group before.
    Before,
    /// The request_id made a group of other content before.
    RequestIdReused,
    /// No user has this id.
    UserNotFound(UserId),
    /// The members are too many new strangers for the owner. There is room again after this time.
    Limited(Duration),
}

/// A group to be made.
pub struct NewGroup<'a> {
    pub chat: ChatId,
    pub title: &'a str,
    pub owner: UserId,
    /// The members that are asked for, besides the owner and without repetitions. Those who have blocked the owner
    /// are left out.
    pub members: &'a [UserId],
    /// The first entry: `ChatCreated` with all of `members`.
    pub entry: &'a NewEntry,
    /// How many new strangers the owner may meet within a day; `None`: any number.
    pub strangers: Option<usize>,
}

/// Makes a group with its first entry, which is unsettled like every new entry.
pub async fn create_group(
    pool: &PgPool,
    master: &MasterKey,
    group: &NewGroup<'_>,
) -> Result<Created, StoreError> {
    let mut tx = postgres::begin(pool).await?;
    // A retry finds its group, whoever may be added by now.
    if let Some(before) = group.before(&mut tx).await? {
        return Ok(before);
    }
    if group.strangers.is_some() {
        strangers::lock(&mut tx, &HashSet::from([group.owner])).await?;
    }
    let with_owner = |members: &[UserId]| -> Vec<UserId> {
        std::iter::once(group.owner)
            .chain(members.iter().copied())
            .collect()
    };
    if let Some(unknown) = share_users(&mut tx, &with_owner(group.members)).await? {
        return Ok(Created::UserNotFound(unknown));
    }
    let (members, entry) = group.without_blockers(&mut tx).await?;
    if let Some(limit) = group.strangers
        && let Err(after) = strangers::meet_all(&mut tx, group.owner, &members, limit, Clock::wall()).await?
    {
        return Ok(Created::Limited(after));
    }
    let Some(sealer) = group.insert(&mut tx, master).await? else {
        // The same request is making the group at this moment.
        return Ok(group.before(&mut tx).await?.unwrap_or(Created::RequestIdReused));
    };
    add_members(&mut tx, group.chat, &with_owner(&members), 1, Role::Member).await?;
    sqlx::query(SET_OWNER)
        .bind(group.chat.0)
        .bind(group.owner.0)
        .bind(Role::Owner as i16)
        .execute(&mut *tx)
        .await?;
    let sent_at = Clock::wall();
    sqlx::query(FIRST_ENTRY)
        .bind(group.chat.0)
        .bind(entry.kind.number())
        .bind(entry.sender.0)
        .bind(entry.device.0)
        .bind(entry.request.0)
        .bind(entry.fingerprint.to_vec())
        .bind(sealer.seal(&entry.content, group.chat, entry.sender, entry.request))
        .bind(sent_at.0)
        .execute(&mut *tx)
        .await?;
    let slot = Slot::of_chat(group.chat).number() as i16;
    sqlx::query(FIRST_UNSETTLED)
        .bind(group.chat.0)
        .bind(slot)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Created::New {
        members,
        entry: Arc::new(entry),
        sent_at,
    })
}

impl NewGroup<'_> {
    /// The answer if the group exists already.
    async fn before(&self, db: &mut PgConnection) -> sqlx::Result<Option<Created>> {
        let before: Option<Vec<u8>> = sqlx::query_scalar(CREATED)
            .bind(self.chat.0)
            .fetch_optional(db)
            .await?;
        Ok(before.map(|fingerprint| {
            if fingerprint == self.entry.fingerprint {
                Created::Before
            } else {
                Created::RequestIdReused
            }
        }))
    }

    /// The members without those who have blocked the owner, and the entry that names them. The fingerprint stays
    /// that of the members that were asked for.
    async fn without_blockers(&self, db: &mut PgConnection) -> sqlx::Result<(Vec<UserId>, NewEntry)> {
        let blockers = joining::blockers(db, self.owner, self.members).await?;
        let welcome = self.members.iter().copied();
        let members: Vec<UserId> = welcome.filter(|user| !blockers.contains(user)).collect();
        let mut entry = self.entry.clone();
        if !blockers.is_empty() {
            entry.content = content::of_creation(self.title, &members);
        }
        Ok((members, entry))
    }

    /// Inserts the chat and its head; `None` if the chat exists already.
    async fn insert(&self, db: &mut PgConnection, master: &MasterKey) -> sqlx::Result<Option<Sealer>> {
        let (key, wrapped) = master.new_chat_key(self.chat);
        let inserted = sqlx::query(NEW_CHAT)
            .bind(self.chat.0)
            .bind(ChatKind::Group as i16)
            .bind(self.title)
            .bind(self.owner.0)
            .bind(wrapped)
            .execute(&mut *db)
            .await?;
        if inserted.rows_affected() == 0 {
            return Ok(None);
        }
        sqlx::query(NEW_HEAD).bind(self.chat.0).execute(db).await?;
        Ok(Some(Sealer::new(&key)))
    }
}

/// The member in a row of [`RECEIPTS`]; `None` if the role is unknown. What the member sent up to `unknown` was not
/// read, and counts as sent, so that nobody misses a receipt.
fn member_row(row: &PgRow, unknown: i64) -> sqlx::Result<Option<(UserId, Member, Watermark)>> {
    let Some(role) = role(row.try_get("role")?) else {
        return Ok(None);
    };
    let (joined, unknown) = (Seq::from_i64(row.try_get("joined_seq")?), Seq::from_i64(unknown));
    let member = Member {
        role,
        joined,
        last_sent: if joined <= unknown { unknown } else { Seq::ZERO },
        own_unread: u32::try_from(row.try_get::<i32, _>("own_unread")?).unwrap_or(0),
    };
    Ok(Some((UserId(row.try_get("user_id")?), member, watermark(row)?)))
}

fn placed_row(row: &PgRow) -> sqlx::Result<(UserId, RequestId, Placed)> {
    let stored: Vec<u8> = row.try_get("fingerprint")?;
    let mut fingerprint = Fingerprint::default();
    for (to, from) in fingerprint.iter_mut().zip(stored) {
        *to = from;
    }
    let sent_at = Timestamp(row.try_get("sent_at")?);
    let placed = Placed {
        seq: Seq::from_i64(row.try_get("seq")?),
        ordinal: u64::try_from(row.try_get::<i64, _>("ordinal")?).unwrap_or(0),
        sent_at,
        fingerprint,
    };
    Ok((
        UserId(row.try_get("sender_user")?),
        RequestId(row.try_get("request_id")?),
        placed,
    ))
}

/// The sending device of entries that a back end sends: none.
pub const NO_DEVICE: DeviceId = DeviceId::BACK_END;

/// The distinct users in the order of their first appearance, without `except`.
pub fn distinct(users: Vec<UserId>, except: UserId) -> Vec<UserId> {
    let mut seen = HashSet::from([except]);
    users.into_iter().filter(|user| seen.insert(*user)).collect()
}
