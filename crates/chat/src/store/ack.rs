//! Writes acknowledgements of devices that have an inbox row, and read marks.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection};
use tern_types::{ChatId, DeviceId, IdSet, Seq};
use uuid::Uuid;

use tern_chat_core::shard::{AckWrite, AckedRow, ReadMark};

use super::heads::{Heads, lock_heads};

/// Writes acknowledgements (rule 4, fine print 2). A device's row is deleted when the device has acknowledged
/// everything that it may have: up to the head or, for a member who left, up to the entry that removed them.
/// Otherwise the row moves up to the entry after the acknowledged one. The device was connected, and shows what it has.
/// It may be gone before it has the rest, of which no settle says anything any more, so a push is due in 5 to 10 s: if
/// it goes on, it moves the row again, or ends it. A time that is so far ahead already stays, because a new one costs an
/// entry in each index. An earlier statement has locked the heads, so that head and left_seq are read together and cannot
/// change. An acknowledgement above the head is dropped.
pub const ACK: &str = "
WITH a AS (
    SELECT chat_id, device_id, user_id, max(seq) AS seq
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int8[]) AS a(chat_id, device_id, user_id, seq)
    GROUP BY chat_id, device_id, user_id
), x AS (
    SELECT a.chat_id, a.device_id, a.seq,
           least(h.head_seq, (SELECT m.left_seq FROM members m
                              WHERE m.chat_id = a.chat_id AND m.user_id = a.user_id
                              ORDER BY m.joined_seq DESC LIMIT 1)) AS last
    FROM a JOIN chat_heads h ON h.chat_id = a.chat_id
    WHERE a.seq <= h.head_seq
), ended AS (
    DELETE FROM inbox i USING x
    WHERE i.chat_id = x.chat_id AND i.device_id = x.device_id AND i.from_seq <= x.seq AND x.seq >= x.last
), advanced AS (
    UPDATE inbox i SET from_seq = x.seq + 1, push_tries = 0, notified_at = NULL, pushed_at = NULL,
        push_at = CASE WHEN i.push_tries >= 0 AND i.push_at > now() + interval '5 seconds' THEN i.push_at
                       WHEN i.device_id <> i.user_id THEN now() + interval '10 seconds' END,
        push_since = CASE WHEN i.push_tries >= 0 AND i.push_at > now() + interval '5 seconds' THEN i.push_since
                          WHEN i.device_id <> i.user_id THEN now() + interval '10 seconds' END
    FROM x
    WHERE i.chat_id = x.chat_id AND i.device_id = x.device_id AND i.from_seq <= x.seq AND x.seq < x.last
)
SELECT i.chat_id, i.device_id, i.from_seq AS was,
       CASE WHEN x.seq >= x.last AND i.from_seq <= x.seq THEN NULL ELSE greatest(i.from_seq, x.seq + 1) END AS now
FROM a
JOIN inbox i ON i.chat_id = a.chat_id AND i.device_id = a.device_id
LEFT JOIN x ON x.chat_id = a.chat_id AND x.device_id = a.device_id";

/// Writes read marks, which only rise (rule 10). The setting for read receipts and `own_unread` are stored with the
/// mark; a mark with the same seq may change both.
pub const READS: &str = "
UPDATE members m SET read_seq = r.seq, read_receipts_off = r.off, own_unread = r.own_unread
FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::bool[], $5::int4[])
    AS r(chat_id, user_id, seq, off, own_unread)
WHERE m.chat_id = r.chat_id AND m.user_id = r.user_id AND m.left_seq IS NULL
    AND (m.read_seq < r.seq
         OR m.read_seq = r.seq AND (m.read_receipts_off, m.own_unread) <> (r.off, r.own_unread))";

