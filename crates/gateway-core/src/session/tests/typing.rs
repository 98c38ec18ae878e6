//! A typing notice goes up once in 3 s for each chat.

use std::time::Duration;

use tern_proto::v1::{self, send_message};
use tern_types::{ChatId, Notice, UserId};

use super::{Talk, talk};
use crate::session::{Effect, Item};

fn chat() -> ChatId {
    ChatId::direct(UserId::random(), UserId::random())
}

impl Talk {
    fn typing(self, chat: ChatId, stopped: bool) -> Self {
        self.item(Item::Notice(chat.to_string(), Notice::Typing { stopped }))
    }

    /// Returns for each typing notice that went up whether it says that the user stopped, and `None` for one that was
    /// throttled.
    fn went_up(&mut self) -> Vec<Option<bool>> {
        let typing = |effect: Effect| match effect {
            Effect::Notice {
                notice: Notice::Typing { stopped },
                ..
            } => Some(Some(stopped)),
            Effect::NoticeThrottled(_) => Some(None),
            _ => None,
        };
        self.wants.drain(..).filter_map(typing).collect()
    }
}

#[test]
fn one_in_three_seconds_goes_up_and_stopping_at_once() {
    let (one, other) = (chat(), chat());
    let mut talk = talk()
        .opened()
        .typing(one, false)
        .typing(one, false)
        .typing(other, false);
    assert_eq!(talk.went_up(), [Some(false), None, Some(false)], "a chat each");
    talk = talk
        .wait(Duration::from_secs(1))
        .typing(one, true)
        .typing(one, true);
    assert_eq!(talk.went_up(), [Some(true), None]);
    talk = talk
        .wait(Duration::from_secs(2))
        .typing(one, false)
        .typing(other, false);
    assert_eq!(talk.went_up(), [None, Some(false)], "the 3 s began anew");
    talk = talk.wait(Duration::from_secs(1)).typing(one, false);
    assert_eq!(talk.went_up(), [Some(false)]);
    assert!(talk.said.is_empty(), "never answered");
}

#[test]
fn a_message_ends_it_so_that_stopping_says_nothing() {
    let chat = chat();
    let to = Some(send_message::To::ChatId(chat.to_string()));
    let mut talk = talk()
        .opened()
        .typing(chat, false)
        .send(|send| send.to = to)
        .typing(chat, true);
    assert_eq!(talk.went_up(), [Some(false), None]);
}

#[test]
fn a_client_that_names_ever_others_is_held_to_a_few_chats() {
    let mut talk = talk().opened();
    for _ in 0..100 {
        talk = talk.typing(chat(), false);
    }
    let passed = talk.went_up().into_iter().flatten().count();
    assert_eq!(passed, 8);
    talk = talk.wait(Duration::from_secs(6)).typing(chat(), false);
    assert_eq!(talk.went_up(), [Some(false)]);
}

/// A malformed item never ends the stream.
#[test]
fn an_item_whose_chat_is_none_is_ignored() {
    for chat_id in ["", "nonsense", "'; DROP TABLE inbox; --"] {
        let chat_id = || chat_id.to_owned();
        let items = [
            Item::Ack(v1::Ack {
                chat_id: chat_id(),
                seq: 1,
            }),
            Item::MarkRead(v1::MarkRead {
                chat_id: chat_id(),
                seq: 1,
            }),
            Item::Notice(chat_id(), Notice::Typing { stopped: false }),
        ];
        for item in items {
            let mut talk = talk().opened();
            talk.wants.clear();
            talk = talk.item(item.clone());
            assert!(talk.session.is_open(), "{item:?}");
            assert!(
                talk.said.is_empty() && talk.wants.is_empty(),
                "{item:?}: {:?}",
                talk.wants
            );
        }
    }
}
