//! Bad input gets a clear typed error: never a panic, a hang, or a node that is gone.

use std::time::Duration;

use prost::Message as _;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ClientFrame, ClientItem, CloseCode, ErrorReason, SendErrorCode};
use tern_proto::v1::{client_item::Item, send_result::Outcome, server_event::Event};
use tern_tests::raw::{call, framed};
use tern_tests::wire::{self, Wire};
use tern_tests::{Api, World};
use tern_types::{ChatId, RequestId};
use tonic::Code;

const SQL: &str = "'; DROP TABLE messages; --";

/// Every unary method of the public API.
const METHODS: &[&str] = &[
    "Users/CreateUser",
    "Users/UpdateUser",
    "Users/BatchGetUsers",
    "Devices/LinkDevice",
    "Devices/ListDevices",
    "Devices/RevokeDevice",
    "Auth/RefreshToken",
    "Chats/SendMessage",
    "Chats/CreateGroup",
    "Chats/GetChat",
    "Chats/ListChats",
    "Chats/UpdateChat",
    "Chats/AddMembers",
    "Chats/RemoveMember",
    "Chats/LeaveChat",
    "Chats/SetRole",
    "Chats/ListMembers",
    "Chats/ListEntries",
    "Chats/ListMessages",
    "Chats/GetReceipts",
    "Chats/MarkChatRead",
    "Inbox/Fetch",
    "Inbox/Ack",
];

#[tokio::test]
async fn a_stream_begins_with_open_and_has_one() {
    let world = World::start().await;
    let device = world.device(&world.user("alice").await).await;
    let chat = ChatId::own(device.user);
    let before_open = [
        Item::Heartbeat(v1::Heartbeat { token: 1 }),
        Item::Ack(v1::Ack {
            chat_id: chat.to_string(),
            seq: 1,
        }),
        wire::message(RequestId::random(), chat, "x"),
        Item::SetActive(v1::SetActive { active: true }),
        Item::Reauthenticate(v1::Reauthenticate {
            access_token: device.access_token.clone(),
        }),
    ];
    for item in before_open {
        let mut wire = Wire::silent(world.new_channel(0)).await.unwrap();
        wire.frame(vec![item.clone(), wire::open(&device.access_token)])
            .await;
        let (last, status) = wire.end().await;
        assert_eq!(closing(last), Some(CloseCode::ProtocolError), "{item:?}");
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::InvalidArgument, Some(ErrorReason::ProtocolError))
        );
    }
    let (mut wire, _) = Wire::open(world.new_channel(0), &device).await.unwrap();
    wire.say(wire::open(&device.access_token)).await;
    let (last, status) = wire.end().await;
    assert_eq!(closing(last), Some(CloseCode::ProtocolError));
    assert_eq!(status.code(), Code::InvalidArgument);

    // Who says nothing at all is not waited for for ever; who leaves at once is no trouble.
    let mut silent = Wire::silent(world.new_channel(0)).await.unwrap();
    let mut gone = Wire::silent(world.new_channel(0)).await.unwrap();
    gone.finish();
    gone.end().await;
    let (_, status) = silent.end().await;
    assert_eq!(
        (status.code(), reason_of(&status)),
        (Code::DeadlineExceeded, Some(ErrorReason::TimedOut))
    );
    world.still_works().await;
    world.end().await;
}

