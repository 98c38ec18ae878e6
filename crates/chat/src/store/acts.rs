//! Reads how much people have done to messages.

use sqlx::PgConnection;
use tern_types::ChatId;
use uuid::Uuid;

use tern_chat_core::chat::Acts;

/// Selects how often each person ($3) did something of a kind ($4) to a message ($2) of a chat ($1), with the place in
/// the lists. What nobody did is left out.
pub const COUNTS: &str = "
SELECT a.place, n.acts
FROM unnest($2::int8[], $3::uuid[], $4::int2[]) WITH ORDINALITY AS a(target_seq, user_id, kind, place)
CROSS JOIN LATERAL (
    SELECT n.acts FROM act_counts n
    WHERE n.chat_id = $1 AND n.target_seq = a.target_seq AND n.user_id = a.user_id AND n.kind = a.kind LIMIT 1
) AS n";

/// Reads the numbers of these acts. Acts that nobody has done are left out.
pub(crate) async fn counts(
    db: &mut PgConnection,
    chat: ChatId,
    asked: &[Acts],
) -> sqlx::Result<Vec<(Acts, u32)>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let targets: Vec<i64> = asked.iter().map(|acts| acts.target.to_i64()).collect();
    let users: Vec<Uuid> = asked.iter().map(|acts| acts.user.0).collect();
    let kinds: Vec<i16> = asked.iter().map(|acts| acts.kind.number()).collect();
    let counts: Vec<(i64, i32)> = sqlx::query_as(COUNTS)
        .bind(chat.0)
        .bind(targets)
        .bind(users)
        .bind(kinds)
        .fetch_all(db)
        .await?;
    let known = counts.into_iter().filter_map(|(place, count)| {
        let place = usize::try_from(place).ok()?.checked_sub(1)?;
        Some((*asked.get(place)?, u32::try_from(count).unwrap_or(0)))
    });
    Ok(known.collect())
}
