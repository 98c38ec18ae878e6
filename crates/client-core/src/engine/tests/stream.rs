//! These tests hold how a stream is kept alive, and what follows from its end.

use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, CloseCode, ErrorReason};

use super::{acks, chat, closing, connected, feed, lost, opens, refused};
use crate::backoff;
use crate::engine::{Call, Effects, Engine, Input, StreamOrder};
use crate::model::{Event, StopReason};
use crate::testing::{NOW, entry, frame, opened, wire};

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

/// Lets the gateway drain, and lets `after` pass, so that the engine leaves it. Returns the effects of that.
fn drained(engine: &mut Engine, after: Duration) -> Effects {
    let reconnect_after_ms = u32::try_from(after.as_millis()).unwrap();
    feed(engine, Wire::Draining(v1::Draining { reconnect_after_ms }));
    engine.apply([Input::Tick], NOW + after)
}

#[test]
fn a_change_of_stream_ends_the_signs_of_presence_until_the_next_one_is_open() {
    let mut engine = connected();
    engine.apply([Input::SetActive(true)], NOW);
    let at = NOW + Duration::from_secs(3);
    assert!(opens(&drained(&mut engine, Duration::from_secs(3))).is_some());
    // Nothing is due before the new stream has taken too long.
    assert_eq!(engine.next_wake(), Some(at + Duration::from_secs(15)));
    engine.apply([Input::Frame(frame(opened(1)))], at);
    let sign = at + Duration::from_secs(15);
    assert_eq!(engine.next_wake(), Some(sign));
    let effects = engine.apply([Input::Tick], sign);
    assert!(matches!(&effects.items[..], [Item::SetActive(set)] if set.active));
}

#[test]
fn a_change_of_stream_that_waits_for_a_token_is_told_and_wakes_nobody() {
    let mut engine = connected();
    engine.apply([Input::SetActive(true)], NOW);
    let effects = drained(&mut engine, Duration::from_secs(3590));
    assert_eq!(effects.stream, Some(StreamOrder::Close));
    assert!(matches!(&effects.calls[..], [Call::Refresh { .. }]));
    assert!(matches!(&effects.events[..], [Event::Disconnected { .. }]));
    assert_eq!(engine.next_wake(), None);
    let at = NOW + Duration::from_secs(3590);
    let failed = refused(tern_proto::Code::Unavailable, ErrorReason::Unavailable);
    engine.apply([Input::Refreshed(Err(failed))], at);
    assert!(engine.next_wake() >= Some(at), "only the renewal is due again");
}

#[test]
fn after_a_change_of_stream_the_app_is_told_caught_up_anew_as_after_an_absence() {
    let mut engine = connected();
    for number in 1..=20 {
        feed(&mut engine, Wire::Entry(wire(&entry(chat(number), 1))));
    }
    let caught_up = || Input::Frame(frame(Wire::CaughtUp(v1::CaughtUp {})));
    let effects = engine.apply([caught_up()], NOW);
    assert!(effects.events.contains(&Event::CaughtUp));
    drained(&mut engine, Duration::from_secs(3));
    let at = NOW + Duration::from_secs(3);
    engine.apply([Input::Frame(frame(opened(1)))], at);
    let effects = engine.apply([caught_up()], at);
    assert!(effects.events.contains(&Event::CaughtUp));
    assert_eq!(effects.calls.len(), 20, "all receipts are asked for");
}

#[test]
fn what_the_stream_before_said_does_not_count_as_caught_up_on_the_next_one() {
    let mut engine = connected();
    // The look-up of an unknown chat delays CaughtUp.
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 9))));
    let caught_up = || Input::Frame(frame(Wire::CaughtUp(v1::CaughtUp {})));
    engine.apply([caught_up()], NOW);
    drained(&mut engine, Duration::from_secs(3));
    let at = NOW + Duration::from_secs(3);
    // A frame of the old stream is read in the same batch in which the new one is ordered.
    engine.apply([caught_up()], at);
    let found = Input::LookedUp {
        chat: chat(1),
        result: Err(refused(tern_proto::Code::NotFound, ErrorReason::ChatNotFound)),
    };
    let effects = engine.apply([Input::Frame(frame(opened(1))), found], at);
    assert!(!effects.events.contains(&Event::CaughtUp));
    let effects = engine.apply([caught_up()], at);
    assert!(effects.events.contains(&Event::CaughtUp));
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
