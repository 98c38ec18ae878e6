//! The gRPC service: each call is parsed, handed to [`Media`], and its result turned into a message.

use std::sync::Arc;

use tern_identity::principal::{Principal, Scope};
use tern_proto::v1::media_server::Media as MediaApi;
use tern_proto::v1::{self, ErrorReason, MediaPurpose};
use tern_proto::{ApiError, parse};
use tern_types::{ChatId, Clock, MediaId, UserId};
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::domain::declared::Declared;
use crate::media::{Created, Media, Missing, Ticket};
use crate::store::access::Through;

/// The service `tern.v1.Media`.
#[derive(Clone)]
pub struct Service {
    media: Arc<Media>,
    calls: TaskTracker,
}

impl Service {
    /// Makes the service. `calls` counts the calls under way.
    pub fn new(media: Arc<Media>, calls: TaskTracker) -> Self {
        Self { media, calls }
    }

    async fn run<T>(&self, call: impl Future<Output = Result<T, ApiError>>) -> Result<Response<T>, Status> {
        let _under_way = self.calls.token();
        Ok(Response::new(call.await?))
    }

    /// Returns the user in whose name a call acts. A device acts as its own user, and a back end with `scope` acts as
    /// the user that it names. Returns `Err` if the caller may not do so, or the named user does not exist.
    async fn person(
        &self,
        metadata: &MetadataMap,
        acting_user_id: &str,
        scope: Scope,
    ) -> Result<UserId, ApiError> {
        let acting = parse::optional_id("acting_user_id", acting_user_id)?;
        match (Principal::read(metadata)?, acting) {
            (Principal::Device { .. }, Some(_)) => Err(ApiError::new(
                ErrorReason::NotForDevices,
                "a device acts as its own user only",
            )),
            (Principal::Device { user, .. }, None) => Ok(user),
            (key @ Principal::Key { .. }, acting) => {
                key.require(scope)?;
                let named = acting.filter(|user| *user != UserId::SYSTEM);
                let user =
                    named.ok_or_else(|| ApiError::invalid("acting_user_id", "is needed from back ends"))?;
                if !self.media.store.has_user(user).await? {
                    let message = format!("no user has the id {user}");
                    return Err(ApiError::new(ErrorReason::ActingUserNotFound, message));
                }
                Ok(user)
            }
        }
    }
}

#[tonic::async_trait]
impl MediaApi for Service {
    async fn create_upload(
        &self,
        request: Request<v1::CreateUploadRequest>,
    ) -> Result<Response<v1::CreateUploadResponse>, Status> {
        self.run(async {
            let (metadata, _, create) = request.into_parts();
            let user = self
                .person(&metadata, &create.acting_user_id, Scope::MediaWrite)
                .await?;
            let request = parse::id("request_id", &create.request_id)?;
            let purpose = MediaPurpose::try_from(create.purpose)
                .map_err(|_| ApiError::invalid("purpose", "is not known to this server"))?;
            let declared =
                Declared::parse(create.length, &create.part_sha256s, &create.content_type, purpose)?;
            let creating = self.media.create(user, request, &declared, Clock::wall());
            // The future is boxed because it contains the object store's calls, and is too large for the stack.
            let created = Box::pin(creating).await?;
            let outcome = match created {
                Created::Stored(ticket) => {
                    v1::create_upload_response::Outcome::Stored(ticket_message(ticket))
                }
                Created::Missing(missing) => {
                    v1::create_upload_response::Outcome::Upload(upload_message(missing))
                }
            };
            Ok(v1::CreateUploadResponse {
                outcome: Some(outcome),
            })
        })
        .await
    }

    async fn finalize_upload(
        &self,
        request: Request<v1::FinalizeUploadRequest>,
    ) -> Result<Response<v1::FinalizeUploadResponse>, Status> {
        self.run(async {
            let (metadata, _, finalize) = request.into_parts();
            let user = self
                .person(&metadata, &finalize.acting_user_id, Scope::MediaWrite)
                .await?;
            let upload = parse::id("upload_id", &finalize.upload_id)?;
            let ticket = self.media.finalize(user, upload, Clock::wall()).await?;
            Ok(v1::FinalizeUploadResponse {
                ticket: Some(ticket_message(ticket)),
            })
        })
        .await
    }

