//! Each call as one story of policy, Postgres and the object store. Killed between any two of its steps, a call may be
//! made again and comes to the same end; what it leaves behind in the object store is known by a row that says so.

use tern_node::ticket::Tickets;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{MediaId, RequestId, Timestamp, UploadId, UserId};
use uuid::Uuid;

use crate::domain::cdn::Cdn;
use crate::domain::declared::{Declared, Part};
use crate::domain::lifetimes::{UPLOAD_TTL, rest_of_day};
use crate::domain::upload::{State, Verdict, good_parts, judge};
use crate::metrics;
use crate::s3::{S3, S3Error, Signed, Target};
use crate::store::access::Through;
use crate::store::uploads::{Begun, NewUpload, Quota, Upload};
use crate::store::{Media as Stored, Store};

pub struct Media {
    pub store: Store,
    pub s3: S3,
    pub tickets: Tickets,
    pub cdn: Option<Cdn>,
    pub quota: Quota,
    pub url_ttl: std::time::Duration,
}

/// A right to attach a media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub media: MediaId,
    pub ticket: Vec<u8>,
    pub expires_at: Timestamp,
}

/// What is still to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub upload: UploadId,
    pub parts: Vec<(Part, Signed)>,
    pub part_count: usize,
    pub urls_end_at: Timestamp,
    pub ends_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    Stored(Ticket),
    Missing(Missing),
}

/// Where to read a media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    pub url: String,
    pub ends_at: Timestamp,
    pub media: Stored,
}

impl Media {
    /// Begins an upload, or says what is missing of one.
    pub async fn create(
        &self,
        user: UserId,
        request: RequestId,
        declared: &Declared,
        now: Timestamp,
    ) -> Result<Created, ApiError> {
        let known = self.store.upload_of_request(user, request).await?;
        if known.is_none()
            && let Some(media) = self.store.stored_for(user, declared).await?
            && let Some(ticket) = self.ticket(media, user, now).await?
        {
            metrics::upload("stored");
            return Ok(Created::Stored(ticket));
        }
        let upload = match known {
            Some(upload) => upload,
            None => self.begin(user, request, declared, now).await?,
        };
        if upload.declared != *declared {
            let words = "the request_id was used for another upload";
            return Err(ApiError::new(ErrorReason::RequestIdReused, words));
        }
        match (upload.state, upload.media) {
            (State::Done | State::Duplicate, Some(media)) => {
                let ticket = self.ticket(media, user, now).await?;
                Ok(Created::Stored(ticket.ok_or_else(upload_not_found)?))
            }
            (State::Open, _) if now < upload.created_at + UPLOAD_TTL => {
                metrics::upload("open");
                Ok(Created::Missing(self.missing(upload, now).await?))
            }
            _ => Err(upload_not_found()),
        }
    }

    async fn begin(
        &self,
        user: UserId,
        request: RequestId,
        declared: &Declared,
        now: Timestamp,
    ) -> Result<Upload, ApiError> {
        let object_key = Uuid::new_v4().simple().to_string();
        let new = NewUpload {
            id: UploadId::random(),
            user,
            request,
            declared,
            object_key: &object_key,
            now,
            urls_end_at: now,
        };
        match self.store.begin(&new, self.quota).await? {
            Begun::Over(quota) => {
                metrics::quota_exceeded(quota);
                let error = ApiError::new(ErrorReason::QuotaExceeded, format!("too many {quota} today"));
                return Err(error.with("quota", quota).retry_after(rest_of_day(now)));
            }
            Begun::New => metrics::upload("new"),
            Begun::Before => {}
        }
        let begun = self.store.upload_of_request(user, request).await?;
        begun.ok_or_else(upload_not_found)
    }

    /// URLs for what is not there yet.
    async fn missing(&self, upload: Upload, now: Timestamp) -> Result<Missing, ApiError> {
        let urls_end_at = now + self.url_ttl;
        if !self.store.extend_urls(upload.id, urls_end_at).await? {
            return Err(upload_not_found());
        }
        let mut parts = Vec::new();
        if upload.declared.is_multipart() {
            let multipart = self.multipart(&upload).await?;
            let there = self.s3.parts(&upload.object_key, &multipart).await?;
            // Completed already: nothing is missing but the finalise.
            let there = there.map(|stored| good_parts(&upload.declared, stored));
            for part in upload.declared.parts() {
                let target = Target::Part {
                    multipart: &multipart,
                };
                let is_there = there
                    .as_ref()
                    .is_none_or(|there| there.iter().any(|stored| stored.number == part.number));
                if !is_there {
                    let signed = self.s3.sign_put(&upload.object_key, target, &part, now).await?;
                    parts.push((part, signed));
                }
            }
        } else if self.s3.head(&upload.object_key).await?.is_none() {
            let content_type = upload.declared.content_type.as_str();
            for part in upload.declared.parts() {
                let target = Target::Object { content_type };
                let signed = self.s3.sign_put(&upload.object_key, target, &part, now).await?;
                parts.push((part, signed));
            }
        }
        Ok(Missing {
            upload: upload.id,
            parts,
            part_count: upload.declared.parts.len(),
            urls_end_at,
            ends_at: upload.created_at + UPLOAD_TTL,
        })
    }

    /// The object store's name of the upload, made where there is none. One that is made and not written down, for
    /// this node is killed in between, is found by the upload's key when the upload has ended.
    async fn multipart(&self, upload: &Upload) -> Result<String, ApiError> {
        if let Some(multipart) = &upload.multipart {
            return Ok(multipart.clone());
        }
        let (key, content_type) = (&upload.object_key, &upload.declared.content_type);
        let made = self.s3.create_multipart(key, content_type).await?;
        let counts = self.store.name_multipart(upload.id, &made).await?;
        if counts.as_ref() != Some(&made) {
            // Another call was faster. What fails here is for the collector.
            let _ = self.s3.abort(key, &made).await;
        }
        counts.ok_or_else(upload_not_found)
    }

