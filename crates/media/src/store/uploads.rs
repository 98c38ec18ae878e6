//! Stores uploads, from their beginning until they have become media or failed.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tern_store::millis;
use tern_types::{MediaId, RequestId, Timestamp, UploadId, UserId};
use uuid::Uuid;

use super::{Result, Store, at};
use crate::domain::declared::{Declared, Hash};
use crate::domain::upload::State;

/// An upload as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The id of the upload.
    pub id: UploadId,
    /// The user who began it.
    pub user: UserId,
    /// The content that the client declared.
    pub declared: Declared,
    /// The key of its object in the bucket.
    pub object_key: String,
    /// The object store's id of its multipart upload, or `None` if the upload has one part, or no multipart upload was
    /// made yet.
    pub multipart: Option<String>,
    /// The state of the upload.
    pub state: State,
    /// The media that it became, in the states [`State::Done`] and [`State::Duplicate`].
    pub media: Option<MediaId>,
    /// The time at which it was begun.
    pub created_at: Timestamp,
    /// The time until which somebody may have a URL that writes to its object.
    pub urls_end_at: Timestamp,
}

/// A new upload.
#[derive(Debug)]
pub struct NewUpload<'a> {
    /// The id of the upload.
    pub id: UploadId,
    /// The user who begins it.
    pub user: UserId,
    /// The id by which a retry of the request is recognised.
    pub request: RequestId,
    /// The content that the client declares.
    pub declared: &'a Declared,
    /// The key of its object in the bucket.
    pub object_key: &'a str,
    /// The present time, which is stored as the time of its beginning.
    pub now: Timestamp,
    /// The time until which somebody may have a URL that writes to the object.
    pub urls_end_at: Timestamp,
}

/// The limit on what a user may begin to upload in a day (UTC).
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// The most bytes.
    pub bytes: u64,
    /// The most uploads.
    pub uploads: u32,
}

/// The result of [`Store::begin`].
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// The upload was stored.
    New,
    /// The request has begun an upload already.
    Before,
    /// The user's quota would be exceeded. The value says which one: "bytes" or "uploads".
    Over(&'static str),
}

/// The columns that [`Upload`] is read from. A condition has to follow.
pub const COLUMNS: &str = concat!(
    "SELECT upload_id, user_id, length, content_type, part_sha256s, object_key, multipart_id, state, media_id, ",
    millis!("created_at"),
    " AS created_ms, ",
    millis!("urls_end_at"),
    " AS urls_end_ms FROM uploads WHERE "
);

/// Inserts an upload, or nothing if the request has an upload already.
pub const BEGIN: &str = concat!(
    "INSERT INTO uploads (upload_id, user_id, request_id, length, content_type, part_sha256s, object_key,
                          state, created_at, urls_end_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, 0, ",
    at!("$8"),
    ", ",
    at!("$9"),
    ") ON CONFLICT (user_id, request_id) DO NOTHING"
);

