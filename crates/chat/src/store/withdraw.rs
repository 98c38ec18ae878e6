//! Makes pushes due that withdraw what a user's devices show of a chat, because the user has read it on another device.

use sqlx::{Connection, PgConnection};
use tern_types::{ChatId, IdSet, UserId};
use uuid::Uuid;

use tern_chat_core::shard::ReadMark;

use super::heads::{Heads, lock_heads};

/// A user whose read mark in a chat has risen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    /// The chat.
    pub chat: ChatId,
    /// The user.
    pub user: UserId,
}

impl From<&ReadMark> for Withdrawal {
    fn from(mark: &ReadMark) -> Self {
        Self {
            chat: mark.chat,
            user: mark.user,
        }
    }
}

/// Makes a push due for the rows of users ($2) in chats ($1) whose devices show a notification, unless one is due
/// already. The worker that sends it looks at the read mark, which must be written before, and decides what is
/// withdrawn. The statement finds the rows by the members' devices, because a large group has many rows, and updates
/// them by their ctid.
pub const WITHDRAW: &str = "
UPDATE inbox i SET push_at = now(), push_since = now(), push_tries = 0
WHERE i.ctid = ANY (ARRAY(
    SELECT o.ctid FROM unnest($1::uuid[], $2::uuid[]) AS w(chat_id, user_id)
    CROSS JOIN LATERAL (
        SELECT m.devices FROM members m
        WHERE m.chat_id = w.chat_id AND m.user_id = w.user_id AND m.left_seq IS NULL LIMIT 1
    ) m
    CROSS JOIN LATERAL unnest(m.devices) AS d(device_id)
    CROSS JOIN LATERAL (
        SELECT o.ctid FROM inbox o
        WHERE o.chat_id = w.chat_id AND o.device_id = d.device_id
            AND o.notified_at IS NOT NULL AND o.push_at IS NULL LIMIT 1
    ) o
))";

/// Makes what is to be withdrawn due, in one transaction. Returns the number of devices, and the chats that were left out
/// because their heads are locked.
pub async fn withdraw(
    db: &mut PgConnection,
    withdrawals: &[Withdrawal],
    heads: Heads,
) -> sqlx::Result<(u64, IdSet<ChatId>)> {
    let mut tx = db.begin().await?;
    let locked = lock_heads(&mut tx, withdrawals.iter().map(|of| of.chat), heads).await?;
    let free = withdrawals.iter().filter(|of| !locked.contains(&of.chat));
    let (chats, users): (Vec<Uuid>, Vec<Uuid>) = free.map(|of| (of.chat.0, of.user.0)).unzip();
    let due = sqlx::query(WITHDRAW)
        .bind(chats)
        .bind(users)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok((due.rows_affected(), locked))
}
