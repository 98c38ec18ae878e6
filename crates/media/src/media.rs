//! Carries out each call from beginning to end, with the rules, Postgres and the object store. If the node is killed
//! between any two steps of a call, the call can be repeated and comes to the same result. Whatever the call left in
//! the object store belongs to a row in Postgres, by which the collector finds it.

use tern_identity::ticket::Tickets;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::limits::MEDIA_PART_BYTES;
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

/// The calls of the media role.
pub struct Media {
    /// The rows in Postgres.
    pub store: Store,
    /// The object store.
    pub s3: S3,
    /// The keys that sign tickets.
    pub tickets: Tickets,
    /// The delivery network to which downloads go, or `None` if they go to the object store.
    pub cdn: Option<Cdn>,
    /// The limit on what one user may begin to upload in a day.
    pub quota: Quota,
    /// The time for which a signed URL is valid.
    pub url_ttl: std::time::Duration,
}

/// The right of one user to attach a media to messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The media that the ticket is for.
    pub media: MediaId,
    /// The ticket's bytes, which clients put into the envelope.
    pub ticket: Vec<u8>,
    /// The time from which on the ticket is no longer accepted.
    pub expires_at: Timestamp,
}

/// The parts of an upload that are still missing, with URLs to upload them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The id of the upload, which the client names when it finalises.
    pub upload: UploadId,
    /// The missing parts, each with a signed request to upload it.
    pub parts: Vec<(Part, Signed)>,
    /// The number of parts that the upload has in all.
    pub part_count: usize,
    /// The time from which on the URLs are no longer valid.
    pub urls_end_at: Timestamp,
    /// The time at which the upload is given up if it is not finalised.
    pub ends_at: Timestamp,
}

/// The result of [`Media::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The content is stored already, and this is a ticket for it.
    Stored(Ticket),
    /// These parts have to be uploaded.
    Missing(Missing),
}

/// A URL from which a media can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The signed URL.
    pub url: String,
    /// The time from which on the URL is no longer valid.
    pub ends_at: Timestamp,
    /// The media that is read.
    pub media: Stored,
}

