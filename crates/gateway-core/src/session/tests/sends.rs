//! These tests hold which messages of a device pass to the chat's owner, and how the others are refused.

use std::time::Duration;

use tern_proto::raw;
use tern_proto::v1::{self, SendErrorCode, send_message, send_result, server_event::Event as Kind};
use tern_types::limits::{MAX_BODY_BYTES, MAX_SENDS_IN_FLIGHT};
use tern_types::{ChatId, RequestId, UserId};

use super::{Talk, talk};
use crate::session::{Effect, Event, Item, Mail, Op};

impl Talk {
    /// Returns the messages that were passed on: their references, requests and chats.
    fn passed_on(&self) -> Vec<(u64, RequestId, ChatId)> {
        let send = |want: &Effect| match want {
            Effect::Up(Op::Send { reference, send }) => Some((*reference, send.request_id, send.chat)),
            _ => None,
        };
        self.wants.iter().filter_map(send).collect()
    }

    /// Returns the request_ids of the messages that the device was told to send again, each with the time to wait.
    fn again(&self) -> Vec<(String, u32)> {
        let again = |said: &Kind| {
            let Kind::SendResult(result) = said else {
                return None;
            };
            let Some(send_result::Outcome::Error(error)) = &result.outcome else {
                return None;
            };
            let unavailable = error.code() == SendErrorCode::Unavailable;
            unavailable.then(|| (result.request_id.clone(), error.retry_after_ms))
        };
        self.said.iter().filter_map(again).collect()
    }
}

#[test]
fn what_is_wrong_with_one_send_is_its_result_and_nothing_else() {
    type Change = fn(&mut v1::SendMessage);
    let cases: [(&str, Change, SendErrorCode); 7] = [
        (
            "no request_id",
            |send| send.request_id.clear(),
            SendErrorCode::Invalid,
        ),
        (
            "no UUID",
            |send| send.request_id = "x".repeat(100_000),
            SendErrorCode::Invalid,
        ),
        ("no address", |send| send.to = None, SendErrorCode::Invalid),
        (
            "no chat",
            |send| send.to = Some(send_message::To::ChatId("x".into())),
            SendErrorCode::Invalid,
        ),
        (
            "no peer",
            |send| send.to = Some(send_message::To::PeerUserId("x".into())),
            SendErrorCode::Invalid,
        ),
        (
            "a byte more",
            |send| send.body = vec![0; MAX_BODY_BYTES + 1].into(),
            SendErrorCode::TooLarge,
        ),
        (
            "large envelope",
            |send| {
                let traceparent = "x".repeat(9000);
                let envelope = v1::Envelope {
                    traceparent,
                    ..Default::default()
                };
                send.envelope = envelope.encoded();
            },
            SendErrorCode::TooLarge,
        ),
    ];
    for (name, change, code) in cases {
        let talk = talk().opened().send(change);
        assert_eq!(talk.refusal(), code, "{name}");
        assert!(talk.wants.is_empty() && talk.ended.is_none(), "{name}");
    }
    // An envelope of 9,000 bytes in field 1000, which this version does not know.
    let unknown = [&[0xc2, 0x3e, 0xa8, 0x46][..], &[7; 9000]].concat();
    let large = v1::SendMessage {
        request_id: RequestId::random().to_string(),
        to: Some(send_message::To::ChatId(RequestId::random().to_string())),
        envelope: unknown.into(),
        body: "x".into(),
    };
    let refused = talk().opened().item(Item::Send(large));
    assert_eq!(refused.refusal(), SendErrorCode::TooLarge, "every byte counts");
    let talk = talk()
        .opened()
        .send(|send| send.body = vec![0; MAX_BODY_BYTES].into());
    assert!(
        matches!(talk.wants[..], [Effect::Up(Op::Send { .. })]),
        "the largest body passes"
    );
}

#[test]
fn a_peer_is_addressed_by_the_direct_chat_with_them() {
    let peer = UserId::random();
    let talk = talk()
        .opened()
        .send(|send| send.to = Some(send_message::To::PeerUserId(peer.to_string())));
    let Some(Effect::Up(Op::Send { send, .. })) = talk.wants.first() else {
        panic!("{:?}", talk.wants)
    };
    assert_eq!(
        (send.chat, send.peer),
        (ChatId::direct(talk.identity.user, peer), Some(peer))
    );
}

#[test]
fn sends_are_limited_in_flight_and_by_rate() {
    let mut talk = talk().opened();
    for _ in 0..MAX_SENDS_IN_FLIGHT {
        talk = talk.send(|_| {});
    }
    assert!(talk.said.is_empty());
    talk = talk.send(|_| {});
    assert_eq!(talk.refusal(), SendErrorCode::RateLimited);
    let in_flight: Vec<u64> = talk
        .wants
        .drain(..)
        .map(|want| match want {
            Effect::Up(Op::Send { reference, .. }) => reference,
            other => panic!("{other:?}"),
        })
        .collect();
    for reference in in_flight {
        talk = talk.tell(Event::Mail(Mail::SendFailed { reference }));
        assert_eq!(talk.refusal(), SendErrorCode::Unavailable);
    }
    let burst = 200 - MAX_SENDS_IN_FLIGHT;
    for _ in 0..burst {
        talk = talk.send(|_| {});
    }
    assert_eq!(talk.wants.len(), burst);
    talk = talk.send(|_| {});
    assert_eq!(talk.refusal(), SendErrorCode::RateLimited);
    talk = talk.wait(Duration::from_millis(50)).send(|_| {});
    assert_eq!(talk.wants.len(), burst + 1);
}

/// The chat's owner hangs, or the message waits for an owner. Clients are promised an answer within 5 s.
#[test]
fn a_send_without_a_result_is_answered_in_time_and_a_result_that_comes_late_counts() {
    let began = talk().opened().send(|_| {}).send(|_| {});
    let bound = began.now + Duration::from_secs(5);
    let talk = began.wait(Duration::from_secs(4)).send(|_| {});
    assert!(talk.said.is_empty(), "the owner may answer: {:?}", talk.said);
    assert!(talk.session.due() < bound);
    let talk = talk.wait(Duration::from_millis(999));
    let passed_on = talk.passed_on();
    let [(reference, first, chat), (_, second, _), _] = passed_on[..] else {
        panic!("{passed_on:?}")
    };
    let early = [first, second].map(|request| (request.to_string(), 1000));
    assert_eq!(talk.again(), early, "in their order, and not the third");

    let sent = v1::Sent {
        chat_id: chat.to_string(),
        seq: 1,
        sent_at_ms: 0,
    };
    let result = v1::SendResult {
        request_id: first.to_string(),
        outcome: Some(send_result::Outcome::Sent(sent)),
    };
    let talk = talk.tell(Event::Mail(Mail::Result {
        reference,
        event: raw::event(Kind::SendResult(result)),
        placed: Some((chat, 1)),
    }));
    assert_eq!(talk.places(), ["sent 1"]);
    let talk = talk.wait(Duration::from_secs(5));
    assert_eq!(talk.again().len(), 3, "each once");
}

#[test]
fn a_client_that_has_left_is_told_of_a_send_without_a_result_before_the_end() {
    let talk = talk().opened().send(|_| {}).tell(Event::HalfClosed);
    assert!(talk.ended.is_none());
    let talk = talk.wait(Duration::from_millis(4999));
    assert_eq!(talk.again().len(), 1);
    assert!(matches!(talk.ended, Some(None)), "it ends well");
}
