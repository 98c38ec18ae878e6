//! This module keeps each user's last seen in Postgres.

use std::collections::HashMap;

use sqlx::{PgPool, Row};
use tern_types::{Timestamp, UserId};

/// The statement that writes each user's time if it is newer than the stored one. Users are locked in the order of
/// their ids, because two nodes may write the same people.
pub(crate) const WRITE: &str = "
    INSERT INTO last_seen (user_id, at)
    SELECT user_id, to_timestamp(at_ms / 1000.0) FROM UNNEST($1::uuid[], $2::int8[]) AS seen (user_id, at_ms)
    ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET at = EXCLUDED.at WHERE last_seen.at < EXCLUDED.at";

/// The query that reads one row for each user that exists. The time is null if the user was never seen.
pub const READ: &str = "
    SELECT user_id, (extract(epoch FROM at) * 1000)::int8 AS at_ms
    FROM users LEFT JOIN last_seen USING (user_id)
    WHERE user_id = ANY($1)";

/// The last seen of all users, in the database.
#[derive(Clone, Debug)]
pub struct LastSeen {
    pool: PgPool,
}

impl LastSeen {
    /// Makes a store that uses the connections of `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Stores each user's time unless a newer one is stored. `Err` if the store is away.
    pub async fn write(&self, seen: &[(UserId, Timestamp)]) -> sqlx::Result<()> {
        let (users, times): (Vec<_>, Vec<_>) = seen.iter().map(|(user, at)| (user.0, at.0)).unzip();
        let write = sqlx::query(WRITE).bind(users).bind(times);
        write.execute(&self.pool).await.map(drop)
    }

    /// Returns the times of those users who exist. The time is zero if the user was never seen. `Err` if the store is
    /// away.
    pub async fn read(&self, users: &[UserId]) -> sqlx::Result<HashMap<UserId, Timestamp>> {
        let ids: Vec<_> = users.iter().map(|user| user.0).collect();
        let rows = sqlx::query(READ).bind(ids).fetch_all(&self.pool).await?;
        let seen = rows.iter().map(|row| {
            let at: Option<i64> = row.try_get("at_ms")?;
            Ok((UserId(row.try_get("user_id")?), Timestamp(at.unwrap_or_default())))
        });
        seen.collect()
    }
}
