//! Ends tokens.

use sqlx::PgPool;
use tern_types::{DeviceId, Timestamp};

use crate::provider::{Provider, Token};

/// The number of days after which a token ends that its device has not named. Google ends its own after as many.
const UNNAMED_DAYS: i32 = 270;
/// The most tokens that one statement ends.
const MOST: i64 = 1_000;

/// Ends the token of a device ($1), if it is still this one ($2, $3, $4), and if the device named it first before the
/// time $5 (milliseconds; NULL: whenever that was).
pub const END: &str = "
DELETE FROM push_tokens WHERE device_id = $1 AND provider = $2 AND app = $3 AND token = $4
    AND ($5::int8 IS NULL OR registered_at < to_timestamp($5::int8 / 1000.0))";

/// Ends tokens that no device has named for $1 days, at most $2, and selects their providers.
pub const END_UNNAMED: &str = "
DELETE FROM push_tokens WHERE device_id IN (
    SELECT device_id FROM push_tokens WHERE named_at < now() - $1::int4 * interval '1 day'
    ORDER BY named_at LIMIT $2 FOR UPDATE SKIP LOCKED
) RETURNING provider";

/// Ends the device's token because its provider says that it is not valid any more: since the time `since` by the wall
/// clock, if it says so. Returns false if the device has named another token meanwhile, or first named this one after
/// that time.
pub async fn end(
    pool: &PgPool,
    device: DeviceId,
    token: &Token,
    since: Option<Timestamp>,
) -> sqlx::Result<bool> {
    let ended = sqlx::query(END)
        .bind(device.0)
        .bind(token.provider.number())
        .bind(&token.app)
        .bind(&token.token[..])
        .bind(since.map(|since| since.0))
        .execute(pool)
        .await?;
    Ok(ended.rows_affected() > 0)
}

/// Ends a thousand tokens at most that no device has named for 270 days. Returns the providers of those that ended, and
/// whether there may be more.
pub async fn end_unnamed(pool: &PgPool) -> sqlx::Result<(Vec<Provider>, bool)> {
    let numbers: Vec<i16> = sqlx::query_scalar(END_UNNAMED)
        .bind(UNNAMED_DAYS)
        .bind(MOST)
        .fetch_all(pool)
        .await?;
    let more = numbers.len() as i64 >= MOST;
    Ok((
        numbers.into_iter().filter_map(Provider::from_number).collect(),
        more,
    ))
}
