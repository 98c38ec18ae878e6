//! Sends and receives files. A file is encrypted on this device, and uploaded to the object store with URLs
//! that the platform signs. A download takes the same way back.
//!
//! ```text
//!  file ─▶ cipher ─▶ hashes ─▶ CreateUpload ─▶ PUT each missing part, some at a time ─▶ FinalizeUpload ─▶ ticket
//!  message{body: AttachmentBody, attachments} ─▶ GetDownload ─▶ GET ─▶ cipher, hash ─▶ file
//! ```
//!
//! A file is never in memory as a whole: it is read, sealed, sent and written piece by piece.
//!
//! - [`cipher`]: pieces of AES-256-GCM, the hashes of the parts; pure code
//! - [`plan`]: makes the plan of an upload, which the store remembers ([`crate::upload_plan`])
//! - [`upload`], [`download`]: the transfers
//! - [`picture`]: pictures of people and groups, which are small and not encrypted
//!
//! [`crate::http`] makes the requests to the object store.

mod cipher;
mod download;
mod picture;
mod plan;
mod upload;

use std::path::Path;

use prost::Message as _;
use tern_proto::v1;
use tern_types::limits::{MAX_MEDIA_BYTES, MEDIA_PART_BYTES};
use tern_types::{ChatId, RequestId};

use tern_client_core::model::{FailureCode, Outgoing, QueuedMessage, SendState, To};

use crate::client::Client;
use crate::error::{CallError, ClientError};

pub use crate::http::Http;
pub use picture::PictureOf;

/// The progress of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The bytes of ciphertext that have been transferred.
    pub done: u64,
    /// The bytes of the whole ciphertext.
    pub total: u64,
}

/// A callback for the progress of a transfer. It is called from any thread, many times a second.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// An uploaded file, or one to be forwarded: the input of [`Client::send_files`].
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// The file's name, key and hash, which become a part of the message's body.
    pub file: v1::AttachedFile,
    /// The platform's ticket, with which a message may refer to the file.
    pub ticket: v1::MediaTicket,
}

/// The reason why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The local file cannot be read or written.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// A call to the platform failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The client or its store failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The object store failed in each of several attempts. The text is for a developer to read.
    #[error("the object store: {0}")]
    Store(String),
    /// The file was changed while it was uploaded.
    #[error("the file was changed while it was uploaded")]
    Changed,
    /// The file is larger than the platform stores.
    #[error("too large: a file has at most {} GiB, a picture {} MiB", MAX_MEDIA_BYTES >> 30, MEDIA_PART_BYTES >> 20)]
    TooLarge,
    /// The content is not that of the file that was sent. Nothing of it is kept.
    #[error("what came is not the file that was sent: {0}")]
    Corrupt(&'static str),
}

impl MediaError {
    /// Returns whether another attempt may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(_) => true,
            Self::Call(error) => error.is_transient(),
            Self::File(_) | Self::Client(_) | Self::Changed | Self::TooLarge | Self::Corrupt(_) => false,
        }
    }
}

impl Client {
    /// Encrypts a file under a new key and uploads it. If the upload is interrupted or the app killed, the same call
    /// goes on where it was, for up to 23 hours.
    ///
    /// `content_type` is for the recipients of the file; the object store does not learn it.
    ///
    /// # Errors
    ///
    /// [`MediaError::File`] if the file cannot be read, [`MediaError::Changed`] if it changes meanwhile,
    /// [`MediaError::TooLarge`], [`MediaError::Call`] if the platform refuses the file, [`MediaError::Call`] and
    /// [`MediaError::Store`] after several attempts over some minutes, [`MediaError::Client`].
    pub async fn upload(
        &self,
        path: &Path,
        content_type: &str,
        progress: OnProgress<'_>,
    ) -> Result<Attachment, MediaError> {
        upload::upload(self, path, content_type, progress).await
    }

    /// Sends a message with these files, at most 32. Returns when the message is durable in the outbox, and fails, as
    /// [`Client::send_message`] does.
    pub async fn send_files(
        &self,
        to: impl Into<To>,
        text: &str,
        files: Vec<Attachment>,
    ) -> Result<RequestId, ClientError> {
        self.send_message(with_files(to, text, files)).await
    }

    /// Sends a message again that was refused because its media tickets had expired in the outbox
    /// ([`FailureCode::MediaTicket`]). The message has new tickets and the same request_id. Does nothing if there is no
    /// such message. There are new tickets only for files that this user uploaded; a forwarded file has to be forwarded
    /// anew.
    ///
    /// # Errors
    ///
    /// [`MediaError::Call`] if the platform gives no new ticket, [`MediaError::Client`]. The refused message then stays
    /// in the outbox.
    ///
    /// [`FailureCode::MediaTicket`]: crate::FailureCode
    pub async fn send_files_again(&self, request: RequestId) -> Result<(), MediaError> {
        let refused = |queued: &QueuedMessage| {
            let ticket =
                matches!(&queued.state, SendState::Failed { code, .. } if *code == FailureCode::MediaTicket);
            queued.message.request == request && ticket
        };
        let Some(queued) = self.outbox().await?.into_iter().find(refused) else {
            return Ok(());
        };
        let mut message = queued.message;
        self.renew_tickets(None, &mut message.envelope).await?;
        self.send_again(request, message).await?;
        Ok(())
    }

