//! Stores devices. A device is pending (its user's chats do not know it yet), active, or revoked. Accounts nodes insert
//! and revoke devices; chat nodes make them active, in the transaction that adds the device to its user's chats.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_store::millis;
use tern_types::{DeviceId, RequestId, Timestamp, UserId};

use super::{Result, Store, Tx};
use crate::domain::linking::{Asked, Before};

/// A device of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The id of the device.
    pub id: DeviceId,
    /// The user whose device it is.
    pub user: UserId,
    /// The name that the app gave the device.
    pub display_name: String,
    /// The platform, such as "ios".
    pub platform: String,
    /// The time at which it was linked, or at which a retry last resumed its linking.
    pub linked_at: Timestamp,
}

/// Locks a user. Linking runs one at a time for each user, because the number of devices is checked under this lock.
pub const LOCK_USER: &str = "SELECT user_id FROM users WHERE user_id = $1 FOR NO KEY UPDATE";

/// Reads the device that the same request has made before.
pub const BEFORE: &str = concat!(
    "SELECT device_id, display_name, platform, active, revoked_at IS NOT NULL, ",
    millis!("linked_at"),
    " FROM devices WHERE user_id = $1 AND request_id = $2"
);

/// Counts the user's devices, without $2. Pending devices count if they were linked after $3.
pub const OTHERS: &str = "
SELECT count(*) FROM devices
WHERE user_id = $1 AND device_id <> $2 AND revoked_at IS NULL
  AND (active OR linked_at > to_timestamp($3::float8 / 1000))";

/// Deletes the user's devices that are pending since before $2. The chats know nothing of them.
pub const FORGET_PENDING: &str = "
DELETE FROM devices
WHERE user_id = $1 AND NOT active AND revoked_at IS NULL AND linked_at < to_timestamp($2::float8 / 1000)";

/// Inserts a pending device.
pub const INSERT: &str = "
INSERT INTO devices (device_id, user_id, request_id, display_name, platform, linked_at)
VALUES ($1, $2, $3, $4, $5, to_timestamp($6::float8 / 1000))";

/// Restarts the time for which a pending device counts.
pub const RESUME: &str =
    "UPDATE devices SET linked_at = to_timestamp($2::float8 / 1000) WHERE device_id = $1";

/// Reads one device.
pub const SELECT: &str = concat!(
    "SELECT device_id, user_id, display_name, platform, ",
    millis!("linked_at"),
    " FROM devices WHERE device_id = $1"
);

/// Reads a user's active devices, the oldest first.
pub const LIST: &str = concat!(
    "SELECT device_id, user_id, display_name, platform, ",
    millis!("linked_at"),
    " FROM devices WHERE user_id = $1 AND active ORDER BY linked_at, device_id"
);

/// Returns whether a device is active and belongs to a user.
pub const ACTIVE: &str =
    "SELECT EXISTS (SELECT FROM devices WHERE device_id = $1 AND user_id = $2 AND active)";

/// Returns whether a device was revoked.
pub const WAS_REVOKED: &str =
    "SELECT EXISTS (SELECT FROM devices WHERE device_id = $1 AND revoked_at IS NOT NULL)";

/// Revokes a device. This takes effect at once: its refresh tokens are no longer exchanged, and it cannot open a stream
/// any more. It is removed from its user's chats later. The last column says whether the device was revoked by this
/// statement, which is so if it has this statement's time.
pub const REVOKE: &str = "
UPDATE devices SET active = false, revoked_at = coalesce(revoked_at, to_timestamp($3::float8 / 1000))
WHERE device_id = $1 AND ($2::uuid IS NULL OR user_id = $2)
RETURNING user_id, unlinked_at IS NOT NULL, revoked_at = to_timestamp($3::float8 / 1000)";

/// Marks a revocation as finished: the device was removed from its user's chats.
pub const UNLINKED: &str = "
UPDATE devices SET unlinked_at = to_timestamp($2::float8 / 1000)
WHERE device_id = $1 AND revoked_at IS NOT NULL AND unlinked_at IS NULL";

/// Reads at most $2 revocations that began before $1 and are not finished. Each time it reads others, so that those which
/// cannot be finished, however many they are, do not keep the rest from being read.
pub const UNFINISHED: &str = "
SELECT user_id, device_id FROM devices
WHERE revoked_at IS NOT NULL AND unlinked_at IS NULL AND revoked_at < to_timestamp($1::float8 / 1000)
ORDER BY random() LIMIT $2";

/// Reads the devices revoked after $1, the newest first.
pub const RECENTLY_REVOKED: &str = "
SELECT device_id FROM devices WHERE revoked_at IS NOT NULL AND revoked_at > to_timestamp($1::float8 / 1000)
ORDER BY revoked_at DESC LIMIT $2";

/// The most devices that [`RECENTLY_REVOKED`] returns. A platform of ten million users revokes fewer in an
/// hour. Every gateway keeps them in memory, and gets them in one answer of 1.8 MB.
const MAX_RECENTLY_REVOKED: i64 = 100_000;

/// A device that was revoked, either just now or earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The user whose device it is.
    pub user: UserId,
    /// True if the device was removed from its user's chats.
    pub unlinked: bool,
    /// True if it was revoked just now.
    pub now: bool,
}

impl Store {
    /// Locks the user. Returns `false` if there is no such user.
    pub(crate) async fn lock_user(&self, tx: &mut Tx, user: UserId) -> Result<bool> {
        let row = sqlx::query(LOCK_USER)
            .bind(user.0)
            .fetch_optional(&mut **tx)
            .await?;
        Ok(row.is_some())
    }

