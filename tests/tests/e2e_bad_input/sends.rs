//! Sends that cannot be accepted. Each gets its own error, and the stream goes on.

use tern_proto::v1::{self, SendErrorCode as E, send_message::To};
use tern_proto::v1::{client_item::Item, send_result::Outcome, server_event::Event};
use tern_tests::World;
use tern_tests::wire::{self, Wire};
use tern_tests::world::BOUND;
use tern_types::{ChatId, RequestId, UserId};

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
    let nobody = RequestId::random().to_string();
    for (what, message, expected) in [
        without_ids(bob.id),
        wrongly_addressed(strangers, &nobody),
        wrongly_enveloped(bob.id),
        wrongly_filled(bob.id),
    ]
    .concat()
    {
        is_refused(&mut wire, what, message, expected).await;
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
    let good = wire::message_to(RequestId::random(), bob.id, "and now a good one");
    wire.send(good).await;
    assert_eq!(his.has_text(chat, "and now a good one").await.texts().len(), 1);
    carols.has(strangers, 1).await;
    world.end().await;
}

/// A message that is refused: what is wrong with it, the message, and the code of its error.
type Case = (&'static str, v1::SendMessage, E);

async fn is_refused(wire: &mut Wire, what: &str, message: v1::SendMessage, expected: E) {
    match wire.outcome(Item::Send(message)).await {
        Outcome::Error(error) => {
            assert_eq!(error.code(), expected, "{what}: {}", error.message);
            assert!(!error.message.is_empty(), "{what}: says what is wrong");
        }
        Outcome::Sent(sent) => panic!("{what}: {sent:?}"),
    }
}

fn to_chat(id: &str) -> Option<To> {
    Some(To::ChatId(id.to_owned()))
}

fn to_peer(id: &str) -> Option<To> {
    Some(To::PeerUserId(id.to_owned()))
}

fn message(request: &str, to: Option<To>, envelope: v1::Envelope) -> v1::SendMessage {
    v1::SendMessage {
        request_id: request.to_owned(),
        to,
        envelope: envelope.encoded(),
        body: "x".into(),
    }
}

fn fresh() -> String {
    RequestId::random().to_string()
}

/// Returns messages to `peer` whose request_id is no UUID.
fn without_ids(peer: UserId) -> Vec<Case> {
    let with = |request| message(request, to_peer(&peer.to_string()), wire::plain());
    vec![
        ("a request_id that is none", with("x"), E::Invalid),
        ("no request_id", with(""), E::Invalid),
        ("SQL for a request_id", with(SQL), E::Invalid),
    ]
}

/// Returns messages to a chat or person to which the sender cannot write. `strangers` is a chat of others.
fn wrongly_addressed(strangers: ChatId, nobody: &str) -> Vec<Case> {
    let send = |to| message(&fresh(), to, wire::plain());
    vec![
        ("no address", send(None), E::Invalid),
        ("SQL for a chat", send(to_chat(SQL)), E::Invalid),
        ("SQL for a person", send(to_peer(SQL)), E::Invalid),
        ("an empty chat", send(to_chat("")), E::Invalid),
        ("a chat that does not exist", send(to_chat(nobody)), E::NotAMember),
        (
            "a chat of others",
            send(to_chat(&strangers.to_string())),
            E::NotAMember,
        ),
        (
            "a person who does not exist",
            send(to_peer(nobody)),
            E::PeerNotFound,
        ),
    ]
}

/// Returns messages to `peer` with an envelope that is not allowed.
fn wrongly_enveloped(peer: UserId) -> Vec<Case> {
    let with = |change: fn(&mut v1::Envelope)| {
        let mut envelope = wire::plain();
        change(&mut envelope);
        message(&fresh(), to_peer(&peer.to_string()), envelope)
    };
    vec![
        ("an unknown kind", with(|envelope| envelope.kind = 99), E::Invalid),
        (
            "a reaction to nothing",
            with(|envelope| envelope.kind = v1::MessageKind::Reaction.into()),
            E::Invalid,
        ),
        (
            "an edit of nothing",
            with(|envelope| envelope.kind = v1::MessageKind::Edit.into()),
            E::Invalid,
        ),
        (
            "65 mentions",
            with(|envelope| envelope.mentioned_user_ids = vec![RequestId::random().to_string(); 65]),
            E::Invalid,
        ),
        (
            "a mention that is no id",
            with(|envelope| envelope.mentioned_user_ids = vec![SQL.to_owned()]),
            E::Invalid,
        ),
        (
            "a life of more than a year",
            with(|envelope| envelope.time_to_live_s = 31_536_001),
            E::Invalid,
        ),
        (
            "an envelope of 9 KiB",
            with(|envelope| envelope.traceparent = "x".repeat(9 * 1024)),
            E::TooLarge,
        ),
    ]
}

/// Returns messages to `peer` whose body does not fit their kind.
fn wrongly_filled(peer: UserId) -> Vec<Case> {
    use v1::MessageKind as K;
    let cases = [
        ("a message of nothing", K::Message, String::new()),
        ("an edit to nothing", K::Edit, String::new()),
        ("a deletion that says something", K::Delete, "x".to_owned()),
        ("a reaction that says nothing", K::Reaction, String::new()),
        ("a reaction of 65 bytes", K::Reaction, "x".repeat(65)),
        ("a pin that says something", K::Pin, "x".to_owned()),
    ];
    let case = |(what, kind, body): (&'static str, K, String)| {
        let envelope = v1::Envelope {
            kind: kind.into(),
            target_seq: 1,
            ..wire::plain()
        };
        let message = v1::SendMessage {
            body: body.into(),
            ..message(&fresh(), to_peer(&peer.to_string()), envelope)
        };
        (what, message, E::Invalid)
    };
    cases.map(case).into()
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
        BOUND,
        wire.until(|event| match event {
            Event::SendResult(result) => match result.outcome? {
                Outcome::Error(error) if error.code() == E::RateLimited => Some(error),
                _ => None,
            },
            _ => None,
        }),
    );
    let limited = limited.await.unwrap();
    assert!(limited.retry_after_ms > 0);
    world.end().await;
}
