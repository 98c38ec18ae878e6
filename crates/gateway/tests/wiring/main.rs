//! The gateway's wiring, against fake nodes: what a client says arrives where it belongs, and the other way round.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod grpc_web;
mod limits;
mod support;
mod websocket;


use bytes::Bytes;
use support::{Phone, World};
use tern_proto::error::reason_of;
use tern_proto::internal::gateway_node_client::GatewayNodeClient;
use tern_proto::internal::{
    AckWritten, CloseDevicesRequest, NotOwner, Result as SendOutcome, UpItem, Wake, WindowReply, down_item,
    up_item,
};
use tern_proto::raw;
use tern_proto::v1::chats_client::ChatsClient;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{self, CloseCode, ErrorReason, SendErrorCode, send_message, send_result};
use tern_types::{ChatId, DeviceId, RequestId, UserId};
use tonic::transport::Channel;
use tonic::{Code, Request};

fn people() -> (UserId, DeviceId) {
    (UserId::random(), DeviceId::random())
}

fn send_to(chat: ChatId) -> (String, Item) {
    let request_id = RequestId::random().to_string();
    let to = Some(send_message::To::ChatId(chat.to_string()));
    let body = Bytes::from_static(b"hello");
    (
        request_id.clone(),
        Item::Send(v1::SendMessage {
            request_id,
            to,
            body,
            envelope: None,
        }),
    )
}

fn entry(chat: ChatId, seq: u64) -> Bytes {
    raw::event(Event::Entry(v1::Entry {
        chat_id: chat.to_string(),
        seq,
        ..Default::default()
    }))
}

fn sent(request_id: &str, chat: ChatId, seq: u64) -> Bytes {
    let sent = v1::Sent {
        chat_id: chat.to_string(),
        seq,
        sent_at_ms: 1,
    };
    let outcome = Some(send_result::Outcome::Sent(sent));
    raw::event(Event::SendResult(v1::SendResult {
        request_id: request_id.to_owned(),
        outcome,
    }))
}

#[tokio::test]
async fn a_message_goes_up_its_result_and_live_pushes_come_down() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));

    let chat = ChatId::direct(user, UserId::random());
    let (request_id, item) = send_to(chat);
    let up = send(&mut world, &mut phone, item).await;
    let Some(up_item::Op::Send(op)) = up.op else {
        panic!("{up:?}")
    };
    assert_eq!(
        (&op.chat_id[..], &op.body[..]),
        (&chat.as_bytes()[..], &b"hello"[..])
    );
    assert_eq!(
        (&up.user_id[..], &up.device_id[..], up.session),
        (&user.as_bytes()[..], &device.as_bytes()[..], phone.session)
    );
    let event = sent(&request_id, chat, 1);
    let result = SendOutcome {
        r#ref: up.r#ref,
        session: up.session,
        event,
        chat_id: chat.to_vec().into(),
        seq: 1,
    };
    world.down(down_item::Item::Result(result)).await;
    let Event::SendResult(result) = phone.event().await else {
        panic!("no result")
    };
    assert_eq!(result.request_id, request_id);

    world.push(phone.session, chat, 2, entry(chat, 2)).await;
    let Event::Entry(pushed) = phone.event().await else {
        panic!("no entry")
    };
    assert_eq!(pushed.seq, 2);

    // A row for what was forwarded: confirmed without reading, and the acknowledgement is written.
    let wake = Wake {
        wake: 77,
        chat_id: chat.to_vec().into(),
        from_seq: 1,
        to_seq: 2,
        sessions: vec![phone.session, 999],
    };
    world.down(down_item::Item::Wake(wake)).await;
    let done = world.item().await;
    assert!(matches!(done.op, Some(up_item::Op::WakeDone(done)) if done.wake == 77));
    phone
        .say(Item::Ack(v1::Ack {
            chat_id: chat.to_string(),
            seq: 2,
        }))
        .await;
    let up = world.item().await;
    let Some(up_item::Op::Ack(ack)) = &up.op else {
        panic!("{up:?}")
    };
    assert_eq!((ack.seq, ack.write), (2, true));
    let chat_id = chat.to_vec().into();
    let written = AckWritten {
        r#ref: up.r#ref,
        session: up.session,
        chat_id,
        seq: 2,
        row_from_seq: 0,
    };
    world.down(down_item::Item::AckWritten(written)).await;

    drop(phone);
    assert!(world.announced().await.ended, "presence hears of the end");
}