#[tokio::test]
async fn garbage_on_the_stream_ends_only_that_stream() {
    let world = World::start().await;
    let device = world.device(&world.user("alice").await).await;
    let frame = |item| {
        ClientFrame {
            items: vec![ClientItem { item: Some(item) }],
        }
        .encode_to_vec()
    };
    let open = framed(&frame(wire::open(&device.access_token)));
    let whole = framed(&frame(Item::Heartbeat(v1::Heartbeat { token: 1 })));
    let mut compressed = whole.to_vec();
    compressed[0] = 1;
    let mut bad_text = frame(wire::message(RequestId::random(), ChatId::own(device.user), "x"));
    let place = bad_text.windows(2).position(|pair| pair == b"-4").unwrap();
    bad_text[place] = 0xff;
    let huge = [&[0_u8, 0xff, 0xff, 0xff, 0xff][..], &[0; 64]].concat();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        (
            "noise",
            framed(&[0xde, 0xad, 0xbe, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff]).to_vec(),
        ),
        (
            "a field that ends too early",
            framed(&[0x0a, 0x7f, 0x01]).to_vec(),
        ),
        (
            "an endless varint",
            framed(&[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ])
            .to_vec(),
        ),
        ("a truncated frame", whole[..whole.len() - 1].to_vec()),
        ("a truncated prefix", whole[..3].to_vec()),
        ("a compressed frame that is none", compressed),
        ("a frame of 4 GiB", huge),
        ("a frame over the limit", framed(&vec![0; 600 * 1024]).to_vec()),
        ("bad UTF-8", framed(&bad_text).to_vec()),
        ("deep nesting", framed(&[0x0a; 4096]).to_vec()),
    ];
    for (what, body) in bodies {
        for before in [&[][..], &open] {
            let body = [before, &body].concat();
            let (code, message) = call(world.new_channel(0), "Messaging/Stream", None, body).await;
            let clear = matches!(
                code,
                Code::InvalidArgument | Code::ResourceExhausted | Code::Unimplemented
            );
            assert!(clear, "{what}, after {} bytes: {code:?} {message}", before.len());
        }
    }
    world.still_works().await;
    world.end().await;
}

#[tokio::test]
async fn unknown_items_are_ignored_and_known_ones_still_taken() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let device = world.device(&alice).await;
    let his = world.phone(&bob).await;
    // An item of a kind to come (field 19), an empty item, a frame without items, an unknown field beside a known one.
    let mut items = vec![0x0a, 0x05, 0x9a, 0x01, 0x02, 0x08, 0x01, 0x0a, 0x00];
    let send = wire::message_to(RequestId::random(), bob.id, "from a newer client");
    items.extend(
        ClientFrame {
            items: vec![ClientItem { item: Some(send) }],
        }
        .encode_to_vec(),
    );
    items.extend([0xf8, 0x07, 0x01]);
    let open = ClientFrame {
        items: vec![ClientItem {
            item: Some(wire::open(&device.access_token)),
        }],
    };
    let body = [framed(&open.encode_to_vec()), framed(&[]), framed(&items)].concat();
    let (code, message) = call(world.new_channel(0), "Messaging/Stream", None, body).await;
    assert_eq!(code, Code::Ok, "{message}");
    his.has_text(ChatId::direct(alice.id, bob.id), "from a newer client")
        .await;
    world.end().await;
}

