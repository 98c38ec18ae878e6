//! Stores where devices get their pushes. Push nodes read it, and end tokens that their providers do not know any more.
//!
//! The row of the device is locked while its token is set, as it is by a revocation. So a device that is revoked has no
//! token.

use tern_types::{DeviceId, Timestamp, UserId};

use super::{Result, Store, Tx};
use crate::domain::push_tokens::{NAMED_AGAIN_AFTER, PushToken};

/// Locks a device if it is active.
pub const LOCK: &str =
    "SELECT device_id FROM devices WHERE device_id = $1 AND user_id = $2 AND active FOR NO KEY UPDATE";

/// Deletes the token of a device if it is not the token $4 of the provider $2 for the app $3.
pub const FORGET_OTHER: &str =
    "DELETE FROM push_tokens WHERE device_id = $1 AND (provider, app, token) <> ($2, $3, $4)";

/// Stores the token of a device that has no other one. A token that another device had becomes this one's, because that
/// device is the same phone before its person signed out. A token that the device has named before keeps the time at
/// which it first did so, and unless its sealing key is another one the row is left as it is if the device has named it
/// after $11. All functions are immutable, as Citus demands it.
pub const SET: &str = "
INSERT INTO push_tokens AS known (device_id, user_id, provider, app, sandbox, token, second_key, auth, sealing_key,
                                  registered_at, named_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,
        to_timestamp($10::float8 / 1000), to_timestamp($10::float8 / 1000))
ON CONFLICT (provider, app, sha256(token)) DO UPDATE
SET device_id = excluded.device_id, user_id = excluded.user_id, sandbox = excluded.sandbox,
    second_key = excluded.second_key, auth = excluded.auth, sealing_key = excluded.sealing_key,
    registered_at = CASE
        WHEN (known.device_id, known.sandbox, known.second_key, known.auth)
             IS DISTINCT FROM (excluded.device_id, excluded.sandbox, excluded.second_key, excluded.auth)
        THEN excluded.registered_at ELSE known.registered_at END,
    named_at = excluded.named_at
WHERE (known.device_id, known.sandbox, known.second_key, known.auth, known.sealing_key)
      IS DISTINCT FROM
      (excluded.device_id, excluded.sandbox, excluded.second_key, excluded.auth, excluded.sealing_key)
   OR known.named_at <= to_timestamp($11::float8 / 1000)";

/// Deletes the token of a device.
pub const FORGET: &str = "DELETE FROM push_tokens WHERE device_id = $1";

impl Store {
    /// Locks the device. Returns `false` if it is not active, or belongs to another user.
    pub(crate) async fn lock_device(&self, tx: &mut Tx, user: UserId, device: DeviceId) -> Result<bool> {
        let lock = sqlx::query(LOCK).bind(device.0).bind(user.0);
        Ok(lock.fetch_optional(&mut **tx).await?.is_some())
    }

    /// Stores the device's token in place of the one that it had, and takes it from another device that had the same.
    /// The device has to be locked.
    pub(crate) async fn set_push_token(
        &self,
        tx: &mut Tx,
        user: UserId,
        device: DeviceId,
        token: &PushToken,
        now: Timestamp,
    ) -> Result<()> {
        let provider = token.provider as i16;
        let forget = sqlx::query(FORGET_OTHER)
            .bind(device.0)
            .bind(provider)
            .bind(&token.app)
            .bind(token.token.as_slice());
        forget.execute(&mut **tx).await?;
        let set = sqlx::query(SET)
            .bind(device.0)
            .bind(user.0)
            .bind(provider)
            .bind(&token.app)
            .bind(token.sandbox)
            .bind(token.token.as_slice())
            .bind(token.second_key.as_deref())
            .bind(token.auth.as_deref())
            .bind(token.sealing_key.as_deref())
            .bind(now.0)
            .bind((now - NAMED_AGAIN_AFTER).0);
        set.execute(&mut **tx).await?;
        Ok(())
    }

    /// Deletes the device's token, if it has one.
    pub(crate) async fn forget_push_token(&self, tx: &mut Tx, device: DeviceId) -> Result<()> {
        sqlx::query(FORGET).bind(device.0).execute(&mut **tx).await?;
        Ok(())
    }
}
