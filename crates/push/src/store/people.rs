//! Reads the tables of people: devices with their tokens, users, blocks and names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tern_push_core::facts::Recipient;
use tern_push_core::quiet::QuietHours;
use tern_store::millis;
use tern_types::{DeviceId, Timestamp, UserId};
use uuid::Uuid;

use crate::provider::{Provider, Token};

/// Selects devices ($1) with their users, tokens and quiet hours.
pub const DEVICES: &str = concat!(
    "
SELECT w.device_id, d.user_id, d.active, u.suspended_at IS NOT NULL AS suspended,
       q.quiet_from, q.quiet_to, q.time_zone,
       t.provider, t.app, t.sandbox, t.token, t.second_key, t.auth, t.sealing_key, ",
    millis!("t.registered_at"),
    " AS registered_at
FROM unnest($1::uuid[]) AS w(device_id)
CROSS JOIN LATERAL (SELECT d.user_id, d.active FROM devices d WHERE d.device_id = w.device_id LIMIT 1) d
CROSS JOIN LATERAL (SELECT u.suspended_at FROM users u WHERE u.user_id = d.user_id LIMIT 1) u
LEFT JOIN LATERAL (
    SELECT t.provider, t.app, t.sandbox, t.token, t.second_key, t.auth, t.sealing_key, t.registered_at
    FROM push_tokens t WHERE t.device_id = w.device_id LIMIT 1
) t ON true
LEFT JOIN LATERAL (
    SELECT q.quiet_from, q.quiet_to, q.time_zone FROM notification_settings q WHERE q.user_id = d.user_id LIMIT 1
) q ON true"
);

/// Selects the pairs ($1, $2) of which the first person has blocked the second.
pub const BLOCKED: &str = "
SELECT p.user_id, p.sender FROM unnest($1::uuid[], $2::uuid[]) AS p(user_id, sender)
CROSS JOIN LATERAL (
    SELECT FROM blocks b WHERE b.user_id = p.user_id AND b.blocked_id = p.sender LIMIT 1
) b";

/// Selects the names of users ($1).
pub const NAMES: &str = "
SELECT w.user_id, u.display_name FROM unnest($1::uuid[]) AS w(user_id)
CROSS JOIN LATERAL (SELECT u.display_name FROM users u WHERE u.user_id = w.user_id LIMIT 1) u";

/// A device, and how its user wants to be notified.
#[derive(Debug, Clone)]
pub struct Device {
    /// The device's user.
    pub user: UserId,
    /// The facts that say whether something can be pushed to it.
    pub recipient: Recipient,
    /// The device's push token.
    pub token: Option<Arc<Token>>,
    /// The user's quiet hours.
    pub quiet: Option<QuietHours>,
}

/// Reads those of these devices that exist.
pub async fn devices(pool: &PgPool, devices: &HashSet<DeviceId>) -> sqlx::Result<HashMap<DeviceId, Device>> {
    let ids: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
    let rows = sqlx::query(DEVICES).bind(ids).fetch_all(pool).await?;
    rows.iter().map(device).collect()
}

fn device(row: &PgRow) -> sqlx::Result<(DeviceId, Device)> {
    let token = token(row)?;
    let minute = |column: &str| -> sqlx::Result<Option<u16>> {
        let minute: Option<i16> = row.try_get(column)?;
        Ok(minute.and_then(|minute| u16::try_from(minute).ok()))
    };
    let (from, to) = (minute("quiet_from")?, minute("quiet_to")?);
    let quiet = match (from, to, row.try_get::<Option<String>, _>("time_zone")?) {
        (Some(from_minute), Some(to_minute), Some(time_zone)) => Some(QuietHours {
            from_minute,
            to_minute,
            time_zone,
        }),
        _ => None,
    };
    let recipient = Recipient {
        active: row.try_get("active")?,
        suspended: row.try_get("suspended")?,
        has_token: token.is_some(),
    };
    let device = Device {
        user: UserId(row.try_get::<Uuid, _>("user_id")?),
        recipient,
        token: token.map(Arc::new),
        quiet,
    };
    Ok((DeviceId(row.try_get::<Uuid, _>("device_id")?), device))
}

/// Reads the token of a device. Returns `None` if it has none, or one of a provider that this version does not know.
fn token(row: &PgRow) -> sqlx::Result<Option<Token>> {
    let number: Option<i16> = row.try_get("provider")?;
    let Some(provider) = number.and_then(Provider::from_number) else {
        return Ok(None);
    };
    let bytes = |column: &str| -> sqlx::Result<Option<bytes::Bytes>> {
        let bytes: Option<Vec<u8>> = row.try_get(column)?;
        Ok(bytes.map(Into::into))
    };
    Ok(Some(Token {
        provider,
        app: row.try_get("app")?,
        sandbox: row.try_get("sandbox")?,
        token: bytes("token")?.unwrap_or_default(),
        second_key: bytes("second_key")?,
        auth: bytes("auth")?,
        sealing_key: bytes("sealing_key")?,
        registered_at: Timestamp(row.try_get("registered_at")?),
    }))
}

/// Returns those of the pairs in which the first person has blocked the second.
pub async fn blocked(
    pool: &PgPool,
    pairs: &HashSet<(UserId, UserId)>,
) -> sqlx::Result<HashSet<(UserId, UserId)>> {
    if pairs.is_empty() {
        return Ok(HashSet::new());
    }
    let (users, senders): (Vec<Uuid>, Vec<Uuid>) =
        pairs.iter().map(|(user, sender)| (user.0, sender.0)).unzip();
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(BLOCKED)
        .bind(users)
        .bind(senders)
        .fetch_all(pool)
        .await?;
    let blocked = rows
        .into_iter()
        .map(|(user, sender)| (UserId(user), UserId(sender)));
    Ok(blocked.collect())
}

/// Returns the names of those of the users who exist.
pub async fn names(pool: &PgPool, users: &HashSet<UserId>) -> sqlx::Result<HashMap<UserId, String>> {
    if users.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let rows: Vec<(Uuid, String)> = sqlx::query_as(NAMES).bind(ids).fetch_all(pool).await?;
    Ok(rows
        .into_iter()
        .map(|(user, name)| (UserId(user), name))
        .collect())
}
