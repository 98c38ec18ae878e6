//! Reads and locks what the store knows of people: users, devices, blocks, contacts.
//!
//! No statement names both a table of people and a table of chats, because the two may be on different
//! machines. A question about both takes two statements: the first is about people, and the second about
//! chats.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, PgExecutor, PgPool};
use tern_store::millis;
use tern_types::{DeviceId, Timestamp, UserId};
use uuid::Uuid;

/// Selects the users among $1 who exist, whether they are locked or not.
pub const EXISTING: &str = "SELECT user_id FROM users WHERE user_id = ANY($1)";

/// Locks users in share mode against linking (`devices::LOCK_USER`). Adding a member and linking a device thereby
/// exclude each other, so that neither misses the other.
pub const SHARE: &str = "SELECT user_id FROM users WHERE user_id = ANY($1) ORDER BY user_id FOR SHARE";

/// Locks users as [`SHARE`] does, but leaves out those that another transaction has locked. A user whose device is being
/// linked to thousands of chats must not delay others who want to make chats.
pub const SHARE_FREE: &str =
    "SELECT user_id FROM users WHERE user_id = ANY($1) ORDER BY user_id FOR SHARE SKIP LOCKED";

/// Selects the active devices of users ($1).
pub const DEVICES: &str =
    "SELECT user_id, device_id FROM devices WHERE user_id = ANY($1) AND active ORDER BY user_id, device_id";

/// Selects the active devices among $1, each once, with their users' settings.
pub const ACTIVE: &str = "
SELECT d.device_id, d.user_id, u.read_receipts_off, u.suspended_at IS NOT NULL
FROM devices d JOIN users u ON u.user_id = d.user_id
WHERE d.device_id = ANY($1) AND d.active ORDER BY d.device_id";

/// Selects the users among $1 who are suspended.
pub(crate) const SUSPENDED: &str =
    "SELECT user_id FROM users WHERE user_id = ANY($1) AND suspended_at IS NOT NULL";

/// Selects what the store knows of devices ($1).
pub(crate) const DESCRIBED: &str = concat!(
    "SELECT device_id, display_name, active, ",
    millis!("linked_at"),
    " FROM devices WHERE device_id = ANY($1)"
);

/// Selects the devices among $1 that were revoked.
pub const REVOKED: &str =
    "SELECT device_id FROM devices WHERE device_id = ANY($1) AND revoked_at IS NOT NULL";

/// Selects whether a user turned read receipts off, for callers without a session that knows it.
pub const READ_RECEIPTS_OFF: &str = "SELECT read_receipts_off FROM users WHERE user_id = $1";

/// Selects the users among $2 who have blocked the user $1.
pub const BLOCKERS: &str = "SELECT user_id FROM blocks WHERE user_id = ANY($2) AND blocked_id = $1";

/// Selects the pairs ($1, $2) in which one of the two has blocked the other.
pub const BLOCKED: &str = "
SELECT p.one, p.other FROM unnest($1::uuid[], $2::uuid[]) AS p(one, other)
CROSS JOIN LATERAL (
    (SELECT b.user_id FROM blocks b WHERE b.user_id = p.one AND b.blocked_id = p.other LIMIT 1)
    UNION ALL
    (SELECT b.user_id FROM blocks b WHERE b.user_id = p.other AND b.blocked_id = p.one LIMIT 1)
    LIMIT 1
) AS blocked";

/// Selects the pairs ($1, $2) in which the second person exists and does not have the first among their contacts.
pub const NO_CONTACTS: &str = "
SELECT p.one, p.other FROM unnest($1::uuid[], $2::uuid[]) AS p(one, other)
WHERE EXISTS (SELECT FROM users WHERE user_id = p.other)
  AND NOT EXISTS (SELECT FROM contacts WHERE user_id = p.other AND contact_id = p.one)";

/// Locks the users against linking until the transaction ends. `Some` is a user who does not exist.
pub async fn share(db: &mut PgConnection, users: &[UserId]) -> sqlx::Result<Option<UserId>> {
    let found: Vec<Uuid> = sqlx::query_scalar(SHARE).bind(ids(users)).fetch_all(db).await?;
    let found: HashSet<Uuid> = found.into_iter().collect();
    Ok(users.iter().copied().find(|user| !found.contains(&user.0)))
}

/// Locks the users against linking, and waits for nobody. Returns those that are locked now, and those that exist but
/// are locked by another transaction.
pub(crate) async fn share_free(
    db: &mut PgConnection,
    users: HashSet<UserId>,
) -> sqlx::Result<(HashSet<UserId>, HashSet<UserId>)> {
    let mut ids: Vec<Uuid> = users.into_iter().map(|user| user.0).collect();
    let free: Vec<Uuid> = sqlx::query_scalar(SHARE_FREE)
        .bind(&ids)
        .fetch_all(&mut *db)
        .await?;
    let free: HashSet<UserId> = free.into_iter().map(UserId).collect();
    ids.retain(|id| !free.contains(&UserId(*id)));
    if ids.is_empty() {
        return Ok((free, HashSet::new()));
    }
    let locked: Vec<Uuid> = sqlx::query_scalar(EXISTING).bind(ids).fetch_all(db).await?;
    Ok((free, locked.into_iter().map(UserId).collect()))
}

/// The active devices of some users.
#[derive(Debug, Default)]
pub struct Devices(HashMap<Uuid, Vec<String>>);

impl Devices {
    /// Returns the user's devices as the text of a Postgres array.
    pub(crate) fn array(&self, user: UserId) -> String {
        let devices = self.0.get(&user.0).map_or(String::new(), |ids| ids.join(","));
        format!("{{{devices}}}")
    }
}

