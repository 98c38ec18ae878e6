//! These tests hold when messages disappear.

use std::time::Duration;

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, send_result::Outcome};
use tern_types::Seq;

use super::{chat, connected, feed};
use crate::engine::{Call, Change, Engine, Input, Stored};
use crate::model::{Entry, Event, Outgoing};
use crate::testing::{NOW, engine, entry, wire};

fn disappearing(seq: u64, after_s: u32) -> Entry {
    let mut entry = entry(chat(1), seq);
    entry.content.expires_after_s = after_s;
    entry
}

fn expired(gone: &[u64]) -> Input {
    Input::Expired {
        gone: gone.iter().map(|seq| (chat(1), Seq(*seq))).collect(),
        next: None,
    }
}

#[test]
fn what_is_due_is_erased_when_it_is_due_and_the_app_is_told() {
    let mut engine = connected();
    for (seq, after_s) in [(1, 60), (2, 30), (3, 0)] {
        feed(&mut engine, Wire::Entry(wire(&disappearing(seq, after_s))));
    }
    let early = engine.apply([Input::Tick], NOW + Duration::from_millis(29_999));
    assert_eq!(early.calls, []);
    let due = NOW + Duration::from_secs(30);
    assert!(engine.next_wake().is_some_and(|at| at <= due));
    assert_eq!(engine.apply([Input::Tick], due).calls, [Call::Expire]);
    let next = NOW + Duration::from_secs(60);
    let answer = Input::Expired {
        gone: vec![(chat(1), Seq(2))],
        next: Some(next),
    };
    let told = engine.apply([answer], due).events;
    let gone = Event::Gone {
        chat: chat(1),
        seqs: vec![Seq(2)],
    };
    assert!(told.contains(&gone), "{told:?}");
    assert_eq!(engine.apply([Input::Tick], due).calls, [], "nothing is due");
    assert!(engine.apply([Input::Tick], next).calls.contains(&Call::Expire));
}

#[test]
fn what_became_due_while_the_client_did_not_run_is_erased_at_its_start() {
    let mut engine = engine(Stored {
        next_expiry: Some(NOW),
        ..Stored::default()
    });
    assert_eq!(engine.apply([Input::Start], NOW).calls, [Call::Expire]);
}

#[test]
fn an_entry_of_history_disappears_too() {
    let mut engine = connected();
    engine.apply([Input::History(vec![disappearing(1, 30)])], NOW);
    let due = NOW + Duration::from_secs(30);
    assert!(engine.apply([Input::Tick], due).calls.contains(&Call::Expire));
}

/// Returns the time after which an own message disappears, as its entry in the store says.
fn time_of_an_own_message(engine: &mut Engine, seq: u64) -> u32 {
    let message = Outgoing::new(chat(1), "mine");
    let request_id = message.request.to_string();
    engine.apply([Input::Send(message)], NOW);
    let sent = v1::Sent {
        chat_id: chat(1).to_string(),
        seq,
        sent_at_ms: NOW.0,
    };
    let result = v1::SendResult {
        request_id,
        outcome: Some(Outcome::Sent(sent)),
    };
    let effects = feed(engine, Wire::SendResult(result));
    let after = effects.changes.iter().find_map(|change| match change {
        Change::Entry(entry) => Some(entry.content.expires_after_s),
        _ => None,
    });
    after.expect("the entry is stored")
}

#[test]
fn own_messages_disappear_after_the_time_that_the_chat_had_when_they_were_sent() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    assert_eq!(time_of_an_own_message(&mut engine, 2), 0);
    let mut change = entry(chat(1), 3);
    let retention = v1::Retention {
        disappear_after_s: 30,
        ..Default::default()
    };
    change.content.content = Some(Content::RetentionChanged(v1::RetentionChanged {
        retention: Some(retention),
    }));
    feed(&mut engine, Wire::Entry(wire(&change)));
    assert_eq!(time_of_an_own_message(&mut engine, 4), 30);
    let told = engine.apply([expired(&[2])], NOW).events;
    assert!(!told.is_empty());
}
