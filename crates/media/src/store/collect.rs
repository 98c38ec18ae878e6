//! Finds and deletes what nothing refers to any more. Each step is one statement or one call to the object store, and
//! each may be repeated: whatever a collector that is killed between two steps leaves undone, the next round does.

use std::collections::HashSet;

use tern_store::millis;
use tern_types::{MediaId, Timestamp, UploadId};
use uuid::Uuid;

use super::uploads::{COLUMNS, Upload, upload};
use super::{Result, Store, at};
use crate::domain::upload::State;

/// Selects media that are no person's picture and whose tickets have all ended: those after ($2, $3) in the order of
/// their last tickets, at most $4.
pub(crate) const TICKETS_ENDED: &str = concat!(
    "SELECT m.media_id, ",
    millis!("m.ticketed_at"),
    " FROM media m WHERE m.condemned_at IS NULL AND m.ticketed_at < ",
    at!("$1"),
    " AND (m.ticketed_at, m.media_id) > (",
    at!("$2"),
    ", $3) AND NOT EXISTS (SELECT FROM user_pictures p WHERE p.media_id = m.media_id)
     ORDER BY m.ticketed_at, m.media_id LIMIT $4"
);

/// Selects the media among $1 to which a message refers, or that are the picture of a group.
pub const REFERRED_TO: &str = "
SELECT m.media_id FROM unnest($1::uuid[]) AS m(media_id)
WHERE EXISTS (SELECT FROM media_refs r WHERE r.media_id = m.media_id)
   OR EXISTS (SELECT FROM chats c WHERE c.picture = m.media_id)";

/// Marks media ($3) to which no message and no group refers. The other conditions are checked again, because a ticket
/// may have been given meanwhile, or the media may have become a person's picture.
pub(crate) const CONDEMN: &str = concat!(
    "UPDATE media m SET condemned_at = ",
    at!("$2"),
    ", canonical = false WHERE media_id = ANY($3) AND condemned_at IS NULL AND ticketed_at < ",
    at!("$1"),
    " AND NOT EXISTS (SELECT FROM user_pictures p WHERE p.media_id = m.media_id)"
);

/// Returns the media that were marked before $1, and whether they are a person's picture by now: those after ($2, $3) in
/// the order in which they were marked, at most $4.
pub(crate) const CONDEMNED: &str = concat!(
    "SELECT media_id, object_key, ",
    millis!("condemned_at"),
    ", EXISTS (SELECT FROM user_pictures p WHERE p.media_id = m.media_id)
     FROM media m WHERE condemned_at < ",
    at!("$1"),
    " AND (condemned_at, media_id) > (",
    at!("$2"),
    ", $3) ORDER BY condemned_at, media_id LIMIT $4"
);

/// Unmarks a media because something refers to it after all. It is found again by uploads of the same content, unless
/// another media is by now.
pub(crate) const PARDON: &str = "
UPDATE media m SET condemned_at = NULL,
    canonical = NOT EXISTS (SELECT FROM media o WHERE o.content_id = m.content_id AND o.length = m.length
                            AND o.content_type = m.content_type AND o.canonical)
WHERE media_id = $1 AND condemned_at IS NOT NULL";

/// Deletes a marked media, after its object is gone.
pub(crate) const FORGET_MEDIA: &str = "DELETE FROM media WHERE media_id = $1 AND condemned_at IS NOT NULL";

