//! Locks the heads of chats. Every transaction that writes `inbox` locks them first (fine print 1), always in ascending
//! order of chat_id; one for several cells enters these in ascending order.

use sqlx::PgConnection;
use tern_types::{ChatId, IdSet};
use uuid::Uuid;

/// Makes a statement wait for the table `inbox` before it locks heads. Postgres locks all tables that a statement names
/// before it runs it, and the DELETE here, which deletes nothing, names `inbox` as a table that is written. Suppose
/// that another transaction has locked the whole table: without the DELETE this transaction would wait for it only when
/// it writes to `inbox`, with the heads locked, and would delay the commits of these chats too. Citus refuses the
/// statement if it can see without a look at the table that nothing is deleted, as by WHERE false.
macro_rules! inbox_first {
    ($select:literal) => {
        concat!(
            "WITH inbox_first AS (DELETE FROM inbox WHERE chat_id = ANY('{}'::uuid[]))",
            $select
        )
    };
}

/// Locks the heads of chats in ascending order (fine print 1).
pub const LOCK_HEADS: &str = inbox_first!(
    "
SELECT chat_id FROM chat_heads WHERE chat_id = ANY($1) ORDER BY chat_id FOR NO KEY UPDATE"
);

/// Locks the heads of chats that no other transaction has locked.
pub const LOCK_FREE_HEADS: &str = inbox_first!(
    "
SELECT chat_id FROM chat_heads WHERE chat_id = ANY($1) ORDER BY chat_id FOR NO KEY UPDATE SKIP LOCKED"
);

/// Locks the heads of chats that no other transaction has locked, for commits, which do not write `inbox`.
pub const LOCK_FREE_HEADS_TO_COMMIT: &str = "
SELECT chat_id FROM chat_heads WHERE chat_id = ANY($1) ORDER BY chat_id FOR NO KEY UPDATE SKIP LOCKED";

/// The choice of what to do about chats whose heads or rows another transaction has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// Wait for the lock, as long as the connection's `lock_timeout` says.
    Wait,
    /// Leave those chats out.
    LeaveOut,
}

/// Locks the heads of these chats until the transaction ends. Returns the chats that were left out, of which there are
/// none with [`Heads::Wait`].
pub async fn lock_heads(
    db: &mut PgConnection,
    chats: impl Iterator<Item = ChatId>,
    heads: Heads,
) -> sqlx::Result<IdSet<ChatId>> {
    match heads {
        Heads::Wait => {
            sqlx::query(LOCK_HEADS).bind(ascending(chats)).execute(db).await?;
            Ok(IdSet::default())
        }
        Heads::LeaveOut => lock_free(db, LOCK_FREE_HEADS, ascending(chats)).await,
    }
}

/// Locks the heads that no other transaction has locked, for a commit. Returns the chats whose heads it did not lock.
pub(crate) async fn lock_free_to_commit(
    db: &mut PgConnection,
    chats: impl Iterator<Item = ChatId>,
) -> sqlx::Result<IdSet<ChatId>> {
    lock_free(db, LOCK_FREE_HEADS_TO_COMMIT, ascending(chats)).await
}

async fn lock_free(db: &mut PgConnection, sql: &'static str, ids: Vec<Uuid>) -> sqlx::Result<IdSet<ChatId>> {
    let free: Vec<Uuid> = sqlx::query_scalar(sql).bind(&ids).fetch_all(db).await?;
    let free: IdSet<Uuid> = free.into_iter().collect();
    Ok(ids
        .into_iter()
        .filter(|id| !free.contains(id))
        .map(ChatId)
        .collect())
}

/// Returns the distinct ids in ascending order.
fn ascending(chats: impl Iterator<Item = ChatId>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = chats.map(|chat| chat.0).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
