//! The device stream over a WebSocket with TLS, as browsers open it, beside gRPC streams.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use tern_proto::error::reason_of;
use tern_proto::v1::{
    self, CloseCode, ErrorReason, client_item::Item, entry_content::Content, server_event::Event,
};
use tern_tests::socket::{self, End, Socket};
use tern_tests::wire::{self, Wire};
use tern_tests::{Phone, World};
use tern_types::{ChatId, RequestId};
use tokio_tungstenite::tungstenite::{Error, Message};

const APP: &str = "https://app.example.com";

#[tokio::test]
async fn a_browser_sends_and_receives_beside_phones() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.device(&alice).await;
    let his: Phone = world.phone(&bob).await;
    let (mut socket, opened) = Socket::open(&world, 0, &hers).await;
    assert!(!opened.session_id.is_empty() && opened.window > 0);
    socket
        .until(|event| matches!(event, Event::CaughtUp(_)).then_some(()))
        .await;

    let message = wire::message_to(RequestId::random(), bob.id, "from a browser");
    let sent = socket.send(socket::framed(message)).await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    his.has(chat, sent.seq).await;

    // A message goes the other way too: the entry is pushed and acknowledged, and its sender gets the receipt.
    let answer = his.say(alice.id, "from a phone").await;
    let body = socket
        .until(|event| match event {
            Event::Entry(entry) if entry.seq == answer.seq => entry.decoded_content().ok()?.content,
            _ => None,
        })
        .await;
    assert!(matches!(body, Content::Message(message) if message.body == "from a phone"));
    socket.say(wire::ack(chat, answer.seq)).await;
    his.receipt(chat, alice.id, answer.seq, 0).await;
    socket.close().await;

    // An entry that came while the page was closed is there when it is opened again, on the other gateway.
    let missed = his.say(alice.id, "while you were away").await;
    let (mut again, _) = Socket::open(&world, 1, &hers).await;
    again
        .until(|event| matches!(event, Event::Entry(entry) if entry.seq == missed.seq).then_some(()))
        .await;
    again.say(wire::ack(chat, missed.seq)).await;
    his.receipt(chat, alice.id, missed.seq, 0).await;
    again.close().await;
    world.end().await;
}

#[tokio::test]
async fn the_newest_session_of_a_device_wins_between_grpc_and_websocket() {
    let world = World::start().await;
    let device = world.device(&world.user("alice").await).await;
    // The two streams use two gateways and two transports. Presence decides between them.
    let (mut socket, _) = Socket::open(&world, 0, &device).await;
    let (mut wire, _) = Wire::open(world.new_channel(1), &device).await.unwrap();
    let end = socket.end().await;
    assert_eq!((end.code, &end.reason[..]), (4010, "SESSION_REPLACED"));
    let closing = closing(end.last);
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::SessionReplaced, false)
    );

    let (newest, _) = Socket::open(&world, 0, &device).await;
    let (last, status) = wire.end().await;
    assert_eq!(closing_code(last), CloseCode::SessionReplaced);
    assert_eq!(reason_of(&status), Some(ErrorReason::SessionReplaced));
    newest.close().await;
    world.end().await;
}

#[tokio::test]
async fn what_is_no_frame_ends_the_socket_with_a_typed_error() {
    let world = World::start().await;
    let device = world.device(&world.user("alice").await).await;
    let (protocol, large) = ((4003, "PROTOCOL_ERROR"), (4008, "TOO_LARGE"));
    let cases = [
        (
            "garbage",
            Message::binary(vec![0xde, 0xad, 0xbe, 0xef, 0xff]),
            protocol,
        ),
        ("text", Message::text("{\"open\": {}}"), protocol),
        ("an item before Open", beat(), protocol),
        ("over the limit", Message::binary(vec![0; 600 << 10]), large),
        ("far over the limit", Message::binary(vec![0; 20 << 20]), large),
    ];
    for (what, message, expected) in cases {
        let mut socket = Socket::silent(&world, 0, None).await.unwrap();
        socket.message(message).await;
        told(socket.end().await, expected, what);
    }
    // The same happens after `Opened`.
    for (what, message, expected) in [
        ("garbage", Message::binary(vec![0xff; 100]), protocol),
        ("text", Message::text("hello"), protocol),
        ("over the limit", Message::binary(vec![0; 600 << 10]), large),
    ] {
        let (mut socket, _) = Socket::open(&world, 0, &device).await;
        socket.message(message).await;
        told(socket.end().await, expected, what);
    }
    let mut forged = Socket::silent(&world, 0, None).await.unwrap();
    forged.say(wire::open("no.such.token")).await;
    told(forged.end().await, (4016, "TOKEN_INVALID"), "a forged token");
    // A socket on which the client sends nothing ends after 10 s.
    let mut silent = Socket::silent(&world, 0, None).await.unwrap();
    told(silent.end().await, (4004, "TIMED_OUT"), "no Open");
    world.still_works().await;
    world.end().await;
}

#[tokio::test]
async fn only_pages_of_allowed_sites_open_a_socket() {
    let world = World::with(|builder| builder.env("TERN_GATEWAY_ALLOWED_ORIGINS", APP)).await;
    assert!(Socket::silent(&world, 0, Some(APP)).await.is_ok());
    assert!(Socket::silent(&world, 0, None).await.is_ok(), "it is no browser");
    let refused = Socket::silent(&world, 0, Some("https://evil.example"))
        .await
        .err();
    assert!(matches!(refused, Some(Error::Http(answer)) if answer.status() == 403));

    // Browsers offer only HTTP/1.1 for a WebSocket, and both protocols otherwise.
    for (offered, expected) in [
        (&[&b"http/1.1"[..]][..], &b"http/1.1"[..]),
        (&[b"h2", b"http/1.1"], b"h2"),
        (&[b"http/1.1", b"h2"], b"h2"),
    ] {
        let (_, chosen) = socket::connect(&world, 0, offered).await;
        assert_eq!(chosen.as_deref(), Some(expected));
    }
    world.end().await;
}

fn beat() -> Message {
    use prost::Message as _;
    let beat = Item::Heartbeat(v1::Heartbeat { token: 1 });
    let items = vec![v1::ClientItem { item: Some(beat) }];
    Message::binary(v1::ClientFrame { items }.encode_to_vec())
}

fn told(end: End, expected: (u16, &str), what: &str) {
    assert_eq!((end.code, &end.reason[..]), expected, "{what}");
    closing(end.last);
}

fn closing(last: Option<Event>) -> v1::Closing {
    match last {
        Some(Event::Closing(closing)) => closing,
        other => panic!("the last event is Closing, not {other:?}"),
    }
}

fn closing_code(last: Option<Event>) -> CloseCode {
    closing(last).code()
}
