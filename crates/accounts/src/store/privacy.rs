//! Stores privacy settings, and reads the facts that decide who may see whom: blocks, contacts, and the strangers whom
//! somebody watched.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_store::millis;
use tern_types::{Timestamp, UserId};

use super::contacts::ids;
use super::{Result, Store, Tx};
use crate::domain::privacy::{Audience, Observer, Privacy, Relation};

/// Reads a user's settings.
pub const SELECT: &str = "SELECT presence_audience, read_receipts_off FROM users WHERE user_id = $1";

/// Replaces a user's settings if they are other ones.
pub const UPDATE: &str = "
UPDATE users SET presence_audience = $2, read_receipts_off = $3
WHERE user_id = $1 AND (presence_audience <> $2 OR read_receipts_off <> $3)";

/// Reads all facts about the watcher $1 and the people $2, except who has written to whom, which chat nodes know. A
/// stranger counts as watched if the watcher watched them after $3. Each column is a probe of a primary key.
pub const RELATIONS: &str = "
SELECT u.user_id, u.presence_audience,
       EXISTS (SELECT FROM blocks b WHERE b.user_id = u.user_id AND b.blocked_id = $1)
       OR EXISTS (SELECT FROM blocks b WHERE b.user_id = $1 AND b.blocked_id = u.user_id),
       EXISTS (SELECT FROM contacts c WHERE c.user_id = u.user_id AND c.contact_id = $1),
       EXISTS (SELECT FROM watched_strangers w
               WHERE w.user_id = $1 AND w.watched_id = u.user_id
                 AND w.watched_at > to_timestamp($3::float8 / 1000))
FROM users u WHERE u.user_id = ANY($2)";

/// Reads all facts about the person $1 and the watchers $2, except to whom the person has written, with each watcher's
/// own audience. Each column is a probe of a primary key.
pub const OBSERVERS: &str = "
SELECT u.user_id, u.presence_audience,
       EXISTS (SELECT FROM blocks b WHERE b.user_id = u.user_id AND b.blocked_id = $1)
       OR EXISTS (SELECT FROM blocks b WHERE b.user_id = $1 AND b.blocked_id = u.user_id),
       EXISTS (SELECT FROM contacts c WHERE c.user_id = $1 AND c.contact_id = u.user_id)
FROM users u WHERE u.user_id = ANY($2)";

/// Removes the strangers whom the watcher watched at $2 or before.
pub const FORGET_STRANGERS: &str = "
DELETE FROM watched_strangers WHERE user_id = $1 AND watched_at <= to_timestamp($2::float8 / 1000)";

/// Reads the strangers whom the watcher watched.
pub const STRANGERS: &str = concat!(
    "SELECT watched_id, ",
    millis!("watched_at"),
    " FROM watched_strangers WHERE user_id = $1"
);

/// Adds strangers whom the watcher watches now.
pub const ADD_STRANGERS: &str = "
INSERT INTO watched_strangers (user_id, watched_id, watched_at)
SELECT $1, w, to_timestamp($3::float8 / 1000) FROM unnest($2::uuid[]) w ORDER BY w";

impl Store {
    /// Returns the user's settings, or `None` if there is no such user.
    pub async fn privacy(&self, user: UserId) -> Result<Option<Privacy>> {
        let row = sqlx::query(SELECT)
            .bind(user.0)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            Ok(Privacy {
                audience: Audience::from_stored(row.try_get(0)?),
                read_receipts_off: row.try_get(1)?,
            })
        })
        .transpose()
    }

    /// Replaces the user's settings. Returns `false` if they are these already, or there is no such user.
    pub(crate) async fn set_privacy(&self, tx: &mut Tx, user: UserId, privacy: Privacy) -> Result<bool> {
        let update = sqlx::query(UPDATE)
            .bind(user.0)
            .bind(privacy.audience as i16)
            .bind(privacy.read_receipts_off);
        Ok(update.execute(&mut **tx).await?.rows_affected() > 0)
    }

    /// Returns what is known about those of `people` who exist, each once, in no order. A stranger counts as watched if
    /// the watcher watched them after `since`.
    pub(crate) async fn relations(
        &self,
        watcher: UserId,
        people: &[UserId],
        since: Timestamp,
    ) -> Result<Vec<(UserId, Relation)>> {
        let rows = sqlx::query(RELATIONS)
            .bind(watcher.0)
            .bind(ids(people))
            .bind(since.0)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(relation).collect()
    }

    /// Returns what is known about those of `watchers` who exist with respect to the person, each once, in no order.
    pub(crate) async fn observers(
        &self,
        person: UserId,
        watchers: &[UserId],
    ) -> Result<Vec<(UserId, Observer)>> {
        let rows = sqlx::query(OBSERVERS)
            .bind(person.0)
            .bind(ids(watchers))
            .fetch_all(&self.pool)
            .await?;
        let observers = rows.iter().map(|row| {
            let observer = Observer {
                audience: Audience::from_stored(row.try_get(1)?),
                blocked: row.try_get(2)?,
                contact: row.try_get(3)?,
            };
            Ok((UserId(row.try_get(0)?), observer))
        });
        observers.collect()
    }

    /// Returns the strangers whom the watcher watched after `since`, each with the time, and forgets older ones. The
    /// watcher's row has to be locked.
    pub async fn strangers(
        &self,
        tx: &mut Tx,
        watcher: UserId,
        since: Timestamp,
    ) -> Result<Vec<(UserId, Timestamp)>> {
        let forget = sqlx::query(FORGET_STRANGERS).bind(watcher.0).bind(since.0);
        forget.execute(&mut **tx).await?;
        let rows = sqlx::query(STRANGERS)
            .bind(watcher.0)
            .fetch_all(&mut **tx)
            .await?;
        rows.iter()
            .map(|row| Ok((UserId(row.try_get(0)?), Timestamp(row.try_get(1)?))))
            .collect()
    }

    /// Adds strangers whom the watcher watches now. None of them may be stored already.
    pub(crate) async fn add_strangers(
        &self,
        tx: &mut Tx,
        watcher: UserId,
        strangers: &[UserId],
        now: Timestamp,
    ) -> Result<()> {
        let insert = sqlx::query(ADD_STRANGERS)
            .bind(watcher.0)
            .bind(ids(strangers))
            .bind(now.0);
        insert.execute(&mut **tx).await?;
        Ok(())
    }
}

fn relation(row: &PgRow) -> Result<(UserId, Relation)> {
    let relation = Relation {
        audience: Audience::from_stored(row.try_get(1)?),
        blocked: row.try_get(2)?,
        contact: row.try_get(3)?,
        watched: row.try_get(4)?,
        written: None,
    };
    Ok((UserId(row.try_get(0)?), relation))
}
