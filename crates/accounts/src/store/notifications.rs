//! Stores when users are notified. A user without a row has the default settings.

use sqlx::Row;
use tern_types::UserId;

use super::{Result, Store, Tx};
use crate::domain::notifications::{Notifications, QuietHours};

/// Reads a user's settings.
pub const SELECT: &str = "
SELECT n.quiet_from, n.quiet_to, n.time_zone
FROM users u LEFT JOIN notification_settings n ON n.user_id = u.user_id WHERE u.user_id = $1";

/// Replaces a user's settings if they are other ones.
pub const SET: &str = "
INSERT INTO notification_settings AS known (user_id, quiet_from, quiet_to, time_zone) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id) DO UPDATE
SET quiet_from = excluded.quiet_from, quiet_to = excluded.quiet_to, time_zone = excluded.time_zone
WHERE (known.quiet_from, known.quiet_to, known.time_zone)
      IS DISTINCT FROM (excluded.quiet_from, excluded.quiet_to, excluded.time_zone)";

/// Gives a user the default settings.
pub const CLEAR: &str = "DELETE FROM notification_settings WHERE user_id = $1";

impl Store {
    /// Returns the user's settings, or `None` if there is no such user.
    pub async fn notifications(&self, user: UserId) -> Result<Option<Notifications>> {
        let row = sqlx::query(SELECT)
            .bind(user.0)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let (from, to): (Option<i16>, Option<i16>) = (row.try_get(0)?, row.try_get(1)?);
        let time_zone: Option<String> = row.try_get(2)?;
        let quiet_hours = from
            .zip(to)
            .zip(time_zone)
            .map(|((from, to), time_zone)| QuietHours { from, to, time_zone });
        Ok(Some(Notifications { quiet_hours }))
    }

    /// Replaces the user's settings. The user has to exist. Returns `false` if they are these already.
    pub(crate) async fn set_notifications(
        &self,
        tx: &mut Tx,
        user: UserId,
        settings: &Notifications,
    ) -> Result<bool> {
        let done = match &settings.quiet_hours {
            Some(hours) => {
                let set = sqlx::query(SET)
                    .bind(user.0)
                    .bind(hours.from)
                    .bind(hours.to)
                    .bind(&hours.time_zone);
                set.execute(&mut **tx).await?
            }
            None => sqlx::query(CLEAR).bind(user.0).execute(&mut **tx).await?,
        };
        Ok(done.rows_affected() > 0)
    }
}
