//! Reads chats as their members see them, members, and receipts.
//!
//! - [`page`]: reads lists of chats

use std::collections::HashMap;

use futures::future::try_join_all;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, MediaId, Seq, Timestamp, UserId};
use uuid::Uuid;

use tern_chat_core::EntryKind;
use tern_chat_core::chat::{ChatKind, Role};
use tern_chat_core::policy::Policy;
use tern_chat_core::receipts::Watermark;
use tern_chat_core::retention::Retention;

use tern_store::{Pools, millis};

use super::entries::{entry, erased};
use super::policy::policy;
use super::seal::{MasterKey, Sealer};
use super::{ReadError, retention};

pub mod page;

pub use super::policy::role;
pub use page::{Page, chats};

/// Selects a chat as one member ($1) with a device ($2) sees it. `$which` is a further condition.
///
/// `resume_seq` is the last seq that the device has acknowledged or is not owed. One statement reads all of it, so that
/// an entry that is being settled is seen either as unsettled or in the inbox. Entries of an earlier interval of
/// membership count too: a member who was removed and added again may not have got the last of them.
///
/// If the entry of the read mark was trimmed, `read_ordinal` is the ordinal before the first entry that is left. So
/// what was trimmed is not unread.
///
/// A direct chat is listed from its first message on. Nobody sees a chat that was made for a message that was then
/// refused, or that never came again.
macro_rules! view {
    ($which:literal) => {
        concat!(
            "
SELECT c.chat_id, c.kind, c.title, c.picture, c.created_by, ",
            millis!("c.created_at"),
            " AS created_at, c.user_low, c.user_high, c.wrapped_key,
    h.head_seq, h.head_ordinal, me.role, me.read_seq, me.own_unread,
    c.retention_mode, c.keep_s, c.disappear_after_s, c.first_seq,
    coalesce((SELECT r.ordinal FROM messages r WHERE r.chat_id = c.chat_id AND r.seq = me.read_seq), c.first_ordinal)
        AS read_ordinal,
    (SELECT count(*) FROM members o WHERE o.chat_id = c.chat_id AND o.left_seq IS NULL) AS member_count,
    least((SELECT i.from_seq FROM inbox i WHERE i.chat_id = c.chat_id AND i.device_id = $2),
          (SELECT min(greatest(u.from_seq, mine.joined_seq)) FROM unsettled u
           JOIN members mine ON mine.chat_id = u.chat_id AND mine.user_id = me.user_id
               AND coalesce(mine.left_seq, u.from_seq) >= u.from_seq
           WHERE u.chat_id = c.chat_id),
          h.head_seq + 1) - 1 AS resume_seq,
    ARRAY(SELECT n.seq FROM mentions n WHERE n.chat_id = c.chat_id AND n.user_id = me.user_id
              AND n.seq > me.read_seq AND n.seq >= me.joined_seq ORDER BY n.seq LIMIT 100) AS mentions,
    CASE WHEN me.role >= c.add_role THEN
        (SELECT count(*) FROM (SELECT r.user_id FROM join_requests r WHERE r.chat_id = c.chat_id AND r.refused_at IS NULL
             AND r.requested_at > now() - interval '30 days' LIMIT 256) AS waiting)
    ELSE 0 END AS join_requests,
    c.description, c.send_role, c.add_role, c.edit_role, c.slow_mode_s, c.joiner_history, c.frozen,
    (SELECT min(coalesce(mine.history_seq, mine.joined_seq)) FROM members mine
     WHERE mine.chat_id = me.chat_id AND mine.user_id = me.user_id) AS history_from,
    l.seq, l.ordinal, l.sender_user, l.sender_device, l.request_id, ",
            erased!("l"),
            ", ",
            millis!("l.sent_at"),
            " AS sent_at
FROM members me
JOIN chats c ON c.chat_id = me.chat_id
JOIN chat_heads h ON h.chat_id = me.chat_id
LEFT JOIN messages l ON l.chat_id = me.chat_id AND l.seq = h.head_seq
WHERE me.user_id = $1 AND me.left_seq IS NULL AND h.head_seq > 0 ",
            $which
        )
    };
}

