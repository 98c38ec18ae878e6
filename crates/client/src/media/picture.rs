//! Pictures of people and groups. They are not encrypted, because no message could carry their key to those who see
//! them.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, Limited};
use sha2::{Digest as _, Sha256};
use tern_proto::v1;
use tern_proto::v1::create_upload_response::Outcome;
use tern_types::limits::MEDIA_PART_BYTES;
use tern_types::{ChatId, MediaId, RequestId, Seq, UserId};

use tern_client_core::CallError;
use tern_client_core::backoff::Backoff;

use super::MediaError;
use super::upload::Failure;
use crate::client::Client;
use crate::driver::malformed;
use crate::http::HttpError;

/// The number of attempts to transfer a picture. With the delays between them they bridge some seconds in which the
/// object store is away, or a minute without a network, because the calls have attempts of their own. A person waits
/// for the picture, so there are not more of them.
const TRIES: u32 = 6;
/// The number of bytes that are handed to the connection at once.
const CHUNK: usize = 64 * 1024;
/// The time limit for the bytes of a picture that is downloaded.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The owner of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureOf {
    /// A group.
    Chat(ChatId),
    /// A person.
    User(UserId),
}

impl Client {
    /// Uploads an image of at most 16 MiB as a picture. It is not encrypted: everybody who may see the picture reads
    /// it as it is.
    ///
    /// # Errors
    ///
    /// [`MediaError::File`] if the file cannot be read, [`MediaError::TooLarge`], [`MediaError::Call`] if the platform
    /// refuses the picture, [`MediaError::Call`] and [`MediaError::Store`] after several attempts.
    pub async fn upload_picture(
        &self,
        path: &Path,
        content_type: &str,
    ) -> Result<v1::MediaTicket, MediaError> {
        if tokio::fs::metadata(path).await?.len() > MEDIA_PART_BYTES {
            return Err(MediaError::TooLarge);
        }
        let image = Bytes::from(tokio::fs::read(path).await?);
        let request = v1::CreateUploadRequest {
            request_id: RequestId::random().to_string(),
            length: image.len() as u64,
            part_sha256s: vec![Sha256::digest(&image).to_vec().into()],
            content_type: content_type.to_owned(),
            purpose: v1::MediaPurpose::Picture.into(),
            acting_user_id: String::new(),
        };
        let mut backoff = Backoff::new(rand::random());
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_picture(request.clone(), &image).await {
                Ok(ticket) => return Ok(ticket),
                Err(Failure::Again(why)) if tries < TRIES => {
                    tracing::debug!(%why, tries, "a picture is uploaded again");
                }
                Err(Failure::Again(why) | Failure::Anew(why) | Failure::Never(why)) => return Err(why),
            }
            tokio::time::sleep(backoff.next(None)).await;
        }
    }

    async fn try_picture(
        &self,
        request: v1::CreateUploadRequest,
        image: &Bytes,
    ) -> Result<v1::MediaTicket, Failure> {
        let upload = match self.api().create_upload(request).await?.outcome {
            Some(Outcome::Stored(ticket)) => return Ok(ticket),
            Some(Outcome::Upload(upload)) => upload,
            None => return Err(malformed("no outcome").into()),
        };
        let http = self.http().map_err(|error| Failure::Never(error.into()))?;
        for part in &upload.missing_parts {
            let image = image.clone();
            let chunks = (0..image.len()).step_by(CHUNK);
            let chunks = chunks.map(move |from| Ok(image.slice(from..image.len().min(from + CHUNK))));
            match http.put(&part.url, &part.headers, stream::iter(chunks)).await {
                // 412: the part is there, and the answer to an earlier PUT was lost.
                Ok(()) | Err(HttpError::Status(412, _)) => {}
                Err(error) => return Err(Failure::Again(MediaError::Store(error.to_string()))),
            }
        }
        let finalize = v1::FinalizeUploadRequest {
            upload_id: upload.upload_id,
            acting_user_id: String::new(),
        };
        let ticket = self.api().finalize_upload(finalize).await?.ticket;
        ticket.ok_or_else(|| malformed("no ticket").into())
    }

    /// Makes an uploaded image the user's own picture. `None` removes the picture. Fails if the platform does not
    /// answer or refuses the image.
    pub async fn set_picture(&self, picture: Option<&v1::MediaTicket>) -> Result<(), CallError> {
        let set = v1::SetUserPictureRequest {
            media_id: picture.map(|ticket| ticket.media_id.clone()).unwrap_or_default(),
            acting_user_id: String::new(),
        };
        self.api().set_user_picture(set).await?;
        Ok(())
    }

    /// Makes an uploaded image a group's picture; `None` removes the picture. Returns the seq of the entry that says
    /// so, or `None` if nothing changed. Fails if the platform does not answer or refuses the image, or if the user is
    /// no admin of the group.
    pub async fn set_chat_picture(
        &self,
        chat: ChatId,
        picture: Option<&v1::MediaTicket>,
    ) -> Result<Option<Seq>, CallError> {
        let set = v1::SetChatPictureRequest {
            chat_id: chat.to_string(),
            request_id: RequestId::random().to_string(),
            picture: picture.map(|ticket| v1::Attachment {
                media_id: ticket.media_id.clone(),
                ticket: ticket.ticket.clone(),
            }),
            acting_user_id: String::new(),
        };
        let seq = self.api().set_chat_picture(set).await?.seq;
        Ok((seq > 0).then_some(Seq(seq)))
    }

    /// Downloads a picture of at most 16 MiB, and checks its hash.
    ///
    /// # Errors
    ///
    /// [`MediaError::Corrupt`] if the hash is another, [`MediaError::Call`] if the platform refuses the picture,
    /// [`MediaError::Call`] and [`MediaError::Store`] after several attempts in which the platform or the object store
    /// did not answer.
    pub async fn download_picture(&self, of: PictureOf, media: MediaId) -> Result<Bytes, MediaError> {
        let mut backoff = Backoff::new(rand::random());
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_download(of, media).await {
                Err(why) if why.is_transient() && tries < TRIES => {
                    tracing::debug!(%why, tries, "a picture is read again");
                }
                done => return done,
            }
            tokio::time::sleep(backoff.next(None)).await;
        }
    }

    async fn try_download(&self, of: PictureOf, media: MediaId) -> Result<Bytes, MediaError> {
        let mut get = v1::GetDownloadRequest {
            media_id: media.to_string(),
            ..Default::default()
        };
        match of {
            PictureOf::Chat(chat) => get.chat_id = chat.to_string(),
            PictureOf::User(user) => get.user_id = user.to_string(),
        }
        let found = self.api().get_download(get).await?;
        let most = found.length.min(MEDIA_PART_BYTES);
        let most = usize::try_from(most).map_err(|_| MediaError::TooLarge)?;
        let answer = self.http()?.get(&found.url, 0).await;
        let body = answer
            .map_err(|error| MediaError::Store(error.to_string()))?
            .into_body();
        let read = tokio::time::timeout(TIMEOUT, Limited::new(body, most).collect()).await;
        let read = read.map_err(|_| MediaError::Store("it does not end".to_owned()))?;
        let image = read
            .map_err(|error| MediaError::Store(error.to_string()))?
            .to_bytes();
        if Sha256::digest(&image)[..] != *found.sha256 {
            return Err(MediaError::Corrupt("its hash is another"));
        }
        Ok(image)
    }
}