    /// Compares what the object store has with what was declared, and makes it media.
    pub async fn finalize(&self, user: UserId, id: UploadId, now: Timestamp) -> Result<Ticket, ApiError> {
        let upload = self.store.upload(user, id).await?.ok_or_else(upload_not_found)?;
        let media = match (upload.state, upload.media) {
            (State::Done | State::Duplicate, Some(media)) => media,
            (State::Open, _) => self.check(&upload, now).await?,
            _ => return Err(upload_not_found()),
        };
        let ticket = self.ticket(media, user, now).await?;
        ticket.ok_or_else(upload_not_found)
    }

    async fn check(&self, upload: &Upload, now: Timestamp) -> Result<MediaId, ApiError> {
        if upload.declared.is_multipart() {
            self.assemble(upload).await?;
        }
        let Some(object) = self.s3.head(&upload.object_key).await? else {
            metrics::finalized("incomplete");
            return Err(incomplete());
        };
        match judge(&upload.declared, &object) {
            Verdict::AsDeclared => {}
            Verdict::Mismatch => return Err(self.refuse(upload).await?),
            Verdict::Unknown => {
                tracing::error!(
                    key = upload.object_key,
                    "the object store keeps no SHA-256 of what it takes"
                );
                return Err(ApiError::new(
                    ErrorReason::Internal,
                    "the object store cannot be trusted",
                ));
            }
        }
        let Some((media, state)) = self.store.become_media(upload, now).await? else {
            // Given up by the collector, or another call was faster.
            let ended = self.store.upload(upload.user, upload.id).await?;
            return ended.and_then(|ended| ended.media).ok_or_else(upload_not_found);
        };
        if state == State::Duplicate {
            metrics::finalized("duplicate");
            // At once where possible; the collector deletes again what may be put again meanwhile.
            let _ = self.s3.delete(&upload.object_key).await;
        } else {
            metrics::finalized("new");
        }
        Ok(media)
    }

    /// Makes one object of the parts, unless that is done already.
    async fn assemble(&self, upload: &Upload) -> Result<(), ApiError> {
        let Some(multipart) = &upload.multipart else {
            return Err(incomplete());
        };
        let Some(stored) = self.s3.parts(&upload.object_key, multipart).await? else {
            return Ok(());
        };
        let good = good_parts(&upload.declared, stored);
        if good.len() < upload.declared.parts.len() {
            metrics::finalized("incomplete");
            return Err(incomplete());
        }
        match self.s3.complete(&upload.object_key, multipart, &good).await {
            // What it refused is not there: the look at the object says so.
            Ok(()) | Err(S3Error::Refused(_)) => Ok(()),
            Err(away) => Err(away.into()),
        }
    }

    /// What is not as declared goes: first it is written down that it has to.
    async fn refuse(&self, upload: &Upload) -> Result<ApiError, ApiError> {
        metrics::finalized("mismatch");
        tracing::warn!(upload = %upload.id, user = %upload.user, "an upload is not what was declared");
        self.store.fail(upload.id).await?;
        self.s3.delete(&upload.object_key).await?;
        let words = "the store has something else than was declared; it is deleted";
        Ok(ApiError::new(ErrorReason::UploadMismatch, words))
    }

    /// A URL to read from.
    pub async fn download(
        &self,
        user: UserId,
        media: MediaId,
        through: Through,
        now: Timestamp,
    ) -> Result<Download, ApiError> {
        let media = self.store.readable(user, media, through).await?;
        let media = media.ok_or_else(media_not_found)?;
        let ends_at = now + self.url_ttl;
        let url = match &self.cdn {
            Some(cdn) => cdn.url(&media.object_key, ends_at),
            None => self.s3.sign_get(&media.object_key, now).await?.url,
        };
        metrics::download();
        Ok(Download { url, ends_at, media })
    }

    /// A ticket for what one may download.
    pub async fn forward(
        &self,
        user: UserId,
        media: MediaId,
        through: Through,
        now: Timestamp,
    ) -> Result<Ticket, ApiError> {
        let media = self.store.readable(user, media, through).await?;
        let media = media.ok_or_else(media_not_found)?;
        let ticket = self.ticket(media.id, user, now).await?;
        metrics::forward();
        ticket.ok_or_else(media_not_found)
    }

    /// `None`: the media is being collected.
    async fn ticket(&self, media: MediaId, user: UserId, now: Timestamp) -> Result<Option<Ticket>, ApiError> {
        if !self.store.ticket(media, now).await? {
            return Ok(None);
        }
        let (ticket, expires_at) = self.tickets.sign(media, user, now);
        Ok(Some(Ticket {
            media,
            ticket,
            expires_at,
        }))
    }
}

fn incomplete() -> ApiError {
    ApiError::new(ErrorReason::UploadIncomplete, "not all of it is there")
}

fn upload_not_found() -> ApiError {
    let words = "no such upload, or it has ended without success: begin a new one";
    ApiError::new(ErrorReason::UploadNotFound, words)
}

fn media_not_found() -> ApiError {
    ApiError::new(
        ErrorReason::MediaNotFound,
        "no such media, or it may not be read this way",
    )
}

impl From<S3Error> for ApiError {
    fn from(error: S3Error) -> Self {
        match error {
            S3Error::Away(why) => {
                tracing::warn!(why, "object store away");
                Self::unavailable("the object store is away")
            }
            S3Error::Refused(why) => {
                tracing::error!(why, "object store refuses");
                Self::new(ErrorReason::Internal, "a fault of the server")
            }
        }
    }
}