#[tokio::test]
async fn what_waits_is_read_in_windows_before_caught_up() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let chat = ChatId::direct(user, UserId::random());
    world.inbox(chat, 5);
    let mut phone = world.open(user, device).await;
    let request = world.window().await;
    assert_eq!(
        (request.from_seq, &request.device_id[..]),
        (5, &device.as_bytes()[..])
    );
    let (events, seqs) = (vec![entry(chat, 5), entry(chat, 6)], vec![5, 6]);
    let reply = WindowReply {
        r#ref: request.r#ref,
        session: request.session,
        chat_id: request.chat_id,
        events,
        seqs,
        next_seq: 7,
        done: true,
        failed: false,
    };
    world.reply(reply).await;
    for seq in [5, 6] {
        assert!(matches!(phone.event().await, Event::Entry(entry) if entry.seq == seq));
    }
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
}

#[tokio::test]
async fn fine_print_9_inboxes_are_read_again_when_presence_moves_and_once_more_when_the_old_node_knows() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    // A row of which no wake came, because the chat node asked the wrong presence node.
    let chats = [1, 2].map(|_| ChatId::direct(user, UserId::random()));
    world.inbox(chats[0], 7);
    world.presence(2, &[("presence-0", true), ("presence-1", false)]);
    let announced = world.announced().await;
    assert_eq!((announced.session, announced.ended), (phone.session, false));
    let window = world.window().await;
    assert_eq!(
        (window.from_seq, &window.chat_id[..]),
        (7, &chats[0].as_bytes()[..])
    );
    world.inbox(chats[1], 8);
    world.presence_follows(0, 2).await;
    let window = world.window().await;
    assert_eq!(
        (window.from_seq, &window.chat_id[..]),
        (8, &chats[1].as_bytes()[..])
    );
}

#[tokio::test]
async fn a_send_whose_link_breaks_is_answered_unavailable_and_the_next_one_goes_through() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let chat = ChatId::direct(user, UserId::random());
    let (request_id, item) = send_to(chat);
    send(&mut world, &mut phone, item.clone()).await;
    world.break_link();
    let Event::SendResult(result) = phone.event().await else {
        panic!("no result")
    };
    assert_eq!(result.request_id, request_id);
    assert!(
        matches!(result.outcome, Some(send_result::Outcome::Error(error)) if error.code() == SendErrorCode::Unavailable)
    );
    let up = send(&mut world, &mut phone, item).await;
    assert!(matches!(up.op, Some(up_item::Op::Send(_))));
}

/// Says the same again until the chat node has it, as clients do: the link may not be up yet.
async fn send(world: &mut World, phone: &mut Phone, item: Item) -> UpItem {
    loop {
        phone.say(item.clone()).await;
        tokio::select! {
            up = world.item() => return up,
            event = phone.event() => assert!(matches!(event, Event::SendResult(_)), "{event:?}"),
        }
    }
}

#[tokio::test]
async fn an_item_that_a_node_does_not_own_waits_for_the_map_and_goes_to_the_owner() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let (_, item) = send_to(ChatId::direct(user, UserId::random()));
    let first = send(&mut world, &mut phone, item).await;
    let not_owner = NotOwner {
        r#ref: first.r#ref,
        session: first.session,
        map_version: 2,
    };
    world.down(down_item::Item::NotOwner(not_owner)).await;
    world.owner("chat-1", 2, true);
    let second = world.item().await;
    assert_eq!((second.r#ref, second.op), (first.r#ref, first.op));
}

#[tokio::test]
async fn the_newest_stream_of_a_device_wins() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut first = world.open(user, device).await;
    let mut second = world.open(user, device).await;
    let (closing, status) = first.end().await;
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::SessionReplaced, false)
    );
    let status = status.expect("a status");
    assert_eq!(
        (status.code(), reason_of(&status)),
        (Code::Aborted, Some(ErrorReason::SessionReplaced))
    );
    // Another gateway's stream replaces it in the same way, by presence.
    world.replaced(second.session).await;
    assert_eq!(second.end().await.0.code(), CloseCode::SessionReplaced);
}

#[tokio::test]
async fn streams_of_a_revoked_device_end_when_a_node_says_so_and_its_token_is_refused() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    let mut node = GatewayNodeClient::connect(world.internal.clone()).await.unwrap();
    let request = CloseDevicesRequest {
        device_ids: vec![device.to_vec().into()],
        code: CloseCode::DeviceRevoked.into(),
    };
    assert_eq!(node.close_devices(request).await.unwrap().into_inner().closed, 1);
    let (closing, status) = phone.end().await;
    assert_eq!(closing.code(), CloseCode::DeviceRevoked);
    assert_eq!(status.map(|status| status.code()), Some(Code::Unauthenticated));
    let refused = get_chat(
        world.channel().await,
        &world.token(user, device),
        ChatId::own(user),
    )
    .await
    .unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::DeviceRevoked));
}

