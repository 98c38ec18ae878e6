//! These tests hold the presence that the engine tells: this person's to the server, and other people's to the app.

use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, PresenceState};
use tern_types::Timestamp;

use super::{connected, feed, lost};
use crate::engine::{Effects, Engine, Input, StreamOrder};
use crate::model::{Event, Presence};
use crate::testing::{NOW, frame, opened, user};

fn active(effects: &Effects) -> Vec<bool> {
    let active = |item: &Item| match item {
        Item::SetActive(set) => Some(set.active),
        _ => None,
    };
    effects.items.iter().filter_map(active).collect()
}

fn watched(effects: &Effects) -> Vec<usize> {
    let watched = |item: &Item| match item {
        Item::WatchPresence(watch) => Some(watch.user_ids.len()),
        _ => None,
    };
    effects.items.iter().filter_map(watched).collect()
}

/// Ticks the engine until `until`, and returns the SetActive items that it sends.
fn run(engine: &mut Engine, until: Timestamp) -> Vec<bool> {
    let mut said = Vec::new();
    while let Some(at) = engine.next_wake().filter(|at| *at <= until) {
        said.extend(active(&engine.apply([Input::Tick], at)));
        // The server answers each time, so that the engine takes it for alive.
        let ack = v1::HeartbeatAck {
            heartbeat_interval_ms: 45_000,
            ..Default::default()
        };
        engine.apply([Input::Frame(frame(Wire::HeartbeatAck(ack)))], at);
    }
    said
}

#[test]
fn while_the_person_is_there_the_server_is_told_again_and_again() {
    let mut engine = connected();
    assert!(run(&mut engine, NOW + Duration::from_secs(100)).is_empty());
    let at = NOW + Duration::from_secs(100);
    assert_eq!(active(&engine.apply([Input::SetActive(true)], at)), [true]);
    let said = run(&mut engine, at + Duration::from_secs(61));
    assert_eq!(said, [true; 4], "every 15 s");
    let at = at + Duration::from_secs(61);
    assert_eq!(active(&engine.apply([Input::SetActive(false)], at)), [false]);
    assert!(run(&mut engine, at + Duration::from_secs(100)).is_empty());
}

#[test]
fn a_new_stream_begins_with_the_person_and_with_the_screen() {
    let mut engine = connected();
    engine.apply([Input::SetActive(true)], NOW);
    let effects = engine.apply([Input::WatchPresence(vec![user(2), user(3)])], NOW);
    assert_eq!(watched(&effects), [2]);
    engine.apply([lost()], NOW);
    let at = engine.next_wake().unwrap();
    let effects = engine.apply([Input::Tick], at);
    let Some(StreamOrder::Open(open)) = effects.stream else {
        panic!("no stream")
    };
    assert!(open.active);
    let effects = engine.apply([Input::Frame(frame(opened(1)))], at);
    assert_eq!(watched(&effects), [2]);
    let effects = engine.apply([Input::WatchPresence(Vec::new()), lost()], at);
    assert!(watched(&effects).is_empty());
}

#[test]
fn the_app_is_told_what_people_show() {
    let mut engine = connected();
    let cases = [
        (PresenceState::Online, 0, Presence::Online),
        (PresenceState::Offline, 77, Presence::LastSeen(Timestamp(77))),
        (PresenceState::Hidden, 0, Presence::Hidden),
    ];
    for (state, last_seen_ms, expected) in cases {
        let shown = v1::Presence {
            user_id: user(2).to_string(),
            state: state.into(),
            last_seen_ms,
        };
        let effects = feed(&mut engine, Wire::Presence(shown));
        let presence = Event::Presence {
            user: user(2),
            presence: expected,
        };
        assert_eq!(effects.events, [presence]);
    }
    let result = v1::WatchResult {
        limited_user_ids: vec![user(3).to_string(), "no id".into()],
        retry_after_ms: 5000,
        ..Default::default()
    };
    let effects = feed(&mut engine, Wire::WatchResult(result));
    let watching = Event::Watching {
        error: v1::WatchErrorCode::Unspecified,
        limited: vec![user(3)],
        retry_after: Duration::from_secs(5),
    };
    assert_eq!(effects.events, [watching]);
}
