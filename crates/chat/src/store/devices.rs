//! Links a device to its user's chats, or revokes it. One transaction locks the user, and then enters the cells that
//! have chats of the user in ascending order.

use sqlx::PgConnection;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{AccountChange, AccountChanged, EntryContent};
use tern_store::{Pools, pools};
use tern_types::{Cell, ChatId, DeviceId, RequestId, UserId};
use uuid::Uuid;

use super::heads::{Heads, lock_heads};

/// Locks a user against being added to a chat at the same time: see `people::share`.
pub const LOCK_USER: &str = "SELECT user_id FROM users WHERE user_id = $1 FOR NO KEY UPDATE";

/// Makes a device active. It changes no row if the device is not this user's or was revoked.
pub const ACTIVATE: &str =
    "UPDATE devices SET active = true WHERE device_id = $1 AND user_id = $2 AND revoked_at IS NULL";

/// Notes for the own log of a user ($1) that a device was linked, under a request_id ($2) that follows from the device. An
/// accounts node has the entry ($3) appended, also if it is told twice.
pub const NOTE_LINKED: &str = "
INSERT INTO own_log_outbox (user_id, request_id, number, content)
SELECT $1::uuid, $2::uuid, coalesce(max(o.number), 0) + 1, $3::bytea FROM own_log_outbox o WHERE o.user_id = $1
ON CONFLICT DO NOTHING";

/// Revokes a device. The time of the first revocation stays, unless the store's clock was set back since.
pub(crate) const DEACTIVATE: &str = "
UPDATE devices SET active = false, revoked_at = least(revoked_at, now()) WHERE device_id = $1 AND user_id = $2";

/// Counts the user's active devices other than $2.
pub const OTHERS: &str = "SELECT count(*) FROM devices WHERE user_id = $1 AND active AND device_id <> $2";

/// Selects the chats that a device ($2) of this user ($1) concerns: those that the user is or was a member of, and
/// those with an inbox row of the device or of the reserved device, whose id is the user's.
pub const CHATS: &str = "
SELECT chat_id FROM members WHERE user_id = $1
UNION SELECT chat_id FROM inbox WHERE device_id IN ($1, $2)";

/// Adds a device ($2) to its user's ($1) chats (fine print 7). In each chat the device starts at the head, which is
/// locked now. If entries are unsettled, it starts at the first of them instead, and gets an inbox row. Without that
/// row a settle that has listed its devices already would delete the unsettled rows and leave this device out, although
/// its `resume_seq` may have told it to wait for those entries. The rows have a step of their own because Citus gets an
/// INSERT wrong that joins another change with a table. No push is due for the row: whoever links a device is at it.
pub const JOIN: &str = "
WITH joined AS (
    UPDATE members SET devices = array_append(devices, $2)
    WHERE user_id = $1 AND left_seq IS NULL AND NOT $2 = ANY(devices)
    RETURNING chat_id, joined_seq
), due AS MATERIALIZED (
    SELECT j.chat_id, min(greatest(u.from_seq, j.joined_seq)) AS from_seq
    FROM joined j JOIN unsettled u ON u.chat_id = j.chat_id GROUP BY j.chat_id
)
INSERT INTO inbox (chat_id, device_id, user_id, from_seq)
SELECT chat_id, $2, $1, from_seq FROM due
ON CONFLICT (chat_id, device_id) DO UPDATE SET from_seq = least(inbox.from_seq, excluded.from_seq)";

/// Copies the inbox rows of a device ($1) to another ($2): from the reserved device to a device that is linked, or from
/// a user's last device back. What is due of them, and was pushed, is not copied: whoever links a device is at it, and
/// the reserved device gets no pushes.
pub const TAKE_OVER: &str = "
INSERT INTO inbox (chat_id, device_id, user_id, from_seq, since)
SELECT chat_id, $2, user_id, from_seq, since FROM inbox WHERE device_id = $1
ON CONFLICT (chat_id, device_id) DO UPDATE SET from_seq = least(inbox.from_seq, excluded.from_seq)";

/// Takes a device out of its user's chats.
pub const LEAVE: &str = "
UPDATE members SET devices = array_remove(devices, $2) WHERE user_id = $1 AND $2 = ANY(devices)";