/// Finds the chats of members whose read mark is to be written but whose rows another transaction has locked. It
/// locks the rows of the others.
pub const LOCKED_MEMBERS: &str = "
WITH r AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS r(chat_id, user_id)
), free AS (
    SELECT m.chat_id, m.user_id FROM r JOIN members m ON m.chat_id = r.chat_id AND m.user_id = r.user_id
    WHERE m.left_seq IS NULL ORDER BY m.chat_id, m.user_id FOR NO KEY UPDATE OF m SKIP LOCKED
)
SELECT r.chat_id FROM r JOIN members m ON m.chat_id = r.chat_id AND m.user_id = r.user_id
WHERE m.left_seq IS NULL AND ((r.chat_id, r.user_id) IN (SELECT chat_id, user_id FROM free)) IS NOT TRUE";

/// The inbox rows that acknowledgements met, each with its first seq before and after.
pub type Rows = HashMap<(ChatId, DeviceId), AckedRow>;

/// Writes the acknowledgements in one transaction. Returns the inbox rows that they met, and the chats that were left
/// out because their heads are locked.
pub async fn acknowledge(
    db: &mut PgConnection,
    acks: &[AckWrite],
    heads: Heads,
) -> sqlx::Result<(Rows, IdSet<ChatId>)> {
    let mut tx = db.begin().await?;
    let locked = lock_heads(&mut tx, acks.iter().map(|ack| ack.chat), heads).await?;
    let acks: Vec<&AckWrite> = acks.iter().filter(|ack| !locked.contains(&ack.chat)).collect();
    let rows: Vec<(Uuid, Uuid, i64, Option<i64>)> = sqlx::query_as(ACK)
        .bind(acks.iter().map(|ack| ack.chat.0).collect::<Vec<_>>())
        .bind(acks.iter().map(|ack| ack.device.0).collect::<Vec<_>>())
        .bind(acks.iter().map(|ack| ack.user.0).collect::<Vec<_>>())
        .bind(acks.iter().map(|ack| ack.seq.to_i64()).collect::<Vec<_>>())
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;
    let rows = rows.into_iter().map(|(chat, device, was, now)| {
        let row = AckedRow {
            was: Seq::from_i64(was),
            now: now.map(Seq::from_i64),
        };
        ((ChatId(chat), DeviceId(device)), row)
    });
    Ok((rows.collect(), locked))
}

/// Writes the read marks. Returns the chats that were left out because their members' rows are locked.
pub async fn mark_read(
    db: &mut PgConnection,
    reads: &[ReadMark],
    heads: Heads,
) -> sqlx::Result<IdSet<ChatId>> {
    let mut reads = reads.to_vec();
    reads.sort_unstable();
    match heads {
        Heads::Wait => {
            update_marks(db, &reads).await?;
            Ok(IdSet::default())
        }
        Heads::LeaveOut => {
            let mut tx = db.begin().await?;
            let locked: Vec<Uuid> = sqlx::query_scalar(LOCKED_MEMBERS)
                .bind(reads.iter().map(|mark| mark.chat.0).collect::<Vec<Uuid>>())
                .bind(reads.iter().map(|mark| mark.user.0).collect::<Vec<Uuid>>())
                .fetch_all(&mut *tx)
                .await?;
            let locked: IdSet<ChatId> = locked.into_iter().map(ChatId).collect();
            reads.retain(|mark| !locked.contains(&mark.chat));
            update_marks(&mut tx, &reads).await?;
            tx.commit().await?;
            Ok(locked)
        }
    }
}

/// Writes the marks in the order given. It must be ascending, so that two nodes that write the same marks wait for
/// each other in one direction only.
async fn update_marks(db: &mut PgConnection, reads: &[ReadMark]) -> sqlx::Result<()> {
    sqlx::query(READS)
        .bind(reads.iter().map(|mark| mark.chat.0).collect::<Vec<Uuid>>())
        .bind(reads.iter().map(|mark| mark.user.0).collect::<Vec<Uuid>>())
        .bind(reads.iter().map(|mark| mark.seq.to_i64()).collect::<Vec<i64>>())
        .bind(reads.iter().map(|mark| mark.off).collect::<Vec<bool>>())
        .bind(
            reads
                .iter()
                .map(|mark| i32::try_from(mark.own_unread).unwrap_or(i32::MAX))
                .collect::<Vec<i32>>(),
        )
        .execute(db)
        .await?;
    Ok(())
}
