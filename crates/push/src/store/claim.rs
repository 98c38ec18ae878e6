//! Claims pushes that are due.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tern_store::millis;
use tern_types::{ChatId, DeviceId, Timestamp, UserId};
use uuid::Uuid;

use super::StoreClock;

/// The time for which a worker has what it claimed. If it writes nothing until then, because it was killed or the store
/// was away, another one repeats the push. A push takes less time: see [`crate::worker::SEND_BY`].
pub const LEASE: Duration = Duration::from_secs(30);
/// The most due pushes of a cell that are counted: no more is asked of a cell that has fallen behind.
const MAX_COUNTED: i64 = 10_000;

/// Claims the pushes that are due in a cell, at most $1, for $2 milliseconds. The new `push_at` is a whole number of
/// milliseconds, which names the claim from then on. While a row is claimed, its `push_tries` are -1 less the number of
/// tries. So a row that already has a negative number was claimed by a worker that did not finish. The statement waits
/// for no lock.
pub const CLAIM: &str = concat!(
    "
WITH due AS MATERIALIZED (
    SELECT i.chat_id, i.device_id, i.push_tries FROM inbox i
    WHERE i.push_at <= now() ORDER BY i.push_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE inbox i SET push_at = date_trunc('milliseconds', now()) + $2::int8 * interval '1 millisecond',
        push_tries = CASE WHEN d.push_tries < 0 THEN d.push_tries ELSE -1 - d.push_tries END
    FROM due d WHERE i.chat_id = d.chat_id AND i.device_id = d.device_id
    RETURNING i.chat_id, i.device_id, i.user_id, i.push_at, i.push_since, i.push_tries, i.notified_at,
              i.pushed_at, d.push_tries < 0 AS repeated
)
SELECT c.chat_id, c.device_id, c.user_id, c.push_tries, c.notified_at IS NOT NULL AS notified, c.repeated,
       ",
    millis!("c.push_at"),
    " AS claim, ",
    millis!("c.push_since"),
    " AS since, ",
    millis!("c.pushed_at"),
    " AS pushed
FROM claimed c ORDER BY c.push_since"
);

/// Counts the pushes of a cell that are due, up to $1, and selects for how many milliseconds the first of them has
/// been.
pub const DUE: &str = "
SELECT count(*), coalesce((extract(epoch FROM now() - min(d.push_at)) * 1000)::int8, 0)
FROM (SELECT i.push_at FROM inbox i WHERE i.push_at <= now() ORDER BY i.push_at LIMIT $1) d";

/// A push that this worker has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The chat.
    pub chat: ChatId,
    /// The device, or the reserved id of a user without one.
    pub device: DeviceId,
    /// The device's user.
    pub user: UserId,
    /// The time at which the claim runs out, which is also its name.
    pub claim: Timestamp,
    /// The time since which the push is due.
    pub since: Timestamp,
    /// When the last push of the row was sent, or found to have nobody to go to.
    pub pushed: Option<Timestamp>,
    /// How often it was tried in vain.
    pub tries: u32,
    /// True if a notification of the chat is shown on the device.
    pub notified: bool,
    /// True if another worker had claimed it, and did not write what became of it.
    pub repeated: bool,
}

impl Claimed {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let claim = Timestamp(row.try_get("claim")?);
        let since: Option<i64> = row.try_get("since")?;
        let tries = -1 - i32::from(row.try_get::<i16, _>("push_tries")?);
        Ok(Self {
            chat: ChatId(row.try_get::<Uuid, _>("chat_id")?),
            device: DeviceId(row.try_get::<Uuid, _>("device_id")?),
            user: UserId(row.try_get::<Uuid, _>("user_id")?),
            claim,
            since: since.map_or(claim - LEASE, Timestamp),
            pushed: row.try_get::<Option<i64>, _>("pushed")?.map(Timestamp),
            tries: u32::try_from(tries).unwrap_or(0),
            notified: row.try_get("notified")?,
            repeated: row.try_get("repeated")?,
        })
    }
}

/// The pushes that one worker claimed at once, the longest due first, and the clock of the store.
#[derive(Debug)]
pub struct Batch {
    /// The pushes.
    pub rows: Vec<Claimed>,
    /// The clock.
    pub clock: StoreClock,
}

/// Claims pushes that are due in the cell with this pool, at most `most`. Returns `None` if there are none.
pub async fn claim(pool: &PgPool, most: u32) -> sqlx::Result<Option<Batch>> {
    let lease = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
    let rows = sqlx::query(CLAIM)
        .bind(i64::from(most))
        .bind(lease)
        .fetch_all(pool)
        .await?;
    let rows = rows
        .iter()
        .map(Claimed::from_row)
        .collect::<sqlx::Result<Vec<_>>>()?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let clock = StoreClock::showing(first.claim - LEASE);
    Ok(Some(Batch { rows, clock }))
}

/// Returns how many pushes are due in the cell with this pool, of which no more than ten thousand are counted, and for
/// how long the first of them has been.
pub async fn due(pool: &PgPool) -> sqlx::Result<(u64, Duration)> {
    let (count, age): (i64, i64) = sqlx::query_as(DUE).bind(MAX_COUNTED).fetch_one(pool).await?;
    let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
    Ok((u64::try_from(count).unwrap_or(0), age))
}
