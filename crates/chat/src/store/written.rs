//! Who has written to whom.

use sqlx::{PgPool, Row};
use tern_types::{ChatId, UserId};

use crate::state::EntryKind;

/// For each chat and person: whether a message of theirs is in its log. The index of requests finds what they sent; $3
/// is the kind of messages, so reactions do not count.
pub const HAVE_WRITTEN: &str = "
SELECT asked.user_id FROM unnest($1::uuid[], $2::uuid[]) AS asked(chat_id, user_id)
WHERE EXISTS (SELECT FROM messages m
              WHERE m.chat_id = asked.chat_id AND m.sender_user = asked.user_id AND m.kind = $3)";

/// Those of `from` who have written to `to` in their direct chat.
pub async fn have_written(pool: &PgPool, to: UserId, from: &[UserId]) -> sqlx::Result<Vec<UserId>> {
    let chats: Vec<_> = from.iter().map(|user| ChatId::direct(to, *user).0).collect();
    let users: Vec<_> = from.iter().map(|user| user.0).collect();
    let rows = sqlx::query(HAVE_WRITTEN)
        .bind(chats)
        .bind(users)
        .bind(EntryKind::Message.number())
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| Ok(UserId(row.try_get(0)?))).collect()
}
