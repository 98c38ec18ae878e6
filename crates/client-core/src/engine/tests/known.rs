//! These tests hold what is known of a chat, and when the server is asked for it.

use std::time::Duration;

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, ErrorReason};
use tern_types::Timestamp;

use super::{chat, connected, feed, refused};
use crate::engine::{Call, Effects, Engine, Input};
use crate::model::{Chat, Event, ListedChat, erased};
use crate::testing::{NOW, entry, user, wire};

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

fn added(seq: u64) -> Wire {
    let user_ids = vec![user(1).to_string()];
    let added = v1::MembersAdded {
        user_ids,
        ..Default::default()
    };
    change(seq, Content::MembersAdded(added))
}

fn not_found(engine: &mut Engine) -> Effects {
    let answer = Input::LookedUp {
        chat: chat(1),
        result: Err(refused(tern_proto::Code::NotFound, ErrorReason::ChatNotFound)),
    };
    engine.apply([answer], NOW)
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

/// A message that was erased before the device got it changes nothing of the chat, and counts as unread like others.
#[test]
fn an_erased_message_is_a_message_and_no_change_of_the_chat() {
    let mut engine = connected();
    feed(&mut engine, skipped(8));
    let content = erased(v1::MessageKind::Message, None).content;
    feed(&mut engine, change(9, content.unwrap()));
    let told = shown(&found(&mut engine, group(8, "team"), NOW));
    assert_eq!((told.head.0, told.unread), (9, 1));
    let effects = engine.apply([Input::Tick], NOW + Duration::from_secs(2));
    assert_eq!(effects.calls, [], "it is known");
}

#[test]
fn a_person_who_is_added_to_a_group_again_sees_it_as_it_is_now() {
    let mut engine = connected();
    let created = v1::ChatCreated {
        title: "team".into(),
        member_user_ids: vec![user(1).to_string(), user(3).to_string()],
    };
    feed(&mut engine, change(1, Content::ChatCreated(created)));
    let admin = v1::RoleChanged {
        user_id: user(1).to_string(),
        role: v1::Role::Admin.into(),
        ..Default::default()
    };
    feed(&mut engine, change(2, Content::RoleChanged(admin)));
    let removed = v1::MemberRemoved {
        user_id: user(1).to_string(),
        ..Default::default()
    };
    let gone = feed(&mut engine, change(3, Content::MemberRemoved(removed)));
    assert!(shown(&gone).left);
    assert_eq!(feed(&mut engine, skipped(8)).calls, []);
    let back = feed(&mut engine, added(9));
    let told = shown(&back);
    assert_eq!((told.left, told.role), (false, v1::Role::Member));
    assert_eq!(back.calls, [Call::GetChat(chat(1))]);
    let now = shown(&found(&mut engine, group(9, "the new team"), NOW));
    assert_eq!((now.title.as_str(), now.member_count), ("the new team", 3));
    assert_eq!(engine.apply([Input::Tick], NOW).calls, []);
}

#[test]
fn a_chat_that_the_person_had_left_before_it_was_known_is_known_once_they_are_added_again() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 9))));
    let left = shown(&not_found(&mut engine));
    assert_eq!((left.left, left.kind), (true, v1::ChatKind::Unspecified));
    feed(&mut engine, skipped(20));
    assert_eq!(feed(&mut engine, added(21)).calls, [Call::GetChat(chat(1))]);
    let told = shown(&found(&mut engine, group(21, "team"), NOW));
    assert_eq!((told.left, told.kind), (false, v1::ChatKind::Group));
    assert_eq!(told.title, "team");
}

#[test]
fn an_answer_from_before_the_person_was_added_does_not_take_them_for_a_stranger() {
    let mut engine = connected();
    assert_eq!(feed(&mut engine, skipped(8)).calls, [Call::GetChat(chat(1))]);
    assert_eq!(feed(&mut engine, added(9)).calls, []);
    let late = not_found(&mut engine);
    assert_eq!(late.calls, [Call::GetChat(chat(1))]);
    let told = shown(&found(&mut engine, group(9, "team"), NOW));
    assert_eq!((told.left, told.title.as_str()), (false, "team"));
}