/// Selects one chat ($3) of a member.
pub const ONE: &str = view!("AND me.chat_id = $3");

/// Selects some chats ($3) of a member.
pub const SOME: &str = view!("AND me.chat_id = ANY($3) AND c.kind <> 3");

/// Selects a page of a member's chats: those whose time of the last entry (milliseconds) and id are below ($3, $4), the
/// newest first, at most $5. It stops after their last entries have $6 bytes; `found` counts all chats that $5 allows.
/// The user's own log (kind 3) is left out, as are the chats $7, and all that are not among $8 unless that is NULL. Of
/// the others those are listed whose last entry has the time $9 or a later one, or that are among $10.
pub const PAGE: &str = concat!(
    "
SELECT * FROM (
    SELECT v.*, count(*) OVER () AS found,
           sum(coalesce(octet_length(v.body), 0)) OVER (ORDER BY coalesce(v.sent_at, 0) DESC, v.chat_id DESC)
               - coalesce(octet_length(v.body), 0) AS bytes_before
    FROM (",
    view!(
        "AND (coalesce((extract(epoch FROM l.sent_at) * 1000)::int8, 0), me.chat_id) < ($3, $4) AND c.kind <> 3
    AND (me.chat_id IN (SELECT unnest($7::uuid[]))) IS NOT TRUE
    AND ($8::uuid[] IS NULL OR (me.chat_id IN (SELECT unnest($8::uuid[]))) IS TRUE)
    AND (coalesce((extract(epoch FROM l.sent_at) * 1000)::int8, 0) >= $9
         OR (me.chat_id IN (SELECT unnest($10::uuid[]))) IS TRUE)
ORDER BY coalesce((extract(epoch FROM l.sent_at) * 1000)::int8, 0) DESC, me.chat_id DESC LIMIT $5"
    ),
    "
    ) v
) w WHERE w.bytes_before < $6 ORDER BY coalesce(w.sent_at, 0) DESC, w.chat_id DESC"
);

/// Selects the ordinals of some entries, each given by its chat ($1) and seq ($2).
pub const ORDINALS: &str = "
SELECT r.chat_id, m.ordinal FROM unnest($1::uuid[], $2::int8[]) AS r(chat_id, seq)
CROSS JOIN LATERAL (SELECT m.ordinal FROM messages m WHERE m.chat_id = r.chat_id AND m.seq = r.seq LIMIT 1) AS m";

/// Selects the store's epoch.
pub const EPOCH: &str = "SELECT epoch FROM store WHERE single";

/// Selects the store's epoch, and draws a new number for the streams that are being opened.
pub(crate) const OPENING: &str = "SELECT epoch, nextval('stream_numbers') FROM store WHERE single";

/// Selects the present members with their watermarks. `delivered` is derived from the inbox rows of the member's
/// devices: the device that got furthest counts. It stays below the lowest unsettled entry. A user without a device has
/// their rows under the reserved id. [`watermark`] raises `delivered` to the read mark, because a read mark never goes
/// further than the entries that were delivered to its user or sent by them.
pub const RECEIPTS: &str = "
SELECT m.user_id, m.role, m.joined_seq, m.read_seq, m.read_receipts_off, m.own_unread,
       coalesce(m.history_seq, m.joined_seq) AS history_from,
       least(coalesce((SELECT max(coalesce(i.from_seq - 1, h.head_seq))
                       FROM unnest(CASE WHEN m.devices = '{}' THEN ARRAY[m.user_id] ELSE m.devices END) AS d(device_id)
                       LEFT JOIN inbox i ON i.chat_id = m.chat_id AND i.device_id = d.device_id), 0),
             coalesce((SELECT min(u.from_seq) - 1 FROM unsettled u WHERE u.chat_id = m.chat_id), h.head_seq))
           AS delivered
FROM members m JOIN chat_heads h ON h.chat_id = m.chat_id
WHERE m.chat_id = $1 AND m.left_seq IS NULL
ORDER BY m.user_id";

