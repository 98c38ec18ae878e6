//! Looks at what waits for devices, right before pushes are sent.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tern_push_core::facts::{Announced, Reason, Waiting};
use tern_store::{Pools, millis};
use tern_types::{ChatId, DeviceId, Seq, Timestamp, UserId};
use uuid::Uuid;

use super::claim::Claimed;

/// The number by which `chats.kind` says that a chat is a group.
const GROUP: i16 = 2;

/// Looks at claimed rows, each given by its chat ($1), its device ($2) and its claim ($3, in milliseconds). A row that
/// ended or changed is left out. Each other one has a row in the result for each entry that announces something, or one
/// row if no entry does. All of them have the place of the claimed row.
///
/// The user may read what is after their read mark, and up to the head or to the entry with which they left. Of that,
/// the newest 256 entries count, and the newest 32 that mention the user: who hears only of mentions must not miss one
/// because the push had to wait and the group is busy. Of those that one person announces for one reason
/// (`tern_push_core::facts::Reason`) only the newest is selected, and 32 at most, mentions first.
///
/// A message that was deleted or has disappeared announces nothing, whatever it was. OFFSET 0 keeps the planner from
/// working the reason out twice, and `LATERAL … LIMIT` makes it probe the indexes.
pub const LOOK: &str = concat!(
    "
SELECT w.place, c.kind, c.title, h.head_seq, i.notified, m.joined_seq IS NOT NULL AS is_member,
       coalesce(m.read_seq < m.upto, false) AS unread, a.seq, a.sender_user, a.reason, ",
    millis!("a.sent_at"),
    " AS sent_at
FROM unnest($1::uuid[], $2::uuid[], $3::int8[]) WITH ORDINALITY AS w(chat_id, device_id, claim, place)
CROSS JOIN LATERAL (
    SELECT i.user_id, i.from_seq, i.notified_at IS NOT NULL AS notified FROM inbox i
    WHERE i.chat_id = w.chat_id AND i.device_id = w.device_id AND i.push_at = to_timestamp(w.claim / 1000.0) LIMIT 1
) i
CROSS JOIN LATERAL (SELECT c.kind, c.title FROM chats c WHERE c.chat_id = w.chat_id LIMIT 1) c
CROSS JOIN LATERAL (SELECT h.head_seq FROM chat_heads h WHERE h.chat_id = w.chat_id LIMIT 1) h
LEFT JOIN LATERAL (
    SELECT x.joined_seq, x.read_seq, least(h.head_seq, x.left_seq) AS upto,
           greatest(i.from_seq - 1, x.read_seq, x.joined_seq - 1) AS past
    FROM members x WHERE x.chat_id = w.chat_id AND x.user_id = i.user_id ORDER BY x.joined_seq DESC LIMIT 1
) m ON true
LEFT JOIN LATERAL (
    SELECT e.sender_user, e.reason, max(e.seq) AS seq, max(e.sent_at) AS sent_at FROM (
        SELECT n.seq, n.sender_user, n.sent_at, CASE
            WHEN n.kind = 1 AND n.has_body THEN CASE coalesce(n.hint, 1)
                WHEN 2 THEN 0
                WHEN 3 THEN NULL
                ELSE coalesce((SELECT 2 FROM mentions x
                               WHERE x.chat_id = w.chat_id AND x.user_id = i.user_id AND x.seq = n.seq LIMIT 1), 1) END
            WHEN n.kind = 4 THEN (
                SELECT 3 FROM entry_targets t
                CROSS JOIN LATERAL (
                    SELECT o.sender_user FROM messages o WHERE o.chat_id = t.chat_id AND o.seq = t.target_seq LIMIT 1
                ) o
                CROSS JOIN LATERAL (
                    SELECT FROM reactions r
                    WHERE r.chat_id = t.chat_id AND r.target_seq = t.target_seq AND r.user_id = n.sender_user
                        AND r.seq = n.seq LIMIT 1
                ) r
                WHERE t.chat_id = w.chat_id AND t.seq = n.seq AND o.sender_user = i.user_id LIMIT 1)
            WHEN n.kind IN (10, 11) AND m.joined_seq = n.seq THEN 4
            WHEN n.kind = 20 AND n.hint = 1 THEN 5
        END AS reason
        FROM (
            SELECT o.seq, o.kind, o.sender_user, o.sent_at, octet_length(o.body) > 0 AS has_body,
                   (SELECT p.hint FROM push_hints p WHERE p.chat_id = w.chat_id AND p.seq = o.seq LIMIT 1) AS hint
            FROM (
                (SELECT o.seq, o.kind, o.sender_user, o.sent_at, o.body FROM messages o
                 WHERE o.chat_id = w.chat_id AND o.seq > m.past AND o.seq <= m.upto
                 ORDER BY o.seq DESC LIMIT 256)
                UNION ALL
                SELECT o.seq, o.kind, o.sender_user, o.sent_at, o.body FROM (
                    SELECT x.seq FROM mentions x
                    WHERE x.chat_id = w.chat_id AND x.user_id = i.user_id AND x.seq > m.past AND x.seq <= m.upto
                    ORDER BY x.seq DESC LIMIT 32
                ) x CROSS JOIN LATERAL (
                    SELECT o.seq, o.kind, o.sender_user, o.sent_at, o.body FROM messages o
                    WHERE o.chat_id = w.chat_id AND o.seq = x.seq LIMIT 1
                ) o
            ) o
        ) n
        WHERE n.kind = 20 OR n.sender_user <> i.user_id
        OFFSET 0
    ) e
    WHERE e.reason IS NOT NULL GROUP BY e.sender_user, e.reason ORDER BY e.reason = 2 DESC, max(e.seq) DESC LIMIT 32
) a ON true
ORDER BY w.place"
);