    /// Returns the device that the same request has made before, or `None` if there is none.
    pub(crate) async fn link_before(
        &self,
        tx: &mut Tx,
        user: UserId,
        request: RequestId,
    ) -> Result<Option<Before>> {
        let row = sqlx::query(BEFORE)
            .bind(user.0)
            .bind(request.0)
            .fetch_optional(&mut **tx)
            .await?;
        row.map(|row| {
            Ok(Before {
                device: DeviceId(row.try_get(0)?),
                asked: Asked {
                    display_name: row.try_get(1)?,
                    platform: row.try_get(2)?,
                },
                active: row.try_get(3)?,
                revoked: row.try_get(4)?,
                linked_at: Timestamp(row.try_get(5)?),
            })
        })
        .transpose()
    }

    /// Returns how many devices the user has, without `device`: active ones, and those that became pending after
    /// `since`.
    pub(crate) async fn count_others(
        &self,
        tx: &mut Tx,
        user: UserId,
        device: Option<DeviceId>,
        since: Timestamp,
    ) -> Result<usize> {
        let device = device.unwrap_or(DeviceId::BACK_END);
        let count = sqlx::query_scalar(OTHERS)
            .bind(user.0)
            .bind(device.0)
            .bind(since.0);
        let count: i64 = count.fetch_one(&mut **tx).await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Deletes the user's devices that are pending since before `before`. The user has to be locked, as chat nodes lock
    /// the user while they make a device active.
    pub(crate) async fn forget_pending(&self, tx: &mut Tx, user: UserId, before: Timestamp) -> Result<()> {
        let forget = sqlx::query(FORGET_PENDING).bind(user.0).bind(before.0);
        forget.execute(&mut **tx).await?;
        Ok(())
    }

    /// Inserts a pending device.
    pub(crate) async fn insert_device(&self, tx: &mut Tx, device: &Device, request: RequestId) -> Result<()> {
        sqlx::query(INSERT)
            .bind(device.id.0)
            .bind(device.user.0)
            .bind(request.0)
            .bind(&device.display_name)
            .bind(&device.platform)
            .bind(device.linked_at.0)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Restarts the time for which the pending device counts, from `now` on.
    pub(crate) async fn resume_device(&self, tx: &mut Tx, device: DeviceId, now: Timestamp) -> Result<()> {
        sqlx::query(RESUME)
            .bind(device.0)
            .bind(now.0)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Returns the device, or `None` if there is no such device.
    pub async fn device(&self, id: DeviceId) -> Result<Option<Device>> {
        let row = sqlx::query(SELECT).bind(id.0).fetch_optional(&self.pool).await?;
        row.map(|row| device(&row)).transpose()
    }

    /// Returns the user's active devices, the oldest first.
    pub async fn devices(&self, user: UserId) -> Result<Vec<Device>> {
        let rows = sqlx::query(LIST).bind(user.0).fetch_all(&self.pool).await?;
        rows.iter().map(device).collect()
    }

    /// Returns whether the device is active and belongs to this user.
    pub(crate) async fn is_active(&self, user: UserId, device: DeviceId) -> Result<bool> {
        Ok(sqlx::query_scalar(ACTIVE)
            .bind(device.0)
            .bind(user.0)
            .fetch_one(&self.pool)
            .await?)
    }

    /// Returns whether the device was revoked. If it was not, and is not active either, it is not known.
    pub(crate) async fn was_revoked(&self, device: DeviceId) -> Result<bool> {
        let revoked = sqlx::query_scalar(WAS_REVOKED).bind(device.0);
        Ok(revoked.fetch_one(&self.pool).await?)
    }

    /// Revokes the device if `of` is `None` or is the device's user. Returns `None` if there is no such device of `of`.
    pub(crate) async fn revoke(
        &self,
        tx: &mut Tx,
        device: DeviceId,
        of: Option<UserId>,
        now: Timestamp,
    ) -> Result<Option<Revoked>> {
        let row = sqlx::query(REVOKE)
            .bind(device.0)
            .bind(of.map(|user| user.0))
            .bind(now.0);
        let row = row.fetch_optional(&mut **tx).await?;
        row.map(|row| {
            Ok(Revoked {
                user: UserId(row.try_get(0)?),
                unlinked: row.try_get(1)?,
                now: row.try_get(2)?,
            })
        })
        .transpose()
    }

    /// Stores that the device was removed from its user's chats.
    pub(crate) async fn set_unlinked(&self, device: DeviceId, now: Timestamp) -> Result<()> {
        sqlx::query(UNLINKED)
            .bind(device.0)
            .bind(now.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Returns the devices revoked after `since`, the newest first, at most 100,000.
    pub(crate) async fn revoked_since(&self, since: Timestamp) -> Result<Vec<DeviceId>> {
        let rows = sqlx::query(RECENTLY_REVOKED)
            .bind(since.0)
            .bind(MAX_RECENTLY_REVOKED)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(DeviceId(row.try_get(0)?))).collect()
    }

    /// Returns at most `limit` devices, chosen at random, that were revoked before `before` and not yet removed from
    /// their users' chats.
    pub(crate) async fn unfinished_revocations(
        &self,
        before: Timestamp,
        limit: i64,
    ) -> Result<Vec<(UserId, DeviceId)>> {
        let rows = sqlx::query(UNFINISHED)
            .bind(before.0)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((UserId(row.try_get(0)?), DeviceId(row.try_get(1)?))))
            .collect()
    }
}

fn device(row: &PgRow) -> Result<Device> {
    Ok(Device {
        id: DeviceId(row.try_get(0)?),
        user: UserId(row.try_get(1)?),
        display_name: row.try_get(2)?,
        platform: row.try_get(3)?,
        linked_at: Timestamp(row.try_get(4)?),
    })
}