/// Gives up uploads that were not finalised in time. It is one statement, so a finalise that comes later finds them
/// given up.
pub(crate) const GIVE_UP: &str = concat!(
    "UPDATE uploads SET state = 2 WHERE upload_id IN
        (SELECT upload_id FROM uploads WHERE state = 0 AND created_at < ",
    at!("$1"),
    " ORDER BY urls_end_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
);

/// The condition of [`Store::to_clean`]: a failed upload or a duplicate, whose URLs ended before $1.
const TO_CLEAN: &str = concat!("state IN (2, 3) AND urls_end_at < ", at!("$1"));

/// The condition of [`Store::done_in_parts`]: a finished upload of several parts that was created before $1.
const DONE_IN_PARTS: &str = concat!(
    "state = 1 AND created_at < ",
    at!("$1"),
    " AND octet_length(part_sha256s) > 32"
);

/// Marks a duplicate as done, after its own object is gone.
pub(crate) const CLEANED: &str = "UPDATE uploads SET state = 1 WHERE upload_id = $1 AND state = 3";

/// Deletes a failed upload, after its object is gone.
pub(crate) const FORGET_UPLOAD: &str = "DELETE FROM uploads WHERE upload_id = $1 AND state = 2";

/// Deletes finished uploads of one part, which leave nothing behind in the object store.
pub(crate) const FORGET_DONE: &str = concat!(
    "DELETE FROM uploads WHERE upload_id IN (SELECT upload_id FROM uploads WHERE state = 1 AND created_at < ",
    at!("$1"),
    " AND octet_length(part_sha256s) <= 32 LIMIT $2)"
);

/// Deletes a finished upload of several parts.
pub(crate) const FORGET_IN_PARTS: &str = "DELETE FROM uploads WHERE upload_id = $1 AND state = 1";

/// Deletes the usage of days before that of $1, of at most $2 users and days.
pub(crate) const FORGET_USAGE: &str = concat!(
    "DELETE FROM media_usage WHERE (user_id, day) IN (SELECT user_id, day FROM media_usage WHERE day < (",
    at!("$1"),
    " AT TIME ZONE 'UTC')::date LIMIT $2)"
);

/// A place in a list of media or uploads that is in the order of one of their times, and for the same time in the order
/// of their ids. The default is the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    at: Timestamp,
    id: Uuid,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            at: Timestamp(0),
            id: Uuid::nil(),
        }
    }
}

impl Cursor {
    /// Returns the place of an upload in the lists of [`Store::to_clean`] and [`Store::done_in_parts`].
    pub(crate) fn of(upload: &Upload) -> Self {
        Self {
            at: upload.urls_end_at,
            id: upload.id.0,
        }
    }
}

/// The result of looking at some media.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The number of media that were marked.
    pub condemned: u64,
    /// The place after which there may be more; `None` if these were the last.
    pub next: Option<Cursor>,
}

/// A media that was marked for deletion.
#[derive(Debug)]
pub(crate) struct Condemned {
    /// The id of the media.
    pub media: MediaId,
    /// The key of its object in the bucket.
    pub object_key: String,
    /// The place of the media in the list of [`Store::condemned`].
    pub place: Cursor,
    /// True if something refers to it after all.
    pub referred_to: bool,
}