#[tokio::test]
async fn a_replaced_or_revoked_session_is_over_at_once_also_where_its_stream_takes_nothing() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let deaf = world.open_deaf(user, device).await;
    let newer = world.open(user, device).await;
    let ended = world.announced().await;
    assert_eq!((ended.session, ended.ended), (deaf.session, true));
    drop(newer);
    assert!(world.announced().await.ended);

    let deaf = world.open_deaf(user, device).await;
    let mut node = GatewayNodeClient::connect(world.internal.clone()).await.unwrap();
    let request = CloseDevicesRequest {
        device_ids: vec![device.to_vec().into()],
        code: CloseCode::DeviceRevoked.into(),
    };
    node.close_devices(request).await.unwrap();
    let ended = world.announced().await;
    assert_eq!((ended.session, ended.ended), (deaf.session, true));
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_cut_off_and_one_that_only_idles_is_not() {
    let mut world = World::start(&["--gateway-stalled-after", "0.6"]).await;
    let (user, device) = people();
    let mut idle = world.open(UserId::random(), DeviceId::random()).await;
    let mut deaf = world.open_deaf(user, device).await;
    let ended = world.announced().await;
    assert_eq!((ended.session, ended.ended), (deaf.session, true));
    assert!(deaf.breaks().await);
    idle.say(Item::Heartbeat(v1::Heartbeat { token: 7 })).await;
    while !matches!(idle.event().await, Event::HeartbeatAck(ack) if ack.token == 7) {}
}

#[tokio::test]
async fn broken_frames_end_the_stream_with_a_reason_and_hurt_nobody_else() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut bystander = world.open(user, device).await;
    let items = |count| v1::ClientFrame {
        items: vec![v1::ClientItem::default(); count],
    };
    let body = Bytes::from(vec![0; 600 << 10]);
    let large = Item::Send(v1::SendMessage {
        body,
        ..Default::default()
    });
    let cases = [
        (items(257), Code::ResourceExhausted, ErrorReason::TooLarge),
        (
            v1::ClientFrame {
                items: vec![v1::ClientItem { item: Some(large) }],
            },
            Code::ResourceExhausted,
            ErrorReason::TooLarge,
        ),
        (items(1), Code::InvalidArgument, ErrorReason::ProtocolError),
    ];
    for (frame, code, reason) in cases {
        let mut phone = Phone::connect(world.channel().await).await;
        phone.frame(frame).await;
        let (closing, status) = phone.end().await;
        let status = status.expect("a status");
        assert_eq!(
            (status.code(), reason_of(&status)),
            (code, Some(reason)),
            "{closing:?}"
        );
    }
    let garbage = raw_stream(world.channel().await, Bytes::from_static(&[0x0f, 0xff, 0xff])).await;
    assert_eq!(
        (garbage.code(), reason_of(&garbage)),
        (Code::InvalidArgument, Some(ErrorReason::ProtocolError))
    );
    bystander.say(Item::Heartbeat(v1::Heartbeat { token: 3 })).await;
    assert!(matches!(bystander.event().await, Event::CaughtUp(_)));
    assert!(matches!(bystander.event().await, Event::HeartbeatAck(ack) if ack.token == 3));
}

#[tokio::test]
async fn a_draining_gateway_asks_its_devices_to_leave_and_takes_no_new_ones() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut stays = world.open(user, device).await;
    assert!(matches!(stays.event().await, Event::CaughtUp(_)));
    world.ctx.drain.start();
    assert!(matches!(stays.event().await, Event::Draining(_)));
    let mut late = Phone::connect(world.channel().await).await;
    let (user, device) = people();
    let access_token = world.token(user, device);
    late.say(Item::Open(v1::Open {
        access_token,
        ..Default::default()
    }))
    .await;
    let (closing, status) = late.end().await;
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::Draining, true)
    );
    assert!(closing.retry_after_ms > 0);
    assert_eq!(status.map(|status| status.code()), Some(Code::Unavailable));
    // It leaves: the drain is over before its deadline.
    stays.hang_up();
    assert_eq!(stays.end().await.1.map(|status| status.code()), None);
    (&mut world.done).await.unwrap();
}

async fn get_chat(channel: Channel, credentials: &str, chat: ChatId) -> Result<v1::Chat, tonic::Status> {
    let mut request = Request::new(v1::GetChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    });
    if !credentials.is_empty() {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {credentials}").parse().unwrap());
    }
    // Lies about who calls.
    request
        .metadata_mut()
        .insert("tern-user", UserId::SYSTEM.to_string().parse().unwrap());
    request
        .metadata_mut()
        .insert("tern-scopes", "admin".parse().unwrap());
    let answer = ChatsClient::new(channel).get_chat(request).await?;
    Ok(answer.into_inner().chat.unwrap_or_default())
}

