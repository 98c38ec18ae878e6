//! Unary calls whose bytes are no request, whose ids do not exist, or whose metadata claims another identity.

use std::time::Duration;

use prost::Message as _;
use tern_identity::token::Signer;
use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason};
use tern_tests::raw::{call, framed};
use tern_tests::world::BOUND;
use tern_tests::{Api, World};
use tern_types::limits::MAX_REQUEST_BYTES;
use tern_types::{Clock, RequestId};
use tonic::Code;

use crate::{SQL, Whole, descriptors};

#[tokio::test]
async fn garbage_to_every_unary_method_is_an_invalid_argument() {
    let Whole { world, push } = Whole::start(|builder| builder).await;
    let device = world.device(&world.user("alice").await).await;
    let nested = framed(&[0x0a; 4096]);
    let bodies: [(&str, &[u8]); 6] = [
        (
            "noise",
            &framed(&[0xde, 0xad, 0xbe, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("bad UTF-8", &framed(&[0x0a, 0x02, 0xff, 0xfe])),
        ("a field that ends too early", &framed(&[0x0a, 0x7f, 0x01])),
        ("a truncated frame", &[0, 0, 0, 0, 9, 1]),
        ("nothing", &[]),
        ("deep nesting", &nested),
    ];
    for method in descriptors::unary_methods() {
        // For a request without fields, well-formed fields are those of a newer version and are ignored.
        let takes_any = method.input().fields().len() == 0;
        let method = descriptors::path(&method);
        for bearer in [world.platform.api_key(), &device.access_token] {
            for (what, body) in &bodies {
                let (code, message) = call(
                    world.channel(0),
                    &method,
                    Some(bearer),
                    bytes::Bytes::copy_from_slice(body),
                )
                .await;
                // Some methods are not allowed for this caller.
                let clear = matches!(code, Code::InvalidArgument | Code::PermissionDenied)
                    || (takes_any && code == Code::Ok);
                assert!(clear, "{method}, {what}: {code:?} {message}");
            }
        }
        let (code, _) = call(world.channel(0), &method, Some(SQL), framed(&[])).await;
        assert!(
            matches!(code, Code::Unauthenticated | Code::InvalidArgument),
            "{method} with a bad key: {code:?}"
        );
    }
    let (code, _) = call(
        world.channel(0),
        "Chats/NoSuchMethod",
        Some(&device.access_token),
        framed(&[]),
    )
    .await;
    assert_eq!(code, Code::Unimplemented);
    // Clients cannot call services that are only for nodes.
    let (code, _) = call(
        world.channel(0),
        "../tern.internal.v1.ChatNode/ReadInbox",
        None,
        framed(&[]),
    )
    .await;
    assert!(
        matches!(code, Code::Unimplemented | Code::Unauthenticated | Code::NotFound),
        "{code:?}"
    );
    world.still_works().await;
    world.end().await;
    drop(push);
}

/// The request is refused without being decoded, by the gateway or by a node with a limit of its own.
#[tokio::test]
async fn a_request_over_the_limit_is_too_large_for_every_method() {
    let Whole { world, push } = Whole::start(|builder| builder).await;
    let ids = |count| v1::CreateGroupRequest {
        request_id: RequestId::random().to_string(),
        member_user_ids: vec![RequestId::random().to_string(); count],
        ..Default::default()
    };
    let phone = world.phone(&world.user("alice").await).await;
    for (count, reason) in [
        (1025, ErrorReason::GroupFull),
        (20_000, ErrorReason::GroupFull),
        (90_000, ErrorReason::TooLarge),
        (200_000, ErrorReason::TooLarge),
    ] {
        let refused = phone.api().chats().create_group(ids(count)).await.unwrap_err();
        assert_eq!(reason_of(&refused), Some(reason), "{count} ids: {refused:?}");
    }
    // The request consists of field 1000, which no version has.
    for bytes in [MAX_REQUEST_BYTES, 3 << 20] {
        let body = v1::FetchRequest {
            chat_id: "x".repeat(bytes),
            ..Default::default()
        };
        let body = framed(&[&[0xc2, 0x3e][..], &body.encode_to_vec()[1..]].concat());
        for method in descriptors::unary_methods() {
            let path = descriptors::path(&method);
            let bearer = Some(world.platform.api_key());
            let (code, message) = call(world.channel(0), &path, bearer, body.clone()).await;
            assert_eq!(code, Code::ResourceExhausted, "{path}, {bytes} bytes: {message}");
        }
    }
    world.still_works().await;
    world.end().await;
    drop(push);
}

#[tokio::test]
async fn ids_that_do_not_exist_are_not_found() {
    let world = World::start().await;
    let phone = world.phone(&world.user("alice").await).await;
    let id = || RequestId::random().to_string();
    let back_end = world.back_end().await;
    let mut chats = phone.api().chats();
    let chat = v1::GetChatRequest {
        chat_id: id(),
        ..Default::default()
    };
    let group = v1::CreateGroupRequest {
        request_id: id(),
        member_user_ids: vec![id()],
        ..Default::default()
    };
    let user = v1::UpdateUserRequest {
        user_id: id(),
        display_name: "x".to_owned(),
    };
    let link = v1::LinkDeviceRequest {
        user_id: id(),
        request_id: id(),
        ..Default::default()
    };
    let device = v1::RevokeDeviceRequest { device_id: id() };
    use ErrorReason as R;
    for (status, reason) in [
        (chats.get_chat(chat).await.unwrap_err(), R::ChatNotFound),
        (chats.create_group(group).await.unwrap_err(), R::UserNotFound),
        (
            back_end.users().update_user(user).await.unwrap_err(),
            R::UserNotFound,
        ),
        (
            back_end.devices().link_device(link).await.unwrap_err(),
            R::UserNotFound,
        ),
        (
            back_end.devices().revoke_device(device).await.unwrap_err(),
            R::DeviceNotFound,
        ),
    ] {
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::NotFound, Some(reason)),
            "{status:?}"
        );
    }
    let nobody = v1::BatchGetUsersRequest {
        user_ids: vec![id()],
        ..Default::default()
    };
    assert!(
        back_end
            .users()
            .batch_get_users(nobody)
            .await
            .unwrap()
            .into_inner()
            .users
            .is_empty()
    );
    world.end().await;
}

/// Metadata that the platform uses between nodes has no effect when a client sends it.
#[tokio::test]
async fn nobody_becomes_somebody_else_by_metadata() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    hers.say(bob.id, "hello").await;
    let mut request = tonic::Request::new(v1::ListDevicesRequest::default());
    for (key, value) in [
        ("tern-user", alice.id.to_string()),
        ("tern-scopes", "admin".to_owned()),
    ] {
        request.metadata_mut().insert(key, value.parse().unwrap());
    }
    let devices = his
        .api()
        .devices()
        .list_devices(request)
        .await
        .unwrap()
        .into_inner()
        .devices;
    assert!(
        devices.iter().all(|device| device.user_id == bob.id.to_string()),
        "{devices:?}"
    );
    let others = v1::ListDevicesRequest {
        user_id: alice.id.to_string(),
    };
    assert_eq!(
        his.api().devices().list_devices(others).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    world.end().await;
}

/// Returns the number of events of a chat that wait for the device.
async fn waiting(device: &Api, chat_id: &str) -> anyhow::Result<usize> {
    let of_chat = v1::FetchRequest {
        chat_id: chat_id.to_owned(),
        ..Default::default()
    };
    let fetched = device.inbox().fetch(of_chat).await?;
    Ok(fetched.into_inner().events.len())
}

/// Accounts nodes sign no token that names a user and the device of another user. With such a token alice, who is in
/// the chat, could acknowledge for his device what it never got.
#[tokio::test]
async fn a_token_of_another_users_device_reads_and_ends_nothing_of_the_device() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.device(&bob).await);
    let sent = hers.say(bob.id, "for him").await;
    let own = Api::new(world.channel(0), &his.access_token);
    until::holds("the message waits for him", BOUND, || async {
        Ok(waiting(&own, &sent.chat_id).await? == 1)
    })
    .await
    .unwrap();

    let key = std::fs::read_to_string(&world.platform.secrets().token_key).unwrap();
    let signer = Signer::from_pem(&key).unwrap();
    let token = signer.sign(alice.id, his.id, Clock::wall(), Duration::from_secs(60));
    let crossed = Api::new(world.channel(0), &token.unwrap());
    let ack = v1::AckRequest {
        chat_id: sent.chat_id.clone(),
        seq: sent.seq,
    };
    let fetched = crossed.inbox().fetch(v1::FetchRequest::default()).await.map(drop);
    let acknowledged = crossed.inbox().ack(ack.clone()).await.map(drop);
    for refused in [fetched.unwrap_err(), acknowledged.unwrap_err()] {
        assert_eq!(
            (refused.code(), reason_of(&refused)),
            (Code::Unauthenticated, Some(ErrorReason::TokenInvalid))
        );
    }
    assert_eq!(waiting(&own, &sent.chat_id).await.unwrap(), 1, "it still waits");
    own.inbox().ack(ack).await.unwrap();
    assert_eq!(waiting(&own, &sent.chat_id).await.unwrap(), 0);
    world.end().await;
}
