//! These tests hold how entries are applied and acknowledged, how gaps are closed, and where a chat's cursor begins.

use std::ops::RangeInclusive;
use std::time::Duration;

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, ErrorReason};
use tern_types::Seq;

use super::{acks, chat, connected, feed, lost, refused, told};
use crate::engine::{Call, Effects, Input};
use crate::model::Event;
use crate::testing::{NOW, entry, frame, opened, user, wire};

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
    let result = Err(refused(tern_proto::Code::NotFound, ErrorReason::ChatNotFound));
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

/// Returns the seqs from which missing entries are read.
fn fills(effects: &Effects) -> Vec<u64> {
    let from = |call: &Call| match call {
        Call::Fill { from, .. } => Some(from.0),
        _ => None,
    };
    effects.calls.iter().filter_map(from).collect()
}

#[test]
fn a_large_gap_is_read_page_after_page_without_a_pause() {
    let mut engine = connected();
    for seq in [1, 600] {
        feed(&mut engine, Wire::Entry(wire(&entry(chat(1), seq))));
    }
    let later = NOW + Duration::from_secs(20);
    assert_eq!(fills(&engine.apply([Input::Tick], later)), [2]);
    let page = |seqs: RangeInclusive<u64>| Input::Filled {
        chat: chat(1),
        result: Ok(seqs.map(|seq| entry(chat(1), seq)).collect()),
    };
    assert_eq!(fills(&engine.apply([page(2..=257)], later)), [258]);
    assert_eq!(fills(&engine.apply([page(258..=513)], later)), [514]);
    let empty = RangeInclusive::new(1, 0);
    let vain = engine.apply([page(empty)], later);
    assert_eq!(
        fills(&vain),
        [0; 0],
        "a page without entries is not followed by another"
    );
    let again = later + Duration::from_secs(15);
    assert_eq!(fills(&engine.apply([Input::Tick], again)), [514]);
    let last = engine.apply([page(514..=599)], again);
    assert_eq!(told(&last), (514..=600).collect::<Vec<_>>());
    assert_eq!(fills(&last), [0; 0]);
}

/// Lets five minutes pass in which an entry is missing below the held one, and ListEntries is refused. Returns the seqs
/// that the app is told, and the number of calls. `removal_came` says whether the held entry removed the person.
fn removed_behind_a_gap(caught_up: bool, removal_came: bool) -> (Vec<u64>, usize) {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let user_id = user(1).to_string();
    let mut removed = entry(chat(1), 3);
    if removal_came {
        removed.content.content = Some(Content::MemberRemoved(v1::MemberRemoved {
            user_id,
            ..Default::default()
        }));
    }
    feed(&mut engine, Wire::Entry(wire(&removed)));
    if caught_up {
        feed(&mut engine, Wire::CaughtUp(v1::CaughtUp {}));
    }
    let (mut seqs, mut calls) = (Vec::new(), 0);
    let end = NOW + Duration::from_secs(300);
    while let Some(at) = engine.next_wake().filter(|at| *at <= end) {
        let alive = v1::HeartbeatAck {
            heartbeat_interval_ms: 45_000,
            ..Default::default()
        };
        let alive = Input::Frame(frame(Wire::HeartbeatAck(alive)));
        for _ in fills(&engine.apply([Input::Tick, alive], at)) {
            calls += 1;
            let refused = Input::Filled {
                chat: chat(1),
                result: Err(refused(tern_proto::Code::NotFound, ErrorReason::ChatNotFound)),
            };
            seqs.extend(told(&engine.apply([refused], at)));
        }
    }
    (seqs, calls)
}

#[test]
fn what_is_missing_of_a_chat_that_the_person_has_left_is_given_up_once_the_server_would_have_sent_it() {
    assert_eq!(
        removed_behind_a_gap(true, true),
        (vec![3], 8),
        "every 15 s for two minutes"
    );
    for (caught_up, removal_came) in [(false, true), (true, false)] {
        let (seqs, _) = removed_behind_a_gap(caught_up, removal_came);
        assert_eq!(seqs, [0; 0], "it may still wait at the server");
    }
}

#[test]
fn a_new_stream_has_the_time_to_close_a_gap_before_the_missing_entries_are_read() {
    let mut engine = connected();
    for seq in [1, 3] {
        feed(&mut engine, Wire::Entry(wire(&entry(chat(1), seq))));
    }
    engine.apply([lost()], NOW);
    let later = NOW + Duration::from_secs(60);
    assert_eq!(
        fills(&engine.apply([Input::Tick], later)),
        [0; 0],
        "there is no stream"
    );
    assert_eq!(
        fills(&engine.apply([Input::Frame(frame(opened(1)))], later)),
        [0; 0]
    );
    let still = later + Duration::from_secs(15);
    assert_eq!(fills(&engine.apply([Input::Tick], still)), [2]);
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
    let result = Err(refused(tern_proto::Code::NotFound, ErrorReason::ChatNotFound));
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
fn garbage_of_the_server_is_ignored() {
    let mut engine = connected();
    let no_chat = v1::Entry {
        chat_id: "'; drop table chats; --".into(),
        seq: 1,
        ..Default::default()
    };
    let no_content = v1::Entry {
        content: bytes::Bytes::from_static(b"\xff"),
        ..wire(&entry(chat(1), 1))
    };
    let events = [
        Wire::Entry(no_chat),
        Wire::Entry(no_content),
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