/// Selects a page of a chat's present members: those with ids above $2, at most $3.
pub const MEMBERS: &str = "
SELECT user_id, role, joined_seq FROM members
WHERE chat_id = $1 AND left_seq IS NULL AND user_id > $2 ORDER BY user_id LIMIT $3";

/// Selects the sender and the kind of an entry.
pub const MESSAGE: &str = "SELECT sender_user, kind FROM messages WHERE chat_id = $1 AND seq = $2";

/// Selects whether a user is a present member of a chat.
pub const IS_MEMBER: &str =
    "SELECT EXISTS (SELECT FROM members WHERE chat_id = $1 AND user_id = $2 AND left_seq IS NULL)";

/// Selects the read mark of the newest membership of a user in a chat, also if they have left it.
pub const READ_MARK: &str =
    "SELECT read_seq FROM members WHERE chat_id = $1 AND user_id = $2 ORDER BY joined_seq DESC LIMIT 1";

/// A chat as one member sees it.
#[derive(Debug, Clone)]
pub struct ChatView {
    /// The chat.
    pub chat: ChatId,
    /// The kind: a direct chat or a group.
    pub kind: ChatKind,
    /// The title of a group. It is empty for a direct chat.
    pub title: String,
    /// The picture of a group; `None` if it has none.
    pub picture: Option<MediaId>,
    /// The user who made the chat, or [`UserId::SYSTEM`].
    pub created_by: UserId,
    /// The time at which the chat was made.
    pub created_at: Timestamp,
    /// The seq of the last entry.
    pub head: Seq,
    /// The ordinal of the last entry: the number of messages up to it that count as unread.
    pub head_ordinal: u64,
    /// The last seq that the reader's device has acknowledged or is not owed.
    pub resume: Seq,
    /// The reader's read mark.
    pub read: Seq,
    /// The ordinal of the entry at `read`.
    pub read_ordinal: u64,
    /// The reader's own messages after `read` that count as unread. They are not unread to the reader.
    pub own_unread: u32,
    /// The number of present members.
    pub member_count: u32,
    /// The reader's role.
    pub role: Role,
    /// The other person of a direct chat.
    pub peer: Option<UserId>,
    /// The seqs of the first 100 messages after the store's read mark that mention the reader.
    pub mentions: Vec<Seq>,
    /// The entry at `head`; `None` if it was trimmed.
    pub last_entry: Option<v1::Entry>,
    /// The number of requests to join that wait, if the reader may answer them.
    pub join_requests: u32,
    /// The description of a group. It is empty for a direct chat.
    pub description: String,
    /// The rules of a group; the default for a direct chat.
    pub policy: Policy,
    /// True if the operator froze the chat.
    pub frozen: bool,
    /// The lowest seq that the reader may read.
    pub history_from: Seq,
    /// The members' choice of how long their messages are kept.
    pub retention: Retention,
    /// The first seq that is still there.
    pub first: Seq,
}

impl ChatView {
    /// Returns the number of messages of others after the read mark.
    pub fn unread(&self) -> u64 {
        let own = self.read_ordinal.saturating_add(self.own_unread.into());
        self.head_ordinal.saturating_sub(own)
    }
}

/// Reads one chat of the user; `None` if they are no member, or the chat has no entry yet.
pub async fn chat(
    pools: &Pools,
    master: &MasterKey,
    user: UserId,
    device: Option<DeviceId>,
    chat: ChatId,
) -> Result<Option<ChatView>, ReadError> {
    let row = sqlx::query(ONE)
        .bind(user.0)
        .bind(device.map(|device| device.0))
        .bind(chat.0);
    row.fetch_optional(pools.of(chat))
        .await?
        .map(|row| view(&row, master, user))
        .transpose()
}

