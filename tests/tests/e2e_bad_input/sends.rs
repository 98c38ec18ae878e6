//! Sends that cannot be accepted. Each gets its own error, and the stream goes on.

use std::time::Duration;

use tern_proto::v1::{self, SendErrorCode};
use tern_proto::v1::{client_item::Item, send_result::Outcome, server_event::Event};
use tern_tests::World;
use tern_tests::wire::{self, Wire};
use tern_types::{ChatId, RequestId};

use crate::SQL;

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
    // Acknowledgements and read marks for chats of other users are ignored.
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