    /// Gets new tickets for the attachments of an envelope. `chat` is a chat with a message that has them; `None` says
    /// that they are this user's own uploads.
    pub(crate) async fn renew_tickets(
        &self,
        chat: Option<ChatId>,
        envelope: &mut v1::Envelope,
    ) -> Result<(), CallError> {
        let chat_id = chat.map(|chat| chat.to_string()).unwrap_or_default();
        for attachment in &mut envelope.attachments {
            let request = v1::ForwardMediaRequest {
                chat_id: chat_id.clone(),
                media_id: attachment.media_id.clone(),
                ..Default::default()
            };
            let ticket = self.api().forward_media(request).await?.ticket;
            attachment.ticket = ticket.unwrap_or_default().ticket;
        }
        Ok(())
    }

    /// Downloads a file of a message in `chat` to the path `to`. The content is written to a temporary file beside
    /// it, which takes the place of `to` when all of it has come and its hash is right. An existing file is
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`MediaError::Call`] if the platform refuses the file, [`MediaError::Call`] and [`MediaError::Store`] after
    /// several attempts in which the platform or the object store did not answer, [`MediaError::Corrupt`] if the
    /// content is not that of `file`, [`MediaError::TooLarge`], [`MediaError::File`].
    pub async fn download(
        &self,
        chat: ChatId,
        file: &v1::AttachedFile,
        to: &Path,
        progress: OnProgress<'_>,
    ) -> Result<(), MediaError> {
        download::download(self, chat, file, to, progress).await
    }

    /// Prepares a file of a message in `chat` for another message, and returns it with a new ticket. Its bytes are not
    /// uploaded again. Fails if the platform does not answer, or if this user may not download the file.
    pub async fn forward(&self, chat: ChatId, file: v1::AttachedFile) -> Result<Attachment, CallError> {
        let request = v1::ForwardMediaRequest {
            chat_id: chat.to_string(),
            media_id: file.media_id.clone(),
            acting_user_id: String::new(),
        };
        let ticket = self.api().forward_media(request).await?.ticket;
        Ok(Attachment {
            file,
            ticket: ticket.unwrap_or_default(),
        })
    }
}

/// Builds a message with these files.
pub fn with_files(to: impl Into<To>, text: &str, files: Vec<Attachment>) -> Outgoing {
    let attachments = files.iter().map(|file| v1::Attachment {
        media_id: file.ticket.media_id.clone(),
        ticket: file.ticket.ticket.clone(),
    });
    let attachments = attachments.collect();
    let body = v1::AttachmentBody {
        text: text.to_owned(),
        files: files.into_iter().map(|file| file.file).collect(),
    };
    let mut message = Outgoing::new(to, body.encode_to_vec());
    message.envelope.attachments = attachments;
    message
}

/// Turns a name that somebody else chose into a safe file name of at most 120 bytes of UTF-8. Directories are
/// cut off, and so are dots and spaces at both ends. Control characters, characters that turn the direction
/// of text, and characters that a file system may refuse become `_`. If nothing is left, the name is `file`.
/// Example: `../../.ssh` becomes `ssh`.
pub fn safe_name(name: &str) -> String {
    const MAX_BYTES: usize = 120;
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last
        .chars()
        .map(|c| {
            // These characters reverse the direction of text, so that the name would look like another one.
            let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if turns || c.is_control() || "<>:\"|?*".contains(c) {
                '_'
            } else {
                c
            }
        })
        .collect();
    let mut name = plain.trim_matches(['.', ' ']).to_owned();
    while name.len() > MAX_BYTES {
        name.pop();
    }
    if name.is_empty() { "file".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tern_types::MediaId;

    use super::*;

    fn file(media: MediaId) -> Attachment {
        Attachment {
            file: v1::AttachedFile {
                media_id: media.to_string(),
                name: "a.png".to_owned(),
                ..Default::default()
            },
            ticket: v1::MediaTicket {
                media_id: media.to_string(),
                ticket: vec![7; 40].into(),
                expires_at_ms: 0,
            },
        }
    }

    #[test]
    fn a_message_carries_tickets_outside_and_keys_inside() {
        let media = MediaId::random();
        let message = with_files(ChatId(uuid::Uuid::nil()), "look", vec![file(media)]);
        assert_eq!(message.envelope.attachments.len(), 1);
        assert_eq!(message.envelope.attachments[0].media_id, media.to_string());
        let read = message.attached().unwrap();
        assert_eq!((read.text.as_str(), read.files.len()), ("look", 1));
        let plain = Outgoing::new(ChatId(uuid::Uuid::nil()), "text");
        assert_eq!(plain.attached(), None);
    }

    #[test]
    fn files_that_a_message_does_not_refer_to_are_left_out() {
        let mut message = with_files(ChatId(uuid::Uuid::nil()), "", vec![file(MediaId::random())]);
        let mut body = message.attached().unwrap();
        body.files.push(file(MediaId::random()).file);
        body.files.push(v1::AttachedFile::default());
        message.body = body.encode_to_vec().into();
        assert_eq!(message.attached().unwrap().files.len(), 1);
        // A body of another kind is not a list of files.
        message.body = Bytes::from_static(&[0xff; 9]);
        assert_eq!(message.attached(), None);
    }

    #[test]
    fn names_of_others_stay_in_the_directory() {
        for (name, safe) in [
            ("holiday.jpg", "holiday.jpg"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\x.exe", "x.exe"),
            (".ssh", "ssh"),
            ("..", "file"),
            ("", "file"),
            ("a/", "file"),
            ("a\u{1b}[31mb\n.txt", "a_[31mb_.txt"),
            ("photo\u{202e}gnp.exe", "photo_gnp.exe"),
            ("Grüße aus Köln.png", "Grüße aus Köln.png"),
        ] {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
        assert!(safe_name(&"ü".repeat(500)).len() <= 120);
    }
}