#[tokio::test]
async fn a_bad_send_fails_alone() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let device = world.device(&alice).await;
    let (his, carols) = (world.phone(&bob).await, world.phone(&carol).await);
    let strangers: ChatId = his.say(carol.id, "between us").await.chat_id.parse().unwrap();
    let chat = ChatId::direct(alice.id, bob.id);
    let (mut wire, _) = Wire::open(world.new_channel(0), &device).await.unwrap();
    let send =
        |request: &str, to: Option<v1::send_message::To>, envelope: Option<v1::Envelope>| v1::SendMessage {
            request_id: request.to_owned(),
            to,
            envelope,
            body: "x".into(),
        };
    let to_chat = |id: &str| Some(v1::send_message::To::ChatId(id.to_owned()));
    let to_peer = |id: &str| Some(v1::send_message::To::PeerUserId(id.to_owned()));
    let bob_id = bob.id.to_string();
    let fresh = || RequestId::random().to_string();
    let nobody = RequestId::random().to_string();
    let plain = || Some(wire::plain());
    let with = |change: fn(&mut v1::Envelope)| {
        let mut envelope = wire::plain();
        change(&mut envelope);
        Some(envelope)
    };
    use SendErrorCode as E;
    let cases = [
        ("no address", send(&fresh(), None, plain()), E::Invalid),
        (
            "a request_id that is none",
            send("x", to_peer(&bob_id), plain()),
            E::Invalid,
        ),
        ("no request_id", send("", to_peer(&bob_id), plain()), E::Invalid),
        (
            "SQL for a request_id",
            send(SQL, to_peer(&bob_id), plain()),
            E::Invalid,
        ),
        (
            "SQL for a chat",
            send(&fresh(), to_chat(SQL), plain()),
            E::Invalid,
        ),
        (
            "SQL for a person",
            send(&fresh(), to_peer(SQL), plain()),
            E::Invalid,
        ),
        ("an empty chat", send(&fresh(), to_chat(""), plain()), E::Invalid),
        (
            "a chat that does not exist",
            send(&fresh(), to_chat(&nobody), plain()),
            E::NotAMember,
        ),
        (
            "a chat of others",
            send(&fresh(), to_chat(&strangers.to_string()), plain()),
            E::NotAMember,
        ),
        (
            "a person who does not exist",
            send(&fresh(), to_peer(&nobody), plain()),
            E::PeerNotFound,
        ),
        (
            "an unknown kind",
            send(&fresh(), to_peer(&bob_id), with(|envelope| envelope.kind = 99)),
            E::Invalid,
        ),
        (
            "a reaction to nothing",
            send(
                &fresh(),
                to_peer(&bob_id),
                with(|envelope| envelope.kind = v1::MessageKind::Reaction.into()),
            ),
            E::Invalid,
        ),
        (
            "65 mentions",
            send(
                &fresh(),
                to_peer(&bob_id),
                with(|envelope| envelope.mentioned_user_ids = vec![RequestId::random().to_string(); 65]),
            ),
            E::Invalid,
        ),
        (
            "a mention that is no id",
            send(
                &fresh(),
                to_peer(&bob_id),
                with(|envelope| envelope.mentioned_user_ids = vec![SQL.to_owned()]),
            ),
            E::Invalid,
        ),
        (
            "an envelope of 9 KiB",
            send(
                &fresh(),
                to_peer(&bob_id),
                with(|envelope| envelope.traceparent = "x".repeat(9 * 1024)),
            ),
            E::TooLarge,
        ),
    ];
    for (what, message, expected) in cases {
        let request_id = message.request_id.clone();
        wire.say(Item::Send(message)).await;
        let outcome = wire
            .until(|event| match event {
                Event::SendResult(result) if result.request_id == request_id => result.outcome,
                _ => None,
            })
            .await;
        match outcome {
            Outcome::Error(error) => {
                assert_eq!(error.code(), expected, "{what}: {}", error.message);
                assert!(!error.message.is_empty(), "{what}: says what is wrong");
            }
            Outcome::Sent(sent) => panic!("{what}: {sent:?}"),
        }
    }
    // Acknowledgements and read marks for what is not theirs are ignored.
    for id in [&nobody, &strangers.to_string(), &chat.to_string()] {
        for seq in [0, 1, 99, u64::MAX] {
            wire.say(Item::Ack(v1::Ack {
                chat_id: id.clone(),
                seq,
            }))
            .await;
            wire.say(Item::MarkRead(v1::MarkRead {
                chat_id: id.clone(),
                seq,
            }))
            .await;
        }
    }
    wire.say(wire::message_to(
        RequestId::random(),
        bob.id,
        "and now a good one",
    ))
    .await;
    let sent = wire
        .until(|event| match event {
            Event::SendResult(result) => result.outcome,
            _ => None,
        })
        .await;
    assert!(matches!(sent, Outcome::Sent(_)), "{sent:?}");
    assert_eq!(his.has_text(chat, "and now a good one").await.texts().len(), 1);
    carols.has(strangers, 1).await;
    world.end().await;
}

/// There is no result in which to say it.
#[tokio::test]
async fn an_ack_or_mark_with_no_id_at_all_ends_the_stream() {
    let world = World::start().await;
    let device = world.device(&world.user("alice").await).await;
    for id in ["", "x", SQL] {
        for item in [
            Item::Ack(v1::Ack {
                chat_id: id.to_owned(),
                seq: 1,
            }),
            Item::MarkRead(v1::MarkRead {
                chat_id: id.to_owned(),
                seq: 1,
            }),
        ] {
            let (mut wire, _) = Wire::open(world.new_channel(0), &device).await.unwrap();
            wire.say(item.clone()).await;
            let (last, status) = wire.end().await;
            assert_eq!(closing(last), Some(CloseCode::ProtocolError), "{item:?}");
            assert_eq!(status.code(), Code::InvalidArgument, "{item:?}");
            assert!(status.message().contains("chat_id"), "{status:?}");
        }
    }
    world.end().await;
}

