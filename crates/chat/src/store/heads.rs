//! The lock of a chat's head: everything that writes `inbox` takes it first (fine print 1), always in ascending order.

use sqlx::PgConnection;
use tern_types::{ChatId, IdSet};
use uuid::Uuid;

/// What is in the way of whoever comes later is waited for before the heads are locked, not while they are: a lock on the
/// whole of `inbox` would otherwise hold up the commits of these chats too. A statement locks the tables that it names
/// before it runs, and this one names `inbox` as one that it writes.
macro_rules! inbox_first {
    ($select:literal) => {
        concat!("WITH inbox_first AS (DELETE FROM inbox WHERE false)", $select)
    };
}

/// Fine print 1.
pub const LOCK_HEADS: &str = inbox_first!(
    "
SELECT chat_id FROM chat_heads WHERE chat_id = ANY($1) ORDER BY chat_id FOR NO KEY UPDATE"
);

/// The same without those that somebody else holds.
pub const LOCK_FREE_HEADS: &str = inbox_first!(
    "
SELECT chat_id FROM chat_heads WHERE chat_id = ANY($1) ORDER BY chat_id FOR NO KEY UPDATE SKIP LOCKED"
);

/// For commits, which have nothing to do with `inbox`.
pub const LOCK_FREE_HEADS_TO_COMMIT: &str = "
SELECT chat_id FROM chat_heads WHERE chat_id = ANY($1) ORDER BY chat_id FOR NO KEY UPDATE SKIP LOCKED";

/// What to do about chats whose heads, or rows, somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// For as long as the connection's `lock_timeout` says.
    Wait,
    LeaveOut,
}

/// Locks the heads of these chats until the transaction ends; the answer names those that are left out.
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

/// Locks those that nobody holds; the answer names the others.
pub async fn lock_free_to_commit(
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

fn ascending(chats: impl Iterator<Item = ChatId>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = chats.map(|chat| chat.0).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