/// Replaces the read marks of the views by those of the chats' owners, where these are at least as new as the
/// store's. A mark is the chat, the seq, and the number of the reader's own messages after it, which count as
/// unread for others only. If the entry of a mark was trimmed, the ordinal stays that of the mark before.
pub async fn show_marks(
    pools: &Pools,
    views: &mut [ChatView],
    marks: impl IntoIterator<Item = (ChatId, Seq, u32)>,
) -> sqlx::Result<()> {
    let mut known: HashMap<ChatId, (Seq, u32)> = HashMap::new();
    for (chat, seq, own_unread) in marks {
        let mark = known.entry(chat).or_default();
        *mark = (seq, own_unread).max(*mark);
    }
    let newer = |view: &ChatView| {
        let mark = known.get(&view.chat)?.0.min(view.head);
        (mark > view.read).then_some(mark)
    };
    let newer = views.iter().filter_map(|view| Some((view.chat, newer(view)?)));
    let asked = pools.by_cell(newer, |(chat, _)| *chat);
    let asked = asked.map(|(pool, marks)| async move {
        let (chats, seqs): (Vec<Uuid>, Vec<i64>) =
            marks.iter().map(|(chat, seq)| (chat.0, seq.to_i64())).unzip();
        let ordinals = sqlx::query_as::<_, (Uuid, i64)>(ORDINALS);
        ordinals.bind(chats).bind(seqs).fetch_all(pool).await
    });
    let ordinals: HashMap<Uuid, i64> = try_join_all(asked).await?.into_iter().flatten().collect();
    for view in views {
        let Some((seq, own_unread)) = known.get(&view.chat).filter(|(seq, _)| *seq >= view.read) else {
            continue;
        };
        view.read = (*seq).min(view.head);
        if let Some(ordinal) = ordinals.get(&view.chat.0) {
            view.read_ordinal = u64::try_from(*ordinal).unwrap_or(0);
        }
        view.own_unread = *own_unread;
    }
    Ok(())
}

/// Reads the store's epoch: see `tern.v1.Opened.store_epoch`.
pub async fn epoch(pools: &Pools) -> sqlx::Result<Uuid> {
    sqlx::query_scalar(EPOCH).fetch_one(pools.people()).await
}

/// Reads the epoch, and draws a number that is higher than all that were drawn before. So streams are numbered in the
/// order in which the store is asked, not by any node's clock.
pub async fn opening(pools: &Pools) -> sqlx::Result<(Uuid, u64)> {
    let (epoch, number): (Uuid, i64) = sqlx::query_as(OPENING).fetch_one(pools.people()).await?;
    Ok((epoch, number.unsigned_abs()))
}

/// Reads each present member, the seq at which they joined, and their watermark.
pub async fn receipts(pools: &Pools, chat: ChatId) -> sqlx::Result<Vec<(UserId, Seq, Watermark)>> {
    let rows = sqlx::query(RECEIPTS)
        .bind(chat.0)
        .fetch_all(pools.of(chat))
        .await?;
    let receipts = rows.iter().map(|row| {
        let joined = Seq::from_i64(row.try_get("joined_seq")?);
        Ok((UserId(row.try_get("user_id")?), joined, watermark(row)?))
    });
    receipts.collect()
}

/// Reads the watermark from a row of [`RECEIPTS`].
pub fn watermark(row: &PgRow) -> sqlx::Result<Watermark> {
    let read: i64 = row.try_get("read_seq")?;
    let delivered: i64 = row.try_get("delivered")?;
    Ok(Watermark {
        delivered: Seq::from_i64(delivered.max(read)),
        read: Seq::from_i64(read),
        read_receipts_off: row.try_get("read_receipts_off")?,
    })
}

/// Reads the present members with ids above `after`, by id, at most `limit`.
pub async fn members(
    pools: &Pools,
    chat: ChatId,
    after: UserId,
    limit: u32,
) -> Result<Vec<(UserId, Role, Seq)>, ReadError> {
    let rows: Vec<(Uuid, i16, i64)> = sqlx::query_as(MEMBERS)
        .bind(chat.0)
        .bind(after.0)
        .bind(i64::from(limit))
        .fetch_all(pools.of(chat))
        .await?;
    rows.into_iter()
        .map(|(user, number, joined)| {
            let role = role(number).ok_or(ReadError::Unknown(chat, "a role"))?;
            Ok((UserId(user), role, Seq::from_i64(joined)))
        })
        .collect()
}

/// Returns whether the user is a present member of the chat.
pub async fn is_member(pools: &Pools, chat: ChatId, user: UserId) -> sqlx::Result<bool> {
    sqlx::query_scalar(IS_MEMBER)
        .bind(chat.0)
        .bind(user.0)
        .fetch_one(pools.of(chat))
        .await
}

