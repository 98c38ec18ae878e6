//! Streams that break the protocol.

use prost::Message as _;
use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ClientFrame, ClientItem, CloseCode, ErrorReason};
use tern_proto::v1::{client_item::Item, server_event::Event};
use tern_tests::World;
use tern_tests::raw::{call, framed};
use tern_tests::wire::{self, Wire};
use tern_tests::world::BOUND;
use tern_types::{ChatId, RequestId};
use tonic::Code;

use crate::SQL;

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

    // A stream that sends nothing ends after a time. A client that leaves at once does no harm.
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
    // The frame has an item of an unknown kind (field 19), an empty item, a message, and an unknown field of the frame.
    // Before it a frame without items is sent.
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
    let chat = ChatId::direct(alice.id, bob.id);
    // On a busy machine the message may be refused as UNAVAILABLE. The same request_id again is the same message.
    until::holds("the message", BOUND, || async {
        let (code, message) = call(world.new_channel(0), "Messaging/Stream", None, body.clone()).await;
        assert_eq!(code, Code::Ok, "{message}");
        Ok(his.texts(chat).iter().any(|text| text == "from a newer client"))
    })
    .await
    .expect("it comes");
    world.end().await;
}

/// An error in one item never ends the stream. These items have no result in which to report it, so they are ignored.
#[tokio::test]
async fn an_ack_a_mark_or_typing_with_no_id_at_all_is_ignored() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let device = world.device(&alice).await;
    let his = world.phone(&bob).await;
    let (mut wire, _) = Wire::open(world.new_channel(0), &device).await.unwrap();
    for id in ["", "nope", SQL] {
        for item in [
            Item::Ack(v1::Ack {
                chat_id: id.to_owned(),
                seq: 1,
            }),
            Item::MarkRead(v1::MarkRead {
                chat_id: id.to_owned(),
                seq: 1,
            }),
            Item::Typing(v1::Typing {
                chat_id: id.to_owned(),
                stopped: false,
            }),
        ] {
            wire.say(item).await;
        }
    }
    let message = wire::message_to(RequestId::random(), bob.id, "after all that");
    let sent = wire.send(message).await;
    let chat = ChatId::direct(alice.id, bob.id);
    his.has_text(chat, "after all that").await;
    wire.say(wire::ack(chat, sent.seq)).await;
    world.end().await;
}

fn closing(event: Option<Event>) -> Option<CloseCode> {
    match event? {
        Event::Closing(closing) => Some(closing.code()),
        _ => None,
    }
}
