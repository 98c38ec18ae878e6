//! The engine against the simulated server, and the protocol's rules one by one.

use std::time::Duration;

use proptest::prelude::*;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, CloseCode, ErrorReason, SendErrorCode, send_result::Outcome};
use tern_types::{ChatId, RequestId, Seq, Timestamp};
use uuid::Uuid;

use super::sim::World;
use super::testing::{NOW, credentials, engine, entry, frame, opened, user, wire};
use super::{Call, Change, Effects, Engine, Input, Stored, StreamOrder};
use crate::backoff;
use crate::error::CallError;
use crate::model::{Event, Mark, Outgoing, QueuedMessage, SendState, StopReason, To};

#[derive(Debug, Clone)]
enum Act {
    OtherWrites { chat: usize, lost: bool },
    DeviceWrites(usize),
    Deliver { chat: usize, repeat: bool },
    Serve { unavailable: bool, lose_result: bool },
    Resend(usize),
    Answer { fails: bool },
    Pass(u64),
    LoseStream,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0usize..3, any::<bool>()).prop_map(|(chat, lost)| Act::OtherWrites { chat, lost }),
        6 => (0usize..3).prop_map(Act::DeviceWrites),
        12 => (0usize..3, any::<bool>()).prop_map(|(chat, repeat)| Act::Deliver { chat, repeat }),
        12 => (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(unavailable, lose_result)| Act::Serve { unavailable, lose_result }),
        2 => (0usize..3).prop_map(Act::Resend),
        4 => any::<bool>().prop_map(|fails| Act::Answer { fails }),
        3 => (0u64..40_000).prop_map(Act::Pass),
        1 => Just(Act::LoseStream),
        1 => Just(Act::Crash),
    ]
}

fn play(world: &mut World, acts: &[Act]) {
    for act in acts {
        match act.clone() {
            Act::OtherWrites { chat, lost } => world.other_writes(world.chat(chat), lost),
            Act::DeviceWrites(chat) => world.device_writes(world.chat(chat)),
            Act::Deliver { chat, repeat } => world.deliver(world.chat(chat), repeat),
            Act::Serve {
                unavailable,
                lose_result,
            } => world.serve(unavailable, lose_result),
            Act::Resend(chat) => world.resend(world.chat(chat)),
            Act::Answer { fails } => world.answer(fails),
            Act::Pass(millis) => world.pass(Duration::from_millis(millis)),
            Act::LoseStream => world.lose_stream(),
            Act::Crash => world.crash(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn everything_is_applied_once_in_order_and_nothing_is_lost(acts in prop::collection::vec(act(), 0..150)) {
        let mut world = World::new(&[0, 0, 7]);
        play(&mut world, &acts);
        world.settle();
        world.check();
        world.check_sends();
    }

    #[test]
    fn after_a_restored_backup_the_device_has_what_the_server_has_and_own_messages_are_back(
        before in prop::collection::vec(act(), 0..80), lost in 0usize..10, after in prop::collection::vec(act(), 0..40),
    ) {
        let mut world = World::new(&[0, 0, 0]);
        play(&mut world, &before);
        world.settle();
        world.restore_backup(lost);
        play(&mut world, &after);
        world.settle();
        let device = Some(credentials().device);
        for (chat, log) in &world.logs {
            let mut logged: Vec<_> = log.entries.iter().filter(|e| e.device == device).filter_map(|e| e.request).collect();
            let mut written: Vec<_> = world.written.iter().filter(|(to, _)| to == chat).map(|(_, id)| *id).collect();
            logged.sort();
            written.sort();
            prop_assert_eq!(logged, written);
        }
    }
}

// --- one rule each ---

fn chat(number: u128) -> ChatId {
    ChatId(Uuid::from_u128(number))
}

fn connected() -> Engine {
    let mut engine = engine(Stored {
        epoch: Some(Uuid::from_u128(1)),
        listed: true,
        ..Stored::default()
    });
    engine.apply([Input::Start, Input::Frame(frame(opened(1)))], NOW);
    engine
}

fn feed(engine: &mut Engine, event: Wire) -> Effects {
    engine.apply([Input::Frame(frame(event))], NOW)
}

fn acks(effects: &Effects) -> Vec<(String, u64)> {
    let ack = |item: &Item| {
        if let Item::Ack(ack) = item {
            Some((ack.chat_id.clone(), ack.seq))
        } else {
            None
        }
    };
    effects.items.iter().filter_map(ack).collect()
}

fn sends(effects: &Effects) -> Vec<String> {
    let send = |item: &Item| {
        if let Item::Send(send) = item {
            Some(send.request_id.clone())
        } else {
            None
        }
    };
    effects.items.iter().filter_map(send).collect()
}

fn told(effects: &Effects) -> Vec<u64> {
    let seq = |event: &Event| {
        if let Event::Entry(entry) = event {
            Some(entry.seq.0)
        } else {
            None
        }
    };
    effects.events.iter().filter_map(seq).collect()
}

fn closing(code: CloseCode, may_reconnect: bool) -> Wire {
    Wire::Closing(v1::Closing {
        code: code.into(),
        reason: "because".into(),
        retry_after_ms: 7000,
        may_reconnect,
    })
}

fn lost() -> Input {
    Input::StreamLost(CallError::unavailable("gone"))
}

fn refused(code: tonic::Code, reason: ErrorReason) -> CallError {
    CallError {
        code,
        reason,
        message: "refused".into(),
        retry_after: None,
    }
}

fn tokens(number: u32) -> v1::TokenPair {
    v1::TokenPair {
        access_token: format!("access-{number}"),
        access_expires_at_ms: (NOW + Duration::from_secs(7200)).0,
        refresh_token: format!("refresh-{number}"),
    }
}

fn opens(effects: &Effects) -> Option<&str> {
    match &effects.stream {
        Some(StreamOrder::Open(open)) => Some(&open.access_token),
        _ => None,
    }
}

#[test]
fn one_acknowledgement_a_chat_stands_for_all_that_came_together() {
    let mut engine = connected();
    let frames = (1..=3).map(|seq| Input::Frame(frame(Wire::Entry(wire(&entry(chat(1), seq))))));
    let effects = engine.apply(frames, NOW);
    assert_eq!(acks(&effects), [(chat(1).to_string(), 3)]);
    assert_eq!(told(&effects), [1, 2, 3]);
}

#[test]
fn a_repetition_is_acknowledged_again_and_not_told() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let effects = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    assert_eq!(acks(&effects), [(chat(1).to_string(), 1)]);
    assert_eq!(told(&effects), [0; 0]);
    assert_eq!(effects.changes, []);
}

#[test]
fn nothing_is_acknowledged_before_the_gap_is_closed() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let ahead = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 3))));
    assert_eq!((acks(&ahead), told(&ahead)), (vec![], vec![]));
    let closed = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 2))));
    assert_eq!(told(&closed), [2, 3]);
    assert_eq!(acks(&closed), [(chat(1).to_string(), 3)]);
}

