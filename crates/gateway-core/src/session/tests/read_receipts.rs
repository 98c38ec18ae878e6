//! The user's read receipt setting goes up with each read mark and each message.

use std::time::Duration;

use tern_proto::v1;
use tern_types::{ChatId, UserId};

use super::{Talk, inbox, talk};
use crate::session::{Effect, Event, Inbox, Item, Mail, Op};

fn off(off: bool) -> Inbox {
    Inbox {
        read_receipts_off: off,
        ..inbox()
    }
}

impl Talk {
    fn marks(self, chat: ChatId, seq: u64) -> Self {
        self.item(Item::MarkRead(v1::MarkRead {
            chat_id: chat.to_string(),
            seq,
        }))
    }

    /// Returns the setting in each read mark and each message that went up.
    fn settings(&mut self) -> Vec<bool> {
        let setting = |effect: Effect| match effect {
            Effect::Up(Op::Read { off, .. }) => Some(off),
            Effect::Up(Op::Send { send, .. }) => Some(send.read_receipts_off),
            _ => None,
        };
        self.wants.drain(..).filter_map(setting).collect()
    }
}

#[test]
fn the_inbox_says_it_a_change_is_told_and_the_sweep_makes_up_for_one_that_was_not() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let mut talk = talk()
        .open()
        .tell(Event::Announced)
        .tell(Event::Mail(Mail::Inbox(off(true))));
    talk = talk.marks(chat, 1).send(|_| ());
    assert_eq!(talk.settings(), [true, true]);
    talk = talk
        .tell(Event::ReadReceipts { off: false })
        .marks(chat, 2)
        .send(|_| ());
    assert_eq!(talk.settings(), [false, false]);
    talk = talk.tell(Event::Mail(Mail::Swept(off(true)))).marks(chat, 3);
    assert_eq!(talk.settings(), [false], "read before it was told");
    talk = talk
        .wait(Duration::from_secs(10))
        .tell(Event::Mail(Mail::Swept(off(true))))
        .marks(chat, 4);
    assert_eq!(talk.settings(), [true]);
}

#[test]
fn a_mark_that_is_sent_again_says_what_it_said() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let mut talk = talk().opened().marks(chat, 1);
    talk = talk
        .tell(Event::ReadReceipts { off: true })
        .tell(Event::Moved(&|_| true));
    assert_eq!(talk.settings(), [false, false]);
}