    async fn get_download(
        &self,
        request: Request<v1::GetDownloadRequest>,
    ) -> Result<Response<v1::GetDownloadResponse>, Status> {
        self.run(async {
            let (metadata, _, get) = request.into_parts();
            let user = self
                .person(&metadata, &get.acting_user_id, Scope::MediaRead)
                .await?;
            let (media, through) = door(&get.media_id, &get.chat_id, &get.user_id)?;
            let download = self.media.download(user, media, through, Clock::wall()).await?;
            Ok(v1::GetDownloadResponse {
                url: download.url,
                url_expires_at_ms: download.ends_at.0,
                length: download.media.length,
                content_type: download.media.content_type,
                sha256: download.media.content_id.into(),
            })
        })
        .await
    }

    async fn forward_media(
        &self,
        request: Request<v1::ForwardMediaRequest>,
    ) -> Result<Response<v1::ForwardMediaResponse>, Status> {
        self.run(async {
            let (metadata, _, forward) = request.into_parts();
            let user = self
                .person(&metadata, &forward.acting_user_id, Scope::MediaWrite)
                .await?;
            let (media, through) = door(&forward.media_id, &forward.chat_id, "")?;
            let ticket = self.media.forward(user, media, through, Clock::wall()).await?;
            Ok(v1::ForwardMediaResponse {
                ticket: Some(ticket_message(ticket)),
            })
        })
        .await
    }

    async fn set_user_picture(
        &self,
        request: Request<v1::SetUserPictureRequest>,
    ) -> Result<Response<v1::SetUserPictureResponse>, Status> {
        self.run(async {
            let (metadata, _, set) = request.into_parts();
            let user = self
                .person(&metadata, &set.acting_user_id, Scope::MediaWrite)
                .await?;
            let media = parse::optional_id("media_id", &set.media_id)?;
            self.media.set_picture(user, media, Clock::wall()).await?;
            Ok(v1::SetUserPictureResponse {})
        })
        .await
    }
}

/// Reads which media is asked for, and by which right: as an attachment in a chat, as a user's picture, or as the
/// caller's own upload if neither is named. Returns `Err` with INVALID_FIELD if an id is malformed or both are named.
fn door(media_id: &str, chat_id: &str, user_id: &str) -> Result<(MediaId, Through), ApiError> {
    let media = parse::id("media_id", media_id)?;
    let chat: Option<ChatId> = parse::optional_id("chat_id", chat_id)?;
    let user: Option<UserId> = parse::optional_id("user_id", user_id)?;
    let through = match (chat, user) {
        (Some(chat), None) => Through::Chat(chat),
        (None, Some(user)) => Through::PictureOf(user),
        (None, None) => Through::OwnUpload,
        (Some(_), Some(_)) => return Err(ApiError::invalid("user_id", "or chat_id, not both")),
    };
    Ok((media, through))
}

fn ticket_message(ticket: Ticket) -> v1::MediaTicket {
    v1::MediaTicket {
        media_id: ticket.media.to_string(),
        ticket: ticket.ticket.into(),
        expires_at_ms: ticket.expires_at.0,
    }
}

fn upload_message(missing: Missing) -> v1::Upload {
    let parts = missing.parts.into_iter().map(|(part, signed)| {
        let headers = signed.headers.into_iter();
        v1::UploadPart {
            number: part.number,
            offset: part.offset,
            length: part.length,
            url: signed.url,
            headers: headers
                .map(|(name, value)| v1::HttpHeader { name, value })
                .collect(),
        }
    });
    v1::Upload {
        upload_id: missing.upload.to_string(),
        missing_parts: parts.collect(),
        part_count: u32::try_from(missing.part_count).unwrap_or(u32::MAX),
        urls_expire_at_ms: missing.urls_end_at.0,
        expires_at_ms: missing.ends_at.0,
    }
}
