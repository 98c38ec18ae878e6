//! Reads how long chats keep their messages, and when messages disappear.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tern_store::millis;
use tern_types::{ChatId, Seq, Timestamp};

use tern_chat_core::retention::{Mode, Retention};

use super::ReadError;

/// Selects the messages of a chat ($1) that disappear, and when: those above seq $2, and those at the seqs $3.
pub const EXPIRING: &str = concat!(
    "
SELECT x.seq, ",
    millis!("x.expires_at"),
    " AS expires_at FROM expiring x WHERE x.chat_id = $1 AND x.seq > $2
UNION ALL
SELECT x.seq, x.expires_at FROM unnest($3::int8[]) AS t(seq)
CROSS JOIN LATERAL (
    SELECT o.seq, ",
    millis!("o.expires_at"),
    " AS expires_at FROM expiring o WHERE o.chat_id = $1 AND o.seq = t.seq LIMIT 1
) AS x"
);

/// Reads when the messages of a chat disappear: those above seq `above`, and those at `seqs`.
pub(super) async fn expiring(
    db: &mut PgConnection,
    chat: ChatId,
    above: i64,
    seqs: &[Seq],
) -> sqlx::Result<HashMap<Seq, Timestamp>> {
    let seqs: Vec<i64> = seqs.iter().map(|seq| seq.to_i64()).collect();
    let rows: Vec<(i64, i64)> = sqlx::query_as(EXPIRING)
        .bind(chat.0)
        .bind(above)
        .bind(seqs)
        .fetch_all(db)
        .await?;
    let times = rows
        .into_iter()
        .map(|(seq, at)| (Seq::from_i64(seq), Timestamp(at)));
    Ok(times.collect())
}

/// Returns a time that was stored in whole seconds, at least 1. Postgres keeps times as fractions, so it is rounded.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from((time.as_millis() + 500) / 1000)
        .unwrap_or(u32::MAX)
        .max(1)
}

/// Reads the mode from a row with the columns `retention_mode` and `keep_s`; `None` if this version does not know it.
pub(super) fn mode_of_row(row: &PgRow) -> sqlx::Result<Option<Mode>> {
    let keep_s = u32::try_from(row.try_get::<i32, _>("keep_s")?).unwrap_or(0);
    Ok(Mode::of_stored(row.try_get("retention_mode")?, keep_s))
}

/// Reads the retention from a row with the columns `retention_mode`, `keep_s` and `disappear_after_s`. Fails if this
/// version does not know the mode.
pub(super) fn of_row(row: &PgRow, chat: ChatId) -> Result<Retention, ReadError> {
    let disappear_after_s: i32 = row.try_get("disappear_after_s")?;
    Ok(Retention {
        mode: mode_of_row(row)?.ok_or(ReadError::Unknown(chat, "a mode of retention"))?,
        disappear_after_s: u32::try_from(disappear_after_s).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_the_seconds_in_which_it_was_stored() {
        let cases = [
            (0, 1),
            (999, 1),
            (1_000, 1),
            (59_999, 60),
            (60_000, 60),
            (60_001, 60),
        ];
        for (millis, expected) in cases {
            assert_eq!(seconds(Duration::from_millis(millis)), expected, "{millis}");
        }
    }
}