/// Returns the read mark that the store has of the user in the chat; `None` if the user never was a member.
pub async fn read_mark(pools: &Pools, chat: ChatId, user: UserId) -> sqlx::Result<Option<Seq>> {
    let mark: Option<i64> = sqlx::query_scalar(READ_MARK)
        .bind(chat.0)
        .bind(user.0)
        .fetch_optional(pools.of(chat))
        .await?;
    Ok(mark.map(Seq::from_i64))
}

/// Returns the sender of the message, or of what was done to one, at `seq`; `None` if there is no such entry.
pub(crate) async fn sender_of_message(pools: &Pools, chat: ChatId, seq: Seq) -> sqlx::Result<Option<UserId>> {
    let row: Option<(Uuid, i16)> = sqlx::query_as(MESSAGE)
        .bind(chat.0)
        .bind(seq.to_i64())
        .fetch_optional(pools.of(chat))
        .await?;
    let message = row.filter(|(_, kind)| *kind < EntryKind::ChatCreated.number());
    Ok(message.map(|(sender, _)| UserId(sender)))
}

fn view(row: &PgRow, master: &MasterKey, user: UserId) -> Result<ChatView, ReadError> {
    let chat = ChatId(row.try_get("chat_id")?);
    let wrapped: Vec<u8> = row.try_get("wrapped_key")?;
    let last_entry = if row.try_get::<Option<i64>, _>("seq")?.is_some() {
        let key = master.unwrap(chat, &wrapped).map_err(|_| ReadError::Key(chat))?;
        Some(entry(row, chat, &Sealer::new(&key))?)
    } else {
        None
    };
    let head_ordinal: i64 = row.try_get("head_ordinal")?;
    let mentions: Vec<i64> = row.try_get("mentions")?;
    let (read_ordinal, own_unread): (i64, i32) = (row.try_get("read_ordinal")?, row.try_get("own_unread")?);
    let people = [
        row.try_get::<Option<Uuid>, _>("user_low")?,
        row.try_get("user_high")?,
    ];
    Ok(ChatView {
        chat,
        kind: kind(row.try_get("kind")?).ok_or(ReadError::Unknown(chat, "a kind of chat"))?,
        title: row.try_get("title")?,
        picture: row.try_get::<Option<Uuid>, _>("picture")?.map(MediaId),
        created_by: UserId(row.try_get("created_by")?),
        created_at: Timestamp(row.try_get("created_at")?),
        head: Seq::from_i64(row.try_get("head_seq")?),
        head_ordinal: u64::try_from(head_ordinal).unwrap_or(0),
        resume: Seq::from_i64(row.try_get("resume_seq")?),
        read: Seq::from_i64(row.try_get("read_seq")?),
        read_ordinal: u64::try_from(read_ordinal).unwrap_or(0),
        own_unread: u32::try_from(own_unread).unwrap_or(0),
        member_count: u32::try_from(row.try_get::<i64, _>("member_count")?).unwrap_or(0),
        role: role(row.try_get("role")?).ok_or(ReadError::Unknown(chat, "a role"))?,
        peer: people
            .into_iter()
            .flatten()
            .map(UserId)
            .find(|person| *person != user),
        mentions: mentions.into_iter().map(Seq::from_i64).collect(),
        last_entry,
        join_requests: u32::try_from(row.try_get::<i64, _>("join_requests")?).unwrap_or(0),
        description: row.try_get("description")?,
        policy: policy(row, chat)?,
        frozen: row.try_get("frozen")?,
        history_from: Seq::from_i64(row.try_get("history_from")?),
        retention: retention::of_row(row, chat)?,
        first: Seq::from_i64(row.try_get("first_seq")?),
    })
}

/// Returns the kind of chat with this stored number; `None` if this version does not know it.
pub fn kind(number: i16) -> Option<ChatKind> {
    [ChatKind::Direct, ChatKind::Group, ChatKind::Own]
        .into_iter()
        .find(|kind| *kind as i16 == number)
}
