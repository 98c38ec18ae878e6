//! Finds out who has written to whom.

use std::collections::HashSet;

use sqlx::PgPool;
use tern_types::{ChatId, UserId};
use uuid::Uuid;

use tern_chat_core::EntryKind;

/// Selects the chats among $1 whose log has a message of the person in the same place of $2. The index of requests
/// finds what that person sent. $3 is the kind of messages, so reactions do not count.
pub const HAVE_WRITTEN: &str = "
SELECT asked.chat_id FROM unnest($1::uuid[], $2::uuid[]) AS asked(chat_id, user_id)
WHERE EXISTS (SELECT FROM messages m
              WHERE m.chat_id = asked.chat_id AND m.sender_user = asked.user_id AND m.kind = $3)";

/// Returns the users among `from` who have written to `to` in their direct chat.
pub async fn have_written(pool: &PgPool, to: UserId, from: &[UserId]) -> sqlx::Result<Vec<UserId>> {
    written(pool, to, from, |other| other).await
}

/// Returns the users among `to` to whom `from` has written in their direct chat.
pub async fn has_written_to(pool: &PgPool, from: UserId, to: &[UserId]) -> sqlx::Result<Vec<UserId>> {
    written(pool, from, to, |_| from).await
}

/// Returns the users among `others` in whose direct chat with `one` the sender has written. `sender` maps each of the
/// others to the sender whose messages are looked for in that chat.
async fn written(
    pool: &PgPool,
    one: UserId,
    others: &[UserId],
    sender: impl Fn(UserId) -> UserId,
) -> sqlx::Result<Vec<UserId>> {
    let chats: Vec<Uuid> = others.iter().map(|other| ChatId::direct(one, *other).0).collect();
    let senders: Vec<Uuid> = others.iter().map(|other| sender(*other).0).collect();
    let found: HashSet<Uuid> = sqlx::query_scalar(HAVE_WRITTEN)
        .bind(&chats)
        .bind(senders)
        .bind(EntryKind::Message.number())
        .fetch_all(pool)
        .await?
        .into_iter()
        .collect();
    let asked = others.iter().zip(chats);
    Ok(asked
        .filter(|(_, chat)| found.contains(chat))
        .map(|(other, _)| *other)
        .collect())
}