#[test]
fn an_unknown_chat_waits_for_its_resume_seq() {
    let mut engine = connected();
    let held = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 9))));
    assert_eq!(held.calls, [Call::GetChat(chat(1))]);
    let result = Err(refused(tonic::Code::NotFound, ErrorReason::ChatNotFound));
    let effects = engine.apply(
        [Input::LookedUp {
            chat: chat(1),
            result,
        }],
        NOW,
    );
    assert_eq!(
        told(&effects),
        [9],
        "no member any more: what comes is what there is"
    );
}

#[test]
fn skipped_raises_the_cursor() {
    let mut engine = connected();
    let skipped = v1::Skipped {
        chat_id: chat(1).to_string(),
        to_seq: 8,
        ..Default::default()
    };
    let effects = feed(&mut engine, Wire::Skipped(skipped));
    assert_eq!(acks(&effects), [(chat(1).to_string(), 8)]);
    assert_eq!(
        told(&feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 9))))),
        [9]
    );
}

#[test]
fn a_missing_entry_that_does_not_come_is_read() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 3))));
    let effects = engine.apply([Input::Tick], NOW + Duration::from_secs(20));
    let fill = Call::Fill {
        chat: chat(1),
        from: Seq(2),
    };
    assert!(effects.calls.contains(&fill), "{:?}", effects.calls);
    let result = Ok(vec![entry(chat(1), 3)]);
    let effects = engine.apply(
        [Input::Filled {
            chat: chat(1),
            result,
        }],
        NOW,
    );
    assert_eq!(told(&effects), [3], "the server has no 2 for this device");
}

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
    let failed = feed(&mut engine, failure(requests[0], SendErrorCode::NotAMember));
    let state = SendState::Failed {
        code: SendErrorCode::NotAMember,
        message: "no".into(),
    };
    assert!(failed.events.contains(&Event::Send {
        request: requests[0],
        chat: chat(1),
        state
    }));
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

#[test]
fn unread_counts_follow_messages_and_read_marks() {
    let mut engine = connected();
    let unread = |effects: &Effects| {
        let count = |event: &Event| {
            if let Event::Chat(chat) = event {
                Some(chat.unread)
            } else {
                None
            }
        };
        effects.events.iter().rev().find_map(count)
    };
    for seq in 1..=3 {
        let effects = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), seq))));
        assert_eq!(unread(&effects), Some(u32::try_from(seq).unwrap()));
    }
    assert_eq!(
        unread(&engine.apply(
            [Input::MarkRead {
                chat: chat(1),
                seq: Seq(2)
            }],
            NOW
        )),
        Some(1)
    );
    let receipt = v1::Receipt {
        chat_id: chat(1).to_string(),
        user_id: user(1).to_string(),
        read_seq: 3,
        ..Default::default()
    };
    assert_eq!(
        unread(&feed(&mut engine, Wire::Receipt(receipt))),
        Some(0),
        "read on another device"
    );
}

