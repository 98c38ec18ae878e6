//! Erases messages whose time to disappear has come.

use sqlx::PgPool;
use tern_store::{millis, postgres};
use tern_types::{ChatId, Seq, Timestamp};
use uuid::Uuid;

use super::erase::{self, Place, belongs, entries};

/// Selects the messages that disappear at the time $1 (milliseconds) or before, the earliest first, at most $2. It
/// leaves out those on which another trimmer works.
pub const DUE: &str = concat!(
    "
SELECT x.chat_id, x.seq, ",
    millis!("x.expires_at"),
    " FROM expiring x WHERE x.expires_at <= to_timestamp($1::int8 / 1000.0)
ORDER BY x.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED"
);

/// Ends that messages ($1, $2) are to disappear, because they have.
pub const END: &str = concat!(
    entries!(),
    " DELETE FROM expiring",
    belongs!("expiring", "e", "r.chat_id = g.chat_id AND r.seq = g.seq")
);

/// The messages that have disappeared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disappeared {
    /// The number of messages.
    pub messages: usize,
    /// The number of bodies: of the messages, and of what was done to them.
    pub erased: u64,
    /// The time at which the first of them was to disappear; `None` if there was none.
    pub since: Option<Timestamp>,
}

/// Erases the messages that are to disappear by `now`, by the wall clock, at most `most`. If there are as many, there
/// may be more. All of it may be done again, and by two trimmers at once.
pub async fn disappear(pool: &PgPool, now: Timestamp, most: i64) -> sqlx::Result<Disappeared> {
    let mut tx = postgres::begin(pool).await?;
    let due: Vec<(Uuid, i64, i64)> = sqlx::query_as(DUE)
        .bind(now.0)
        .bind(most)
        .fetch_all(&mut *tx)
        .await?;
    let Some((.., since)) = due.first().copied() else {
        return Ok(Disappeared::default());
    };
    let places = due
        .iter()
        .map(|(chat, seq, _)| (ChatId(*chat), Seq::from_i64(*seq)));
    let mut places: Vec<Place> = places.collect();
    // Deletions erase in this order too, so that the two wait for each other in one direction only.
    places.sort_unstable();
    let erased = erase::erase(&mut tx, erase::DISAPPEARED, &places).await?;
    let (mut tx, of_acts) = erase::erase_acts(pool, tx, &places).await?;
    let (chats, seqs) = erase::columns(&places);
    sqlx::query(END).bind(chats).bind(seqs).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Disappeared {
        messages: places.len(),
        erased: erased + of_acts,
        since: Some(Timestamp(since)),
    })
}