/// Reads the active devices of the users, who must be locked by [`share`] or [`share_free`]: a device that is linked
/// later waits for the transaction, and then finds the chats that it made or changed. The lock and this are two
/// statements, since a statement that waited for the lock would not see what was linked meanwhile (fine print 11).
pub async fn devices(
    db: &mut PgConnection,
    users: impl IntoIterator<Item = UserId>,
) -> sqlx::Result<Devices> {
    let users: Vec<Uuid> = users.into_iter().map(|user| user.0).collect();
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(DEVICES).bind(users).fetch_all(db).await?;
    let mut devices = Devices::default();
    for (user, device) in rows {
        devices.0.entry(user).or_default().push(device.to_string());
    }
    Ok(devices)
}

/// An active device.
#[derive(Debug, Clone, Copy)]
pub struct Active {
    /// The device.
    pub device: DeviceId,
    /// The device's user.
    pub user: UserId,
    /// True if the user turned read receipts off.
    pub read_receipts_off: bool,
    /// True if the user is suspended.
    pub suspended: bool,
}

/// Returns the active devices among `devices`.
pub(crate) async fn active(pool: &PgPool, devices: &[DeviceId]) -> sqlx::Result<Vec<Active>> {
    let ids: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
    let rows: Vec<(Uuid, Uuid, bool, bool)> = sqlx::query_as(ACTIVE).bind(ids).fetch_all(pool).await?;
    let active = rows
        .into_iter()
        .map(|(device, user, read_receipts_off, suspended)| Active {
            device: DeviceId(device),
            user: UserId(user),
            read_receipts_off,
            suspended,
        });
    Ok(active.collect())
}

/// Returns the users among `users` who are suspended.
pub(crate) async fn suspended(
    db: &mut PgConnection,
    users: impl Iterator<Item = UserId>,
) -> sqlx::Result<HashSet<UserId>> {
    let users: Vec<Uuid> = users.map(|user| user.0).collect();
    let suspended: Vec<Uuid> = sqlx::query_scalar(SUSPENDED).bind(users).fetch_all(db).await?;
    Ok(suspended.into_iter().map(UserId).collect())
}

/// A device as operators are shown it.
#[derive(Debug)]
pub(crate) struct Described {
    /// The name that the app gave the device.
    pub name: String,
    /// True if the user's chats know the device, which ends when it is revoked.
    pub active: bool,
    /// The time at which the device was linked.
    pub linked_at: Timestamp,
}

/// Describes those of the devices that exist.
pub(crate) async fn described(
    db: &mut PgConnection,
    devices: impl Iterator<Item = DeviceId>,
) -> sqlx::Result<HashMap<DeviceId, Described>> {
    let devices: Vec<Uuid> = devices.map(|device| device.0).collect();
    let rows: Vec<(Uuid, String, bool, i64)> = sqlx::query_as(DESCRIBED).bind(devices).fetch_all(db).await?;
    let described = |(device, name, active, linked_at)| {
        let described = Described {
            name,
            active,
            linked_at: Timestamp(linked_at),
        };
        (DeviceId(device), described)
    };
    Ok(rows.into_iter().map(described).collect())
}

/// Returns those of these devices that were revoked. A device that is neither active nor revoked is unknown
/// to the store: it was linked after the backup that the store was restored from.
pub async fn revoked(pool: &PgPool, devices: &[DeviceId]) -> sqlx::Result<Vec<DeviceId>> {
    let ids: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
    let revoked: Vec<Uuid> = sqlx::query_scalar(REVOKED).bind(ids).fetch_all(pool).await?;
    Ok(revoked.into_iter().map(DeviceId).collect())
}

/// Returns whether the user turned read receipts off; `None` if there is no such user.
pub async fn read_receipts_off(pool: &PgPool, user: UserId) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar(READ_RECEIPTS_OFF)
        .bind(user.0)
        .fetch_optional(pool)
        .await
}

/// Returns the users among `people` who have blocked `user`.
pub(crate) async fn blockers(
    db: &mut PgConnection,
    user: UserId,
    people: &[UserId],
) -> sqlx::Result<HashSet<UserId>> {
    let blockers = sqlx::query_scalar(BLOCKERS).bind(user.0).bind(ids(people));
    let blockers: Vec<Uuid> = blockers.fetch_all(db).await?;
    Ok(blockers.into_iter().map(UserId).collect())
}

/// Returns the pairs in which one of the two has blocked the other.
pub(crate) async fn blocked(
    db: impl PgExecutor<'_>,
    pairs: &[(UserId, UserId)],
) -> sqlx::Result<HashSet<(UserId, UserId)>> {
    select_pairs(db, BLOCKED, pairs).await
}

/// Returns the pairs in which the second person exists and does not have the first among their contacts.
pub(crate) async fn no_contacts(
    db: impl PgExecutor<'_>,
    pairs: &[(UserId, UserId)],
) -> sqlx::Result<HashSet<(UserId, UserId)>> {
    select_pairs(db, NO_CONTACTS, pairs).await
}

async fn select_pairs(
    db: impl PgExecutor<'_>,
    statement: &'static str,
    pairs: &[(UserId, UserId)],
) -> sqlx::Result<HashSet<(UserId, UserId)>> {
    if pairs.is_empty() {
        return Ok(HashSet::new());
    }
    let (one, other): (Vec<Uuid>, Vec<Uuid>) = pairs.iter().map(|(one, other)| (one.0, other.0)).unzip();
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(statement)
        .bind(one)
        .bind(other)
        .fetch_all(db)
        .await?;
    let found = rows.into_iter().map(|(one, other)| (UserId(one), UserId(other)));
    Ok(found.collect())
}

fn ids(people: &[UserId]) -> Vec<Uuid> {
    people.iter().map(|user| user.0).collect()
}