#[test]
fn receipts_only_rise() {
    let mut engine = connected();
    let receipt = |delivered_seq, read_seq| {
        let (chat_id, user_id) = (chat(1).to_string(), user(2).to_string());
        Wire::Receipt(v1::Receipt {
            chat_id,
            user_id,
            delivered_seq,
            read_seq,
        })
    };
    let mark = Mark {
        delivered: Seq(4),
        read: Seq(2),
    };
    let effects = feed(&mut engine, receipt(4, 2));
    assert_eq!(
        effects.events,
        [Event::Receipt {
            chat: chat(1),
            user: user(2),
            mark
        }]
    );
    assert!(feed(&mut engine, receipt(3, 1)).events.is_empty());
}

#[test]
fn caught_up_is_told_when_no_chat_is_being_looked_up() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 9))));
    assert!(
        !feed(&mut engine, Wire::CaughtUp(v1::CaughtUp {}))
            .events
            .contains(&Event::CaughtUp)
    );
    let result = Err(refused(tonic::Code::NotFound, ErrorReason::ChatNotFound));
    let effects = engine.apply(
        [Input::LookedUp {
            chat: chat(1),
            result,
        }],
        NOW,
    );
    assert!(effects.events.contains(&Event::CaughtUp));
}

#[test]
fn an_end_means_what_its_code_says() {
    let cases = [
        (
            closing(CloseCode::SessionReplaced, false),
            Some(StopReason::Replaced),
        ),
        (
            closing(CloseCode::DeviceRevoked, false),
            Some(StopReason::Revoked),
        ),
        (
            closing(CloseCode::ProtocolError, false),
            Some(StopReason::Refused("because".into())),
        ),
        (
            closing(CloseCode::ResourceExhausted, false),
            Some(StopReason::Refused("because".into())),
        ),
        (closing(CloseCode::ResourceExhausted, true), None),
        (closing(CloseCode::Draining, true), None),
    ];
    for (event, stops) in cases {
        let mut engine = connected();
        feed(&mut engine, event.clone());
        let effects = engine.apply([lost()], NOW);
        assert_eq!(effects.stopped, stops, "{event:?}");
        let wake = engine.next_wake();
        match stops {
            Some(_) => assert_eq!(wake, None, "{event:?}"),
            None => assert!(wake >= Some(NOW + Duration::from_secs(7)), "{event:?}: {wake:?}"),
        }
    }
}

#[test]
fn a_token_that_ends_is_renewed_on_the_running_stream() {
    let mut engine = connected();
    let expiring = v1::TokenExpiring { expires_at_ms: NOW.0 };
    let effects = feed(&mut engine, Wire::TokenExpiring(expiring));
    assert_eq!(
        effects.calls,
        [Call::Refresh {
            refresh_token: "refresh-1".into()
        }]
    );
    assert!(
        feed(&mut engine, Wire::TokenExpiring(expiring)).calls.is_empty(),
        "one at a time"
    );
    let effects = engine.apply([Input::Refreshed(Ok(tokens(2)))], NOW);
    assert!(matches!(&effects.changes[..], [Change::Credentials(new)] if new.refresh_token == "refresh-2"));
    assert!(matches!(&effects.items[..], [Item::Reauthenticate(item)] if item.access_token == "access-2"));

    // Once it was taken it is a token like any other: it is renewed when it ends.
    let renewed = v1::Reauthenticated {
        token_expires_at_ms: 0,
    };
    feed(&mut engine, Wire::Reauthenticated(renewed));
    let much_later = engine.credentials().access_expires_at + Duration::from_secs(3600);
    engine.apply([lost()], much_later);
    let at = engine.next_wake().expect("a try");
    let effects = engine.apply([Input::Tick], at);
    assert_eq!(opens(&effects), None);
    assert!(matches!(&effects.calls[..], [Call::Refresh { refresh_token }] if refresh_token == "refresh-2"));
}

#[test]
fn a_refused_token_is_renewed_before_the_next_stream_and_never_in_a_hot_loop() {
    let mut engine = connected();
    let expired = || Input::StreamLost(refused(tonic::Code::Unauthenticated, ErrorReason::TokenExpired));
    let effects = engine.apply([expired()], NOW);
    assert_eq!(effects.calls.len(), 1);
    let effects = engine.apply([Input::Refreshed(Ok(tokens(2)))], NOW);
    assert_eq!(opens(&effects), Some("access-2"));
    let effects = engine.apply([expired()], NOW);
    assert!(
        effects.calls.is_empty() && engine.next_wake().is_some(),
        "it waits before it tries the next token"
    );
}

