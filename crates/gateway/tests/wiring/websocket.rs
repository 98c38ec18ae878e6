//! The device stream over a WebSocket: the same as by gRPC, and the mistakes that only a WebSocket allows.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::internal::{Result as SendOutcome, down_item, up_item};
use tern_proto::raw;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{self, CloseCode, entry_content};
use tern_types::{ChatId, DeviceId, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::items::{self, entry, people, send_to, sent};
use crate::support::socket::Socket;
use crate::support::{World, soon};

/// Opens a stream, and returns the session that presence is told of.
async fn open(world: &mut World, user: UserId, device: DeviceId) -> (Socket, u64) {
    let mut socket = Socket::connect(world).await;
    socket.say(items::open(world.token(user, device))).await;
    // If the stream replaces another one, the end of that one is announced first.
    let announced = loop {
        let announced = world.announced().await;
        if !announced.ended {
            break announced;
        }
    };
    assert_eq!(&announced.device_id[..], &device.as_bytes()[..]);
    assert!(matches!(socket.event().await, Event::Opened(_)));
    (socket, announced.session)
}

async fn open_caught_up(world: &mut World, user: UserId, device: DeviceId) -> (Socket, u64) {
    let (mut socket, session) = open(world, user, device).await;
    assert!(matches!(socket.event().await, Event::CaughtUp(_)));
    (socket, session)
}

#[tokio::test]
async fn a_message_goes_up_its_result_and_live_pushes_come_down() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let (mut socket, session) = open_caught_up(&mut world, user, device).await;
    let chat = ChatId::direct(user, UserId::random());
    let (request_id, item) = send_to(chat);
    let up = loop {
        // The message is sent until the link is up.
        socket.say(item.clone()).await;
        tokio::select! {
            up = world.item() => break up,
            event = socket.event() => assert!(matches!(event, Event::SendResult(_)), "{event:?}"),
        }
    };
    assert!(matches!(&up.op, Some(up_item::Op::Send(send)) if send.body == "hello"));
    assert_eq!((&up.device_id[..], up.session), (&device.as_bytes()[..], session));
    let result = SendOutcome {
        r#ref: up.r#ref,
        session,
        event: sent(&request_id, chat, 1),
        chat_id: chat.to_vec().into(),
        seq: 1,
    };
    world.down(down_item::Item::Result(result)).await;
    assert!(matches!(socket.event().await, Event::SendResult(result) if result.request_id == request_id));

    world.push(session, chat, 2, entry(chat, 2)).await;
    assert!(matches!(socket.event().await, Event::Entry(pushed) if pushed.seq == 2));
    // The frame takes more than one fragment and is still one message.
    let body = Bytes::from(vec![5; 256 << 10]);
    world.push(session, chat, 3, large(chat, 3, body.clone())).await;
    let Event::Entry(pushed) = socket.event().await else {
        panic!("no entry")
    };
    assert_eq!(pushed.content, carrying(body));

    socket.message(Message::Ping(Bytes::from_static(b"there?"))).await;
    socket.say(Item::Heartbeat(v1::Heartbeat { token: 9 })).await;
    assert!(matches!(socket.pong_then_event().await, Event::HeartbeatAck(ack) if ack.token == 9));

    assert!(socket.close().await);
    assert!(world.announced().await.ended, "presence hears of the end");
}

fn large(chat: ChatId, seq: u64, body: Bytes) -> Bytes {
    raw::event(Event::Entry(v1::Entry {
        chat_id: chat.to_string(),
        seq,
        content: carrying(body),
        ..Default::default()
    }))
}

fn carrying(body: Bytes) -> Bytes {
    let message = v1::Message {
        body,
        ..Default::default()
    };
    v1::EntryContent {
        content: Some(entry_content::Content::Message(message)),
        ..Default::default()
    }
    .encoded()
}

