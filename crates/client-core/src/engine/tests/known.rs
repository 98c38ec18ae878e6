//! These tests hold what is known of a chat, and when the server is asked for it.

use std::time::Duration;

use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_types::Timestamp;

use super::{chat, connected, feed};
use crate::engine::{Call, Effects, Engine, Input};
use crate::model::{Chat, Event, ListedChat};
use crate::testing::{NOW, entry, wire};

/// Returns the answer to a look-up of chat 1, a group with this head and title.
fn group(head_seq: u64, title: &str) -> ListedChat {
    let group = v1::Chat {
        chat_id: chat(1).to_string(),
        kind: v1::ChatKind::Group.into(),
        title: title.into(),
        head_seq,
        resume_seq: head_seq,
        member_count: 3,
        role: v1::Role::Member.into(),
        ..Default::default()
    };
    ListedChat::try_from(group).unwrap()
}

/// Returns an entry of chat 1 that changes the chat.
fn change(seq: u64, content: Content) -> Wire {
    let mut change = entry(chat(1), seq);
    change.content.content = Some(content);
    Wire::Entry(wire(&change))
}

fn skipped(to_seq: u64) -> Wire {
    Wire::Skipped(v1::Skipped {
        chat_id: chat(1).to_string(),
        to_seq,
        ..Default::default()
    })
}

fn found(engine: &mut Engine, listed: ListedChat, now: Timestamp) -> Effects {
    let answer = Input::LookedUp {
        chat: chat(1),
        result: Ok(listed),
    };
    engine.apply([answer], now)
}

/// Returns the chat as the app was told of it last.
fn shown(effects: &Effects) -> Chat {
    let chat = |event: &Event| match event {
        Event::Chat(chat) => Some(chat.clone()),
        _ => None,
    };
    let last = effects.events.iter().rev().find_map(chat);
    last.expect("the chat is told")
}

#[test]
fn an_answer_that_entries_have_overtaken_tells_of_an_unknown_chat_all_the_same() {
    let mut engine = connected();
    assert_eq!(feed(&mut engine, skipped(8)).calls, [Call::GetChat(chat(1))]);
    for seq in [9, 10] {
        feed(&mut engine, Wire::Entry(wire(&entry(chat(1), seq))));
    }
    let effects = found(&mut engine, group(8, "team"), NOW);
    let told = shown(&effects);
    assert_eq!((told.kind, told.title.as_str()), (v1::ChatKind::Group, "team"));
    assert_eq!((told.role, told.member_count), (v1::Role::Member, 3));
    assert_eq!((told.head.0, told.unread), (10, 2));
    assert_eq!(effects.calls, []);
}

#[test]
fn what_entries_changed_above_an_answers_head_stays_and_the_server_is_asked_once_more() {
    let mut engine = connected();
    feed(&mut engine, skipped(8));
    let renamed = v1::ChatUpdated { title: "new".into() };
    feed(&mut engine, change(9, Content::ChatUpdated(renamed)));
    let effects = found(&mut engine, group(8, "old"), NOW);
    let told = shown(&effects);
    assert_eq!((told.kind, told.title.as_str()), (v1::ChatKind::Group, "new"));
    assert_eq!(effects.calls, [], "not at once");
    let later = NOW + Duration::from_secs(2);
    let effects = engine.apply([Input::Tick], later);
    assert_eq!(effects.calls, [Call::GetChat(chat(1))]);
    let told = shown(&found(&mut engine, group(9, "new"), later));
    assert_eq!((told.title.as_str(), told.role), ("new", v1::Role::Member));
    let effects = engine.apply([Input::Tick], later + Duration::from_secs(2));
    assert_eq!(effects.calls, [], "it is known");
}
