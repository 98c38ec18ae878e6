//! These tests hold when all chats are listed, and that answers about a replaced store are not taken.

use std::time::Duration;

use tern_proto::v1;
use tern_proto::v1::server_event::Event as Wire;
use tern_types::Seq;

use super::{chat, connected, feed, lost};
use crate::engine::chat_state::ChatState;
use crate::engine::look_up::PARTIAL_RETRY;
use crate::engine::{Call, Change, Input, Stored, StoredChat};
use crate::error::CallError;
use crate::model::{ChatList, Event, ListedChat};
use crate::testing::{NOW, engine, entry, frame, opened, user, wire};

#[test]
fn a_listing_that_failed_waits_for_its_pause_even_if_a_stream_opens() {
    let mut engine = engine(Stored::default());
    let effects = engine.apply([Input::Start, Input::Frame(frame(opened(1)))], NOW);
    assert_eq!(effects.calls, [Call::ListChats]);
    let pause = Duration::from_secs(60);
    let busy = CallError {
        retry_after: Some(pause),
        ..CallError::unavailable("busy")
    };
    engine.apply([Input::Listed(Err(busy)), lost()], NOW);
    let at = engine.next_wake().unwrap();
    engine.apply([Input::Tick], at);
    let effects = engine.apply([Input::Frame(frame(opened(1)))], at);
    assert_eq!(effects.calls, []);
    let effects = engine.apply([Input::Tick], NOW + pause);
    assert_eq!(effects.calls, [Call::ListChats]);
}

#[test]
fn chats_that_were_missing_from_a_list_come_with_the_next_one() {
    let mut engine = engine(Stored::default());
    engine.apply([Input::Start, Input::Frame(frame(opened(1)))], NOW);
    let chat_of = |n| {
        let chat = v1::Chat {
            chat_id: chat(n).to_string(),
            ..Default::default()
        };
        ListedChat::try_from(chat).unwrap()
    };
    let partial = ChatList {
        chats: vec![chat_of(1)],
        partial: true,
    };
    let effects = engine.apply([Input::Listed(Ok(partial))], NOW);
    assert!(!effects.changes.contains(&Change::Listed));
    assert!(effects.calls.is_empty());
    assert!(engine.chats.contains_key(&chat(1)), "what came is shown");
    assert!(engine.apply([Input::Tick], NOW + PARTIAL_RETRY).calls.is_empty());
    let later = NOW + PARTIAL_RETRY * 3 / 2;
    let effects = engine.apply([Input::Tick], later);
    assert_eq!(effects.calls, [Call::ListChats]);
    let whole = list(vec![chat_of(1), chat_of(2)]);
    let effects = engine.apply([Input::Listed(Ok(whole))], later);
    assert!(effects.changes.contains(&Change::Listed));
    assert!(engine.chats.contains_key(&chat(2)));
}

/// An earlier version of the store lacks what a list says, so it is not lost if entries are faster than the list.
#[test]
fn a_known_chat_that_was_listed_too_late_is_asked_for_again() {
    let mut row = ChatState::unknown(chat(1)).row;
    (row.known, row.cursor) = (true, Some(Seq(8)));
    let stored = StoredChat {
        row,
        unread: Vec::new(),
        mentions: Vec::new(),
    };
    let mut engine = engine(Stored {
        epoch: Some(uuid::Uuid::from_u128(1)),
        chats: vec![stored],
        ..Stored::default()
    });
    engine.apply([Input::Start, Input::Frame(frame(opened(1)))], NOW);
    let described = |head_seq| {
        let chat = v1::Chat {
            chat_id: chat(1).to_string(),
            head_seq,
            description: "birds".into(),
            ..Default::default()
        };
        ListedChat::try_from(chat).unwrap()
    };
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 9))));
    let late = engine.apply([Input::Listed(Ok(list(vec![described(8)])))], NOW);
    assert_eq!(late.calls, [Call::GetChat(chat(1))]);
    let answer = |result| Input::LookedUp {
        chat: chat(1),
        result,
    };
    engine.apply([answer(Err(CallError::unavailable("busy")))], NOW);
    let next = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 10))));
    assert_eq!(next.calls, [Call::GetChat(chat(1))], "a failure does not end it");
    engine.apply([answer(Ok(described(10)))], NOW);
    assert_eq!(engine.chats[&chat(1)].row.chat.description, "birds");
    let last = feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 11))));
    assert_eq!(last.calls, []);
}

fn list(chats: Vec<ListedChat>) -> ChatList {
    ChatList {
        chats,
        partial: false,
    }
}

#[test]
fn answers_to_calls_from_before_a_reset_are_ignored() {
    let mut engine = connected();
    let before = engine.generation();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 9))));
    engine.apply([lost()], NOW);
    let at = engine.next_wake().unwrap();
    engine.apply([Input::Tick], at);
    let reset = engine.apply([Input::Frame(frame(opened(2)))], at);
    assert!(reset.events.contains(&Event::Reset) && reset.calls.contains(&Call::ListChats));

    let listed = || {
        let chat = v1::Chat {
            chat_id: chat(1).to_string(),
            head_seq: 9,
            resume_seq: 8,
            ..Default::default()
        };
        ListedChat::try_from(chat).unwrap()
    };
    let receipt = v1::Receipt {
        chat_id: chat(1).to_string(),
        user_id: user(2).to_string(),
        delivered_seq: 9,
        read_seq: 9,
    };
    let answers = [
        Input::Listed(Ok(list(vec![listed()]))),
        Input::LookedUp {
            chat: chat(1),
            result: Ok(listed()),
        },
        Input::Filled {
            chat: chat(1),
            result: Ok(vec![entry(chat(1), 9)]),
        },
        Input::ReceiptsRead {
            chat: chat(1),
            result: Ok(vec![receipt]),
        },
    ];
    for answer in answers {
        let what = format!("{answer:?}");
        let late = Input::Answered {
            generation: before,
            answer: Box::new(answer),
        };
        let effects = engine.apply([late], at);
        assert_eq!((effects.changes, effects.events), (vec![], vec![]), "{what}");
    }
    let answered = Input::Answered {
        generation: engine.generation(),
        answer: Box::new(Input::Listed(Ok(list(vec![listed()])))),
    };
    let effects = engine.apply([answered], at);
    assert!(effects.changes.contains(&Change::Listed));
}