#[tokio::test]
async fn the_newest_stream_of_a_device_wins_whatever_carries_it() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let (mut socket, _) = open(&mut world, user, device).await;
    let mut phone = world.open(user, device).await;
    let (closing, code, reason) = socket.end().await;
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::SessionReplaced, false)
    );
    assert_eq!((code, &reason[..]), (4010, "SESSION_REPLACED"));
    let _newest = open(&mut world, user, device).await;
    assert_eq!(phone.end().await.0.code(), CloseCode::SessionReplaced);
}

#[tokio::test]
async fn messages_that_are_no_frames_end_the_stream_with_a_reason_and_hurt_nobody_else() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let (mut bystander, _) = open_caught_up(&mut world, user, device).await;
    let empty = |count| {
        let items = vec![v1::ClientItem::default(); count];
        Message::binary(prost::Message::encode_to_vec(&v1::ClientFrame { items }))
    };
    let fragment =
        |opcode, bytes: &[u8]| Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(opcode), true));
    let (protocol, large) = ((4003, "PROTOCOL_ERROR"), (4008, "TOO_LARGE"));
    let cases = [
        ("noise", Message::binary(vec![0x0f, 0xff, 0xff]), protocol),
        ("the first item is not Open", empty(1), protocol),
        ("text", Message::text("{\"items\": []}"), protocol),
        ("a frame as text", as_text(items::open("x".into())), protocol),
        ("no UTF-8", fragment(Data::Text, &[0xff, 0xfe]), protocol),
        (
            "goes on with what never began",
            fragment(Data::Continue, b"x"),
            protocol,
        ),
        (
            "a kind that there is not",
            fragment(Data::Reserved(5), b"x"),
            protocol,
        ),
        ("too many items", empty(257), large),
        ("too many bytes", Message::binary(vec![0; (512 << 10) + 1]), large),
        ("far too many bytes", Message::binary(vec![0; 4 << 20]), large),
    ];
    for (what, message, expected) in cases {
        let mut socket = Socket::connect(&world).await;
        socket.message(message).await;
        let (closing, code, reason) = socket.end().await;
        assert_eq!((code, &reason[..]), expected, "{what}: {closing:?}");
    }
    bystander.say(Item::Heartbeat(v1::Heartbeat { token: 3 })).await;
    assert!(matches!(bystander.event().await, Event::HeartbeatAck(ack) if ack.token == 3));
}

/// Makes a text message whose bytes are a ClientFrame.
fn as_text(item: Item) -> Message {
    let items = vec![v1::ClientItem { item: Some(item) }];
    let frame = prost::Message::encode_to_vec(&v1::ClientFrame { items });
    Message::text(String::from_utf8(frame).expect("a text"))
}

#[tokio::test]
async fn a_frame_of_the_largest_size_is_taken_also_in_fragments() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let (mut socket, _) = open_caught_up(&mut world, user, device).await;
    let beat = v1::ClientItem {
        item: Some(Item::Heartbeat(v1::Heartbeat { token: 4 })),
    };
    let mut frame = prost::Message::encode_to_vec(&v1::ClientFrame { items: vec![beat] });
    // An unknown field fills the frame up.
    let left = (512 << 10) - frame.len() - 5;
    frame.extend([0xfa, 0x07]);
    prost::encoding::encode_varint(left as u64, &mut frame);
    frame.resize(512 << 10, 0);
    let (first, second) = frame.split_at(100_000);
    let fragment =
        |bytes: &[u8], kind, last| Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(kind), last));
    socket.message(fragment(first, Data::Binary, false)).await;
    socket.message(Message::Ping(Bytes::new())).await;
    socket.message(fragment(second, Data::Continue, true)).await;
    assert!(matches!(socket.pong_then_event().await, Event::HeartbeatAck(ack) if ack.token == 4));
}

