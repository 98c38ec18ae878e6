//! Files are sent, read and forwarded, and others are kept out.

use std::sync::Mutex;

use bytes::Bytes;
use tern_client::media::Http;
use tern_client::{MediaError, Progress, Tls};
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason, SendErrorCode};
use tern_tests::{Api, User};
use tern_types::{ChatId, RequestId};
use tonic::Code;

use crate::MIB;
use crate::studio::Studio;

#[tokio::test]
async fn a_picture_arrives_byte_for_byte_is_forwarded_and_stored_once() {
    let studio = Studio::start().await;
    let [alice, bob, carol] = studio.world.users(["alice", "bob", "carol"]).await;
    let (his, hers, carols) = (
        studio.person(&bob).await,
        studio.person(&alice).await,
        studio.person(&carol).await,
    );
    let picture = studio.file("beach.png", 3 * MIB + 7);
    let bytes = std::fs::read(&picture).unwrap();
    let told = Mutex::new(Vec::new());
    let tell = |progress: Progress| told.lock().unwrap().push(progress);
    let uploaded = his.client.upload(&picture, "image/png", &tell).await.unwrap();
    let last = told.lock().unwrap().last().copied().unwrap();
    assert_eq!(last.done, last.total);
    assert!(told.lock().unwrap().len() > 10, "it is told of on the way");
    his.client
        .send_files(alice.id, "look", vec![uploaded])
        .await
        .unwrap();

    let (entry, body) = hers.receives().await;
    assert_eq!(body.text, "look");
    let file = &body.files[0];
    assert_eq!(
        (file.name.as_str(), file.length),
        ("beach.png", bytes.len() as u64)
    );
    let to = studio.files.path().join("saved.png");
    assert_eq!(hers.download(entry.chat, file, &to).await.unwrap(), bytes);

    // The same bytes are forwarded and not uploaded again.
    let forwarded = hers.client.forward(entry.chat, file.clone()).await.unwrap();
    hers.client
        .send_files(carol.id, "", vec![forwarded])
        .await
        .unwrap();
    let (entry, body) = carols.receives().await;
    let to = studio.files.path().join("carols.png");
    assert_eq!(
        carols.download(entry.chat, &body.files[0], &to).await.unwrap(),
        bytes
    );
    assert_eq!(
        (studio.count("media").await, studio.count("media_refs").await),
        (1, 2)
    );
    assert_eq!(studio.objects(), 1);

    // Carol is in no chat with Bob: she may reach the file through her own chat only.
    let through_theirs = carols
        .client
        .forward(ChatId::direct(alice.id, bob.id), file.clone())
        .await;
    assert_eq!(through_theirs.unwrap_err().reason, ErrorReason::MediaNotFound);
    studio.world.end().await;
}

#[tokio::test]
async fn what_is_stored_is_ciphertext_of_no_type() {
    let studio = Studio::start().await;
    let alice = studio.world.user("alice").await;
    let hers = studio.person(&alice).await;
    let secret = studio.files.path().join("secret.txt");
    let text = "the launch code is 1234 ".repeat(10_000);
    std::fs::write(&secret, &text).unwrap();
    hers.upload(&secret).await.unwrap();
    let dir = studio
        .files
        .path()
        .join("s3/objects")
        .join(tern_local::s3::BUCKET);
    let objects: Vec<Vec<u8>> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| std::fs::read(entry.path()).unwrap())
        .collect();
    assert_eq!(objects.len(), 1);
    let plain = objects[0].windows(11).any(|window| window == b"launch code");
    assert!(!plain && objects[0].len() > text.len());
    studio.world.end().await;
}

#[tokio::test]
async fn members_read_it_since_they_joined_and_until_they_leave() {
    let studio = Studio::start().await;
    let [alice, bob, carol] = studio.world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (studio.person(&alice).await, studio.person(&bob).await);
    let carols = studio.person(&carol).await;
    let group = studio.world.group(&[&alice, &bob]).await;
    let file = studio.file("plan.pdf", 5000);
    let uploaded = hers.upload(&file).await.unwrap();
    hers.client
        .send_files(group, "", vec![uploaded.clone()])
        .await
        .unwrap();
    let (_, body) = his.receives().await;
    let to = studio.files.path().join("x.pdf");
    his.download(group, &body.files[0], &to).await.unwrap();

    let add = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: vec![carol.id.to_string()],
        acting_user_id: String::new(),
    };
    hers.client.api().add_members(add).await.unwrap();
    let refused = |result: Result<Vec<u8>, MediaError>| match result {
        Err(MediaError::Call(error)) => error.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(carols.download(group, &body.files[0], &to).await),
        ErrorReason::MediaNotFound,
        "it was sent before she joined"
    );
    hers.client
        .send_files(group, "again", vec![uploaded])
        .await
        .unwrap();
    let (_, again) = carols.receives().await;
    carols.download(group, &again.files[0], &to).await.unwrap();

    let remove = v1::RemoveMemberRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_id: carol.id.to_string(),
        acting_user_id: String::new(),
    };
    hers.client.api().remove_member(remove).await.unwrap();
    assert_eq!(
        refused(carols.download(group, &again.files[0], &to).await),
        ErrorReason::MediaNotFound,
        "she was removed"
    );
    studio.world.end().await;
}

