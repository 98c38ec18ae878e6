//! The files that these tests attach to messages.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tern_client::Tls;
use tern_client::media::Http;
use tern_proto::v1::{self, create_upload_response::Outcome};
use tern_types::{ChatId, RequestId};
use tonic::Status;

use crate::Api;

/// Uploads a file as this device's person.
pub async fn upload(api: &Api, text: &'static str) -> v1::Attachment {
    let create = v1::CreateUploadRequest {
        request_id: RequestId::random().to_string(),
        length: text.len() as u64,
        content_type: "text/plain".to_owned(),
        part_sha256s: vec![Sha256::digest(text).to_vec().into()],
        ..Default::default()
    };
    let created = api
        .media()
        .create_upload(create)
        .await
        .expect("an upload")
        .into_inner();
    let Some(Outcome::Upload(upload)) = created.outcome else {
        panic!("{created:?}")
    };
    let part = &upload.missing_parts[0];
    let http = Http::new(&Tls::System).expect("a client");
    let body = futures::stream::iter([Ok(Bytes::from_static(text.as_bytes()))]);
    http.put(&part.url, &part.headers, body).await.expect("a PUT");
    let finalize = v1::FinalizeUploadRequest {
        upload_id: upload.upload_id,
        ..Default::default()
    };
    let finalized = api.media().finalize_upload(finalize).await.expect("media");
    let ticket = finalized.into_inner().ticket.expect("a ticket");
    v1::Attachment {
        media_id: ticket.media_id,
        ticket: ticket.ticket,
    }
}

/// Asks for the URL of a file in a chat.
pub async fn download(api: &Api, chat: ChatId, file: &v1::Attachment) -> Result<(), Status> {
    let get = v1::GetDownloadRequest {
        chat_id: chat.to_string(),
        media_id: file.media_id.clone(),
        ..Default::default()
    };
    api.media().get_download(get).await.map(drop)
}
