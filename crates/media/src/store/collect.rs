//! What nothing refers to any more. Each step is one statement or one call of the object store, and each may be done
//! again: a collector that is killed between any two leaves nothing that the next round does not take up.

use tern_types::{MediaId, Timestamp, UploadId};
use uuid::Uuid;

use super::uploads::{COLUMNS, Upload, upload};
use super::{Result, Store, at};
use crate::domain::upload::State;

/// Marks media without references whose tickets have all ended. The row's own conditions are looked at again when
/// another transaction has just changed it (a ticket, an upload of the same).
pub const CONDEMN: &str = concat!(
    "UPDATE media SET condemned_at = ",
    at!("$2"),
    ", canonical = false
     WHERE media_id IN (SELECT m.media_id FROM media m
                        WHERE m.condemned_at IS NULL AND m.ticketed_at < ",
    at!("$1"),
    " AND NOT EXISTS (SELECT FROM media_refs r WHERE r.media_id = m.media_id)
                        ORDER BY m.ticketed_at LIMIT $3)
       AND condemned_at IS NULL AND ticketed_at < ",
    at!("$1")
);

/// Those marked long enough ago to be looked at again.
pub const CONDEMNED: &str = concat!(
    "SELECT media_id, object_key, EXISTS (SELECT FROM media_refs r WHERE r.media_id = m.media_id)
     FROM media m WHERE condemned_at < ",
    at!("$1"),
    " ORDER BY condemned_at LIMIT $2"
);

/// A reference came after all. It counts for uploads of the same again unless another one does by now.
pub const PARDON: &str = "
UPDATE media m SET condemned_at = NULL,
    canonical = NOT EXISTS (SELECT FROM media o WHERE o.content_id = m.content_id AND o.length = m.length
                            AND o.content_type = m.content_type AND o.canonical)
WHERE media_id = $1 AND condemned_at IS NOT NULL";

/// After its object is gone.
pub const FORGET_MEDIA: &str = "DELETE FROM media WHERE media_id = $1 AND condemned_at IS NOT NULL";

/// Nobody finalised them in time. Done in one statement: a finalise that comes now finds them given up.
pub const GIVE_UP: &str = concat!(
    "UPDATE uploads SET state = 2 WHERE upload_id IN
        (SELECT upload_id FROM uploads WHERE state = 0 AND created_at < ",
    at!("$1"),
    " ORDER BY urls_end_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
);

pub const CLEANED: &str = "UPDATE uploads SET state = 1 WHERE upload_id = $1 AND state = 3";

pub const FORGET_UPLOAD: &str = "DELETE FROM uploads WHERE upload_id = $1 AND state = 2";

pub const FORGET_DONE: &str = concat!(
    "DELETE FROM uploads WHERE upload_id IN (SELECT upload_id FROM uploads WHERE state = 1 AND created_at < ",
    at!("$1"),
    " LIMIT $2)"
);

pub const FORGET_USAGE: &str = concat!(
    "DELETE FROM media_usage WHERE day < (",
    at!("$1"),
    " AT TIME ZONE 'UTC')::date"
);

/// A media that was marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    pub media: MediaId,
    pub object_key: String,
    /// A reference came after it was marked.
    pub referred_to: bool,
}

impl Store {
    /// How many were marked.
    pub async fn condemn(&self, ticketed_before: Timestamp, now: Timestamp, most: i64) -> Result<u64> {
        let done = sqlx::query(CONDEMN)
            .bind(ticketed_before.0)
            .bind(now.0)
            .bind(most);
        Ok(done.execute(&self.pool).await?.rows_affected())
    }

    pub async fn condemned(&self, before: Timestamp, most: i64) -> Result<Vec<Condemned>> {
        let rows: Vec<(Uuid, String, bool)> = sqlx::query_as(CONDEMNED)
            .bind(before.0)
            .bind(most)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(media, object_key, referred_to)| Condemned {
                media: MediaId(media),
                object_key,
                referred_to,
            })
            .collect())
    }

    pub async fn pardon(&self, media: MediaId) -> Result<()> {
        sqlx::query(PARDON).bind(media.0).execute(&self.pool).await?;
        Ok(())
    }

    pub async fn forget_media(&self, media: MediaId) -> Result<()> {
        sqlx::query(FORGET_MEDIA)
            .bind(media.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// How many were given up.
    pub async fn give_up(&self, created_before: Timestamp, most: i64) -> Result<u64> {
        let done = sqlx::query(GIVE_UP).bind(created_before.0).bind(most);
        Ok(done.execute(&self.pool).await?.rows_affected())
    }

    /// Uploads whose own object is to go, and to whose object nobody can write any more.
    pub async fn to_clean(&self, urls_ended_before: Timestamp, most: i64) -> Result<Vec<Upload>> {
        let sql = format!(
            "{COLUMNS} state IN (2, 3) AND urls_end_at < {} ORDER BY urls_end_at LIMIT $2",
            at!("$1")
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(urls_ended_before.0)
            .bind(most)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(upload).collect()
    }

    /// Nothing of its own is in the object store any more.
    pub async fn cleaned(&self, id: UploadId, state: State) -> Result<()> {
        let sql = match state {
            State::Duplicate => CLEANED,
            State::Open | State::Done | State::Failed => FORGET_UPLOAD,
        };
        sqlx::query(sql).bind(id.0).execute(&self.pool).await?;
        Ok(())
    }

    pub async fn forget_done(&self, created_before: Timestamp, most: i64) -> Result<u64> {
        let done = sqlx::query(FORGET_DONE).bind(created_before.0).bind(most);
        Ok(done.execute(&self.pool).await?.rows_affected())
    }

    pub async fn forget_usage(&self, before: Timestamp) -> Result<()> {
        sqlx::query(FORGET_USAGE)
            .bind(before.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
