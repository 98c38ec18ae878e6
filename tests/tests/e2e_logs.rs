//! The logs of a busy day are JSON and contain nothing secret, and a call is found by its request id on the node that
//! did the work.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tern_local::push::PushServers;
use tern_local::until;
use tern_proto::v1;
use tern_tests::world::BOUND;
use tern_tests::{Api, Device, Phone, World};
use tern_types::{ChatId, RequestId};

const BODY: &str = "what-they-said-to-each-other";
const TITLE: &str = "the-name-of-their-group";
const PUSH_TOKEN: &str = "where-his-phone-is-reached";
/// The log filter: the platform at level debug, and the libraries that could log the platform's requests.
const LOG: &str = "info,tern=debug,tern_accounts=debug,tern_chat=debug,tern_client=debug,tern_gateway=debug,tern_media=debug,tern_push=debug,\
                   tern_cluster=debug,tern_store=debug,tern_transport=debug,tern_presence=debug,sqlx=debug,tonic=debug,tower=debug,aws_sdk_s3=debug";

fn logs(dir: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(dir.join("logs")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let nodes = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    nodes
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| {
            ["gateway", "chat", "presence", "accounts", "media", "push"]
                .iter()
                .any(|role| name.starts_with(role))
        })
        .collect()
}

/// Uploads a picture, sends it, and asks for its download. Returns the signatures of its URLs, which are secret.
async fn picture(api: &Api, chat: ChatId) -> Vec<String> {
    let bytes = Bytes::from_static(b"a picture");
    let create = v1::CreateUploadRequest {
        request_id: RequestId::random().to_string(),
        length: bytes.len() as u64,
        part_sha256s: vec![Sha256::digest(&bytes).to_vec().into()],
        ..Default::default()
    };
    let created = api.media().create_upload(create).await.unwrap().into_inner();
    let Some(v1::create_upload_response::Outcome::Upload(upload)) = created.outcome else {
        panic!("{created:?}")
    };
    let part = upload.missing_parts[0].clone();
    let http = tern_client::media::Http::new(&tern_client::Tls::System).unwrap();
    let body = futures::stream::iter([Ok(bytes)]);
    http.put(&part.url, &part.headers, body).await.unwrap();
    let finalize = v1::FinalizeUploadRequest {
        upload_id: upload.upload_id,
        ..Default::default()
    };
    let finalized = api.media().finalize_upload(finalize).await.unwrap().into_inner();
    let ticket = finalized.ticket.unwrap();
    let attachment = v1::Attachment {
        media_id: ticket.media_id.clone(),
        ticket: ticket.ticket,
    };
    let send = v1::SendMessageRequest {
        chat_id: chat.to_string(),
        request_id: RequestId::random().to_string(),
        envelope: v1::Envelope {
            attachments: vec![attachment],
            ..Default::default()
        }
        .encoded(),
        ..Default::default()
    };
    api.chats().send_message(send).await.unwrap();
    let download = v1::GetDownloadRequest {
        chat_id: chat.to_string(),
        media_id: ticket.media_id,
        ..Default::default()
    };
    let download = api.media().get_download(download).await.unwrap().into_inner();
    let signature = |url: &str| url.split_once("X-Amz-Signature=").unwrap().1.to_owned();
    vec![signature(&part.url), signature(&download.url)]
}

