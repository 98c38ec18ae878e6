//! Reads users and devices as operators see them, and stores suspensions.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_store::millis;
use tern_types::{DeviceId, Timestamp, UserId};

use super::devices::Device;
use super::users::{User, picture, user};
use super::{Result, Store, Tx};

/// A user, and the time since which the user is suspended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user: User,
    /// The time at which the user was suspended, or `None` if the user is not suspended.
    pub suspended_at: Option<Timestamp>,
}

/// A device in any state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyDevice {
    /// The device.
    pub device: Device,
    /// True if the device has joined its user's chats and is not revoked.
    pub active: bool,
    /// The time at which the device was revoked, or `None` if it was not.
    pub revoked_at: Option<Timestamp>,
    /// The time at which the device's present refresh token was made, or `None` if it has none.
    pub tokens_issued_at: Option<Timestamp>,
}

macro_rules! account {
    ($rest:literal) => {
        concat!(
            "SELECT user_id, external_id, display_name, ",
            millis!("created_at"),
            picture!(),
            ", ",
            millis!("suspended_at"),
            " FROM users ",
            $rest
        )
    };
}

/// Reads a page of all users, beginning after the id $1.
pub const PAGE: &str = account!("WHERE user_id > $1 ORDER BY user_id LIMIT $2");

/// Reads a page of suspended users, beginning after the id $1. Suspended users are few, so they are found by an index
/// of their own and then sorted.
pub(crate) const SUSPENDED_PAGE: &str =
    account!("WHERE suspended_at IS NOT NULL AND user_id > $1 ORDER BY user_id LIMIT $2");

/// Reads one user by either id.
pub const ONE: &str = account!("WHERE user_id = $1 OR external_id = $2");

/// Reads all devices of a user, the newest first.
pub const ALL_DEVICES: &str = concat!(
    "SELECT device_id, user_id, display_name, platform, ",
    millis!("linked_at"),
    ", active, ",
    millis!("revoked_at"),
    ", ",
    millis!("refresh_issued_at"),
    " FROM devices WHERE user_id = $1 ORDER BY linked_at DESC, device_id"
);

/// Suspends a user who is not suspended. The statement waits for the lock of the user's row, which a transaction that
/// begins to link a device holds while it checks for a suspension. So a new device is either inserted before the
/// suspension, or refused.
pub(crate) const SUSPEND: &str = "
UPDATE users SET suspended_at = to_timestamp($2::float8 / 1000) WHERE user_id = $1 AND suspended_at IS NULL";

/// Ends the suspension of a user who is suspended.
pub(crate) const RESUME: &str =
    "UPDATE users SET suspended_at = NULL WHERE user_id = $1 AND suspended_at IS NOT NULL";

/// Returns whether a user is suspended.
pub const IS_SUSPENDED: &str = "SELECT suspended_at IS NOT NULL FROM users WHERE user_id = $1";

/// Reads the users suspended after $1, the newest first.
pub const RECENTLY_SUSPENDED: &str = "
SELECT user_id FROM users WHERE suspended_at IS NOT NULL AND suspended_at > to_timestamp($1::float8 / 1000)
ORDER BY suspended_at DESC LIMIT $2";

/// The most users that [`RECENTLY_SUSPENDED`] returns. An operator suspends fewer in an hour. Every gateway
/// keeps them in memory.
const MAX_RECENT: i64 = 10_000;

impl Store {
    /// Returns at most `limit` users with ids above `after`, in the order of their ids.
    pub async fn accounts(&self, after: UserId, limit: u32, suspended_only: bool) -> Result<Vec<Account>> {
        let page = if suspended_only { SUSPENDED_PAGE } else { PAGE };
        let rows = sqlx::query(page).bind(after.0).bind(i64::from(limit));
        let rows = rows.fetch_all(&self.pool).await?;
        rows.iter().map(account).collect()
    }

    /// Returns the user with either of these ids, or `None` if there is none.
    pub async fn account(&self, user: Option<UserId>, external_id: Option<&str>) -> Result<Option<Account>> {
        let row = sqlx::query(ONE).bind(user.map(|user| user.0)).bind(external_id);
        let row = row.fetch_optional(&self.pool).await?;
        row.map(|row| account(&row)).transpose()
    }

    /// Returns all devices of the user, including revoked ones, the newest first.
    pub(crate) async fn all_devices(&self, user: UserId) -> Result<Vec<AnyDevice>> {
        let rows = sqlx::query(ALL_DEVICES)
            .bind(user.0)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(any_device).collect()
    }

    /// Suspends the user. Returns `false` if the user is suspended already, or there is no such user.
    pub async fn suspend(&self, user: UserId, now: Timestamp) -> Result<bool> {
        let done = sqlx::query(SUSPEND)
            .bind(user.0)
            .bind(now.0)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends the user's suspension. Returns `false` if the user is not suspended, or there is no such user.
    pub async fn resume(&self, user: UserId) -> Result<bool> {
        let done = sqlx::query(RESUME).bind(user.0).execute(&self.pool).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Returns whether the user is suspended, or `false` if there is no such user.
    pub(crate) async fn is_suspended(&self, tx: &mut Tx, user: UserId) -> Result<bool> {
        let row: Option<bool> = sqlx::query_scalar(IS_SUSPENDED)
            .bind(user.0)
            .fetch_optional(&mut **tx)
            .await?;
        Ok(row.unwrap_or(false))
    }

    /// Returns the users suspended after `since`, the newest first, at most 10,000.
    pub(crate) async fn suspended_since(&self, since: Timestamp) -> Result<Vec<UserId>> {
        let rows = sqlx::query(RECENTLY_SUSPENDED)
            .bind(since.0)
            .bind(MAX_RECENT)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(UserId(row.try_get(0)?))).collect()
    }
}

fn account(row: &PgRow) -> Result<Account> {
    Ok(Account {
        user: user(row)?,
        suspended_at: row.try_get::<Option<i64>, _>(5)?.map(Timestamp),
    })
}

fn any_device(row: &PgRow) -> Result<AnyDevice> {
    Ok(AnyDevice {
        device: Device {
            id: DeviceId(row.try_get(0)?),
            user: UserId(row.try_get(1)?),
            display_name: row.try_get(2)?,
            platform: row.try_get(3)?,
            linked_at: Timestamp(row.try_get(4)?),
        },
        active: row.try_get(5)?,
        revoked_at: row.try_get::<Option<i64>, _>(6)?.map(Timestamp),
        tokens_issued_at: row.try_get::<Option<i64>, _>(7)?.map(Timestamp),
    })
}
