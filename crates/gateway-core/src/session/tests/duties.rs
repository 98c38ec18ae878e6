//! These tests hold what the server owes the device: entries are sent again, and rows that the sweep finds and entries
//! whose pushes were dropped are read.

use std::time::Duration;

use bytes::Bytes;
use tern_types::{ChatId, UserId};

use super::{inbox, live, talk};
use crate::session::{Effect, Event, Inbox, InboxRow, Mail};

#[test]
fn what_was_forwarded_and_not_acknowledged_is_sent_again_after_five_seconds() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let live = |seq| live(chat, seq);
    let talk = talk()
        .opened()
        .tell(live(1))
        .tell(live(2))
        .tell(Event::Mail(Mail::Wake { chat, from: 1, to: 2 }));
    let talk = talk.tell(Event::Flushed).wait(Duration::from_millis(4999));
    assert!(talk.wants.is_empty());
    let talk = talk.wait(Duration::from_millis(1));
    assert!(
        matches!(talk.wants[..], [Effect::Window { from: 1, .. }]),
        "{:?}",
        talk.wants
    );
    // Live pushes are held back while the log is read.
    let said = talk.said.len();
    assert_eq!(talk.tell(live(3)).said.len(), said);
}

#[test]
fn a_row_that_only_the_sweep_found_is_a_defect() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let swept = |age| {
        let row = InboxRow {
            chat,
            from: 4,
            age: Duration::from_secs(age),
        };
        Event::Mail(Mail::Swept(Inbox {
            rows: vec![row],
            ..inbox()
        }))
    };
    let talk = talk().opened().tell(swept(9));
    assert!(talk.wants.is_empty(), "young rows are on their way");
    let talk = talk.tell(swept(11));
    assert!(
        matches!(
            talk.wants[..],
            [Effect::SweepFound { .. }, Effect::Window { from: 4, .. }]
        ),
        "{:?}",
        talk.wants
    );
    let talk = talk.tell(swept(70));
    assert_eq!(talk.wants.len(), 2, "now it is known");
}

/// Two owners that do not know of each other settle one chat. The wake of one does not name the entries under the row
/// that the other wrote.
#[test]
fn a_row_that_begins_before_what_its_session_knows_is_found_too() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let swept = |from| {
        let row = InboxRow {
            chat,
            from,
            age: Duration::from_secs(11),
        };
        Event::Mail(Mail::Swept(Inbox {
            rows: vec![row],
            ..inbox()
        }))
    };
    let wake = Event::Mail(Mail::Wake {
        chat,
        from: 12,
        to: 14,
    });
    let talk = talk().opened().tell(wake);
    assert!(
        matches!(talk.wants[..], [Effect::Window { from: 0, .. }]),
        "what the wake names may begin above the row: {:?}",
        talk.wants
    );
    let talk = talk.tell(swept(12)).tell(swept(13));
    assert_eq!(talk.wants.len(), 1, "it is known");
    let talk = talk.tell(swept(4));
    assert!(
        matches!(talk.wants[..], [_, Effect::SweepFound { from: 4, .. }]),
        "{:?}",
        talk.wants
    );
    assert_eq!(talk.tell(swept(4)).wants.len(), 2, "now it is known");
}

#[test]
fn rule_8_a_slow_device_loses_live_pushes_and_is_read_to_instead() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let body = Bytes::from(vec![0; crate::session::settings::LIVE_BELOW_BYTES / 4]);
    let live = |seq| {
        Event::Mail(Mail::Live {
            chat,
            seq,
            event: body.clone(),
        })
    };
    let mut talk = talk().opened().tell(Event::Flushed).wait(Duration::from_secs(1));
    let mut put = 0;
    for seq in 1..=6 {
        let effects = talk.session.apply(live(seq), talk.now);
        put += effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Put(_)))
            .count();
    }
    assert_eq!(put, 4);
    let talk = talk.tell(Event::Flushed);
    // The fifth push was dropped, which shows when the sixth comes.
    assert!(
        matches!(
            talk.wants[..],
            [Effect::ReadInbox, Effect::Window { from: 5, .. }]
        ),
        "{:?}",
        talk.wants
    );
}