#[test]
fn the_end_of_the_refresh_token_ends_the_client() {
    for (reason, stopped) in [
        (ErrorReason::RefreshTokenInvalid, Some(StopReason::SignedOut)),
        (ErrorReason::RefreshTokenReused, Some(StopReason::Revoked)),
        (ErrorReason::DeviceRevoked, Some(StopReason::Revoked)),
        (ErrorReason::Unavailable, None),
    ] {
        let mut engine = connected();
        feed(&mut engine, Wire::TokenExpiring(v1::TokenExpiring::default()));
        let error = refused(tonic::Code::Unauthenticated, reason);
        assert_eq!(
            engine.apply([Input::Refreshed(Err(error))], NOW).stopped,
            stopped,
            "{reason:?}"
        );
    }
}

#[test]
fn silence_is_broken_by_a_heartbeat_and_a_dead_connection_is_given_up() {
    let mut engine = connected();
    let at = engine.next_wake().unwrap();
    assert!(at > NOW && at < NOW + Duration::from_secs(45));
    let effects = engine.apply([Input::Tick], at);
    assert!(matches!(&effects.items[..], [Item::Heartbeat(_)]));
    let dead = engine.next_wake().unwrap();
    let effects = engine.apply([Input::Tick], dead);
    assert_eq!(effects.stream, Some(StreamOrder::Close));
    let retry = engine.next_wake().unwrap();
    assert!(retry <= dead + backoff::BASE);
    assert!(opens(&engine.apply([Input::Tick], retry)).is_some());
}

#[test]
fn a_draining_gateway_is_left_when_it_says() {
    let mut engine = connected();
    feed(
        &mut engine,
        Wire::Draining(v1::Draining {
            reconnect_after_ms: 3000,
        }),
    );
    assert_eq!(engine.next_wake(), Some(NOW + Duration::from_secs(3)));
    assert!(opens(&engine.apply([Input::Tick], NOW + Duration::from_secs(3))).is_some());
}

#[test]
fn garbage_of_the_server_is_ignored() {
    let mut engine = connected();
    let no_chat = v1::Entry {
        chat_id: "'; drop table chats; --".into(),
        seq: 1,
        ..Default::default()
    };
    let events = [
        Wire::Entry(no_chat),
        Wire::SendResult(v1::SendResult::default()),
        Wire::Receipt(v1::Receipt::default()),
        Wire::Skipped(v1::Skipped::default()),
        Wire::Opened(v1::Opened::default()),
        Wire::HeartbeatAck(v1::HeartbeatAck::default()),
    ];
    for event in events {
        let effects = feed(&mut engine, event.clone());
        assert!(
            effects.changes.is_empty() && effects.events.is_empty() && effects.stopped.is_none(),
            "{event:?}"
        );
    }
    let unknown = v1::ServerFrame {
        events: vec![v1::ServerEvent { event: None }],
    };
    assert!(engine.apply([Input::Frame(unknown)], NOW).items.is_empty());
}

#[test]
fn an_expired_token_is_renewed_before_the_first_stream() {
    let stale = crate::model::Credentials {
        access_expires_at: Timestamp(NOW.0 - 1),
        ..credentials()
    };
    let mut engine = Engine::new(stale, Stored::default(), super::testing::settings());
    let effects = engine.apply([Input::Start], NOW);
    assert!(effects.stream.is_none());
    assert_eq!(
        effects.calls,
        [Call::Refresh {
            refresh_token: "refresh-1".into()
        }]
    );
}

#[test]
fn after_an_absence_it_asks_who_read_what() {
    let mut engine = connected();
    for number in 1..=2 {
        feed(&mut engine, Wire::Entry(wire(&entry(chat(number), 1))));
    }
    engine.apply(
        [Input::MarkRead {
            chat: chat(2),
            seq: Seq(1),
        }],
        NOW,
    );
    let effects = feed(&mut engine, Wire::CaughtUp(v1::CaughtUp {}));
    assert_eq!(
        effects.calls,
        [Call::Receipts(chat(1))],
        "unread here, perhaps read elsewhere"
    );
}

#[test]
fn the_end_takes_the_last_acknowledgements_along() {
    let mut engine = connected();
    let last = Input::Frame(frame(Wire::Entry(wire(&entry(chat(1), 1)))));
    let effects = engine.apply([last, Input::Stop, Input::SetActive(true)], NOW);
    assert_eq!(acks(&effects), [(chat(1).to_string(), 1)]);
    assert_eq!((effects.stream, effects.stopped), (None, Some(StopReason::ByApp)));
    assert_eq!(engine.next_wake(), None);
}