#[tokio::test]
async fn garbage_to_every_unary_method_is_an_invalid_argument() {
    let world = World::start().await;
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
    for method in METHODS {
        for bearer in [world.platform.api_key(), &device.access_token] {
            for (what, body) in &bodies {
                let (code, message) = call(
                    world.channel(0),
                    method,
                    Some(bearer),
                    bytes::Bytes::copy_from_slice(body),
                )
                .await;
                // Some are not for this caller at all.
                let clear = matches!(code, Code::InvalidArgument | Code::PermissionDenied);
                assert!(clear, "{method}, {what}: {code:?} {message}");
            }
        }
        let (code, _) = call(world.channel(0), method, Some(SQL), framed(&[])).await;
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
    // What is between nodes only is not for clients.
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
}

#[tokio::test]
async fn sql_in_every_string_is_only_text() {
    let world = World::start().await;
    let back_end = world.back_end().await;
    let request = v1::CreateUserRequest {
        external_id: SQL.to_owned(),
        display_name: SQL.to_owned(),
    };
    let reply = back_end
        .users()
        .create_user(request.clone())
        .await
        .unwrap()
        .into_inner();
    let user = reply.user.unwrap();
    assert_eq!(
        (
            user.external_id.as_str(),
            user.display_name.as_str(),
            reply.created
        ),
        (SQL, SQL, true)
    );
    assert!(
        !back_end
            .users()
            .create_user(request)
            .await
            .unwrap()
            .into_inner()
            .created
    );
    let found = back_end
        .users()
        .batch_get_users(v1::BatchGetUsersRequest {
            external_ids: vec![SQL.to_owned()],
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.users.len(), 1);
    let link = v1::LinkDeviceRequest {
        user_id: user.user_id.clone(),
        request_id: RequestId::random().to_string(),
        display_name: SQL.to_owned(),
        platform: SQL.to_owned(),
    };
    let linked = back_end
        .devices()
        .link_device(link.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(linked.device.unwrap().display_name, SQL);
    let phone = Api::new(world.channel(0), &linked.tokens.unwrap().access_token);
    let group = v1::CreateGroupRequest {
        request_id: RequestId::random().to_string(),
        title: SQL.to_owned(),
        ..Default::default()
    };
    let chat = phone
        .chats()
        .create_group(group)
        .await
        .unwrap()
        .into_inner()
        .chat
        .unwrap();
    assert_eq!(chat.title, SQL);

    // Where an id belongs it is no id, and the field is named.
    let id = || RequestId::random().to_string();
    let bad: Vec<tonic::Status> = vec![
        back_end
            .users()
            .update_user(v1::UpdateUserRequest {
                user_id: SQL.to_owned(),
                display_name: "x".to_owned(),
            })
            .await
            .unwrap_err(),
        back_end
            .devices()
            .link_device(v1::LinkDeviceRequest {
                user_id: SQL.to_owned(),
                ..link.clone()
            })
            .await
            .unwrap_err(),
        back_end
            .devices()
            .link_device(v1::LinkDeviceRequest {
                request_id: SQL.to_owned(),
                ..link
            })
            .await
            .unwrap_err(),
        back_end
            .devices()
            .list_devices(v1::ListDevicesRequest {
                user_id: SQL.to_owned(),
            })
            .await
            .unwrap_err(),
        back_end
            .devices()
            .revoke_device(v1::RevokeDeviceRequest {
                device_id: SQL.to_owned(),
            })
            .await
            .unwrap_err(),
        phone
            .chats()
            .get_chat(v1::GetChatRequest {
                chat_id: SQL.to_owned(),
                ..Default::default()
            })
            .await
            .unwrap_err(),
        phone
            .chats()
            .list_chats(v1::ListChatsRequest {
                page_token: SQL.to_owned(),
                ..Default::default()
            })
            .await
            .unwrap_err(),
        phone
            .chats()
            .create_group(v1::CreateGroupRequest {
                request_id: id(),
                member_user_ids: vec![SQL.to_owned()],
                ..Default::default()
            })
            .await
            .unwrap_err(),
        phone
            .chats()
            .add_members(v1::AddMembersRequest {
                chat_id: chat.chat_id.clone(),
                request_id: id(),
                user_ids: vec![SQL.to_owned()],
                ..Default::default()
            })
            .await
            .unwrap_err(),
        phone
            .chats()
            .list_members(v1::ListMembersRequest {
                chat_id: chat.chat_id.clone(),
                page_token: SQL.to_owned(),
                ..Default::default()
            })
            .await
            .unwrap_err(),
        phone
            .inbox()
            .ack(v1::AckRequest {
                chat_id: SQL.to_owned(),
                seq: 1,
            })
            .await
            .unwrap_err(),
    ];
    for status in bad {
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::InvalidArgument, Some(ErrorReason::InvalidField)),
            "{status:?}"
        );
    }
    let refresh = v1::RefreshTokenRequest {
        refresh_token: SQL.to_owned(),
    };
    let status = phone.auth().refresh_token(refresh).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    world.still_works().await;
    world.end().await;
}

#[tokio::test]
async fn ids_that_do_not_exist_are_not_found() {
    let world = World::start().await;
    let phone = world.phone(&world.user("alice").await).await;
    let id = || RequestId::random().to_string();
    let back_end = world.back_end().await;
    let group = v1::CreateGroupRequest {
        request_id: id(),
        member_user_ids: vec![id()],
        ..Default::default()
    };
    for (status, reason) in [
        (
            phone
                .api()
                .chats()
                .get_chat(v1::GetChatRequest {
                    chat_id: id(),
                    ..Default::default()
                })
                .await
                .unwrap_err(),
            ErrorReason::ChatNotFound,
        ),
        (
            phone.api().chats().create_group(group).await.unwrap_err(),
            ErrorReason::UserNotFound,
        ),
        (
            back_end
                .users()
                .update_user(v1::UpdateUserRequest {
                    user_id: id(),
                    display_name: "x".to_owned(),
                })
                .await
                .unwrap_err(),
            ErrorReason::UserNotFound,
        ),
        (
            back_end
                .devices()
                .link_device(v1::LinkDeviceRequest {
                    user_id: id(),
                    request_id: id(),
                    ..Default::default()
                })
                .await
                .unwrap_err(),
            ErrorReason::UserNotFound,
        ),
        (
            back_end
                .devices()
                .revoke_device(v1::RevokeDeviceRequest { device_id: id() })
                .await
                .unwrap_err(),
            ErrorReason::DeviceNotFound,
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

/// What clients say in metadata of the platform's own has no effect.
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

#[tokio::test]
async fn who_sends_far_too_fast_is_told_when_to_go_on() {
    let world = World::with(|builder| {
        builder
            .env("TERN_GATEWAY_SENDS_PER_SECOND", "20")
            .env("TERN_GATEWAY_SEND_BURST", "200")
    })
    .await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let device = world.device(&alice).await;
    let (mut wire, opened) = Wire::open(world.new_channel(0), &device).await.unwrap();
    let limits = opened.limits.unwrap();
    let burst = limits.max_sends_in_flight.max(limits.sends_per_second * 10) as usize + 200;
    for _ in 0..burst.div_ceil(100) {
        wire.frame(
            (0..100)
                .map(|_| wire::message_to(RequestId::random(), bob.id, "x"))
                .collect(),
        )
        .await;
    }
    let limited = tokio::time::timeout(
        Duration::from_secs(30),
        wire.until(|event| match event {
            Event::SendResult(result) => match result.outcome? {
                Outcome::Error(error) if error.code() == SendErrorCode::RateLimited => Some(error),
                _ => None,
            },
            _ => None,
        }),
    );
    let limited = limited.await.unwrap();
    assert!(limited.retry_after_ms > 0);
    world.end().await;
}

fn closing(event: Option<Event>) -> Option<CloseCode> {
    match event? {
        Event::Closing(closing) => Some(closing.code()),
        _ => None,
    }
}