#[tokio::test]
async fn logs_hold_no_message_no_token_no_key_and_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let servers = PushServers::start(dir.path()).await.unwrap();
    let world = World::with(|builder| {
        builder
            .media(1)
            .push(&servers)
            .env("TERN_LOG", LOG)
            .env("TERN_LOG_FORMAT", "json")
    })
    .await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.device(&alice).await, world.device(&bob).await);
    let (phone, other) = (Phone::new(&world, &hers), Phone::new(&world, &his));
    phone.connect().await;
    other.connect().await;
    let sent = phone.say(bob.id, BODY).await;
    let chat = ChatId::direct(alice.id, bob.id);
    other.has(chat, sent.seq).await;
    other.read(chat, sent.seq).await;
    let api = Api::new(world.channel(0), &hers.access_token);
    let group = v1::CreateGroupRequest {
        request_id: RequestId::random().to_string(),
        title: TITLE.to_owned(),
        member_user_ids: vec![bob.id.to_string()],
        ..Default::default()
    };
    api.chats().create_group(group).await.unwrap();
    let mut secrets = picture(&api, chat).await;
    is_pushed(&world, &servers, &phone, (&his, &other)).await;
    let refresh = v1::RefreshTokenRequest {
        refresh_token: his.refresh_token.clone(),
    };
    let renewed = api.auth().refresh_token(refresh).await.unwrap().into_inner();
    // Errors are logged more readily than successes.
    let forged = format!("{}x", hers.access_token);
    are_refused(&world, &api, &forged, &format!("{}x", his.refresh_token)).await;
    let name = "console-4711";
    revoke_as(&world, &his, name).await;

    secrets.extend(secrets_of(&world));
    secrets.extend([BODY, TITLE, PUSH_TOKEN, &forged].map(str::to_owned));
    secrets.extend([&hers, &his].map(|device| device.access_token.clone()));
    secrets.extend([&hers, &his].map(|device| device.refresh_token.clone()));
    let renewed = renewed.tokens.unwrap();
    secrets.extend([renewed.access_token, renewed.refresh_token]);
    assert!(secrets.iter().all(|secret| secret.len() > 5), "{secrets:?}");

    let logs = logs(world.dir());
    assert_eq!(
        logs.len(),
        8,
        "two gateways, two chat nodes and one of each other role"
    );
    let mut lines = 0;
    for (node, text) in &logs {
        for secret in &secrets {
            lacks(node, text, secret);
        }
        lines += json_lines(node, text);
    }
    assert!(lines > 50, "{lines}");
    let (_, accounts) = logs.iter().find(|(node, _)| node == "accounts-0").unwrap();
    let revoked = accounts
        .lines()
        .find(|line| line.contains("device revoked"))
        .unwrap();
    assert!(revoked.contains(name), "{revoked}");
    world.end().await;
}

/// Sends him a message while he is away, and waits for the push.
async fn is_pushed(world: &World, servers: &PushServers, sender: &Phone, (device, phone): (&Device, &Phone)) {
    let token = v1::FcmToken {
        token: PUSH_TOKEN.to_owned(),
        app: "com.example.chat".to_owned(),
    };
    let token = v1::PushToken {
        provider: Some(v1::push_token::Provider::Fcm(token)),
        ..Default::default()
    };
    let set = v1::SetPushTokenRequest { token: Some(token) };
    let api = Api::new(world.channel(0), &device.access_token);
    api.devices().set_push_token(set).await.unwrap();
    phone.disconnect().await;
    sender.say(device.user, BODY).await;
    until::holds("the push arrives", BOUND, || async {
        Ok(!servers.fcm.received().is_empty())
    })
    .await
    .unwrap();
}

/// Makes calls with an access token and a refresh token that are refused.
async fn are_refused(world: &World, api: &Api, access_token: &str, refresh_token: &str) {
    let mut refused = Api::new(world.channel(1), access_token).chats();
    refused
        .list_chats(v1::ListChatsRequest::default())
        .await
        .unwrap_err();
    let spent = v1::RefreshTokenRequest {
        refresh_token: refresh_token.to_owned(),
    };
    api.auth().refresh_token(spent).await.unwrap_err();
}

/// Revokes a device by a call of this name. The call is found by its request id in the log of the node that did the
/// work.
async fn revoke_as(world: &World, device: &Device, name: &str) {
    let mut revoke = tonic::Request::new(v1::RevokeDeviceRequest {
        device_id: device.id.to_string(),
    });
    revoke
        .metadata_mut()
        .insert("x-request-id", name.parse().unwrap());
    let answer = world
        .back_end()
        .await
        .devices()
        .revoke_device(revoke)
        .await
        .unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), name);
}

/// Returns the keys and passwords of the platform.
fn secrets_of(world: &World) -> Vec<String> {
    let files = world.platform.secrets();
    let line = |file: &Path| {
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| !line.starts_with("-----")).unwrap();
        line.to_owned()
    };
    let mut secrets = [
        &files.token_key,
        &files.master_key,
        &files.ticket_key,
        &files.tls_key,
    ]
    .map(|file| line(file))
    .to_vec();
    secrets.push(world.platform.api_key().to_owned());
    secrets.push(world.platform.s3().unwrap().access().secret_key.clone());
    secrets.push(world.platform.database_url().to_owned());
    secrets
}

fn lacks(node: &str, log: &str, secret: &str) {
    // The signature of a token is secret too.
    let tail = secret.rsplit('.').next().unwrap();
    let found = log
        .lines()
        .find(|line| line.contains(secret) || (tail.len() > 20 && line.contains(tail)));
    assert!(found.is_none(), "{node} logs {secret}: {found:?}");
}

/// Checks that each line of the log is JSON with a time and a level, and returns their number.
fn json_lines(node: &str, log: &str) -> usize {
    for line in log.lines() {
        let parsed: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{node}: {error}: {line}"));
        assert!(
            parsed["timestamp"].is_string() && parsed["level"].is_string(),
            "{line}"
        );
    }
    log.lines().count()
}
