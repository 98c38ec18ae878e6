//! Uploads, from their beginning to what they became.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tern_node::postgres;
use tern_types::{MediaId, RequestId, Timestamp, UploadId, UserId};
use uuid::Uuid;

use super::{Result, Store, at, millis};
use crate::domain::declared::{Declared, Hash};
use crate::domain::upload::State;

/// An upload as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub id: UploadId,
    pub user: UserId,
    pub declared: Declared,
    pub object_key: String,
    /// The store's name of it, where it has several parts and the store was asked for one.
    pub multipart: Option<String>,
    pub state: State,
    pub media: Option<MediaId>,
    pub created_at: Timestamp,
}

/// An upload that is to begin.
#[derive(Debug)]
pub struct NewUpload<'a> {
    pub id: UploadId,
    pub user: UserId,
    pub request: RequestId,
    pub declared: &'a Declared,
    pub object_key: &'a str,
    pub now: Timestamp,
    pub urls_end_at: Timestamp,
}

/// What a user may begin on a day.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    pub bytes: u64,
    pub uploads: u32,
}

/// What came of [`Store::begin`].
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    New,
    /// There is one of this request already.
    Before,
    /// Over the quota for "bytes" or "uploads".
    Over(&'static str),
}

pub const COLUMNS: &str = concat!(
    "SELECT upload_id, user_id, length, content_type, part_sha256s, object_key, multipart_id, state, media_id, ",
    millis!("created_at"),
    " AS created_at FROM uploads WHERE "
);

/// Nothing comes back where the request has an upload already.
pub const BEGIN: &str = concat!(
    "INSERT INTO uploads (upload_id, user_id, request_id, length, content_type, part_sha256s, object_key,
                          state, created_at, urls_end_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, 0, ",
    at!("$8"),
    ", ",
    at!("$9"),
    ") ON CONFLICT (user_id, request_id) DO NOTHING"
);

/// Nothing comes back where that would be more than a day's quota. Two uploads of one user take turns by the row.
pub const TAKE_QUOTA: &str = concat!(
    "INSERT INTO media_usage AS u (user_id, day, bytes, uploads)
     SELECT $1, (",
    at!("$2"),
    " AT TIME ZONE 'UTC')::date, $3, 1 WHERE $3 <= $4 AND 1 <= $5
     ON CONFLICT (user_id, day) DO UPDATE SET bytes = u.bytes + $3, uploads = u.uploads + 1
     WHERE u.bytes + $3 <= $4 AND u.uploads + 1 <= $5
     RETURNING bytes"
);

pub const UPLOADS_TODAY: &str = concat!(
    "SELECT uploads FROM media_usage WHERE user_id = $1 AND day = (",
    at!("$2"),
    " AT TIME ZONE 'UTC')::date"
);

/// The first name counts: a second multipart upload that was made meanwhile is for the collector.
pub const NAME_MULTIPART: &str = "UPDATE uploads SET multipart_id = COALESCE(multipart_id, $2)
     WHERE upload_id = $1 AND state = 0 RETURNING multipart_id";

/// Only while it is open: what was given up gets no more URLs.
pub const EXTEND_URLS: &str = concat!(
    "UPDATE uploads SET urls_end_at = GREATEST(urls_end_at, ",
    at!("$2"),
    ") WHERE upload_id = $1 AND state = 0"
);

pub const FAIL: &str = "UPDATE uploads SET state = 2 WHERE upload_id = $1 AND state = 0";

/// The row is locked, so that the collector cannot give the upload up meanwhile; nothing comes back where it has.
pub const LOCK_OPEN: &str = "SELECT 1 FROM uploads WHERE upload_id = $1 AND state = 0 FOR UPDATE";

/// Where the content is there already, that media becomes ticketed now: from here on the collector leaves it alone. One
/// that the collector has marked is no longer `canonical` and does not get in the way.
pub const BECOME_MEDIA: &str = concat!(
    "INSERT INTO media AS m (media_id, content_id, length, content_type, object_key, created_at, ticketed_at)
     VALUES ($1, $2, $3, $4, $5, ",
    at!("$6"),
    ", ",
    at!("$6"),
    ") ON CONFLICT (content_id, length, content_type) WHERE canonical
     DO UPDATE SET ticketed_at = GREATEST(m.ticketed_at, excluded.ticketed_at)
     RETURNING media_id"
);

pub const ADD_UPLOADER: &str =
    "INSERT INTO media_uploaders (media_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";

pub const END: &str = "UPDATE uploads SET state = $2, media_id = $3 WHERE upload_id = $1";

impl Store {
    /// Begins an upload and counts it, or does neither.
    pub async fn begin(&self, new: &NewUpload<'_>, quota: Quota) -> Result<Begun> {
        let (length, most) = (bytes(new.declared.length), bytes(quota.bytes));
        let uploads = i32::try_from(quota.uploads).unwrap_or(i32::MAX);
        let mut tx = postgres::begin(&self.pool).await?;
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
        let counted: Option<i64> = sqlx::query_scalar(TAKE_QUOTA)
            .bind(new.user.0)
            .bind(new.now.0)
            .bind(length)
            .bind(most)
            .bind(uploads)
            .fetch_optional(&mut *tx)
            .await?;
        if counted.is_none() {
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

    pub async fn upload_of_request(&self, user: UserId, request: RequestId) -> Result<Option<Upload>> {
        let sql = format!("{COLUMNS} user_id = $1 AND request_id = $2");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(user.0).bind(request.0);
        row.fetch_optional(&self.pool)
            .await?
            .map(|row| upload(&row))
            .transpose()
    }

    pub async fn upload(&self, user: UserId, id: UploadId) -> Result<Option<Upload>> {
        let sql = format!("{COLUMNS} upload_id = $2 AND user_id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(user.0).bind(id.0);
        row.fetch_optional(&self.pool)
            .await?
            .map(|row| upload(&row))
            .transpose()
    }

    /// The name that counts; `None`: the upload is not open any more.
    pub async fn name_multipart(&self, id: UploadId, multipart: &str) -> Result<Option<String>> {
        Ok(sqlx::query_scalar(NAME_MULTIPART)
            .bind(id.0)
            .bind(multipart)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// Before URLs are given. False: the upload is not open any more.
    pub async fn extend_urls(&self, id: UploadId, until: Timestamp) -> Result<bool> {
        let done = sqlx::query(EXTEND_URLS).bind(id.0).bind(until.0);
        Ok(done.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// What it has in the object store is for the collector from here on.
    pub async fn fail(&self, id: UploadId) -> Result<()> {
        sqlx::query(FAIL).bind(id.0).execute(&self.pool).await?;
        Ok(())
    }

    /// The upload's object, which is as declared, becomes media, unless the same content is there already. `None`: the
    /// upload was given up meanwhile, and its object is about to be deleted.
    pub async fn become_media(&self, upload: &Upload, now: Timestamp) -> Result<Option<(MediaId, State)>> {
        let mut tx = postgres::begin(&self.pool).await?;
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

pub(super) fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

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
        created_at: Timestamp(row.try_get("created_at")?),
    })
}