#[tokio::test]
async fn unary_calls_carry_who_calls_and_nothing_that_clients_claim() {
    let world = World::start(&[]).await;
    let (user, device) = people();
    let chat = ChatId::own(user);
    let got = get_chat(world.channel().await, &world.token(user, device), chat)
        .await
        .unwrap();
    assert_eq!(
        (got.title, got.chat_id),
        (format!("tern-user={user}"), chat.to_string())
    );
    let got = get_chat(world.channel().await, "tern_good", chat).await.unwrap();
    assert_eq!(got.title, "tern-key=k1 tern-scopes=chats:read");
    for (credentials, reason) in [
        ("", ErrorReason::CredentialsMissing),
        ("nonsense", ErrorReason::TokenInvalid),
        ("tern_bad", ErrorReason::ApiKeyInvalid),
    ] {
        let refused = get_chat(world.channel().await, credentials, chat)
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), reason_of(&refused)),
            (Code::Unauthenticated, Some(reason)),
            "{credentials}"
        );
    }
}

#[tokio::test]
async fn a_call_to_a_node_that_is_not_the_owner_follows_the_map() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    world.owner("chat-1", 2, false);
    let (channel, token) = (world.channel().await, world.token(user, device));
    let call = tokio::spawn(async move { get_chat(channel, &token, ChatId::own(user)).await });
    world.owner("chat-1", 2, true);
    assert_eq!(call.await.unwrap().unwrap().created_by_user_id, "chat-1");
}

#[tokio::test]
async fn what_is_no_service_of_ours_is_unimplemented() {
    let world = World::start(&[]).await;
    for path in [
        "/tern.v1.Chats/Nonsense",
        "/tern.internal.v1.ChatNode/ReadInbox",
        "/x.Y/Z",
    ] {
        let status = raw_unary(world.channel().await, path).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn plain_text_is_refused_where_others_could_listen() {
    use clap::Parser;
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: tern_gateway::Config,
    }
    let world = World::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    std::fs::write(&key, tern_node::token::generate_pem().unwrap()).unwrap();
    let key = key.to_str().unwrap();
    let flags = [
        "gateway",
        "--gateway-listen",
        "0.0.0.0:0",
        "--token-verify-files",
        key,
    ];
    let start = |flags: Vec<&str>| {
        let config = Flags::parse_from(flags).config;
        let ctx = world.ctx.clone();
        async move {
            tern_gateway::server::start(config, ctx, &mut tonic::service::Routes::builder())
                .await
                .map(drop)
        }
    };
    let error = start(flags.to_vec()).await.expect_err("refused");
    assert!(error.to_string().contains("--gateway-plaintext"), "{error}");
    let asked = flags.iter().copied().chain(["--gateway-plaintext"]).collect();
    start(asked).await.expect("asked for");
}

/// Bytes as a frame of the device stream; the status that ends it.
async fn raw_stream(channel: Channel, frame: Bytes) -> tonic::Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/tern.v1.Messaging/Stream");
    let frames = tokio_stream::once(frame);
    let answer = grpc
        .streaming(Request::new(frames), path, raw_codec::RawCodec)
        .await;
    let mut answers = answer.unwrap().into_inner();
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return tonic::Status::ok("no status"),
            Err(status) => return status,
        }
    }
}

async fn raw_unary(channel: Channel, path: &'static str) -> tonic::Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(Request::new(Bytes::new()), path, raw_codec::RawCodec)
        .await
        .unwrap_err()
}

mod raw_codec {
    use bytes::{Buf, BufMut, Bytes};
    use tonic::Status;
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

    #[derive(Clone, Copy)]
    pub struct RawCodec;

    impl Codec for RawCodec {
        type Encode = Bytes;
        type Decode = Bytes;
        type Encoder = Self;
        type Decoder = Self;
        fn encoder(&mut self) -> Self {
            *self
        }
        fn decoder(&mut self) -> Self {
            *self
        }
    }

    impl Encoder for RawCodec {
        type Item = Bytes;
        type Error = Status;
        fn encode(&mut self, bytes: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
            dst.put(bytes);
            Ok(())
        }
    }

    impl Decoder for RawCodec {
        type Item = Bytes;
        type Error = Status;
        fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
            Ok(Some(src.copy_to_bytes(src.remaining())))
        }
    }
}
