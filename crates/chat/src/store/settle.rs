//! Settles commits: each device that has not acknowledged gets an inbox row. If no device is missing, the commits are
//! closed, which means that their unsettled rows are deleted. A row that stays is a push that is due, so the same
//! statement says when (docs/decisions/97-an-inbox-row-that-stays-is-a-push.md).

use std::collections::HashMap;

use sqlx::{Connection, PgConnection, Row};
use tern_types::{ChatId, DeviceId, IdSet, Seq, UserId};
use uuid::Uuid;

use tern_chat_core::Missing;
use tern_chat_core::shard::SettleChat;

use super::heads::{Heads, lock_heads};

/// Settles chats ($1), each up to a seq ($2) (docs/delivery.md, step 8 (a); fine print 3 and 4). The range that is
/// settled begins at the chat's lowest unsettled row. Its devices are those of every interval of membership that
/// overlaps it. A missing device is returned whether or not it had a row before. Devices that acknowledged everything
/// ($3, $4) are one hashed set; those that acknowledged a part ($5 to $7) are few.
///
/// A device that acknowledged may still have a row, from an owner that died between its settle and its wakes. Nobody
/// else would delete that row or move it up, so this statement does, by the rule of a written acknowledgement
/// (fine print 2, `ack.rs`). The newest interval comes from an aggregate over the user's intervals, of which
/// there are few.
///
/// A push is due for a row that is written, and for a row that is there already if none is due of it: at once, or a
/// minute after the last one (`again`). `again` finds its rows by probes and takes them by their places, so that it
/// neither locks nor writes the others, nor those that `rows` has just written, which the statement does not see.
/// Acknowledgements of a part (`had`) move a row, and it is `advanced` that says what is due of such a row. No push
/// is due for the reserved device, and for people ($8, $9) who have read everything up to the chat's seq: their read
/// marks are not in the store yet.
pub const SETTLE: &str = "
WITH s AS (
    SELECT * FROM unnest($1::uuid[], $2::int8[]) AS s(chat_id, upto)
), span AS (
    SELECT s.chat_id, s.upto,
           (SELECT min(u.from_seq) FROM unsettled u WHERE u.chat_id = s.chat_id AND u.from_seq <= s.upto) AS low
    FROM s
), owed AS (
    SELECT p.chat_id, m.user_id, coalesce(d.device_id, m.user_id) AS device_id,
           greatest(p.low, m.joined_seq) AS from_seq, least(p.upto, m.left_seq) AS to_seq
    FROM span p
    JOIN members m ON m.chat_id = p.chat_id AND m.joined_seq <= p.upto AND coalesce(m.left_seq, p.upto) >= p.low
    LEFT JOIN LATERAL unnest(m.devices) AS d(device_id) ON true
    WHERE p.low IS NOT NULL
), part AS (
    SELECT * FROM unnest($5::uuid[], $6::uuid[], $7::int8[]) AS part(chat_id, device_id, seq)
), missing AS (
    SELECT o.chat_id, o.user_id, o.device_id, min(greatest(o.from_seq, coalesce(part.seq, 0) + 1)) AS from_seq,
           coalesce(max(part.seq), 0) AS had,
           o.device_id <> o.user_id
               AND ((o.chat_id, o.user_id) IN (SELECT * FROM unnest($8::uuid[], $9::uuid[]))) IS NOT TRUE AS due
    FROM owed o LEFT JOIN part ON part.chat_id = o.chat_id AND part.device_id = o.device_id
    WHERE ((o.chat_id, o.device_id) IN (SELECT * FROM unnest($3::uuid[], $4::uuid[]))) IS NOT TRUE
        AND coalesce(part.seq, 0) < o.to_seq
    GROUP BY o.chat_id, o.user_id, o.device_id
), rows AS (
    INSERT INTO inbox (chat_id, device_id, user_id, from_seq, push_at, push_since)
    SELECT chat_id, device_id, user_id, from_seq, CASE WHEN due THEN now() END, CASE WHEN due THEN now() END
    FROM missing
    ON CONFLICT (chat_id, device_id) DO NOTHING
), again AS (
    UPDATE inbox i SET push_since = now(), push_tries = 0,
        push_at = greatest(now(), CASE WHEN i.pushed_at <= now() THEN i.pushed_at + interval '1 minute' END)
    WHERE i.ctid = ANY (ARRAY(
        SELECT o.ctid FROM missing m CROSS JOIN LATERAL (
            SELECT o.ctid FROM inbox o
            WHERE o.chat_id = m.chat_id AND o.device_id = m.device_id AND o.push_at IS NULL AND o.from_seq > m.had
            LIMIT 1
        ) o WHERE m.due
    ))
), acked AS (
    SELECT i.chat_id, i.device_id, coalesce(part.seq, s.upto) AS seq,
           ((i.chat_id, i.device_id) IN (SELECT chat_id, device_id FROM missing WHERE due)) IS TRUE AS due,
           least(h.head_seq, (SELECT (array_agg(m.left_seq ORDER BY m.joined_seq DESC))[1] FROM members m
                              WHERE m.chat_id = i.chat_id AND m.user_id = i.user_id)) AS last
    FROM s JOIN chat_heads h ON h.chat_id = s.chat_id JOIN inbox i ON i.chat_id = s.chat_id AND i.from_seq <= s.upto
    LEFT JOIN part ON part.chat_id = i.chat_id AND part.device_id = i.device_id
    WHERE part.seq IS NOT NULL
        OR ((i.chat_id, i.device_id) IN (SELECT * FROM unnest($3::uuid[], $4::uuid[]))) IS TRUE
), ended AS (
    DELETE FROM inbox i USING acked a
    WHERE i.chat_id = a.chat_id AND i.device_id = a.device_id AND i.from_seq <= a.seq AND a.seq >= a.last
), advanced AS (
    UPDATE inbox i SET from_seq = a.seq + 1, push_tries = 0, notified_at = NULL, pushed_at = NULL,
        push_at = CASE WHEN a.due THEN now() END, push_since = CASE WHEN a.due THEN now() END
    FROM acked a
    WHERE i.chat_id = a.chat_id AND i.device_id = a.device_id AND i.from_seq <= a.seq AND a.seq < a.last
), closed AS (
    DELETE FROM unsettled u USING s
    WHERE u.chat_id = s.chat_id AND u.from_seq <= s.upto
        AND (s.chat_id IN (SELECT chat_id FROM missing)) IS NOT TRUE
)
SELECT chat_id, user_id, device_id, from_seq FROM missing";