#[tokio::test]
async fn a_ticket_is_worth_nothing_to_anybody_else() {
    let studio = Studio::start().await;
    let [alice, bob, eve] = studio.world.users(["alice", "bob", "eve"]).await;
    let (hers, his) = (studio.person(&alice).await, studio.person(&bob).await);
    let evil = studio.world.device(&eve).await;
    let uploaded = hers.upload(&studio.file("a.png", 1000)).await.unwrap();
    hers.client
        .send_files(bob.id, "", vec![uploaded.clone()])
        .await
        .unwrap();
    his.receives().await;

    let api = Api::new(studio.world.channel(0), &evil.access_token);
    let attach = |media_id: &str, ticket: &Bytes| v1::SendMessageRequest {
        peer_user_id: bob.id.to_string(),
        request_id: RequestId::random().to_string(),
        envelope: v1::Envelope {
            attachments: vec![v1::Attachment {
                media_id: media_id.to_owned(),
                ticket: ticket.clone(),
            }],
            ..Default::default()
        }
        .encoded(),
        ..Default::default()
    };
    let media = uploaded.ticket.media_id.as_str();
    for ticket in [
        uploaded.ticket.ticket.clone(),
        Bytes::new(),
        Bytes::from_static(&[0; 40]),
    ] {
        let refused = api
            .chats()
            .send_message(attach(media, &ticket))
            .await
            .unwrap_err();
        assert_eq!(reason_of(&refused), Some(ErrorReason::MediaTicket), "{refused:?}");
    }
    // Knowing the id of a media gives no access.
    for chat_id in [String::new(), ChatId::direct(alice.id, bob.id).to_string()] {
        let get = v1::GetDownloadRequest {
            chat_id: chat_id.clone(),
            media_id: media.to_owned(),
            ..Default::default()
        };
        let status = api.media().get_download(get).await.unwrap_err();
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::NotFound, Some(ErrorReason::MediaNotFound))
        );
    }
    assert_eq!(studio.count("media_refs").await, 1);
    studio.world.end().await;
}

#[tokio::test]
async fn a_back_end_uploads_in_a_users_name() {
    let studio = Studio::start().await;
    let [alice, bob] = studio.world.users(["alice", "bob"]).await;
    let api = studio.world.back_end().await;
    let nobody = api.media().create_upload(hello(String::new())).await.unwrap_err();
    assert_eq!(reason_of(&nobody), Some(ErrorReason::InvalidField));
    let http = Http::new(&Tls::System).unwrap();
    let ticket = upload_hello(api, &http, &alice).await;
    let media_id = ticket.media_id.clone();
    let send = v1::SendMessageRequest {
        peer_user_id: bob.id.to_string(),
        request_id: RequestId::random().to_string(),
        envelope: v1::Envelope {
            attachments: vec![v1::Attachment {
                media_id: ticket.media_id,
                ticket: ticket.ticket,
            }],
            ..Default::default()
        }
        .encoded(),
        acting_user_id: alice.id.to_string(),
        ..Default::default()
    };
    let sent = api.chats().send_message(send).await.unwrap().into_inner();
    assert!(sent.sent.is_some(), "{sent:?}");
    // Bob's app can read it.
    let his = studio.person(&bob).await;
    let get = v1::GetDownloadRequest {
        chat_id: ChatId::direct(alice.id, bob.id).to_string(),
        media_id,
        ..Default::default()
    };
    let found = his.client.api().get_download(get).await.unwrap();
    assert_eq!((found.length, found.content_type.as_str()), (5, "text/plain"));
    assert!(http.get(&found.url, 0).await.is_ok());
    studio.world.end().await;
}

/// Returns the request for an upload of the text "hello" in the name of this user.
fn hello(acting_user_id: String) -> v1::CreateUploadRequest {
    v1::CreateUploadRequest {
        request_id: RequestId::random().to_string(),
        length: 5,
        part_sha256s: vec![sha256(b"hello")],
        content_type: "text/plain".to_owned(),
        purpose: v1::MediaPurpose::Attachment.into(),
        acting_user_id,
    }
}

async fn upload_hello(api: &Api, http: &Http, user: &User) -> v1::MediaTicket {
    let outcome = api
        .media()
        .create_upload(hello(user.id.to_string()))
        .await
        .unwrap()
        .into_inner()
        .outcome;
    let Some(v1::create_upload_response::Outcome::Upload(upload)) = outcome else {
        panic!("{outcome:?}")
    };
    let part = &upload.missing_parts[0];
    let body = futures::stream::iter([Ok(Bytes::from_static(b"hello"))]);
    http.put(&part.url, &part.headers, body).await.unwrap();
    let finalize = v1::FinalizeUploadRequest {
        upload_id: upload.upload_id,
        acting_user_id: user.id.to_string(),
    };
    api.media()
        .finalize_upload(finalize)
        .await
        .unwrap()
        .into_inner()
        .ticket
        .unwrap()
}

fn sha256(bytes: &[u8]) -> Bytes {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).to_vec().into()
}

#[tokio::test]
async fn a_message_whose_ticket_has_ended_is_sent_again_with_a_new_one() {
    let studio = Studio::start().await;
    let [alice, bob] = studio.world.users(["alice", "bob"]).await;
    let (hers, his) = (studio.person(&alice).await, studio.person(&bob).await);
    let mut old = hers.upload(&studio.file("a.png", 1000)).await.unwrap();
    // A message that waits in the outbox for a day has such a ticket too.
    old.ticket.ticket = vec![0; 40].into();
    let request = hers.client.send_files(bob.id, "late", vec![old]).await.unwrap();
    hers.refused(request, SendErrorCode::MediaTicket).await;
    assert_eq!(studio.count("media_refs").await, 0);
    hers.client.send_files_again(request).await.unwrap();
    let (entry, body) = his.receives().await;
    assert_eq!((entry.request, body.text.as_str()), (Some(request), "late"));
    let to = studio.files.path().join("late.png");
    his.download(entry.chat, &body.files[0], &to).await.unwrap();
    studio.world.end().await;
}
