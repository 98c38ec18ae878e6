//! These tests hold when own typing signs are sent, and how long those of others are shown.

use std::time::Duration;

use super::*;
use crate::model::Outgoing;
use crate::testing::{entry, user, wire};

fn typing(of: u128, stopped: bool) -> Wire {
    Wire::UserTyping(v1::UserTyping {
        chat_id: chat(1).to_string(),
        user_id: user(of).to_string(),
        stopped,
        expires_in_ms: if stopped { 0 } else { 6000 },
    })
}

/// Returns the people of whom the app is told that they are typing (true) or no longer typing.
fn shown(effects: &Effects) -> Vec<(tern_types::UserId, bool)> {
    let shown = |event: &Event| match event {
        Event::Typing { user, typing, .. } => Some((*user, *typing)),
        _ => None,
    };
    effects.events.iter().filter_map(shown).collect()
}

/// Returns the typing items for the server. True says that the person has stopped.
fn said(effects: &Effects) -> Vec<bool> {
    let said = |item: &Item| match item {
        Item::Typing(typing) => Some(typing.stopped),
        _ => None,
    };
    effects.items.iter().filter_map(said).collect()
}

#[test]
fn somebody_writes_until_it_expires_and_is_told_once() {
    let mut engine = connected();
    assert_eq!(shown(&feed(&mut engine, typing(2, false))), [(user(2), true)]);
    let later = NOW + Duration::from_secs(3);
    let again = engine.apply([Input::Frame(frame(typing(2, false)))], later);
    assert_eq!(shown(&again), []);
    let expires = later + Duration::from_secs(6);
    assert_eq!(engine.next_wake(), Some(expires));
    let early = engine.apply([Input::Tick], expires - Duration::from_millis(1));
    assert_eq!(shown(&early), []);
    assert_eq!(shown(&engine.apply([Input::Tick], expires)), [(user(2), false)]);
}

#[test]
fn stopping_or_a_message_of_theirs_ends_it_at_once() {
    let mut engine = connected();
    feed(&mut engine, typing(2, false));
    assert_eq!(shown(&feed(&mut engine, typing(2, true))), [(user(2), false)]);
    assert_eq!(shown(&feed(&mut engine, typing(2, true))), []);
    for of in [2, 3] {
        feed(&mut engine, typing(of, false));
    }
    let came = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    assert_eq!(shown(&came), [(user(2), false)], "not of the other");
}

#[test]
fn an_app_may_say_so_at_each_key_press() {
    let mut engine = connected();
    let mut press = |at: u64, stopped| {
        let input = Input::Typing {
            chat: chat(1),
            stopped,
        };
        said(&engine.apply([input], NOW + Duration::from_millis(at)))
    };
    let pressed: Vec<bool> = (0..60).flat_map(|n| press(n * 100, false)).collect();
    assert_eq!(pressed, [false, false], "at 0 and at 3 s");
    assert_eq!(press(6000, true), [true]);
    assert_eq!(press(6100, true), [] as [bool; 0]);
    assert_eq!(press(9000, false), [false]);
    let message = Input::Send(Outgoing::new(chat(1), "done"));
    engine.apply([message], NOW + Duration::from_millis(9100));
    let stop = Input::Typing {
        chat: chat(1),
        stopped: true,
    };
    let said_then = said(&engine.apply([stop], NOW + Duration::from_millis(9200)));
    assert_eq!(said_then, [] as [bool; 0], "the message said it");
}

#[test]
fn without_a_connection_nobody_is_told_later_either() {
    let mut engine = crate::testing::engine(Stored::default());
    let input = Input::Typing {
        chat: chat(1),
        stopped: false,
    };
    assert_eq!(said(&engine.apply([input], NOW)), [] as [bool; 0]);
    let opened = engine.apply([Input::Start, Input::Frame(frame(opened(1)))], NOW);
    assert_eq!(said(&opened), [] as [bool; 0]);
}
