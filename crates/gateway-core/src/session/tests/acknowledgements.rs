//! An acknowledgement is written to the store if there is an inbox row, and sent again if it may be lost.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::v1;
use tern_types::{ChatId, UserId};

use super::{ack, live, talk};
use crate::session::{Effect, Event, Item, Mail, Op, Window};

/// Checks that `wants` is one effect, the acknowledgement of `seq`, and that it is to be written if `write` is true.
#[track_caller]
fn is_one_ack(wants: &[Effect], seq: u64, write: bool) {
    let [
        Effect::Up(Op::Ack {
            seq: of,
            write: written,
            ..
        }),
    ] = wants
    else {
        panic!("{wants:?}")
    };
    assert_eq!((*of, *written), (seq, write));
}

#[test]
fn an_acknowledgement_is_written_only_where_there_is_a_row() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let ack = |seq| ack(chat, seq);
    let live = |seq| live(chat, seq);
    let mut talk = talk().opened().tell(live(1)).item(ack(1));
    is_one_ack(&talk.wants[..], 1, false);
    // The wake names an entry that was pushed already: it is not read again, but its row has to end.
    talk = talk
        .tell(live(2))
        .tell(Event::Mail(Mail::Wake { chat, from: 2, to: 2 }))
        .item(ack(2))
        .item(ack(2));
    is_one_ack(&talk.wants[1..], 2, true);
    talk = talk.tell(live(3)).item(ack(3));
    assert_eq!(talk.wants.len(), 2, "one is written at a time");
    // The acknowledgement of 2 was written after 3 was committed: the row stays for 3.
    talk = talk.tell(Event::Mail(Mail::AckWritten {
        chat,
        seq: 2,
        row_from: 3,
    }));
    is_one_ack(&talk.wants[2..], 3, true);
    talk = talk
        .tell(Event::Mail(Mail::AckWritten {
            chat,
            seq: 3,
            row_from: 0,
        }))
        .tell(live(4))
        .item(ack(4));
    is_one_ack(&talk.wants[3..], 4, false);
    // A wake names an entry that was acknowledged before: the owner that wrote the row did not know that.
    talk = talk.tell(Event::Mail(Mail::Wake { chat, from: 4, to: 4 }));
    is_one_ack(&talk.wants[4..], 4, true);
}

#[test]
fn a_wake_that_overtakes_an_older_written_acknowledgement_is_not_forgotten() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let ack = |seq| ack(chat, seq);
    let live = |seq| live(chat, seq);
    let wake = |seq| {
        Event::Mail(Mail::Wake {
            chat,
            from: seq,
            to: seq,
        })
    };
    let written = |seq, row_from| Event::Mail(Mail::AckWritten { chat, seq, row_from });
    let mut talk = talk()
        .opened()
        .tell(live(1))
        .tell(wake(1))
        .item(ack(1))
        .tell(live(2));
    // The chat has moved: the wake of its new owner comes before the answer of the old one.
    talk = talk.tell(wake(2)).tell(written(1, 0));
    talk.wants.clear();
    talk = talk.tell(written(1, 2)).item(ack(2));
    is_one_ack(&talk.wants[..], 2, true);
}

#[test]
fn fine_print_12_the_last_acknowledgement_is_sent_again_when_the_slot_moves() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let ack = v1::Ack {
        chat_id: chat.to_string(),
        seq: 1,
    };
    let live = Mail::Live {
        chat,
        seq: 1,
        event: Bytes::new(),
    };
    let talk = talk().opened().tell(Event::Mail(live)).item(Item::Ack(ack));
    let before = talk.wants.len();
    let talk = talk.tell(Event::Moved(&|moved| moved == chat));
    assert!(
        matches!(talk.wants[before..], [Effect::Up(Op::Ack { seq: 1, .. })]),
        "{:?}",
        talk.wants
    );
}

/// Some clients acknowledge their cursor with each entry that they cannot use yet. The store writes each of these
/// acknowledgements, because the device has an inbox row.
#[test]
fn an_acknowledgement_without_progress_does_not_put_off_what_is_sent_again() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let wake = Event::Mail(Mail::Wake { chat, from: 2, to: 2 });
    let written = || {
        Event::Mail(Mail::AckWritten {
            chat,
            seq: 1,
            row_from: 2,
        })
    };
    let mut talk = talk().opened().tell(live(chat, 1)).item(ack(chat, 1));
    talk = talk.tell(live(chat, 2)).tell(wake).tell(Event::Flushed);
    for _ in 0..4 {
        talk.wants.clear();
        talk = talk.wait(Duration::from_secs(1)).item(ack(chat, 1));
        is_one_ack(&talk.wants[..], 1, true);
        talk = talk.tell(written());
    }
    assert!(
        !talk
            .wants
            .iter()
            .any(|want| matches!(want, Effect::Window { .. }))
    );
    let mut talk = talk.wait(Duration::from_secs(1));
    assert!(
        matches!(talk.wants.last(), Some(Effect::Window { from: 2, .. })),
        "{:?}",
        talk.wants
    );
    // It does not count as an answer to the first try either: the second one comes after twice the time.
    let reference = talk.window_reference();
    talk = talk.tell(Event::Mail(Mail::Window(Window {
        reference,
        chat,
        events: vec![Bytes::new()],
        seqs: vec![2],
        next: 3,
        done: true,
    })));
    talk = talk.tell(Event::Flushed).item(ack(chat, 1)).tell(written());
    talk.wants.clear();
    let talk = talk.wait(Duration::from_secs(9));
    assert!(talk.wants.is_empty(), "{:?}", talk.wants);
    let talk = talk.wait(Duration::from_secs(1));
    assert!(
        matches!(talk.wants[..], [Effect::Window { from: 2, .. }]),
        "{:?}",
        talk.wants
    );
}