/// Selects the part of the badges of devices ($1), each with its user's own log ($2), that a cell has: the number of
/// chats in which something waits for the device that the user has not read, and the number of pushes of the last
/// minute that belong to a notification that is shown. The own log has no read mark, so it does not count. At most a
/// thousand chats of a device are looked at.
pub const BADGES: &str = "
SELECT w.device_id, b.badge, b.pushed FROM unnest($1::uuid[], $2::uuid[]) AS w(device_id, own)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE r.unread) AS badge, count(*) FILTER (WHERE r.lately) AS pushed FROM (
        SELECT i.chat_id <> w.own AND coalesce(m.read_seq < least(h.head_seq, m.left_seq), false) AS unread, i.lately
        FROM (
            SELECT x.chat_id, x.user_id,
                   x.notified_at IS NOT NULL AND x.pushed_at > now() - interval '1 minute' AS lately
            FROM inbox x WHERE x.device_id = w.device_id LIMIT 1000
        ) i
        LEFT JOIN LATERAL (
            SELECT x.read_seq, x.left_seq FROM members x WHERE x.chat_id = i.chat_id AND x.user_id = i.user_id
            ORDER BY x.joined_seq DESC LIMIT 1
        ) m ON true
        LEFT JOIN LATERAL (SELECT h.head_seq FROM chat_heads h WHERE h.chat_id = i.chat_id LIMIT 1) h ON true
    ) r
) b";

/// A chat, and what waits in it for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// True if the chat is a group.
    pub group: bool,
    /// The title of a group; empty otherwise.
    pub title: String,
    /// The chat's head.
    pub head: Seq,
    /// True if a notification of the chat is shown on the device.
    pub notified: bool,
    /// The part of the chat that waits. The store of a cell does not know whom the user has blocked.
    pub waiting: Waiting,
}

/// The badge of a device, and the number of pushes that it got lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Badge {
    /// The number of chats in which something unread waits.
    pub chats: u32,
    /// The number of pushes in the last minute.
    pub pushed_lately: u32,
}

/// Looks at rows that were claimed in the cell with this pool. The result is in the order of the rows, and has `None`
/// for one that has ended or changed.
pub async fn look(pool: &PgPool, rows: &[Claimed]) -> sqlx::Result<Vec<Option<Looked>>> {
    let found = sqlx::query(LOOK)
        .bind(rows.iter().map(|row| row.chat.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.device.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.claim.0).collect::<Vec<_>>())
        .fetch_all(pool)
        .await?;
    let mut looked: Vec<Option<Looked>> = rows.iter().map(|_| None).collect();
    for row in &found {
        let place: i64 = row.try_get("place")?;
        let Some(slot) = usize::try_from(place - 1)
            .ok()
            .and_then(|place| looked.get_mut(place))
        else {
            continue;
        };
        let chat = match slot {
            Some(chat) => chat,
            None => slot.insert(chat_of(row)?),
        };
        chat.waiting.announced.extend(announced(row)?);
    }
    Ok(looked)
}

fn chat_of(row: &PgRow) -> sqlx::Result<Looked> {
    Ok(Looked {
        group: row.try_get::<i16, _>("kind")? == GROUP,
        title: row.try_get("title")?,
        head: Seq::from_i64(row.try_get("head_seq")?),
        notified: row.try_get("notified")?,
        waiting: Waiting {
            is_member: row.try_get("is_member")?,
            unread: row.try_get("unread")?,
            announced: Vec::new(),
        },
    })
}

/// Reads the entry that a row of the result is about, if it is about one.
fn announced(row: &PgRow) -> sqlx::Result<Option<Announced>> {
    let number: Option<i32> = row.try_get("reason")?;
    let Some(reason) = number.and_then(Reason::from_number) else {
        return Ok(None);
    };
    Ok(Some(Announced {
        seq: Seq::from_i64(row.try_get("seq")?),
        sender: UserId(row.try_get::<Uuid, _>("sender_user")?),
        reason,
        sent_at: Timestamp(row.try_get("sent_at")?),
        blocked: false,
    }))
}

/// Reads the badges of these devices of these users from all cells. The part of a cell that does not answer is left
/// out.
pub async fn badges(pools: &Pools, devices: &[(DeviceId, UserId)]) -> sqlx::Result<HashMap<DeviceId, Badge>> {
    let ids: Arc<[Uuid]> = devices.iter().map(|(device, _)| device.0).collect();
    let owns: Arc<[Uuid]> = devices.iter().map(|(_, user)| ChatId::own(*user).0).collect();
    let of_cell = |pool: PgPool| {
        let (ids, owns) = (ids.clone(), owns.clone());
        async move {
            let badges = sqlx::query_as::<_, (Uuid, i64, i64)>(BADGES);
            badges.bind(&ids[..]).bind(&owns[..]).fetch_all(&pool).await
        }
    };
    let answers = pools.gather(of_cell).await?.answers;
    let mut badges: HashMap<DeviceId, Badge> = HashMap::new();
    for (device, chats, pushed) in answers.into_iter().flatten() {
        let badge = badges.entry(DeviceId(device)).or_default();
        let number = |count: i64| u32::try_from(count).unwrap_or(0);
        badge.chats = badge.chats.saturating_add(number(chats));
        badge.pushed_lately = badge.pushed_lately.saturating_add(number(pushed));
    }
    Ok(badges)
}