/// Closes chats: deletes their unsettled rows up to each seq (docs/delivery.md, step 8 (c)).
pub const CLOSE: &str = "
DELETE FROM unsettled u USING unnest($1::uuid[], $2::int8[]) AS s(chat_id, upto)
WHERE u.chat_id = s.chat_id AND u.from_seq <= s.upto";

/// Selects the unsettled chats of some slots ($1) whose commits are older than $2 seconds (docs/delivery.md, step 10):
/// the first $4 chats whose ids come after $3. Owners that are gone left them behind, or their commits landed late. A
/// row that lies more than $2 seconds in the future was written before the store's clock was set back, and counts as
/// old too.
pub const UNSETTLED: &str = "
SELECT chat_id, min(from_seq) AS low, max(from_seq) AS high FROM unsettled
WHERE slot = ANY($1) AND chat_id > $3
    AND (committed_at < now() - make_interval(secs => $2) OR committed_at > now() + make_interval(secs => $2))
GROUP BY chat_id ORDER BY chat_id LIMIT $4";

/// Settles the chats. Returns the missing devices of each chat, and the chats that were left out because their heads
/// are locked. A chat without missing devices is settled up to its `upto`.
pub async fn settle(
    db: &mut PgConnection,
    chats: &[SettleChat],
    heads: Heads,
) -> sqlx::Result<(HashMap<ChatId, Vec<Missing>>, IdSet<ChatId>)> {
    let mut tx = db.begin().await?;
    let locked = lock_heads(&mut tx, chats.iter().map(|settle| settle.chat), heads).await?;
    let chats: Vec<&SettleChat> = chats
        .iter()
        .filter(|settle| !locked.contains(&settle.chat))
        .collect();
    let (mut full, mut part) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new(), Vec::new()));
    let mut read: (Vec<Uuid>, Vec<Uuid>) = (Vec::new(), Vec::new());
    for settle in &chats {
        read.0.extend(settle.read.iter().map(|_| settle.chat.0));
        read.1.extend(settle.read.iter().map(|user| user.0));
        for (device, seq) in &settle.acks {
            if *seq >= settle.upto {
                full.0.push(settle.chat.0);
                full.1.push(device.0);
            } else {
                part.0.push(settle.chat.0);
                part.1.push(device.0);
                part.2.push(seq.to_i64());
            }
        }
    }
    let rows = sqlx::query(SETTLE)
        .bind(chats.iter().map(|settle| settle.chat.0).collect::<Vec<_>>())
        .bind(
            chats
                .iter()
                .map(|settle| settle.upto.to_i64())
                .collect::<Vec<_>>(),
        )
        .bind(full.0)
        .bind(full.1)
        .bind(part.0)
        .bind(part.1)
        .bind(part.2)
        .bind(read.0)
        .bind(read.1)
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;
    let mut missing: HashMap<ChatId, Vec<Missing>> = HashMap::new();
    for row in rows {
        missing
            .entry(ChatId(row.try_get("chat_id")?))
            .or_default()
            .push(Missing {
                user: UserId(row.try_get("user_id")?),
                device: DeviceId(row.try_get("device_id")?),
                from: Seq::from_i64(row.try_get("from_seq")?),
            });
    }
    Ok((missing, locked))
}

/// Closes each chat up to its seq. Every device that was missing must be accounted for.
pub async fn close(db: &mut PgConnection, chats: &[(ChatId, Seq)]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = chats.iter().map(|(chat, _)| chat.0).collect();
    let upto: Vec<i64> = chats.iter().map(|(_, upto)| upto.to_i64()).collect();
    sqlx::query(CLOSE).bind(ids).bind(upto).execute(db).await?;
    Ok(())
}

/// Returns the unsettled chats of these slots, all of the cell with this pool, with commits older than `age_s` seconds,
/// each with the lowest and the highest seq at which such a commit begins: see [`UNSETTLED`]. They come in the order of
/// their ids, at most `most`, after the chat `after`.
pub async fn unsettled(
    pool: &sqlx::PgPool,
    slots: &[i16],
    age_s: f64,
    after: ChatId,
    most: i64,
) -> sqlx::Result<Vec<(ChatId, Seq, Seq)>> {
    let rows: Vec<(Uuid, i64, i64)> = sqlx::query_as(UNSETTLED)
        .bind(slots)
        .bind(age_s)
        .bind(after.0)
        .bind(most)
        .fetch_all(pool)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(chat, low, high)| (ChatId(chat), Seq::from_i64(low), Seq::from_i64(high)))
        .collect())
}
