//! These tests hold the number of unread messages that mention the person.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, MessageKind};
use tern_types::Seq;

use super::{chat, connected, feed};
use crate::engine::{Call, Effects, Engine, Input};
use crate::model::{Entry, Event, ListedChat};
use crate::testing::{NOW, entry, user, wire};

/// Returns a message of user 2 that mentions the person.
fn mention(seq: u64) -> Entry {
    with_envelope(
        seq,
        v1::Envelope {
            mentioned_user_ids: vec![user(3).to_string(), user(1).to_string()],
            ..Default::default()
        },
    )
}

fn with_envelope(seq: u64, envelope: v1::Envelope) -> Entry {
    let mut entry = entry(chat(1), seq);
    if let Some(Content::Message(message)) = &mut entry.content.content {
        message.envelope = Some(envelope);
    }
    entry
}

fn came(engine: &mut Engine, entry: &Entry) -> Effects {
    feed(engine, Wire::Entry(wire(entry)))
}

/// Returns the number of unread mentions and the first one, as the app is told.
fn told(effects: &Effects) -> Option<(u32, Option<u64>)> {
    let count = |event: &Event| match event {
        Event::Chat(chat) => Some((
            chat.unread_mention_count,
            chat.first_unread_mention_seq.map(|seq| seq.0),
        )),
        _ => None,
    };
    effects.events.iter().rev().find_map(count)
}

fn read(engine: &mut Engine, seq: u64) -> Effects {
    let mark = Input::MarkRead {
        chat: chat(1),
        seq: Seq(seq),
    };
    engine.apply([mark], NOW)
}

fn confirmed(engine: &mut Engine, read_seq: u64) -> Effects {
    let receipt = v1::Receipt {
        chat_id: chat(1).to_string(),
        user_id: user(1).to_string(),
        delivered_seq: read_seq,
        read_seq,
    };
    feed(engine, Wire::Receipt(receipt))
}

/// Returns an engine to which the server has listed a chat with 9 entries, all unread, with these mentions.
fn listed(count: u32, first: u64) -> Engine {
    let mut engine = connected();
    engine.apply([answer(9, 0, count, first)], NOW);
    engine
}

fn answer(head_seq: u64, read_seq: u64, unread_mention_count: u32, first_unread_mention_seq: u64) -> Input {
    let listed = v1::Chat {
        chat_id: chat(1).to_string(),
        kind: v1::ChatKind::Group.into(),
        head_seq,
        resume_seq: head_seq,
        read_seq,
        unread_count: head_seq - read_seq,
        unread_mention_count,
        first_unread_mention_seq,
        ..Default::default()
    };
    Input::LookedUp {
        chat: chat(1),
        result: Ok(ListedChat::try_from(listed).unwrap()),
    }
}

#[test]
fn mentions_are_counted_until_they_are_read_or_deleted() {
    let mut engine = connected();
    came(&mut engine, &entry(chat(1), 1));
    assert_eq!(told(&came(&mut engine, &mention(2))), Some((1, Some(2))));
    assert_eq!(told(&came(&mut engine, &mention(3))), Some((2, Some(2))));
    assert_eq!(told(&came(&mut engine, &mention(4))), Some((3, Some(2))));
    assert_eq!(told(&read(&mut engine, 2)), Some((2, Some(3))));
    let deletion = v1::Envelope {
        kind: MessageKind::Delete.into(),
        target_seq: 3,
        ..Default::default()
    };
    let effects = came(&mut engine, &with_envelope(5, deletion));
    assert_eq!(told(&effects), Some((1, Some(4))));
    assert_eq!(told(&read(&mut engine, 5)), Some((0, None)));
}

#[test]
fn only_unread_messages_of_others_count() {
    let by_me = Entry {
        sender: Some(user(1)),
        ..mention(1)
    };
    let edit = v1::Envelope {
        kind: MessageKind::Edit.into(),
        target_seq: 1,
        mentioned_user_ids: vec![user(1).to_string()],
        ..Default::default()
    };
    let beside = v1::Envelope {
        uncounted: true,
        mentioned_user_ids: vec![user(1).to_string()],
        ..Default::default()
    };
    let malformed = v1::Envelope {
        mentioned_user_ids: vec!["me".into()],
        ..Default::default()
    };
    for (what, entry) in [
        ("by the person", by_me),
        ("an edit", with_envelope(1, edit)),
        ("one that does not count", with_envelope(1, beside)),
        ("no id", with_envelope(1, malformed)),
    ] {
        let effects = came(&mut connected(), &entry);
        assert_eq!(told(&effects), Some((0, None)), "{what}");
    }
}

#[test]
fn what_the_server_has_listed_counts_together_with_what_comes() {
    let mut engine = listed(2, 4);
    assert_eq!(told(&came(&mut engine, &mention(10))), Some((3, Some(4))));
    assert_eq!(told(&read(&mut engine, 3)), Some((3, Some(4))));
    assert_eq!(told(&read(&mut engine, 9)), Some((1, Some(10))));
}

/// Which of the listed messages mention the person is not known here, so the server has to count the rest.
#[test]
fn the_server_counts_the_rest_of_its_list_once_it_knows_how_far_the_person_has_read() {
    let mut engine = listed(3, 4);
    let effects = read(&mut engine, 6);
    assert_eq!((told(&effects), effects.calls), (Some((2, None)), vec![]));
    assert_eq!(confirmed(&mut engine, 6).calls, [Call::GetChat(chat(1))]);
    let effects = engine.apply([answer(9, 6, 1, 8)], NOW);
    assert_eq!(told(&effects), Some((1, Some(8))));
    assert_eq!(confirmed(&mut engine, 7).calls, [], "nothing is unsure");
}

#[test]
fn a_deletion_in_the_servers_list_is_counted_by_the_server() {
    let mut engine = listed(2, 4);
    let deletion = |seq, target_seq| {
        let envelope = v1::Envelope {
            kind: MessageKind::Delete.into(),
            target_seq,
            ..Default::default()
        };
        with_envelope(seq, envelope)
    };
    let effects = came(&mut engine, &deletion(10, 4));
    assert_eq!(told(&effects), Some((1, None)));
    assert_eq!(effects.calls, [Call::GetChat(chat(1))]);
    engine.apply([answer(10, 0, 1, 7)], NOW);
    let effects = came(&mut engine, &deletion(11, 5));
    assert_eq!(effects.calls, [Call::GetChat(chat(1))], "perhaps it was one");
}

#[test]
fn an_answer_that_does_not_know_of_a_read_mark_makes_no_mention_unread_again() {
    let mut engine = listed(2, 4);
    read(&mut engine, 9);
    let effects = engine.apply([answer(9, 0, 2, 4)], NOW);
    assert_eq!(told(&effects), Some((0, None)));
    let effects = engine.apply([answer(12, 0, 3, 11)], NOW);
    assert_eq!(told(&effects), Some((3, Some(11))), "these are still to come");
}
