//! Stores who has blocked whom.

use sqlx::Row;
use tern_store::millis;
use tern_types::{Timestamp, UserId};

use super::{Result, Store, Tx};

/// Stores a block. Does nothing if it is stored already.
pub const INSERT: &str = "
INSERT INTO blocks (user_id, blocked_id, blocked_at) VALUES ($1, $2, to_timestamp($3::float8 / 1000))
ON CONFLICT DO NOTHING";

/// Counts the people whom the user has blocked, without $2.
pub const OTHERS: &str = "SELECT count(*) FROM blocks WHERE user_id = $1 AND blocked_id <> $2";

/// Ends a block.
pub const DELETE: &str = "DELETE FROM blocks WHERE user_id = $1 AND blocked_id = $2";

/// Reads a page of blocks, the newest first, and those of the same moment by descending ids. $2 and $3 are the time and
/// the id of the last block of the page before.
pub const PAGE: &str = concat!(
    "SELECT blocked_id, ",
    millis!("blocked_at"),
    " FROM blocks
WHERE user_id = $1
  AND ($2::int8 IS NULL OR (blocked_at, blocked_id) < (to_timestamp($2::float8 / 1000), $3))
ORDER BY blocked_at DESC, blocked_id DESC LIMIT $4"
);

/// The place of a block in the list: the time at which it was made, and the person whom it blocks.
pub type Place = (Timestamp, UserId);

impl Store {
    /// Returns how many people the user has blocked, without `blocked`.
    pub(crate) async fn count_other_blocks(
        &self,
        tx: &mut Tx,
        user: UserId,
        blocked: UserId,
    ) -> Result<usize> {
        let count = sqlx::query_scalar(OTHERS).bind(user.0).bind(blocked.0);
        let count: i64 = count.fetch_one(&mut **tx).await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Stores a block. Both users have to exist. Returns `false` if it was stored already.
    pub(crate) async fn insert_block(
        &self,
        tx: &mut Tx,
        user: UserId,
        blocked: UserId,
        now: Timestamp,
    ) -> Result<bool> {
        let insert = sqlx::query(INSERT).bind(user.0).bind(blocked.0).bind(now.0);
        Ok(insert.execute(&mut **tx).await?.rows_affected() > 0)
    }

    /// Ends a block. Returns `false` if there is none.
    pub(crate) async fn delete_block(&self, tx: &mut Tx, user: UserId, blocked: UserId) -> Result<bool> {
        let delete = sqlx::query(DELETE).bind(user.0).bind(blocked.0);
        Ok(delete.execute(&mut **tx).await?.rows_affected() > 0)
    }

    /// Returns at most `limit` blocks after `after`, the newest first.
    pub async fn blocks(&self, user: UserId, after: Option<Place>, limit: u32) -> Result<Vec<Place>> {
        let rows = sqlx::query(PAGE)
            .bind(user.0)
            .bind(after.map(|(at, _)| at.0))
            .bind(after.map(|(_, id)| id.0))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((Timestamp(row.try_get(1)?), UserId(row.try_get(0)?))))
            .collect()
    }
}
