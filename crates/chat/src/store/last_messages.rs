//! Reads when the members of a group in slow mode last sent a message.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;
use tern_store::millis;
use tern_types::{ChatId, Clock, Timestamp, UserId};
use uuid::Uuid;

/// The number of seqs below the head among which last messages are looked for. In slow mode each member of the lowest role
/// sends at most one message in the time that counts, so those of the largest group are a quarter of this. The rest is
/// room for reactions, edits, and what admins and back ends send. A member whose last message lies further back may send
/// the next one too early, once.
const REACH: i64 = 4096;

/// Selects the senders of the messages of a chat ($1) with seqs from $2 to $3 that were sent after a time ($4), each with
/// the time of their last one. Times do not decrease from seq to seq, so if the entry at $3 is older nothing is read.
pub const LAST_MESSAGES: &str = concat!(
    "
SELECT m.sender_user, max(",
    millis!("m.sent_at"),
    ") AS sent_at FROM messages m
WHERE (SELECT n.sent_at > to_timestamp($4 / 1000.0) FROM messages n WHERE n.chat_id = $1 AND n.seq = $3)
    AND m.chat_id = $1 AND m.seq BETWEEN $2 AND $3 AND m.kind = 1 AND m.sent_at > to_timestamp($4 / 1000.0)
GROUP BY m.sender_user"
);

/// Reads the times of last messages that still count if members wait for `wait` after each, as far as they are among the
/// entries up to `upto`, a seq below the head.
pub(super) async fn last_messages(
    db: &mut PgConnection,
    chat: ChatId,
    head: i64,
    upto: i64,
    wait: Duration,
) -> sqlx::Result<HashMap<UserId, Timestamp>> {
    if upto < 1 {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(LAST_MESSAGES)
        .bind(chat.0)
        .bind(head - REACH + 1)
        .bind(upto)
        .bind((Clock::wall() - wait).0)
        .fetch_all(db)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(user, at)| (UserId(user), Timestamp(at)))
        .collect())
}