/// Deletes the inbox rows of a device.
pub const FORGET: &str = "DELETE FROM inbox WHERE device_id = $1";

/// Links the device, and notes that for the user's own log. Returns false if there is no such device of this user, or it
/// was revoked.
pub async fn link(pools: &Pools, user: UserId, device: DeviceId) -> sqlx::Result<bool> {
    let mut tx = pools.begin().await?;
    sqlx::query(LOCK_USER).bind(user.0).execute(&mut *tx).await?;
    let active = sqlx::query(ACTIVATE)
        .bind(device.0)
        .bind(user.0)
        .execute(&mut *tx)
        .await?;
    if active.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(NOTE_LINKED)
        .bind(user.0)
        .bind(linked_request(device).0)
        .bind(linked_content(device))
        .execute(&mut *tx)
        .await?;
    for (cell, chats) in chats(pools, user, device).await? {
        pools::enter(&mut tx, cell).await?;
        lock_heads(&mut tx, chats.into_iter(), Heads::Wait).await?;
        sqlx::query(JOIN)
            .bind(user.0)
            .bind(device.0)
            .execute(&mut *tx)
            .await?;
        move_rows(&mut tx, DeviceId::reserved(user), device).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Returns the request under which the own log has the entry that the device was linked. It is the same however often
/// the device is linked.
fn linked_request(device: DeviceId) -> RequestId {
    RequestId(Uuid::new_v5(&device.0, b"linked"))
}

fn linked_content(device: DeviceId) -> Vec<u8> {
    let changed = AccountChanged {
        change: AccountChange::DeviceLinked.into(),
        subject_id: device.to_string(),
    };
    let content = EntryContent {
        content: Some(Content::AccountChanged(changed)),
        ..EntryContent::default()
    };
    content.encoded().to_vec()
}

/// Revokes the device. Its inbox rows are deleted or, if it was the user's last device, kept for the next one.
pub async fn unlink(pools: &Pools, user: UserId, device: DeviceId) -> sqlx::Result<()> {
    let mut tx = pools.begin().await?;
    sqlx::query(LOCK_USER).bind(user.0).execute(&mut *tx).await?;
    sqlx::query(DEACTIVATE)
        .bind(device.0)
        .bind(user.0)
        .execute(&mut *tx)
        .await?;
    let others: i64 = sqlx::query_scalar(OTHERS)
        .bind(user.0)
        .bind(device.0)
        .fetch_one(&mut *tx)
        .await?;
    for (cell, chats) in chats(pools, user, device).await? {
        pools::enter(&mut tx, cell).await?;
        lock_heads(&mut tx, chats.into_iter(), Heads::Wait).await?;
        sqlx::query(LEAVE)
            .bind(user.0)
            .bind(device.0)
            .execute(&mut *tx)
            .await?;
        if others == 0 {
            move_rows(&mut tx, device, DeviceId::reserved(user)).await?;
        } else {
            sqlx::query(FORGET).bind(device.0).execute(&mut *tx).await?;
        }
    }
    tx.commit().await
}

/// Returns the chats that the device concerns, by their cells in ascending order. The user must be locked: then nobody
/// can add them to a chat, so other connections than that of the lock may read this, all cells at the same time.
async fn chats(pools: &Pools, user: UserId, device: DeviceId) -> sqlx::Result<Vec<(Cell, Vec<ChatId>)>> {
    let of_cell = |pool| async move {
        let chats = sqlx::query_scalar(CHATS).bind(user.0).bind(device.0);
        let chats: Vec<Uuid> = chats.fetch_all(&pool).await?;
        Ok(chats.into_iter().map(ChatId).collect::<Vec<_>>())
    };
    let found = pools.count().all().zip(pools.all(of_cell).await?);
    Ok(found.filter(|(_, chats)| !chats.is_empty()).collect())
}

/// Moves the inbox rows of one device to another.
async fn move_rows(db: &mut PgConnection, from: DeviceId, to: DeviceId) -> sqlx::Result<()> {
    sqlx::query(TAKE_OVER)
        .bind(from.0)
        .bind(to.0)
        .execute(&mut *db)
        .await?;
    sqlx::query(FORGET).bind(from.0).execute(db).await?;
    Ok(())
}