impl Media {
    /// Begins an upload, or continues the one that the same request began. Returns `Err` with REQUEST_ID_REUSED if the
    /// request began an upload of something else, with UPLOAD_NOT_FOUND if the upload ended without success, with
    /// TOO_LARGE if it exceeds what a user may upload in a day, and with QUOTA_EXCEEDED if the user has begun too many
    /// uploads or bytes today.
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
        let (upload, is_new) = match known {
            Some(upload) => (upload, false),
            None => self.begin(user, request, declared, now).await?,
        };
        if upload.declared != *declared {
            let words = "the request_id was used for another upload";
            return Err(ApiError::new(ErrorReason::RequestIdReused, words));
        }
        match (upload.state, upload.media) {
            (State::Done | State::Duplicate, Some(media)) => {
                let ticket = self.ticket(media, user, now).await?;
                let ticket = ticket.ok_or_else(upload_not_found)?;
                metrics::upload("stored");
                Ok(Created::Stored(ticket))
            }
            (State::Open, _) if now < upload.created_at + UPLOAD_TTL => {
                metrics::upload(if is_new { "new" } else { "open" });
                Ok(Created::Missing(self.missing(upload, now).await?))
            }
            _ => Err(upload_not_found()),
        }
    }

    /// Stores a new upload. Returns the upload that belongs to the request now, and whether it is this one.
    async fn begin(
        &self,
        user: UserId,
        request: RequestId,
        declared: &Declared,
        now: Timestamp,
    ) -> Result<(Upload, bool), ApiError> {
        let most = self.quota.bytes;
        if declared.length > most {
            metrics::quota_exceeded("bytes");
            let words = format!("length: at most {most} bytes, as a user may upload no more in a day");
            return Err(ApiError::new(ErrorReason::TooLarge, words));
        }
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
        let is_new = match self.store.begin(&new, self.quota).await? {
            Begun::Over(quota) => {
                metrics::quota_exceeded(quota);
                let error = ApiError::new(ErrorReason::QuotaExceeded, format!("too many {quota} today"));
                return Err(error.with("quota", quota).retry_after(rest_of_day(now)));
            }
            Begun::New => true,
            Begun::Before => false,
        };
        let begun = self.store.upload_of_request(user, request).await?;
        Ok((begun.ok_or_else(upload_not_found)?, is_new))
    }

    /// Signs URLs for the parts that the object store does not have yet. Returns `Err` with UPLOAD_NOT_FOUND if the
    /// upload is no longer open.
    async fn missing(&self, upload: Upload, now: Timestamp) -> Result<Missing, ApiError> {
        let urls_end_at = now + self.url_ttl;
        if !self.store.extend_urls(upload.id, urls_end_at).await? {
            return Err(upload_not_found());
        }
        let mut parts = Vec::new();
        if upload.declared.is_multipart() {
            let multipart = self.multipart(&upload).await?;
            let there = self.s3.parts(&upload.object_key, &multipart).await?;
            // If the upload has been completed in the object store, no part is missing, only the finalise.
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

    /// Returns the object store's id of the upload, and makes a multipart upload there if there is none. If this node
    /// is killed after making one and before storing its id, the collector finds it later by the upload's key.
    async fn multipart(&self, upload: &Upload) -> Result<String, ApiError> {
        if let Some(multipart) = &upload.multipart {
            return Ok(multipart.clone());
        }
        let (key, content_type) = (&upload.object_key, &upload.declared.content_type);
        let made = self.s3.create_multipart(key, content_type).await?;
        let counts = self.store.name_multipart(upload.id, &made).await?;
        if counts.as_ref() != Some(&made) {
            // Another call was faster. If aborting fails, the collector does it later.
            let _ = self.s3.abort(key, &made).await;
        }
        counts.ok_or_else(upload_not_found)
    }

    /// Compares what the object store has with what was declared, makes it a media, and returns a ticket for it. If the
    /// upload has become a media before, it only returns a ticket. Returns `Err` with UPLOAD_INCOMPLETE if parts are
    /// missing, with UPLOAD_MISMATCH if it is something else, and with UPLOAD_NOT_FOUND if the user has no such upload
    /// or it has ended without success.
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

    /// Checks the object of an open upload, and makes it a media. Returns the media of the same content if there is
    /// one.
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
            Verdict::Mismatch => return self.refuse(upload).await,
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
            return self.ended(upload).await;
        };
        if state == State::Duplicate {
            metrics::finalized("duplicate");
            // The object is deleted at once if possible. The collector deletes it again later, since it may be put
            // again in the meantime.
            let _ = self.s3.delete(&upload.object_key).await;
        } else {
            metrics::finalized("new");
        }
        Ok(media)
    }

    /// Completes the multipart upload in the object store, unless that is done already. Returns `Err` with
    /// UPLOAD_INCOMPLETE if parts are missing.
    async fn assemble(&self, upload: &Upload) -> Result<(), ApiError> {
        let Some(multipart) = &upload.multipart else {
            metrics::finalized("incomplete");
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
            // If the object store refused, there is no object, and the caller finds that out when it asks for the
            // object.
            Ok(()) | Err(S3Error::Refused(_)) => Ok(()),
            Err(away) => Err(away.into()),
        }
    }

    /// Deletes an object that is not as declared, and returns UPLOAD_MISMATCH. The upload is marked as failed first, so
    /// that the collector deletes the object if this node cannot. An upload that has ended meanwhile stays as it is.
    async fn refuse(&self, upload: &Upload) -> Result<MediaId, ApiError> {
        if !self.store.fail(upload.id).await? {
            return self.ended(upload).await;
        }
        metrics::finalized("mismatch");
        tracing::warn!(upload = %upload.id, user = %upload.user, "an upload is not what was declared");
        self.s3.delete(&upload.object_key).await?;
        let words = "the store has something else than was declared; it is deleted";
        Err(ApiError::new(ErrorReason::UploadMismatch, words))
    }

    /// Returns the media that an upload has become which ended while this call looked at it, because another call was
    /// faster. Returns `Err` with UPLOAD_NOT_FOUND if it became none, because the collector has given it up.
    async fn ended(&self, upload: &Upload) -> Result<MediaId, ApiError> {
        let ended = self.store.upload(upload.user, upload.id).await?;
        ended.and_then(|ended| ended.media).ok_or_else(upload_not_found)
    }

    /// Returns a URL from which the user may read the media, or `Err` with MEDIA_NOT_FOUND if the user may not read it
    /// this way.
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

    /// Returns a ticket for a media that the user may read, or `Err` with MEDIA_NOT_FOUND if the user may not read it
    /// this way.
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
        let ticket = ticket.ok_or_else(media_not_found)?;
        metrics::forward();
        Ok(ticket)
    }

    /// Sets the user's picture to a media that the user has uploaded, or removes the picture if `media` is `None`.
    /// Returns `Err` with MEDIA_NOT_FOUND if it is not an upload of theirs, and with INVALID_FIELD if it is not an
    /// image of at most 16 MiB.
    pub async fn set_picture(
        &self,
        user: UserId,
        media: Option<MediaId>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let Some(media) = media else {
            return Ok(self.store.remove_picture(user).await?);
        };
        let found = self.store.readable(user, media, Through::OwnUpload).await?;
        let found = found.ok_or_else(media_not_found)?;
        if found.length > MEDIA_PART_BYTES || !found.content_type.starts_with("image/") {
            return Err(ApiError::invalid(
                "media_id",
                &format!("must be an image of at most {} MiB", MEDIA_PART_BYTES >> 20),
            ));
        }
        if !self.store.set_picture(user, media, now).await? {
            return Err(media_not_found());
        }
        Ok(())
    }

    /// Signs a ticket for the user. Returns `None` if the media is being collected.
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
