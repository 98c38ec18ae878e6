//! These tests hold unread counts, read marks and receipts.

use std::time::Duration;

use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_types::Seq;

use super::{chat, connected, feed};
use crate::engine::{Call, Change, Effects, Input};
use crate::error::CallError;
use crate::model::{Event, ListedChat, Mark};
use crate::testing::{NOW, entry, message_content, user, wire};

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
fn every_message_counts_but_what_says_that_it_does_not() {
    let envelope = |kind: v1::MessageKind, uncounted| v1::Envelope {
        kind: kind.into(),
        uncounted,
        ..Default::default()
    };
    let cases = [
        ("no envelope", None, true),
        ("an empty one", Some(v1::Envelope::default()), true),
        ("a message", Some(envelope(v1::MessageKind::Message, false)), true),
        (
            "one beside",
            Some(envelope(v1::MessageKind::Message, true)),
            false,
        ),
        (
            "a reaction",
            Some(envelope(v1::MessageKind::Reaction, false)),
            false,
        ),
    ];
    for (what, envelope, counts) in cases {
        let mut arrived = entry(chat(1), 1);
        arrived.content = message_content("hello");
        if let Some(Content::Message(message)) = &mut arrived.content.content {
            message.envelope = envelope;
        }
        assert_eq!(arrived.counts_as_unread(), counts, "{what}");
    }
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
fn who_was_removed_counts_among_the_readers_no_more() {
    let mut engine = connected();
    let receipt = |read_seq| {
        Wire::Receipt(v1::Receipt {
            chat_id: chat(1).to_string(),
            user_id: user(2).to_string(),
            delivered_seq: read_seq,
            read_seq,
        })
    };
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    feed(&mut engine, receipt(1));
    let mut removal = entry(chat(1), 2);
    removal.content.content = Some(Content::MemberRemoved(v1::MemberRemoved {
        user_id: user(2).to_string(),
        ..Default::default()
    }));
    let effects = feed(&mut engine, Wire::Entry(wire(&removal)));
    let forgotten = Change::NoReceipt {
        chat: chat(1),
        user: user(2),
    };
    assert!(effects.changes.contains(&forgotten), "{:?}", effects.changes);
    // If they are added again, their watermark begins anew.
    let again = feed(&mut engine, receipt(1)).events;
    assert!(matches!(again.as_slice(), [Event::Receipt { .. }]), "{again:?}");
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
fn receipts_are_asked_for_again_when_the_server_says_caught_up_again_and_the_app_is_not_told() {
    let mut engine = connected();
    for number in 1..=20 {
        feed(&mut engine, Wire::Entry(wire(&entry(chat(number), 1))));
    }
    let first = feed(&mut engine, Wire::CaughtUp(v1::CaughtUp {}));
    assert!(first.events.contains(&Event::CaughtUp));
    let again = feed(&mut engine, Wire::CaughtUp(v1::CaughtUp {}));
    assert!(!again.events.contains(&Event::CaughtUp));
    assert_eq!((first.calls.len(), again.calls.len()), (20, 8));
    assert!(again.calls.iter().all(|call| first.calls.contains(call)));
}

#[test]
fn receipts_that_could_not_be_asked_for_are_asked_for_again() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let asked = feed(&mut engine, Wire::CaughtUp(v1::CaughtUp {}));
    assert_eq!(asked.calls, [Call::Receipts(chat(1))]);
    let failed = Input::ReceiptsRead {
        chat: chat(1),
        result: Err(CallError::unavailable("the node is away")),
    };
    assert_eq!(engine.apply([failed], NOW).calls, []);
    let later = NOW + Duration::from_secs(60);
    let again = engine.apply([Input::Tick], later);
    assert!(
        again.calls.contains(&Call::Receipts(chat(1))),
        "{:?}",
        again.calls
    );
}

#[test]
fn an_answer_that_does_not_know_of_a_read_mark_on_its_way_makes_nothing_unread_again() {
    let mut engine = connected();
    for seq in 1..=3 {
        feed(&mut engine, Wire::Entry(wire(&entry(chat(1), seq))));
    }
    // The server has `head` messages of others, and knows of a read mark at `read`.
    let mut answered = |head: u64, read| {
        let listed = v1::Chat {
            chat_id: chat(1).to_string(),
            head_seq: head,
            unread_count: head - read,
            read_seq: read,
            ..Default::default()
        };
        let answer = Input::LookedUp {
            chat: chat(1),
            result: Ok(ListedChat::try_from(listed).unwrap()),
        };
        let mark = Input::MarkRead {
            chat: chat(1),
            seq: Seq(2),
        };
        let told = engine.apply([mark, answer], NOW).events;
        told.iter().rev().find_map(|event| match event {
            Event::Chat(chat) => Some(chat.unread),
            _ => None,
        })
    };
    // The first answer makes the chat known.
    assert_eq!(answered(3, 2), Some(1));
    assert_eq!(answered(3, 0), Some(1));
    assert_eq!(answered(5, 0), Some(3), "two are still to come");
    assert_eq!(answered(5, 2), Some(3));
}

/// An own message does not mark waiting messages as read, and is never unread itself.
#[test]
fn own_messages_read_nothing_that_was_unread_and_are_not_unread_themselves() {
    let mut engine = connected();
    let unread = |effects: &Effects| {
        let chats = effects.events.iter().filter_map(|event| match event {
            Event::Chat(chat) => Some(chat.unread),
            _ => None,
        });
        chats.last()
    };
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let own = |seq| {
        let mut own = entry(chat(1), seq);
        own.sender = Some(user(1));
        Wire::Entry(wire(&own))
    };
    assert_eq!(unread(&feed(&mut engine, own(2))).unwrap_or(1), 1);
    let receipt = v1::Receipt {
        chat_id: chat(1).to_string(),
        user_id: user(1).to_string(),
        delivered_seq: 1,
        read_seq: 1,
    };
    assert_eq!(unread(&feed(&mut engine, Wire::Receipt(receipt))), Some(0));
    assert_eq!(unread(&feed(&mut engine, own(3))).unwrap_or(0), 0);
}