#[tokio::test]
async fn a_socket_that_takes_nothing_is_cut_off_and_one_that_only_idles_is_not() {
    let mut world = World::start(&["--gateway-stalled-after", "0.6"]).await;
    let (user, device) = people();
    let (mut idle, _) = open_caught_up(&mut world, UserId::random(), DeviceId::random()).await;
    let (deaf, session) = open_caught_up(&mut world, user, device).await;
    let chat = ChatId::own(user);
    let body = Bytes::from(vec![1; 250 << 10]);
    let ended = soon(async {
        for seq in 1.. {
            let event = large(chat, seq, body.clone());
            world.push(session, chat, seq, event).await;
            if let Ok(ended) = timeout(Duration::from_millis(20), world.announced()).await {
                return ended;
            }
        }
        unreachable!("there is always a next one")
    })
    .await;
    assert_eq!((ended.session, ended.ended), (session, true));
    drop(deaf);
    idle.say(Item::Heartbeat(v1::Heartbeat { token: 7 })).await;
    while !matches!(idle.event().await, Event::HeartbeatAck(ack) if ack.token == 7) {}
}

#[tokio::test]
async fn a_draining_gateway_asks_its_sockets_to_leave_and_waits_for_them() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let (mut stays, _) = open_caught_up(&mut world, user, device).await;
    world.ctx.drain.start();
    assert!(matches!(stays.event().await, Event::Draining(_)));
    let mut silent = Socket::connect(&world).await;
    let mut late = Socket::connect(&world).await;
    let (user, device) = people();
    late.say(items::open(world.token(user, device))).await;
    let (closing, code, reason) = late.end().await;
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::Draining, true)
    );
    assert_eq!((code, &reason[..]), (4014, "DRAINING"));
    assert!(stays.close().await);
    // A socket without Open is no session, and still has time to leave.
    let done = timeout(Duration::from_millis(300), &mut world.done).await;
    assert!(done.is_err(), "the gateway has not waited");
    assert!(silent.close().await);
    (&mut world.done).await.unwrap();
}

#[tokio::test]
async fn pages_of_other_sites_get_no_socket() {
    let world = World::start(&["--gateway-allowed-origins", "https://app.example.com"]).await;
    for allowed in [None, Some("https://app.example.com")] {
        assert!(Socket::from_origin(&world, allowed).await.is_ok(), "{allowed:?}");
    }
    for refused in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "null",
    ] {
        let answer = Socket::from_origin(&world, Some(refused)).await.err();
        assert!(
            matches!(answer, Some(Error::Http(response)) if response.status() == 403),
            "{refused}"
        );
    }
    // By default no site is allowed.
    let world = World::start(&[]).await;
    assert!(
        Socket::from_origin(&world, Some("https://app.example.com"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn what_is_no_request_for_a_websocket_is_told_what_is_missing() {
    const GOOD: &str = "connection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\n\
                        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let world = World::start(&[]).await;
    let without = |name: &str| {
        let kept = GOOD
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(name));
        kept.collect::<String>()
    };
    let key = |key: &str| without("sec-websocket-key") + &format!("sec-websocket-key: {key}\r\n");
    let cases = [
        ("GET", GOOD.to_owned(), "101 Switching Protocols"),
        ("POST", GOOD.to_owned(), "405 Method Not Allowed"),
        ("GET", String::new(), "426 Upgrade Required"),
        ("GET", without("connection"), "426 Upgrade Required"),
        ("GET", without("upgrade"), "426 Upgrade Required"),
        ("GET", without("sec-websocket-version"), "426 Upgrade Required"),
        ("GET", GOOD.replace(": 13", ": 8"), "426 Upgrade Required"),
        ("GET", without("sec-websocket-key"), "400 Bad Request"),
        ("GET", key("short"), "400 Bad Request"),
        ("GET", key(&"x".repeat(9000)), "400 Bad Request"),
    ];
    for (method, fields, expected) in cases {
        let answer = answer(
            &world,
            &format!("{method} /v1/stream HTTP/1.1\r\nhost: x\r\n{fields}\r\n"),
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{fields}: {answer}"
        );
        if expected.starts_with("101") {
            let accept = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
            assert!(answer.contains(accept), "the RFC's own example: {answer}");
        }
    }
}

/// Sends a request as it is, and returns the head of the answer.
async fn answer(world: &World, request: &str) -> String {
    let address = world.url.trim_start_matches("http://");
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let byte = connection.read_u8().await;
        answer.push(byte.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&answer))));
    }
    String::from_utf8(answer).unwrap()
}
