//! These tests hold how a stream is kept alive, and what follows from its end.

use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, CloseCode};

use super::{acks, chat, closing, connected, feed, lost, opens};
use crate::backoff;
use crate::engine::{Input, StreamOrder};
use crate::model::StopReason;
use crate::testing::{NOW, entry, frame, wire};

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

#[test]
fn the_end_takes_the_last_acknowledgements_along() {
    let mut engine = connected();
    let last = Input::Frame(frame(Wire::Entry(wire(&entry(chat(1), 1)))));
    let effects = engine.apply([last, Input::Stop, Input::SetActive(true)], NOW);
    assert_eq!(acks(&effects), [(chat(1).to_string(), 1)]);
    assert_eq!((effects.stream, effects.stopped), (None, Some(StopReason::ByApp)));
    assert_eq!(engine.next_wake(), None);
}
