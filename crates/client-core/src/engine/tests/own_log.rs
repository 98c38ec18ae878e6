//! These tests hold what the person's own log does, and that it is no chat to show.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, AccountChange, ErrorReason};
use tern_types::{ChatId, Seq};

use super::{acks, chat, connected, feed, refused};
use crate::engine::{Call, Change, Effects, Engine, Input};
use crate::model::{Chat, ChatSettings, Entry, Event, ListedChat};
use crate::testing::{NOW, entry, user, wire};

fn log() -> ChatId {
    ChatId::own(user(1))
}

fn own(seq: u64, content: Content) -> Entry {
    let mut own = entry(log(), seq);
    own.sender = Some(user(1));
    own.content.content = Some(content);
    own
}

fn came(engine: &mut Engine, seq: u64, content: Content) -> Effects {
    feed(engine, Wire::Entry(wire(&own(seq, content))))
}

fn settings(archived: bool, draft: &'static str) -> ChatSettings {
    ChatSettings {
        archived,
        draft: draft.into(),
        ..Default::default()
    }
}

fn changed(settings: ChatSettings) -> Content {
    Content::ChatSettingsChanged(v1::ChatSettingsChanged {
        chat_id: chat(1).to_string(),
        settings: Some(settings),
    })
}

fn listed(settings: Option<ChatSettings>) -> Input {
    let listed = v1::Chat {
        chat_id: chat(1).to_string(),
        kind: v1::ChatKind::Group.into(),
        head_seq: 1,
        settings,
        ..Default::default()
    };
    Input::LookedUp {
        chat: chat(1),
        result: Ok(ListedChat::try_from(listed).unwrap()),
    }
}

fn told(effects: &Effects) -> Option<&Chat> {
    effects.events.iter().rev().find_map(|event| match event {
        Event::Chat(chat) => Some(chat),
        _ => None,
    })
}

#[test]
fn its_entries_are_stored_and_acknowledged_and_shown_to_nobody() {
    let mut engine = connected();
    let effects = came(&mut engine, 1, changed(settings(true, "")));
    assert_eq!(acks(&effects), [(log().to_string(), 1)]);
    let stored = |change: &Change| matches!(change, Change::Entry(entry) if entry.chat == log());
    assert!(effects.changes.iter().any(stored), "{:?}", effects.changes);
    let skipped = v1::Skipped {
        chat_id: log().to_string(),
        to_seq: 8,
        ..Default::default()
    };
    let more = feed(&mut engine, Wire::Skipped(skipped));
    assert_eq!((effects.events, more.events), (vec![], vec![]));
}

#[test]
fn a_new_device_begins_where_the_server_says() {
    let mut engine = connected();
    let held = came(&mut engine, 9, changed(settings(true, "")));
    assert_eq!(held.calls, [Call::GetChat(log())]);
    let answer = Input::LookedUp {
        chat: log(),
        result: Err(refused(tern_proto::Code::NotFound, ErrorReason::ChatNotFound)),
    };
    let effects = engine.apply([answer], NOW);
    assert_eq!(acks(&effects), [(log().to_string(), 9)]);
}

#[test]
fn settings_are_those_of_the_newest_change_whatever_the_order_of_the_answers() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    engine.apply([listed(Some(settings(true, "listed")))], NOW);
    let shown = |effects: &Effects| told(effects).map(|chat| chat.settings.clone());
    let unknown = engine.apply([listed(None)], NOW);
    assert_eq!(shown(&unknown), Some(settings(true, "listed")), "nothing is said");
    let effects = came(&mut engine, 1, changed(settings(false, "first")));
    assert_eq!(shown(&effects), Some(settings(false, "first")));
    // This device changes them. The answer comes before the entry of an earlier change elsewhere.
    let set = Input::SettingsSet {
        chat: chat(1),
        settings: settings(true, "third"),
        seq: Seq(3),
    };
    assert_eq!(shown(&engine.apply([set], NOW)), Some(settings(true, "third")));
    for seq in [2, 3] {
        let effects = came(&mut engine, seq, changed(settings(true, "third")));
        assert_eq!(shown(&effects), None, "it is known");
    }
    let late = engine.apply([listed(Some(settings(false, "old")))], NOW);
    assert_eq!(shown(&late), Some(settings(true, "third")));
}

