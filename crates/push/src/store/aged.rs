//! Finds chats in which nothing was said lately.

use std::time::Duration;

use sqlx::PgPool;
use tern_types::Seq;
use uuid::Uuid;

use super::claim::Claimed;

/// Selects the heads of those of the chats ($1) whose newest entry was sent more than $2 milliseconds ago, each with the
/// place of the chat.
pub const AGED: &str = "
SELECT w.place, h.head_seq FROM unnest($1::uuid[]) WITH ORDINALITY AS w(chat_id, place)
CROSS JOIN LATERAL (SELECT h.head_seq FROM chat_heads h WHERE h.chat_id = w.chat_id LIMIT 1) h
WHERE ((SELECT o.sent_at FROM messages o WHERE o.chat_id = w.chat_id AND o.seq = h.head_seq LIMIT 1)
       > now() - $2::int8 * interval '1 millisecond') IS NOT TRUE";

/// Returns the head of each row's chat, in the order of the rows, if nothing was sent there within `age`. The rows are of
/// the cell with this pool.
pub async fn heads(pool: &PgPool, rows: &[Claimed], age: Duration) -> sqlx::Result<Vec<Option<Seq>>> {
    let found: Vec<(i64, i64)> = sqlx::query_as(AGED)
        .bind(rows.iter().map(|row| row.chat.0).collect::<Vec<Uuid>>())
        .bind(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await?;
    let mut heads: Vec<Option<Seq>> = rows.iter().map(|_| None).collect();
    for (place, head) in found {
        let slot = usize::try_from(place - 1).ok();
        if let Some(slot) = slot.and_then(|place| heads.get_mut(place)) {
            *slot = Some(Seq::from_i64(head));
        }
    }
    Ok(heads)
}