impl Store {
    /// Looks at the next media, at most `most`, whose tickets were all given before `ticketed_before`, and marks those
    /// that nothing refers to. It goes on after `cursor`, and returns where to go on the next time.
    pub(crate) async fn condemn(
        &self,
        ticketed_before: Timestamp,
        now: Timestamp,
        cursor: Cursor,
        most: i64,
    ) -> Result<Looked> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(TICKETS_ENDED)
            .bind(ticketed_before.0)
            .bind(cursor.at.0)
            .bind(cursor.id)
            .bind(most)
            .fetch_all(self.pools.people())
            .await?;
        let last = rows.last().map(|(media, ticketed)| Cursor {
            at: Timestamp(*ticketed),
            id: *media,
        });
        let mut candidates: Vec<Uuid> = rows.into_iter().map(|(media, _)| media).collect();
        let is_last = i64::try_from(candidates.len()).unwrap_or(most) < most;
        let referred = self.referred_to(&candidates).await?;
        candidates.retain(|media| !referred.contains(media));
        let mut condemned = 0;
        if !candidates.is_empty() {
            let done = sqlx::query(CONDEMN)
                .bind(ticketed_before.0)
                .bind(now.0)
                .bind(candidates);
            condemned = done.execute(self.pools.people()).await?.rows_affected();
        }
        Ok(Looked {
            condemned,
            next: last.filter(|_| !is_last),
        })
    }

    /// Returns the next media, at most `most`, that were marked before `before`. It goes on after `cursor`.
    pub(crate) async fn condemned(
        &self,
        before: Timestamp,
        cursor: Cursor,
        most: i64,
    ) -> Result<Vec<Condemned>> {
        let rows: Vec<(Uuid, String, i64, bool)> = sqlx::query_as(CONDEMNED)
            .bind(before.0)
            .bind(cursor.at.0)
            .bind(cursor.id)
            .bind(most)
            .fetch_all(self.pools.people())
            .await?;
        let ids: Vec<Uuid> = rows.iter().map(|(media, ..)| *media).collect();
        let referred = self.referred_to(&ids).await?;
        Ok(rows
            .into_iter()
            .map(|(media, object_key, condemned, is_picture)| Condemned {
                media: MediaId(media),
                object_key,
                place: Cursor {
                    at: Timestamp(condemned),
                    id: media,
                },
                referred_to: is_picture || referred.contains(&media),
            })
            .collect())
    }

    /// Returns the media among `media` to which a message refers, or that are the picture of a group. Fails if a cell
    /// does not answer: what it refers to must not be deleted.
    async fn referred_to(&self, media: &[Uuid]) -> Result<HashSet<Uuid>> {
        if media.is_empty() {
            return Ok(HashSet::new());
        }
        let in_cell = |pool| async move {
            let referred = sqlx::query_scalar::<_, Uuid>(REFERRED_TO).bind(media);
            referred.fetch_all(&pool).await
        };
        let referred = self.pools.all(in_cell).await?;
        Ok(referred.into_iter().flatten().collect())
    }

    /// Unmarks a media.
    pub(crate) async fn pardon(&self, media: MediaId) -> Result<()> {
        self.run(PARDON, media.0).await
    }

    /// Deletes a marked media, after its object is gone.
    pub(crate) async fn forget_media(&self, media: MediaId) -> Result<()> {
        self.run(FORGET_MEDIA, media.0).await
    }

    /// Gives up at most `most` open uploads that were created before `created_before`. Returns how many.
    pub async fn give_up(&self, created_before: Timestamp, most: i64) -> Result<u64> {
        self.run_on_some(GIVE_UP, created_before, most).await
    }

    /// Returns the next uploads, at most `most`, failed or duplicates, whose own object has to be deleted and to which
    /// nobody can write any more, because their URLs ended before `urls_ended_before`. It goes on after `cursor`.
    pub(crate) async fn to_clean(
        &self,
        urls_ended_before: Timestamp,
        cursor: Cursor,
        most: i64,
    ) -> Result<Vec<Upload>> {
        self.uploads_where(TO_CLEAN, urls_ended_before, cursor, most)
            .await
    }

    /// Notes that the upload has nothing of its own in the object store any more: a duplicate is marked as done, and a
    /// failed upload is deleted.
    pub async fn cleaned(&self, id: UploadId, state: State) -> Result<()> {
        let sql = match state {
            State::Duplicate => CLEANED,
            State::Open | State::Done | State::Failed => FORGET_UPLOAD,
        };
        self.run(sql, id.0).await
    }

    /// Returns the next finished uploads of several parts, at most `most`, that were created before `created_before`.
    /// Besides the multipart upload that was completed, the object store may have one whose id was never stored. It
    /// goes on after `cursor`.
    pub(crate) async fn done_in_parts(
        &self,
        created_before: Timestamp,
        cursor: Cursor,
        most: i64,
    ) -> Result<Vec<Upload>> {
        self.uploads_where(DONE_IN_PARTS, created_before, cursor, most)
            .await
    }

    /// Deletes a finished upload of several parts.
    pub(crate) async fn forget_in_parts(&self, id: UploadId) -> Result<()> {
        self.run(FORGET_IN_PARTS, id.0).await
    }

    /// Deletes at most `most` finished uploads of one part that were created before `created_before`. Returns how
    /// many.
    pub(crate) async fn forget_done(&self, created_before: Timestamp, most: i64) -> Result<u64> {
        self.run_on_some(FORGET_DONE, created_before, most).await
    }

    /// Deletes the usage of days before that of `before`, of at most `most` users and days. Returns of how many.
    pub(crate) async fn forget_usage(&self, before: Timestamp, most: i64) -> Result<u64> {
        self.run_on_some(FORGET_USAGE, before, most).await
    }

    /// Returns the next uploads for which `condition` holds, at most `most`. It goes on after `cursor`.
    async fn uploads_where(
        &self,
        condition: &'static str,
        before: Timestamp,
        cursor: Cursor,
        most: i64,
    ) -> Result<Vec<Upload>> {
        let sql = format!(
            "{COLUMNS} {condition} AND (urls_end_at, upload_id) > ({}, $3) ORDER BY urls_end_at, upload_id LIMIT $4",
            at!("$2")
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(before.0)
            .bind(cursor.at.0)
            .bind(cursor.id)
            .bind(most)
            .fetch_all(self.pools.people())
            .await?;
        rows.iter().map(upload).collect()
    }

    /// Runs a statement about the media or upload with this id.
    async fn run(&self, sql: &'static str, id: Uuid) -> Result<()> {
        sqlx::query(sql).bind(id).execute(self.pools.people()).await?;
        Ok(())
    }

    /// Runs a statement about at most `most` rows of before `before`. Returns how many rows it changed.
    async fn run_on_some(&self, sql: &'static str, before: Timestamp, most: i64) -> Result<u64> {
        let done = sqlx::query(sql).bind(before.0).bind(most);
        Ok(done.execute(self.pools.people()).await?.rows_affected())
    }
}