#[test]
fn a_chat_is_not_marked_as_unread_any_more_when_it_is_read() {
    let mut engine = connected();
    for seq in [1, 2] {
        feed(&mut engine, Wire::Entry(wire(&entry(chat(1), seq))));
    }
    let marked = ChatSettings {
        marked_unread: true,
        ..Default::default()
    };
    came(&mut engine, 1, changed(marked));
    let read = Input::MarkRead {
        chat: chat(1),
        seq: Seq(2),
    };
    let effects = engine.apply([read], NOW);
    assert_eq!(
        told(&effects).map(|chat| chat.settings.marked_unread),
        Some(false)
    );
}

#[test]
fn a_draft_is_stored_with_its_chat_only() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let effects = came(&mut engine, 1, changed(settings(false, "a secret")));
    let secret = |entry: &Entry| {
        let bytes = entry.encoded_content();
        bytes.windows(8).any(|part| part == b"a secret")
    };
    for change in &effects.changes {
        match change {
            Change::Entry(entry) => assert!(!secret(entry)),
            Change::Chat(row) if row.chat.id == chat(1) => assert_eq!(row.chat.settings.draft, "a secret"),
            _ => {}
        }
    }
}

#[test]
fn hidden_messages_are_erased_and_gone() {
    let hidden = Content::MessagesHidden(v1::MessagesHidden {
        chat_id: chat(1).to_string(),
        seqs: vec![3, 5],
    });
    let seqs = vec![Seq(3), Seq(5)];
    let change = Change::Hide {
        chat: chat(1),
        seqs: seqs.clone(),
    };
    let event = Event::Gone {
        chat: chat(1),
        seqs: seqs.clone(),
    };
    let mut engine = connected();
    let by_log = came(&mut engine, 1, hidden.clone());
    let at_once = engine.apply([Input::Hidden { chat: chat(1), seqs }], NOW);
    let read_again = engine.apply([Input::History(vec![own(1, hidden)])], NOW);
    for effects in [by_log, at_once, read_again] {
        assert!(effects.changes.contains(&change), "{:?}", effects.changes);
        assert!(effects.events.contains(&event), "{:?}", effects.events);
    }
}

#[test]
fn a_message_that_was_hidden_before_it_came_is_told_without_its_content() {
    let mut engine = connected();
    let hidden = Content::MessagesHidden(v1::MessagesHidden {
        chat_id: chat(1).to_string(),
        seqs: vec![2, 9],
    });
    came(&mut engine, 1, hidden);
    for (seq, vanished) in [(1, false), (2, true), (3, false)] {
        let effects = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), seq))));
        let told = effects.events.iter().find_map(|event| match event {
            Event::Entry(entry) => Some(entry.has_vanished()),
            _ => None,
        });
        assert_eq!(told, Some(vanished), "{seq}");
    }
    let skipped = v1::Skipped {
        chat_id: chat(1).to_string(),
        to_seq: 20,
        ..Default::default()
    };
    feed(&mut engine, Wire::Skipped(skipped));
    assert!(engine.hidden_ahead.is_empty(), "nothing of it comes any more");
}

#[test]
fn requests_to_join_and_changes_of_the_account_are_told() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let asked = Content::JoinRequested(v1::JoinRequested {
        chat_id: chat(1).to_string(),
        user_id: user(7).to_string(),
    });
    let effects = came(&mut engine, 1, asked);
    let event = Event::JoinRequested {
        chat: chat(1),
        user: user(7),
    };
    assert!(effects.events.contains(&event), "{:?}", effects.events);
    assert_eq!(told(&effects).map(|chat| chat.join_request_count), Some(1));
    let linked = Content::AccountChanged(v1::AccountChanged {
        change: AccountChange::DeviceLinked.into(),
        subject_id: "a device".into(),
    });
    let event = Event::AccountChanged {
        change: AccountChange::DeviceLinked,
        subject: "a device".into(),
    };
    assert_eq!(came(&mut engine, 2, linked).events, [event]);
    let none = Input::JoinRequests {
        chat: chat(1),
        count: 0,
    };
    let effects = engine.apply([none], NOW);
    assert_eq!(told(&effects).map(|chat| chat.join_request_count), Some(0));
}