/// Counts an upload towards the user's quota of the day. It changes no row if the quota would be exceeded.
/// The first upload of a day is not compared with the quota, so the caller has to check that it fits into an
/// unused one. Two uploads of one user wait for each other at the row.
pub(crate) const TAKE_QUOTA: &str = concat!(
    "INSERT INTO media_usage AS u (user_id, day, bytes, uploads)
     VALUES ($1, (",
    at!("$2"),
    " AT TIME ZONE 'UTC')::date, $3, 1)
     ON CONFLICT (user_id, day) DO UPDATE SET bytes = u.bytes + $3, uploads = u.uploads + 1
     WHERE u.bytes + $3 <= $4 AND u.uploads + 1 <= $5"
);

/// Reads how many uploads the user has begun today.
pub(crate) const UPLOADS_TODAY: &str = concat!(
    "SELECT uploads FROM media_usage WHERE user_id = $1 AND day = (",
    at!("$2"),
    " AT TIME ZONE 'UTC')::date"
);

/// Stores the multipart upload's id if there is none, and returns the stored one. Another multipart upload that was
/// made at the same time is left to the collector.
pub(crate) const NAME_MULTIPART: &str = "UPDATE uploads SET multipart_id = COALESCE(multipart_id, $2)
     WHERE upload_id = $1 AND state = 0 RETURNING multipart_id";

/// Prolongs the time until which URLs of the upload are valid. It changes only an open upload, because one that was
/// given up gets no more URLs.
pub(crate) const EXTEND_URLS: &str = concat!(
    "UPDATE uploads SET urls_end_at = GREATEST(urls_end_at, ",
    at!("$2"),
    ") WHERE upload_id = $1 AND state = 0"
);

/// Marks an open upload as failed.
pub(crate) const FAIL: &str = "UPDATE uploads SET state = 2 WHERE upload_id = $1 AND state = 0";

/// Locks an open upload, so that the collector cannot give it up in the meantime. It returns no row if the upload is
/// not open any more.
pub const LOCK_OPEN: &str = "SELECT 1 FROM uploads WHERE upload_id = $1 AND state = 0 FOR UPDATE";

/// Makes a media, or finds the media with the same content. Either counts as ticketed now, so that the collector leaves
/// it alone. A media that the collector has marked is no longer `canonical`, and so is not found.
pub(crate) const BECOME_MEDIA: &str = concat!(
    "INSERT INTO media AS m (media_id, content_id, length, content_type, object_key, created_at, ticketed_at)
     VALUES ($1, $2, $3, $4, $5, ",
    at!("$6"),
    ", ",
    at!("$6"),
    ") ON CONFLICT (content_id, length, content_type) WHERE canonical
     DO UPDATE SET ticketed_at = GREATEST(m.ticketed_at, excluded.ticketed_at)
     RETURNING media_id"
);

/// Notes that the user has uploaded the media.
pub(crate) const ADD_UPLOADER: &str =
    "INSERT INTO media_uploaders (media_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";

/// Stores the media that the upload became, and its state.
pub const END: &str = "UPDATE uploads SET state = $2, media_id = $3 WHERE upload_id = $1";

impl Store {
    /// Stores a new upload and counts it towards the user's quota, or does neither.
    pub async fn begin(&self, new: &NewUpload<'_>, quota: Quota) -> Result<Begun> {
        let (length, most) = (bytes(new.declared.length), bytes(quota.bytes));
        let uploads = i32::try_from(quota.uploads).unwrap_or(i32::MAX);
        let mut tx = self.pools.begin().await?;
        let inserted = sqlx::query(BEGIN)
            .bind(new.id.0)
            .bind(new.user.0)
            .bind(new.request.0)
            .bind(length)
            .bind(&new.declared.content_type)
            .bind(new.declared.parts.concat())
            .bind(new.object_key)
            .bind(new.now.0)
            .bind(new.urls_end_at.0)
            .execute(&mut *tx)
            .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Begun::Before);
        }
        let fits_alone = length <= most && uploads > 0;
        let take = sqlx::query(TAKE_QUOTA)
            .bind(new.user.0)
            .bind(new.now.0)
            .bind(length)
            .bind(most)
            .bind(uploads);
        if !fits_alone || take.execute(&mut *tx).await?.rows_affected() == 0 {
            let today: Option<i32> = sqlx::query_scalar(UPLOADS_TODAY)
                .bind(new.user.0)
                .bind(new.now.0)
                .fetch_optional(&mut *tx)
                .await?;
            let all = today.unwrap_or(0) >= uploads;
            return Ok(Begun::Over(if all { "uploads" } else { "bytes" }));
        }
        tx.commit().await?;
        Ok(Begun::New)
    }

    /// Returns the upload that the request has begun, or `None` if there is none.
    pub(crate) async fn upload_of_request(&self, user: UserId, request: RequestId) -> Result<Option<Upload>> {
        let sql = format!("{COLUMNS} user_id = $1 AND request_id = $2");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(user.0).bind(request.0);
        row.fetch_optional(self.pools.people())
            .await?
            .map(|row| upload(&row))
            .transpose()
    }

    /// Returns the user's upload, or `None` if there is none.
    pub async fn upload(&self, user: UserId, id: UploadId) -> Result<Option<Upload>> {
        let sql = format!("{COLUMNS} upload_id = $2 AND user_id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(user.0).bind(id.0);
        row.fetch_optional(self.pools.people())
            .await?
            .map(|row| upload(&row))
            .transpose()
    }

    /// Stores the id of a multipart upload if the upload has none, and returns the stored one. Returns `None` if the
    /// upload is not open any more.
    pub(crate) async fn name_multipart(&self, id: UploadId, multipart: &str) -> Result<Option<String>> {
        Ok(sqlx::query_scalar(NAME_MULTIPART)
            .bind(id.0)
            .bind(multipart)
            .fetch_optional(self.pools.people())
            .await?)
    }

    /// Prolongs the time until which URLs of the upload are valid. Call it before URLs are given out, so that the
    /// collector knows of them. Returns `false` if the upload is not open any more.
    pub(crate) async fn extend_urls(&self, id: UploadId, until: Timestamp) -> Result<bool> {
        let done = sqlx::query(EXTEND_URLS).bind(id.0).bind(until.0);
        Ok(done.execute(self.pools.people()).await?.rows_affected() > 0)
    }

    /// Marks the upload as failed. From then on the collector deletes what it has in the object store. Returns `false`
    /// if the upload is not open any more: its object may be a media's by now.
    pub(crate) async fn fail(&self, id: UploadId) -> Result<bool> {
        let done = sqlx::query(FAIL).bind(id.0);
        Ok(done.execute(self.pools.people()).await?.rows_affected() > 0)
    }

    /// Makes the upload's object a media, unless there is a media with the same content, and returns the media and the
    /// upload's new state. The caller has checked that the object is as declared. Returns `None` if the upload is no
    /// longer open, because it was given up or another call was faster.
    pub async fn become_media(&self, upload: &Upload, now: Timestamp) -> Result<Option<(MediaId, State)>> {
        let mut tx = self.pools.begin().await?;
        let open = sqlx::query(LOCK_OPEN)
            .bind(upload.id.0)
            .fetch_optional(&mut *tx)
            .await?;
        if open.is_none() {
            return Ok(None);
        }
        let own = MediaId::random();
        let media = insert_media(&mut tx, upload, own, now).await?;
        let state = if media == own {
            State::Done
        } else {
            State::Duplicate
        };
        sqlx::query(ADD_UPLOADER)
            .bind(media.0)
            .bind(upload.user.0)
            .execute(&mut *tx)
            .await?;
        sqlx::query(END)
            .bind(upload.id.0)
            .bind(state as i16)
            .bind(media.0)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Some((media, state)))
    }
}

/// Inserts the media with the id `own` and returns `own`, or returns the id of the media with the same content.
async fn insert_media(
    db: &mut PgConnection,
    upload: &Upload,
    own: MediaId,
    now: Timestamp,
) -> Result<MediaId> {
    let id: Uuid = sqlx::query_scalar(BECOME_MEDIA)
        .bind(own.0)
        .bind(upload.declared.content_id().to_vec())
        .bind(bytes(upload.declared.length))
        .bind(&upload.declared.content_type)
        .bind(&upload.object_key)
        .bind(now.0)
        .fetch_one(db)
        .await?;
    Ok(MediaId(id))
}

/// Returns a number of bytes as Postgres stores it.
pub(super) fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reads an upload from a row with [`COLUMNS`]. Returns `Err` if its state is unknown.
pub(super) fn upload(row: &PgRow) -> Result<Upload> {
    let hashes: Vec<u8> = row.try_get("part_sha256s")?;
    let state: i16 = row.try_get("state")?;
    let unknown = || sqlx::Error::Decode(format!("uploads.state {state}").into());
    Ok(Upload {
        id: UploadId(row.try_get("upload_id")?),
        user: UserId(row.try_get("user_id")?),
        declared: Declared {
            length: u64::try_from(row.try_get::<i64, _>("length")?).unwrap_or(0),
            content_type: row.try_get("content_type")?,
            parts: hashes
                .chunks_exact(32)
                .filter_map(|hash| Hash::try_from(hash).ok())
                .collect(),
        },
        object_key: row.try_get("object_key")?,
        multipart: row.try_get("multipart_id")?,
        state: State::from_number(state).ok_or_else(unknown)?,
        media: row.try_get::<Option<Uuid>, _>("media_id")?.map(MediaId),
        created_at: Timestamp(row.try_get("created_ms")?),
        urls_end_at: Timestamp(row.try_get("urls_end_ms")?),
    })
}
