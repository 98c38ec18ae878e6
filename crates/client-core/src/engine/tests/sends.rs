//! These tests hold the way of a message from the app until it has a place in the log.

use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, SendErrorCode, send_result::Outcome};
use tern_types::{ChatId, RequestId, Seq};

use super::{acks, chat, connected, feed, lost, sends, told};
use crate::engine::{Change, Input, Stored};
use crate::model::{Event, Outgoing, QueuedMessage, SendState, To};
use crate::testing::{NOW, engine, entry, frame, opened, user, wire};

#[test]
fn an_own_send_is_durable_first_and_its_result_is_its_entry() {
    let mut engine = connected();
    let message = Outgoing::new(To::Peer(user(2)), "hello");
    let request = message.request;
    let direct = ChatId::direct(user(1), user(2));
    let queued = engine.apply([Input::Send(message)], NOW);
    assert!(matches!(&queued.changes[..], [Change::Queue(queued)] if queued.chat == direct));
    assert_eq!(sends(&queued), [request.to_string()]);

    let sent = v1::Sent {
        chat_id: direct.to_string(),
        seq: 1,
        sent_at_ms: NOW.0,
    };
    let outcome = Some(Outcome::Sent(sent));
    let effects = feed(
        &mut engine,
        Wire::SendResult(v1::SendResult {
            request_id: request.to_string(),
            outcome,
        }),
    );
    assert_eq!(told(&effects), [1]);
    assert_eq!(acks(&effects), [(direct.to_string(), 1)]);
    assert!(
        effects.calls.is_empty(),
        "the chat of two people needs no look-up"
    );
}

#[test]
fn a_message_takes_the_place_of_a_refused_one_in_one_commit() {
    let mut engine = connected();
    let (refused, message) = (RequestId::random(), Outgoing::new(chat(1), "again"));
    let again = Input::SendAgain {
        refused,
        message: message.clone(),
    };
    let effects = engine.apply([again], NOW);
    let [Change::Unqueue(unqueued), Change::Queue(queued)] = &effects.changes[..] else {
        panic!("{:?}", effects.changes)
    };
    assert_eq!((*unqueued, &queued.message), (refused, &message));
    assert_eq!(sends(&effects), [message.request.to_string()]);
}

#[test]
fn a_refused_send_fails_and_one_that_the_server_cannot_take_now_waits() {
    let mut engine = connected();
    let messages = [Outgoing::new(chat(1), "a"), Outgoing::new(chat(2), "b")];
    let requests = messages.each_ref().map(|message| message.request);
    engine.apply(messages.map(Input::Send), NOW);
    let failure = |request: RequestId, code: SendErrorCode| {
        let error = v1::SendError {
            code: code.into(),
            message: "no".into(),
            retry_after_ms: 300,
        };
        Wire::SendResult(v1::SendResult {
            request_id: request.to_string(),
            outcome: Some(Outcome::Error(error)),
        })
    };
    for code in [
        SendErrorCode::NotAMember,
        SendErrorCode::NotAccepted,
        SendErrorCode::ChatFrozen,
        SendErrorCode::RoleTooLow,
        SendErrorCode::SlowMode,
        SendErrorCode::TooManyActs,
    ] {
        let message = Outgoing::new(chat(3), "c");
        let request = message.request;
        engine.apply([Input::Send(message)], NOW);
        let failed = feed(&mut engine, failure(request, code));
        let message = "no".into();
        let event = Event::Send {
            request,
            chat: chat(3),
            state: SendState::Failed {
                code,
                message,
                retry_at: Some(NOW + Duration::from_millis(300)),
            },
        };
        assert!(failed.events.contains(&event), "{code:?}");
        let later = engine.apply([Input::Tick], NOW + Duration::from_secs(60));
        assert!(!sends(&later).contains(&request.to_string()), "{code:?} is final");
    }
    let paused = feed(&mut engine, failure(requests[1], SendErrorCode::Unavailable));
    assert_eq!((sends(&paused), paused.events.len()), (vec![], 0));
    let again = engine.apply([Input::Tick], NOW + Duration::from_millis(300));
    assert_eq!(sends(&again), [requests[1].to_string()]);
}

#[test]
fn what_an_older_version_stored_too_large_fails_and_the_rest_of_the_outbox_goes() {
    let large = vec![0; tern_types::limits::MAX_BODY_BYTES + 1];
    let envelope = v1::Envelope {
        traceparent: "x".repeat(tern_types::limits::MAX_ENVELOPE_BYTES),
        ..Default::default()
    };
    let messages = [
        Outgoing::new(chat(1), large),
        Outgoing {
            envelope,
            ..Outgoing::new(chat(1), "b")
        },
        Outgoing::new(chat(1), "c"),
    ];
    let requests = messages.each_ref().map(|message| message.request);
    let queued = messages.map(|message| QueuedMessage {
        message,
        chat: chat(1),
        created_at: NOW,
        state: SendState::Queued,
    });
    let mut engine = engine(Stored {
        outbox: queued.into(),
        ..Stored::default()
    });
    let started = engine.apply([Input::Start], NOW);
    let failed: Vec<RequestId> = started
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Failed { request, code, .. } if *code == SendErrorCode::TooLarge => Some(*request),
            _ => None,
        })
        .collect();
    assert_eq!(failed, requests[..2]);
    assert_eq!(sends(&feed(&mut engine, opened(1))), [requests[2].to_string()]);
}

#[test]
fn a_new_stream_repeats_the_outbox_and_unconfirmed_read_marks() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let message = Outgoing::new(chat(1), "a");
    let request = message.request.to_string();
    engine.apply(
        [
            Input::Send(message),
            Input::MarkRead {
                chat: chat(1),
                seq: Seq(1),
            },
        ],
        NOW,
    );
    engine.apply([lost()], NOW);
    let later = NOW + Duration::from_secs(60);
    engine.apply([Input::Tick], later);
    let effects = engine.apply([Input::Frame(frame(opened(1)))], later);
    assert_eq!(sends(&effects), [request]);
    assert!(
        effects
            .items
            .iter()
            .any(|item| matches!(item, Item::MarkRead(mark) if mark.seq == 1))
    );
}
