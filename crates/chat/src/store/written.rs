//! Finds out who has written to whom.

use std::collections::HashSet;

use sqlx::{PgExecutor, PgPool};
use tern_types::{ChatId, UserId};
use uuid::Uuid;

use tern_chat_core::EntryKind;

/// Selects the chats among $1 whose log has a message of the person in the same place of $2, with that person. The index
/// of requests finds what that person sent. $3 is the kind of messages, so reactions do not count.
pub const HAVE_WRITTEN: &str = "
SELECT asked.chat_id, asked.user_id FROM unnest($1::uuid[], $2::uuid[]) AS asked(chat_id, user_id)
WHERE EXISTS (SELECT FROM messages m
              WHERE m.chat_id = asked.chat_id AND m.sender_user = asked.user_id AND m.kind = $3)";

/// Returns the users among `from` who have written to `to` in their direct chat.
pub async fn have_written(pool: &PgPool, to: UserId, from: &[UserId]) -> sqlx::Result<Vec<UserId>> {
    let pairs = from.iter().map(|from| (*from, to)).collect();
    let written = written(pool, pairs).await?;
    Ok(written.into_iter().map(|(from, _)| from).collect())
}

/// Returns the users among `to` to whom `from` has written in their direct chat.
pub async fn has_written_to(pool: &PgPool, from: UserId, to: &[UserId]) -> sqlx::Result<Vec<UserId>> {
    let pairs = to.iter().map(|to| (from, *to)).collect();
    let written = written(pool, pairs).await?;
    Ok(written.into_iter().map(|(_, to)| to).collect())
}

/// Returns the pairs in which the first person has written to the second in their direct chat.
pub(crate) async fn written(
    db: impl PgExecutor<'_>,
    mut pairs: Vec<(UserId, UserId)>,
) -> sqlx::Result<Vec<(UserId, UserId)>> {
    if pairs.is_empty() {
        return Ok(pairs);
    }
    let (chats, senders): (Vec<Uuid>, Vec<Uuid>) = pairs
        .iter()
        .map(|(from, to)| (ChatId::direct(*from, *to).0, from.0))
        .unzip();
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(HAVE_WRITTEN)
        .bind(chats)
        .bind(senders)
        .bind(EntryKind::Message.number())
        .fetch_all(db)
        .await?;
    let found: HashSet<(Uuid, Uuid)> = rows.into_iter().collect();
    pairs.retain(|(from, to)| found.contains(&(ChatId::direct(*from, *to).0, from.0)));
    Ok(pairs)
}
