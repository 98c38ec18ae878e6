//! Stores the hashes of refresh tokens, which are columns of the device's row.

use sqlx::Row;
use tern_store::millis;
use tern_types::{DeviceId, Timestamp, UserId};

use super::{Result, Store, Tx};
use crate::domain::refresh::{Stored, TokenHash};

/// Locks a device's tokens, so that one exchange runs at a time for each device.
pub const LOCK: &str = concat!(
    "SELECT user_id, active, refresh_rotation, refresh_hash, refresh_previous_hash, ",
    millis!("refresh_issued_at"),
    " FROM devices WHERE device_id = $1 FOR NO KEY UPDATE"
);

/// Stores the hashes of a device's tokens.
pub const SAVE: &str = "
UPDATE devices SET refresh_rotation = $2, refresh_hash = $3, refresh_previous_hash = $4,
                   refresh_issued_at = to_timestamp($5::float8 / 1000)
WHERE device_id = $1";

/// The part of a device that the exchange of its tokens needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTokens {
    /// The user whose device it is.
    pub user: UserId,
    /// True if the device has joined its user's chats and is not revoked.
    pub active: bool,
    /// The hashes of its tokens, or `None` if the device was given no token yet.
    pub stored: Option<Stored>,
}

impl Store {
    /// Locks and returns the device's tokens. Returns `None` if there is no such device.
    pub(crate) async fn lock_tokens(&self, tx: &mut Tx, device: DeviceId) -> Result<Option<DeviceTokens>> {
        let Some(row) = sqlx::query(LOCK).bind(device.0).fetch_optional(&mut **tx).await? else {
            return Ok(None);
        };
        let rotation: i64 = row.try_get(2)?;
        let current: Option<Vec<u8>> = row.try_get(3)?;
        let previous: Option<Vec<u8>> = row.try_get(4)?;
        let issued_at: Option<i64> = row.try_get(5)?;
        let stored = current
            .and_then(hash)
            .zip(issued_at)
            .map(|(current, issued_at)| Stored {
                rotation: rotation.unsigned_abs(),
                current,
                previous: previous.and_then(hash),
                issued_at: Timestamp(issued_at),
            });
        Ok(Some(DeviceTokens {
            user: UserId(row.try_get(0)?),
            active: row.try_get(1)?,
            stored,
        }))
    }

    /// Stores the hashes of the device's tokens.
    pub(crate) async fn save_tokens(&self, tx: &mut Tx, device: DeviceId, stored: &Stored) -> Result<()> {
        sqlx::query(SAVE)
            .bind(device.0)
            .bind(i64::try_from(stored.rotation).unwrap_or(i64::MAX))
            .bind(stored.current.0.as_slice())
            .bind(stored.previous.as_ref().map(|hash| hash.0.as_slice()))
            .bind(stored.issued_at.0)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}

fn hash(bytes: Vec<u8>) -> Option<TokenHash> {
    bytes.try_into().ok().map(TokenHash)
}
