//! Stores changes of accounts of which the users' own logs do not have the entries yet. Their times are the database's,
//! with which alone they are compared. Chat nodes also write such rows, when they link a device.

use std::time::Duration;

use sqlx::Row;
use tern_types::{RequestId, UserId};
use uuid::Uuid;

use super::{Result, Store, Tx};

/// Notes a change of the user's account, after the user's other ones. Inserts no row if $4 of them wait already.
pub const NOTE: &str = "
INSERT INTO own_log_outbox (user_id, request_id, number, content)
SELECT $1::uuid, $2::uuid, coalesce(max(o.number), 0) + 1, $3::bytea
FROM own_log_outbox o WHERE o.user_id = $1 HAVING count(*) < $4";

/// Reads the first $2 of the changes that wait for the user's own log, in their order.
pub const WAITING: &str =
    "SELECT request_id, content FROM own_log_outbox WHERE user_id = $1 ORDER BY number LIMIT $2";

/// Deletes a change that the own log has.
pub const TOLD: &str = "DELETE FROM own_log_outbox WHERE user_id = $1 AND request_id = $2";

/// Takes at most $2 of the changes that have waited for $1 seconds, and returns their users. Others do not take them for
/// as long again.
pub const TAKE: &str = "
WITH due AS MATERIALIZED (
    SELECT user_id, request_id FROM own_log_outbox WHERE since <= now() - make_interval(secs => $1)
    ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE own_log_outbox o SET since = now() FROM due d
WHERE o.user_id = d.user_id AND o.request_id = d.request_id RETURNING o.user_id";

impl Store {
    /// Notes a change of the user's account. Returns `false`, and notes nothing, if `most` changes of the user wait
    /// already. Of two changes that are noted at the same time while the user is not locked, either may be told first.
    pub(crate) async fn note(
        &self,
        tx: &mut Tx,
        user: UserId,
        request: RequestId,
        content: Vec<u8>,
        most: i64,
    ) -> Result<bool> {
        let note = sqlx::query(NOTE)
            .bind(user.0)
            .bind(request.0)
            .bind(content)
            .bind(most);
        Ok(note.execute(&mut **tx).await?.rows_affected() > 0)
    }

    /// Returns the first `limit` changes that wait for the user's own log, each with its request_id.
    pub(crate) async fn waiting(&self, user: UserId, limit: i64) -> Result<Vec<(RequestId, Vec<u8>)>> {
        let rows = sqlx::query(WAITING).bind(user.0).bind(limit);
        let rows = rows.fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| Ok((RequestId(row.try_get(0)?), row.try_get(1)?)))
            .collect()
    }

    /// Forgets a change that the user's own log has.
    pub(crate) async fn told(&self, user: UserId, request: RequestId) -> Result<()> {
        let told = sqlx::query(TOLD).bind(user.0).bind(request.0);
        told.execute(&self.pool).await?;
        Ok(())
    }

    /// Takes at most `limit` changes that have waited for at least `age`, and returns their users, each once.
    pub(crate) async fn take_waiting(&self, age: Duration, limit: i64) -> Result<Vec<UserId>> {
        let users = sqlx::query_scalar(TAKE).bind(age.as_secs_f64()).bind(limit);
        let mut users: Vec<Uuid> = users.fetch_all(&self.pool).await?;
        users.sort_unstable();
        users.dedup();
        Ok(users.into_iter().map(UserId).collect())
    }
}
